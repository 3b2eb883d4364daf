/*
 * Additions before mbedtls/config.h for fuzzing: fixed clocks, and the parsing
 * of X25519MLKEM768; see fuzz.c.
 */
#include <time.h>

time_t	 fuzz_time(time_t *);

#define MBEDTLS_SSL_TLS13_X25519MLKEM768
#define MBEDTLS_PLATFORM_TIME_MACRO	fuzz_time
#define MBEDTLS_PLATFORM_MS_TIME_ALT

