/*
 * tls_kernel: after the handshake, the Linux kernel takes over record
 * encryption (Documentation/networking/tls.rst).  Connections that it does not
 * support stay with the library.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "stream.h"
#include "tls.h"
#include "tls_bio.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_kernel.h"
#include "tls_kernel_keys.h"
#include "util.h"

#ifdef __linux__
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>

#define HS_KEY_UPDATE	24		/* RFC 8446 section 4 */
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD	4	/* since Linux 6.0 */
#endif

/*
 * The kernel makes full records, so a client that asked for shorter ones stays
 * with the library.  The library's limit for its records shows that, unless the
 * limit for all connections is as low as the greatest max_fragment_length,
 * 4096.
 */
#if defined(MBEDTLS_SSL_MAX_FRAGMENT_LENGTH) || \
    defined(MBEDTLS_SSL_RECORD_SIZE_LIMIT)
#define RECORD_MIN	(MBEDTLS_SSL_OUT_CONTENT_LEN > 4097 ? \
    MBEDTLS_SSL_OUT_CONTENT_LEN - 1 : 4097)
#else
#define RECORD_MIN	1
#endif

/* Send a record of another type than data.  0, or -1 with errno. */
static int
send_control(struct tls *t, unsigned char type, const unsigned char *p,
    size_t len)
{
	union {
		struct cmsghdr head;
		char	 room[CMSG_SPACE(1)];
	} control = { .room = { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = &control, .msg_controllen = CMSG_LEN(1) };
	ssize_t n;

	control.head.cmsg_level = SOL_TLS;
	control.head.cmsg_type = TLS_SET_RECORD_TYPE;
	control.head.cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(&control.head) = type;
	do {
		n = sendmsg(t->fd, &m, MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	if (n != -1)
		t->ktls->given += len;
	return n == -1 ? -1 : 0;
}

/*
 * Return how many bytes TCP has taken on this socket so far.  A record that the
 * kernel has encrypted, but TCP has no room for, does not count: shutdown(2)
 * and close(2) would lose it.
 */
static uint64_t
bytes_in_tcp(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
		return 0;
	return info.tcpi_bytes_sent - info.tcpi_bytes_retrans +
	    info.tcpi_notsent_bytes;
}

/* Return 1 if TCP has taken all records: their data and overhead. */
static int
is_flushed(const struct tls *t)
{
	const struct ktls *k = t->ktls;

	return bytes_in_tcp(t->fd) - k->base >= k->given +
	    (k->records + ktls_next_record(t)) * ktls_overhead(k);
}

/* Give the kernel our keys once the deferred bytes are sent.  0, or -1. */
static int
enable_sending(struct tls *t)
{
	struct ktls *k = t->ktls;

	if (k->sends)
		return 0;
	if (tls_bio_flush(t) != 0)
		return -1;
	k->base = bytes_in_tcp(t->fd);
	if (ktls_install(t, TLS_TX, k->seq) == -1)
		return -1;
	k->records = -k->seq;	/* the library sent these */
	k->sends = 1;
	if (!(t->cfg->kernel & TLS_KERNEL_REKEYS) || !k->is_13)
		ktls_forget_secrets(k);
	return 0;
}

/* Do what is due before the next record is sent.  0, or -1 with errno. */
static int
prepare_sending(struct tls *t)
{
	static const unsigned char update[] = { HS_KEY_UPDATE, 0, 0, 1, 0 };
	struct ktls *k = t->ktls;

	if (enable_sending(t) == -1)
		return -1;
	if (!k->update_due || k->secrets == NULL)
		return 0;
	if (send_control(t, MBEDTLS_SSL_MSG_HANDSHAKE, update,
	    sizeof(update)) == -1)
		return -1;
	k->update_due = 0;
	k->records += ktls_next_record(t);
	return ktls_update_keys(t, TLS_TX);
}

static int
kernel_failed(struct tls *t)
{
	return tls_result(t, tls_bio_send_error(t));
}

static int
kernel_alert(struct tls *t, unsigned char level, unsigned char code)
{
	const unsigned char alert[] = { level, code };

	if (prepare_sending(t) == -1)
		return -1;
	return send_control(t, MBEDTLS_SSL_MSG_ALERT, alert, sizeof(alert));
}

/* Send a warning, or none if the socket has no room.  0, or a code. */
static int
refuse_renegotiation(struct tls *t)
{
	int r;

	if (kernel_alert(t, MBEDTLS_SSL_ALERT_LEVEL_WARNING,
	    MBEDTLS_SSL_ALERT_MSG_NO_RENEGOTIATION) == 0)
		return 0;
	r = tls_bio_send_error(t);
	return r == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : r;
}

/* Return the length of the tickets at p; they come too late to be kept. */
static size_t
skip_tickets(const unsigned char *p, size_t len)
{
	size_t at = 0;

	while (len - at >= 4 && p[at] == MBEDTLS_SSL_HS_NEW_SESSION_TICKET &&
	    be_get(p + at + 1, 3) <= len - at - 4)
		at += 4 + (size_t)be_get(p + at + 1, 3);
	return at;
}

/*
 * Handle a KeyUpdate, RFC 8446 section 4.6.3; the answer precedes the next
 * record that we send.  Refuse renegotiation in TLS 1.2, ignore a server's
 * tickets, and fail on any other message.
 */
static int
take_handshake(struct tls *t, const unsigned char *p, size_t len)
{
	struct ktls *k = t->ktls;
	size_t skip = k->is_13 && k->is_client ? skip_tickets(p, len) : 0;

	if (!k->is_13 && len > 0 && p[0] == (k->is_client ?
	    MBEDTLS_SSL_HS_HELLO_REQUEST : MBEDTLS_SSL_HS_CLIENT_HELLO))
		return refuse_renegotiation(t);
	if (skip > 0 && skip == len)
		return 0;
	p += skip;
	len -= skip;
	if (!k->is_13 || !(t->cfg->kernel & TLS_KERNEL_REKEYS) || len == 0 ||
	    p[0] != HS_KEY_UPDATE)
		return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
	if (len != 5 || be_get(p + 1, 3) != 1)
		return MBEDTLS_ERR_SSL_DECODE_ERROR;
	if (p[4] > 1)
		return MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER;
	k->update_due |= p[4];
	return ktls_update_keys(t, TLS_RX) == 0 ? 0 :
	    MBEDTLS_ERR_NET_RECV_FAILED;
}

/* Handle a received record other than data.  0, or a code that ends reading. */
static int
take_control(struct tls *t, int type, const unsigned char *p, size_t len)
{
	if (type == MBEDTLS_SSL_MSG_HANDSHAKE)
		return take_handshake(t, p, len);
	if (type != MBEDTLS_SSL_MSG_ALERT || len == 0)
		return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
	if (len != 2)
		return RECORD_BODY;
	if (p[1] == MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY)
		return MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
	if (p[0] == MBEDTLS_SSL_ALERT_LEVEL_WARNING)
		return 0;
	t->peer_alert = p[1];
	return MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
}

static int
recv_error(struct tls *t)
{
	switch (errno) {
	case EBADMSG:
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	case EMSGSIZE:
		return RECORD_SIZE;
	case EINVAL:
		return RECORD_VERSION;
	default:
		return tls_bio_recv_error(t);
	}
}

/* *type is 0 without a record, as at the end of the connection. */
static ssize_t
recv_record(struct tls *t, void *buf, size_t len, int *type)
{
	union {
		struct cmsghdr head;
		char	 room[CMSG_SPACE(1)];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = &control, .msg_controllen = sizeof(control) };
	const struct cmsghdr *c;
	ssize_t n;

	do {
		n = recvmsg(t->fd, &m, 0);
	} while (n == -1 && errno == EINTR);
	c = n == -1 ? NULL : CMSG_FIRSTHDR(&m);
	*type = c != NULL && c->cmsg_level == SOL_TLS && c->cmsg_type ==
	    TLS_GET_RECORD_TYPE ? *CMSG_DATA(c) : 0;
	return n;
}

/*
 * Skip empty records, up to a limit in a row.  A kernel that supports rekeying
 * may hold a KeyUpdate behind the data, without poll(2) reporting it: then read
 * until nothing is left.
 */
static ssize_t
kernel_read(struct stream *s, void *buf, size_t len)
{
	struct tls *t = s->ctx;
	int hides = t->ktls->is_13 && t->cfg->kernel & TLS_KERNEL_REKEYS;
	unsigned char *p = buf;
	size_t got = 0;
	int i, r = 0, type;
	ssize_t n;

	for (i = 0; t->ended == 0 && i < RECORDS && (got == 0 ||
	    (hides && len - got >= RECORD_MAX)); i++) {
		n = recv_record(t, p + got, len - got, &type);
		if (n == -1)
			r = recv_error(t);
		else if (type == MBEDTLS_SSL_MSG_APPLICATION_DATA)
			got += (size_t)n;
		else
			r = type == 0 ? MBEDTLS_ERR_SSL_CONN_EOF :
			    take_control(t, type, p + got, (size_t)n);
		if (r == MBEDTLS_ERR_SSL_WANT_READ)
			break;
		t->ended = r;
	}
	t->ktls->unread = hides && r != MBEDTLS_ERR_SSL_WANT_READ;
	if (got > 0)
		return (ssize_t)got;
	return t->ended == 0 ? STREAM_WANT_READ :
	    tls_result(t, tls_bio_read_end(t));
}

static ssize_t
kernel_write(struct stream *s, const void *buf, size_t len)
{
	struct tls *t = s->ctx;
	ssize_t n;

	if (prepare_sending(t) == -1 || (n = tls_bio_put(t, buf, len)) == -1)
		return kernel_failed(t);
	t->ktls->given += (uint64_t)n;
	return n;
}

/*
 * A pending error of the socket would fail sending the alert: clear it first.
 */
static int
kernel_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r;

	if (!t->notified && t->alert != 0)
		stream_plain_failed(&(struct stream){ .fd = t->fd });
	if (!t->notified && kernel_alert(t, tls_alert_level(t), t->alert) == -1)
		return kernel_failed(t);
	t->notified = 1;
	/* While waiting, only failed() notices a reset. */
	if (!is_flushed(t))
		return (r = s->ops->failed(s)) != 0 ? r : STREAM_WANT_WRITE;
	shutdown(t->fd, SHUT_WR);
	return 0;
}

static int
kernel_flushed(const struct stream *s)
{
	return is_flushed(s->ctx) && stream_plain_flushed(s);
}

static int
kernel_pending(const struct stream *s)
{
	const struct tls *t = s->ctx;

	return t->ended != 0 || t->ktls->unread;
}

static const struct stream_ops kernel_ops = {
	.open = NULL,			/* the handshake is over */
	.read = kernel_read,
	.write = kernel_write,
	.finish = kernel_finish,
	.refuse = tls_refuse,
	.failed = tls_bio_failed,
	.abort = stream_reset,
	.flushed = kernel_flushed,
	.pending = kernel_pending,
	.error = tls_error_reason,
};

int
ktls_new(struct tls *t)
{
	struct ktls *k;

	if (t->cfg->kernel == 0)
		return 0;
	if ((k = t->ktls = calloc(1, sizeof(*k))) == NULL ||
	    (k->secrets = calloc(1, sizeof(*k->secrets))) == NULL)
		return -1;
	k->is_client = t->cfg->is_client;
	mbedtls_ssl_set_export_keys_cb(t->ssl, ktls_export_keys, k->secrets);
	return 0;
}

void
ktls_free(struct tls *t)
{
	if (t->ktls == NULL)
		return;
	if (t->ssl != NULL)
		mbedtls_ssl_set_export_keys_cb(t->ssl, NULL, NULL);
	ktls_forget_secrets(t->ktls);
	free(t->ktls);
	t->ktls = NULL;
}

/* Return 1 if the kernel supports the suite and the record size. */
static int
is_fit(const struct tls *t)
{
	const struct ktls *k = t->ktls;

	return k->cipher != NULL && t->record_size >= RECORD_MIN &&
	    t->cfg->kernel & ktls_cap(k->cipher, k->is_13);
}

/* Return 1 between two records, with no work pending in the library. */
static int
is_between(const struct tls *t)
{
	return t->unsent == 0 && tls_bio_is_exact(t) &&
	    t->in.count < UINT32_MAX && t->out.count < UINT32_MAX &&
	    !mbedtls_ssl_check_pending(t->ssl) &&
	    mbedtls_ssl_get_bytes_avail(t->ssl) == 0;
}

void
ktls_opened(struct tls *t)
{
	struct ktls *k = t->ktls;

	if (k == NULL)
		return;
	k->cipher = ktls_find_cipher(t->suite);
	k->is_13 = is_tls13(t);
	/* Keys for data start here; a server has counted its tickets. */
	if (k->is_13)
		t->in.count = 0;
	if (k->is_13 && k->is_client)
		t->out.count = 0;
	if (!is_fit(t))
		ktls_free(t);
}

/*
 * Enable receiving first.  Sending may have to wait: a deferred ticket,
 * encrypted by the library, leaves with the first data.  After that there is no
 * way back to the library, but no error is expected either: ktls_probe tried
 * all of this at the start.
 */
int
ktls_enable(struct tls *t, struct stream *s)
{
	struct ktls *k = t->ktls;
	int on = 1;

	if (k == NULL || !is_between(t))
		return -1;
	k->seq = t->out.count;
	if (setsockopt(t->fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) ==
	    -1 || ktls_install(t, TLS_RX, t->in.count) == -1) {
		ktls_free(t);
		return -1;
	}
	/* A hint for TLS 1.3: records are not padded. */
	if (t->cfg->kernel & TLS_KERNEL_MAY_HINT)
		setsockopt(t->fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on,
		    sizeof(on));
	s->ops = &kernel_ops;
	s->write_size = 0;
	k->unread = 1;			/* data may have arrived already */
	if (t->ndeferred == 0 && enable_sending(t) == -1)
		t->ended = MBEDTLS_ERR_SSL_ALLOC_FAILED;
	return 0;
}

#else

/* Only Linux has kernel TLS. */

int
ktls_new(struct tls *t)
{
	(void)t;
	return 0;
}

void
ktls_free(struct tls *t)
{
	(void)t;
}

void
ktls_opened(struct tls *t)
{
	(void)t;
}

int
ktls_enable(struct tls *t, struct stream *s)
{
	(void)t;
	(void)s;
	return -1;
}

#endif
