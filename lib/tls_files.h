/* tls_files: certificates, keys and revocation lists, out of files. */
#ifndef TLS_FILES_H
#define TLS_FILES_H

#include "tls_internal.h"

/* What a certificate is read for. */
enum cert_use { OWN, ISSUER, PINNED };

struct cert_loading {
	enum cert_use use;
	char	 refused[DN_SIZE + NAME_SIZE];	/* why it is, as a clause */
};

/*
 * The library's callback for an extension that it does not know; the argument
 * is a struct cert_loading.  Our own chain is for the peer to judge; others are
 * refused if the extension is critical, unless lib/tls_constraints checks it.
 */
int	 tls_files_check_extension(void *, const mbedtls_x509_crt *,
	    const mbedtls_x509_buf *oid, int is_critical,
	    const unsigned char *p, const unsigned char *end);

/* All of these: 0, or -1 having called tls_fail(). */

/*
 * The certificates of a file, at the end of chain.  Of several issuers one is
 * enough: those that are not used are told by cfg->passed.
 */
int	 tls_files_certs(struct tls_config *, mbedtls_x509_crt *chain,
	    enum cert_use, const char *file);

/* A certificate's key, which has to match it; password may be NULL. */
int	 tls_files_key(struct tls_config *, struct cert *, const char *file,
	    const char *password);

/* Revocation lists, at the end of cfg->crl. */
int	 tls_files_crl(struct tls_config *, const char *file);

/*
 * Load the file of that name, or all that are in the directory; one_will_do: of
 * those, one is enough.
 */
int	 tls_files_each(struct tls_config *, const char *name,
	    int (*load)(struct tls_config *, const char *), int one_will_do);

/* Forget all but the first n of cfg->passed. */
void	 tls_files_forget_passed(struct tls_config *, size_t n);

#endif
