/*
 * options: the table of configuration keys.  A test compares it with the manual
 * page and the example configuration.
 */
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "options.h"
#include "util.h"

#define WORDS_SIZE	128		/* list of choices */
#define TIME_SIZE	24		/* "365d" */

const char *const option_no_yes[] = { "no", "yes", NULL };
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

const struct option options[OPTIONS] = {
	[ACCEPT] = { "accept", LIST, NULL, NULL, 0, 0,
	    "[host:]port, unix:/path or fd:N to accept connections on" },
	[CONNECT] = { "connect", LIST, NULL, NULL, 0, 0,
	    "[host:]port or unix:/path of the backend" },
	[RESOLVE_INTERVAL] = { "resolve_interval", TIME, "60s", or_off,
	    1, 86400, "how often names in connect are looked up again" },
	[EXEC] = { "exec", TEXT, NULL, NULL, 0, 0,
	    "command to run for each connection, instead of connect" },
	[PROXY_PROTOCOL] = { "proxy_protocol", CHOICE, "off", proxies, 0, 0,
	    "version of the PROXY header that the backend gets" },
	[ACCEPT_PROXY] = { "accept_proxy", CHOICE, "no", option_no_yes, 0, 0,
	    "expect a PROXY header from a load balancer" },
	[CLIENT] = { "client", CHOICE, "no", option_no_yes, 0, 0,
	    "accept plain connections, and connect to the backend by TLS" },
	[SERVER_NAME] = { "server_name", TEXT, NULL, NULL, 0, 0,
	    "name of the server, if it is not connect's host; or off" },
	[CERT] = { "cert", LIST, NULL, NULL, 0, 0,
	    "PEM file with a certificate chain, leaf first" },
	[KEY] = { "key", LIST, NULL, NULL, 0, 0,
	    "PEM file with the private key, if it is not in cert" },
	[KEY_PASSWORD_FILE] = { "key_password_file", TEXT, NULL, NULL, 0, 0,
	    "file with the password of an encrypted key" },
	[SNI_STRICT] = { "sni_strict", CHOICE, "no", option_no_yes, 0, 0,
	    "refuse clients without a server name that a certificate has" },
	[PSK] = { "psk", TEXT, NULL, NULL, 0, 0,
	    "file with shared keys, as tunnel -p makes them" },
	[PSK_IDENTITY] = { "psk_identity", TEXT, NULL, NULL, 0, 0,
	    "identity that a client uses, if not the first one in psk" },
	[CA] = { "ca", TEXT, NULL, NULL, 0, 0,
	    "PEM file or directory with the CAs to trust" },
	[CRL] = { "crl", TEXT, NULL, NULL, 0, 0,
	    "PEM file or directory with the revocation lists of these CAs" },
	[VERIFY] = { "verify", CHOICE, "none", verifies, 0, 0,
	    "whether the peer is verified by its certificate" },
	[PEER] = { "peer", LIST, NULL, NULL, 0, 0,
	    "which peers to accept: cn: dns: ip: uri: pin: cert: psk:" },
	[TLS_MIN] = { "tls_min", CHOICE, "1.2", versions, 0, 0,
	    "oldest TLS version" },
	[TLS_MAX] = { "tls_max", CHOICE, "1.3", versions, 0, 0,
	    "newest TLS version" },
	[CIPHERS] = { "ciphers", TEXT, NULL, NULL, 0, 0,
	    "cipher suites to use, best first" },
	[GROUPS] = { "groups", TEXT, NULL, NULL, 0, 0,
	    "key exchange groups to use, best first" },
	[ALPN] = { "alpn", TEXT, NULL, NULL, 0, 0,
	    "application protocols to negotiate, best first" },
	[TRUNCATION] = { "truncation", CHOICE, "reset", truncations, 0, 0,
	    "how to treat a peer that ends without close_notify" },
	[KTLS] = { "ktls", CHOICE, "auto", kernels, 0, 0,
	    "kernel TLS after the handshake" },
	[SESSION_TICKETS] = { "session_tickets", CHOICE, "yes", option_no_yes,
	    0, 0, "session resumption, in TLS 1.3 by tickets" },
	[TICKET_LIFETIME] = { "ticket_lifetime", TIME, "12h", NULL, 1, 604800,
	    "how long a session can be resumed" },
	[TICKET_KEYS] = { "ticket_keys", TEXT, NULL, NULL, 0, 0,
	    "file with ticket keys, as tunnel -k makes them" },
	[SESSION_CACHE] = { "session_cache", NUMBER, "1024", or_off,
	    1, 1000000, "sessions to cache for TLS 1.2 clients without "
	    "tickets" },
	[MAX_CONNECTIONS] = { "max_connections", NUMBER, "1000", NULL,
	    1, 1000000, "maximum number of concurrent connections" },
	[MAX_PER_IP] = { "max_per_ip", NUMBER, "off", or_off, 1, 1000000,
	    "maximum number of connections per IPv4 address or IPv6 /64" },
	[HANDSHAKE_TIMEOUT] = { "handshake_timeout", TIME, "10s", or_off,
	    1, 3600, "time limit for a TLS handshake" },
	[CONNECT_TIMEOUT] = { "connect_timeout", TIME, "5s", or_off,
	    1, 3600, "time limit for connecting to each backend address" },
	[IDLE_TIMEOUT] = { "idle_timeout", TIME, "off", or_off,
	    1, 31536000, "time limit without data in either direction" },
	[HALF_CLOSE_TIMEOUT] = { "half_close_timeout", TIME, "60s", or_off,
	    1, 31536000, "time limit without data once one side has ended" },
	[DRAIN_TIMEOUT] = { "drain_timeout", TIME, "30s", or_off,
	    1, 31536000, "time limit for connections to finish at a stop" },
	[RELOAD_TIMEOUT] = { "reload_timeout", TIME, "off", or_off,
	    1, 31536000, "time limit for old connections after a reload" },
	[KEEPALIVE] = { "keepalive", TIME, "5m", or_off,
	    6, 64800, "time until a dead TCP peer is detected" },
	[MODE] = { "mode", CHOICE, "poll", modes, 0, 0,
	    "poll: many connections per worker; fork: one each" },
	[WORKERS] = { "workers", NUMBER, "1", or_auto, 1, WORKERS_MAX,
	    "number of worker processes; auto: one per CPU" },
	[USER] = { "user", TEXT, NULL, NULL, 0, 0,
	    "user that workers run as" },
	[GROUP] = { "group", TEXT, NULL, NULL, 0, 0,
	    "group that workers run as, if not the user's" },
	[CHROOT] = { "chroot", TEXT, NULL, NULL, 0, 0,
	    "root directory of the workers" },
	[SANDBOX] = { "sandbox", CHOICE, "yes", option_no_yes, 0, 0,
	    "restrict what the workers can do" },
	[DAEMON] = { "daemon", CHOICE, "no", option_no_yes, 0, 0,
	    "go into the background once started" },
	[PIDFILE] = { "pidfile", TEXT, NULL, NULL, 0, 0,
	    "file to write the process ID to" },
	[LOG] = { "log", TEXT, "stderr", NULL, 0, 0,
	    "stderr, syslog, or a file" },
	[LOG_LEVEL] = { "log_level", CHOICE, "info", log_levels, 0, 0,
	    "how much to log" },
	[STATS_FILE] = { "stats_file", TEXT, NULL, NULL, 0, 0,
	    "file for counters, in the Prometheus text format" },
};

