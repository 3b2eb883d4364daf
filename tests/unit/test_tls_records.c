/* Unit tests of lib/tls_records.c, included to reach what is static. */
#define MBEDTLS_ALLOW_PRIVATE_ACCESS	/* a version that was negotiated */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../lib/tls_records.c"

#include <setjmp.h>

#include <cmocka.h>

/* A connection before its handshake. */
static struct tls_config cfg;
static struct tls *t;

static int
begin(void **state)
{
	(void)state;
	if ((t = calloc(1, sizeof(*t))) == NULL ||
	    (t->ssl = calloc(1, sizeof(*t->ssl))) == NULL)
		return -1;
	t->cfg = &cfg;
	return 0;
}

static int
end(void **state)
{
	(void)state;
	free(t->ssl);
	free(t);
	return 0;
}

/* In pieces of any length. */
static void
test_records_are_counted(void **state)
{
	static const unsigned char pieces[] = {
		22, 3, 3, 0, 3, 'a', 'b', 'c',
		22, 3, 3, 0, 0,
		20, 3, 3, 0, 1, 1,
		23, 3, 3, 0, 2, 20, 3,
		23, 3, 3, 1, 4,
	};
	unsigned char body[0x104] = { 0 };
	size_t size, at, n;

	(void)state;
	for (size = 1; size <= sizeof(pieces); size++) {
		struct record r = { .count = 0 };

		for (at = 0; at < sizeof(pieces); at += n) {
			n = sizeof(pieces) - at < size ? sizeof(pieces) - at :
			    size;
			tls_records_track(&r, pieces + at, n);
			if (at + n == 13)
				assert_int_equal(r.count, 2);
		}
		assert_int_equal(r.count, 2);	/* since the ChangeCipherSpec */
		assert_false(tls_records_is_whole(&r));
		tls_records_track(&r, body, sizeof(body));
		assert_true(tls_records_is_whole(&r));
		tls_records_track(&r, pieces, 4);
		assert_false(tls_records_is_whole(&r));
	}
}

static const unsigned char hello_12[] = {
	22, 3, 3, 0, 55, 2, 0, 0, 51, 3, 3,
	'r', 'a', 'n', 'd', 'o', 'm', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	2, 7, 7, 0xc0, 0x2b, 0, 0, 9,
	0xff, 1, 0, 1, 0, 0, 23, 0, 0,
};
static const unsigned char hello_13[] = {
	22, 3, 3, 0, 64, 2, 0, 0, 60, 3, 3,
	'r', 'a', 'n', 'd', 'o', 'm', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0x13, 1, 0, 0, 20,
	0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 29, 0, 41, 0, 2, 0, 0,
	0, 0,
};
static const unsigned char key_exchange[] = {
	22, 3, 3, 0, 9, 12, 0, 0, 5, 3, 0, 23, 1, 4,
};
static const unsigned char certificate[] = {
	22, 3, 3, 0, 7, 11, 0, 0, 3, 0, 0, 0,
};
static const unsigned char ticket[] = {
	22, 3, 3, 0, 12, 4, 0, 0, 8, 0, 0, 0x1c, 0x20, 0, 2, 'o', 'k',
};
static const unsigned char change[] = { 20, 3, 3, 0, 1, 1 };

/* Receive as the library reads: at most size bytes of a record at a time. */
static void
hear(const unsigned char *p, size_t len, size_t size)
{
	size_t n, left;

	for (; len > 0; p += n, len -= n) {
		left = t->in.left > 0 ? t->in.left : HEADER_SIZE -
		    t->in.nhead % HEADER_SIZE;
		n = left < size ? left : size;
		tls_records_received(t, p, n);
		tls_records_track(&t->in, p, n);
	}
}

