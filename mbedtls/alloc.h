/*
 * The memory of mbed TLS, where the C library takes long over it; see config.h.
 */
#ifndef TUNNEL_ALLOC_H
#define TUNNEL_ALLOC_H

#include <stddef.h>

/* As calloc(3) and free(3), for one thread; a pointer is for this free only. */
void	*tunnel_calloc(size_t n, size_t size);
void	 tunnel_free(void *p);

#endif
