/* resolver: look up names in a child, and share the addresses. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"
#include "log.h"
#include "memory.h"
#include "net.h"
#include "privileges.h"
#include "resolver.h"
#include "sandbox.h"
#include "util.h"

#define NOBODY		65534		/* the user need not exist */
#define STOP_MS		1000		/* for a child that was killed */

union inet {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

struct list {
	uint32_t n;
	union inet to[ADDRESSES];
};

/*
 * The answer of a child, in one write(2) to a pipe.  Up to PIPE_BUF it is
 * atomic: the answer is complete or missing.
 */
struct answer {
	int32_t	 error;			/* getaddrinfo(3) result */
	uint32_t is_cut;
	struct list list;
};

/*
 * The addresses of a name, in two lists: turn % 2 is the list to read, and the
 * other one is written.  If the writer is killed, the old list is still valid.
 */
struct row {
	atomic_uint turn;
	struct list lists[2];
};

static size_t
rows_size(const struct names *names)
{
	return names->n * sizeof(*names->rows);
}

/* Convert and check a shared list; NULL: invalid, or out of memory. */
static struct addresses *
take_list(const struct list *l, in_port_t port)
{
	struct addresses *a;

	if (l->n == 0 || l->n > ADDRESSES ||
	    (a = net_addresses(l->n)) == NULL)
		return NULL;
	while (a->n < l->n && net_take_address(&a->list[a->n],
	    &l->to[a->n].any, port) == 0)
		a->n++;
	if (a->n == l->n)
		return a;
	net_release(a);
	return NULL;
}

static void
give_list(struct list *l, const struct address *list, size_t n)
{
	for (l->n = 0; l->n < n; l->n++)
		memcpy(&l->to[l->n], &list[l->n].sa, list[l->n].len);
}

/* Ignore the order, which many name servers rotate. */
static int
are_same(const struct addresses *a, const struct addresses *b)
{
	size_t i, j, n = 0;

	for (i = 0; i < a->n; i++)
		for (j = 0; j < b->n; j++)
			n += strcmp(a->list[i].text, b->list[j].text) == 0;
	return n == a->n && n == b->n;	/* neither list has duplicates */
}

static void
replace(struct target *t, struct addresses *fresh)
{
	net_release(t->to);
	t->to = fresh;
}

/*
 * THE CHILD
 */

/* Allow no file contents, no child processes, few descriptors. */
static void
limit(void)
{
	static const struct rlimit none = { 0, 0 }, few = { 64, 64 };

	setrlimit(RLIMIT_FSIZE, &none);
	setrlimit(RLIMIT_NPROC, &none);
	setrlimit(RLIMIT_NOFILE, &few);
}

/*
 * Drop privileges.  0, or -1 with errno.  Accept the failure of root without
 * capabilities, which has few privileges anyway.
 */
static int
drop(const struct identity *is)
{
	struct identity id = { .uid = is->uid != 0 ? is->uid : NOBODY,
	    .gid = is->uid != 0 ? is->gid : NOBODY, .drops = geteuid() == 0 };

	privileges_disable_dumps();
	if (privileges_drop(&id) == -1 && is->uid != 0)
		return -1;
	return sandbox_renounce();
}

static void
look_up(const struct target *t, struct answer *a)
{
	struct address *list = calloc(ADDRESSES + 1, sizeof(*list));
	size_t n = 0;

	a->error = EAI_MEMORY;
	if (list == NULL ||
	    (a->error = net_look_up(t, list, ADDRESSES + 1, &n)) != 0)
		return;
	a->is_cut = n > ADDRESSES;
	give_list(&a->list, list, n > ADDRESSES ? ADDRESSES : n);
}

/*
 * Keep only the pipe for the answer.  The signals that a master handles are
 * blocked here too.
 */
static void __attribute__((noreturn))
child_main(const struct target *was, const struct identity *is, int fd,
    void (*leave)(void *), void *arg)
{
	struct target t = { .given = strdup(was->given), .port = was->port };
	const struct identity id = *is;
	struct answer a = { .error = EAI_SYSTEM };

	log_to(STDERR_FILENO, -1);
	daemon_release_descriptors();
	daemon_close_all_but(&fd, 1);
	leave(arg);
	limit();
	if (t.given != NULL && drop(&id) == 0)
		look_up(&t, &a);
	_exit(write(fd, &a, sizeof(a)) == sizeof(a) ? 0 : 1);
}

/*
 * THE MASTER
 */

int
resolver_start(struct resolver *r, const struct target *t,
    const struct identity *id, void (*leave)(void *), void *arg)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) == -1)
		return -1;
	if ((r->child = fork()) == 0)
		child_main(t, id, fds[1], leave, arg);
	close(fds[1]);
	if (r->child == -1) {
		r->child = 0;
		return close_failed(fds[0]);
	}
	r->fd = fds[0];
	r->kill_at = clock_ms() + RESOLVER_MS;
	return 0;
}

