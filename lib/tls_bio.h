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
 * The callbacks of mbedtls_ssl_set_bio(), for a struct tls.
 *
 * tls_bio_recv() answers WANT_READ once t->budget calls were answered.
 * t->starved says that the last one got nothing.
 *
 * What the library sends is gathered, in one buffer for the whole process: each
 * operation in which it may send ends with tls_bio_flush() or tls_bio_hold(),
 * lest it goes to another stream.  In the handshake tls_bio_recv() sends it
 * first, and may answer WANT_WRITE.
 */
int	 tls_bio_recv(void *, unsigned char *, size_t);
int	 tls_bio_send(void *, const unsigned char *, size_t);

/*
 * errno of a failed recv(2) or send(2), as a code: a WANT, or an error, whose
 * errno is kept in t->err.
 */
int	 tls_bio_recv_error(struct tls *);
int	 tls_bio_send_error(struct tls *);

/*
 * More is received than the library asks for.  What is left of that at the end
 * of an operation is kept until the next: 0, or a code.
 */
void	 tls_bio_take_ahead(struct tls *);
int	 tls_bio_keep_ahead(struct tls *);

/* The code that reading ended with. */
int	 tls_bio_read_end(const struct tls *);

/* Are we between records, and was nothing received beyond the last one? */
int	 tls_bio_is_exact(const struct tls *);

/* send(2), but for EINTR. */
ssize_t	 tls_bio_put(struct tls *, const unsigned char *, size_t);

/*
 * Send what was gathered, at once.  0, or a code; at
 * MBEDTLS_ERR_SSL_WANT_WRITE, with errno, the rest is deferred: a call for that
 * alone, or with what is gathered next, sends it.
 */
int	 tls_bio_flush(struct tls *);

/* Send nothing now: defer all that was gathered.  0, or a code. */
int	 tls_bio_hold(struct tls *);

/* Was anything gathered?  Is there room for one more record of data? */
int	 tls_bio_has_gathered(void);
int	 tls_bio_has_room(const struct tls *);

/* How many bytes of data one write can gather. */
size_t	 tls_bio_write_size(const struct tls *);

/* The failed operation of both TLS streams. */
int	 tls_bio_failed(struct stream *);

#endif
