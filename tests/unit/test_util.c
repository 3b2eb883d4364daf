/* Unit tests of clock, text, numbers and accept(2). */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static int accept_error;

static int
fake_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	if (accept_error == 0)
		return accept4(fd, sa, len, flags);
	errno = accept_error;
	return -1;
}

#define accept4	fake_accept4
#include "../../lib/util.c"
#undef accept4

#define CHECK	assert_true
#include "sockets.h"
#include "usr1.h"

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

static void
test_clock_timeout(void **state)
{
	(void)state;
	assert_int_equal(clock_timeout(1000, INT64_MAX), -1);
	assert_int_equal(clock_timeout(1000, 1250), 250);
	assert_int_equal(clock_timeout(1000, 1000), 0);
	assert_int_equal(clock_timeout(1000, 0), 0);
	/* Longer than the maximum of poll(2): the caller sleeps again. */
	assert_int_equal(clock_timeout(0, INT_MAX), INT_MAX);
	assert_int_equal(clock_timeout(0, (int64_t)INT_MAX + 1), INT_MAX);
	assert_int_equal(clock_timeout(0, INT64_MAX - 1), INT_MAX);
}

static void
test_clock(void **state)
{
	int64_t us = clock_us(), ms = clock_ms();

	(void)state;
	assert_true(us > 0);
	assert_true(ms >= us / 1000);
	assert_true(clock_us() >= us);
}

static void
test_pending_signals(void **state)
{
	sigset_t none, now;

	(void)state;
	signal(SIGUSR1, on_usr1);
	block_usr1(SIG_BLOCK);
	got_usr1 = 0;
	raise(SIGUSR1);
	assert_int_equal(got_usr1, 0);
	sigemptyset(&none);
	deliver_pending_signals(&none);
	assert_int_equal(got_usr1, 1);
	sigprocmask(SIG_BLOCK, NULL, &now);
	assert_true(sigismember(&now, SIGUSR1));
	block_usr1(SIG_UNBLOCK);
}

static void
test_accept_errors(void **state)
{
	static const int transient[] = { EINTR, ECONNABORTED, EPROTO,
	    ENETDOWN, EHOSTUNREACH };
	static const int lasting[] = { EAGAIN, EMFILE, ENFILE, ENOBUFS,
	    ENOMEM, EBADF, EINVAL };
	struct sockaddr_storage addr;
	socklen_t len;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(transient); i++) {
		accept_error = transient[i];
		assert_int_equal(accept_connection(0, &addr, &len), -1);
		assert_int_equal(errno, EINTR);
	}
	for (i = 0; i < LEN(lasting); i++) {
		accept_error = lasting[i];
		assert_int_equal(accept_connection(0, &addr, &len), -1);
		assert_int_equal(errno, lasting[i]);
	}
	accept_error = 0;
}

static void
test_accept(void **state)
{
	struct sockaddr_storage addr, own;
	socklen_t len, own_len = sizeof(own);
	int client, fd, listening = listener_new(&listener_addr);

	(void)state;
	nonblock(listening);
	assert_int_equal(accept_connection(listening, &addr, &len), -1);
	assert_int_equal(errno, EAGAIN);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&listener_addr,
	    sizeof(listener_addr)), 0);
	fd = accept_connection(listening, &addr, &len);
	assert_int_not_equal(fd, -1);
	assert_int_equal(getsockname(client, (struct sockaddr *)&own,
	    &own_len), 0);
	assert_int_equal(len, own_len);
	assert_memory_equal(&addr, &own, len);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	close(client);
	close(listening);
}

