/* Unit tests of state that is handed over. */
#include "../../lib/carry.c"

#include "said.h"

/* All that is there goes on, and so must be as it was. */
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


int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_not_to_be_handed_over),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
