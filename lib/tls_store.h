/*
 * tls_store: sealed sessions in memory that all processes share.  There are no
 * locks, and no content is trusted: an entry that two processes wrote at once,
 * or one left incomplete when it was killed, can't be unsealed, and counts as
 * missing.
 */
#ifndef TLS_STORE_H
#define TLS_STORE_H

#include <stddef.h>

#include "tls.h"
#include "tls_internal.h"
#include "tls_ticket.h"

#define ID_SIZE		32		/* an ID: a session's, or a hash */
#define KEPT_MAX	8192		/* bytes of a sealed session */

/* A copy of an entry, and its place. */
struct tls_kept {
	unsigned stamp;			/* 0: none found yet */
	size_t	 slot;			/* index among the ID's slots */
	size_t	 len;			/* of the ticket */
	unsigned char ticket[KEPT_MAX];
};

/* Return the ticket keys, which are in the same memory. */
struct ticket_store *tls_store_keys(const struct tls_sessions *);

/* Return the number of entries, and the bytes of a ticket in each. */
size_t	 tls_store_entries(const struct tls_sessions *);
size_t	 tls_store_room(const struct tls_sessions *);

/*
 * Keep a ticket; one of more than tls_store_room() bytes is ignored.  most:
 * keep only so many of this ID, the newest.
 */
void	 tls_store_put(const struct tls_sessions *, const unsigned char *id,
	    size_t most, const unsigned char *ticket, size_t len);

/*
 * Copy the newest entry of this ID; after one was found, the next older one.
 * 0, or -1: there is none.
 */
int	 tls_store_find(const struct tls_sessions *, const unsigned char *id,
	    struct tls_kept *);

/* Remove that entry.  0 in only one process; -1: it is gone or replaced. */
int	 tls_store_take(const struct tls_sessions *, const unsigned char *id,
	    const struct tls_kept *);

/* Remove all entries of this ID. */
void	 tls_store_forget(const struct tls_sessions *,
	    const unsigned char *id);

#endif
