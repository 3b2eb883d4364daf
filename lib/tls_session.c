/*
 * tls_session: sessions, sealed for a ticket or the cache, and checked again
 * when they are resumed.  A sealed session includes the peer's certificates,
 * which are then verified again.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mbedtls/platform_time.h>

#include "tls.h"
#include "tls_error.h"
#include "tls_files.h"
#include "tls_names.h"
#include "tls_psk.h"
#include "tls_session.h"
#include "tls_store.h"
#include "tls_suites.h"
#include "tls_ticket.h"
#include "tls_verify.h"
#include "util.h"

#define PLAIN_MAX	KEPT_MAX	/* bytes of a ticket's plaintext */
#define TICKETS_TRIED	4		/* in a handshake */

/*
 * The head of a ticket's plaintext.  After it follow the session's owner, the
 * shared key's identity and check, the session as saved by the library, and the
 * peer's certificates.
 */
enum {
	AT_TLS13 = 0,			/* 1 for TLS 1.3 */
	AT_BORN = 1,			/* when the session began (s) */
	AT_SAVED = 9,			/* when it was saved (ms) */
	AT_HINT = 17,			/* a server's lifetime hint (s); or 0 */
	AT_TIME = 21,			/* offset of the time in the session */
	AT_LENGTH = 23,			/* of the session */
	AT_OWNER = 25,			/* length of the owner */
	AT_IDENTITY = 26,		/* length of the identity */
	SESSION_HEAD = 27
};

/* The wall clock in milliseconds, as several hosts may share sessions. */
static int64_t
wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Return the offset of the ticket's time in a saved TLS 1.3 session, or 0.  The
 * library takes it from this host's monotonic clock; take_times() replaces it
 * by one of the host that resumes the session.
 */
static size_t
find_time(const mbedtls_ssl_session *session, const unsigned char *saved,
    size_t len)
{
	unsigned char created[8];
	mbedtls_ms_time_t ms;
	size_t i;

	/* The library only reads it, although it declares otherwise. */
	if (mbedtls_ssl_session_get_ticket_creation_time(
	    (mbedtls_ssl_session *)(uintptr_t)session, &ms) != 0)
		return 0;
	be_put(created, (uint64_t)ms, sizeof(created));
	for (i = 1; i + sizeof(created) <= len; i++)
		if (memcmp(saved + i, created, sizeof(created)) == 0)
			return i;
	return 0;
}

/*
 * Get the owner of a session, which has to be the same at resumption: on a
 * server the name that the client asked for, on a client t->id.  0, or -1: that
 * can't be compared later.
 */
static int
session_owner(const struct tls *t, const unsigned char **p, size_t *len)
{
	*p = t->cfg->is_client ? t->id : (const unsigned char *)t->sni;
	*len = t->cfg->is_client ? sizeof(t->id) : t->sni != NULL ?
	    strlen(t->sni) : 0;
	return *p != NULL && *len == 0 ? -1 : 0;	/* not a host's name */
}

static int
is_owner(const struct tls *t, const unsigned char *p, size_t len)
{
	if (t->cfg->is_client)
		return len == sizeof(t->id) && memcmp(p, t->id, len) == 0;
	return t->sni == NULL ? len == 0 :
	    len > 0 && tls_names_equal(t->sni, (const char *)p, len);
}

/* Write owner and identity.  Return the offset behind them, or 0: no room. */
static size_t
pack_names(const struct tls *t, unsigned char *p, size_t size)
{
	size_t n, identity = t->psk != NULL ? t->psk->name_len : 0;
	size_t at = SESSION_HEAD, packed = tls_psk_packed_size(identity);
	const unsigned char *owner;

	if (session_owner(t, &owner, &n) == -1 || size < at + n + packed)
		return 0;
	be_put(p + AT_OWNER, n, 1);
	be_put(p + AT_IDENTITY, identity, 1);
	if (n > 0)
		memcpy(p + at, owner, n);
	if (identity > 0)
		tls_psk_pack(t->psk, p + at + n);
	return at + n + packed;
}

/*
 * Write the plaintext of a ticket.  Return its length, or 0: it does not fit,
 * or must not be resumed, as a TLS 1.2 session without an extended master
 * secret (RFC 7627 section 5.3).
 */
static size_t
session_pack(const struct tls *t, const mbedtls_ssl_session *session,
    unsigned char *p, size_t size)
{
	int64_t now = wall_ms();
	size_t len, head;

	if ((!is_tls13(t) && !t->extended) ||
	    (head = pack_names(t, p, size)) == 0 ||
	    mbedtls_ssl_session_save(session, p + head, size - head, &len) !=
	    0 || size - head - len < t->chain_len)
		return 0;
	p[AT_TLS13] = (unsigned char)is_tls13(t);
	be_put(p + AT_BORN, (uint64_t)(t->resumed ? t->born : now / 1000), 8);
	be_put(p + AT_SAVED, (uint64_t)now, 8);
	be_put(p + AT_HINT, t->ticketed || t->resumed ? t->lifetime_hint : 0,
	    4);
	be_put(p + AT_TIME, is_tls13(t) ? find_time(session, p + head, len) : 0,
	    2);
	be_put(p + AT_LENGTH, len, 2);
	if (t->chain_len > 0)
		memcpy(p + head + len, t->chain, t->chain_len);
	return head + len + t->chain_len;
}

