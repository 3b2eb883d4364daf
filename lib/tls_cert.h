/* tls_cert: dates, issuer and extensions of a certificate. */
#ifndef TLS_CERT_H
#define TLS_CERT_H

#include "tls_internal.h"

enum cert_dates { IN_TIME, ENDS_SOON, EXPIRED, NOT_YET };

/* Return a date in seconds since 1970. */
time_t	 tls_cert_utc(const mbedtls_x509_time *);

/*
 * Describe a validity period at the current time, as "expired 3 days ago".
 * ENDS_SOON: it ends in less than days.
 */
enum cert_dates tls_cert_dates(const mbedtls_x509_time *from,
	    const mbedtls_x509_time *to, int days, char *text, size_t size);

/* 1 if both hold the same bytes. */
int	 tls_cert_same(const mbedtls_x509_buf *, const mbedtls_x509_buf *);

/* 1 if issuer has the name of the certificate's issuer. */
int	 tls_cert_is_issuer(const mbedtls_x509_crt *issuer,
	    const mbedtls_x509_crt *);

/* 1 if the list has this certificate, given in DER. */
int	 tls_cert_is_in(const mbedtls_x509_crt *list, const unsigned char *der,
	    size_t len);

/*
 * Object identifiers that the library does not parse, of extensions and of an
 * access method, each behind its length byte.  RFC 5280 section 4.2.2.1, RFC
 * 7633, Netscape's certificate type of 1998, RFC 3820 section 3.8.
 */
#define CA_ISSUERS	"\x08" MBEDTLS_OID_PKIX "\x30\x02"
#define MUST_STAPLE	"\x08" MBEDTLS_OID_PKIX "\x01\x18"
#define NS_CERT_TYPE	"\x09" MBEDTLS_OID_NS_CERT_TYPE
#define PROXY_CERT_INFO	"\x08" MBEDTLS_OID_PKIX "\x01\x0e"

/*
 * Get the value of an extension; oid without a length byte.  1, or 0: there is
 * none; -1: there are two, or it is malformed.
 */
int	 tls_cert_extension(const mbedtls_x509_crt *, const char *oid,
	    mbedtls_x509_buf *value);

/* A curve of a certificate's key. */
struct cert_curve {
	char	 name[16];
	uint16_t group;			/* RFC 8422 section 5.1.1 */
	psa_ecc_family_t family;	/* PSA's terms for the curve */
	uint16_t bits;
};

/* Return 1 if it is an RSA key. */
int	 tls_cert_is_rsa(const mbedtls_pk_context *);

/* Return the curve of a key, or NULL if it is not an EC key. */
const struct cert_curve *tls_cert_curve(const mbedtls_pk_context *);

/* Return the signature algorithm of a certificate as text, or "unknown". */
const char *tls_cert_signature(const mbedtls_x509_crt *);

/* Return what follows such an identifier in the extensions, or NULL. */
unsigned char *tls_cert_find_oid(const mbedtls_x509_crt *, const char *oid);

#endif
