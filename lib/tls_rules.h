/* tls_rules: who a peer may be, by the rules of a configuration. */
#ifndef TLS_RULES_H
#define TLS_RULES_H

#include "tls_internal.h"

enum rule_kind { CN, DNS, IP, URI, SHARED, PIN, CERT };

/* A condition on a peer's certificate or shared key. */
struct rule {
	struct rule *next;
	enum rule_kind kind;
	int	 is_server;		/* wildcards in certificates count */
	char	*text;			/* of CN, DNS, URI, SHARED, CERT */
	unsigned char bytes[HASH_SIZE];	/* of IP and PIN */
	size_t	 len;			/* of the bytes */
	mbedtls_x509_crt *certs;	/* in the file of CERT */
};

/* 1 if the rule needs no trusted issuer. */
int	 tls_rules_is_pin(const struct rule *);

/*
 * Return the rule that a certificate matches, preferably a pin, or NULL.
 * Without a trusted issuer only pins are tried, since the certificate may have
 * thousands of names.
 */
const struct rule *tls_rules_find(const struct tls_config *,
	    const mbedtls_x509_crt *, int is_trusted);

/* 1 if the rules allow the shared key with this identity. */
int	 tls_rules_allow_psk(const struct tls_config *, const char *name);

/* Free a whole list. */
void	 tls_rules_free(struct rule *);

#endif
