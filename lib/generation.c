/* generation: one load of the configuration. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"
#include "daemon.h"
#include "files.h"
#include "generation.h"
#include "log.h"
#include "tls.h"
#include "util.h"

#define SPARE_FDS	(32 + LISTENERS_MAX)	/* not for connections */

/* Parse the values of accept or connect.  0, or -1, having logged why. */
static int
parse_all(struct targets *all, const struct value *values, int passive)
{
	size_t n = config_count(values);
	const struct value *v;
	char why[NET_ERROR_SIZE];
	int r = 0;

	if (n > 0 && (all->list = calloc(n, sizeof(*all->list))) == NULL) {
		log_error("out of memory");
		return -1;
	}
	for (v = values; v != NULL; v = v->next) {
		struct target *t = &all->list[all->n++];

		t->given = v->text;
		t->where = v->where;
		if (net_parse(t, passive, why, sizeof(why)) == 0)
			continue;
		log_error("%s: %s", t->where, why);
		r = -1;
	}
	errno = 0;
	return r;
}

struct files_user
generation_user(const struct generation *g)
{
	return (struct files_user){ g->identity.uid,
	    g->identity.gid };
}

int
generation_open_log(const struct generation *g)
{
	const char *to = config_text(&g->config, LOG);
	struct log_state state;
	int fd = -1, stream;

	log_get_state(&state);
	if (state.is_daemon && g->config.given[LOG] == NULL)
		to = "syslog";
	stream = log_stream(to);
	/* Workers in a sandbox can't open the time zone or syslog's socket. */
	tzset();
	if (stream == -1)
		log_connect_syslog();
	else if (stream != 0)
		fd = stream == state.stream ? log_fd() :
		    log_open_stream(stream);
	else if ((fd = files_open(&g->config, generation_user(g), LOG,
	    O_WRONLY | O_APPEND, 0640)) == -1)
		return -1;
	log_to(fd, stream);
	log_configure(strcmp(to, "stderr") != 0,
	    (enum log_level)g->config.number[LOG_LEVEL]);
	return 0;
}

static struct privilege
privilege(const struct config *cfg, int option)
{
	return (struct privilege){ .text = config_text(cfg, option),
	    .where = config_where(cfg, option) };
}

/* Look up user, group and chroot.  0, or -1, having logged each error. */
static int
load_privileges(struct generation *g)
{
	const struct privileges p = { .user = privilege(&g->config, USER),
	    .group = privilege(&g->config, GROUP),
	    .root = privilege(&g->config, CHROOT) };

	return privileges_find(&g->identity, &p);
}

/*
 * Close descriptors that our parent has left open by mistake, before workers
 * inherit them.  Configuration files may be among them (/dev/fd/N), and have
 * been read by now; no descriptors of our own are open yet.  Keep those that
 * are used, or may be used after a reload.
 */
static void
close_strays(const struct config *cfg, const struct arguments *a)
{
	size_t n = 0, room = (size_t)a->passed + 1 + a->nkept_fds +
	    config_count(cfg->given[ACCEPT]);
	int *fds = calloc(room, sizeof(*fds));
	const struct value *v;
	int64_t fd;
	size_t i;

	if (fds == NULL)
		return;
	while (n < (size_t)a->passed) {
		fds[n] = SD_LISTEN_FDS_START + (int)n;
		n++;
	}
	fds[n++] = a->state;
	for (i = 0; i < a->nkept_fds; i++)
		fds[n++] = a->kept_fds[i];
	for (v = cfg->given[ACCEPT]; v != NULL; v = v->next)
		if (strncmp(v->text, "fd:", 3) == 0 &&
		    parse_number(v->text + 3, 0, INT_MAX - 1, &fd) == 0)
			fds[n++] = (int)fd;
	daemon_close_all_but(fds, n);
	free(fds);
}

enum { KTLS_AUTO, KTLS_OFF, KTLS_REQUIRE };

/* Probe kernel TLS as configured.  0, or -1, having logged why. */
static int
load_kernel(struct generation *g)
{
	int64_t mode = g->config.number[KTLS];

	if (mode == KTLS_OFF) {
		snprintf(g->kernel.why, sizeof(g->kernel.why), "off");
		return 0;
	}
	ktls_probe(&g->kernel, mode == KTLS_AUTO);
	if (mode == KTLS_REQUIRE && g->kernel.caps == 0) {
		log_error("%s: ktls = require: %s (allowed: auto, off)",
		    config_where(&g->config, KTLS), g->kernel.why);
		return -1;
	}
	tls_config_kernel(g->tls, g->kernel.caps);
	return 0;
}

