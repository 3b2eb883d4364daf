/*
 * Unit tests of the program: tunnel.c is included, to reach what is static.
 */
#define main tunnel_main
#include "../../tunnel.c"
#undef main

#include <ctype.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "said.h"

static int
setup(void **state)
{
	static struct config cfg;

	memset(&cfg, 0, sizeof(cfg));
	config_defaults(&cfg);
	*state = &cfg;
	said_reset();
	return 0;
}

static int
teardown(void **state)
{
	config_free(*state);
	return 0;
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
test_exit_code(void **state)
{
	static const struct { char *argument; const char *part; } bad[] = {
		{ "nonsense=1", "unknown key" },
		{ "accept=1", "missing: cert" },
		{ "-c/nonexistent/file", "/nonexistent/file: " },
	};
	char *argv[3] = { "tunnel", NULL, NULL };
	int log = logging.fd, standard = dup(STDERR_FILENO);
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		argv[1] = bad[i].argument;
		optind = 1;
		logging.fd = dup2(log, STDERR_FILENO);
		assert_int_equal(tunnel_main(2, argv), EXIT_CONFIG);
		assert_int_equal(logging.fd, STDERR_FILENO);
		expect_among("", bad[i].part);
	}
	logging.fd = log;
	dup2(standard, STDERR_FILENO);
	close(standard);
}

/* Workers and their shares. */

static void
test_slots(void **state)
{
	struct config *cfg = *state;

	cfg->number[MAX_CONNECTIONS] = 50;
	assert_int_equal(count_slots(cfg, 0), 1);
	cfg->number[WORKERS] = 0;
	assert_in_range(count_slots(cfg, 0), 1, 50);
	cfg->number[WORKERS] = 7;
	assert_int_equal(count_slots(cfg, 0), 7);
	assert_int_equal(count_slots(cfg, 1), 1);
	cfg->number[MODE] = FORK;
	assert_int_equal(count_slots(cfg, 0), 50);
	assert_int_equal(count_slots(cfg, 1), 1);
}

/*
 * mode = fork: a worker may have been asked to make room too early by its own
 * clock, if it was slow to start.
 */
static void
test_asked_again(void **state)
{
	struct counts counts = { .live = 1 };
	struct slot slot = { .control = -1 };
	struct service sv = { .workers = { .slots = &slot, .nslots = 1, .n = 1 },
	    .board = { .counts = &counts } };
	struct master m = { .live = &sv };
	const struct timespec limit = { .tv_sec = 3 };
	int64_t until = clock_ms() + 10000;
	int line[2], fd, i;
	struct order o;
	sigset_t set;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line), 0);
	slot.control = line[0];
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if ((slot.pid = fork()) == 0) {
		for (i = 0; i < 2; i++)
			if (sigtimedwait(&set, NULL, &limit) != SIGHUP ||
			    take_order(line[1], &o, &fd) == -1 ||
			    o.what != MAKE_ROOM)
				_exit(1);
		_exit(0);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	while (waitpid(slot.pid, &i, WNOHANG) == 0 && clock_ms() < until) {
		ask_for_room(&m);
		poll(NULL, 0, 10);
	}
	assert_true(WIFEXITED(i) && WEXITSTATUS(i) == 0);
	close(line[0]);
	close(line[1]);
}

/* A crash loop is slowed down; a single crash is not. */
static void
test_backoff(void **state)
{
	struct workers ws = { .n = 0 };
	int64_t before = clock_ms(), ms, last = 0;
	int i;

	(void)state;
	assert_int_equal(workers_failed(&ws), 0);
	ws.retry_at = before;
	assert_int_equal(workers_failed(&ws), RETRY_MS);
	/* Those that fail meanwhile are the same one. */
	assert_in_range(workers_failed(&ws), 1, RETRY_MS);
	assert_int_equal(ws.failures, 2);
	for (i = 0; i < 100; i++) {
		ws.retry_at = before;
		ms = workers_failed(&ws);
		assert_in_range(ms, last, RETRY_MAX_MS);
		assert_true(ms > last || ms == RETRY_MAX_MS);
		assert_true(ws.retry_at >= before + ms);
		last = ms;
	}
	assert_int_equal(last, RETRY_MAX_MS);
	ws.retry_at = before - HEALTHY_MS;
	assert_int_equal(workers_failed(&ws), 0);
}

