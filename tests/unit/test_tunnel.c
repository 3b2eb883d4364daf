/*
 * Unit tests of the program: tunnel.c is included, to reach what is static.
 * Whatever is wrong with a configuration has to be said in one sentence that
 * names the place; here the log leads to a file, and that is read.
 *
 * TUNNEL_RUNS	how many lines of garbage (30000)
 * TUNNEL_SEED	the seed of the first (1), printed by one that fails
 */
#define main tunnel_main
#include "../../tunnel.c"
#undef main

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <cmocka.h>

#define WHERE	"tunnel.conf:12"
#define LEN(a)	(sizeof(a) / sizeof((a)[0]))

static char directory[] = "/tmp/test_tunnel.XXXXXX";

/* What has been logged since the last call. */
static const char *
said(void)
{
	static char text[16384];
	ssize_t n = pread(logging.fd, text, sizeof(text) - 1, 0);

	assert_in_range(n, 0, sizeof(text) - 2);
	text[n] = '\0';
	assert_int_equal(ftruncate(logging.fd, 0), 0);
	assert_int_equal(lseek(logging.fd, 0, SEEK_SET), 0);
	return text;
}

static int
is_sentence(const char *text)
{
	size_t len = strlen(text);

	return strncmp(text, "tunnel: error: ", 15) == 0 && len > 16 &&
	    strchr(text, '\n') == text + len - 1;
}

/* One sentence, from where, in which part is to be found. */
static void
expect_said(const char *where, const char *part)
{
	const char *text = said();

	if (!is_sentence(text) || strncmp(text + 15, where, strlen(where)) !=
	    0 || strstr(text, part) == NULL)
		fail_msg("said: \"%s\", not one sentence with \"%s\" and "
		    "\"%s\"", text, where, part);
}

/* Sentences, one of which begins with where, and has part in it. */
static void
expect_among(const char *where, const char *part)
{
	char begin[256], *at;
	const char *text = said();

	snprintf(begin, sizeof(begin), "tunnel: error: %s", where);
	at = strstr(text, begin);
	if (at == NULL || strstr(at, part) == NULL)
		fail_msg("said: \"%s\", and not \"%s\" and \"%s\"", text,
		    where, part);
}

static void
expect_silence(void)
{
	assert_string_equal(said(), "");
}

