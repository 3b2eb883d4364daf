/*
 * X25519MLKEM768 where the program does not reach it yet: ML-KEM-768 itself,
 * and both roles of mbed TLS, one against the other in memory.  It needs the
 * library with a client, and AWS-LC: tests/build/test_hybrid.py builds it.
 *
 *	hybrid CERT		the tests, with that file's key and certificate
 *	hybrid HOST PORT GROUPS	a handshake; GROUPS: their numbers
 */
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include <openssl/digest.h>
#include <openssl/evp.h>
#include <openssl/experimental/kem_deterministic_api.h>
#include <openssl/nid.h>

#include <mbedtls/mlkem768.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>

#define EK	MBEDTLS_MLKEM768_EK_LEN
#define DK	MBEDTLS_MLKEM768_DK_LEN
#define CT	MBEDTLS_MLKEM768_CT_LEN
#define SS	MBEDTLS_MLKEM768_SS_LEN
#define HYBRID	MBEDTLS_SSL_IANA_TLS_GROUP_X25519MLKEM768
#define X25519	MBEDTLS_SSL_IANA_TLS_GROUP_X25519
#define P256	MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1
#define ALERT	21
#define LEN(a)	(sizeof(a) / sizeof((a)[0]))
#define ILLEGAL	47			/* illegal_parameter */

/*
 * ML-KEM-768
 */

/* FIPS 203, algorithm 16, by AWS-LC; the seed is d and z. */
static void
keygen_from(const uint8_t seed[64], uint8_t ek[EK], uint8_t dk[DK])
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_KEM, NULL);
	EVP_PKEY *key = NULL;
	size_t n = 64, nek = EK, ndk = DK;

	assert_true(EVP_PKEY_CTX_kem_set_params(ctx, NID_MLKEM768) &&
	    EVP_PKEY_keygen_init(ctx) &&
	    EVP_PKEY_keygen_deterministic(ctx, &key, seed, &n) &&
	    EVP_PKEY_get_raw_public_key(key, ek, &nek) &&
	    EVP_PKEY_get_raw_private_key(key, dk, &ndk));
	EVP_PKEY_free(key);
	EVP_PKEY_CTX_free(ctx);
}

/* Algorithm 17. */
static void
encaps_from(const uint8_t m[32], const uint8_t ek[EK], uint8_t ct[CT],
    uint8_t ss[SS])
{
	EVP_PKEY *key = EVP_PKEY_kem_new_raw_public_key(NID_MLKEM768, ek, EK);
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	size_t nct = CT, nss = SS, n = 32;

	assert_true(EVP_PKEY_encapsulate_deterministic(ctx, ct, &nct, ss, &nss,
	    m, &n));
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
}

