/*
 * forward: the engine.  A connection goes from phase to phase; in those where
 * data flows, it has two halves, one for each direction.  The loop steps what
 * the poller reports, and what has reached its deadline.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forward.h"
#include "poller.h"
#include "stream.h"
#include "util.h"

#define FILL_SIZE	(80 * 1024)	/* measured: more gains little */
#define TURNS		4		/* fills in a row before others run */
#define SIGNALS_MS	50		/* between signals, in a busy loop */
#define LINGERING_CLOSE_MS 500		/* for a side to read its alert */
#define DELIVER_MS	30000		/* an abort waits for data, at most */
#define FLUSH_MS	10		/* from one flushed() to the next */
#define FLUSH_MANY	128		/* with more connections, rarer */
#define LOOKS		10		/* for dead peers, in answer_ms */

enum { CLIENT, BACKEND, SIDES };

static const char *const side_names[SIDES] = {
	[CLIENT] = "client",
	[BACKEND] = "backend",
};

/* Bits of a set of sides. */
#define ONLY(side)	(1u << (side))
#define BOTH		(ONLY(CLIENT) | ONLY(BACKEND))

/* One direction: fill from src when empty, drain into dst until empty. */
struct half {
	struct stream *src;
	struct stream *dst;
	unsigned char *stuck;	/* bytes that dst did not take, or NULL */
	size_t	 off, len;	/* what is left of them */
	uint64_t bytes;
	enum { FLOW, FINISH, DONE } state;
	short	 read_on;	/* the readiness that src's next read needs */
	short	 write_on;	/* the same for dst's next write */
};

/*
 * In all phases but ENDED, a connection is in the queue of its phase.  That is
 * in order of deadlines, since all in it wait equally long.
 */
enum phase {
	OPENING,		/* the client's handshake */
	DIALING,		/* a backend is tried */
	SECURING,		/* the backend's handshake */
	FLOWING,		/* neither side has ended */
	HALF_CLOSED,		/* one side has ended */
	DELIVERING,		/* one has failed: what it sent moves on */
	FLUSHING,		/* the same, until that is acknowledged */
	LINGERING_CLOSE,	/* a side is refused, and may read why */
	ENDED
};

#define PHASES		ENDED		/* that have a queue */

struct conn {
	struct conn *prev, *next;	/* in its phase's queue */
	struct conn *next_busy;		/* in the line of those to step */
	int64_t	 began, deadline;
	int64_t	 flush_until;		/* FLUSHING, at the latest */
	void	*user;			/* for the callbacks */
	struct stream streams[SIDES];
	struct source sources[SIDES];
	struct half halves[SIDES];	/* by the side that they read from */
	enum phase phase;
	short	 revents[SIDES];	/* reported since the last step */
	bool	 hung_up[SIDES];	/* no more events are to be expected */
	short	 open_on;		/* what a stream that opens waits for */
	bool	 busy;			/* is to be stepped */
	bool	 served, dropped;
	int	 broken;		/* the side that failed */
	int	 refused;		/* the side that is, or SIDES: none */
	char	*reason;		/* once there is one */
};

/* Those that are to be stepped, in the order in which they were reported. */
struct line {
	struct conn *head, **last;
	unsigned n;
};

struct queue {
	struct conn *head, *tail;
	int64_t	 ms;			/* to stay in the phase; 0: no limit */
	unsigned n;
};

struct forward {
	struct forward_params p;
	struct poller *poller;
	struct source listeners[FORWARD_LISTENERS];
	size_t	 nlisteners;
	int	 draining;
	int64_t	 starved_until;		/* accepting pauses */
	int64_t	 drain_deadline;
	int64_t	 wake_at;		/* for woken; or INT64_MAX */
	int64_t	 look_at;		/* for peers that do not answer */
	int64_t	 now;			/* CLOCK_MONOTONIC, at this turn */
	unsigned nconns;
	struct queue queues[PHASES];
	struct line busy, handshakes;
	unsigned ahead;			/* handshakes, before one is accepted */
	unsigned char fill[FILL_SIZE];
};

/*
 * CONNECTIONS
 * Queues and phases, and the one way to end.
 */

static void
queue_remove(struct queue *q, struct conn *c)
{
	*(c->prev != NULL ? &c->prev->next : &q->head) = c->next;
	*(c->next != NULL ? &c->next->prev : &q->tail) = c->prev;
	c->prev = c->next = NULL;
	q->n--;
}

static void
queue_append(struct queue *q, struct conn *c)
{
	c->prev = q->tail;
	*(q->tail != NULL ? &q->tail->next : &q->head) = c;
	q->tail = c;
	q->n++;
}

