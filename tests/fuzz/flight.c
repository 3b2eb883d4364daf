/*
 * A whole handshake, by a client whose messages are edited before they are
 * hashed, signed and encrypted; then records of any type, by its keys.
 *
 *	flags, how many edits, each: message, kind, offset (2), length, bytes
 *	records, each: type, what else is done, length, bytes
 *
 * It is linked with --wrap=mbedtls_ssl_write_handshake_msg_ext, where the
 * library finishes a message.
 */
#include "fuzz_tls.h"

#define EDITS		8
#define MESSAGES	5		/* that a client sends */
#define MESSAGE_HEAD	4
#define MESSAGE_MAX	6000

enum { VERIFY = 3, IS_TLS13 = 4, IN_PIECES = 8, HAS_CERT = 16, HYBRID = 32 };
enum { REPLACE, INSERT, DELETE, RETYPE };

static struct edit {
	unsigned message, kind;
	size_t	 offset;
	struct input bytes;
} edits[EDITS];
static size_t nedits;
static const mbedtls_ssl_context *editing;	/* whose messages */
static unsigned message;

/* The library's own, which no header of its declares for others. */
int	 __real_mbedtls_ssl_write_handshake_msg_ext(mbedtls_ssl_context *,
	    int, int);
int	 __wrap_mbedtls_ssl_write_handshake_msg_ext(mbedtls_ssl_context *,
	    int, int);
int	 mbedtls_ssl_write_record(mbedtls_ssl_context *, int);

void
fuzz_begin(void)
{
	servers_new();
	client_load();
}

static void
apply(const struct edit *e, mbedtls_ssl_context *ssl)
{
	unsigned char *p = ssl->MBEDTLS_PRIVATE(out_msg);
	size_t n = ssl->MBEDTLS_PRIVATE(out_msglen), len = e->bytes.n, at, left;

	if (n <= MESSAGE_HEAD || len == 0)
		return;
	at = MESSAGE_HEAD + e->offset % (n - MESSAGE_HEAD);
	left = n - at;
	if (e->kind == INSERT && n + len <= MESSAGE_MAX) {
		memmove(p + at + len, p + at, left);
		memcpy(p + at, e->bytes.p, len);
		n += len;
	} else if (e->kind == DELETE) {
		len = len < left ? len : left;
		memmove(p + at, p + at + len, left - len);
		n -= len;
	} else if (e->kind == REPLACE)
		memcpy(p + at, e->bytes.p, len < left ? len : left);
	else if (e->kind == RETYPE)
		p[0] = e->bytes.p[0];
	ssl->MBEDTLS_PRIVATE(out_msglen) = n;
}

int
__wrap_mbedtls_ssl_write_handshake_msg_ext(mbedtls_ssl_context *ssl,
    int is_hashed, int is_flushed)
{
	size_t i;

	if (ssl == editing) {
		for (i = 0; i < nedits; i++)
			if (edits[i].message == message)
				apply(&edits[i], ssl);
		message++;
	}
	return __real_mbedtls_ssl_write_handshake_msg_ext(ssl, is_hashed,
	    is_flushed);
}

static void
take_edits(struct input *in)
{
	struct edit *e;

	message = 0;
	nedits = take(in) % EDITS;
	for (e = edits; e < edits + nedits; e++) {
		e->message = take(in) % MESSAGES;
		e->kind = take(in) % 4;
		e->offset = take_number(in);
		e->bytes = take_some(in, take(in));
	}
}

/* A record of that type, as the client encrypts it. */
static int
send_to_server(struct client *c, int type, struct input bytes)
{
	c->ssl.MBEDTLS_PRIVATE(out_msgtype) = type;
	c->ssl.MBEDTLS_PRIVATE(out_msglen) = bytes.n;
	if (bytes.n > 0)
		memcpy(c->ssl.MBEDTLS_PRIVATE(out_msg), bytes.p, bytes.n);
	return mbedtls_ssl_write_record(&c->ssl, 1);
}

/* One record of the input; -1: that was all. */
static int
exchange(struct stream *s, struct client *c, struct input *in)
{
	static const int types[] = { 23, 21, 22, 20 };
	static char buf[4 * RECORD_MAX];
	unsigned type = take(in), also = take(in);
	ssize_t n;

	if (send_to_server(c, type < 4 ? types[type] : (int)type,
	    take_some(in, take(in))) != 0)
		return -1;
	if (also & 1)
		s->ops->write(s, "hello", 5);
	if (also & 2)
		s->ops->finish(s);
	if (also & 4)			/* the next one comes with it */
		return 0;
	n = s->ops->read(s, buf, sizeof(buf));
	must(n <= (ssize_t)sizeof(buf), "more than there is room for");
	s->ops->pending(s);
	if (n == STREAM_ERROR)
		must(*s->ops->error(s) != '\0', "no reason");
	return n == STREAM_ERROR ? -1 : 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned flags = take(&in);
	struct tls_config *cfg = servers[(flags & VERIFY) % 3];
	struct stream s = { .fd = -1 };
	struct client c;
	struct tls *t;
	int r;

	take_edits(&in);
	start(cfg, flags & IN_PIECES ? 3 : SIZE_MAX);
	client_new(&c, flags & IS_TLS13, flags & HYBRID, flags & HAS_CERT ?
	    &client_cert->chain : NULL);
	editing = &c.ssl;
	must((t = tls_new(cfg, -1, NULL, &s)) != NULL, "tls_new");
	if ((r = do_handshake(&s, &c)) == 0) {
		must(t->cfg->verify != REQUIRED || t->peer != NULL,
		    "who is it?");
		must(flags & HAS_CERT || t->peer == NULL,
		    "it has shown nothing");
		while (in.n > 0 && exchange(&s, &c, &in) == 0)
			continue;
	} else if (r == STREAM_ERROR)
		must(*s.ops->error(&s) != '\0', "no reason");
	client_free(&c);
	tls_free(t);
	return 0;
}