/* Return 0 if the peer's certificates from the session are still accepted. */
static int
verify_again(struct tls *t, const unsigned char *p, size_t len)
{
	struct cert_loading l = { .use = PINNED };
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
		r = mbedtls_x509_crt_parse_der_with_ext_cb(&chain, p, n, 1,
		    tls_files_check_extension, &l);
	}
	if (r != 0 || len != 0 || chain.raw.p == NULL ||
	    mbedtls_x509_crt_verify(&chain, cfg->has_ca ? &cfg->ca : NULL,
	    cfg->has_crl ? &cfg->crl : NULL, cfg->is_client ? t->sni : NULL,
	    &flags, tls_verify_cert, t) != 0)
		r = -1;
	mbedtls_x509_crt_free(&chain);
	/* On failure the full handshake finds the reason again. */
	tls_reject_undo(t);
	return r;
}

/* Return 1 if the suite is configured, with a key for it. */
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
 * A TLS 1.2 session is bound to its suite, but the library chooses a suite by
 * preference after it accepted a ticket.  Put the session's suite first, for
 * this step of the handshake; handshake() in tls.c restores the order.
 */
static void
prefer_suite(struct tls_config *cfg, int suite)
{
	cfg->suites_now[0] = suite;
	memcpy(cfg->suites_now + 1, cfg->suites, sizeof(cfg->suites));
	mbedtls_ssl_conf_ciphersuites(&cfg->ssl, cfg->suites_now);
}

/*
 * Return 1 if the session's version is that of the handshake on a server, or
 * configured on a client, whose handshake has not begun yet.
 */
static int
is_version(const struct tls *t, int is_13)
{
	return !t->cfg->is_client ? is_13 == is_tls13(t) :
	    is_13 ? t->cfg->max == 13 : t->cfg->min == 12;
}

/*
 * Return 1 if the lifetime hint (s) for a session saved at that time (ms) has
 * not run out.  Its rest becomes the hint from now on, unless the server sends
 * a new ticket.
 */
static int
is_within_hint(struct tls *t, int64_t saved, int64_t hint)
{
	int64_t left = saved / 1000 + hint - wall_ms() / 1000;

	if (hint == 0)
		return 1;
	t->lifetime_hint = left > 0 && left <= hint ? (uint32_t)left : 0;
	return t->lifetime_hint > 0;
}

/*
 * Return 0 if the session is not too old, and convert the library's time in the
 * session, at p, to this host's clock.
 */
static int
take_times(struct tls *t, const unsigned char *head, unsigned char *p,
    size_t len, int64_t *born)
{
	int64_t now = wall_ms(), saved = (int64_t)be_get(head + AT_SAVED, 8);
	size_t at = (size_t)be_get(head + AT_TIME, 2);

	*born = (int64_t)be_get(head + AT_BORN, 8);
	if (*born > now / 1000)		/* by a host whose clock is ahead */
		*born = now / 1000;
	if (*born < 0 || saved < 0 || now / 1000 - *born >= t->cfg->lifetime ||
	    !is_within_hint(t, saved, (int64_t)be_get(head + AT_HINT, 4)))
		return -1;
	if (at != 0 && at + 8 <= len)
		be_put(p + at, (uint64_t)(mbedtls_ms_time() -
		    (now > saved ? now - saved : 0)), 8);
	return 0;
}

/*
 * Authenticate the peer again, by its shared key if the session has one, else
 * by its certificates, of len bytes.  0, or -1.
 */
static int
authenticate_again(struct tls *t, const struct psk *psk,
    const unsigned char *chain, size_t len)
{
	tls_verify_forget(t);
	t->psk = NULL;
	if (psk == NULL && (t->cfg->psk_alone ||
	    verify_again(t, chain, len) != 0))
		return -1;
	t->psk = psk;
	t->by_psk = 0;
	return 0;
}

/*
 * Load a session from session_pack().  0 if it may be resumed.  A client may
 * offer several; a refused one must leave no identity in the struct tls, so
 * authenticate the peer last.
 */
