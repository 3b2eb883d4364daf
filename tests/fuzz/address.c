/*
 * An address of accept or connect.  The text made from an address must parse to
 * the same address.
 */
#include <stdlib.h>

#include "fuzz.h"
#include "fuzz_net.h"

static void
try_address(const char *text, int passive)
{
	struct target first, second;
	const struct address *a;
	char why[NET_ERROR_SIZE];

	first = second = (struct target){ .given = text };
	if (net_parse(&first, passive, why, sizeof(why)) == -1 ||
	    first.to == NULL) {
		net_release(first.to);
		return;
	}
	a = first.to->list;
	second.given = a->text;
	must(net_parse(&second, passive, why, sizeof(why)) == 0 &&
	    second.to != NULL, "its text is no address");
	must(strcmp(a->text, second.to->list->text) == 0,
	    "its text is another address");
	must(a->sa.ss_family == AF_UNIX || passive ||
	    net_address_port(a) != 0, "port 0 to connect to");
	net_release(first.to);
	net_release(second.to);
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