static size_t
count_slots(const struct config *cfg, int inetd)
{
	size_t max = (size_t)cfg->number[MAX_CONNECTIONS];
	size_t n = (size_t)cfg->number[WORKERS];
	long cpus;

	if (inetd)
		return 1;
	if (cfg->number[MODE] == MODE_FORK)
		return max;
	if (n == 0) {
		cpus = sysconf(_SC_NPROCESSORS_ONLN);
		n = cpus < 1 ? 1 : cpus > WORKERS_MAX ? WORKERS_MAX :
		    (size_t)cpus;
	}
	if (n > max)
		n = max;
	return n > 0 ? n : 1;
}

rlim_t
generation_descriptors(const struct generation *g, size_t slot)
{
	rlim_t each = g->config.command != NULL ? 3 : 2;
	size_t before;

	return scoreboard_share(&g->board, slot, &before) * each + SPARE_FDS;
}

void
generation_raise_limit(const struct generation *g)
{
	rlim_t need = generation_descriptors(g, 0), channels = SPARE_FDS;
	const struct generation *old;
	struct rlimit l;

	for (old = g; old != NULL; old = old->older)
		channels += old == g ? old->workers.nslots : old->workers.n + 1;
	if (need < channels)
		need = channels;
	if (getrlimit(RLIMIT_NOFILE, &l) == -1 || l.rlim_cur >= need)
		return;
	l.rlim_cur = l.rlim_max < need ? l.rlim_max : need;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur < need)
		log_warning("max_connections needs %llu file descriptors, but "
		    "the limit is %llu (ulimit -n)", (unsigned long long)need,
		    (unsigned long long)l.rlim_cur);
}

/* Make slots for the workers, and the memory they share with the master. */
static int
make_workers(struct generation *g, int inetd)
{
	size_t n = count_slots(&g->config, inetd);

	if (workers_new(&g->workers, n) == -1 || scoreboard_new(&g->board,
	    (size_t)g->config.number[MAX_CONNECTIONS], n, inetd) == -1) {
		log_error("%s", strerror(errno));
		return -1;
	}
	return 0;
}

/* Make the memory by which workers get new addresses of names. */
static int
make_names(struct generation *g, int inetd)
{
	if (inetd || g->config.number[RESOLVE_INTERVAL] == 0 ||
	    g->names.n > 0 || resolver_share(&g->names, &g->backends) == 0)
		return 0;
	log_error("%s", strerror(errno));
	return -1;
}

/* 1 if sessions can be resumed.  With -i, processes only share ticket_keys. */
static int
needs_sessions(const struct config *cfg, int inetd)
{
	if (config_is_client(cfg))
		return !inetd && cfg->number[SESSION_TICKETS] == 1 &&
		    cfg->number[SESSION_CACHE] != 0;
	if (inetd)
		return cfg->number[SESSION_TICKETS] == 1 &&
		    cfg->given[TICKET_KEYS] != NULL;
	return cfg->number[SESSION_TICKETS] == 1 ||
	    cfg->number[SESSION_CACHE] != 0;
}

/* Use the sessions of the previous generation, or make new ones. */
static int
make_sessions(struct generation *g, const struct generation *old, int inetd)
{
	size_t n = inetd ? 0 : (size_t)g->config.number[SESSION_CACHE];
	enum tls_sessions_kind kind = config_is_client(&g->config) ?
	    TLS_WITH_SERVERS : g->config.number[VERIFY] != VERIFY_NONE ?
	    TLS_WITH_CLIENTS : TLS_BARE;
	struct tls_sessions *before = old != NULL ? old->sessions : NULL;
	const struct tls_sessions_memory *m = before != NULL ?
	    tls_sessions_memory(before) : NULL;

	if (!needs_sessions(&g->config, inetd))
		return 0;
	if (m != NULL && m->entries == n && m->kind == (int)kind) {
		g->sessions = tls_sessions_ref(before);
	} else if ((g->sessions = tls_sessions_new(n, kind,
	    !inetd)) == NULL) {
		log_error("out of memory");
		return -1;
	}
	tls_config_sessions(g->tls, g->sessions,
	    g->config.number[SESSION_TICKETS] == 1,
	    (int)(g->config.number[TICKET_LIFETIME] / 1000));
	return 0;
}

void
generation_close(struct generation *g)
{
	struct config numbers = { .command = NULL };

	memcpy(numbers.number, g->config.number, sizeof(numbers.number));
	listeners_free(&g->listeners);
	net_free_targets(&g->accepts);
	net_free_targets(&g->backends);
	resolver_free(&g->names);
	tls_config_free(g->tls);
	tls_sessions_free(g->sessions);
	config_free(&g->config);
	g->tls = NULL;
	g->sessions = NULL;
	g->config = numbers;
}

