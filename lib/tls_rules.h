/* tls_rules: who a peer may be, by the rules of a configuration. */
#ifndef TLS_RULES_H
#define TLS_RULES_H

#include "tls_internal.h"

/* Does it hold for certificates that nobody has to vouch for? */
int	 tls_rules_is_pin(const struct rule *);

/*
 * The rule that a certificate matches, a pin if there is one; or NULL.  Names
 * that nobody vouches for match none: there may be thousands of them.
 */
const struct rule *tls_rules_find(const struct tls_config *,
	    const mbedtls_x509_crt *, int is_trusted);

/* All of a list. */
void	 tls_rules_free(struct rule *);

#endif
