/*
 * tls_internal: what the TLS rooms know of each other; for tls.c and lib/tls_*
 * alone.
 */
#ifndef TLS_INTERNAL_H
#define TLS_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mbedtls/base64.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/oid.h>
#include <mbedtls/pem.h>
#include <mbedtls/pkcs5.h>
#include <mbedtls/platform_time.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>
#include <psa/crypto.h>

#ifdef __linux__
#include <linux/tcp.h>
#include <linux/tls.h>
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD	4	/* of Linux 6.0 */
#endif
#endif

struct stream;

#define HELLO_SESSION_ID 43		/* its offset in a hello's record */
#define HEADER_SIZE	5		/* of a record */
#define RECVS		64		/* in a row, before others run */
#define RECORDS		512		/* likewise, of data */
#define RECORD_EXTRA	256		/* of a record, RFC 8446 section 5.2 */
#define AHEAD_SIZE	(64 * 1024)	/* and a record: the engine's 80 KB */
#define RECORD_MAX	16384		/* plaintext, RFC 8446 section 5.1 */
#define OUT_SIZE	(5 * (HEADER_SIZE + RECORD_MAX + RECORD_EXTRA))
#define HELD_MAX	(OUT_SIZE + 4096)
#define FILE_MAX	(1024 * 1024)	/* of a PEM file */
#define LIST_MAX	32		/* names in a list */
#define SUITES_MAX	64
#define NAME_SIZE	256
#define ERROR_SIZE	1024
#define DN_SIZE		512		/* of a distinguished name, as text */
#define PASSED_MAX	8		/* that are told of */
#define WARN_DAYS	30
#define CRL_WARN_DAYS	3		/* some are good for a week alone */
#define RSA_BITS	2048
#define CLIENT_RSA_MAX	4096		/* bits of a key that a client sends */
#define REQUEST_HEAD	128		/* before issuers, RFC 5246 7.4.4 */
#define CHAIN_MAX	5		/* certificates that a client sends */
#define GENERATED_DAYS	825		/* more, and Apple's clients balk */
#define HOUR		(60 * 60)
#define DAY		(24 * HOUR)
#define SEPARATORS	" \t,:"
#define HASH_SIZE	32		/* SHA-256 */
#define KEYS_MAX	16		/* for tickets */
#define KEY_SIZE	32
#define KEY_NAME_SIZE	16
#define SALT_SIZE	16
#define TAG_SIZE	16
#define TICKET_HEAD	(KEY_NAME_SIZE + SALT_SIZE)
#define TICKET_MAX	8192		/* of what is in it */
#define TICKETS_TRIED	4		/* in a handshake */
#define ID_SIZE		32		/* of a session */
#define WAYS		8		/* places in the cache for an ID */
#define SLOT_SIZE	512		/* of a place there */
#define SLOT_WITH_CLIENT 4096
#define TORN		100		/* keys, read while they are written */
#define CERTIFICATE_REQUIRED 116	/* RFC 8446 section 6.2 */
#define HS_KEY_UPDATE	24		/* RFC 8446 section 4 */
#define SECRET_SIZE	48		/* the master's, or of SHA-384 */
#define IV_SIZE		12		/* of all suites that the kernel has */
#define SEQ_SIZE	8
#define INFO_SIZE	(4 + IV_SIZE + 32 + SEQ_SIZE)	/* for the kernel */

/* Flags against a certificate, beside MBEDTLS_X509_BADCERT_... */
#define CERT_NO_ISSUER	(UINT32_C(1) << 30)
#define CERT_CONSTRAINED (UINT32_C(1) << 29)
#define CERT_CHAIN_TOO_LONG (UINT32_C(1) << 28)
#define CERT_KEY_TOO_LONG (UINT32_C(1) << 27)
#define CERT_SIGNED_ODDLY (UINT32_C(1) << 26)

/*
 * The kernel's records are full; a client that can't have that is not its.  It
 * is told by what the library's are to hold, if it has room for more than the
 * greatest max_fragment_length.
 */
#if defined(MBEDTLS_SSL_MAX_FRAGMENT_LENGTH) || \
    defined(MBEDTLS_SSL_RECORD_SIZE_LIMIT)
#define RECORD_MIN	(MBEDTLS_SSL_OUT_CONTENT_LEN > 4097 ? \
    MBEDTLS_SSL_OUT_CONTENT_LEN - 1 : 4097)
#else
#define RECORD_MIN	1
#endif

#ifndef MSG_MORE
#define MSG_MORE	0
#endif

#define RNG		mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE

struct cert {
	struct cert *next;
	char	*name;			/* its file's */
	mbedtls_x509_crt chain;
	mbedtls_pk_context key;
};

enum kind { CN, DNS, IP, URI, PIN, CERT };

/* What a client's certificate may be. */
struct rule {
	struct rule *next;
	enum kind kind;
	char	*text;			/* of a CN, DNS, URI or CERT */
	unsigned char bytes[HASH_SIZE];	/* of an IP or a PIN */
	size_t	 len;			/* of them */
	mbedtls_x509_crt *certs;	/* in a CERT's file */
};

/* The first one encrypts tickets, all of them decrypt. */
struct keys {
	size_t	 n;
	struct {
		unsigned char name[KEY_NAME_SIZE];
		unsigned char secret[KEY_SIZE];
	} list[KEYS_MAX];
};

/*
 * A place in the cache.  Nobody waits for one: what two processes write at a
 * time, or one that is killed, is no ticket for that ID, and as good as none.
 */
