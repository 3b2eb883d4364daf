/* Start of the driver, dispatch of signatures, and the AEADs. */
#include <openssl/aead.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/mem.h>

#include <awslc_internal.h>

#define TAG_SIZE	16

psa_status_t
awslc_failed(psa_status_t status)
{
	uint32_t error = ERR_peek_last_error();

	ERR_clear_error();
	return ERR_GET_REASON(error) == ERR_R_MALLOC_FAILURE ?
	    PSA_ERROR_INSUFFICIENT_MEMORY : status;
}

const char *
awslc_version(void)
{
	return AWSLC_VERSION_NAME " " AWSLC_VERSION_NUMBER_STRING;
}

/*
 * This call makes the linker include AWS-LC's crypto.c, which detects the CPU's
 * features before main(): without that, AES is 12 times slower.
 */
psa_status_t
awslc_transparent_init(void)
{
	CRYPTO_pre_sandbox_init();
	return PSA_SUCCESS;
}

psa_status_t
awslc_transparent_signature_sign_hash(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, psa_algorithm_t alg,
    const uint8_t *hash, size_t hash_size, uint8_t *signature,
    size_t signature_size, size_t *signature_length)
{
	return psa_get_key_type(attributes) == PSA_KEY_TYPE_RSA_KEY_PAIR ?
	    awslc_rsa_sign(attributes, key, key_size, alg, hash, hash_size,
	    signature, signature_size, signature_length) :
	    awslc_ec_sign(attributes, key, key_size, alg, hash, hash_size,
	    signature, signature_size, signature_length);
}

/* Only public keys: mbed TLS verifies by a key pair. */
psa_status_t
awslc_transparent_signature_verify_hash(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, psa_algorithm_t alg,
    const uint8_t *hash, size_t hash_size, const uint8_t *signature,
    size_t signature_size)
{
	psa_key_type_t type = psa_get_key_type(attributes);

	if (!PSA_KEY_TYPE_IS_PUBLIC_KEY(type))
		return PSA_ERROR_NOT_SUPPORTED;
	return PSA_KEY_TYPE_IS_RSA(type) ?
	    awslc_rsa_verify(attributes, key, key_size, alg, hash, hash_size,
	    signature, signature_size) :
	    awslc_ec_verify(attributes, key, key_size, alg, hash, hash_size,
	    signature, signature_size);
}

/* Return AWS-LC's AEAD, or NULL: not supported. */
static const EVP_AEAD *
aead_of(const psa_key_attributes_t *attributes, psa_algorithm_t alg)
{
	psa_key_type_t type = psa_get_key_type(attributes);

	if (alg == PSA_ALG_GCM && type == PSA_KEY_TYPE_AES)
		switch (psa_get_key_bits(attributes)) {
		case 128:
			return EVP_aead_aes_128_gcm();
		case 256:
			return EVP_aead_aes_256_gcm();
		}
	if (alg == PSA_ALG_CHACHA20_POLY1305 && type == PSA_KEY_TYPE_CHACHA20)
		return EVP_aead_chacha20_poly1305();
	return NULL;
}

psa_status_t
awslc_transparent_aead_encrypt(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, psa_algorithm_t alg,
    const uint8_t *nonce, size_t nonce_size, const uint8_t *add,
    size_t add_size, const uint8_t *plain, size_t plain_size, uint8_t *cipher,
    size_t cipher_size, size_t *cipher_length)
{
	const EVP_AEAD *aead = aead_of(attributes, alg);
	EVP_AEAD_CTX ctx;
	size_t tag_size;
	int ok;

	if (aead == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if (cipher_size < TAG_SIZE || cipher_size - TAG_SIZE < plain_size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	if (!EVP_AEAD_CTX_init(&ctx, aead, key, key_size, TAG_SIZE, NULL))
		return awslc_failed(PSA_ERROR_INVALID_ARGUMENT);
	ok = EVP_AEAD_CTX_seal_scatter(&ctx, cipher, cipher + plain_size,
	    &tag_size, TAG_SIZE, nonce, nonce_size, plain, plain_size, NULL, 0,
	    add, add_size);
	EVP_AEAD_CTX_cleanup(&ctx);
	OPENSSL_cleanse(&ctx, sizeof(ctx));
	if (!ok)
		return awslc_failed(PSA_ERROR_INVALID_ARGUMENT);
	*cipher_length = plain_size + tag_size;
	return PSA_SUCCESS;
}

psa_status_t
awslc_transparent_aead_decrypt(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, psa_algorithm_t alg,
    const uint8_t *nonce, size_t nonce_size, const uint8_t *add,
    size_t add_size, const uint8_t *cipher, size_t cipher_size, uint8_t *plain,
    size_t plain_size, size_t *plain_length)
{
	const EVP_AEAD *aead = aead_of(attributes, alg);
	EVP_AEAD_CTX ctx;
	size_t size;
	int ok;

	if (aead == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if (cipher_size < TAG_SIZE)
		return PSA_ERROR_INVALID_SIGNATURE;
	size = cipher_size - TAG_SIZE;
	if (plain_size < size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	if (!EVP_AEAD_CTX_init(&ctx, aead, key, key_size, TAG_SIZE, NULL))
		return awslc_failed(PSA_ERROR_INVALID_ARGUMENT);
	ok = EVP_AEAD_CTX_open_gather(&ctx, plain, nonce, nonce_size, cipher,
	    size, cipher + size, TAG_SIZE, add, add_size);
	EVP_AEAD_CTX_cleanup(&ctx);
	OPENSSL_cleanse(&ctx, sizeof(ctx));
	if (!ok)
		return awslc_failed(PSA_ERROR_INVALID_SIGNATURE);
	*plain_length = size;
	return PSA_SUCCESS;
}
