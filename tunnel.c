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

#include "arguments.h"
#include "carry.h"
#include "config.h"
#include "control.h"
#include "daemon.h"
#include "files.h"
#include "handover.h"
#include "ktls_probe.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "options.h"
#include "poller.h"
#include "privileges.h"
#include "repeats.h"
#include "sandbox.h"
#include "scoreboard.h"
#include "secret.h"
#include "generation.h"
#include "stats.h"
#include "tls.h"
#include "upgrade.h"
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

_Static_assert(SOCKETS_MAX == LISTENERS_MAX, "each is listened on");

/*
 * STATISTICS
 * The sum of what all workers count, those of older generations and those that
 * are no more as well.
 */

static const char *
stats_fault(const void *arg, const char *path)
{
	return files_fault(generation_user(arg), STATS_FILE, path);
}

static int
stats_expiry(const void *arg, size_t i, const char **file, int64_t *at)
{
	const struct generation *g = arg;

	return tls_config_expiry(g->tls, i, file, at);
}

/* Of all generations, and of workers that are no more. */
static struct stats_report
report(const struct stats *st, const struct generation *live)
{
	struct stats_report r = { .config = live->file, .version = VERSION,
	    .library = tls_version(), .sum = st->ended, .max_connections =
	    (uint64_t)live->config.number[MAX_CONNECTIONS],
	    .path = config_text(&live->config, STATS_FILE),
	    .where = config_where(&live->config, STATS_FILE),
	    .fault = stats_fault, .expiry = stats_expiry, .arg = live };
	const struct generation *g;
	size_t i;

	for (g = live; g != NULL; g = g->older) {
		const struct workers *ws = &g->workers;

		for (i = 0; i < ws->nslots; i++)
			if (ws->slots[i].pid != 0)
				stats_add(&r.sum,
				    &g->board.counts[ws->slots[i].row]);
		r.workers += ws->n;
	}
	return r;
}

static int64_t
statistics_due(const struct stats *st, const struct generation *live)
{
	return stats_due(st, live->config.given[STATS_FILE] != NULL);
}

static void
log_statistics(const struct stats *st, const struct generation *live)
{
	const struct stats_report r = report(st, live);

	stats_log(st, &r);
}

static void
write_statistics(struct stats *st, const struct generation *live)
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

