/*
 * forward: the engine, one event loop over any number of connections.  Each
 * connection is a client stream and a backend stream, joined in both
 * directions.  The engine does not depend on TLS, addresses or configuration:
 * streams bring their operations, and the caller supplies callbacks.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct stream;

/* How a connection ended, or its present state.  Valid during the call. */
struct forward_end {
	const char *reason;	/* "closed", "truncated", ...; or the phase */
	int	 served;	/* both streams were opened */
	int	 dropped;	/* during the handshake, to make room */
	uint64_t in;		/* bytes from the client */
	uint64_t out;		/* bytes to the client */
	int64_t	 ms;		/* since it was accepted */
};

struct forward_calls {
	/*
	 * A connection was accepted on fd, from addr (len bytes, may be 0).
	 * Fill in the client's ops and ctx.  Return the conn argument of the
	 * other callbacks, or NULL to have fd closed.
	 */
	void	*(*accepted)(void *arg, int fd, const struct sockaddr *addr,
		    socklen_t len, struct stream *client);
	/*
	 * Start to open the next backend of a connection: fill in ops, ctx
	 * and fd, connected or in progress.  Call stream_reset() on it, so
	 * that the backend sees an abort, not an end, if this process is
	 * killed.  failed is NULL at first, later the error of the previous
	 * backend.  Return 0, or -1 if no backend is left to try: *why, valid
	 * until the next call, then becomes the reason.
	 */
	int	 (*dial)(void *conn, struct stream *backend,
		    const char *failed, const char **why);
	/* Both streams are open: data starts to flow. */
	void	 (*opened)(void *conn);
	/* The connection has ended: log it; free conn and both ctx. */
	void	 (*closed)(void *conn, const struct forward_end *);
	/* Called for each connection by forward_list(). */
	void	 (*listed)(void *conn, const struct forward_end *);
	/* Once per iteration of the loop: act on signals that were caught. */
	void	 (*woken)(void *arg);
	/* Accepting is paused after this errno: EMFILE, ENOMEM, ... */
	void	 (*accept_paused)(void *arg, int error);
	/* Return 1 if all processes that share the listeners are full. */
	int	 (*full)(void *arg);
};

/* Times are in milliseconds; 0 means no limit. */
struct forward_params {
	const struct forward_calls *calls;
	void	*arg;
	/*
	 * At this limit, a new connection replaces a refused one.  If there is
	 * none, and all processes are full, it replaces the oldest handshake
	 * that has taken FORWARD_DROP_MS.  Otherwise accepting pauses.
	 */
	unsigned max_connections;
	int64_t	 open_ms;		/* per handshake of a stream */
	int64_t	 dial_ms;		/* per backend that is tried */
	int64_t	 idle_ms;		/* without data in both directions */
	int64_t	 half_close_ms;		/* the same, once one side has ended */
	/*
	 * A TCP peer is dead if it was sent data and has acknowledged nothing
	 * for this time.  SO_KEEPALIVE detects it on an idle connection.
	 */
	int64_t	 dead_peer_ms;
	/*
	 * Other processes accept from the same listeners.  They take turns
	 * with epoll(7); with poll(2), each connection wakes all of them.
	 */
	int	 shares_listeners;
	/* If not NULL: byte counters over all connections, always current. */
	volatile uint64_t *in, *out;
};

struct forward;

/* Copies the parameters.  Returns NULL with errno on failure. */
struct forward *forward_new(const struct forward_params *);

/* Abort all connections and free the engine.  NULL is fine; errno is kept. */
void	 forward_free(struct forward *);

#define FORWARD_LISTENERS	64	/* at most */

/*
 * Accept from fd, a non-blocking listening socket.  It is owned by the caller
 * and must stay open until forward_drain().  0, or -1 with errno.
 */
int	 forward_listen(struct forward *, int fd);

/*
 * Add a connection that was accepted elsewhere, from this address.  The engine
 * owns fd, also if this fails.  0, also if accepted() returned NULL; or -1 with
 * errno.
 */
int	 forward_add(struct forward *, int fd, const struct sockaddr *,
	    socklen_t);

/*
 * Every process is full, and a connection waits elsewhere: end a connection
 * that may be replaced, if there is one; see max_connections.
 */
void	 forward_make_room(struct forward *);

#define FORWARD_DROP_MS	1000

/*
 * Call woken() once at this time (CLOCK_MONOTONIC, ms) or earlier.  Of several
 * times set, only the earliest is kept.
 */
void	 forward_wake(struct forward *, int64_t at);

/*
 * The listener is about to be closed: accept the connections in its queue, up
 * to max_connections, until this time (CLOCK_MONOTONIC, ms) at the latest.
 */
void	 forward_accept_queued(struct forward *, int listener, int64_t until);

/*
 * Stop accepting.  Connections that have not finished within ms (0: no limit)
 * are aborted for this reason.  A later call can only shorten the time.
 */
void	 forward_drain(struct forward *, int64_t ms, const char *why);

/* Abort every connection, towards both sides, for this reason. */
void	 forward_abort_all(struct forward *, const char *why);

/* Pass each connection to listed(), with its phase as the reason. */
void	 forward_list(struct forward *);

/*
 * Run until forward_drain() was called and the last connection has ended.  The
 * signal mask is set to mask only during sleep.  0, or -1 with errno.
 */
int	 forward_run(struct forward *, const sigset_t *mask);

#endif
