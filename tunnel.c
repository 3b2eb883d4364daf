#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#else
#define malloc_trim(pad)	((void)0)
#endif

#include "forward.h"
#include "log.h"
#include "stream.h"
#include "tls.h"
#include "util.h"

#ifndef VERSION
#define VERSION		"0"
#endif

#define EXIT_CONFIG	2
#define LINE_MAX_LEN	4096		/* of a configuration file */
#define LOG_SIZE	2048
#define BOM		"\xef\xbb\xbf"	/* of UTF-8, as some editors put it */
#define TEXT_SIZE	512
#define HINT_SIZE	1024
#define WORD_SIZE	32		/* of one that may be misspelt */
#define ERRORS_READ	1000		/* and for which it is read on */
#define ADDRESS_SIZE	128		/* of an address as text */
#define ADDRESSES	16		/* of one name */
#define COMMAND_WORDS	63
#define BACKLOG		1024
#define PATIENCE	1000		/* with a lock, in sched_yield(2) */
#define PROBES		1024		/* of a table: more are a fault */
#define BURST		32		/* connections that use memory */
#define SPARE_FDS	(32 + FORWARD_LISTENERS)	/* not connections' */
#define PROXY_V1_MAX	107		/* bytes, with the end of the line */
#define PROXY_V2_HEAD	16
#define PROXY_V2_BODY	2048		/* at most, that is taken */
#define PROXY_UNIX	108		/* bytes of a path */
#define PROXY_HEADER	2048		/* at most, that is made */
#define STARVED_MS	100		/* accepting pauses for */
#define STARVED_EVERY	10		/* seconds between two complaints */
#define FULL_EVERY_MS	60000		/* the same, of max_connections */
#define ASK_EVERY_MS	20		/* workers to make room, and up to */
#define ASK_AT_ONCE	16		/* as many */
#define REASON_SIZE	96		/* of lines that may repeat */
#define REPEATS		5		/* of one reason and address, */
#define REPEATS_ALL	100		/* and in sum, are logged in */
#define REPEATS_MS	10000		/* as long; others are counted */
#define DAY		(24 * 60 * 60)
#define WORKERS_MAX	256
#define PASSED		3		/* systemd's first descriptor */
#define HEALTHY_MS	5000		/* without a failure: all is well */
#define GRACE_MS	5000		/* to leave in, when all time is up */
#define DEAF_MS		1000		/* for it to accept no more */
#define KEEPALIVE_PROBES 5		/* to a peer that says nothing */
#define LAST_MS		1000		/* to accept what waits at a stop */
#define START_MS	3000		/* for a worker to get ready */
#define BEATS		4		/* of a worker, in WATCHDOG_USEC */
#define TRIAL_MS	60000		/* for a new program's -t */
#define TAKEOVER_FDS	16		/* to take over, or to go back, with */
#define STATS_EVERY_MS	10000		/* they are written, within */
#define STATS_MS	5000		/* and at the end, removed within */
#define STATS_END_MS	1000
#define RETRY_MS	100		/* a crash loop: doubled each time, */
#define RETRY_MAX_MS	30000		/* up to this */

/*
 * THE SIGNALS
 */

enum { SIGNALS = 7 };
static const int signals[SIGNALS] = {
	SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD
};
static volatile sig_atomic_t got_stop, got_cut, got_hup, got_usr1, got_usr2,
    got_child;

/*
 * THE OPTIONS
 * One row each; the man page and the example are held against them by a test.
 */

enum {
	ACCEPT, CONNECT, EXEC, PROXY_PROTOCOL, ACCEPT_PROXY, CERT, KEY,
	KEY_PASSWORD_FILE, SNI_STRICT, CA, CRL, VERIFY, PEER, TLS_MIN, TLS_MAX,
	CIPHERS, GROUPS, ALPN, TRUNCATION, KTLS, SESSION_TICKETS,
	TICKET_LIFETIME, TICKET_KEYS, SESSION_CACHE, MAX_CONNECTIONS,
	MAX_PER_IP, HANDSHAKE_TIMEOUT, CONNECT_TIMEOUT, IDLE_TIMEOUT,
	LINGER_TIMEOUT, DRAIN_TIMEOUT, RELOAD_TIMEOUT, KEEPALIVE, MODE,
	WORKERS, USER, GROUP, CHROOT, SANDBOX, DAEMON, PIDFILE, LOG, LOG_LEVEL,
	STATS_FILE, OPTIONS
};

enum type { TEXT, LIST, NUMBER, TIME, CHOICE };

static const char *const no_yes[] = { "no", "yes", NULL };
static const char *const verifies[] = {
	"none", "request", "require", NULL
};
static const char *const proxies[] = { "off", "v1", "v2", NULL };
static const char *const versions[] = { "1.2", "1.3", NULL };
static const char *const truncations[] = { "reset", "eof", NULL };
static const char *const kernels[] = { "auto", "off", "require", NULL };
static const char *const modes[] = { "poll", "fork", NULL };
static const char *const or_off[] = { "off", NULL };
static const char *const or_auto[] = { "auto", NULL };

static const struct option {
	const char *name;
	enum type type;
	const char *fallback;		/* NULL: none */
	const char *const *choices;	/* of a CHOICE; else: words for 0 */
	int64_t	 min, max;		/* of a NUMBER; of a TIME in seconds */
	const char *help;
} options[OPTIONS] = {
	[ACCEPT] = { "accept", LIST, NULL, NULL, 0, 0,
	    "[host:]port, unix:/path or fd:N to accept TLS on" },
	[CONNECT] = { "connect", LIST, NULL, NULL, 0, 0,
	    "[host:]port or unix:/path of the plaintext service" },
	[EXEC] = { "exec", TEXT, NULL, NULL, 0, 0,
	    "command to run for each connection, instead of connect" },
	[PROXY_PROTOCOL] = { "proxy_protocol", CHOICE, "off", proxies, 0, 0,
	    "tell the service who the client is, in that version" },
	[ACCEPT_PROXY] = { "accept_proxy", CHOICE, "no", no_yes, 0, 0,
	    "take the client's address from a balancer in front" },
	[CERT] = { "cert", LIST, NULL, NULL, 0, 0,
	    "PEM file with a certificate chain, leaf first" },
	[KEY] = { "key", LIST, NULL, NULL, 0, 0,
	    "PEM file with its private key, if not in cert" },
	[KEY_PASSWORD_FILE] = { "key_password_file", TEXT, NULL, NULL, 0, 0,
	    "file with the password of an encrypted key" },
	[SNI_STRICT] = { "sni_strict", CHOICE, "no", no_yes, 0, 0,
	    "refuse clients that ask for no name of a certificate" },
	[CA] = { "ca", TEXT, NULL, NULL, 0, 0,
	    "PEM file or directory: who issues clients' certificates" },
	[CRL] = { "crl", TEXT, NULL, NULL, 0, 0,
	    "PEM file or directory: which of them are revoked" },
	[VERIFY] = { "verify", CHOICE, "none", verifies, 0, 0,
	    "ask clients for a certificate, or insist on one" },
	[PEER] = { "peer", LIST, NULL, NULL, 0, 0,
	    "cn:, dns:, ip:, uri:, pin:sha256/ or cert: it has to fit" },
	[TLS_MIN] = { "tls_min", CHOICE, "1.2", versions, 0, 0,
	    "oldest TLS version" },
	[TLS_MAX] = { "tls_max", CHOICE, "1.3", versions, 0, 0,
	    "newest TLS version" },
	[CIPHERS] = { "ciphers", TEXT, NULL, NULL, 0, 0,
	    "cipher suites to accept, best first" },
	[GROUPS] = { "groups", TEXT, NULL, NULL, 0, 0,
	    "key exchange groups to accept, best first" },
	[ALPN] = { "alpn", TEXT, NULL, NULL, 0, 0,
	    "application protocols to accept, best first" },
	[TRUNCATION] = { "truncation", CHOICE, "reset", truncations, 0, 0,
	    "what a client's end without close_notify is taken for" },
	[KTLS] = { "ktls", CHOICE, "auto", kernels, 0, 0,
	    "let the kernel do TLS, once a handshake is over" },
	[SESSION_TICKETS] = { "session_tickets", CHOICE, "yes", no_yes, 0, 0,
	    "let clients resume sessions" },
	[TICKET_LIFETIME] = { "ticket_lifetime", TIME, "12h", NULL, 1, 604800,
	    "for how long, after the full handshake" },
	[TICKET_KEYS] = { "ticket_keys", TEXT, NULL, NULL, 0, 0,
	    "file with keys (tunnel -k), if not made here" },
	[SESSION_CACHE] = { "session_cache", NUMBER, "1024", or_off,
	    1, 1000000, "sessions of TLS 1.2 clients without tickets" },
	[MAX_CONNECTIONS] = { "max_connections", NUMBER, "1000", NULL,
	    1, 1000000, "maximum number of concurrent connections" },
	[MAX_PER_IP] = { "max_per_ip", NUMBER, "off", or_off, 1, 1000000,
	    "connections of one IPv4 address or IPv6 /64" },
	[HANDSHAKE_TIMEOUT] = { "handshake_timeout", TIME, "10s", or_off,
	    1, 3600, "for a client's TLS handshake" },
	[CONNECT_TIMEOUT] = { "connect_timeout", TIME, "5s", or_off,
	    1, 3600, "for each address of the service" },
	[IDLE_TIMEOUT] = { "idle_timeout", TIME, "off", or_off,
	    1, 31536000, "without a byte either way" },
	[LINGER_TIMEOUT] = { "linger_timeout", TIME, "60s", or_off,
	    1, 31536000, "the same, once one side has ended" },
	[DRAIN_TIMEOUT] = { "drain_timeout", TIME, "30s", or_off,
	    1, 31536000, "for connections to finish at a stop" },
	[RELOAD_TIMEOUT] = { "reload_timeout", TIME, "off", or_off,
	    1, 31536000, "the same, at a reload" },
	[KEEPALIVE] = { "keepalive", TIME, "5m", or_off,
	    6, 64800, "until a dead peer is found, on TCP" },
	[MODE] = { "mode", CHOICE, "poll", modes, 0, 0,
	    "workers with many connections, or a process for each" },
	[WORKERS] = { "workers", NUMBER, "1", or_auto, 1, WORKERS_MAX,
	    "processes that share the connections; auto: one per CPU" },
	[USER] = { "user", TEXT, NULL, NULL, 0, 0,
	    "user that workers run as" },
	[GROUP] = { "group", TEXT, NULL, NULL, 0, 0,
	    "group that workers run as, if not the user's" },
	[CHROOT] = { "chroot", TEXT, NULL, NULL, 0, 0,
	    "directory that workers are locked in" },
	[SANDBOX] = { "sandbox", CHOICE, "yes", no_yes, 0, 0,
	    "keep workers from all they have no need of" },
	[DAEMON] = { "daemon", CHOICE, "no", no_yes, 0, 0,
	    "go into the background once started" },
	[PIDFILE] = { "pidfile", TEXT, NULL, NULL, 0, 0,
	    "file to write the process ID to" },
	[LOG] = { "log", TEXT, "stderr", NULL, 0, 0,
	    "stderr, syslog, or a file" },
	[LOG_LEVEL] = { "log_level", CHOICE, "info", log_levels, 0, 0,
	    "how much to log" },
	[STATS_FILE] = { "stats_file", TEXT, NULL, NULL, 0, 0,
	    "file for counters, in the text format of Prometheus" },
};

/*
 * What users of stunnel will write, and what it is here.  Advice follows the
 * name of our key; a value that is copied, if ours takes such a one.
 */
static const struct theirs {
	const char *theirs;
	const char *value;		/* that the row is about; NULL: any */
	const char *ours;		/* NULL: no key is like it */
	const char *advice;
	int	 is_copied;
	const char *covers;		/* keys that are not missed with it */
} stunnel[] = {
	{ "CAengine", .advice = "keys and certificates are PEM files" },
	{ "CAfile", .ours = "ca", .is_copied = 1, .advice =
	    "; with verifyPeer = yes it is peer = cert:FILE, and no ca",
	    .covers = "peer" },
	{ "CApath", .ours = "ca", .is_copied = 1, .covers = "peer" },
	{ "checkEmail", .advice = "no rule of peer is about mail addresses" },
	{ "checkHost", .ours = "peer", .advice = ": peer = dns:NAME" },
	{ "checkIP", .ours = "peer", .advice = ": peer = ip:ADDRESS" },
	{ "ciphersuites", .advice = "ciphers is one list for TLS 1.2 and "
	    "1.3" },
	{ "client", "no", .advice =
	    "it is always the server: delete the line" },
	{ "client", .advice = "the other end, plaintext in and TLS out, is "
	    "not in this version", .covers = "cert" },
	{ "compression", .advice = "there is none: delete the line" },
	{ "config", .advice = "there is no OpenSSL here: delete the line" },
	{ "CRLfile", .ours = "crl", .is_copied = 1 },
	{ "CRLpath", .ours = "crl", .is_copied = 1 },
	{ "curve", .ours = "groups", .is_copied = 1 },
	{ "curves", .ours = "groups", .is_copied = 1 },
	{ "debug", .ours = "log_level", .advice = ": 0 to 3 are error, 4 is "
	    "warning, 5 notice, 6 info, 7 debug" },
	{ "delay", .advice = "names are looked up at start and at a reload: "
	    "delete the line" },
	{ "EGD", .advice = "the kernel has random numbers: delete the line" },
	{ "engine", .advice = "keys are PEM files, not of an engine" },
	{ "engineCtrl", .advice = "there are no engines: delete the line" },
	{ "engineDefault", .advice = "there are no engines: delete the line" },
	{ "engineId", .advice = "keys are PEM files, not of an engine" },
	{ "engineNum", .advice = "keys are PEM files, not of an engine" },
	{ "execArgs", .ours = "exec", .advice = ": exec = PROGRAM ARGUMENT "
	    "..., without the name that execArgs begins with" },
	{ "failover", .ours = "connect", .advice = ": several take turns, and "
	    "the next one is tried on failure; delete the line" },
	{ "fips", "no", .advice = "that is how it is: delete the line" },
	{ "fips", .advice = "mbed TLS has no FIPS validation" },
	{ "foreground", "no", .ours = "daemon", .advice = ": daemon = yes" },
	{ "foreground", .ours = "daemon", .advice = ", the other way round, "
	    "and no by default: delete the line" },
	{ "ident", .advice = "it asks no ident service" },
	{ "include", .advice = "there are no includes: one file for each "
	    "service" },
	{ "libwrap", .advice = "there are no TCP wrappers (a packet filter "
	    "can do it): delete the line" },
	{ "local", .advice = "the source address can't be chosen" },
	{ "logId", .advice = "a connection's line in the log has the client's "
	    "address and port: delete the line" },
	{ "OCSP", .advice = "there is no OCSP (crl has revocation lists)" },
	{ "OCSPaia", .advice = "there is no OCSP (crl has revocation lists)" },
	{ "OCSPflag", .advice = "there is no OCSP: delete the line" },
	{ "OCSPnonce", .advice = "there is no OCSP: delete the line" },
	{ "OCSPrequire", .advice = "there is no OCSP: delete the line" },
	{ "options", .advice = "there is no OpenSSL here, and no TLS below "
	    "1.2: delete the line (NO_TLSv1_2 is tls_min = 1.3, NO_TLSv1_3 "
	    "is tls_max = 1.2)" },
	{ "output", .ours = "log", .is_copied = 1 },
	{ "pid", .ours = "pidfile", .is_copied = 1, .advice = "; another one "
	    "for each service, or none under a service manager" },
	{ "protocol", "proxy", .ours = "proxy_protocol", .advice =
	    ": proxy_protocol = v1" },
	{ "protocol", .advice = "STARTTLS and its like are not spoken: TLS "
	    "comes first, as on the ports 465, 993 and 995" },
	{ "provider", .advice = "keys are PEM files, not of a provider" },
	{ "PSKidentity", .advice = "shared keys are not in this version",
	    .covers = "cert ciphers" },
	{ "PSKsecrets", .advice = "shared keys are not in this version",
	    .covers = "cert ciphers" },
	{ "pty", .advice = "a command gets a socket, not a terminal" },
	{ "redirect", .advice = "a client that fails is refused" },
	{ "renegotiation", .advice = "there is none: delete the line" },
	{ "requireCert", .ours = "verify", .advice = ": yes is verify = "
	    "require, no is verify = request", .covers = "verify" },
	{ "reset", .advice = "an abort is always told as one: delete the "
	    "line" },
	{ "retry", .advice = "a command is run for each connection" },
	{ "RNDbytes", .advice = "the kernel has random numbers: delete the "
	    "line" },
	{ "RNDfile", .advice = "the kernel has random numbers: delete the "
	    "line" },
	{ "RNDoverwrite", .advice = "the kernel has random numbers: delete "
	    "the line" },
	{ "securityLevel", .advice = "there is no OpenSSL here: delete the "
	    "line" },
	{ "service", .advice = "the name in syslog is tunnel: delete the "
	    "line" },
	{ "sessionCacheSize", .ours = "session_cache", .is_copied = 1 },
	{ "sessionCacheTimeout", .ours = "ticket_lifetime", .is_copied = 1 },
	{ "sessiond", .advice = "ticket_keys are for several hosts" },
	{ "sessionResume", .ours = "session_tickets and session_cache",
	    .advice = ": yes is the default, no is no and off" },
	{ "setgid", .ours = "group", .is_copied = 1 },
	{ "setuid", .ours = "user", .is_copied = 1 },
	{ "sni", .advice = "a service is not chosen by the server's name "
	    "(HAProxy and nginx do that); several cert are, for one service" },
	{ "socket", .advice = "TCP_NODELAY, SO_KEEPALIVE and SO_REUSEADDR are "
	    "set anyway: delete the line" },
	{ "sslVersion", .ours = "tls_min and tls_max", .advice = ": TLSv1.2 "
	    "is tls_max = 1.2, TLSv1.3 is tls_min = 1.3; for all others "
	    "delete the line" },
	{ "sslVersionMax", .ours = "tls_max", .advice = ": 1.2 or 1.3" },
	{ "sslVersionMin", .ours = "tls_min", .advice = ": 1.2 or 1.3" },
	{ "stack", .advice = "there are no threads: delete the line" },
	{ "syslog", "no", .ours = "log", .advice = ", stderr by default: "
	    "delete the line" },
	{ "syslog", .ours = "log", .advice = ": log = syslog" },
	{ "ticketKeySecret", .ours = "ticket_keys", .advice =
	    ", a file (tunnel -k makes its lines)" },
	{ "ticketMacSecret", .ours = "ticket_keys", .advice =
	    ", a file (tunnel -k makes its lines)" },
	{ "TIMEOUTbusy", .ours = "handshake_timeout", .is_copied = 1 },
	{ "TIMEOUTclose", .ours = "linger_timeout", .advice =
	    ": delete the line (here it bounds half-closed connections, which "
	    "may have data to come)" },
	{ "TIMEOUTconnect", .ours = "connect_timeout", .is_copied = 1 },
	{ "TIMEOUTidle", .ours = "idle_timeout", .is_copied = 1 },
	{ "TIMEOUTocsp", .advice = "there is no OCSP: delete the line" },
	{ "transparent", .advice = "proxy_protocol tells the service the "
	    "client's address" },
	{ "verifyChain", "no", .ours = "verify", .advice =
	    ": delete the line" },
	{ "verifyChain", .ours = "verify", .advice = ": verify = require" },
	{ "verifyPeer", "no", .ours = "peer", .advice = ": delete the line" },
	{ "verifyPeer", .ours = "peer", .advice = ": peer = cert:FILE, with "
	    "CAfile's FILE, and verify = require", .covers = "ca verify" },
};

/* Values that mean something else there. */
static const struct {
	int	 option;
	const char *value, *advice;
} their_values[] = {
	{ VERIFY, "0", "stunnel's 0 is none" },
	{ VERIFY, "1", "stunnel's 1 is request" },
	{ VERIFY, "2", "stunnel's 2 is require" },
	{ VERIFY, "3", "stunnel's 3 is require, with peer = cert:FILE in "
	    "place of ca" },
	{ VERIFY, "4", "stunnel's 4 is require, with peer = cert:FILE in "
	    "place of ca" },
	{ LOG, "append", "stunnel's append is what is always done: delete the "
	    "line" },
	{ LOG, "overwrite", "a log is always appended to: delete the line" },
};

/*
 * THE CONFIGURATION
 * What was given, and from where.
 */

/* A value as it was given, and where: "tunnel.conf:12". */
struct value {
	struct value *next;
	char	*text;
	char	*where;
	int	 rank;			/* of its source; the higher one wins */
};

enum { FROM_FILE, FROM_ARGUMENT };
enum { POLL, FORK };			/* modes */
enum { NONE, REQUEST, REQUIRE };	/* verify */

/* All that was configured, as a value: another may stand beside it. */
struct config {
	struct value *given[OPTIONS];
	int64_t	 number[OPTIONS];	/* NUMBER; CHOICE: index; TIME: ms */
	char	**command;		/* NULL: none; ends with NULL */
	char	*exec;			/* its words, if it is of the file */
	int	 is_wrong[OPTIONS];	/* there was an error about it */
	int	 sections;		/* that are not to be */
};

static void
values_free(struct value *v)
{
	struct value *next;

	for (; v != NULL; v = next) {
		next = v->next;
		free(v->text);
		free(v->where);
		free(v);
	}
}

static void
config_free(struct config *cfg)
{
	size_t i;

	for (i = 0; i < OPTIONS; i++)
		values_free(cfg->given[i]);
	free(cfg->command);
	free(cfg->exec);
	memset(cfg, 0, sizeof(*cfg));
}

/* The text of an option, or NULL. */
static const char *
config_text(const struct config *cfg, int option)
{
	return cfg->given[option] != NULL ? cfg->given[option]->text :
	    options[option].fallback;
}

static const char *
config_where(const struct config *cfg, int option)
{
	return cfg->given[option] != NULL ? cfg->given[option]->where :
	    "default";
}

/* 30s, 5m, 12h or 7d, as milliseconds. */
static int
parse_time(const char *text, int64_t min, int64_t max, int64_t *ms)
{
	static const struct { char unit; int64_t seconds; } units[] = {
		{ 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }
	};
	char digits[16];
	size_t i, n = strlen(text);
	int64_t count;

	if (n < 2 || n > sizeof(digits))
		return -1;
	snprintf(digits, sizeof(digits), "%.*s", (int)n - 1, text);
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (units[i].unit != text[n - 1])
			continue;
		if (parse_number(digits, 0, max, &count) == -1 ||
		    count * units[i].seconds < min ||
		    count * units[i].seconds > max)
			return -1;
		*ms = count * units[i].seconds * 1000;
		return 0;
	}
	return -1;
}

static int
parse_choice(const char *text, const char *const *choices, int64_t *choice)
{
	int64_t i;

	for (i = 0; choices[i] != NULL; i++) {
		if (strcmp(choices[i], text) == 0) {
			*choice = i;
			return 0;
		}
	}
	return -1;
}

/*
 * HINTS
 * What somebody may have meant.
 */

/* Letters and digits alone, in lower case; not of a word that is too long. */
static size_t
fold(char *out, const char *in)
{
	size_t n = 0;

	for (; *in != '\0' && n < WORD_SIZE; in++)
		if (isalnum((unsigned char)*in))
			out[n++] = (char)tolower((unsigned char)*in);
	n = n < WORD_SIZE ? n : 0;
	out[n] = '\0';
	return n;
}

static size_t
least(size_t a, size_t b, size_t c)
{
	return a < b ? (a < c ? a : c) : b < c ? b : c;
}

/*
 * How many letters were left out, put in, mistaken or exchanged with the next
 * one: Damerau's and Levenshtein's distance, three rows of its table at a time.
 */
static size_t
distance(const char *a, const char *b)
{
	size_t rows[3][WORD_SIZE], i, j, n = strlen(b);

	for (j = 0; j <= n; j++)
		rows[0][j] = j;
	for (i = 1; a[i - 1] != '\0'; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3];

		row[0] = i;
		for (j = 1; j <= n; j++) {
			row[j] = least(row[j - 1] + 1, above[j] + 1,
			    above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				row[j] = least(row[j], row[j],
				    rows[(i + 1) % 3][j - 2] + 1);
		}
	}
	return rows[(i + 2) % 3][n];
}

/* How far a word is from another one; SIZE_MAX: too far to be it. */
static size_t
misspelt(const char *text, const char *word)
{
	char a[WORD_SIZE + 1], b[WORD_SIZE + 1];
	size_t m = fold(a, text), n = fold(b, word), d;
	size_t shorter = m < n ? m : n;

	if (shorter < 2)
		return SIZE_MAX;
	d = distance(a, b);
	if (d <= (shorter < 5 ? shorter > 2 : 2))
		return d;
	return shorter > 2 && strncmp(a, b, shorter) == 0 ? WORD_SIZE :
	    SIZE_MAX;
}

/* The option that a name is nearest to, or -1. */
static int
option_near(const char *name)
{
	size_t best = SIZE_MAX, d;
	int i, near = -1;

	for (i = 0; i < OPTIONS; i++) {
		d = misspelt(name, options[i].name);
		if (d < best) {
			best = d;
			near = i;
		}
	}
	return near;
}

/* The same of the values that an option may have; or NULL. */
static const char *
choice_near(const char *const *choices, const char *text)
{
	static const char *const truths[] = { "false", "off", "0", NULL },
	    *const falses[] = { "true", "on", "1", NULL };
	const char *near = NULL;
	size_t best = SIZE_MAX, d, i;
	int64_t ignored;

	if (choices == no_yes && parse_choice(text, truths, &ignored) == 0)
		return "no";
	if (choices == no_yes && parse_choice(text, falses, &ignored) == 0)
		return "yes";
	for (i = 0; choices != NULL && choices[i] != NULL; i++) {
		d = misspelt(text, choices[i]);
		if (d < best) {
			best = d;
			near = choices[i];
		}
	}
	return near;
}

/* What a value would mean to stunnel, if that is something else; or NULL. */
static const char *
their_value(const struct option *o, const char *text)
{
	size_t i;

	for (i = 0; i < sizeof(their_values) / sizeof(their_values[0]); i++)
		if (&options[their_values[i].option] == o &&
		    strcasecmp(their_values[i].value, text) == 0)
			return their_values[i].advice;
	return NULL;
}

/* What follows "allowed: ..." of a value that is not; may be empty. */
static void
value_hint(const struct option *o, const char *text, char *hint, size_t size)
{
	const char *near = choice_near(o->choices, text);
	const char *theirs = their_value(o, text);
	char seconds[WORD_SIZE];
	int64_t ms;

	hint[0] = '\0';
	snprintf(seconds, sizeof(seconds), "%ss", text);
	if (near == NULL && o->type == TIME &&
	    parse_time(seconds, o->min, o->max, &ms) == 0)
		near = seconds;
	if (theirs != NULL)
		snprintf(hint, size, "; %s", theirs);
	else if (near != NULL)
		snprintf(hint, size, "; did you mean %s?", near);
}

/* The values that there are, as text. */
static void
option_allowed(const struct option *o, char *text, size_t size)
{
	char words[TEXT_SIZE / 4] = "";

	if (o->choices != NULL)
		text_join(words, sizeof(words), o->choices);
	if (o->type == NUMBER)
		snprintf(text, size, "%s%s%lld to %lld", words,
		    words[0] != '\0' ? ", or " : "", (long long)o->min,
		    (long long)o->max);
	else if (o->type == TIME)
		snprintf(text, size, "%s, or a number with its unit s, m, h or "
		    "d, %llds to %llds", words, (long long)o->min,
		    (long long)o->max);
	else if (o->type == CHOICE)
		snprintf(text, size, "%s", words);
	else
		snprintf(text, size, "%s", o->help);
}

/* The number behind a text, if it has one; -1: it is none of this option's. */
static int
option_number(const struct option *o, const char *text, int64_t *number)
{
	if (their_value(o, text) != NULL)
		return -1;
	if (o->choices != NULL && parse_choice(text, o->choices, number) == 0)
		return 0;
	switch (o->type) {
	case NUMBER:
		return parse_number(text, o->min, o->max, number);
	case TIME:
		return parse_time(text, o->min, o->max, number);
	case CHOICE:
		return -1;
	default:
		return 0;
	}
}

/* The same; -1 after one sentence. */
static int
option_parse(const struct option *o, const char *text, const char *where,
    int64_t *number)
{
	char allowed[TEXT_SIZE], hint[TEXT_SIZE / 4];

	if (option_number(o, text, number) == 0)
		return 0;
	option_allowed(o, allowed, sizeof(allowed));
	value_hint(o, text, hint, sizeof(hint));
	log_error("%s: %s = \"%s\" is not valid (allowed: %s%s)", where,
	    o->name, text, allowed, hint);
	return -1;
}

static int
option_find(const char *name)
{
	int i;

	for (i = 0; i < OPTIONS; i++)
		if (strcmp(options[i].name, name) == 0)
			return i;
	return -1;
}

/* What follows from an error about these keys is no other one. */
static void
config_blame(struct config *cfg, const char *keys)
{
	char name[WORD_SIZE];
	size_t n;
	int i;

	for (; keys != NULL && *keys != '\0'; keys += n + (keys[n] != '\0')) {
		n = strcspn(keys, " ");
		snprintf(name, sizeof(name), "%.*s", (int)n, keys);
		if ((i = option_find(name)) != -1)
			cfg->is_wrong[i] = 1;
	}
}

/* Nobody knows what was lost. */
static void
config_blame_all(struct config *cfg)
{
	size_t i;

	for (i = 0; i < OPTIONS; i++)
		cfg->is_wrong[i] = 1;
}

/* stunnel's value as a line of ours; or empty. */
static void
copied_line(const struct theirs *t, const char *text, char *line, size_t size)
{
	int i = t->is_copied ? option_find(t->ours) : -1;
	char value[TEXT_SIZE];
	int64_t ignored;

	line[0] = '\0';
	if (i == -1 || strlen(text) + 1 >= sizeof(value))
		return;
	snprintf(value, sizeof(value), "%s", text);
	if (options[i].type == TIME && *text != '\0' &&
	    strspn(text, "0123456789") == strlen(text))
		snprintf(value, sizeof(value), "%ss", text);
	else if (i == GROUPS)
		tls_translate_groups(text, value, sizeof(value));
	if (*text == '\0')
		snprintf(line, size, ": delete the line");
	else if (value[0] == '\0')
		snprintf(line, size, ", without \"%s\": delete the line", text);
	else if (option_number(&options[i], value, &ignored) == 0)
		snprintf(line, size, ": %s = %s", t->ours, value);
}

/* The first row for such a line, in which case and with what marks ever. */
static const struct theirs *
find_theirs(const char *name, const char *text)
{
	char key[WORD_SIZE + 1], other[WORD_SIZE + 1];
	size_t i;

	fold(key, name);
	for (i = 0; i < sizeof(stunnel) / sizeof(stunnel[0]); i++) {
		fold(other, stunnel[i].theirs);
		if (strcmp(key, other) == 0 && (stunnel[i].value == NULL ||
		    strcasecmp(stunnel[i].value, text) == 0))
			return &stunnel[i];
	}
	return NULL;
}

static int
unknown_key(struct config *cfg, const char *where, const char *name,
    const char *text)
{
	const struct theirs *t = find_theirs(name, text);
	char line[HINT_SIZE];
	int near;

	if (t != NULL && t->ours == NULL) {
		log_error("%s: unknown key \"%s\" (stunnel's %s: %s)", where,
		    name, t->theirs, t->advice);
	} else if (t != NULL) {
		copied_line(t, text, line, sizeof(line));
		log_error("%s: unknown key \"%s\" (stunnel's %s is \"%s\" "
		    "here%s%s)", where, name, t->theirs, t->ours, line,
		    t->advice != NULL ? t->advice : "");
		config_blame(cfg, t->ours);
	} else if ((near = option_near(name)) != -1) {
		log_error("%s: unknown key \"%s\" (did you mean \"%s\"?)",
		    where, name, options[near].name);
		cfg->is_wrong[near] = 1;
	} else
		log_error("%s: unknown key \"%s\" (tunnel -h lists them all)",
		    where, name);
	if (t != NULL)
		config_blame(cfg, t->covers);
	return -1;
}

/* At the end; -1 after one sentence. */
static int
values_add(struct value **list, int rank, const char *where, const char *text)
{
	struct value *v;

	if ((v = calloc(1, sizeof(*v))) == NULL ||
	    (v->text = strdup(text)) == NULL ||
	    (v->where = strdup(where)) == NULL) {
		log_error("%s: out of memory", where);
		values_free(v);
		return -1;
	}
	v->rank = rank;
	while (*list != NULL)
		list = &(*list)->next;
	*list = v;
	return 0;
}

/*
 * key = value from where; -1 after one sentence.  Arguments are first.  Of
 * several sections each may set a key.
 */
static int
config_set(struct config *cfg, int rank, const char *where, const char *key,
    const char *text)
{
	int i = option_find(key);
	int64_t ignored;
	const struct value *v;

	if (i == -1)
		return unknown_key(cfg, where, key, text);
	v = cfg->given[i];
	if (*text == '\0') {
		log_error("%s: %s has no value (%s)", where, key,
		    options[i].help);
	} else if (v != NULL && v->rank > rank) {
		return option_parse(&options[i], text, where, &ignored);
	} else if (v != NULL && options[i].type != LIST && cfg->sections < 2) {
		log_error("%s: %s is already set at %s, and can be set once",
		    where, key, v->where);
	} else if (option_parse(&options[i], text, where, &cfg->number[i]) ==
	    0)
		return values_add(&cfg->given[i], rank, where, text);
	cfg->is_wrong[i] = 1;
	return -1;
}

/* "  key = value  " in place: the key, and its value behind it. */
static char *
split(char *line, char **value)
{
	char *end, *eq;

	line += strspn(line, " \t");
	for (end = line + strlen(line); end > line &&
	    isspace((unsigned char)end[-1]); end--)
		end[-1] = '\0';
	if ((eq = strchr(line, '=')) == NULL)
		return NULL;
	*value = eq + 1 + strspn(eq + 1, " \t");
	while (eq > line && isspace((unsigned char)eq[-1]))
		eq--;
	*eq = '\0';
	return line;
}

/* What a line must not hold, be it of a file or an argument. */
static int
line_check(const char *where, const char *line, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		if (line[i] == '\t' || !iscntrl((unsigned char)line[i]))
			continue;
		log_error("%s: %s (allowed: plain text, and LF alone at the "
		    "end of a line)", where, line[i] == '\0' ? "a NUL byte" :
		    line[i] == '\r' ? "a carriage return" :
		    "a control character");
		return -1;
	}
	if (len > LINE_MAX_LEN) {
		log_error("%s: a line of %zu bytes (allowed: up to %d)",
		    where, len, LINE_MAX_LEN);
		return -1;
	}
	return 0;
}

