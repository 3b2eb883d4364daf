/* config: lines and arguments, parsed and checked. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "hints.h"
#include "log.h"
#include "options.h"

#define LINE_MAX_LEN	4096		/* in a configuration file */
#define BOM		"\xef\xbb\xbf"	/* UTF-8; some editors add it */
#define ALLOWED_SIZE	512		/* text for "allowed: ..." */
#define ERRORS_READ	1000		/* stop reading after so many */
#define COMMAND_WORDS	63

static void
values_free(struct value *v)
{
	struct value *next;

	for (; v != NULL; v = next) {
		next = v->next;
		free(v->text);
		free(v->where);
		free(v);
	}
}

void
config_free(struct config *cfg)
{
	size_t i;

	for (i = 0; i < OPTIONS; i++)
		values_free(cfg->given[i]);
	free(cfg->command);
	free(cfg->exec);
	memset(cfg, 0, sizeof(*cfg));
}

void
config_drop(struct config *cfg, int option)
{
	values_free(cfg->given[option]);
	cfg->given[option] = NULL;
}

const char *
config_text(const struct config *cfg, int option)
{
	return cfg->given[option] != NULL ? cfg->given[option]->text :
	    option_fallback(option, config_is_client(cfg));
}

const char *
config_where(const struct config *cfg, int option)
{
	return cfg->given[option] != NULL ? cfg->given[option]->where :
	    "default";
}

/* Parse a value of an option as a number.  0, or -1, having logged why. */
static int
parse_value(const struct option *o, const char *text, const char *where,
    int64_t *number)
{
	char allowed[ALLOWED_SIZE], hint[ALLOWED_SIZE / 4];

	if (hint_wrong_value(o, text) == NULL &&
	    option_number(o, text, number) == 0)
		return 0;
	option_allowed(o, allowed, sizeof(allowed));
	hint_value(o, text, hint, sizeof(hint));
	log_error("%s: %s = \"%s\" is not valid (allowed: %s%s)", where,
	    o->name, text, allowed, hint);
	return -1;
}

/* An error concerns these keys: do not report its consequences. */
static void
config_mark_wrong(struct config *cfg, const char *keys)
{
	char name[WORD_SIZE];
	size_t n;
	int i;

	for (; keys != NULL && *keys != '\0'; keys += n + (keys[n] != '\0')) {
		n = strcspn(keys, " ");
		snprintf(name, sizeof(name), "%.*s", (int)n, keys);
		if ((i = option_find(name)) != -1)
			cfg->is_wrong[i] = 1;
	}
}

/* An error may concern any key. */
static void
config_mark_all_wrong(struct config *cfg)
{
	size_t i;

	for (i = 0; i < OPTIONS; i++)
		cfg->is_wrong[i] = 1;
}

static int
unknown_key(struct config *cfg, const char *where, const char *key,
    const char *text)
{
	struct hint h;

	hint_key(key, text, &h);
	log_error("%s: unknown key \"%s\" (%s)", where, key, h.text);
	config_mark_wrong(cfg, h.about);
	config_mark_wrong(cfg, h.covers);
	return -1;
}

int
config_add(struct value **list, int rank, const char *where, const char *text)
{
	struct value *v;

	if ((v = calloc(1, sizeof(*v))) == NULL ||
	    (v->text = strdup(text)) == NULL ||
	    (v->where = strdup(where)) == NULL) {
		log_error("%s: out of memory", where);
		values_free(v);
		return -1;
	}
	v->rank = rank;
	while (*list != NULL)
		list = &(*list)->next;
	*list = v;
	return 0;
}

int
config_set(struct config *cfg, int rank, const char *where, const char *key,
    const char *text)
{
	int i = option_find(key);
	int64_t ignored;
	const struct value *v;

	if (i == -1)
		return unknown_key(cfg, where, key, text);
	v = cfg->given[i];
	if (*text == '\0') {
		log_error("%s: %s has no value (%s)", where, key,
		    options[i].help);
	} else if (v != NULL && v->rank > rank) {
		return parse_value(&options[i], text, where, &ignored);
	} else if (v != NULL && options[i].type != LIST && cfg->sections < 2) {
		log_error("%s: %s is already set (%s), and can be set only "
		    "once",
		    where, key, v->where);
	} else if (parse_value(&options[i], text, where, &cfg->number[i]) ==
	    0)
		return config_add(&cfg->given[i], rank, where, text);
	cfg->is_wrong[i] = 1;
	return -1;
}

