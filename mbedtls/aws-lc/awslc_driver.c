/*
 * A transparent driver for PSA: ECDSA, ECDH, X25519 and RSA signatures, AES-GCM
 * and ChaCha20-Poly1305 by AWS-LC.  What it is not for is left to mbed TLS, by
 * PSA_ERROR_NOT_SUPPORTED.
 */
#include <string.h>

#include <openssl/aead.h>
#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdh.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/nid.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/digest.h>

#include <awslc_driver.h>

#define MAX 48

static int
is_x25519(awslc_attr a)
{
	return PSA_KEY_TYPE_IS_ECC(psa_get_key_type(a)) &&
	    PSA_KEY_TYPE_ECC_GET_FAMILY(psa_get_key_type(a)) ==
	    PSA_ECC_FAMILY_MONTGOMERY && psa_get_key_bits(a) == 255;
}

static const EC_GROUP *
group_of(awslc_attr a)
{
	if (!PSA_KEY_TYPE_IS_ECC(psa_get_key_type(a)) ||
	    PSA_KEY_TYPE_ECC_GET_FAMILY(psa_get_key_type(a)) !=
	    PSA_ECC_FAMILY_SECP_R1)
		return NULL;
	return psa_get_key_bits(a) == 256 ? EC_group_p256() :
	    psa_get_key_bits(a) == 384 ? EC_group_p384() : NULL;
}

/* What failed has left its reasons in a queue, which nobody reads. */
static psa_status_t
failed(psa_status_t status)
{
	ERR_clear_error();
	return status;
}

static EC_KEY *
private_key(const EC_GROUP *g, const uint8_t *d, size_t size)
{
	EC_KEY *key = EC_KEY_new();
	BIGNUM *n = BN_bin2bn(d, size, NULL);

	if (key == NULL || n == NULL || !EC_KEY_set_group(key, g) ||
	    !EC_KEY_set_private_key(key, n)) {
		EC_KEY_free(key);
		key = NULL;
	}
	BN_clear_free(n);
	return key;
}

psa_status_t
awslc_transparent_generate_key(awslc_attr a, uint8_t *key, size_t size, size_t *length)
{
	if (!is_x25519(a))
		return PSA_ERROR_NOT_SUPPORTED;
	if (size < 32)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	RAND_bytes(key, 32);
	key[0] &= 248; key[31] &= 127; key[31] |= 64;
	*length = 32;
	return PSA_SUCCESS;
}