/* [section]: -1 after one sentence. */
static int
refuse_section(struct config *cfg, const char *where, const char *line)
{
	char name[WORD_SIZE * 2];
	size_t i;

	cfg->sections++;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(line + 1, "]"),
	    line + 1);
	for (i = 0; name[i] != '\0'; i++)
		if (!isalnum((unsigned char)name[i]) &&
		    strchr("-_.", name[i]) == NULL)
			name[i] = '-';
	log_error("%s: there are no [sections], but one file and one instance "
	    "for each service: what is below this line, and what is above the "
	    "first such line, goes into /etc/tunnel/%s.conf, for \"systemctl "
	    "enable --now tunnel@%s\"", where, name, name);
	return -1;
}

/* Neither a setting nor a comment. */
static int
refuse_line(struct config *cfg, const char *where, const char *line)
{
	char word[WORD_SIZE];
	int near;

	/* Not more of it: this may be a file of secrets. */
	log_error("%s: \"%.20s%s\" is not key = value (a comment begins with "
	    "# or ;)", where, line, strlen(line) > 20 ? "..." : "");
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(line, " \t:"), line);
	if ((near = option_near(word)) != -1)
		cfg->is_wrong[near] = 1;
	return -1;
}

/* key = value; line is len bytes, a NUL behind them, and changed. */
static int
config_line(struct config *cfg, int rank, const char *where, char *line,
    size_t len)
{
	char *key, *value;

	if (line_check(where, line, len) == -1) {
		config_blame_all(cfg);
		return -1;
	}
	line += strspn(line, " \t");
	if (*line == '\0' || *line == '#' || *line == ';')
		return 0;
	if (*line == '[')
		return refuse_section(cfg, where, line);
	if ((key = split(line, &value)) == NULL)
		return refuse_line(cfg, where, line);
	if (strstr(value, " #") != NULL || strstr(value, "\t#") != NULL) {
		log_error("%s: a comment behind a value (allowed: on a line "
		    "of its own)", where);
		config_blame(cfg, key);
		return -1;
	}
	return config_set(cfg, rank, where, key, value);
}

/*
 * A file to be read; NULL, with the reason.  One that is a FIFO could have a
 * start or a reload wait for whoever writes to it.
 */
static FILE *
open_to_read(const char *name, const char **why)
{
	int fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	FILE *fp = NULL;
	struct stat st;

	*why = "not a regular file";
	if (fd == -1 || fstat(fd, &st) == -1 || (S_ISREG(st.st_mode) &&
	    (fp = fdopen(fd, "r")) == NULL))
		*why = strerror(errno);
	if (fp == NULL && fd != -1)
		close(fd);
	return fp;
}

/* A file of another system has one at the end of each line: told once. */
static int
cut_cr(const char *where, char *line, ssize_t *len, int *told)
{
	if (*len == 0 || line[*len - 1] != '\r')
		return 0;
	line[--*len] = '\0';
	if ((*told)++ > 0)
		return 0;
	log_error("%s: a carriage return (allowed: LF alone at the end of a "
	    "line; dos2unix makes it so of all)", where);
	return -1;
}

/*
 * A certificate or a key in the place of a configuration: not each line of it
 * is to be in an error.
 */
static int
is_pem(const char *line)
{
	return strncmp(line + strspn(line, " \t"), "-----BEGIN ", 11) == 0;
}

/* All of its lines, unless they make no sense. */
static int
config_file(struct config *cfg, const char *name)
{
	const char *why;
	char where[PATH_MAX + 32], *line = NULL;
	size_t size = 0, number = 0, bom;
	int r = 0, told = 0;
	ssize_t len;
	FILE *fp;

	if ((fp = open_to_read(name, &why)) == NULL) {
		log_error("%s: %s", name, why);
		config_blame_all(cfg);
		return -1;
	}
	while (logging.errors < ERRORS_READ &&
	    (errno = 0, len = getline(&line, &size, fp)) != -1) {
		snprintf(where, sizeof(where), "%s:%zu", name, ++number);
		if (line[len - 1] == '\n')
			line[--len] = '\0';
		r |= cut_cr(where, line, &len, &told);
		bom = number == 1 && strncmp(line, BOM, strlen(BOM)) == 0 ?
		    strlen(BOM) : 0;
		if (is_pem(line + bom)) {
			log_error("%s: this is PEM, and no configuration "
			    "(cert and key name such files)", where);
			config_blame_all(cfg);
			r = -1;
			break;
		}
		r |= config_line(cfg, FROM_FILE, where, line + bom,
		    (size_t)len - bom);
	}
	if (ferror(fp) || errno == ENOMEM) {
		log_error("%s: %s", name, strerror(errno));
		config_blame_all(cfg);
		r = -1;
	}
	if (logging.errors >= ERRORS_READ)
		config_blame_all(cfg);
	free(line);
	fclose(fp);
	return r;
}

static int
config_argument(struct config *cfg, const char *argument)
{
	char *copy;
	int r;

	if (strchr(argument, '=') == NULL) {
		log_error("argument \"%s\" is not key=value (a file goes "
		    "behind -c, a command behind --)", argument);
		config_blame_all(cfg);
		return -1;
	}
	if ((copy = strdup(argument)) == NULL) {
		log_error("out of memory");
		return -1;
	}
	r = config_line(cfg, FROM_ARGUMENT, "command line", copy,
	    strlen(copy));
	free(copy);
	return r;
}

/* The command to run, if any: from the words behind --, or from exec. */
static int
config_command(struct config *cfg, char **words)
{
	const char *exec = config_text(cfg, EXEC);
	char *word, *rest;
	size_t n = 0;

	if (exec == NULL && *words == NULL)
		return 0;
	if (exec != NULL && *words != NULL) {
		log_error("%s: exec and a command behind -- exclude each "
		    "other", config_where(cfg, EXEC));
		return -1;
	}
	cfg->command = calloc(COMMAND_WORDS + 2, sizeof(char *));
	cfg->exec = strdup(exec != NULL ? exec : "");
	if (cfg->command == NULL || cfg->exec == NULL) {
		log_error("out of memory");
		return -1;
	}
	for (; *words != NULL && n <= COMMAND_WORDS; words++)
		cfg->command[n++] = *words;
	for (word = strtok_r(cfg->exec, " \t", &rest);
	    word != NULL && n <= COMMAND_WORDS;
	    word = strtok_r(NULL, " \t", &rest))
		cfg->command[n++] = word;
	if (n == 0 || n > COMMAND_WORDS) {
		log_error("%s: a command of more than %d words, or of none (a "
		    "script can hold a long one)", exec != NULL ?
		    config_where(cfg, EXEC) : "command line", COMMAND_WORDS);
		return -1;
	}
	return 0;
}

static void
config_defaults(struct config *cfg)
{
	int i;

	for (i = 0; i < OPTIONS; i++)
		if (options[i].fallback != NULL)
			option_parse(&options[i], options[i].fallback,
			    "default", &cfg->number[i]);
}

static int
is_program(const char *file)
{
	struct stat st;

	return stat(file, &st) == 0 && S_ISREG(st.st_mode) &&
	    access(file, X_OK) == 0;
}

/*
 * Where execvp(3) would find it; -1: nowhere.  inetd leaves no PATH, for which
 * there is a default.
 */
static int
find_runnable(const char *name, char *file, size_t size)
{
	const char *path = getenv("PATH");
	char fallback[PATH_MAX] = "";

	if (path == NULL && confstr(_CS_PATH, fallback, sizeof(fallback)) > 0)
		path = fallback;
	for (; path != NULL; path = strchr(path, ':')) {
		path += *path == ':';
		snprintf(file, size, "%.*s/%s", (int)strcspn(path, ":"), path,
		    name);
		if (is_program(file))
			return 0;
	}
	return -1;
}

/* Better said now than at every connection. */
static int
is_runnable(const char *name)
{
	char file[PATH_MAX];

	return strchr(name, '/') != NULL ? is_program(name) :
	    find_runnable(name, file, sizeof(file)) == 0;
}

/* Its one connection is on descriptor 0, or on another that was passed. */
static int
is_for_inetd(const struct value *accept)
{
	return accept == NULL || (accept->next == NULL &&
	    strncmp(accept->text, "fd:", 3) == 0);
}

/* What must be there. */
static int
check_missing(const struct config *cfg, int inetd)
{
	const struct {
		int	 is_there;
		const char *what;
	} needed[] = {
		{ inetd || cfg->given[ACCEPT] != NULL ||
		    cfg->is_wrong[ACCEPT], "accept = [host:]port" },
		{ cfg->given[CERT] != NULL || cfg->is_wrong[CERT],
		    "cert = FILE (tunnel -g NAME -o FILE makes one)" },
		{ cfg->given[CONNECT] != NULL || cfg->command != NULL ||
		    cfg->is_wrong[CONNECT] || cfg->is_wrong[EXEC],
		    "connect = [host:]port, or a command behind --" },
	};
	size_t i;
	int r = 0;

	for (i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		if (needed[i].is_there)
			continue;
		log_error("missing: %s", needed[i].what);
		r = -1;
	}
	return r;
}

/* What is for clients' certificates alone. */
static int
check_trust(const struct config *cfg)
{
	static const int trust[] = { CA, CRL, PEER };
	size_t i;
	int r = 0;

	for (i = 0; i < sizeof(trust) / sizeof(trust[0]); i++) {
		if (cfg->given[trust[i]] == NULL || cfg->is_wrong[VERIFY] ||
		    cfg->number[VERIFY] != NONE)
			continue;
		log_error("%s: %s is of no use while verify is none (allowed "
		    "with it: request, require)", config_where(cfg, trust[i]),
		    options[trust[i]].name);
		r = -1;
	}
	return r;
}

/* What may not be together, of one service. */
static int
check_conflicts(const struct config *cfg, int inetd)
{
	int r = 0;

	if (inetd && !is_for_inetd(cfg->given[ACCEPT])) {
		log_error("%s: -i serves one connection that is there already "
		    "(allowed: no accept, or accept = fd:N)",
		    config_where(cfg, ACCEPT));
		r = -1;
	}
	if (inetd && cfg->given[STATS_FILE] != NULL) {
		log_error("%s: stats_file is written by a tunnel that stays, "
		    "and with -i none does", config_where(cfg, STATS_FILE));
		r = -1;
	}
	if (cfg->given[CONNECT] != NULL && cfg->command != NULL) {
		log_error("%s: connect and a command exclude each other",
		    config_where(cfg, CONNECT));
		r = -1;
	}
	if (!inetd && cfg->number[MODE] == POLL && !cfg->is_wrong[MODE] &&
	    !cfg->is_wrong[WORKERS] && !cfg->is_wrong[MAX_CONNECTIONS] &&
	    cfg->number[MAX_CONNECTIONS] < cfg->number[WORKERS]) {
		log_error("%s: workers = %lld are more than max_connections = "
		    "%lld", config_where(cfg, WORKERS),
		    (long long)cfg->number[WORKERS],
		    (long long)cfg->number[MAX_CONNECTIONS]);
		r = -1;
	}
	return r;
}

/* -1 after a sentence for each thing that is missing or does not fit. */
static int
config_check(const struct config *cfg, int inetd)
{
	int r = check_missing(cfg, inetd);

	r |= check_trust(cfg);
	if (cfg->sections < 2)
		r |= check_conflicts(cfg, inetd);
	if (cfg->command != NULL && !cfg->is_wrong[EXEC] &&
	    cfg->given[CHROOT] == NULL && !is_runnable(cfg->command[0])) {
		log_error("%s: command %s: %s", cfg->given[EXEC] != NULL ?
		    config_where(cfg, EXEC) : "command line", cfg->command[0],
		    "not found, or not executable");
		r = -1;
	}
	return r;
}

static void
config_print(const struct config *cfg, FILE *fp)
{
	const struct value *v;
	size_t i;

	for (i = 0; i < OPTIONS; i++) {
		if (cfg->given[i] == NULL && options[i].fallback != NULL)
			fprintf(fp, "%s = %s\n", options[i].name,
			    options[i].fallback);
		for (v = cfg->given[i]; v != NULL; v = v->next)
			fprintf(fp, "%s = %s\n", options[i].name, v->text);
	}
	for (i = 0; cfg->command != NULL && cfg->command[i] != NULL; i++)
		fprintf(fp, "%s%s", i == 0 ? "# command: " : " ",
		    cfg->command[i]);
	if (cfg->command != NULL)
		fputc('\n', fp);
}

/*
 * THE COMMAND LINE
 */

/* How this process was started, to be looked at again at a reload. */
struct arguments {
	const char *file;
	const char *names;		/* of -g */
	const char *output;		/* of -o */
	int	 help, inetd, key, quiet, test, version;
	const char **settings;		/* key=value, allocated */
	size_t	 nsettings;
	char	**command;		/* what is behind -- */
	int	 passed;		/* sockets of systemd */
	const char *notify;		/* where it wants to be told, or NULL */
	int64_t	 watchdog;		/* it is to be told in as many ms; 0 */
	struct rlimit files, core;	/* as they were: for commands */
	char	**argv;
	/* See THE UPGRADE; descriptors are -1 where there is none. */
	int	 state;			/* what is handed over, by */
	int	 before;		/* the old program; -1: this is it */
	const struct config *again;	/* to be used instead of the files */
};

static void
usage(FILE *fp)
{
	fprintf(fp, "usage: tunnel [-dhiqtvV] [-c file] [key=value ...] "
	    "[-- command [argument ...]]\n"
	    "       tunnel -g name[,name ...] [-o file]\n"
	    "       tunnel -k [-o file]\n");
}

static int
misused(void)
{
	usage(stderr);
	fprintf(stderr, "tunnel -h explains all of it\n");
	return -1;
}

/* A group of keys: those from one on, up to another. */
static void
help_keys(int from, int to, const char *title)
{
	int i, used = printf("  %-13s", title);

	for (i = from; i < to; i++) {
		if (used + 1 + (int)strlen(options[i].name) > 79) {
			printf("\n");
			used = printf("%15s", "");
		}
		used += printf(" %s", options[i].name);
	}
	printf("\n");
}

/* On a screen of 24 lines. */
static void
help(void)
{
	static const struct {
		int	 from;
		const char *title;
	} groups[] = {
		{ ACCEPT, "service" }, { CERT, "certificates" },
		{ CA, "clients" }, { TLS_MIN, "TLS" },
		{ SESSION_TICKETS, "resumption" },
		{ MAX_CONNECTIONS, "limits" },
		{ MODE, "processes" }, { DAEMON, "process, log" },
		{ OPTIONS, NULL }
	};
	size_t i;

	usage(stdout);
	printf("\n  -c file  configuration file   "
	    "-t        check it, describe certificates\n"
	    "  -d       daemon=yes           "
	    "-tq       check it, and tell only what is wrong\n"
	    "  -i       serve descriptor 0   "
	    "-g names  make a key and its certificate\n"
	    "  -q       log_level=warning    "
	    "-k        make a key for ticket_keys\n"
	    "  -v       log_level=debug      "
	    "-o file   write what -g or -k makes there\n"
	    "  -V       version, features    -h        show this\n\n"
	    "keys, as in the file; tunnel.conf(5) explains them:\n");
	for (i = 0; groups[i].title != NULL; i++)
		help_keys(groups[i].from, groups[i + 1].from, groups[i].title);
}

/* What -g, -k and -o may not be with; -1 after one sentence. */
static int
check_letters(const struct arguments *a)
{
	if (a->output != NULL && a->names == NULL && !a->key) {
		log_error("-o has no effect without -g or -k");
		return -1;
	}
	if ((a->names != NULL || a->key) && a->nsettings > 0) {
		log_error("unexpected argument \"%s\" (allowed: -g "
		    "NAME[,NAME ...] or -k, and -o FILE)", a->settings[0]);
		return -1;
	}
	if ((a->names != NULL || a->key) && (a->file != NULL || a->inetd ||
	    a->test || *a->command != NULL ||
	    (a->names != NULL && a->key))) {
		log_error("-g and -k each make one thing, and nothing else "
		    "(allowed with them: -o FILE)");
		return -1;
	}
	return 0;
}

/* What a letter stands for, if that is a setting; or NULL. */
static const char *
letter_setting(int letter)
{
	return letter == 'd' ? "daemon=yes" :
	    letter == 'q' ? "log_level=warning" :
	    letter == 'v' ? "log_level=debug" : NULL;
}

/* One of getopt(3); -1 after one sentence. */
static int
take_letter(struct arguments *a, int letter)
{
	switch (letter) {
	case 'c':
		if (a->file != NULL) {
			log_error("-c is given twice");
			return -1;
		}
		a->file = optarg;
		return 0;
	case 'g':
		a->names = optarg;
		return 0;
	case 'o':
		a->output = optarg;
		return 0;
	case '?':
		return misused();
	}
	a->help |= letter == 'h';
	a->inetd |= letter == 'i';
	a->key |= letter == 'k';
	a->quiet |= letter == 'q';
	a->test |= letter == 't';
	a->version |= letter == 'V';
	return 0;
}

/* Letters and key=value in any order, up to "--". */
static int
parse_arguments(struct arguments *a, int argc, char **argv)
{
	static char *none[] = { NULL };
	static char help_letter[] = "-h", version_letter[] = "-V";
	size_t most = 0;		/* each letter may be a setting */
	const char *setting;
	int c, n;

	for (n = 1; n < argc && strcmp(argv[n], "--") != 0; n++)
		most += strlen(argv[n]) + 1;
	a->command = n < argc ? &argv[n + 1] : none;
	if ((a->settings = calloc(most + 1, sizeof(char *))) == NULL)
		return -1;
	while (optind < n) {
		if (strcmp(argv[optind], "--help") == 0)
			argv[optind] = help_letter;
		else if (strcmp(argv[optind], "--version") == 0)
			argv[optind] = version_letter;
		if ((c = getopt(n, argv, "+c:dg:hiko:qtvV")) == -1)
			setting = argv[optind++];
		else if (take_letter(a, c) == -1)
			return -1;
		else
			setting = letter_setting(c);
		if (setting != NULL)
			a->settings[a->nsettings++] = setting;
	}
	return check_letters(a);
}

/* The one that a variable names, which nobody else is to see; or -1. */
static int
take_descriptor(const char *variable)
{
	const char *text = getenv(variable);
	int64_t fd;

	if (text == NULL || parse_number(text, STDERR_FILENO + 1, INT32_MAX,
	    &fd) == -1 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) == -1)
		fd = -1;
	unsetenv(variable);
	return (int)fd;
}

/* How often systemd wants a sign of life: sd_watchdog_enabled(3). */
static int64_t
take_watchdog(void)
{
	const char *pid = getenv("WATCHDOG_PID"), *usec =
	    getenv("WATCHDOG_USEC");
	int64_t number;

	if (usec == NULL || (pid != NULL &&
	    (parse_number(pid, 1, INT32_MAX, &number) == -1 ||
	    number != getpid())) ||
	    parse_number(usec, 1, INT64_MAX, &number) == -1)
		return 0;
	return number / 1000 > BEATS ? number / 1000 : BEATS;
}

/* What systemd passes, by sd_listen_fds(3) and sd_notify(3). */
static void
take_environment(struct arguments *a)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int64_t number;
	int fd;

	if (pid != NULL && fds != NULL &&
	    parse_number(pid, 1, INT32_MAX, &number) == 0 &&
	    number == getpid() &&
	    parse_number(fds, 1, FORWARD_LISTENERS, &number) == 0)
		a->passed = (int)number;
	for (fd = PASSED; fd < PASSED + a->passed; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	a->notify = getenv("NOTIFY_SOCKET");
	a->watchdog = take_watchdog();
	a->state = take_descriptor("TUNNEL_STATE");
	a->before = take_descriptor("TUNNEL_BEFORE");
	if (a->state == -1)
		a->before = -1;		/* which could not go on without */
	getrlimit(RLIMIT_NOFILE, &a->files);
	getrlimit(RLIMIT_CORE, &a->core);
}

/* As it was given before. */
static int
configure_again(struct config *cfg, const struct arguments *a)
{
	const struct value *v;
	int i;

	for (i = 0; i < OPTIONS; i++)
		for (v = a->again->given[i]; v != NULL; v = v->next)
			if (config_set(cfg, v->rank, v->where,
			    options[i].name, v->text) == -1)
				return -1;
	return config_command(cfg, a->command) == -1 ? -1 :
	    config_check(cfg, a->inetd);
}

/* The whole configuration, anew; -1 after a sentence for each error. */
static int
configure(struct config *cfg, const struct arguments *a)
{
	int fd, last = PASSED + a->passed;
	char text[32];
	size_t i;
	int r = 0;

	config_defaults(cfg);
	if (a->again != NULL)
		return configure_again(cfg, a);
	for (i = 0; i < a->nsettings; i++)
		r |= config_argument(cfg, a->settings[i]);
	if (a->file != NULL)
		r |= config_file(cfg, a->file);
	if (config_command(cfg, a->command) == -1) {
		cfg->is_wrong[EXEC] = 1;
		r = -1;
	}
	if (cfg->given[ACCEPT] != NULL)
		last = PASSED;
	for (fd = PASSED; fd < last; fd++) {
		snprintf(text, sizeof(text), "fd:%d", fd);
		r |= config_set(cfg, FROM_FILE, "LISTEN_FDS", "accept", text);
	}
	if (a->test && a->quiet && !a->inetd && cfg->given[ACCEPT] == NULL &&
	    !cfg->is_wrong[ACCEPT]) {
		log_warning("missing: accept (right if systemd passes the "
		    "sockets)");
		cfg->is_wrong[ACCEPT] = 1;
	}
	return config_check(cfg, a->inetd) == -1 ? -1 : r;
}

/*
 * TLS, FROM THE CONFIGURATION
 */

/* The first line of a file, without its end; NULL after one sentence. */
static char *
read_password(const char *name, const char *where)
{
	char *line = NULL;
	size_t size = 0;
	const char *why;
	FILE *fp;

	/* Unbuffered: no copy is left behind. */
	if ((fp = open_to_read(name, &why)) == NULL ||
	    setvbuf(fp, NULL, _IONBF, 0) != 0 ||
	    getline(&line, &size, fp) == -1) {
		log_error("%s: key_password_file %s: %s", where, name,
		    fp == NULL ? why : "it is empty");
		free(line);
		line = NULL;
	} else
		line[strcspn(line, "\r\n")] = '\0';
	if (fp != NULL)
		fclose(fp);
	return line;
}

static size_t
values_count(const struct value *v)
{
	size_t n;

	for (n = 0; v != NULL; v = v->next)
		n++;
	return n;
}

/* One certificate and its key, or NULL if that is nobody's guess. */
static int
load_cert(struct tls_config *tls, const struct value *cert,
    const struct value *key, const char *password)
{
	if (tls_config_cert(tls, cert->text) == -1) {
		log_error("%s: cert: %s", cert->where, tls_config_error(tls));
		return -1;
	}
	if (key != NULL && tls_config_key(tls, key->text, password) == -1) {
		log_error("%s: key: %s", key->where, tls_config_error(tls));
		return -1;
	}
	return 0;
}

/* The certificates and, in the same order, the keys if they have their own. */
static int
load_certs(struct tls_config *tls, const struct config *cfg,
    const char *password)
{
	const struct value *cert = cfg->given[CERT], *key = cfg->given[KEY];
	int fit = key == NULL || values_count(key) == values_count(cert);
	int r = 0;

	if (!fit && cfg->sections < 2 && !cfg->is_wrong[CERT] &&
	    !cfg->is_wrong[KEY]) {
		log_error("%s: there are %zu cert and %zu key (allowed: a key "
		    "for each, in the same order, or none, with the keys in "
		    "the cert files)", key->where, values_count(cert),
		    values_count(key));
		r = -1;
	}
	for (; cert != NULL; cert = cert->next) {
		r |= load_cert(tls, cert, cfg->is_wrong[KEY] || !fit ? NULL :
		    key != NULL ? key : cert, password);
		key = key != NULL ? key->next : NULL;
	}
	return r;
}

static int
load_keys(struct tls_config *tls, struct config *cfg)
{
	const char *file = config_text(cfg, KEY_PASSWORD_FILE);
	char *password = NULL;
	int r = 0;

	if (file != NULL && (password = read_password(file,
	    config_where(cfg, KEY_PASSWORD_FILE))) == NULL) {
		cfg->is_wrong[KEY] = 1;
		r = -1;
	}
	r |= load_certs(tls, cfg, password);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	free(password);
	if (r == -1)
		cfg->is_wrong[CERT] = 1;
	return r;
}

/* All values of the options that are for the library; in this order. */
static int
load_values(struct tls_config *tls, struct config *cfg)
{
	static const struct {
		int	 option;
		int	 (*set)(struct tls_config *, const char *);
	} values[] = {
		{ CIPHERS, tls_config_ciphers },
		{ GROUPS, tls_config_groups },
		{ ALPN, tls_config_alpn },
		{ CA, tls_config_ca },
		{ CRL, tls_config_crl },
		{ PEER, tls_config_peer },
		{ TICKET_KEYS, tls_config_ticket_keys },
	};
	const struct value *v;
	size_t i;
	int r = 0;

	/* Without verify, that is what was said of these. */
	if (cfg->is_wrong[CA] || (cfg->number[VERIFY] == NONE &&
	    (cfg->given[CRL] != NULL || cfg->given[PEER] != NULL)))
		tls_config_ca(tls, NULL);
	for (i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		int key = values[i].option;

		for (v = cfg->given[key]; v != NULL; v = v->next) {
			if (values[i].set(tls, v->text) == 0 ||
			    (key == CIPHERS && cfg->is_wrong[CIPHERS]))
				continue;
			log_error("%s: %s: %s", v->where, options[key].name,
			    tls_config_error(tls));
			cfg->is_wrong[key] = 1;
			r = -1;
		}
	}
	return r;
}

/* What all of that makes together, where none of it is wrong already. */
static int
load_whole(struct tls_config *tls, const struct config *cfg)
{
	const int *wrong = cfg->is_wrong;
	int key = -1;

	if (wrong[TLS_MIN] || wrong[TLS_MAX])
		return 0;
	if (tls_config_versions(tls, (int)cfg->number[TLS_MIN] + 12,
	    (int)cfg->number[TLS_MAX] + 12) == -1)
		key = cfg->given[TLS_MIN] != NULL ? TLS_MIN : TLS_MAX;
	else if (!wrong[CERT] && cfg->given[CERT] != NULL && !wrong[CIPHERS] &&
	    tls_config_ready(tls) == -1)
		key = CIPHERS;
	if (key == -1)
		return 0;
	log_error("%s: %s: %s", config_where(cfg, key), options[key].name,
	    tls_config_error(tls));
	return -1;
}

static int
load_verify(struct tls_config *tls, const struct config *cfg)
{
	if (cfg->number[VERIFY] == NONE || cfg->is_wrong[PEER] ||
	    tls_config_verify(tls, cfg->number[VERIFY] == REQUIRE) == 0)
		return 0;
	log_error("%s: verify: %s", config_where(cfg, VERIFY),
	    tls_config_error(tls));
	return -1;
}

/* -1 after a sentence for each error; tls may be NULL then. */
static int
load_tls(struct tls_config **tls, struct config *cfg)
{
	int r;

	if ((*tls = tls_config_new()) == NULL) {
		log_error("out of memory");
		return -1;
	}
	r = load_keys(*tls, cfg);
	r |= load_values(*tls, cfg);
	r |= load_whole(*tls, cfg);
	r |= load_verify(*tls, cfg);
	tls_config_truncation(*tls, cfg->number[TRUNCATION] == 1);
	tls_config_strict_names(*tls, cfg->number[SNI_STRICT] == 1);
	return r;
}

static void
say_warning(const char *text)
{
	log_warning("%s", text);
}

/*
 * ADDRESSES
 */

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
	char	 text[ADDRESS_SIZE];
};

/* Fill in the text; by hand, since getnameinfo(3) is large. */
static void
address_text(struct address *a)
{
	const struct sockaddr_in *in = (const void *)&a->sa;
	const struct sockaddr_in6 *in6 = (const void *)&a->sa;
	const struct sockaddr_un *un = (const void *)&a->sa;
	char host[INET6_ADDRSTRLEN] = "";

	if (a->sa.ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(a->text, sizeof(a->text), "%s:%d", host,
		    ntohs(in->sin_port));
	} else if (a->sa.ss_family == AF_INET6) {
		int mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);

		inet_ntop(mapped ? AF_INET : AF_INET6,
		    in6->sin6_addr.s6_addr + (mapped ? 12 : 0), host,
		    sizeof(host));
		snprintf(a->text, sizeof(a->text), mapped ? "%s:%d" :
		    "[%s]:%d", host, ntohs(in6->sin6_port));
	} else
		snprintf(a->text, sizeof(a->text), "unix:%s",
		    a->len > offsetof(struct sockaddr_un, sun_path) ?
		    un->sun_path : "");
}

/* 0: it is not TCP. */
static in_port_t
address_port(const struct address *a)
{
	const struct sockaddr_in *in = (const void *)&a->sa;
	const struct sockaddr_in6 *in6 = (const void *)&a->sa;

	return a->sa.ss_family == AF_INET ? ntohs(in->sin_port) :
	    a->sa.ss_family == AF_INET6 ? ntohs(in6->sin6_port) : 0;
}

/* An address in figures; -1 if it is not one. */
static int
address_numeric(struct address *a, const char *host, in_port_t port)
{
	struct sockaddr_in *in = (void *)&a->sa;
	struct sockaddr_in6 *in6 = (void *)&a->sa;

	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		a->len = sizeof(*in);
	} else if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		a->len = sizeof(*in6);
	} else
		return -1;
	address_text(a);
	return 0;
}

/* What one accept or connect names. */
struct target {
	struct address addrs[ADDRESSES];
	size_t	 n;
	size_t	 first;			/* to be tried: the last that opened */
	int	 any;			/* no host was named */
	int	 fd;			/* of fd:N, then without addresses */
	const struct value *value;
};

struct targets {
	struct target *list;
	size_t	 n;
};

static int
resolve_unix(struct target *t, const char *path)
{
	struct sockaddr_un *un = (void *)&t->addrs->sa;

	if (strlen(path) >= sizeof(un->sun_path) || *path == '\0') {
		log_error("%s: \"%s\" is not a path of up to %zu bytes",
		    t->value->where, path, sizeof(un->sun_path) - 1);
		return -1;
	}
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	t->addrs->len = sizeof(*un);
	address_text(t->addrs);
	return 0;
}

/* A host's name; the addresses come in the order of getaddrinfo(3). */
static int
resolve_name(struct target *t, const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list, *ai;
	size_t i, n = 0;
	int r;

	if ((r = getaddrinfo(host, port, &hints, &list)) != 0) {
		log_error("%s: %s: %s", t->value->where, host,
		    gai_strerror(r));
		errno = r == EAI_AGAIN ? EAGAIN : 0;
		return -1;
	}
	for (ai = list; ai != NULL && n < ADDRESSES; ai = ai->ai_next) {
		for (i = 0; i < n; i++)		/* a file may have it twice */
			if (t->addrs[i].len == ai->ai_addrlen &&
			    memcmp(&t->addrs[i].sa, ai->ai_addr,
			    ai->ai_addrlen) == 0)
				break;
		if (i < n)
			continue;
		memcpy(&t->addrs[n].sa, ai->ai_addr, ai->ai_addrlen);
		t->addrs[n].len = ai->ai_addrlen;
		address_text(&t->addrs[n++]);
	}
	t->n = n;
	freeaddrinfo(list);
	return 0;
}

/* host and port of "[host:]port"; host is empty when there is none. */
static int
split_address(const char *text, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(text, ':');
	size_t len = colon != NULL ? (size_t)(colon - text) : 0;

	*port = colon != NULL ? colon + 1 : text;
	/* An IPv6 address has brackets, and nothing else does. */
	if (len > 1 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
		if (memchr(text, ':', len) == NULL)
			return -1;
	} else if (memchr(text, ':', len) != NULL)
		return -1;
	if (len >= size)
		return -1;
	memcpy(host, text, len);
	host[len] = '\0';
	if (strcmp(host, "*") == 0)
		host[0] = '\0';
	return 0;
}

static int
has_ipv6(void)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return 0;
	close(fd);
	return 1;
}

/* fd:N, a listening socket that somebody else has made. */
static int
resolve_fd(struct target *t, const char *number)
{
	int64_t fd;

	if (parse_number(number, 0, INT32_MAX, &fd) == -1) {
		log_error("%s: \"fd:%s\" is not the number of a listening "
		    "socket", t->value->where, number);
		return -1;
	}
	t->n = 0;
	t->fd = (int)fd;
	return 0;
}

/*
 * What may be meant by one that is none: a path, the name of a port, or an
 * IPv6 address without its brackets.  As a clause, or empty.
 */
static void
address_hint(const char *text, int passive, char *hint, size_t size)
{
	const char *colon = strrchr(text, ':');
	const char *port = colon != NULL ? colon + 1 : text;
	const struct servent *known = getservbyname(port, "tcp");
	char host[INET6_ADDRSTRLEN] = "", number[8];
	struct in6_addr ignored;
	int64_t any;

	hint[0] = '\0';
	snprintf(number, sizeof(number), "%.6s", port);
	if (known != NULL)
		snprintf(number, sizeof(number), "%d",
		    ntohs((in_port_t)known->s_port));
	if (colon != NULL && colon - text < (ptrdiff_t)sizeof(host))
		memcpy(host, text, (size_t)(colon - text));
	if (*text == '/')
		snprintf(hint, size, "; did you mean unix:%s?", text);
	else if (parse_number(number, passive ? 0 : 1, 65535, &any) == -1)
		return;
	else if (strcmp(host, "::") == 0)
		snprintf(hint, size, "; did you mean %s%s?", passive ? "" :
		    "[::1]:", number);
	else if (inet_pton(AF_INET6, host, &ignored) == 1)
		snprintf(hint, size, "; did you mean [%s]:%s?", host, number);
	else if (known != NULL)
		snprintf(hint, size, "; did you mean %.*s%s?",
		    (int)(port - text), text, number);
}

/*
 * All the addresses that a value names.  No host is every address of this
 * machine to accept on, and 127.0.0.1 to connect to.
 */
