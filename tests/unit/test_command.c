/* Unit tests of command, which is included for its static functions. */
#include "../../lib/command.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Open the stream of a command that exited or was killed before the header. */
static int
open_to_the_dead(int killed_by)
{
	static const unsigned char header[16];
	struct command command = { .exited = 1, .signal = killed_by, .end = -1,
	    .header = header, .nheader = sizeof(header) };
	struct stream s = { .ops = &command_ops, .ctx = &command };
	int fds[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0,
	    fds), 0);
	close(fds[1]);
	s.fd = fds[0];
	r = s.ops->open(&s);
	close(fds[0]);
	return r;
}

static void
test_command_that_is_not_told(void **state)
{
	(void)state;
	assert_int_equal(open_to_the_dead(0), 0);
	assert_int_equal(open_to_the_dead(SIGKILL), STREAM_RESET);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_command_that_is_not_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
