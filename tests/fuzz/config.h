/*
 * What stands before mbedtls/config.h for fuzzing: clocks that stand still, and
 * X25519MLKEM768, as far as it parses; see fuzz.c.
 */
#include <time.h>

time_t	 fuzz_time(time_t *);

#define MBEDTLS_SSL_TLS13_X25519MLKEM768
#define MBEDTLS_PLATFORM_TIME_MACRO	fuzz_time
#define MBEDTLS_PLATFORM_MS_TIME_ALT

