/*
 * command: a command as the backend.  The parent keeps the child's end of the
 * socket pair open until it has the exit status.  So at the end of file it is
 * known whether the command has exited or was killed, which is not an end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "log.h"
#include "net.h"
#include "stream.h"

struct command {
	struct command *next;
	pid_t	 pid;			/* also of its process group */
	int	 exited;
	int	 signal;		/* the signal that killed it; or 0 */
	int	 end;			/* the child's socket; or -1 */
	int	 detached;		/* the connection has ended */
	const unsigned char *header;	/* the part still to be written */
	size_t	 nheader;
};

static int
was_killed(const struct stream *s)
{
	const struct command *c = s->ctx;

	return c->exited && c->signal != 0;
}

/* 1 if a reset is due to a command that exited without reading all input. */
static int
is_normal_exit(const struct stream *s, ssize_t result)
{
	const struct command *c = s->ctx;

	return result == STREAM_RESET && c->exited && !was_killed(s);
}

static ssize_t
command_read(struct stream *s, void *buf, size_t len)
{
	ssize_t n = stream_plain_read(s, buf, len);

	if (is_normal_exit(s, n))
		return STREAM_EOF;
	return n == STREAM_EOF && was_killed(s) ? STREAM_ERROR : n;
}

static ssize_t
command_write(struct stream *s, const void *buf, size_t len)
{
	ssize_t n = stream_plain_write(s, buf, len);

	return is_normal_exit(s, n) ? (ssize_t)len : n;
}

/* The stream is open when the PROXY header is written. */
static int
command_open(struct stream *s)
{
	struct command *c = s->ctx;
	ssize_t n = stream_plain_open(s);

	while (n == 0 && c->nheader > 0) {
		n = command_write(s, c->header, c->nheader);
		if (n > 0) {
			c->header += n;
			c->nheader -= (size_t)n;
			n = 0;
		}
	}
	return (int)n;
}

static int
command_failed(struct stream *s)
{
	int r = stream_plain_failed(s);

	return is_normal_exit(s, r) ? 0 : r;
}

/*
 * Signal the process group: to its processes, an abort must not look like the
 * end of input.  If the command has exited and the socket is closed everywhere,
 * the rest of the group does not use the connection.
 */
static void
command_abort(struct stream *s)
{
	const struct command *c = s->ctx;
	struct pollfd p = { .fd = s->fd };

	if (!c->exited || poll(&p, 1, 0) != 1 || !(p.revents & POLLHUP))
		kill(-c->pid, SIGTERM);
}

static const char *
command_error(const struct stream *s)
{
	const struct command *c = s->ctx;
	static char text[64];

	if (!was_killed(s))
		return stream_plain_error(s);
	snprintf(text, sizeof(text), "command killed by signal %d (%s)",
	    c->signal, strsignal(c->signal));
	return text;
}

static const struct stream_ops command_ops = {
	.open = command_open,
	.read = command_read,
	.write = command_write,
	.finish = stream_plain_finish,
	.failed = command_failed,
	.abort = command_abort,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = command_error,
};

/*
 * Remove variables of the service manager, which are only for us, and those by
 * which the dynamic linker loads other libraries.  Set the client's address.
 */
static void
command_environment(const char *peer)
{
	static const char *const without[] = {
		"LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_", "LD_",
		"REMOTE_HOST=", "REMOTE_PORT="
	};
	char host[ADDRESS_SIZE], **from, **to = environ;
	const char *port;
	size_t i;

	for (from = environ; from != NULL && *from != NULL; from++) {
		for (i = 0; i < sizeof(without) / sizeof(without[0]); i++)
			if (strncmp(*from, without[i], strlen(without[i])) ==
			    0)
				break;
		if (i == sizeof(without) / sizeof(without[0]))
			*to++ = *from;
	}
	if (to != NULL)
		*to = NULL;
	if (strncmp(peer, "unix:", 5) != 0 && strcmp(peer, "stdin") != 0 &&
	    net_split_address(peer, host, sizeof(host), &port) == 0) {
		setenv("REMOTE_HOST", host, 1);
		setenv("REMOTE_PORT", port, 1);
	}
}