/* An address takes part of its limit along, over generations of any size. */
static int
enter(struct service *sv, struct share *w, volatile uint64_t **place)
{
	return scoreboard_enter(&sv->board, w, 7, may_have(sv, 7), place);
}

static void
test_places_of_generations(void **state)
{
	struct service sv[3];
	struct share w[3] = { { .used = 0 } };
	volatile uint64_t *first, *place;
	int64_t limits[3] = { 0, 9, 4 };
	size_t i;

	for (i = 0; i < 3; i++) {
		sv[i] = (struct service){ .cfg = *(struct config *)*state,
		    .board = SCOREBOARD_NONE,
		    .older = i > 0 ? &sv[i - 1] : NULL };
		sv[i].cfg.number[MAX_PER_IP] = limits[i];
		assert_int_equal(scoreboard_new(&sv[i].board, 6 << 4 * i, 1,
		    0), 0);
		w[i].unused = calloc(6 << 4 * i, sizeof(*w[i].unused));
		assert_non_null(w[i].unused);
	}
	assert_int_equal(enter(&sv[0], &w[0], &first), 0);
	assert_int_equal(enter(&sv[0], &w[0], &place), 0);
	assert_int_equal(enter(&sv[1], &w[1], &place), 0);
	assert_int_equal(enter(&sv[2], &w[2], &place), 0);
	/* The fifth, which one that leaves makes room for: any way it does. */
	assert_int_equal(enter(&sv[2], &w[2], &place), -1);
	scoreboard_leave(&sv[0].board, &w[0], 7, first);
	assert_int_equal(enter(&sv[2], &w[2], &place), 0);
	assert_int_equal(enter(&sv[2], &w[2], &place), -1);
	scoreboard_vacate(&sv[0].board, 0);
	assert_int_equal(enter(&sv[2], &w[2], &place), 0);
	assert_int_equal(enter(&sv[2], &w[2], &place), -1);
	for (i = 0; i < 3; i++) {
		scoreboard_free(&sv[i].board);
		free(w[i].unused);
	}
}

/* And the next day again. */
static void
test_daily_warning(void **state)
{
	struct service sv = { .tls = tls_config_new() };
	struct master m = { .live = &sv };
	const int64_t day = DAY * INT64_C(1000);

	(void)state;
	assert_non_null(sv.tls);
	warn_daily(&m);
	assert_in_range(m.warn_at - clock_ms(), day - 10000, day);
	tls_config_free(sv.tls);
}

/* The sandbox, in children, who tell how far they have come. */

#define MUST(condition)	do { if (!(condition)) _exit(__LINE__ % 255 + 1); } \
	while (0)

static void
in_child(void (*function)(const struct service *, int), int port)
{
	struct config cfg = { 0 };
	struct value v = { .text = "x", .where = "y" };
	struct target t = { .n = 1, .fd = -1, .value = &v };
	struct service sv = { .cfg = cfg, .connects = { &t, 1 } };
	int status;
	pid_t pid;

	assert_int_equal(address_numeric(t.addrs, "127.0.0.1",
	    (in_port_t)port), 0);
	if ((pid = fork()) == 0) {
		function(&sv, port);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("status 0x%x: the line is %d, modulo 255", status,
		    WEXITSTATUS(status) - 1);
}

/* A socket that listens, on any port. */
static int
some_listener(int *port)
{
	struct address a = { .len = 0 };
	int fd;

	assert_int_equal(address_numeric(&a, "127.0.0.1", 0), 0);
	assert_true((fd = listen_on(&a, 0)) != -1);
	a.len = sizeof(a.sa);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a.sa, &a.len), 0);
	*port = address_port(&a);
	return fd;
}

static int
connects(int port)
{
	struct address a = { .len = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), r;

	address_numeric(&a, "127.0.0.1", (in_port_t)port);
	r = connect(fd, (struct sockaddr *)&a.sa, a.len);
	if (r == -1)
		return close_failed(fd);
	close(fd);
	return 0;
}

