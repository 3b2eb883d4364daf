#include <string.h>

#include <mbedtls/ecdh.h>
#include <everest_driver.h>

/* The public key is the result of X25519 with the base point, 9; RFC 7748. */
psa_status_t
everest_transparent_export_public_key(const psa_key_attributes_t *attributes,
    const uint8_t *key, size_t key_size, uint8_t *data, size_t data_size,
    size_t *data_length)
{
	mbedtls_x25519_context ctx;
	int r;

	if (psa_get_key_type(attributes) !=
	    PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_MONTGOMERY) ||
	    key_size != sizeof(ctx.our_secret))
		return PSA_ERROR_NOT_SUPPORTED;
	if (data_size < sizeof(ctx.peer_point))
		return PSA_ERROR_BUFFER_TOO_SMALL;
	mbedtls_x25519_init(&ctx);
	memcpy(ctx.our_secret, key, sizeof(ctx.our_secret));
	ctx.peer_point[0] = 9;
	r = mbedtls_x25519_calc_secret(&ctx, data_length, data, data_size,
	    NULL, NULL);
	mbedtls_x25519_free(&ctx);
	return r == 0 ? PSA_SUCCESS : PSA_ERROR_GENERIC_ERROR;
}
