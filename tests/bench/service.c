/*
 * service: the plaintext side of the benchmark, in one process.
 *
 * service		print a port, and answer the requests of load there
 * service -i COMMAND ...
 *			print a port, and run the command for each connection,
 *			as inetd does
 * service -s PORT CPU COMMAND ...
 *			print the microseconds from fork(2) until the command,
 *			on that CPU, listens; end it when stdin ends
 *
 * Requests, by the first byte: E: answer this byte; D and a count: answer so
 * many bytes; U, a count and so many bytes: answer one byte; or HTTP: GET
 * /COUNT, or POST with Content-Length, with an answer of one byte.  A count has
 * 8 bytes in host byte order.
 */
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE		(64 * 1024)
#define HEAD_SIZE	4096		/* a request without its body */
#define PATIENCE_US	10000000	/* for a command to start listening */

struct conn {
	int	 fd;
	int	 watched;		/* events that are set in epoll */
	int	 answering;
	char	 head[HEAD_SIZE + 1];
	size_t	 head_len;
	uint64_t take;			/* remaining bytes of a body */
	char	 text[128];		/* the answer, begins with this text */
	size_t	 text_len;
	uint64_t give;			/* followed by so many bytes */
};

static char piece[PIECE];

static int
listen_on_any(int flags)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd == -1 || bind(fd, (struct sockaddr *)&sin, len) == -1 ||
	    listen(fd, 1024) == -1 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) == -1)
		err(1, "listen");
	printf("%d\n", ntohs(sin.sin_port));
	fflush(stdout);
	return fd;
}

static void
answer_http(struct conn *c)
{
	const char *length = strcasestr(c->head, "\r\nContent-Length:");
	int is_post = c->head[0] == 'P';

	if (is_post)
		c->take = length == NULL ? 0 : strtoull(length + 17, NULL, 10);
	else
		c->give = strtoull(c->head + strlen("GET /"), NULL, 10);
	c->text_len = (size_t)snprintf(c->text, sizeof(c->text),
	    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n"
	    "Content-Length: %llu\r\n\r\n%s",
	    is_post ? 1ULL : (unsigned long long)c->give, is_post ? "." : "");
}

/* Parse a request; returns the length of its head, 0: incomplete. */
static size_t
understand(struct conn *c)
{
	uint64_t count = 0;
	const char *end;

	c->head[c->head_len] = '\0';
	if (c->head[0] == 'G' || c->head[0] == 'P') {
		if ((end = strstr(c->head, "\r\n\r\n")) == NULL)
			return 0;
		answer_http(c);
		return (size_t)(end - c->head) + 4;
	}
	if (c->head[0] == 'D' || c->head[0] == 'U') {
		if (c->head_len < 1 + sizeof(count))
			return 0;
		memcpy(&count, c->head + 1, sizeof(count));
	}
	if (c->head[0] == 'D') {
		c->give = count;
		return 1 + sizeof(count);
	}
	c->take = count;
	c->text[0] = c->head[0];
	c->text_len = 1;
	return c->head[0] == 'U' ? 1 + sizeof(count) : 1;
}

/* Receive data; -1: the connection has ended. */
static int
receive(struct conn *c)
{
	ssize_t n;
	size_t used;

	if (c->take > 0)
		n = recv(c->fd, piece, sizeof(piece), 0);
	else
		n = recv(c->fd, c->head + c->head_len,
		    HEAD_SIZE - c->head_len, 0);
	if (n <= 0)
		return n == -1 && errno == EAGAIN ? 0 : -1;
	if (c->take == 0) {
		c->head_len += (size_t)n;
		if ((used = understand(c)) == 0)
			return c->head_len == HEAD_SIZE ? -1 : 0;
		n = (ssize_t)(c->head_len - used);
		c->head_len = 0;
	}
	if ((uint64_t)n > c->take)
		return -1;		/* more than Content-Length */
	c->take -= (uint64_t)n;
	c->answering = c->take == 0;
	return 0;
}

