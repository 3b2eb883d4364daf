/* tls_bio: records between mbed TLS and the socket, and what they show. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "stream.h"
#include "tls_bio.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_psk.h"
#include "tls_verify.h"
#include "util.h"

#define RECORD_EXTRA	256		/* of a record, RFC 8446 section 5.2 */
#define FLIGHT_AHEAD	4096		/* of the handshake */
#define WORTH_SENDING	256		/* of a flight: a certificate has it */
#define HELLO_RANDOM	34		/* behind it, a session ID */
#define MESSAGE_HEAD	4		/* of a handshake's message */
#define MESSAGE_SEEN	2048		/* of one, at most */
#define DATA_SIZE	(5 * (HEADER_SIZE + RECORD_MAX + RECORD_EXTRA))
#define OUT_SIZE	(DATA_SIZE + 4096)	/* tickets, and alerts */

/*
 * The buffers of the stream that is read from, or written to, at the moment:
 * one pair for the whole process.  Pages that were never touched take no
 * memory.  Between two operations there is nothing to be sent in it.
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

static void
track_header(struct record *r, unsigned char c)
{
	if (r->nhead == HEADER_SIZE)
		r->nhead = 0;
	r->head[r->nhead++] = c;
	if (r->nhead < HEADER_SIZE)
		return;
	r->left = (uint16_t)be_get(r->head + 3, 2);
	r->count += r->count < UINT32_MAX;
	if (r->head[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC)
		r->count = 0;
}

static void
track_records(struct record *r, const unsigned char *p, size_t len)
{
	size_t i, n;

	for (; len > 0; p += n, len -= n) {
		if ((n = r->left) == 0) {
			track_header(r, *p);
			n = 1;
			continue;
		}
		if (n > len)
			n = len;
		for (i = n > 2 ? n - 2 : 0; i < n; i++) {
			r->body[0] = r->body[1];
			r->body[1] = p[i];
		}
		r->left = (uint16_t)(r->left - n);
	}
}

static int
is_whole(const struct record *r)
{
	return r->left == 0 && r->nhead % HEADER_SIZE == 0;
}

int
tls_bio_is_exact(const struct tls *t)
{
	return is_whole(&t->in) && io.ahead_at == io.ahead_end;
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

/* The library would take longer records than RFC 8446 section 5.2 allows. */
static int
pass(struct tls *t, const unsigned char *p, size_t len)
{
	track_records(&t->in, p, len);
	return is_tls13(t) && t->in.left > RECORD_MAX + RECORD_EXTRA ?
	    MBEDTLS_ERR_SSL_INVALID_RECORD : (int)len;
}

/*
 * The rest of this record, and as many like it as there is room for: in a
 * stream of equal ones, nothing is left over that would have to be kept.
 */
static size_t
whole_records(const struct record *r)
{
	size_t one = HEADER_SIZE + (size_t)be_get(r->head + 3, 2);

	return r->nhead < HEADER_SIZE ? sizeof(io.ahead) :
	    r->left + (sizeof(io.ahead) - r->left) / one * one;
}

/*
 * The library asks for a header, and then for what it announces.  As much is
 * received at once as there is; but what follows the handshake has to be left
 * to the kernel, if it may take over.  As long as we have sent nothing, there
 * can't be any of that.
 */
static size_t
ahead_size(const struct tls *t, size_t len)
{
	if (t->ktls != NULL && t->out.nhead > 0)
		return len;
	return t->open ? whole_records(&t->in) : FLIGHT_AHEAD;
}

/* 0, or a code.  At the end of the connection it is 0, and nothing is there. */
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

/* What the reader had no room for is kept. */
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

static void
saw_handshake(struct tls *t, const unsigned char *p, size_t len)
{
	size_t i;

	if (t->flight == 1) {
		t->flight = 2;
		t->slow = 0;
	}
	for (i = 0; i < len && t->nfirst < sizeof(t->first); i++)
		t->first[t->nfirst++] = p[i];
	/* Its Finished is the last before our keys for data; RFC 8446 4.4.4. */
	if (is_tls13(t))
		t->out.count = 0;
}

/* A server that has the shared key is known by it, not by a certificate. */
static void
know_by(struct tls *t, const struct psk *psk)
{
	t->psk = psk;
	if (psk != NULL)
		tls_verify_forget(t);
}

/*
 * In TLS 1.3 a server chooses one of the keys that it was offered, by its
 * number, or none: -1.  Number 0 is that of a ticket, if a client offers one.
 */
static void
choose(struct tls *t, int chosen)
{
	if (t->cfg->is_client)
		t->by_psk = !t->offers_ticket || chosen != 0;
	t->resumed = chosen != -1 && !t->by_psk;
	if (chosen == -1)
		t->psk = NULL;		/* it is by certificate */
	else if (t->cfg->is_client && t->by_psk)
		know_by(t, t->cfg->own_psk);
}