static int
session_unpack(struct tls *t, mbedtls_ssl_session *session, unsigned char *p,
    size_t len)
{
	unsigned char *end = p + len, *names = p + SESSION_HEAD, *saved;
	const struct psk *psk = NULL;
	size_t n, owner, identity;	/* lengths */
	int64_t born;
	int suite;

	if (len < SESSION_HEAD || !is_version(t, p[AT_TLS13]))
		return -1;
	n = (size_t)be_get(p + AT_LENGTH, 2);
	owner = p[AT_OWNER];
	identity = p[AT_IDENTITY];
	if (owner + tls_psk_packed_size(identity) + n > len - SESSION_HEAD ||
	    !is_owner(t, names, owner) || (identity > 0 && (psk =
	    tls_psk_unpack(t->cfg, names + owner, identity)) == NULL))
		return -1;
	saved = names + owner + tls_psk_packed_size(identity);
	if (take_times(t, p, saved, n, &born) == -1 ||
	    mbedtls_ssl_session_load(session, saved, n) != 0)
		return -1;
	suite = mbedtls_ssl_session_get_ciphersuite_id(session);
	if (!is_usable(t->cfg, suite) || authenticate_again(t, psk, saved + n,
	    (size_t)(end - saved) - n) != 0)
		return -1;
	if (!t->cfg->is_client && !is_tls13(t))
		prefer_suite(t->cfg, suite);
	t->born = born;
	return 0;
}

size_t
tls_session_seal(const struct tls *t, const mbedtls_ssl_session *session,
    const unsigned char *salt, unsigned char *ticket, size_t size)
{
	unsigned char plain[PLAIN_MAX];
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

int
tls_session_unseal(struct tls *t, mbedtls_ssl_session *session,
    const unsigned char *ticket, size_t len)
{
	unsigned char plain[PLAIN_MAX];
	int r = -1;

	len = tls_ticket_unseal(t->cfg, ticket, len, plain, sizeof(plain));
	if (len > 0)
		r = session_unpack(t, session, plain, len);
	mbedtls_platform_zeroize(plain, sizeof(plain));
	return r;
}

/*
 * The library's callbacks for tickets.  In TLS 1.3 the library always sends
 * one: if the session can't be sealed, write random bytes, which can't be
 * resumed.
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

	*lifetime = 0;	/* mbed TLS 3.6.6 sends this even after a failure */
	if (t->resumed)
		left -= wall_ms() / 1000 - t->born;
	if (left > cfg->lifetime)	/* the clock was set back */
		left = cfg->lifetime;
	if ((n = tls_session_seal(t, session, NULL, start, size)) == 0) {
		left = 0;
		n = TICKET_HEAD;
		if (size < n || psa_generate_random(start, n) != PSA_SUCCESS)
			return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
	}
	/* Set it last: in TLS 1.2 the library sends *len bytes on failure. */
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

	/* Clients offer one or two; each may cost verifying a chain. */
	if (t->ntickets >= TICKETS_TRIED || tls_names_remember(t->ssl) != 0)
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	t->ntickets++;
	return tls_session_unseal(t, session, buf, len) == 0 ? 0 :
	    MBEDTLS_ERR_SSL_INVALID_MAC;
}

/* The library's callbacks for the cache, which contains tickets as well. */
static int
cache_get(void *arg, const unsigned char *id, size_t len,
    mbedtls_ssl_session *session)
{
	struct tls_config *cfg = arg;
	struct tls_kept k = { .stamp = 0 };

	while (len == ID_SIZE && tls_store_find(cfg->sessions, id, &k) == 0)
		if (k.len >= TICKET_HEAD &&
		    memcmp(k.ticket + KEY_NAME_SIZE, id, SALT_SIZE) == 0)
			return tls_session_unseal(cfg->current, session,
			    k.ticket, k.len) == 0 ? 0 :
			    MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
	return MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
}

static int
cache_set(void *arg, const unsigned char *id, size_t len,
    const mbedtls_ssl_session *session)
{
	struct tls_config *cfg = arg;
	unsigned char ticket[KEPT_MAX];
	size_t n = len != ID_SIZE ? 0 : tls_session_seal(cfg->current, session,
	    id, ticket, sizeof(ticket));

	if (n == 0 || n > tls_store_room(cfg->sessions))
		return -1;
	tls_store_put(cfg->sessions, id, 1, ticket, n);
	return 0;
}

void
tls_config_sessions(struct tls_config *cfg, struct tls_sessions *s,
    int with_tickets, int lifetime)
{
	cfg->sessions = s;
	cfg->tickets = tls_store_keys(s);
	cfg->lifetime = lifetime;
	if (cfg->is_client) {
		mbedtls_ssl_conf_session_tickets(&cfg->ssl,
		    MBEDTLS_SSL_SESSION_TICKETS_ENABLED);
		return;
	}
	if (with_tickets)
		mbedtls_ssl_conf_session_tickets_cb(&cfg->ssl, ticket_write,
		    ticket_parse, cfg);
	if (tls_store_entries(s) > 0)
		mbedtls_ssl_conf_session_cache(&cfg->ssl, cfg, cache_get,
		    cache_set);
}
