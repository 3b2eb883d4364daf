/* memory: shared memory, memory files and locks. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdatomic.h>
#include <stddef.h>

/* An empty memory file (memfd_create(2)); -1 with errno. */
int	 memory_file(void);

/* Fix the size, and the contents unless writable.  0, or -1 with errno. */
int	 memory_seal(int fd, int writable);

/*
 * Allocate zeroed memory, shared with child processes; MAP_FAILED with errno.
 * *fd is a descriptor to hand over to another program, or -1 if not supported;
 * fd may be NULL.
 */
void	*memory_share(size_t size, int *fd);

/*
 * Map the same memory again, so that it can never become writable; or return p
 * if that is not possible.
 */
const void *memory_view(const void *p, size_t size, int fd);

/* Map the memory of a descriptor.  NULL, or the error, with MAP_FAILED. */
const char *memory_map(int fd, size_t size, void **);

/* NULL if a descriptor is a memory file of this size, or the error. */
const char *memory_fault(int fd, size_t size);

/*
 * A lock in shared memory.  memory_lock() takes it after a while in any case:
 * its holder may have been killed, or is under an attacker's control.
 */
void	 memory_lock(atomic_flag *);
void	 memory_unlock(atomic_flag *);

#endif
