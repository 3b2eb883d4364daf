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

#define WORKER_LAST_MS	1000		/* to accept what waits at a stop */
#define WORKER_DROP_MS	1000		/* then a handshake may be dropped */

/* A connection that was there before its process. */
struct incoming {
	int	 fd;
	struct sockaddr_storage sa;
	socklen_t len;
};

/* A process that serves. */
struct worker {
	struct connections all;
	int	 has_master;		/* not so with -i */
	struct relay *relay;		/* behind the connection; or NULL */
	int	 relay_failed;		/* it failed */
	int	 control;		/* the channel to it; or -1 */
	int	 stopping;
	time_t	 pause_logged;		/* when a pause was logged */
	int64_t	 beat_every;		/* ms between signs of life; 0: none */
	int64_t	 beat_at;		/* the next one */
};

/*
 * Among the descriptors of a master with many workers, the numbers of those
 * that a worker keeps may be past its own limit, or the first one past it: they
 * become low ones.
 */
void	 worker_lower_descriptors(struct worker *, struct generation *);

/*
 * Become a worker that is fit for the network, in this slot of a generation: it
 * drops its privileges for good.  The initializer names has_master, control,
 * beat_every and the turn that connections begin with.  -1, having logged why;
 * either way it is to be freed.
 */
int	 worker_init(struct worker *, struct generation *, size_t slot);

/*
 * Tell the master that it is ready, and wait.  1: serve; 0: others failed to
 * start, so leave.
 */
int	 worker_await_release(const struct worker *);

/*
 * Serve one connection, or all that come (NULL), until that is over, sleeping
 * with that signal mask; an exit status: with a relay, how the connection has
 * ended.
 */
int	 worker_run(struct worker *, const struct incoming *,
	    const sigset_t *sleep_mask);

void	 worker_free(struct worker *);

#endif