/*
 * In a ServerHello are a session ID, at p, suite, compression, and the
 * extensions: in TLS 1.3 (RFC 8446 section 4.2) the group of the key_share, and
 * whether a session is resumed.  In TLS 1.2 it is, unless a Certificate
 * follows; and both sides can make an extended master secret if it is there.
 */
static void
sniff_hello(struct tls *t, const unsigned char *p, const unsigned char *end)
{
	int is_13 = 0, has_share = 0, chosen = -1;
	size_t n;

	if (p == end || end - p < 1 + p[0] + 5)
		return;
	t->suite = (int)be_get(p + 1 + p[0], 2);
	for (p += 1 + p[0] + 5; end - p >= 4; p += n) {
		n = 4 + (size_t)be_get(p + 2, 2);
		if (n > (size_t)(end - p))
			n = (size_t)(end - p);
		switch (be_get(p, 2)) {
		case MBEDTLS_TLS_EXT_KEY_SHARE:
			if (n >= 6)
				t->group = (int)be_get(p + 4, 2);
			has_share = n > 6;
			break;
		case MBEDTLS_TLS_EXT_PRE_SHARED_KEY:
			if (n >= 6)
				chosen = (int)be_get(p + 4, 2);
			break;
		case MBEDTLS_TLS_EXT_SUPPORTED_VERSIONS:
			is_13 = 1;
			break;
		case MBEDTLS_TLS_EXT_EXTENDED_MASTER_SECRET:
			t->extended = 1;
			break;
		default:
			break;
		}
	}
	/* A HelloRetryRequest has neither, and chooses nothing. */
	if (is_13 && (has_share || chosen != -1))
		choose(t, chosen);
	else if (!is_13)
		t->resumed = t->offers || !t->cfg->is_client;
}

/* In TLS 1.2 only a full handshake has that message. */
static void
begin_anew(struct tls *t)
{
	if (t->cfg->is_client)
		know_by(t, t->suite == PSK_SUITE ? t->cfg->own_psk : NULL);
	t->resumed = 0;
}

/*
 * The group is behind the type of the curve, RFC 8422 section 5.4; with a key
 * that both sides have, a hint comes first, RFC 5489 section 2, which is short.
 */
static void
sniff_exchange(struct tls *t, const unsigned char *p, size_t len)
{
	size_t hint = len > 2 && p[0] == 0 ? 2 + (size_t)be_get(p, 2) : 0;

	if (len >= hint + 3 && p[hint] == MBEDTLS_ECP_TLS_NAMED_CURVE)
		t->group = (int)be_get(p + hint + 1, 2);
}

/* RFC 7627 section 5.3; the session had one, or it would not be there. */
static void
check_extended(struct tls *t)
{
	if (t->resumed && !t->extended)
		tls_reject(t, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		    "session resumed without extended master secret");
}

/* A message in the clear, or the first of it, behind its head. */
static void
sniff_message(struct tls *t, int type, const unsigned char *p, size_t len)
{
	switch (type) {
	case MBEDTLS_SSL_HS_SERVER_HELLO:
		/* Not all libraries see to it; RFC 8446 section 4.1.3. */
		if (len > 1 && be_get(p, 2) != MBEDTLS_SSL_VERSION_TLS1_2)
			tls_reject(t, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION,
			    "handshake: no TLS version in common");
		else if (len > HELLO_RANDOM)
			sniff_hello(t, p + HELLO_RANDOM, p + len);
		break;
	case MBEDTLS_SSL_HS_SERVER_KEY_EXCHANGE:
		sniff_exchange(t, p, len);
		begin_anew(t);
		break;
	case MBEDTLS_SSL_HS_CERTIFICATE:
		begin_anew(t);
		break;
	case MBEDTLS_SSL_HS_NEW_SESSION_TICKET:
		/* RFC 5077 section 3.3 */
		if (t->cfg->is_client && len > 6) {
			t->ticketed = 1;
			t->lifetime_hint = (uint32_t)be_get(p, 4);
		}
		break;
	default:
		break;
	}
}

/*
 * The library does not tell which group was negotiated, nor whether a session
 * was resumed.  Both are in the clear in what it sends, a record at p, until
 * encryption starts.
 */
