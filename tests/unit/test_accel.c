/*
 * Unit tests of what stands in for mbed TLS's AES-GCM and ChaCha20-Poly1305.
 * aead.c is included, and what it asks of libc and of the manager is faked
 * where a test must own failure or see what is freed.  The heart is seeded
 * messages, whole and in pieces, that OpenSSL has made.
 *
 * ACCEL_RUNS	how many messages (3000)
 * ACCEL_SEED	the seed of the first (1), printed by a run that fails
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <intel-ipsec-mb.h>
#include <openssl/evp.h>

static struct {
	int		 no_manager, manager_error, self_test_fails, no_memory;
	int		 managers, managers_freed;
	const void	*secret;	/* 16 bytes, in nothing that is freed */
	int		 frees;
	init_mb_mgr_t	 init;		/* NULL: what suits this CPU */
} world;

static IMB_MGR *
fake_alloc_mb_mgr(uint64_t flags)
{
	if (world.no_manager)
		return NULL;
	world.managers++;
	return alloc_mb_mgr(flags);
}

static void
fake_free_mb_mgr(IMB_MGR *m)
{
	world.managers_freed++;
	free_mb_mgr(m);
}

static void
fake_init_mb_mgr_auto(IMB_MGR *m, IMB_ARCH *arch)
{
	if (world.init != NULL)
		world.init(m);
	else
		init_mb_mgr_auto(m, arch);
	if (world.self_test_fails)
		m->features &= ~IMB_FEATURE_SELF_TEST_PASS;
}

static int
fake_imb_get_errno(IMB_MGR *m)
{
	return world.manager_error ? IMB_ERR_SELFTEST : imb_get_errno(m);
}

static void *
fake_aligned_alloc(size_t alignment, size_t size)
{
	return world.no_memory ? NULL : aligned_alloc(alignment, size);
}

static void *
fake_realloc(void *p, size_t size)
{
	return world.no_memory ? NULL : realloc(p, size);
}

static void
fake_free(void *p)
{
	if (p != NULL && world.secret != NULL) {
		assert_null(memmem(p, malloc_usable_size(p), world.secret, 16));
		world.frees++;
	}
	free(p);
}

#define alloc_mb_mgr	fake_alloc_mb_mgr
#define free_mb_mgr	fake_free_mb_mgr
#define init_mb_mgr_auto fake_init_mb_mgr_auto
#define imb_get_errno	fake_imb_get_errno
#define aligned_alloc	fake_aligned_alloc
#define realloc		fake_realloc
#define free		fake_free
#include "mbedtls/ipsec-mb/aead.c"
#undef init_mb_mgr_auto
#undef free

#define DATA_MAX	(16384 + 1)
#define ADD_MAX		600
#define NONCE_MAX	128	/* of OpenSSL */
#define GUARD		32

/* A message, and what OpenSSL makes of it. */
static struct message {
	unsigned	 bits;		/* of a key of AES; 0: ChaCha20 */
	unsigned char	 key[32], nonce[NONCE_MAX], add[ADD_MAX];
	unsigned char	 plain[DATA_MAX], cipher[DATA_MAX], tag[16];
	size_t		 nonce_len, add_len, len, tag_len;
} message;

/* Something is written here, and nothing around it. */
static unsigned char room[GUARD + DATA_MAX + GUARD];
static unsigned char *const out = room + GUARD;

/* Either kind, as its functions differ in little but their names. */
struct context {
	mbedtls_gcm_context		 gcm;
	mbedtls_chachapoly_context	 chacha;
};

static uint64_t rnd;

