/* Unit tests of privileges: lookup and change of the identity. */
#include "../../lib/privileges.c"

#include <sys/wait.h>

#include "said.h"

static int
setup(void **state)
{
	(void)state;
	said_reset();
	return 0;
}

static int
find(struct identity *id, const char *user, const char *group,
    const char *root)
{
	const struct privileges p = { { user, "a:1" }, { group, "a:2" },
	    { root, "a:3" } };

	return privileges_find(id, &p);
}

static void
test_nothing_wanted(void **state)
{
	struct identity id;

	(void)state;
	assert_int_equal(find(&id, NULL, NULL, NULL), 0);
	assert_int_equal(id.uid, geteuid());
	assert_int_equal(id.gid, getegid());
	assert_false(id.drops);
	assert_null(id.root);
	assert_int_equal(privileges_drop(&id), 0);
	expect_silence();
}

static void
test_unknown(void **state)
{
	struct identity id;

	(void)state;
	assert_int_equal(find(&id, "no such user", "0", NULL), -1);
	expect_among("a:1: ", "unknown user \"no such user\"");
	assert_int_equal(find(&id, "4000000", NULL, NULL), -1);
	expect_among("a:1: ", "so group must be set");
	assert_int_equal(find(&id, NULL, "no such group", NULL), -1);
	expect_among("a:2: ", "unknown group \"no such group\"");
	assert_int_equal(find(&id, NULL, NULL, "/dev/null"), -1);
	expect_among("a:3: ", "chroot: /dev/null: not a directory");
}

static void
test_only_root(void **state)
{
	struct identity id;

	(void)state;
	if (geteuid() == 0)
		skip();
	assert_int_equal(find(&id, "0", "0", NULL), -1);
	expect_said("a:1: ", "only root can set user = 0");
	assert_int_equal(find(&id, NULL, NULL, "/"), -1);
	expect_said("a:3: ", "only root can set chroot = /");
}

/* In a child, as root can't be regained. */
static void
test_drop(void **state)
{
	struct identity id;
	int status;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(find(&id, "65533", "65534", "/"), 0);
	assert_int_equal(id.uid, 65533);
	assert_int_equal(id.gid, 65534);
	assert_true(id.drops);
	if ((pid = fork()) == 0) {
		gid_t groups[2];
		int ok = privileges_drop(&id) == 0 && getuid() == 65533 &&
		    getgid() == 65534 && getgroups(2, groups) == 1 &&
		    groups[0] == 65534 && setuid(0) == -1;

		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	expect_silence();
}

#define TEST(name)	cmocka_unit_test_setup(name, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_nothing_wanted),
		TEST(test_unknown),
		TEST(test_only_root),
		TEST(test_drop),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
