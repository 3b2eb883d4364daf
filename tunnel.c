#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "forward.h"
#include "tls.h"

#ifndef VERSION
#define VERSION		"0"
#endif

#define EXIT_CONFIG	2
#define LINE_MAX_LEN	4096		/* of a configuration file */
#define LOG_SIZE	2048
#define TEXT_SIZE	512
#define ADDRESS_SIZE	128		/* of an address as text */
#define ADDRESSES	16		/* of one name */
#define COMMAND_WORDS	63
#define BACKLOG		1024
#define SPARE_FDS	32		/* next to those of connections */
#define STARVED_EVERY	10		/* seconds between two complaints */
#define DAY		(24 * 60 * 60)

/*
 * THE LOG
 * The one thing here that is global, next to the signals' flags.
 */

static const char *const levels[] = {
	"error", "warning", "notice", "info", "debug", NULL
};

enum level { ERROR, WARNING, NOTICE, INFO, DEBUG };

static struct {
	enum level level;
	int	 fd;		/* where to; -1: syslog */
	int	 is_file;	/* fd is a file of our own: give the time */
	int	 is_journal;	/* fd leads to systemd's journal: priorities */
	unsigned long lost;	/* lines, of late */
} logging = { .level = INFO, .fd = STDERR_FILENO };

enum { SIGNALS = 5 };
static const int signals[SIGNALS] = {
	SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGALRM
};
static volatile sig_atomic_t got_stop, got_hup, got_child, got_alarm;

/* Text that comes from a peer must not forge a line, nor move a cursor. */
static void
escape(char *out, size_t size, const char *in)
{
	size_t n = 0;

	for (; *in != '\0' && n + 5 < size; in++) {
		if (*in < ' ' || *in > '~')
			n += (size_t)snprintf(out + n, size - n, "\\x%02x",
			    (unsigned char)*in);
		else
			out[n++] = *in;
	}
	out[n] = '\0';
}

/*
 * Whoever reads the log may have stopped.  Rather lose lines than stop as
 * well, and say so when there is room again.
 */
static int
log_is_stuck(void)
{
	struct pollfd p = { .fd = logging.fd, .events = POLLOUT };

	if (logging.fd == -1 || logging.is_file)
		return 0;
	if (poll(&p, 1, 0) == 0) {
		logging.lost++;
		return 1;
	}
	if (logging.lost > 0)
		dprintf(logging.fd, "tunnel: warning: %lu lines lost here, as "
		    "nobody read the log\n", logging.lost);
	logging.lost = 0;
	return 0;
}

static void __attribute__((format(printf, 2, 3)))
say(enum level level, const char *fmt, ...)
{
	static const int priorities[] = {
		LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG
	};
	char text[LOG_SIZE], clean[LOG_SIZE], stamp[40] = "";
	int saved = errno;
	time_t now;
	struct tm tm;
	va_list ap;

	if (level > logging.level || log_is_stuck())
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	escape(clean, sizeof(clean), text);
	if (logging.fd == -1) {
		syslog(priorities[level], "%s", clean);
	} else if (logging.is_journal) {
		dprintf(logging.fd, "<%d>%s\n", priorities[level], clean);
	} else if (logging.is_file) {
		now = time(NULL);
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ",
		    gmtime_r(&now, &tm));
		dprintf(logging.fd, "%s %s: %s\n", stamp, levels[level],
		    clean);
	} else
		dprintf(logging.fd, "tunnel: %s%s%s\n", level <= WARNING ?
		    levels[level] : "", level <= WARNING ? ": " : "", clean);
	errno = saved;
}

/*
 * THE OPTIONS
 * One row each; the man page and the example are held against them by a test.
 */

enum {
	ACCEPT, CONNECT, EXEC, CERT, KEY, KEY_PASSWORD_FILE, TLS_MIN, TLS_MAX,
	CIPHERS, GROUPS, ALPN, MAX_CONNECTIONS, HANDSHAKE_TIMEOUT,
	CONNECT_TIMEOUT, IDLE_TIMEOUT, LINGER_TIMEOUT, DRAIN_TIMEOUT,
	TRUNCATION, DAEMON, PIDFILE, LOG, LOG_LEVEL, OPTIONS
};

enum type { TEXT, LIST, NUMBER, TIME, CHOICE };

static const char *const no_yes[] = { "no", "yes", NULL };
static const char *const versions[] = { "1.2", "1.3", NULL };
static const char *const truncations[] = { "reset", "eof", NULL };

static const struct option {
	const char *name;
	enum type type;
	const char *fallback;		/* NULL: none */
	const char *const *choices;	/* of a CHOICE */
	int64_t	 min, max;		/* of a NUMBER; of a TIME in seconds */
	const char *help;
} options[OPTIONS] = {
	[ACCEPT] = { "accept", LIST, NULL, NULL, 0, 0,
	    "[host:]port, unix:/path or fd:N to accept TLS on" },
	[CONNECT] = { "connect", LIST, NULL, NULL, 0, 0,
	    "[host:]port or unix:/path of the plaintext service" },
	[EXEC] = { "exec", TEXT, NULL, NULL, 0, 0,
	    "command to run for each connection, instead of connect" },
	[CERT] = { "cert", LIST, NULL, NULL, 0, 0,
	    "PEM file with a certificate chain, leaf first" },
	[KEY] = { "key", LIST, NULL, NULL, 0, 0,
	    "PEM file with its private key, if not in cert" },
	[KEY_PASSWORD_FILE] = { "key_password_file", TEXT, NULL, NULL, 0, 0,
	    "file with the password of an encrypted key" },
	[TLS_MIN] = { "tls_min", CHOICE, "1.2", versions, 0, 0,
	    "oldest TLS version" },
	[TLS_MAX] = { "tls_max", CHOICE, "1.3", versions, 0, 0,
	    "newest TLS version" },
	[CIPHERS] = { "ciphers", TEXT, NULL, NULL, 0, 0,
	    "cipher suites to accept, best first" },
	[GROUPS] = { "groups", TEXT, NULL, NULL, 0, 0,
	    "key exchange groups to accept, best first" },
	[ALPN] = { "alpn", TEXT, NULL, NULL, 0, 0,
	    "application protocols to accept, best first" },
	[MAX_CONNECTIONS] = { "max_connections", NUMBER, "1000", NULL,
	    1, 1000000, "past it, accepting pauses" },
	[HANDSHAKE_TIMEOUT] = { "handshake_timeout", TIME, "10s", NULL,
	    1, 3600, "for a client's TLS handshake" },
	[CONNECT_TIMEOUT] = { "connect_timeout", TIME, "5s", NULL,
	    1, 3600, "for each address of the service" },
	[IDLE_TIMEOUT] = { "idle_timeout", TIME, "off", NULL,
	    1, 31536000, "without a byte either way" },
	[LINGER_TIMEOUT] = { "linger_timeout", TIME, "60s", NULL,
	    1, 31536000, "the same, once one side has ended" },
	[DRAIN_TIMEOUT] = { "drain_timeout", TIME, "30s", NULL,
	    1, 31536000, "for connections to finish at a stop" },
	[TRUNCATION] = { "truncation", CHOICE, "reset", truncations, 0, 0,
	    "what a client's end without close_notify is taken for" },
	[DAEMON] = { "daemon", CHOICE, "no", no_yes, 0, 0,
	    "go into the background once started" },
	[PIDFILE] = { "pidfile", TEXT, NULL, NULL, 0, 0,
	    "file to write the process ID to" },
	[LOG] = { "log", TEXT, "stderr", NULL, 0, 0,
	    "stderr, syslog, or a file" },
	[LOG_LEVEL] = { "log_level", CHOICE, "info", levels, 0, 0,
	    "how much to log" },
};

