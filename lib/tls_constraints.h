/* tls_constraints: the names that an issuer may certify. */
#ifndef TLS_CONSTRAINTS_H
#define TLS_CONSTRAINTS_H

#include "tls_internal.h"

/* The name constraints of an issuer, RFC 5280 section 4.2.1.10. */
enum constraints {
	CONSTRAINTS_KEPT,		/* or there are none */
	CONSTRAINTS_BROKEN,
	CONSTRAINTS_UNCHECKED		/* malformed, or of an unknown kind */
};

/* 1 if they are well-formed, or there are none. */
int	 tls_constraints_are_valid(const mbedtls_x509_crt *issuer);

/*
 * Does a certificate keep to those of an issuer above it?  All its alternative
 * names count, and its subject; the common name, where it stands for a DNS name
 * or covers host, the name of the server that is verified (NULL: none is).
 */
enum constraints tls_constraints_check(const mbedtls_x509_crt *issuer,
	    const mbedtls_x509_crt *, const char *host);

#endif
