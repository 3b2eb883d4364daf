/*
 * tls_psk: keys that both sides have, by their identities: RFC 8446 section
 * 4.2.11, and RFC 5489 in TLS 1.2.  There is a fresh key exchange with each of
 * them always.
 */
#ifndef TLS_PSK_H
#define TLS_PSK_H

#include "tls_internal.h"

#define PSK_NAME_MAX	255		/* bytes of an identity */

/* Forget all that were loaded. */
void	 tls_psk_free(struct tls_config *);

/*
 * Have the library use them, once suites, rules and authorities are complete;
 * 0, or -1 with tls_config_error().
 */
int	 tls_psk_ready(struct tls_config *);

/*
 * What a ticket has of a key: its identity, whose length the caller keeps, and
 * its check.
 */
void	 tls_psk_pack(const struct psk *, unsigned char *);

/* How many bytes that is, for an identity of that length; 0 for none. */
size_t	 tls_psk_packed_size(size_t name_len);

/* The key that was packed, if it is still there and allowed; or NULL. */
const struct psk *tls_psk_unpack(const struct tls_config *,
	    const unsigned char *, size_t name_len);

/* How many identities a ClientHello offers; hello: its body. */
size_t	 tls_psk_offered(const unsigned char *hello, size_t len);

#endif
