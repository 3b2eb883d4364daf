/* Unit tests of workers: slots, back-off, orders. */
#include "../../lib/workers.c"

#include "said.h"

/* A slot is reused as late as possible. */
static void
test_slots_take_turns(void **state)
{
	struct workers ws = { .n = 0 };
	size_t i;

	(void)state;
	assert_int_equal(workers_new(&ws, 3), 0);
	assert_false(workers_are_full(&ws));
	for (i = 0; i < 4; i++)
		assert_int_equal(workers_next(&ws), i % 3);
	ws.slots[1].pid = 7;
	ws.n = 1;
	assert_int_equal(workers_next(&ws), 2);
	assert_ptr_equal(workers_find(&ws, 7), &ws.slots[1]);
	workers_clear(&ws, &ws.slots[1]);
	assert_null(workers_find(&ws, 7));
	assert_int_equal(ws.n, 0);
	workers_free(&ws);
}

/* Retired workers keep the used slots, in their order. */
static void
test_shrunk(void **state)
{
	struct workers ws = { .n = 0 };

	(void)state;
	assert_int_equal(workers_new(&ws, 4), 0);
	ws.slots[1].pid = 11;
	ws.slots[1].row = 1;
	ws.slots[3].pid = 13;
	ws.slots[3].row = 3;
	workers_shrink(&ws);
	assert_int_equal(ws.nslots, 2);
	assert_int_equal(ws.slots[0].pid, 11);
	assert_int_equal(ws.slots[1].pid, 13);
	assert_int_equal(ws.slots[1].row, 3);
	workers_free(&ws);
}

/* A crash loop is slowed down; a single crash is not. */
static void
test_backoff(void **state)
{
	struct workers ws = { .n = 0 };
	int64_t before = clock_ms(), ms, last = 0;
	int i;

	(void)state;
	assert_int_equal(workers_failed(&ws), 0);
	ws.retry_at = before;
	assert_int_equal(workers_failed(&ws), RETRY_MS);
	/* Further failures meanwhile count as the same. */
	assert_in_range(workers_failed(&ws), 1, RETRY_MS);
	assert_int_equal(ws.failures, 2);
	for (i = 0; i < 100; i++) {
		ws.retry_at = before;
		ms = workers_failed(&ws);
		assert_in_range(ms, last, RETRY_MAX_MS);
		assert_true(ms > last || ms == RETRY_MAX_MS);
		assert_true(ws.retry_at >= before + ms);
		last = ms;
	}
	assert_int_equal(last, RETRY_MAX_MS);
	ws.retry_at = before - HEALTHY_MS;
	assert_int_equal(workers_failed(&ws), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots_take_turns),
		cmocka_unit_test(test_shrunk),
		cmocka_unit_test(test_backoff),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
