/*
 * forward: the engine.  A connection passes through phases.  In the phases with
 * data, it consists of two halves, one per direction.  The loop steps each
 * connection that the poller reports or whose deadline is reached.
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
#define STEPS_PER_TURN	4		/* per half, before others run */
#define SIGNALS_MS	50		/* between signals, in a busy loop */
#define LINGERING_CLOSE_MS 500		/* for the peer to read its alert */
#define DELIVER_MS	30000		/* an abort waits for data, at most */
#define FLUSH_MS	10		/* between two calls of flushed() */
#define FLUSH_MANY	128		/* more connections: less often */
#define DEAD_CHECKS	10		/* per dead_peer_ms */

enum { CLIENT, BACKEND, SIDES };

static const char *const side_names[SIDES] = {
	[CLIENT] = "client",
	[BACKEND] = "backend",
};

/* Bits of a set of sides. */
#define SIDE_BIT(side)	(1u << (side))
#define BOTH_SIDES	(SIDE_BIT(CLIENT) | SIDE_BIT(BACKEND))

/* One direction: fill from src when empty, drain into dst until empty. */
struct half {
	struct stream *src;
	struct stream *dst;
	unsigned char *stuck;	/* bytes that dst did not take, or NULL */
	size_t	 off, len;	/* the part still to be written */
	uint64_t bytes;		/* written so far */
	enum { FLOW, FINISH, DONE } state;
	short	 read_on;	/* the event that src's next read needs */
	short	 write_on;	/* the event that dst's next write needs */
};

/*
 * In each phase but ENDED, a connection is in the queue of its phase.  The
 * queue is in order of deadlines, since the time limit is the same for all.
 */
enum phase {
	OPENING,		/* the client's handshake */
	DIALING,		/* connecting to a backend */
	SECURING,		/* the backend's handshake */
	FLOWING,		/* neither side has ended */
	HALF_CLOSED,		/* one side has ended */
	DELIVERING,		/* one side failed: deliver its data */
	FLUSHING,		/* its data is written: await the ACK */
	LINGERING_CLOSE,	/* a side is refused: let it read the alert */
	ENDED
};

#define PHASES		ENDED		/* phases with a queue */

struct conn {
	struct conn *prev, *next;	/* in its phase's queue */
	struct conn *next_to_step;	/* in its run list */
	int64_t	 began, deadline;	/* CLOCK_MONOTONIC, ms */
	int64_t	 flush_until;		/* the end of FLUSHING */
	void	*user;			/* for the callbacks */
	struct stream streams[SIDES];
	struct source sources[SIDES];
	struct half halves[SIDES];	/* index: the side to read from */
	enum phase phase;
	short	 revents[SIDES];	/* reported since the last step */
	bool	 hung_up[SIDES];	/* no more events will come */
	short	 open_on;		/* the event that open() waits for */
	bool	 busy;			/* in a run list */
	bool	 served, dropped;	/* see struct forward_end */
	int	 broken;		/* the side that failed */
	int	 refused;		/* the refused side; SIDES: none */
	char	*reason;		/* or NULL */
};

/* Connections to be stepped, in the order of their events. */
struct run_list {
	struct conn *head, **last;
	unsigned n;
};

struct queue {
	struct conn *head, *tail;
	int64_t	 ms;			/* limit of the phase; 0: none */
	unsigned n;
};

