/* peer: what stands for a client's address where connections are counted. */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/*
 * Of a normalized address: IPv4, or a /64 of IPv6; 0 is none.  An IPv4 address
 * may come in one more form (RFC 6052 section 2.1).
 */
uint64_t peer_key(const struct sockaddr_storage *);

/* The same as text: "192.0.2.1", "2001:db8::/64" or, of 0, "unix:". */
void	 peer_text(uint64_t key, char *text, size_t size);

#endif
