/* tls: the TLS stream: open, read, write, finish; its creation and freeing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <mbedtls/version.h>
#ifdef TUNNEL_AWS_LC
#include <awslc_driver.h>
#endif

#include "stream.h"
#include "tls.h"
#include "tls_bio.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_kernel.h"
#include "tls_names.h"
#include "tls_random.h"
#include "tls_records.h"
#include "tls_resume.h"
#include "tls_suites.h"
#include "tls_verify.h"
#include "util.h"

/*
 * Below 3.6.7 and 4.1.1, malformed basicConstraints make a certificate an
 * authority's (CVE-2026-49300).  A distribution may have backported the fix to
 * 3.6.6 or 4.1.0; the bundled one may be 3.6.6, after a warning, where nothing
 * newer is available.  Below these, a ticket could bypass client
 * authentication.
 */
#if MBEDTLS_VERSION_NUMBER < 0x04000000
#define FIXED		0x03060700
#define FIXED_NAME	"3.6.7"
#define OLDEST		0x03060600
#define OLDEST_NAME	"3.6.6"
#else
#define FIXED		0x04010100
#define FIXED_NAME	"4.1.1"
#define OLDEST		0x04010000
#define OLDEST_NAME	"4.1.0"
#endif
#if defined(ALLOW_OLD_MBEDTLS) || defined(TUNNEL_PATCHES)
#define VERSION_NEEDED	OLDEST
#define TOO_OLD		"older than " OLDEST_NAME
#else
#define VERSION_NEEDED	FIXED
#define TOO_OLD		"older than " FIXED_NAME ", and open to CVE-2026-49300"
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x05000000
#error "this mbed TLS is newer than 4.x, the release that tunnel is made for"
#elif MBEDTLS_VERSION_NUMBER < 0x03060600
#error "this mbed TLS is older than 3.6.6, and open to CVE-2026-49300 and worse"
#elif MBEDTLS_VERSION_NUMBER < OLDEST
#error "this mbed TLS is 4.0, whose random numbers repeat in child processes: \
4.1.1 or newer, or 3.6.7, is needed"
#elif MBEDTLS_VERSION_NUMBER < VERSION_NEEDED
#error "this mbed TLS is older than 3.6.7 or 4.1.1, and open to \
CVE-2026-49300: ALLOW_OLD_MBEDTLS=1 accepts it, if its distribution \
backported the fix"
#elif MBEDTLS_VERSION_NUMBER < FIXED && \
    defined(MBEDTLS_KEY_EXCHANGE_ECDHE_PSK_ENABLED) && \
    !defined(MBEDTLS_CIPHER_MODE_CBC) && !defined(PSA_WANT_ALG_CBC_NO_PADDING)
#error "this mbed TLS is older than 3.6.7 or 4.1.1, has ECDHE-PSK without CBC, \
and is open to CVE-2026-50580"
#endif

/*
 * Refuse a library that was configured without these: without this check it
 * would silently accept too much, or resume no session.
 */
#ifndef MBEDTLS_HAVE_TIME_DATE
#error "this mbed TLS has no MBEDTLS_HAVE_TIME_DATE: expired certificates \
would be accepted"
#elif !defined(MBEDTLS_SSL_PROTO_TLS1_2) || !defined(MBEDTLS_SSL_PROTO_TLS1_3)
#error "this mbed TLS lacks TLS 1.2 or TLS 1.3, and tunnel needs both"
#elif !defined(MBEDTLS_SSL_SRV_C) || !defined(MBEDTLS_SSL_CLI_C)
#error "this mbed TLS lacks a server or a client, and tunnel needs both"
#elif !defined(MBEDTLS_SSL_EXTENDED_MASTER_SECRET)
#error "this mbed TLS has no MBEDTLS_SSL_EXTENDED_MASTER_SECRET: sessions of \
TLS 1.2 would not be bound to their handshake"
#elif !defined(MBEDTLS_SSL_SESSION_TICKETS) || \
    !defined(MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL_ENABLED)
