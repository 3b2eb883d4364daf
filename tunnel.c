#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#ifdef __GLIBC__
#include <malloc.h>
#else
#define malloc_trim(pad)	((void)0)
#endif

#include "arguments.h"
#include "config.h"
#include "control.h"
#include "daemon.h"
#include "files.h"
#include "ktls_probe.h"
#include "listener.h"
#include "log.h"
#include "memory.h"
#include "net.h"
#include "options.h"
#include "poller.h"
#include "privileges.h"
#include "repeats.h"
#include "sandbox.h"
#include "scoreboard.h"
#include "service.h"
#include "stats.h"
#include "tls.h"
#include "util.h"
#include "worker.h"
#include "workers.h"

#ifndef VERSION
#define VERSION		"0"
#endif

#define EXIT_CONFIG	2
#define LOG_SIZE	2048
#define TEXT_SIZE	512
#define ASK_EVERY_MS	20		/* workers to make room, and up to */
#define ASK_AT_ONCE	16		/* as many */
#define DAY		(24 * 60 * 60)
#define TRIAL_MS	60000		/* for a new program's -t */
#define TAKEOVER_FDS	16		/* to take over, or to go back, with */

_Static_assert(SOCKETS_MAX == LISTENERS_MAX, "each is listened on");

/*
 * STATISTICS
 * The sum of what all workers count, those of older generations and those that
 * are no more as well.
 */

static const char *
stats_fault(const void *arg, const char *path)
{
	return files_fault(service_user(arg), STATS_FILE, path);
}

static int
stats_expiry(const void *arg, size_t i, const char **file, int64_t *at)
{
	const struct service *sv = arg;

	return tls_config_expiry(sv->tls, i, file, at);
}

/* Of all generations, and of workers that are no more. */
static struct stats_report
report(const struct stats *st, const struct service *live)
{
	struct stats_report r = { .config = live->file, .version = VERSION,
	    .library = tls_version(), .sum = st->ended, .max_connections =
	    (uint64_t)live->cfg.number[MAX_CONNECTIONS],
	    .path = config_text(&live->cfg, STATS_FILE),
	    .where = config_where(&live->cfg, STATS_FILE),
	    .fault = stats_fault, .expiry = stats_expiry, .arg = live };
	const struct service *sv;
	size_t i;

	for (sv = live; sv != NULL; sv = sv->older) {
		const struct workers *ws = &sv->workers;

		for (i = 0; i < ws->nslots; i++)
			if (ws->slots[i].pid != 0)
				stats_add(&r.sum,
				    &sv->board.counts[ws->slots[i].row]);
		r.workers += ws->n;
	}
	return r;
}

static int64_t
statistics_due(const struct stats *st, const struct service *live)
{
	return stats_due(st, live->cfg.given[STATS_FILE] != NULL);
}

static void
log_statistics(const struct stats *st, const struct service *live)
{
	const struct stats_report r = report(st, live);

	stats_log(st, &r);
}

static void
write_statistics(struct stats *st, const struct service *live)
{
	struct stats_report r;

	if (clock_ms() < statistics_due(st, live))
		return;
	r = report(st, live);
	stats_step(st, &r);
}

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

/* See THE UPGRADE. */
struct upgrade {
	char	*path;			/* of the program, old and new, */
	char	**argv, **env;		/* and how it is to be started */
	int	 program;		/* the one that runs; or -1 */
	pid_t	 trial;			/* of the new one; or 0 */
	int	 output, answer;	/* what it says; or -1 */
	int64_t	 until;			/* it is killed */
	int	 is_due;		/* it went well */
	int	 log;			/* of the program before; or -1 */
};

struct master {
	const struct arguments *args;
	struct service *live;		/* and behind it those that leave */
	struct stats stats;
	sigset_t asleep;
	pid_t	 pid;
	int	 parent;		/* waits for the start; or -1 */
	int	 pidfile;		/* or -1 */
	char	*pidfile_name;
	int	 stopping;
	struct incoming waiting;	/* fork mode: for a process; or -1 */
	size_t	 next_listener;		/* fork mode */
	int64_t	 renew_at;		/* keys for tickets */
	int64_t	 warn_at;		/* of certificates, again */
	int64_t	 starved_until;
	int64_t	 ask_at;		/* fork mode: others to make room */
	int64_t	 beat_at;		/* the next sign of life */
	int	 is_silent;		/* there was none */
	time_t	 complained;
	struct upgrade upgrade;
};

static void upgrade_leave(const struct master *);
static int upgrade_tried(struct master *, pid_t, int);

/*
 * In the child: let go of all that is the master's alone.  A worker has no
 * business with the keys of the others; but who their clients are is counted.
 */
static void
leave_master(const struct master *m, struct service *sv,
    const struct incoming *in)
{
	struct service *old;

	workers_close_channels(&sv->workers);
	if (m->live != sv)
		listeners_close(&m->live->listeners, 0);
	listeners_keep_none(&sv->listeners);
	for (old = sv->older; old != NULL; old = old->older) {
		close_fd(&old->board.fd);
		workers_close_channels(&old->workers);
		workers_free(&old->workers);
		service_close(old);
	}
	if (sv->cfg.number[MODE] == FORK)
		listeners_close(&sv->listeners, 0);
	if (in == NULL && m->waiting.fd != -1)
		close(m->waiting.fd);
	if (m->parent != -1)
		close(m->parent);
	if (m->pidfile != -1)
		close(m->pidfile);
	close_fd(&sv->board.fd);
	tls_sessions_keep(sv->sessions);
	upgrade_leave(m);
}

/* In the child: serve, and never come back. */
static void __attribute__((noreturn))
worker_main(const struct master *m, struct service *sv, size_t slot,
    const struct incoming *in, int control)
{
	struct worker w = { .has_master = 1, .control = control,
	    .all = { .turn = slot },
	    .beat_every = in == NULL ? m->args->watchdog / BEATS : 0 };
	struct incoming connection;
	struct log_lost lost;
	int r = EXIT_FAILURE;

	log_lost_take();		/* the master tells of its own */
	signals_leave();
	leave_master(m, sv, in);
	if (in != NULL) {
		connection = *in;
		in = &connection;
		daemon_move_fd(&connection.fd, STDERR_FILENO + 1);
	}
	worker_lower_descriptors(&w, sv);
	if (worker_init(&w, sv, slot) == 0)
		r = in != NULL || worker_await_release(&w) ?
		    worker_run(&w, in, &m->asleep) : EXIT_SUCCESS;
	worker_free(&w);
	lost = log_lost_take();
	sv->board.counts[slot].unlogged = lost.lines;
	sv->board.counts[slot].unlogged_why = lost.why;
	sv->board.counts[slot].unlogged_cut = lost.is_cut;
	exit(r);
}

/*
 * A worker for a slot: for a connection, which it begins to serve at once, or
 * one that waits to be released.  -1: it could not be forked, or won't be
 * ready.
 */
static int
start_worker(struct master *m, struct service *sv, size_t slot,
    const struct incoming *in)
{
	int control;
	pid_t pid = workers_fork(&sv->workers, slot, in != NULL ?
	    WORKER_DROP_MS : 0, &control);

	if (pid == 0)
		worker_main(m, sv, slot, in, control);
	if (pid == -1)
		return -1;
	return in != NULL ? 0 : workers_await_ready(&sv->workers, slot);
}

/*
 * One in each slot that is empty.  In fork mode just one, that has nothing to
 * do, to see whether it would be able to.
 */
static int
start_workers(struct master *m, struct service *sv)
{
	size_t i, n = sv->cfg.number[MODE] == FORK ? 1 : sv->workers.nslots;

	for (i = 0; i < n; i++) {
		if (sv->workers.slots[i].pid != 0 ||
		    start_worker(m, sv, i, NULL) == 0)
			continue;
		if (sv->workers.slots[i].pid == 0) {
			log_warning("no worker can be started: %s",
			    strerror(errno));
			workers_failed(&sv->workers);
		}
		return -1;
	}
	return 0;
}

/* mode = fork: may it serve another one, if there is a slot? */
static int
may_serve(const struct master *m)
{
	return m->live->cfg.number[MODE] == FORK && !m->stopping &&
	    clock_ms() >= m->starved_until &&
	    clock_ms() >= m->live->workers.retry_at;
}

/* mode = fork: when there is a slot for one more; INT64_MAX: who knows. */
static int64_t
slot_from(const struct master *m)
{
	const struct slot *slot;

	if (!may_serve(m))
		return INT64_MAX;
	if (!workers_are_full(&m->live->workers))
		return 0;
	if ((slot = workers_oldest_handshake(&m->live->workers,
		    &m->live->board)) == NULL)
		return INT64_MAX;
	return slot->drop_at > m->ask_at ? slot->drop_at : m->ask_at;
}

