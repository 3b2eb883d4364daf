/*
 * What all harnesses share.  Each is a file with LLVMFuzzerTestOneInput(), as
 * libFuzzer, AFL++ and honggfuzz call it, and perhaps fuzz_begin(); it includes
 * a .c file, to reach what is static.  What is wrong ends in abort(3).
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

int	 LLVMFuzzerInitialize(int *, char ***);
int	 LLVMFuzzerTestOneInput(const uint8_t *, size_t);

/* What a harness needs before its first input, if anything. */
void	 fuzz_begin(void) __attribute__((weak));

/* Abort with that text, unless ok. */
void	 must(int ok, const char *what);

/* What is left of an input. */
struct input {
	const uint8_t *p;
	size_t	 n;
};

/* The next byte, and 0 where there is none; or two, big-endian. */
unsigned take(struct input *);
size_t	 take_number(struct input *);
/* The next bytes: len, or as many as there are. */
struct input take_some(struct input *, size_t len);
/* Text up to a zero, or the end.  Allocated, with not a byte more. */
char	*take_text(struct input *);

/* A file in memory with that content, until the next call; its name. */
const char *file_of(struct input);

/*
 * What would differ from run to run does not: clocks stand still, and random
 * numbers are drawn from here, a state for whose they are.
 */
extern time_t	 fuzz_now;
extern uint64_t	*fuzz_random;

int	 fuzz_clock(clockid_t, struct timespec *);

#endif
