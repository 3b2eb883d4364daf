/* master: the process with privileges, listeners and workers. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arguments.h"
#include "control.h"
#include "daemon.h"
#include "files.h"
#include "generation.h"
#include "log.h"
#include "master.h"
#include "privileges.h"
#include "repeats.h"
#include "tls.h"
#include "util.h"
#include "worker.h"

#define NEXT_SIZE	512		/* clause about the next worker */
#define DAY		(24 * 60 * 60)	/* seconds */

static const char *
stats_fault(const void *arg, const char *path)
{
	return files_fault(generation_user(arg), STATS_FILE, path);
}

static int
stats_expiry(const void *arg, size_t i, const char **file, int64_t *at)
{
	const struct generation *g = arg;

	/* No tls after a failed upgrade, if the files are gone. */
	return g->tls != NULL ? tls_config_expiry(g->tls, i, file, at) : -1;
}

/* Sum up all generations, and workers that have exited. */
static struct stats_report
report(const struct stats *st, const struct generation *live)
{
	struct stats_report r = { .config = live->file, .version = VERSION,
	    .is_client = config_is_client(&live->config),
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

int64_t
master_stats_due(const struct master *m)
{
	return stats_due(&m->stats,
	    m->live->config.given[STATS_FILE] != NULL);
}

void
master_write_stats(struct master *m)
{
	struct stats_report r;

	if (clock_ms() < master_stats_due(m))
		return;
	r = report(&m->stats, m->live);
	stats_step(&m->stats, &r);
}

/*
 * In the child: close and free the master's state.  Of older generations, keep
 * only the counts of connections by address, but no keys.
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
	if (m->resolver.child != 0)
		close(m->resolver.fd);
	generation_free(m->next);
	resolver_leave(&g->names);
	for (old = g->older; old != NULL; old = old->older) {
		close_fd(&old->board.fd);
		workers_close_channels(&old->workers);
		workers_free(&old->workers);
		generation_close(old);
	}
	if (g->config.number[MODE] == MODE_FORK)
		listeners_close(&g->listeners, 0);
	if (in == NULL && m->dispatch.waiting.fd != -1)
		close(m->dispatch.waiting.fd);
	if (m->parent != -1)
		close(m->parent);
	if (m->pidfile != -1)
		close(m->pidfile);
	close_fd(&g->board.fd);
	tls_sessions_close_fd(g->sessions);
	upgrade_leave(&m->upgrade, m->args->state, m->args->before);
}

/* In the child: serve, then exit. */
static void __attribute__((noreturn))
worker_main(const struct master *m, struct generation *g, size_t slot,
    const struct incoming *in, int control)
{
	struct worker w = { .has_master = 1, .control = control,
	    .all = { .turn = slot },
	    .beat_every = in == NULL ? m->args->watchdog / BEATS : 0 };
	struct incoming connection;
	int r = EXIT_FAILURE;

	log_lost_take();		/* the master reports its own */
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
		    worker_run(&w, in, &m->sleep_mask) : EXIT_SUCCESS;
	worker_free(&w);
	g->board.counts[slot].unlogged = log_lost_take();
	exit(r);
}

int
master_start_worker(void *master, struct generation *g, size_t slot,
    const struct incoming *in)
{
	struct master *m = master;
	int control;
	pid_t pid = workers_fork(&g->workers, slot, in != NULL ?
	    WORKER_DROP_MS : 0, &control);

	if (pid == 0)
		worker_main(m, g, slot, in, control);
	if (pid == -1)
		return -1;
	return in != NULL ? 0 : workers_await_ready(&g->workers, slot);
}

int
master_start_workers(struct master *m, struct generation *g)
{
	size_t i, n = g->config.number[MODE] == MODE_FORK ? 1 :
	    g->workers.nslots;

	for (i = 0; i < n; i++) {
		if (g->workers.slots[i].pid != 0 ||
		    master_start_worker(m, g, i, NULL) == 0)
			continue;
		if (g->workers.slots[i].pid == 0) {
			log_warning("cannot start worker: %s",
			    strerror(errno));
			workers_failed(&g->workers);
		}
		return -1;
	}
	return 0;
}

/* Free a slot and its row, and add the counts to the totals. */
static void
clear_slot(struct master *m, struct generation *g, struct slot *slot)
{
	volatile struct counts *counts = &g->board.counts[slot->row];
	const struct log_lost lost = counts->unlogged;

	stats_add(&m->stats.ended, counts);
	/* In fork mode, the only line of a worker may be among them. */
	log_lost_add(&lost);
	m->stats.ended.lost += m->stats.ended.live;
	m->stats.ended.live = 0;
	memset((void *)counts, 0, sizeof(*counts));
	scoreboard_vacate(&g->board, slot->row);
	workers_clear(&g->workers, slot);
}

/*
 * In poll mode, start another worker.  In fork mode, none is needed, but back
 * off after crashes: they may be an attacker's guesses at the memory layout,
 * which is the same in all workers.
 */
void
master_worker_ended(struct master *m, struct generation *g, struct slot *slot,
    int status)
{
	int is_poll = g->config.number[MODE] == MODE_POLL;
	/* INT64_MAX after a failed upgrade: only a reload starts workers. */
	int goes_on = g == m->live && !m->stopping && g->workers.retry_at !=
	    INT64_MAX;
	pid_t pid = slot->pid;
	char next[NEXT_SIZE] = "";
	int64_t ms = 0;

	clear_slot(m, g, slot);
	if (goes_on && (is_poll || WIFSIGNALED(status)))
		ms = workers_failed(&g->workers);
	if (goes_on && is_poll)
		snprintf(next, sizeof(next), "; starting another one");
	if (ms > 0)
		snprintf(next, sizeof(next), "; %s in %lld.%lld s "
		    "(%u failures in a row)", is_poll ?
		    "starting another one" : "the next one can start",
		    (long long)ms / 1000, (long long)ms / 100 % 10,
		    g->workers.failures);
	if (WIFSIGNALED(status))
		log_warning("worker %d was killed by signal %d (%s)%s",
		    (int)pid, WTERMSIG(status), strsignal(WTERMSIG(status)),
		    next);
	else if (WEXITSTATUS(status) != 0)
		log_warning("worker %d exited with status %d%s", (int)pid,
		    WEXITSTATUS(status), next);
	else
		log_debug("worker %d exited%s", (int)pid, next);
}

void
master_free_generations(struct master *m)
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

void
master_send_log(const struct master *m)
{
	const struct generation *g;
	int fd;
	struct order o = control_log_order(&fd);

	for (g = m->live; g != NULL; g = g->older)
		workers_send_log(&g->workers, &o, fd);
}

/*
 * Free most of a retired generation.  Keep the shared memory, and a slot for
 * each worker that is still running.
 */
static void
release_memory(struct generation *g)
{
	workers_shrink(&g->workers);
	generation_close(g);
	heap_trim();
}

void
master_warn_daily(struct master *m)
{
	generation_warn_of_certificates(m->live);
	m->warn_at = clock_ms() + DAY * INT64_C(1000);
}

void
master_log_version(void)
{
	log_notice("tunnel %s, %s", VERSION, tls_version());
}

void
master_notify_ready(const struct master *m, const char *but)
{
	size_t n = m->live->workers.nslots;
	const char *to = m->args->notify;

	if (m->live->config.number[MODE] == MODE_FORK)
		daemon_notify(to, "READY=1\nSTATUS=serving, one process per "
		    "connection%s", but);
	else
		daemon_notify(to, "READY=1\nSTATUS=serving, %zu worker%s%s",
		    n, n == 1 ? "" : "s", but);
}

/* Undo a failed reload: close new listeners, end unreleased workers. */
static void
undo_load(struct master *m, struct generation *g)
{
	listeners_close(&g->listeners, 1);
	listeners_keep_none(&m->live->listeners);
	workers_dismiss(&g->workers);
	workers_abort(&g->workers);
	g->older = m->live->older;
	m->live->older = g;
	release_memory(g);
}

void
master_prepare(const struct generation *g)
{
	generation_raise_limit(g);
	if (g->config.number[SANDBOX] == 1)
		privileges_disable_dumps();
}

int
master_renew_keys(struct master *m)
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

/*
 * After a reload: keep generated ticket keys until they expire.  Take them now,
 * as they may have been renewed since the reload began.
 */
static void
take_over_keys(struct master *m, const struct generation *old)
{
	const struct generation *g = m->live;
	int64_t next = clock_ms() + g->config.number[TICKET_LIFETIME] / 2;

	if (g->sessions != NULL && old->sessions != NULL &&
	    g->sessions != old->sessions)
		tls_sessions_adopt(g->sessions, old->sessions);
	if (g->config.given[TICKET_KEYS] != NULL ||
	    old->config.given[TICKET_KEYS] != NULL || old->sessions == NULL)
		master_renew_keys(m);
	else if (next < m->renew_at)
		m->renew_at = next;
}

/*
 * At a reload: retire the previous workers.  Retire those of earlier
 * generations again if there is now a limit, which may end them sooner.
 */
static void
retire_all(struct generation *old, int64_t ms)
{
	workers_retire(&old->workers, ms, 1);
	while ((old = old->older) != NULL && ms != 0)
		workers_retire(&old->workers, ms, 1);
}

/* Replace the live generation by one that is loaded.  -1, having logged why. */
static int
replace_by(struct master *m, struct generation *g)
{
	struct generation *old = m->live;

	master_prepare(g);
	if (generation_listen(g, old) == -1 || generation_open_log(g) == -1 ||
	    master_start_workers(m, g) == -1) {
		undo_load(m, g);
		return -1;
	}
	generation_warn_of_fixed(g, old);
	generation_announce(g, old);
	listeners_close(&old->listeners, 1);
	listeners_tune(&g->listeners, g->config.number[KEEPALIVE]);
	listeners_keep_none(&g->listeners);
	m->live = g;
	master_warn_daily(m);
	m->stats.generation++;
	m->stats.write_at = 0;
	take_over_keys(m, old);
	if (g->config.number[MODE] == MODE_POLL)
		dispatch_drop(&m->dispatch);
	workers_release(&g->workers);
	retire_all(old, g->config.number[RELOAD_TIMEOUT]);
	if (old->config.number[MODE] == MODE_POLL)
		workers_await_accept_stop(&old->workers);
	generation_announce_remaining(old);
	release_memory(old);
	return 0;
}

int
master_replace(struct master *m)
{
	struct generation *g = generation_load(m->args, m->live, 1);

	return g != NULL ? replace_by(m, g) : -1;
}

void
master_begin_resolving(struct master *m)
{
	int64_t every = m->live->config.number[RESOLVE_INTERVAL];

	m->resolve_at = every == 0 || m->live->names.n == 0 || m->stopping ?
	    INT64_MAX : clock_ms() + every;
}

static void
end_reload(struct master *m, int is_done)
{
	if (is_done) {
		log_notice("reloaded");
		master_notify_ready(m, "");
	} else {
		generation_open_log(m->live);
		log_error("reload failed, keeping the running configuration");
		master_notify_ready(m, "; the last reload failed, see the log");
	}
	master_send_log(m);
	master_begin_resolving(m);
}

/* Continue a reload after the lookup of its names. */
static void
continue_reload(struct master *m)
{
	struct generation *g = m->next;

	m->next = NULL;
	if (m->names_failed > 0)
		generation_free(g);
	end_reload(m, m->names_failed == 0 && replace_by(m, g) == 0);
}

/* Start the lookup of the next name of next or live, or finish. */
static void
look_up_next(struct master *m)
{
	struct generation *g = m->next != NULL ? m->next : m->live;
	struct target *t;

	while ((t = generation_name(g, m->name_index, m->next != NULL)) !=
	    NULL) {
		if (generation_start_lookup(g, t, &m->resolver) == 0)
			return;
		m->names_failed++;
		m->name_index++;
	}
	if (m->next != NULL)
		continue_reload(m);
	else
		master_begin_resolving(m);
}

/* Take the result of a lookup, and start the next one. */
static void
end_lookup(struct master *m)
{
	struct generation *g = m->next != NULL ? m->next : m->live;
	struct target *t = generation_name(g, m->name_index++, 1);

	if (generation_end_lookup(g, t, &m->resolver) == -1)
		m->names_failed++;
	look_up_next(m);
}

void
master_reload(struct master *m)
{
	struct generation *g;

	generation_open_log(m->live);
	log_notice("reloading");
	daemon_notify(m->args->notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	if ((g = generation_load(m->args, m->live, 0)) == NULL) {
		end_reload(m, 0);
		return;
	}
	resolver_stop(&m->resolver);
	m->next = g;
	m->name_index = 0;
	m->names_failed = 0;
	look_up_next(m);
}

void
master_reap(struct master *m)
{
	struct generation *g;
	struct slot *slot;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		stats_reaped(&m->stats, pid, status);
		if (pid == m->resolver.child) {
			end_lookup(m);
			continue;
		}
		if (upgrade_reaped(&m->upgrade, pid, status))
			continue;
		for (g = m->live; g != NULL; g = g->older)
			if ((slot = workers_find(&g->workers, pid)) != NULL)
				master_worker_ended(m, g, slot, status);
	}
}

int64_t
master_resolve_due(const struct master *m)
{
	return m->resolver.child != 0 ? m->resolver.kill_at : m->resolve_at;
}

void
master_resolve(struct master *m)
{
	if (clock_ms() < master_resolve_due(m))
		return;
	if (m->resolver.child != 0) {
		resolver_kill(&m->resolver);
		return;
	}
	m->name_index = 0;
	look_up_next(m);
}

void
master_end_resolving(struct master *m)
{
	resolver_stop(&m->resolver);
	generation_free(m->next);
	m->next = NULL;
	m->resolve_at = INT64_MAX;
}

void
master_stop(struct master *m, int at_once)
{
	int64_t ms = m->live->config.number[DRAIN_TIMEOUT];
	struct generation *g;

	log_notice(at_once ? "shutting down: aborting connections" :
	    "shutting down: draining connections");
	daemon_notify(m->args->notify, "STOPPING=1");
	master_end_resolving(m);
	dispatch_serve(&m->dispatch, m->live);
	if (!at_once)
		dispatch_serve_last(&m->dispatch, m->live);
	scoreboard_stop(&m->live->board);
	listeners_close(&m->live->listeners, 1);
	dispatch_drop(&m->dispatch);
	m->dispatch.stopping = m->stopping = 1;
	for (g = m->live; g != NULL; g = g->older) {
		if (at_once)
			workers_abort(&g->workers);
		else
			workers_retire(&g->workers, ms, 0);
	}
}

void
master_log_statistics(struct master *m)
{
	const struct stats_report r = report(&m->stats, m->live);
	const struct generation *g;

	stats_log(&m->stats, &r);
	m->stats.write_at = 0;
	for (g = m->live; g != NULL; g = g->older)
		workers_signal(&g->workers, SIGUSR1);
}