/* How many wait to be accepted, as far as the system tells. */
#ifdef __linux__
static size_t
count_waiting(const struct service *sv)
{
	struct tcp_info info = { .tcpi_unacked = 0 };
	size_t i, n = 0;

	for (i = 0; i < sv->listeners.n; i++) {
		socklen_t len = sizeof(info);

		if (getsockopt(sv->listeners.list[i].fd, IPPROTO_TCP, TCP_INFO,
		    &info, &len) == 0)
			n += info.tcpi_unacked;
	}
	return n;
}
#else
#define count_waiting(sv)	((size_t)0)
#endif

/*
 * One worker for each that waits: each sees for itself whether its handshake
 * still goes on, and leaves if so.  After a while, others are asked, and in the
 * end the same ones: for a worker that was slow to start, it was too early.
 */
static void
ask_for_room(struct master *m)
{
	const struct order o = { .what = ORDER_MAKE_ROOM };
	size_t n = 1 + count_waiting(m->live);
	int64_t now = clock_ms();
	struct slot *slot;

	if (now < m->ask_at)
		return;
	m->ask_at = now + ASK_EVERY_MS;
	for (n = n < ASK_AT_ONCE ? n : ASK_AT_ONCE; n > 0; n--) {
		slot = workers_oldest_handshake(&m->live->workers,
		    &m->live->board);
		if (slot == NULL || slot->drop_at > now)
			break;
		slot->drop_at = now + WORKER_DROP_MS;
		workers_tell(slot, &o, -1);
	}
}

static void
starve(struct master *m)
{
	listeners_log_pause(&m->complained, errno);
	m->starved_until = clock_ms() + ACCEPT_PAUSE_MS;
}

/* mode = fork: the next connection; 1 if there was one. */
static int
accept_one(struct master *m, int listener)
{
	struct incoming *in = &m->waiting;

	in->fd = accept_connection(listener, &in->sa, &in->len);
	if (in->fd == -1 && errno != EAGAIN && errno != EINTR)
		starve(m);
	return in->fd != -1;
}

static void
drop_waiting(struct master *m)
{
	if (m->waiting.fd != -1)
		close(m->waiting.fd);
	m->waiting.fd = -1;
}

/* mode = fork: a process for the connection that waits. */
static void
serve_waiting(struct master *m)
{
	struct service *sv = m->live;

	if (m->waiting.fd == -1 || !may_serve(m))
		return;
	if (workers_are_full(&sv->workers)) {
		ask_for_room(m);
		return;
	}
	if (start_worker(m, sv, workers_next(&sv->workers), &m->waiting) ==
	    -1) {
		starve(m);
		return;
	}
	drop_waiting(m);
	if (workers_are_full(&sv->workers))
		scoreboard_warn_full(&sv->board, WORKER_DROP_MS);
}

/*
 * A worker has left, and could not tell of lines that it has lost: in fork
 * mode, each has one line to log, at its end.
 */
static void
tell_unlogged(const volatile struct counts *n)
{
	const struct log_lost lost = { .lines = n->unlogged,
	    .why = n->unlogged_why, .is_cut = n->unlogged_cut };

	log_lost_add(&lost);
}

/* Whoever sits there next finds it empty; what was counted is kept. */
static void
clear_slot(struct master *m, struct service *sv, struct slot *slot)
{
	volatile struct counts *counts = &sv->board.counts[slot->row];

	stats_add(&m->stats.ended, counts);
	tell_unlogged(counts);
	m->stats.ended.lost += m->stats.ended.live;
	m->stats.ended.live = 0;
	memset((void *)counts, 0, sizeof(*counts));
	scoreboard_vacate(&sv->board, slot->row);
	workers_clear(&sv->workers, slot);
}

/*
 * In poll mode another one takes the place.  In fork mode none has to; but
 * what crashes again and again may be somebody's guesses at our memory, which
 * is the same in all of them: that is slowed down.
 */
static void
worker_ended(struct master *m, struct service *sv, struct slot *slot,
    int status)
{
	int is_poll = sv->cfg.number[MODE] == POLL;
	int goes_on = sv == m->live && !m->stopping && sv->workers.retry_at !=
	    INT64_MAX;		/* see go_on() */
	pid_t pid = slot->pid;
	char next[TEXT_SIZE] = "";
	int64_t ms = 0;

	clear_slot(m, sv, slot);
	if (goes_on && (is_poll || WIFSIGNALED(status)))
		ms = workers_failed(&sv->workers);
	if (goes_on && is_poll)
		snprintf(next, sizeof(next), "; another takes its place");
	if (ms > 0)
		snprintf(next, sizeof(next), "; another %s in %lld.%lld s "
		    "(%u in a row)", is_poll ? "takes its place" :
		    "may be started", (long long)ms / 1000,
		    (long long)ms / 100 % 10, sv->workers.failures);
	if (WIFSIGNALED(status))
		log_warning("worker %d was killed by signal %d (%s)%s",
		    (int)pid, WTERMSIG(status), strsignal(WTERMSIG(status)),
		    next);
	else if (WEXITSTATUS(status) != 0)
		log_warning("worker %d ended with status %d%s", (int)pid,
		    WEXITSTATUS(status), next);
	else
		log_debug("worker %d ended%s", (int)pid, next);
}

static void
reap(struct master *m)
{
	struct service *sv;
	struct slot *slot;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		stats_reaped(&m->stats, pid, status);
		for (sv = upgrade_tried(m, pid, status) ? NULL : m->live;
		    sv != NULL; sv = sv->older)
			if ((slot = workers_find(&sv->workers, pid)) != NULL)
				worker_ended(m, sv, slot, status);
	}
}

/* Those that all have left, and what the C library would keep of them. */
static void
free_services(struct master *m)
{
	struct service *sv, **link = &m->live->older;

	while ((sv = *link) != NULL) {
		if (sv->workers.n == 0) {
			*link = sv->older;
			repeats_end(sv->board.repeats, 1);
			service_free(sv);
			malloc_trim(0);
		} else
			link = &sv->older;
	}
}

/* Workers of all generations are to log where the master does now. */
static void
tell_log(const struct master *m)
{
	const struct service *sv;
	int fd;
	struct order o = control_log_order(&fd);

	for (sv = m->live; sv != NULL; sv = sv->older)
		workers_tell_log(&sv->workers, &o, fd);
}

/* Of all generations before; whom a new configuration does not concern. */
static void
tell_remaining(const struct service *old)
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

/*
 * What the master keeps of a generation that leaves: its memory, and a slot for
 * each worker that is left.
 */
static void
let_go(struct service *sv)
{
	workers_shrink(&sv->workers);
	service_close(sv);
	malloc_trim(0);
}

/* What is new, or gone. */
static void
tell_listeners(const struct listeners *ls, const struct listeners *old)
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

static void
warn_daily(struct master *m)
{
	if (m->live->tls != NULL)
		tls_config_warn(m->live->tls, say_warning);
	m->warn_at = clock_ms() + DAY * INT64_C(1000);
}

/* What an administrator should know: what is new, and what is wrong. */
static void
announce(const struct service *sv, const struct service *old)
{
	char text[LOG_SIZE];

	tell_listeners(&sv->listeners, old != NULL ? &old->listeners : NULL);
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
	files_check(&sv->cfg, service_user(sv), LEVEL_WARNING);
	files_warn_of_readers(&sv->cfg);
}

static void
say_version(void)
{
	log_notice("tunnel %s, %s", VERSION, tls_version());
}

static void
notify_ready(const struct master *m, const char *but)
{
	size_t n = m->live->workers.nslots;
	const char *to = m->args->notify;

	if (m->live->cfg.number[MODE] == FORK)
		daemon_notify(to, "READY=1\nSTATUS=serving, a process for "
		    "each connection%s", but);
	else
		daemon_notify(to, "READY=1\nSTATUS=serving, %zu worker%s%s",
		    n, n == 1 ? "" : "s", but);
}

/* What can't be changed while it runs. */
static void
warn_of_fixed(const struct service *sv, const struct service *old)
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

/* Take all back: listeners that are its own, and workers that never began. */
static void
give_up(struct master *m, struct service *sv)
{
	listeners_close(&sv->listeners, 1);
	listeners_keep_none(&m->live->listeners);
	workers_dismiss(&sv->workers);
	workers_abort(&sv->workers);
	sv->older = m->live->older;
	m->live->older = sv;
	let_go(sv);
}

/* What the master itself does for a service. */
static void
prepare(const struct service *sv)
{
	service_raise_limit(sv);
	if (sv->cfg.number[SANDBOX] == 1)
		privileges_disable_dumps();
}

/*
 * The keys for tickets: those of a file as they are now, or another one from
 * time to time, while the one before is good still.
 */
static int
renew_keys(struct master *m)
{
	const struct service *sv = m->live;
	const char *why;

	m->renew_at = INT64_MAX;
	if (sv->sessions == NULL)
		return 0;
	if (sv->cfg.given[TICKET_KEYS] == NULL)
		m->renew_at = clock_ms() + sv->cfg.number[TICKET_LIFETIME] / 2;
	if ((why = tls_config_renew(sv->tls)) == NULL)
		return 0;
	log_error("session tickets: %s", why);
	return -1;
}

