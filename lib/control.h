/*
 * control: the channel between the master and each worker.  Workers outlive an
 * upgrade of the program: the layout of an order does not change.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdint.h>

enum { ORDER_DRAIN, ORDER_LOG, ORDER_MAKE_ROOM };

struct order {
	int32_t	 what;
	int32_t	 log;			/* -1: syslog, 0: it is passed along; */
					/* or a standard descriptor */
	int32_t	 has_time, is_private;	/* as in the log */
	int64_t	 ms;			/* for connections to finish */
};

/*
 * Send an order, and with it a descriptor, which stays the caller's, or -1.  -1
 * with errno: EAGAIN if there is no room.
 */
int	 control_send(int channel, const struct order *, int fd);

/* The next order, and the descriptor with it, or -1.  -1: there is none. */
int	 control_receive(int channel, struct order *, int *fd);

/* Where the log is now, as an order, and the descriptor to send with it. */
struct order control_log_order(int *fd);

/* Log there from now on; the descriptor is the log's. */
void	 control_apply_log(const struct order *, int fd);

#endif
