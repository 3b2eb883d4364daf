/*
 * privileges: user, group and chroot of the workers.  The master looks up the
 * names; workers change to them.
 */
#ifndef PRIVILEGES_H
#define PRIVILEGES_H

#include <sys/types.h>

/* A configured value and its place, "tunnel.conf:12"; text NULL: not set. */
struct privilege {
	const char *text, *where;
};

struct privileges {
	struct privilege user, group, root;
};

/* The identity of workers. */
struct identity {
	uid_t	 uid;
	gid_t	 gid;			/* the only group */
	int	 drops;			/* change to uid and gid */
	const char *root;		/* for chroot(2); or NULL */
};

/*
 * Look up the configured names; root points to the caller's text.  0, or -1,
 * having logged each error.
 */
int	 privileges_find(struct identity *, const struct privileges *);

/* Change to this identity, irrevocably.  0, or -1 with errno. */
int	 privileges_drop(const struct identity *);

/* Disable core dumps, and ptrace(2) by other processes of the same user. */
void	 privileges_disable_dumps(void);

#endif
