/* tls_key: a private key in the form that signs at least cost. */
#ifndef TLS_KEY_H
#define TLS_KEY_H

#include "tls_internal.h"

/*
 * The key of this certificate, as the library has parsed it.  0, or the
 * library's error, and the key is as it was.
 */
int	 tls_key_prepare(struct cert *);

/* Whether it was prepared or not. */
void	 tls_key_free(struct cert *);

#endif