/* What users of stunnel will write, and what it is here. */
static const struct {
	const char *theirs, *ours;
} stunnel[] = {
	{ "CAfile", NULL }, { "CApath", NULL }, { "checkHost", NULL },
	{ "checkIP", NULL }, { "chroot", NULL }, { "ciphersuites", "ciphers" },
	{ "client", NULL }, { "CRLfile", NULL }, { "curve", "groups" },
	{ "curves", "groups" }, { "debug", "log_level" }, { "delay", NULL },
	{ "engine", NULL }, { "execArgs", "exec" },
	{ "foreground", "daemon, the other way round" }, { "include", NULL },
	{ "local", NULL }, { "OCSPaia", NULL }, { "options", NULL },
	{ "output", "log" }, { "pid", "pidfile" }, { "protocol", NULL },
	{ "PSKsecrets", NULL }, { "renegotiation", NULL },
	{ "requireCert", NULL }, { "retry", NULL }, { "securityLevel", NULL },
	{ "service", NULL }, { "sessionCacheSize", NULL }, { "setgid", NULL },
	{ "setuid", NULL }, { "sni", NULL }, { "socket", NULL },
	{ "sslVersion", "tls_min and tls_max" },
	{ "sslVersionMax", "tls_max" }, { "sslVersionMin", "tls_min" },
	{ "syslog", "log" }, { "ticketKeySecret", NULL },
	{ "TIMEOUTbusy", "handshake_timeout" },
	{ "TIMEOUTclose", "linger_timeout" },
	{ "TIMEOUTconnect", "connect_timeout" },
	{ "TIMEOUTidle", "idle_timeout" }, { "transparent", NULL },
	{ "verify", NULL }, { "verifyChain", NULL }, { "verifyPeer", NULL },
};

/*
 * THE CONFIGURATION
 * What was given, and from where.
 */

/* A value as it was given, and where: "tunnel.conf:12". */
struct value {
	struct value *next;
	char	*text;
	char	*where;
	int	 rank;			/* of its source; the higher one wins */
};

enum { FROM_FILE, FROM_ARGUMENT };

/* All that was configured, as a value: another may stand beside it. */
struct config {
	struct value *given[OPTIONS];
	int64_t	 number[OPTIONS];	/* NUMBER; CHOICE: index; TIME: ms */
	char	**command;		/* NULL: none; ends with NULL */
	char	*exec;			/* its words, if it is of the file */
};

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

static void
config_free(struct config *cfg)
{
	size_t i;

	for (i = 0; i < OPTIONS; i++)
		values_free(cfg->given[i]);
	free(cfg->command);
	free(cfg->exec);
	memset(cfg, 0, sizeof(*cfg));
}

/* The text of an option, or NULL. */
static const char *
config_text(const struct config *cfg, int option)
{
	return cfg->given[option] != NULL ? cfg->given[option]->text :
	    options[option].fallback;
}

static const char *
config_where(const struct config *cfg, int option)
{
	return cfg->given[option] != NULL ? cfg->given[option]->where :
	    "default";
}

static int
parse_number(const char *text, int64_t min, int64_t max, int64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoll(text, &end, 10);
	return isdigit((unsigned char)*text) && *end == '\0' && errno == 0 &&
	    *number >= min && *number <= max ? 0 : -1;
}

/* 30s, 5m, 12h, 7d or off, as milliseconds: off is 0. */
static int
parse_time(const char *text, int64_t min, int64_t max, int64_t *ms)
{
	static const struct { char unit; int64_t seconds; } units[] = {
		{ 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }
	};
	char digits[16];
	size_t i, n = strlen(text);
	int64_t count;

	*ms = 0;
	if (strcmp(text, "off") == 0)
		return 0;
	if (n < 2 || n > sizeof(digits))
		return -1;
	snprintf(digits, sizeof(digits), "%.*s", (int)n - 1, text);
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (units[i].unit != text[n - 1])
			continue;
		if (parse_number(digits, 0, max, &count) == -1 ||
		    count * units[i].seconds < min ||
		    count * units[i].seconds > max)
			return -1;
		*ms = count * units[i].seconds * 1000;
		return 0;
	}
	return -1;
}

static int
parse_choice(const char *text, const char *const *choices, int64_t *choice)
{
	int64_t i;

	for (i = 0; choices[i] != NULL; i++) {
		if (strcmp(choices[i], text) == 0) {
			*choice = i;
			return 0;
		}
	}
	return -1;
}

static void
join(char *text, size_t size, const char *const *words)
{
	size_t i, n = 0;

	text[0] = '\0';
	for (i = 0; words[i] != NULL && n < size; i++)
		n += (size_t)snprintf(text + n, size - n, "%s%s",
		    i == 0 ? "" : ", ", words[i]);
}

/* The number behind a text; -1 after one sentence. */
static int
option_parse(const struct option *o, const char *text, const char *where,
    int64_t *number)
{
	char allowed[TEXT_SIZE] = "";
	int r = 0;

	switch (o->type) {
	case TEXT:
	case LIST:
		return 0;
	case NUMBER:
		r = parse_number(text, o->min, o->max, number);
		snprintf(allowed, sizeof(allowed), "%lld to %lld",
		    (long long)o->min, (long long)o->max);
		break;
	case TIME:
		r = parse_time(text, o->min, o->max, number);
		snprintf(allowed, sizeof(allowed), "off, or a number with its "
		    "unit s, m, h or d, %llds to %llds", (long long)o->min,
		    (long long)o->max);
		break;
	case CHOICE:
		r = parse_choice(text, o->choices, number);
		join(allowed, sizeof(allowed), o->choices);
		break;
	}
	if (r == -1)
		say(ERROR, "%s: %s = \"%s\" is not valid (allowed: %s)", where,
		    o->name, text, allowed);
	return r;
}

static int
option_find(const char *name)
{
	int i;

	for (i = 0; i < OPTIONS; i++)
		if (strcmp(options[i].name, name) == 0)
			return i;
	return -1;
}

static int
unknown_key(const char *where, const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(stunnel) / sizeof(stunnel[0]); i++) {
		if (strcasecmp(stunnel[i].theirs, name) != 0)
			continue;
		if (stunnel[i].ours == NULL)
			say(ERROR, "%s: unknown key \"%s\" (there is nothing "
			    "like stunnel's %s here)", where, name,
			    stunnel[i].theirs);
		else
			say(ERROR, "%s: unknown key \"%s\" (stunnel's %s is "
			    "\"%s\" here)", where, name, stunnel[i].theirs,
			    stunnel[i].ours);
		return -1;
	}
	say(ERROR, "%s: unknown key \"%s\" (tunnel -h lists them all)", where,
	    name);
	return -1;
}

static void
values_append(struct value **list, struct value *v)
{
	while (*list != NULL)
		list = &(*list)->next;
	*list = v;
}

/* key = value from where; -1 after one sentence.  Arguments are first. */
static int
config_set(struct config *cfg, int rank, const char *where, const char *key,
    const char *text)
{
	int i = option_find(key);
	struct value *v;
	int64_t ignored;

	if (i == -1)
		return unknown_key(where, key);
	if (*text == '\0') {
		say(ERROR, "%s: %s has no value (%s)", where, key,
		    options[i].help);
		return -1;
	}
	if (cfg->given[i] != NULL && cfg->given[i]->rank > rank)
		return option_parse(&options[i], text, where, &ignored);
	if (cfg->given[i] != NULL && options[i].type != LIST) {
		say(ERROR, "%s: %s is already set at %s, and can be set once",
		    where, key, cfg->given[i]->where);
		return -1;
	}
	if (option_parse(&options[i], text, where, &cfg->number[i]) == -1)
		return -1;
	if ((v = calloc(1, sizeof(*v))) == NULL ||
	    (v->text = strdup(text)) == NULL ||
	    (v->where = strdup(where)) == NULL) {
		say(ERROR, "%s: out of memory", where);
		values_free(v);
		return -1;
	}
	v->rank = rank;
	values_append(&cfg->given[i], v);
	return 0;
}

/* "  key = value  " in place: the key, and its value behind it. */
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

