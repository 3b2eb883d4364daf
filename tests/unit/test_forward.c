/*
 * Unit tests of the engine.  forward.c is included.  Its libc is faked where a
 * test controls time, sleep or failures: the tests never sleep.  The main test
 * is test_seeds(): the real loop over real sockets, between streams and peers
 * that misbehave at every point.
 *
 * FORWARD_RUNS	number of seeded runs (20000)
 * FORWARD_SEED	the first seed (1); a failing run prints its seed
 */
#include <sys/types.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef POLLER_POLL
#include <sys/epoll.h>
#endif

#define QUIET_TURNS	12	/* turns without progress, then time passes */
#define EAGER		4	/* the same, then peers act at once */
#define SPINS		4	/* turns with events, without progress */
#define MOMENTS		100	/* of 10 ms, to wait for the kernel's TCP */
#define MAX_TURNS	30000
#define ALARM		120	/* seconds per run, even in valgrind */
#define REASON_SIZE	128	/* of a checked reason */

/* The state of the fakes, and their observations. */
static struct {
	uint64_t seed;		/* 0: not in a seeded run */
	uint64_t rnd;
	int64_t	 now;		/* the clock, in ms */
	int64_t	 wake_at;	/* the clock never skips this time; 0: none */
	int64_t	 poll_ms;	/* the duration of a poll without a sleep */
	int	 wished;	/* the last timeout of the engine */
	int	 moved;		/* there was progress in this turn */
	int	 quiet, spins, turns;
	int	 tcp;		/* sent data may take a moment to arrive */
	unsigned eintr;		/* interrupt one call in so many */
	int	 accept_error, accept_errors, accepts;
	int	 malloc_in, malloc_failed;	/* the call to fail */
	int	 calloc_fails, watch_fails;
} world;

static void
world_reset(uint64_t seed)
{
	memset(&world, 0, sizeof(world));
	world.seed = seed;
	world.rnd = seed * 0x9e3779b97f4a7c15u + 0x123456789abcdefu;
	world.now = 1000000;
}

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (world.seed != 0)
		fprintf(stderr, "seed %llu failed: FORWARD_SEED=%llu "
		    "FORWARD_RUNS=1 does it again\n",
		    (unsigned long long)world.seed,
		    (unsigned long long)world.seed);
	fail_msg("%s", text);
	abort();
}

#define CHECK(cond) do {						\
	if (!(cond))							\
		die("%s:%d: %s", __FILE__, __LINE__, #cond);		\
} while (0)

/* xorshift64*: 0 to n - 1. */
static size_t
rnd(size_t n)
{
	world.rnd ^= world.rnd >> 12;
	world.rnd ^= world.rnd << 25;
	world.rnd ^= world.rnd >> 27;
	return (size_t)((world.rnd * 0x2545f4914f6cdd1du) >> 32) % n;
}

/* Fakes of libc. */

static int
fake_clock_gettime(clockid_t id, struct timespec *ts)
{
	CHECK(id == CLOCK_MONOTONIC);
	ts->tv_sec = world.now / 1000;
	ts->tv_nsec = world.now % 1000 * 1000000;
	return 0;
}

static int
interrupted(void)
{
	if (world.eintr == 0 || rnd(world.eintr) != 0)
		return 0;
	errno = EINTR;
	return 1;
}

static ssize_t
fake_recv(int fd, void *buf, size_t len, int flags)
{
	return interrupted() ? -1 : recv(fd, buf, len, flags);
}

static ssize_t
fake_send(int fd, const void *buf, size_t len, int flags)
{
	CHECK(flags & MSG_NOSIGNAL);
	return interrupted() ? -1 : send(fd, buf, len, flags);
}

static int
fake_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags)
{
	world.accepts++;
	if (world.accept_errors > 0) {
		world.accept_errors--;
		errno = world.accept_error;
		return -1;
	}
	return accept4(fd, sa, len, flags);
}

static void *
fake_malloc(size_t size)
{
	if (world.malloc_in > 0 && --world.malloc_in == 0) {
		world.malloc_failed = 1;
		return NULL;
	}
	return malloc(size);
}

static void *
fake_calloc(size_t n, size_t size)
{
	if (world.calloc_fails > 0) {
		world.calloc_fails--;
		errno = ENOMEM;
		return NULL;
	}
	return calloc(n, size);
}

/* The engine sleeps, and no peer acts: advance the clock. */
static void
pass_time(int timeout)
{
	int64_t until = timeout < 0 ? INT64_MAX : world.now + timeout;

	if (world.wake_at > world.now && world.wake_at < until)
		until = world.wake_at;
	if (until == INT64_MAX)
		die("hangs: it sleeps for ever, and nothing will happen");
	world.now = until;
	world.quiet = 0;
}

/* The timeout for the real poller. */
static int
moment(void)
{
	return world.tcp && world.quiet > QUIET_TURNS ? 10 : 0;
}

/* Account for a poll with n events and this timeout. */
static int
turned(int n, int timeout)
{
	world.wished = timeout;
	world.now += world.poll_ms;
	if (interrupted())
		return -1;
	if (++world.turns > MAX_TURNS)
		die("no end after %d turns", world.turns);
	if (world.moved)
		world.quiet = world.spins = 0;
	else {
		world.quiet++;
		world.spins += n > 0 || timeout == 0;
	}
	world.moved = 0;
	if (world.spins > SPINS)
		die("spins");
	if (n == 0 && timeout != 0 &&
	    world.quiet > QUIET_TURNS + (world.tcp ? MOMENTS : 0))
		pass_time(timeout);
	return n;
}

#ifdef POLLER_POLL
static int
fake_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *ts,
    const sigset_t *mask)
{
	struct timespec real = { .tv_nsec = moment() * 1000000L };

	return turned(ppoll(fds, n, &real, mask), ts == NULL ? -1 :
	    (int)(ts->tv_sec * 1000 + ts->tv_nsec / 1000000));
}

static void *
fake_realloc(void *p, size_t size)
{
	if (world.watch_fails > 0) {
		world.watch_fails--;
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, size);
}
#else
static int
fake_epoll_pwait(int fd, struct epoll_event *ev, int max, int timeout,
    const sigset_t *mask)
{
	return turned(epoll_pwait(fd, ev, max, moment(), mask), timeout);
}

static int
fake_epoll_ctl(int fd, int op, int what, struct epoll_event *ev)
{
	if (world.watch_fails > 0 && op != EPOLL_CTL_DEL) {
		world.watch_fails--;
		errno = ENOMEM;
		return -1;
	}
	return epoll_ctl(fd, op, what, ev);
}
#endif

#define clock_gettime	fake_clock_gettime
#define recv		fake_recv
#define send		fake_send
#define accept4		fake_accept4
#define malloc		fake_malloc
#define calloc		fake_calloc
#ifdef POLLER_POLL
#define ppoll		fake_ppoll
#define realloc		fake_realloc
#else
#define epoll_pwait	fake_epoll_pwait
#define epoll_ctl	fake_epoll_ctl
#endif

#include "../../forward.c"
#include "../../lib/poller.c"
#include "../../lib/stream.c"
#include "../../lib/util.c"

#undef clock_gettime
#undef recv
#undef send
#undef accept4
#undef malloc
#undef calloc
#undef ppoll
#undef realloc
#undef epoll_pwait
#undef epoll_ctl

#include "sockets.h"
#include "usr1.h"

