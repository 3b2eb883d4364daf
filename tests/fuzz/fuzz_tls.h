/*
 * tls.c over memory: one buffer from its peer, and one to it; and the library's
 * client as the peer.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#include "fuzz.h"

static ssize_t	 fake_recv(int, void *, size_t, int);
static ssize_t	 fake_send(int, const void *, size_t, int);
static int	 fake_shutdown(int, int);
static int	 fake_getpeername(int, struct sockaddr *, socklen_t *);

#define clock_gettime	fuzz_clock
#define getpeername	fake_getpeername
#define recv		fake_recv
#define send		fake_send
#define shutdown	fake_shutdown
#include "../../tls.c"
#include "../../lib/stream.c"
#include "../../lib/tls_bio.c"
#include "../../lib/tls_resume.c"
#include "../../lib/tls_session.c"
#include "../../lib/tls_store.c"
#include "../../lib/util.c"
#undef clock_gettime
#undef getpeername
#undef recv
#undef send
#undef shutdown

#define CACHED	16			/* sessions */

static struct wire {
	unsigned char p[1 << 17];
	size_t	 at, end;
} from_peer, to_peer;
static size_t piece;			/* bytes per recv(2) and send(2) */
static int is_full;			/* the last send(2) was short */
static size_t received, sent;		/* bytes left in each direction */
static int at_end;			/* errno after all bytes; 0: FIN */
static uint64_t peer_random, our_random;

/* Set the clock to shortly after the certificates were made. */
static void
set_clock(void)
{
	char text[32] = "";
	FILE *fp = fopen(PKI "now", "r");

	must(fp != NULL && fgets(text, sizeof(text), fp) != NULL, PKI "now");
	fclose(fp);
	fuzz_now = strtoll(text, NULL, 10) + 60;
}

/* Reset all state of the previous input. */
static void
start(struct tls_config *cfg, size_t most)
{
	struct tls_sessions *s = cfg->sessions;

	from_peer.at = from_peer.end = to_peer.at = to_peer.end = 0;
	piece = most;
	is_full = 0;
	received = sent = SIZE_MAX;
	at_end = EAGAIN;
	peer_random = 1;
	our_random = 2;
	fuzz_random = &our_random;
	if (s != NULL) {
		memset(s->shared->slots, 0, s->nslots * s->slot_size);
		s->shared->clock = 0;
	}
}

static ssize_t
wire_get(struct wire *w, void *p, size_t len)
{
	if (len > w->end - w->at)
		len = w->end - w->at;
	memcpy(p, w->p + w->at, len);
	w->at += len;
	return (ssize_t)len;
}

/* Return -1 if there is no room. */
static ssize_t
wire_put(struct wire *w, const void *p, size_t len)
{
	if (len > sizeof(w->p) - w->end)
		return -1;
	memcpy(w->p + w->end, p, len);
	w->end += len;
	return (ssize_t)len;
}

static ssize_t
fake_recv(int fd, void *p, size_t len, int flags)
{
	ssize_t n;

	(void)fd;
	(void)flags;
	len = len < piece ? len : piece;
	n = wire_get(&from_peer, p, len < received ? len : received);
	received -= (size_t)n;
	if (n > 0 || at_end == 0)
		return n;
	errno = at_end;
	return -1;
}

static ssize_t
fake_send(int fd, const void *p, size_t len, int flags)
{
	(void)fd;
	(void)flags;
	errno = EAGAIN;
	is_full = !is_full && len > piece;
	if (len > piece && !is_full)
		return -1;
	len = len < piece ? len : piece;
	len = len < sent ? len : sent;
	sent -= len;
	return len == 0 ? -1 : wire_put(&to_peer, p, len);
}

static int
fake_shutdown(int fd, int how)
{
	(void)fd;
	(void)how;
	return 0;
}

/* All peers have the same address. */
static int
fake_getpeername(int fd, struct sockaddr *sa, socklen_t *len)
{
	(void)fd;
	(void)sa;
	*len = 0;
	return 0;
}

