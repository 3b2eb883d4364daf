/* service_report: what an administrator should know of a generation. */
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "log.h"
#include "sandbox.h"
#include "service.h"
#include "tls.h"

#define TEXT_SIZE	2048

/*
 * THE MASTER
 * It has the privileges, the listeners and the workers, and reads nothing that
 * comes from the network.
 */

static void
say_warning(const char *text)
{
	log_warning("%s", text);
}

void
service_warn_of_certificates(const struct service *sv)
{
	if (sv->tls != NULL)
		tls_config_warn(sv->tls, say_warning);
}

void
service_warn_of_files(const struct service *sv)
{
	files_check(&sv->cfg, service_user(sv), LEVEL_WARNING);
	files_warn_of_readers(&sv->cfg);
}

void
service_warn_of_sockets(const struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->accepts.n; i++) {
		const struct target *t = &sv->accepts.list[i];

		if (t->fd != -1 && !net_is_listening(t->fd))
			log_warning("%s: accept: fd:%d is no listening socket "
			    "here, where it can't be checked", t->where,
			    t->fd);
	}
}

void
service_warn_of_fixed(const struct service *sv, const struct service *old)
{
	static const int fixed[] = { DAEMON, PIDFILE };
	size_t i;

	for (i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		const char *a = config_text(&old->cfg, fixed[i]);
		const char *b = config_text(&sv->cfg, fixed[i]);

		if (strcmp(a != NULL ? a : "", b != NULL ? b : "") != 0)
			log_warning("%s: %s changes with the next start alone",
			    config_where(&sv->cfg, fixed[i]),
			    options[fixed[i]].name);
	}
}

/* What is new, or gone. */
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

void
service_announce(const struct service *sv, const struct service *old)
{
	char text[TEXT_SIZE];

	announce_listeners(&sv->listeners, old != NULL ? &old->listeners :
	    NULL);
	ktls_probe_text(&sv->kernel, text, sizeof(text));
	if (old == NULL)
		log_at(sv->kernel.caps != 0 ? LEVEL_INFO : LEVEL_DEBUG, "%s",
		    text);
	if (old == NULL && sv->identity.uid == 0)
		log_notice("workers keep the user root (user names another)");
	if (old == NULL && sv->cfg.number[SANDBOX] == 1) {
		if (sv->cfg.command != NULL)
			log_notice("sandbox: a command needs the system, so "
			    "the workers that run it are not confined");
		else if (sandbox_lacks() != NULL)
			log_notice("sandbox: %s", sandbox_lacks());
	}
	service_warn_of_files(sv);
}

void
service_announce_remaining(const struct service *old)
{
	uint64_t n = scoreboard_live(&old->board), more = 0;
	char text[TEXT_SIZE] = "";

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

void
service_print(const struct service *sv)
{
	char text[TEXT_SIZE];
	size_t i;

	config_print(&sv->cfg, stdout);
	tls_config_print(sv->tls, stdout);
	ktls_probe_text(&sv->kernel, text, sizeof(text));
	printf("# %s\n", text);
	for (i = 0; tls_config_report(sv->tls, i, stdout) == 0; i++)
		continue;
	fflush(stdout);
}
