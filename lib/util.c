/* util: clock, text, numbers and accept(2), for all rooms. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#else
#define malloc_trim(pad)	((void)0)
#endif

#include "util.h"

int64_t
clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t
clock_ms(void)
{
	return clock_us() / 1000;
}

int
clock_timeout(int64_t now, int64_t until)
{
	if (until == INT64_MAX)
		return -1;
	if (until <= now)
		return 0;
	return until - now > INT_MAX ? INT_MAX : (int)(until - now);
}

void
deliver_pending_signals(const sigset_t *mask)
{
	sigset_t blocked;

	sigprocmask(SIG_SETMASK, mask, &blocked);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Return 1 if the error concerns only one connection. */
static int
accept_error_is_transient(int error)
{
	static const int transient[] = {
		EINTR, ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN,
		EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH
	};
	size_t i;

	for (i = 0; i < sizeof(transient) / sizeof(transient[0]); i++)
		if (transient[i] == error)
			return 1;
	return 0;
}

int
accept_connection(int listener, struct sockaddr_storage *addr, socklen_t *len)
{
	int fd;

	*len = sizeof(*addr);
	fd = accept4(listener, (struct sockaddr *)addr, len,
	    SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd == -1 && errno == EWOULDBLOCK)
		errno = EAGAIN;
	else if (fd == -1 && accept_error_is_transient(errno))
		errno = EINTR;
	return fd;
}

void
text_escape(char *out, size_t size, const char *in)
{
	size_t n = 0;

	for (; *in != '\0' && n + 5 < size; in++) {
		if (*in < ' ' || *in > '~')
			n += (size_t)snprintf(out + n, size - n, "\\x%02x",
			    (unsigned char)*in);
		else
			out[n++] = *in;
	}
	out[n] = '\0';
}

void
text_quote(char *out, size_t size, const unsigned char *p, size_t n)
{
	size_t i, used = 0;

	for (i = 0; i < n && used + 8 < size; i++) {
		const char *fmt = isprint(p[i]) && p[i] != '"' && p[i] != '\\' ?
		    "%s%c" : "%s\\x%02x";
		int w = snprintf(out + used, size - used, fmt,
		    i == 0 ? "\"" : "", p[i]);

		used += (size_t)w;
	}
	snprintf(out + used, size - used, "%s", i == 0 ? "\"\"" : "\"");
}

void
text_add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->p + t->n, t->size - t->n, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->n += (size_t)n < t->size - t->n ? (size_t)n :
		    t->size - t->n - 1;
}

void
text_join(char *text, size_t size, const char *const *words)
{
	struct text t = { .p = text, .size = size };
	size_t i;

	text[0] = '\0';
	for (i = 0; words[i] != NULL; i++)
		text_add(&t, "%s%s", i == 0 ? "" : ", ", words[i]);
}

int
parse_number(const char *text, int64_t min, int64_t max, int64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoll(text, &end, 10);
	return isdigit((unsigned char)*text) && *end == '\0' && errno == 0 &&
	    *number >= min && *number <= max ? 0 : -1;
}

int
parse_hex(const char *digits, unsigned char *bytes, size_t n)
{
	static const char known[] = "0123456789abcdef";
	const char *d;
	size_t i;

	for (i = 0; i < 2 * n; i++) {
		if (digits[i] == '\0' || (d = strchr(known,
		    tolower((unsigned char)digits[i]))) == NULL)
			return -1;
		bytes[i / 2] = (unsigned char)(bytes[i / 2] << 4 |
		    (d - known));
	}
	return 0;
}

void
be_put(unsigned char *p, uint64_t value, size_t n)
{
	for (; n > 0; value >>= 8)
		p[--n] = (unsigned char)value;
}

uint64_t
be_get(const unsigned char *p, size_t n)
{
	uint64_t value = 0;

	for (; n > 0; n--)
		value = value << 8 | *p++;
	return value;
}

void
close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

int
close_failed(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

void
heap_trim(void)
{
	malloc_trim(0);
}