static int
count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	CHECK(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/*
 * Data of peers: endless random bytes without MARK, which is an end of stream
 * in band, as close_notify is in TLS.
 */
#define MARK	0xff
#define PERIOD	65521

static unsigned char noise[PERIOD + FILL_SIZE];

static void
noise_init(void)
{
	size_t i;

	world_reset(1);
	for (i = 0; i < PERIOD; i++)
		noise[i] = (unsigned char)rnd(MARK);
	for (; i < sizeof(noise); i++)
		noise[i] = noise[i - PERIOD];
}

static const unsigned char *
noise_at(size_t key, size_t off)
{
	return noise + (key + off) % PERIOD;
}

/*
 * Peers: the applications at the far ends, run by woken().
 */

enum manner {
	POLITE,		/* sends, ends in order, reads to the end */
	SHORT,		/* shutdown(2) without MARK: a truncation */
	CUTS,		/* closes with unread data */
	RESETS,		/* closes with RST, on TCP */
	STALLS,		/* stops sending and reading */
	MANNERS
};

struct peer {
	int	 fd;
	int	 in_band;	/* ends with MARK; otherwise shutdown(2) */
	enum manner manner;
	size_t	 at;		/* misbehaves after so many bytes */
	size_t	 total;
	size_t	 sent, got;
	size_t	 wait;		/* waits for so many bytes before sending */
	size_t	 chunk;		/* bytes per call, at most */
	size_t	 key;		/* of its random data */
	int	 said;		/* has sent its end */
	int	 unheard;	/* could not send: must not read END */
	int	 stalled;
	enum { NOTHING, END, CUT } heard;
	const struct peer *other;
};

static void
peer_close(struct peer *p)
{
	close(p->fd);
	p->fd = -1;
	world.moved = 1;
}

static void
peer_recv(struct peer *p)
{
	unsigned char buf[8192];
	size_t max = p->chunk < sizeof(buf) ? p->chunk : sizeof(buf), len;
	ssize_t n = recv(p->fd, buf, 1 + rnd(max), MSG_DONTWAIT);

	if (n == -1 && errno == EAGAIN)
		return;
	world.moved = 1;
	if (n <= 0) {
		if (p->heard == NOTHING)
			p->heard = n == 0 && !p->in_band && !p->unheard ? END :
			    CUT;
		return;
	}
	CHECK(p->heard == NOTHING);
	len = (size_t)n;
	if (p->in_band && buf[len - 1] == MARK) {
		len--;
		p->heard = END;
	}
	CHECK(p->got + len <= p->other->sent);
	CHECK(memcmp(buf, noise_at(p->other->key, p->got), len) == 0);
	p->got += len;
}

static void
peer_send(struct peer *p)
{
	size_t left = p->total - p->sent;
	size_t len = 1 + rnd(left < p->chunk ? left : p->chunk);
	ssize_t n;

	if (p->got < p->wait && p->heard == NOTHING)
		return;
	if (len > FILL_SIZE)
		len = FILL_SIZE;
	n = send(p->fd, noise_at(p->key, p->sent), len,
	    MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n == -1 && errno == EAGAIN)
		return;
	world.moved = 1;
	if (n == -1) {
		p->unheard = p->said = 1;
		return;
	}
	p->sent += (size_t)n;
}

static void
peer_end(struct peer *p)
{
	static const unsigned char mark = MARK;

	if (p->got < p->wait && p->heard == NOTHING)
		return;
	if (p->in_band) {
		if (send(p->fd, &mark, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 &&
		    errno == EAGAIN)
			return;
	}
	/* After MARK, the FIN may come at once, later, or never. */
	if (!p->in_band || rnd(2) == 0)
		shutdown(p->fd, SHUT_WR);
	p->said = 1;
	world.moved = 1;
}

static void
peer_misbehave(struct peer *p)
{
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };

	world.moved = 1;
	switch (p->manner) {
	case SHORT:
		if (!p->said)
			shutdown(p->fd, SHUT_WR);
		p->said = 1;
		break;
	case STALLS:
		p->stalled = 1;
		break;
	case RESETS:
		setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
		peer_close(p);
		break;
	default:
		peer_close(p);
		break;
	}
}

static void
peer_step(struct peer *p)
{
	if (p->fd == -1 || p->stalled)
		return;
	if (world.quiet < EAGER && rnd(3) == 0)
		return;
	if (p->manner != POLITE && p->sent >= p->at && !p->said) {
		peer_misbehave(p);
		if (p->fd == -1 || p->stalled)
			return;
	}
	if (p->heard == NOTHING)
		peer_recv(p);
	if (!p->said && p->heard != CUT) {
		if (p->sent < p->total)
			peer_send(p);
		else
			peer_end(p);
	}
	if (p->heard == CUT || (p->heard == END && p->said && rnd(2) == 0))
		peer_close(p);
}

/* The engine has closed its end: read the remaining data. */
static void
peer_drain(struct peer *p)
{
	while (p->fd != -1 && p->heard == NOTHING) {
		CHECK(is_ready(p->fd, POLLIN, 1000));
		peer_recv(p);
	}
	if (p->fd != -1)
		peer_close(p);
}

/*
 * Fake streams around the plain one: the same bytes, with injected faults.
 */

enum { OPEN_OP, READ_OP, WRITE_OP, FINISH_OP, OPS };

enum fault { NO_FAULT, AT_OPEN, AT_READ, AT_WRITE, AT_FINISH, HANGS, FAULTS };

#define DIALS	4

struct link;

struct fake {
	struct link *link;
	int	 side;
	int	 in_band;
	int	 cant_refuse;	/* without refuse(): errors abort it */
	int	 secures;	/* needs a handshake after the connection */
	/* Its behaviour. */
	size_t	 want;		/* calls per STREAM_WANT_*; 0: none */
	size_t	 cut;		/* one call in so many is short */
	size_t	 ahead;		/* reads up to so many bytes ahead; 0: none */
	size_t	 write_max;		/* its write_size; 0: any */
	enum fault fault;
	int	 result;	/* the result of its fault, */
	size_t	 at;		/* after so many bytes */
	/* Its state. */
	ssize_t	 waiting[OPS];	/* STREAM_WANT_* of the last call; or 0 */
	size_t	 given;		/* bytes returned by read */
	size_t	 taken;		/* bytes accepted by write */
	size_t	 retry;		/* minimum length for the next write */
	int	 opened, at_end, finished, refused, aborted, injected, told;
	int	 connected;
	int	 failed, read_failed;
	int	 end_held;
	size_t	 off, len;
	unsigned char buffered[4096];
};

/* A connection with its streams and peers. */
struct link {
	struct peer peers[SIDES];
	struct fake fakes[SIDES];
	int	 near;		/* the client's socket, until accepted */
	int	 tcp;
	int	 polite;	/* no faults in this run */
	int	 dials;
	int	 bad_dials;	/* failing backends before one opens */
	int	 no_backend;	/* no backend opens */
	int	 may_hang;	/* failing backends may never answer */
	int	 hung;		/* the last backend never answers */
	int	 spare[DIALS];	/* the far ends of failing backends */
	enum fault fault;	/* for the backend that opens */
	int	 result;
	int	 failed;	/* the first failure: 0, or a stream_result */
	int	 failed_side;
	int	 failures;	/* number of failed sides */
	int	 opened, closed, served;
	uint64_t in, out;
	char	 reason[REASON_SIZE], why[REASON_SIZE];
};

static struct {
	struct link links[3];
	int	 n, drained;
	int64_t	 drain_ms;
	struct forward *f;
	long	 ops, useful;	/* calls of fakes, those with progress */
} sim;

/*
 * Return a random WANT, or 0.  STREAM_WANT_READ is allowed only if the
 * descriptor is readable, or will certainly be.
 */
static int
inject(struct fake *k, int op, int fd)
{
	int r = 0;

	sim.ops++;
	if (k->want != 0 && rnd(k->want) == 0) {
		r = rnd(2) == 0 ? STREAM_WANT_READ : STREAM_WANT_WRITE;
		if (r == STREAM_WANT_READ && !is_ready(fd, POLLIN, 0))
			r = STREAM_WANT_WRITE;
		world.moved = 1;
		sim.useful++;
	}
	k->waiting[op] = r;
	return r;
}

/*
 * A side fails.  After this, the engine may only read from it, write to the
 * other side, and then abort both.
 */
static int
failed(struct fake *k, int result, int injected)
{
	struct link *l = k->link;

	/* Without an injected fault, only a reset can happen here. */
	CHECK(injected || result == STREAM_RESET || result == STREAM_TRUNCATED);
	if (l->failed == 0) {
		l->failed = result;
		l->failed_side = k->side;
	}
	k->injected |= injected;
	l->failures += !k->failed;
	k->failed = 1;
	world.moved = 1;
	sim.useful++;
	return result;
}

static int
due(const struct fake *k, enum fault fault, size_t bytes)
{
	return k->fault == fault && bytes >= k->at;
}

/* Handle a result of the real stream that moves no bytes. */
static ssize_t
outcome(struct fake *k, int op, ssize_t n)
{
	if (n == STREAM_WANT_READ || n == STREAM_WANT_WRITE)
		k->waiting[op] = n;
	else if (n < 0)
		return failed(k, (int)n, 0);
	else {
		world.moved = 1;
		sim.useful++;
	}
	return n;
}

static struct fake *
fake_of(const struct stream *s)
{
	struct fake *k = s->ctx;

	CHECK(s->fd != -1);
	CHECK(k->link->failures < 2);
	CHECK(!k->link->closed);
	return k;
}

static int
sim_open(struct stream *s)
{
	struct fake *k = fake_of(s);
	unsigned char ignored[512];
	int r;

	CHECK(!k->opened);
	if (k->secures && !k->connected) {
		if ((r = stream_plain.open(s)) != 0)
			return (int)outcome(k, OPEN_OP, r);
		k->connected = world.moved = 1;
		return STREAM_CONNECTED;
	}
	if (k->fault == HANGS) {
		sim.ops++;
		r = (int)stream_plain.read(s, ignored, sizeof(ignored));
		if (r == 0)
			return failed(k, STREAM_TRUNCATED, 0);
		if (r > 0) {
			world.moved = 1;
			sim.useful++;
			return STREAM_WANT_READ;
		}
		return (int)outcome(k, OPEN_OP, r);
	}
	if ((r = inject(k, OPEN_OP, s->fd)) != 0)
		return r;
	if (k->fault == AT_OPEN && k->side == BACKEND) {
		k->injected = world.moved = 1;
		return k->result;
	}
	if (k->fault == AT_OPEN)
		return failed(k, k->result, 1);
	/* The fake handshake needs no bytes. */
	if (k->side == BACKEND && !k->secures)
		r = stream_plain.open(s);
	if ((r = (int)outcome(k, OPEN_OP, r)) == 0)
		k->opened = 1;
	return r;
}

/* Read from the socket to buf, or to the buffer.  0 if there is data. */
static ssize_t
read_more(struct fake *k, struct stream *s, unsigned char *buf, size_t len,
    size_t *got)
{
	ssize_t n;

	*got = 0;
	if (k->end_held)
		return 0;
	/* Do not consume the readiness that write or finish waits for. */
	if (k->waiting[WRITE_OP] == STREAM_WANT_READ ||
	    k->waiting[FINISH_OP] == STREAM_WANT_READ)
		return STREAM_WANT_READ;
	n = stream_plain.read(s, buf, len);
	k->read_failed = n == STREAM_RESET || (n == 0 && k->in_band);
	if (n < 0)
		return outcome(k, READ_OP, n);
	if (n == 0 && k->in_band)
		return failed(k, STREAM_TRUNCATED, 0);
	*got = (size_t)n;
	if (n == 0)
		k->end_held = 1;
	else if (k->in_band && buf[n - 1] == MARK) {
		k->end_held = 1;
		--*got;
	}
	return 0;
}

static size_t
shorten(const struct fake *k, size_t len, enum fault fault, size_t done)
{
	if (k->cut != 0 && rnd(k->cut) == 0)
		len = 1 + rnd(len);
	if (k->fault == fault && k->at > done && len > k->at - done)
		len = k->at - done;
	return len;
}

static ssize_t
sim_read(struct stream *s, void *buf, size_t len)
{
	struct fake *k = fake_of(s);
	ssize_t r;
	size_t n;

	CHECK(k->opened && !k->at_end && !k->read_failed);
	CHECK(k->link->failed == 0 || k->failed);
	CHECK(k->link->fakes[!k->side].taken == k->given);
	if ((r = inject(k, READ_OP, s->fd)) != 0)
		return r;
	if (due(k, AT_READ, k->given)) {
		k->read_failed = 1;
		return failed(k, k->result, 1);
	}
	len = shorten(k, len, AT_READ, k->given);
	if (k->ahead == 0 && k->len == 0) {
		if ((r = read_more(k, s, buf, len, &n)) != 0)
			return r;
	} else {
		if (k->len == 0) {
			k->off = 0;
			if ((r = read_more(k, s, k->buffered, k->ahead,
			    &k->len)) != 0)
				return r;
		}
		n = len < k->len ? len : k->len;
		memcpy(buf, k->buffered + k->off, n);
		k->off += n;
		k->len -= n;
	}
	k->given += n;
	k->at_end = n == 0;
	return outcome(k, READ_OP, (ssize_t)n);
}

static ssize_t
sim_write(struct stream *s, const void *buf, size_t len)
{
	struct fake *k = fake_of(s), *from = &k->link->fakes[!k->side];
	ssize_t n;
	size_t key = k->link->peers[!k->side].key;

	CHECK(k->opened && !k->finished && !k->failed);
	CHECK(len > 0 && len >= k->retry);
	CHECK(k->write_max == 0 || len <= k->write_max);
	CHECK(k->taken + len == from->given);
	CHECK(memcmp(buf, noise_at(key, k->taken), len) == 0);
	k->retry = len;
	if ((n = inject(k, WRITE_OP, s->fd)) != 0)
		return n;
	if (due(k, AT_WRITE, k->taken))
		return failed(k, k->result, 1);
	n = stream_plain.write(s, buf, shorten(k, len, AT_WRITE, k->taken));
	if (n > 0) {
		k->retry = 0;
		k->taken += (size_t)n;
	}
	return outcome(k, WRITE_OP, n);
}

/* Send the alert to a refused or failed side, in place of an end. */
static int
sim_send_alert(struct stream *s)
{
	struct fake *k = s->ctx;

	CHECK(s->fd != -1 && !k->cant_refuse && !k->link->closed);
	CHECK(!k->told && !k->finished);
	world.moved = 1;
	if (k->want != 0 && rnd(k->want) == 0)
		return STREAM_WANT_WRITE;
	k->told = 1;
	return stream_plain.finish(s);
}

static int
sim_finish(struct stream *s)
{
	static const unsigned char mark = MARK;
	struct fake *k = s->ctx, *from = &k->link->fakes[!k->side];
	ssize_t n;

	if (k->refused || k->injected)
		return sim_send_alert(s);
	fake_of(s);
	CHECK(k->opened && !k->finished && !k->failed);
	CHECK(from->at_end && k->taken == from->given);
	if ((n = inject(k, FINISH_OP, s->fd)) != 0)
		return (int)n;
	if (k->fault == AT_FINISH)
		return failed(k, k->result, 1);
	if (k->in_band)
		n = stream_plain.write(s, &mark, 1);
	else
		n = stream_plain.finish(s);
	if (n >= 0)
		k->finished = 1;
	n = outcome(k, FINISH_OP, n);
	return n > 0 ? 0 : (int)n;
}

static void
sim_refuse(struct stream *s)
{
	struct fake *k = fake_of(s);

	CHECK(k->side == CLIENT && k->opened);
	k->refused++;
	world.moved = 1;
}

static void
sim_abort(struct stream *s)
{
	struct fake *k = s->ctx;

	CHECK(s->fd != -1 && !k->link->closed);
	k->aborted++;
	world.moved = 1;
	stream_plain.abort(s);
}

static int
sim_pending(const struct stream *s)
{
	const struct fake *k = s->ctx;

	return k->waiting[READ_OP] == 0 && !k->at_end &&
	    (k->len > 0 || k->end_held);
}

static const char *
sim_error(const struct stream *s)
{
	const struct fake *k = s->ctx;

	return k->injected ? "injected" : stream_plain.error(s);
}

static int
sim_failed(struct stream *s)
{
	int r = stream_plain.failed(s);

	return r != 0 ? failed(s->ctx, r, 0) : 0;
}

/* With TCP_QUICKACK, the kernel acknowledges without delay. */
static int
sim_flushed(const struct stream *s)
{
	const struct fake *k = s->ctx;
	int i, on = 1, fd = k->link->peers[k->side].fd;

	for (i = 0; i < MOMENTS && !stream_plain.flushed(s); i++) {
		setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
		poll(NULL, 0, i > 0);
	}
	return stream_plain.flushed(s);
}

#define SIM_OPS(how) {							\
	.open = sim_open,						\
	.read = sim_read,						\
	.write = sim_write,						\
	.finish = sim_finish,						\
	.refuse = how,							\
	.failed = sim_failed,						\
	.abort = sim_abort,						\
	.flushed = sim_flushed,						\
	.pending = sim_pending,						\
	.error = sim_error,						\
}

