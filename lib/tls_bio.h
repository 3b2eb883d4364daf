/*
 * tls_bio: records between mbed TLS and the socket, and what they show.  Codes
 * are mbed TLS's.
 */
#ifndef TLS_BIO_H
#define TLS_BIO_H

#include <stddef.h>
#include <sys/types.h>

struct stream;
struct tls;

/*
 * The callbacks of mbedtls_ssl_set_bio(), for a struct tls.  No more than
 * t->budget calls of recv(2) are made before one answers WANT_READ.
 */
int	 tls_bio_recv(void *, unsigned char *, size_t);
int	 tls_bio_send(void *, const unsigned char *, size_t);

/*
 * What errno of a failed recv(2) or send(2) is, as a code: a WANT, or an error,
 * whose errno is kept in t->err.
 */
int	 tls_bio_recv_error(struct tls *);
int	 tls_bio_send_error(struct tls *);

/*
 * Data are received by more than the library asks for.  What is left of that
 * at the end of a read is kept until the next: 0, or a code.
 */
void	 tls_bio_take_ahead(struct tls *);
int	 tls_bio_keep_ahead(struct tls *);

/* The code that reading ended with. */
int	 tls_bio_read_end(const struct tls *);

/* Are we between records, in both directions? */
int	 tls_bio_is_whole(const struct tls *);

/* send(2), with MSG_MORE if more follows at once. */
ssize_t	 tls_bio_put(struct tls *, const unsigned char *, size_t, int more);

/*
 * Send what was deferred; more: other data follow at once.  0, or -1 with
 * errno.
 */
int	 tls_bio_send_deferred(struct tls *, int more);

/*
 * A write gathers records while there is room for one more, and then sends them
 * at once.  0, or a code; MBEDTLS_ERR_SSL_WANT_WRITE: the rest is deferred.
 */
void	 tls_bio_gather(struct tls *);
int	 tls_bio_has_room(const struct tls *);
int	 tls_bio_send_gathered(struct tls *);

/* How many bytes of data one write can gather. */
size_t	 tls_bio_write_size(const struct tls *);

/* The failed operation of both TLS streams. */
int	 tls_bio_failed(struct stream *);

#endif
