/* peer: the key of a client's address, to count connections and log lines. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "peer.h"

uint64_t
peer_key(const struct sockaddr_storage *sa)
{
	static const uint8_t nat64[12] = { 0, 0x64, 0xff, 0x9b };
	const struct sockaddr_in *in = (const void *)sa;
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const uint8_t *b = in6->sin6_addr.s6_addr;
	uint64_t key = 0;
	size_t i;

	if (sa->ss_family == AF_INET)
		return UINT64_MAX << 32 | ntohl(in->sin_addr.s_addr);
	if (sa->ss_family != AF_INET6)
		return 0;
	if (memcmp(b, nat64, sizeof(nat64)) == 0)
		return UINT64_MAX << 32 | (uint64_t)b[12] << 24 |
		    (uint64_t)b[13] << 16 | (uint64_t)b[14] << 8 | b[15];
	for (i = 0; i < 8; i++)
		key = key << 8 | b[i];
	return key != 0 ? key : 1;	/* ::/64, such as ::1 */
}

void
peer_text(uint64_t key, char *text, size_t size)
{
	struct in6_addr in6 = { .s6_addr = { 0 } };
	struct in_addr in = { .s_addr = htonl((uint32_t)key) };
	char host[INET6_ADDRSTRLEN];
	size_t i;

	for (i = 0; i < 8 && key > 1; i++)
		in6.s6_addr[i] = (uint8_t)(key >> (56 - 8 * i));
	if (key == 0)
		snprintf(text, size, "unix:");
	else if (key >> 32 == UINT32_MAX)
		inet_ntop(AF_INET, &in, text, (socklen_t)size);
	else
		snprintf(text, size, "%s/64", inet_ntop(AF_INET6, &in6, host,
		    sizeof(host)));
}
