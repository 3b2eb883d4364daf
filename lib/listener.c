/* listener: the listening sockets of a generation. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "listener.h"
#include "log.h"

#define PAUSE_LOG_EVERY	10		/* seconds */

/* 1 if the path of a Unix socket still refers to it. */
static int
has_path(const struct listener *l)
{
	const struct sockaddr_un *un = (const void *)&l->bound.sa;
	struct stat st;

	return lstat(un->sun_path, &st) == 0 && st.st_ino == l->file.st_ino &&
	    st.st_dev == l->file.st_dev;
}

/* 1 if we created the path: never remove the path of an inherited socket. */
static int
owns_path(const struct listener *l)
{
	return l->address != NULL && l->bound.sa.ss_family == AF_UNIX;
}

/* 1 if both are for the same fd:N, or for the same address. */
static int
is_same_listener(const struct listener *a, const struct listener *b)
{
	if (a->address == NULL || b->address == NULL)
		return a->address == b->address &&
		    a->target->fd == b->target->fd;
	return a->target->any == b->target->any &&
	    a->address->len == b->address->len &&
	    memcmp(&a->address->sa, &b->address->sa, sizeof(a->address->sa)) ==
	    0;
}

static const char *
why_no_listener(int error)
{
	_Static_assert(LISTENERS_MAX == 64, "the text has it");

	switch (error) {
	case E2BIG:
		return "too many addresses (allowed: 64 in all)";
	case EBUSY:
		return "it is not inherited: tunnel has opened it";
	case EEXIST:
		return "it is set twice";
	case ENOTSOCK:
		return "it is not a listening socket";
	default:
		return strerror(error);
	}
}

static int
is_our_own(const struct listeners *ls, int fd)
{
	size_t i;

	for (i = 0; ls != NULL && i < ls->n; i++)
		if (ls->list[i].fd == fd)
			return 1;
	return 0;
}

/* Use the socket of old, if it has one.  1, or 0. */
static int
adopt(struct listener *l, struct listeners *old)
{
	size_t i;

	for (i = 0; old != NULL && i < old->n; i++) {
		struct listener *o = &old->list[i];

		if (!o->kept && is_same_listener(o, l) &&
		    (!owns_path(o) || has_path(o))) {
			l->fd = o->fd;
			l->bound = o->bound;
			l->file = o->file;
			l->kept = o->kept = 1;
			return 1;
		}
	}
	return 0;
}

/* Refuse an fd:N that is given twice or is our own socket.  -1 with errno. */
static int
check_passed(const struct listeners *ls, const struct listeners *old,
    const struct listener *l)
{
	size_t i;

	for (i = 0; i < ls->n; i++) {
		if (is_same_listener(&ls->list[i], l)) {
			errno = EEXIST;
			return -1;
		}
	}
	if (is_our_own(ls, l->target->fd) || is_our_own(old, l->target->fd)) {
		errno = EBUSY;
		return -1;
	}
	return 0;
}

/* Listen on an address of a target (fd:N: NULL).  -1 with errno. */
static int
open_listener(struct listeners *ls, struct listeners *old,
    const struct target *t, const struct address *a, int64_t keepalive_ms)
{
	struct listener *l = &ls->list[ls->n];

	if (ls->n == LISTENERS_MAX) {
		errno = E2BIG;
		return -1;
	}
	l->target = t;
	l->address = a;
	if (adopt(l, old)) {
		ls->n++;
		return 0;
	}
	if (a == NULL && check_passed(ls, old, l) == -1)
		return -1;
	l->fd = a != NULL ? net_listen(a, t->any) : net_inherit(t->fd);
	if (l->fd == -1)
		return -1;
	/* Accepted sockets inherit the options. */
	net_set_socket_options(l->fd, keepalive_ms);
	l->bound.len = sizeof(l->bound.sa);
	getsockname(l->fd, (struct sockaddr *)&l->bound.sa, &l->bound.len);
	net_normalize(&l->bound);
	if (owns_path(l))
		lstat(((const struct sockaddr_un *)(const void *)
		    &l->bound.sa)->sun_path, &l->file);
	ls->n++;
	return 0;
}

int
listeners_new(struct listeners *ls)
{
	ls->n = 0;
	ls->list = calloc(LISTENERS_MAX, sizeof(*ls->list));
	return ls->list != NULL ? 0 : -1;
}

void
listeners_free(struct listeners *ls)
{
	free(ls->list);
	ls->list = NULL;
	ls->n = 0;
}

int
listeners_open(struct listeners *ls, struct listeners *old,
    const struct targets *accepts, int64_t keepalive_ms)
{
	size_t i, j;

	for (i = 0; i < accepts->n; i++) {
		const struct target *t = &accepts->list[i];

		for (j = 0; j < (t->fd != -1 ? 1 : t->to->n); j++) {
			const struct address *a = t->fd != -1 ? NULL :
			    &t->to->list[j];

			if (open_listener(ls, old, t, a,
			    keepalive_ms) == 0)
				continue;
			log_error("%s: accept: %s: %s", t->where,
			    a != NULL ? a->text : t->given,
			    why_no_listener(errno));
			return -1;
		}
	}
	return 0;
}

void
listeners_close(struct listeners *ls, int unlinks)
{
	size_t i;

	for (i = 0; i < ls->n; i++) {
		struct listener *l = &ls->list[i];
		const struct sockaddr_un *un = (const void *)&l->bound.sa;

		if (l->kept)
			continue;
		/* Unlink first: after close(2) another may take the path. */
		if (unlinks && owns_path(l) && has_path(l))
			unlink(un->sun_path);
		close(l->fd);
	}
	ls->n = 0;
}

void
listeners_tune(const struct listeners *ls, int64_t keepalive_ms)
{
	size_t i;

	for (i = 0; i < ls->n; i++)
		if (ls->list[i].kept)
			net_set_socket_options(ls->list[i].fd, keepalive_ms);
}

void
listeners_keep_none(struct listeners *ls)
{
	size_t i;

	for (i = 0; i < ls->n; i++)
		ls->list[i].kept = 0;
}

void
listeners_log_pause(time_t *last, int error)
{
	time_t now = time(NULL);

	if (now - *last < PAUSE_LOG_EVERY)
		return;
	*last = now;
	log_warning("not accepting connections: %s", strerror(error));
}
