/*
 * resolver: the addresses of names.  The master reads nothing that comes from
 * the network: a child of its own, without privileges, looks one name up.  What
 * it has found is shared with the workers, which can only read it.
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

/* A name that is being looked up. */
struct resolver {
	pid_t	 child;			/* 0: there is none */
	int	 fd;			/* to read its answer from */
	int64_t	 kill_at;		/* the end of its time (ms) */
};

/*
 * Memory of master and workers: the addresses of each name, as of the last
 * lookup that succeeded.
 */
struct names {
	struct row *rows;		/* the master's; or NULL */
	const struct row *view;		/* the same, as workers know it */
	size_t	 n;
	int	 fd;			/* of it, to hand over; or -1 */
};

/* The initializer: no memory. */
#define NAMES_NONE	{ .fd = -1 }

/*
 * Start a child that looks a target's name up.  It becomes that user, or
 * nobody in place of root; leave(arg) lets go of secrets there.  -1 with errno.
 */
int	 resolver_start(struct resolver *, const struct target *,
	    const struct identity *, void (*leave)(void *), void *arg);

/* Kill it: its time is over, and its end will be seen as that of any child. */
void	 resolver_kill(struct resolver *);

/* Wait for its answer, until its time is over; it has ended then. */
void	 resolver_await(struct resolver *);

/* End it; its answer is not wanted. */
void	 resolver_stop(struct resolver *);

/*
 * Its child has ended: take its answer, for the target that was looked up, into
 * the memory that is shared as well, if there is a row for it.  1: the target
 * has other addresses than before; 0: the same; -1 with why not as a clause,
 * and errno EAGAIN if it may be right in a minute: all is as it was.  *is_cut:
 * there were more than ADDRESSES.
 */
int	 resolver_take(struct resolver *, struct target *, struct names *,
	    int *is_cut, const char **why);

/* Give each name among these targets its row; how many there are. */
size_t	 resolver_number(const struct targets *);

/* Share the addresses of these names, which get their rows.  -1 with errno. */
int	 resolver_share(struct names *, const struct targets *);

/* The memory of another program, by n and fd, which are set; or why not. */
const char *resolver_attach(struct names *);

/* In a worker: from here on it can be read, and no more. */
void	 resolver_leave(struct names *);
void	 resolver_free(struct names *);

/*
 * Let a target have the addresses that its name has now; connections that use
 * the previous ones keep those.  If it can't be done at this moment, the target
 * keeps them, too.
 */
void	 resolver_refresh(const struct names *, struct target *);

#endif
