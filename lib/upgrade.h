/*
 * upgrade: the program's next version, which is tried with -t, and then takes
 * the place of this one by execve(2), in the same process, which keeps its
 * children.  If it can't go on, it starts the previous program again, by a
 * descriptor.  What else is handed over is up to the caller.
 */
#ifndef UPGRADE_H
#define UPGRADE_H

#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

struct handover;

struct upgrade {
	char	*path;			/* of the program, old and new, */
	char	**argv, **env;		/* and how it is to be started */
	int	 program;		/* the one that runs; or -1 */
	pid_t	 trial;			/* of the new one; or 0 */
	int	 output, answer;	/* what it says; or -1 */
	int64_t	 until;			/* it is killed */
	int	 is_due;		/* the trial went well */
	int	 log;			/* of the program before; or -1 */
};

/*
 * At the start, while all is as it was then: argv as the program was started,
 * in this directory and with this environment.
 */
void	 upgrade_init(struct upgrade *, char **argv);
void	 upgrade_free(struct upgrade *, char **argv);

/* In a child: close all descriptors of the upgrade, and these. */
void	 upgrade_leave(const struct upgrade *, int state, int before);

/*
 * Try the new program, and log how that ends.  It gets the n descriptors from
 * first on, which are systemd's; mask is its signal mask.
 */
void	 upgrade_try(struct upgrade *, int first, int n, const sigset_t *mask);

/* In the program that is tried: say that it can take over; -1 with errno. */
int	 upgrade_answer(int fd);

/* A child has ended.  Was it the trial? */
int	 upgrade_reaped(struct upgrade *, pid_t, int status);

/* Kill a trial that is past its time, or at a stop.  1: take over is due. */
int	 upgrade_step(struct upgrade *, int stopping);

/* Become the new program, which finds what is handed over; or log why not. */
void	 upgrade_exec(const struct upgrade *, struct handover *);

/*
 * Hand over, first of all, a version, and how to start the program again, which
 * a script may have changed since.
 */
void	 upgrade_carry(struct handover *, struct upgrade *);

/* In the new program: close what a script left open, lest workers get it. */
void	 upgrade_close_others(const struct upgrade *, const struct handover *,
	    int state, int before);

/*
 * This program can't take over: start the previous one again, as it was
 * started, or with argv if that can't be read.  An exit status, if that fails.
 */
int	 upgrade_go_back(int state, int before, char **argv);

/*
 * In the previous program, started again: restore what ps(1) calls it, in place
 * of the descriptor that it was started by.
 */
void	 upgrade_restore_name(const struct upgrade *);

#endif