static void
assert_digest(const uint8_t *p, size_t len, const char *hex)
{
	uint8_t digest[32];
	char text[65];
	unsigned i, n;

	assert_true(EVP_Digest(p, len, digest, &n, EVP_sha3_256(), NULL));
	for (i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", digest[i]);
	assert_string_equal(text, hex);
}

/* NIST's ACVP, ML-KEM-keyGen-FIPS203, the first of ML-KEM-768. */
static void
test_keygen(void **state)
{
	static const uint8_t seed[64] = {
		0xe3, 0x4a, 0x70, 0x1c, 0x4c, 0x87, 0x58, 0x2f,
		0x42, 0x26, 0x4e, 0xe4, 0x22, 0xd3, 0xc6, 0x84,
		0xd9, 0x76, 0x11, 0xf2, 0x52, 0x3e, 0xfe, 0x0c,
		0x99, 0x8a, 0xf0, 0x50, 0x56, 0xd6, 0x93, 0xdc,
		0xa8, 0x57, 0x68, 0xf3, 0x48, 0x6b, 0xd3, 0x2a,
		0x01, 0xbf, 0x9a, 0x8f, 0x21, 0xea, 0x93, 0x8e,
		0x64, 0x8e, 0xae, 0x4e, 0x54, 0x48, 0xc3, 0x4c,
		0x3e, 0xb8, 0x88, 0x20, 0xb1, 0x59, 0xee, 0xdd,
	};
	uint8_t ek[EK], dk[DK];

	(void)state;
	keygen_from(seed, ek, dk);
	assert_digest(ek, EK, "e29020839d052fa372585627f8b59ee3"
	    "12ae414c979d825f06a6929a79625718");
	assert_digest(dk, DK, "a4e8ba80bb7a745e936d47784c07ffa6"
	    "a314caf5a8deb4648c5c2d6ae930ebcd");
}

/*
 * What SHAKE128 of nothing gives are keys' seeds, secrets, and ciphertexts of
 * nobody; SHAKE128 of all that is made of 10,000 of them was published, by
 * those who test Go's.
 */
static void
test_accumulated(void **state)
{
	static const char known[] = "8a518cc63da366322a8e7a818c7a0d63"
	    "483cb3528d34a4cf42f35d5ad73f22fc";
	EVP_MD_CTX *in = EVP_MD_CTX_new(), *out = EVP_MD_CTX_new();
	uint8_t given[64 + 32 + CT], ek[EK], dk[DK], ct[CT], ss[SS], other[SS];
	char text[65];
	int i;

	(void)state;
	assert_true(EVP_DigestInit(in, EVP_shake128()) &&
	    EVP_DigestInit(out, EVP_shake128()));
	for (i = 0; i < 10000; i++) {
		assert_true(EVP_DigestSqueeze(in, given, sizeof(given)));
		keygen_from(given, ek, dk);
		encaps_from(given + 64, ek, ct, ss);
		assert_int_equal(mbedtls_mlkem768_decaps(other, ct, dk), 0);
		assert_memory_equal(other, ss, SS);
		assert_int_equal(mbedtls_mlkem768_decaps(other, given + 96,
		    dk), 0);
		assert_true(EVP_DigestUpdate(out, ek, EK) &&
		    EVP_DigestUpdate(out, ct, CT) &&
		    EVP_DigestUpdate(out, ss, SS) &&
		    EVP_DigestUpdate(out, other, SS));
	}
	assert_true(EVP_DigestFinalXOF(out, other, SS));
	for (i = 0; i < SS; i++)
		snprintf(text + 2 * i, 3, "%02x", other[i]);
	assert_string_equal(text, known);
	EVP_MD_CTX_free(in);
	EVP_MD_CTX_free(out);
}

/* With random numbers of its own; what was altered gives another secret. */
static void
test_round_trip(void **state)
{
	uint8_t ek[EK], dk[DK], ct[CT], again[CT], ss[SS], other[SS];
	size_t i;

	(void)state;
	assert_int_equal(mbedtls_mlkem768_keygen(ek, dk), 0);
	assert_int_equal(mbedtls_mlkem768_encaps(again, ss, ek), 0);
	for (i = 0; i < CT; i += 17) {
		assert_int_equal(mbedtls_mlkem768_encaps(ct, ss, ek), 0);
		assert_memory_not_equal(ct, again, CT);
		assert_int_equal(mbedtls_mlkem768_decaps(other, ct, dk), 0);
		assert_memory_equal(other, ss, SS);
		ct[i] ^= 1;
		assert_int_equal(mbedtls_mlkem768_decaps(other, ct, dk), 0);
		assert_memory_not_equal(other, ss, SS);
	}
}

/* FIPS 203, sections 7.2 and 7.3. */
static void
test_checks(void **state)
{
	uint8_t ek[EK], dk[DK], ct[CT], ss[SS];
	size_t i;

	(void)state;
	assert_int_equal(mbedtls_mlkem768_keygen(ek, dk), 0);
	assert_int_equal(mbedtls_mlkem768_encaps(ct, ss, ek), 0);
	for (i = 0; i < EK - 32; i += 3) {	/* two coefficients */
		uint8_t kept[3] = { ek[i], ek[i + 1], ek[i + 2] };

		ek[i] = 0x01;			/* 3329, the modulus */
		ek[i + 1] = (uint8_t)((kept[1] & 0xf0) | 0x0d);
		assert_int_equal(mbedtls_mlkem768_encaps(ct, ss, ek),
		    PSA_ERROR_INVALID_ARGUMENT);
		ek[i] = 0x00;			/* 3328 */
		ek[i + 2] = 0xff;
		ek[i + 1] = 0xfd;		/* 4095 is behind it */
		assert_int_equal(mbedtls_mlkem768_encaps(ct, ss, ek),
		    PSA_ERROR_INVALID_ARGUMENT);
		memcpy(ek + i, kept, 3);
	}
	assert_int_equal(mbedtls_mlkem768_encaps(ct, ss, ek), 0);
	dk[DK - 64] ^= 1;			/* the hash of ek */
	assert_int_not_equal(mbedtls_mlkem768_decaps(ss, ct, dk), 0);
}

/*
 * BOTH ROLES
 */

struct wire {
	unsigned char p[1 << 16];
	size_t	 at, end;
};

struct side {
	mbedtls_ssl_context ssl;
	mbedtls_ssl_config conf;
	uint16_t groups[4];
	struct wire *in, *out;
	int	 r;			/* how its handshake ended */
};

static mbedtls_x509_crt crt;
static mbedtls_pk_context key;
static struct wire to_server, to_client;
static struct side server, client;
/* Changes a record that the server sends, of *len bytes. */
static void	 (*tamper)(unsigned char *, size_t *);

static int
wire_send(void *arg, const unsigned char *p, size_t len)
{
	struct side *side = arg;
	struct wire *w = side->out;
	size_t n = len;

	assert_true(len + 16 <= sizeof(w->p) - w->end);
	memcpy(w->p + w->end, p, len);
	if (side == &server && tamper != NULL)
		tamper(w->p + w->end, &n);
	w->end += n;
	return (int)len;
}

static int
wire_recv(void *arg, unsigned char *p, size_t len)
{
	struct wire *w = ((struct side *)arg)->in;

	if (len > w->end - w->at)
		len = w->end - w->at;
	memcpy(p, w->p + w->at, len);
	w->at += len;
	return len == 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)len;
}