/* What a line must not hold, be it of a file or an argument. */
static int
line_check(const char *where, const char *line, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (line[i] == '\t' || !iscntrl((unsigned char)line[i]))
			continue;
		say(ERROR, "%s: %s (allowed: plain text, and LF alone at the "
		    "end of a line)", where, line[i] == '\0' ? "a NUL byte" :
		    line[i] == '\r' ? "a carriage return" :
		    "a control character");
		return -1;
	}
	if (len > LINE_MAX_LEN) {
		say(ERROR, "%s: a line of %zu bytes (allowed: up to %d)",
		    where, len, LINE_MAX_LEN);
		return -1;
	}
	return 0;
}

/* key = value; line is len bytes, a NUL behind them, and changed. */
static int
config_line(struct config *cfg, int rank, const char *where, char *line,
    size_t len)
{
	char *key, *value;

	if (line_check(where, line, len) == -1)
		return -1;
	if (line[strspn(line, " \t")] == '\0' ||
	    line[strspn(line, " \t")] == '#')
		return 0;
	if ((key = split(line, &value)) == NULL) {
		say(ERROR, "%s: \"%.64s\" is not key = value (there are no "
		    "[sections]; a comment begins with #)", where, line);
		return -1;
	}
	if (strstr(value, " #") != NULL || strstr(value, "\t#") != NULL) {
		say(ERROR, "%s: a comment behind a value (allowed: on a line "
		    "of its own)", where);
		return -1;
	}
	return config_set(cfg, rank, where, key, value);
}

static int
config_file(struct config *cfg, const char *name)
{
	char where[PATH_MAX + 32], *line = NULL;
	size_t size = 0, number = 0;
	int r = 0, failed;
	ssize_t len;
	FILE *fp;

	if ((fp = fopen(name, "re")) == NULL) {
		say(ERROR, "%s: %s", name, strerror(errno));
		return -1;
	}
	errno = 0;
	while (r == 0 && (len = getline(&line, &size, fp)) != -1) {
		snprintf(where, sizeof(where), "%s:%zu", name, ++number);
		if (line[len - 1] == '\n')
			line[--len] = '\0';
		r = config_line(cfg, FROM_FILE, where, line, (size_t)len);
	}
	failed = r == 0 && (ferror(fp) || errno == ENOMEM);
	if (failed)
		say(ERROR, "%s: %s", name, strerror(errno));
	free(line);
	fclose(fp);
	return failed ? -1 : r;
}

static int
config_argument(struct config *cfg, const char *argument)
{
	char *copy;
	int r;

	if (strchr(argument, '=') == NULL) {
		say(ERROR, "argument \"%s\" is not key=value (a file goes "
		    "behind -c, a command behind --)", argument);
		return -1;
	}
	if ((copy = strdup(argument)) == NULL) {
		say(ERROR, "out of memory");
		return -1;
	}
	r = config_line(cfg, FROM_ARGUMENT, "command line", copy,
	    strlen(copy));
	free(copy);
	return r;
}

/* The command to run, if any: from the words behind --, or from exec. */
static int
config_command(struct config *cfg, char **words)
{
	const char *exec = config_text(cfg, EXEC);
	char *word, *rest;
	size_t n = 0;

	if (exec == NULL && *words == NULL)
		return 0;
	if (exec != NULL && *words != NULL) {
		say(ERROR, "%s: exec and a command behind -- exclude each "
		    "other", config_where(cfg, EXEC));
		return -1;
	}
	cfg->command = calloc(COMMAND_WORDS + 2, sizeof(char *));
	cfg->exec = strdup(exec != NULL ? exec : "");
	if (cfg->command == NULL || cfg->exec == NULL) {
		say(ERROR, "out of memory");
		return -1;
	}
	for (; *words != NULL && n <= COMMAND_WORDS; words++)
		cfg->command[n++] = *words;
	for (word = strtok_r(cfg->exec, " \t", &rest);
	    word != NULL && n <= COMMAND_WORDS;
	    word = strtok_r(NULL, " \t", &rest))
		cfg->command[n++] = word;
	if (n == 0 || n > COMMAND_WORDS) {
		say(ERROR, "a command of more than %d words, or of none (a "
		    "script can hold a long one)", COMMAND_WORDS);
		return -1;
	}
	return 0;
}

static void
config_defaults(struct config *cfg)
{
	int i;

	for (i = 0; i < OPTIONS; i++)
		if (options[i].fallback != NULL)
			option_parse(&options[i], options[i].fallback,
			    "default", &cfg->number[i]);
}

static int
is_program(const char *file)
{
	struct stat st;

	return stat(file, &st) == 0 && S_ISREG(st.st_mode) &&
	    access(file, X_OK) == 0;
}

/* Could execvp(3) find it?  Better said now than at every connection. */
static int
is_runnable(const char *name)
{
	const char *path = getenv("PATH");
	char file[PATH_MAX];

	if (strchr(name, '/') != NULL)
		return is_program(name);
	for (; path != NULL; path = strchr(path, ':')) {
		path += *path == ':';
		snprintf(file, sizeof(file), "%.*s/%s",
		    (int)strcspn(path, ":"), path, name);
		if (is_program(file))
			return 1;
	}
	return 0;
}

/* What must be there, and what may not be together. */
static int
config_check(const struct config *cfg, int inetd)
{
	const char *missing = NULL;

	if (cfg->given[ACCEPT] == NULL && !inetd)
		missing = "accept = [host:]port";
	else if (cfg->given[CERT] == NULL)
		missing = "cert = FILE (tunnel -g NAME > FILE makes one)";
	else if (cfg->given[CONNECT] == NULL && cfg->command == NULL)
		missing = "connect = [host:]port, or a command behind --";
	if (missing != NULL) {
		say(ERROR, "missing: %s", missing);
		return -1;
	}
	if (cfg->given[CONNECT] != NULL && cfg->command != NULL) {
		say(ERROR, "%s: connect and a command exclude each other",
		    config_where(cfg, CONNECT));
		return -1;
	}
	if (cfg->command != NULL && !is_runnable(cfg->command[0])) {
		say(ERROR, "%s: command %s: %s", cfg->given[EXEC] != NULL ?
		    config_where(cfg, EXEC) : "command line", cfg->command[0],
		    "not found, or not executable");
		return -1;
	}
	return 0;
}

static void
config_print(const struct config *cfg, FILE *fp)
{
	const struct value *v;
	size_t i;

	for (i = 0; i < OPTIONS; i++) {
		if (cfg->given[i] == NULL && options[i].fallback != NULL)
			fprintf(fp, "%s = %s\n", options[i].name,
			    options[i].fallback);
		for (v = cfg->given[i]; v != NULL; v = v->next)
			fprintf(fp, "%s = %s\n", options[i].name, v->text);
	}
	for (i = 0; cfg->command != NULL && cfg->command[i] != NULL; i++)
		fprintf(fp, "%s%s", i == 0 ? "# command: " : " ",
		    cfg->command[i]);
	if (cfg->command != NULL)
		fputc('\n', fp);
}

/*
 * TLS, FROM THE CONFIGURATION
 */

/* The first line of a file, without its end; NULL after one sentence. */
static char *
read_password(const char *name, const char *where)
{
	char *line = NULL;
	size_t size = 0;
	FILE *fp;

	/* Unbuffered: no copy is left behind. */
	if ((fp = fopen(name, "re")) == NULL ||
	    setvbuf(fp, NULL, _IONBF, 0) != 0 ||
	    getline(&line, &size, fp) == -1) {
		say(ERROR, "%s: key_password_file %s: %s", where, name,
		    fp == NULL ? strerror(errno) : "it is empty");
		free(line);
		line = NULL;
	} else
		line[strcspn(line, "\r\n")] = '\0';
	if (fp != NULL)
		fclose(fp);
	return line;
}

static size_t
values_count(const struct value *v)
{
	size_t n;

	for (n = 0; v != NULL; v = v->next)
		n++;
	return n;
}

