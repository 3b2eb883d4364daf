/*
 * daemon: system functions for a long-running process: signals, descriptors,
 * background, pidfile, service manager.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Catch signals, and block them except during sleep with this mask, by
 * ppoll(2). SIGINT counts as SIGTERM.
 */
void	 signals_catch(sigset_t *sleep_mask);

/*
 * In a new worker: discard signals that the master has caught.  Ignore SIGINT
 * and SIGUSR2, which a terminal or killall(1) sends to all processes: the
 * master handles them.
 */
void	 signals_leave(void);

/* For another program: catch, ignore and block no signals. */
void	 signals_reset(void);

/* 1 if a signal was caught; signal_taken() also clears it. */
int	 signal_pending(int sig);
int	 signal_taken(int sig);

/*
 * Open /dev/null for each of 0 to 2 that is closed: no connection may get the
 * number.  For 1 it is read-only: writing must fail, as the output is lost.
 */
void	 daemon_reserve_descriptors(void);

/* Redirect 0 to 2 to /dev/null, except the one that is the log. */
void	 daemon_release_descriptors(void);

/*
 * Close all descriptors but 0 to 2, the log and these, which are sorted.  If
 * the log is syslog, connect to it again.
 */
void	 daemon_close_all_but(int *fds, size_t n);

/* Move *fd to the first free number from this one on.  0, or -1 with errno. */
int	 daemon_move_fd(int *fd, int from);

/*
 * Go into the background.  In the child, returns a descriptor: write a byte to
 * it after the start.  The parent waits for that, and exits with 0, or with the
 * child's exit status.  -1, having logged why.
 */
int	 daemon_background(void);

/*
 * Lock the file, opened by this name, and write the process ID to it.  The lock
 * shows that the process is alive; the file's mode keeps other users from
 * locking it.  NULL, or the error.  The caller owns the descriptor.
 */
const char *daemon_write_pidfile(int fd, const char *name, pid_t);

/*
 * As sd_notify(3): send a datagram to a Unix socket, an abstract one if to
 * begins with @.  to is NOTIFY_SOCKET; NULL: send nothing.
 */
void	 daemon_notify(const char *to, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/*
 * Wait for a child (0: none) up to ms, then kill it, and set it to 0.  Signals
 * do not end the wait: after an upgrade, the next program handles them.
 */
void	 daemon_end_child(pid_t *, int64_t ms);

/* Get SIGTERM when the master exits. */
void	 daemon_follow_master(void);

#endif
