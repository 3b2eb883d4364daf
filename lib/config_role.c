/*
 * config_role: checks of a configuration for the role of client or server, and
 * for options without effect.  The functions are declared in config.h.
 */
#include <stdio.h>

#include "config.h"
#include "log.h"
#include "options.h"

int
config_is_client(const struct config *cfg)
{
	return cfg->number[CLIENT] == 1;
}

int
config_has_role(const struct config *cfg)
{
	return !cfg->is_wrong[CLIENT] && (cfg->sections < 2 ||
	    config_count(cfg->given[CLIENT]) < 2);
}

/* Report an option, if it is set: it has no effect in this case. */
static int
refuse_unused(const struct config *cfg, int option, const char *why)
{
	if (cfg->given[option] == NULL)
		return 0;
	log_error("%s: %s has no effect %s", config_where(cfg, option),
	    options[option].name, why);
	return -1;
}

/* Report and drop options of the other role, to avoid further errors. */
static int
check_options(struct config *cfg)
{
	int i, is_client = config_is_client(cfg), r = 0;

	for (i = 0; i < OPTIONS; i++) {
		if (cfg->given[i] == NULL || option_has_effect(i, is_client))
			continue;
		log_error("%s: %s has no effect with client = %s%s",
		    config_where(cfg, i), options[i].name, is_client ? "yes" :
		    "no", i == EXEC ? " (allowed: connect)" : "");
		config_drop(cfg, i);
		r = -1;
	}
	return r;
}

/* Report settings that a client does not support. */
static int
check_client(const struct config *cfg)
{
	int r = 0;

	if (cfg->command != NULL && cfg->given[EXEC] == NULL) {
		log_error("command line: a command has no effect with client "
		    "= yes (allowed: connect)");
		r = -1;
	}
	if (cfg->number[VERIFY] == VERIFY_REQUEST) {
		log_error("%s: verify = request is for client certificates "
		    "(allowed with client = yes: none, require)",
		    config_where(cfg, VERIFY));
		r = -1;
	}
	if (config_count(cfg->given[CERT]) > 1) {
		log_error("%s: a second cert has no effect with client = yes "
		    "(allowed: one)", cfg->given[CERT]->next->where);
		r = -1;
	}
	return r;
}

/* Report key options without a certificate, where that is not an error. */
static int
check_own_cert(const struct config *cfg)
{
	int r;

	if (cfg->given[CERT] != NULL || cfg->is_wrong[CERT])
		return 0;
	r = refuse_unused(cfg, KEY, "without cert");
	r |= refuse_unused(cfg, KEY_PASSWORD_FILE, "without cert");
	return r;
}

int
config_is_psk_only(const struct config *cfg)
{
	if (cfg->given[PSK] == NULL && !cfg->is_wrong[PSK])
		return 0;
	if (!config_is_client(cfg))
		return cfg->given[CERT] == NULL && !cfg->is_wrong[CERT];
	return cfg->given[CA] == NULL && !cfg->is_wrong[CA] &&
	    cfg->given[PEER] == NULL && !cfg->is_wrong[PEER];
}

/* Report options without effect where shared keys replace all certificates. */
static int
check_psk_only(const struct config *cfg)
{
	int is_client = config_is_client(cfg), r = 0;
	int is_verified = cfg->number[VERIFY] != VERIFY_NONE;

	if (!is_client && cfg->number[SNI_STRICT] == 1)
		r |= refuse_unused(cfg, SNI_STRICT,
		    "with psk and no cert (allowed: no)");
	if (is_client)
		r |= refuse_unused(cfg, CERT,
		    "with psk, unless ca or peer is set");
	if (cfg->given[VERIFY] == NULL || cfg->is_wrong[VERIFY] ||
	    is_verified == is_client)
		return r;
	log_error(is_client ? "%s: verify = none has no effect with psk: a "
	    "server without the key is refused (allowed: require)" :
	    "%s: verify has no effect with psk and no cert: a client without "
	    "a key is refused (allowed: none)", config_where(cfg, VERIFY));
	return -1;
}

/* Check the options for shared keys. */
static int
check_psk(const struct config *cfg)
{
	if (config_is_psk_only(cfg))
		return check_psk_only(cfg);
	if (!config_is_client(cfg) || cfg->given[PSK] != NULL ||
	    cfg->is_wrong[PSK])
		return 0;
	return refuse_unused(cfg, PSK_IDENTITY, "without psk");
}

int
config_check_role(struct config *cfg)
{
	int r = 0;

	if (!config_has_role(cfg))
		return 0;
	if (config_is_client(cfg))
		r |= check_client(cfg);
	if (config_is_client(cfg) || config_is_psk_only(cfg))
		r |= check_own_cert(cfg);
	r |= check_psk(cfg);
	return r | check_options(cfg);
}

int
config_check_unused(const struct config *cfg, int inetd)
{
	int has_tickets = cfg->number[SESSION_TICKETS] == 1;
	int has_cache = cfg->number[SESSION_CACHE] != 0;
	int r = 0;

	if (inetd && cfg->number[DAEMON] == 1)
		r |= refuse_unused(cfg, DAEMON, "with -i");
	if (cfg->number[MODE] == MODE_FORK)
		r |= refuse_unused(cfg, WORKERS, "with mode = fork");
	if (!has_tickets)
		r |= refuse_unused(cfg, TICKET_KEYS,
		    "with session_tickets = no");
	/* A server's cache does not need tickets; a client's has them. */
	if (!has_tickets && (!has_cache || config_is_client(cfg)))
		r |= refuse_unused(cfg, TICKET_LIFETIME, has_cache ?
		    "with session_tickets = no" :
		    "with session_tickets = no and session_cache = off");
	return r;
}
