/*
 * tls_verify: is the peer who it has to be?  The library builds the chain and
 * judges each certificate of it; what that means for the peer is decided here,
 * in a handshake and when a session is resumed.
 */
#ifndef TLS_VERIFY_H
#define TLS_VERIFY_H

#include "tls_internal.h"

/*
 * The library's callback for each certificate of a chain, from the root down to
 * the peer's own, with its flags; the argument is a struct tls.  A pin stands
 * in for all issuers.  A depth below 0 asks about a critical extension that the
 * library does not know.  0, or a code.
 */
int	 tls_verify_cert(void *, mbedtls_x509_crt *, int depth,
	    uint32_t *flags);

/*
 * After a step of the handshake: 1 if the peer is refused, see tls_reject().
 * The library was told to go on whatever it finds.
 */
int	 tls_verify_check_verdict(struct tls *);

/* Forget who the peer is, and its certificates. */
void	 tls_verify_forget(struct tls *);

/* What is wrong with it as an issuer of peers' certificates: flags. */
uint32_t tls_verify_issuer_flags(const struct tls_config *,
	    const mbedtls_x509_crt *);

#endif