/* The certificates and, in the same order, the keys if they have their own. */
static int
load_certs(struct tls_config *tls, const struct config *cfg,
    const char *password)
{
	const struct value *cert = cfg->given[CERT], *key = cfg->given[KEY];

	if (key != NULL && values_count(key) != values_count(cert)) {
		say(ERROR, "%s: there are %zu cert and %zu key (allowed: a key "
		    "for each, in the same order, or none, with the keys in "
		    "the cert files)", key->where, values_count(cert),
		    values_count(key));
		return -1;
	}
	for (; cert != NULL; cert = cert->next) {
		const struct value *v = key != NULL ? key : cert;

		if (tls_config_cert(tls, cert->text) == -1) {
			say(ERROR, "%s: cert: %s", cert->where,
			    tls_config_error(tls));
			return -1;
		}
		if (tls_config_key(tls, v->text, password) == -1) {
			say(ERROR, "%s: key: %s", v->where,
			    tls_config_error(tls));
			return -1;
		}
		key = key != NULL ? key->next : NULL;
	}
	return 0;
}

static int
load_keys(struct tls_config *tls, const struct config *cfg)
{
	const char *file = config_text(cfg, KEY_PASSWORD_FILE);
	char *password = NULL;
	int r;

	if (file != NULL && (password = read_password(file,
	    config_where(cfg, KEY_PASSWORD_FILE))) == NULL)
		return -1;
	r = load_certs(tls, cfg, password);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	free(password);
	return r;
}

/* NULL after one sentence. */
static struct tls_config *
load_tls(const struct config *cfg)
{
	static const struct {
		int	 option;
		int	 (*set)(struct tls_config *, const char *);
	} lists[] = {
		{ CIPHERS, tls_config_ciphers },
		{ GROUPS, tls_config_groups },
		{ ALPN, tls_config_alpn },
	};
	struct tls_config *tls;
	size_t i;

	if ((tls = tls_config_new()) == NULL) {
		say(ERROR, "out of memory");
		return NULL;
	}
	if (load_keys(tls, cfg) == -1)
		goto err;
	if (tls_config_versions(tls, (int)cfg->number[TLS_MIN] + 12,
	    (int)cfg->number[TLS_MAX] + 12) == -1) {
		say(ERROR, "%s: %s", config_where(cfg,
		    cfg->given[TLS_MIN] != NULL ? TLS_MIN : TLS_MAX),
		    tls_config_error(tls));
		goto err;
	}
	for (i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		const char *names = config_text(cfg, lists[i].option);

		if (names != NULL && lists[i].set(tls, names) == -1) {
			say(ERROR, "%s: %s: %s",
			    config_where(cfg, lists[i].option),
			    options[lists[i].option].name,
			    tls_config_error(tls));
			goto err;
		}
	}
	if (tls_config_ready(tls) == -1) {
		say(ERROR, "%s: ciphers: %s", config_where(cfg, CIPHERS),
		    tls_config_error(tls));
		goto err;
	}
	tls_config_truncation(tls, cfg->number[TRUNCATION] == 1);
	return tls;
err:
	tls_config_free(tls);
	return NULL;
}

static void
warn_of_certs(const struct tls_config *tls)
{
	char text[TEXT_SIZE];
	size_t i;
	int r;

	for (i = 0; (r = tls_config_warning(tls, i, text, sizeof(text))) != -1;
	    i++)
		if (r == 1)
			say(WARNING, "%s", text);
}

/*
 * ADDRESSES
 */

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
	char	 text[ADDRESS_SIZE];
};

/* Fill in the text; by hand, since getnameinfo(3) is large. */
static void
address_text(struct address *a)
{
	const struct sockaddr_in *in = (const void *)&a->sa;
	const struct sockaddr_in6 *in6 = (const void *)&a->sa;
	const struct sockaddr_un *un = (const void *)&a->sa;
	char host[INET6_ADDRSTRLEN] = "";

	if (a->sa.ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(a->text, sizeof(a->text), "%s:%d", host,
		    ntohs(in->sin_port));
	} else if (a->sa.ss_family == AF_INET6) {
		int mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		inet_ntop(mapped ? AF_INET : AF_INET6,
		    in6->sin6_addr.s6_addr + (mapped ? 12 : 0), host,
		    sizeof(host));
		snprintf(a->text, sizeof(a->text), mapped ? "%s:%d" :
		    "[%s]:%d", host, ntohs(in6->sin6_port));
	} else
		snprintf(a->text, sizeof(a->text), "unix:%s",
		    a->len > offsetof(struct sockaddr_un, sun_path) ?
		    un->sun_path : "");
}

/* An address in figures; -1 if it is not one. */
static int
address_numeric(struct address *a, const char *host, in_port_t port)
{
	struct sockaddr_in *in = (void *)&a->sa;
	struct sockaddr_in6 *in6 = (void *)&a->sa;

	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		a->len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		a->len = sizeof(*in6);
	} else
		return -1;
	address_text(a);
	return 0;
}

/* What one accept or connect names. */
struct target {
	struct address addrs[ADDRESSES];
	size_t	 n;
	size_t	 first;			/* to be tried: the last that opened */
	int	 any;			/* no host was named */
	int	 fd;			/* of fd:N, then without addresses */
	const struct value *value;
};

struct targets {
	struct target *list;
	size_t	 n;
};

static int
resolve_unix(struct target *t, const char *path)
{
	struct sockaddr_un *un = (void *)&t->addrs->sa;

	if (strlen(path) >= sizeof(un->sun_path) || *path == '\0') {
		say(ERROR, "%s: \"%s\" is not a path of up to %zu bytes",
		    t->value->where, path, sizeof(un->sun_path) - 1);
		return -1;
	}
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	t->addrs->len = sizeof(*un);
	address_text(t->addrs);
	return 0;
}

/* A host's name; the addresses come in the order of getaddrinfo(3). */
static int
resolve_name(struct target *t, const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *ai;
	size_t n = 0;
	int r;

	if ((r = getaddrinfo(host, port, &hints, &list)) != 0) {
		say(ERROR, "%s: %s: %s", t->value->where, host,
		    gai_strerror(r));
		return -1;
	}
	for (ai = list; ai != NULL && n < ADDRESSES; ai = ai->ai_next, n++) {
		memcpy(&t->addrs[n].sa, ai->ai_addr, ai->ai_addrlen);
		t->addrs[n].len = ai->ai_addrlen;
		address_text(&t->addrs[n]);
	}
	t->n = n;
	freeaddrinfo(list);
	return 0;
}

/* host and port of "[host:]port"; host is empty when there is none. */
static int
split_address(const char *text, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon != NULL ? (size_t)(colon - text) : 0;

	*port = colon != NULL ? colon + 1 : text;
	/* An IPv6 address has brackets, and nothing else does. */
	if (len > 1 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
		if (memchr(text, ':', len) == NULL)
			return -1;
	} else if (memchr(text, ':', len) != NULL)
		return -1;
	if (len >= size)
		return -1;
	memcpy(host, text, len);
	host[len] = '\0';
	if (strcmp(host, "*") == 0)
		host[0] = '\0';
	return 0;
}

static int
has_ipv6(void)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return 0;
	close(fd);
	return 1;
}

/* fd:N, a listening socket that somebody else has made. */
static int
resolve_fd(struct target *t, const char *number)
{
	int64_t fd;

	if (parse_number(number, 0, INT32_MAX, &fd) == -1) {
		say(ERROR, "%s: \"fd:%s\" is not the number of a listening "
		    "socket", t->value->where, number);
		return -1;
	}
	t->n = 0;
	t->fd = (int)fd;
	return 0;
}

/*
 * All the addresses that a value names.  No host is every address of this
 * machine to accept on, and 127.0.0.1 to connect to.
 */
