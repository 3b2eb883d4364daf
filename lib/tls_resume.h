/* tls_resume: sessions of a client, kept for each server. */
#ifndef TLS_RESUME_H
#define TLS_RESUME_H

#include "tls_internal.h"

/*
 * Before the handshake, on a connected socket: offer a session that is kept
 * for this server, if there is one.  0, or a code.
 */
int	 tls_resume_offer(struct tls *);

/*
 * Is a ticket of TLS 1.3 still to come?  Keep the session that the library has
 * now: a ticket has come, or the handshake is over in TLS 1.2.  What that takes
 * is freed at the end: nothing more is kept.
 */
int	 tls_resume_waits(const struct tls *);
void	 tls_resume_keep(struct tls *);
void	 tls_resume_end(struct tls *);

/* The handshake has failed: forget what may be to blame for it. */
void	 tls_resume_failed(const struct tls *);

#endif
