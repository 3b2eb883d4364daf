/*
 * files: nobody but root and the master's own user may be able to replace the
 * files that the master writes to, or trusts.
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
 * Check the files of a configuration.  LEVEL_ERROR: -1, having logged each that
 * has a files_fault().  LEVEL_WARNING: log those that any other user can
 * replace, which may be intended.
 */
int	 files_check(const struct config *, struct files_user, enum log_level);

/* Warn of secrets that more than their owner and group can read. */
void	 files_warn_of_readers(const struct config *);

/* Create a file, which must not exist yet, to write to; NULL with errno. */
FILE	*files_create(const char *name, mode_t mode);

/*
 * The file that this option names, with these flags of open(2), made with this
 * mode if need be; -1, having logged why.  The descriptor is the caller's.
 */
int	 files_open(const struct config *, struct files_user, int option,
	    int flags, mode_t mode);

#endif
