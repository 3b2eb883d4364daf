/* log: log lines to stderr, syslog, systemd's journal or a file. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "util.h"

#define LINE_SIZE	2048
#define ERRORS_MAX	50		/* per configuration */
#define DROPPED_SIZE	512		/* report of lost lines */

static struct log_state state = { .level = LEVEL_INFO,
    .stream = STDERR_FILENO };
static struct {
	int	 fd;			/* -1: syslog */
	enum {
		UNKNOWN,		/* not determined yet */
		ANYTHING,		/* the sandbox forbids fstat(2) */
		SOCKET, REGULAR,
		PIPE			/* or a terminal */
	} kind;
	int	 stdio_is_connection;
	int	 errors_limited;	/* see log_errors_begin() */
	size_t	 errors;
} logging = { .fd = STDERR_FILENO };

const char *const log_levels[] = {
	"error", "warning", "notice", "info", "debug", NULL
};

static void
detect_kind(void)
{
	struct stat st;

	if (logging.kind != UNKNOWN)
		return;
	if (fstat(logging.fd, &st) == -1)
		logging.kind = ANYTHING;
	else
		logging.kind = S_ISSOCK(st.st_mode) ? SOCKET :
		    S_ISREG(st.st_mode) ? REGULAR : PIPE;
}

/* Write to the log; never block on a socket. */
static ssize_t
put(const char *line, size_t len)
{
	ssize_t n = -1;

	if (logging.kind == SOCKET || logging.kind == ANYTHING) {
		n = send(logging.fd, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n != -1 || errno != ENOTSOCK)
			return n;
	}
	return write(logging.fd, line, len);
}

/*
 * Write a line by one system call, since several processes share the log.  -1:
 * it is lost.  After an incomplete line on a full disk, begin a new one.
 */
static int __attribute__((format(printf, 1, 2)))
log_line(const char *fmt, ...)
{
	char line[LINE_SIZE + 64];
	ssize_t n;
	va_list ap;
	int len = state.lost.is_cut;

	line[0] = '\n';
	va_start(ap, fmt);
	len += vsnprintf(line + len, sizeof(line) - (size_t)len, fmt, ap);
	va_end(ap);
	do {
		n = put(line, (size_t)len);
	} while (n == -1 && errno == EINTR);
	if (n == len) {
		state.lost.is_cut = 0;
		return 0;
	}
	if (n > 0)
		state.lost.is_cut = line[n - 1] != '\n';
	/* A partial write: the disk or the pipe is full. */
	if (n >= 0)
		errno = logging.kind == PIPE || logging.kind == SOCKET ?
		    EAGAIN : ENOSPC;
	state.lost.why = errno == EPIPE ? EAGAIN : errno;
	return -1;
}

/* Format a line for the kind of log, and write it; -1: it is lost. */
static int
log_text(enum log_level level, const char *text)
{
	static const int priorities[] = {
		LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG
	};
	char stamp[40] = "";
	time_t now;
	struct tm tm;

	if (logging.fd == -1) {
		syslog(priorities[level], "%s", text);
		return 0;
	}
	if (state.has_time) {
		now = time(NULL);
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ ",
		    gmtime_r(&now, &tm));
	}
	if (state.is_private)
		return log_line("%s%s: %s\n", stamp, log_levels[level], text);
	if (state.is_journal)
		return log_line("<%d>%s\n", priorities[level], text);
	return log_line("%stunnel: %s%s%s\n", stamp, level <= LEVEL_WARNING ?
	    log_levels[level] : "", level <= LEVEL_WARNING ? ": " : "", text);
}

/*
 * 1 if a line must be dropped, because the reader has stopped or exited, or the
 * disk is full: losing lines is better than blocking.  Report lost lines when
 * there is room again.
 */
static int
is_stuck(void)
{
	struct pollfd p = { .fd = logging.fd, .events = POLLOUT };
	char text[DROPPED_SIZE];

	if (logging.fd == -1) {
		state.lost.lines = 0;
		return 0;
	}
	detect_kind();
	/* Writes to a pipe or a terminal may block; to a file they don't. */
	if ((logging.kind == PIPE || logging.kind == ANYTHING) &&
	    poll(&p, 1, 0) == 0) {
		state.lost.why = EAGAIN;
		return 1;
	}
	if (state.lost.lines == 0)
		return 0;
	snprintf(text, sizeof(text), "%llu log lines dropped: %s",
	    (unsigned long long)state.lost.lines, state.lost.why == EAGAIN ?
	    "the log's reader is too slow, or gone" :
	    strerror(state.lost.why));
	if (log_text(LEVEL_WARNING, text) == -1)
		return 1;
	state.lost.lines = 0;
	return 0;
}

