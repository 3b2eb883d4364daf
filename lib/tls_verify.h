/*
 * tls_verify: is the peer who it has to be?  The library builds the chain and
 * judges each of it; what that means for the client is decided here, in a
 * handshake and when a session is resumed.
 */
#ifndef TLS_VERIFY_H
#define TLS_VERIFY_H

#include "tls_internal.h"

/*
 * The library's callback for each certificate of a chain, the client's own
 * last, with its flags; the argument is a struct tls.  A pin stands in for all
 * issuers.
 */
int	 tls_verify_cert(void *, mbedtls_x509_crt *, int depth,
	    uint32_t *flags);

/*
 * After a step of the handshake: 1 if the client is to be refused, see
 * tls_reject().  The library was told to go on whatever it finds.
 */
int	 tls_verify_check_verdict(struct tls *);

/* Forget who the client is, and its certificates. */
void	 tls_verify_forget(struct tls *);

/* What is wrong with it as an issuer of client certificates: flags. */
uint32_t tls_verify_issuer_flags(const struct tls_config *,
	    const mbedtls_x509_crt *);

#endif
