/*
 * tunnel.c, for a harness: what is logged, at any level, goes where it costs
 * least.
 */
#include "fuzz.h"
#include "fuzz_net.h"

#define main		tunnel_main
#include "../../tunnel.c"
#undef main

void
fuzz_begin(void)
{
	logging.fd = open("/dev/null", O_WRONLY);
	logging.level = LEVEL_DEBUG;
}
