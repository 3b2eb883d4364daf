#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include <mbedtls/base64.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/oid.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

#include "forward.h"
#include "tls.h"

/* Before it, a ticket could lead around client authentication. */
#define VERSION_NEEDED	0x03060600
#if MBEDTLS_VERSION_NUMBER < VERSION_NEEDED
#error "mbed TLS 3.6.6 or newer is needed; run: make deps"
#endif

#define HELLO_SESSION_ID 43		/* its offset in a hello's record */
#define HEADER_SIZE	5		/* of a record */
#define RECVS		64		/* in a row, before others run */
#define RECORD_MAX	16384		/* plaintext, RFC 8446 section 5.1 */
#define FILE_MAX	(1024 * 1024)	/* of a PEM file */
#define LIST_MAX	32		/* names in a list */
#define SUITES_MAX	64
#define NAME_SIZE	256
#define ERROR_SIZE	512
#define WARN_DAYS	30
#define GENERATED_DAYS	825		/* more, and Apple's clients balk */
#define DAY		(24 * 60 * 60)
#define SEPARATORS	" \t,:"

#define RNG		mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE

struct cert {
	struct cert *next;
	char	*name;			/* its file's */
	mbedtls_x509_crt chain;
	mbedtls_pk_context key;
};

struct tls_config {
	mbedtls_ssl_config ssl;
	struct cert *certs;
	int	 suites[SUITES_MAX + 1];	/* ends with 0, as all here */
	uint16_t groups[LIST_MAX + 1];
	const char *alpn[LIST_MAX + 1];		/* allocated */
	int	 min, max;		/* 12 or 13 */
	int	 truncation_is_eof;
	char	 error[ERROR_SIZE];
};

/* The record that passes by; RFC 8446 section 5.1. */
struct record {
	unsigned char head[HEADER_SIZE];
	size_t	 nhead;
	size_t	 left;			/* of its body */
	unsigned char body[2];		/* the end of what came of it */
};

struct tls {
	mbedtls_ssl_context ssl;
	struct tls_config *cfg;
	int	 fd;
	int	 err;			/* errno of a failed recv or send */
	int	 failed;		/* mbed TLS's last error */
	int	 ended;			/* what ended reading, kept: or 0 */
	int	 open;			/* the handshake is over */
	int	 budget;		/* recv(2)s that are left to it */
	int	 fin;			/* recv(2) has answered 0 */
	int	 reading;		/* a read is going on */
	int	 unsent;		/* a write is to be retried */
	struct record in, out;		/* of the handshake */
	int	 group;			/* 0: not sent yet; -1: none will be */
	unsigned char first[8];		/* what the client sent first */
	size_t	 nfirst;
	char	*sni;			/* empty: not a host name */
};

/* Our order among the suites that are both safe and fast; see prefer(). */
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

