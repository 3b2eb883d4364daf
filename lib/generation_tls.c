/* generation_tls: the TLS part of a generation, from the configuration. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "generation.h"
#include "log.h"
#include "tls.h"
#include "util.h"


/* Read the first line of a file.  The caller frees it.  NULL, logged. */
static char *
read_password(const char *name, const char *where)
{
	char *line = NULL;
	size_t size = 0;
	const char *why;
	FILE *fp;

	/* Unbuffered, to leave no copy in memory. */
	if ((fp = config_open(name, &why)) == NULL ||
	    setvbuf(fp, NULL, _IONBF, 0) != 0 ||
	    getline(&line, &size, fp) == -1) {
		log_error("%s: key_password_file: %s: %s", where, name,
		    fp == NULL ? why : "the file is empty");
		free(line);
		line = NULL;
	} else
		line[strcspn(line, "\r\n")] = '\0';
	if (fp != NULL)
		fclose(fp);
	return line;
}

/* Load a certificate and its key (NULL: unknown after another error). */
static int
load_cert(struct tls_config *tls, const struct value *cert,
    const struct value *key, const char *password)
{
	if (tls_config_cert(tls, cert->text) == -1) {
		log_error("%s: cert: %s", cert->where, tls_config_error(tls));
		return -1;
	}
	if (key != NULL && tls_config_key(tls, key->text, password) == -1) {
		log_error("%s: key: %s", key->where, tls_config_error(tls));
		return -1;
	}
	return 0;
}

/* Load the certificates; keys are from key, in the same order, or cert. */
static int
load_certs(struct tls_config *tls, const struct config *cfg,
    const char *password)
{
	const struct value *cert = cfg->given[CERT], *key = cfg->given[KEY];
	int fit = key == NULL || cert == NULL ||
	    config_count(key) == config_count(cert);
	int r = 0;

	if (!fit && cfg->sections < 2 && !cfg->is_wrong[CERT] &&
	    !cfg->is_wrong[KEY]) {
		log_error("%s: %zu cert but %zu key (allowed: one key for each "
		    "cert, in the same order, or none, with the keys in the "
		    "cert files)", key->where, config_count(cert),
		    config_count(key));
		r = -1;
	}
	for (; cert != NULL; cert = cert->next) {
		r |= load_cert(tls, cert, cfg->is_wrong[KEY] || !fit ? NULL :
		    key != NULL ? key : cert, password);
		key = key != NULL ? key->next : NULL;
	}
	return r;
}

static int
load_keys(struct tls_config *tls, struct config *cfg)
{
	const char *file = config_text(cfg, KEY_PASSWORD_FILE);
	char *password = NULL;
	int r = 0;

	if (file != NULL && (password = read_password(file,
	    config_where(cfg, KEY_PASSWORD_FILE))) == NULL) {
		cfg->is_wrong[KEY] = 1;
		r = -1;
	}
	r |= load_certs(tls, cfg, password);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	free(password);
	if (r == -1)
		cfg->is_wrong[CERT] = 1;
	return r;
}

/* Set the TLS options with text values, in this order. */
static int
load_values(struct tls_config *tls, struct config *cfg)
{
	static const struct {
		int	 option;
		int	 (*set)(struct tls_config *, const char *);
	} values[] = {
		{ CIPHERS, tls_config_ciphers },
		{ GROUPS, tls_config_groups },
		{ ALPN, tls_config_alpn },
		{ PSK, tls_config_psk },
		{ PSK_IDENTITY, tls_config_psk_identity },
		{ CA, tls_config_ca },
		{ CRL, tls_config_crl },
		{ PEER, tls_config_peer },
		{ TICKET_KEYS, tls_config_ticket_keys },
	};
	const struct value *v;
	size_t i;
	int r = 0;

	/* NULL: reported already, so avoid errors about its absence. */
	if (cfg->is_wrong[PSK])
		tls_config_psk(tls, NULL);
	if (cfg->is_wrong[CA] || (cfg->number[VERIFY] == VERIFY_NONE &&
	    (config_verify_value(cfg, CRL) != NULL ||
	    config_verify_value(cfg, PEER) != NULL)))
		tls_config_ca(tls, NULL);
	for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		int key = values[i].option;

		for (v = cfg->given[key]; v != NULL; v = v->next) {
			if (values[i].set(tls, v->text) == 0 ||
			    (key == CIPHERS && cfg->is_wrong[CIPHERS]) ||
			    (key == PSK_IDENTITY && (cfg->is_wrong[PSK] ||
			    cfg->given[PSK] == NULL)))
				continue;
			log_error("%s: %s: %s", v->where, options[key].name,
			    tls_config_error(tls));
			cfg->is_wrong[key] = 1;
			r = -1;
		}
	}
	return r;
}

/* Check the combination of all options, unless one is wrong already. */
static int
load_whole(struct tls_config *tls, const struct config *cfg)
{
	const int *wrong = cfg->is_wrong;
	int key = -1;

	if (wrong[TLS_MIN] || wrong[TLS_MAX])
		return 0;
	if (tls_config_versions(tls, (int)cfg->number[TLS_MIN] + 12,
	    (int)cfg->number[TLS_MAX] + 12) == -1)
		key = cfg->given[TLS_MIN] != NULL ? TLS_MIN : TLS_MAX;
	else if (!wrong[CERT] && !wrong[PSK] && !wrong[CIPHERS] &&
	    (cfg->given[CERT] != NULL || cfg->given[PSK] != NULL ||
	    config_is_client(cfg)) && tls_config_ready(tls) == -1)
		key = CIPHERS;
	if (key == -1)
		return 0;
	log_error("%s: %s: %s", config_where(cfg, key), options[key].name,
	    tls_config_error(tls));
	return -1;
}