static int
line_of(struct config *cfg, const char *where, const char *bytes, size_t len)
{
	char *copy = malloc(len + 1);	/* exactly: for the sanitizers */
	int r;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	copy[len] = '\0';
	if (len > 0 && copy[len - 1] == '\n')
		copy[--len] = '\0';
	r = config_line(cfg, FROM_FILE, where, copy, len);
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

static int
setup(void **state)
{
	static struct config cfg;

	memset(&cfg, 0, sizeof(cfg));
	config_defaults(&cfg);
	*state = &cfg;
	logging.level = LEVEL_INFO;
	logging.has_time = logging.is_ours = logging.is_journal = 0;
	said();
	return 0;
}

static int
teardown(void **state)
{
	config_free(*state);
	return 0;
}

/* The table. */

static void
test_option_rows(void **state)
{
	size_t i, j, k;
	int64_t number;

	(void)state;
	for (i = 0; i < OPTIONS; i++) {
		const struct option *o = &options[i];

		assert_non_null(o->name);
		assert_true(strlen(o->name) > 0 && strlen(o->help) > 0);
		/* It fits the column of -h, and a line of the terminal. */
		assert_in_range(strlen(o->name), 1, 18);
		assert_in_range(strlen(o->help), 1, 60);
		assert_int_equal(strspn(o->name, "abcdefghijklmnopqrstuvwxyz_"),
		    strlen(o->name));
		for (j = 0; j < i; j++)
			assert_string_not_equal(o->name, options[j].name);
		assert_int_equal(option_find(o->name), i);
		assert_true(o->type != CHOICE || o->choices != NULL);
		assert_true(o->type != TEXT || o->choices == NULL);
		for (j = 0; o->type == CHOICE && o->choices[j] != NULL; j++)
			for (k = 0; k < j; k++)
				assert_string_not_equal(o->choices[j],
				    o->choices[k]);
		assert_true(o->type != CHOICE || j >= 2);
		if (o->type == NUMBER || o->type == TIME) {
			assert_true(o->min >= 0 && o->min < o->max);
			assert_true(o->max <= INT64_MAX / 86400 / 1000);
			assert_non_null(o->fallback);
		} else
			assert_true(o->min == 0 && o->max == 0);
		assert_true(o->type != LIST || o->fallback == NULL);
		if (o->fallback != NULL)
			assert_int_equal(option_parse(o, o->fallback, "",
			    &number), 0);
	}
	assert_int_equal(option_find("nonsense"), -1);
	assert_int_equal(option_find(""), -1);
	expect_silence();
}

static void
test_defaults(void **state)
{
	const struct config *cfg = *state;

	assert_int_equal(cfg->number[MAX_CONNECTIONS], 1000);
	assert_int_equal(cfg->number[HANDSHAKE_TIMEOUT], 10000);
	assert_int_equal(cfg->number[CONNECT_TIMEOUT], 5000);
	assert_int_equal(cfg->number[IDLE_TIMEOUT], 0);
	assert_int_equal(cfg->number[LINGER_TIMEOUT], 60000);
	assert_int_equal(cfg->number[DRAIN_TIMEOUT], 30000);
	assert_string_equal(config_text(cfg, LOG), "stderr");
	assert_null(config_text(cfg, ACCEPT));
	assert_string_equal(config_where(cfg, LOG), "default");
	expect_silence();
}

/* "tls_min and tls_max", "daemon, ...": what is named must be there. */
static void
check_hint(const char *hint)
{
	char copy[64], *word, *rest;
	int is_key = 1;

	snprintf(copy, sizeof(copy), "%s", hint);
	for (word = strtok_r(copy, " ,", &rest); word != NULL;
	    word = strtok_r(NULL, " ,", &rest)) {
		if (is_key && option_find(word) == -1)
			fail_msg("there is no %s", word);
		is_key = strcmp(word, "and") == 0;
	}
}

/* Each hint names what is there; each foreign key is foreign. */
static void
test_stunnel_hints(void **state)
{
	char text[128];
	size_t i;

	for (i = 0; i < LEN(stunnel); i++) {
		assert_int_equal(option_find(stunnel[i].theirs), -1);
		snprintf(text, sizeof(text), "%s = 1\n", stunnel[i].theirs);
		assert_int_equal(line(*state, text), -1);
		snprintf(text, sizeof(text), "stunnel's %s",
		    stunnel[i].theirs);
		expect_said(WHERE, text);
		if (stunnel[i].ours != NULL)
			check_hint(stunnel[i].ours);
	}
	assert_int_equal(line(*state, "timeoutIDLE = 3\n"), -1);
	expect_said(WHERE, "\"idle_timeout\" here");
	assert_int_equal(line(*state, "acept = 3\n"), -1);
	expect_said(WHERE, "unknown key \"acept\"");
}

/* One letter more, fewer or another, or two turned around. */
static void
test_distance(void **state)
{
	static const struct { const char *a, *b; size_t n; } pairs[] = {
		{ "", "", 0 }, { "a", "", 1 }, { "", "abc", 3 },
		{ "connect", "connect", 0 }, { "conect", "connect", 1 },
		{ "connnect", "connect", 1 }, { "cunnect", "connect", 1 },
		{ "conncet", "connect", 1 }, { "acb", "abc", 1 },
		{ "ca", "abc", 3 }, { "kitten", "sitting", 3 },
	};
	static const struct { const char *name; int option; } near[] = {
		{ "conect", CONNECT }, { "idle-timeout", IDLE_TIMEOUT },
		{ "idle timeout", IDLE_TIMEOUT }, { "Accept", ACCEPT },
		{ "IdleTimeout", IDLE_TIMEOUT }, { "certificate", CERT },
		{ "CA", CA }, { "cat", -1 }, { "", -1 }, { "_", -1 },
		{ "colour", -1 }, { "ticket_key", TICKET_KEYS },
		{ "a very long name of a key that nobody has", -1 },
	};
	size_t i;

	(void)state;
	for (i = 0; i < LEN(pairs); i++) {
		assert_int_equal(distance(pairs[i].a, pairs[i].b), pairs[i].n);
		assert_int_equal(distance(pairs[i].b, pairs[i].a), pairs[i].n);
	}
	for (i = 0; i < LEN(near); i++)
		if (option_near(near[i].name) != near[i].option)
			fail_msg("%s: %d", near[i].name,
			    option_near(near[i].name));
	assert_string_equal(choice_near(truncations, "EOF"), "eof");
	assert_string_equal(choice_near(no_yes, "true"), "yes");
	assert_string_equal(choice_near(no_yes, "0"), "no");
	assert_null(choice_near(modes, "threads"));
	assert_null(choice_near(NULL, "x"));
}

/* Values. */

static void
test_parse_number(void **state)
{
	static const char *const bad[] = {
		"", " ", "-1", "+1", " 1", "1 ", "1x", "x", "0x10", "1.0",
		"1e3", "--", "101", "9223372036854775807",
		"9223372036854775808", "99999999999999999999999999999999999",
		"-9223372036854775809", "1,0", "\xd9\xa1", "4"
	};
	int64_t n = -7;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++)
		if (parse_number(bad[i], 5, 100, &n) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	assert_int_equal(parse_number("5", 5, 100, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(parse_number("100", 5, 100, &n), 0);
	assert_int_equal(n, 100);
	assert_int_equal(parse_number("007", 5, 100, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(parse_number("9223372036854775807", 0, INT64_MAX, &n),
	    0);
	assert_true(n == INT64_MAX);
	assert_int_equal(parse_number("9223372036854775808", 0, INT64_MAX,
	    &n), -1);
}

static void
test_parse_time(void **state)
{
	static const char *const bad[] = {
		"", "s", "5", "0s", "0", "-1s", "+1s", " 1s", "1 s", "1S",
		"1ms", "1w", "1s ", "1.5s", "3601s", "61m", "2h", "1d", "Off",
		"off", "offs", "99999999999999999999s", "999999999999999s",
		"9223372036854775807d", "sm", "1sm"
	};
	static const struct { const char *text; int64_t ms; } good[] = {
		{ "1s", 1000 }, { "3600s", 3600000 },
		{ "1m", 60000 }, { "60m", 3600000 }, { "1h", 3600000 },
		{ "00000000001s", 1000 },
	};
	int64_t ms;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++)
		if (parse_time(bad[i], 1, 3600, &ms) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(parse_time(good[i].text, 1, 3600, &ms), 0);
		assert_int_equal(ms, good[i].ms);
	}
	assert_int_equal(parse_time("365d", 1, 31536000, &ms), 0);
	assert_true(ms == INT64_C(31536000000));
	assert_int_equal(parse_time("366d", 1, 31536000, &ms), -1);
}

static void
test_parse_choice(void **state)
{
	static const char *const abc[] = { "a", "bc", "d", NULL };
	int64_t n = 9;

	(void)state;
	assert_int_equal(parse_choice("a", abc, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(parse_choice("d", abc, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(parse_choice("b", abc, &n), -1);
	assert_int_equal(parse_choice("bcd", abc, &n), -1);
	assert_int_equal(parse_choice("A", abc, &n), -1);
	assert_int_equal(parse_choice("", abc, &n), -1);
}

/* A word in place of a number, where there is one, is 0. */
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

/* What is wrong, and what would have been right. */
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
		{ "handshake_timeout = 2h", "1s to 3600s" },
		{ "log_level = loud",
		    "error, warning, notice, info, debug" },
		{ "daemon = maybe", "no, yes" },
		{ "tls_min = 1.1", "1.2, 1.3" },
		{ "truncation = EOF", "reset, eof" },
		{ "accept =", "has no value" },
		{ "accept", "not key = value" },
		{ "= 5", "unknown key \"\"" },
		{ "=", "unknown key \"\"" },
		{ "accept 443", "not key = value" },
		{ "[service]", "there are no [sections]" },
		{ "[a b]", "/etc/tunnel/a-b.conf" },
		{ "[../x]", "/etc/tunnel/..-x.conf" },
		{ "[", "there are no [sections]" },
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
	/* Only the first = divides, and only the start makes a comment. */
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
	/* What is quoted is cut, not the end of the sentence. */
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
	expect_said("tunnel.conf:13", "already set at " WHERE);
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
	/* All errors are told. */
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
	expect_said(where, "a line of 1048582 bytes");
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

/* The place is named even where the path to it is long. */
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
	    "idle_timeout = 9s\nlinger_timeout = 8s\n"), 0);
	expect_silence();
	assert_string_equal(config_text(cfg, LOG), "/arg");
	assert_string_equal(config_where(cfg, LOG), "command line");
	assert_string_equal(cfg->given[CONNECT]->text, "1");
	assert_string_equal(cfg->given[CONNECT]->next->text, "2");
	assert_null(cfg->given[CONNECT]->next->next);
	assert_int_equal(cfg->number[IDLE_TIMEOUT], 3000);
	assert_int_equal(cfg->number[LINGER_TIMEOUT], 8000);
	/* What is overridden must be right all the same. */
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
	expect_said("argument \"\"", "not key=value");
	assert_int_equal(config_argument(cfg, "acept=1"), -1);
	expect_said("command line", "\"acept\"");
	assert_int_equal(config_argument(cfg, "accept="), -1);
	expect_said("command line", "no value");
	assert_int_equal(config_argument(cfg, "log=a"), 0);
	assert_int_equal(config_argument(cfg, "log=b"), -1);
	expect_said("command line", "already set");
}

/* The letters, mixed with keys, up to --. */
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
	assert_int_equal(parse_arguments(&a, LEN(argv) - 1, argv), 0);
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
	assert_int_equal(parse_arguments(&a, LEN(generate) - 1, generate), 0);
	assert_string_equal(a.names, "name");
	assert_string_equal(a.output, "file");
	free(a.settings);
	expect_silence();
}

/* What was started with is looked at again at each reload. */
static void
test_configure_again(void **state)
{
	static const char *settings[] = { "connect=2", "log_level=debug" };
	char *none[] = { NULL };
	struct arguments a = { .file = file_name(), .command = none,
	    .settings = settings, .nsettings = LEN(settings), .passed = 2 };
	struct config *cfg = *state;

	write_file("cert = x\n", 9);
	assert_int_equal(configure(cfg, &a), 0);
	assert_string_equal(cfg->given[ACCEPT]->text, "fd:3");
	assert_string_equal(cfg->given[ACCEPT]->next->text, "fd:4");
	assert_null(cfg->given[ACCEPT]->next->next);
	config_free(cfg);
	write_file("cert = y\naccept = 1\nconnect = 3\n", 32);
	assert_int_equal(configure(cfg, &a), 0);
	assert_string_equal(cfg->given[CERT]->text, "y");
	assert_string_equal(cfg->given[ACCEPT]->text, "1");
	assert_null(cfg->given[ACCEPT]->next);
	assert_string_equal(cfg->given[CONNECT]->text, "2");
	assert_int_equal(cfg->number[LOG_LEVEL], LEVEL_DEBUG);
	expect_silence();
}

/* Somebody else's sockets are not ours. */
static void
test_environment(void **state)
{
	char pid[16], other[16], text[16];
	struct arguments a = { 0 };

	(void)state;
	snprintf(text, sizeof(text), "%d", logging.fd);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	snprintf(other, sizeof(other), "%d", (int)getppid());
	setenv("LISTEN_PID", other, 1);
	setenv("LISTEN_FDS", "1", 1);
	take_environment(&a);
	assert_int_equal(a.passed, 0);
	assert_null(a.notify);
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "many", 1);
	take_environment(&a);
	assert_int_equal(a.passed, 0);
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "2", 1);
	setenv("LISTEN_FDNAMES", "a:b", 1);
	setenv("NOTIFY_SOCKET", "@x", 1);
	take_environment(&a);
	assert_int_equal(a.passed, 2);
	assert_string_equal(a.notify, "@x");
	setenv("TUNNEL_BEFORE", text, 1);
	take_environment(&a);
	assert_int_equal(a.before, -1);
	setenv("TUNNEL_STATE", text, 1);
	setenv("TUNNEL_BEFORE", text, 1);
	take_environment(&a);
	assert_int_equal(a.state, logging.fd);
	assert_int_equal(a.before, logging.fd);
	assert_null(getenv("TUNNEL_STATE"));
	assert_null(getenv("TUNNEL_BEFORE"));
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	unsetenv("NOTIFY_SOCKET");
}

static void
test_exit_code(void **state)
{
	static const struct { char *argument; const char *part; } bad[] = {
		{ "nonsense=1", "unknown key" },
		{ "accept=1", "missing: cert" },
		{ "-c/nonexistent/file", "/nonexistent/file: " },
	};
	char *argv[3] = { "tunnel", NULL, NULL };
	int log = logging.fd, standard = dup(STDERR_FILENO);
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		argv[1] = bad[i].argument;
		optind = 1;
		logging.fd = dup2(log, STDERR_FILENO);
		assert_int_equal(tunnel_main(2, argv), EXIT_CONFIG);
		assert_int_equal(logging.fd, STDERR_FILENO);
		expect_among("", bad[i].part);
	}
	logging.fd = log;
	dup2(standard, STDERR_FILENO);
	close(standard);
}

/* What has to be there. */

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
	expect_said(WHERE, "exclude each other");
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

/* Workers and their shares. */

static void
test_shares(void **state)
{
	struct config *cfg = *state;
	int64_t max, workers;

	(void)state;
	for (max = 1; max < 20; max++) {
		for (workers = 1; workers <= max; workers++) {
			struct service sv = { .cfg = *cfg };
			size_t i, before, sum = 0;

			sv.cfg.number[MAX_CONNECTIONS] = max;
			sv.cfg.number[WORKERS] = workers;
			sv.nslots = count_seats(&sv.cfg, 0);
			assert_int_equal(sv.nslots, workers);
			for (i = 0; i < sv.nslots; i++) {
				size_t n = share_of(&sv, i, &before);

				assert_int_equal(before, sum);
				assert_in_range(n, max / workers,
				    max / workers + 1);
				sum += n;
			}
			assert_int_equal(sum, max);
		}
	}
}

static void
test_seats(void **state)
{
	struct config *cfg = *state;

	cfg->number[MAX_CONNECTIONS] = 50;
	assert_int_equal(count_seats(cfg, 0), 1);
	cfg->number[WORKERS] = 0;
	assert_in_range(count_seats(cfg, 0), 1, 50);
	cfg->number[WORKERS] = 7;
	assert_int_equal(count_seats(cfg, 0), 7);
	assert_int_equal(count_seats(cfg, 1), 1);
	cfg->number[MODE] = FORK;
	assert_int_equal(count_seats(cfg, 0), 50);
	assert_int_equal(count_seats(cfg, 1), 1);
}

/*
 * mode = fork: a worker may have been asked to make room too early by its own
 * clock, if it was slow to start.
 */
static void
test_asked_again(void **state)
{
	struct counts counts = { .live = 1 };
	struct seat seat = { .line = -1 };
	struct service sv = { .seats = &seat, .nseats = 1, .nworkers = 1,
	    .counts = &counts };
	struct master m = { .live = &sv };
	const struct timespec limit = { .tv_sec = 3 };
	int64_t until = clock_ms() + 10000;
	int line[2], fd, i;
	struct order o;
	sigset_t set;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, line), 0);
	seat.line = line[0];
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if ((seat.pid = fork()) == 0) {
		for (i = 0; i < 2; i++)
			if (sigtimedwait(&set, NULL, &limit) != SIGHUP ||
			    take_order(line[1], &o, &fd) == -1 ||
			    o.what != MAKE_ROOM)
				_exit(1);
		_exit(0);
	}
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	while (waitpid(seat.pid, &i, WNOHANG) == 0 && clock_ms() < until) {
		ask_for_seats(&m);
		poll(NULL, 0, 10);
	}
	assert_true(WIFEXITED(i) && WEXITSTATUS(i) == 0);
	close(line[0]);
	close(line[1]);
}

