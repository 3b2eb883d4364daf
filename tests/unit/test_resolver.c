/* Unit tests of the resolver: answers, and shared memory. */
#include "../../lib/resolver.c"

#include <arpa/inet.h>

#include "said.h"

static int cut;
static const char *why;

/* An answer with n addresses from 10.0.0.first on. */
static struct answer
some_answer(unsigned first, uint32_t n)
{
	struct answer a;
	uint32_t i;

	memset(&a, 0, sizeof(a));
	a.list.n = n;
	for (i = 0; i < n && i < ADDRESSES; i++) {
		a.list.to[i].in.sin_family = AF_INET;
		a.list.to[i].in.sin_port = 7;
		a.list.to[i].in.sin_addr.s_addr = htonl(0x0a000000 + first + i);
	}
	return a;
}

/* Call resolver_take() with this part of an answer. */
static int
take(struct target *t, struct names *names, const struct answer *a, size_t len)
{
	struct resolver r = { .child = 1 };
	int fds[2], taken, error;

	assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	assert_int_equal(write(fds[1], a, len), len);
	close(fds[1]);
	r.fd = fds[0];
	taken = resolver_take(&r, t, names, &cut, &why);
	error = errno;
	assert_int_equal(r.child, 0);
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);
	errno = error;
	return taken;
}

static struct target
some_name(void)
{
	return (struct target){ .given = "db:80", .port = 80, .is_name = 1 };
}

static void
test_answer(void **state)
{
	struct names names = NAMES_NONE;
	struct target t = some_name();
	struct answer a = some_answer(1, 2);

	(void)state;
	a.list.to[1].in6.sin6_family = AF_INET6;
	inet_pton(AF_INET6, "::1", &a.list.to[1].in6.sin6_addr);
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	assert_int_equal(t.to->n, 2);
	assert_string_equal(t.to->list[0].text, "10.0.0.1:80");
	assert_string_equal(t.to->list[1].text, "[::1]:80");
	assert_int_equal(t.to->list[1].len, sizeof(struct sockaddr_in6));
	assert_false(cut);
	a = some_answer(1, ADDRESSES);
	a.is_cut = 7;
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	assert_int_equal(t.to->n, ADDRESSES);
	assert_true(cut);
	net_release(t.to);
}

/* Invalid answers are refused. */
static void
test_bad_answers(void **state)
{
	struct names names = NAMES_NONE;
	struct target t = some_name();
	struct answer a = some_answer(1, 2);
	static const uint32_t counts[] = { 0, ADDRESSES + 1, UINT32_MAX };
	static const sa_family_t families[] = { AF_UNSPEC, AF_UNIX, 99 };
	size_t i;

	(void)state;
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	for (i = 0; i < LEN(counts); i++) {
		a.list.n = counts[i];
		assert_int_equal(take(&t, &names, &a, sizeof(a)), -1);
		assert_int_equal(errno, EAGAIN);
	}
	for (i = 0; i < LEN(families); i++) {
		a = some_answer(3, 2);
		a.list.to[1].any.sa_family = families[i];
		assert_int_equal(take(&t, &names, &a, sizeof(a)), -1);
	}
	a = some_answer(3, 2);
	assert_int_equal(take(&t, &names, &a, sizeof(a) - 1), -1);
	assert_int_equal(take(&t, &names, &a, 0), -1);
	assert_string_equal(why, "no valid answer within 10 s");
	assert_int_equal(t.to->n, 2);
	assert_string_equal(t.to->list[0].text, "10.0.0.1:80");
	net_release(t.to);
}

static void
test_errors(void **state)
{
	static const struct { int error, retries; } all[] = {
		{ EAI_AGAIN, 1 }, { EAI_NONAME, 0 }, { 12345, 0 },
	};
	struct names names = NAMES_NONE;
	struct target t = some_name();
	struct answer a;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(all); i++) {
		a = some_answer(1, 1);
		a.error = all[i].error;
		assert_int_equal(take(&t, &names, &a, sizeof(a)), -1);
		assert_int_equal(errno == EAGAIN, all[i].retries);
		assert_string_equal(why, gai_strerror(a.error));
	}
	assert_null(t.to);
}

