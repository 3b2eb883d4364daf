/*
 * tls_key: the match of a private key and its certificate, and the form of the
 * key with the cheapest signatures.
 */
#ifndef TLS_KEY_H
#define TLS_KEY_H

#include "tls_internal.h"

/* Return 1 if the parsed key is valid, and that of the certificate. */
int	 tls_key_matches(struct cert *);

/*
 * Prepare the key, which matches.  0, or the library's error, with the key
 * unchanged.
 */
int	 tls_key_prepare(struct cert *);

/* Free the key, prepared or not. */
void	 tls_key_free(struct cert *);

#endif