/* After a reload: keys that were made here go on, until their time is up. */
static void
take_over_keys(struct master *m, const struct service *old)
{
	const struct service *sv = m->live;
	int64_t next = clock_ms() + sv->cfg.number[TICKET_LIFETIME] / 2;

	if (sv->cfg.given[TICKET_KEYS] != NULL ||
	    old->cfg.given[TICKET_KEYS] != NULL || old->sessions == NULL)
		renew_keys(m);
	else if (next < m->renew_at)
		m->renew_at = next;
}

/*
 * At a reload.  Those of earlier ones were told before, and are told again only
 * if it may be sooner for them now.
 */
static void
retire_all(struct service *old, int64_t ms)
{
	workers_retire(&old->workers, ms);
	while ((old = old->older) != NULL && ms != 0)
		workers_retire(&old->workers, ms);
}

/* All that is new is made, and is ready to serve; only then the old leaves. */
static int
replace(struct master *m)
{
	struct service *old = m->live, *sv;

	if ((sv = service_new(m->args, old)) == NULL)
		return -1;
	sv->older = old;
	prepare(sv);
	if (service_listen(sv, old) == -1 || service_open_log(sv) == -1 ||
	    start_workers(m, sv) == -1) {
		give_up(m, sv);
		return -1;
	}
	warn_of_fixed(sv, old);
	announce(sv, old);
	listeners_close(&old->listeners, 1);
	listeners_tune(&sv->listeners, sv->cfg.number[KEEPALIVE]);
	listeners_keep_none(&sv->listeners);
	m->live = sv;
	warn_daily(m);
	m->stats.generation++;
	m->stats.write_at = 0;
	take_over_keys(m, old);
	if (sv->cfg.number[MODE] == POLL)
		drop_waiting(m);
	workers_release(&sv->workers);
	retire_all(old, sv->cfg.number[RELOAD_TIMEOUT]);
	if (old->cfg.number[MODE] == POLL)
		workers_await_accept_stop(&old->workers);
	tell_remaining(old);
	let_go(old);
	return 0;
}

