/*
 * tls_resume: sessions of a client, kept for each server.  In TLS 1.3 each
 * ticket is used once (RFC 8446 appendix C.4), by one process; a TLS 1.2
 * session is used until it is too old.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tls_resume.h"
#include "tls_session.h"
#include "tls_store.h"
#include "tls_suites.h"
#include "tls_verify.h"

#define TICKETS_KEPT	4		/* per connection, and per server */

/*
 * Compute t->id, a hash of what a session depends on: the peer's address, the
 * name to verify, the SNI, and our own certificate.  0, or -1.
 */
static int
make_id(struct tls *t)
{
	psa_hash_operation_t op = psa_hash_operation_init();
	struct sockaddr_storage sa = { .ss_family = AF_UNSPEC };
	socklen_t sa_len = sizeof(sa);
	const struct cert *c = t->cfg->certs;
	const struct {
		const void *p;
		size_t	 len;
	} parts[] = {
		{ &sa, sizeof(sa) },
		{ t->name, t->name != NULL ? strlen(t->name) + 1 : 0 },
		{ "", 1 },
		{ t->sni, t->sni != NULL ? strlen(t->sni) + 1 : 0 },
		{ "", 1 },
		{ c != NULL ? c->chain.raw.p : NULL,
		    c != NULL ? c->chain.raw.len : 0 },
	};
	psa_status_t r;
	size_t i, len;

	if (getpeername(t->fd, (struct sockaddr *)&sa, &sa_len) == -1)
		return -1;
	r = psa_hash_setup(&op, PSA_ALG_SHA_256);
	for (i = 0; r == PSA_SUCCESS && i < sizeof(parts) / sizeof(parts[0]);
	    i++)
		if (parts[i].len > 0)
			r = psa_hash_update(&op, parts[i].p, parts[i].len);
	if (r == PSA_SUCCESS)
		r = psa_hash_finish(&op, t->id, sizeof(t->id), &len);
	psa_hash_abort(&op);
	return r == PSA_SUCCESS ? 0 : -1;
}

/* Load a kept session that may still be used.  0, or -1: there is none. */
static int
find(struct tls *t, mbedtls_ssl_session *session)
{
	const struct tls_sessions *s = t->cfg->sessions;
	struct tls_kept k = { .stamp = 0 };

	while (tls_store_find(s, t->id, &k) == 0) {
		if (tls_session_unseal(t, session, k.ticket, k.len) != 0)
			tls_store_take(s, t->id, &k);
		else if (!tls_suites_is_tls13(
		    mbedtls_ssl_session_get_ciphersuite_id(session)) ||
		    tls_store_take(s, t->id, &k) == 0)
			return 0;
		mbedtls_ssl_session_free(session);
		mbedtls_ssl_session_init(session);
	}
	/* Undo what unusable sessions have set. */
	t->born = 0;
	t->lifetime_hint = 0;
	t->psk = NULL;
	tls_verify_forget(t);
	return -1;
}

int
tls_resume_offer(struct tls *t)
{
	mbedtls_ssl_session session;
	int r = 0;

	if (t->cfg->sessions == NULL || make_id(t) == -1)
		return 0;
	mbedtls_ssl_session_init(&session);
	if (find(t, &session) == 0) {
		r = mbedtls_ssl_set_session(t->ssl, &session);
		t->offers = r == 0;
		t->offers_ticket = t->offers && tls_suites_is_tls13(
		    mbedtls_ssl_session_get_ciphersuite_id(&session));
	}
	mbedtls_ssl_session_free(&session);
	return r;
}

int
tls_resume_waits(const struct tls *t)
{
	return t->cfg->is_client && t->cfg->sessions != NULL && t->ssl != NULL
	    && is_tls13(t) && t->ntickets < TICKETS_KEPT;
}

/*
 * Return 1 if a session has a ticket or an ID, and is worth keeping.  A client
 * that offers a TLS 1.2 session offers no other version.  If the server did not
 * resume it, keep no other TLS 1.2 session, or the client would never offer TLS
 * 1.3 again.
 */
static int
is_resumable(const struct tls *t, const mbedtls_ssl_session *session)
{
	if (is_tls13(t))
		return 1;
	if (t->offers && !t->resumed && t->cfg->max == 13)
		return 0;
	return t->ticketed || mbedtls_ssl_session_get_id_len(session) > 0;
}

void
tls_resume_keep(struct tls *t)
{
	const struct tls_sessions *s = t->cfg->sessions;
	unsigned char ticket[KEPT_MAX];
	mbedtls_ssl_session session;
	size_t len = 0;

	if (s == NULL || t->ntickets >= TICKETS_KEPT)
		return;
	t->ntickets++;
	mbedtls_ssl_session_init(&session);
	if (mbedtls_ssl_get_session(t->ssl, &session) == 0 &&
	    is_resumable(t, &session))
		len = tls_session_seal(t, &session, NULL, ticket,
		    sizeof(ticket));
	mbedtls_ssl_session_free(&session);
	if (len > 0)
		tls_store_put(s, t->id, is_tls13(t) ? TICKETS_KEPT : 1, ticket,
		    len);
	else if (!is_tls13(t))
		tls_store_forget(s, t->id);
	if (!tls_resume_waits(t))
		tls_resume_end(t);
}

/* Free what the library keeps for tickets to come. */
#ifdef MBEDTLS_SSL_RELEASE_BUFFERS
static void
release_session(struct tls *t)
{
	if (t->ssl != NULL)
		mbedtls_ssl_release_session(t->ssl);
}
#else
static void
release_session(struct tls *t)
{
	(void)t;
}
#endif

void
tls_resume_end(struct tls *t)
{
	release_session(t);
	t->ntickets = TICKETS_KEPT;
	free(t->chain);
	t->chain = NULL;
	t->chain_len = 0;
}

void
tls_resume_failed(const struct tls *t)
{
	if (t->offers && !t->open)
		tls_store_forget(t->cfg->sessions, t->id);
}
