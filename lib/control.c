/*
 * control: the channel between the master and each worker, a pair of sockets.
 * A worker sends a byte when it is ready, and waits for a byte before it starts
 * to serve; in fork mode, it does neither.  It sends another byte when it stops
 * accepting.  The master sends orders, and SIGHUP so that a worker reads them.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "control.h"
#include "log.h"

/* Room for one descriptor beside a message. */
union passed {
	struct cmsghdr head;
	char	 room[CMSG_SPACE(sizeof(int))];
};

int
control_send(int channel, const struct order *o, int fd)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)o,
	    .iov_len = sizeof(*o) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union passed passed = { .room = { 0 } };

	if (fd != -1) {
		passed.head.cmsg_level = SOL_SOCKET;
		passed.head.cmsg_type = SCM_RIGHTS;
		passed.head.cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(&passed.head), &fd, sizeof(fd));
		msg.msg_control = &passed;
		msg.msg_controllen = sizeof(passed.room);
	}
	return sendmsg(channel, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 ? -1 :
	    0;
}

int
control_receive(int channel, struct order *o, int *fd)
{
	struct iovec iov = { .iov_base = o, .iov_len = sizeof(*o) };
	union passed passed = { .room = { 0 } };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = &passed, .msg_controllen = sizeof(passed.room) };
	const struct cmsghdr *c;

	*fd = -1;
	if (recvmsg(channel, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) !=
	    (ssize_t)sizeof(*o))
		return -1;
	if ((c = CMSG_FIRSTHDR(&msg)) != NULL &&
	    c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return 0;
}

struct order
control_log_order(int *fd)
{
	int is_passed = log_fd() > STDERR_FILENO;
	struct log_state state;

	log_get_state(&state);
	*fd = is_passed ? log_fd() : -1;
	return (struct order){ .what = ORDER_LOG, .has_time = state.has_time,
	    .is_private = state.is_private, .log = is_passed ? 0 : log_fd() };
}

/*
 * Move the new log to the number of the first one: the sandbox protects this
 * number, and allows dup3(2) only to it.  Keep the old log if the new one is
 * syslog, whose socket can't be opened in the sandbox, or if no descriptor was
 * free to receive the new one.
 */
void
control_apply_log(const struct order *o, int fd)
{
	int to = fd != -1 ? fd : o->log;
	struct log_state state;

	if (to <= 0)
		return;
	if (log_fd() <= STDERR_FILENO ||
	    dup3(to, log_fd(), O_CLOEXEC) == -1)
		log_to(to, o->log);
	else if (fd != -1)
		close(fd);
	log_get_state(&state);
	state.has_time = o->has_time;
	state.is_private = o->is_private;
	state.lost.is_cut = 0;
	log_set_state(&state);
}
