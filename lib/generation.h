/*
 * generation: one load of the configuration, put to work by the master: what
 * connections are served by, and the processes that do it.
 */
#ifndef GENERATION_H
#define GENERATION_H

#include <stddef.h>
#include <sys/resource.h>

#include "config.h"
#include "files.h"
#include "ktls_probe.h"
#include "listener.h"
#include "net.h"
#include "privileges.h"
#include "resolver.h"
#include "scoreboard.h"
#include "workers.h"

struct arguments;
struct tls_config;
struct tls_sessions;

/*
 * One generation: a reload makes another, and this one leaves.  What is left of
 * it then is small, and goes with its last worker.
 */
struct generation {
	struct generation *older;
	struct config config;
	struct tls_config *tls;
	struct tls_sessions *sessions;	/* or NULL; of others as well */
	struct ktls_probe kernel;
	struct targets accepts, backends;
	struct names names;		/* of backends, if they may change */
	struct listeners listeners;
	const struct rlimit *files, *core;	/* for commands */
	const char *file;		/* of the configuration, or NULL */
	struct identity identity;
	struct workers workers;
	struct scoreboard board;
};

/*
 * All but its listeners and workers; old is the one before, or NULL.  It is to
 * be freed; the arguments have to stay.  waits: names are looked up, which may
 * take long; otherwise, that is left to the caller.  NULL, having logged each
 * error, with errno: EAGAIN if a retry may succeed.
 */
struct generation *generation_load(const struct arguments *,
	    struct generation *old, int waits);

/* Its names, the first one at 0; NULL: no more. */
struct target *generation_name(const struct generation *, size_t i,
	    int with_accepts);

/*
 * Begin and end a lookup of one of them.  -1, having logged why, unless that
 * repeats itself, with errno: EAGAIN if a retry may succeed.  The addresses of
 * before are kept then.
 */
int	 generation_start_lookup(struct generation *, struct target *,
	    struct resolver *);
int	 generation_end_lookup(struct generation *, struct target *,
	    struct resolver *);

/* Look up all that have no addresses yet, and wait for it; the same way. */
int	 generation_look_up(struct generation *);

/* An empty one; NULL: out of memory. */
struct generation *generation_new(const struct arguments *);

/* Open its listeners; see listeners_open(). */
int	 generation_listen(struct generation *, struct generation *old);

/* Log where it says, anew if it is a file; -1: as before, and why is logged. */
int	 generation_open_log(const struct generation *);

/* Whom its workers run as. */
struct files_user generation_user(const struct generation *);

/* Descriptors for as many connections as the worker of a row may have. */
rlim_t	 generation_descriptors(const struct generation *, size_t row);

/*
 * Allow this process what the first worker, which may have most, needs, or the
 * master, which has the channels of all generations.
 */
void	 generation_raise_limit(const struct generation *);

/*
 * It serves no more.  What stays is what its workers and the master share, and
 * the numbers of the configuration.
 */
void	 generation_close(struct generation *);

/* Free it, in the master once it has no workers.  NULL is fine. */
void	 generation_free(struct generation *);

/* Log what is new in a generation that goes to work, and what is wrong. */
void	 generation_announce(const struct generation *,
	    const struct generation *old);

/* Log how many connections this one and older ones still have. */
void	 generation_announce_remaining(const struct generation *old);

/*
 * Log that there are max_connections.  Where clients have a handshake, or a
 * header, to begin with, those older than drop_ms give way.
 */
void	 generation_warn_full(struct generation *, int drop_ms);

/* Warn of certificates that expire, or have. */
void	 generation_warn_of_certificates(const struct generation *);

/* Warn of files that others can replace, or read. */
void	 generation_warn_of_files(const struct generation *);

/* Warn of what a reload does not change. */
void	 generation_warn_of_fixed(const struct generation *,
	    const struct generation *old);

/* Warn of fd:N that are no listening sockets in this process. */
void	 generation_warn_of_sockets(const struct generation *);

/* -t: the configuration, and what came of it, on stdout. */
void	 generation_print(const struct generation *);

/*
 * Make *tls, which is to be freed, from the configuration.  -1, having logged
 * each error; *tls may be NULL then.
 */
int	 generation_load_tls(struct tls_config **tls, struct config *);

/*
 * The name that a client verifies, and asks for, at one of its backends: that
 * of the configuration, or the backend's host, for which there is room of
 * HOST_SIZE.  NULL: there is neither.
 */
const char *generation_server_name(const struct generation *,
	    const struct target *, char *host);

/* -1, having logged it, unless a client knows whom to ask for, and verify. */
int	 generation_check_server(const struct generation *);

#endif
