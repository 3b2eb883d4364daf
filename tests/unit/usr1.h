/* usr1: SIGUSR1, for tests of pending signals. */
#ifndef USR1_H
#define USR1_H

#include <signal.h>

static volatile sig_atomic_t got_usr1;

static inline void
on_usr1(int sig)
{
	(void)sig;
	got_usr1 = 1;
}

static inline void
block_usr1(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(how, &set, NULL);
}

#endif
