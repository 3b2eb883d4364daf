/* tls_psk: shared keys: their file, and authentication by one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/constant_time.h>

#include "tls.h"
#include "tls_pem.h"
#include "tls_psk.h"
#include "tls_rules.h"
#include "tls_suites.h"
#include "tls_verify.h"
#include "util.h"

#define PSKS_MAX	1000		/* all compared in each handshake */
#define BLANKS		" \t\r"
#define ALLOWED_NAME \
	"(allowed: 1 to 255 printable characters of ASCII, without a colon, " \
	"and without # or ; at the start or a blank at either end)"

void
tls_psk_free(struct tls_config *cfg)
{
	size_t i;

	for (i = 0; i < cfg->npsks; i++)
		free(cfg->psks[i].name);
	if (cfg->psks != NULL)
		mbedtls_platform_zeroize(cfg->psks, (cfg->npsks + 1) *
		    sizeof(*cfg->psks));
	free(cfg->psks);
	cfg->psks = NULL;
	cfg->npsks = 0;
}

/* Return why a name is no valid identity, as a clause, or NULL. */
static const char *
name_fault(const unsigned char *name, size_t len)
{
	size_t i;

	if (len == 0)
		return "the identity is empty";
	if (len > PSK_NAME_MAX)
		return "the identity is longer than 255 bytes";
	for (i = 0; i < len; i++)
		if (name[i] < ' ' || name[i] > '~' || name[i] == ':')
			return "the identity has a character that is not "
			    "allowed";
	if (name[0] == ' ' || name[len - 1] == ' ')
		return "there is a blank before or after the identity";
	if (name[0] == '#' || name[0] == ';')
		return "the identity looks like a comment";
	return NULL;
}

/*
 * Compute a MAC of a constant.  Tickets contain it, so that one is refused
 * after the key of its identity has changed.
 */
static int
make_check(struct psk *p)
{
	static const unsigned char about[] = "tunnel: the key of a ticket";
	psa_key_attributes_t attr = psa_key_attributes_init();
	const psa_algorithm_t alg = PSA_ALG_HMAC(PSA_ALG_SHA_256);
	unsigned char hash[HASH_SIZE];
	psa_status_t r;
	psa_key_id_t id;
	size_t len;

	psa_set_key_type(&attr, PSA_KEY_TYPE_HMAC);
	psa_set_key_usage_flags(&attr, PSA_KEY_USAGE_SIGN_MESSAGE);
	psa_set_key_algorithm(&attr, alg);
	if (psa_import_key(&attr, p->secret, p->len, &id) != PSA_SUCCESS)
		return -1;
	r = psa_mac_compute(id, alg, about, sizeof(about), hash, sizeof(hash),
	    &len);
	psa_destroy_key(id);
	memcpy(p->check, hash, sizeof(p->check));
	return r == PSA_SUCCESS ? 0 : -1;
}

/* Parse the key after the colon. */
static int
parse_secret(struct tls_config *cfg, const char *where, const char *text,
    struct psk *p)
{
	size_t n = strlen(text), digits = strspn(text,
	    "0123456789abcdefABCDEF");

	if (digits != n)
		return tls_fail(cfg, "%s: the key is not hexadecimal (allowed: "
		    "IDENTITY:KEY, with %d to %d hexadecimal digits)", where,
		    2 * PSK_MIN, 2 * PSK_MAX);
	if (n % 2 != 0 || n < 2 * PSK_MIN || n > 2 * PSK_MAX)
		return tls_fail(cfg, "%s: a key of %zu hexadecimal digits "
		    "(allowed: an even number from %d to %d)", where, n,
		    2 * PSK_MIN, 2 * PSK_MAX);
	if (n / 2 > MBEDTLS_PSK_MAX_LEN)
		return tls_fail(cfg, "%s: a key of %zu bytes, but this mbed "
		    "TLS takes up to %d", where, n / 2, MBEDTLS_PSK_MAX_LEN);
	p->len = (unsigned char)(n / 2);
	parse_hex(text, p->secret, p->len);
	return make_check(p) == 0 ? 0 : tls_fail(cfg, "%s: out of memory",
	    where);
}

/* Find a key in a time that does not depend on which one matches. */
static const struct psk *
find(const struct tls_config *cfg, const unsigned char *name, size_t len)
{
	const struct psk *found = NULL;
	size_t i;

	for (i = 0; i < cfg->npsks; i++)
		if (cfg->psks[i].name_len == len &&
		    mbedtls_ct_memcmp(cfg->psks[i].name, name, len) == 0)
			found = &cfg->psks[i];
	return found;
}

