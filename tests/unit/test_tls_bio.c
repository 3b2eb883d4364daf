/* Unit tests of lib/tls_bio.c, included to reach what is static. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>

static void	*fake_malloc(size_t);
static ssize_t	 fake_recv(int, void *, size_t, int);
static ssize_t	 fake_send(int, const void *, size_t, int);

#define malloc	fake_malloc
#define recv	fake_recv
#define send	fake_send
#include "../../lib/tls_bio.c"
#undef malloc
#undef recv
#undef send

#include <setjmp.h>

#include <cmocka.h>

/*
 * A fake socket with limited room, or an error; and a server's connection on
 * it, before the handshake.
 */

static unsigned char came[2 * OUT_SIZE];	/* sent bytes */
static size_t	 ncame, room;
static int	 sends, recvs, error, has_memory;
static const unsigned char *client;	/* bytes to receive */
static size_t	 nclient, asked;	/* length of the last recv(2) */
static mbedtls_ssl_config conf;
static struct tls_config cfg;
static struct tls *t;

static void *
fake_malloc(size_t size)
{
	return has_memory ? malloc(size) : NULL;
}

static ssize_t
fake_recv(int fd, void *p, size_t len, int flags)
{
	(void)fd;
	(void)flags;
	recvs++;
	asked = len;
	if (nclient == 0) {
		errno = EAGAIN;
		return -1;
	}
	len = len < nclient ? len : nclient;
	memcpy(p, client, len);
	client += len;
	nclient -= len;
	return (ssize_t)len;
}

static ssize_t
fake_send(int fd, const void *p, size_t len, int flags)
{
	(void)fd;
	assert_int_equal(flags, MSG_NOSIGNAL);
	sends++;
	if (room == 0) {
		errno = error;
		return -1;
	}
	len = len < room ? len : room;
	assert_true(len <= sizeof(came) - ncame);
	memcpy(came + ncame, p, len);
	ncame += len;
	room -= len;
	return (ssize_t)len;
}

