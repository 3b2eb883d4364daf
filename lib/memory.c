/* memory: shared memory, memory files and locks. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"
#include "util.h"

#define LOCK_SPINS	1000		/* in sched_yield(2) */

#ifdef __linux__

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL	8u
#endif

int
memory_file(void)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("tunnel", flags | MFD_NOEXEC_SEAL);

	/* The flag is new in Linux 6.3, where a sysctl can require it. */
	return fd == -1 && errno == EINVAL ? memfd_create("tunnel", flags) :
	    fd;
}

int
memory_seal(int fd, int writable)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW |
	    F_SEAL_SEAL | (writable ? 0 : F_SEAL_WRITE));
}

#else

int
memory_file(void)
{
	errno = ENOSYS;
	return -1;
}

int
memory_seal(int fd, int writable)
{
	(void)fd;
	(void)writable;
	return -1;
}

#endif

void *
memory_share(size_t size, int *fd)
{
	int flags = MAP_SHARED;

	if (fd != NULL && (*fd = memory_file()) != -1 &&
	    (ftruncate(*fd, (off_t)size) == -1 || memory_seal(*fd, 1) == -1))
		close_fd(fd);
	if (fd == NULL || *fd == -1)
		flags |= MAP_ANONYMOUS;
	return mmap(NULL, size, PROT_READ | PROT_WRITE, flags,
	    fd != NULL ? *fd : -1, 0);
}

/* mprotect(2) can't make a mapping of a read-only descriptor writable. */
const void *
memory_view(const void *p, size_t size, int fd)
{
	void *view = MAP_FAILED;
	char name[32];
	int again;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (fd != -1 && (again = open(name, O_RDONLY | O_CLOEXEC)) != -1) {
		view = mmap(NULL, size, PROT_READ, MAP_SHARED, again, 0);
		close(again);
	}
	return view != MAP_FAILED ? view : p;
}

const char *
memory_fault(int fd, size_t size)
{
	struct stat st;

	return fd == -1 || fstat(fd, &st) == -1 || st.st_size != (off_t)size ?
	    "shared memory is of another size" : NULL;
}

const char *
memory_map(int fd, size_t size, void **p)
{
	const char *why = memory_fault(fd, size);

	*p = MAP_FAILED;
	if (why != NULL)
		return why;
	*p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return *p == MAP_FAILED ? strerror(errno) : NULL;
}

void
memory_lock(atomic_flag *lock)
{
	int i;

	for (i = 0; i < LOCK_SPINS; i++) {
		if (!atomic_flag_test_and_set(lock))
			return;
		sched_yield();
	}
}

void
memory_unlock(atomic_flag *lock)
{
	atomic_flag_clear(lock);
}
