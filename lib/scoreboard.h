/*
 * scoreboard: memory shared by the master and its workers.  It has the counters
 * of each worker, and the number of connections of each address, for
 * max_per_ip.  A process that was killed, or is under an attacker's control,
 * may leave any data there.  So no pointer or index in it is trusted, and wrong
 * counts are repaired.
 */
#ifndef SCOREBOARD_H
#define SCOREBOARD_H

#include <stddef.h>
#include <stdint.h>

#include "log.h"

struct repeats;

/* Classes of failed handshakes, for statistics. */
enum failure {
	FAILED_TIMEOUT, FAILED_NOT_TLS, FAILED_CERTIFICATE, FAILED_KEY,
	FAILED_NAME, FAILED_PROXY, FAILED_ALERT, FAILED_NOTHING_IN_COMMON,
	FAILED_CLOSED, FAILED_OTHERWISE, FAILURES
};

/* The counters of a worker.  Only this worker writes them. */
struct counts {
	uint64_t live, accepted, served, resumed, no_backend, silent;
	uint64_t over_limit;		/* refused by max_per_ip */
	uint64_t dropped;		/* in the handshake, to make room */
	uint64_t refused[FAILURES];	/* failed handshakes */
	uint64_t opened[2];		/* handshakes of TLS 1.2 and 1.3 */
	uint64_t in, out;		/* bytes */
	uint64_t lost;			/* with a killed worker */
	uint64_t beat;			/* the last heartbeat (ms) */
	struct log_lost unlogged;	/* lost lines, for the master */
};

/*
 * The memory of a generation.  All its processes map it at the same address, so
 * each has the same pointers.
 */
struct scoreboard {
	struct shared *shared;		/* the memory; or MAP_FAILED */
	struct repeats *repeats;	/* all pointers are into it */
	int	 fd;			/* the memory, to hand over; or -1 */
	size_t	 size;
	size_t	 max;			/* connections of all workers */
	size_t	 nrows;			/* counts: one for each slot */
	volatile struct counts *counts;
	volatile struct peer *peers;	/* connections by address; or NULL */
	size_t	 npeers;		/* rows: a power of two */
	volatile uint64_t *places;	/* the key of each connection */
	uint64_t secret;		/* for hashing keys: an odd number */
};

/* The share of a worker in max_connections and in the places. */
struct share {
	size_t	 first, n;		/* the range of places */
	size_t	 used;			/* places that were ever used */
	volatile uint64_t **unused;	/* places that are free again */
	size_t	 nunused;
};

/* Initializer, before scoreboard_new() or scoreboard_attach(). */
#define SCOREBOARD_NONE	{ .shared = (void *)-1, .fd = -1 }

/*
 * Make a scoreboard for max connections and nrows workers.  single: for one
 * process, without places.  0, or -1 with errno; call scoreboard_free() in both
 * cases.
 */
int	 scoreboard_new(struct scoreboard *, size_t max, size_t nrows,
	    int single);

/*
 * Map the memory of another program, by max, nrows, secret and fd.  NULL, or
 * the error.
 */
const char *scoreboard_attach(struct scoreboard *);
void	 scoreboard_free(struct scoreboard *);

/* The share of a row in max, and in *before the sum of the rows before it. */
size_t	 scoreboard_share(const struct scoreboard *, size_t row,
	    size_t *before);

/* The present connections of all workers; 1 if they are max. */
uint64_t scoreboard_live(const struct scoreboard *);
int	 scoreboard_is_full(const struct scoreboard *);

/*
 * Log that max_connections is reached, once a minute for all processes.  New
 * connections replace handshakes older than drop_ms; 0: none.
 */
void	 scoreboard_warn_full(struct scoreboard *, int drop_ms);

/* Continue the minute of the previous generation. */
void	 scoreboard_follow(struct scoreboard *, const struct scoreboard *old);

/* The service stops: no other generation follows. */
void	 scoreboard_stop(struct scoreboard *);
int	 scoreboard_is_stopping(const struct scoreboard *);

/* The number of connections of an address, by its peer_key(). */
uint64_t scoreboard_count(struct scoreboard *, uint64_t key);

/*
 * Take a place of a share for a connection of the address with this key; *place
 * is NULL if none is needed.  0, or -1: the address has max connections.
 */
int	 scoreboard_enter(struct scoreboard *, struct share *, uint64_t key,
	    uint64_t max, volatile uint64_t **place);
void	 scoreboard_leave(struct scoreboard *, struct share *, uint64_t key,
	    volatile uint64_t *place);

/* The worker of a row has exited: free its places. */
void	 scoreboard_vacate(struct scoreboard *, size_t row);

#endif
