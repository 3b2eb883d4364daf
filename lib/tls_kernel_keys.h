/*
 * tls_kernel_keys: the ciphers of kernel TLS, its keys, derived from the
 * secrets of a handshake, and the capabilities of this kernel.
 */
#ifndef TLS_KERNEL_KEYS_H
#define TLS_KERNEL_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "tls_internal.h"

#define SECRET_SIZE	48		/* master secret; or SHA-384 */

/* The secrets that the keys of a connection are derived from. */
union secrets {
	unsigned char traffic[2][SECRET_SIZE];	/* 1.3: client's, server's */
	struct {
		unsigned char secret[SECRET_SIZE];
		unsigned char seed[64];
	} master;				/* TLS 1.2 */
};

/* Kernel TLS on one connection. */
struct ktls {
	const struct cipher *cipher;
	union secrets *secrets;		/* NULL: no rekeying */
	int	 is_13, is_client;
	int	 sends;			/* the kernel has our keys */
	int	 update_due;		/* the peer asked for our KeyUpdate */
	int	 unread;		/* poll(2) may not report all input */
	uint64_t seq;			/* of the kernel's first record sent */
	uint64_t base;			/* bytes in TCP before that record */
	uint64_t given;			/* bytes of content written since */
	uint64_t records;		/* + ktls_next_record(): sent since */
};

/* Return the cipher of a suite, or NULL. */
const struct cipher *ktls_find_cipher(int suite);

/* Return the bit of a cipher and version, as of tls_kernel_try(). */
unsigned ktls_cap(const struct cipher *, int is_13);

/*
 * Give the kernel the keys for a direction, TLS_TX or TLS_RX: ktls_install() by
 * the current secrets, with seq the number of the first record;
 * ktls_update_keys() by the next ones (RFC 8446 section 7.2).  0, or -1 with
 * errno.
 */
int	 ktls_install(struct tls *, int direction, uint64_t seq);
int	 ktls_update_keys(struct tls *, int direction);

/* Overwrite and free the secrets; after that, there is no rekeying. */
void	 ktls_forget_secrets(struct ktls *);

/* An mbedtls_ssl_export_keys_t; the argument is a union secrets. */
void	 ktls_export_keys(void *, mbedtls_ssl_key_export_type,
	    const unsigned char *secret, size_t len,
	    const unsigned char client[32], const unsigned char server[32],
	    mbedtls_tls_prf_types);

/* Return the number of the next record under the kernel's current keys. */
uint64_t ktls_next_record(const struct tls *);

/* Return how much longer a record is than its content. */
uint64_t ktls_overhead(const struct ktls *);

#endif
