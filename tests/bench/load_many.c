/*
 * Many connections in one thread: measure the time of round trips, and the rate
 * of new connections.
 *
 * Round trips and new connections begin on schedule, also if earlier ones are
 * unfinished.  A delay by this program is not counted: a round trip lasts from
 * its sending until the kernel has received the answer.  But if all connections
 * wait for the server, the delay of the next round trip is counted.
 */
#include <sys/epoll.h>
#include <sys/socket.h>

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define MAX_NEW		256		/* connections being opened, at most */
#define RUSH		32		/* the same for run_rush() */
#define NS		1000000000LL

struct samples {
	int64_t *ns;
	size_t	 n, size;
	double	 mean_gap;		/* ns between two; 0: none */
	int64_t	 next;			/* the time of the next */
};

struct many {
	int	 epoll;
	int	 are_kept;		/* new connections stay open */
	int	 was_starved;		/* of idle connections */
	struct conn *idle, **last;	/* connections without a round trip */
	struct samples trips, news;
	uint64_t pending;		/* unfinished round trips */
};

static void
samples_begin(struct samples *s, double seconds, double rate)
{
	s->size = (size_t)(seconds * rate * 2) + 1000;
	s->n = 0;
	s->next = rate == 0 ? INT64_MAX : clock_ns();
	s->mean_gap = rate == 0 ? 0 : 1e9 / rate;
	if ((s->ns = calloc(s->size, sizeof(*s->ns))) == NULL)
		fail("calloc");
}

static void
samples_add(struct samples *s, int64_t ns)
{
	if (s->n < s->size)
		s->ns[s->n++] = ns;
}

