/*
 * files: what the master writes to, or believes, nobody but root and the user
 * that it runs as may replace by something else.
 */
#ifndef FILES_H
#define FILES_H

#include <stdio.h>
#include <sys/types.h>

#include "log.h"

struct config;

/* Whom the workers run as. */
struct files_user {
	uid_t	 uid;
	gid_t	 gid;
};

/*
 * Why the path of this option can't be opened, or is not to be; or NULL.
 * Nothing is made.  The text is valid until the next call.
 */
const char *files_fault(struct files_user, int option, const char *path);

/*
 * What others must not be able to replace: -1, having logged why, with
 * LEVEL_ERROR.  With LEVEL_WARNING, what they can replace, though that may be
 * as it was meant to be.
 */
int	 files_check(const struct config *, struct files_user, enum log_level);

/* Warn of secrets that more than their owner and group can read. */
void	 files_warn_of_readers(const struct config *);

/* A file that is not there yet, to write to; NULL with errno. */
FILE	*files_create(const char *name, mode_t mode);

/*
 * The file that this option names, with these flags of open(2), made with this
 * mode if need be; -1, having logged why.  The descriptor is the caller's.
 */
int	 files_open(const struct config *, struct files_user, int option,
	    int flags, mode_t mode);

#endif
