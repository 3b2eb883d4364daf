/*
 * Connections that hold no more than they need, at both ends, however little
 * comes and leaves at a time; and memory that ends, for good or not at all.
 *
 *	flags, how many allocations there are (2; 0: enough), then in turn how
 *	many bytes either side may send, and receive, until it waits
 */
#include "fuzz_tls.h"

enum { IS_TLS13 = 1, RETRIES = 2, HAS_CERT = 4, IS_SHORT = 8, HYBRID = 16 };

#define CALLS		2000		/* byte by byte would take too long */
#define DATA		40000		/* bytes, in each direction */

static size_t scarce;			/* 0: no limit; 1: none left */
static struct tls_config *retrying;	/* no share fits */
static size_t taken, put;		/* by the client, until it waits */
static unsigned char pattern[DATA + 256];

void	*__real_calloc(size_t, size_t);
void	*__real_malloc(size_t);
void	*__real_realloc(void *, size_t);
void	*__wrap_calloc(size_t, size_t);
void	*__wrap_malloc(size_t);
void	*__wrap_realloc(void *, size_t);

static int
is_out(void)
{
	if (scarce > 1)
		scarce--;
	return scarce == 1;
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return is_out() ? NULL : __real_calloc(n, size);
}

void *
__wrap_malloc(size_t size)
{
	return is_out() ? NULL : __real_malloc(size);
}

void *
__wrap_realloc(void *p, size_t size)
{
	return is_out() ? NULL : __real_realloc(p, size);
}

void
fuzz_begin(void)
{
	size_t i;

	servers_new();
	client_load();
	retrying = server_new(ASKED);
	must(tls_config_groups(retrying, "secp384r1") == 0 &&
	    tls_config_ready(retrying) == 0, "groups");
	for (i = 0; i < sizeof(pattern); i++)
		pattern[i] = (unsigned char)(i * 7 + i / 256);
}

static int
put_some(void *arg, const unsigned char *p, size_t len)
{
	(void)arg;
	len = len < put ? len : put;
	put -= len;
	return len == 0 || wire_put(&from_peer, p, len) == -1 ?
	    MBEDTLS_ERR_SSL_WANT_WRITE : (int)len;
}

static int
take_part(void *arg, unsigned char *p, size_t len)
{
	ssize_t n = wire_get(&to_peer, p, len < taken ? len : taken);

	(void)arg;
	taken -= (size_t)n;
	return n == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)n;
}

/* Take a limit from the input; without one, a large one. */
static size_t
some(struct input *in)
{
	return in->n == 0 ? 20000 : take(in) * take(in) + 1;
}

/* After the client's call: the peer's memory is not limited. */
static int
over(struct client *c, int r)
{
	size_t left = scarce;

	scarce = 0;
	must(mbedtls_ssl_release_buffers(&c->ssl) == 0, "release");
	scarce = left;
	return r == MBEDTLS_ERR_SSL_WANT_READ ||
	    r == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : r;
}

