/* A configuration file, parsed without opening the files that it names. */
#include "fuzz_log.h"
#include "fuzz_net.h"
#include "../../lib/generation.c"

static void
use(struct config *cfg)
{
	struct targets accepts = { .n = 0 }, connects = { .n = 0 };
	FILE *null = fopen("/dev/null", "w");

	must(null != NULL, "/dev/null");
	config_defaults_of_role(cfg);
	config_check(cfg, 0);
	config_check(cfg, 1);
	config_print(cfg, null);
	parse_all(&accepts, cfg->given[ACCEPT], 1);
	parse_all(&connects, cfg->given[CONNECT], 0);
	fclose(null);
	net_free_targets(&accepts);
	net_free_targets(&connects);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config cfg = { .command = NULL };
	char *none[] = { NULL };

	config_defaults(&cfg);
	if (config_file(&cfg, file_of((struct input){ data, size })) == 0 &&
	    config_command(&cfg, none) == 0)
		use(&cfg);
	config_free(&cfg);
	return 0;
}
