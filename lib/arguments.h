/*
 * arguments: the command line of this process, and its environment: variables
 * of systemd, and those of an upgrade.
 */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

struct config;

#define SD_LISTEN_FDS_START 3		/* systemd's first descriptor */
#define SOCKETS_MAX	64		/* LISTEN_FDS, at most */
#define BEATS		4		/* heartbeats per WATCHDOG_USEC */

/* Kept for the lifetime of the process: a reload uses them again. */
struct arguments {
	const char *file;		/* -c */
	const char *names;		/* -g */
	const char *requested;		/* -r: names */
	const char *identity;		/* -p */
	const char *output;		/* -o */
	int	 help, inetd, key, quiet, test, version;
	const char **settings;		/* key=value; allocated */
	size_t	 nsettings;
	char	**command;		/* the words after --; ends with NULL */
	int	 passed;		/* LISTEN_FDS */
	const char *notify;		/* NOTIFY_SOCKET, or NULL */
	int64_t	 watchdog;		/* WATCHDOG_USEC, in ms; 0: none */
	struct rlimit files, core;	/* at the start, for commands */
	char	**argv;
	const int *kept_fds;		/* our own descriptors, not to close */
	size_t	 nkept_fds;
	/* For an upgrade; a descriptor is -1 if there is none. */
	int	 state;			/* TUNNEL_STATE: the handover */
	int	 before;		/* TUNNEL_BEFORE: the old program; */
					/* -1: this is the old program */
	const struct config *restored;	/* to be used instead of the files */
};

/*
 * Read the environment: variables of systemd, by sd_listen_fds(3), sd_notify(3)
 * and sd_watchdog_enabled(3); variables of an upgrade, which are removed.  Also
 * read the limits of this process.
 */
void	 arguments_environment(struct arguments *);

/*
 * Parse letters and key=value in any order, up to "--".  0, or -1, having
 * logged why, or printed the usage.  Keeps pointers into argv, which getopt(3)
 * changes.  The caller frees settings in any case.
 */
int	 arguments_parse(struct arguments *, int argc, char **argv);

/* Print the usage to stderr.  Returns -1. */
int	 arguments_misused(void);

/* -h: print the usage and the keys to stdout. */
void	 arguments_help(void);

/* Read the configuration, also again.  0, or -1, having logged each error. */
int	 arguments_configure(const struct arguments *, struct config *);

#endif
