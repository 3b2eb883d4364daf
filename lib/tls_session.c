/*
 * tls_session: sessions, packed for a ticket or the cache, and checked again
 * when they come back.  With a session go the client's certificates, since
 * they are to be verified anew.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <mbedtls/platform_time.h>

#include "memory.h"
#include "tls.h"
#include "tls_error.h"
#include "tls_names.h"
#include "tls_psk.h"
#include "tls_suites.h"
#include "tls_ticket.h"
#include "tls_verify.h"
#include "util.h"

#define TICKET_MAX	8192		/* of what is in it */
#define TICKETS_TRIED	4		/* in a handshake */
#define ID_SIZE		32		/* of a session */
#define WAYS		8		/* places in the cache for an ID */
#define SLOT_SIZE	512		/* of a place there */
#define SLOT_WITH_CLIENT 4096

/*
 * A place in the cache.  It has no lock: what two processes write at once, or
 * one that is killed, does not unseal for that ID, and counts as empty.
 */
struct slot {
	uint32_t used;			/* by the clock; 0: never */
	unsigned char id[ID_SIZE];
	uint32_t len;
	unsigned char ticket[];
};

/* In memory of all processes: no pointers, and no sizes to be trusted. */
struct shared {
	struct ticket_store tickets;
	atomic_uint clock;		/* counts what is stored, and wraps */
	unsigned char slots[];
};

struct tls_sessions {
	struct shared *shared;
	struct tls_sessions_memory memory;
	size_t	 nslots;
	size_t	 slot_size;
	unsigned users;
};

/*
 * The head of a ticket's plaintext, in front of the server name, the key that
 * both sides have, and the session: 1 for TLS 1.3; when the session began (s);
 * when it was saved (ms); the offset of the library's own time in it; its
 * length; the name's; and that of the key's identity.
 */
enum {
	AT_TLS13, AT_BORN = 1, AT_SAVED = 9, AT_TIME = 17, AT_LENGTH = 19,
	AT_NAME = 21, AT_IDENTITY = 22, SESSION_HEAD = 23
};

/* The time of day in milliseconds, by which hosts can tell a session's age. */
static int64_t
wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Where in a saved session of TLS 1.3 the library has put the time of its
 * ticket.  That is a clock of this host's, from its boot on; another one has
 * to put a time of its own there.  0: nowhere.
 */
static size_t
find_time(const mbedtls_ssl_session *session, const unsigned char *saved,
    size_t len)
{
	unsigned char created[8];
	mbedtls_ms_time_t ms;
	size_t i;

	/* Which only asks, whatever it is declared as. */
	if (mbedtls_ssl_session_get_ticket_creation_time(
	    (mbedtls_ssl_session *)(uintptr_t)session, &ms) != 0)
		return 0;
	be_put(created, (uint64_t)ms, sizeof(created));
	for (i = 1; i + sizeof(created) <= len; i++)
		if (memcmp(saved + i, created, sizeof(created)) == 0)
			return i;
	return 0;
}

/* The server name and the key, behind a ticket's head; 0: they don't fit. */
static size_t
pack_names(const struct tls *t, unsigned char *p, size_t size)
{
	size_t n = SESSION_HEAD, name = t->sni != NULL ? strlen(t->sni) : 0;
	size_t key = t->psk != NULL ? t->psk->name_len : 0;

	if (size < n + name + tls_psk_packed(key))
		return 0;
	be_put(p + AT_NAME, name, 1);
	be_put(p + AT_IDENTITY, key, 1);
	if (name > 0)
		memcpy(p + n, t->sni, name);
	if (key > 0)
		tls_psk_pack(t->psk, p + n + name);
	return n + name + tls_psk_packed(key);
}

/*
 * Make the plaintext of a ticket: its head, the names, the session, and the
 * client's certificates.  Its length, or 0: it does not fit, or is not to be
 * resumed.  That is so for a name that is not a host's, which can't be compared
 * later, and in TLS 1.2 without an extended master secret (RFC 7627 section
 * 5.3).
 */
static size_t
session_pack(const struct tls *t, const mbedtls_ssl_session *session,
    unsigned char *p, size_t size)
{
	int64_t now = wall_ms();
	size_t len, head;

	if ((t->sni != NULL && *t->sni == '\0') ||
	    (!is_tls13(t) && !t->extended) ||
	    (head = pack_names(t, p, size)) == 0 ||
	    mbedtls_ssl_session_save(session, p + head, size - head, &len) !=
	    0 || size - head - len < t->chain_len)
		return 0;
	p[AT_TLS13] = (unsigned char)is_tls13(t);
	be_put(p + AT_BORN, (uint64_t)(t->resumed ? t->born : now / 1000), 8);
	be_put(p + AT_SAVED, (uint64_t)now, 8);
	be_put(p + AT_TIME, is_tls13(t) ? find_time(session, p + head, len) : 0,
	    2);
	be_put(p + AT_LENGTH, len, 2);
	if (t->chain_len > 0)
		memcpy(p + head + len, t->chain, t->chain_len);
	return head + len + t->chain_len;
}