/* Another order is no change; held addresses stay valid. */
static void
test_order(void **state)
{
	struct names names = NAMES_NONE;
	struct target t = some_name();
	struct answer a = some_answer(1, 3);
	struct addresses *held;

	(void)state;
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	held = t.to;
	a.list.to[0] = some_answer(3, 1).list.to[0];
	a.list.to[2] = some_answer(1, 1).list.to[0];
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 0);
	assert_ptr_equal(t.to, held);
	net_hold(held);
	a = some_answer(2, 3);
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	assert_string_equal(held->list[0].text, "10.0.0.1:80");
	net_release(held);
	a = some_answer(2, 2);
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	a = some_answer(2, 3);
	assert_int_equal(take(&t, &names, &a, sizeof(a)), 1);
	net_release(t.to);
}

/* The names of the master and of a worker, each with its targets. */
struct both {
	struct target ours[3], theirs[3];
	struct names names, view;
};

static void
share(struct both *b)
{
	struct targets all = { .list = b->ours, .n = LEN(b->ours) };
	struct answer a = some_answer(1, 1);
	size_t i;

	memset(b, 0, sizeof(*b));
	b->names = (struct names)NAMES_NONE;
	for (i = 0; i < all.n; i++) {
		b->ours[i] = some_name();
		b->ours[i].is_name = i != 1;
		b->ours[i].row = SIZE_MAX;
		assert_int_equal(take(&b->ours[i], &b->names, &a, sizeof(a)),
		    1);
	}
	assert_int_equal(resolver_share(&b->names, &all), 0);
	assert_int_equal(b->names.n, 2);
	for (i = 0; i < all.n; i++) {
		b->theirs[i] = b->ours[i];
		net_hold(b->ours[i].to);
	}
	b->view = b->names;
	b->view.rows = NULL;
}

static void
unshare_all(struct both *b)
{
	size_t i;

	for (i = 0; i < LEN(b->ours); i++) {
		net_release(b->ours[i].to);
		net_release(b->theirs[i].to);
	}
	resolver_free(&b->names);
	resolver_free(&b->names);
}

static void
test_worker_follows(void **state)
{
	struct answer a;
	struct both b;
	size_t i;
	unsigned n;

	(void)state;
	share(&b);
	for (n = 2; n < 6; n++) {
		a = some_answer(n, 2);
		assert_int_equal(take(&b.ours[2], &b.names, &a, sizeof(a)), 1);
		for (i = 0; i < LEN(b.theirs); i++)
			resolver_refresh(&b.view, &b.theirs[i]);
		assert_int_equal(b.theirs[0].to->n, 1);
		assert_int_equal(b.theirs[1].to->n, 1);
		assert_int_equal(b.theirs[2].to->n, 2);
		assert_string_equal(b.theirs[2].to->list[1].text,
		    b.ours[2].to->list[1].text);
	}
	unshare_all(&b);
}

/* A writer is killed, or overwrites the list that is read. */
static void
test_torn(void **state)
{
	struct both b;
	struct row *row;
	struct answer a = some_answer(2, 2);

	(void)state;
	share(&b);
	row = &b.names.rows[0];
	/* A partly written list is not read. */
	memset(&row->lists[(row->turn + 1) % 2], 0xff, sizeof(struct list));
	resolver_refresh(&b.view, &b.theirs[0]);
	assert_string_equal(b.theirs[0].to->list[0].text, "10.0.0.1:80");
	/* An invalid list is ignored; the next one is used. */
	row->turn++;
	resolver_refresh(&b.view, &b.theirs[0]);
	assert_string_equal(b.theirs[0].to->list[0].text, "10.0.0.1:80");
	assert_int_equal(take(&b.ours[0], &b.names, &a, sizeof(a)), 1);
	resolver_refresh(&b.view, &b.theirs[0]);
	assert_string_equal(b.theirs[0].to->list[0].text, "10.0.0.2:80");
	unshare_all(&b);
}