struct master {
	const struct arguments *args;
	struct generation *live;	/* and behind it those that leave */
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

/*
 * In the child: let go of all that is the master's alone.  A worker has no
 * business with the keys of the others; but who their clients are is counted.
 */
static void
leave_master(const struct master *m, struct generation *g,
    const struct incoming *in)
{
	struct generation *old;

	workers_close_channels(&g->workers);
	if (m->live != g)
		listeners_close(&m->live->listeners, 0);
	listeners_keep_none(&g->listeners);
	for (old = g->older; old != NULL; old = old->older) {
		close_fd(&old->board.fd);
		workers_close_channels(&old->workers);
		workers_free(&old->workers);
		generation_close(old);
	}
	if (g->config.number[MODE] == FORK)
		listeners_close(&g->listeners, 0);
	if (in == NULL && m->waiting.fd != -1)
		close(m->waiting.fd);
	if (m->parent != -1)
		close(m->parent);
	if (m->pidfile != -1)
		close(m->pidfile);
	close_fd(&g->board.fd);
	tls_sessions_keep(g->sessions);
	upgrade_leave(&m->upgrade, m->args->state, m->args->before);
}

/* In the child: serve, and never come back. */
static void __attribute__((noreturn))
worker_main(const struct master *m, struct generation *g, size_t slot,
    const struct incoming *in, int control)
{
	struct worker w = { .has_master = 1, .control = control,
	    .all = { .turn = slot },
	    .beat_every = in == NULL ? m->args->watchdog / BEATS : 0 };
	struct incoming connection;
	int r = EXIT_FAILURE;

	log_lost_take();		/* the master tells of its own */
	signals_leave();
	leave_master(m, g, in);
	if (in != NULL) {
		connection = *in;
		in = &connection;
		daemon_move_fd(&connection.fd, STDERR_FILENO + 1);
	}
	worker_lower_descriptors(&w, g);
	if (worker_init(&w, g, slot) == 0)
		r = in != NULL || worker_await_release(&w) ?
		    worker_run(&w, in, &m->asleep) : EXIT_SUCCESS;
	worker_free(&w);
	g->board.counts[slot].unlogged = log_lost_take();
	exit(r);
}

/*
 * A worker for a slot: for a connection, which it begins to serve at once, or
 * one that waits to be released.  -1: it could not be forked, or won't be
 * ready.
 */
static int
start_worker(struct master *m, struct generation *g, size_t slot,
    const struct incoming *in)
{
	int control;
	pid_t pid = workers_fork(&g->workers, slot, in != NULL ?
	    WORKER_DROP_MS : 0, &control);

	if (pid == 0)
		worker_main(m, g, slot, in, control);
	if (pid == -1)
		return -1;
	return in != NULL ? 0 : workers_await_ready(&g->workers, slot);
}

/*
 * One in each slot that is empty.  In fork mode just one, that has nothing to
 * do, to see whether it would be able to.
 */
static int
start_workers(struct master *m, struct generation *g)
{
	size_t i, n = g->config.number[MODE] == FORK ? 1 : g->workers.nslots;

	for (i = 0; i < n; i++) {
		if (g->workers.slots[i].pid != 0 ||
		    start_worker(m, g, i, NULL) == 0)
			continue;
		if (g->workers.slots[i].pid == 0) {
			log_warning("no worker can be started: %s",
			    strerror(errno));
			workers_failed(&g->workers);
		}
		return -1;
	}
	return 0;
}

/* mode = fork: may it serve another one, if there is a slot? */
static int
may_serve(const struct master *m)
{
	return m->live->config.number[MODE] == FORK && !m->stopping &&
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
count_waiting(const struct generation *g)
{
	struct tcp_info info = { .tcpi_unacked = 0 };
	size_t i, n = 0;

	for (i = 0; i < g->listeners.n; i++) {
		socklen_t len = sizeof(info);

		if (getsockopt(g->listeners.list[i].fd, IPPROTO_TCP, TCP_INFO,
		    &info, &len) == 0)
			n += info.tcpi_unacked;
	}
	return n;
}
#else
#define count_waiting(g)	((size_t)0)
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
	struct generation *g = m->live;

	if (m->waiting.fd == -1 || !may_serve(m))
		return;
	if (workers_are_full(&g->workers)) {
		ask_for_room(m);
		return;
	}
	if (start_worker(m, g, workers_next(&g->workers), &m->waiting) ==
	    -1) {
		starve(m);
		return;
	}
	drop_waiting(m);
	if (workers_are_full(&g->workers))
		scoreboard_warn_full(&g->board, WORKER_DROP_MS);
}

/* Whoever sits there next finds it empty; what was counted is kept. */
static void
clear_slot(struct master *m, struct generation *g, struct slot *slot)
{
	volatile struct counts *counts = &g->board.counts[slot->row];
	const struct log_lost lost = counts->unlogged;

	stats_add(&m->stats.ended, counts);
	/* In fork mode, each has one line to log, at its end. */
	log_lost_add(&lost);
	m->stats.ended.lost += m->stats.ended.live;
	m->stats.ended.live = 0;
	memset((void *)counts, 0, sizeof(*counts));
	scoreboard_vacate(&g->board, slot->row);
	workers_clear(&g->workers, slot);
}

/*
 * In poll mode another one takes the place.  In fork mode none has to; but
 * what crashes again and again may be somebody's guesses at our memory, which
 * is the same in all of them: that is slowed down.
 */
static void
worker_ended(struct master *m, struct generation *g, struct slot *slot,
    int status)
{
	int is_poll = g->config.number[MODE] == POLL;
	int goes_on = g == m->live && !m->stopping && g->workers.retry_at !=
	    INT64_MAX;		/* see go_on() */
	pid_t pid = slot->pid;
	char next[TEXT_SIZE] = "";
	int64_t ms = 0;

	clear_slot(m, g, slot);
	if (goes_on && (is_poll || WIFSIGNALED(status)))
		ms = workers_failed(&g->workers);
	if (goes_on && is_poll)
		snprintf(next, sizeof(next), "; another takes its place");
	if (ms > 0)
		snprintf(next, sizeof(next), "; another %s in %lld.%lld s "
		    "(%u in a row)", is_poll ? "takes its place" :
		    "may be started", (long long)ms / 1000,
		    (long long)ms / 100 % 10, g->workers.failures);
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
	struct generation *g;
	struct slot *slot;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		stats_reaped(&m->stats, pid, status);
		if (upgrade_tried(&m->upgrade, pid, status))
			continue;
		for (g = m->live; g != NULL; g = g->older)
			if ((slot = workers_find(&g->workers, pid)) != NULL)
				worker_ended(m, g, slot, status);
	}
}

