/* workers: the worker processes of a generation, for the master. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control.h"
#include "log.h"
#include "scoreboard.h"
#include "util.h"
#include "workers.h"

#define HEALTHY_MS	5000		/* without failures: reset back-off */
#define GRACE_MS	5000		/* to exit after a time limit */
#define START_MS	3000		/* for a worker to get ready */
#define RETRY_MS	100		/* back-off, doubled each time */
#define RETRY_MAX_MS	30000
#define ACCEPT_STOP_MS	1000		/* for workers to stop accepting */

static const struct slot empty_slot = { .control = -1 };

int
workers_new(struct workers *ws, size_t nslots)
{
	size_t i;

	ws->deadline = INT64_MAX;
	ws->nslots = nslots;
	if ((ws->slots = calloc(nslots, sizeof(*ws->slots))) == NULL)
		return -1;
	for (i = 0; i < nslots; i++)
		ws->slots[i] = empty_slot;
	return 0;
}

void
workers_free(struct workers *ws)
{
	free(ws->slots);
	ws->slots = NULL;
	ws->nslots = 0;
}

size_t
workers_next(struct workers *ws)
{
	while (ws->slots[ws->next % ws->nslots].pid != 0)
		ws->next++;
	return ws->next++ % ws->nslots;
}

struct slot *
workers_find(const struct workers *ws, pid_t pid)
{
	size_t i;

	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid == pid)
			return &ws->slots[i];
	return NULL;
}

void
workers_clear(struct workers *ws, struct slot *slot)
{
	if (slot->control != -1)
		close(slot->control);
	*slot = empty_slot;
	ws->n--;
}

void
workers_release(struct workers *ws)
{
	size_t i;

	for (i = 0; i < ws->nslots; i++) {
		struct slot *slot = &ws->slots[i];

		if (slot->control != -1 && !slot->released)
			send(slot->control, "", 1, MSG_NOSIGNAL);
		slot->released = 1;
	}
}

void
workers_close_channels(const struct workers *ws)
{
	size_t i;

	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].control != -1)
			close(ws->slots[i].control);
}

void
workers_dismiss(struct workers *ws)
{
	size_t i;

	workers_close_channels(ws);
	for (i = 0; i < ws->nslots; i++)
		ws->slots[i].control = -1;
}

void
workers_await_accept_stop(const struct workers *ws)
{
	int64_t left, until = clock_ms() + ACCEPT_STOP_MS;
	size_t i;
	char byte;

	for (i = 0; i < ws->nslots; i++) {
		struct pollfd p = { .fd = ws->slots[i].control,
		    .events = POLLIN };

		left = until - clock_ms();
		if (poll(&p, 1, left > 0 && p.fd != -1 ? (int)left : 0) == 1)
			recv(p.fd, &byte, 1, MSG_DONTWAIT);
	}
}

/* Wait for the byte of a worker.  1 if it is ready. */
static int
is_ready(pid_t pid, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int n = poll(&p, 1, START_MS);
	char byte;

	if (n == 0)
		log_warning("worker %d is not ready after %d s: killed",
		    (int)pid, START_MS / 1000);
	return n == 1 && read(fd, &byte, 1) == 1;
}

pid_t
workers_fork(struct workers *ws, size_t slot, int64_t drop_ms, int *control)
{
	int fds[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == -1)
		return -1;
	if ((pid = fork()) == 0) {
		close(fds[0]);
		*control = fds[1];
		return 0;
	}
	close_failed(fds[1]);
	if (pid == -1)
		return close_failed(fds[0]);
	log_debug("worker %d started", (int)pid);
	ws->slots[slot] = (struct slot){ .pid = pid, .control = fds[0],
	    .row = (uint32_t)slot, .released = drop_ms > 0,
	    .drop_at = drop_ms > 0 ? clock_ms() + drop_ms : INT64_MAX };
	ws->n++;
	return pid;
}