static void
reload(struct master *m)
{
	service_open_log(m->live);
	log_notice("reloading");
	daemon_notify(m->args->notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	if (replace(m) == 0) {
		log_notice("reloaded");
		notify_ready(m, "");
	} else {
		service_open_log(m->live);
		log_error("not reloaded: all stays as it was");
		notify_ready(m, "; the last reload failed, see the log");
	}
	tell_log(m);
}

/* mode = fork: see accept_last(). */
static void
serve_last(struct master *m)
{
	const struct service *sv = m->live;
	int64_t until = clock_ms() + WORKER_LAST_MS;
	size_t i;

	for (i = 0; i < sv->listeners.n; i++)
		while (sv->listeners.list[i].address != NULL && may_serve(m) &&
		    !workers_are_full(&sv->workers) && clock_ms() < until &&
		    accept_one(m, sv->listeners.list[i].fd))
			serve_waiting(m);
}

static void
stop(struct master *m, int at_once)
{
	int64_t ms = m->live->cfg.number[DRAIN_TIMEOUT];
	struct service *sv;

	log_notice(at_once ? "stopping at once" :
	    "stopping, connections may finish");
	daemon_notify(m->args->notify, "STOPPING=1");
	serve_waiting(m);
	if (!at_once && m->waiting.fd == -1)
		serve_last(m);
	scoreboard_stop(&m->live->board);
	listeners_close(&m->live->listeners, 1);
	drop_waiting(m);
	m->stopping = 1;
	for (sv = m->live; sv != NULL; sv = sv->older) {
		if (at_once)
			workers_abort(&sv->workers);
		else
			workers_retire(&sv->workers, ms);
	}
}

/* SIGUSR1: the sum here, and each worker has its connections listed. */
static void
tell(struct master *m)
{
	const struct service *sv;

	log_statistics(&m->stats, m->live);
	m->stats.write_at = 0;
	for (sv = m->live; sv != NULL; sv = sv->older)
		workers_signal(&sv->workers, SIGUSR1);
}

/*
 * THE UPGRADE
 * At SIGUSR2 the file that this program was started from, which may be another
 * by now, is tried with -t, and then takes the place of this one by execve(2).
 * It is the same process: the workers are its children still.  All that it
 * can't find out by itself is handed over in a file in memory.  To it, that is
 * the service before a reload: its workers leave when others are ready.  If
 * these don't get there, the program before is started again by a descriptor,
 * with the same file, and goes on.
 */

#if defined(__linux__)

/*
 * Another one with each change of what is carried, of what lies in memory that
 * processes share, and of orders to workers, which stay what they were.
 */
#define HANDOVER	"tunnel handover 1"
#define HANDOVER_MAX	(64 << 20)

/* What is being written or, the other way, read: by the same functions. */
struct parcel {
	int	 reads;
	unsigned char *p;
	size_t	 size, at;
	int	*fds;			/* that are handed over */
	size_t	 nfds;
	const char *bad;		/* why it is of no use; or NULL */
};

/* Room for as many bytes more, and nothing left of where they were. */
static void
parcel_grow(struct parcel *x, size_t len)
{
	size_t size = 2 * x->size + len;
	unsigned char *p = malloc(size);

	if (p == NULL) {
		x->bad = "out of memory";
		return;
	}
	if (x->p != NULL) {
		memcpy(p, x->p, x->at);
		explicit_bzero(x->p, x->at);
	}
	free(x->p);
	x->p = p;
	x->size = size;
}

static void
carry(struct parcel *x, void *data, size_t len)
{
	if (x->bad == NULL && len > x->size - x->at) {
		if (x->reads)
			x->bad = "it is too short";
		else
			parcel_grow(x, len);
	}
	if (x->bad != NULL || x->p == NULL)
		return;
	if (x->reads)
		memcpy(data, x->p + x->at, len);
	else
		memcpy(x->p + x->at, data, len);
	x->at += len;
}

static void
carry_number(struct parcel *x, int64_t *n, int64_t min, int64_t max)
{
	carry(x, n, sizeof(*n));
	if (x->bad == NULL && (*n < min || *n > max))
		x->bad = "a number is out of range";
	if (x->bad != NULL && x->reads)
		*n = min;
}

static void
carry_int(struct parcel *x, int *n, int min, int max)
{
	int64_t number = *n;

	carry_number(x, &number, min, max);
	*n = (int)number;
}

static void
carry_size(struct parcel *x, size_t *n, size_t max)
{
	int64_t number = (int64_t)*n;

	carry_number(x, &number, 0, (int64_t)max);
	*n = (size_t)number;
}

/* A descriptor, or -1.  The standard ones are there anyway. */
static void
carry_fd(struct parcel *x, int *fd)
{
	int *fds;

	carry_int(x, fd, -1, INT_MAX);
	if (x->bad != NULL && x->reads)
		*fd = -1;
	if (x->bad != NULL || *fd <= STDERR_FILENO)
		return;
	fds = realloc(x->fds, (x->nfds + 1) * sizeof(*fds));
	if (fds == NULL) {
		x->bad = "out of memory";
		return;
	}
	x->fds = fds;
	x->fds[x->nfds++] = *fd;
	if (x->reads && fcntl(*fd, F_SETFD, FD_CLOEXEC) == -1)
		x->bad = "a descriptor is not open";
}

/* Allocated, where it is read; or NULL. */
static void
carry_text(struct parcel *x, char **text)
{
	char *p = x->reads ? NULL : *text;
	int64_t len = p != NULL ? (int64_t)strlen(p) : -1;

	carry_number(x, &len, -1, HANDOVER_MAX);
	*text = p;
	if (x->bad != NULL || len == -1)
		return;
	if (x->reads && (size_t)len > x->size - x->at)
		x->bad = "it is too short";
	else if (p == NULL && (p = calloc(1, (size_t)len + 1)) == NULL)
		x->bad = "out of memory";
	else
		carry(x, p, (size_t)len);
	if (p != NULL && x->bad == NULL && strlen(p) != (size_t)len)
		x->bad = "a text is none";
	*text = p;
}

/* With a NULL behind them.  Allocated, where they are read. */
static void
carry_texts(struct parcel *x, char ***texts)
{
	char **p = x->reads ? NULL : *texts;
	size_t i, n = 0;

	while (p != NULL && p[n] != NULL)
		n++;
	carry_size(x, &n, HANDOVER_MAX / sizeof(*p));
	if (p == NULL && (p = calloc(n + 1, sizeof(*p))) == NULL) {
		x->bad = "out of memory";
		return;
	}
	*texts = p;
	for (i = 0; i < n && x->bad == NULL; i++)
		carry_text(x, &p[i]);
}

static void
free_texts(char **texts)
{
	size_t i;

	for (i = 0; texts != NULL && texts[i] != NULL; i++)
		free(texts[i]);
	free(texts);
}

static void
carry_address(struct parcel *x, struct address *a)
{
	int64_t len = a->len;

	carry(x, &a->sa, sizeof(a->sa));
	carry_number(x, &len, 0, sizeof(a->sa));
	a->len = (socklen_t)len;
	if (x->reads)
		net_normalize(a);
}

static void
carry_listener(struct parcel *x, struct listener *l, struct target *t)
{
	int is_named = l->address != NULL;

	carry_fd(x, &l->fd);
	carry_int(x, &t->fd, -1, INT_MAX);
	carry_int(x, &t->any, 0, 1);
	carry_int(x, &is_named, 0, 1);
	if (x->reads) {
		l->target = t;
		l->address = is_named ? t->addrs : NULL;
	}
	if (is_named)
		carry_address(x, t->addrs);
	carry_address(x, &l->bound);
	carry(x, &l->file, sizeof(l->file));
	if (x->bad == NULL && !net_is_listening(l->fd))
		x->bad = "a descriptor is not a listening socket";
}

static void
carry_listeners(struct parcel *x, struct service *sv)
{
	size_t i;

	carry_size(x, &sv->listeners.n, LISTENERS_MAX);
	if (x->reads) {
		sv->accepts.n = sv->listeners.n;
		sv->accepts.list = calloc(sv->listeners.n + 1,
		    sizeof(*sv->accepts.list));
	}
	for (i = 0; i < sv->listeners.n && x->bad == NULL; i++) {
		struct listener *l = &sv->listeners.list[i];
		struct target t;

		if (x->reads && sv->accepts.list == NULL) {
			x->bad = "out of memory";
			return;
		}
		if (x->reads) {
			carry_listener(x, l, &sv->accepts.list[i]);
			continue;
		}
		t = *l->target;
		if (l->address != NULL)
			t.addrs[0] = *l->address;
		carry_listener(x, l, &t);
	}
}

static void
carry_value(struct parcel *x, struct config *cfg, int option, struct value v)
{
	char *name = x->reads ? NULL : strdup(options[option].name);

	carry_text(x, &name);
	carry_text(x, &v.where);
	carry_text(x, &v.text);
	carry_int(x, &v.rank, 0, FROM_ARGUMENT);
	if (x->bad == NULL && (name == NULL || v.where == NULL ||
	    v.text == NULL))
		x->bad = "a value has no name";
	if (x->reads) {
		if (x->bad == NULL && (option = option_find(name)) != -1)
			config_add(&cfg->given[option], v.rank, v.where,
			    v.text);
		free(v.where);
		free(v.text);
	}
	free(name);
}

/*
 * What was given, as it was: it is for the same program to parse, should it
 * come to that.  Another one knows by it what has changed.
 */
static void
carry_values(struct parcel *x, struct config *cfg)
{
	const struct value *v;
	size_t n = 0;
	int i;

	for (i = 0; i < OPTIONS; i++)
		n += config_count(cfg->given[i]);
	carry_size(x, &n, HANDOVER_MAX);
	if (x->reads) {
		for (; n > 0 && x->bad == NULL; n--)
			carry_value(x, cfg, -1, (struct value){ .rank = 0 });
		return;
	}
	for (i = 0; i < OPTIONS; i++)
		for (v = cfg->given[i]; v != NULL; v = v->next)
			carry_value(x, cfg, i, *v);
}

/* It is ours, and if it has ended, it waits for us to see that. */
static void
carry_slot(struct parcel *x, struct slot *slot, size_t nrows)
{
	size_t row = slot->row;
	siginfo_t info;

	carry_int(x, &slot->pid, 1, INT_MAX);
	carry_fd(x, &slot->control);
	carry_size(x, &row, nrows - 1);
	slot->row = (uint32_t)row;
	carry_int(x, &slot->released, 0, 1);
	carry_number(x, &slot->drop_at, 0, INT64_MAX);
	if (x->bad == NULL && waitid(P_PID, (id_t)slot->pid, &info,
	    WEXITED | WNOHANG | WNOWAIT) == -1)
		x->bad = "a worker is not ours";
}

static void
carry_workers(struct parcel *x, struct workers *ws, size_t nrows)
{
	size_t i, n = ws->n;

	carry_size(x, &n, ws->nslots);
	for (i = 0; i < ws->nslots && n > 0 && x->bad == NULL; i++, n--) {
		while (!x->reads && ws->slots[i].pid == 0)
			i++;
		carry_size(x, &i, ws->nslots - 1);
		if (x->bad == NULL && x->reads && ws->slots[i].pid != 0)
			x->bad = "a slot is taken twice";
		if (x->bad == NULL)
			carry_slot(x, &ws->slots[i], nrows);
		if (x->reads)
			ws->n++;
	}
	if (x->bad == NULL && n > 0)
		x->bad = "there are too many workers";
}

/* Does a descriptor stand for memory of this size? */
static void
check_shared(struct parcel *x, int fd, size_t size)
{
	if (x->bad == NULL)
		x->bad = memory_fault(fd, size);
}

/* As read: that of another service, or a new one for its memory. */
static struct tls_sessions *
sessions_take(struct parcel *x, const struct master *m,
    const struct tls_sessions_memory *memory)
{
	const struct service *sv;
	struct tls_sessions *s;

	for (sv = m->live; sv != NULL; sv = sv->older)
		if (sv->sessions != NULL &&
		    tls_sessions_memory(sv->sessions)->fd == memory->fd)
			return tls_sessions_ref(sv->sessions);
	x->bad = tls_sessions_map(memory, &s);
	return s;
}

static void
carry_sessions(struct parcel *x, const struct master *m, struct service *sv)
{
	struct tls_sessions_memory memory = { .fd = -1 };
	int is_there = sv->sessions != NULL;

	if (is_there)
		memory = *tls_sessions_memory(sv->sessions);
	carry_int(x, &is_there, 0, 1);
	if (!is_there)
		return;
	carry_fd(x, &memory.fd);
	carry_size(x, &memory.entries, 1000000);
	carry_int(x, &memory.with_clients, 0, 1);
	if (!x->reads)
		check_shared(x, memory.fd, memory.size);
	else if (x->bad == NULL)
		sv->sessions = sessions_take(x, m, &memory);
}

static void
carry_board(struct parcel *x, struct scoreboard *b)
{
	carry_size(x, &b->max, 1000000);
	carry_size(x, &b->nrows, 1000000);
	if (x->bad == NULL && (b->max == 0 || b->nrows == 0))
		x->bad = "a number is out of range";
	carry(x, &b->secret, sizeof(b->secret));
	carry_fd(x, &b->fd);
	if (x->bad == NULL)
		x->bad = x->reads ? scoreboard_attach(b) :
		    memory_fault(b->fd, b->size);
}

/* What the master has to know of a generation, to look after it. */
static void
carry_service(struct parcel *x, const struct master *m, struct service *sv)
{
	static const int numbers[] = {
		MODE, DRAIN_TIMEOUT, MAX_CONNECTIONS
	};
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		carry_number(x, &sv->cfg.number[numbers[i]], 0, INT64_C(1) <<
		    40);
	carry_board(x, &sv->board);
	carry_size(x, &sv->workers.nslots, sv->board.nrows);
	carry_number(x, &sv->workers.deadline, 0, INT64_MAX);
	if (x->reads) {
		if (workers_new(&sv->workers, sv->workers.nslots) == -1 &&
		    x->bad == NULL)
			x->bad = "out of memory";
	}
	if (x->bad == NULL)
		carry_workers(x, &sv->workers, sv->board.nrows);
	if (x->bad == NULL)
		carry_sessions(x, m, sv);
}

static void
carry_services(struct parcel *x, struct master *m)
{
	struct service *sv, **link = &m->live;
	size_t n = 0;

	for (sv = m->live; sv != NULL; sv = sv->older)
		n++;
	carry_size(x, &n, HANDOVER_MAX);
	for (; n > 0 && x->bad == NULL; n--) {
		if (*link == NULL)
			*link = service_alloc(m->args);
		if ((sv = *link) == NULL) {
			x->bad = "out of memory";
			return;
		}
		carry_service(x, m, sv);
		link = &sv->older;
	}
	if (x->bad == NULL && m->live == NULL)
		x->bad = "there is no service";
	if (x->bad != NULL)
		return;
	carry_listeners(x, m->live);
	carry_values(x, &m->live->cfg);
}

/* To go on where the other one logged, by a descriptor of our own. */
static void
log_again(struct master *m)
{
	int fd = m->upgrade.log;
	struct log_state state;

	if (fd == -1)
		log_connect_syslog();
	else if (fd > STDERR_FILENO)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	log_get_state(&state);
	log_to(fd, state.stream);
}

static void
carry_log(struct parcel *x, struct master *m)
{
	struct log_state state;
	int level, fd = log_fd();

	if (x->bad != NULL)
		return;
	log_get_state(&state);
	level = (int)state.level;
	carry_fd(x, &fd);
	carry_int(x, &state.stream, -1, STDERR_FILENO);
	carry_int(x, &state.has_time, 0, 1);
	carry_int(x, &state.is_ours, 0, 1);
	carry_int(x, &state.is_journal, 0, 1);
	carry_int(x, &state.is_daemon, 0, 1);
	carry_int(x, &level, LEVEL_ERROR, LEVEL_DEBUG);
	carry(x, &state.lost.lines, sizeof(state.lost.lines));
	carry(x, &state.lost.why, sizeof(state.lost.why));
	carry_int(x, &state.lost.is_cut, 0, 1);
	state.level = (enum log_level)level;
	log_set_state(&state);
	if (!x->reads)
		return;
	m->upgrade.log = fd;
	if (x->bad == NULL)
		log_again(m);
}

/* How to start the program again, which a script may have changed since. */
static void
carry_start(struct parcel *x, struct upgrade *u)
{
	char text[sizeof(HANDOVER)] = HANDOVER;

	carry(x, text, sizeof(text));
	if (x->bad == NULL && memcmp(text, HANDOVER, sizeof(text)) != 0)
		x->bad = "it is of another version";
	carry_text(x, &u->path);
	carry_texts(x, &u->argv);
	carry_texts(x, &u->env);
	if (x->bad == NULL && (u->path == NULL || *u->argv == NULL))
		x->bad = "it has no program";
}

/* A reload may name one that is of no use now. */
static void
carry_passed(struct parcel *x, struct arguments *a)
{
	int i, fd;

	carry_int(x, &a->passed, 0, LISTENERS_MAX);
	for (i = 0; i < a->passed; i++) {
		fd = x->reads || !net_is_listening(PASSED + i) ? -1 :
		    PASSED + i;
		carry_fd(x, &fd);
	}
}

/* Counters go on, and the file is known, should it have another name now. */
static void
carry_stats(struct parcel *x, struct stats *st)
{
	int64_t began_at = st->began_at;
	int generation = (int)st->generation;

	carry_number(x, &st->began, 0, INT64_MAX);
	carry_number(x, &began_at, 0, INT64_MAX);
	carry_int(x, &generation, 1, INT_MAX);
	carry(x, &st->ended, sizeof(st->ended));
	carry_int(x, &st->failed, 0, 1);
	carry_text(x, &st->file);
	st->began_at = (time_t)began_at;
	st->generation = (unsigned)generation;
}

static void
carry_master(struct parcel *x, struct master *m, struct arguments *a)
{
	carry_start(x, &m->upgrade);
	carry_int(x, &m->pid, 1, INT_MAX);
	if (x->bad == NULL && m->pid != getpid())
		x->bad = "it is another process's (a script must use exec)";
	carry_log(x, m);
	carry(x, &a->files, sizeof(a->files));
	carry(x, &a->core, sizeof(a->core));
	carry_passed(x, a);
	carry_number(x, &a->watchdog, 0, INT64_MAX);
	carry_fd(x, &m->pidfile);
	carry_text(x, &m->pidfile_name);
	carry_fd(x, &m->waiting.fd);
	carry_number(x, &m->renew_at, 0, INT64_MAX);
	carry_number(x, &m->warn_at, 0, INT64_MAX);
	carry_stats(x, &m->stats);
	if (x->bad == NULL)
		carry_services(x, m);
	if (x->bad == NULL && x->reads && x->at != x->size)
		x->bad = "it is too long";
}

/* Handed over, or (FD_CLOEXEC) not. */
static void
parcel_expose(const struct parcel *x, int flag)
{
	size_t i;

	for (i = 0; i < x->nfds; i++)
		fcntl(x->fds[i], F_SETFD, flag);
}

static void
parcel_free(struct parcel *x)
{
	if (x->reads && x->p != NULL)
		munmap(x->p, x->size);
	if (!x->reads && x->p != NULL) {
		explicit_bzero(x->p, x->at);
		free(x->p);
	}
	free(x->fds);
}

/* What was written, as a file that nobody can change; -1 with errno. */
static int
parcel_seal(const struct parcel *x)
{
	int fd = memory_file();

	if (fd != -1 && (write(fd, x->p, x->at) != (ssize_t)x->at ||
	    memory_seal(fd, 0) == -1))
		return close_failed(fd);
	return fd;
}

/* Such a file, to be read. */
static void
parcel_open(struct parcel *x, int fd)
{
	int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	*x = (struct parcel){ .reads = 1 };
	if (seals == -1 || (seals & sealed) != sealed)
		x->bad = "it is not sealed";
	else if (fstat(fd, &st) == -1 || st.st_size > HANDOVER_MAX)
		x->bad = "it is too long";
	else if ((p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE,
	    fd, 0)) == MAP_FAILED)
		x->bad = strerror(errno);
	else {
		x->p = p;
		x->size = (size_t)st.st_size;
	}
}

