/* tls_names: the names in a certificate, and those it is to be found by. */
#ifndef TLS_NAMES_H
#define TLS_NAMES_H

#include "tls_internal.h"

/* 1 if it can be a host's name, or a wildcard for some. */
int	 tls_names_is_host(const char *);

/* 1 if they are the same but for case; b has len bytes. */
int	 tls_names_equal(const char *a, const char *b, size_t len);

/*
 * 1 if a pattern "*.example.org" matches, with one label in the star's place.
 */
int	 tls_names_matches_wildcard(const char *pattern, size_t plen,
	    const char *name, size_t len);

/*
 * Each alternative name that is a DNS name, an address or a URI, given to f
 * with its MBEDTLS_X509_SAN_... until f answers other than 0; what it answered
 * last.
 */
int	 tls_names_each(const mbedtls_x509_crt *,
	    int (*f)(void *, int kind, const char *, size_t), void *arg);

/* 1 if it has any alternative name at all; or one that is a DNS name. */
int	 tls_names_has_san(const mbedtls_x509_crt *);
int	 tls_names_has_dns(const mbedtls_x509_crt *);

/* 1 if a common name may stand for a DNS name: one of several labels. */
int	 tls_names_is_dns(const mbedtls_x509_buf *);

/* The subject's last common name; NULL: it has none. */
const mbedtls_x509_buf *tls_names_common(const mbedtls_x509_crt *);

/* The bytes of an address, 4 or 16; 0: it is a name. */
size_t	 tls_names_address(const char *, unsigned char bytes[16]);

/*
 * 1 if a DNS name of a certificate, of len bytes, is that of a host: the same,
 * or it matches as a wildcard with two labels or more behind the star.
 */
int	 tls_names_covers(const char *pattern, size_t len, const char *name);

/*
 * 1 if a server of that name, or address, may have the certificate.  RFC 9525
 * section 6, but for this: where there is no DNS name at all, the common name
 * is one.  Private authorities still issue such, and public ones never do.
 */
int	 tls_names_is_server(const mbedtls_x509_crt *, const char *name);

/* Whom a server's certificate is for: some of its names as a list, escaped. */
void	 tls_names_list(const mbedtls_x509_crt *, char *text, size_t size);

/* A distinguished name as text, which is returned. */
const char *tls_names_dn(const mbedtls_x509_name *, char *text, size_t size);

/* A name that a client asks for. */
struct name_query {
	const char *name;
	int	 by_pattern;		/* wildcards alone, or none of them */
};

/*
 * 1 if a certificate of ours has it.  RFC 6125 section 6.4: the common name
 * counts if there is no alternative name.
 */
int	 tls_names_has(const mbedtls_x509_crt *, struct name_query *);

/*
 * Keep in t->sni the name that the client asks for (RFC 6066 section 3), once;
 * empty: it is no host's.  0, or an error of the library's.
 */
int	 tls_names_remember(mbedtls_ssl_context *);

#endif
