/*
 * hints: suggestions for a key or a value that does not exist.  Most users come
 * from stunnel.
 */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "hints.h"
#include "options.h"
#include "tls.h"
#include "util.h"

#define VALUE_SIZE	512

/*
 * Keys of stunnel, and their equivalents here.  The message is: our key, the
 * value if it is copied and valid for our key, the advice.
 */
static const struct stunnel_key {
	const char *name;
	const char *value;		/* only with this one; *X: X in it */
	const char *ours;		/* our key; NULL: none */
	const char *advice;
	const char *prefix;		/* copy the value, with this prefix */
	int	 is_copied;		/* copy the value, without a prefix */
	const char *covers;		/* keys not to be reported as missing */
} stunnel[] = {
	{ "CAengine", .advice = "keys and certificates are PEM files" },
	{ "CAfile", .ours = "ca", .is_copied = 1, .advice =
	    "; with verifyPeer = yes it is peer = cert:FILE, and no ca",
	    .covers = "peer" },
	{ "CApath", .ours = "ca", .is_copied = 1, .covers = "peer" },
	{ "checkEmail", .advice = "peer has no rule for mail addresses" },
	{ "checkHost", .ours = "peer", .prefix = "dns:", .advice = "; but "
	    "delete the line with verifyPeer = yes, and if it is the host of "
	    "connect with client = yes: that is verified anyway" },
	{ "checkIP", .ours = "peer", .prefix = "ip:", .advice = "; but "
	    "delete the line with verifyPeer = yes, and if it is the address "
	    "in connect with client = yes: that is verified anyway" },
	{ "ciphersuites", .advice = "ciphers is one list for TLS 1.2 and "
	    "1.3" },
	{ "compression", .advice = "not supported: delete the line" },
	{ "config", .advice = "OpenSSL is not used: delete the line" },
	{ "CRLfile", .ours = "crl", .is_copied = 1 },
	{ "CRLpath", .ours = "crl", .is_copied = 1 },
	{ "curve", .ours = "groups", .is_copied = 1 },
	{ "curves", .ours = "groups", .is_copied = 1 },
	{ "debug", .ours = "log_level", .is_copied = 1, .advice = "; of the "
	    "numbers, 0 to 3 are error, 4 is warning, 5 notice, 6 info, 7 "
	    "debug" },
	{ "delay", .advice = "names are looked up again every "
	    "resolve_interval: delete the line" },
	{ "EGD", .advice = "random numbers come from the kernel: delete the "
	    "line" },
	{ "engine", .advice = "engines are not supported: keys are PEM files" },
	{ "engineCtrl", .advice = "engines are not supported: delete the "
	    "line" },
	{ "engineDefault", .advice = "engines are not supported: delete the "
	    "line" },
	{ "engineId", .advice = "engines are not supported: keys are PEM "
	    "files" },
	{ "engineNum", .advice = "engines are not supported: keys are PEM "
	    "files" },
	{ "execArgs", .ours = "exec", .advice = ": exec = PROGRAM ARGUMENT "
	    "..., without the name that execArgs begins with" },
	{ "failover", .ours = "connect", .advice = ": repeated, it means round "
	    "robin with failover; delete the line" },
	{ "fips", "no", .advice = "FIPS mode is not supported: delete the "
	    "line" },
	{ "fips", .advice = "mbed TLS has no FIPS validation" },
	{ "foreground", "no", .ours = "daemon", .advice = ": daemon = yes" },
	{ "foreground", .ours = "daemon", .advice = ", with the opposite "
	    "meaning and no by default: delete the line" },
	{ "ident", .advice = "ident lookups are not supported" },
	{ "include", .advice = "includes are not supported: use one file for "
	    "each service" },
	{ "libwrap", .advice = "TCP wrappers are not supported (use a packet "
	    "filter): delete the line" },
	{ "local", .advice = "the source address cannot be chosen" },
	{ "logId", .advice = "each connection's log line has the client's "
	    "address and port: delete the line" },
	{ "OCSP", .advice = "OCSP is not supported (crl has revocation lists): "
	    "delete the line" },
	{ "OCSPaia", .advice = "OCSP is not supported (crl has revocation "
	    "lists): delete the line" },
	{ "OCSPflag", .advice = "OCSP is not supported: delete the line" },
	{ "OCSPnonce", .advice = "OCSP is not supported: delete the line" },
	{ "OCSPrequire", .advice = "OCSP is not supported: delete the line" },
	{ "options", .advice = "OpenSSL is not used, and TLS below 1.2 is not "
	    "supported: delete the line (NO_TLSv1_2 is tls_min = 1.3, "
	    "NO_TLSv1_3 is tls_max = 1.2)" },
	{ "output", .ours = "log", .is_copied = 1, .advice = "; or delete the "
	    "line under systemd, whose journal has the log" },
	{ "pid", .ours = "pidfile", .is_copied = 1, .advice = "; one per "
	    "instance, or delete the line under systemd" },
	{ "protocol", "proxy", .ours = "proxy_protocol", .advice =
	    ": proxy_protocol = v1" },
	{ "protocol", .advice = "STARTTLS and the like are not supported: TLS "
	    "comes first, as on ports 465, 993 and 995" },
	{ "provider", .advice = "providers are not supported: keys are PEM "
	    "files" },
	{ "PSKidentity", .ours = "psk_identity", .is_copied = 1, .advice =
	    ", only for a client: on a server, delete the line" },
	{ "PSKsecrets", .ours = "psk", .is_copied = 1, .covers = "cert" },
	{ "pty", .advice = "a command gets a socket, not a terminal" },
	{ "redirect", .advice = "a client that fails verification is refused" },
	{ "renegotiation", .advice = "not supported: delete the line" },
	{ "requireCert", .ours = "verify", .advice = ": yes is verify = "
	    "require, no is verify = request", .covers = "verify" },
	{ "reset", .advice = "an abort is always passed on as a reset: delete "
	    "the line" },
	{ "retry", .advice = "a command is run for each connection" },
	{ "RNDbytes", .advice = "random numbers come from the kernel: delete "
	    "the line" },
	{ "RNDfile", .advice = "random numbers come from the kernel: delete "
	    "the line" },
	{ "RNDoverwrite", .advice = "random numbers come from the kernel: "
	    "delete the line" },
	{ "securityLevel", .advice = "OpenSSL is not used: delete the line" },
	{ "service", .advice = "the name in syslog is tunnel: delete the "
	    "line" },
	{ "sessionCacheSize", .ours = "session_cache", .is_copied = 1 },
	{ "sessionCacheTimeout", .ours = "ticket_lifetime", .is_copied = 1 },
	{ "sessiond", .advice = "ticket_keys shares sessions between hosts" },
	{ "sessionResume", .ours = "session_tickets and session_cache",
	    .advice = ": yes is the default, no is no and off" },
	{ "setgid", .ours = "group", .is_copied = 1 },
	{ "setuid", .ours = "user", .is_copied = 1 },
	{ "sni", "*:", .advice = "the backend is not chosen by server name "
	    "(HAProxy and nginx do that), but the certificate is: repeat "
	    "cert" },
	{ "sni", "", .ours = "server_name", .advice = ": server_name = off" },
	{ "sni", .ours = "server_name", .is_copied = 1, .advice = ", if it is "
	    "not the host of connect" },
	{ "socket", .advice = "TCP_NODELAY, SO_KEEPALIVE and SO_REUSEADDR are "
	    "set anyway: delete the line" },
	{ "sslVersion", .ours = "tls_min and tls_max", .advice = ": TLSv1.2 "
	    "is tls_max = 1.2, TLSv1.3 is tls_min = 1.3; for all others "
	    "delete the line" },
	{ "sslVersionMax", .ours = "tls_max", .advice = ": 1.2 or 1.3" },
	{ "sslVersionMin", .ours = "tls_min", .advice = ": 1.2 or 1.3" },
	{ "stack", .advice = "threads are not used: delete the line" },
	{ "syslog", "no", .ours = "log", .advice = ", stderr by default: "
	    "delete the line" },
	{ "syslog", .ours = "log", .advice = ": log = syslog" },
	{ "ticketKeySecret", .ours = "ticket_keys", .advice =
	    ", a file with lines as tunnel -k makes them" },
	{ "ticketMacSecret", .ours = "ticket_keys", .advice =
	    ", a file with lines as tunnel -k makes them" },
	{ "TIMEOUTbusy", .ours = "handshake_timeout", .is_copied = 1 },
	{ "TIMEOUTclose", .ours = "half_close_timeout", .advice =
	    ": delete the line; here it limits half-closed connections, which "
	    "may still carry data" },
	{ "TIMEOUTconnect", .ours = "connect_timeout", .is_copied = 1 },
	{ "TIMEOUTidle", .ours = "idle_timeout", .is_copied = 1 },
	{ "TIMEOUTocsp", .advice = "OCSP is not supported: delete the line" },
	{ "transparent", .advice = "proxy_protocol passes the client's address "
	    "to the backend" },
	{ "verifyChain", "no", .ours = "verify", .advice = ": verify = none, "
	    "the default without client = yes" },
	{ "verifyChain", .ours = "verify", .advice = ": verify = require" },
	{ "verifyPeer", "no", .ours = "peer", .advice = ": delete the line" },
	{ "verifyPeer", .ours = "peer", .advice = ": peer = cert:FILE, with "
	    "CAfile's FILE, and verify = require", .covers = "ca verify" },
};

