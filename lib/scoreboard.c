/* scoreboard: counts, and connections by address, in shared memory. */
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "memory.h"
#include "repeats.h"
#include "scoreboard.h"
#include "util.h"

#define PROBES		1024		/* per search; more are a fault */
#define FULL_EVERY_MS	60000		/* between scoreboard_warn_full() */

/* The number of connections of an address, for max_per_ip. */
struct peer {
	uint64_t key;			/* 0: the row is free */
	uint64_t count;
};

/* Shared by master and workers. */
struct shared {
	atomic_flag lock;		/* for all but the counts */
	uint64_t warned;		/* time of the last warning (ms) */
	volatile int stopping;
	struct repeats repeats;
	struct counts counts[];		/* one for each row */
};

/* Set the sizes from max and nrows.  single: without places. */
static void
scoreboard_measure(struct scoreboard *b, int single)
{
	size_t nplaces = single ? 0 : b->max;

	/* At most half full, for a short search. */
	for (b->npeers = single ? 0 : 2; b->npeers < 2 * nplaces;)
		b->npeers *= 2;
	b->size = sizeof(*b->shared) + nplaces * sizeof(*b->places) +
	    b->npeers * sizeof(*b->peers) + b->nrows * sizeof(*b->counts);
}

/* Set the pointers into the memory. */
static void
scoreboard_lay_out(struct scoreboard *b)
{
	b->counts = b->shared->counts;
	b->repeats = &b->shared->repeats;
	if (b->npeers > 0) {
		b->peers = (void *)(b->counts + b->nrows);
		b->places = (void *)(b->peers + b->npeers);
	}
}

int
scoreboard_new(struct scoreboard *b, size_t max, size_t nrows, int single)
{
	b->max = max;
	b->nrows = nrows;
	scoreboard_measure(b, single);
	b->shared = memory_share(b->size, single ? NULL : &b->fd);
	if (b->shared == MAP_FAILED ||
	    getentropy(&b->secret, sizeof(b->secret)) == -1)
		return -1;
	b->secret |= 1;
	scoreboard_lay_out(b);
	return 0;
}

const char *
scoreboard_attach(struct scoreboard *b)
{
	const char *why;

	scoreboard_measure(b, 0);
	if ((why = memory_map(b->fd, b->size, (void **)&b->shared)) == NULL)
		scoreboard_lay_out(b);
	return why;
}

void
scoreboard_free(struct scoreboard *b)
{
	if (b->shared != MAP_FAILED)
		munmap(b->shared, b->size);
	close_fd(&b->fd);
}

size_t
scoreboard_share(const struct scoreboard *b, size_t row, size_t *before)
{
	size_t each = b->max / b->nrows, rest = b->max % b->nrows;

	*before = each * row + (row < rest ? row : rest);
	return each + (row < rest);
}

uint64_t
scoreboard_live(const struct scoreboard *b)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < b->nrows; i++)
		n += b->counts[i].live;
	return n;
}

/* Hash a key with a secret, so that clients can't choose collisions. */
static size_t
peer_home(const struct scoreboard *b, uint64_t key)
{
	key *= b->secret;
	key = (key ^ key >> 32) * b->secret;
	return (size_t)(key >> 32) & (b->npeers - 1);
}

/*
 * The row of a key, or the free row for it.  In a damaged table, it may be any
 * row: stop after PROBES, as a complete search would take too long.
 */
static size_t
peer_find(const struct scoreboard *b, uint64_t key)
{
	size_t i = peer_home(b, key), n;

	for (n = 0; n < PROBES && b->peers[i].key != 0 &&
	    b->peers[i].key != key; n++)
		i = (i + 1) & (b->npeers - 1);
	return i;
}

static void
peer_add(struct scoreboard *b, uint64_t key)
{
	volatile struct peer *p = &b->peers[peer_find(b, key)];

	if (p->key != key)
		p->count = 0;
	p->key = key;
	p->count++;
}

