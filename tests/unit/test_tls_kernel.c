/*
 * Unit tests of kernel TLS, with a fake kernel; the rooms are included.
 * tests/vm has the real one.
 */
#include <sys/socket.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

static int	 fake_setsockopt(int, int, int, const void *, socklen_t);
static int	 fake_getsockopt(int, int, int, void *, socklen_t *);
static ssize_t	 fake_recvmsg(int, struct msghdr *, int);
static ssize_t	 fake_sendmsg(int, const struct msghdr *, int);

#define setsockopt	fake_setsockopt
#define getsockopt	fake_getsockopt
#define recvmsg		fake_recvmsg
#define sendmsg		fake_sendmsg
#include "../../lib/tls_kernel.c"
#include "../../lib/tls_kernel_keys.c"
#undef setsockopt
#undef getsockopt
#undef recvmsg
#undef sendmsg

#include <setjmp.h>

#include <cmocka.h>

#define LEN(a)	(sizeof(a) / sizeof((a)[0]))
#define FD	(-1)
#define OVERHEAD_13	22		/* header, type, tag */

/* What the fake kernel received, and its answers. */
static struct {
	int	 error;			/* of setsockopt(2), or 0 */
	int	 rekeys;
	int	 ulp, rx, tx;		/* how often each was set */
	unsigned char info[INFO_SIZE];
	socklen_t len;
	struct tcp_info tcp;
	uint64_t next;			/* its next record */
	const struct reply {
		int	 type;		/* 0: none, -1: an error */
		size_t	 len;
		unsigned char bytes[16];
		int	 error;
	} *replies;
	unsigned char sent[64];		/* control records: type, bytes */
	size_t	 nsent;
} kernel;

static int
fake_setsockopt(int fd, int level, int name, const void *p, socklen_t len)
{
	int *times = level == IPPROTO_TCP ? &kernel.ulp : name == TLS_RX ?
	    &kernel.rx : name == TLS_TX ? &kernel.tx : NULL;

	(void)fd;
	errno = kernel.error != 0 ? kernel.error : EBUSY;
	if (kernel.error != 0 || (times != NULL && *times > 0 &&
	    !kernel.rekeys))
		return -1;
	if (times != NULL)
		(*times)++;
	if (level == SOL_TLS && times != NULL) {
		assert_in_range(len, 1, INFO_SIZE);
		memcpy(kernel.info, p, len);
		kernel.len = len;
	}
	return 0;
}

static int
fake_getsockopt(int fd, int level, int name, void *p, socklen_t *len)
{
	(void)fd;
	if (level == IPPROTO_TCP && name == TCP_INFO) {
		memcpy(p, &kernel.tcp, *len);
	} else if (level == SOL_TLS) {
		memset(p, 0, *len);
		be_put((unsigned char *)p + *len - SEQ_SIZE, kernel.next,
		    SEQ_SIZE);
	}
	return 0;
}

static ssize_t
fake_recvmsg(int fd, struct msghdr *m, int flags)
{
	const struct reply *r = kernel.replies++;
	struct cmsghdr *c = CMSG_FIRSTHDR(m);

	(void)fd;
	(void)flags;
	errno = r->error;
	if (r->type == -1)
		return -1;
	memcpy(m->msg_iov->iov_base, r->bytes, r->len);
	if (r->type == 0) {
		m->msg_controllen = 0;
	} else {
		c->cmsg_level = SOL_TLS;
		c->cmsg_type = TLS_GET_RECORD_TYPE;
		c->cmsg_len = CMSG_LEN(1);
		*CMSG_DATA(c) = (unsigned char)r->type;
	}
	return (ssize_t)r->len;
}

static ssize_t
fake_sendmsg(int fd, const struct msghdr *m, int flags)
{
	const struct cmsghdr *c = CMSG_FIRSTHDR(m);
	size_t len = m->msg_iov->iov_len;

	(void)fd;
	assert_true(flags & MSG_NOSIGNAL);
	assert_int_equal(c->cmsg_level, SOL_TLS);
	assert_int_equal(c->cmsg_type, TLS_SET_RECORD_TYPE);
	assert_in_range(len + 1, 1, sizeof(kernel.sent) - kernel.nsent);
	kernel.sent[kernel.nsent++] = *CMSG_DATA(c);
	memcpy(kernel.sent + kernel.nsent, m->msg_iov->iov_base, len);
	kernel.nsent += len;
	kernel.next++;
	return (ssize_t)len;
}

