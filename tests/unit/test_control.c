/* Unit tests of the control channel: orders, and the change of the log. */
#include "../../lib/control.c"

#include <errno.h>
#include <sys/stat.h>

#include "said.h"

static int channel[2];

static int
setup(void **state)
{
	(void)state;
	said_reset();
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel);
}

static int
teardown(void **state)
{
	(void)state;
	close(channel[0]);
	close(channel[1]);
	return 0;
}

static void
test_orders(void **state)
{
	const struct order drain = { .what = ORDER_DRAIN, .ms = 1234 },
	    room = { .what = ORDER_MAKE_ROOM };
	struct order o;
	int fd, passed = dup(STDERR_FILENO);
	struct stat a, b;

	(void)state;
	assert_int_equal(control_receive(channel[1], &o, &fd), -1);
	assert_int_equal(control_send(channel[0], &drain, passed), 0);
	assert_int_equal(control_send(channel[0], &room, -1), 0);
	assert_int_equal(control_receive(channel[1], &o, &fd), 0);
	assert_int_equal(o.what, ORDER_DRAIN);
	assert_int_equal(o.ms, 1234);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(fd, &a) | fstat(passed, &b), 0);
	assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
	close(fd);
	close(passed);
	assert_int_equal(control_receive(channel[1], &o, &fd), 0);
	assert_int_equal(o.what, ORDER_MAKE_ROOM);
	assert_int_equal(fd, -1);
	/* Other messages are ignored. */
	assert_int_equal(send(channel[0], "", 1, 0), 1);
	assert_int_equal(control_receive(channel[1], &o, &fd), -1);
}

/* Sending never blocks. */
static void
test_no_room(void **state)
{
	const struct order o = { .what = ORDER_DRAIN };
	int i, r = 0;

	(void)state;
	for (i = 0; i < 100000 && r == 0; i++)
		r = control_send(channel[0], &o, -1);
	assert_int_equal(r, -1);
	assert_int_equal(errno, EAGAIN);
	close(channel[1]);
	assert_int_equal(control_send(channel[0], &o, -1), -1);
	assert_int_not_equal(errno, EAGAIN);
}

/* The new log gets the number of the old one, as the sandbox requires. */
static void
test_log_moves(void **state)
{
	struct log_state log;
	int fd, was = log_fd(), kept = dup(was);
	struct order o;

	(void)state;
	log_configure(1, LEVEL_INFO);
	o = control_log_order(&fd);
	assert_int_equal(fd, was);
	assert_int_equal(o.what, ORDER_LOG);
	assert_true(o.is_private && o.has_time);
	log_configure(0, LEVEL_INFO);
	fd = memfd_create("another", MFD_CLOEXEC);
	control_apply_log(&o, fd);
	assert_int_equal(log_fd(), was);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	log_get_state(&log);
	assert_true(log.is_private && log.has_time);
	log_info("there");
	assert_non_null(strstr(said(), " info: there\n"));
	/* An order to use syslog is ignored in a sandbox. */
	o.log = -1;
	control_apply_log(&o, -1);
	assert_int_equal(log_fd(), was);
	assert_int_equal(dup3(kept, was, O_CLOEXEC), was);
	close(kept);
	expect_silence();
}

#define TEST(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_orders),
		TEST(test_no_room),
		TEST(test_log_moves),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
