/* generation_report: log lines, warnings and the -t output on a generation. */
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "generation.h"
#include "log.h"
#include "sandbox.h"
#include "tls.h"

#define CLAUSE_SIZE	64

/* About a file of cert, or an option, which may have no place, or several. */
static void
warn(const void *arg, const char *about, const char *text)
{
	const struct config *cfg = arg;
	int option = option_find(about), is_file = option == -1;
	const struct value *v = cfg->given[is_file ? CERT : option];

	while (is_file && v != NULL && strcmp(v->text, about) != 0)
		v = v->next;
	if (is_file && v != NULL)
		log_warning("%s: cert: %s: %s", v->where, about, text);
	else if (v != NULL && v->next == NULL)
		log_warning("%s: %s: %s", v->where, about, text);
	else
		log_warning("%s: %s", about, text);
}

void
generation_warn_of_certificates(const struct generation *g)
{
	if (g->tls != NULL)
		tls_config_warn(g->tls, warn, &g->config);
}

void
generation_warn_of_files(const struct generation *g)
{
	files_check(&g->config, generation_user(g), LEVEL_WARNING);
	files_warn_of_readers(&g->config);
}

void
generation_warn_of_sockets(const struct generation *g)
{
	size_t i;

	for (i = 0; i < g->accepts.n; i++) {
		const struct target *t = &g->accepts.list[i];

		if (t->fd != -1 && !net_is_listening(t->fd))
			log_warning("%s: accept: fd:%d is not a listening "
			    "socket here, so it cannot be checked", t->where,
			    t->fd);
	}
}

void
generation_warn_of_fixed(const struct generation *g,
    const struct generation *old)
{
	static const int fixed[] = { DAEMON, PIDFILE };
	size_t i;

	for (i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		const char *a = config_text(&old->config, fixed[i]);
		const char *b = config_text(&g->config, fixed[i]);

		if (strcmp(a != NULL ? a : "", b != NULL ? b : "") != 0)
			log_warning("%s: %s cannot be changed by a reload; "
			    "restart to apply",
			    config_where(&g->config, fixed[i]),
			    options[fixed[i]].name);
	}
}

/* Log new and closed listeners. */
static void
announce_listeners(const struct listeners *ls, const struct listeners *old)
{
	size_t i;

	for (i = 0; old != NULL && i < old->n; i++)
		if (!old->list[i].kept)
			log_notice("no longer listening on %s",
			    old->list[i].bound.text);
	for (i = 0; i < ls->n; i++)
		if (!ls->list[i].kept)
			log_notice("listening on %s",
			    ls->list[i].bound.text);
}

/* Log the system's file of CA certificates if it is used, and new. */
static void
announce_authorities(const struct generation *g, const struct generation *old)
{
	const char *file, *before = NULL;
	size_t n, nbefore = 0;

	file = tls_config_system(g->tls, &n);
	if (old != NULL && old->tls != NULL)
		before = tls_config_system(old->tls, &nbefore);
	if (file != NULL && (before == NULL || n != nbefore ||
	    strcmp(file, before) != 0))
		log_info("CA certificates of the system: %s (%zu)", file, n);
}

void
generation_announce(const struct generation *g, const struct generation *old)
{
	char text[KTLS_LINE_SIZE];

	announce_listeners(&g->listeners, old != NULL ? &old->listeners :
	    NULL);
	announce_authorities(g, old);
	ktls_probe_text(&g->kernel, text, sizeof(text));
	if (old == NULL)
		log_at(g->kernel.caps != 0 ? LEVEL_INFO : LEVEL_DEBUG, "%s",
		    text);
	if (old == NULL && g->identity.uid == 0)
		log_notice("workers run as root (set user to one without "
		    "privileges)");
	if (old == NULL && g->config.number[SANDBOX] == 1) {
		if (g->config.command != NULL)
			log_notice("sandbox: workers that run a command are "
			    "not restricted");
		else if (sandbox_lacks() != NULL)
			log_notice("sandbox: %s", sandbox_lacks());
	}
	generation_warn_of_files(g);
}

void
generation_warn_full(struct generation *g, int drop_ms)
{
	scoreboard_warn_full(&g->board, config_is_client(&g->config) &&
	    g->config.number[ACCEPT_PROXY] == 0 ? 0 : drop_ms);
}

void
generation_announce_remaining(const struct generation *old)
{
	uint64_t n = scoreboard_live(&old->board), more = 0;
	char text[CLAUSE_SIZE] = "";

	while ((old = old->older) != NULL)
		more += scoreboard_live(&old->board);
	if (more > 0)
		snprintf(text, sizeof(text), ", and %llu under earlier ones",
		    (unsigned long long)more);
	if (n + more > 0)
		log_notice("%llu connection%s continue%s under the previous "
		    "configuration%s", (unsigned long long)n,
		    n == 1 ? "" : "s", n == 1 ? "s" : "", text);
}

/* Print how each backend is verified, and whether SNI is sent. */
static void
print_servers(const struct generation *g)
{
	const struct config *cfg = &g->config;
	const char *name = config_text(cfg, SERVER_NAME), *as;
	int is_off = name != NULL && strcmp(name, "off") == 0;
	char host[HOST_SIZE];
	size_t i;

	for (i = 0; i < g->backends.n; i++) {
		const struct target *t = &g->backends.list[i];

		as = generation_server_name(g, t, host);
		if (cfg->given[PEER] != NULL)
			as = "one of the peer rules";
		if (config_is_psk_only(cfg))
			as = "a holder of the shared key";
		if (cfg->number[VERIFY] == VERIFY_NONE || as == NULL)
			printf("# %s: not verified", t->given);
		else
			printf("# %s: verified as %s", t->given, as);
		printf("%s\n", is_off ? ", no server name (SNI) is sent" : "");
	}
}

void
generation_print(const struct generation *g)
{
	char text[KTLS_LINE_SIZE];
	size_t i;

	config_print(&g->config, stdout);
	if (config_is_client(&g->config))
		print_servers(g);
	tls_config_print(g->tls, stdout);
	ktls_probe_text(&g->kernel, text, sizeof(text));
	printf("# %s\n", text);
	for (i = 0; tls_config_report(g->tls, i, stdout) == 0; i++)
		continue;
	fflush(stdout);
}