/* Index: cant_refuse. */
static const struct stream_ops sim_ops[2] = {
	SIM_OPS(sim_refuse), SIM_OPS(NULL)
};

/* Callbacks for the engine. */

/* A pair of sockets; with small buffers, writes get stuck. */
static void
link_pair(const struct link *l, int fds[2])
{
	int i, size = 1 << rnd(16);

	if (l->tcp) {
		tcp_pair(fds);
		return;
	}
	unix_pair(fds);
	for (i = 0; i < 2 && rnd(2) == 0; i++)
		setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void *
sim_accepted(void *arg, int fd, const struct sockaddr *addr, socklen_t len,
    struct stream *client)
{
	struct link *l = NULL;
	int i;

	(void)arg;
	CHECK(addr == NULL && len == 0);
	for (i = 0; i < sim.n; i++)
		if (sim.links[i].near == fd)
			l = &sim.links[i];
	CHECK(l != NULL);
	client->ops = &sim_ops[l->fakes[CLIENT].cant_refuse];
	client->ctx = &l->fakes[CLIENT];
	client->write_size = l->fakes[CLIENT].write_max;
	world.moved = 1;
	return l;
}

static int
sim_dial(void *conn, struct stream *backend, const char *failure,
    const char **why)
{
	struct link *l = conn;
	struct fake *k = &l->fakes[BACKEND];
	int fds[2], bad = l->dials < l->bad_dials;

	world.moved = 1;
	CHECK(!l->closed && l->failed == 0 && l->fakes[CLIENT].opened);
	CHECK((failure == NULL) == (l->dials == 0));
	if (failure != NULL)
		CHECK(strcmp(failure, !l->hung ? "injected" : k->secures ?
		    "handshake timeout" : "connect timeout") == 0);
	if (!bad && l->no_backend) {
		snprintf(l->why, sizeof(l->why), "%d failed", l->dials);
		*why = l->why;
		return -1;
	}
	link_pair(l, fds);
	backend->ops = &sim_ops[k->cant_refuse];
	backend->ctx = k;
	backend->write_size = k->write_max;
	backend->fd = fds[0];
	k->injected = k->connected = 0;
	memset(k->waiting, 0, sizeof(k->waiting));
	l->hung = bad && l->may_hang && rnd(2) == 0;
	if (bad) {
		k->fault = l->hung ? HANGS : AT_OPEN;
		k->result = STREAM_ERROR;
		l->spare[l->dials] = fds[1];
	} else {
		k->fault = l->fault;
		k->result = l->result;
		l->peers[BACKEND].fd = fds[1];
	}
	l->dials++;
	return 0;
}

static void
sim_opened(void *conn)
{
	struct link *l = conn;

	CHECK(l->fakes[CLIENT].opened && l->fakes[BACKEND].opened);
	l->opened++;
}

static void
sim_closed(void *conn, const struct forward_end *end)
{
	struct link *l = conn;

	l->closed++;
	l->served = end->served;
	l->in = end->in;
	l->out = end->out;
	snprintf(l->reason, sizeof(l->reason), "%s", end->reason);
	world.moved = 1;
}

static void
sim_accept_paused(void *arg, int error)
{
	(void)arg;
	die("accept_paused: %s", strerror(error));
}

/* In each turn, let the peers act. */
static void
sim_woken(void *arg)
{
	int i, next = 0;

	(void)arg;
	world.now += rnd(4) == 0;
	while (next < sim.n && sim.links[next].near == -1)
		next++;
	if (next < sim.n) {
		/* Drain only after all connections are accepted. */
		world.moved = 1;
		if (rnd(4) == 0) {
			CHECK(forward_add(sim.f, sim.links[next].near, NULL,
			    0) == 0);
			sim.links[next].near = -1;
		}
	} else if (!sim.drained) {
		forward_drain(sim.f, sim.drain_ms, "drain timeout");
		sim.drained = 1;
	}
	for (i = 0; i < sim.n; i++) {
		peer_step(&sim.links[i].peers[CLIENT]);
		if (sim.links[i].fakes[BACKEND].opened)
			peer_step(&sim.links[i].peers[BACKEND]);
	}
}
static const struct forward_calls sim_calls = {
	.accepted = sim_accepted,
	.dial = sim_dial,
	.opened = sim_opened,
	.closed = sim_closed,
	.woken = sim_woken,
	.accept_paused = sim_accept_paused,
};

/* Choose the parameters of a run. */

static size_t
some_size(int tcp)
{
	switch (rnd(8)) {
	case 0:
		return 0;
	case 1:
		return 1 + rnd(3);
	case 2:
		return rnd(30000);
	case 3:
		if (tcp)	/* a closed window needs real time */
			return rnd(30000);
		return rnd(rnd(16) == 0 ? 600000 : 100000);
	default:
		return rnd(2000);
	}
}

static void
plan_peers(struct link *l)
{
	struct peer *p;
	size_t most = 0;
	int side;

	for (side = 0; side < SIDES; side++) {
		p = &l->peers[side];
		p->fd = -1;
		p->other = &l->peers[!side];
		p->in_band = rnd(side == CLIENT ? 2 : 4) == 0;
		p->key = rnd(PERIOD);
		p->total = some_size(l->tcp);
		most = p->total > most ? p->total : most;
	}
	for (side = 0; side < SIDES; side++)
		l->peers[side].chunk = 1 + most / 32 +
		    rnd((size_t)1 << rnd(13));
	/* At most one peer waits, for some bytes or for the end. */
	if (rnd(3) == 0) {
		p = &l->peers[rnd(SIDES)];
		p->wait = rnd(2) == 0 ? SIZE_MAX : rnd(p->other->total + 1);
	}
}

static void
plan_fakes(struct link *l)
{
	struct fake *k;
	int side;

	for (side = 0; side < SIDES; side++) {
		k = &l->fakes[side];
		k->link = l;
		k->side = side;
		k->in_band = l->peers[side].in_band;
		k->cant_refuse = rnd(side == CLIENT ? 3 : 2) == 0;
		k->secures = side == BACKEND && rnd(3) == 0;
		k->want = rnd(2) * (2 + rnd(20));
		k->cut = rnd(2) * (1 + rnd(8));
		if (rnd(2) == 0)
			k->ahead = 1 + l->peers[side].total / 64 + rnd(4096);
		if (k->ahead > sizeof(k->buffered))
			k->ahead = sizeof(k->buffered);
		k->write_max = rnd(2) * (1 + rnd(20000));
	}
}

static void
plan_fault(struct link *l, int side)
{
	struct fake *k = &l->fakes[side];
	size_t reads = l->peers[side].total, writes = l->peers[!side].total;

	k->fault = (enum fault)rnd(FAULTS);
	if (k->fault == HANGS && (l->tcp || side == BACKEND))
		k->fault = NO_FAULT;
	if (k->fault == AT_OPEN && side == BACKEND)
		k->fault = NO_FAULT;
	k->at = rnd((k->fault == AT_READ ? reads : writes) + 1);
	k->result = rnd(2) == 0 ? STREAM_RESET : STREAM_ERROR;
	if (k->fault <= AT_READ && rnd(3) == 0)
		k->result = STREAM_TRUNCATED;
	if (side == BACKEND) {
		l->fault = k->fault;
		l->result = k->result;
	}
}

static void
plan_trouble(struct link *l)
{
	int side;

	for (side = 0; side < SIDES; side++) {
		struct peer *p = &l->peers[side];

		if (rnd(3) == 0)
			plan_fault(l, side);
		if (rnd(2) == 0)
			continue;
		p->manner = (enum manner)rnd(MANNERS);
		if ((p->manner == SHORT && !p->in_band) ||
		    (p->manner == STALLS && l->tcp))
			p->manner = POLITE;
		p->at = rnd(3) == 0 ? p->total : rnd(p->total + 1);
	}
	l->no_backend = rnd(10) == 0;
}

static void
plan_link(struct link *l, int polite, int dials_end, int tcp)
{
	int fds[2], i;

	l->tcp = tcp;
	l->polite = polite;
	for (i = 0; i < DIALS; i++)
		l->spare[i] = -1;
	plan_peers(l);
	plan_fakes(l);
	if (!polite)
		plan_trouble(l);
	if (rnd(4) == 0)
		l->bad_dials = 1 + (int)rnd(DIALS);
	l->may_hang = dials_end && !l->tcp;
	link_pair(l, fds);
	l->near = fds[0];
	l->peers[CLIENT].fd = fds[1];
}

static int64_t
some_time(int needed)
{
	return needed || rnd(2) == 0 ? 100 + (int64_t)rnd(200) : 0;
}

/* A polite run must end well, with any time limits. */
static void
plan(struct forward_params *p)
{
	int i, polite = rnd(2) == 0, timed = !polite && rnd(4) != 0;

	memset(&sim, 0, sizeof(sim));
	world.tcp = rnd(8) == 0;
	world.eintr = rnd(3) == 0 ? 2 + (unsigned)rnd(10) : 0;
	*p = (struct forward_params){
		.calls = &sim_calls,
		.max_connections = 10,
		.open_ms = some_time(timed),
		.dial_ms = some_time(timed),
		.idle_ms = some_time(timed),
		.half_close_ms = some_time(timed),
	};
	if (!polite && !timed)
		sim.drain_ms = 500 + (int64_t)rnd(1000);
	if (!polite && rnd(8) == 0)
		world.malloc_in = 1 + (int)rnd(3);
	sim.n = rnd(4) == 0 ? 2 + (int)rnd(2) : 1;
	for (i = 0; i < sim.n; i++)
		plan_link(&sim.links[i], polite, p->dial_ms != 0 &&
		    p->open_ms != 0, world.tcp);
}

/* Checks after a run. */

static int
has(const struct link *l, enum manner manner)
{
	return l->peers[CLIENT].manner == manner ||
	    l->peers[BACKEND].manner == manner;
}

static void
check_clean(const struct link *l)
{
	int side;

	CHECK(l->failed == 0);
	for (side = 0; side < SIDES; side++) {
		const struct fake *k = &l->fakes[side];
		const struct peer *to = &l->peers[side];
		const struct peer *from = &l->peers[!side];

		CHECK(k->at_end && k->finished && !k->aborted && !k->refused);
		CHECK(k->taken == from->sent);
		if (from->manner == POLITE)
			CHECK(from->sent == from->total);
		if (to->manner == POLITE)
			CHECK(to->got == from->sent && to->heard == END);
	}
}

/* A failed side gets an alert, if it supports that; the other an abort. */
static void
check_failed(const struct link *l)
{
	const struct fake *k = &l->fakes[l->failed_side];
	const struct fake *other = &l->fakes[!l->failed_side];
	int side, is_told = l->failed == STREAM_ERROR && !k->cant_refuse;

	for (side = 0; side < SIDES && l->failures == 2; side++)
		CHECK(l->fakes[side].aborted || (l->fakes[side].failed &&
		    !l->fakes[side].cant_refuse));
	if (l->failures == 2)
		return;
	CHECK(other->aborted || l->dials == 0);
	if (is_told) {
		CHECK(k->told || k->finished || has(l, STALLS) ||
		    sim.drain_ms != 0);
		CHECK(!k->aborted || sim.drain_ms != 0 ||
		    world.malloc_failed);
	} else
		CHECK(k->aborted);
}

/* All opened sides were aborted, except for some reasons. */
static void
check_aborts(const struct link *l)
{
	const struct fake *client = &l->fakes[CLIENT];
	const struct fake *backend = &l->fakes[BACKEND];
	const char *why = l->reason;
	int dialed = l->dials > 0;

	if (strcmp(why, "handshake timeout") == 0) {
		CHECK(!client->aborted && !dialed);
	} else if (strncmp(why, "no backend: ", 12) == 0) {
		CHECK(client->refused == !client->cant_refuse);
		CHECK(!backend->aborted);
		CHECK(client->told || client->cant_refuse || sim.drain_ms != 0);
		CHECK(client->aborted == client->cant_refuse ||
		    sim.drain_ms != 0);
	} else if (l->failed != 0) {
		check_failed(l);
	} else if (strcmp(why, "half-close timeout") == 0) {
		CHECK(!client->finished == !!client->aborted);
		CHECK(!backend->finished == !!backend->aborted);
	} else {
		CHECK(client->aborted);
		CHECK(!dialed || backend->aborted);
	}
	CHECK(!client->refused || strncmp(why, "no backend: ", 12) == 0);
	CHECK(!backend->refused);
}

/* Data read from the failed side has reached the other one. */
static void
check_early_answer(const struct link *l)
{
	const struct fake *from = &l->fakes[l->failed_side];
	const struct fake *to = &l->fakes[!l->failed_side];
	const struct peer *peer = &l->peers[!l->failed_side];

	if (l->failures != 1 || !l->served || peer->manner != POLITE ||
	    sim.drain_ms != 0 || world.malloc_failed)
		return;
	CHECK(to->taken == from->given);
	CHECK(peer->got == to->taken);
}

/* The reason must name a cause that exists. */
static void
check_reason(const struct link *l)
{
	const char *who = l->failed_side == CLIENT ? "client" : "backend";
	const char *why = l->reason;
	char text[REASON_SIZE];
	int side;

	if (l->failed != 0) {
		if (l->failed == STREAM_TRUNCATED)
			snprintf(text, sizeof(text), "truncated");
		else if (l->failed == STREAM_RESET)
			snprintf(text, sizeof(text), "%s reset", who);
		else
			snprintf(text, sizeof(text), "%sinjected",
			    l->failed_side == BACKEND ? "backend: " :
			    l->served && l->fakes[CLIENT].cant_refuse ?
			    "client: " : "");
		if (strcmp(why, text) != 0)
			die("reason: %s, not %s", why, text);
		return;
	}
	snprintf(text, sizeof(text), "no backend: %s", l->why);
	side = strcmp(why, "backend reset") == 0 ? BACKEND : CLIENT;
	if (side == BACKEND || strcmp(why, "client reset") == 0)
		CHECK(l->peers[side].manner == CUTS ||
		    l->peers[side].manner == RESETS);
	else if (strcmp(why, "idle timeout") == 0 ||
	    strcmp(why, "half-close timeout") == 0)
		CHECK(has(l, STALLS));
	else if (strcmp(why, "handshake timeout") == 0)
		CHECK(l->fakes[CLIENT].fault == HANGS);
	else if (strcmp(why, "out of memory") == 0)
		CHECK(world.malloc_failed);
	else if (strcmp(why, "drain timeout") == 0)
		CHECK(sim.drain_ms != 0);
	else if (!l->no_backend || strcmp(why, text) != 0)
		die("reason: %s", why);
}

static void
check_link(struct link *l)
{
	int i, side;

	CHECK(l->closed == 1);
	CHECK(l->in == l->fakes[BACKEND].taken);
	CHECK(l->out == l->fakes[CLIENT].taken);
	CHECK(l->served == l->fakes[BACKEND].opened);
	CHECK(l->opened == l->served);
	for (side = 0; side < SIDES; side++)
		peer_drain(&l->peers[side]);
	for (i = 0; i < DIALS; i++)
		if (l->spare[i] != -1)
			close(l->spare[i]);
	if (l->polite && l->no_backend == 0 && strcmp(l->reason, "closed") != 0)
		die("reason: %s, and no cause", l->reason);
	if (strcmp(l->reason, "closed") == 0)
		check_clean(l);
	else {
		check_reason(l);
		check_aborts(l);
		check_early_answer(l);
	}
	for (side = 0; side < SIDES; side++) {
		const struct fake *k = &l->fakes[side];

		/* A peer that has read an end was sent one, and no abort. */
		if (l->peers[side].heard == END && (k->in_band ||
		    (l->tcp && k->aborted)))
			CHECK(k->finished || (k->told && !k->in_band));
	}
}

/* Reasons that must occur in some thousand runs. */
static struct {
	const char *reason;
	long	 seen;
} reasons[] = {
	{ "closed", 0 }, { "truncated", 0 }, { "client reset", 0 },
	{ "backend reset", 0 }, { "injected", 0 }, { "backend: injected", 0 },
	{ "client: injected", 0 },
	{ "idle timeout", 0 }, { "half-close timeout", 0 }, { "drain timeout",
	    0 },
	{ "handshake timeout", 0 }, { "out of memory", 0 },
	{ "no backend: 0 failed", 0 }, { "no backend: 4 failed", 0 },
};

#define REASONS	(sizeof(reasons) / sizeof(reasons[0]))

static void
count_reason(const char *reason)
{
	size_t i;

	for (i = 0; i < REASONS; i++)
		reasons[i].seen += strcmp(reasons[i].reason, reason) == 0;
}

static void
run_seed(uint64_t seed)
{
	struct forward_params params;
	int i, fds;

	world_reset(seed);
	alarm(ALARM);
	fds = count_fds();
	plan(&params);
	sim.f = forward_new(&params);
	CHECK(sim.f != NULL);
	CHECK(forward_run(sim.f, NULL) == 0);
	forward_free(sim.f);
	for (i = 0; i < sim.n; i++) {
		check_link(&sim.links[i]);
		count_reason(sim.links[i].reason);
	}
	CHECK(sim.ops <= 3 * sim.useful + 64);
	CHECK(count_fds() == fds);
}

static unsigned long
setting(const char *name, unsigned long fallback)
{
	const char *text = getenv(name);

	return text != NULL ? strtoul(text, NULL, 10) : fallback;
}

static void
test_seeds(void **state)
{
	unsigned long i, n = setting("FORWARD_RUNS", 20000);
	unsigned long first = setting("FORWARD_SEED", 1);
	long turns = 0;

	(void)state;
	for (i = 0; i < n; i++) {
		run_seed(first + i);
		turns += world.turns;
	}
	alarm(0);
	print_message("%lu runs from seed %lu, %ld turns:", n, first, turns);
	for (i = 0; i < REASONS; i++)
		print_message(" %ld %s%s", reasons[i].seen, reasons[i].reason,
		    i + 1 < REASONS ? "," : "\n");
	for (i = 0; i < REASONS && n >= 5000; i++)
		assert_true(reasons[i].seen > 0);
}

/* Reached only by an endless loop in the engine. */
static void
on_alarm(int sig)
{
	static const char text[] = "it hangs; FORWARD_SEED=";
	char digits[24];
	size_t i = sizeof(digits);
	uint64_t seed = world.seed;

	(void)sig;
	digits[--i] = '\n';
	do {
		digits[--i] = (char)('0' + seed % 10);
		seed /= 10;
	} while (seed != 0);
	if (write(STDERR_FILENO, text, sizeof(text) - 1) == -1 ||
	    write(STDERR_FILENO, digits + i, sizeof(digits) - i) == -1)
		_exit(2);
	_exit(1);
}

/*
 * Single cases: a bench with one engine, plain streams with operations that a
 * test may replace, and a step that is run by woken().
 */

#define BACKENDS	8

static struct {
	struct forward *f;
	struct stream_ops ops[SIDES];
	int	 client;	/* far end of the client of bench_add() */
	int	 backends[BACKENDS];
	int	 tcp;
	int	 max_dials;	/* then no backend is left */
	int	 refused_port;	/* the first dial has no listener */
	int	 turn_away;
	void	 (*step)(void);
	int	 stage;
	int64_t	 began;
	int	 accepted, dials, opened, closed, refused, served, dropped;
	int	 reads;
	int	 aborts[SIDES], finishes[SIDES];
	int	 accept_paused, pause_error;
	int64_t	 others_have_room;	/* full() returns 0 until then (ms) */
	uint64_t in, out;
	int64_t	 ms;
	char	 failures[BACKENDS][64];
	char	 reason[REASON_SIZE];
} bench;

static int sides[SIDES] = { CLIENT, BACKEND };

static char went[64];		/* log: a: accepted; h: a step of a handshake */

static void
it_goes(char what)
{
	size_t len = strlen(went);

	if (len < sizeof(went) - 1)
		went[len] = what;
}

static void
bench_abort(struct stream *s)
{
	bench.aborts[*(int *)s->ctx]++;
	stream_reset(s);
}

static void
bench_refuse(struct stream *s)
{
	assert_int_equal(*(int *)s->ctx, CLIENT);
	bench.refused++;
}

static int
bench_finish(struct stream *s)
{
	bench.finishes[*(int *)s->ctx]++;
	return stream_plain.finish(s);
}

static void *
bench_accepted(void *arg, int fd, const struct sockaddr *addr, socklen_t len,
    struct stream *client)
{
	assert_ptr_equal(arg, &bench);
	assert_true(fd != -1 && client->fd == -1);
	assert_true(len == 0 || addr->sa_family == AF_INET);
	if (bench.turn_away)
		return NULL;
	bench.accepted++;
	it_goes('a');
	world.moved = 1;
	client->ops = &bench.ops[CLIENT];
	client->ctx = &sides[CLIENT];
	return &bench;
}

static int
bench_dial(void *conn, struct stream *backend, const char *failure,
    const char **why)
{
	int fds[2];

	assert_ptr_equal(conn, &bench);
	assert_true(bench.accepted > 1 ||
	    (failure == NULL) == (bench.dials == 0));
	world.moved = 1;
	if (failure != NULL)
		snprintf(bench.failures[bench.dials - 1], 64, "%s", failure);
	if (bench.dials == bench.max_dials) {
		*why = "none left";
		return -1;
	}
	if (bench.refused_port && bench.dials == 0) {
		backend->fd = dial_nobody();
		bench.backends[bench.dials++] = -1;
	} else {
		if (bench.tcp)
			tcp_pair(fds);
		else
			unix_pair(fds);
		backend->fd = fds[0];
		bench.backends[bench.dials++] = fds[1];
	}
	backend->ops = &bench.ops[BACKEND];
	backend->ctx = &sides[BACKEND];
	return 0;
}

static void
bench_opened(void *conn)
{
	assert_ptr_equal(conn, &bench);
	bench.opened++;
}

static void
bench_closed(void *conn, const struct forward_end *end)
{
	assert_ptr_equal(conn, &bench);
	bench.closed++;
	bench.served = end->served;
	bench.dropped = end->dropped;
	bench.in = end->in;
	bench.out = end->out;
	bench.ms = end->ms;
	snprintf(bench.reason, sizeof(bench.reason), "%s", end->reason);
	world.moved = 1;
}

static void
bench_woken(void *arg)
{
	assert_ptr_equal(arg, &bench);
	if (bench.step != NULL)
		bench.step();
}

static void
bench_accept_paused(void *arg, int error)
{
	assert_ptr_equal(arg, &bench);
	bench.accept_paused++;
	bench.pause_error = error;
	world.moved = 1;
}

static int64_t
since(void)
{
	return world.now - bench.began;
}

static int
bench_full(void *arg)
{
	assert_ptr_equal(arg, &bench);
	return since() >= bench.others_have_room;
}

static void
bench_new(struct forward_params times)
{
	static const struct forward_calls calls = {
		.accepted = bench_accepted,
		.dial = bench_dial,
		.opened = bench_opened,
		.closed = bench_closed,
		.woken = bench_woken,
		.accept_paused = bench_accept_paused,
		.full = bench_full,
	};
	int side;

	world_reset(0);
	memset(&bench, 0, sizeof(bench));
	bench.client = -1;
	bench.max_dials = BACKENDS;
	bench.began = world.now;
	for (side = 0; side < SIDES; side++) {
		bench.ops[side] = stream_plain;
		bench.ops[side].abort = bench_abort;
		bench.ops[side].refuse = bench_refuse;
		bench.ops[side].finish = bench_finish;
	}
	times.calls = &calls;
	times.arg = &bench;
	bench.f = forward_new(&times);
	assert_non_null(bench.f);
}

/* Add a single connection. */
static void
bench_add(void)
{
	int fds[2];

	if (bench.tcp)
		tcp_pair(fds);
	else
		unix_pair(fds);
	bench.client = fds[0];
	assert_int_equal(forward_add(bench.f, fds[1], NULL, 0), 0);
}

static void
bench_run(void)
{
	sigset_t none;
	int i;

	sigemptyset(&none);
	alarm(ALARM);
	assert_int_equal(forward_run(bench.f, &none), 0);
	alarm(0);
	forward_free(bench.f);
	for (i = 0; i < bench.dials; i++)
		if (bench.backends[i] != -1)
			close(bench.backends[i]);
	if (bench.client != -1)
		close(bench.client);
}

/* Run one connection to its end. */
static void
bench_one(void)
{
	bench_add();
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	assert_int_equal(bench.closed, 1);
}

/* For steps: return 1 at this time; wake the engine for it. */
static int
due_at(int64_t ms)
{
	world.wake_at = bench.began + ms;
	return since() >= ms;
}

static void
say_to(int fd)
{
	assert_int_equal(write(fd, "x", 1), 1);
	world.moved = 1;
}

static void
reset(int *fd)
{
	struct linger rst = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(*fd, SOL_SOCKET, SO_LINGER, &rst, sizeof(rst));
	close(*fd);
	*fd = -1;
	world.moved = 1;
}

static int
never(struct stream *s)
{
	(void)s;
	return STREAM_WANT_READ;
}

static ssize_t
never_write(struct stream *s, const void *buf, size_t len)
{
	(void)s;
	(void)buf;
	(void)len;
	return STREAM_WANT_READ;
}

/* DEADLINES */

static void
test_handshake_timeout(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .open_ms = 700 });
	bench.ops[CLIENT].open = never;
	bench_one();
	assert_string_equal(bench.reason, "handshake timeout");
	assert_int_equal(since(), 700);
	assert_int_equal(bench.ms, 700);
	assert_int_equal(bench.served, 0);
	assert_int_equal(bench.dials, 0);
	assert_int_equal(bench.aborts[CLIENT], 0);
}