/* splitmix64 */
static uint64_t
draw(void)
{
	uint64_t z = (rnd += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Below n. */
static size_t
below(size_t n)
{
	return (size_t)(draw() % n);
}

static void
fill(unsigned char *p, size_t n)
{
	while (n-- > 0)
		*p++ = (unsigned char)draw();
}

/* Up to max, and rather often near an edge. */
static size_t
draw_size(size_t max)
{
	static const size_t edges[] = { 0, 1, 16, 32, 64, 128, 256, 512, 768,
	    1024, 4096, 16384 };
	size_t n = below(max + 1);

	if (below(2) == 0)
		n = edges[below(sizeof(edges) / sizeof(edges[0]))] + below(3) -
		    1;
	return n > max ? below(max + 1) : n;
}

static const EVP_CIPHER *
openssl_cipher(void)
{
	switch (message.bits) {
	case 128:
		return EVP_aes_128_gcm();
	case 192:
		return EVP_aes_192_gcm();
	case 256:
		return EVP_aes_256_gcm();
	}
	return EVP_chacha20_poly1305();
}

static void
openssl_encrypts(struct message *m)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	int n;

	assert_true(EVP_EncryptInit_ex(ctx, openssl_cipher(), NULL, NULL,
	    NULL));
	assert_true(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN,
	    (int)m->nonce_len, NULL));
	assert_true(EVP_EncryptInit_ex(ctx, NULL, NULL, m->key, m->nonce));
	if (m->add_len > 0)
		assert_true(EVP_EncryptUpdate(ctx, NULL, &n, m->add,
		    (int)m->add_len));
	if (m->len > 0)
		assert_true(EVP_EncryptUpdate(ctx, m->cipher, &n, m->plain,
		    (int)m->len));
	assert_true(EVP_EncryptFinal_ex(ctx, m->cipher + m->len, &n));
	assert_true(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16,
	    m->tag));
	EVP_CIPHER_CTX_free(ctx);
}

static void
draw_message(uint64_t seed)
{
	static const unsigned bits[] = { 0, 128, 192, 256 };
	struct message *m = &message;

	rnd = seed;
	m->bits = bits[below(4)];
	m->nonce_len = m->bits == 0 || below(2) == 0 ? 12 : 1 +
	    below(NONCE_MAX);
	m->tag_len = m->bits == 0 || below(2) == 0 ? 16 : 4 + below(13);
	m->add_len = draw_size(ADD_MAX);
	m->len = draw_size(DATA_MAX);
	fill(m->key, sizeof(m->key));
	fill(m->nonce, m->nonce_len);
	fill(m->add, m->add_len);
	fill(m->plain, m->len);
	openssl_encrypts(m);
}

static int
set_any_key(struct context *c, const struct message *m)
{
	if (m->bits == 0)
		return mbedtls_chachapoly_setkey(&c->chacha, m->key);
	return mbedtls_gcm_setkey(&c->gcm, MBEDTLS_CIPHER_ID_AES, m->key,
	    m->bits);
}

static void
new_context(struct context *c)
{
	mbedtls_gcm_init(&c->gcm);
	mbedtls_chachapoly_init(&c->chacha);
	assert_int_equal(set_any_key(c, &message), 0);
}

static void
free_context(struct context *c)
{
	mbedtls_gcm_free(&c->gcm);
	mbedtls_chachapoly_free(&c->chacha);
}

static int
encrypt_any(struct context *c, const unsigned char *in, unsigned char *to,
    unsigned char *tag)
{
	const struct message *m = &message;

	if (m->bits == 0)
		return mbedtls_chachapoly_encrypt_and_tag(&c->chacha, m->len,
		    m->nonce, m->add, m->add_len, in, to, tag);
	return mbedtls_gcm_crypt_and_tag(&c->gcm, MBEDTLS_GCM_ENCRYPT, m->len,
	    m->nonce, m->nonce_len, m->add, m->add_len, in, to, m->tag_len,
	    tag);
}

static int
decrypt_any(struct context *c, const unsigned char *in, unsigned char *to)
{
	const struct message *m = &message;

	if (m->bits == 0)
		return mbedtls_chachapoly_auth_decrypt(&c->chacha, m->len,
		    m->nonce, m->add, m->add_len, m->tag, in, to);
	return mbedtls_gcm_auth_decrypt(&c->gcm, m->len, m->nonce,
	    m->nonce_len, m->add, m->add_len, m->tag, m->tag_len, in, to);
}

static void
start_any(struct context *c, int decrypts)
{
	const struct message *m = &message;

	assert_int_equal(m->bits == 0 ?
	    mbedtls_chachapoly_starts(&c->chacha, m->nonce, decrypts ?
	    MBEDTLS_CHACHAPOLY_DECRYPT : MBEDTLS_CHACHAPOLY_ENCRYPT) :
	    mbedtls_gcm_starts(&c->gcm, decrypts ? MBEDTLS_GCM_DECRYPT :
	    MBEDTLS_GCM_ENCRYPT, m->nonce, m->nonce_len), 0);
}

static void
add_any(struct context *c, const unsigned char *add, size_t n)
{
	assert_int_equal(message.bits == 0 ?
	    mbedtls_chachapoly_update_aad(&c->chacha, add, n) :
	    mbedtls_gcm_update_ad(&c->gcm, add, n), 0);
}

