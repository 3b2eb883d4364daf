/* stream: the plain one, a socket as it is. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#ifdef __linux__
#include <linux/tcp.h>
#include <netinet/in.h>
#endif

#include "stream.h"

#define UNANSWERED	3		/* times at least: that is no chance */

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
 * Nobody listens on a port of those that are given to whoever connects, and so
 * it was given to us: TCP connects a socket to itself (RFC 9293 section 3.5).
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

/* Connected means having a peer; no event is needed to find that out. */
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
	/* A socket tells of a reset once, and after that of an end. */
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

/* Shall close(2), by whatever the process ends, send RST? */
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

/* What has been written must arrive, and then the end: no RST any more. */
int
stream_plain_finish(struct stream *s)
{
	reset_on_close(s, 0);
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

	/* Elsewhere than on TCP, what is written has arrived. */
	if (getsockopt(s->fd, IPPROTO_TCP, TCP_INFO, &ti, &len) == -1)
		return errno == EOPNOTSUPP;
	return ti.tcpi_unacked == 0 && ti.tcpi_notsent_bytes == 0;
}

/*
 * Has its host not acknowledged anything for that long, though it was sent data
 * or asked for its window again and again?  TCP_USER_TIMEOUT would end those as
 * well who answer each time, but have no room for more.
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
	.refuse = stream_reset,
	.failed = stream_plain_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = stream_plain_error,
};