/* Split "  key = value  " in place.  Returns the key; NULL: no "=". */
static char *
split(char *line, char **value)
{
	char *end, *eq;

	line += strspn(line, " \t");
	for (end = line + strlen(line); end > line &&
	    isspace((unsigned char)end[-1]); end--)
		end[-1] = '\0';
	if ((eq = strchr(line, '=')) == NULL)
		return NULL;
	*value = eq + 1 + strspn(eq + 1, " \t");
	while (eq > line && isspace((unsigned char)eq[-1]))
		eq--;
	*eq = '\0';
	return line;
}

/* Refuse control characters, and lines that are too long. */
static int
line_check(const char *where, const char *line, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (line[i] == '\t' || !iscntrl((unsigned char)line[i]))
			continue;
		log_error("%s: %s (allowed: plain text, in lines that end with "
		    "LF)", where, line[i] == '\0' ? "a NUL byte" :
		    line[i] == '\r' ? "a carriage return" :
		    "a control character");
		return -1;
	}
	if (len > LINE_MAX_LEN) {
		log_error("%s: the line is too long: %zu bytes (allowed: up to "
		    "%d)",
		    where, len, LINE_MAX_LEN);
		return -1;
	}
	return 0;
}

/* Report a [section].  Returns -1. */
static int
refuse_section(struct config *cfg, const char *where, const char *line)
{
	char name[WORD_SIZE * 2];
	size_t i;

	cfg->sections++;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(line + 1, "]"),
	    line + 1);
	for (i = 0; name[i] != '\0'; i++)
		if (!isalnum((unsigned char)name[i]) &&
		    strchr("-_.", name[i]) == NULL)
			name[i] = '-';
	log_error("%s: [sections] are not supported: use one file and one "
	    "instance for each service; move the lines below this one, and "
	    "those above the first section, to /etc/tunnel/%s.conf, and run "
	    "\"systemctl enable --now tunnel@%s\"", where, name, name);
	return -1;
}

/* Report a line that is neither a setting nor a comment.  Returns -1. */
static int
refuse_line(struct config *cfg, const char *where, const char *line)
{
	char word[WORD_SIZE];
	int near;

	/* Log only 20 characters: the file may contain secrets. */
	log_error("%s: \"%.20s%s\" is not a setting (allowed: key = value; a "
	    "comment begins with # or ;)", where, line, strlen(line) > 20 ?
	    "..." : "");
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(line, " \t:"), line);
	if ((near = hint_option(word)) != -1)
		cfg->is_wrong[near] = 1;
	return -1;
}

/* 1 if a # follows a blank in a value, or the blank between = and the value. */
static int
has_comment(const char *value)
{
	return strstr(value, " #") != NULL || strstr(value, "\t#") != NULL ||
	    (value[0] == '#' && value[-1] != '=');
}

/* Parse a line of len bytes and a NUL.  It is modified. */
static int
config_line(struct config *cfg, int rank, const char *where, char *line,
    size_t len)
{
	char *key, *value;

	if (line_check(where, line, len) == -1) {
		config_mark_all_wrong(cfg);
		return -1;
	}
	line += strspn(line, " \t");
	if (*line == '\0' || *line == '#' || *line == ';')
		return 0;
	if (*line == '[')
		return refuse_section(cfg, where, line);
	if ((key = split(line, &value)) == NULL)
		return refuse_line(cfg, where, line);
	if (has_comment(value)) {
		log_error("%s: a comment after a value (allowed: a comment on "
		    "a line of its own)", where);
		config_mark_wrong(cfg, key);
		return -1;
	}
	return config_set(cfg, rank, where, key, value);
}

