/* poller: wait for ready descriptors, by epoll(7) or poll(2). */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef POLLER_POLL
#include <sys/epoll.h>
#endif

#include "poller.h"

#ifndef POLLER_POLL
#define EVENTS		64		/* per epoll_pwait(2) */

const char *const poller_name = "epoll";

static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR
    && EPOLLHUP == POLLHUP, "epoll's bits are poll's");

struct poller {
	int	 fd;
	int	 at, n;			/* in ready[] */
	struct epoll_event ready[EVENTS];
};

struct poller *
poller_new(void)
{
	struct poller *p;

	if ((p = calloc(1, sizeof(*p))) == NULL)
		return NULL;
	if ((p->fd = epoll_create1(EPOLL_CLOEXEC)) == -1) {
		free(p);
		return NULL;
	}
	return p;
}

void
poller_free(struct poller *p)
{
	close(p->fd);
	free(p);
}

int
poller_watch(struct poller *p, struct source *s, short events)
{
	struct epoll_event ev = { .events = (uint32_t)events,
	    .data.ptr = s };
	int op = s->is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (s->is_watched && s->events == events)
		return 0;
	/* Without it, a connection would wake all processes. */
	if (s->is_shared)
		ev.events |= EPOLLEXCLUSIVE;
	if (epoll_ctl(p->fd, op, s->fd, &ev) == -1)
		return -1;
	s->is_watched = 1;
	s->events = events;
	return 0;
}

void
poller_drop(struct poller *p, struct source *s)
{
	if (s->is_watched)
		epoll_ctl(p->fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->is_watched = 0;
}

int
poller_wait(struct poller *p, int timeout, const sigset_t *mask)
{
	p->at = 0;
	p->n = epoll_pwait(p->fd, p->ready, EVENTS, timeout, mask);
	return p->n;
}

struct source *
poller_next(struct poller *p, short *revents)
{
	const struct epoll_event *ev = &p->ready[p->at];

	if (p->at >= p->n)
		return NULL;
	p->at++;
	*revents = (short)ev->events;
	return ev->data.ptr;
}

#else

const char *const poller_name = "poll";

struct poller {
	struct pollfd *fds;
	struct source **sources;
	size_t	 n, size;
	size_t	 left;			/* not yet checked by poller_next() */
};

struct poller *
poller_new(void)
{
	return calloc(1, sizeof(struct poller));
}

void
poller_free(struct poller *p)
{
	free(p->fds);
	free(p->sources);
	free(p);
}

static int
poller_grow(struct poller *p)
{
	size_t size = p->size == 0 ? 16 : p->size * 2;
	struct source **sources;
	struct pollfd *fds;

	if ((fds = realloc(p->fds, size * sizeof(*fds))) == NULL)
		return -1;
	p->fds = fds;
	sources = realloc(p->sources, size * sizeof(*sources));
	if (sources == NULL)
		return -1;
	p->sources = sources;
	p->size = size;
	return 0;
}

int
poller_watch(struct poller *p, struct source *s, short events)
{
	if (!s->is_watched) {
		if (p->n == p->size && poller_grow(p) == -1)
			return -1;
		s->slot = p->n++;
		p->sources[s->slot] = s;
		p->fds[s->slot].fd = s->fd;
		p->fds[s->slot].revents = 0;
		s->is_watched = 1;
	}
	p->fds[s->slot].events = events;
	s->events = events;
	return 0;
}

void
poller_drop(struct poller *p, struct source *s)
{
	if (!s->is_watched)
		return;
	p->n--;
	p->fds[s->slot] = p->fds[p->n];
	p->sources[s->slot] = p->sources[p->n];
	p->sources[s->slot]->slot = s->slot;
	s->is_watched = 0;
}

int
poller_wait(struct poller *p, int timeout, const sigset_t *mask)
{
	struct timespec ts = { .tv_sec = timeout / 1000,
	    .tv_nsec = timeout % 1000 * 1000000L };
	int n;

	n = ppoll(p->fds, (nfds_t)p->n, timeout < 0 ? NULL : &ts, mask);
	p->left = n > 0 ? p->n : 0;
	if (n == -1 && errno == EINVAL)		/* poll(2), ERRORS */
		errno = EMFILE;
	return n;
}

/* Go backwards: poller_drop() moves the last source to the free slot. */
struct source *
poller_next(struct poller *p, short *revents)
{
	while (p->left > 0) {
		*revents = p->fds[--p->left].revents;
		if (*revents != 0)
			return p->sources[p->left];
	}
	return NULL;
}

#endif

/*
 * close(2) is not enough: a child process, or another one by pidfd_getfd(2) or
 * /proc, may still have the same socket open.  epoll would then report events
 * with a pointer to a freed source.
 */
void
poller_close(struct poller *p, struct source *s)
{
	poller_drop(p, s);
	close(s->fd);
}