/* Enter a phase, or have its time begin again. */
static void
conn_enter(struct forward *f, struct conn *c, enum phase phase)
{
	if (c->phase != ENDED)
		queue_remove(&f->queues[c->phase], c);
	c->phase = phase;
	if (phase == ENDED)
		return;
	c->deadline = f->queues[phase].ms == 0 ? INT64_MAX :
	    f->now + f->queues[phase].ms;
	queue_append(&f->queues[phase], c);
}

/* Have it stepped: a handshake, which takes long, is in a line of its own. */
static void
conn_busy(struct forward *f, struct conn *c)
{
	struct line *l = c->phase == OPENING || c->phase == SECURING ?
	    &f->handshakes : &f->busy;

	if (c->busy)
		return;
	c->busy = 1;
	c->next_busy = NULL;
	*(l->head != NULL ? l->last : &l->head) = c;
	l->last = &c->next_busy;
	l->n++;
}

static int
flows(const struct conn *c)
{
	return c->phase == FLOWING || c->phase == HALF_CLOSED ||
	    c->phase == DELIVERING;
}

/* Note why it ends; the first reason counts. */
static void __attribute__((format(printf, 2, 3)))
conn_blame(struct conn *c, const char *fmt, ...)
{
	va_list ap;

	if (c->reason != NULL)
		return;
	va_start(ap, fmt);
	if (vasprintf(&c->reason, fmt, ap) == -1)
		c->reason = NULL;
	va_end(ap);
}

/* End it; conn_step() frees it.  aborts: the sides that see an abort. */
static void
conn_end(struct forward *f, struct conn *c, unsigned aborts, const char *why)
{
	int side;

	conn_blame(c, "%s", why);
	for (side = 0; side < SIDES; side++) {
		struct stream *s = &c->streams[side];

		if (aborts & ONLY(side) && s->fd != -1)
			s->ops->abort(s);
	}
	conn_enter(f, c, ENDED);
}

static void
conn_close(struct forward *f, struct conn *c, int side)
{
	if (c->streams[side].fd == -1)
		return;
	poller_close(f->poller, &c->sources[side]);
	c->streams[side].fd = -1;
}

static struct forward_end
conn_summary(const struct forward *f, const struct conn *c, const char *reason)
{
	return (struct forward_end){
		.reason = reason,
		.served = c->served,
		.dropped = c->dropped,
		.in = c->halves[CLIENT].bytes,
		.out = c->halves[BACKEND].bytes,
		.ms = f->now - c->began,
	};
}

static void
conn_free(struct forward *f, struct conn *c)
{
	struct forward_end end = conn_summary(f, c, c->reason != NULL ?
	    c->reason : "out of memory");
	int side;

	f->p.calls->closed(c->user, &end);
	for (side = 0; side < SIDES; side++) {
		conn_close(f, c, side);
		free(c->halves[side].stuck);
	}
	f->nconns--;
	free(c->reason);
	free(c);
}

/*
 * Send a side a fatal alert, by finish.  A close right after it would reset the
 * connection if that side has sent more meanwhile, and the alert would be lost.
 * So what comes is read and discarded until the side closes.
 */
static void
conn_refuse(struct forward *f, struct conn *c, int side)
{
	struct stream *other = &c->streams[!side];
	struct half *from = &c->halves[side], *to = &c->halves[!side];

	if (other->fd != -1)
		other->ops->abort(other);
	conn_close(f, c, !side);
	c->refused = side;
	from->state = FLOW;
	from->read_on = POLLIN;
	if (to->state == FLOW)
		to->state = FINISH;
	conn_enter(f, c, LINGERING_CLOSE);
}

/* No more data will move: abort, or refuse a side with an alert. */
static void
conn_abort(struct forward *f, struct conn *c)
{
	if (c->refused != SIDES)
		conn_refuse(f, c, c->refused);
	else
		conn_end(f, c, BOTH, "aborted");
}

static void
half_stop(struct half *h)
{
	free(h->stuck);
	h->stuck = NULL;
	h->len = 0;
	h->state = DONE;
}

/*
 * A stream failed: the other side sees an abort, never an end.  But what the
 * failed one sent before, an early answer for instance, has to arrive there,
 * and a reset would overtake it.  So the abort waits until all of it is moved
 * and acknowledged, for DELIVER_MS at most.
 */
