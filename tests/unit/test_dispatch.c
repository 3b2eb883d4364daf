/* Unit tests of dispatch: a worker for each connection. */
#include "../../lib/dispatch.c"

#include <signal.h>
#include <sys/wait.h>

#include "said.h"

/*
 * Repeat the order to make room: for a worker that started slowly, the first
 * one came before FORWARD_DROP_MS by its own clock.
 */
static void
test_asked_again(void **state)
{
	struct counts counts = { .live = 1 };
	struct slot slot = { .control = -1 };
	struct generation g = { .workers = { .slots = &slot, .nslots = 1,
	    .n = 1 }, .board = { .counts = &counts } };
	struct dispatch d = { .waiting = { .fd = -1 } };
	const struct timespec limit = { .tv_sec = 3 };
	int64_t until = clock_ms() + 10000;
	int channel[2], fd, i;
	struct order o;
	sigset_t set;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel), 0);
	slot.control = channel[0];
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if ((slot.pid = fork()) == 0) {
		for (i = 0; i < 2; i++)
			if (sigtimedwait(&set, NULL, &limit) != SIGHUP ||
			    control_receive(channel[1], &o, &fd) == -1 ||
			    o.what != ORDER_MAKE_ROOM)
				_exit(1);
		_exit(0);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	while (waitpid(slot.pid, &i, WNOHANG) == 0 && clock_ms() < until) {
		ask_for_room(&d, &g);
		poll(NULL, 0, 10);
	}
	assert_true(WIFEXITED(i) && WEXITSTATUS(i) == 0);
	close(channel[0]);
	close(channel[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asked_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
