/*
 * upgrade: the next version of the program is tried with -t, and then executed
 * by execve(2) in the same process, which keeps its children.  If it can't take
 * over, it executes the previous program again, by a descriptor.  The caller
 * writes and reads the rest of the state that is handed over.
 */
#ifndef UPGRADE_H
#define UPGRADE_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

struct handover;

struct upgrade {
	char	*path;			/* the program file, old and new */
	char	**argv, **env;		/* to execute it */
	int	 program;		/* descriptor of this program; or -1 */
	pid_t	 trial;			/* the child with -t; or 0 */
	int	 output, answer;	/* files of the trial; or -1 */
	int64_t	 until;			/* the trial's deadline (ms) */
	int	 is_due;		/* the trial has succeeded */
	int	 log;			/* the previous program's; or -1 */
};

/*
 * Note argv, the directory and the environment, before they change.  argv must
 * stay valid.
 */
void	 upgrade_init(struct upgrade *, char **argv);
void	 upgrade_free(struct upgrade *, char **argv);

/* In a child: close all descriptors of the upgrade, and these two. */
void	 upgrade_leave(const struct upgrade *, int state, int before);

/*
 * Start a trial of the new program, or log the error.  It inherits systemd's n
 * descriptors from first on; mask is its signal mask.
 */
void	 upgrade_try(struct upgrade *, int first, int n, const sigset_t *mask);

/* In a trial: report to fd that it can take over.  0, or -1 with errno. */
int	 upgrade_answer(int fd);

/* A child has ended.  If it is the trial, log a failure and return 1; or 0. */
int	 upgrade_reaped(struct upgrade *, pid_t, int status);

/* Kill a trial past its deadline, or at a stop.  1: call upgrade_exec() now. */
int	 upgrade_step(struct upgrade *, int stopping);

/* Execute the new program with the handover.  Returns on failure, logged. */
void	 upgrade_exec(const struct upgrade *, struct handover *);

/*
 * The first items of a handover: its version, and path, argv and environment
 * for the program's start, as a script may have changed them.
 */
void	 upgrade_carry(struct handover *, struct upgrade *);

/* In the new program: close descriptors of a script, before workers start. */
void	 upgrade_close_others(const struct upgrade *, const struct handover *,
	    int state, int before);

/*
 * This program can't take over: execute the previous one, by the descriptor
 * before, with its argv and environment, or with argv if they can't be read.
 * Returns an exit status on failure.
 */
int	 upgrade_go_back(int state, int before, char **argv);

/*
 * In the previous program, executed again: restore its name in ps(1), which is
 * the number of a descriptor after fexecve(3).
 */
void	 upgrade_restore_name(const struct upgrade *);

#endif