static void
conn_fail(struct forward *f, struct conn *c, int side, ssize_t result)
{
	struct stream *s = &c->streams[side];
	struct half *to = &c->halves[!side];
	int is_told = to->state == DONE;

	if (result == STREAM_TRUNCATED)
		conn_blame(c, "truncated");
	else if (result == STREAM_RESET)
		conn_blame(c, "%s reset", side_names[side]);
	else if (side == CLIENT && (!c->served || s->ops->refuse != NULL))
		conn_blame(c, "%s", s->ops->error(s));
	else
		conn_blame(c, "%s: %s", side_names[side], s->ops->error(s));
	if ((c->phase == DELIVERING || c->phase == FLUSHING) &&
	    side == c->broken)
		return;
	half_stop(to);
	if (s->ops->refuse != NULL && result == STREAM_ERROR) {
		if (c->refused == SIDES)
			c->refused = side;
		to->state = is_told ? DONE : FINISH;
	}
	c->broken = side;
	if (c->phase == FLOWING || c->phase == HALF_CLOSED)
		conn_enter(f, c, DELIVERING);
	else
		conn_abort(f, c);
}

/* A peer that does not answer: nothing more will arrive from it. */
static void
conn_died(struct forward *f, struct conn *c, int side)
{
	conn_blame(c, "%s: %s", side_names[side], strerror(ETIMEDOUT));
	if (c->halves[side].len == 0)
		half_stop(&c->halves[side]);
	conn_fail(f, c, side, STREAM_RESET);
	conn_busy(f, c);
}

/* The event that a result wants, in *events; 0: it is not a want. */
static int
wants(ssize_t result, short *events)
{
	if (result == STREAM_WANT_READ)
		*events = POLLIN;
	else if (result == STREAM_WANT_WRITE)
		*events = POLLOUT;
	else
		return 0;
	return 1;
}

/*
 * HALVES
 * One direction each; the code is the same for both.  Drain, fill and finish
 * return 1 if the half moved on, and 0 if it has to stop: it waits, it is done,
 * or the connection has failed.
 */

/* The events that a half waits for, of its source and of its destination. */
static short
half_reads(const struct half *h)
{
	return h->state == FLOW && h->len == 0 ? h->read_on : 0;
}

static short
half_writes(const struct half *h)
{
	return h->state == FINISH || h->len > 0 ? h->write_on : 0;
}

static int
half_drain(struct forward *f, struct conn *c, int from,
    const unsigned char *data)
{
	volatile uint64_t *sum = from == CLIENT ? f->p.in : f->p.out;
	struct half *h = &c->halves[from];
	ssize_t n;

	while (h->len > 0) {
		n = h->dst->ops->write(h->dst, data + h->off, h->len);
		if (n < 0) {
			if (!wants(n, &h->write_on))
				conn_fail(f, c, !from, n);
			return 0;
		}
		h->off += (size_t)n;
		h->len -= (size_t)n;
		h->bytes += (size_t)n;
		if (sum != NULL)
			*sum += (size_t)n;
	}
	free(h->stuck);
	h->stuck = NULL;
	return 1;
}

static int
half_fill(struct forward *f, struct conn *c, int from)
{
	struct half *h = &c->halves[from];
	size_t best = h->dst->write_size, size = sizeof(f->fill);
	ssize_t n;

	if (best > 0 && best < size)
		size = best;
	n = h->src->ops->read(h->src, f->fill, size);
	if (n == STREAM_EOF) {
		h->state = FINISH;
		return 1;
	}
	if (n < 0) {
		if (!wants(n, &h->read_on)) {
			half_stop(h);
			conn_fail(f, c, from, n);
		}
		return 0;
	}
	h->read_on = POLLIN;
	h->write_on = POLLOUT;
	h->off = 0;
	h->len = (size_t)n;
	/* A short read: there is no more at the moment. */
	if (half_drain(f, c, from, f->fill))
		return (size_t)n == size;
	if (h->len == 0)	/* dst has failed */
		return 0;
	if ((h->stuck = malloc(h->len)) == NULL) {
		conn_end(f, c, BOTH, "out of memory");
		return 0;
	}
	memcpy(h->stuck, f->fill + h->off, h->len);
	h->off = 0;
	return 0;
}

static int
half_finish(struct forward *f, struct conn *c, int from)
{
	struct half *h = &c->halves[from];
	int r;

	if ((r = h->dst->ops->finish(h->dst)) == 0) {
		h->state = DONE;
		return 1;
	}
	if (wants(r, &h->write_on))
		return 0;
	if (c->phase == DELIVERING)	/* not even an alert can be sent */
		half_stop(h);
	conn_fail(f, c, !from, r);
	return 0;
}

