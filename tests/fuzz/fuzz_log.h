/* For harnesses of code that logs: write the log to /dev/null. */
#include <fcntl.h>

#include "fuzz.h"
#include "../../lib/log.h"

void
fuzz_begin(void)
{
	log_to(open("/dev/null", O_WRONLY), -1);
	log_set_state(&(struct log_state){ .level = LEVEL_DEBUG });
}
