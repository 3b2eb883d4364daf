/* Unit tests of proxy, which is included for its static functions. */
#include "../../lib/proxy.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

static char why[512];

/* Read a header that is followed by TLS, which must not be read. */
static int
take(const void *header, size_t len, struct endpoints *ends)
{
	struct proxy p = { .done = 0 };
	char rest[8] = "";
	int pair[2], r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0,
	    pair), 0);
	assert_int_equal(write(pair[0], header, len), len);
	assert_int_equal(write(pair[0], "\x16\x03\x01", 3), 3);
	r = proxy_read(&p, pair[1], ends, why, sizeof(why));
	if (r == 0) {
		assert_int_equal(read(pair[1], rest, sizeof(rest)), 3);
		assert_string_equal(rest, "\x16\x03\x01");
	}
	close(pair[0]);
	close(pair[1]);
	return r;
}

static struct endpoints
some_endpoints(int family)
{
	struct endpoints e = { .from.any.ss_family = (sa_family_t)family,
	    .to.any.ss_family = (sa_family_t)family };

	if (family == AF_INET) {
		e.from.in.sin_addr.s_addr = htonl(0xc0000201);
		e.to.in.sin_addr.s_addr = htonl(0xc6336401);
	} else {
		e.from.in6.sin6_addr.s6_addr[15] = 1;
		e.to.in6.sin6_addr.s6_addr[0] = 0x20;
	}
	e.from.in.sin_port = htons(4711);
	e.to.in.sin_port = htons(443);
	return e;
}

/* A header that is made is parsed to the same, in both versions. */
static void
test_round_trip(void **state)
{
	static const int families_told[] = { AF_INET, AF_INET6 };
	const struct proxy_tls tls = { .version = "TLSv1.3", .alpn = "h2",
	    .client = "x", .has_client = 1 };
	struct endpoints told, taken;
	struct proxy p;
	size_t i;
	int v;

	(void)state;
	for (i = 0; i < LEN(families_told); i++) {
		told = some_endpoints(families_told[i]);
		for (v = PROXY_V1; v <= PROXY_V2; v++) {
			proxy_make(&p, v, &told, &tls);
			assert_int_equal(take(p.data, p.len, &taken), 0);
			assert_memory_equal(&taken, &told, sizeof(told));
		}
	}
}

/* A stream that takes a few bytes per write. */
static ssize_t
write_little(struct stream *s, const void *buf, size_t len)
{
	int *turn = s->ctx;

	if ((*turn)++ % 2 == 0)
		return STREAM_WANT_WRITE;
	return stream_plain_write(s, buf, len < 7 ? len : 7);
}

static void
test_written_in_pieces(void **state)
{
	static const struct stream_ops ops = { .write = write_little };
	const struct proxy_tls tls = { .version = "TLSv1.3" };
	const struct endpoints told = some_endpoints(AF_INET);
	struct stream s = { .ops = &ops };
	unsigned char out[PROXY_HEADER];
	int pair[2], turn = 0, r;
	struct proxy p;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	s.fd = pair[0];
	s.ctx = &turn;
	proxy_make(&p, PROXY_V2, &told, &tls);
	while ((r = proxy_write(&p, &s)) != 0)
		assert_int_equal(r, STREAM_WANT_WRITE);
	assert_int_equal(read(pair[1], out, sizeof(out)), p.len);
	assert_memory_equal(out, p.data, p.len);
	close(pair[0]);
	close(pair[1]);
}

/* Without TLS, there are no TLS values. */
static void
test_made_without_tls(void **state)
{
	const struct endpoints told = some_endpoints(AF_INET);
	const struct proxy_tls tls = { .version = NULL };
	struct proxy p;

	(void)state;
	proxy_make(&p, PROXY_V2, &told, &tls);
	assert_int_equal(p.len, PROXY_V2_HEAD + 12);
	assert_int_equal(p.data[PROXY_V2_HEAD - 1], 12);
}

static void
test_nothing_told(void **state)
{
	static const char unknown[] = "PROXY UNKNOWN\r\n";
	static const char local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0";
	struct endpoints e;

	(void)state;
	assert_int_equal(take(unknown, strlen(unknown), &e), 0);
	assert_int_equal(e.from.any.ss_family, AF_UNSPEC);
	assert_int_equal(take(local, sizeof(local), &e), 0);
	assert_int_equal(e.from.any.ss_family, AF_UNSPEC);
}

static void
test_bad_headers(void **state)
{
	static const char *const bad[] = {
		"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
		"PROXY TCP4 ::1 ::1 1 2\r\n",
		"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
		"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
		"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
	};
	struct endpoints e;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		assert_int_equal(take(bad[i], strlen(bad[i]), &e),
		    STREAM_ERROR);
		assert_non_null(strstr(why, "bad PROXY header"));
	}
	assert_int_equal(take("\x16\x03\x01", 3, &e), STREAM_ERROR);
	assert_non_null(strstr(why, "no PROXY header"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_written_in_pieces),
		cmocka_unit_test(test_made_without_tls),
		cmocka_unit_test(test_nothing_told),
		cmocka_unit_test(test_bad_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
