/* tls_bio: records between mbed TLS and the socket. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "stream.h"
#include "tls_bio.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_records.h"
#include "util.h"

#define RECORD_EXTRA	256		/* expansion, RFC 8446 section 5.2 */
#define FLIGHT_AHEAD	4096		/* received ahead in a handshake */
#define WORTH_SENDING	256		/* above it a certificate is gathered */
#define DATA_SIZE	(5 * (HEADER_SIZE + RECORD_MAX + RECORD_EXTRA))
#define OUT_SIZE	(DATA_SIZE + 4096)	/* tickets, and alerts */

/*
 * One pair of buffers for the whole process: only the stream in its current
 * operation uses them, and leaves nothing to send in them.  Untouched pages
 * take no memory.
 */
static struct tls_io {
	size_t	 ahead_at, ahead_end;
	size_t	 nout;
	unsigned char ahead[DATA_SIZE];		/* received, not decrypted */
	unsigned char out[OUT_SIZE];		/* encrypted, not sent */
} io;

static int
bio_error(struct tls *t, int want, int other)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return want;
	t->err = errno;
	return errno == ECONNRESET || errno == EPIPE ?
	    MBEDTLS_ERR_NET_CONN_RESET : other;
}

int
tls_bio_recv_error(struct tls *t)
{
	return bio_error(t, MBEDTLS_ERR_SSL_WANT_READ,
	    MBEDTLS_ERR_NET_RECV_FAILED);
}

int
tls_bio_send_error(struct tls *t)
{
	return bio_error(t, MBEDTLS_ERR_SSL_WANT_WRITE,
	    MBEDTLS_ERR_NET_SEND_FAILED);
}

int
tls_bio_is_exact(const struct tls *t)
{
	return tls_records_is_whole(&t->in) && io.ahead_at == io.ahead_end;
}

static ssize_t
bio_get(struct tls *t, unsigned char *buf, size_t len)
{
	ssize_t n;

	do {
		n = recv(t->fd, buf, len, 0);
	} while (n == -1 && errno == EINTR);
	t->fin = n == 0;
	return n;
}

/* The library accepts longer records than RFC 8446 section 5.2 allows. */
static int
check_record(struct tls *t, const unsigned char *p, size_t len)
{
	tls_records_track(&t->in, p, len);
	return is_tls13(t) && t->in.left > RECORD_MAX + RECORD_EXTRA ?
	    MBEDTLS_ERR_SSL_INVALID_RECORD : (int)len;
}

/*
 * Return the length of the rest of this record and of as many records of the
 * same length as fit: in a stream of equal records, no part of one is left over
 * to be kept.
 */
static size_t
whole_records(const struct record *r)
{
	size_t one = HEADER_SIZE + (size_t)be_get(r->head + 3, 2);

	return r->nhead < HEADER_SIZE ? sizeof(io.ahead) :
	    r->left + (sizeof(io.ahead) - r->left) / one * one;
}

/*
 * The library asks for a header, and then for the body.  Receive as much as the
 * socket has at once, but leave all records after the handshake in the socket
 * if the kernel may take over.  There are none before we have sent anything.
 */
static size_t
ahead_size(const struct tls *t, size_t len)
{
	if (t->ktls != NULL && t->out.nhead > 0)
		return len;
	return t->open ? whole_records(&t->in) : FLIGHT_AHEAD;
}

/* Return 0 or a code; at the end of the connection 0, with an empty buffer. */
static int
receive(struct tls *t, size_t len)
{
	ssize_t n;

	if (t->drained)
		return MBEDTLS_ERR_SSL_WANT_READ;
	if ((n = bio_get(t, io.ahead, len)) == -1)
		return tls_bio_recv_error(t);
	t->drained = n > 0 && (size_t)n < len;
	io.ahead_at = 0;
	io.ahead_end = (size_t)n;
	return 0;
}

int
tls_bio_keep_ahead(struct tls *t)
{
	t->nahead = io.ahead_end - io.ahead_at;
	if (t->nahead == 0)
		return 0;
	if ((t->ahead = malloc(t->nahead)) == NULL) {
		t->nahead = 0;
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	}
	memcpy(t->ahead, io.ahead + io.ahead_at, t->nahead);
	return 0;
}

void
tls_bio_take_ahead(struct tls *t)
{
	io.ahead_at = 0;
	io.ahead_end = t->nahead;
	if (t->nahead > 0)
		memcpy(io.ahead, t->ahead, t->nahead);
	free(t->ahead);
	t->ahead = NULL;
	t->nahead = 0;
}

/*
 * Send our flight first: the peer answers only then.  The budget limits a peer
 * that always has more to send, as the library reads on while it gets empty
 * records or ones that it ignores.
 */
static int
fill(struct tls *t, unsigned char *buf, size_t len)
{
	int r;

	if (!t->open && (r = tls_bio_flush(t)) != 0)
		return r;
	t->sent = 0;		/* not in answer to what comes now */
	if (t->budget-- <= 0)
		return MBEDTLS_ERR_SSL_WANT_READ;
	if (io.ahead_at == io.ahead_end &&
	    (r = receive(t, ahead_size(t, len))) != 0)
		return r;
	if (len > io.ahead_end - io.ahead_at)
		len = io.ahead_end - io.ahead_at;
	memcpy(buf, io.ahead + io.ahead_at, len);
	io.ahead_at += len;
	if (!t->open)
		tls_records_received(t, buf, len);
	return check_record(t, buf, len);
}

int
tls_bio_recv(void *ctx, unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	int r = fill(t, buf, len);

	t->starved = r < 0;
	return r;
}

static size_t
most_of_record(const struct tls *t)
{
	return HEADER_SIZE + t->record_size + RECORD_EXTRA;
}

