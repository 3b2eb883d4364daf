/*
 * stats: counters of connections, for the log and for stats_file, in the text
 * format of Prometheus.
 */
#ifndef STATS_H
#define STATS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "scoreboard.h"

/* The totals, and the process that writes the file. */
struct stats {
	struct counts ended;		/* by workers that have exited */
	int64_t	 began;			/* start of the master, monotonic, */
	time_t	 began_at;		/* and by the wall clock */
	unsigned generation;		/* number of the load: 1, 2, ... */
	pid_t	 writer;		/* 0: none at present */
	int64_t	 write_at;		/* next start of a writer (ms) */
	int64_t	 kill_at;		/* deadline of the writer (ms) */
	int	 failed;		/* the last one failed, logged */
	char	*file;			/* written before; or NULL */
};

/* The present values for a report. */
struct stats_report {
	const char *config;		/* file name, for the label; or NULL */
	const char *version, *library;
	int	 is_client;		/* client = yes */
	size_t	 workers;
	uint64_t max_connections;
	struct counts sum;
	const char *path, *where;	/* stats_file; path NULL: none */
	/* Called in the writer: an error of the path, or NULL. */
	const char *(*fault)(const void *arg, const char *path);
	/* Called in the writer: the expiry of certificate i; -1: none. */
	int	(*expiry)(const void *arg, size_t i, const char **file,
		    int64_t *at);
	const void *arg;
};

/* The class of the logged reason for a failed handshake. */
enum failure stats_failure(const char *reason);

/* Add a worker's counts to a sum. */
void	 stats_add(struct counts *sum, const volatile struct counts *);

/* Log the line for SIGUSR1. */
void	 stats_log(const struct stats *, const struct stats_report *);

/* The time of the next stats_step() (ms); INT64_MAX: none. */
int64_t	 stats_due(const struct stats *, int is_wanted);

/*
 * When due: start a process that writes the file, or kill one past its
 * deadline. The file is replaced atomically.  If its name has changed, the
 * previous file is removed.
 */
void	 stats_step(struct stats *, const struct stats_report *);

/* A child has exited: handle it if it is the writer. */
void	 stats_reaped(struct stats *, pid_t, int status);

/* Wait for the writer, and kill it after 1 s. */
void	 stats_await(struct stats *);

/* At a stop: remove the file. */
void	 stats_end(struct stats *);

#endif
