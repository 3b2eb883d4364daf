/* Unit tests of tunnel.c, which is included for its static functions. */
#define main tunnel_main
#include "../../tunnel.c"
#undef main

#include "said.h"

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exit_code),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