static void
half_step(struct forward *f, struct conn *c, int from)
{
	struct half *h = &c->halves[from];
	int turn, moved = 1;

	for (turn = 0; moved && turn < TURNS && h->state != DONE; turn++) {
		if (h->len > 0)
			moved = half_drain(f, c, from, h->stuck);
		else if (h->state == FLOW)
			moved = half_fill(f, c, from);
		else
			moved = half_finish(f, c, from);
	}
}

/*
 * PHASES
 * What a connection does in each, and what it waits for.
 */

static void
conn_dial(struct forward *f, struct conn *c, const char *failed)
{
	struct stream *client = &c->streams[CLIENT];
	struct stream *backend = &c->streams[BACKEND];
	const char *why = "";

	conn_close(f, c, BACKEND);
	if (f->p.calls->dial(c->user, backend, failed, &why) == -1) {
		conn_blame(c, "no backend: %s", why);
		if (client->ops->refuse == NULL) {
			conn_end(f, c, BOTH, "");
			return;
		}
		client->ops->refuse(client);
		conn_refuse(f, c, CLIENT);
		return;
	}
	c->sources[BACKEND].fd = backend->fd;
	c->open_on = POLLOUT;
	conn_enter(f, c, DIALING);
}

static void
conn_opening(struct forward *f, struct conn *c)
{
	struct stream *client = &c->streams[CLIENT];
	int r;

	if ((r = client->ops->open(client)) == 0)
		conn_dial(f, c, NULL);
	else if (r == STREAM_WANT_TURN)
		conn_busy(f, c);
	else if (!wants(r, &c->open_on))
		conn_fail(f, c, CLIENT, r);
}

/* Both phases of the backend's stream: its connect(2), and its handshake. */
static void
conn_dialing(struct forward *f, struct conn *c)
{
	struct stream *backend = &c->streams[BACKEND];
	int r;

	if ((r = backend->ops->open(backend)) == 0) {
		c->served = 1;
		c->revents[CLIENT] = c->revents[BACKEND] = POLLIN | POLLOUT;
		f->p.calls->opened(c->user);
		conn_enter(f, c, FLOWING);
	} else if (r == STREAM_CONNECTED || r == STREAM_WANT_TURN) {
		if (r == STREAM_CONNECTED)
			conn_enter(f, c, SECURING);
		conn_busy(f, c);
	} else if (c->phase == SECURING && r == STREAM_RESET)
		conn_dial(f, c, "reset during the handshake");
	else if (!wants(r, &c->open_on))
		conn_dial(f, c, backend->ops->error(backend));
}

/* Step both directions; 1 if bytes moved.  The phase may have changed. */
static int
conn_move(struct forward *f, struct conn *c)
{
	uint64_t before = c->halves[CLIENT].bytes + c->halves[BACKEND].bytes;
	enum phase phase = c->phase;
	int side;

	for (side = 0; side < SIDES && c->phase == phase; side++) {
		struct half *h = &c->halves[side];

		if (c->revents[side] & half_reads(h) ||
		    c->revents[!side] & half_writes(h))
			half_step(f, c, side);
	}
	return c->halves[CLIENT].bytes + c->halves[BACKEND].bytes != before;
}

/*
 * Once a side has failed, what it sent still moves, and an alert to it.  All of
 * that is to be acknowledged.
 */
static void
conn_flowing(struct forward *f, struct conn *c)
{
	enum phase phase = c->phase;
	int side, ended = 0, moved = conn_move(f, c);

	if (c->phase != phase)
		return;
	for (side = 0; side < SIDES; side++)
		ended += c->halves[side].state == DONE;
	if (ended == SIDES && phase == DELIVERING) {
		c->flush_until = f->now + f->queues[DELIVERING].ms;
		conn_enter(f, c, FLUSHING);
	} else if (ended == SIDES)
		conn_end(f, c, 0, "closed");
	else if (ended > 0 && phase == FLOWING)
		conn_enter(f, c, HALF_CLOSED);
	else if (moved)
		conn_enter(f, c, phase);
}

/* Abort, once all has arrived.  conn_ask_again() has it asked again. */
static void
conn_flushing(struct forward *f, struct conn *c)
{
	const struct stream *to = &c->streams[!c->broken];

	if (to->ops->flushed(to) || f->now >= c->flush_until)
		conn_abort(f, c);
}

/*
 * The time begins again when the side makes room for its alert.  If its bytes
 * can't be read, because the kernel fails to decrypt them, only its close is
 * waited for.
 */
