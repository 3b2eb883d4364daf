/*
 * relay: a connection that is no socket, but something to read from and
 * something to write to: pipes, files, a terminal.  A process moves bytes
 * between these and a socket, which is the connection for all others.
 */
#ifndef RELAY_H
#define RELAY_H

#include <signal.h>
#include <stdint.h>

struct identity;

struct relay {
	pid_t	 pid;
	int	 fd;		/* the connection: a socket; or -1 */
	int	 far;		/* its other end, the relay's; or -1 */
	int	 status;	/* its verdict is read here; -1: it was */
};

#define RELAY_NONE	{ .fd = -1, .far = -1, .status = -1 }
#define RELAY_FDS	3		/* of a struct relay */

/*
 * 1 if standard input and output are no connection by themselves.  They are one
 * where standard input is a socket, unless standard output is another one:
 * some programs make their pipes of those.  If standard input alone is a socket
 * of a pair, as sshd(8) gives one to a shell, standard output is where a client
 * writes to; on a server it may be a log.
 */
int	 relay_is_needed(int is_client);

/*
 * Fork the relay, before there is anything that it should not have.  It waits
 * for relay_go(), and leaves if all descriptors are closed instead.  -1 with
 * errno.
 */
int	 relay_start(struct relay *);

/*
 * Have it become somebody without privileges, enter its sandbox, if it is to
 * be confined, and begin.  It has standard input and output then; all others
 * let go of them.  -1 with errno.
 */
int	 relay_go(struct relay *, const struct identity *, int is_confined);

/*
 * After SIGCHLD.  NULL: it goes on, or has ended in order; or why not, valid
 * until the next call: the connection is to be aborted.  Never waits.
 */
const char *relay_check(struct relay *);

/*
 * The connection is over, and fd was closed: wait until the relay has written
 * all that is left, sleeping with that signal mask.  The same result.  SIGQUIT
 * ends the wait, as does SIGTERM after another drain_ms (0: no limit).
 */
const char *relay_await(struct relay *, const sigset_t *sleep_mask,
	    int64_t drain_ms);

/* Close what is left; a relay that has not begun leaves. */
void	 relay_close(struct relay *);

/* The same for one that has not begun; waits until it has left. */
void	 relay_dismiss(struct relay *);

#endif