int
workers_await_ready(const struct workers *ws, size_t slot)
{
	const struct slot *s = &ws->slots[slot];

	if (!is_ready(s->pid, s->control)) {
		kill(s->pid, SIGKILL);
		return -1;
	}
	if (kill(s->pid, 0) == -1) {
		log_error("cannot signal worker: %s (with user, the master "
		    "needs CAP_KILL)", strerror(errno));
		return -1;
	}
	return 0;
}

int64_t
workers_failed(struct workers *ws)
{
	int64_t now = clock_ms(), ms = 0;

	if (now < ws->retry_at)
		return ws->retry_at - now;
	if (now - ws->retry_at >= HEALTHY_MS)
		ws->failures = 0;
	if (ws->failures++ > 0)
		ms = RETRY_MS << (ws->failures < 16 ? ws->failures - 2 : 14);
	if (ms > RETRY_MAX_MS)
		ms = RETRY_MAX_MS;
	ws->retry_at = now + ms;
	return ms;
}

int
workers_are_full(const struct workers *ws)
{
	return ws->n == ws->nslots;
}

struct slot *
workers_oldest_handshake(const struct workers *ws,
    const struct scoreboard *b)
{
	struct slot *oldest = NULL;
	const volatile struct counts *n;
	size_t i;

	for (i = 0; i < ws->nslots; i++) {
		struct slot *slot = &ws->slots[i];

		n = &b->counts[slot->row];
		if (slot->pid != 0 && n->opened[0] + n->opened[1] == 0 &&
		    (oldest == NULL || slot->drop_at < oldest->drop_at))
			oldest = slot;
	}
	return oldest;
}

int
workers_send(const struct slot *slot, const struct order *o, int fd)
{
	if (control_send(slot->control, o, fd) == -1)
		return -1;
	return kill(slot->pid, SIGHUP);
}

void
workers_signal(const struct workers *ws, int sig)
{
	size_t i;

	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0)
			kill(ws->slots[i].pid, sig);
}

/* Set the deadline to now, ms and GRACE_MS, unless it is earlier. */
static void
expect_end(struct workers *ws, int64_t ms)
{
	int64_t deadline = clock_ms() + ms + GRACE_MS;

	if (deadline < ws->deadline)
		ws->deadline = deadline;
}

void
workers_retire(struct workers *ws, int64_t ms, int is_reload)
{
	struct order o = { .what = ORDER_DRAIN, .ms = ms,
	    .is_reload = is_reload };
	size_t i;

	if (ms != 0)
		expect_end(ws, ms);
	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0 &&
		    workers_send(&ws->slots[i], &o, -1) == -1)
			kill(ws->slots[i].pid, SIGTERM);
}

void
workers_abort(struct workers *ws)
{
	expect_end(ws, 0);
	workers_signal(ws, SIGQUIT);
}

void
workers_send_log(const struct workers *ws, const struct order *o, int fd)
{
	size_t i;

	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0 &&
		    workers_send(&ws->slots[i], o, fd) == -1 &&
		    errno == EAGAIN)
			log_warning("worker %d is not responding: it keeps the "
			    "old log", (int)ws->slots[i].pid);
}

void
workers_shrink(struct workers *ws)
{
	struct slot *slots;
	size_t i, n = 0;

	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0)
			ws->slots[n++] = ws->slots[i];
	ws->nslots = n;
	if (n > 0 && (slots = realloc(ws->slots, n * sizeof(*slots))) != NULL)
		ws->slots = slots;
}

void
workers_kill_late(struct workers *ws)
{
	size_t i;

	if (ws->deadline > clock_ms())
		return;
	ws->deadline = INT64_MAX;
	for (i = 0; i < ws->nslots; i++)
		if (ws->slots[i].pid != 0)
			log_warning("worker %d does not exit: killed",
			    (int)ws->slots[i].pid);
	workers_signal(ws, SIGKILL);
}
