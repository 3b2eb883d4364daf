/* carry: the state of the rooms, handed over at an upgrade. */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arguments.h"
#include "carry.h"
#include "config.h"
#include "generation.h"
#include "handover.h"
#include "listener.h"
#include "log.h"
#include "memory.h"
#include "net.h"
#include "options.h"
#include "resolver.h"
#include "scoreboard.h"
#include "stats.h"
#include "tls.h"
#include "workers.h"

static void
carry_address(struct handover *x, struct address *a)
{
	int64_t len = a->len;

	handover_bytes(x, &a->sa, sizeof(a->sa));
	handover_number(x, &len, 0, sizeof(a->sa));
	a->len = (socklen_t)len;
	if (x->reads)
		net_normalize(a);
}

/* On reading, t is a new target for this listener, with one address. */
static void
carry_listener(struct handover *x, struct listener *l, struct target *t)
{
	struct address address = { .len = 0 };
	int is_named = l->address != NULL;

	if (is_named)
		address = *l->address;
	handover_fd(x, &l->fd);
	handover_int(x, &t->fd, -1, INT_MAX);
	handover_int(x, &t->any, 0, 1);
	handover_int(x, &is_named, 0, 1);
	if (is_named)
		carry_address(x, &address);
	if (x->reads)
		l->target = t;
	if (x->reads && is_named && (t->to = net_addresses(1)) != NULL) {
		t->to->n = 1;
		t->to->list[0] = address;
		l->address = t->to->list;
	} else if (x->reads && is_named && x->bad == NULL)
		x->bad = "out of memory";
	carry_address(x, &l->bound);
	handover_bytes(x, &l->file, sizeof(l->file));
	if (x->bad == NULL && !net_is_listening(l->fd))
		x->bad = "a descriptor is not a listening socket";
}

static void
carry_listeners(struct handover *x, struct listeners *ls,
    struct targets *accepts)
{
	struct target t;
	size_t i;

	handover_size(x, &ls->n, LISTENERS_MAX);
	if (x->reads &&
	    (accepts->list = calloc(ls->n + 1, sizeof(*accepts->list))) ==
	    NULL) {
		x->bad = "out of memory";
		return;
	}
	if (x->reads)
		accepts->n = ls->n;
	for (i = 0; i < ls->n && x->bad == NULL; i++) {
		if (!x->reads)
			t = *ls->list[i].target;
		carry_listener(x, &ls->list[i], x->reads ?
		    &accepts->list[i] : &t);
	}
}

static void
carry_value(struct handover *x, struct config *cfg, int option, struct value v)
{
	char *name = x->reads ? NULL : strdup(options[option].name);

	handover_text(x, &name);
	handover_text(x, &v.where);
	handover_text(x, &v.text);
	handover_int(x, &v.rank, 0, RANK_ARGUMENT);
	if (x->bad == NULL && (name == NULL || v.where == NULL ||
	    v.text == NULL))
		x->bad = "a value belongs to no option";
	if (x->reads) {
		if (x->bad == NULL && (option = option_find(name)) != -1)
			config_add(&cfg->given[option], v.rank, v.where,
			    v.text);
		free(v.where);
		free(v.text);
	}
	free(name);
}

/*
 * The configured values.  The previous program parses them again after a failed
 * upgrade; a new program compares them with its own configuration.
 */
static void
carry_values(struct handover *x, struct config *cfg)
{
	const struct value *v;
	size_t n = 0;
	int i;

	for (i = 0; i < OPTIONS; i++)
		n += config_count(cfg->given[i]);
	handover_size(x, &n, HANDOVER_MAX);
	if (x->reads) {
		for (; n > 0 && x->bad == NULL; n--)
			carry_value(x, cfg, -1, (struct value){ .rank = 0 });
		return;
	}
	for (i = 0; i < OPTIONS; i++)
		for (v = cfg->given[i]; v != NULL; v = v->next)
			carry_value(x, cfg, i, *v);
}

