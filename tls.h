/*
 * tls: mbed TLS, in either role, behind a few verbs.  One TLS stream over a
 * descriptor that the caller owns.  It opens no socket, waits for nothing,
 * and logs nothing: it answers with codes and with text.
 */
#ifndef TLS_H
#define TLS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum tls_role { TLS_SERVER, TLS_CLIENT };

struct stream;
struct tls;
struct tls_config;
struct tls_sessions;

/*
 * Start the library; before anything else here.  NULL, or why it can't be
 * used (too old a shared library, no entropy).
 */
const char *tls_init(void);

/*
 * In the child after each fork(2), lest it shares its random numbers with its
 * parent and siblings.  NULL, or why there are none.
 */
const char *tls_forked(void);

/*
 * The library at run time, e.g. "Mbed TLS 3.6.7", or where it can't tell,
 * "built against Mbed TLS 3.6.7"; and ", patched" where it is built with
 * mbedtls/patches.  Valid until the next call.
 */
const char *tls_version(void);

/* The groups for the key exchange that it has, as a list of names. */
void	 tls_groups(char *text, size_t size);

/*
 * A CONFIGURATION (lib/tls_config, lib/tls_rules)
 */

/*
 * A configuration: filled by the calls below, then used for any number of
 * streams, which must be freed before it.  NULL when out of memory.
 */
struct tls_config *tls_config_new(enum tls_role);
void	 tls_config_free(struct tls_config *);

/* Why the last call on it failed, as one clause; valid until the next. */
const char *tls_config_error(const struct tls_config *);

/*
 * All tls_config_*() that return an int answer 0, or -1 with
 * tls_config_error(), where nothing else is said.
 */

/*
 * A PEM chain, or one certificate in DER, leaf first; then its key, from the
 * same file or another, perhaps encrypted (password NULL: not), right behind
 * it.  The files are read here.  Of several pairs those are for a client that
 * have the name it asks for (RFC 6066 section 3), or all; its offer decides
 * among them, then their order.
 */
int	 tls_config_cert(struct tls_config *, const char *file);
int	 tls_config_key(struct tls_config *, const char *file,
	    const char *password);
/*
 * Keys that both sides have, from a file with lines of IDENTITY:KEY, the key as
 * 32 to 128 hexadecimal digits.  A client that has one of them needs no
 * certificate, and is shown none; without certificates, nobody else is served.
 * file NULL: there is one that can't be read, and nothing is to be said of its
 * absence.
 */
int	 tls_config_psk(struct tls_config *, const char *file);
/*
 * A client has one of them, the first unless this is another.  With neither ca
 * nor peer, a server has to have it as well.
 */
int	 tls_config_psk_identity(struct tls_config *, const char *);
/* 12 for TLS 1.2 (RFC 5246), 13 for TLS 1.3 (RFC 8446). */
int	 tls_config_versions(struct tls_config *, int min, int max);
/*
 * Peers' certificates.  Those who may have issued one, in a PEM file, or a
 * directory of them.  What can't be used among them is told by
 * tls_config_warn(), unless it is all there is.  name NULL: there is one that
 * can't be read, and nothing is to be said of its absence.
 */
int	 tls_config_ca(struct tls_config *, const char *name);
/* The same with the system's file, of which nothing is told. */
int	 tls_config_system_ca(struct tls_config *, const char *file);
/* That file, or NULL; *n: how many of it can be used. */
const char *tls_config_system(const struct tls_config *, size_t *n);
/* Their revocation lists (RFC 5280), likewise; after tls_config_ca(). */
int	 tls_config_crl(struct tls_config *, const char *name);
/*
 * A rule.  If there are any, a peer has to match one; a server then instead of
 * its name.  It is cn:NAME, dns:NAME, ip:ADDRESS, uri:URI, or, which need no
 * issuer, pin:sha256/BASE64 for a public key (its SubjectPublicKeyInfo, as in
 * RFC 7469) and cert:FILE for each certificate in it; or psk:IDENTITY for a key
 * of tls_config_psk().
 */
int	 tls_config_peer(struct tls_config *, const char *rule);
/*
 * Verify peers, by all of the above, which comes first; is_required: one
 * without a certificate is refused.
 */
int	 tls_config_verify(struct tls_config *, int is_required);

