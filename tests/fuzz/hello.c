/*
 * Any input from a client, before and after its keys: the server has the random
 * numbers and clock with which the seeds, whole connections, were made.  The
 * first byte selects the server and its options.
 */
#include "fuzz_tls.h"

void
fuzz_begin(void)
{
	servers_new();
}

/* The handshake is over: check the peer's identity. */
static void
serve(struct stream *s)
{
	const struct tls *t = s->ctx;
	static char buf[4 * RECORD_MAX];
	struct tls_conninfo a;
	ssize_t n;

	tls_conninfo(t, &a);
	must(a.version != NULL && a.cipher != NULL, "nothing was negotiated");
	must(t->cfg->verify != REQUIRED || (a.peer != NULL) !=
	    (a.psk != NULL), "no peer name");
	must(t->cfg->verify != NOT_ASKED || a.peer == NULL, "an unexpected peer name");
	s->ops->write(s, "hello", 5);
	n = s->ops->read(s, buf, sizeof(buf));
	must(n <= (ssize_t)sizeof(buf), "more than there is room for");
	s->ops->pending(s);
	s->ops->finish(s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int ends[] = { EAGAIN, 0, ECONNRESET, EPIPE };
	static const size_t pieces[] = { SIZE_MAX, 1, 5, 100 };
	struct input in = { data, size };
	unsigned flags = take(&in);
	struct tls_config *cfg = servers[(flags & 3) % 3];
	struct stream s = { .fd = -1 };
	struct tls *t;
	int r;

	start(cfg, pieces[flags >> 6]);
	at_end = ends[flags >> 4 & 3];
	tls_config_strict_names(cfg, flags >> 2 & 1);
	tls_config_truncation(cfg, flags >> 3 & 1);
	if (wire_put(&from_peer, in.p, in.n) == -1)
		return 0;
	must((t = tls_new(cfg, -1, NULL, &s)) != NULL, "tls_new");
	do
		r = s.ops->open(&s);
	while (r == STREAM_WANT_TURN ||
	    (r == STREAM_WANT_READ && from_peer.at != from_peer.end));
	must(in.n == 0 || tls_heard(t), "it was not read");
	if (r == 0)
		serve(&s);
	else if (r == STREAM_ERROR)
		must(*s.ops->error(&s) != '\0', "no reason");
	s.ops->refuse(&s);
	tls_free(t);
	return 0;
}
