/*
 * tunnel: the process: main(), the ways to run, the master's loop, and the
 * master's part of an upgrade.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"
#include "carry.h"
#include "config.h"
#include "daemon.h"
#include "files.h"
#include "generation.h"
#include "handover.h"
#include "inetd.h"
#include "ktls_probe.h"
#include "listener.h"
#include "log.h"
#include "master.h"
#include "net.h"
#include "poller.h"
#include "repeats.h"
#include "secret.h"
#include "stats.h"
#include "tls.h"
#include "upgrade.h"
#include "util.h"
#include "worker.h"
#include "workers.h"

#define EXIT_CONFIG	2
#define WHY_SIZE	512		/* error text for -g, -r, -k or -p */

_Static_assert(SOCKETS_MAX == LISTENERS_MAX, "one limit");

/*
 * THE UPGRADE
 * At SIGUSR2 the program file, which may have been replaced since the start, is
 * tried with -t.  Then it takes over by execve(2) in the same process, which
 * keeps its children.  State that the new program can't find out by itself is
 * passed in a memory file.  The new program continues as at a reload: when its
 * own workers are ready, it retires the workers of the previous program.  If
 * its workers fail to start, it executes the previous program again by a
 * descriptor, with the same memory file.
 */

static void
carry_master(struct handover *x, struct master *m, struct arguments *a)
{
	upgrade_carry(x, &m->upgrade);
	handover_int(x, &m->pid, 1, INT_MAX);
	if (x->bad == NULL && m->pid != getpid())
		x->bad = "it was made for another process (a script must use "
		    "exec)";
	carry_log(x, &m->upgrade.log);
	carry_arguments(x, a);
	handover_fd(x, &m->pidfile);
	handover_text(x, &m->pidfile_name);
	handover_fd(x, &m->dispatch.waiting.fd);
	handover_number(x, &m->renew_at, 0, INT64_MAX);
	handover_number(x, &m->warn_at, 0, INT64_MAX);
	carry_stats(x, &m->stats);
	if (x->bad == NULL)
		carry_generations(x, &m->live, m->args);
	if (x->bad == NULL && x->reads && x->at != x->size)
		x->bad = "it is too long";
}

/* Execute the new program.  Return only if that fails. */
static void
hand_over(struct master *m)
{
	struct arguments a = *m->args;
	struct handover x = { .reads = 0 };

	stats_await(&m->stats);		/* never two writers at once */
	resolver_stop(&m->resolver);
	log_notice("upgrading: %s takes over", m->upgrade.path);
	daemon_notify(m->args->notify, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	carry_master(&x, m, &a);
	upgrade_exec(&m->upgrade, &x);
	handover_free(&x);
	master_notify_ready(m, "; the last upgrade failed, see the log");
}

/*
 * AFTER AN UPGRADE, in the new program, or in the previous one executed again.
 */

/* The upgrade is complete: close the descriptors for the way back. */
static void
finish_upgrade(struct master *m, struct arguments *a, struct handover *x)
{
	handover_free(x);
	close_fd(&a->state);
	close_fd(&a->before);
	if (m->upgrade.log > STDERR_FILENO)
		close(m->upgrade.log);
	m->upgrade.log = -1;
	raise(SIGCHLD);		/* a worker may have exited during execve(2) */
}

/* Exchange workers and scoreboard: the workers of was are running. */
static void
swap_workers(struct generation *g, struct generation *was)
{
	struct generation made = *g;

	g->workers = was->workers;
	g->board = was->board;
	was->workers = made.workers;
	was->board = made.board;
}

/*
 * In the previous program: load the same generation again, and give it the
 * workers, which are still serving.  If its files are gone, keep these workers,
 * but start no new ones.
 */
static void
restore_previous(struct master *m, struct arguments *a)
{
	struct generation *was = m->live, *g;

	upgrade_restore_name(&m->upgrade);
	a->restored = &was->config;
	g = generation_load(a, was, 1);
	a->restored = NULL;
	if (g == NULL || generation_listen(g, was) == -1) {
		if (g != NULL)
			listeners_close(&g->listeners, 1);
		generation_free(g);
		listeners_keep_none(&was->listeners);
		was->workers.retry_at = m->renew_at = INT64_MAX;
		log_error("no worker is started until a reload succeeds");
	} else {
		listeners_close(&was->listeners, 1);
		listeners_keep_none(&g->listeners);
		master_prepare(g);
		swap_workers(g, was);
		g->older = was->older;
		m->live = g;
		generation_free(was);
	}
	log_error("upgrade failed, keeping the running program");
	master_notify_ready(m, "; the last upgrade failed, see the log");
}

/*
 * Log why the new program's workers did not get ready.  Reap no other workers:
 * the previous program does that.
 */
static void
log_failed_workers(struct master *m, struct generation *g)
{
	const struct workers *ws = &g->workers;
	int status;
	size_t i;

	workers_signal(ws, SIGKILL);
	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0 && waitpid(ws->slots[i].pid,
		    &status, 0) != -1 && status != 0 && status != SIGKILL)
			master_worker_ended(m, g, &ws->slots[i], status);
}

