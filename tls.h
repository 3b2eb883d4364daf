/*
 * tls: TLS streams by mbed TLS, as a server or a client, each over a descriptor
 * that the caller owns.  Opens no sockets, never blocks, and never logs: errors
 * are return codes and text.
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
 * Start the library, before any other call.  NULL, or why it can't be used: the
 * shared library is too old, or there is no entropy.
 */
const char *tls_init(void);

/*
 * Reseed the random number generator.  Call in the child after each fork(2), or
 * it draws the same numbers as its parent and siblings.  NULL, or why the
 * generator can't be used.
 */
const char *tls_forked(void);

/*
 * The library at run time, as "Mbed TLS 3.6.7", or if it has no version at run
 * time, "built against Mbed TLS 3.6.7"; then ", patched" if it is built with
 * mbedtls/patches, and the name of an accelerator.  Valid until the next call.
 */
const char *tls_version(void);

/* List the names of the key exchange groups that the library supports. */
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

/* Why the last call failed, as one clause.  Valid until the next call. */
const char *tls_config_error(const struct tls_config *);

/*
 * Unless stated otherwise, all tls_config_*() of type int return 0, or -1 with
 * tls_config_error().
 */

/*
 * Load a PEM chain, leaf first, or one certificate in DER; then, by the next
 * call, its key, from the same file or another; password NULL: none.  May be
 * repeated for several pairs.  A client gets one with the name that it asks for
 * (RFC 6066 section 3), or any if none has that name; its offer decides among
 * these, then their order.
 */
int	 tls_config_cert(struct tls_config *, const char *file);
int	 tls_config_key(struct tls_config *, const char *file,
	    const char *password);
/*
 * Load shared keys from a file with lines of IDENTITY:KEY, the key as 32 to 128
 * hexadecimal digits.  With one of them a client needs no certificate, and gets
 * none; a server without certificates refuses all other clients.  file NULL:
 * the file can't be read now; reject no rule that needs it.
 */
int	 tls_config_psk(struct tls_config *, const char *file);
/*
 * Select the key that a client uses; default: the first one.  Without ca and
 * peer, the server has to have this key, too.
 */
int	 tls_config_psk_identity(struct tls_config *, const char *);
/* 12 for TLS 1.2 (RFC 5246), 13 for TLS 1.3 (RFC 8446). */
int	 tls_config_versions(struct tls_config *, int min, int max);
/*
 * Load the issuers of peer certificates from a file or a directory of files, in
 * PEM or DER.  tls_config_warn() reports unusable certificates; it is an error
 * if none is usable.  name NULL: the file can't be read now; reject nothing
 * that needs it.
 */
int	 tls_config_ca(struct tls_config *, const char *name);
/* The same for the system's file, without warnings. */
int	 tls_config_system_ca(struct tls_config *, const char *file);
/* That file, or NULL; *n: the number of usable certificates in it. */
const char *tls_config_system(const struct tls_config *, size_t *n);
/* Load their revocation lists (RFC 5280) likewise, after tls_config_ca(). */
int	 tls_config_crl(struct tls_config *, const char *name);
/*
 * Add a rule.  If there are any, a peer has to match one; for a server this
 * replaces the check of its name.  Rules are cn:NAME, dns:NAME, ip:ADDRESS,
 * uri:URI; pin:sha256/BASE64 for a public key (its SubjectPublicKeyInfo, as in
 * RFC 7469) and cert:FILE for each certificate in the file, both without a
 * trusted issuer; and psk:IDENTITY for a key of tls_config_psk().
 */
int	 tls_config_peer(struct tls_config *, const char *rule);
/*
 * Verify peers, by ca, crl and rules, which have to be set before.
 * is_required: refuse a peer without a certificate.
 */
int	 tls_config_verify(struct tls_config *, int is_required);

/* Check the whole; required, after all others of type int. */
int	 tls_config_ready(struct tls_config *);

/* Treat a FIN without close_notify as an end of file.  Default: no. */
void	 tls_config_truncation(struct tls_config *, int is_eof);
/* Refuse clients that ask for no name in our certificates.  Default: no. */
void	 tls_config_strict_names(struct tls_config *, int is_strict);
/* Let a client send no SNI for the name that it verifies.  Default: it does. */
void	 tls_config_ask_no_name(struct tls_config *);