/* Parse a line with a key, modifying it. */
static int
parse_line(struct tls_config *cfg, const char *where, char *line)
{
	struct psk *p = &cfg->psks[cfg->npsks];
	char *colon = strchr(line, ':'), *end = line + strlen(line);
	const char *why;

	while (end > line && strchr(BLANKS, end[-1]) != NULL)
		*--end = '\0';
	if (colon == NULL)
		return tls_fail(cfg, "%s: no colon (allowed: IDENTITY:KEY, as "
		    "tunnel -p makes it)", where);
	*colon++ = '\0';
	if ((why = name_fault((unsigned char *)line, strlen(line))) != NULL)
		return tls_fail(cfg, "%s: %s " ALLOWED_NAME, where, why);
	if (find(cfg, (unsigned char *)line, strlen(line)) != NULL)
		return tls_fail(cfg, "%s: a second key for \"%s\" (allowed: "
		    "one for each identity)", where, line);
	if (cfg->npsks == PSKS_MAX)
		return tls_fail(cfg, "%s: more than %d keys", where, PSKS_MAX);
	if (parse_secret(cfg, where, colon, p) == -1)
		return -1;
	if ((p->name = strdup(line)) == NULL)
		return tls_fail(cfg, "%s: out of memory", where);
	p->name_len = strlen(line);
	cfg->npsks++;
	return 0;
}

/* Report the first of several errors, and the number of others. */
static int
parse_lines(struct tls_config *cfg, const char *name, char *text)
{
	char where[ERROR_SIZE / 2], why[ERROR_SIZE - 64], *line;
	int n = 0, bad = 0;

	while ((line = strsep(&text, "\n")) != NULL) {
		n++;
		line += strspn(line, BLANKS);
		if (*line == '\0' || *line == '#' || *line == ';')
			continue;
		snprintf(where, sizeof(where), "%s:%d", name, n);
		if (parse_line(cfg, where, line) == -1 && bad++ == 0)
			snprintf(why, sizeof(why), "%.*s",
			    (int)sizeof(why) - 1, cfg->error);
	}
	if (bad > 1)
		return tls_fail(cfg, "%s; %d more line%s wrong", why, bad - 1,
		    bad == 2 ? " is" : "s are");
	if (bad == 1)
		return tls_fail(cfg, "%s", why);
	return cfg->npsks > 0 ? 0 : tls_fail(cfg,
	    "%s: no key in this file (tunnel -p makes one)", name);
}

int
tls_config_psk(struct tls_config *cfg, const char *name)
{
	unsigned char *text, *nul;
	size_t size;
	int r;

	cfg->has_psk = 1;
	if (name == NULL)
		return 0;
	if ((text = tls_pem_read(cfg, name, &size)) == NULL)
		return -1;
	/* A NUL must not end the text early. */
	while ((nul = memchr(text, '\0', size - 1)) != NULL)
		*nul = '\1';
	if (psa_generate_random(cfg->no_psk, sizeof(cfg->no_psk)) !=
	    PSA_SUCCESS || (cfg->psks = calloc(PSKS_MAX + 1,
	    sizeof(*cfg->psks))) == NULL)
		r = tls_fail(cfg, "%s: out of memory", name);
	else
		r = parse_lines(cfg, name, (char *)text);
	mbedtls_platform_zeroize(text, size);
	free(text);
	return r;
}

/*
 * The callback of mbedtls_ssl_conf_psk_cb(): set the key for the identity that
 * a client offers.  0, or a code.
 *
 * For an unknown identity, a server without certificates sets no_psk, a random
 * key: the client can't distinguish that from a wrong key, and learns no
 * identities.  In TLS 1.2 so does any server, since the suite is chosen
 * already.  In TLS 1.3 an invalid identity may be an expired ticket, and the
 * client's real identity may follow it.
 */
