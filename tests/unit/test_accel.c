/*
 * Unit tests of the driver by which AWS-LC works for mbed TLS: its entry points
 * against OpenSSL, on keys and messages that are drawn anew from a seed.  Its
 * libcrypto has AWS-LC's names, so it is loaded where none of these is seen.
 *
 * ACCEL_RUNS	how many messages (2000), and keys, a hundredth of that
 * ACCEL_SEED	the seed of the first (1), printed by a run that fails
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <awslc_driver.h>
#include <mbedtls/gcm.h>
#include <mbedtls/psa_util.h>

#define DATA_MAX	(16384 + 1)
#define ADD_MAX		600
#define TAG_SIZE	16
#define GUARD		32
#define POINT_MAX	(1 + 2 * 66)	/* of P-521 */
#define KEY_MAX		2400		/* RSA's, of 4096 bits, in DER */
#define RSA_MIN		2048
#define LEN(a)		(sizeof(a) / sizeof((a)[0]))

/*
 * What is used of OpenSSL, as its headers declare it, with one pointer for all
 * its types.
 */
#define OPENSSL(X) \
	X(void *, EVP_CIPHER_CTX_new, (void)) \
	X(void, EVP_CIPHER_CTX_free, (void *)) \
	X(int, EVP_CIPHER_CTX_ctrl, (void *, int, int, void *)) \
	X(void *, EVP_aes_128_gcm, (void)) \
	X(void *, EVP_aes_256_gcm, (void)) \
	X(void *, EVP_chacha20_poly1305, (void)) \
	X(int, EVP_EncryptInit_ex, (void *, void *, void *, \
	    const unsigned char *, const unsigned char *)) \
	X(int, EVP_EncryptUpdate, (void *, unsigned char *, int *, \
	    const unsigned char *, int)) \
	X(int, EVP_EncryptFinal_ex, (void *, unsigned char *, int *)) \
	X(void *, EVP_PKEY_Q_keygen, (void *, const char *, const char *, \
	    ...)) \
	X(int, EVP_PKEY_get_raw_private_key, (void *, unsigned char *, \
	    size_t *)) \
	X(int, EVP_PKEY_get_bn_param, (void *, const char *, void **)) \
	X(int, BN_bn2binpad, (const void *, unsigned char *, int)) \
	X(void, BN_free, (void *)) \
	X(int, EVP_PKEY_get_octet_string_param, (void *, const char *, \
	    unsigned char *, size_t, size_t *)) \
	X(int, i2d_PrivateKey, (void *, unsigned char **)) \
	X(int, i2d_PublicKey, (void *, unsigned char **)) \
	X(void, EVP_PKEY_free, (void *)) \
	X(void *, EVP_PKEY_CTX_new, (void *, void *)) \
	X(void, EVP_PKEY_CTX_free, (void *)) \
	X(int, EVP_PKEY_CTX_ctrl_str, (void *, const char *, const char *)) \
	X(int, EVP_PKEY_sign_init, (void *)) \
	X(int, EVP_PKEY_sign, (void *, unsigned char *, size_t *, \
	    const unsigned char *, size_t)) \
	X(int, EVP_PKEY_verify_init, (void *)) \
	X(int, EVP_PKEY_verify, (void *, const unsigned char *, size_t, \
	    const unsigned char *, size_t)) \
	X(int, EVP_PKEY_derive_init, (void *)) \
	X(int, EVP_PKEY_derive_set_peer, (void *, void *)) \
	X(int, EVP_PKEY_derive, (void *, unsigned char *, size_t *))

#define MEMBER(type, name, args) type (*name) args;
static struct { OPENSSL(MEMBER) } ossl;

#define AEAD_SET_IVLEN	0x9		/* as evp.h has them */
#define AEAD_GET_TAG	0x10

