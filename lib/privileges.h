/*
 * privileges: the master finds out what its workers are to be; they become it.
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

/* Who workers are. */
struct identity {
	uid_t	 uid;
	gid_t	 gid;			/* the only group */
	int	 drops;			/* to the two of them */
	const char *root;		/* to be locked in; or NULL */
};

/*
 * Find out who that is; the text of root is the caller's still.  -1, having
 * logged each of them that can't be.
 */
int	 privileges_find(struct identity *, const struct privileges *);

/* Become that, for good.  -1 with errno. */
int	 privileges_drop(const struct identity *);

/* No core, and no other process of the same user looks into this one. */
void	 privileges_disable_dumps(void);

#endif
