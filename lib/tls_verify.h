/*
 * tls_verify: verification of the peer's certificate.  The library builds the
 * chain and sets flags for each certificate in it; this room decides whether
 * to accept the peer, in a handshake and when a session is resumed.
 */
#ifndef TLS_VERIFY_H
#define TLS_VERIFY_H

#include "tls_internal.h"

/*
 * The library's callback for each certificate of a chain, from the root down to
 * the peer's own, and its flags; the argument is a struct tls.  A pin makes
 * issuers unnecessary.  With a depth below 0, decide on a critical extension
 * unknown to the library.  0, or a code of the library's.
 */
int	 tls_verify_cert(void *, mbedtls_x509_crt *, int depth,
	    uint32_t *flags);

/*
 * Call after each step of the handshake, since the library itself is configured
 * to accept any certificate.  1 if the peer is refused, see tls_reject().
 */
int	 tls_verify_check_verdict(struct tls *);

/* Free the peer's names and certificates in the struct tls. */
void	 tls_verify_forget(struct tls *);

/* Return the flags against a certificate as an issuer of peer certificates. */
uint32_t tls_verify_issuer_flags(const struct tls_config *,
	    const mbedtls_x509_crt *);

#endif
