/*
 * sandbox: restrict workers to what they need.  Landlock denies files and
 * ports, seccomp(2) denies system calls.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/tls.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#include "sandbox.h"
#include "util.h"

#ifdef __linux__

/*
 * Landlock (Documentation/userspace-api/landlock.rst in the kernel), with its
 * numbers: the headers may be older than the kernel.
 */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset	444
#define SYS_landlock_add_rule		445
#define SYS_landlock_restrict_self	446
#endif
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD		4
#endif
#define TYPE_MASK	15		/* socket(2): the type without flags */
#define LANDLOCK_VERSION	1u
#define LANDLOCK_NET_PORT	2	/* rule type */
#define LANDLOCK_TCP_BIND	1u
#define LANDLOCK_TCP_CONNECT	2u
#define LANDLOCK_SCOPES		3u	/* abstract Unix sockets, signals */
enum { LANDLOCK_WITH_TCP = 4, LANDLOCK_WITH_SCOPES = 6 };

/* Bits of accesses to be denied. */
struct landlock_ruleset {
	uint64_t files, tcp, scopes;
};

struct landlock_port {
	uint64_t allowed, port;
};

/* The ABI version of Landlock; 0: not supported. */
static long
landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0,
	    LANDLOCK_VERSION);

	return abi < 0 ? 0 : abi;
}

static int
landlock_allow(int fd, const struct sandbox *box)
{
	size_t i;

	for (i = 0; i < box->nports; i++) {
		struct landlock_port p = { LANDLOCK_TCP_CONNECT,
		    box->ports[i] };

		if (syscall(SYS_landlock_add_rule, fd, LANDLOCK_NET_PORT, &p,
		    0u) == -1)
			return -1;
	}
	return 0;
}

/* Deny all files, and TCP connections except to the ports. */
static int
landlock_enter(const struct sandbox *box)
{
	static const uint64_t files[] = { 0, 0x1fff, 0x3fff, 0x7fff, 0x7fff,
	    0xffff };
	struct landlock_ruleset rules = { 0 };
	long abi = landlock_abi();
	int fd, r = -1;

	if (abi == 0)
		return 0;
	rules.files = files[abi < 5 ? abi : 5];
	if (abi >= LANDLOCK_WITH_TCP)
		rules.tcp = LANDLOCK_TCP_BIND | LANDLOCK_TCP_CONNECT;
	if (abi >= LANDLOCK_WITH_SCOPES)
		rules.scopes = LANDLOCK_SCOPES;
	fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules),
	    0u);
	if (fd == -1)
		return -1;
	if (rules.tcp == 0 || landlock_allow(fd, box) == 0)
		r = (int)syscall(SYS_landlock_restrict_self, fd, 0u);
	if (r == -1)
		return close_failed(fd);
	close(fd);
	return 0;
}

static int
drop_capabilities(void)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3
	};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return (int)syscall(SYS_capset, &head, none);
}

/*
 * The system calls of a worker, and equivalents that another libc may use.  All
 * others return ENOSYS: then a libc with newer system calls falls back to
 * these.
 */
#if defined(__x86_64__) || defined(__aarch64__)
#ifdef __x86_64__
#define OUR_ARCH	AUDIT_ARCH_X86_64
#define OLD_POLL	SYS_poll
#define OLD_CALLS	OLD_POLL, SYS_epoll_wait, SYS_accept, SYS_time
#else
#define OUR_ARCH	AUDIT_ARCH_AARCH64
#define OLD_POLL	SYS_ppoll
#define OLD_CALLS	SYS_accept
#endif

static const int allowed[] = {
	SYS_epoll_pwait, SYS_recvfrom, SYS_sendto, SYS_epoll_ctl, SYS_read,
	SYS_write, SYS_readv, SYS_writev, SYS_ppoll, SYS_accept4, SYS_socket,
	SYS_connect, SYS_close, SYS_shutdown, SYS_getsockopt, SYS_setsockopt,
	SYS_getsockname, SYS_getpeername, SYS_rt_sigprocmask,
	SYS_rt_sigreturn, SYS_restart_syscall, SYS_clock_gettime,
	SYS_gettimeofday, SYS_getrandom, SYS_getpid, SYS_gettid, SYS_brk,
	SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise,
	SYS_futex, SYS_sched_yield, SYS_exit, SYS_exit_group, OLD_CALLS,
	SYS_recvmsg, SYS_dup3
};

/*
 * Also needed with kernel TLS; recvmsg(2) is then not limited to the control
 * channel.  The risk: both can pass descriptors, to a process outside of the
 * sandbox, or to the same process, as a second number for a listener.
 */
static const int allowed_with_tls[] = { SYS_sendmsg };