/* Values with another meaning in stunnel, or in a shell. */
static const struct {
	int	 option;
	const char *value, *advice;
} wrong_values[] = {
	{ VERIFY, "0", "stunnel's 0 is none" },
	{ VERIFY, "1", "stunnel's 1 is request, and require with client = "
	    "yes" },
	{ VERIFY, "2", "stunnel's 2 is require" },
	{ VERIFY, "3", "stunnel's 3 is require, with peer = cert:FILE in "
	    "place of ca" },
	{ VERIFY, "4", "stunnel's 4 is require, with peer = cert:FILE in "
	    "place of ca" },
	{ CIPHERS, "PSK", "with psk and no cert, only shared keys are used: "
	    "delete the line" },
	{ LOG, "append", "stunnel's append is the default: delete the line" },
	{ LOG, "overwrite", "a log is always appended to: delete the line" },
	{ LOG, "stdout", "standard output is /dev/stdout; a file of this name "
	    "is ./stdout" },
};

/* Keep only letters and digits, in lower case; empty if in is too long. */
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
 * The Damerau-Levenshtein distance: the number of letters that are missing,
 * added, wrong or swapped with the next one.  Keep three rows of its table.
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

/* The distance of a text from a word; SIZE_MAX: not a misspelling of it. */
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

int
hint_option(const char *name)
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

