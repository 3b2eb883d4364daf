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
#include "carry.h"
#include "command.h"
#include "config.h"
#include "control.h"
#include "daemon.h"
#include "files.h"
#include "forward.h"
#include "handover.h"
#include "ktls_probe.h"
#include "listener.h"
#include "log.h"
#include "net.h"
#include "options.h"
#include "peer.h"
#include "poller.h"
#include "privileges.h"
#include "proxy.h"
#include "repeats.h"
#include "sandbox.h"
#include "scoreboard.h"
#include "service.h"
#include "stats.h"
#include "stream.h"
#include "tls.h"
#include "upgrade.h"
#include "util.h"
#include "workers.h"

#ifndef VERSION
#define VERSION		"0"
#endif

#define EXIT_CONFIG	2
#define LOG_SIZE	2048
#define TEXT_SIZE	512
#define BURST		32		/* connections that use memory */
#define STARVED_EVERY	10		/* seconds between two complaints */
#define ASK_EVERY_MS	20		/* workers to make room, and up to */
#define ASK_AT_ONCE	16		/* as many */
#define DAY		(24 * 60 * 60)
#define LAST_MS		1000		/* to accept what waits at a stop */
_Static_assert(SOCKETS_MAX == LISTENERS_MAX, "each is listened on");

/*
 * THE SERVICE
 * A configuration put to work by the master, and the processes that serve.
 */

/* A process that serves. */
struct worker {
	struct service *service;
	int	 has_master;		/* not so with -i */
	int	 line;			/* to the master; or -1 */
	struct forward *engine;
	volatile struct counts *counts;
	struct share share;
	size_t	 turn;			/* round robin over connects */
	struct commands commands;
	uint64_t peak;			/* of live connections; see trim() */
	char	 why[TEXT_SIZE];	/* the last dial failed */
	int	 stopping;
	time_t	 complained;		/* of want of resources */
	int64_t	 repeats_until;		/* when to log repeats; 0: never */
	int64_t	 beat_every;		/* ms, to show that it is alive, or */
	int64_t	 beat_at;		/* 0: nobody wants to know */
};

/* One connection, as the engine's callbacks see it. */
struct session {
	struct worker *worker;
	struct tls *tls;		/* NULL: before TLS */
	int	 fd;			/* the client's */
	int	 dialed;
	char	*peer;			/* its address, as text, */
	uint64_t key;			/* and as that; see peer_key() */
	struct endpoints *ends;		/* as a balancer has told, or NULL */
	struct proxy *proxy;		/* its header, or the service's */
	volatile uint64_t *place;	/* among service->places, or NULL */
	int	 over;			/* there was none: max_per_ip */
	size_t	 turn;			/* the target it began with */
	size_t	 tried;			/* addresses, over all targets */
	struct target *target;		/* the one being tried, */
	size_t	 which;			/* and which address of it */
	struct command *command;
};

/*
 * A client's path must not look like several words of the log.  -1: there is
 * no memory for it.
 */
static int
set_peer(struct session *ss, const struct address *a)
{
	char *text = strdup(a->text), *blank = text;

	if (text == NULL)
		return -1;
	while ((blank = strchr(blank, ' ')) != NULL)
		*blank = '_';
	free(ss->peer);
	ss->peer = text;
	return 0;
}

/* Nothing, as long as there is no TLS. */
static void
session_agreed(const struct session *ss, struct tls_conninfo *a)
{
	*a = (struct tls_conninfo){ .resumed = 0 };
	if (ss->tls != NULL)
		tls_conninfo(ss->tls, a);
}

static int
is_tls13(const struct tls_conninfo *a)
{
	return a->version != NULL && strcmp(a->version, "TLSv1.3") == 0;
}

/*
 * COMMANDS
 */