/* A crash loop is slowed down; a single crash is not. */
static void
test_backoff(void **state)
{
	struct service sv = { 0 };
	int64_t before = clock_ms(), ms, last = 0;
	int i;

	(void)state;
	assert_int_equal(worker_failed(&sv), 0);
	sv.retry_at = before;
	assert_int_equal(worker_failed(&sv), RETRY_MS);
	/* Those that fail meanwhile are the same one. */
	assert_in_range(worker_failed(&sv), 1, RETRY_MS);
	assert_int_equal(sv.failures, 2);
	for (i = 0; i < 100; i++) {
		sv.retry_at = before;
		ms = worker_failed(&sv);
		assert_in_range(ms, last, RETRY_MAX_MS);
		assert_true(ms > last || ms == RETRY_MAX_MS);
		assert_true(sv.retry_at >= before + ms);
		last = ms;
	}
	assert_int_equal(last, RETRY_MAX_MS);
	sv.retry_at = before - HEALTHY_MS;
	assert_int_equal(worker_failed(&sv), 0);
}

static uint64_t
key_of(const char *text)
{
	struct address a = { .len = 0 };

	assert_int_equal(address_numeric(&a, text, 1), 0);
	return peer_key(&a.sa);
}

/* IPv4 by address, mapped or not; IPv6 by /64; nothing else. */
static void
test_peer_keys(void **state)
{
	struct sockaddr_storage sa = { .ss_family = AF_UNIX };

	(void)state;
	assert_true(key_of("192.0.2.1") == key_of("::ffff:192.0.2.1"));
	assert_true(key_of("192.0.2.1") == key_of("64:ff9b::192.0.2.1"));
	assert_true(key_of("192.0.2.2") != key_of("64:ff9b::192.0.2.1"));
	assert_true(key_of("192.0.2.1") != key_of("64:ff9b:1::192.0.2.1"));
	assert_true(key_of("192.0.2.1") != key_of("192.0.2.2"));
	assert_true(key_of("2001:db8:0:1::1") == key_of("2001:db8:0:1:9::2"));
	assert_true(key_of("2001:db8:0:1::1") != key_of("2001:db8:0:2::1"));
	assert_true(key_of("::1") != 0);
	assert_true(key_of("0.0.0.0") != 0);
	assert_true(peer_key(&sa) == 0);
}