FILE *
config_open(const char *name, const char **why)
{
	int fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	FILE *fp = NULL;
	struct stat st;

	*why = "not a regular file";
	if (fd == -1 || fstat(fd, &st) == -1 || (S_ISREG(st.st_mode) &&
	    (fp = fdopen(fd, "r")) == NULL))
		*why = strerror(errno);
	if (fp == NULL && fd != -1)
		close(fd);
	return fp;
}

/* Remove a carriage return, as on Windows.  Report it once per file. */
static int
cut_cr(const char *where, char *line, ssize_t *len, int *reported)
{
	if (*len == 0 || line[*len - 1] != '\r')
		return 0;
	line[--*len] = '\0';
	if ((*reported)++ > 0)
		return 0;
	log_error("%s: a carriage return (allowed: lines that end with LF; "
	    "dos2unix converts the file)", where);
	return -1;
}

/* 1 if the file is a certificate or a key: report one error, not one a line. */
static int
is_pem(const char *line)
{
	return strncmp(line + strspn(line, " \t"), "-----BEGIN ", 11) == 0;
}

int
config_file(struct config *cfg, const char *name)
{
	const char *why;
	char where[PATH_MAX + 32], *line = NULL;
	size_t size = 0, number = 0, bom;
	int r = 0, reported = 0;
	ssize_t len;
	FILE *fp;

	if ((fp = config_open(name, &why)) == NULL) {
		log_error("%s: %s", name, why);
		config_mark_all_wrong(cfg);
		return -1;
	}
	while (log_errors() < ERRORS_READ &&
	    (errno = 0, len = getline(&line, &size, fp)) != -1) {
		snprintf(where, sizeof(where), "%s:%zu", name, ++number);
		if (line[len - 1] == '\n')
			line[--len] = '\0';
		r |= cut_cr(where, line, &len, &reported);
		bom = number == 1 && strncmp(line, BOM, strlen(BOM)) == 0 ?
		    strlen(BOM) : 0;
		if (is_pem(line + bom)) {
			log_error("%s: this is PEM, not a configuration (cert "
			    "= FILE and key = FILE name PEM files)", where);
			config_mark_all_wrong(cfg);
			r = -1;
			break;
		}
		r |= config_line(cfg, RANK_FILE, where, line + bom,
		    (size_t)len - bom);
	}
	if (ferror(fp) || errno == ENOMEM) {
		log_error("%s: %s", name, strerror(errno));
		config_mark_all_wrong(cfg);
		r = -1;
	}
	if (log_errors() >= ERRORS_READ)
		config_mark_all_wrong(cfg);
	free(line);
	fclose(fp);
	return r;
}

int
config_argument(struct config *cfg, const char *argument)
{
	char *copy;
	int r;

	if (strchr(argument, '=') == NULL) {
		log_error("argument \"%s\" is not a setting (allowed: "
		    "key=value; -c FILE; a command after --)", argument);
		config_mark_all_wrong(cfg);
		return -1;
	}
	if ((copy = strdup(argument)) == NULL) {
		log_error("out of memory");
		return -1;
	}
	r = config_line(cfg, RANK_ARGUMENT, "command line", copy,
	    strlen(copy));
	free(copy);
	return r;
}

int
config_command(struct config *cfg, char **words)
{
	const char *exec = config_text(cfg, EXEC);
	char *word, *rest;
	size_t n = 0;

	if (exec == NULL && *words == NULL)
		return 0;
	if (exec != NULL && *words != NULL) {
		log_error("%s: exec and a command after -- are mutually "
		    "exclusive", config_where(cfg, EXEC));
		return -1;
	}
	cfg->command = calloc(COMMAND_WORDS + 2, sizeof(char *));
	cfg->exec = strdup(exec != NULL ? exec : "");
	if (cfg->command == NULL || cfg->exec == NULL) {
		log_error("out of memory");
		return -1;
	}
	for (; *words != NULL && n <= COMMAND_WORDS; words++)
		cfg->command[n++] = *words;
	for (word = strtok_r(cfg->exec, " \t", &rest);
	    word != NULL && n <= COMMAND_WORDS;
	    word = strtok_r(NULL, " \t", &rest))
		cfg->command[n++] = word;
	if (n == 0 || n > COMMAND_WORDS) {
		log_error("%s: the command is empty or has more than %d words "
		    "(use a script for a longer one)", exec != NULL ?
		    config_where(cfg, EXEC) : "command line", COMMAND_WORDS);
		return -1;
	}
	return 0;
}