/* The choice that is most similar to an invalid value; or NULL. */
static const char *
choice_near(const char *const *choices, const char *text)
{
	static const char *const truths[] = { "false", "off", "0", NULL },
	    *const falses[] = { "true", "on", "1", NULL };
	const char *near = NULL;
	size_t best = SIZE_MAX, d, i;
	int64_t ignored;

	if (choices == option_no_yes &&
	    option_choice(text, truths, &ignored) == 0)
		return "no";
	if (choices == option_no_yes &&
	    option_choice(text, falses, &ignored) == 0)
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

/* Advice for a log that is not a path, but a misspelt word; or NULL. */
static const char *
log_near(const char *text)
{
	static const struct { const char *word, *advice; } words[] = {
		{ "stderr", "did you mean stderr? a file of this name "
		    "needs a ./ before it" },
		{ "syslog", "did you mean syslog? a file of this name "
		    "needs a ./ before it" },
	};
	char name[WORD_SIZE + 1];
	size_t i, d;

	if (strpbrk(text, "/.") != NULL || fold(name, text) == 0)
		return NULL;
	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(text, words[i].word) == 0)
			return NULL;
		d = distance(name, words[i].word);
		if (d < 2 || (d == 2 && name[0] == words[i].word[0]))
			return words[i].advice;
	}
	return NULL;
}

