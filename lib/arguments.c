/* arguments: the command line, the environment, and their configuration. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arguments.h"
#include "config.h"
#include "log.h"
#include "options.h"
#include "util.h"

static void
usage(FILE *fp)
{
	fprintf(fp, "usage: tunnel [-dhiqtvV] [-c file] [key=value ...] "
	    "[-- command [argument ...]]\n"
	    "       tunnel -g name[,name ...] | -k | -p name [-o file]\n"
	    "       tunnel -r name[,name ...] -o file\n");
}

int
arguments_misused(void)
{
	usage(stderr);
	fprintf(stderr, "tunnel -h lists all options and keys\n");
	return -1;
}

/* Print a group of keys: from one key up to, but without, another. */
static void
help_keys(int from, int to, const char *title)
{
	int i, used = printf("  %-13s", title);

	for (i = from; i < to; i++) {
		if (used + 1 + (int)strlen(options[i].name) > 79) {
			printf("\n");
			used = printf("%15s", "");
		}
		used += printf(" %s", options[i].name);
	}
	printf("\n");
}

/* The help fits on a screen of 24 lines. */
void
arguments_help(void)
{
	static const struct {
		int	 from;
		const char *title;
	} groups[] = {
		{ ACCEPT, "addresses" }, { CERT, "certificates" },
		{ CA, "verification" }, { TLS_MIN, "TLS" },
		{ SESSION_TICKETS, "resumption" },
		{ MAX_CONNECTIONS, "limits" },
		{ MODE, "processes" }, { DAEMON, "daemon, log" },
		{ OPTIONS, NULL }
	};
	size_t i;

	usage(stdout);
	printf("\n  -c file  configuration file   "
	    "-t        check and show the configuration\n"
	    "  -d       daemon=yes           "
	    "-tq       check it, show only problems\n"
	    "  -i       serve 1 connection   "
	    "-g names  new key and self-signed certificate\n"
	    "  -q       log_level=warning    "
	    "-r names  new key and certificate request\n"
	    "  -v       log_level=debug      "
	    "-k        new key for ticket_keys\n"
	    "  -V       show the version     "
	    "-p name   new shared key for psk\n"
	    "  -h       show this text       "
	    "-o file   output file of -g, -r, -k or -p\n\n"
	    "keys, in the file or as arguments; tunnel.conf(5) explains them:"
	    "\n");
	for (i = 0; groups[i].title != NULL; i++)
		help_keys(groups[i].from, groups[i + 1].from, groups[i].title);
}

/* Check the combination of -g, -r, -k, -p and -o.  -1, having logged why. */
static int
check_letters(const struct arguments *a)
{
	int makes = (a->names != NULL) + (a->requested != NULL) +
	    (a->key != 0) + (a->identity != NULL);

	if (a->output != NULL && makes == 0) {
		log_error("-o has no effect without -g, -r, -k or -p");
		return -1;
	}
	if (makes > 0 && a->nsettings > 0) {
		log_error("unexpected argument \"%s\" (allowed: -g "
		    "NAME[,NAME ...], -r NAME[,NAME ...], -k or -p IDENTITY, "
		    "and -o FILE)",
		    a->settings[0]);
		return -1;
	}
	if (makes > 1 || (makes == 1 && (a->file != NULL || a->inetd ||
	    a->test || *a->command != NULL))) {
		log_error("-g, -r, -k and -p cannot be combined with anything "
		    "else (allowed: -o FILE)");
		return -1;
	}
	if (a->requested != NULL && a->output == NULL) {
		log_error("-r needs -o FILE: the key is written there, and the "
		    "request to standard output");
		return -1;
	}
	return 0;
}

/* The setting that a letter is short for; or NULL. */
static const char *
letter_setting(int letter)
{
	return letter == 'd' ? "daemon=yes" :
	    letter == 'q' ? "log_level=warning" :
	    letter == 'v' ? "log_level=debug" : NULL;
}

/* Handle a letter of getopt(3).  0, or -1, having logged why. */
static int
take_letter(struct arguments *a, int letter)
{
	switch (letter) {
	case 'c':
		if (a->file != NULL) {
			log_error("-c can be given only once");
			return -1;
		}
		a->file = optarg;
		return 0;
	case 'g':
		a->names = optarg;
		return 0;
	case 'o':
		a->output = optarg;
		return 0;
	case 'p':
		a->identity = optarg;
		return 0;
	case 'r':
		a->requested = optarg;
		return 0;
	case '?':
		return arguments_misused();
	}
	a->help |= letter == 'h';
	a->inetd |= letter == 'i';
	a->key |= letter == 'k';
	a->quiet |= letter == 'q';
	a->test |= letter == 't';
	a->version |= letter == 'V';
	return 0;
}

