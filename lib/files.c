/*
 * files: find which other users can replace the files that the master writes to
 * or trusts.  That depends on write access to each directory of the path.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "files.h"
#include "log.h"
#include "options.h"

/* Who else can replace files in a directory. */
enum writer {
	NOBODY_ELSE, WORKERS_USER, ANYBODY, ANOTHER_USER, ANOTHER_GROUP
};

static const char *const writers[] = {
	[WORKERS_USER] = "the workers' user", [ANYBODY] = "anyone",
	[ANOTHER_USER] = "another user", [ANOTHER_GROUP] = "another group"
};

/* The directory of a file. */
struct place {
	char	 directory[PATH_MAX];	/* without links */
	char	 writable[PATH_MAX];	/* it, or one above */
	enum writer writer;		/* who can write to that */
	int	 is_open;		/* all users can access it */
};

/* 1 if a file belongs to root, or to the user of this process. */
static int
is_ours(const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid();
}

static enum writer
writer_of(struct files_user user, const struct stat *st)
{
	int by_group = (st->st_mode & S_IWGRP) != 0;

	if (user.uid != geteuid() && (st->st_uid == user.uid ||
	    (by_group && st->st_gid == user.gid)))
		return WORKERS_USER;
	if (!(st->st_mode & S_ISVTX) && (st->st_mode & S_IWOTH))
		return ANYBODY;
	if (!is_ours(st))
		return ANOTHER_USER;
	if (!(st->st_mode & S_ISVTX) && by_group && st->st_gid != 0 &&
	    st->st_gid != getegid())
		return ANOTHER_GROUP;
	return NOBODY_ELSE;
}

static int
is_refused(enum writer w)
{
	return w == WORKERS_USER || w == ANYBODY;
}

/* Check a directory of the path.  The first fault counts, but errors first. */
static void
check_directory(struct files_user user, const char *directory, struct place *p)
{
	enum writer w = NOBODY_ELSE;
	struct stat st;

	/* A link's owner can change its target; its mode has no meaning. */
	if (lstat(directory, &st) == 0 && S_ISLNK(st.st_mode)) {
		st.st_mode &= ~(mode_t)(S_IWGRP | S_IWOTH);
		w = writer_of(user, &st);
	}
	if (w == NOBODY_ELSE && stat(directory, &st) == 0) {
		w = writer_of(user, &st);
		p->is_open &= (st.st_mode & S_IXOTH) != 0;
	}
	if (w == NOBODY_ELSE || is_refused(p->writer) ||
	    (p->writer != NOBODY_ELSE && !is_refused(w)))
		return;
	p->writer = w;
	snprintf(p->writable, sizeof(p->writable), "%s", directory);
}

static void
check_path(struct files_user user, const char *path, struct place *p)
{
	size_t n = 0;

	snprintf(p->directory, sizeof(p->directory), "%s",
	    *path == '/' ? "/" : ".");
	for (;;) {
		check_directory(user, p->directory, p);
		n += 1 + strcspn(path + n + 1, "/");
		if (path[n] == '\0')
			break;
		snprintf(p->directory, sizeof(p->directory), "%.*s", (int)n,
		    path);
	}
}

/*
 * Find who else can replace a file; a clause, or NULL.  Check each directory of
 * the path, and of the path without links: replacing a directory replaces its
 * files.  Ignore a directory without access: opening the file fails, too.
 */
static const char *
find_place(struct files_user user, const char *path, struct place *p)
{
	static char text[PATH_MAX + 64];
	char real[PATH_MAX];

	p->writer = NOBODY_ELSE;
	p->writable[0] = '\0';
	p->is_open = 1;
	check_path(user, path, p);
	if (realpath(p->directory, real) != NULL) {
		check_path(user, real, p);
		check_directory(user, real, p);
		snprintf(p->directory, sizeof(p->directory), "%s", real);
	}
	snprintf(text, sizeof(text), "%s can write to the directory %s",
	    writers[p->writer], p->writable);
	return p->writer != NOBODY_ELSE ? text : NULL;
}

/*
 * Check that an existing file is suitable for an option.  NULL, or the error.
 */
static const char *
file_fault(int option, const struct stat *st)
{
	if (S_ISLNK(st->st_mode) || (S_ISREG(st->st_mode) && st->st_nlink > 1))
		return "it is a link";
	if (!is_ours(st))
		return "it is owned by another user";
	if (S_ISREG(st->st_mode) || (option == LOG &&
	    (S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode))))
		return NULL;
	return "not a regular file";
}