/* Do they fit together?  Needed, and the last of those that return an int. */
int	 tls_config_ready(struct tls_config *);

/* A FIN without close_notify passes as an end of file.  Default: no. */
void	 tls_config_truncation(struct tls_config *, int is_eof);
/* A client that asks for no name of ours is refused.  Default: no. */
void	 tls_config_strict_names(struct tls_config *, int is_strict);
/* A client does not ask for the name that it verifies.  Default: it does. */
void	 tls_config_ask_no_name(struct tls_config *);

/*
 * SUITES, GROUPS AND PROTOCOLS (lib/tls_suites)
 */

/*
 * IANA's names, separated by blanks, commas or colons, best first.  In TLS 1.3
 * it is the client's order that decides among those named.
 */
int	 tls_config_ciphers(struct tls_config *, const char *names);
int	 tls_config_groups(struct tls_config *, const char *names);
int	 tls_config_alpn(struct tls_config *, const char *names);

/*
 * Other names for groups, as OpenSSL has them, as a list of IANA's, of those
 * that are there; empty: none of them is.
 */
void	 tls_translate_groups(const char *names, char *text, size_t size);

/*
 * TICKET KEYS (lib/tls_ticket)
 */

/*
 * The keys to encrypt tickets with, from a file of lines of 64 hexadecimal
 * digits; the first one encrypts.  tls_config_renew() puts them in effect.
 */
int	 tls_config_ticket_keys(struct tls_config *, const char *file);

/*
 * Encrypt with the keys of the file, if there is one, or else with a new one
 * from here on, the one before being good still.  NULL, or why it can't be.
 */
const char *tls_config_renew(struct tls_config *);

/* Write a new key for such a file, as a line.  0, or -1 with errno. */
int	 tls_generate_ticket_key(FILE *);

/*
 * SESSIONS (lib/tls_session)
 * All processes that were forked with a struct tls_sessions resume each
 * other's sessions: by tickets (RFC 5077, RFC 8446 section 4.6.1), whose keys
 * it holds, or, in TLS 1.2, out of a cache.  Both lie in shared memory.  Nobody
 * ever waits for another one there.
 */

/* What an entry has room for besides: nothing, a client's chain, a server's. */
enum tls_sessions_kind { TLS_BARE, TLS_WITH_CLIENTS, TLS_WITH_SERVERS };

/*
 * One for so many entries.  can_move: another program may be handed its memory,
 * where there is such a thing.  It has one user.  NULL: there is no memory.
 */
struct tls_sessions *tls_sessions_new(size_t entries, enum tls_sessions_kind,
	    int can_move);
/* One user more, and one less: the last one frees it, or NULL. */
struct tls_sessions *tls_sessions_ref(struct tls_sessions *);
void	 tls_sessions_free(struct tls_sessions *);

/* Its memory, as it is described to another program. */
struct tls_sessions_memory {
	int	 fd;			/* the store's; or -1 */
	size_t	 size;			/* what fd stands for */
	size_t	 entries;
	int	 kind;
};
const struct tls_sessions_memory *tls_sessions_memory(
	    const struct tls_sessions *);
/*
 * One in the memory of another program, by its descriptor, entries and
 * kind; the descriptor is the store's.  NULL, or why not: then the
 * descriptor stays open, and the store is NULL.
 */
const char *tls_sessions_map(const struct tls_sessions_memory *,
	    struct tls_sessions **);
/*
 * Close its memory's descriptor; the memory stays.  For a worker, which hands
 * it to nobody.  NULL is fine.
 */
void	 tls_sessions_close_fd(struct tls_sessions *);

/* Use the ticket keys of another one. */
void	 tls_sessions_adopt(struct tls_sessions *, const struct tls_sessions *);

/* Resume sessions, up to so many seconds after their full handshake. */
void	 tls_config_sessions(struct tls_config *, struct tls_sessions *,
	    int with_tickets, int lifetime);

/*
 * KERNEL TLS (lib/tls_kernel, lib/tls_kernel_keys)
 * Linux, Documentation/networking/tls.rst.  After the handshake a connection
 * is moved to the kernel, where that can take it; where not, it stays.
 */

/*
 * What the kernel can do is tried on connected TCP sockets, a new one for each
 * i below TLS_KERNEL_TRIES, which are good for nothing else afterwards.  Bits,
 * to be put together; 0, with errno, for what it can't do.  Privileges may be
 * needed, for it to load a module.
 */
