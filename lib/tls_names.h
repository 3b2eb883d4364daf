/* tls_names: the names in a certificate, and names compared with them. */
#ifndef TLS_NAMES_H
#define TLS_NAMES_H

#include "tls_internal.h"

/* 1 if the text has only the characters of host names and wildcards. */
int	 tls_names_is_host(const char *);

/* 1 if both are equal, ignoring case; b has len bytes. */
int	 tls_names_equal(const char *a, const char *b, size_t len);

/* 1 if a pattern "*.example.org" matches; the star stands for one label. */
int	 tls_names_matches_wildcard(const char *pattern, size_t plen,
	    const char *name, size_t len);

/*
 * Call f for each alternative name that is a DNS name, an address or a URI,
 * with its MBEDTLS_X509_SAN_..., until f returns other than 0.  Return the last
 * result of f.
 */
int	 tls_names_each(const mbedtls_x509_crt *,
	    int (*f)(void *, int kind, const char *, size_t), void *arg);

/* 1 if the certificate has any alternative name; one that is a DNS name. */
int	 tls_names_has_san(const mbedtls_x509_crt *);
int	 tls_names_has_dns(const mbedtls_x509_crt *);

/* 1 if a common name may stand for a DNS name: it has several labels. */
int	 tls_names_is_dns(const mbedtls_x509_buf *);

/* Return the last common name of the subject, or NULL. */
const mbedtls_x509_buf *tls_names_common(const mbedtls_x509_crt *);

/* Parse an address.  Return its length, 4 or 16; 0: it is no address. */
size_t	 tls_names_address(const char *, unsigned char bytes[16]);

/*
 * 1 if a DNS name of a certificate, of len bytes, matches a host: it is equal,
 * or a wildcard with two labels or more after the star.
 */
int	 tls_names_covers(const char *pattern, size_t len, const char *name);

/*
 * 1 if the certificate is valid for a server with this name or address, by RFC
 * 9525 section 6, with one exception: without any DNS name, the common name
 * counts as one.  Private authorities still issue such certificates; public
 * ones never do.
 */
int	 tls_names_is_server(const mbedtls_x509_crt *, const char *name);

/* List the first names of a server's certificate, escaped. */
void	 tls_names_list(const mbedtls_x509_crt *, char *text, size_t size);

/* Convert a distinguished name to text, and return text. */
const char *tls_names_dn(const mbedtls_x509_name *, char *text, size_t size);

/* A name that a client asks for. */
struct name_query {
	const char *name;
	int	 by_pattern;		/* match only wildcards, or none */
};

/*
 * 1 if one of our certificates has the name.  The common name counts only
 * without any alternative name, RFC 6125 section 6.4.
 */
int	 tls_names_has(const mbedtls_x509_crt *, struct name_query *);

/*
 * Keep the name that the client asks for (RFC 6066 section 3) in t->sni, once;
 * empty: not a host name.  0, or an error of the library's.
 */
int	 tls_names_remember(mbedtls_ssl_context *);

#endif
