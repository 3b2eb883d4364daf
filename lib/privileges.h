/*
 * privileges: user, group and chroot of the workers.  The master looks them up;
 * workers take them on.
 */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <sys/types.h>

/* What was configured, and where: "tunnel.conf:12"; NULL: nothing. */
struct privilege {
	const char *text, *where;
};

struct privileges {
	struct privilege user, group, root;
};

/* What workers run as. */
struct identity {
	uid_t	 uid;
	gid_t	 gid;			/* the only group */
	int	 drops;			/* to the two of them */
	const char *root;		/* to be locked in; or NULL */
};

/*
 * Look up what is configured; the text of root stays the caller's.  -1, having
 * logged each error.
 */
int	 privileges_find(struct identity *, const struct privileges *);

/* Take it on, for good.  -1 with errno. */
int	 privileges_drop(const struct identity *);

/* No core, and no other process of the same user looks into this one. */
void	 privileges_disable_dumps(void);

#endif
