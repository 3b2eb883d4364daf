/*
 * proxy: make and parse headers of the PROXY protocol, which pass the client's
 * address at the start of a stream; see section 2 of
 * https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
 */
#ifndef PROXY_H
#define PROXY_H

#include <stddef.h>

struct endpoints;
struct stream;

#define PROXY_V2_HEAD	16
#define PROXY_V2_BODY	2048		/* longest one accepted */

enum { PROXY_OFF, PROXY_V1, PROXY_V2 };

/* TLS values for version 2; texts may be NULL.  version NULL: no TLS. */
struct proxy_tls {
	const char *version, *cipher, *alpn;
	const char *name;		/* SNI */
	const char *client;		/* common name of its certificate */
	int	 has_client;		/* there is a client certificate */
	int	 resumed;		/* the session was resumed */
};

/* A header that is being written or read. */
struct proxy {
	size_t	 done;			/* bytes written or read */
	size_t	 len;			/* bytes to write */
	unsigned char data[PROXY_V2_HEAD + PROXY_V2_BODY + 1];
};

/*
 * Make a header to be written, of version PROXY_V1, which has no TLS values, or
 * PROXY_V2.
 */
void	 proxy_make(struct proxy *, int version, const struct endpoints *,
	    const struct proxy_tls *);

/* Continue to write a header to an open stream.  0: done; or its result. */
int	 proxy_write(struct proxy *, struct stream *);

/*
 * Continue to read a header from a socket, and no byte after it; the struct is
 * all zeros at first.  0 with its endpoints, after net_unmap_v4(): the family
 * of from is AF_UNSPEC if the socket's own endpoints count (UNKNOWN, LOCAL).
 * Or a stream's result; with STREAM_ERROR, the error is in why.
 */
int	 proxy_read(struct proxy *, int fd, struct endpoints *, char *why,
	    size_t size);

#endif
