/* tls_random: the kernel's entropy, unless mbed TLS is the bundled one. */
#include <errno.h>
#include <stddef.h>
#include <sys/random.h>

#include <mbedtls/platform.h>
#include <psa/crypto.h>
#if defined(MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG)
#elif defined(MBEDTLS_PSA_BUILTIN_GET_ENTROPY)
#define READS_FILES
#elif defined(MBEDTLS_ENTROPY_C) && !defined(MBEDTLS_NO_PLATFORM_ENTROPY)
#define READS_FILES
#include <mbedtls/entropy.h>
#endif

#include "tls_random.h"

#ifdef READS_FILES

static int asked;			/* the library has called this room */

/* Fill it from the kernel; return -1 if that fails. */
static int
fill(unsigned char *output, size_t len)
{
	size_t done = 0;
	ssize_t n;

	asked = 1;
	while (done < len) {
		n = getrandom(output + done, len - done, 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

/*
 * Without glibc, mbed TLS opens /dev/random or /dev/urandom whenever it seeds
 * its generator: after fork(2), and after 10,000 requests.  A chroot(2) has no
 * such file, and the sandbox opens none.  The public API can add a source of
 * entropy, but not remove one.  So replace the library's function: linker and
 * loader prefer the program's definition.
 */
#ifdef MBEDTLS_PSA_BUILTIN_GET_ENTROPY
/*
 * In a static library of 4.1, the object with this function has others that are
 * needed: a second strong definition would be an error.  There the weak one
 * below yields to the library's.
 */
__attribute__((weak)) int
mbedtls_platform_get_entropy(psa_driver_get_entropy_flags_t flags,
    size_t *estimate_bits, unsigned char *output, size_t output_size)
{
	if (flags != 0)
		return PSA_ERROR_NOT_SUPPORTED;
	*estimate_bits = 8 * output_size;
	return fill(output, output_size) == 0 ? 0 :
	    PSA_ERROR_INSUFFICIENT_ENTROPY;
}
#else
int
mbedtls_platform_entropy_poll(void *data, unsigned char *output, size_t len,
    size_t *olen)
{
	(void)data;
	*olen = 0;
	if (fill(output, len) == -1)
		return MBEDTLS_ERR_ENTROPY_SOURCE_FAILED;
	*olen = len;
	return 0;
}
#endif

/* A library that was linked with -Bsymbolic calls its own function. */
const char *
tls_random_why(void)
{
	return asked ? NULL : "this mbed TLS reads it from a file such as "
	    "/dev/random, which is missing in a sandbox or chroot";
}

#else

const char *
tls_random_why(void)
{
	return NULL;
}

#endif