/* A connection moved to the kernel, and its end. */
static struct tls_config *cfg;
static struct tls *moved;
static struct stream stream;

static int
begin(void **state)
{
	(void)state;
	memset(&kernel, 0, sizeof(kernel));
	kernel.rekeys = 1;
	cfg = calloc(1, sizeof(*cfg));
	cfg->kernel = TLS_KERNEL_REKEYS | 63;
	moved = calloc(1, sizeof(*moved));
	moved->cfg = cfg;
	moved->fd = FD;
	moved->open = 1;
	moved->ktls = calloc(1, sizeof(*moved->ktls));
	moved->ktls->secrets = calloc(1, sizeof(*moved->ktls->secrets));
	moved->ktls->cipher = &ciphers[0];
	moved->ktls->is_13 = 1;
	stream = (struct stream){ .ops = &kernel_ops, .ctx = moved,
	    .fd = FD };
	return 0;
}

static int
end(void **state)
{
	(void)state;
	tls_free(moved);
	free(cfg);
	return 0;
}

static void
unhex(const char *text, unsigned char *p)
{
	unsigned byte;

	for (; *text != '\0'; text += 2) {
		assert_int_equal(sscanf(text, "%2x", &byte), 1);
		*p++ = (unsigned char)byte;
	}
}

/* RFC 8448 section 3: secret, key, IV. */
static void
test_traffic_keys(void **state)
{
	static const char *const vectors[][3] = {
		{ "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad"
		    "38", "3fce516009c21727d0f2e4e86ee403bc",
		    "5d313eb2671276ee13000b30" },
		{ "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504"
		    "a5", "17422dda596ed5d9acd890e3c63f5051",
		    "5b78923dee08579033e523d9" },
		{ "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb6316"
		    "43", "9f02283b6c9c07efc26bb9f2ac92e356",
		    "cf782b88dd83549aadf1e984" },
	};
	unsigned char key[16], iv[IV_SIZE];
	struct traffic tr = { .seq = 0 };
	size_t i;

	(void)state;
	for (i = 0; i < LEN(vectors); i++) {
		unhex(vectors[i][0], moved->ktls->secrets->traffic[1]);
		unhex(vectors[i][1], key);
		unhex(vectors[i][2], iv);
		assert_int_equal(derive_traffic(moved->ktls, TLS_TX, &tr), 0);
		assert_memory_equal(tr.key, key, sizeof(key));
		assert_memory_equal(tr.iv, iv, sizeof(iv));
		moved->ktls->is_client = 1;
		assert_int_equal(derive_traffic(moved->ktls, TLS_RX, &tr), 0);
		assert_memory_equal(tr.key, key, sizeof(key));
		moved->ktls->is_client = 0;
	}
}

/* The key block, against the library's own function. */
static void
test_key_block(void **state)
{
	static const mbedtls_tls_prf_types prfs[] = {
		MBEDTLS_SSL_TLS_PRF_SHA256, MBEDTLS_SSL_TLS_PRF_SHA384,
		MBEDTLS_SSL_TLS_PRF_SHA256
	};
	struct ktls *k = moved->ktls;
	unsigned char block[88];
	size_t i;

	(void)state;
	k->is_13 = 0;
	memset(k->secrets->master.secret, 5, SECRET_SIZE);
	memset(k->secrets->master.seed, 7, sizeof(k->secrets->master.seed));
	for (i = 0; i < CIPHERS; i++) {
		struct traffic rx = { .seq = 0x0102 }, tx = { .seq = 0x0304 };
		size_t n = ciphers[i].key, fixed = i == 2 ? 12 : 4;

		k->cipher = &ciphers[i];
		assert_int_equal(mbedtls_ssl_tls_prf(prfs[i],
		    k->secrets->master.secret, SECRET_SIZE, "key expansion",
		    k->secrets->master.seed, 64, block, 2 * (n + fixed)), 0);
		assert_int_equal(derive_traffic(k, TLS_RX, &rx), 0);
		assert_int_equal(derive_traffic(k, TLS_TX, &tx), 0);
		assert_memory_equal(rx.key, block, n);
		assert_memory_equal(tx.key, block + n, n);
		assert_memory_equal(rx.iv, block + 2 * n, fixed);
		assert_memory_equal(tx.iv, block + 2 * n + fixed, fixed);
		if (fixed == 4)
			assert_memory_equal(tx.iv + 4, "\0\0\0\0\0\0\3\4", 8);
		k->is_client = 1;
		assert_int_equal(derive_traffic(k, TLS_TX, &tx), 0);
		assert_memory_equal(tx.key, block, n);
		assert_memory_equal(tx.iv, block + 2 * n, fixed);
		k->is_client = 0;
	}
}

