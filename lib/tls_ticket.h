/*
 * tls_ticket: ticket keys, and tickets sealed with them.  A ticket is the name
 * of a key, a salt, and what is encrypted with a key derived for that salt, so
 * that a key is good for any number of tickets.
 */
#ifndef TLS_TICKET_H
#define TLS_TICKET_H

#include <stdatomic.h>

#include "tls_internal.h"

#define SALT_SIZE	16
#define TICKET_HEAD	(KEY_NAME_SIZE + SALT_SIZE)

/* The keys in effect, in memory of all processes.  Nobody waits for them. */
struct ticket_store {
	atomic_uint version;		/* odd: being written */
	struct ticket_keys keys;
};

/*
 * A ticket of size bytes at most, whose salt is there already.  Its length, or
 * 0 if there can be none.
 */
size_t	 tls_ticket_seal(const struct tls_config *, const unsigned char *plain,
	    size_t len, unsigned char *ticket, size_t size);

/* What is in a ticket; its length, or 0: it is none of ours. */
size_t	 tls_ticket_unseal(const struct tls_config *,
	    const unsigned char *ticket, size_t len, unsigned char *plain,
	    size_t size);

#endif
