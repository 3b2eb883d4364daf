/* net: addresses and sockets; text in, text out. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net.h"
#include "util.h"

#define ADDRESS_HINT_SIZE 1024
#define BACKLOG		1024
#define KEEPALIVE_PROBES 5		/* without an answer: dead */

static int
is_v4_mapped(const struct sockaddr_storage *sa)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;

	return sa->ss_family == AF_INET6 &&
	    IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
}

static void
unmap_v4(struct sockaddr_storage *sa)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6;

	memcpy(&in6, sa, sizeof(in6));
	in.sin_port = in6.sin6_port;
	memcpy(&in.sin_addr, in6.sin6_addr.s6_addr + 12, 4);
	memset(sa, 0, sizeof(*sa));
	memcpy(sa, &in, sizeof(in));
}

/* Do not use getnameinfo(3), which makes the program larger. */
static void
make_text(struct address *a)
{
	const struct sockaddr_in *in = (const void *)&a->sa;
	const struct sockaddr_in6 *in6 = (const void *)&a->sa;
	const struct sockaddr_un *un = (const void *)&a->sa;
	char host[INET6_ADDRSTRLEN] = "";

	if (a->sa.ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(a->text, sizeof(a->text), "%s:%d", host,
		    ntohs(in->sin_port));
	} else if (a->sa.ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(a->text, sizeof(a->text), "[%s]:%d", host,
		    ntohs(in6->sin6_port));
	} else if (a->sa.ss_family == AF_UNSPEC)
		snprintf(a->text, sizeof(a->text), "stdin");
	else
		snprintf(a->text, sizeof(a->text), "unix:%s",
		    a->len > offsetof(struct sockaddr_un, sun_path) ?
		    un->sun_path : "");
}

void
net_normalize(struct address *a)
{
	if (is_v4_mapped(&a->sa)) {
		unmap_v4(&a->sa);
		a->len = sizeof(struct sockaddr_in);
	}
	make_text(a);
}

in_port_t
net_address_port(const struct address *a)
{
	const struct sockaddr_in *in = (const void *)&a->sa;
	const struct sockaddr_in6 *in6 = (const void *)&a->sa;

	return a->sa.ss_family == AF_INET ? ntohs(in->sin_port) :
	    a->sa.ss_family == AF_INET6 ? ntohs(in6->sin6_port) : 0;
}

struct addresses *
net_addresses(size_t n)
{
	struct addresses *a = calloc(1, sizeof(*a) + n * sizeof(a->list[0]));

	if (a != NULL)
		a->refs = 1;
	return a;
}

struct addresses *
net_hold(struct addresses *a)
{
	a->refs++;
	return a;
}

void
net_release(struct addresses *a)
{
	if (a != NULL && --a->refs == 0)
		free(a);
}

void
net_free_targets(struct targets *all)
{
	while (all->n > 0)
		net_release(all->list[--all->n].to);
	free(all->list);
	all->list = NULL;
}

int
net_take_address(struct address *a, const struct sockaddr *sa, in_port_t port)
{
	struct sockaddr_in *in = (void *)&a->sa;

	_Static_assert(offsetof(struct sockaddr_in, sin_port) ==
	    offsetof(struct sockaddr_in6, sin6_port), "one port field");
	memset(a, 0, sizeof(*a));
	if (sa->sa_family != AF_INET && sa->sa_family != AF_INET6)
		return -1;
	a->len = sa->sa_family == AF_INET ? sizeof(struct sockaddr_in) :
	    sizeof(struct sockaddr_in6);
	memcpy(&a->sa, sa, a->len);
	in->sin_port = htons(port);
	net_normalize(a);
	return 0;
}

/* Parse a numeric address.  0, or -1 if it is not one. */
static int
address_numeric(struct address *a, const char *host, in_port_t port)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST,
	    .ai_socktype = SOCK_STREAM };
	struct addrinfo *ai;

	if (getaddrinfo(host, NULL, &hints, &ai) != 0)
		return -1;
	net_take_address(a, ai->ai_addr, port);
	freeaddrinfo(ai);
	return 0;
}

static int
parse_unix(struct target *t, const char *path, char *why, size_t size)
{
	struct address *a = t->to->list;
	struct sockaddr_un *un = (void *)&a->sa;

	if (strlen(path) >= sizeof(un->sun_path) || *path == '\0') {
		snprintf(why, size, "\"%s\" is not a path of 1 to %zu bytes",
		    path, sizeof(un->sun_path) - 1);
		return -1;
	}
	a->sa.ss_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	a->len = sizeof(*un);
	net_normalize(a);
	return 0;
}

