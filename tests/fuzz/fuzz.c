/* See fuzz.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mbedtls/mlkem768.h>
#include <mbedtls/platform_time.h>
#include <psa/crypto.h>

#include "fuzz.h"

static uint64_t everybody;

time_t fuzz_now;
uint64_t *fuzz_random = &everybody;

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	if (fuzz_begin != NULL)
		fuzz_begin();
	return 0;
}

void
must(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

unsigned
take(struct input *in)
{
	if (in->n == 0)
		return 0;
	in->n--;
	return *in->p++;
}

size_t
take_number(struct input *in)
{
	size_t high = take(in);

	return high << 8 | take(in);
}

struct input
take_some(struct input *in, size_t len)
{
	struct input some = { in->p, len < in->n ? len : in->n };

	in->p += some.n;
	in->n -= some.n;
	return some;
}

char *
take_text(struct input *in)
{
	const uint8_t *nul = in->n > 0 ? memchr(in->p, '\0', in->n) : NULL;
	struct input some = take_some(in, nul != NULL ?
	    (size_t)(nul - in->p) : in->n);
	char *text = calloc(1, some.n + 1);

	must(text != NULL, "out of memory");
	if (some.n > 0)
		memcpy(text, some.p, some.n);
	take(in);
	return text;
}

const char *
file_of(struct input in)
{
	static char name[64];
	static int fd = -1;

	if (fd == -1)
		fd = memfd_create("input", MFD_CLOEXEC);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	must(ftruncate(fd, 0) == 0 && pwrite(fd, in.p, in.n, 0) ==
	    (ssize_t)in.n, "memfd");
	return name;
}

time_t
fuzz_time(time_t *now)
{
	if (now != NULL)
		*now = fuzz_now;
	return fuzz_now;
}

mbedtls_ms_time_t
mbedtls_ms_time(void)
{
	return (mbedtls_ms_time_t)fuzz_now * 1000;
}

int
fuzz_clock(clockid_t clock, struct timespec *ts)
{
	(void)clock;
	*ts = (struct timespec){ .tv_sec = fuzz_now };
	return 0;
}

/* The library's random numbers, by splitmix64. */
psa_status_t
mbedtls_psa_external_get_random(mbedtls_psa_external_random_context_t *context,
    uint8_t *output, size_t size, size_t *len)
{
	uint64_t z;

	(void)context;
	for (*len = 0; *len < size; (*len)++) {
		z = *fuzz_random += 0x9e3779b97f4a7c15;
		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
		z = (z ^ z >> 27) * 0x94d049bb133111eb;
		output[*len] = (uint8_t)(z ^ z >> 31);
	}
	return PSA_SUCCESS;
}

/*
 * A fake ML-KEM with the real sizes, a small check of keys, and the same secret
 * for both sides.
 */
psa_status_t
mbedtls_mlkem768_keygen(uint8_t ek[MBEDTLS_MLKEM768_EK_LEN],
    uint8_t dk[MBEDTLS_MLKEM768_DK_LEN])
{
	memset(ek, 0, MBEDTLS_MLKEM768_EK_LEN);
	memset(dk, 0, MBEDTLS_MLKEM768_DK_LEN);
	if (psa_generate_random(dk, MBEDTLS_MLKEM768_SS_LEN) != PSA_SUCCESS)
		return PSA_ERROR_GENERIC_ERROR;
	memcpy(ek + MBEDTLS_MLKEM768_EK_LEN - MBEDTLS_MLKEM768_SS_LEN, dk,
	    MBEDTLS_MLKEM768_SS_LEN);
	return PSA_SUCCESS;
}

psa_status_t
mbedtls_mlkem768_encaps(uint8_t ct[MBEDTLS_MLKEM768_CT_LEN],
    uint8_t ss[MBEDTLS_MLKEM768_SS_LEN],
    const uint8_t ek[MBEDTLS_MLKEM768_EK_LEN])
{
	size_t i;

	if ((ek[0] | (ek[1] & 15) << 8) >= 3329)
		return PSA_ERROR_INVALID_ARGUMENT;
	if (psa_generate_random(ss, MBEDTLS_MLKEM768_SS_LEN) != PSA_SUCCESS)
		return PSA_ERROR_GENERIC_ERROR;
	memcpy(ct, ek, MBEDTLS_MLKEM768_CT_LEN);
	for (i = 0; i < MBEDTLS_MLKEM768_SS_LEN; i++)
		ct[i] = ss[i] ^ ek[MBEDTLS_MLKEM768_EK_LEN -
		    MBEDTLS_MLKEM768_SS_LEN + i];
	return PSA_SUCCESS;
}

psa_status_t
mbedtls_mlkem768_decaps(uint8_t ss[MBEDTLS_MLKEM768_SS_LEN],
    const uint8_t ct[MBEDTLS_MLKEM768_CT_LEN],
    const uint8_t dk[MBEDTLS_MLKEM768_DK_LEN])
{
	size_t i;

	for (i = 0; i < MBEDTLS_MLKEM768_SS_LEN; i++)
		ss[i] = ct[i] ^ dk[i];
	return PSA_SUCCESS;
}
