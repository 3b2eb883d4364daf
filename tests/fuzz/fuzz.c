/* See fuzz.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

/* The library's; splitmix64. */
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