static void
update_any(struct context *c, const unsigned char *in, unsigned char *to,
    size_t n)
{
	size_t done = n;

	assert_int_equal(message.bits == 0 ?
	    mbedtls_chachapoly_update(&c->chacha, n, in, to) :
	    mbedtls_gcm_update(&c->gcm, in, n, to, n, &done), 0);
	assert_int_equal(done, n);
}

static void
finish_any(struct context *c, unsigned char *tag)
{
	size_t n = 0;

	assert_int_equal(message.bits == 0 ?
	    mbedtls_chachapoly_finish(&c->chacha, tag) :
	    mbedtls_gcm_finish(&c->gcm, NULL, 0, &n, tag, message.tag_len), 0);
	assert_int_equal(n, 0);
}

static void
clear_room(const unsigned char *in)
{
	memset(room, 0xa5, sizeof(room));
	if (in != NULL && message.len > 0)
		memcpy(out, in, message.len);
}

/* What is out is this, and around it nothing has changed. */
static void
check_out(const unsigned char *expected)
{
	size_t i;

	assert_memory_equal(out, expected, message.len);
	for (i = 0; i < GUARD; i++) {
		assert_int_equal(room[i], 0xa5);
		assert_int_equal(out[message.len + i], 0xa5);
	}
}

/* The tag has the length that was asked for, and no more. */
static void
check_tag(const unsigned char *tag)
{
	size_t i;

	assert_memory_equal(tag, message.tag, message.tag_len);
	for (i = message.tag_len; i < 16 + 1; i++)
		assert_int_equal(tag[i], 0xa5);
}

/* Each message in this test, with a word if it was this one that failed. */
#define EACH(seed) \
	for (seed = first_seed(); (current = seed) < first_seed() + runs(); \
	    seed++)
static uint64_t current;

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value != NULL ? strtoull(value, NULL, 10) : otherwise;
}

static uint64_t
first_seed(void)
{
	return number("ACCEL_SEED", 1);
}

static uint64_t
runs(void)
{
	return number("ACCEL_RUNS", 3000);
}

#define TEST(name)	cmocka_unit_test_teardown(name, tell_seed)

static int
tell_seed(void **state)
{
	(void)state;
	if (current != 0 && current != first_seed() + runs())
		fprintf(stderr, "after ACCEL_SEED=%llu ACCEL_RUNS=1\n",
		    (unsigned long long)current);
	current = 0;
	return 0;
}

static void
test_whole(void **state)
{
	struct context c;
	unsigned char tag[16 + 1];
	uint64_t seed;

	(void)state;
	EACH(seed) {
		draw_message(seed);
		new_context(&c);

		clear_room(NULL);
		memset(tag, 0xa5, sizeof(tag));
		assert_int_equal(encrypt_any(&c, message.plain, out, tag), 0);
		check_out(message.cipher);
		check_tag(tag);

		clear_room(message.plain);
		memset(tag, 0xa5, sizeof(tag));
		assert_int_equal(encrypt_any(&c, out, out, tag), 0);
		check_out(message.cipher);
		check_tag(tag);

		clear_room(NULL);
		assert_int_equal(decrypt_any(&c, message.cipher, out), 0);
		check_out(message.plain);

		clear_room(message.cipher);
		assert_int_equal(decrypt_any(&c, out, out), 0);
		check_out(message.plain);
		free_context(&c);
	}
}

/* In pieces, some of them empty, with other messages of other keys between. */
static void
in_pieces(struct context *c, int decrypts, int in_place)
{
	const struct message *m = &message;
	const unsigned char *in = decrypts ? m->cipher : m->plain;
	unsigned char tag[16 + 1], other[64];
	struct context c2;
	size_t i, n, most = 1 + below(below(2) == 0 ? 40 : DATA_MAX);

	clear_room(in_place ? in : NULL);
	memset(tag, 0xa5, sizeof(tag));
	new_context(&c2);
	start_any(&c2, !decrypts);
	start_any(c, decrypts);
	for (i = 0; i < m->add_len || below(2) == 0; i += n) {
		n = below(most + 1) % (m->add_len - i + 1);
		add_any(c, n > 0 ? m->add + i : NULL, n);
	}
	for (i = 0; i < m->len || below(2) == 0; i += n) {
		n = below(most + 1) % (m->len - i + 1);
		update_any(c, in_place ? out + i : in + i, out + i, n);
		update_any(&c2, m->nonce, other, below(sizeof(other)));
	}
	finish_any(c, tag);
	check_out(decrypts ? m->plain : m->cipher);
	check_tag(tag);
	free_context(&c2);
}