#define TLS_KERNEL_TRIES	6
#define TLS_KERNEL_REKEYS	(1u << TLS_KERNEL_TRIES)
/*
 * It may be told that records are not padded, and does right if they are: with
 * that, Linux 6.1 returns the data of some padded records twice.  The caller's.
 */
#define TLS_KERNEL_MAY_HINT	(TLS_KERNEL_REKEYS << 1)
unsigned tls_kernel_try(unsigned i, int fd);

/* Such bits as text. */
void	 tls_kernel_text(unsigned caps, char *text, size_t size);

/* Use the kernel for what these bits say.  Default: for nothing. */
void	 tls_config_kernel(struct tls_config *, unsigned caps);

/*
 * REPORTS AND WARNINGS (lib/tls_report)
 */

/* The versions, suites and groups in effect, as lines of comment. */
void	 tls_config_print(const struct tls_config *, FILE *);

/* Describe certificate i (0, 1, ...) in some lines.  -1: no such. */
int	 tls_config_report(const struct tls_config *, size_t i, FILE *);

/*
 * When certificate i (0, 1, ...) of the file expires, in seconds since 1970.
 * -1: no such.
 */
int	 tls_config_expiry(const struct tls_config *, size_t i,
	    const char **file, int64_t *at);

/*
 * What there is to say at this moment against its certificates and revocation
 * lists, e.g. that one expires in 12 days: each given to warn, as a clause,
 * with the file of a certificate, or the option, that it is about.
 */
void	 tls_config_warn(const struct tls_config *, void (*warn)(const void *,
	    const char *about, const char *text), const void *);

/*
 * NEW KEYS, AND WHAT IS SIGNED WITH THEM (lib/tls_generate)
 */

/*
 * Write a new P-256 key and a certificate that it signs itself, for names
 * (DNS names or addresses, separated as above), as PEM.  0, or -1 with text.
 */
int	 tls_generate(const char *names, FILE *, char *text, size_t size);

/*
 * Likewise, but instead of a certificate a request for one goes to the other
 * file: RFC 2986, with the names as RFC 2985 section 5.4.2 has them.
 */
int	 tls_generate_request(const char *names, FILE *key, FILE *request,
	    char *text, size_t size);

/* Write a line with a new key for tls_config_psk().  0, or -1 with text. */
int	 tls_generate_psk(const char *identity, FILE *, char *text,
	    size_t size);

/*
 * THE STREAM
 */

/* 1 if a server can be verified by it: a host in ASCII, or an address. */
int	 tls_is_name(const char *);

/*
 * Our side of a connection on fd, in the role of the configuration, handshake
 * still to come.  A client verifies that the server has name, a host's or an
 * address, and asks for a host's (RFC 6066 section 3); NULL: it asks for none,
 * and nobody has it, unless rules or a shared key decide.  Copied; NULL on a
 * server.  Fills in the ops and ctx of the stream.  NULL when out of memory.
 */
struct tls *tls_new(struct tls_config *, int fd, const char *name,
	    struct stream *);
void	 tls_free(struct tls *);

/*
 * Its handshake has failed: what was to be resumed is not offered again.  Not
 * for one that was given up, as for an application that has left.
 */
void	 tls_failed(const struct tls *);

/* 1 if the peer has sent anything at all. */
int	 tls_heard(const struct tls *);

/* 1 if we have refused it, by its certificate, say, or for the lack of one. */
int	 tls_is_refused(const struct tls *);

/* What was negotiated, as text; NULL: unknown, or there is none. */
struct tls_conninfo {
	const char *version;		/* "TLSv1.3"; the handshake is over */
	const char *cipher;		/* IANA's name for it */
	const char *group;		/* of the key exchange */
	const char *alpn;
	const char *name;		/* asked for; "": not a host's */
	const char *peer;		/* the subject of its certificate, */
	const char *common_name;	/* and that alone */
	const char *psk;		/* or the identity of its key */
	int	 resumed;		/* an earlier session */
	int	 in_kernel;		/* which has the keys, and does TLS */
};

/* Valid until the next call of anything here. */
void	 tls_conninfo(const struct tls *, struct tls_conninfo *);

#endif
