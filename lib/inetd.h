/*
 * inetd: the one connection of -i, which is there already: a socket that
 * inetd(8) has accepted, or standard input and output.
 */
#ifndef INETD_H
#define INETD_H

#include "relay.h"

struct arguments;
struct config;
struct incoming;
struct worker;

struct inetd {
	struct relay relay;		/* where it is no socket */
	int	 kept_fds[RELAY_FDS];	/* its descriptors, for arguments */
};

#define INETD_NONE	{ .relay = RELAY_NONE }

/*
 * Before anything is loaded: if standard input and output may need a relay,
 * start one.  The arguments then name its descriptors, which are to stay open;
 * the array is in struct inetd.  -1, having logged why.
 */
int	 inetd_begin(struct inetd *, struct arguments *);

/*
 * Once there is a configuration, but no log of its own yet: the role is known,
 * and the relay is dismissed if that role needs none.
 */
void	 inetd_choose(struct inetd *, const struct config *);

/*
 * With the worker's generation loaded, and its log open: take the connection;
 * the worker gets the relay behind it, if there is one.  -1, having logged why.
 */
int	 inetd_take(struct inetd *, struct worker *, struct incoming *);

#endif
