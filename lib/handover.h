/*
 * handover: the format of the state that a program passes to its successor at
 * an upgrade: numbers, texts and descriptors, in a sealed memory file.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <stddef.h>
#include <stdint.h>

#define HANDOVER_MAX	(64 << 20)	/* bytes */

/*
 * A handover that is written or read.  The same functions do both, so that
 * writer and reader agree.  Initialise it with zeros to write.
 */
struct handover {
	int	 reads;			/* 1: by handover_open() */
	unsigned char *p;
	size_t	 size, at;
	int	*fds;			/* the descriptors passed so far */
	size_t	 nfds;
	const char *bad;		/* the first fault; or NULL */
};

/* Return a sealed file with the written data; -1 with errno. */
int	 handover_seal(const struct handover *);

/* Open such a file for reading.  The caller owns the descriptor. */
void	 handover_open(struct handover *, int fd);
void	 handover_free(struct handover *);

/*
 * Each of these functions writes or reads one item.  The first fault is stored
 * in bad, and later calls do nothing: then they read a number as its minimum, a
 * descriptor as -1, a text as NULL.
 */
void	 handover_bytes(struct handover *, void *, size_t len);

/* A number out of range is a fault.  The minimum of a size is 0. */
void	 handover_number(struct handover *, int64_t *, int64_t min,
	    int64_t max);
void	 handover_int(struct handover *, int *, int min, int max);
void	 handover_size(struct handover *, size_t *, size_t max);

/* A descriptor, or -1.  0 to 2 are not added to fds: execve(2) keeps them. */
void	 handover_fd(struct handover *, int *);

/* A text, or NULL.  On reading, the caller frees it, also after a fault. */
void	 handover_text(struct handover *, char **);

/* A list of texts, ending with NULL.  On reading, it is allocated. */
void	 handover_texts(struct handover *, char ***);
void	 handover_free_texts(char **);

/* Make execve(2) keep the descriptors (0) or close them (FD_CLOEXEC). */
void	 handover_expose(const struct handover *, int flag);

#endif
