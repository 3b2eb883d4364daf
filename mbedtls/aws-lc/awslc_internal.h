/* Functions that the files of the driver share. */
#ifndef AWSLC_INTERNAL_H
#define AWSLC_INTERNAL_H

#include <awslc_driver.h>

/*
 * Call after AWS-LC has failed.  Return PSA_ERROR_INSUFFICIENT_MEMORY if memory
 * is the reason, else the argument; and empty AWS-LC's error queue.
 */
psa_status_t awslc_failed(psa_status_t);

/*
 * As awslc_transparent_signature_sign_hash() and _verify_hash(), for keys of
 * one type: RSA, or an elliptic curve.
 */
typedef psa_status_t awslc_sign(const psa_key_attributes_t *,
	    const uint8_t *key, size_t key_size, psa_algorithm_t,
	    const uint8_t *hash, size_t hash_size, uint8_t *signature,
	    size_t signature_size, size_t *signature_length);
typedef psa_status_t awslc_verify(const psa_key_attributes_t *,
	    const uint8_t *key, size_t key_size, psa_algorithm_t,
	    const uint8_t *hash, size_t hash_size, const uint8_t *signature,
	    size_t signature_size);

awslc_sign awslc_rsa_sign, awslc_ec_sign;
awslc_verify awslc_rsa_verify, awslc_ec_verify;

#endif