static int
load_openssl(void **state)
{
	void *lib = dlopen("libcrypto.so.3", RTLD_NOW | RTLD_LOCAL);

	(void)state;
	assert_non_null(lib);
#define LOAD(type, name, args) \
	*(void **)&ossl.name = dlsym(lib, #name); assert_non_null(ossl.name);
	OPENSSL(LOAD)
	assert_int_equal(psa_crypto_init(), PSA_SUCCESS);
	return 0;
}

/* A seeded generator: splitmix64. */
static uint64_t rnd, current, last;

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
		n = edges[below(LEN(edges))] + below(3) - 1;
	return n > max ? below(max + 1) : n;
}

static uint64_t
number(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name);

	return value != NULL ? strtoull(value, NULL, 10) : otherwise;
}

/* Each seed of so many, with a word if it was this one that failed. */
#define EACH(n) \
	for (current = rnd = number("ACCEL_SEED", 1), last = current + (n); \
	    current < last; rnd = ++current)
#define RUNS	number("ACCEL_RUNS", 2000)
#define SEEDED(test) cmocka_unit_test_teardown(test, tell_seed)

static int
tell_seed(void **state)
{
	(void)state;
	if (current != last)
		fprintf(stderr, "after ACCEL_SEED=%llu\n",
		    (unsigned long long)current);
	return 0;
}

static psa_key_attributes_t
attributes_of(psa_key_type_t type, size_t bits)
{
	psa_key_attributes_t attr = psa_key_attributes_init();

	psa_set_key_type(&attr, type);
	psa_set_key_bits(&attr, bits);
	return attr;
}

/* A message, and what OpenSSL makes of it, with its tag behind. */
static struct message {
	psa_key_attributes_t attr;
	psa_algorithm_t	 alg;
	size_t		 key_len, add_len, len;
	unsigned char	 key[32], nonce[12], add[ADD_MAX], plain[DATA_MAX],
			 cipher[DATA_MAX + TAG_SIZE];
} m;

static void
openssl_encrypts(void *cipher)
{
	void *ctx = ossl.EVP_CIPHER_CTX_new();
	int n;

	assert_true(ossl.EVP_EncryptInit_ex(ctx, cipher, NULL, m.key,
	    m.nonce));
	if (m.add_len > 0)
		assert_true(ossl.EVP_EncryptUpdate(ctx, NULL, &n, m.add,
		    (int)m.add_len));
	if (m.len > 0)
		assert_true(ossl.EVP_EncryptUpdate(ctx, m.cipher, &n, m.plain,
		    (int)m.len));
	assert_true(ossl.EVP_EncryptFinal_ex(ctx, m.cipher + m.len, &n));
	assert_true(ossl.EVP_CIPHER_CTX_ctrl(ctx, AEAD_GET_TAG, TAG_SIZE,
	    m.cipher + m.len));
	ossl.EVP_CIPHER_CTX_free(ctx);
}

static void
draw_message(void)
{
	int kind = (int)below(3);

	m.key_len = kind == 0 ? 16 : 32;
	m.alg = kind == 2 ? PSA_ALG_CHACHA20_POLY1305 : PSA_ALG_GCM;
	m.attr = attributes_of(kind == 2 ? PSA_KEY_TYPE_CHACHA20 :
	    PSA_KEY_TYPE_AES, 8 * m.key_len);
	m.add_len = draw_size(ADD_MAX);
	m.len = draw_size(DATA_MAX);
	fill(m.key, sizeof(m.key));
	fill(m.nonce, sizeof(m.nonce));
	fill(m.add, m.add_len);
	fill(m.plain, m.len);
	openssl_encrypts(kind == 0 ? ossl.EVP_aes_128_gcm() : kind == 1 ?
	    ossl.EVP_aes_256_gcm() : ossl.EVP_chacha20_poly1305());
}

static psa_status_t
encrypt(const unsigned char *in, unsigned char *out, size_t size, size_t *len)
{
	return awslc_transparent_aead_encrypt(&m.attr, m.key, m.key_len, m.alg,
	    m.nonce, sizeof(m.nonce), m.add, m.add_len, in, m.len, out, size,
	    len);
}

