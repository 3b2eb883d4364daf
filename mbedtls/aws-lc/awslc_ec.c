/* Elliptic curves: ECDSA and ECDH on NIST curves, and X25519. */
#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdh.h>
#include <openssl/ecdsa.h>
#include <openssl/rand.h>

#include <awslc_internal.h>

#define UNCOMPRESSED	0x04		/* SEC 1, section 2.3.3 */

static int
is_x25519(const psa_key_attributes_t *attributes)
{
	psa_key_type_t type = psa_get_key_type(attributes);

	return PSA_KEY_TYPE_IS_ECC(type) &&
	    PSA_KEY_TYPE_ECC_GET_FAMILY(type) == PSA_ECC_FAMILY_MONTGOMERY &&
	    psa_get_key_bits(attributes) == 255;
}

/* Return AWS-LC's group, or NULL: not supported. */
static const EC_GROUP *
group_of(const psa_key_attributes_t *attributes)
{
	psa_key_type_t type = psa_get_key_type(attributes);

	if (!PSA_KEY_TYPE_IS_ECC(type) ||
	    PSA_KEY_TYPE_ECC_GET_FAMILY(type) != PSA_ECC_FAMILY_SECP_R1)
		return NULL;
	switch (psa_get_key_bits(attributes)) {
	case 256:
		return EC_group_p256();
	case 384:
		return EC_group_p384();
	case 521:
		return EC_group_p521();
	}
	return NULL;
}

/* Return a private key, to be freed by EC_KEY_free(), or NULL. */
static EC_KEY *
private_key(const EC_GROUP *group, const uint8_t *d, size_t size)
{
	EC_KEY *key = EC_KEY_new();
	BIGNUM *n = BN_bin2bn(d, size, NULL);

	if (key == NULL || n == NULL || !EC_KEY_set_group(key, group) ||
	    !EC_KEY_set_private_key(key, n)) {
		EC_KEY_free(key);
		key = NULL;
	}
	BN_clear_free(n);
	return key;
}

/*
 * Parse a point, to be freed by EC_POINT_free().  NULL: it is not on the curve,
 * or out of memory.
 */
static EC_POINT *
peers_point(const EC_GROUP *group, const uint8_t *p, size_t size)
{
	EC_POINT *point;

	if (size == 0 || p[0] != UNCOMPRESSED)
		return NULL;
	if ((point = EC_POINT_new(group)) == NULL ||
	    EC_POINT_oct2point(group, point, p, size, NULL))
		return point;
	EC_POINT_free(point);
	return NULL;
}

