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

/* The time from now to until (ms; INT64_MAX: never), as a poll(2) timeout. */
int	 clock_timeout(int64_t now, int64_t until);

/*
 * Run the handlers of pending signals that mask does not block.  ppoll(2) and
 * epoll_pwait(2) only do so if no events are ready.
 */
void	 deliver_pending_signals(const sigset_t *mask);

/*
 * Accept a connection, non-blocking and close-on-exec, with its peer's address.
 * -1 with errno.  EAGAIN: none waits.  EINTR: one failed, call again for the
 * next (accept(2), "Error handling").  Other errors, such as EMFILE, are not
 * specific to one connection: pause for ACCEPT_PAUSE_MS.
 */
int	 accept_connection(int listener, struct sockaddr_storage *,
	    socklen_t *);

#define ACCEPT_PAUSE_MS	100

/*
 * Escape text from outside for the log: characters other than printable ASCII
 * become \xNN.  The result is cut to fit into size bytes.
 */
void	 text_escape(char *out, size_t size, const char *in);

/*
 * Quote bytes from a peer for the log, as many as fit: escaped, and between
 * quotation marks.
 */
void	 text_quote(char *out, size_t size, const unsigned char *p, size_t n);

/* A text under construction, cut to fit into size bytes at p. */
struct text {
	char	*p;
	size_t	 size, n;
};

/* Append to the text, as printf(3). */
void	 text_add(struct text *, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/* Join words, which end with NULL, with ", ". */
void	 text_join(char *out, size_t size, const char *const *words);

/* Parse a number of decimal digits only, in this range.  0, or -1. */
int	 parse_number(const char *text, int64_t min, int64_t max, int64_t *);

/* Parse 2 * n hexadecimal digits to n bytes.  0, or -1: another character. */
int	 parse_hex(const char *digits, unsigned char *, size_t n);

/* Close a descriptor, unless it is -1, and set it to -1. */
void	 close_fd(int *);

/* Close a descriptor after an error; errno is kept.  Returns -1. */
int	 close_failed(int);

/* Write and read a number of n bytes in network byte order. */
void	 be_put(unsigned char *, uint64_t value, size_t n);
uint64_t be_get(const unsigned char *, size_t n);

/* Return freed memory from the C library to the kernel. */
void	 heap_trim(void);

#endif
