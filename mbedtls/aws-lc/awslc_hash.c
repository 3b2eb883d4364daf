/*
 * The inner functions of mbed TLS's SHA-256, SHA-384 and SHA-512, by
 * MBEDTLS_SHA256_PROCESS_ALT and MBEDTLS_SHA512_PROCESS_ALT: so AWS-LC does all
 * hashing, with and without PSA.  The functions around them cost little, and a
 * PSA driver for hashes would need its own contexts in mbed TLS's headers.
 */
#include <string.h>

#include <openssl/mem.h>
#include <openssl/sha.h>

#include <mbedtls/sha256.h>
#include <mbedtls/sha512.h>

int
mbedtls_internal_sha256_process(mbedtls_sha256_context *ctx,
    const unsigned char data[SHA256_CBLOCK])
{
	SHA256_TransformBlocks(ctx->MBEDTLS_PRIVATE(state), data, 1);
	return 0;
}

int
mbedtls_internal_sha512_process(mbedtls_sha512_context *ctx,
    const unsigned char data[SHA512_CBLOCK])
{
	SHA512_CTX sha;		/* SHA512_Transform() uses only h */

	memcpy(sha.h, ctx->MBEDTLS_PRIVATE(state), sizeof(sha.h));
	SHA512_Transform(&sha, data);
	memcpy(ctx->MBEDTLS_PRIVATE(state), sha.h, sizeof(sha.h));
	OPENSSL_cleanse(sha.h, sizeof(sha.h));
	return 0;
}
