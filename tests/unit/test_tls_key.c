/* Unit tests of private keys: their match with the certificate. */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS	/* the factor that blinds RSA */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../lib/tls_key.c"

#include <setjmp.h>

#include <cmocka.h>

/* RSA, 1024 bits, of nobody. */
static const char pair[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAMEJg4zSXKuO4pUi\n"
    "6uCLUbvbjC+hB9lyC+mxKdNPhNz6GrrN2Qjmasfx1zFKc7hwlmKfgGwIF4sAEK4S\n"
    "z2q4wQF4L5JIbYeBIG4bnhammElk8aCkI/JG91DNUSd6CEz6ywc2pqw1wwI7Vt/O\n"
    "WI59s2iQDtJZ4+4p9RCNlPMKnlOZAgMBAAECgYEAo7HEq2tMCHN/c0aL9ORP6EUS\n"
    "SOV+OYf70C1bMYUyPw2cEyMyU9jJXkqX2IWxQgu/i1yE05e9FzNz8Zmj6HVJvNKh\n"
    "WoBKiRR1VS4yePUGvVnGPbIpriGZLg/zKqH3AKx5rR+Giji8Ub8v7XYiAfuz13bB\n"
    "KJK9y+tPMmibXNbHy60CQQDrXyA9DQJNOHazprCcz/SWdXJTRHJLmIwDTUy4P8Ol\n"
    "brAPJmjQcuQShhONwU0ccDI8bemHU8sLlB8Fj0f/V0c/AkEA0fSPGA27jIf3Y83H\n"
    "dzMQbCGhiJvNl/oK2gfJIw2yzEXi2xw5D/ab3rpcnJLZ5Oearb67/AFH5USl0le4\n"
    "PHBHJwJABB2juK2TjrogCUAu8m8IfeEL4Lzfqsa+HAisAMTMrQXkej9Xsd1wc4p4\n"
    "qQ/qQ0cK+deKL92dPVSXvkclISfrjQJAYAdCV5cYW/toTG63N67UaRCsyEWysDs+\n"
    "MWD0PyMpz0J7swnik4mQ2ztT1o1YOdkwpx0g7+9KCfPvABj8/C/CawJBAKQCE5vD\n"
    "Ih2nR1+vQBLwdlqOZTSnMZfD+UPAtYY6sXGWjdaaLbw8kVkx1CKDqI9f30Ma1krr\n"
    "l/yt4PLoWzLJ2L0=\n"
    "-----END PRIVATE KEY-----\n";

static const char public[] =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDBCYOM0lyrjuKVIurgi1G724wv\n"
    "oQfZcgvpsSnTT4Tc+hq6zdkI5mrH8dcxSnO4cJZin4BsCBeLABCuEs9quMEBeC+S\n"
    "SG2HgSBuG54WpphJZPGgpCPyRvdQzVEneghM+ssHNqasNcMCO1bfzliOfbNokA7S\n"
    "WePuKfUQjZTzCp5TmQIDAQAB\n"
    "-----END PUBLIC KEY-----\n";

/*
 * RSA is blinded by a random factor, which is chosen at the first signature and
 * squared at others.  Processes that are forked with one have the same one.
 */
static void
test_no_blinding_yet(void **state)
{
	struct cert c = { .next = NULL };

	(void)state;
	assert_int_equal(psa_crypto_init(), PSA_SUCCESS);
	mbedtls_pk_init(&c.key);
	mbedtls_pk_init(&c.chain.pk);
	assert_int_equal(mbedtls_pk_parse_key(&c.key,
	    (const unsigned char *)pair, sizeof(pair), NULL, 0), 0);
	assert_int_equal(mbedtls_pk_parse_public_key(&c.chain.pk,
	    (const unsigned char *)public, sizeof(public)), 0);
	assert_int_equal(tls_key_matches(&c), 1);
	assert_int_equal(tls_key_prepare(&c), 0);
#if MBEDTLS_VERSION_MAJOR < 4	/* later ones have no room for the factor */
	assert_null(mbedtls_pk_rsa(c.key)->Vf.p);
	assert_null(mbedtls_pk_rsa(c.key)->Vi.p);
#endif
	tls_key_free(&c);
	mbedtls_pk_free(&c.chain.pk);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_blinding_yet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
