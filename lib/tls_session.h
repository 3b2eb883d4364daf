/*
 * tls_session: sessions, sealed for a ticket or the cache, and checked again
 * when they are resumed.
 */
#ifndef TLS_SESSION_H
#define TLS_SESSION_H

#include "tls_internal.h"

/*
 * Seal a session of this connection.  Return the length of the ticket, or 0: it
 * does not fit, or must not be resumed.  salt: the start of a session ID, which
 * binds the ticket to this ID; NULL: a random one.
 */
size_t	 tls_session_seal(const struct tls *, const mbedtls_ssl_session *,
	    const unsigned char *salt, unsigned char *ticket, size_t size);

/*
 * Load such a session.  0 if this connection may resume it under the current
 * configuration, with the peer authenticated as in a handshake; else -1.
 */
int	 tls_session_unseal(struct tls *, mbedtls_ssl_session *,
	    const unsigned char *ticket, size_t len);

#endif