static void
conn_lingering_close(struct forward *f, struct conn *c)
{
	struct half *from = &c->halves[c->refused];
	struct half *to = &c->halves[!c->refused];
	struct stream *side = &c->streams[c->refused];
	ssize_t n = STREAM_WANT_READ;

	if (to->state == FINISH) {
		if (!wants(side->ops->finish(side), &to->write_on))
			to->state = DONE;
		else if (c->revents[c->refused] & POLLOUT)
			conn_enter(f, c, LINGERING_CLOSE);
	}
	if (from->state == FLOW)
		n = stream_plain.read(side, f->fill, sizeof(f->fill));
	if (n == STREAM_EOF)
		from->state = DONE;
	else if (n < 0 && !wants(n, &from->read_on))
		from->state = FINISH;
	if (n == STREAM_RESET || (from->state == DONE && to->state == DONE))
		conn_end(f, c, 0, "closed");
}

/* The events that a side waits for: always derived, never stored. */
static short
interest(const struct conn *c, int side)
{
	switch (c->phase) {
	case OPENING:
		return side == CLIENT ? c->open_on : 0;
	case DIALING:
	case SECURING:
		return side == BACKEND ? c->open_on : 0;
	case FLOWING:
	case HALF_CLOSED:
	case DELIVERING:
	case LINGERING_CLOSE:
		return (short)(half_reads(&c->halves[side]) |
		    half_writes(&c->halves[!side]));
	case FLUSHING:
	case ENDED:
		break;
	}
	return 0;
}

/*
 * A side is reported that waits for nothing: it is silenced, or the loop would
 * spin.  But errors and hang-ups are reported all the same.  An error may end
 * the connection; a hang-up says only that both directions have ended, in
 * order, which is known: the side is dropped from the poller.
 */
static void
conn_trouble(struct forward *f, struct conn *c, int side)
{
	struct stream *s = &c->streams[side];
	int r = 0;

	if (s->fd == -1 || c->revents[side] == 0 || interest(c, side) != 0)
		return;
	if (!(c->revents[side] & (POLLERR | POLLHUP))) {
		poller_watch(f->poller, &c->sources[side], 0);
		return;
	}
	if (c->revents[side] & POLLERR)
		r = s->ops->failed(s);
	if (r == STREAM_RESET || (r != 0 && c->phase != LINGERING_CLOSE)) {
		conn_fail(f, c, side, r);
		return;
	}
	c->hung_up[side] = 1;
	poller_drop(f->poller, &c->sources[side]);
}

/*
 * Watch a side; step it again at once if its stream has read ahead.  One that
 * waits for nothing most likely has nothing to report, unless it is paused.
 */
static void
conn_watch(struct forward *f, struct conn *c, int side)
{
	struct source *s = &c->sources[side];
	struct half *h = &c->halves[side];
	short events = interest(c, side);

	if (c->streams[side].fd == -1 || (events == 0 &&
	    (c->hung_up[side] || (s->is_watched && h->len == 0))))
		return;
	if (poller_watch(f->poller, s, events) == -1) {
		conn_blame(c, "poll: %s", strerror(errno));
		conn_end(f, c, BOTH, "");
		conn_busy(f, c);
	} else if (flows(c) && half_reads(h) != 0 &&
	    h->src->ops->pending(h->src)) {
		c->revents[side] = h->read_on;
		conn_busy(f, c);
	}
}

/* As far as the phases go, unless one has to wait for its turn. */
static void
conn_step(struct forward *f, struct conn *c)
{
	enum phase phase;
	int side;

	for (side = 0; side < SIDES && c->phase != ENDED; side++)
		conn_trouble(f, c, side);
	do {
		switch (phase = c->phase) {
		case OPENING:
			conn_opening(f, c);
			break;
		case DIALING:
		case SECURING:
			conn_dialing(f, c);
			break;
		case FLOWING:
		case HALF_CLOSED:
		case DELIVERING:
			conn_flowing(f, c);
			break;
		case FLUSHING:
			conn_flushing(f, c);
			break;
		case LINGERING_CLOSE:
			conn_lingering_close(f, c);
			break;
		case ENDED:
			conn_free(f, c);
			return;
		}
	} while (c->phase != phase && !c->busy);
	for (side = 0; side < SIDES; side++) {
		c->revents[side] = 0;
		conn_watch(f, c, side);
	}
}

/*
 * TCP announces no acknowledgment, so it is asked every FLUSH_MS.  The more
 * connections are asked, the more rarely: peers that acknowledge nothing must
 * not slow the loop down, however many they are.
 */
static void
conn_ask_again(struct forward *f, struct conn *c)
{
	struct queue *q = &f->queues[FLUSHING];

	q->ms = FLUSH_MS * (1 + q->n / FLUSH_MANY);
	conn_enter(f, c, FLUSHING);
}

