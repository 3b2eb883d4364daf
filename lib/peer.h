/* peer: what stands for a client's address where connections are counted. */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define PEER_TEXT_SIZE	64

/*
 * The key of a normalized address: of all of IPv4, or of a /64 of IPv6, where
 * IPv4 may be embedded (RFC 6052 section 2.1); 0: it is neither.
 */
uint64_t peer_key(const struct sockaddr_storage *);

/* A key as text: "192.0.2.1", "2001:db8::/64" or, for 0, "unix:". */
void	 peer_text(uint64_t key, char *text, size_t size);

#endif
