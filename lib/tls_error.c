/* tls_error: codes, alerts and certificate faults as text and as results. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mbedtls/error.h>
#include <mbedtls/pem.h>

#include "stream.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "util.h"

/* RFC 8446 section 6 and RFC 5246 section 7.2. */
static const struct {
	unsigned char code;
	char	 name[24];
} alerts[] = {
	{ 10, "unexpected_message" }, { 20, "bad_record_mac" },
	{ 21, "decryption_failed" }, { 22, "record_overflow" },
	{ 40, "handshake_failure" }, { 42, "bad_certificate" },
	{ 43, "unsupported_certificate" }, { 44, "certificate_revoked" },
	{ 45, "certificate_expired" }, { 46, "certificate_unknown" },
	{ 47, "illegal_parameter" }, { 48, "unknown_ca" },
	{ 49, "access_denied" }, { 50, "decode_error" },
	{ 51, "decrypt_error" }, { 70, "protocol_version" },
	{ 71, "insufficient_security" }, { 80, "internal_error" },
	{ 86, "inappropriate_fallback" }, { 90, "user_canceled" },
	{ 109, "missing_extension" }, { 110, "unsupported_extension" },
	{ 112, "unrecognized_name" }, { 115, "unknown_psk_identity" },
	{ 116, "certificate_required" }, { 120, "no_application_protocol" },
};

#define CHAIN_TOO_LONG	"a chain of more than 5 certificates"
#define ODD_SIGNATURE	"an unknown signature algorithm"
#define CRITICAL_EXTENSION \
	"a certificate's critical extension is not supported"
/* Codes without a public name in 4.1: of PKCS #5, and from PK to ECP. */
#define NO_PKCS5	(-0x2e80)
#define PK_FIRST	0x3900
#define ECP_LAST	0x4f80
#define UNKNOWN_ENCRYPTION \
	"an encryption that this mbed TLS does not support"

