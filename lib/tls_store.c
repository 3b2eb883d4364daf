/* tls_store: sealed sessions in memory that all processes share. */
#include <assert.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"
#include "tls_store.h"
#include "util.h"

#define WAYS		8		/* slots per ID */
#define SLOT_SIZE	512		/* without certificates */
#define SLOT_WITH_CLIENT 4096		/* with a client's */

/*
 * Room for one entry.  Later entries have greater stamps; the stamp is odd
 * while the entry is written.  Stamps are unique: an unchanged stamp means that
 * the entry is unchanged since it was read, and may be taken.  A process that
 * is killed while it writes leaves an odd stamp; the slot is then reused in its
 * turn, like others.
 */
struct slot {
	atomic_uint stamp;		/* 0: empty */
	uint32_t len;
	unsigned char id[ID_SIZE];
	unsigned char ticket[];
};

/* In shared memory: contains no pointers, and no trusted sizes. */
struct shared {
	struct ticket_store tickets;
	atomic_uint clock;		/* incremented by 2 for each entry */
	unsigned char slots[];
};

struct tls_sessions {
	struct shared *shared;
	struct tls_sessions_memory memory;
	size_t	 nslots;
	size_t	 slot_size;
	unsigned users;
};

static_assert(offsetof(struct shared, slots) % _Alignof(struct slot) == 0,
    "slots are aligned");

/* Return slot i for an ID, or NULL: there are fewer. */
static struct slot *
slot_for(const struct tls_sessions *s, const unsigned char *id, size_t i)
{
	size_t sets = (s->nslots + WAYS - 1) / WAYS, n;

	if (i >= WAYS || sets == 0)
		return NULL;
	n = (size_t)be_get(id, 4) % sets * WAYS + i;
	return n < s->nslots ?
	    (void *)(s->shared->slots + n * s->slot_size) : NULL;
}

static int
is_of(const struct slot *slot, const unsigned char *id)
{
	return atomic_load(&slot->stamp) != 0 &&
	    memcmp(slot->id, id, ID_SIZE) == 0;
}

/* Return the age of a stamp by the clock; an empty slot is the oldest. */
static unsigned
age(const struct tls_sessions *s, unsigned stamp)
{
	return stamp == 0 ? UINT_MAX : atomic_load(&s->shared->clock) - stamp;
}

/*
 * Return the slot to fill next: the oldest; or, once the ID has most entries,
 * the oldest of these.
 */
static struct slot *
oldest(const struct tls_sessions *s, const unsigned char *id, size_t most)
{
	struct slot *slot, *any = NULL, *own = NULL;
	size_t i, n = 0;

	for (i = 0; (slot = slot_for(s, id, i)) != NULL; i++) {
		unsigned old = age(s, atomic_load(&slot->stamp));

		if (any == NULL || old > age(s, atomic_load(&any->stamp)))
			any = slot;
		if (!is_of(slot, id))
			continue;
		n++;
		if (own == NULL || old > age(s, atomic_load(&own->stamp)))
			own = slot;
	}
	return n >= most ? own : any;
}

void
tls_store_put(const struct tls_sessions *s, const unsigned char *id,
    size_t most, const unsigned char *ticket, size_t len)
{
	unsigned now = atomic_fetch_add(&s->shared->clock, 2) + 2, stamp;
	struct slot *slot = oldest(s, id, most);

	if (slot == NULL || len > tls_store_room(s))
		return;
	stamp = atomic_load(&slot->stamp);
	if (now == 0 || !atomic_compare_exchange_strong(&slot->stamp, &stamp,
	    now + 1))
		return;			/* another process was faster */
	memcpy(slot->id, id, ID_SIZE);
	slot->len = (uint32_t)len;
	memcpy(slot->ticket, ticket, len);
	stamp = now + 1;
	atomic_compare_exchange_strong(&slot->stamp, &stamp, now);
}

/* Copy slot i of an ID.  0, or -1: the entry changed meanwhile. */
static int
copy(const struct tls_sessions *s, const unsigned char *id, size_t i,
    struct tls_kept *k)
{
	const struct slot *slot = slot_for(s, id, i);
	const volatile uint32_t *len = &slot->len;
	unsigned stamp = atomic_load(&slot->stamp);

	k->slot = i;
	k->len = *len;			/* read once: others may change it */
	if (stamp == 0 || stamp % 2 != 0 || k->len > tls_store_room(s) ||
	    k->len > sizeof(k->ticket) || memcmp(slot->id, id, ID_SIZE) != 0)
		return -1;
	memcpy(k->ticket, slot->ticket, k->len);
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load(&slot->stamp) != stamp)
		return -1;
	k->stamp = stamp;
	return 0;
}

