/*
 * hints: suggestions for a key or a value that does not exist: a misspelt one,
 * or a setting of stunnel.
 */
#ifndef HINTS_H
#define HINTS_H

#include <stddef.h>

struct option;

#define HINT_SIZE	1024
#define WORD_SIZE	32		/* longest word to be compared */

/* A suggestion for an unknown key. */
struct hint {
	char	 text[HINT_SIZE];	/* a clause */
	const char *about;		/* keys, separated by blanks; or NULL */
	const char *covers;		/* keys not to be reported as missing */
};

/* Make a suggestion for a line key = text whose key is unknown. */
void	 hint_key(const char *key, const char *text, struct hint *);

/* The option with the most similar name, or -1. */
int	 hint_option(const char *name);

/*
 * Advice for a value that is not what it seems, as a clause: one with another
 * meaning in stunnel, or a misspelt word in place of a file; or NULL.
 */
const char *hint_wrong_value(const struct option *, const char *text);

/* A clause for "allowed: ..." after an invalid value; may be empty. */
void	 hint_value(const struct option *, const char *text, char *hint,
	    size_t size);

#endif