static int
resolve(struct target *t, const struct value *v, int passive)
{
	char host[NI_MAXHOST];
	const char *port;
	int64_t number;

	t->value = v;
	t->n = 1;
	t->fd = -1;
	if (passive && strncmp(v->text, "fd:", 3) == 0)
		return resolve_fd(t, v->text + 3);
	if (strncmp(v->text, "unix:", 5) == 0)
		return resolve_unix(t, v->text + 5);
	if (split_address(v->text, host, sizeof(host), &port) == -1 ||
	    parse_number(port, passive ? 0 : 1, 65535, &number) == -1) {
		say(ERROR, "%s: \"%s\" is not an address (allowed: "
		    "[host:]port with a port of %d to 65535, [IPv6]:port, "
		    "unix:/path%s)", v->where, v->text, passive ? 0 : 1,
		    passive ? ", fd:N" : "");
		return -1;
	}
	t->any = passive && host[0] == '\0';
	if (host[0] == '\0')
		snprintf(host, sizeof(host), "%s", !passive ? "127.0.0.1" :
		    has_ipv6() ? "::" : "0.0.0.0");
	if (address_numeric(t->addrs, host, (in_port_t)number) == 0)
		return 0;
	return resolve_name(t, host, port);
}

static int
resolve_all(struct targets *all, const struct value *values, int passive)
{
	size_t n = values_count(values);
	const struct value *v;

	if (n > 0 && (all->list = calloc(n, sizeof(*all->list))) == NULL) {
		say(ERROR, "out of memory");
		return -1;
	}
	for (v = values; v != NULL; v = v->next)
		if (resolve(&all->list[all->n++], v, passive) == -1)
			return -1;
	return 0;
}

/*
 * THE SERVICE
 * A configuration put to work.
 */

struct command {
	struct command *next;
	pid_t	 pid;			/* 0: it is over, and status is known */
	int	 status;		/* as of waitpid(2) */
	int	 end;			/* its end of the socket pair, or -1 */
	int	 left;			/* its connection is over */
};

struct listener {
	int	 fd;
	int	 inherited;
	struct address addr;
};

struct service {
	const struct config *cfg;
	struct tls_config *tls;
	struct forward *engine;
	struct targets accepts, connects;
	struct listener *listeners;
	size_t	 nlisteners;
	size_t	 turn;			/* round robin over connects */
	struct stream_ops command_ops;	/* plain, but for the ends */
	struct command *commands;
	int64_t	 running;		/* of them */
	struct rlimit files;		/* as it was at start: for them */
	char	 why[TEXT_SIZE];	/* the last dial failed */
	int	 stopping;
	time_t	 complained;		/* of want of resources */
};

/* One connection, as the engine's callbacks see it. */
struct session {
	struct service *service;
	struct tls *tls;
	int	 fd;			/* the client's */
	int	 dialed;
	char	 peer[ADDRESS_SIZE];
	size_t	 turn;			/* the target it began with */
	size_t	 tried;			/* addresses, over all targets */
	struct target *target;		/* the one being tried, */
	size_t	 which;			/* and which address of it */
	struct command *command;
};

