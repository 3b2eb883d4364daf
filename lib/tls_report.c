/*
 * tls_report: the report of -t on a configuration and its certificates, and
 * warnings.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <mbedtls/base64.h>

#include "tls.h"
#include "tls_cert.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_names.h"
#include "tls_rules.h"
#include "tls_suites.h"
#include "tls_verify.h"

#define WARN_DAYS	30
#define CRL_WARN_DAYS	3		/* some are valid for only a week */
#define RSA_BITS	2048

static const struct cert *
cert_at(const struct tls_config *cfg, size_t i)
{
	const struct cert *c;

	for (c = cfg->certs; c != NULL && i > 0; c = c->next)
		i--;
	return c;
}

static int
has_issuer(const mbedtls_x509_crt *list, const mbedtls_x509_crt *crt)
{
	for (; list != NULL; list = list->next)
		if (list->raw.p != NULL && tls_cert_is_issuer(list, crt))
			return 1;
	return 0;
}

/*
 * Check that each certificate in a chain was issued by the next one, and that
 * peers may know the issuer of the last.  Return the number of certificates; or
 * with text, 0 for an error, -1 for a possible error.
 */
static int
check_chain(const struct tls_config *cfg, const mbedtls_x509_crt *chain,
    char *text, size_t size)
{
	const mbedtls_x509_crt *crt = chain;
	char dn[DN_SIZE];
	int n = 1;

	for (; crt->next != NULL; crt = crt->next, n++) {
		if (tls_cert_is_issuer(crt->next, crt))
			continue;
		snprintf(text, size, "%s: certificate %d was not issued by "
		    "certificate %d, but by \"%s\"", has_issuer(chain, crt) ?
		    "the chain is in the wrong order" :
		    "an intermediate certificate is missing", n, n + 1,
		    tls_names_dn(&crt->issuer, dn, sizeof(dn)));
		return 0;
	}
	if (n > 1 || tls_cert_is_issuer(crt, crt) || has_issuer(&cfg->ca, crt))
		return n;
	snprintf(text, size, "an intermediate certificate is missing: that of "
	    "\"%s\", unless it is a root that the %ss have",
	    tls_names_dn(&crt->issuer, dn, sizeof(dn)), peer_role(cfg));
	/* Certificates of public CAs have the URL of their issuer's. */
	return tls_cert_find_oid(crt, CA_ISSUERS) != NULL ? 0 : -1;
}

/* The receiver and the subject of warnings. */
struct warning {
	void	(*warn)(const void *, const char *, const char *);
	const void *arg;
	const char *about;
	const char *peer;		/* the role of our peers */
};