static void
begin_as_a_client(int version)
{
	tls_records_sniff_end(t);
	free(t->why);
	t->why = NULL;
	t->in = (struct record){ .count = 0 };
	cfg.is_client = 1;
	t->ssl->tls_version = version == 12 ? MBEDTLS_SSL_VERSION_TLS1_2 :
	    MBEDTLS_SSL_VERSION_TLS1_3;
	t->group = 0;
	t->extended = t->resumed = t->ticketed = t->refused = 0;
	t->offers = 1;
	t->offers_ticket = version == 13;
	t->by_psk = 0;
	t->lifetime_hint = 0;
	assert_int_equal(tls_records_sniff(t), 0);
}

static void
end_as_a_client(void)
{
	tls_records_sniff_end(t);
	free(t->why);
	t->why = NULL;
	cfg.is_client = 0;
}

static void
test_what_a_client_hears(void **state)
{
	size_t size;

	(void)state;
	for (size = 1; size < 70; size++) {
		begin_as_a_client(12);
		hear(hello_12, sizeof(hello_12), size);
		assert_true(t->resumed && t->extended);
		hear(change, sizeof(change), size);
		assert_true(t->resumed && !t->refused && t->sniffer == NULL);
		begin_as_a_client(12);
		hear(hello_12, sizeof(hello_12), size);
		hear(certificate, sizeof(certificate), size);
		hear(key_exchange, sizeof(key_exchange), size);
		hear(ticket, sizeof(ticket), size);
		assert_true(!t->resumed && t->group == 23 && t->ticketed);
		assert_int_equal(t->lifetime_hint, 7200);
		begin_as_a_client(13);
		hear(hello_13, sizeof(hello_13), size);
		assert_true(t->resumed && t->group == 29);
		/* After a HelloRetryRequest another ServerHello follows. */
		hear(change, sizeof(change), size);
		assert_non_null(t->sniffer);
		t->group = 0;
		t->resumed = 0;
		hear(hello_13, sizeof(hello_13), size);
		assert_true(t->resumed && t->group == 29);
		begin_as_a_client(13);
		t->offers = t->offers_ticket = 0;
		hear(hello_13, sizeof(hello_13), size);
		assert_false(t->resumed);
	}
	end_as_a_client();
}

/* RFC 7627 section 5.3. */
static void
test_resumed_without_its_extended_master_secret(void **state)
{
	unsigned char changed[sizeof(hello_12)];

	(void)state;
	memcpy(changed, hello_12, sizeof(changed));
	changed[sizeof(changed) - 3] = 99;	/* unknown */
	begin_as_a_client(12);
	hear(changed, sizeof(changed), 9);
	assert_false(t->refused);
	hear(change, sizeof(change), 9);
	assert_true(t->refused);
	begin_as_a_client(12);
	hear(changed, sizeof(changed), 9);
	hear(certificate, sizeof(certificate), 9);
	hear(change, sizeof(change), 9);
	assert_false(t->refused);
	end_as_a_client();
}

/* Any content, and messages of any length. */
static void
test_garbage_that_a_client_hears(void **state)
{
	unsigned char changed[sizeof(hello_13)], more[128];
	size_t at, i;
	unsigned byte;

	(void)state;
	for (at = HEADER_SIZE; at < sizeof(changed); at++) {
		for (byte = 0; byte < 256; byte += 15) {
			begin_as_a_client(13);
			memcpy(changed, hello_13, sizeof(changed));
			changed[at] = (unsigned char)byte;
			hear(changed, sizeof(changed), 64);
		}
	}
	memset(more, 255, sizeof(more));
	memcpy(more, "\x16\3\3\0\x7b", HEADER_SIZE);
	more[HEADER_SIZE] = MBEDTLS_SSL_HS_SERVER_HELLO;
	begin_as_a_client(13);
	for (i = 0; i < 2 * MESSAGE_SEEN / sizeof(more); i++)
		hear(more, sizeof(more), 64);
	end_as_a_client();
}

#define WITH_TLS(name)	cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_records_are_counted),
		WITH_TLS(test_what_a_client_hears),
		WITH_TLS(test_resumed_without_its_extended_master_secret),
		WITH_TLS(test_garbage_that_a_client_hears),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
