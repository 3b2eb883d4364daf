/* Unit tests of the sandbox, in children that exit with the failed line. */
#include "../../lib/sandbox.c"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "said.h"

static int
setup(void **state)
{
	(void)state;
	said_reset();
	return 0;
}

#define MUST(condition)	do { if (!(condition)) leave(__LINE__ % 255 + 1); } \
	while (0)

/* Do not use _exit(3): sanitizers intercept it with calls that are denied. */
static void
leave(int status)
{
	syscall(SYS_exit_group, status);
}

static void
in_child(void (*function)(const struct sandbox *), const struct sandbox *box)
{
	int status;
	pid_t pid;

	if ((pid = fork()) == 0) {
		function(box);
		leave(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0)
		fail_msg("status 0x%x: the line is %d, modulo 255", status,
		    WEXITSTATUS(status) - 1);
}

static struct sockaddr_in
local(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
	    .sin_port = htons((in_port_t)port),
	    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* A listening socket on any port. */
static int
some_listener(in_port_t *port)
{
	struct sockaddr_in in = local(0);
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

static int
connects(int port)
{
	struct sockaddr_in in = local(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0), r;

	r = connect(fd, (struct sockaddr *)&in, sizeof(in));
	if (r == -1)
		return close_failed(fd);
	close(fd);
	return 0;
}

static int
binds(void)
{
	struct sockaddr_in in = local(0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	return bind(fd, (struct sockaddr *)&in, sizeof(in));
}

static in_port_t other_port;

static void
child_of_landlock(const struct sandbox *box)
{
	char *argv[] = { "true", NULL };

	MUST(open("/etc/passwd", O_RDONLY) != -1);
	MUST(connects(other_port) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(landlock_enter(box) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1 && errno == EACCES);
	MUST(open("/", O_RDONLY) == -1 && errno == EACCES);
	MUST(mkdir("/tmp/tunnel.unit", 0700) == -1 && errno == EACCES);
	MUST(execv("/bin/true", argv) == -1 && errno == EACCES);
	MUST(connects(box->ports[0]) == 0);
	if (landlock_abi() >= LANDLOCK_WITH_TCP) {
		MUST(connects(other_port) == -1 && errno == EACCES);
		MUST(binds() == -1 && errno == EACCES);
	}
	if (landlock_abi() >= LANDLOCK_WITH_SCOPES)
		MUST(kill(getppid(), 0) == -1 && errno == EPERM);
}

static void
child_of_filter(const struct sandbox *box)
{
	char *argv[] = { "true", NULL };
	const struct sockaddr nowhere = { .sa_family = AF_UNSPEC };
	const struct linger off = { .l_onoff = 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), port = 0;
	const struct rlimit limit = { 64, 64 };
	int shared = fcntl(fd, F_DUPFD, 64);
	socklen_t len = sizeof(port);

	MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(filter_enter(box) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1 && errno == ENOSYS);
	MUST(execv("/bin/true", argv) == -1 && errno == ENOSYS);
	MUST(fork() == -1 && errno == ENOSYS);
	MUST(binds() == -1 && errno == ENOSYS);
	MUST(listen(fd, 1) == -1 && errno == ENOSYS);
	MUST(kill(getppid(), 0) == -1 && errno == ENOSYS);
	MUST(mmap(NULL, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
	    -1, 0) == MAP_FAILED && errno == EPERM);
	MUST(mprotect(argv, 1, PROT_EXEC) == -1 && errno == EPERM);
	MUST(mmap(NULL, 1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
	    MAP_FAILED);
	MUST(socket(AF_INET, SOCK_DGRAM, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_RAW, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET, SOCK_STREAM, 262) == -1 && errno == EPERM);
	MUST(socket(AF_NETLINK, SOCK_STREAM, 0) == -1 && errno == EPERM);
	MUST(socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
	    0) != -1 || errno == EAFNOSUPPORT);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) == -1 && errno == EPERM);
	MUST(send(fd, "", 1, MSG_FASTOPEN) == -1 && errno == EPERM);
	MUST(fcntl(fd, F_SETFL, 0) == -1 && errno == ENOSYS);
	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &port, sizeof(port)) ==
	    -1 && errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_IP, IP_TTL, &port, sizeof(port)) == -1 &&
	    errno == EPERM);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, &len) == -1 &&
	    errno == EPERM);
	/* The same option numbers at another level. */
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &port, len) == -1 &&
	    errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == -1 &&
	    errno == EPERM);
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &port, len) == 0);
	MUST(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &port, len) == 0);
	MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) == 0);
	MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &port, &len) == 0);
	/* Sockets that are shared with the master and other workers. */
	MUST(shutdown(shared, SHUT_RDWR) == -1 && errno == EPERM);
	MUST(setsockopt(shared, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) ==
	    -1 && errno == EPERM);
	MUST(connect(shared, &nowhere, sizeof(nowhere)) == -1 &&
	    errno == EPERM);
	MUST(shutdown(STDERR_FILENO, SHUT_RDWR) == -1 && errno == EPERM);
	/* Descriptors can't be passed, and data has no other destination. */
	MUST(sendmsg(fd, NULL, 0) == -1 && errno == ENOSYS);
	MUST(recvmsg(fd, NULL, 0) == -1 && errno == EPERM);
	MUST(recvmsg(shared + 1, NULL, 0) == -1 && errno == EPERM);
	MUST(dup3(fd, shared, 0) == -1 && errno == EPERM);
	/* Except the control channel. */
	MUST(recvmsg(shared, NULL, 0) == -1 && errno == EFAULT);
	MUST(sendto(fd, "", 1, 0, &nowhere, sizeof(nowhere)) == -1 &&
	    errno == EPERM);
	MUST(connects(box->ports[0]) == 0 && connects(other_port) == 0);
}

