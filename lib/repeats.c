/*
 * repeats: count repeated log lines, with the same reason and address, instead
 * of logging them.
 */
#include <stdio.h>
#include <string.h>

#include "memory.h"
#include "peer.h"
#include "repeats.h"
#include "util.h"

#define REPEATS		5		/* lines per reason and address */
#define REPEATS_MS	10000		/* length of a period */

/*
 * The row for a reason and an address, or a free one; NULL: none is left.
 * Compare reasons only up to quoted text from the client.
 */
static struct repeat *
repeat_find(struct period *r, uint64_t key, const char *reason)
{
	size_t i, n = strcspn(reason, "\"") + 1;

	if (n > REASON_SIZE - 1)
		n = REASON_SIZE - 1;
	for (i = 0; i < REPEATS_ALL; i++)
		if (r->rows[i].logged == 0 || (r->rows[i].key == key &&
		    strncmp(r->rows[i].reason, reason, n) == 0))
			return &r->rows[i];
	return NULL;
}

/* Count a line.  1 if it may be logged. */
static int
repeat_count(struct period *r, enum log_level level, uint64_t key,
    const char *reason)
{
	struct repeat *row = repeat_find(r, key, reason);
	int allowed = row != NULL && row->logged < REPEATS &&
	    r->logged < REPEATS_ALL;

	if (r->began == 0)
		r->began = (uint64_t)clock_ms();
	if (allowed && row->logged == 0) {
		row->key = key;
		row->level = level;
		snprintf(row->reason, REASON_SIZE, "%s", reason);
	}
	r->logged += (uint64_t)allowed;
	r->suppressed += !allowed;
	if (row != NULL && row->logged + (uint64_t)allowed > 0) {
		row->logged += (uint64_t)allowed;
		row->suppressed += !allowed;
	}
	return allowed;
}

int64_t
repeats_until(const volatile struct repeats *r, int64_t now)
{
	uint64_t began = r->period.began;

	/* A beginning far in the future is a fault: end the period now. */
	if (began > (uint64_t)now + REPEATS_MS)
		return now;
	return began == 0 ? INT64_MAX : (int64_t)began + REPEATS_MS;
}

/* Log the numbers of suppressed lines. */
static void
period_log(const struct period *r)
{
	uint64_t s = ((uint64_t)clock_ms() - r->began + 500) / 1000;
	uint64_t others = r->suppressed;
	char text[PEER_TEXT_SIZE];
	size_t i;

	for (i = 0; i < REPEATS_ALL; i++) {
		const struct repeat *row = &r->rows[i];

		if (row->suppressed == 0)
			continue;
		others -= row->suppressed;
		peer_text(row->key, text, sizeof(text));
		log_at(row->level, "%s: and %llu more in %llu s: %.*s", text,
		    (unsigned long long)row->suppressed, (unsigned long long)s,
		    REASON_SIZE - 1, row->reason);
	}
	if (others != 0)
		log_notice("other addresses: and %llu more in %llu s",
		    (unsigned long long)others, (unsigned long long)s);
}

void
repeats_end(struct repeats *r, int at_once)
{
	struct period ended;
	int64_t now = clock_ms();

	if (!at_once && now < repeats_until(r, now))
		return;
	memory_lock(&r->lock);
	ended = r->period;
	memset(&r->period, 0, sizeof(r->period));
	memory_unlock(&r->lock);
	if (ended.suppressed > 0)
		period_log(&ended);
}

int
repeats_may_log(struct repeats *r, enum log_level level, uint64_t key,
    const char *reason)
{
	int allowed;

	if (level > log_get_level() || log_get_level() == LEVEL_DEBUG)
		return 1;
	repeats_end(r, 0);
	memory_lock(&r->lock);
	allowed = repeat_count(&r->period, level, key, reason);
	memory_unlock(&r->lock);
	return allowed;
}
