/* Unit tests of hints: misspelt words, and settings of stunnel. */
#include "../../lib/hints.c"

#include "said.h"

/*
 * Check that each key in a hint exists: "tls_min and tls_max", "daemon, ...".
 */
static void
check_hint(const char *hint)
{
	char copy[64], *word, *rest;
	int is_key = 1;

	snprintf(copy, sizeof(copy), "%s", hint);
	for (word = strtok_r(copy, " ,", &rest); word != NULL;
	    word = strtok_r(NULL, " ,", &rest)) {
		if (is_key && option_find(word) == -1)
			fail_msg("there is no %s", word);
		is_key = strcmp(word, "and") == 0;
	}
}

/* Hints name existing keys; keys of stunnel are not keys here. */
static void
test_stunnel_hints(void **state)
{
	char text[128];
	struct hint h;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(stunnel); i++) {
		assert_int_equal(option_find(stunnel[i].name), -1);
		hint_key(stunnel[i].name, "1", &h);
		snprintf(text, sizeof(text), "stunnel's %s",
		    stunnel[i].name);
		assert_ptr_equal(strstr(h.text, text), h.text);
		if (stunnel[i].ours != NULL)
			check_hint(stunnel[i].ours);
	}
	hint_key("timeoutIDLE", "3", &h);
	assert_non_null(strstr(h.text, "\"idle_timeout\" here"));
	assert_string_equal(h.about, "idle_timeout");
	hint_key("checkHost", "a.example", &h);
	assert_non_null(strstr(h.text, ": peer = dns:a.example; "));
	hint_key("SNI", "imaps:*.example", &h);
	assert_non_null(strstr(h.text, "repeat cert"));
	assert_null(h.about);
	hint_key("sni", "a.example", &h);
	assert_non_null(strstr(h.text, ": server_name = a.example, "));
	hint_key("sni", "", &h);
	assert_non_null(strstr(h.text, ": server_name = off"));
	hint_key("acept", "3", &h);
	assert_string_equal(h.text, "did you mean \"accept\"?");
	assert_string_equal(h.about, "accept");
	assert_null(h.covers);
}

/* A letter is added, missing or wrong, or two are swapped. */
static void
test_distance(void **state)
{
	static const struct { const char *a, *b; size_t n; } pairs[] = {
		{ "", "", 0 }, { "a", "", 1 }, { "", "abc", 3 },
		{ "connect", "connect", 0 }, { "conect", "connect", 1 },
		{ "connnect", "connect", 1 }, { "cunnect", "connect", 1 },
		{ "conncet", "connect", 1 }, { "acb", "abc", 1 },
		{ "ca", "abc", 3 }, { "kitten", "sitting", 3 },
	};
	static const struct { const char *name; int option; } near[] = {
		{ "conect", CONNECT }, { "idle-timeout", IDLE_TIMEOUT },
		{ "idle timeout", IDLE_TIMEOUT }, { "Accept", ACCEPT },
		{ "IdleTimeout", IDLE_TIMEOUT }, { "certificate", CERT },
		{ "CA", CA }, { "cat", -1 }, { "", -1 }, { "_", -1 },
		{ "colour", -1 }, { "ticket_key", TICKET_KEYS },
		{ "a very long name of a key that nobody has", -1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(pairs); i++) {
		assert_int_equal(distance(pairs[i].a, pairs[i].b), pairs[i].n);
		assert_int_equal(distance(pairs[i].b, pairs[i].a), pairs[i].n);
	}
	for (i = 0; i < LEN(near); i++)
		if (hint_option(near[i].name) != near[i].option)
			fail_msg("%s: %d", near[i].name,
			    hint_option(near[i].name));
	assert_string_equal(choice_near(options[TRUNCATION].choices, "EOF"),
	    "eof");
	assert_string_equal(choice_near(option_no_yes, "true"), "yes");
	assert_string_equal(choice_near(option_no_yes, "0"), "no");
	assert_null(choice_near(options[MODE].choices, "threads"));
	assert_null(choice_near(NULL, "x"));
}

/* A file name is not a misspelt word if it has a directory or a suffix. */
static void
test_log_values(void **state)
{
	static const char *const files[] = {
		"/var/log/tunnel", "./sylog", "syslog.txt", "tunnel", "log",
		"mylog", "stderr", "syslog", ""
	}, *const words[] = {
		"sylog", "Syslog", "SYSLOG", "syslogs", "stderr2", "Stderr",
		"std-err", "stdout", "StdOut"
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(files); i++)
		assert_null(hint_wrong_value(&options[LOG], files[i]));
	for (i = 0; i < LEN(words); i++)
		assert_non_null(hint_wrong_value(&options[LOG], words[i]));
	assert_null(hint_wrong_value(&options[PIDFILE], "sylog"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_distance),
		cmocka_unit_test(test_log_values),
		cmocka_unit_test(test_stunnel_hints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
