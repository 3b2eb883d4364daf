/*
 * ML-KEM-768 for mbed TLS (mbedtls/mlkem768.h, of patches/97-x25519mlkem768) by
 * AWS-LC.  AWS-LC does the checks of FIPS 203, sections 7.2 and 7.3, except
 * those of lengths, and clears the memory that it frees.
 */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>

#include <mbedtls/mlkem768.h>

/* Free both, and empty the error queue, which is not used here. */
static psa_status_t
finish(EVP_PKEY *key, EVP_PKEY_CTX *ctx, psa_status_t status)
{
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(key);
	if (status != PSA_SUCCESS)
		ERR_clear_error();
	return status;
}

psa_status_t
mbedtls_mlkem768_keygen(uint8_t ek[MBEDTLS_MLKEM768_EK_LEN],
    uint8_t dk[MBEDTLS_MLKEM768_DK_LEN])
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_KEM, NULL);
	EVP_PKEY *key = NULL;
	size_t nek = MBEDTLS_MLKEM768_EK_LEN, ndk = MBEDTLS_MLKEM768_DK_LEN;
	int done;

	if (ctx == NULL)
		return finish(NULL, NULL, PSA_ERROR_INSUFFICIENT_MEMORY);
	done = EVP_PKEY_CTX_kem_set_params(ctx, NID_MLKEM768) &&
	    EVP_PKEY_keygen_init(ctx) && EVP_PKEY_keygen(ctx, &key) &&
	    EVP_PKEY_get_raw_public_key(key, ek, &nek) &&
	    EVP_PKEY_get_raw_private_key(key, dk, &ndk);
	return finish(key, ctx, done ? PSA_SUCCESS : PSA_ERROR_GENERIC_ERROR);
}

psa_status_t
mbedtls_mlkem768_encaps(uint8_t ct[MBEDTLS_MLKEM768_CT_LEN],
    uint8_t ss[MBEDTLS_MLKEM768_SS_LEN],
    const uint8_t ek[MBEDTLS_MLKEM768_EK_LEN])
{
	EVP_PKEY *key = EVP_PKEY_kem_new_raw_public_key(NID_MLKEM768, ek,
	    MBEDTLS_MLKEM768_EK_LEN);
	EVP_PKEY_CTX *ctx = key == NULL ? NULL : EVP_PKEY_CTX_new(key, NULL);
	size_t nct = MBEDTLS_MLKEM768_CT_LEN, nss = MBEDTLS_MLKEM768_SS_LEN;

	if (ctx == NULL)
		return finish(key, NULL, PSA_ERROR_INSUFFICIENT_MEMORY);
	/* This allocates no memory: a failure means an invalid key. */
	return finish(key, ctx, EVP_PKEY_encapsulate(ctx, ct, &nct, ss,
	    &nss) ? PSA_SUCCESS : PSA_ERROR_INVALID_ARGUMENT);
}

psa_status_t
mbedtls_mlkem768_decaps(uint8_t ss[MBEDTLS_MLKEM768_SS_LEN],
    const uint8_t ct[MBEDTLS_MLKEM768_CT_LEN],
    const uint8_t dk[MBEDTLS_MLKEM768_DK_LEN])
{
	EVP_PKEY *key = EVP_PKEY_kem_new_raw_secret_key(NID_MLKEM768, dk,
	    MBEDTLS_MLKEM768_DK_LEN);
	EVP_PKEY_CTX *ctx = key == NULL ? NULL : EVP_PKEY_CTX_new(key, NULL);
	size_t nss = MBEDTLS_MLKEM768_SS_LEN;

	if (ctx == NULL)
		return finish(key, NULL, PSA_ERROR_INSUFFICIENT_MEMORY);
	/* With our own key, a failure is not the peer's fault. */
	return finish(key, ctx, EVP_PKEY_decapsulate(ctx, ss, &nss, ct,
	    MBEDTLS_MLKEM768_CT_LEN) ? PSA_SUCCESS : PSA_ERROR_GENERIC_ERROR);
}