int
tls_store_find(const struct tls_sessions *s, const unsigned char *id,
    struct tls_kept *k)
{
	unsigned now = atomic_load(&s->shared->clock), stamp, youngest;
	unsigned min_age = k->stamp == 0 ? 0 : now - k->stamp + 1;
	const struct slot *slot;
	size_t i, at;

	do {
		youngest = UINT_MAX;
		for (at = i = 0; (slot = slot_for(s, id, i)) != NULL; i++) {
			stamp = atomic_load(&slot->stamp);
			if (!is_of(slot, id) || now - stamp < min_age ||
			    now - stamp >= youngest)
				continue;
			youngest = now - stamp;
			at = i;
		}
		min_age = youngest + 1;
	} while (youngest != UINT_MAX && copy(s, id, at, k) == -1);
	return youngest != UINT_MAX ? 0 : -1;
}

int
tls_store_take(const struct tls_sessions *s, const unsigned char *id,
    const struct tls_kept *k)
{
	struct slot *slot = slot_for(s, id, k->slot);
	unsigned stamp = k->stamp;

	return atomic_compare_exchange_strong(&slot->stamp, &stamp, 0) ? 0 : -1;
}

void
tls_store_forget(const struct tls_sessions *s, const unsigned char *id)
{
	struct slot *slot;
	unsigned stamp;
	size_t i;

	for (i = 0; (slot = slot_for(s, id, i)) != NULL; i++) {
		stamp = atomic_load(&slot->stamp);
		if (stamp % 2 == 0 && is_of(slot, id))
			atomic_compare_exchange_strong(&slot->stamp, &stamp,
			    0);
	}
}

/*
 * THE MEMORY
 */

static size_t
slot_size(enum tls_sessions_kind kind)
{
	return kind == TLS_WITH_SERVERS ? sizeof(struct slot) + KEPT_MAX :
	    kind == TLS_WITH_CLIENTS ? SLOT_WITH_CLIENT : SLOT_SIZE;
}

struct ticket_store *
tls_store_keys(const struct tls_sessions *s)
{
	return &s->shared->tickets;
}

size_t
tls_store_entries(const struct tls_sessions *s)
{
	return s->nslots;
}

size_t
tls_store_room(const struct tls_sessions *s)
{
	return s->slot_size - sizeof(struct slot);
}

/* Allocate a store whose memory is not mapped yet. */
static struct tls_sessions *
sessions_alloc(size_t entries, enum tls_sessions_kind kind, int fd)
{
	struct tls_sessions *s;

	if ((s = calloc(1, sizeof(*s))) == NULL)
		return NULL;
	s->users = 1;
	s->shared = MAP_FAILED;
	s->nslots = entries;
	s->slot_size = slot_size(kind);
	s->memory = (struct tls_sessions_memory){ .fd = fd,
	    .size = sizeof(struct shared) + entries * s->slot_size,
	    .entries = entries, .kind = (int)kind };
	return s;
}

struct tls_sessions *
tls_sessions_new(size_t entries, enum tls_sessions_kind kind, int can_move)
{
	struct tls_sessions *s = sessions_alloc(entries, kind, -1);

	if (s == NULL)
		return NULL;
	s->shared = memory_share(s->memory.size, can_move ? &s->memory.fd :
	    NULL);
	if (s->shared != MAP_FAILED)
		return s;
	tls_sessions_free(s);
	return NULL;
}

const char *
tls_sessions_map(const struct tls_sessions_memory *m, struct tls_sessions **s)
{
	const char *why;
	void *p;

	if ((*s = sessions_alloc(m->entries, (enum tls_sessions_kind)m->kind,
	    m->fd)) == NULL)
		return "out of memory";
	if ((why = memory_map(m->fd, (*s)->memory.size, &p)) == NULL) {
		(*s)->shared = p;
		return NULL;
	}
	(*s)->memory.fd = -1;		/* it stays open, for the caller */
	tls_sessions_free(*s);
	*s = NULL;
	return why;
}

struct tls_sessions *
tls_sessions_ref(struct tls_sessions *s)
{
	s->users++;
	return s;
}

void
tls_sessions_free(struct tls_sessions *s)
{
	if (s == NULL || --s->users > 0)
		return;
	if (s->shared != MAP_FAILED)
		munmap(s->shared, s->memory.size);
	close_fd(&s->memory.fd);
	free(s);
}

const struct tls_sessions_memory *
tls_sessions_memory(const struct tls_sessions *s)
{
	return &s->memory;
}

void
tls_sessions_close_fd(struct tls_sessions *s)
{
	if (s != NULL)
		close_fd(&s->memory.fd);
}

void
tls_sessions_adopt(struct tls_sessions *s, const struct tls_sessions *other)
{
	s->shared->tickets.keys = other->shared->tickets.keys;
}
