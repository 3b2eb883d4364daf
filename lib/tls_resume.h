/*
 * tls_resume: sessions of a client, kept for each server.  Without
 * tls_config_sessions(), no function here has an effect.
 */
#ifndef TLS_RESUME_H
#define TLS_RESUME_H

#include "tls_internal.h"

/*
 * Offer a session kept for this server, if any.  Call before the handshake, on
 * a connected socket.  0, or a code.
 */
int	 tls_resume_offer(struct tls *);

/* 1 if the next TLS 1.3 ticket would be kept. */
int	 tls_resume_waits(const struct tls *);

/*
 * Keep the library's current session.  Call after a TLS 1.3 ticket was
 * received, or at the end of a TLS 1.2 handshake.
 */
void	 tls_resume_keep(struct tls *);

/* Keep no more sessions, and free the memory for them. */
void	 tls_resume_end(struct tls *);

/*
 * Call after a failed handshake: if a session was offered, forget all sessions
 * for this server, since the offer may be the cause.
 */
void	 tls_resume_failed(const struct tls *);

#endif
