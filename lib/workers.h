/*
 * workers: the processes of a generation, as the master sees them: slots, the
 * control channel of each, back-off, deadlines.  It knows no TLS, no socket to
 * listen on and no configuration.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct order;
struct scoreboard;

/* A worker, or room for one. */
struct slot {
	pid_t	 pid;			/* 0: empty */
	int	 control;		/* the channel to it; or -1 */
	uint32_t row;			/* of the scoreboard */
	int	 released;		/* it was told to begin */
	int64_t	 drop_at;		/* for a connection: if not opened */
};

struct workers {
	struct slot *slots;
	size_t	 nslots;		/* once it leaves: the taken ones */
	size_t	 n;			/* slots that are taken */
	size_t	 next;			/* fork mode: to be looked at */
	int64_t	 deadline;		/* for all to leave; or INT64_MAX */
	unsigned failures;		/* in a row */
	int64_t	 retry_at;		/* after one */
};

/* As many empty slots.  -1: out of memory. */
int	 workers_new(struct workers *, size_t nslots);
void	 workers_free(struct workers *);

/*
 * As fork(2), into an empty slot: in the child, *control is the channel to its
 * master.  It waits to be released; not so with drop_ms, for one connection:
 * after that time, its handshake may be asked to make room.
 */
pid_t	 workers_fork(struct workers *, size_t slot, int64_t drop_ms,
	    int *control);

/* Wait until it is ready.  -1: it was killed instead, or can't be signalled. */
int	 workers_await_ready(const struct workers *, size_t slot);

/* All are ready: let them begin. */
void	 workers_release(struct workers *);

/* Not all are ready: have the others leave. */
void	 workers_dismiss(struct workers *);

/* In a child: close all channels.  Slots stay as they are: shared pages. */
void	 workers_close_channels(const struct workers *);

/* An empty slot: not the one that was used last.  There has to be one. */
size_t	 workers_next(struct workers *);
int	 workers_are_full(const struct workers *);

/* The slot of a process; or NULL. */
struct slot *workers_find(const struct workers *, pid_t);

/* Its process has ended: empty the slot. */
void	 workers_clear(struct workers *, struct slot *);

/*
 * One could not be started, or was killed.  How long to wait before the next
 * try; those that fail meanwhile are the same failure.
 */
int64_t	 workers_failed(struct workers *);

/*
 * The worker for one connection whose handshake goes on for longest, and that
 * was not asked to make room just now; NULL: there is none.
 */
struct slot *workers_oldest_handshake(const struct workers *,
	    const struct scoreboard *);

/*
 * Send an order, and with it a descriptor, or -1.  -1 with errno: EAGAIN if the
 * worker does not take its orders; else, it has left.
 */
int	 workers_send(const struct slot *, const struct order *, int fd);

/* Send all an order about the log; log which don't take it. */
void	 workers_send_log(const struct workers *, const struct order *, int fd);

/* kill(2) all. */
void	 workers_signal(const struct workers *, int sig);

/*
 * Have all leave.  Connections may finish within ms; 0: no limit.  A deadline
 * is brought forward, never put off.
 */
void	 workers_retire(struct workers *, int64_t ms);

/* The same, and connections are aborted. */
void	 workers_abort(struct workers *);

/* Wait until those told to leave accept no more; but not for long. */
void	 workers_await_accept_stop(const struct workers *);

/* Kill all, if their deadline is past. */
void	 workers_kill_late(struct workers *);

/* All are to leave: free the memory of empty slots. */
void	 workers_shrink(struct workers *);

#endif