static int
resolve(struct target *t, const struct value *v, int passive)
{
	char host[NI_MAXHOST], hint[HINT_SIZE];
	const char *port;
	int64_t number;

	t->value = v;
	t->n = 1;
	t->fd = -1;
	if (passive && strncmp(v->text, "fd:", 3) == 0)
		return resolve_fd(t, v->text + 3);
	if (strncmp(v->text, "unix:", 5) == 0)
		return resolve_unix(t, v->text + 5);
	if (split_address(v->text, host, sizeof(host), &port) == -1 ||
	    parse_number(port, passive ? 0 : 1, 65535, &number) == -1) {
		address_hint(v->text, passive, hint, sizeof(hint));
		log_error("%s: \"%s\" is not an address (allowed: "
		    "[host:]port with a port of %d to 65535, [IPv6]:port, "
		    "unix:/path%s%s)", v->where, v->text, passive ? 0 : 1,
		    passive ? ", fd:N" : "", hint);
		return -1;
	}
	t->any = passive && host[0] == '\0';
	if (host[0] == '\0')
		snprintf(host, sizeof(host), "%s", !passive ? "127.0.0.1" :
		    has_ipv6() ? "::" : "0.0.0.0");
	if (address_numeric(t->addrs, host, (in_port_t)number) == 0)
		return 0;
	return resolve_name(t, host, port);
}

/* -1 with errno: EAGAIN if all that failed may be right in a minute. */
static int
resolve_all(struct targets *all, const struct value *values, int passive)
{
	size_t n = values_count(values);
	const struct value *v;
	int r = 0, for_good = 0;

	if (n > 0 && (all->list = calloc(n, sizeof(*all->list))) == NULL) {
		log_error("out of memory");
		return -1;
	}
	for (v = values; v != NULL; v = v->next) {
		errno = 0;
		if (resolve(&all->list[all->n++], v, passive) == 0)
			continue;
		for_good |= errno != EAGAIN;
		r = -1;
	}
	errno = for_good ? 0 : EAGAIN;
	return r;
}

/*
 * THE SERVICE
 * A configuration put to work by the master, and the processes that serve.
 */

struct listener {
	int	 fd;
	const struct target *target;	/* what asked for it, */
	const struct address *address;	/* and which of its; NULL: fd:N */
	struct address bound;
	struct stat file;		/* what it has made, on a Unix socket */
	int	 kept;			/* another service has it, too */
};

/* Why a handshake has failed, in few words: see failures[]. */
enum failure {
	FAILED_TIMEOUT, FAILED_NOT_TLS, FAILED_CERTIFICATE, FAILED_NAME,
	FAILED_PROXY, FAILED_ALERT, FAILED_NOTHING_IN_COMMON, FAILED_CLOSED,
	FAILED_OTHERWISE, FAILURES
};

/* What has become of connections.  Whose process it is alone writes. */
struct counts {
	uint64_t live, accepted, served, resumed, no_backend, silent;
	uint64_t over, dropped;
	uint64_t refused[FAILURES];
	uint64_t opened[2];		/* in TLS 1.2 and 1.3: its handshake */
	uint64_t in, out;
	uint64_t lost;			/* with a worker that was killed */
	uint64_t beat;			/* it was alive, at (ms) */
	uint64_t unlogged;		/* lines it has lost, and not told: */
	int	 unlogged_why, unlogged_cut;	/* as in logging */
};

/* How many connections an address has; see max_per_ip. */
struct peer {
	uint64_t key;			/* 0: this row is free */
	uint64_t count;
};

/* Lines for one reason on one address: so many were logged, and counted. */
struct repeat {
	uint64_t key;			/* the address's, as above */
	uint64_t logged, more;
	enum log_level level;
	char	 reason[REASON_SIZE];	/* of the first one */
};

/* What repeats itself in the log, in this period. */
struct repeats {
	uint64_t began;			/* 0: not yet */
	uint64_t logged, more;		/* in sum */
	struct repeat rows[REPEATS_ALL];
};

/* Memory of master and workers. */
struct shared {
	atomic_flag lock;		/* of all but the counts */
	uint64_t warned;		/* that it is full, at */
	volatile int stops;		/* no other generation follows */
	struct repeats repeats;
	struct counts counts[];		/* one for each seat */
};

/* A place for a worker, and what it has become; the master's. */
struct seat {
	pid_t	 pid;			/* 0: empty */
	int	 line;			/* to it: see ORDERS; or -1 */
	uint32_t slot;			/* of its service's counts */
	int	 begun;			/* it was told to, on this line */
	int64_t	 drop_at;		/* fork mode: if it has not opened */
};

static const struct seat empty_seat = { .line = -1 };

/* What is counted, and the process that writes it to a file: STATISTICS. */
struct stats {
	struct counts ended;		/* of workers that are no more */
	int64_t	 began;			/* on our clock, */
	time_t	 began_at;		/* and on everybody's */
	unsigned generation;		/* of the configuration: 1, 2, ... */
	pid_t	 writer;		/* 0: there is none now */
	int64_t	 write_at;		/* the next one, */
	int64_t	 kill_at;		/* and the end of this one's time */
	int	 failed;		/* the last one, and that was said */
	char	*file;			/* that was written to; or NULL */
};

/*
 * What sessions are resumed by, in memory of all processes: of two services
 * as well, where it fits both.
 */
struct pool {
	struct tls_sessions *sessions;
	void	*memory;
	int	 fd;			/* of it, to hand over; or -1 */
	size_t	 size, entries;
	int	 with_clients;
	unsigned services;
};

/* What the kernel can do of TLS: see KERNEL TLS. */
struct kernel_tls {
	unsigned can;			/* in bits of tls.h */
	int	 spins;			/* over half a record */
	char	 why[TEXT_SIZE];	/* if it can't do anything */
};

/*
 * One generation: a reload makes another, and this one leaves.  What is left of
 * it then is small, and goes with its last worker: see let_go().
 */
struct service {
	struct service *older;
	struct config cfg;
	struct tls_config *tls;
	struct pool *pool;		/* or NULL */
	struct kernel_tls kernel;
	struct targets accepts, connects;
	struct listener *listeners;
	size_t	 nlisteners;
	const struct rlimit *files, *core;	/* for commands */
	const char *file;		/* of the configuration, or NULL */
	uid_t	 uid;
	gid_t	 gid;
	int	 drops;			/* to the two of them */
	struct seat *seats;
	size_t	 nseats;		/* once it leaves: those taken alone */
	size_t	 nslots;		/* rows of counts: a seat's for good */
	size_t	 nworkers;		/* seats that are taken */
	size_t	 next_seat;		/* fork mode: to be looked at */
	struct shared *shared;
	int	 shared_fd;		/* of it, to hand over; or -1 */
	size_t	 shared_size;
	volatile struct counts *counts;	/* in there; and behind them, */
	volatile struct peer *peers;	/* for max_per_ip (-i: NULL): */
	size_t	 npeers;		/* a table, a power of two, and */
	volatile uint64_t *places;	/* keys, one for each connection */
	uint64_t secret;		/* of the table: an odd number */
	int64_t	 deadline;		/* for its workers to leave */
	unsigned failures;		/* of workers, in a row */
	int64_t	 retry_at;
};

struct command {
	struct command *next;
	pid_t	 pid;			/* and its group's; not yet reused */
	int	 over;
	int	 signal;		/* that has killed it; or 0 */
	int	 end;			/* its end of the socket pair, or -1 */
	int	 left;			/* its connection is over */
};

/* A process that serves. */
struct worker {
	struct service *service;
	int	 has_master;		/* not so with -i */
	int	 line;			/* to the master; or -1 */
	struct forward *engine;
	volatile struct counts *counts;
	size_t	 first;			/* of its service->places */
	size_t	 share;			/* of max_connections, and places */
	size_t	 used;			/* of these, so many ever were, */
	volatile uint64_t **unused;	/* and these are no longer */
	size_t	 nunused;
	size_t	 turn;			/* round robin over connects */
	/* Plain, but for how they open, and how a command ends. */
	struct stream_ops proxied_ops, backend_ops, command_ops;
	struct command *commands;
	size_t	 running;		/* of them */
	uint64_t peak;			/* of live connections; see trim() */
	char	 why[TEXT_SIZE];	/* the last dial failed */
	int	 stopping;
	time_t	 complained;		/* of want of resources */
	int64_t	 repeats_until;		/* when to log repeats; 0: never */
	int64_t	 beat_every;		/* ms, to show that it is alive, or */
	int64_t	 beat_at;		/* 0: nobody wants to know */
};

/* Whose a connection is, and where to; see the PROXY protocol. */
union end {
	struct sockaddr_storage any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

struct ends {
	union end from, to;
};

/* One connection, as the engine's callbacks see it. */
struct session {
	struct worker *worker;
	struct tls *tls;		/* NULL: before TLS */
	int	 fd;			/* the client's */
	int	 dialed;
	char	*peer;			/* its address, as text, */
	uint64_t key;			/* and as that; see peer_key() */
	struct ends *ends;		/* as a balancer has told, or NULL */
	struct proxy *proxy;		/* its header, or the service's */
	volatile uint64_t *place;	/* among service->places, or NULL */
	int	 over;			/* there was none: max_per_ip */
	size_t	 turn;			/* the target it began with */
	size_t	 tried;			/* addresses, over all targets */
	struct target *target;		/* the one being tried, */
	size_t	 which;			/* and which address of it */
	struct command *command;
};

static int
taken(volatile sig_atomic_t *flag)
{
	int was = *flag;

	*flag = 0;
	return was;
}

/*
 * A client's path must not look like several words of the log.  -1: there is
 * no memory for it.
 */
static int
set_peer(struct session *ss, const struct address *a)
{
	char *text = strdup(a->text), *blank = text;

	if (text == NULL)
		return -1;
	while ((blank = strchr(blank, ' ')) != NULL)
		*blank = '_';
	free(ss->peer);
	ss->peer = text;
	return 0;
}

/* Nothing, as long as there is no TLS. */
static void
session_agreed(const struct session *ss, struct tls_agreed *a)
{
	*a = (struct tls_agreed){ .resumed = 0 };
	if (ss->tls != NULL)
		tls_agreed(ss->tls, a);
}

static int
is_tls13(const struct tls_agreed *a)
{
	return a->version != NULL && strcmp(a->version, "TLSv1.3") == 0;
}

/* Idle for half of the time or a little longer, and then the probes. */
#ifdef TCP_KEEPIDLE
static void
keep_alive(int fd, int64_t ms)
{
	int n = KEEPALIVE_PROBES, seconds = (int)(ms / 1000);
	int every = seconds / (2 * n) > 0 ? seconds / (2 * n) : 1;
	int idle = seconds - n * every;

	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof(n));
}
#else
#define keep_alive(fd, ms)	((void)0)
#endif

static void
tune(int fd, const struct config *cfg)
{
	int64_t ms = cfg->number[KEEPALIVE];
	int on = 1, alive = ms != 0;

	/* None is there on a Unix socket, and none is missed. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &alive, sizeof(alive));
	if (alive)
		keep_alive(fd, ms);
}

/* Give up a socket for the reason in errno. */
static int
close_failed(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

/*
 * In TLS 1.3 the client has the last word of the handshake.  A client that
 * waits for its acknowledgement before it sends more shall not wait long.
 */
#ifdef TCP_QUICKACK
static void
acknowledge(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}
#else
#define acknowledge(fd)	((void)(fd))
#endif

/*
 * COMMANDS
 * The parent keeps the child's end of the socket pair open until it has its
 * exit status: by the time the end of file is seen, it is known whether the
 * command ended or was killed, and the latter is no end at all.
 */

static const struct command *
command_of(const struct stream *s)
{
	const struct session *ss = s->ctx;

	return ss->command;
}

static int
command_died(const struct stream *s)
{
	const struct command *c = command_of(s);

	return c->over && c->signal != 0;
}

/* What a command did not wait for, it did not want: that is no reset. */
static int
command_left(const struct stream *s, ssize_t result)
{
	const struct command *c = command_of(s);

	return result == STREAM_RESET && c->over && !command_died(s);
}

static ssize_t
command_read(struct stream *s, void *buf, size_t len)
{
	ssize_t n = stream_plain.read(s, buf, len);

	if (command_left(s, n))
		return STREAM_EOF;
	return n == STREAM_EOF && command_died(s) ? STREAM_ERROR : n;
}

static ssize_t
command_write(struct stream *s, const void *buf, size_t len)
{
	ssize_t n = stream_plain.write(s, buf, len);

	return command_left(s, n) ? (ssize_t)len : n;
}

static int
command_failed(struct stream *s)
{
	int r = stream_plain.failed(s);

	return command_left(s, r) ? 0 : r;
}

/*
 * An abort must not look like the end of the input, to any of its group.  What
 * a command that is over has left behind is none of ours, if nobody has the
 * socket any more.
 */
static void
command_abort(struct stream *s)
{
	const struct command *c = command_of(s);
	struct pollfd p = { .fd = s->fd };

	if (!c->over || poll(&p, 1, 0) != 1 || !(p.revents & POLLHUP))
		kill(-c->pid, SIGTERM);
}

static const char *
command_error(const struct stream *s)
{
	const struct command *c = command_of(s);
	static char text[64];

	if (!command_died(s))
		return stream_plain.error(s);
	snprintf(text, sizeof(text), "command killed by signal %d (%s)",
	    c->signal, strsignal(c->signal));
	return text;
}

/*
 * What a service manager has for us alone is not for a command, nor is what
 * makes the dynamic linker load other libraries.
 */
static void
command_environment(const char *peer)
{
	static const char *const without[] = {
		"LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_", "LD_",
		"REMOTE_HOST=", "REMOTE_PORT="
	};
	char host[ADDRESS_SIZE], **from, **to = environ;
	const char *port;
	size_t i;

	for (from = environ; from != NULL && *from != NULL; from++) {
		for (i = 0; i < sizeof(without) / sizeof(without[0]); i++)
			if (strncmp(*from, without[i], strlen(without[i])) ==
			    0)
				break;
		if (i == sizeof(without) / sizeof(without[0]))
			*to++ = *from;
	}
	if (to != NULL)
		*to = NULL;
	if (strncmp(peer, "unix:", 5) != 0 &&
	    split_address(peer, host, sizeof(host), &port) == 0) {
		setenv("REMOTE_HOST", host, 1);
		setenv("REMOTE_PORT", port, 1);
	}
}

/* In the child: become the command, with the socket as its 0 and 1. */
static void __attribute__((noreturn))
command_run(const struct session *ss, int fd)
{
	const struct service *sv = ss->worker->service;
	char **argv = sv->cfg.command;
	sigset_t none;
	size_t i;

	command_environment(ss->peer);
	setpgid(0, 0);
	setrlimit(RLIMIT_NOFILE, sv->files);
	setrlimit(RLIMIT_CORE, sv->core);
	/* An abort that is waiting already must not end in our handler. */
	for (i = 0; i < SIGNALS; i++)
		signal(signals[i], SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(fd, STDIN_FILENO) != -1 && dup2(fd, STDOUT_FILENO) != -1)
		execvp(argv[0], argv);
	log_error("%s: %s", argv[0], strerror(errno));
	kill(getpid(), SIGKILL);	/* no output is not an empty one */
	_exit(127);
}

static int
command_start(struct session *ss, struct stream *backend)
{
	struct worker *w = ss->worker;
	const char *name = w->service->cfg.command[0];
	struct command *c;
	int fds[2] = { -1, -1 };

	/* They may outlive their connections, and still count. */
	if (w->running >= w->share) {
		snprintf(w->why, sizeof(w->why), "%s: %zu commands are still "
		    "running", name, w->running);
		return -1;
	}
	if ((c = calloc(1, sizeof(*c))) == NULL ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == -1 ||
	    fcntl(fds[0], F_SETFL, O_NONBLOCK) == -1 ||
	    (c->pid = fork()) == -1) {
		snprintf(w->why, sizeof(w->why), "%s: %s", name,
		    strerror(errno));
		if (fds[0] != -1) {
			close(fds[0]);
			close(fds[1]);
		}
		free(c);
		return -1;
	}
	if (c->pid == 0)
		command_run(ss, fds[1]);
	setpgid(c->pid, c->pid);	/* whichever of the two comes first */
	c->end = fds[1];
	c->next = w->commands;
	w->commands = c;
	w->running++;
	ss->command = c;
	*backend = (struct stream){ .ops = &w->command_ops, .ctx = ss,
	    .fd = fds[0] };
	return 0;
}

static void
command_close(struct command *c)
{
	if (c->end != -1)
		close(c->end);
	c->end = -1;
}

/*
 * Reap the commands that are over, if their connections are as well: until
 * then, their numbers can't become those of other groups.
 */
static void
commands_reap(struct worker *w)
{
	struct command **link = &w->commands, *c;

	while ((c = *link) != NULL) {
		if (c->over && c->left) {
			waitpid(c->pid, NULL, 0);
			*link = c->next;
			free(c);
		} else
			link = &c->next;
	}
}

/* Find those that are over.  They stay zombies until they are reaped. */
static void
commands_look(struct worker *w)
{
	struct command *c;

	for (c = w->commands; c != NULL; c = c->next) {
		siginfo_t si = { .si_pid = 0 };

		if (c->over || waitid(P_PID, (id_t)c->pid, &si, WEXITED |
		    WNOHANG | WNOWAIT) == -1 || si.si_pid == 0)
			continue;
		c->over = 1;
		c->signal = si.si_code == CLD_EXITED ? 0 : si.si_status;
		log_debug("command %d ended: %s %d", (int)c->pid,
		    c->signal != 0 ? "signal" : "status", si.si_status);
		w->running--;
		command_close(c);
	}
	commands_reap(w);
}

/*
 * THE PROXY PROTOCOL
 * https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt: who the client
 * is, in front of its stream.  Told to the service as part of opening it, and
 * taken from a balancer as part of opening the client's.
 */

enum { PROXY_OFF, PROXY_V1, PROXY_V2 };
enum { PROXY_LOCAL = 0x20, PROXY_PROXY };
enum { PROXY_UNSPEC, PROXY_TCP4 = 0x11, PROXY_TCP6 = 0x21,
    PROXY_STREAM = 0x31, PROXY_UDP4 = 0x12, PROXY_UDP6 = 0x22,
    PROXY_DGRAM = 0x32 };
enum { TLV_ALPN = 1, TLV_AUTHORITY = 2, TLV_SSL = 0x20, TLV_SSL_VERSION,
    TLV_SSL_CN, TLV_SSL_CIPHER };
enum { CLIENT_SSL = 1, CLIENT_CERT_CONN = 2, CLIENT_CERT_SESS = 4 };

static const unsigned char proxy_v2[12] = "\r\n\r\n\0\r\nQUIT\n";
static const char proxy_v1[] = "PROXY ";

/* A header on its way: out, or in. */
struct proxy {
	size_t	 done;			/* bytes of it */
	size_t	 len;			/* of one that goes out */
	unsigned char data[PROXY_V2_HEAD + PROXY_V2_BODY + 1];
};

/* The families, and where in version 2 what of them is told. */
static const struct family {
	sa_family_t family;
	int	 code;
	const char *name;		/* in version 1; or NULL */
	size_t	 address, address_len;	/* in union end */
	size_t	 port, port_len;
} families[] = {
	{ AF_INET, PROXY_TCP4, "TCP4",
	    offsetof(struct sockaddr_in, sin_addr), 4,
	    offsetof(struct sockaddr_in, sin_port), 2 },
	{ AF_INET6, PROXY_TCP6, "TCP6",
	    offsetof(struct sockaddr_in6, sin6_addr), 16,
	    offsetof(struct sockaddr_in6, sin6_port), 2 },
	{ AF_UNIX, PROXY_STREAM, NULL,
	    offsetof(struct sockaddr_un, sun_path), PROXY_UNIX, 0, 0 },
	{ AF_UNSPEC, PROXY_UNSPEC, NULL, 0, 0, 0, 0 },
};

static const struct family *
family_of(const struct ends *ends)
{
	const struct family *f = families;

	while (f->family != AF_UNSPEC && f->family != ends->from.any.ss_family)
		f++;
	return f;
}

static int
is_mapped(const union end *e)
{
	return e->any.ss_family == AF_INET6 &&
	    IN6_IS_ADDR_V4MAPPED(&e->in6.sin6_addr);
}

static void
unmap(union end *e)
{
	const struct sockaddr_in6 in6 = e->in6;

	memset(e, 0, sizeof(*e));
	e->in.sin_family = AF_INET;
	e->in.sin_port = in6.sin6_port;
	memcpy(&e->in.sin_addr, in6.sin6_addr.s6_addr + 12, 4);
}

/* IPv4 in IPv6's clothes is IPv4, if both ends are. */
static void
undress(struct ends *ends)
{
	if (is_mapped(&ends->from) && is_mapped(&ends->to)) {
		unmap(&ends->from);
		unmap(&ends->to);
	}
}

/* Both ends of the client's connection, as far as they are known. */
static void
find_ends(const struct session *ss, struct ends *ends)
{
	socklen_t len = sizeof(ends->from);

	memset(ends, 0, sizeof(*ends));
	if (ss->ends != NULL) {
		*ends = *ss->ends;
		return;
	}
	if (getpeername(ss->fd, (struct sockaddr *)&ends->from, &len) == -1)
		return;
	len = sizeof(ends->to);
	if (getsockname(ss->fd, (struct sockaddr *)&ends->to, &len) == -1 ||
	    ends->to.any.ss_family != ends->from.any.ss_family)
		ends->from.any.ss_family = AF_UNSPEC;
	undress(ends);
}

static size_t
proxy_make_v1(char *p, size_t size, const struct ends *ends)
{
	const struct family *f = family_of(ends);
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];

	if (f->name == NULL)
		return (size_t)snprintf(p, size, "PROXY UNKNOWN\r\n");
	inet_ntop(f->family, (const char *)&ends->from + f->address, from,
	    sizeof(from));
	inet_ntop(f->family, (const char *)&ends->to + f->address, to,
	    sizeof(to));
	/* The port is at the same place in both. */
	return (size_t)snprintf(p, size, "PROXY %s %s %s %d %d\r\n", f->name,
	    from, to, ntohs(ends->from.in.sin_port),
	    ntohs(ends->to.in.sin_port));
}

/* Where bytes are added behind each other, as long as there is room. */
struct bytes {
	unsigned char *p;
	size_t	 n, size;
};

static void
bytes_add(struct bytes *b, const void *data, size_t len)
{
	if (b->size - b->n < len)
		return;
	memcpy(b->p + b->n, data, len);
	b->n += len;
}

static void
bytes_add_number(struct bytes *b, uint32_t value, size_t len)
{
	unsigned char data[4] = { 0 };
	size_t i;

	for (i = 0; i < len; i++)
		data[i] = (unsigned char)(value >> 8 * (len - 1 - i));
	bytes_add(b, data, len);
}

/* A type, a length, and text: all of it, or nothing. */
static void
bytes_add_tlv(struct bytes *b, int type, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;

	if (len == 0 || b->size - b->n < 3 + len)
		return;
	bytes_add_number(b, (uint32_t)type, 1);
	bytes_add_number(b, (uint32_t)len, 2);
	bytes_add(b, text, len);
}

static void
bytes_set_length(struct bytes *b, size_t at)
{
	b->p[at] = (unsigned char)((b->n - at - 2) >> 8);
	b->p[at + 1] = (unsigned char)(b->n - at - 2);
}

static void
add_tlvs(struct bytes *b, const struct tls_agreed *a)
{
	int client = CLIENT_SSL;
	size_t at;

	if (a->client != NULL)
		client |= CLIENT_CERT_SESS | (a->resumed ? 0 :
		    CLIENT_CERT_CONN);
	bytes_add_tlv(b, TLV_ALPN, a->alpn);
	bytes_add_tlv(b, TLV_AUTHORITY, a->name);
	bytes_add_number(b, TLV_SSL, 1);
	at = b->n;
	bytes_add_number(b, 0, 2);
	bytes_add_number(b, (uint32_t)client, 1);
	bytes_add_number(b, a->client == NULL, 4);
	bytes_add_tlv(b, TLV_SSL_VERSION, a->version);
	bytes_add_tlv(b, TLV_SSL_CIPHER, a->cipher);
	bytes_add_tlv(b, TLV_SSL_CN, a->common_name);
	bytes_set_length(b, at);
}

static size_t
proxy_make_v2(unsigned char *p, size_t size, const struct ends *ends,
    const struct tls_agreed *agreed)
{
	const struct family *f = family_of(ends);
	const char *from = (const void *)&ends->from;
	const char *to = (const void *)&ends->to;
	struct bytes b = { .p = p, .size = size };
	size_t at;

	bytes_add(&b, proxy_v2, sizeof(proxy_v2));
	bytes_add_number(&b, PROXY_PROXY, 1);
	bytes_add_number(&b, (uint32_t)f->code, 1);
	at = b.n;
	bytes_add_number(&b, 0, 2);
	bytes_add(&b, from + f->address, f->address_len);
	bytes_add(&b, to + f->address, f->address_len);
	bytes_add(&b, from + f->port, f->port_len);
	bytes_add(&b, to + f->port, f->port_len);
	add_tlvs(&b, agreed);
	bytes_set_length(&b, at);
	return b.n;
}

/* The header for a session's service, if it is to have one; -1: no memory. */
static int
proxy_make(struct session *ss)
{
	int64_t version = ss->worker->service->cfg.number[PROXY_PROTOCOL];
	struct tls_agreed agreed;
	struct ends ends;
	struct proxy *p;

	if (version == PROXY_OFF)
		return 0;
	if (ss->proxy == NULL && (ss->proxy = malloc(sizeof(*p))) == NULL)
		return -1;
	p = ss->proxy;
	p->done = 0;
	find_ends(ss, &ends);
	session_agreed(ss, &agreed);
	p->len = version == PROXY_V1 ?
	    proxy_make_v1((char *)p->data, PROXY_HEADER, &ends) :
	    proxy_make_v2(p->data, PROXY_HEADER, &ends, &agreed);
	return 0;
}

static void
proxy_free(struct session *ss)
{
	free(ss->proxy);
	ss->proxy = NULL;
}

/* A service is open once it has been told who the client is. */
static int
backend_open(struct stream *s)
{
	struct session *ss = s->ctx;
	struct proxy *p = ss->proxy;
	ssize_t n = stream_plain.open(s);

	while (n == 0 && p != NULL && p->done < p->len) {
		n = s->ops->write(s, p->data + p->done, p->len - p->done);
		if (n > 0) {
			p->done += (size_t)n;
			n = 0;
		}
	}
	if (n == 0)
		proxy_free(ss);
	return (int)n;
}

/* Why a session can't go on; STREAM_ERROR. */
static int __attribute__((format(printf, 2, 3)))
give_reason(struct session *ss, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(ss->worker->why, sizeof(ss->worker->why), fmt, ap);
	va_end(ap);
	return STREAM_ERROR;
}

static const char *
proxied_error(const struct stream *s)
{
	const struct session *ss = s->ctx;

	return ss->worker->why;
}

/* Nothing more than its header, which has TLS behind it: how many bytes? */
static size_t
proxy_wants(const struct proxy *p)
{
	size_t len;

	if (p->done < sizeof(proxy_v2))
		return sizeof(proxy_v2) - p->done;
	if (p->data[0] == 'P')
		return p->data[p->done - 1] == '\n' ? 0 :
		    PROXY_V1_MAX - p->done;
	if (p->done < PROXY_V2_HEAD)
		return PROXY_V2_HEAD - p->done;
	len = (size_t)p->data[14] << 8 | p->data[15];
	return len > PROXY_V2_BODY ? 0 : PROXY_V2_HEAD + len - p->done;
}

static int
is_proxy(const struct proxy *p)
{
	size_t n = p->done, v1 = strlen(proxy_v1);

	return memcmp(p->data, proxy_v1, n < v1 ? n : v1) == 0 ||
	    memcmp(p->data, proxy_v2, n < sizeof(proxy_v2) ? n :
	    sizeof(proxy_v2)) == 0;
}

/* As many bytes as can be known to be the header's; or a stream's result. */
static ssize_t
proxy_recv(struct proxy *p, int fd)
{
	int is_line = p->done >= sizeof(proxy_v2) && p->data[0] == 'P';
	unsigned char *to = p->data + p->done, *end;
	ssize_t n;

	do {
		n = recv(fd, to, proxy_wants(p), is_line ? MSG_PEEK : 0);
		if (n > 0 && is_line) {
			end = memchr(to, '\n', (size_t)n);
			n = recv(fd, to, end != NULL ? (size_t)(end - to) + 1 :
			    (size_t)n, 0);
		}
	} while (n == -1 && errno == EINTR);
	if (n != -1)
		return n;
	return errno == EAGAIN || errno == EWOULDBLOCK ? STREAM_WANT_READ :
	    errno == ECONNRESET ? STREAM_RESET : STREAM_ERROR;
}

/* An address and a port as text, in one of the two families. */
static int
parse_end(union end *e, int family, const char *host, const char *port)
{
	struct address a = { .len = 0 };
	int64_t number;

	if (host == NULL || port == NULL ||
	    parse_number(port, 0, 65535, &number) == -1 ||
	    (port[0] == '0' && port[1] != '\0') ||
	    address_numeric(&a, host, (in_port_t)number) == -1 ||
	    a.sa.ss_family != family)
		return -1;
	e->any = a.sa;
	return 0;
}

/* 1: it says that the connection is what it looks like. */
static int
proxy_parse_v1(char *line, struct ends *ends)
{
	char *word[6] = { NULL }, *end = strstr(line, "\r\n");
	int family;
	size_t n;

	if (end == NULL || end[2] != '\0')
		return -1;
	*end = '\0';
	for (n = 0; n < 6 && line != NULL; n++)
		word[n] = strsep(&line, " ");
	if (n > 1 && strcmp(word[1], "UNKNOWN") == 0)
		return 1;
	if (n < 6 || line != NULL)
		return -1;
	family = strcmp(word[1], "TCP4") == 0 ? AF_INET :
	    strcmp(word[1], "TCP6") == 0 ? AF_INET6 : AF_UNSPEC;
	return parse_end(&ends->from, family, word[2], word[4]) == -1 ||
	    parse_end(&ends->to, family, word[3], word[5]) == -1 ? -1 : 0;
}

static int
proxy_parse_v2(const unsigned char *p, size_t len, struct ends *ends)
{
	static const int useless[] = { PROXY_UNSPEC, PROXY_UDP4, PROXY_UDP6,
	    PROXY_DGRAM };
	char *from = (void *)&ends->from, *to = (void *)&ends->to;
	const struct family *f = families;
	int command = p[12], code = p[13];
	size_t i;

	len -= PROXY_V2_HEAD;
	if (((size_t)p[14] << 8 | p[15]) != len ||
	    (command != PROXY_LOCAL && command != PROXY_PROXY))
		return -1;
	if (command == PROXY_LOCAL)
		return 1;
	/* What is known, but of no use, is as if it were not told. */
	for (i = 0; i < sizeof(useless) / sizeof(useless[0]); i++)
		if (code == useless[i])
			return 1;
	while (f->code != PROXY_UNSPEC && f->code != code)
		f++;
	if (f->code == PROXY_UNSPEC ||
	    len < 2 * f->address_len + 2 * f->port_len)
		return -1;
	p += PROXY_V2_HEAD;
	ends->from.any.ss_family = ends->to.any.ss_family = f->family;
	memcpy(from + f->address, p, f->address_len);
	memcpy(to + f->address, p + f->address_len, f->address_len);
	p += 2 * f->address_len;
	memcpy(from + f->port, p, f->port_len);
	memcpy(to + f->port, p + f->port_len, f->port_len);
	return 0;
}

/* The header is there: who is the client?  0, or STREAM_ERROR. */
static int
proxy_take(struct session *ss)
{
	struct proxy *p = ss->proxy;
	struct ends ends = { .from = { .any = { .ss_family = AF_UNSPEC } } };
	struct address from = { .len = sizeof(from.sa) };
	char text[2 * PROXY_V1_MAX];
	int r;

	p->data[p->done] = '\0';
	r = p->data[0] == 'P' ? proxy_parse_v1((char *)p->data, &ends) :
	    proxy_parse_v2(p->data, p->done, &ends);
	if (r == -1) {
		text_quote(text, sizeof(text), p->data, p->done);
		return give_reason(ss, "bad PROXY header: %s", text);
	}
	proxy_free(ss);
	if (r == 1)
		return 0;
	undress(&ends);
	if ((ss->ends = malloc(sizeof(ends))) == NULL)
		return give_reason(ss, "out of memory");
	*ss->ends = ends;
	from.sa = ends.from.any;
	address_text(&from);
	snprintf(text, sizeof(text), "%s", ss->peer);
	if (set_peer(ss, &from) == -1)
		return give_reason(ss, "out of memory");
	log_debug("%s is %s", text, ss->peer);
	return 0;
}

/* Until the header is there, and taken: 0, or a stream's result. */
static int
proxy_read(struct session *ss)
{
	struct proxy *p = ss->proxy;
	char first[64];
	ssize_t n;

	while (proxy_wants(p) > 0) {
		n = proxy_recv(p, ss->fd);
		if (n == 0)
			return give_reason(ss, p->done == 0 ?
			    "closed by the balancer before it sent a byte" :
			    "closed by the balancer within the PROXY header");
		if (n == STREAM_ERROR)
			return give_reason(ss, "balancer: %s", strerror(errno));
		if (n < 0)
			return (int)n;
		p->done += (size_t)n;
		if (!is_proxy(p)) {
			text_quote(first, sizeof(first), p->data, p->done);
			return give_reason(ss, "no PROXY header: it began with "
			    "%s", first);
		}
	}
	return proxy_take(ss);
}

/*
 * WHO COMES TOO OFTEN
 * Connections are counted by address for max_per_ip, and lines of the log that
 * repeat themselves, in memory that all processes share.  It holds what a
 * process left there that was killed, or taken over: it is never trusted to
 * lead anywhere, and what is amiss gets right again by itself.
 */

/*
 * What stands for an address: IPv4, or a /64 of IPv6; 0 is none.  An IPv4
 * client may be told of in two more ways (RFC 4291 section 2.5.5.2, RFC 6052
 * section 2.1).
 */
static uint64_t
peer_key(const struct sockaddr_storage *sa)
{
	static const uint8_t nat64[12] = { 0, 0x64, 0xff, 0x9b };
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const uint8_t *b = in6->sin6_addr.s6_addr;
	uint64_t key = 0;
	size_t i;

	if (sa->ss_family == AF_INET)
		return UINT64_MAX << 32 | ntohl(in->sin_addr.s_addr);
	if (sa->ss_family != AF_INET6)
		return 0;
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr) ||
	    memcmp(b, nat64, sizeof(nat64)) == 0)
		return UINT64_MAX << 32 | (uint64_t)b[12] << 24 |
		    (uint64_t)b[13] << 16 | (uint64_t)b[14] << 8 | b[15];
	for (i = 0; i < 8; i++)
		key = key << 8 | b[i];
	return key != 0 ? key : 1;	/* ::1 and the like */
}