/*
 * SUITES, GROUPS AND PROTOCOLS (lib/tls_suites)
 */

/*
 * Set a list of IANA names, separated by blanks, commas or colons, best first.
 * Among suites of TLS 1.3 the client's order decides.
 */
int	 tls_config_ciphers(struct tls_config *, const char *names);
int	 tls_config_groups(struct tls_config *, const char *names);
int	 tls_config_alpn(struct tls_config *, const char *names);

/*
 * Translate a list of group names, such as OpenSSL's, to IANA's, without those
 * that the library lacks.
 */
void	 tls_translate_groups(const char *names, char *text, size_t size);

/*
 * TICKET KEYS (lib/tls_ticket)
 */

/*
 * Load ticket keys from a file with lines of 64 hexadecimal digits.  The first
 * one encrypts, all of them decrypt, once tls_config_renew() is called.
 */
int	 tls_config_ticket_keys(struct tls_config *, const char *file);

/*
 * Put the keys of the file in effect, or without a file, a new key; the last
 * key before it still decrypts.  NULL, or the reason for a failure.
 */
const char *tls_config_renew(struct tls_config *);

/* Write a new key for such a file, as one line.  0, or -1 with errno. */
int	 tls_generate_ticket_key(FILE *);

/*
 * SESSIONS (lib/tls_session, lib/tls_store)
 * All processes that were forked with a struct tls_sessions resume each other's
 * sessions: by tickets (RFC 5077, RFC 8446 section 4.6.1), or in TLS 1.2 from a
 * cache.  Ticket keys and cache are in shared memory, without locks.
 */

/* The certificates that an entry has room for: none, a client's, a server's. */
enum tls_sessions_kind { TLS_BARE, TLS_WITH_CLIENTS, TLS_WITH_SERVERS };

/*
 * Make a store with one reference.  can_move: its memory can be handed to
 * another program, where the system supports that.  NULL when out of memory.
 */
struct tls_sessions *tls_sessions_new(size_t entries, enum tls_sessions_kind,
	    int can_move);
/* Take a reference.  Drop one, and free the store with the last; NULL: none. */
struct tls_sessions *tls_sessions_ref(struct tls_sessions *);
void	 tls_sessions_free(struct tls_sessions *);

/* The memory of a store, described for another program. */
struct tls_sessions_memory {
	int	 fd;			/* owned by the store; or -1 */
	size_t	 size;			/* of the memory, in bytes */
	size_t	 entries;
	int	 kind;
};
const struct tls_sessions_memory *tls_sessions_memory(
	    const struct tls_sessions *);
/*
 * Make a store in memory from another program, by its descriptor, entries and
 * kind; the store then owns the descriptor.  NULL, or the reason for a failure:
 * then the store is NULL, and the descriptor stays open.
 */
const char *tls_sessions_map(const struct tls_sessions_memory *,
	    struct tls_sessions **);
/*
 * Close the descriptor, and keep the memory, in a worker, which hands it to no
 * other program.  NULL is no error.
 */
void	 tls_sessions_close_fd(struct tls_sessions *);

/* Copy the ticket keys of another store. */
void	 tls_sessions_adopt(struct tls_sessions *, const struct tls_sessions *);

/* Resume sessions, for lifetime seconds after their full handshake. */
void	 tls_config_sessions(struct tls_config *, struct tls_sessions *,
	    int with_tickets, int lifetime);

/*
 * KERNEL TLS (lib/tls_kernel, lib/tls_kernel_keys)
 * Linux, Documentation/networking/tls.rst.  After the handshake a connection
 * moves to the kernel if that supports its cipher, else it stays with mbed TLS.
 */

/*
 * Try what the kernel supports, on a new connected TCP socket for each i below
 * TLS_KERNEL_TRIES; the socket can't be used afterwards.  Return bits, which
 * the caller combines, or 0 with errno.  The kernel may need privileges of the
 * caller to load a module.
 */