static void
expect_peer_text(const char *address, const char *text)
{
	char out[ADDRESS_SIZE];

	peer_text(key_of(address), out, sizeof(out));
	assert_string_equal(out, text);
}

static void
test_peer_texts(void **state)
{
	char out[ADDRESS_SIZE];

	(void)state;
	expect_peer_text("192.0.2.1", "192.0.2.1");
	expect_peer_text("::ffff:192.0.2.1", "192.0.2.1");
	expect_peer_text("64:ff9b::192.0.2.1", "192.0.2.1");
	expect_peer_text("2001:db8:0:1:2::3", "2001:db8:0:1::/64");
	expect_peer_text("::1", "::/64");
	peer_text(0, out, sizeof(out));
	assert_string_equal(out, "unix:");
}

/* A service, and two workers that have half of its places each. */
static void
some_workers(struct service *sv, struct worker w[2], const struct config *cfg)
{
	size_t i;

	*sv = (struct service){ .cfg = *cfg, .shared = MAP_FAILED };
	assert_int_equal(make_seats(sv, 0), 0);
	for (i = 0; i < 2; i++) {
		w[i] = (struct worker){ .service = sv };
		w[i].share = share_of(sv, i, &w[i].first);
		w[i].unused = calloc(w[i].share, sizeof(*w[i].unused));
		assert_non_null(w[i].unused);
	}
}

static void
no_workers(struct service *sv, struct worker w[2])
{
	free(w[0].unused);
	free(w[1].unused);
	munmap(sv->shared, sv->shared_size);
	free(sv->seats);
}

static void
limit(struct config *cfg, int64_t connections, int64_t per_ip)
{
	cfg->number[WORKERS] = 2;
	cfg->number[MAX_CONNECTIONS] = connections;
	cfg->number[MAX_PER_IP] = per_ip;
}

static void
test_places(void **state)
{
	struct service sv;
	struct worker w[2];
	volatile uint64_t *a, *b, *c, *d;

	limit(*state, 6, 3);
	some_workers(&sv, w, *state);
	assert_int_equal(take_place(&w[0], 7, &a), 0);
	assert_int_equal(take_place(&w[1], 7, &b), 0);
	assert_int_equal(take_place(&w[1], 7, &c), 0);
	assert_ptr_equal(a, &sv.places[0]);
	assert_ptr_equal(b, &sv.places[3]);
	assert_ptr_equal(c, &sv.places[4]);
	/* The fourth of its address, whichever worker it comes to. */
	assert_int_equal(take_place(&w[0], 7, &d), -1);
	assert_null(d);
	assert_int_equal(take_place(&w[1], 7, &d), -1);
	assert_int_equal(take_place(&w[0], 8, &d), 0);
	leave_place(&w[1], b, 7);
	assert_int_equal(take_place(&w[0], 7, &b), 0);
	assert_ptr_equal(b, &sv.places[2]);
	/* No address, no place. */
	assert_int_equal(take_place(&w[0], 0, &d), 0);
	assert_null(d);
	no_workers(&sv, w);
}

/* Each generation has a table of another size, and one had no limit. */
static void
test_places_of_generations(void **state)
{
	struct service sv[3];
	struct worker w[3][2];
	volatile uint64_t *first, *place;
	int64_t limits[3] = { 0, 9, 4 };
	size_t i;

	for (i = 0; i < 3; i++) {
		limit(*state, 6 << 4 * i, limits[i]);
		some_workers(&sv[i], w[i], *state);
		sv[i].older = i > 0 ? &sv[i - 1] : NULL;
	}
	assert_int_equal(take_place(&w[0][0], 7, &first), 0);
	assert_int_equal(take_place(&w[0][1], 7, &place), 0);
	assert_int_equal(take_place(&w[1][1], 7, &place), 0);
	assert_int_equal(take_place(&w[2][0], 7, &place), 0);
	/* The fifth, which one that leaves makes room for: any way it does. */
	assert_int_equal(take_place(&w[2][1], 7, &place), -1);
	assert_int_equal(take_place(&w[2][1], 8, &place), 0);
	leave_place(&w[0][0], first, 7);
	assert_int_equal(take_place(&w[2][1], 7, &place), 0);
	assert_int_equal(take_place(&w[2][1], 7, &place), -1);
	peers_recount(&sv[0], w[0][1].first, w[0][1].share);
	assert_int_equal(take_place(&w[2][1], 7, &place), 0);
	assert_int_equal(take_place(&w[2][1], 7, &place), -1);
	for (i = 0; i < 3; i++)
		no_workers(&sv[i], w[i]);
}

/* As many of each address as there are, whatever came and went. */
static void
check_peers(const struct service *sv, const uint64_t *counts, uint64_t keys)
{
	uint64_t key, rows = 0;
	size_t i;

	for (i = 0; i < sv->npeers; i++)
		rows += sv->peers[i].key != 0;
	for (key = 1; key <= keys; key++) {
		i = peer_find(sv, key);
		assert_int_equal(sv->peers[i].key, counts[key] > 0 ? key : 0);
		if (counts[key] > 0)
			assert_int_equal(sv->peers[i].count, counts[key]);
		rows -= counts[key] > 0;
	}
	assert_int_equal(rows, 0);
}

#define SOME	64			/* connections, and addresses */

/* Rows are freed in the middle of others: none is lost behind the gap. */
static void
test_places_at_random(void **state)
{
	volatile uint64_t *places[2][SOME / 2] = { { NULL } };
	uint64_t counts[SOME + 1] = { 0 }, keys[2][SOME / 2], rnd = 1;
	struct service sv;
	struct worker w[2];
	int turn;

	limit(*state, SOME, 3);
	some_workers(&sv, w, *state);
	for (turn = 0; turn < 20000; turn++) {
		size_t i, at;

		rnd = rnd * 6364136223846793005u + 1442695040888963407u;
		i = rnd >> 33 & 1;
		at = (rnd >> 34) % (SOME / 2);
		if (places[i][at] != NULL) {
			leave_place(&w[i], places[i][at], keys[i][at]);
			places[i][at] = NULL;
			counts[keys[i][at]]--;
		} else {
			uint64_t key = 1 + (rnd >> 40) % SOME;

			keys[i][at] = key;
			assert_int_equal(take_place(&w[i], key,
			    &places[i][at]), counts[key] < 3 ? 0 : -1);
			counts[key] += places[i][at] != NULL;
		}
		if (turn % 100 == 0)
			check_peers(&sv, counts, SOME);
	}
	no_workers(&sv, w);
}

/* A worker was killed: what it had is free, and the others keep theirs. */
static void
test_places_of_the_killed(void **state)
{
	uint64_t counts[SOME + 1] = { 0 }, key;
	struct service sv;
	struct worker w[2];
	volatile uint64_t *place;

	limit(*state, 2 * SOME, 3);
	some_workers(&sv, w, *state);
	for (key = 1; key <= SOME; key++) {
		assert_int_equal(take_place(&w[0], key, &place), 0);
		assert_int_equal(take_place(&w[1], key, &place), 0);
		counts[key] = 1;
	}
	/* In the middle of it all, and with the lock. */
	assert_false(atomic_flag_test_and_set(&sv.shared->lock));
	memset((void *)sv.peers, 1, sv.npeers / 2 * sizeof(*sv.peers));
	peers_recount(&sv, w[0].first, w[0].share);
	check_peers(&sv, counts, SOME);
	assert_false(atomic_flag_test_and_set(&sv.shared->lock));
	no_workers(&sv, w);
}