static void
peer_text(uint64_t key, char *text, size_t size)
{
	struct in6_addr in6 = { .s6_addr = { 0 } };
	struct in_addr in = { .s_addr = htonl((uint32_t)key) };
	char host[INET6_ADDRSTRLEN];
	size_t i;

	for (i = 0; i < 8 && key > 1; i++)
		in6.s6_addr[i] = (uint8_t)(key >> (56 - 8 * i));
	if (key == 0)
		snprintf(text, size, "unix:");
	else if (key >> 32 == UINT32_MAX)
		inet_ntop(AF_INET, &in, text, (socklen_t)size);
	else
		snprintf(text, size, "%s/64", inet_ntop(AF_INET6, &in6, host,
		    sizeof(host)));
}

/*
 * Whoever has the lock may have been killed, or worse: patience has an end,
 * and the worst of it is a count that is wrong for a while.
 */
static void
lock_shared(struct shared *shared)
{
	int i;

	for (i = 0; i < PATIENCE; i++) {
		if (!atomic_flag_test_and_set(&shared->lock))
			return;
		sched_yield();
	}
}

static void
unlock_shared(struct shared *shared)
{
	atomic_flag_clear(&shared->lock);
}

/* Where a key belongs in the table; nobody else knows which share a row. */
static size_t
peer_home(const struct service *sv, uint64_t key)
{
	key *= sv->secret;
	key = (key ^ key >> 32) * sv->secret;
	return (size_t)(key >> 32) & (sv->npeers - 1);
}

/*
 * The row of a key, or the free one where it would be.  In a table that is not
 * in order it may be any: to search all of it for each would take for ever.
 */
static size_t
peer_find(const struct service *sv, uint64_t key)
{
	size_t i = peer_home(sv, key), n;

	for (n = 0; n < PROBES && sv->peers[i].key != 0 &&
	    sv->peers[i].key != key; n++)
		i = (i + 1) & (sv->npeers - 1);
	return i;
}

static void
peer_add(struct service *sv, uint64_t key)
{
	volatile struct peer *p = &sv->peers[peer_find(sv, key)];

	if (p->key != key)
		p->count = 0;
	p->key = key;
	p->count++;
}

/* Its last one frees the row, and others move up that have been passed on. */
static void
peer_remove(struct service *sv, uint64_t key)
{
	size_t mask = sv->npeers - 1, i = peer_find(sv, key), free_row = i, n;

	if (sv->peers[i].key != key || sv->peers[i].count-- > 1)
		return;
	for (n = 1; n < sv->npeers && n < PROBES; n++) {
		i = (i + 1) & mask;
		if (sv->peers[i].key == 0)
			break;
		if (((i - peer_home(sv, sv->peers[i].key)) & mask) <
		    ((i - free_row) & mask))
			continue;
		sv->peers[free_row].key = sv->peers[i].key;
		sv->peers[free_row].count = sv->peers[i].count;
		free_row = i;
	}
	sv->peers[free_row].key = 0;
}

/*
 * A worker is no more: its places are free.  If it was killed, some are not,
 * and it may have been about to change the table.
 */
static void
peers_recount(struct service *sv, size_t first, size_t n)
{
	size_t i, max = (size_t)sv->cfg.number[MAX_CONNECTIONS];
	uint64_t left = 0;

	for (i = first; sv->peers != NULL && i < first + n; i++) {
		left |= sv->places[i];
		sv->places[i] = 0;
	}
	if (left == 0)
		return;
	lock_shared(sv->shared);
	for (i = 0; i < sv->npeers; i++)
		sv->peers[i].key = 0;
	for (i = 0; i < max; i++)
		if (sv->places[i] != 0)
			peer_add(sv, sv->places[i]);
	unlock_shared(sv->shared);
}

static uint64_t
peer_count(const struct service *sv, uint64_t key)
{
	const volatile struct peer *p = &sv->peers[peer_find(sv, key)];

	return p->key == key ? p->count : 0;
}

/*
 * What an address still has of the generations before, each of which has a
 * table of its own size.  Those take places no more, but for connections that
 * were accepted before the reload and tell their address only now.
 */
static uint64_t
peer_count_older(const struct service *sv, uint64_t key)
{
	uint64_t n = 0;

	while ((sv = sv->older) != NULL) {
		lock_shared(sv->shared);
		n += peer_count(sv, key);
		unlock_shared(sv->shared);
	}
	return n;
}

/*
 * A place for an address among those of the worker; -1: it has too many.  The
 * place is the first thing to be taken and the last to be left, so that a
 * table that is not in order has one to tell of it.  All are counted, as the
 * next generation may have a limit where this one has none.
 */
static int
take_place(struct worker *w, uint64_t key, volatile uint64_t **place)
{
	struct service *sv = w->service;
	uint64_t max = (uint64_t)sv->cfg.number[MAX_PER_IP], older;

	*place = NULL;
	if (sv->peers == NULL || key == 0)
		return 0;
	older = max != 0 ? peer_count_older(sv, key) : 0;
	lock_shared(sv->shared);
	if (max == 0 || peer_count(sv, key) + older < max) {
		*place = w->nunused > 0 ? w->unused[--w->nunused] :
		    &sv->places[w->first + w->used++];
		**place = key;
		peer_add(sv, key);
	}
	unlock_shared(sv->shared);
	return *place != NULL ? 0 : -1;
}

static void
leave_place(struct worker *w, volatile uint64_t *place, uint64_t key)
{
	if (place == NULL)
		return;
	lock_shared(w->service->shared);
	peer_remove(w->service, key);
	*place = 0;
	unlock_shared(w->service->shared);
	w->unused[w->nunused++] = place;
}

/*
 * The row for such lines, which may be a free one; NULL: none is left.  Reasons
 * are the same up to what they quote of the client's, or to their end.
 */
static struct repeat *
repeat_find(struct repeats *r, uint64_t key, const char *reason)
{
	size_t i, n = strcspn(reason, "\"") + 1;

	if (n > REASON_SIZE - 1)
		n = REASON_SIZE - 1;
	for (i = 0; i < REPEATS_ALL; i++)
		if (r->rows[i].logged == 0 || (r->rows[i].key == key &&
		    strncmp(r->rows[i].reason, reason, n) == 0))
			return &r->rows[i];
	return NULL;
}

/* One more line: is it to be logged? */
static int
repeat_count(struct repeats *r, enum log_level level, uint64_t key,
    const char *reason)
{
	struct repeat *row = repeat_find(r, key, reason);
	int allowed = row != NULL && row->logged < REPEATS &&
	    r->logged < REPEATS_ALL;

	if (r->began == 0)
		r->began = (uint64_t)clock_ms();
	if (allowed && row->logged == 0) {
		row->key = key;
		row->level = level;
		snprintf(row->reason, REASON_SIZE, "%s", reason);
	}
	r->logged += (uint64_t)allowed;
	r->more += !allowed;
	if (row != NULL && row->logged + (uint64_t)allowed > 0) {
		row->logged += (uint64_t)allowed;
		row->more += !allowed;
	}
	return allowed;
}

/*
 * When the period is over; INT64_MAX: it has not begun.  Another process may
 * have begun it a moment ago, but not for much later.
 */
static int64_t
repeats_until(const struct service *sv, int64_t now)
{
	const volatile struct repeats *r = &sv->shared->repeats;
	uint64_t began = r->began;

	if (began > (uint64_t)now + REPEATS_MS)
		return now;
	return began == 0 ? INT64_MAX : (int64_t)began + REPEATS_MS;
}

/* What was counted instead of being logged. */
static void
repeats_log(const struct repeats *r)
{
	uint64_t s = ((uint64_t)clock_ms() - r->began + 500) / 1000;
	uint64_t others = r->more;
	char text[ADDRESS_SIZE];
	size_t i;

	for (i = 0; i < REPEATS_ALL; i++) {
		const struct repeat *row = &r->rows[i];

		if (row->more == 0)
			continue;
		others -= row->more;
		peer_text(row->key, text, sizeof(text));
		log_at(row->level, "%s: and %llu more in %llu s: %.*s", text,
		    (unsigned long long)row->more, (unsigned long long)s,
		    REASON_SIZE - 1, row->reason);
	}
	if (others != 0)
		log_notice("other addresses: and %llu more in %llu s",
		    (unsigned long long)others, (unsigned long long)s);
}

/* If the period is over, or at once. */
static void
repeats_end(struct service *sv, int at_once)
{
	struct repeats *shared = &sv->shared->repeats, r;
	int64_t now = clock_ms();

	if (!at_once && now < repeats_until(sv, now))
		return;
	lock_shared(sv->shared);
	r = *shared;
	memset(shared, 0, sizeof(*shared));
	unlock_shared(sv->shared);
	if (r.more > 0)
		repeats_log(&r);
}

/*
 * May a line be logged that says why a client was not served?  It was counted
 * if not.
 */
static int
may_log(struct worker *w, enum log_level level, uint64_t key,
    const char *reason)
{
	struct shared *shared = w->service->shared;
	int allowed;

	if (level > logging.level || logging.level == LEVEL_DEBUG)
		return 1;
	repeats_end(w->service, 0);
	lock_shared(shared);
	allowed = repeat_count(&shared->repeats, level, key, reason);
	unlock_shared(shared);
	if (!allowed) {
		w->repeats_until = repeats_until(w->service, clock_ms());
		forward_wake(w->engine, w->repeats_until);
	}
	return allowed;
}

/* mode = poll: has no worker room for another connection? */
static int
is_full_house(const struct service *sv)
{
	uint64_t live = 0;
	size_t i;

	for (i = 0; i < sv->nseats; i++)
		live += sv->counts[i].live;
	return live >= (uint64_t)sv->cfg.number[MAX_CONNECTIONS];
}

/* All processes together say so now and then. */
static void
warn_full(const struct service *sv)
{
	uint64_t now = (uint64_t)clock_ms();
	int due;

	lock_shared(sv->shared);
	due = sv->shared->warned == 0 ||
	    now - sv->shared->warned >= FULL_EVERY_MS;
	if (due)
		sv->shared->warned = now;
	unlock_shared(sv->shared);
	if (due)
		log_warning("max_connections reached: %lld; one more takes "
		    "the place of a handshake older than %d s, or waits",
		    (long long)sv->cfg.number[MAX_CONNECTIONS],
		    FORWARD_DROP_MS / 1000);
}

/*
 * THE ENGINE'S CALLBACKS
 */

/* May one more connection come from its address? */
static int
session_admit(struct session *ss)
{
	struct worker *w = ss->worker;

	if (take_place(w, ss->key, &ss->place) == 0)
		return 0;
	ss->over = 1;
	w->counts->over++;
	if (may_log(w, LEVEL_INFO, ss->key, options[MAX_PER_IP].name))
		log_info("%s refused: its address has %lld connections "
		    "already (max_per_ip)", ss->peer,
		    (long long)w->service->cfg.number[MAX_PER_IP]);
	return -1;
}

/* What a balancer has in front of TLS comes first. */
static int
proxied_open(struct stream *s)
{
	struct session *ss = s->ctx;
	struct ends ends;
	int r = proxy_read(ss);

	if (r != 0)
		return r;
	find_ends(ss, &ends);
	ss->key = peer_key(&ends.from.any);
	if (session_admit(ss) == -1)
		return give_reason(ss, "max_per_ip");
	ss->tls = tls_new(ss->worker->service->tls, ss->fd, s);
	return ss->tls != NULL ? s->ops->open(s) :
	    give_reason(ss, "out of memory");
}

/* Has its client's stream a beginning?  -1: there is no memory for one. */
static int
session_begin(struct session *ss, struct stream *client)
{
	struct worker *w = ss->worker;

	if (w->service->cfg.number[ACCEPT_PROXY] == 0) {
		ss->tls = tls_new(w->service->tls, ss->fd, client);
		return ss->tls != NULL ? 0 : -1;
	}
	client->ops = &w->proxied_ops;
	client->ctx = ss;
	ss->proxy = calloc(1, sizeof(*ss->proxy));
	return ss->proxy != NULL ? 0 : -1;
}

static void *
session_accepted(void *arg, int fd, const struct sockaddr *sa, socklen_t len,
    struct stream *client)
{
	struct address peer = { .len = 0 };
	struct worker *w = arg;
	struct session *ss;

	memcpy(&peer.sa, sa, len);
	peer.len = len;
	address_text(&peer);
	w->counts->accepted++;
	if ((ss = calloc(1, sizeof(*ss))) == NULL)
		goto err;
	ss->worker = w;
	ss->fd = fd;
	ss->key = peer_key(&peer.sa);
	ss->turn = w->turn++;
	if (set_peer(ss, &peer) == -1)
		goto err;
	if (w->service->cfg.number[ACCEPT_PROXY] == 0 &&
	    session_admit(ss) == -1) {
		free(ss->peer);
		free(ss);
		return NULL;
	}
	if (session_begin(ss, client) == -1)
		goto err;
	if (++w->counts->live > w->peak)
		w->peak = w->counts->live;
	log_debug("%s accepted", ss->peer);
	if (w->service->nlisteners > 0 && w->counts->live == w->share &&
	    is_full_house(w->service))
		warn_full(w->service);
	return ss;
err:
	if (may_log(w, LEVEL_WARNING, peer_key(&peer.sa), "out of memory"))
		log_warning("a connection was turned away: out of memory");
	w->counts->lost++;
	if (ss != NULL) {
		leave_place(w, ss->place, ss->key);
		free(ss->peer);
	}
	free(ss);
	return NULL;
}

/* The next address to try; NULL when all have been. */
static const struct address *
next_address(struct session *ss)
{
	const struct targets *all = &ss->worker->service->connects;
	size_t i, n = ss->tried++;

	for (i = 0; i < all->n; i++) {
		struct target *t = &all->list[(ss->turn + i) % all->n];

		if (n < t->n) {
			ss->target = t;
			ss->which = (n == 0 ? t->first : ss->which + 1) % t->n;
			return &t->addrs[ss->which];
		}
		n -= t->n;
	}
	return NULL;
}

/* Give a stream a socket that is connecting to an address; -1 with errno. */
static int
dial(struct stream *s, const struct address *a)
{
	const struct session *ss = s->ctx;

	s->fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);
	if (s->fd == -1)
		return -1;
	tune(s->fd, &ss->worker->service->cfg);
	stream_reset(s);
	if (connect(s->fd, (const struct sockaddr *)&a->sa, a->len) == 0 ||
	    errno == EINPROGRESS)
		return 0;
	s->fd = close_failed(s->fd);
	return -1;
}

/* connect(2) says EAGAIN where a Unix socket has no room for another one. */
static const char *
dial_error(int error)
{
	return error == EAGAIN ? "its backlog is full" : strerror(error);
}

/* Remember what did not open, and begin with another one next time. */
static void
dial_failed(struct session *ss, const char *why)
{
	struct worker *w = ss->worker;
	struct target *t = ss->target;

	snprintf(w->why, sizeof(w->why), "%s: %s", t->addrs[ss->which].text,
	    why);
	if (may_log(w, LEVEL_INFO, ss->key, w->why))
		log_info("%s -> %s", ss->peer, w->why);
	t->first = (ss->which + 1) % t->n;
}

static int
session_dial(void *conn, struct stream *backend, const char *failed,
    const char **why)
{
	struct session *ss = conn;
	const struct address *to;
	struct tls_agreed a;

	*why = ss->worker->why;
	if (!ss->dialed) {
		session_agreed(ss, &a);
		ss->worker->counts->opened[is_tls13(&a)]++;
		acknowledge(ss->fd);
	}
	ss->dialed = 1;
	if (proxy_make(ss) == -1) {
		give_reason(ss, "out of memory");
		return -1;
	}
	if (ss->worker->service->cfg.command != NULL) {
		if (failed == NULL)
			return command_start(ss, backend);
		give_reason(ss, "%s", failed);
		return -1;
	}
	if (failed != NULL)
		dial_failed(ss, failed);
	while ((to = next_address(ss)) != NULL) {
		*backend = (struct stream){ .ops = &ss->worker->backend_ops,
		    .ctx = ss };
		if (dial(backend, to) == 0)
			return 0;
		dial_failed(ss, dial_error(errno));
	}
	return -1;
}

static void __attribute__((format(printf, 4, 5)))
append(char *text, size_t size, size_t *n, const char *fmt, ...)
{
	va_list ap;

	if (*n >= size)
		return;
	va_start(ap, fmt);
	*n += (size_t)vsnprintf(text + *n, size - *n, fmt, ap);
	va_end(ap);
}

/* What client and tunnel have agreed upon, a blank before each word. */
static void
agreed_text(const struct session *ss, char *text, size_t size)
{
	struct tls_agreed a;
	size_t n = 0;

	session_agreed(ss, &a);
	text[0] = '\0';
	if (a.version != NULL)
		append(text, size, &n, " %s %s", a.version, a.cipher);
	if (a.group != NULL)
		append(text, size, &n, " %s", a.group);
	if (a.in_kernel)
		append(text, size, &n, " ktls");
	if (a.resumed)
		append(text, size, &n, " resumed");
	if (a.name != NULL)
		append(text, size, &n, " sni=%s", *a.name != '\0' ? a.name :
		    "(invalid)");
	if (a.alpn != NULL)
		append(text, size, &n, " alpn=%s", a.alpn);
	if (a.client != NULL)
		append(text, size, &n, " client=\"%s\"", a.client);
}

/* The line of a connection, at its end or meanwhile. */
static void
session_say(const struct session *ss, enum log_level level, const char *what,
    const struct forward_end *end)
{
	const char *to = "-";
	char agreed[LOG_SIZE / 2];

	if (ss->command != NULL)
		to = ss->worker->service->cfg.command[0];
	else if (end->served)
		to = ss->target->addrs[ss->which].text;
	agreed_text(ss, agreed, sizeof(agreed));
	log_at(level, "%s%s -> %s%s in=%llu out=%llu %lld.%03ds %s", what,
	    ss->peer, to, agreed, (unsigned long long)end->in,
	    (unsigned long long)end->out, (long long)(end->ms / 1000),
	    (int)(end->ms % 1000), end->reason);
}

/* The same, unless it was not served, as many others were not. */
static void
session_say_why(const struct session *ss, enum log_level level,
    const struct forward_end *end)
{
	if (may_log(ss->worker, level, ss->key, end->reason))
		session_say(ss, level, "", end);
}

static void
session_listed(void *conn, const struct forward_end *how)
{
	session_say(conn, LEVEL_NOTICE, "live: ", how);
}

/* Has the client said anything? */
static int
session_heard(const struct session *ss)
{
	return ss->tls != NULL ? tls_heard(ss->tls) : ss->proxy != NULL &&
	    ss->proxy->done > 0;
}

/*
 * What a burst of connections has used would be kept by the C library: it is
 * given back whenever half of them have gone.
 */
static void
trim(struct worker *w)
{
	if (w->peak < BURST || w->counts->live > w->peak / 2)
		return;
	malloc_trim(0);
	w->peak = w->counts->live;
}

/* A client that says nothing, and stays, is one of another protocol. */
static void
session_silent(const struct session *ss, const struct forward_end *end)
{
	struct forward_end why = *end;

	if (strcmp(end->reason, "handshake timeout") != 0) {
		session_say(ss, LEVEL_DEBUG, "", end);
		return;
	}
	why.reason = "handshake timeout: the client sent nothing (it may wait "
	    "for a greeting: this port expects TLS at once)";
	session_say_why(ss, LEVEL_NOTICE, &why);
}

/* Of a reason in the log, what it begins with: statistics have few of them. */
static const struct {
	const char *begins;
	enum failure failure;
} failures[] = {
	{ "handshake timeout", FAILED_TIMEOUT },
	{ "not TLS", FAILED_NOT_TLS },
	{ "no client certificate", FAILED_CERTIFICATE },
	{ "client certificate", FAILED_CERTIFICATE },
	{ "no certificate for the name", FAILED_NAME },
	{ "no server name", FAILED_NAME },
	{ "no PROXY header", FAILED_PROXY },
	{ "bad PROXY header", FAILED_PROXY },
	{ "handshake: the client sent a fatal alert", FAILED_ALERT },
	{ "handshake: no ", FAILED_NOTHING_IN_COMMON },
	{ "closed by the client", FAILED_CLOSED },
	{ "client reset", FAILED_CLOSED },
};

static enum failure
failure_of(const char *reason)
{
	size_t i;

	for (i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		if (strncmp(reason, failures[i].begins,
		    strlen(failures[i].begins)) == 0)
			return failures[i].failure;
	return FAILED_OTHERWISE;
}

static void
session_closed(void *conn, const struct forward_end *end)
{
	struct session *ss = conn;
	struct worker *w = ss->worker;
	volatile struct counts *n = w->counts;
	struct tls_agreed a;

	session_agreed(ss, &a);
	n->live--;
	if (end->served) {
		n->served++;
		n->resumed += (uint64_t)a.resumed;
		session_say(ss, LEVEL_INFO, "", end);
	} else if (ss->dialed) {
		n->no_backend++;
		session_say_why(ss, LEVEL_WARNING, end);
	} else if (end->dropped) {
		n->dropped++;
		session_say_why(ss, LEVEL_NOTICE, end);
	} else if (ss->over) {
		session_say(ss, LEVEL_DEBUG, "", end);
	} else if (session_heard(ss)) {
		n->refused[failure_of(end->reason)]++;
		session_say_why(ss, LEVEL_NOTICE, end);
	} else {
		n->silent++;
		session_silent(ss, end);
	}
	if (ss->command != NULL) {
		ss->command->left = 1;
		command_close(ss->command);
		commands_reap(w);
	}
	leave_place(w, ss->place, ss->key);
	tls_free(ss->tls);
	proxy_free(ss);
	free(ss->ends);
	free(ss->peer);
	free(ss);
	trim(w);
}

static void
complain(time_t *complained, int error)
{
	time_t now = time(NULL);

	if (now - *complained < STARVED_EVERY)
		return;
	*complained = now;
	log_warning("accepting pauses: %s", strerror(error));
}

static void
worker_starved(void *arg, int error)
{
	struct worker *w = arg;

	complain(&w->complained, error);
}

static int
worker_full(void *arg)
{
	const struct worker *w = arg;

	return is_full_house(w->service);
}

/*
 * FILES
 * What the master writes to, or believes, nobody but root and the user that it
 * runs as may replace by something else.
 */

/* Who else can replace what is in a directory. */
enum writer {
	NOBODY_ELSE, WORKERS_USER, ANYBODY, ANOTHER_USER, ANOTHER_GROUP
};

static const char *const writers[] = {
	"nobody else", "the workers' user", "anybody", "another user",
	"another group"
};

/* The directory that a file is in. */
struct place {
	char	 directory[PATH_MAX];	/* without links */
	char	 culprit[PATH_MAX];	/* it or one above: who can write */
	enum writer writer;		/* to that */
	int	 is_open;		/* all users can get there */
};

static int
is_ours(const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid();
}

static enum writer
writer_of(const struct service *sv, const struct stat *st)
{
	int by_group = (st->st_mode & S_IWGRP) != 0;

	if (sv->uid != geteuid() && (st->st_uid == sv->uid ||
	    (by_group && st->st_gid == sv->gid)))
		return WORKERS_USER;
	if (!(st->st_mode & S_ISVTX) && (st->st_mode & S_IWOTH))
		return ANYBODY;
	if (!is_ours(st))
		return ANOTHER_USER;
	if (!(st->st_mode & S_ISVTX) && by_group && st->st_gid != 0 &&
	    st->st_gid != getegid())
		return ANOTHER_GROUP;
	return NOBODY_ELSE;
}

static int
is_refused(enum writer w)
{
	return w == WORKERS_USER || w == ANYBODY;
}

/* One more directory on the way: the first counts, unless one is worse. */
static void
look_at(const struct service *sv, const char *directory, struct place *p)
{
	enum writer w = NOBODY_ELSE;
	struct stat st;

	/* Who made a link may lead it elsewhere; its mode says nothing. */
	if (lstat(directory, &st) == 0 && S_ISLNK(st.st_mode)) {
		st.st_mode &= ~(mode_t)(S_IWGRP | S_IWOTH);
		w = writer_of(sv, &st);
	}
	if (w == NOBODY_ELSE && stat(directory, &st) == 0) {
		w = writer_of(sv, &st);
		p->is_open &= (st.st_mode & S_IXOTH) != 0;
	}
	if (w == NOBODY_ELSE || is_refused(p->writer) ||
	    (p->writer != NOBODY_ELSE && !is_refused(w)))
		return;
	p->writer = w;
	snprintf(p->culprit, sizeof(p->culprit), "%s", directory);
}

static void
look_along(const struct service *sv, const char *path, struct place *p)
{
	size_t n = 0;

	snprintf(p->directory, sizeof(p->directory), "%s",
	    *path == '/' ? "/" : ".");
	for (;;) {
		look_at(sv, p->directory, p);
		n += 1 + strcspn(path + n + 1, "/");
		if (path[n] == '\0')
			break;
		snprintf(p->directory, sizeof(p->directory), "%.*s", (int)n,
		    path);
	}
}

/*
 * Who else can replace the file, as a clause; or NULL.  Each directory on the
 * way counts, also on the one that links lead to: with it, all that is in it is
 * replaced.  One that can't be looked at keeps the file from being opened, too.
 */
static const char *
find_place(const struct service *sv, const char *path, struct place *p)
{
	static char text[PATH_MAX + 64];
	char real[PATH_MAX];

	p->writer = NOBODY_ELSE;
	p->is_open = 1;
	look_along(sv, path, p);
	if (realpath(p->directory, real) != NULL) {
		look_along(sv, real, p);
		look_at(sv, real, p);
		snprintf(p->directory, sizeof(p->directory), "%s", real);
	}
	snprintf(text, sizeof(text), "%s can write to the directory %s",
	    writers[p->writer], p->culprit);
	return p->writer != NOBODY_ELSE ? text : NULL;
}

/* Why what is there is not for this option; or NULL. */
static const char *
file_fault(int option, const struct stat *st)
{
	if (S_ISLNK(st->st_mode) || (S_ISREG(st->st_mode) && st->st_nlink > 1))
		return "it is a link";
	if (!is_ours(st))
		return "it belongs to another user";
	if (S_ISREG(st->st_mode) || (option == LOG &&
	    (S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode))))
		return NULL;
	return "it is not a regular file";
}

/* Why it can't be opened, or is not to be; or NULL.  Nothing is made. */
static const char *
path_fault(const struct service *sv, int option, const char *path)
{
	int is_read = option == TICKET_KEYS;	/* and may be a link */
	struct place place;
	const char *why = find_place(sv, path, &place);
	struct stat st;

	if (is_refused(place.writer))
		return why;
	if (option == ACCEPT)
		return NULL;
	if ((is_read ? stat : lstat)(path, &st) == 0) {
		if ((why = file_fault(option, &st)) != NULL)
			return why;
		if (is_read && is_refused(writer_of(sv, &st)))
			return "others can write to it";
	} else if (errno == ENOENT)
		path = place.directory;
	if (option == STATS_FILE)
		path = place.directory;	/* where a new one takes its place */
	return access(path, is_read ? R_OK : W_OK) == -1 ? strerror(errno) :
	    NULL;
}

/* The standard descriptor that log names; -1: syslog, 0: it is a file. */
static int
log_stream(const char *log)
{
	if (strcmp(log, "syslog") == 0)
		return -1;
	if (strcmp(log, "/dev/stdout") == 0)
		return STDOUT_FILENO;
	return strcmp(log, "stderr") == 0 || strcmp(log, "/dev/stderr") == 0 ?
	    STDERR_FILENO : 0;
}

/* The path that a value of this option names, or NULL. */
static const char *
path_of(int option, const char *text)
{
	if (option == ACCEPT)
		return strncmp(text, "unix:", 5) == 0 && text[5] != '\0' ?
		    text + 5 : NULL;
	return option == LOG && log_stream(text) != 0 ? NULL : text;
}

/*
 * What others must not be able to replace: -1 after sentences.  As warnings,
 * what they can replace, though that may be as it was meant to be.
 */
static int
check_files(const struct service *sv, enum log_level level)
{
	static const int checked[] = {
		ACCEPT, TICKET_KEYS, PIDFILE, LOG, STATS_FILE
	};
	struct place place;
	const char *path, *why;
	const struct value *v;
	size_t i;
	int r = 0;

	for (i = 0; i < sizeof(checked) / sizeof(checked[0]); i++) {
		for (v = sv->cfg.given[checked[i]]; v != NULL; v = v->next) {
			if ((path = path_of(checked[i], v->text)) == NULL)
				continue;
			if (level == LEVEL_ERROR &&
			    sv->cfg.is_wrong[checked[i]])
				continue;
			why = level == LEVEL_ERROR ?
			    path_fault(sv, checked[i], path) :
			    find_place(sv, path, &place);
			if (why == NULL)
				continue;
			log_at(level, "%s: %s %s: %s", v->where,
			    options[checked[i]].name, v->text, why);
			if (level == LEVEL_ERROR)
				r = -1;
		}
	}
	return r;
}

/* Secrets that more than their owner and group can read. */
static void
warn_of_readers(const struct service *sv)
{
	const int secrets[] = { sv->cfg.given[KEY] != NULL ? KEY : CERT,
	    KEY_PASSWORD_FILE, TICKET_KEYS };
	struct place place;
	const struct value *v;
	char path[PATH_MAX];
	struct stat st;
	size_t i;

	for (i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
		for (v = sv->cfg.given[secrets[i]]; v != NULL; v = v->next) {
			if (realpath(v->text, path) == NULL ||
			    stat(path, &st) == -1)
				continue;
			find_place(sv, path, &place);
			if (place.is_open && (st.st_mode & S_IRWXO) != 0)
				log_warning("%s: %s %s: other users have "
				    "access to it (mode %04o)", v->where,
				    options[secrets[i]].name, v->text,
				    (unsigned)st.st_mode & 07777);
		}
	}
}

/* A file that is not there yet, to write to; NULL with errno. */
static FILE *
open_new(const char *name, mode_t mode)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW |
	    O_CLOEXEC, mode);
	FILE *fp = NULL;

	if (fd != -1 && (fchmod(fd, mode) == -1 ||
	    (fp = fdopen(fd, "w")) == NULL)) {
		unlink(name);
		close_failed(fd);
	}
	return fp;
}

/*
 * To write to it, made with this mode if need be; -1 after one sentence.  A
 * FIFO that nobody reads yet can only be opened while somebody does.
 */
static int
open_file(const struct service *sv, int option, int flags, mode_t mode)
{
	const char *name = config_text(&sv->cfg, option);
	const char *why = path_fault(sv, option, name);
	int fd = -1, reader = -1;
	struct stat st;

	flags |= O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	if (why == NULL && (fd = open(name, flags, mode)) == -1 &&
	    errno == ENXIO) {
		reader = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		fd = open(name, flags, mode);
	}
	if (reader != -1)
		close(reader);
	if (why == NULL)
		why = fd == -1 || fstat(fd, &st) == -1 ? strerror(errno) :
		    file_fault(option, &st);
	if (why == NULL)
		return fd;
	log_error("%s: %s %s: %s", config_where(&sv->cfg, option),
	    options[option].name, name, why);
	if (fd != -1)
		close(fd);
	return -1;
}

/* To where it says, anew if it is a file; -1: as before, with a sentence. */
static int
log_open(const struct service *sv)
{
	const char *to = config_text(&sv->cfg, LOG);
	int fd = -1, stream;

	if (logging.is_daemon && sv->cfg.given[LOG] == NULL)
		to = "syslog";
	stream = log_stream(to);
	/* Workers will find neither the time zone nor syslog's socket. */
	tzset();
	if (stream == -1)
		log_connect_syslog();
	else if (stream != 0)
		fd = stream == logging.stream ? logging.fd :
		    log_open_stream(stream);
	else if ((fd = open_file(sv, LOG, O_WRONLY | O_APPEND, 0640)) == -1)
		return -1;
	log_to(fd, stream);
	logging.is_ours = strcmp(to, "stderr") != 0;
	logging.has_time = logging.is_ours || !logging.is_journal;
	logging.level = (enum log_level)sv->cfg.number[LOG_LEVEL];
	return 0;
}

/*
 * LISTENERS
 */

/* A socket that nobody listens on any more is in the way: remove it. */
static void
remove_stale(const struct address *a)
{
	const struct sockaddr_un *un = (const void *)&a->sa;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0);
	struct stat st;

	if (fd == -1)
		return;
	if (lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    is_ours(&st) && connect(fd, (const struct sockaddr *)&a->sa,
	    a->len) == -1 && errno == ECONNREFUSED)
		unlink(un->sun_path);
	close(fd);
}

static int
listen_on(const struct address *a, int any)
{
	int fd, off = 0, on = 1;

	if (a->sa.ss_family == AF_UNIX)
		remove_stale(a);
	fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK |
	    SOCK_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on,
		    sizeof(on));
	if (bind(fd, (const struct sockaddr *)&a->sa, a->len) == 0 &&
	    listen(fd, BACKLOG) == 0)
		return fd;
	return close_failed(fd);
}

static int
is_listening(int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) ==
	    0 && listening;
}

/*
 * A listening socket that somebody else has made for us.  As a standard
 * descriptor it would be in the way.
 */
static int
inherit(int fd)
{
	if (!is_listening(fd) || fcntl(fd, F_SETFL, O_NONBLOCK) == -1) {
		errno = ENOTSOCK;
		return -1;
	}
	if (fd <= STDERR_FILENO)
		return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	return fcntl(fd, F_SETFD, FD_CLOEXEC) == -1 ? -1 : fd;
}

/* On a Unix socket: is it what clients find at its path? */
static int
has_path(const struct listener *l)
{
	const struct sockaddr_un *un = (const void *)&l->bound.sa;
	struct stat st;

	return lstat(un->sun_path, &st) == 0 && st.st_ino == l->file.st_ino &&
	    st.st_dev == l->file.st_dev;
}

/* A path that we have made.  One that was passed to us is none of ours. */
static int
owns_path(const struct listener *l)
{
	return l->address != NULL && l->bound.sa.ss_family == AF_UNIX;
}

/* Was it made for the same fd:N, or for the same address? */
static int
is_same_listener(const struct listener *a, const struct listener *b)
{
	if (a->address == NULL || b->address == NULL)
		return a->address == b->address &&
		    a->target->fd == b->target->fd;
	return a->target->any == b->target->any &&
	    a->address->len == b->address->len &&
	    memcmp(&a->address->sa, &b->address->sa, sizeof(a->address->sa)) ==
	    0;
}

static const char *
why_no_listener(int error)
{
	_Static_assert(FORWARD_LISTENERS == 64, "it is said below");

	switch (error) {
	case E2BIG:
		return "there are too many (allowed: 64 addresses in all)";
	case EBUSY:
		return "it was opened here, and not passed by whoever started "
		    "this";
	case EEXIST:
		return "it is given twice";
	case ENOTSOCK:
		return "it is not the number of a listening socket";
	default:
		return strerror(error);
	}
}

