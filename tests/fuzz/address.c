/*
 * An address to accept on, or to connect to.  The text that is made of one
 * names the same one.
 */
#include <stdlib.h>

#include "fuzz.h"
#include "fuzz_net.h"

static void
try_address(const char *text, int passive)
{
	static struct target first, second;
	char why[NET_ERROR_SIZE];

	first = (struct target){ .given = text };
	if (net_resolve(&first, passive, why, sizeof(why)) == -1 ||
	    first.n == 0)
		return;
	second = (struct target){ .given = first.addrs->text };
	must(net_resolve(&second, passive, why, sizeof(why)) == 0 &&
	    second.n == 1, "its text is no address");
	must(strcmp(first.addrs->text, second.addrs->text) == 0,
	    "its text is another address");
	must(first.addrs->sa.ss_family == AF_UNIX || passive ||
	    net_address_port(first.addrs) != 0, "port 0 to connect to");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	char *text = take_text(&in);

	try_address(text, 0);
	try_address(text, 1);
	free(text);
	return 0;
}
