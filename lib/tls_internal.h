/*
 * tls_internal: structures that the TLS rooms share; for tls.c and lib/tls_*
 * only.
 */
#ifndef TLS_INTERNAL_H
#define TLS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/net_sockets.h>
#include <mbedtls/oid.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

#include "tls_compat.h"

struct rule;
struct stream;
struct ticket_store;
struct tls_sessions;

#define HEADER_SIZE	5		/* of a record */
#define RECORDS		512		/* read per turn of a connection */
#define RECORD_MAX	16384		/* plaintext, RFC 8446 section 5.1 */
#define LIST_MAX	32		/* names in a list */
#define SUITES_MAX	64
#define NAME_SIZE	256
#define ERROR_SIZE	1024
#define DN_SIZE		512		/* of a distinguished name, as text */
#define PASSED_MAX	8		/* unusable issuers to warn about */
#define ISSUERS_MAX	(MBEDTLS_X509_MAX_INTERMEDIATE_CA + 2)
#define HOUR		(60 * 60)
#define DAY		(24 * HOUR)
#define HASH_SIZE	32		/* SHA-256 */
#define KEYS_MAX	16		/* for tickets */
#define KEY_SIZE	32
#define KEY_NAME_SIZE	16
#define TAG_SIZE	16
#define PSK_MIN		16		/* bytes of a shared key */
#define PSK_MAX		64
#define PSK_CHECK_SIZE	16
#define PSK_SUITE	MBEDTLS_TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256
#define PSK_SUITE_NAME	"TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"

struct cert {
	struct cert *next;
	char	*name;			/* of the file */
	mbedtls_x509_crt chain;
	mbedtls_pk_context key;
	mbedtls_svc_key_id_t id;	/* of the key in PSA; 0: not there */
};

/* The first key encrypts tickets; all of them decrypt. */
struct ticket_keys {
	size_t	 n;
	struct {
		unsigned char name[KEY_NAME_SIZE];
		unsigned char secret[KEY_SIZE];
	} list[KEYS_MAX];
};

/* A shared key. */
struct psk {
	char	*name;			/* the identity */
	size_t	 name_len;		/* in bytes */
	bool	 allowed;		/* by the rules */
	unsigned char len;		/* of the secret */
	unsigned char secret[PSK_MAX];
	unsigned char check[PSK_CHECK_SIZE];	/* from make_check() */
};

struct tls_config {
	mbedtls_ssl_config ssl;
	struct cert *certs;
	mbedtls_x509_crt ca;
	mbedtls_x509_crl crl;
	struct rule *rules;
	char	*system;		/* the system's file that is ca; NULL */
	char	*passed[PASSED_MAX];	/* skipped CA certificates, and why: */
	size_t	 npassed;		/* the first PASSED_MAX of npassed */
	int	 has_ca, has_crl, has_pin;
	enum { NOT_ASKED, ASKED, REQUIRED } verify;
	int	 is_client;
	int	 strict_names;
	struct psk *psks;		/* or NULL */
	size_t	 npsks;
	const struct psk *own_psk;	/* the key of a client; or NULL */
	int	 has_psk;		/* a file of shared keys is set */
	int	 psk_alone;		/* peers need a shared key */
	unsigned char no_psk[KEY_SIZE];	/* random: see take_identity() */
	int	 asks_no_name;		/* a client sends no SNI */
	struct ticket_keys keys;	/* from a file; or none */
	struct ticket_store *tickets;	/* shared by all processes; or NULL */
	struct tls_sessions *sessions;	/* or NULL */
	int	 lifetime;		/* of sessions, in seconds */
	struct tls *current;		/* the handshake in progress */
	/* The issuers above the certificate that is being verified. */
	const mbedtls_x509_crt *above[ISSUERS_MAX];
	size_t	 nabove;
	/* Lists end with 0 or NULL. */
	int	 suites[SUITES_MAX + 1];
	int	 suites_now[SUITES_MAX + 2];	/* a session's suite first */
	uint16_t groups[LIST_MAX + 1];
	const char *alpn[LIST_MAX + 1];		/* allocated */
	int	 listed;		/* suites were configured */
	int	 min, max;		/* 12 or 13 */
	int	 left_out;		/* a version without suites; or 0 */
	int	 truncation_is_eof;
	unsigned kernel;		/* bits of tls_kernel_try() */
	char	 error[ERROR_SIZE];
};

