/*
 * connection: the callbacks of the engine for one connection: admit it, open
 * the client's stream, dial the backend, log its line.
 *
 * Opening the backend's stream includes sending a PROXY header.  Opening the
 * client's stream includes reading one from a load balancer.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "daemon.h"
#include "forward.h"
#include "generation.h"
#include "log.h"
#include "net.h"
#include "options.h"
#include "peer.h"
#include "proxy.h"
#include "repeats.h"
#include "resolver.h"
#include "stats.h"
#include "stream.h"
#include "tls.h"
#include "util.h"

#define CONNINFO_SIZE	1024		/* negotiated values as text */
#define QUOTED_SIZE	(4 * 255 + 12)	/* an identity in the log */
#define TRIM_THRESHOLD	32		/* connections; fewer: no trim() */

struct connection {
	struct connections *all;
	struct tls *tls;		/* the present one; or NULL */
	int	 fd;			/* the client's */
	int	 dialed;
	int	 handshake_failed;	/* client = yes: the last one failed, */
	enum failure failure;		/* for this reason */
	char	*peer;			/* the client's address as text */
	uint64_t key;			/* the client's peer_key() */
	struct endpoints *ends;		/* from a PROXY header; or NULL */
	struct proxy *proxy;		/* header in, later out; or NULL */
	volatile uint64_t *place;	/* in the scoreboard; or NULL */
	int	 over_limit;		/* refused by max_per_ip */
	size_t	 turn;			/* the index of the first target */
	size_t	 tried;			/* targets, with the present one */
	const struct target *target;	/* the present one; or NULL */
	struct addresses *to;		/* the target's, held; or NULL */
	unsigned left;			/* addresses still to be tried */
	unsigned which;			/* the present address */
	struct command *command;
};

/*
 * Set the address for the log.  Replace blanks in a Unix socket's path: log
 * lines consist of words.  -1: out of memory.
 */
static int
set_peer(struct connection *c, const struct address *a)
{
	char *text = strdup(a->text), *blank = text;

	if (text == NULL)
		return -1;
	while ((blank = strchr(blank, ' ')) != NULL)
		*blank = '_';
	free(c->peer);
	c->peer = text;
	return 0;
}

/* The negotiated values; all zeros before there is TLS. */
static void
connection_conninfo(const struct connection *c, struct tls_conninfo *a)
{
	*a = (struct tls_conninfo){ .resumed = 0 };
	if (c->tls != NULL)
		tls_conninfo(c->tls, a);
}

static int
is_tls13(const struct tls_conninfo *a)
{
	return a->version != NULL && strcmp(a->version, "TLSv1.3") == 0;
}

/* Start the command of a connection; -1 with the reason in all->why. */
static int
connection_command(struct connection *c, struct stream *backend)
{
	struct connections *all = c->all;
	const struct command_params params = {
		.argv = all->generation->config.command,
		.peer = c->peer,
		.root = all->generation->identity.root,
		.files = all->generation->files,
		.core = all->generation->core,
		.max = all->share.n,
		.header = c->proxy != NULL ? c->proxy->data : NULL,
		.nheader = c->proxy != NULL ? c->proxy->len : 0,
		/* Or our handler would swallow a SIGTERM before execve(2). */
		.reset_signals = signals_reset,
	};

	c->command = command_start(&all->commands, &params, backend, all->why,
	    sizeof(all->why));
	return c->command != NULL ? 0 : -1;
}

/* The endpoints of the client's connection, as far as they are known. */
static void
find_endpoints(const struct connection *c, struct endpoints *ends)
{
	if (c->ends != NULL)
		*ends = *c->ends;
	else
		net_endpoints(c->fd, ends);
}

/* Make the PROXY header for the backend, if configured.  -1: out of memory. */
static int
connection_header(struct connection *c)
{
	int version = (int)c->all->generation->config.number[PROXY_PROTOCOL];
	struct tls_conninfo a;
	struct endpoints ends;

	if (version == PROXY_OFF)
		return 0;
	if (c->proxy == NULL &&
	    (c->proxy = malloc(sizeof(*c->proxy))) == NULL)
		return -1;
	find_endpoints(c, &ends);
	connection_conninfo(c, &a);
	proxy_make(c->proxy, version, &ends, &(struct proxy_tls){
	    .version = a.version, .cipher = a.cipher, .alpn = a.alpn,
	    .name = a.name, .client = a.common_name,
	    .has_client = a.peer != NULL, .resumed = a.resumed });
	return 0;
}