/* Those that all have left, and what the C library would keep of them. */
static void
free_generations(struct master *m)
{
	struct generation *g, **link = &m->live->older;

	while ((g = *link) != NULL) {
		if (g->workers.n == 0) {
			*link = g->older;
			repeats_end(g->board.repeats, 1);
			generation_free(g);
			heap_trim();
		} else
			link = &g->older;
	}
}

/* Workers of all generations are to log where the master does now. */
static void
tell_log(const struct master *m)
{
	const struct generation *g;
	int fd;
	struct order o = control_log_order(&fd);

	for (g = m->live; g != NULL; g = g->older)
		workers_tell_log(&g->workers, &o, fd);
}

/*
 * What the master keeps of a generation that leaves: its memory, and a slot for
 * each worker that is left.
 */
static void
let_go(struct generation *g)
{
	workers_shrink(&g->workers);
	generation_close(g);
	heap_trim();
}

static void
warn_daily(struct master *m)
{
	generation_warn_of_certificates(m->live);
	m->warn_at = clock_ms() + DAY * INT64_C(1000);
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

	if (m->live->config.number[MODE] == FORK)
		daemon_notify(to, "READY=1\nSTATUS=serving, a process for "
		    "each connection%s", but);
	else
		daemon_notify(to, "READY=1\nSTATUS=serving, %zu worker%s%s",
		    n, n == 1 ? "" : "s", but);
}

/* Take all back: listeners that are its own, and workers that never began. */
static void
give_up(struct master *m, struct generation *g)
{
	listeners_close(&g->listeners, 1);
	listeners_keep_none(&m->live->listeners);
	workers_dismiss(&g->workers);
	workers_abort(&g->workers);
	g->older = m->live->older;
	m->live->older = g;
	let_go(g);
}

/* What the master itself does for a generation. */
static void
prepare(const struct generation *g)
{
	generation_raise_limit(g);
	if (g->config.number[SANDBOX] == 1)
		privileges_disable_dumps();
}

/*
 * The keys for tickets: those of a file as they are now, or another one from
 * time to time, while the one before is good still.
 */
static int
renew_keys(struct master *m)
{
	const struct generation *g = m->live;
	const char *why;

	m->renew_at = INT64_MAX;
	if (g->sessions == NULL)
		return 0;
	if (g->config.given[TICKET_KEYS] == NULL)
		m->renew_at = clock_ms() +
		    g->config.number[TICKET_LIFETIME] / 2;
	if ((why = tls_config_renew(g->tls)) == NULL)
		return 0;
	log_error("session tickets: %s", why);
	return -1;
}