/* 1 if the client asks for the name that its session was made for. */
static int
is_named(const struct tls *t, const unsigned char *name, size_t len)
{
	return t->sni == NULL ? len == 0 :
	    len > 0 && tls_names_equal(t->sni, (const char *)name, len);
}

/* 0 if the certificates that the client had then would be accepted now. */
static int
verify_again(struct tls *t, const unsigned char *p, size_t len)
{
	struct tls_config *cfg = t->cfg;
	mbedtls_x509_crt chain;
	uint32_t flags;
	size_t n;
	int r = 0;

	if (cfg->verify == NOT_ASKED || (len == 0 && cfg->verify == ASKED))
		return 0;
	mbedtls_x509_crt_init(&chain);
	for (; r == 0 && len > 3 && (n = (size_t)be_get(p, 3)) <= len - 3;
	    p += n) {
		p += 3;
		len -= 3 + n;
		r = mbedtls_x509_crt_parse_der(&chain, p, n);
	}
	if (r != 0 || len != 0 || chain.raw.p == NULL ||
	    mbedtls_x509_crt_verify(&chain, cfg->has_ca ? &cfg->ca : NULL,
	    cfg->has_crl ? &cfg->crl : NULL, NULL, &flags, tls_verify_cert,
	    t) != 0)
		r = -1;
	mbedtls_x509_crt_free(&chain);
	/* If it would not, a full handshake is to tell why. */
	tls_reject_undo(t);
	return r;
}

/* 1 if it is configured, and there is a key for it. */
static int
is_usable(const struct tls_config *cfg, int suite)
{
	size_t i;

	for (i = 0; tls_suites_has_key(cfg, suite) && cfg->suites[i] != 0; i++)
		if (cfg->suites[i] == suite)
			return 1;
	return 0;
}

/*
 * In TLS 1.2 a session is bound to its suite, but the library, given a
 * ticket, goes on to choose one by preference: let it be that one, in this
 * step of this handshake.
 */
static void
insist_on(struct tls_config *cfg, int suite)
{
	cfg->suites_now[0] = suite;
	memcpy(cfg->suites_now + 1, cfg->suites, sizeof(cfg->suites));
	mbedtls_ssl_conf_ciphersuites(&cfg->ssl, cfg->suites_now);
}

/*
 * 0 if it began not so long ago that it has ended; an age below zero is by a
 * clock that is ahead.  Then the library's own time is put right.
 */
static int
take_times(const struct tls_config *cfg, const unsigned char *head,
    unsigned char *saved, size_t len, int64_t *born)
{
	int64_t now = wall_ms(), at = (int64_t)be_get(head + AT_SAVED, 8);
	size_t time = (size_t)be_get(head + AT_TIME, 2);
	int64_t age = now - at;

	*born = (int64_t)be_get(head + AT_BORN, 8);
	if (*born > now / 1000)
		*born = now / 1000;
	if (*born < 0 || at < 0 || now / 1000 - *born >= cfg->lifetime)
		return -1;
	if (time != 0 && time + 8 <= len)
		be_put(saved + time, (uint64_t)(mbedtls_ms_time() -
		    (age > 0 ? age : 0)), 8);
	return 0;
}

/*
 * 0 if the client is still who it was then: by its key, if it had one, and
 * otherwise by its certificates, of so many bytes.
 */
static int
know_again(struct tls *t, const struct psk *psk, const unsigned char *chain,
    size_t len)
{
	tls_verify_forget(t);
	t->psk = NULL;
	if (psk == NULL && (t->cfg->certs == NULL ||
	    verify_again(t, chain, len) != 0))
		return -1;
	t->psk = psk;
	t->by_psk = 0;
	return 0;
}

/*
 * Load what session_pack() has made; 0 if it may be resumed.  Several may be
 * offered.  One that is refused must leave no client identity behind, so the
 * client is verified last.
 */
