/*
 * master: the process that has the privileges and the listeners, and starts the
 * workers.  It reads no data from the network.
 */
#ifndef MASTER_H
#define MASTER_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "dispatch.h"
#include "resolver.h"
#include "stats.h"
#include "upgrade.h"

struct arguments;
struct generation;
struct slot;

#ifndef VERSION
#define VERSION		"0"		/* set by the Makefile */
#endif

/* Times are CLOCK_MONOTONIC, in ms. */
struct master {
	const struct arguments *args;
	struct generation *live;	/* the serving one; older ones drain */
	struct generation *next;	/* being loaded: awaits its names */
	struct stats stats;
	sigset_t sleep_mask;		/* during ppoll(2) */
	pid_t	 pid;
	int	 parent;		/* pipe to notify when ready; or -1 */
	int	 pidfile;		/* descriptor; or -1 */
	char	*pidfile_name;
	int	 stopping;
	struct dispatch dispatch;
	int64_t	 renew_at;		/* ticket keys are renewed */
	int64_t	 warn_at;		/* certificates are checked */
	struct resolver resolver;
	size_t	 name_index;		/* being looked up, in next or live */
	int	 names_failed;		/* failed lookups for next */
	int64_t	 resolve_at;		/* the names of live are looked up */
	int64_t	 watchdog_at;		/* the next WATCHDOG=1 */
	int	 watchdog_withheld;	/* the last one was not sent */
	struct upgrade upgrade;
};

/* Log the versions of the program and of its library. */
void	 master_log_version(void);

/* Notify the service manager of READY; but is appended to the status. */
void	 master_notify_ready(const struct master *, const char *but);

/* Set the limits of the master for a generation, before it has workers. */
void	 master_prepare(const struct generation *);

/*
 * Start a worker in an empty slot: for a connection, which it serves at once,
 * or (NULL) one that waits for workers_release().  0, or -1: it could not be
 * forked, or did not get ready.
 */
int	 master_start_worker(void *master, struct generation *, size_t slot,
	    const struct incoming *);

/*
 * Start a worker in each empty slot.  With mode = fork, start only one, without
 * a connection, to test whether a worker can start.  -1, having logged why.
 */
int	 master_start_workers(struct master *, struct generation *);

/* SIGCHLD: handle all children that have exited. */
void	 master_reap(struct master *);

/* A worker has exited with this status: log it, and clear its slot. */
void	 master_worker_ended(struct master *, struct generation *,
	    struct slot *, int status);

/* Free old generations that have no workers left. */
void	 master_free_generations(struct master *);

/*
 * Renew the ticket keys: read their file again, or make a new key, with the
 * previous one still valid.  -1, having logged why.
 */
int	 master_renew_keys(struct master *);

/* Warn of certificates that expire, and schedule the next check in a day. */
void	 master_warn_daily(struct master *);

/*
 * Load the configuration again.  Retire the old generation only when the new
 * one is ready to serve.  -1, having logged why: the old one continues.
 */
int	 master_replace(struct master *);

/*
 * SIGHUP: start a reload, and log and notify its outcome.  If there are names,
 * it continues in master_resolve() after their lookup; until then, m->next is
 * set.
 */
void	 master_reload(struct master *);

/*
 * Schedule the lookup of names after resolve_interval.  master_resolve_due() is
 * the time of the next action (ms); master_resolve() performs it, if due.
 */
void	 master_begin_resolving(struct master *);
int64_t	 master_resolve_due(const struct master *);
void	 master_resolve(struct master *);

/* Cancel a lookup, and a reload that waits for it. */
void	 master_end_resolving(struct master *);

/* Send the present log to the workers of all generations. */
void	 master_send_log(const struct master *);

/* SIGTERM: drain all workers; at_once, for a second one: abort. */
void	 master_stop(struct master *, int at_once);

/* SIGUSR1: log the totals, and make each worker list its connections. */
void	 master_log_statistics(struct master *);

/* stats_file: the time when it is due (ms); write it, if due. */
int64_t	 master_stats_due(const struct master *);
void	 master_write_stats(struct master *);

#endif
