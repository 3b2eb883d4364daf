/* worker: a process that serves, forked by the master or by inetd(8). */
#ifndef WORKER_H
#define WORKER_H

#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include "connection.h"

struct generation;
struct relay;

#define WORKER_LAST_MS	1000		/* to empty the queues at a stop */
#define WORKER_DROP_MS	1000		/* older handshakes may be dropped */

/* A connection that was accepted by another process. */
struct incoming {
	int	 fd;
	struct sockaddr_storage sa;
	socklen_t len;
};

struct worker {
	struct connections all;
	int	 has_master;		/* 0 with -i */
	struct relay *relay;		/* relay of -i; or NULL */
	int	 relay_failed;
	int	 control;		/* channel to the master; or -1 */
	int	 stopping;
	time_t	 pause_logged;		/* see listeners_log_pause() */
	int64_t	 beat_every;		/* heartbeat interval (ms); 0: none */
	int64_t	 beat_at;		/* the next heartbeat (ms) */
};

/*
 * Move the descriptors of a worker to low numbers.  If the master has many
 * workers, their numbers may be above the worker's own limit, or at it.
 */
void	 worker_lower_descriptors(struct worker *, struct generation *);

/*
 * Prepare a worker for a row of a generation: make its engine, drop privileges,
 * enter the sandbox.  Initialise has_master, control, beat_every and all.turn
 * before.  0, or -1, having logged why; call worker_free() in both cases.
 */
int	 worker_init(struct worker *, struct generation *, size_t slot);

/*
 * Notify the master that the worker is ready, and wait.  1: serve; 0: exit,
 * because another worker failed to start.
 */
int	 worker_await_release(const struct worker *);

/*
 * Serve one connection, or (NULL) all of the listeners until a stop, sleeping
 * with this signal mask.  Returns an exit status: with a relay, that of the
 * connection.
 */
int	 worker_run(struct worker *, const struct incoming *,
	    const sigset_t *sleep_mask);

/* Free a worker, also after a failed worker_init(). */
void	 worker_free(struct worker *);

#endif