/* After a reload: keys that were made here go on, until their time is up. */
static void
take_over_keys(struct master *m, const struct generation *old)
{
	const struct generation *g = m->live;
	int64_t next = clock_ms() + g->config.number[TICKET_LIFETIME] / 2;

	if (g->config.given[TICKET_KEYS] != NULL ||
	    old->config.given[TICKET_KEYS] != NULL || old->sessions == NULL)
		renew_keys(m);
	else if (next < m->renew_at)
		m->renew_at = next;
}

/*
 * At a reload.  Those of earlier ones were told before, and are told again only
 * if it may be sooner for them now.
 */
static void
retire_all(struct generation *old, int64_t ms)
{
	workers_retire(&old->workers, ms);
	while ((old = old->older) != NULL && ms != 0)
		workers_retire(&old->workers, ms);
}

/* All that is new is made, and is ready to serve; only then the old leaves. */
static int
replace(struct master *m)
{
	struct generation *old = m->live, *g;

	if ((g = generation_load(m->args, old)) == NULL)
		return -1;
	g->older = old;
	prepare(g);
	if (generation_listen(g, old) == -1 || generation_open_log(g) == -1 ||
	    start_workers(m, g) == -1) {
		give_up(m, g);
		return -1;
	}
	generation_warn_of_fixed(g, old);
	generation_announce(g, old);
	listeners_close(&old->listeners, 1);
	listeners_tune(&g->listeners, g->config.number[KEEPALIVE]);
	listeners_keep_none(&g->listeners);
	m->live = g;
	warn_daily(m);
	m->stats.generation++;
	m->stats.write_at = 0;
	take_over_keys(m, old);
	if (g->config.number[MODE] == POLL)
		drop_waiting(m);
	workers_release(&g->workers);
	retire_all(old, g->config.number[RELOAD_TIMEOUT]);
	if (old->config.number[MODE] == POLL)
		workers_await_accept_stop(&old->workers);
	generation_announce_remaining(old);
	let_go(old);
	return 0;
}

