/*
 * inetd: the connection of -i: a socket that inetd(8) has accepted, or standard
 * input and output.
 */
#ifndef INETD_H
#define INETD_H

#include "relay.h"

struct arguments;
struct config;
struct incoming;
struct worker;

struct inetd {
	struct relay relay;		/* for a connection without a socket */
	int	 kept_fds[RELAY_FDS];	/* the relay's, for arguments */
};

#define INETD_NONE	{ .relay = RELAY_NONE }

/*
 * Before the configuration is loaded: start a relay if standard input and
 * output may need one.  arguments.kept_fds then points into struct inetd, to
 * keep its descriptors open.  0, or -1, having logged why.
 */
int	 inetd_begin(struct inetd *, struct arguments *);

/*
 * After the configuration is loaded, before its log is opened: dismiss the
 * relay if the role needs none.
 */
void	 inetd_choose(struct inetd *, const struct config *);

/*
 * After the worker's generation is loaded, and its log is open: take the
 * connection, and give the worker its relay, if any.  0, or -1, having logged
 * why.
 */
int	 inetd_take(struct inetd *, struct worker *, struct incoming *);

#endif
