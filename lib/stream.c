/* stream: the plain stream, a socket without TLS. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __linux__
#include <linux/tcp.h>
#include <netinet/in.h>
#endif

#include "stream.h"

#define UNANSWERED	3		/* segments; fewer may be packet loss */

static ssize_t
plain_failed(struct stream *s, ssize_t want)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return want;
	s->err = errno;
	return errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN ?
	    STREAM_RESET : STREAM_ERROR;
}

/*
 * If nothing listens on a port of the ephemeral range, connect(2) may choose
 * this port as the local one.  Then TCP connects the socket to itself, by a
 * simultaneous open (RFC 9293 section 3.5).
 */
static int
is_connected_to_itself(int fd, const struct sockaddr_storage *peer)
{
	struct sockaddr_storage own;
	socklen_t len = sizeof(own);

	return peer->ss_family != AF_UNIX &&
	    getsockname(fd, (struct sockaddr *)&own, &len) == 0 &&
	    memcmp(&own, peer, len) == 0;
}

/* A socket with a peer is connected.  This needs no event of the poller. */
int
stream_plain_open(struct stream *s)
{
	struct sockaddr_storage peer = { .ss_family = AF_UNSPEC };
	socklen_t len = sizeof(s->err);

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &s->err, &len) == -1)
		s->err = errno;
	if (s->err != 0)
		return STREAM_ERROR;
	len = sizeof(peer);
	if (getpeername(s->fd, (struct sockaddr *)&peer, &len) == 0) {
		if (!is_connected_to_itself(s->fd, &peer))
			return 0;
		errno = ECONNREFUSED;
	}
	if (errno == ENOTCONN)
		return STREAM_WANT_WRITE;
	s->err = errno;
	return STREAM_ERROR;
}

ssize_t
stream_plain_read(struct stream *s, void *buf, size_t len)
{
	ssize_t n;

	do {
		n = recv(s->fd, buf, len, 0);
	} while (n == -1 && errno == EINTR);
	/* A socket reports a reset once, and an end of file after that. */
	if (n == 0 && s->err == ECONNRESET)
		return STREAM_RESET;
	return n >= 0 ? n : plain_failed(s, STREAM_WANT_READ);
}

ssize_t
stream_plain_write(struct stream *s, const void *buf, size_t len)
{
	ssize_t n;

	do {
		n = send(s->fd, buf, len, MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	return n >= 0 ? n : plain_failed(s, STREAM_WANT_WRITE);
}

static void
reset_on_close(const struct stream *s, int on)
{
	struct linger l = { .l_onoff = on, .l_linger = 0 };

	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

void
stream_reset(struct stream *s)
{
	reset_on_close(s, 1);
}

void
stream_no_reset(struct stream *s)
{
	reset_on_close(s, 0);
}

/* Cancel the RST on close: all written data, then the end, must arrive. */
int
stream_plain_finish(struct stream *s)
{
	stream_no_reset(s);
	return shutdown(s->fd, SHUT_WR) == 0 ? 0 :
	    (int)plain_failed(s, STREAM_WANT_WRITE);
}

int
stream_plain_failed(struct stream *s)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 &&
	    err == 0)
		return 0;
	errno = err != 0 ? err : errno;
	return (int)plain_failed(s, STREAM_ERROR);
}

#ifdef __linux__
int
stream_plain_flushed(const struct stream *s)
{
	struct tcp_info ti = { .tcpi_unacked = 0 };
	socklen_t len = sizeof(ti);

	/* Not TCP: written data has arrived. */
	if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &ti, &len) == -1)
		return errno == EOPNOTSUPP;
	return ti.tcpi_unacked == 0 && ti.tcpi_notsent_bytes == 0;
}

/*
 * Do not use TCP_USER_TIMEOUT: it also ends connections to peers that
 * acknowledge each window probe, but have no room for data.
 */
int
stream_is_dead(const struct stream *s, int64_t ms)
{
	struct tcp_info ti = { .tcpi_unacked = 0 };
	socklen_t len = sizeof(ti);

	return getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &ti, &len) == 0 &&
	    ti.tcpi_last_ack_recv >= ms &&
	    ti.tcpi_retransmits + ti.tcpi_probes >= UNANSWERED;
}
#else
int
stream_is_dead(const struct stream *s, int64_t ms)
{
	(void)s;
	(void)ms;
	return 0;
}

int
stream_plain_flushed(const struct stream *s)
{
	(void)s;
	return 1;
}
#endif

int
stream_plain_pending(const struct stream *s)
{
	(void)s;
	return 0;
}

const char *
stream_plain_error(const struct stream *s)
{
	return strerror(s->err);
}

const struct stream_ops stream_plain = {
	.open = stream_plain_open,
	.read = stream_plain_read,
	.write = stream_plain_write,
	.finish = stream_plain_finish,
	.failed = stream_plain_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = stream_plain_error,
};