static int
is_our_own(const struct service *sv, int fd)
{
	size_t i;

	for (i = 0; sv != NULL && i < sv->nlisteners; i++)
		if (sv->listeners[i].fd == fd)
			return 1;
	return 0;
}

/* Listen on an address of a target, or go on with the socket that old has. */
static int
open_listener(struct service *sv, struct service *old, const struct target *t,
    const struct address *a)
{
	struct listener *l = &sv->listeners[sv->nlisteners];
	size_t i;

	if (sv->nlisteners == FORWARD_LISTENERS) {
		errno = E2BIG;
		return -1;
	}
	l->target = t;
	l->address = a;
	for (i = 0; old != NULL && i < old->nlisteners; i++) {
		struct listener *o = &old->listeners[i];

		if (!o->kept && is_same_listener(o, l) &&
		    (!owns_path(o) || has_path(o))) {
			l->fd = o->fd;
			l->bound = o->bound;
			l->file = o->file;
			l->kept = o->kept = 1;
			sv->nlisteners++;
			return 0;
		}
	}
	for (i = 0; a == NULL && i < sv->nlisteners; i++) {
		if (is_same_listener(&sv->listeners[i], l)) {
			errno = EEXIST;
			return -1;
		}
	}
	if (a == NULL && (is_our_own(sv, t->fd) || is_our_own(old, t->fd))) {
		errno = EBUSY;
		return -1;
	}
	if ((l->fd = a != NULL ? listen_on(a, t->any) : inherit(t->fd)) == -1)
		return -1;
	tune(l->fd, &sv->cfg);		/* inherited by what is accepted */
	l->bound.len = sizeof(l->bound.sa);
	getsockname(l->fd, (struct sockaddr *)&l->bound.sa, &l->bound.len);
	address_text(&l->bound);
	if (owns_path(l))
		lstat(((const struct sockaddr_un *)(const void *)
		    &l->bound.sa)->sun_path, &l->file);
	sv->nlisteners++;
	return 0;
}

/* All that accept asks for; -1 after one sentence. */
static int
open_listeners(struct service *sv, struct service *old)
{
	size_t i, j;

	for (i = 0; i < sv->accepts.n; i++) {
		const struct target *t = &sv->accepts.list[i];

		for (j = 0; j < (t->fd != -1 ? 1 : t->n); j++) {
			const struct address *a = t->fd != -1 ? NULL :
			    &t->addrs[j];

			if (open_listener(sv, old, t, a) == 0)
				continue;
			log_error("%s: accept %s: %s", t->value->where,
			    a != NULL ? a->text : t->value->text,
			    why_no_listener(errno));
			return -1;
		}
	}
	return 0;
}

/* But for those that another service has as well.  Only the master unlinks. */
static void
close_listeners(struct service *sv, int unlinks)
{
	size_t i;

	for (i = 0; i < sv->nlisteners; i++) {
		struct listener *l = &sv->listeners[i];
		const struct sockaddr_un *un = (const void *)&l->bound.sa;

		if (l->kept)
			continue;
		/* In this order: once closed, another may have its name. */
		if (unlinks && owns_path(l) && has_path(l))
			unlink(un->sun_path);
		close(l->fd);
	}
	sv->nlisteners = 0;
}

/* Those of before are as this configuration has it, from now on. */
static void
tune_kept(const struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->nlisteners; i++)
		if (sv->listeners[i].kept)
			tune(sv->listeners[i].fd, &sv->cfg);
}

static void
keep_none(struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->nlisteners; i++)
		sv->listeners[i].kept = 0;
}

/*
 * SIGNALS
 * They arrive while a process sleeps, and at no other time.
 */

static void
on_signal(int sig)
{
	switch (sig) {
	case SIGQUIT:
		got_cut = 1;
		break;
	case SIGHUP:
		got_hup = 1;
		break;
	case SIGUSR1:
		got_usr1 = 1;
		break;
	case SIGUSR2:
		got_usr2 = 1;
		break;
	case SIGCHLD:
		got_child = 1;
		break;
	default:
		got_stop = 1;
	}
}

static void
catch_signals(sigset_t *asleep)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t awake;
	size_t i;

	sigemptyset(&awake);
	for (i = 0; i < SIGNALS; i++) {
		sigaction(signals[i], &sa, NULL);
		sigaddset(&awake, signals[i]);
	}
	sigprocmask(SIG_BLOCK, &awake, asleep);
	for (i = 0; i < SIGNALS; i++)
		sigdelset(asleep, signals[i]);
}

/*
 * In a worker: what a terminal or killall(1) sends to all of them is for the
 * master to act on; SIGHUP only has it look at its line.
 */
static void
leave_signals(void)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	got_stop = got_cut = got_hup = got_usr1 = got_usr2 = got_child = 0;
}

/*
 * PRIVILEGES
 * The master finds out what its workers are to be; they become it.
 */

/* alone: no group is named, and it is the user's. */
static int
load_user(struct service *sv, const char *user, int alone)
{
	const char *where = config_where(&sv->cfg, USER);
	const struct passwd *pw;
	int64_t number;

	if (parse_number(user, 0, UINT32_MAX - 1, &number) == 0) {
		sv->uid = (uid_t)number;
		if (!alone)
			return 0;
		if ((pw = getpwuid(sv->uid)) == NULL) {
			log_error("%s: user %s is not known, so its group "
			    "must be given, too", where, user);
			return -1;
		}
	} else if ((pw = getpwnam(user)) == NULL) {
		log_error("%s: user \"%s\" is not known", where, user);
		return -1;
	}
	sv->uid = pw->pw_uid;
	sv->gid = pw->pw_gid;
	return 0;
}

static int
load_group(struct service *sv, const char *group)
{
	const struct group *gr;
	int64_t number;

	if (parse_number(group, 0, UINT32_MAX - 1, &number) == 0) {
		sv->gid = (gid_t)number;
	} else if ((gr = getgrnam(group)) != NULL) {
		sv->gid = gr->gr_gid;
	} else {
		log_error("%s: group \"%s\" is not known",
		    config_where(&sv->cfg, GROUP), group);
		return -1;
	}
	return 0;
}

/* user, group and chroot; -1 after a sentence for each that can't be. */
static int
load_privileges(struct service *sv)
{
	const char *user = config_text(&sv->cfg, USER);
	const char *group = config_text(&sv->cfg, GROUP);
	const char *root = config_text(&sv->cfg, CHROOT);
	int key = user != NULL ? USER : group != NULL ? GROUP : CHROOT;
	struct stat st;
	int r = 0;

	sv->uid = geteuid();
	sv->gid = getegid();
	if (user != NULL)
		r |= load_user(sv, user, group == NULL);
	if (group != NULL)
		r |= load_group(sv, group);
	if (root != NULL && (stat(root, &st) == -1 || !S_ISDIR(st.st_mode))) {
		log_error("%s: chroot %s: it is not a directory",
		    config_where(&sv->cfg, CHROOT), root);
		r = -1;
	}
	sv->drops = geteuid() == 0 && (user != NULL || group != NULL);
	if (geteuid() != 0 && (root != NULL || sv->uid != geteuid() ||
	    sv->gid != getegid())) {
		log_error("%s: only root can do that: %s = %s",
		    config_where(&sv->cfg, key), options[key].name,
		    config_text(&sv->cfg, key));
		r = -1;
	}
	return r;
}

/* For good: there is no way back.  -1 with errno. */
static int
drop_privileges(const struct service *sv)
{
	const char *root = config_text(&sv->cfg, CHROOT);

	if (root != NULL && (chroot(root) == -1 || chdir("/") == -1))
		return -1;
	if (!sv->drops)
		return 0;
	if (setgroups(1, &sv->gid) == -1 ||
	    setresgid(sv->gid, sv->gid, sv->gid) == -1 ||
	    setresuid(sv->uid, sv->uid, sv->uid) == -1)
		return -1;
	if (sv->uid != 0 && setuid(0) == 0) {
		errno = EPERM;
		return -1;
	}
	return 0;
}

/*
 * THE SANDBOX
 * What a worker never does, it must not be able to do.
 */

static void
no_core_dumps(void)
{
	struct rlimit l;

	getrlimit(RLIMIT_CORE, &l);
	l.rlim_cur = 0;
	setrlimit(RLIMIT_CORE, &l);
}

#if defined(__linux__)
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/tls.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/*
 * Landlock, Documentation/userspace-api/landlock.rst, by its numbers: the
 * headers may be older than the kernel.
 */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset	444
#define SYS_landlock_add_rule		445
#define SYS_landlock_restrict_self	446
#endif
#define TYPE_MASK	15		/* of socket(2), without its flags */
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD		4
#endif
#define LANDLOCK_VERSION	1u
#define LANDLOCK_NET_PORT	2	/* a type of rule */
#define LANDLOCK_TCP_BIND	1u
#define LANDLOCK_TCP_CONNECT	2u
#define LANDLOCK_SCOPES		3u	/* abstract Unix sockets, signals */
enum { LANDLOCK_WITH_TCP = 4, LANDLOCK_WITH_SCOPES = 6 };

/* What is to be denied. */
struct landlock_ruleset {
	uint64_t files, tcp, scopes;
};

struct landlock_port {
	uint64_t allowed, port;
};

/* 0: there is none. */
static long
landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0,
	    LANDLOCK_VERSION);

	return abi < 0 ? 0 : abi;
}

static int
landlock_allow(int fd, const struct targets *connects)
{
	size_t i, j;

	for (i = 0; i < connects->n; i++) {
		const struct target *t = &connects->list[i];

		for (j = 0; j < t->n; j++) {
			struct landlock_port p = { LANDLOCK_TCP_CONNECT,
			    address_port(&t->addrs[j]) };

			if (p.port != 0 && syscall(SYS_landlock_add_rule, fd,
			    LANDLOCK_NET_PORT, &p, 0u) == -1)
				return -1;
		}
	}
	return 0;
}

/* No files at all, and TCP to the service's ports alone. */
static int
landlock_enter(const struct service *sv)
{
	static const uint64_t files[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff,
	    0xffff };
	struct landlock_ruleset rules = { 0 };
	long abi = landlock_abi();
	int fd, r = -1;

	if (abi == 0)
		return 0;
	rules.files = files[abi < 5 ? abi : 5];
	if (abi >= LANDLOCK_WITH_TCP)
		rules.tcp = LANDLOCK_TCP_BIND | LANDLOCK_TCP_CONNECT;
	if (abi >= LANDLOCK_WITH_SCOPES)
		rules.scopes = LANDLOCK_SCOPES;
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules),
	    0u);
	if (fd == -1)
		return -1;
	if (rules.tcp == 0 || landlock_allow(fd, &sv->connects) == 0)
		r = (int)syscall(SYS_landlock_restrict_self, fd, 0u);
	if (r == -1)
		return close_failed(fd);
	close(fd);
	return 0;
}

static int
drop_capabilities(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3
	};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return (int)syscall(SYS_capset, &head, none);
}

/*
 * The system calls of a worker, and their likes that another libc may prefer.
 * All others are answered with ENOSYS, on which a libc that knows newer ones
 * falls back to these.
 */
#if defined(__x86_64__) || defined(__aarch64__)
#ifdef __x86_64__
#define OUR_ARCH	AUDIT_ARCH_X86_64
#define OLD_CALLS	SYS_poll, SYS_epoll_wait, SYS_accept, SYS_time
#else
#define OUR_ARCH	AUDIT_ARCH_AARCH64
#define OLD_CALLS	SYS_accept
#endif

static const int allowed[] = {
	SYS_epoll_pwait, SYS_recvfrom, SYS_sendto, SYS_epoll_ctl, SYS_read,
	SYS_write, SYS_readv, SYS_writev, SYS_ppoll, SYS_accept4, SYS_socket,
	SYS_connect, SYS_close, SYS_shutdown, SYS_getsockopt, SYS_setsockopt,
	SYS_getsockname, SYS_getpeername, SYS_rt_sigprocmask,
	SYS_rt_sigreturn, SYS_restart_syscall, SYS_clock_gettime,
	SYS_gettimeofday, SYS_getrandom, SYS_getpid, SYS_gettid, SYS_brk,
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise,
	SYS_futex, SYS_sched_yield, SYS_exit, SYS_exit_group, OLD_CALLS,
	SYS_recvmsg, SYS_dup3
};

/*
 * With kernel TLS, recvmsg(2) is for more than the line to the master.  The two
 * can also pass descriptors: to a process outside of the sandbox, or to
 * oneself, as a second number for a listener.
 */
static const int allowed_with_tls[] = { SYS_sendmsg };

/* Options of sockets: what a worker may set, and ask for. */
struct socket_option {
	int	 level, name;
};

static const struct socket_option may_set[] = {
	{ IPPROTO_TCP, TCP_NODELAY }, { IPPROTO_TCP, TCP_QUICKACK },
	{ IPPROTO_TCP, TCP_KEEPIDLE }, { IPPROTO_TCP, TCP_KEEPINTVL },
	{ IPPROTO_TCP, TCP_KEEPCNT },
	{ SOL_SOCKET, SO_KEEPALIVE }, { SOL_SOCKET, SO_LINGER },
	/* With kernel TLS. */
	{ IPPROTO_TCP, TCP_ULP }, { SOL_TLS, TLS_TX }, { SOL_TLS, TLS_RX },
	{ SOL_TLS, TLS_RX_EXPECT_NO_PAD }
};
#define MAY_SET	7		/* without it */

static const struct socket_option may_get[] = {
	{ SOL_SOCKET, SO_ERROR }, { IPPROTO_TCP, TCP_INFO },
	/* With kernel TLS. */
	{ SOL_TLS, TLS_TX }
};
#define MAY_GET	2

/* What changes the socket itself, for all processes that have it. */
static const int acting[] = { SYS_connect, SYS_shutdown, SYS_setsockopt };

#define VALUES	3

/*
 * And of these an argument, masked, has to be one of the values, up to the
 * first one of 0 behind another.
 */
struct limit {
	int	 call;
	uint32_t argument;
	uint32_t mask;
	uint32_t values[VALUES];
};

#define LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

struct filter {
	struct sock_filter code[256];
	unsigned short n;
};

/* Where there is no room, it stays incomplete: the kernel refuses it. */
static void
filter_add(struct filter *f, unsigned short code, uint32_t k)
{
	if (f->n < LENGTH(f->code))
		f->code[f->n++] = (struct sock_filter){ .code = code, .k = k };
}

static void
filter_load(struct filter *f, size_t offset)
{
	filter_add(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
}

static void
filter_return(struct filter *f, uint32_t what)
{
	filter_add(f, BPF_RET | BPF_K, what);
}

static void
filter_argument(struct filter *f, uint32_t n)
{
	filter_load(f, (uint32_t)offsetof(struct seccomp_data, args) +
	    n * (uint32_t)sizeof(uint64_t));
}

/* What was loaded: skip so many if it is at least that, so many if not. */
static void
filter_split(struct filter *f, uint32_t value, uint8_t least, uint8_t other)
{
	filter_add(f, BPF_JMP | BPF_JGE | BPF_K, value);
	f->code[f->n - 1].jt = least;
	f->code[f->n - 1].jf = other;
}

/* The same if it is equal. */
static void
filter_skip(struct filter *f, uint32_t value, uint8_t equal, uint8_t other)
{
	filter_split(f, value, equal, other);
	f->code[f->n - 1].code = BPF_JMP | BPF_JEQ | BPF_K;
}

/* Of a call for which nothing was found that allows it; go on with others. */
static void
filter_deny(struct filter *f)
{
	filter_return(f, SECCOMP_RET_ERRNO | EPERM);
	filter_load(f, offsetof(struct seccomp_data, nr));
}

static void
filter_limit(struct filter *f, const struct limit *l)
{
	uint8_t i, n = 1;

	while (n < VALUES && l->values[n] != 0)
		n++;
	filter_skip(f, (uint32_t)l->call, 0, (uint8_t)(n + 4));
	filter_argument(f, l->argument);
	filter_add(f, BPF_ALU | BPF_AND | BPF_K, l->mask);
	for (i = 0; i < n; i++)
		filter_skip(f, l->values[i], (uint8_t)(n - i), 0);
	filter_deny(f);
}

/* The number of an option says nothing without its level. */
static void
filter_options(struct filter *f, int call, const struct socket_option *o,
    uint8_t n)
{
	filter_skip(f, (uint32_t)call, 0, (uint8_t)(4 * n + 2));
	for (; n > 0; n--, o++) {
		filter_argument(f, 1);
		filter_skip(f, (uint32_t)o->level, 0, 2);
		filter_argument(f, 2);
		filter_skip(f, (uint32_t)o->name, (uint8_t)(4 * n - 3), 0);
	}
	filter_deny(f);
}

/* The first descriptor past the limit. */
static uint32_t
filter_number(rlim_t limit)
{
	return limit < INT_MAX ? (uint32_t)limit : INT_MAX;
}

/*
 * Deny a call on what other processes share: the standard descriptors and the
 * log, which a worker never closes, and listeners, which are past the limit.
 */
static void
filter_shared(struct filter *f, int call, rlim_t limit)
{
	filter_skip(f, (uint32_t)call, 0, 6);
	filter_argument(f, 0);
	filter_split(f, STDERR_FILENO + 1, 0, 2);
	filter_skip(f, (uint32_t)logging.fd, 1, 0);
	filter_split(f, filter_number(limit), 0, 1);
	filter_deny(f);
}

static void
filter_calls(struct filter *f, const int *calls, size_t n)
{
	for (; n > 0; n--, calls++) {
		filter_skip(f, (uint32_t)*calls, 0, 1);
		filter_return(f, SECCOMP_RET_ALLOW);
	}
}

/*
 * Documentation/userspace-api/seccomp_filter.rst.  No code is made.  Sockets
 * are streams of two families, or three, and leave no way around Landlock's
 * ports.
 */
static void
filter_make(struct filter *f, uint32_t third, int with_tls, rlim_t limit)
{
	const struct limit limits[] = {
		{ SYS_mmap, 2, PROT_EXEC, { 0 } },
		{ SYS_mprotect, 2, PROT_EXEC, { 0 } },
		{ SYS_socket, 0, UINT32_MAX, { AF_INET, AF_INET6, third } },
		{ SYS_socket, 1, TYPE_MASK, { SOCK_STREAM } },
		{ SYS_socket, 2, UINT32_MAX, { 0, IPPROTO_TCP } },
		{ SYS_sendto, 3, MSG_FASTOPEN, { 0 } },
		{ SYS_sendto, 5, UINT32_MAX, { 0 } },	/* to no address */
		{ SYS_sendmsg, 2, MSG_FASTOPEN, { 0 } },
		/* A log that was opened anew, in the place of the other. */
		{ SYS_dup3, 1, UINT32_MAX, { (uint32_t)logging.fd } },
		{ SYS_recvmsg, 0, with_tls ? 0 : UINT32_MAX, {
		    with_tls ? 0 : filter_number(limit) } },
	};
	size_t i;

	filter_load(f, offsetof(struct seccomp_data, arch));
	filter_skip(f, OUR_ARCH, 1, 0);
	filter_return(f, SECCOMP_RET_KILL_PROCESS);
	filter_load(f, offsetof(struct seccomp_data, nr));
	for (i = 0; i < LENGTH(limits); i++)
		filter_limit(f, &limits[i]);
	filter_options(f, SYS_setsockopt, may_set, with_tls ?
	    LENGTH(may_set) : MAY_SET);
	filter_options(f, SYS_getsockopt, may_get, with_tls ?
	    LENGTH(may_get) : MAY_GET);
	for (i = 0; i < LENGTH(acting); i++)
		filter_shared(f, acting[i], limit);
	filter_calls(f, allowed, LENGTH(allowed));
	filter_calls(f, allowed_with_tls, with_tls ?
	    LENGTH(allowed_with_tls) : 0);
	filter_return(f, SECCOMP_RET_ERRNO | ENOSYS);
}

static int
filter_enter(const struct service *sv)
{
	const struct targets *connects = &sv->connects;
	struct filter f = { .n = 0 };
	struct sock_fprog program = { .filter = f.code };
	uint32_t family = AF_INET;
	struct rlimit limit;
	size_t i;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return -1;
	for (i = 0; i < connects->n; i++)
		if (connects->list[i].addrs[0].sa.ss_family == AF_UNIX)
			family = AF_UNIX;
	filter_make(&f, family, sv->kernel.can != 0, limit.rlim_cur);
	program.len = f.n;
	/* No other program's code runs here: none to guard against. */
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
	    SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}

static int
has_filter(void)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0u, &action) ==
	    0;
}

#else

static int
filter_enter(const struct service *sv)
{
	(void)sv;
	return 0;
}

static int
has_filter(void)
{
	return 0;
}

#endif

/* What the system can't keep a worker from; NULL: nothing. */
static const char *
sandbox_lacks(void)
{
	if (landlock_abi() == 0)
		return "this kernel has no Landlock, files are not denied";
	if (landlock_abi() < LANDLOCK_WITH_TCP)
		return "this kernel's Landlock is too old to deny TCP ports";
	if (!has_filter())
		return "there is no filter of system calls here";
	return NULL;
}

/* Nor may another process of the same user look into this one. */
static void
hide(void)
{
	no_core_dumps();
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* Leave when the master is gone, as if it had said so. */
static void
follow_master(void)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
}

/* A command must be able to do what it is there for.  -1 with errno. */
static int
sandbox_enter(const struct service *sv)
{
	hide();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return -1;
	if (sv->cfg.command != NULL)
		return 0;
	if (drop_capabilities() == -1 || landlock_enter(sv) == -1)
		return -1;
	return has_filter() ? filter_enter(sv) : 0;
}

#else

static void
hide(void)
{
	no_core_dumps();
}

static void
follow_master(void)
{
}

static const char *
sandbox_lacks(void)
{
	return "none is known here for this system";
}

static int
sandbox_enter(const struct service *sv)
{
	(void)sv;
	hide();
	return 0;
}

#endif

/*
 * DESCRIPTORS
 * Those that whoever started this has left open by mistake must not get to
 * workers.
 */

#if defined(__linux__)

#ifndef SYS_close_range
#define SYS_close_range		436
#endif

static int
close_at_once(unsigned from, unsigned to)
{
	return (int)syscall(SYS_close_range, from, to, 0u);
}

#else

static int
close_at_once(unsigned from, unsigned to)
{
	(void)from;
	(void)to;
	return -1;
}

#endif

/* One by one, on kernels before Linux 5.9. */
static void
close_between(unsigned from, unsigned to)
{
	unsigned end = (unsigned)sysconf(_SC_OPEN_MAX);

	if (close_at_once(from, to) == 0)
		return;
	for (; from <= to && from < end; from++)
		close((int)from);
}

/* The first from this one on that is of use, now or after a reload. */
static unsigned
next_of_use(const struct config *cfg, const struct arguments *a, unsigned from)
{
	const struct value *v;
	unsigned next = INT_MAX;
	int64_t fd;

	if (from < (unsigned)(PASSED + a->passed))
		return from;
	if (logging.fd >= (int)from)
		next = (unsigned)logging.fd;
	if (a->state >= (int)from && (unsigned)a->state < next)
		next = (unsigned)a->state;
	for (v = cfg->given[ACCEPT]; v != NULL; v = v->next)
		if (strncmp(v->text, "fd:", 3) == 0 && parse_number(v->text + 3,
		    from, next, &fd) == 0)
			next = (unsigned)fd;
	return next;
}

/*
 * When the files have been read, which may be among them (/dev/fd/N), and
 * before anything is opened to stay.
 */
static void
close_strays(const struct config *cfg, const struct arguments *a)
{
	unsigned from, next;

	for (from = PASSED; from < INT_MAX; from = next + 1) {
		next = next_of_use(cfg, a, from);
		if (next > from)
			close_between(from, next - 1);
	}
	if (logging.fd == -1)
		log_connect_syslog();	/* its socket was one of them */
}

/*
 * KERNEL TLS
 * What the kernel can do of it is tried by the master, before there are
 * connections to be moved there.
 */

enum { KTLS_AUTO, KTLS_OFF, KTLS_REQUIRE };

/* Both ends of a connection within this host, or -1; -1 with errno. */
static int
tcp_pair(int pair[2])
{
	struct sockaddr_in in = { .sin_family = AF_INET,
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr *sa = (struct sockaddr *)&in;
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	pair[1] = -1;
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd != -1 && pair[0] != -1 && bind(fd, sa, len) == 0 &&
	    listen(fd, 1) == 0 && getsockname(fd, sa, &len) == 0 &&
	    connect(pair[0], sa, len) == 0)
		pair[1] = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd != -1)
		close_failed(fd);
	return pair[1] == -1 ? -1 : 0;
}

/* Is half a record taken for something to be read, as by Linux 6.1? */
static int
is_spinning(const int pair[2])
{
	struct pollfd p = { .fd = pair[0], .events = POLLIN };

	return send(pair[1], "\x17\x03\x03", 3, MSG_NOSIGNAL) == 3 &&
	    poll(&p, 1, 1) == 1;
}

/* Where the first one fails, so would the others.  mode: as of ktls. */
static void
try_kernel(struct kernel_tls *k, int64_t mode)
{
	unsigned can, i;
	int pair[2];

	*k = (struct kernel_tls){ .can = 0 };
	for (i = 0; i < TLS_KERNEL_TRIES && (i == 0 || k->can != 0); i++) {
		errno = 0;
		can = tcp_pair(pair) == 0 ? tls_kernel_try(i, pair[0]) : 0;
		if (can == 0 && i == 0)
			snprintf(k->why, sizeof(k->why), "%s", errno == ENOENT ?
			    "this kernel has none, or no module \"tls\"" :
			    strerror(errno));
		if (can != 0 && i == 0)
			k->spins = is_spinning(pair);
		k->can |= can;
		if (pair[0] != -1)
			close(pair[0]);
		if (pair[1] != -1)
			close(pair[1]);
	}
	if (k->spins && mode == KTLS_AUTO) {
		k->can = 0;
		snprintf(k->why, sizeof(k->why), "not used: this kernel keeps "
		    "a worker busy over half a record (Linux 6.12 does not)");
	}
}

/* What came of it, in a few words. */
static void
kernel_text(const struct kernel_tls *k, char *text, size_t size)
{
	char can[TEXT_SIZE];

	tls_kernel_text(k->can, can, sizeof(can));
	snprintf(text, size, "kernel TLS: %s%s", k->can == 0 ? k->why : can,
	    k->can != 0 && k->spins ? "; but it keeps a worker busy over half "
	    "a record" : "");
}

/* -1 after one sentence. */
static int
load_kernel(struct service *sv)
{
	int64_t mode = sv->cfg.number[KTLS];

	if (mode == KTLS_OFF) {
		snprintf(sv->kernel.why, sizeof(sv->kernel.why), "off");
		return 0;
	}
	try_kernel(&sv->kernel, mode);
	if (mode == KTLS_REQUIRE && sv->kernel.can == 0) {
		log_error("%s: ktls = require: %s (allowed: auto, off)",
		    config_where(&sv->cfg, KTLS), sv->kernel.why);
		return -1;
	}
	tls_config_kernel(sv->tls, sv->kernel.can);
	return 0;
}

/*
 * FROM A CONFIGURATION TO A SERVICE
 */

static size_t
count_seats(const struct config *cfg, int inetd)
{
	size_t max = (size_t)cfg->number[MAX_CONNECTIONS];
	size_t n = (size_t)cfg->number[WORKERS];
	long cpus;

	if (inetd)
		return 1;
	if (cfg->number[MODE] == FORK)
		return max;
	if (n == 0) {
		cpus = sysconf(_SC_NPROCESSORS_ONLN);
		n = cpus < 1 ? 1 : cpus > WORKERS_MAX ? WORKERS_MAX :
		    (size_t)cpus;
	}
	if (n > max)
		n = max;
	return n > 0 ? n : 1;
}

/* How many of all connections are a slot's, and those before are others'. */
static size_t
share_of(const struct service *sv, size_t slot, size_t *before)
{
	size_t max = (size_t)sv->cfg.number[MAX_CONNECTIONS];
	size_t each = max / sv->nslots, rest = max % sv->nslots;

	*before = each * slot + (slot < rest ? slot : rest);
	return each + (slot < rest);
}

/* Descriptors for as many connections as a worker may have. */
static rlim_t
descriptors_of(const struct service *sv, size_t slot)
{
	rlim_t each = sv->cfg.command != NULL ? 3 : 2;
	size_t before;

	return share_of(sv, slot, &before) * each + SPARE_FDS;
}

/* The first worker may have most, or the master, which has all their lines. */
static void
raise_limit(const struct service *sv)
{
	rlim_t need = descriptors_of(sv, 0), lines = SPARE_FDS;
	const struct service *old;
	struct rlimit l;

	for (old = sv; old != NULL; old = old->older)
		lines += old == sv ? old->nseats : old->nworkers + 1;
	if (need < lines)
		need = lines;
	if (getrlimit(RLIMIT_NOFILE, &l) == -1 || l.rlim_cur >= need)
		return;
	l.rlim_cur = l.rlim_max < need ? l.rlim_max : need;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_cur < need)
		log_warning("max_connections needs %llu descriptors, and "
		    "%llu are allowed (ulimit -n)", (unsigned long long)need,
		    (unsigned long long)l.rlim_cur);
}

static void
close_fd(int *fd)
{
	if (*fd != -1)
		close(*fd);
	*fd = -1;
}

/* A file in memory; then, of that size for good.  -1 with errno. */
#ifdef __linux__

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL	8u
#endif

static int
memory_file(void)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("tunnel", flags | MFD_NOEXEC_SEAL);

	/* Before Linux 6.3, which may have been told to insist on it. */
	return fd == -1 && errno == EINVAL ? memfd_create("tunnel", flags) :
	    fd;
}

static int
memory_seal(int fd, int writable)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW |
	    F_SEAL_SEAL | (writable ? 0 : F_SEAL_WRITE));
}

#else

static int
memory_file(void)
{
	errno = ENOSYS;
	return -1;
}

static int
memory_seal(int fd, int writable)
{
	(void)fd;
	(void)writable;
	return -1;
}

#endif

/*
 * Memory that processes share, or MAP_FAILED.  *fd is what another program can
 * be handed it by, or -1 where there is no such thing, or no need (NULL).
 */
static void *
share_memory(size_t size, int *fd)
{
	int flags = MAP_SHARED;

	if (fd != NULL && (*fd = memory_file()) != -1 &&
	    (ftruncate(*fd, (off_t)size) == -1 || memory_seal(*fd, 1) == -1))
		close_fd(fd);
	if (fd == NULL || *fd == -1)
		flags |= MAP_ANONYMOUS;
	return mmap(NULL, size, PROT_READ | PROT_WRITE, flags,
	    fd != NULL ? *fd : -1, 0);
}

/* How much of it there is to be. */
static void
measure_shared(struct service *sv, int inetd)
{
	size_t nplaces = 0;

	if (!inetd) {
		nplaces = (size_t)sv->cfg.number[MAX_CONNECTIONS];
		/* At most half full, or it would take long to find a row. */
		for (sv->npeers = 2; sv->npeers < 2 * nplaces;)
			sv->npeers *= 2;
	}
	sv->shared_size = sizeof(*sv->shared) + nplaces * sizeof(*sv->places) +
	    sv->npeers * sizeof(*sv->peers) + sv->nslots * sizeof(*sv->counts);
}

/* What is where in there, and seats that are empty. */
static void
lay_out(struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->nseats; i++)
		sv->seats[i] = empty_seat;
	sv->counts = sv->shared->counts;
	if (sv->npeers > 0) {
		sv->peers = (void *)(sv->counts + sv->nslots);
		sv->places = (void *)(sv->peers + sv->npeers);
	}
}

/* The places of the workers, and what they share with the master. */
static int
make_seats(struct service *sv, int inetd)
{
	sv->nseats = sv->nslots = count_seats(&sv->cfg, inetd);
	measure_shared(sv, inetd);
	sv->shared = share_memory(sv->shared_size, inetd ? NULL :
	    &sv->shared_fd);
	sv->seats = calloc(sv->nseats, sizeof(*sv->seats));
	if (sv->shared == MAP_FAILED || sv->seats == NULL ||
	    getentropy(&sv->secret, sizeof(sv->secret)) == -1) {
		log_error("%s", strerror(errno));
		return -1;
	}
	sv->secret |= 1;
	lay_out(sv);
	return 0;
}

/* Is there a use for it?  inetd's children share nothing but a file of keys. */
static int
needs_pool(const struct config *cfg, int inetd)
{
	if (inetd)
		return cfg->number[SESSION_TICKETS] == 1 &&
		    cfg->given[TICKET_KEYS] != NULL;
	return cfg->number[SESSION_TICKETS] == 1 ||
	    cfg->number[SESSION_CACHE] != 0;
}

static void
pool_free(struct pool *p)
{
	if (p == NULL || --p->services > 0)
		return;
	tls_sessions_free(p->sessions);
	if (p->memory != MAP_FAILED)
		munmap(p->memory, p->size);
	close_fd(&p->fd);
	free(p);
}

/* For one service; NULL: there is no memory for it. */
static struct pool *
pool_new(size_t entries, int with_clients, int inetd)
{
	struct pool *p;

	if ((p = calloc(1, sizeof(*p))) == NULL)
		return NULL;
	p->services = 1;
	p->entries = entries;
	p->with_clients = with_clients;
	p->size = tls_sessions_size(entries, with_clients);
	p->fd = -1;
	p->memory = share_memory(p->size, inetd ? NULL : &p->fd);
	if (p->memory != MAP_FAILED)
		p->sessions = tls_sessions_new(p->memory, entries,
		    with_clients);
	if (p->sessions != NULL)
		return p;
	pool_free(p);
	return NULL;
}

/* That of the service before, or one of its own, with the same keys. */
static int
make_pool(struct service *sv, const struct service *old, int inetd)
{
	size_t n = inetd ? 0 : (size_t)sv->cfg.number[SESSION_CACHE];
	int with_clients = sv->cfg.number[VERIFY] != NONE;
	struct pool *before = old != NULL ? old->pool : NULL;

	if (!needs_pool(&sv->cfg, inetd))
		return 0;
	if (before != NULL && before->entries == n &&
	    before->with_clients == with_clients) {
		sv->pool = before;
		before->services++;
	} else if ((sv->pool = pool_new(n, with_clients, inetd)) == NULL) {
		log_error("out of memory");
		return -1;
	} else if (before != NULL)
		tls_sessions_adopt(sv->pool->sessions, before->sessions);
	tls_config_sessions(sv->tls, sv->pool->sessions,
	    sv->cfg.number[SESSION_TICKETS] == 1,
	    (int)(sv->cfg.number[TICKET_LIFETIME] / 1000));
	return 0;
}

/*
 * It serves no more.  What stays is what its workers and the master share, and
 * the numbers of the configuration.
 */