/* In the new program: replace the workers, as at a reload.  -1, logged. */
static int
take_over(struct master *m)
{
	const struct generation *older = m->live->older;

	master_log_version();
	if (master_replace(m) == 0) {
		log_notice("upgraded");
		master_notify_ready(m, "");
		master_send_log(m);
		return 0;
	}
	log_restore(m->upgrade.log);
	if (m->live->older != older)
		log_failed_workers(m, m->live->older);
	return -1;
}

/* Neither program can continue: free the state that was handed over. */
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

/* Continue as the master, with the state of another program.  -1, logged. */
static int
resume(struct master *m, struct arguments *a)
{
	struct incoming *in = &m->dispatch.waiting;
	struct handover x;

	signals_catch(&m->sleep_mask);
	free(m->upgrade.path);
	m->upgrade.path = NULL;
	handover_open(&x, a->state);
	carry_master(&x, m, a);
	if (x.bad != NULL)
		log_error("the handover from the previous program is unusable: "
		    "%s", x.bad);
	else
		upgrade_close_others(&m->upgrade, &x, a->state, a->before);
	in->len = sizeof(in->sa);
	if (in->fd != -1 && getpeername(in->fd, (struct sockaddr *)&in->sa,
	    &in->len) == -1)
		dispatch_drop(&m->dispatch);
	if (x.bad == NULL && a->before == -1)
		restore_previous(m, a);
	if (x.bad == NULL && (a->before == -1 || take_over(m) == 0)) {
		finish_upgrade(m, a, &x);
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

/* mode = poll: return a slot whose worker is missing or hangs; or NULL. */
static const struct slot *
find_unresponsive(const struct master *m)
{
	const struct generation *g = m->live;
	const struct workers *ws = &g->workers;
	uint64_t now = (uint64_t)clock_ms();
	size_t i;

	if (g->config.number[MODE] != MODE_POLL)
		return NULL;
	for (i = 0; i < ws->nslots; i++) {
		const struct slot *slot = &ws->slots[i];

		if (slot->pid == 0 || now - g->board.counts[slot->row].beat >=
		    (uint64_t)m->args->watchdog)
			return slot;
	}
	return NULL;
}

/*
 * Notify systemd's watchdog, twice per WATCHDOG_USEC, unless a worker hangs or
 * is missing.  Do not check workers in fork mode: each serves one connection.
 */
static void
notify_watchdog(struct master *m)
{
	const struct slot *slot = m->stopping ? NULL : find_unresponsive(m);
	enum log_level level = m->watchdog_withheld ? LEVEL_DEBUG :
	    LEVEL_WARNING;

	m->watchdog_at = clock_ms() + m->args->watchdog / 2;
	if (slot == NULL)
		daemon_notify(m->args->notify, "WATCHDOG=1");
	else if (slot->pid == 0)
		log_at(level, "watchdog: not sending WATCHDOG=1: a worker is "
		    "missing");
	else
		log_at(level, "watchdog: not sending WATCHDOG=1: worker %d is "
		    "not responding", (int)slot->pid);
	m->watchdog_withheld = slot != NULL;
}

/* The time until something is due, in ms; -1: nothing is. */
static int
sleep_ms(const struct master *m)
{
	const struct generation *g = m->live;
	int64_t now = clock_ms(), until = INT64_MAX, due;

	if (!m->stopping)
		until = m->renew_at < m->warn_at ? m->renew_at : m->warn_at;
	if (m->args->watchdog != 0 && m->watchdog_at < until)
		until = m->watchdog_at;
	if (m->upgrade.trial != 0 && m->next == NULL &&
	    m->upgrade.until < until)
		until = m->upgrade.until;
	if (!m->stopping && (g->config.number[MODE] == MODE_POLL ?
	    !workers_are_full(&g->workers) : g->workers.retry_at > now) &&
	    g->workers.retry_at < until)
		until = g->workers.retry_at;
	if ((due = master_stats_due(m)) < until)
		until = due;
	if ((due = master_resolve_due(m)) < until)
		until = due;
	if ((due = dispatch_due(&m->dispatch, g)) < until)
		until = due;
	for (; g != NULL; g = g->older) {
		if (g->workers.deadline < until)
			until = g->workers.deadline;
		if (g->board.repeats->period.suppressed > 0 &&
		    (due = repeats_until(g->board.repeats, now)) < until)
			until = due;
	}
	return clock_timeout(now, until);
}

/* Sleep until a signal, a deadline or, in fork mode, a connection. */
static void
sleep_until_due(struct master *m)
{
	struct pollfd p[LISTENERS_MAX];
	size_t n = dispatch_poll(&m->dispatch, m->live, p);
	int ms = sleep_ms(m), ready;
	struct timespec ts = { .tv_sec = ms / 1000,
	    .tv_nsec = ms % 1000 * 1000000L };

	ready = ppoll(p, (nfds_t)n, ms == -1 ? NULL : &ts, &m->sleep_mask);
	deliver_pending_signals(&m->sleep_mask);
	if (ready > 0)
		dispatch_polled(&m->dispatch, p, n);
}

/* Replace workers that have exited, but not before retry_at. */
static void
refill(struct master *m)
{
	struct generation *g = m->live;

	if (m->stopping || g->config.number[MODE] == MODE_FORK ||
	    workers_are_full(&g->workers) ||
	    clock_ms() < g->workers.retry_at)
		return;
	master_start_workers(m, g);
	workers_release(&g->workers);
}

/* Run the master's loop until the last worker has exited. */
static void
supervise(struct master *m)
{
	struct generation *g;

	master_begin_resolving(m);
	while (!m->stopping || m->live->workers.n > 0 ||
	    m->live->older != NULL) {
		sleep_until_due(m);
		if (signal_taken(SIGCHLD))
			master_reap(m);
		dispatch_serve(&m->dispatch, m->live);
		if (signal_taken(SIGQUIT))
			master_stop(m, 1);
		if (signal_taken(SIGTERM))
			master_stop(m, m->stopping);
		if (m->next == NULL && signal_taken(SIGHUP) && !m->stopping)
			master_reload(m);
		if (signal_taken(SIGUSR1))
			master_log_statistics(m);
		if (signal_taken(SIGUSR2) && !m->stopping)
			upgrade_try(&m->upgrade, SD_LISTEN_FDS_START,
			    m->args->passed, &m->sleep_mask);
		if (!m->stopping && clock_ms() >= m->warn_at)
			master_warn_daily(m);
		if (!m->stopping && clock_ms() >= m->renew_at)
			master_renew_keys(m);
		g = m->live;
		do {
			repeats_end(g->board.repeats, 0);
			workers_kill_late(&g->workers);
		} while ((g = g->older) != NULL);
		master_free_generations(m);
		refill(m);
		master_write_stats(m);
		master_resolve(m);
		if (m->args->watchdog != 0 && clock_ms() >= m->watchdog_at)
			notify_watchdog(m);
		if (m->next == NULL && upgrade_step(&m->upgrade, m->stopping))
			hand_over(m);
	}
	repeats_end(m->live->board.repeats, 1);
	stats_end(&m->stats);
}

/*
 * THE WAYS TO RUN
 */

/* The exit status for a failed start: EXIT_FAILURE if a retry may succeed. */
static int
exit_status(int error)
{
	return error == EAGAIN || error == EADDRNOTAVAIL ||
	    error == EADDRINUSE ? EXIT_FAILURE : EXIT_CONFIG;
}

/* -i: serve one connection that is inherited. */
static int
run_inetd(struct arguments *a)
{
	struct inetd inetd = INETD_NONE;
	struct worker w = { .control = -1,
	    .all = { .turn = (size_t)getpid() } };
	struct incoming in = { .fd = -1 };
	struct generation *g;
	sigset_t sleep_mask;
	int r = EXIT_CONFIG;

	if (inetd_begin(&inetd, a) == -1)
		return EXIT_FAILURE;
	if ((g = generation_load(a, NULL, 1)) == NULL)
		return exit_status(errno);
	w.all.generation = g;
	inetd_choose(&inetd, &g->config);
	if (generation_open_log(g) == -1 || inetd_take(&inetd, &w, &in) == -1)
		goto out;
	generation_warn_of_files(g);
	generation_warn_of_certificates(g);
	daemon_release_descriptors();
	signals_catch(&sleep_mask);
	raise(SIGCHLD);		/* the relay may have exited before */
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	r = EXIT_FAILURE;
	if (g->sessions != NULL)
		tls_config_renew(g->tls);
	if (worker_init(&w, g, 0) == 0)
		r = worker_run(&w, &in, &sleep_mask);
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
	log_error("%s: pidfile: %s: %s", config_where(cfg, PIDFILE), name,
	    why);
	close(fd);
	return -1;
}

/* Start the workers, notify, and supervise.  Returns an exit status. */
static int
serve(struct master *m)
{
	int r = EXIT_SUCCESS;

	master_log_version();
	if (m->parent != -1)
		daemon_release_descriptors();
	if (master_renew_keys(m) == 0 &&
	    master_start_workers(m, m->live) == 0) {
		generation_announce(m->live, NULL);
		master_warn_daily(m);
		workers_release(&m->live->workers);
		master_notify_ready(m, "");
		if (m->parent != -1 && write(m->parent, "", 1) == 1)
			close(m->parent);
		m->parent = -1;
	} else {
		r = EXIT_FAILURE;
		m->dispatch.stopping = m->stopping = 1;
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
	    .dispatch = { .start = master_start_worker, .arg = &m,
	    .waiting = { .fd = -1 } }, .stats = { .began = clock_ms(),
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
	if ((m.live = generation_load(a, NULL, 1)) == NULL)
		return exit_status(errno);
	upgrade_init(&m.upgrade, a->argv);
	if (m.live->config.number[DAEMON] == 1 &&
	    (m.parent = daemon_background()) == -1) {
		r = EXIT_FAILURE;
		goto out;
	}
	m.pid = getpid();
	master_prepare(m.live);
	signals_catch(&m.sleep_mask);
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

/* -t: load everything, bind nothing, print the result. */
static int
run_test(const struct arguments *a)
{
	struct generation *g;

	if ((g = generation_load(a, NULL, 1)) == NULL)
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

/* -g, -r, -k or -p: write to fp.  0, or -1 with the error in text. */
static int
generate(const struct arguments *a, FILE *fp, char *text, size_t size)
{
	if (a->names != NULL)
		return tls_generate(a->names, fp, text, size);
	/* Write the key only to the file: the request may be mailed. */
	if (a->requested != NULL)
		return tls_generate_request(a->requested, fp, stdout, text,
		    size);
	if (a->identity != NULL)
		return tls_generate_psk(a->identity, fp, text, size);
	if (tls_generate_ticket_key(fp) == 0)
		return 0;
	snprintf(text, size, "%s", strerror(errno));
	return -1;
}

static int
run_generate(const struct arguments *a)
{
	FILE *fp = secret_open(a->output);
	char text[WHY_SIZE];
	int r = EXIT_SUCCESS;

	if (fp == NULL)
		return EXIT_FAILURE;
	if (generate(a, fp, text, sizeof(text)) == -1) {
		log_error("-%c: %s", a->names != NULL ? 'g' :
		    a->requested != NULL ? 'r' : a->identity != NULL ? 'p' :
		    'k', text);
		r = a->key || ferror(fp) || ferror(stdout) ? EXIT_FAILURE :
		    EXIT_CONFIG;
	}
	return secret_close(fp, a->output, r);
}

/* -V */
static void
run_version(void)
{
	struct ktls_probe kernel;
	char text[KTLS_LINE_SIZE], groups[256];

	ktls_probe(&kernel, 1);
	ktls_probe_text(&kernel, text, sizeof(text));
	tls_groups(groups, sizeof(groups));
	printf("tunnel %s (%s, %s)\n%s\ngroups: %s\n", VERSION, tls_version(),
	    poller_name, text, groups);
}

int
main(int argc, char **argv)
{
	struct arguments a = { .argv = argv };
	const char *why;
	int r = EXIT_CONFIG;

	daemon_reserve_descriptors();
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
	} else if (a.names != NULL || a.requested != NULL || a.key ||
	    a.identity != NULL) {
		r = run_generate(&a);
	} else {
		r = a.test ? run_test(&a) : a.inetd ? run_inetd(&a) :
		    run_service(&a);
	}
	if (a.before != -1)
		r = upgrade_go_back(a.state, a.before, argv);
	free(a.settings);
	return r;
}