static const struct { char unit; int64_t seconds; } units[] = {
	{ 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }
};

/* Parse 30s, 5m, 12h or 7d as milliseconds. */
static int
parse_time(const char *text, int64_t min, int64_t max, int64_t *ms)
{
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

int
option_choice(const char *text, const char *const *choices, int64_t *choice)
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

/* Print seconds in the largest unit that is exact. */
static void
print_time(char *text, size_t size, int64_t seconds)
{
	size_t i = sizeof(units) / sizeof(units[0]) - 1;

	while (seconds % units[i].seconds != 0)
		i--;
	snprintf(text, size, "%lld%c", (long long)(seconds /
	    units[i].seconds), units[i].unit);
}

void
option_allowed(const struct option *o, char *text, size_t size)
{
	char words[WORDS_SIZE] = "", least[TIME_SIZE], most[TIME_SIZE];
	const char *or = o->choices != NULL ? ", or " : "";

	if (o->choices != NULL)
		text_join(words, sizeof(words), o->choices);
	if (o->type == NUMBER)
		snprintf(text, size, "%s%s%lld to %lld", words, or,
		    (long long)o->min, (long long)o->max);
	else if (o->type == TIME) {
		print_time(least, sizeof(least), o->min);
		print_time(most, sizeof(most), o->max);
		snprintf(text, size, "%s%sa number with its unit s, m, h or d, "
		    "%s to %s", words, or, least, most);
	} else if (o->type == CHOICE)
		snprintf(text, size, "%s", words);
	else
		snprintf(text, size, "%s", o->help);
}

int
option_number(const struct option *o, const char *text, int64_t *number)
{
	if (o->choices != NULL && option_choice(text, o->choices, number) == 0)
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

int
option_has_effect(int option, int is_client)
{
	switch (option) {
	case EXEC:
	case SNI_STRICT:
	case TICKET_KEYS:
		return !is_client;
	case PSK_IDENTITY:
	case SERVER_NAME:
		return is_client;
	default:
		return 1;
	}
}

const char *
option_fallback(int option, int is_client)
{
	if (!option_has_effect(option, is_client))
		return NULL;
	return is_client && option == VERIFY ? "require" :
	    options[option].fallback;
}

int
option_find(const char *name)
{
	int i;

	for (i = 0; i < OPTIONS; i++)
		if (strcmp(options[i].name, name) == 0)
			return i;
	return -1;
}
