/*
 * tls_bio: records between mbed TLS and the socket.  Codes are mbed TLS's.
 */
#ifndef TLS_BIO_H
#define TLS_BIO_H

#include <stddef.h>
#include <sys/types.h>

struct stream;
struct tls;

/*
 * The callbacks of mbedtls_ssl_set_bio(), for a struct tls.
 *
 * tls_bio_recv() decrements t->budget, and returns WANT_READ once it is 0.  It
 * sets t->starved to whether it failed.
 *
 * tls_bio_send() gathers in one buffer for the whole process: each operation
 * that may send ends with tls_bio_flush() or tls_bio_hold(), or another stream
 * would send these bytes.  In the handshake tls_bio_recv() flushes first, and
 * may return WANT_WRITE.
 */
int	 tls_bio_recv(void *, unsigned char *, size_t);
int	 tls_bio_send(void *, const unsigned char *, size_t);

/*
 * Translate errno of a failed recv(2) or send(2) to a code: WANT_READ,
 * WANT_WRITE, or an error, with errno kept in t->err.
 */
int	 tls_bio_recv_error(struct tls *);
int	 tls_bio_send_error(struct tls *);

/*
 * More is received than the library asks for.  Begin each operation with
 * _take_ahead, and end it with _keep_ahead, which keeps the rest for the next
 * one, in allocated memory.  0, or a code.
 */
void	 tls_bio_take_ahead(struct tls *);
int	 tls_bio_keep_ahead(struct tls *);

/* Return the code that reading ended with. */
int	 tls_bio_read_end(const struct tls *);

/* 1 between two records, with nothing received beyond the last one. */
int	 tls_bio_is_exact(const struct tls *);

/* send(2), repeated after EINTR; never SIGPIPE. */
ssize_t	 tls_bio_put(struct tls *, const unsigned char *, size_t);

/*
 * Send the gathered bytes.  0, or a code; at MBEDTLS_ERR_SSL_WANT_WRITE, with
 * errno, the rest is deferred, and the next call sends it, before what is
 * gathered until then.
 */
int	 tls_bio_flush(struct tls *);

/* Defer all gathered bytes, sending nothing.  0, or a code. */
int	 tls_bio_hold(struct tls *);

/* 1 if bytes are gathered; 1 if one more record of data has room. */
int	 tls_bio_has_gathered(void);
int	 tls_bio_has_room(const struct tls *);

/* Return how many bytes of data one write can gather. */
size_t	 tls_bio_write_size(const struct tls *);

/* The failed operation of both TLS streams. */
int	 tls_bio_failed(struct stream *);

#endif