static psa_status_t
decrypt(const unsigned char *in, unsigned char *out, size_t size, size_t *len)
{
	return awslc_transparent_aead_decrypt(&m.attr, m.key, m.key_len, m.alg,
	    m.nonce, sizeof(m.nonce), m.add, m.add_len, in, m.len + TAG_SIZE,
	    out, size, len);
}

/* Between two guards. */
static unsigned char room[GUARD + DATA_MAX + TAG_SIZE + GUARD];
static unsigned char *const out = room + GUARD;

static void
put(const unsigned char *p, size_t n)
{
	memset(room, 0xa5, sizeof(room));
	if (p != NULL)
		memcpy(out, p, n);
}

static void
assert_out(const unsigned char *expected, size_t n)
{
	size_t i;

	assert_memory_equal(out, expected, n);
	for (i = 0; i < GUARD; i++)
		assert_true(room[i] == 0xa5 && out[n + i] == 0xa5);
}

static void
test_aead(void **state)
{
	size_t sealed, len;

	(void)state;
	EACH(RUNS) {
		draw_message();
		sealed = m.len + TAG_SIZE;

		put(NULL, 0);
		assert_int_equal(encrypt(m.plain, out, sealed, &len), 0);
		assert_int_equal(len, sealed);
		assert_out(m.cipher, sealed);
		put(m.plain, m.len);
		assert_int_equal(encrypt(out, out, sealed, &len), 0);
		assert_out(m.cipher, sealed);

		put(NULL, 0);
		assert_int_equal(decrypt(m.cipher, out, m.len, &len), 0);
		assert_int_equal(len, m.len);
		assert_out(m.plain, m.len);
		put(m.cipher, sealed);
		assert_int_equal(decrypt(out, out, m.len, &len), 0);
		assert_memory_equal(out, m.plain, m.len);
	}
}

/* Nothing of what it decrypted is to be seen where a bit is wrong. */
static void
test_aead_altered(void **state)
{
	static unsigned char bad[DATA_MAX + TAG_SIZE];
	size_t at, len, i;

	(void)state;
	EACH(RUNS) {
		draw_message();
		at = below(3);
		memcpy(bad, m.cipher, m.len + TAG_SIZE);
		if (at == 0 && m.add_len > 0)
			m.add[below(m.add_len)] ^= (unsigned char)(1 <<
			    below(8));
		else if (at == 1)
			m.nonce[below(12)] ^= (unsigned char)(1 << below(8));
		else
			bad[below(m.len + TAG_SIZE)] ^= (unsigned char)(1 <<
			    below(8));
		put(NULL, 0);
		assert_int_equal(decrypt(bad, out, m.len, &len),
		    PSA_ERROR_INVALID_SIGNATURE);
		for (i = 0; i < m.len; i++)
			assert_true(out[i] == 0 || out[i] == 0xa5);
	}
}

/* No room, less than a tag, and what is mbed TLS's to do. */
static void
test_aead_limits(void **state)
{
	size_t len;

	(void)state;
	rnd = 1;
	draw_message();
	assert_int_equal(encrypt(m.plain, out, m.len + TAG_SIZE - 1, &len),
	    PSA_ERROR_BUFFER_TOO_SMALL);
	if (m.len > 0)
		assert_int_equal(decrypt(m.cipher, out, m.len - 1, &len),
		    PSA_ERROR_BUFFER_TOO_SMALL);
	assert_int_equal(awslc_transparent_aead_decrypt(&m.attr, m.key,
	    m.key_len, m.alg, m.nonce, sizeof(m.nonce), NULL, 0, m.cipher,
	    TAG_SIZE - 1, out, 1, &len), PSA_ERROR_INVALID_SIGNATURE);
	psa_set_key_bits(&m.attr, 192);
	m.alg = PSA_ALG_CCM;
	assert_int_equal(encrypt(m.plain, out, DATA_MAX, &len),
	    PSA_ERROR_NOT_SUPPORTED);
}