/* The current record of one direction; RFC 8446 section 5.1. */
struct record {
	unsigned char head[HEADER_SIZE];
	unsigned char nhead;
	unsigned char body[2];		/* its last two bytes: an alert */
	uint16_t left;			/* missing bytes of the body */
	uint32_t count;			/* under the same keys; saturates */
};

struct ktls;

struct tls {
	mbedtls_ssl_context *ssl;	/* NULL: moved to the kernel */
	struct ktls *ktls;		/* NULL: not for the kernel */
	struct tls_config *cfg;
	int	 fd;
	int	 err;			/* errno of a failed recv(2), send(2) */
	int	 failed;		/* the last error, a code */
	int	 ended;			/* the code that ended reading; or 0 */
	int	 budget;		/* receive calls left in this turn */
	int	 suite;			/* of the last hello, then negotiated */
	int	 group;			/* of the key exchange; or 0 */
	bool	 open;			/* the handshake is over */
	bool	 fin;			/* recv(2) returned 0 */
	bool	 drained;		/* recv(2) filled less than asked for */
	bool	 slow;			/* our flight takes several turns */
	bool	 notified;		/* our last alert is sent, or not due */
	bool	 sent;			/* the library sent something */
	bool	 resumed;		/* from an earlier session */
	bool	 extended;		/* extended master secret, RFC 7627 */
	bool	 encrypted;		/* all that we send from now on */
	bool	 refused;		/* by tls_reject(), with why */
	bool	 by_psk;		/* authenticated by one of psks */
	bool	 offers;		/* a client offers a session, */
	bool	 offers_ticket;		/* by a ticket of TLS 1.3 */
	bool	 ticketed;		/* a TLS 1.2 ticket was received */
	bool	 starved;		/* the last receive call failed */
	unsigned char flight;		/* 1: hello sent, 2: more received */
	unsigned char ntickets;		/* a server: tried; a client: kept */
	unsigned char alert;		/* to send at our end */
	unsigned char peer_alert;	/* fatal, from the peer; 0: unknown */
	unsigned char nfirst;
	unsigned char *ahead;		/* received, not yet used */
	size_t	 nahead;
	size_t	 record_size;		/* data in one record that we send */
	size_t	 unsent;		/* of a write that will be retried */
	unsigned char *deferred;	/* encrypted, to be sent first */
	size_t	 ndeferred;
	struct record in, out;		/* out: in the handshake, or for ktls */
	unsigned char first[8];		/* the peer's first nfirst bytes */
	const char *alpn;
	char	*sni;			/* asked for; empty: not a host name */
	char	*name;			/* the server's, to verify; or NULL */
	char	*peer;			/* the verified subject; or NULL */
	char	*cn;			/* its common name; or NULL */
	const struct psk *psk;		/* that authenticates the peer; NULL */
	char	*identity;		/* named by a client, quoted; or NULL */
	unsigned char *chain;		/* peer certificates, each behind its */
	size_t	 chain_len;		/* length in 3 bytes, as in TLS */
	const mbedtls_x509_crt *issuer;	/* of the certificate checked next */
	uint32_t issuer_flags;		/* against the peer's issuers */
	char	*why;			/* refused; NULL: out of memory */
	int64_t	 born;			/* when the session began (s); or 0 */
	uint32_t lifetime_hint;		/* (s) of its ticket, or 0: RFC 5077 */
	unsigned char id[HASH_SIZE];	/* for a client's sessions in store */
	struct sniffer *sniffer;	/* of a client, in the handshake */
};

/* Valid only while the library has the connection. */
static inline int
is_tls13(const struct tls *t)
{
	return mbedtls_ssl_get_version_number(t->ssl) ==
	    MBEDTLS_SSL_VERSION_TLS1_3;
}

/* The peer's role, as text. */
static inline const char *
peer_role(const struct tls_config *cfg)
{
	return cfg->is_client ? "server" : "client";
}

/* Write cfg->error, replacing an earlier error.  Return -1. */
int	 tls_fail(struct tls_config *, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

#endif