int
net_look_up(const struct target *t, struct address *list, size_t max,
    size_t *n)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found, *ai;
	char host[NI_MAXHOST];
	const char *port;
	size_t i;
	int r;

	if (net_split_address(t->given, host, sizeof(host), &port) == -1)
		return EAI_NONAME;
	if ((r = getaddrinfo(host, NULL, &hints, &found)) != 0)
		return r;
	*n = 0;
	for (ai = found; ai != NULL && *n < max; ai = ai->ai_next) {
		net_take_address(&list[*n], ai->ai_addr, t->port);
		/* /etc/hosts may contain duplicates. */
		for (i = 0; strcmp(list[i].text, list[*n].text) != 0;)
			i++;
		*n += i == *n;
	}
	freeaddrinfo(found);
	return 0;
}

int
net_split_address(const char *text, char *host, size_t size,
    const char **port)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon != NULL ? (size_t)(colon - text) : 0;

	*port = colon != NULL ? colon + 1 : text;
	/* Require brackets for an IPv6 address, and only for that. */
	if (len > 1 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
		if (memchr(text, ':', len) == NULL)
			return -1;
	} else if (memchr(text, ':', len) != NULL)
		return -1;
	if (len >= size)
		return -1;
	memcpy(host, text, len);
	host[len] = '\0';
	if (strcmp(host, "*") == 0)
		host[0] = '\0';
	return 0;
}

int
net_host(const struct target *t, char *host, size_t size)
{
	const char *port;

	if (t->port == 0 || net_split_address(t->given, host, size, &port) ==
	    -1)
		return -1;
	if (*host == '\0')
		snprintf(host, size, "127.0.0.1");
	return 0;
}

static int
has_ipv6(void)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return 0;
	close(fd);
	return 1;
}

/* Parse fd:N, an inherited listening socket. */
static int
parse_fd(struct target *t, const char *number, char *why, size_t size)
{
	int64_t fd;

	if (parse_number(number, 0, INT32_MAX, &fd) == -1) {
		snprintf(why, size, "\"fd:%s\" is not a descriptor (allowed: "
		    "fd:N, where N is the number of a listening "
		    "socket)", number);
		return -1;
	}
	net_release(t->to);
	t->to = NULL;
	t->fd = (int)fd;
	return 0;
}

/*
 * Make a suggestion for an invalid address: a path, a service name as the port,
 * or an IPv6 address without brackets.  A clause, or empty.
 */
static void
address_hint(const char *text, int passive, char *hint, size_t size)
{
	const char *colon = strrchr(text, ':');
	const char *port = colon != NULL ? colon + 1 : text;
	const struct servent *known = getservbyname(port, "tcp");
	char host[INET6_ADDRSTRLEN] = "", number[8];
	struct in6_addr ignored;
	int64_t any;

	hint[0] = '\0';
	snprintf(number, sizeof(number), "%.6s", port);
	if (known != NULL)
		snprintf(number, sizeof(number), "%d",
		    ntohs((in_port_t)known->s_port));
	if (colon != NULL && colon - text < (ptrdiff_t)sizeof(host))
		memcpy(host, text, (size_t)(colon - text));
	if (*text == '/')
		snprintf(hint, size, "; did you mean unix:%s?", text);
	else if (parse_number(number, passive ? 0 : 1, 65535, &any) == -1)
		return;
	else if (strcmp(host, "::") == 0)
		snprintf(hint, size, "; did you mean %s%s?", passive ? "" :
		    "[::1]:", number);
	else if (inet_pton(AF_INET6, host, &ignored) == 1)
		snprintf(hint, size, "; did you mean [%s]:%s?", host, number);
	else if (known != NULL)
		snprintf(hint, size, "; did you mean %.*s%s?",
		    (int)(port - text), text, number);
}