/*
 * The path that this program was started by, for good: what is there later may
 * be another file.  It is no link's target, which may be an older version.
 */
static char *
find_program(const char *name)
{
	static const char self[] = "/proc/self/exe";
	char path[PATH_MAX] = "", own[PATH_MAX] = "";
	struct stat a, b;
	int n = 0;

	if (strchr(name, '/') == NULL)
		config_find_runnable(name, path, sizeof(path));
	else if (name[0] == '/' || getcwd(own, sizeof(own)) != NULL)
		n = snprintf(path, sizeof(path), "%s%s%s", own,
		    name[0] == '/' ? "" : "/", name);
	if (n >= (int)sizeof(path))
		path[0] = '\0';
	if (stat(self, &a) == 0 && (stat(path, &b) == -1 ||
	    a.st_dev != b.st_dev || a.st_ino != b.st_ino)) {
		memset(own, 0, sizeof(own));
		if (readlink(self, own, sizeof(own) - 1) != -1)
			return strdup(own);
	}
	return strdup(path);
}

/* At the start, while all is as it was then. */
static void
upgrade_init(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	u->log = u->output = u->answer = -1;
	u->path = find_program(m->args->argv[0]);
	u->argv = m->args->argv;
	u->env = environ;
	u->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static void
upgrade_free(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	free(u->path);
	if (u->argv != m->args->argv) {
		free_texts(u->argv);
		free_texts(u->env);
	}
	if (u->program != -1)
		close(u->program);
}

/* In a child: what is of no use to it. */
static void
upgrade_leave(const struct master *m)
{
	const int fds[] = { m->upgrade.program, m->upgrade.output,
	    m->upgrade.answer, m->upgrade.log, m->args->state,
	    m->args->before };
	size_t i;

	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] > STDERR_FILENO)
			close(fds[i]);
}

/* The environment, and in it the numbers of these; NULL: no memory. */
static char **
environment(char **from, int state, int before)
{
	static char texts[2][32];
	char **env;
	size_t n = 0;

	while (from[n] != NULL)
		n++;
	if ((env = calloc(n + 3, sizeof(*env))) == NULL)
		return NULL;
	memcpy(env, from, n * sizeof(*env));
	snprintf(texts[0], sizeof(texts[0]), "TUNNEL_STATE=%d", state);
	snprintf(texts[1], sizeof(texts[1]), "TUNNEL_BEFORE=%d", before);
	env[n] = texts[0];
	env[n + 1] = before != -1 ? texts[1] : NULL;
	return env;
}

/*
 * What a program that is tried has to leave, or it is not one that could take
 * over, or not in this process.
 */
struct answer {
	char	 version[sizeof(HANDOVER)];
	pid_t	 pid;
};

static int
upgrade_answer(int fd)
{
	struct answer a = { .version = HANDOVER, .pid = getpid() };

	return write(fd, &a, sizeof(a)) == sizeof(a) ? 0 : -1;
}

/* Why this is not the answer of a process; or NULL. */
static const char *
find_fault(int fd, pid_t pid)
{
	struct answer a = { .pid = 0 };

	if (pread(fd, &a, sizeof(a), 0) != sizeof(a))
		return "it can't take over: it is another program, or one "
		    "from before there were upgrades";
	if (memcmp(a.version, HANDOVER, sizeof(a.version)) != 0)
		return "it can't take over from this version: a restart is "
		    "needed";
	return a.pid == pid ? NULL : "it can't take over: it is run in "
	    "another process (a script must use exec)";
}

/* In the child: the program, as it would be started, but with -t. */
static void __attribute__((noreturn))
try_main(const struct master *m)
{
	static char letter[] = "-t";
	const struct upgrade *u = &m->upgrade;
	char **argv, pid[32];
	int fd, n = 0;

	while (u->argv[n] != NULL)
		n++;
	if ((argv = calloc((size_t)n + 2, sizeof(*argv))) == NULL)
		_exit(127);
	argv[0] = u->argv[0];
	argv[1] = letter;
	memcpy(argv + 2, u->argv + 1, (size_t)n * sizeof(*argv));
	if ((environ = environment(u->env, u->answer, -1)) == NULL)
		_exit(127);
	fcntl(u->answer, F_SETFD, 0);
	for (fd = PASSED; fd < PASSED + m->args->passed; fd++)
		fcntl(fd, F_SETFD, 0);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (m->args->passed > 0)
		setenv("LISTEN_PID", pid, 1);
	close(STDIN_FILENO);	/* or there might be no number left */
	open("/dev/null", O_RDWR);
	dup2(STDIN_FILENO, STDOUT_FILENO);
	dup2(u->output, STDERR_FILENO);
	sigprocmask(SIG_SETMASK, &m->asleep, NULL);
	execv(u->path, argv);
	dprintf(STDERR_FILENO, "error: %s\n", strerror(errno));
	_exit(127);
}