/* Count down.  At 0 free the row, and move displaced rows up. */
static void
peer_remove(struct scoreboard *b, uint64_t key)
{
	size_t mask = b->npeers - 1, i = peer_find(b, key), free_row = i, n;

	if (b->peers[i].key != key || b->peers[i].count-- > 1)
		return;
	for (n = 1; n < b->npeers && n < PROBES; n++) {
		i = (i + 1) & mask;
		if (b->peers[i].key == 0)
			break;
		if (((i - peer_home(b, b->peers[i].key)) & mask) <
		    ((i - free_row) & mask))
			continue;
		b->peers[free_row].key = b->peers[i].key;
		b->peers[free_row].count = b->peers[i].count;
		free_row = i;
	}
	b->peers[free_row].key = 0;
}

/* A killed worker may have left an inconsistent table: rebuild it. */
void
scoreboard_vacate(struct scoreboard *b, size_t row)
{
	size_t i, first, n = scoreboard_share(b, row, &first);
	uint64_t left = 0;

	for (i = first; b->peers != NULL && i < first + n; i++) {
		left |= b->places[i];
		b->places[i] = 0;
	}
	if (left == 0)
		return;
	memory_lock(&b->shared->lock);
	for (i = 0; i < b->npeers; i++)
		b->peers[i].key = 0;
	for (i = 0; i < b->max; i++)
		if (b->places[i] != 0)
			peer_add(b, b->places[i]);
	memory_unlock(&b->shared->lock);
}

static uint64_t
peer_count(const struct scoreboard *b, uint64_t key)
{
	const volatile struct peer *p = &b->peers[peer_find(b, key)];

	return p->key == key ? p->count : 0;
}

uint64_t
scoreboard_count(struct scoreboard *b, uint64_t key)
{
	uint64_t n;

	memory_lock(&b->shared->lock);
	n = peer_count(b, key);
	memory_unlock(&b->shared->lock);
	return n;
}

/*
 * Set the place before the table, and clear it after: if the process is killed
 * in between, scoreboard_vacate() finds the place and rebuilds the table.
 */
int
scoreboard_enter(struct scoreboard *b, struct share *share, uint64_t key,
    uint64_t max, volatile uint64_t **place)
{
	*place = NULL;
	if (b->peers == NULL || key == 0)
		return 0;
	memory_lock(&b->shared->lock);
	if (peer_count(b, key) < max) {
		*place = share->nunused > 0 ?
		    share->unused[--share->nunused] :
		    &b->places[share->first + share->used++];
		**place = key;
		peer_add(b, key);
	}
	memory_unlock(&b->shared->lock);
	return *place != NULL ? 0 : -1;
}

void
scoreboard_leave(struct scoreboard *b, struct share *share, uint64_t key,
    volatile uint64_t *place)
{
	if (place == NULL)
		return;
	memory_lock(&b->shared->lock);
	peer_remove(b, key);
	*place = 0;
	memory_unlock(&b->shared->lock);
	share->unused[share->nunused++] = place;
}

int
scoreboard_is_full(const struct scoreboard *b)
{
	return scoreboard_live(b) >= b->max;
}

void
scoreboard_warn_full(struct scoreboard *b, int drop_ms)
{
	uint64_t now = (uint64_t)clock_ms();
	int due;

	memory_lock(&b->shared->lock);
	due = b->shared->warned == 0 ||
	    now - b->shared->warned >= FULL_EVERY_MS;
	if (due)
		b->shared->warned = now;
	memory_unlock(&b->shared->lock);
	if (due && drop_ms == 0)
		log_warning("max_connections reached: %zu; new connections "
		    "wait", b->max);
	else if (due)
		log_warning("max_connections reached: %zu; new connections "
		    "replace handshakes older than %d s, or wait",
		    b->max, drop_ms / 1000);
}

void
scoreboard_follow(struct scoreboard *b, const struct scoreboard *old)
{
	b->shared->warned = old->shared->warned;
}

void
scoreboard_stop(struct scoreboard *b)
{
	b->shared->stopping = 1;
}

int
scoreboard_is_stopping(const struct scoreboard *b)
{
	return b->shared->stopping;
}