/* The curves, as PSA and OpenSSL have them. */
static const struct curve {
	psa_ecc_family_t family;
	size_t		 bits;
	const char	*type, *name;
} curves[] = {
	{ PSA_ECC_FAMILY_SECP_R1, 256, "EC", "P-256" },
	{ PSA_ECC_FAMILY_SECP_R1, 384, "EC", "P-384" },
	{ PSA_ECC_FAMILY_SECP_R1, 521, "EC", "P-521" },
	{ PSA_ECC_FAMILY_MONTGOMERY, 255, "X25519", NULL },
};

/* A key that OpenSSL has made. */
struct pair {
	void		*key;
	psa_key_attributes_t attr, public_attr;
	unsigned char	 own[KEY_MAX], public[KEY_MAX];
	size_t		 own_len, public_len;
};

static void
new_curve_pair(struct pair *p, const struct curve *c)
{
	void *n = NULL;

	p->key = ossl.EVP_PKEY_Q_keygen(NULL, NULL, c->type, c->name);
	assert_non_null(p->key);
	p->attr = attributes_of(PSA_KEY_TYPE_ECC_KEY_PAIR(c->family), c->bits);
	p->public_attr = attributes_of(PSA_KEY_TYPE_ECC_PUBLIC_KEY(c->family),
	    c->bits);
	p->own_len = PSA_BITS_TO_BYTES(c->bits);
	if (c->name == NULL) {
		assert_true(ossl.EVP_PKEY_get_raw_private_key(p->key, p->own,
		    &p->own_len));
		p->own[0] &= 248;	/* RFC 7748, section 5: as PSA has it */
		p->own[31] &= 127;
		p->own[31] |= 64;
	} else {
		assert_true(ossl.EVP_PKEY_get_bn_param(p->key, "priv", &n));
		assert_int_equal(ossl.BN_bn2binpad(n, p->own,
		    (int)p->own_len), p->own_len);
		ossl.BN_free(n);
	}
	assert_true(ossl.EVP_PKEY_get_octet_string_param(p->key, "pub",
	    p->public, sizeof(p->public), &p->public_len));
}

static void
new_rsa_pair(struct pair *p, size_t bits)
{
	unsigned char *at = p->own;

	p->key = ossl.EVP_PKEY_Q_keygen(NULL, NULL, "RSA", bits);
	assert_non_null(p->key);
	p->attr = attributes_of(PSA_KEY_TYPE_RSA_KEY_PAIR, bits);
	p->public_attr = attributes_of(PSA_KEY_TYPE_RSA_PUBLIC_KEY, bits);
	p->own_len = (size_t)ossl.i2d_PrivateKey(p->key, &at);
	at = p->public;
	p->public_len = (size_t)ossl.i2d_PublicKey(p->key, &at);
}

static void
test_agreement(void **state)
{
	unsigned char ours[66], theirs[66];
	size_t ours_len, theirs_len;
	struct pair a, b;
	size_t i;
	void *ctx;

	(void)state;
	EACH(RUNS / 100)
		for (i = 0; i < LEN(curves); i++) {
			new_curve_pair(&a, &curves[i]);
			new_curve_pair(&b, &curves[i]);
			theirs_len = sizeof(theirs);
			ctx = ossl.EVP_PKEY_CTX_new(b.key, NULL);
			assert_true(ossl.EVP_PKEY_derive_init(ctx) == 1 &&
			    ossl.EVP_PKEY_derive_set_peer(ctx, a.key) == 1 &&
			    ossl.EVP_PKEY_derive(ctx, theirs, &theirs_len) ==
			    1);
			ossl.EVP_PKEY_CTX_free(ctx);
			assert_int_equal(awslc_transparent_key_agreement(
			    &a.attr, a.own, a.own_len, PSA_ALG_ECDH, b.public,
			    b.public_len, ours, sizeof(ours), &ours_len), 0);
			assert_int_equal(ours_len, theirs_len);
			assert_memory_equal(ours, theirs, ours_len);
			ossl.EVP_PKEY_free(a.key);
			ossl.EVP_PKEY_free(b.key);
		}
}