static int
binds(void)
{
	struct address a = { .len = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address_numeric(&a, "127.0.0.1", 0);
	return bind(fd, (struct sockaddr *)&a.sa, a.len);
}

static int other_port;

static void
child_of_landlock(const struct service *sv, int port)
{
	char *argv[] = { "true", NULL };

	MUST(open("/etc/passwd", O_RDONLY) != -1);
	MUST(connects(other_port) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(landlock_enter(sv) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES);
	MUST(open("/", O_RDONLY) == -1 && errno == EACCES);
	MUST(mkdir("/tmp/tunnel.unit", 0700) == -1 && errno == EACCES);
	MUST(execv("/bin/true", argv) == -1 && errno == EACCES);
	MUST(connects(port) == 0);
	if (landlock_abi() >= LANDLOCK_WITH_TCP) {
		MUST(connects(other_port) == -1 && errno == EACCES);
		MUST(binds() == -1 && errno == EACCES);
	}
	if (landlock_abi() >= LANDLOCK_WITH_SCOPES)
		MUST(kill(getppid(), 0) == -1 && errno == EPERM);
}

static void
child_of_filter(const struct service *sv, int port)
{
	char *argv[] = { "true", NULL };
	const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	const struct linger off = { .l_onoff = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), real = port;
	const struct rlimit limit = { 64, 64 };
	int shared = fcntl(fd, F_DUPFD, 64);
	socklen_t len = sizeof(port);

	MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(filter_enter(sv) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1 && errno == ENOSYS);
	MUST(execv("/bin/true", argv) == -1 && errno == ENOSYS);
	MUST(fork() == -1 && errno == ENOSYS);
	MUST(binds() == -1 && errno == ENOSYS);
	MUST(listen(fd, 1) == -1 && errno == ENOSYS);
	MUST(kill(getppid(), 0) == -1 && errno == ENOSYS);
	MUST(mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
	    -1, 0) == MAP_FAILED && errno == EPERM);
	MUST(mprotect(argv, 1, PROT_EXEC) == -1 && errno == EPERM);
	MUST(mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	    MAP_FAILED);
	MUST(socket(AF_INET, SOCK_DGRAM, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_RAW, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_STREAM, 262) == -1 && errno == EPERM);
	MUST(socket(AF_NETLINK, SOCK_STREAM, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0) != -1 || errno == EAFNOSUPPORT);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == -1 && errno == EPERM);
	MUST(send(fd, "", 1, MSG_FASTOPEN) == -1 && errno == EPERM);
	MUST(fcntl(fd, F_SETFL, 0) == -1 && errno == ENOSYS);
	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &port, sizeof(port)) ==
	    -1 && errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_IP, IP_TTL, &port, sizeof(port)) == -1 &&
	    errno == EPERM);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, &len) == -1 &&
	    errno == EPERM);
	/* As the names above, by their numbers, at another level. */
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &port, len) == -1 &&
	    errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == -1 &&
	    errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, len) == 0);
	MUST(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &port, len) == 0);
	MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) == 0);
	MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &port, &len) == 0);
	/* What the master and others have, too. */
	MUST(shutdown(shared, SHUT_RDWR) == -1 && errno == EPERM);
	MUST(setsockopt(shared, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) ==
	    -1 && errno == EPERM);
	MUST(connect(shared, &nowhere, sizeof(nowhere)) == -1 &&
	    errno == EPERM);
	MUST(shutdown(STDERR_FILENO, SHUT_RDWR) == -1 && errno == EPERM);
	/* Descriptors are passed to nobody, and nobody else is written to. */
	MUST(sendmsg(fd, NULL, 0) == -1 && errno == ENOSYS);
	MUST(recvmsg(fd, NULL, 0) == -1 && errno == EPERM);
	MUST(recvmsg(shared + 1, NULL, 0) == -1 && errno == EPERM);
	MUST(dup3(fd, shared, 0) == -1 && errno == EPERM);
	/* But for the line to the master, which is the first past the limit. */
	MUST(recvmsg(shared, NULL, 0) == -1 && errno == EFAULT);
	MUST(sendto(fd, "", 1, 0, &nowhere, sizeof(nowhere)) == -1 &&
	    errno == EPERM);
	MUST(connects(real) == 0 && connects(other_port) == 0);
}