void
resolver_kill(struct resolver *r)
{
	r->kill_at = INT64_MAX;
	kill(r->child, SIGKILL);
}

/* Kill the child also after its answer: it has nothing left to do. */
void
resolver_await(struct resolver *r)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };

	poll(&p, 1, RESOLVER_MS);
	resolver_kill(r);
	waitpid(r->child, NULL, 0);
}

void
resolver_stop(struct resolver *r)
{
	if (r->child == 0)
		return;
	resolver_kill(r);
	daemon_end_child(&r->child, STOP_MS);
	close(r->fd);
}

/* Write a target's addresses to shared memory. */
static void
publish(struct names *names, struct target *t)
{
	struct row *row;

	if (t->row >= names->n)
		return;
	row = &names->rows[t->row];
	t->turn = atomic_load(&row->turn) + 1;
	/*
	 * A reader that is still in this list must see that turn has changed.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	give_list(&row->lists[t->turn % 2], t->to->list, t->to->n);
	atomic_store(&row->turn, t->turn);
}

int
resolver_take(struct resolver *r, struct target *t, struct names *names,
    int *is_cut, const char **why)
{
	struct addresses *fresh = NULL;
	struct answer a;
	int is_whole;

	_Static_assert(RESOLVER_MS == 10000, "the text has it");
	*why = r->fd == -1 ? strerror(errno) : "no valid answer within 10 s";
	is_whole = read(r->fd, &a, sizeof(a)) == sizeof(a);
	if (is_whole && a.error != 0)
		*why = gai_strerror(a.error);
	else if (!is_whole || (fresh = take_list(&a.list, t->port)) == NULL)
		a.error = EAI_AGAIN;
	close(r->fd);
	r->child = 0;
	if (fresh == NULL) {
		errno = a.error == EAI_AGAIN ? EAGAIN : 0;
		return -1;
	}
	*is_cut = a.is_cut != 0;
	if (t->to != NULL && are_same(t->to, fresh)) {
		net_release(fresh);
		return 0;
	}
	replace(t, fresh);
	publish(names, t);
	return 1;
}

/*
 * SHARED MEMORY
 */

size_t
resolver_number(const struct targets *all)
{
	size_t i, n = 0;

	for (i = 0; i < all->n; i++)
		if (all->list[i].is_name)
			all->list[i].row = n++;
	return n;
}

int
resolver_share(struct names *names, const struct targets *all)
{
	size_t i;

	if ((names->n = resolver_number(all)) == 0)
		return 0;
	names->rows = memory_share(rows_size(names), &names->fd);
	if (names->rows == MAP_FAILED) {
		*names = (struct names)NAMES_NONE;
		return -1;
	}
	names->view = memory_view(names->rows, rows_size(names), names->fd);
	for (i = 0; i < all->n; i++)
		if (all->list[i].to != NULL)
			publish(names, &all->list[i]);
	return 0;
}

const char *
resolver_attach(struct names *names)
{
	size_t size = rows_size(names);
	const char *why = memory_map(names->fd, size, (void **)&names->rows);

	if (why == NULL)
		names->view = memory_view(names->rows, size, names->fd);
	else
		names->rows = NULL;
	return why;
}

void
resolver_leave(struct names *names)
{
	size_t size = rows_size(names);

	close_fd(&names->fd);
	if (names->rows == NULL)
		return;
	if (names->rows == names->view)
		mprotect(names->rows, size, PROT_READ);
	else
		munmap(names->rows, size);
	names->rows = NULL;
}

void
resolver_free(struct names *names)
{
	size_t size = rows_size(names);

	if (names->view != NULL && names->view != names->rows)
		munmap((void *)(uintptr_t)names->view, size);
	if (names->rows != NULL)
		munmap(names->rows, size);
	close_fd(&names->fd);
	*names = (struct names)NAMES_NONE;
}

void
resolver_refresh(const struct names *names, struct target *t)
{
	const struct row *row;
	struct addresses *fresh;
	struct list copy;
	unsigned turn;

	if (t->row >= names->n)
		return;
	row = &names->view[t->row];
	if ((turn = atomic_load(&row->turn)) == t->turn)
		return;
	memcpy(&copy, &row->lists[turn % 2], sizeof(copy));
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&row->turn) != turn ||
	    (fresh = take_list(&copy, t->port)) == NULL)
		return;
	replace(t, fresh);
	t->turn = turn;
}
