/*
 * stats: counters of connections, for the log and for stats_file.  A child
 * writes the file, so that a hanging disk does not block the master.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"
#include "files.h"
#include "log.h"
#include "stats.h"
#include "util.h"

#define STATS_EVERY_MS	10000		/* between writers */
#define STATS_MS	5000		/* for a writer */
#define STATS_END_MS	1000		/* for a writer at a stop */

static const char *const failure_names[FAILURES] = {
	[FAILED_TIMEOUT] = "timeout",
	[FAILED_NOT_TLS] = "not_tls",
	[FAILED_CERTIFICATE] = "client_certificate",
	[FAILED_KEY] = "shared_key",
	[FAILED_NAME] = "server_name",
	[FAILED_PROXY] = "proxy_header",
	[FAILED_ALERT] = "client_alert",
	[FAILED_NOTHING_IN_COMMON] = "nothing_in_common",
	[FAILED_CLOSED] = "closed",
	[FAILED_OTHERWISE] = "other",
};

/* The label of a failure, with the name of the peer's role. */
static const char *
failure_name(int failure, int is_client)
{
	if (is_client && failure == FAILED_CERTIFICATE)
		return "server_certificate";
	if (is_client && failure == FAILED_ALERT)
		return "server_alert";
	return failure_names[failure];
}

/* The classes of logged reasons, by their first words. */
static const struct {
	const char *begins;
	enum failure failure;
} failures[] = {
	{ "handshake timeout", FAILED_TIMEOUT },
	{ "not TLS", FAILED_NOT_TLS },
	{ "no client certificate", FAILED_CERTIFICATE },
	{ "client certificate", FAILED_CERTIFICATE },
	{ "shared key", FAILED_KEY },
	{ "handshake: no shared key", FAILED_KEY },
	{ "the server does not know the shared key", FAILED_KEY },
	{ "no certificate for the name", FAILED_NAME },
	{ "no server name", FAILED_NAME },
	{ "no PROXY header", FAILED_PROXY },
	{ "bad PROXY header", FAILED_PROXY },
	{ "handshake: the client sent a fatal alert", FAILED_ALERT },
	{ "handshake: no ", FAILED_NOTHING_IN_COMMON },
	{ "client closed", FAILED_CLOSED },
	{ "client reset", FAILED_CLOSED },
	{ "no server certificate", FAILED_CERTIFICATE },
	{ "server certificate", FAILED_CERTIFICATE },
	{ "handshake: the server sent a fatal alert", FAILED_ALERT },
	{ "server closed", FAILED_CLOSED },
	{ "reset during the handshake", FAILED_CLOSED },
};

enum failure
stats_failure(const char *reason)
{
	size_t i;

	for (i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		if (strncmp(reason, failures[i].begins,
		    strlen(failures[i].begins)) == 0)
			return failures[i].failure;
	return FAILED_OTHERWISE;
}

void
stats_add(struct counts *sum, const volatile struct counts *n)
{
	size_t i;

	sum->live += n->live;
	sum->accepted += n->accepted;
	sum->served += n->served;
	sum->resumed += n->resumed;
	for (i = 0; i < FAILURES; i++)
		sum->refused[i] += n->refused[i];
	sum->opened[0] += n->opened[0];
	sum->opened[1] += n->opened[1];
	sum->no_backend += n->no_backend;
	sum->silent += n->silent;
	sum->over_limit += n->over_limit;
	sum->dropped += n->dropped;
	sum->in += n->in;
	sum->out += n->out;
	sum->lost += n->lost;
}

static uint64_t
refused_sum(const struct counts *n)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < FAILURES; i++)
		sum += n->refused[i];
	return sum;
}

void
stats_log(const struct stats *st, const struct stats_report *r)
{
	const struct counts *sum = &r->sum;

	log_notice("statistics: up %llds, %zu worker%s, live=%llu "
	    "max_connections=%lld accepted=%llu served=%llu resumed=%llu "
	    "refused=%llu no_backend=%llu silent=%llu dropped=%llu "
	    "over_max_per_ip=%llu lost=%llu in=%llu out=%llu",
	    (long long)(clock_ms() - st->began) / 1000, r->workers,
	    r->workers == 1 ? "" : "s", (unsigned long long)sum->live,
	    (long long)r->max_connections,
	    (unsigned long long)sum->accepted,
	    (unsigned long long)sum->served,
	    (unsigned long long)sum->resumed,
	    (unsigned long long)refused_sum(sum),
	    (unsigned long long)sum->no_backend,
	    (unsigned long long)sum->silent,
	    (unsigned long long)sum->dropped,
	    (unsigned long long)sum->over_limit,
	    (unsigned long long)sum->lost, (unsigned long long)sum->in,
	    (unsigned long long)sum->out);
}

