/* peer: the key of a client's address, to count connections and log lines. */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define PEER_TEXT_SIZE	64

/*
 * The key of a normalized address: an IPv4 address, also if embedded in IPv6 by
 * the well-known prefix (RFC 6052 section 2.1), or a /64 of IPv6.  0: another
 * family.
 */
uint64_t peer_key(const struct sockaddr_storage *);

/* A key as text: "192.0.2.1", "2001:db8::/64" or, for 0, "unix:". */
void	 peer_text(uint64_t key, char *text, size_t size);

#endif
