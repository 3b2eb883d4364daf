/*
 * tls_kernel_keys: ciphers that the kernel has, keys made from a handshake's
 * secrets, and what it can do.
 */
#ifndef TLS_KERNEL_KEYS_H
#define TLS_KERNEL_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "tls_internal.h"

#define SECRET_SIZE	48		/* the master's, or of SHA-384 */

/* What the keys of a connection come from. */
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
	union secrets *secrets;		/* NULL: no more keys will be made */
	int	 is_13, is_client;
	int	 sends;			/* it has our keys, not only theirs */
	int	 update_due;		/* we were asked for new keys */
	int	 unread;		/* it may have more, and not tell */
	uint64_t seq;			/* of its first record */
	uint64_t base;			/* bytes that TCP had until then */
	uint64_t given;			/* bytes that it was to send since */
	uint64_t records;		/* to be added to its record's number */
};

/* The cipher of a suite, or NULL; and its bit, as of tls_kernel_try(). */
const struct cipher *ktls_find_cipher(int suite);
unsigned ktls_cap(const struct cipher *, int is_13);

/*
 * Give the kernel the keys for a direction, TLS_TX or TLS_RX, from the secrets
 * as they are, or the next ones (RFC 8446 section 7.2).  seq: the number of its
 * first record.  0, or -1 with errno.
 */
int	 ktls_install(struct tls *, int direction, uint64_t seq);
int	 ktls_update_keys(struct tls *, int direction);

/* No more keys can be made. */
void	 ktls_forget_secrets(struct ktls *);

/* An mbedtls_ssl_export_keys_t, for a union secrets. */
void	 ktls_export_keys(void *, mbedtls_ssl_key_export_type,
	    const unsigned char *secret, size_t len,
	    const unsigned char client[32], const unsigned char server[32],
	    mbedtls_tls_prf_types);

/* The number of the next record that it sends with its present keys. */
uint64_t ktls_next_record(const struct tls *);

/* How much longer a record is than the data in it. */
uint64_t ktls_overhead(const struct ktls *);

#endif