size_t
tls_bio_write_size(const struct tls *t)
{
	return DATA_SIZE / most_of_record(t) * t->record_size;
}

int
tls_bio_has_room(const struct tls *t)
{
	return io.nout + t->ndeferred + most_of_record(t) <= OUT_SIZE;
}

int
tls_bio_has_gathered(void)
{
	return io.nout > 0;
}

/* Append to the buffer, behind the deferred bytes, which move there. */
static int
gather(struct tls *t, const unsigned char *buf, size_t len)
{
	if (len > sizeof(io.out) - io.nout - t->ndeferred)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	if (t->ndeferred > 0) {
		memcpy(io.out, t->deferred, t->ndeferred);
		io.nout = t->ndeferred;
		free(t->deferred);
		t->deferred = NULL;
		t->ndeferred = 0;
	}
	memcpy(io.out + io.nout, buf, len);
	io.nout += len;
	if (!t->open || t->ktls != NULL)
		tls_records_track(&t->out, buf, len);
	return (int)len;
}

ssize_t
tls_bio_put(struct tls *t, const unsigned char *buf, size_t len)
{
	ssize_t n;

	do {
		n = send(t->fd, buf, len, MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	return n;
}

/* Send as much as possible and return the length; errno is set if not all. */
static size_t
put_most(struct tls *t, const unsigned char *p, size_t len)
{
	size_t at = 0;
	ssize_t n;

	while (at < len && (n = tls_bio_put(t, p + at, len - at)) != -1)
		at += (size_t)n;
	return at;
}

/* Without memory the bytes are lost; after such a gap no alert can be sent. */
static int
defer(struct tls *t, size_t at)
{
	size_t len = io.nout - at;

	io.nout = 0;
	if ((t->deferred = malloc(len)) == NULL) {
		t->notified = 1;
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	}
	memcpy(t->deferred, io.out + at, len);
	t->ndeferred = len;
	return 0;
}

int
tls_bio_hold(struct tls *t)
{
	return io.nout > 0 ? defer(t, 0) : 0;
}

static int
send_deferred(struct tls *t)
{
	size_t at = put_most(t, t->deferred, t->ndeferred);

	t->ndeferred -= at;
	if (t->ndeferred > 0) {
		memmove(t->deferred, t->deferred + at, t->ndeferred);
		return tls_bio_send_error(t);
	}
	free(t->deferred);
	t->deferred = NULL;
	return 0;
}

int
tls_bio_flush(struct tls *t)
{
	size_t at;
	int r;

	if (t->ndeferred > 0)
		return send_deferred(t);
	if ((at = put_most(t, io.out, io.nout)) == io.nout) {
		io.nout = 0;
		return 0;
	}
	r = tls_bio_send_error(t);
	if (r == MBEDTLS_ERR_SSL_WANT_WRITE && defer(t, at) != 0)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	io.nout = 0;
	return r;
}

/*
 * The library applies a client's max_fragment_length (RFC 6066 section 4) only
 * to data.  So split handshake records here while they are in the clear; the
 * encrypted ones of TLS 1.2 are short.
 */
static size_t
fragment_size(const struct tls *t, const unsigned char *p)
{
	int max = mbedtls_ssl_get_max_out_record_payload(t->ssl);

	return t->encrypted || max <= 0 || p[0] != MBEDTLS_SSL_MSG_HANDSHAKE ?
	    RECORD_MAX : (size_t)max;
}

static int
gather_fragments(struct tls *t, const unsigned char *p, size_t len, size_t max)
{
	unsigned char head[HEADER_SIZE];
	size_t at, n;

	memcpy(head, p, sizeof(head));
	for (at = HEADER_SIZE; at < len; at += n) {
		n = len - at < max ? len - at : max;
		be_put(head + 3, n, 2);
		if (gather(t, head, sizeof(head)) < 0 ||
		    gather(t, p + at, n) < 0)
			return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	}
	return (int)len;
}

/*
 * Let the peer compute while we do: it can derive keys and verify our
 * certificate while we sign.  0, or a code.
 */
static int
send_early(struct tls *t)
{
	int r = t->slow && io.nout >= WORTH_SENDING ? tls_bio_flush(t) : 0;

	return r == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : r;
}

/*
 * The library calls this with one whole record.  Always accept it: the library
 * would take its next write for a retry of this one, and lose the data.
 */
int
tls_bio_send(void *ctx, const unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	size_t max;
	int n, r;

	if (t->open)
		return gather(t, buf, len);
	t->sent = 1;
	tls_records_sent(t, buf, len);
	max = fragment_size(t, buf);
	n = len > HEADER_SIZE + max ? gather_fragments(t, buf, len, max) :
	    gather(t, buf, len);
	return n > 0 && (r = send_early(t)) != 0 ? r : n;
}

/*
 * A socket reports a reset only once, possibly to send(2); recv(2) then returns
 * 0, as at the end of a connection.
 */
int
tls_bio_read_end(const struct tls *t)
{
	if (t->ended == MBEDTLS_ERR_SSL_CONN_EOF && t->err == ECONNRESET)
		return MBEDTLS_ERR_NET_CONN_RESET;
	if (t->ended == MBEDTLS_ERR_SSL_CONN_EOF && t->cfg->truncation_is_eof)
		return MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
	return t->ended;
}

int
tls_bio_failed(struct stream *s)
{
	struct tls *t = s->ctx;
	int r = stream_plain_failed(s);

	if (r != 0)
		t->err = s->err;
	if (r == STREAM_ERROR)
		t->failed = MBEDTLS_ERR_NET_RECV_FAILED;
	return r;
}