/* Start the command of a session; -1: the reason is given. */
static int
session_command(struct session *ss, struct stream *backend)
{
	struct worker *w = ss->worker;
	const struct command_params params = {
		.argv = w->service->cfg.command,
		.peer = ss->peer,
		.files = w->service->files,
		.core = w->service->core,
		.max = w->share.n,
		.header = ss->proxy != NULL ? ss->proxy->data : NULL,
		.nheader = ss->proxy != NULL ? ss->proxy->len : 0,
		/* An abort that waits already must not end in our handler. */
		.reset_signals = signals_reset,
	};

	ss->command = command_start(&w->commands, &params, backend, w->why,
	    sizeof(w->why));
	return ss->command != NULL ? 0 : -1;
}

/*
 * THE PROXY PROTOCOL
 * Told to the service as part of opening it, and taken from a balancer as part
 * of opening the client's.
 */

/* Both ends of the client's connection, as far as they are known. */
static void
find_endpoints(const struct session *ss, struct endpoints *ends)
{
	if (ss->ends != NULL)
		*ends = *ss->ends;
	else
		net_endpoints(ss->fd, ends);
}

/* The header for a session's service, if it is to have one; -1: no memory. */
static int
session_header(struct session *ss)
{
	int version = (int)ss->worker->service->cfg.number[PROXY_PROTOCOL];
	struct tls_conninfo a;
	struct endpoints ends;

	if (version == PROXY_OFF)
		return 0;
	if (ss->proxy == NULL &&
	    (ss->proxy = malloc(sizeof(*ss->proxy))) == NULL)
		return -1;
	find_endpoints(ss, &ends);
	session_agreed(ss, &a);
	proxy_make(ss->proxy, version, &ends, &(struct proxy_tls){
	    .version = a.version, .cipher = a.cipher, .alpn = a.alpn,
	    .name = a.name, .client = a.common_name,
	    .has_client = a.client != NULL, .resumed = a.resumed });
	return 0;
}

static void
session_free_header(struct session *ss)
{
	free(ss->proxy);
	ss->proxy = NULL;
}

/* A service is open once it has been told who the client is. */
static int
backend_open(struct stream *s)
{
	struct session *ss = s->ctx;
	int r = stream_plain_open(s);

	if (r == 0 && ss->proxy != NULL)
		r = proxy_write(ss->proxy, s);
	if (r == 0)
		session_free_header(ss);
	return r;
}

static const struct stream_ops backend_ops = {
	.open = backend_open,
	.read = stream_plain_read,
	.write = stream_plain_write,
	.finish = stream_plain_finish,
	.refuse = stream_reset,
	.failed = stream_plain_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = stream_plain_error,
};

/* Why a session can't go on; STREAM_ERROR. */
static int __attribute__((format(printf, 2, 3)))
connection_fail(struct session *ss, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ss->worker->why, sizeof(ss->worker->why), fmt, ap);
	va_end(ap);
	return STREAM_ERROR;
}

static const char *
proxied_error(const struct stream *s)
{
	const struct session *ss = s->ctx;

	return ss->worker->why;
}

/* The client is who a balancer says; 0, or STREAM_ERROR. */
static int
session_told(struct session *ss, const struct endpoints *ends)
{
	struct address from = { .sa = ends->from.any,
	    .len = sizeof(from.sa) };
	char was[ADDRESS_SIZE];

	if ((ss->ends = malloc(sizeof(*ends))) == NULL)
		return connection_fail(ss, "out of memory");
	*ss->ends = *ends;
	net_normalize(&from);
	ss->key = peer_key(&from.sa);
	snprintf(was, sizeof(was), "%s", ss->peer);
	if (set_peer(ss, &from) == -1)
		return connection_fail(ss, "out of memory");
	log_debug("%s is %s", was, ss->peer);
	return 0;
}

/*
 * THE ENGINE'S CALLBACKS
 */

/*
 * May a line be logged that says why a client was not served?  It was counted
 * if not.
 */
static int
may_log(struct worker *w, enum log_level level, uint64_t key,
    const char *reason)
{
	struct repeats *r = w->service->board.repeats;

	if (repeats_may_log(r, level, key, reason))
		return 1;
	w->repeats_until = repeats_until(r, clock_ms());
	forward_wake(w->engine, w->repeats_until);
	return 0;
}

