/*
 * workers: the worker processes of a generation, for the master: slots, control
 * channels, back-off, deadlines.  It does not depend on TLS, listeners or
 * configuration.
 */
#ifndef WORKERS_H
#define WORKERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct order;
struct scoreboard;

/* A worker, or room for one.  Times are CLOCK_MONOTONIC, in ms. */
struct slot {
	pid_t	 pid;			/* 0: empty */
	int	 control;		/* channel to the worker; or -1 */
	uint32_t row;			/* in the scoreboard */
	int	 released;		/* workers_release() was called */
	int64_t	 drop_at;		/* fork: when a handshake is old */
};

struct workers {
	struct slot *slots;
	size_t	 nslots;		/* once retired: the used ones */
	size_t	 n;			/* used slots */
	size_t	 next;			/* fork: where to look for a slot */
	int64_t	 deadline;		/* for all to exit; or INT64_MAX */
	unsigned failures;		/* in a row */
	int64_t	 retry_at;		/* no start before */
};

/* Allocate empty slots.  0, or -1: out of memory. */
int	 workers_new(struct workers *, size_t nslots);
void	 workers_free(struct workers *);

/*
 * As fork(2), into an empty slot.  In the child, *control is the channel to the
 * master.  The child waits to be released if drop_ms is 0.  Otherwise it serves
 * one connection, and may be ordered to make room if it is still in the
 * handshake after drop_ms.
 */
pid_t	 workers_fork(struct workers *, size_t slot, int64_t drop_ms,
	    int *control);

/* Wait until a worker is ready.  0, or -1: killed, or it can't be signalled. */
int	 workers_await_ready(const struct workers *, size_t slot);

/* All are ready: let them serve. */
void	 workers_release(struct workers *);

/* Not all are ready: make the unreleased ones exit. */
void	 workers_dismiss(struct workers *);

/* In a child: close all channels.  Slots are not modified: shared pages. */
void	 workers_close_channels(const struct workers *);

/* An empty slot, but not the last one used.  There must be one. */
size_t	 workers_next(struct workers *);
int	 workers_are_full(const struct workers *);

/* The slot of a process; or NULL. */
struct slot *workers_find(const struct workers *, pid_t);

/* Empty the slot of a process that has exited. */
void	 workers_clear(struct workers *, struct slot *);

/*
 * A worker could not be started, or was killed.  Returns the time until the
 * next start (ms).  Failures before that time count as the same failure.
 */
int64_t	 workers_failed(struct workers *);

/*
 * Fork mode: the worker with the oldest handshake, by drop_at, which the caller
 * moves after an order to make room.  NULL: none.
 */
struct slot *workers_oldest_handshake(const struct workers *,
	    const struct scoreboard *);

/*
 * Send an order, with a descriptor or -1.  0, or -1 with errno: EAGAIN if the
 * worker does not read its orders; otherwise it has exited.
 */
int	 workers_send(const struct slot *, const struct order *, int fd);

/* Send an order about the log to all.  Log which workers do not read it. */
void	 workers_send_log(const struct workers *, const struct order *, int fd);

/* Send a signal to all. */
void	 workers_signal(const struct workers *, int sig);

/*
 * Make all drain and exit: connections may finish within ms; 0: no limit.  A
 * later call can only shorten the time limit.  is_reload: the reason for
 * aborting them is reload_timeout, else drain_timeout.
 */
void	 workers_retire(struct workers *, int64_t ms, int is_reload);

/* Make all abort their connections and exit. */
void	 workers_abort(struct workers *);

/* Wait until retired workers have stopped accepting, for 1 s at most. */
void	 workers_await_accept_stop(const struct workers *);

/* Kill all after their deadline. */
void	 workers_kill_late(struct workers *);

/* All are retired: free the memory of empty slots. */
void	 workers_shrink(struct workers *);

#endif
