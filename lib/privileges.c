/* privileges: user, group and chroot of the workers. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "log.h"
#include "privileges.h"
#include "util.h"

/* Look up a user.  sets_group: group is not set, so use the user's group. */
static int
find_user(struct identity *id, const struct privilege *user, int sets_group)
{
	const struct passwd *pw;
	int64_t number;

	if (parse_number(user->text, 0, UINT32_MAX - 1, &number) == 0) {
		id->uid = (uid_t)number;
		if (!sets_group)
			return 0;
		if ((pw = getpwuid(id->uid)) == NULL) {
			log_error("%s: unknown user ID %s, so group must be "
			    "set as well", user->where, user->text);
			return -1;
		}
	} else if ((pw = getpwnam(user->text)) == NULL) {
		log_error("%s: unknown user \"%s\"", user->where,
		    user->text);
		return -1;
	}
	id->uid = pw->pw_uid;
	id->gid = pw->pw_gid;
	return 0;
}

static int
find_group(struct identity *id, const struct privilege *group)
{
	const struct group *gr;
	int64_t number;

	if (parse_number(group->text, 0, UINT32_MAX - 1, &number) == 0) {
		id->gid = (gid_t)number;
	} else if ((gr = getgrnam(group->text)) != NULL) {
		id->gid = gr->gr_gid;
	} else {
		log_error("%s: unknown group \"%s\"", group->where,
		    group->text);
		return -1;
	}
	return 0;
}

int
privileges_find(struct identity *id, const struct privileges *p)
{
	const struct privilege *user = &p->user, *group = &p->group,
	    *root = &p->root;
	const struct privilege *first = user->text != NULL ? user :
	    group->text != NULL ? group : root;
	const char *name = first == user ? "user" : first == group ? "group" :
	    "chroot";
	struct stat st;
	int r = 0;

	*id = (struct identity){ .uid = geteuid(), .gid = getegid(),
	    .root = root->text };
	if (user->text != NULL)
		r |= find_user(id, user, group->text == NULL);
	if (group->text != NULL)
		r |= find_group(id, group);
	if (id->root != NULL && (stat(id->root, &st) == -1 ||
	    !S_ISDIR(st.st_mode))) {
		log_error("%s: chroot: %s: not a directory", root->where,
		    id->root);
		r = -1;
	}
	id->drops = geteuid() == 0 && first != root;
	if (geteuid() != 0 && (id->root != NULL || id->uid != geteuid() ||
	    id->gid != getegid())) {
		log_error("%s: only root can set %s = %s", first->where,
		    name, first->text);
		r = -1;
	}
	return r;
}

/* Check at the end that root can't be regained. */
int
privileges_drop(const struct identity *id)
{
	if (id->root != NULL && (chroot(id->root) == -1 || chdir("/") == -1))
		return -1;
	if (!id->drops)
		return 0;
	if (setgroups(1, &id->gid) == -1 ||
	    setresgid(id->gid, id->gid, id->gid) == -1 ||
	    setresuid(id->uid, id->uid, id->uid) == -1)
		return -1;
	if (id->uid != 0 && setuid(0) == 0) {
		errno = EPERM;
		return -1;
	}
	return 0;
}

#ifdef __linux__

static void
hide_from_others(void)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

#else

static void
hide_from_others(void)
{
}

#endif

void
privileges_disable_dumps(void)
{
	struct rlimit l;

	getrlimit(RLIMIT_CORE, &l);
	l.rlim_cur = 0;
	setrlimit(RLIMIT_CORE, &l);
	hide_from_others();
}