/* Print a label's value, as printable ASCII, escaped for the format. */
static void
print_value(FILE *fp, const char *text, size_t len)
{
	for (; len > 0 && *text != '\0'; text++, len--) {
		if (*text < ' ' || *text > '~')
			fprintf(fp, "\\\\x%02x", (unsigned char)*text);
		else
			fprintf(fp, "%s%c", *text == '"' || *text == '\\' ?
			    "\\" : "", *text);
	}
}

/*
 * Print the label that distinguishes the services of a host: the name of the
 * configuration file without .conf.
 */
static void
print_service(FILE *fp, const char *file)
{
	const char *name = file != NULL ? strrchr(file, '/') : NULL;
	size_t len;

	name = name != NULL ? name + 1 : file != NULL ? file : "tunnel";
	len = strlen(name);
	if (len > 5 && strcmp(name + len - 5, ".conf") == 0)
		len -= 5;
	print_value(fp, name, len);
}

/* The output, and the present metric. */
struct exposition {
	FILE	*fp;
	const char *file;		/* the configuration file, or NULL */
	const char *metric;
};

static void
begin_metric(struct exposition *e, const char *name, const char *type,
    const char *help)
{
	e->metric = name;
	fprintf(e->fp, "# HELP tunnel_%s %s\n# TYPE tunnel_%s %s\n", name,
	    help, name, type);
}

/* Print a sample, with a second label unless it is NULL. */
static void
print_sample(const struct exposition *e, const char *label,
    const char *value, int64_t n)
{
	fprintf(e->fp, "tunnel_%s{service=\"", e->metric);
	print_service(e->fp, e->file);
	if (label != NULL) {
		fprintf(e->fp, "\",%s=\"", label);
		print_value(e->fp, value, SIZE_MAX);
	}
	fprintf(e->fp, "\"} %lld\n", (long long)n);
}

static void
print_metric(struct exposition *e, const char *name, const char *type,
    const char *help, uint64_t n)
{
	begin_metric(e, name, type, help);
	print_sample(e, NULL, NULL, (int64_t)n);
}

static void
print_connections(struct exposition *e, const struct counts *n)
{
	const struct {
		const char *reason;
		uint64_t count;
	} unserved[] = {
		{ "handshake", refused_sum(n) }, { "silent", n->silent },
		{ "full", n->dropped }, { "max_per_ip", n->over_limit },
		{ "no_backend", n->no_backend }, { "lost", n->lost },
	};
	size_t i;

	print_metric(e, "connections", "gauge", "Current connections.",
	    n->live);
	print_metric(e, "connections_accepted_total", "counter",
	    "Connections accepted.", n->accepted);
	print_metric(e, "connections_served_total", "counter",
	    "Connections that reached the backend and have ended.", n->served);
	print_metric(e, "connections_resumed_total", "counter",
	    "Served connections that resumed a session.", n->resumed);
	begin_metric(e, "connections_refused_total", "counter",
	    "Connections not served, or lost with a worker.");
	for (i = 0; i < sizeof(unserved) / sizeof(unserved[0]); i++)
		print_sample(e, "reason", unserved[i].reason,
		    (int64_t)unserved[i].count);
	print_metric(e, "received_bytes_total", "counter",
	    "Bytes of data received from clients.", n->in);
	print_metric(e, "sent_bytes_total", "counter",
	    "Bytes of data sent to clients.", n->out);
}

static void
print_handshakes(struct exposition *e, const struct counts *n, int is_client)
{
	int i;

	begin_metric(e, "handshakes_total", "counter",
	    "Handshakes completed, by TLS version.");
	print_sample(e, "version", "TLSv1.2", (int64_t)n->opened[0]);
	print_sample(e, "version", "TLSv1.3", (int64_t)n->opened[1]);
	begin_metric(e, "handshake_failures_total", "counter",
	    "Handshakes that failed.");
	for (i = 0; i < FAILURES; i++)
		print_sample(e, "reason", failure_name(i, is_client),
		    (int64_t)n->refused[i]);
}

/* 1 if a file occurs before: a series must not be printed twice. */
static int
is_named_before(const struct stats_report *r, size_t i, const char *file)
{
	const char *other;
	int64_t at;

	while (i-- > 0)
		if (r->expiry(r->arg, i, &other, &at) == 0 &&
		    strcmp(other, file) == 0)
			return 1;
	return 0;
}