#error "this mbed TLS lacks MBEDTLS_SSL_SESSION_TICKETS or \
MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL_ENABLED: no session would \
be resumed"
#elif !defined(MBEDTLS_SSL_SERVER_NAME_INDICATION)
#error "this mbed TLS has no MBEDTLS_SSL_SERVER_NAME_INDICATION: every client \
would get the first certificate"
#elif !defined(PSA_WANT_ALG_GCM) && \
    !defined(PSA_WANT_ALG_CHACHA20_POLY1305)
#error "this mbed TLS lacks AES-GCM and ChaCha20-Poly1305, and tunnel needs \
one of them"
#endif

#define SLICE_US	100		/* of a handshake, per turn */

/* mbedtls/config.h, the configuration of the bundled one, defines this. */
#ifdef TUNNEL_PATCHES
#define PATCHED		", patched"
#else
#define PATCHED		""
#endif

/*
 * THE LIBRARY
 * Its start, and its version.
 */

/* The library that does the cryptography instead, as text; or NULL. */
#ifdef TUNNEL_AWS_LC
#define ACCELERATOR	awslc_version()
#else
#define ACCELERATOR	NULL
#endif

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
	const char *with = ACCELERATOR;
	unsigned n = mbedtls_version_get_number();

	snprintf(text, sizeof(text), "Mbed TLS %u.%u.%u%s%s%s", n >> 24,
	    n >> 16 & 0xff, n >> 8 & 0xff, PATCHED, with != NULL ? ", " : "",
	    with != NULL ? with : "");
	return text;
}
#else
/* This library has no version at run time; it was checked at build time. */
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
	static char text[160];
	const char *why = tls_random_why();
	psa_status_t r = psa_random_reseed(NULL, 0);

	/* An external generator has no state that fork(2) would copy. */
	if (r == PSA_SUCCESS || r == PSA_ERROR_NOT_SUPPORTED)
		return NULL;
	snprintf(text, sizeof(text), "the random number generator has no "
	    "entropy%s%s", why != NULL ? ": " : "", why != NULL ? why : "");
	return text;
}

const char *
tls_init(void)
{
	if (is_too_old())
		return "the mbed TLS library is " TOO_OLD;
	if (psa_crypto_init() != PSA_SUCCESS)
		return "mbed TLS cannot be initialized: perhaps the system has "
		    "no entropy";
	return NULL;
}

/*
 * THE STREAM
 * mbed TLS over recv(2) and send(2), as the operations of a struct stream.
 */

static void
begin_reading(struct tls *t)
{
	t->budget = 2 * RECORDS;	/* a header and a body each */
	t->drained = 0;
	tls_bio_take_ahead(t);
}

/*
 * Free the library's buffers until its next call; it keeps a copy of unfinished
 * input and output.  0, or a code: out of memory, and these are lost.
 */
#ifdef MBEDTLS_SSL_RELEASE_BUFFERS
static int
release_buffers(struct tls *t)
{
	return t->ssl == NULL ? 0 : mbedtls_ssl_release_buffers(t->ssl);
}
#else
static int
release_buffers(struct tls *t)
{
	(void)t;
	return 0;
}
#endif

/*
 * Go step by step, to check the verdict on the peer's certificate in between.
 * In TLS 1.3 a client that has sent its certificate reads with the keys for
 * data: delay the alert until these are in use here, too.
 */
