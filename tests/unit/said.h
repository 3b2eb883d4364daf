/*
 * said: write the log to a file, to be read by tests: an error is one line with
 * its place.  Include it after the tested file and cmocka.
 */
#ifndef SAID_H
#define SAID_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../lib/log.h"

#define WHERE	"tunnel.conf:12"
#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* Return the log lines since the last call. */
static inline const char *
said(void)
{
	static char text[16384];
	ssize_t n = pread(log_fd(), text, sizeof(text) - 1, 0);

	assert_in_range(n, 0, sizeof(text) - 2);
	text[n] = '\0';
	assert_int_equal(ftruncate(log_fd(), 0), 0);
	assert_int_equal(lseek(log_fd(), 0, SEEK_SET), 0);
	return text;
}

static inline int
is_sentence(const char *text)
{
	size_t len = strlen(text);

	return strncmp(text, "tunnel: error: ", 15) == 0 && len > 16 &&
	    strchr(text, '\n') == text + len - 1;
}

/* Expect one line that begins with where and contains part. */
static inline void
expect_said(const char *where, const char *part)
{
	const char *text = said();

	if (!is_sentence(text) || strncmp(text + 15, where, strlen(where)) !=
	    0 || strstr(text, part) == NULL)
		fail_msg("said: \"%s\", not one sentence with \"%s\" and "
		    "\"%s\"", text, where, part);
}

/* Expect lines, one of which begins with where and contains part. */
static inline void
expect_among(const char *where, const char *part)
{
	char begin[256], *at;
	const char *text = said();

	snprintf(begin, sizeof(begin), "tunnel: error: %s", where);
	at = strstr(text, begin);
	if (at == NULL || strstr(at, part) == NULL)
		fail_msg("said: \"%s\", and not \"%s\" and \"%s\"", text,
		    where, part);
}

static inline void
expect_silence(void)
{
	assert_string_equal(said(), "");
}

/* Count the occurrences of part in text, the result of said(). */
static inline int
times_said(const char *text, const char *part)
{
	int n = 0;

	while ((text = strstr(text, part)) != NULL) {
		text++;
		n++;
	}
	return n;
}

/* Before each test: reset the log, and empty its file. */
static inline void
said_reset(void)
{
	log_set_state(&(struct log_state){ .level = LEVEL_INFO,
	    .stream = -1 });
	said();
}

/* Before all tests.  0, or -1 on failure. */
static inline int
said_init(void)
{
	int fd = memfd_create("log", MFD_CLOEXEC);

	unsetenv("JOURNAL_STREAM");
	log_to(fd, -1);
	return fd == -1 ? -1 : 0;
}

#endif
