/* Unit tests of carry: the state that is handed over. */
#include "../../lib/carry.c"

#include "said.h"

/* After a fault on writing, the state and all values are unchanged. */
static void
test_not_to_be_handed_over(void **state)
{
	const struct generation was = { .workers = { .nslots = 2,
	    .deadline = 7 }, .board = { .max = 2, .nrows = 2, .fd = -1,
	    .size = 4096, .secret = 9 } };
	struct handover x = { .reads = 0 };
	struct generation g = was;
	int64_t number = 5;
	int fd = 4, i;

	(void)state;
	for (i = 0; i < 2; i++) {
		carry_generation(&x, NULL, &g);
		assert_string_equal(x.bad, "shared memory is of another size");
		assert_memory_equal(&g, &was, sizeof(g));
		handover_number(&x, &number, 6, 7);
		handover_fd(&x, &fd);
	}
	assert_int_equal(number, 5);
	assert_int_equal(fd, 4);
	assert_int_equal(x.nfds, 0);
	handover_free(&x);
}

/* A child that has exited and is not reaped yet. */
static pid_t
fork_zombie(void)
{
	siginfo_t info;
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_not_equal(pid, -1);
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
	return pid;
}

static void
assert_goes_on(const struct generation *g, const struct generation *was)
{
	const struct slot *slot = &g->workers.slots[1];

	assert_int_equal(g->config.number[DRAIN_TIMEOUT], 5);
	assert_int_equal(g->workers.deadline, 7);
	assert_int_equal(g->workers.nslots, 2);
	assert_int_equal(g->workers.n, 1);
	assert_int_equal(g->workers.slots[0].pid, 0);
	assert_memory_equal(slot, &was->workers.slots[1], sizeof(*slot));
	assert_int_equal(g->board.max, 6);
	assert_int_equal(g->board.nrows, 3);
	assert_int_equal(g->board.secret, was->board.secret);
	assert_int_equal(g->board.counts[2].live, 4);
}

/* A retired generation keeps the deadline of its workers. */
static void
test_generation(void **state)
{
	struct generation was = { .board = SCOREBOARD_NONE };
	struct generation g = { .board = SCOREBOARD_NONE };
	struct handover x = { .reads = 0 }, y;
	pid_t pid = fork_zombie();
	int fd;

	(void)state;
	was.config.number[DRAIN_TIMEOUT] = 5;
	assert_int_equal(scoreboard_new(&was.board, 6, 3, 0), 0);
	was.board.counts[2].live = 4;
	assert_int_equal(workers_new(&was.workers, 2), 0);
	was.workers.slots[1] = (struct slot){ .pid = pid, .control = -1,
	    .row = 2, .released = 1, .drop_at = 8 };
	was.workers.n = 1;
	was.workers.deadline = 7;
	carry_generation(&x, NULL, &was);
	assert_null(x.bad);
	assert_int_not_equal(fd = handover_seal(&x), -1);
	handover_open(&y, fd);
	carry_generation(&y, NULL, &g);
	assert_null(y.bad);
	assert_goes_on(&g, &was);
	waitpid(pid, NULL, 0);
	was.board.fd = -1;		/* the same descriptor as in g */
	scoreboard_free(&was.board);
	scoreboard_free(&g.board);
	workers_free(&was.workers);
	workers_free(&g.workers);
	handover_free(&x);
	handover_free(&y);
	close(fd);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_to_be_handed_over),
		cmocka_unit_test(test_generation),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
