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
 * Where it is logged, and how: read, that is so at once.  *fd, if it is read,
 * is the descriptor that was handed over, or -1, and stays the caller's.
 */
void	 carry_log(struct handover *, int *fd);

/* What argv does not tell: sockets passed, limits as they were, a watchdog. */
void	 carry_arguments(struct handover *, struct arguments *);

/* Counters go on, and the file is known, should it have another name now. */
void	 carry_stats(struct handover *, struct stats *);

#endif
