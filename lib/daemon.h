/*
 * daemon: what a process that stays has to do with the system: signals,
 * descriptors, the background, its pidfile, the service manager.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <signal.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * From here on signals arrive while the process sleeps with this mask, as of
 * ppoll(2), and at no other time.  SIGINT counts as SIGTERM.
 */
void	 signals_catch(sigset_t *asleep);

/*
 * In a worker, where none has come yet.  What a terminal or killall(1) sends to
 * all processes is for the master to act on.
 */
void	 signals_leave(void);

/* As other programs expect them: none is caught, ignored or blocked. */
void	 signals_reset(void);

/* Has it come since it was last taken? */
int	 signal_has_come(int sig);
int	 signal_taken(int sig);

/* Where one of 0 to 2 is closed, it must not become a connection's. */
void	 daemon_hold_descriptors(void);

/* Let go of the standard descriptors, but for one that is the log. */
void	 daemon_release_descriptors(void);

/*
 * Close all but these, the standard ones and the log; they are sorted.  Syslog
 * is connected to again.
 */
void	 daemon_close_all_but(int *fds, size_t n);

/* To the first number that is free from this one on; -1 with errno. */
int	 daemon_move_fd(int *fd, int from);

/*
 * Into the background.  The parent stays until the child has started, so that
 * it can exit as the child does.  The descriptor to write a byte to by then; or
 * -1, having logged why.
 */
int	 daemon_background(void);

/*
 * Write to the file, opened with that name, and lock it, which tells a live
 * tunnel from a file left over; nobody else can open it, and so lock it.  NULL,
 * or why not.
 */
const char *daemon_write_pidfile(int fd, const char *name, pid_t);

/*
 * sd_notify(3): a datagram to a Unix socket, abstract ones with an @; to is
 * NOTIFY_SOCKET, or NULL: nobody wants to know.
 */
void	 daemon_notify(const char *to, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/* Leave when the master is gone, as if it had said so. */
void	 daemon_follow_master(void);

#endif