/* The alert for each code, by RFC 8446 section 6, and its text. */
static const struct outcome {
	int	 code;
	unsigned char alert;		/* 0: none is due */
	char	 text[56];		/* empty: use the library's */
} outcomes[] = {
	{ RECORD_TYPE, MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE,
	    "unknown record type" },
	{ RECORD_VERSION, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION,
	    "unknown record version" },
	{ RECORD_SIZE, MBEDTLS_SSL_ALERT_MSG_RECORD_OVERFLOW,
	    "record too long" },
	{ RECORD_BODY, MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR,
	    "bad record length" },
	{ MBEDTLS_ERR_SSL_INVALID_RECORD,
	    MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE, "bad record" },
	{ MBEDTLS_ERR_SSL_INVALID_MAC, MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC,
	    "bad record MAC, or four empty records in a row" },
	{ BAD_SIGNATURE, MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR,
	    "signature verification failed" },
	{ PSA_ERROR_INVALID_SIGNATURE, MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR,
	    "signature verification failed" },
	{ BAD_FINISHED, MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR,
	    "bad CertificateVerify or Finished" },
	{ MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION,
	    MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION,
	    "no TLS version in common" },
	{ MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE,
	    MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
	    "no cipher suite, group or signature in common" },
	{ MBEDTLS_ERR_SSL_NO_APPLICATION_PROTOCOL,
	    MBEDTLS_SSL_ALERT_MSG_NO_APPLICATION_PROTOCOL,
	    "no ALPN protocol in common" },
	{ MBEDTLS_ERR_SSL_UNSUPPORTED_EXTENSION,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_EXT,
	    "unsolicited extension" },
	{ MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE,
	    MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE, "unexpected message" },
	{ MBEDTLS_ERR_SSL_DECODE_ERROR, MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR,
	    "malformed message" },
	{ MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER,
	    MBEDTLS_SSL_ALERT_MSG_ILLEGAL_PARAMETER, "illegal parameter" },
	{ MBEDTLS_ERR_SSL_BAD_INPUT_DATA,
	    MBEDTLS_SSL_ALERT_MSG_ILLEGAL_PARAMETER, "illegal parameter" },
	{ MESSAGE_SIZE, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "message longer than 16 KB" },
	{ MBEDTLS_ERR_SSL_ALLOC_FAILED, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "out of memory" },
	{ MBEDTLS_ERR_X509_ALLOC_FAILED, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "out of memory" },
	{ MBEDTLS_ERR_PK_ALLOC_FAILED, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "out of memory" },
	{ MBEDTLS_ERR_X509_FATAL_ERROR, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    CHAIN_TOO_LONG },
	{ MBEDTLS_ERR_PK_INVALID_PUBKEY, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "invalid public key, or RSA exponent above 64 bits" },
	{ MBEDTLS_ERR_X509_BAD_INPUT_DATA, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "malformed certificate" },
	{ MBEDTLS_ERR_X509_INVALID_FORMAT, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "malformed certificate" },
	{ BAD_CERTIFICATE, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "malformed certificate, or unknown critical extension" },
	{ MBEDTLS_ERR_X509_INVALID_EXTENSIONS + MBEDTLS_ERR_ASN1_UNEXPECTED_TAG,
	    MBEDTLS_SSL_ALERT_MSG_BAD_CERT, CRITICAL_EXTENSION },
	{ MBEDTLS_ERR_X509_FEATURE_UNAVAILABLE,
	    MBEDTLS_SSL_ALERT_MSG_BAD_CERT, CRITICAL_EXTENSION },
	{ UNKNOWN_SIGNATURE,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "a certificate with " ODD_SIGNATURE },
	{ MBEDTLS_ERR_PK_UNKNOWN_NAMED_CURVE,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "a key on a curve that this mbed TLS lacks" },
	/* Errors in our own files. */
	{ MBEDTLS_ERR_PK_PASSWORD_REQUIRED,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "it is encrypted; set key_password_file" },
	{ MBEDTLS_ERR_PK_PASSWORD_MISMATCH,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "wrong password in key_password_file" },
	{ NO_PKCS5,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR, UNKNOWN_ENCRYPTION },
	{ MBEDTLS_ERR_PEM_FEATURE_UNAVAILABLE,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR, UNKNOWN_ENCRYPTION },
	{ MBEDTLS_ERR_PK_KEY_INVALID_FORMAT,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "no private key in PEM format" },
	/* No alert answers these. */
	{ MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "PEM - No PEM header or footer found" },
	{ MBEDTLS_ERR_SSL_CONN_EOF, 0, "" },
	{ MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY, 0, "" },
	{ MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE, 0, "" },
	{ MBEDTLS_ERR_NET_RECV_FAILED, 0, "" },
	{ MBEDTLS_ERR_NET_SEND_FAILED, 0, "" },
};

