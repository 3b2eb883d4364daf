/*
 * What stands before mbedtls/config.h for fuzzing: a client to do handshakes
 * with, and clocks that stand still; see fuzz.c.
 */
#include <time.h>

time_t	 fuzz_time(time_t *);

#define MBEDTLS_SSL_CLI_C
#define MBEDTLS_PLATFORM_TIME_MACRO	fuzz_time
#define MBEDTLS_PLATFORM_MS_TIME_ALT

