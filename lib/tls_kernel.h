/* tls_kernel: TLS in the kernel, after the handshake. */
#ifndef TLS_KERNEL_H
#define TLS_KERNEL_H

struct stream;
struct tls;

/*
 * Before the handshake: keep its secrets, if its configuration wants the kernel
 * to take over.  0, or -1 when out of memory.  Freed in any state.
 */
int	 ktls_new(struct tls *);
void	 ktls_free(struct tls *);

/* Right after the handshake: what can't be the kernel's is freed. */
void	 ktls_opened(struct tls *);

/*
 * 0: the kernel has it, the stream's operations are changed, and the library is
 * done with; -1: it stays with the library.  What is not freed by then may be
 * tried again between two records.
 */
int	 ktls_enable(struct tls *, struct stream *);

#endif
