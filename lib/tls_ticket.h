/*
 * tls_ticket: ticket keys, and tickets sealed with them.  A ticket is the name
 * of a key, a salt, and ciphertext.  The encryption key is derived from key and
 * salt, so that one key can seal any number of tickets.
 */
#ifndef TLS_TICKET_H
#define TLS_TICKET_H

#include <stdatomic.h>

#include "tls_internal.h"

#define SALT_SIZE	16
#define TICKET_HEAD	(KEY_NAME_SIZE + SALT_SIZE)

/* The keys in effect, in shared memory, behind a sequence lock. */
struct ticket_store {
	atomic_uint version;		/* odd: being written */
	struct ticket_keys keys;
};

/*
 * Seal a ticket of at most size bytes; the caller has written its salt.  Return
 * its length, or 0: it does not fit, or there are no keys.
 */
size_t	 tls_ticket_seal(const struct tls_config *, const unsigned char *plain,
	    size_t len, unsigned char *ticket, size_t size);

/* Return the length of the plaintext, or 0: damaged, or under other keys. */
size_t	 tls_ticket_unseal(const struct tls_config *,
	    const unsigned char *ticket, size_t len, unsigned char *plain,
	    size_t size);

#endif
