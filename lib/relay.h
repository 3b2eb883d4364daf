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
	int	 fd;		/* the connection: a socket */
	int	 far;		/* its other end, which the relay works on */
	int	 status;	/* from where it tells its end; -1: it has */
};

#define RELAY_NONE	{ .fd = -1, .far = -1, .status = -1 }
#define RELAY_FDS	3

/*
 * Are standard input and output no connection by themselves?  They are one
 * where standard input is a socket, unless standard output is another one:
 * some programs make their pipes of those.  sshd(8) gives one to a shell, which
 * may send the output elsewhere: that is for a client.  A server's may be a
 * log.
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
 * How is it doing, as SIGCHLD has come?  NULL: it goes on, or has ended in
 * order; or why not, valid until the next call: the connection is to be
 * aborted.
 */
const char *relay_check(struct relay *);

/*
 * The connection is over, and its descriptor was closed: wait until the relay
 * has written all that is left, sleeping with that signal mask.  The same
 * result; SIGQUIT ends the wait, and SIGTERM after drain_ms (0: no limit).
 */
const char *relay_await(struct relay *, const sigset_t *asleep,
	    int64_t drain_ms);

/* Close what is left; one that has not begun leaves. */
void	 relay_close(struct relay *);

/* The same for one that has not begun, until it has left. */
void	 relay_dismiss(struct relay *);

#endif
