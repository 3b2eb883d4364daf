/* Unit tests of daemon: signals, descriptors, the pidfile, sd_notify. */
#include "../../lib/daemon.c"

#include <poll.h>

#include "said.h"

static int
setup(void **state)
{
	(void)state;
	said_reset();
	return 0;
}

/* Signals are delivered only during sleep, and are taken once. */
static void
test_signals(void **state)
{
	const struct timespec at_once = { 0 };
	sigset_t before, sleep_mask;

	(void)state;
	sigprocmask(SIG_SETMASK, NULL, &before);
	signals_catch(&sleep_mask);
	raise(SIGHUP);
	raise(SIGINT);
	assert_false(signal_pending(SIGHUP));
	assert_int_equal(ppoll(NULL, 0, &at_once, &sleep_mask), -1);
	assert_int_equal(errno, EINTR);
	assert_true(signal_pending(SIGHUP));
	assert_true(signal_taken(SIGHUP));
	assert_false(signal_taken(SIGHUP));
	assert_true(signal_pending(SIGTERM));
	assert_false(signal_pending(SIGQUIT));
	signals_leave();
	assert_false(signal_taken(SIGTERM));
	assert_true(signal(SIGINT, SIG_DFL) == SIG_IGN);
	signals_reset();
	assert_true(signal(SIGHUP, SIG_DFL) == SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static int
is_open(int fd)
{
	return fcntl(fd, F_GETFD) != -1;
}

/* Test in a child, as files of cmocka or a sanitizer would be closed. */
static int
closes(int *fds, size_t n)
{
	int fd;

	for (fd = 10; fd < 20; fd++)
		if (dup2(STDERR_FILENO, fd) == -1)
			return 1;
	if (dup2(log_fd(), 14) == -1)
		return 2;
	log_to(14, -1);
	daemon_close_all_but(fds, n);
	for (fd = 3; fd < 30; fd++)
		if (is_open(fd) != (fd == 12 || fd == 14 || fd == 17))
			return fd;
	return is_open(STDIN_FILENO) && is_open(STDERR_FILENO) ? 0 : 3;
}

static void
test_close_all_but(void **state)
{
	int fds[] = { 17, -1, 12, 1, 12 }, status;
	pid_t pid;

	(void)state;
	if ((pid = fork()) == 0)
		_exit(closes(fds, LEN(fds)));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void
test_move_fd(void **state)
{
	int fd = dup(STDERR_FILENO), was = fd;

	(void)state;
	assert_int_equal(daemon_move_fd(&fd, 50), 0);
	assert_int_equal(fd, 50);
	assert_false(is_open(was));
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	assert_int_equal(daemon_move_fd(&fd, 50), -1);
	assert_int_equal(fd, 50);
}

static void
test_pidfile(void **state)
{
	char name[] = "/tmp/test_daemon.XXXXXX", text[16] = "";
	int fd = mkstemp(name), other = open(name, O_RDWR);

	(void)state;
	assert_true(fd != -1 && other != -1);
	assert_int_equal(write(fd, "something longer", 16), 16);
	lseek(fd, 0, SEEK_SET);
	assert_null(daemon_write_pidfile(fd, name, 1234));
	assert_int_equal(pread(other, text, sizeof(text) - 1, 0), 5);
	assert_string_equal(text, "1234\n");
	assert_string_equal(daemon_write_pidfile(other, name, 1),
	    "another tunnel has locked it");
	close(fd);
	unlink(name);
	assert_string_equal(daemon_write_pidfile(other, name, 1),
	    "another tunnel has just removed it");
	close(other);
}

static void
test_notify(void **state)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(sa_family_t);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char text[64] = "", name[16];

	(void)state;
	/* An abstract address, chosen by the kernel. */
	assert_int_equal(bind(fd, (struct sockaddr *)&un, len), 0);
	len = sizeof(un);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&un, &len), 0);
	snprintf(name, sizeof(name), "@%.*s", (int)(len - offsetof(
	    struct sockaddr_un, sun_path)) - 1, un.sun_path + 1);
	daemon_notify(name, "READY=%d", 1);
	assert_int_equal(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT), 7);
	assert_string_equal(text, "READY=1");
	close(fd);
	expect_silence();
	daemon_notify(NULL, "READY=1");
	daemon_notify("relative", "READY=1");
	expect_silence();
	daemon_notify(name, "READY=1");
	assert_non_null(strstr(said(), "warning: NOTIFY_SOCKET @"));
}

#define TEST(name)	cmocka_unit_test_setup(name, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_signals),
		TEST(test_close_all_but),
		TEST(test_move_fd),
		TEST(test_pidfile),
		TEST(test_notify),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
