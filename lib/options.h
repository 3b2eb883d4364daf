/* options: the table of configuration keys. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#define WORKERS_MAX	256

/* Indexes of options[], in the order of -h and -t. */
enum {
	ACCEPT, CONNECT, RESOLVE_INTERVAL, EXEC, PROXY_PROTOCOL, ACCEPT_PROXY,
	CLIENT, SERVER_NAME, CERT, KEY, KEY_PASSWORD_FILE, SNI_STRICT, PSK,
	PSK_IDENTITY, CA, CRL, VERIFY, PEER,
	TLS_MIN, TLS_MAX, CIPHERS, GROUPS, ALPN, TRUNCATION, KTLS,
	SESSION_TICKETS, TICKET_LIFETIME, TICKET_KEYS, SESSION_CACHE,
	MAX_CONNECTIONS, MAX_PER_IP, HANDSHAKE_TIMEOUT, CONNECT_TIMEOUT,
	IDLE_TIMEOUT, HALF_CLOSE_TIMEOUT, DRAIN_TIMEOUT, RELOAD_TIMEOUT,
	KEEPALIVE, MODE, WORKERS, USER, GROUP, CHROOT, SANDBOX, DAEMON, PIDFILE,
	LOG, LOG_LEVEL, STATS_FILE, OPTIONS
};

enum option_type { TEXT, LIST, NUMBER, TIME, CHOICE };

struct option {
	const char *name;
	enum option_type type;
	const char *fallback;		/* the default; NULL: none */
	const char *const *choices;	/* CHOICE: values; else: words for 0 */
	int64_t	 min, max;		/* NUMBER; TIME: in seconds */
	const char *help;
};

extern const struct option options[OPTIONS];

/* The choices of an option that is on or off. */
extern const char *const option_no_yes[];

/* 1 if an option has an effect in this role: some are for one role only. */
int	 option_has_effect(int option, int is_client);

/* The default of an option in this role; NULL: none. */
const char *option_fallback(int option, int is_client);

/* The option with this name, or -1. */
int	 option_find(const char *name);

/*
 * Parse a value as the option's number: a TIME in milliseconds, a CHOICE as its
 * index.  *number is not changed for TEXT and LIST.  0, or -1: invalid value.
 */
int	 option_number(const struct option *, const char *text, int64_t *);

/* Find the index of a text in words, which end with NULL.  0, or -1. */
int	 option_choice(const char *text, const char *const *words, int64_t *);

/* Describe the allowed values. */
void	 option_allowed(const struct option *, char *text, size_t size);

#endif
