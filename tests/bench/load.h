/* What load.c and load_many.c have in common. */
#ifndef LOAD_H
#define LOAD_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

#define PIECE		(64 * 1024)
#define PATIENCE	20		/* seconds, for any answer */

struct conn {
	int	 fd;
	SSL	*ssl;			/* NULL: no TLS */
	enum { IDLE, TRIP, CONNECTING, HANDSHAKE, WAITING } state;
	int64_t	 began;			/* its round trip, or itself: ns */
	struct conn *next;		/* in the list of those that are idle */
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

/* All of these end the program where they fail. */
void	 fail(const char *what) __attribute__((noreturn));
int64_t	 clock_ns(void);		/* CLOCK_REALTIME, as packets have it */
void	 conn_socket(struct conn *, int flags);
void	 conn_tls(struct conn *);
void	 conn_open(struct conn *);
ssize_t	 conn_read(struct conn *, void *, size_t);
void	 conn_close(struct conn *);
void	 ask(struct conn *, char what, uint64_t count);
void	 round_trip(struct conn *);
struct conn *open_all(uint64_t count);

/* Say that, and wait for a line; at the end of stdin the program ends. */
void	 await_word(const char *format, ...)
	    __attribute__((format(printf, 1, 2)));

void	 run_latency(double seconds, uint64_t count, double trips, double news);
void	 run_rush(uint64_t count, int is_kept);

#endif
