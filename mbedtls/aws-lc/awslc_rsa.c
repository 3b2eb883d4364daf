/*
 * RSA signatures.
 *
 * Parsing a private key, checking it and preparing it for use costs more than a
 * signature.  So keep keys that have signed, until awslc_forget_key() or until
 * KEPT_MAX others have signed.  No lock: only for programs with one thread.
 */
#include <openssl/crypto.h>
#include <openssl/digest.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>

#include <awslc_internal.h>

#define KEPT_MAX	64
#define SALT_RECOVERED	(-2)		/* of RSA_verify_pss_mgf1() */

/* A key of PSA.  PSA may reuse its id for another key, so der is compared. */
static struct kept {
	RSA	*rsa;			/* NULL: empty */
	mbedtls_svc_key_id_t id;
	uint8_t	*der;
	size_t	 size;
} kept[KEPT_MAX];

static size_t oldest;			/* index, once kept is full */

/* AWS-LC clears what it frees. */
static void
forget(struct kept *k)
{
	RSA_free(k->rsa);
	OPENSSL_free(k->der);
	*k = (struct kept){ .rsa = NULL };
}

void
awslc_forget_key(mbedtls_svc_key_id_t id)
{
	size_t i;

	for (i = 0; i < KEPT_MAX; i++)
		if (kept[i].rsa != NULL &&
		    mbedtls_svc_key_id_equal(kept[i].id, id))
			forget(&kept[i]);
}

void
awslc_transparent_free(void)
{
	size_t i;

	for (i = 0; i < KEPT_MAX; i++)
		forget(&kept[i]);
}

/* Keep a key; without memory, do nothing. */
static void
keep(mbedtls_svc_key_id_t id, RSA *rsa, const uint8_t *der, size_t size)
{
	struct kept *k = kept;

	awslc_forget_key(id);
	while (k < kept + KEPT_MAX && k->rsa != NULL)
		k++;
	if (k == kept + KEPT_MAX) {
		k = &kept[oldest];
		oldest = (oldest + 1) % KEPT_MAX;
		forget(k);
	}
	if ((k->der = OPENSSL_memdup(der, size)) == NULL) {
		ERR_clear_error();
		return;
	}
	RSA_up_ref(rsa);
	k->rsa = rsa;
	k->id = id;
	k->size = size;
}

/* Return the private key, to be freed by RSA_free(), or NULL. */
static RSA *
private_key(mbedtls_svc_key_id_t id, const uint8_t *der, size_t size)
{
	struct kept *k;
	RSA *rsa;

	for (k = kept; k < kept + KEPT_MAX; k++)
		if (k->rsa != NULL && mbedtls_svc_key_id_equal(k->id, id) &&
		    k->size == size && CRYPTO_memcmp(k->der, der, size) == 0) {
			RSA_up_ref(k->rsa);
			return k->rsa;
		}
	if ((rsa = RSA_private_key_from_bytes(der, size)) != NULL)
		keep(id, rsa, der, size);
	return rsa;
}

/*
 * Return the hash function, and its NID for PKCS #1 v1.5.  NULL: leave it to
 * mbed TLS, for example PSS with a key too short for a salt of the hash's size.
 */
static const EVP_MD *
hash_of(psa_algorithm_t alg, size_t hash_size, size_t key_bits, int *nid)
{
	const EVP_MD *md = NULL;

	switch (PSA_ALG_SIGN_GET_HASH(alg)) {
	case PSA_ALG_SHA_256:
		*nid = NID_sha256;
		md = EVP_sha256();
		break;
	case PSA_ALG_SHA_384:
		*nid = NID_sha384;
		md = EVP_sha384();
		break;
	case PSA_ALG_SHA_512:
		*nid = NID_sha512;
		md = EVP_sha512();
		break;
	}
	if (md == NULL || hash_size != EVP_MD_size(md))
		return NULL;
	if (PSA_ALG_IS_RSA_PSS(alg))
		return key_bits >= 8 * (2 * hash_size + 2) ? md : NULL;
	return PSA_ALG_IS_RSA_PKCS1V15_SIGN(alg) ? md : NULL;
}

psa_status_t
awslc_rsa_sign(const psa_key_attributes_t *attributes, const uint8_t *key,
    size_t key_size, psa_algorithm_t alg, const uint8_t *hash,
    size_t hash_size, uint8_t *signature, size_t signature_size,
    size_t *signature_length)
{
	size_t bits = psa_get_key_bits(attributes);
	int nid, ok;
	const EVP_MD *md = hash_of(alg, hash_size, bits, &nid);
	unsigned size = 0;
	RSA *rsa;

	if (md == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if (signature_size < PSA_BITS_TO_BYTES(bits))
		return PSA_ERROR_BUFFER_TOO_SMALL;
	rsa = private_key(psa_get_key_id(attributes), key, key_size);
	if (rsa == NULL)	/* mbed TLS may accept it */
		return awslc_failed(PSA_ERROR_NOT_SUPPORTED);
	if (PSA_ALG_IS_RSA_PSS(alg))
		ok = RSA_sign_pss_mgf1(rsa, signature_length, signature,
		    signature_size, hash, hash_size, md, md,
		    RSA_PSS_SALTLEN_DIGEST);
	else {
		ok = RSA_sign(nid, hash, hash_size, signature, &size, rsa);
		*signature_length = size;
	}
	RSA_free(rsa);
	return ok ? PSA_SUCCESS : awslc_failed(PSA_ERROR_GENERIC_ERROR);
}

psa_status_t
awslc_rsa_verify(const psa_key_attributes_t *attributes, const uint8_t *key,
    size_t key_size, psa_algorithm_t alg, const uint8_t *hash,
    size_t hash_size, const uint8_t *signature, size_t signature_size)
{
	int nid, ok;
	const EVP_MD *md = hash_of(alg, hash_size,
	    psa_get_key_bits(attributes), &nid);
	RSA *rsa;

	if (md == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if ((rsa = RSA_public_key_from_bytes(key, key_size)) == NULL)
		return awslc_failed(PSA_ERROR_NOT_SUPPORTED);
	if (PSA_ALG_IS_RSA_PSS(alg))
		ok = RSA_verify_pss_mgf1(rsa, hash, hash_size, md, md,
		    PSA_ALG_IS_RSA_PSS_ANY_SALT(alg) ? SALT_RECOVERED :
		    RSA_PSS_SALTLEN_DIGEST, signature, signature_size);
	else
		ok = RSA_verify(nid, hash, hash_size, signature,
		    signature_size, rsa);
	RSA_free(rsa);
	return ok ? PSA_SUCCESS : awslc_failed(PSA_ERROR_INVALID_SIGNATURE);
}