static int
handshake(struct tls *t)
{
	int64_t until = clock_us() + SLICE_US;
	int r = 0, end = 0;

	t->cfg->current = t;
	while (r == 0 && !mbedtls_ssl_is_handshake_over(t->ssl)) {
		t->sent = 0;
		r = mbedtls_ssl_handshake_step(t->ssl);
		mbedtls_ssl_conf_ciphersuites(&t->cfg->ssl, t->cfg->suites);
		end = r == 0 ? 0 : tls_library_result(t, r);
		if (tls_verify_check_verdict(t) && (t->cfg->is_client ||
		    !is_tls13(t) || end == STREAM_ERROR ||
		    mbedtls_ssl_is_handshake_over(t->ssl)))
			return STREAM_ERROR;
		/* The expensive steps: one derives a key, another signs. */
		if (r == 0 && !mbedtls_ssl_is_handshake_over(t->ssl) &&
		    clock_us() >= until) {
			t->slow = t->flight < 2;
			return (r = tls_bio_hold(t)) == 0 ? STREAM_WANT_TURN :
			    tls_library_result(t, r);
		}
	}
	if (r != 0)
		return end;
	/* In TLS 1.2 no read, which would flush, follows our Finished. */
	t->sent = 0;
	if ((r = tls_bio_flush(t)) != 0)
		return tls_library_result(t, r);
	/*
	 * In TLS 1.3 a server now makes a ticket.  Hold it back until there are
	 * data for the client: a client that only writes, and closes, would
	 * answer a ticket with a reset, and its data might be lost.
	 */
	if ((r = mbedtls_ssl_handshake(t->ssl)) == 0)
		r = tls_bio_hold(t);
	return r == 0 ? 0 : tls_library_result(t, r);
}

static void
library_free(struct tls *t)
{
	if (t->ssl != NULL)
		mbedtls_ssl_free(t->ssl);
	free(t->ssl);
	t->ssl = NULL;
}

/* Move the connection to the kernel: 0, or -1 if it stays with the library. */
static int
move_to_kernel(struct tls *t, struct stream *s)
{
	if (t->ktls == NULL || ktls_enable(t, s) == -1)
		return -1;
	library_free(t);
	tls_resume_end(t);
	return 0;
}

/*
 * The handshake is over: prepare for data, in the kernel if possible.  A client
 * still expects tickets in TLS 1.3, which only the library can read.
 */
static void
opened(struct tls *t, struct stream *s)
{
	int record = mbedtls_ssl_get_max_out_record_payload(t->ssl);

	t->open = 1;
	t->suite = mbedtls_ssl_get_ciphersuite_id_from_ssl(t->ssl);
	t->alpn = mbedtls_ssl_get_alpn_protocol(t->ssl);
	t->record_size = record > 0 ? (size_t)record : RECORD_MAX;
	s->write_size = tls_bio_write_size(t);
	tls_records_sniff_end(t);
	if (t->cfg->is_client && !is_tls13(t) && release_buffers(t) == 0)
		tls_resume_keep(t);
	ktls_opened(t);
	if (tls_resume_waits(t))
		return;
	tls_resume_end(t);
	/* A server has only this chance; a client may try again later. */
	if (move_to_kernel(t, s) == -1 && !t->cfg->is_client)
		ktls_free(t);
}

/* Send what the library wrote during a read, such as an alert. */
static void
flush_answer(struct tls *t)
{
	int r = tls_bio_flush(t);

	if (r != MBEDTLS_ERR_SSL_WANT_WRITE && t->ended == 0)
		t->ended = r;
}

/*
 * Gather whole records while another fits, so that no decrypted data stay
 * behind in the library; but only one record if the kernel may take over after
 * it.  mbedtls_ssl_read() returns 0 for a FIN and for some empty records, and
 * has to be called again after a ticket.  Return the number of bytes.
 */