/* Public keys, and private ones that are within their range. */
static void
test_keys(void **state)
{
	unsigned char public[POINT_MAX], own[66], other[66];
	struct pair p;
	size_t i, len;

	(void)state;
	for (i = 0; i < LEN(curves); i++) {
		new_curve_pair(&p, &curves[i]);
		assert_int_equal(awslc_transparent_export_public_key(&p.attr,
		    p.own, p.own_len, public, sizeof(public), &len), 0);
		assert_int_equal(len, p.public_len);
		assert_memory_equal(public, p.public, len);
		assert_int_equal(awslc_transparent_export_public_key(&p.attr,
		    p.own, p.own_len, public, len - 1, &len),
		    PSA_ERROR_BUFFER_TOO_SMALL);
		assert_int_equal(awslc_transparent_generate_key(&p.attr, own,
		    sizeof(own), &len), 0);
		assert_int_equal(len, p.own_len);
		assert_int_equal(awslc_transparent_generate_key(&p.attr,
		    other, sizeof(other), &len), 0);
		assert_memory_not_equal(own, other, len);
		assert_int_equal(awslc_transparent_generate_key(&p.attr, own,
		    p.own_len - 1, &len), PSA_ERROR_BUFFER_TOO_SMALL);
		ossl.EVP_PKEY_free(p.key);
	}
}

/* Points of small order give zeros, RFC 7748 section 6.1; others are none. */
static void
test_bad_peers(void **state)
{
	static const unsigned char order8[32] = { 0xe0, 0xeb, 0x7a, 0x7c, 0x3b,
	    0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
	    0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05,
	    0x16, 0x5f, 0x49, 0xb8, 0x00 };
	unsigned char bad[POINT_MAX] = { 0 }, secret[66];
	struct pair p;
	size_t i, len;

	(void)state;
#define AGREE(peer, n) awslc_transparent_key_agreement(&p.attr, p.own, \
	p.own_len, PSA_ALG_ECDH, peer, n, secret, sizeof(secret), &len)
	for (i = 0; i < LEN(curves); i++) {
		new_curve_pair(&p, &curves[i]);
		memset(bad, 0, sizeof(bad));
		assert_int_equal(AGREE(bad, p.public_len),
		    PSA_ERROR_INVALID_ARGUMENT);
		assert_int_equal(AGREE(p.public, p.public_len - 1),
		    PSA_ERROR_INVALID_ARGUMENT);
		assert_int_equal(AGREE(p.public, 0),
		    PSA_ERROR_INVALID_ARGUMENT);
		if (curves[i].name == NULL) {
			bad[0] = 1;
			assert_int_equal(AGREE(bad, 32),
			    PSA_ERROR_INVALID_ARGUMENT);
			assert_int_equal(AGREE(order8, sizeof(order8)),
			    PSA_ERROR_INVALID_ARGUMENT);
		} else {
			memcpy(bad, p.public, p.public_len);
			bad[p.public_len - 1] ^= 1;	/* not on the curve */
			assert_int_equal(AGREE(bad, p.public_len),
			    PSA_ERROR_INVALID_ARGUMENT);
			bad[0] = 2;			/* compressed */
			assert_int_equal(AGREE(bad, 1 + p.own_len),
			    PSA_ERROR_INVALID_ARGUMENT);
		}
		ossl.EVP_PKEY_free(p.key);
	}
}

/* A signature scheme: the algorithm of PSA, and the options of OpenSSL. */
struct scheme {
	psa_algorithm_t	 alg;
	size_t		 hash_len;
	const char	*md, *padding, *salt;	/* NULL: not RSA's */
};

static void *
openssl_ctx(void *key, const struct scheme *s, int (*init)(void *))
{
	void *ctx = ossl.EVP_PKEY_CTX_new(key, NULL);

	assert_int_equal(init(ctx), 1);
	if (s->padding != NULL)
		assert_true(ossl.EVP_PKEY_CTX_ctrl_str(ctx,
		    "rsa_padding_mode", s->padding) > 0);
	assert_true(ossl.EVP_PKEY_CTX_ctrl_str(ctx, "digest", s->md) > 0);
	if (s->salt != NULL)
		assert_true(ossl.EVP_PKEY_CTX_ctrl_str(ctx, "rsa_pss_saltlen",
		    s->salt) > 0);
	return ctx;
}

