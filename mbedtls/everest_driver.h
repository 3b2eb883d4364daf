/*
 * A driver for PSA: X25519's public keys by the code of Everest that mbed TLS
 * has for its agreements, where its own way to a public key is the slow one.
 */
#ifndef EVEREST_DRIVER_H
#define EVEREST_DRIVER_H

#include <psa/crypto.h>

/*
 * PSA's entry point of this name: the public key of the private one that is
 * in key.  PSA_ERROR_NOT_SUPPORTED for any but X25519's.
 */
psa_status_t everest_transparent_export_public_key(
    const psa_key_attributes_t *attributes, const uint8_t *key,
    size_t key_size, uint8_t *data, size_t data_size, size_t *data_length);

#endif
