/*
 * copy: the engine with plain streams on both sides, without TLS: the cost of a
 * TCP proxy with tunnel's design.
 *
 * copy PORT PORT	forward from one local port to the other
 */
#include <sys/socket.h>

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>

#include "forward.h"
#include "stream.h"

static struct sockaddr_in backend_addr;

static struct sockaddr_in
port_of(const char *text)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

	sin.sin_port = htons((in_port_t)strtoul(text, NULL, 10));
	return sin;
}

static void *
accepted(void *arg, int fd, const struct sockaddr *addr, socklen_t len,
    struct stream *client)
{
	int on = 1;

	(void)addr;
	(void)len;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	client->ops = &stream_plain;
	return arg;
}

static int
dial(void *conn, struct stream *backend, const char *failed, const char **why)
{
	const struct sockaddr *sa = (const struct sockaddr *)&backend_addr;
	int fd, on = 1;

	(void)conn;
	*why = "no backend";
	if (failed != NULL ||
	    (fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) == -1)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, sa, sizeof(backend_addr)) == -1 &&
	    errno != EINPROGRESS)
		err(1, "connect");
	backend->ops = &stream_plain;
	backend->fd = fd;
	return 0;
}

static void
closed(void *conn, const struct forward_end *end)
{
	(void)conn;
	(void)end;
}

static void
woken(void *arg)
{
	(void)arg;
}

static void
opened(void *conn)
{
	(void)conn;
}

static void
accept_paused(void *arg, int error)
{
	(void)arg;
	errno = error;
	err(1, "accept");
}

int
main(int argc, char **argv)
{
	static const struct forward_calls calls = { .accepted = accepted,
	    .dial = dial, .opened = opened, .closed = closed, .listed = closed,
	    .woken = woken, .accept_paused = accept_paused };
	struct forward_params params = { .calls = &calls, .arg = &params,
	    .max_connections = 1000 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	struct sockaddr_in sin;
	struct forward *f;

	if (argc != 3)
		errx(2, "usage: copy port port");
	sin = port_of(argv[1]);
	backend_addr = port_of(argv[2]);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) == -1 ||
	    listen(fd, 1024) == -1)
		err(1, "%s", argv[1]);
	if ((f = forward_new(&params)) == NULL || forward_listen(f, fd) == -1)
		err(1, "forward");
	if (forward_run(f, NULL) == -1)
		err(1, "forward_run");
	return 0;
}
