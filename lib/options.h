/* options: the keys of the configuration, one row each. */
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
	const char *fallback;		/* NULL: none */
	const char *const *choices;	/* of a CHOICE; else: words for 0 */
	int64_t	 min, max;		/* of a NUMBER; of a TIME in seconds */
	const char *help;
};

extern const struct option options[OPTIONS];

/* The choices of an option that is on or off. */
extern const char *const option_no_yes[];

/* Some options are for one role alone: client = yes, or client = no. */
int	 option_has_effect(int option, int is_client);

/* The text of an option that is not given, in that role; NULL: none. */
const char *option_fallback(int option, int is_client);

/* The option of that name, or -1. */
int	 option_find(const char *name);

/*
 * The number that a value stands for, in milliseconds if it is a time; left as
 * it is if the option has none.  -1: not a value of this option.
 */
int	 option_number(const struct option *, const char *text, int64_t *);

/* The index of a text among words, which end with NULL; -1: not there. */
int	 option_choice(const char *text, const char *const *words, int64_t *);

/* The values that are allowed, as text. */
void	 option_allowed(const struct option *, char *text, size_t size);

#endif
