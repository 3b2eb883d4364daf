/*
 * tls_error: codes of mbed TLS and our own, alerts and certificate faults, as
 * text and as results.
 */
#ifndef TLS_ERROR_H
#define TLS_ERROR_H

#include <stdint.h>

struct stream;
struct tls;
struct tls_config;

/* Our own codes, for errors that share a code in the library. */
enum {
	RECORD_TYPE = 1, RECORD_VERSION, RECORD_SIZE, RECORD_BODY, MESSAGE_SIZE,
	BAD_SIGNATURE, BAD_FINISHED, BAD_CERTIFICATE
};

/* Flags against a certificate, beside MBEDTLS_X509_BADCERT_... */
#define CERT_NO_ISSUER	(UINT32_C(1) << 30)
#define CERT_CONSTRAINTS_BROKEN (UINT32_C(1) << 29)
#define CERT_CHAIN_TOO_LONG (UINT32_C(1) << 28)
#define CERT_KEY_TOO_LONG (UINT32_C(1) << 27)
#define CERT_SIGNED_ODDLY (UINT32_C(1) << 26)
#define CERT_CONSTRAINTS_UNCHECKED (UINT32_C(1) << 25)
#define CERT_CONSTRAINTS_MALFORMED (UINT32_C(1) << 24)

/* A fault of a certificate. */
struct fault {
	uint32_t flags;
	unsigned char alert;
	const char *text;		/* NULL: see fault_text() */
	const char *of_server;		/* text for a server; NULL: the same */
};

/* Return the text of a code; valid until the next call. */
const char *tls_error_text(int code);

/* Return the first fault for flags against a certificate; flags: not 0. */
const struct fault *tls_error_fault(uint32_t flags);

/* Return the text of a fault of a peer's certificate, or NULL. */
const char *tls_error_fault_text(const struct tls_config *,
	    const struct fault *);

/*
 * Return a code, mbed TLS's or one of the above, as an enum stream_result.
 * Keep an error for tls_error_reason(), and its alert for the end of our side.
 */
int	 tls_result(struct tls *, int code);

/*
 * The same for a code that mbed TLS returned on this connection: distinguish
 * the meanings of ambiguous codes, make any end during the handshake an error,
 * and don't repeat an alert that the library has sent.
 */
int	 tls_library_result(struct tls *, int r);

/* The error operation of both TLS streams. */
const char *tls_error_reason(const struct stream *);

/* Refuse the peer, with an alert for it and a reason for tls_error_reason(). */
void	 tls_reject(struct tls *, unsigned char alert, const char *fmt, ...)
	    __attribute__((format(printf, 3, 4)));

/* Accept the peer after all: our end is a close_notify again. */
void	 tls_reject_undo(struct tls *);

/* The refuse operation of both TLS streams. */
void	 tls_refuse(struct stream *);

/* Return the level of the alert for our end; RFC 8446 section 6. */
unsigned char tls_alert_level(const struct tls *);

#endif
