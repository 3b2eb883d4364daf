/* keys: peer keys of addresses, for tests of counters. */
#ifndef KEYS_H
#define KEYS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

#include "../../lib/peer.h"
#include "said.h"

static inline uint64_t
key_of(const char *text)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct sockaddr_storage sa;

	memset(&sa, 0, sizeof(sa));
	if (inet_pton(AF_INET, text, &in.sin_addr) == 1)
		memcpy(&sa, &in, sizeof(in));
	else {
		assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr),
		    1);
		memcpy(&sa, &in6, sizeof(in6));
	}
	return peer_key(&sa);
}

#endif
