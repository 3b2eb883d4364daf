/*
 * tls_key: a private key in the form with the cheapest signatures, and its
 * match with the certificate.
 */
#ifndef TLS_KEY_H
#define TLS_KEY_H

#include "tls_internal.h"

/*
 * Prepare the key that the library has parsed.  0, or the library's error, with
 * the key unchanged.
 */
int	 tls_key_prepare(struct cert *);

/* Return 1 if the certificate verifies what the key signs. */
int	 tls_key_matches(struct cert *);

/* Free the key, prepared or not. */
void	 tls_key_free(struct cert *);

#endif
