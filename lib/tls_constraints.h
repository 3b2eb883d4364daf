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

/* 1 if the issuer's constraints are well-formed, or it has none. */
int	 tls_constraints_are_valid(const mbedtls_x509_crt *issuer);

/*
 * Check a certificate's names against the constraints of an issuer above it:
 * the subject, all alternative names, and the common name if it stands for a
 * DNS name or matches host, the server's name to verify (NULL: none).
 */
enum constraints tls_constraints_check(const mbedtls_x509_crt *issuer,
	    const mbedtls_x509_crt *, const char *host);

#endif
