/*
 * forward: the engine.  One event loop over any number of connections; each
 * is a client stream and a backend stream, spliced in both directions.  It
 * knows no TLS library, no address and no configuration: what a stream is,
 * is told by its operations; what happens around it, by callbacks.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct stream;

/* How a connection ended, or how it is doing.  Valid during the call. */
struct forward_end {
	const char *reason;	/* "closed", "truncated", ...; or its phase */
	int	 served;	/* data could flow: both streams were opened */
	int	 dropped;	/* in its handshake, to make room for another */
	uint64_t in;		/* bytes from the client */
	uint64_t out;		/* bytes to the client */
	int64_t	 ms;		/* since it was accepted */
};

struct forward_calls {
	/*
	 * A connection came in on fd, from addr (of len bytes, perhaps 0).
	 * Fill in the client's ops and ctx, and return what the other calls
	 * shall be given, or NULL to have the descriptor closed.
	 */
	void	*(*accepted)(void *arg, int fd, const struct sockaddr *addr,
		    socklen_t len, struct stream *client);
	/*
	 * Begin to open the next backend for a connection: fill in ops, ctx
	 * and fd, connected or in progress.  stream_reset() before that has
	 * it aborted if this process is killed before it was told an end.
	 * failed is NULL at first, later why the one before did not open.
	 * -1: there is none left to try; *why, valid until the next call,
	 * becomes the reason.
	 */
	int	 (*dial)(void *conn, struct stream *backend,
		    const char *failed, const char **why);
	/* The connection is over: log it, free it, and what ctx points to. */
	void	 (*closed)(void *conn, const struct forward_end *);
	/* It is alive; forward_list() asked. */
	void	 (*listed)(void *conn, const struct forward_end *);
	/* Once a turn: the place to act on what a signal has left behind. */
	void	 (*woken)(void *arg);
	/* Accepting pauses, most likely for want of descriptors (errno). */
	void	 (*starved)(void *arg, int error);
	/* This process is full: are all that accept from its listeners? */
	int	 (*full)(void *arg);
};

/* Times are in milliseconds; 0 is no limit. */
struct forward_params {
	const struct forward_calls *calls;
	void	*arg;
	/*
	 * Past it, a new connection takes the place of one that was refused or,
	 * if all are full, of the oldest that is in its handshake, once that
	 * takes FORWARD_DROP_MS; where there is none, accepting pauses.
	 */
	unsigned max_connections;
	int64_t	 open_ms;		/* a client's handshake */
	int64_t	 dial_ms;		/* each backend that is tried */
	int64_t	 idle_ms;		/* since the last byte either way */
	int64_t	 linger_ms;		/* the same, once one side has ended */
	/*
	 * For a peer on TCP to answer, when it is sent something: one that does
	 * not is dead.  Who is sent nothing is SO_KEEPALIVE's to find out.
	 */
	int64_t	 answer_ms;
	/* Bytes are added here as they move, if not NULL: see forward_end. */
	volatile uint64_t *in, *out;
};

struct forward;

/* The name of the poller this was built with: "epoll" or "poll". */
extern const char *const forward_poller;

/* The parameters are copied.  NULL with errno on failure. */
struct forward *forward_new(const struct forward_params *);

/* Connections that are left are cut.  NULL is fine.  errno is kept. */
void	 forward_free(struct forward *);

/* As many listeners can there be. */
#define FORWARD_LISTENERS	64

/*
 * Accept from fd, a non-blocking listening socket, which stays the caller's
 * and must stay open until forward_drain().  Other processes may accept from
 * it as well: with epoll they take turns.  0, or -1 with errno.
 */
int	 forward_listen(struct forward *, int fd);

/*
 * Enter one connection that was accepted elsewhere; fd is the engine's from
 * here on, whatever happens.  0, or -1 with errno (0: it was turned away).
 */
int	 forward_add(struct forward *, int fd, const struct sockaddr *,
	    socklen_t);

/*
 * All is full, and somebody waits elsewhere: end the one connection that a new
 * one may take the place of, if there is such; see max_connections.
 */
void	 forward_make_room(struct forward *);

#define FORWARD_DROP_MS	1000

/*
 * Have woken called once at that time (CLOCK_MONOTONIC, ms), or before: of
 * several times it is the first that counts.
 */
void	 forward_wake(struct forward *, int64_t at);

/*
 * Nobody will accept from this listener any more: enter what waits there, as
 * far as there is room, until that time (CLOCK_MONOTONIC, ms) at the latest.
 */
void	 forward_empty(struct forward *, int listener, int64_t until);

/*
 * Accept no more.  Connections may finish within ms (0: no limit), then they
 * are cut.  A later call may bring that moment forward, never put it off.
 */
void	 forward_drain(struct forward *, int64_t ms);

/* Cut every connection, both ways, now. */
void	 forward_cut(struct forward *);

/* Have each connection told to the listed callback. */
void	 forward_list(struct forward *);

/*
 * Run until drained and the last connection is over.  Signals are as in mask
 * while it sleeps, and only then.  0, or -1 with errno.
 */
int	 forward_run(struct forward *, const sigset_t *mask);

#endif