static void
test_dial_timeout(void **state)
{
	int i;

	(void)state;
	bench_new((struct forward_params){ .open_ms = 10, .dial_ms = 50 });
	bench.ops[BACKEND].open = never;
	bench.max_dials = 3;
	bench_one();
	assert_string_equal(bench.reason, "no backend: none left");
	assert_int_equal(bench.dials, 3);
	for (i = 0; i < 3; i++)
		assert_string_equal(bench.failures[i], "connect timeout");
	assert_int_equal(bench.refused, 1);
	assert_int_equal(bench.finishes[CLIENT], 1);
	/* The client never closed, so the whole linger time has passed. */
	assert_int_equal(since(), 3 * 50 + LINGERING_CLOSE_MS);
}

/* A plain client has no alerts, and is aborted. */
static void
test_no_backend_for_a_plain_client(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .open_ms = 10 });
	bench.ops[CLIENT].refuse = NULL;
	bench.max_dials = 0;
	bench_one();
	assert_string_equal(bench.reason, "no backend: none left");
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.finishes[CLIENT], 0);
	assert_int_equal(since(), 0);
}

/* A backend that is connected, but never completes its handshake. */

static int
connects_then_never(struct stream *s)
{
	int r = stream_plain_open(s);

	if (bench.f->queues[SECURING].head != NULL)
		return STREAM_WANT_READ;
	return r == 0 ? STREAM_CONNECTED : r;
}