static void
tune(int fd)
{
	int on = 1;

	/* Neither is there on a Unix socket, and none is missed. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* Give up a socket for the reason in errno. */
static int
close_failed(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

/*
 * In TLS 1.3 the client has the last word of the handshake.  A client that
 * waits for its acknowledgement before it sends more shall not wait long.
 */
#ifdef TCP_QUICKACK
static void
acknowledge(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}
#else
#define acknowledge(fd)	((void)(fd))
#endif

/*
 * COMMANDS
 * The parent keeps the child's end of the socket pair open until it has its
 * exit status: by the time the end of file is seen, it is known whether the
 * command ended or was killed, and the latter is no end at all.
 */

static int
command_died(const struct stream *s)
{
	const struct command *c = s->ctx;

	return c->pid == 0 && WIFSIGNALED(c->status);
}

/* What a command did not wait for, it did not want: that is no reset. */
static int
command_left(const struct stream *s, ssize_t result)
{
	const struct command *c = s->ctx;

	return result == STREAM_RESET && c->pid == 0 && !command_died(s);
}

static ssize_t
command_read(struct stream *s, void *buf, size_t len)
{
	ssize_t n = stream_plain.read(s, buf, len);

	if (command_left(s, n))
		return STREAM_EOF;
	return n == STREAM_EOF && command_died(s) ? STREAM_ERROR : n;
}

static ssize_t
command_write(struct stream *s, const void *buf, size_t len)
{
	ssize_t n = stream_plain.write(s, buf, len);

	return command_left(s, n) ? (ssize_t)len : n;
}

static int
command_failed(struct stream *s)
{
	int r = stream_plain.failed(s);

	return command_left(s, r) ? 0 : r;
}

/* An abort must not look like the end of the input, to any of its group. */
static void
command_abort(struct stream *s)
{
	const struct command *c = s->ctx;

	if (c->pid != 0)
		kill(-c->pid, SIGTERM);
}

static const char *
command_error(const struct stream *s)
{
	const struct command *c = s->ctx;
	static char text[64];

	if (!command_died(s))
		return stream_plain.error(s);
	snprintf(text, sizeof(text), "command killed by signal %d (%s)",
	    WTERMSIG(c->status), strsignal(WTERMSIG(c->status)));
	return text;
}

/* In the child: become the command, with the socket as its 0 and 1. */
static void __attribute__((noreturn))
command_run(const struct session *ss, int fd)
{
	char **argv = ss->service->cfg->command;
	char host[ADDRESS_SIZE];
	const char *port;
	sigset_t none;
	size_t i;

	unsetenv("REMOTE_HOST");
	unsetenv("REMOTE_PORT");
	if (strncmp(ss->peer, "unix:", 5) != 0 &&
	    split_address(ss->peer, host, sizeof(host), &port) == 0) {
		setenv("REMOTE_HOST", host, 1);
		setenv("REMOTE_PORT", port, 1);
	}
	setpgid(0, 0);
	setrlimit(RLIMIT_NOFILE, &ss->service->files);
	/* An abort that is waiting already must not end in our handler. */
	for (i = 0; i < SIGNALS; i++)
		signal(signals[i], SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(fd, STDIN_FILENO) != -1 && dup2(fd, STDOUT_FILENO) != -1)
		execvp(argv[0], argv);
	say(ERROR, "%s: %s", argv[0], strerror(errno));
	kill(getpid(), SIGKILL);	/* no output is not an empty one */
	_exit(127);
}

static int
command_start(struct session *ss, struct stream *backend)
{
	struct service *sv = ss->service;
	struct command *c;
	int fds[2] = { -1, -1 };

	/* They may outlive their connections, and still count. */
	if (sv->running >= sv->cfg->number[MAX_CONNECTIONS]) {
		snprintf(sv->why, sizeof(sv->why), "%s: %lld commands are "
		    "still running", sv->cfg->command[0],
		    (long long)sv->running);
		return -1;
	}
	if ((c = calloc(1, sizeof(*c))) == NULL ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == -1 ||
	    fcntl(fds[0], F_SETFL, O_NONBLOCK) == -1 ||
	    (c->pid = fork()) == -1) {
		snprintf(sv->why, sizeof(sv->why), "%s: %s",
		    sv->cfg->command[0], strerror(errno));
		if (fds[0] != -1) {
			close(fds[0]);
			close(fds[1]);
		}
		free(c);
		return -1;
	}
	if (c->pid == 0)
		command_run(ss, fds[1]);
	setpgid(c->pid, c->pid);	/* whichever of the two comes first */
	c->end = fds[1];
	c->next = sv->commands;
	sv->commands = c;
	sv->running++;
	ss->command = c;
	*backend = (struct stream){ .ops = &sv->command_ops, .ctx = c,
	    .fd = fds[0] };
	return 0;
}

/* Forget the commands that are over, if their connections are as well. */
static void
commands_prune(struct service *sv)
{
	struct command **link = &sv->commands, *c;

	while ((c = *link) != NULL) {
		if (c->pid == 0 && c->left) {
			*link = c->next;
			free(c);
		} else
			link = &c->next;
	}
}

static void
command_close(struct command *c)
{
	if (c->end != -1)
		close(c->end);
	c->end = -1;
}

static void
commands_reap(struct service *sv)
{
	struct command *c;
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (c = sv->commands; c != NULL && c->pid != pid; c = c->next)
			continue;
		if (c == NULL)
			continue;
		say(DEBUG, "command %d ended: %s %d", (int)pid,
		    WIFSIGNALED(status) ? "signal" : "status",
		    WIFSIGNALED(status) ? WTERMSIG(status) :
		    WEXITSTATUS(status));
		c->pid = 0;
		c->status = status;
		sv->running--;
		command_close(c);
	}
	commands_prune(sv);
}

/*
 * THE ENGINE'S CALLBACKS
 */

static void *
session_accepted(void *arg, int fd, const struct sockaddr *sa, socklen_t len,
    struct stream *client)
{
	struct address peer = { .len = 0 };
	struct service *sv = arg;
	struct session *ss;

	if ((ss = calloc(1, sizeof(*ss))) == NULL ||
	    (ss->tls = tls_new(sv->tls, fd, client)) == NULL) {
		say(WARNING, "a connection was turned away: out of memory");
		free(ss);
		return NULL;
	}
	ss->service = sv;
	ss->fd = fd;
	ss->turn = sv->turn++;
	memcpy(&peer.sa, sa, len);
	peer.len = len;
	address_text(&peer);
	memcpy(ss->peer, peer.text, sizeof(ss->peer));
	say(DEBUG, "%s accepted", ss->peer);
	return ss;
}

/* The next address to try; NULL when all have been. */
static const struct address *
next_address(struct session *ss)
{
	const struct targets *all = &ss->service->connects;
	size_t i, n = ss->tried++;

	for (i = 0; i < all->n; i++) {
		struct target *t = &all->list[(ss->turn + i) % all->n];

		if (n < t->n) {
			ss->target = t;
			ss->which = (n == 0 ? t->first : ss->which + 1) % t->n;
			return &t->addrs[ss->which];
		}
		n -= t->n;
	}
	return NULL;
}

/* A socket that is connecting to an address; -1 with errno. */
static int
dial(const struct address *a)
{
	int fd;

	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	tune(fd);
	if (connect(fd, (const struct sockaddr *)&a->sa, a->len) == 0 ||
	    errno == EINPROGRESS)
		return fd;
	return close_failed(fd);
}

/* connect(2) says EAGAIN where a Unix socket has no room for another one. */
static const char *
dial_error(int error)
{
	return error == EAGAIN ? "its backlog is full" : strerror(error);
}

/* Remember what did not open, and begin with another one next time. */
static void
dial_failed(struct session *ss, const char *why)
{
	struct service *sv = ss->service;
	struct target *t = ss->target;

	snprintf(sv->why, sizeof(sv->why), "%s: %s", t->addrs[ss->which].text,
	    why);
	say(INFO, "%s -> %s", ss->peer, sv->why);
	t->first = (ss->which + 1) % t->n;
}

static int
session_dial(void *conn, struct stream *backend, const char *failed,
    const char **why)
{
	struct session *ss = conn;
	const struct address *a;

	*why = ss->service->why;
	if (!ss->dialed)
		acknowledge(ss->fd);
	ss->dialed = 1;
	if (ss->service->cfg->command != NULL)
		return command_start(ss, backend);
	if (failed != NULL)
		dial_failed(ss, failed);
	while ((a = next_address(ss)) != NULL) {
		*backend = (struct stream){ .ops = &stream_plain,
		    .fd = dial(a) };
		if (backend->fd != -1)
			return 0;
		dial_failed(ss, dial_error(errno));
	}
	return -1;
}

static void
session_closed(void *conn, const struct forward_end *end)
{
	struct session *ss = conn;
	struct config const *cfg = ss->service->cfg;
	const char *to = "-";
	char agreed[TEXT_SIZE];
	enum level level = INFO;

	if (ss->command != NULL) {
		to = cfg->command[0];
		ss->command->left = 1;
		command_close(ss->command);
		commands_prune(ss->service);
	} else if (end->served)
		to = ss->target->addrs[ss->which].text;
	if (!end->served)
		level = ss->dialed ? WARNING :
		    tls_heard(ss->tls) ? NOTICE : DEBUG;
	tls_describe(ss->tls, agreed, sizeof(agreed));
	say(level, "%s -> %s%s in=%llu out=%llu %lld.%03ds %s", ss->peer,
	    to, agreed, (unsigned long long)end->in,
	    (unsigned long long)end->out, (long long)(end->ms / 1000),
	    (int)(end->ms % 1000), end->reason);
	tls_free(ss->tls);
	free(ss);
}

static void
service_starved(void *arg, int error)
{
	struct service *sv = arg;
	time_t now = time(NULL);

	if (now - sv->complained < STARVED_EVERY)
		return;
	sv->complained = now;
	say(WARNING, "accepting pauses: %s", strerror(error));
}

/*
 * THE LOG, OPENED
 */

/*
 * Until the configuration is known.  inetd gives its children the connection
 * as 0, 1 and 2: there, a log on stderr would go to the client.
 */
static void
log_init(void)
{
	const char *journal = getenv("JOURNAL_STREAM");
	struct stat in, err;
	char stream[64];

	openlog("tunnel", LOG_PID, LOG_DAEMON);
	if (fstat(STDERR_FILENO, &err) == -1)
		return;
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)err.st_dev,
	    (uintmax_t)err.st_ino);
	logging.is_journal = journal != NULL && strcmp(journal, stream) == 0;
	if (fstat(STDIN_FILENO, &in) == 0 && S_ISSOCK(in.st_mode) &&
	    in.st_ino == err.st_ino && in.st_dev == err.st_dev)
		logging.fd = -1;
}

static int
log_open(const struct config *cfg)
{
	const char *to = config_text(cfg, LOG);
	int fd;

	logging.level = (enum level)cfg->number[LOG_LEVEL];
	if (cfg->number[DAEMON] == 1 && cfg->given[LOG] == NULL)
		to = "syslog";
	if (strcmp(to, "stderr") == 0)
		return 0;
	if (strcmp(to, "syslog") == 0) {
		logging.fd = -1;
		return 0;
	}
	fd = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd == -1) {
		say(ERROR, "%s: log file %s: %s", config_where(cfg, LOG), to,
		    strerror(errno));
		return -1;
	}
	if (logging.is_file)
		close(logging.fd);
	logging.fd = fd;
	logging.is_file = 1;
	return 0;
}

/*
 * LISTENERS
 */

/* A socket that nobody listens on any more is in the way: remove it. */
static void
remove_stale(const struct address *a)
{
	const struct sockaddr_un *un = (const void *)&a->sa;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0);
	struct stat st;

	if (fd == -1)
		return;
	if (lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)&a->sa, a->len) == -1 &&
	    errno == ECONNREFUSED)
		unlink(un->sun_path);
	close(fd);
}

static int
listen_on(const struct address *a, int any)
{
	int fd, off = 0, on = 1;

	if (a->sa.ss_family == AF_UNIX)
		remove_stale(a);
	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on,
		    sizeof(on));
	if (bind(fd, (const struct sockaddr *)&a->sa, a->len) == 0 &&
	    listen(fd, BACKLOG) == 0)
		return fd;
	return close_failed(fd);
}

/*
 * A listening socket that somebody else has made for us.  As a standard
 * descriptor it would be in the way.
 */
static int
inherit(int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == -1 ||
	    !listening || fcntl(fd, F_SETFL, O_NONBLOCK) == -1) {
		errno = ENOTSOCK;
		return -1;
	}
	if (fd <= STDERR_FILENO)
		return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ? -1 : fd;
}

