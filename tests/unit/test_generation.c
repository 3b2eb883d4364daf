/* Unit tests of a generation: how many slots it has. */
#include "../../lib/generation.c"

#include "said.h"

static void
test_slots(void **state)
{
	struct config defaults = { .sections = 0 }, *cfg = &defaults;

	(void)state;
	config_defaults(cfg);
	cfg->number[MAX_CONNECTIONS] = 50;
	assert_int_equal(count_slots(cfg, 0), 1);
	cfg->number[WORKERS] = 0;
	assert_in_range(count_slots(cfg, 0), 1, 50);
	cfg->number[WORKERS] = 7;
	assert_int_equal(count_slots(cfg, 0), 7);
	assert_int_equal(count_slots(cfg, 1), 1);
	cfg->number[MODE] = FORK;
	assert_int_equal(count_slots(cfg, 0), 50);
	assert_int_equal(count_slots(cfg, 1), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