static psa_status_t
verify(const struct pair *p, const struct scheme *s, const unsigned char *hash,
    const unsigned char *sig, size_t len)
{
	return awslc_transparent_signature_verify_hash(&p->public_attr,
	    p->public, p->public_len, s->alg, hash, s->hash_len, sig, len);
}

/* Ours for OpenSSL, and OpenSSL's for us, whole and with a bit changed. */
static void
sign_both_ways(const struct pair *p, const struct scheme *s)
{
	unsigned char hash[64], sig[600], der[600];
	size_t bits = psa_get_key_bits(&p->attr), len, der_len, n;
	int is_ec = s->padding == NULL;
	void *ctx;

	fill(hash, sizeof(hash));
	assert_int_equal(awslc_transparent_signature_sign_hash(&p->attr,
	    p->own, p->own_len, s->alg, hash, s->hash_len, sig, sizeof(sig),
	    &len), 0);
	if (is_ec)
		assert_int_equal(mbedtls_ecdsa_raw_to_der(bits, sig, len, der,
		    sizeof(der), &der_len), 0);
	else
		memcpy(der, sig, der_len = len);
	ctx = openssl_ctx(p->key, s, ossl.EVP_PKEY_verify_init);
	assert_int_equal(ossl.EVP_PKEY_verify(ctx, der, der_len, hash,
	    s->hash_len), 1);
	ossl.EVP_PKEY_CTX_free(ctx);
	assert_int_equal(verify(p, s, hash, sig, len), 0);

	ctx = openssl_ctx(p->key, s, ossl.EVP_PKEY_sign_init);
	der_len = sizeof(der);
	assert_int_equal(ossl.EVP_PKEY_sign(ctx, der, &der_len, hash,
	    s->hash_len), 1);
	ossl.EVP_PKEY_CTX_free(ctx);
	if (is_ec)
		assert_int_equal(mbedtls_ecdsa_der_to_raw(bits, der, der_len,
		    sig, sizeof(sig), &len), 0);
	else
		memcpy(sig, der, len = der_len);
	assert_int_equal(verify(p, s, hash, sig, len), 0);
	n = below(len);
	sig[n] ^= (unsigned char)(1 << below(8));
	assert_int_equal(verify(p, s, hash, sig, len),
	    PSA_ERROR_INVALID_SIGNATURE);
	sig[n] = 0;
	assert_int_equal(verify(p, s, hash, sig, len - 1),
	    PSA_ERROR_INVALID_SIGNATURE);
	memset(sig, 0, len);
	assert_int_equal(verify(p, s, hash, sig, len),
	    PSA_ERROR_INVALID_SIGNATURE);
}

static void
test_ecdsa(void **state)
{
	static const struct scheme schemes[] = {
		{ PSA_ALG_ECDSA(PSA_ALG_SHA_256), 32, "sha256", NULL, NULL },
		{ PSA_ALG_ECDSA(PSA_ALG_SHA_384), 48, "sha384", NULL, NULL },
		{ PSA_ALG_ECDSA(PSA_ALG_SHA_512), 64, "sha512", NULL, NULL },
	};
	struct pair p;
	size_t i, j;

	(void)state;
	EACH(RUNS / 100)
		for (i = 0; i < 3; i++) {
			new_curve_pair(&p, &curves[i]);
			for (j = 0; j < LEN(schemes); j++)
				sign_both_ways(&p, &schemes[j]);
			ossl.EVP_PKEY_free(p.key);
		}
}