/* SIGUSR2: try the new program.  The service goes on meanwhile. */
static void
upgrade_try(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	if (u->trial != 0) {
		log_notice("an upgrade has begun already");
		return;
	}
	u->trial = -1;
	errno = ENOENT;
	if (u->path != NULL && u->program != -1 &&
	    (u->output = memory_file()) != -1 &&
	    (u->answer = memory_file()) != -1)
		u->trial = fork();
	if (u->trial == 0)
		try_main(m);
	if (u->trial == -1) {
		log_error("not upgraded: %s", strerror(errno));
		close_fd(&u->output);
		close_fd(&u->answer);
		u->trial = 0;
		return;
	}
	u->until = clock_ms() + TRIAL_MS;
	log_notice("upgrading: trying %s -t", u->path);
}

/* What the trial complained of, line by line, and not all too much. */
static void
tell_trial(const struct upgrade *u)
{
	char text[LOG_SIZE], *line, *rest = NULL, *error;
	ssize_t n = pread(u->output, text, sizeof(text) - 1, 0);
	struct stat st;

	if (n > 0 && fstat(u->output, &st) == 0 && st.st_size > n)
		while (n > 0 && text[n - 1] != '\n')
			n--;
	text[n > 0 ? n : 0] = '\0';
	for (line = strtok_r(text, "\n", &rest); line != NULL;
	    line = strtok_r(NULL, "\n", &rest)) {
		if (strstr(line, "warning: ") != NULL)
			continue;
		error = strstr(line, "error: ");
		log_error("%s -t: %s", u->path, error != NULL ? error +
		    strlen("error: ") : line);
	}
}

static void
end_trial(struct upgrade *u, pid_t pid, int status)
{
	const char *why;

	if (WIFSIGNALED(status))
		log_error("not upgraded: %s -t was killed by signal %d (%s)",
		    u->path, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != 0)
		log_error("not upgraded: %s -t failed (status %d)", u->path,
		    WEXITSTATUS(status));
	else if ((why = find_fault(u->answer, pid)) != NULL)
		log_error("not upgraded: %s: %s", u->path, why);
	else
		u->is_due = 1;
}

/* A child has ended.  Was it the trial? */
static int
upgrade_tried(struct master *m, pid_t pid, int status)
{
	struct upgrade *u = &m->upgrade;

	if (pid != u->trial)
		return 0;
	u->trial = 0;
	if (status != 0)
		tell_trial(u);
	end_trial(u, pid, status);
	close_fd(&u->output);
	close_fd(&u->answer);
	return 1;
}

/* Would it find the descriptors that it takes?  -1 with errno. */
static int
check_room(int fd)
{
	int fds[TAKEOVER_FDS], n = 0, r, saved;

	while (n < TAKEOVER_FDS && (fds[n] = fcntl(fd, F_DUPFD_CLOEXEC,
	    0)) != -1)
		n++;
	r = n == TAKEOVER_FDS ? 0 : -1;
	saved = errno;
	while (n > 0)
		close(fds[--n]);
	errno = saved;
	return r;
}

/* Become the new program, which finds all it needs; or else, go on. */
static void
hand_over(struct master *m)
{
	const struct upgrade *u = &m->upgrade;
	struct arguments a = *m->args;
	struct parcel x = { .reads = 0 };
	char **env = NULL;
	int fd = -1;

	stats_await(&m->stats);		/* or two would write */
	log_notice("upgrading: %s takes over", u->path);
	daemon_notify(m->args->notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	carry_master(&x, m, &a);
	if (x.bad == NULL && (fd = parcel_seal(&x)) != -1 &&
	    check_room(fd) == 0 &&
	    (env = environment(u->env, fd, u->program)) != NULL) {
		parcel_expose(&x, 0);
		fcntl(fd, F_SETFD, 0);
		fcntl(u->program, F_SETFD, 0);
		execve(u->path, u->argv, env);
		x.bad = strerror(errno);
		parcel_expose(&x, FD_CLOEXEC);
		fcntl(u->program, F_SETFD, FD_CLOEXEC);
	}
	log_error("not upgraded: %s", x.bad != NULL ? x.bad :
	    strerror(errno));
	free(env);
	if (fd != -1)
		close(fd);
	parcel_free(&x);
	notify_ready(m, "; the last upgrade failed, see the log");
}

/* What is due by now. */
static void
upgrade_step(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	if (u->trial != 0 && (m->stopping || clock_ms() >= u->until)) {
		if (!m->stopping)
			log_warning("%s -t has taken %d s: killed", u->path,
			    TRIAL_MS / 1000);
		u->until = INT64_MAX;
		kill(u->trial, SIGKILL);
	}
	if (u->is_due && !m->stopping)
		hand_over(m);
	u->is_due = 0;
}

/*
 * IN THE NEW PROGRAM, or in the one before, again.
 */

/* What a script has left open on the way must not get to workers. */
static void
close_others_than(const struct parcel *x, const struct master *m,
    const struct arguments *a)
{
	const int ours[] = { m->upgrade.program, a->state, a->before };
	size_t more = sizeof(ours) / sizeof(ours[0]);
	int *fds = malloc(sizeof(ours) + x->nfds * sizeof(*fds));

	if (fds == NULL)
		return;
	memcpy(fds, ours, sizeof(ours));
	if (x->nfds > 0)
		memcpy(fds + more, x->fds, x->nfds * sizeof(*fds));
	daemon_close_all_but(fds, more + x->nfds);
	free(fds);
}

/* All that was handed over is ours now, and there is no way back. */
static void
settle(struct master *m, struct arguments *a, struct parcel *x)
{
	parcel_free(x);
	close_fd(&a->state);
	close_fd(&a->before);
	if (m->upgrade.log > STDERR_FILENO)
		close(m->upgrade.log);
	m->upgrade.log = -1;
	raise(SIGCHLD);		/* some may have ended meanwhile */
}

/* Others leave it here, whose workers go on in it. */
static void
take_workers(struct service *sv, struct service *was)
{
	struct service made = *sv;

	sv->workers = was->workers;
	sv->board = was->board;
	was->workers = made.workers;
	was->board = made.board;
}

/*
 * The program before: the service becomes what it was, with the workers that
 * have served all the time.  If its files are gone by now, they go on alone.
 */
static void
go_on(struct master *m, struct arguments *a)
{
	struct service *was = m->live, *sv;
	const char *name = strrchr(m->upgrade.path, '/');

	/* It would be a descriptor's number. */
	prctl(PR_SET_NAME, name != NULL ? name + 1 : m->upgrade.path, 0, 0, 0);
	a->again = &was->cfg;
	sv = service_new(a, was);
	a->again = NULL;
	if (sv == NULL || service_listen(sv, was) == -1) {
		if (sv != NULL)
			listeners_close(&sv->listeners, 1);
		service_free(sv);
		listeners_keep_none(&was->listeners);
		was->workers.retry_at = m->renew_at = INT64_MAX;
		log_error("no worker will be started before a reload is "
		    "right");
	} else {
		listeners_close(&was->listeners, 1);
		listeners_keep_none(&sv->listeners);
		prepare(sv);
		take_workers(sv, was);
		sv->older = was->older;
		m->live = sv;
		service_free(was);
	}
	log_error("not upgraded: all stays as it was");
	notify_ready(m, "; the last upgrade failed, see the log");
}

/*
 * Why its workers did not get there.  Of others, the program before has to see
 * the end by itself.
 */
static void
tell_failed(struct master *m, struct service *sv)
{
	const struct workers *ws = &sv->workers;
	int status;
	size_t i;

	workers_signal(ws, SIGKILL);
	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0 && waitpid(ws->slots[i].pid,
		    &status, 0) != -1 && status != 0 && status != SIGKILL)
			worker_ended(m, sv, &ws->slots[i], status);
}

/* The new program: as at a reload. */
static int
take_over(struct master *m)
{
	const struct service *older = m->live->older;

	say_version();
	if (replace(m) == 0) {
		log_notice("upgraded");
		notify_ready(m, "");
		tell_log(m);
		return 0;
	}
	log_again(m);
	if (m->live->older != older)
		tell_failed(m, m->live->older);
	return -1;
}

/* It was of no use, to the program before either. */
static void
drop_all(struct master *m)
{
	struct service *sv;

	while ((sv = m->live) != NULL) {
		m->live = sv->older;
		service_free(sv);
	}
	free(m->pidfile_name);
	upgrade_free(m);
}

