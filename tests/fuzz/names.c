/*
 * A rule or none, a name (each up to a zero), and a certificate: matching by
 * the rule, by the name, and the report.  Compare with an independent
 * implementation of RFC 6125 and README.md.
 */
#include "fuzz_tls.h"

#include <ctype.h>

#include "tls_cert.h"
#include "tls_constraints.h"
#include "tls_names.h"
#include "tls_rules.h"

static FILE *null;

void
fuzz_begin(void)
{
	set_clock();
	must(tls_init() == NULL, "tls_init");
	must((null = fopen("/dev/null", "w")) != NULL, "/dev/null");
}

/* Compare, ignoring case; a zero byte is not special. */
static int
is_equal(const char *a, size_t alen, const char *b, size_t blen)
{
	size_t i;

	for (i = 0; i < alen && i < blen && tolower((unsigned char)a[i]) ==
	    tolower((unsigned char)b[i]); i++)
		continue;
	return alen == blen && i == alen;
}

/* Return 1 if a pattern, perhaps with a star as its first label, matches. */
static int
covers(const char *pattern, size_t plen, const char *name, size_t len)
{
	const char *dot = memchr(name, '.', len);
	size_t label = dot != NULL ? (size_t)(dot - name) : 0;

	return is_equal(pattern, plen, name, len) || (plen > 2 &&
	    pattern[0] == '*' && pattern[1] == '.' && label > 0 &&
	    is_equal(pattern + 1, plen - 1, name + label, len - label));
}

/* Return 1 if the certificate has the name, or a wildcard for it. */
static int
has_dns(const mbedtls_x509_crt *crt, const char *name, int is_pattern)
{
	const mbedtls_x509_sequence *q = &crt->subject_alt_names;
	size_t len = strlen(name);

	for (; q != NULL && q->buf.p != NULL; q = q->next) {
		const char *own = (const char *)q->buf.p;

		/* dNSName: context-specific 2, RFC 5280 section 4.2.1.6. */
		if ((q->buf.tag & 0xdf) == 0x82 && (is_pattern ?
		    covers(name, len, own, q->buf.len) :
		    covers(own, q->buf.len, name, len)))
			return 1;
	}
	return 0;
}

static void
check_rule(const struct tls_config *cfg, const char *text,
    const mbedtls_x509_crt *crt)
{
	const struct rule *r = tls_rules_find(cfg, crt, 1);

	if (strncmp(text, "dns:", 4) == 0)
		must((r != NULL) == has_dns(crt, text + 4, 1),
		    "a rule for a name");
	if (r == NULL || strncmp(text, "cn:", 3) != 0)
		return;
	must(tls_names_common(crt) != NULL && is_equal(text + 3, strlen(text +
	    3), (const char *)tls_names_common(crt)->p,
	    tls_names_common(crt)->len), "a rule for a common name");
}

static void
check_name(const char *name, const mbedtls_x509_crt *crt)
{
	struct name_query s = { .name = name };
	int has;

	if (!tls_names_is_host(name))
		return;
	has = tls_names_has(crt, &s);
	s.by_pattern = 1;
	has |= tls_names_has(crt, &s);
	if (tls_names_has_san(crt))
		must(has == has_dns(crt, name, 0), "a name");
	else
		must(!has || tls_names_common(crt) != NULL, "no name at all");
}

/* As a server's certificate; and as an issuer's, with name constraints. */
static void
check_server(const char *name, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_buf *cn = tls_names_common(crt);
	unsigned char address[16];
	char list[NAME_SIZE];

	if (tls_is_name(name) && tls_names_is_server(crt, name))
		must(tls_names_address(name, address) > 0 ?
		    tls_names_has_san(crt) : has_dns(crt, name, 0) ||
		    (cn != NULL && !tls_names_has_dns(crt) &&
		    covers((const char *)cn->p, cn->len, name, strlen(name))),
		    "a server's name");
	tls_names_list(crt, list, sizeof(list));
	must(strpbrk(list, "\r\n\033") == NULL, "not one line");
	must(tls_constraints_check(crt, crt, NULL) == CONSTRAINTS_KEPT ||
	    tls_cert_extension(crt, MBEDTLS_OID_NAME_CONSTRAINTS,
	    &(mbedtls_x509_buf){ .len = 0 }) != 0, "what constraints?");
	tls_constraints_are_valid(crt);
}

/* As a client's certificate. */
static void
check_holder(struct tls_config *cfg, mbedtls_x509_crt *crt)
{
	static mbedtls_ssl_context ssl;		/* TLS 1.2: groups apply */
	struct tls *t = calloc(1, sizeof(*t));
	uint32_t flags = 0;

	must(t != NULL, "out of memory");
	mbedtls_ssl_init(&ssl);
	t->cfg = cfg;
	t->ssl = &ssl;
	tls_verify_cert(t, crt, 0, &flags);
	t->ssl = NULL;
	must(t->refused == (flags != 0) && t->refused == (t->peer == NULL),
	    "verdict is wrong");
	must(t->peer == NULL || strpbrk(t->peer, "\r\n") == NULL,
	    "not one line");
	tls_free(t);
}

static void
ignore(const void *arg, const char *about, const char *text)
{
	(void)arg;
	must(*about != '\0' && *text != '\0', "no text");
}

/* As our own certificate. */
static void
describe(struct tls_config *cfg, struct input der)
{
	struct cert *c = calloc(1, sizeof(*c));

	must(c != NULL && (c->name = strdup("x")) != NULL, "out of memory");
	mbedtls_x509_crt_init(&c->chain);
	mbedtls_pk_init(&c->key);
	cfg->certs = c;
	if (mbedtls_x509_crt_parse_der(&c->chain, der.p, der.n) == 0) {
		tls_config_report(cfg, 0, null);
		tls_config_warn(cfg, ignore, NULL);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct tls_config *cfg = tls_config_new(TLS_SERVER);
	char *rule = take_text(&in), *name = take_text(&in);
	mbedtls_x509_crt crt;

	must(cfg != NULL, "tls_config_new");
	mbedtls_x509_crt_init(&crt);
	if ((*rule == '\0' || tls_config_peer(cfg, rule) == 0) &&
	    mbedtls_x509_crt_parse_der(&crt, in.p, in.n) == 0) {
		cfg->has_ca = 1;
		check_rule(cfg, rule, &crt);
		check_name(name, &crt);
		check_server(name, &crt);
		check_holder(cfg, &crt);
		describe(cfg, in);
	}
	mbedtls_x509_crt_free(&crt);
	free(rule);
	free(name);
	tls_config_free(cfg);
	return 0;
}
