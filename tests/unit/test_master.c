/* Unit tests of the master: what it does once a day. */
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_daily_warning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