/* Verify clients; with REQUIRED, also by rules. */
static void
trust(struct tls_config *cfg, int verify)
{
	must(tls_config_ca(cfg, PKI "ca.pem") == 0 &&
	    tls_config_crl(cfg, PKI "crl.pem") == 0 &&
	    (verify == ASKED ||
	    (tls_config_psk(cfg, PKI "psk") == 0 &&
	    tls_config_peer(cfg, "psk:app1") == 0 &&
	    tls_config_peer(cfg, "dns:*.example.org") == 0 &&
	    tls_config_peer(cfg, "cn:bob") == 0 &&
	    tls_config_peer(cfg, "pin:sha256/"
	    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=") == 0)) &&
	    tls_config_verify(cfg, verify == REQUIRED) == 0,
	    tls_config_error(cfg));
}

/* Make a server, with a known ticket key. */
static struct tls_config *
server_new(int verify)
{
	struct tls_config *cfg = tls_config_new(TLS_SERVER);
	struct tls_sessions *s = tls_sessions_new(CACHED, TLS_WITH_CLIENTS, 0);

	must(cfg != NULL && s != NULL && tls_init() == NULL, "tls_init");
	must(tls_config_cert(cfg, PKI "ec.pem") == 0 &&
	    tls_config_key(cfg, PKI "ec.pem", NULL) == 0 &&
	    tls_config_cert(cfg, PKI "rsa.pem") == 0 &&
	    tls_config_key(cfg, PKI "rsa.pem", NULL) == 0 &&
	    tls_config_alpn(cfg, "h2,http/1.1") == 0, tls_config_error(cfg));
	if (verify != NOT_ASKED)
		trust(cfg, verify);
	must(tls_config_ticket_keys(cfg, PKI "ticket.keys") == 0 &&
	    tls_config_versions(cfg, 12, 13) == 0 &&
	    tls_config_ready(cfg) == 0, tls_config_error(cfg));
	tls_config_sessions(cfg, s, 1, 7 * DAY);
	must(tls_config_renew(cfg) == NULL, "tls_config_renew");
	return cfg;
}

/* Servers: without, with requested, and with required client certificates. */
static struct tls_config *servers[3];

static void
servers_new(void)
{
	set_clock();
	servers[NOT_ASKED] = server_new(NOT_ASKED);
	servers[ASKED] = server_new(ASKED);
	servers[REQUIRED] = server_new(REQUIRED);
}

struct client {
	mbedtls_ssl_context ssl;
	mbedtls_ssl_config conf;
};

/* The client's certificate by the CA, to be sent unchanged or modified. */
static struct cert *client_cert;

static void
client_load(void)
{
	static struct tls_config *cfg;

	must((cfg = tls_config_new(TLS_SERVER)) != NULL &&
	    tls_config_cert(cfg, PKI "client.pem") == 0 &&
	    tls_config_key(cfg, PKI "client.pem", NULL) == 0,
	    PKI "client.pem");
	client_cert = cfg->certs;
}

static int
peer_send(void *arg, const unsigned char *p, size_t len)
{
	(void)arg;
	return wire_put(&from_peer, p, len) == -1 ?
	    MBEDTLS_ERR_SSL_WANT_WRITE : (int)len;
}

static int
peer_recv(void *arg, unsigned char *p, size_t len)
{
	ssize_t n = wire_get(&to_peer, p, len);

	(void)arg;
	return n == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)n;
}

/* crt: the first certificate of its chain; or NULL. */
static void
client_new(struct client *c, int is_tls13, int is_hybrid, mbedtls_x509_crt *crt)
{
	static const uint16_t groups[] = {
		MBEDTLS_SSL_IANA_TLS_GROUP_X25519MLKEM768,
		MBEDTLS_SSL_IANA_TLS_GROUP_X25519, 0
	};
	mbedtls_ssl_protocol_version version = is_tls13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2;

	mbedtls_ssl_init(&c->ssl);
	mbedtls_ssl_config_init(&c->conf);
	mbedtls_ssl_config_defaults(&c->conf, MBEDTLS_SSL_IS_CLIENT,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
	mbedtls_ssl_conf_authmode(&c->conf, MBEDTLS_SSL_VERIFY_NONE);
	mbedtls_ssl_conf_rng(&c->conf, RNG);
	mbedtls_ssl_conf_min_tls_version(&c->conf, version);
	mbedtls_ssl_conf_max_tls_version(&c->conf, version);
	mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(&c->conf,
	    MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
	if (is_hybrid)
		mbedtls_ssl_conf_groups(&c->conf, groups);
	if (crt != NULL)
		mbedtls_ssl_conf_own_cert(&c->conf, crt,
		    &client_cert->key);
	must(mbedtls_ssl_setup(&c->ssl, &c->conf) == 0, "mbedtls_ssl_setup");
	mbedtls_ssl_set_hostname(&c->ssl, "server.example.org");
	mbedtls_ssl_set_bio(&c->ssl, NULL, peer_send, peer_recv, NULL);
}

static void
client_free(struct client *c)
{
	mbedtls_ssl_free(&c->ssl);
	mbedtls_ssl_config_free(&c->conf);
}

/* Run the peer as far as possible, with its own random numbers. */
static int
peer_handshake(mbedtls_ssl_context *ssl)
{
	int r;

	fuzz_random = &peer_random;
	r = mbedtls_ssl_handshake(ssl);
	fuzz_random = &our_random;
	return r;
}

/* Run both until neither can go on; return the result of our side. */
static int
do_handshake(struct stream *s, mbedtls_ssl_context *peer)
{
	int r = STREAM_WANT_READ, failed = 0;
	size_t before;

	do {
		before = from_peer.end + to_peer.end;
		if (!failed && !mbedtls_ssl_is_handshake_over(peer))
			failed = peer_handshake(peer) !=
			    MBEDTLS_ERR_SSL_WANT_READ;
		if (r == STREAM_WANT_READ || r == STREAM_WANT_WRITE ||
		    r == STREAM_WANT_TURN)
			r = s->ops->open(s);
	} while (before != from_peer.end + to_peer.end ||
	    r == STREAM_WANT_TURN ||
	    (r == STREAM_WANT_READ && from_peer.at != from_peer.end));
	return r;
}
