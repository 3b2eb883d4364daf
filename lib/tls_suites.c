/* tls_suites: cipher suites, groups and protocols, in lists and by name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif

#include "tls.h"
#include "tls_cert.h"
#include "tls_internal.h"
#include "tls_suites.h"
#include "util.h"

#define SEPARATORS	" \t,:"
#define HYBRID		"x25519mlkem768"

#if defined(MBEDTLS_KEY_EXCHANGE_ECDHE_PSK_ENABLED) && \
    defined(PSA_WANT_ALG_CHACHA20_POLY1305)
#define HAS_PSK_SUITE	1
#else
#define HAS_PSK_SUITE	0
#endif

/*
 * Suites that are both safe and fast; prefer() orders those that the library
 * supports.
 */
static const int default_suites[] = {
	MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
	MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
	MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	0
};

/*
 * The groups that the library supports, in the default order of preference.
 * The finite-field groups are not enabled by default, as they are expensive.
 */
static const struct group {
	const char *name;
	uint16_t id;
	bool	 by_default;
	bool	 in_tls12;
} groups[] = {
#ifdef MBEDTLS_SSL_TLS13_X25519MLKEM768
	{ HYBRID, MBEDTLS_SSL_IANA_TLS_GROUP_X25519MLKEM768, true, false },
#endif
	{ "x25519", MBEDTLS_SSL_IANA_TLS_GROUP_X25519, true, true },
	{ "secp256r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1, true, true },
	{ "secp384r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, true, true },
#ifdef PSA_WANT_ECC_SECP_R1_521
	{ "secp521r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1, true, true },
#endif
#ifdef PSA_WANT_ECC_MONTGOMERY_448
	{ "x448", MBEDTLS_SSL_IANA_TLS_GROUP_X448, false, true },
#endif
#ifdef PSA_WANT_DH_RFC7919_2048
	{ "ffdhe2048", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE2048, false, false },
	{ "ffdhe3072", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE3072, false, false },
	{ "ffdhe4096", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE4096, false, false },
#endif
	{ NULL, 0, false, false }
};

/*
 * Return 1 if this CPU has AES instructions and the library uses them.  Without
 * them, ChaCha20 is faster.
 */
#if defined(MBEDTLS_AESNI_C) && (defined(__x86_64__) || defined(__i386__))
static int
has_fast_aes(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) == 1 && (c & bit_AES) != 0;
}
#elif defined(MBEDTLS_AESCE_C) && defined(__aarch64__) && defined(__linux__)
static int
has_fast_aes(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
}
#else
static int
has_fast_aes(void)
{
	return 0;
}
#endif

/*
 * Fill in the default suites, the faster cipher of this machine first.  In TLS
 * 1.3 the client's order decides nevertheless.
 */
static void
prefer(int *suites)
{
	int chacha_first = !has_fast_aes(), pass;
	size_t i, n = 0;

	for (pass = 0; pass < 2; pass++) {
		for (i = 0; default_suites[i] != 0; i++) {
			const char *name = mbedtls_ssl_get_ciphersuite_name(
			    default_suites[i]);
			int chacha = strstr(name, "CHACHA20") != NULL;

			if (mbedtls_ssl_ciphersuite_from_id(
			    default_suites[i]) != NULL &&
			    (chacha == chacha_first) == (pass == 0))
				suites[n++] = default_suites[i];
		}
	}
	suites[n] = 0;
}

void
tls_suites_default(struct tls_config *cfg)
{
	size_t i, n = 0;

	prefer(cfg->suites);
	mbedtls_ssl_conf_ciphersuites(&cfg->ssl, cfg->suites);
	for (i = 0; groups[i].name != NULL; i++)
		if (groups[i].by_default)
			cfg->groups[n++] = groups[i].id;
	mbedtls_ssl_conf_groups(&cfg->ssl, cfg->groups);
}

/*
 * Translate an IANA name: the library's names have hyphens for underscores, and
 * in TLS 1.3 begin with TLS1-3- instead of TLS_.  0: unknown.
 */
static int
suite_id(const char *iana)
{
	char name[NAME_SIZE];
	size_t i;

	if (strncmp(iana, "TLS_", 4) != 0)
		return 0;
	snprintf(name, sizeof(name), "%s%s", strstr(iana, "_WITH_") != NULL ?
	    "TLS-" : "TLS1-3-", iana + 4);
	for (i = 0; name[i] != '\0'; i++)
		if (name[i] == '_')
			name[i] = '-';
	return mbedtls_ssl_get_ciphersuite_id(name);
}

/* Of the suites with shared keys, only one is supported. */
static int
is_supported(int suite)
{
	return suite != 0 && (suite == PSK_SUITE || strstr(
	    mbedtls_ssl_get_ciphersuite_name(suite), "-PSK-") == NULL);
}

void
tls_suites_name(int suite, char *name, size_t size)
{
	const char *library = mbedtls_ssl_get_ciphersuite_name(suite);
	size_t i;

	snprintf(name, size, "TLS_%s", library +
	    (strncmp(library, "TLS1-3-", 7) == 0 ? 7 : 4));
	for (i = 0; name[i] != '\0'; i++)
		if (name[i] == '-')
			name[i] = '_';
}

int
tls_suites_is_tls13(int suite)
{
	return strncmp(mbedtls_ssl_get_ciphersuite_name(suite), "TLS1-3-",
	    7) == 0;
}

static const struct group *
group_by_id(int id)
{
	size_t i;

	for (i = 0; groups[i].name != NULL; i++)
		if (groups[i].id == id)
			return &groups[i];
	return NULL;
}

const char *
tls_suites_group(int id)
{
	const struct group *g = group_by_id(id);

	return g != NULL ? g->name : NULL;
}

void
tls_groups(char *text, size_t size)
{
	struct text list = { .p = text, .size = size };
	size_t i;

	for (i = 0; groups[i].name != NULL; i++)
		text_add(&list, "%s%s", i > 0 ? ", " : "", groups[i].name);
}

/* Call add() for each name in a list, with its position. */
static int
each(struct tls_config *cfg, const char *names,
    int (*add)(struct tls_config *, const char *, size_t))
{
	char *copy, *name, *rest;
	size_t n = 0;
	int r = 0;

	if ((copy = strdup(names)) == NULL)
		return tls_fail(cfg, "out of memory");
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL && r == 0;
	    name = strtok_r(NULL, SEPARATORS, &rest)) {
		if (n == LIST_MAX)
			r = tls_fail(cfg, "the list has more than %d "
			    "names", LIST_MAX);
		else
			r = add(cfg, name, n++);
	}
	if (n == 0)
		r = tls_fail(cfg, "the list is empty");
	free(copy);
	return r;
}

/*
 * Translate an OpenSSL name such as ECDHE-RSA-AES256-GCM-SHA384 to IANA's.
 * Return 1 if the suite is supported.  Suites without forward secrecy or AEAD
 * are left out, since the result is a recommendation.
 */
static int
translate_suite(const char *name, char *iana, size_t size)
{
	static const struct {
		const char *theirs, *ours;
	} parts[] = {
		{ "AES128-GCM-SHA256", "AES_128_GCM_SHA256" },
		{ "AES256-GCM-SHA384", "AES_256_GCM_SHA384" },
		{ "CHACHA20-POLY1305", "CHACHA20_POLY1305_SHA256" },
		{ "AES128-CCM", "AES_128_CCM" },
		{ "AES256-CCM", "AES_256_CCM" },
	}, keys[] = {
		{ "ECDHE-ECDSA-", "ECDHE_ECDSA" },
		{ "ECDHE-RSA-", "ECDHE_RSA" },
		{ "DHE-RSA-", "DHE_RSA" },
		{ "ECDHE-PSK-", "ECDHE_PSK" },
	};
	size_t i, j, n;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		n = strlen(keys[i].theirs);
		if (strncmp(name, keys[i].theirs, n) != 0)
			continue;
		for (j = 0; j < sizeof(parts) / sizeof(parts[0]); j++) {
			if (strcmp(name + n, parts[j].theirs) != 0)
				continue;
			snprintf(iana, size, "TLS_%s_WITH_%s", keys[i].ours,
			    parts[j].ours);
			return is_supported(suite_id(iana));
		}
	}
	snprintf(iana, size, "%s", strcmp(name, "PSK") == 0 ? PSK_SUITE_NAME :
	    name);
	return is_supported(suite_id(iana));
}