/* What a worker that was taken over has written there harms nobody. */
static void
test_places_spoilt(void **state)
{
	struct service sv;
	struct worker w[2];
	volatile uint64_t *place;

	limit(*state, 6, 3);
	some_workers(&sv, w, *state);
	memset((void *)sv.peers, 0xff, sv.npeers * sizeof(*sv.peers));
	assert_int_equal(take_place(&w[0], 7, &place), 0);
	leave_place(&w[0], place, 7);
	leave_place(&w[0], NULL, 7);
	memset((void *)sv.places, 0xff, 6 * sizeof(*sv.places));
	peers_recount(&sv, w[1].first, w[1].share);
	assert_int_equal(take_place(&w[0], 7, &place), 0);
	no_workers(&sv, w);
}

/* A worker knows which keys share a row: the master is not kept by them. */
static void
test_places_made_to_collide(void **state)
{
	struct service sv;
	struct worker w[2];
	uint64_t i, max = 100000;
	int64_t before;

	limit(*state, (int64_t)max, 3);
	some_workers(&sv, w, *state);
	sv.secret = 1;
	for (i = 0; i < max; i++)
		sv.places[i] = UINT64_C(5) << 32 | i;
	before = clock_ms();
	peers_recount(&sv, w[0].first, w[0].share);
	assert_in_range(clock_ms() - before, 0, 1000);
	no_workers(&sv, w);
}

/* An address takes no longer to find where there are 100,000 of them. */
static void
test_places_of_many(void **state)
{
	struct service sv;
	struct worker w[2];
	volatile uint64_t *place;
	uint64_t key, distance = 0, max = 100000;

	limit(*state, (int64_t)max, 3);
	some_workers(&sv, w, *state);
	/* As they come from one network, and as bad as they get. */
	for (key = 1; key <= max; key++)
		assert_int_equal(take_place(&w[key & 1], key << 16, &place),
		    0);
	for (key = 1; key <= max; key++)
		distance += (peer_find(&sv, key << 16) -
		    peer_home(&sv, key << 16)) & (sv.npeers - 1);
	assert_true(distance < 4 * max);
	no_workers(&sv, w);
}

/* Lines that repeat themselves. */

static struct worker
some_engine(struct service *sv)
{
	static const struct forward_calls calls = { .accepted = NULL };
	const struct forward_params params = { .calls = &calls };
	struct worker w = { .service = sv, .engine = forward_new(&params) };

	assert_non_null(w.engine);
	return w;
}

static void
refuse(struct worker *w, const char *address, const char *reason, int times)
{
	while (times-- > 0)
		if (may_log(w, LEVEL_NOTICE, key_of(address), reason))
			log_notice("%s %s", address, reason);
}

/* How often it was said, of what was said since the last call. */
static int
times_said(const char *text, const char *part)
{
	int n = 0;

	while ((text = strstr(text, part)) != NULL) {
		text++;
		n++;
	}
	return n;
}

static void
test_repeats(void **state)
{
	struct service sv = { .shared = calloc(1, sizeof(*sv.shared)) };
	struct worker w = some_engine(&sv);
	const char *text;

	(void)state;
	assert_non_null(sv.shared);
	refuse(&w, "192.0.2.1", "not TLS: \"GET\"", 4);
	refuse(&w, "192.0.2.1", "not TLS: \"PUT\"", 1000);
	refuse(&w, "192.0.2.1", "handshake timeout", 6);
	refuse(&w, "192.0.2.2", "not TLS: \"GET\"", 5);
	refuse(&w, "2001:db8::1", "handshake timeout", 3);
	refuse(&w, "2001:db8::2", "handshake timeout", 3);
	text = said();
	assert_int_equal(times_said(text, "192.0.2.1 not TLS"), REPEATS);
	assert_int_equal(times_said(text, "\n"), 4 * REPEATS);
	/* It goes on for the period, and not a moment longer. */
	repeats_end(&sv, 0);
	assert_string_equal(said(), "");
	assert_true(w.repeats_until == repeats_until(&sv, clock_ms()));
	assert_in_range(w.repeats_until - clock_ms(), 1, REPEATS_MS);
	sv.shared->repeats.began -= REPEATS_MS;
	repeats_end(&sv, 0);
	assert_string_equal(said(),
	    "tunnel: 192.0.2.1: and 999 more in 10 s: not TLS: \"GET\"\n"
	    "tunnel: 192.0.2.1: and 1 more in 10 s: handshake timeout\n"
	    "tunnel: 2001:db8::/64: and 1 more in 10 s: handshake timeout\n");
	assert_true(repeats_until(&sv, clock_ms()) == INT64_MAX);
	/* The next one. */
	refuse(&w, "192.0.2.1", "handshake timeout", 6);
	assert_int_equal(times_said(said(), "192.0.2.1 handshake"), REPEATS);
	repeats_end(&sv, 1);
	assert_int_equal(times_said(said(), ": and 1 more in 0 s: "), 1);
	forward_free(w.engine);
	free(sv.shared);
}

/* Whoever has many addresses fills neither the memory nor the log. */
static void
test_repeats_in_sum(void **state)
{
	struct service sv = { .shared = calloc(1, sizeof(*sv.shared)) };
	struct worker w = some_engine(&sv);
	const char *text;
	int i;

	(void)state;
	assert_non_null(sv.shared);
	for (i = 0; i < 1000; i++) {
		char address[32];

		snprintf(address, sizeof(address), "192.0.%d.%d", i / 250,
		    i % 250);
		refuse(&w, address, "handshake timeout", 2);
	}
	assert_int_equal(times_said(said(), "\n"), REPEATS_ALL);
	repeats_end(&sv, 1);
	text = said();
	assert_int_equal(times_said(text, "\n"), 1);
	assert_int_equal(times_said(text, "other addresses: and 1900 more"),
	    1);
	forward_free(w.engine);
	free(sv.shared);
}

/* Whoever looks into it wants all. */
static void
test_repeats_for_debug(void **state)
{
	struct service sv = { .shared = calloc(1, sizeof(*sv.shared)) };
	struct worker w = some_engine(&sv);

	(void)state;
	assert_non_null(sv.shared);
	logging.level = LEVEL_DEBUG;
	refuse(&w, "192.0.2.1", "handshake timeout", 50);
	logging.level = LEVEL_INFO;
	assert_int_equal(times_said(said(), "\n"), 50);
	/* What would not be logged is not counted either. */
	logging.level = LEVEL_WARNING;
	refuse(&w, "192.0.2.1", "handshake timeout", 50);
	logging.level = LEVEL_INFO;
	repeats_end(&sv, 1);
	assert_string_equal(said(), "");
	forward_free(w.engine);
	free(sv.shared);
}

/* What a worker that was taken over has written there leads nowhere. */
static void
test_repeats_spoilt(void **state)
{
	struct service sv = { .shared = calloc(1, sizeof(*sv.shared)) };
	struct worker w = some_engine(&sv);

	(void)state;
	assert_non_null(sv.shared);
	/* No period begins then, and one that never ends would hide all. */
	memset(&sv.shared->repeats, 0x7f, sizeof(sv.shared->repeats));
	refuse(&w, "192.0.2.1", "handshake timeout", 1);
	assert_int_equal(times_said(said(), "192.0.2.1 handshake timeout"), 1);
	memset(&sv.shared->repeats, 0xff, sizeof(sv.shared->repeats));
	repeats_end(&sv, 0);
	said();
	refuse(&w, "192.0.2.1", "handshake timeout", 1);
	assert_int_equal(times_said(said(), "192.0.2.1 handshake timeout"), 1);
	forward_free(w.engine);
	free(sv.shared);
}