/* Each address gets the full handshake time after connecting. */
static void
test_backend_handshake_timeout(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .open_ms = 700, .dial_ms = 50 });
	bench.tcp = bench.refused_port = 1;
	bench.ops[BACKEND].open = connects_then_never;
	bench.ops[CLIENT].refuse = NULL;
	bench.max_dials = 3;
	bench_one();
	assert_string_equal(bench.reason, "no backend: none left");
	assert_string_equal(bench.failures[0], strerror(ECONNREFUSED));
	assert_string_equal(bench.failures[1], "handshake timeout");
	assert_string_equal(bench.failures[2], "handshake timeout");
	assert_int_equal(since(), 2 * 700);
	assert_int_equal(bench.served + bench.opened, 0);
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.aborts[BACKEND], 0);
}

/* Three steps in the run list of handshakes: events come first. */
static int
opens_in_turns(struct stream *s)
{
	(void)s;
	if (bench.reads > 0)
		CHECK(world.turns > bench.stage);
	bench.stage = world.turns;
	world.moved = 1;
	switch (bench.reads++) {
	case 0:
		return STREAM_CONNECTED;
	case 1:
	case 2:
		CHECK(bench.f->queues[SECURING].n == 1);
		return STREAM_WANT_TURN;
	default:
		return 0;
	}
}

static void
close_when_open(void)
{
	if (bench.opened && bench.client != -1) {
		close(bench.client);
		bench.client = -1;
		shutdown(bench.backends[0], SHUT_WR);
		world.moved = 1;
	}
}

static void
test_backend_handshake(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .open_ms = 10 });
	bench.ops[BACKEND].open = opens_in_turns;
	bench.step = close_when_open;
	bench_one();
	assert_string_equal(bench.reason, "closed");
	assert_int_equal(bench.reads, 4);
	assert_int_equal(bench.opened, 1);
	assert_int_equal(bench.dials, 1);
}

static void
chatter_then_close(void)
{
	char c;

	if (bench.refused == 0)
		return;
	if (bench.stage++ < 3)
		say_to(bench.client);
	else if (bench.client != -1) {
		/* The client has read the end. */
		assert_int_equal(recv(bench.client, &c, 1, 0), 0);
		close(bench.client);
		bench.client = -1;
		world.moved = 1;
	}
}

static void
test_discard_until_client_closes(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.max_dials = 0;
	bench.step = chatter_then_close;
	bench_one();
	assert_string_equal(bench.reason, "no backend: none left");
	assert_int_equal(bench.refused, 1);
	assert_int_equal(bench.aborts[CLIENT], 0);
	assert_int_equal(bench.client, -1);
	assert_int_equal(since(), 0);
	assert_int_equal(bench.in, 0);
}

static int
alerted(struct stream *s)
{
	(void)s;
	return STREAM_ERROR;
}

static const char *
alert(const struct stream *s)
{
	(void)s;
	return "no client certificate";
}

/* The engine sends the alert, and lets it arrive. */
static void
test_client_error(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .open_ms = 10 });
	bench.ops[CLIENT].open = alerted;
	bench.ops[CLIENT].error = alert;
	bench_one();
	assert_string_equal(bench.reason, "no client certificate");
	assert_int_equal(bench.refused, 0);
	assert_int_equal(bench.finishes[CLIENT], 1);
	assert_int_equal(bench.aborts[CLIENT], 0);
	assert_int_equal(since(), LINGERING_CLOSE_MS);
}

static ssize_t
bad_read(struct stream *s, void *buf, size_t len)
{
	(void)s;
	(void)buf;
	(void)len;
	return STREAM_ERROR;
}

static const char *
bad_mac(const struct stream *s)
{
	(void)s;
	return "bad MAC";
}

/* A side that sends nonsense gets an alert, and the other a reset. */
static void
test_error_of_either_side(void **state)
{
	int side;

	(void)state;
	for (side = 0; side < SIDES; side++) {
		bench_new((struct forward_params){ .half_close_ms = 1000 });
		bench.ops[side].read = bad_read;
		bench.ops[side].error = bad_mac;
		bench_one();
		assert_string_equal(bench.reason, side == CLIENT ? "bad MAC" :
		    "backend: bad MAC");
		assert_int_equal(bench.served, 1);
		assert_int_equal(bench.finishes[side], 1);
		assert_int_equal(bench.aborts[side], 0);
		assert_int_equal(bench.finishes[!side], 0);
		assert_int_equal(bench.aborts[!side], 1);
		assert_int_equal(since(), LINGERING_CLOSE_MS);
	}
}

/* Without alerts, both are reset; the reason names the side. */
static void
test_error_of_a_plain_side(void **state)
{
	int side;

	(void)state;
	for (side = 0; side < SIDES; side++) {
		bench_new((struct forward_params){ .half_close_ms = 1000 });
		bench.ops[side].refuse = NULL;
		bench.ops[side].read = bad_read;
		bench.ops[side].error = bad_mac;
		bench_one();
		assert_string_equal(bench.reason, side == CLIENT ?
		    "client: bad MAC" : "backend: bad MAC");
		assert_int_equal(bench.aborts[CLIENT], 1);
		assert_int_equal(bench.aborts[BACKEND], 1);
		assert_int_equal(bench.finishes[CLIENT], 0);
		assert_int_equal(bench.finishes[BACKEND], 0);
		assert_int_equal(since(), 0);
	}
}

