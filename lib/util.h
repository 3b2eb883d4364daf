/* util: clock, text, numbers and accept(2), for all rooms. */
#ifndef UTIL_H
#define UTIL_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* CLOCK_MONOTONIC. */
int64_t	 clock_us(void);
int64_t	 clock_ms(void);

/* From now to until (in ms; INT64_MAX: never), as a timeout of poll(2). */
int	 clock_timeout(int64_t now, int64_t until);

/*
 * Run the handlers of pending signals that mask does not block: ppoll(2) and
 * epoll_pwait(2) do so only if they find no events.
 */
void	 deliver_pending_signals(const sigset_t *mask);

/*
 * Accept a connection, non-blocking and close-on-exec, with its peer's address.
 * -1 with errno.  EAGAIN: none waits.  EINTR: one failed, call again for the
 * next (accept(2), "Error handling").  Anything else, such as EMFILE, lasts:
 * pause for ACCEPT_PAUSE_MS.
 */
int	 accept_connection(int listener, struct sockaddr_storage *,
	    socklen_t *);

#define ACCEPT_PAUSE_MS	100

/*
 * A text from outside, made fit for the log: what is not printable ASCII
 * becomes \xNN.  It is cut to fit into size bytes.
 */
void	 text_escape(char *out, size_t size, const char *in);

/*
 * A peer's bytes, as many as fit, made fit for the log: escaped, and between
 * quotation marks.
 */
void	 text_quote(char *out, size_t size, const unsigned char *p, size_t n);

/* A text that is built piece by piece, and cut to fit into size bytes. */
struct text {
	char	*p;
	size_t	 size, n;
};

void	 text_add(struct text *, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/* The words, NULL at their end, joined with commas. */
void	 text_join(char *out, size_t size, const char *const *words);

/* Nothing but decimal digits, and a number in that range: 0; else -1. */
int	 parse_number(const char *text, int64_t min, int64_t max, int64_t *);

/* 2 * n hexadecimal digits, and n bytes: 0; or -1: there is another one. */
int	 parse_hex(const char *digits, unsigned char *, size_t n);

/* Close one that is not -1, which it is then. */
void	 close_fd(int *);

/* Give up a descriptor for the reason in errno, which is kept; -1. */
int	 close_failed(int);

/* A number of n bytes in network byte order. */
void	 be_put(unsigned char *, uint64_t value, size_t n);
uint64_t be_get(const unsigned char *, size_t n);

/* Give back what the C library keeps of memory that was freed. */
void	 heap_trim(void);

#endif