/* Require that the worker is a child of this process, not yet reaped. */
static void
carry_slot(struct handover *x, struct slot *slot, size_t nrows)
{
	size_t row = slot->row;
	siginfo_t info;

	handover_int(x, &slot->pid, 1, INT_MAX);
	handover_fd(x, &slot->control);
	handover_size(x, &row, nrows - 1);
	slot->row = (uint32_t)row;
	handover_int(x, &slot->released, 0, 1);
	handover_number(x, &slot->drop_at, 0, INT64_MAX);
	if (x->bad == NULL && waitid(P_PID, (id_t)slot->pid, &info,
	    WEXITED | WNOHANG | WNOWAIT) == -1)
		x->bad = "a worker is not a child of this process";
}

static void
carry_workers(struct handover *x, struct workers *ws, size_t nrows)
{
	size_t i, n = ws->n;

	handover_size(x, &n, ws->nslots);
	for (i = 0; i < ws->nslots && n > 0 && x->bad == NULL; i++, n--) {
		while (!x->reads && ws->slots[i].pid == 0)
			i++;
		handover_size(x, &i, ws->nslots - 1);
		if (x->bad == NULL && x->reads && ws->slots[i].pid != 0)
			x->bad = "two workers have the same slot";
		if (x->bad == NULL)
			carry_slot(x, &ws->slots[i], nrows);
		if (x->reads)
			ws->n++;
	}
	if (x->bad == NULL && n > 0)
		x->bad = "there are too many workers";
}

/* Require that a descriptor refers to shared memory of this size. */
static void
check_shared(struct handover *x, int fd, size_t size)
{
	if (x->bad == NULL)
		x->bad = memory_fault(fd, size);
}

/* Share the sessions with a generation that was read before, or map them. */
static struct tls_sessions *
sessions_take(struct handover *x, const struct generation *live,
    const struct tls_sessions_memory *memory)
{
	const struct generation *g;
	struct tls_sessions *s;

	for (g = live; g != NULL; g = g->older)
		if (g->sessions != NULL &&
		    tls_sessions_memory(g->sessions)->fd == memory->fd)
			return tls_sessions_ref(g->sessions);
	x->bad = tls_sessions_map(memory, &s);
	return s;
}

static void
carry_sessions(struct handover *x, const struct generation *live,
    struct generation *g)
{
	struct tls_sessions_memory memory = { .fd = -1 };
	int is_there = g->sessions != NULL;

	if (is_there)
		memory = *tls_sessions_memory(g->sessions);
	handover_int(x, &is_there, 0, 1);
	if (!is_there)
		return;
	handover_fd(x, &memory.fd);
	handover_size(x, &memory.entries, 1000000);
	handover_int(x, &memory.kind, TLS_BARE, TLS_WITH_SERVERS);
	if (!x->reads)
		check_shared(x, memory.fd, memory.size);
	else if (x->bad == NULL)
		g->sessions = sessions_take(x, live, &memory);
}

static void
carry_scoreboard(struct handover *x, struct scoreboard *b)
{
	handover_size(x, &b->max, 1000000);
	handover_size(x, &b->nrows, 1000000);
	if (x->bad == NULL && (b->max == 0 || b->nrows == 0))
		x->bad = "a number is out of range";
	handover_bytes(x, &b->secret, sizeof(b->secret));
	handover_fd(x, &b->fd);
	if (x->bad == NULL)
		x->bad = x->reads ? scoreboard_attach(b) :
		    memory_fault(b->fd, b->size);
}

/* The addresses of names, in memory that is shared with the workers. */
static void
carry_names(struct handover *x, struct names *names)
{
	size_t n = names->n;

	handover_size(x, &n, 1000000);
	if (n == 0)
		return;
	handover_fd(x, &names->fd);
	if (x->reads && x->bad == NULL) {
		names->n = n;
		x->bad = resolver_attach(names);
	} else if (x->bad == NULL && names->fd == -1)
		x->bad = "the addresses of names are not in a file";
}

