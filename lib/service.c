/* service: a configuration put to work by the master. */
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
#include "log.h"
#include "service.h"
#include "tls.h"
#include "util.h"

#define SPARE_FDS	(32 + LISTENERS_MAX)	/* not connections' */

/* -1 with errno: EAGAIN if all that failed may be right in a minute. */
static int
resolve_all(struct targets *all, const struct value *values, int passive)
{
	size_t n = config_count(values);
	const struct value *v;
	char why[NET_ERROR_SIZE];
	int r = 0, for_good = 0;

	if (n > 0 && (all->list = calloc(n, sizeof(*all->list))) == NULL) {
		log_error("out of memory");
		return -1;
	}
	for (v = values; v != NULL; v = v->next) {
		struct target *t = &all->list[all->n++];

		t->given = v->text;
		t->where = v->where;
		errno = 0;
		if (net_resolve(t, passive, why, sizeof(why)) == 0)
			continue;
		for_good |= errno != EAGAIN;
		log_error("%s: %s", t->where, why);
		r = -1;
	}
	errno = for_good ? 0 : EAGAIN;
	return r;
}

struct files_user
service_user(const struct service *sv)
{
	return (struct files_user){ sv->identity.uid,
	    sv->identity.gid };
}

int
service_open_log(const struct service *sv)
{
	const char *to = config_text(&sv->cfg, LOG);
	struct log_state state;
	int fd = -1, stream;

	log_get_state(&state);
	if (state.is_daemon && sv->cfg.given[LOG] == NULL)
		to = "syslog";
	stream = log_stream(to);
	/* Workers will find neither the time zone nor syslog's socket. */
	tzset();
	if (stream == -1)
		log_connect_syslog();
	else if (stream != 0)
		fd = stream == state.stream ? log_fd() :
		    log_open_stream(stream);
	else if ((fd = files_open(&sv->cfg, service_user(sv), LOG,
	    O_WRONLY | O_APPEND, 0640)) == -1)
		return -1;
	log_to(fd, stream);
	log_configure(strcmp(to, "stderr") != 0,
	    (enum log_level)sv->cfg.number[LOG_LEVEL]);
	return 0;
}

static struct privilege
privilege(const struct config *cfg, int option)
{
	return (struct privilege){ .text = config_text(cfg, option),
	    .where = config_where(cfg, option) };
}

/* user, group and chroot; -1 after a sentence for each that can't be. */
static int
load_privileges(struct service *sv)
{
	const struct privileges p = { .user = privilege(&sv->cfg, USER),
	    .group = privilege(&sv->cfg, GROUP),
	    .root = privilege(&sv->cfg, CHROOT) };

	return privileges_find(&sv->identity, &p);
}

/*
 * Descriptors that whoever started this has left open by mistake must not get
 * to workers.  It is time when the files have been read, which may be among
 * them (/dev/fd/N), and before anything is opened to stay.  Those that are of
 * use now, or may be after a reload, are kept.
 */
static void
close_strays(const struct config *cfg, const struct arguments *a)
{
	size_t n = 0, room = (size_t)a->passed + 1 +
	    config_count(cfg->given[ACCEPT]);
	int *fds = calloc(room, sizeof(*fds));
	const struct value *v;
	int64_t fd;

	if (fds == NULL)
		return;
	while (n < (size_t)a->passed) {
		fds[n] = PASSED + (int)n;
		n++;
	}
	fds[n++] = a->state;
	for (v = cfg->given[ACCEPT]; v != NULL; v = v->next)
		if (strncmp(v->text, "fd:", 3) == 0 &&
		    parse_number(v->text + 3, 0, INT_MAX - 1, &fd) == 0)
			fds[n++] = (int)fd;
	daemon_close_all_but(fds, n);
	free(fds);
}

enum { KTLS_AUTO, KTLS_OFF, KTLS_REQUIRE };

/* -1 after one sentence. */
static int
load_kernel(struct service *sv)
{
	int64_t mode = sv->cfg.number[KTLS];

	if (mode == KTLS_OFF) {
		snprintf(sv->kernel.why, sizeof(sv->kernel.why), "off");
		return 0;
	}
	ktls_probe(&sv->kernel, mode == KTLS_AUTO);
	if (mode == KTLS_REQUIRE && sv->kernel.caps == 0) {
		log_error("%s: ktls = require: %s (allowed: auto, off)",
		    config_where(&sv->cfg, KTLS), sv->kernel.why);
		return -1;
	}
	tls_config_kernel(sv->tls, sv->kernel.caps);
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
	if (cfg->number[MODE] == FORK)
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
service_descriptors(const struct service *sv, size_t slot)
{
	rlim_t each = sv->cfg.command != NULL ? 3 : 2;
	size_t before;

	return scoreboard_share(&sv->board, slot, &before) * each + SPARE_FDS;
}

void
service_raise_limit(const struct service *sv)
{
	rlim_t need = service_descriptors(sv, 0), lines = SPARE_FDS;
	const struct service *old;
	struct rlimit l;

	for (old = sv; old != NULL; old = old->older)
		lines += old == sv ? old->workers.nslots : old->workers.n + 1;
	if (need < lines)
		need = lines;
	if (getrlimit(RLIMIT_NOFILE, &l) == -1 || l.rlim_cur >= need)
		return;
	l.rlim_cur = l.rlim_max < need ? l.rlim_max : need;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur < need)
		log_warning("max_connections needs %llu descriptors, and "
		    "%llu are allowed (ulimit -n)", (unsigned long long)need,
		    (unsigned long long)l.rlim_cur);
}