static void
conn_timeout(struct forward *f, struct conn *c)
{
	unsigned unfinished = 0;
	int side;

	switch (c->phase) {
	case OPENING:
		conn_end(f, c, 0, "handshake timeout");
		break;
	case DIALING:
		conn_dial(f, c, "connect timeout");
		break;
	case SECURING:
		conn_dial(f, c, "handshake timeout");
		break;
	case FLOWING:
		conn_end(f, c, BOTH, "idle timeout");
		break;
	case HALF_CLOSED:
		/* A side that was told of the end keeps its last bytes. */
		for (side = 0; side < SIDES; side++)
			if (c->halves[!side].state != DONE)
				unfinished |= ONLY(side);
		conn_end(f, c, unfinished, "half-close timeout");
		break;
	case DELIVERING:
		conn_abort(f, c);
		break;
	case FLUSHING:
		conn_ask_again(f, c);
		break;
	case LINGERING_CLOSE:
	case ENDED:
		conn_end(f, c, 0, "closed");
		break;
	}
	conn_busy(f, c);
}

static void
conn_init(struct conn *c)
{
	int side;

	for (side = 0; side < SIDES; side++) {
		c->streams[side].fd = -1;
		c->sources[side].owner = c;
		c->halves[side].src = &c->streams[side];
		c->halves[side].dst = &c->streams[!side];
		c->halves[side].read_on = POLLIN;
		c->halves[side].write_on = POLLOUT;
	}
	c->open_on = POLLIN;
	c->refused = SIDES;
	c->phase = ENDED;
}

int
forward_add(struct forward *f, int fd, const struct sockaddr *addr,
    socklen_t len)
{
	struct conn *c;

	if ((c = calloc(1, sizeof(*c))) == NULL) {
		close(fd);
		errno = ENOMEM;
		return -1;
	}
	conn_init(c);
	c->user = f->p.calls->accepted(f->p.arg, fd, addr, len,
	    &c->streams[CLIENT]);
	if (c->user == NULL) {
		close(fd);
		free(c);
		return 0;
	}
	c->streams[CLIENT].fd = c->sources[CLIENT].fd = fd;
	c->began = f->now;
	f->nconns++;
	conn_enter(f, c, OPENING);
	conn_busy(f, c);
	return 0;
}

/*
 * THE LOOP
 * Sleep, see what is due, step what is busy.
 */

static int
is_full(const struct forward *f)
{
	return f->nconns >= f->p.max_connections;
}

/*
 * When full: the connection that a new one may replace, and from when on; or
 * NULL.  Refused ones go first, then the oldest handshake: such a client has
 * not yet shown that it is more than an open socket.
 */
static struct conn *
next_to_drop(const struct forward *f, int64_t *from)
{
	struct conn *c = f->queues[LINGERING_CLOSE].head;

	*from = f->now;
	if (c == NULL && (c = f->queues[OPENING].head) != NULL)
		*from = c->began + FORWARD_DROP_MS;
	return c;
}

/* From when on a connection can be accepted; INT64_MAX: not foreseeable. */
static int64_t
accept_from(const struct forward *f)
{
	int64_t from = f->starved_until, room;
	const struct conn *c;

	if (f->draining)
		return INT64_MAX;
	if (!is_full(f))
		return from;
	if ((c = next_to_drop(f, &room)) == NULL)
		return INT64_MAX;
	/* Another process has room; it won't say when that is gone: ask. */
	if (room <= f->now && c->phase == OPENING &&
	    !f->p.calls->full(f->p.arg))
		room = f->now + ACCEPT_PAUSE_MS;
	return room > from ? room : from;
}

static int
may_accept(const struct forward *f)
{
	return accept_from(f) <= f->now;
}

void
forward_make_room(struct forward *f)
{
	int64_t from;
	struct conn *c = next_to_drop(f, &from);

	if (c == NULL || from > f->now)
		return;
	c->dropped = c->phase == OPENING;
	conn_end(f, c, 0, "handshake dropped: full");
	conn_busy(f, c);
}

void
forward_wake(struct forward *f, int64_t at)
{
	if (at < f->wake_at)
		f->wake_at = at;
}

static void
accept_later(struct forward *f, int error)
{
	f->starved_until = f->now + ACCEPT_PAUSE_MS;
	f->p.calls->starved(f->p.arg, error);
}