int
arguments_parse(struct arguments *a, int argc, char **argv)
{
	static char *none[] = { NULL };
	static char help_letter[] = "-h", version_letter[] = "-V";
	size_t most = 0;		/* settings: each letter may be one */
	const char *setting;
	int c, n;

	for (n = 1; n < argc && strcmp(argv[n], "--") != 0; n++)
		most += strlen(argv[n]) + 1;
	a->command = n < argc ? &argv[n + 1] : none;
	if ((a->settings = calloc(most + 1, sizeof(char *))) == NULL)
		return -1;
	while (optind < n) {
		if (strcmp(argv[optind], "--help") == 0)
			argv[optind] = help_letter;
		else if (strcmp(argv[optind], "--version") == 0)
			argv[optind] = version_letter;
		if ((c = getopt(n, argv, "+c:dg:hiko:p:qr:tvV")) == -1)
			setting = argv[optind++];
		else if (take_letter(a, c) == -1)
			return -1;
		else
			setting = letter_setting(c);
		if (setting != NULL)
			a->settings[a->nsettings++] = setting;
	}
	return check_letters(a);
}

/* Return the descriptor in a variable, and remove the variable; or -1. */
static int
take_descriptor(const char *variable)
{
	const char *text = getenv(variable);
	int64_t fd;

	if (text == NULL || parse_number(text, STDERR_FILENO + 1, INT32_MAX,
	    &fd) == -1 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) == -1)
		fd = -1;
	unsetenv(variable);
	return (int)fd;
}

/* The interval of systemd's watchdog in ms, as sd_watchdog_enabled(3). */
static int64_t
take_watchdog(void)
{
	const char *pid = getenv("WATCHDOG_PID"), *usec =
	    getenv("WATCHDOG_USEC");
	int64_t number;

	if (usec == NULL || (pid != NULL &&
	    (parse_number(pid, 1, INT32_MAX, &number) == -1 ||
	    number != getpid())) ||
	    parse_number(usec, 1, INT64_MAX, &number) == -1)
		return 0;
	return number / 1000 > BEATS ? number / 1000 : BEATS;
}

void
arguments_environment(struct arguments *a)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int64_t number;
	int fd;

	if (pid != NULL && fds != NULL &&
	    parse_number(pid, 1, INT32_MAX, &number) == 0 &&
	    number == getpid() &&
	    parse_number(fds, 1, SOCKETS_MAX, &number) == 0)
		a->passed = (int)number;
	for (fd = SD_LISTEN_FDS_START;
	    fd < SD_LISTEN_FDS_START + a->passed; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	a->notify = getenv("NOTIFY_SOCKET");
	a->watchdog = take_watchdog();
	a->state = take_descriptor("TUNNEL_STATE");
	a->before = take_descriptor("TUNNEL_BEFORE");
	if (a->state == -1)
		a->before = -1;		/* useless without a handover */
	getrlimit(RLIMIT_NOFILE, &a->files);
	getrlimit(RLIMIT_CORE, &a->core);
}

/* Use the values of the handover. */
static int
configure_restored(const struct arguments *a, struct config *cfg)
{
	const struct value *v;
	int i;

	for (i = 0; i < OPTIONS; i++)
		for (v = a->restored->given[i]; v != NULL; v = v->next)
			if (config_set(cfg, v->rank, v->where,
			    options[i].name, v->text) == -1)
				return -1;
	config_defaults_of_role(cfg);
	return config_command(cfg, a->command) == -1 ? -1 :
	    config_check(cfg, a->inetd);
}

int
arguments_configure(const struct arguments *a, struct config *cfg)
{
	int fd, last = SD_LISTEN_FDS_START + a->passed;
	char text[32];
	size_t i;
	int r = 0;

	config_defaults(cfg);
	if (a->restored != NULL)
		return configure_restored(a, cfg);
	for (i = 0; i < a->nsettings; i++)
		r |= config_argument(cfg, a->settings[i]);
	if (a->file != NULL)
		r |= config_file(cfg, a->file);
	config_defaults_of_role(cfg);
	if (config_command(cfg, a->command) == -1) {
		cfg->is_wrong[EXEC] = 1;
		r = -1;
	}
	if (cfg->given[ACCEPT] != NULL)
		last = SD_LISTEN_FDS_START;
	for (fd = SD_LISTEN_FDS_START; fd < last; fd++) {
		snprintf(text, sizeof(text), "fd:%d", fd);
		r |= config_set(cfg, RANK_FILE, "LISTEN_FDS", "accept", text);
	}
	if (a->test && a->quiet && !a->inetd && cfg->given[ACCEPT] == NULL &&
	    !cfg->is_wrong[ACCEPT]) {
		log_warning("missing: accept (not needed if systemd passes the "
		    "sockets)");
		cfg->is_wrong[ACCEPT] = 1;
	}
	return config_check(cfg, a->inetd) == -1 ? -1 : r;
}
