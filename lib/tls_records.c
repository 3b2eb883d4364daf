/*
 * tls_records: passive parsing of the records in transit: their boundaries, and
 * the part of the handshake that is in the clear.
 */
#include <stdlib.h>
#include <string.h>

#include "tls_error.h"
#include "tls_internal.h"
#include "tls_psk.h"
#include "tls_records.h"
#include "tls_verify.h"
#include "util.h"

#define HELLO_RANDOM	34		/* a hello's version and random */
#define MESSAGE_HEAD	4		/* of a handshake message */
#define MESSAGE_SEEN	2048		/* bytes kept of one message */

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

/* A shared key authenticates the peer in place of a certificate. */
static void
set_psk(struct tls *t, const struct psk *psk)
{
	t->psk = psk;
	if (psk != NULL)
		tls_verify_forget(t);
}

/*
 * In TLS 1.3 the server selects one of the offered keys by its index, or none:
 * -1.  A client's ticket, if it offers one, has index 0.
 */
static void
set_selected_key(struct tls *t, int chosen)
{
	if (t->cfg->is_client)
		t->by_psk = !t->offers_ticket || chosen != 0;
	t->resumed = chosen != -1 && !t->by_psk;
	if (chosen == -1)
		t->psk = NULL;		/* certificates are used */
	else if (t->cfg->is_client && t->by_psk)
		set_psk(t, t->cfg->own_psk);
}

/*
 * Parse a ServerHello from its session ID, at p, on: suite, compression method,
 * extensions.  In TLS 1.3 (RFC 8446 section 4.2) these have the group, in
 * key_share, and the selected key.  In TLS 1.2 a session is resumed unless a
 * Certificate or a ServerKeyExchange follows; both sides support the extended
 * master secret if its extension is there.
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
	/* A HelloRetryRequest has neither, and selects no key. */
	if (is_13 && (has_share || chosen != -1))
		set_selected_key(t, chosen);
	else if (!is_13)
		t->resumed = t->offers || !t->cfg->is_client;
}

/* Take note of a message that in TLS 1.2 only a full handshake has. */
static void
set_full_handshake(struct tls *t)
{
	if (t->cfg->is_client)
		set_psk(t, t->suite == PSK_SUITE ? t->cfg->own_psk : NULL);
	t->resumed = 0;
}

/*
 * The group follows the curve type, RFC 8422 section 5.4.  With a shared key an
 * identity hint precedes both, RFC 5489 section 2; its length, below 256, has a
 * first byte of 0, which is no curve type.
 */
static void
sniff_exchange(struct tls *t, const unsigned char *p, size_t len)
{
	size_t hint = len > 2 && p[0] == 0 ? 2 + (size_t)be_get(p, 2) : 0;

	if (len >= hint + 3 && p[hint] == MBEDTLS_ECP_TLS_NAMED_CURVE)
		t->group = (int)be_get(p + hint + 1, 2);
}

/* RFC 7627 section 5.3: sessions without the extension are never kept. */
static void
check_extended(struct tls *t)
{
	if (t->resumed && !t->extended)
		tls_reject(t, MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		    "session resumed without extended master secret");
}

/* Parse a message in the clear, or its beginning, from behind its head on. */
static void
sniff_message(struct tls *t, int type, const unsigned char *p, size_t len)
{
	switch (type) {
	case MBEDTLS_SSL_HS_SERVER_HELLO:
		/* RFC 8446 section 4.1.3; not every library checks it. */
		if (len > 1 && be_get(p, 2) != MBEDTLS_SSL_VERSION_TLS1_2)
			tls_reject(t, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION,
			    "handshake: no TLS version in common");
		else if (len > HELLO_RANDOM)
			sniff_hello(t, p + HELLO_RANDOM, p + len);
		break;
	case MBEDTLS_SSL_HS_SERVER_KEY_EXCHANGE:
		sniff_exchange(t, p, len);
		set_full_handshake(t);
		break;
	case MBEDTLS_SSL_HS_CERTIFICATE:
		set_full_handshake(t);
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
 * The library has no function for the negotiated group, nor for whether a
 * session was resumed.  Both are in the clear until encryption starts.
 */
void
tls_records_sent(struct tls *t, const unsigned char *p, size_t len)
{
	if (p[0] == MBEDTLS_SSL_MSG_CHANGE_CIPHER_SPEC && !is_tls13(t))
		t->encrypted = 1;
	if (t->encrypted || len <= HEADER_SIZE + MESSAGE_HEAD ||
	    p[0] != MBEDTLS_SSL_MSG_HANDSHAKE)
		return;
	/* The library omits a ticket that is too old or too long. */
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
	/* The client must offer the extension again. */
	if (!is_tls13(t) && t->born != 0)
		check_extended(t);
}

/* A server's message in the clear, as far as it was received. */
struct sniffer {
	size_t	 seen;			/* bytes received, with the head */
	unsigned char p[MESSAGE_SEEN];	/* the first of these bytes */
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

/* Return 1 if the message is complete. */
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

/* Parse what a server sends: p is part of a record's body. */
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
	/* Keys for data follow the peer's Finished; RFC 8446 section 4.4.4. */
	if (is_tls13(t))
		t->out.count = 0;
}

void
tls_records_received(struct tls *t, const unsigned char *p, size_t len)
{
	sniff_received(t, p, len);
	saw_handshake(t, p, len);
}
