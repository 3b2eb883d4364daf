/*
 * crypto: the time that mbed TLS needs only to encrypt and decrypt records, a
 * lower bound for any server that uses it.  It prints a line for each suite, in
 * CPU seconds per GB: suite, encryption, decryption.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mbedtls/cipher.h>
#include <psa/crypto.h>

#define RECORD		16384
#define TAG		16
#define HEADER		5

/* Use the API that mbed TLS uses for records: PSA, if built with it. */
#ifdef MBEDTLS_USE_PSA_CRYPTO
#define AES_GCM		PSA_KEY_TYPE_AES, PSA_ALG_GCM
#define CHACHA_POLY	PSA_KEY_TYPE_CHACHA20, PSA_ALG_CHACHA20_POLY1305
typedef mbedtls_svc_key_id_t cipher;
#else
#define AES_GCM		MBEDTLS_CIPHER_ID_AES, MBEDTLS_MODE_GCM
#define CHACHA_POLY	MBEDTLS_CIPHER_ID_CHACHA20, MBEDTLS_MODE_CHACHAPOLY
typedef mbedtls_cipher_context_t cipher;
#endif

static const struct suite {
	const char *name;
#ifdef MBEDTLS_USE_PSA_CRYPTO
	psa_key_type_t type;
	psa_algorithm_t mode;
#else
	mbedtls_cipher_id_t type;
	mbedtls_cipher_mode_t mode;
#endif
	int	 key_bits;
} suites[] = {
	{ "TLS_AES_256_GCM_SHA384", AES_GCM, 256 },
	{ "TLS_AES_128_GCM_SHA256", AES_GCM, 128 },
	{ "TLS_CHACHA20_POLY1305_SHA256", CHACHA_POLY, 256 },
};

static const unsigned char key[32], nonce[12], header[HEADER];
static unsigned char plain[RECORD + TAG], coded[RECORD + TAG];

static double
cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

#ifdef MBEDTLS_USE_PSA_CRYPTO

static int
begin(cipher *c, const struct suite *s)
{
	psa_key_attributes_t attr = psa_key_attributes_init();

	psa_set_key_type(&attr, s->type);
	psa_set_key_algorithm(&attr, s->mode);
	psa_set_key_usage_flags(&attr,
	    PSA_KEY_USAGE_ENCRYPT | PSA_KEY_USAGE_DECRYPT);
	return psa_crypto_init() == PSA_SUCCESS ? psa_import_key(&attr, key,
	    (size_t)s->key_bits / 8, c) : PSA_ERROR_BAD_STATE;
}

static int
crypt_once(cipher *c, const struct suite *s, int is_up)
{
	size_t n;

	return is_up ? psa_aead_decrypt(*c, s->mode, nonce, sizeof(nonce),
	    header, HEADER, coded, sizeof(coded), plain, sizeof(plain), &n) :
	    psa_aead_encrypt(*c, s->mode, nonce, sizeof(nonce), header, HEADER,
	    plain, RECORD, coded, sizeof(coded), &n);
}

static void
end(cipher *c)
{
	psa_destroy_key(*c);
}

#else

static int
begin(cipher *c, const struct suite *s)
{
	const mbedtls_cipher_info_t *info =
	    mbedtls_cipher_info_from_values(s->type, s->key_bits, s->mode);

	mbedtls_cipher_init(c);
	return info == NULL || mbedtls_cipher_setup(c, info) != 0 ||
	    mbedtls_cipher_setkey(c, key, s->key_bits, MBEDTLS_ENCRYPT) != 0;
}

static int
crypt_once(cipher *c, const struct suite *s, int is_up)
{
	size_t n;

	(void)s;
	return is_up ? mbedtls_cipher_auth_decrypt_ext(c, nonce,
	    sizeof(nonce), header, HEADER, coded, sizeof(coded), plain,
	    sizeof(plain), &n, TAG) : mbedtls_cipher_auth_encrypt_ext(c, nonce,
	    sizeof(nonce), header, HEADER, plain, RECORD, coded, sizeof(coded),
	    &n, TAG);
}

static void
end(cipher *c)
{
	mbedtls_cipher_free(c);
}

#endif

/* Measure the CPU seconds per GB. */
static double
measure(const struct suite *s, int is_up, double seconds)
{
	double began, took;
	unsigned n = 0;
	cipher c;

	if (begin(&c, s) != 0 || crypt_once(&c, s, 0) != 0)
		errx(1, "%s: not in this library", s->name);
	began = cpu_seconds();
	do {
		if (crypt_once(&c, s, is_up) != 0)
			errx(1, "%s: failed", s->name);
		n++;
	} while ((took = cpu_seconds() - began) < seconds);
	end(&c);
	return took / n / RECORD * 1e9;
}

int
main(int argc, char **argv)
{
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0.5;
	size_t i;

	for (i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
		printf("%s %.4f %.4f\n", suites[i].name,
		    measure(&suites[i], 0, seconds),
		    measure(&suites[i], 1, seconds));
	return 0;
}
