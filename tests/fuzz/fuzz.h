/*
 * Shared by all harnesses.  A harness is a file with LLVMFuzzerTestOneInput(),
 * for libFuzzer, AFL++ and honggfuzz, and optionally fuzz_begin().  It includes
 * a .c file for its static functions.  A failed check calls abort(3).
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

int	 LLVMFuzzerInitialize(int *, char ***);
int	 LLVMFuzzerTestOneInput(const uint8_t *, size_t);

/* Initialise a harness before its first input; optional. */
void	 fuzz_begin(void) __attribute__((weak));

/* Abort with this text, unless ok. */
void	 must(int ok, const char *what);

/* The remaining part of an input. */
struct input {
	const uint8_t *p;
	size_t	 n;
};

/* Take the next byte, 0 at the end; or two, big-endian. */
unsigned take(struct input *);
size_t	 take_number(struct input *);
/* Take the next len bytes, or fewer at the end. */
struct input take_some(struct input *, size_t len);
/* Take text up to a zero or the end, allocated in its exact size. */
char	*take_text(struct input *);

/* The name of a memory file with this content, until the next call. */
const char *file_of(struct input);

/*
 * For equal runs, clocks are fixed, and random numbers are pseudo-random, with
 * a state for each user of them.
 */
extern time_t	 fuzz_now;
extern uint64_t	*fuzz_random;

int	 fuzz_clock(clockid_t, struct timespec *);

#endif
