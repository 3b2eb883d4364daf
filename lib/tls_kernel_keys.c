/*
 * tls_kernel_keys: the ciphers of kernel TLS, its keys, derived from the
 * secrets of a handshake, and the capabilities of this kernel.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tls.h"
#include "tls_internal.h"
#include "tls_kernel_keys.h"
#include "util.h"

#ifdef __linux__
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>

#define IV_SIZE		12		/* of all ciphers below */
#define SEQ_SIZE	8
#define INFO_SIZE	(4 + IV_SIZE + 32 + SEQ_SIZE)	/* for setsockopt(2) */

static const struct cipher {
	const char *name;
	uint16_t type;
	unsigned char key, salt, iv;	/* bytes of each */
	psa_algorithm_t hash;
	int	 suites[4];		/* the first one is of TLS 1.3 */
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
	    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	    MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 } },
};

#define CIPHERS		(sizeof(ciphers) / sizeof(ciphers[0]))

static_assert(2 * CIPHERS == TLS_KERNEL_TRIES, "a try for each, as in tls.h");

/* The keys of one direction. */
struct traffic {
	unsigned char key[32];
	unsigned char iv[IV_SIZE];	/* salt and IV; RFC 8446 section 5.3 */
	uint64_t seq;			/* of the next record */
};

const struct cipher *
ktls_find_cipher(int suite)
{
	size_t i, j;

	for (i = 0; i < CIPHERS; i++)
		for (j = 0; j < 4 && ciphers[i].suites[j] != 0; j++)
			if (ciphers[i].suites[j] == suite)
				return &ciphers[i];
	return NULL;
}

unsigned
ktls_cap(const struct cipher *c, int is_13)
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

/* Return 1 if the server sends in this direction, whether we or the peer. */
static int
is_servers(const struct ktls *k, int direction)
{
	return (direction == TLS_TX) != k->is_client;
}

/* Derive the keys of a direction, TLS_TX or TLS_RX. */
static int
derive_traffic(const struct ktls *k, int direction, struct traffic *tr)
{
	const struct cipher *c = k->cipher;
	size_t n = c->key, fixed = c->salt != 0 ? c->salt : c->iv;
	unsigned char block[2 * (sizeof(tr->key) + sizeof(tr->iv))];
	int servers = is_servers(k, direction), r;
	const unsigned char *secret = k->secrets->traffic[servers];

	if (k->is_13)
		return expand_label(c->hash, secret, "key", tr->key, n) == 0 &&
		    expand_label(c->hash, secret, "iv", tr->iv, IV_SIZE) == 0 ?
		    0 : -1;
	r = expand_block(c->hash, k->secrets, block, 2 * (n + fixed));
	memcpy(tr->key, block + (servers ? n : 0), n);
	memcpy(tr->iv, block + 2 * n + (servers ? fixed : 0), fixed);
	/* The explicit part of the nonce: any value, but never twice. */
	if (c->salt != 0)
		be_put(tr->iv + c->salt, tr->seq, c->iv);
	mbedtls_platform_zeroize(block, sizeof(block));
	return r;
}

/*
 * Fill in a struct tls12_crypto_info_*; all of them have the same layout.  0,
 * or -1 with errno.
 */
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

int
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

int
ktls_update_keys(struct tls *t, int direction)
{
	const struct ktls *k = t->ktls;
	unsigned char *secret = k->secrets->traffic[is_servers(k, direction)];
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

void
ktls_forget_secrets(struct ktls *k)
{
	if (k->secrets != NULL)
		mbedtls_platform_zeroize(k->secrets, sizeof(*k->secrets));
	free(k->secrets);
	k->secrets = NULL;
}

void
ktls_export_keys(void *ctx, mbedtls_ssl_key_export_type type,
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

uint64_t
ktls_next_record(const struct tls *t)
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

uint64_t
ktls_overhead(const struct ktls *k)
{
	return HEADER_SIZE + TAG_SIZE +
	    (k->is_13 ? 1 : k->cipher->salt != 0 ? k->cipher->iv : 0);
}

/* Keys of zeros will do for a trial. */
unsigned
tls_kernel_try(unsigned i, int fd)
{
	const struct traffic tr = { .seq = 0 };
	struct ktls k = { .cipher = &ciphers[i / 2], .is_13 = i % 2 == 0 };

	if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) == -1 ||
	    ktls_set_keys(fd, TLS_RX, &k, &tr) == -1 ||
	    ktls_set_keys(fd, TLS_TX, &k, &tr) == -1)
		return 0;
	return ktls_cap(k.cipher, k.is_13) | (k.is_13 &&
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
			if (caps & ktls_cap(&ciphers[i], is_13))
				n += (size_t)snprintf(text + n, size - n,
				    " %s", ciphers[i].name);
	}
}

#else

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
