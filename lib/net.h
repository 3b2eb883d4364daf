/* net: addresses and sockets; text in, text out. */
#ifndef NET_H
#define NET_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDRESS_SIZE	128		/* of an address as text */
#define HOST_SIZE	256		/* of a host's name */
#define ADDRESSES	16		/* of one name */
#define NET_ERROR_SIZE	2048		/* of what is wrong with one */

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
	char	 text[ADDRESS_SIZE];
};

/*
 * The addresses of a target.  Those of a name may be replaced by others: who
 * works with the old ones keeps them, by net_hold().
 */
struct addresses {
	size_t	 refs;
	size_t	 n;			/* at least one */
	size_t	 first;			/* to be tried: the last that opened */
	struct address list[];
};

/* What one accept or connect names. */
struct target {
	struct addresses *to;		/* NULL: fd:N, or not looked up yet */
	in_port_t port;			/* in host byte order */
	int	 is_name;		/* its host has to be looked up */
	int	 any;			/* no host was named */
	int	 fd;			/* of fd:N; or -1 */
	const char *given;		/* its text, and where that stands: */
	const char *where;		/* "tunnel.conf:12"; the caller's */
	/* A name's: see lib/resolver. */
	size_t	 row;			/* of what is shared; SIZE_MAX: none */
	unsigned turn;			/* how often that was changed */
	int	 is_failed, is_cut;	/* that has been logged */
};

struct targets {
	struct target *list;
	size_t	 n;
};

/*
 * Both ends of a client's connection, as its socket or a balancer tells them.
 * Where they are not known, the family of from is AF_UNSPEC.
 */
union endpoint {
	struct sockaddr_storage any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

struct endpoints {
	union endpoint from, to;
};

/*
 * Bring an address, wherever it comes from, into its one form, and fill in its
 * text: "1.2.3.4:5", "[::1]:5", "unix:/path".  What is IPv4-mapped (RFC 4291
 * section 2.5.5.2) becomes IPv4.
 */
void	 net_normalize(struct address *);

/*
 * Make one of a socket's address, IPv4 or IPv6, with that port in host byte
 * order.  -1: it is neither.
 */
int	 net_take_address(struct address *, const struct sockaddr *, in_port_t);

/* Make IPv4 of both endpoints, if both are mapped: they stay of one family. */
void	 net_unmap_v4(struct endpoints *);

/* Those of a connected socket, normalized. */
void	 net_endpoints(int fd, struct endpoints *);

/* The port, in host byte order; 0: it is not TCP. */
in_port_t net_address_port(const struct address *);

/*
 * Host and port of "[host:]port": host is empty when there is none, port
 * points into the text.  0, or -1: it is no such thing, or host has no room.
 */
int	 net_split_address(const char *text, char *host, size_t size,
	    const char **port);

/*
 * The host that a target to connect to names, without brackets, 127.0.0.1 if it
 * names none.  -1: it is no host's, but a path.
 */
int	 net_host(const struct target *, char *host, size_t size);

/* Room for n addresses, held once, with neither of them; or NULL. */
struct addresses *net_addresses(size_t n);

/* One more holds them; one no longer does, and the last frees them. */
struct addresses *net_hold(struct addresses *);
void	 net_release(struct addresses *);

/*
 * Fill in what target->given names; the rest of it is zero before that, and
 * "to" is to be released.  No host is every address of this machine to accept
 * on (passive), and 127.0.0.1 to connect to.  -1 with what is wrong as a clause
 * in why.
 */
int	 net_parse(struct target *, int passive, char *why, size_t size);

/* Release the addresses of all targets, and free the list. */
void	 net_free_targets(struct targets *);

/*
 * Look a target's name up, in the order of getaddrinfo(3), which may take long:
 * *n addresses, up to max, with the target's port, none of them twice.  0, or
 * the error of getaddrinfo(3).
 */
int	 net_look_up(const struct target *, struct address *list, size_t max,
	    size_t *n);

/*
 * TCP_NODELAY, and keepalive: ms until a peer that does not answer is given
 * up; 0: never.
 */
void	 net_set_socket_options(int fd, int64_t keepalive_ms);

/*
 * Acknowledge at once what has been read.  In TLS 1.3 the client has the last
 * word of the handshake: one that waits for its acknowledgement before it
 * sends more shall not wait long.
 */
void	 net_acknowledge(int fd);

/*
 * A socket that is connecting to an address: non-blocking, with the options
 * above, and aborted by close(2) as by stream_reset().  -1 with errno.
 */
int	 net_dial(const struct address *, int64_t keepalive_ms);

/* The text of an errno of net_dial(), or of its connection. */
const char *net_dial_error(int error);

/*
 * A socket that listens on an address, non-blocking; any: on IPv4 as well.  On
 * a Unix socket's path, one that nobody listens on any more is removed, if it
 * is root's or ours.  -1 with errno.
 */
int	 net_listen(const struct address *, int any);

/* 1 if it is a listening socket. */
int	 net_is_listening(int fd);

/*
 * Take over a listening socket that was passed to us.  Its number, which may be
 * another one now, or -1 with errno; ENOTSOCK: it is none.
 */
int	 net_inherit(int fd);

#endif
