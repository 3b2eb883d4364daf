/*
 * A complete handshake of a client whose messages are edited before they are
 * hashed, signed and encrypted; then records of any type, encrypted by its
 * keys.
 *
 *	flags, number of edits, each: message, kind, offset (2), length, bytes
 *	records, each: type, other actions, length, bytes
 */
#include "fuzz_tls.h"

#define MESSAGES	5		/* sent by a client */
#include "fuzz_edits.h"

enum { VERIFY = 3, IS_TLS13 = 4, IN_PIECES = 8, HAS_CERT = 16, HYBRID = 32 };

void
fuzz_begin(void)
{
	servers_new();
	client_load();
}

/* Send one record of the input; -1: no more. */
static int
exchange(struct stream *s, struct client *c, struct input *in)
{
	static const int types[] = { 23, 21, 22, 20 };
	static char buf[4 * RECORD_MAX];
	unsigned type = take(in), also = take(in);
	ssize_t n;

	if (send_record(&c->ssl, type < 4 ? types[type] : (int)type,
	    take_some(in, take(in))) != 0)
		return -1;
	if (also & 1)
		s->ops->write(s, "hello", 5);
	if (also & 2)
		s->ops->finish(s);
	if (also & 4)			/* sent with the next one */
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
	if ((r = do_handshake(&s, &c.ssl)) == 0) {
		must(t->cfg->verify != REQUIRED || t->peer != NULL,
		    "no peer name");
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