/* The caller's errno, in words. */
static const char *
why_not(void)
{
	return errno != EROFS ? strerror(errno) : "Read-only file system (a "
	    "service of systemd can write to /run/tunnel; see tunnel(8))";
}

const char *
files_fault(struct files_user user, int option, const char *path)
{
	/* Files that are only read may be links. */
	int is_read = option == TICKET_KEYS || option == PSK;
	struct place place;
	const char *why = find_place(user, path, &place);
	struct stat st;

	if (is_refused(place.writer))
		return why;
	if (option == ACCEPT)
		return NULL;
	if ((is_read ? stat : lstat)(path, &st) == 0) {
		if ((why = file_fault(option, &st)) != NULL)
			return why;
		if (is_read && is_refused(writer_of(user, &st)))
			return "other users can write to it";
	} else if (errno == ENOENT)
		path = place.directory;
	if (option == STATS_FILE)
		path = place.directory;	/* a new file is made there */
	return access(path, is_read ? R_OK : W_OK) == -1 ? why_not() : NULL;
}

/* The path in a value of an option; or NULL. */
static const char *
path_of(int option, const char *text)
{
	if (option == ACCEPT)
		return strncmp(text, "unix:", 5) == 0 && text[5] != '\0' ?
		    text + 5 : NULL;
	return option == LOG && log_stream(text) != 0 ? NULL : text;
}

int
files_check(const struct config *cfg, struct files_user user,
    enum log_level level)
{
	static const int checked[] = {
		ACCEPT, PSK, TICKET_KEYS, PIDFILE, LOG, STATS_FILE
	};
	struct place place;
	const char *path, *why;
	const struct value *v;
	size_t i;
	int r = 0;

	for (i = 0; i < sizeof(checked) / sizeof(checked[0]); i++) {
		for (v = cfg->given[checked[i]]; v != NULL; v = v->next) {
			if ((path = path_of(checked[i], v->text)) == NULL)
				continue;
			if (level == LEVEL_ERROR &&
			    cfg->is_wrong[checked[i]])
				continue;
			why = level == LEVEL_ERROR ?
			    files_fault(user, checked[i], path) :
			    find_place(user, path, &place);
			if (why == NULL)
				continue;
			log_at(level, "%s: %s: %s: %s", v->where,
			    options[checked[i]].name, v->text, why);
			if (level == LEVEL_ERROR)
				r = -1;
		}
	}
	return r;
}

void
files_warn_of_readers(const struct config *cfg)
{
	/* Check only read access here, not write access. */
	const struct files_user nobody = { geteuid(), getegid() };
	const int secrets[] = { cfg->given[KEY] != NULL ? KEY : CERT,
	    KEY_PASSWORD_FILE, PSK, TICKET_KEYS };
	struct place place;
	const struct value *v;
	char path[PATH_MAX];
	struct stat st;
	size_t i;

	for (i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
		for (v = cfg->given[secrets[i]]; v != NULL; v = v->next) {
			if (realpath(v->text, path) == NULL ||
			    stat(path, &st) == -1)
				continue;
			find_place(nobody, path, &place);
			if (place.is_open && (st.st_mode & S_IRWXO) != 0)
				log_warning("%s: %s: %s: other users have "
				    "access to it (mode %04o)", v->where,
				    options[secrets[i]].name, v->text,
				    (unsigned)st.st_mode & 07777);
		}
	}
}

FILE *
files_create(const char *name, mode_t mode)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW |
	    O_CLOEXEC, mode);
	FILE *fp = NULL;
	int saved;

	if (fd != -1 && (fchmod(fd, mode) == -1 ||
	    (fp = fdopen(fd, "w")) == NULL)) {
		saved = errno;
		unlink(name);
		close(fd);
		errno = saved;
	}
	return fp;
}

/*
 * A FIFO without a reader can't be opened for writing: open it for reading
 * meanwhile.
 */
int
files_open(const struct config *cfg, struct files_user user, int option,
    int flags, mode_t mode)
{
	const char *name = config_text(cfg, option);
	const char *why = files_fault(user, option, name);
	int fd = -1, reader = -1;
	struct stat st;

	flags |= O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	if (why == NULL && (fd = open(name, flags, mode)) == -1 &&
	    errno == ENXIO) {
		reader = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		fd = open(name, flags, mode);
	}
	if (reader != -1)
		close(reader);
	if (why == NULL)
		why = fd == -1 || fstat(fd, &st) == -1 ? strerror(errno) :
		    file_fault(option, &st);
	if (why == NULL)
		return fd;
	log_error("%s: %s: %s: %s", config_where(cfg, option),
	    options[option].name, name, why);
	if (fd != -1)
		close(fd);
	return -1;
}
