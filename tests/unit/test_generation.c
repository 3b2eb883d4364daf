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
	cfg->number[MODE] = MODE_FORK;
	assert_int_equal(count_slots(cfg, 0), 50);
	assert_int_equal(count_slots(cfg, 1), 1);
}

/* A handed-over generation without files has the identity of the process. */
static void
test_user_before_it_is_known(void **state)
{
	const struct arguments a = { .file = NULL };
	const uid_t was = geteuid();
	struct generation *g;

	(void)state;
	if (was == 0)
		assert_int_equal(seteuid(65534), 0);
	assert_non_null(g = generation_new(&a));
	assert_int_equal(generation_user(g).uid, geteuid());
	assert_int_equal(generation_user(g).gid, getegid());
	generation_free(g);
	assert_int_equal(seteuid(was), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_user_before_it_is_known),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