static int
session_unpack(struct tls *t, mbedtls_ssl_session *session, unsigned char *p,
    size_t len)
{
	unsigned char *end = p + len, *saved;
	const struct psk *psk = NULL;
	size_t n, name, identity;
	int64_t born;
	int suite;

	if (len < SESSION_HEAD || p[AT_TLS13] != is_tls13(t))
		return -1;
	n = (size_t)be_get(p + AT_LENGTH, 2);
	name = p[AT_NAME];
	identity = p[AT_IDENTITY];
	if (name + tls_psk_packed(identity) + n > len - SESSION_HEAD ||
	    !is_named(t, p + SESSION_HEAD, name) || (identity > 0 &&
	    (psk = tls_psk_unpack(t->cfg, p + SESSION_HEAD + name, identity)) ==
	    NULL))
		return -1;
	saved = p + SESSION_HEAD + name + tls_psk_packed(identity);
	if (take_times(t->cfg, p, saved, n, &born) == -1 ||
	    mbedtls_ssl_session_load(session, saved, n) != 0)
		return -1;
	suite = mbedtls_ssl_session_get_ciphersuite_id(session);
	if (!is_usable(t->cfg, suite) || know_again(t, psk, saved + n,
	    (size_t)(end - saved) - n) != 0)
		return -1;
	if (!is_tls13(t))
		insist_on(t->cfg, suite);
	t->born = born;
	return 0;
}

/* salt: of a session ID, which binds the ticket to it; NULL: a random one. */
static size_t
session_seal(const struct tls *t, const mbedtls_ssl_session *session,
    const unsigned char *salt, unsigned char *ticket, size_t size)
{
	unsigned char plain[TICKET_MAX];
	size_t len = session_pack(t, session, plain, sizeof(plain));

	if (size < TICKET_HEAD || (salt == NULL && psa_generate_random(ticket +
	    KEY_NAME_SIZE, SALT_SIZE) != PSA_SUCCESS))
		len = 0;
	else if (salt != NULL)
		memcpy(ticket + KEY_NAME_SIZE, salt, SALT_SIZE);
	len = tls_ticket_seal(t->cfg, plain, len, ticket, size);
	mbedtls_platform_zeroize(plain, sizeof(plain));
	return len;
}

static int
session_unseal(struct tls *t, mbedtls_ssl_session *session,
    const unsigned char *ticket, size_t len)
{
	unsigned char plain[TICKET_MAX];
	int r = -1;

	len = tls_ticket_unseal(t->cfg, ticket, len, plain, sizeof(plain));
	if (len > 0)
		r = session_unpack(t, session, plain, len);
	mbedtls_platform_zeroize(plain, sizeof(plain));
	return r;
}

/*
 * The library's callbacks for tickets.  In TLS 1.3 there must be one: where
 * there can't be, it is of no use.
 */
static int
ticket_write(void *arg, const mbedtls_ssl_session *session,
    unsigned char *start, const unsigned char *end, size_t *len,
    uint32_t *lifetime)
{
	const struct tls_config *cfg = arg;
	const struct tls *t = cfg->current;
	int64_t left = cfg->lifetime;
	size_t n, size = (size_t)(end - start);

	*lifetime = 0;	/* mbed TLS 3.6.6 sends it after a failure, too */
	if (t->resumed)
		left -= wall_ms() / 1000 - t->born;
	if (left > cfg->lifetime)	/* the clock was set back */
		left = cfg->lifetime;
	if ((n = session_seal(t, session, NULL, start, size)) == 0) {
		left = 0;
		n = TICKET_HEAD;
		if (size < n || psa_generate_random(start, n) != PSA_SUCCESS)
			return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
	}
	/* Not before: in TLS 1.2 the library sends as much after a failure. */
	*len = n;
	*lifetime = left > 0 ? (uint32_t)left : 0;
	return 0;
}

static int
ticket_parse(void *arg, mbedtls_ssl_session *session, unsigned char *buf,
    size_t len)
{
	struct tls_config *cfg = arg;
	struct tls *t = cfg->current;

	/* A client has one or two; each may cost the checks of a chain. */
	if (t->ntickets >= TICKETS_TRIED || tls_names_remember(t->ssl) != 0)
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	t->ntickets++;
	return session_unseal(t, session, buf, len) == 0 ? 0 :
	    MBEDTLS_ERR_SSL_INVALID_MAC;
}

/* Place i of those for an ID; NULL: there are not as many. */
static struct slot *
slot_for(const struct tls_sessions *s, const unsigned char *id, size_t i)
{
	size_t sets = (s->nslots + WAYS - 1) / WAYS;
	size_t n = (size_t)be_get(id, 4) % sets * WAYS + i;

	return i < WAYS && n < s->nslots ?
	    (void *)(s->shared->slots + n * s->slot_size) : NULL;
}

/* The library's callbacks for the cache; a ticket is what it holds, too. */
static int
cache_get(void *arg, const unsigned char *id, size_t len,
    mbedtls_ssl_session *session)
{
	struct tls_config *cfg = arg;
	const struct tls_sessions *s = cfg->sessions;
	unsigned char ticket[SLOT_WITH_CLIENT];
	const volatile uint32_t *stored;
	const struct slot *slot;
	size_t i, n;

	for (i = 0; len == ID_SIZE && (slot = slot_for(s, id, i)) != NULL;
	    i++) {
		stored = &slot->len;
		n = *stored;		/* once, as others may change it */
		if (memcmp(slot->id, id, ID_SIZE) != 0 || n < TICKET_HEAD ||
		    n > s->slot_size - sizeof(*slot))
			continue;
		memcpy(ticket, slot->ticket, n);
		if (memcmp(ticket + KEY_NAME_SIZE, id, SALT_SIZE) == 0)
			return session_unseal(cfg->current, session, ticket,
			    n) == 0 ? 0 : MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
	}
	return MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
}