void
generation_free(struct generation *g)
{
	if (g == NULL)
		return;
	generation_close(g);
	scoreboard_free(&g->board);
	workers_free(&g->workers);
	free(g);
}

/* The steps of a load.  Each returns 0, or -1, having logged why. */

static int
step_configure(struct generation *g, const struct arguments *a)
{
	int r = arguments_configure(a, &g->config);

	return generation_load_tls(&g->tls, &g->config) == -1 ? -1 : r;
}

static int
step_kernel(struct generation *g, const struct arguments *a)
{
	(void)a;
	return g->tls != NULL ? load_kernel(g) : 0;
}

/* Names may add addresses, which only the lookup at the start counts. */
static int
check_accepts(const struct targets *all)
{
	size_t i, n = 0;

	for (i = 0; i < all->n; i++) {
		const struct target *t = &all->list[i];

		n += t->to != NULL ? t->to->n : 1;
		if (n <= LISTENERS_MAX)
			continue;
		log_error("%s: accept: %s: too many addresses (allowed: %d in "
		    "all)", t->where, t->given, LISTENERS_MAX);
		return -1;
	}
	return 0;
}

static int
step_accept(struct generation *g, const struct arguments *a)
{
	(void)a;
	if (parse_all(&g->accepts, g->config.given[ACCEPT], 1) == -1)
		return -1;
	return check_accepts(&g->accepts);
}

static int
step_connect(struct generation *g, const struct arguments *a)
{
	int r = parse_all(&g->backends, g->config.given[CONNECT], 0);

	(void)a;
	return generation_check_server(g) == -1 ? -1 : r;
}

static int
step_privileges(struct generation *g, const struct arguments *a)
{
	int r = load_privileges(g);

	(void)a;
	return files_check(&g->config, generation_user(g), LEVEL_ERROR) == -1 ?
	    -1 : r;
}

/*
 * After a failed upgrade, with the same configuration: use the addresses that
 * the workers have.
 */
static void
take_names(struct generation *g, struct generation *from)
{
	size_t i;

	if (from->names.n != resolver_number(&g->backends))
		return;
	g->names = from->names;
	from->names = (struct names)NAMES_NONE;
	for (i = 0; i < g->backends.n; i++)
		resolver_refresh(&g->names, &g->backends.list[i]);
}

/*
 * Run all steps, also after a failure, to report all errors at once.  0, or -1
 * with errno: EAGAIN if a retry may succeed.
 */
static int
load(struct generation *g, const struct arguments *a, struct generation *old,
    int waits)
{
	static int (*const steps[])(struct generation *,
	    const struct arguments *) = {
		step_configure, step_kernel, step_accept, step_connect,
		step_privileges,
	};
	int r = 0, is_permanent = 0;
	size_t i;

	log_errors_begin();
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		errno = 0;
		if (steps[i](g, a) == -1) {
			is_permanent |= errno != EAGAIN;
			r = -1;
		}
		if (i == 0 && r == 0 && old == NULL)
			close_strays(&g->config, a);
	}
	if (a->restored != NULL)
		take_names(g, old);
	if (waits && generation_look_up(g) == -1) {
		is_permanent |= errno != EAGAIN;
		r = -1;
	}
	log_errors_end();
	errno = is_permanent ? 0 : EAGAIN;
	return r;
}

struct generation *
generation_new(const struct arguments *a)
{
	struct generation *g = calloc(1, sizeof(*g));

	if (g == NULL || listeners_new(&g->listeners) == -1) {
		free(g);
		return NULL;
	}
	g->board = (struct scoreboard)SCOREBOARD_NONE;
	g->names = (struct names)NAMES_NONE;
	/* Until user and group are known; for files_fault(). */
	g->identity.uid = geteuid();
	g->identity.gid = getegid();
	g->files = &a->files;
	g->core = &a->core;
	g->file = a->file;
	return g;
}

int
generation_listen(struct generation *g, struct generation *old)
{
	return listeners_open(&g->listeners, old != NULL ? &old->listeners :
	    NULL, &g->accepts, g->config.number[KEEPALIVE]);
}

struct generation *
generation_load(const struct arguments *a, struct generation *old, int waits)
{
	struct generation *g;
	int saved;

	errno = 0;
	if ((g = generation_new(a)) == NULL) {
		log_error("out of memory");
		return NULL;
	}
	g->older = old;
	if (load(g, a, old, waits) == -1)
		goto err;
	errno = 0;
	if (make_workers(g, a->inetd) == -1 || make_names(g, a->inetd) == -1 ||
	    make_sessions(g, old, a->inetd) == -1)
		goto err;
	if (old != NULL)
		scoreboard_follow(&g->board, &old->board);
	return g;
err:
	saved = errno;
	generation_free(g);
	errno = saved;
	return NULL;
}
