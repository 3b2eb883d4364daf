/* Unit tests of the names in certificates. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../lib/tls_names.c"

#include <setjmp.h>

#include <cmocka.h>

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

static void
test_covers(void **state)
{
	static const struct {
		const char *pattern, *name;
		int	 covers;
	} rows[] = {
		{ "example.org", "example.org", 1 },
		{ "example.org", "EXAMPLE.ORG", 1 },
		{ "example.org", "xexample.org", 0 },
		{ "example.org", "example.or", 0 },
		{ "", "example.org", 0 },
		{ "*.example.org", "a.example.org", 1 },
		{ "*.example.org", "A.Example.Org", 1 },
		{ "*.example.org", "xn--a.example.org", 1 },
		{ "*.example.org", "a_b.example.org", 0 },
		{ "*.example.org", "a.b.example.org", 0 },
		{ "*.example.org", "example.org", 0 },
		{ "*.example.org", ".example.org", 0 },
		{ "*.org", "example.org", 0 },
		{ "*.org.", "example.org", 0 },
		{ "*.", "example", 0 },
		{ "*", "example", 0 },
		{ "**.example.org", "a.example.org", 0 },
		{ "a*.example.org", "ab.example.org", 0 },
		{ "a.*.org", "a.example.org", 0 },
		{ "*.*.org", "a.example.org", 0 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(rows); i++)
		assert_int_equal(tls_names_covers(rows[i].pattern,
		    strlen(rows[i].pattern), rows[i].name), rows[i].covers);
	/* A zero byte ends no name in a certificate. */
	assert_int_equal(tls_names_covers("a.org\0.net", 10, "a.org"), 0);
	assert_int_equal(tls_names_covers("*.a.org\0x", 9, "b.a.org"), 0);
}

static void
test_addresses(void **state)
{
	unsigned char b[16];

	(void)state;
	assert_int_equal(tls_names_address("192.0.2.1", b), 4);
	assert_int_equal(b[3], 1);
	assert_int_equal(tls_names_address("2001:db8::2", b), 16);
	assert_int_equal(b[15], 2);
	assert_int_equal(tls_names_address("fe80::3%eth0", b), 16);
	assert_int_equal(b[15], 3);
	assert_int_equal(tls_names_address("192.0.2.1%eth0", b), 0);
	assert_int_equal(tls_names_address("192.0.2", b), 0);
	assert_int_equal(tls_names_address("0000:0000:0000:0000:0000:ffff:"
	    "192.168.100.200", b), 16);
	assert_int_equal(tls_names_address("0000:0000:0000:0000:0000:ffff:"
	    "192.168.100.200.example.org", b), 0);
	assert_int_equal(tls_names_address("example.org", b), 0);
	assert_int_equal(tls_names_address("", b), 0);
}

static void
test_names_to_verify(void **state)
{
	char name[NAME_SIZE + 1];

	(void)state;
	assert_true(tls_is_name("example.org"));
	assert_true(tls_is_name("example.org."));
	assert_true(tls_is_name("my_app"));
	assert_true(tls_is_name("::1"));
	assert_false(tls_is_name(""));
	assert_false(tls_is_name("*.example.org"));
	assert_false(tls_is_name("b\303\274cher.example"));
	assert_false(tls_is_name("a b"));
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_false(tls_is_name(name));
}

/* A list is limited in length, and escaped. */
static void
test_list(void **state)
{
	char text[64];
	struct list l = { .text = { text, sizeof(text), 0 } };
	int i;

	(void)state;
	list_name(&l, MBEDTLS_X509_SAN_IP_ADDRESS, "\300\0\002\001", 4);
	list_name(&l, MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER, "u", 1);
	list_name(&l, MBEDTLS_X509_SAN_DNS_NAME, "a\033[1m\0b", 7);
	assert_string_equal(text, "192.0.2.1, a\\x1b[1m\\x00...");
	for (i = 2; i < LISTED; i++)
		assert_int_equal(list_name(&l, MBEDTLS_X509_SAN_DNS_NAME, "b",
		    1), 0);
	assert_int_equal(list_name(&l, MBEDTLS_X509_SAN_DNS_NAME, "c", 1), 1);
	assert_string_equal(text, "192.0.2.1, a\\x1b[1m\\x00..., b, b, b, b, "
	    "b, b, ...");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_covers),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_names_to_verify),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
