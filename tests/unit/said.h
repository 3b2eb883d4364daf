/*
 * said: the log goes to a file, which tests read: an error is one line that
 * names its place.  Included after the file that is tested, and with cmocka.
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

/* What has been logged since the last call. */
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

/* One sentence, from where, in which part is to be found. */
static inline void
expect_said(const char *where, const char *part)
{
	const char *text = said();

	if (!is_sentence(text) || strncmp(text + 15, where, strlen(where)) !=
	    0 || strstr(text, part) == NULL)
		fail_msg("said: \"%s\", not one sentence with \"%s\" and "
		    "\"%s\"", text, where, part);
}

/* Sentences, one of which begins with where, and has part in it. */
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

/* How often it was said, of what was said since the last call. */
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

/* Before each test: as the log is at first, and nothing in it. */
static inline void
said_reset(void)
{
	log_set_state(&(struct log_state){ .level = LEVEL_INFO,
	    .stream = -1 });
	said();
}

/* Before all of them; -1: it can't be. */
static inline int
said_init(void)
{
	int fd = memfd_create("log", MFD_CLOEXEC);

	unsetenv("JOURNAL_STREAM");
	log_to(fd, -1);
	return fd == -1 ? -1 : 0;
}

#endif