void
config_defaults(struct config *cfg)
{
	int i;

	for (i = 0; i < OPTIONS; i++)
		if (options[i].fallback != NULL)
			parse_value(&options[i], options[i].fallback,
			    "default", &cfg->number[i]);
}

void
config_defaults_of_role(struct config *cfg)
{
	if (cfg->given[VERIFY] == NULL && !cfg->is_wrong[VERIFY])
		parse_value(&options[VERIFY], config_text(cfg, VERIFY),
		    "default", &cfg->number[VERIFY]);
}

static int
is_program(const char *file)
{
	struct stat st;

	return stat(file, &st) == 0 && S_ISREG(st.st_mode) &&
	    access(file, X_OK) == 0;
}

int
config_find_runnable(const char *name, char *file, size_t size)
{
	const char *path = getenv("PATH");
	char fallback[PATH_MAX] = "";

	if (path == NULL && confstr(_CS_PATH, fallback, sizeof(fallback)) > 0)
		path = fallback;
	for (; path != NULL; path = strchr(path, ':')) {
		path += *path == ':';
		snprintf(file, size, "%.*s/%s", (int)strcspn(path, ":"), path,
		    name);
		if (is_program(file))
			return 0;
	}
	return -1;
}

/* 1 if a command can be run: report at the start, not for each connection. */
static int
is_runnable(const char *name)
{
	char file[PATH_MAX];

	return strchr(name, '/') != NULL ? is_program(name) :
	    config_find_runnable(name, file, sizeof(file)) == 0;
}

/*
 * The same inside a chroot, in a child: links there begin at the new root.  1
 * if that is not possible: other checks report it.
 */
static int
is_runnable_in(const char *root, const char *name)
{
	int status;
	pid_t pid;

	if (root == NULL)
		return is_runnable(name);
	if ((pid = fork()) == 0) {
		if (chroot(root) == -1 || chdir("/") == -1 || is_runnable(name))
			_exit(EXIT_SUCCESS);
		_exit(EXIT_FAILURE);
	}
	return pid == -1 || waitpid(pid, &status, 0) == -1 || status == 0;
}

/* 1 if accept is valid with -i: not set, or a single fd:N. */
static int
is_for_inetd(const struct value *accept)
{
	return accept == NULL || (accept->next == NULL &&
	    strncmp(accept->text, "fd:", 3) == 0);
}

/* Report required options that are missing. */
static int
check_missing(const struct config *cfg, int inetd)
{
	const struct {
		int	 is_there;
		const char *what;
	} needed[] = {
		{ inetd || cfg->given[ACCEPT] != NULL ||
		    cfg->is_wrong[ACCEPT], "accept = [host:]port" },
		{ cfg->given[CERT] != NULL || cfg->is_wrong[CERT] ||
		    cfg->given[PSK] != NULL || cfg->is_wrong[PSK] ||
		    config_is_client(cfg) || !config_has_role(cfg),
		    "cert = FILE (tunnel -g NAME -o FILE makes one)" },
		{ cfg->given[CONNECT] != NULL || cfg->command != NULL ||
		    cfg->is_wrong[CONNECT] || cfg->is_wrong[EXEC],
		    config_is_client(cfg) ? "connect = [host:]port" :
		    "connect = [host:]port, or a command after --" },
	};
	size_t i;
	int r = 0;

	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (needed[i].is_there)
			continue;
		log_error("missing: %s", needed[i].what);
		r = -1;
	}
	return r;
}

const struct value *
config_verify_value(const struct config *cfg, int option)
{
	const struct value *v = cfg->given[option];

	while (v != NULL && option == PEER && strncmp(v->text, "psk:", 4) == 0)
		v = v->next;
	return v;
}

