/*
 * control: the channel between the master and each worker.  Do not change the
 * layout of an order: workers survive an upgrade of the program.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdint.h>

enum { ORDER_DRAIN, ORDER_LOG, ORDER_MAKE_ROOM };

struct order {
	int32_t	 what;			/* ORDER_... */
	union {
		int32_t	 is_reload;	/* ORDER_DRAIN: else a stop */
		int32_t	 log;		/* -1: syslog; 0: it is sent along; */
					/* or a standard descriptor */
	};
	int32_t	 has_time, is_private;	/* as in struct log_state */
	int64_t	 ms;			/* ORDER_DRAIN: time limit; 0: none */
};

/*
 * Send an order, with a descriptor or -1.  The caller owns the descriptor.  0,
 * or -1 with errno: EAGAIN if the channel is full.
 */
int	 control_send(int channel, const struct order *, int fd);

/*
 * Receive an order, with its descriptor or -1, which the caller owns.  0, or -1
 * if there is none.
 */
int	 control_receive(int channel, struct order *, int *fd);

/* An order to use the present log, and the descriptor to send with it. */
struct order control_log_order(int *fd);

/* Use the log of this order.  The log owns the descriptor from here on. */
void	 control_apply_log(const struct order *, int fd);

#endif