/* A random gap, from half to one and a half of the mean. */
static int64_t
samples_due(struct samples *s)
{
	int64_t due = s->next;

	s->next += (int64_t)(s->mean_gap * (0.5 + drand48()));
	return due;
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static double
samples_us(struct samples *s, double quantile)
{
	if (s->n == 0)
		return 0;
	qsort(s->ns, s->n, sizeof(*s->ns), compare);
	return (double)s->ns[(size_t)((double)(s->n - 1) * quantile)] / 1e3;
}

static void
watch(struct many *m, struct conn *c, int op, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	if (epoll_ctl(m->epoll, op, c->fd, &ev) == -1)
		fail("epoll_ctl");
}

/* Use idle connections in turn. */
static void
put_idle(struct many *m, struct conn *c)
{
	if (m->idle == NULL)
		m->last = &m->idle;
	*m->last = c;
	m->last = &c->next;
	c->next = NULL;
	c->state = IDLE;
}

/* The time when the next unread bytes arrived. */
static int64_t
arrived_ns(const struct conn *c)
{
	union {
		char	 buf[CMSG_SPACE(sizeof(struct timespec))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = control.buf, .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg;
	struct timespec ts;

	if (recvmsg(c->fd, &msg, MSG_PEEK) <= 0 ||
	    (cmsg = CMSG_FIRSTHDR(&msg)) == NULL ||
	    cmsg->cmsg_type != SCM_TIMESTAMPNS)
		return clock_ns();	/* at the end, or after an error */
	memcpy(&ts, CMSG_DATA(cmsg), sizeof(ts));
	return ts.tv_sec * NS + ts.tv_nsec;
}

static void
begin_new(struct many *m)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		fail("calloc");
	c->began = clock_ns();
	conn_socket(c, SOCK_NONBLOCK);
	conn_tls(c);
	c->state = CONNECTING;
	m->pending++;
	watch(m, c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* Continue to open a new connection. */
static void
step_new(struct many *m, struct conn *c)
{
	int n;

	if (c->state == CONNECTING) {
		watch(m, c, EPOLL_CTL_MOD, EPOLLIN);
		c->state = HANDSHAKE;
	}
	if (c->state == HANDSHAKE) {
		if (c->ssl != NULL && (n = SSL_do_handshake(c->ssl)) != 1) {
			if (SSL_get_error(c->ssl, n) != SSL_ERROR_WANT_READ)
				fail("handshake");
			return;
		}
		ask(c, 'E', 1);
		c->state = WAITING;
	}
	if (conn_read(c, load.piece, sizeof(load.piece)) <= 0)
		return;
	samples_add(&m->news, clock_ns() - c->began);
	m->pending--;
	if (m->are_kept) {
		put_idle(m, c);
		return;
	}
	if (c->ssl != NULL)
		SSL_shutdown(c->ssl);
	SSL_free(c->ssl);
	close(c->fd);
	free(c);
}

static void
begin_trip(struct many *m)
{
	struct conn *c = m->idle;
	int64_t due = samples_due(&m->trips);

	m->idle = c->next;
	c->state = TRIP;
	c->began = m->was_starved ? due : clock_ns();
	m->pending++;
	ask(c, 'E', 1);
}

static void
step_trip(struct many *m, struct conn *c)
{
	int64_t arrived = arrived_ns(c);
	ssize_t n = conn_read(c, load.piece, sizeof(load.piece));

	if (n == -1)			/* a ticket, but no data */
		return;
	if (n == 0 || c->state == IDLE)
		errx(1, n == 0 ? "the server has closed a connection" :
		    "an answer, and there was no question");
	samples_add(&m->trips, arrived - c->began);
	m->pending--;
	put_idle(m, c);
}

/* Handle all events; returns their number. */
static int
step_all(struct many *m, int64_t patience_ns)
{
	struct timespec ts = { .tv_sec = patience_ns / NS,
	    .tv_nsec = patience_ns % NS };
	struct epoll_event ev[64];
	struct conn *c;
	int i, n;

	if ((n = epoll_pwait2(m->epoll, ev, 64, &ts, NULL)) == -1)
		fail("epoll_pwait2");
	for (i = 0; i < n; i++) {
		c = ev[i].data.ptr;
		if (c->state == IDLE || c->state == TRIP)
			step_trip(m, c);
		else
			step_new(m, c);
	}
	return n;
}

static void
run_latency_loop(struct many *m, int64_t end)
{
	int64_t now, next;

	while ((now = clock_ns()) < end || m->pending > 0) {
		while (now < end && m->news.next <= now &&
		    m->pending < MAX_NEW) {
			samples_due(&m->news);
			begin_new(m);
		}
		while (now < end && m->trips.next <= now && m->idle != NULL)
			begin_trip(m);
		m->was_starved = m->trips.next <= now;
		if (now > end + PATIENCE * NS)
			errx(1, "%llu are without an answer",
			    (unsigned long long)m->pending);
		next = m->trips.next < m->news.next ? m->trips.next :
		    m->news.next;
		next = next < end && now < end ? next - clock_ns() : NS / 100;
		step_all(m, next < 0 ? 0 : next);
	}
}

void
run_latency(double seconds, uint64_t count, double trips, double news)
{
	struct many m = { .epoll = epoll_create1(EPOLL_CLOEXEC) };
	struct conn *conns = open_all(count);
	uint64_t i;
	int on = 1;

	for (i = 0; i < count; i++) {
		if (fcntl(conns[i].fd, F_SETFL, O_NONBLOCK) == -1 ||
		    setsockopt(conns[i].fd, SOL_SOCKET, SO_TIMESTAMPNS, &on,
		    sizeof(on)) == -1)
			fail("fcntl");
		watch(&m, &conns[i], EPOLL_CTL_ADD, EPOLLIN);
		put_idle(&m, &conns[i]);
	}
	await_word("ready");
	samples_begin(&m.trips, seconds, trips);
	samples_begin(&m.news, seconds, news);
	run_latency_loop(&m, clock_ns() + (int64_t)(seconds * 1e9));
	await_word("trips=%zu trip_p50=%.1f trip_p99=%.1f "
	    "news=%zu new_p50=%.1f new_p99=%.1f", m.trips.n,
	    samples_us(&m.trips, 0.5), samples_us(&m.trips, 0.99), m.news.n,
	    samples_us(&m.news, 0.5), samples_us(&m.news, 0.99));
	free(m.trips.ns);
	free(m.news.ns);
	free(conns);
}

/* Open connections as fast as the server can. */
void
run_rush(uint64_t count, int is_kept)
{
	struct many m = { .epoll = epoll_create1(EPOLL_CLOEXEC),
	    .are_kept = is_kept };
	int64_t began;
	uint64_t begun = 0;

	await_word("ready");
	began = clock_ns();
	while (begun < count || m.pending > 0) {
		for (; begun < count && m.pending < RUSH; begun++)
			begin_new(&m);
		if (step_all(&m, PATIENCE * NS) == 0)
			errx(1, "%llu are without an answer",
			    (unsigned long long)m.pending);
	}
	await_word("each_us=%.2f", (double)(clock_ns() - began) / 1e3 /
	    (double)count);
}
