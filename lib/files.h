/*
 * files: check that only root and the master's user can replace the files that
 * the master writes to or trusts.
 */
#ifndef FILES_H
#define FILES_H

#include <stdio.h>
#include <sys/types.h>

#include "log.h"

struct config;

/* The user that workers run as. */
struct files_user {
	uid_t	 uid;
	gid_t	 gid;
};

/*
 * Check whether the file of an option can and may be opened, without creating
 * it.  NULL, or the error, valid until the next call.
 */
const char *files_fault(struct files_user, int option, const char *path);

/*
 * Check the files of a configuration.  LEVEL_ERROR: log each files_fault(), and
 * return -1 if there is one.  LEVEL_WARNING: log each file that another user
 * can replace, which may be intended.
 */
int	 files_check(const struct config *, struct files_user, enum log_level);

/* Warn of secret files that users other than owner and group can read. */
void	 files_warn_of_readers(const struct config *);

/* Create a file, which must not exist, for writing; NULL with errno. */
FILE	*files_create(const char *name, mode_t mode);

/*
 * Open the file of an option with these flags of open(2), and create it with
 * this mode if needed.  The caller owns the descriptor.  -1, having logged why.
 */
int	 files_open(const struct config *, struct files_user, int option,
	    int flags, mode_t mode);

#endif
