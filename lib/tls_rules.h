/* tls_rules: who a peer may be, by the rules of a configuration. */
#ifndef TLS_RULES_H
#define TLS_RULES_H

#include "tls_internal.h"

enum rule_kind { CN, DNS, IP, URI, SHARED, PIN, CERT };

/* What a peer's certificate may be, or the key that it has. */
struct rule {
	struct rule *next;
	enum rule_kind kind;
	int	 is_server;		/* whose wildcards have their meaning */
	char	*text;			/* of a CN, DNS, URI, SHARED, CERT */
	unsigned char bytes[HASH_SIZE];	/* of an IP or a PIN */
	size_t	 len;			/* of them */
	mbedtls_x509_crt *certs;	/* in a CERT's file */
};

/* 1 if it is for certificates that need no trusted issuer. */
int	 tls_rules_is_pin(const struct rule *);

/*
 * The rule that a certificate matches, a pin if there is one; or NULL.  Without
 * a trusted issuer its names match none: there may be thousands of them.
 */
const struct rule *tls_rules_find(const struct tls_config *,
	    const mbedtls_x509_crt *, int is_trusted);

/* 1 if they allow a key that both sides have, by its identity. */
int	 tls_rules_allow_psk(const struct tls_config *, const char *name);

/* A whole list. */
void	 tls_rules_free(struct rule *);

#endif