static void
print_certificates(struct exposition *e, const struct stats_report *r)
{
	const char *file;
	int64_t at;
	size_t i;

	for (i = 0; r->expiry(r->arg, i, &file, &at) == 0; i++) {
		if (i == 0)
			begin_metric(e, "certificate_expiry_timestamp_seconds",
			    "gauge", "When the certificate expires.");
		if (!is_named_before(r, i, file))
			print_sample(e, "file", file, at);
	}
}

static void
print_stats(FILE *fp, const struct stats *st, const struct stats_report *r)
{
	struct exposition e = { .fp = fp, .file = r->config };

	begin_metric(&e, "build_info", "gauge", "The version of tunnel.");
	print_sample(&e, "version", r->version, 1);
	begin_metric(&e, "library_info", "gauge", "The version of mbed TLS.");
	print_sample(&e, "version", r->library, 1);
	print_metric(&e, "start_time_seconds", "gauge",
	    "When the master was started.", (uint64_t)st->began_at);
	print_metric(&e, "workers", "gauge", "Worker processes.",
	    r->workers);
	print_metric(&e, "generation", "gauge",
	    "Configurations loaded since the start.",
	    st->generation);
	print_metric(&e, "max_connections", "gauge",
	    "Maximum number of concurrent connections.", r->max_connections);
	print_connections(&e, &r->sum);
	print_handshakes(&e, &r->sum, r->is_client);
	print_certificates(&e, r);
}

/*
 * Replace the file atomically: a reader finds the old one or the new one.
 * NULL, or the error; then the old file is unchanged.
 */
static const char *
replace_file(const struct stats *st, const struct stats_report *r)
{
	const char *why = r->fault(r->arg, r->path);
	char fresh[PATH_MAX];
	FILE *fp;
	int n;

	if (why != NULL)
		return why;
	n = snprintf(fresh, sizeof(fresh), "%s.new", r->path);
	if ((size_t)n >= sizeof(fresh))
		return strerror(ENAMETOOLONG);
	unlink(fresh);			/* left by a killed writer */
	if ((fp = files_create(fresh, 0644)) == NULL)
		return strerror(errno);
	print_stats(fp, st, r);
	if (fclose(fp) == 0 && rename(fresh, r->path) == 0)
		return NULL;
	why = strerror(errno);
	unlink(fresh);
	return why;
}

/* In the child: replace the file, or remove it without a path. */
static int
writer_main(const struct stats *st, const struct stats_report *r)
{
	const char *why = NULL;

	log_lost_take();		/* the master reports its own */
	/* A hanging writer must not keep the master's sockets open. */
	daemon_close_all_but(NULL, 0);
	if (r->path != NULL)
		why = replace_file(st, r);
	if (why != NULL && !st->failed)
		log_warning("%s: stats_file: %s: %s", r->where, r->path, why);
	if (st->file != NULL &&
	    (r->path == NULL || strcmp(r->path, st->file) != 0))
		unlink(st->file);
	return why != NULL;
}

static void
writer_start(struct stats *st, const struct stats_report *r)
{
	const char *path = r->path;
	int64_t now = clock_ms();
	pid_t pid = fork();

	if (pid == 0)
		_exit(writer_main(st, r));
	st->write_at = now + STATS_EVERY_MS;
	st->kill_at = now + STATS_MS;
	if (pid == -1) {
		log_warning("stats_file cannot be written: %s",
		    strerror(errno));
		return;
	}
	st->writer = pid;
	if (path != NULL && st->file != NULL && strcmp(path, st->file) == 0)
		return;
	free(st->file);
	st->file = path != NULL ? strdup(path) : NULL;
}

int64_t
stats_due(const struct stats *st, int is_wanted)
{
	if (st->writer != 0)
		return st->kill_at;
	return is_wanted || st->file != NULL ? st->write_at : INT64_MAX;
}

void
stats_step(struct stats *st, const struct stats_report *r)
{
	if (st->writer == 0) {
		writer_start(st, r);
		return;
	}
	st->kill_at = INT64_MAX;
	kill(st->writer, SIGKILL);
	if (!st->failed)
		log_warning("stats_file: %s: not written within %d s", st->file,
		    STATS_MS / 1000);
	st->failed = 1;
}

void
stats_reaped(struct stats *st, pid_t pid, int status)
{
	int failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;

	if (pid != st->writer)
		return;
	st->writer = 0;
	if (st->failed && !failed)
		log_notice("stats_file: %s: written again", st->file);
	st->failed = failed;
}

void
stats_await(struct stats *st)
{
	daemon_end_child(&st->writer, STATS_END_MS);
}

void
stats_end(struct stats *st)
{
	static const struct stats_report none = { .path = NULL };

	stats_await(st);
	if (st->file == NULL)
		return;
	writer_start(st, &none);
	stats_await(st);
}
