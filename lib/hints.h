/*
 * hints: what may be meant by a key or a value that does not exist: a slip, or
 * a setting of stunnel.
 */
#ifndef HINTS_H
#define HINTS_H

#include <stddef.h>

struct option;

#define HINT_SIZE	1024
#define WORD_SIZE	32		/* of one that may be misspelt */

/* What an unknown key may have been meant to be. */
struct hint {
	char	 text[HINT_SIZE];	/* a clause */
	const char *about;		/* keys, with blanks between; or NULL */
	const char *covers;		/* keys that may then be missing */
};

/* What key = text may mean, where there is no such key. */
void	 hint_key(const char *key, const char *text, struct hint *);

/* The option whose name is nearest, or -1. */
int	 hint_option(const char *name);

/* What a value would mean to stunnel, if that is something else; or NULL. */
const char *hint_stunnel_value(const struct option *, const char *text);

/* What to add to "allowed: ..." for a wrong value; may be empty. */
void	 hint_value(const struct option *, const char *text, char *hint,
	    size_t size);

#endif
