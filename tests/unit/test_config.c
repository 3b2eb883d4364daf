/*
 * Unit tests of the configuration: lines, files, arguments.
 *
 * TUNNEL_RUNS	number of lines of garbage (30000)
 * TUNNEL_SEED	the first seed (1); a failure prints its seed
 */
#include "../../lib/config.c"

#include "defaults.h"
#include "said.h"

static char directory[] = "/tmp/test_config.XXXXXX";

static int
line_of(struct config *cfg, const char *where, const char *bytes, size_t len)
{
	char *copy = malloc(len + 1);	/* exact size, for the sanitizers */
	int r;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	if (len > 0 && copy[len - 1] == '\n')
		copy[--len] = '\0';
	r = config_line(cfg, RANK_FILE, where, copy, len);
	free(copy);
	return r;
}

static int
line(struct config *cfg, const char *text)
{
	return line_of(cfg, WHERE, text, strlen(text));
}

static const char *
file_name(void)
{
	static char name[sizeof(directory) + 16];

	snprintf(name, sizeof(name), "%s/conf", directory);
	return name;
}

static const char *
write_file(const char *bytes, size_t len)
{
	int fd;

	fd = open(file_name(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd != -1);
	assert_int_equal(write(fd, bytes, len), len);
	close(fd);
	return file_name();
}

static int
file(struct config *cfg, const char *text)
{
	return config_file(cfg, write_file(text, strlen(text)));
}

static void
test_defaults(void **state)
{
	const struct config *cfg = *state;

	assert_int_equal(cfg->number[MAX_CONNECTIONS], 1000);
	assert_int_equal(cfg->number[HANDSHAKE_TIMEOUT], 10000);
	assert_int_equal(cfg->number[CONNECT_TIMEOUT], 5000);
	assert_int_equal(cfg->number[IDLE_TIMEOUT], 0);
	assert_int_equal(cfg->number[HALF_CLOSE_TIMEOUT], 60000);
	assert_int_equal(cfg->number[DRAIN_TIMEOUT], 30000);
	assert_string_equal(config_text(cfg, LOG), "stderr");
	assert_null(config_text(cfg, ACCEPT));
	assert_string_equal(config_where(cfg, LOG), "default");
	expect_silence();
}

/* A word that is allowed in place of a number is 0. */
static void
test_words_for_zero(void **state)
{
	struct config *cfg = *state;

	cfg->number[IDLE_TIMEOUT] = cfg->number[WORKERS] =
	    cfg->number[MAX_PER_IP] = 9;
	assert_int_equal(line(cfg, "idle_timeout = off"), 0);
	assert_int_equal(line(cfg, "workers = auto"), 0);
	assert_int_equal(line(cfg, "max_per_ip = off"), 0);
	expect_silence();
	assert_int_equal(cfg->number[IDLE_TIMEOUT], 0);
	assert_int_equal(cfg->number[WORKERS], 0);
	assert_int_equal(cfg->number[MAX_PER_IP], 0);
}

/* Errors name the wrong value and the allowed ones. */
static void
test_bad_values(void **state)
{
	static const char *const bad[][2] = {
		{ "max_connections = 0", "1 to 1000000" },
		{ "max_connections = 1000001", "1 to 1000000" },
		{ "max_connections = many", "\"many\"" },
		{ "idle_timeout = 5", "s, m, h or d" },
		{ "idle_timeout = 0s", "off" },
		{ "idle_timeout = auto", "off, or a number" },
		{ "workers = 0", "auto, or 1 to 256" },
		{ "workers = 257", "auto, or 1 to 256" },
		{ "workers = off", "auto, or 1 to 256" },
		{ "max_per_ip = 0", "off, or 1 to 1000000" },
		{ "mode = threads", "poll, fork" },
		{ "handshake_timeout = 2h", "1s to 1h" },
		{ "log_level = loud",
		    "error, warning, notice, info, debug" },
		{ "daemon = maybe", "no, yes" },
		{ "tls_min = 1.1", "1.2, 1.3" },
		{ "truncation = EOF", "reset, eof" },
		{ "accept =", "has no value" },
		{ "accept", "not a setting" },
		{ "= 5", "unknown key \"\"" },
		{ "=", "unknown key \"\"" },
		{ "accept 443", "not a setting" },
		{ "[service]", "[sections] are not supported" },
		{ "[a b]", "/etc/tunnel/a-b.conf" },
		{ "[../x]", "/etc/tunnel/..-x.conf" },
		{ "[", "[sections] are not supported" },
		{ "acc ept = 443", "unknown key \"acc ept\"" },
		{ "Accept = 443", "unknown key \"Accept\"" },
		{ "accept\x1b[2J = 443", "a control character" },
	};
	struct config *cfg = *state;
	size_t i, j;

	for (i = 0; i < LEN(bad); i++) {
		assert_int_equal(line(cfg, bad[i][0]), -1);
		expect_said(WHERE, bad[i][1]);
	}
	for (j = 0; j < OPTIONS; j++)
		assert_null(cfg->given[j]);
}

/* Lines. */

static void
test_lines(void **state)
{
	static const char *const good[] = {
		"accept=1:2\n", "accept = 1:2\n", "  accept\t=\t1:2  \n",
		"\taccept =1:2\t\n", "accept = 1:2", "accept   =   1:2\n"
	};
	static const char *const empty[] = {
		"", "\n", "   \n", "\t", "#", "# accept = 1", "  # x = y\n",
		"#accept = 1\n"
	};
	struct config *cfg = *state;
	const struct value *v;
	size_t i;

	for (i = 0; i < LEN(empty); i++)
		assert_int_equal(line(cfg, empty[i]), 0);
	assert_null(cfg->given[ACCEPT]);
	for (i = 0; i < LEN(good); i++)
		assert_int_equal(line(cfg, good[i]), 0);
	for (i = 0, v = cfg->given[ACCEPT]; v != NULL; v = v->next, i++) {
		assert_string_equal(v->text, "1:2");
		assert_string_equal(v->where, WHERE);
	}
	assert_int_equal(i, LEN(good));
	/* Only the first = separates, and # is a comment only at the start. */
	assert_int_equal(line(cfg, "exec = a=b#c\n"), 0);
	assert_string_equal(config_text(cfg, EXEC), "a=b#c");
	expect_silence();
	assert_int_equal(line(cfg, "cert = a.pem # mine\n"), -1);
	expect_said(WHERE, "comment");
	assert_int_equal(line(cfg, "cert = a.pem\t# mine\n"), -1);
	expect_said(WHERE, "comment");
}

static void
test_not_text(void **state)
{
	static char longest[LINE_MAX_LEN + 2] = "exec = ";
	struct config *cfg = *state;

	assert_int_equal(line_of(cfg, WHERE, "acc\0ept = 1", 11), -1);
	expect_said(WHERE, "NUL");
	assert_int_equal(line_of(cfg, WHERE, "accept = 1\0", 11), -1);
	expect_said(WHERE, "NUL");
	assert_int_equal(line_of(cfg, WHERE, "\0\0\0", 3), -1);
	expect_said(WHERE, "NUL");
	assert_int_equal(line(cfg, "accept = 443\r\n"), -1);
	expect_said(WHERE, "carriage return");
	assert_int_equal(line(cfg, "\r\n"), -1);
	expect_said(WHERE, "carriage return");
	memset(longest + 7, 'x', sizeof(longest) - 8);
	assert_int_equal(strlen(longest), LINE_MAX_LEN + 1);
	assert_int_equal(line(cfg, longest), -1);
	expect_said(WHERE, "4097 bytes");
	longest[LINE_MAX_LEN] = '\0';
	assert_int_equal(line(cfg, longest), 0);
	assert_int_equal(strlen(config_text(cfg, EXEC)), LINE_MAX_LEN - 7);
	/* The quoted part is cut, not the end of the message. */
	memset(longest, 'y', LINE_MAX_LEN);
	assert_int_equal(line(cfg, longest), -1);
	expect_said(WHERE, "a comment begins with # or ;)");
}

static void
test_once_or_often(void **state)
{
	struct config *cfg = *state;

	assert_int_equal(line(cfg, "log = /a\n"), 0);
	assert_int_equal(line_of(cfg, "tunnel.conf:13", "log = /a\n", 9), -1);
	expect_said("tunnel.conf:13", "already set (" WHERE);
	assert_int_equal(line(cfg, "connect = 1\n"), 0);
	assert_int_equal(line(cfg, "connect = 2\n"), 0);
	assert_string_equal(cfg->given[CONNECT]->text, "1");
	assert_string_equal(cfg->given[CONNECT]->next->text, "2");
	assert_null(cfg->given[CONNECT]->next->next);
	expect_silence();
}

/* Files. */

static void
test_file(void **state)
{
	struct config *cfg = *state;
	char where[sizeof(directory) + 16];

	assert_int_equal(file(cfg, ""), 0);
	assert_int_equal(file(cfg, "# all of it\n\naccept = 443\n\n"
	    "max_connections = 7\ncert = a.pem"), 0);
	expect_silence();
	assert_string_equal(config_text(cfg, CERT), "a.pem");
	assert_int_equal(cfg->number[MAX_CONNECTIONS], 7);
	snprintf(where, sizeof(where), "%s/conf:3", directory);
	assert_string_equal(config_where(cfg, ACCEPT), where);
	snprintf(where, sizeof(where), "%s/conf:6", directory);
	assert_string_equal(config_where(cfg, CERT), where);
	/* All errors are reported. */
	assert_int_equal(file(cfg, "\n# x\nnonsense = 1\nworse\n"), -1);
	snprintf(where, sizeof(where), "%s/conf:4: ", directory);
	expect_among(where, "\"worse\"");
	assert_int_equal(file(cfg, "\n# x\nnonsense = 1\nworse\n"), -1);
	snprintf(where, sizeof(where), "%s/conf:3: ", directory);
	expect_among(where, "\"nonsense\"");
	assert_int_equal(file(cfg, "key = a\nkey = b\r\n"), -1);
	snprintf(where, sizeof(where), "%s/conf:2: ", directory);
	expect_said(where, "carriage return");
}

static void
test_file_not_text(void **state)
{
	static char big[1024 * 1024 + 8];
	char where[sizeof(directory) + 16], name[sizeof(directory) + 16];
	struct config *cfg = *state;

	snprintf(where, sizeof(where), "%s/conf:2: ", directory);
	memset(big, 'x', sizeof(big));
	memcpy(big, "#\nlog = ", 8);
	assert_int_equal(config_file(cfg, write_file(big, sizeof(big))), -1);
	expect_said(where, "the line is too long: 1048582 bytes");
	memset(big, 0, sizeof(big));
	memcpy(big, "#\n", 2);
	assert_int_equal(config_file(cfg, write_file(big, sizeof(big))), -1);
	expect_said(where, "NUL");
	snprintf(name, sizeof(name), "%s/none", directory);
	assert_int_equal(config_file(cfg, name), -1);
	expect_said(name, strerror(ENOENT));
	assert_int_equal(config_file(cfg, directory), -1);
	expect_said(directory, "not a regular file");
}

/* The line number is reported also after a long path. */
static void
test_file_with_long_path(void **state)
{
	char name[1024], where[1040];
	size_t n;

	write_file("nonsense = 1\n", 13);
	n = (size_t)snprintf(name, sizeof(name), "%s", directory);
	while (n < 600)
		n += (size_t)snprintf(name + n, sizeof(name) - n, "/.");
	snprintf(name + n, sizeof(name) - n, "/conf");
	snprintf(where, sizeof(where), "%s:1: ", name);
	assert_int_equal(config_file(*state, name), -1);
	expect_said(where, "nonsense");
}

/* Arguments. */

static void
test_arguments_win(void **state)
{
	struct config *cfg = *state;

	assert_int_equal(config_argument(cfg, "log=/arg"), 0);
	assert_int_equal(config_argument(cfg, "connect=1"), 0);
	assert_int_equal(config_argument(cfg, "connect=2"), 0);
	assert_int_equal(config_argument(cfg, "idle_timeout=3s"), 0);
	assert_int_equal(file(cfg, "log = /file\nconnect = 9\n"
	    "idle_timeout = 9s\nhalf_close_timeout = 8s\n"), 0);
	expect_silence();
	assert_string_equal(config_text(cfg, LOG), "/arg");
	assert_string_equal(config_where(cfg, LOG), "command line");
	assert_string_equal(cfg->given[CONNECT]->text, "1");
	assert_string_equal(cfg->given[CONNECT]->next->text, "2");
	assert_null(cfg->given[CONNECT]->next->next);
	assert_int_equal(cfg->number[IDLE_TIMEOUT], 3000);
	assert_int_equal(cfg->number[HALF_CLOSE_TIMEOUT], 8000);
	/* An overridden value must be valid, too. */
	assert_int_equal(line(cfg, "idle_timeout = 9\n"), -1);
	expect_said(WHERE, "idle_timeout = \"9\"");
	assert_int_equal(cfg->number[IDLE_TIMEOUT], 3000);
}

static void
test_argument_errors(void **state)
{
	struct config *cfg = *state;

	assert_int_equal(config_argument(cfg, "tunnel.conf"), -1);
	expect_said("argument \"tunnel.conf\"", "-c");
	assert_int_equal(config_argument(cfg, ""), -1);
	expect_said("argument \"\"", "not a setting");
	assert_int_equal(config_argument(cfg, "acept=1"), -1);
	expect_said("command line", "\"acept\"");
	assert_int_equal(config_argument(cfg, "accept="), -1);
	expect_said("command line", "no value");
	assert_int_equal(config_argument(cfg, "log=a"), 0);
	assert_int_equal(config_argument(cfg, "log=b"), -1);
	expect_said("command line", "already set");
}

/* Required options. */

static void
test_check(void **state)
{
	struct config *cfg = *state;
	char *command[] = { "true", "x", NULL };

	assert_int_equal(config_check(cfg, 0), -1);
	expect_among("missing: accept =", "");
	assert_int_equal(config_check(cfg, 0), -1);
	expect_among("missing: connect =", "");
	cfg->is_wrong[CONNECT] = 1;
	assert_int_equal(config_check(cfg, 1), -1);
	expect_said("missing", "cert =");
	cfg->is_wrong[CONNECT] = 0;
	assert_int_equal(line(cfg, "accept = 1"), 0);
	assert_int_equal(line(cfg, "cert = x"), 0);
	assert_int_equal(config_check(cfg, 0), -1);
	expect_said("missing", "connect =");
	assert_int_equal(line(cfg, "connect = 2"), 0);
	assert_int_equal(config_check(cfg, 0), 0);
	expect_silence();
	assert_int_equal(config_command(cfg, command), 0);
	assert_int_equal(config_check(cfg, 0), -1);
	expect_said(WHERE, "are mutually exclusive");
}

static void
test_command(void **state)
{
	char *none[] = { NULL }, *many[COMMAND_WORDS + 2];
	struct config *cfg = *state;
	size_t i;

	assert_int_equal(config_command(cfg, none), 0);
	assert_null(cfg->command);
	assert_int_equal(line(cfg, "exec = /bin/echo  a\tb=c "), 0);
	assert_int_equal(config_command(cfg, none), 0);
	assert_string_equal(cfg->command[0], "/bin/echo");
	assert_string_equal(cfg->command[1], "a");
	assert_string_equal(cfg->command[2], "b=c");
	assert_null(cfg->command[3]);
	config_free(cfg);
	for (i = 0; i < LEN(many); i++)
		many[i] = i < COMMAND_WORDS - 1 ? "w" : NULL;
	assert_int_equal(config_command(cfg, many), 0);
	config_free(cfg);
	many[COMMAND_WORDS - 1] = many[COMMAND_WORDS] = "w";
	assert_int_equal(config_command(cfg, many), -1);
	expect_said("command line", "more than 63 words");
}

/* Print a configuration to a file, which must give the same configuration. */

static void
print_to_file(const struct config *cfg)
{
	FILE *fp = fopen(file_name(), "w");

	assert_non_null(fp);
	config_print(cfg, fp);
	assert_int_equal(fclose(fp), 0);
}

static void
same_again(const struct config *cfg)
{
	const struct value *v, *w;
	struct config again = { 0 };
	int i;

	print_to_file(cfg);
	config_defaults(&again);
	assert_int_equal(config_file(&again, file_name()), 0);
	config_defaults_of_role(&again);
	expect_silence();
	for (i = 0; i < OPTIONS; i++) {
		assert_true(cfg->number[i] == again.number[i]);
		v = cfg->given[i];
		w = again.given[i];
		if (v == NULL && w != NULL)
			assert_string_equal(w->text, option_fallback(i,
			    config_is_client(cfg)));
		for (; v != NULL; v = v->next, w = w->next) {
			assert_non_null(w);
			assert_string_equal(v->text, w->text);
			assert_true((v->next == NULL) == (w->next == NULL));
		}
	}
	config_free(&again);
}

/* Options of one role: set the role and another line. */

static struct config *
role(struct config *cfg, const char *client, const char *more)
{
	config_free(cfg);
	config_defaults(cfg);
	assert_int_equal(line(cfg, "accept = 1"), 0);
	assert_int_equal(line(cfg, "connect = 2"), 0);
	if (strcmp(client, "client = yes") != 0)
		assert_int_equal(line(cfg, "cert = x"), 0);
	assert_int_equal(line(cfg, client), 0);
	assert_int_equal(line(cfg, more), 0);
	config_defaults_of_role(cfg);
	return cfg;
}

static void
test_roles(void **state)
{
	static const struct { const char *line, *client, *server; } lines[] = {
		{ "# none", NULL, NULL }, { "verify = none", NULL, NULL },
		{ "verify = require", NULL, NULL },
		{ "verify = request", "(allowed with client = yes: none",
		    NULL },
		{ "server_name = a.example", NULL, "with client = no" },
		{ "server_name = off", NULL, "with client = no" },
		{ "server_name = ::1", NULL, "with client = no" },
		{ "sni_strict = no", "with client = yes", NULL },
		{ "ticket_keys = x", "with client = yes", NULL },
		{ "exec = true", "(allowed: connect)", "mutually exclusive" },
		{ "ca = x", NULL, "(allowed: request, require)" },
		{ "key = x", "no effect without cert", NULL },
		{ "key_password_file = x", "no effect without cert", NULL },
	};
	char *none[] = { NULL };
	struct config *cfg = *state;
	size_t i;

	for (i = 0; i < LEN(lines); i++) {
		role(cfg, "client = yes", lines[i].line);
		assert_int_equal(config_command(cfg, none), 0);
		assert_int_equal(config_check(cfg, 0),
		    lines[i].client != NULL ? -1 : 0);
		if (lines[i].client != NULL)
			expect_said(WHERE, lines[i].client);
		role(cfg, "client = no", lines[i].line);
		assert_int_equal(config_command(cfg, none), 0);
		assert_int_equal(config_check(cfg, 0),
		    lines[i].server != NULL ? -1 : 0);
		if (lines[i].server != NULL)
			expect_said(WHERE, lines[i].server);
		expect_silence();
	}
}

/* Defaults depend on the role, in any order of lines. */
static void
test_defaults_of_roles(void **state)
{
	struct config *cfg = *state;

	role(cfg, "client = yes", "# none");
	assert_int_equal(cfg->number[VERIFY], VERIFY_REQUIRE);
	assert_string_equal(config_text(cfg, VERIFY), "require");
	assert_null(config_text(cfg, SNI_STRICT));
	same_again(cfg);
	role(cfg, "client = no", "# none");
	assert_int_equal(cfg->number[VERIFY], VERIFY_NONE);
	assert_string_equal(config_text(cfg, VERIFY), "none");
	assert_string_equal(config_text(cfg, SNI_STRICT), "no");
	same_again(cfg);
	role(cfg, "client = yes", "verify = none");
	assert_int_equal(cfg->number[VERIFY], VERIFY_NONE);
	same_again(cfg);
	/* The role is unknown: no further errors. */
	role(cfg, "# none", "ca = x");
	assert_int_equal(line(cfg, "sni_strict = yes"), 0);
	assert_int_equal(line(cfg, "server_name = x"), 0);
	assert_int_equal(line(cfg, "client = maybe"), -1);
	expect_said(WHERE, "no, yes");
	config_defaults_of_role(cfg);
	assert_int_equal(config_check(cfg, 0), 0);
	expect_silence();
}

static void
test_print(void **state)
{
	struct config *cfg = *state;
	size_t i;

	/* Defaults are printed too, and nothing else. */
	same_again(cfg);
	config_free(cfg);
	config_defaults(cfg);
	print_to_file(cfg);
	assert_int_equal(config_file(cfg, file_name()), 0);
	for (i = 0; i < OPTIONS; i++)
		assert_true((cfg->given[i] != NULL) ==
		    (options[i].fallback != NULL));
	config_free(cfg);
	config_defaults(cfg);
	assert_int_equal(file(cfg, "accept = [::1]:443\naccept = unix:/a b\n"
	    "connect = 6379\ncert = a#b = c\nidle_timeout = 12h\n"
	    "max_connections = 00012\ntls_min = 1.3\ndaemon = yes\n"
	    "log_level = debug\nexec = cat -n\n"), 0);
	assert_int_equal(config_argument(cfg, "connect=7"), 0);
	expect_silence();
	same_again(cfg);
}

/* An argument must be valid as a line of a file, to be printed as one. */
static void
test_print_arguments(void **state)
{
	static char argument[LINE_MAX_LEN + 100] = "log=";
	static const char *const odd[] = {
		"log=/a\nnonsense = 1", "log=/a # b", "log=/a\rb", argument
	};
	struct config cfg;
	size_t i;

	(void)state;
	memset(argument + 4, 'x', sizeof(argument) - 5);
	for (i = 0; i < LEN(odd); i++) {
		memset(&cfg, 0, sizeof(cfg));
		config_defaults(&cfg);
		if (config_argument(&cfg, odd[i]) == 0)
			same_again(&cfg);
		else
			expect_said("command line", "");
		config_free(&cfg);
	}
}

/* Garbage: thousands of random lines, by a seed. */

static uint64_t rnd_state;

static size_t
rnd(size_t n)
{
	rnd_state ^= rnd_state >> 12;
	rnd_state ^= rnd_state << 25;
	rnd_state ^= rnd_state >> 27;
	return (size_t)((rnd_state * 0x2545f4914f6cdd1du) >> 32) % n;
}

static unsigned long
setting(const char *name, unsigned long fallback)
{
	const char *text = getenv(name);

	return text != NULL ? strtoul(text, NULL, 10) : fallback;
}

static size_t
some_value(char *out, size_t size)
{
	static const char *const values[] = {
		"off", "1s", "0", "99999999999999999999", "yes", "1.2", "%s%n",
		"unix:/x", "[::1]:443", "-1", "443", "\"", "debug", "=", "#"
	};
	static const char alphabet[] = " \t=#\"\\%-0129smhdxyz:/[]\r\x01\xff";
	size_t i, n;

	if (rnd(2) == 0)
		return (size_t)snprintf(out, size, "%s",
		    values[rnd(LEN(values))]);
	n = rnd(rnd(8) == 0 ? size : 24);
	for (i = 0; i < n; i++)
		out[i] = alphabet[rnd(sizeof(alphabet) - 1)];
	return n;
}

/* Three kinds: any bytes; plausible letters; a key with such letters. */
static size_t
some_line(char *out, size_t size)
{
	static const char *const others[] = {
		"CAfile", "checkHost", "curves", "debug", "options", "output",
		"socket", "sslVersion", "TIMEOUTidle", "verifyPeer"
	};
	size_t i, n = 0;

	switch (rnd(3)) {
	case 0:
		n = rnd(rnd(8) == 0 ? size : 40);
		for (i = 0; i < n; i++)
			out[i] = (char)rnd(256);
		break;
	case 1:
		n = some_value(out, size);
		break;
	default:
		n = (size_t)snprintf(out, size, "%s%s", rnd(4) != 0 ?
		    options[rnd(OPTIONS)].name : others[rnd(LEN(others))],
		    rnd(8) == 0 ? " " : " = ");
		n += some_value(out + n, size - n);
		break;
	}
	if (n > 0 && rnd(16) == 0)
		out[rnd(n)] = (char)rnd(256);
	if (n < size && rnd(2) == 0)
		out[n++] = '\n';
	return n;
}

static void
test_garbage(void **state)
{
	unsigned long i, n = setting("TUNNEL_RUNS", 30000), taken = 0;
	unsigned long first = setting("TUNNEL_SEED", 1);
	char bytes[2 * LINE_MAX_LEN];
	struct config cfg;
	const char *text;
	size_t len;
	int r;

	(void)state;
	for (i = 0; i < n; i++) {
		rnd_state = (first + i) * 0x9e3779b97f4a7c15u + 99;
		memset(&cfg, 0, sizeof(cfg));
		config_defaults(&cfg);
		len = some_line(bytes, sizeof(bytes));
		r = line_of(&cfg, WHERE, bytes, len);
		config_defaults_of_role(&cfg);
		text = said();
		if (r == 0 ? *text != '\0' : r != -1 || !is_sentence(text) ||
		    strstr(text, WHERE ": ") != text + 15)
			fail_msg("TUNNEL_SEED=%lu: %d, \"%s\"", first + i, r,
			    text);
		if (r == 0)
			same_again(&cfg);
		taken += r == 0;
		config_free(&cfg);
	}
	/* Check that many lines are accepted, and many refused. */
	assert_true(taken >= n / 50 && taken <= n / 2);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_defaults),
		TEST(test_words_for_zero),
		TEST(test_bad_values),
		TEST(test_lines),
		TEST(test_not_text),
		TEST(test_once_or_often),
		TEST(test_file),
		TEST(test_file_not_text),
		TEST(test_file_with_long_path),
		TEST(test_arguments_win),
		TEST(test_argument_errors),
		TEST(test_check),
		TEST(test_command),
		TEST(test_roles),
		TEST(test_defaults_of_roles),
		TEST(test_print),
		TEST(test_print_arguments),
		TEST(test_garbage),
	};
	int r;

	if (said_init() == -1 || mkdtemp(directory) == NULL)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(file_name());
	rmdir(directory);
	return r;
}