static int
add_listener(struct service *sv, int fd, int inherited)
{
	struct listener *all, *l;

	if (sv->nlisteners == FORWARD_LISTENERS) {
		errno = EMFILE;
		return -1;
	}
	all = realloc(sv->listeners, (sv->nlisteners + 1) * sizeof(*all));
	if (all == NULL)
		return -1;
	sv->listeners = all;
	l = &all[sv->nlisteners++];
	memset(l, 0, sizeof(*l));
	l->fd = fd;
	l->inherited = inherited;
	tune(fd);		/* inherited by what is accepted */
	l->addr.len = sizeof(l->addr.sa);
	getsockname(fd, (struct sockaddr *)&l->addr.sa, &l->addr.len);
	address_text(&l->addr);
	return forward_listen(sv->engine, fd);
}

/* Listen on every address of an accept; -1 after one sentence. */
static int
open_listener(struct service *sv, const struct target *t)
{
	size_t i;
	int fd;

	for (i = 0; i < (t->fd != -1 ? 1 : t->n); i++) {
		fd = t->fd != -1 ? inherit(t->fd) :
		    listen_on(&t->addrs[i], t->any);
		if (fd == -1 || add_listener(sv, fd, t->fd != -1) == -1) {
			say(ERROR, "%s: accept %s: %s", t->value->where,
			    t->fd != -1 ? t->value->text : t->addrs[i].text,
			    errno == ENOTSOCK ? "it is not the number of a "
			    "listening socket" : strerror(errno));
			return -1;
		}
	}
	return 0;
}

static int
open_listeners(struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->accepts.n; i++)
		if (open_listener(sv, &sv->accepts.list[i]) == -1)
			return -1;
	return 0;
}

static void
close_listeners(struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->nlisteners; i++) {
		struct listener *l = &sv->listeners[i];
		const struct sockaddr_un *un = (const void *)&l->addr.sa;

		/* In this order: once closed, another may have its name. */
		if (l->addr.sa.ss_family == AF_UNIX && !l->inherited)
			unlink(un->sun_path);
		close(l->fd);
	}
	free(sv->listeners);
	sv->listeners = NULL;
	sv->nlisteners = 0;
}

/*
 * SIGNALS
 * They arrive while the engine sleeps, and at no other time.
 */

static void
on_signal(int sig)
{
	if (sig == SIGHUP)
		got_hup = 1;
	else if (sig == SIGCHLD)
		got_child = 1;
	else if (sig == SIGALRM)
		got_alarm = 1;
	else
		got_stop = 1;
}

static void
service_woken(void *arg)
{
	struct service *sv = arg;

	if (got_child) {
		got_child = 0;
		commands_reap(sv);
	}
	if (got_hup) {
		got_hup = 0;
		if (logging.is_file && log_open(sv->cfg) == 0)
			say(NOTICE, "log file opened anew");
	}
	if (got_alarm) {
		got_alarm = 0;
		alarm(DAY);
		warn_of_certs(sv->tls);
	}
	if (got_stop) {
		got_stop = 0;
		say(NOTICE, sv->stopping ? "stopping at once" :
		    "stopping, connections may finish");
		if (sv->stopping)
			forward_cut(sv->engine);
		forward_drain(sv->engine, sv->cfg->number[DRAIN_TIMEOUT]);
		close_listeners(sv);
		sv->stopping = 1;
	}
}

static void
catch_signals(sigset_t *asleep)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t awake;
	size_t i;

	sigemptyset(&awake);
	for (i = 0; i < SIGNALS; i++) {
		sigaction(signals[i], &sa, NULL);
		sigaddset(&awake, signals[i]);
	}
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &awake, asleep);
	for (i = 0; i < SIGNALS; i++)
		sigdelset(asleep, signals[i]);
}

/*
 * FROM A CONFIGURATION TO A SERVICE
 */

/* Descriptors for as many connections as there may be. */
static void
raise_limit(const struct service *sv)
{
	const struct config *cfg = sv->cfg;
	rlim_t each = cfg->command != NULL ? 3 : 2;
	rlim_t need = (rlim_t)cfg->number[MAX_CONNECTIONS] * each + SPARE_FDS;
	struct rlimit l = sv->files;

	if (l.rlim_cur >= need)
		return;
	l.rlim_cur = l.rlim_max < need ? l.rlim_max : need;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur < need)
		say(WARNING, "max_connections needs %llu descriptors, and "
		    "%llu are allowed (ulimit -n)", (unsigned long long)need,
		    (unsigned long long)l.rlim_cur);
}

static int
service_init(struct service *sv, const struct config *cfg, int inetd)
{
	static const struct forward_calls calls = {
		.accepted = session_accepted,
		.dial = session_dial,
		.closed = session_closed,
		.woken = service_woken,
		.starved = service_starved,
	};
	struct forward_params params = {
		.calls = &calls,
		.arg = sv,
		.max_connections = (unsigned)cfg->number[MAX_CONNECTIONS],
		.open_ms = cfg->number[HANDSHAKE_TIMEOUT],
		.dial_ms = cfg->number[CONNECT_TIMEOUT],
		.idle_ms = cfg->number[IDLE_TIMEOUT],
		.linger_ms = cfg->number[LINGER_TIMEOUT],
	};

	sv->cfg = cfg;
	getrlimit(RLIMIT_NOFILE, &sv->files);
	sv->command_ops = stream_plain;	/* whose members are no constants */
	sv->command_ops.read = command_read;
	sv->command_ops.write = command_write;
	sv->command_ops.failed = command_failed;
	sv->command_ops.abort = command_abort;
	sv->command_ops.error = command_error;
	if ((sv->tls = load_tls(cfg)) == NULL ||
	    resolve_all(&sv->accepts, inetd ? NULL : cfg->given[ACCEPT], 1) ==
	    -1 || resolve_all(&sv->connects, cfg->given[CONNECT], 0) == -1)
		return -1;
	if ((sv->engine = forward_new(&params)) == NULL) {
		say(ERROR, "%s", strerror(errno));
		return -1;
	}
	return 0;
}

static void
service_free(struct service *sv)
{
	struct command *c;

	close_listeners(sv);
	forward_free(sv->engine);
	while ((c = sv->commands) != NULL) {
		sv->commands = c->next;
		command_close(c);
		free(c);
	}
	free(sv->accepts.list);
	free(sv->connects.list);
	tls_config_free(sv->tls);
}

/*
 * THE WAYS TO RUN
 */

/* Where one of 0 to 2 is closed, it must not become a connection's. */
static void
hold_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd != -1 && fd <= STDERR_FILENO);
	if (fd != -1)
		close(fd);
}

/* Let go of the standard descriptors, but for stderr if it is in use. */
static void
silence(int keep_stderr)
{
	int fd, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int last = keep_stderr ? STDOUT_FILENO : STDERR_FILENO;

	for (fd = STDIN_FILENO; fd <= last && null != -1; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
}

static int
run_inetd(const struct config *cfg)
{
	struct service sv = { 0 };
	struct sockaddr_storage sa = { 0 };
	socklen_t len = sizeof(sa);
	sigset_t asleep;
	int fd, r = EXIT_CONFIG;

	if (log_open(cfg) == -1)
		return EXIT_CONFIG;
	fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (fd == -1 || getpeername(fd, (struct sockaddr *)&sa, &len) == -1 ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) == -1) {
		say(ERROR, "-i: descriptor 0 is not a connected socket: %s",
		    strerror(errno));
		return EXIT_CONFIG;
	}
	silence(logging.fd == STDERR_FILENO);
	tune(fd);
	catch_signals(&asleep);
	if (service_init(&sv, cfg, 1) == 0) {
		forward_add(sv.engine, fd, (struct sockaddr *)&sa, len);
		forward_drain(sv.engine, 0);
		r = forward_run(sv.engine, &asleep) == 0 ? EXIT_SUCCESS :
		    EXIT_FAILURE;
	}
	service_free(&sv);
	return r;
}

/*
 * Into the background: the parent stays until the child has started, so that
 * it can exit as the child does.  The descriptor to report on, or -1.
 */