static int
finish_at_last(struct stream *s)
{
	return bench_finish(s) == 0 && bench.finishes[CLIENT] > 3 ? 0 :
	    STREAM_WANT_WRITE;
}

static void
half_close(void)
{
	if (bench.stage++ == 0)
		shutdown(bench.client, SHUT_WR);
}

/* The alert may need room first, and the client may have ended its side. */
static void
test_alert_waits_for_room(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .open_ms = 10 });
	bench.ops[CLIENT].open = alerted;
	bench.ops[CLIENT].error = alert;
	bench.ops[CLIENT].finish = finish_at_last;
	bench.step = half_close;
	bench_one();
	assert_string_equal(bench.reason, "no client certificate");
	assert_int_equal(bench.finishes[CLIENT], 4);
	assert_int_equal(since(), 0);
}

static void
talk_each_400(void)
{
	if (bench.stage < 3 && due_at((bench.stage + 1) * 400)) {
		say_to(bench.stage == 1 ? bench.backends[0] : bench.client);
		bench.stage++;
	}
}

static void
test_idle_timeout(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .idle_ms = 500,
	    .half_close_ms = 1 });
	bench.step = talk_each_400;
	bench_one();
	assert_string_equal(bench.reason, "idle timeout");
	assert_int_equal(since(), 3 * 400 + 500);
	assert_int_equal(bench.in, 2);
	assert_int_equal(bench.out, 1);
	assert_int_equal(bench.served, 1);
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.aborts[BACKEND], 1);
	assert_int_equal(bench.finishes[CLIENT] + bench.finishes[BACKEND], 0);
}

static void
end_then_reply(void)
{
	if (bench.stage == 0 && due_at(100)) {
		shutdown(bench.client, SHUT_WR);
		world.moved = ++bench.stage;
	} else if (bench.stage == 1 && due_at(350)) {
		say_to(bench.backends[0]);
		bench.stage++;
	}
}

static void
test_half_close_timeout(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .half_close_ms = 300 });
	bench.step = end_then_reply;
	bench_one();
	assert_string_equal(bench.reason, "half-close timeout");
	assert_int_equal(since(), 350 + 300);
	assert_int_equal(bench.out, 1);
	/* A side that was sent an end is not aborted. */
	assert_int_equal(bench.finishes[BACKEND], 1);
	assert_int_equal(bench.aborts[BACKEND], 0);
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.finishes[CLIENT], 0);
}

static void
test_drain_deadline(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .idle_ms = 5000 });
	bench_add();
	forward_drain(bench.f, 500, "drain timeout");
	forward_drain(bench.f, 300, "drain timeout");
	forward_drain(bench.f, 800, "drain timeout");
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	assert_int_equal(bench.closed, 1);
	assert_string_equal(bench.reason, "drain timeout");
	assert_int_equal(since(), 300);
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.aborts[BACKEND], 1);
}

static void
test_drained_at_once(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .idle_ms = 5000 });
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	assert_int_equal(world.turns, 0);
}

static void
close_when_asleep(void)
{
	if (world.quiet < 3)
		return;
	/* There is no deadline. */
	assert_int_equal(world.wished, -1);
	bench.stage = 1;
	if (bench.client != -1)
		peer_close(&(struct peer){ .fd = bench.client });
	else
		peer_close(&(struct peer){ .fd = bench.backends[0] });
	if (bench.client == -1)
		bench.backends[0] = -1;
	bench.client = -1;
}

static void
test_no_limits(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.step = close_when_asleep;
	bench_one();
	assert_int_equal(bench.stage, 1);
	assert_string_equal(bench.reason, "closed");
	assert_int_equal(bench.finishes[CLIENT], 1);
	assert_int_equal(bench.finishes[BACKEND], 1);
	assert_int_equal(bench.aborts[CLIENT] + bench.aborts[BACKEND], 0);
	assert_int_equal(since(), 0);
}

/* DIALING */

static void
talk_and_close(void)
{
	if (bench.dials < 2 || world.quiet < 3)
		return;
	if (bench.stage++ == 0) {
		say_to(bench.client);
		reset(&bench.client);
	}
}

static void
test_refused_then_next(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .dial_ms = 50 });
	bench.tcp = bench.refused_port = 1;
	bench.step = talk_and_close;
	bench_one();
	assert_int_equal(bench.dials, 2);
	assert_string_equal(bench.failures[0], strerror(ECONNREFUSED));
	assert_int_equal(bench.served, 1);
	assert_string_equal(bench.reason, "client reset");
	assert_int_equal(bench.aborts[BACKEND], 1);
	assert_int_equal(bench.finishes[BACKEND], 0);
}

static void
reset_client_when_quiet(void)
{
	if (world.quiet >= 3 && bench.client != -1)
		reset(&bench.client);
}

/* Without a deadline, a missed reset would hang the connection. */
static void
test_client_reset_while_dialing(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.tcp = 1;
	bench.ops[BACKEND].open = never;
	bench.step = reset_client_when_quiet;
	bench_one();
	assert_string_equal(bench.reason, "client reset");
	assert_int_equal(bench.dials, 1);
	assert_int_equal(bench.served, 0);
	assert_int_equal(bench.aborts[BACKEND], 1);
}

static void
test_client_reset_in_the_backend_s_handshake(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.tcp = 1;
	bench.ops[BACKEND].open = connects_then_never;
	bench.step = reset_client_when_quiet;
	bench_one();
	assert_string_equal(bench.reason, "client reset");
	assert_int_equal(bench.dials, 1);
	assert_int_equal(bench.served, 0);
	assert_int_equal(bench.aborts[BACKEND], 1);
}

/* HANG-UPS AND ERRORS, of a side that waits for no events */

static void
backend_talks_and_leaves(void)
{
	if (bench.stage == 0 && world.quiet >= 3) {
		say_to(bench.backends[0]);
		bench.stage = 1;
	} else if (bench.stage == 1 && world.quiet >= 3) {
		if (bench.tcp)
			reset(&bench.backends[0]);
		else {
			peer_close(&(struct peer){ .fd = bench.backends[0] });
			bench.backends[0] = -1;
		}
		bench.stage = 2;
	} else if (bench.stage == 2 && world.quiet >= 6) {
		/* The engine has slept since: now the client reads its byte. */
		bench.ops[CLIENT].write = stream_plain.write;
		shutdown(bench.client, SHUT_WR);
		bench.stage = 3;
	}
}

static void
backend_talks_and_resets(void)
{
	if (bench.stage < 2)
		backend_talks_and_leaves();
}

static void
test_reset_while_stuck(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.tcp = 1;
	bench.ops[CLIENT].write = never_write;
	bench.step = backend_talks_and_leaves;
	bench_one();
	assert_int_equal(bench.stage, 3);
	assert_string_equal(bench.reason, "backend reset");
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.finishes[CLIENT], 0);
	assert_int_equal(bench.out, 1);
}

/* It waits for the client to read its byte, up to a limit. */
static void
test_reset_while_stuck_for_ever(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1,
	    .half_close_ms = 700 });
	bench.tcp = 1;
	bench.ops[CLIENT].write = never_write;
	bench.step = backend_talks_and_resets;
	bench_one();
	assert_string_equal(bench.reason, "backend reset");
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.out, 0);
	assert_int_equal(bench.ms, 700);
}

static void
test_delivery_is_bounded(void **state)
{
	static const int64_t half_close[] = { 0, 2 * DELIVER_MS };
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		bench_new((struct forward_params){
		    .half_close_ms = half_close[i] });
		assert_int_equal(bench.f->queues[DELIVERING].ms, DELIVER_MS);
		forward_free(bench.f);
	}
}

/* The poller reports the hang-up each time: detect a busy loop. */
static void
test_hang_up_while_stuck(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.ops[CLIENT].write = never_write;
	bench.step = backend_talks_and_leaves;
	bench_one();
	assert_int_equal(bench.stage, 3);
	assert_int_equal(bench.out, 1);
	assert_string_equal(bench.reason, "closed");
	assert_int_equal(bench.finishes[CLIENT], 1);
}

/* MEMORY */

static void
stuck_then_free(void)
{
	const struct conn *c = bench.f->queues[FLOWING].head;
	char c64[64];

	if (world.quiet < 3)
		return;
	switch (bench.stage++) {
	case 0:
		say_to(bench.backends[0]);
		break;
	case 1:
		assert_non_null(c->halves[BACKEND].stuck);
		assert_null(c->halves[CLIENT].stuck);
		bench.ops[CLIENT].write = stream_plain.write;
		say_to(bench.client);
		break;
	case 2:
		assert_null(c->halves[BACKEND].stuck);
		assert_null(c->halves[CLIENT].stuck);
		assert_int_equal(recv(bench.client, c64, sizeof(c64), 0), 1);
		forward_abort_all(bench.f, "aborted");
		break;
	}
}

static void
test_idle_holds_no_memory(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.ops[CLIENT].write = never_write;
	bench.step = stuck_then_free;
	bench_one();
	assert_int_equal(bench.stage, 3);
	assert_int_equal(bench.in, 1);
	assert_int_equal(bench.out, 1);
}

static void
test_no_memory_for_a_connection(void **state)
{
	int fds[2], before;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	before = count_fds();
	unix_pair(fds);
	world.calloc_fails = 1;
	assert_int_equal(forward_add(bench.f, fds[0], NULL, 0), -1);
	assert_int_equal(errno, ENOMEM);
	close(fds[1]);
	assert_int_equal(count_fds(), before);
	forward_free(bench.f);
	world.calloc_fails = 1;
	assert_null(forward_new(&(struct forward_params){ .arg = NULL }));
	world.calloc_fails = 0;
	errno = EDOM;
	forward_free(NULL);
	assert_int_equal(errno, EDOM);
}

static void
test_no_room_in_the_poller(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	world.watch_fails = 1;
	bench.ops[CLIENT].open = never;
	bench_one();
	assert_string_equal(bench.reason, "poll: Cannot allocate memory");
	assert_int_equal(bench.aborts[CLIENT], 1);
}

static void
test_turned_away(void **state)
{
	int fds[2], before;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.turn_away = 1;
	before = count_fds();
	unix_pair(fds);
	assert_int_equal(forward_add(bench.f, fds[0], NULL, 0), 0);
	close(fds[1]);
	assert_int_equal(count_fds(), before);
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	assert_int_equal(bench.closed, 0);
}

/* LISTENERS */

static int clients[8];
static struct sockaddr_in bench_addr;

/* A listener with n waiting clients. */
static int
bench_listen(int n)
{
	int fd = listener_new(&bench_addr), i;

	nonblock(fd);
	assert_int_equal(forward_listen(bench.f, fd), 0);
	for (i = 0; i < n; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(clients[i],
		    (struct sockaddr *)&bench_addr, sizeof(bench_addr)), 0);
	}
	/* Wait until the last one is in the queue. */
	assert_true(is_ready(fd, POLLIN, 1000));
	return fd;
}

static void
abort_and_drain(void)
{
	forward_abort_all(bench.f, "aborted");
	forward_drain(bench.f, 0, "drain timeout");
	bench.stage = 99;
}

static void
bench_listened(int fd, int n)
{
	bench_run();
	close(fd);
	while (n-- > 0)
		if (clients[n] != -1)
			close(clients[n]);
}

static void
two_of_three(void)
{
	if (bench.stage == 0 && world.quiet >= 8) {
		assert_int_equal(bench.accepted, 2);
		assert_int_equal(world.wished, -1);
		reset(&clients[0]);
		bench.stage = 1;
	} else if (bench.stage == 1 && bench.accepted == 3) {
		assert_int_equal(bench.closed, 1);
		abort_and_drain();
	}
}

