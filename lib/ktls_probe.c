/*
 * ktls_probe: find which kernel TLS features this kernel supports.  The master
 * tries them before there are connections.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ktls_probe.h"
#include "tls.h"
#include "util.h"

/* Make a connection within this host.  Ends may be -1.  0, or -1 with errno. */
static int
tcp_pair(int pair[2])
{
	struct sockaddr_in in = { .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *sa = (struct sockaddr *)&in;
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	pair[1] = -1;
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd != -1 && pair[0] != -1 && bind(fd, sa, len) == 0 &&
	    listen(fd, 1) == 0 && getsockname(fd, sa, &len) == 0 &&
	    connect(pair[0], sa, len) == 0)
		pair[1] = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd != -1)
		close_failed(fd);
	return pair[1] == -1 ? -1 : 0;
}

/* 1 if poll(2) reports a partial record as readable, as Linux 6.1 does. */
static int
is_spinning(const int pair[2])
{
	struct pollfd p = { .fd = pair[0], .events = POLLIN };

	return send(pair[1], "\x17\x03\x03", 3, MSG_NOSIGNAL) == 3 &&
	    poll(&p, 1, 1) == 1;
}

/* If the first try fails, the others would fail, too. */
void
ktls_probe(struct ktls_probe *k, int unless_spinning)
{
	unsigned caps, i;
	int pair[2];

	*k = (struct ktls_probe){ .caps = 0 };
	for (i = 0; i < TLS_KERNEL_TRIES && (i == 0 || k->caps != 0); i++) {
		errno = 0;
		caps = tcp_pair(pair) == 0 ? tls_kernel_try(i, pair[0]) : 0;
		if (caps == 0 && i == 0)
			snprintf(k->why, sizeof(k->why), "%s", errno == ENOENT ?
			    "not supported by this kernel, or module \"tls\" "
			    "is not loaded" :
			    strerror(errno));
		if (caps != 0 && i == 0)
			k->spins = is_spinning(pair);
		k->caps |= caps;
		if (pair[0] != -1)
			close(pair[0]);
		if (pair[1] != -1)
			close(pair[1]);
	}
	/* With this hint, spinning kernels return some data twice. */
	if (k->caps != 0 && !k->spins)
		k->caps |= TLS_KERNEL_MAY_HINT;
	if (k->spins && unless_spinning) {
		k->caps = 0;
		snprintf(k->why, sizeof(k->why), "not used: on this kernel, a "
		    "partial record makes a worker use a whole CPU (use Linux "
		    "6.12 or newer)");
	}
}

void
ktls_probe_text(const struct ktls_probe *k, char *text, size_t size)
{
	char caps[KTLS_TEXT_SIZE];

	tls_kernel_text(k->caps, caps, sizeof(caps));
	snprintf(text, size, "kernel TLS: %s%s", k->caps == 0 ? k->why : caps,
	    k->caps != 0 && k->spins ? "; but on this kernel, a partial record "
	    "makes a worker use a whole CPU" : "");
}