/*
 * As many connections an address may have of this generation.  All are counted,
 * as the next one may have a limit where this one has none.  Those that it
 * still has of the generations before take part; these have few new ones, which
 * were accepted before the reload and tell their address only now.
 */
static uint64_t
may_have(const struct service *sv, uint64_t key)
{
	uint64_t max = (uint64_t)sv->cfg.number[MAX_PER_IP], n = 0;
	struct service *old;

	if (max == 0)
		return UINT64_MAX;
	for (old = sv->older; old != NULL; old = old->older)
		n += scoreboard_count(&old->board, key);
	return n < max ? max - n : 0;
}

/* May one more connection come from its address? */
static int
session_admit(struct session *ss)
{
	struct worker *w = ss->worker;

	if (scoreboard_enter(&w->service->board, &w->share, ss->key,
	    may_have(w->service, ss->key), &ss->place) == 0)
		return 0;
	ss->over = 1;
	w->counts->over++;
	if (may_log(w, LEVEL_INFO, ss->key, options[MAX_PER_IP].name))
		log_info("%s refused: its address has %lld connections "
		    "already (max_per_ip)", ss->peer,
		    (long long)w->service->cfg.number[MAX_PER_IP]);
	return -1;
}

/* What a balancer has in front of TLS comes first. */
static int
proxied_open(struct stream *s)
{
	struct session *ss = s->ctx;
	struct worker *w = ss->worker;
	struct endpoints ends;
	int r = proxy_read(ss->proxy, ss->fd, &ends, w->why, sizeof(w->why));

	if (r != 0)
		return r;
	session_free_header(ss);
	if (ends.from.any.ss_family != AF_UNSPEC &&
	    session_told(ss, &ends) != 0)
		return STREAM_ERROR;
	if (session_admit(ss) == -1)
		return connection_fail(ss, "max_per_ip");
	ss->tls = tls_new(w->service->tls, ss->fd, s);
	return ss->tls != NULL ? s->ops->open(s) :
	    connection_fail(ss, "out of memory");
}

static const struct stream_ops proxied_ops = {
	.open = proxied_open,
	.read = stream_plain_read,
	.write = stream_plain_write,
	.finish = stream_plain_finish,
	.refuse = stream_reset,
	.failed = stream_plain_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = proxied_error,
};

/* Has its client's stream a beginning?  -1: there is no memory for one. */
static int
session_begin(struct session *ss, struct stream *client)
{
	struct worker *w = ss->worker;

	if (w->service->cfg.number[ACCEPT_PROXY] == 0) {
		ss->tls = tls_new(w->service->tls, ss->fd, client);
		return ss->tls != NULL ? 0 : -1;
	}
	client->ops = &proxied_ops;
	client->ctx = ss;
	ss->proxy = calloc(1, sizeof(*ss->proxy));
	return ss->proxy != NULL ? 0 : -1;
}

static void *
session_accepted(void *arg, int fd, const struct sockaddr *sa, socklen_t len,
    struct stream *client)
{
	struct address peer = { .len = 0 };
	struct worker *w = arg;
	struct session *ss;

	memcpy(&peer.sa, sa, len);
	peer.len = len;
	net_normalize(&peer);
	w->counts->accepted++;
	if ((ss = calloc(1, sizeof(*ss))) == NULL)
		goto err;
	ss->worker = w;
	ss->fd = fd;
	ss->key = peer_key(&peer.sa);
	ss->turn = w->turn++;
	if (set_peer(ss, &peer) == -1)
		goto err;
	if (w->service->cfg.number[ACCEPT_PROXY] == 0 &&
	    session_admit(ss) == -1) {
		free(ss->peer);
		free(ss);
		return NULL;
	}
	if (session_begin(ss, client) == -1)
		goto err;
	if (++w->counts->live > w->peak)
		w->peak = w->counts->live;
	log_debug("%s accepted", ss->peer);
	if (w->service->listeners.n > 0 && w->counts->live == w->share.n &&
	    scoreboard_is_full(&w->service->board))
		scoreboard_warn_full(&w->service->board, FORWARD_DROP_MS);
	return ss;
err:
	if (may_log(w, LEVEL_WARNING, peer_key(&peer.sa), "out of memory"))
		log_warning("a connection was turned away: out of memory");
	w->counts->lost++;
	if (ss != NULL) {
		scoreboard_leave(&w->service->board, &w->share, ss->key,
		    ss->place);
		free(ss->peer);
	}
	free(ss);
	return NULL;
}

