/* ktls_probe: find which kernel TLS features this kernel supports. */
#ifndef KTLS_PROBE_H
#define KTLS_PROBE_H

#include <stddef.h>

#define KTLS_TEXT_SIZE	512
#define KTLS_LINE_SIZE	2048		/* for ktls_probe_text() */

struct ktls_probe {
	unsigned caps;			/* bits TLS_KERNEL_... of tls.h */
	int	 spins;			/* busy loop at a partial record */
	char	 why[KTLS_TEXT_SIZE];	/* with no caps: the reason */
};

/*
 * Try kernel TLS on connections within this host.  unless_spinning: set no caps
 * if the kernel keeps a process busy while a record is incomplete.
 */
void	 ktls_probe(struct ktls_probe *, int unless_spinning);

/* Describe the result in one line. */
void	 ktls_probe_text(const struct ktls_probe *, char *text, size_t size);

#endif
