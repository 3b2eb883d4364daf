/* dispatch: with mode = fork, a worker for each connection. */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/tcp.h>
#include <netinet/in.h>
#endif

#include "control.h"
#include "dispatch.h"
#include "generation.h"
#include "util.h"

#define ASK_EVERY_MS	20		/* between orders to make room */
#define ASK_AT_ONCE	16		/* workers, at most */

/* 1 if another connection may be served, given a free slot. */
static int
may_serve(const struct dispatch *d, const struct generation *g)
{
	return g->config.number[MODE] == MODE_FORK && !d->stopping &&
	    clock_ms() >= d->paused_until &&
	    clock_ms() >= g->workers.retry_at;
}

/* The time when a slot is free or can be made free; INT64_MAX: unknown. */
static int64_t
slot_from(const struct dispatch *d, const struct generation *g)
{
	const struct slot *slot;

	if (!may_serve(d, g))
		return INT64_MAX;
	if (!workers_are_full(&g->workers))
		return 0;
	slot = workers_oldest_handshake(&g->workers, &g->board);
	if (slot == NULL)
		return INT64_MAX;
	return slot->drop_at > d->ask_at ? slot->drop_at : d->ask_at;
}

/* The number of connections in the queues of listeners; 0: unknown. */
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
 * Order one worker per waiting connection to make room: it exits if it is still
 * in the handshake.  Continue with other workers next time, and finally with
 * the same ones again: a worker that started slowly may have missed the order.
 */
static void
ask_for_room(struct dispatch *d, const struct generation *g)
{
	const struct order o = { .what = ORDER_MAKE_ROOM };
	size_t n = 1 + count_waiting(g);
	int64_t now = clock_ms();
	struct slot *slot;

	if (now < d->ask_at)
		return;
	d->ask_at = now + ASK_EVERY_MS;
	for (n = n < ASK_AT_ONCE ? n : ASK_AT_ONCE; n > 0; n--) {
		slot = workers_oldest_handshake(&g->workers, &g->board);
		if (slot == NULL || slot->drop_at > now)
			break;
		slot->drop_at = now + WORKER_DROP_MS;
		workers_send(slot, &o, -1);
	}
}

static void
pause_accepting(struct dispatch *d)
{
	listeners_log_pause(&d->pause_logged, errno);
	d->paused_until = clock_ms() + ACCEPT_PAUSE_MS;
}

/* Accept a connection.  1, or 0 if there is none. */
static int
accept_one(struct dispatch *d, int listener)
{
	struct incoming *in = &d->waiting;

	in->fd = accept_connection(listener, &in->sa, &in->len);
	if (in->fd == -1 && errno != EAGAIN && errno != EINTR)
		pause_accepting(d);
	return in->fd != -1;
}

void
dispatch_drop(struct dispatch *d)
{
	if (d->waiting.fd != -1)
		close(d->waiting.fd);
	d->waiting.fd = -1;
}

void
dispatch_serve(struct dispatch *d, struct generation *g)
{
	if (d->waiting.fd == -1 || !may_serve(d, g))
		return;
	if (workers_are_full(&g->workers)) {
		ask_for_room(d, g);
		return;
	}
	if (d->start(d->arg, g, workers_next(&g->workers), &d->waiting) ==
	    -1) {
		pause_accepting(d);
		return;
	}
	dispatch_drop(d);
	if (workers_are_full(&g->workers))
		generation_warn_full(g, WORKER_DROP_MS);
}

void
dispatch_serve_last(struct dispatch *d, struct generation *g)
{
	int64_t until = clock_ms() + WORKER_LAST_MS;
	size_t i;

	if (d->waiting.fd != -1)
		return;
	for (i = 0; i < g->listeners.n; i++)
		while (g->listeners.list[i].address != NULL &&
		    may_serve(d, g) &&
		    !workers_are_full(&g->workers) && clock_ms() < until &&
		    accept_one(d, g->listeners.list[i].fd))
			dispatch_serve(d, g);
}

int64_t
dispatch_due(const struct dispatch *d, const struct generation *g)
{
	int64_t now = clock_ms(), due = slot_from(d, g);

	/* A slot is free: poll(2) reports the next connection. */
	if (due <= now && d->waiting.fd == -1)
		due = INT64_MAX;
	return d->paused_until > now && d->paused_until < due ?
	    d->paused_until : due;
}

size_t
dispatch_poll(const struct dispatch *d, const struct generation *g,
    struct pollfd *p)
{
	const struct listeners *ls = &g->listeners;
	size_t i;

	if (d->waiting.fd != -1 || slot_from(d, g) > clock_ms())
		return 0;
	for (i = 0; i < ls->n; i++)
		p[i] = (struct pollfd){ .events = POLLIN, .fd =
		    ls->list[(d->next_listener + i) % ls->n].fd };
	return ls->n;
}

void
dispatch_polled(struct dispatch *d, const struct pollfd *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (p[i].revents != 0 && accept_one(d, p[i].fd)) {
			d->next_listener += i + 1;
			return;
		}
	}
}