/* max_connections: once a minute, for all. */
static void
test_warn_full(void **state)
{
	struct service sv = { .cfg = *(struct config *)*state,
	    .shared = calloc(1, sizeof(*sv.shared)) };

	assert_non_null(sv.shared);
	sv.cfg.number[MAX_CONNECTIONS] = 1234;
	warn_full(&sv);
	assert_int_equal(times_said(said(), "max_connections reached: 1234"),
	    1);
	warn_full(&sv);
	assert_string_equal(said(), "");
	sv.shared->warned -= FULL_EVERY_MS;
	warn_full(&sv);
	warn_full(&sv);
	assert_int_equal(times_said(said(), "max_connections reached"), 1);
	free(sv.shared);
}

/* And the next day again. */
static void
test_daily_warning(void **state)
{
	struct service sv = { .tls = tls_config_new() };
	struct master m = { .live = &sv };
	const int64_t day = DAY * INT64_C(1000);

	(void)state;
	assert_non_null(sv.tls);
	warn_daily(&m);
	assert_in_range(m.warn_at - clock_ms(), day - 10000, day);
	tls_config_free(sv.tls);
}

/* The sandbox, in children, who tell how far they have come. */

#define MUST(condition)	do { if (!(condition)) _exit(__LINE__ % 255 + 1); } \
	while (0)

static void
in_child(void (*function)(const struct service *, int), int port)
{
	struct config cfg = { 0 };
	struct value v = { .text = "x", .where = "y" };
	struct target t = { .n = 1, .fd = -1, .value = &v };
	struct service sv = { .cfg = cfg, .connects = { &t, 1 } };
	int status;
	pid_t pid;

	assert_int_equal(address_numeric(t.addrs, "127.0.0.1",
	    (in_port_t)port), 0);
	if ((pid = fork()) == 0) {
		function(&sv, port);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("status 0x%x: the line is %d, modulo 255", status,
		    WEXITSTATUS(status) - 1);
}

/* A socket that listens, on any port. */
static int
some_listener(int *port)
{
	struct address a = { .len = 0 };
	int fd;

	assert_int_equal(address_numeric(&a, "127.0.0.1", 0), 0);
	assert_true((fd = listen_on(&a, 0)) != -1);
	a.len = sizeof(a.sa);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a.sa, &a.len), 0);
	*port = address_port(&a);
	return fd;
}

static int
connects(int port)
{
	struct address a = { .len = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), r;

	address_numeric(&a, "127.0.0.1", (in_port_t)port);
	r = connect(fd, (struct sockaddr *)&a.sa, a.len);
	if (r == -1)
		return close_failed(fd);
	close(fd);
	return 0;
}

static int
binds(void)
{
	struct address a = { .len = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address_numeric(&a, "127.0.0.1", 0);
	return bind(fd, (struct sockaddr *)&a.sa, a.len);
}

static int other_port;

static void
child_of_landlock(const struct service *sv, int port)
{
	char *argv[] = { "true", NULL };

	MUST(open("/etc/passwd", O_RDONLY) != -1);
	MUST(connects(other_port) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(landlock_enter(sv) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES);
	MUST(open("/", O_RDONLY) == -1 && errno == EACCES);
	MUST(mkdir("/tmp/tunnel.unit", 0700) == -1 && errno == EACCES);
	MUST(execv("/bin/true", argv) == -1 && errno == EACCES);
	MUST(connects(port) == 0);
	if (landlock_abi() >= LANDLOCK_WITH_TCP) {
		MUST(connects(other_port) == -1 && errno == EACCES);
		MUST(binds() == -1 && errno == EACCES);
	}
	if (landlock_abi() >= LANDLOCK_WITH_SCOPES)
		MUST(kill(getppid(), 0) == -1 && errno == EPERM);
}

static void
child_of_filter(const struct service *sv, int port)
{
	char *argv[] = { "true", NULL };
	const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	const struct linger off = { .l_onoff = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), real = port;
	const struct rlimit limit = { 64, 64 };
	int shared = fcntl(fd, F_DUPFD, 64);
	socklen_t len = sizeof(port);

	MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(filter_enter(sv) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1 && errno == ENOSYS);
	MUST(execv("/bin/true", argv) == -1 && errno == ENOSYS);
	MUST(fork() == -1 && errno == ENOSYS);
	MUST(binds() == -1 && errno == ENOSYS);
	MUST(listen(fd, 1) == -1 && errno == ENOSYS);
	MUST(kill(getppid(), 0) == -1 && errno == ENOSYS);
	MUST(mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
	    -1, 0) == MAP_FAILED && errno == EPERM);
	MUST(mprotect(argv, 1, PROT_EXEC) == -1 && errno == EPERM);
	MUST(mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	    MAP_FAILED);
	MUST(socket(AF_INET, SOCK_DGRAM, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_RAW, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_STREAM, 262) == -1 && errno == EPERM);
	MUST(socket(AF_NETLINK, SOCK_STREAM, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0) != -1 || errno == EAFNOSUPPORT);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == -1 && errno == EPERM);
	MUST(send(fd, "", 1, MSG_FASTOPEN) == -1 && errno == EPERM);
	MUST(fcntl(fd, F_SETFL, 0) == -1 && errno == ENOSYS);
	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &port, sizeof(port)) ==
	    -1 && errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_IP, IP_TTL, &port, sizeof(port)) == -1 &&
	    errno == EPERM);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, &len) == -1 &&
	    errno == EPERM);
	/* As the names above, by their numbers, at another level. */
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &port, len) == -1 &&
	    errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == -1 &&
	    errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, len) == 0);
	MUST(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &port, len) == 0);
	MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) == 0);
	MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &port, &len) == 0);
	/* What the master and others have, too. */
	MUST(shutdown(shared, SHUT_RDWR) == -1 && errno == EPERM);
	MUST(setsockopt(shared, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) ==
	    -1 && errno == EPERM);
	MUST(connect(shared, &nowhere, sizeof(nowhere)) == -1 &&
	    errno == EPERM);
	MUST(shutdown(STDERR_FILENO, SHUT_RDWR) == -1 && errno == EPERM);
	/* Descriptors are passed to nobody, and nobody else is written to. */
	MUST(sendmsg(fd, NULL, 0) == -1 && errno == ENOSYS);
	MUST(recvmsg(fd, NULL, 0) == -1 && errno == EPERM);
	MUST(recvmsg(shared + 1, NULL, 0) == -1 && errno == EPERM);
	MUST(dup3(fd, shared, 0) == -1 && errno == EPERM);
	/* But for the line to the master, which is the first past the limit. */
	MUST(recvmsg(shared, NULL, 0) == -1 && errno == EFAULT);
	MUST(sendto(fd, "", 1, 0, &nowhere, sizeof(nowhere)) == -1 &&
	    errno == EPERM);
	MUST(connects(real) == 0 && connects(other_port) == 0);
}