/* Append a name to a list, unless it is in there or does not fit. */
static void
list_name(char *text, size_t size, const char *name)
{
	size_t n = strlen(text), len = strlen(name);
	const char *p = text;

	while ((p = strstr(p, name)) != NULL && p[len] != ':' && p[len] != '\0')
		p += len;
	if (p == NULL && n + len + 2 <= size)
		snprintf(text + n, size - n, "%s%s", n > 0 ? ":" : "", name);
}

/*
 * Translate a list, without unknown names.  Add the suites of TLS 1.3, which
 * OpenSSL configures separately.
 */
static void
translate_suites(const char *names, char *text, size_t size)
{
	char copy[ERROR_SIZE], iana[NAME_SIZE], *name, *rest;
	size_t i;

	text[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", names);
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL;
	    name = strtok_r(NULL, SEPARATORS, &rest))
		if (translate_suite(name, iana, sizeof(iana)))
			list_name(text, size, iana);
	if (text[0] == '\0' || strstr(text, "TLS_AES_") != NULL ||
	    strstr(text, "TLS_CHACHA20_") != NULL)
		return;
	for (i = 0; tls_suites_is_tls13(default_suites[i]); i++) {
		tls_suites_name(default_suites[i], iana, sizeof(iana));
		list_name(text, size, iana);
	}
}

