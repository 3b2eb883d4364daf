/*
 * relay: with -i, a connection on standard input and output that are not a
 * socket, but pipes, files or a terminal.  A child process moves bytes between
 * these and a socket, which the rest of the program uses as the connection.
 */
#ifndef RELAY_H
#define RELAY_H

#include <signal.h>
#include <stdint.h>

struct identity;

struct relay {
	pid_t	 pid;
	int	 fd;		/* the connection: a socket; or -1 */
	int	 far;		/* the relay's end of it; or -1 */
	int	 status;	/* pipe with its verdict; -1 once read */
};

#define RELAY_NONE	{ .fd = -1, .far = -1, .status = -1 }
#define RELAY_FDS	3		/* in a struct relay */

/*
 * 0 if standard input and output are a connection by themselves; 1 if a relay
 * is needed.  They are a connection if standard input is a socket, except in
 * two cases.  First, both are of different socket pairs, which some programs
 * use in place of pipes.  Second, only standard input is of a socket pair, as
 * sshd(8) gives to a shell: then a client's output goes to standard output,
 * whereas a server's standard output may be a log.
 */
int	 relay_is_needed(int is_client);

/*
 * Fork the relay, before there are secrets in memory.  It waits for relay_go(),
 * and exits if fd and far are closed instead.  0, or -1 with errno.
 */
int	 relay_start(struct relay *);

/*
 * Let the relay drop privileges to this identity, enter its sandbox if
 * is_confined, and start.  Then only the relay uses standard input and output.
 * 0, or -1 with errno.
 */
int	 relay_go(struct relay *, const struct identity *, int is_confined);

/*
 * After SIGCHLD: NULL if the relay is running, or has ended in order.
 * Otherwise the error, valid until the next call: abort the connection.  Never
 * blocks.
 */
const char *relay_check(struct relay *);

/*
 * The connection has ended, and fd is closed: wait until the relay has written
 * the remaining data, sleeping with this signal mask.  Result as above.
 * SIGQUIT ends the wait, and so does SIGTERM, after drain_ms (0: no limit).
 */
const char *relay_await(struct relay *, const sigset_t *sleep_mask,
	    int64_t drain_ms);

/* Close all descriptors.  A relay before relay_go() exits. */
void	 relay_close(struct relay *);

/* Before relay_go(): close all descriptors, and wait until it has exited. */
void	 relay_dismiss(struct relay *);

#endif