static void
child_of_sandbox(const struct service *sv, int port)
{
	char text[8];

	MUST(sandbox_enter(sv) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1);
	MUST(execlp("true", "true", (char *)NULL) == -1);
	MUST(connects(port) == 0);
	MUST(landlock_abi() < LANDLOCK_WITH_TCP || connects(other_port) == -1);
	/* What a worker does need. */
	MUST(getrandom(text, sizeof(text), 0) == sizeof(text));
	MUST(poll(NULL, 0, 1) == 0);
	MUST(clock_ms() > 0);
	MUST(snprintf(text, sizeof(text), "%d", 5) == 1);
	free(malloc(1 << 20));
	log_info("still here");
}

static void
test_sandbox(void **state)
{
	int port, listeners[2];

	(void)state;
	listeners[0] = some_listener(&port);
	listeners[1] = some_listener(&other_port);
	if (landlock_abi() > 0)
		in_child(child_of_landlock, port);
	if (has_filter())
		in_child(child_of_filter, port);
	in_child(child_of_sandbox, port);
	assert_string_equal(said(), "tunnel: still here\n");
	close(listeners[0]);
	close(listeners[1]);
}

/* Printed, it is a configuration again, and the same one. */

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
	size_t i;

	print_to_file(cfg);
	config_defaults(&again);
	assert_int_equal(config_file(&again, file_name()), 0);
	expect_silence();
	for (i = 0; i < OPTIONS; i++) {
		assert_true(cfg->number[i] == again.number[i]);
		v = cfg->given[i];
		w = again.given[i];
		if (v == NULL && w != NULL)
			assert_string_equal(w->text, options[i].fallback);
		for (; v != NULL; v = v->next, w = w->next) {
			assert_non_null(w);
			assert_string_equal(v->text, w->text);
			assert_true((v->next == NULL) == (w->next == NULL));
		}
	}
	config_free(&again);
}

static void
test_print(void **state)
{
	struct config *cfg = *state;
	size_t i;

	/* Defaults are told as well, and no more than that. */
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

/* An argument is held to what a line could say, or else can't be printed. */
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

/* Addresses. */

static void
test_split_address(void **state)
{
	static const struct { const char *text, *host, *port; } good[] = {
		{ "443", "", "443" }, { ":443", "", "443" },
		{ "*:443", "", "443" }, { "host:443", "host", "443" },
		{ "1.2.3.4:0", "1.2.3.4", "0" }, { "[::1]:80", "::1", "80" },
		{ "[fe80::1%lo]:80", "fe80::1%lo", "80" },
		{ "host:", "host", "" }, { "[::]:x", "::", "x" },
	};
	static const char *const bad[] = {
		"::1:443", "::1", "a:b:c", "[::1]", "[::1:443", "::1]:443",
		"[::1]x:443", "x[::1]:443"
	};
	char host[64], tiny[5];
	const char *port;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(split_address(good[i].text, host,
		    sizeof(host), &port), 0);
		assert_string_equal(host, good[i].host);
		assert_string_equal(port, good[i].port);
	}
	for (i = 0; i < LEN(bad); i++)
		if (split_address(bad[i], host, sizeof(host), &port) != -1)
			fail_msg("\"%s\" passed", bad[i]);
	assert_int_equal(split_address("host:1", tiny, sizeof(tiny), &port), 0);
	assert_int_equal(split_address("hosts:1", tiny, sizeof(tiny), &port),
	    -1);
}

static int
resolved(struct target *t, const char *text, int passive)
{
	static struct value v;
	static char copy[512], where[] = WHERE;

	snprintf(copy, sizeof(copy), "%s", text);
	v = (struct value){ .text = copy, .where = where };
	memset(t, 0, sizeof(*t));
	return resolve(t, &v, passive);
}

static void
test_resolve(void **state)
{
	static const struct { const char *text, *to; int passive; } good[] = {
		{ "6379", "127.0.0.1:6379", 0 }, { "*:1", "127.0.0.1:1", 0 },
		{ "10.1.2.3:65535", "10.1.2.3:65535", 0 },
		{ "10.1.2.3:0", "10.1.2.3:0", 1 },
		{ "[::1]:80", "[::1]:80", 0 },
		{ "[2001:DB8:0:0::1]:80", "[2001:db8::1]:80", 0 },
		{ "[::ffff:192.0.2.1]:80", "192.0.2.1:80", 0 },
		{ "unix:/run/x y", "unix:/run/x y", 0 },
		{ "0.0.0.0:5", "0.0.0.0:5", 1 },
	};
	struct target t;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(good); i++) {
		assert_int_equal(resolved(&t, good[i].text, good[i].passive),
		    0);
		assert_int_equal(t.n, 1);
		assert_string_equal(t.addrs[0].text, good[i].to);
		assert_int_equal(t.any, 0);
	}
	assert_int_equal(resolved(&t, "localhost:80", 0), 0);
	assert_in_range(t.n, 1, ADDRESSES);
	assert_int_equal(resolved(&t, "443", 1), 0);
	assert_int_equal(t.any, 1);
	assert_string_equal(t.addrs[0].text, has_ipv6() ? "[::]:443" :
	    "0.0.0.0:443");
	assert_int_equal(resolved(&t, "*:443", 1), 0);
	assert_int_equal(t.any, 1);
	expect_silence();
}

static void
test_resolve_errors(void **state)
{
	static const char *const bad[] = {
		"", ":", "host", "host:", "host:0", "host:65536", "host:-1",
		"host:http", "::1:80", "[::1]", "[::1]:", "65536", "0", "80 ",
		"1.2.3.4:80x", "host:99999999999999999999", "http://host:80/"
	};
	struct target t;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(bad); i++) {
		if (resolved(&t, bad[i], 0) != -1)
			fail_msg("\"%s\" passed", bad[i]);
		expect_said(WHERE, "[IPv6]:port");
	}
	assert_int_equal(resolved(&t, "nobody.invalid:80", 0), -1);
	expect_said(WHERE, "nobody.invalid");
}

static void
test_unix_paths(void **state)
{
	struct sockaddr_un un;
	char text[sizeof(un.sun_path) + 8] = "unix:/";
	struct target t;

	(void)state;
	assert_int_equal(resolved(&t, "unix:", 0), -1);
	expect_said(WHERE, "107 bytes");
	memset(text + 6, 'x', sizeof(un.sun_path) - 1);
	assert_int_equal(strlen(text + 5), sizeof(un.sun_path));
	assert_int_equal(resolved(&t, text, 1), -1);
	expect_said(WHERE, "107 bytes");
	text[strlen(text) - 1] = '\0';
	assert_int_equal(resolved(&t, text, 1), 0);
	assert_string_equal(t.addrs[0].text, text);
	assert_true(t.addrs[0].len <= sizeof(un));
	expect_silence();
}

/* A client on a Unix socket has no name. */
static void
test_address_text(void **state)
{
	struct address a;

	(void)state;
	memset(&a, 0, sizeof(a));
	a.sa.ss_family = AF_UNIX;
	a.len = sizeof(sa_family_t);
	address_text(&a);
	assert_string_equal(a.text, "unix:");
}

/* The log. */

