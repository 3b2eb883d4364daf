/* handover: the format of the state that is passed at an upgrade. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handover.h"
#include "memory.h"
#include "util.h"

/* Make room for len more bytes.  Erase the old copy: it may hold secrets. */
static void
grow(struct handover *x, size_t len)
{
	size_t size = 2 * x->size + len;
	unsigned char *p = malloc(size);

	if (p == NULL) {
		x->bad = "out of memory";
		return;
	}
	if (x->p != NULL) {
		memcpy(p, x->p, x->at);
		explicit_bzero(x->p, x->at);
	}
	free(x->p);
	x->p = p;
	x->size = size;
}

void
handover_bytes(struct handover *x, void *data, size_t len)
{
	if (x->bad == NULL && len > x->size - x->at) {
		if (x->reads)
			x->bad = "it is incomplete";
		else
			grow(x, len);
	}
	if (x->bad != NULL || x->p == NULL)
		return;
	if (x->reads)
		memcpy(data, x->p + x->at, len);
	else
		memcpy(x->p + x->at, data, len);
	x->at += len;
}

void
handover_number(struct handover *x, int64_t *n, int64_t min, int64_t max)
{
	handover_bytes(x, n, sizeof(*n));
	if (x->bad == NULL && (*n < min || *n > max))
		x->bad = "a number is out of range";
	if (x->bad != NULL && x->reads)
		*n = min;
}

void
handover_int(struct handover *x, int *n, int min, int max)
{
	int64_t number = *n;

	handover_number(x, &number, min, max);
	*n = (int)number;
}

void
handover_size(struct handover *x, size_t *n, size_t max)
{
	int64_t number = (int64_t)*n;

	handover_number(x, &number, 0, (int64_t)max);
	*n = (size_t)number;
}

void
handover_fd(struct handover *x, int *fd)
{
	int *fds;

	handover_int(x, fd, -1, INT_MAX);
	if (x->bad != NULL && x->reads)
		*fd = -1;
	if (x->bad != NULL || *fd <= STDERR_FILENO)
		return;
	fds = realloc(x->fds, (x->nfds + 1) * sizeof(*fds));
	if (fds == NULL) {
		x->bad = "out of memory";
		return;
	}
	x->fds = fds;
	x->fds[x->nfds++] = *fd;
	if (x->reads && fcntl(*fd, F_SETFD, FD_CLOEXEC) == -1)
		x->bad = "a descriptor is not open";
}

void
handover_text(struct handover *x, char **text)
{
	char *p = x->reads ? NULL : *text;
	int64_t len = p != NULL ? (int64_t)strlen(p) : -1;

	handover_number(x, &len, -1, HANDOVER_MAX);
	*text = p;
	if (x->bad != NULL || len == -1)
		return;
	if (x->reads && (size_t)len > x->size - x->at)
		x->bad = "it is incomplete";
	else if (p == NULL && (p = calloc(1, (size_t)len + 1)) == NULL)
		x->bad = "out of memory";
	else
		handover_bytes(x, p, (size_t)len);
	if (p != NULL && x->bad == NULL && strlen(p) != (size_t)len)
		x->bad = "a text is malformed";
	*text = p;
}

void
handover_texts(struct handover *x, char ***texts)
{
	char **p = x->reads ? NULL : *texts;
	size_t i, n = 0;

	while (p != NULL && p[n] != NULL)
		n++;
	handover_size(x, &n, HANDOVER_MAX / sizeof(*p));
	if (p == NULL && (p = calloc(n + 1, sizeof(*p))) == NULL)
		x->bad = "out of memory";
	*texts = p;
	for (i = 0; i < n && x->bad == NULL; i++)
		handover_text(x, &p[i]);
}

void
handover_free_texts(char **texts)
{
	size_t i;

	for (i = 0; texts != NULL && texts[i] != NULL; i++)
		free(texts[i]);
	free(texts);
}

void
handover_expose(const struct handover *x, int flag)
{
	size_t i;

	for (i = 0; i < x->nfds; i++)
		fcntl(x->fds[i], F_SETFD, flag);
}

void
handover_free(struct handover *x)
{
	if (x->reads && x->p != NULL)
		munmap(x->p, x->size);
	if (!x->reads && x->p != NULL) {
		explicit_bzero(x->p, x->at);
		free(x->p);
	}
	free(x->fds);
}

int
handover_seal(const struct handover *x)
{
	int fd = memory_file();

	if (fd != -1 && (write(fd, x->p, x->at) != (ssize_t)x->at ||
	    memory_seal(fd, 0) == -1))
		return close_failed(fd);
	return fd;
}

void
handover_open(struct handover *x, int fd)
{
	int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	*x = (struct handover){ .reads = 1 };
	if (seals == -1 || (seals & sealed) != sealed)
		x->bad = "it is not sealed";
	else if (fstat(fd, &st) == -1 || st.st_size > HANDOVER_MAX)
		x->bad = "it is too long";
	else if ((p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE,
	    fd, 0)) == MAP_FAILED)
		x->bad = strerror(errno);
	else {
		x->p = p;
		x->size = (size_t)st.st_size;
	}
}
