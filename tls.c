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

#include "stream.h"
#include "tls.h"
#include "tls_bio.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_suites.h"
#include "tls_verify.h"
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
 * THE STREAM
 * mbed TLS over recv(2) and send(2), in the engine's words.
 */

static int	 ktls_enable(struct tls *, struct stream *);

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
		end = r == 0 ? 0 : tls_library_result(t, r);
		if (tls_verify_check_verdict(t) && (!is_tls13(t) ||
		    end == STREAM_ERROR ||
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
	t->deferring = 1;
	t->sent = 0;
	r = mbedtls_ssl_handshake(t->ssl);
	t->deferring = 0;
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

/* Data are next. */
static void
opened(struct tls *t, struct stream *s)
{
	int record = mbedtls_ssl_get_max_out_record_payload(t->ssl);

	t->open = 1;
	t->suite = mbedtls_ssl_get_ciphersuite_id_from_ssl(t->ssl);
	t->alpn = mbedtls_ssl_get_alpn_protocol(t->ssl);
	t->record = record > 0 ? (size_t)record : RECORD_MAX;
	s->write_size = tls_bio_write_size(t);
	free(t->chain);
	t->chain = NULL;
	t->chain_len = 0;
	if (ktls_enable(t, s) == 0)
		library_free(t);
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
		tls_bio_recv(t, more, sizeof(t->first) - t->nfirst);
	return r;
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
	tls_bio_take_ahead(t);
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
		t->ended = tls_bio_keep_ahead(t);
	if (got > 0)
		return (ssize_t)got;
	return tls_library_result(t, t->ended != 0 ? tls_bio_read_end(t) : r);
}

/*
 * As many records as there is room for; how much is in them, and in the last
 * one, or an error.
 */
static ssize_t
encrypt_some(struct tls *t, const unsigned char *p, size_t len, size_t *last)
{
	size_t done = 0;
	int r = 0;

	tls_bio_gather(t);
	while (done < len && tls_bio_has_room(t)) {
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
	size_t last = 0;
	ssize_t n;
	int r;

	if (tls_bio_send_deferred(t, t->unsent == 0) == -1)
		return tls_library_result(t, tls_bio_send_error(t));
	if ((n = (ssize_t)t->unsent) > 0) {
		t->unsent = 0;
		return n;
	}
	if ((n = encrypt_some(t, buf, len, &last)) < 0)
		return tls_library_result(t, (int)n);
	if ((r = tls_bio_send_gathered(t)) == 0)
		return n;
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
 * Our end, be it a proper one or not, is the next to be sent.  Where a step of
 * the handshake has failed with its message written and not sent, the library
 * sends that for the alert.
 */
static int
defer_alert(struct tls *t)
{
	int r;

	t->notified = t->deferring = 1;
	r = send_alert(t);
	if (r == 0 && !t->open && t->out.head[0] == MBEDTLS_SSL_MSG_HANDSHAKE)
		r = send_alert(t);
	t->deferring = 0;
	return r;
}

static int
tls_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r;

	if (!t->notified && (r = defer_alert(t)) != 0)
		return tls_library_result(t, r);
	if (tls_bio_send_deferred(t, 0) == -1)
		return tls_library_result(t, tls_bio_send_error(t));
	shutdown(t->fd, SHUT_WR);
	return 0;
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
	.failed = tls_bio_failed,
	.abort = stream_reset,
	.flushed = stream_plain_flushed,
	.pending = tls_pending,
	.error = tls_error_reason,
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
derive_traffic(const struct ktls *k, int direction, struct traffic *tr)
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
ktls_set_keys(int fd, int direction, const struct ktls *k,
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
ktls_install(struct tls *t, int direction, uint64_t seq)
{
	struct traffic tr = { .seq = seq };
	int r = derive_traffic(t->ktls, direction, &tr);

	errno = ENOMEM;
	if (r == 0)
		r = ktls_set_keys(t->fd, direction, t->ktls, &tr);
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
		t->ktls->given += len;
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
	const struct cipher *c = t->ktls->cipher;
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
	const struct ktls *k = t->ktls;
	uint64_t each = HEADER_SIZE + TAG_SIZE +
	    (k->is_13 ? 1 : k->cipher->salt != 0 ? k->cipher->iv : 0);

	return bytes_in_tcp(t->fd) - k->base >= k->given +
	    (k->records + next_record(t)) * each;
}

static void
forget_secrets(struct ktls *k)
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
	struct ktls *k = t->ktls;

	if (k->sends)
		return 0;
	if (tls_bio_send_deferred(t, 0) == -1)
		return -1;
	k->base = bytes_in_tcp(t->fd);
	if (ktls_install(t, TLS_TX, k->seq) == -1)
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
	const struct ktls *k = t->ktls;
	unsigned char *secret = k->secrets->traffic[direction == TLS_TX];
	unsigned char next[SECRET_SIZE];
	size_t len = PSA_HASH_LENGTH(k->cipher->hash);
	int r;

	errno = ENOMEM;
	r = expand_label(k->cipher->hash, secret, "traffic upd", next, len);
	if (r == 0) {
		memcpy(secret, next, len);
		r = ktls_install(t, direction, 0);
	}
	mbedtls_platform_zeroize(next, sizeof(next));
	return r;
}

/* All that is due before the next record: -1 with errno. */
static int
kernel_ready(struct tls *t)
{
	static const unsigned char update[] = { HS_KEY_UPDATE, 0, 0, 1, 0 };
	struct ktls *k = t->ktls;

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
	return tls_result(t, tls_bio_send_error(t));
}

static int
kernel_alert(struct tls *t, unsigned char level, unsigned char code)
{
	const unsigned char alert[] = { level, code };

	if (kernel_ready(t) == -1)
		return -1;
	return send_control(t, MBEDTLS_SSL_MSG_ALERT, alert, sizeof(alert));
}

/* It is only a warning: if there is no room for it, none is sent. */
static int
refuse_renegotiation(struct tls *t)
{
	int r;

	if (kernel_alert(t, MBEDTLS_SSL_ALERT_LEVEL_WARNING,
	    MBEDTLS_SSL_ALERT_MSG_NO_RENEGOTIATION) == 0)
		return 0;
	r = tls_bio_send_error(t);
	return r == MBEDTLS_ERR_SSL_WANT_WRITE ? 0 : r;
}

/*
 * A KeyUpdate, RFC 8446 section 4.6.3; answered with the next thing that is
 * sent.  Whatever else a client may send at this point is none of it, but for
 * the wish for a new handshake in TLS 1.2.
 */
static int
take_handshake(struct tls *t, const unsigned char *p, size_t len)
{
	struct ktls *k = t->ktls;

	if (!k->is_13 && len > 0 && p[0] == MBEDTLS_SSL_HS_CLIENT_HELLO)
		return refuse_renegotiation(t);
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
		return tls_bio_recv_error(t);
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
	int hides = t->ktls->is_13 && t->cfg->kernel & TLS_KERNEL_REKEYS;
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
	t->ktls->unread = hides && r != MBEDTLS_ERR_SSL_WANT_READ;
	if (got > 0)
		return (ssize_t)got;
	return t->ended == 0 ? STREAM_WANT_READ :
	    tls_result(t, tls_bio_read_end(t));
}

static ssize_t
kernel_write(struct stream *s, const void *buf, size_t len)
{
	struct tls *t = s->ctx;
	ssize_t n;

	if (kernel_ready(t) == -1 || (n = tls_bio_put(t, buf, len, 0)) == -1)
		return kernel_failed(t);
	t->ktls->given += (uint64_t)n;
	return n;
}

/* Who sends is told of an error in what was received, unless it is taken. */
static int
kernel_finish(struct stream *s)
{
	struct tls *t = s->ctx;
	int r;

	if (!t->notified && t->alert != 0)
		stream_plain_failed(&(struct stream){ .fd = t->fd });
	if (!t->notified && kernel_alert(t, tls_alert_level(t), t->alert) == -1)
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
	return is_flushed(s->ctx) && stream_plain_flushed(s);
}

static int
kernel_pending(const struct stream *s)
{
	const struct tls *t = s->ctx;

	return t->ended != 0 || t->ktls->unread;
}

/* It is open already. */
static const struct stream_ops kernel_ops = {
	.open = NULL,
	.read = kernel_read,
	.write = kernel_write,
	.finish = kernel_finish,
	.refuse = tls_refuse,
	.failed = tls_bio_failed,
	.abort = stream_reset,
	.flushed = kernel_flushed,
	.pending = kernel_pending,
	.error = tls_error_reason,
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
ktls_new(struct tls *t)
{
	struct ktls *k;

	if (t->cfg->kernel == 0)
		return 0;
	if ((k = t->ktls = calloc(1, sizeof(*k))) == NULL ||
	    (k->secrets = calloc(1, sizeof(*k->secrets))) == NULL)
		return -1;
	mbedtls_ssl_set_export_keys_cb(t->ssl, export_keys, k->secrets);
	return 0;
}

static void
ktls_free(struct tls *t)
{
	if (t->ktls == NULL)
		return;
	if (t->ssl != NULL)
		mbedtls_ssl_set_export_keys_cb(t->ssl, NULL, NULL);
	forget_secrets(t->ktls);
	free(t->ktls);
	t->ktls = NULL;
}

/* Is it a suite that the kernel knows, and nothing still on its way? */
static int
may_move(const struct tls *t)
{
	const struct ktls *k = t->ktls;

	return k->cipher != NULL && t->record >= RECORD_MIN &&
	    t->cfg->kernel & kernel_bit(k->cipher, k->is_13) &&
	    tls_bio_is_whole(t) &&
	    !mbedtls_ssl_check_pending(t->ssl) &&
	    mbedtls_ssl_get_bytes_avail(t->ssl) == 0;
}

/*
 * The last step of opening.  Receiving is handed over first, since what a
 * ticket waits for (see handshake()) sending has to wait for as well.  From
 * then on there is no way back, but no error is to be expected either: all of
 * this was tried at the start.
 */
static int
ktls_enable(struct tls *t, struct stream *s)
{
	struct ktls *k = t->ktls;
	int on = 1;

	if (k == NULL)
		return -1;
	k->cipher = find_cipher(t->suite);
	k->is_13 = is_tls13(t);
	k->seq = t->out.count;
	if (!may_move(t) || setsockopt(t->fd, IPPROTO_TCP, TCP_ULP, "tls",
	    sizeof("tls")) == -1 ||
	    ktls_install(t, TLS_RX, k->is_13 ? 0 : t->in.count) == -1) {
		ktls_free(t);
		return -1;
	}
	/* Only a hint, in TLS 1.3, that records are not padded. */
	setsockopt(t->fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &on, sizeof(on));
	s->ops = &kernel_ops;
	s->write_size = 0;
	if (t->ndeferred == 0 && kernel_sends(t) == -1)
		t->ended = MBEDTLS_ERR_SSL_ALLOC_FAILED;
	return 0;
}

/* With keys that are no secret: of all zeros. */
unsigned
tls_kernel_try(unsigned i, int fd)
{
	const struct traffic tr = { .seq = 0 };
	struct ktls k = { .cipher = &ciphers[i / 2], .is_13 = i % 2 == 0 };

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == -1 ||
	    ktls_set_keys(fd, TLS_RX, &k, &tr) == -1 ||
	    ktls_set_keys(fd, TLS_TX, &k, &tr) == -1)
		return 0;
	return kernel_bit(k.cipher, k.is_13) | (k.is_13 &&
	    ktls_set_keys(fd, TLS_RX, &k, &tr) == 0 ? TLS_KERNEL_REKEYS : 0);
}

void
tls_kernel_text(unsigned caps, char *text, size_t size)
{
	size_t i, n = 0;
	int is_13;

	text[0] = '\0';
	for (is_13 = 1; is_13 >= 0 && n < size; is_13--) {
		n += (size_t)snprintf(text + n, size - n, "%sTLSv1.%d with",
		    n > 0 ? ", " : "", is_13 ? 3 : 2);
		for (i = 0; i < CIPHERS && n < size; i++)
			if (caps & kernel_bit(&ciphers[i], is_13))
				n += (size_t)snprintf(text + n, size - n,
				    " %s", ciphers[i].name);
	}
}

#else

/* No other system is known here to do it. */

static int
ktls_new(struct tls *t)
{
	(void)t;
	return 0;
}

static void
ktls_free(struct tls *t)
{
	(void)t;
}

static int
ktls_enable(struct tls *t, struct stream *s)
{
	(void)t;
	(void)s;
	return -1;
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
tls_kernel_text(unsigned caps, char *text, size_t size)
{
	snprintf(text, size, "%s", caps != 0 ? "?" : "");
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
	mbedtls_ssl_set_verify(t->ssl, tls_verify_cert, t);
	mbedtls_ssl_set_bio(t->ssl, t, tls_bio_send, tls_bio_recv, NULL);
	if (ktls_new(t) == -1) {
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
	tls_verify_forget(t);
	free(t->sni);
	free(t->why);
	free(t->deferred);
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
	tls_suites_name(t->suite, cipher, sizeof(cipher));
	a->version = tls_suites_is_tls13(t->suite) ? "TLSv1.3" : "TLSv1.2";
	a->cipher = cipher;
	a->group = tls_suites_group(t->group);
	a->alpn = t->alpn;
	a->in_kernel = t->ssl == NULL;
	a->client = t->client;
	a->common_name = t->cn;
	a->resumed = t->resumed;
}