/* The system calls of a relay, which only uses open descriptors. */
static const int allowed_to_relay[] = {
	SYS_read, SYS_write, SYS_ppoll, SYS_close, SYS_shutdown,
	SYS_rt_sigreturn, SYS_restart_syscall, SYS_exit, SYS_exit_group,
	OLD_POLL
};

/* Socket options that a worker may set and get. */
struct socket_option {
	int	 level, name;
};

static const struct socket_option may_set[] = {
	{ IPPROTO_TCP, TCP_NODELAY }, { IPPROTO_TCP, TCP_QUICKACK },
	{ IPPROTO_TCP, TCP_KEEPIDLE }, { IPPROTO_TCP, TCP_KEEPINTVL },
	{ IPPROTO_TCP, TCP_KEEPCNT },
	{ SOL_SOCKET, SO_KEEPALIVE }, { SOL_SOCKET, SO_LINGER },
	/* With kernel TLS. */
	{ IPPROTO_TCP, TCP_ULP }, { SOL_TLS, TLS_TX }, { SOL_TLS, TLS_RX },
	{ SOL_TLS, TLS_RX_EXPECT_NO_PAD }
};
#define MAY_SET	7		/* without kernel TLS */

static const struct socket_option may_get[] = {
	{ SOL_SOCKET, SO_ERROR }, { IPPROTO_TCP, TCP_INFO },
	/* With kernel TLS. */
	{ SOL_TLS, TLS_TX }
};
#define MAY_GET	2

/* Calls that change a socket for all processes that share it. */
static const int acting[] = { SYS_connect, SYS_shutdown, SYS_setsockopt };

#define VALUES	3

/*
 * Allow a call only if an argument, after the mask, is one of the values.  A 0
 * after the first value ends the list.
 */
struct limit {
	int	 call;
	uint32_t argument;
	uint32_t mask;
	uint32_t values[VALUES];
};

#define LENGTH(array)	(sizeof(array) / sizeof((array)[0]))

struct filter {
	struct sock_filter code[256];
	unsigned short n;
};

/* Without room the filter stays incomplete, and the kernel refuses it. */
static void
filter_add(struct filter *f, unsigned short code, uint32_t k)
{
	if (f->n < LENGTH(f->code))
		f->code[f->n++] = (struct sock_filter){ .code = code, .k = k };
}

