/* Unit tests of shared keys: their file, authentication, and tickets. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../lib/tls_psk.c"

#include <setjmp.h>

#include <cmocka.h>

#define KEY	"00112233445566778899aabbccddeeff"
#define OTHER	"00112233445566778899aabbccddeef0"

static struct tls_config *
load(const char *lines)
{
	struct tls_config *cfg = tls_config_new(TLS_SERVER);
	char text[1024];

	assert_null(tls_init());
	cfg->psks = calloc(PSKS_MAX + 1, sizeof(*cfg->psks));
	snprintf(text, sizeof(text), "%s", lines);
	if (parse_lines(cfg, "psk", text) == 0)
		assert_int_equal(tls_psk_ready(cfg), 0);
	return cfg;
}

static const struct psk *
named(const struct tls_config *cfg, const char *name)
{
	return find(cfg, (const unsigned char *)name, strlen(name));
}

static void
test_lines(void **state)
{
	static const unsigned char key[] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55,
	    0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
	struct tls_config *cfg = load("\n # a comment\n\t; another\r\n  a b:"
	    KEY "  \r\nc:" OTHER);

	(void)state;
	assert_int_equal(cfg->npsks, 2);
	assert_non_null(named(cfg, "a b"));
	assert_int_equal(named(cfg, "a b")->len, sizeof(key));
	assert_memory_equal(named(cfg, "a b")->secret, key, sizeof(key));
	assert_non_null(named(cfg, "c"));
	assert_null(named(cfg, "a"));
	assert_null(named(cfg, "a b "));
	assert_null(named(cfg, ""));
	tls_config_free(cfg);
}

/* The first of several errors is reported, with its line. */
static void
test_errors(void **state)
{
	static const struct {
		const char *lines, *why;
	} bad[] = {
		{ "", "psk: no key in this file" },
		{ "a", "psk:1: no colon" },
		{ "\na:" KEY "\nb:" KEY "0", "psk:3: a key of 33 hexa" },
		{ "a:" KEY "\n:" KEY, "psk:2: the identity is empty" },
		{ "a :" KEY, "psk:1: there is a blank before or after the identity" },
		{ "a:" KEY "x", "psk:1: the key is not hexadecimal" },
		{ "a:" KEY "\na:" OTHER, "psk:2: a second key" },
	};
	struct tls_config *cfg;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cfg = load(bad[i].lines);
		assert_memory_equal(cfg->error, bad[i].why,
		    strlen(bad[i].why));
		assert_null(strstr(cfg->error, KEY));
		tls_config_free(cfg);
	}
	cfg = load("a\nb\nc:" KEY "\nd");
	assert_non_null(strstr(cfg->error, "psk:1: no colon"));
	assert_non_null(strstr(cfg->error, "; 2 more lines are wrong"));
	tls_config_free(cfg);
}

/* Valid only for the same key, as long as that exists and is allowed. */
static void
test_tickets(void **state)
{
	unsigned char packed[PSK_NAME_MAX + PSK_CHECK_SIZE];
	struct tls_config *cfg = load("a:" KEY "\nbc:" KEY);
	size_t i, n = tls_psk_packed_size(2);

	(void)state;
	assert_int_equal(tls_psk_packed_size(0), 0);
	assert_int_equal(n, 2 + PSK_CHECK_SIZE);
	tls_psk_pack(named(cfg, "bc"), packed);
	assert_ptr_equal(tls_psk_unpack(cfg, packed, 2), named(cfg, "bc"));
	for (i = 0; i < n; i++) {
		packed[i] ^= 1;
		assert_null(tls_psk_unpack(cfg, packed, 2));
		packed[i] ^= 1;
	}
	cfg->psks[1].allowed = 0;
	assert_null(tls_psk_unpack(cfg, packed, 2));
	tls_config_free(cfg);
	cfg = load("a:" KEY "\nbc:" OTHER);
	assert_null(tls_psk_unpack(cfg, packed, 2));
	tls_config_free(cfg);
	cfg = load("d:" KEY);
	assert_null(tls_psk_unpack(cfg, packed, 2));
	tls_config_free(cfg);
}

static void
test_rules(void **state)
{
	struct tls_config *cfg = load("a:" KEY "\nb:" KEY);

	(void)state;
	cfg->has_psk = 1;
	assert_int_equal(tls_config_peer(cfg, "psk:b"), 0);
	assert_int_equal(tls_config_peer(cfg, "psk:"), -1);
	assert_int_equal(tls_psk_ready(cfg), 0);
	assert_false(named(cfg, "a")->allowed);
	assert_true(named(cfg, "b")->allowed);
	tls_config_free(cfg);
}

/* Append a field of n bytes. */
static void
test_names(void **state)
{
	unsigned char name[PSK_NAME_MAX + 1];
	unsigned c;

	(void)state;
	memset(name, 'x', sizeof(name));
	assert_null(name_fault(name, PSK_NAME_MAX));
	assert_non_null(name_fault(name, PSK_NAME_MAX + 1));
	assert_non_null(name_fault(name, 0));
	for (c = 0; c < 256; c++) {
		name[1] = (unsigned char)c;
		assert_int_equal(name_fault(name, 3) == NULL,
		    c >= ' ' && c <= '~' && c != ':');
		assert_int_equal(name_fault(name + 1, 2) == NULL,
		    c > ' ' && c <= '~' && strchr("#:;", (int)c) == NULL);
	}
}

/* A hello with two identities, or with other extensions; cut anywhere. */
static void
test_offered(void **state)
{
	static const unsigned char behind_random[] = { 1, 9, 0, 2, 0x13, 1, 1,
	    0, 0, 30, 0, 43, 0, 3, 2, 3, 4, 0, 41, 0, 19, 0, 13, 0, 1, 'a', 0,
	    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0 };
	const size_t len = 34 + sizeof(behind_random);
	unsigned char *p;
	size_t i;

	(void)state;
	for (i = 0; i <= len; i++) {
		assert_non_null(p = malloc(i > 0 ? i : 1));
		memset(p, 0xff, i);
		if (i > 34)
			memcpy(p + 34, behind_random, i - 34);
		assert_int_equal(tls_psk_offered(p, i), i == len ? 2 : 0);
		if (i == len) {
			p[34 + 18] = 42;	/* another extension */
			assert_int_equal(tls_psk_offered(p, i), 0);
		}
		free(p);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_tickets),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_offered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