#define SAME(member, want) \
	assert_memory_equal(info->member, want, sizeof(info->member))

/* The keys in the kernel's structures, as laid out in its headers. */
#define EXPECT_INFO(cipher, v, type, salt_wanted, iv_wanted)	do {	\
	const struct tls12_crypto_info_##cipher *info =			\
	    (const void *)kernel.info;					\
									\
	assert_int_equal(ktls_set_keys(FD, TLS_RX, moved->ktls, &tr), 0);	\
	assert_int_equal(kernel.len, sizeof(*info));			\
	assert_int_equal(info->info.version, v);			\
	assert_int_equal(info->info.cipher_type, type);			\
	assert_memory_equal(info->salt, salt_wanted,			\
	    sizeof(salt_wanted) - 1);					\
	SAME(iv, iv_wanted);						\
	SAME(key, tr.key);						\
	SAME(rec_seq, seq);						\
} while (0)

static void
test_crypto_info(void **state)
{
	struct traffic tr = { .key = "0123456789abcdefghijklmnopqrstu",
	    .iv = "ABCDEFGHIJK", .seq = 0x0102030405060708 };
	static const unsigned char seq[] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	(void)state;
	EXPECT_INFO(aes_gcm_128, TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128,
	    "ABCD", "EFGHIJK");
	moved->ktls->cipher = &ciphers[1];
	moved->ktls->is_13 = 0;
	EXPECT_INFO(aes_gcm_256, TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_256,
	    "ABCD", "EFGHIJK");
	moved->ktls->cipher = &ciphers[2];
	EXPECT_INFO(chacha20_poly1305, TLS_1_2_VERSION,
	    TLS_CIPHER_CHACHA20_POLY1305, "", "ABCDEFGHIJK");
}

static void
test_suites(void **state)
{
	struct tls_config *usual = tls_config_new(TLS_SERVER);
	unsigned all = 0, bit;
	size_t i;

	(void)state;
	/* All suites that are offered by default, and no others. */
	for (i = 0; usual->suites[i] != 0; i++) {
		const struct cipher *c = ktls_find_cipher(usual->suites[i]);
		const char *name = mbedtls_ssl_get_ciphersuite_name(
		    usual->suites[i]);

		assert_non_null(c);
		bit = ktls_cap(c, strncmp(name, "TLS1-3-", 7) == 0);
		assert_in_range(bit, 1, TLS_KERNEL_REKEYS - 1);
		all |= bit;
	}
	tls_config_free(usual);
	assert_int_equal(all, TLS_KERNEL_REKEYS - 1);
	assert_null(ktls_find_cipher(MBEDTLS_TLS1_3_AES_128_CCM_SHA256));
	assert_null(ktls_find_cipher(
	    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256));
	assert_null(ktls_find_cipher(0));
}

/* Without the protocol or the cipher the connection stays with the library. */
static void
test_what_a_kernel_can_do(void **state)
{
	char text[256];
	unsigned i, can;

	(void)state;
	for (i = 0; i < TLS_KERNEL_TRIES; i++) {
		memset(&kernel, 0, sizeof(kernel));
		can = tls_kernel_try(i, FD);
		assert_int_equal(can, 1u << i);
		assert_true(kernel.ulp == 1 && kernel.rx == 1 && kernel.tx == 1);
		kernel = (__typeof__(kernel)){ .rekeys = 1 };
		can = tls_kernel_try(i, FD);
		assert_int_equal(can, 1u << i | (i % 2 == 0 ?
		    TLS_KERNEL_REKEYS : 0));
		kernel = (__typeof__(kernel)){ .error = ENOENT };
		assert_int_equal(tls_kernel_try(i, FD), 0);
		assert_int_equal(errno, ENOENT);
	}
	tls_kernel_text(1 | 8, text, sizeof(text));
	assert_string_equal(text,
	    "TLSv1.3 with AES-128-GCM, TLSv1.2 with AES-256-GCM");
}

