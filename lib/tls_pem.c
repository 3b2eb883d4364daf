/*
 * tls_pem: PEM files in the variants that occur in practice; and for a file
 * that the library can't read, its kind and a command to convert it.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tls_pem.h"

#define FILE_MAX	(1024 * 1024)	/* of a PEM file */
#define PEM_END		"-----END "
#define NO_WAY		NULL, NULL
#define BY_PKEY		"openssl pkey -aes256 -in", "-out"
#define MARK(bytes)	bytes, sizeof(bytes) - 1

static const struct pem_shape shapes[] = {
	{ AT_START, MARK("0\x82??\2\1\3"), "a PKCS #12 file",
	    "openssl pkcs12 -nodes -in", "-out" },
	{ AT_START, MARK("0\x82??\6\x09" MBEDTLS_OID_PKCS "\7\2"),
	    "a PKCS #7 bundle", "openssl pkcs7 -inform DER -print_certs -in",
	    "-out" },
	{ AT_START, MARK("\xfe\xed\xfe\xed"), "a Java keystore",
	    "keytool -importkeystore -deststoretype PKCS12 -srckeystore",
	    "-destkeystore" },
	{ AT_START, MARK("\xff\xfe"), "text in UTF-16",
	    "iconv -f UTF-16 -t UTF-8", ">" },
	{ AT_LABEL, MARK("OPENSSH PRIVATE KEY"), "an OpenSSH key",
	    "ssh-keygen -p -m PKCS8 -f", NULL },
	{ AT_LABEL, MARK("DSA PRIVATE KEY"), "a DSA key", NO_WAY },
	{ AT_LABEL, MARK("PKCS7"), "a PKCS #7 bundle",
	    "openssl pkcs7 -print_certs -in", "-out" },
	{ AT_LABEL, MARK("REQUEST"),
	    "a certificate request, not signed by a CA yet",
	    NO_WAY },
	{ AT_LABEL, MARK("PUBLIC KEY"), "a public key", NO_WAY },
	{ AT_LABEL, MARK("PRIVATE KEY"), "a private key", NO_WAY },
	{ AT_LABEL, MARK("CRL"), "a revocation list", NO_WAY },
	{ AT_LABEL, MARK("CERTIFICATE"), "a certificate", NO_WAY },
	{ WITHIN, MARK("\x09" MBEDTLS_OID_ISO_IDENTIFIED_ORG
	    "\x06\x01\x04\x01\xda\x47\x04\x0b"), "a key encrypted with scrypt",
	    BY_PKEY },
	{ WITHIN, MARK("\x08" MBEDTLS_OID_RSA_COMPANY "\3\7"),
	    "a key encrypted with triple DES", BY_PKEY },
	{ WITHIN, MARK("\x0a" MBEDTLS_OID_PKCS "\x0c\1"),
	    "a key encrypted as in PKCS #12", BY_PKEY },
	{ WITHIN, MARK("Proc-Type: 4,ENCRYPTED"),
	    "a key encrypted in OpenSSL's old format", BY_PKEY },
	{ WITHIN, MARK("\7" MBEDTLS_OID_ANSI_X9_62 "\1\1"),
	    "a key with explicit curve parameters",
	    "openssl pkey -ec_param_enc named_curve -in", "-out" },
	{ WITHIN, MARK("\3\x2b\x65\x70"), "an Ed25519 key", NO_WAY },
	{ WITHIN, MARK("\3\x2b\x65\x71"), "an Ed448 key", NO_WAY },
	{ WITHIN, MARK("\7\x2a\x86\x48\xce\x38\x04\1"), "a DSA key", NO_WAY },
	{ WITHIN, MARK("\5" MBEDTLS_OID_CERTICOM "\0\x0a"),
	    "a key on secp256k1", NO_WAY },
	{ WITHIN, MARK("\x08" MBEDTLS_OID_ANSI_X9_62 "\3\1\1"),
	    "a key on secp192r1", NO_WAY },
	{ WITHIN, MARK("\5" MBEDTLS_OID_CERTICOM "\0\x21"),
	    "a key on secp224r1", NO_WAY },
	{ WITHIN, MARK("\5" MBEDTLS_OID_CERTICOM "\0\x23"),
	    "a key on secp521r1", NO_WAY },
	{ WITHIN, MARK("\x09\x2b\x24\x03\x03\x02\x08\1\1"),
	    "a key on a brainpool curve", NO_WAY },
	{ WITHIN, MARK("\x09" MBEDTLS_OID_PKCS1_MD5), "MD5", NO_WAY },
	{ WITHIN, MARK("\x09" MBEDTLS_OID_RSASSA_PSS),
	    "an RSA-PSS key", NO_WAY },
};

