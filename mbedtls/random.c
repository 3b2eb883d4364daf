/*
 * Random numbers for mbed TLS from the kernel, by
 * MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG.  None are buffered: a cloned machine or a
 * restored process would use them twice, which only the kernel can detect.
 * With Linux 6.11 and glibc 2.41, getrandom(3) seldom needs a system call.
 */
#include <errno.h>
#include <sys/random.h>

#include <psa/crypto.h>

/*
 * Fill all of output, or fail.  Blocks only while the machine starts and has no
 * entropy yet.
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