/* Readers see complete lists during permanent writing. */
static void
test_race(void **state)
{
	struct both b;
	struct answer a;
	pid_t pid;
	uint32_t i;
	int n;

	(void)state;
	share(&b);
	if ((pid = fork()) == 0) {
		for (i = 1;; i++) {
			a = some_answer((i % 200) << 16 | i % 200,
			    1 + i % ADDRESSES);
			take(&b.ours[0], &b.names, &a, sizeof(a));
		}
	}
	assert_int_not_equal(pid, -1);
	for (n = 0; n < 2000;) {
		const struct addresses *before = b.theirs[0].to, *to;
		struct in_addr first, last;

		resolver_refresh(&b.view, &b.theirs[0]);
		if ((to = b.theirs[0].to) == before)
			continue;
		first = ((const struct sockaddr_in *)(const void *)
		    &to->list[0].sa)->sin_addr;
		last = ((const struct sockaddr_in *)(const void *)
		    &to->list[to->n - 1].sa)->sin_addr;
		assert_int_equal(ntohl(last.s_addr) - ntohl(first.s_addr),
		    to->n - 1);
		n++;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	unshare_all(&b);
}

/* A worker can't make the memory writable; another program can map it. */
static void
test_rights(void **state)
{
	struct names again = NAMES_NONE;
	struct both b;
	size_t size;
	pid_t pid;
	int status;

	(void)state;
	share(&b);
	size = b.names.n * sizeof(struct row);
	again.n = b.names.n;
	assert_true((again.fd = dup(b.names.fd)) != -1);
	assert_null(resolver_attach(&again));
	assert_memory_equal(again.view, b.names.rows, size);
	resolver_free(&again);
	if ((pid = fork()) == 0) {
		resolver_leave(&b.names);
		_exit(b.names.rows != NULL || b.names.fd != -1 ||
		    mprotect((void *)(uintptr_t)b.names.view, size,
		    PROT_READ | PROT_WRITE) != -1 || errno != EACCES);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	again.n = b.names.n + 1;
	again.fd = dup(b.names.fd);
	assert_non_null(resolver_attach(&again));
	resolver_free(&again);
	unshare_all(&b);
}

static void
no_secrets(void *arg)
{
	(void)arg;
}

/* A lookup by a child; after its answer, there is no wait for its exit. */
static void
test_child(void **state)
{
	const struct identity id = { .uid = geteuid(), .gid = getegid() };
	struct names names = NAMES_NONE;
	struct target t = some_name();
	struct resolver r = { .child = 0 };

	(void)state;
	t.given = "localhost:80";
	assert_int_equal(resolver_start(&r, &t, &id, no_secrets, NULL), 0);
	resolver_await(&r);
	assert_int_equal(resolver_take(&r, &t, &names, &cut, &why), 1);
	assert_int_equal(net_address_port(&t.to->list[0]), 80);
	assert_int_equal(resolver_start(&r, &t, &id, no_secrets, NULL), 0);
	resolver_stop(&r);
	assert_int_equal(r.child, 0);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	resolver_stop(&r);
	net_release(t.to);
}

static void
hang(void *arg)
{
	for (;;)
		poll(arg, 0, -1);
}

static void
test_late(void **state)
{
	const struct identity id = { .uid = geteuid(), .gid = getegid() };
	struct names names = NAMES_NONE;
	struct target t = some_name();
	struct resolver r = { .child = 0 };

	(void)state;
	assert_int_equal(resolver_start(&r, &t, &id, hang, NULL), 0);
	resolver_kill(&r);
	resolver_await(&r);
	assert_int_equal(resolver_take(&r, &t, &names, &cut, &why), -1);
	assert_int_equal(errno, EAGAIN);
	assert_string_equal(why, "no valid answer within 10 s");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_bad_answers),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_worker_follows),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_rights),
		cmocka_unit_test(test_child),
		cmocka_unit_test(test_late),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
