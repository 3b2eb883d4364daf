/*
 * poller: wait for ready descriptors, by epoll(7), or by poll(2) if built with
 * POLLER=poll.  It is level-triggered.  Events are POLLIN, POLLOUT, POLLERR and
 * POLLHUP; the last two are always reported.
 */
#ifndef POLLER_H
#define POLLER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * A descriptor to be watched.  The caller owns the descriptor and the struct,
 * which must not move while it is watched.  Set the first three members, and
 * the others to zero.
 */
struct source {
	void	*owner;		/* for the caller */
	int	 fd;
	bool	 is_shared;	/* a listener that other processes poll, too */
	bool	 is_watched;	/* from here on, for the poller */
	short	 events;
	size_t	 slot;		/* poll(2): its index in the poller */
};

struct poller;

/* "epoll" or "poll". */
extern const char *const poller_name;

/* NULL with errno on failure. */
struct poller *poller_new(void);

/* Leaves the sources as they are. */
void	 poller_free(struct poller *);

/*
 * Watch for these events (0: only errors and hang-ups) in place of the previous
 * ones.  0, or -1 with errno.  For each event of a shared source, epoll wakes
 * the first process in its wait queue: to become the last one, drop the source
 * and watch it again.  The events of a watched shared source can't be changed.
 */
int	 poller_watch(struct poller *, struct source *, short events);

/* Stop watching a source.  A source that is not watched is fine. */
void	 poller_drop(struct poller *, struct source *);

/* Drop a source and close its descriptor.  Never close(2) a watched one. */
void	 poller_close(struct poller *, struct source *);

/*
 * Sleep until a source is ready, or for timeout ms (-1: no limit), with this
 * signal mask, as in ppoll(2).  Returns the number of ready sources, or -1 with
 * errno.  EMFILE: poll(2) refuses to watch more than RLIMIT_NOFILE.
 */
int	 poller_wait(struct poller *, int timeout, const sigset_t *mask);

/*
 * Return the next ready source, and its events; NULL after the last one.  Until
 * then, only the source just returned may be dropped or closed.
 */
struct source *poller_next(struct poller *, short *revents);

#endif
