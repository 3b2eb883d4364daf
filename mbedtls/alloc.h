/*
 * The allocator for mbed TLS where that of the C library is slow; see config.h.
 */
#ifndef TUNNEL_ALLOC_H
#define TUNNEL_ALLOC_H

#include <stddef.h>

/*
 * As calloc(3) and free(3), for one thread only.  tunnel_free() is for memory
 * of tunnel_calloc() only.
 */
void	*tunnel_calloc(size_t n, size_t size);
void	 tunnel_free(void *p);

#endif