static void
reload(struct master *m)
{
	generation_open_log(m->live);
	log_notice("reloading");
	daemon_notify(m->args->notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	if (replace(m) == 0) {
		log_notice("reloaded");
		notify_ready(m, "");
	} else {
		generation_open_log(m->live);
		log_error("not reloaded: all stays as it was");
		notify_ready(m, "; the last reload failed, see the log");
	}
	tell_log(m);
}

/* mode = fork: see accept_last(). */
static void
serve_last(struct master *m)
{
	const struct generation *g = m->live;
	int64_t until = clock_ms() + WORKER_LAST_MS;
	size_t i;

	for (i = 0; i < g->listeners.n; i++)
		while (g->listeners.list[i].address != NULL && may_serve(m) &&
		    !workers_are_full(&g->workers) && clock_ms() < until &&
		    accept_one(m, g->listeners.list[i].fd))
			serve_waiting(m);
}

static void
stop(struct master *m, int at_once)
{
	int64_t ms = m->live->config.number[DRAIN_TIMEOUT];
	struct generation *g;

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
	for (g = m->live; g != NULL; g = g->older) {
		if (at_once)
			workers_abort(&g->workers);
		else
			workers_retire(&g->workers, ms);
	}
}

/* SIGUSR1: the sum here, and each worker has its connections listed. */
static void
tell(struct master *m)
{
	const struct generation *g;

	log_statistics(&m->stats, m->live);
	m->stats.write_at = 0;
	for (g = m->live; g != NULL; g = g->older)
		workers_signal(&g->workers, SIGUSR1);
}

/*
 * THE UPGRADE
 * At SIGUSR2 the file that this program was started from, which may be another
 * by now, is tried with -t, and then takes the place of this one by execve(2).
 * It is the same process: the workers are its children still.  All that it
 * can't find out by itself is handed over in a file in memory.  To it, that is
 * the generation before a reload: its workers leave when others are ready.  If
 * these don't get there, the program before is started again by a descriptor,
 * with the same file, and goes on.
 */

static void
carry_master(struct handover *x, struct master *m, struct arguments *a)
{
	upgrade_carry(x, &m->upgrade);
	handover_int(x, &m->pid, 1, INT_MAX);
	if (x->bad == NULL && m->pid != getpid())
		x->bad = "it is another process's (a script must use exec)";
	carry_log(x, &m->upgrade.log);
	carry_arguments(x, a);
	handover_fd(x, &m->pidfile);
	handover_text(x, &m->pidfile_name);
	handover_fd(x, &m->waiting.fd);
	handover_number(x, &m->renew_at, 0, INT64_MAX);
	handover_number(x, &m->warn_at, 0, INT64_MAX);
	carry_stats(x, &m->stats);
	if (x->bad == NULL)
		carry_generations(x, &m->live, m->args);
	if (x->bad == NULL && x->reads && x->at != x->size)
		x->bad = "it is too long";
}

/* Become the new program, which finds all it needs; or else, go on. */
static void
hand_over(struct master *m)
{
	struct arguments a = *m->args;
	struct handover x = { .reads = 0 };

	stats_await(&m->stats);		/* or two would write */
	log_notice("upgrading: %s takes over", m->upgrade.path);
	daemon_notify(m->args->notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	carry_master(&x, m, &a);
	upgrade_exec(&m->upgrade, &x);
	handover_free(&x);
	notify_ready(m, "; the last upgrade failed, see the log");
}

/*
 * IN THE NEW PROGRAM, or in the one before, again.
 */

/* All that was handed over is ours now, and there is no way back. */
static void
settle(struct master *m, struct arguments *a, struct handover *x)
{
	handover_free(x);
	close_fd(&a->state);
	close_fd(&a->before);
	if (m->upgrade.log > STDERR_FILENO)
		close(m->upgrade.log);
	m->upgrade.log = -1;
	raise(SIGCHLD);		/* some may have ended meanwhile */
}

/* Others leave it here, whose workers go on in it. */
static void
take_workers(struct generation *g, struct generation *was)
{
	struct generation made = *g;

	g->workers = was->workers;
	g->board = was->board;
	was->workers = made.workers;
	was->board = made.board;
}

/*
 * The program before: the generation becomes what it was, with the workers that
 * have served all the time.  If its files are gone by now, they go on alone.
 */
static void
go_on(struct master *m, struct arguments *a)
{
	struct generation *was = m->live, *g;

	upgrade_restore_name(&m->upgrade);
	a->again = &was->config;
	g = generation_load(a, was);
	a->again = NULL;
	if (g == NULL || generation_listen(g, was) == -1) {
		if (g != NULL)
			listeners_close(&g->listeners, 1);
		generation_free(g);
		listeners_keep_none(&was->listeners);
		was->workers.retry_at = m->renew_at = INT64_MAX;
		log_error("no worker will be started before a reload is "
		    "right");
	} else {
		listeners_close(&was->listeners, 1);
		listeners_keep_none(&g->listeners);
		prepare(g);
		take_workers(g, was);
		g->older = was->older;
		m->live = g;
		generation_free(was);
	}
	log_error("not upgraded: all stays as it was");
	notify_ready(m, "; the last upgrade failed, see the log");
}

/*
 * Why its workers did not get there.  Of others, the program before has to see
 * the end by itself.
 */
static void
tell_failed(struct master *m, struct generation *g)
{
	const struct workers *ws = &g->workers;
	int status;
	size_t i;

	workers_signal(ws, SIGKILL);
	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0 && waitpid(ws->slots[i].pid,
		    &status, 0) != -1 && status != 0 && status != SIGKILL)
			worker_ended(m, g, &ws->slots[i], status);
}

/* The new program: as at a reload. */
static int
take_over(struct master *m)
{
	const struct generation *older = m->live->older;

	say_version();
	if (replace(m) == 0) {
		log_notice("upgraded");
		notify_ready(m, "");
		tell_log(m);
		return 0;
	}
	log_again(m->upgrade.log);
	if (m->live->older != older)
		tell_failed(m, m->live->older);
	return -1;
}

/* It was of no use, to the program before either. */
static void
drop_all(struct master *m)
{
	struct generation *g;

	while ((g = m->live) != NULL) {
		m->live = g->older;
		generation_free(g);
	}
	free(m->pidfile_name);
	upgrade_free(&m->upgrade, m->args->argv);
}

/* Go on as the master that another program was; -1: that is not possible. */
static int
resume(struct master *m, struct arguments *a)
{
	struct incoming *in = &m->waiting;
	struct handover x;

	signals_catch(&m->asleep);
	free(m->upgrade.path);
	m->upgrade.path = NULL;
	handover_open(&x, a->state);
	carry_master(&x, m, a);
	if (x.bad != NULL)
		log_error("what the program before has handed over is of no "
		    "use: %s", x.bad);
	else
		upgrade_close_others(&m->upgrade, &x, a->state, a->before);
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
	handover_expose(&x, 0);
	handover_free(&x);
	if (a->before == -1)
		drop_all(m);
	return -1;
}

/*
 * THE LOOP OF THE MASTER
 */

/* mode = poll: a worker that is missing, or whose loop is stuck; or NULL. */
static const struct slot *
find_lifeless(const struct master *m)
{
	const struct generation *g = m->live;
	const struct workers *ws = &g->workers;
	uint64_t now = (uint64_t)clock_ms();
	size_t i;

	for (i = 0; i < ws->nslots && g->config.number[MODE] == POLL; i++) {
		const struct slot *slot = &ws->slots[i];

		if (slot->pid == 0 || now - g->board.counts[slot->row].beat >=
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
	const struct generation *g = m->live;
	int64_t now = clock_ms(), until = INT64_MAX, due;

	if (!m->stopping)
		until = m->renew_at < m->warn_at ? m->renew_at : m->warn_at;
	if (m->args->watchdog != 0 && m->beat_at < until)
		until = m->beat_at;
	if (m->upgrade.trial != 0 && m->upgrade.until < until)
		until = m->upgrade.until;
	if (m->starved_until > now && m->starved_until < until)
		until = m->starved_until;
	if (!m->stopping && (g->config.number[MODE] == POLL ?
	    !workers_are_full(&g->workers) : g->workers.retry_at > now) &&
	    g->workers.retry_at < until)
		until = g->workers.retry_at;
	if ((due = statistics_due(&m->stats, g)) < until)
		until = due;
	if ((due = slot_from(m)) < until && (due > now || m->waiting.fd != -1))
		until = due;
	for (; g != NULL; g = g->older) {
		if (g->workers.deadline < until)
			until = g->workers.deadline;
		if (g->board.repeats->period.more > 0 &&
		    (due = repeats_until(g->board.repeats, now)) < until)
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
	const struct generation *g = m->live;
	struct pollfd p[LISTENERS_MAX];
	int ms = sleep_ms(m), ready;
	struct timespec ts = { .tv_sec = ms / 1000,
	    .tv_nsec = ms % 1000 * 1000000L };
	nfds_t i, n = 0;

	if (m->waiting.fd == -1 && slot_from(m) <= clock_ms())
		n = g->listeners.n;
	for (i = 0; i < n; i++)
		p[i] = (struct pollfd){ .events = POLLIN, .fd =
		    g->listeners.list[(m->next_listener + i) %
		    g->listeners.n].fd };
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
	struct generation *g = m->live;

	if (m->stopping || g->config.number[MODE] == FORK ||
	    workers_are_full(&g->workers) ||
	    clock_ms() < g->workers.retry_at)
		return;
	start_workers(m, g);
	workers_release(&g->workers);
}

/* Until the last worker has left. */
static void
supervise(struct master *m)
{
	struct generation *g;

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
			upgrade_try(&m->upgrade, PASSED, m->args->passed,
			    &m->asleep);
		if (!m->stopping && clock_ms() >= m->warn_at)
			warn_daily(m);
		if (!m->stopping && clock_ms() >= m->renew_at)
			renew_keys(m);
		g = m->live;
		do {
			repeats_end(g->board.repeats, 0);
			workers_kill_late(&g->workers);
		} while ((g = g->older) != NULL);
			free_generations(m);
		refill(m);
		write_statistics(&m->stats, m->live);
		if (m->args->watchdog != 0 && clock_ms() >= m->beat_at)
			beat(m);
		if (upgrade_step(&m->upgrade, m->stopping))
			hand_over(m);
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
	struct generation *g = generation_load(a, NULL);
	struct worker w = { .control = -1,
	    .all = { .turn = (size_t)getpid() } };
	struct incoming in = { .fd = -1 };
	int fd, r = EXIT_CONFIG;
	sigset_t asleep;

	if (g == NULL)
		return exit_status(errno);
	if (generation_open_log(g) == -1)
		goto out;
	fd = g->accepts.n > 0 ? g->accepts.list[0].fd : STDIN_FILENO;
	if (take_connection(&in, fd, &g->config) == -1)
		goto out;
	if (fd > STDERR_FILENO)
		close(fd);
	daemon_release_descriptors();
	signals_catch(&asleep);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	r = EXIT_FAILURE;
	if (g->sessions != NULL)
		tls_config_renew(g->tls);
	if (worker_init(&w, g, 0) == 0)
		r = worker_run(&w, &in, &asleep);
	worker_free(&w);
out:
	generation_free(g);
	return r;
}

static int
write_pidfile(struct master *m)
{
	const struct config *cfg = &m->live->config;
	const char *name = config_text(cfg, PIDFILE), *why;
	int fd;

	if (name == NULL)
		return 0;
	if ((fd = files_open(cfg, generation_user(m->live), PIDFILE, O_RDWR,
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
		generation_announce(m->live, NULL);
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
		upgrade_init(&m.upgrade, a->argv);
		if (resume(&m, a) == -1)
			return EXIT_FAILURE;
		supervise(&m);
		r = EXIT_SUCCESS;
		goto out;
	}
	if ((m.live = generation_load(a, NULL)) == NULL)
		return exit_status(errno);
	upgrade_init(&m.upgrade, a->argv);
	if (m.live->config.number[DAEMON] == 1 &&
	    (m.parent = daemon_background()) == -1) {
		r = EXIT_FAILURE;
		goto out;
	}
	m.pid = getpid();
	prepare(m.live);
	signals_catch(&m.asleep);
	if (generation_listen(m.live, NULL) == -1)
		r = exit_status(errno);
	else if (write_pidfile(&m) == 0 && generation_open_log(m.live) == 0)
		r = serve(&m);
out:
	if (m.pidfile != -1)
		unlink(m.pidfile_name);
	free(m.pidfile_name);
	upgrade_free(&m.upgrade, a->argv);
	listeners_close(&m.live->listeners, 1);
	generation_free(m.live);
	return r;
}

/* -t: all but the binding, and what came of it. */
static int
run_test(const struct arguments *a)
{
	struct generation *g;

	if ((g = generation_load(a, NULL)) == NULL)
		return exit_status(errno);
	if (!a->quiet)
		generation_print(g);
	if (!a->inetd)
		generation_warn_of_sockets(g);
	generation_warn_of_files(g);
	generation_warn_of_certificates(g);
	generation_free(g);
	if (a->state == -1 || upgrade_answer(a->state) == 0)
		return EXIT_SUCCESS;
	log_error("TUNNEL_STATE: %s", strerror(errno));
	return EXIT_FAILURE;
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
		r = upgrade_go_back(a.state, a.before, argv);
	free(a.settings);
	return r;
}
