/* Unit tests of the master: the times of its actions. */
#include "../../lib/master.c"

#include "said.h"

static void
test_daily_warning(void **state)
{
	struct generation g = { .tls = tls_config_new(TLS_SERVER) };
	struct master m = { .live = &g };
	const int64_t day = DAY * INT64_C(1000);

	(void)state;
	assert_non_null(g.tls);
	master_warn_daily(&m);
	assert_in_range(m.warn_at - clock_ms(), day - 10000, day);
	tls_config_free(g.tls);
}

/* Names are looked up again only with an interval, and not at a stop. */
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

/* Compare the ticket keys in shared memory, the only random data there. */
static void
assert_same_keys(const struct generation *a, const struct generation *b)
{
	const struct tls_sessions_memory *of[] = {
	    tls_sessions_memory(a->sessions), tls_sessions_memory(b->sessions) };
	unsigned char keys[2][4096];
	size_t i;

	for (i = 0; i < 2; i++) {
		assert_in_range(of[i]->size, 64, sizeof(keys[i]));
		assert_int_equal(pread(of[i]->fd, keys[i], of[i]->size, 0),
		    of[i]->size);
		/* Skip the counter of changes, which differs. */
		memset(keys[i], 0, sizeof(unsigned));
	}
	assert_memory_equal(keys[0], keys[1], of[0]->size);
}

/* A reload that waits for names takes over the keys at its end. */
static void
test_keys_that_change_meanwhile(void **state)
{
	struct generation g[2] = { { .config.number[TICKET_LIFETIME] = 2000 },
	    { .config.number[TICKET_LIFETIME] = 2000 } };
	struct master m = { .live = &g[0] };
	int i;

	(void)state;
	assert_null(tls_init());
	for (i = 0; i < 2; i++) {
		assert_non_null(g[i].tls = tls_config_new(TLS_SERVER));
		g[i].sessions = tls_sessions_new(0,
		    (enum tls_sessions_kind)i, 1);
		assert_non_null(g[i].sessions);
		tls_config_sessions(g[i].tls, g[i].sessions, 1, 2);
	}
	for (i = 0; i < 3; i++)
		assert_int_equal(master_renew_keys(&m), 0);
	m.live = &g[1];
	take_over_keys(&m, &g[0]);
	assert_same_keys(&g[0], &g[1]);
	for (i = 0; i < 2; i++) {
		tls_config_free(g[i].tls);
		tls_sessions_free(g[i].sessions);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_daily_warning),
		cmocka_unit_test(test_lookups),
		cmocka_unit_test(test_keys_that_change_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