static void
child_of_sandbox(const struct service *sv, int port)
{
	char text[8];

	MUST(sandbox_enter(sv) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1);
	MUST(execlp("true", "true", (char *)NULL) == -1);
	MUST(connects(port) == 0);
	MUST(landlock_abi() < LANDLOCK_WITH_TCP || connects(other_port) == -1);
	/* What a worker does need. */
	MUST(getrandom(text, sizeof(text), 0) == sizeof(text));
	MUST(poll(NULL, 0, 1) == 0);
	MUST(clock_ms() > 0);
	MUST(snprintf(text, sizeof(text), "%d", 5) == 1);
	free(malloc(1 << 20));
	log_info("still here");
}

static void
test_sandbox(void **state)
{
	int port, listeners[2];

	(void)state;
	listeners[0] = some_listener(&port);
	listeners[1] = some_listener(&other_port);
	if (landlock_abi() > 0)
		in_child(child_of_landlock, port);
	if (has_filter())
		in_child(child_of_filter, port);
	in_child(child_of_sandbox, port);
	assert_string_equal(said(), "tunnel: still here\n");
	close(listeners[0]);
	close(listeners[1]);
}

/* Addresses. */

static void
test_split_address(void **state)
{
	static const struct { const char *text, *host, *port; } good[] = {
		{ "443", "", "443" }, { ":443", "", "443" },
		{ "*:443", "", "443" }, { "host:443", "host", "443" },
		{ "1.2.3.4:0", "1.2.3.4", "0" }, { "[::1]:80", "::1", "80" },
		{ "[fe80::1%lo]:80", "fe80::1%lo", "80" },
		{ "host:", "host", "" }, { "[::]:x", "::", "x" },
	};
	static const char *const bad[] = {
		"::1:443", "::1", "a:b:c", "[::1]", "[::1:443", "::1]:443",
		"[::1]x:443", "x[::1]:443"
	};
	char host[64], tiny[5];
	const char *port;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(split_address(good[i].text, host,
		    sizeof(host), &port), 0);
		assert_string_equal(host, good[i].host);
		assert_string_equal(port, good[i].port);
	}
	for (i = 0; i < LEN(bad); i++)
		if (split_address(bad[i], host, sizeof(host), &port) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	assert_int_equal(split_address("host:1", tiny, sizeof(tiny), &port), 0);
	assert_int_equal(split_address("hosts:1", tiny, sizeof(tiny), &port),
	    -1);
}

static int
resolved(struct target *t, const char *text, int passive)
{
	static struct value v;
	static char copy[512], where[] = WHERE;

	snprintf(copy, sizeof(copy), "%s", text);
	v = (struct value){ .text = copy, .where = where };
	memset(t, 0, sizeof(*t));
	return resolve(t, &v, passive);
}

static void
test_resolve(void **state)
{
	static const struct { const char *text, *to; int passive; } good[] = {
		{ "6379", "127.0.0.1:6379", 0 }, { "*:1", "127.0.0.1:1", 0 },
		{ "10.1.2.3:65535", "10.1.2.3:65535", 0 },
		{ "10.1.2.3:0", "10.1.2.3:0", 1 },
		{ "[::1]:80", "[::1]:80", 0 },
		{ "[2001:DB8:0:0::1]:80", "[2001:db8::1]:80", 0 },
		{ "[::ffff:192.0.2.1]:80", "192.0.2.1:80", 0 },
		{ "unix:/run/x y", "unix:/run/x y", 0 },
		{ "0.0.0.0:5", "0.0.0.0:5", 1 },
	};
	struct target t;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(resolved(&t, good[i].text, good[i].passive),
		    0);
		assert_int_equal(t.n, 1);
		assert_string_equal(t.addrs[0].text, good[i].to);
		assert_int_equal(t.any, 0);
	}
	assert_int_equal(resolved(&t, "localhost:80", 0), 0);
	assert_in_range(t.n, 1, ADDRESSES);
	assert_int_equal(resolved(&t, "443", 1), 0);
	assert_int_equal(t.any, 1);
	assert_string_equal(t.addrs[0].text, has_ipv6() ? "[::]:443" :
	    "0.0.0.0:443");
	assert_int_equal(resolved(&t, "*:443", 1), 0);
	assert_int_equal(t.any, 1);
	expect_silence();
}