/* Any call may have read a ticket. */
static ssize_t
take_ticket(struct client *c, ssize_t r, mbedtls_ssl_session *session)
{
	if (r != MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
		return r;
	mbedtls_ssl_session_free(session);
	mbedtls_ssl_session_init(session);
	must(mbedtls_ssl_get_session(&c->ssl, session) == 0,
	    "no session with a ticket");
	return MBEDTLS_ERR_SSL_WANT_READ;
}

/* Return 1 when done. */
static int
client_step(struct client *c, struct input *in)
{
	size_t left = scarce;
	int r;

	taken = some(in);
	put = some(in);
	if (mbedtls_ssl_is_handshake_over(&c->ssl))
		return 1;
	scarce = 0;
	r = peer_handshake(&c->ssl);
	scarce = left;
	return over(c, r) < 0 ? -1 : r == 0;
}

/* Run both until they are done; -1: one failed. */
static int
shake_hands(struct stream *s, struct client *c, struct input *in)
{
	int is_done = 0, r = STREAM_WANT_READ, calls;

	for (calls = 0; !is_done || r != 0; calls++) {
		if (!is_done && (is_done = client_step(c, in)) < 0)
			return -1;
		received = some(in);
		sent = some(in);
		if (r != 0 && (r = s->ops->open(s)) != STREAM_WANT_READ &&
		    r != STREAM_WANT_WRITE && r != 0)
			return -1;
		if (calls > CALLS)
			return -1;
	}
	return 0;
}

/* Data to the server and to the client, as received so far. */
struct flow {
	size_t	 sent, came;
};

static int
to_server(struct stream *s, struct client *c, struct flow *f,
    mbedtls_ssl_session *session)
{
	static unsigned char buf[5 * RECORD_MAX];
	size_t left = scarce, n = DATA - f->sent;
	ssize_t r = 0;

	scarce = 0;
	if (n > 0)
		r = mbedtls_ssl_write(&c->ssl, pattern + f->sent, n);
	r = take_ticket(c, r, session);
	scarce = left;
	if (r > 0)
		f->sent += (size_t)r;
	if (over(c, (int)r) < 0)
		return -1;
	r = s->ops->read(s, buf, sizeof(buf));
	if (r > 0) {
		must(f->came + (size_t)r <= f->sent + RECORD_MAX &&
		    memcmp(buf, pattern + f->came, (size_t)r) == 0,
		    "the server has got something else");
		f->came += (size_t)r;
	}
	return r > 0 || r == STREAM_WANT_READ || r == STREAM_WANT_WRITE ?
	    0 : -1;
}

static int
to_peer_some(struct stream *s, struct client *c, struct flow *f,
    mbedtls_ssl_session *session)
{
	static unsigned char buf[RECORD_MAX];
	size_t left = scarce, n = DATA - f->sent;
	ssize_t r = 0;

	if (n > 0)
		r = s->ops->write(s, pattern + f->sent, n);
	if (r > 0)
		f->sent += (size_t)r;
	else if (r < 0 && r != STREAM_WANT_READ && r != STREAM_WANT_WRITE)
		return -1;
	scarce = 0;
	r = mbedtls_ssl_read(&c->ssl, buf, sizeof(buf) / (1 + f->came % 3));
	r = take_ticket(c, r, session);
	scarce = left;
	if (r > 0) {
		must(memcmp(buf, pattern + f->came, (size_t)r) == 0,
		    "the client has got something else");
		f->came += (size_t)r;
	}
	return over(c, r > 0 ? 0 : (int)r) < 0 ? -1 : 0;
}

/* Start again at the buffer's beginning when all was read: it is finite. */
static void
wire_turn(struct wire *w)
{
	if (w->at == w->end)
		w->at = w->end = 0;
}

/* Check that all data arrive, unless memory has run out. */
static void
exchange(struct stream *s, struct client *c, struct input *in,
    mbedtls_ssl_session *session)
{
	const struct tls *t = s->ctx;
	struct flow up = { 0, 0 }, down = { 0, 0 };
	int calls;

	must(t->record_size == (size_t)mbedtls_ssl_get_max_out_record_payload(
	    t->ssl), "the limit for records is another one");
	for (calls = 0; up.came < DATA || down.came < DATA; calls++) {
		taken = some(in);
		put = some(in);
		received = some(in);
		sent = some(in);
		wire_turn(&from_peer);
		wire_turn(&to_peer);
		if (to_server(s, c, &up, session) < 0 ||
		    to_peer_some(s, c, &down, session) < 0) {
			must(scarce == 1, "it has ended");
			return;
		}
		if (calls > CALLS)
			return;
	}
}

/* Make such a client, which may resume a session. */
static int
connection(unsigned flags, struct input *in, mbedtls_ssl_session *session,
    struct stream *s, struct client *c)
{
	/*
	 * In TLS 1.2 the certificate's curve has to be among the groups, too.
	 */
	struct tls_config *cfg = flags & RETRIES && (flags & IS_TLS13 ||
	    !(flags & HAS_CERT)) ? retrying : servers[ASKED];
	struct tls *t;

	*s = (struct stream){ .fd = -1 };
	start(cfg, SIZE_MAX);
	client_new(c, flags & IS_TLS13,
	    (flags & (HYBRID | IS_TLS13 | RETRIES)) == (HYBRID | IS_TLS13),
	    flags & HAS_CERT ? &client_cert->chain : NULL);
	if (flags & IS_SHORT)
		mbedtls_ssl_conf_max_frag_len(&c->conf,
		    MBEDTLS_SSL_MAX_FRAG_LEN_1024);
	mbedtls_ssl_set_bio(&c->ssl, NULL, put_some, take_part, NULL);
	if (session->MBEDTLS_PRIVATE(tls_version) != 0)
		must(mbedtls_ssl_set_session(&c->ssl, session) == 0,
		    "mbedtls_ssl_set_session");
	scarce = in->n < 2 ? 0 : take_number(in);
	if ((t = tls_new(cfg, -1, NULL, s)) == NULL) {
		must(scarce == 1, "tls_new");
		return -1;
	}
	if (shake_hands(s, c, in) != 0)
		return -1;
	must(t->resumed || session->MBEDTLS_PRIVATE(tls_version) == 0,
	    "the session was not resumed");
	if (session->MBEDTLS_PRIVATE(tls_version) == 0 && !(flags & IS_TLS13))
		must(mbedtls_ssl_get_session(&c->ssl, session) == 0,
		    "no session");
	exchange(s, c, in, session);
	return 0;
}

/* An open connection without content to keep, while there is no memory. */
static void
goes_on(struct stream *s, struct client *c)
{
	static const unsigned char hello[5] = "hello";
	char buf[RECORD_MAX];

	from_peer.at = from_peer.end = to_peer.at = to_peer.end = 0;
	put = received = sent = SIZE_MAX;
	scarce = 1;
	must(mbedtls_ssl_write(&c->ssl, hello, 5) == 5 &&
	    mbedtls_ssl_release_buffers(&c->ssl) == 0 &&
	    s->ops->read(s, buf, sizeof(buf)) == 5 &&
	    s->ops->write(s, hello, 5) == 5, "the other one needs memory");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size }, none = { NULL, 0 };
	unsigned flags = take(&in);
	mbedtls_ssl_session session;
	struct stream s[2];
	struct client c[2];

	mbedtls_ssl_session_init(&session);
	/* A connection from before, which goes on. */
	must(connection(flags, &none, &session, &s[0], &c[0]) == 0,
	    "it is not served");
	connection(flags, &in, &session, &s[1], &c[1]);
	if (scarce != 0)
		goes_on(&s[0], &c[0]);
	scarce = 0;
	for (size = 0; size < 2; size++) {
		client_free(&c[size]);
		tls_free(s[size].ctx);
	}
	mbedtls_ssl_session_free(&session);
	return 0;
}
