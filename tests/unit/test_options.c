/* Unit tests of the options: the table, and the values. */
#include "../../lib/options.c"

#include "said.h"

static void
test_option_rows(void **state)
{
	size_t i, j, k;
	int64_t number;
	int role;

	(void)state;
	for (i = 0; i < OPTIONS; i++) {
		const struct option *o = &options[i];

		assert_non_null(o->name);
		assert_true(strlen(o->name) > 0 && strlen(o->help) > 0);
		/* Name and help are short. */
		assert_in_range(strlen(o->name), 1, 18);
		assert_in_range(strlen(o->help), 1, 60);
		assert_int_equal(strspn(o->name, "abcdefghijklmnopqrstuvwxyz_"),
		    strlen(o->name));
		for (j = 0; j < i; j++)
			assert_string_not_equal(o->name, options[j].name);
		assert_int_equal(option_find(o->name), i);
		assert_true(o->type != CHOICE || o->choices != NULL);
		assert_true(o->type != TEXT || o->choices == NULL);
		for (j = 0; o->type == CHOICE && o->choices[j] != NULL; j++)
			for (k = 0; k < j; k++)
				assert_string_not_equal(o->choices[j],
				    o->choices[k]);
		assert_true(o->type != CHOICE || j >= 2);
		if (o->type == NUMBER || o->type == TIME) {
			assert_true(o->min >= 0 && o->min < o->max);
			assert_true(o->max <= INT64_MAX / 86400 / 1000);
			assert_non_null(o->fallback);
		} else
			assert_true(o->min == 0 && o->max == 0);
		assert_true(o->type != LIST || o->fallback == NULL);
		if (o->fallback != NULL)
			assert_int_equal(option_number(o, o->fallback,
			    &number), 0);
		for (role = 0; role < 2; role++) {
			const char *text = option_fallback((int)i, role);

			assert_true(text == NULL || (option_number(o, text,
			    &number) == 0 && o->fallback != NULL));
			assert_true(text == NULL ||
			    option_has_effect((int)i, role));
		}
		/* Each option has an effect in some role. */
		assert_true(option_has_effect((int)i, 0) ||
		    option_has_effect((int)i, 1));
	}
	assert_string_equal(option_fallback(VERIFY, 0), "none");
	assert_string_equal(option_fallback(VERIFY, 1), "require");
	assert_null(option_fallback(SNI_STRICT, 1));
	assert_int_equal(option_find("nonsense"), -1);
	assert_int_equal(option_find(""), -1);
	expect_silence();
}

static void
test_parse_time(void **state)
{
	static const char *const bad[] = {
		"", "s", "5", "0s", "0", "-1s", "+1s", " 1s", "1 s", "1S",
		"1ms", "1w", "1s ", "1.5s", "3601s", "61m", "2h", "1d", "Off",
		"off", "offs", "99999999999999999999s", "999999999999999s",
		"9223372036854775807d", "sm", "1sm"
	};
	static const struct { const char *text; int64_t ms; } good[] = {
		{ "1s", 1000 }, { "3600s", 3600000 },
		{ "1m", 60000 }, { "60m", 3600000 }, { "1h", 3600000 },
		{ "00000000001s", 1000 },
	};
	int64_t ms;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++)
		if (parse_time(bad[i], 1, 3600, &ms) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(parse_time(good[i].text, 1, 3600, &ms), 0);
		assert_int_equal(ms, good[i].ms);
	}
	assert_int_equal(parse_time("365d", 1, 31536000, &ms), 0);
	assert_true(ms == INT64_C(31536000000));
	assert_int_equal(parse_time("366d", 1, 31536000, &ms), -1);
}

static void
test_parse_choice(void **state)
{
	static const char *const abc[] = { "a", "bc", "d", NULL };
	int64_t n = 9;

	(void)state;
	assert_int_equal(option_choice("a", abc, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(option_choice("d", abc, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(option_choice("b", abc, &n), -1);
	assert_int_equal(option_choice("bcd", abc, &n), -1);
	assert_int_equal(option_choice("A", abc, &n), -1);
	assert_int_equal(option_choice("", abc, &n), -1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_option_rows),
		cmocka_unit_test(test_parse_time),
		cmocka_unit_test(test_parse_choice),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
