/*
 * tls_store: where sessions are kept, in memory that all processes share.  It
 * is not locked, and nothing in it is trusted: what is kept there is sealed.
 * What two processes write at once, or one leaves half written as it is killed,
 * does not unseal, and counts as empty.
 */
#ifndef TLS_STORE_H
#define TLS_STORE_H

#include <stddef.h>

#include "tls.h"
#include "tls_internal.h"
#include "tls_ticket.h"

#define ID_SIZE		32		/* an ID: a session's, or a hash */
#define KEPT_MAX	8192		/* bytes of a sealed session */

/* A copy of an entry, and where it was found. */
struct tls_kept {
	unsigned stamp;			/* 0: none was found yet */
	size_t	 slot;			/* of those for its ID */
	size_t	 len;			/* of the ticket */
	unsigned char ticket[KEPT_MAX];
};

/* The ticket keys that lie in the same memory. */
struct ticket_store *tls_store_keys(const struct tls_sessions *);

/* How many entries it has room for, and for how many bytes in each. */
size_t	 tls_store_entries(const struct tls_sessions *);
size_t	 tls_store_room(const struct tls_sessions *);

/*
 * Keep a ticket of at most tls_store_room() bytes; a longer one is not kept.
 * Of this ID the newest ones are kept, so many at most.
 */
void	 tls_store_put(const struct tls_sessions *, const unsigned char *id,
	    size_t most, const unsigned char *ticket, size_t len);

/*
 * Copy the newest entry of this ID, or if one was found before, the newest of
 * those that are older.  0, or -1: there is none.
 */
int	 tls_store_find(const struct tls_sessions *, const unsigned char *id,
	    struct tls_kept *);

/* Take that entry out.  0 in one process alone; -1: it is gone, or replaced. */
int	 tls_store_take(const struct tls_sessions *, const unsigned char *id,
	    const struct tls_kept *);

/* Take out all of this ID. */
void	 tls_store_forget(const struct tls_sessions *,
	    const unsigned char *id);

#endif