/* Faults of a peer's certificate; of several, the first one is reported. */
static const struct fault faults[] = {
	{ CERT_SIGNED_ODDLY, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "it has " ODD_SIGNATURE, NULL },
	{ CERT_CHAIN_TOO_LONG, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    CHAIN_TOO_LONG, NULL },
	{ MBEDTLS_X509_BADCERT_NOT_TRUSTED, MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA,
	    NULL, NULL },
	{ MBEDTLS_X509_BADCERT_REVOKED, MBEDTLS_SSL_ALERT_MSG_CERT_REVOKED,
	    "revoked", NULL },
	{ MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE,
	    MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED, NULL, NULL },
	{ MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "not for client authentication", "not for server authentication" },
	{ CERT_KEY_TOO_LONG, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its RSA key has more than 4096 bits", NULL },
	{ CERT_NO_ISSUER, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "not for issuing certificates", NULL },
	{ CERT_CONSTRAINTS_MALFORMED, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "its name constraints are malformed", NULL },
	{ CERT_CONSTRAINTS_BROKEN, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "its names are outside its issuers' name constraints", NULL },
	{ CERT_CONSTRAINTS_UNCHECKED, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its issuers' name constraints are not supported", NULL },
	{ MBEDTLS_X509_BADCERT_CN_MISMATCH, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    NULL, NULL },
	{ MBEDTLS_X509_BADCERT_BAD_KEY | MBEDTLS_X509_BADCERT_BAD_PK,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its key is too weak, or of an unsupported type", NULL },
	{ MBEDTLS_X509_BADCERT_BAD_MD, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its signature is too weak", NULL },
	{ MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE,
	    MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, NULL, NULL },
	{ MBEDTLS_X509_BADCRL_NOT_TRUSTED | MBEDTLS_X509_BADCRL_BAD_MD |
	    MBEDTLS_X509_BADCRL_BAD_PK | MBEDTLS_X509_BADCRL_BAD_KEY,
	    MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, "its CRL is not trusted",
	    NULL },
	{ MBEDTLS_X509_BADCERT_OTHER, MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED,
	    "no peer rule matches", NULL },
	{ UINT32_MAX, MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, "not valid", NULL },
};

int
tls_fail(struct tls_config *cfg, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cfg->error, sizeof(cfg->error), fmt, ap);
	va_end(ap);
	return -1;
}

static const struct outcome *
find_outcome(int code)
{
	size_t i;

	for (i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++)
		if (outcomes[i].code == code)
			return &outcomes[i];
	return NULL;
}

const char *
tls_error_text(int code)
{
	static char text[128];
	const struct outcome *o = find_outcome(code);

	if (o != NULL && o->text[0] != '\0')
		return o->text;
	mbedtls_strerror(code, text, sizeof(text));
	/* A small library has no texts, and 4.1 only those of TLS and X.509. */
	if (text[0] == '\0' || strstr(text, "UNKNOWN ERROR CODE") != NULL)
		snprintf(text, sizeof(text), "mbed TLS error -0x%04X",
		    (unsigned)-code);
	return text;
}

/*
 * Return a code as an enum stream_result, and in *alert the alert for an error,
 * RFC 8446 section 6.2, or 0.
 */
static int
outcome_of(int code, unsigned char *alert)
{
	const struct outcome *o = find_outcome(code);

	*alert = 0;
	switch (code) {
	case MBEDTLS_ERR_SSL_WANT_READ:
		return STREAM_WANT_READ;
	case MBEDTLS_ERR_SSL_WANT_WRITE:
		return STREAM_WANT_WRITE;
	case MBEDTLS_ERR_NET_CONN_RESET:
		return STREAM_RESET;
	case MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY:
		return STREAM_EOF;
	case MBEDTLS_ERR_SSL_CONN_EOF:
		return STREAM_TRUNCATED;
	default:
		*alert = o != NULL ? o->alert :
		    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR;
		return STREAM_ERROR;
	}
}

void
tls_reject(struct tls *t, unsigned char alert, const char *fmt, ...)
{
	va_list ap;

	t->refused = 1;
	t->alert = alert;
	free(t->why);
	va_start(ap, fmt);
	if (vasprintf(&t->why, fmt, ap) == -1)
		t->why = NULL;
	va_end(ap);
}

void
tls_reject_undo(struct tls *t)
{
	t->refused = 0;
	t->issuer_flags = 0;
	t->alert = MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY;
}

void
tls_refuse(struct stream *s)
{
	struct tls *t = s->ctx;

	t->alert = MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR;
}

unsigned char
tls_alert_level(const struct tls *t)
{
	return t->alert == MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY ?
	    MBEDTLS_SSL_ALERT_LEVEL_WARNING : MBEDTLS_SSL_ALERT_LEVEL_FATAL;
}

static const char *
alert_name(int code)
{
	size_t i;

	for (i = 0; i < sizeof(alerts) / sizeof(alerts[0]); i++)
		if (alerts[i].code == code)
			return alerts[i].name;
	return "unknown";
}

static size_t
record_size(const struct record *r)
{
	return (size_t)be_get(r->head + 3, 2);
}

/*
 * A fatal alert in the clear is two bytes: level and code.  In TLS 1.3 some
 * clients send one where the library expects ciphertext, and reports a bad
 * record.
 */
static int
is_fatal_alert(const struct record *r)
{
	return r->nhead == HEADER_SIZE && r->left == 0 &&
	    r->head[0] == MBEDTLS_SSL_MSG_ALERT && record_size(r) == 2 &&
	    r->body[0] == MBEDTLS_SSL_ALERT_LEVEL_FATAL;
}

/*
 * The library has one code for all bad records: look at the header.  In TLS 1.3
 * the real type is encrypted, and the likeliest bad record is one without
 * content, for which RFC 8446 section 5.4 requires unexpected_message.
 */
static int
record_fault(const struct record *r)
{
	unsigned char type = r->head[0];

	if (r->left == record_size(r)) {	/* the header is wrong */
		if (type < MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC ||
		    type > MBEDTLS_SSL_MSG_APPLICATION_DATA)
			return RECORD_TYPE;
		if (r->left == 0)
			return MBEDTLS_ERR_SSL_INVALID_RECORD;
		return r->left > RECORD_MAX ? RECORD_SIZE : RECORD_VERSION;
	}
	if (record_size(r) > RECORD_MAX)
		return RECORD_SIZE;
	return type == MBEDTLS_SSL_MSG_ALERT ||
	    type == MBEDTLS_SSL_MSG_HANDSHAKE ? RECORD_BODY :
	    MBEDTLS_ERR_SSL_INVALID_RECORD;
}

/*
 * Return 1 in the peer's last flight, which ends with its Finished.  It is the
 * only encrypted flight of a TLS 1.3 server; RFC 8446 section 2.
 */
static int
is_last_flight(const struct tls *t)
{
	if (!is_tls13(t))
		return t->flight == 2;
	return t->in.head[0] == MBEDTLS_SSL_MSG_APPLICATION_DATA &&
	    (t->cfg->is_client || t->flight == 2);
}

/*
 * Return one of our codes for a code of the library's with several meanings, as
 * far as the record and the state of the handshake distinguish them; else r.
 */
static int
refine(const struct tls *t, int r)
{
	int error = -r & 0x7f80;	/* without the part from ASN.1 */
	int is_asn1;

	if (!t->open && is_fatal_alert(&t->in))
		return MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
	/* The buffer is too small for the record, or for one more fragment. */
	if (r == MBEDTLS_ERR_SSL_BAD_INPUT_DATA && t->in.left > 0)
		return t->in.left > RECORD_MAX ? RECORD_SIZE : MESSAGE_SIZE;
	if (r == MBEDTLS_ERR_SSL_INVALID_RECORD)
		return record_fault(&t->in);
	if (r == MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE && is_last_flight(t))
		return BAD_FINISHED;
	/* Verifying a signature has many codes, from PK to ECP, and ASN.1's. */
	is_asn1 = r <= MBEDTLS_ERR_ASN1_OUT_OF_DATA &&
	    r >= MBEDTLS_ERR_ASN1_INVALID_DATA;
	if (MBEDTLS_VERSION_MAJOR >= 4 && is_asn1 && t->peer == NULL)
		return BAD_CERTIFICATE;	/* 4.1 returns only the cause */
	if (find_outcome(r) == NULL &&
	    ((error >= PK_FIRST && error <= ECP_LAST) || is_asn1))
		return BAD_SIGNATURE;
	return r;
}

/* Return the name of a protocol by its first bytes (?: any byte), or NULL. */
static const char *
protocol_name(const unsigned char *p, size_t len)
{
	static const struct {
		unsigned char len;
		char	 first[9];
		char	 name[11];
	} known[] = {
		{ 4, "GET ", "HTTP" }, { 5, "POST ", "HTTP" },
		{ 5, "HEAD ", "HTTP" }, { 4, "PUT ", "HTTP" },
		{ 8, "OPTIONS ", "HTTP" }, { 8, "CONNECT ", "HTTP" },
		{ 6, "PRI * ", "HTTP/2" }, { 4, "SSH-", "SSH" },
		{ 6, "PROXY ", "PROXY" },
		/* From servers; most of these need STARTTLS or the like. */
		{ 5, "HTTP/", "HTTP" }, { 4, "220 ", "SMTP, FTP" },
		{ 4, "220-", "SMTP, FTP" }, { 4, "+OK ", "POP3" },
		{ 5, "* OK ", "IMAP" },
		/* SSLRequest, a TPKT with X.224's CR, an SSLv2 CLIENT-HELLO */
		{ 8, "\0\0\0\010\004\322\026\057", "PostgreSQL" },
		{ 6, "\003\0???\340", "RDP" }, { 4, "\200?\001\003", "SSLv2" },
	};
	size_t i, j;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		for (j = 0; j < known[i].len && j < len &&
		    (known[i].first[j] == '?' ||
		    (unsigned char)known[i].first[j] == p[j]); j++)
			continue;
		if (j == known[i].len)
			return known[i].name;
	}
	return NULL;
}

#define TLS_MAJOR	3		/* version: RFC 8446 section 5.1 */

/* Return 1 if a peer's first bytes begin a TLS record, even a malformed one. */
static int
is_record(const unsigned char *p, size_t len)
{
	return p[0] == MBEDTLS_SSL_MSG_HANDSHAKE || (len > 1 &&
	    p[0] >= MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC &&
	    p[0] <= MBEDTLS_SSL_MSG_APPLICATION_DATA &&
	    p[1] == TLS_MAJOR);
}

/*
 * Return the reason if a handshake failed for a client's shared key, or NULL.
 * A wrong key shows in TLS 1.3 as a binder that does not match, in TLS 1.2 as a
 * Finished that can't be decrypted.  Without certificates, a client that offers
 * no key shows in TLS 1.3 as missing extensions for the key exchange.
 */
static const char *
client_psk_reason(const struct tls *t)
{
	int has_certs = t->cfg->certs != NULL;

	if (!has_certs && t->identity == NULL && t->flight == 0 &&
	    t->failed == MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER)
		return "handshake: no shared key offered";
	if (t->identity == NULL || (t->psk == NULL && has_certs &&
	    is_tls13(t)) || (t->failed != MBEDTLS_ERR_SSL_INVALID_MAC &&
	    t->failed != MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE))
		return NULL;
	tls_fail(t->cfg, "shared key %s: %s", t->identity, t->psk != NULL ?
	    "the client has a different key" : "unknown, or not allowed by "
	    "peer");
	return t->cfg->error;
}

/*
 * Return the reason if a handshake failed for the shared key, or NULL.  A
 * client learns of it by an alert.  If the key is its only way to authenticate
 * the server, unspecific alerts count as well, and so does an answer without
 * the key.
 */
static const char *
psk_reason(const struct tls *t)
{
	static const unsigned char alerts_for_it[] = {
		MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC,
		MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR,
		MBEDTLS_SSL_ALERT_MSG_UNKNOWN_PSK_IDENTITY,
		/* The unspecific ones: */
		MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		MBEDTLS_SSL_ALERT_MSG_ILLEGAL_PARAMETER,
		MBEDTLS_SSL_ALERT_MSG_MISSING_EXTENSION
	};
	const struct psk *own = t->cfg->own_psk;
	size_t n = t->cfg->psk_alone ? sizeof(alerts_for_it) : 3;
	char name[2 * NAME_SIZE];

	if (!t->cfg->is_client)
		return client_psk_reason(t);
	if (own == NULL)
		return NULL;
	text_quote(name, sizeof(name), (const unsigned char *)own->name,
	    strlen(own->name));
	if (t->peer_alert == 0 && t->psk != NULL &&
	    t->failed == MBEDTLS_ERR_SSL_INVALID_MAC)
		tls_fail(t->cfg, "shared key %s: the server has a different "
		    "key",
		    name);
	else if (t->peer_alert != 0 ?
	    memchr(alerts_for_it, t->peer_alert, n) != NULL :
	    t->cfg->psk_alone && t->psk == NULL &&
	    (t->failed == MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE ||
	    t->failed == MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER))
		tls_fail(t->cfg, "the server does not know the shared key %s, "
		    "or has a different key for it", name);
	else
		return NULL;
	return t->cfg->error;
}

static const char *
error_reason(struct tls *t)
{
	struct tls_config *cfg = t->cfg;
	const char *peer = peer_role(cfg);
	const char *during = t->open ? "TLS" : "handshake";
	const char *name, *why;
	char first[64];

	if (t->refused)
		return t->why != NULL ? t->why : "refused: out of memory";
	if (t->failed == MBEDTLS_ERR_SSL_CONN_EOF ||
	    t->failed == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
		tls_fail(cfg, "%s closed %s", peer, t->nfirst == 0 ?
		    "without sending anything" : "during the handshake");
		return cfg->error;
	}
	if (!t->open && (why = psk_reason(t)) != NULL)
		return why;
	if (t->nfirst > 0 && !is_record(t->first, t->nfirst)) {
		text_quote(first, sizeof(first), t->first, t->nfirst);
		name = protocol_name(t->first, t->nfirst);
		tls_fail(cfg, "not TLS%s%s: the %s sent %s",
		    name != NULL ? " but " : "", name != NULL ? name : "",
		    peer, first);
	} else if (t->failed == MBEDTLS_ERR_NET_RECV_FAILED ||
	    t->failed == MBEDTLS_ERR_NET_SEND_FAILED)
		tls_fail(cfg, "%s: %s", peer, strerror(t->err));
	else if (t->peer_alert != 0)
		tls_fail(cfg,
		    "%s: the %s sent a fatal alert: %s (%d)", during, peer,
		    alert_name(t->peer_alert), t->peer_alert);
	else if (t->failed == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
		tls_fail(cfg, "%s: the %s sent a fatal alert", during, peer);
	else
		tls_fail(cfg, "%s: %s", during, tls_error_text(t->failed));
	return cfg->error;
}

/* Add that the server did not use the client's key: it may be the cause. */
const char *
tls_error_reason(const struct stream *s)
{
	struct tls *t = s->ctx;
	const char *why = error_reason(t);
	char copy[ERROR_SIZE];

	if (t->open || t->identity == NULL || t->psk != NULL ||
	    strncmp(why, "shared key", 10) == 0)
		return why;
	snprintf(copy, sizeof(copy), "%s", why);
	tls_fail(t->cfg, "%.512s (shared key %s: unknown, or not allowed by "
	    "peer)",
	    copy, t->identity);
	return t->cfg->error;
}

const struct fault *
tls_error_fault(uint32_t flags)
{
	const struct fault *f = faults;

	while ((f->flags & flags) == 0)
		f++;
	return f;
}

const char *
tls_error_fault_text(const struct tls_config *cfg, const struct fault *f)
{
	return cfg->is_client && f->of_server != NULL ? f->of_server : f->text;
}

/*
 * Return 1 if the library has sent an alert for an error itself.  After a
 * failed handshake step its last record is then an alert, which in TLS 1.3
 * looks like data if encrypted.  Once the connection is open, the library sends
 * one only for a bad MAC.  (A refused renegotiation is a warning.)
 */
static int
is_alert_sent(const struct tls *t, int r)
{
	if (t->open)
		return r == MBEDTLS_ERR_SSL_INVALID_MAC;
	return t->sent && (t->out.head[0] == MBEDTLS_SSL_MSG_ALERT ||
	    t->out.head[0] == MBEDTLS_SSL_MSG_APPLICATION_DATA);
}

#if defined(TUNNEL_PATCHES) || MBEDTLS_VERSION_MAJOR >= 4
static unsigned char
encrypted_alert(const struct tls *t)
{
	int alert = mbedtls_ssl_get_fatal_alert(t->ssl);

	return alert > 0 ? (unsigned char)alert : 0;
}
#else
static unsigned char
encrypted_alert(const struct tls *t)
{
	(void)t;
	return 0;
}
#endif

/* Keep a code for tls_error_reason(), and its alert for the end of our side. */
static int
keep_error(struct tls *t, int code)
{
	unsigned char alert;

	outcome_of(code, &alert);
	t->failed = code;
	if (!t->refused)
		t->alert = alert;
	if (alert == 0)
		t->notified = 1;
	return STREAM_ERROR;
}

int
tls_result(struct tls *t, int code)
{
	unsigned char alert;
	int end = outcome_of(code, &alert);

	return end == STREAM_ERROR ? keep_error(t, code) : end;
}

int
tls_library_result(struct tls *t, int r)
{
	unsigned char alert;
	int end = outcome_of(r, &alert), code;

	if (end != STREAM_ERROR &&
	    (t->open || (end != STREAM_EOF && end != STREAM_TRUNCATED)))
		return end;
	code = refine(t, r);
	if (code == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
		t->peer_alert = is_fatal_alert(&t->in) ? t->in.body[1] :
		    encrypted_alert(t);
	if (is_alert_sent(t, r))
		t->notified = 1;
	return keep_error(t, code);
}