static void
connection_free_header(struct connection *c)
{
	free(c->proxy);
	c->proxy = NULL;
}

static int
is_client(const struct connection *c)
{
	return config_is_client(&c->all->generation->config);
}

/* client = yes: start TLS on the stream to the backend. */
static int
backend_secure(struct connection *c, struct stream *s)
{
	const struct generation *g = c->all->generation;
	char host[HOST_SIZE];

	c->tls = tls_new(g->tls, s->fd, generation_server_name(g, c->target,
	    host), s);
	if (c->tls == NULL) {
		s->err = ENOMEM;
		return STREAM_ERROR;
	}
	/* No RST needed: the server detects an end without close_notify. */
	stream_no_reset(s);
	return STREAM_CONNECTED;
}

/* Open a backend's stream: connect(2), the PROXY header, TLS if a client. */
static int
backend_open(struct stream *s)
{
	struct connection *c = s->ctx;
	int r = stream_plain_open(s);

	if (r == 0 && c->proxy != NULL)
		r = proxy_write(c->proxy, s);
	if (r != 0)
		return r;
	connection_free_header(c);
	return is_client(c) ? backend_secure(c, s) : 0;
}

static const struct stream_ops backend_ops = {
	.open = backend_open,
	.read = stream_plain_read,
	.write = stream_plain_write,
	.finish = stream_plain_finish,
	.failed = stream_plain_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = stream_plain_error,
};

/* Set the error of a connection.  Returns STREAM_ERROR. */
static int __attribute__((format(printf, 2, 3)))
connection_fail(struct connection *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->all->why, sizeof(c->all->why), fmt, ap);
	va_end(ap);
	return STREAM_ERROR;
}

static const char *
proxied_error(const struct stream *s)
{
	const struct connection *c = s->ctx;

	return c->all->why;
}

/* Use the client's address of a PROXY header.  0, or STREAM_ERROR. */
static int
connection_set_proxied(struct connection *c, const struct endpoints *ends)
{
	struct address from = { .sa = ends->from.any,
	    .len = sizeof(from.sa) };
	char was[ADDRESS_SIZE];

	if ((c->ends = malloc(sizeof(*ends))) == NULL)
		return connection_fail(c, "out of memory");
	*c->ends = *ends;
	net_normalize(&from);
	c->key = peer_key(&from.sa);
	snprintf(was, sizeof(was), "%s", c->peer);
	if (set_peer(c, &from) == -1)
		return connection_fail(c, "out of memory");
	log_debug("%s: PROXY header from client %s", was, c->peer);
	return 0;
}

/*
 * Return 1 if an error of this client may be logged.  Otherwise it has been
 * counted as a repeat, and is reported later.
 */
static int
may_log(struct connections *all, enum log_level level, uint64_t key,
    const char *reason)
{
	struct repeats *r = all->generation->board.repeats;

	if (repeats_may_log(r, level, key, reason))
		return 1;
	all->repeats_until = repeats_until(r, clock_ms());
	forward_wake(all->engine, all->repeats_until);
	return 0;
}

/*
 * The maximum number of connections of this generation for an address.  Count
 * addresses even without a limit, as the next generation may have one.  Include
 * the connections of older generations.  These get few new ones: only those
 * accepted before the reload, with a PROXY header that arrives after it.
 */
static uint64_t
max_for_address(const struct generation *g, uint64_t key)
{
	uint64_t max = (uint64_t)g->config.number[MAX_PER_IP], n = 0;
	struct generation *old;

	if (max == 0)
		return UINT64_MAX;
	for (old = g->older; old != NULL; old = old->older)
		n += scoreboard_count(&old->board, key);
	return n < max ? max - n : 0;
}

/* Admit the connection, or refuse it by max_per_ip.  0, or -1, logged. */
static int
connection_admit(struct connection *c)
{
	struct connections *all = c->all;

	if (scoreboard_enter(&all->generation->board, &all->share, c->key,
	    max_for_address(all->generation, c->key), &c->place) == 0)
		return 0;
	c->over_limit = 1;
	all->counts->over_limit++;
	if (may_log(all, LEVEL_INFO, c->key, options[MAX_PER_IP].name))
		log_info("%s refused: its address already has %lld connections "
		    "(max_per_ip)", c->peer,
		    (long long)all->generation->config.number[MAX_PER_IP]);
	return -1;
}

