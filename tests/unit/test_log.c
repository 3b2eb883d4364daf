/* Unit tests of the log: the format of lines, and lost lines. */
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* Count the system calls of a line. */
static struct {
	int	 poll, send, write;
} calls;
static int	 may_look = 1;		/* 0: fstat(2) fails, as in a sandbox */

#define fstat(fd, st)	(may_look ? fstat(fd, st) : -1)
#define poll(p, n, ms)	(calls.poll++, poll(p, n, ms))
#define send(fd, p, len, flags)	(calls.send++, send(fd, p, len, flags))
#define write(fd, p, len)	(calls.write++, write(fd, p, len))
#include "../../lib/log.c"
#undef fstat
#undef poll
#undef send
#undef write

#include <ctype.h>

#include "said.h"

static int
setup(void **arg)
{
	(void)arg;
	said_reset();
	return 0;
}

static void
test_log_lines(void **arg)
{
	char stamp[32];
	const char *text;
	int i;

	(void)arg;
	log_info("hello %d", 5);
	assert_string_equal(said(), "tunnel: hello 5\n");
	log_notice("a\nb");
	assert_string_equal(said(), "tunnel: a\\x0ab\n");
	log_warning("w");
	assert_string_equal(said(), "tunnel: warning: w\n");
	log_error("e");
	assert_string_equal(said(), "tunnel: error: e\n");
	log_debug("d");
	expect_silence();
	state.level = LEVEL_WARNING;
	log_notice("n");
	expect_silence();
	state.level = LEVEL_DEBUG;
	state.is_journal = 1;
	log_debug("d");
	assert_string_equal(said(), "<7>d\n");
	log_error("e");
	assert_string_equal(said(), "<3>e\n");
	state.is_journal = 0;
	state.has_time = 1;
	log_info("on stderr");
	text = said();
	for (i = 0; i < 20; i++)
		stamp[i] = isdigit((unsigned char)text[i]) ? '0' : text[i];
	stamp[20] = '\0';
	assert_string_equal(stamp, "0000-00-00T00:00:00Z");
	assert_string_equal(text + 20, " tunnel: on stderr\n");
	state.is_private = 1;
	log_info("in a file");
	assert_string_equal(said() + 20, " info: in a file\n");
}

static void
test_log_keeps_errno(void **arg)
{
	static char huge[10000];
	const char *text;
	int fd = logging.fd;

	(void)arg;
	/* Also if the line can't be written. */
	logging.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	errno = EDOM;
	log_error("x");
	assert_int_equal(errno, EDOM);
	close(logging.fd);
	logging.fd = fd;
	log_error("y");
	text = said();
	assert_non_null(strstr(text, "1 log lines dropped: Bad file "
	    "descriptor"));
	assert_non_null(strstr(text, "error: y\n"));
	memset(huge, '\n', sizeof(huge) - 1);
	log_error("%s", huge);
	text = said();
	assert_true(is_sentence(text));
	assert_in_range(strlen(text), LINE_SIZE - 8, LINE_SIZE + 32);
}

/* One process reports the lost lines of another. */
static void
test_lost_lines(void **arg)
{
	const struct log_lost none = { .lines = 0, .why = EIO },
	    two = { .lines = 2, .why = ENOSPC, .is_cut = 1 };
	struct log_lost lost;

	(void)arg;
	log_lost_add(&none);
	expect_silence();
	log_lost_add(&two);
	assert_non_null(strstr(said(), "2 log lines dropped: No space left"));
	log_info("x");
	assert_string_equal(said(), "tunnel: x\n");
	state.lost.lines = 3;
	lost = log_lost_take();
	assert_int_equal(lost.lines, 3);
	assert_int_equal(lost.why, ENOSPC);
	assert_int_equal(log_lost_take().lines, 0);
	log_info("y");
	assert_string_equal(said(), "tunnel: y\n");
}

static void
test_state(void **arg)
{
	struct log_state was, now;

	(void)arg;
	log_get_state(&was);
	log_configure(1, LEVEL_DEBUG);
	log_get_state(&now);
	assert_true(now.is_private && now.has_time);
	assert_int_equal(log_get_level(), LEVEL_DEBUG);
	log_set_state(&was);
	assert_int_equal(log_get_level(), LEVEL_INFO);
	log_info("z");
	assert_string_equal(said(), "tunnel: z\n");
}

/* The log moves to the first free number. */
static void
test_lower(void **arg)
{
	int was = log_fd(), high = fcntl(was, F_DUPFD_CLOEXEC, 100);

	(void)arg;
	log_to(high, -1);
	log_lower();
	assert_in_range(log_fd(), STDERR_FILENO + 1, was);
	assert_int_equal(fcntl(high, F_GETFD), -1);
	log_info("low");
	assert_string_equal(said(), "tunnel: low\n");
}

static void
expect_calls(int polls, int sends, int writes)
{
	memset(&calls, 0, sizeof(calls));
	log_info("x");
	assert_int_equal(calls.poll, polls);
	assert_int_equal(calls.send, sends);
	assert_int_equal(calls.write, writes);
}

/* Only the calls that the kind of file needs, or all if it is unknown. */
static void
test_calls(void **arg)
{
	int kept = fcntl(log_fd(), F_DUPFD_CLOEXEC, 0), end[2], ends[2];

	(void)arg;
	assert_int_equal(pipe(end), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	expect_calls(0, 0, 1);
	log_to(end[1], -1);
	expect_calls(1, 0, 1);
	log_to(ends[1], -1);
	expect_calls(0, 1, 0);
	may_look = 0;
	log_to(kept, -1);
	expect_calls(1, 1, 1);
	/* A worker gets a new log, at the number of the old one. */
	may_look = 1;
	log_set_state(&state);
	expect_calls(0, 0, 1);
	assert_int_equal(dup2(ends[0], kept), kept);
	log_set_state(&state);
	expect_calls(0, 1, 0);
	close(ends[0]);
	close(end[0]);
	log_to(memfd_create("log", MFD_CLOEXEC), -1);
}

/* The same for a blocking socket. */
static void
test_full_socket_does_not_block(void **arg)
{
	int was = fcntl(log_fd(), F_DUPFD_CLOEXEC, 0), ends[2], i;

	(void)arg;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	log_to(ends[1], -1);
	for (i = 0; i < 1000000 && state.lost.lines == 0; i++)
		log_info("x");
	assert_int_equal(state.lost.lines, 1);
	assert_int_equal(state.lost.why, EAGAIN);
	log_to(was, -1);
	log_info("y");
	assert_non_null(strstr(said(), "1 log lines dropped: the log's reader"));
	close(ends[0]);
}

/* The errors of a configuration are limited in number. */
static void
test_errors(void **arg)
{
	int i;

	(void)arg;
	log_errors_begin();
	for (i = 0; i < ERRORS_MAX + 7; i++)
		log_error("e");
	assert_int_equal(log_errors(), ERRORS_MAX + 7);
	assert_int_equal(times_said(said(), "\n"), ERRORS_MAX);
	log_errors_end();
	assert_string_equal(said(), "tunnel: error: and 7 more errors\n");
	log_errors_begin();
	assert_int_equal(log_errors(), 0);
	log_errors_end();
	expect_silence();
}

#define TEST(name)	cmocka_unit_test_setup(name, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_log_lines),
		TEST(test_log_keeps_errno),
		TEST(test_lost_lines),
		TEST(test_state),
		TEST(test_lower),
		TEST(test_calls),
		TEST(test_full_socket_does_not_block),
		TEST(test_errors),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