/* groups end with 0. */
static void
side_new(struct side *side, int endpoint, const uint16_t *groups)
{
	size_t i;

	mbedtls_ssl_init(&side->ssl);
	mbedtls_ssl_config_init(&side->conf);
	mbedtls_ssl_config_defaults(&side->conf, endpoint,
	    MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
	mbedtls_ssl_conf_rng(&side->conf, mbedtls_psa_get_random,
	    MBEDTLS_PSA_RANDOM_STATE);
	mbedtls_ssl_conf_authmode(&side->conf, MBEDTLS_SSL_VERIFY_NONE);
	for (i = 0; i < 4; i++)
		side->groups[i] = groups[i];
	mbedtls_ssl_conf_groups(&side->conf, side->groups);
	side->r = MBEDTLS_ERR_SSL_WANT_READ;
}

/* -1: there is no memory. */
static int
side_setup(struct side *side)
{
	if (mbedtls_ssl_setup(&side->ssl, &side->conf) != 0)
		return -1;
	mbedtls_ssl_set_bio(&side->ssl, side, wire_send, wire_recv, NULL);
	return side == &client ?
	    mbedtls_ssl_set_hostname(&side->ssl, "localhost") :
	    0;
}

static void
both_new(const uint16_t *theirs, const uint16_t *ours)
{
	to_server.at = to_server.end = to_client.at = to_client.end = 0;
	client.in = server.out = &to_client;
	client.out = server.in = &to_server;
	side_new(&server, MBEDTLS_SSL_IS_SERVER, theirs);
	side_new(&client, MBEDTLS_SSL_IS_CLIENT, ours);
	mbedtls_ssl_conf_own_cert(&server.conf, &crt, &key);
}

static void
both_free(void)
{
	mbedtls_ssl_free(&server.ssl);
	mbedtls_ssl_free(&client.ssl);
	mbedtls_ssl_config_free(&server.conf);
	mbedtls_ssl_config_free(&client.conf);
	tamper = NULL;
}

/* Until neither goes on. */
static void
handshake(void)
{
	size_t before;

	do {
		before = to_server.end + to_client.end;
		if (client.r == MBEDTLS_ERR_SSL_WANT_READ)
			client.r = mbedtls_ssl_handshake(&client.ssl);
		if (server.r == MBEDTLS_ERR_SSL_WANT_READ)
			server.r = mbedtls_ssl_handshake(&server.ssl);
	} while (before != to_server.end + to_client.end);
}

/* The group of the first ServerHello, or of a HelloRetryRequest. */
static int
first_group(void)
{
	unsigned char *p = to_client.p + 5 + 4 + 34, *end;

	p += 1 + p[0] + 3;
	end = p + 2 + (p[0] << 8 | p[1]);
	for (p += 2; p < end; p += 4 + (p[2] << 8 | p[3]))
		if (p[0] == 0 && p[1] == MBEDTLS_TLS_EXT_KEY_SHARE)
			return p[4] << 8 | p[5];
	return 0;
}

static void
assert_agreed(int group)
{
	char buf[8];

	handshake();
	assert_int_equal(client.r, 0);
	assert_int_equal(server.r, 0);
	assert_int_equal(first_group(), group);
	assert_int_equal(mbedtls_ssl_write(&client.ssl,
	    (const unsigned char *)"hello", 5), 5);
	assert_int_equal(mbedtls_ssl_read(&server.ssl, (unsigned char *)buf,
	    sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
}

static void
test_agreement(void **state)
{
	static const struct {
		uint16_t server[4], client[4];
		int	 group;
	} cases[] = {
		{ { HYBRID, X25519 }, { HYBRID, X25519 }, HYBRID },
		/* A client of mbed TLS sends a share for its first group, */
		{ { X25519, HYBRID }, { HYBRID, P256, X25519 }, X25519 },
		{ { X25519, HYBRID }, { HYBRID }, HYBRID },
		/* and of X25519 behind that one alone. */
		{ { HYBRID, X25519 }, { X25519, HYBRID }, X25519 },
		/* It is asked for another. */
		{ { HYBRID }, { X25519, HYBRID }, HYBRID },
		{ { HYBRID, P256 }, { X25519, P256, HYBRID }, HYBRID },
		{ { X25519 }, { HYBRID, X25519 }, X25519 },
		{ { P256 }, { HYBRID, P256 }, P256 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(cases); i++) {
		both_new(cases[i].server, cases[i].client);
		assert_true(side_setup(&server) == 0 &&
		    side_setup(&client) == 0);
		assert_agreed(cases[i].group);
		both_free();
	}
}

static void
test_none_in_common(void **state)
{
	(void)state;
	both_new((const uint16_t[4]){ X25519 }, (const uint16_t[4]){ HYBRID });
	assert_true(side_setup(&server) == 0 && side_setup(&client) == 0);
	handshake();
	assert_int_equal(server.r, MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE);
	both_free();
}

/*
 * A SERVER THAT DOES WRONG
 * The share in its hello, altered.
 */

static size_t flip;			/* which byte of it */

/* Where a share is in a ServerHello's record; NULL: it is no such. */
static unsigned char *
share_of(unsigned char *p, size_t len)
{
	unsigned char *q = p + 5 + 4 + 34, *end;

	if (p[0] != 22 || p[5] != MBEDTLS_SSL_HS_SERVER_HELLO || len < 1000)
		return NULL;
	q += 1 + q[0] + 3;
	end = q + 2 + (q[0] << 8 | q[1]);
	for (q += 2; q < end; q += 4 + (q[2] << 8 | q[3]))
		if (q[0] == 0 && q[1] == MBEDTLS_TLS_EXT_KEY_SHARE)
			return q + 8;
	return NULL;
}

static void
do_flip(unsigned char *p, size_t *len)
{
	unsigned char *share = share_of(p, *len);

	if (share != NULL)
		share[flip] ^= 1;
}

static void
do_zeros(unsigned char *p, size_t *len)
{
	unsigned char *share = share_of(p, *len);

	if (share != NULL)
		memset(share + CT, 0, 32);
}

/* A group that it was not asked for. */
static void
do_other_group(unsigned char *p, size_t *len)
{
	unsigned char *share = share_of(p, *len);

	if (share != NULL)
		share[-3] ^= 1;
}

static void
put_more(unsigned char *p, int more)
{
	int n = (p[0] << 8 | p[1]) + more;

	p[0] = (unsigned char)(n >> 8);
	p[1] = (unsigned char)n;
}

/* The share, and all that it is in, longer by so much. */
static void
resize(unsigned char *p, size_t *len, int more)
{
	unsigned char *share = share_of(p, *len), *exts = p + 5 + 4 + 34;
	size_t old = CT + 32;

	if (share == NULL)
		return;
	exts += 1 + exts[0] + 3;
	memmove(share + (int)old + more, share + old,
	    (size_t)(p + *len - share) - old);
	put_more(share - 2, more);
	put_more(share - 6, more);
	put_more(exts, more);
	put_more(p + 7, more);
	put_more(p + 3, more);
	*len = (size_t)((int)*len + more);
}

static void
do_shorten(unsigned char *p, size_t *len)
{
	resize(p, len, -1);
}

static void
do_lengthen(unsigned char *p, size_t *len)
{
	resize(p, len, 1);
}

static void
do_x25519_alone(unsigned char *p, size_t *len)
{
	resize(p, len, -CT);
}

static void
do_nothing_much(unsigned char *p, size_t *len)
{
	resize(p, len, -(CT + 31));
}

/* What the client tells it, in the clear, behind its hello. */
static int
last_alert(void)
{
	unsigned char *p = to_server.p, *end = to_server.p + to_server.end;
	int alert = 0;

	for (; p < end; p += 5 + (p[3] << 8 | p[4]))
		if (p[0] == ALERT)
			alert = p[6];
	return alert;
}

static void
meet(void (*how)(unsigned char *, size_t *))
{
	both_new((const uint16_t[4]){ HYBRID }, (const uint16_t[4]){ HYBRID });
	assert_true(side_setup(&server) == 0 && side_setup(&client) == 0);
	tamper = how;
	handshake();
}

static void
test_bad_answer(void **state)
{
	static void (*const ways[])(unsigned char *, size_t *) = {
		do_other_group, do_zeros, do_shorten, do_lengthen,
		do_x25519_alone, do_nothing_much,
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(ways); i++) {
		meet(ways[i]);
		assert_int_equal(client.r, MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER);
		assert_int_equal(last_alert(), ILLEGAL);
		both_free();
	}
}

/* Implicit rejection: nothing is wrong but the keys. */
static void
test_altered_answer(void **state)
{
	(void)state;
	for (flip = 0; flip < CT + 32; flip += 61) {
		meet(do_flip);
		assert_int_equal(client.r, MBEDTLS_ERR_SSL_INVALID_MAC);
		assert_int_not_equal(server.r, 0);
		both_free();
	}
}

/*
 * MEMORY
 * It is linked with --wrap=calloc,--wrap=free.
 */

static int left = -1;			/* that succeed; -1: all */
static struct {
	unsigned char *p;
	size_t	 size;
} keys[8];				/* of ML-KEM, allocated by mbed TLS */

void	*__real_calloc(size_t, size_t);
void	*__wrap_calloc(size_t, size_t);
void	 __real_free(void *);
void	 __wrap_free(void *);

static size_t
count_keys(size_t size)
{
	size_t i, n = 0;

	for (i = 0; i < LEN(keys); i++)
		n += keys[i].p != NULL && keys[i].size == size;
	return n;
}

void *
__wrap_calloc(size_t n, size_t size)
{
	void *p;
	size_t i;

	if (left == 0)
		return NULL;
	if (left > 0)
		left--;
	p = __real_calloc(n, size);
	if (n * size != EK && n * size != DK)
		return p;
	for (i = 0; i < LEN(keys) && keys[i].p != NULL; i++)
		continue;
	assert_true(i < LEN(keys));
	keys[i].p = p;
	keys[i].size = n * size;
	return p;
}

/* Of a key, nothing is left. */
void
__wrap_free(void *p)
{
	size_t i, j;

	for (i = 0; p != NULL && i < LEN(keys); i++)
		if (keys[i].p == p) {
			for (j = 0; j < keys[i].size; j++)
				assert_int_equal(keys[i].p[j], 0);
			keys[i].p = NULL;
		}
	__real_free(p);
}

/* No key is kept longer than it is needed. */
static void
test_keys_go(void **state)
{
	(void)state;
	both_new((const uint16_t[4]){ HYBRID }, (const uint16_t[4]){ HYBRID });
	assert_true(side_setup(&server) == 0 && side_setup(&client) == 0);
	assert_int_equal(mbedtls_ssl_handshake(&client.ssl),
	    MBEDTLS_ERR_SSL_WANT_READ);
	assert_int_equal(count_keys(DK), 1);
	while (count_keys(EK) == 0)
		assert_int_equal(mbedtls_ssl_handshake_step(&server.ssl), 0);
	assert_int_equal(mbedtls_ssl_handshake(&server.ssl),
	    MBEDTLS_ERR_SSL_WANT_READ);
	assert_int_equal(count_keys(EK), 0);
	assert_int_equal(mbedtls_ssl_handshake_step(&client.ssl), 0);
	assert_int_equal(count_keys(DK), 0);
	both_free();
	/* And where the handshake ends before that. */
	both_new((const uint16_t[4]){ HYBRID }, (const uint16_t[4]){ HYBRID });
	assert_true(side_setup(&server) == 0 && side_setup(&client) == 0);
	assert_int_equal(mbedtls_ssl_handshake(&client.ssl),
	    MBEDTLS_ERR_SSL_WANT_READ);
	while (count_keys(EK) == 0)
		assert_int_equal(mbedtls_ssl_handshake_step(&server.ssl), 0);
	both_free();
	assert_int_equal(count_keys(EK) + count_keys(DK), 0);
}

static void
test_no_memory(void **state)
{
	int i, done = 0;

	(void)state;
	for (i = 0; !done; i++) {
		both_new((const uint16_t[4]){ HYBRID },
		    (const uint16_t[4]){ X25519, HYBRID });
		left = i;
		if (side_setup(&server) == 0 && side_setup(&client) == 0) {
			handshake();
			done = client.r == 0 && server.r == 0;
		}
		left = -1;
		both_free();
		assert_true(i < 10000);
	}
	assert_true(i > 10);
}

/*
 * A HANDSHAKE WITH ANOTHER PROGRAM
 */

static int
net_send(void *arg, const unsigned char *p, size_t len)
{
	ssize_t n = send(*(int *)arg, p, len, MSG_NOSIGNAL);

	return n == -1 ? MBEDTLS_ERR_NET_SEND_FAILED : (int)n;
}

static int
net_recv(void *arg, unsigned char *p, size_t len)
{
	ssize_t n = recv(*(int *)arg, p, len, 0);

	return n == -1 ? MBEDTLS_ERR_NET_RECV_FAILED : (int)n;
}

static int
dial(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;
	int fd;

	if (getaddrinfo(host, port, &hints, &ai) != 0)
		return -1;
	fd = socket(ai->ai_family, ai->ai_socktype, ai->ai_protocol);
	if (fd != -1 && connect(fd, ai->ai_addr, ai->ai_addrlen) == -1)
		fd = -1;
	freeaddrinfo(ai);
	return fd;
}

static int
run_client(char **argv)
{
	unsigned char buf[64];
	uint16_t groups[4] = { 0 };
	char *p = argv[3];
	int fd = dial(argv[1], argv[2]), r, n = 0;

	while (*p != '\0' && n < 3)
		groups[n++] = (uint16_t)strtol(p + (*p == ','), &p, 0);
	side_new(&client, MBEDTLS_SSL_IS_CLIENT, groups);
	if (fd == -1 || side_setup(&client) == -1)
		return 1;
	mbedtls_ssl_set_bio(&client.ssl, &fd, net_send, net_recv, NULL);
	if ((r = mbedtls_ssl_handshake(&client.ssl)) == 0)
		r = mbedtls_ssl_write(&client.ssl,
		    (const unsigned char *)"hello\n", 6);
	if (r > 0)
		r = mbedtls_ssl_read(&client.ssl, buf, sizeof(buf));
	while (r == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
		r = mbedtls_ssl_read(&client.ssl, buf, sizeof(buf));
	printf("%d %.*s\n", r, r > 0 ? r : 0, (char *)buf);
	mbedtls_ssl_free(&client.ssl);
	mbedtls_ssl_config_free(&client.conf);
	return r > 0 ? 0 : 1;
}

static int
run_all(const char *cert)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keygen),
		cmocka_unit_test(test_accumulated),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_checks),
		cmocka_unit_test(test_agreement),
		cmocka_unit_test(test_none_in_common),
		cmocka_unit_test(test_bad_answer),
		cmocka_unit_test(test_altered_answer),
		cmocka_unit_test(test_keys_go),
		cmocka_unit_test(test_no_memory),
	};
	unsigned char pem[1 << 14] = "";	/* ends with 0 */
	FILE *fp = fopen(cert, "r");
	size_t n = fp == NULL ? 0 : fread(pem, 1, sizeof(pem) - 1, fp);
	int r;

	mbedtls_x509_crt_init(&crt);
	mbedtls_pk_init(&key);
	if (fp == NULL || fclose(fp) != 0 ||
	    mbedtls_x509_crt_parse(&crt, pem, n + 1) != 0 ||
	    mbedtls_pk_parse_key(&key, pem, n + 1, NULL, 0,
	    mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE) != 0) {
		fprintf(stderr, "hybrid: %s can't be used\n", cert);
		return 1;
	}
	r = cmocka_run_group_tests(tests, NULL, NULL);
	mbedtls_x509_crt_free(&crt);
	mbedtls_pk_free(&key);
	return r;
}

int
main(int argc, char **argv)
{
	if (psa_crypto_init() != PSA_SUCCESS)
		return 1;
	if (argc == 4)
		return run_client(argv);
	return argc == 2 ? run_all(argv[1]) : 2;
}
