#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif

#include "stream.h"
#include "tls.h"
#include "tls_internal.h"
#include "util.h"

/*
 * Below 3.6.7, malformed basicConstraints make a certificate an authority's
 * (CVE-2026-49300).  A distribution may have fixed that in 3.6.6; our own build
 * may be of it, after a warning, where there is nothing newer.  Below 3.6.6, a
 * ticket could lead around client authentication.
 */
#if defined(ALLOW_OLD_MBEDTLS) || defined(TUNNEL_PATCHES)
#define VERSION_NEEDED	0x03060600
#define TOO_OLD		"older than 3.6.6"
#else
#define VERSION_NEEDED	0x03060700
#define TOO_OLD		"older than 3.6.7, and open to CVE-2026-49300"
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x04000000
#error "this mbed TLS is newer than 3.6, the release that tunnel is made for"
#elif MBEDTLS_VERSION_NUMBER < 0x03060600
#error "this mbed TLS is older than 3.6.6, and open to CVE-2026-49300 and worse"
#elif MBEDTLS_VERSION_NUMBER < VERSION_NEEDED
#error "this mbed TLS is older than 3.6.7, and open to CVE-2026-49300: \
ALLOW_OLD_MBEDTLS=1 takes it, if its distribution has the fix in it"
#endif

/* The configuration of our own build says that it has mbedtls/patches. */
#ifdef TUNNEL_PATCHES
#define PATCHED		", patched"
#else
#define PATCHED		""
#endif

/* Our order among the suites that are both safe and fast; see prefer(). */
static const int default_suites[] = {
	MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
	MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
	MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	0
};

/*
 * What the library has been built with; the order is the default preference,
 * and the finite-field ones are costly.
 */