static void
filter_load(struct filter *f, size_t offset)
{
	filter_add(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
}

static void
filter_return(struct filter *f, uint32_t what)
{
	filter_add(f, BPF_RET | BPF_K, what);
}

static void
filter_argument(struct filter *f, uint32_t n)
{
	filter_load(f, (uint32_t)offsetof(struct seccomp_data, args) +
	    n * (uint32_t)sizeof(uint64_t));
}

/* Skip least instructions if the loaded word is >= value, otherwise other. */
static void
filter_split(struct filter *f, uint32_t value, uint8_t least, uint8_t other)
{
	filter_add(f, BPF_JMP | BPF_JGE | BPF_K, value);
	f->code[f->n - 1].jt = least;
	f->code[f->n - 1].jf = other;
}

/* Skip equal instructions if the loaded word is value, otherwise other. */
static void
filter_skip(struct filter *f, uint32_t value, uint8_t equal, uint8_t other)
{
	filter_split(f, value, equal, other);
	f->code[f->n - 1].code = BPF_JMP | BPF_JEQ | BPF_K;
}

/* Deny the call; then load the system call number for the next test. */
static void
filter_deny(struct filter *f)
{
	filter_return(f, SECCOMP_RET_ERRNO | EPERM);
	filter_load(f, offsetof(struct seccomp_data, nr));
}

static void
filter_limit(struct filter *f, const struct limit *l)
{
	uint8_t i, n = 1;

	while (n < VALUES && l->values[n] != 0)
		n++;
	filter_skip(f, (uint32_t)l->call, 0, (uint8_t)(n + 4));
	filter_argument(f, l->argument);
	filter_add(f, BPF_ALU | BPF_AND | BPF_K, l->mask);
	for (i = 0; i < n; i++)
		filter_skip(f, l->values[i], (uint8_t)(n - i), 0);
	filter_deny(f);
}

/* Limit a call to these options: compare level and name. */
static void
filter_options(struct filter *f, int call, const struct socket_option *o,
    uint8_t n)
{
	filter_skip(f, (uint32_t)call, 0, (uint8_t)(4 * n + 2));
	for (; n > 0; n--, o++) {
		filter_argument(f, 1);
		filter_skip(f, (uint32_t)o->level, 0, 2);
		filter_argument(f, 2);
		filter_skip(f, (uint32_t)o->name, (uint8_t)(4 * n - 3), 0);
	}
	filter_deny(f);
}

/*
 * Deny a call on shared descriptors: 0 to 2 and the log, which a worker never
 * closes, and from the control channel upwards, with the listeners.
 */
static void
filter_shared(struct filter *f, int call, const struct sandbox *box)
{
	filter_skip(f, (uint32_t)call, 0, 6);
	filter_argument(f, 0);
	filter_split(f, STDERR_FILENO + 1, 0, 2);
	filter_skip(f, (uint32_t)box->log, 1, 0);
	filter_split(f, (uint32_t)box->control, 0, 1);
	filter_deny(f);
}

static void
filter_calls(struct filter *f, const int *calls, size_t n)
{
	for (; n > 0; n--, calls++) {
		filter_skip(f, (uint32_t)*calls, 0, 1);
		filter_return(f, SECCOMP_RET_ALLOW);
	}
}

/*
 * The filter of a worker.  Deny executable mappings.  Limit sockets to TCP, and
 * Unix sockets if needed, so that Landlock's ports can't be bypassed.
 */
static void
filter_worker(struct filter *f, const struct sandbox *box)
{
	const uint32_t third = box->with_unix ? AF_UNIX : AF_INET;
	const struct limit limits[] = {
		{ SYS_mmap, 2, PROT_EXEC, { 0 } },
		{ SYS_mprotect, 2, PROT_EXEC, { 0 } },
		{ SYS_socket, 0, UINT32_MAX, { AF_INET, AF_INET6, third } },
		{ SYS_socket, 1, TYPE_MASK, { SOCK_STREAM } },
		{ SYS_socket, 2, UINT32_MAX, { 0, IPPROTO_TCP } },
		{ SYS_sendto, 3, MSG_FASTOPEN, { 0 } },
		{ SYS_sendto, 5, UINT32_MAX, { 0 } },	/* to no address */
		{ SYS_sendmsg, 2, MSG_FASTOPEN, { 0 } },
		/* Only to replace the log after it was reopened. */
		{ SYS_dup3, 1, UINT32_MAX, { (uint32_t)box->log } },
		{ SYS_recvmsg, 0, box->with_ktls ? 0 : UINT32_MAX, {
		    box->with_ktls ? 0 : (uint32_t)box->control } },
	};
	size_t i;

	for (i = 0; i < LENGTH(limits); i++)
		filter_limit(f, &limits[i]);
	filter_options(f, SYS_setsockopt, may_set, box->with_ktls ?
	    LENGTH(may_set) : MAY_SET);
	filter_options(f, SYS_getsockopt, may_get, box->with_ktls ?
	    LENGTH(may_get) : MAY_GET);
	for (i = 0; i < LENGTH(acting); i++)
		filter_shared(f, acting[i], box);
	filter_calls(f, allowed, LENGTH(allowed));
	filter_calls(f, allowed_with_tls, box->with_ktls ?
	    LENGTH(allowed_with_tls) : 0);
}

/* See Documentation/userspace-api/seccomp_filter.rst in the kernel. */
static void
filter_make(struct filter *f, const struct sandbox *box)
{
	filter_load(f, offsetof(struct seccomp_data, arch));
	filter_skip(f, OUR_ARCH, 1, 0);
	filter_return(f, SECCOMP_RET_KILL_PROCESS);
	filter_load(f, offsetof(struct seccomp_data, nr));
	if (box->is_relay)
		filter_calls(f, allowed_to_relay, LENGTH(allowed_to_relay));
	else
		filter_worker(f, box);
	filter_return(f, SECCOMP_RET_ERRNO | ENOSYS);
}

static int
filter_enter(const struct sandbox *box)
{
	struct filter f = { .n = 0 };
	struct sock_fprog program = { .filter = f.code };

	filter_make(&f, box);
	program.len = f.n;
	/* No untrusted code runs here, so allow speculation for speed. */
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
	    SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program);
}

static int
has_filter(void)
{
	uint32_t action = SECCOMP_RET_KILL_PROCESS;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0u, &action) ==
	    0;
}

#else

static int
filter_enter(const struct sandbox *box)
{
	(void)box;
	return 0;
}

static int
has_filter(void)
{
	return 0;
}

#endif

const char *
sandbox_lacks(void)
{
	if (landlock_abi() == 0)
		return "this kernel has no Landlock: file access is not "
		    "restricted";
	if (landlock_abi() < LANDLOCK_WITH_TCP)
		return "this kernel's Landlock is too old to restrict TCP "
		    "ports";
	if (!has_filter())
		return "system calls are not filtered on this platform";
	return NULL;
}

int
sandbox_renounce(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 ? -1 :
	    drop_capabilities();
}

int
sandbox_enter(const struct sandbox *box)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return -1;
	if (box->runs_command)
		return 0;
	if (drop_capabilities() == -1 || landlock_enter(box) == -1)
		return -1;
	return has_filter() ? filter_enter(box) : 0;
}

#else

const char *
sandbox_lacks(void)
{
	return "not available on this system";
}

int
sandbox_renounce(void)
{
	return 0;
}

int
sandbox_enter(const struct sandbox *box)
{
	(void)box;
	return 0;
}

#endif
