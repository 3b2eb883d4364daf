/*
 * A malicious server for our client: a complete handshake whose messages are
 * edited before they are hashed, signed and encrypted; then records of any
 * type, encrypted by its keys, also tickets.  Or any bytes.  A connection may
 * come first, whose session is resumed.
 *
 *	flags, number of edits, each: message, kind, offset (2), length, bytes
 *	records, each: type, other actions, length, bytes
 *
 *	flags with RAW, bytes
 */
#include "fuzz_tls.h"

#define MESSAGES	10		/* sent by a server */
#include "fuzz_edits.h"
#include "fuzz_server.h"

enum { CLIENT = 1, IS_TLS13 = 2, IN_PIECES = 4, ASKS = 8, RETRIES = 16,
    RAW = 32, RESUMES = 64, KEY = 128 };

void
fuzz_begin(void)
{
	clients_new();
}

/* The handshake is over: check the server's certificate. */
static void
check_server(const struct tls *t)
{
	struct tls_conninfo a;

	tls_conninfo(t, &a);
	must(a.version != NULL && a.cipher != NULL, "nothing was negotiated");
	must(t->cfg != clients[VERIFIES] || (a.peer != NULL &&
	    strcmp(a.peer, "CN=server.example.org") == 0), "no peer name");
	must((t->cfg == clients[SHARES]) == (a.psk != NULL),
	    "psk is wrong");
}

/* Let the client read all input; -1: there will be no more. */
static int
read_some(struct stream *s)
{
	static char buf[4 * RECORD_MAX];
	ssize_t n = s->ops->read(s, buf, sizeof(buf));

	must(n <= (ssize_t)sizeof(buf), "more than there is room for");
	s->ops->pending(s);
	if (n == STREAM_ERROR)
		must(*s->ops->error(s) != '\0', "no reason");
	return n == STREAM_ERROR ? -1 : 0;
}

/* Send one record of the input; -1: no more. */
static int
exchange(struct stream *s, struct server *v, struct input *in)
{
	static const int types[] = { 23, 21, 22, 20 };
	unsigned type = take(in), also = take(in);

	if (send_record(&v->ssl, type < 4 ? types[type] : (int)type,
	    take_some(in, take(in))) != 0)
		return -1;
	if (also & 1)
		s->ops->write(s, "hello", 5);
	if (also & 2)
		s->ops->finish(s);
	return also & 4 ? 0 : read_some(s);
}

static int
open_both(struct stream *s, struct server *v, struct input *in)
{
	int r;

	take_edits(in);
	editing = &v->ssl;
	r = do_handshake(s, &v->ssl);
	if (r == 0) {
		check_server(s->ctx);
		while (in->n > 0 && exchange(s, v, in) == 0)
			continue;
	}
	return r;
}

static int
open_raw(struct stream *s, struct input *in)
{
	int r;

	if (wire_put(&from_peer, in->p, in->n) == -1)
		return 0;
	at_end = 0;
	do
		r = s->ops->open(s);
	while (r == STREAM_WANT_TURN || r == STREAM_WANT_WRITE ||
	    (r == STREAM_WANT_READ && from_peer.at != from_peer.end));
	if (r == 0) {
		check_server(s->ctx);
		read_some(s);
		s->ops->finish(s);
	}
	return r;
}

static void
connection(struct tls_config *cfg, unsigned flags, struct input *in)
{
	struct stream s = { .fd = -1 };
	struct server v;
	struct tls *t;
	int r;

	from_peer.at = from_peer.end = to_peer.at = to_peer.end = 0;
	at_end = EAGAIN;
	/* A server without the expected key is possible. */
	server_begin(&v, flags & IS_TLS13, flags & ASKS, flags & RETRIES,
	    (flags & (KEY | CLIENT)) == KEY);
	must((t = tls_new(cfg, -1, SERVER_NAME, &s)) != NULL, "tls_new");
	r = flags & RAW ? open_raw(&s, in) : open_both(&s, &v, in);
	if (r == STREAM_ERROR)
		must(*s.ops->error(&s) != '\0', "no reason");
	server_end(&v);
	tls_free(t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t plain[] = { 0, 0, 0, 1, 'x' };
	struct input in = { data, size }, first = { plain, sizeof(plain) };
	unsigned flags = take(&in);
	struct tls_config *cfg = clients[flags & KEY ? SHARES : flags & CLIENT];

	start(cfg, flags & IN_PIECES ? 3 : SIZE_MAX);
	if (flags & RESUMES)
		connection(cfg, flags & ~(unsigned)RAW, &first);
	connection(cfg, flags, &in);
	return 0;
}
