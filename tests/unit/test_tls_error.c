/* Unit tests of lib/tls_error.c, included to reach what is static. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "../../lib/tls_error.c"

#include <setjmp.h>

#include <cmocka.h>

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* Each code of the library has a result for the engine, and an alert. */
static void
test_outcomes(void **state)
{
	static const struct {
		int	 code, result, alert;
	} rows[] = {
		{ MBEDTLS_ERR_SSL_WANT_READ, STREAM_WANT_READ, 0 },
		{ MBEDTLS_ERR_SSL_WANT_WRITE, STREAM_WANT_WRITE, 0 },
		{ MBEDTLS_ERR_NET_CONN_RESET, STREAM_RESET, 0 },
		{ MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY, STREAM_EOF, 0 },
		{ MBEDTLS_ERR_SSL_CONN_EOF, STREAM_TRUNCATED, 0 },
		{ MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE, STREAM_ERROR, 0 },
		{ MBEDTLS_ERR_NET_RECV_FAILED, STREAM_ERROR, 0 },
		{ MBEDTLS_ERR_NET_SEND_FAILED, STREAM_ERROR, 0 },
		{ MBEDTLS_ERR_SSL_DECODE_ERROR, STREAM_ERROR, 50 },
		{ MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER, STREAM_ERROR, 47 },
		{ MBEDTLS_ERR_SSL_ALLOC_FAILED, STREAM_ERROR, 80 },
		{ MBEDTLS_ERR_SSL_INTERNAL_ERROR, STREAM_ERROR, 80 },
		{ MBEDTLS_ERR_SSL_COUNTER_WRAPPING, STREAM_ERROR, 80 },
		{ MBEDTLS_ERR_PLATFORM_HW_ACCEL_FAILED, STREAM_ERROR, 80 },
		{ BAD_SIGNATURE, STREAM_ERROR, 51 },
	};
	unsigned char alert;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(rows); i++) {
		assert_int_equal(outcome_of(rows[i].code, &alert),
		    rows[i].result);
		assert_int_equal(alert, rows[i].alert);
	}
}

/* The library's code for a bad record. */
static void
test_record_faults(void **state)
{
	static const struct {
		struct record record;
		int	 fault;
	} rows[] = {
		{ { .head = { 24, 3, 3, 0, 9 }, .left = 9 }, RECORD_TYPE },
		{ { .head = { 19, 3, 3, 0, 0 }, .left = 0 }, RECORD_TYPE },
		{ { .head = { 23, 4, 0, 0, 9 }, .left = 9 }, RECORD_VERSION },
		{ { .head = { 23, 3, 3, 0, 0 }, .left = 0 },
		    MBEDTLS_ERR_SSL_INVALID_RECORD },
		{ { .head = { 23, 3, 3, 0x50, 0 }, .left = 0x5000 },
		    RECORD_SIZE },
		{ { .head = { 23, 3, 3, 0x40, 0x18 }, .left = 0 },
		    RECORD_SIZE },
		{ { .head = { 21, 3, 3, 0, 3 }, .left = 0 }, RECORD_BODY },
		{ { .head = { 22, 3, 3, 0, 3 }, .left = 0 }, RECORD_BODY },
		{ { .head = { 20, 3, 3, 0, 2 }, .left = 0 },
		    MBEDTLS_ERR_SSL_INVALID_RECORD },
		{ { .head = { 23, 3, 3, 0, 17 }, .left = 0 },
		    MBEDTLS_ERR_SSL_INVALID_RECORD },
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(rows); i++)
		assert_int_equal(record_fault(&rows[i].record), rows[i].fault);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outcomes),
		cmocka_unit_test(test_record_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
