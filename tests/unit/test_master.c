/* Unit tests of the master: when it does what. */
#include "../../lib/master.c"

#include "said.h"

static void
test_daily_warning(void **state)
{
	struct generation g = { .tls = tls_config_new() };
	struct master m = { .live = &g };
	const int64_t day = DAY * INT64_C(1000);

	(void)state;
	assert_non_null(g.tls);
	master_warn_daily(&m);
	assert_in_range(m.warn_at - clock_ms(), day - 10000, day);
	tls_config_free(g.tls);
}

/* Never, unless there are names, and an interval, and more to come. */
static void
test_lookups(void **state)
{
	static const struct { int64_t every; size_t n; int stops, is_due; }
	cases[] = {
		{ 60000, 1, 0, 1 }, { 60000, 0, 0, 0 }, { 0, 1, 0, 0 },
		{ 60000, 1, 1, 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(cases); i++) {
		struct generation g = { .names.n = cases[i].n };
		struct master m = { .live = &g, .stopping = cases[i].stops };

		g.config.number[RESOLVE_INTERVAL] = cases[i].every;
		master_begin_resolving(&m);
		if (!cases[i].is_due)
			assert_true(master_resolve_due(&m) == INT64_MAX);
		else
			assert_in_range(master_resolve_due(&m) - clock_ms(),
			    cases[i].every - 10000, cases[i].every);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_daily_warning),
		cmocka_unit_test(test_lookups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