/* Fill in the client's stream after a PROXY header.  -1: out of memory. */
static int
connection_begin(struct connection *c, struct stream *client)
{
	if (!is_client(c)) {
		c->tls = tls_new(c->all->generation->tls, c->fd, NULL, client);
		return c->tls != NULL ? 0 : -1;
	}
	client->ops = &stream_plain;
	client->ctx = NULL;
	return 0;
}

/* Read the PROXY header, then open the client's stream. */
static int
proxied_open(struct stream *s)
{
	struct connection *c = s->ctx;
	struct connections *all = c->all;
	struct endpoints ends;
	int r = proxy_read(c->proxy, c->fd, &ends, all->why, sizeof(all->why));

	if (r != 0)
		return r;
	connection_free_header(c);
	if (ends.from.any.ss_family != AF_UNSPEC &&
	    connection_set_proxied(c, &ends) != 0)
		return STREAM_ERROR;
	if (connection_admit(c) == -1)
		return connection_fail(c, "max_per_ip reached");
	return connection_begin(c, s) == 0 ? s->ops->open(s) :
	    connection_fail(c, "out of memory");
}

static const struct stream_ops proxied_ops = {
	.open = proxied_open,
	.read = stream_plain_read,
	.write = stream_plain_write,
	.finish = stream_plain_finish,
	.failed = stream_plain_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = stream_plain_pending,
	.error = proxied_error,
};

/* Fill in the client's stream, to read a PROXY header first if configured. */
static int
connection_stream(struct connection *c, struct stream *client)
{
	if (c->all->generation->config.number[ACCEPT_PROXY] == 0)
		return connection_begin(c, client);
	client->ops = &proxied_ops;
	client->ctx = c;
	c->proxy = calloc(1, sizeof(*c->proxy));
	return c->proxy != NULL ? 0 : -1;
}

void *
connection_accept(struct connections *all, int fd, const struct sockaddr *sa,
    socklen_t len, struct stream *client)
{
	struct address peer = { .len = 0 };
	struct connection *c;

	memcpy(&peer.sa, sa, len);
	peer.len = len;
	net_normalize(&peer);
	all->counts->accepted++;
	/*
	 * A plain stream has no alert for a refusal, nor for an abort if this
	 * process is killed: until the end is sent, make each close a reset.
	 */
	client->fd = fd;
	if (config_is_client(&all->generation->config))
		stream_reset(client);
	if ((c = calloc(1, sizeof(*c))) == NULL)
		goto err;
	c->all = all;
	c->fd = fd;
	c->key = peer_key(&peer.sa);
	c->turn = all->turn++;
	if (set_peer(c, &peer) == -1)
		goto err;
	if (all->generation->config.number[ACCEPT_PROXY] == 0 &&
	    connection_admit(c) == -1) {
		free(c->peer);
		free(c);
		return NULL;
	}
	if (connection_stream(c, client) == -1)
		goto err;
	if (++all->counts->live > all->peak)
		all->peak = all->counts->live;
	log_debug("%s accepted", c->peer);
	if (all->generation->listeners.n > 0 &&
	    all->counts->live == all->share.n &&
	    scoreboard_is_full(&all->generation->board))
		generation_warn_full(all->generation, FORWARD_DROP_MS);
	return c;
err:
	if (may_log(all, LEVEL_WARNING, peer_key(&peer.sa), "out of memory"))
		log_warning("connection refused: out of memory");
	all->counts->lost++;
	if (c != NULL) {
		scoreboard_leave(&all->generation->board, &all->share, c->key,
		    c->place);
		free(c->peer);
	}
	free(c);
	return NULL;
}

/* Take the next target, with its present addresses.  0: no more targets. */
static int
next_target(struct connection *c)
{
	const struct generation *g = c->all->generation;
	struct target *t;

	if (c->tried == g->backends.n)
		return 0;
	t = &g->backends.list[(c->turn + c->tried++) % g->backends.n];
	c->target = t;
	resolver_refresh(&g->names, t);
	net_release(c->to);
	c->to = net_hold(t->to);
	c->which = (unsigned)c->to->first;
	c->left = (unsigned)c->to->n;
	return 1;
}