/* The next address to try; NULL when all have been. */
static const struct address *
next_address(struct session *ss)
{
	const struct targets *all = &ss->worker->service->connects;
	size_t i, n = ss->tried++;

	for (i = 0; i < all->n; i++) {
		struct target *t = &all->list[(ss->turn + i) % all->n];

		if (n < t->n) {
			ss->target = t;
			ss->which = (n == 0 ? t->first : ss->which + 1) % t->n;
			return &t->addrs[ss->which];
		}
		n -= t->n;
	}
	return NULL;
}

/* Remember what did not open, and begin with another one next time. */
static void
dial_failed(struct session *ss, const char *why)
{
	struct worker *w = ss->worker;
	struct target *t = ss->target;

	snprintf(w->why, sizeof(w->why), "%s: %s", t->addrs[ss->which].text,
	    why);
	if (may_log(w, LEVEL_INFO, ss->key, w->why))
		log_info("%s -> %s", ss->peer, w->why);
	t->first = (ss->which + 1) % t->n;
}

static int
session_dial(void *conn, struct stream *backend, const char *failed,
    const char **why)
{
	struct session *ss = conn;
	const int64_t *number = ss->worker->service->cfg.number;
	const struct address *to;
	struct tls_conninfo a;

	*why = ss->worker->why;
	if (!ss->dialed) {
		session_agreed(ss, &a);
		ss->worker->counts->opened[is_tls13(&a)]++;
		net_acknowledge(ss->fd);
	}
	ss->dialed = 1;
	if (session_header(ss) == -1) {
		connection_fail(ss, "out of memory");
		return -1;
	}
	if (ss->worker->service->cfg.command != NULL) {
		if (failed == NULL)
			return session_command(ss, backend);
		connection_fail(ss, "%s", failed);
		return -1;
	}
	if (failed != NULL)
		dial_failed(ss, failed);
	while ((to = next_address(ss)) != NULL) {
		*backend = (struct stream){ .ops = &backend_ops,
		    .ctx = ss, .fd = net_dial(to, number[KEEPALIVE]) };
		if (backend->fd != -1)
			return 0;
		dial_failed(ss, net_dial_error(errno));
	}
	return -1;
}

static void __attribute__((format(printf, 4, 5)))
append(char *text, size_t size, size_t *n, const char *fmt, ...)
{
	va_list ap;

	if (*n >= size)
		return;
	va_start(ap, fmt);
	*n += (size_t)vsnprintf(text + *n, size - *n, fmt, ap);
	va_end(ap);
}

/* What client and tunnel have agreed upon, a blank before each word. */
static void
agreed_text(const struct session *ss, char *text, size_t size)
{
	struct tls_conninfo a;
	size_t n = 0;

	session_agreed(ss, &a);
	text[0] = '\0';
	if (a.version != NULL)
		append(text, size, &n, " %s %s", a.version, a.cipher);
	if (a.group != NULL)
		append(text, size, &n, " %s", a.group);
	if (a.in_kernel)
		append(text, size, &n, " ktls");
	if (a.resumed)
		append(text, size, &n, " resumed");
	if (a.name != NULL)
		append(text, size, &n, " sni=%s", *a.name != '\0' ? a.name :
		    "(invalid)");
	if (a.alpn != NULL)
		append(text, size, &n, " alpn=%s", a.alpn);
	if (a.client != NULL)
		append(text, size, &n, " client=\"%s\"", a.client);
}

