/* Unit tests of statistics: the sum, the log line, and the file. */
#include "../../lib/stats.c"

#include <fcntl.h>

#include "said.h"

static char path[] = "/tmp/test_stats.XXXXXX";

static int
setup(void **state)
{
	(void)state;
	said_reset();
	return 0;
}

static const char *
no_fault(const void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return NULL;
}

static const char *
some_fault(const void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return "is a link";
}

/* Three certificates, two in the same file. */
static int
expiry(const void *arg, size_t i, const char **file, int64_t *at)
{
	static const char *const files[] = { "a\"b.pem", "a\"b.pem", "c.pem" };

	(void)arg;
	if (i >= LEN(files))
		return -1;
	*file = files[i];
	*at = 1000 + (int64_t)i;
	return 0;
}

static struct stats_report
some_report(void)
{
	return (struct stats_report){ .config = "/etc/tunnel/web.conf",
	    .version = "1.2.3", .library = "3.6", .workers = 2,
	    .max_connections = 1000, .path = path, .where = "a:1",
	    .fault = no_fault, .expiry = expiry,
	    .sum = { .live = 3, .accepted = 17, .refused = { 1, 2 },
	    .opened = { 4, 5 }, .silent = 6, .in = 100, .out = 200 } };
}

static void
test_sum(void **state)
{
	struct counts sum = { .live = 1, .refused = { 0, 1 } };
	const struct counts more = { .live = 2, .accepted = 3, .served = 4,
	    .resumed = 5, .no_backend = 6, .silent = 7, .over_limit = 8,
	    .dropped = 9, .refused = { 10, 11 }, .opened = { 12, 13 },
	    .in = 14, .out = 15, .lost = 16 };

	(void)state;
	stats_add(&sum, &more);
	assert_int_equal(sum.live, 3);
	assert_int_equal(sum.refused[0], 10);
	assert_int_equal(sum.refused[1], 12);
	assert_int_equal(refused_sum(&sum), 22);
	stats_add(&sum, &more);
	assert_int_equal(sum.accepted, 6);
	assert_int_equal(sum.served, 8);
	assert_int_equal(sum.resumed, 10);
	assert_int_equal(sum.no_backend, 12);
	assert_int_equal(sum.silent, 14);
	assert_int_equal(sum.over_limit, 16);
	assert_int_equal(sum.dropped, 18);
	assert_int_equal(sum.opened[0], 24);
	assert_int_equal(sum.opened[1], 26);
	assert_int_equal(sum.in, 28);
	assert_int_equal(sum.out, 30);
	assert_int_equal(sum.lost, 32);
}

static void
test_log(void **state)
{
	const struct stats st = { .began = clock_ms() };
	struct stats_report r = some_report();
	const char *text;

	(void)state;
	stats_log(&st, &r);
	text = said();
	assert_non_null(strstr(text, "up 0s, 2 workers, live=3 "));
	assert_non_null(strstr(text, " accepted=17 "));
	assert_non_null(strstr(text, " refused=3 "));
	assert_non_null(strstr(text, " silent=6 "));
	r.workers = 1;
	stats_log(&st, &r);
	assert_non_null(strstr(said(), ", 1 worker, "));
}

static const char *
file_text(void)
{
	static char text[16384];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	assert_true(n >= 0);
	text[n] = '\0';
	close(fd);
	return text;
}

/* Wait for the writer. */
static void
reap(struct stats *st)
{
	pid_t pid = st->writer;
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	stats_reaped(st, pid, status);
	assert_int_equal(st->writer, 0);
}

static void
test_file(void **state)
{
	struct stats st = { .began_at = 12345, .generation = 7 };
	struct stats_report r = some_report();
	const char *text;

	(void)state;
	assert_true(stats_due(&st, 0) == INT64_MAX);
	assert_true(stats_due(&st, 1) == 0);
	stats_step(&st, &r);
	assert_true(stats_due(&st, 1) == st.kill_at);
	reap(&st);
	expect_silence();
	assert_false(st.failed);
	assert_in_range(stats_due(&st, 1), clock_ms(), clock_ms() +
	    STATS_EVERY_MS);
	text = file_text();
	assert_non_null(strstr(text,
	    "\ntunnel_connections{service=\"web\"} 3\n"));
	assert_non_null(strstr(text,
	    "{service=\"web\",version=\"1.2.3\"} 1\n"));
	assert_non_null(strstr(text,
	    "handshake_failures_total{service=\"web\",reason=\"not_tls\"} 2"));
	assert_non_null(strstr(text,
	    "seconds{service=\"web\",file=\"a\\\"b.pem\"} 1000\n"));
	assert_int_equal(times_said(text, "file=\"a"), 1);
	assert_non_null(strstr(text, "file=\"c.pem\"} 1002\n"));
	assert_non_null(strstr(text, "generation{service=\"web\"} 7\n"));
	stats_end(&st);
	assert_int_equal(access(path, F_OK), -1);
	free(st.file);
}

/* Reasons have the same class in both roles; labels name the peer. */
static void
test_failures(void **state)
{
	static const struct { const char *reason, *name; int is_client; }
	    cases[] = {
		{ "client certificate \"CN=a\": expired",
		    "client_certificate", 0 },
		{ "server certificate \"CN=a\": expired",
		    "server_certificate", 1 },
		{ "handshake: the client sent a fatal alert: x (1)",
		    "client_alert", 0 },
		{ "handshake: the server sent a fatal alert: x (1)",
		    "server_alert", 1 },
		{ "handshake timeout", "timeout", 1 },
		{ "not TLS: the server sent \"SSH\"", "not_tls", 1 },
		{ "server closed during the handshake", "closed", 1 },
		{ "reset during the handshake", "closed", 1 },
		{ "client reset", "closed", 1 },
		{ "whatever", "other", 1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(failure_name((int)stats_failure(
		    cases[i].reason), cases[i].is_client), cases[i].name);
}

/* A failure is logged once, and the next success. */
static void
test_failure(void **state)
{
	struct stats st = { .generation = 1 };
	struct stats_report r = some_report();

	(void)state;
	r.fault = some_fault;
	stats_step(&st, &r);
	reap(&st);
	assert_non_null(strstr(said(), "a:1: stats_file: "));
	assert_true(st.failed);
	stats_step(&st, &r);
	reap(&st);
	expect_silence();
	r.fault = no_fault;
	stats_step(&st, &r);
	reap(&st);
	assert_non_null(strstr(said(), "written again"));
	assert_false(st.failed);
	stats_end(&st);
	free(st.file);
}

/* A writer that hangs is killed, with a log line. */
static void
test_hanging(void **state)
{
	struct stats st = { .file = path };
	struct stats_report r = some_report();
	int status;
	pid_t pid;

	(void)state;
	if ((pid = fork()) == 0) {
		pause();
		_exit(0);
	}
	st.writer = pid;
	stats_step(&st, &r);
	assert_non_null(strstr(said(), "not written within 5 s"));
	assert_true(stats_due(&st, 1) == INT64_MAX);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	stats_reaped(&st, pid, status);
	assert_true(st.failed);
	expect_silence();
}

#define TEST(name)	cmocka_unit_test_setup(name, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sum),
		TEST(test_log),
		TEST(test_file),
		TEST(test_failures),
		TEST(test_failure),
		TEST(test_hanging),
	};
	int fd, r;

	if (said_init() == -1 || (fd = mkstemp(path)) == -1)
		return 1;
	close(fd);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return r;
}