/* Go on as the master that another program was; -1: that is not possible. */
static int
upgrade_end(struct master *m, struct arguments *a)
{
	struct incoming *in = &m->waiting;
	struct parcel x;

	signals_catch(&m->asleep);
	free(m->upgrade.path);
	m->upgrade.path = NULL;
	parcel_open(&x, a->state);
	carry_master(&x, m, a);
	if (x.bad != NULL)
		log_error("what the program before has handed over is of no "
		    "use: %s", x.bad);
	else
		close_others_than(&x, m, a);
	in->len = sizeof(in->sa);
	if (in->fd != -1 && getpeername(in->fd, (struct sockaddr *)&in->sa,
	    &in->len) == -1)
		drop_waiting(m);
	if (x.bad == NULL && a->before == -1)
		go_on(m, a);
	if (x.bad == NULL && (a->before == -1 || take_over(m) == 0)) {
		settle(m, a, &x);
		return 0;
	}
	parcel_expose(&x, 0);
	parcel_free(&x);
	if (a->before == -1)
		drop_all(m);
	return -1;
}

/* This can't take over: start the program before again, as it was started. */
static int
go_back(const struct arguments *a)
{
	struct upgrade u = { .path = NULL };
	char **env;
	struct parcel x;

	log_error("not upgraded: back to the program before");
	parcel_open(&x, a->state);
	carry_start(&x, &u);
	fcntl(a->state, F_SETFD, 0);
	env = environment(x.bad == NULL ? u.env : environ, a->state, -1);
	if (env != NULL)
		fexecve(a->before, x.bad == NULL ? u.argv : a->argv, env);
	log_error("it can't be started: %s", strerror(errno));
	free(env);
	free(u.path);
	free_texts(u.argv);
	free_texts(u.env);
	parcel_free(&x);
	return EXIT_FAILURE;
}

#else

static void
upgrade_init(struct master *m)
{
	m->upgrade.program = m->upgrade.log = -1;
	m->upgrade.output = m->upgrade.answer = -1;
}

static void
upgrade_free(struct master *m)
{
	(void)m;
}

static void
upgrade_leave(const struct master *m)
{
	(void)m;
}

static void
upgrade_try(struct master *m)
{
	(void)m;
	log_error("not upgraded: this system has no files in memory "
	    "(memfd_create) to hand things over in");
}

static int
upgrade_tried(struct master *m, pid_t pid, int status)
{
	(void)m;
	(void)pid;
	(void)status;
	return 0;
}

static void
upgrade_step(struct master *m)
{
	(void)m;
}

static int
upgrade_answer(int fd)
{
	(void)fd;
	return 0;
}

static int
upgrade_end(struct master *m, struct arguments *a)
{
	(void)m;
	(void)a;
	log_error("nothing can be handed over on this system");
	return -1;
}

static int
go_back(const struct arguments *a)
{
	(void)a;
	return EXIT_FAILURE;
}

#endif

/*
 * THE LOOP OF THE MASTER
 */

/* mode = poll: a worker that is missing, or whose loop is stuck; or NULL. */
static const struct slot *
find_lifeless(const struct master *m)
{
	const struct service *sv = m->live;
	const struct workers *ws = &sv->workers;
	uint64_t now = (uint64_t)clock_ms();
	size_t i;

	for (i = 0; i < ws->nslots && sv->cfg.number[MODE] == POLL; i++) {
		const struct slot *slot = &ws->slots[i];

		if (slot->pid == 0 || now - sv->board.counts[slot->row].beat >=
		    (uint64_t)m->args->watchdog)
			return slot;
	}
	return NULL;
}

/*
 * systemd's watchdog: a sign of life, twice in the time it allows.  In fork
 * mode it is the master's alone: what a worker does is one connection's affair.
 */
static void
beat(struct master *m)
{
	const struct slot *slot = m->stopping ? NULL : find_lifeless(m);

	m->beat_at = clock_ms() + m->args->watchdog / 2;
	if (slot == NULL)
		daemon_notify(m->args->notify, "WATCHDOG=1");
	else if (slot->pid == 0)
		log_at(m->is_silent ? LEVEL_DEBUG : LEVEL_WARNING,
		    "watchdog: a worker is "
		    "missing, so WATCHDOG=1 is not sent");
	else
		log_at(m->is_silent ? LEVEL_DEBUG : LEVEL_WARNING,
		    "watchdog: worker %d "
		    "stands still, so WATCHDOG=1 is not sent",
		    (int)slot->pid);
	m->is_silent = slot != NULL;
}

/* To the next thing that is due. */
static int
sleep_ms(const struct master *m)
{
	const struct service *sv = m->live;
	int64_t now = clock_ms(), until = INT64_MAX, due;

	if (!m->stopping)
		until = m->renew_at < m->warn_at ? m->renew_at : m->warn_at;
	if (m->args->watchdog != 0 && m->beat_at < until)
		until = m->beat_at;
	if (m->upgrade.trial != 0 && m->upgrade.until < until)
		until = m->upgrade.until;
	if (m->starved_until > now && m->starved_until < until)
		until = m->starved_until;
	if (!m->stopping && (sv->cfg.number[MODE] == POLL ?
	    !workers_are_full(&sv->workers) : sv->workers.retry_at > now) &&
	    sv->workers.retry_at < until)
		until = sv->workers.retry_at;
	if ((due = statistics_due(&m->stats, sv)) < until)
		until = due;
	if ((due = slot_from(m)) < until && (due > now || m->waiting.fd != -1))
		until = due;
	for (; sv != NULL; sv = sv->older) {
		if (sv->workers.deadline < until)
			until = sv->workers.deadline;
		if (sv->board.repeats->period.more > 0 &&
		    (due = repeats_until(sv->board.repeats, now)) < until)
			until = due;
	}
	return clock_timeout(now, until);
}

/*
 * Until a signal, a deadline or, in fork mode, a connection: the listeners
 * take turns.
 */
static void
sleep_until_due(struct master *m)
{
	const struct service *sv = m->live;
	struct pollfd p[LISTENERS_MAX];
	int ms = sleep_ms(m), ready;
	struct timespec ts = { .tv_sec = ms / 1000,
	    .tv_nsec = ms % 1000 * 1000000L };
	nfds_t i, n = 0;

	if (m->waiting.fd == -1 && slot_from(m) <= clock_ms())
		n = sv->listeners.n;
	for (i = 0; i < n; i++)
		p[i] = (struct pollfd){ .events = POLLIN, .fd =
		    sv->listeners.list[(m->next_listener + i) %
		    sv->listeners.n].fd };
	ready = ppoll(p, n, ms == -1 ? NULL : &ts, &m->asleep);
	deliver_pending_signals(&m->asleep);
	for (i = 0; ready > 0 && i < n; i++)
		if (p[i].revents != 0 && accept_one(m, p[i].fd)) {
			m->next_listener += i + 1;
			return;
		}
}

/* Another worker for each that is no more, but not too fast. */
static void
refill(struct master *m)
{
	struct service *sv = m->live;

	if (m->stopping || sv->cfg.number[MODE] == FORK ||
	    workers_are_full(&sv->workers) ||
	    clock_ms() < sv->workers.retry_at)
		return;
	start_workers(m, sv);
	workers_release(&sv->workers);
}

/* Until the last worker has left. */
static void
supervise(struct master *m)
{
	struct service *sv;

	while (!m->stopping || m->live->workers.n > 0 ||
	    m->live->older != NULL) {
		sleep_until_due(m);
		if (signal_taken(SIGCHLD))
			reap(m);
		serve_waiting(m);
		if (signal_taken(SIGQUIT))
			stop(m, 1);
		if (signal_taken(SIGTERM))
			stop(m, m->stopping);
		if (signal_taken(SIGHUP) && !m->stopping)
			reload(m);
		if (signal_taken(SIGUSR1))
			tell(m);
		if (signal_taken(SIGUSR2) && !m->stopping)
			upgrade_try(m);
		if (!m->stopping && clock_ms() >= m->warn_at)
			warn_daily(m);
		if (!m->stopping && clock_ms() >= m->renew_at)
			renew_keys(m);
		sv = m->live;
		do {
			repeats_end(sv->board.repeats, 0);
			workers_kill_late(&sv->workers);
		} while ((sv = sv->older) != NULL);
			free_services(m);
		refill(m);
		write_statistics(&m->stats, m->live);
		if (m->args->watchdog != 0 && clock_ms() >= m->beat_at)
			beat(m);
		upgrade_step(m);
	}
	repeats_end(m->live->board.repeats, 1);
	stats_end(&m->stats);
}

/*
 * THE WAYS TO RUN
 */

/* The connection that inetd(8) has accepted; -1 after one sentence. */
static int
take_connection(struct incoming *in, int fd, const struct config *cfg)
{
	const char *why = NULL;

	in->len = sizeof(in->sa);
	in->fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (net_is_listening(fd))
		why = "it is a listening socket (for inetd, it is \"nowait\")";
	else if (in->fd == -1 || fcntl(in->fd, F_SETFL, O_NONBLOCK) == -1 ||
	    getpeername(in->fd, (struct sockaddr *)&in->sa, &in->len) == -1)
		why = strerror(errno);
	if (why == NULL) {
		net_set_socket_options(in->fd, cfg->number[KEEPALIVE]);
		return 0;
	}
	log_error("-i: descriptor %d is not a connected socket: %s", fd, why);
	return -1;
}