static int
add_suite(struct tls_config *cfg, const char *name, size_t n)
{
	int suite = suite_id(name);

	if (suite == 0)
		return tls_fail(cfg, "unknown cipher suite \"%s\"", name);
	if (!is_supported(suite))
		return tls_fail(cfg, "%s is not supported (allowed with shared "
		    "keys: " PSK_SUITE_NAME ")", name);
	cfg->suites[n] = suite;
	cfg->suites[n + 1] = 0;
	cfg->listed = 1;
	return 0;
}

int
tls_config_ciphers(struct tls_config *cfg, const char *names)
{
	char why[ERROR_SIZE], text[ERROR_SIZE / 2];

	if (each(cfg, names, add_suite) == 0)
		return 0;
	snprintf(why, sizeof(why), "%.300s", cfg->error);
	if (strncmp(why, "unknown", 7) != 0)
		return -1;
	translate_suites(names, text, sizeof(text));
	if (text[0] != '\0')
		return tls_fail(cfg,
		    "%s (use IANA names; the known ones of this list, with TLS "
		    "1.3's: ciphers = %s)", why, text);
	return tls_fail(cfg, "%s (allowed: IANA names, such as "
	    "TLS_AES_128_GCM_SHA256 or TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256; "
	    "default: all that are safe)", why);
}

/* Translate another name of a group, such as OpenSSL's, to IANA's. */
static const char *
translate_group(const char *name)
{
	static const struct {
		const char *theirs, *ours;
	} names[] = {
		{ "prime256v1", "secp256r1" }, { "P-256", "secp256r1" },
		{ "P-384", "secp384r1" }, { "P-521", "secp521r1" },
		{ "curve25519", "x25519" },
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(names[i].theirs, name) == 0)
			return names[i].ours;
	return name;
}

static const struct group *
find_group(const char *name)
{
	size_t i;

	for (i = 0; groups[i].name != NULL; i++)
		if (strcasecmp(groups[i].name, name) == 0)
			return &groups[i];
	return NULL;
}

void
tls_translate_groups(const char *names, char *text, size_t size)
{
	char copy[ERROR_SIZE], *name, *rest;
	const struct group *g;

	text[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", names);
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL;
	    name = strtok_r(NULL, SEPARATORS, &rest))
		if ((g = find_group(translate_group(name))) != NULL)
			list_name(text, size, g->name);
}