const char *
hint_wrong_value(const struct option *o, const char *text)
{
	size_t i;

	for (i = 0; i < sizeof(wrong_values) / sizeof(wrong_values[0]); i++)
		if (&options[wrong_values[i].option] == o &&
		    strcasecmp(wrong_values[i].value, text) == 0)
			return wrong_values[i].advice;
	return o == &options[LOG] ? log_near(text) : NULL;
}

void
hint_value(const struct option *o, const char *text, char *hint, size_t size)
{
	const char *near = choice_near(o->choices, text);
	const char *meaning = hint_wrong_value(o, text);
	char seconds[WORD_SIZE];
	int64_t ms;

	hint[0] = '\0';
	snprintf(seconds, sizeof(seconds), "%ss", text);
	if (near == NULL && o->type == TIME &&
	    option_number(o, seconds, &ms) == 0)
		near = seconds;
	if (meaning != NULL)
		snprintf(hint, size, "; %s", meaning);
	else if (near != NULL)
		snprintf(hint, size, "; did you mean %s?", near);
}

/* Add a stunnel line converted to our key and value, if it can be. */
static void
add_line(struct text *out, const struct stunnel_key *t, const char *text)
{
	int i = t->is_copied || t->prefix != NULL ? option_find(t->ours) : -1;
	char value[VALUE_SIZE];
	int64_t ignored;

	if (i == -1 || strlen(text) + sizeof("dns:") >= sizeof(value))
		return;
	snprintf(value, sizeof(value), "%s%s", t->prefix != NULL ? t->prefix :
	    "", text);
	if (options[i].type == TIME && *text != '\0' &&
	    strspn(text, "0123456789") == strlen(text))
		snprintf(value, sizeof(value), "%ss", text);
	else if (i == GROUPS)
		tls_translate_groups(text, value, sizeof(value));
	if (*text == '\0')
		text_add(out, ": delete the line");
	else if (value[0] == '\0')
		text_add(out, ", without \"%s\": delete the line", text);
	else if (hint_wrong_value(&options[i], value) == NULL &&
	    option_number(&options[i], value, &ignored) == 0)
		text_add(out, ": %s = %s", t->ours, value);
}

static int
is_about(const struct stunnel_key *t, const char *text)
{
	return t->value == NULL || (*t->value == '*' ?
	    strstr(text, t->value + 1) != NULL :
	    strcasecmp(t->value, text) == 0);
}

/* The first row for a stunnel line; case and punctuation are ignored. */
static const struct stunnel_key *
find_stunnel_key(const char *name, const char *text)
{
	char key[WORD_SIZE + 1], other[WORD_SIZE + 1];
	size_t i;

	fold(key, name);
	for (i = 0; i < sizeof(stunnel) / sizeof(stunnel[0]); i++) {
		fold(other, stunnel[i].name);
		if (strcmp(key, other) == 0 && is_about(&stunnel[i], text))
			return &stunnel[i];
	}
	return NULL;
}

void
hint_key(const char *key, const char *text, struct hint *h)
{
	const struct stunnel_key *t = find_stunnel_key(key, text);
	struct text out = { h->text, sizeof(h->text), 0 };
	int near = t == NULL ? hint_option(key) : -1;

	h->about = near != -1 ? options[near].name : t != NULL ? t->ours :
	    NULL;
	h->covers = t != NULL ? t->covers : NULL;
	if (near != -1)
		text_add(&out, "did you mean \"%s\"?", h->about);
	else if (t == NULL)
		text_add(&out, "tunnel -h lists them all");
	else if (t->ours == NULL)
		text_add(&out, "stunnel's %s: %s", t->name, t->advice);
	else {
		text_add(&out, "stunnel's %s is \"%s\" here", t->name,
		    t->ours);
		add_line(&out, t, text);
		if (t->advice != NULL)
			text_add(&out, "%s", t->advice);
	}
}