/* The line of a connection, at its end or meanwhile. */
static void
session_say(const struct session *ss, enum log_level level, const char *what,
    const struct forward_end *end)
{
	const char *to = "-";
	char agreed[LOG_SIZE / 2];

	if (ss->command != NULL)
		to = ss->worker->service->cfg.command[0];
	else if (end->served)
		to = ss->target->addrs[ss->which].text;
	agreed_text(ss, agreed, sizeof(agreed));
	log_at(level, "%s%s -> %s%s in=%llu out=%llu %lld.%03ds %s", what,
	    ss->peer, to, agreed, (unsigned long long)end->in,
	    (unsigned long long)end->out, (long long)(end->ms / 1000),
	    (int)(end->ms % 1000), end->reason);
}

/* The same, unless it was not served, as many others were not. */
static void
session_say_why(const struct session *ss, enum log_level level,
    const struct forward_end *end)
{
	if (may_log(ss->worker, level, ss->key, end->reason))
		session_say(ss, level, "", end);
}

static void
session_listed(void *conn, const struct forward_end *how)
{
	session_say(conn, LEVEL_NOTICE, "live: ", how);
}

/* Has the client said anything? */
static int
session_heard(const struct session *ss)
{
	return ss->tls != NULL ? tls_heard(ss->tls) : ss->proxy != NULL &&
	    ss->proxy->done > 0;
}

/*
 * What a burst of connections has used would be kept by the C library: it is
 * given back whenever half of them have gone.
 */
static void
trim(struct worker *w)
{
	if (w->peak < BURST || w->counts->live > w->peak / 2)
		return;
	malloc_trim(0);
	w->peak = w->counts->live;
}

/* A client that says nothing, and stays, is one of another protocol. */
static void
session_silent(const struct session *ss, const struct forward_end *end)
{
	struct forward_end why = *end;

	if (strcmp(end->reason, "handshake timeout") != 0) {
		session_say(ss, LEVEL_DEBUG, "", end);
		return;
	}
	why.reason = "handshake timeout: the client sent nothing (it may wait "
	    "for a greeting: this port expects TLS at once)";
	session_say_why(ss, LEVEL_NOTICE, &why);
}

/* Of a reason in the log, what it begins with: statistics have few of them. */
static const struct {
	const char *begins;
	enum failure failure;
} failures[] = {
	{ "handshake timeout", FAILED_TIMEOUT },
	{ "not TLS", FAILED_NOT_TLS },
	{ "no client certificate", FAILED_CERTIFICATE },
	{ "client certificate", FAILED_CERTIFICATE },
	{ "no certificate for the name", FAILED_NAME },
	{ "no server name", FAILED_NAME },
	{ "no PROXY header", FAILED_PROXY },
	{ "bad PROXY header", FAILED_PROXY },
	{ "handshake: the client sent a fatal alert", FAILED_ALERT },
	{ "handshake: no ", FAILED_NOTHING_IN_COMMON },
	{ "closed by the client", FAILED_CLOSED },
	{ "client reset", FAILED_CLOSED },
};

