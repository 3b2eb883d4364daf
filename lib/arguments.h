/*
 * arguments: how this process was started: the command line, and what systemd
 * has put into the environment.
 */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

struct config;

#define SD_LISTEN_FDS_START 3		/* systemd's first descriptor */
#define SOCKETS_MAX	64		/* that it may pass */
#define BEATS		4		/* of a worker within WATCHDOG_USEC */

/* How this process was started, to be looked at again at a reload. */
struct arguments {
	const char *file;
	const char *names;		/* of -g */
	const char *requested;		/* names of -r */
	const char *identity;		/* of -p */
	const char *output;		/* of -o */
	int	 help, inetd, key, quiet, test, version;
	const char **settings;		/* key=value, allocated */
	size_t	 nsettings;
	char	**command;		/* what is behind -- */
	int	 passed;		/* sockets of systemd */
	const char *notify;		/* NOTIFY_SOCKET, or NULL */
	int64_t	 watchdog;		/* WATCHDOG_USEC, in ms; 0: none */
	struct rlimit files, core;	/* as they were: for commands */
	char	**argv;
	const int *kept_fds;		/* descriptors of our own: no strays */
	size_t	 nkept_fds;
	/* Of an upgrade; descriptors are -1 where there is none. */
	int	 state;			/* what is handed over, by */
	int	 before;		/* the old program; -1: this is it */
	const struct config *restored;	/* to be used instead of the files */
};

/*
 * What systemd passes, by sd_listen_fds(3), sd_notify(3) and
 * sd_watchdog_enabled(3); what another tunnel passes, whose variables are
 * removed; and the limits of this process.
 */
void	 arguments_environment(struct arguments *);

/*
 * Letters and key=value in any order, up to "--".  0, or -1, having logged why,
 * or how to use it.  It keeps pointers into argv, which getopt(3) changes;
 * settings are to be freed in any case.
 */
int	 arguments_parse(struct arguments *, int argc, char **argv);

/* Print the usage on stderr; -1. */
int	 arguments_misused(void);

/* -h: usage and keys, on stdout. */
void	 arguments_help(void);

/* The whole configuration, anew; -1, having logged each error. */
int	 arguments_configure(const struct arguments *, struct config *);

#endif
