/*
 * dispatch: with mode = fork, a worker for each connection.  The master accepts
 * one connection at a time, and only if it may fork a worker.  At
 * max_connections, old handshakes make room.
 */
#ifndef DISPATCH_H
#define DISPATCH_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "worker.h"

struct generation;
struct pollfd;

struct dispatch {
	/* Fork a worker into a slot.  0, or -1. */
	int	(*start)(void *arg, struct generation *, size_t slot,
		    const struct incoming *);
	void	*arg;
	struct incoming waiting;	/* for a worker; no fd: -1 */
	size_t	 next_listener;		/* the first to be polled, in turn */
	int64_t	 paused_until;		/* no accept(2) before (ms) */
	int64_t	 ask_at;		/* the next ORDER_MAKE_ROOM (ms) */
	time_t	 pause_logged;		/* see listeners_log_pause() */
	int	 stopping;
};

/* The time of the next dispatch_serve() (ms); INT64_MAX: none. */
int64_t	 dispatch_due(const struct dispatch *, const struct generation *);

/*
 * Fill in the listeners to be polled, at most LISTENERS_MAX.  Returns their
 * number: 0 if no connection can be served now, or with mode = poll.
 */
size_t	 dispatch_poll(const struct dispatch *, const struct generation *,
	    struct pollfd *);

/* After poll(2) on these listeners: accept a connection. */
void	 dispatch_polled(struct dispatch *, const struct pollfd *, size_t n);

/* Start a worker for the waiting connection, or order others to make room. */
void	 dispatch_serve(struct dispatch *, struct generation *);

/*
 * At a stop: serve the connections in the kernel's queues, which would be reset
 * when the listeners are closed.  Skip fd:N: the process that passed it keeps
 * it and its queue open.
 */
void	 dispatch_serve_last(struct dispatch *, struct generation *);

/* Close the waiting connection, if any. */
void	 dispatch_drop(struct dispatch *);

#endif
