/*
 * tls_error: the codes of mbed TLS, and our own beside them, as text and as
 * results; alerts; and what is wrong with certificates.
 */
#ifndef TLS_ERROR_H
#define TLS_ERROR_H

#include <stdint.h>

struct stream;
struct tls;
struct tls_config;

/* Faults that the library has no code of their own for. */
enum {
	RECORD_TYPE = 1, RECORD_VERSION, RECORD_SIZE, RECORD_BODY, MESSAGE_SIZE,
	BAD_SIGNATURE, BAD_FINISHED
};

/* Flags against a certificate, beside MBEDTLS_X509_BADCERT_... */
#define CERT_NO_ISSUER	(UINT32_C(1) << 30)
#define CERT_CONSTRAINTS_BROKEN (UINT32_C(1) << 29)
#define CERT_CHAIN_TOO_LONG (UINT32_C(1) << 28)
#define CERT_KEY_TOO_LONG (UINT32_C(1) << 27)
#define CERT_SIGNED_ODDLY (UINT32_C(1) << 26)
#define CERT_CONSTRAINTS_UNCHECKED (UINT32_C(1) << 25)
#define CERT_CONSTRAINTS_MALFORMED (UINT32_C(1) << 24)

/* What is wrong with a certificate. */
struct fault {
	uint32_t flags;
	unsigned char alert;
	const char *text;		/* NULL: it needs the certificate */
	const char *of_server;		/* the same, if that is another */
};

/* A code as text; valid until the next call. */
const char *tls_error_text(int code);

/* The first fault among flags against a certificate, which are not 0. */
const struct fault *tls_error_fault(uint32_t flags);

/* The text of one about a peer's certificate, or NULL. */
const char *tls_error_fault_text(const struct tls_config *,
	    const struct fault *);

/*
 * What a code, mbed TLS's or one of the above, is as an enum stream_result.  An
 * error is kept: its text for tls_error_reason(), its alert for the stream to
 * send when it ends our side.
 */
int	 tls_result(struct tls *, int code);

/*
 * The same for what mbed TLS answers on this connection: a code of several
 * meanings is told apart, any end during the handshake is an error, and an
 * alert that the library has sent itself is not sent again.
 */
int	 tls_library_result(struct tls *, int r);

/* The error operation of both TLS streams. */
const char *tls_error_reason(const struct stream *);

/* The peer is not accepted: the alert it is sent, and why. */
void	 tls_reject(struct tls *, unsigned char alert, const char *fmt, ...)
	    __attribute__((format(printf, 3, 4)));

/* It is accepted after all: our end is a close_notify again. */
void	 tls_reject_undo(struct tls *);

/* The refuse operation of both TLS streams. */
void	 tls_refuse(struct stream *);

/* The level of the alert that is due at our end; RFC 8446 section 6. */
unsigned char tls_alert_level(const struct tls *);

#endif
