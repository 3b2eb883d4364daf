/*
 * tls_store: where sessions are kept, in memory of all processes.  It is not
 * locked, and nothing in it is trusted: what is kept there is sealed.  What two
 * processes write at once, or one that is killed, does not unseal, and counts
 * as empty.
 */
#ifndef TLS_STORE_H
#define TLS_STORE_H

#include <stddef.h>

#include "tls.h"
#include "tls_internal.h"
#include "tls_ticket.h"

#define ID_SIZE		32		/* of what is kept */
#define KEPT_MAX	8192		/* bytes of it */

/* What was found, and where. */
struct tls_kept {
	unsigned stamp;			/* 0: nothing yet */
	size_t	 place;
	size_t	 len;
	unsigned char ticket[KEPT_MAX];
};

struct ticket_store *tls_store_keys(const struct tls_sessions *);

/* How many it has room for, and for how many bytes in each. */
size_t	 tls_store_entries(const struct tls_sessions *);
size_t	 tls_store_room(const struct tls_sessions *);

/* Keep it, of that size at most, as one of so many of this ID at most. */
void	 tls_store_put(const struct tls_sessions *, const unsigned char *id,
	    size_t most, const unsigned char *ticket, size_t len);

/* Of this ID, what was kept last before the one that is there: 0; -1: none. */
int	 tls_store_find(const struct tls_sessions *, const unsigned char *id,
	    struct tls_kept *);

/* Take it out: 0, in one process alone, or -1. */
int	 tls_store_take(const struct tls_sessions *, const unsigned char *id,
	    const struct tls_kept *);

/* Take out all of this ID. */
void	 tls_store_forget(const struct tls_sessions *,
	    const unsigned char *id);

#endif
