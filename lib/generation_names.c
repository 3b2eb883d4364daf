/* generation_names: the names of a generation, and what is told of lookups. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "generation.h"
#include "log.h"
#include "net.h"
#include "resolver.h"
#include "util.h"

#define LIST_SIZE	1024		/* of addresses, as text */

static struct target *
find_name(const struct targets *all, size_t *i)
{
	size_t j;

	for (j = 0; j < all->n; j++)
		if (all->list[j].is_name && (*i)-- == 0)
			return &all->list[j];
	return NULL;
}

struct target *
generation_name(const struct generation *g, size_t i, int with_accepts)
{
	struct target *t = find_name(&g->backends, &i);

	return t != NULL || !with_accepts ? t : find_name(&g->accepts, &i);
}

/* In the child: no secret, and nothing that others read. */
static void
forget(void *generation)
{
	struct generation *g;

	for (g = generation; g != NULL; g = g->older) {
		generation_close(g);
		scoreboard_free(&g->board);
	}
}

/* The same of one that is being loaded, and of those before it. */
static void
forget_both(void *generations)
{
	struct generation **both = generations;

	forget(both[0]);
	forget(both[1]);
}

/* Once, until it is found. */
static void
complain(struct target *t, const char *why)
{
	if (t->to == NULL)
		log_error("%s: %s: %s", t->where, t->given, why);
	else if (!t->is_failed)
		log_warning("%s: %s: %s; the addresses of before are kept",
		    t->where, t->given, why);
	t->is_failed = 1;
}

int
generation_start_lookup(struct generation *g, struct generation *live,
    struct target *t, struct resolver *r)
{
	struct generation *both[] = { g, g != live ? live : NULL };

	if (resolver_start(r, t, &g->identity, forget_both, both) == 0)
		return 0;
	complain(t, strerror(errno));
	errno = EAGAIN;
	return -1;
}

/* Where a name is now; at a start, that goes without saying. */
static void
announce(const struct target *t)
{
	char text[LIST_SIZE] = "";
	struct text to = { .p = text, .size = sizeof(text) };
	size_t i;

	for (i = 0; i < t->to->n; i++)
		text_add(&to, " %s", t->to->list[i].text);
	log_info("%s: %s is now%s", t->where, t->given, text);
}

int
generation_end_lookup(struct generation *g, struct target *t,
    struct resolver *r)
{
	int is_first = t->to == NULL, is_cut, changed, saved;
	char why[NET_ERROR_SIZE];

	changed = resolver_take(r, t, &g->names, &is_cut, why, sizeof(why));
	if (changed == -1) {
		saved = errno;
		complain(t, why);
		errno = saved;
		return -1;
	}
	if (is_cut && !t->is_cut)
		log_warning("%s: %s has more than %d addresses: only so many "
		    "are used", t->where, t->given, ADDRESSES);
	t->is_cut |= is_cut;
	if (t->is_failed && !is_first)
		log_notice("%s: %s is found again", t->where, t->given);
	t->is_failed = 0;
	if (changed && !is_first)
		announce(t);
	return 0;
}

int
generation_look_up(struct generation *g, struct generation *old)
{
	struct resolver r = { .child = 0 };
	struct target *t;
	int bad = 0, for_good = 0;
	size_t i;

	for (i = 0; (t = generation_name(g, i, 1)) != NULL; i++) {
		if (t->to != NULL)
			continue;
		if (generation_start_lookup(g, old, t, &r) == 0) {
			resolver_await(&r);
			if (generation_end_lookup(g, t, &r) == 0)
				continue;
		}
		for_good |= errno != EAGAIN;
		bad = -1;
	}
	errno = for_good ? 0 : EAGAIN;
	return bad;
}