static const struct scheme rsa_schemes[] = {
	{ PSA_ALG_RSA_PSS(PSA_ALG_SHA_256), 32, "sha256", "pss", "digest" },
	{ PSA_ALG_RSA_PSS(PSA_ALG_SHA_384), 48, "sha384", "pss", "digest" },
	{ PSA_ALG_RSA_PSS(PSA_ALG_SHA_512), 64, "sha512", "pss", "digest" },
	{ PSA_ALG_RSA_PKCS1V15_SIGN(PSA_ALG_SHA_256), 32, "sha256", "pkcs1",
	    NULL },
	{ PSA_ALG_RSA_PKCS1V15_SIGN(PSA_ALG_SHA_384), 48, "sha384", "pkcs1",
	    NULL },
	{ PSA_ALG_RSA_PKCS1V15_SIGN(PSA_ALG_SHA_512), 64, "sha512", "pkcs1",
	    NULL },
};

static void
test_rsa(void **state)
{
	static const size_t sizes[] = { RSA_MIN, 3072, 4096 };
	struct pair p;
	size_t i, j, runs;

	(void)state;
	rnd = 1;
	for (i = 0; i < LEN(sizes); i++) {
		new_rsa_pair(&p, sizes[i]);
		for (runs = 0; runs < RUNS / 400; runs++)
			for (j = 0; j < LEN(rsa_schemes); j++)
				sign_both_ways(&p, &rsa_schemes[j]);
		ossl.EVP_PKEY_free(p.key);
	}
}

/* An id is given to another key, with and without a word; and many keys. */
static void
test_kept_keys(void **state)
{
	struct pair a, b;
	psa_key_id_t id;

	(void)state;
	rnd = 1;
	new_rsa_pair(&a, RSA_MIN);
	new_rsa_pair(&b, RSA_MIN);
	psa_set_key_id(&a.attr, 7);
	psa_set_key_id(&b.attr, 7);
	sign_both_ways(&a, &rsa_schemes[0]);
	sign_both_ways(&b, &rsa_schemes[0]);
	awslc_forget_key(7);
	sign_both_ways(&a, &rsa_schemes[0]);
	for (id = 8; id < 8 + 200; id++) {
		psa_set_key_id(&b.attr, id);
		sign_both_ways(&b, &rsa_schemes[3]);
	}
	sign_both_ways(&a, &rsa_schemes[0]);
	awslc_transparent_free();
	sign_both_ways(&a, &rsa_schemes[0]);
	ossl.EVP_PKEY_free(a.key);
	ossl.EVP_PKEY_free(b.key);
}

/* CPU time, in seconds. */
static double
seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The least of some, for so many signatures. */
static double
time_to_sign(const struct pair *p, int forgetting)
{
	unsigned char hash[32] = { 0 }, sig[512];
	double least = 1e9, t;
	size_t len;
	int i, n;

	for (i = 0; i < 5; i++) {
		t = seconds(CLOCK_PROCESS_CPUTIME_ID);
		for (n = 0; n < 10; n++) {
			awslc_transparent_signature_sign_hash(&p->attr,
			    p->own, p->own_len, rsa_schemes[0].alg, hash,
			    sizeof(hash), sig, sizeof(sig), &len);
			if (forgetting)
				awslc_forget_key(psa_get_key_id(&p->attr));
		}
		t = seconds(CLOCK_PROCESS_CPUTIME_ID) - t;
		least = t < least ? t : least;
	}
	return least;
}

static void
test_a_kept_key_signs_faster(void **state)
{
	double with, without;
	struct pair p;

	(void)state;
	new_rsa_pair(&p, RSA_MIN);
	psa_set_key_id(&p.attr, 7);
	without = time_to_sign(&p, 1);
	with = time_to_sign(&p, 0);
	print_message("RSA-2048: %.0f us, and %.0f if parsed each time\n",
	    1e5 * with, 1e5 * without);
	assert_true(with < 0.75 * without);
	ossl.EVP_PKEY_free(p.key);
}

/*
 * AWS-LC has to know what this CPU can do: without, it takes a third of mbed
 * TLS's time, which knows, and not a tenth.
 */