static void
test_text_escape(void **state)
{
	char all[256], out[2048], small[12];
	size_t i;

	(void)state;
	for (i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	text_escape(out, sizeof(out), all);
	for (i = 0; out[i] != '\0'; i++)
		assert_in_range(out[i], ' ', '~');
	assert_true(strstr(out, "\\x01\\x02") == out);
	assert_non_null(strstr(out, "\\x0a"));
	assert_non_null(strstr(out, "\\x1b"));
	assert_non_null(strstr(out, "~\\x7f"));
	assert_non_null(strstr(out, "xyz"));
	/* Bytes with the eighth bit may be control characters, too. */
	assert_non_null(strstr(out, "\\x9b"));
	text_escape(out, sizeof(out), "a b~\xc3\xa9");
	assert_string_equal(out, "a b~\\xc3\\xa9");
	/* Never write past the end, nor a part of an escape. */
	memset(small, 'z', sizeof(small));
	text_escape(small, sizeof(small) - 2, "\n\n\n\n\n\n");
	assert_string_equal(small, "\\x0a\\x0a");
	assert_int_equal(small[10], 'z');
	text_escape(small, 1, "a");
	assert_string_equal(small, "");
}

static void
expect_quoted(size_t size, const char *bytes, size_t n, const char *quoted)
{
	char out[64];

	memset(out, 'z', sizeof(out));
	text_quote(out, size, (const unsigned char *)bytes, n);
	assert_string_equal(out, quoted);
	assert_int_equal(out[size], 'z');
}

static void
test_text_quote(void **state)
{
	(void)state;
	expect_quoted(32, "", 0, "\"\"");
	expect_quoted(32, "GET / H", 7, "\"GET / H\"");
	expect_quoted(32, "\0\xff\r", 3, "\"\\x00\\xff\\x0d\"");
	/* Quotation marks and backslashes are escaped. */
	expect_quoted(32, "a\"\\b", 4, "\"a\\x22\\x5cb\"");
	/* A cut text ends with a quotation mark, too. */
	expect_quoted(11, "abcdef", 6, "\"ab\"");
	expect_quoted(16, "\n\n\n\n\n", 5, "\"\\x0a\\x0a\"");
}

static void
test_text_add(void **state)
{
	char out[8] = "zzzzzzz";
	struct text t = { .p = out, .size = 6 };

	(void)state;
	text_add(&t, "%d", 12);
	text_add(&t, "%s", "");
	text_add(&t, "-%c", 'x');
	assert_string_equal(out, "12-x");
	assert_int_equal(t.n, 4);
	/* Cut at its size, then full; never write past the end. */
	text_add(&t, "%s", "yes");
	assert_string_equal(out, "12-xy");
	assert_int_equal(t.n, 5);
	text_add(&t, "%s", "more");
	assert_string_equal(out, "12-xy");
	assert_int_equal(t.n, 5);
	assert_int_equal(out[6], 'z');
}

static void
test_text_join(void **state)
{
	static const char *const none[] = { NULL };
	static const char *const one[] = { "a", NULL };
	static const char *const words[] = { "off", "auto", "require", NULL };
	char out[32];

	(void)state;
	text_join(out, sizeof(out), none);
	assert_string_equal(out, "");
	text_join(out, sizeof(out), one);
	assert_string_equal(out, "a");
	text_join(out, sizeof(out), words);
	assert_string_equal(out, "off, auto, require");
	text_join(out, 8, words);
	assert_string_equal(out, "off, au");
}

static void
test_parse_number(void **state)
{
	static const char *const bad[] = {
		"", " ", "-1", "+1", " 1", "1 ", "1x", "x", "0x10", "1.0",
		"1e3", "--", "101", "9223372036854775807",
		"9223372036854775808", "99999999999999999999999999999999999",
		"-9223372036854775809", "1,0", "\xd9\xa1", "4"
	};
	int64_t n = -7;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++)
		if (parse_number(bad[i], 5, 100, &n) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	assert_int_equal(parse_number("5", 5, 100, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(parse_number("100", 5, 100, &n), 0);
	assert_int_equal(n, 100);
	assert_int_equal(parse_number("007", 5, 100, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(parse_number("9223372036854775807", 0, INT64_MAX, &n),
	    0);
	assert_true(n == INT64_MAX);
	assert_int_equal(parse_number("9223372036854775808", 0, INT64_MAX,
	    &n), -1);
}

static void
test_big_endian(void **state)
{
	static const unsigned char expected[] = { 0xee, 1, 2, 3, 0xee };
	unsigned char p[16];
	size_t n;

	(void)state;
	memset(p, 0xee, sizeof(p));
	be_put(p + 1, 0x010203, 3);
	assert_memory_equal(p, expected, sizeof(expected));
	assert_true(be_get(p + 1, 3) == 0x010203);
	assert_true(be_get(p + 1, 1) == 1);
	assert_true(be_get(p, 0) == 0);
	/* A number that is too large loses its upper bytes. */
	be_put(p + 1, 0xabcdef, 2);
	assert_true(be_get(p + 1, 3) == 0xcdef03);
	for (n = 1; n <= 8; n++) {
		be_put(p, UINT64_MAX, n);
		assert_true(be_get(p, n) == UINT64_MAX >> (64 - 8 * n));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock_timeout),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_pending_signals),
		cmocka_unit_test(test_accept_errors),
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_text_escape),
		cmocka_unit_test(test_text_quote),
		cmocka_unit_test(test_text_add),
		cmocka_unit_test(test_text_join),
		cmocka_unit_test(test_parse_number),
		cmocka_unit_test(test_big_endian),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