static void __attribute__((format(printf, 2, 3)))
warn(const struct warning *w, const char *fmt, ...)
{
	char text[ERROR_SIZE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	w->warn(w->arg, w->about, text);
}

/* Clients accept a star only as the first label of at least three. */
static int
warn_of_name(void *arg, int kind, const char *name, size_t len)
{
	const char *star = memchr(name, '*', len), *dot;

	if (kind != MBEDTLS_X509_SAN_DNS_NAME || star == NULL)
		return 0;
	dot = len > 2 ? memchr(name + 2, '.', len - 2) : NULL;
	if (star != name || name[1] != '.' || dot == NULL ||
	    memchr(name + 1, '*', len - 1) != NULL)
		warn(arg, "the name \"%.*s\" matches no host", (int)len,
		    name);
	return 0;
}

/* Return the curve of a key if many clients don't support it, or NULL. */
static const char *
odd_curve(const mbedtls_pk_context *pk)
{
	const struct cert_curve *c = tls_cert_curve(pk);

	return c == NULL || c->group == MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1 ||
	    c->group == MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1 ? NULL : c->name;
}

/* Warn about one certificate of a chain; is_leaf: the first. */
static void
warn_of_cert(const struct warning *w, const mbedtls_x509_crt *crt, int is_leaf)
{
	const char *which = is_leaf ? "certificate" : "chain's certificate";
	const char *alg;
	char text[64];
	enum cert_dates d = tls_cert_dates(&crt->valid_from, &crt->valid_to,
	    WARN_DAYS, text, sizeof(text));

	if (d != IN_TIME)
		warn(w, "the %s %s%s", which, d == NOT_YET ? "is " : "", text);
	if (tls_cert_is_rsa(&crt->pk) &&
	    mbedtls_pk_get_bitlen(&crt->pk) < RSA_BITS)
		warn(w, "the %s has an RSA key of %zu bits (%ss refuse less "
		    "than %d)", which, mbedtls_pk_get_bitlen(&crt->pk),
		    w->peer, RSA_BITS);
	if (odd_curve(&crt->pk) != NULL)
		warn(w, "the %s has a key on %s, which many %ss refuse (all "
		    "accept secp256r1)", which, odd_curve(&crt->pk), w->peer);
	/* Clients ignore the signature of a root. */
	alg = is_leaf || !tls_cert_is_issuer(crt, crt) ?
	    tls_cert_signature(crt) : "";
	if (strstr(alg, "SHA1") != NULL || strstr(alg, "MD5") != NULL)
		warn(w, "the %s is signed with %s, which %ss refuse", which,
		    strstr(alg, "MD5") != NULL ? "MD5" : "SHA-1", w->peer);
}

/* Warn about what clients check in a server's certificate. */
static void
warn_of_server(struct warning *w, const mbedtls_x509_crt *leaf)
{
	if (tls_cert_find_oid(leaf, MUST_STAPLE) != NULL)
		warn(w, "the certificate requires OCSP stapling (must-staple), "
		    "which is not supported: some clients refuse it");
	if (!tls_names_has_san(leaf))
		warn(w, "the certificate has no subject alternative name, and "
		    "clients check no other name");
	tls_names_each(leaf, warn_of_name, w);
}

/* Warn about suites whose key exchange uses the certificate's key. */
static void
warn_of_suite(const struct warning *w, int suite)
{
	char name[NAME_SIZE];

	tls_suites_name(suite, name, sizeof(name));
	if (!tls_suites_is_tls13(suite) && strstr(name, "DHE_") == NULL)
		warn(w, "%s has no forward secrecy%s", name, strncmp(name,
		    "TLS_RSA_", 8) == 0 ? ", and its RSA decryption is open to "
		    "attacks (CVE-2026-50587)" : "");
}

static int
has_psk(const struct tls_config *cfg, const char *name)
{
	size_t i;

	for (i = 0; i < cfg->npsks && strcmp(cfg->psks[i].name, name) != 0; i++)
		continue;
	return i < cfg->npsks;
}

/* Warn about issuers of peer certificates, pinned ones, and shared keys. */
static void
warn_of_trust(const struct tls_config *cfg, struct warning *w)
{
	const mbedtls_x509_crt *crt;
	const struct rule *r;
	char text[NAME_SIZE], dn[DN_SIZE];
	uint32_t flags;
	size_t i;

	w->about = "ca";
	for (crt = &cfg->ca; cfg->verify != NOT_ASKED && cfg->has_ca &&
	    cfg->system == NULL && crt != NULL; crt = crt->next)
		if ((flags = tls_verify_issuer_flags(cfg, crt)) != 0)
			warn(w, "%ss with a certificate of \"%s\" are refused: "
			    "%s", w->peer,
			    tls_names_dn(&crt->subject, dn, sizeof(dn)),
			    tls_error_fault_text(cfg, tls_error_fault(flags)));
	for (i = 0; i < cfg->npassed && i < PASSED_MAX; i++)
		warn(w, "%s; skipped", cfg->passed[i]);
	if (cfg->npassed > i)
		warn(w, "%zu more skipped", cfg->npassed - i);
	w->about = "peer";
	for (r = cfg->rules; r != NULL; r = r->next) {
		if (r->kind == SHARED && !has_psk(cfg, r->text))
			warn(w, "psk has no key for \"%s\"", r->text);
		for (crt = r->certs; crt != NULL; crt = crt->next)
			if (tls_cert_dates(&crt->valid_from, &crt->valid_to,
			    WARN_DAYS, text, sizeof(text)) != IN_TIME)
				warn(w, "%s: the certificate of \"%s\": %s",
				    r->text, tls_names_dn(&crt->subject, dn,
				    sizeof(dn)), text);
	}
	if (cfg->rules != NULL && cfg->verify == NOT_ASKED &&
	    cfg->certs != NULL)
		warn(w, "clients without a shared key are served as well, "
		    "because cert is set and verify = none");
	w->about = "psk";
	for (i = 0; i < cfg->npsks && !cfg->psks[i].allowed; i++)
		continue;
	if (cfg->npsks > 0 && i == cfg->npsks)
		warn(w, "no shared key is allowed by peer");
	else if (cfg->npsks > 0 && !tls_suites_has_psk(cfg, 0) &&
	    !tls_suites_has_psk(cfg, 1))
		warn(w, "no suite in ciphers can be used with shared keys");
}

static void
warn_of_version(const struct tls_config *cfg, struct warning *w)
{
	int has_group = cfg->left_out == 13 || tls_suites_has_group(cfg);

	w->about = has_group ? "ciphers" : "groups";
	warn(w, "TLS 1.%d is not offered: no %s in the list can be used with "
	    "it", cfg->left_out % 10, has_group ? "suite" : "group");
}

void
tls_config_warn(const struct tls_config *cfg, void (*f)(const void *,
    const char *, const char *), const void *arg)
{
	struct warning w = { .warn = f, .arg = arg, .peer = peer_role(cfg) };
	const mbedtls_x509_crt *crt;
	const mbedtls_x509_crl *crl;
	const struct cert *c;
	char text[ERROR_SIZE], dn[DN_SIZE];
	size_t i;

	for (c = cfg->certs; c != NULL; c = c->next) {
		w.about = c->name;
		for (crt = &c->chain; crt != NULL; crt = crt->next)
			warn_of_cert(&w, crt, crt == &c->chain);
		if (check_chain(cfg, &c->chain, text, sizeof(text)) == 0)
			warn(&w, "%s", text);
		if (!cfg->is_client)
			warn_of_server(&w, &c->chain);
	}
	warn_of_trust(cfg, &w);
	w.about = "verify";
	if (cfg->is_client && cfg->verify == NOT_ASKED)
		warn(&w, "the server is not authenticated: anyone can "
		    "impersonate it");
	w.about = "crl";
	for (crl = &cfg->crl; cfg->has_crl && crl != NULL; crl = crl->next)
		if (tls_cert_dates(&crl->this_update, &crl->next_update,
		    CRL_WARN_DAYS, text, sizeof(text)) != IN_TIME)
			warn(&w, "the CRL of \"%s\": %s",
			    tls_names_dn(&crl->issuer, dn, sizeof(dn)), text);
	if (cfg->left_out != 0)
		warn_of_version(cfg, &w);
	w.about = "ciphers";
	for (i = 0; cfg->suites[i] != 0; i++)
		warn_of_suite(&w, cfg->suites[i]);
}

static void
print_hex(FILE *fp, const unsigned char *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		fprintf(fp, "%s%02X", i == 0 ? "" : ":", p[i]);
	fputc('\n', fp);
}

static void
print_hash(FILE *fp, const mbedtls_x509_buf *b)
{
	unsigned char hash[HASH_SIZE];
	size_t len;

	psa_hash_compute(PSA_ALG_SHA_256, b->p, b->len, hash, sizeof(hash),
	    &len);
	print_hex(fp, hash, sizeof(hash));
}

struct printer {
	FILE	*fp;
	const char *comma;		/* before the next name */
};

static int
print_name(void *arg, int kind, const char *name, size_t len)
{
	struct printer *p = arg;
	char text[INET6_ADDRSTRLEN];

	fputs(p->comma, p->fp);
	p->comma = ", ";
	if (kind == MBEDTLS_X509_SAN_IP_ADDRESS) {
		fputs(inet_ntop(len == 4 ? AF_INET : AF_INET6, name, text,
		    sizeof(text)), p->fp);
		return 0;
	}
	/* Escape: a certificate must not forge lines or move the cursor. */
	for (; len > 0; name++, len--)
		fprintf(p->fp, isprint((unsigned char)*name) ? "%c" :
		    "\\x%02x", (unsigned char)*name);
	return 0;
}

static void
print_names(FILE *fp, const mbedtls_x509_crt *crt)
{
	struct printer p = { .fp = fp, .comma = "" };

	tls_names_each(crt, print_name, &p);
	fprintf(fp, "%s\n", *p.comma == '\0' ? "(none)" : "");
}

static void
print_chain(FILE *fp, const struct tls_config *cfg,
    const mbedtls_x509_crt *crt)
{
	char text[ERROR_SIZE];
	int n = check_chain(cfg, crt, text, sizeof(text));

	if (n <= 0)
		fprintf(fp, "%s\n", text);
	else
		fprintf(fp, "%d certificate%s\n", n,
		    n == 1 ? "" : "s, in order");
}

int
tls_config_report(const struct tls_config *cfg, size_t i, FILE *fp)
{
	const struct cert *c = cert_at(cfg, i);
	const mbedtls_x509_crt *crt;
	unsigned char hash[32], pin[64];
	char text[1024];
	size_t len;

	if (c == NULL)
		return -1;
	crt = &c->chain;
	fprintf(fp, "certificate %s\n", c->name);
	fprintf(fp, "\tsubject    %s\n\tnames      ",
	    tls_names_dn(&crt->subject, text, sizeof(text)));
	print_names(fp, crt);
	fprintf(fp, "\tissuer     %s\n\tserial     ",
	    tls_names_dn(&crt->issuer, text, sizeof(text)));
	/* Omit the zero that DER adds to keep the number positive. */
	len = crt->serial.len > 1 && crt->serial.p[0] == 0;
	print_hex(fp, crt->serial.p + len, crt->serial.len - len);
	tls_cert_dates(&crt->valid_from, &crt->valid_to, 0, text, sizeof(text));
	fprintf(fp, "\tvalid      %04d-%02d-%02d to %04d-%02d-%02d (%s)\n",
	    crt->valid_from.year, crt->valid_from.mon, crt->valid_from.day,
	    crt->valid_to.year, crt->valid_to.mon, crt->valid_to.day, text);
	fprintf(fp, "\tkey        %s, %zu bits, matches the certificate\n",
	    tls_cert_is_rsa(&crt->pk) ? "RSA" : "EC",
	    mbedtls_pk_get_bitlen(&crt->pk));
	fprintf(fp, "\tsignature  %s\n\tsha256     ",
	    tls_cert_signature(crt));
	print_hash(fp, &crt->raw);
	psa_hash_compute(PSA_ALG_SHA_256, crt->pk_raw.p, crt->pk_raw.len,
	    hash, sizeof(hash), &len);
	mbedtls_base64_encode(pin, sizeof(pin), &len, hash, sizeof(hash));
	fprintf(fp, "\tpin        sha256/%s\n\tchain      ", pin);
	print_chain(fp, cfg, crt);
	return 0;
}

int
tls_config_expiry(const struct tls_config *cfg, size_t i, const char **file,
    int64_t *at)
{
	const struct cert *c = cert_at(cfg, i);

	if (c == NULL)
		return -1;
	*file = c->name;
	*at = tls_cert_utc(&c->chain.valid_to);
	return 0;
}

void
tls_config_print(const struct tls_config *cfg, FILE *fp)
{
	const mbedtls_x509_crt *crt;
	const mbedtls_x509_crl *crl;
	const struct rule *r;
	char name[NAME_SIZE], dn[DN_SIZE];
	size_t i;

	fprintf(fp, "# TLS 1.%d", cfg->min % 10);
	if (cfg->min != cfg->max)
		fprintf(fp, " to 1.%d", cfg->max % 10);
	fprintf(fp, ", with these suites and groups:\n");
	for (i = 0; cfg->suites[i] != 0; i++) {
		tls_suites_name(cfg->suites[i], name, sizeof(name));
		fprintf(fp, "#\t%s\n", name);
	}
	for (i = 0; cfg->groups[i] != 0; i++)
		fprintf(fp, "#\t%s\n", tls_suites_group(cfg->groups[i]));
	for (i = 0; i < cfg->npsks; i++)
		if (!cfg->is_client || cfg->psks[i].allowed)
			fprintf(fp, "# shared key \"%s\"%s\n",
			    cfg->psks[i].name, cfg->psks[i].allowed ? "" :
			    " (not allowed by peer)");
	if (tls_config_system(cfg, &i) != NULL)
		fprintf(fp, "# CA certificates of the system: %s (%zu)\n",
		    cfg->system, i);
	for (crt = &cfg->ca; cfg->has_ca && cfg->system == NULL && crt != NULL;
	    crt = crt->next)
		fprintf(fp, "# %s CA \"%s\"\n", peer_role(cfg),
		    tls_names_dn(&crt->subject, dn, sizeof(dn)));
	for (r = cfg->rules; r != NULL; r = r->next)
		for (crt = r->certs; crt != NULL; crt = crt->next) {
			fprintf(fp, "# pinned %s \"%s\", sha256 ",
			    peer_role(cfg), tls_names_dn(&crt->subject, dn,
			    sizeof(dn)));
			print_hash(fp, &crt->raw);
		}
	for (crl = &cfg->crl; cfg->has_crl && crl != NULL; crl = crl->next) {
		tls_cert_dates(&crl->this_update, &crl->next_update, 0, name,
		    sizeof(name));
		fprintf(fp, "# CRL of \"%s\" (%s)\n", tls_names_dn(&crl->issuer,
		    dn, sizeof(dn)), name);
	}
}
