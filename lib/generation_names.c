/* generation_names: lookups of the names of a generation, and their log. */
#include <errno.h>
#include <string.h>

#include "generation.h"
#include "log.h"
#include "net.h"
#include "resolver.h"

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

/* In the child: free all secrets and shared memory, of all generations. */
static void
forget(void *generation)
{
	struct generation *g;

	for (g = generation; g != NULL; g = g->older) {
		generation_close(g);
		scoreboard_free(&g->board);
	}
}

int
generation_start_lookup(struct generation *g, struct target *t,
    struct resolver *r)
{
	if (resolver_start(r, t, &g->identity, forget, g) == 0)
		return 0;
	r->fd = -1;
	return generation_end_lookup(g, t, r);
}

int
generation_end_lookup(struct generation *g, struct target *t,
    struct resolver *r)
{
	int is_first = t->to == NULL, is_cut, changed;
	const char *why;

	changed = resolver_take(r, t, &g->names, &is_cut, &why);
	if (changed == -1) {
		if (is_first || !t->is_failed)
			log_at(is_first ? LEVEL_ERROR : LEVEL_WARNING,
			    "%s: %s: %s%s", t->where, t->given, why,
			    is_first ? "" : "; keeping its addresses");
		t->is_failed = 1;
		return -1;
	}
	if (is_cut && !t->is_cut)
		log_warning("%s: %s has more than %d addresses: only the first "
		    "ones are used", t->where, t->given, ADDRESSES);
	t->is_cut |= is_cut;
	if (!is_first && (changed || t->is_failed))
		log_info("%s: %s is now %s%s", t->where, t->given,
		    t->to->list[0].text, t->to->n > 1 ? ", ..." : "");
	t->is_failed = 0;
	return 0;
}

int
generation_look_up(struct generation *g)
{
	struct resolver r = { .child = 0 };
	struct target *t;
	int bad = 0, is_permanent = 0;
	size_t i;

	for (i = 0; (t = generation_name(g, i, 1)) != NULL; i++) {
		if (t->to != NULL)
			continue;
		if (generation_start_lookup(g, t, &r) == 0) {
			resolver_await(&r);
			if (generation_end_lookup(g, t, &r) == 0)
				continue;
		}
		is_permanent |= errno != EAGAIN;
		bad = -1;
	}
	errno = is_permanent ? 0 : EAGAIN;
	return bad;
}
