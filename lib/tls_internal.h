/*
 * tls_internal: what the TLS rooms know of each other; for tls.c and lib/tls_*
 * alone.
 */
#ifndef TLS_INTERNAL_H
#define TLS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/net_sockets.h>
#include <mbedtls/oid.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

struct rule;
struct stream;
struct ticket_store;
struct tls_sessions;

#define HEADER_SIZE	5		/* of a record */
#define RECORDS		512		/* read in a row, before others run */
#define RECORD_MAX	16384		/* plaintext, RFC 8446 section 5.1 */
#define LIST_MAX	32		/* names in a list */
#define SUITES_MAX	64
#define NAME_SIZE	256
#define ERROR_SIZE	1024
#define DN_SIZE		512		/* of a distinguished name, as text */
#define PASSED_MAX	8		/* unusable issuers that are told of */
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

#define RNG		mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE

struct cert {
	struct cert *next;
	char	*name;			/* its file's */
	mbedtls_x509_crt chain;
	mbedtls_pk_context key;
	mbedtls_svc_key_id_t id;	/* PSA's, if that has it; or 0 */
};

/* The first one encrypts tickets, all of them decrypt. */
struct ticket_keys {
	size_t	 n;
	struct {
		unsigned char name[KEY_NAME_SIZE];
		unsigned char secret[KEY_SIZE];
	} list[KEYS_MAX];
};

/* A key that both sides have. */
struct psk {
	char	*name;			/* its identity, */
	size_t	 name_len;		/* of so many bytes */
	bool	 allowed;		/* by the rules */
	unsigned char len;		/* of the secret */
	unsigned char secret[PSK_MAX];
	unsigned char check[PSK_CHECK_SIZE];	/* as make_check() has it */
};

struct tls_config {
	mbedtls_ssl_config ssl;
	struct cert *certs;
	mbedtls_x509_crt ca;
	mbedtls_x509_crl crl;
	struct rule *rules;
	char	*system;		/* ca is that of the system: its file */
	char	*passed[PASSED_MAX];	/* what is not used of ca, and why, */
	size_t	 npassed;		/* PASSED_MAX of them are kept */
	int	 has_ca, has_crl, has_pin;
	enum { NOT_ASKED, ASKED, REQUIRED } verify;
	int	 is_client;
	int	 strict_names;
	struct psk *psks;		/* or NULL */
	size_t	 npsks;
	const struct psk *own_psk;	/* that a client has; or NULL */
	int	 has_psk;		/* a file of them was given, */
	int	 psk_alone;		/* and nobody is known otherwise */
	unsigned char no_psk[KEY_SIZE];	/* that nobody has: see tls_psk.c */
	int	 asks_no_name;		/* a client: it sends no SNI */
	struct ticket_keys keys;	/* of a file; or none */
	struct ticket_store *tickets;	/* of all processes; or NULL */
	struct tls_sessions *sessions;	/* or NULL */
	int	 lifetime;		/* of sessions, in seconds */
	struct tls *current;		/* whose handshake is going on */
	/* The issuers above the certificate that is verified at the moment. */
	const mbedtls_x509_crt *above[ISSUERS_MAX];
	size_t	 nabove;
	int	 suites[SUITES_MAX + 1];	/* ends with 0, as all here */
	int	 suites_now[SUITES_MAX + 2];	/* with a resumed one first */
	uint16_t groups[LIST_MAX + 1];
	const char *alpn[LIST_MAX + 1];		/* allocated */
	int	 listed;		/* suites are the administrator's */
	int	 min, max;		/* 12 or 13 */
	int	 left_out;		/* 12 or 13: it has no suite; or 0 */
	int	 truncation_is_eof;
	unsigned kernel;		/* bits of tls_kernel_try() */
	char	 error[ERROR_SIZE];
};

