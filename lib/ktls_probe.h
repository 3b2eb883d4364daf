/* ktls_probe: what this kernel can do of TLS. */
#ifndef KTLS_PROBE_H
#define KTLS_PROBE_H

#include <stddef.h>

#define KTLS_TEXT_SIZE	512
#define KTLS_LINE_SIZE	2048		/* of ktls_probe_text() */

struct ktls_probe {
	unsigned caps;			/* in bits of tls.h */
	int	 spins;			/* over half a record */
	char	 why[KTLS_TEXT_SIZE];	/* if it can't do anything */
};

/*
 * Try it, on connections within this host.  With unless_spinning, a kernel that
 * keeps a process busy over half a record counts as one that can do nothing.
 */
void	 ktls_probe(struct ktls_probe *, int unless_spinning);

/* What came of it, in a few words. */
void	 ktls_probe_text(const struct ktls_probe *, char *text, size_t size);

#endif
