/*
 * repeats: lines of the log that repeat themselves, for one reason on one
 * address, are counted instead of being logged.
 */
#ifndef REPEATS_H
#define REPEATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "log.h"

#define REPEATS_ALL	100		/* lines in sum that a period has */
#define REASON_SIZE	96		/* of a reason that is kept */

/* Lines for one reason on one address: so many were logged, and counted. */
struct repeat {
	uint64_t key;			/* the address's: peer_key() */
	uint64_t logged, suppressed;
	enum log_level level;
	char	 reason[REASON_SIZE];	/* of the first one */
};

/* What repeats itself in a period. */
struct period {
	uint64_t began;			/* 0: not yet */
	uint64_t logged, suppressed;		/* in sum */
	struct repeat rows[REPEATS_ALL];
};

/* In memory of all processes. */
struct repeats {
	atomic_flag lock;
	struct period period;
};

/*
 * May a line be logged that says why a client was not served?  If not, it has
 * been counted.  Key: the client's, see peer_key().
 */
int	 repeats_may_log(struct repeats *, enum log_level, uint64_t key,
	    const char *reason);

/* When the period is over (clock_ms()); INT64_MAX: it has not begun. */
int64_t	 repeats_until(const volatile struct repeats *, int64_t now);

/* If the period is over, or at once: log what was counted. */
void	 repeats_end(struct repeats *, int at_once);

#endif