static void
test_resolve_errors(void **state)
{
	static const char *const bad[] = {
		"", ":", "host", "host:", "host:0", "host:65536", "host:-1",
		"host:http", "::1:80", "[::1]", "[::1]:", "65536", "0", "80 ",
		"1.2.3.4:80x", "host:99999999999999999999", "http://host:80/"
	};
	struct target t;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		if (resolved(&t, bad[i], 0) != -1)
			fail_msg("\"%s\" passed", bad[i]);
		expect_said(WHERE, "[IPv6]:port");
	}
	assert_int_equal(resolved(&t, "nobody.invalid:80", 0), -1);
	expect_said(WHERE, "nobody.invalid");
}

static void
test_unix_paths(void **state)
{
	struct sockaddr_un un;
	char text[sizeof(un.sun_path) + 8] = "unix:/";
	struct target t;

	(void)state;
	assert_int_equal(resolved(&t, "unix:", 0), -1);
	expect_said(WHERE, "107 bytes");
	memset(text + 6, 'x', sizeof(un.sun_path) - 1);
	assert_int_equal(strlen(text + 5), sizeof(un.sun_path));
	assert_int_equal(resolved(&t, text, 1), -1);
	expect_said(WHERE, "107 bytes");
	text[strlen(text) - 1] = '\0';
	assert_int_equal(resolved(&t, text, 1), 0);
	assert_string_equal(t.addrs[0].text, text);
	assert_true(t.addrs[0].len <= sizeof(un));
	expect_silence();
}

/* A client on a Unix socket has no name. */
static void
test_address_text(void **state)
{
	struct address a;

	(void)state;
	memset(&a, 0, sizeof(a));
	a.sa.ss_family = AF_UNIX;
	a.len = sizeof(sa_family_t);
	address_text(&a);
	assert_string_equal(a.text, "unix:");
}

/* The log. */

static void
test_escape(void **state)
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
	/* Eight bits are controls as well, somewhere. */
	assert_non_null(strstr(out, "\\x9b"));
	text_escape(out, sizeof(out), "a b~\xc3\xa9");
	assert_string_equal(out, "a b~\\xc3\\xa9");
	/* Never past its end, and never half of an escape. */
	memset(small, 'z', sizeof(small));
	text_escape(small, sizeof(small) - 2, "\n\n\n\n\n\n");
	assert_string_equal(small, "\\x0a\\x0a");
	assert_int_equal(small[10], 'z');
	text_escape(small, 1, "a");
	assert_string_equal(small, "");
}

static void
test_log_lines(void **state)
{
	char stamp[32];
	const char *text;
	int i;

	(void)state;
	log_info("hello %d", 5);
	assert_string_equal(said(), "tunnel: hello 5\n");
	log_notice("a\nb");
	assert_string_equal(said(), "tunnel: a\\x0ab\n");
	log_warning("w");
	assert_string_equal(said(), "tunnel: warning: w\n");
	log_error("e");
	assert_string_equal(said(), "tunnel: error: e\n");
	log_debug("d");
	expect_silence();
	logging.level = LEVEL_WARNING;
	log_notice("n");
	expect_silence();
	logging.level = LEVEL_DEBUG;
	logging.is_journal = 1;
	log_debug("d");
	assert_string_equal(said(), "<7>d\n");
	log_error("e");
	assert_string_equal(said(), "<3>e\n");
	logging.is_journal = 0;
	logging.has_time = 1;
	log_info("on stderr");
	text = said();
	for (i = 0; i < 20; i++)
		stamp[i] = isdigit((unsigned char)text[i]) ? '0' : text[i];
	stamp[20] = '\0';
	assert_string_equal(stamp, "0000-00-00T00:00:00Z");
	assert_string_equal(text + 20, " tunnel: on stderr\n");
	logging.is_ours = 1;
	log_info("in a file");
	assert_string_equal(said() + 20, " info: in a file\n");
}

