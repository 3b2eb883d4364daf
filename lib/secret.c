/* secret: output files for -g, -r, -k and -p that only their owner can read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "log.h"
#include "secret.h"

FILE *
secret_open(const char *file)
{
	struct stat st;
	FILE *fp = stdout;

	if (file != NULL) {
		if ((fp = files_create(file, 0600)) == NULL) {
			log_error("-o %s: %s", file, strerror(errno));
			return NULL;
		}
	} else if (fstat(STDOUT_FILENO, &st) == 0 && S_ISREG(st.st_mode) &&
	    (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
		log_error("standard output is a file that others can read "
		    "(mode %04o): use -o FILE, which makes one that only you "
		    "can read",
		    (unsigned)st.st_mode & 07777);
		return NULL;
	}
	setvbuf(fp, NULL, _IONBF, 0);	/* leave no copy in memory */
	return fp;
}

int
secret_close(FILE *fp, const char *file, int status)
{
	if (file == NULL)
		return status;
	if (status == EXIT_SUCCESS && fsync(fileno(fp)) == -1) {
		log_error("-o %s: %s", file, strerror(errno));
		status = EXIT_FAILURE;
	}
	fclose(fp);
	if (status != EXIT_SUCCESS)
		unlink(file);
	return status;
}