static int
begin(void **state)
{
	(void)state;
	memset(&io, 0, sizeof(io));
	ncame = nclient = 0;
	sends = recvs = 0;
	room = SIZE_MAX;
	error = EAGAIN;
	has_memory = 1;
	mbedtls_ssl_config_init(&conf);
	if ((t = calloc(1, sizeof(*t))) == NULL ||
	    (t->ssl = calloc(1, sizeof(*t->ssl))) == NULL ||
	    psa_crypto_init() != PSA_SUCCESS ||
	    mbedtls_ssl_config_defaults(&conf, MBEDTLS_SSL_IS_SERVER,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0 ||
	    mbedtls_ssl_setup(t->ssl, &conf) != 0)
		return -1;
	t->cfg = &cfg;
	t->budget = 100;
	t->record_size = RECORD_MAX;
	return 0;
}

static int
end(void **state)
{
	(void)state;
	mbedtls_ssl_free(t->ssl);
	mbedtls_ssl_config_free(&conf);
	free(t->ssl);
	free(t->deferred);
	free(t->ahead);
	free(t);
	return 0;
}

static const unsigned char flight[] = {
	22, 3, 3, 0, 3, 'a', 'b', 'c',
	20, 3, 3, 0, 1, 1,
	23, 3, 3, 0, 2, 20, 3,
	23, 3, 3, 0, 4, 'd', 'e', 'f', 'g',
};
static const unsigned char alert[] = { 21, 3, 3, 0, 2, 2, 80 };

/* Send record by record, as the library does. */
static void
send_records(const unsigned char *p, size_t len)
{
	size_t n;

	for (; len > 0; p += n, len -= n) {
		n = HEADER_SIZE + (size_t)be_get(p + 3, 2);
		assert_int_equal(tls_bio_send(t, p, n), n);
	}
}

static void
expect_came(const unsigned char *p, size_t len)
{
	assert_int_equal(ncame, len);
	assert_memory_equal(came, p, len);
	ncame = 0;
}

static int
call_for_more(void)
{
	unsigned char header[HEADER_SIZE];

	return tls_bio_recv(t, header, sizeof(header));
}

static void
test_flight_leaves_in_one_send(void **state)
{
	(void)state;
	send_records(flight, sizeof(flight));
	assert_int_equal(sends, 0);
	assert_true(tls_bio_has_gathered());
	assert_int_equal(call_for_more(), MBEDTLS_ERR_SSL_WANT_READ);
	assert_int_equal(sends, 1);
	expect_came(flight, sizeof(flight));
	assert_false(tls_bio_has_gathered());
	call_for_more();
	assert_int_equal(sends, 1);
}

/* Also without a budget for receiving. */
static void
test_flight_leaves_without_a_budget(void **state)
{
	(void)state;
	t->budget = 0;
	send_records(flight, sizeof(flight));
	assert_int_equal(call_for_more(), MBEDTLS_ERR_SSL_WANT_READ);
	assert_int_equal(recvs, 0);
	expect_came(flight, sizeof(flight));
}

/* The peer gets what it can work on while we compute, if there is room. */
static void
test_slow_flight_leaves_early(void **state)
{
	static const unsigned char hello[WORTH_SENDING] = { 22, 3, 3, 0,
	    WORTH_SENDING - HEADER_SIZE };	/* fits into a byte */

	(void)state;
	t->slow = 1;
	send_records(flight, sizeof(flight));
	assert_int_equal(sends, 0);
	send_records(hello, sizeof(hello));
	assert_int_equal(sends, 1);
	assert_int_equal(ncame, sizeof(flight) + sizeof(hello));
	ncame = 0;
	room = 10;
	send_records(hello, sizeof(hello));
	assert_int_equal(ncame, 10);
	room = SIZE_MAX;
	send_records(hello, sizeof(hello));
	assert_int_equal(ncame, 2 * sizeof(hello));
	room = 0;
	error = ECONNRESET;
	assert_int_equal(tls_bio_send(t, hello, sizeof(hello)),
	    MBEDTLS_ERR_NET_CONN_RESET);
}

/* Nothing is received before all is sent, in any number of pieces. */
static void
test_short_writes_lose_nothing(void **state)
{
	size_t size, all;
	int r;

	(void)state;
	for (size = 1; size <= sizeof(flight); size++) {
		recvs = 0;
		send_records(flight, sizeof(flight));
		for (all = 0; all < sizeof(flight); all += size) {
			room = size;
			r = call_for_more();
			assert_false(tls_bio_has_gathered());
			assert_int_equal(r, all + size < sizeof(flight) ?
			    MBEDTLS_ERR_SSL_WANT_WRITE :
			    MBEDTLS_ERR_SSL_WANT_READ);
			assert_int_equal(recvs, r ==
			    MBEDTLS_ERR_SSL_WANT_READ);
		}
		expect_came(flight, sizeof(flight));
		assert_null(t->deferred);
	}
}

/* The rest of the flight precedes the alert, wherever it was cut. */
static void
test_alert_follows_the_rest(void **state)
{
	unsigned char both[sizeof(flight) + sizeof(alert)];
	size_t at;

	(void)state;
	memcpy(both, flight, sizeof(flight));
	memcpy(both + sizeof(flight), alert, sizeof(alert));
	for (at = 0; at < sizeof(flight); at++) {
		send_records(flight, sizeof(flight));
		room = at;
		assert_int_equal(tls_bio_flush(t), MBEDTLS_ERR_SSL_WANT_WRITE);
		assert_int_equal(errno, EAGAIN);
		assert_int_equal(t->ndeferred, sizeof(flight) - at);
		send_records(alert, sizeof(alert));
		room = SIZE_MAX;
		sends = 0;
		assert_int_equal(tls_bio_flush(t), 0);
		assert_int_equal(sends, 1);
		expect_came(both, sizeof(both));
	}
}

static void
test_what_is_held_goes_with_the_next(void **state)
{
	unsigned char both[sizeof(flight) + sizeof(alert)];

	(void)state;
	memcpy(both, flight, sizeof(flight));
	memcpy(both + sizeof(flight), alert, sizeof(alert));
	assert_int_equal(tls_bio_hold(t), 0);	/* nothing is gathered */
	assert_null(t->deferred);
	send_records(flight, sizeof(flight));
	assert_int_equal(tls_bio_hold(t), 0);
	assert_false(tls_bio_has_gathered());
	assert_int_equal(sends, 0);
	send_records(alert, sizeof(alert));
	assert_int_equal(tls_bio_flush(t), 0);
	assert_int_equal(sends, 1);
	expect_came(both, sizeof(both));
}

static void
test_errors_end_it(void **state)
{
	static const struct {
		int	 error, result;
	} cases[] = {
		{ ECONNRESET, MBEDTLS_ERR_NET_CONN_RESET },
		{ EPIPE, MBEDTLS_ERR_NET_CONN_RESET },
		{ ETIMEDOUT, MBEDTLS_ERR_NET_SEND_FAILED },
	};
	size_t i, at;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (at = 0; at < sizeof(flight); at++) {
			error = cases[i].error;
			send_records(flight, sizeof(flight));
			room = at;
			recvs = 0;
			assert_int_equal(call_for_more(), cases[i].result);
			assert_int_equal(t->err, error);
			assert_int_equal(recvs, 0);
			assert_false(tls_bio_has_gathered());
			assert_null(t->deferred);
		}
}

/* No alert follows a gap. */
static void
test_out_of_memory(void **state)
{
	(void)state;
	send_records(flight, sizeof(flight));
	room = 3;
	has_memory = 0;
	assert_int_equal(call_for_more(), MBEDTLS_ERR_SSL_ALLOC_FAILED);
	assert_true(t->notified);
	assert_false(tls_bio_has_gathered());
	assert_int_equal(t->ndeferred, 0);
	t->notified = 0;
	send_records(alert, sizeof(alert));
	assert_int_equal(tls_bio_hold(t), MBEDTLS_ERR_SSL_ALLOC_FAILED);
	assert_true(t->notified);
	assert_false(tls_bio_has_gathered());
}

/* However many answers a peer causes without reading any. */
static void
test_what_is_kept_is_bounded(void **state)
{
	static unsigned char record[HEADER_SIZE + RECORD_MAX] = {
		23, 3, 3, RECORD_MAX >> 8, RECORD_MAX & 0xff
	};
	size_t all = 0;
	int r;

	(void)state;
	room = 0;
	t->open = 1;
	while ((r = tls_bio_send(t, record, sizeof(record))) > 0) {
		all += sizeof(record);
		assert_int_equal(tls_bio_flush(t), MBEDTLS_ERR_SSL_WANT_WRITE);
		assert_int_equal(t->ndeferred, all);
		assert_true(all <= OUT_SIZE);
	}
	assert_int_equal(r, MBEDTLS_ERR_SSL_ALLOC_FAILED);
	assert_false(tls_bio_has_room(t));
	assert_true(all >= 5 * RECORD_MAX);
}

static void
test_as_much_as_can_be_written_has_room(void **state)
{
	static unsigned char record[HEADER_SIZE + RECORD_MAX + RECORD_EXTRA];
	size_t n;

	(void)state;
	t->open = 1;
	for (n = 0; tls_bio_has_room(t); n++)
		assert_true(tls_bio_send(t, record, sizeof(record)) > 0);
	assert_int_equal(n * t->record_size, tls_bio_write_size(t));
}

/* Two records of a client: a whole one, and half of the next. */
static const unsigned char hello[] = {
	22, 3, 1, 0, 4, 'h', 'i', 'h', 'i', 20, 3, 3
};

static void
offer_hello(void)
{
	client = hello;
	nclient = sizeof(hello);
}

static void
test_handshake_is_received_ahead(void **state)
{
	unsigned char got[sizeof(hello)];

	(void)state;
	offer_hello();
	assert_int_equal(tls_bio_recv(t, got, 5), 5);
	assert_int_equal(asked, FLIGHT_AHEAD);
	assert_int_equal(tls_bio_recv(t, got + 5, 4), 4);
	assert_int_equal(recvs, 1);
	assert_false(tls_bio_is_exact(t));
	assert_int_equal(tls_bio_keep_ahead(t), 0);
	tls_bio_take_ahead(t);
	assert_int_equal(tls_bio_recv(t, got + 9, 5), 3);
	assert_memory_equal(got, hello, sizeof(hello));
	/* All was received; no further recv(2) is needed. */
	assert_int_equal(call_for_more(), MBEDTLS_ERR_SSL_WANT_READ);
	assert_int_equal(recvs, 1);
}

/*
 * If the kernel may take over, nothing is received ahead after our first
 * record.
 */
static void
test_nothing_is_taken_from_the_kernel(void **state)
{
	unsigned char got[sizeof(hello)];

	(void)state;
	t->ktls = (struct ktls *)got;	/* never dereferenced */
	offer_hello();
	nclient = 9;
	assert_int_equal(tls_bio_recv(t, got, 5), 5);
	assert_int_equal(asked, FLIGHT_AHEAD);
	assert_int_equal(tls_bio_recv(t, got, 4), 4);
	assert_true(tls_bio_is_exact(t));
	t->drained = 0;
	send_records(flight, sizeof(flight));
	offer_hello();
	assert_int_equal(tls_bio_recv(t, got, 5), 5);
	assert_false(tls_bio_is_exact(t));
	assert_int_equal(tls_bio_recv(t, got, 4), 4);
	assert_int_equal(asked, 4);
	assert_int_equal(nclient, 3);
	assert_true(tls_bio_is_exact(t));
}

/* Receive len bytes, as the library does. */
static void
take(size_t len)
{
	unsigned char buf[256];
	int n;

	t->drained = 0;
	for (; len > 0; len -= (size_t)n)
		assert_in_range(n = tls_bio_recv(t, buf, len), 1, len);
}

/* Data are received in whole records of the last one's length. */
static void
test_whole_records_are_received(void **state)
{
	static const unsigned char data[250] = {
		[0] = 23, 3, 3, 0, 95, [100] = 23, 3, 3, 0, 95,
		[200] = 23, 3, 3, 0, 95,
	};

	(void)state;
	t->open = 1;
	client = data;
	nclient = sizeof(data);
	take(HEADER_SIZE);
	assert_int_equal(asked, sizeof(io.ahead));
	take(95);
	take(HEADER_SIZE);
	take(95);
	take(HEADER_SIZE);
	take(45);
	assert_int_equal(recvs, 1);
	client = data + 50;
	nclient = 50;
	take(50);
	assert_int_equal(asked, 50 + (sizeof(io.ahead) - 50) / 100 * 100);
	client = data;
	nclient = 100;
	take(HEADER_SIZE);
	assert_int_equal(asked, sizeof(io.ahead) / 100 * 100);
	assert_int_equal(recvs, 3);
}

#define WITH_TLS(name)	cmocka_unit_test_setup_teardown(name, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_TLS(test_flight_leaves_in_one_send),
		WITH_TLS(test_flight_leaves_without_a_budget),
		WITH_TLS(test_slow_flight_leaves_early),
		WITH_TLS(test_short_writes_lose_nothing),
		WITH_TLS(test_alert_follows_the_rest),
		WITH_TLS(test_what_is_held_goes_with_the_next),
		WITH_TLS(test_errors_end_it),
		WITH_TLS(test_out_of_memory),
		WITH_TLS(test_what_is_kept_is_bounded),
		WITH_TLS(test_as_much_as_can_be_written_has_room),
		WITH_TLS(test_handshake_is_received_ahead),
		WITH_TLS(test_nothing_is_taken_from_the_kernel),
		WITH_TLS(test_whole_records_are_received),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