static void
test_speed(void **state)
{
	unsigned char key[16] = { 0 }, nonce[12] = { 0 }, tag[16];
	double own = 1e9, theirs = 1e9, t;
	mbedtls_gcm_context gcm;
	size_t len;
	int i, n;

	(void)state;
	m.attr = attributes_of(PSA_KEY_TYPE_AES, 128);
	m.alg = PSA_ALG_GCM;
	m.key_len = sizeof(key);
	m.add_len = 0;
	m.len = 16384;
	mbedtls_gcm_init(&gcm);
	assert_int_equal(mbedtls_gcm_setkey(&gcm, MBEDTLS_CIPHER_ID_AES, key,
	    128), 0);
	for (i = 0; i < 20; i++) {
		t = seconds(CLOCK_PROCESS_CPUTIME_ID);
		for (n = 0; n < 20; n++)
			encrypt(out, out, sizeof(room) - GUARD, &len);
		t = seconds(CLOCK_PROCESS_CPUTIME_ID) - t;
		theirs = t < theirs ? t : theirs;
		t = seconds(CLOCK_PROCESS_CPUTIME_ID);
		for (n = 0; n < 20; n++)
			mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT,
			    16384, nonce, sizeof(nonce), NULL, 0, out, out,
			    sizeof(tag), tag);
		t = seconds(CLOCK_PROCESS_CPUTIME_ID) - t;
		own = t < own ? t : own;
	}
	mbedtls_gcm_free(&gcm);
	print_message("AES-128-GCM, 16 KB: %.0f ns, mbed TLS's own %.0f ns\n",
	    5e7 * theirs, 5e7 * own);
	assert_true(theirs < own / 5);
}

/*
 * What children draw that have been forked from one state; one of them forks
 * on.  A key of X25519 is drawn as it is, and r of a signature is the nonce's.
 */
#define CHILDREN	64
#define DRAWN		(32 + 64)

static void
draw_secrets(unsigned char *p)
{
	psa_key_attributes_t x25519 = attributes_of(PSA_KEY_TYPE_ECC_KEY_PAIR(
	    PSA_ECC_FAMILY_MONTGOMERY), 255);
	psa_key_attributes_t p256 = attributes_of(PSA_KEY_TYPE_ECC_KEY_PAIR(
	    PSA_ECC_FAMILY_SECP_R1), 256);
	unsigned char own[32] = { 1 }, hash[32] = { 2 };
	size_t len;

	awslc_transparent_generate_key(&x25519, p, 32, &len);
	awslc_transparent_signature_sign_hash(&p256, own, sizeof(own),
	    PSA_ALG_ECDSA(PSA_ALG_SHA_256), hash, sizeof(hash), p + 32, 64,
	    &len);
}

static void
test_forked(void **state)
{
	static unsigned char drawn[2 * CHILDREN + 1][DRAWN];
	size_t i, j;
	int fd[2];

	(void)state;
	draw_secrets(drawn[0]);		/* there is a state to be copied */
	assert_int_equal(pipe(fd), 0);
	for (i = 0; i < CHILDREN; i++) {
		if (fork() == 0) {
			(void)fork();
			draw_secrets(drawn[1]);
			_exit(write(fd[1], drawn[1], DRAWN) != DRAWN);
		}
	}
	close(fd[1]);
	for (i = 1; i < LEN(drawn); i++)
		assert_int_equal(read(fd[0], drawn[i], DRAWN), DRAWN);
	while (wait(NULL) != -1)
		continue;
	close(fd[0]);
	for (i = 0; i < LEN(drawn); i++)
		for (j = 0; j < i; j++) {
			assert_memory_not_equal(drawn[i], drawn[j], 32);
			assert_memory_not_equal(drawn[i] + 32, drawn[j] + 32,
			    32);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		SEEDED(test_aead),
		SEEDED(test_aead_altered),
		cmocka_unit_test(test_aead_limits),
		SEEDED(test_agreement),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_bad_peers),
		SEEDED(test_ecdsa),
		cmocka_unit_test(test_rsa),
		cmocka_unit_test(test_kept_keys),
		cmocka_unit_test(test_a_kept_key_signs_faster),
		cmocka_unit_test(test_speed),
		cmocka_unit_test(test_forked),
	};

	return cmocka_run_group_tests(tests, load_openssl, NULL);
}