psa_status_t
awslc_transparent_export_public_key(awslc_attr a, const uint8_t *key, size_t key_size,
    uint8_t *data, size_t size, size_t *length)
{
	const EC_GROUP *g = group_of(a);
	BIGNUM *n;
	EC_POINT *p;

	if (!PSA_KEY_TYPE_IS_KEY_PAIR(psa_get_key_type(a)))
		return PSA_ERROR_NOT_SUPPORTED;
	if (is_x25519(a)) {
		if (size < 32)
			return PSA_ERROR_BUFFER_TOO_SMALL;
		X25519_public_from_private(data, key);
		*length = 32;
		return PSA_SUCCESS;
	}
	if (g == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	n = BN_bin2bn(key, key_size, NULL);
	p = EC_POINT_new(g);
	*length = 0;
	if (n != NULL && p != NULL && EC_POINT_mul(g, p, n, NULL, NULL, NULL))
		*length = EC_POINT_point2oct(g, p, POINT_CONVERSION_UNCOMPRESSED,
		    data, size, NULL);
	BN_clear_free(n);
	EC_POINT_free(p);
	return *length == 0 ? failed(PSA_ERROR_BUFFER_TOO_SMALL) : PSA_SUCCESS;
}

psa_status_t
awslc_transparent_key_agreement(awslc_attr a, const uint8_t *key, size_t key_size,
    psa_algorithm_t alg, const uint8_t *peer, size_t peer_size, uint8_t *secret,
    size_t size, size_t *length)
{
	const EC_GROUP *g = group_of(a);
	EC_KEY *k;
	EC_POINT *p;
	int n = -1;

	if (!PSA_ALG_IS_ECDH(alg))
		return PSA_ERROR_NOT_SUPPORTED;
	if (is_x25519(a)) {
		if (peer_size != 32)
			return PSA_ERROR_INVALID_ARGUMENT;
		if (size < 32)
			return PSA_ERROR_BUFFER_TOO_SMALL;
		if (!X25519(secret, key, peer))
			return failed(PSA_ERROR_INVALID_ARGUMENT);
		*length = 32;
		return PSA_SUCCESS;
	}
	if (g == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if (size < key_size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	k = private_key(g, key, key_size);
	p = EC_POINT_new(g);
	if (k != NULL && p != NULL && peer_size > 0 && peer[0] == 4 &&
	    EC_POINT_oct2point(g, p, peer, peer_size, NULL))
		n = ECDH_compute_key(secret, key_size, p, k, NULL);
	EC_POINT_free(p);
	EC_KEY_free(k);
	if (n != (int)key_size)
		return failed(PSA_ERROR_INVALID_ARGUMENT);
	*length = key_size;
	return PSA_SUCCESS;
}

#if 1
static const EVP_MD *
md_of(psa_algorithm_t alg, int *nid)
{
	switch (PSA_ALG_SIGN_GET_HASH(alg)) {
	case PSA_ALG_SHA_256: *nid = NID_sha256; return EVP_sha256();
	case PSA_ALG_SHA_384: *nid = NID_sha384; return EVP_sha384();
	case PSA_ALG_SHA_512: *nid = NID_sha512; return EVP_sha512();
	default: return NULL;
	}
}

static psa_status_t
rsa_sign(const uint8_t *key, size_t key_size, psa_algorithm_t alg,
    const uint8_t *hash, size_t hash_size, uint8_t *sig, size_t size, size_t *length)
{
	int nid, ok = 0;
	unsigned n = 0;
	const EVP_MD *md = md_of(alg, &nid);
	RSA *rsa;

	if (md == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if ((rsa = RSA_private_key_from_bytes(key, key_size)) == NULL)
		return failed(PSA_ERROR_NOT_SUPPORTED);
	if (size < RSA_size(rsa))
		ok = -1;
	else if (PSA_ALG_IS_RSA_PSS(alg))
		ok = RSA_sign_pss_mgf1(rsa, length, sig, size, hash, hash_size, md, md, -1);
	else if (PSA_ALG_IS_RSA_PKCS1V15_SIGN(alg)) {
		ok = RSA_sign(nid, hash, hash_size, sig, &n, rsa);
		*length = n;
	}
	RSA_free(rsa);
	return ok == 1 ? PSA_SUCCESS : failed(ok == -1 ? PSA_ERROR_BUFFER_TOO_SMALL :
	    PSA_ERROR_HARDWARE_FAILURE);
}
#endif

psa_status_t
awslc_transparent_signature_sign_hash(awslc_attr a, const uint8_t *key, size_t key_size,
    psa_algorithm_t alg, const uint8_t *hash, size_t hash_size, uint8_t *sig,
    size_t size, size_t *length)
{
	const EC_GROUP *g = group_of(a);
	EC_KEY *k;
	ECDSA_SIG *s = NULL;
	int ok;

#if 1
	if (psa_get_key_type(a) == PSA_KEY_TYPE_RSA_KEY_PAIR)
		return rsa_sign(key, key_size, alg, hash, hash_size, sig, size, length);
#endif
	if (g == NULL || !PSA_ALG_IS_ECDSA(alg))
		return PSA_ERROR_NOT_SUPPORTED;
	if (size < 2 * key_size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	ok = (k = private_key(g, key, key_size)) != NULL &&
	    (s = ECDSA_do_sign(hash, hash_size, k)) != NULL &&
	    BN_bn2bin_padded(sig, key_size, ECDSA_SIG_get0_r(s)) &&
	    BN_bn2bin_padded(sig + key_size, key_size, ECDSA_SIG_get0_s(s));
	ECDSA_SIG_free(s);
	EC_KEY_free(k);
	if (!ok)
		return failed(PSA_ERROR_HARDWARE_FAILURE);
	*length = 2 * key_size;
	return PSA_SUCCESS;
}

psa_status_t
awslc_transparent_signature_verify_hash(awslc_attr a, const uint8_t *key, size_t key_size,
    psa_algorithm_t alg, const uint8_t *hash, size_t hash_size, const uint8_t *sig,
    size_t size)
{
	const EC_GROUP *g = group_of(a);
	size_t half = (psa_get_key_bits(a) + 7) / 8;
	EC_KEY *k;
	EC_POINT *p;
	ECDSA_SIG *s;
	BIGNUM *r, *t;
	psa_status_t status = PSA_ERROR_HARDWARE_FAILURE;

	if (g == NULL || !PSA_ALG_IS_ECDSA(alg) ||
	    PSA_KEY_TYPE_IS_KEY_PAIR(psa_get_key_type(a)))
		return PSA_ERROR_NOT_SUPPORTED;
	if (size != 2 * half)
		return PSA_ERROR_INVALID_SIGNATURE;
	k = EC_KEY_new();
	p = EC_POINT_new(g);
	s = ECDSA_SIG_new();
	r = BN_bin2bn(sig, half, NULL);
	t = BN_bin2bn(sig + half, half, NULL);
	if (k != NULL && p != NULL && EC_KEY_set_group(k, g) &&
	    EC_POINT_oct2point(g, p, key, key_size, NULL) &&
	    EC_KEY_set_public_key(k, p) && s != NULL && ECDSA_SIG_set0(s, r, t)) {
		r = t = NULL;
		status = ECDSA_do_verify(hash, hash_size, s, k) == 1 ?
		    PSA_SUCCESS : PSA_ERROR_INVALID_SIGNATURE;
	}
	BN_free(r);
	BN_free(t);
	ECDSA_SIG_free(s);
	EC_POINT_free(p);
	EC_KEY_free(k);
	return status == PSA_SUCCESS ? status : failed(status);
}

static const EVP_AEAD *
aead_of(awslc_attr a, psa_algorithm_t alg)
{
	if (alg == PSA_ALG_GCM && psa_get_key_type(a) == PSA_KEY_TYPE_AES)
		return psa_get_key_bits(a) == 128 ? EVP_aead_aes_128_gcm() :
		    psa_get_key_bits(a) == 256 ? EVP_aead_aes_256_gcm() : NULL;
	if (alg == PSA_ALG_CHACHA20_POLY1305 &&
	    psa_get_key_type(a) == PSA_KEY_TYPE_CHACHA20)
		return EVP_aead_chacha20_poly1305();
	return NULL;
}

psa_status_t
awslc_transparent_aead_encrypt(awslc_attr a, const uint8_t *key, size_t key_size,
    psa_algorithm_t alg, const uint8_t *nonce, size_t nonce_size,
    const uint8_t *ad, size_t ad_size, const uint8_t *in, size_t in_size,
    uint8_t *out, size_t size, size_t *length)
{
	const EVP_AEAD *aead = aead_of(a, alg);
	EVP_AEAD_CTX ctx;
	size_t n;
	int ok;

	if (aead == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if (size < in_size + 16)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	if (!EVP_AEAD_CTX_init(&ctx, aead, key, key_size, 16, NULL))
		return failed(PSA_ERROR_HARDWARE_FAILURE);
	ok = EVP_AEAD_CTX_seal_scatter(&ctx, out, out + in_size, &n, 16, nonce,
	    nonce_size, in, in_size, NULL, 0, ad, ad_size);
	EVP_AEAD_CTX_cleanup(&ctx);
	OPENSSL_cleanse(&ctx, sizeof(ctx));
	*length = in_size + 16;
	return ok ? PSA_SUCCESS : failed(PSA_ERROR_INVALID_ARGUMENT);
}

psa_status_t
awslc_transparent_aead_decrypt(awslc_attr a, const uint8_t *key, size_t key_size,
    psa_algorithm_t alg, const uint8_t *nonce, size_t nonce_size,
    const uint8_t *ad, size_t ad_size, const uint8_t *in, size_t in_size,
    uint8_t *out, size_t size, size_t *length)
{
	const EVP_AEAD *aead = aead_of(a, alg);
	EVP_AEAD_CTX ctx;
	int ok;

	if (aead == NULL)
		return PSA_ERROR_NOT_SUPPORTED;
	if (in_size < 16)
		return PSA_ERROR_INVALID_ARGUMENT;
	if (size < in_size - 16)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	if (!EVP_AEAD_CTX_init(&ctx, aead, key, key_size, 16, NULL))
		return failed(PSA_ERROR_HARDWARE_FAILURE);
	ok = EVP_AEAD_CTX_open_gather(&ctx, out, nonce, nonce_size, in,
	    in_size - 16, in + in_size - 16, 16, ad, ad_size);
	EVP_AEAD_CTX_cleanup(&ctx);
	OPENSSL_cleanse(&ctx, sizeof(ctx));
	*length = in_size - 16;
	return ok ? PSA_SUCCESS : failed(PSA_ERROR_INVALID_SIGNATURE);
}