#define TLS_KERNEL_TRIES	6
#define TLS_KERNEL_REKEYS	(1u << TLS_KERNEL_TRIES)
/*
 * Set by the caller if the kernel handles padded records correctly while
 * TLS_RX_EXPECT_NO_PAD is on: with that option, Linux 6.1 returns the data of
 * some padded records twice.
 */
#define TLS_KERNEL_MAY_HINT	(TLS_KERNEL_REKEYS << 1)
unsigned tls_kernel_try(unsigned i, int fd);

/* Describe such bits. */
void	 tls_kernel_text(unsigned caps, char *text, size_t size);

/* Use the kernel for the versions and ciphers of these bits.  Default: 0. */
void	 tls_config_kernel(struct tls_config *, unsigned caps);

/*
 * REPORTS AND WARNINGS (lib/tls_report)
 */

/*
 * Print versions, suites, groups, shared keys, CAs, pinned certificates and
 * CRLs, as comment lines.
 */
void	 tls_config_print(const struct tls_config *, FILE *);

/* Describe certificate i (0, 1, ...) in several lines.  -1: there is none. */
int	 tls_config_report(const struct tls_config *, size_t i, FILE *);

/*
 * Return the file of certificate i (0, 1, ...) and when it expires, in seconds
 * since 1970.  -1: there is none.
 */
int	 tls_config_expiry(const struct tls_config *, size_t i,
	    const char **file, int64_t *at);

/*
 * Call warn with a clause for each current problem, such as a certificate that
 * expires in 12 days.  about: the certificate's file, or a key of the
 * configuration.
 */
void	 tls_config_warn(const struct tls_config *, void (*warn)(const void *,
	    const char *about, const char *text), const void *);

/*
 * NEW KEYS, CERTIFICATES AND REQUESTS (lib/tls_generate, lib/tls_psk)
 */

/*
 * Write a new P-256 key and a self-signed certificate, as PEM, for names: DNS
 * names or addresses, separated by blanks or commas.  0, or -1 with text.
 */
int	 tls_generate(const char *names, FILE *, char *text, size_t size);

/*
 * Likewise, but write a certificate request to the second file: RFC 2986, with
 * the names in an extension request (RFC 2985 section 5.4.2).
 */
int	 tls_generate_request(const char *names, FILE *key, FILE *request,
	    char *text, size_t size);

/* Write a line with a new key for tls_config_psk().  0, or -1 with text. */
int	 tls_generate_psk(const char *identity, FILE *, char *text,
	    size_t size);

/*
 * THE STREAM
 */

/* 1 if a server can be verified by this name: an ASCII host or an address. */
int	 tls_is_name(const char *);

/*
 * Make the stream for a connection on fd, in the role of the configuration,
 * before its handshake.  A client verifies that the server's certificate has
 * name, a host or an address, and sends a host as SNI (RFC 6066 section 3);
 * NULL: it sends none, and refuses every server that no rule or shared key
 * accepts.  name is copied; NULL on a server.  Fills in the ops and ctx of the
 * stream.  NULL when out of memory.
 */
struct tls *tls_new(struct tls_config *, int fd, const char *name,
	    struct stream *);
void	 tls_free(struct tls *);

/*
 * Call if a client's handshake has failed: the sessions for this server are not
 * offered again.  Don't call if the handshake was given up, for example because
 * the application left.
 */
void	 tls_failed(const struct tls *);

/* 1 if the peer has sent anything. */
int	 tls_heard(const struct tls *);

/* 1 if we refused the peer, for example for its certificate, or without one. */
int	 tls_is_refused(const struct tls *);

/* The negotiated parameters, as text; NULL: unknown or none. */
struct tls_conninfo {
	const char *version;		/* "TLSv1.3"; NULL in the handshake */
	const char *cipher;		/* IANA name */
	const char *group;		/* of the key exchange, IANA name */
	const char *alpn;
	const char *name;		/* the SNI; "": not a host name */
	const char *peer;		/* the subject of its certificate */
	const char *common_name;	/* of this subject */
	const char *psk;		/* the identity of its shared key */
	int	 resumed;		/* from an earlier session */
	int	 in_kernel;		/* the kernel does TLS */
};

/* The text is valid until the next call of any function in this header. */
void	 tls_conninfo(const struct tls *, struct tls_conninfo *);

#endif
