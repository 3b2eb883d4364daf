/* service: a configuration put to work by the master. */
#ifndef SERVICE_H
#define SERVICE_H

#include <stddef.h>
#include <sys/resource.h>

#include "config.h"
#include "ktls_probe.h"
#include "listener.h"
#include "net.h"
#include "privileges.h"
#include "scoreboard.h"
#include "workers.h"

struct tls_config;
struct tls_sessions;

/*
 * One generation: a reload makes another, and this one leaves.  What is left of
 * it then is small, and goes with its last worker: see let_go().
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

/* Descriptors for as many connections as a worker may have. */
rlim_t	 service_descriptors(const struct service *, size_t slot);

#endif