static void
test_escape(void **state)
{
	char all[256], out[2048], small[12];
	size_t i;

	(void)state;
	for (i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	text_escape(out, sizeof(out), all);
	for (i = 0; out[i] != '\0'; i++)
		assert_in_range(out[i], ' ', '~');
	assert_true(strstr(out, "\\x01\\x02") == out);
	assert_non_null(strstr(out, "\\x0a"));
	assert_non_null(strstr(out, "\\x1b"));
	assert_non_null(strstr(out, "~\\x7f"));
	assert_non_null(strstr(out, "xyz"));
	/* Eight bits are controls as well, somewhere. */
	assert_non_null(strstr(out, "\\x9b"));
	text_escape(out, sizeof(out), "a b~\xc3\xa9");
	assert_string_equal(out, "a b~\\xc3\\xa9");
	/* Never past its end, and never half of an escape. */
	memset(small, 'z', sizeof(small));
	text_escape(small, sizeof(small) - 2, "\n\n\n\n\n\n");
	assert_string_equal(small, "\\x0a\\x0a");
	assert_int_equal(small[10], 'z');
	text_escape(small, 1, "a");
	assert_string_equal(small, "");
}

static void
test_log_lines(void **state)
{
	char stamp[32];
	const char *text;
	int i;

	(void)state;
	log_info("hello %d", 5);
	assert_string_equal(said(), "tunnel: hello 5\n");
	log_notice("a\nb");
	assert_string_equal(said(), "tunnel: a\\x0ab\n");
	log_warning("w");
	assert_string_equal(said(), "tunnel: warning: w\n");
	log_error("e");
	assert_string_equal(said(), "tunnel: error: e\n");
	log_debug("d");
	expect_silence();
	logging.level = LEVEL_WARNING;
	log_notice("n");
	expect_silence();
	logging.level = LEVEL_DEBUG;
	logging.is_journal = 1;
	log_debug("d");
	assert_string_equal(said(), "<7>d\n");
	log_error("e");
	assert_string_equal(said(), "<3>e\n");
	logging.is_journal = 0;
	logging.has_time = 1;
	log_info("on stderr");
	text = said();
	for (i = 0; i < 20; i++)
		stamp[i] = isdigit((unsigned char)text[i]) ? '0' : text[i];
	stamp[20] = '\0';
	assert_string_equal(stamp, "0000-00-00T00:00:00Z");
	assert_string_equal(text + 20, " tunnel: on stderr\n");
	logging.is_ours = 1;
	log_info("in a file");
	assert_string_equal(said() + 20, " info: in a file\n");
}

static void
test_log_keeps_errno(void **state)
{
	static char huge[10000];
	const char *text;
	int fd = logging.fd;

	(void)state;
	/* Even where it can't be written. */
	logging.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	errno = EDOM;
	log_error("x");
	assert_int_equal(errno, EDOM);
	close(logging.fd);
	logging.fd = fd;
	log_error("y");
	text = said();
	assert_non_null(strstr(text, "1 lines lost here: Bad file descriptor"));
	assert_non_null(strstr(text, "error: y\n"));
	memset(huge, '\n', sizeof(huge) - 1);
	log_error("%s", huge);
	text = said();
	assert_true(is_sentence(text));
	assert_in_range(strlen(text), LOG_SIZE - 8, LOG_SIZE + 32);
}

/* Garbage: thousands of lines, from a seed. */

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

/* Of three kinds: bytes; letters that could pass; a key, and then those. */
static size_t
some_line(char *out, size_t size)
{
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
		    options[rnd(OPTIONS)].name : stunnel[rnd(LEN(stunnel))]
		    .theirs, rnd(8) == 0 ? " " : " = ");
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
	/* Both ways are taken often, or this tests too little. */
	assert_true(taken >= n / 50 && taken <= n / 2);
}

/* A command that ended, or was killed, before it was told of the client. */
static int
open_to_the_dead(int killed_by)
{
	struct proxy *header = calloc(1, sizeof(*header));
	struct command command = { .over = 1, .signal = killed_by, .end = -1 };
	struct session ss = { .command = &command, .proxy = header };
	struct stream_ops ops = stream_plain;
	struct stream s = { .ops = &ops, .ctx = &ss };
	int fds[2], r;

	assert_non_null(header);
	header->len = 16;
	ops.write = command_write;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0,
	    fds), 0);
	close(fds[1]);
	s.fd = fds[0];
	r = backend_open(&s);
	close(fds[0]);
	proxy_free(&ss);
	return r;
}

static void
test_command_that_is_not_told(void **state)
{
	(void)state;
	assert_int_equal(open_to_the_dead(0), 0);
	assert_int_equal(open_to_the_dead(SIGKILL), STREAM_RESET);
}

/* It is not begun a second time. */
static void
test_command_that_does_not_open(void **state)
{
	static char name[] = "true", *command[] = { name, NULL };
	struct service sv = { .cfg.command = command };
	struct worker w = { .service = &sv, .share = 1 };
	struct session ss = { .worker = &w, .dialed = 1, .fd = -1 };
	struct stream backend = { .fd = -1 };
	const char *why = NULL;

	(void)state;
	assert_int_equal(session_dial(&ss, &backend, "it is gone", &why), -1);
	assert_string_equal(why, "it is gone");
	assert_int_equal(w.running, 0);
}

/* All that is there goes on, and so must be as it was. */
static void
test_not_to_be_handed_over(void **state)
{
	const struct service was = { .nslots = 2, .nseats = 2, .shared_fd = -1,
	    .shared_size = 4096, .deadline = 7, .secret = 9 };
	const struct master none = { .pidfile = -1 };
	struct parcel x = { .reads = 0 };
	struct service sv = was;
	int64_t number = 5;
	int fd = 4, i;

	(void)state;
	for (i = 0; i < 2; i++) {
		carry_service(&x, &none, &sv);
		assert_string_equal(x.bad, "shared memory is of another size");
		assert_memory_equal(&sv, &was, sizeof(sv));
		carry_number(&x, &number, 6, 7);
		carry_fd(&x, &fd);
	}
	assert_int_equal(number, 5);
	assert_int_equal(fd, 4);
	assert_int_equal(x.nfds, 0);
	parcel_free(&x);
}

#define TEST(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_option_rows),
		TEST(test_defaults),
		TEST(test_distance),
		TEST(test_stunnel_hints),
		TEST(test_parse_number),
		TEST(test_parse_time),
		TEST(test_parse_choice),
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
		TEST(test_letters),
		TEST(test_configure_again),
		TEST(test_environment),
		TEST(test_exit_code),
		TEST(test_check),
		TEST(test_command),
		TEST(test_command_that_is_not_told),
		TEST(test_command_that_does_not_open),
		TEST(test_shares),
		TEST(test_seats),
		TEST(test_asked_again),
		TEST(test_backoff),
		TEST(test_peer_keys),
		TEST(test_peer_texts),
		TEST(test_places),
		TEST(test_places_of_generations),
		TEST(test_places_at_random),
		TEST(test_places_of_the_killed),
		TEST(test_places_spoilt),
		TEST(test_places_made_to_collide),
		TEST(test_places_of_many),
		TEST(test_repeats),
		TEST(test_repeats_in_sum),
		TEST(test_repeats_for_debug),
		TEST(test_repeats_spoilt),
		TEST(test_warn_full),
		TEST(test_daily_warning),
		TEST(test_sandbox),
		TEST(test_print),
		TEST(test_print_arguments),
		TEST(test_split_address),
		TEST(test_resolve),
		TEST(test_resolve_errors),
		TEST(test_unix_paths),
		TEST(test_address_text),
		TEST(test_escape),
		TEST(test_log_lines),
		TEST(test_log_keeps_errno),
		TEST(test_garbage),
		TEST(test_not_to_be_handed_over),
	};
	int r;

	unsetenv("JOURNAL_STREAM");
	logging.fd = memfd_create("log", MFD_CLOEXEC);
	if (logging.fd == -1 || mkdtemp(directory) == NULL)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(file_name());
	rmdir(directory);
	return r;
}