/*
 * Return the next address to try; NULL after the last one.  If a name has new
 * addresses by now, only connections that have not yet begun with its addresses
 * use them.
 */
static const struct address *
next_address(struct connection *c)
{
	if (c->left > 0)
		c->which = (c->which + 1) % (unsigned)c->to->n;
	else if (!next_target(c))
		return NULL;
	c->left--;
	return &c->to->list[c->which];
}

/*
 * Handle the failure of an address.  Other connections start with the next.
 * Return the level for a log line, which is due if another address is tried.
 */
static enum log_level
dial_failed(struct connection *c, const char *why)
{
	struct connections *all = c->all;
	enum log_level level;

	c->handshake_failed = is_client(c) && c->tls != NULL;
	c->failure = stats_failure(why);
	level = c->handshake_failed && tls_is_refused(c->tls) ? LEVEL_WARNING :
	    LEVEL_INFO;
	snprintf(all->why, sizeof(all->why), "%s: %s",
	    c->to->list[c->which].text, why);
	if (c->handshake_failed) {
		tls_failed(c->tls);
		tls_free(c->tls);
		c->tls = NULL;
	}
	c->to->first = (c->which + 1) % c->to->n;
	return level;
}

/* Count a completed handshake. */
static void
count_handshake(struct connection *c)
{
	struct tls_conninfo a;

	connection_conninfo(c, &a);
	c->all->counts->opened[is_tls13(&a)]++;
}

int
connection_dial(void *conn, struct stream *backend, const char *failed,
    const char **why)
{
	struct connection *c = conn;
	const int64_t *number = c->all->generation->config.number;
	char *const *command = c->all->generation->config.command;
	const struct address *to;
	enum log_level level = LEVEL_DEBUG;
	int has_failed = failed != NULL && command == NULL;

	*why = c->all->why;
	if (!c->dialed && !is_client(c)) {
		count_handshake(c);
		net_acknowledge(c->fd);
	}
	c->dialed = 1;
	if (has_failed)
		level = dial_failed(c, failed);
	if (connection_header(c) == -1) {
		connection_fail(c, "out of memory");
		return -1;
	}
	if (command != NULL) {
		if (failed == NULL)
			return connection_command(c, backend);
		connection_fail(c, "%s", failed);
		return -1;
	}
	while ((to = next_address(c)) != NULL) {
		if (has_failed && may_log(c->all, level, c->key, *why))
			log_at(level, "%s -> %s", c->peer, *why);
		*backend = (struct stream){ .ops = &backend_ops,
		    .ctx = c, .fd = net_dial(to, number[KEEPALIVE]) };
		if (backend->fd != -1)
			return 0;
		level = dial_failed(c, net_dial_error(errno));
		has_failed = 1;
	}
	return -1;
}

void
connection_opened(void *conn)
{
	if (is_client(conn))
		count_handshake(conn);
}

/* The negotiated values as text, with a blank before each word. */
static void
conninfo_text(const struct connection *c, char *out, size_t size)
{
	struct tls_conninfo a;
	struct text text = { .p = out, .size = size };
	char name[QUOTED_SIZE];

	connection_conninfo(c, &a);
	out[0] = '\0';
	if (a.version != NULL)
		text_add(&text, " %s %s", a.version, a.cipher);
	if (a.group != NULL)
		text_add(&text, " %s", a.group);
	if (a.in_kernel)
		text_add(&text, " ktls");
	if (a.resumed)
		text_add(&text, " resumed");
	if (a.name != NULL)
		text_add(&text, " sni=%s", *a.name != '\0' ? a.name :
		    "(invalid)");
	if (a.alpn != NULL)
		text_add(&text, " alpn=%s", a.alpn);
	if (a.psk != NULL) {
		text_quote(name, sizeof(name), (const unsigned char *)a.psk,
		    strlen(a.psk));
		text_add(&text, " psk=%s", strpbrk(a.psk, " \"\\") != NULL ?
		    name : a.psk);
	}
	if (a.peer != NULL)
		text_add(&text, " %s=\"%s\"", is_client(c) ? "server" :
		    "client", a.peer);
}

