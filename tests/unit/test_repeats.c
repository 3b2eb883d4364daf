/* Unit tests of repeated log lines. */
#include "../../lib/repeats.c"

#include "keys.h"
#include "said.h"

static void
refuse(struct repeats *r, const char *address, const char *reason, int times)
{
	while (times-- > 0)
		if (repeats_may_log(r, LEVEL_NOTICE, key_of(address),
		    reason))
			log_notice("%s %s", address, reason);
}

static void
test_repeats(void **state)
{
	struct repeats r = { .period = { .began = 0 } };
	const char *text;

	(void)state;
	refuse(&r, "192.0.2.1", "not TLS: \"GET\"", 4);
	refuse(&r, "192.0.2.1", "not TLS: \"PUT\"", 1000);
	refuse(&r, "192.0.2.1", "handshake timeout", 6);
	refuse(&r, "192.0.2.2", "not TLS: \"GET\"", 5);
	refuse(&r, "2001:db8::1", "handshake timeout", 3);
	refuse(&r, "2001:db8::2", "handshake timeout", 3);
	text = said();
	assert_int_equal(times_said(text, "192.0.2.1 not TLS"), REPEATS);
	assert_int_equal(times_said(text, "\n"), 4 * REPEATS);
	/* Until the end of the period, nothing is logged. */
	repeats_end(&r, 0);
	assert_string_equal(said(), "");
	assert_in_range(repeats_until(&r, clock_ms()) - clock_ms(), 1,
	    REPEATS_MS);
	r.period.began -= REPEATS_MS;
	repeats_end(&r, 0);
	assert_string_equal(said(),
	    "tunnel: 192.0.2.1: and 999 more in 10 s: not TLS: \"GET\"\n"
	    "tunnel: 192.0.2.1: and 1 more in 10 s: handshake timeout\n"
	    "tunnel: 2001:db8::/64: and 1 more in 10 s: handshake timeout\n");
	assert_true(repeats_until(&r, clock_ms()) == INT64_MAX);
	/* The next period. */
	refuse(&r, "192.0.2.1", "handshake timeout", 6);
	assert_int_equal(times_said(said(), "192.0.2.1 handshake"), REPEATS);
	repeats_end(&r, 1);
	assert_int_equal(times_said(said(), ": and 1 more in 0 s: "), 1);
}

/* Many addresses fill neither the memory nor the log. */
static void
test_repeats_in_sum(void **state)
{
	struct repeats r = { .period = { .began = 0 } };
	const char *text;
	int i;

	(void)state;
	for (i = 0; i < 1000; i++) {
		char address[32];

		snprintf(address, sizeof(address), "192.0.%d.%d", i / 250,
		    i % 250);
		refuse(&r, address, "handshake timeout", 2);
	}
	assert_int_equal(times_said(said(), "\n"), REPEATS_ALL);
	repeats_end(&r, 1);
	text = said();
	assert_int_equal(times_said(text, "\n"), 1);
	assert_int_equal(times_said(text, "other addresses: and 1900 more"),
	    1);
}

/* At debug level, all lines are logged. */
static void
test_repeats_for_debug(void **state)
{
	struct repeats r = { .period = { .began = 0 } };

	(void)state;
	log_configure(0, LEVEL_DEBUG);
	refuse(&r, "192.0.2.1", "handshake timeout", 50);
	log_configure(0, LEVEL_INFO);
	assert_int_equal(times_said(said(), "\n"), 50);
	/* Lines below the level are not counted. */
	log_configure(0, LEVEL_WARNING);
	refuse(&r, "192.0.2.1", "handshake timeout", 50);
	log_configure(0, LEVEL_INFO);
	repeats_end(&r, 1);
	assert_string_equal(said(), "");
}

/* Memory written by a malicious worker does no harm. */
static void
test_repeats_spoilt(void **state)
{
	struct repeats r = { .period = { .began = 0 } };

	(void)state;
	/* A period that never ends would hide all lines. */
	memset(&r.period, 0x7f, sizeof(r.period));
	refuse(&r, "192.0.2.1", "handshake timeout", 1);
	assert_int_equal(times_said(said(), "192.0.2.1 handshake timeout"), 1);
	memset(&r.period, 0xff, sizeof(r.period));
	repeats_end(&r, 0);
	said();
	refuse(&r, "192.0.2.1", "handshake timeout", 1);
	assert_int_equal(times_said(said(), "192.0.2.1 handshake timeout"), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repeats),
		cmocka_unit_test(test_repeats_in_sum),
		cmocka_unit_test(test_repeats_for_debug),
		cmocka_unit_test(test_repeats_spoilt),
	};

	if (said_init() == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
