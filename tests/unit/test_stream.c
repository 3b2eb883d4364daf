/*
 * Unit tests of the plain stream, over real sockets.  Every other system call
 * is interrupted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define CHECK	assert_true
#include "sockets.h"

static int interrupts;		/* 1: interrupt every other call */

static int
interrupted(void)
{
	if (interrupts == 0 || interrupts++ % 2 == 0)
		return 0;
	errno = EINTR;
	return 1;
}

static ssize_t
fake_recv(int fd, void *buf, size_t len, int flags)
{
	return interrupted() ? -1 : recv(fd, buf, len, flags);
}

static ssize_t
fake_send(int fd, const void *buf, size_t len, int flags)
{
	assert_true(flags & MSG_NOSIGNAL);
	return interrupted() ? -1 : send(fd, buf, len, flags);
}

#define recv		fake_recv
#define send		fake_send
#include "../../lib/stream.c"
#undef recv
#undef send

static char much[1 << 16];

/* Close with RST. */
static void
reset(int fd)
{
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
	close(fd);
}

/* The plain stream. */

static void
test_plain(void **state)
{
	struct stream s = { .ops = &stream_plain };
	char buf[8];
	int fds[2], i;

	(void)state;
	interrupts = 1;
	unix_pair(fds);
	s.fd = fds[0];
	assert_int_equal(stream_plain.open(&s), 0);
	for (i = 0; i < 20; i++) {
		assert_int_equal(stream_plain.read(&s, buf, 8),
		    STREAM_WANT_READ);
		assert_int_equal(stream_plain.write(&s, "ab", 2), 2);
		assert_int_equal(recv(fds[1], buf, 8, 0), 2);
		assert_int_equal(send(fds[1], "x", 1, 0), 1);
		assert_int_equal(stream_plain.read(&s, buf, 8), 1);
	}
	assert_int_equal(stream_plain.pending(&s), 0);
	while (stream_plain.write(&s, much, sizeof(much)) > 0)
		continue;
	assert_int_equal(stream_plain.write(&s, buf, 1), STREAM_WANT_WRITE);
	assert_int_equal(stream_plain.finish(&s), 0);
	assert_int_equal(stream_plain.write(&s, buf, 1), STREAM_RESET);
	shutdown(fds[1], SHUT_WR);
	assert_int_equal(stream_plain.read(&s, buf, 8), STREAM_EOF);
	close(fds[1]);
	close(s.fd);
	assert_int_equal(stream_plain.read(&s, buf, 8), STREAM_ERROR);
	assert_int_equal(s.err, EBADF);
	assert_string_equal(stream_plain.error(&s), strerror(EBADF));
	interrupts = 0;
}

static void
test_plain_resets(void **state)
{
	struct stream s = { .ops = &stream_plain };
	char buf[8];
	int fds[2];

	(void)state;
	tcp_pair(fds);
	s.fd = fds[0];
	reset(fds[1]);
	assert_true(is_ready(s.fd, POLLIN, 1000));
	assert_int_equal(stream_plain.read(&s, buf, 8), STREAM_RESET);
	/* A reset that is noticed at finish() is not an error either. */
	assert_int_equal(stream_plain.finish(&s), STREAM_RESET);
	close(s.fd);
	tcp_pair(fds);
	s.fd = fds[0];
	stream_plain.abort(&s);
	close(s.fd);
	assert_true(is_ready(fds[1], POLLIN, 1000));
	assert_int_equal(recv(fds[1], buf, 8, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(fds[1]);
	s.fd = dial_nobody();
	assert_int_equal(stream_plain.open(&s), STREAM_ERROR);
	assert_string_equal(stream_plain.error(&s), strerror(ECONNREFUSED));
	close(s.fd);
	/* As if connect(2) is in progress: no peer and no error. */
	s.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(stream_plain.open(&s), STREAM_WANT_WRITE);
	close(s.fd);
}

/* TCP does that if the port is in the ephemeral range. */
static void
test_connected_to_itself(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *sa = (struct sockaddr *)&sin;
	struct stream s = { .fd = socket(AF_INET, SOCK_STREAM, 0) };
	socklen_t len = sizeof(sin);

	(void)state;
	assert_int_equal(bind(s.fd, sa, len), 0);
	assert_int_equal(getsockname(s.fd, sa, &len), 0);
	assert_int_equal(connect(s.fd, sa, len), 0);
	assert_int_equal(stream_plain.open(&s), STREAM_ERROR);
	assert_int_equal(s.err, ECONNREFUSED);
	close(s.fd);
}

static void
test_flushed(void **state)
{
	struct stream s = { .ops = &stream_plain };
	int fds[2], i;

	(void)state;
	unix_pair(fds);
	s.fd = fds[0];
	assert_int_equal(stream_plain.write(&s, "x", 1), 1);
	assert_true(stream_plain.flushed(&s));
	assert_false(stream_is_dead(&s, 0));
	close(fds[0]);
	close(fds[1]);
	/* A full window, which is then read. */
	tcp_pair(fds);
	s.fd = fds[0];
	while (stream_plain.write(&s, much, sizeof(much)) > 0)
		continue;
	assert_false(stream_plain.flushed(&s));
	assert_false(stream_is_dead(&s, 60000));
	for (i = 0; i < 1000 && !stream_plain.flushed(&s); i++)
		while (is_ready(fds[1], POLLIN, 10) &&
		    recv(fds[1], much, sizeof(much), 0) > 0)
			continue;
	assert_true(stream_plain.flushed(&s));
	close(fds[0]);
	close(fds[1]);
}

/* finish() undoes a prepared abort. */
static void
test_finish_after_reset(void **state)
{
	struct stream s = { .ops = &stream_plain };
	char buf[8];
	int fds[2];

	(void)state;
	tcp_pair(fds);
	s.fd = fds[0];
	stream_reset(&s);
	assert_int_equal(stream_plain.write(&s, "x", 1), 1);
	assert_int_equal(stream_plain.finish(&s), 0);
	close(s.fd);
	assert_true(is_ready(fds[1], POLLIN, 1000));
	assert_int_equal(recv(fds[1], buf, 8, 0), 1);
	assert_true(is_ready(fds[1], POLLIN, 1000));
	assert_int_equal(recv(fds[1], buf, 8, 0), 0);
	close(fds[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_plain_resets),
		cmocka_unit_test(test_connected_to_itself),
		cmocka_unit_test(test_flushed),
		cmocka_unit_test(test_finish_after_reset),
	};

	listener = listener_new(&listener_addr);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
