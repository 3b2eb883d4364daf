/*
 * Variables of systemd: LISTEN_PID (! for this process), LISTEN_FDS and
 * NOTIFY_SOCKET, separated by zeros.
 */
#include <fcntl.h>
#include <sys/socket.h>

static int	 fake_fcntl(int, int, ...);
static ssize_t	 fake_sendto(int, const void *, size_t, int,
		    const struct sockaddr *, socklen_t);

#define fcntl	fake_fcntl
#include "../../lib/arguments.c"
#undef fcntl
#define sendto	fake_sendto
#include "../../lib/daemon.c"
#undef sendto

#include "fuzz_log.h"

/* Allow only descriptors that systemd may pass. */
static int
fake_fcntl(int fd, int command, ...)
{
	(void)command;
	must(fd >= SD_LISTEN_FDS_START &&
	    fd < SD_LISTEN_FDS_START + SOCKETS_MAX,
	    "not a descriptor of systemd's");
	return 0;
}

/* Read the complete address, for the sanitizer. */
static ssize_t
fake_sendto(int fd, const void *p, size_t len, int flags,
    const struct sockaddr *to, socklen_t tolen)
{
	struct sockaddr_un un = { .sun_family = AF_UNSPEC };

	(void)fd;
	(void)p;
	(void)flags;
	must(tolen <= sizeof(un), "an address that is too long");
	memcpy(&un, to, tolen);
	return un.sun_family == AF_UNIX ? (ssize_t)len : -1;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {
		"LISTEN_PID", "LISTEN_FDS", "NOTIFY_SOCKET"
	};
	struct input in = { data, size };
	struct arguments a = { .passed = 0 };
	char pid[16], *text;
	size_t i;

	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		text = take_text(&in);
		setenv(names[i], strcmp(text, "!") == 0 ? pid : text, 1);
		free(text);
	}
	arguments_environment(&a);
	must(a.passed >= 0 && a.passed <= SOCKETS_MAX,
	    "more listeners than there can be");
	daemon_notify(a.notify, "READY=1");
	return 0;
}
