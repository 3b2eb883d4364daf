/* sandbox: what a worker never does, it must not be able to do. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <netinet/in.h>
#include <stddef.h>

/* What a worker needs; all else is denied. */
struct sandbox {
	in_port_t *ports;		/* that it connects to, */
	size_t	 nports;
	int	 with_unix;		/* or Unix sockets */
	int	 with_ktls;		/* kernel TLS */
	int	 runs_command;		/* which may need anything */
	int	 is_relay;		/* no worker, but a relay */
	int	 log;			/* its descriptor; or -1 */
	int	 control;		/* the channel's; listeners follow */
};

/*
 * Deny for good: files, other ports and descriptors, all but some system calls.
 * Where a command is run, only what gains privileges by execve(2) is denied.
 * -1 with errno.
 */
int	 sandbox_enter(const struct sandbox *);

/*
 * Give up all capabilities, for good: execve(2) gives none back.  -1 with
 * errno.
 */
int	 sandbox_renounce(void);

/* What this system can't restrict, as a clause; NULL: nothing. */
const char *sandbox_lacks(void);

#endif
