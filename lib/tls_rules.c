/* tls_rules: who a peer may be, by the rules of a configuration. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/base64.h>

#include "tls.h"
#include "tls_cert.h"
#include "tls_files.h"
#include "tls_names.h"
#include "tls_rules.h"

/* Parse the value after the colon.  0, or -1: malformed, or out of memory. */
static int
rule_parse(struct rule *r, const char *text)
{
	static const char sha256[] = "sha256/";
	size_t n = strlen(sha256);

	switch (r->kind) {
	case IP:
		r->len = strchr(text, ':') == NULL ? 4 : 16;
		return inet_pton(r->len == 4 ? AF_INET : AF_INET6, text,
		    r->bytes) == 1 ? 0 : -1;
	case PIN:
		return strncmp(text, sha256, n) == 0 &&
		    mbedtls_base64_decode(r->bytes, sizeof(r->bytes), &r->len,
		    (const unsigned char *)text + n, strlen(text + n)) == 0 &&
		    r->len == sizeof(r->bytes) ? 0 : -1;
	case DNS:
		if (!tls_names_is_host(text) || strrchr(text, '*') > text ||
		    (text[0] == '*' && (text[1] != '.' || text[2] == '\0')))
			return -1;
		/* FALLTHROUGH */
	default:
		r->text = strdup(text);
		return r->text != NULL && *text != '\0' &&
		    (r->kind == DNS || r->kind == CERT || r->kind == SHARED ||
		    strchr(text, '*') == NULL) ? 0 : -1;
	}
}

static const char *const kinds[] = {
	"cn:", "dns:", "ip:", "uri:", "psk:", "pin:", "cert:"
};

/* 1 if another rule follows after a comma: it would be part of the name. */
static int
has_another(const char *text)
{
	size_t i;

	while ((text = strchr(text, ',')) != NULL) {
		text += 1 + strspn(text + 1, " \t");
		for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
			if (strncmp(text, kinds[i], strlen(kinds[i])) == 0)
				return 1;
	}
	return 0;
}

int
tls_rules_is_pin(const struct rule *r)
{
	return r->kind == PIN || r->kind == CERT;
}

static int
rule_load(struct tls_config *cfg, struct rule *r)
{
	if ((r->certs = calloc(1, sizeof(*r->certs))) == NULL)
		return tls_fail(cfg, "out of memory");
	mbedtls_x509_crt_init(r->certs);
	return tls_files_certs(cfg, r->certs, PINNED, r->text);
}

int
tls_config_peer(struct tls_config *cfg, const char *text)
{
	struct rule *r, **last;
	int i;

	if (has_another(text))
		return tls_fail(cfg, "\"%s\" has more than one rule "
		    "(allowed: one rule in each peer line)", text);
	if ((r = calloc(1, sizeof(*r))) == NULL)
		return tls_fail(cfg, "out of memory");
	for (last = &cfg->rules; *last != NULL; last = &(*last)->next)
		continue;
	*last = r;
	for (i = CN; i < CERT && strncmp(text, kinds[i], strlen(kinds[i])) != 0;
	    i++)
		continue;
	r->kind = (enum rule_kind)i;
	r->is_server = cfg->is_client;
	if (strncmp(text, kinds[i], strlen(kinds[i])) != 0 ||
	    rule_parse(r, text + strlen(kinds[i])) == -1)
		return tls_fail(cfg, "\"%s\" is not a rule (allowed: cn:NAME, "
		    "dns:NAME, dns:*.NAME, ip:ADDRESS, uri:URI, psk:IDENTITY, "
		    "pin:sha256/BASE64, cert:FILE; a * only as the first label "
		    "of dns:)", text);
	if (r->kind == SHARED && cfg->is_client)
		return tls_fail(cfg, "\"%s\" has no effect with client = yes "
		    "(allowed: psk_identity, which names the key of a "
		    "client)", text);
	if (r->kind == SHARED)
		return cfg->has_psk ? 0 : tls_fail(cfg, "\"%s\" has no effect "
		    "without psk", text);
	if (!tls_rules_is_pin(r) && !cfg->has_ca)
		return tls_fail(cfg,
		    "\"%s\" needs ca: without it, anyone can make such a "
		    "certificate", text);
	cfg->has_pin |= tls_rules_is_pin(r);
	return r->kind == CERT ? rule_load(cfg, r) : 0;
}

static int
matches_name(void *arg, int kind, const char *name, size_t len)
{
	const struct rule *const *r = arg;

	switch ((*r)->kind) {
	case DNS:
		return kind == MBEDTLS_X509_SAN_DNS_NAME &&
		    (tls_names_equal((*r)->text, name, len) ||
		    tls_names_matches_wildcard((*r)->text, strlen((*r)->text),
		    name, len) || ((*r)->is_server &&
		    tls_names_covers(name, len, (*r)->text)));
	case IP:
		return kind == MBEDTLS_X509_SAN_IP_ADDRESS &&
		    len == (*r)->len && memcmp(name, (*r)->bytes, len) == 0;
	default:
		return kind == MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER &&
		    len == strlen((*r)->text) &&
		    memcmp(name, (*r)->text, len) == 0;
	}
}

static int
matches(const struct rule *r, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_buf *cn = tls_names_common(crt);
	unsigned char hash[HASH_SIZE];
	size_t len;

	switch (r->kind) {
	case CN:
		return cn != NULL && cn->len == strlen(r->text) &&
		    memcmp(cn->p, r->text, cn->len) == 0;
	case PIN:
		return psa_hash_compute(PSA_ALG_SHA_256, crt->pk_raw.p,
		    crt->pk_raw.len, hash, sizeof(hash), &len) ==
		    PSA_SUCCESS && memcmp(hash, r->bytes, sizeof(hash)) == 0;
	case CERT:
		return tls_cert_is_in(r->certs, crt->raw.p, crt->raw.len);
	case SHARED:
		return 0;
	default:
		return tls_names_each(crt, matches_name, &r);
	}
}

const struct rule *
tls_rules_find(const struct tls_config *cfg, const mbedtls_x509_crt *crt,
    int is_trusted)
{
	const struct rule *r, *found = NULL;

	for (r = cfg->rules; r != NULL; r = r->next)
		if ((tls_rules_is_pin(r) || (is_trusted && found == NULL)) &&
		    matches(r, crt))
			found = r;
	return found;
}

int
tls_rules_allow_psk(const struct tls_config *cfg, const char *name)
{
	const struct rule *r = cfg->rules;

	while (r != NULL && (r->kind != SHARED || strcmp(r->text, name) != 0))
		r = r->next;
	return r != NULL || cfg->rules == NULL;
}

void
tls_rules_free(struct rule *r)
{
	struct rule *next;

	for (; r != NULL; r = next) {
		next = r->next;
		mbedtls_x509_crt_free(r->certs);
		free(r->certs);
		free(r->text);
		free(r);
	}
}
