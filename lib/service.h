/* service: a configuration put to work by the master. */
#ifndef SERVICE_H
#define SERVICE_H

#include <stddef.h>
#include <sys/resource.h>

#include "config.h"
#include "files.h"
#include "ktls_probe.h"
#include "listener.h"
#include "net.h"
#include "privileges.h"
#include "scoreboard.h"
#include "workers.h"

struct arguments;
struct tls_config;
struct tls_sessions;

/*
 * One generation: a reload makes another, and this one leaves.  What is left of
 * it then is small, and goes with its last worker.
 */
struct service {
	struct service *older;
	struct config cfg;
	struct tls_config *tls;
	struct tls_sessions *sessions;	/* or NULL; of others as well */
	struct ktls_probe kernel;
	struct targets accepts, connects;
	struct listeners listeners;
	const struct rlimit *files, *core;	/* for commands */
	const char *file;		/* of the configuration, or NULL */
	struct identity identity;
	struct workers workers;
	struct scoreboard board;
};

/*
 * All but its listeners and workers; old is the one before, or NULL.  It is to
 * be freed; the arguments have to stay.  NULL after a sentence for each error,
 * with errno: EAGAIN if it may be right in a minute.
 */
struct service *service_new(const struct arguments *,
	    const struct service *old);

/* One that is nothing yet, or NULL. */
struct service *service_alloc(const struct arguments *);

/* Open its listeners; see listeners_open(). */
int	 service_listen(struct service *, struct service *old);

/* Log where it says, anew if that is a file; -1: as before, and why is logged. */
int	 service_open_log(const struct service *);

/* Whom its workers run as. */
struct files_user service_user(const struct service *);

/* Descriptors for as many connections as the worker of a row may have. */
rlim_t	 service_descriptors(const struct service *, size_t row);

/*
 * Allow this process what the first worker, which may have most, needs, or the
 * master, which has the channels of all generations.
 */
void	 service_raise_limit(const struct service *);

/*
 * It serves no more.  What stays is what its workers and the master share, and
 * the numbers of the configuration.
 */
void	 service_close(struct service *);

/* It has no workers, or this is one.  NULL is fine. */
void	 service_free(struct service *);

/* Log what is new in a generation that goes to work, and what is wrong. */
void	 service_announce(const struct service *, const struct service *old);

/* Log how many connections all of these still have, which are left behind. */
void	 service_announce_remaining(const struct service *old);

/* Warn of certificates that expire, or have. */
void	 service_warn_of_certificates(const struct service *);

/* Warn of files that others can replace, or read. */
void	 service_warn_of_files(const struct service *);

/* Warn of what a reload does not change. */
void	 service_warn_of_fixed(const struct service *,
	    const struct service *old);

/* Warn of what somebody else is to pass, who has not started this. */
void	 service_warn_of_sockets(const struct service *);

/* -t: the configuration, and what came of it, on stdout. */
void	 service_print(const struct service *);

/*
 * What the TLS rooms have of the configuration.  -1 after a sentence for each
 * error; *tls may be NULL then.
 */
int	 service_load_tls(struct tls_config **tls, struct config *);

#endif