static int
take_identity(void *arg, mbedtls_ssl_context *ssl, const unsigned char *name,
    size_t len)
{
	const struct tls_config *cfg = arg;
	struct tls *t = mbedtls_ssl_get_user_data_p(ssl);
	const struct psk *p = find(cfg, name, len);
	int is_13 = is_tls13(t), is_name = name_fault(name, len) == NULL;
	char text[NAME_SIZE];

	t->psk = NULL;
	if (is_13 && (!is_name || !tls_suites_has_psk(cfg, 1)))
		return MBEDTLS_ERR_SSL_UNKNOWN_IDENTITY;
	text_quote(text, sizeof(text), name, len);
	free(t->identity);
	if ((t->identity = strdup(text)) == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	if (p != NULL && p->allowed) {
		tls_verify_forget(t);	/* the peer of a ticket */
		t->psk = p;
		t->by_psk = 1;
		return mbedtls_ssl_set_hs_psk(ssl, p->secret, p->len);
	}
	return is_13 && cfg->certs != NULL ? MBEDTLS_ERR_SSL_UNKNOWN_IDENTITY :
	    mbedtls_ssl_set_hs_psk(ssl, cfg->no_psk, sizeof(cfg->no_psk));
}

int
tls_config_psk_identity(struct tls_config *cfg, const char *name)
{
	cfg->own_psk = find(cfg, (const unsigned char *)name, strlen(name));
	return cfg->own_psk != NULL ? 0 : tls_fail(cfg,
	    "psk has no key for \"%s\"", name);
}

int
tls_psk_ready(struct tls_config *cfg)
{
	struct psk *p;

	if (cfg->npsks == 0)
		return 0;
	if (cfg->is_client && cfg->own_psk == NULL)
		cfg->own_psk = cfg->psks;
	for (p = cfg->psks; p < cfg->psks + cfg->npsks; p++)
		p->allowed = cfg->is_client ? p == cfg->own_psk :
		    tls_rules_allow_psk(cfg, p->name);
	cfg->psk_alone = cfg->is_client ? !cfg->has_ca && cfg->rules == NULL :
	    cfg->certs == NULL;
	if (cfg->is_client && cfg->psk_alone)
		cfg->verify = REQUIRED;
	tls_suites_add_psk(cfg);
	if (cfg->psk_alone)
		mbedtls_ssl_conf_tls13_key_exchange_modes(&cfg->ssl,
		    MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL);
	if (!cfg->is_client)
		mbedtls_ssl_conf_psk_cb(&cfg->ssl, take_identity, cfg);
	else if (mbedtls_ssl_conf_psk(&cfg->ssl, cfg->own_psk->secret,
	    cfg->own_psk->len, (const unsigned char *)cfg->own_psk->name,
	    cfg->own_psk->name_len) != 0)
		return tls_fail(cfg, "out of memory");
	return 0;
}

size_t
tls_psk_packed_size(size_t name_len)
{
	return name_len > 0 ? name_len + PSK_CHECK_SIZE : 0;
}

void
tls_psk_pack(const struct psk *p, unsigned char *out)
{
	memcpy(out, p->name, p->name_len);
	memcpy(out + p->name_len, p->check, PSK_CHECK_SIZE);
}

const struct psk *
tls_psk_unpack(const struct tls_config *cfg, const unsigned char *packed,
    size_t name_len)
{
	const struct psk *p = find(cfg, packed, name_len);

	return p != NULL && p->allowed && mbedtls_ct_memcmp(p->check,
	    packed + name_len, PSK_CHECK_SIZE) == 0 ? p : NULL;
}

/* Skip a vector with a length of n bytes.  NULL: it is incomplete. */
static const unsigned char *
skip(const unsigned char *p, const unsigned char *end, size_t n)
{
	if (p == NULL || (size_t)(end - p) < n ||
	    (size_t)(end - p) - n < (size_t)be_get(p, n))
		return NULL;
	return p + n + be_get(p, n);
}

/* RFC 8446 sections 4.1.2 and 4.2.11; 4 bytes of age follow each identity. */
size_t
tls_psk_offered(const unsigned char *p, size_t len)
{
	const unsigned char *end = p + len, *list = p;
	size_t n = 0;
	uint64_t type;

	if (len < 34)
		return 0;
	p = skip(skip(skip(p + 34, end, 1), end, 2), end, 1);
	if (p == NULL || end - p < 2)
		return 0;
	for (p += 2, type = 0; type != MBEDTLS_TLS_EXT_PRE_SHARED_KEY;) {
		if (end - p < 4)
			return 0;
		type = be_get(p, 2);
		list = p + 4;
		if ((p = skip(p + 2, end, 2)) == NULL)
			return 0;
	}
	if ((end = skip(list, p, 2)) == NULL)
		return 0;
	for (list += 2; (list = skip(list, end, 2)) != NULL &&
	    end - list >= 4; list += 4)
		n++;
	return n;
}

int
tls_generate_psk(const char *name, FILE *fp, char *text, size_t size)
{
	const char *why = name_fault((const unsigned char *)name,
	    strlen(name));
	unsigned char secret[KEY_SIZE];
	size_t i;

	if (why != NULL) {
		snprintf(text, size, "%s " ALLOWED_NAME, why);
		return -1;
	}
	if (psa_generate_random(secret, sizeof(secret)) != PSA_SUCCESS) {
		snprintf(text, size, "the random number generator has no "
		    "entropy");
		return -1;
	}
	fprintf(fp, "%s:", name);
	for (i = 0; i < sizeof(secret); i++)
		fprintf(fp, "%02x", secret[i]);
	fputc('\n', fp);
	mbedtls_platform_zeroize(secret, sizeof(secret));
	if (fflush(fp) == 0 && !ferror(fp))
		return 0;
	snprintf(text, size, "%s", strerror(errno));
	return -1;
}
