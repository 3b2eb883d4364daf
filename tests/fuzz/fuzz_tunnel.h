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
	log_to(open("/dev/null", O_WRONLY), -1);
	log_set_state(&(struct log_state){ .level = LEVEL_DEBUG });
}
