/*
 * tls: mbed TLS, server side, behind a few verbs.  One TLS stream over a
 * descriptor that the caller owns.  It opens no socket, waits for nothing,
 * and logs nothing: it answers with codes and with text.
 */
#ifndef TLS_H
#define TLS_H

#include <stddef.h>
#include <stdio.h>

struct stream;
struct tls;
struct tls_config;

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

/* The library at run time, e.g. "mbed TLS 3.6.6". */
const char *tls_version(void);

/*
 * A configuration: filled by the calls below, then used for any number of
 * streams, which must be freed before it.  NULL when out of memory.
 */
struct tls_config *tls_config_new(void);
void	 tls_config_free(struct tls_config *);

/* Why the last call on it failed, as one clause; valid until the next. */
const char *tls_config_error(const struct tls_config *);

/* All of these: 0, or -1 with tls_config_error(). */

/*
 * A PEM chain, leaf first; then its PEM key, from the same file or another,
 * perhaps encrypted (password NULL: not), right behind it.  The files are read
 * here.  One pair for each kind of key; the client's offer decides.
 */
int	 tls_config_cert(struct tls_config *, const char *file);
int	 tls_config_key(struct tls_config *, const char *file,
	    const char *password);
/* 12 for TLS 1.2 (RFC 5246), 13 for TLS 1.3 (RFC 8446). */
int	 tls_config_versions(struct tls_config *, int min, int max);
/*
 * IANA's names, separated by blanks, commas or colons, best first.  In TLS 1.3
 * it is the client's order that decides among those named.
 */
int	 tls_config_ciphers(struct tls_config *, const char *names);
int	 tls_config_groups(struct tls_config *, const char *names);
int	 tls_config_alpn(struct tls_config *, const char *names);

/* Last of them, and needed: do they fit together? */
int	 tls_config_ready(struct tls_config *);

/* Shall a FIN without close_notify pass as an end of file?  (No.) */
void	 tls_config_truncation(struct tls_config *, int is_eof);

/* The versions, suites and groups in effect, as lines of comment. */
void	 tls_config_print(const struct tls_config *, FILE *);

/* Describe certificate i (0, 1, ...) in some lines.  -1: no such. */
int	 tls_config_report(const struct tls_config *, size_t i, FILE *);

/*
 * What there is to say against certificate i at this moment, e.g. that it
 * expires in 12 days.  1 with text, 0 if nothing, -1: no such.
 */
int	 tls_config_warning(const struct tls_config *, size_t i, char *text,
	    size_t size);

/*
 * Write a new P-256 key and a certificate that it signs itself, for names
 * (DNS names or addresses, separated as above), as PEM.  0, or -1 with text.
 */
int	 tls_generate(const char *names, FILE *, char *text, size_t size);

/*
 * The server's side of a connection on fd, handshake still to come.  Fills in
 * the ops and ctx of the stream.  NULL when out of memory.
 */
struct tls *tls_new(struct tls_config *, int fd, struct stream *);
void	 tls_free(struct tls *);

/* Has the client sent anything at all? */
int	 tls_heard(const struct tls *);

/*
 * What was agreed upon, e.g. " TLSv1.3 TLS_AES_128_GCM_SHA256 sni=a.example",
 * a blank before each word; as much of it as is known.
 */
void	 tls_describe(const struct tls *, char *text, size_t size);

#endif