static int
has_shape(const struct pem_shape *s, const char *p, size_t len)
{
	size_t i, n = s->len;

	if (s->place == WITHIN)
		return memmem(p, len, s->mark, n) != NULL;
	if (len < n)
		return 0;
	if (s->place == AT_LABEL)
		return memcmp(p + len - n, s->mark, n) == 0;
	for (i = 0; i < n && (s->mark[i] == '?' || s->mark[i] == p[i]); i++)
		continue;
	return i == n;
}

const struct pem_shape *
tls_pem_find_shape(enum shape_place place, const void *p, size_t len)
{
	size_t i;

	for (i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (shapes[i].place == place && has_shape(&shapes[i], p, len))
			return &shapes[i];
	return NULL;
}

int
tls_pem_next(const char *text, struct pem_block *b)
{
	const char *label, *end;

	if ((b->text = strstr(text, PEM_BEGIN)) == NULL)
		return 0;
	label = b->text + strlen(PEM_BEGIN);
	if ((end = strstr(label, "-----")) == NULL)
		end = label;
	snprintf(b->label, sizeof(b->label), "%.*s", (int)(end - label < 64 ?
	    end - label : 64), label);
	return 1;
}

size_t
tls_pem_parse_size(const unsigned char *text, size_t size)
{
	return strstr((const char *)text, PEM_BEGIN) != NULL ? size : size - 1;
}

/*
 * Return 1 if the block ends before another one begins.  Without this check the
 * library would take the end of a later block.
 */
static int
has_end(const struct pem_block *b)
{
	const char *p = strstr(b->text + strlen(PEM_BEGIN), "-----");

	p = p != NULL ? strstr(p + strlen("-----"), "-----") : NULL;
	return p != NULL && strncmp(p, PEM_END, strlen(PEM_END)) == 0;
}

int
tls_pem_decode(const struct pem_block *b, mbedtls_pem_context *pem)
{
	char begin[64], end[64];
	size_t len;

	mbedtls_pem_init(pem);
	if (!has_end(b))
		return MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT;
	snprintf(begin, sizeof(begin), PEM_BEGIN "%s-----", b->label);
	snprintf(end, sizeof(end), PEM_END "%s-----", b->label);
	return mbedtls_pem_read_buffer(pem, begin, end,
	    (const unsigned char *)b->text, NULL, 0, &len);
}

int
tls_pem_is_cert(const char *label)
{
	return strcmp(label, "CERTIFICATE") == 0 ||
	    strcmp(label, "X509 CERTIFICATE") == 0 ||
	    strcmp(label, "TRUSTED CERTIFICATE") == 0;
}

/*
 * Normalize PEM that was copied from YAML or JSON: remove indentation, and
 * replace a literal "\n" by the end of a line.  Fill the rest with zeros.
 */
static void
tidy(char *text, size_t size)
{
	const char *from;
	char *to = text, *end = text + size;

	if (strstr(text, PEM_BEGIN) == NULL)
		return;
	for (from = text; *from != '\0'; from++) {
		int is_end = *from == '\n';

		if (from[0] == '\\' && (from[1] == 'n' || from[1] == 'r')) {
			if (*++from == 'r')
				continue;
			is_end = 1;
		}
		if (!is_end && isspace((unsigned char)*from) &&
		    (to == text || to[-1] == '\n'))
			continue;
		while (is_end && to > text && to[-1] != '\n' &&
		    isspace((unsigned char)to[-1]))
			to--;
		*to++ = is_end ? '\n' : *from;
	}
	mbedtls_platform_zeroize(to, (size_t)(end - to));
}

/*
 * Return 1 if the text ends within a PEM block, as in a file that is still
 * being written.  The library would accept the blocks before it.
 */
static int
is_truncated(const char *text)
{
	const char *begin, *last = NULL, *end;

	for (begin = text; (begin = strstr(begin, PEM_BEGIN)) != NULL;
	    begin++)
		last = begin;
	if (last == NULL)
		return 0;
	end = strstr(last, PEM_END);
	return end == NULL || strstr(end + strlen("-----"), "-----") == NULL;
}

static int
read_whole(int fd, unsigned char *p, size_t len)
{
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		if ((n = read(fd, p, len)) == 0)
			errno = ENODATA;	/* the file was truncated */
		if (n <= 0)
			return -1;
	}
	return 0;
}

