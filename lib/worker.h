/* worker: a process that serves, forked by the master or by inetd(8). */
#ifndef WORKER_H
#define WORKER_H

#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include "connection.h"

struct service;

#define WORKER_LAST_MS	1000		/* to accept what waits at a stop */

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
	int	 control;		/* the channel to it; or -1 */
	int	 stopping;
	time_t	 complained;		/* of want of resources */
	int64_t	 beat_every;		/* ms, to show that it is alive, or */
	int64_t	 beat_at;		/* 0: nobody wants to know */
};

/*
 * Become a worker that is fit for the network, in this slot of the service: it
 * drops its privileges for good.  The initializer names has_master, control,
 * beat_every and the turn that connections begin with.  -1, having logged why;
 * either way it is to be freed.
 */
int	 worker_init(struct worker *, struct service *, size_t slot);

/*
 * Serve one connection, or all that come (NULL), until that is over, sleeping
 * with that signal mask; an exit status.
 */
int	 worker_run(struct worker *, const struct incoming *,
	    const sigset_t *asleep);

void	 worker_free(struct worker *);

#endif
