/*
 * privileges: the master finds out what its workers are to be; they become it.
 */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <sys/types.h>

/* Who workers are. */
struct identity {
	uid_t	 uid;
	gid_t	 gid;			/* the only group */
	int	 drops;			/* to the two of them */
	const char *root;		/* to be locked in; or NULL */
};

/* What was configured, and where: "tunnel.conf:12"; NULL: nothing. */
struct wanted {
	const char *text, *where;
};

/*
 * Who workers are, by user, group and chroot; root is the caller's.  -1, having
 * logged each of these that can't be.
 */
int	 privileges_find(struct identity *, const struct wanted *user,
	    const struct wanted *group, const struct wanted *root);

/* Become that, for good.  -1 with errno. */
int	 privileges_drop(const struct identity *);

/* No core, and no other process of the same user looks into this one. */
void	 privileges_disable_dumps(void);

#endif