struct slot {
	uint64_t used;			/* greater: later; 0: never */
	unsigned char id[ID_SIZE];
	uint32_t len;
	unsigned char ticket[];
};

/* In memory of all processes: no pointers, and no sizes to be trusted. */
struct shared {
	atomic_uint version;		/* of the keys; odd: being written */
	struct keys keys;
	_Atomic uint64_t clock;		/* counts what is stored */
	unsigned char slots[];
};

struct tls_sessions {
	struct shared *shared;
	size_t	 nslots;
	size_t	 slot_size;
};

struct tls_config {
	mbedtls_ssl_config ssl;
	struct cert *certs;
	mbedtls_x509_crt ca;
	mbedtls_x509_crl crl;
	struct rule *rules;
	char	*passed[PASSED_MAX];	/* what is not used of ca, and why */
	size_t	 npassed;
	int	 has_ca, has_crl, has_pin;
	enum { NOT_ASKED, ASKED, REQUIRED } verify;
	int	 strict_names;
	struct keys keys;		/* of a file; or none */
	struct tls_sessions *sessions;	/* or NULL */
	int	 lifetime;		/* of sessions, in seconds */
	struct tls *current;		/* whose handshake is going on */
	int	 suites[SUITES_MAX + 1];	/* ends with 0, as all here */
	int	 suites_now[SUITES_MAX + 2];	/* for insist_on() */
	uint16_t groups[LIST_MAX + 1];
	const char *alpn[LIST_MAX + 1];		/* allocated */
	int	 min, max;		/* 12 or 13 */
	int	 left_out;		/* the same: no suite is for it; or 0 */
	int	 truncation_is_eof;
	unsigned kernel;		/* what it can do, for us */
	char	 error[ERROR_SIZE];
	/* Of whichever stream is read from, or written to, at the moment. */
	size_t	 ahead_at, ahead_end;
	size_t	 nout;
	unsigned char ahead[AHEAD_SIZE];	/* received, not decrypted */
	unsigned char out[OUT_SIZE];		/* encrypted, not sent */
};

/* The record that passes by; RFC 8446 section 5.1. */
struct record {
	unsigned char head[HEADER_SIZE];
	unsigned char nhead;
	unsigned char body[2];		/* the end of what came of it */
	uint16_t left;			/* of its body */
	uint16_t count;			/* of those that are encrypted alike */
};

/* What the keys of a connection come from. */
union secrets {
	unsigned char traffic[2][SECRET_SIZE];	/* TLS 1.3: client's, ours */
	struct {
		unsigned char secret[SECRET_SIZE];
		unsigned char seed[64];
	} master;				/* TLS 1.2 */
};

/* For the kernel to do it. */
struct kernel {
	const struct cipher *cipher;
	union secrets *secrets;		/* NULL: no more keys will be made */
	int	 is_13;
	int	 sends;			/* it has our keys, not only theirs */
	int	 update_due;		/* the client has asked for new keys */
	int	 unread;		/* it may have more, and not tell */
	uint64_t seq;			/* of its first record */
	uint64_t base;			/* bytes that TCP had until then */
	uint64_t given;			/* bytes that it was to send since */
	uint64_t records;		/* to be added to its record's number */
};

struct tls {
	mbedtls_ssl_context *ssl;	/* NULL: the kernel does it now */
	struct kernel *kernel;		/* NULL: it won't */
	struct tls_config *cfg;
	int	 fd;
	int	 err;			/* errno of a failed recv or send */
	int	 failed;		/* mbed TLS's last error */
	int	 ended;			/* what ended reading, kept: or 0 */
	int	 budget;		/* recv(2)s that are left to it */
	int	 suite;			/* once it is open */
	int	 group;			/* or 0 */
	bool	 open;			/* the handshake is over */
	bool	 fin;			/* recv(2) has answered 0 */
	bool	 drained;		/* there was less than could be */
	bool	 gathering;		/* a write is going on */
	bool	 notified;		/* the client, of our end */
	bool	 holding;		/* what is sent now */
	bool	 sent;			/* it has sent something, this step, */
	bool	 partly;		/* and not all of it */
	bool	 resumed;
	bool	 extended;		/* its master secret, RFC 7627 */
	bool	 hidden;		/* what is sent is encrypted */
	bool	 refused;
	unsigned char flight;		/* 1: our hello, 2: what follows it */
	unsigned char ntickets;		/* that were tried */
	unsigned char alert;		/* that is due at our end */
	unsigned char heard;		/* the client's; 0: not known */
	unsigned char *ahead;		/* what was left of cfg->ahead, */
	size_t	 nahead;		/* and how much that is */
	size_t	 record;		/* bytes of data in one, at most */
	size_t	 unsent;		/* of a write that is to be retried */
	unsigned char *held;		/* to be sent with what comes next */
	size_t	 nheld;
	struct record in, out;		/* out: of the handshake */
	unsigned char first[8];		/* what the client sent first, */
	size_t	 nfirst;		/* and how much that is */
	const char *alpn;
	char	*sni;			/* empty: not a host name */
	char	*client;		/* who it is, once that is verified */
	char	*cn;
	unsigned char *chain;		/* its certificates; see keep_chain() */
	size_t	 chain_len;
	const mbedtls_x509_crt *issuer;	/* of the one to be checked next */
	uint32_t issuers;		/* flags against them */
	char	*why;			/* or no memory for it */
	int64_t	 born;			/* the session that it resumes */
};

/*
 * Say in cfg->error what is wrong with a configuration; -1.  Of several the
 * last one stays.
 */
int	 tls_fail(struct tls_config *, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

#endif
