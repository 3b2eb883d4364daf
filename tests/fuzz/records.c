/*
 * Records in transit: the result does not depend on the size of pieces, and
 * agrees with an independent parser.  And any bytes as sent records, in memory
 * of exactly their size.
 */
#include "fuzz_tls.h"
#include "../../lib/tls_error.c"

/* Check the number of whole records since the last ChangeCipherSpec. */
static void
check(const struct record *r, struct input in)
{
	size_t len = 0;
	uint16_t count = 0;

	while (in.n >= 5) {
		count = in.p[0] == 20 ? 0 : (uint16_t)(count + 1);
		take_some(&in, 3);
		len = take_number(&in);
		len -= take_some(&in, len).n;
	}
	must(r->count == count, "another number of records");
	must(r->left == len, "more, or less, of the last one is missing");
	must(len > 0 || r->nhead % 5 == in.n, "it is in another place");
}

static void
watch_sent(struct input in)
{
	static struct tls_config cfg;
	static mbedtls_ssl_context ssl;
	struct tls t = { .cfg = &cfg, .ssl = &ssl };
	unsigned char *copy = malloc(in.n);

	must(copy != NULL, "out of memory");
	memcpy(copy, in.p, in.n);
	tls_records_sent(&t, copy, in.n);
	free(t.why);
	free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct record whole = { .nhead = 0 }, parts = { .nhead = 0 };
	struct input in = { data, size }, left, some;
	size_t n = take(&in) + 1;

	tls_records_track(&whole, in.p, in.n);
	for (left = in; left.n > 0; ) {
		some = take_some(&left, n);
		tls_records_track(&parts, some.p, some.n);
	}
	must(memcmp(&whole, &parts, sizeof(whole)) == 0,
	    "in parts it is something else");
	check(&whole, in);
	is_fatal_alert(&whole);
	if (in.n > HEADER_SIZE && in.n < RECORD_MAX)
		watch_sent(in);
	return 0;
}
