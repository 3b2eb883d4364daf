/*
 * proxy: headers of the PROXY protocol, made and parsed.  They say in front of
 * a stream who its client is; see section 2 of
 * https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
 */
#ifndef PROXY_H
#define PROXY_H

#include <stddef.h>

struct endpoints;
struct stream;

#define PROXY_V2_HEAD	16
#define PROXY_V2_BODY	2048		/* at most, that is taken */

enum { PROXY_OFF, PROXY_V1, PROXY_V2 };

/* What version 2 tells of TLS, if there is a version; texts may be NULL. */
struct proxy_tls {
	const char *version, *cipher, *alpn;
	const char *name;		/* that was asked for */
	const char *client;		/* the common name of its certificate */
	int	 has_client;		/* it has one, */
	int	 resumed;		/* the session was resumed */
};

/* A header on its way: out, or in. */
struct proxy {
	size_t	 done;			/* bytes of it */
	size_t	 len;			/* of one that goes out */
	unsigned char data[PROXY_V2_HEAD + PROXY_V2_BODY + 1];
};

/*
 * Make the header of a connection, to be written: of version PROXY_V1, which
 * tells nothing of TLS, or PROXY_V2.
 */
void	 proxy_make(struct proxy *, int version, const struct endpoints *,
	    const struct proxy_tls *);

/*
 * Write what is left of it to a stream that is open.  0 once all of it is
 * written; otherwise what the stream has answered.
 */
int	 proxy_write(struct proxy *, struct stream *);

/*
 * Read a header from a socket, and not a byte more; it is all zero at first.
 * 0 with the endpoints that it tells, normalized; of from, the family is
 * AF_UNSPEC if it says that the connection is what it looks like.  Otherwise a
 * stream's result; of STREAM_ERROR, the reason is in why.
 */
int	 proxy_read(struct proxy *, int fd, struct endpoints *, char *why,
	    size_t size);

#endif
