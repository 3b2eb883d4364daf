/*
 * load: the client of the benchmark, on OpenSSL, in one process.
 *
 * load [-hnr] [-v version] [-s suite] [-g groups] [-c certificate]
 *	[-k identity:hex] -p port WHAT
 *	connections N		connect, one byte there and back, close; N times
 *	down BYTES, up BYTES	on one connection
 *	trips N			of one byte there and back, on one connection
 *	hold N			N connections, open until a line is read
 *	rush N, crowd N		N new connections with one round trip each, 32
 *				at a time; a crowd stays
 *	latency SECONDS N TRIPS NEW
 *				with N open connections, this number of round
 *				trips and new connections per second, at random
 *				times
 *
 * -h: use HTTP.  -n: no TLS.  -r: resume sessions.  -v: 1.2 or 1.3.  -g: groups
 * for key exchange; default X25519 and P-256, with a key share for the first,
 * independent of OpenSSL's defaults.  -k: a key shared with the server, which
 * then sends no certificate.
 *
 * It prints "ready", waits for a line, runs, prints the results in a line of
 * name=value, and waits for a line (hold: twice) before it closes and exits.
 * So the caller can examine the server at each of these points.
 */
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include "load.h"

struct load load;

void
fail(const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());

	if (reason != NULL)
		errx(1, "%s: %s", what, reason);
	err(1, "%s", what);
}

int64_t
clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/*
 * CONNECTIONS
 */

/* Keep a copy: OpenSSL invalidates a session after an unclean end. */
static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
	(void)ssl;
	SSL_SESSION_free(load.session);
	load.session = SSL_SESSION_dup(session);
	return 0;
}

/* For both versions of TLS; in TLS 1.3 with SHA-256. */
static unsigned int
use_psk(SSL *ssl, const char *hint, char *identity, unsigned int size,
    unsigned char *key, unsigned int max)
{
	const char *colon = strchr(load.psk, ':');
	size_t len = 0;

	(void)ssl;
	(void)hint;
	if (colon == NULL || (unsigned int)snprintf(identity, size, "%.*s",
	    (int)(colon - load.psk), load.psk) >= size ||
	    !OPENSSL_hexstr2buf_ex(key, max, &len, colon + 1, '\0'))
		errx(2, "%s: not identity:hex", load.psk);
	return (unsigned int)len;
}