/* Flushed means to the last byte, with earlier bytes and overhead counted. */
static void
test_nothing_is_left_behind(void **state)
{
	static const struct {
		int	 cipher, is_13;
		unsigned each;
	} rows[] = {
		{ 0, 1, 22 }, { 2, 1, 22 }, { 0, 0, 29 }, { 1, 0, 29 },
		{ 2, 0, 21 }
	};
	struct ktls *k = moved->ktls;
	size_t i;

	(void)state;
	for (i = 0; i < LEN(rows); i++) {
		k->cipher = &ciphers[rows[i].cipher];
		k->is_13 = rows[i].is_13;
		k->base = 1000;
		k->given = 50000;
		k->records = -(uint64_t)2;
		kernel.next = 2 + 4;
		kernel.tcp.tcpi_bytes_sent = 1000 + 50000 - 300 + 17;
		kernel.tcp.tcpi_bytes_retrans = 17;
		kernel.tcp.tcpi_notsent_bytes = 300 + 4 * rows[i].each;
		assert_true(is_flushed(moved));
		kernel.tcp.tcpi_notsent_bytes--;
		assert_false(is_flushed(moved));
	}
}

/* Sending moves to the kernel once, with the first write. */
static void
test_sending_begins(void **state)
{
	static const unsigned char alert[] = { 21, 1, 0 };
	struct ktls *k = moved->ktls;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	stream.fd = pair[0];
	k->seq = 2;
	kernel.next = 2;
	kernel.tcp.tcpi_bytes_sent = 700;
	assert_int_equal(prepare_sending(moved), 0);
	assert_int_equal(kernel.tx, 1);
	assert_int_equal(kernel.info[kernel.len - 1], 2);
	assert_int_equal(kernel_finish(&stream), STREAM_WANT_WRITE);
	assert_int_equal(kernel_finish(&stream), STREAM_WANT_WRITE);
	kernel.tcp.tcpi_bytes_sent += 2 + OVERHEAD_13;
	assert_int_equal(kernel_finish(&stream), 0);
	assert_int_equal(kernel.nsent, sizeof(alert));
	assert_memory_equal(kernel.sent, alert, sizeof(alert));
	assert_int_equal(kernel.tx, 1);
	close(pair[0]);
	close(pair[1]);
}

/* A reset is noticed, too, although nothing more is sent. */
static void
test_end_of_waiting(void **state)
{
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	stream.fd = pair[0];
	assert_int_equal(kernel_finish(&stream), STREAM_WANT_WRITE);
	assert_int_equal(send(pair[0], "x", 1, 0), 1);
	close(pair[1]);			/* unread data: a reset */
	assert_int_equal(kernel_finish(&stream), STREAM_RESET);
	close(pair[0]);
}

/* After a reset was reported, a following end is not an end. */
static void
test_end_behind_a_reset(void **state)
{
	const struct reply fin = { 0, 0, "", 0 };
	unsigned char buf[16];

	(void)state;
	cfg->truncation_is_eof = 1;
	kernel.replies = &fin;
	moved->err = ECONNRESET;
	assert_int_equal(kernel_read(&stream, buf, sizeof(buf)), STREAM_RESET);
	moved->err = 0;
	assert_int_equal(kernel_read(&stream, buf, sizeof(buf)), STREAM_EOF);
}

/* Without secrets there is no rekeying. */
static void
test_secrets_are_forgotten(void **state)
{
	(void)state;
	cfg->kernel &= ~TLS_KERNEL_REKEYS;
	assert_non_null(moved->ktls->secrets);
	assert_int_equal(prepare_sending(moved), 0);
	assert_null(moved->ktls->secrets);
}

#define DATA	{ 23, 3, "abc", 0 }
#define EMPTY	{ 23, 0, "", 0 }
#define LATER	{ -1, 0, "", EAGAIN }
#define UPDATE	{ 22, 5, { 24, 0, 0, 1, 0 }, 0 }
#define REQUEST	{ 22, 5, { 24, 0, 0, 1, 1 }, 0 }

struct row {
	struct reply replies[3];
	ssize_t	 result;
	int	 alert;
	int	 is_12;
};

static void
expect_rows(void **state, const struct row *rows, size_t n, int is_client)
{
	unsigned char buf[64];
	size_t i;

	for (i = 0; i < n; i++) {
		end(state);
		begin(state);
		moved->ktls->is_13 = !rows[i].is_12;
		moved->ktls->is_client = is_client;
		kernel.replies = rows[i].replies;
		if (kernel_read(&stream, buf, sizeof(buf)) != rows[i].result)
			fail_msg("row %zu", i);
		if (rows[i].result == STREAM_EOF ||
		    rows[i].result == STREAM_TRUNCATED)
			assert_int_equal(kernel_read(&stream, buf,
			    sizeof(buf)), rows[i].result);
		if (rows[i].result == STREAM_ERROR)
			kernel_finish(&stream);
		if (kernel.nsent == 0 ? rows[i].alert != 0 :
		    kernel.sent[0] != 21 || kernel.sent[2] != rows[i].alert)
			fail_msg("row %zu: the alert is %d", i,
			    kernel.nsent == 0 ? 0 : kernel.sent[2]);
	}
}

