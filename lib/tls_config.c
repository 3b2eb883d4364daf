/* tls_config: the configuration of streams: certificates, versions, CAs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"
#include "tls_cert.h"
#include "tls_error.h"
#include "tls_files.h"
#include "tls_internal.h"
#include "tls_key.h"
#include "tls_names.h"
#include "tls_psk.h"
#include "tls_rules.h"
#include "tls_suites.h"

#define REQUEST_HEAD	128		/* before issuers, RFC 5246 7.4.4 */

/*
 * Select the certificates for the name that the client asks for.  If there are
 * none, the library considers all, in their order.
 */
static int
choose_certs(mbedtls_ssl_context *ssl)
{
	struct tls *t = mbedtls_ssl_get_user_data_p(ssl);
	struct name_query s = { .by_pattern = 0 };
	struct cert *c;
	int r, n = 0;

	if ((r = tls_names_remember(ssl)) != 0)
		return r;
	s.name = t->sni != NULL ? t->sni : "";
	for (; n == 0 && s.by_pattern < 2; s.by_pattern++) {
		for (c = t->cfg->certs; c != NULL && *s.name != '\0';
		    c = c->next) {
			if (!tls_names_has(&c->chain, &s))
				continue;
			if ((r = mbedtls_ssl_set_hs_own_cert(ssl, &c->chain,
			    &c->key)) != 0)
				return r;
			n++;
		}
	}
	if (n > 0 || !t->cfg->strict_names || t->cfg->certs == NULL)
		return 0;
	if (t->sni == NULL)
		tls_reject(t, MBEDTLS_SSL_ALERT_MSG_UNRECOGNIZED_NAME,
		    "no server name was sent");
	else
		tls_reject(t, MBEDTLS_SSL_ALERT_MSG_UNRECOGNIZED_NAME,
		    "no certificate for the name \"%s\"", s.name);
	return MBEDTLS_ERR_SSL_UNRECOGNIZED_NAME;
}

