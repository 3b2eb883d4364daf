/*
 * repeats: count repeated log lines, with the same reason and address, instead
 * of logging them.
 */
#ifndef REPEATS_H
#define REPEATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "log.h"

#define REPEATS_ALL	100		/* lines per period, in total */
#define REASON_SIZE	96		/* stored part of a reason */

/* Lines with the same reason and address. */
struct repeat {
	uint64_t key;			/* the peer_key() of the address */
	uint64_t logged, suppressed;	/* numbers of lines */
	enum log_level level;
	char	 reason[REASON_SIZE];	/* the first one */
};

/* The lines of a period. */
struct period {
	uint64_t began;			/* ms; 0: not begun */
	uint64_t logged, suppressed;	/* in total */
	struct repeat rows[REPEATS_ALL];
};

/* In memory shared by all processes. */
struct repeats {
	atomic_flag lock;
	struct period period;
};

/*
 * Return 1 if the reason why a client was not served may be logged, or 0 if it
 * was counted.  key is the client's peer_key().
 */
int	 repeats_may_log(struct repeats *, enum log_level, uint64_t key,
	    const char *reason);

/* The end of the period (clock_ms()); INT64_MAX: it has not begun. */
int64_t	 repeats_until(const volatile struct repeats *, int64_t now);

/* If the period has ended, or at_once: log the counted lines. */
void	 repeats_end(struct repeats *, int at_once);

#endif