static int
cache_set(void *arg, const unsigned char *id, size_t len,
    const mbedtls_ssl_session *session)
{
	struct tls_config *cfg = arg;
	const struct tls_sessions *s = cfg->sessions;
	size_t i, n, room = s->slot_size - sizeof(struct slot);
	unsigned char ticket[SLOT_WITH_CLIENT];
	struct slot *slot, *oldest = NULL;

	for (i = 0; len == ID_SIZE && (slot = slot_for(s, id, i)) != NULL; i++)
		if (oldest == NULL ||
		    (int32_t)(slot->used - oldest->used) < 0)
			oldest = slot;
	if (oldest == NULL)
		return -1;
	/* Not sealed in its place, where another one may be writing. */
	n = session_seal(cfg->current, session, id, ticket, room);
	if (n == 0)
		return -1;
	memcpy(oldest->id, id, ID_SIZE);
	oldest->len = (uint32_t)n;
	oldest->used = atomic_fetch_add(&s->shared->clock, 1) + 1;
	memcpy(oldest->ticket, ticket, n);
	memset(oldest->ticket + n, 0, room - n);
	return 0;
}

static size_t
slot_size(int with_clients)
{
	return with_clients ? SLOT_WITH_CLIENT : SLOT_SIZE;
}

/* Allocate one, its memory not yet mapped. */
static struct tls_sessions *
sessions_alloc(size_t entries, int with_clients, int fd)
{
	struct tls_sessions *s;

	if ((s = calloc(1, sizeof(*s))) == NULL)
		return NULL;
	s->users = 1;
	s->shared = MAP_FAILED;
	s->nslots = entries;
	s->slot_size = slot_size(with_clients);
	s->memory = (struct tls_sessions_memory){ .fd = fd,
	    .size = sizeof(struct shared) + entries * s->slot_size,
	    .entries = entries, .with_clients = with_clients };
	return s;
}

struct tls_sessions *
tls_sessions_new(size_t entries, int with_clients, int can_move)
{
	struct tls_sessions *s = sessions_alloc(entries, with_clients, -1);

	if (s == NULL)
		return NULL;
	s->shared = memory_share(s->memory.size, can_move ? &s->memory.fd :
	    NULL);
	if (s->shared != MAP_FAILED)
		return s;
	tls_sessions_free(s);
	return NULL;
}

const char *
tls_sessions_map(const struct tls_sessions_memory *m, struct tls_sessions **s)
{
	const char *why;
	void *p;

	if ((*s = sessions_alloc(m->entries, m->with_clients, m->fd)) == NULL)
		return "out of memory";
	if ((why = memory_map(m->fd, (*s)->memory.size, &p)) == NULL) {
		(*s)->shared = p;
		return NULL;
	}
	(*s)->memory.fd = -1;		/* another program may need it */
	tls_sessions_free(*s);
	*s = NULL;
	return why;
}

struct tls_sessions *
tls_sessions_ref(struct tls_sessions *s)
{
	s->users++;
	return s;
}

void
tls_sessions_free(struct tls_sessions *s)
{
	if (s == NULL || --s->users > 0)
		return;
	if (s->shared != MAP_FAILED)
		munmap(s->shared, s->memory.size);
	close_fd(&s->memory.fd);
	free(s);
}

const struct tls_sessions_memory *
tls_sessions_memory(const struct tls_sessions *s)
{
	return &s->memory;
}

void
tls_sessions_keep(struct tls_sessions *s)
{
	if (s != NULL)
		close_fd(&s->memory.fd);
}

void
tls_sessions_adopt(struct tls_sessions *s, const struct tls_sessions *other)
{
	s->shared->tickets.keys = other->shared->tickets.keys;
}

void
tls_config_sessions(struct tls_config *cfg, struct tls_sessions *s,
    int with_tickets, int lifetime)
{
	cfg->sessions = s;
	cfg->tickets = &s->shared->tickets;
	cfg->lifetime = lifetime;
	if (with_tickets)
		mbedtls_ssl_conf_session_tickets_cb(&cfg->ssl, ticket_write,
		    ticket_parse, cfg);
	if (s->nslots > 0)
		mbedtls_ssl_conf_session_cache(&cfg->ssl, cfg, cache_get,
		    cache_set);
}
