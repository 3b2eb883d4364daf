/*
 * A peer by mbed TLS, whose messages are edited before they are hashed, signed
 * and encrypted.  The input has the number of edits, each: message, kind,
 * offset (2), length, bytes.  MESSAGES is the maximum number of messages it
 * sends.
 *
 * Link a harness with --wrap=mbedtls_ssl_write_handshake_msg_ext, the function
 * that completes a message.
 */
#define EDITS		8
#define MESSAGE_HEAD	4
#define MESSAGE_MAX	6000

enum { REPLACE, INSERT, DELETE, RETYPE };

static struct edit {
	unsigned message, kind;
	size_t	 offset;
	struct input bytes;
} edits[EDITS];
static size_t nedits;
static const mbedtls_ssl_context *editing;	/* this peer */
static unsigned message;

/* A function of the library that no public header declares. */
int	 __real_mbedtls_ssl_write_handshake_msg_ext(mbedtls_ssl_context *,
	    int, int);
int	 __wrap_mbedtls_ssl_write_handshake_msg_ext(mbedtls_ssl_context *,
	    int, int);
int	 mbedtls_ssl_write_record(mbedtls_ssl_context *, int);

static void
apply(const struct edit *e, mbedtls_ssl_context *ssl)
{
	unsigned char *p = ssl->MBEDTLS_PRIVATE(out_msg);
	size_t n = ssl->MBEDTLS_PRIVATE(out_msglen), len = e->bytes.n, at, left;

	if (n <= MESSAGE_HEAD || len == 0)
		return;
	at = MESSAGE_HEAD + e->offset % (n - MESSAGE_HEAD);
	left = n - at;
	if (e->kind == INSERT && n + len <= MESSAGE_MAX) {
		memmove(p + at + len, p + at, left);
		memcpy(p + at, e->bytes.p, len);
		n += len;
	} else if (e->kind == DELETE) {
		len = len < left ? len : left;
		memmove(p + at, p + at + len, left - len);
		n -= len;
	} else if (e->kind == REPLACE)
		memcpy(p + at, e->bytes.p, len < left ? len : left);
	else if (e->kind == RETYPE)
		p[0] = e->bytes.p[0];
	ssl->MBEDTLS_PRIVATE(out_msglen) = n;
}

int
__wrap_mbedtls_ssl_write_handshake_msg_ext(mbedtls_ssl_context *ssl,
    int is_hashed, int is_flushed)
{
	size_t i;

	if (ssl == editing) {
		for (i = 0; i < nedits; i++)
			if (edits[i].message == message)
				apply(&edits[i], ssl);
		message++;
	}
	return __real_mbedtls_ssl_write_handshake_msg_ext(ssl, is_hashed,
	    is_flushed);
}

static void
take_edits(struct input *in)
{
	struct edit *e;

	message = 0;
	nedits = take(in) % EDITS;
	for (e = edits; e < edits + nedits; e++) {
		e->message = take(in) % MESSAGES;
		e->kind = take(in) % 4;
		e->offset = take_number(in);
		e->bytes = take_some(in, take(in));
	}
}

/* Make a record of that type, encrypted by that peer. */
static int
send_record(mbedtls_ssl_context *ssl, int type, struct input bytes)
{
	ssl->MBEDTLS_PRIVATE(out_msgtype) = type;
	ssl->MBEDTLS_PRIVATE(out_msglen) = bytes.n;
	if (bytes.n > 0)
		memcpy(ssl->MBEDTLS_PRIVATE(out_msg), bytes.p, bytes.n);
	return mbedtls_ssl_write_record(ssl, 1);
}
