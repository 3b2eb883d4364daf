/*
 * tls_session: sessions, sealed for a ticket or the cache, and checked again
 * when they come back.
 */
#ifndef TLS_SESSION_H
#define TLS_SESSION_H

#include "tls_internal.h"

/*
 * A session of a connection, sealed; its length, or 0: it does not fit, or is
 * not to be resumed.  salt: of a session ID, which binds it to that; NULL: a
 * random one.
 */
size_t	 tls_session_seal(const struct tls *, const mbedtls_ssl_session *,
	    const unsigned char *salt, unsigned char *ticket, size_t size);

/*
 * Load such a session; 0 if this connection may resume it, by what is
 * configured now, and -1 otherwise.  Then it is known who the peer is, if that
 * is verified.
 */
int	 tls_session_unseal(struct tls *, mbedtls_ssl_session *,
	    const unsigned char *ticket, size_t len);

#endif