/* The order is the default preference; the finite-field ones are costly. */
static const struct group {
	const char *name;
	uint16_t id;
	int	 by_default;
} groups[] = {
	{ "x25519", MBEDTLS_SSL_IANA_TLS_GROUP_X25519, 1 },
	{ "secp256r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1, 1 },
	{ "secp384r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, 1 },
	{ "secp521r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1, 1 },
	{ "x448", MBEDTLS_SSL_IANA_TLS_GROUP_X448, 0 },
	{ "ffdhe2048", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE2048, 0 },
	{ "ffdhe3072", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE3072, 0 },
	{ "ffdhe4096", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE4096, 0 },
	{ NULL, 0, 0 }
};

/* RFC 8446 section 6, those that a server gets to see. */
static const struct {
	int	 code;
	const char *name;
} alerts[] = {
	{ 0, "close_notify" }, { 10, "unexpected_message" },
	{ 40, "handshake_failure" }, { 42, "bad_certificate" },
	{ 43, "unsupported_certificate" }, { 44, "certificate_revoked" },
	{ 45, "certificate_expired" }, { 46, "certificate_unknown" },
	{ 47, "illegal_parameter" }, { 48, "unknown_ca" },
	{ 49, "access_denied" }, { 50, "decode_error" },
	{ 51, "decrypt_error" }, { 70, "protocol_version" },
	{ 71, "insufficient_security" }, { 80, "internal_error" },
	{ 90, "user_canceled" }, { 110, "unsupported_extension" },
};

/*
 * ERRORS AS TEXT
 */

static int __attribute__((format(printf, 2, 3)))
fail(struct tls_config *cfg, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cfg->error, sizeof(cfg->error), fmt, ap);
	va_end(ap);
	return -1;
}

/* The codes that a person can act on, in that person's words. */
static const char *
explain(int code)
{
	static char text[128];

	switch (code) {
	case MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION:
		return "no TLS version in common";
	case MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE:
		return "no cipher suite, group or signature in common";
	case MBEDTLS_ERR_SSL_NO_APPLICATION_PROTOCOL:
		return "no ALPN protocol in common";
	case MBEDTLS_ERR_SSL_INVALID_MAC:
		return "bad record MAC";
	case MBEDTLS_ERR_SSL_INVALID_RECORD:
		return "bad record";
	case MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE:
		return "unexpected message";
	case MBEDTLS_ERR_SSL_ALLOC_FAILED:
	case MBEDTLS_ERR_X509_ALLOC_FAILED:
	case MBEDTLS_ERR_PK_ALLOC_FAILED:
		return "out of memory";
	case MBEDTLS_ERR_PK_PASSWORD_REQUIRED:
		return "it is encrypted; set key_password_file";
	case MBEDTLS_ERR_PK_PASSWORD_MISMATCH:
		return "wrong password in key_password_file";
	case MBEDTLS_ERR_X509_INVALID_FORMAT:
		return "no certificate in PEM format";
	case MBEDTLS_ERR_PK_KEY_INVALID_FORMAT:
		return "no private key in PEM format";
	default:
		mbedtls_strerror(code, text, sizeof(text));
		return text;
	}
}

/* Bytes of a peer's, fit to be logged, between quotation marks. */
static void
quote(char *out, size_t size, const unsigned char *p, size_t n)
{
	size_t i, used = 0;

	for (i = 0; i < n && used + 8 < size; i++) {
		const char *fmt = isprint(p[i]) && p[i] != '"' && p[i] != '\\' ?
		    "%s%c" : "%s\\x%02x";
		int w = snprintf(out + used, size - used, fmt,
		    i == 0 ? "\"" : "", p[i]);

		used += (size_t)w;
	}
	snprintf(out + used, size - used, "%s", i == 0 ? "\"\"" : "\"");
}

static const char *
alert_name(int code)
{
	size_t i;

	for (i = 0; i < sizeof(alerts) / sizeof(alerts[0]); i++)
		if (alerts[i].code == code)
			return alerts[i].name;
	return "unknown alert";
}

/*
 * An alert in the clear is two bytes, its level and its code.  In TLS 1.3 some
 * clients send one where the library expects ciphertext, and is at a loss.
 */
static int
is_alert(const struct record *r)
{
	return r->nhead == HEADER_SIZE && r->left == 0 &&
	    r->head[0] == MBEDTLS_SSL_MSG_ALERT &&
	    (r->head[3] << 8 | r->head[4]) == 2;
}

static const char *
tls_error(const struct stream *s)
{
	struct tls *t = s->ctx;
	struct tls_config *cfg = t->cfg;
	const char *during = t->open ? "TLS" : "handshake";
	char first[64];

	if (t->failed == MBEDTLS_ERR_SSL_CONN_EOF) {
		if (t->nfirst == 0)
			return "closed by the client before it sent a byte";
		return "closed by the client during the handshake";
	}
	if (t->nfirst > 0 && t->first[0] != MBEDTLS_SSL_MSG_HANDSHAKE) {
		quote(first, sizeof(first), t->first, t->nfirst);
		fail(cfg, "not TLS: the client sent %s", first);
	} else if (t->failed == MBEDTLS_ERR_NET_RECV_FAILED ||
	    t->failed == MBEDTLS_ERR_NET_SEND_FAILED)
		fail(cfg, "client: %s", strerror(t->err));
	else if (is_alert(&t->in) && t->in.body[0] ==
	    MBEDTLS_SSL_ALERT_LEVEL_FATAL)
		fail(cfg, "%s: the client sent a fatal alert: %s", during,
		    alert_name(t->in.body[1]));
	else if (t->failed == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
		fail(cfg, "%s: the client sent a fatal alert", during);
	else
		fail(cfg, "%s: %s", during, explain(t->failed));
	return cfg->error;
}

/*
 * THE LIBRARY
 * Its start, and what it is good at on this machine.
 */

const char *
tls_version(void)
{
	static char text[32];

	mbedtls_version_get_string_full(text);
	return text;
}

const char *
tls_init(void)
{
	if (mbedtls_version_get_number() < VERSION_NEEDED)
		return "the mbed TLS library found is older than 3.6.6";
	if (psa_crypto_init() != PSA_SUCCESS)
		return "mbed TLS does not start: no entropy?";
	return NULL;
}

const char *
tls_forked(void)
{
	psa_status_t r = psa_random_reseed(NULL, 0);

	/* A generator that is not mbed TLS's own is not copied by fork(2). */
	return r == PSA_SUCCESS || r == PSA_ERROR_NOT_SUPPORTED ? NULL :
	    "the random generator has no entropy";
}

static int64_t
clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Microseconds to encrypt a buffer, at best; very many when it can't be. */
static int64_t
cost(psa_key_type_t type, psa_algorithm_t alg)
{
	static const unsigned char zeros[4096], nonce[12];
	static unsigned char out[sizeof(zeros) + 16];
	psa_key_attributes_t attr = psa_key_attributes_init();
	int64_t best = INT64_MAX, us;
	psa_key_id_t key;
	size_t len;
	int i;

	psa_set_key_type(&attr, type);
	psa_set_key_algorithm(&attr, alg);
	psa_set_key_usage_flags(&attr, PSA_KEY_USAGE_ENCRYPT);
	if (psa_import_key(&attr, zeros, type == PSA_KEY_TYPE_AES ? 16 : 32,
	    &key) != PSA_SUCCESS)
		return best;
	for (i = 0; i < 3; i++) {
		us = clock_us();
		if (psa_aead_encrypt(key, alg, nonce, sizeof(nonce), NULL, 0,
		    zeros, sizeof(zeros), out, sizeof(out), &len) !=
		    PSA_SUCCESS)
			break;
		us = clock_us() - us;
		if (us < best)
			best = us;
	}
	psa_destroy_key(key);
	return best;
}

/*
 * The default suites, the cheaper cipher on this machine first.  It is
 * measured: what a CPU can do does not say what a library makes of it.  In
 * TLS 1.3 the library follows the client's order all the same.
 */
static void
prefer(int *suites)
{
	int chacha_first = cost(PSA_KEY_TYPE_CHACHA20,
	    PSA_ALG_CHACHA20_POLY1305) < cost(PSA_KEY_TYPE_AES, PSA_ALG_GCM);
	size_t i, n = 0;
	int pass;

	for (pass = 0; pass < 2; pass++) {
		for (i = 0; default_suites[i] != 0; i++) {
			const char *name = mbedtls_ssl_get_ciphersuite_name(
			    default_suites[i]);
			int chacha = strstr(name, "CHACHA20") != NULL;

			if ((chacha == chacha_first) == (pass == 0))
				suites[n++] = default_suites[i];
		}
	}
	suites[n] = 0;
}

/*
 * CONFIGURATION
 */

static int
is_host_name(const char *s)
{
	return *s != '\0' && strlen(s) < NAME_SIZE && strspn(s,
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	    "-._*") == strlen(s);
}

/* For the log alone: no certificate is chosen by name here. */
static int
remember_name(mbedtls_ssl_context *ssl)
{
	struct tls *t = mbedtls_ssl_get_user_data_p(ssl);
	const unsigned char *name;
	size_t len;

	name = mbedtls_ssl_get_hs_sni(ssl, &len);
	if (name == NULL || t->sni != NULL)
		return 0;
	t->sni = strndup((const char *)name, len < NAME_SIZE ? len : NAME_SIZE);
	if (t->sni == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	if (strlen(t->sni) != len || !is_host_name(t->sni))
		t->sni[0] = '\0';
	return 0;
}

struct tls_config *
tls_config_new(void)
{
	struct tls_config *cfg;
	size_t i, n = 0;

	if ((cfg = calloc(1, sizeof(*cfg))) == NULL)
		return NULL;
	mbedtls_ssl_config_init(&cfg->ssl);
	if (mbedtls_ssl_config_defaults(&cfg->ssl, MBEDTLS_SSL_IS_SERVER,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
		tls_config_free(cfg);
		return NULL;
	}
	mbedtls_ssl_conf_rng(&cfg->ssl, RNG);
	mbedtls_ssl_conf_cert_cb(&cfg->ssl, remember_name);
	prefer(cfg->suites);
	mbedtls_ssl_conf_ciphersuites(&cfg->ssl, cfg->suites);
	for (i = 0; groups[i].name != NULL; i++)
		if (groups[i].by_default)
			cfg->groups[n++] = groups[i].id;
	mbedtls_ssl_conf_groups(&cfg->ssl, cfg->groups);
	return cfg;
}

void
tls_config_free(struct tls_config *cfg)
{
	struct cert *c;
	size_t i;

	if (cfg == NULL)
		return;
	while ((c = cfg->certs) != NULL) {
		cfg->certs = c->next;
		mbedtls_x509_crt_free(&c->chain);
		mbedtls_pk_free(&c->key);
		free(c->name);
		free(c);
	}
	mbedtls_ssl_config_free(&cfg->ssl);
	for (i = 0; cfg->alpn[i] != NULL; i++)
		free((void *)(uintptr_t)cfg->alpn[i]);
	free(cfg);
}

const char *
tls_config_error(const struct tls_config *cfg)
{
	return cfg->error;
}

/* A whole file and a NUL behind it, as the PEM parser wants it; or NULL. */
static unsigned char *
slurp(struct tls_config *cfg, const char *name, size_t *size)
{
	unsigned char *buf = NULL;
	struct stat st;
	FILE *fp;

	if ((fp = fopen(name, "re")) == NULL || fstat(fileno(fp), &st) == -1) {
		fail(cfg, "%s: %s", name, strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
		fail(cfg, "%s: not a regular file of at most 1 MB", name);
	} else if ((buf = calloc(1, (size_t)st.st_size + 1)) == NULL) {
		fail(cfg, "%s: out of memory", name);
	} else {
		/* Unbuffered: no copy of a key is left behind. */
		setvbuf(fp, NULL, _IONBF, 0);
		*size = fread(buf, 1, (size_t)st.st_size, fp) + 1;
	}
	if (fp != NULL)
		fclose(fp);
	return buf;
}

static int
cert_load(struct tls_config *cfg, struct cert *c, const char *name)
{
	unsigned char *pem;
	size_t size;
	int r;

	if ((pem = slurp(cfg, name, &size)) == NULL)
		return -1;
	r = mbedtls_x509_crt_parse(&c->chain, pem, size);
	mbedtls_platform_zeroize(pem, size);
	free(pem);
	if (r > 0)
		return fail(cfg, "%s: %d of its certificates can't be read",
		    name, r);
	if (r < 0)
		return fail(cfg, "%s: %s", name, explain(r));
	return 0;
}

static int
key_load(struct tls_config *cfg, struct cert *c, const char *name,
    const char *password)
{
	unsigned char *pem;
	size_t size;
	int r;

	if ((pem = slurp(cfg, name, &size)) == NULL)
		return -1;
	r = mbedtls_pk_parse_key(&c->key, pem, size,
	    (const unsigned char *)password,
	    password != NULL ? strlen(password) : 0, RNG);
	mbedtls_platform_zeroize(pem, size);
	free(pem);
	if (r != 0)
		return fail(cfg, "%s: %s", name, explain(r));
	if (mbedtls_pk_check_pair(&c->chain.pk, &c->key, RNG) != 0)
		return fail(cfg, "the key in %s does not fit the certificate "
		    "in %s", name, c->name);
	return 0;
}

int
tls_config_cert(struct tls_config *cfg, const char *name)
{
	struct cert *c, **last;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return fail(cfg, "out of memory");
	mbedtls_x509_crt_init(&c->chain);
	mbedtls_pk_init(&c->key);
	for (last = &cfg->certs; *last != NULL; last = &(*last)->next)
		continue;
	*last = c;
	if ((c->name = strdup(name)) == NULL)
		return fail(cfg, "out of memory");
	return cert_load(cfg, c, name);
}

int
tls_config_key(struct tls_config *cfg, const char *name, const char *password)
{
	struct cert *c = cfg->certs;

	while (c->next != NULL)
		c = c->next;
	if (key_load(cfg, c, name, password) == -1)
		return -1;
	if (mbedtls_ssl_conf_own_cert(&cfg->ssl, &c->chain, &c->key) != 0)
		return fail(cfg, "out of memory");
	return 0;
}

int
tls_config_versions(struct tls_config *cfg, int min, int max)
{
	if (min > max)
		return fail(cfg, "tls_min is above tls_max");
	cfg->min = min;
	cfg->max = max;
	return 0;
}

/*
 * The suites have IANA's names to the world.  The library's differ: hyphens
 * for underscores, and TLS1-3- where TLS 1.3 has none but TLS_.
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

static void
suite_name(const char *library, char *name, size_t size)
{
	size_t i;

	snprintf(name, size, "TLS_%s", library +
	    (strncmp(library, "TLS1-3-", 7) == 0 ? 7 : 4));
	for (i = 0; name[i] != '\0'; i++)
		if (name[i] == '-')
			name[i] = '_';
}

static int
is_tls13(int suite)
{
	return strncmp(mbedtls_ssl_get_ciphersuite_name(suite), "TLS1-3-",
	    7) == 0;
}

/* Each name in a list, given to add() with its position. */
static int
each(struct tls_config *cfg, const char *names,
    int (*add)(struct tls_config *, const char *, size_t))
{
	char *copy, *name, *rest;
	size_t n = 0;
	int r = 0;

	if ((copy = strdup(names)) == NULL)
		return fail(cfg, "out of memory");
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL && r == 0;
	    name = strtok_r(NULL, SEPARATORS, &rest)) {
		if (n == LIST_MAX)
			r = fail(cfg, "more than %d names", LIST_MAX);
		else
			r = add(cfg, name, n++);
	}
	if (n == 0)
		r = fail(cfg, "no name in the list");
	free(copy);
	return r;
}

static int
add_suite(struct tls_config *cfg, const char *name, size_t n)
{
	if ((cfg->suites[n] = suite_id(name)) == 0)
		return fail(cfg, "unknown cipher suite \"%s\" (allowed: "
		    "IANA's names, such as TLS_AES_128_GCM_SHA256 or "
		    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)", name);
	cfg->suites[n + 1] = 0;
	return 0;
}

int
tls_config_ciphers(struct tls_config *cfg, const char *names)
{
	return each(cfg, names, add_suite);
}

static int
add_group(struct tls_config *cfg, const char *name, size_t n)
{
	size_t i;

	for (i = 0; groups[i].name != NULL; i++) {
		if (strcasecmp(groups[i].name, name) == 0) {
			cfg->groups[n] = groups[i].id;
			cfg->groups[n + 1] = 0;
			return 0;
		}
	}
	return fail(cfg, "unknown group \"%s\" (allowed: x25519, secp256r1, "
	    "secp384r1, secp521r1, x448, ffdhe2048, ffdhe3072, ffdhe4096)",
	    name);
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
		return fail(cfg, "ALPN name longer than 255 bytes");
	if ((cfg->alpn[n] = strdup(name)) == NULL)
		return fail(cfg, "out of memory");
	return 0;
}

int
tls_config_alpn(struct tls_config *cfg, const char *names)
{
	if (each(cfg, names, add_protocol) == -1)
		return -1;
	if (mbedtls_ssl_conf_alpn_protocols(&cfg->ssl, cfg->alpn) != 0)
		return fail(cfg, "ALPN names too long");
	return 0;
}

/*
 * A version without a suite is not offered: were it agreed upon, the
 * handshake would fail where the other version could have served.
 */
int
tls_config_ready(struct tls_config *cfg)
{
	int with[2] = { 0, 0 };
	size_t i;

	for (i = 0; cfg->suites[i] != 0; i++)
		with[is_tls13(cfg->suites[i])] = 1;
	if (!with[0])
		cfg->min = 13;
	if (!with[1])
		cfg->max = 12;
	if (cfg->min > cfg->max)
		return fail(cfg, "no suite for the versions allowed");
	mbedtls_ssl_conf_min_tls_version(&cfg->ssl, cfg->min == 13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	mbedtls_ssl_conf_max_tls_version(&cfg->ssl, cfg->max == 13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	return 0;
}

static const char *
group_name(int id)
{
	size_t i;

	for (i = 0; groups[i].name != NULL; i++)
		if (groups[i].id == id)
			return groups[i].name;
	return "";
}

void
tls_config_print(const struct tls_config *cfg, FILE *fp)
{
	char name[NAME_SIZE];
	size_t i;

	fprintf(fp, "# TLS 1.%d to 1.%d, with these suites and groups:\n",
	    cfg->min % 10, cfg->max % 10);
	for (i = 0; cfg->suites[i] != 0; i++) {
		suite_name(mbedtls_ssl_get_ciphersuite_name(cfg->suites[i]),
		    name, sizeof(name));
		fprintf(fp, "#\t%s\n", name);
	}
	for (i = 0; cfg->groups[i] != 0; i++)
		fprintf(fp, "#\t%s\n", group_name(cfg->groups[i]));
}

void
tls_config_truncation(struct tls_config *cfg, int is_eof)
{
	cfg->truncation_is_eof = is_eof;
}

/*
 * CERTIFICATES, DESCRIBED
 */

static const struct cert *
cert_at(const struct tls_config *cfg, size_t i)
{
	const struct cert *c;

	for (c = cfg->certs; c != NULL && i > 0; c = c->next)
		i--;
	return c;
}

static time_t
utc(const mbedtls_x509_time *t)
{
	struct tm tm = { .tm_year = t->year - 1900, .tm_mon = t->mon - 1,
	    .tm_mday = t->day, .tm_hour = t->hour, .tm_min = t->min,
	    .tm_sec = t->sec };

	return timegm(&tm);
}

/* What there is to say of a certificate's time; is it against it? */
static int
validity(const mbedtls_x509_crt *crt, char *text, size_t size)
{
	time_t now = time(NULL), to = utc(&crt->valid_to);
	long long days = (to - now) / DAY;

	if (to < now)
		snprintf(text, size, "expired %lld days ago", -days);
	else if (utc(&crt->valid_from) > now)
		snprintf(text, size, "is not valid before %04d-%02d-%02d",
		    crt->valid_from.year, crt->valid_from.mon,
		    crt->valid_from.day);
	else
		snprintf(text, size, "expires in %lld days", days);
	return to < now || utc(&crt->valid_from) > now || days < WARN_DAYS;
}

int
tls_config_warning(const struct tls_config *cfg, size_t i, char *text,
    size_t size)
{
	const struct cert *c = cert_at(cfg, i);
	const mbedtls_x509_crt *crt;
	char what[64];

	if (c == NULL)
		return -1;
	for (crt = &c->chain; crt != NULL; crt = crt->next) {
		if (!validity(crt, what, sizeof(what)))
			continue;
		snprintf(text, size, "%s: the %s %s", c->name,
		    crt == &c->chain ? "certificate" : "chain's certificate",
		    what);
		return 1;
	}
	return 0;
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
print_names(FILE *fp, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_sequence *s = &crt->subject_alt_names;
	mbedtls_x509_subject_alternative_name san;
	char text[INET6_ADDRSTRLEN];
	const char *comma = "";

	for (; s != NULL && s->buf.p != NULL; s = s->next) {
		const mbedtls_x509_buf *b = &san.san.unstructured_name;

		if (mbedtls_x509_parse_subject_alt_name(&s->buf, &san) != 0)
			continue;
		if (san.type == MBEDTLS_X509_SAN_IP_ADDRESS)
			fprintf(fp, "%s%s", comma, inet_ntop(b->len == 4 ?
			    AF_INET : AF_INET6, b->p, text, sizeof(text)));
		else if (san.type == MBEDTLS_X509_SAN_DNS_NAME)
			fprintf(fp, "%s%.*s", comma, (int)b->len, b->p);
		comma = ", ";
		mbedtls_x509_free_subject_alt_name(&san);
	}
	fprintf(fp, "%s\n", *comma == '\0' ? "(none)" : "");
}

/* Does every certificate of the chain come from the one behind it? */
static void
print_chain(FILE *fp, const mbedtls_x509_crt *crt)
{
	int n = 1;

	for (; crt->next != NULL; crt = crt->next, n++) {
		const mbedtls_x509_buf *issuer = &crt->issuer_raw;
		const mbedtls_x509_buf *next = &crt->next->subject_raw;

		if (issuer->len != next->len ||
		    memcmp(issuer->p, next->p, next->len) != 0) {
			fprintf(fp, "certificate %d was not issued by "
			    "certificate %d: wrong order, or one is missing\n",
			    n, n + 1);
			return;
		}
	}
	fprintf(fp, "%d certificate%s, fit\n", n, n == 1 ? "" : "s, in order");
}

int
tls_config_report(const struct tls_config *cfg, size_t i, FILE *fp)
{
	const struct cert *c = cert_at(cfg, i);
	const mbedtls_x509_crt *crt;
	const char *alg = "unknown";
	unsigned char hash[32], pin[64];
	char text[1024];
	size_t len;

	if (c == NULL)
		return -1;
	crt = &c->chain;
	fprintf(fp, "certificate %s\n", c->name);
	mbedtls_x509_dn_gets(text, sizeof(text), &crt->subject);
	fprintf(fp, "\tsubject    %s\n\tnames      ", text);
	print_names(fp, crt);
	mbedtls_x509_dn_gets(text, sizeof(text), &crt->issuer);
	fprintf(fp, "\tissuer     %s\n\tserial     ", text);
	/* A number; DER has a zero before it lest it be negative. */
	len = crt->serial.len > 1 && crt->serial.p[0] == 0;
	print_hex(fp, crt->serial.p + len, crt->serial.len - len);
	validity(crt, text, sizeof(text));
	fprintf(fp, "\tvalid      %04d-%02d-%02d to %04d-%02d-%02d (%s)\n",
	    crt->valid_from.year, crt->valid_from.mon, crt->valid_from.day,
	    crt->valid_to.year, crt->valid_to.mon, crt->valid_to.day, text);
	fprintf(fp, "\tkey        %s, %zu bits, fits\n",
	    mbedtls_pk_get_name(&crt->pk), mbedtls_pk_get_bitlen(&crt->pk));
	mbedtls_oid_get_sig_alg_desc(&crt->sig_oid, &alg);
	fprintf(fp, "\tsignature  %s\n\tsha256     ", alg);
	psa_hash_compute(PSA_ALG_SHA_256, crt->raw.p, crt->raw.len, hash,
	    sizeof(hash), &len);
	print_hex(fp, hash, sizeof(hash));
	psa_hash_compute(PSA_ALG_SHA_256, crt->pk_raw.p, crt->pk_raw.len,
	    hash, sizeof(hash), &len);
	mbedtls_base64_encode(pin, sizeof(pin), &len, hash, sizeof(hash));
	fprintf(fp, "\tpin        sha256/%s\n\tchain      ", pin);
	print_chain(fp, crt);
	return 0;
}

/*
 * A CERTIFICATE, MADE HERE
 */

/* One name as a SAN entry; ip holds an address, 16 bytes. */
static int
san_entry(mbedtls_x509_san_list *entry, char *name, unsigned char *ip)
{
	mbedtls_x509_buf *b = &entry->node.san.unstructured_name;
	int v4 = inet_pton(AF_INET, name, ip) == 1;

	if (v4 || inet_pton(AF_INET6, name, ip) == 1) {
		entry->node.type = MBEDTLS_X509_SAN_IP_ADDRESS;
		b->p = ip;
		b->len = v4 ? 4 : 16;
		return 0;
	}
	if (!is_host_name(name))
		return -1;
	entry->node.type = MBEDTLS_X509_SAN_DNS_NAME;
	b->p = (unsigned char *)name;
	b->len = strlen(name);
	return 0;
}

static int
make_key(mbedtls_pk_context *key)
{
	psa_key_attributes_t attr = psa_key_attributes_init();
	psa_key_id_t id;
	int r;

	psa_set_key_type(&attr,
	    PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
	psa_set_key_bits(&attr, 256);
	psa_set_key_usage_flags(&attr,
	    PSA_KEY_USAGE_SIGN_HASH | PSA_KEY_USAGE_EXPORT);
	psa_set_key_algorithm(&attr, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
	if (psa_generate_key(&attr, &id) != PSA_SUCCESS)
		return -1;
	r = mbedtls_pk_copy_from_psa(id, key);
	psa_destroy_key(id);
	return r;
}

/* Everything but the key and the names that is in it; 0 or an error. */
static int
fill_certificate(mbedtls_x509write_cert *w, mbedtls_pk_context *key,
    const char *name)
{
	unsigned char serial[16];
	char subject[NAME_SIZE + 4], from[16], to[16];
	time_t t = time(NULL) - DAY;	/* a client's clock may be behind */
	mbedtls_asn1_sequence usage = { .buf = { .tag = MBEDTLS_ASN1_OID,
	    .p = (unsigned char *)(uintptr_t)MBEDTLS_OID_SERVER_AUTH,
	    .len = sizeof(MBEDTLS_OID_SERVER_AUTH) - 1 } };
	struct tm tm;
	int r;

	snprintf(subject, sizeof(subject), "CN=%.64s", name);
	gmtime_r(&t, &tm);
	strftime(from, sizeof(from), "%Y%m%d%H%M%S", &tm);
	t += (time_t)(GENERATED_DAYS) * DAY;
	gmtime_r(&t, &tm);
	strftime(to, sizeof(to), "%Y%m%d%H%M%S", &tm);
	mbedtls_x509write_crt_set_version(w, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(w, key);
	mbedtls_x509write_crt_set_issuer_key(w, key);
	if (psa_generate_random(serial, sizeof(serial)) != PSA_SUCCESS)
		return MBEDTLS_ERR_PK_ALLOC_FAILED;
	serial[0] = (serial[0] & 0x7f) | 0x40;	/* positive, and 16 bytes */
	if ((r = mbedtls_x509write_crt_set_serial_raw(w, serial,
	    sizeof(serial))) != 0 ||
	    (r = mbedtls_x509write_crt_set_validity(w, from, to)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_name(w, subject)) != 0 ||
	    (r = mbedtls_x509write_crt_set_issuer_name(w, subject)) != 0 ||
	    (r = mbedtls_x509write_crt_set_basic_constraints(w, 0, -1)) != 0 ||
	    (r = mbedtls_x509write_crt_set_key_usage(w,
	    MBEDTLS_X509_KU_DIGITAL_SIGNATURE)) != 0 ||
	    (r = mbedtls_x509write_crt_set_ext_key_usage(w, &usage)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_key_identifier(w)) != 0)
		return r;
	return mbedtls_x509write_crt_set_authority_key_identifier(w);
}

static int
write_pem(FILE *fp, mbedtls_x509write_cert *w, mbedtls_pk_context *key)
{
	unsigned char pem[8192];
	int r;

	if ((r = mbedtls_pk_write_key_pem(key, pem, sizeof(pem))) == 0) {
		fputs((char *)pem, fp);
		r = mbedtls_x509write_crt_pem(w, pem, sizeof(pem), RNG);
	}
	if (r == 0)
		fputs((char *)pem, fp);
	mbedtls_platform_zeroize(pem, sizeof(pem));
	return r;
}

int
tls_generate(const char *names, FILE *fp, char *text, size_t size)
{
	mbedtls_x509_san_list san[LIST_MAX] = { 0 };
	unsigned char ip[LIST_MAX][16];
	mbedtls_x509write_cert w;
	mbedtls_pk_context key;
	char *copy, *first = NULL, *name, *rest;
	size_t n = 0;
	int r = -1;

	mbedtls_x509write_crt_init(&w);
	mbedtls_pk_init(&key);
	if ((copy = strdup(names)) == NULL) {
		snprintf(text, size, "out of memory");
		goto out;
	}
	/* An IPv6 address has colons of its own: they separate nothing here. */
	for (name = strtok_r(copy, " \t,", &rest); name != NULL;
	    name = strtok_r(NULL, " \t,", &rest)) {
		if (n == LIST_MAX || san_entry(&san[n], name, ip[n]) == -1) {
			snprintf(text, size, "\"%s\" is not a DNS name or an "
			    "address (at most %d, separated by commas)", name,
			    LIST_MAX);
			goto out;
		}
		/* The list is written from its end. */
		if (n > 0)
			san[n].next = &san[n - 1];
		else
			first = name;
		n++;
	}
	if (n == 0) {
		snprintf(text, size, "no name given");
		goto out;
	}
	if ((r = make_key(&key)) != 0 ||
	    (r = fill_certificate(&w, &key, first)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_alternative_name(&w,
	    &san[n - 1])) != 0 || (r = write_pem(fp, &w, &key)) != 0)
		snprintf(text, size, "%s", explain(r));
	else if (fflush(fp) != 0 || ferror(fp)) {
		snprintf(text, size, "%s", strerror(errno));
		r = -1;
	}
out:
	mbedtls_x509write_crt_free(&w);
	mbedtls_pk_free(&key);
	free(copy);
	return r == 0 ? 0 : -1;
}

/*
 * THE STREAM
 * mbed TLS over recv(2) and send(2), in the engine's words.
 */

static int
bio_failed(struct tls *t, int want, int other)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return want;
	t->err = errno;
	return errno == ECONNRESET || errno == EPIPE ?
	    MBEDTLS_ERR_NET_CONN_RESET : other;
}

static void
follow(struct record *r, const unsigned char *p, size_t len)
{
	for (; len > 0; p++, len--) {
		if (r->left > 0) {
			r->left--;
			r->body[0] = r->body[1];
			r->body[1] = *p;
			continue;
		}
		if (r->nhead == HEADER_SIZE)
			r->nhead = 0;
		r->head[r->nhead++] = *p;
		if (r->nhead == HEADER_SIZE)
			r->left = (size_t)(r->head[3] << 8 | r->head[4]);
	}
}

/*
 * A peer that always has more to send must not keep us for ever: the library
 * goes on as long as it is given records, be they empty or to be ignored.
 */
static int
bio_recv(void *ctx, unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	ssize_t i, n;

	if (t->budget-- <= 0)
		return MBEDTLS_ERR_SSL_WANT_READ;
	do {
		n = recv(t->fd, buf, len, 0);
	} while (n == -1 && errno == EINTR);
	if (n == -1)
		return bio_failed(t, MBEDTLS_ERR_SSL_WANT_READ,
		    MBEDTLS_ERR_NET_RECV_FAILED);
	for (i = 0; i < n && t->nfirst < sizeof(t->first); i++)
		t->first[t->nfirst++] = buf[i];
	t->fin = n == 0;
	if (!t->open)
		follow(&t->in, buf, (size_t)n);
	return (int)n;
}

/*
 * The library does not tell the group that was agreed upon, for the log.  It
 * stands in the clear in what it sends: in the ServerKeyExchange of TLS 1.2
 * (RFC 8422 section 5.4), or in the key_share of a ServerHello (RFC 8446
 * section 4.2.8).  p is a record; -1 once they are encrypted, 0: neither.
 */
static int
group_sent(const unsigned char *p, size_t len)
{
	const unsigned char *end = p + len;

	if (p[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC)
		return -1;
	if (len <= HELLO_SESSION_ID || p[0] != MBEDTLS_SSL_MSG_HANDSHAKE)
		return 0;
	if (p[5] == MBEDTLS_SSL_HS_SERVER_KEY_EXCHANGE)
		return p[9] == MBEDTLS_ECP_TLS_NAMED_CURVE ?
		    p[10] << 8 | p[11] : 0;
	if (p[5] != MBEDTLS_SSL_HS_SERVER_HELLO)
		return 0;
	/* Behind the session ID: suite, compression, and the extensions. */
	p += HELLO_SESSION_ID;
	if (end - p < 1 + p[0] + 5)
		return 0;
	for (p += 1 + p[0] + 5; end - p >= 6; p += 4 + (p[2] << 8 | p[3]))
		if ((p[0] << 8 | p[1]) == MBEDTLS_TLS_EXT_KEY_SHARE)
			return p[4] << 8 | p[5];
	return 0;
}

static int
bio_send(void *ctx, const unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	ssize_t n;

	/*
	 * To answer what it reads, the library would first send what a write
	 * left behind, and that write, retried, would be taken for a new one.
	 */
	if (t->reading && t->unsent)
		return MBEDTLS_ERR_SSL_WANT_WRITE;
	do {
		n = send(t->fd, buf, len, MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	if (n == -1)
		return bio_failed(t, MBEDTLS_ERR_SSL_WANT_WRITE,
		    MBEDTLS_ERR_NET_SEND_FAILED);
	if (!t->open) {
		if (t->group == 0 && t->out.left == 0)
			t->group = group_sent(buf, len);
		follow(&t->out, buf, (size_t)n);
	}
	return (int)n;
}

/* A fatal alert, unless the last thing sent in the handshake was one. */
static void
send_alert(struct tls *t, unsigned char code)
{
	if (!is_alert(&t->out))
		mbedtls_ssl_send_alert_message(&t->ssl,
		    MBEDTLS_SSL_ALERT_LEVEL_FATAL, code);
}

/* What mbed TLS said, as the engine's word. */
static int
result(struct tls *t, int r)
{
	switch (r) {
	case MBEDTLS_ERR_SSL_WANT_READ:
		return STREAM_WANT_READ;
	case MBEDTLS_ERR_SSL_WANT_WRITE:
		return STREAM_WANT_WRITE;
	case MBEDTLS_ERR_NET_CONN_RESET:
		return STREAM_RESET;
	/* The library leaves it at that: no group in common, a KeyUpdate. */
	case MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE:
		send_alert(t, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
		break;
	case MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE:
		send_alert(t, MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE);
		break;
	default:
		break;
	}
	t->failed = r;
	return STREAM_ERROR;
}

static int
tls_open(struct stream *s)
{
	struct tls *t = s->ctx;
	unsigned char more[sizeof(t->first)];
	int r;

	t->budget = RECVS;
	if ((r = mbedtls_ssl_handshake(&t->ssl)) == 0) {
		t->open = 1;
		return 0;
	}
	if ((r = result(t, r)) != STREAM_ERROR)
		return r;
	/* The library stops at a bad header; the text shows a little more. */
	if (t->nfirst < sizeof(t->first))
		bio_recv(t, more, sizeof(t->first) - t->nfirst);
	return r;
}

/* How reading ended, told as often as it is asked. */
static ssize_t
read_end(struct tls *t)
{
	if (t->ended == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
		return STREAM_EOF;
	if (t->ended == MBEDTLS_ERR_SSL_CONN_EOF)
		return t->cfg->truncation_is_eof ? STREAM_EOF :
		    STREAM_TRUNCATED;
	return result(t, t->ended);
}

/*
 * Gather whole records while another fits, so that nothing decrypted ever
 * stays behind in the library.  mbedtls_ssl_read() answers 0 for a FIN, and
 * for some empty records.
 */
static ssize_t
tls_read(struct stream *s, void *buf, size_t len)
{
	struct tls *t = s->ctx;
	unsigned char *p = buf;
	size_t got = 0;
	int r = 0;

	t->budget = RECVS;
	t->reading = 1;
	while (t->ended == 0 && (got == 0 || len - got >= RECORD_MAX)) {
		r = mbedtls_ssl_read(&t->ssl, p + got, len - got);
		if (r > 0)
			got += (size_t)r;
		else if (r == 0 && !t->fin)
			continue;
		else if (r == MBEDTLS_ERR_SSL_WANT_READ ||
		    r == MBEDTLS_ERR_SSL_WANT_WRITE)
			break;
		else
			t->ended = r == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : r;
	}
	t->reading = 0;
	if (got > 0)
		return (ssize_t)got;
	return t->ended != 0 ? read_end(t) : result(t, r);
}

/* A record each; one that has to wait is retried with the length it had. */
static ssize_t
tls_write(struct stream *s, const void *buf, size_t len)
{
	struct tls *t = s->ctx;
	int r = mbedtls_ssl_write(&t->ssl, buf,
	    len < RECORD_MAX ? len : RECORD_MAX);

	t->unsent = r == MBEDTLS_ERR_SSL_WANT_WRITE;
	return r > 0 ? r : result(t, r);
}

static int
tls_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r = mbedtls_ssl_close_notify(&t->ssl);

	if (r != 0)
		return result(t, r);
	shutdown(t->fd, SHUT_WR);
	return 0;
}

static void
tls_refuse(struct stream *s)
{
	send_alert(s->ctx, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR);
}

static int
tls_failed(struct stream *s)
{
	struct tls *t = s->ctx;
	int r = stream_plain.failed(s);

	if (r == STREAM_ERROR) {
		t->failed = MBEDTLS_ERR_NET_RECV_FAILED;
		t->err = s->err;
	}
	return r;
}

static int
tls_pending(const struct stream *s)
{
	const struct tls *t = s->ctx;

	return t->ended != 0 || mbedtls_ssl_get_bytes_avail(&t->ssl) > 0;
}

static const struct stream_ops tls_ops = {
	.open = tls_open,
	.read = tls_read,
	.write = tls_write,
	.finish = tls_finish,
	.refuse = tls_refuse,
	.failed = tls_failed,
	.abort = stream_reset,
	.pending = tls_pending,
	.error = tls_error,
};

struct tls *
tls_new(struct tls_config *cfg, int fd, struct stream *s)
{
	struct tls *t;

	if ((t = calloc(1, sizeof(*t))) == NULL)
		return NULL;
	t->cfg = cfg;
	t->fd = fd;
	mbedtls_ssl_init(&t->ssl);
	if (mbedtls_ssl_setup(&t->ssl, &cfg->ssl) != 0) {
		tls_free(t);
		return NULL;
	}
	mbedtls_ssl_set_user_data_p(&t->ssl, t);
	mbedtls_ssl_set_bio(&t->ssl, t, bio_send, bio_recv, NULL);
	s->ops = &tls_ops;
	s->ctx = t;
	return t;
}

void
tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	mbedtls_ssl_free(&t->ssl);
	free(t->sni);
	free(t);
}

int
tls_heard(const struct tls *t)
{
	return t->nfirst > 0;
}

void
tls_describe(const struct tls *t, char *text, size_t size)
{
	const char *suite = mbedtls_ssl_get_ciphersuite(&t->ssl);
	const char *alpn = mbedtls_ssl_get_alpn_protocol(&t->ssl);
	const char *group;
	char name[NAME_SIZE], sni[NAME_SIZE] = "";
	int n;

	text[0] = '\0';
	if (t->sni != NULL)
		snprintf(sni, sizeof(sni), " sni=%s", t->sni[0] != '\0' ?
		    t->sni : "(invalid)");
	if (!t->open || suite == NULL) {
		snprintf(text, size, "%s", sni);
		return;
	}
	suite_name(suite, name, sizeof(name));
	group = group_name(t->group);
	n = snprintf(text, size, " %s %s%s%s%s",
	    mbedtls_ssl_get_version(&t->ssl), name, *group != '\0' ? " " : "",
	    group, sni);
	if (alpn != NULL && n > 0 && (size_t)n < size)
		snprintf(text + n, size - (size_t)n, " alpn=%s", alpn);
}
