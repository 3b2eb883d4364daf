/*
 * relay: move bytes between standard input and output, and a socket.
 *
 * Other programs share these files and expect them to block, so O_NONBLOCK is
 * not set on them.  After poll(2), a read does not block, nor does a write of
 * up to PIPE_BUF, except on a terminal, which is opened again.  Thus neither
 * direction blocks the other.
 *
 * The main process also keeps the relay's end of the socket pair open until it
 * has the verdict: if the relay was killed, the connection must not see an end
 * of file.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"
#include "log.h"
#include "privileges.h"
#include "relay.h"
#include "sandbox.h"
#include "util.h"

#define BUFFER_SIZE	(64 * 1024)

/* From relay_go() to the relay. */
struct relay_order {
	uid_t	 uid;
	gid_t	 gid;
	int32_t	 drops;
	int32_t	 is_confined;
};

/* From the relay, at its end: 0 and 0, or the descriptor and errno. */
struct verdict {
	int32_t	 fd;
	int32_t	 error;
};

/* A direction: fill when empty, drain until empty. */
struct way {
	int	 from, to;		/* -1: finished */
	size_t	 most;			/* bytes per write that never blocks */
	size_t	 off, len;
	unsigned char data[BUFFER_SIZE];
};

/*
 * THE CHILD
 */

static void __attribute__((noreturn))
leave(int status, int fd, int error)
{
	const struct verdict v = { fd, error };

	_exit(write(status, &v, sizeof(v)) == sizeof(v) ? 0 : 1);
}

/*
 * All data is written: signal the end.  Do not close the socket, as the other
 * direction may continue.
 */
static void
way_finish(struct way *w, int sock)
{
	if (w->to == sock)
		shutdown(sock, SHUT_WR);
	else
		close(w->to);
	w->from = w->to = -1;
}

/*
 * Read or write once.  0, or -1 with errno; a hung-up terminal returns EIO.  An
 * error of the socket ends the direction: the main process knows the reason.
 */
static int
way_step(struct way *w, int sock)
{
	size_t room = w->len < w->most ? w->len : w->most;
	ssize_t n = w->len == 0 ? read(w->from, w->data, sizeof(w->data)) :
	    write(w->to, w->data + w->off, room);
	int fd = w->len == 0 ? w->from : w->to;

	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n == -1 && fd == sock)
		w->len = 0;
	else if (n == -1)
		return -1;
	else if (w->len > 0) {
		w->off += (size_t)n;
		w->len -= (size_t)n;
		return 0;
	}
	w->off = 0;
	w->len = n > 0 ? (size_t)n : 0;
	if (w->len == 0)
		way_finish(w, sock);
	return 0;
}

/*
 * Move bytes until both directions are finished.  After the end of data from
 * the socket, poll for its hang-up.  Exit if the main process is gone, which
 * closes the pipe of the verdict: its sandbox allows no signal to this process.
 */
static void __attribute__((noreturn))
move(struct way *ways, int sock, int status)
{
	struct way *up = &ways[0], *down = &ways[1], *w;
	struct pollfd p[4] = { [3] = { .fd = status } };
	int i;

	while (up->from != -1 || down->from != -1) {
		for (i = 0; i < 2; i++) {
			w = &ways[i];
			p[i].fd = w->len > 0 ? w->to : w->from;
			p[i].events = w->len > 0 ? POLLOUT : POLLIN;
		}
		p[2].fd = down->from == -1 ? sock : -1;
		if (poll(p, 4, -1) == -1) {
			if (errno == EINTR)
				continue;
			leave(status, sock, errno);
		}
		if (p[3].revents != 0)
			_exit(1);
		for (i = 0; i < 2; i++)
			if (p[i].revents != 0 && way_step(&ways[i], sock) == -1)
				leave(status, p[i].fd, errno);
		if (p[2].revents & (POLLHUP | POLLERR))
			break;
	}
	leave(status, 0, 0);
}

/* Drop privileges, and enter the sandbox.  No chroot: it opens no files. */
static int
become(const struct relay_order *o)
{
	const struct identity id = { .uid = o->uid, .gid = o->gid,
	    .drops = o->drops };
	const struct sandbox box = { .log = -1, .control = INT_MAX,
	    .is_relay = 1 };

	if (privileges_drop(&id) == -1)
		return -1;
	if (!o->is_confined)
		return 0;
	privileges_disable_dumps();
	return sandbox_enter(&box);
}

/* 1 if writes of any size do not block: a file has no reader. */
static int
is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/*
 * A write to a terminal may block, with less room than PIPE_BUF.  So open it
 * again, with an O_NONBLOCK that does not affect other programs.
 */