void
log_at(enum log_level level, const char *fmt, ...)
{
	char text[LINE_SIZE], clean[LINE_SIZE];
	int saved = errno;
	va_list ap;

	if (level > state.level)
		return;
	if (level == LEVEL_ERROR && logging.errors_limited &&
	    ++logging.errors > ERRORS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_escape(clean, sizeof(clean), text);
	if (is_stuck() || log_text(level, clean) == -1)
		state.lost.lines++;
	errno = saved;
}

void
log_errors_begin(void)
{
	logging.errors = 0;
	logging.errors_limited = 1;
}

void
log_errors_end(void)
{
	logging.errors_limited = 0;
	if (logging.errors > ERRORS_MAX)
		log_error("and %zu more error%s", logging.errors - ERRORS_MAX,
		    logging.errors == ERRORS_MAX + 1 ? "" : "s");
}

size_t
log_errors(void)
{
	return logging.errors;
}

struct log_lost
log_lost_take(void)
{
	struct log_lost lost = state.lost;

	state.lost.lines = 0;
	return lost;
}

void
log_lost_add(const struct log_lost *lost)
{
	if (lost->lines > 0) {
		state.lost.lines += lost->lines;
		state.lost.why = lost->why;
		state.lost.is_cut |= lost->is_cut != 0;
	}
	if (state.lost.lines > 0)
		is_stuck();
}

void
log_get_state(struct log_state *to)
{
	*to = state;
}

void
log_set_state(const struct log_state *from)
{
	state = *from;
	logging.kind = UNKNOWN;		/* the file may have changed */
}

int
log_fd(void)
{
	return logging.fd;
}

/*
 * 1 if a file is the connection.  inetd passes it as 0, 1 and 2, so log lines
 * would go to the client.  A terminal may show both.
 */
static int
is_connection(const struct stat *st)
{
	struct stat other;
	int fd;

	for (fd = STDIN_FILENO;
	    fd <= STDIN_FILENO + logging.stdio_is_connection; fd++)
		if (fstat(fd, &other) == 0 && !S_ISCHR(other.st_mode) &&
		    (logging.stdio_is_connection || S_ISSOCK(other.st_mode)) &&
		    other.st_ino == st->st_ino && other.st_dev == st->st_dev)
			return 1;
	return 0;
}

/*
 * Open a pipe or a terminal again, to make it non-blocking without a change to
 * the descriptors of other programs.  poll(2) is not enough: the room that it
 * reports may be too small for a line.
 */
int
log_open_stream(int stream)
{
	struct stat out;
	char name[16];
	int fd = -1;

	if (fstat(stream, &out) == -1)
		return stream;
	if (is_connection(&out))
		return -1;
	snprintf(name, sizeof(name), "/dev/fd/%d", stream);
	if (S_ISFIFO(out.st_mode) || isatty(stream))
		fd = open(name, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd != -1 ? fd : stream;
}

int
log_stream(const char *log)
{
	if (strcmp(log, "syslog") == 0)
		return -1;
	if (strcmp(log, "/dev/stdout") == 0)
		return STDOUT_FILENO;
	return strcmp(log, "stderr") == 0 || strcmp(log, "/dev/stderr") == 0 ?
	    STDERR_FILENO : 0;
}

void
log_to(int fd, int stream)
{
	if (logging.fd > STDERR_FILENO && logging.fd != fd)
		close(logging.fd);
	logging.fd = fd;
	logging.kind = UNKNOWN;
	detect_kind();			/* before entering a sandbox */
	state.stream = fd != -1 && stream > 0 ? stream : -1;
}

void
log_avoid_stdio(void)
{
	logging.stdio_is_connection = 1;
	log_to(log_open_stream(STDERR_FILENO), STDERR_FILENO);
}

void
log_lower(void)
{
	int fd;

	if (logging.fd > STDERR_FILENO && (fd = fcntl(logging.fd,
	    F_DUPFD_CLOEXEC, STDERR_FILENO + 1)) != -1)
		log_to(fd, state.stream);
}

enum log_level
log_get_level(void)
{
	return state.level;
}

void
log_configure(int is_private, enum log_level level)
{
	state.is_private = is_private;
	state.has_time = is_private || !state.is_journal;
	state.level = level;
}

void
log_init(void)
{
	const char *journal = getenv("JOURNAL_STREAM");
	char stream[64];
	struct stat st;

	signal(SIGPIPE, SIG_IGN);
	openlog("tunnel", LOG_PID, LOG_DAEMON);
	if (fstat(STDERR_FILENO, &st) == 0) {
		snprintf(stream, sizeof(stream), "%ju:%ju",
		    (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
		state.is_journal = journal != NULL &&
		    strcmp(journal, stream) == 0;
	}
	log_to(log_open_stream(STDERR_FILENO), STDERR_FILENO);
}

void
log_connect_syslog(void)
{
	closelog();
	openlog("tunnel", LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void
log_restore(int fd)
{
	if (fd == -1)
		log_connect_syslog();
	else if (fd > STDERR_FILENO)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	log_to(fd, state.stream);
}
