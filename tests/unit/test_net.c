/* Unit tests of net, which is included for its static functions. */
#include "../../lib/net.c"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

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
		assert_int_equal(net_split_address(good[i].text, host,
		    sizeof(host), &port), 0);
		assert_string_equal(host, good[i].host);
		assert_string_equal(port, good[i].port);
	}
	for (i = 0; i < LEN(bad); i++)
		if (net_split_address(bad[i], host, sizeof(host), &port) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	assert_int_equal(net_split_address("host:1", tiny, sizeof(tiny),
	    &port), 0);
	assert_int_equal(net_split_address("hosts:1", tiny, sizeof(tiny),
	    &port), -1);
}

static char wrong[NET_ERROR_SIZE];

/* Parse a text; free the result of the previous call. */
static int
parsed(struct target *t, const char *text, int passive)
{
	net_release(t->to);
	memset(t, 0, sizeof(*t));
	t->given = text;
	return net_parse(t, passive, wrong, sizeof(wrong));
}

static void
test_parse(void **state)
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
	struct target t = { .to = NULL };
	size_t i;

	(void)state;
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(parsed(&t, good[i].text, good[i].passive),
		    0);
		assert_int_equal(t.to->n, 1);
		assert_string_equal(t.to->list[0].text, good[i].to);
		assert_int_equal(t.any, 0);
		assert_false(t.is_name);
	}
	assert_int_equal(parsed(&t, "443", 1), 0);
	assert_int_equal(t.any, 1);
	assert_string_equal(t.to->list[0].text, has_ipv6() ? "[::]:443" :
	    "0.0.0.0:443");
	assert_int_equal(parsed(&t, "*:443", 1), 0);
	assert_int_equal(t.any, 1);
	net_release(t.to);
}

static void
test_parse_errors(void **state)
{
	static const char *const bad[] = {
		"", ":", "host", "host:", "host:0", "host:65536", "host:-1",
		"host:http", "::1:80", "[::1]", "[::1]:", "65536", "0", "80 ",
		"1.2.3.4:80x", "host:99999999999999999999", "http://host:80/"
	};
	struct target t = { .to = NULL };
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		if (parsed(&t, bad[i], 0) != -1)
			fail_msg("\"%s\" passed", bad[i]);
		assert_non_null(strstr(wrong, "[IPv6]:port"));
	}
	net_release(t.to);
}

/* A name has no addresses yet; numbers in any notation are not names. */
static void
test_parse_names(void **state)
{
	static const struct { const char *text; int is_name; } texts[] = {
		{ "localhost:80", 1 }, { "1.2.3.4.5:80", 1 },
		{ "nobody.invalid:80", 1 }, { "127.1:80", 0 },
		{ "[fe80::1%lo]:80", 0 }, { "[::g]:80", 1 },
	};
	struct target t = { .to = NULL };
	size_t i;

	(void)state;
	for (i = 0; i < LEN(texts); i++) {
		assert_int_equal(parsed(&t, texts[i].text, 0), 0);
		assert_int_equal(t.is_name, texts[i].is_name);
		assert_int_equal(t.to == NULL, t.is_name);
		assert_int_equal(t.port, 80);
	}
	net_release(t.to);
}

static void
test_look_up(void **state)
{
	struct target t = { .to = NULL };
	struct address list[4] = { { .len = 0 } };
	size_t n;

	(void)state;
	assert_int_equal(parsed(&t, "localhost:80", 0), 0);
	assert_int_equal(net_look_up(&t, list, LEN(list), &n), 0);
	assert_in_range(n, 1, 2);
	assert_int_equal(net_address_port(&list[0]), 80);
	assert_int_not_equal(net_look_up(&(struct target){
	    .given = "nobody.invalid:80" }, list, LEN(list), &n), 0);
}

static void
test_unix_paths(void **state)
{
	struct sockaddr_un un;
	char text[sizeof(un.sun_path) + 8] = "unix:/";
	struct target t = { .to = NULL };

	(void)state;
	assert_int_equal(parsed(&t, "unix:", 0), -1);
	assert_non_null(strstr(wrong, "107 bytes"));
	memset(text + 6, 'x', sizeof(un.sun_path) - 1);
	assert_int_equal(strlen(text + 5), sizeof(un.sun_path));
	assert_int_equal(parsed(&t, text, 1), -1);
	assert_non_null(strstr(wrong, "107 bytes"));
	text[strlen(text) - 1] = '\0';
	assert_int_equal(parsed(&t, text, 1), 0);
	assert_string_equal(t.to->list[0].text, text);
	assert_true(t.to->list[0].len <= sizeof(un));
	net_release(t.to);
}

/* Mapped addresses become IPv4, unless only one of two endpoints is mapped. */
static void
test_v4_mapped(void **state)
{
	struct endpoints e = { .from.any.ss_family = AF_INET6 };
	struct address a = { .len = sizeof(e.from.in6) };

	(void)state;
	inet_pton(AF_INET6, "::ffff:192.0.2.1", &e.from.in6.sin6_addr);
	e.from.in6.sin6_port = htons(80);
	a.sa = e.from.any;
	net_normalize(&a);
	assert_string_equal(a.text, "192.0.2.1:80");
	assert_int_equal(a.sa.ss_family, AF_INET);
	assert_int_equal(a.len, sizeof(struct sockaddr_in));
	e.to = e.from;
	e.to.in6.sin6_addr = in6addr_loopback;
	net_unmap_v4(&e);
	assert_int_equal(e.from.any.ss_family, AF_INET6);
	e.to = e.from;
	net_unmap_v4(&e);
	assert_memory_equal(&e.from, &a.sa, sizeof(a.sa));
	assert_memory_equal(&e.to, &a.sa, sizeof(a.sa));
}

/* A client on a Unix socket has no path. */
static void
test_address_text(void **state)
{
	struct address a;

	(void)state;
	memset(&a, 0, sizeof(a));
	a.sa.ss_family = AF_UNIX;
	a.len = sizeof(sa_family_t);
	net_normalize(&a);
	assert_string_equal(a.text, "unix:");
}

/* A listener, and both ends of a connection to it. */
static void
test_sockets(void **state)
{
	struct target t = { .to = NULL };
	struct address *a;
	struct pollfd p = { .events = POLLIN };
	struct endpoints e;
	int fd, peer;

	(void)state;
	assert_int_equal(parsed(&t, "127.0.0.1:0", 1), 0);
	a = t.to->list;
	assert_true((p.fd = net_listen(a, 0)) != -1);
	assert_true(net_is_listening(p.fd));
	assert_int_equal(net_inherit(p.fd), p.fd);
	a->len = sizeof(a->sa);
	assert_int_equal(getsockname(p.fd, (struct sockaddr *)&a->sa,
	    &a->len), 0);
	assert_true((fd = net_dial(a, 1000)) != -1);
	assert_false(net_is_listening(fd));
	assert_int_equal(net_inherit(fd), -1);
	assert_int_equal(errno, ENOTSOCK);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_true((peer = accept(p.fd, NULL, NULL)) != -1);
	net_endpoints(peer, &e);
	assert_int_equal(e.to.in.sin_port, htons(net_address_port(a)));
	assert_int_equal(e.from.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	close(fd);
	close(peer);
	close(p.fd);
	net_release(t.to);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split_address),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_errors),
		cmocka_unit_test(test_parse_names),
		cmocka_unit_test(test_look_up),
		cmocka_unit_test(test_unix_paths),
		cmocka_unit_test(test_v4_mapped),
		cmocka_unit_test(test_address_text),
		cmocka_unit_test(test_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
