/* Unit tests of the arguments: the command line, and the environment. */
#include "../../lib/arguments.c"

#include "defaults.h"
#include "said.h"

/* Letters mixed with keys, up to --. */
static void
test_letters(void **state)
{
	char *argv[] = { "tunnel", "accept=1", "-ti", "-c", "file", "connect=2",
	    "-vd", "--", "-x", "y=z", NULL };
	char *generate[] = { "tunnel", "-gname", "-o", "file", NULL };
	static const char *const settings[] = { "accept=1", "connect=2",
	    "log_level=debug", "daemon=yes" };
	struct arguments a = { 0 };
	size_t i;

	(void)state;
	optind = 1;
	assert_int_equal(arguments_parse(&a, LEN(argv) - 1, argv), 0);
	expect_silence();
	assert_int_equal(a.nsettings, LEN(settings));
	for (i = 0; i < LEN(settings); i++)
		assert_string_equal(a.settings[i], settings[i]);
	assert_string_equal(a.file, "file");
	assert_true(a.test && a.inetd && !a.help && !a.version);
	assert_string_equal(a.command[0], "-x");
	assert_string_equal(a.command[1], "y=z");
	assert_null(a.command[2]);
	free(a.settings);
	a = (struct arguments){ 0 };
	optind = 1;
	assert_int_equal(arguments_parse(&a, LEN(generate) - 1, generate), 0);
	assert_string_equal(a.names, "name");
	assert_string_equal(a.output, "file");
	free(a.settings);
	expect_silence();
}

static void
write_file(const char *name, const char *text)
{
	FILE *fp = fopen(name, "w");

	assert_non_null(fp);
	fputs(text, fp);
	assert_int_equal(fclose(fp), 0);
}

/* Each reload uses the same arguments again. */
static void
test_configure_again(void **state)
{
	static const char *settings[] = { "connect=2", "log_level=debug" };
	char *none[] = { NULL }, name[] = "/tmp/test_arguments.XXXXXX";
	struct arguments a = { .file = name, .command = none,
	    .settings = settings, .nsettings = LEN(settings), .passed = 2 };
	struct config *cfg = *state;

	assert_true(close(mkstemp(name)) == 0);
	write_file(name, "cert = x\n");
	assert_int_equal(arguments_configure(&a, cfg), 0);
	assert_string_equal(cfg->given[ACCEPT]->text, "fd:3");
	assert_string_equal(cfg->given[ACCEPT]->next->text, "fd:4");
	assert_null(cfg->given[ACCEPT]->next->next);
	config_free(cfg);
	write_file(name, "cert = y\naccept = 1\nconnect = 3\n");
	assert_int_equal(arguments_configure(&a, cfg), 0);
	assert_string_equal(cfg->given[CERT]->text, "y");
	assert_string_equal(cfg->given[ACCEPT]->text, "1");
	assert_null(cfg->given[ACCEPT]->next);
	assert_string_equal(cfg->given[CONNECT]->text, "2");
	assert_int_equal(cfg->number[LOG_LEVEL], LEVEL_DEBUG);
	unlink(name);
	expect_silence();
}

/* LISTEN_FDS with another LISTEN_PID is ignored. */
static void
test_environment(void **state)
{
	char pid[16], other[16], text[16];
	struct arguments a = { 0 };

	(void)state;
	snprintf(text, sizeof(text), "%d", log_fd());
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(other, sizeof(other), "%d", (int)getppid());
	setenv("LISTEN_PID", other, 1);
	setenv("LISTEN_FDS", "1", 1);
	arguments_environment(&a);
	assert_int_equal(a.passed, 0);
	assert_null(a.notify);
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "many", 1);
	arguments_environment(&a);
	assert_int_equal(a.passed, 0);
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "2", 1);
	setenv("LISTEN_FDNAMES", "a:b", 1);
	setenv("NOTIFY_SOCKET", "@x", 1);
	arguments_environment(&a);
	assert_int_equal(a.passed, 2);
	assert_string_equal(a.notify, "@x");
	setenv("TUNNEL_BEFORE", text, 1);
	arguments_environment(&a);
	assert_int_equal(a.before, -1);
	setenv("TUNNEL_STATE", text, 1);
	setenv("TUNNEL_BEFORE", text, 1);
	arguments_environment(&a);
	assert_int_equal(a.state, log_fd());
	assert_int_equal(a.before, log_fd());
	assert_null(getenv("TUNNEL_STATE"));
	assert_null(getenv("TUNNEL_BEFORE"));
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("NOTIFY_SOCKET");
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_letters),
		TEST(test_configure_again),
		TEST(test_environment),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
