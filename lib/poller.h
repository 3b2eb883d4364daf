/*
 * poller: which descriptors are ready.  By epoll(7), or by poll(2) if it is
 * built with POLLER=poll.  Level-triggered; events are POLLIN, POLLOUT,
 * POLLERR and POLLHUP, the last two of which are reported wanted or not.
 */
#ifndef POLLER_H
#define POLLER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * A descriptor to be watched.  It is the caller's, and so is its memory, which
 * must stay where it is while it is watched.  All zero but for the first three
 * is a source that is not watched.
 */
struct source {
	void	*owner;		/* whatever the caller needs to know */
	int	 fd;
	bool	 is_shared;	/* a listener that other processes poll, too */
	bool	 is_watched;	/* the poller's, from here on */
	short	 events;
	size_t	 slot;		/* its index there, for poll(2) */
};

struct poller;

/* "epoll" or "poll". */
extern const char *const poller_name;

/* NULL with errno on failure. */
struct poller *poller_new(void);

/* The sources, watched or not, stay as they are. */
void	 poller_free(struct poller *);

/*
 * Watch for these events (0: for errors and hang-ups alone) in place of those
 * before.  0, or -1 with errno.  epoll wakes one process for each event of a
 * shared source, the first in line: to go to the end of the line, drop it and
 * watch it anew.  Its events can't be changed meanwhile.
 */
int	 poller_watch(struct poller *, struct source *, short events);

/* Watch it no more.  One not watched is fine. */
void	 poller_drop(struct poller *, struct source *);

/* The same, and close its descriptor: never by close(2) while it is watched. */
void	 poller_close(struct poller *, struct source *);

/*
 * Sleep until a source is ready, or for timeout ms (-1: no limit); meanwhile
 * the signal mask is mask, as in ppoll(2).  How many are ready, or -1 with
 * errno.  EMFILE: poll(2) refuses to watch more than RLIMIT_NOFILE.
 */
int	 poller_wait(struct poller *, int timeout, const sigset_t *mask);

/*
 * The next of those that are ready, and its events; NULL: that was the last.
 * Until then, only the source just returned may be dropped or closed.
 */
struct source *poller_next(struct poller *, short *revents);

#endif
