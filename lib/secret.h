/* secret: files that only their owner can read, for -g, -r and -k. */
#ifndef SECRET_H
#define SECRET_H

#include <stdio.h>

/*
 * A new file, or standard output (NULL), unless that is a file that others can
 * read.  Unbuffered.  NULL, having logged why.
 */
FILE	*secret_open(const char *file);

/*
 * Close the file; remove it if the exit status is not EXIT_SUCCESS, or becomes
 * another one here, having logged why.  That status.
 */
int	 secret_close(FILE *, const char *file, int status);

#endif
