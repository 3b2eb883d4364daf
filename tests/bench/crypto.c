/*
 * crypto: what mbed TLS takes to encrypt and to decrypt records, and nothing
 * else: the bound that no server on it can be below.  In a line for each suite,
 * CPU seconds per GB: suite, encrypting, decrypting.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mbedtls/cipher.h>

#define RECORD		16384
#define TAG		16
#define HEADER		5

static const struct {
	const char *name;
	mbedtls_cipher_type_t type;
	int	 key_bits;
} suites[] = {
	{ "TLS_AES_256_GCM_SHA384", MBEDTLS_CIPHER_AES_256_GCM, 256 },
	{ "TLS_AES_128_GCM_SHA256", MBEDTLS_CIPHER_AES_128_GCM, 128 },
	{ "TLS_CHACHA20_POLY1305_SHA256", MBEDTLS_CIPHER_CHACHA20_POLY1305,
	    256 },
};

static double
cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int
crypt_once(mbedtls_cipher_context_t *ctx, int is_up)
{
	static const unsigned char nonce[12], header[HEADER];
	static unsigned char plain[RECORD + TAG], coded[RECORD + TAG];
	size_t n;

	if (is_up)
		return mbedtls_cipher_auth_decrypt_ext(ctx, nonce, 12, header,
		    HEADER, coded, sizeof(coded), plain, sizeof(plain), &n,
		    TAG);
	return mbedtls_cipher_auth_encrypt_ext(ctx, nonce, 12, header, HEADER,
	    plain, RECORD, coded, sizeof(coded), &n, TAG);
}

/* CPU seconds per GB. */
static double
measure(size_t suite, int is_up, double seconds)
{
	static const unsigned char key[32];
	const mbedtls_cipher_info_t *info =
	    mbedtls_cipher_info_from_type(suites[suite].type);
	mbedtls_cipher_context_t ctx;
	double began, took;
	unsigned n = 0;

	mbedtls_cipher_init(&ctx);
	if (info == NULL || mbedtls_cipher_setup(&ctx, info) != 0 ||
	    mbedtls_cipher_setkey(&ctx, key, suites[suite].key_bits,
	    MBEDTLS_ENCRYPT) != 0 || crypt_once(&ctx, 0) != 0)
		errx(1, "%s: not in this library", suites[suite].name);
	began = cpu_seconds();
	do {
		if (crypt_once(&ctx, is_up) != 0)
			errx(1, "%s: failed", suites[suite].name);
		n++;
	} while ((took = cpu_seconds() - began) < seconds);
	mbedtls_cipher_free(&ctx);
	return took / n / RECORD * 1e9;
}

int
main(int argc, char **argv)
{
	double seconds = argc == 2 ? strtod(argv[1], NULL) : 0.5;
	size_t i;

	for (i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
		printf("%s %.4f %.4f\n", suites[i].name,
		    measure(i, 0, seconds), measure(i, 1, seconds));
	return 0;
}