static void
test_log_keeps_errno(void **state)
{
	static char huge[10000];
	const char *text;
	int fd = logging.fd;

	(void)state;
	/* Even where it can't be written. */
	logging.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	errno = EDOM;
	log_error("x");
	assert_int_equal(errno, EDOM);
	close(logging.fd);
	logging.fd = fd;
	log_error("y");
	text = said();
	assert_non_null(strstr(text, "1 lines lost here: Bad file descriptor"));
	assert_non_null(strstr(text, "error: y\n"));
	memset(huge, '\n', sizeof(huge) - 1);
	log_error("%s", huge);
	text = said();
	assert_true(is_sentence(text));
	assert_in_range(strlen(text), LOG_SIZE - 8, LOG_SIZE + 32);
}

/* A command that ended, or was killed, before it was told of the client. */
static int
open_to_the_dead(int killed_by)
{
	struct proxy *header = calloc(1, sizeof(*header));
	struct command command = { .over = 1, .signal = killed_by, .end = -1 };
	struct session ss = { .command = &command, .proxy = header };
	struct stream_ops ops = stream_plain;
	struct stream s = { .ops = &ops, .ctx = &ss };
	int fds[2], r;

	assert_non_null(header);
	header->len = 16;
	ops.write = command_write;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0,
	    fds), 0);
	close(fds[1]);
	s.fd = fds[0];
	r = backend_open(&s);
	close(fds[0]);
	proxy_free(&ss);
	return r;
}

static void
test_command_that_is_not_told(void **state)
{
	(void)state;
	assert_int_equal(open_to_the_dead(0), 0);
	assert_int_equal(open_to_the_dead(SIGKILL), STREAM_RESET);
}

/* It is not begun a second time. */
static void
test_command_that_does_not_open(void **state)
{
	static char name[] = "true", *command[] = { name, NULL };
	struct service sv = { .cfg.command = command };
	struct worker w = { .service = &sv, .share = { .n = 1 } };
	struct session ss = { .worker = &w, .dialed = 1, .fd = -1 };
	struct stream backend = { .fd = -1 };
	const char *why = NULL;

	(void)state;
	assert_int_equal(session_dial(&ss, &backend, "it is gone", &why), -1);
	assert_string_equal(why, "it is gone");
	assert_int_equal(w.running, 0);
}

/* All that is there goes on, and so must be as it was. */
static void
test_not_to_be_handed_over(void **state)
{
	const struct service was = { .workers = { .nslots = 2, .deadline = 7 }, .board = {
	    .max = 2, .nrows = 2, .fd = -1, .size = 4096, .secret = 9 } };
	const struct master none = { .pidfile = -1 };
	struct parcel x = { .reads = 0 };
	struct service sv = was;
	int64_t number = 5;
	int fd = 4, i;

	(void)state;
	for (i = 0; i < 2; i++) {
		carry_service(&x, &none, &sv);
		assert_string_equal(x.bad, "shared memory is of another size");
		assert_memory_equal(&sv, &was, sizeof(sv));
		carry_number(&x, &number, 6, 7);
		carry_fd(&x, &fd);
	}
	assert_int_equal(number, 5);
	assert_int_equal(fd, 4);
	assert_int_equal(x.nfds, 0);
	parcel_free(&x);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_parse_number),
		TEST(test_exit_code),
		TEST(test_command_that_is_not_told),
		TEST(test_command_that_does_not_open),
		TEST(test_slots),
		TEST(test_asked_again),
		TEST(test_backoff),
		TEST(test_places_of_generations),
		TEST(test_daily_warning),
		TEST(test_sandbox),
		TEST(test_split_address),
		TEST(test_resolve),
		TEST(test_resolve_errors),
		TEST(test_unix_paths),
		TEST(test_address_text),
		TEST(test_escape),
		TEST(test_log_lines),
		TEST(test_log_keeps_errno),
		TEST(test_not_to_be_handed_over),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
