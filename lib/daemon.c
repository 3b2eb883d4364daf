/* daemon: signals, descriptors, background, pidfile, service manager. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include "daemon.h"
#include "log.h"
#include "util.h"

#define NOTIFY_SIZE	512

static const int signals[] = {
	SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD
};
#define SIGNALS	(sizeof(signals) / sizeof(signals[0]))

static volatile sig_atomic_t pending[NSIG];

static void
on_signal(int sig)
{
	pending[sig == SIGINT ? SIGTERM : sig] = 1;
}

void
signals_catch(sigset_t *sleep_mask)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t awake;
	size_t i;

	sigemptyset(&awake);
	for (i = 0; i < SIGNALS; i++) {
		sigaction(signals[i], &sa, NULL);
		sigaddset(&awake, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &awake, sleep_mask);
	for (i = 0; i < SIGNALS; i++)
		sigdelset(sleep_mask, signals[i]);
}

void
signals_leave(void)
{
	size_t i;

	signal(SIGINT, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	for (i = 0; i < NSIG; i++)
		pending[i] = 0;
}

void
signals_reset(void)
{
	sigset_t none;
	size_t i;

	for (i = 0; i < SIGNALS; i++)
		signal(signals[i], SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int
signal_pending(int sig)
{
	return pending[sig];
}

int
signal_taken(int sig)
{
	int was = pending[sig];

	pending[sig] = 0;
	return was;
}

void
daemon_reserve_descriptors(void)
{
	int fd;

	/* open(2) returns the lowest free number: this one. */
	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", fd ==
		    STDOUT_FILENO ? O_RDONLY : O_RDWR) == -1)
			return;
}

void
daemon_release_descriptors(void)
{
	int fd, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct log_state log;

	log_get_state(&log);
	for (fd = STDIN_FILENO; fd <= STDERR_FILENO && null != -1; fd++)
		if (fd != log.stream)
			dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
}

#ifdef __linux__

#ifndef SYS_close_range
#define SYS_close_range		436
#endif

static int
close_at_once(unsigned from, unsigned to)
{
	return (int)syscall(SYS_close_range, from, to, 0u);
}

#else

static int
close_at_once(unsigned from, unsigned to)
{
	(void)from;
	(void)to;
	return -1;
}

#endif

/* Close descriptors from from to below - 1; before Linux 5.9, one by one. */
static void
close_between(int from, int below)
{
	int end = (int)sysconf(_SC_OPEN_MAX);

	if (from >= below ||
	    close_at_once((unsigned)from, (unsigned)below - 1) == 0)
		return;
	for (; from < below && from < end; from++)
		close(from);
}

/* The same, but keep the log. */
static void
close_others(int from, int below)
{
	int log = log_fd();

	if (log >= from && log < below) {
		close_between(from, log);
		from = log + 1;
	}
	close_between(from, below);
}

static int
compare_fds(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

void
daemon_close_all_but(int *fds, size_t n)
{
	int next = STDERR_FILENO + 1;
	size_t i;

	if (n > 0)
		qsort(fds, n, sizeof(*fds), compare_fds);
	for (i = 0; i < n; i++) {
		close_others(next, fds[i]);
		if (fds[i] >= next)
			next = fds[i] + 1;
	}
	close_others(next, INT_MAX);
	if (log_fd() == -1)
		log_connect_syslog();	/* the socket was closed, too */
}

int
daemon_move_fd(int *fd, int from)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, from);

	if (moved == -1)
		return -1;
	close(*fd);
	*fd = moved;
	return 0;
}

int
daemon_background(void)
{
	struct log_state log;
	int fds[2], status;
	pid_t pid;
	char byte;

	if (pipe2(fds, O_CLOEXEC) == -1 || (pid = fork()) == -1) {
		log_error("daemon: %s", strerror(errno));
		return -1;
	}
	if (pid == 0) {
		close(fds[0]);
		setsid();
		log_get_state(&log);
		log.is_daemon = 1;
		log_set_state(&log);
		return fds[1];
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) == 1)
		_exit(EXIT_SUCCESS);
	if (waitpid(pid, &status, 0) == -1 || !WIFEXITED(status))
		_exit(EXIT_FAILURE);
	_exit(WEXITSTATUS(status));
}

/* Lock a file, and check that it still has this name.  0, or -1 with errno. */
static int
lock_file(int fd, const char *name)
{
	struct stat ours, there;

	if (flock(fd, LOCK_EX | LOCK_NB) == -1)
		return -1;
	errno = 0;
	return fstat(fd, &ours) == 0 && stat(name, &there) == 0 &&
	    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev ? 0 :
	    -1;
}

const char *
daemon_write_pidfile(int fd, const char *name, pid_t pid)
{
	fchmod(fd, 0600);	/* it may be an old file */
	if (lock_file(fd, name) == -1)
		return errno == EWOULDBLOCK ? "another tunnel has locked it" :
		    "another tunnel has just removed it";
	if (ftruncate(fd, 0) == -1 || dprintf(fd, "%d\n", (int)pid) < 0)
		return strerror(errno);
	return NULL;
}

void
daemon_notify(const char *to, const char *fmt, ...)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	char text[NOTIFY_SIZE];
	va_list ap;
	int fd;

	if (to == NULL || strlen(to) >= sizeof(un.sun_path) ||
	    (*to != '/' && *to != '@'))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(un.sun_path, to, strlen(to));
	if (*to == '@')
		un.sun_path[0] = '\0';
	if ((fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) == -1)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL,
	    (const struct sockaddr *)&un, (socklen_t)(offsetof(
	    struct sockaddr_un, sun_path) + strlen(to))) == -1)
		log_warning("NOTIFY_SOCKET %s: %s", to, strerror(errno));
	close(fd);
}

void
daemon_end_child(pid_t *child, int64_t ms)
{
	int64_t until = clock_ms() + ms;

	while (*child != 0 && waitpid(*child, NULL, WNOHANG) == 0) {
		if (clock_ms() >= until) {
			kill(*child, SIGKILL);
			break;
		}
		poll(NULL, 0, 10);
	}
	*child = 0;
}

#ifdef __linux__

void
daemon_follow_master(void)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
}

#else

void
daemon_follow_master(void)
{
}

#endif
