/* defaults: a configuration with only defaults, for each test. */
#ifndef DEFAULTS_H
#define DEFAULTS_H

#include <string.h>

#include "../../lib/config.h"
#include "said.h"

static inline int
setup(void **state)
{
	static struct config cfg;

	memset(&cfg, 0, sizeof(cfg));
	config_defaults(&cfg);
	*state = &cfg;
	said_reset();
	return 0;
}

static inline int
teardown(void **state)
{
	config_free(*state);
	return 0;
}

#endif