/* The part of a generation that the master needs to supervise its workers. */
static void
carry_generation(struct handover *x, const struct generation *live,
    struct generation *g)
{
	static const int numbers[] = {
		MODE, DRAIN_TIMEOUT, MAX_CONNECTIONS, LOG_LEVEL
	};
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		handover_number(x, &g->config.number[numbers[i]], 0,
		    INT64_C(1) << 40);
	carry_scoreboard(x, &g->board);
	carry_names(x, &g->names);
	handover_size(x, &g->workers.nslots, g->board.nrows);
	if (x->reads && workers_new(&g->workers, g->workers.nslots) == -1 &&
	    x->bad == NULL)
		x->bad = "out of memory";
	/* After workers_new(), which sets no deadline. */
	handover_number(x, &g->workers.deadline, 0, INT64_MAX);
	if (x->bad == NULL)
		carry_workers(x, &g->workers, g->board.nrows);
	if (x->bad == NULL)
		carry_sessions(x, live, g);
}

void
carry_generations(struct handover *x, struct generation **live,
    const struct arguments *a)
{
	struct generation *g, **link = live;
	size_t n = 0;

	for (g = *live; g != NULL; g = g->older)
		n++;
	handover_size(x, &n, HANDOVER_MAX);
	for (; n > 0 && x->bad == NULL; n--) {
		if (*link == NULL)
			*link = generation_new(a);
		if ((g = *link) == NULL) {
			x->bad = "out of memory";
			return;
		}
		carry_generation(x, *live, g);
		link = &g->older;
	}
	if (x->bad == NULL && *live == NULL)
		x->bad = "it has no configuration";
	if (x->bad != NULL)
		return;
	carry_listeners(x, &(*live)->listeners, &(*live)->accepts);
	carry_values(x, &(*live)->config);
}

void
carry_log(struct handover *x, int *log)
{
	struct log_state state;
	int level, fd = log_fd();

	if (x->bad != NULL)
		return;
	log_get_state(&state);
	level = (int)state.level;
	handover_fd(x, &fd);
	handover_int(x, &state.stream, -1, STDERR_FILENO);
	handover_int(x, &state.has_time, 0, 1);
	handover_int(x, &state.is_private, 0, 1);
	handover_int(x, &state.is_journal, 0, 1);
	handover_int(x, &state.is_daemon, 0, 1);
	handover_int(x, &level, LEVEL_ERROR, LEVEL_DEBUG);
	handover_bytes(x, &state.lost.lines, sizeof(state.lost.lines));
	handover_bytes(x, &state.lost.why, sizeof(state.lost.why));
	handover_int(x, &state.lost.is_cut, 0, 1);
	state.level = (enum log_level)level;
	log_set_state(&state);
	if (!x->reads)
		return;
	*log = fd;
	if (x->bad == NULL)
		log_restore(fd);
}

/* Include sockets that are not in use: a reload may configure them. */
static void
carry_passed(struct handover *x, struct arguments *a)
{
	int i, fd;

	handover_int(x, &a->passed, 0, LISTENERS_MAX);
	for (i = 0; i < a->passed; i++) {
		fd = SD_LISTEN_FDS_START + i;
		if (x->reads || !net_is_listening(fd))
			fd = -1;
		handover_fd(x, &fd);
	}
}

void
carry_arguments(struct handover *x, struct arguments *a)
{
	handover_bytes(x, &a->files, sizeof(a->files));
	handover_bytes(x, &a->core, sizeof(a->core));
	carry_passed(x, a);
	handover_number(x, &a->watchdog, 0, INT64_MAX);
}

void
carry_stats(struct handover *x, struct stats *st)
{
	int64_t began_at = st->began_at;
	int generation = (int)st->generation;

	handover_number(x, &st->began, 0, INT64_MAX);
	handover_number(x, &began_at, 0, INT64_MAX);
	handover_int(x, &generation, 1, INT_MAX);
	handover_bytes(x, &st->ended, sizeof(st->ended));
	handover_int(x, &st->failed, 0, 1);
	handover_text(x, &st->file);
	st->began_at = (time_t)began_at;
	st->generation = (unsigned)generation;
}
