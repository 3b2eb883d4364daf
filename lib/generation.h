/*
 * generation: one load of the configuration, with all that serves connections
 * by it: TLS, addresses, listeners, workers and their shared memory.
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
 * A reload makes a new generation and retires this one.  The master frees most
 * of a retired generation at once, and the rest after its last worker.
 */
struct generation {
	struct generation *older;
	struct config config;
	struct tls_config *tls;
	struct tls_sessions *sessions;	/* shared with others; or NULL */
	struct ktls_probe kernel;
	struct targets accepts, backends;
	struct names names;		/* backends with changing addresses */
	struct listeners listeners;
	const struct rlimit *files, *core;	/* limits for commands */
	const char *file;		/* the configuration file; or NULL */
	struct identity identity;
	struct workers workers;
	struct scoreboard board;
};

/*
 * Load a generation, without opening listeners or starting workers.  old is the
 * previous one, or NULL.  The arguments must stay valid.  waits: look up names,
 * which may block; otherwise the caller does.  The caller frees the result.
 * NULL, having logged each error, with errno: EAGAIN if a retry may succeed.
 */
struct generation *generation_load(const struct arguments *,
	    struct generation *old, int waits);

/* The target with the name of this index, from 0; NULL: no more. */
struct target *generation_name(const struct generation *, size_t i,
	    int with_accepts);

/*
 * Start and end the lookup of a name.  0, or -1 with errno: EAGAIN if a retry
 * may succeed.  The error is logged, but not repeatedly.  On failure, present
 * addresses are kept.
 */
int	 generation_start_lookup(struct generation *, struct target *,
	    struct resolver *);
int	 generation_end_lookup(struct generation *, struct target *,
	    struct resolver *);

/* Look up all names without addresses, and wait.  Result as above. */
int	 generation_look_up(struct generation *);

/* An empty generation; NULL: out of memory. */
struct generation *generation_new(const struct arguments *);

/* Open the listeners; see listeners_open(). */
int	 generation_listen(struct generation *, struct generation *old);

/* Open or reopen the configured log.  -1, logged: the log is unchanged. */
int	 generation_open_log(const struct generation *);

/* The user that workers run as. */
struct files_user generation_user(const struct generation *);

/* The number of descriptors that the worker of a row needs. */
rlim_t	 generation_descriptors(const struct generation *, size_t row);

/*
 * Raise the limit of descriptors for the first worker, which has the largest
 * share, and the master, which has the channels of all generations.
 */
void	 generation_raise_limit(const struct generation *);

/*
 * Free a retired generation, except for the memory that its workers and the
 * master share, and the numbers of the configuration.
 */
void	 generation_close(struct generation *);

/* Free a generation.  In the master, it must have no workers.  NULL is fine. */
void	 generation_free(struct generation *);

/* Log news and warnings about a generation that starts to serve. */
void	 generation_announce(const struct generation *,
	    const struct generation *old);

/* Log the number of connections of this generation and older ones. */
void	 generation_announce_remaining(const struct generation *old);

/*
 * Log that max_connections is reached.  If connections start with a handshake
 * or a PROXY header, those still in it after drop_ms are replaced.
 */
void	 generation_warn_full(struct generation *, int drop_ms);

/* Warn of certificates that have expired or soon will. */
void	 generation_warn_of_certificates(const struct generation *);

/* Warn of files that other users can replace or read. */
void	 generation_warn_of_files(const struct generation *);

/* Warn of changed options that a reload does not apply. */
void	 generation_warn_of_fixed(const struct generation *,
	    const struct generation *old);

/* Warn of each fd:N that is not a listening socket in this process. */
void	 generation_warn_of_sockets(const struct generation *);

/* -t: print the effective configuration and the certificates to stdout. */
void	 generation_print(const struct generation *);

/*
 * Make *tls from the configuration; the caller frees it.  0, or -1, having
 * logged each error; then *tls may be NULL.
 */
int	 generation_load_tls(struct tls_config **tls, struct config *);

/*
 * client = yes: the name for SNI and verification of a backend: server_name, or
 * the host of the target, written to host (HOST_SIZE bytes).  NULL: neither.
 */
const char *generation_server_name(const struct generation *,
	    const struct target *, char *host);

/* client = yes: check that each backend has a valid name.  -1, logged. */
int	 generation_check_server(const struct generation *);

#endif
