/*
 * mbed TLS's random numbers, by MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG: those of the
 * kernel.  None are kept in store: a machine that is cloned, or a process that
 * is restored, would draw them twice, which only the kernel can see.  With
 * Linux 6.11 and glibc 2.41, getrandom(3) seldom has to enter it.
 */
#include <errno.h>
#include <sys/random.h>

#include <psa/crypto.h>

/*
 * Fill output, whole, or fail; it may block only while the machine starts and
 * has no entropy yet.
 */
psa_status_t
mbedtls_psa_external_get_random(mbedtls_psa_external_random_context_t *context,
    uint8_t *output, size_t output_size, size_t *output_length)
{
	ssize_t n;

	(void)context;
	*output_length = 0;
	while (*output_length < output_size) {
		n = getrandom(output + *output_length,
		    output_size - *output_length, 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return PSA_ERROR_INSUFFICIENT_ENTROPY;
		*output_length += (size_t)n;
	}
	return PSA_SUCCESS;
}