static int
add_group(struct tls_config *cfg, const char *name, size_t n)
{
	char allowed[NAME_SIZE];	/* all of them fit */
	const char *other = translate_group(name);
	const struct group *g = find_group(name);

	if (g != NULL) {
		cfg->groups[n] = g->id;
		cfg->groups[n + 1] = 0;
		return 0;
	}
	tls_groups(allowed, sizeof(allowed));
	if (strcasecmp(name, HYBRID) == 0)
		return tls_fail(cfg, "this build has no group \"%s\" (allowed: "
		    "%s; ACCEL=aws-lc has it)", name, allowed);
	return tls_fail(cfg, "unknown group \"%s\" (allowed: %s%s%s)", name,
	    allowed, other != name ? "; its name here is " : "",
	    other != name ? other : "");
}

int
tls_config_groups(struct tls_config *cfg, const char *names)
{
	return each(cfg, names, add_group);
}

static int
add_protocol(struct tls_config *cfg, const char *name, size_t n)
{
	if (strlen(name) > MBEDTLS_SSL_MAX_ALPN_NAME_LEN)
		return tls_fail(cfg, "a name is longer than 255 bytes");
	if ((cfg->alpn[n] = strdup(name)) == NULL)
		return tls_fail(cfg, "out of memory");
	return 0;
}

int
tls_config_alpn(struct tls_config *cfg, const char *names)
{
	if (each(cfg, names, add_protocol) == -1)
		return -1;
	if (mbedtls_ssl_conf_alpn_protocols(&cfg->ssl, cfg->alpn) != 0)
		return tls_fail(cfg, "the names are too long together");
	return 0;
}

int
tls_suites_has_group(const struct tls_config *cfg)
{
	size_t i;

	for (i = 0; cfg->groups[i] != 0; i++)
		if (group_by_id(cfg->groups[i])->in_tls12)
			return 1;
	return 0;
}

/*
 * Shared keys are used with the SHA-256 suites in TLS 1.3, as the library has
 * it, and in TLS 1.2 with the only suite that has both an ephemeral key
 * exchange and an AEAD.
 */
static int
is_for_psk(int suite)
{
	return tls_suites_is_tls13(suite) ?
	    strstr(mbedtls_ssl_get_ciphersuite_name(suite), "SHA256") != NULL :
	    suite == PSK_SUITE;
}

int
tls_suites_has_key(const struct tls_config *cfg, int suite)
{
	const char *name = mbedtls_ssl_get_ciphersuite_name(suite);
	int for_ec = strstr(name, "-ECDSA-") != NULL ||
	    strstr(name, "TLS-ECDH-") != NULL;
	int for_rsa = !for_ec && strstr(name, "-RSA-") != NULL;
	const struct cert *c = cfg->certs;

	if (cfg->npsks > 0 && is_for_psk(suite))
		return 1;
	if (cfg->psk_alone)
		return 0;
	while (c != NULL && !tls_suites_is_tls13(suite) &&
	    !(tls_cert_is_rsa(&c->chain.pk) ? for_rsa : for_ec))
		c = c->next;
	return c != NULL || cfg->is_client;
}

int
tls_suites_has_psk(const struct tls_config *cfg, int is_13)
{
	size_t i;

	for (i = 0; cfg->npsks > 0 && cfg->suites[i] != 0; i++)
		if (tls_suites_is_tls13(cfg->suites[i]) == is_13 &&
		    is_for_psk(cfg->suites[i]))
			return 1;
	return 0;
}

void
tls_suites_add_psk(struct tls_config *cfg)
{
	int was[SUITES_MAX + 1], has_12 = 0;
	size_t i, n = 0;

	if (cfg->listed)
		return;
	memcpy(was, cfg->suites, sizeof(was));
	for (i = 0; was[i] != 0; i++) {
		if (!tls_suites_is_tls13(was[i]) && !has_12++ &&
		    HAS_PSK_SUITE)
			cfg->suites[n++] = PSK_SUITE;
		if (!cfg->psk_alone || is_for_psk(was[i]))
			cfg->suites[n++] = was[i];
	}
	cfg->suites[n] = 0;
}
