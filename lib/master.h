/*
 * master: the process with the privileges, the listeners and the workers.
 * It reads nothing that comes from the network.
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
#define VERSION		"0"		/* the Makefile has it */
#endif

struct master {
	const struct arguments *args;
	struct generation *live;	/* older ones behind it, which leave */
	struct generation *next;	/* a reload waits for its names */
	struct stats stats;
	sigset_t sleep_mask;
	pid_t	 pid;
	int	 parent;		/* told once we serve; or -1 */
	int	 pidfile;		/* or -1 */
	char	*pidfile_name;
	int	 stopping;
	struct dispatch dispatch;
	int64_t	 renew_at;		/* ticket keys */
	int64_t	 warn_at;		/* of certificates */
	struct resolver resolver;
	size_t	 name_index;		/* that it looks up, of next or live */
	int	 names_failed;		/* names of next that were not found */
	int64_t	 resolve_at;		/* those of live again */
	int64_t	 watchdog_at;		/* the next sign of life */
	int	 watchdog_withheld;		/* the last one was withheld */
	struct upgrade upgrade;
};

/* Log which program this is. */
void	 master_log_version(void);

/* Tell the service manager that it serves; but: what to add to its status. */
void	 master_notify_ready(const struct master *, const char *but);

/* What the master itself does for a generation, before it has workers. */
void	 master_prepare(const struct generation *);

/*
 * A worker for an empty slot: for a connection, which it begins to serve at
 * once, or (NULL) one that waits to be released.  -1: it could not be forked,
 * or is not ready.
 */
int	 master_start_worker(void *master, struct generation *, size_t slot,
	    const struct incoming *);

/*
 * One in each slot that is empty.  With mode = fork just one, that has nothing
 * to do, to see whether it would be able to.  -1, having logged why.
 */
int	 master_start_workers(struct master *, struct generation *);

/* SIGCHLD: find out who has ended. */
void	 master_reap(struct master *);

/* A worker has ended with that status: log it, and clear its slot. */
void	 master_worker_ended(struct master *, struct generation *,
	    struct slot *, int status);

/* Free generations that all workers have left. */
void	 master_free_generations(struct master *);

/*
 * The keys for tickets: those of a file as they are now, or another one from
 * time to time, while the one before is good still.  -1, having logged why.
 */
int	 master_renew_keys(struct master *);

/* Warn of certificates; again in a day. */
void	 master_warn_daily(struct master *);

/*
 * The configuration anew: all that is new is made, and is ready to serve; only
 * then the old leaves.  -1, having logged why, and the old one stays.
 */
int	 master_replace(struct master *);

/*
 * SIGHUP: the same, with its outcome logged and notified; but if it has names,
 * that is for later, as m->next shows: they are looked up first.
 */
void	 master_reload(struct master *);

/*
 * Names: from now on, when there is something to do (ms), and to do it, if that
 * is due.
 */
void	 master_begin_resolving(struct master *);
int64_t	 master_resolve_due(const struct master *);
void	 master_resolve(struct master *);

/* No lookup goes on, nor does a reload that has waited for it. */
void	 master_end_resolving(struct master *);

/* Workers of all generations are to log where the master does now. */
void	 master_send_log(const struct master *);

/* SIGTERM and, at once, a second one: have all workers leave. */
void	 master_stop(struct master *, int at_once);

/* SIGUSR1: log the totals, and have each worker list its connections. */
void	 master_log_statistics(struct master *);

/* stats_file: when it is due (ms); and write it, if it is. */
int64_t	 master_stats_due(const struct master *);
void	 master_write_stats(struct master *);

#endif