static void
tls_begin(const char *version, const char *suite, const char *groups,
    const char *certificate)
{
	int v = strcmp(version, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;

	if ((load.ctx = SSL_CTX_new(TLS_client_method())) == NULL)
		fail("SSL_CTX_new");
	if (!SSL_CTX_set_min_proto_version(load.ctx, v) ||
	    !SSL_CTX_set_max_proto_version(load.ctx, v))
		fail("version");
	if (suite != NULL && !SSL_CTX_set_ciphersuites(load.ctx, suite))
		fail(suite);
	if (!SSL_CTX_set1_groups_list(load.ctx, groups))
		fail(groups);
	if (certificate != NULL) {
		if (!SSL_CTX_load_verify_file(load.ctx, certificate))
			fail(certificate);
		SSL_CTX_set_verify(load.ctx, SSL_VERIFY_PEER, NULL);
	}
	if (load.psk != NULL) {
		SSL_CTX_set_psk_client_callback(load.ctx, use_psk);
		if (!SSL_CTX_set_cipher_list(load.ctx,
		    "ECDHE-PSK-CHACHA20-POLY1305"))
			fail("cipher list");
	}
	SSL_CTX_set_session_cache_mode(load.ctx, SSL_SESS_CACHE_CLIENT |
	    SSL_SESS_CACHE_NO_INTERNAL_STORE);
	SSL_CTX_sess_set_new_cb(load.ctx, keep_session);
	/* An end without close_notify is an end, too. */
	SSL_CTX_set_options(load.ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
	SSL_CTX_set_mode(load.ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
	    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

void
conn_socket(struct conn *c, int flags)
{
	struct timeval tv = { .tv_sec = PATIENCE };
	int on = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (c->fd == -1)
		fail("socket");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (connect(c->fd, (struct sockaddr *)&load.server,
	    sizeof(load.server)) == -1 && errno != EINPROGRESS)
		fail("connect");
}

void
conn_tls(struct conn *c)
{
	SSL_SESSION *session;

	c->ssl = NULL;
	if (!load.has_tls)
		return;
	if ((c->ssl = SSL_new(load.ctx)) == NULL || !SSL_set_fd(c->ssl, c->fd))
		fail("SSL_new");
	SSL_set_tlsext_host_name(c->ssl, "localhost");
	SSL_set_connect_state(c->ssl);
	if (load.is_resuming && load.session != NULL) {
		session = SSL_SESSION_dup(load.session);
		SSL_set_session(c->ssl, session);
		SSL_SESSION_free(session);
	}
}

void
conn_open(struct conn *c)
{
	conn_socket(c, 0);
	conn_tls(c);
	if (c->ssl != NULL && SSL_do_handshake(c->ssl) != 1)
		fail("handshake");
	if (load.psk != NULL && SSL_get0_peer_certificate(c->ssl) != NULL)
		errx(1, "the server has sent a certificate");
}

/* Returns a number of bytes; 0: the end; -1: none at present. */
ssize_t
conn_read(struct conn *c, void *buf, size_t len)
{
	ssize_t n;
	int error;

	if (c->ssl == NULL) {
		n = recv(c->fd, buf, len, 0);
		if (n == -1 && errno != EAGAIN)
			fail("recv");
		return n;
	}
	if ((n = SSL_read(c->ssl, buf, (int)len)) > 0)
		return n;
	if ((error = SSL_get_error(c->ssl, (int)n)) == SSL_ERROR_ZERO_RETURN)
		return 0;
	if (error != SSL_ERROR_WANT_READ)
		fail("SSL_read");
	return -1;
}

static void
conn_send(struct conn *c, const void *buf, size_t len)
{
	ssize_t n;

	for (; len > 0; len -= (size_t)n, buf = (const char *)buf + n) {
		if (c->ssl != NULL)
			n = SSL_write(c->ssl, buf, (int)len);
		else
			n = send(c->fd, buf, len, MSG_NOSIGNAL);
		if (n <= 0)
			fail("write");
	}
}

/* Read at least this number of bytes. */
static void
conn_take(struct conn *c, uint64_t count)
{
	ssize_t n;

	for (; count > 0; count -= (uint64_t)n < count ? (uint64_t)n : count)
		if ((n = conn_read(c, load.piece, sizeof(load.piece))) <= 0)
			errx(1, "%llu bytes are missing",
			    (unsigned long long)count);
}

/* Close in order: end our direction, then wait for the server's end. */
void
conn_close(struct conn *c)
{
	if (c->ssl != NULL)
		SSL_shutdown(c->ssl);
	else
		shutdown(c->fd, SHUT_WR);
	while (conn_read(c, load.piece, sizeof(load.piece)) > 0)
		continue;
	SSL_free(c->ssl);
	close(c->fd);
}

/*
 * REQUESTS TO THE SERVICE
 */

static void
http_take(struct conn *c)
{
	char head[4096];
	size_t len = 0;
	uint64_t count;
	const char *end, *length;
	ssize_t n;

	do {
		n = conn_read(c, head + len, sizeof(head) - 1 - len);
		if (n <= 0)
			errx(1, "no answer");
		len += (size_t)n;
		head[len] = '\0';
	} while ((end = strstr(head, "\r\n\r\n")) == NULL);
	length = strcasestr(head, "\r\nContent-Length:");
	if (strncmp(head, "HTTP/1.1 200 ", 13) != 0 || length == NULL)
		errx(1, "answered: %s", head);
	count = strtoull(length + 17, NULL, 10);
	len -= (size_t)(end + 4 - head);
	if (len > count)
		errx(1, "more was answered than was said");
	conn_take(c, count - len);
}

void
ask(struct conn *c, char what, uint64_t count)
{
	char head[256] = { what };
	size_t len = 1;

	if (load.is_http)
		len = (size_t)snprintf(head, sizeof(head), what == 'U' ?
		    "POST / HTTP/1.1\r\nHost: localhost\r\n"
		    "Content-Length: %llu\r\n\r\n" :
		    "GET /%llu HTTP/1.1\r\nHost: localhost\r\n\r\n",
		    (unsigned long long)count);
	else if (what != 'E') {
		memcpy(head + 1, &count, sizeof(count));
		len += sizeof(count);
	}
	conn_send(c, head, len);
}

static void
answered(struct conn *c, uint64_t count)
{
	if (load.is_http)
		http_take(c);
	else
		conn_take(c, count);
}

void
round_trip(struct conn *c)
{
	ask(c, 'E', 1);
	answered(c, 1);
}

/*
 * MEASUREMENTS
 */

void
await_word(const char *format, ...)
{
	char line[64];
	va_list ap;

	va_start(ap, format);
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	if (fgets(line, sizeof(line), stdin) == NULL)
		exit(1);
}

static void
run_connections(uint64_t count)
{
	uint64_t i, resumed = 0;
	struct conn c;

	if (load.is_resuming) {		/* to get a session */
		conn_open(&c);
		round_trip(&c);
		conn_close(&c);
	}
	await_word("ready");
	for (i = 0; i < count; i++) {
		conn_open(&c);
		round_trip(&c);
		if (c.ssl != NULL && SSL_session_reused(c.ssl))
			resumed++;
		conn_close(&c);
	}
	await_word("resumed=%llu", (unsigned long long)resumed);
}

static void
run_bulk(uint64_t count, int is_up)
{
	struct conn c;
	uint64_t left;
	size_t len;

	conn_open(&c);
	round_trip(&c);
	await_word("ready");
	ask(&c, is_up ? 'U' : 'D', count);
	for (left = is_up ? count : 0; left > 0; left -= len) {
		len = left < PIECE ? (size_t)left : PIECE;
		conn_send(&c, load.piece, len);
	}
	answered(&c, is_up ? 1 : count);
	await_word("suite=%s", c.ssl == NULL ? "none" :
	    SSL_get_cipher_name(c.ssl));
	conn_close(&c);
}

static void
run_trips(uint64_t count)
{
	struct conn c;

	conn_open(&c);
	round_trip(&c);
	await_word("ready");
	while (count-- > 0)
		round_trip(&c);
	await_word("done");
	conn_close(&c);
}

struct conn *
open_all(uint64_t count)
{
	struct conn *conns;
	uint64_t i;

	if ((conns = calloc(count, sizeof(*conns))) == NULL)
		fail("calloc");
	for (i = 0; i < count; i++) {
		conn_open(&conns[i]);
		round_trip(&conns[i]);
	}
	return conns;
}

static void
run_hold(uint64_t count)
{
	struct conn *conns;
	uint64_t i;

	await_word("ready");
	conns = open_all(count);
	await_word("open=%llu", (unsigned long long)count);
	for (i = 0; i < count; i++)
		conn_close(&conns[i]);
	await_word("closed=%llu", (unsigned long long)count);
	free(conns);
}

static uint64_t
count_of(const char *word)
{
	return strtoull(word, NULL, 10);
}

static int
run(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[0], "latency") == 0)
		run_latency(strtod(argv[1], NULL), count_of(argv[2]),
		    strtod(argv[3], NULL), strtod(argv[4], NULL));
	else if (argc != 2)
		return -1;
	else if (strcmp(argv[0], "rush") == 0 || strcmp(argv[0], "crowd") == 0)
		run_rush(count_of(argv[1]), argv[0][0] == 'c');
	else if (strcmp(argv[0], "connections") == 0)
		run_connections(count_of(argv[1]));
	else if (strcmp(argv[0], "down") == 0)
		run_bulk(count_of(argv[1]), 0);
	else if (strcmp(argv[0], "up") == 0)
		run_bulk(count_of(argv[1]), 1);
	else if (strcmp(argv[0], "trips") == 0)
		run_trips(count_of(argv[1]));
	else if (strcmp(argv[0], "hold") == 0)
		run_hold(count_of(argv[1]));
	else
		return -1;
	return 0;
}

int
main(int argc, char **argv)
{
	const char *version = "1.3", *suite = NULL, *certificate = NULL;
	const char *groups = "X25519:P-256";
	int opt;

	signal(SIGPIPE, SIG_IGN);
	setpriority(PRIO_PROCESS, 0, 5);	/* the service has priority */
	srand48(1);
	load.has_tls = 1;
	load.server.sin_family = AF_INET;
	load.server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	while ((opt = getopt(argc, argv, "hnrv:s:g:c:k:p:")) != -1)
		switch (opt) {
		case 'h':
			load.is_http = 1;
			break;
		case 'n':
			load.has_tls = 0;
			break;
		case 'r':
			load.is_resuming = 1;
			break;
		case 'v':
			version = optarg;
			break;
		case 's':
			suite = optarg;
			break;
		case 'g':
			groups = optarg;
			break;
		case 'c':
			certificate = optarg;
			break;
		case 'k':
			load.psk = optarg;
			break;
		case 'p':
			load.server.sin_port =
			    htons((in_port_t)count_of(optarg));
			break;
		default:
			exit(2);
		}
	if (load.has_tls)
		tls_begin(version, suite, groups, certificate);
	if (run(argc - optind, argv + optind) == -1)
		errx(2, "unknown command");
	return 0;
}
