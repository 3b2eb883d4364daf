/* command: a command as the backend, one for each connection. */
#ifndef COMMAND_H
#define COMMAND_H

#include <stddef.h>

struct command;
struct rlimit;
struct stream;

/* The commands of a process: all zero at first. */
struct commands {
	struct command *list;
	size_t	 running;
};

struct command_params {
	char	*const *argv;		/* ends with NULL */
	const char *peer;		/* the client's address, as text */
	const struct rlimit *files, *core;	/* its limits */
	size_t	 max;			/* that may be running */
	const unsigned char *header;	/* it is told first; or NULL */
	size_t	 nheader;
	void	(*reset_signals)(void);	/* in the child */
};

/*
 * Start one, and fill in the stream to it: a socket, which is its standard
 * input and output.  What it is told first is written as part of opening the
 * stream, and must be there until then.  It is valid until command_leave().
 * NULL with the reason in why.
 */
struct command *command_start(struct commands *, const struct command_params *,
	    struct stream *, char *why, size_t size);

/* Its connection and its stream are over; the command may go on running. */
void	 command_leave(struct commands *, struct command *);

/*
 * Find those that are over, when SIGCHLD has come.  They stay zombies until
 * their connections are over as well.
 */
void	 commands_look(struct commands *);

/* Free the list; commands go on running. */
void	 commands_free(struct commands *);

#endif
