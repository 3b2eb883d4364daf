/*
 * upgrade: the program's next version, which is tried with -t, and then takes
 * the place of this one by execve(2).  It is the same process: its children are
 * its children still.  If it can't go on, it starts the program before again,
 * by a descriptor.  What the two hand over is for others to say.
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
	int	 is_due;		/* it went well */
	int	 log;			/* of the program before; or -1 */
};

/*
 * At the start, while all is as it was then: argv as the program was started,
 * in this directory and with this environment.
 */
void	 upgrade_init(struct upgrade *, char **argv);
void	 upgrade_free(struct upgrade *, char **argv);

/* In a child: close what is of no use to it, these as well. */
void	 upgrade_leave(const struct upgrade *, int state, int before);

/*
 * Try the new program; what becomes of it is logged.  The n descriptors from
 * first on are systemd's, for it as well; mask is that of signals.
 */
void	 upgrade_try(struct upgrade *, int first, int n, const sigset_t *mask);

/* In the program that is tried: say that it can take over; -1 with errno. */
int	 upgrade_answer(int fd);

/* A child has ended.  Was it the trial? */
int	 upgrade_tried(struct upgrade *, pid_t, int status);

/* End a trial that is past its time, or of no use.  Did the last go well? */
int	 upgrade_step(struct upgrade *, int stopping);

/* Become the new program, which finds what is handed over; or log why not. */
void	 upgrade_exec(const struct upgrade *, struct handover *);

/*
 * The first of what is handed over: its version, and how to start the program
 * again, which a script may have changed since.
 */
void	 upgrade_carry(struct handover *, struct upgrade *);

/* In the new program: what a script has left open must not get to workers. */
void	 upgrade_close_others(const struct upgrade *, const struct handover *,
	    int state, int before);

/*
 * This program can't take over: start the one before again, as it was started.
 * argv is for when nobody knows how.  An exit status, if that fails.
 */
int	 upgrade_go_back(int state, int before, char **argv);

/*
 * In the one before, again: what ps(1) calls it.  It would be the number of the
 * descriptor that it was started by.
 */
void	 upgrade_restore_name(const struct upgrade *);

#endif