static void
service_close(struct service *sv)
{
	struct config numbers = { .command = NULL };

	memcpy(numbers.number, sv->cfg.number, sizeof(numbers.number));
	free(sv->listeners);
	free(sv->accepts.list);
	free(sv->connects.list);
	tls_config_free(sv->tls);
	pool_free(sv->pool);
	config_free(&sv->cfg);
	sv->listeners = NULL;
	sv->nlisteners = 0;
	sv->accepts = sv->connects = (struct targets){ .n = 0 };
	sv->tls = NULL;
	sv->pool = NULL;
	sv->cfg = numbers;
}

/* It has no workers, or this is one. */
static void
service_free(struct service *sv)
{
	if (sv == NULL)
		return;
	service_close(sv);
	if (sv->shared != MAP_FAILED)
		munmap(sv->shared, sv->shared_size);
	close_fd(&sv->shared_fd);
	free(sv->seats);
	free(sv);
}

/* Steps from a configuration to a service: -1 after sentences. */

static int
step_configure(struct service *sv, const struct arguments *a)
{
	int r = configure(&sv->cfg, a);

	return load_tls(&sv->tls, &sv->cfg) == -1 ? -1 : r;
}

static int
step_kernel(struct service *sv, const struct arguments *a)
{
	(void)a;
	return sv->tls != NULL ? load_kernel(sv) : 0;
}

static int
step_accept(struct service *sv, const struct arguments *a)
{
	(void)a;
	return resolve_all(&sv->accepts, sv->cfg.given[ACCEPT], 1);
}

static int
step_connect(struct service *sv, const struct arguments *a)
{
	(void)a;
	return resolve_all(&sv->connects, sv->cfg.given[CONNECT], 0);
}

static int
step_privileges(struct service *sv, const struct arguments *a)
{
	int r = load_privileges(sv);

	(void)a;
	return check_files(sv, LEVEL_ERROR) == -1 ? -1 : r;
}

/*
 * Each is taken though another has failed, to tell all errors at once.  -1
 * with errno: EAGAIN if all that failed may be right in a minute.
 */
static int
service_load(struct service *sv, const struct arguments *a, int is_first)
{
	static int (*const steps[])(struct service *,
	    const struct arguments *) = {
		step_configure, step_kernel, step_accept, step_connect,
		step_privileges,
	};
	int r = 0, for_good = 0;
	size_t i;

	log_errors_begin();
	for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		errno = 0;
		if (steps[i](sv, a) == -1) {
			for_good |= errno != EAGAIN;
			r = -1;
		}
		if (i == 0 && r == 0 && is_first)
			close_strays(&sv->cfg, a);
	}
	log_errors_end();
	errno = for_good ? 0 : EAGAIN;
	return r;
}

static struct service *
service_alloc(const struct arguments *a)
{
	struct service *sv = calloc(1, sizeof(*sv));

	if (sv == NULL || (sv->listeners = calloc(FORWARD_LISTENERS,
	    sizeof(*sv->listeners))) == NULL) {
		free(sv);
		return NULL;
	}
	sv->shared = MAP_FAILED;
	sv->shared_fd = -1;
	sv->deadline = INT64_MAX;
	sv->files = &a->files;
	sv->core = &a->core;
	sv->file = a->file;
	return sv;
}

/*
 * All but its listeners and workers; old is the one before, or NULL.  NULL
 * after a sentence for each error, with errno: EAGAIN if it may be right in a
 * minute.
 */
static struct service *
service_new(const struct arguments *a, const struct service *old)
{
	struct service *sv;
	int saved;

	errno = 0;
	if ((sv = service_alloc(a)) == NULL) {
		log_error("out of memory");
		return NULL;
	}
	if (service_load(sv, a, old == NULL) == -1)
		goto err;
	errno = 0;
	if (make_seats(sv, a->inetd) == -1 ||
	    make_pool(sv, old, a->inetd) == -1)
		goto err;
	if (old != NULL)
		sv->shared->warned = old->shared->warned;
	return sv;
err:
	saved = errno;
	service_free(sv);
	errno = saved;
	return NULL;
}

/*
 * ORDERS
 * Between the master and each worker there is a line: a pair of sockets.  The
 * worker sends a byte when it is ready, and waits for one before it begins; in
 * fork mode, it does neither.  It sends another byte when it accepts no more.
 * The master sends orders, and SIGHUP to have them looked for.
 */

enum { DRAIN, LOG_TO, MAKE_ROOM };

struct order {
	int32_t	 what;
	int32_t	 log;			/* -1: syslog, 0: it is passed along; */
					/* or a standard descriptor */
	int32_t	 has_time, is_ours;	/* as in logging */
	int64_t	 ms;			/* for connections to finish */
};

/* Room for one descriptor beside a message. */
union passed {
	struct cmsghdr head;
	char	 room[CMSG_SPACE(sizeof(int))];
};

/* With a descriptor, or -1.  -1 with errno: EAGAIN if there is no room. */
static int
send_order(int line, const struct order *o, int fd)
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
	return sendmsg(line, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == -1 ? -1 :
	    0;
}

/* The next one, with a descriptor or -1; -1: there is none. */
static int
take_order(int line, struct order *o, int *fd)
{
	struct iovec iov = { .iov_base = o, .iov_len = sizeof(*o) };
	union passed passed = { .room = { 0 } };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = &passed, .msg_controllen = sizeof(passed.room) };
	const struct cmsghdr *c;

	*fd = -1;
	if (recvmsg(line, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) !=
	    (ssize_t)sizeof(*o))
		return -1;
	if ((c = CMSG_FIRSTHDR(&msg)) != NULL &&
	    c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	return 0;
}

/* Where the log is now, as an order, and the descriptor to pass along. */
static struct order
log_order(int *fd)
{
	int is_passed = logging.fd > STDERR_FILENO;

	*fd = is_passed ? logging.fd : -1;
	return (struct order){ .what = LOG_TO, .has_time = logging.has_time,
	    .is_ours = logging.is_ours, .log = is_passed ? 0 : logging.fd };
}

/*
 * The sandbox knows the number that the log had at first, which no other
 * descriptor may get; it allows dup3(2) to that alone.  Syslog's socket can't
 * be opened in there: a file goes on, and so it does if there was no number
 * left for the new one.
 */
static void
log_moved(const struct order *o, int fd)
{
	int to = fd != -1 ? fd : o->log;

	if (to <= 0)
		return;
	if (logging.fd <= STDERR_FILENO ||
	    dup3(to, logging.fd, O_CLOEXEC) == -1)
		log_to(to, o->log);
	else if (fd != -1)
		close(fd);
	logging.has_time = o->has_time;
	logging.is_ours = o->is_ours;
	logging.is_cut = 0;
}

/*
 * A WORKER
 * What serves, in a process of its own: forked by the master, or by inetd.
 */

/* A connection that was there before its process. */
struct incoming {
	int	 fd;
	struct sockaddr_storage sa;
	socklen_t len;
};

/*
 * What the kernel has accepted already would be reset as its listener closes.
 * Who has passed a listener keeps it, and its queue, for the next one to serve.
 */
static void
accept_last(struct worker *w)
{
	const struct service *sv = w->service;
	int64_t until = clock_ms() + LAST_MS;
	size_t i;

	for (i = 0; i < sv->nlisteners; i++)
		if (sv->listeners[i].address != NULL)
			forward_empty(w->engine, sv->listeners[i].fd, until);
}

/* A later call may bring the end forward. */
static void
worker_drain(struct worker *w, int64_t ms, int is_cut)
{
	if (!w->stopping && w->service->shared->stops && !is_cut)
		accept_last(w);
	forward_drain(w->engine, ms);
	if (w->stopping)
		return;
	w->stopping = 1;
	close_listeners(w->service, 0);
	if (w->line != -1)
		send(w->line, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
worker_obey(struct worker *w)
{
	struct order o;
	int fd;

	while (w->line != -1 && take_order(w->line, &o, &fd) == 0) {
		if (o.what == DRAIN)
			worker_drain(w, o.ms, 0);
		else if (o.what == LOG_TO)
			log_moved(&o, fd);
		else if (o.what == MAKE_ROOM)
			forward_make_room(w->engine);
	}
}

/* Show the master that this loop goes round, if it has to know. */
static void
worker_beat(struct worker *w)
{
	int64_t now;

	if (w->beat_every == 0)
		return;
	now = clock_ms();
	if (now >= w->beat_at) {
		w->counts->beat = (uint64_t)now;
		w->beat_at = now + w->beat_every;
	}
	forward_wake(w->engine, w->beat_at);
}

static void
worker_woken(void *arg)
{
	struct worker *w = arg;
	int64_t drain_ms = w->service->cfg.number[DRAIN_TIMEOUT];

	if (taken(&got_child))
		commands_look(w);
	if (taken(&got_usr1))
		forward_list(w->engine);
	if (w->repeats_until != 0 && clock_ms() >= w->repeats_until) {
		w->repeats_until = 0;
		repeats_end(w->service, 0);
	}
	if (w->repeats_until != 0)
		forward_wake(w->engine, w->repeats_until);
	worker_beat(w);
	if (taken(&got_hup))
		worker_obey(w);
	if (taken(&got_stop))
		worker_drain(w, drain_ms, got_cut);
	if (taken(&got_cut)) {
		worker_drain(w, drain_ms, 1);
		forward_cut(w->engine);
	}
}

static int
worker_engine(struct worker *w)
{
	static const struct forward_calls calls = {
		.accepted = session_accepted,
		.dial = session_dial,
		.closed = session_closed,
		.listed = session_listed,
		.woken = worker_woken,
		.starved = worker_starved,
		.full = worker_full,
	};
	const int64_t *number = w->service->cfg.number;
	struct forward_params params = {
		.calls = &calls,
		.arg = w,
		.max_connections = (unsigned)w->share,
		.open_ms = number[HANDSHAKE_TIMEOUT],
		.dial_ms = number[CONNECT_TIMEOUT],
		.idle_ms = number[IDLE_TIMEOUT],
		.linger_ms = number[LINGER_TIMEOUT],
		.answer_ms = number[KEEPALIVE],
		.in = &w->counts->in,
		.out = &w->counts->out,
	};
	size_t i;

	if ((w->engine = forward_new(&params)) == NULL)
		return -1;
	for (i = 0; i < w->service->nlisteners; i++)
		if (forward_listen(w->engine, w->service->listeners[i].fd) ==
		    -1)
			return -1;
	return 0;
}

/* To the first number that is free from this one on; -1 with errno. */
static int
move_fd(int *fd, int from)
{
	int moved = fcntl(*fd, F_DUPFD_CLOEXEC, from);

	if (moved == -1)
		return -1;
	close(*fd);
	*fd = moved;
	return 0;
}

/*
 * All workers and the master have the same listeners, and it is by number that
 * the sandbox keeps a worker from changing them, and knows its line.  Past the
 * limit, no other descriptor will ever have that number, whatever is closed.
 * The line comes first.  -1 with errno.
 */
static int
set_apart(struct worker *w, size_t slot)
{
	struct service *sv = w->service;
	rlim_t need = descriptors_of(sv, slot);
	struct rlimit limit;
	size_t i;

	if (!w->has_master)
		return 0;
	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		return -1;
	limit.rlim_cur = (limit.rlim_cur < need ? limit.rlim_cur : need) -
	    sv->nlisteners - 1;
	if (move_fd(&w->line, (int)limit.rlim_cur) == -1)
		return -1;
	for (i = 0; i < sv->nlisteners; i++)
		if (move_fd(&sv->listeners[i].fd, (int)limit.rlim_cur) == -1)
			return -1;
	return setrlimit(RLIMIT_NOFILE, &limit);
}

/* Become a worker that is fit for the network; -1 after one sentence. */
static int
worker_init(struct worker *w, struct service *sv, size_t slot)
{
	const char *why = NULL;

	w->service = sv;
	w->counts = &sv->counts[slot];
	w->share = share_of(sv, slot, &w->first);
	if (sv->peers != NULL)
		w->unused = calloc(w->share, sizeof(*w->unused));
	/* Whose members are no constants. */
	w->proxied_ops = w->backend_ops = stream_plain;
	w->proxied_ops.open = proxied_open;
	w->proxied_ops.error = proxied_error;
	w->backend_ops.open = backend_open;
	w->command_ops = w->backend_ops;
	w->command_ops.read = command_read;
	w->command_ops.write = command_write;
	w->command_ops.failed = command_failed;
	w->command_ops.abort = command_abort;
	w->command_ops.error = command_error;
	/* A socket of its own: the others' can't be shut down through it. */
	if (logging.fd == -1)
		log_connect_syslog();
	if (set_apart(w, slot) == -1)
		why = "descriptors";
	else if (sv->peers != NULL && w->unused == NULL)
		why = "max_per_ip";
	else if (worker_engine(w) == -1)
		why = forward_poller;
	else if (drop_privileges(sv) == -1)
		why = "user, group, chroot";
	if (why == NULL && w->has_master)
		follow_master();
	if (why == NULL && sv->cfg.number[SANDBOX] == 1 &&
	    sandbox_enter(sv) == -1)
		why = "sandbox";
	if (why != NULL) {
		log_error("%s: %s", why, strerror(errno));
		return -1;
	}
	if ((why = tls_forked()) != NULL) {
		log_error("%s", why);
		return -1;
	}
	worker_beat(w);
	return 0;
}

/* A command that outlives the connection of its process still counts. */
static void
await_commands(struct worker *w, const sigset_t *asleep)
{
	while (w->running > 0 && !w->stopping) {
		ppoll(NULL, 0, NULL, asleep);
		worker_woken(w);
	}
}

/* Serve one connection, or all that come; an exit status. */
static int
worker_run(struct worker *w, const struct incoming *in, const sigset_t *asleep)
{
	if (in != NULL)
		forward_add(w->engine, in->fd,
		    (const struct sockaddr *)&in->sa, in->len);
	if (w->service->nlisteners == 0)
		forward_drain(w->engine, 0);
	if (forward_run(w->engine, asleep) == -1) {
		log_error("%s: %s", forward_poller, strerror(errno));
		return EXIT_FAILURE;
	}
	if (in != NULL)
		await_commands(w, asleep);
	return EXIT_SUCCESS;
}

static void
worker_free(struct worker *w)
{
	struct command *c;

	forward_free(w->engine);
	free(w->unused);
	while ((c = w->commands) != NULL) {
		w->commands = c->next;
		command_close(c);
		free(c);
	}
}

/*
 * STATISTICS
 * The sum of what all workers count, those of older generations and those that
 * are no more as well: for the log at SIGUSR1, and for a program that reads
 * stats_file.  A process of its own writes that, lest a disk that hangs keeps
 * the master from looking after its workers.
 */

static const char *const failure_names[FAILURES] = {
	[FAILED_TIMEOUT] = "timeout",
	[FAILED_NOT_TLS] = "not_tls",
	[FAILED_CERTIFICATE] = "client_certificate",
	[FAILED_NAME] = "server_name",
	[FAILED_PROXY] = "proxy_header",
	[FAILED_ALERT] = "client_alert",
	[FAILED_NOTHING_IN_COMMON] = "nothing_in_common",
	[FAILED_CLOSED] = "closed",
	[FAILED_OTHERWISE] = "other",
};

static void
counts_add(struct counts *sum, const volatile struct counts *n)
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
	sum->over += n->over;
	sum->dropped += n->dropped;
	sum->in += n->in;
	sum->out += n->out;
	sum->lost += n->lost;
}

/* All of it, and how many workers there are. */
static size_t
stats_sum(const struct stats *st, const struct service *live,
    struct counts *sum)
{
	const struct service *sv;
	size_t i, workers = 0;

	*sum = st->ended;
	for (sv = live; sv != NULL; sv = sv->older) {
		for (i = 0; i < sv->nseats; i++)
			if (sv->seats[i].pid != 0)
				counts_add(sum,
				    &sv->counts[sv->seats[i].slot]);
		workers += sv->nworkers;
	}
	return workers;
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

static void
stats_say(const struct stats *st, const struct service *live)
{
	struct counts sum;
	size_t workers = stats_sum(st, live, &sum);

	log_notice("statistics: up %llds, %zu worker%s, live=%llu "
	    "max_connections=%lld accepted=%llu served=%llu resumed=%llu "
	    "refused=%llu no_backend=%llu silent=%llu dropped=%llu "
	    "over_max_per_ip=%llu lost=%llu in=%llu out=%llu",
	    (long long)(clock_ms() - st->began) / 1000, workers,
	    workers == 1 ? "" : "s", (unsigned long long)sum.live,
	    (long long)live->cfg.number[MAX_CONNECTIONS],
	    (unsigned long long)sum.accepted, (unsigned long long)sum.served,
	    (unsigned long long)sum.resumed,
	    (unsigned long long)refused_sum(&sum),
	    (unsigned long long)sum.no_backend,
	    (unsigned long long)sum.silent, (unsigned long long)sum.dropped,
	    (unsigned long long)sum.over,
	    (unsigned long long)sum.lost, (unsigned long long)sum.in,
	    (unsigned long long)sum.out);
}

/* A label's value: printable ASCII, in the quotation of the format. */
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
 * One host may have several services, and they are told apart by the name of
 * the configuration's file, without .conf.
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

/* What is printed, of one metric at a time. */
struct exposition {
	FILE	*fp;
	const char *file;		/* of the configuration, or NULL */
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

/* With a label beside that of the service, if it has a name. */
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
		{ "full", n->dropped }, { "max_per_ip", n->over },
		{ "no_backend", n->no_backend }, { "lost", n->lost },
	};
	size_t i;

	print_metric(e, "connections", "gauge", "Connections at this moment.",
	    n->live);
	print_metric(e, "connections_accepted_total", "counter",
	    "Connections accepted.", n->accepted);
	print_metric(e, "connections_served_total", "counter",
	    "Connections that reached the service, and are over.", n->served);
	print_metric(e, "connections_resumed_total", "counter",
	    "Those of them that had resumed a session.", n->resumed);
	begin_metric(e, "connections_refused_total", "counter",
	    "Connections not served, or lost with a worker.");
	for (i = 0; i < sizeof(unserved) / sizeof(unserved[0]); i++)
		print_sample(e, "reason", unserved[i].reason,
		    (int64_t)unserved[i].count);
	print_metric(e, "received_bytes_total", "counter",
	    "Bytes of data from clients to the service.", n->in);
	print_metric(e, "sent_bytes_total", "counter",
	    "Bytes of data from the service to clients.", n->out);
}

static void
print_handshakes(struct exposition *e, const struct counts *n)
{
	size_t i;

	begin_metric(e, "handshakes_total", "counter",
	    "Handshakes completed, by version of TLS.");
	print_sample(e, "version", "TLSv1.2", (int64_t)n->opened[0]);
	print_sample(e, "version", "TLSv1.3", (int64_t)n->opened[1]);
	begin_metric(e, "handshake_failures_total", "counter",
	    "Handshakes that failed.");
	for (i = 0; i < FAILURES; i++)
		print_sample(e, "reason", failure_names[i],
		    (int64_t)n->refused[i]);
}

/* A file that is named twice must not make two series of one name. */
static int
is_named_before(const struct tls_config *tls, size_t i, const char *file)
{
	const char *other;
	int64_t at;

	while (i-- > 0)
		if (tls_config_expiry(tls, i, &other, &at) == 0 &&
		    strcmp(other, file) == 0)
			return 1;
	return 0;
}

static void
print_certificates(struct exposition *e, const struct tls_config *tls)
{
	const char *file;
	int64_t at;
	size_t i;

	for (i = 0; tls_config_expiry(tls, i, &file, &at) == 0; i++) {
		if (i == 0)
			begin_metric(e, "certificate_expiry_timestamp_seconds",
			    "gauge", "When the certificate expires.");
		if (!is_named_before(tls, i, file))
			print_sample(e, "file", file, at);
	}
}

static void
print_stats(FILE *fp, const struct stats *st, const struct service *live)
{
	struct exposition e = { .fp = fp, .file = live->file };
	struct counts sum;
	size_t workers = stats_sum(st, live, &sum);

	begin_metric(&e, "build_info", "gauge", "The version of tunnel.");
	print_sample(&e, "version", VERSION, 1);
	begin_metric(&e, "library_info", "gauge", "The version of mbed TLS.");
	print_sample(&e, "version", tls_version(), 1);
	print_metric(&e, "start_time_seconds", "gauge",
	    "When it was started.", (uint64_t)st->began_at);
	print_metric(&e, "workers", "gauge", "Processes that serve.",
	    workers);
	print_metric(&e, "generation", "gauge",
	    "Configurations put into effect since the start.",
	    st->generation);
	print_metric(&e, "max_connections", "gauge",
	    "Connections that there may be.",
	    (uint64_t)live->cfg.number[MAX_CONNECTIONS]);
	print_connections(&e, &sum);
	print_handshakes(&e, &sum);
	print_certificates(&e, live->tls);
}

/*
 * A reader finds the old file or the new one, and each of them whole.  NULL, or
 * why not; then all is as it was.
 */
static const char *
stats_write(const struct stats *st, const struct service *live,
    const char *path)
{
	const char *why = path_fault(live, STATS_FILE, path);
	char fresh[PATH_MAX];
	FILE *fp;
	int n;

	if (why != NULL)
		return why;
	n = snprintf(fresh, sizeof(fresh), "%s.new", path);
	if ((size_t)n >= sizeof(fresh))
		return strerror(ENAMETOOLONG);
	unlink(fresh);			/* one that was never finished */
	if ((fp = open_new(fresh, 0644)) == NULL)
		return strerror(errno);
	print_stats(fp, st, live);
	if (fclose(fp) == 0 && rename(fresh, path) == 0)
		return NULL;
	why = strerror(errno);
	unlink(fresh);
	return why;
}

/* A child that hangs must not hold on to what is the master's. */
static void
close_all_but_log(void)
{
	unsigned log = logging.fd > STDERR_FILENO ? (unsigned)logging.fd :
	    STDERR_FILENO;

	closelog();
	if (log > PASSED)
		close_between(PASSED, log - 1);
	close_between(log + 1, INT_MAX);
}

/* Replace what is there, or with no path, remove it: in a child. */
static int
stats_child(const struct stats *st, const struct service *live,
    const char *path)
{
	const char *why = NULL;

	logging.lost = 0;		/* the master tells of its own */
	close_all_but_log();
	if (path != NULL)
		why = stats_write(st, live, path);
	if (why != NULL && !st->failed)
		log_warning("%s: stats_file %s: %s",
		    config_where(&live->cfg, STATS_FILE), path, why);
	if (st->file != NULL && (path == NULL || strcmp(path, st->file) != 0))
		unlink(st->file);
	return why != NULL;
}

static void
stats_start(struct stats *st, const struct service *live, const char *path)
{
	int64_t now = clock_ms();
	pid_t pid = fork();

	if (pid == 0)
		_exit(stats_child(st, live, path));
	st->write_at = now + STATS_EVERY_MS;
	st->kill_at = now + STATS_MS;
	if (pid == -1) {
		log_warning("stats_file can't be written: %s",
		    strerror(errno));
		return;
	}
	st->writer = pid;
	if (path != NULL && st->file != NULL && strcmp(path, st->file) == 0)
		return;
	free(st->file);
	st->file = path != NULL ? strdup(path) : NULL;
}

/* When there is something to do for it; INT64_MAX: never. */
static int64_t
stats_due(const struct stats *st, const struct service *live)
{
	if (st->writer != 0)
		return st->kill_at;
	return live->cfg.given[STATS_FILE] != NULL || st->file != NULL ?
	    st->write_at : INT64_MAX;
}

static void
stats_turn(struct stats *st, const struct service *live)
{
	if (clock_ms() < stats_due(st, live))
		return;
	if (st->writer == 0) {
		stats_start(st, live, config_text(&live->cfg, STATS_FILE));
		return;
	}
	st->kill_at = INT64_MAX;
	kill(st->writer, SIGKILL);
	if (!st->failed)
		log_warning("stats_file %s: not written within %d s", st->file,
		    STATS_MS / 1000);
	st->failed = 1;
}

/* Has a child that is no more been the writer? */
static void
stats_reaped(struct stats *st, pid_t pid, int status)
{
	int failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;

	if (pid != st->writer)
		return;
	st->writer = 0;
	if (st->failed && !failed)
		log_notice("stats_file %s: written again", st->file);
	st->failed = failed;
}

/*
 * Until the writer is no more; but not for long.  Signals have to wait: another
 * program may be the one to act on them.
 */
static void
stats_await(struct stats *st)
{
	int64_t until = clock_ms() + STATS_END_MS;
	while (st->writer != 0 && waitpid(st->writer, NULL, WNOHANG) == 0) {
		if (clock_ms() >= until) {
			kill(st->writer, SIGKILL);
			break;
		}
		poll(NULL, 0, 10);
	}
	st->writer = 0;
}

/* What it had to tell is over: a stop. */
static void
stats_end(struct stats *st)
{
	stats_await(st);
	if (st->file == NULL)
		return;
	stats_start(st, NULL, NULL);
	stats_await(st);
}

/*
 * THE MASTER
 * It has the privileges, the listeners and the workers, and reads nothing that
 * comes from the network.
 */

/* See THE UPGRADE. */
struct upgrade {
	char	*path;			/* of the program, old and new, */
	char	**argv, **env;		/* and how it is to be started */
	int	 program;		/* the one that runs; or -1 */
	pid_t	 trial;			/* of the new one; or 0 */
	int	 output, answer;	/* what it says; or -1 */
	int64_t	 until;			/* it is killed */
	int	 is_due;		/* it went well */
	int	 log;			/* of the program before; or -1 */
};

struct master {
	const struct arguments *args;
	struct service *live;		/* and behind it those that leave */
	struct stats stats;
	sigset_t asleep;
	pid_t	 pid;
	int	 parent;		/* waits for the start; or -1 */
	int	 pidfile;		/* or -1 */
	char	*pidfile_name;
	int	 stopping;
	struct incoming waiting;	/* fork mode: for a process; or -1 */
	size_t	 next_listener;		/* fork mode */
	int64_t	 renew_at;		/* keys for tickets */
	int64_t	 warn_at;		/* of certificates, again */
	int64_t	 starved_until;
	int64_t	 ask_at;		/* fork mode: others to make room */
	int64_t	 beat_at;		/* the next sign of life */
	int	 is_silent;		/* there was none */
	time_t	 complained;
	struct upgrade upgrade;
};

/* sd_notify(3): a datagram to a Unix socket, abstract ones with an @. */
static void __attribute__((format(printf, 2, 3)))
notify(const struct master *m, const char *fmt, ...)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	const char *to = m->args->notify;
	char text[TEXT_SIZE];
	va_list ap;
	int fd;

	if (to == NULL || strlen(to) >= sizeof(un.sun_path) ||
	    (*to != '/' && *to != '@'))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(un.sun_path, to, strlen(to));
	if (*to == '@')
		un.sun_path[0] = '\0';
	if ((fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) == -1)
		return;
	if (sendto(fd, text, strlen(text), MSG_NOSIGNAL,
	    (const struct sockaddr *)&un, (socklen_t)(offsetof(
	    struct sockaddr_un, sun_path) + strlen(to))) == -1)
		log_warning("NOTIFY_SOCKET %s: %s", to, strerror(errno));
	close(fd);
}

/* It is ready.  May it begin?  Not if the others can't. */
static int
may_begin(int line)
{
	char byte;

	return write(line, "", 1) == 1 && read(line, &byte, 1) == 1;
}

/* Those that wait may begin, now that all have got there. */
static void
begin(struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->nseats; i++) {
		struct seat *seat = &sv->seats[i];

		if (seat->line != -1 && !seat->begun)
			send(seat->line, "", 1, MSG_NOSIGNAL);
		seat->begun = 1;
	}
}

/* In a child, which writes to none of the seats: their pages stay shared. */
static void
close_lines(const struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->nseats; i++)
		if (sv->seats[i].line != -1)
			close(sv->seats[i].line);
}

/* Those that wait are to leave, since not all have got there. */
static void
hang_up(struct service *sv)
{
	size_t i;

	close_lines(sv);
	for (i = 0; i < sv->nseats; i++)
		sv->seats[i].line = -1;
}

/* Until those who were told to leave accept no more; but not for long. */
static void
await_end_of_accepting(const struct service *sv)
{
	int64_t left, until = clock_ms() + DEAF_MS;
	size_t i;
	char byte;

	for (i = 0; i < sv->nseats && sv->cfg.number[MODE] == POLL; i++) {
		struct pollfd p = { .fd = sv->seats[i].line,
		    .events = POLLIN };

		left = until - clock_ms();
		if (poll(&p, 1, left > 0 && p.fd != -1 ? (int)left : 0) == 1)
			recv(p.fd, &byte, 1, MSG_DONTWAIT);
	}
}

static void upgrade_leave(const struct master *);
static int upgrade_tried(struct master *, pid_t, int);

/*
 * In the child: let go of all that is the master's alone.  A worker has no
 * business with the keys of the others; but who their clients are is counted.
 */
static void
leave_master(const struct master *m, struct service *sv,
    const struct incoming *in)
{
	struct service *old;

	close_lines(sv);
	if (m->live != sv)
		close_listeners(m->live, 0);
	keep_none(sv);
	for (old = sv->older; old != NULL; old = old->older) {
		close_fd(&old->shared_fd);
		close_lines(old);
		free(old->seats);
		old->seats = NULL;
		old->nseats = 0;
		service_close(old);
	}
	if (sv->cfg.number[MODE] == FORK)
		close_listeners(sv, 0);
	if (in == NULL && m->waiting.fd != -1)
		close(m->waiting.fd);
	if (m->parent != -1)
		close(m->parent);
	if (m->pidfile != -1)
		close(m->pidfile);
	close_fd(&sv->shared_fd);
	if (sv->pool != NULL)
		close_fd(&sv->pool->fd);
	upgrade_leave(m);
}

/*
 * In the child: among the lines of a master with many workers, the numbers of
 * those that it keeps may be past its own limit, or the first one past it.
 */
static void
lower_descriptors(struct worker *w, struct service *sv)
{
	size_t i;

	move_fd(&w->line, STDERR_FILENO + 1);
	for (i = 0; i < sv->nlisteners; i++)
		move_fd(&sv->listeners[i].fd, STDERR_FILENO + 1);
	if (logging.fd > STDERR_FILENO)
		move_fd(&logging.fd, STDERR_FILENO + 1);
}

/* In the child: serve, and never come back. */
static void __attribute__((noreturn))
worker_main(const struct master *m, struct service *sv, size_t slot,
    const struct incoming *in, int line)
{
	struct worker w = { .has_master = 1, .line = line, .turn = slot,
	    .beat_every = in == NULL ? m->args->watchdog / BEATS : 0 };
	struct incoming connection;
	int r = EXIT_FAILURE;

	logging.lost = 0;		/* the master tells of its own */
	leave_signals();
	leave_master(m, sv, in);
	if (in != NULL) {
		connection = *in;
		in = &connection;
		move_fd(&connection.fd, STDERR_FILENO + 1);
	}
	lower_descriptors(&w, sv);
	if (worker_init(&w, sv, slot) == 0)
		r = in != NULL || may_begin(w.line) ?
		    worker_run(&w, in, &m->asleep) : EXIT_SUCCESS;
	worker_free(&w);
	sv->counts[slot].unlogged = logging.lost;
	sv->counts[slot].unlogged_why = logging.why;
	sv->counts[slot].unlogged_cut = logging.is_cut;
	exit(r);
}

/* Has it got there? */
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

/*
 * How long to wait before the next try, after a failure.  Those that fail
 * meanwhile are the same one.
 */
static int64_t
worker_failed(struct service *sv)
{
	int64_t now = clock_ms(), ms = 0;

	if (now < sv->retry_at)
		return sv->retry_at - now;
	if (now - sv->retry_at >= HEALTHY_MS)
		sv->failures = 0;
	if (sv->failures++ > 0)
		ms = RETRY_MS << (sv->failures < 16 ? sv->failures - 2 : 14);
	if (ms > RETRY_MAX_MS)
		ms = RETRY_MAX_MS;
	sv->retry_at = now + ms;
	return ms;
}

/*
 * Fork a worker into a seat.  If it is for a connection, it begins at once;
 * if not, wait until it is ready to.  -1: it could not be forked, or won't be.
 */
static int
start_worker(struct master *m, struct service *sv, size_t seat,
    const struct incoming *in)
{
	int line[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) == -1)
		return -1;
	if ((pid = fork()) == 0) {
		close(line[0]);
		worker_main(m, sv, seat, in, line[1]);
	}
	close_failed(line[1]);
	if (pid == -1)
		return close_failed(line[0]);
	log_debug("worker %d started", (int)pid);
	sv->seats[seat] = (struct seat){ .pid = pid, .line = line[0],
	    .slot = (uint32_t)seat, .begun = in != NULL,
	    .drop_at = in != NULL ? clock_ms() + FORWARD_DROP_MS :
	    INT64_MAX };
	sv->nworkers++;
	if (in != NULL)
		return 0;
	if (!is_ready(pid, line[0])) {
		kill(pid, SIGKILL);
		return -1;
	}
	if (kill(pid, 0) == -1) {
		log_error("a worker can't be told to leave: %s (with user, "
		    "the master needs CAP_KILL)", strerror(errno));
		return -1;
	}
	return 0;
}

/*
 * One in each seat that is empty.  In fork mode just one, that has nothing to
 * do, to see whether it would be able to.
 */
static int
start_workers(struct master *m, struct service *sv)
{
	size_t i, n = sv->cfg.number[MODE] == FORK ? 1 : sv->nseats;

	for (i = 0; i < n; i++) {
		if (sv->seats[i].pid != 0 ||
		    start_worker(m, sv, i, NULL) == 0)
			continue;
		if (sv->seats[i].pid == 0) {
			log_warning("no worker can be started: %s",
			    strerror(errno));
			worker_failed(sv);
		}
		return -1;
	}
	return 0;
}

/* mode = fork: may it serve another one, if there is a seat? */
static int
may_serve(const struct master *m)
{
	return m->live->cfg.number[MODE] == FORK && !m->stopping &&
	    clock_ms() >= m->starved_until &&
	    clock_ms() >= m->live->retry_at;
}

static int
is_full(const struct service *sv)
{
	return sv->nworkers == sv->nseats;
}

/*
 * mode = fork, and full: the worker whose handshake goes on for longest, and
 * that was not asked to make room just now; NULL: there is none.
 */
static struct seat *
oldest_handshake(const struct service *sv)
{
	struct seat *oldest = NULL;
	const volatile struct counts *n;
	size_t i;

	for (i = 0; i < sv->nseats; i++) {
		struct seat *seat = &sv->seats[i];

		n = &sv->counts[seat->slot];
		if (seat->pid != 0 && n->opened[0] + n->opened[1] == 0 &&
		    (oldest == NULL || seat->drop_at < oldest->drop_at))
			oldest = seat;
	}
	return oldest;
}