/* Accept one; 0: none waits, or accepting has to pause. */
static int
accept_next(struct forward *f, int listener)
{
	struct sockaddr_storage addr;
	socklen_t len;
	int fd = accept_connection(listener, &addr, &len);

	if (fd != -1 && forward_add(f, fd, (struct sockaddr *)&addr, len) == 0)
		return 1;
	if (fd == -1 && errno == EAGAIN)
		return 0;
	if (fd == -1 && errno == EINTR)
		return 1;
	accept_later(f, errno);
	return 0;
}

void
forward_empty(struct forward *f, int listener, int64_t until)
{
	while (!is_full(f) && clock_ms() < until && accept_next(f, listener))
		continue;
}

/*
 * Accept one, if the handshakes before it have had their turns: those must not
 * become ever more.  Then a listener that others share is dropped, and watched
 * anew by watch_listeners(): that puts this process at the end of their line.
 * Else the same one would be woken each time.
 */
static void
accept_one(struct forward *f, struct source *s)
{
	if (f->ahead > 0 || !may_accept(f))
		return;
	if (is_full(f))
		forward_make_room(f);
	else
		accept_next(f, s->fd);
	if (f->p.takes_turns)
		poller_drop(f->poller, s);
}

static void
report(struct forward *f, struct source *s, short revents)
{
	struct conn *c = s->owner;

	if (c == NULL) {
		accept_one(f, s);
		return;
	}
	if (revents & (POLLERR | POLLHUP))
		revents |= POLLIN | POLLOUT;
	c->revents[s == &c->sources[BACKEND]] |= revents;
	conn_busy(f, c);
}

static void
watch_listeners(struct forward *f)
{
	size_t i;

	for (i = 0; i < f->nlisteners; i++) {
		if (!may_accept(f))
			poller_drop(f->poller, &f->listeners[i]);
		else if (poller_watch(f->poller, &f->listeners[i], POLLIN) ==
		    -1)
			f->starved_until = f->now + ACCEPT_PAUSE_MS;
	}
}

/* End connections to dead peers; the kernel would try for 15 minutes. */
static void
look_for_dead(struct forward *f)
{
	struct conn *c, *next;
	int phase, side;

	f->look_at = f->now + f->p.answer_ms / LOOKS;
	for (phase = FLOWING; phase <= HALF_CLOSED; phase++) {
		for (c = f->queues[phase].head; c != NULL; c = next) {
			next = c->next;
			for (side = 0; side < SIDES && flows(c); side++)
				if (stream_is_dead(&c->streams[side],
				    f->p.answer_ms))
					conn_died(f, c, side);
		}
	}
}

static void
abort_all(struct forward *f, const char *why)
{
	struct conn *c;
	int phase;

	for (phase = 0; phase < PHASES; phase++) {
		while ((c = f->queues[phase].head) != NULL) {
			conn_end(f, c, BOTH, why);
			conn_busy(f, c);
		}
	}
}

static void
expire(struct forward *f)
{
	struct conn *c;
	int phase;

	for (phase = 0; phase < PHASES; phase++) {
		while ((c = f->queues[phase].head) != NULL &&
		    c->deadline <= f->now)
			conn_timeout(f, c);
	}
	if (f->draining && f->drain_deadline <= f->now)
		abort_all(f, "drain timeout");
	if (f->p.answer_ms > 0 && f->look_at <= f->now)
		look_for_dead(f);
}

static void
step_first(struct forward *f, struct line *l)
{
	struct conn *c = l->head;

	l->head = c->next_busy;
	l->n--;
	c->busy = 0;
	conn_step(f, c);
}

/*
 * A handshake takes as long as many round trips.  So streams that are open come
 * first, and after one handshake the poller is asked for those again.  But
 * handshakes get no less time than they do.
 */
static void
step_busy(struct forward *f)
{
	int64_t now, share;
	unsigned n;

	for (n = f->busy.n; n > 0; n--)
		step_first(f, &f->busy);
	if (f->ahead == 0)
		f->ahead = f->handshakes.n;
	if (f->ahead == 0)
		return;
	now = clock_ms();
	share = now - f->now;
	do {
		f->ahead -= f->ahead > 0;
		step_first(f, &f->handshakes);
	} while (f->handshakes.n > 0 && clock_ms() - now < share);
}

/* How long to sleep until the next deadline; -1: for ever. */
static int
sleep_ms(const struct forward *f)
{
	int64_t until = f->draining ? f->drain_deadline : INT64_MAX;
	int64_t from = accept_from(f);
	unsigned flowing = f->queues[FLOWING].n + f->queues[HALF_CLOSED].n;
	int phase;

	if (f->busy.n + f->handshakes.n > 0)
		return 0;
	if (f->wake_at < until)
		until = f->wake_at;
	if (f->nlisteners > 0 && from > f->now && from < until)
		until = from;
	if (f->p.answer_ms > 0 && flowing > 0 && f->look_at < until)
		until = f->look_at;
	for (phase = 0; phase < PHASES; phase++) {
		const struct conn *c = f->queues[phase].head;

		if (c != NULL && c->deadline < until)
			until = c->deadline;
	}
	return clock_timeout(f->now, until);
}

