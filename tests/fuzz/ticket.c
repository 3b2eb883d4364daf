/*
 * Any content of a ticket, sealed with a valid key.  A holder of the key is no
 * attacker, but sessions of another version, host or configuration arrive like
 * this.  The first byte selects the server.
 */
#include "fuzz_tls.h"

enum { VERIFY = 3, IS_TLS13 = 4, IS_CHANGED = 8 };

void
fuzz_begin(void)
{
	servers_new();
}

/* A ticket with one changed bit has to be refused. */
static void
change(struct tls_config *cfg, mbedtls_ssl_session *session,
    unsigned char *ticket, size_t len, size_t bit)
{
	bit %= 8 * len;
	ticket[bit / 8] ^= (unsigned char)(1 << bit % 8);
	must(ticket_parse(cfg, session, ticket, len) != 0,
	    "a ticket that was changed");
	ticket[bit / 8] ^= (unsigned char)(1 << bit % 8);
}

/* A resumed session can be sealed again, and stored. */
static void
store(struct tls_config *cfg, mbedtls_ssl_session *session)
{
	static const unsigned char id[ID_SIZE] = { 1, 2, 3 };
	unsigned char ticket[PLAIN_MAX];
	mbedtls_ssl_session again;
	uint32_t lifetime;
	size_t len;

	ticket_write(cfg, session, ticket, ticket + sizeof(ticket), &len,
	    &lifetime);
	must(lifetime <= (uint32_t)cfg->lifetime, "it lives for too long");
	cache_set(cfg, id, sizeof(id), session);
	mbedtls_ssl_session_init(&again);
	cache_get(cfg, id, sizeof(id), &again);
	mbedtls_ssl_session_free(&again);
}

static void
resume(struct tls_config *cfg, struct tls *t, struct input plain,
    unsigned flags)
{
	unsigned char ticket[PLAIN_MAX + TICKET_HEAD + TAG_SIZE] = { 0 };
	mbedtls_ssl_session session;
	size_t len = tls_ticket_seal(cfg, plain.p, plain.n, ticket,
	    sizeof(ticket));

	if (len == 0)
		return;
	mbedtls_ssl_session_init(&session);
	if (flags & IS_CHANGED)
		change(cfg, &session, ticket, len, 31 * plain.n + plain.p[0]);
	if (ticket_parse(cfg, &session, ticket, len) == 0) {
		must(cfg->verify != REQUIRED || t->peer != NULL ||
		    t->psk != NULL,
		    "no peer name");
		store(cfg, &session);
	}
	mbedtls_ssl_session_free(&session);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned flags = take(&in);
	struct tls_config *cfg = servers[(flags & VERIFY) % 3];
	struct stream s;
	struct tls *t;

	start(cfg, SIZE_MAX);
	must((t = tls_new(cfg, -1, NULL, &s)) != NULL, "tls_new");
	cfg->current = t;
	t->ssl->MBEDTLS_PRIVATE(tls_version) = flags & IS_TLS13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2;
	resume(cfg, t, in, flags);
	tls_free(t);
	return 0;
}
