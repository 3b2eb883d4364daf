/*
 * scoreboard: memory of the master and its workers.  What has become of
 * connections is counted there by worker; and how many each address has, for
 * max_per_ip.  A process that was killed, or taken over, may leave anything
 * there: no address or index in it is trusted, and faults mend themselves.
 */
#ifndef SCOREBOARD_H
#define SCOREBOARD_H

#include <stddef.h>
#include <stdint.h>

#include "log.h"

struct repeats;

/* Why a handshake has failed, in the classes of statistics. */
enum failure {
	FAILED_TIMEOUT, FAILED_NOT_TLS, FAILED_CERTIFICATE, FAILED_KEY,
	FAILED_NAME, FAILED_PROXY, FAILED_ALERT, FAILED_NOTHING_IN_COMMON,
	FAILED_CLOSED, FAILED_OTHERWISE, FAILURES
};

/* What has become of connections.  Only the process they are of writes. */
struct counts {
	uint64_t live, accepted, served, resumed, no_backend, silent;
	uint64_t over_limit;		/* refused by max_per_ip */
	uint64_t dropped;
	uint64_t refused[FAILURES];
	uint64_t opened[2];		/* in TLS 1.2 and 1.3: its handshake */
	uint64_t in, out;
	uint64_t lost;			/* with a worker that was killed */
	uint64_t beat;			/* it was alive, at (ms) */
	struct log_lost unlogged;	/* lines that it could not report */
};

/*
 * What the processes of a generation share, and each of them knows by the same
 * addresses.
 */
struct scoreboard {
	struct shared *shared;		/* or MAP_FAILED */
	struct repeats *repeats;	/* in there, as all that follows */
	int	 fd;			/* of it, to hand over; or -1 */
	size_t	 size;
	size_t	 max;			/* connections, of all processes */
	size_t	 nrows;			/* of counts: a worker's for good */
	volatile struct counts *counts;
	volatile struct peer *peers;	/* connections by address; or NULL */
	size_t	 npeers;		/* rows: a power of two */
	volatile uint64_t *places;	/* a key for each connection */
	uint64_t secret;		/* of the table: an odd number */
};

/* A worker's part of max_connections, and of the places. */
struct share {
	size_t	 first, n;
	size_t	 used;			/* so many ever were, */
	volatile uint64_t **unused;	/* and these are no longer */
	size_t	 nunused;
};

/* The initializer, before scoreboard_new() or scoreboard_attach(). */
#define SCOREBOARD_NONE	{ .shared = (void *)-1, .fd = -1 }

/*
 * For max connections and as many workers as rows.  alone: for one process,
 * which has no use for places.  -1 with errno; either way it is to be freed.
 */
int	 scoreboard_new(struct scoreboard *, size_t max, size_t nrows,
	    int single);

/*
 * Map the memory of another program, by max, nrows, secret and fd, which are
 * set.  NULL, or why it can't be.
 */
const char *scoreboard_attach(struct scoreboard *);
void	 scoreboard_free(struct scoreboard *);

/* How many of max are a worker's, and those before it are others'. */
size_t	 scoreboard_share(const struct scoreboard *, size_t row,
	    size_t *before);

/* Connections of all workers, at this moment; and are these max? */
uint64_t scoreboard_live(const struct scoreboard *);
int	 scoreboard_is_full(const struct scoreboard *);

/*
 * Log, for all processes once a minute, that they are.  A handshake older than
 * drop_ms makes room for another connection; 0: none does.
 */
void	 scoreboard_warn_full(struct scoreboard *, int drop_ms);

/* The same minute goes on in a new one. */
void	 scoreboard_follow(struct scoreboard *, const struct scoreboard *old);

/* The service ends: no other generation follows. */
void	 scoreboard_stop(struct scoreboard *);
int	 scoreboard_is_stopping(const struct scoreboard *);

/* Connections of the address with that key. */
uint64_t scoreboard_count(struct scoreboard *, uint64_t key);

/*
 * Take a place of a share for a connection of the address with that key; *place
 * is NULL if none is needed.  -1: it has max of them already.
 */
int	 scoreboard_enter(struct scoreboard *, struct share *, uint64_t key,
	    uint64_t max, volatile uint64_t **place);
void	 scoreboard_leave(struct scoreboard *, struct share *, uint64_t key,
	    volatile uint64_t *place);

/* The worker of a row is no more: its places are free. */
void	 scoreboard_vacate(struct scoreboard *, size_t row);

#endif
