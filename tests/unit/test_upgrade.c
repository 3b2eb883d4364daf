/* Unit tests of the upgrade, without executing a program. */
#include "../../lib/upgrade.c"

#include <sys/resource.h>

#include "said.h"

static void
test_environment(void **state)
{
	static char a[] = "A=1", *none[] = { NULL }, *from[] = { a, NULL };
	char **env;

	(void)state;
	env = environment(none, 5, -1);
	assert_string_equal(env[0], "TUNNEL_STATE=5");
	assert_null(env[1]);
	free(env);
	env = environment(from, 6, 7);
	assert_string_equal(env[0], "A=1");
	assert_string_equal(env[1], "TUNNEL_STATE=6");
	assert_string_equal(env[2], "TUNNEL_BEFORE=7");
	assert_null(env[3]);
	free(env);
}

/* Only an answer of this version and process is accepted. */
static void
test_answer(void **state)
{
	int fd = memory_file();
	const char *why;

	(void)state;
	assert_int_not_equal(fd, -1);
	why = find_fault(fd, getpid());
	assert_non_null(strstr(why, "it is not tunnel, or"));
	assert_int_equal(upgrade_answer(fd), 0);
	assert_null(find_fault(fd, getpid()));
	why = find_fault(fd, getpid() + 1);
	assert_non_null(strstr(why, "in another process"));
	assert_int_equal(pwrite(fd, "T", 1, 0), 1);
	why = find_fault(fd, getpid());
	assert_non_null(strstr(why, "restart to upgrade"));
	assert_int_equal(ftruncate(fd, 3), 0);
	why = find_fault(fd, getpid());
	assert_non_null(strstr(why, "it is not tunnel, or"));
	close(fd);
}

/* Path, arguments and environment are handed over. */
static void
test_start(void **state)
{
	static char name[] = "/sbin/tunnel", word[] = "a=b", *argv[] = { name,
	    word, NULL }, *env[] = { NULL };
	struct upgrade u = { .path = name, .argv = argv, .env = env }, v =
	    { .program = -1 };
	struct handover x = { .reads = 0 };
	int fd;

	(void)state;
	upgrade_carry(&x, &u);
	assert_null(x.bad);
	assert_int_not_equal(fd = handover_seal(&x), -1);
	handover_free(&x);
	handover_open(&x, fd);
	close(fd);
	upgrade_carry(&x, &v);
	assert_null(x.bad);
	assert_int_equal(x.at, x.size);
	handover_free(&x);
	assert_string_equal(v.path, name);
	assert_string_equal(v.argv[1], word);
	assert_null(v.argv[2]);
	assert_null(v.env[0]);
	upgrade_free(&v, argv);

	x = (struct handover){ .reads = 0 };
	u.argv = env;
	upgrade_carry(&x, &u);
	assert_string_equal(x.bad, "it has no program");
	handover_free(&x);
}

/* check_room() requires free descriptors, and leaves none open. */
static void
test_room(void **state)
{
	struct rlimit limit, was;
	int fd = memory_file(), next = dup(fd);

	(void)state;
	close(next);
	assert_int_equal(check_room(fd), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	limit = was;
	limit.rlim_cur = (rlim_t)next + TAKEOVER_FDS - 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(check_room(fd), -1);
	assert_int_equal(errno, EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_int_equal(dup(fd), next);
	close(next);
	close(fd);
}

/* A slow trial is killed once; after a successful one, a takeover is due. */
static void
test_trial(void **state)
{
	static char name[] = "tunnel";
	struct upgrade u = { .path = name, .trial = fork(), .output = -1,
	    .answer = -1, .until = clock_ms() };
	int status;

	(void)state;
	if (u.trial == 0)
		for (;;)
			pause();
	assert_int_not_equal(u.trial, -1);
	said_reset();
	assert_int_equal(upgrade_step(&u, 0), 0);
	assert_non_null(strstr(said(), "tunnel -t took more than 60 s: "
	    "killed"));
	assert_int_equal(upgrade_step(&u, 0), 0);
	assert_string_equal(said(), "");
	assert_int_equal(waitpid(u.trial, &status, 0), u.trial);
	assert_int_equal(upgrade_reaped(&u, getpid(), 0), 0);
	u.output = memory_file();
	u.answer = memory_file();
	assert_int_equal(upgrade_reaped(&u, u.trial, status), 1);
	assert_non_null(strstr(said(), "was killed by signal 9"));
	assert_int_equal(u.trial, 0);
	assert_int_equal(u.output, -1);
	assert_int_equal(upgrade_step(&u, 0), 0);

	u.answer = memory_file();
	u.trial = getpid();
	assert_int_equal(upgrade_answer(u.answer), 0);
	assert_int_equal(upgrade_reaped(&u, getpid(), 0), 1);
	assert_int_equal(upgrade_step(&u, 0), 1);
	assert_int_equal(upgrade_step(&u, 0), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_answer),
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_trial),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