/* Read once: the result, and the alert, also one at the end (0: none). */
static void
test_reading(void **state)
{
	static const struct row rows[] = {
		{ { DATA }, 3, 0, 0 },
		{ { EMPTY, DATA }, 3, 0, 0 },
		{ { EMPTY, LATER }, STREAM_WANT_READ, 0, 0 },
		{ { { 0, 0, "", 0 } }, STREAM_TRUNCATED, 0, 0 },
		{ { EMPTY, { 0, 0, "", 0 } }, STREAM_TRUNCATED, 0, 0 },
		{ { { 21, 2, { 1, 0 }, 0 } }, STREAM_EOF, 0, 0 },
		{ { { 21, 2, { 1, 90 }, 0 }, DATA }, 3, 0, 0 },
		{ { { 21, 2, { 2, 40 }, 0 } }, STREAM_ERROR, 0, 0 },
		{ { { 21, 0, "", 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 21, 1, { 1 }, 0 } }, STREAM_ERROR, 50, 0 },
		{ { { 21, 3, { 1, 0, 0 }, 0 } }, STREAM_ERROR, 50, 0 },
		{ { { 20, 1, { 1 }, 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 22, 4, { 1, 0, 0, 0 }, 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 22, 5, { 24, 0, 0, 1, 2 }, 0 } }, STREAM_ERROR, 47, 0 },
		{ { { 22, 4, { 24, 0, 0, 1 }, 0 } }, STREAM_ERROR, 50, 0 },
		{ { { 22, 0, "", 0 } }, STREAM_ERROR, 10, 0 },
		{ { UPDATE, DATA }, 3, 0, 0 },
		{ { { -1, 0, "", EBADMSG } }, STREAM_ERROR, 20, 0 },
		{ { { -1, 0, "", EMSGSIZE } }, STREAM_ERROR, 22, 0 },
		{ { { -1, 0, "", EINVAL } }, STREAM_ERROR, 70, 0 },
		{ { { -1, 0, "", ECONNRESET } }, STREAM_RESET, 0, 0 },
		{ { { -1, 0, "", ETIMEDOUT } }, STREAM_ERROR, 0, 0 },
		/*
		 * TLS 1.2: renegotiation is refused, and the connection goes
		 * on.
		 */
		{ { { 22, 4, { 1, 0, 0, 0 }, 0 }, DATA }, 3, 100, 1 },
		{ { UPDATE }, STREAM_ERROR, 10, 1 },
	};

	expect_rows(state, rows, LEN(rows), 0);
}

/* A server's tickets are skipped, whatever follows them. */
static void
test_reading_as_a_client(void **state)
{
	static const struct row rows[] = {
		{ { { 22, 6, { 4, 0, 0, 2, 1, 2 }, 0 }, DATA }, 3, 0, 0 },
		{ { { 22, 10, { 4, 0, 0, 2, 1, 2, 4, 0, 0, 0 }, 0 }, DATA }, 3,
		    0, 0 },
		{ { { 22, 9, { 4, 0, 0, 0, 24, 0, 0, 1, 0 }, 0 }, DATA }, 3, 0,
		    0 },
		{ { { 22, 9, { 4, 0, 0, 0, 24, 0, 0, 1, 2 }, 0 } },
		    STREAM_ERROR, 47, 0 },
		{ { { 22, 5, { 4, 0, 0, 2, 1 }, 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 22, 3, { 4, 0, 0 }, 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 22, 4, { 4, 255, 255, 255 }, 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 22, 0, "", 0 } }, STREAM_ERROR, 10, 0 },
		{ { { 22, 4, { 0, 0, 0, 0 }, 0 } }, STREAM_ERROR, 10, 0 },
		/*
		 * TLS 1.2: renegotiation is refused, and tickets are
		 * unexpected.
		 */
		{ { { 22, 4, { 0, 0, 0, 0 }, 0 }, DATA }, 3, 100, 1 },
		{ { { 22, 4, { 1, 0, 0, 0 }, 0 } }, STREAM_ERROR, 10, 1 },
		{ { { 22, 6, { 4, 0, 0, 2, 1, 2 }, 0 } }, STREAM_ERROR, 10, 1 },
	};
	static const struct row servers[] = {
		{ { { 22, 6, { 4, 0, 0, 2, 1, 2 }, 0 } }, STREAM_ERROR, 10, 0 },
	};

	expect_rows(state, rows, LEN(rows), 1);
	expect_rows(state, servers, LEN(servers), 0);
}