/* The record that passes by; RFC 8446 section 5.1. */
struct record {
	unsigned char head[HEADER_SIZE];
	unsigned char nhead;
	unsigned char body[2];		/* its last two bytes: an alert */
	uint16_t left;			/* of its body */
	uint32_t count;			/* of those encrypted alike, at most */
};

struct ktls;

struct tls {
	mbedtls_ssl_context *ssl;	/* NULL: the kernel does it now */
	struct ktls *ktls;		/* NULL: it won't */
	struct tls_config *cfg;
	int	 fd;
	int	 err;			/* errno of a failed recv(2), send(2) */
	int	 failed;		/* mbed TLS's last error */
	int	 ended;			/* what ended reading, kept: or 0 */
	int	 budget;		/* calls for more that are left to it */
	int	 suite;			/* of the last hello, then negotiated */
	int	 group;			/* of the key exchange; or 0 */
	bool	 open;			/* the handshake is over */
	bool	 fin;			/* recv(2) has answered 0 */
	bool	 drained;		/* recv(2) had less to give */
	bool	 slow;			/* our flight takes its time */
	bool	 notified;		/* the peer was told our end */
	bool	 sent;			/* the library sent something */
	bool	 resumed;		/* a session is */
	bool	 extended;		/* the hello has RFC 7627 in it */
	bool	 encrypted;		/* what we send, from here on */
	bool	 refused;		/* by tls_reject(): see why */
	bool	 by_psk;		/* with a key of psks, not a ticket */
	bool	 offers;		/* as a client: a session, */
	bool	 offers_ticket;		/* which is one of TLS 1.3 */
	bool	 ticketed;		/* the server sent one of TLS 1.2 */
	bool	 starved;		/* the last call for more got nothing */
	unsigned char flight;		/* 1: our hello, 2: what follows it */
	unsigned char ntickets;		/* a server: tried; a client: kept */
	unsigned char alert;		/* that is due at our end */
	unsigned char peer_alert;	/* the fatal one it sent; 0: unknown */
	unsigned char nfirst;
	unsigned char *ahead;		/* received, and not taken yet, */
	size_t	 nahead;		/* and how much that is */
	size_t	 record_size;		/* bytes of data in one we send */
	size_t	 unsent;		/* of a write that is to be retried */
	unsigned char *deferred;	/* to be sent before what comes next */
	size_t	 ndeferred;
	struct record in, out;		/* out: until no key of it is due */
	unsigned char first[8];		/* what the peer sent first: nfirst */
	const char *alpn;
	char	*sni;			/* asked for; empty: not a host name */
	char	*name;			/* that a server has to have; or NULL */
	char	*peer;			/* its subject, once it is verified, */
	char	*cn;			/* and the common name of that */
	const struct psk *psk;		/* the key by which it is known, */
	char	*identity;		/* and what a client named, quoted */
	unsigned char *chain;		/* its certificates, each behind its */
	size_t	 chain_len;		/* length of 3 bytes, as in TLS */
	const mbedtls_x509_crt *issuer;	/* of the one to be checked next */
	uint32_t issuer_flags;		/* against the peer's issuers */
	char	*why;			/* it is refused; NULL: no memory */
	int64_t	 born;			/* when the session began (s); or 0 */
	uint32_t lifetime_hint;		/* (s) of its ticket, or 0: RFC 5077 */
	unsigned char id[HASH_SIZE];	/* of what a client may resume */
	struct sniffer *sniffer;	/* a client's, in the handshake */
};

/* Only while the library has the connection. */
static inline int
is_tls13(const struct tls *t)
{
	return mbedtls_ssl_get_version_number(t->ssl) ==
	    MBEDTLS_SSL_VERSION_TLS1_3;
}

/* What the peer is called. */
static inline const char *
peer_role(const struct tls_config *cfg)
{
	return cfg->is_client ? "server" : "client";
}

/*
 * Say in cfg->error what is wrong with a configuration; -1.  Of several the
 * last one stays.
 */
int	 tls_fail(struct tls_config *, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

#endif