static size_t
gather_records(struct tls *t, unsigned char *p, size_t len)
{
	size_t got = 0;
	int r = 0;

	while (t->ended == 0 && (got == 0 || (len - got >= RECORD_MAX &&
	    t->ktls == NULL))) {
		t->starved = 0;
		r = mbedtls_ssl_read(t->ssl, p + got, len - got);
		if (r > 0)
			got += (size_t)r;
		else if (r == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
			tls_resume_keep(t);
		else if (r == MBEDTLS_ERR_SSL_WANT_READ && !t->starved &&
		    t->budget-- > 0)
			continue;
		else if (r == MBEDTLS_ERR_SSL_WANT_READ ||
		    r == MBEDTLS_ERR_SSL_WANT_WRITE)
			break;
		else if (r != 0 || t->fin)
			t->ended = r == 0 ? MBEDTLS_ERR_SSL_CONN_EOF : r;
	}
	return got;
}

static ssize_t
tls_read(struct stream *s, void *buf, size_t len)
{
	struct tls *t = s->ctx;
	size_t got;
	int lost;

	begin_reading(t);
	got = gather_records(t, buf, len);
	if (got > 0 && tls_resume_waits(t))
		tls_resume_end(t);	/* tickets come before data */
	if ((lost = release_buffers(t)) == 0 && t->ended == 0)
		lost = tls_bio_keep_ahead(t);
	if (t->ended == 0)
		t->ended = lost;
	if (tls_bio_has_gathered())
		flush_answer(t);
	/* A client that waited for tickets can move to the kernel now. */
	if (t->ended == 0 && t->ntickets > 0 && move_to_kernel(t, s) == 0 &&
	    got == 0)
		return s->ops->read(s, buf, len);
	if (got > 0)
		return (ssize_t)got;
	return t->ended == 0 ? STREAM_WANT_READ :
	    tls_library_result(t, tls_bio_read_end(t));
}

/*
 * Encrypt as many records as there is room for.  Return the data in them, and
 * in *last those in the last one, or a code.
 */
static ssize_t
encrypt_some(struct tls *t, const unsigned char *p, size_t len, size_t *last)
{
	size_t done = 0;
	int r = 0;

	while (done < len && tls_bio_has_room(t)) {
		r = mbedtls_ssl_write(t->ssl, p + done,
		    len - done < t->record_size ? len - done :
		    t->record_size);
		if (r == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) {
			tls_resume_keep(t);
			continue;
		}
		if (r <= 0)
			break;
		*last = (size_t)r;
		done += *last;
	}
	release_buffers(t);	/* all output is gathered: nothing to keep */
	return r < 0 ? r : (ssize_t)done;
}

/*
 * Send several records at once.  If not all fit, tls_bio keeps the rest; all
 * but the last record count as written.  The caller retries that one, and the
 * retry sends what was kept.
 */
static ssize_t
tls_write(struct stream *s, const void *buf, size_t len)
{
	struct tls *t = s->ctx;
	size_t last = 0;
	ssize_t n;
	int r;

	if (t->unsent > 0 || !tls_bio_has_room(t)) {
		if ((r = tls_bio_flush(t)) != 0)
			return tls_library_result(t, r);
		if ((n = (ssize_t)t->unsent) > 0) {
			t->unsent = 0;
			return n;
		}
	}
	n = encrypt_some(t, buf, len, &last);
	r = tls_bio_flush(t);
	if (n < 0 || r == 0)
		return n < 0 ? tls_library_result(t, (int)n) : n;
	t->unsent = last;
	return n > (ssize_t)last && r == MBEDTLS_ERR_SSL_WANT_WRITE ?
	    n - (ssize_t)last : tls_library_result(t, r);
}

static int
send_alert(struct tls *t)
{
	return mbedtls_ssl_send_alert_message(t->ssl, tls_alert_level(t),
	    t->alert);
}

/*
 * Send our last alert, close_notify or a fatal one.  After a failed handshake
 * step the library may still have an unsent message: its first call sends that
 * message instead of the alert, so call it again.
 */
static int
send_last_alert(struct tls *t)
{
	int r;

	t->notified = 1;
	r = send_alert(t);
	if (r == 0 && !t->open && t->out.head[0] == MBEDTLS_SSL_MSG_HANDSHAKE)
		r = send_alert(t);
	release_buffers(t);
	return r;
}

/*
 * The handshake has failed.  Read a little more than the bad header at which
 * the library stopped, for the text.  A client sends its alert here, since the
 * engine dials the next server without finishing a failed one.
 */
static void
fail(struct tls *t)
{
	unsigned char more[sizeof(t->first)];

	if (t->nfirst < sizeof(t->first))
		tls_bio_recv(t, more, sizeof(t->first) - t->nfirst);
	if (t->cfg->is_client && !t->notified)
		send_last_alert(t);
	tls_bio_flush(t);
}

static int
tls_open(struct stream *s)
{
	struct tls *t = s->ctx;
	int r, lost;

	begin_reading(t);
	if ((r = handshake(t)) == 0)
		opened(t, s);
	lost = release_buffers(t);
	if (r == STREAM_ERROR) {
		fail(t);
		return r;
	}
	if (lost == 0)
		lost = tls_bio_keep_ahead(t);
	if (lost != 0)
		return tls_library_result(t, lost);
	/* There will be no event for bytes that are already received. */
	return r == STREAM_WANT_READ && t->nahead > 0 ? STREAM_WANT_TURN : r;
}

static int
tls_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r, alerted = 0;

	if (!t->notified)
		alerted = send_last_alert(t);
	r = tls_bio_flush(t);
	if (alerted != 0 || r != 0)
		return tls_library_result(t, alerted != 0 ? alerted : r);
	shutdown(t->fd, SHUT_WR);
	return 0;
}