static void
test_pieces(void **state)
{
	struct context c;
	uint64_t seed;

	(void)state;
	EACH(seed) {
		draw_message(seed);
		new_context(&c);
		in_pieces(&c, 0, below(2) == 0);
		in_pieces(&c, 1, below(2) == 0);
		free_context(&c);
	}
}

static void
flip(unsigned char *p, size_t n)
{
	p[below(n)] ^= (unsigned char)(1 << below(8));
}

/* Nothing that was changed is taken for genuine, and nothing of it is told. */
static void
test_wrong(void **state)
{
	static const unsigned char zeros[DATA_MAX];
	struct message *m = &message;
	struct context c;
	uint64_t seed;
	int what, in_place;

	(void)state;
	EACH(seed) {
		draw_message(seed);
		what = (int)below(5);
		if (what == 0 && m->len > 0)
			flip(m->cipher, m->len);
		else if (what == 1 && m->add_len > 0)
			flip(m->add, m->add_len);
		else if (what == 2)
			flip(m->nonce, m->nonce_len);
		else if (what == 3)
			flip(m->key, m->bits == 0 ? 32 : m->bits / 8);
		else
			flip(m->tag, m->tag_len);
		new_context(&c);
		in_place = below(2) == 0;
		clear_room(in_place ? m->cipher : NULL);
		assert_int_equal(decrypt_any(&c, in_place ? out : m->cipher,
		    out), m->bits == 0 ? MBEDTLS_ERR_CHACHAPOLY_AUTH_FAILED :
		    MBEDTLS_ERR_GCM_AUTH_FAILED);
		check_out(zeros);
		free_context(&c);
	}
}

/* One context, many keys and messages, some of them left unfinished. */
static void
test_again(void **state)
{
	struct context c = { { NULL }, { NULL } };
	unsigned char tag[16 + 1];
	uint64_t seed;

	(void)state;
	EACH(seed) {
		draw_message(seed);
		assert_int_equal(set_any_key(&c, &message), 0);
		if (below(2) == 0) {
			start_any(&c, (int)below(2));
			add_any(&c, message.add, message.add_len);
			update_any(&c, message.plain, out, below(message.len +
			    1));
		}
		clear_room(message.plain);
		memset(tag, 0xa5, sizeof(tag));
		assert_int_equal(encrypt_any(&c, out, out, tag), 0);
		check_out(message.cipher);
		check_tag(tag);
	}
	free_context(&c);
}

static void
test_gcm_lengths(void **state)
{
	static const unsigned char key[32];
	mbedtls_gcm_context c;
	unsigned char data[64] = { 0 }, tag[17];
	unsigned bits;
	size_t n;

	(void)state;
	mbedtls_gcm_init(&c);
	for (bits = 0; bits <= 512; bits++)
		assert_int_equal(mbedtls_gcm_setkey(&c, MBEDTLS_CIPHER_ID_AES,
		    key, bits), bits == 128 || bits == 192 || bits == 256 ? 0 :
		    MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_setkey(&c, MBEDTLS_CIPHER_ID_CAMELLIA, key,
	    128), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_setkey(&c, MBEDTLS_CIPHER_ID_AES, key,
	    128), 0);
	assert_int_equal(mbedtls_gcm_starts(&c, MBEDTLS_GCM_ENCRYPT, key, 0),
	    MBEDTLS_ERR_GCM_BAD_INPUT);
	for (n = 0; n <= 17; n++) {
		assert_int_equal(mbedtls_gcm_crypt_and_tag(&c,
		    MBEDTLS_GCM_ENCRYPT, 0, key, 12, NULL, 0, NULL, NULL, n,
		    tag), n >= 4 && n <= 16 ? 0 : MBEDTLS_ERR_GCM_BAD_INPUT);
		assert_int_equal(mbedtls_gcm_auth_decrypt(&c, 0, key, 12, NULL,
		    0, tag, n, NULL, NULL), n >= 4 && n <= 16 ? 0 :
		    MBEDTLS_ERR_GCM_BAD_INPUT);
	}
	assert_int_equal(mbedtls_gcm_starts(&c, MBEDTLS_GCM_ENCRYPT, key, 12),
	    0);
	assert_int_equal(mbedtls_gcm_update(&c, data, 17, data, 16, &n),
	    MBEDTLS_ERR_GCM_BUFFER_TOO_SMALL);
	assert_int_equal(mbedtls_gcm_update(&c, data, 17, data + 1, 17, &n),
	    MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_update(&c, data + 16, 17, data, 17, &n),
	    MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_update(&c, data + 17, 17, data, 17, &n),
	    0);
	mbedtls_gcm_free(&c);
}