/* Log the line of a connection, at its end or for SIGUSR1. */
static void
connection_log(const struct connection *c, enum log_level level,
    const char *what, const struct forward_end *end)
{
	const char *to = "-";
	char negotiated[CONNINFO_SIZE];

	if (c->command != NULL)
		to = c->all->generation->config.command[0];
	else if (end->served)
		to = c->to->list[c->which].text;
	conninfo_text(c, negotiated, sizeof(negotiated));
	log_at(level, "%s%s -> %s%s in=%llu out=%llu %lld.%03ds %s", what,
	    c->peer, to, negotiated, (unsigned long long)end->in,
	    (unsigned long long)end->out, (long long)(end->ms / 1000),
	    (int)(end->ms % 1000), end->reason);
}

/* Log the line of a connection, or count it as a repeat. */
static void
connection_log_why(const struct connection *c, enum log_level level,
    const struct forward_end *end)
{
	if (may_log(c->all, level, c->key, end->reason))
		connection_log(c, level, "", end);
}

void
connection_listed(void *conn, const struct forward_end *how)
{
	connection_log(conn, LEVEL_NOTICE, "live: ", how);
}

/* 1 if the client has sent anything. */
static int
has_sent_bytes(const struct connection *c)
{
	return c->tls != NULL ? tls_heard(c->tls) : c->proxy != NULL &&
	    c->proxy->done > 0;
}

/*
 * Return memory to the kernel whenever half of the connections have ended: the
 * C library would keep the memory of a burst.
 */
static void
trim(struct connections *all)
{
	if (all->peak < TRIM_THRESHOLD || all->counts->live > all->peak / 2)
		return;
	heap_trim();
	all->peak = all->counts->live;
}

/*
 * Log a client that has sent nothing.  If it stayed connected, it may use
 * another protocol; otherwise it may be a health check.
 */
static void
log_silent_client(const struct connection *c, const struct forward_end *end)
{
	struct forward_end why = *end;

	if (strcmp(end->reason, "handshake timeout") != 0) {
		connection_log(c, LEVEL_DEBUG, "", end);
		return;
	}
	why.reason = c->all->generation->config.number[ACCEPT_PROXY] == 0 ?
	    "handshake timeout: the client sent nothing (this port expects TLS "
	    "at once; the client may be waiting for a greeting)" :
	    "handshake timeout: the client sent nothing (this port expects a "
	    "PROXY header)";
	connection_log_why(c, LEVEL_NOTICE, &why);
}

/* Count and log a connection without a backend, or whose client has left. */
static void
log_unserved(const struct connection *c, const struct forward_end *end)
{
	volatile struct counts *n = c->all->counts;
	int is_left = strncmp(end->reason, "no backend", 10) != 0;

	if (is_client(c) && is_left)
		n->refused[stats_failure(end->reason)]++;
	else if (c->handshake_failed)
		n->refused[c->failure]++;
	else
		n->no_backend++;
	connection_log_why(c, is_client(c) && is_left ? LEVEL_NOTICE :
	    LEVEL_WARNING, end);
}

void
connection_closed(void *conn, const struct forward_end *end)
{
	struct connection *c = conn;
	struct connections *all = c->all;
	volatile struct counts *n = all->counts;
	struct tls_conninfo a;

	connection_conninfo(c, &a);
	all->last_closed = strcmp(end->reason, "closed") == 0;
	n->live--;
	if (end->served) {
		n->served++;
		n->resumed += (uint64_t)a.resumed;
		connection_log(c, LEVEL_INFO, "", end);
	} else if (c->dialed) {
		log_unserved(c, end);
	} else if (end->dropped) {
		n->dropped++;
		connection_log_why(c, LEVEL_NOTICE, end);
	} else if (c->over_limit) {
		connection_log(c, LEVEL_DEBUG, "", end);
	} else if (has_sent_bytes(c)) {
		n->refused[stats_failure(end->reason)]++;
		connection_log_why(c, LEVEL_NOTICE, end);
	} else {
		n->silent++;
		log_silent_client(c, end);
	}
	if (c->command != NULL)
		command_leave(&all->commands, c->command);
	scoreboard_leave(&all->generation->board, &all->share, c->key,
	    c->place);
	tls_free(c->tls);
	connection_free_header(c);
	net_release(c->to);
	free(c->ends);
	free(c->peer);
	free(c);
	trim(all);
}
