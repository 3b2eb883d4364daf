/* sandbox: restrict workers to the system calls and resources they need. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include <netinet/in.h>
#include <stddef.h>

/* The needs of a process.  All else is denied. */
struct sandbox {
	in_port_t *ports;		/* allowed for connect(2) */
	size_t	 nports;
	int	 with_unix;		/* connect(2) to Unix sockets */
	int	 with_ktls;		/* kernel TLS */
	int	 runs_command;		/* it may need anything */
	int	 is_relay;		/* a relay instead of a worker */
	int	 log;			/* descriptor of the log; or -1 */
	int	 control;		/* the control channel; listeners are */
					/* at higher numbers */
};

/*
 * Irrevocably deny access to files, other ports and shared descriptors, and all
 * system calls that are not needed.  With runs_command, only prevent a gain of
 * privileges by execve(2).  0, or -1 with errno.
 */
int	 sandbox_enter(const struct sandbox *);

/*
 * Drop all capabilities, irrevocably: execve(2) can't restore them.  0, or -1
 * with errno.
 */
int	 sandbox_renounce(void);

/* A restriction that this system lacks, as a clause; NULL: none. */
const char *sandbox_lacks(void);

#endif
