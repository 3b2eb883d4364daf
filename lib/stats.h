/*
 * stats: what connections there were, for the log and for a program that reads
 * stats_file, in the text format of Prometheus.
 */
#ifndef STATS_H
#define STATS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "scoreboard.h"

/* What is counted, and the process that writes it to a file. */
struct stats {
	struct counts ended;		/* of workers that are no more */
	int64_t	 began;			/* on our clock, */
	time_t	 began_at;		/* and on everybody's */
	unsigned generation;		/* of the configuration: 1, 2, ... */
	pid_t	 writer;		/* 0: there is none now */
	int64_t	 write_at;		/* the next one, */
	int64_t	 kill_at;		/* and the end of this one's time */
	int	 failed;		/* the last one, and that was said */
	char	*file;			/* that was written to; or NULL */
};

/* What is reported: all of it as of now. */
struct stats_report {
	const char *config;		/* its file, which names us; or NULL */
	const char *version, *library;
	int	 is_client;		/* whose handshakes are with servers */
	size_t	 workers;
	uint64_t max_connections;
	struct counts sum;
	const char *path, *where;	/* stats_file; or NULL */
	/* The process that writes asks why not to, and for certificates. */
	const char *(*fault)(const void *arg, const char *path);
	int	(*expiry)(const void *arg, size_t i, const char **file,
		    int64_t *at);	/* of file i; -1: no such */
	const void *arg;
};

/* The class of a reason for the end of a handshake, as it is logged. */
enum failure stats_failure(const char *reason);

/* Add a worker's counts to a sum. */
void	 stats_add(struct counts *sum, const volatile struct counts *);

/* The line for SIGUSR1. */
void	 stats_log(const struct stats *, const struct stats_report *);

/* When there is something to do (ms); INT64_MAX: never. */
int64_t	 stats_due(const struct stats *, int is_wanted);

/*
 * When that is due: start a process that writes the file, or kill one that
 * takes too long.  The file is replaced as a whole; if it had another name
 * before, that one is removed.
 */
void	 stats_step(struct stats *, const struct stats_report *);

/* A child has ended: note it, if it was the one that writes. */
void	 stats_reaped(struct stats *, pid_t, int status);

/* Wait until nobody writes; but not for long. */
void	 stats_await(struct stats *);

/* At a stop: remove the file. */
void	 stats_end(struct stats *);

#endif
