/* tls_cert: what a certificate says of dates, issuer and extensions. */
#ifndef TLS_CERT_H
#define TLS_CERT_H

#include "tls_internal.h"

enum cert_dates { IN_TIME, ENDS_SOON, EXPIRED, NOT_YET };

/* In seconds since 1970. */
time_t	 tls_cert_utc(const mbedtls_x509_time *);

/*
 * What there is to say of such dates, as "expired 3 days ago"; ENDS_SOON: in
 * less than so many days.
 */
enum cert_dates tls_cert_dates(const mbedtls_x509_time *from,
	    const mbedtls_x509_time *to, int days, char *text, size_t size);

/* 1 if they hold the same bytes. */
int	 tls_cert_same(const mbedtls_x509_buf *, const mbedtls_x509_buf *);

/* 1 if it is the issuer, going by names alone. */
int	 tls_cert_is_issuer(const mbedtls_x509_crt *issuer,
	    const mbedtls_x509_crt *);

/* 1 if that certificate, in DER, is in the list. */
int	 tls_cert_is_in(const mbedtls_x509_crt *list, const unsigned char *der,
	    size_t len);

/*
 * Extensions, and what is in one, that the library makes nothing of: their
 * object identifiers, each behind the byte that its length ends with.  RFC 5280
 * section 4.2.2.1, RFC 7633, Netscape's of 1998, RFC 3820 section 3.8.
 */
#define CA_ISSUERS	"\x08" MBEDTLS_OID_PKIX "\x30\x02"
#define MUST_STAPLE	"\x08" MBEDTLS_OID_PKIX "\x01\x18"
#define NS_CERT_TYPE	"\x09" MBEDTLS_OID_NS_CERT_TYPE
#define PROXY_CERT_INFO	"\x08" MBEDTLS_OID_PKIX "\x01\x0e"

/*
 * What is in the extension of that identifier: 1, or 0: there is none; -1:
 * there are two, or it is malformed.
 */
int	 tls_cert_extension(const mbedtls_x509_crt *, const char *oid,
	    mbedtls_x509_buf *value);

/* What follows such an identifier in the extensions, or NULL. */
unsigned char *tls_cert_find_oid(const mbedtls_x509_crt *, const char *oid);

#endif
