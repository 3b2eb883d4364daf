/*
 * A complete handshake of a client with the certificates of the input: a byte
 * of flags, then each certificate after its length in two bytes.  The client
 * has the key of a certificate issued by the CA, so no other may be accepted.
 */
#include "fuzz_tls.h"

#define CHAIN	4

enum { IS_REQUIRED = 1, IS_TLS13 = 2, IN_PIECES = 4 };

void
fuzz_begin(void)
{
	servers_new();
	client_load();
}

/* Split into certificates, without parsing them. */
static size_t
take_chain(struct input *in, mbedtls_x509_crt *chain)
{
	struct input raw;
	size_t n = 0;

	for (; n < CHAIN && in->n > 0; n++) {
		raw = take_some(in, take_number(in));
		chain[n] = client_cert->chain;
		chain[n].raw.p = (unsigned char *)(uintptr_t)raw.p;
		chain[n].raw.len = raw.n;
		chain[n].next = NULL;
		if (n > 0)
			chain[n - 1].next = &chain[n];
	}
	return n;
}

/* Return 1 if this is the certificate that the CA has signed. */
static int
is_signed(const mbedtls_x509_crt *raw)
{
	const mbedtls_x509_buf *real = &client_cert->chain.tbs;
	mbedtls_x509_crt crt;
	int r;

	mbedtls_x509_crt_init(&crt);
	r = mbedtls_x509_crt_parse_der(&crt, raw->raw.p, raw->raw.len) == 0 &&
	    crt.tbs.len == real->len &&
	    memcmp(crt.tbs.p, real->p, real->len) == 0;
	mbedtls_x509_crt_free(&crt);
	return r;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	unsigned flags = take(&in);
	struct tls_config *cfg = servers[flags & IS_REQUIRED ? REQUIRED :
	    ASKED];
	mbedtls_x509_crt chain[CHAIN];
	struct stream s = { .fd = -1 };
	struct client c;
	struct tls *t;
	size_t n;
	int r;

	start(cfg, flags & IN_PIECES ? 7 : SIZE_MAX);
	n = take_chain(&in, chain);
	client_new(&c, flags & IS_TLS13, 0, n > 0 ? chain : NULL);
	must((t = tls_new(cfg, -1, NULL, &s)) != NULL, "tls_new");
	r = do_handshake(&s, &c.ssl);
	if (r == 0 && t->peer != NULL)
		must(n > 0 && is_signed(chain), "it belongs to another user");
	else if (r == 0)
		must(!(flags & IS_REQUIRED), "there is no certificate");
	else if (r == STREAM_ERROR)
		must(*s.ops->error(&s) != '\0', "no reason");
	client_free(&c);
	tls_free(t);
	return 0;
}
