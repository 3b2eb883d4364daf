/*
 * carry: what other rooms have in memory, handed over to the program that takes
 * the place of this one, or back.  The same functions write it and read it.
 */
#ifndef CARRY_H
#define CARRY_H

struct arguments;
struct handover;
struct generation;
struct stats;

/*
 * All generations, the newest first, which alone has listeners and values.
 * Read, they are for the master to look after, and to be freed in any case.
 */
void	 carry_generations(struct handover *, struct generation **live,
	    const struct arguments *);

/*
 * Where to log, and how; once read, it is in effect.  *fd is then the
 * descriptor that was handed over, or -1, and stays the caller's.
 */
void	 carry_log(struct handover *, int *fd);

/* What argv does not have: sockets passed, original limits, the watchdog. */
void	 carry_arguments(struct handover *, struct arguments *);

/* Counters, and the file's name, which may have changed. */
void	 carry_stats(struct handover *, struct stats *);

#endif
