/*
 * daemon: what a process that stays needs of the system: signals, descriptors,
 * the background, its pidfile, the service manager.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * From here on signals arrive while the process sleeps with this mask, as of
 * ppoll(2), and at no other time.  SIGINT counts as SIGTERM.
 */
void	 signals_catch(sigset_t *sleep_mask);

/*
 * In a new worker: forget signals that the master got, and ignore SIGINT and
 * SIGUSR2, which a terminal or killall(1) sends to all processes: the master
 * acts on them.
 */
void	 signals_leave(void);

/* As other programs expect them: none is caught, ignored or blocked. */
void	 signals_reset(void);

/* Has it come since it was last taken? */
int	 signal_pending(int sig);
int	 signal_taken(int sig);

/*
 * Open /dev/null as each of 0 to 2 that is closed: no connection may be one.
 * Writes to such a standard output fail, as what they say is lost.
 */
void	 daemon_reserve_descriptors(void);

/* Let go of the standard descriptors, but for one that is the log. */
void	 daemon_release_descriptors(void);

/*
 * Close all but these, the standard ones and the log; they are sorted.  Syslog
 * is connected to again.
 */
void	 daemon_close_all_but(int *fds, size_t n);

/* Move *fd to the first number that is free from this one on; -1 with errno. */
int	 daemon_move_fd(int *fd, int from);

/*
 * Go into the background.  The parent stays, to exit as the child's start ends:
 * the child gets the descriptor to write a byte to once it has started; or -1,
 * having logged why.
 */
int	 daemon_background(void);

/*
 * Lock the file, which was opened by that name, and write to it; the lock tells
 * a live tunnel from a file left over.  Its mode keeps others from locking it.
 * NULL, or why not; the descriptor stays the caller's.
 */
const char *daemon_write_pidfile(int fd, const char *name, pid_t);

/*
 * sd_notify(3): a datagram to a Unix socket, abstract ones with an @; to is
 * NOTIFY_SOCKET, or NULL: nobody listens.
 */
void	 daemon_notify(const char *to, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/*
 * Wait for a child to end, up to ms, then kill it; 0: there is none, which it
 * is then.  Not woken by signals: after an upgrade, the next program acts on
 * them.
 */
void	 daemon_end_child(pid_t *, int64_t ms);

/* Get SIGTERM when the master is gone. */
void	 daemon_follow_master(void);

#endif