static void
test_max_connections(void **state)
{
	int fd, before = count_fds();

	(void)state;
	bench_new((struct forward_params){ .max_connections = 2 });
	world.tcp = 1;
	fd = bench_listen(3);
	bench.step = two_of_three;
	bench_listened(fd, 3);
	assert_int_equal(bench.stage, 99);
	assert_int_equal(bench.closed, 3);
	assert_int_equal(bench.accept_paused, 0);
	assert_int_equal(count_fds(), before);
}

static void
check_third(int64_t ms, int dropped, const char *reason)
{
	if (bench.accepted < 3 || bench.stage != 0)
		return;
	assert_int_equal(since(), ms);
	assert_int_equal(bench.closed, 1);
	assert_int_equal(bench.dropped, dropped);
	assert_string_equal(bench.reason, reason);
	abort_and_drain();
}

static void
third_after_a_second(void)
{
	check_third(FORWARD_DROP_MS, 1, "handshake dropped: full");
}

/* The engine wakes up at that time, and accepts one of the two. */
static void
test_full_of_handshakes(void **state)
{
	int fd;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 2,
	    .open_ms = 10000 });
	bench.ops[CLIENT].open = never;
	fd = bench_listen(3);
	bench.step = third_after_a_second;
	bench_listened(fd, 3);
	assert_int_equal(bench.stage, 99);
	assert_int_equal(bench.closed, 3);
	assert_int_equal(bench.dropped, 0);
}

static void
third_when_all_are_full(void)
{
	check_third(FORWARD_DROP_MS + 3 * ACCEPT_PAUSE_MS, 1,
	    "handshake dropped: full");
}

/* No handshake is dropped while another process has room. */
static void
test_room_elsewhere(void **state)
{
	int fd;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 2 });
	bench.ops[CLIENT].open = never;
	bench.others_have_room = FORWARD_DROP_MS + 250;
	fd = bench_listen(3);
	bench.step = third_when_all_are_full;
	bench_listened(fd, 3);
	assert_int_equal(bench.stage, 99);
}

static int
second_is_refused(struct stream *s)
{
	return bench.reads++ == 1 ? alerted(s) : never(s);
}

static void
third_at_once(void)
{
	check_third(0, 0, "it says no");
}

static const char *
says_no(const struct stream *s)
{
	(void)s;
	return "it says no";
}

/* A refused connection goes first, and does not count as dropped. */
static void
test_full_with_a_refused_one(void **state)
{
	int fd;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 2,
	    .open_ms = 10000 });
	bench.ops[CLIENT].open = second_is_refused;
	bench.ops[CLIENT].error = says_no;
	fd = bench_listen(3);
	bench.step = third_at_once;
	bench_listened(fd, 3);
	assert_int_equal(bench.stage, 99);
}

static void
wake_then_drain(void)
{
	if (bench.stage == 0) {
		forward_make_room(bench.f);
		forward_wake(bench.f, world.now + 300);
		bench.stage = 1;
	} else if (since() > 0) {
		/* Woken once, in time. */
		assert_int_equal(since(), 300);
		assert_int_equal(bench.closed, 0);
		forward_wake(bench.f, INT64_MAX);
		abort_and_drain();
	}
}

/* forward_make_room() does not drop a young connection. */
static void
test_wake(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.ops[CLIENT].open = never;
	bench.step = wake_then_drain;
	bench_add();
	bench_run();
	assert_int_equal(bench.stage, 99);
	assert_string_equal(bench.reason, "aborted");
}

static void
abort_when_accepted(void)
{
	if (bench.accepted == 1 && bench.stage == 0)
		abort_and_drain();
}

static void
starve(int error, int times)
{
	int fd;

	bench_new((struct forward_params){ .max_connections = 2 });
	fd = bench_listen(1);
	world.accept_error = error;
	world.accept_errors = times;
	bench.step = abort_when_accepted;
	bench_listened(fd, 1);
	assert_int_equal(bench.accepted, 1);
	assert_int_equal(bench.closed, 1);
}

static void
test_starved(void **state)
{
	static const int errors[] = { EMFILE, ENFILE, ENOBUFS, ENOMEM };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		starve(errors[i], 3);
		assert_int_equal(bench.accept_paused, 3);
		assert_int_equal(bench.pause_error, errors[i]);
		assert_int_equal(since(), 3 * ACCEPT_PAUSE_MS);
		/*
		 * One failing call each time, and one that finds none waiting.
		 */
		assert_in_range(world.accepts, 4, 5);
	}
}

/* Such errors concern one client: accept the next one. */
static void
test_accept_goes_on(void **state)
{
	static const int errors[] = { ECONNABORTED, EINTR, EPROTO };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		starve(errors[i], 2);
		assert_int_equal(bench.accept_paused, 0);
		assert_int_equal(since(), 0);
	}
}

static void
test_no_memory_to_accept(void **state)
{
	int fd, before = count_fds();

	(void)state;
	bench_new((struct forward_params){ .max_connections = 2 });
	fd = bench_listen(2);
	world.calloc_fails = 1;
	bench.step = abort_when_accepted;
	bench_listened(fd, 2);
	assert_int_equal(bench.accept_paused, 1);
	assert_int_equal(bench.pause_error, ENOMEM);
	assert_int_equal(since(), ACCEPT_PAUSE_MS);
	assert_int_equal(bench.accepted, 1);
	assert_int_equal(count_fds(), before);
}

static void
drain_while_one_waits(void)
{
	if (bench.stage == 0 && world.quiet >= 3) {
		assert_int_equal(bench.accepted, 1);
		forward_drain(bench.f, 50, "drain timeout");
		bench.stage = 1;
	}
}

/* It accepts none while draining, even with room. */
static void
test_drain_accepts_nobody(void **state)
{
	int fd;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	fd = bench_listen(2);
	bench.step = drain_while_one_waits;
	bench_listened(fd, 2);
	assert_int_equal(bench.accepted, 1);
	assert_string_equal(bench.reason, "drain timeout");
	assert_int_equal(since(), 50);
}

static void
test_too_many_listeners(void **state)
{
	int fds[FORWARD_LISTENERS + 1], i;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	for (i = 0; i <= FORWARD_LISTENERS; i++) {
		fds[i] = dup(listener);
		assert_true(fds[i] != -1);
		errno = 0;
		assert_int_equal(forward_listen(bench.f, fds[i]),
		    i < FORWARD_LISTENERS ? 0 : -1);
	}
	assert_int_equal(errno, ENOSPC);
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	for (i = 0; i <= FORWARD_LISTENERS; i++)
		close(fds[i]);
}

/* ABORTS, in each phase */

static void
abort_when_quiet(void)
{
	if (world.quiet < 3)
		return;
	if (bench.stage == DELIVERING &&
	    bench.f->queues[FLOWING].head != NULL) {
		say_to(bench.backends[0]);
		return;
	}
	assert_non_null(bench.f->queues[bench.stage].head);
	forward_abort_all(bench.f, "aborted");
}

static ssize_t
reset_write(struct stream *s, const void *buf, size_t len)
{
	(void)s;
	(void)buf;
	(void)len;
	return STREAM_RESET;
}

static ssize_t
reset_read(struct stream *s, void *buf, size_t len)
{
	(void)s;
	(void)buf;
	(void)len;
	return STREAM_RESET;
}

static int
never_flushed(const struct stream *s)
{
	(void)s;
	return 0;
}

static int asked;

static int
asked_in_vain(const struct stream *s)
{
	(void)s;
	asked++;
	return 0;
}

/* The number of flushed() calls in a second. */
static int
asks_of(int n)
{
	struct conn *c;

	bench_new((struct forward_params){ .max_connections = 1 });
	bench.ops[CLIENT].flushed = asked_in_vain;
	while (n-- > 0) {
		assert_non_null(c = calloc(1, sizeof(*c)));
		conn_init(c);
		c->user = &bench;
		c->streams[CLIENT].ops = &bench.ops[CLIENT];
		c->broken = BACKEND;
		c->flush_until = INT64_MAX;
		bench.f->nconns++;
		conn_enter(bench.f, c, FLUSHING);
	}
	for (asked = 0; world.now < bench.began + 1000; world.now++) {
		bench.f->now = world.now;
		expire(bench.f);
		step_busy(bench.f);
	}
	forward_free(bench.f);
	return asked;
}

static void
test_asking_costs_little(void **state)
{
	(void)state;
	assert_in_range(asks_of(1), 95, 100);
	assert_in_range(asks_of(100), 9500, 10000);
	assert_in_range(asks_of(10000), 10000, 20000);
}

static void
abort_in(enum phase phase)
{
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.stage = (int)phase;
	bench.step = abort_when_quiet;
	if (phase == OPENING)
		bench.ops[CLIENT].open = never;
	else if (phase == DIALING)
		bench.ops[BACKEND].open = never;
	else if (phase == SECURING)
		bench.ops[BACKEND].open = connects_then_never;
	else if (phase == DELIVERING)
		bench.ops[CLIENT].write = reset_write;
	else if (phase == FLUSHING) {
		bench.ops[BACKEND].read = reset_read;
		bench.ops[CLIENT].flushed = never_flushed;
	} else if (phase == LINGERING_CLOSE)
		bench.max_dials = 0;
	bench_add();
	if (phase == HALF_CLOSED)
		shutdown(bench.client, SHUT_WR);
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	assert_int_equal(bench.closed, 1);
	assert_string_equal(bench.reason, phase == LINGERING_CLOSE ?
	    "no backend: none left" : phase == DELIVERING ? "client reset" :
	    phase == FLUSHING ? "backend reset" : "aborted");
	assert_int_equal(bench.aborts[CLIENT], 1);
	assert_int_equal(bench.aborts[BACKEND],
	    phase != OPENING && phase != LINGERING_CLOSE);
	assert_int_equal(since(), 0);
}

static void
test_abort_all(void **state)
{
	int phase, before = count_fds();

	(void)state;
	for (phase = 0; phase < PHASES; phase++) {
		abort_in((enum phase)phase);
		assert_int_equal(count_fds(), before);
	}
}

/* THE LOOP: signals, fair shares */

static ssize_t
flood_read(struct stream *s, void *buf, size_t len)
{
	(void)s;
	CHECK(++bench.reads <= STEPS_PER_TURN);
	world.moved = 1;
	memset(buf, 'x', len);
	return (ssize_t)len;
}

static ssize_t
flood_write(struct stream *s, const void *buf, size_t len)
{
	(void)s;
	(void)buf;
	return (ssize_t)len;
}

static int
flood_pending(const struct stream *s)
{
	(void)s;
	return 1;
}

static void
flooded(void)
{
	bench.reads = 0;
	world.now++;
	if (bench.stage == 0) {
		/*
		 * Never read it: with events ready, pollers deliver no signals.
		 */
		say_to(bench.client);
		raise(SIGUSR1);
	}
	if (++bench.stage == 2 * SIGNALS_MS) {
		assert_int_equal(got_usr1, 1);
		forward_abort_all(bench.f, "aborted");
	}
}

