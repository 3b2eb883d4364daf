/*
 * Common code of all harnesses.  Each is a file with LLVMFuzzerTestOneInput(),
 * which libFuzzer, AFL++ and honggfuzz call, and perhaps fuzz_begin(); it
 * includes a .c file, to reach static functions.  Errors call abort(3).
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

int	 LLVMFuzzerInitialize(int *, char ***);
int	 LLVMFuzzerTestOneInput(const uint8_t *, size_t);

/* Prepare a harness before its first input. */
void	 fuzz_begin(void) __attribute__((weak));

/* Abort with this text, unless ok. */
void	 must(int ok, const char *what);

/* The rest of an input. */
struct input {
	const uint8_t *p;
	size_t	 n;
};

/* Take the next byte, or 0 at the end; or two bytes, big-endian. */
unsigned take(struct input *);
size_t	 take_number(struct input *);
/* Take the next len bytes, or all that are left. */
struct input take_some(struct input *, size_t len);
/*
 * Take text up to a zero or the end, in allocated memory of exactly its size.
 */
char	*take_text(struct input *);

/*
 * Make a file in memory with that content, valid until the next call; return
 * its name.
 */
const char *file_of(struct input);

/*
 * For reproducible runs clocks stand still, and random numbers come from here,
 * with a state for each owner.
 */
extern time_t	 fuzz_now;
extern uint64_t	*fuzz_random;

int	 fuzz_clock(clockid_t, struct timespec *);

#endif
