/*
 * Keep small chunks that were freed for the next allocation of the same size: a
 * signature allocates thousands of numbers.  Keep only a few, since any chunk
 * may prevent its page from being returned to the system.
 */
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"

#define STEP		16		/* sizes are multiples; holds a link */
#define SMALL		512		/* the largest size to keep, in bytes */
#define KEPT		1024		/* kept of each size, in bytes */

struct chunk {
	struct chunk *next;
};

static struct {
	struct chunk *first;
	size_t	 n;
} small[SMALL / STEP + 1];		/* by size / STEP */

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