/* New keys for receiving, and then if requested, for sending. */
static void
test_key_update(void **state)
{
	static const struct reply replies[] = { UPDATE, REQUEST, REQUEST,
	    DATA, LATER };
	static const unsigned char answer[] = { 22, 24, 0, 0, 1, 0 };
	unsigned char before[SECRET_SIZE], buf[64];

	(void)state;
	memcpy(before, moved->ktls->secrets->traffic[1], sizeof(before));
	kernel.replies = replies;
	assert_int_equal(kernel_read(&stream, buf, sizeof(buf)), 3);
	assert_int_equal(kernel.rx, 3);
	assert_int_equal(kernel.nsent, 0);
	assert_memory_equal(before, moved->ktls->secrets->traffic[1],
	    sizeof(before));
	assert_int_equal(prepare_sending(moved), 0);
	assert_int_equal(kernel.nsent, sizeof(answer));
	assert_memory_equal(kernel.sent, answer, sizeof(answer));
	assert_int_equal(kernel.tx, 2);
	assert_memory_not_equal(before, moved->ktls->secrets->traffic[1],
	    PSA_HASH_LENGTH(PSA_ALG_SHA_256));
	/* The record under the old keys still counts. */
	assert_int_equal(moved->ktls->records, 1);
	assert_int_equal(prepare_sending(moved), 0);
	assert_int_equal(kernel.nsent, sizeof(answer));
}

/* poll(2) does not report a KeyUpdate behind data: all input is read. */
static void
test_key_update_behind_data(void **state)
{
	static const struct reply replies[] = { DATA, UPDATE, DATA, LATER,
	    DATA };
	unsigned char buf[4 * RECORD_MAX];

	(void)state;
	kernel.replies = replies;
	assert_int_equal(kernel_read(&stream, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "abcabc", 6);
	assert_int_equal(kernel.rx, 1);
	assert_ptr_equal(kernel.replies, replies + 4);
	assert_false(kernel_pending(&stream));
	/* Also if the buffer has no room for more. */
	kernel.replies = replies;
	assert_int_equal(kernel_read(&stream, buf, RECORD_MAX), 3);
	assert_ptr_equal(kernel.replies, replies + 1);
	assert_true(kernel_pending(&stream));
	assert_int_equal(kernel_read(&stream, buf, RECORD_MAX), 3);
	assert_int_equal(kernel.rx, 2);
	kernel.replies = replies + 3;
	assert_int_equal(kernel_read(&stream, buf, RECORD_MAX),
	    STREAM_WANT_READ);
	assert_false(kernel_pending(&stream));
	/* A kernel without rekeying has no hidden input. */
	cfg->kernel &= ~TLS_KERNEL_REKEYS;
	assert_int_equal(kernel_read(&stream, buf, sizeof(buf)), 3);
	assert_ptr_equal(kernel.replies, replies + 5);
}

/* A kernel without rekeying: a KeyUpdate is refused. */
static void
test_no_key_update(void **state)
{
	static const struct reply replies[] = { UPDATE };
	unsigned char buf[64];

	(void)state;
	cfg->kernel &= ~TLS_KERNEL_REKEYS;
	kernel.replies = replies;
	assert_int_equal(kernel_read(&stream, buf, sizeof(buf)), STREAM_ERROR);
	assert_int_equal(kernel.nsent, 0);
	kernel_finish(&stream);
	assert_int_equal(kernel.sent[2], 10);
	assert_int_equal(kernel.rx, 0);
}

int
main(void)
{
#define TEST(f)	cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(test_traffic_keys),
		TEST(test_key_block),
		TEST(test_crypto_info),
		TEST(test_suites),
		TEST(test_what_a_kernel_can_do),
		TEST(test_nothing_is_left_behind),
		TEST(test_sending_begins),
		TEST(test_end_of_waiting),
		TEST(test_end_behind_a_reset),
		TEST(test_secrets_are_forgotten),
		TEST(test_reading),
		TEST(test_reading_as_a_client),
		TEST(test_key_update),
		TEST(test_key_update_behind_data),
		TEST(test_no_key_update),
	};

	if (tls_init() != NULL)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