static void
child_of_sandbox(const struct sandbox *box)
{
	char text[8];

	MUST(sandbox_enter(box) == 0);
	MUST(open("/etc/passwd", O_RDONLY) == -1);
	MUST(execlp("true", "true", (char *)NULL) == -1);
	MUST(connects(box->ports[0]) == 0);
	MUST(landlock_abi() < LANDLOCK_WITH_TCP || connects(other_port) == -1);
	/* Calls that a worker needs. */
	MUST(getrandom(text, sizeof(text), 0) == sizeof(text));
	MUST(poll(NULL, 0, 1) == 0);
	MUST(clock_ms() > 0);
	MUST(snprintf(text, sizeof(text), "%d", 5) == 1);
	free(malloc(1 << 20));
	log_info("still here");
}

static void
test_sandbox(void **state)
{
	in_port_t port;
	int listeners[2];
	const struct sandbox box = { .ports = &port, .nports = 1,
	    .log = log_fd(), .control = 64 };

	(void)state;
	listeners[0] = some_listener(&port);
	listeners[1] = some_listener(&other_port);
	if (landlock_abi() > 0)
		in_child(child_of_landlock, &box);
	if (has_filter())
		in_child(child_of_filter, &box);
	in_child(child_of_sandbox, &box);
	assert_string_equal(said(), "tunnel: still here\n");
	close(listeners[0]);
	close(listeners[1]);
}

/* A command is not restricted, but can't gain privileges. */

static void
child_with_command(const struct sandbox *box)
{
	MUST(sandbox_enter(box) == 0);
	MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	MUST(open("/etc/passwd", O_RDONLY) != -1);
	MUST(connects(other_port) == 0);
}

static void
test_command(void **state)
{
	const struct sandbox box = { .runs_command = 1 };
	int listener = some_listener(&other_port);

	(void)state;
	in_child(child_with_command, &box);
	close(listener);
}

#define TEST(name)	cmocka_unit_test_setup(name, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sandbox),
		TEST(test_command),
	};

	return said_init() == -1 ? 1 :
	    cmocka_run_group_tests(tests, NULL, NULL);
}
