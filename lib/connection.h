/*
 * connection: the callbacks of the engine for one connection, and the state
 * that is shared by all connections of a process.
 */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "command.h"
#include "scoreboard.h"

struct forward;
struct forward_end;
struct generation;
struct stream;

/* Shared by all connections of a process. */
struct connections {
	struct generation *generation;
	struct forward *engine;
	volatile struct counts *counts;
	struct share share;
	size_t	 turn;			/* round robin over connect */
	struct commands commands;
	int	 last_closed;		/* the last one ended in order */
	uint64_t peak;			/* live ones since the last trim() */
	char	 why[512];		/* the last error */
	int64_t	 repeats_until;		/* when to log repeats; 0: never */
};

/*
 * Admit a connection on fd from this address, and fill in its client's stream.
 * Returns the conn argument of the other callbacks, or NULL if it is refused,
 * having counted and logged why.  Then the caller still owns fd.
 */
void	*connection_accept(struct connections *, int fd,
	    const struct sockaddr *, socklen_t, struct stream *client);

/* As in struct forward_calls.  conn is the result of connection_accept(). */
int	 connection_dial(void *conn, struct stream *backend,
	    const char *failed, const char **why);
void	 connection_opened(void *conn);
void	 connection_closed(void *conn, const struct forward_end *);
void	 connection_listed(void *conn, const struct forward_end *);

#endif
