/* sockets, for unit tests.  CHECK(condition) is the includer's. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <sys/types.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static int listener = -1;	/* for both ends of a TCP pair */
static struct sockaddr_in listener_addr;

static inline int
listener_new(struct sockaddr_in *sin)
{
	socklen_t len = sizeof(*sin);
	int fd;

	memset(sin, 0, sizeof(*sin));
	sin->sin_family = AF_INET;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fd != -1);
	CHECK(bind(fd, (struct sockaddr *)sin, sizeof(*sin)) == 0);
	CHECK(listen(fd, 64) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)sin, &len) == 0);
	sin->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return fd;
}

static inline void
nonblock(int fd)
{
	CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* Use many addresses of 127.0.0.0/8, so that ports never run out. */
static inline void
tcp_pair(int fds[2])
{
	static uint32_t host;
	struct sockaddr_in sin = listener_addr;
	int i, on = 1;

	sin.sin_addr.s_addr = htonl(0x7f000001 + (host++ & 0xffff));
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fds[0] != -1);
	CHECK(connect(fds[0], (struct sockaddr *)&sin, sizeof(sin)) == 0);
	fds[1] = accept(listener, NULL, NULL);
	CHECK(fds[1] != -1);
	for (i = 0; i < 2; i++) {
		CHECK(setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on,
		    sizeof(on)) == 0);
		nonblock(fds[i]);
	}
}

static inline void
unix_pair(int fds[2])
{
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0, fds) == 0);
}

static inline int
is_ready(int fd, short events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, ms) == 1;
}

/* Connect to a port that was just closed: the connection will be refused. */
static inline int
dial_nobody(void)
{
	struct sockaddr_in sin;
	int fd;

	close(listener_new(&sin));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK(connect(fd, (struct sockaddr *)&sin, sizeof(sin)) == -1);
	CHECK(errno == EINPROGRESS);
	CHECK(is_ready(fd, POLLOUT, 1000));
	return fd;
}

#endif
