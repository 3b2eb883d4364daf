/*
 * Unit tests of the program: tunnel.c is included, to reach what is static.
 */
#define main tunnel_main
#include "../../tunnel.c"
#undef main

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "said.h"

static int
setup(void **state)
{
	static struct config cfg;

	memset(&cfg, 0, sizeof(cfg));
	config_defaults(&cfg);
	*state = &cfg;
	said_reset();
	return 0;
}

static int
teardown(void **state)
{
	config_free(*state);
	return 0;
}

static void
test_exit_code(void **state)
{
	static const struct { char *argument; const char *part; } bad[] = {
		{ "nonsense=1", "unknown key" },
		{ "accept=1", "missing: cert" },
		{ "-c/nonexistent/file", "/nonexistent/file: " },
	};
	char *argv[3] = { "tunnel", NULL, NULL };
	int log = dup(log_fd()), standard = dup(STDERR_FILENO);
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		argv[1] = bad[i].argument;
		optind = 1;
		log_to(dup2(log, STDERR_FILENO), -1);
		assert_int_equal(tunnel_main(2, argv), EXIT_CONFIG);
		assert_int_equal(log_fd(), STDERR_FILENO);
		expect_among("", bad[i].part);
	}
	log_to(log, -1);
	dup2(standard, STDERR_FILENO);
	close(standard);
}

/*
 * mode = fork: a worker may have been asked to make room too early by its own
 * clock, if it was slow to start.
 */
static void
test_asked_again(void **state)
{
	struct counts counts = { .live = 1 };
	struct slot slot = { .control = -1 };
	struct generation g = { .workers = { .slots = &slot, .nslots = 1,
	    .n = 1 },
	    .board = { .counts = &counts } };
	struct master m = { .live = &g };
	const struct timespec limit = { .tv_sec = 3 };
	int64_t until = clock_ms() + 10000;
	int line[2], fd, i;
	struct order o;
	sigset_t set;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line), 0);
	slot.control = line[0];
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if ((slot.pid = fork()) == 0) {
		for (i = 0; i < 2; i++)
			if (sigtimedwait(&set, NULL, &limit) != SIGHUP ||
			    control_receive(line[1], &o, &fd) == -1 ||
			    o.what != ORDER_MAKE_ROOM)
				_exit(1);
		_exit(0);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	while (waitpid(slot.pid, &i, WNOHANG) == 0 && clock_ms() < until) {
		ask_for_room(&m);
		poll(NULL, 0, 10);
	}
	assert_true(WIFEXITED(i) && WEXITSTATUS(i) == 0);
	close(line[0]);
	close(line[1]);
}

/* And the next day again. */
static void
test_daily_warning(void **state)
{
	struct generation g = { .tls = tls_config_new() };
	struct master m = { .live = &g };
	const int64_t day = DAY * INT64_C(1000);

	(void)state;
	assert_non_null(g.tls);
	warn_daily(&m);
	assert_in_range(m.warn_at - clock_ms(), day - 10000, day);
	tls_config_free(g.tls);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_exit_code),
		TEST(test_asked_again),
		TEST(test_daily_warning),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