/* Send the answer; -1: the connection has ended. */
static int
answer(struct conn *c)
{
	size_t len = c->give < sizeof(piece) ? (size_t)c->give : sizeof(piece);
	ssize_t n;

	if (c->text_len > 0) {
		n = send(c->fd, c->text, c->text_len,
		    MSG_NOSIGNAL | (c->give > 0 ? MSG_MORE : 0));
		if (n != (ssize_t)c->text_len)
			return -1;	/* it always fits into the socket */
		c->text_len = 0;
	} else if ((n = send(c->fd, piece, len, MSG_NOSIGNAL)) == -1)
		return errno == EAGAIN ? 0 : -1;
	else
		c->give -= (uint64_t)n;
	c->answering = c->give > 0;
	return 0;
}

static int
serve(int epoll, struct conn *c)
{
	struct epoll_event ev = { .data.ptr = c };

	if (!c->answering && receive(c) == -1)
		return -1;
	/* The socket usually has room, so write at once. */
	if (c->answering && c->text_len > 0 && answer(c) == -1)
		return -1;
	if (c->answering && answer(c) == -1)
		return -1;
	ev.events = c->answering ? EPOLLOUT : EPOLLIN;
	if (c->watched == (int)ev.events)
		return 0;
	c->watched = (int)ev.events;
	return epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

static void
welcome(int epoll, int listener)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct conn *c;
	int fd, on = 1;

	while ((fd = accept4(listener, NULL, NULL,
	    SOCK_NONBLOCK | SOCK_CLOEXEC)) != -1) {
		if ((c = calloc(1, sizeof(*c))) == NULL)
			err(1, "calloc");
		c->fd = fd;
		c->watched = EPOLLIN;
		ev.data.ptr = c;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == -1)
			err(1, "epoll_ctl");
	}
}

static void
serve_all(void)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	int listener = listen_on_any(SOCK_NONBLOCK), i, n;
	struct epoll_event ev[64] = {{ .events = EPOLLIN }};
	struct conn *c;

	if (epoll == -1 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, ev) == -1)
		err(1, "epoll");
	for (;;) {
		if ((n = epoll_wait(epoll, ev, 64, -1)) == -1)
			err(1, "epoll_wait");
		for (i = 0; i < n; i++) {
			if ((c = ev[i].data.ptr) == NULL)
				welcome(epoll, listener);
			else if (serve(epoll, c) == -1) {
				close(c->fd);
				free(c);
			}
		}
	}
}

/* Run the command for each connection, one after the other. */
static void
run_for_each(char **command)
{
	int listener = listen_on_any(0), fd;
	pid_t pid;

	while ((fd = accept(listener, NULL, NULL)) != -1) {
		if ((pid = fork()) == -1)
			err(1, "fork");
		if (pid == 0) {
			dup2(fd, STDIN_FILENO);
			dup2(fd, STDOUT_FILENO);
			close(fd);
			execv(command[0], command);
			err(127, "%s", command[0]);
		}
		close(fd);
		waitpid(pid, NULL, 0);
	}
	err(1, "accept");
}

static int64_t
clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static int
is_listening(in_port_t port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = port };
	int fd = socket(AF_INET, SOCK_STREAM, 0), status;

	status = connect(fd, (struct sockaddr *)&sin, sizeof(sin));
	close(fd);
	return status == 0;
}

/* Measure the start of a command; end it at the end of stdin. */
static void
time_start(in_port_t port, size_t cpu, char **command)
{
	cpu_set_t cpus;
	int64_t began = clock_us();
	pid_t pid = fork();
	char c;

	if (pid == -1)
		err(1, "fork");
	if (pid == 0) {
		CPU_ZERO(&cpus);
		CPU_SET(cpu, &cpus);
		sched_setaffinity(0, sizeof(cpus), &cpus);
		execv(command[0], command);
		err(127, "%s", command[0]);
	}
	while (!is_listening(port)) {
		if (waitpid(pid, NULL, WNOHANG) != 0)
			errx(1, "%s ended", command[0]);
		if (clock_us() - began > PATIENCE_US)
			break;
	}
	printf("%lld\n", (long long)(clock_us() - began));
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		continue;
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
}

int
main(int argc, char **argv)
{
	if (argc == 1)
		serve_all();
	if (argc > 2 && strcmp(argv[1], "-i") == 0)
		run_for_each(argv + 2);
	if (argc <= 4 || strcmp(argv[1], "-s") != 0)
		errx(2, "usage: service [-i | -s port cpu] [command ...]");
	time_start(htons((in_port_t)strtoul(argv[2], NULL, 10)),
	    strtoul(argv[3], NULL, 10), argv + 4);
	return 0;
}