/* mode = fork: when there is a seat for one more; INT64_MAX: who knows. */
static int64_t
seat_from(const struct master *m)
{
	const struct seat *seat;

	if (!may_serve(m))
		return INT64_MAX;
	if (!is_full(m->live))
		return 0;
	if ((seat = oldest_handshake(m->live)) == NULL)
		return INT64_MAX;
	return seat->drop_at > m->ask_at ? seat->drop_at : m->ask_at;
}

/* How many wait to be accepted, as far as the system tells. */
#ifdef __linux__
static size_t
count_waiting(const struct service *sv)
{
	struct tcp_info info = { .tcpi_unacked = 0 };
	size_t i, n = 0;

	for (i = 0; i < sv->nlisteners; i++) {
		socklen_t len = sizeof(info);

		if (getsockopt(sv->listeners[i].fd, IPPROTO_TCP, TCP_INFO,
		    &info, &len) == 0)
			n += info.tcpi_unacked;
	}
	return n;
}
#else
#define count_waiting(sv)	((size_t)0)
#endif

/* -1 with errno: EAGAIN if it does not take its orders; else, it has left. */
static int
tell_worker(const struct seat *seat, const struct order *o, int fd)
{
	if (send_order(seat->line, o, fd) == -1)
		return -1;
	return kill(seat->pid, SIGHUP);
}

/*
 * One worker for each that waits: each sees for itself whether its handshake
 * still goes on, and leaves if so.  After a while, others are asked, and in the
 * end the same ones: for a worker that was slow to start, it was too early.
 */
static void
ask_for_seats(struct master *m)
{
	const struct order o = { .what = MAKE_ROOM };
	size_t n = 1 + count_waiting(m->live);
	int64_t now = clock_ms();
	struct seat *seat;

	if (now < m->ask_at)
		return;
	m->ask_at = now + ASK_EVERY_MS;
	for (n = n < ASK_AT_ONCE ? n : ASK_AT_ONCE; n > 0; n--) {
		seat = oldest_handshake(m->live);
		if (seat == NULL || seat->drop_at > now)
			break;
		seat->drop_at = now + FORWARD_DROP_MS;
		tell_worker(seat, &o, -1);
	}
}

static void
starve(struct master *m)
{
	complain(&m->complained, errno);
	m->starved_until = clock_ms() + STARVED_MS;
}

/* mode = fork: the next connection; 1 if there was one. */
static int
accept_one(struct master *m, int listener)
{
	struct incoming *in = &m->waiting;

	in->len = sizeof(in->sa);
	in->fd = accept4(listener, (struct sockaddr *)&in->sa, &in->len,
	    SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (in->fd == -1 && !accept_error_is_transient(errno))
		starve(m);
	return in->fd != -1;
}

static void
drop_waiting(struct master *m)
{
	if (m->waiting.fd != -1)
		close(m->waiting.fd);
	m->waiting.fd = -1;
}

/* mode = fork: a process for the connection that waits. */
static void
serve_waiting(struct master *m)
{
	struct service *sv = m->live;

	if (m->waiting.fd == -1 || !may_serve(m))
		return;
	if (is_full(sv)) {
		ask_for_seats(m);
		return;
	}
	while (sv->seats[sv->next_seat % sv->nseats].pid != 0)
		sv->next_seat++;
	if (start_worker(m, sv, sv->next_seat % sv->nseats, &m->waiting) ==
	    -1) {
		starve(m);
		return;
	}
	sv->next_seat++;
	drop_waiting(m);
	if (is_full(sv))
		warn_full(sv);
}

/*
 * A worker has left, and could not tell of lines that it has lost: in fork
 * mode, each has one line to log, at its end.
 */
static void
tell_unlogged(const volatile struct counts *n)
{
	if (n->unlogged > 0) {
		logging.lost += n->unlogged;
		logging.why = n->unlogged_why;
		logging.is_cut |= n->unlogged_cut != 0;
	}
	if (logging.lost > 0)
		log_is_stuck();
}

/* Whoever sits there next finds it empty; what was counted is kept. */
static void
clear_seat(struct master *m, struct service *sv, struct seat *seat)
{
	volatile struct counts *counts = &sv->counts[seat->slot];
	size_t first, n = share_of(sv, seat->slot, &first);

	counts_add(&m->stats.ended, counts);
	tell_unlogged(counts);
	m->stats.ended.lost += m->stats.ended.live;
	m->stats.ended.live = 0;
	memset((void *)counts, 0, sizeof(*counts));
	peers_recount(sv, first, n);
	if (seat->line != -1)
		close(seat->line);
	*seat = empty_seat;
	sv->nworkers--;
}

/*
 * In poll mode another one takes the place.  In fork mode none has to; but
 * what crashes again and again may be somebody's guesses at our memory, which
 * is the same in all of them: that is slowed down.
 */
static void
worker_ended(struct master *m, struct service *sv, struct seat *seat,
    int status)
{
	int is_poll = sv->cfg.number[MODE] == POLL;
	int goes_on = sv == m->live && !m->stopping && sv->retry_at !=
	    INT64_MAX;		/* see go_on() */
	pid_t pid = seat->pid;
	char next[TEXT_SIZE] = "";
	int64_t ms = 0;

	clear_seat(m, sv, seat);
	if (goes_on && (is_poll || WIFSIGNALED(status)))
		ms = worker_failed(sv);
	if (goes_on && is_poll)
		snprintf(next, sizeof(next), "; another takes its place");
	if (ms > 0)
		snprintf(next, sizeof(next), "; another %s in %lld.%lld s "
		    "(%u in a row)", is_poll ? "takes its place" :
		    "may be started", (long long)ms / 1000,
		    (long long)ms / 100 % 10, sv->failures);
	if (WIFSIGNALED(status))
		log_warning("worker %d was killed by signal %d (%s)%s",
		    (int)pid, WTERMSIG(status), strsignal(WTERMSIG(status)),
		    next);
	else if (WEXITSTATUS(status) != 0)
		log_warning("worker %d ended with status %d%s", (int)pid,
		    WEXITSTATUS(status), next);
	else
		log_debug("worker %d ended%s", (int)pid, next);
}

static void
reap(struct master *m)
{
	struct service *sv;
	int status;
	size_t i;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		stats_reaped(&m->stats, pid, status);
		for (sv = upgrade_tried(m, pid, status) ? NULL : m->live;
		    sv != NULL; sv = sv->older)
			for (i = 0; i < sv->nseats; i++)
				if (sv->seats[i].pid == pid)
					worker_ended(m, sv, &sv->seats[i],
					    status);
	}
}

/* Those that all have left, and what the C library would keep of them. */
static void
free_services(struct master *m)
{
	struct service *sv, **link = &m->live->older;

	while ((sv = *link) != NULL) {
		if (sv->nworkers == 0) {
			*link = sv->older;
			repeats_end(sv, 1);
			service_free(sv);
			malloc_trim(0);
		} else
			link = &sv->older;
	}
}

static void
signal_workers(const struct service *sv, int sig)
{
	size_t i;

	for (i = 0; i < sv->nseats; i++)
		if (sv->seats[i].pid != 0)
			kill(sv->seats[i].pid, sig);
}

/* Its workers are to be gone after as long; a deadline is never put off. */
static void
expect_end(struct service *sv, int64_t ms)
{
	int64_t deadline = clock_ms() + ms + GRACE_MS;

	if (deadline < sv->deadline)
		sv->deadline = deadline;
}

/* Have its workers leave.  Connections may finish within ms; 0: no limit. */
static void
retire(struct service *sv, int64_t ms)
{
	struct order o = { .what = DRAIN, .ms = ms };
	size_t i;

	if (ms != 0)
		expect_end(sv, ms);
	for (i = 0; i < sv->nseats; i++)
		if (sv->seats[i].pid != 0 &&
		    tell_worker(&sv->seats[i], &o, -1) == -1)
			kill(sv->seats[i].pid, SIGTERM);
}

/* The same, and connections are cut. */
static void
cut(struct service *sv)
{
	expect_end(sv, 0);
	signal_workers(sv, SIGQUIT);
}

/* Workers of all generations are to log where the master does now. */
static void
tell_log(const struct master *m)
{
	const struct service *sv;
	size_t i;
	int fd;
	struct order o = log_order(&fd);

	for (sv = m->live; sv != NULL; sv = sv->older)
		for (i = 0; i < sv->nseats; i++)
			if (sv->seats[i].pid != 0 &&
			    tell_worker(&sv->seats[i], &o, fd) == -1 &&
			    errno == EAGAIN)
				log_warning("worker %d does not hear of the "
				    "log", (int)sv->seats[i].pid);
}

static uint64_t
count_live(const struct service *sv)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < sv->nslots; i++)
		n += sv->counts[i].live;
	return n;
}

/* Of all generations before; whom a new configuration does not concern. */
static void
tell_remaining(const struct service *old)
{
	uint64_t n = count_live(old), more = 0;
	char text[TEXT_SIZE] = "";

	while ((old = old->older) != NULL)
		more += count_live(old);
	if (more > 0)
		snprintf(text, sizeof(text), ", and %llu under earlier ones",
		    (unsigned long long)more);
	if (n + more > 0)
		log_notice("%llu connection%s continue%s under the previous "
		    "configuration%s", (unsigned long long)n,
		    n == 1 ? "" : "s", n == 1 ? "s" : "", text);
}

/*
 * What the master keeps of a generation that leaves: its memory, and a seat
 * for each worker that is left: process, line, and slot.
 */
static void
let_go(struct service *sv)
{
	struct seat *seats;
	size_t i, n = 0;

	for (i = 0; i < sv->nseats; i++)
		if (sv->seats[i].pid != 0)
			sv->seats[n++] = sv->seats[i];
	sv->nseats = n;
	if (n > 0 && (seats = realloc(sv->seats, n * sizeof(*seats))) != NULL)
		sv->seats = seats;
	service_close(sv);
	malloc_trim(0);
}

/* Those who should have left, and did not. */
static void
kill_late(struct master *m)
{
	struct service *sv;
	size_t i;

	for (sv = m->live; sv != NULL; sv = sv->older) {
		if (sv->deadline > clock_ms())
			continue;
		sv->deadline = INT64_MAX;
		for (i = 0; i < sv->nseats; i++)
			if (sv->seats[i].pid != 0)
				log_warning("worker %d does not leave: "
				    "killed", (int)sv->seats[i].pid);
		signal_workers(sv, SIGKILL);
	}
}

/* What is new, or gone. */
static void
tell_listeners(const struct service *sv, const struct service *old)
{
	size_t i;

	for (i = 0; old != NULL && i < old->nlisteners; i++)
		if (!old->listeners[i].kept)
			log_notice("no longer listening on %s",
			    old->listeners[i].bound.text);
	for (i = 0; i < sv->nlisteners; i++)
		if (!sv->listeners[i].kept)
			log_notice("listening on %s",
			    sv->listeners[i].bound.text);
}

static void
warn_daily(struct master *m)
{
	if (m->live->tls != NULL)
		tls_config_warn(m->live->tls, say_warning);
	m->warn_at = clock_ms() + DAY * INT64_C(1000);
}

/* What an administrator should know: what is new, and what is wrong. */
static void
announce(const struct service *sv, const struct service *old)
{
	char text[LOG_SIZE];

	tell_listeners(sv, old);
	kernel_text(&sv->kernel, text, sizeof(text));
	if (old == NULL)
		log_at(sv->kernel.can != 0 ? LEVEL_INFO : LEVEL_DEBUG, "%s",
		    text);
	if (old == NULL && sv->uid == 0)
		log_notice("workers keep the user root (user names another)");
	if (old == NULL && sv->cfg.number[SANDBOX] == 1) {
		if (sv->cfg.command != NULL)
			log_notice("sandbox: a command needs the system, so "
			    "the workers that run it are not confined");
		else if (sandbox_lacks() != NULL)
			log_notice("sandbox: %s", sandbox_lacks());
	}
	check_files(sv, LEVEL_WARNING);
	warn_of_readers(sv);
}

static void
say_version(void)
{
	log_notice("tunnel %s, %s", VERSION, tls_version());
}

static void
notify_ready(const struct master *m, const char *but)
{
	const struct service *sv = m->live;

	if (sv->cfg.number[MODE] == FORK)
		notify(m, "READY=1\nSTATUS=serving, a process for each "
		    "connection%s", but);
	else
		notify(m, "READY=1\nSTATUS=serving, %zu worker%s%s",
		    sv->nseats, sv->nseats == 1 ? "" : "s", but);
}

/* What can't be changed while it runs. */
static void
warn_of_fixed(const struct service *sv, const struct service *old)
{
	static const int fixed[] = { DAEMON, PIDFILE };
	size_t i;

	for (i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
		const char *a = config_text(&old->cfg, fixed[i]);
		const char *b = config_text(&sv->cfg, fixed[i]);

		if (strcmp(a != NULL ? a : "", b != NULL ? b : "") != 0)
			log_warning("%s: %s changes with the next start alone",
			    config_where(&sv->cfg, fixed[i]),
			    options[fixed[i]].name);
	}
}

/* Take all back: listeners that are its own, and workers that never began. */
static void
give_up(struct master *m, struct service *sv)
{
	close_listeners(sv, 1);
	keep_none(m->live);
	hang_up(sv);
	cut(sv);
	sv->older = m->live->older;
	m->live->older = sv;
	let_go(sv);
}

/* What the master itself does for a service. */
static void
prepare(const struct service *sv)
{
	raise_limit(sv);
	if (sv->cfg.number[SANDBOX] == 1)
		hide();
}

/*
 * The keys for tickets: those of a file as they are now, or another one from
 * time to time, while the one before is good still.
 */
static int
renew_keys(struct master *m)
{
	const struct service *sv = m->live;
	const char *why;

	m->renew_at = INT64_MAX;
	if (sv->pool == NULL)
		return 0;
	if (sv->cfg.given[TICKET_KEYS] == NULL)
		m->renew_at = clock_ms() + sv->cfg.number[TICKET_LIFETIME] / 2;
	if ((why = tls_config_renew(sv->tls)) == NULL)
		return 0;
	log_error("session tickets: %s", why);
	return -1;
}

/* After a reload: keys that were made here go on, until their time is up. */
static void
take_over_keys(struct master *m, const struct service *old)
{
	const struct service *sv = m->live;
	int64_t next = clock_ms() + sv->cfg.number[TICKET_LIFETIME] / 2;

	if (sv->cfg.given[TICKET_KEYS] != NULL ||
	    old->cfg.given[TICKET_KEYS] != NULL || old->pool == NULL)
		renew_keys(m);
	else if (next < m->renew_at)
		m->renew_at = next;
}

/*
 * At a reload.  Those of earlier ones were told before, and are told again only
 * if it may be sooner for them now.
 */
static void
retire_all(struct service *old, int64_t ms)
{
	retire(old, ms);
	while ((old = old->older) != NULL && ms != 0)
		retire(old, ms);
}

/* All that is new is made, and is ready to serve; only then the old leaves. */
static int
replace(struct master *m)
{
	struct service *old = m->live, *sv;

	if ((sv = service_new(m->args, old)) == NULL)
		return -1;
	sv->older = old;
	prepare(sv);
	if (open_listeners(sv, old) == -1 || log_open(sv) == -1 ||
	    start_workers(m, sv) == -1) {
		give_up(m, sv);
		return -1;
	}
	warn_of_fixed(sv, old);
	announce(sv, old);
	close_listeners(old, 1);
	tune_kept(sv);
	keep_none(sv);
	m->live = sv;
	warn_daily(m);
	m->stats.generation++;
	m->stats.write_at = 0;
	take_over_keys(m, old);
	if (sv->cfg.number[MODE] == POLL)
		drop_waiting(m);
	begin(sv);
	retire_all(old, sv->cfg.number[RELOAD_TIMEOUT]);
	await_end_of_accepting(old);
	tell_remaining(old);
	let_go(old);
	return 0;
}

static void
reload(struct master *m)
{
	log_open(m->live);
	log_notice("reloading");
	notify(m, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	if (replace(m) == 0) {
		log_notice("reloaded");
		notify_ready(m, "");
	} else {
		log_open(m->live);
		log_error("not reloaded: all stays as it was");
		notify_ready(m, "; the last reload failed, see the log");
	}
	tell_log(m);
}

/* mode = fork: see accept_last(). */
static void
serve_last(struct master *m)
{
	const struct service *sv = m->live;
	int64_t until = clock_ms() + LAST_MS;
	size_t i;

	for (i = 0; i < sv->nlisteners; i++)
		while (sv->listeners[i].address != NULL && may_serve(m) &&
		    !is_full(sv) && clock_ms() < until &&
		    accept_one(m, sv->listeners[i].fd))
			serve_waiting(m);
}

static void
stop(struct master *m, int at_once)
{
	int64_t ms = m->live->cfg.number[DRAIN_TIMEOUT];
	struct service *sv;

	log_notice(at_once ? "stopping at once" :
	    "stopping, connections may finish");
	notify(m, "STOPPING=1");
	serve_waiting(m);
	if (!at_once && m->waiting.fd == -1)
		serve_last(m);
	m->live->shared->stops = 1;
	close_listeners(m->live, 1);
	drop_waiting(m);
	m->stopping = 1;
	for (sv = m->live; sv != NULL; sv = sv->older) {
		if (at_once)
			cut(sv);
		else
			retire(sv, ms);
	}
}

/* SIGUSR1: the sum here, and each worker has its connections listed. */
static void
tell(struct master *m)
{
	const struct service *sv;

	stats_say(&m->stats, m->live);
	m->stats.write_at = 0;
	for (sv = m->live; sv != NULL; sv = sv->older)
		signal_workers(sv, SIGUSR1);
}

/*
 * THE UPGRADE
 * At SIGUSR2 the file that this program was started from, which may be another
 * by now, is tried with -t, and then takes the place of this one by execve(2).
 * It is the same process: the workers are its children still.  All that it
 * can't find out by itself is handed over in a file in memory.  To it, that is
 * the service before a reload: its workers leave when others are ready.  If
 * these don't get there, the program before is started again by a descriptor,
 * with the same file, and goes on.
 */

#if defined(__linux__)

/*
 * Another one with each change of what is carried, of what lies in memory that
 * processes share, and of orders to workers, which stay what they were.
 */
#define HANDOVER	"tunnel handover 1"
#define HANDOVER_MAX	(64 << 20)

/* What is being written or, the other way, read: by the same functions. */
struct parcel {
	int	 reads;
	unsigned char *p;
	size_t	 size, at;
	int	*fds;			/* that are handed over */
	size_t	 nfds;
	const char *bad;		/* why it is of no use; or NULL */
};

/* Room for as many bytes more, and nothing left of where they were. */
static void
parcel_grow(struct parcel *x, size_t len)
{
	size_t size = 2 * x->size + len;
	unsigned char *p = malloc(size);

	if (p == NULL) {
		x->bad = "out of memory";
		return;
	}
	if (x->p != NULL) {
		memcpy(p, x->p, x->at);
		explicit_bzero(x->p, x->at);
	}
	free(x->p);
	x->p = p;
	x->size = size;
}

static void
carry(struct parcel *x, void *data, size_t len)
{
	if (x->bad == NULL && len > x->size - x->at) {
		if (x->reads)
			x->bad = "it is too short";
		else
			parcel_grow(x, len);
	}
	if (x->bad != NULL || x->p == NULL)
		return;
	if (x->reads)
		memcpy(data, x->p + x->at, len);
	else
		memcpy(x->p + x->at, data, len);
	x->at += len;
}

static void
carry_number(struct parcel *x, int64_t *n, int64_t min, int64_t max)
{
	carry(x, n, sizeof(*n));
	if (x->bad == NULL && (*n < min || *n > max))
		x->bad = "a number is out of range";
	if (x->bad != NULL && x->reads)
		*n = min;
}

static void
carry_int(struct parcel *x, int *n, int min, int max)
{
	int64_t number = *n;

	carry_number(x, &number, min, max);
	*n = (int)number;
}

static void
carry_size(struct parcel *x, size_t *n, size_t max)
{
	int64_t number = (int64_t)*n;

	carry_number(x, &number, 0, (int64_t)max);
	*n = (size_t)number;
}

/* A descriptor, or -1.  The standard ones are there anyway. */
static void
carry_fd(struct parcel *x, int *fd)
{
	int *fds;

	carry_int(x, fd, -1, INT_MAX);
	if (x->bad != NULL && x->reads)
		*fd = -1;
	if (x->bad != NULL || *fd <= STDERR_FILENO)
		return;
	fds = realloc(x->fds, (x->nfds + 1) * sizeof(*fds));
	if (fds == NULL) {
		x->bad = "out of memory";
		return;
	}
	x->fds = fds;
	x->fds[x->nfds++] = *fd;
	if (x->reads && fcntl(*fd, F_SETFD, FD_CLOEXEC) == -1)
		x->bad = "a descriptor is not open";
}

/* Allocated, where it is read; or NULL. */
static void
carry_text(struct parcel *x, char **text)
{
	char *p = x->reads ? NULL : *text;
	int64_t len = p != NULL ? (int64_t)strlen(p) : -1;

	carry_number(x, &len, -1, HANDOVER_MAX);
	*text = p;
	if (x->bad != NULL || len == -1)
		return;
	if (x->reads && (size_t)len > x->size - x->at)
		x->bad = "it is too short";
	else if (p == NULL && (p = calloc(1, (size_t)len + 1)) == NULL)
		x->bad = "out of memory";
	else
		carry(x, p, (size_t)len);
	if (p != NULL && x->bad == NULL && strlen(p) != (size_t)len)
		x->bad = "a text is none";
	*text = p;
}

/* With a NULL behind them.  Allocated, where they are read. */
static void
carry_texts(struct parcel *x, char ***texts)
{
	char **p = x->reads ? NULL : *texts;
	size_t i, n = 0;

	while (p != NULL && p[n] != NULL)
		n++;
	carry_size(x, &n, HANDOVER_MAX / sizeof(*p));
	if (p == NULL && (p = calloc(n + 1, sizeof(*p))) == NULL) {
		x->bad = "out of memory";
		return;
	}
	*texts = p;
	for (i = 0; i < n && x->bad == NULL; i++)
		carry_text(x, &p[i]);
}

static void
free_texts(char **texts)
{
	size_t i;

	for (i = 0; texts != NULL && texts[i] != NULL; i++)
		free(texts[i]);
	free(texts);
}

static void
carry_address(struct parcel *x, struct address *a)
{
	int64_t len = a->len;

	carry(x, &a->sa, sizeof(a->sa));
	carry_number(x, &len, 0, sizeof(a->sa));
	a->len = (socklen_t)len;
	if (x->reads)
		address_text(a);
}

static void
carry_listener(struct parcel *x, struct listener *l, struct target *t)
{
	int is_named = l->address != NULL;

	carry_fd(x, &l->fd);
	carry_int(x, &t->fd, -1, INT_MAX);
	carry_int(x, &t->any, 0, 1);
	carry_int(x, &is_named, 0, 1);
	if (x->reads) {
		l->target = t;
		l->address = is_named ? t->addrs : NULL;
	}
	if (is_named)
		carry_address(x, t->addrs);
	carry_address(x, &l->bound);
	carry(x, &l->file, sizeof(l->file));
	if (x->bad == NULL && !is_listening(l->fd))
		x->bad = "a descriptor is not a listening socket";
}

static void
carry_listeners(struct parcel *x, struct service *sv)
{
	size_t i;

	carry_size(x, &sv->nlisteners, FORWARD_LISTENERS);
	if (x->reads) {
		sv->accepts.n = sv->nlisteners;
		sv->accepts.list = calloc(sv->nlisteners + 1,
		    sizeof(*sv->accepts.list));
	}
	for (i = 0; i < sv->nlisteners && x->bad == NULL; i++) {
		struct listener *l = &sv->listeners[i];
		struct target t;

		if (x->reads && sv->accepts.list == NULL) {
			x->bad = "out of memory";
			return;
		}
		if (x->reads) {
			carry_listener(x, l, &sv->accepts.list[i]);
			continue;
		}
		t = *l->target;
		if (l->address != NULL)
			t.addrs[0] = *l->address;
		carry_listener(x, l, &t);
	}
}

static void
carry_value(struct parcel *x, struct config *cfg, int option, struct value v)
{
	char *name = x->reads ? NULL : strdup(options[option].name);

	carry_text(x, &name);
	carry_text(x, &v.where);
	carry_text(x, &v.text);
	carry_int(x, &v.rank, 0, FROM_ARGUMENT);
	if (x->bad == NULL && (name == NULL || v.where == NULL ||
	    v.text == NULL))
		x->bad = "a value has no name";
	if (x->reads) {
		if (x->bad == NULL && (option = option_find(name)) != -1)
			values_add(&cfg->given[option], v.rank, v.where,
			    v.text);
		free(v.where);
		free(v.text);
	}
	free(name);
}

/*
 * What was given, as it was: it is for the same program to parse, should it
 * come to that.  Another one knows by it what has changed.
 */
static void
carry_values(struct parcel *x, struct config *cfg)
{
	const struct value *v;
	size_t n = 0;
	int i;

	for (i = 0; i < OPTIONS; i++)
		n += values_count(cfg->given[i]);
	carry_size(x, &n, HANDOVER_MAX);
	if (x->reads) {
		for (; n > 0 && x->bad == NULL; n--)
			carry_value(x, cfg, -1, (struct value){ .rank = 0 });
		return;
	}
	for (i = 0; i < OPTIONS; i++)
		for (v = cfg->given[i]; v != NULL; v = v->next)
			carry_value(x, cfg, i, *v);
}

/* It is ours, and if it has ended, it waits for us to see that. */
static void
carry_seat(struct parcel *x, struct seat *seat, size_t nslots)
{
	size_t slot = seat->slot;
	siginfo_t info;

	carry_int(x, &seat->pid, 1, INT_MAX);
	carry_fd(x, &seat->line);
	carry_size(x, &slot, nslots - 1);
	seat->slot = (uint32_t)slot;
	carry_int(x, &seat->begun, 0, 1);
	carry_number(x, &seat->drop_at, 0, INT64_MAX);
	if (x->bad == NULL && waitid(P_PID, (id_t)seat->pid, &info,
	    WEXITED | WNOHANG | WNOWAIT) == -1)
		x->bad = "a worker is not ours";
}

static void
carry_seats(struct parcel *x, struct service *sv)
{
	size_t i, n = sv->nworkers;

	carry_size(x, &n, sv->nseats);
	for (i = 0; i < sv->nseats && n > 0 && x->bad == NULL; i++, n--) {
		while (!x->reads && sv->seats[i].pid == 0)
			i++;
		carry_size(x, &i, sv->nseats - 1);
		if (x->bad == NULL && x->reads && sv->seats[i].pid != 0)
			x->bad = "a seat is taken twice";
		if (x->bad == NULL)
			carry_seat(x, &sv->seats[i], sv->nslots);
		if (x->reads)
			sv->nworkers++;
	}
	if (x->bad == NULL && n > 0)
		x->bad = "there are too many workers";
}

/* Does a descriptor stand for memory of this size? */
static void
check_shared(struct parcel *x, int fd, size_t size)
{
	struct stat st;

	if (x->bad == NULL && (fd == -1 || fstat(fd, &st) == -1 ||
	    st.st_size != (off_t)size))
		x->bad = "shared memory is of another size";
}

/* That memory; or MAP_FAILED. */
static void *
map_shared(struct parcel *x, int fd, size_t size)
{
	void *p;

	check_shared(x, fd, size);
	if (x->bad != NULL)
		return MAP_FAILED;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		x->bad = strerror(errno);
	return p;
}

/* As read: that of another service, or a new one for its memory. */
static struct pool *
pool_take(struct parcel *x, const struct master *m, const struct pool *like)
{
	const struct service *sv;
	struct pool *p;

	for (sv = m->live; sv != NULL; sv = sv->older) {
		if (sv->pool != NULL && sv->pool->fd == like->fd) {
			sv->pool->services++;
			return sv->pool;
		}
	}
	if ((p = calloc(1, sizeof(*p))) == NULL) {
		x->bad = "out of memory";
		return NULL;
	}
	*p = *like;
	p->services = 1;
	p->size = tls_sessions_size(p->entries, p->with_clients);
	p->memory = map_shared(x, p->fd, p->size);
	if (x->bad == NULL && (p->sessions = tls_sessions_new(p->memory,
	    p->entries, p->with_clients)) == NULL)
		x->bad = "out of memory";
	return p;
}

static void
carry_pool(struct parcel *x, const struct master *m, struct service *sv)
{
	struct pool p = { .fd = -1 };
	int is_there = sv->pool != NULL;

	if (is_there)
		p = *sv->pool;
	carry_int(x, &is_there, 0, 1);
	if (!is_there)
		return;
	carry_fd(x, &p.fd);
	carry_size(x, &p.entries, 1000000);
	carry_int(x, &p.with_clients, 0, 1);
	if (!x->reads)
		check_shared(x, p.fd, p.size);
	else if (x->bad == NULL)
		sv->pool = pool_take(x, m, &p);
}

/* What the master has to know of a generation, to look after it. */
static void
carry_service(struct parcel *x, const struct master *m, struct service *sv)
{
	static const int numbers[] = {
		MODE, DRAIN_TIMEOUT, MAX_CONNECTIONS
	};
	size_t i;

	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		carry_number(x, &sv->cfg.number[numbers[i]], 0, INT64_C(1) <<
		    40);
	carry_size(x, &sv->nslots, 1000000);
	if (x->bad == NULL && sv->nslots == 0)
		x->bad = "a number is out of range";
	carry_size(x, &sv->nseats, sv->nslots);
	carry_number(x, &sv->deadline, 0, INT64_MAX);
	carry(x, &sv->secret, sizeof(sv->secret));
	carry_fd(x, &sv->shared_fd);
	if (x->reads) {
		measure_shared(sv, 0);
		sv->shared = map_shared(x, sv->shared_fd, sv->shared_size);
		sv->seats = calloc(sv->nseats + 1, sizeof(*sv->seats));
		if (x->bad == NULL && sv->seats == NULL)
			x->bad = "out of memory";
		if (x->bad == NULL)
			lay_out(sv);
	} else
		check_shared(x, sv->shared_fd, sv->shared_size);
	if (x->bad == NULL)
		carry_seats(x, sv);
	if (x->bad == NULL)
		carry_pool(x, m, sv);
}

static void
carry_services(struct parcel *x, struct master *m)
{
	struct service *sv, **link = &m->live;
	size_t n = 0;

	for (sv = m->live; sv != NULL; sv = sv->older)
		n++;
	carry_size(x, &n, HANDOVER_MAX);
	for (; n > 0 && x->bad == NULL; n--) {
		if (*link == NULL)
			*link = service_alloc(m->args);
		if ((sv = *link) == NULL) {
			x->bad = "out of memory";
			return;
		}
		carry_service(x, m, sv);
		link = &sv->older;
	}
	if (x->bad == NULL && m->live == NULL)
		x->bad = "there is no service";
	if (x->bad != NULL)
		return;
	carry_listeners(x, m->live);
	carry_values(x, &m->live->cfg);
}

/* To go on where the other one logged, by a descriptor of our own. */
static void
log_again(struct master *m)
{
	int fd = m->upgrade.log;

	if (fd == -1)
		log_connect_syslog();
	else if (fd > STDERR_FILENO)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	log_to(fd, logging.stream);
}

static void
carry_log(struct parcel *x, struct master *m)
{
	int level = (int)logging.level, fd = logging.fd;

	if (x->bad != NULL)
		return;
	carry_fd(x, &fd);
	carry_int(x, &logging.stream, -1, STDERR_FILENO);
	carry_int(x, &logging.has_time, 0, 1);
	carry_int(x, &logging.is_ours, 0, 1);
	carry_int(x, &logging.is_journal, 0, 1);
	carry_int(x, &logging.is_daemon, 0, 1);
	carry_int(x, &level, LEVEL_ERROR, LEVEL_DEBUG);
	carry(x, &logging.lost, sizeof(logging.lost));
	carry(x, &logging.why, sizeof(logging.why));
	carry_int(x, &logging.is_cut, 0, 1);
	logging.level = (enum log_level)level;
	if (!x->reads)
		return;
	m->upgrade.log = fd;
	if (x->bad == NULL)
		log_again(m);
}

/* How to start the program again, which a script may have changed since. */
static void
carry_start(struct parcel *x, struct upgrade *u)
{
	char text[sizeof(HANDOVER)] = HANDOVER;

	carry(x, text, sizeof(text));
	if (x->bad == NULL && memcmp(text, HANDOVER, sizeof(text)) != 0)
		x->bad = "it is of another version";
	carry_text(x, &u->path);
	carry_texts(x, &u->argv);
	carry_texts(x, &u->env);
	if (x->bad == NULL && (u->path == NULL || *u->argv == NULL))
		x->bad = "it has no program";
}

/* A reload may name one that is of no use now. */
static void
carry_passed(struct parcel *x, struct arguments *a)
{
	int i, fd;

	carry_int(x, &a->passed, 0, FORWARD_LISTENERS);
	for (i = 0; i < a->passed; i++) {
		fd = x->reads || !is_listening(PASSED + i) ? -1 : PASSED + i;
		carry_fd(x, &fd);
	}
}

/* Counters go on, and the file is known, should it have another name now. */
static void
carry_stats(struct parcel *x, struct stats *st)
{
	int64_t began_at = st->began_at;
	int generation = (int)st->generation;

	carry_number(x, &st->began, 0, INT64_MAX);
	carry_number(x, &began_at, 0, INT64_MAX);
	carry_int(x, &generation, 1, INT_MAX);
	carry(x, &st->ended, sizeof(st->ended));
	carry_int(x, &st->failed, 0, 1);
	carry_text(x, &st->file);
	st->began_at = (time_t)began_at;
	st->generation = (unsigned)generation;
}

static void
carry_master(struct parcel *x, struct master *m, struct arguments *a)
{
	carry_start(x, &m->upgrade);
	carry_int(x, &m->pid, 1, INT_MAX);
	if (x->bad == NULL && m->pid != getpid())
		x->bad = "it is another process's (a script must use exec)";
	carry_log(x, m);
	carry(x, &a->files, sizeof(a->files));
	carry(x, &a->core, sizeof(a->core));
	carry_passed(x, a);
	carry_number(x, &a->watchdog, 0, INT64_MAX);
	carry_fd(x, &m->pidfile);
	carry_text(x, &m->pidfile_name);
	carry_fd(x, &m->waiting.fd);
	carry_number(x, &m->renew_at, 0, INT64_MAX);
	carry_number(x, &m->warn_at, 0, INT64_MAX);
	carry_stats(x, &m->stats);
	if (x->bad == NULL)
		carry_services(x, m);
	if (x->bad == NULL && x->reads && x->at != x->size)
		x->bad = "it is too long";
}

/* Handed over, or (FD_CLOEXEC) not. */
static void
parcel_expose(const struct parcel *x, int flag)
{
	size_t i;

	for (i = 0; i < x->nfds; i++)
		fcntl(x->fds[i], F_SETFD, flag);
}

static void
parcel_free(struct parcel *x)
{
	if (x->reads && x->p != NULL)
		munmap(x->p, x->size);
	if (!x->reads && x->p != NULL) {
		explicit_bzero(x->p, x->at);
		free(x->p);
	}
	free(x->fds);
}

/* What was written, as a file that nobody can change; -1 with errno. */
static int
parcel_seal(const struct parcel *x)
{
	int fd = memory_file();

	if (fd != -1 && (write(fd, x->p, x->at) != (ssize_t)x->at ||
	    memory_seal(fd, 0) == -1))
		return close_failed(fd);
	return fd;
}

/* Such a file, to be read. */
static void
parcel_open(struct parcel *x, int fd)
{
	int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	*x = (struct parcel){ .reads = 1 };
	if (seals == -1 || (seals & sealed) != sealed)
		x->bad = "it is not sealed";
	else if (fstat(fd, &st) == -1 || st.st_size > HANDOVER_MAX)
		x->bad = "it is too long";
	else if ((p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE,
	    fd, 0)) == MAP_FAILED)
		x->bad = strerror(errno);
	else {
		x->p = p;
		x->size = (size_t)st.st_size;
	}
}

