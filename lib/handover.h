/*
 * handover: what a program hands over to the one that takes its place: numbers,
 * texts and descriptors, in a sealed file in memory.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <stddef.h>
#include <stdint.h>

#define HANDOVER_MAX	(64 << 20)	/* bytes */

/*
 * What is being written or, the other way, read: by the same functions, so that
 * both agree.  All zero, it is to be written.
 */
struct handover {
	int	 reads;
	unsigned char *p;
	size_t	 size, at;
	int	*fds;			/* that are handed over */
	size_t	 nfds;
	const char *bad;		/* why it is of no use; or NULL */
};

/* A sealed file of what was written; -1 with errno. */
int	 handover_seal(const struct handover *);

/* Such a file, to be read.  The descriptor stays the caller's. */
void	 handover_open(struct handover *, int fd);
void	 handover_free(struct handover *);

/*
 * Each of these writes or reads one thing.  The first fault is kept in bad, and
 * later calls do nothing: a number read is then its minimum, a descriptor -1,
 * a text NULL.
 */
void	 handover_bytes(struct handover *, void *, size_t len);

/* A number out of range is a fault; a size begins at 0. */
void	 handover_number(struct handover *, int64_t *, int64_t min,
	    int64_t max);
void	 handover_int(struct handover *, int *, int min, int max);
void	 handover_size(struct handover *, size_t *, size_t max);

/* A descriptor, or -1.  The standard ones are there anyway. */
void	 handover_fd(struct handover *, int *);

/* Allocated, where it is read, fault or not; or NULL. */
void	 handover_text(struct handover *, char **);

/* With a NULL behind them.  Allocated, where they are read. */
void	 handover_texts(struct handover *, char ***);
void	 handover_free_texts(char **);

/* Have execve(2) keep the descriptors (0) or close them (FD_CLOEXEC). */
void	 handover_expose(const struct handover *, int flag);

#endif
