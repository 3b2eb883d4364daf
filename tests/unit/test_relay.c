/* Unit tests of relay, which is included for its static functions. */
#include "../../lib/relay.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Call relay_is_needed() with these as 0 and 1, then restore them. */
static int
is_needed_by(int is_client, int in, int out)
{
	int old_in = dup(STDIN_FILENO), old_out = dup(STDOUT_FILENO), r;

	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	r = relay_is_needed(is_client);
	dup2(old_in, STDIN_FILENO);
	dup2(old_out, STDOUT_FILENO);
	close(old_in);
	close(old_out);
	return r;
}

static int
is_needed(int in, int out)
{
	return is_needed_by(0, in, out);
}

static void
listen_and_connect(int fds[3])
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(un);

	/*
	 * An abstract address, chosen by the kernel, as the journal's socket.
	 */
	fds[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fds[0], (struct sockaddr *)&un,
	    sizeof(sa_family_t)), 0);
	assert_int_equal(listen(fds[0], 1), 0);
	assert_int_equal(getsockname(fds[0], (struct sockaddr *)&un, &len), 0);
	fds[1] = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(connect(fds[1], (struct sockaddr *)&un, len), 0);
	fds[2] = accept(fds[0], NULL, NULL);
	assert_int_not_equal(fds[2], -1);
}

static void
close_all(const int *fds, int n)
{
	while (n-- > 0)
		close(fds[n]);
}

static void
test_what_needs_one(void **state)
{
	int a[2], b[2], p[2], named[3];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	listen_and_connect(named);
	assert_int_equal(is_needed(p[0], p[1]), 1);
	assert_int_equal(is_needed(p[0], a[0]), 1);
	assert_int_equal(is_needed(a[0], b[0]), 1);
	assert_int_equal(is_needed(a[0], a[0]), 0);
	assert_int_equal(is_needed(a[0], p[1]), 0);
	/* A socket of inetd, with a log that is a socket, too. */
	assert_int_equal(is_needed(named[2], named[1]), 0);
	assert_int_equal(is_needed(a[0], named[1]), 0);
	/* A client's output goes to the redirection of a shell. */
	assert_int_equal(is_needed_by(1, a[0], p[1]), 1);
	assert_int_equal(is_needed_by(1, a[0], a[0]), 0);
	assert_int_equal(is_needed_by(1, a[0], named[1]), 0);
	assert_int_equal(is_needed_by(1, named[2], p[1]), 0);
	close_all(p, 2);
	close_all(a, 2);
	close_all(b, 2);
	close_all(named, 3);
}

/* The result of relay_check() after the relay has written this and exited. */
static const char *
verdict(const void *said, size_t len)
{
	struct relay r = RELAY_NONE;
	const char *why;
	int p[2];

	assert_int_equal(pipe2(p, O_NONBLOCK), 0);
	r.status = p[0];
	assert_null(relay_check(&r));
	assert_int_equal(r.status, p[0]);
	assert_int_equal(write(p[1], said, len), len);
	close(p[1]);
	why = relay_check(&r);
	assert_int_equal(r.status, -1);
	assert_null(relay_check(&r));
	return why;
}

static void
test_verdicts(void **state)
{
	const struct verdict well = { 0, 0 }, in = { 0, EIO },
	    out = { 1, EPIPE }, self = { 7, ENOSYS };

	(void)state;
	assert_null(verdict(&well, sizeof(well)));
	assert_string_equal(verdict(&in, sizeof(in)),
	    "standard input: Input/output error");
	assert_string_equal(verdict(&out, sizeof(out)),
	    "standard output: Broken pipe");
	assert_string_equal(verdict(&self, sizeof(self)),
	    "relay: Function not implemented");
	assert_string_equal(verdict("", 0), "relay killed");
}

/* A direction from a pipe to a socket, step by step. */
static void
test_direction(void **state)
{
	static struct way w;
	char got[8];
	int p[2], s[2];

	(void)state;
	assert_int_equal(pipe(p), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	w = (struct way){ .from = p[0], .to = s[0], .most = 3 };
	assert_int_equal(write(p[1], "hello", 5), 5);
	close(p[1]);
	assert_int_equal(way_step(&w, s[0]), 0);
	assert_int_equal(w.len, 5);
	assert_int_equal(way_step(&w, s[0]), 0);
	assert_int_equal(w.len, 2);
	assert_int_equal(way_step(&w, s[0]), 0);
	assert_int_equal(w.len, 0);
	assert_int_equal(way_step(&w, s[0]), 0);
	assert_int_equal(w.from, -1);
	assert_int_equal(w.to, -1);
	assert_int_equal(read(s[1], got, sizeof(got)), 5);
	assert_memory_equal(got, "hello", 5);
	assert_int_equal(read(s[1], got, sizeof(got)), 0);
	/* The other direction of the socket still works. */
	assert_int_equal(write(s[1], "hi", 2), 2);
	assert_int_equal(read(s[0], got, sizeof(got)), 2);
	close(p[0]);
	close_all(s, 2);
}

/* A closed socket is an end; a closed pipe is an error. */
static void
test_direction_that_is_gone(void **state)
{
	static struct way w;
	int p[2], s[2];

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	close(s[1]);
	w = (struct way){ .from = p[0], .to = s[0], .most = 3, .len = 3 };
	assert_int_equal(way_step(&w, s[0]), 0);
	assert_int_equal(w.from, -1);
	close(p[0]);
	w = (struct way){ .from = s[0], .to = p[1], .most = 3, .len = 3 };
	assert_int_equal(way_step(&w, s[0]), -1);
	assert_int_equal(errno, EPIPE);
	close(p[1]);
	close(s[0]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_needs_one),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_direction),
		cmocka_unit_test(test_direction_that_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