unsigned char *
tls_pem_read(struct tls_config *cfg, const char *name, size_t *size)
{
	unsigned char *buf = NULL;
	struct stat st;
	int fd, r = 0;

	/* O_NONBLOCK: do not wait for the writer of a FIFO. */
	fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd == -1 || fstat(fd, &st) == -1)
		r = tls_fail(cfg, "%s: %s", name, strerror(errno));
	else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		r = tls_fail(cfg,
		    "%s: not a regular file of at most 1 MB", name);
	else if ((buf = calloc(1, *size = (size_t)st.st_size + 1)) == NULL)
		r = tls_fail(cfg, "%s: out of memory", name);
	else if (read_whole(fd, buf, *size - 1) == -1)
		r = tls_fail(cfg, "%s: cannot be read to the end: %s", name,
		    strerror(errno));
	else if (tidy((char *)buf, *size), is_truncated((const char *)buf))
		r = tls_fail(cfg,
		    "%s: it ends within a PEM block, so it may be truncated",
		    name);
	if (r == -1 && buf != NULL) {
		mbedtls_platform_zeroize(buf, *size);
		free(buf);
		buf = NULL;
	}
	if (fd != -1)
		close(fd);
	return buf;
}

int __attribute__((format(printf, 4, 5)))
tls_pem_fail_shape(struct tls_config *cfg, const char *name,
    const struct pem_shape *s, const char *fmt, ...)
{
	char text[ERROR_SIZE / 4];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (s == NULL || s->by == NULL)
		return tls_fail(cfg, "%s: %s", name, text);
	if (s->to == NULL)
		return tls_fail(cfg, "%s: %s; to convert it: %s %s", name, text,
		    s->by, name);
	return tls_fail(cfg,
	    "%s: %s; to convert it: %s %s %s %s.pem", name, text,
	    s->by, name, s->to, name);
}

int
tls_pem_fail_to_find(struct tls_config *cfg, const char *name,
    const char *wanted, const char *text, size_t size)
{
	struct pem_block b, found = { .text = NULL };
	const struct pem_shape *s;

	for (; tls_pem_next(text, &b); text = b.text + 1)
		if (found.text == NULL || !tls_pem_is_cert(b.label))
			found = b;
	if (found.text == NULL) {
		s = tls_pem_find_shape(AT_START, text, size);
		return tls_pem_fail_shape(cfg, name, s, s != NULL ?
		    "it is %s, not PEM" : "no %s in PEM format",
		    s != NULL ? s->what : wanted);
	}
	s = tls_pem_find_shape(AT_LABEL, found.label, strlen(found.label));
	return tls_pem_fail_shape(cfg, name, s,
	    "no %s found, but %s%s%s", wanted,
	    s != NULL ? "" : "a block of \"",
	    s != NULL ? s->what : found.label, s != NULL ? "" : "\"");
}

int
tls_pem_may_be_der(const unsigned char *p, size_t len)
{
	return len > 0 && p[0] == (MBEDTLS_ASN1_CONSTRUCTED |
	    MBEDTLS_ASN1_SEQUENCE) && tls_pem_find_shape(AT_START, p, len) ==
	    NULL;
}