/* Sleep until an event or a deadline; take the time; act on the events. */
static int
wait_for_events(struct forward *f, const sigset_t *mask)
{
	int n = poller_wait(f->poller, sleep_ms(f), mask), error = errno;
	struct source *s;
	short revents;

	f->now = clock_ms();
	/* Too many for poll(2): it does without the listeners for a while. */
	if (n == -1 && error == EMFILE && f->starved_until <= f->now) {
		accept_later(f, EMFILE);
		error = EINTR;
	}
	while ((s = poller_next(f->poller, &revents)) != NULL)
		report(f, s, revents);
	errno = error;
	return n;
}

int
forward_run(struct forward *f, const sigset_t *mask)
{
	int64_t let_in = f->now;	/* when signals last were */
	int n;

	while (!f->draining || f->nconns > 0) {
		watch_listeners(f);
		n = wait_for_events(f, mask);
		if (n == -1 && errno != EINTR)
			return -1;
		/* Where there is an event, no signal is looked for. */
		if (n != -1 && f->now - let_in >= SIGNALS_MS)
			deliver_pending_signals(mask);
		if (n == -1 || f->now - let_in >= SIGNALS_MS)
			let_in = f->now;
		if (f->wake_at <= f->now)
			f->wake_at = INT64_MAX;
		f->p.calls->woken(f->p.arg);
		expire(f);
		step_busy(f);
	}
	return 0;
}

struct forward *
forward_new(const struct forward_params *params)
{
	struct forward *f;

	if ((f = calloc(1, sizeof(*f))) == NULL)
		return NULL;
	if ((f->poller = poller_new()) == NULL) {
		free(f);
		return NULL;
	}
	f->p = *params;
	f->now = clock_ms();
	f->wake_at = INT64_MAX;
	f->queues[OPENING].ms = params->open_ms;
	f->queues[DIALING].ms = params->dial_ms;
	f->queues[SECURING].ms = params->open_ms;
	f->queues[FLOWING].ms = params->idle_ms;
	f->queues[HALF_CLOSED].ms = params->half_close_ms;
	f->queues[DELIVERING].ms = params->half_close_ms > 0 &&
	    params->half_close_ms < DELIVER_MS ? params->half_close_ms :
	    DELIVER_MS;
	f->queues[FLUSHING].ms = FLUSH_MS;
	f->queues[LINGERING_CLOSE].ms = LINGERING_CLOSE_MS;
	return f;
}

void
forward_free(struct forward *f)
{
	int saved = errno;

	if (f == NULL)
		return;
	abort_all(f, "aborted");
	while (f->busy.n + f->handshakes.n > 0)
		step_busy(f);
	poller_free(f->poller);
	free(f);
	errno = saved;
}

int
forward_listen(struct forward *f, int fd)
{
	struct source *s = &f->listeners[f->nlisteners];

	if (f->nlisteners == FORWARD_LISTENERS) {
		errno = ENOSPC;
		return -1;
	}
	s->fd = fd;
	s->is_shared = true;
	if (poller_watch(f->poller, s, POLLIN) == -1)
		return -1;
	f->nlisteners++;
	return 0;
}

void
forward_drain(struct forward *f, int64_t ms)
{
	int64_t deadline = ms == 0 ? INT64_MAX : f->now + ms;

	if (!f->draining || deadline < f->drain_deadline)
		f->drain_deadline = deadline;
	f->draining = 1;
	watch_listeners(f);
}

void
forward_abort_all(struct forward *f, const char *why)
{
	abort_all(f, why);
}

void
forward_list(struct forward *f)
{
	static const char *const names[PHASES] = {
		[OPENING] = "opening",
		[DIALING] = "dialing",
		[SECURING] = "securing",
		[FLOWING] = "flowing",
		[HALF_CLOSED] = "half-closed",
		[DELIVERING] = "delivering",
		[FLUSHING] = "flushing",
		[LINGERING_CLOSE] = "lingering-close",
	};
	const struct conn *c;
	struct forward_end how;
	int phase;

	for (phase = 0; phase < PHASES; phase++) {
		for (c = f->queues[phase].head; c != NULL; c = c->next) {
			how = conn_summary(f, c, names[phase]);
			f->p.calls->listed(c->user, &how);
		}
	}
}
