/* Unit tests of the poller, over real sockets. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cmocka.h>

#define CHECK	assert_true
#include "sockets.h"

static int fails;		/* number of system calls or realloc() to fail */

#ifdef POLLER_POLL
static void *
fake_realloc(void *p, size_t size)
{
	if (fails > 0) {
		fails--;
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, size);
}
#define realloc		fake_realloc
#else
#include <sys/epoll.h>

static int
fake_epoll_ctl(int fd, int op, int what, struct epoll_event *ev)
{
	if (fails > 0 && op != EPOLL_CTL_DEL) {
		fails--;
		errno = ENOMEM;
		return -1;
	}
	return epoll_ctl(fd, op, what, ev);
}
#define epoll_ctl	fake_epoll_ctl
#endif
#include "../../lib/poller.c"
#undef realloc
#undef epoll_ctl

#define POLLED	40

static struct poller *poller;
static struct source polled[POLLED];
static short reported[POLLED];
static int far_ends[POLLED];

/* Expect exactly these events, one for each source. */
static void
expect_reports(const short *expected)
{
	struct source *s;
	int i, n = 0, ready;
	short revents;

	memset(reported, 0, sizeof(reported));
	ready = poller_wait(poller, 0, NULL);
	for (; (s = poller_next(poller, &revents)) != NULL; n++) {
		i = *(int *)s->owner;
		assert_ptr_equal(s, &polled[i]);
		assert_int_equal(reported[i], 0);
		reported[i] = revents;
	}
	assert_int_equal(n, ready);
	for (i = 0; i < POLLED; i++)
		assert_int_equal(reported[i], expected[i]);
}

static void
drop_and_expect(int i, short *expected)
{
	poller_drop(poller, &polled[i]);
	poller_drop(poller, &polled[i]);
	assert_false(polled[i].is_watched);
	expected[i] = 0;
	expect_reports(expected);
}

static void
watch(int i, short events)
{
	assert_int_equal(poller_watch(poller, &polled[i], events), 0);
}

static void
say_to(int fd)
{
	assert_int_equal(send(fd, "x", 1, 0), 1);
}

static int
setup(void **state)
{
	static int numbers[POLLED];
	int i, fds[2];

	(void)state;
	assert_non_null(poller = poller_new());
	memset(polled, 0, sizeof(polled));
	for (i = 0; i < POLLED; i++) {
		unix_pair(fds);
		numbers[i] = i;
		polled[i].owner = &numbers[i];
		polled[i].fd = fds[0];
		far_ends[i] = fds[1];
		watch(i, POLLIN);
	}
	return 0;
}

static int
teardown(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < POLLED; i++) {
		poller_drop(poller, &polled[i]);
		close(polled[i].fd);
		close(far_ends[i]);
	}
	poller_free(poller);
	return 0;
}

static void
test_reports(void **state)
{
	short expected[POLLED] = { 0 };
	int i;

	(void)state;
	expect_reports(expected);
	for (i = 0; i < POLLED; i += 3) {
		say_to(far_ends[i]);
		expected[i] = POLLIN;
	}
	expect_reports(expected);
	/* Drop the first, the last and one between: others keep their slots. */
	drop_and_expect(0, expected);
	drop_and_expect(POLLED - 1, expected);
	drop_and_expect(21, expected);
	watch(21, POLLIN | POLLOUT);
	expected[21] = POLLIN | POLLOUT;
	watch(3, POLLOUT);
	expected[3] = POLLOUT;
	watch(6, 0);
	expected[6] = 0;
	expect_reports(expected);
	/* A hang-up is always reported. */
	shutdown(far_ends[6], SHUT_RDWR);
	expected[6] = POLLHUP;
	expect_reports(expected);
	for (i = 0; i < POLLED; i++)
		poller_drop(poller, &polled[i]);
	memset(expected, 0, sizeof(expected));
	expect_reports(expected);
}

/* Each ready source is reported once, also if it is dropped then. */
static void
test_drop_while_reported(void **state)
{
	struct source *s;
	short revents;
	int i, n = 0;

	(void)state;
	for (i = 0; i < POLLED; i += 2)
		say_to(far_ends[i]);
	assert_int_equal(poller_wait(poller, -1, NULL), POLLED / 2);
	for (; (s = poller_next(poller, &revents)) != NULL; n++) {
		assert_true(s->is_watched);
		assert_int_equal(*(int *)s->owner % 2, 0);
		poller_drop(poller, s);
	}
	assert_int_equal(n, POLLED / 2);
	assert_int_equal(poller_wait(poller, 0, NULL), 0);
	assert_null(poller_next(poller, &revents));
}

/* A closed source is not reported, also if another process has it open. */
static void
test_close(void **state)
{
	short expected[POLLED] = { 0 };
	int held = dup(polled[0].fd);

	(void)state;
	watch(0, POLLIN);
	say_to(far_ends[0]);
	poller_close(poller, &polled[0]);
	assert_int_equal(fcntl(polled[0].fd, F_GETFD), -1);
	assert_false(polled[0].is_watched);
	expect_reports(expected);
	close(held);
}

static void
test_no_memory(void **state)
{
	short revents;
	int i;

	(void)state;
	/* An existing table has room without new memory. */
	for (i = 0; i < POLLED; i++)
		poller_drop(poller, &polled[i]);
	poller_free(poller);
	assert_non_null(poller = poller_new());
	fails = 1;
	assert_int_equal(poller_watch(poller, &polled[0], POLLIN), -1);
	assert_int_equal(errno, ENOMEM);
	assert_false(polled[0].is_watched);
	watch(0, POLLIN);
	say_to(far_ends[0]);
	assert_int_equal(poller_wait(poller, 0, NULL), 1);
	assert_ptr_equal(poller_next(poller, &revents), &polled[0]);
	assert_int_equal(revents, POLLIN);
}

static void
on_usr1(int sig)
{
	(void)sig;
}

/* A pending signal is delivered, and ends the sleep. */
static void
test_signal(void **state)
{
	sigset_t usr1, none;
	short revents;

	(void)state;
	signal(SIGUSR1, on_usr1);
	sigemptyset(&none);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	raise(SIGUSR1);
	assert_int_equal(poller_wait(poller, -1, &none), -1);
	assert_int_equal(errno, EINTR);
	assert_null(poller_next(poller, &revents));
	sigprocmask(SIG_UNBLOCK, &usr1, NULL);
}

/* More sources than RLIMIT_NOFILE: poll(2) fails, epoll does not. */
static void
test_past_the_limit(void **state)
{
	struct rlimit before, low;
	short revents;
	int error, n;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	low = before;
	low.rlim_cur = POLLED - 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	n = poller_wait(poller, 0, NULL);
	error = errno;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	if (strcmp(poller_name, "poll") == 0) {
		assert_int_equal(n, -1);
		assert_int_equal(error, EMFILE);
	} else
		assert_int_equal(n, 0);
	assert_null(poller_next(poller, &revents));
}

static void
test_name(void **state)
{
	(void)state;
#ifdef POLLER_POLL
	assert_string_equal(poller_name, "poll");
#else
	assert_string_equal(poller_name, "epoll");
#endif
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reports),
		TEST(test_drop_while_reported),
		TEST(test_close),
		TEST(test_no_memory),
		TEST(test_signal),
		TEST(test_past_the_limit),
		cmocka_unit_test(test_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