static void
sniff_sent(struct tls *t, const unsigned char *p, size_t len)
{
	if (p[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC && !is_tls13(t))
		t->encrypted = 1;
	if (t->encrypted || len <= HEADER_SIZE + MESSAGE_HEAD ||
	    p[0] != MBEDTLS_SSL_MSG_HANDSHAKE)
		return;
	/* The library leaves a ticket out that is too old, or too long. */
	if (t->offers_ticket)
		t->offers_ticket = tls_psk_offered(p + HEADER_SIZE +
		    MESSAGE_HEAD, len - HEADER_SIZE - MESSAGE_HEAD) >
		    (t->cfg->own_psk != NULL);
	if (t->cfg->is_client)
		return;
	sniff_message(t, p[HEADER_SIZE], p + HEADER_SIZE + MESSAGE_HEAD,
	    len - HEADER_SIZE - MESSAGE_HEAD);
	if (p[HEADER_SIZE] != MBEDTLS_SSL_HS_SERVER_HELLO)
		return;
	t->flight = 1;
	/* The client has not offered it again. */
	if (!is_tls13(t) && t->born != 0)
		check_extended(t);
}

/* A message that a server sends in the clear, as far as it has come. */
struct sniffer {
	size_t	 seen;			/* bytes of it, with its head */
	unsigned char p[MESSAGE_SEEN];	/* the first of these */
};

int
tls_bio_sniff(struct tls *t)
{
	t->sniffer = calloc(1, sizeof(*t->sniffer));
	return t->sniffer != NULL ? 0 : -1;
}

void
tls_bio_sniff_end(struct tls *t)
{
	free(t->sniffer);
	t->sniffer = NULL;
}

/* 1 if all of it has come. */
static int
is_message(const struct sniffer *h)
{
	return h->seen >= MESSAGE_HEAD &&
	    h->seen == MESSAGE_HEAD + (size_t)be_get(h->p + 1, 3);
}

static void
gather_messages(struct tls *t, const unsigned char *p, size_t len)
{
	struct sniffer *h = t->sniffer;
	size_t n, size = sizeof(h->p);

	for (; len > 0; p += n, len -= n) {
		n = MESSAGE_HEAD - h->seen;
		if (h->seen >= MESSAGE_HEAD)
			n += (size_t)be_get(h->p + 1, 3);
		if (n > len)
			n = len;
		if (h->seen < size)
			memcpy(h->p + h->seen, p, n < size - h->seen ? n :
			    size - h->seen);
		h->seen += n;
		if (!is_message(h))
			continue;
		sniff_message(t, h->p[0], h->p + MESSAGE_HEAD, (h->seen < size ?
		    h->seen : size) - MESSAGE_HEAD);
		h->seen = 0;
	}
}

/* The same in what a server sends: p is a part of a record's body. */
static void
sniff_received(struct tls *t, const unsigned char *p, size_t len)
{
	if (t->sniffer == NULL || t->in.left == 0)
		return;
	if (t->in.head[0] == MBEDTLS_SSL_MSG_HANDSHAKE)
		gather_messages(t, p, len);
	else if (t->in.head[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC &&
	    !is_tls13(t)) {
		check_extended(t);
		tls_bio_sniff_end(t);
	}
}

/*
 * Before its answer can come, our flight has to be sent.  A peer that always
 * has more to send must not keep us for ever: the library goes on as long as it
 * is given records, even if they are empty or to be ignored.
 */
static int
give(struct tls *t, unsigned char *buf, size_t len)
{
	int r;

	if (!t->open && (r = tls_bio_flush(t)) != 0)
		return r;
	t->sent = 0;		/* no alert to what comes now */
	if (t->budget-- <= 0)
		return MBEDTLS_ERR_SSL_WANT_READ;
	if (io.ahead_at == io.ahead_end &&
	    (r = receive(t, ahead_size(t, len))) != 0)
		return r;
	if (len > io.ahead_end - io.ahead_at)
		len = io.ahead_end - io.ahead_at;
	memcpy(buf, io.ahead + io.ahead_at, len);
	io.ahead_at += len;
	if (!t->open) {
		sniff_received(t, buf, len);
		saw_handshake(t, buf, len);
	}
	return pass(t, buf, len);
}

int
tls_bio_recv(void *ctx, unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	int r = give(t, buf, len);

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

/* What was deferred comes first; then nothing is. */
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
		track_records(&t->out, buf, len);
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

/* How much of it can be sent; errno says why not more. */
static size_t
put_most(struct tls *t, const unsigned char *p, size_t len)
{
	size_t at = 0;
	ssize_t n;

	while (at < len && (n = tls_bio_put(t, p + at, len - at)) != -1)
		at += (size_t)n;
	return at;
}

/* Without memory it is lost, and no alert can follow a gap. */
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
 * The library keeps to a client's max_fragment_length (RFC 6066 section 4) with
 * data alone.  So a record of the handshake is split here, as long as it is in
 * the clear; what TLS 1.2 sends encrypted in the handshake is short.
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
 * The peer has to compute as well: while we sign, it may agree on the key, and
 * verify the certificate, if it has them.  0, or a code.
 */
static int
send_early(struct tls *t)
{
	int r = t->slow && io.nout >= WORTH_SENDING ? tls_bio_flush(t) : 0;

	return r == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : r;
}

/*
 * The library sends one whole record after the other, and must not be left with
 * any: it would take the next write for the retry of that, and forget the data.
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
	sniff_sent(t, buf, len);
	max = fragment_size(t, buf);
	n = len > HEADER_SIZE + max ? gather_fragments(t, buf, len, max) :
	    gather(t, buf, len);
	return n > 0 && (r = send_early(t)) != 0 ? r : n;
}

/*
 * A socket reports a reset only once, perhaps to a send(2); to reads after that
 * it looks like an end.
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