/* Of a start that failed: may it be right in a minute, as it is? */
static int
exit_status(int error)
{
	return error == EAGAIN || error == EADDRNOTAVAIL ||
	    error == EADDRINUSE ? EXIT_FAILURE : EXIT_CONFIG;
}

static int
run_inetd(const struct arguments *a)
{
	struct service *sv = service_new(a, NULL);
	struct worker w = { .control = -1,
	    .all = { .turn = (size_t)getpid() } };
	struct incoming in = { .fd = -1 };
	int fd, r = EXIT_CONFIG;
	sigset_t asleep;

	if (sv == NULL)
		return exit_status(errno);
	if (service_open_log(sv) == -1)
		goto out;
	fd = sv->accepts.n > 0 ? sv->accepts.list[0].fd : STDIN_FILENO;
	if (take_connection(&in, fd, &sv->cfg) == -1)
		goto out;
	if (fd > STDERR_FILENO)
		close(fd);
	daemon_release_descriptors();
	signals_catch(&asleep);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	r = EXIT_FAILURE;
	if (sv->sessions != NULL)
		tls_config_renew(sv->tls);
	if (worker_init(&w, sv, 0) == 0)
		r = worker_run(&w, &in, &asleep);
	worker_free(&w);
out:
	service_free(sv);
	return r;
}

static int
write_pidfile(struct master *m)
{
	const struct config *cfg = &m->live->cfg;
	const char *name = config_text(cfg, PIDFILE), *why;
	int fd;

	if (name == NULL)
		return 0;
	if ((fd = files_open(cfg, service_user(m->live), PIDFILE, O_RDWR,
	    0600)) == -1)
		return -1;
	if ((why = daemon_write_pidfile(fd, name, m->pid)) == NULL) {
		m->pidfile = fd;
		m->pidfile_name = strdup(name);
		return 0;
	}
	log_error("%s: pidfile %s: %s", config_where(cfg, PIDFILE), name,
	    why);
	close(fd);
	return -1;
}

/* Start the workers, tell so, and look after them; an exit status. */
static int
serve(struct master *m)
{
	int r = EXIT_SUCCESS;

	say_version();
	if (m->parent != -1)
		daemon_release_descriptors();
	if (renew_keys(m) == 0 && start_workers(m, m->live) == 0) {
		announce(m->live, NULL);
		warn_daily(m);
		workers_release(&m->live->workers);
		notify_ready(m, "");
		if (m->parent != -1 && write(m->parent, "", 1) == 1)
			close(m->parent);
		m->parent = -1;
	} else {
		r = EXIT_FAILURE;
		m->stopping = 1;
		workers_dismiss(&m->live->workers);
		workers_abort(&m->live->workers);
	}
	supervise(m);
	return r;
}

static int
run_service(struct arguments *a)
{
	struct master m = { .args = a, .parent = -1, .pidfile = -1,
	    .waiting = { .fd = -1 }, .stats = { .began = clock_ms(),
	    .began_at = time(NULL), .generation = 1 } };
	int r = EXIT_CONFIG;

	if (a->state != -1) {
		upgrade_init(&m);
		if (upgrade_end(&m, a) == -1)
			return EXIT_FAILURE;
		supervise(&m);
		r = EXIT_SUCCESS;
		goto out;
	}
	if ((m.live = service_new(a, NULL)) == NULL)
		return exit_status(errno);
	upgrade_init(&m);
	if (m.live->cfg.number[DAEMON] == 1 &&
	    (m.parent = daemon_background()) == -1) {
		r = EXIT_FAILURE;
		goto out;
	}
	m.pid = getpid();
	prepare(m.live);
	signals_catch(&m.asleep);
	if (service_listen(m.live, NULL) == -1)
		r = exit_status(errno);
	else if (write_pidfile(&m) == 0 && service_open_log(m.live) == 0)
		r = serve(&m);
out:
	if (m.pidfile != -1)
		unlink(m.pidfile_name);
	free(m.pidfile_name);
	upgrade_free(&m);
	listeners_close(&m.live->listeners, 1);
	service_free(m.live);
	return r;
}

/* What somebody else is to pass, who has not started this. */
static void
warn_of_sockets(const struct service *sv)
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

static void
report_service(const struct service *sv)
{
	char text[LOG_SIZE];
	size_t i;

	config_print(&sv->cfg, stdout);
	tls_config_print(sv->tls, stdout);
	ktls_probe_text(&sv->kernel, text, sizeof(text));
	printf("# %s\n", text);
	for (i = 0; tls_config_report(sv->tls, i, stdout) == 0; i++)
		continue;
	fflush(stdout);
}

/* -t: all but the binding, and what came of it. */
static int
run_test(const struct arguments *a)
{
	struct service *sv;

	if ((sv = service_new(a, NULL)) == NULL)
		return exit_status(errno);
	if (!a->quiet)
		report_service(sv);
	if (!a->inetd)
		warn_of_sockets(sv);
	files_check(&sv->cfg, service_user(sv), LEVEL_WARNING);
	files_warn_of_readers(&sv->cfg);
	tls_config_warn(sv->tls, say_warning);
	service_free(sv);
	if (a->state == -1 || upgrade_answer(a->state) == 0)
		return EXIT_SUCCESS;
	log_error("TUNNEL_STATE: %s", strerror(errno));
	return EXIT_FAILURE;
}

/*
 * Where to write a secret: a new file, or standard output, unless that is a
 * file that others can read.  NULL after one sentence.
 */
static FILE *
secret_open(const char *file)
{
	struct stat st;
	FILE *fp = stdout;

	if (file != NULL) {
		if ((fp = files_create(file, 0600)) == NULL) {
			log_error("-o %s: %s", file, strerror(errno));
			return NULL;
		}
	} else if (fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
	    (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		log_error("standard output is a file that others can read "
		    "(mode %04o): use -o FILE, which makes one for you alone",
		    (unsigned)st.st_mode & 07777);
		return NULL;
	}
	setvbuf(fp, NULL, _IONBF, 0);	/* no copy is left behind */
	return fp;
}

/* What is not whole is removed; an exit status. */
static int
secret_close(FILE *fp, const char *file, int status)
{
	if (file == NULL)
		return status;
	if (status == EXIT_SUCCESS && fsync(fileno(fp)) == -1) {
		log_error("-o %s: %s", file, strerror(errno));
		status = EXIT_FAILURE;
	}
	fclose(fp);
	if (status != EXIT_SUCCESS)
		unlink(file);
	return status;
}

/* -g */
static int
run_generate(const char *names, const char *file)
{
	FILE *fp = secret_open(file);
	int r = EXIT_SUCCESS;
	char text[TEXT_SIZE];

	if (fp == NULL)
		return EXIT_FAILURE;
	if (tls_generate(names, fp, text, sizeof(text)) == -1) {
		log_error("-g: %s", text);
		r = ferror(fp) ? EXIT_FAILURE : EXIT_CONFIG;
	}
	return secret_close(fp, file, r);
}

/* -k */
static int
run_ticket_key(const char *file)
{
	FILE *fp = secret_open(file);
	int r = EXIT_SUCCESS;

	if (fp == NULL)
		return EXIT_FAILURE;
	if (tls_generate_ticket_key(fp) == -1) {
		log_error("-k: %s", strerror(errno));
		r = EXIT_FAILURE;
	}
	return secret_close(fp, file, r);
}

/* -V */
static void
run_version(void)
{
	struct ktls_probe kernel;
	char text[LOG_SIZE];

	ktls_probe(&kernel, 1);
	ktls_probe_text(&kernel, text, sizeof(text));
	printf("tunnel %s (%s, %s)\n%s\n", VERSION, tls_version(),
	    poller_name, text);
}

int
main(int argc, char **argv)
{
	struct arguments a = { .argv = argv };
	const char *why;
	int r = EXIT_CONFIG;

	daemon_hold_descriptors();
	log_init();
	arguments_environment(&a);
	if (argc == 1) {
		arguments_misused();
	} else if (arguments_parse(&a, argc, argv) == -1) {
		r = EXIT_CONFIG;
	} else if (a.help) {
		arguments_help();
		r = EXIT_SUCCESS;
	} else if (a.version) {
		run_version();
		r = EXIT_SUCCESS;
	} else if ((why = tls_init()) != NULL) {
		log_error("%s", why);
		r = EXIT_FAILURE;
	} else if (a.names != NULL) {
		r = run_generate(a.names, a.output);
	} else if (a.key) {
		r = run_ticket_key(a.output);
	} else {
		r = a.test ? run_test(&a) : a.inetd ? run_inetd(&a) :
		    run_service(&a);
	}
	if (a.before != -1)
		r = go_back(&a);
	free(a.settings);
	return r;
}