static int
background(void)
{
	int fds[2], status;
	pid_t pid;
	char byte;

	if (pipe2(fds, O_CLOEXEC) == -1 || (pid = fork()) == -1) {
		say(ERROR, "daemon: %s", strerror(errno));
		return -1;
	}
	if (pid == 0) {
		close(fds[0]);
		setsid();
		return fds[1];
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) == 1)
		_exit(EXIT_SUCCESS);
	if (waitpid(pid, &status, 0) == -1 || !WIFEXITED(status))
		_exit(EXIT_FAILURE);
	_exit(WEXITSTATUS(status));
}

/* The file stays locked, which tells a live tunnel from a file left over. */
static int
write_pidfile(const struct config *cfg)
{
	const char *name = config_text(cfg, PIDFILE), *why;
	int fd;

	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd == -1)
		why = errno == ELOOP ? "it is a symbolic link" :
		    strerror(errno);
	else if (flock(fd, LOCK_EX | LOCK_NB) == -1)
		why = "another tunnel holds it";
	else if (ftruncate(fd, 0) == -1 ||
	    dprintf(fd, "%d\n", (int)getpid()) < 0)
		why = strerror(errno);
	else
		return 0;
	say(ERROR, "%s: pidfile %s: %s", config_where(cfg, PIDFILE), name,
	    why);
	if (fd != -1)
		close(fd);
	return -1;
}

/* From here on it runs: tell the log, and whoever waits for us. */
static int
announce(const struct service *sv, int parent)
{
	size_t i;

	if (log_open(sv->cfg) == -1)
		return -1;
	for (i = 0; i < sv->nlisteners; i++)
		say(NOTICE, "listening on %s", sv->listeners[i].addr.text);
	warn_of_certs(sv->tls);
	alarm(DAY);
	if (parent != -1) {
		silence(logging.fd == STDERR_FILENO);
		if (write(parent, "", 1) == -1)
			return -1;
		close(parent);
	}
	return 0;
}

static int
run_service(const struct config *cfg)
{
	struct service sv = { 0 };
	int parent = -1, r = EXIT_CONFIG;
	sigset_t asleep;

	if (cfg->number[DAEMON] == 1 && (parent = background()) == -1)
		return EXIT_FAILURE;
	if (service_init(&sv, cfg, 0) == -1)
		goto out;
	raise_limit(&sv);
	catch_signals(&asleep);
	if (open_listeners(&sv) == -1)
		goto out;
	if (cfg->given[PIDFILE] != NULL && write_pidfile(cfg) == -1)
		goto out;
	if (announce(&sv, parent) == 0)
		r = forward_run(sv.engine, &asleep) == 0 ? EXIT_SUCCESS :
		    EXIT_FAILURE;
	if (r == EXIT_FAILURE)
		say(ERROR, "%s: %s", forward_poller, strerror(errno));
	if (cfg->given[PIDFILE] != NULL)
		unlink(config_text(cfg, PIDFILE));
out:
	service_free(&sv);
	return r;
}

/* -t: all but the binding, and what came of it. */
static int
run_test(const struct config *cfg, int inetd)
{
	struct service sv = { 0 };
	int r = service_init(&sv, cfg, inetd);
	size_t i;

	if (r == 0) {
		config_print(cfg, stdout);
		tls_config_print(sv.tls, stdout);
		for (i = 0; tls_config_report(sv.tls, i, stdout) == 0; i++)
			continue;
		fflush(stdout);
		warn_of_certs(sv.tls);
	}
	service_free(&sv);
	return r == 0 ? EXIT_SUCCESS : EXIT_CONFIG;
}

/* -g: the key that is written is for its owner alone. */
static int
run_generate(const char *names)
{
	char text[TEXT_SIZE];
	struct stat st;

	if (fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
	    fchmod(STDOUT_FILENO, 0600) == -1) {
		say(ERROR, "-g: the file can't be kept from others: %s",
		    strerror(errno));
		return EXIT_FAILURE;
	}
	if (tls_generate(names, stdout, text, sizeof(text)) == 0)
		return EXIT_SUCCESS;
	say(ERROR, "-g: %s", text);
	return EXIT_CONFIG;
}

/*
 * THE COMMAND LINE
 */

struct arguments {
	const char *file;
	const char *names;		/* of -g */
	int	 help, inetd, test, version;
	char	**command;		/* what is behind -- */
};

static void
usage(FILE *fp)
{
	fprintf(fp, "usage: tunnel [-dhiqtvV] [-c file] [key=value ...] "
	    "[-- command [argument ...]]\n"
	    "       tunnel -g name[,name ...] > tunnel.pem\n");
}

static void
help(void)
{
	size_t i;

	usage(stdout);
	printf("\n  -c file   read the configuration file\n"
	    "  -d        daemon=yes\n"
	    "  -g names  make a key and a self-signed certificate\n"
	    "  -i        serve the one connection on descriptor 0 (inetd)\n"
	    "  -q        log_level=warning\n"
	    "  -t        check the configuration, describe the certificates\n"
	    "  -v        log_level=debug\n"
	    "  -V        versions and features\n\n"
	    "keys, as in the file (tunnel.conf(5)):\n");
	for (i = 0; i < OPTIONS; i++)
		printf("  %-18s %s%s%s%s\n", options[i].name, options[i].help,
		    options[i].fallback != NULL ? " (" : "",
		    options[i].fallback != NULL ? options[i].fallback : "",
		    options[i].fallback != NULL ? ")" : "");
}

/* Letters and key=value in any order, up to "--". */
static int
parse_arguments(struct config *cfg, struct arguments *a, int argc, char **argv)
{
	static char *none[] = { NULL };
	const char *key = NULL, *value = NULL;
	int c, n;

	for (n = 1; n < argc && strcmp(argv[n], "--") != 0; n++)
		continue;
	a->command = n < argc ? &argv[n + 1] : none;
	while (optind < n) {
		key = NULL;
		switch (c = getopt(n, argv, "+c:dg:hiqtvV")) {
		case -1:
			if (config_argument(cfg, argv[optind++]) == -1)
				return -1;
			break;
		case 'c':
			if (a->file != NULL) {
				say(ERROR, "-c is given twice");
				return -1;
			}
			a->file = optarg;
			break;
		case 'd':
			key = "daemon", value = "yes";
			break;
		case 'g':
			a->names = optarg;
			break;
		case 'h':
			a->help = 1;
			break;
		case 'i':
			a->inetd = 1;
			break;
		case 'q':
		case 'v':
			key = "log_level", value = c == 'q' ? "warning" :
			    "debug";
			break;
		case 't':
			a->test = 1;
			break;
		case 'V':
			a->version = 1;
			break;
		default:
			usage(stderr);
			return -1;
		}
		if (key != NULL && config_set(cfg, FROM_ARGUMENT,
		    "command line", key, value) == -1)
			return -1;
	}
	return 0;
}

static int
configure(struct config *cfg, const struct arguments *a)
{
	if (a->file != NULL && config_file(cfg, a->file) == -1)
		return -1;
	if (config_command(cfg, a->command) == -1)
		return -1;
	return config_check(cfg, a->inetd);
}

int
main(int argc, char **argv)
{
	struct config cfg = { 0 };
	struct arguments a = { 0 };
	const char *why;
	int r = EXIT_CONFIG;

	hold_standard_descriptors();
	config_defaults(&cfg);
	log_init();
	if (argc == 1) {
		usage(stderr);
	} else if (parse_arguments(&cfg, &a, argc, argv) == -1) {
		r = EXIT_CONFIG;
	} else if (a.help) {
		help();
		r = EXIT_SUCCESS;
	} else if (a.version) {
		printf("tunnel %s (%s, %s)\n", VERSION, tls_version(),
		    forward_poller);
		r = EXIT_SUCCESS;
	} else if ((why = tls_init()) != NULL) {
		say(ERROR, "%s", why);
		r = EXIT_FAILURE;
	} else if (a.names != NULL) {
		r = run_generate(a.names);
	} else if (configure(&cfg, &a) == 0) {
		r = a.test ? run_test(&cfg, a.inetd) :
		    a.inetd ? run_inetd(&cfg) : run_service(&cfg);
	}
	config_free(&cfg);
	return r;
}
