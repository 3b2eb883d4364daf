/*
 * What has been freed is kept for the next who asks for as much: numbers, by
 * the thousand for a signature, and a connection's few large buffers, each of
 * which musl would map and unmap.  Little is kept, and nothing once a burst of
 * connections is over: any chunk may keep pages from the system.
 */
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"

#define STEP		16		/* between sizes; room for a link */
#define SMALL		512		/* bytes, at most */
#define KEPT		1024		/* bytes, of each of these sizes */
#define LARGE		8		/* of all others, */
#define LARGE_MAX	(20 * 1024)	/* up to a record's buffer */
#define BUFFER		(16 * 1024)	/* bytes: each connection has one */
#define BURST		16		/* of them at a time */

struct chunk {
	struct chunk *next;
};

static struct {
	struct chunk *first;
	size_t	 n;
} small[SMALL / STEP + 1];		/* by size, in steps */

static struct {
	void	*p;			/* or NULL */
	size_t	 size;
} large[LARGE];
static size_t oldest;			/* of these */

static size_t buffers, peak;		/* that are in use, and were */

/* A chunk of that size that was kept, or NULL. */
static void *
take(size_t size)
{
	struct chunk *c;
	void *p;
	size_t i;

	if (size <= SMALL) {
		if ((c = small[size / STEP].first) != NULL) {
			small[size / STEP].first = c->next;
			small[size / STEP].n--;
		}
		return c;
	}
	for (i = 0; i < LARGE; i++) {
		if ((p = large[i].p) != NULL && large[i].size == size) {
			large[i].p = NULL;
			return p;
		}
	}
	return NULL;
}

/* Keep it, and return what is to be freed instead: itself, another, or NULL. */
static void *
keep(struct chunk *c, size_t usable)
{
	size_t i = usable / STEP, size = i * STEP;
	void *p = c;

	if (size <= SMALL && small[i].n * size < KEPT) {
		c->next = small[i].first;
		small[i].first = c;
		small[i].n++;
		return NULL;
	}
	if (size > SMALL && size <= LARGE_MAX) {
		i = oldest++ % LARGE;
		p = large[i].p;
		large[i].p = c;
		large[i].size = size;
	}
	return p;
}

static void
keep_none(void)
{
	size_t i, size;

	for (size = 0; size <= SMALL; size += STEP)
		while (small[size / STEP].first != NULL)
			free(take(size));
	for (i = 0; i < LARGE; i++) {
		free(large[i].p);
		large[i].p = NULL;
	}
}

void *
tunnel_calloc(size_t n, size_t size)
{
	void *p = NULL;

	if (size != 0 && n > SIZE_MAX / size)
		return NULL;
	size *= n;
	if (size <= LARGE_MAX) {
		size = size == 0 ? STEP : (size + STEP - 1) / STEP * STEP;
		p = take(size);
	}
	if (p != NULL)
		memset(p, 0, size);
	else if ((p = calloc(1, size)) == NULL)
		return NULL;
	if (size > SMALL && malloc_usable_size(p) > BUFFER &&
	    ++buffers > peak)
		peak = buffers;
	return p;
}

void
tunnel_free(void *p)
{
	size_t usable;

	if (p == NULL)
		return;
	usable = malloc_usable_size(p);
	free(keep(p, usable));
	if (usable > BUFFER && --buffers == 0) {
		if (peak >= BURST)
			keep_none();
		peak = 0;
	}
}