static const struct group {
	const char *name;
	uint16_t id;
	int	 by_default;
} groups[] = {
	{ "x25519", MBEDTLS_SSL_IANA_TLS_GROUP_X25519, 1 },
	{ "secp256r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1, 1 },
	{ "secp384r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, 1 },
#ifdef PSA_WANT_ECC_SECP_R1_521
	{ "secp521r1", MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1, 1 },
#endif
#ifdef PSA_WANT_ECC_MONTGOMERY_448
	{ "x448", MBEDTLS_SSL_IANA_TLS_GROUP_X448, 0 },
#endif
#ifdef PSA_WANT_DH_RFC7919_2048
	{ "ffdhe2048", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE2048, 0 },
	{ "ffdhe3072", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE3072, 0 },
	{ "ffdhe4096", MBEDTLS_SSL_IANA_TLS_GROUP_FFDHE4096, 0 },
#endif
	{ NULL, 0, 0 }
};

/* RFC 8446 section 6, those that a server gets to see. */
static const struct {
	unsigned char code;
	char	 name[24];
} alerts[] = {
	{ 10, "unexpected_message" }, { 20, "bad_record_mac" },
	{ 22, "record_overflow" }, { 40, "handshake_failure" },
	{ 42, "bad_certificate" },
	{ 43, "unsupported_certificate" }, { 44, "certificate_revoked" },
	{ 45, "certificate_expired" }, { 46, "certificate_unknown" },
	{ 47, "illegal_parameter" }, { 48, "unknown_ca" },
	{ 49, "access_denied" }, { 50, "decode_error" },
	{ 51, "decrypt_error" }, { 70, "protocol_version" },
	{ 71, "insufficient_security" }, { 80, "internal_error" },
	{ 86, "inappropriate_fallback" }, { 90, "user_canceled" },
	{ 109, "missing_extension" }, { 110, "unsupported_extension" },
	{ 112, "unrecognized_name" }, { 116, "certificate_required" },
	{ 120, "no_application_protocol" },
};

#define CHAIN_TOO_LONG	"a chain of more than 5 certificates"
#define ODD_SIGNATURE	"an unknown kind of signature"
#define CRITICAL_EXTENSION \
	"a certificate's critical extension is not supported"
#define UNKNOWN_ENCRYPTION \
	"encrypted in a way that this mbed TLS does not know"

/* Faults that the library has no code of their own for; see fault(). */
enum {
	RECORD_TYPE = 1, RECORD_VERSION, RECORD_SIZE, RECORD_BODY, MESSAGE_SIZE,
	BAD_SIGNATURE, BAD_FINISHED
};

/*
 * What the codes stand for: the alert that the client is told, by RFC 8446
 * section 6, and a person's words.
 */
static const struct outcome {
	int	 code;
	unsigned char alert;		/* 0: none is due */
	char	 text[52];		/* empty: the library's */
} outcomes[] = {
	{ RECORD_TYPE, MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE,
	    "a record of an unknown type" },
	{ RECORD_VERSION, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION,
	    "a record of an unknown version" },
	{ RECORD_SIZE, MBEDTLS_SSL_ALERT_MSG_RECORD_OVERFLOW,
	    "a record that is too long" },
	{ RECORD_BODY, MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR,
	    "a record of a wrong length" },
	{ MBEDTLS_ERR_SSL_INVALID_RECORD,
	    MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE, "bad record" },
	{ MBEDTLS_ERR_SSL_INVALID_MAC, MBEDTLS_SSL_ALERT_MSG_BAD_RECORD_MAC,
	    "bad record MAC, or four empty records in a row" },
	{ BAD_SIGNATURE, MBEDTLS_SSL_ALERT_MSG_DECRYPT_ERROR,
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
	{ MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE,
	    MBEDTLS_SSL_ALERT_MSG_UNEXPECTED_MESSAGE, "unexpected message" },
	{ MBEDTLS_ERR_SSL_DECODE_ERROR, MBEDTLS_SSL_ALERT_MSG_DECODE_ERROR,
	    "malformed message" },
	{ MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER,
	    MBEDTLS_SSL_ALERT_MSG_ILLEGAL_PARAMETER, "illegal parameter" },
	{ MBEDTLS_ERR_SSL_BAD_INPUT_DATA,
	    MBEDTLS_SSL_ALERT_MSG_ILLEGAL_PARAMETER, "illegal parameter" },
	{ MESSAGE_SIZE, MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "a handshake message above 16 KB" },
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
	    "a certificate that can't be read" },
	{ MBEDTLS_ERR_X509_INVALID_FORMAT, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
	    "a certificate that can't be read" },
	{ MBEDTLS_ERR_X509_INVALID_EXTENSIONS + MBEDTLS_ERR_ASN1_UNEXPECTED_TAG,
	    MBEDTLS_SSL_ALERT_MSG_BAD_CERT, CRITICAL_EXTENSION },
	{ MBEDTLS_ERR_X509_FEATURE_UNAVAILABLE,
	    MBEDTLS_SSL_ALERT_MSG_BAD_CERT, CRITICAL_EXTENSION },
	{ MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG + MBEDTLS_ERR_OID_NOT_FOUND,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "a certificate with " ODD_SIGNATURE },
	{ MBEDTLS_ERR_PK_UNKNOWN_NAMED_CURVE,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "a key on a curve that this mbed TLS does not have" },
	/* Of our own files. */
	{ MBEDTLS_ERR_PK_PASSWORD_REQUIRED,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "it is encrypted; set key_password_file" },
	{ MBEDTLS_ERR_PK_PASSWORD_MISMATCH,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "wrong password in key_password_file" },
	{ MBEDTLS_ERR_PKCS5_FEATURE_UNAVAILABLE,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR, UNKNOWN_ENCRYPTION },
	{ MBEDTLS_ERR_PEM_FEATURE_UNAVAILABLE,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR, UNKNOWN_ENCRYPTION },
	{ MBEDTLS_ERR_PK_KEY_INVALID_FORMAT,
	    MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR,
	    "no private key in PEM format" },
	/* To these there is no answer. */
	{ MBEDTLS_ERR_SSL_CONN_EOF, 0, "" },
	{ MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY, 0, "" },
	{ MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE, 0, "" },
	{ MBEDTLS_ERR_NET_RECV_FAILED, 0, "" },
	{ MBEDTLS_ERR_NET_SEND_FAILED, 0, "" },
};

/*
 * In a ticket, in front of the session: is it of TLS 1.3, when did it begin
 * (s), when was it saved (ms), where is its time, how long is it, and how long
 * is the name in between, which it was made for?
 */
enum {
	AT_TLS13, AT_BORN = 1, AT_SAVED = 9, AT_TIME = 17, AT_LENGTH = 19,
	AT_NAME = 21, SESSION_HEAD = 22
};

/* What may be wrong with a client's certificate; the first one counts. */
static const struct fault {
	uint32_t flags;
	unsigned char alert;
	const char *text;		/* NULL: see fault_text() */
} faults[] = {
	{ CERT_SIGNED_ODDLY, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "it has " ODD_SIGNATURE },
	{ CERT_CHAIN_TOO_LONG, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    CHAIN_TOO_LONG },
	{ MBEDTLS_X509_BADCERT_NOT_TRUSTED, MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA,
	    NULL },
	{ MBEDTLS_X509_BADCERT_REVOKED, MBEDTLS_SSL_ALERT_MSG_CERT_REVOKED,
	    "revoked" },
	{ MBEDTLS_X509_BADCERT_EXPIRED | MBEDTLS_X509_BADCERT_FUTURE,
	    MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED, NULL },
	{ MBEDTLS_X509_BADCERT_KEY_USAGE | MBEDTLS_X509_BADCERT_EXT_KEY_USAGE,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "not for client authentication" },
	{ CERT_KEY_TOO_LONG, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its RSA key has more than 4096 bits" },
	{ CERT_NO_ISSUER, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "not for issuing certificates" },
	{ CERT_CONSTRAINED, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its name constraints are not supported" },
	{ MBEDTLS_X509_BADCERT_BAD_KEY | MBEDTLS_X509_BADCERT_BAD_PK,
	    MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its key is too weak, or of a kind that is not accepted" },
	{ MBEDTLS_X509_BADCERT_BAD_MD, MBEDTLS_SSL_ALERT_MSG_UNSUPPORTED_CERT,
	    "its signature is too weak" },
	{ MBEDTLS_X509_BADCRL_EXPIRED | MBEDTLS_X509_BADCRL_FUTURE,
	    MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, NULL },
	{ MBEDTLS_X509_BADCRL_NOT_TRUSTED | MBEDTLS_X509_BADCRL_BAD_MD |
	    MBEDTLS_X509_BADCRL_BAD_PK | MBEDTLS_X509_BADCRL_BAD_KEY,
	    MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, "its CRL is not trusted" },
	{ MBEDTLS_X509_BADCERT_OTHER, MBEDTLS_SSL_ALERT_MSG_ACCESS_DENIED,
	    "no rule matched" },
	{ UINT32_MAX, MBEDTLS_SSL_ALERT_MSG_CERT_UNKNOWN, "not valid" },
};

static int
is_tls13(const struct tls *t)
{
	return mbedtls_ssl_get_version_number(t->ssl) ==
	    MBEDTLS_SSL_VERSION_TLS1_3;
}

/*
 * ERRORS AS TEXT
 */

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

/* A code in a person's words; valid until the next call. */
static const char *
explain(int code)
{
	static char text[128];
	const struct outcome *o = find_outcome(code);

	if (o != NULL && o->text[0] != '\0')
		return o->text;
	mbedtls_strerror(code, text, sizeof(text));
	if (text[0] == '\0')	/* a small library has no texts */
		snprintf(text, sizeof(text), "mbed TLS error -0x%04X",
		    (unsigned)-code);
	return text;
}

/*
 * What a code of the library's, or one of our own, is for the engine; and the
 * alert that an error asks for, or 0.
 */
static int
tls_outcome(int code, unsigned char *alert)
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

/* The client is not to be served: what it is told, and why. */
static void __attribute__((format(printf, 3, 4)))
refuse(struct tls *t, unsigned char alert, const char *fmt, ...)
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

/* It is to be served after all: its end is a proper one. */
static void
forgive(struct tls *t)
{
	t->refused = 0;
	t->issuers = 0;
	t->alert = MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY;
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
 * A fatal alert in the clear is two bytes, its level and its code.  In TLS 1.3
 * some clients send one where the library expects ciphertext, and is at a loss.
 */
static int
is_fatal_alert(const struct record *r)
{
	return r->nhead == HEADER_SIZE && r->left == 0 &&
	    r->head[0] == MBEDTLS_SSL_MSG_ALERT && record_size(r) == 2 &&
	    r->body[0] == MBEDTLS_SSL_ALERT_LEVEL_FATAL;
}

/*
 * For the library a bad record is a bad record.  Its type is in the clear but
 * in TLS 1.3, where one without content is the likeliest: for that RFC 8446
 * section 5.4 wants unexpected_message.
 */
static int
record_fault(const struct record *r)
{
	unsigned char type = r->head[0];

	if (r->left == record_size(r)) {	/* its header was enough */
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

/* Is it what the client has answered our hello with?  RFC 8446 section 2. */
static int
is_second_flight(const struct tls *t)
{
	return t->flight == 2 && (!is_tls13(t) ||
	    t->in.head[0] == MBEDTLS_SSL_MSG_APPLICATION_DATA);
}

/*
 * The library's code for an error, or ours where that has several meanings:
 * the record, and what we had got to, tell which it is.
 */
static int
fault(const struct tls *t, int r)
{
	int error = -r & 0x7f80;	/* without what of ASN.1 is in it */

	if (t->ssl == NULL || r > 0)	/* the kernel's are clear */
		return r;
	if (!t->open && is_fatal_alert(&t->in))
		return MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
	/* There is no room for a record, or for one more fragment. */
	if (r == MBEDTLS_ERR_SSL_BAD_INPUT_DATA && t->in.left > 0)
		return t->in.left > RECORD_MAX ? RECORD_SIZE : MESSAGE_SIZE;
	if (r == MBEDTLS_ERR_SSL_INVALID_RECORD)
		return record_fault(&t->in);
	if (r == MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE && is_second_flight(t))
		return BAD_FINISHED;
	/* From PK to ECP: what verifies a signature has many. */
	if (find_outcome(r) == NULL &&
	    error >= -MBEDTLS_ERR_PK_SIG_LEN_MISMATCH &&
	    error <= -MBEDTLS_ERR_ECP_BAD_INPUT_DATA)
		return BAD_SIGNATURE;
	return r;
}

/* A protocol by its first bytes, of which a ? stands for any; or NULL. */
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

/* Do a client's first bytes begin a record of TLS, be it a wrong one? */
static int
is_record(const unsigned char *p, size_t len)
{
	return p[0] == MBEDTLS_SSL_MSG_HANDSHAKE || (len > 1 &&
	    p[0] >= MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC &&
	    p[0] <= MBEDTLS_SSL_MSG_APPLICATION_DATA &&
	    p[1] == MBEDTLS_SSL_MAJOR_VERSION_3);
}

static const char *
tls_error(const struct stream *s)
{
	struct tls *t = s->ctx;
	struct tls_config *cfg = t->cfg;
	const char *during = t->open ? "TLS" : "handshake";
	const char *name;
	char first[64];

	if (t->refused)
		return t->why != NULL ? t->why : "refused: out of memory";
	if (t->failed == MBEDTLS_ERR_SSL_CONN_EOF ||
	    t->failed == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) {
		if (t->nfirst == 0)
			return "closed by the client before it sent a byte";
		return "closed by the client during the handshake";
	}
	if (t->nfirst > 0 && !is_record(t->first, t->nfirst)) {
		text_quote(first, sizeof(first), t->first, t->nfirst);
		name = protocol_name(t->first, t->nfirst);
		tls_fail(cfg, "not TLS%s%s: the client sent %s",
		    name != NULL ? " but " : "", name != NULL ? name : "",
		    first);
	} else if (t->failed == MBEDTLS_ERR_NET_RECV_FAILED ||
	    t->failed == MBEDTLS_ERR_NET_SEND_FAILED)
		tls_fail(cfg, "client: %s", strerror(t->err));
	else if (t->heard != 0)
		tls_fail(cfg,
		    "%s: the client sent a fatal alert: %s (%d)", during,
		    alert_name(t->heard), t->heard);
	else if (t->failed == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
		tls_fail(cfg, "%s: the client sent a fatal alert", during);
	else
		tls_fail(cfg, "%s: %s", during, explain(t->failed));
	return cfg->error;
}

/*
 * THE LIBRARY
 * Its start, and what it is good at on this machine.
 */

#ifdef MBEDTLS_VERSION_C
static int
is_too_old(void)
{
	return mbedtls_version_get_number() < VERSION_NEEDED;
}

const char *
tls_version(void)
{
	static char text[64];
	char number[32];

	mbedtls_version_get_string_full(number);
	snprintf(text, sizeof(text), "%s%s", number, PATCHED);
	return text;
}
#else
/* This library can't tell; the one that was built against has been checked. */
static int
is_too_old(void)
{
	return 0;
}

const char *
tls_version(void)
{
	return "built against " MBEDTLS_VERSION_STRING_FULL PATCHED;
}
#endif

const char *
tls_forked(void)
{
	psa_status_t r = psa_random_reseed(NULL, 0);

	/* A generator that is not mbed TLS's own is not copied by fork(2). */
	return r == PSA_SUCCESS || r == PSA_ERROR_NOT_SUPPORTED ? NULL :
	    "the random generator has no entropy";
}

/*
 * Has this CPU instructions for AES, and the library code that uses them?
 * Without them, ChaCha20 takes less time.
 */
#if defined(MBEDTLS_AESNI_C) && (defined(__x86_64__) || defined(__i386__))
static int
has_fast_aes(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) == 1 && (c & bit_AES) != 0;
}
#elif defined(MBEDTLS_AESCE_C) && defined(__aarch64__) && defined(__linux__)
static int
has_fast_aes(void)
{
	return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
}
#else
static int
has_fast_aes(void)
{
	return 0;
}
#endif

const char *
tls_init(void)
{
	if (is_too_old())
		return "the mbed TLS library found is " TOO_OLD;
	if (psa_crypto_init() != PSA_SUCCESS)
		return "mbed TLS does not start: no entropy?";
	return NULL;
}

/*
 * The default suites, the faster cipher on this machine first.  In TLS 1.3
 * the library follows the client's order all the same.
 */
static void
prefer(int *suites)
{
	int chacha_first = !has_fast_aes(), pass;
	size_t i, n = 0;

	for (pass = 0; pass < 2; pass++) {
		for (i = 0; default_suites[i] != 0; i++) {
			const char *name = mbedtls_ssl_get_ciphersuite_name(
			    default_suites[i]);
			int chacha = strstr(name, "CHACHA20") != NULL;

			if ((chacha == chacha_first) == (pass == 0))
				suites[n++] = default_suites[i];
		}
	}
	suites[n] = 0;
}

/*
 * NAMES
 * Those in a certificate, and those it is to be found by.
 */

static int
is_host_name(const char *s)
{
	return *s != '\0' && strlen(s) < NAME_SIZE && strspn(s,
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	    "-._*") == strlen(s);
}

/* Each alternative name, given to f until it answers other than 0. */
static int
each_name(const mbedtls_x509_crt *crt,
    int (*f)(void *, int kind, const char *, size_t), void *arg)
{
	const mbedtls_x509_sequence *s = &crt->subject_alt_names;
	mbedtls_x509_subject_alternative_name san;
	int r = 0;

	for (; s != NULL && s->buf.p != NULL && r == 0; s = s->next) {
		const mbedtls_x509_buf *b = &san.san.unstructured_name;

		if (mbedtls_x509_parse_subject_alt_name(&s->buf, &san) != 0)
			continue;
		if (san.type == MBEDTLS_X509_SAN_DNS_NAME ||
		    san.type == MBEDTLS_X509_SAN_IP_ADDRESS ||
		    san.type == MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)
			r = f(arg, san.type, (const char *)b->p, b->len);
		mbedtls_x509_free_subject_alt_name(&san);
	}
	return r;
}

/* A distinguished name as text. */
static const char *
dn_text(const mbedtls_x509_name *dn, char *text, size_t size)
{
	/* Of an empty one nothing is written. */
	text[0] = '\0';
	if (mbedtls_x509_dn_gets(text, size, dn) < 0)
		snprintf(text, size, "(too long)");
	return text;
}

static int
has_names(const mbedtls_x509_crt *crt)
{
	return crt->subject_alt_names.buf.p != NULL;
}

/* The subject's last common name; NULL: it has none. */
static const mbedtls_x509_buf *
common_name(const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_name *n;
	const mbedtls_x509_buf *found = NULL;

	for (n = &crt->subject; n != NULL; n = n->next)
		if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0)
			found = &n->val;
	return found;
}

static int
is_same(const char *a, const char *b, size_t len)
{
	return strlen(a) == len && strncasecmp(a, b, len) == 0;
}

/* Is it a pattern's "*.example.org" with one label in the star's place? */
static int
is_below(const char *pattern, size_t plen, const char *name, size_t len)
{
	const char *dot = memchr(name, '.', len);
	size_t label = dot != NULL ? (size_t)(dot - name) : 0;

	return plen > 2 && pattern[0] == '*' && pattern[1] == '.' &&
	    label > 0 && len - label == plen - 1 &&
	    strncasecmp(pattern + 1, dot, plen - 1) == 0;
}

/* A name that a client asks for. */
struct sought {
	const char *name;
	int	 by_pattern;
};

static int
is_sought(void *arg, int kind, const char *name, size_t len)
{
	const struct sought *s = arg;

	if (kind != MBEDTLS_X509_SAN_DNS_NAME)
		return 0;
	return s->by_pattern ? is_below(name, len, s->name, strlen(s->name)) :
	    is_same(s->name, name, len);
}

/* RFC 6125 section 6.4: a common name counts if there is no other. */
static int
has_name(const mbedtls_x509_crt *crt, struct sought *s)
{
	const mbedtls_x509_buf *cn = common_name(crt);

	if (has_names(crt))
		return each_name(crt, is_sought, s);
	return cn != NULL && is_sought(s, MBEDTLS_X509_SAN_DNS_NAME,
	    (const char *)cn->p, cn->len);
}

static int
remember_name(mbedtls_ssl_context *ssl)
{
	struct tls *t = mbedtls_ssl_get_user_data_p(ssl);
	const unsigned char *name;
	size_t len;

	name = mbedtls_ssl_get_hs_sni(ssl, &len);
	if (name == NULL || t->sni != NULL)
		return 0;
	t->sni = strndup((const char *)name, len < NAME_SIZE ? len : NAME_SIZE);
	if (t->sni == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	if (strlen(t->sni) != len || !is_host_name(t->sni))
		t->sni[0] = '\0';
	else if (len > 1 && t->sni[len - 1] == '.')	/* the root's */
		t->sni[len - 1] = '\0';
	return 0;
}

/*
 * The certificates of the name that the client asks for.  Where there are
 * none, the library takes all of them, in their order.
 */
static int
choose_certs(mbedtls_ssl_context *ssl)
{
	struct tls *t = mbedtls_ssl_get_user_data_p(ssl);
	struct sought s = { .by_pattern = 0 };
	struct cert *c;
	int r, n = 0;

	if ((r = remember_name(ssl)) != 0)
		return r;
	s.name = t->sni != NULL ? t->sni : "";
	for (; n == 0 && s.by_pattern < 2; s.by_pattern++) {
		for (c = t->cfg->certs; c != NULL && *s.name != '\0';
		    c = c->next) {
			if (!has_name(&c->chain, &s))
				continue;
			if ((r = mbedtls_ssl_set_hs_own_cert(ssl, &c->chain,
			    &c->key)) != 0)
				return r;
			n++;
		}
	}
	if (n > 0 || !t->cfg->strict_names)
		return 0;
	if (t->sni == NULL)
		refuse(t, MBEDTLS_SSL_ALERT_MSG_UNRECOGNIZED_NAME,
		    "no server name was sent");
	else
		refuse(t, MBEDTLS_SSL_ALERT_MSG_UNRECOGNIZED_NAME,
		    "no certificate for the name \"%s\"", s.name);
	return MBEDTLS_ERR_SSL_UNRECOGNIZED_NAME;
}

/*
 * FILES
 * Certificates and keys, in the shapes that people have them in; and of what
 * the library can't read, what it is, and what would convert it.
 */

#define BEGIN		"-----BEGIN "
#define END		"-----END "
#define NO_WAY		NULL, NULL
#define BY_PKEY		"openssl pkey -aes256 -in", "-out"
#define MARK(bytes)	bytes, sizeof(bytes) - 1
#define UNKNOWN		", which this mbed TLS does not know"
#define UNKNOWN_KEY	UNKNOWN " (RSA, secp256r1 and secp384r1 will do)"

/* Where a shape shows: at a file's start, in a label of PEM, or anywhere. */
enum place { AT_START, AT_LABEL, WITHIN };

/* An object identifier is behind the byte that its length ends with. */
static const struct shape {
	enum place place;
	const char *mark;		/* at the start, ? is any byte */
	size_t	 len;			/* of it */
	const char *what;
	const char *by, *to;		/* commands: by FILE to NEW; or NULL */
} shapes[] = {
	{ AT_START, MARK("0\x82??\2\1\3"), "a PKCS #12 file",
	    "openssl pkcs12 -nodes -in", "-out" },
	{ AT_START, MARK("0\x82??\6\x09" MBEDTLS_OID_PKCS "\7\2"),
	    "a PKCS #7 bundle", "openssl pkcs7 -inform DER -print_certs -in",
	    "-out" },
	{ AT_START, MARK("\xfe\xed\xfe\xed"), "a Java keystore",
	    "keytool -importkeystore -deststoretype PKCS12 -srckeystore",
	    "-destkeystore" },
	{ AT_START, MARK("\xff\xfe"), "text in UTF-16",
	    "iconv -f UTF-16 -t UTF-8", ">" },
	{ AT_LABEL, MARK("OPENSSH PRIVATE KEY"), "a key of OpenSSH's",
	    "ssh-keygen -p -m PKCS8 -f", NULL },
	{ AT_LABEL, MARK("DSA PRIVATE KEY"), "a DSA key", NO_WAY },
	{ AT_LABEL, MARK("PKCS7"), "a PKCS #7 bundle",
	    "openssl pkcs7 -print_certs -in", "-out" },
	{ AT_LABEL, MARK("REQUEST"),
	    "a request for a certificate, which an authority has yet to sign",
	    NO_WAY },
	{ AT_LABEL, MARK("PUBLIC KEY"), "a public key", NO_WAY },
	{ AT_LABEL, MARK("PRIVATE KEY"), "a private key", NO_WAY },
	{ AT_LABEL, MARK("CRL"), "a revocation list", NO_WAY },
	{ AT_LABEL, MARK("CERTIFICATE"), "a certificate", NO_WAY },
	{ WITHIN, MARK("\x09" MBEDTLS_OID_ISO_IDENTIFIED_ORG
	    "\x06\x01\x04\x01\xda\x47\x04\x0b"), "a key encrypted with scrypt",
	    BY_PKEY },
	{ WITHIN, MARK("\x08" MBEDTLS_OID_DES_EDE3_CBC),
	    "a key encrypted with triple DES", BY_PKEY },
	{ WITHIN, MARK("\x0a" MBEDTLS_OID_PKCS "\x0c\1"),
	    "a key encrypted as in PKCS #12", BY_PKEY },
	{ WITHIN, MARK("Proc-Type: 4,ENCRYPTED"),
	    "a key encrypted in OpenSSL's old way", BY_PKEY },
	{ WITHIN, MARK("\7" MBEDTLS_OID_ANSI_X9_62_PRIME_FIELD),
	    "a key whose curve is spelled out instead of named",
	    "openssl pkey -ec_param_enc named_curve -in", "-out" },
	{ WITHIN, MARK("\3\x2b\x65\x70"), "an Ed25519 key", NO_WAY },
	{ WITHIN, MARK("\3\x2b\x65\x71"), "an Ed448 key", NO_WAY },
	{ WITHIN, MARK("\7\x2a\x86\x48\xce\x38\x04\1"), "a DSA key", NO_WAY },
	{ WITHIN, MARK("\5" MBEDTLS_OID_EC_GRP_SECP256K1),
	    "a key on secp256k1", NO_WAY },
	{ WITHIN, MARK("\x08" MBEDTLS_OID_EC_GRP_SECP192R1),
	    "a key on secp192r1", NO_WAY },
	{ WITHIN, MARK("\5" MBEDTLS_OID_EC_GRP_SECP224R1),
	    "a key on secp224r1", NO_WAY },
	{ WITHIN, MARK("\5" MBEDTLS_OID_EC_GRP_SECP521R1),
	    "a key on secp521r1", NO_WAY },
	{ WITHIN, MARK("\x09\x2b\x24\x03\x03\x02\x08\1\1"),
	    "a key on a brainpool curve", NO_WAY },
	{ WITHIN, MARK("\x09" MBEDTLS_OID_PKCS1_MD5), "MD5", NO_WAY },
	{ WITHIN, MARK("\x09" MBEDTLS_OID_RSASSA_PSS),
	    "a key for RSA-PSS alone", NO_WAY },
};

static int
has_shape(const struct shape *s, const char *p, size_t len)
{
	size_t i, n = s->len;

	if (s->place == WITHIN)
		return memmem(p, len, s->mark, n) != NULL;
	if (len < n)
		return 0;
	if (s->place == AT_LABEL)
		return memcmp(p + len - n, s->mark, n) == 0;
	for (i = 0; i < n && (s->mark[i] == '?' || s->mark[i] == p[i]); i++)
		continue;
	return i == n;
}

/* The first one that it has; or NULL. */
static const struct shape *
find_shape(enum place place, const void *p, size_t len)
{
	size_t i;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (shapes[i].place == place && has_shape(&shapes[i], p, len))
			return &shapes[i];
	return NULL;
}

/* A block of PEM, RFC 7468: where it begins, and its label. */
struct block {
	const char *text;
	char	 label[48];
};

/* The next one in a text; 0: there is none. */
static int
find_block(const char *text, struct block *b)
{
	const char *label, *end;

	if ((b->text = strstr(text, BEGIN)) == NULL)
		return 0;
	label = b->text + strlen(BEGIN);
	if ((end = strstr(label, "-----")) == NULL)
		end = label;
	snprintf(b->label, sizeof(b->label), "%.*s", (int)(end - label < 64 ?
	    end - label : 64), label);
	return 1;
}

/* How much of a file is to be parsed: the zero behind it is for PEM alone. */
static size_t
parse_size(const unsigned char *text, size_t size)
{
	return strstr((const char *)text, BEGIN) != NULL ? size : size - 1;
}

/* Does it end before another one begins?  The parser would look on and on. */
static int
has_end(const struct block *b)
{
	const char *p = strstr(b->text + strlen(BEGIN), "-----");

	p = p != NULL ? strstr(p + strlen("-----"), "-----") : NULL;
	return p != NULL && strncmp(p, END, strlen(END)) == 0;
}

static int
decode_block(const struct block *b, mbedtls_pem_context *pem)
{
	char begin[64], end[64];
	size_t len;

	mbedtls_pem_init(pem);
	if (!has_end(b))
		return MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT;
	snprintf(begin, sizeof(begin), BEGIN "%s-----", b->label);
	snprintf(end, sizeof(end), END "%s-----", b->label);
	return mbedtls_pem_read_buffer(pem, begin, end,
	    (const unsigned char *)b->text, NULL, 0, &len);
}

static int
is_cert_label(const char *label)
{
	return strcmp(label, "CERTIFICATE") == 0 ||
	    strcmp(label, "X509 CERTIFICATE") == 0 ||
	    strcmp(label, "TRUSTED CERTIFICATE") == 0;
}

/*
 * PEM as it comes out of other files: indented, or with "\n" for the end of a
 * line, as in YAML and JSON.  What gets free is filled with zeros.
 */
static void
tidy(char *text, size_t size)
{
	const char *from;
	char *to = text, *end = text + size;

	if (strstr(text, BEGIN) == NULL)
		return;
	for (from = text; *from != '\0'; from++) {
		int is_end = *from == '\n';

		if (from[0] == '\\' && (from[1] == 'n' || from[1] == 'r')) {
			if (*++from == 'r')
				continue;
			is_end = 1;
		}
		if (!is_end && isspace((unsigned char)*from) &&
		    (to == text || to[-1] == '\n'))
			continue;
		while (is_end && to > text && to[-1] != '\n' &&
		    isspace((unsigned char)to[-1]))
			to--;
		*to++ = is_end ? '\n' : *from;
	}
	mbedtls_platform_zeroize(to, (size_t)(end - to));
}

/*
 * Does it end within a block of PEM, as a file does that is still written?
 * The parsers would be content with the blocks before.
 */
static int
is_cut(const char *text)
{
	const char *begin, *last = NULL, *end;

	for (begin = text; (begin = strstr(begin, BEGIN)) != NULL;
	    begin++)
		last = begin;
	if (last == NULL)
		return 0;
	end = strstr(last, END);
	return end == NULL || strstr(end + strlen("-----"), "-----") == NULL;
}

static int
read_whole(int fd, unsigned char *p, size_t len)
{
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		if ((n = read(fd, p, len)) == 0)
			errno = ENODATA;	/* it has become shorter */
		if (n <= 0)
			return -1;
	}
	return 0;
}

/* A whole file and a NUL behind it, as the PEM parser wants it; or NULL. */
static unsigned char *
slurp(struct tls_config *cfg, const char *name, size_t *size)
{
	unsigned char *buf = NULL;
	struct stat st;
	int fd, r = 0;

	/* Not to wait for whoever writes to a FIFO. */
	fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd == -1 || fstat(fd, &st) == -1)
		r = tls_fail(cfg, "%s: %s", name, strerror(errno));
	else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		r = tls_fail(cfg,
		    "%s: not a regular file of at most 1 MB", name);
	else if ((buf = calloc(1, *size = (size_t)st.st_size + 1)) == NULL)
		r = tls_fail(cfg, "%s: out of memory", name);
	else if (read_whole(fd, buf, *size - 1) == -1)
		r = tls_fail(cfg, "%s: it can't be read to its end: %s", name,
		    strerror(errno));
	else if (tidy((char *)buf, *size), is_cut((const char *)buf))
		r = tls_fail(cfg,
		    "%s: it ends within a block of PEM: has it been "
		    "cut off?", name);
	if (r == -1 && buf != NULL) {
		mbedtls_platform_zeroize(buf, *size);
		free(buf);
		buf = NULL;
	}
	if (fd != -1)
		close(fd);
	return buf;
}

/* How a shape is told of a file, after the words before it. */
static int __attribute__((format(printf, 4, 5)))
fail_shape(struct tls_config *cfg, const char *name, const struct shape *s,
    const char *fmt, ...)
{
	char text[ERROR_SIZE / 4];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s == NULL || s->by == NULL)
		return tls_fail(cfg, "%s: %s", name, text);
	if (s->to == NULL)
		return tls_fail(cfg, "%s: %s; to convert it: %s %s", name, text,
		    s->by, name);
	return tls_fail(cfg,
	    "%s: %s; to convert it: %s %s %s %s.pem", name, text,
	    s->by, name, s->to, name);
}

/* There is nothing in a file of what was wanted: what is, then? */
static int
fail_to_find(struct tls_config *cfg, const char *name, const char *wanted,
    const char *text, size_t size)
{
	struct block b, found = { .text = NULL };
	const struct shape *s;

	for (; find_block(text, &b); text = b.text + 1)
		if (found.text == NULL || !is_cert_label(b.label))
			found = b;
	if (found.text == NULL) {
		s = find_shape(AT_START, text, size);
		return fail_shape(cfg, name, s, s != NULL ? "it is %s, and no "
		    "PEM" : "no %s in PEM format", s != NULL ? s->what :
		    wanted);
	}
	s = find_shape(AT_LABEL, found.label, strlen(found.label));
	return fail_shape(cfg, name, s, "there is no %s in it, but %s%s%s",
	    wanted, s != NULL ? "" : "a block of \"", s != NULL ? s->what :
	    found.label, s != NULL ? "" : "\"");
}

/* What a certificate is read for. */
enum use { OWN, ISSUER, PINNED };

struct loading {
	enum use use;
	char	 refused[DN_SIZE + NAME_SIZE];	/* why it is, as a clause */
};

/* RFC 5280 section 4.2.1, those that have been seen critical; or a number. */
static const char *
extension_name(const mbedtls_x509_buf *oid, char *text, size_t size)
{
	static const struct {
		unsigned char number;
		char	 name[20];
	} names[] = {
		{ 0x1e, "nameConstraints" }, { 0x20, "certificatePolicies" },
		{ 0x24, "policyConstraints" }, { 0x36, "inhibitAnyPolicy" },
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (oid->len == 3 && memcmp(oid->p, MBEDTLS_OID_ID_CE, 2) ==
		    0 && oid->p[2] == names[i].number)
			return names[i].name;
	if (mbedtls_oid_get_numeric_string(text, size, oid) < 0)
		return "(unknown)";
	return text;
}

/*
 * The library's callback for an extension that it does not know.  It is the
 * client that judges our own chain; of others, what is critical counts.
 */
static int
judge_extension(void *arg, const mbedtls_x509_crt *crt,
    const mbedtls_x509_buf *oid, int is_critical, const unsigned char *p,
    const unsigned char *end)
{
	struct loading *l = arg;
	char dn[DN_SIZE], number[64];

	(void)p;
	(void)end;
	if (l->use == OWN || !is_critical)
		return 0;
	snprintf(l->refused, sizeof(l->refused), "\"%s\": its critical "
	    "extension %s is not supported", dn_text(&crt->subject, dn,
	    sizeof(dn)), extension_name(oid, number, sizeof(number)));
	return MBEDTLS_ERR_X509_FEATURE_UNAVAILABLE;
}

/*
 * Behind a certificate of OpenSSL's own kind there may be what it is to be
 * trusted for.
 */
static int
has_trust_settings(const unsigned char *der, size_t len)
{
	/* Nothing is changed by it, whatever it is declared as. */
	unsigned char *p = (unsigned char *)(uintptr_t)der;
	const unsigned char *end = der + len;
	const int sequence = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE;

	if (mbedtls_asn1_get_tag(&p, end, &len, sequence) != 0)
		return 0;
	p += len;
	return mbedtls_asn1_get_tag(&p, end, &len, sequence) == 0 && len > 0;
}

static int
is_in(const mbedtls_x509_crt *list, const unsigned char *der, size_t len)
{
	for (; list != NULL; list = list->next)
		if (list->raw.len == len && memcmp(list->raw.p, der, len) == 0)
			return 1;
	return 0;
}

/* One certificate more; -1: it is not to be used, and why, as a clause. */
static int
cert_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum use use,
    const char *name, const mbedtls_x509_buf *der)
{
	struct loading l = { .use = use };
	const struct shape *s;
	int r;

	if (use == ISSUER && has_trust_settings(der->p, der->len))
		return tls_fail(cfg,
		    "it says what it is to be trusted for, which "
		    "is not heeded here; to convert it: openssl x509 -in %s "
		    "-out %s.pem", name, name);
	if (use == ISSUER && is_in(chain, der->p, der->len))
		return 0;
	if ((r = mbedtls_x509_crt_parse_der_with_ext_cb(chain, der->p,
	    der->len, 1, judge_extension, &l)) == 0)
		return 0;
	if (l.refused[0] != '\0')
		return tls_fail(cfg, "%s", l.refused);
	if ((s = find_shape(WITHIN, der->p, der->len)) == NULL)
		return tls_fail(cfg, "it can't be read (%s)", explain(r));
	return tls_fail(cfg, "it %s %s" UNKNOWN_KEY, r ==
	    MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG + MBEDTLS_ERR_OID_NOT_FOUND ?
	    "is signed with" : "has", s->what);
}

/* For the warnings: the error is of one among others, which will do. */
static int
pass_over(struct tls_config *cfg)
{
	if (cfg->npassed < PASSED_MAX && (cfg->passed[cfg->npassed] =
	    strdup(cfg->error)) == NULL)
		return tls_fail(cfg, "out of memory");
	cfg->npassed++;
	return 0;
}

static void
forget_passed(struct tls_config *cfg, size_t n)
{
	while (cfg->npassed > n)
		if (--cfg->npassed < PASSED_MAX)
			free(cfg->passed[cfg->npassed]);
}

static int
block_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum use use,
    const char *name, const struct block *b)
{
	mbedtls_pem_context pem;
	mbedtls_x509_buf der;
	int r;

	if ((r = decode_block(b, &pem)) != 0) {
		r = tls_fail(cfg, "it is damaged (%s)", explain(r));
	} else {
		der.p = (unsigned char *)(uintptr_t)mbedtls_pem_get_buffer(
		    &pem, &der.len);
		r = cert_add(cfg, chain, use, name, &der);
	}
	mbedtls_pem_free(&pem);
	return r;
}

/* The certificates of a text: how many there are, or -1. */
static int
certs_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum use use,
    const char *name, const char *text)
{
	char why[ERROR_SIZE];
	size_t before = cfg->npassed;
	struct block b;
	int n = 0, used = 0;

	for (; find_block(text, &b); text = b.text + 1) {
		if (!is_cert_label(b.label))
			continue;
		n++;
		if (block_add(cfg, chain, use, name, &b) == 0) {
			used++;
			continue;
		}
		snprintf(why, sizeof(why), "%s", cfg->error);
		tls_fail(cfg, "%s: certificate %d: %s", name, n, why);
		if (use != ISSUER || pass_over(cfg) == -1)
			return -1;
	}
	if (used > 0 || n == 0)
		return used;
	forget_passed(cfg, before);
	return -1;
}

/* What is neither PEM nor anything else that is known may be DER. */
static int
may_be_der(const unsigned char *p, size_t len)
{
	return len > 0 && p[0] == (MBEDTLS_ASN1_CONSTRUCTED |
	    MBEDTLS_ASN1_SEQUENCE) && find_shape(AT_START, p, len) == NULL;
}

/* One in DER, if it is one; as above. */
static int
der_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum use use,
    const char *name, const mbedtls_x509_buf *der)
{
	char why[ERROR_SIZE];

	if (!may_be_der(der->p, der->len))
		return 0;
	if (cert_add(cfg, chain, use, name, der) == 0)
		return 1;
	snprintf(why, sizeof(why), "%s", cfg->error);
	return tls_fail(cfg,
	    "%s: taken for a certificate in DER, %s", name, why);
}

static int
cert_load(struct tls_config *cfg, mbedtls_x509_crt *chain, enum use use,
    const char *name)
{
	mbedtls_x509_buf der;
	size_t size;
	int r;

	if ((der.p = slurp(cfg, name, &size)) == NULL)
		return -1;
	der.len = size - 1;
	if ((r = certs_add(cfg, chain, use, name, (char *)der.p)) == 0)
		r = der_add(cfg, chain, use, name, &der);
	if (r == 0)
		r = fail_to_find(cfg, name, "certificate", (char *)der.p,
		    size);
	mbedtls_platform_zeroize(der.p, size);
	free(der.p);
	return r > 0 ? 0 : -1;
}

static int
is_key_label(const char *label)
{
	return strcmp(label, "PRIVATE KEY") == 0 ||
	    strcmp(label, "ENCRYPTED PRIVATE KEY") == 0 ||
	    strcmp(label, "RSA PRIVATE KEY") == 0 ||
	    strcmp(label, "EC PRIVATE KEY") == 0;
}

/* Of what kind a key is that the library does not take; or NULL. */
static const struct shape *
key_shape(const char *text, size_t size, const struct block *b)
{
	const struct shape *s = find_shape(WITHIN, text, size);
	mbedtls_pem_context pem;
	const unsigned char *der;
	size_t len;

	if (s != NULL || b->text == NULL)
		return s;
	if (decode_block(b, &pem) == 0) {
		der = mbedtls_pem_get_buffer(&pem, &len);
		s = find_shape(WITHIN, der, len);
	}
	mbedtls_pem_free(&pem);
	return s;
}

static int
key_refused(struct tls_config *cfg, const char *name, int error,
    const char *text, size_t size)
{
	struct block b = { .text = NULL };
	const struct shape *s;
	const char *p = text;

	while (find_block(p, &b) && !is_key_label(b.label))
		p = b.text + 1;
	s = key_shape(text, size, &b);
	if (error == MBEDTLS_ERR_PK_PASSWORD_REQUIRED ||
	    error == MBEDTLS_ERR_PK_PASSWORD_MISMATCH)
		return tls_fail(cfg, "%s: %s", name, explain(error));
	if (s != NULL)
		return fail_shape(cfg, name, s, "it is %s%s", s->what,
		    s->by != NULL ? UNKNOWN : UNKNOWN_KEY);
	if (b.text == NULL)
		return fail_to_find(cfg, name, "private key", text, size);
	return tls_fail(cfg, "%s: its private key can't be read (%s)", name,
	    explain(error));
}

static int
key_load(struct tls_config *cfg, struct cert *c, const char *name,
    const char *password)
{
	unsigned char *text;
	size_t size;
	int r;

	if ((text = slurp(cfg, name, &size)) == NULL)
		return -1;
	r = mbedtls_pk_parse_key(&c->key, text, parse_size(text, size),
	    (const unsigned char *)password,
	    password != NULL ? strlen(password) : 0, RNG);
	if (r != 0)
		r = key_refused(cfg, name, r, (char *)text, size);
	mbedtls_platform_zeroize(text, size);
	free(text);
	if (r == 0 && mbedtls_pk_check_pair(&c->chain.pk, &c->key, RNG) != 0)
		r = tls_fail(cfg,
		    "the key in %s does not fit the certificate in "
		    "%s", name, c->name);
	return r;
}

/*
 * CONFIGURATION
 */

struct tls_config *
tls_config_new(void)
{
	struct tls_config *cfg;
	size_t i, n = 0;

	if ((cfg = calloc(1, sizeof(*cfg))) == NULL)
		return NULL;
	mbedtls_ssl_config_init(&cfg->ssl);
	mbedtls_x509_crt_init(&cfg->ca);
	mbedtls_x509_crl_init(&cfg->crl);
	if (mbedtls_ssl_config_defaults(&cfg->ssl, MBEDTLS_SSL_IS_SERVER,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0) {
		tls_config_free(cfg);
		return NULL;
	}
	mbedtls_ssl_conf_rng(&cfg->ssl, RNG);
	mbedtls_ssl_conf_cert_cb(&cfg->ssl, choose_certs);
	prefer(cfg->suites);
	mbedtls_ssl_conf_ciphersuites(&cfg->ssl, cfg->suites);
	for (i = 0; groups[i].name != NULL; i++)
		if (groups[i].by_default)
			cfg->groups[n++] = groups[i].id;
	mbedtls_ssl_conf_groups(&cfg->ssl, cfg->groups);
	return cfg;
}

void
tls_config_free(struct tls_config *cfg)
{
	struct cert *c;
	struct rule *r;
	size_t i;

	if (cfg == NULL)
		return;
	while ((c = cfg->certs) != NULL) {
		cfg->certs = c->next;
		mbedtls_x509_crt_free(&c->chain);
		mbedtls_pk_free(&c->key);
		free(c->name);
		free(c);
	}
	forget_passed(cfg, 0);
	while ((r = cfg->rules) != NULL) {
		cfg->rules = r->next;
		mbedtls_x509_crt_free(r->certs);
		free(r->certs);
		free(r->text);
		free(r);
	}
	mbedtls_x509_crt_free(&cfg->ca);
	mbedtls_x509_crl_free(&cfg->crl);
	mbedtls_platform_zeroize(&cfg->keys, sizeof(cfg->keys));
	mbedtls_ssl_config_free(&cfg->ssl);
	for (i = 0; cfg->alpn[i] != NULL; i++)
		free((void *)(uintptr_t)cfg->alpn[i]);
	free(cfg);
}

const char *
tls_config_error(const struct tls_config *cfg)
{
	return cfg->error;
}

/* The library sends a chain as one message, and has so much room for one. */
static int
chain_fits(struct tls_config *cfg, const struct cert *c)
{
	const mbedtls_x509_crt *crt;
	size_t size = 8;		/* the message's head, RFC 8446 4.4.2 */

	for (crt = &c->chain; crt != NULL; crt = crt->next)
		size += 3 + crt->raw.len + 2;
	if (size <= MBEDTLS_SSL_OUT_CONTENT_LEN)
		return 0;
	return tls_fail(cfg,
	    "%s: its certificates take %zu bytes, and this mbed "
	    "TLS is built to send %d", c->name, size,
	    MBEDTLS_SSL_OUT_CONTENT_LEN);
}

int
tls_config_cert(struct tls_config *cfg, const char *name)
{
	struct cert *c, **last;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return tls_fail(cfg, "out of memory");
	mbedtls_x509_crt_init(&c->chain);
	mbedtls_pk_init(&c->key);
	for (last = &cfg->certs; *last != NULL; last = &(*last)->next)
		continue;
	*last = c;
	if ((c->name = strdup(name)) == NULL)
		return tls_fail(cfg, "out of memory");
	if (cert_load(cfg, &c->chain, OWN, name) == -1)
		return -1;
	return chain_fits(cfg, c);
}

int
tls_config_key(struct tls_config *cfg, const char *name, const char *password)
{
	struct cert *c = cfg->certs;

	while (c->next != NULL)
		c = c->next;
	if (key_load(cfg, c, name, password) == -1)
		return -1;
	if (mbedtls_ssl_conf_own_cert(&cfg->ssl, &c->chain, &c->key) != 0)
		return tls_fail(cfg, "out of memory");
	return 0;
}

static int
is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/*
 * The file of that name, or all that are in the directory, loaded.  Of several,
 * is one enough?
 */
static int
each_file(struct tls_config *cfg, const char *name,
    int (*load)(struct tls_config *, const char *), int one_will_do)
{
	char path[PATH_MAX];
	size_t before = cfg->npassed;
	struct dirent *e;
	int n = 0, r = 0;
	DIR *dir;

	if ((dir = opendir(name)) == NULL)
		return errno == ENOTDIR ? load(cfg, name) :
		    tls_fail(cfg, "%s: %s", name, strerror(errno));
	tls_fail(cfg, "%s: there is no file in it", name);
	while (r == 0 && (errno = 0, e = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "%s/%s", name, e->d_name);
		if (e->d_name[0] == '.' || is_directory(path))
			continue;
		if (load(cfg, path) == 0)
			n++;
		else
			r = one_will_do ? pass_over(cfg) : -1;
	}
	if (r == 0 && errno != 0)
		r = tls_fail(cfg, "%s: %s", name, strerror(errno));
	closedir(dir);
	if (r == 0 && n == 0) {
		forget_passed(cfg, before);
		r = -1;
	}
	return r;
}

static int
ca_load(struct tls_config *cfg, const char *name)
{
	return cert_load(cfg, &cfg->ca, ISSUER, name);
}

int
tls_config_ca(struct tls_config *cfg, const char *name)
{
	cfg->has_ca = 1;
	return name == NULL ? 0 : each_file(cfg, name, ca_load, 1);
}

static int
crl_load(struct tls_config *cfg, const char *name)
{
	unsigned char *text;
	size_t size;
	int r;

	if ((text = slurp(cfg, name, &size)) == NULL)
		return -1;
	r = mbedtls_x509_crl_parse(&cfg->crl, text, parse_size(text, size));
	/* Text behind the last one is as good as text before it. */
	if (r == MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT)
		r = 0;
	if (r != 0 && (may_be_der(text, size - 1) || strstr((char *)text,
	    BEGIN "X509 CRL-----") != NULL))
		r = tls_fail(cfg, "%s: its revocation list can't be read (%s)",
		    name, explain(r));
	else if (r != 0)
		r = fail_to_find(cfg, name, "revocation list", (char *)text,
		    size);
	free(text);
	return r;
}

int
tls_config_crl(struct tls_config *cfg, const char *name)
{
	if (!cfg->has_ca)
		return tls_fail(cfg,
		    "it needs ca, whose certificates it revokes");
	if (each_file(cfg, name, crl_load, 0) == -1)
		return -1;
	cfg->has_crl = 1;
	return 0;
}

/* What is behind the colon; -1 if it is not as it should be. */
static int
rule_parse(struct rule *r, const char *text)
{
	static const char sha256[] = "sha256/";
	size_t n = strlen(sha256);

	switch (r->kind) {
	case IP:
		r->len = strchr(text, ':') == NULL ? 4 : 16;
		return inet_pton(r->len == 4 ? AF_INET : AF_INET6, text,
		    r->bytes) == 1 ? 0 : -1;
	case PIN:
		return strncmp(text, sha256, n) == 0 &&
		    mbedtls_base64_decode(r->bytes, sizeof(r->bytes), &r->len,
		    (const unsigned char *)text + n, strlen(text + n)) == 0 &&
		    r->len == sizeof(r->bytes) ? 0 : -1;
	case DNS:
		if (!is_host_name(text) || strrchr(text, '*') > text ||
		    (text[0] == '*' && (text[1] != '.' || text[2] == '\0')))
			return -1;
		/* FALLTHROUGH */
	default:
		r->text = strdup(text);
		return r->text != NULL && *text != '\0' &&
		    (r->kind == DNS || r->kind == CERT ||
		    strchr(text, '*') == NULL) ? 0 : -1;
	}
}

/* Does it hold for certificates that nobody has to vouch for? */
static int
is_pin(const struct rule *r)
{
	return r->kind == PIN || r->kind == CERT;
}

static int
rule_load(struct tls_config *cfg, struct rule *r)
{
	if ((r->certs = calloc(1, sizeof(*r->certs))) == NULL)
		return tls_fail(cfg, "out of memory");
	mbedtls_x509_crt_init(r->certs);
	return cert_load(cfg, r->certs, PINNED, r->text);
}

int
tls_config_peer(struct tls_config *cfg, const char *text)
{
	static const char *const kinds[] = { "cn:", "dns:", "ip:", "uri:",
	    "pin:", "cert:" };
	struct rule *r, **last;
	int i;

	if ((r = calloc(1, sizeof(*r))) == NULL)
		return tls_fail(cfg, "out of memory");
	for (last = &cfg->rules; *last != NULL; last = &(*last)->next)
		continue;
	*last = r;
	for (i = CN; i < CERT && strncmp(text, kinds[i], strlen(kinds[i])) != 0;
	    i++)
		continue;
	r->kind = (enum kind)i;
	if (strncmp(text, kinds[i], strlen(kinds[i])) != 0 ||
	    rule_parse(r, text + strlen(kinds[i])) == -1)
		return tls_fail(cfg, "\"%s\" is not a rule (allowed: cn:NAME, "
		    "dns:NAME or dns:*.NAME, ip:ADDRESS, uri:URI, "
		    "pin:sha256/BASE64, cert:FILE; a * for dns alone)", text);
	if (!is_pin(r) && !cfg->has_ca)
		return tls_fail(cfg,
		    "\"%s\" needs ca: without one, anybody can "
		    "make such a certificate", text);
	cfg->has_pin |= is_pin(r);
	return r->kind == CERT ? rule_load(cfg, r) : 0;
}

/* Do the names of all issuers go into a request for certificates? */
static int
names_fit(const mbedtls_x509_crt *ca)
{
	size_t size = REQUEST_HEAD;

	for (; ca != NULL; ca = ca->next)
		size += 2 + ca->subject_raw.len;
	return size <= MBEDTLS_SSL_OUT_CONTENT_LEN;
}

int
tls_config_verify(struct tls_config *cfg, int is_required)
{
	if (!cfg->has_ca && !cfg->has_pin)
		return tls_fail(cfg,
		    "it needs ca, or peer = pin:sha256/BASE64 or "
		    "cert:FILE, to verify a certificate by");
	cfg->verify = is_required ? REQUIRED : ASKED;
	/* What is missing or wrong is found by tls_open(), in both cases. */
	mbedtls_ssl_conf_authmode(&cfg->ssl, MBEDTLS_SSL_VERIFY_OPTIONAL);
	if (cfg->has_ca)
		mbedtls_ssl_conf_ca_chain(&cfg->ssl, &cfg->ca,
		    cfg->has_crl ? &cfg->crl : NULL);
	/*
	 * Who is told of issuers sends no certificate that has another one,
	 * and the library tells of those alone that there is room for.
	 */
	if (cfg->has_pin || !names_fit(&cfg->ca))
		mbedtls_ssl_conf_cert_req_ca_list(&cfg->ssl,
		    MBEDTLS_SSL_CERT_REQ_CA_LIST_DISABLED);
	return 0;
}

int
tls_config_versions(struct tls_config *cfg, int min, int max)
{
	if (min > max)
		return tls_fail(cfg, "tls_min is above tls_max");
	cfg->min = min;
	cfg->max = max;
	return 0;
}

/*
 * The suites have IANA's names to the world.  The library's differ: hyphens
 * for underscores, and TLS1-3- where TLS 1.3 has none but TLS_.
 */
static int
suite_id(const char *iana)
{
	char name[NAME_SIZE];
	size_t i;

	if (strncmp(iana, "TLS_", 4) != 0)
		return 0;
	snprintf(name, sizeof(name), "%s%s", strstr(iana, "_WITH_") != NULL ?
	    "TLS-" : "TLS1-3-", iana + 4);
	for (i = 0; name[i] != '\0'; i++)
		if (name[i] == '_')
			name[i] = '-';
	return mbedtls_ssl_get_ciphersuite_id(name);
}

static void
suite_name(const char *library, char *name, size_t size)
{
	size_t i;

	snprintf(name, size, "TLS_%s", library +
	    (strncmp(library, "TLS1-3-", 7) == 0 ? 7 : 4));
	for (i = 0; name[i] != '\0'; i++)
		if (name[i] == '-')
			name[i] = '_';
}

static int
is_tls13_suite(int suite)
{
	return strncmp(mbedtls_ssl_get_ciphersuite_name(suite), "TLS1-3-",
	    7) == 0;
}

/* Each name in a list, given to add() with its position. */
static int
each(struct tls_config *cfg, const char *names,
    int (*add)(struct tls_config *, const char *, size_t))
{
	char *copy, *name, *rest;
	size_t n = 0;
	int r = 0;

	if ((copy = strdup(names)) == NULL)
		return tls_fail(cfg, "out of memory");
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL && r == 0;
	    name = strtok_r(NULL, SEPARATORS, &rest)) {
		if (n == LIST_MAX)
			r = tls_fail(cfg, "more than %d names", LIST_MAX);
		else
			r = add(cfg, name, n++);
	}
	if (n == 0)
		r = tls_fail(cfg, "no name in the list");
	free(copy);
	return r;
}

/*
 * OpenSSL's name of a suite as IANA's: ECDHE-RSA-AES256-GCM-SHA384 and its
 * like.  Suites without forward secrecy or AEAD have none, as they are not to
 * be recommended.
 */
static int
translate_suite(const char *name, char *iana, size_t size)
{
	static const struct {
		const char *theirs, *ours;
	} parts[] = {
		{ "AES128-GCM-SHA256", "AES_128_GCM_SHA256" },
		{ "AES256-GCM-SHA384", "AES_256_GCM_SHA384" },
		{ "CHACHA20-POLY1305", "CHACHA20_POLY1305_SHA256" },
		{ "AES128-CCM", "AES_128_CCM" },
		{ "AES256-CCM", "AES_256_CCM" },
	}, keys[] = {
		{ "ECDHE-ECDSA-", "ECDHE_ECDSA" },
		{ "ECDHE-RSA-", "ECDHE_RSA" },
		{ "DHE-RSA-", "DHE_RSA" },
	};
	size_t i, j, n;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		n = strlen(keys[i].theirs);
		if (strncmp(name, keys[i].theirs, n) != 0)
			continue;
		for (j = 0; j < sizeof(parts) / sizeof(parts[0]); j++) {
			if (strcmp(name + n, parts[j].theirs) != 0)
				continue;
			snprintf(iana, size, "TLS_%s_WITH_%s", keys[i].ours,
			    parts[j].ours);
			return suite_id(iana) != 0;
		}
	}
	snprintf(iana, size, "%s", name);
	return suite_id(iana) != 0;
}

/* One more name in a list of text, unless it is there or finds no room. */
static void
list_name(char *text, size_t size, const char *name)
{
	size_t n = strlen(text), len = strlen(name);
	const char *p = text;

	while ((p = strstr(p, name)) != NULL && p[len] != ':' && p[len] != '\0')
		p += len;
	if (p == NULL && n + len + 2 <= size)
		snprintf(text + n, size - n, "%s%s", n > 0 ? ":" : "", name);
}

/*
 * The same of a list: as TLS 1.3 has suites of its own, which OpenSSL does not
 * count among these, they are put in.  Empty: none of them is there.
 */
static void
translate_suites(const char *names, char *text, size_t size)
{
	char copy[ERROR_SIZE], iana[NAME_SIZE], *name, *rest;
	size_t i;

	text[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", names);
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL;
	    name = strtok_r(NULL, SEPARATORS, &rest))
		if (translate_suite(name, iana, sizeof(iana)))
			list_name(text, size, iana);
	if (text[0] == '\0' || strstr(text, "TLS_AES_") != NULL ||
	    strstr(text, "TLS_CHACHA20_") != NULL)
		return;
	for (i = 0; is_tls13_suite(default_suites[i]); i++) {
		suite_name(mbedtls_ssl_get_ciphersuite_name(default_suites[i]),
		    iana, sizeof(iana));
		list_name(text, size, iana);
	}
}

static int
add_suite(struct tls_config *cfg, const char *name, size_t n)
{
	if ((cfg->suites[n] = suite_id(name)) == 0)
		return tls_fail(cfg, "unknown cipher suite \"%s\"", name);
	cfg->suites[n + 1] = 0;
	return 0;
}

int
tls_config_ciphers(struct tls_config *cfg, const char *names)
{
	char why[ERROR_SIZE], text[ERROR_SIZE / 2];

	if (each(cfg, names, add_suite) == 0)
		return 0;
	snprintf(why, sizeof(why), "%.300s", cfg->error);
	if (strncmp(why, "unknown", 7) != 0)
		return -1;
	translate_suites(names, text, sizeof(text));
	if (text[0] != '\0')
		return tls_fail(cfg,
		    "%s (names are IANA's; those of the list that "
		    "there are, and TLS 1.3's: ciphers = %s)", why, text);
	return tls_fail(cfg, "%s (allowed: IANA's names, such as "
	    "TLS_AES_128_GCM_SHA256 or TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256; "
	    "without ciphers, all that are safe)", why);
}

/* IANA's name of a group that has another one, such as OpenSSL's. */
static const char *
translate_group(const char *name)
{
	static const struct {
		const char *theirs, *ours;
	} names[] = {
		{ "prime256v1", "secp256r1" }, { "P-256", "secp256r1" },
		{ "P-384", "secp384r1" }, { "P-521", "secp521r1" },
		{ "curve25519", "x25519" },
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcasecmp(names[i].theirs, name) == 0)
			return names[i].ours;
	return name;
}

static const struct group *
find_group(const char *name)
{
	size_t i;

	for (i = 0; groups[i].name != NULL; i++)
		if (strcasecmp(groups[i].name, name) == 0)
			return &groups[i];
	return NULL;
}

void
tls_translate_groups(const char *names, char *text, size_t size)
{
	char copy[ERROR_SIZE], *name, *rest;
	const struct group *g;

	text[0] = '\0';
	snprintf(copy, sizeof(copy), "%s", names);
	for (name = strtok_r(copy, SEPARATORS, &rest); name != NULL;
	    name = strtok_r(NULL, SEPARATORS, &rest))
		if ((g = find_group(translate_group(name))) != NULL)
			list_name(text, size, g->name);
}

static int
add_group(struct tls_config *cfg, const char *name, size_t n)
{
	char allowed[NAME_SIZE] = "";	/* all of them fit */
	const char *other = translate_group(name);
	const struct group *g = find_group(name);
	size_t i, len = 0;

	if (g != NULL) {
		cfg->groups[n] = g->id;
		cfg->groups[n + 1] = 0;
		return 0;
	}
	for (i = 0; groups[i].name != NULL; i++)
		len += (size_t)snprintf(allowed + len, sizeof(allowed) - len,
		    "%s%s", i > 0 ? ", " : "", groups[i].name);
	return tls_fail(cfg, "unknown group \"%s\" (allowed: %s%s%s)", name,
	    allowed, other != name ? "; its name here is " : "",
	    other != name ? other : "");
}

int
tls_config_groups(struct tls_config *cfg, const char *names)
{
	return each(cfg, names, add_group);
}

static int
add_protocol(struct tls_config *cfg, const char *name, size_t n)
{
	if (strlen(name) > MBEDTLS_SSL_MAX_ALPN_NAME_LEN)
		return tls_fail(cfg, "ALPN name longer than 255 bytes");
	if ((cfg->alpn[n] = strdup(name)) == NULL)
		return tls_fail(cfg, "out of memory");
	return 0;
}

int
tls_config_alpn(struct tls_config *cfg, const char *names)
{
	if (each(cfg, names, add_protocol) == -1)
		return -1;
	if (mbedtls_ssl_conf_alpn_protocols(&cfg->ssl, cfg->alpn) != 0)
		return tls_fail(cfg, "ALPN names too long");
	return 0;
}

/* Is there a key for it?  In TLS 1.3 any will do. */
static int
has_key(const struct tls_config *cfg, int suite)
{
	const char *name = mbedtls_ssl_get_ciphersuite_name(suite);
	mbedtls_pk_type_t type = strstr(name, "-ECDSA-") != NULL ||
	    strstr(name, "TLS-ECDH-") != NULL ? MBEDTLS_PK_ECDSA :
	    strstr(name, "-RSA-") != NULL ? MBEDTLS_PK_RSA : MBEDTLS_PK_NONE;
	const struct cert *c = cfg->certs;

	while (c != NULL && !is_tls13_suite(suite) &&
	    !mbedtls_pk_can_do(&c->key, type))
		c = c->next;
	return c != NULL;
}

/*
 * A version without a suite that a key can be used with is not offered: were
 * it agreed upon, the handshake would fail where the other version could have
 * served.
 */
int
tls_config_ready(struct tls_config *cfg)
{
	int with[2] = { 0, 0 }, min = cfg->min, max = cfg->max;
	size_t i;

	for (i = 0; cfg->suites[i] != 0; i++)
		with[is_tls13_suite(cfg->suites[i])] |=
		    has_key(cfg, cfg->suites[i]);
	if (!with[0])
		cfg->min = 13;
	if (!with[1])
		cfg->max = 12;
	if (cfg->min > cfg->max)
		return tls_fail(cfg,
		    "no suite of the list can be used with tls_min"
		    " = 1.%d, tls_max = 1.%d and %s (in TLS 1.2 those with "
		    "ECDSA in their name need an EC key, those with RSA an RSA "
		    "key)", min % 10, max % 10, cfg->certs->next != NULL ?
		    "these keys" : mbedtls_pk_can_do(&cfg->certs->key,
		    MBEDTLS_PK_RSA) ? "an RSA key" : "an EC key");
	cfg->left_out = min < cfg->min ? 12 : max > cfg->max ? 13 : 0;
	mbedtls_ssl_conf_min_tls_version(&cfg->ssl, cfg->min == 13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	mbedtls_ssl_conf_max_tls_version(&cfg->ssl, cfg->max == 13 ?
	    MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
	return 0;
}

static const char *
group_name(int id)
{
	size_t i;

	for (i = 0; groups[i].name != NULL; i++)
		if (groups[i].id == id)
			return groups[i].name;
	return NULL;
}

void
tls_config_truncation(struct tls_config *cfg, int is_eof)
{
	cfg->truncation_is_eof = is_eof;
}

void
tls_config_kernel(struct tls_config *cfg, unsigned can)
{
	cfg->kernel = can;
}

void
tls_config_strict_names(struct tls_config *cfg, int is_strict)
{
	cfg->strict_names = is_strict;
}

/*
 * CERTIFICATES, DESCRIBED
 */

static const struct cert *
cert_at(const struct tls_config *cfg, size_t i)
{
	const struct cert *c;

	for (c = cfg->certs; c != NULL && i > 0; c = c->next)
		i--;
	return c;
}

static time_t
utc(const mbedtls_x509_time *t)
{
	struct tm tm = { .tm_year = t->year - 1900, .tm_mon = t->mon - 1,
	    .tm_mday = t->day, .tm_hour = t->hour, .tm_min = t->min,
	    .tm_sec = t->sec };

	return timegm(&tm);
}

enum dates { IN_TIME, ENDS_SOON, EXPIRED, NOT_YET };

/* What there is to say of such dates, as "expired 3 days ago". */
static enum dates
dates(const mbedtls_x509_time *from, const mbedtls_x509_time *to, int days,
    char *text, size_t size)
{
	time_t now = time(NULL), left = utc(to) - now;
	long long far = left < 0 ? -left : left;
	long long seconds = far < 2 * HOUR ? 60 : far < 2 * DAY ? HOUR : DAY;
	const char *unit = seconds == 60 ? "minutes" : seconds == HOUR ?
	    "hours" : "days";

	far /= seconds;
	if (left < 0) {
		snprintf(text, size, "expired %lld %s ago", far, unit);
		return EXPIRED;
	}
	if (utc(from) > now) {
		snprintf(text, size, "not valid before %04d-%02d-%02d",
		    from->year, from->mon, from->day);
		return NOT_YET;
	}
	snprintf(text, size, "expires in %lld %s", far, unit);
	return left < (time_t)days * DAY ? ENDS_SOON : IN_TIME;
}

static int
is_same_buf(const mbedtls_x509_buf *a, const mbedtls_x509_buf *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

static int
is_issuer(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *crt)
{
	return is_same_buf(&issuer->subject_raw, &crt->issuer_raw);
}

static int
has_issuer(const mbedtls_x509_crt *list, const mbedtls_x509_crt *crt)
{
	for (; list != NULL; list = list->next)
		if (list->raw.p != NULL && is_issuer(list, crt))
			return 1;
	return 0;
}

/*
 * Extensions, and what is in one, that the library makes nothing of: their
 * object identifiers, each behind the byte that its length ends with.  RFC 5280
 * sections 4.2.2.1 and 4.2.1.10, RFC 7633, Netscape's of 1998, RFC 3820 section
 * 3.8.
 */
#define CA_ISSUERS	"\x08" MBEDTLS_OID_PKIX "\x30\x02"
#define MUST_STAPLE	"\x08" MBEDTLS_OID_PKIX "\x01\x18"
#define NAME_CONSTRAINTS "\x03" MBEDTLS_OID_NAME_CONSTRAINTS
#define NS_CERT_TYPE	"\x09" MBEDTLS_OID_NS_CERT_TYPE
#define PROXY_CERT_INFO	"\x08" MBEDTLS_OID_PKIX "\x01\x0e"

/* What is behind such an identifier in the extensions; NULL: it is not in. */
static unsigned char *
find_oid(const mbedtls_x509_crt *crt, const char *oid)
{
	unsigned char *p = crt->v3_ext.p;

	if (p != NULL)
		p = memmem(p, crt->v3_ext.len, oid, strlen(oid));
	return p != NULL ? p + strlen(oid) : NULL;
}

/*
 * The extended key usage of an issuer binds what it issues, and any usage
 * (RFC 5280 section 4.2.1.12) is not this one: both as in OpenSSL.
 */
static int
is_for_clients(const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_sequence *s;

	if (!mbedtls_x509_crt_has_ext_type(crt,
	    MBEDTLS_X509_EXT_EXTENDED_KEY_USAGE))
		return 1;
	for (s = &crt->ext_key_usage; s != NULL; s = s->next)
		if (MBEDTLS_OID_CMP(MBEDTLS_OID_CLIENT_AUTH, &s->buf) == 0)
			return 1;
	return 0;
}

/* Is it one of our authorities', and not just sent by the client? */
static int
is_ours(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_crt *ca = cfg->has_ca ? &cfg->ca : NULL;

	while (ca != NULL && ca != crt)
		ca = ca->next;
	return ca != NULL;
}

/*
 * The library has seen to basicConstraints, unless it is an old one in ca.
 * One that a client sends has to say that it may issue, RFC 5280 section
 * 4.2.1.3: a flaw in the former is not enough.
 */
static int
may_issue(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	return is_ours(cfg, crt) ? crt->version == 3 || is_issuer(crt, crt) :
	    mbedtls_x509_crt_has_ext_type(crt, MBEDTLS_X509_EXT_KEY_USAGE);
}

static uint32_t
issuer_flags(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	uint32_t flags = 0;

	if (!may_issue(cfg, crt))
		flags |= CERT_NO_ISSUER;
	if (!is_for_clients(crt))
		flags |= MBEDTLS_X509_BADCERT_EXT_KEY_USAGE;
	if (find_oid(crt, NAME_CONSTRAINTS) != NULL)
		flags |= CERT_CONSTRAINED;
	return flags;
}

/* The first one among flags, which are not 0. */
static const struct fault *
find_fault(uint32_t flags)
{
	const struct fault *f = faults;

	while ((f->flags & flags) == 0)
		f++;
	return f;
}

/*
 * Does every certificate of a chain come from the one behind it, and the last
 * from one that clients may know?  Their number, 0 with what is wrong, or -1
 * with what may be.
 */
static int
check_chain(const struct tls_config *cfg, const mbedtls_x509_crt *chain,
    char *text, size_t size)
{
	const mbedtls_x509_crt *crt = chain;
	char dn[DN_SIZE];
	int n = 1;

	for (; crt->next != NULL; crt = crt->next, n++) {
		if (is_issuer(crt->next, crt))
			continue;
		snprintf(text, size, "%s: certificate %d was not issued by "
		    "certificate %d, but by \"%s\"", has_issuer(chain, crt) ?
		    "the chain is in the wrong order" :
		    "an intermediate certificate is missing", n, n + 1,
		    dn_text(&crt->issuer, dn, sizeof(dn)));
		return 0;
	}
	if (n > 1 || is_issuer(crt, crt) || has_issuer(&cfg->ca, crt))
		return n;
	snprintf(text, size, "an intermediate certificate is missing: that of "
	    "\"%s\", unless it is a root that clients know",
	    dn_text(&crt->issuer, dn, sizeof(dn)));
	/* It tells where that is to be had, as one of a public CA does. */
	return find_oid(crt, CA_ISSUERS) != NULL ? 0 : -1;
}

/* Where to, and what the warning is about. */
struct warning {
	void	(*warn)(const char *);
	const char *about;
};

static void __attribute__((format(printf, 2, 3)))
warn(const struct warning *w, const char *fmt, ...)
{
	char what[ERROR_SIZE], text[ERROR_SIZE + PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	snprintf(text, sizeof(text), "%s: %s", w->about, what);
	w->warn(text);
}

/* A star is the whole first label of three or more, or clients pass it by. */
static int
warn_of_name(void *arg, int kind, const char *name, size_t len)
{
	const char *star = memchr(name, '*', len), *dot;

	if (kind != MBEDTLS_X509_SAN_DNS_NAME || star == NULL)
		return 0;
	dot = len > 2 ? memchr(name + 2, '.', len - 2) : NULL;
	if (star != name || name[1] != '.' || dot == NULL ||
	    memchr(name + 1, '*', len - 1) != NULL)
		warn(arg, "its name \"%.*s\" can match no host", (int)len,
		    name);
	return 0;
}

/* The curve of a key that many clients have no use for; or NULL. */
static const char *
odd_curve(const mbedtls_pk_context *pk)
{
	mbedtls_ecp_group_id id;

	if (!mbedtls_pk_can_do(pk, MBEDTLS_PK_ECKEY))
		return NULL;
	id = mbedtls_ecp_keypair_get_group_id(mbedtls_pk_ec(*pk));
	return id == MBEDTLS_ECP_DP_SECP256R1 ||
	    id == MBEDTLS_ECP_DP_SECP384R1 ? NULL :
	    mbedtls_ecp_curve_info_from_grp_id(id)->name;
}

/* Against one of a chain, or the first. */
static void
warn_of_cert(const struct warning *w, const mbedtls_x509_crt *crt, int is_leaf)
{
	const char *which = is_leaf ? "certificate" : "chain's certificate";
	const char *alg = "";
	char text[64];
	enum dates d = dates(&crt->valid_from, &crt->valid_to, WARN_DAYS, text,
	    sizeof(text));

	if (d != IN_TIME)
		warn(w, "the %s %s%s", which, d == NOT_YET ? "is " : "", text);
	if (mbedtls_pk_can_do(&crt->pk, MBEDTLS_PK_RSA) &&
	    mbedtls_pk_get_bitlen(&crt->pk) < RSA_BITS)
		warn(w, "the %s has an RSA key of %zu bits (clients refuse "
		    "less than %d)", which, mbedtls_pk_get_bitlen(&crt->pk),
		    RSA_BITS);
	if (odd_curve(&crt->pk) != NULL)
		warn(w, "the %s has a key on %s, which many clients refuse "
		    "(all take secp256r1)", which, odd_curve(&crt->pk));
	/* On a root it means nothing. */
	if (is_leaf || !is_issuer(crt, crt))
		mbedtls_oid_get_sig_alg_desc(&crt->sig_oid, &alg);
	if (strstr(alg, "SHA1") != NULL || strstr(alg, "MD5") != NULL)
		warn(w, "the %s is signed with %s, which clients refuse",
		    which, strstr(alg, "MD5") != NULL ? "MD5" : "SHA-1");
	if (is_leaf && find_oid(crt, MUST_STAPLE) != NULL)
		warn(w, "the %s asks for OCSP stapling (must-staple), which "
		    "there is none of here: some clients refuse it", which);
}

/* One that uses the certificate's key to agree on others, not to sign. */
static void
warn_of_suite(const struct warning *w, int suite)
{
	char name[NAME_SIZE];

	suite_name(mbedtls_ssl_get_ciphersuite_name(suite), name, sizeof(name));
	if (!is_tls13_suite(suite) && strstr(name, "DHE_") == NULL)
		warn(w, "%s has no forward secrecy%s", name, strncmp(name,
		    "TLS_RSA_", 8) == 0 ? ", and its RSA decryption is open to "
		    "attacks (CVE-2026-50587)" : "");
}

/* Against those that clients come from, or come with. */
static void
warn_of_trust(const struct tls_config *cfg, struct warning *w)
{
	const mbedtls_x509_crt *crt;
	const struct rule *r;
	char text[NAME_SIZE], dn[DN_SIZE];
	uint32_t flags;
	size_t i;

	w->about = "ca";
	for (crt = &cfg->ca; cfg->verify != NOT_ASKED && cfg->has_ca &&
	    crt != NULL; crt = crt->next)
		if ((flags = issuer_flags(cfg, crt)) != 0)
			warn(w, "no client of \"%s\" is served: %s",
			    dn_text(&crt->subject, dn, sizeof(dn)),
			    find_fault(flags)->text);
	for (i = 0; i < cfg->npassed && i < PASSED_MAX; i++)
		warn(w, "%s; it is passed over", cfg->passed[i]);
	if (cfg->npassed > i)
		warn(w, "%zu more are passed over", cfg->npassed - i);
	w->about = "peer";
	for (r = cfg->rules; r != NULL; r = r->next)
		for (crt = r->certs; crt != NULL; crt = crt->next)
			if (dates(&crt->valid_from, &crt->valid_to, WARN_DAYS,
			    text, sizeof(text)) != IN_TIME)
				warn(w, "%s: the certificate of \"%s\": %s",
				    r->text, dn_text(&crt->subject, dn,
				    sizeof(dn)), text);
}

void
tls_config_warn(const struct tls_config *cfg, void (*f)(const char *))
{
	struct warning w = { .warn = f };
	const mbedtls_x509_crt *crt;
	const mbedtls_x509_crl *crl;
	const struct cert *c;
	char text[ERROR_SIZE], dn[DN_SIZE];
	size_t i;

	for (c = cfg->certs; c != NULL; c = c->next) {
		w.about = c->name;
		for (crt = &c->chain; crt != NULL; crt = crt->next)
			warn_of_cert(&w, crt, crt == &c->chain);
		if (check_chain(cfg, &c->chain, text, sizeof(text)) == 0)
			warn(&w, "%s", text);
		if (!has_names(&c->chain))
			warn(&w, "it has no subject alternative name, and "
			    "clients go by nothing else");
		each_name(&c->chain, warn_of_name, &w);
	}
	warn_of_trust(cfg, &w);
	w.about = "crl";
	for (crl = &cfg->crl; cfg->has_crl && crl != NULL; crl = crl->next)
		if (dates(&crl->this_update, &crl->next_update, CRL_WARN_DAYS,
		    text, sizeof(text)) != IN_TIME)
			warn(&w, "the list of \"%s\": %s",
			    dn_text(&crl->issuer, dn, sizeof(dn)), text);
	w.about = "ciphers";
	if (cfg->left_out != 0)
		warn(&w, "TLS 1.%d is not offered: no suite of the list can be "
		    "used with it", cfg->left_out % 10);
	for (i = 0; cfg->suites[i] != 0; i++)
		warn_of_suite(&w, cfg->suites[i]);
}

static void
print_hex(FILE *fp, const unsigned char *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		fprintf(fp, "%s%02X", i == 0 ? "" : ":", p[i]);
	fputc('\n', fp);
}

static void
print_hash(FILE *fp, const mbedtls_x509_buf *b)
{
	unsigned char hash[HASH_SIZE];
	size_t len;

	psa_hash_compute(PSA_ALG_SHA_256, b->p, b->len, hash, sizeof(hash),
	    &len);
	print_hex(fp, hash, sizeof(hash));
}

/* Where to, and what stands between two names. */
struct printer {
	FILE	*fp;
	const char *comma;
};

static int
print_name(void *arg, int kind, const char *name, size_t len)
{
	struct printer *p = arg;
	char text[INET6_ADDRSTRLEN];

	fputs(p->comma, p->fp);
	p->comma = ", ";
	if (kind == MBEDTLS_X509_SAN_IP_ADDRESS) {
		fputs(inet_ntop(len == 4 ? AF_INET : AF_INET6, name, text,
		    sizeof(text)), p->fp);
		return 0;
	}
	/* Whoever made it must not forge a line, nor move a cursor. */
	for (; len > 0; name++, len--)
		fprintf(p->fp, isprint((unsigned char)*name) ? "%c" :
		    "\\x%02x", (unsigned char)*name);
	return 0;
}

static void
print_names(FILE *fp, const mbedtls_x509_crt *crt)
{
	struct printer p = { .fp = fp, .comma = "" };

	each_name(crt, print_name, &p);
	fprintf(fp, "%s\n", *p.comma == '\0' ? "(none)" : "");
}

static void
print_chain(FILE *fp, const struct tls_config *cfg,
    const mbedtls_x509_crt *crt)
{
	char text[ERROR_SIZE];
	int n = check_chain(cfg, crt, text, sizeof(text));

	if (n <= 0)
		fprintf(fp, "%s\n", text);
	else
		fprintf(fp, "%d certificate%s, fit\n", n,
		    n == 1 ? "" : "s, in order");
}

int
tls_config_report(const struct tls_config *cfg, size_t i, FILE *fp)
{
	const struct cert *c = cert_at(cfg, i);
	const mbedtls_x509_crt *crt;
	const char *alg = "unknown";
	unsigned char hash[32], pin[64];
	char text[1024];
	size_t len;

	if (c == NULL)
		return -1;
	crt = &c->chain;
	fprintf(fp, "certificate %s\n", c->name);
	fprintf(fp, "\tsubject    %s\n\tnames      ",
	    dn_text(&crt->subject, text, sizeof(text)));
	print_names(fp, crt);
	fprintf(fp, "\tissuer     %s\n\tserial     ",
	    dn_text(&crt->issuer, text, sizeof(text)));
	/* A number; DER has a zero before it lest it be negative. */
	len = crt->serial.len > 1 && crt->serial.p[0] == 0;
	print_hex(fp, crt->serial.p + len, crt->serial.len - len);
	dates(&crt->valid_from, &crt->valid_to, 0, text, sizeof(text));
	fprintf(fp, "\tvalid      %04d-%02d-%02d to %04d-%02d-%02d (%s)\n",
	    crt->valid_from.year, crt->valid_from.mon, crt->valid_from.day,
	    crt->valid_to.year, crt->valid_to.mon, crt->valid_to.day, text);
	fprintf(fp, "\tkey        %s, %zu bits, fits\n",
	    mbedtls_pk_get_name(&crt->pk), mbedtls_pk_get_bitlen(&crt->pk));
	mbedtls_oid_get_sig_alg_desc(&crt->sig_oid, &alg);
	fprintf(fp, "\tsignature  %s\n\tsha256     ", alg);
	print_hash(fp, &crt->raw);
	psa_hash_compute(PSA_ALG_SHA_256, crt->pk_raw.p, crt->pk_raw.len,
	    hash, sizeof(hash), &len);
	mbedtls_base64_encode(pin, sizeof(pin), &len, hash, sizeof(hash));
	fprintf(fp, "\tpin        sha256/%s\n\tchain      ", pin);
	print_chain(fp, cfg, crt);
	return 0;
}

int
tls_config_expiry(const struct tls_config *cfg, size_t i, const char **file,
    int64_t *at)
{
	const struct cert *c = cert_at(cfg, i);

	if (c == NULL)
		return -1;
	*file = c->name;
	*at = utc(&c->chain.valid_to);
	return 0;
}

void
tls_config_print(const struct tls_config *cfg, FILE *fp)
{
	const mbedtls_x509_crt *crt;
	const mbedtls_x509_crl *crl;
	const struct rule *r;
	char name[NAME_SIZE], dn[DN_SIZE];
	size_t i;

	fprintf(fp, "# TLS 1.%d to 1.%d, with these suites and groups:\n",
	    cfg->min % 10, cfg->max % 10);
	for (i = 0; cfg->suites[i] != 0; i++) {
		suite_name(mbedtls_ssl_get_ciphersuite_name(cfg->suites[i]),
		    name, sizeof(name));
		fprintf(fp, "#\t%s\n", name);
	}
	for (i = 0; cfg->groups[i] != 0; i++)
		fprintf(fp, "#\t%s\n", group_name(cfg->groups[i]));
	for (crt = &cfg->ca; cfg->has_ca && crt != NULL; crt = crt->next)
		fprintf(fp, "# clients by \"%s\"\n", dn_text(&crt->subject, dn,
		    sizeof(dn)));
	for (r = cfg->rules; r != NULL; r = r->next)
		for (crt = r->certs; crt != NULL; crt = crt->next) {
			fprintf(fp, "# the client \"%s\", sha256 ", dn_text(
			    &crt->subject, dn, sizeof(dn)));
			print_hash(fp, &crt->raw);
		}
	for (crl = &cfg->crl; cfg->has_crl && crl != NULL; crl = crl->next) {
		dates(&crl->this_update, &crl->next_update, 0, name,
		    sizeof(name));
		fprintf(fp, "# but for those revoked by \"%s\" (the list "
		    "%s)\n", dn_text(&crl->issuer, dn, sizeof(dn)), name);
	}
}

/*
 * CLIENTS' CERTIFICATES
 * The library builds the chain and judges each of it; what that means for the
 * client is decided here, in a handshake and when a session is resumed.
 */

static int
is_ruled(void *arg, int kind, const char *name, size_t len)
{
	const struct rule *const *r = arg;

	switch ((*r)->kind) {
	case DNS:
		return kind == MBEDTLS_X509_SAN_DNS_NAME &&
		    (is_same((*r)->text, name, len) || is_below((*r)->text,
		    strlen((*r)->text), name, len));
	case IP:
		return kind == MBEDTLS_X509_SAN_IP_ADDRESS &&
		    len == (*r)->len && memcmp(name, (*r)->bytes, len) == 0;
	default:
		return kind == MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER &&
		    len == strlen((*r)->text) &&
		    memcmp(name, (*r)->text, len) == 0;
	}
}

static int
matches(const struct rule *r, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_buf *cn = common_name(crt);
	unsigned char hash[HASH_SIZE];
	size_t len;

	switch (r->kind) {
	case CN:
		return cn != NULL && cn->len == strlen(r->text) &&
		    memcmp(cn->p, r->text, cn->len) == 0;
	case PIN:
		return psa_hash_compute(PSA_ALG_SHA_256, crt->pk_raw.p,
		    crt->pk_raw.len, hash, sizeof(hash), &len) ==
		    PSA_SUCCESS && memcmp(hash, r->bytes, sizeof(hash)) == 0;
	case CERT:
		return is_in(r->certs, crt->raw.p, crt->raw.len);
	default:
		return each_name(crt, is_ruled, &r);
	}
}

/*
 * The rule that a certificate matches, a pin if there is one; or NULL.  Names
 * that nobody vouches for match none: there may be thousands of them.
 */
static const struct rule *
find_rule(const struct tls_config *cfg, const mbedtls_x509_crt *crt,
    int is_trusted)
{
	const struct rule *r, *found = NULL;

	for (r = cfg->rules; r != NULL; r = r->next)
		if ((is_pin(r) || (is_trusted && found == NULL)) &&
		    matches(r, crt))
			found = r;
	return found;
}

/* The flags' first fault, as text about crt. */
static const struct fault *
fault_text(const struct tls_config *cfg, const mbedtls_x509_crt *crt,
    uint32_t flags, char *text, size_t size)
{
	const mbedtls_x509_crl *crl = &cfg->crl;
	const struct fault *f = find_fault(flags);
	char dn[DN_SIZE];

	if (f->text != NULL) {
		snprintf(text, size, "%s", f->text);
	} else if (f->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) {
		snprintf(text, size, "unknown issuer \"%s\"",
		    dn_text(&crt->issuer, dn, sizeof(dn)));
	} else if (f->flags & MBEDTLS_X509_BADCERT_EXPIRED) {
		dates(&crt->valid_from, &crt->valid_to, 0, text, size);
	} else {
		/* Of several for an issuer, one is not valid. */
		while (dates(&crl->this_update, &crl->next_update, 0, dn,
		    sizeof(dn)) == IN_TIME || !is_same_buf(&crl->issuer_raw,
		    &crt->issuer_raw)) {
			if (crl->next == NULL)
				break;
			crl = crl->next;
		}
		snprintf(text, size, "CRL %s", dn);
	}
	return f;
}

/* The flags are against one of the client's issuers. */
static void
blame_issuer(struct tls *t, const mbedtls_x509_crt *crt, uint32_t flags)
{
	char text[ERROR_SIZE], dn[DN_SIZE];
	const struct fault *f = fault_text(t->cfg, crt, flags, text,
	    sizeof(text));

	if (f->flags & (MBEDTLS_X509_BADCERT_NOT_TRUSTED | CERT_CHAIN_TOO_LONG))
		refuse(t, f->alert, "%s", text);
	else
		refuse(t, f->alert, "issuer \"%s\": %s", dn_text(&crt->subject,
		    dn, sizeof(dn)), text);
}

/* The flags are against it, or against its issuers, who are blamed already. */
static void
refuse_client(struct tls *t, const mbedtls_x509_crt *crt, uint32_t flags)
{
	unsigned char alert = t->alert;
	char text[ERROR_SIZE], dn[DN_SIZE];

	if (t->issuers == 0)
		alert = fault_text(t->cfg, crt, flags, text,
		    sizeof(text))->alert;
	else
		snprintf(text, sizeof(text), "%s", t->why != NULL ? t->why :
		    "one of its issuers");
	refuse(t, alert, "client certificate \"%s\": %s",
	    dn_text(&crt->subject, dn, sizeof(dn)), text);
}

static void
forget_client(struct tls *t)
{
	free(t->client);
	free(t->cn);
	free(t->chain);
	t->client = t->cn = NULL;
	t->chain = NULL;
	t->chain_len = 0;
}

/* Its certificates, as in RFC 8446 section 4.4.2: 3 bytes of length each. */
static int
keep_chain(struct tls *t, const mbedtls_x509_crt *chain)
{
	const mbedtls_x509_crt *crt;
	unsigned char *p;
	size_t len = 3 + chain->raw.len;

	for (crt = chain->next; crt != NULL; crt = crt->next)
		len += 3 + crt->raw.len;
	if ((t->chain = p = calloc(1, len)) == NULL)
		return -1;
	t->chain_len = len;
	for (crt = chain; crt != NULL; crt = crt->next) {
		be_put(p, crt->raw.len, 3);
		memcpy(p + 3, crt->raw.p, crt->raw.len);
		p += 3 + crt->raw.len;
	}
	return 0;
}

static int
remember_client(struct tls *t, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_buf *cn = common_name(crt);
	char dn[DN_SIZE];

	forget_client(t);
	t->client = strdup(dn_text(&crt->subject, dn, sizeof(dn)));
	/* With a zero in it, it would be cut off there: take it for none. */
	if (cn != NULL && memchr(cn->p, '\0', cn->len) != NULL)
		cn = NULL;
	if (cn != NULL)
		t->cn = strndup((const char *)cn->p, cn->len);
	return t->client == NULL || (cn != NULL && t->cn == NULL) ||
	    keep_chain(t, crt) == -1 ? MBEDTLS_ERR_X509_ALLOC_FAILED : 0;
}

/* Netscape's extension of before, if there is one: its first bit. */
static int
is_for_netscape(const mbedtls_x509_crt *crt)
{
	unsigned char *p = find_oid(crt, NS_CERT_TYPE);
	const unsigned char *end;
	mbedtls_asn1_bitstring bits;
	int is_critical;
	size_t len;

	if (p == NULL)
		return 1;
	end = crt->v3_ext.p + crt->v3_ext.len;
	mbedtls_asn1_get_bool(&p, end, &is_critical);	/* or it is not there */
	return mbedtls_asn1_get_tag(&p, end, &len,
	    MBEDTLS_ASN1_OCTET_STRING) == 0 &&
	    mbedtls_asn1_get_bitstring(&p, p + len, &bits) == 0 &&
	    bits.len > 0 &&
	    (bits.p[0] & MBEDTLS_X509_NS_CERT_TYPE_SSL_CLIENT) != 0;
}

static int
may_authenticate(const mbedtls_x509_crt *crt)
{
	return mbedtls_x509_crt_check_key_usage(crt,
	    MBEDTLS_X509_KU_DIGITAL_SIGNATURE) == 0 && is_for_clients(crt) &&
	    is_for_netscape(crt) && find_oid(crt, PROXY_CERT_INFO) == NULL;
}

/* Is that the issuer which its authorityKeyIdentifier, if any, tells of? */
static int
is_key_of(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_authority *a = &crt->authority_key_id;
	const mbedtls_x509_sequence *s;

	if (a->keyIdentifier.p != NULL && issuer->subject_key_id.p != NULL &&
	    !is_same_buf(&a->keyIdentifier, &issuer->subject_key_id))
		return 0;
	if (a->authorityCertSerialNumber.p != NULL && !is_same_buf(
	    &a->authorityCertSerialNumber, &issuer->serial))
		return 0;
	for (s = &a->authorityCertIssuer; s != NULL; s = s->next)
		if (s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC |
		    MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_X509_SAN_DIRECTORY_NAME))
			return is_same_buf(&s->buf, &issuer->issuer_raw);
	return 1;
}

/*
 * Did it come from the issuer that the library has found for it?  That goes by
 * name and key, which several certificates of an authority have in common, if
 * it was renewed: one of them is enough.
 */
static int
has_come_from(const struct tls_config *cfg, const mbedtls_x509_crt *issuer,
    const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_crt *ca = cfg->has_ca ? &cfg->ca : NULL;

	if (is_issuer(crt, crt) && is_key_of(crt, crt))
		return 0;		/* but from itself */
	if (is_key_of(issuer, crt))
		return 1;
	while (ca != NULL && !(is_issuer(ca, crt) && is_key_of(ca, crt) &&
	    is_same_buf(&ca->pk_raw, &issuer->pk_raw) &&
	    issuer_flags(cfg, ca) == 0 &&
	    !mbedtls_x509_time_is_past(&ca->valid_to) &&
	    !mbedtls_x509_time_is_future(&ca->valid_from)))
		ca = ca->next;
	return ca != NULL;
}

/* What a client may not send, for what it would cost us: flags. */
static uint32_t
exceeded(const mbedtls_x509_crt *crt, int depth)
{
	uint32_t flags = 0;

	if (depth >= CHAIN_MAX)
		flags |= CERT_CHAIN_TOO_LONG;
	if (mbedtls_pk_can_do(&crt->pk, MBEDTLS_PK_RSA) &&
	    mbedtls_pk_get_bitlen(&crt->pk) > CLIENT_RSA_MAX)
		flags |= CERT_KEY_TOO_LONG;
	return flags;
}

/*
 * The library is about to refuse one for an extension, and shows it, if it is
 * patched: whose it is, and which.
 */
static int
refuse_extension(struct tls *t, const mbedtls_x509_crt *crt)
{
	struct loading l = { .use = PINNED };
	mbedtls_x509_crt again;

	mbedtls_x509_crt_init(&again);
	if (mbedtls_x509_crt_parse_der_with_ext_cb(&again, crt->raw.p,
	    crt->raw.len, 1, judge_extension, &l) != 0 && l.refused[0] != '\0')
		refuse(t, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
		    "client certificate %s", l.refused);
	mbedtls_x509_crt_free(&again);
	return 0;
}

/*
 * The library's callback for each certificate of a chain, the client's own
 * last, with its flags.  A pin stands in for all issuers.
 */
static int
check_client(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
	struct tls *t = arg;
	const struct rule *r;

	if (depth < 0)
		return refuse_extension(t, crt);
	if (!is_ours(t->cfg, crt))
		*flags |= exceeded(crt, depth);
	if (t->issuer != NULL && !has_come_from(t->cfg, t->issuer, crt))
		*flags |= MBEDTLS_X509_BADCERT_NOT_TRUSTED;
	t->issuer = depth > 0 ? crt : NULL;
	if (depth > 0) {
		*flags |= issuer_flags(t->cfg, crt);
		if (t->issuers == 0 && *flags != 0)
			blame_issuer(t, crt, *flags);
		t->issuers |= *flags;
		*flags = 0;
		return 0;
	}
	if (crt->raw.p == NULL)		/* in TLS 1.2, left out for that */
		*flags |= CERT_SIGNED_ODDLY;
	if (!may_authenticate(crt))
		*flags |= MBEDTLS_X509_BADCERT_EXT_KEY_USAGE;
	r = find_rule(t->cfg, crt, ((*flags | t->issuers) &
	    MBEDTLS_X509_BADCERT_NOT_TRUSTED) == 0);
	if (r == NULL && t->cfg->rules != NULL)
		*flags |= MBEDTLS_X509_BADCERT_OTHER;
	if (!t->cfg->has_ca || (r != NULL && is_pin(r))) {
		*flags &= ~(uint32_t)MBEDTLS_X509_BADCERT_NOT_TRUSTED;
		t->issuers = 0;
	}
	*flags |= t->issuers;
	if (*flags == 0) {
		forgive(t);
		return remember_client(t, crt);
	}
	refuse_client(t, crt, *flags);
	t->issuers = 0;
	return 0;
}

/*
 * After a step of the handshake: is the client to be refused?  The library was
 * told to go on whatever it finds.
 */
static int
judge(struct tls *t)
{
	uint32_t flags = mbedtls_ssl_get_verify_result(t->ssl);
	const struct fault *f;

	if (t->refused || t->cfg->verify == NOT_ASKED)
		return t->refused;
	/* All of them: there is no result yet. */
	if (flags == UINT32_MAX || flags == MBEDTLS_X509_BADCERT_SKIP_VERIFY)
		flags = 0;
	/* There may be one of a session that was not resumed after all. */
	if (flags & MBEDTLS_X509_BADCERT_MISSING) {
		forget_client(t);
	} else if (flags != 0) {
		/* What it finds by itself, behind check_client(). */
		f = find_fault(flags);
		refuse(t, f->alert, "client certificate \"%s\": %s",
		    t->client != NULL ? t->client : "", f->text != NULL ?
		    f->text : "not valid");
	}
	if (t->client == NULL && t->cfg->verify == REQUIRED &&
	    (flags != 0 || mbedtls_ssl_is_handshake_over(t->ssl)))
		refuse(t, is_tls13(t) ? CERTIFICATE_REQUIRED :
		    MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		    "no client certificate");
	return t->refused;
}

/*
 * SESSIONS
 * A ticket is the name of a key, salt, and what is encrypted for that salt
 * alone, so that a key is good for any number of them.  In it are the session
 * and the client's certificates, since they are to be verified anew.
 */

/* A copy of the keys as they are now; -1: there are none. */
static int
keys_now(const struct tls_config *cfg, struct keys *keys)
{
	struct shared *s = cfg->sessions->shared;
	unsigned before, i;

	for (i = 0; i < TORN; i++) {
		before = atomic_load(&s->version);
		memcpy(keys, &s->keys, sizeof(*keys));
		atomic_thread_fence(memory_order_acquire);
		if (before % 2 == 0 && before == atomic_load(&s->version) &&
		    keys->n > 0 && keys->n <= KEYS_MAX)
			return 0;
	}
	mbedtls_platform_zeroize(keys, sizeof(*keys));
	return -1;
}

static psa_status_t
import(psa_key_type_t type, psa_key_usage_t usage, psa_algorithm_t alg,
    const unsigned char *secret, psa_key_id_t *id)
{
	psa_key_attributes_t attr = psa_key_attributes_init();

	psa_set_key_type(&attr, type);
	psa_set_key_usage_flags(&attr, usage);
	psa_set_key_algorithm(&attr, alg);
	return psa_import_key(&attr, secret, KEY_SIZE, id);
}

/* The key for the ticket with that salt: HMAC-SHA256 of it. */
static int
derive(const unsigned char *secret, const unsigned char *salt,
    psa_key_usage_t usage, psa_key_id_t *id)
{
	unsigned char own[HASH_SIZE];
	psa_key_id_t hmac;
	psa_status_t r;
	size_t len;

	if (import(PSA_KEY_TYPE_HMAC, PSA_KEY_USAGE_SIGN_MESSAGE,
	    PSA_ALG_HMAC(PSA_ALG_SHA_256), secret, &hmac) != PSA_SUCCESS)
		return -1;
	r = psa_mac_compute(hmac, PSA_ALG_HMAC(PSA_ALG_SHA_256), salt,
	    SALT_SIZE, own, sizeof(own), &len);
	psa_destroy_key(hmac);
	if (r == PSA_SUCCESS)
		r = import(PSA_KEY_TYPE_CHACHA20, usage,
		    PSA_ALG_CHACHA20_POLY1305, own, id);
	mbedtls_platform_zeroize(own, sizeof(own));
	return r == PSA_SUCCESS ? 0 : -1;
}

static const unsigned char nonce[12];		/* its key is used once */

/*
 * A ticket of size bytes at most, whose salt is there already.  Its length, or
 * 0 if there can be none.
 */
static size_t
seal(const struct tls_config *cfg, const unsigned char *plain, size_t len,
    unsigned char *ticket, size_t size)
{
	struct keys keys;
	psa_key_id_t id;
	size_t n = 0;

	if (len == 0 || size < TICKET_HEAD + len + TAG_SIZE ||
	    keys_now(cfg, &keys) == -1)
		return 0;
	memcpy(ticket, keys.list[0].name, KEY_NAME_SIZE);
	if (derive(keys.list[0].secret, ticket + KEY_NAME_SIZE,
	    PSA_KEY_USAGE_ENCRYPT, &id) == 0) {
		if (psa_aead_encrypt(id, PSA_ALG_CHACHA20_POLY1305, nonce,
		    sizeof(nonce), ticket, TICKET_HEAD, plain, len,
		    ticket + TICKET_HEAD, size - TICKET_HEAD, &n) ==
		    PSA_SUCCESS)
			n += TICKET_HEAD;
		psa_destroy_key(id);
	}
	mbedtls_platform_zeroize(&keys, sizeof(keys));
	return n;
}

/* What is in a ticket; its length, or 0: it is none of ours. */
static size_t
unseal(const struct tls_config *cfg, const unsigned char *ticket, size_t len,
    unsigned char *plain, size_t size)
{
	struct keys keys;
	psa_key_id_t id;
	size_t i, n = 0;

	if (len < TICKET_HEAD + TAG_SIZE || keys_now(cfg, &keys) == -1)
		return 0;
	for (i = 0; i < keys.n && memcmp(ticket, keys.list[i].name,
	    KEY_NAME_SIZE) != 0; i++)
		continue;
	if (i < keys.n && derive(keys.list[i].secret, ticket + KEY_NAME_SIZE,
	    PSA_KEY_USAGE_DECRYPT, &id) == 0) {
		if (psa_aead_decrypt(id, PSA_ALG_CHACHA20_POLY1305, nonce,
		    sizeof(nonce), ticket, TICKET_HEAD, ticket + TICKET_HEAD,
		    len - TICKET_HEAD, plain, size, &n) != PSA_SUCCESS)
			n = 0;
		psa_destroy_key(id);
	}
	mbedtls_platform_zeroize(&keys, sizeof(keys));
	return n;
}

/* The time of day in milliseconds, by which hosts can tell a session's age. */
static int64_t
wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Where in a saved session of TLS 1.3 the library has put the time of its
 * ticket.  That is a clock of this host's, from its boot on; another one has
 * to put a time of its own there.  0: nowhere.
 */
static size_t
find_time(const mbedtls_ssl_session *session, const unsigned char *saved,
    size_t len)
{
	unsigned char created[8];
	mbedtls_ms_time_t ms;
	size_t i;

	/* Which only asks, whatever it is declared as. */
	if (mbedtls_ssl_session_get_ticket_creation_time(
	    (mbedtls_ssl_session *)(uintptr_t)session, &ms) != 0)
		return 0;
	be_put(created, (uint64_t)ms, sizeof(created));
	for (i = 1; i + sizeof(created) <= len; i++)
		if (memcmp(saved + i, created, sizeof(created)) == 0)
			return i;
	return 0;
}

/*
 * What is in a ticket: its head, the server's name, the session, and the
 * client's certificates.  The length of all that, or 0: it does not fit, or is
 * not to be resumed: nobody could tell later what a name was that is none, nor
 * is a TLS 1.2 master secret of the old kind safe (RFC 7627 section 5.3).
 */
static size_t
session_pack(const struct tls *t, const mbedtls_ssl_session *session,
    unsigned char *p, size_t size)
{
	int64_t now = wall_ms();
	size_t len, name = t->sni != NULL ? strlen(t->sni) : 0;
	size_t head = SESSION_HEAD + name;

	if ((t->sni != NULL && name == 0) || (!is_tls13(t) && !t->extended) ||
	    size < head || mbedtls_ssl_session_save(session, p + head,
	    size - head, &len) != 0 || size - head - len < t->chain_len)
		return 0;
	p[AT_TLS13] = (unsigned char)is_tls13(t);
	be_put(p + AT_BORN, (uint64_t)(t->resumed ? t->born : now / 1000), 8);
	be_put(p + AT_SAVED, (uint64_t)now, 8);
	be_put(p + AT_TIME, is_tls13(t) ? find_time(session, p + head, len) : 0,
	    2);
	be_put(p + AT_LENGTH, len, 2);
	be_put(p + AT_NAME, name, 1);
	if (name > 0)
		memcpy(p + SESSION_HEAD, t->sni, name);
	if (t->chain_len > 0)
		memcpy(p + head + len, t->chain, t->chain_len);
	return head + len + t->chain_len;
}

/* Does the client ask for the name that its session was made for? */
static int
is_named(const struct tls *t, const unsigned char *name, size_t len)
{
	return t->sni == NULL ? len == 0 :
	    len > 0 && is_same(t->sni, (const char *)name, len);
}

/* Would the client pass today, with the certificates that it had then? */
static int
verify_again(struct tls *t, const unsigned char *p, size_t len)
{
	struct tls_config *cfg = t->cfg;
	mbedtls_x509_crt chain;
	uint32_t flags;
	size_t n;
	int r = 0;

	forget_client(t);
	if (cfg->verify == NOT_ASKED || (len == 0 && cfg->verify == ASKED))
		return 0;
	mbedtls_x509_crt_init(&chain);
	for (; r == 0 && len > 3 && (n = (size_t)be_get(p, 3)) <= len - 3;
	    p += n) {
		p += 3;
		len -= 3 + n;
		r = mbedtls_x509_crt_parse_der(&chain, p, n);
	}
	if (r != 0 || len != 0 || chain.raw.p == NULL ||
	    mbedtls_x509_crt_verify(&chain, cfg->has_ca ? &cfg->ca : NULL,
	    cfg->has_crl ? &cfg->crl : NULL, NULL, &flags, check_client, t) !=
	    0)
		r = -1;
	mbedtls_x509_crt_free(&chain);
	/* If it would not, a full handshake is to tell why. */
	forgive(t);
	return r;
}

/* Is there a key for it, and is it allowed at all? */
static int
is_usable(const struct tls_config *cfg, int suite)
{
	size_t i;

	for (i = 0; has_key(cfg, suite) && cfg->suites[i] != 0; i++)
		if (cfg->suites[i] == suite)
			return 1;
	return 0;
}

/*
 * In TLS 1.2 a session is bound to its suite, but the library, given a
 * ticket, goes on to choose one by preference: let it be that one, in this
 * step of this handshake.
 */
static void
insist_on(struct tls_config *cfg, int suite)
{
	cfg->suites_now[0] = suite;
	memcpy(cfg->suites_now + 1, cfg->suites, sizeof(cfg->suites));
	mbedtls_ssl_conf_ciphersuites(&cfg->ssl, cfg->suites_now);
}

/*
 * What session_pack() has made, as a session; 0 if it may be resumed.  Several
 * may be offered, and one that is refused changes nothing, or leaves nobody:
 * that is why whose it is comes last.
 */
static int
session_unpack(struct tls *t, mbedtls_ssl_session *session, unsigned char *p,
    size_t len)
{
	int64_t age, born, saved, now = wall_ms();
	unsigned char *end = p + len, *name = p + SESSION_HEAD;
	size_t at, n;
	int suite;

	if (len < SESSION_HEAD || p[AT_TLS13] != is_tls13(t) ||
	    (n = (size_t)be_get(p + AT_LENGTH, 2)) + p[AT_NAME] > len -
	    SESSION_HEAD || !is_named(t, name, p[AT_NAME]))
		return -1;
	born = (int64_t)be_get(p + AT_BORN, 8);
	saved = (int64_t)be_get(p + AT_SAVED, 8);
	if (born > now / 1000)		/* by a clock that is ahead */
		born = now / 1000;
	if (born < 0 || saved < 0 || now / 1000 - born >= t->cfg->lifetime)
		return -1;
	age = now - saved;
	at = (size_t)be_get(p + AT_TIME, 2);
	p = name + p[AT_NAME];
	if (at != 0 && at + 8 <= n)
		be_put(p + at, (uint64_t)(mbedtls_ms_time() -
		    (age > 0 ? age : 0)), 8);
	if (mbedtls_ssl_session_load(session, p, n) != 0)
		return -1;
	suite = mbedtls_ssl_session_get_ciphersuite_id(session);
	p += n;
	if (!is_usable(t->cfg, suite) ||
	    verify_again(t, p, (size_t)(end - p)) != 0)
		return -1;
	if (!is_tls13(t))
		insist_on(t->cfg, suite);
	t->born = born;
	return 0;
}

/* The salt is an ID's, to which the ticket is bound by that, or NULL. */
static size_t
session_seal(const struct tls *t, const mbedtls_ssl_session *session,
    const unsigned char *salt, unsigned char *ticket, size_t size)
{
	unsigned char plain[TICKET_MAX];
	size_t len = session_pack(t, session, plain, sizeof(plain));

	if (size < TICKET_HEAD || (salt == NULL && psa_generate_random(ticket +
	    KEY_NAME_SIZE, SALT_SIZE) != PSA_SUCCESS))
		len = 0;
	else if (salt != NULL)
		memcpy(ticket + KEY_NAME_SIZE, salt, SALT_SIZE);
	len = seal(t->cfg, plain, len, ticket, size);
	mbedtls_platform_zeroize(plain, sizeof(plain));
	return len;
}

static int
session_unseal(struct tls *t, mbedtls_ssl_session *session,
    const unsigned char *ticket, size_t len)
{
	unsigned char plain[TICKET_MAX];
	int r = -1;

	len = unseal(t->cfg, ticket, len, plain, sizeof(plain));
	if (len > 0)
		r = session_unpack(t, session, plain, len);
	mbedtls_platform_zeroize(plain, sizeof(plain));
	return r;
}

/*
 * The library's callbacks for tickets.  In TLS 1.3 there must be one: where
 * there can't be, it is of no use.
 */
static int
ticket_write(void *arg, const mbedtls_ssl_session *session,
    unsigned char *start, const unsigned char *end, size_t *len,
    uint32_t *lifetime)
{
	const struct tls_config *cfg = arg;
	const struct tls *t = cfg->current;
	int64_t left = cfg->lifetime;
	size_t n, size = (size_t)(end - start);

	*lifetime = 0;	/* mbed TLS 3.6.6 sends it after a failure, too */
	if (t->resumed)
		left -= wall_ms() / 1000 - t->born;
	if (left > cfg->lifetime)	/* the clock was set back */
		left = cfg->lifetime;
	if ((n = session_seal(t, session, NULL, start, size)) == 0) {
		left = 0;
		n = TICKET_HEAD;
		if (size < n || psa_generate_random(start, n) != PSA_SUCCESS)
			return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
	}
	/* Not before: in TLS 1.2 the library sends as much after a failure. */
	*len = n;
	*lifetime = left > 0 ? (uint32_t)left : 0;
	return 0;
}

static int
ticket_parse(void *arg, mbedtls_ssl_session *session, unsigned char *buf,
    size_t len)
{
	struct tls_config *cfg = arg;
	struct tls *t = cfg->current;

	/* A client has one or two; each may cost the checks of a chain. */
	if (t->ntickets >= TICKETS_TRIED || remember_name(t->ssl) != 0)
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	t->ntickets++;
	return session_unseal(t, session, buf, len) == 0 ? 0 :
	    MBEDTLS_ERR_SSL_INVALID_MAC;
}

/* Place i of those for an ID; NULL: there are not as many. */
static struct slot *
slot_for(const struct tls_sessions *s, const unsigned char *id, size_t i)
{
	size_t sets = (s->nslots + WAYS - 1) / WAYS;
	size_t n = (size_t)be_get(id, 4) % sets * WAYS + i;

	return i < WAYS && n < s->nslots ?
	    (void *)(s->shared->slots + n * s->slot_size) : NULL;
}

/* The library's callbacks for the cache; a ticket is what it holds, too. */
static int
cache_get(void *arg, const unsigned char *id, size_t len,
    mbedtls_ssl_session *session)
{
	struct tls_config *cfg = arg;
	const struct tls_sessions *s = cfg->sessions;
	unsigned char ticket[SLOT_WITH_CLIENT];
	const volatile uint32_t *stored;
	const struct slot *slot;
	size_t i, n;

	for (i = 0; len == ID_SIZE && (slot = slot_for(s, id, i)) != NULL;
	    i++) {
		stored = &slot->len;
		n = *stored;		/* once, as others may change it */
		if (memcmp(slot->id, id, ID_SIZE) != 0 || n < TICKET_HEAD ||
		    n > s->slot_size - sizeof(*slot))
			continue;
		memcpy(ticket, slot->ticket, n);
		if (memcmp(ticket + KEY_NAME_SIZE, id, SALT_SIZE) == 0)
			return session_unseal(cfg->current, session, ticket,
			    n) == 0 ? 0 : MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
	}
	return MBEDTLS_ERR_SSL_CACHE_ENTRY_NOT_FOUND;
}

static int
cache_set(void *arg, const unsigned char *id, size_t len,
    const mbedtls_ssl_session *session)
{
	struct tls_config *cfg = arg;
	const struct tls_sessions *s = cfg->sessions;
	size_t i, n, room = s->slot_size - sizeof(struct slot);
	unsigned char ticket[SLOT_WITH_CLIENT];
	struct slot *slot, *oldest = NULL;

	for (i = 0; len == ID_SIZE && (slot = slot_for(s, id, i)) != NULL; i++)
		if (oldest == NULL || slot->used < oldest->used)
			oldest = slot;
	if (oldest == NULL)
		return -1;
	/* Not sealed in its place, where another one may be writing. */
	n = session_seal(cfg->current, session, id, ticket, room);
	if (n == 0)
		return -1;
	memcpy(oldest->id, id, ID_SIZE);
	oldest->len = (uint32_t)n;
	oldest->used = atomic_fetch_add(&s->shared->clock, 1) + 1;
	memcpy(oldest->ticket, ticket, n);
	memset(oldest->ticket + n, 0, room - n);
	return 0;
}

static size_t
slot_size(int with_clients)
{
	return with_clients ? SLOT_WITH_CLIENT : SLOT_SIZE;
}

size_t
tls_sessions_size(size_t entries, int with_clients)
{
	return sizeof(struct shared) + entries * slot_size(with_clients);
}

struct tls_sessions *
tls_sessions_new(void *memory, size_t entries, int with_clients)
{
	struct tls_sessions *s;

	if ((s = calloc(1, sizeof(*s))) == NULL)
		return NULL;
	s->shared = memory;
	s->nslots = entries;
	s->slot_size = slot_size(with_clients);
	return s;
}

void
tls_sessions_free(struct tls_sessions *s)
{
	free(s);
}

void
tls_sessions_adopt(struct tls_sessions *s, const struct tls_sessions *other)
{
	s->shared->keys = other->shared->keys;
}

void
tls_config_sessions(struct tls_config *cfg, struct tls_sessions *s,
    int with_tickets, int lifetime)
{
	cfg->sessions = s;
	cfg->lifetime = lifetime;
	/* Never without a fresh key exchange. */
	mbedtls_ssl_conf_tls13_key_exchange_modes(&cfg->ssl,
	    MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ALL);
	if (with_tickets)
		mbedtls_ssl_conf_session_tickets_cb(&cfg->ssl, ticket_write,
		    ticket_parse, cfg);
	if (s->nslots > 0)
		mbedtls_ssl_conf_session_cache(&cfg->ssl, cfg, cache_get,
		    cache_set);
}

/* A key has its hash for a name. */
static int
key_add(struct keys *keys, const unsigned char *secret)
{
	unsigned char hash[HASH_SIZE];
	size_t len;

	if (psa_hash_compute(PSA_ALG_SHA_256, secret, KEY_SIZE, hash,
	    sizeof(hash), &len) != PSA_SUCCESS)
		return -1;
	memcpy(keys->list[keys->n].name, hash, KEY_NAME_SIZE);
	memcpy(keys->list[keys->n].secret, secret, KEY_SIZE);
	keys->n++;
	return 0;
}

const char *
tls_config_renew(struct tls_config *cfg)
{
	struct shared *s = cfg->sessions->shared;
	unsigned char secret[KEY_SIZE];
	struct keys keys = cfg->keys;
	const char *why = NULL;

	if (keys.n == 0) {
		if (psa_generate_random(secret, sizeof(secret)) !=
		    PSA_SUCCESS || key_add(&keys, secret) == -1)
			why = "the random generator has no entropy";
		else if (s->keys.n > 0)
			keys.list[keys.n++] = s->keys.list[0];
		mbedtls_platform_zeroize(secret, sizeof(secret));
	}
	if (why == NULL) {
		atomic_fetch_add(&s->version, 1);
		atomic_thread_fence(memory_order_release);
		s->keys = keys;
		atomic_fetch_add(&s->version, 1);
	}
	mbedtls_platform_zeroize(&keys, sizeof(keys));
	return why;
}

/* 64 hexadecimal digits, and nothing behind them but blanks. */
static int
parse_key(const char *line, unsigned char *secret)
{
	static const char digits[] = "0123456789abcdef";
	size_t i;

	for (i = 0; i < 2 * KEY_SIZE; i++) {
		const char *d = strchr(digits, tolower((unsigned char)line[i]));

		if (line[i] == '\0' || d == NULL)
			return -1;
		secret[i / 2] = (unsigned char)(secret[i / 2] << 4 |
		    (d - digits));
	}
	line += 2 * KEY_SIZE;
	return line[strspn(line, " \t\r")] == '\0' ? 0 : -1;
}

static int
parse_keys(struct tls_config *cfg, const char *name, char *text)
{
	unsigned char secret[KEY_SIZE] = { 0 };
	char *line;
	int n = 0, r = 0;

	while (r == 0 && (line = strsep(&text, "\n")) != NULL) {
		n++;
		line += strspn(line, " \t\r");
		if (*line == '\0' || *line == '#')
			continue;
		if (cfg->keys.n == KEYS_MAX)
			r = tls_fail(cfg, "%s:%d: more than %d keys", name, n,
			    KEYS_MAX);
		else if (parse_key(line, secret) == -1)
			r = tls_fail(cfg, "%s:%d: not a key (allowed: %d "
			    "hexadecimal digits on a line, as tunnel -k "
			    "makes them)", name, n, 2 * KEY_SIZE);
		else if (key_add(&cfg->keys, secret) == -1)
			r = tls_fail(cfg, "%s:%d: out of memory", name, n);
	}
	mbedtls_platform_zeroize(secret, sizeof(secret));
	if (r == 0 && cfg->keys.n == 0)
		r = tls_fail(cfg,
		    "%s: no key in it (tunnel -k makes one)", name);
	return r;
}

int
tls_config_ticket_keys(struct tls_config *cfg, const char *name)
{
	unsigned char *text, *nul;
	size_t size;
	int r;

	if ((text = slurp(cfg, name, &size)) == NULL)
		return -1;
	/* It is text: nothing in it shall be its end, nor be a key. */
	while ((nul = memchr(text, '\0', size - 1)) != NULL)
		*nul = '?';
	r = parse_keys(cfg, name, (char *)text);
	mbedtls_platform_zeroize(text, size);
	free(text);
	return r;
}

int
tls_generate_ticket_key(FILE *fp)
{
	unsigned char secret[KEY_SIZE];
	size_t i;

	if (psa_generate_random(secret, sizeof(secret)) != PSA_SUCCESS) {
		errno = EIO;
		return -1;
	}
	for (i = 0; i < sizeof(secret); i++)
		fprintf(fp, "%02x", secret[i]);
	fputc('\n', fp);
	mbedtls_platform_zeroize(secret, sizeof(secret));
	return fflush(fp) != 0 || ferror(fp) ? -1 : 0;
}

/*
 * A CERTIFICATE, MADE HERE
 */

/* One name as a SAN entry; ip holds an address, 16 bytes. */
static int
san_entry(mbedtls_x509_san_list *entry, char *name, unsigned char *ip)
{
	mbedtls_x509_buf *b = &entry->node.san.unstructured_name;
	int v4 = inet_pton(AF_INET, name, ip) == 1;

	if (v4 || inet_pton(AF_INET6, name, ip) == 1) {
		entry->node.type = MBEDTLS_X509_SAN_IP_ADDRESS;
		b->p = ip;
		b->len = v4 ? 4 : 16;
		return 0;
	}
	if (!is_host_name(name))
		return -1;
	entry->node.type = MBEDTLS_X509_SAN_DNS_NAME;
	b->p = (unsigned char *)name;
	b->len = strlen(name);
	return 0;
}

static int
make_key(mbedtls_pk_context *key)
{
	psa_key_attributes_t attr = psa_key_attributes_init();
	psa_key_id_t id;
	int r;

	psa_set_key_type(&attr,
	    PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
	psa_set_key_bits(&attr, 256);
	psa_set_key_usage_flags(&attr,
	    PSA_KEY_USAGE_SIGN_HASH | PSA_KEY_USAGE_EXPORT);
	psa_set_key_algorithm(&attr, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
	if (psa_generate_key(&attr, &id) != PSA_SUCCESS)
		return -1;
	r = mbedtls_pk_copy_from_psa(id, key);
	psa_destroy_key(id);
	return r;
}

/* Everything but the key and the names that is in it; 0 or an error. */
static int
fill_certificate(mbedtls_x509write_cert *w, mbedtls_pk_context *key,
    const char *name)
{
	unsigned char serial[16];
	char subject[NAME_SIZE + 4], from[16], to[16];
	time_t t = time(NULL) - DAY;	/* a client's clock may be behind */
	mbedtls_asn1_sequence usage = { .buf = { .tag = MBEDTLS_ASN1_OID,
	    .p = (unsigned char *)(uintptr_t)MBEDTLS_OID_SERVER_AUTH,
	    .len = sizeof(MBEDTLS_OID_SERVER_AUTH) - 1 } };
	struct tm tm;
	int r;

	snprintf(subject, sizeof(subject), "CN=%.64s", name);
	gmtime_r(&t, &tm);
	strftime(from, sizeof(from), "%Y%m%d%H%M%S", &tm);
	t += (time_t)(GENERATED_DAYS) * DAY;
	gmtime_r(&t, &tm);
	strftime(to, sizeof(to), "%Y%m%d%H%M%S", &tm);
	mbedtls_x509write_crt_set_version(w, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(w, key);
	mbedtls_x509write_crt_set_issuer_key(w, key);
	if (psa_generate_random(serial, sizeof(serial)) != PSA_SUCCESS)
		return MBEDTLS_ERR_PK_ALLOC_FAILED;
	serial[0] = (serial[0] & 0x7f) | 0x40;	/* positive, and 16 bytes */
	if ((r = mbedtls_x509write_crt_set_serial_raw(w, serial,
	    sizeof(serial))) != 0 ||
	    (r = mbedtls_x509write_crt_set_validity(w, from, to)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_name(w, subject)) != 0 ||
	    (r = mbedtls_x509write_crt_set_issuer_name(w, subject)) != 0 ||
	    (r = mbedtls_x509write_crt_set_basic_constraints(w, 0, -1)) != 0 ||
	    (r = mbedtls_x509write_crt_set_key_usage(w,
	    MBEDTLS_X509_KU_DIGITAL_SIGNATURE)) != 0 ||
	    (r = mbedtls_x509write_crt_set_ext_key_usage(w, &usage)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_key_identifier(w)) != 0)
		return r;
	return mbedtls_x509write_crt_set_authority_key_identifier(w);
}

static int
write_pem(FILE *fp, mbedtls_x509write_cert *w, mbedtls_pk_context *key)
{
	unsigned char pem[8192];
	int r;

	if ((r = mbedtls_pk_write_key_pem(key, pem, sizeof(pem))) == 0) {
		fputs((char *)pem, fp);
		r = mbedtls_x509write_crt_pem(w, pem, sizeof(pem), RNG);
	}
	if (r == 0)
		fputs((char *)pem, fp);
	mbedtls_platform_zeroize(pem, sizeof(pem));
	return r;
}

int
tls_generate(const char *names, FILE *fp, char *text, size_t size)
{
	mbedtls_x509_san_list san[LIST_MAX] = { 0 };
	unsigned char ip[LIST_MAX][16];
	mbedtls_x509write_cert w;
	mbedtls_pk_context key;
	char *copy, *first = NULL, *name, *rest;
	size_t n = 0;
	int r = -1;

	mbedtls_x509write_crt_init(&w);
	mbedtls_pk_init(&key);
	if ((copy = strdup(names)) == NULL) {
		snprintf(text, size, "out of memory");
		goto out;
	}
	/* An IPv6 address has colons of its own: they separate nothing here. */
	for (name = strtok_r(copy, " \t,", &rest); name != NULL;
	    name = strtok_r(NULL, " \t,", &rest)) {
		if (n == LIST_MAX || san_entry(&san[n], name, ip[n]) == -1) {
			snprintf(text, size, "\"%s\" is not a DNS name or an "
			    "address (at most %d, separated by commas)", name,
			    LIST_MAX);
			goto out;
		}
		/* The list is written from its end. */
		if (n > 0)
			san[n].next = &san[n - 1];
		else
			first = name;
		n++;
	}
	if (n == 0) {
		snprintf(text, size, "no name given");
		goto out;
	}
	if ((r = make_key(&key)) != 0 ||
	    (r = fill_certificate(&w, &key, first)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_alternative_name(&w,
	    &san[n - 1])) != 0 || (r = write_pem(fp, &w, &key)) != 0)
		snprintf(text, size, "%s", explain(r));
	else if (fflush(fp) != 0 || ferror(fp)) {
		snprintf(text, size, "%s", strerror(errno));
		r = -1;
	}
out:
	mbedtls_x509write_crt_free(&w);
	mbedtls_pk_free(&key);
	free(copy);
	return r == 0 ? 0 : -1;
}

/*
 * THE STREAM
 * mbed TLS over recv(2) and send(2), in the engine's words.
 */

static void	 to_kernel(struct tls *, struct stream *);

static int
bio_failed(struct tls *t, int want, int other)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return want;
	t->err = errno;
	return errno == ECONNRESET || errno == EPIPE ?
	    MBEDTLS_ERR_NET_CONN_RESET : other;
}

static void
follow_header(struct record *r, unsigned char c)
{
	if (r->nhead == HEADER_SIZE)
		r->nhead = 0;
	r->head[r->nhead++] = c;
	if (r->nhead < HEADER_SIZE)
		return;
	r->left = (uint16_t)record_size(r);
	r->count++;
	if (r->head[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC)
		r->count = 0;
}

static void
follow(struct record *r, const unsigned char *p, size_t len)
{
	size_t i, n;

	for (; len > 0; p += n, len -= n) {
		if ((n = r->left) == 0) {
			follow_header(r, *p);
			n = 1;
			continue;
		}
		if (n > len)
			n = len;
		for (i = n > 2 ? n - 2 : 0; i < n; i++) {
			r->body[0] = r->body[1];
			r->body[1] = p[i];
		}
		r->left = (uint16_t)(r->left - n);
	}
}

static ssize_t
bio_get(struct tls *t, unsigned char *buf, size_t len)
{
	ssize_t n;

	do {
		n = recv(t->fd, buf, len, 0);
	} while (n == -1 && errno == EINTR);
	t->fin = n == 0;
	return n;
}

/* What the library gets, which has room for more than RFC 8446 5.2 allows. */
static int
pass(struct tls *t, const unsigned char *p, size_t len)
{
	follow(&t->in, p, len);
	return is_tls13(t) && t->in.left > RECORD_MAX + RECORD_EXTRA ?
	    MBEDTLS_ERR_SSL_INVALID_RECORD : (int)len;
}

/*
 * Of data, as much is received at once as there is; the library asks for it
 * in small pieces.
 */
static int
recv_ahead(struct tls *t, unsigned char *buf, size_t len)
{
	struct tls_config *cfg = t->cfg;
	ssize_t n;

	if (cfg->ahead_at == cfg->ahead_end) {
		if (t->drained)
			return MBEDTLS_ERR_SSL_WANT_READ;
		n = bio_get(t, cfg->ahead, sizeof(cfg->ahead));
		if (n == -1)
			return bio_failed(t, MBEDTLS_ERR_SSL_WANT_READ,
			    MBEDTLS_ERR_NET_RECV_FAILED);
		t->drained = n > 0 && (size_t)n < sizeof(cfg->ahead);
		cfg->ahead_at = 0;
		cfg->ahead_end = (size_t)n;
	}
	if (len > cfg->ahead_end - cfg->ahead_at)
		len = cfg->ahead_end - cfg->ahead_at;
	memcpy(buf, cfg->ahead + cfg->ahead_at, len);
	cfg->ahead_at += len;
	return pass(t, buf, len);
}

/* What is left in there, for want of room for what comes of it, is kept. */
static int
keep_ahead(struct tls *t)
{
	struct tls_config *cfg = t->cfg;

	t->nahead = cfg->ahead_end - cfg->ahead_at;
	if (t->nahead == 0)
		return 0;
	if ((t->ahead = malloc(t->nahead)) == NULL) {
		t->nahead = 0;
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	}
	memcpy(t->ahead, cfg->ahead + cfg->ahead_at, t->nahead);
	return 0;
}

static void
take_ahead(struct tls *t)
{
	struct tls_config *cfg = t->cfg;

	cfg->ahead_at = 0;
	cfg->ahead_end = t->nahead;
	if (t->nahead > 0)
		memcpy(cfg->ahead, t->ahead, t->nahead);
	free(t->ahead);
	t->ahead = NULL;
	t->nahead = 0;
}

/*
 * A peer that always has more to send must not keep us for ever: the library
 * goes on as long as it is given records, be they empty or to be ignored.
 */
static int
bio_recv(void *ctx, unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	ssize_t i, n;

	if (t->budget-- <= 0)
		return MBEDTLS_ERR_SSL_WANT_READ;
	if (t->open)
		return recv_ahead(t, buf, len);
	if ((n = bio_get(t, buf, len)) == -1)
		return bio_failed(t, MBEDTLS_ERR_SSL_WANT_READ,
		    MBEDTLS_ERR_NET_RECV_FAILED);
	if (t->flight == 1)
		t->flight = 2;
	for (i = 0; i < n && t->nfirst < sizeof(t->first); i++)
		t->first[t->nfirst++] = buf[i];
	/* Its Finished is the last before our keys for data; RFC 8446 4.4.4. */
	if (is_tls13(t))
		t->out.count = 0;
	return pass(t, buf, (size_t)n);
}

/*
 * In a ServerHello, behind the session ID, are suite, compression, and the
 * extensions: in TLS 1.3 (RFC 8446 section 4.2) the group of the key_share, and
 * whether a session is resumed.  In TLS 1.2 it is, unless a Certificate
 * follows; and the client has offered an extended master secret if it is there.
 */
static void
watch_hello(struct tls *t, const unsigned char *p, const unsigned char *end)
{
	int is_tls13 = 0, has_psk = 0;

	t->flight = 1;
	if (end - p < 1 + p[0] + 5)
		return;
	for (p += 1 + p[0] + 5; end - p >= 6; p += 4 + be_get(p + 2, 2)) {
		switch (be_get(p, 2)) {
		case MBEDTLS_TLS_EXT_KEY_SHARE:
			t->group = (int)be_get(p + 4, 2);
			break;
		case MBEDTLS_TLS_EXT_PRE_SHARED_KEY:
			has_psk = 1;
			break;
		case MBEDTLS_TLS_EXT_SUPPORTED_VERSIONS:
			is_tls13 = 1;
			break;
		case MBEDTLS_TLS_EXT_EXTENDED_MASTER_SECRET:
			t->extended = 1;
			break;
		default:
			break;
		}
	}
	t->resumed = !is_tls13 || has_psk;
	/* The client has not offered it again: RFC 7627 section 5.3. */
	if (!is_tls13 && !t->extended && t->born != 0)
		refuse(t, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		    "its session has an extended master secret, which it "
		    "does not offer any more");
}

/*
 * The library does not tell the group that was agreed upon, nor whether a
 * session was resumed.  It stands in the clear in what it sends, a record at
 * p, before that is encrypted.
 */
static void
watch(struct tls *t, const unsigned char *p, size_t len)
{
	if (p[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC && !is_tls13(t))
		t->hidden = 1;
	if (t->hidden || len <= HELLO_SESSION_ID ||
	    p[0] != MBEDTLS_SSL_MSG_HANDSHAKE)
		return;
	if (p[HEADER_SIZE] == MBEDTLS_SSL_HS_SERVER_HELLO)
		watch_hello(t, p + HELLO_SESSION_ID, p + len);
	else if (p[HEADER_SIZE] == MBEDTLS_SSL_HS_CERTIFICATE)
		t->resumed = 0;
	/* RFC 8422 section 5.4 */
	else if (p[HEADER_SIZE] == MBEDTLS_SSL_HS_SERVER_KEY_EXCHANGE &&
	    p[9] == MBEDTLS_ECP_TLS_NAMED_CURVE)
		t->group = (int)be_get(p + 10, 2);
}

/* Keep it for the next time that there is something to be sent. */
static int
hold(struct tls *t, const unsigned char *buf, size_t len)
{
	unsigned char *p;

	if (t->nheld + len > HELD_MAX ||
	    (p = realloc(t->held, t->nheld + len)) == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	memcpy(p + t->nheld, buf, len);
	if (!t->open)
		follow(&t->out, buf, len);
	t->held = p;
	t->nheld += len;
	return (int)len;
}

/* There is room: tls_write() sees to it. */
static int
gather(struct tls_config *cfg, const unsigned char *buf, size_t len)
{
	if (len > sizeof(cfg->out) - cfg->nout)
		return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
	memcpy(cfg->out + cfg->nout, buf, len);
	cfg->nout += len;
	return (int)len;
}

static ssize_t
bio_put(struct tls *t, const unsigned char *buf, size_t len, int flags)
{
	ssize_t n;

	do {
		n = send(t->fd, buf, len, MSG_NOSIGNAL | flags);
	} while (n == -1 && errno == EINTR);
	return n;
}

/* flags: MSG_MORE if more follows at once.  -1 with errno. */
static int
send_held(struct tls *t, int flags)
{
	ssize_t n;

	while (t->nheld > 0) {
		n = bio_put(t, t->held, t->nheld, flags);
		if (n == -1)
			return -1;
		t->nheld -= (size_t)n;
		memmove(t->held, t->held + n, t->nheld);
	}
	free(t->held);
	t->held = NULL;
	return 0;
}

/*
 * The library keeps to a client's max_fragment_length (RFC 6066 section 4) with
 * data alone.  A record of the handshake may as well be several ones, as long
 * as it is in the clear; all that is sent encrypted, in TLS 1.2, is short.
 */
static size_t
fragment_size(const struct tls *t, const unsigned char *p)
{
	int max = mbedtls_ssl_get_max_out_record_payload(t->ssl);

	return t->hidden || max <= 0 || p[0] != MBEDTLS_SSL_MSG_HANDSHAKE ?
	    RECORD_MAX : (size_t)max;
}

static int
hold_fragments(struct tls *t, const unsigned char *p, size_t len, size_t max)
{
	unsigned char head[HEADER_SIZE];
	size_t at, n;

	memcpy(head, p, sizeof(head));
	for (at = HEADER_SIZE; at < len; at += n) {
		n = len - at < max ? len - at : max;
		be_put(head + 3, n, 2);
		if (hold(t, head, sizeof(head)) < 0 || hold(t, p + at, n) < 0)
			return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	}
	return (int)len;
}

/* In the handshake the library sends one whole record after the other. */
static int
send_record(struct tls *t, const unsigned char *p, size_t len)
{
	size_t max = fragment_size(t, p);

	watch(t, p, len);
	return len > HEADER_SIZE + max ? hold_fragments(t, p, len, max) : 0;
}

/*
 * Once data flow, the library must not be left with anything to be sent: it
 * would take the next write for the retry of that, and forget the data.
 */
static int
bio_send(void *ctx, const unsigned char *buf, size_t len)
{
	struct tls *t = ctx;
	ssize_t n = -1;
	int r;

	if (t->gathering)
		return gather(t->cfg, buf, len);
	if (t->holding)
		return hold(t, buf, len);
	if (!t->open && !t->partly) {
		t->sent = 1;
		if ((r = send_record(t, buf, len)) != 0)
			return r;
	}
	if (send_held(t, MSG_MORE) == 0)
		n = bio_put(t, buf, len, 0);
	t->partly = n != (ssize_t)len;
	if (n == -1) {
		r = bio_failed(t, MBEDTLS_ERR_SSL_WANT_WRITE,
		    MBEDTLS_ERR_NET_SEND_FAILED);
		return t->open && r == MBEDTLS_ERR_SSL_WANT_WRITE ?
		    hold(t, buf, len) : r;
	}
	if (!t->open)
		follow(&t->out, buf, (size_t)n);
	return (int)n;
}

/*
 * Has the library told the client of an error itself?  Then the last record of
 * a failed step of the handshake is an alert; encrypted in TLS 1.3, it looks
 * like data.  Once data flow it tells of a bad MAC alone.  (A refused
 * renegotiation is a warning.)
 */
static int
is_told(const struct tls *t, int r)
{
	if (t->ssl == NULL)
		return 0;
	if (t->open)
		return r == MBEDTLS_ERR_SSL_INVALID_MAC;
	return t->sent && (t->out.head[0] == MBEDTLS_SSL_MSG_ALERT ||
	    t->out.head[0] == MBEDTLS_SSL_MSG_APPLICATION_DATA);
}

#ifdef TUNNEL_PATCHES
static unsigned char
encrypted_alert(const struct tls *t)
{
	return mbedtls_ssl_get_fatal_alert(t->ssl);
}
#else
static unsigned char
encrypted_alert(const struct tls *t)
{
	(void)t;
	return 0;
}
#endif

/*
 * What mbed TLS said, as the engine's word.  Of an error the client is told by
 * what ends our side, see tls_finish(), unless it has been told already.
 */
static int
result(struct tls *t, int r)
{
	unsigned char alert;
	int end = tls_outcome(r, &alert);

	if (end != STREAM_ERROR &&
	    (t->open || (end != STREAM_EOF && end != STREAM_TRUNCATED)))
		return end;
	t->failed = fault(t, r);
	if (t->failed == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE && t->ssl != NULL)
		t->heard = is_fatal_alert(&t->in) ? t->in.body[1] :
		    encrypted_alert(t);
	tls_outcome(t->failed, &alert);
	if (!t->refused)
		t->alert = alert;
	if (alert == 0 || is_told(t, r))
		t->notified = 1;
	return STREAM_ERROR;
}

/*
 * Step by step: what the client has shown may be a reason to end it.  In TLS
 * 1.3 the client reads with the keys for data once it has shown it, so that
 * it can't be told before they are in use here, too.
 */
static int
handshake(struct tls *t)
{
	int r = 0, end = 0;

	t->cfg->current = t;
	while (r == 0 && !mbedtls_ssl_is_handshake_over(t->ssl)) {
		t->sent = 0;
		r = mbedtls_ssl_handshake_step(t->ssl);
		mbedtls_ssl_conf_ciphersuites(&t->cfg->ssl, t->cfg->suites);
		end = r == 0 ? 0 : result(t, r);
		if (judge(t) && (!is_tls13(t) || end == STREAM_ERROR ||
		    mbedtls_ssl_is_handshake_over(t->ssl)))
			return STREAM_ERROR;
	}
	if (r != 0)
		return end;
	/*
	 * In TLS 1.3 a ticket is still to come.  It has time until there are
	 * data for the client: one that only writes, and closes, would answer
	 * it with a reset, and what it has written might be lost.
	 */
	t->holding = 1;
	t->sent = 0;
	r = mbedtls_ssl_handshake(t->ssl);
	t->holding = 0;
	return r == 0 ? 0 : result(t, r);
}

/* Data are next. */
static void
opened(struct tls *t, struct stream *s)
{
	int record = mbedtls_ssl_get_max_out_record_payload(t->ssl);

	t->open = 1;
	t->suite = mbedtls_ssl_get_ciphersuite_id_from_ssl(t->ssl);
	t->alpn = mbedtls_ssl_get_alpn_protocol(t->ssl);
	t->record = record > 0 ? (size_t)record : RECORD_MAX;
	s->piece = sizeof(t->cfg->out) / (HEADER_SIZE + RECORD_EXTRA +
	    t->record) * t->record;
	free(t->chain);
	t->chain = NULL;
	t->chain_len = 0;
	to_kernel(t, s);
}

static int
tls_open(struct stream *s)
{
	struct tls *t = s->ctx;
	unsigned char more[sizeof(t->first)];
	int r;

	t->budget = RECVS;
	if ((r = handshake(t)) == 0)
		opened(t, s);
	/* The library stops at a bad header; the text shows a little more. */
	if (r == STREAM_ERROR && t->nfirst < sizeof(t->first))
		bio_recv(t, more, sizeof(t->first) - t->nfirst);
	return r;
}

static void
library_free(struct tls *t)
{
	if (t->ssl != NULL)
		mbedtls_ssl_free(t->ssl);
	free(t->ssl);
	t->ssl = NULL;
}

/*
 * How reading ended, told as often as it is asked.  A socket tells of a reset
 * once, maybe to who has sent, and after that of an end.
 */
static ssize_t
read_end(struct tls *t)
{
	if (t->ended == MBEDTLS_ERR_SSL_CONN_EOF && t->err == ECONNRESET)
		return STREAM_RESET;
	if (t->ended == MBEDTLS_ERR_SSL_CONN_EOF && t->cfg->truncation_is_eof)
		return STREAM_EOF;
	return result(t, t->ended);
}

/*
 * Gather whole records while another fits, so that nothing decrypted ever
 * stays behind in the library.  mbedtls_ssl_read() answers 0 for a FIN, and
 * for some empty records.
 */
static ssize_t
tls_read(struct stream *s, void *buf, size_t len)
{
	struct tls *t = s->ctx;
	unsigned char *p = buf;
	size_t got = 0;
	int r = 0;

	t->budget = 2 * RECORDS;	/* a header, and a body */
	t->drained = 0;
	take_ahead(t);
	while (t->ended == 0 && (got == 0 || len - got >= RECORD_MAX)) {
		r = mbedtls_ssl_read(t->ssl, p + got, len - got);
		if (r > 0)
			got += (size_t)r;
		else if (r == 0 && !t->fin)
			continue;
		else if (r == MBEDTLS_ERR_SSL_WANT_READ ||
		    r == MBEDTLS_ERR_SSL_WANT_WRITE)
			break;
		else
			t->ended = r == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : r;
	}
	if (t->ended == 0)
		t->ended = keep_ahead(t);
	if (got > 0)
		return (ssize_t)got;
	return t->ended != 0 ? read_end(t) : result(t, r);
}

/*
 * As many records as there is room for; how much is in them, and in the last
 * one, or an error.
 */
static ssize_t
encrypt_some(struct tls *t, const unsigned char *p, size_t len, size_t *last)
{
	struct tls_config *cfg = t->cfg;
	size_t done = 0;
	int r = 0;

	cfg->nout = 0;
	t->gathering = 1;
	while (done < len && sizeof(cfg->out) - cfg->nout >=
	    HEADER_SIZE + t->record + RECORD_EXTRA) {
		r = mbedtls_ssl_write(t->ssl, p + done,
		    len - done < t->record ? len - done : t->record);
		if (r <= 0)
			break;
		*last = (size_t)r;
		done += *last;
	}
	t->gathering = 0;
	return r < 0 ? r : (ssize_t)done;
}

/*
 * Several records leave at once.  Where not all of them can, the rest is kept,
 * and all but the last one are as good as written: that is to be retried, and
 * then it is what was kept that is sent.
 */
static ssize_t
tls_write(struct stream *s, const void *buf, size_t len)
{
	struct tls *t = s->ctx;
	struct tls_config *cfg = t->cfg;
	size_t at = 0, last = 0;
	ssize_t n, sent;

	if (send_held(t, t->unsent > 0 ? 0 : MSG_MORE) == -1)
		return result(t, bio_failed(t, MBEDTLS_ERR_SSL_WANT_WRITE,
		    MBEDTLS_ERR_NET_SEND_FAILED));
	if ((n = (ssize_t)t->unsent) > 0) {
		t->unsent = 0;
		return n;
	}
	if ((n = encrypt_some(t, buf, len, &last)) < 0)
		return result(t, (int)n);
	while (at < cfg->nout && (sent = bio_put(t, cfg->out + at,
	    cfg->nout - at, 0)) != -1)
		at += (size_t)sent;
	if (at == cfg->nout)
		return n;
	sent = bio_failed(t, MBEDTLS_ERR_SSL_WANT_WRITE,
	    MBEDTLS_ERR_NET_SEND_FAILED);
	if (sent == MBEDTLS_ERR_SSL_WANT_WRITE &&
	    hold(t, cfg->out + at, cfg->nout - at) < 0)
		sent = MBEDTLS_ERR_SSL_ALLOC_FAILED;
	t->unsent = last;
	return n > (ssize_t)last && sent == MBEDTLS_ERR_SSL_WANT_WRITE ?
	    n - (ssize_t)last : result(t, (int)sent);
}

static unsigned char
alert_level(const struct tls *t)
{
	return t->alert == MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY ?
	    MBEDTLS_SSL_ALERT_LEVEL_WARNING : MBEDTLS_SSL_ALERT_LEVEL_FATAL;
}

static int
send_alert(struct tls *t)
{
	return mbedtls_ssl_send_alert_message(t->ssl, alert_level(t), t->alert);
}

/*
 * Our end, be it a proper one or not, is the next to be sent.  Where a step of
 * the handshake has failed with its message written and not sent, the library
 * sends that for the alert.
 */
static int
hold_alert(struct tls *t)
{
	int r;

	t->notified = t->holding = 1;
	r = send_alert(t);
	if (r == 0 && !t->open && t->out.head[0] == MBEDTLS_SSL_MSG_HANDSHAKE)
		r = send_alert(t);
	t->holding = 0;
	return r;
}

static int
tls_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r;

	if (!t->notified && (r = hold_alert(t)) != 0)
		return result(t, r);
	if (send_held(t, 0) == -1)
		return result(t, bio_failed(t, MBEDTLS_ERR_SSL_WANT_WRITE,
		    MBEDTLS_ERR_NET_SEND_FAILED));
	shutdown(t->fd, SHUT_WR);
	return 0;
}

static void
tls_refuse(struct stream *s)
{
	struct tls *t = s->ctx;

	t->alert = MBEDTLS_SSL_ALERT_MSG_INTERNAL_ERROR;
}

static int
tls_failed(struct stream *s)
{
	struct tls *t = s->ctx;
	int r = stream_plain.failed(s);

	if (r != 0)
		t->err = s->err;
	if (r == STREAM_ERROR)
		t->failed = MBEDTLS_ERR_NET_RECV_FAILED;
	return r;
}

static int
tls_flushed(const struct stream *s)
{
	return stream_plain.flushed(s);
}

static int
tls_pending(const struct stream *s)
{
	const struct tls *t = s->ctx;

	return t->ended != 0 || t->nahead > 0 ||
	    mbedtls_ssl_get_bytes_avail(t->ssl) > 0;
}

static const struct stream_ops tls_ops = {
	.open = tls_open,
	.read = tls_read,
	.write = tls_write,
	.finish = tls_finish,
	.refuse = tls_refuse,
	.failed = tls_failed,
	.abort = stream_reset,
	.flushed = tls_flushed,
	.pending = tls_pending,
	.error = tls_error,
};

/*
 * THE KERNEL
 * Once the handshake is over, it can be given the keys, and TLS is what a
 * socket speaks: Documentation/networking/tls.rst.  What it does not take
 * stays with the library.
 */

#ifdef __linux__

static const struct cipher {
	const char *name;
	uint16_t type;
	unsigned char key, salt, iv;	/* bytes of each */
	psa_algorithm_t hash;
	int	 suites[3];		/* the first one is of TLS 1.3 */
} ciphers[] = {
	{ "AES-128-GCM", TLS_CIPHER_AES_GCM_128, 16, 4, 8, PSA_ALG_SHA_256,
	    { MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
	    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 } },
	{ "AES-256-GCM", TLS_CIPHER_AES_GCM_256, 32, 4, 8, PSA_ALG_SHA_384,
	    { MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
	    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 } },
	{ "CHACHA20-POLY1305", TLS_CIPHER_CHACHA20_POLY1305, 32, 0, 12,
	    PSA_ALG_SHA_256, { MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
	    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 } },
};

#define CIPHERS		(sizeof(ciphers) / sizeof(ciphers[0]))

static_assert(2 * CIPHERS == TLS_KERNEL_TRIES, "a try for each, as in tls.h");

/* What a direction begins with, or goes on with. */
struct traffic {
	unsigned char key[32];
	unsigned char iv[IV_SIZE];	/* salt and IV; RFC 8446 section 5.3 */
	uint64_t seq;			/* of the next record */
};

static const struct cipher *
find_cipher(int suite)
{
	size_t i, j;

	for (i = 0; i < CIPHERS; i++)
		for (j = 0; j < 3; j++)
			if (ciphers[i].suites[j] == suite)
				return &ciphers[i];
	return NULL;
}

/* The bit of a suite among those that the kernel can do. */
static unsigned
kernel_bit(const struct cipher *c, int is_13)
{
	return 1u << (2 * (c - ciphers) + !is_13);
}

/* HKDF-Expand-Label without a context; RFC 8446 section 7.1. */
static int
expand_label(psa_algorithm_t hash, const unsigned char *secret,
    const char *label, unsigned char *out, size_t len)
{
	psa_key_derivation_operation_t op = psa_key_derivation_operation_init();
	unsigned char info[32];
	psa_status_t r;
	int n;

	n = snprintf((char *)info + 2, sizeof(info) - 2, "%ctls13 %s%c",
	    (int)(strlen("tls13 ") + strlen(label)), label, 0);
	be_put(info, len, 2);
	if ((r = psa_key_derivation_setup(&op, PSA_ALG_HKDF_EXPAND(hash))) ==
	    PSA_SUCCESS &&
	    (r = psa_key_derivation_input_bytes(&op,
	    PSA_KEY_DERIVATION_INPUT_SECRET, secret, PSA_HASH_LENGTH(hash))) ==
	    PSA_SUCCESS &&
	    (r = psa_key_derivation_input_bytes(&op,
	    PSA_KEY_DERIVATION_INPUT_INFO, info, 2 + (size_t)n)) ==
	    PSA_SUCCESS)
		r = psa_key_derivation_output_bytes(&op, out, len);
	psa_key_derivation_abort(&op);
	return r == PSA_SUCCESS ? 0 : -1;
}

/* The key block, RFC 5246 section 6.3. */
static int
expand_block(psa_algorithm_t hash, const union secrets *s,
    unsigned char *out, size_t len)
{
	psa_key_derivation_operation_t op = psa_key_derivation_operation_init();
	static const char label[] = "key expansion";
	psa_status_t r;

	if ((r = psa_key_derivation_setup(&op, PSA_ALG_TLS12_PRF(hash))) ==
	    PSA_SUCCESS &&
	    (r = psa_key_derivation_input_bytes(&op,
	    PSA_KEY_DERIVATION_INPUT_SEED, s->master.seed,
	    sizeof(s->master.seed))) == PSA_SUCCESS &&
	    (r = psa_key_derivation_input_bytes(&op,
	    PSA_KEY_DERIVATION_INPUT_SECRET, s->master.secret,
	    sizeof(s->master.secret))) == PSA_SUCCESS &&
	    (r = psa_key_derivation_input_bytes(&op,
	    PSA_KEY_DERIVATION_INPUT_LABEL, (const unsigned char *)label,
	    sizeof(label) - 1)) == PSA_SUCCESS)
		r = psa_key_derivation_output_bytes(&op, out, len);
	psa_key_derivation_abort(&op);
	return r == PSA_SUCCESS ? 0 : -1;
}

/* The keys of a direction, TLS_TX or TLS_RX. */
static int
derive_traffic(const struct kernel *k, int direction, struct traffic *tr)
{
	const struct cipher *c = k->cipher;
	size_t n = c->key, fixed = c->salt != 0 ? c->salt : c->iv;
	unsigned char block[2 * (sizeof(tr->key) + sizeof(tr->iv))];
	const unsigned char *secret = k->secrets->traffic[direction == TLS_TX];
	int ours = direction == TLS_TX, r;

	if (k->is_13)
		return expand_label(c->hash, secret, "key", tr->key, n) == 0 &&
		    expand_label(c->hash, secret, "iv", tr->iv, IV_SIZE) == 0 ?
		    0 : -1;
	r = expand_block(c->hash, k->secrets, block, 2 * (n + fixed));
	memcpy(tr->key, block + (ours ? n : 0), n);
	memcpy(tr->iv, block + 2 * n + (ours ? fixed : 0), fixed);
	/* The part of a nonce that is sent along: any, but never twice. */
	if (c->salt != 0)
		be_put(tr->iv + c->salt, tr->seq, c->iv);
	mbedtls_platform_zeroize(block, sizeof(block));
	return r;
}

/* struct tls12_crypto_info_*, which are all alike; 0, or -1 with errno. */
static int
give_keys(int fd, int direction, const struct kernel *k,
    const struct traffic *tr)
{
	const struct cipher *c = k->cipher;
	struct tls_crypto_info head = { .version = k->is_13 ?
	    TLS_1_3_VERSION : TLS_1_2_VERSION, .cipher_type = c->type };
	unsigned char info[INFO_SIZE], *p = info;
	int r;

	memcpy(p, &head, sizeof(head));
	p += sizeof(head);
	memcpy(p, tr->iv + c->salt, c->iv);
	p += c->iv;
	memcpy(p, tr->key, c->key);
	p += c->key;
	memcpy(p, tr->iv, c->salt);
	p += c->salt;
	be_put(p, tr->seq, SEQ_SIZE);
	p += SEQ_SIZE;
	r = setsockopt(fd, SOL_TLS, direction, info, (socklen_t)(p - info));
	mbedtls_platform_zeroize(info, sizeof(info));
	return r;
}

/* Its keys, from those secrets: a direction is the kernel's from here on. */
static int
turn_over(struct tls *t, int direction, uint64_t seq)
{
	struct traffic tr = { .seq = seq };
	int r = derive_traffic(t->kernel, direction, &tr);

	errno = ENOMEM;
	if (r == 0)
		r = give_keys(t->fd, direction, t->kernel, &tr);
	mbedtls_platform_zeroize(&tr, sizeof(tr));
	return r;
}

/* A record that is not of data, in the clear; -1 with errno. */
static int
send_control(struct tls *t, unsigned char type, const unsigned char *p,
    size_t len)
{
	union {
		struct cmsghdr head;
		char	 room[CMSG_SPACE(1)];
	} control = { .room = { 0 } };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = &control, .msg_controllen = CMSG_LEN(1) };
	ssize_t n;

	control.head.cmsg_level = SOL_TLS;
	control.head.cmsg_type = TLS_SET_RECORD_TYPE;
	control.head.cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(&control.head) = type;
	do {
		n = sendmsg(t->fd, &m, MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	if (n != -1)
		t->kernel->given += len;
	return n == -1 ? -1 : 0;
}

/*
 * What TCP has been given on this socket, all in all.  A record that the
 * kernel has made but found no room for is not in it, and shutdown(2) and
 * close(2) would forget it.
 */
static uint64_t
bytes_in_tcp(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == -1)
		return 0;
	return info.tcpi_bytes_sent - info.tcpi_bytes_retrans +
	    info.tcpi_notsent_bytes;
}

/* The number of the next record that it makes, by its keys of now. */
static uint64_t
next_record(const struct tls *t)
{
	const struct cipher *c = t->kernel->cipher;
	socklen_t len = (socklen_t)(sizeof(struct tls_crypto_info) + c->iv +
	    c->key + c->salt + SEQ_SIZE);
	unsigned char info[INFO_SIZE];
	uint64_t seq = 0;

	if (getsockopt(t->fd, SOL_TLS, TLS_TX, info, &len) == 0)
		seq = be_get(info + len - SEQ_SIZE, SEQ_SIZE);
	mbedtls_platform_zeroize(info, sizeof(info));
	return seq;
}

/*
 * Has everything left for TCP?  That is what it was to send, and what each
 * record is longer by.
 */
static int
is_flushed(const struct tls *t)
{
	const struct kernel *k = t->kernel;
	uint64_t each = HEADER_SIZE + TAG_SIZE +
	    (k->is_13 ? 1 : k->cipher->salt != 0 ? k->cipher->iv : 0);

	return bytes_in_tcp(t->fd) - k->base >= k->given +
	    (k->records + next_record(t)) * each;
}

static void
forget_secrets(struct kernel *k)
{
	if (k->secrets != NULL)
		mbedtls_platform_zeroize(k->secrets, sizeof(*k->secrets));
	free(k->secrets);
	k->secrets = NULL;
}

/* Sending becomes the kernel's when what the library has left is gone. */
static int
kernel_sends(struct tls *t)
{
	struct kernel *k = t->kernel;

	if (k->sends)
		return 0;
	if (send_held(t, 0) == -1)
		return -1;
	k->base = bytes_in_tcp(t->fd);
	if (turn_over(t, TLS_TX, k->seq) == -1)
		return -1;
	k->records = -k->seq;	/* which were the library's */
	k->sends = 1;
	if (!(t->cfg->kernel & TLS_KERNEL_REKEYS) || !k->is_13)
		forget_secrets(k);
	return 0;
}

/* The next keys of a direction, RFC 8446 section 7.2. */
static int
next_keys(struct tls *t, int direction)
{
	const struct kernel *k = t->kernel;
	unsigned char *secret = k->secrets->traffic[direction == TLS_TX];
	unsigned char next[SECRET_SIZE];
	size_t len = PSA_HASH_LENGTH(k->cipher->hash);
	int r;

	errno = ENOMEM;
	r = expand_label(k->cipher->hash, secret, "traffic upd", next, len);
	if (r == 0) {
		memcpy(secret, next, len);
		r = turn_over(t, direction, 0);
	}
	mbedtls_platform_zeroize(next, sizeof(next));
	return r;
}

/* All that is due before the next record: -1 with errno. */
static int
kernel_ready(struct tls *t)
{
	static const unsigned char update[] = { HS_KEY_UPDATE, 0, 0, 1, 0 };
	struct kernel *k = t->kernel;

	if (kernel_sends(t) == -1)
		return -1;
	if (!k->update_due || k->secrets == NULL)
		return 0;
	if (send_control(t, MBEDTLS_SSL_MSG_HANDSHAKE, update,
	    sizeof(update)) == -1)
		return -1;
	k->update_due = 0;
	k->records += next_record(t);
	return next_keys(t, TLS_TX);
}

static int
kernel_failed(struct tls *t)
{
	return result(t, bio_failed(t, MBEDTLS_ERR_SSL_WANT_WRITE,
	    MBEDTLS_ERR_NET_SEND_FAILED));
}

static int
kernel_alert(struct tls *t, unsigned char level, unsigned char code)
{
	const unsigned char alert[] = { level, code };

	if (kernel_ready(t) == -1)
		return -1;
	return send_control(t, MBEDTLS_SSL_MSG_ALERT, alert, sizeof(alert));
}

/*
 * A KeyUpdate, RFC 8446 section 4.6.3; answered with the next thing that is
 * sent.  Whatever else a client may send at this point is none of it, but for
 * the wish for a new handshake in TLS 1.2.
 */
static int
take_handshake(struct tls *t, const unsigned char *p, size_t len)
{
	struct kernel *k = t->kernel;

	if (!k->is_13 && len > 0 && p[0] == MBEDTLS_SSL_HS_CLIENT_HELLO)
		return kernel_alert(t, MBEDTLS_SSL_ALERT_LEVEL_WARNING,
		    MBEDTLS_SSL_ALERT_MSG_NO_RENEGOTIATION) == 0 ? 0 :
		    bio_failed(t, 0, MBEDTLS_ERR_NET_SEND_FAILED);
	if (!k->is_13 || !(t->cfg->kernel & TLS_KERNEL_REKEYS) || len == 0 ||
	    p[0] != HS_KEY_UPDATE)
		return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
	if (len != 5 || be_get(p + 1, 3) != 1)
		return MBEDTLS_ERR_SSL_DECODE_ERROR;
	if (p[4] > 1)
		return MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER;
	k->update_due |= p[4];
	return next_keys(t, TLS_RX) == 0 ? 0 : MBEDTLS_ERR_NET_RECV_FAILED;
}

/* A record that is not of data; 0, or what ends reading. */
static int
take_control(struct tls *t, int type, const unsigned char *p, size_t len)
{
	if (type == MBEDTLS_SSL_MSG_HANDSHAKE)
		return take_handshake(t, p, len);
	if (type != MBEDTLS_SSL_MSG_ALERT || len == 0)
		return MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE;
	if (len != 2)
		return RECORD_BODY;
	if (p[1] == MBEDTLS_SSL_ALERT_MSG_CLOSE_NOTIFY)
		return MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY;
	if (p[0] == MBEDTLS_SSL_ALERT_LEVEL_WARNING)
		return 0;
	t->heard = p[1];
	return MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE;
}

static int
recv_error(struct tls *t)
{
	switch (errno) {
	case EBADMSG:
		return MBEDTLS_ERR_SSL_INVALID_MAC;
	case EMSGSIZE:
		return RECORD_SIZE;
	case EINVAL:
		return RECORD_VERSION;
	default:
		return bio_failed(t, MBEDTLS_ERR_SSL_WANT_READ,
		    MBEDTLS_ERR_NET_RECV_FAILED);
	}
}

/* Its type is 0 if there is none, as at the end of the connection. */
static ssize_t
recv_record(struct tls *t, void *buf, size_t len, int *type)
{
	union {
		struct cmsghdr head;
		char	 room[CMSG_SPACE(1)];
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = &control, .msg_controllen = sizeof(control) };
	const struct cmsghdr *c;
	ssize_t n;

	do {
		n = recvmsg(t->fd, &m, 0);
	} while (n == -1 && errno == EINTR);
	c = n == -1 ? NULL : CMSG_FIRSTHDR(&m);
	*type = c != NULL && c->cmsg_level == SOL_TLS && c->cmsg_type ==
	    TLS_GET_RECORD_TYPE ? *CMSG_DATA(c) : 0;
	return n;
}

/*
 * Empty records are none, and many of them keep nobody for ever.  A kernel that
 * renews keys may have a KeyUpdate behind the data, of which poll(2) does not
 * tell: it is asked until there is nothing.
 */
static ssize_t
kernel_read(struct stream *s, void *buf, size_t len)
{
	struct tls *t = s->ctx;
	int hides = t->kernel->is_13 && t->cfg->kernel & TLS_KERNEL_REKEYS;
	unsigned char *p = buf;
	size_t got = 0;
	int i, r = 0, type;
	ssize_t n;

	for (i = 0; t->ended == 0 && i < RECORDS && (got == 0 ||
	    (hides && len - got >= RECORD_MAX)); i++) {
		n = recv_record(t, p + got, len - got, &type);
		if (n == -1)
			r = recv_error(t);
		else if (type == MBEDTLS_SSL_MSG_APPLICATION_DATA)
			got += (size_t)n;
		else
			r = type == 0 ? MBEDTLS_ERR_SSL_CONN_EOF :
			    take_control(t, type, p + got, (size_t)n);
		if (r == MBEDTLS_ERR_SSL_WANT_READ)
			break;
		t->ended = r;
	}
	t->kernel->unread = hides && r != MBEDTLS_ERR_SSL_WANT_READ;
	if (got > 0)
		return (ssize_t)got;
	return t->ended != 0 ? read_end(t) : STREAM_WANT_READ;
}

static ssize_t
kernel_write(struct stream *s, const void *buf, size_t len)
{
	struct tls *t = s->ctx;
	ssize_t n;

	if (kernel_ready(t) == -1 || (n = bio_put(t, buf, len, 0)) == -1)
		return kernel_failed(t);
	t->kernel->given += (uint64_t)n;
	return n;
}

/* Who sends is told of an error in what was received, unless it is taken. */
static int
kernel_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r;

	if (!t->notified && t->alert != 0)
		stream_plain.failed(&(struct stream){ .fd = t->fd });
	if (!t->notified && kernel_alert(t, alert_level(t), t->alert) == -1)
		return kernel_failed(t);
	t->notified = 1;
	/* Nothing may be sent any more that would tell of a reset. */
	if (!is_flushed(t))
		return (r = s->ops->failed(s)) != 0 ? r : STREAM_WANT_WRITE;
	shutdown(t->fd, SHUT_WR);
	return 0;
}

static int
kernel_flushed(const struct stream *s)
{
	return is_flushed(s->ctx) && stream_plain.flushed(s);
}

static int
kernel_pending(const struct stream *s)
{
	const struct tls *t = s->ctx;

	return t->ended != 0 || t->kernel->unread;
}

/* It is open already. */
static const struct stream_ops kernel_ops = {
	.open = NULL,
	.read = kernel_read,
	.write = kernel_write,
	.finish = kernel_finish,
	.refuse = tls_refuse,
	.failed = tls_failed,
	.abort = stream_reset,
	.flushed = kernel_flushed,
	.pending = kernel_pending,
	.error = tls_error,
};

/* mbedtls_ssl_export_keys_t: of a handshake's secrets, those for data. */
static void
export_keys(void *ctx, mbedtls_ssl_key_export_type type,
    const unsigned char *secret, size_t len, const unsigned char client[32],
    const unsigned char server[32], mbedtls_tls_prf_types prf)
{
	union secrets *s = ctx;

	(void)prf;
	if (len > SECRET_SIZE)
		return;
	switch (type) {
	case MBEDTLS_SSL_KEY_EXPORT_TLS12_MASTER_SECRET:
		memcpy(s->master.secret, secret, len);
		memcpy(s->master.seed, server, 32);
		memcpy(s->master.seed + 32, client, 32);
		break;
	case MBEDTLS_SSL_KEY_EXPORT_TLS1_3_CLIENT_APPLICATION_TRAFFIC_SECRET:
		memcpy(s->traffic[0], secret, len);
		break;
	case MBEDTLS_SSL_KEY_EXPORT_TLS1_3_SERVER_APPLICATION_TRAFFIC_SECRET:
		memcpy(s->traffic[1], secret, len);
		break;
	default:
		break;
	}
}

static int
kernel_new(struct tls *t)
{
	struct kernel *k;

	if (t->cfg->kernel == 0)
		return 0;
	if ((k = t->kernel = calloc(1, sizeof(*k))) == NULL ||
	    (k->secrets = calloc(1, sizeof(*k->secrets))) == NULL)
		return -1;
	mbedtls_ssl_set_export_keys_cb(t->ssl, export_keys, k->secrets);
	return 0;
}

static void
kernel_free(struct tls *t)
{
	if (t->kernel == NULL)
		return;
	if (t->ssl != NULL)
		mbedtls_ssl_set_export_keys_cb(t->ssl, NULL, NULL);
	forget_secrets(t->kernel);
	free(t->kernel);
	t->kernel = NULL;
}

static int
is_whole(const struct record *r)
{
	return r->left == 0 && r->nhead % HEADER_SIZE == 0;
}

/* Is it a suite that the kernel knows, and nothing still on its way? */
static int
may_move(const struct tls *t)
{
	const struct kernel *k = t->kernel;

	return k->cipher != NULL && t->record >= RECORD_MIN &&
	    t->cfg->kernel & kernel_bit(k->cipher, k->is_13) &&
	    is_whole(&t->in) && is_whole(&t->out) &&
	    !mbedtls_ssl_check_pending(t->ssl) &&
	    mbedtls_ssl_get_bytes_avail(t->ssl) == 0;
}

/*
 * The last step of opening.  Receiving is handed over first, since what a
 * ticket waits for (see handshake()) sending has to wait for as well.  From
 * then on there is no way back, but no error is to be expected either: all of
 * this was tried at the start.
 */
static void
to_kernel(struct tls *t, struct stream *s)
{
	struct kernel *k = t->kernel;
	int on = 1;

	if (k == NULL)
		return;
	k->cipher = find_cipher(t->suite);
	k->is_13 = is_tls13_suite(t->suite);
	k->seq = t->out.count;
	if (!may_move(t) || setsockopt(t->fd, IPPROTO_TCP, TCP_ULP, "tls",
	    sizeof("tls")) == -1 ||
	    turn_over(t, TLS_RX, k->is_13 ? 0 : t->in.count) == -1) {
		kernel_free(t);
		return;
	}
	/* Only a hint, in TLS 1.3, that records are not padded. */
	setsockopt(t->fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, sizeof(on));
	library_free(t);
	s->ops = &kernel_ops;
	s->piece = 0;
	if (t->nheld == 0 && kernel_sends(t) == -1)
		t->ended = MBEDTLS_ERR_SSL_ALLOC_FAILED;
}

/* With keys that are no secret: of all zeros. */
unsigned
tls_kernel_try(unsigned i, int fd)
{
	const struct traffic tr = { .seq = 0 };
	struct kernel k = { .cipher = &ciphers[i / 2], .is_13 = i % 2 == 0 };

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == -1 ||
	    give_keys(fd, TLS_RX, &k, &tr) == -1 ||
	    give_keys(fd, TLS_TX, &k, &tr) == -1)
		return 0;
	return kernel_bit(k.cipher, k.is_13) | (k.is_13 &&
	    give_keys(fd, TLS_RX, &k, &tr) == 0 ? TLS_KERNEL_REKEYS : 0);
}

void
tls_kernel_text(unsigned can, char *text, size_t size)
{
	size_t i, n = 0;
	int is_13;

	text[0] = '\0';
	for (is_13 = 1; is_13 >= 0 && n < size; is_13--) {
		n += (size_t)snprintf(text + n, size - n, "%sTLSv1.%d with",
		    n > 0 ? ", " : "", is_13 ? 3 : 2);
		for (i = 0; i < CIPHERS && n < size; i++)
			if (can & kernel_bit(&ciphers[i], is_13))
				n += (size_t)snprintf(text + n, size - n,
				    " %s", ciphers[i].name);
	}
}

#else

/* No other system is known here to do it. */

static int
kernel_new(struct tls *t)
{
	(void)t;
	return 0;
}

static void
kernel_free(struct tls *t)
{
	(void)t;
}

static void
to_kernel(struct tls *t, struct stream *s)
{
	(void)t;
	(void)s;
}

unsigned
tls_kernel_try(unsigned i, int fd)
{
	(void)i;
	(void)fd;
	errno = ENOSYS;
	return 0;
}

void
tls_kernel_text(unsigned can, char *text, size_t size)
{
	snprintf(text, size, "%s", can != 0 ? "?" : "");
}

#endif

/*
 * ITS LIFE
 */

struct tls *
tls_new(struct tls_config *cfg, int fd, struct stream *s)
{
	struct tls *t;

	if ((t = calloc(1, sizeof(*t))) == NULL)
		return NULL;
	t->cfg = cfg;
	t->fd = fd;
	if ((t->ssl = malloc(sizeof(*t->ssl))) == NULL) {
		free(t);
		return NULL;
	}
	mbedtls_ssl_init(t->ssl);
	if (mbedtls_ssl_setup(t->ssl, &cfg->ssl) != 0) {
		tls_free(t);
		return NULL;
	}
	mbedtls_ssl_set_user_data_p(t->ssl, t);
	mbedtls_ssl_set_verify(t->ssl, check_client, t);
	mbedtls_ssl_set_bio(t->ssl, t, bio_send, bio_recv, NULL);
	if (kernel_new(t) == -1) {
		tls_free(t);
		return NULL;
	}
	s->ops = &tls_ops;
	s->ctx = t;
	return t;
}

void
tls_free(struct tls *t)
{
	if (t == NULL)
		return;
	library_free(t);
	kernel_free(t);
	forget_client(t);
	free(t->sni);
	free(t->why);
	free(t->held);
	free(t->ahead);
	free(t);
}

int
tls_heard(const struct tls *t)
{
	return t->nfirst > 0;
}

void
tls_agreed(const struct tls *t, struct tls_agreed *a)
{
	static char cipher[NAME_SIZE];

	*a = (struct tls_agreed){ .name = t->sni };
	if (!t->open)
		return;
	suite_name(mbedtls_ssl_get_ciphersuite_name(t->suite), cipher,
	    sizeof(cipher));
	a->version = is_tls13_suite(t->suite) ? "TLSv1.3" : "TLSv1.2";
	a->cipher = cipher;
	a->group = group_name(t->group);
	a->alpn = t->alpn;
	a->in_kernel = t->ssl == NULL;
	a->client = t->client;
	a->common_name = t->cn;
	a->resumed = t->resumed;
}
