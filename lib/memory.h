/* memory: what processes share, and files in memory. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdatomic.h>
#include <stddef.h>

/* An empty file in memory (memfd_create(2)); -1 with errno. */
int	 memory_file(void);

/* Of that size for good, and read-only unless writable.  -1 with errno. */
int	 memory_seal(int fd, int writable);

/*
 * Memory of zeros for this process and its children, or MAP_FAILED with errno.
 * *fd is what another program can be handed it by, or -1 where there is no such
 * thing; fd may be NULL.
 */
void	*memory_share(size_t size, int *fd);

/*
 * The same memory, mapped once more, to be read and never to be written; or p
 * itself, where that can't be had.
 */
const void *memory_view(const void *p, size_t size, int fd);

/* The memory that a descriptor stands for.  NULL, or why not: MAP_FAILED. */
const char *memory_map(int fd, size_t size, void **);

/* Why a descriptor does not stand for memory of this size; or NULL. */
const char *memory_fault(int fd, size_t size);

/*
 * A lock in shared memory.  Its holder may have been killed, or taken over:
 * after a while it counts as free.
 */
void	 memory_lock(atomic_flag *);
void	 memory_unlock(atomic_flag *);

#endif
