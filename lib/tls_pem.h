/*
 * tls_pem: PEM files in the variants that occur in practice; and for a file
 * that the library can't read, its kind and a command to convert it.
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

/* Where the mark of a shape is: at the start, ending a label, or anywhere. */
enum shape_place { AT_START, AT_LABEL, WITHIN };

/* A known kind of file.  Marks have object identifiers with a length byte. */
struct pem_shape {
	enum shape_place place;
	const char *mark;		/* AT_START: ? matches any byte */
	size_t	 len;			/* of the mark */
	const char *what;
	const char *by, *to;		/* to convert: by FILE to NEW; NULL */
};

/* A PEM block, RFC 7468: its beginning and its label. */
struct pem_block {
	const char *text;
	char	 label[48];
};

/*
 * Read a whole file of at most 1 MB, and append a NUL, which size includes, as
 * the library's PEM parser requires.  The caller overwrites and frees the
 * memory.  NULL, having called tls_fail(), also if the file ends within a
 * block.
 */
unsigned char *tls_pem_read(struct tls_config *, const char *file,
	    size_t *size);

/* Return the size for the library's parsers: with the NUL only for PEM. */
size_t	 tls_pem_parse_size(const unsigned char *text, size_t size);

/* 1 if the bytes may be DER: a sequence of no other known kind. */
int	 tls_pem_may_be_der(const unsigned char *, size_t len);

/* Find the next block in a text.  1, or 0: there is none. */
int	 tls_pem_next(const char *text, struct pem_block *);

/*
 * Decode a block.  0, or an error of the library's; the caller frees the
 * context in either case.
 */
int	 tls_pem_decode(const struct pem_block *, mbedtls_pem_context *);

/* 1 if it is a label of certificates. */
int	 tls_pem_is_cert(const char *label);

/* Return the first shape that matches, or NULL. */
const struct pem_shape *tls_pem_find_shape(enum shape_place, const void *,
	    size_t len);

/* Call tls_fail() with the file, a text, and the command to convert it. */
int	 tls_pem_fail_shape(struct tls_config *, const char *file,
	    const struct pem_shape *, const char *fmt, ...)
	    __attribute__((format(printf, 4, 5)));

/* Call tls_fail(): the text has no wanted block, but another one. */
int	 tls_pem_fail_to_find(struct tls_config *, const char *file,
	    const char *wanted, const char *text, size_t size);

#endif
