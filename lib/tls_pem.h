/*
 * tls_pem: files read as text, in all the shapes that are found in the wild;
 * and, where the library can't read one, what it is and how to convert it.
 */
#ifndef TLS_PEM_H
#define TLS_PEM_H

#include <mbedtls/pem.h>

#include "tls_internal.h"

#define PEM_BEGIN	"-----BEGIN "
#define PEM_UNSUPPORTED	", which this mbed TLS does not support"
#ifdef PSA_WANT_ECC_SECP_R1_521
#define PEM_CURVES	"secp256r1, secp384r1, secp521r1"
#else
#define PEM_CURVES	"secp256r1, secp384r1"
#endif
#define PEM_UNSUPPORTED_KEY \
	PEM_UNSUPPORTED " (allowed: RSA, " PEM_CURVES ")"

/* Where a shape shows: at a file's start, in a label of PEM, or anywhere. */
enum shape_place { AT_START, AT_LABEL, WITHIN };

/* An object identifier is behind the byte that its length ends with. */
struct pem_shape {
	enum shape_place place;
	const char *mark;		/* at the start, ? is any byte */
	size_t	 len;			/* of it */
	const char *what;
	const char *by, *to;		/* commands: by FILE to NEW; or NULL */
};

/* A block of PEM, RFC 7468: where it begins, and its label. */
struct pem_block {
	const char *text;
	char	 label[48];
};

/*
 * A whole file of at most 1 MB and a NUL behind it, which counts in size, as
 * the PEM parser wants it.  The caller overwrites and frees it.  NULL, having
 * called tls_fail(): also if it ends within a block.
 */
unsigned char *tls_pem_read(struct tls_config *, const char *file,
	    size_t *size);

/* How much of it is to be parsed: the NUL behind it is for PEM alone. */
size_t	 tls_pem_parse_size(const unsigned char *text, size_t size);

/* 1 if it is neither PEM nor anything else that is known. */
int	 tls_pem_may_be_der(const unsigned char *, size_t len);

/* The next block in a text; 0: there is none. */
int	 tls_pem_next(const char *text, struct pem_block *);

/*
 * What is in a block: 0, or an error of the library's; the caller frees the
 * context in either case.
 */
int	 tls_pem_decode(const struct pem_block *, mbedtls_pem_context *);

/* 1 if it is a label of certificates. */
int	 tls_pem_is_cert(const char *label);

/* The first shape that it has, or NULL. */
const struct pem_shape *tls_pem_find_shape(enum shape_place, const void *,
	    size_t len);

/* tls_fail() with a text about a file, and what would convert that shape. */
int	 tls_pem_fail_shape(struct tls_config *, const char *file,
	    const struct pem_shape *, const char *fmt, ...)
	    __attribute__((format(printf, 4, 5)));

/* tls_fail(): what was wanted is not in a text; tell what is. */
int	 tls_pem_fail_to_find(struct tls_config *, const char *file,
	    const char *wanted, const char *text, size_t size);

#endif
