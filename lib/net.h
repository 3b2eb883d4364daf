/* net: addresses and sockets; text in, text out. */
#ifndef NET_H
#define NET_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDRESS_SIZE	128		/* an address as text */
#define HOST_SIZE	256		/* a host name */
#define ADDRESSES	16		/* per name */
#define NET_ERROR_SIZE	2048		/* an error of net_parse() */

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
	char	 text[ADDRESS_SIZE];
};

/*
 * The addresses of a target, with a reference count.  The target of a name may
 * get new addresses: call net_hold() to keep the old ones.
 */
struct addresses {
	size_t	 refs;
	size_t	 n;			/* at least one */
	size_t	 first;			/* to try first: none failed since */
	struct address list[];
};

/* A value of accept or connect. */
struct target {
	struct addresses *to;		/* NULL: fd:N, or not looked up yet */
	in_port_t port;			/* in host byte order */
	int	 is_name;		/* the host needs a lookup */
	int	 any;			/* accept: no host is given */
	int	 fd;			/* fd:N; or -1 */
	const char *given;		/* the text, owned by the caller */
	const char *where;		/* place: "tunnel.conf:12" */
	/* For names, by lib/resolver. */
	size_t	 row;			/* in struct names; SIZE_MAX: none */
	unsigned turn;			/* the row's turn, as last read */
	int	 is_failed, is_cut;	/* logged already */
};

struct targets {
	struct target *list;
	size_t	 n;
};

/*
 * Both endpoints of a client's connection, from its socket or a PROXY header.
 * If they are unknown, the family of from is AF_UNSPEC.
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
 * Convert IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2) to IPv4, and fill in the
 * text: "1.2.3.4:5", "[::1]:5", "unix:/path", "stdin".
 */
void	 net_normalize(struct address *);

/*
 * Convert an IPv4 or IPv6 socket address, with this port in host byte order.
 * 0, or -1: another family.
 */
int	 net_take_address(struct address *, const struct sockaddr *, in_port_t);

/* Convert both endpoints to IPv4 if both are mapped, to keep one family. */
void	 net_unmap_v4(struct endpoints *);

/* The endpoints of a connected socket, after net_unmap_v4(). */
void	 net_endpoints(int fd, struct endpoints *);

/* The port in host byte order; 0: not TCP. */
in_port_t net_address_port(const struct address *);

/*
 * Split "[host:]port".  host is empty if there is none; *port points into text.
 * 0, or -1: invalid, or too long for host.
 */
int	 net_split_address(const char *text, char *host, size_t size,
	    const char **port);

/*
 * The host of a target of connect, without brackets; 127.0.0.1 if none is
 * given. 0, or -1: a path, or too long.
 */
int	 net_host(const struct target *, char *host, size_t size);

/* Allocate an empty list for n addresses, with one reference; or NULL. */
struct addresses *net_addresses(size_t n);

/* Add a reference; drop one.  The last net_release() frees the list. */
struct addresses *net_hold(struct addresses *);
void	 net_release(struct addresses *);

/*
 * Parse target->given; set the other members to zero before.  The caller
 * releases "to".  Without a host, accept (passive) uses all addresses of this
 * machine, and connect 127.0.0.1.  0, or -1 with the error as a clause in why.
 */
int	 net_parse(struct target *, int passive, char *why, size_t size);

/* Release the addresses of all targets, and free the list. */
void	 net_free_targets(struct targets *);

/*
 * Look up the name of a target: *n addresses, at most max, with the target's
 * port, in the order of getaddrinfo(3), without duplicates.  It may block.  0,
 * or the error of getaddrinfo(3).
 */
int	 net_look_up(const struct target *, struct address *list, size_t max,
	    size_t *n);

/*
 * Set TCP_NODELAY, and keepalive so that a dead peer is detected after ms; 0:
 * no keepalive.
 */
void	 net_set_socket_options(int fd, int64_t keepalive_ms);

/*
 * Acknowledge received data at once.  In TLS 1.3 the client sends the last
 * message of the handshake.  Some clients wait for its acknowledgement before
 * they send data.
 */
void	 net_acknowledge(int fd);

/*
 * Connect to an address: a non-blocking socket, connected or in progress, with
 * the options above.  close(2) aborts it, as after stream_reset().  -1 with
 * errno.
 */
int	 net_dial(const struct address *, int64_t keepalive_ms);

/* The text for an errno of net_dial() or of its connection. */
const char *net_dial_error(int error);

/*
 * Listen on an address, non-blocking.  any: an IPv6 socket also accepts IPv4.
 * First remove a stale Unix socket that belongs to root or to us.  -1 with
 * errno.
 */
int	 net_listen(const struct address *, int any);

/* 1 if fd is a listening socket. */
int	 net_is_listening(int fd);

/*
 * Take over an inherited listening socket.  Returns its number, which may have
 * changed, or -1 with errno; ENOTSOCK: not a listening socket.
 */
int	 net_inherit(int fd);

#endif