int
net_parse(struct target *t, int passive, char *why, size_t size)
{
	char host[NI_MAXHOST], hint[ADDRESS_HINT_SIZE];
	const char *text = t->given, *port;
	int64_t number;

	t->fd = -1;
	t->row = SIZE_MAX;
	if ((t->to = net_addresses(1)) == NULL) {
		snprintf(why, size, "out of memory");
		return -1;
	}
	t->to->n = 1;
	if (passive && strncmp(text, "fd:", 3) == 0)
		return parse_fd(t, text + 3, why, size);
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(t, text + 5, why, size);
	if (net_split_address(text, host, sizeof(host), &port) == -1 ||
	    parse_number(port, passive ? 0 : 1, 65535, &number) == -1) {
		address_hint(text, passive, hint, sizeof(hint));
		snprintf(why, size, "\"%s\" is not an address (allowed: "
		    "[host:]port with a port of %d to 65535, [IPv6]:port, "
		    "unix:/path%s%s)", text, passive ? 0 : 1,
		    passive ? ", fd:N" : "", hint);
		return -1;
	}
	t->port = (in_port_t)number;
	t->any = passive && host[0] == '\0';
	if (host[0] == '\0')
		snprintf(host, sizeof(host), "%s", !passive ? "127.0.0.1" :
		    has_ipv6() ? "::" : "0.0.0.0");
	if (address_numeric(t->to->list, host, t->port) == 0)
		return 0;
	net_release(t->to);
	t->to = NULL;
	t->is_name = 1;
	return 0;
}

/* Probes start after half of the time, or slightly more. */
#ifdef TCP_KEEPIDLE
static void
keep_alive(int fd, int64_t ms)
{
	int n = KEEPALIVE_PROBES, seconds = (int)(ms / 1000);
	int every = seconds / (2 * n) > 0 ? seconds / (2 * n) : 1;
	int idle = seconds - n * every;

	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof(n));
}
#else
#define keep_alive(fd, ms)	((void)0)
#endif

void
net_set_socket_options(int fd, int64_t keepalive_ms)
{
	int on = 1, alive = keepalive_ms != 0;

	/* Ignore errors: a Unix socket has no such options. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &alive, sizeof(alive));
	if (alive)
		keep_alive(fd, keepalive_ms);
}

#ifdef TCP_QUICKACK
void
net_acknowledge(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}
#else
void
net_acknowledge(int fd)
{
	(void)fd;
}
#endif

int
net_dial(const struct address *a, int64_t keepalive_ms)
{
	static const struct linger reset = { .l_onoff = 1 };
	int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	net_set_socket_options(fd, keepalive_ms);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (connect(fd, (const struct sockaddr *)&a->sa, a->len) == 0 ||
	    errno == EINPROGRESS)
		return fd;
	return close_failed(fd);
}

void
net_unmap_v4(struct endpoints *e)
{
	if (is_v4_mapped(&e->from.any) && is_v4_mapped(&e->to.any)) {
		unmap_v4(&e->from.any);
		unmap_v4(&e->to.any);
	}
}

void
net_endpoints(int fd, struct endpoints *e)
{
	socklen_t len = sizeof(e->from);

	memset(e, 0, sizeof(*e));
	if (getpeername(fd, (struct sockaddr *)&e->from, &len) == -1)
		return;
	len = sizeof(e->to);
	if (getsockname(fd, (struct sockaddr *)&e->to, &len) == -1 ||
	    e->to.any.ss_family != e->from.any.ss_family)
		e->from.any.ss_family = AF_UNSPEC;
	net_unmap_v4(e);
}

/* For a Unix socket with a full queue, connect(2) sets EAGAIN. */
const char *
net_dial_error(int error)
{
	return error == EAGAIN ? "listen queue full" : strerror(error);
}

/* Remove a Unix socket without a listener. */
static void
remove_stale(const struct address *a)
{
	const struct sockaddr_un *un = (const void *)&a->sa;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0);
	struct stat st;

	if (fd == -1)
		return;
	if (lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    (st.st_uid == 0 || st.st_uid == geteuid()) &&
	    connect(fd, (const struct sockaddr *)&a->sa, a->len) == -1 &&
	    errno == ECONNREFUSED)
		unlink(un->sun_path);
	close(fd);
}

int
net_listen(const struct address *a, int any)
{
	int fd, off = 0, on = 1;

	if (a->sa.ss_family == AF_UNIX)
		remove_stale(a);
	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on,
		    sizeof(on));
	if (bind(fd, (const struct sockaddr *)&a->sa, a->len) == 0 &&
	    listen(fd, BACKLOG) == 0)
		return fd;
	return close_failed(fd);
}

int
net_is_listening(int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) ==
	    0 && listening;
}

/* Move it away from 0 to 2, which are redirected later. */
int
net_inherit(int fd)
{
	if (!net_is_listening(fd) || fcntl(fd, F_SETFL, O_NONBLOCK) == -1) {
		errno = ENOTSOCK;
		return -1;
	}
	if (fd <= STDERR_FILENO)
		return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ? -1 : fd;
}
