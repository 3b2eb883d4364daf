/*
 * tls_records: what records show as they pass: where each one ends, and what
 * the handshake has in the clear.
 */
#include <stdlib.h>
#include <string.h>

#include "tls_error.h"
#include "tls_internal.h"
#include "tls_psk.h"
#include "tls_records.h"
#include "tls_verify.h"
#include "util.h"

#define HELLO_RANDOM	34		/* behind it, a session ID */
#define MESSAGE_HEAD	4		/* of a handshake's message */
#define MESSAGE_SEEN	2048		/* of one, at most */

static void
track_header(struct record *r, unsigned char c)
{
	if (r->nhead == HEADER_SIZE)
		r->nhead = 0;
	r->head[r->nhead++] = c;
	if (r->nhead < HEADER_SIZE)
		return;
	r->left = (uint16_t)be_get(r->head + 3, 2);
	r->count += r->count < UINT32_MAX;
	if (r->head[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC)
		r->count = 0;
}

void
tls_records_track(struct record *r, const unsigned char *p, size_t len)
{
	size_t i, n;

	for (; len > 0; p += n, len -= n) {
		if ((n = r->left) == 0) {
			track_header(r, *p);
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

int
tls_records_is_whole(const struct record *r)
{
	return r->left == 0 && r->nhead % HEADER_SIZE == 0;
}

/* A server that has the shared key is known by it, not by a certificate. */
static void
know_by(struct tls *t, const struct psk *psk)
{
	t->psk = psk;
	if (psk != NULL)
		tls_verify_forget(t);
}

/*
 * In TLS 1.3 a server chooses one of the keys that it was offered, by its
 * number, or none: -1.  Number 0 is that of a ticket, if a client offers one.
 */
static void
choose(struct tls *t, int chosen)
{
	if (t->cfg->is_client)
		t->by_psk = !t->offers_ticket || chosen != 0;
	t->resumed = chosen != -1 && !t->by_psk;
	if (chosen == -1)
		t->psk = NULL;		/* it is by certificate */
	else if (t->cfg->is_client && t->by_psk)
		know_by(t, t->cfg->own_psk);
}

/*
 * In a ServerHello are a session ID, at p, suite, compression, and the
 * extensions: in TLS 1.3 (RFC 8446 section 4.2) the group of the key_share, and
 * whether a session is resumed.  In TLS 1.2 it is, unless a Certificate
 * follows; and both sides can make an extended master secret if it is there.
 */
static void
sniff_hello(struct tls *t, const unsigned char *p, const unsigned char *end)
{
	int is_13 = 0, has_share = 0, chosen = -1;
	size_t n;

	if (p == end || end - p < 1 + p[0] + 5)
		return;
	t->suite = (int)be_get(p + 1 + p[0], 2);
	for (p += 1 + p[0] + 5; end - p >= 4; p += n) {
		n = 4 + (size_t)be_get(p + 2, 2);
		if (n > (size_t)(end - p))
			n = (size_t)(end - p);
		switch (be_get(p, 2)) {
		case MBEDTLS_TLS_EXT_KEY_SHARE:
			if (n >= 6)
				t->group = (int)be_get(p + 4, 2);
			has_share = n > 6;
			break;
		case MBEDTLS_TLS_EXT_PRE_SHARED_KEY:
			if (n >= 6)
				chosen = (int)be_get(p + 4, 2);
			break;
		case MBEDTLS_TLS_EXT_SUPPORTED_VERSIONS:
			is_13 = 1;
			break;
		case MBEDTLS_TLS_EXT_EXTENDED_MASTER_SECRET:
			t->extended = 1;
			break;
		default:
			break;
		}
	}
	/* A HelloRetryRequest has neither, and chooses nothing. */
	if (is_13 && (has_share || chosen != -1))
		choose(t, chosen);
	else if (!is_13)
		t->resumed = t->offers || !t->cfg->is_client;
}

/* In TLS 1.2 only a full handshake has that message. */
static void
begin_anew(struct tls *t)
{
	if (t->cfg->is_client)
		know_by(t, t->suite == PSK_SUITE ? t->cfg->own_psk : NULL);
	t->resumed = 0;
}

/*
 * The group is behind the type of the curve, RFC 8422 section 5.4; with a key
 * that both sides have, a hint comes first, RFC 5489 section 2, which is short.
 */
static void
sniff_exchange(struct tls *t, const unsigned char *p, size_t len)
{
	size_t hint = len > 2 && p[0] == 0 ? 2 + (size_t)be_get(p, 2) : 0;

	if (len >= hint + 3 && p[hint] == MBEDTLS_ECP_TLS_NAMED_CURVE)
		t->group = (int)be_get(p + hint + 1, 2);
}

/* RFC 7627 section 5.3; the session had one, or it would not be there. */
static void
check_extended(struct tls *t)
{
	if (t->resumed && !t->extended)
		tls_reject(t, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		    "session resumed without its extended master secret");
}

/* A message in the clear, or the first of it, behind its head. */
static void
sniff_message(struct tls *t, int type, const unsigned char *p, size_t len)
{
	switch (type) {
	case MBEDTLS_SSL_HS_SERVER_HELLO:
		/* Not all libraries see to it; RFC 8446 section 4.1.3. */
		if (len > 1 && be_get(p, 2) != MBEDTLS_SSL_VERSION_TLS1_2)
			tls_reject(t, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION,
			    "handshake: no TLS version in common");
		else if (len > HELLO_RANDOM)
			sniff_hello(t, p + HELLO_RANDOM, p + len);
		break;
	case MBEDTLS_SSL_HS_SERVER_KEY_EXCHANGE:
		sniff_exchange(t, p, len);
		begin_anew(t);
		break;
	case MBEDTLS_SSL_HS_CERTIFICATE:
		begin_anew(t);
		break;
	case MBEDTLS_SSL_HS_NEW_SESSION_TICKET:
		/* RFC 5077 section 3.3 */
		if (t->cfg->is_client && len > 6) {
			t->ticketed = 1;
			t->lifetime_hint = (uint32_t)be_get(p, 4);
		}
		break;
	default:
		break;
	}
}

/*
 * The library does not tell which group was negotiated, nor whether a session
 * was resumed.  Both are in the clear in what it sends, a record at p, until
 * encryption starts.
 */
void
tls_records_sent(struct tls *t, const unsigned char *p, size_t len)
{
	if (p[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC && !is_tls13(t))
		t->encrypted = 1;
	if (t->encrypted || len <= HEADER_SIZE + MESSAGE_HEAD ||
	    p[0] != MBEDTLS_SSL_MSG_HANDSHAKE)
		return;
	/* The library leaves a ticket out that is too old, or too long. */
	if (t->offers_ticket)
		t->offers_ticket = tls_psk_offered(p + HEADER_SIZE +
		    MESSAGE_HEAD, len - HEADER_SIZE - MESSAGE_HEAD) >
		    (t->cfg->own_psk != NULL);
	if (t->cfg->is_client)
		return;
	sniff_message(t, p[HEADER_SIZE], p + HEADER_SIZE + MESSAGE_HEAD,
	    len - HEADER_SIZE - MESSAGE_HEAD);
	if (p[HEADER_SIZE] != MBEDTLS_SSL_HS_SERVER_HELLO)
		return;
	t->flight = 1;
	/* The client has not offered it again. */
	if (!is_tls13(t) && t->born != 0)
		check_extended(t);
}

/* A message that a server sends in the clear, as far as it has come. */
struct sniffer {
	size_t	 seen;			/* bytes of it, with its head */
	unsigned char p[MESSAGE_SEEN];	/* the first of these */
};

int
tls_records_sniff(struct tls *t)
{
	t->sniffer = calloc(1, sizeof(*t->sniffer));
	return t->sniffer != NULL ? 0 : -1;
}

void
tls_records_sniff_end(struct tls *t)
{
	free(t->sniffer);
	t->sniffer = NULL;
}

/* 1 if all of it has come. */
static int
is_message(const struct sniffer *h)
{
	return h->seen >= MESSAGE_HEAD &&
	    h->seen == MESSAGE_HEAD + (size_t)be_get(h->p + 1, 3);
}

static void
gather_messages(struct tls *t, const unsigned char *p, size_t len)
{
	struct sniffer *h = t->sniffer;
	size_t n, size = sizeof(h->p);

	for (; len > 0; p += n, len -= n) {
		n = MESSAGE_HEAD - h->seen;
		if (h->seen >= MESSAGE_HEAD)
			n += (size_t)be_get(h->p + 1, 3);
		if (n > len)
			n = len;
		if (h->seen < size)
			memcpy(h->p + h->seen, p, n < size - h->seen ? n :
			    size - h->seen);
		h->seen += n;
		if (!is_message(h))
			continue;
		sniff_message(t, h->p[0], h->p + MESSAGE_HEAD, (h->seen < size ?
		    h->seen : size) - MESSAGE_HEAD);
		h->seen = 0;
	}
}

/* The same in what a server sends: p is a part of a record's body. */
static void
sniff_received(struct tls *t, const unsigned char *p, size_t len)
{
	if (t->sniffer == NULL || t->in.left == 0)
		return;
	if (t->in.head[0] == MBEDTLS_SSL_MSG_HANDSHAKE)
		gather_messages(t, p, len);
	else if (t->in.head[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC &&
	    !is_tls13(t)) {
		check_extended(t);
		tls_records_sniff_end(t);
	}
}

static void
saw_handshake(struct tls *t, const unsigned char *p, size_t len)
{
	size_t i;

	if (t->flight == 1) {
		t->flight = 2;
		t->slow = 0;
	}
	for (i = 0; i < len && t->nfirst < sizeof(t->first); i++)
		t->first[t->nfirst++] = p[i];
	/* Its Finished is the last before our keys for data; RFC 8446 4.4.4. */
	if (is_tls13(t))
		t->out.count = 0;
}

void
tls_records_received(struct tls *t, const unsigned char *p, size_t len)
{
	sniff_received(t, p, len);
	saw_handshake(t, p, len);
}