static void
reopen_terminal(void)
{
	int fd = isatty(STDOUT_FILENO) ? open("/dev/fd/1", O_WRONLY |
	    O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;

	if (fd == -1)
		return;
	dup2(fd, STDOUT_FILENO);
	close(fd);
}

/*
 * Ignore SIGTERM, SIGUSR1 and SIGUSR2: the main process handles them, and may
 * continue.  Signals from a terminal end both processes.
 */
static void __attribute__((noreturn))
child_main(int sock, int status)
{
	static struct way ways[2];	/* in .bss, as it is large */
	int fds[] = { sock, status };
	struct relay_order o;

	signal(SIGTERM, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	log_to(STDERR_FILENO, -1);
	daemon_close_all_but(fds, 2);
	if (read(sock, &o, sizeof(o)) != sizeof(o))
		_exit(1);
	reopen_terminal();
	ways[0].from = STDIN_FILENO;
	ways[1].to = STDOUT_FILENO;
	ways[0].to = ways[1].from = sock;
	ways[0].most = sizeof(ways[0].data);
	ways[1].most = is_file(STDOUT_FILENO) ? sizeof(ways[1].data) : PIPE_BUF;
	if (fcntl(sock, F_SETFL, O_NONBLOCK) == -1 || become(&o) == -1)
		leave(status, sock, errno);
	move(ways, sock, status);
}

/*
 * THE MAIN PROCESS
 */

/* 1 if neither end of a socket has an address, as with socketpair(2). */
static int
is_of_a_pair(int fd)
{
	struct sockaddr_un own = { .sun_family = AF_UNSPEC }, un = own;
	socklen_t own_len = sizeof(own), len = sizeof(un);

	return getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 &&
	    own.sun_family == AF_UNIX && own_len <= sizeof(sa_family_t) &&
	    getpeername(fd, (struct sockaddr *)&un, &len) == 0 &&
	    un.sun_family == AF_UNIX && len <= sizeof(sa_family_t);
}

int
relay_is_needed(int is_client)
{
	struct stat in, out;

	if (fstat(STDIN_FILENO, &in) == -1 || !S_ISSOCK(in.st_mode))
		return 1;
	if (!is_of_a_pair(STDIN_FILENO) || fstat(STDOUT_FILENO, &out) == -1)
		return 0;
	if (S_ISSOCK(out.st_mode))
		return is_of_a_pair(STDOUT_FILENO) && in.st_ino != out.st_ino;
	return is_client;
}

int
relay_start(struct relay *r)
{
	int pair[2], status[2], saved;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		return -1;
	r->fd = pair[0];
	r->far = pair[1];
	if (pipe2(status, O_CLOEXEC) == -1 || (r->status = status[0]) == -1 ||
	    (r->pid = fork()) == -1) {
		saved = errno;
		if (r->status != -1)
			close(status[1]);
		relay_close(r);
		errno = saved;
		return -1;
	}
	if (r->pid == 0)
		child_main(pair[1], status[1]);
	close(status[1]);
	return 0;
}

int
relay_go(struct relay *r, const struct identity *id, int is_confined)
{
	const struct relay_order o = { .uid = id->uid, .gid = id->gid,
	    .drops = id->drops, .is_confined = is_confined };

	if (write(r->fd, &o, sizeof(o)) != sizeof(o))
		return -1;
	if (fcntl(r->fd, F_SETFL, O_NONBLOCK) == -1)
		return -1;
	return fcntl(r->status, F_SETFL, O_NONBLOCK);
}

const char *
relay_check(struct relay *r)
{
	static char text[128];
	struct verdict v = { .fd = -1 };
	ssize_t n;

	if (r->status == -1)
		return NULL;
	n = read(r->status, &v, sizeof(v));
	if (n == -1 && (errno == EAGAIN || errno == EINTR))
		return NULL;
	close_fd(&r->status);
	close_fd(&r->far);
	if (n != sizeof(v))
		return "relay killed";
	if (v.error == 0)
		return NULL;
	snprintf(text, sizeof(text), "%s: %s", v.fd == STDIN_FILENO ?
	    "standard input" : v.fd == STDOUT_FILENO ? "standard output" :
	    "relay", strerror(v.error));
	return text;
}

const char *
relay_await(struct relay *r, const sigset_t *sleep_mask, int64_t drain_ms)
{
	struct pollfd p = { .fd = r->status, .events = POLLIN };
	int64_t until = INT64_MAX;
	const char *why = NULL;
	struct timespec ts;
	int ms;

	close_fd(&r->far);
	while (r->status != -1 && why == NULL) {
		ms = clock_timeout(clock_ms(), until);
		ts = (struct timespec){ ms / 1000, ms % 1000 * 1000000L };
		if (ppoll(&p, 1, ms == -1 ? NULL : &ts, sleep_mask) == 1)
			why = relay_check(r);
		else if (signal_taken(SIGQUIT) || until <= clock_ms())
			why = "stopped before all output was written";
		else if (signal_taken(SIGTERM) && until == INT64_MAX &&
		    drain_ms > 0)
			until = clock_ms() + drain_ms;
	}
	return why;
}

void
relay_dismiss(struct relay *r)
{
	relay_close(r);
	while (waitpid(r->pid, NULL, 0) == -1 && errno == EINTR)
		continue;
}

void
relay_close(struct relay *r)
{
	close_fd(&r->fd);
	close_fd(&r->far);
	close_fd(&r->status);
}
