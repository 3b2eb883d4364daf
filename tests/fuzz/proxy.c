/*
 * A PROXY header that arrives in pieces of this many bytes, followed by TLS.
 * No byte of TLS may be read.  The endpoints are sent to a backend unchanged,
 * in both versions.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static ssize_t	 fake_recv(int, void *, size_t, int);

#define recv	fake_recv
#include "../../lib/proxy.c"
#undef recv

#include "fuzz.h"

static struct input wire;
static size_t piece;

static ssize_t
fake_recv(int fd, void *p, size_t len, int flags)
{
	struct input peeked = wire, some = take_some(flags & MSG_PEEK ?
	    &peeked : &wire, len < piece ? len : piece);

	(void)fd;
	if (some.n > 0)
		memcpy(p, some.p, some.n);
	return (ssize_t)some.n;
}

/* The length of the header at p, by the specification. */
static size_t
header_size(const uint8_t *p, size_t n)
{
	const uint8_t *end = memchr(p, '\n', n);

	if (p[0] != 'P')
		return 16 + ((size_t)p[14] << 8 | p[15]);
	return end != NULL ? (size_t)(end - p) + 1 : 0;
}

/* Check that the endpoints survive making and parsing a header. */
static void
check_told(const struct endpoints *ends)
{
	const struct proxy_tls tls = { .version = "TLSv1.3",
	    .cipher = "TLS_AES_128_GCM_SHA256", .alpn = "h2",
	    .name = "www.example.org", .client = "x", .has_client = 1 };
	struct endpoints v1 = { .from.any.ss_family = AF_UNSPEC };
	struct endpoints v2 = v1;
	unsigned char out[PROXY_HEADER];
	size_t n;

	n = proxy_make_v2(out, sizeof(out), ends, &tls);
	must(n <= sizeof(out), "version 2 is too long");
	must(proxy_parse_v2(out, n, &v2) == 0 &&
	    memcmp(&v2, ends, sizeof(v2)) == 0,
	    "version 2 tells something else");
	n = proxy_make_v1((char *)out, sizeof(out), ends);
	must(n <= PROXY_V1_MAX, "version 1 is too long");
	if (ends->from.any.ss_family != AF_UNIX)
		must(proxy_parse_v1((char *)out, &v1) == 0 &&
		    memcmp(&v1, ends, sizeof(v1)) == 0,
		    "version 1 tells something else");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy proxy = { .done = 0 };
	struct address from = { .len = sizeof(from.sa) };
	struct endpoints ends;
	char why[512];

	if (size == 0)
		return 0;
	piece = data[0] == 0 ? SIZE_MAX : data[0];
	wire = (struct input){ data + 1, size - 1 };
	if (proxy_read(&proxy, -1, &ends, why, sizeof(why)) != 0)
		return 0;
	must((size_t)(wire.p - data) - 1 == header_size(data + 1, size - 1),
	    "not just the header");
	if (ends.from.any.ss_family == AF_UNSPEC)
		return 0;
	from.sa = ends.from.any;
	net_normalize(&from);
	must(ends.from.any.ss_family == AF_UNIX ||
	    strpbrk(from.text, " \r\n") == NULL, "not one word");
	check_told(&ends);
	return 0;
}
