/* Unit tests of lists of suites and groups. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../lib/tls_suites.c"

#include <setjmp.h>

#include <cmocka.h>

/* A name that begins another one in the list is not itself in it. */
static void
test_list_of_names(void **state)
{
	char text[64] = "";

	(void)state;
	list_name(text, sizeof(text), "TLS_CCM_8");
	list_name(text, sizeof(text), "TLS_CCM");
	list_name(text, sizeof(text), "TLS_CCM");
	list_name(text, sizeof(text), "TLS_CCM_8");
	assert_string_equal(text, "TLS_CCM_8:TLS_CCM");
	list_name(text, sizeof("TLS_CCM_8:TLS_CCM:x") - 1, "x");
	assert_string_equal(text, "TLS_CCM_8:TLS_CCM");
	list_name(text, sizeof("TLS_CCM_8:TLS_CCM:x"), "x");
	assert_string_equal(text, "TLS_CCM_8:TLS_CCM:x");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_list_of_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
