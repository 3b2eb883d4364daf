/*
 * Kernel TLS, with a kernel controlled by the input: records of any type and in
 * any state, errors, and results of rekeying.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "fuzz.h"

static int	 fake_getsockopt(int, int, int, void *, socklen_t *);
static int	 fake_setsockopt(int, int, int, const void *, socklen_t);
static ssize_t	 fake_recvmsg(int, struct msghdr *, int);
static ssize_t	 fake_send(int, const void *, size_t, int);
static ssize_t	 fake_sendmsg(int, const struct msghdr *, int);

#define getsockopt	fake_getsockopt
#define recvmsg		fake_recvmsg
#define send		fake_send
#define sendmsg		fake_sendmsg
#define setsockopt	fake_setsockopt
#include "../../lib/stream.c"
#include "../../lib/tls_bio.c"
#include "../../lib/tls_kernel.c"
#include "../../lib/tls_kernel_keys.c"
#include "../../lib/util.c"
#undef getsockopt
#undef recvmsg
#undef send
#undef sendmsg
#undef setsockopt

enum { IS_TLS13 = 1, CIPHER = 6, HOLDS = 8, REKEYS = 16 };

static struct input in;

/* In one of 32 cases a call fails, with a possible error. */
static int
fails(void)
{
	static const int errors[] = {
		EAGAIN, EBADMSG, EMSGSIZE, EINVAL, ECONNRESET, ETIMEDOUT, EBUSY,
		EINTR
	};
	unsigned n = take(&in);

	errno = errors[n >> 5];
	return in.n > 0 && (n & 31) == 31;
}

/* Check that all bytes of a buffer are readable. */
static int
fake_setsockopt(int fd, int level, int name, const void *p, socklen_t len)
{
	unsigned char info[INFO_SIZE];

	(void)fd;
	(void)name;
	must(level != SOL_TLS || len <= sizeof(info), "keys are too long");
	if (level == SOL_TLS)
		memcpy(info, p, len);
	return fails() ? -1 : 0;
}

static int
fake_getsockopt(int fd, int level, int name, void *p, socklen_t *len)
{
	(void)fd;
	(void)level;
	(void)name;
	memset(p, (int)take(&in) & 3, *len);
	return fails() ? -1 : 0;
}

static ssize_t
fake_recvmsg(int fd, struct msghdr *m, int flags)
{
	static const unsigned char types[] = { 23, 23, 22, 21 };
	struct cmsghdr *c = m->msg_control;
	struct input body;
	unsigned type;

	(void)fd;
	(void)flags;
	if (fails())
		return -1;
	type = take(&in);
	body = take_some(&in, take_number(&in));
	if (body.n > m->msg_iov->iov_len)
		body.n = m->msg_iov->iov_len;
	if (body.n > 0)
		memcpy(m->msg_iov->iov_base, body.p, body.n);
	*c = (struct cmsghdr){ .cmsg_level = SOL_TLS, .cmsg_len = CMSG_LEN(1),
	    .cmsg_type = TLS_GET_RECORD_TYPE };
	*CMSG_DATA(c) = type < 4 ? types[type] : (unsigned char)type;
	m->msg_controllen = type == 0 && body.n == 0 ? 0 : CMSG_SPACE(1);
	return (ssize_t)body.n;
}

static ssize_t
fake_send(int fd, const void *p, size_t len, int flags)
{
	(void)fd;
	(void)p;
	(void)flags;
	return fails() ? -1 : (ssize_t)len;
}

static ssize_t
fake_sendmsg(int fd, const struct msghdr *m, int flags)
{
	(void)fd;
	(void)flags;
	return fails() ? -1 : (ssize_t)m->msg_iov->iov_len;
}

static struct tls *
moved(struct tls_config *cfg, unsigned flags)
{
	struct tls *t = calloc(1, sizeof(*t));

	cfg->kernel = (TLS_KERNEL_REKEYS - 1) |
	    (flags & REKEYS ? TLS_KERNEL_REKEYS : 0);
	must(t != NULL && (t->ktls = calloc(1, sizeof(*t->ktls))) != NULL &&
	    (t->ktls->secrets = calloc(1, sizeof(*t->ktls->secrets))) !=
	    NULL, "out of memory");
	t->cfg = cfg;
	t->fd = -1;
	t->open = 1;
	t->ktls->is_13 = (flags & IS_TLS13) != 0;
	t->ktls->cipher = &ciphers[(flags & CIPHER) / 2 % CIPHERS];
	if (flags & HOLDS) {
		must((t->deferred = calloc(1, 100)) != NULL, "out of memory");
		t->ndeferred = 100;
	}
	return t;
}

/* Do what the engine may do, as selected by the input. */
static void
step(struct stream *s, unsigned what)
{
	static char buf[80 * 1024];
	ssize_t n;

	switch (what % 8) {
	case 0:
		s->ops->write(s, "hello", 5);
		break;
	case 1:
		s->ops->finish(s);
		break;
	case 2:
		s->ops->pending(s);
		s->ops->refuse(s);
		break;
	default:
		n = s->ops->read(s, buf, sizeof(buf));
		must(n <= (ssize_t)sizeof(buf), "more than there is room for");
		if (n == STREAM_ERROR)
			must(*s->ops->error(s) != '\0', "no reason");
		break;
	}
}

void
fuzz_begin(void)
{
	must(tls_init() == NULL, "tls_init");
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tls_config cfg;
	struct stream s = { .ops = &kernel_ops, .fd = -1 };

	in = (struct input){ data, size };
	s.ctx = moved(&cfg, take(&in));
	while (in.n > 0)
		step(&s, take(&in));
	tls_free(s.ctx);
	return 0;
}