struct forward {
	struct forward_params p;
	struct poller *poller;
	struct source listeners[FORWARD_LISTENERS];
	size_t	 nlisteners;
	int	 draining;
	int64_t	 paused_until;		/* no accept(2) before */
	int64_t	 drain_deadline;
	const char *drain_reason;
	int64_t	 wake_at;		/* for woken(); or INT64_MAX */
	int64_t	 dead_check_at;		/* the next end_dead_peers() */
	int64_t	 now;			/* CLOCK_MONOTONIC of this iteration */
	unsigned nconns;
	struct queue queues[PHASES];
	struct run_list busy, handshakes;
	unsigned handshakes_due;	/* steps before the next accept(2) */
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

/* Enter a phase, or restart its time limit. */
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

/* Schedule a step.  Handshakes, which take long, have their own run list. */
static void
conn_busy(struct forward *f, struct conn *c)
{
	struct run_list *l = c->phase == OPENING || c->phase == SECURING ?
	    &f->handshakes : &f->busy;

	if (c->busy)
		return;
	c->busy = 1;
	c->next_to_step = NULL;
	*(l->head != NULL ? l->last : &l->head) = c;
	l->last = &c->next_to_step;
	l->n++;
}

static int
flows(const struct conn *c)
{
	return c->phase == FLOWING || c->phase == HALF_CLOSED ||
	    c->phase == DELIVERING;
}

/* Set the reason of the end, unless one is set already. */
static void __attribute__((format(printf, 2, 3)))
conn_set_reason(struct conn *c, const char *fmt, ...)
{
	va_list ap;

	if (c->reason != NULL)
		return;
	va_start(ap, fmt);
	if (vasprintf(&c->reason, fmt, ap) == -1)
		c->reason = NULL;
	va_end(ap);
}

/*
 * End a connection; conn_step() frees it.  aborts is the set of sides to which
 * an abort is signalled.
 */
static void
conn_end(struct forward *f, struct conn *c, unsigned aborts, const char *why)
{
	int side;

	conn_set_reason(c, "%s", why);
	for (side = 0; side < SIDES; side++) {
		struct stream *s = &c->streams[side];

		if (aborts & SIDE_BIT(side) && s->fd != -1)
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
 * Send a fatal alert to a side, by finish().  An immediate close would reset
 * the connection if the peer has sent more data, and the alert would be lost.
 * So read and discard data until the peer closes.
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

/* Abort both sides, or refuse one of them with an alert. */
static void
conn_abort(struct forward *f, struct conn *c)
{
	if (c->refused != SIDES)
		conn_refuse(f, c, c->refused);
	else
		conn_end(f, c, BOTH_SIDES, "aborted");
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
 * A stream failed: signal an abort to the other side, never an end.  Data that
 * the failed side sent before, such as an early answer, must arrive first, and
 * a reset would overtake it.  So delay the abort until this data is written and
 * acknowledged, for DELIVER_MS at most.
 */
static void
conn_fail(struct forward *f, struct conn *c, int side, ssize_t result)
{
	struct stream *s = &c->streams[side];
	struct half *to = &c->halves[!side];
	int end_sent = to->state == DONE;

	if (result == STREAM_TRUNCATED)
		conn_set_reason(c, "truncated");
	else if (result == STREAM_RESET)
		conn_set_reason(c, "%s reset", side_names[side]);
	else if (side == CLIENT && (!c->served || s->ops->refuse != NULL))
		conn_set_reason(c, "%s", s->ops->error(s));
	else
		conn_set_reason(c, "%s: %s", side_names[side],
		    s->ops->error(s));
	if ((c->phase == DELIVERING || c->phase == FLUSHING) &&
	    side == c->broken)
		return;
	half_stop(to);
	if (s->ops->refuse != NULL && result == STREAM_ERROR) {
		if (c->refused == SIDES)
			c->refused = side;
		to->state = end_sent ? DONE : FINISH;
	}
	c->broken = side;
	if (c->phase == FLOWING || c->phase == HALF_CLOSED)
		conn_enter(f, c, DELIVERING);
	else
		conn_abort(f, c);
}

/* A peer is dead: nothing more will arrive from it. */
static void
conn_peer_dead(struct forward *f, struct conn *c, int side)
{
	conn_set_reason(c, "%s: %s", side_names[side], strerror(ETIMEDOUT));
	if (c->halves[side].len == 0)
		half_stop(&c->halves[side]);
	conn_fail(f, c, side, STREAM_RESET);
	conn_busy(f, c);
}

/* Return 1 and set *events if the result is STREAM_WANT_READ or _WRITE. */
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
 * One direction each, with the same code for both.  Drain, fill and finish
 * return 1 on progress, and 0 to stop: the half waits, is done, or the
 * connection has failed.
 */

/* The events that a half waits for on its source; below, its destination. */
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
	/* A short read means that there is no more data at the moment. */
	if (half_drain(f, c, from, f->fill))
		return (size_t)n == size;
	if (h->len == 0)	/* dst has failed */
		return 0;
	if ((h->stuck = malloc(h->len)) == NULL) {
		conn_end(f, c, BOTH_SIDES, "out of memory");
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
	if (c->phase == DELIVERING)	/* the alert can't be sent */
		half_stop(h);
	conn_fail(f, c, !from, r);
	return 0;
}

static void
half_step(struct forward *f, struct conn *c, int from)
{
	struct half *h = &c->halves[from];
	int turn, moved = 1;

	for (turn = 0; moved && turn < STEPS_PER_TURN && h->state != DONE;
	    turn++) {
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
 * The step of a connection in each phase, and the events it waits for.
 */

static void
conn_dial(struct forward *f, struct conn *c, const char *failed)
{
	struct stream *client = &c->streams[CLIENT];
	struct stream *backend = &c->streams[BACKEND];
	const char *why = "";

	conn_close(f, c, BACKEND);
	if (f->p.calls->dial(c->user, backend, failed, &why) == -1) {
		conn_set_reason(c, "no backend: %s", why);
		if (client->ops->refuse == NULL) {
			conn_end(f, c, BOTH_SIDES, "");
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

/* DIALING and SECURING: the backend's connect(2), and its handshake. */
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

/* Step both directions.  Return 1 if bytes moved; the phase may change. */
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
 * FLOWING, HALF_CLOSED and DELIVERING.  In the last one, the data of the failed
 * side and the alert to it are written; FLUSHING waits for acknowledgement.
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

/* Abort once the data has arrived; conn_recheck_flushed() repeats the check. */
static void
conn_flushing(struct forward *f, struct conn *c)
{
	const struct stream *to = &c->streams[!c->broken];

	if (to->ops->flushed(to) || f->now >= c->flush_until)
		conn_abort(f, c);
}

/*
 * Restart the time limit when the socket has room for the alert.  If data can't
 * be read because the kernel fails to decrypt it, wait only for the close.
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

/* The events that a side waits for: derived from the state, never stored. */
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
 * Handle an event of a side that waits for none.  Watch it for no events, or
 * the loop would spin.  Errors and hang-ups are still reported then.  An error
 * may end the connection.  A hang-up means that both directions have ended in
 * order, which is known already: drop the side from the poller.
 */
static void
conn_unexpected_event(struct forward *f, struct conn *c, int side)
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
 * Update the poller for a side.  Schedule another step if its stream has read
 * ahead.  Save the system call for a side that waits for nothing: it rarely
 * reports anything, unless a full destination keeps it from reading.
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
		conn_set_reason(c, "poll: %s", strerror(errno));
		conn_end(f, c, BOTH_SIDES, "");
		conn_busy(f, c);
	} else if (flows(c) && half_reads(h) != 0 &&
	    h->src->ops->pending(h->src)) {
		c->revents[side] = h->read_on;
		conn_busy(f, c);
	}
}

/* Step through the phases until one has to wait. */
static void
conn_step(struct forward *f, struct conn *c)
{
	enum phase phase;
	int side;

	for (side = 0; side < SIDES && c->phase != ENDED; side++)
		conn_unexpected_event(f, c, side);
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
 * The poller does not report acknowledgements, so check every FLUSH_MS.  Check
 * less often with many connections: peers that acknowledge nothing must not
 * slow the loop down.
 */
static void
conn_recheck_flushed(struct forward *f, struct conn *c)
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
		conn_end(f, c, BOTH_SIDES, "idle timeout");
		break;
	case HALF_CLOSED:
		/* An abort would lose the last bytes before a sent end. */
		for (side = 0; side < SIDES; side++)
			if (c->halves[!side].state != DONE)
				unfinished |= SIDE_BIT(side);
		conn_end(f, c, unfinished, "half-close timeout");
		break;
	case DELIVERING:
		conn_abort(f, c);
		break;
	case FLUSHING:
		conn_recheck_flushed(f, c);
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
 * Sleep, handle deadlines, step connections.
 */

static int
is_full(const struct forward *f)
{
	return f->nconns >= f->p.max_connections;
}

/*
 * Return the connection that a new one may replace, and in *from the time from
 * when on; or NULL.  Prefer a refused one, then take the oldest handshake: it
 * may be an idle socket.
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

/* The time from which a connection can be accepted; INT64_MAX: unknown. */
static int64_t
accept_due(const struct forward *f)
{
	int64_t from = f->paused_until, room;
	const struct conn *c;

	if (f->draining)
		return INT64_MAX;
	if (!is_full(f))
		return from;
	if ((c = next_to_drop(f, &room)) == NULL)
		return INT64_MAX;
	/* Another process has room, and won't report when that is gone. */
	if (room <= f->now && c->phase == OPENING &&
	    !f->p.calls->full(f->p.arg))
		room = f->now + ACCEPT_PAUSE_MS;
	return room > from ? room : from;
}

static int
may_accept(const struct forward *f)
{
	return accept_due(f) <= f->now;
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
	f->paused_until = f->now + ACCEPT_PAUSE_MS;
	f->p.calls->accept_paused(f->p.arg, error);
}

/* Accept a connection.  Return 0 if none waits, or accepting is paused. */
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
forward_accept_queued(struct forward *f, int listener, int64_t until)
{
	while (!is_full(f) && clock_ms() < until && accept_next(f, listener))
		continue;
}

/*
 * Accept a connection, but first step the handshakes that are due: their number
 * must not grow without limit.  Then drop a shared listener; watch_listeners()
 * adds it again.  That puts this process last in the listener's wait queue.
 * Otherwise the same process would be woken each time.
 */
static void
accept_one(struct forward *f, struct source *s)
{
	if (f->handshakes_due > 0 || !may_accept(f))
		return;
	if (is_full(f))
		forward_make_room(f);
	else
		accept_next(f, s->fd);
	if (f->p.shares_listeners)
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
			f->paused_until = f->now + ACCEPT_PAUSE_MS;
	}
}

/* End connections to dead peers; the kernel would wait 15 minutes. */
static void
end_dead_peers(struct forward *f)
{
	struct conn *c, *next;
	int phase, side;

	f->dead_check_at = f->now + f->p.dead_peer_ms / DEAD_CHECKS;
	for (phase = FLOWING; phase <= HALF_CLOSED; phase++) {
		for (c = f->queues[phase].head; c != NULL; c = next) {
			next = c->next;
			for (side = 0; side < SIDES && flows(c); side++)
				if (stream_is_dead(&c->streams[side],
				    f->p.dead_peer_ms))
					conn_peer_dead(f, c, side);
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
			conn_end(f, c, BOTH_SIDES, why);
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
		abort_all(f, f->drain_reason);
	if (f->p.dead_peer_ms > 0 && f->dead_check_at <= f->now)
		end_dead_peers(f);
}

static void
step_first(struct forward *f, struct run_list *l)
{
	struct conn *c = l->head;

	l->head = c->next_to_step;
	l->n--;
	c->busy = 0;
	conn_step(f, c);
}

/*
 * A step of a handshake takes as long as many steps of an open stream.  So step
 * open streams first, and return to the poller after one handshake.  But give
 * handshakes as much time as open streams have used.
 */
static void
step_busy(struct forward *f)
{
	int64_t now, share;
	unsigned n;

	for (n = f->busy.n; n > 0; n--)
		step_first(f, &f->busy);
	if (f->handshakes_due == 0)
		f->handshakes_due = f->handshakes.n;
	if (f->handshakes_due == 0)
		return;
	now = clock_ms();
	share = now - f->now;
	do {
		f->handshakes_due -= f->handshakes_due > 0;
		step_first(f, &f->handshakes);
	} while (f->handshakes.n > 0 && clock_ms() - now < share);
}

/* The time until the next deadline, in ms; -1: none. */
static int
sleep_ms(const struct forward *f)
{
	int64_t until = f->draining ? f->drain_deadline : INT64_MAX;
	int64_t from = accept_due(f);
	unsigned flowing = f->queues[FLOWING].n + f->queues[HALF_CLOSED].n;
	int phase;

	if (f->busy.n + f->handshakes.n > 0)
		return 0;
	if (f->wake_at < until)
		until = f->wake_at;
	if (f->nlisteners > 0 && from > f->now && from < until)
		until = from;
	if (f->p.dead_peer_ms > 0 && flowing > 0 && f->dead_check_at < until)
		until = f->dead_check_at;
	for (phase = 0; phase < PHASES; phase++) {
		const struct conn *c = f->queues[phase].head;

		if (c != NULL && c->deadline < until)
			until = c->deadline;
	}
	return clock_timeout(f->now, until);
}

/* Sleep until an event or a deadline; update the clock; handle the events. */
static int
wait_for_events(struct forward *f, const sigset_t *mask)
{
	int n = poller_wait(f->poller, sleep_ms(f), mask), error = errno;
	struct source *s;
	short revents;

	f->now = clock_ms();
	/* Too many descriptors for poll(2): stop watching the listeners. */
	if (n == -1 && error == EMFILE && f->paused_until <= f->now) {
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
	int64_t signals_at = f->now;	/* the last delivery */
	int n;

	while (!f->draining || f->nconns > 0) {
		watch_listeners(f);
		n = wait_for_events(f, mask);
		if (n == -1 && errno != EINTR)
			return -1;
		/* With an event ready, ppoll(2) delivers no signal. */
		if (n != -1 && f->now - signals_at >= SIGNALS_MS)
			deliver_pending_signals(mask);
		if (n == -1 || f->now - signals_at >= SIGNALS_MS)
			signals_at = f->now;
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
forward_drain(struct forward *f, int64_t ms, const char *why)
{
	int64_t deadline = ms == 0 ? INT64_MAX : f->now + ms;

	if (!f->draining || deadline < f->drain_deadline) {
		f->drain_deadline = deadline;
		f->drain_reason = why;
	}
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
