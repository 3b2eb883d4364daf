/*
 * carry: at an upgrade, the state of other rooms is handed over to the next
 * program, or back.  The same functions write and read it.
 */
#ifndef CARRY_H
#define CARRY_H

struct arguments;
struct handover;
struct generation;
struct stats;

/*
 * All generations, newest first; only the newest has listeners and values.  On
 * reading, *live is a new list, which the caller frees also if x->bad is set.
 */
void	 carry_generations(struct handover *, struct generation **live,
	    const struct arguments *);

/*
 * The destination and format of the log; reading applies them.  *fd is then the
 * descriptor that was handed over, or -1.  The caller owns it.
 */
void	 carry_log(struct handover *, int *fd);

/* Arguments that are not in argv: passed sockets, original limits, watchdog. */
void	 carry_arguments(struct handover *, struct arguments *);

/* The counters, and the name of the written file, for its removal. */
void	 carry_stats(struct handover *, struct stats *);

#endif
