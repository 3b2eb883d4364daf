/*
 * What has been freed is kept for the next who asks for as much: numbers, by
 * the thousand for a signature.  Little is kept, and nothing large: any chunk
 * may keep pages from the system.
 */
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"

#define STEP		16		/* between sizes; room for a link */
#define SMALL		512		/* bytes, at most */
#define KEPT		1024		/* bytes, of each of these sizes */

struct chunk {
	struct chunk *next;
};

static struct {
	struct chunk *first;
	size_t	 n;
} small[SMALL / STEP + 1];		/* by size, in steps */

void *
tunnel_calloc(size_t n, size_t size)
{
	struct chunk *c;

	if (size != 0 && n > SIZE_MAX / size)
		return NULL;
	size *= n;
	if (size > SMALL)
		return calloc(1, size);
	size = size == 0 ? STEP : (size + STEP - 1) / STEP * STEP;
	if ((c = small[size / STEP].first) == NULL)
		return calloc(1, size);
	small[size / STEP].first = c->next;
	small[size / STEP].n--;
	return memset(c, 0, size);
}

void
tunnel_free(void *p)
{
	struct chunk *c = p;
	size_t i = p == NULL ? 0 : malloc_usable_size(p) / STEP;

	if (i == 0 || i * STEP > SMALL || small[i].n * i * STEP >= KEPT) {
		free(p);
		return;
	}
	c->next = small[i].first;
	small[i].first = c;
	small[i].n++;
}
