/* secret: output files for -g, -r, -k and -p that only their owner can read. */
#ifndef SECRET_H
#define SECRET_H

#include <stdio.h>

/*
 * Create a file, or use standard output (NULL), which is refused if it is a
 * file that others can read.  The stream is unbuffered.  NULL, having logged
 * why.
 */
FILE	*secret_open(const char *file);

/*
 * Close the file.  Returns the exit status: status, or EXIT_FAILURE if the file
 * can't be written to disk, having logged why.  If it is not EXIT_SUCCESS, the
 * file is removed.
 */
int	 secret_close(FILE *, const char *file, int status);

#endif
