/*
 * listener: the listening sockets of a generation.  Those that the next one has
 * as well are passed on to it, with what waits in their queues.
 */
#ifndef LISTENER_H
#define LISTENER_H

#include <sys/stat.h>
#include <time.h>

#include "net.h"

#define LISTENERS_MAX	64

struct listener {
	int	 fd;
	const struct target *target;	/* what asked for it, */
	const struct address *address;	/* and which of its; NULL: fd:N */
	struct address bound;
	struct stat file;		/* what it has made, on a Unix socket */
	int	 kept;			/* another generation has it, too */
};

struct listeners {
	struct listener *list;		/* room for LISTENERS_MAX */
	size_t	 n;
};

/* An empty list.  -1: out of memory. */
int	 listeners_new(struct listeners *);

/* Free the list; nothing is closed. */
void	 listeners_free(struct listeners *);

/*
 * Listen on all of accepts, which has to stay as long as they do; sockets that
 * old has already (or NULL) are shared with it.  keepalive_ms: as in
 * net_set_socket_options().  -1, having logged why.
 */
int	 listeners_open(struct listeners *, struct listeners *old,
	    const struct targets *accepts, int64_t keepalive_ms);

/*
 * Close those that no other generation has.  unlinks: also remove the paths of
 * Unix sockets, which is the master's to do.
 */
void	 listeners_close(struct listeners *, int unlinks);

/* Set keepalive on those that came from another generation. */
void	 listeners_tune(const struct listeners *, int64_t keepalive_ms);

/*
 * Log why accepting pauses, an errno, unless that was done not long ago: at
 * *last, which is 0 at first.
 */
void	 listeners_log_pause(time_t *last, int error);

/* No other generation has them any more. */
void	 listeners_keep_none(struct listeners *);

#endif
