/* Unit tests of files: other writers, and unsuitable files. */
#include "../../lib/files.c"

#include "said.h"

static char directory[] = "/tmp/test_files.XXXXXX";

static char *
path(const char *name)
{
	static char text[sizeof(directory) + 32];

	snprintf(text, sizeof(text), "%s/%s", directory, name);
	return text;
}

static void
make(const char *name, mode_t mode)
{
	int fd = open(path(name), O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd != -1);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

/* The fault of a file; empty: none. */
static const char *
fault(int option, const char *name)
{
	const struct files_user ours = { geteuid(), getegid() };
	const char *why = files_fault(ours, option, path(name));

	return why != NULL ? why : "";
}

static void
test_directories(void **state)
{
	const struct files_user other = { geteuid() + 1, getegid() + 1 };
	const struct files_user group = { geteuid() + 1, getegid() };
	const char *why;

	(void)state;
	assert_string_equal(fault(PIDFILE, "new"), "");
	assert_string_equal(fault(PIDFILE, "no/new"), strerror(ENOENT));
	assert_null(files_fault(other, PIDFILE, path("new")));
	assert_int_equal(chmod(directory, 0770), 0);
	assert_string_equal(fault(PIDFILE, "new"), "");
	assert_null(files_fault(other, PIDFILE, path("new")));
	why = files_fault(group, PIDFILE, path("new"));
	assert_ptr_equal(strstr(why, "the workers' user can write to"), why);
	assert_int_equal(chmod(directory, 0707), 0);
	why = fault(ACCEPT, "socket");
	assert_ptr_equal(strstr(why, "anyone can write to"), why);
	assert_non_null(strstr(why, directory));
	/* Sticky, as /tmp: files can only be replaced by their owner. */
	assert_int_equal(chmod(directory, 01707), 0);
	assert_string_equal(fault(ACCEPT, "socket"), "");
	assert_int_equal(chmod(directory, 0700), 0);
}

static void
test_kinds(void **state)
{
	char file[sizeof(directory) + 32];

	(void)state;
	make("file", 0644);
	assert_string_equal(fault(LOG, "file"), "");
	snprintf(file, sizeof(file), "%s", path("file"));
	assert_int_equal(symlink("file", path("soft")), 0);
	assert_string_equal(fault(LOG, "soft"), "it is a link");
	assert_string_equal(fault(TICKET_KEYS, "soft"), "");
	assert_int_equal(link(file, path("hard")), 0);
	assert_string_equal(fault(LOG, "hard"), "it is a link");
	assert_int_equal(mkfifo(path("fifo"), 0600), 0);
	assert_string_equal(fault(LOG, "fifo"), "");
	assert_string_equal(fault(PIDFILE, "fifo"),
	    "not a regular file");
	assert_int_equal(mkdir(path("directory"), 0700), 0);
	assert_string_equal(fault(LOG, "directory"),
	    "not a regular file");
	/* For a socket, only the directory is checked. */
	assert_string_equal(fault(ACCEPT, "fifo"), "");
	make("keys", 0606);
	assert_string_equal(fault(TICKET_KEYS, "keys"),
	    "other users can write to it");
	unlink(file);
	unlink(path("soft"));
	unlink(path("hard"));
	unlink(path("fifo"));
	unlink(path("keys"));
	rmdir(path("directory"));
}

/* A secret is only written to a new file with mode 0600. */
static void
test_create(void **state)
{
	struct stat st;
	FILE *fp;

	(void)state;
	fp = files_create(path("secret"), 0600);
	assert_non_null(fp);
	assert_int_equal(fstat(fileno(fp), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(is_ours(&st));
	fclose(fp);
	assert_null(files_create(path("secret"), 0600));
	assert_int_equal(errno, EEXIST);
	unlink(path("secret"));
	assert_null(files_create(path("no/secret"), 0600));
	assert_int_equal(errno, ENOENT);
}

static void
test_open(void **state)
{
	const struct files_user ours = { geteuid(), getegid() };
	char where[] = WHERE;
	struct value given = { .text = path("pid"), .where = where };
	struct config cfg = { .given[PIDFILE] = &given };
	int fd;

	(void)state;
	said_reset();
	fd = files_open(&cfg, ours, PIDFILE, O_RDWR, 0600);
	assert_true(fd != -1);
	close(fd);
	expect_silence();
	unlink(given.text);
	assert_int_equal(symlink("nowhere", given.text), 0);
	assert_int_equal(files_open(&cfg, ours, PIDFILE, O_RDWR, 0600), -1);
	expect_said(WHERE, "it is a link");
	assert_int_equal(files_check(&cfg, ours, LEVEL_ERROR), -1);
	expect_said(WHERE, "it is a link");
	/* Reported already. */
	cfg.is_wrong[PIDFILE] = 1;
	assert_int_equal(files_check(&cfg, ours, LEVEL_ERROR), 0);
	expect_silence();
	unlink(given.text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_open),
	};
	int r;

	if (said_init() == -1 || mkdtemp(directory) == NULL)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(directory);
	return r;
}
