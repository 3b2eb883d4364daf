/*
 * A driver for PSA: public keys of X25519 by Everest's code.  mbed TLS itself
 * uses Everest only for key agreement, and slower code for public keys.
 */
#ifndef EVEREST_DRIVER_H
#define EVEREST_DRIVER_H

#include <psa/crypto.h>

/*
 * PSA's entry point of this name: compute the public key of a private key.
 * PSA_ERROR_NOT_SUPPORTED for all keys but X25519's.
 */
psa_status_t everest_transparent_export_public_key(
    const psa_key_attributes_t *attributes, const uint8_t *key,
    size_t key_size, uint8_t *data, size_t data_size, size_t *data_length);

#endif
