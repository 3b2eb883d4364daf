/*
 * dispatch: with mode = fork, a worker for each connection.  The master accepts
 * one at a time, as long as a worker may be forked for it.  Past
 * max_connections, handshakes that take long make room.
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
	/* Fork a worker into a slot; -1: it could not be. */
	int	(*start)(void *arg, struct generation *, size_t slot,
		    const struct incoming *);
	void	*arg;
	struct incoming waiting;	/* for a worker; its fd is -1 if none */
	size_t	 next_listener;		/* they take turns */
	int64_t	 paused_until;		/* nothing is accepted */
	int64_t	 ask_at;		/* others to make room */
	time_t	 pause_logged;		/* when a pause was logged */
	int	 stopping;
};

/* When to call dispatch_serve() at the latest (ms); INT64_MAX: never. */
int64_t	 dispatch_due(const struct dispatch *, const struct generation *);

/*
 * Fill in the listeners to be polled, of which there are LISTENERS_MAX at most;
 * how many.  None if no connection can be served now, or with mode = poll.
 */
size_t	 dispatch_poll(const struct dispatch *, const struct generation *,
	    struct pollfd *);

/* After poll(2) on these: accept a connection. */
void	 dispatch_polled(struct dispatch *, const struct pollfd *, size_t n);

/* Start a worker for the connection that waits, or ask others to make room. */
void	 dispatch_serve(struct dispatch *, struct generation *);

/*
 * At a stop: serve what the kernel has accepted already, which would be reset
 * as its listener closes.  A listener that was passed to us stays open with its
 * passer, and so does its queue.
 */
void	 dispatch_serve_last(struct dispatch *, struct generation *);

/* Close the connection that waits, if any. */
void	 dispatch_drop(struct dispatch *);

#endif
