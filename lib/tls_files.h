/* tls_files: certificates, keys and revocation lists, loaded from files. */
#ifndef TLS_FILES_H
#define TLS_FILES_H

#include "tls_internal.h"

/* The purpose for which a certificate is loaded. */
enum cert_use { OWN, ISSUER, PINNED };

struct cert_loading {
	enum cert_use use;
	char	 refused[DN_SIZE + NAME_SIZE];	/* the reason, as a clause */
};

/*
 * The library's callback for an extension unknown to it; the argument is a
 * struct cert_loading.  Accept all in our own chain, which the peer verifies;
 * in others refuse critical ones, except name constraints, which
 * lib/tls_constraints checks.
 */
int	 tls_files_check_extension(void *, const mbedtls_x509_crt *,
	    const mbedtls_x509_buf *oid, int is_critical,
	    const unsigned char *p, const unsigned char *end);

/* All that return an int: 0, or -1 having called tls_fail(). */

/*
 * Append the certificates of a file to chain.  Of several issuers, one usable
 * certificate is enough; cfg->passed lists the others.
 */
int	 tls_files_certs(struct tls_config *, mbedtls_x509_crt *chain,
	    enum cert_use, const char *file);

/* Load a certificate's key, which has to match it; password NULL: none. */
int	 tls_files_key(struct tls_config *, struct cert *, const char *file,
	    const char *password);

/* Append revocation lists to cfg->crl. */
int	 tls_files_crl(struct tls_config *, const char *file);

/*
 * Call load for the file, or for each file in the directory; one_will_do: of
 * these, one success is enough.
 */
int	 tls_files_each(struct tls_config *, const char *name,
	    int (*load)(struct tls_config *, const char *), int one_will_do);

/* Free all but the first n of cfg->passed. */
void	 tls_files_forget_passed(struct tls_config *, size_t n);

#endif