struct tls_config *
tls_config_new(enum tls_role role)
{
	struct tls_config *cfg;

	if ((cfg = calloc(1, sizeof(*cfg))) == NULL)
		return NULL;
	mbedtls_ssl_config_init(&cfg->ssl);
	mbedtls_x509_crt_init(&cfg->ca);
	mbedtls_x509_crl_init(&cfg->crl);
	cfg->is_client = role == TLS_CLIENT;
	if (mbedtls_ssl_config_defaults(&cfg->ssl, role == TLS_CLIENT ?
	    MBEDTLS_SSL_IS_CLIENT : MBEDTLS_SSL_IS_SERVER,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
		tls_config_free(cfg);
		return NULL;
	}
	mbedtls_ssl_conf_authmode(&cfg->ssl, MBEDTLS_SSL_VERIFY_NONE);
	mbedtls_ssl_conf_cert_cb(&cfg->ssl, choose_certs);
	mbedtls_ssl_conf_session_tickets(&cfg->ssl,
	    MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
	/* Always with a fresh key exchange. */
	mbedtls_ssl_conf_tls13_key_exchange_modes(&cfg->ssl,
	    MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ALL);
	tls_suites_default(cfg);
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
		tls_key_free(c);
		free(c->name);
		free(c);
	}
	tls_files_forget_passed(cfg, 0);
	free(cfg->system);
	tls_rules_free(cfg->rules);
	tls_psk_free(cfg);
	mbedtls_x509_crt_free(&cfg->ca);
	mbedtls_x509_crl_free(&cfg->crl);
	mbedtls_platform_zeroize(&cfg->keys, sizeof(cfg->keys));
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

/* The library sends a chain as one message of limited size. */
static int
chain_fits(struct tls_config *cfg, const struct cert *c)
{
	const mbedtls_x509_crt *crt;
	size_t size = 8;		/* message head, RFC 8446 4.4.2 */

	for (crt = &c->chain; crt != NULL; crt = crt->next)
		size += 3 + crt->raw.len + 2;
	if (size <= MBEDTLS_SSL_OUT_CONTENT_LEN)
		return 0;
	return tls_fail(cfg,
	    "%s: the chain has %zu bytes, but this mbed TLS can send only %d",
	    c->name, size,
	    MBEDTLS_SSL_OUT_CONTENT_LEN);
}

int
tls_config_cert(struct tls_config *cfg, const char *name)
{
	struct cert *c, **last;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return tls_fail(cfg, "out of memory");
	mbedtls_x509_crt_init(&c->chain);
	mbedtls_pk_init(&c->key);
	for (last = &cfg->certs; *last != NULL; last = &(*last)->next)
		continue;
	*last = c;
	if ((c->name = strdup(name)) == NULL)
		return tls_fail(cfg, "out of memory");
	if (tls_files_certs(cfg, &c->chain, OWN, name) == -1)
		return -1;
	return chain_fits(cfg, c);
}

int
tls_config_key(struct tls_config *cfg, const char *name, const char *password)
{
	struct cert *c = cfg->certs;

	while (c->next != NULL)
		c = c->next;
	if (tls_files_key(cfg, c, name, password) == -1)
		return -1;
	if (mbedtls_ssl_conf_own_cert(&cfg->ssl, &c->chain, &c->key) != 0)
		return tls_fail(cfg, "out of memory");
	return 0;
}

static int
ca_load(struct tls_config *cfg, const char *name)
{
	return tls_files_certs(cfg, &cfg->ca, ISSUER, name);
}

int
tls_config_ca(struct tls_config *cfg, const char *name)
{
	cfg->has_ca = 1;
	return name == NULL ? 0 : tls_files_each(cfg, name, ca_load, 1);
}

int
tls_config_system_ca(struct tls_config *cfg, const char *file)
{
	if (tls_config_ca(cfg, file) == -1)
		return -1;
	tls_files_forget_passed(cfg, 0);
	return (cfg->system = strdup(file)) != NULL ? 0 :
	    tls_fail(cfg, "out of memory");
}

const char *
tls_config_system(const struct tls_config *cfg, size_t *n)
{
	const mbedtls_x509_crt *crt;

	*n = 0;
	for (crt = &cfg->ca; cfg->system != NULL && crt != NULL;
	    crt = crt->next)
		++*n;
	return cfg->system;
}

int
tls_config_crl(struct tls_config *cfg, const char *name)
{
	if (!cfg->has_ca)
		return tls_fail(cfg,
		    "it has no effect without ca");
	if (tls_files_each(cfg, name, tls_files_crl, 0) == -1)
		return -1;
	cfg->has_crl = 1;
	return 0;
}

/* Return 1 if a CertificateRequest has room for the names of all issuers. */
static int
names_fit(const mbedtls_x509_crt *ca)
{
	size_t size = REQUEST_HEAD;

	for (; ca != NULL; ca = ca->next)
		size += 2 + ca->subject_raw.len;
	return size <= MBEDTLS_SSL_OUT_CONTENT_LEN;
}

int
tls_config_verify(struct tls_config *cfg, int is_required)
{
	if (!cfg->has_ca && !cfg->has_pin)
		return tls_fail(cfg,
		    "it needs ca, peer = pin:sha256/BASE64 or peer = "
		    "cert:FILE");
	cfg->verify = is_required ? REQUIRED : ASKED;
	/* tls_verify_check_verdict() refuses missing and bad ones. */
	mbedtls_ssl_conf_authmode(&cfg->ssl, MBEDTLS_SSL_VERIFY_OPTIONAL);
	if (cfg->has_ca)
		mbedtls_ssl_conf_ca_chain(&cfg->ssl, &cfg->ca,
		    cfg->has_crl ? &cfg->crl : NULL);
	/*
	 * Send no issuers' names if they would be incomplete: clients send no
	 * certificate of an issuer that is not listed.
	 */
	if (cfg->has_pin || !names_fit(&cfg->ca))
		mbedtls_ssl_conf_cert_req_ca_list(&cfg->ssl,
		    MBEDTLS_SSL_CERT_REQ_CA_LIST_DISABLED);
	return 0;
}

int
tls_config_versions(struct tls_config *cfg, int min, int max)
{
	if (min > max)
		return tls_fail(cfg, "tls_min is newer than tls_max");
	cfg->min = min;
	cfg->max = max;
	return 0;
}

/* In TLS 1.2 an ECDHE suite needs a group. */
static int
is_usable(const struct tls_config *cfg, int suite)
{
	return tls_suites_has_key(cfg, suite) && (tls_suites_is_tls13(suite) ||
	    tls_suites_has_group(cfg) ||
	    strstr(mbedtls_ssl_get_ciphersuite_name(suite), "ECDHE") == NULL);
}

/* Fail: no suite in the list can be used, on a server with its keys. */
static int
fail_suites(struct tls_config *cfg, int min, int max)
{
	const struct cert *c = cfg->is_client ? NULL : cfg->certs;
	char text[ERROR_SIZE] = "";

	if (cfg->psk_alone)
		snprintf(text, sizeof(text), " and shared keys (in TLS 1.2 "
		    "that is " PSK_SUITE_NAME ", in TLS 1.3 those with SHA256 "
		    "in their name)");
	else if (c != NULL)
		snprintf(text, sizeof(text), " and %s (in TLS 1.2 those with "
		    "ECDSA in their name need an EC key, those with RSA an RSA "
		    "key)", c->next != NULL ? "these keys" :
		    tls_cert_is_rsa(&c->chain.pk) ?
		    "an RSA key" : "an EC key");
	return tls_fail(cfg, "no suite in the list can be used with tls_min = "
	    "1.%d, tls_max = 1.%d%s", min % 10, max % 10, text);
}

/*
 * Disable a version that has no suite for our keys and groups: negotiating it
 * would make handshakes fail that succeed with the other version.
 */
int
tls_config_ready(struct tls_config *cfg)
{
	int with[2] = { 0, 0 }, min = cfg->min, max = cfg->max;
	size_t i;

	if (tls_psk_ready(cfg) == -1)
		return -1;
	for (i = 0; cfg->suites[i] != 0; i++)
		with[tls_suites_is_tls13(cfg->suites[i])] |=
		    is_usable(cfg, cfg->suites[i]);
	if (!with[0])
		cfg->min = 13;
	if (!with[1])
		cfg->max = 12;
	if (cfg->min > cfg->max && max == 12 && !tls_suites_has_group(cfg))
		return tls_fail(cfg, "no group in the list can be used with "
		    "tls_max = 1.2");
	if (cfg->min > cfg->max)
		return fail_suites(cfg, min, max);
	cfg->left_out = min < cfg->min ? 12 : max > cfg->max ? 13 : 0;
	mbedtls_ssl_conf_min_tls_version(&cfg->ssl, cfg->min == 13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	mbedtls_ssl_conf_max_tls_version(&cfg->ssl, cfg->max == 13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	return 0;
}

void
tls_config_truncation(struct tls_config *cfg, int is_eof)
{
	cfg->truncation_is_eof = is_eof;
}

void
tls_config_kernel(struct tls_config *cfg, unsigned caps)
{
	cfg->kernel = caps;
}

void
tls_config_ask_no_name(struct tls_config *cfg)
{
	cfg->asks_no_name = 1;
}

void
tls_config_strict_names(struct tls_config *cfg, int is_strict)
{
	cfg->strict_names = is_strict;
}
