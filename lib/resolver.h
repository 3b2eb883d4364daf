/*
 * resolver: look up the addresses of names.  The master reads no data from the
 * network, so a child without privileges looks up each name.  The addresses are
 * in memory shared with the workers, which is read-only for them.
 */
#ifndef RESOLVER_H
#define RESOLVER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct identity;
struct target;
struct targets;

#define RESOLVER_MS	10000		/* for one name */

/* A lookup in progress. */
struct resolver {
	pid_t	 child;			/* 0: none */
	int	 fd;			/* pipe with its answer */
	int64_t	 kill_at;		/* deadline (ms) */
};

/*
 * Memory shared by master and workers: the addresses of each name, from its
 * last successful lookup.
 */
struct names {
	struct row *rows;		/* writable, in the master; or NULL */
	const struct row *view;		/* a read-only mapping, for workers */
	size_t	 n;			/* rows */
	int	 fd;			/* the memory, to hand over; or -1 */
};

/* Initializer: no memory. */
#define NAMES_NONE	{ .fd = -1 }

/*
 * Start a child that looks up the name of a target.  It runs as this identity,
 * or as nobody in place of root, and calls leave(arg) to free secrets.  0, or
 * -1 with errno.
 */
int	 resolver_start(struct resolver *, const struct target *,
	    const struct identity *, void (*leave)(void *), void *arg);

/* At the deadline: kill the child, which the caller reaps. */
void	 resolver_kill(struct resolver *);

/* Wait for the answer until the deadline.  Kills and reaps the child. */
void	 resolver_await(struct resolver *);

/* Cancel the lookup. */
void	 resolver_stop(struct resolver *);

/*
 * The child has ended: take its answer for the target, and write it to shared
 * memory if there is a row for the target.  1: the addresses have changed; 0:
 * they have not; -1 with the error as a clause, and errno EAGAIN if a retry may
 * succeed: nothing is changed.  *is_cut: more than ADDRESSES were found.
 */
int	 resolver_take(struct resolver *, struct target *, struct names *,
	    int *is_cut, const char **why);

/* Number the rows of the names among these targets.  Returns their count. */
size_t	 resolver_number(const struct targets *);

/* Number the names, and share their addresses.  0, or -1 with errno. */
int	 resolver_share(struct names *, const struct targets *);

/* Map the memory of another program, by n and fd.  NULL, or the error. */
const char *resolver_attach(struct names *);

/* In a worker: make the memory read-only. */
void	 resolver_leave(struct names *);
void	 resolver_free(struct names *);

/*
 * Update a target with the present addresses of its name.  Connections that
 * hold the previous addresses keep them.  If the row is just being written, or
 * memory is short, the target keeps its addresses.
 */
void	 resolver_refresh(const struct names *, struct target *);

#endif