/*
 * The path that this program was started by, for good: what is there later may
 * be another file.  It is no link's target, which may be an older version.
 */
static char *
find_program(const char *name)
{
	static const char self[] = "/proc/self/exe";
	char path[PATH_MAX] = "", own[PATH_MAX] = "";
	struct stat a, b;
	int n = 0;

	if (strchr(name, '/') == NULL)
		find_runnable(name, path, sizeof(path));
	else if (name[0] == '/' || getcwd(own, sizeof(own)) != NULL)
		n = snprintf(path, sizeof(path), "%s%s%s", own,
		    name[0] == '/' ? "" : "/", name);
	if (n >= (int)sizeof(path))
		path[0] = '\0';
	if (stat(self, &a) == 0 && (stat(path, &b) == -1 ||
	    a.st_dev != b.st_dev || a.st_ino != b.st_ino)) {
		memset(own, 0, sizeof(own));
		if (readlink(self, own, sizeof(own) - 1) != -1)
			return strdup(own);
	}
	return strdup(path);
}

/* At the start, while all is as it was then. */
static void
upgrade_init(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	u->log = u->output = u->answer = -1;
	u->path = find_program(m->args->argv[0]);
	u->argv = m->args->argv;
	u->env = environ;
	u->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static void
upgrade_free(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	free(u->path);
	if (u->argv != m->args->argv) {
		free_texts(u->argv);
		free_texts(u->env);
	}
	if (u->program != -1)
		close(u->program);
}

/* In a child: what is of no use to it. */
static void
upgrade_leave(const struct master *m)
{
	const int fds[] = { m->upgrade.program, m->upgrade.output,
	    m->upgrade.answer, m->upgrade.log, m->args->state,
	    m->args->before };
	size_t i;

	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] > STDERR_FILENO)
			close(fds[i]);
}

/* The environment, and in it the numbers of these; NULL: no memory. */
static char **
environment(char **from, int state, int before)
{
	static char texts[2][32];
	char **env;
	size_t n = 0;

	while (from[n] != NULL)
		n++;
	if ((env = calloc(n + 3, sizeof(*env))) == NULL)
		return NULL;
	memcpy(env, from, n * sizeof(*env));
	snprintf(texts[0], sizeof(texts[0]), "TUNNEL_STATE=%d", state);
	snprintf(texts[1], sizeof(texts[1]), "TUNNEL_BEFORE=%d", before);
	env[n] = texts[0];
	env[n + 1] = before != -1 ? texts[1] : NULL;
	return env;
}

/*
 * What a program that is tried has to leave, or it is not one that could take
 * over, or not in this process.
 */
struct answer {
	char	 version[sizeof(HANDOVER)];
	pid_t	 pid;
};

static int
upgrade_answer(int fd)
{
	struct answer a = { .version = HANDOVER, .pid = getpid() };

	return write(fd, &a, sizeof(a)) == sizeof(a) ? 0 : -1;
}

/* Why this is not the answer of a process; or NULL. */
static const char *
find_fault(int fd, pid_t pid)
{
	struct answer a = { .pid = 0 };

	if (pread(fd, &a, sizeof(a), 0) != sizeof(a))
		return "it can't take over: it is another program, or one "
		    "from before there were upgrades";
	if (memcmp(a.version, HANDOVER, sizeof(a.version)) != 0)
		return "it can't take over from this version: a restart is "
		    "needed";
	return a.pid == pid ? NULL : "it can't take over: it is run in "
	    "another process (a script must use exec)";
}

/* In the child: the program, as it would be started, but with -t. */
static void __attribute__((noreturn))
try_main(const struct master *m)
{
	static char letter[] = "-t";
	const struct upgrade *u = &m->upgrade;
	char **argv, pid[32];
	int fd, n = 0;

	while (u->argv[n] != NULL)
		n++;
	if ((argv = calloc((size_t)n + 2, sizeof(*argv))) == NULL)
		_exit(127);
	argv[0] = u->argv[0];
	argv[1] = letter;
	memcpy(argv + 2, u->argv + 1, (size_t)n * sizeof(*argv));
	if ((environ = environment(u->env, u->answer, -1)) == NULL)
		_exit(127);
	fcntl(u->answer, F_SETFD, 0);
	for (fd = PASSED; fd < PASSED + m->args->passed; fd++)
		fcntl(fd, F_SETFD, 0);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (m->args->passed > 0)
		setenv("LISTEN_PID", pid, 1);
	close(STDIN_FILENO);	/* or there might be no number left */
	open("/dev/null", O_RDWR);
	dup2(STDIN_FILENO, STDOUT_FILENO);
	dup2(u->output, STDERR_FILENO);
	sigprocmask(SIG_SETMASK, &m->asleep, NULL);
	execv(u->path, argv);
	dprintf(STDERR_FILENO, "error: %s\n", strerror(errno));
	_exit(127);
}

/* SIGUSR2: try the new program.  The service goes on meanwhile. */
static void
upgrade_try(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	if (u->trial != 0) {
		log_notice("an upgrade has begun already");
		return;
	}
	u->trial = -1;
	errno = ENOENT;
	if (u->path != NULL && u->program != -1 &&
	    (u->output = memory_file()) != -1 &&
	    (u->answer = memory_file()) != -1)
		u->trial = fork();
	if (u->trial == 0)
		try_main(m);
	if (u->trial == -1) {
		log_error("not upgraded: %s", strerror(errno));
		close_fd(&u->output);
		close_fd(&u->answer);
		u->trial = 0;
		return;
	}
	u->until = clock_ms() + TRIAL_MS;
	log_notice("upgrading: trying %s -t", u->path);
}

/* What the trial complained of, line by line, and not all too much. */
static void
tell_trial(const struct upgrade *u)
{
	char text[LOG_SIZE], *line, *rest = NULL, *error;
	ssize_t n = pread(u->output, text, sizeof(text) - 1, 0);
	struct stat st;

	if (n > 0 && fstat(u->output, &st) == 0 && st.st_size > n)
		while (n > 0 && text[n - 1] != '\n')
			n--;
	text[n > 0 ? n : 0] = '\0';
	for (line = strtok_r(text, "\n", &rest); line != NULL;
	    line = strtok_r(NULL, "\n", &rest)) {
		if (strstr(line, "warning: ") != NULL)
			continue;
		error = strstr(line, "error: ");
		log_error("%s -t: %s", u->path, error != NULL ? error +
		    strlen("error: ") : line);
	}
}

static void
end_trial(struct upgrade *u, pid_t pid, int status)
{
	const char *why;

	if (WIFSIGNALED(status))
		log_error("not upgraded: %s -t was killed by signal %d (%s)",
		    u->path, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != 0)
		log_error("not upgraded: %s -t failed (status %d)", u->path,
		    WEXITSTATUS(status));
	else if ((why = find_fault(u->answer, pid)) != NULL)
		log_error("not upgraded: %s: %s", u->path, why);
	else
		u->is_due = 1;
}

/* A child has ended.  Was it the trial? */
static int
upgrade_tried(struct master *m, pid_t pid, int status)
{
	struct upgrade *u = &m->upgrade;

	if (pid != u->trial)
		return 0;
	u->trial = 0;
	if (status != 0)
		tell_trial(u);
	end_trial(u, pid, status);
	close_fd(&u->output);
	close_fd(&u->answer);
	return 1;
}

/* Would it find the descriptors that it takes?  -1 with errno. */
static int
check_room(int fd)
{
	int fds[TAKEOVER_FDS], n = 0, r, saved;

	while (n < TAKEOVER_FDS && (fds[n] = fcntl(fd, F_DUPFD_CLOEXEC,
	    0)) != -1)
		n++;
	r = n == TAKEOVER_FDS ? 0 : -1;
	saved = errno;
	while (n > 0)
		close(fds[--n]);
	errno = saved;
	return r;
}

/* Become the new program, which finds all it needs; or else, go on. */
static void
hand_over(struct master *m)
{
	const struct upgrade *u = &m->upgrade;
	struct arguments a = *m->args;
	struct parcel x = { .reads = 0 };
	char **env = NULL;
	int fd = -1;

	stats_await(&m->stats);		/* or two would write */
	log_notice("upgrading: %s takes over", u->path);
	notify(m, "RELOADING=1\nMONOTONIC_USEC=%lld",
	    (long long)clock_us());
	carry_master(&x, m, &a);
	if (x.bad == NULL && (fd = parcel_seal(&x)) != -1 &&
	    check_room(fd) == 0 &&
	    (env = environment(u->env, fd, u->program)) != NULL) {
		parcel_expose(&x, 0);
		fcntl(fd, F_SETFD, 0);
		fcntl(u->program, F_SETFD, 0);
		execve(u->path, u->argv, env);
		x.bad = strerror(errno);
		parcel_expose(&x, FD_CLOEXEC);
		fcntl(u->program, F_SETFD, FD_CLOEXEC);
	}
	log_error("not upgraded: %s", x.bad != NULL ? x.bad :
	    strerror(errno));
	free(env);
	if (fd != -1)
		close(fd);
	parcel_free(&x);
	notify_ready(m, "; the last upgrade failed, see the log");
}

/* What is due by now. */
static void
upgrade_step(struct master *m)
{
	struct upgrade *u = &m->upgrade;

	if (u->trial != 0 && (m->stopping || clock_ms() >= u->until)) {
		if (!m->stopping)
			log_warning("%s -t has taken %d s: killed", u->path,
			    TRIAL_MS / 1000);
		u->until = INT64_MAX;
		kill(u->trial, SIGKILL);
	}
	if (u->is_due && !m->stopping)
		hand_over(m);
	u->is_due = 0;
}

/*
 * IN THE NEW PROGRAM, or in the one before, again.
 */

static int
compare_fds(const void *a, const void *b)
{
	const int *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* What a script has left open on the way must not get to workers. */
static void
close_others(struct parcel *x, const struct master *m,
    const struct arguments *a)
{
	const int ours[] = { m->upgrade.program, a->state, a->before,
	    logging.fd };
	size_t i, n = x->nfds, more = sizeof(ours) / sizeof(ours[0]);
	int next = PASSED, *fds = malloc((n + more) * sizeof(*fds));

	if (fds == NULL)
		return;
	memcpy(fds, ours, sizeof(ours));
	if (n > 0)
		memcpy(fds + more, x->fds, n * sizeof(*fds));
	qsort(fds, n + more, sizeof(*fds), compare_fds);
	for (i = 0; i < n + more; i++) {
		if (fds[i] > next)
			close_between((unsigned)next, (unsigned)fds[i] - 1);
		if (fds[i] >= next)
			next = fds[i] + 1;
	}
	close_between((unsigned)next, INT_MAX);
	free(fds);
	if (logging.fd == -1)
		log_connect_syslog();	/* whose socket was none of these */
}

/* All that was handed over is ours now, and there is no way back. */
static void
settle(struct master *m, struct arguments *a, struct parcel *x)
{
	parcel_free(x);
	close_fd(&a->state);
	close_fd(&a->before);
	if (m->upgrade.log > STDERR_FILENO)
		close(m->upgrade.log);
	m->upgrade.log = -1;
	got_child = 1;		/* some may have ended meanwhile */
}

/* Others leave it here, whose workers go on in it. */
static void
take_workers(struct service *sv, struct service *was)
{
	struct service made = *sv;

	sv->seats = was->seats;
	sv->nseats = was->nseats;
	sv->nslots = was->nslots;
	sv->nworkers = was->nworkers;
	sv->shared = was->shared;
	sv->shared_fd = was->shared_fd;
	sv->shared_size = was->shared_size;
	sv->counts = was->counts;
	sv->peers = was->peers;
	sv->npeers = was->npeers;
	sv->places = was->places;
	sv->secret = was->secret;
	sv->deadline = was->deadline;
	was->seats = made.seats;
	was->shared = made.shared;
	was->shared_fd = made.shared_fd;
	was->shared_size = made.shared_size;
}

/*
 * The program before: the service becomes what it was, with the workers that
 * have served all the time.  If its files are gone by now, they go on alone.
 */
static void
go_on(struct master *m, struct arguments *a)
{
	struct service *was = m->live, *sv;
	const char *name = strrchr(m->upgrade.path, '/');

	/* It would be a descriptor's number. */
	prctl(PR_SET_NAME, name != NULL ? name + 1 : m->upgrade.path, 0, 0, 0);
	a->again = &was->cfg;
	sv = service_new(a, was);
	a->again = NULL;
	if (sv == NULL || open_listeners(sv, was) == -1) {
		if (sv != NULL)
			close_listeners(sv, 1);
		service_free(sv);
		keep_none(was);
		was->retry_at = m->renew_at = INT64_MAX;
		log_error("no worker will be started before a reload is "
		    "right");
	} else {
		close_listeners(was, 1);
		keep_none(sv);
		prepare(sv);
		take_workers(sv, was);
		sv->older = was->older;
		m->live = sv;
		service_free(was);
	}
	log_error("not upgraded: all stays as it was");
	notify_ready(m, "; the last upgrade failed, see the log");
}

/*
 * Why its workers did not get there.  Of others, the program before has to see
 * the end by itself.
 */
static void
tell_failed(struct master *m, struct service *sv)
{
	int status;
	size_t i;

	signal_workers(sv, SIGKILL);
	for (i = 0; i < sv->nseats; i++)
		if (sv->seats[i].pid != 0 && waitpid(sv->seats[i].pid,
		    &status, 0) != -1 && status != 0 && status != SIGKILL)
			worker_ended(m, sv, &sv->seats[i], status);
}

/* The new program: as at a reload. */
static int
take_over(struct master *m)
{
	const struct service *older = m->live->older;

	say_version();
	if (replace(m) == 0) {
		log_notice("upgraded");
		notify_ready(m, "");
		tell_log(m);
		return 0;
	}
	log_again(m);
	if (m->live->older != older)
		tell_failed(m, m->live->older);
	return -1;
}

/* It was of no use, to the program before either. */
static void
drop_all(struct master *m)
{
	struct service *sv;

	while ((sv = m->live) != NULL) {
		m->live = sv->older;
		service_free(sv);
	}
	free(m->pidfile_name);
	upgrade_free(m);
}

/* Go on as the master that another program was; -1: that is not possible. */
static int
upgrade_end(struct master *m, struct arguments *a)
{
	struct incoming *in = &m->waiting;
	struct parcel x;

	catch_signals(&m->asleep);
	free(m->upgrade.path);
	m->upgrade.path = NULL;
	parcel_open(&x, a->state);
	carry_master(&x, m, a);
	if (x.bad != NULL)
		log_error("what the program before has handed over is of no "
		    "use: %s", x.bad);
	else
		close_others(&x, m, a);
	in->len = sizeof(in->sa);
	if (in->fd != -1 && getpeername(in->fd, (struct sockaddr *)&in->sa,
	    &in->len) == -1)
		drop_waiting(m);
	if (x.bad == NULL && a->before == -1)
		go_on(m, a);
	if (x.bad == NULL && (a->before == -1 || take_over(m) == 0)) {
		settle(m, a, &x);
		return 0;
	}
	parcel_expose(&x, 0);
	parcel_free(&x);
	if (a->before == -1)
		drop_all(m);
	return -1;
}

/* This can't take over: start the program before again, as it was started. */
static int
go_back(const struct arguments *a)
{
	struct upgrade u = { .path = NULL };
	char **env;
	struct parcel x;

	log_error("not upgraded: back to the program before");
	parcel_open(&x, a->state);
	carry_start(&x, &u);
	fcntl(a->state, F_SETFD, 0);
	env = environment(x.bad == NULL ? u.env : environ, a->state, -1);
	if (env != NULL)
		fexecve(a->before, x.bad == NULL ? u.argv : a->argv, env);
	log_error("it can't be started: %s", strerror(errno));
	free(env);
	free(u.path);
	free_texts(u.argv);
	free_texts(u.env);
	parcel_free(&x);
	return EXIT_FAILURE;
}

#else

static void
upgrade_init(struct master *m)
{
	m->upgrade.program = m->upgrade.log = -1;
	m->upgrade.output = m->upgrade.answer = -1;
}

static void
upgrade_free(struct master *m)
{
	(void)m;
}

static void
upgrade_leave(const struct master *m)
{
	(void)m;
}

static void
upgrade_try(struct master *m)
{
	(void)m;
	log_error("not upgraded: this system has no files in memory "
	    "(memfd_create) to hand things over in");
}

static int
upgrade_tried(struct master *m, pid_t pid, int status)
{
	(void)m;
	(void)pid;
	(void)status;
	return 0;
}

static void
upgrade_step(struct master *m)
{
	(void)m;
}

static int
upgrade_answer(int fd)
{
	(void)fd;
	return 0;
}

static int
upgrade_end(struct master *m, struct arguments *a)
{
	(void)m;
	(void)a;
	log_error("nothing can be handed over on this system");
	return -1;
}

static int
go_back(const struct arguments *a)
{
	(void)a;
	return EXIT_FAILURE;
}

#endif

/*
 * THE LOOP OF THE MASTER
 */

/* mode = poll: a worker that is missing, or whose loop is stuck; or NULL. */
static const struct seat *
find_lifeless(const struct master *m)
{
	const struct service *sv = m->live;
	uint64_t now = (uint64_t)clock_ms();
	size_t i;

	for (i = 0; i < sv->nseats && sv->cfg.number[MODE] == POLL; i++) {
		const struct seat *seat = &sv->seats[i];

		if (seat->pid == 0 || now - sv->counts[seat->slot].beat >=
		    (uint64_t)m->args->watchdog)
			return seat;
	}
	return NULL;
}

/*
 * systemd's watchdog: a sign of life, twice in the time it allows.  In fork
 * mode it is the master's alone: what a worker does is one connection's affair.
 */
static void
beat(struct master *m)
{
	const struct seat *seat = m->stopping ? NULL : find_lifeless(m);

	m->beat_at = clock_ms() + m->args->watchdog / 2;
	if (seat == NULL)
		notify(m, "WATCHDOG=1");
	else if (seat->pid == 0)
		log_at(m->is_silent ? LEVEL_DEBUG : LEVEL_WARNING,
		    "watchdog: a worker is "
		    "missing, so WATCHDOG=1 is not sent");
	else
		log_at(m->is_silent ? LEVEL_DEBUG : LEVEL_WARNING,
		    "watchdog: worker %d "
		    "stands still, so WATCHDOG=1 is not sent",
		    (int)seat->pid);
	m->is_silent = seat != NULL;
}

/* To the next thing that is due. */
static int
sleep_ms(const struct master *m)
{
	const struct service *sv = m->live;
	int64_t now = clock_ms(), until = INT64_MAX, due;

	if (!m->stopping)
		until = m->renew_at < m->warn_at ? m->renew_at : m->warn_at;
	if (m->args->watchdog != 0 && m->beat_at < until)
		until = m->beat_at;
	if (m->upgrade.trial != 0 && m->upgrade.until < until)
		until = m->upgrade.until;
	if (m->starved_until > now && m->starved_until < until)
		until = m->starved_until;
	if (!m->stopping && (sv->cfg.number[MODE] == POLL ? !is_full(sv) :
	    sv->retry_at > now) && sv->retry_at < until)
		until = sv->retry_at;
	if ((due = stats_due(&m->stats, sv)) < until)
		until = due;
	if ((due = seat_from(m)) < until && (due > now || m->waiting.fd != -1))
		until = due;
	for (; sv != NULL; sv = sv->older) {
		if (sv->deadline < until)
			until = sv->deadline;
		if (sv->shared->repeats.more > 0 &&
		    (due = repeats_until(sv, now)) < until)
			until = due;
	}
	return clock_timeout(now, until);
}

/*
 * Until a signal, a deadline or, in fork mode, a connection: the listeners
 * take turns.
 */
static void
sleep_until_due(struct master *m)
{
	const struct service *sv = m->live;
	struct pollfd p[FORWARD_LISTENERS];
	int ms = sleep_ms(m), ready;
	struct timespec ts = { .tv_sec = ms / 1000,
	    .tv_nsec = ms % 1000 * 1000000L };
	nfds_t i, n = 0;

	if (m->waiting.fd == -1 && seat_from(m) <= clock_ms())
		n = sv->nlisteners;
	for (i = 0; i < n; i++)
		p[i] = (struct pollfd){ .events = POLLIN, .fd =
		    sv->listeners[(m->next_listener + i) %
		    sv->nlisteners].fd };
	ready = ppoll(p, n, ms == -1 ? NULL : &ts, &m->asleep);
	deliver_pending_signals(&m->asleep);
	for (i = 0; ready > 0 && i < n; i++)
		if (p[i].revents != 0 && accept_one(m, p[i].fd)) {
			m->next_listener += i + 1;
			return;
		}
}

/* Another worker for each that is no more, but not too fast. */
static void
refill(struct master *m)
{
	struct service *sv = m->live;

	if (m->stopping || sv->cfg.number[MODE] == FORK ||
	    sv->nworkers == sv->nseats || clock_ms() < sv->retry_at)
		return;
	start_workers(m, sv);
	begin(sv);
}

/* Until the last worker has left. */
static void
supervise(struct master *m)
{
	struct service *sv;

	while (!m->stopping || m->live->nworkers > 0 ||
	    m->live->older != NULL) {
		sleep_until_due(m);
		if (taken(&got_child))
			reap(m);
		serve_waiting(m);
		if (taken(&got_cut))
			stop(m, 1);
		if (taken(&got_stop))
			stop(m, m->stopping);
		if (taken(&got_hup) && !m->stopping)
			reload(m);
		if (taken(&got_usr1))
			tell(m);
		if (taken(&got_usr2) && !m->stopping)
			upgrade_try(m);
		if (!m->stopping && clock_ms() >= m->warn_at)
			warn_daily(m);
		if (!m->stopping && clock_ms() >= m->renew_at)
			renew_keys(m);
		sv = m->live;
		do
			repeats_end(sv, 0);
		while ((sv = sv->older) != NULL);
		kill_late(m);
		free_services(m);
		refill(m);
		stats_turn(&m->stats, m->live);
		if (m->args->watchdog != 0 && clock_ms() >= m->beat_at)
			beat(m);
		upgrade_step(m);
	}
	repeats_end(m->live, 1);
	stats_end(&m->stats);
}

/*
 * THE WAYS TO RUN
 */

/* Where one of 0 to 2 is closed, it must not become a connection's. */
static void
hold_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd != -1 && fd <= STDERR_FILENO);
	if (fd != -1)
		close(fd);
}

/* Let go of the standard descriptors, but for one that is the log. */
static void
silence(void)
{
	int fd, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO && null != -1; fd++)
		if (fd != logging.stream)
			dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
}

/* The connection that inetd(8) has accepted; -1 after one sentence. */
static int
take_connection(struct incoming *in, int fd, const struct config *cfg)
{
	const char *why = NULL;

	in->len = sizeof(in->sa);
	in->fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (is_listening(fd))
		why = "it is a listening socket (for inetd, it is \"nowait\")";
	else if (in->fd == -1 || fcntl(in->fd, F_SETFL, O_NONBLOCK) == -1 ||
	    getpeername(in->fd, (struct sockaddr *)&in->sa, &in->len) == -1)
		why = strerror(errno);
	if (why == NULL) {
		tune(in->fd, cfg);
		return 0;
	}
	log_error("-i: descriptor %d is not a connected socket: %s", fd, why);
	return -1;
}

/* Of a start that failed: may it be right in a minute, as it is? */
static int
exit_status(int error)
{
	return error == EAGAIN || error == EADDRNOTAVAIL ||
	    error == EADDRINUSE ? EXIT_FAILURE : EXIT_CONFIG;
}

static int
run_inetd(const struct arguments *a)
{
	struct service *sv = service_new(a, NULL);
	struct worker w = { .line = -1, .turn = (size_t)getpid() };
	struct incoming in = { .fd = -1 };
	int fd, r = EXIT_CONFIG;
	sigset_t asleep;

	if (sv == NULL)
		return exit_status(errno);
	if (log_open(sv) == -1)
		goto out;
	fd = sv->accepts.n > 0 ? sv->accepts.list[0].fd : STDIN_FILENO;
	if (take_connection(&in, fd, &sv->cfg) == -1)
		goto out;
	if (fd > STDERR_FILENO)
		close(fd);
	silence();
	catch_signals(&asleep);
	signal(SIGHUP, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
	r = EXIT_FAILURE;
	if (sv->pool != NULL)
		tls_config_renew(sv->tls);
	if (worker_init(&w, sv, 0) == 0)
		r = worker_run(&w, &in, &asleep);
	worker_free(&w);
out:
	service_free(sv);
	return r;
}

/*
 * Into the background: the parent stays until the child has started, so that
 * it can exit as the child does.  The descriptor to report on, or -1.
 */
static int
background(void)
{
	int fds[2], status;
	pid_t pid;
	char byte;

	if (pipe2(fds, O_CLOEXEC) == -1 || (pid = fork()) == -1) {
		log_error("daemon: %s", strerror(errno));
		return -1;
	}
	if (pid == 0) {
		close(fds[0]);
		setsid();
		logging.is_daemon = 1;
		return fds[1];
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) == 1)
		_exit(EXIT_SUCCESS);
	if (waitpid(pid, &status, 0) == -1 || !WIFEXITED(status))
		_exit(EXIT_FAILURE);
	_exit(WEXITSTATUS(status));
}

/* Locked, and still the file of that name? */
static int
lock_file(int fd, const char *name)
{
	struct stat ours, there;

	if (flock(fd, LOCK_EX | LOCK_NB) == -1)
		return -1;
	errno = 0;
	return fstat(fd, &ours) == 0 && stat(name, &there) == 0 &&
	    ours.st_ino == there.st_ino && ours.st_dev == there.st_dev ? 0 :
	    -1;
}

/*
 * The file stays locked, which tells a live tunnel from a file left over; and
 * nobody else can open it, and so lock it.
 */
static int
write_pidfile(struct master *m)
{
	const struct config *cfg = &m->live->cfg;
	const char *name = config_text(cfg, PIDFILE), *why;
	int fd;

	if (name == NULL)
		return 0;
	if ((fd = open_file(m->live, PIDFILE, O_RDWR, 0600)) == -1)
		return -1;
	fchmod(fd, 0600);	/* one that was left over */
	if (lock_file(fd, name) == -1)
		why = errno == EWOULDBLOCK ? "another tunnel holds it" :
		    "another tunnel has just removed it";
	else if (ftruncate(fd, 0) == -1 ||
	    dprintf(fd, "%d\n", (int)m->pid) < 0)
		why = strerror(errno);
	else {
		m->pidfile = fd;
		m->pidfile_name = strdup(name);
		return 0;
	}
	log_error("%s: pidfile %s: %s", config_where(cfg, PIDFILE), name,
	    why);
	close(fd);
	return -1;
}

/* Start the workers, tell so, and look after them; an exit status. */
static int
serve(struct master *m)
{
	int r = EXIT_SUCCESS;

	say_version();
	if (m->parent != -1)
		silence();
	if (renew_keys(m) == 0 && start_workers(m, m->live) == 0) {
		announce(m->live, NULL);
		warn_daily(m);
		begin(m->live);
		notify_ready(m, "");
		if (m->parent != -1 && write(m->parent, "", 1) == 1)
			close(m->parent);
		m->parent = -1;
	} else {
		r = EXIT_FAILURE;
		m->stopping = 1;
		hang_up(m->live);
		cut(m->live);
	}
	supervise(m);
	return r;
}

static int
run_service(struct arguments *a)
{
	struct master m = { .args = a, .parent = -1, .pidfile = -1,
	    .waiting = { .fd = -1 }, .stats = { .began = clock_ms(),
	    .began_at = time(NULL), .generation = 1 } };
	int r = EXIT_CONFIG;

	if (a->state != -1) {
		upgrade_init(&m);
		if (upgrade_end(&m, a) == -1)
			return EXIT_FAILURE;
		supervise(&m);
		r = EXIT_SUCCESS;
		goto out;
	}
	if ((m.live = service_new(a, NULL)) == NULL)
		return exit_status(errno);
	upgrade_init(&m);
	if (m.live->cfg.number[DAEMON] == 1 &&
	    (m.parent = background()) == -1) {
		r = EXIT_FAILURE;
		goto out;
	}
	m.pid = getpid();
	prepare(m.live);
	catch_signals(&m.asleep);
	if (open_listeners(m.live, NULL) == -1)
		r = exit_status(errno);
	else if (write_pidfile(&m) == 0 && log_open(m.live) == 0)
		r = serve(&m);
out:
	if (m.pidfile != -1)
		unlink(m.pidfile_name);
	free(m.pidfile_name);
	upgrade_free(&m);
	close_listeners(m.live, 1);
	service_free(m.live);
	return r;
}

/* What somebody else is to pass, who has not started this. */
static void
warn_of_sockets(const struct service *sv)
{
	size_t i;

	for (i = 0; i < sv->accepts.n; i++) {
		const struct target *t = &sv->accepts.list[i];

		if (t->fd != -1 && !is_listening(t->fd))
			log_warning("%s: accept: fd:%d is no listening socket "
			    "here, where it can't be checked", t->value->where,
			    t->fd);
	}
}

static void
report_service(const struct service *sv)
{
	char text[LOG_SIZE];
	size_t i;

	config_print(&sv->cfg, stdout);
	tls_config_print(sv->tls, stdout);
	kernel_text(&sv->kernel, text, sizeof(text));
	printf("# %s\n", text);
	for (i = 0; tls_config_report(sv->tls, i, stdout) == 0; i++)
		continue;
	fflush(stdout);
}

/* -t: all but the binding, and what came of it. */
static int
run_test(const struct arguments *a)
{
	struct service *sv;

	if ((sv = service_new(a, NULL)) == NULL)
		return exit_status(errno);
	if (!a->quiet)
		report_service(sv);
	if (!a->inetd)
		warn_of_sockets(sv);
	check_files(sv, LEVEL_WARNING);
	warn_of_readers(sv);
	tls_config_warn(sv->tls, say_warning);
	service_free(sv);
	if (a->state == -1 || upgrade_answer(a->state) == 0)
		return EXIT_SUCCESS;
	log_error("TUNNEL_STATE: %s", strerror(errno));
	return EXIT_FAILURE;
}

/*
 * Where to write a secret: a new file, or standard output, unless that is a
 * file that others can read.  NULL after one sentence.
 */
static FILE *
secret_open(const char *file)
{
	struct stat st;
	FILE *fp = stdout;

	if (file != NULL) {
		if ((fp = open_new(file, 0600)) == NULL) {
			log_error("-o %s: %s", file, strerror(errno));
			return NULL;
		}
	} else if (fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
	    (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		log_error("standard output is a file that others can read "
		    "(mode %04o): use -o FILE, which makes one for you alone",
		    (unsigned)st.st_mode & 07777);
		return NULL;
	}
	setvbuf(fp, NULL, _IONBF, 0);	/* no copy is left behind */
	return fp;
}

/* What is not whole is removed; an exit status. */
static int
secret_close(FILE *fp, const char *file, int status)
{
	if (file == NULL)
		return status;
	if (status == EXIT_SUCCESS && fsync(fileno(fp)) == -1) {
		log_error("-o %s: %s", file, strerror(errno));
		status = EXIT_FAILURE;
	}
	fclose(fp);
	if (status != EXIT_SUCCESS)
		unlink(file);
	return status;
}

/* -g */
static int
run_generate(const char *names, const char *file)
{
	FILE *fp = secret_open(file);
	int r = EXIT_SUCCESS;
	char text[TEXT_SIZE];

	if (fp == NULL)
		return EXIT_FAILURE;
	if (tls_generate(names, fp, text, sizeof(text)) == -1) {
		log_error("-g: %s", text);
		r = ferror(fp) ? EXIT_FAILURE : EXIT_CONFIG;
	}
	return secret_close(fp, file, r);
}

/* -k */
static int
run_ticket_key(const char *file)
{
	FILE *fp = secret_open(file);
	int r = EXIT_SUCCESS;

	if (fp == NULL)
		return EXIT_FAILURE;
	if (tls_generate_ticket_key(fp) == -1) {
		log_error("-k: %s", strerror(errno));
		r = EXIT_FAILURE;
	}
	return secret_close(fp, file, r);
}

/* -V */
static void
run_version(void)
{
	struct kernel_tls kernel;
	char text[LOG_SIZE];

	try_kernel(&kernel, KTLS_AUTO);
	kernel_text(&kernel, text, sizeof(text));
	printf("tunnel %s (%s, %s)\n%s\n", VERSION, tls_version(),
	    forward_poller, text);
}

int
main(int argc, char **argv)
{
	struct arguments a = { .argv = argv };
	const char *why;
	int r = EXIT_CONFIG;

	hold_standard_descriptors();
	log_init();
	take_environment(&a);
	if (argc == 1) {
		misused();
	} else if (parse_arguments(&a, argc, argv) == -1) {
		r = EXIT_CONFIG;
	} else if (a.help) {
		help();
		r = EXIT_SUCCESS;
	} else if (a.version) {
		run_version();
		r = EXIT_SUCCESS;
	} else if ((why = tls_init()) != NULL) {
		log_error("%s", why);
		r = EXIT_FAILURE;
	} else if (a.names != NULL) {
		r = run_generate(a.names, a.output);
	} else if (a.key) {
		r = run_ticket_key(a.output);
	} else {
		r = a.test ? run_test(&a) : a.inetd ? run_inetd(&a) :
		    run_service(&a);
	}
	if (a.before != -1)
		r = go_back(&a);
	free(a.settings);
	return r;
}
