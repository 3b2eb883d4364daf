/*
 * listener: the listening sockets of a generation.  The next generation takes
 * over the sockets that it needs too, with the connections in their queues.
 */
#ifndef LISTENER_H
#define LISTENER_H

#include <sys/stat.h>
#include <time.h>

#include "net.h"

#define LISTENERS_MAX	64

struct listener {
	int	 fd;
	const struct target *target;	/* from accept, */
	const struct address *address;	/* one of its; NULL: fd:N */
	struct address bound;
	struct stat file;		/* Unix socket: the file we created */
	int	 kept;			/* shared with another generation */
};

struct listeners {
	struct listener *list;		/* room for LISTENERS_MAX */
	size_t	 n;
};

/* An empty list.  -1: out of memory. */
int	 listeners_new(struct listeners *);

/* Free the list, without closing the sockets. */
void	 listeners_free(struct listeners *);

/*
 * Listen on all addresses of accepts, which must stay valid.  Share sockets
 * that are in old (or NULL) already.  keepalive_ms is passed to
 * net_set_socket_options().  0, or -1, having logged why.
 */
int	 listeners_open(struct listeners *, struct listeners *old,
	    const struct targets *accepts, int64_t keepalive_ms);

/*
 * Close the sockets that are not kept.  unlinks: also remove the paths of Unix
 * sockets; only the master does that.
 */
void	 listeners_close(struct listeners *, int unlinks);

/* Set keepalive on the kept sockets. */
void	 listeners_tune(const struct listeners *, int64_t keepalive_ms);

/*
 * Log the errno for which accepting pauses, at most every 10 s.  *last is the
 * time of the last line; initialise it with 0.
 */
void	 listeners_log_pause(time_t *last, int error);

/* The other generation has closed its sockets: set kept to 0. */
void	 listeners_keep_none(struct listeners *);

#endif
