/*
 * forward: the engine.  One event loop over any number of connections; each
 * is a client stream and a backend stream, spliced in both directions.  It
 * knows no TLS library, no address and no configuration: streams come with
 * their operations, and the caller's part of a connection is in callbacks.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct stream;

/* How a connection ended, or how it is doing.  Valid during the call. */
struct forward_end {
	const char *reason;	/* "closed", "truncated", ...; or its phase */
	int	 served;	/* data could flow: both streams were opened */
	int	 dropped;	/* in its handshake, to make room */
	uint64_t in;		/* bytes from the client */
	uint64_t out;		/* bytes to the client */
	int64_t	 ms;		/* since it was accepted */
};

struct forward_calls {
	/*
	 * A connection came in on fd, from addr (of len bytes, perhaps 0).
	 * Fill in the client's ops and ctx, and return what is to be passed to
	 * the other callbacks, or NULL to have the descriptor closed.
	 */
	void	*(*accepted)(void *arg, int fd, const struct sockaddr *addr,
		    socklen_t len, struct stream *client);
	/*
	 * Begin to open the next backend for a connection: fill in ops, ctx
	 * and fd, connected or in progress.  With stream_reset() on it, the
	 * backend sees an abort, not an end, should this process be killed.
	 * failed is NULL at first, later why the previous one did not open.
	 * -1: there is none left to try; *why, valid until the next call,
	 * becomes the reason.
	 */
	int	 (*dial)(void *conn, struct stream *backend,
		    const char *failed, const char **why);
	/* Both streams are open: from now on, data can flow. */
	void	 (*opened)(void *conn);
	/* The connection is over: log it; free conn and both ctx. */
	void	 (*closed)(void *conn, const struct forward_end *);
	/* One call for each connection: see forward_list(). */
	void	 (*listed)(void *conn, const struct forward_end *);
	/* Once a turn of the loop: act on what signal handlers have noted. */
	void	 (*woken)(void *arg);
	/* Accepting pauses after this error (errno): EMFILE, ENOMEM, ... */
	void	 (*starved)(void *arg, int error);
	/* This process is full.  Are all that share its listeners full, too? */
	int	 (*full)(void *arg);
};

/* Times are in milliseconds; 0 is no limit. */
struct forward_params {
	const struct forward_calls *calls;
	void	*arg;
	/*
	 * With that many, a new connection replaces one that was refused or,
	 * if all processes are full, the oldest one in its handshake, once that
	 * has taken FORWARD_DROP_MS.  Without either, accepting pauses.
	 */
	unsigned max_connections;
	int64_t	 open_ms;		/* the handshake of each stream */
	int64_t	 dial_ms;		/* each backend that is tried */
	int64_t	 idle_ms;		/* since the last byte either way */
	int64_t	 half_close_ms;		/* the same, once one side has ended */
	/*
	 * A TCP peer that acknowledges nothing for that long, though it is sent
	 * something, is dead.  On an idle connection, SO_KEEPALIVE finds out.
	 */
	int64_t	 answer_ms;
	/*
	 * Several processes accept from its listeners, and take turns: with
	 * poll(2), all are woken for each connection.
	 */
	int	 takes_turns;
	/* If not NULL: sums of forward_end's in and out, as bytes move. */
	volatile uint64_t *in, *out;
};

struct forward;

/* The parameters are copied.  NULL with errno on failure. */
struct forward *forward_new(const struct forward_params *);

/* Connections that are left are aborted.  NULL is fine.  errno is kept. */
void	 forward_free(struct forward *);

/* At most. */
#define FORWARD_LISTENERS	64

/*
 * Accept from fd, a non-blocking listening socket, which stays the caller's
 * and must stay open until forward_drain().  0, or -1 with errno.
 */
int	 forward_listen(struct forward *, int fd);

/*
 * Add a connection that was accepted elsewhere, from that address.  The engine
 * owns fd from here on, whatever happens.  0, also if accepted() turned it
 * away; or -1 with errno.
 */
int	 forward_add(struct forward *, int fd, const struct sockaddr *,
	    socklen_t);

/*
 * Every process is full, and a connection waits outside of this one: end the
 * one that it may replace, if there is one; see max_connections.
 */
void	 forward_make_room(struct forward *);

#define FORWARD_DROP_MS	1000

/*
 * Have woken() called once at that time (CLOCK_MONOTONIC, ms) or earlier.  Of
 * several such times the earliest counts, and the others are forgotten.
 */
void	 forward_wake(struct forward *, int64_t at);

/*
 * The listener is about to be closed: accept what waits there, as far as there
 * is room, until that time (CLOCK_MONOTONIC, ms) at the latest.
 */
void	 forward_empty(struct forward *, int listener, int64_t until);

/*
 * Accept no more.  Connections may finish within ms (0: no limit); then they
 * are aborted: "drain timeout".  A later call may bring that moment forward,
 * never put it off.
 */
void	 forward_drain(struct forward *, int64_t ms);

/* Abort every connection, towards both sides, now. */
void	 forward_abort_all(struct forward *, const char *why);

/* Pass each connection to listed(), its phase as the reason. */
void	 forward_list(struct forward *);

/*
 * Run until forward_drain() was called and the last connection is over.  The
 * signal mask is mask while it sleeps, and only then.  0, or -1 with errno.
 */
int	 forward_run(struct forward *, const sigset_t *mask);

#endif
