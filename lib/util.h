/* util: clock, text and numbers, for all rooms. */
#ifndef UTIL_H
#define UTIL_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/* CLOCK_MONOTONIC. */
int64_t	 clock_us(void);
int64_t	 clock_ms(void);

/* From now to until (ms; INT64_MAX: never), as poll(2) takes a timeout. */
int	 clock_timeout(int64_t now, int64_t until);

/*
 * Let those signals in that wait, and that the mask does not block: a poller
 * that finds events ready takes none.
 */
void	 deliver_pending_signals(const sigset_t *mask);

/*
 * Does an error of accept(2) concern one connection alone?  Or there was none;
 * accept(2), "Error handling".
 */
int	 accept_error_is_transient(int error);

/*
 * A text that came from outside, fit for a line of the log: what is not
 * printable ASCII becomes \xNN.  It is cut at size.
 */
void	 text_escape(char *out, size_t size, const char *in);

/*
 * A peer's bytes, as many as there is room for, fit to be logged: between
 * quotation marks, and escaped.
 */
void	 text_quote(char *out, size_t size, const unsigned char *p, size_t n);

/* A text that is put together; it ends with NUL, and is cut at size. */
struct text {
	char	*p;
	size_t	 size, n;
};

void	 text_add(struct text *, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/* The words, which end with NULL, with commas between them. */
void	 text_join(char *out, size_t size, const char *const *words);

/* Decimal digits alone, and a number of that range: 0, else -1. */
int	 parse_number(const char *text, int64_t min, int64_t max, int64_t *);

/* A number of n bytes on the wire, in network byte order. */
void	 be_put(unsigned char *, uint64_t value, size_t n);
uint64_t be_get(const unsigned char *, size_t n);

#endif