/* The places of the workers, and what they share with the master. */
static int
make_workers(struct service *sv, int inetd)
{
	size_t n = count_slots(&sv->cfg, inetd);

	if (workers_new(&sv->workers, n) == -1 || scoreboard_new(&sv->board,
	    (size_t)sv->cfg.number[MAX_CONNECTIONS], n, inetd) == -1) {
		log_error("%s", strerror(errno));
		return -1;
	}
	return 0;
}

/* Is there a use for it?  inetd's children share nothing but a file of keys. */
static int
needs_sessions(const struct config *cfg, int inetd)
{
	if (inetd)
		return cfg->number[SESSION_TICKETS] == 1 &&
		    cfg->given[TICKET_KEYS] != NULL;
	return cfg->number[SESSION_TICKETS] == 1 ||
	    cfg->number[SESSION_CACHE] != 0;
}

/* Those of the service before, or of its own, with the same keys. */
static int
make_sessions(struct service *sv, const struct service *old, int inetd)
{
	size_t n = inetd ? 0 : (size_t)sv->cfg.number[SESSION_CACHE];
	int with_clients = sv->cfg.number[VERIFY] != NONE;
	struct tls_sessions *before = old != NULL ? old->sessions : NULL;
	const struct tls_sessions_memory *m = before != NULL ?
	    tls_sessions_memory(before) : NULL;

	if (!needs_sessions(&sv->cfg, inetd))
		return 0;
	if (m != NULL && m->entries == n && m->with_clients == with_clients) {
		sv->sessions = tls_sessions_ref(before);
	} else if ((sv->sessions = tls_sessions_new(n, with_clients,
	    !inetd)) == NULL) {
		log_error("out of memory");
		return -1;
	} else if (before != NULL)
		tls_sessions_adopt(sv->sessions, before);
	tls_config_sessions(sv->tls, sv->sessions,
	    sv->cfg.number[SESSION_TICKETS] == 1,
	    (int)(sv->cfg.number[TICKET_LIFETIME] / 1000));
	return 0;
}

void
service_close(struct service *sv)
{
	struct config numbers = { .command = NULL };

	memcpy(numbers.number, sv->cfg.number, sizeof(numbers.number));
	listeners_free(&sv->listeners);
	free(sv->accepts.list);
	free(sv->connects.list);
	tls_config_free(sv->tls);
	tls_sessions_free(sv->sessions);
	config_free(&sv->cfg);
	sv->accepts = sv->connects = (struct targets){ .n = 0 };
	sv->tls = NULL;
	sv->sessions = NULL;
	sv->cfg = numbers;
}

void
service_free(struct service *sv)
{
	if (sv == NULL)
		return;
	service_close(sv);
	scoreboard_free(&sv->board);
	workers_free(&sv->workers);
	free(sv);
}

/* Steps from a configuration to a service: -1 after sentences. */

static int
step_configure(struct service *sv, const struct arguments *a)
{
	int r = arguments_configure(a, &sv->cfg);

	return service_load_tls(&sv->tls, &sv->cfg) == -1 ? -1 : r;
}

static int
step_kernel(struct service *sv, const struct arguments *a)
{
	(void)a;
	return sv->tls != NULL ? load_kernel(sv) : 0;
}

static int
step_accept(struct service *sv, const struct arguments *a)
{
	(void)a;
	return resolve_all(&sv->accepts, sv->cfg.given[ACCEPT], 1);
}

static int
step_connect(struct service *sv, const struct arguments *a)
{
	(void)a;
	return resolve_all(&sv->connects, sv->cfg.given[CONNECT], 0);
}

static int
step_privileges(struct service *sv, const struct arguments *a)
{
	int r = load_privileges(sv);

	(void)a;
	return files_check(&sv->cfg, service_user(sv), LEVEL_ERROR) == -1 ?
	    -1 : r;
}

/*
 * Each is taken though another has failed, to tell all errors at once.  -1
 * with errno: EAGAIN if all that failed may be right in a minute.
 */
static int
service_load(struct service *sv, const struct arguments *a, int is_first)
{
	static int (*const steps[])(struct service *,
	    const struct arguments *) = {
		step_configure, step_kernel, step_accept, step_connect,
		step_privileges,
	};
	int r = 0, for_good = 0;
	size_t i;

	log_errors_begin();
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		errno = 0;
		if (steps[i](sv, a) == -1) {
			for_good |= errno != EAGAIN;
			r = -1;
		}
		if (i == 0 && r == 0 && is_first)
			close_strays(&sv->cfg, a);
	}
	log_errors_end();
	errno = for_good ? 0 : EAGAIN;
	return r;
}

struct service *
service_alloc(const struct arguments *a)
{
	struct service *sv = calloc(1, sizeof(*sv));

	if (sv == NULL || listeners_new(&sv->listeners) == -1) {
		free(sv);
		return NULL;
	}
	sv->board = (struct scoreboard)SCOREBOARD_NONE;
	sv->files = &a->files;
	sv->core = &a->core;
	sv->file = a->file;
	return sv;
}

int
service_listen(struct service *sv, struct service *old)
{
	return listeners_open(&sv->listeners, old != NULL ? &old->listeners :
	    NULL, &sv->accepts, sv->cfg.number[KEEPALIVE]);
}

struct service *
service_new(const struct arguments *a, const struct service *old)
{
	struct service *sv;
	int saved;

	errno = 0;
	if ((sv = service_alloc(a)) == NULL) {
		log_error("out of memory");
		return NULL;
	}
	if (service_load(sv, a, old == NULL) == -1)
		goto err;
	errno = 0;
	if (make_workers(sv, a->inetd) == -1 ||
	    make_sessions(sv, old, a->inetd) == -1)
		goto err;
	if (old != NULL)
		scoreboard_follow(&sv->board, &old->board);
	return sv;
err:
	saved = errno;
	service_free(sv);
	errno = saved;
	return NULL;
}
