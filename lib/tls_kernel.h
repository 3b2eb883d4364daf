/* tls_kernel: TLS in the kernel, after the handshake. */
#ifndef TLS_KERNEL_H
#define TLS_KERNEL_H

struct stream;
struct tls;

/*
 * Call ktls_new() before the handshake, to keep its secrets if the
 * configuration has kernel TLS.  0, or -1 when out of memory.  ktls_free() may
 * be called in any state.
 */
int	 ktls_new(struct tls *);
void	 ktls_free(struct tls *);

/*
 * Call right after the handshake.  Free t->ktls if the kernel can't take over.
 */
void	 ktls_opened(struct tls *);

/*
 * Move the connection to the kernel.  0: done; the stream has other operations,
 * and the caller may free the library's context.  -1: not possible now; while
 * t->ktls is not NULL, the caller may try again between two records.
 */
int	 ktls_enable(struct tls *, struct stream *);

#endif
