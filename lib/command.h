/* command: a command as the backend, one process for each connection. */
#ifndef COMMAND_H
#define COMMAND_H

#include <stddef.h>

struct command;
struct rlimit;
struct stream;

/* The running commands of a worker.  Initialise with zeros. */
struct commands {
	struct command *list;
	size_t	 running;
};

struct command_params {
	char	*const *argv;		/* ends with NULL */
	const char *peer;		/* the client's address as text */
	const char *root;		/* chroot, for messages; NULL: none */
	const struct rlimit *files, *core;	/* limits of the command */
	size_t	 max;			/* running commands, at most */
	const unsigned char *header;	/* to be written first; or NULL */
	size_t	 nheader;
	void	(*reset_signals)(void);	/* called in the child */
};

/*
 * Start a command, and fill in the stream to it: a socket, which is its
 * standard input and output.  Opening the stream writes the header, which must
 * be valid until then.  The result is valid until command_leave().  NULL with
 * the error in why.
 */
struct command *command_start(struct commands *, const struct command_params *,
	    struct stream *, char *why, size_t size);

/* The connection and the stream have ended; the command may still run. */
void	 command_leave(struct commands *, struct command *);

/*
 * After SIGCHLD: note which commands have exited.  They stay zombies until
 * their connections have ended too.
 */
void	 commands_look(struct commands *);

/* Free the list; commands continue to run. */
void	 commands_free(struct commands *);

#endif