/* More than a nonce is good for; none of it is ever read. */
static void
test_too_long(void **state)
{
	static const unsigned char key[32];
	static unsigned char data[16];
	const size_t max = MESSAGE_MAX;
	struct context c = { { NULL }, { NULL } };
	size_t n;

	(void)state;
	assert_int_equal(mbedtls_gcm_setkey(&c.gcm, MBEDTLS_CIPHER_ID_AES, key,
	    128), 0);
	assert_int_equal(mbedtls_gcm_starts(&c.gcm, MBEDTLS_GCM_ENCRYPT, key,
	    max + 1), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_starts(&c.gcm, MBEDTLS_GCM_ENCRYPT, key,
	    12), 0);
	assert_int_equal(mbedtls_gcm_update_ad(&c.gcm, data, max + 1),
	    MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_update(&c.gcm, data, 16, data, 16, &n), 0);
	assert_int_equal(mbedtls_gcm_update(&c.gcm, data, max - 15, data,
	    max - 15, &n), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_gcm_update(&c.gcm, data, SIZE_MAX, data,
	    SIZE_MAX, &n), MBEDTLS_ERR_GCM_BAD_INPUT);
	assert_int_equal(mbedtls_chachapoly_setkey(&c.chacha, key), 0);
	assert_int_equal(mbedtls_chachapoly_starts(&c.chacha, key,
	    MBEDTLS_CHACHAPOLY_ENCRYPT), 0);
	assert_int_equal(mbedtls_chachapoly_update(&c.chacha, SIZE_MAX, data,
	    data), MBEDTLS_ERR_CHACHAPOLY_BAD_STATE);
	free_context(&c);
}

/* No message but between starts and finish, and additional data first. */
static void
test_gcm_order(void **state)
{
	static const unsigned char key[32];
	const int bad = MBEDTLS_ERR_GCM_BAD_INPUT;
	unsigned char data[16] = { 0 }, tag[16];
	mbedtls_gcm_context c;
	size_t n;
	int turn;

	(void)state;
	mbedtls_gcm_init(&c);
	assert_int_equal(mbedtls_gcm_starts(&c, MBEDTLS_GCM_ENCRYPT, key, 12),
	    bad);
	for (turn = 0; turn < 3; turn++) {
		assert_int_equal(mbedtls_gcm_update_ad(&c, data, 1), bad);
		assert_int_equal(mbedtls_gcm_update(&c, data, 1, data, 1, &n),
		    bad);
		assert_int_equal(mbedtls_gcm_finish(&c, NULL, 0, &n, tag, 16),
		    bad);
		assert_int_equal(mbedtls_gcm_setkey(&c, MBEDTLS_CIPHER_ID_AES,
		    key, 256), 0);
		if (turn == 0)
			continue;
		assert_int_equal(mbedtls_gcm_starts(&c, MBEDTLS_GCM_ENCRYPT,
		    key, 12), 0);
		assert_int_equal(mbedtls_gcm_update_ad(&c, data, 1), 0);
		assert_int_equal(mbedtls_gcm_update(&c, NULL, 0, NULL, 0, &n),
		    0);
		assert_int_equal(mbedtls_gcm_update_ad(&c, data, 1), 0);
		assert_int_equal(mbedtls_gcm_update(&c, data, 1, data, 1, &n),
		    0);
		assert_int_equal(mbedtls_gcm_update_ad(&c, data, 1), bad);
		assert_int_equal(mbedtls_gcm_finish(&c, NULL, 0, &n, tag, 16),
		    0);
	}
	mbedtls_gcm_free(&c);
	mbedtls_gcm_free(&c);
	mbedtls_gcm_free(NULL);
}

