/* worker: a process that serves, forked by the master or by inetd(8). */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "daemon.h"
#include "forward.h"
#include "generation.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "poller.h"
#include "privileges.h"
#include "relay.h"
#include "repeats.h"
#include "sandbox.h"
#include "scoreboard.h"
#include "tls.h"
#include "util.h"
#include "worker.h"

_Static_assert(WORKER_DROP_MS == FORWARD_DROP_MS, "one value");

static const char drain_reason[] = "drain timeout";

/*
 * Accept the connections in the kernel's queues, which would be reset when the
 * listeners are closed.  Skip fd:N: its queue stays for the next process.
 */
static void
accept_last(struct worker *w)
{
	const struct listeners *ls = &w->all.generation->listeners;
	int64_t until = clock_ms() + WORKER_LAST_MS;
	size_t i;

	for (i = 0; i < ls->n; i++)
		if (ls->list[i].address != NULL)
			forward_accept_queued(w->all.engine, ls->list[i].fd,
			    until);
}

/*
 * Stop accepting.  A later call can only shorten the time limit, after which
 * connections are aborted for this reason.  is_abort: an abort follows, so do
 * not empty the queues before.
 */
static void
worker_drain(struct worker *w, int64_t ms, const char *why, int is_abort)
{
	if (!w->stopping && !is_abort &&
	    scoreboard_is_stopping(&w->all.generation->board))
		accept_last(w);
	forward_drain(w->all.engine, ms, why);
	if (w->stopping)
		return;
	w->stopping = 1;
	listeners_close(&w->all.generation->listeners, 0);
	if (w->control != -1)
		send(w->control, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
worker_receive_orders(struct worker *w)
{
	struct order o;
	int fd;

	while (w->control != -1 && control_receive(w->control, &o, &fd) == 0) {
		if (o.what == ORDER_DRAIN)
			worker_drain(w, o.ms, o.is_reload ? "reload timeout" :
			    drain_reason, 0);
		else if (o.what == ORDER_LOG)
			control_apply_log(&o, fd);
		else if (o.what == ORDER_MAKE_ROOM)
			forward_make_room(w->all.engine);
	}
}

/* Write a heartbeat, if the watchdog is used, to show that the loop runs. */
static void
worker_beat(struct worker *w)
{
	int64_t now;

	if (w->beat_every == 0)
		return;
	now = clock_ms();
	if (now >= w->beat_at) {
		w->all.counts->beat = (uint64_t)now;
		w->beat_at = now + w->beat_every;
	}
	forward_wake(w->all.engine, w->beat_at);
}

/* If the relay has lost data, abort: neither side must see an end. */
static void
check_relay(struct worker *w)
{
	const char *why = w->relay != NULL ? relay_check(w->relay) : NULL;

	if (why == NULL)
		return;
	w->relay_failed = 1;
	forward_abort_all(w->all.engine, why);
}

static void
worker_woken(void *arg)
{
	struct worker *w = arg;
	int64_t drain_ms = w->all.generation->config.number[DRAIN_TIMEOUT];

	if (signal_taken(SIGCHLD)) {
		commands_look(&w->all.commands);
		check_relay(w);
	}
	if (signal_taken(SIGUSR1))
		forward_list(w->all.engine);
	if (w->all.repeats_until != 0 && clock_ms() >= w->all.repeats_until) {
		w->all.repeats_until = 0;
		repeats_end(w->all.generation->board.repeats, 0);
	}
	if (w->all.repeats_until != 0)
		forward_wake(w->all.engine, w->all.repeats_until);
	worker_beat(w);
	if (signal_taken(SIGHUP))
		worker_receive_orders(w);
	if (signal_taken(SIGTERM))
		worker_drain(w, drain_ms, drain_reason,
		    signal_pending(SIGQUIT));
	if (signal_taken(SIGQUIT)) {
		worker_drain(w, drain_ms, drain_reason, 1);
		forward_abort_all(w->all.engine, "aborted");
	}
}

static void *
worker_accepted(void *arg, int fd, const struct sockaddr *sa, socklen_t len,
    struct stream *client)
{
	struct worker *w = arg;

	return connection_accept(&w->all, fd, sa, len, client);
}

static void
worker_accept_paused(void *arg, int error)
{
	struct worker *w = arg;

	listeners_log_pause(&w->pause_logged, error);
}

static int
worker_full(void *arg)
{
	const struct worker *w = arg;

	return scoreboard_is_full(&w->all.generation->board);
}

static int
worker_engine(struct worker *w)
{
	static const struct forward_calls calls = {
		.accepted = worker_accepted,
		.dial = connection_dial,
		.opened = connection_opened,
		.closed = connection_closed,
		.listed = connection_listed,
		.woken = worker_woken,
		.accept_paused = worker_accept_paused,
		.full = worker_full,
	};
	const struct listeners *ls = &w->all.generation->listeners;
	const int64_t *number = w->all.generation->config.number;
	struct forward_params params = {
		.calls = &calls,
		.arg = w,
		.max_connections = (unsigned)w->all.share.n,
		.open_ms = number[HANDSHAKE_TIMEOUT],
		.dial_ms = number[CONNECT_TIMEOUT],
		.idle_ms = number[IDLE_TIMEOUT],
		.half_close_ms = number[HALF_CLOSE_TIMEOUT],
		.dead_peer_ms = number[KEEPALIVE],
		.shares_listeners = w->all.share.n <
		    w->all.generation->board.max,
		.in = &w->all.counts->in,
		.out = &w->all.counts->out,
	};
	size_t i;

	if ((w->all.engine = forward_new(&params)) == NULL)
		return -1;
	for (i = 0; i < ls->n; i++)
		if (forward_listen(w->all.engine, ls->list[i].fd) == -1)
			return -1;
	return 0;
}

/*
 * Move the control channel and the listeners, in this order, above the limit of
 * descriptors.  The sandbox protects these shared sockets by their numbers, and
 * no other descriptor can get such a number.  -1 with errno.
 */
static int
move_shared_descriptors(struct worker *w, size_t slot)
{
	struct listeners *ls = &w->all.generation->listeners;
	rlim_t need = generation_descriptors(w->all.generation, slot);
	struct rlimit limit;
	size_t i;

	if (!w->has_master)
		return 0;
	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return -1;
	limit.rlim_cur = (limit.rlim_cur < need ? limit.rlim_cur : need) -
	    ls->n - 1;
	if (daemon_move_fd(&w->control, (int)limit.rlim_cur) == -1)
		return -1;
	for (i = 0; i < ls->n; i++)
		if (daemon_move_fd(&ls->list[i].fd,
		    (int)limit.rlim_cur) == -1)
			return -1;
	return setrlimit(RLIMIT_NOFILE, &limit);
}

/* Enter the sandbox.  -1 with errno. */
static int
worker_confine(const struct worker *w)
{
	const struct generation *g = w->all.generation;
	const struct target *t;
	struct sandbox box = { .log = log_fd(),
	    .control = w->control != -1 ? w->control : INT_MAX,
	    .runs_command = g->config.command != NULL,
	    .with_ktls = g->kernel.caps != 0 };
	size_t i;
	int r;

	privileges_disable_dumps();
	if ((box.ports = calloc(g->backends.n + 1, sizeof(*box.ports))) ==
	    NULL)
		return -1;
	for (i = 0; i < g->backends.n; i++) {
		t = &g->backends.list[i];
		if (t->port != 0)
			box.ports[box.nports++] = t->port;
		else
			box.with_unix = 1;
	}
	r = sandbox_enter(&box);
	free(box.ports);
	return r;
}

void
worker_lower_descriptors(struct worker *w, struct generation *g)
{
	size_t i;

	daemon_move_fd(&w->control, STDERR_FILENO + 1);
	for (i = 0; i < g->listeners.n; i++)
		daemon_move_fd(&g->listeners.list[i].fd, STDERR_FILENO + 1);
	log_lower();
}

int
worker_init(struct worker *w, struct generation *g, size_t slot)
{
	const char *why = NULL;

	w->all.generation = g;
	w->all.counts = &g->board.counts[slot];
	w->all.share.n = scoreboard_share(&g->board, slot,
	    &w->all.share.first);
	if (g->board.peers != NULL)
		w->all.share.unused = calloc(w->all.share.n,
		    sizeof(*w->all.share.unused));
	/* An own socket: shutdown(2) on it does not affect other workers. */
	if (log_fd() == -1)
		log_connect_syslog();
	if (move_shared_descriptors(w, slot) == -1)
		why = "descriptors";
	else if (g->board.peers != NULL && w->all.share.unused == NULL)
		why = "max_per_ip";
	else if (worker_engine(w) == -1)
		why = poller_name;
	else if (privileges_drop(&g->identity) == -1)
		why = "user, group, chroot";
	if (why == NULL && w->has_master)
		daemon_follow_master();
	if (why == NULL && g->config.number[SANDBOX] == 1 &&
	    worker_confine(w) == -1)
		why = "sandbox";
	if (why != NULL) {
		log_error("cannot start worker: %s: %s", why, strerror(errno));
		return -1;
	}
	if ((why = tls_forked()) != NULL) {
		log_error("cannot start worker: %s", why);
		return -1;
	}
	worker_beat(w);
	return 0;
}

int
worker_await_release(const struct worker *w)
{
	char byte;

	return write(w->control, "", 1) == 1 && read(w->control, &byte, 1) == 1;
}

/* Wait for commands that run longer than the connection: they count. */
static void
await_commands(struct worker *w, const sigset_t *sleep_mask)
{
	while (w->all.commands.running > 0 && !w->stopping) {
		ppoll(NULL, 0, NULL, sleep_mask);
		worker_woken(w);
	}
}

/* Wait for the relay.  EXIT_SUCCESS if it moved all data, to a normal end. */
static int
end_relay(struct worker *w, const sigset_t *sleep_mask)
{
	const char *why = relay_await(w->relay, sleep_mask,
	    w->all.generation->config.number[DRAIN_TIMEOUT]);

	if (why != NULL)
		log_notice("%s", why);
	return why == NULL && !w->relay_failed && w->all.last_closed ?
	    EXIT_SUCCESS : EXIT_FAILURE;
}

int
worker_run(struct worker *w, const struct incoming *in,
    const sigset_t *sleep_mask)
{
	if (in != NULL)
		forward_add(w->all.engine, in->fd,
		    (const struct sockaddr *)&in->sa, in->len);
	if (w->all.generation->listeners.n == 0)
		forward_drain(w->all.engine, 0, drain_reason);
	if (forward_run(w->all.engine, sleep_mask) == -1) {
		log_error("%s: %s", poller_name, strerror(errno));
		return EXIT_FAILURE;
	}
	if (in != NULL)
		await_commands(w, sleep_mask);
	return w->relay != NULL ? end_relay(w, sleep_mask) : EXIT_SUCCESS;
}

void
worker_free(struct worker *w)
{
	forward_free(w->all.engine);
	free(w->all.share.unused);
	commands_free(&w->all.commands);
}
