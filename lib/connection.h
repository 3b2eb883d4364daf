/*
 * connection: one connection, as the engine's callbacks see it, and what all
 * connections of a process share.
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

/* What all connections of a process share. */
struct connections {
	struct generation *generation;
	struct forward *engine;
	volatile struct counts *counts;
	struct share share;
	size_t	 turn;			/* round robin over connects */
	struct commands commands;
	int	 last_closed;		/* the last one ended in order */
	uint64_t peak;			/* of live ones, since the last trim */
	char	 why[512];		/* of the last failure */
	int64_t	 repeats_until;		/* when to log repeats; 0: never */
};

/*
 * A connection that came in on fd, from that address: admitted, and its
 * client's stream filled in.  NULL, having counted and logged why: it is turned
 * away, and fd is the caller's still.
 */
void	*connection_accept(struct connections *, int fd,
	    const struct sockaddr *, socklen_t, struct stream *client);

/* As in struct forward_calls; conn is what connection_accept() returned. */
int	 connection_dial(void *conn, struct stream *backend,
	    const char *failed, const char **why);
void	 connection_opened(void *conn);
void	 connection_closed(void *conn, const struct forward_end *);
void	 connection_listed(void *conn, const struct forward_end *);

#endif