/*
 * The system's file of CA certificates, on Debian, Alpine and OpenWrt; Fedora
 * (two places); SUSE; the BSDs.
 */
static const char *const bundles[] = {
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
};

/* 1 if all rules of peer are pins, which need no CA, and there is one. */
static int
has_only_pins(const struct config *cfg)
{
	const struct value *v;

	for (v = cfg->given[PEER]; v != NULL; v = v->next)
		if (strncmp(v->text, "pin:", 4) != 0 &&
		    strncmp(v->text, "cert:", 5) != 0)
			return 0;
	return cfg->given[PEER] != NULL;
}

/*
 * Load the system's CA certificates, if a client needs them and ca is not set.
 * 0; -1, having logged why; or 1: no file found, to be reported by
 * miss_bundle() after load_values().
 */
static int
load_bundle(struct tls_config *tls, const struct config *cfg)
{
	size_t i, n = sizeof(bundles) / sizeof(bundles[0]);

	if (!config_is_client(cfg) || !config_has_role(cfg) ||
	    config_is_psk_only(cfg) ||
	    cfg->number[VERIFY] == VERIFY_NONE || cfg->is_wrong[VERIFY] ||
	    cfg->given[CA] != NULL || cfg->is_wrong[CA] ||
	    has_only_pins(cfg) || cfg->is_wrong[PEER])
		return 0;
	for (i = 0; i < n && access(bundles[i], R_OK) == -1; i++)
		continue;
	if (i < n && tls_config_system_ca(tls, bundles[i]) == 0)
		return 0;
	if (i < n)
		log_error("ca: %s", tls_config_error(tls));
	tls_config_ca(tls, NULL);
	return i < n ? -1 : 1;
}

static int
miss_bundle(const struct config *cfg)
{
	if (!cfg->is_wrong[PEER] && cfg->number[VERIFY] != VERIFY_REQUEST)
		log_error("missing: ca = FILE (the CA certificates of the "
		    "system were not found)");
	return -1;
}

/* The value of server_name; NULL: use the hosts of connect. */
static const char *
server_name(const struct config *cfg)
{
	const char *name = config_text(cfg, SERVER_NAME);

	return name == NULL || strcmp(name, "off") == 0 ? NULL : name;
}

const char *
generation_server_name(const struct generation *g, const struct target *t,
    char *host)
{
	const char *name = server_name(&g->config);

	return name != NULL ? name : net_host(t, host, HOST_SIZE) == 0 ? host :
	    NULL;
}

static int
check_target(const struct config *cfg, const struct target *t)
{
	char host[HOST_SIZE], text[HOST_SIZE];
	int has_host = net_host(t, host, sizeof(host)) == 0;

	/* Not a valid address: reported already. */
	if (t->to != NULL && t->to->list->len == 0)
		return 0;
	if (has_host && tls_is_name(host))
		return 0;
	text_escape(text, sizeof(text), has_host ? host : t->given);
	if (has_host)
		log_error("%s: connect: \"%s\" is not a name for TLS (allowed: "
		    "a DNS name in ASCII, with other characters as xn--; an IP "
		    "address; any name if server_name is set)", t->where, text);
	else if (cfg->number[VERIFY] != VERIFY_NONE &&
	    cfg->given[PEER] == NULL && !config_is_psk_only(cfg))
		log_error("%s: connect: %s has no name to verify the server by "
		    "(allowed: server_name or peer to verify it by, or verify "
		    "= none)", t->where, text);
	else
		return 0;
	return -1;
}

int
generation_check_server(const struct generation *g)
{
	const struct config *cfg = &g->config;
	const char *name = server_name(cfg);
	char text[HOST_SIZE];
	size_t i;
	int r = 0;

	if (!config_is_client(cfg))
		return 0;
	if (name != NULL && !tls_is_name(name)) {
		text_escape(text, sizeof(text), name);
		log_error("%s: server_name: \"%s\" is not a name for TLS "
		    "(allowed: a DNS name in ASCII, with other characters as "
		    "xn--; an IP address; off)",
		    config_where(cfg, SERVER_NAME), text);
		return -1;
	}
	for (i = 0; name == NULL && i < g->backends.n; i++)
		r |= check_target(cfg, &g->backends.list[i]);
	return r;
}

static int
load_verify(struct tls_config *tls, const struct config *cfg)
{
	if (cfg->number[VERIFY] == VERIFY_NONE || cfg->is_wrong[PEER] ||
	    config_is_psk_only(cfg) ||
	    tls_config_verify(tls, cfg->number[VERIFY] == VERIFY_REQUIRE) == 0)
		return 0;
	log_error("%s: verify: %s", config_where(cfg, VERIFY),
	    tls_config_error(tls));
	return -1;
}

int
generation_load_tls(struct tls_config **tls, struct config *cfg)
{
	int r, bundle;

	if ((*tls = tls_config_new(config_is_client(cfg) ? TLS_CLIENT :
	    TLS_SERVER)) == NULL) {
		log_error("out of memory");
		return -1;
	}
	r = load_keys(*tls, cfg);
	bundle = load_bundle(*tls, cfg);
	r |= load_values(*tls, cfg);
	if (bundle != 0)
		r |= bundle == 1 ? miss_bundle(cfg) : -1;
	r |= load_whole(*tls, cfg);
	r |= load_verify(*tls, cfg);
	tls_config_truncation(*tls, cfg->number[TRUNCATION] == 1);
	tls_config_strict_names(*tls, cfg->number[SNI_STRICT] == 1);
	if (cfg->given[SERVER_NAME] != NULL && server_name(cfg) == NULL)
		tls_config_ask_no_name(*tls);
	return r;
}
