/* tls_constraints: the names that an issuer may certify. */
#ifndef TLS_CONSTRAINTS_H
#define TLS_CONSTRAINTS_H

#include "tls_internal.h"

/*
 * The name constraints of an issuer, RFC 5280 section 4.2.1.10: are they kept?
 * UNCHECKED: that can't be told, as they are of a kind that is not supported.
 */
enum constraints { KEPT, BROKEN, UNCHECKED };

/* Are those that it has of the right form?  KEPT also if it has none. */
enum constraints tls_constraints_read(const mbedtls_x509_crt *issuer);

/*
 * Does a certificate keep to those of an issuer above it?  Subject, DNS names,
 * and addresses; the common name, where it stands for a DNS name, or is that of
 * this host.
 */
enum constraints tls_constraints_check(const mbedtls_x509_crt *issuer,
	    const mbedtls_x509_crt *, const char *host);

#endif
