/*
 * tls_resume: sessions of a client, kept for each server; where sessions are
 * not configured, none of these does anything.
 */
#ifndef TLS_RESUME_H
#define TLS_RESUME_H

#include "tls_internal.h"

/*
 * Before the handshake, on a connected socket: offer a session that is kept
 * for this server, if there is one.  0, or a code.
 */
int	 tls_resume_offer(struct tls *);

/* 1 if a ticket of TLS 1.3 may still come that would be kept. */
int	 tls_resume_waits(const struct tls *);

/*
 * Keep the session that the library has now: a ticket of TLS 1.3 has come, or a
 * handshake of TLS 1.2 is over.
 */
void	 tls_resume_keep(struct tls *);

/* Keep nothing more, and free what that takes. */
void	 tls_resume_end(struct tls *);

/*
 * At the end of a connection: if its handshake has failed, forget the sessions
 * of this server, as the one that was offered may be to blame.
 */
void	 tls_resume_failed(const struct tls *);

#endif