/* Report options that have no effect without verification. */
static int
check_trust(const struct config *cfg)
{
	static const int trust[] = { CA, CRL, PEER };
	const struct value *v;
	size_t i;
	int r = 0;

	if (cfg->number[VERIFY] != VERIFY_NONE || cfg->is_wrong[VERIFY] ||
	    (cfg->given[VERIFY] == NULL && !config_has_role(cfg)))
		return 0;
	for (i = 0; i < sizeof(trust) / sizeof(trust[0]); i++) {
		if ((v = config_verify_value(cfg, trust[i])) == NULL)
			continue;
		log_error("%s: %s has no effect with verify = none (allowed: "
		    "%srequire)", v->where, options[trust[i]].name,
		    config_is_client(cfg) ? "" : "request, ");
		r = -1;
	}
	return r;
}

/* Report conflicts between options. */
static int
check_conflicts(const struct config *cfg, int inetd)
{
	int r = 0;

	if (inetd && !is_for_inetd(cfg->given[ACCEPT])) {
		log_error("%s: accept must be an inherited connection with -i "
		    "(allowed: accept = fd:N, or no accept)",
		    config_where(cfg, ACCEPT));
		r = -1;
	}
	if (inetd && cfg->given[STATS_FILE] != NULL) {
		log_error("%s: stats_file cannot be used with -i",
		    config_where(cfg, STATS_FILE));
		r = -1;
	}
	if (cfg->given[CONNECT] != NULL && cfg->command != NULL &&
	    !config_is_client(cfg)) {
		log_error("%s: connect and a command are mutually exclusive",
		    config_where(cfg, CONNECT));
		r = -1;
	}
	if (!inetd && cfg->number[MODE] == MODE_POLL && !cfg->is_wrong[MODE] &&
	    !cfg->is_wrong[WORKERS] && !cfg->is_wrong[MAX_CONNECTIONS] &&
	    cfg->number[MAX_CONNECTIONS] < cfg->number[WORKERS]) {
		log_error("%s: workers = %lld is more than max_connections = "
		    "%lld",
		    config_where(cfg, WORKERS),
		    (long long)cfg->number[WORKERS],
		    (long long)cfg->number[MAX_CONNECTIONS]);
		r = -1;
	}
	return r;
}

int
config_check(struct config *cfg, int inetd)
{
	const char *root = config_text(cfg, CHROOT);
	int r = check_missing(cfg, inetd);

	r |= check_trust(cfg);
	r |= config_check_role(cfg);
	if (cfg->sections < 2)
		r |= check_conflicts(cfg, inetd) |
		    config_check_unused(cfg, inetd);
	if (cfg->command != NULL && !cfg->is_wrong[EXEC] &&
	    !config_is_client(cfg) && !is_runnable_in(root, cfg->command[0])) {
		log_error("%s: command: %s: not found or not executable%s%s",
		    cfg->given[EXEC] != NULL ? config_where(cfg, EXEC) :
		    "command line", cfg->command[0], root != NULL ?
		    " in chroot " : "", root != NULL ? root : "");
		r = -1;
	}
	return r;
}

void
config_print(const struct config *cfg, FILE *fp)
{
	const struct value *v;
	size_t i;

	for (i = 0; i < OPTIONS; i++) {
		if (cfg->given[i] == NULL && config_text(cfg, (int)i) != NULL)
			fprintf(fp, "%s = %s\n", options[i].name,
			    config_text(cfg, (int)i));
		for (v = cfg->given[i]; v != NULL; v = v->next)
			fprintf(fp, "%s = %s\n", options[i].name, v->text);
	}
	for (i = 0; cfg->command != NULL && cfg->command[i] != NULL; i++)
		fprintf(fp, "%s%s", i == 0 ? "# command: " : " ",
		    cfg->command[i]);
	if (cfg->command != NULL)
		fputc('\n', fp);
}

size_t
config_count(const struct value *v)
{
	size_t n;

	for (n = 0; v != NULL; v = v->next)
		n++;
	return n;
}