/* It never sleeps, but signals arrive, and other connections are stepped. */
static void
flood(int64_t poll_ms)
{
	signal(SIGUSR1, on_usr1);
	block_usr1(SIG_BLOCK);
	got_usr1 = 0;
	bench_new((struct forward_params){ .idle_ms = 1000 });
	world.poll_ms = poll_ms;
	bench.ops[CLIENT].read = flood_read;
	bench.ops[CLIENT].pending = flood_pending;
	bench.ops[BACKEND].write = flood_write;
	bench.step = flooded;
	bench_one();
	assert_int_equal(bench.stage, 2 * SIGNALS_MS);
	assert_string_equal(bench.reason, "aborted");
	assert_true(bench.in >= FILL_SIZE * (SIGNALS_MS - 1));
	block_usr1(SIG_UNBLOCK);
}

static void
test_flood(void **state)
{
	(void)state;
	flood(0);
}

/* A slow poller on a busy machine has not slept. */
static void
test_flood_with_slow_poller(void **state)
{
	(void)state;
	flood(1);
}

/* Slow handshakes beside other connections. */

#define SLOW	6

static int
slow_open(struct stream *s)
{
	(void)s;
	it_goes('h');
	bench.reads++;
	world.moved = 1;
	return STREAM_WANT_TURN;
}

/* Data sent to the open stream before has passed through it. */
static int
slow_open_beside_stream(struct stream *s)
{
	char c;

	if (bench.reads > 0)
		CHECK(recv(bench.backends[0], &c, 1, MSG_DONTWAIT) == 1);
	say_to(bench.client);
	return slow_open(s);
}

static void
add_slow_ones(void)
{
	int i, fds[2];

	if (bench.dials == 0)
		return;
	if (bench.stage++ == 0) {
		bench.ops[CLIENT].open = slow_open_beside_stream;
		for (i = 0; i < SLOW; i++) {
			unix_pair(fds);
			clients[i] = fds[0];
			CHECK(forward_add(bench.f, fds[1], NULL, 0) == 0);
		}
	} else if (bench.reads >= 3 * SLOW)
		abort_and_drain();
}

/* With many handshakes, a stream waits for only one step of one. */
static void
test_streams_before_handshakes(void **state)
{
	int i;

	(void)state;
	bench_new((struct forward_params){ .max_connections = 10 });
	bench.step = add_slow_ones;
	bench_add();
	bench_run();
	for (i = 0; i < SLOW; i++)
		close(clients[i]);
	assert_int_equal(bench.reads, 3 * SLOW);
	assert_int_equal(bench.closed, 1 + SLOW);
}

static ssize_t
slow_read(struct stream *s, void *buf, size_t len)
{
	bench.reads = 0;
	world.now += 2;
	(void)s;
	memset(buf, 'x', len);
	return (ssize_t)len;
}

static int
slow_open_takes_time(struct stream *s)
{
	world.now++;
	return slow_open(s);
}

static void
add_one_beside_flood(void)
{
	int fds[2];

	if (bench.dials == 0)
		return;
	if (bench.stage == 0) {
		bench.ops[CLIENT].open = slow_open_takes_time;
		unix_pair(fds);
		clients[0] = fds[0];
		CHECK(forward_add(bench.f, fds[1], NULL, 0) == 0);
		say_to(bench.client);
	} else if (bench.stage > 1)
		/* Handshakes have got as much time as the reads. */
		CHECK(bench.reads == 2 * STEPS_PER_TURN);
	if (bench.stage++ == 10)
		abort_and_drain();
}

/* A busy stream leaves half of the time to handshakes. */
static void
test_handshakes_beside_a_flood(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 10 });
	bench.ops[CLIENT].read = slow_read;
	bench.ops[CLIENT].pending = flood_pending;
	bench.ops[BACKEND].write = flood_write;
	bench.step = add_one_beside_flood;
	bench_add();
	bench_run();
	close(clients[0]);
	assert_int_equal(bench.closed, 2);
}

static void
until_much_went(void)
{
	if (strlen(went) >= 12)
		abort_and_drain();
}

/* A connection is accepted after a step of all previous handshakes. */
static void
test_accepts_between_handshakes(void **state)
{
	int fd;

	(void)state;
	memset(went, 0, sizeof(went));
	bench_new((struct forward_params){ .max_connections = 10 });
	fd = bench_listen(3);
	bench.ops[CLIENT].open = slow_open;
	bench.step = until_much_went;
	bench_listened(fd, 3);
	went[12] = '\0';
	assert_string_equal(went, "ahahhahhhhhh");
}

static void
stop_by_signal(void)
{
	if (got_usr1 && bench.stage++ == 0)
		forward_drain(bench.f, 0, "drain timeout");
}

static ssize_t
reluctant_read(struct stream *s, void *buf, size_t len)
{
	if (bench.reads++ == 0)
		return STREAM_WANT_WRITE;
	return stream_plain.read(s, buf, len);
}

static void
abort_in_the_end(void)
{
	if (world.quiet >= 3)
		forward_abort_all(bench.f, "aborted");
}

/* A WANT is for one call; the next starts with the default. */
static void
test_want_is_forgotten(void **state)
{
	(void)state;
	bench_new((struct forward_params){ .max_connections = 1 });
	bench.ops[CLIENT].read = reluctant_read;
	bench.step = abort_in_the_end;
	bench_add();
	say_to(bench.client);
	forward_drain(bench.f, 0, "drain timeout");
	bench_run();
	assert_int_equal(bench.in, 1);
	assert_int_equal(bench.reads, 2);
}

/* The mask is in effect during sleep; a signal ends it. */
static void
test_signal_ends_sleep(void **state)
{
	(void)state;
	signal(SIGUSR1, on_usr1);
	block_usr1(SIG_BLOCK);
	got_usr1 = 0;
	bench_new((struct forward_params){ .max_connections = 1 });
	world.tcp = 1;		/* makes the sleep real, for a moment */
	world.quiet = QUIET_TURNS + 1;
	bench.step = stop_by_signal;
	raise(SIGUSR1);
	bench_run();
	assert_int_equal(got_usr1, 1);
	block_usr1(SIG_UNBLOCK);
}

/* The events of a side are a function only of the state. */

static void
test_interest(void **state)
{
	struct conn c;
	struct half *up = &c.halves[CLIENT], *down = &c.halves[BACKEND];

	(void)state;
	memset(&c, 0, sizeof(c));
	conn_init(&c);
	c.open_on = POLLIN | POLLOUT;
	c.phase = OPENING;
	assert_int_equal(interest(&c, CLIENT), POLLIN | POLLOUT);
	assert_int_equal(interest(&c, BACKEND), 0);
	for (c.phase = DIALING; c.phase <= SECURING; c.phase++) {
		assert_int_equal(interest(&c, CLIENT), 0);
		assert_int_equal(interest(&c, BACKEND), POLLIN | POLLOUT);
	}
	for (c.phase = FLOWING; c.phase <= LINGERING_CLOSE; c.phase++) {
		if (c.phase == FLUSHING)
			continue;
		up->state = down->state = FLOW;
		up->len = 0;
		assert_int_equal(interest(&c, CLIENT), POLLIN);
		assert_int_equal(interest(&c, BACKEND), POLLIN);
		up->len = 1;		/* stuck: write it before reading */
		assert_int_equal(interest(&c, CLIENT), 0);
		assert_int_equal(interest(&c, BACKEND), POLLIN | POLLOUT);
		down->state = DONE;
		assert_int_equal(interest(&c, CLIENT), 0);
		assert_int_equal(interest(&c, BACKEND), POLLOUT);
		up->len = 0;
		up->state = FINISH;	/* an end for the backend */
		assert_int_equal(interest(&c, CLIENT), 0);
		assert_int_equal(interest(&c, BACKEND), POLLOUT);
		up->write_on = POLLIN;	/* write needs POLLIN */
		assert_int_equal(interest(&c, BACKEND), POLLIN);
		up->write_on = POLLOUT;
		up->state = DONE;
		assert_int_equal(interest(&c, BACKEND), 0);
		up->state = FLOW;
		up->read_on = POLLOUT;	/* read needs POLLOUT */
		assert_int_equal(interest(&c, CLIENT), POLLOUT);
		up->read_on = POLLIN;
	}
	c.phase = ENDED;
	assert_int_equal(interest(&c, CLIENT) | interest(&c, BACKEND), 0);
}

static void
test_wants(void **state)
{
	short events = 0;

	(void)state;
	assert_int_equal(wants(STREAM_WANT_READ, &events), 1);
	assert_int_equal(events, POLLIN);
	assert_int_equal(wants(STREAM_WANT_WRITE, &events), 1);
	assert_int_equal(events, POLLOUT);
	assert_int_equal(wants(STREAM_EOF, &events), 0);
	assert_int_equal(wants(STREAM_TRUNCATED, &events), 0);
	assert_int_equal(wants(STREAM_RESET, &events), 0);
	assert_int_equal(wants(STREAM_ERROR, &events), 0);
	assert_int_equal(wants(STREAM_WANT_TURN, &events), 0);
	assert_int_equal(wants(1, &events), 0);
	assert_int_equal(events, POLLOUT);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wants),
		cmocka_unit_test(test_interest),
		cmocka_unit_test(test_handshake_timeout),
		cmocka_unit_test(test_dial_timeout),
		cmocka_unit_test(test_no_backend_for_a_plain_client),
		cmocka_unit_test(test_backend_handshake_timeout),
		cmocka_unit_test(test_backend_handshake),
		cmocka_unit_test(test_discard_until_client_closes),
		cmocka_unit_test(test_client_error),
		cmocka_unit_test(test_error_of_either_side),
		cmocka_unit_test(test_error_of_a_plain_side),
		cmocka_unit_test(test_alert_waits_for_room),
		cmocka_unit_test(test_idle_timeout),
		cmocka_unit_test(test_half_close_timeout),
		cmocka_unit_test(test_drain_deadline),
		cmocka_unit_test(test_drained_at_once),
		cmocka_unit_test(test_no_limits),
		cmocka_unit_test(test_refused_then_next),
		cmocka_unit_test(test_client_reset_while_dialing),
		cmocka_unit_test(test_client_reset_in_the_backend_s_handshake),
		cmocka_unit_test(test_reset_while_stuck),
		cmocka_unit_test(test_reset_while_stuck_for_ever),
		cmocka_unit_test(test_delivery_is_bounded),
		cmocka_unit_test(test_hang_up_while_stuck),
		cmocka_unit_test(test_idle_holds_no_memory),
		cmocka_unit_test(test_no_memory_for_a_connection),
		cmocka_unit_test(test_no_room_in_the_poller),
		cmocka_unit_test(test_turned_away),
		cmocka_unit_test(test_max_connections),
		cmocka_unit_test(test_full_of_handshakes),
		cmocka_unit_test(test_full_with_a_refused_one),
		cmocka_unit_test(test_room_elsewhere),
		cmocka_unit_test(test_wake),
		cmocka_unit_test(test_starved),
		cmocka_unit_test(test_accept_goes_on),
		cmocka_unit_test(test_no_memory_to_accept),
		cmocka_unit_test(test_drain_accepts_nobody),
		cmocka_unit_test(test_too_many_listeners),
		cmocka_unit_test(test_abort_all),
		cmocka_unit_test(test_asking_costs_little),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_flood_with_slow_poller),
		cmocka_unit_test(test_streams_before_handshakes),
		cmocka_unit_test(test_handshakes_beside_a_flood),
		cmocka_unit_test(test_accepts_between_handshakes),
		cmocka_unit_test(test_want_is_forgotten),
		cmocka_unit_test(test_signal_ends_sleep),
		cmocka_unit_test(test_seeds),
	};

	signal(SIGALRM, on_alarm);
	noise_init();
	listener = listener_new(&listener_addr);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
