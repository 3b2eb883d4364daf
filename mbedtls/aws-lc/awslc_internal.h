/* What the files of the driver know of each other. */
#ifndef AWSLC_INTERNAL_H
#define AWSLC_INTERNAL_H

#include <awslc_driver.h>

/*
 * The status for what AWS-LC has refused: this one, or that there is no memory.
 * AWS-LC's queue of errors is empty afterwards.
 */
psa_status_t awslc_failed(psa_status_t);

/* As the entry points of almost the same names, for RSA keys alone. */
psa_status_t awslc_rsa_sign(const psa_key_attributes_t *, const uint8_t *key,
	    size_t key_size, psa_algorithm_t, const uint8_t *hash,
	    size_t hash_size, uint8_t *signature, size_t signature_size,
	    size_t *signature_length);
psa_status_t awslc_rsa_verify(const psa_key_attributes_t *, const uint8_t *key,
	    size_t key_size, psa_algorithm_t, const uint8_t *hash,
	    size_t hash_size, const uint8_t *signature, size_t signature_size);

/* And for those of elliptic curves. */
psa_status_t awslc_ec_sign(const psa_key_attributes_t *, const uint8_t *key,
	    size_t key_size, psa_algorithm_t, const uint8_t *hash,
	    size_t hash_size, uint8_t *signature, size_t signature_size,
	    size_t *signature_length);
psa_status_t awslc_ec_verify(const psa_key_attributes_t *, const uint8_t *key,
	    size_t key_size, psa_algorithm_t, const uint8_t *hash,
	    size_t hash_size, const uint8_t *signature, size_t signature_size);

#endif
