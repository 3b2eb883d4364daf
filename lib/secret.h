/* secret: files that only their owner can read, for -g and -k. */
#ifndef SECRET_H
#define SECRET_H

#include <stdio.h>

/*
 * A new file, or standard output (NULL), unless that is a file that others can
 * read.  Unbuffered.  NULL, having logged why.
 */
FILE	*secret_open(const char *file);

/* A file that is not whole is removed.  The exit status, which may change. */
int	 secret_close(FILE *, const char *file, int status);

#endif