static int
tls_pending(const struct stream *s)
{
	const struct tls *t = s->ctx;

	return t->ended != 0 || t->nahead > 0 ||
	    mbedtls_ssl_get_bytes_avail(t->ssl) > 0 ||
	    (t->cfg->is_client && mbedtls_ssl_check_pending(t->ssl));
}

static const struct stream_ops tls_ops = {
	.open = tls_open,
	.read = tls_read,
	.write = tls_write,
	.finish = tls_finish,
	.refuse = tls_refuse,
	.failed = tls_bio_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = tls_pending,
	.error = tls_error_reason,
};

/*
 * CREATION AND FREEING
 */

/*
 * Set the name that a client verifies, and sends as SNI unless it is an
 * address.  Remove the root's trailing dot, which certificates don't have and
 * SNI must not have (RFC 6066 section 3).  0, or a code.
 */
static int
set_name(struct tls *t, const char *name)
{
	unsigned char address[16];
	size_t len = name != NULL ? strlen(name) : 0;

	if (len > 1 && name[len - 1] == '.')
		len--;
	if (name != NULL && (t->name = strndup(name, len)) == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	if (name == NULL || t->cfg->asks_no_name ||
	    tls_names_address(t->name, address) > 0)
		return mbedtls_ssl_set_hostname(t->ssl, NULL);
	if ((t->sni = strdup(t->name)) == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	return mbedtls_ssl_set_hostname(t->ssl, t->sni);
}

struct tls *
tls_new(struct tls_config *cfg, int fd, const char *name, struct stream *s)
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
	if (mbedtls_ssl_setup(t->ssl, &cfg->ssl) != 0 ||
	    (cfg->is_client && set_name(t, name) != 0)) {
		tls_free(t);
		return NULL;
	}
	mbedtls_ssl_set_user_data_p(t->ssl, t);
	mbedtls_ssl_set_verify(t->ssl, tls_verify_cert, t);
	mbedtls_ssl_set_bio(t->ssl, t, tls_bio_send, tls_bio_recv, NULL);
	if (ktls_new(t) == -1 || (cfg->is_client &&
	    (tls_records_sniff(t) == -1 || tls_resume_offer(t) != 0))) {
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
	ktls_free(t);
	tls_records_sniff_end(t);
	tls_verify_forget(t);
	free(t->sni);
	free(t->identity);
	free(t->name);
	free(t->why);
	free(t->deferred);
	free(t->ahead);
	free(t);
}

void
tls_failed(const struct tls *t)
{
	tls_resume_failed(t);
}

int
tls_heard(const struct tls *t)
{
	return t->nfirst > 0;
}

int
tls_is_refused(const struct tls *t)
{
	return t->refused;
}

void
tls_conninfo(const struct tls *t, struct tls_conninfo *a)
{
	static char cipher[NAME_SIZE];

	*a = (struct tls_conninfo){ .name = t->sni };
	if (!t->open)
		return;
	tls_suites_name(t->suite, cipher, sizeof(cipher));
	a->version = tls_suites_is_tls13(t->suite) ? "TLSv1.3" : "TLSv1.2";
	a->cipher = cipher;
	a->group = tls_suites_group(t->group);
	a->alpn = t->alpn;
	a->in_kernel = t->ssl == NULL;
	a->peer = t->peer;
	a->common_name = t->cn;
	a->psk = t->psk != NULL ? t->psk->name : NULL;
	a->resumed = t->resumed;
}
