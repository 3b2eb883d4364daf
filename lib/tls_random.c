/* tls_random: the kernel's entropy for an mbed TLS other than our own build. */
#include <errno.h>
#include <stddef.h>
#include <sys/random.h>

#include <mbedtls/build_info.h>
#if defined(MBEDTLS_ENTROPY_C) && !defined(MBEDTLS_NO_PLATFORM_ENTROPY) && \
    !defined(MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG)
#define READS_FILES
#include <mbedtls/entropy.h>
#include <mbedtls/platform.h>
#endif

#include "tls_random.h"

#ifdef READS_FILES

static int asked;			/* the library has called this room */

/*
 * Without glibc, mbed TLS opens /dev/random whenever it seeds its generator:
 * after fork(2), and after 10,000 requests.  A chroot(2) has no such file, and
 * the sandbox opens none.  The public API can add a source of entropy, but not
 * remove one.  So replace the library's function: linker and loader prefer the
 * program's definition.
 */
int
mbedtls_platform_entropy_poll(void *data, unsigned char *output, size_t len,
    size_t *olen)
{
	ssize_t n;

	(void)data;
	asked = 1;
	*olen = 0;
	while (*olen < len) {
		n = getrandom(output + *olen, len - *olen, 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return MBEDTLS_ERR_ENTROPY_SOURCE_FAILED;
		*olen += (size_t)n;
	}
	return 0;
}

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
