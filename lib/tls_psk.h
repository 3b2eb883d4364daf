/*
 * tls_psk: shared keys, each with an identity: RFC 8446 section 4.2.11, and RFC
 * 5489 in TLS 1.2; always together with a fresh key exchange.
 */
#ifndef TLS_PSK_H
#define TLS_PSK_H

#include "tls_internal.h"

#define PSK_NAME_MAX	255		/* bytes of an identity */

/* Overwrite and free all keys of a configuration. */
void	 tls_psk_free(struct tls_config *);

/*
 * Give the keys to the library, after suites, rules and CAs are configured.  0,
 * or -1 with tls_config_error().
 */
int	 tls_psk_ready(struct tls_config *);

/*
 * Write the part of a ticket that names a shared key: identity and check.  The
 * caller stores the length of the identity.
 */
void	 tls_psk_pack(const struct psk *, unsigned char *);

/* Return the size of that part; name_len 0: no key, 0 bytes. */
size_t	 tls_psk_packed_size(size_t name_len);

/* Return the key for such a part if it still exists and is allowed, or NULL. */
const struct psk *tls_psk_unpack(const struct tls_config *,
	    const unsigned char *, size_t name_len);

/* Count the identities in the body of a ClientHello. */
size_t	 tls_psk_offered(const unsigned char *hello, size_t len);

#endif