/* In the child: execute the command, with the socket as its 0 and 1. */
static void __attribute__((noreturn))
command_run(const struct command_params *p, int fd)
{
	command_environment(p->peer);
	setpgid(0, 0);
	setrlimit(RLIMIT_NOFILE, p->files);
	setrlimit(RLIMIT_CORE, p->core);
	p->reset_signals();
	if (dup2(fd, STDIN_FILENO) != -1 && dup2(fd, STDOUT_FILENO) != -1)
		execvp(p->argv[0], p->argv);
	if (p->root == NULL)
		log_error("%s: %s", p->argv[0], strerror(errno));
	else
		log_error("%s: %s (in chroot %s)", p->argv[0],
		    strerror(errno), p->root);
	kill(getpid(), SIGKILL);	/* exiting would be an end of output */
	_exit(127);
}

struct command *
command_start(struct commands *all, const struct command_params *p,
    struct stream *backend, char *why, size_t size)
{
	const char *name = p->argv[0];
	struct command *c;
	int fds[2] = { -1, -1 };

	/* Commands that run longer than their connections count, too. */
	if (all->running >= p->max) {
		snprintf(why, size, "%s: %zu commands are running already "
		    "(max_connections)", name,
		    all->running);
		return NULL;
	}
	if ((c = calloc(1, sizeof(*c))) == NULL ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == -1 ||
	    fcntl(fds[0], F_SETFL, O_NONBLOCK) == -1 ||
	    (c->pid = fork()) == -1) {
		snprintf(why, size, "%s: %s", name, strerror(errno));
		if (fds[0] != -1) {
			close(fds[0]);
			close(fds[1]);
		}
		free(c);
		return NULL;
	}
	if (c->pid == 0)
		command_run(p, fds[1]);
	setpgid(c->pid, c->pid);	/* in both, as either may be first */
	c->end = fds[1];
	c->header = p->header;
	c->nheader = p->nheader;
	c->next = all->list;
	all->list = c;
	all->running++;
	*backend = (struct stream){ .ops = &command_ops, .ctx = c,
	    .fd = fds[0] };
	return c;
}

static void
command_close(struct command *c)
{
	if (c->end != -1)
		close(c->end);
	c->end = -1;
}

/*
 * Reap commands that have exited, if their connections have ended: before that,
 * command_abort() may signal the group, whose ID must not be reused.
 */
static void
commands_reap(struct commands *all)
{
	struct command **link = &all->list, *c;

	while ((c = *link) != NULL) {
		if (c->exited && c->detached) {
			waitpid(c->pid, NULL, 0);
			*link = c->next;
			free(c);
		} else
			link = &c->next;
	}
}

void
commands_look(struct commands *all)
{
	struct command *c;

	for (c = all->list; c != NULL; c = c->next) {
		siginfo_t si = { .si_pid = 0 };

		if (c->exited || waitid(P_PID, (id_t)c->pid, &si, WEXITED |
		    WNOHANG | WNOWAIT) == -1 || si.si_pid == 0)
			continue;
		c->exited = 1;
		c->signal = si.si_code == CLD_EXITED ? 0 : si.si_status;
		log_debug("command %d exited: %s %d", (int)c->pid,
		    c->signal != 0 ? "signal" : "status", si.si_status);
		all->running--;
		command_close(c);
	}
	commands_reap(all);
}

void
command_leave(struct commands *all, struct command *c)
{
	c->detached = 1;
	command_close(c);
	commands_reap(all);
}

void
commands_free(struct commands *all)
{
	struct command *c;

	while ((c = all->list) != NULL) {
		all->list = c->next;
		command_close(c);
		free(c);
	}
}
