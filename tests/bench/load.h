/* Shared by load.c and load_many.c. */
#ifndef LOAD_H
#define LOAD_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

#define PIECE		(64 * 1024)
#define PATIENCE	20		/* seconds to wait for an answer */

struct conn {
	int	 fd;
	SSL	*ssl;			/* NULL: no TLS */
	enum { IDLE, TRIP, CONNECTING, HANDSHAKE, WAITING } state;
	int64_t	 began;			/* of the trip or connection (ns) */
	struct conn *next;		/* in the list of idle connections */
};

struct load {
	int	 is_http, is_resuming, has_tls;
	struct sockaddr_in server;
	const char *psk;		/* identity:hex, or NULL */
	SSL_CTX	*ctx;
	SSL_SESSION *session;
	char	 piece[PIECE];
};

extern struct load load;

/* All functions exit on failure. */
void	 fail(const char *what) __attribute__((noreturn));
int64_t	 clock_ns(void);		/* CLOCK_REALTIME, as in packets */
void	 conn_socket(struct conn *, int flags);
void	 conn_tls(struct conn *);
void	 conn_open(struct conn *);
ssize_t	 conn_read(struct conn *, void *, size_t);
void	 conn_close(struct conn *);
void	 ask(struct conn *, char what, uint64_t count);
void	 round_trip(struct conn *);
struct conn *open_all(uint64_t count);

/* Print a line, and wait for one; exit at the end of stdin. */
void	 await_word(const char *format, ...)
	    __attribute__((format(printf, 1, 2)));

void	 run_latency(double seconds, uint64_t count, double trips, double news);
void	 run_rush(uint64_t count, int is_kept);

#endif
