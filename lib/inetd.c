/* inetd: the connection of -i: a socket, or standard input and output. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arguments.h"
#include "generation.h"
#include "inetd.h"
#include "log.h"
#include "net.h"
#include "options.h"
#include "worker.h"

int
inetd_begin(struct inetd *i, struct arguments *a)
{
	struct relay *r = &i->relay;

	if (a->passed > 0 || !relay_is_needed(1))
		return 0;
	if (relay_is_needed(0))
		log_avoid_stdio();
	/* Start it before there are keys in memory: fork(2) copies them. */
	if (relay_start(r) == -1) {
		log_error("-i: %s", strerror(errno));
		return -1;
	}
	i->kept_fds[0] = r->fd;
	i->kept_fds[1] = r->far;
	i->kept_fds[2] = r->status;
	a->kept_fds = i->kept_fds;
	a->nkept_fds = RELAY_FDS;
	return 0;
}

void
inetd_choose(struct inetd *i, const struct config *cfg)
{
	if (i->relay.fd == -1)
		return;
	if (relay_is_needed(config_is_client(cfg)))
		log_avoid_stdio();
	else
		relay_dismiss(&i->relay);
}

/* Take the socket that inetd(8) has accepted. */
static int
take_socket(struct incoming *in, int fd, const struct config *cfg)
{
	const char *why = NULL;

	in->len = sizeof(in->sa);
	in->fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (net_is_listening(fd))
		why = "it is a listening socket (inetd needs \"nowait\")";
	else if (in->fd == -1 || fcntl(in->fd, F_SETFL, O_NONBLOCK) == -1 ||
	    getpeername(in->fd, (struct sockaddr *)&in->sa, &in->len) == -1)
		why = strerror(errno);
	if (why != NULL) {
		log_error("-i: descriptor %d is not a connected socket: %s",
		    fd, why);
		return -1;
	}
	net_set_socket_options(in->fd, cfg->number[KEEPALIVE]);
	if (fd > STDERR_FILENO)
		close(fd);
	return 0;
}

/*
 * Take standard input and output, which have no address.  Refuse a terminal on
 * a server: a user can't type TLS.
 */
static int
take_streams(struct incoming *in, struct relay *r, const struct generation *g)
{
	if (!config_is_client(&g->config) && isatty(STDIN_FILENO)) {
		log_error("-i: descriptor 0 is a terminal (allowed: a "
		    "connected socket; a pipe; a terminal with client = yes)");
		return -1;
	}
	if (relay_go(r, &g->identity, g->config.number[SANDBOX] == 1) == -1) {
		log_error("-i: %s", strerror(errno));
		return -1;
	}
	in->sa.ss_family = AF_UNSPEC;
	in->len = sizeof(in->sa.ss_family);
	in->fd = r->fd;
	return 0;
}

int
inetd_take(struct inetd *i, struct worker *w, struct incoming *in)
{
	const struct generation *g = w->all.generation;
	int fd = g->accepts.n > 0 ? g->accepts.list[0].fd : STDIN_FILENO;

	if (fd == STDIN_FILENO && i->relay.fd != -1) {
		w->relay = &i->relay;
		return take_streams(in, w->relay, g);
	}
	relay_close(&i->relay);
	return take_socket(in, fd, &g->config);
}