psa_status_t
awslc_transparent_generate_key(const psa_key_attributes_t *attributes,
    uint8_t *key, size_t key_size, size_t *key_length)
{
	const EC_GROUP *group = group_of(attributes);
	size_t size = PSA_BITS_TO_BYTES(psa_get_key_bits(attributes));
	BIGNUM *n;
	int ok;

	if (group == NULL && !is_x25519(attributes))
		return PSA_ERROR_NOT_SUPPORTED;
	if (key_size < size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	*key_length = size;
	if (group == NULL) {
		RAND_bytes(key, size);
		key[0] &= 248;		/* RFC 7748, section 5 */
		key[31] &= 127;
		key[31] |= 64;
		return PSA_SUCCESS;
	}
	ok = (n = BN_new()) != NULL &&
	    BN_rand_range_ex(n, 1, EC_GROUP_get0_order(group)) &&
	    BN_bn2bin_padded(key, size, n);
	BN_clear_free(n);
	return ok ? PSA_SUCCESS : awslc_failed(PSA_ERROR_GENERIC_ERROR);
}

psa_status_t
awslc_transparent_export_public_key(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, uint8_t *data, size_t data_size,
    size_t *data_length)
{
	const EC_GROUP *group = group_of(attributes);
	EC_POINT *point = NULL;
	BIGNUM *n = NULL;

	if (!PSA_KEY_TYPE_IS_KEY_PAIR(psa_get_key_type(attributes)) ||
	    (group == NULL && !is_x25519(attributes)))
		return PSA_ERROR_NOT_SUPPORTED;
	if (data_size < (group != NULL ? 1 + 2 * key_size : key_size))
		return PSA_ERROR_BUFFER_TOO_SMALL;
	if (group == NULL) {
		X25519_public_from_private(data, key);
		*data_length = key_size;
		return PSA_SUCCESS;
	}
	*data_length = 0;
	if ((n = BN_bin2bn(key, key_size, NULL)) != NULL &&
	    (point = EC_POINT_new(group)) != NULL &&
	    EC_POINT_mul(group, point, n, NULL, NULL, NULL))
		*data_length = EC_POINT_point2oct(group, point,
		    POINT_CONVERSION_UNCOMPRESSED, data, data_size, NULL);
	EC_POINT_free(point);
	BN_clear_free(n);
	return *data_length != 0 ? PSA_SUCCESS :
	    awslc_failed(PSA_ERROR_GENERIC_ERROR);
}

psa_status_t
awslc_transparent_key_agreement(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, psa_algorithm_t alg,
    const uint8_t *peer, size_t peer_size, uint8_t *secret, size_t secret_size,
    size_t *secret_length)
{
	const EC_GROUP *group = group_of(attributes);
	EC_POINT *point = NULL;
	EC_KEY *own = NULL;
	int ok;

	if (!PSA_ALG_IS_ECDH(alg) || (group == NULL && !is_x25519(attributes)))
		return PSA_ERROR_NOT_SUPPORTED;
	if (secret_size < key_size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	if (group == NULL)
		/* X25519() fails for a secret of zeros, RFC 7748 6.1. */
		ok = peer_size == X25519_PUBLIC_VALUE_LEN &&
		    X25519(secret, key, peer);
	else
		ok = (point = peers_point(group, peer, peer_size)) != NULL &&
		    (own = private_key(group, key, key_size)) != NULL &&
		    ECDH_compute_key(secret, key_size, point, own, NULL) ==
		    (int)key_size;
	EC_POINT_free(point);
	EC_KEY_free(own);
	if (!ok)
		return awslc_failed(PSA_ERROR_INVALID_ARGUMENT);
	*secret_length = key_size;
	return PSA_SUCCESS;
}

psa_status_t
awslc_ec_sign(const psa_key_attributes_t *attributes, const uint8_t *key,
    size_t key_size, psa_algorithm_t alg, const uint8_t *hash,
    size_t hash_size, uint8_t *signature, size_t signature_size,
    size_t *signature_length)
{
	const EC_GROUP *group = group_of(attributes);
	ECDSA_SIG *pair = NULL;
	EC_KEY *own;
	int ok;

	if (group == NULL || !PSA_ALG_IS_RANDOMIZED_ECDSA(alg))
		return PSA_ERROR_NOT_SUPPORTED;
	if (signature_size < 2 * key_size)
		return PSA_ERROR_BUFFER_TOO_SMALL;
	ok = (own = private_key(group, key, key_size)) != NULL &&
	    (pair = ECDSA_do_sign(hash, hash_size, own)) != NULL &&
	    BN_bn2bin_padded(signature, key_size, ECDSA_SIG_get0_r(pair)) &&
	    BN_bn2bin_padded(signature + key_size, key_size,
	    ECDSA_SIG_get0_s(pair));
	ECDSA_SIG_free(pair);
	EC_KEY_free(own);
	if (!ok)
		return awslc_failed(PSA_ERROR_GENERIC_ERROR);
	*signature_length = 2 * key_size;
	return PSA_SUCCESS;
}

/*
 * Parse r and s, of size bytes each, to be freed by ECDSA_SIG_free(); or NULL.
 */
static ECDSA_SIG *
signature_of(const uint8_t *p, size_t size)
{
	BIGNUM *r = BN_bin2bn(p, size, NULL), *s = BN_bin2bn(p + size, size,
	    NULL);
	ECDSA_SIG *pair = ECDSA_SIG_new();

	if (r != NULL && s != NULL && pair != NULL &&
	    ECDSA_SIG_set0(pair, r, s))
		return pair;
	BN_free(r);
	BN_free(s);
	ECDSA_SIG_free(pair);
	return NULL;
}

psa_status_t
awslc_ec_verify(const psa_key_attributes_t *attributes, const uint8_t *key,
    size_t key_size, psa_algorithm_t alg, const uint8_t *hash,
    size_t hash_size, const uint8_t *signature, size_t signature_size)
{
	const EC_GROUP *group = group_of(attributes);
	size_t size = PSA_BITS_TO_BYTES(psa_get_key_bits(attributes));
	psa_status_t r = PSA_ERROR_INVALID_ARGUMENT;
	EC_POINT *point = NULL;
	ECDSA_SIG *pair = NULL;
	EC_KEY *peers = NULL;

	if (group == NULL || !PSA_ALG_IS_ECDSA(alg))
		return PSA_ERROR_NOT_SUPPORTED;
	if (signature_size != 2 * size)
		return PSA_ERROR_INVALID_SIGNATURE;
	if ((point = peers_point(group, key, key_size)) != NULL &&
	    (peers = EC_KEY_new()) != NULL && EC_KEY_set_group(peers, group) &&
	    EC_KEY_set_public_key(peers, point) &&
	    (pair = signature_of(signature, size)) != NULL)
		r = ECDSA_do_verify(hash, hash_size, pair, peers) == 1 ?
		    PSA_SUCCESS : PSA_ERROR_INVALID_SIGNATURE;
	EC_POINT_free(point);
	EC_KEY_free(peers);
	ECDSA_SIG_free(pair);
	return r == PSA_SUCCESS ? r : awslc_failed(r);
}