static void
test_chachapoly_order(void **state)
{
	static const unsigned char key[32];
	const int bad = MBEDTLS_ERR_CHACHAPOLY_BAD_STATE;
	unsigned char data[16] = { 0 }, tag[16];
	mbedtls_chachapoly_context c;
	int turn;

	(void)state;
	mbedtls_chachapoly_init(&c);
	assert_int_equal(mbedtls_chachapoly_starts(&c, key,
	    MBEDTLS_CHACHAPOLY_ENCRYPT), bad);
	for (turn = 0; turn < 3; turn++) {
		assert_int_equal(mbedtls_chachapoly_update_aad(&c, data, 1),
		    bad);
		assert_int_equal(mbedtls_chachapoly_update(&c, 1, data, data),
		    bad);
		assert_int_equal(mbedtls_chachapoly_finish(&c, tag), bad);
		assert_int_equal(mbedtls_chachapoly_setkey(&c, key), 0);
		if (turn == 0)
			continue;
		assert_int_equal(mbedtls_chachapoly_starts(&c, key,
		    MBEDTLS_CHACHAPOLY_DECRYPT), 0);
		assert_int_equal(mbedtls_chachapoly_update_aad(&c, NULL, 0), 0);
		assert_int_equal(mbedtls_chachapoly_update(&c, 0, NULL, NULL),
		    0);
		assert_int_equal(mbedtls_chachapoly_update_aad(&c, data, 1),
		    bad);
		assert_int_equal(mbedtls_chachapoly_finish(&c, tag), 0);
	}
	mbedtls_chachapoly_free(&c);
	mbedtls_chachapoly_free(&c);
	mbedtls_chachapoly_free(NULL);
}

/* A key is gone when it is replaced, and when its context is freed. */
static void
test_wiped(void **state)
{
	struct context c;
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 16; seed++) {
		draw_message(seed);
		new_context(&c);
		world.secret = message.key;
		world.frees = 0;
		assert_int_equal(set_any_key(&c, &message), 0);
		free_context(&c);
		assert_int_equal(world.frees, 2);
		world.secret = NULL;
	}
}

static void
test_no_memory(void **state)
{
	struct context c = { { NULL }, { NULL } };
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 16; seed++) {
		draw_message(seed);
		world.no_memory = 1;
		assert_int_equal(set_any_key(&c, &message),
		    MBEDTLS_ERR_CIPHER_ALLOC_FAILED);
		world.no_memory = 0;
		assert_int_equal(set_any_key(&c, &message), 0);
		world.no_memory = 1;
		assert_int_equal(encrypt_any(&c, message.plain, out,
		    message.tag), MBEDTLS_ERR_CIPHER_ALLOC_FAILED);
		world.no_memory = 0;
		free_context(&c);
	}
}

/*
 * The first of all tests: while the library does not start there are no keys,
 * and once it has, nothing is asked of it again.
 */
static void
test_start(void **state)
{
	struct context c = { { NULL }, { NULL } };
	uint64_t seed;

	(void)state;
	for (seed = 1; seed <= 16; seed++) {
		draw_message(seed);
		world.no_manager = seed % 3 == 0;
		world.manager_error = seed % 3 == 1;
		world.self_test_fails = seed % 3 == 2;
		assert_int_equal(set_any_key(&c, &message),
		    MBEDTLS_ERR_PLATFORM_HW_ACCEL_FAILED);
		assert_int_not_equal(encrypt_any(&c, message.plain, out,
		    message.tag), 0);
	}
	world.no_manager = world.manager_error = world.self_test_fails = 0;
	world.managers = world.managers_freed = 0;
	assert_int_equal(set_any_key(&c, &message), 0);
	assert_int_equal(world.managers, 1);
	world.no_manager = 1;
	assert_int_equal(set_any_key(&c, &message), 0);
	assert_int_equal(world.managers_freed, 1);
	world.no_manager = 0;
	free_context(&c);
}

/* With what the library has for CPUs that know less than this may. */
static int
run_messages(const char *name, init_mb_mgr_t init)
{
	const struct CMUnitTest tests[] = {
		TEST(test_whole),
		TEST(test_pieces),
		TEST(test_wrong),
		TEST(test_again),
	};

	world.init = init;
	imb.loaded = 0;
	if (load() != 0) {
		printf("%s: not on this CPU\n", name);
		return init == NULL;
	}
	return cmocka_run_group_tests_name(name, tests, NULL, NULL);
}

int
main(void)
{
	const struct CMUnitTest contracts[] = {
		TEST(test_start),
		TEST(test_gcm_lengths),
		TEST(test_too_long),
		TEST(test_gcm_order),
		TEST(test_chachapoly_order),
		TEST(test_wiped),
		TEST(test_no_memory),
	};

	return cmocka_run_group_tests(contracts, NULL, NULL) +
	    run_messages("automatic", NULL) +
	    run_messages("SSE", init_mb_mgr_sse) +
	    run_messages("AVX2", init_mb_mgr_avx2) +
	    (__builtin_cpu_supports("avx512f") ?
	    run_messages("AVX512", init_mb_mgr_avx512) : 0);
}