static enum failure
failure_of(const char *reason)
{
	size_t i;

	for (i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		if (strncmp(reason, failures[i].begins,
		    strlen(failures[i].begins)) == 0)
			return failures[i].failure;
	return FAILED_OTHERWISE;
}

static void
session_closed(void *conn, const struct forward_end *end)
{
	struct session *ss = conn;
	struct worker *w = ss->worker;
	volatile struct counts *n = w->counts;
	struct tls_conninfo a;

	session_agreed(ss, &a);
	n->live--;
	if (end->served) {
		n->served++;
		n->resumed += (uint64_t)a.resumed;
		session_say(ss, LEVEL_INFO, "", end);
	} else if (ss->dialed) {
		n->no_backend++;
		session_say_why(ss, LEVEL_WARNING, end);
	} else if (end->dropped) {
		n->dropped++;
		session_say_why(ss, LEVEL_NOTICE, end);
	} else if (ss->over) {
		session_say(ss, LEVEL_DEBUG, "", end);
	} else if (session_heard(ss)) {
		n->refused[failure_of(end->reason)]++;
		session_say_why(ss, LEVEL_NOTICE, end);
	} else {
		n->silent++;
		session_silent(ss, end);
	}
	if (ss->command != NULL)
		command_leave(&w->commands, ss->command);
	scoreboard_leave(&w->service->board, &w->share, ss->key, ss->place);
	tls_free(ss->tls);
	session_free_header(ss);
	free(ss->ends);
	free(ss->peer);
	free(ss);
	trim(w);
}

static void
complain(time_t *complained, int error)
{
	time_t now = time(NULL);

	if (now - *complained < STARVED_EVERY)
		return;
	*complained = now;
	log_warning("accepting pauses: %s", strerror(error));
}

static void
worker_starved(void *arg, int error)
{
	struct worker *w = arg;

	complain(&w->complained, error);
}

static int
worker_full(void *arg)
{
	const struct worker *w = arg;

	return scoreboard_is_full(&w->service->board);
}

/*
 * A WORKER
 * What serves, in a process of its own: forked by the master, or by inetd.
 */

/* A connection that was there before its process. */
struct incoming {
	int	 fd;
	struct sockaddr_storage sa;
	socklen_t len;
};

/*
 * What the kernel has accepted already would be reset as its listener closes.
 * Who has passed a listener keeps it, and its queue, for the next one to serve.
 */
static void
accept_last(struct worker *w)
{
	const struct listeners *ls = &w->service->listeners;
	int64_t until = clock_ms() + LAST_MS;
	size_t i;

	for (i = 0; i < ls->n; i++)
		if (ls->list[i].address != NULL)
			forward_empty(w->engine, ls->list[i].fd, until);
}

/* A later call may bring the end forward. */
static void
worker_drain(struct worker *w, int64_t ms, int is_cut)
{
	if (!w->stopping && scoreboard_stops(&w->service->board) && !is_cut)
		accept_last(w);
	forward_drain(w->engine, ms);
	if (w->stopping)
		return;
	w->stopping = 1;
	listeners_close(&w->service->listeners, 0);
	if (w->line != -1)
		send(w->line, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
worker_obey(struct worker *w)
{
	struct order o;
	int fd;

	while (w->line != -1 && control_receive(w->line, &o, &fd) == 0) {
		if (o.what == ORDER_DRAIN)
			worker_drain(w, o.ms, 0);
		else if (o.what == ORDER_LOG)
			control_obey_log(&o, fd);
		else if (o.what == ORDER_MAKE_ROOM)
			forward_make_room(w->engine);
	}
}

/* Show the master that this loop goes round, if it has to know. */
static void
worker_beat(struct worker *w)
{
	int64_t now;

	if (w->beat_every == 0)
		return;
	now = clock_ms();
	if (now >= w->beat_at) {
		w->counts->beat = (uint64_t)now;
		w->beat_at = now + w->beat_every;
	}
	forward_wake(w->engine, w->beat_at);
}

static void
worker_woken(void *arg)
{
	struct worker *w = arg;
	int64_t drain_ms = w->service->cfg.number[DRAIN_TIMEOUT];

	if (signal_taken(SIGCHLD))
		commands_look(&w->commands);
	if (signal_taken(SIGUSR1))
		forward_list(w->engine);
	if (w->repeats_until != 0 && clock_ms() >= w->repeats_until) {
		w->repeats_until = 0;
		repeats_end(w->service->board.repeats, 0);
	}
	if (w->repeats_until != 0)
		forward_wake(w->engine, w->repeats_until);
	worker_beat(w);
	if (signal_taken(SIGHUP))
		worker_obey(w);
	if (signal_taken(SIGTERM))
		worker_drain(w, drain_ms, signal_has_come(SIGQUIT));
	if (signal_taken(SIGQUIT)) {
		worker_drain(w, drain_ms, 1);
		forward_abort_all(w->engine);
	}
}

static int
worker_engine(struct worker *w)
{
	static const struct forward_calls calls = {
		.accepted = session_accepted,
		.dial = session_dial,
		.closed = session_closed,
		.listed = session_listed,
		.woken = worker_woken,
		.starved = worker_starved,
		.full = worker_full,
	};
	const struct listeners *ls = &w->service->listeners;
	const int64_t *number = w->service->cfg.number;
	struct forward_params params = {
		.calls = &calls,
		.arg = w,
		.max_connections = (unsigned)w->share.n,
		.open_ms = number[HANDSHAKE_TIMEOUT],
		.dial_ms = number[CONNECT_TIMEOUT],
		.idle_ms = number[IDLE_TIMEOUT],
		.half_close_ms = number[LINGER_TIMEOUT],
		.answer_ms = number[KEEPALIVE],
		.in = &w->counts->in,
		.out = &w->counts->out,
	};
	size_t i;

	if ((w->engine = forward_new(&params)) == NULL)
		return -1;
	for (i = 0; i < ls->n; i++)
		if (forward_listen(w->engine, ls->list[i].fd) == -1)
			return -1;
	return 0;
}

/*
 * All workers and the master have the same listeners, and it is by number that
 * the sandbox keeps a worker from changing them, and knows its line.  Past the
 * limit, no other descriptor will ever have that number, whatever is closed.
 * The line comes first.  -1 with errno.
 */
static int
set_apart(struct worker *w, size_t slot)
{
	struct listeners *ls = &w->service->listeners;
	rlim_t need = service_descriptors(w->service, slot);
	struct rlimit limit;
	size_t i;

	if (!w->has_master)
		return 0;
	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return -1;
	limit.rlim_cur = (limit.rlim_cur < need ? limit.rlim_cur : need) -
	    ls->n - 1;
	if (daemon_move_fd(&w->line, (int)limit.rlim_cur) == -1)
		return -1;
	for (i = 0; i < ls->n; i++)
		if (daemon_move_fd(&ls->list[i].fd,
		    (int)limit.rlim_cur) == -1)
			return -1;
	return setrlimit(RLIMIT_NOFILE, &limit);
}

/* Into the sandbox, with what is needed there.  -1 with errno. */
static int
worker_confine(const struct worker *w)
{
	const struct service *sv = w->service;
	const struct target *t;
	struct sandbox box = { .log = log_fd(),
	    .control = w->line != -1 ? w->line : INT_MAX,
	    .runs_command = sv->cfg.command != NULL,
	    .with_ktls = sv->kernel.caps != 0 };
	in_port_t port;
	size_t i, j;
	int r;

	privileges_disable_dumps();
	if ((box.ports = calloc(sv->connects.n + 1, sizeof(t->addrs) /
	    sizeof(t->addrs[0]) * sizeof(*box.ports))) == NULL)
		return -1;
	for (j = 0; j < sv->connects.n; j++) {
		t = &sv->connects.list[j];
		box.with_unix |= t->addrs[0].sa.ss_family == AF_UNIX;
		for (i = 0; i < t->n; i++)
			if ((port = net_address_port(&t->addrs[i])) != 0)
				box.ports[box.nports++] = port;
	}
	r = sandbox_enter(&box);
	free(box.ports);
	return r;
}

/* Become a worker that is fit for the network; -1 after one sentence. */
static int
worker_init(struct worker *w, struct service *sv, size_t slot)
{
	const char *why = NULL;

	w->service = sv;
	w->counts = &sv->board.counts[slot];
	w->share.n = scoreboard_share(&sv->board, slot, &w->share.first);
	if (sv->board.peers != NULL)
		w->share.unused = calloc(w->share.n,
		    sizeof(*w->share.unused));
	/* A socket of its own: the others' can't be shut down through it. */
	if (log_fd() == -1)
		log_connect_syslog();
	if (set_apart(w, slot) == -1)
		why = "descriptors";
	else if (sv->board.peers != NULL && w->share.unused == NULL)
		why = "max_per_ip";
	else if (worker_engine(w) == -1)
		why = poller_name;
	else if (privileges_drop(&sv->identity) == -1)
		why = "user, group, chroot";
	if (why == NULL && w->has_master)
		daemon_follow_master();
	if (why == NULL && sv->cfg.number[SANDBOX] == 1 &&
	    worker_confine(w) == -1)
		why = "sandbox";
	if (why != NULL) {
		log_error("%s: %s", why, strerror(errno));
		return -1;
	}
	if ((why = tls_forked()) != NULL) {
		log_error("%s", why);
		return -1;
	}
	worker_beat(w);
	return 0;
}

/* A command that outlives the connection of its process still counts. */
static void
await_commands(struct worker *w, const sigset_t *asleep)
{
	while (w->commands.running > 0 && !w->stopping) {
		ppoll(NULL, 0, NULL, asleep);
		worker_woken(w);
	}
}

/* Serve one connection, or all that come; an exit status. */
static int
worker_run(struct worker *w, const struct incoming *in, const sigset_t *asleep)
{
	if (in != NULL)
		forward_add(w->engine, in->fd,
		    (const struct sockaddr *)&in->sa, in->len);
	if (w->service->listeners.n == 0)
		forward_drain(w->engine, 0);
	if (forward_run(w->engine, asleep) == -1) {
		log_error("%s: %s", poller_name, strerror(errno));
		return EXIT_FAILURE;
	}
	if (in != NULL)
		await_commands(w, asleep);
	return EXIT_SUCCESS;
}

static void
worker_free(struct worker *w)
{
	forward_free(w->engine);
	free(w->share.unused);
	commands_free(&w->commands);
}

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

/* It is ready.  May it begin?  Not if the others can't. */
static int
may_begin(int line)
{
	char byte;

	return write(line, "", 1) == 1 && read(line, &byte, 1) == 1;
}


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
	upgrade_leave(&m->upgrade, m->args->state, m->args->before);
}

/*
 * In the child: among the lines of a master with many workers, the numbers of
 * those that it keeps may be past its own limit, or the first one past it.
 */
static void
lower_descriptors(struct worker *w, struct service *sv)
{
	size_t i;

	daemon_move_fd(&w->line, STDERR_FILENO + 1);
	for (i = 0; i < sv->listeners.n; i++)
		daemon_move_fd(&sv->listeners.list[i].fd, STDERR_FILENO + 1);
	log_lower();
}

/* In the child: serve, and never come back. */
static void __attribute__((noreturn))
worker_main(const struct master *m, struct service *sv, size_t slot,
    const struct incoming *in, int line)
{
	struct worker w = { .has_master = 1, .line = line, .turn = slot,
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
	lower_descriptors(&w, sv);
	if (worker_init(&w, sv, slot) == 0)
		r = in != NULL || may_begin(w.line) ?
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
	    FORWARD_DROP_MS : 0, &control);

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
		slot->drop_at = now + FORWARD_DROP_MS;
		workers_tell(slot, &o, -1);
	}
}

static void
starve(struct master *m)
{
	complain(&m->complained, errno);
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
		scoreboard_warn_full(&sv->board, FORWARD_DROP_MS);
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
		for (sv = upgrade_tried(&m->upgrade, pid, status) ? NULL : m->live;
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
	int64_t until = clock_ms() + LAST_MS;
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
		carry_services(x, &m->live, m->args);
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
	log_again(m->upgrade.log);
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
			upgrade_try(&m->upgrade, PASSED, m->args->passed,
			    &m->asleep);
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
	struct service *sv = service_new(a, NULL);
	struct worker w = { .line = -1, .turn = (size_t)getpid() };
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
		upgrade_init(&m.upgrade, a->argv);
		if (resume(&m, a) == -1)
			return EXIT_FAILURE;
		supervise(&m);
		r = EXIT_SUCCESS;
		goto out;
	}
	if ((m.live = service_new(a, NULL)) == NULL)
		return exit_status(errno);
	upgrade_init(&m.upgrade, a->argv);
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
	upgrade_free(&m.upgrade, a->argv);
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
		r = upgrade_go_back(a.state, a.before, argv);
	free(a.settings);
	return r;
}
