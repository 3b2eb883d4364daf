/* proxy: make and parse headers of the PROXY protocol. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "net.h"
#include "proxy.h"
#include "stream.h"
#include "util.h"

#define PROXY_V1_MAX	107		/* bytes, with the end of the line */
#define PROXY_UNIX	108		/* bytes of a path */
#define PROXY_HEADER	2048		/* the longest one made */

enum { PROXY_LOCAL = 0x20, PROXY_PROXY };
enum { PROXY_UNSPEC, PROXY_TCP4 = 0x11, PROXY_TCP6 = 0x21,
    PROXY_STREAM = 0x31, PROXY_UDP4 = 0x12, PROXY_UDP6 = 0x22,
    PROXY_DGRAM = 0x32 };
enum { TLV_ALPN = 1, TLV_AUTHORITY = 2, TLV_SSL = 0x20, TLV_SSL_VERSION,
    TLV_SSL_CN, TLV_SSL_CIPHER };
enum { CLIENT_SSL = 1, CLIENT_CERT_CONN = 2, CLIENT_CERT_SESS = 4 };

static const unsigned char proxy_v2[12] = "\r\n\r\n\0\r\nQUIT\n";
static const char proxy_v1[] = "PROXY ";

/* Address families, with the place of address and port. */
static const struct family {
	sa_family_t family;
	int	 code;
	const char *name;		/* in version 1; or NULL */
	size_t	 address, address_len;	/* in union endpoint */
	size_t	 port, port_len;
} families[] = {
	{ AF_INET, PROXY_TCP4, "TCP4",
	    offsetof(struct sockaddr_in, sin_addr), 4,
	    offsetof(struct sockaddr_in, sin_port), 2 },
	{ AF_INET6, PROXY_TCP6, "TCP6",
	    offsetof(struct sockaddr_in6, sin6_addr), 16,
	    offsetof(struct sockaddr_in6, sin6_port), 2 },
	{ AF_UNIX, PROXY_STREAM, NULL,
	    offsetof(struct sockaddr_un, sun_path), PROXY_UNIX, 0, 0 },
	{ AF_UNSPEC, PROXY_UNSPEC, NULL, 0, 0, 0, 0 },
};

static const struct family *
family_of(const struct endpoints *ends)
{
	const struct family *f = families;

	while (f->family != AF_UNSPEC && f->family != ends->from.any.ss_family)
		f++;
	return f;
}

static size_t
proxy_make_v1(char *p, size_t size, const struct endpoints *ends)
{
	const struct family *f = family_of(ends);
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];

	if (f->name == NULL)
		return (size_t)snprintf(p, size, "PROXY UNKNOWN\r\n");
	inet_ntop(f->family, (const char *)&ends->from + f->address, from,
	    sizeof(from));
	inet_ntop(f->family, (const char *)&ends->to + f->address, to,
	    sizeof(to));
	/* The port has the same offset in both families. */
	return (size_t)snprintf(p, size, "PROXY %s %s %s %d %d\r\n", f->name,
	    from, to, ntohs(ends->from.in.sin_port),
	    ntohs(ends->to.in.sin_port));
}

/* A buffer to append to, as long as there is room. */
struct bytes {
	unsigned char *p;
	size_t	 n, size;
};

static void
bytes_add(struct bytes *b, const void *data, size_t len)
{
	if (b->size - b->n < len)
		return;
	memcpy(b->p + b->n, data, len);
	b->n += len;
}

static void
bytes_add_number(struct bytes *b, uint32_t value, size_t len)
{
	unsigned char data[4] = { 0 };

	be_put(data, value, len);
	bytes_add(b, data, len);
}

/* Append a TLV with a text, completely or not at all. */
static void
bytes_add_tlv(struct bytes *b, int type, const char *text)
{
	size_t len = text != NULL ? strlen(text) : 0;

	if (len == 0 || b->size - b->n < 3 + len)
		return;
	bytes_add_number(b, (uint32_t)type, 1);
	bytes_add_number(b, (uint32_t)len, 2);
	bytes_add(b, text, len);
}

static void
bytes_set_length(struct bytes *b, size_t at)
{
	be_put(b->p + at, b->n - at - 2, 2);
}

static void
add_tlvs(struct bytes *b, const struct proxy_tls *t)
{
	int client = CLIENT_SSL;
	size_t at;

	if (t->version == NULL)
		return;
	if (t->has_client)
		client |= CLIENT_CERT_SESS | (t->resumed ? 0 :
		    CLIENT_CERT_CONN);
	bytes_add_tlv(b, TLV_ALPN, t->alpn);
	bytes_add_tlv(b, TLV_AUTHORITY, t->name);
	bytes_add_number(b, TLV_SSL, 1);
	at = b->n;
	bytes_add_number(b, 0, 2);
	bytes_add_number(b, (uint32_t)client, 1);
	bytes_add_number(b, !t->has_client, 4);
	bytes_add_tlv(b, TLV_SSL_VERSION, t->version);
	bytes_add_tlv(b, TLV_SSL_CIPHER, t->cipher);
	bytes_add_tlv(b, TLV_SSL_CN, t->client);
	bytes_set_length(b, at);
}

static size_t
proxy_make_v2(unsigned char *p, size_t size, const struct endpoints *ends,
    const struct proxy_tls *tls)
{
	const struct family *f = family_of(ends);
	const char *from = (const void *)&ends->from;
	const char *to = (const void *)&ends->to;
	struct bytes b = { .p = p, .size = size };
	size_t at;

	bytes_add(&b, proxy_v2, sizeof(proxy_v2));
	bytes_add_number(&b, PROXY_PROXY, 1);
	bytes_add_number(&b, (uint32_t)f->code, 1);
	at = b.n;
	bytes_add_number(&b, 0, 2);
	bytes_add(&b, from + f->address, f->address_len);
	bytes_add(&b, to + f->address, f->address_len);
	bytes_add(&b, from + f->port, f->port_len);
	bytes_add(&b, to + f->port, f->port_len);
	add_tlvs(&b, tls);
	bytes_set_length(&b, at);
	return b.n;
}

void
proxy_make(struct proxy *p, int version, const struct endpoints *ends,
    const struct proxy_tls *tls)
{
	p->done = 0;
	p->len = version == PROXY_V1 ?
	    proxy_make_v1((char *)p->data, PROXY_HEADER, ends) :
	    proxy_make_v2(p->data, PROXY_HEADER, ends, tls);
}

int
proxy_write(struct proxy *p, struct stream *s)
{
	ssize_t n = 0;

	while (n == 0 && p->done < p->len) {
		n = s->ops->write(s, p->data + p->done, p->len - p->done);
		if (n > 0) {
			p->done += (size_t)n;
			n = 0;
		}
	}
	return (int)n;
}

/* The number of bytes that can be read without going past the header. */
static size_t
proxy_wants(const struct proxy *p)
{
	size_t len;

	if (p->done < sizeof(proxy_v2))
		return sizeof(proxy_v2) - p->done;
	if (p->data[0] == 'P')
		return p->data[p->done - 1] == '\n' ? 0 :
		    PROXY_V1_MAX - p->done;
	if (p->done < PROXY_V2_HEAD)
		return PROXY_V2_HEAD - p->done;
	len = (size_t)be_get(p->data + 14, 2);
	return len > PROXY_V2_BODY ? 0 : PROXY_V2_HEAD + len - p->done;
}

static int
is_proxy(const struct proxy *p)
{
	size_t n = p->done, v1 = strlen(proxy_v1);

	return memcmp(p->data, proxy_v1, n < v1 ? n : v1) == 0 ||
	    memcmp(p->data, proxy_v2, n < sizeof(proxy_v2) ? n :
	    sizeof(proxy_v2)) == 0;
}

/*
 * Read bytes of the header; returns their number, or a stream's result.  Peek
 * for the end of a version 1 line, to read no byte after it.
 */
static ssize_t
proxy_recv(struct proxy *p, int fd)
{
	int is_line = p->done >= sizeof(proxy_v2) && p->data[0] == 'P';
	unsigned char *to = p->data + p->done, *end;
	ssize_t n;

	do {
		n = recv(fd, to, proxy_wants(p), is_line ? MSG_PEEK : 0);
		if (n > 0 && is_line) {
			end = memchr(to, '\n', (size_t)n);
			n = recv(fd, to, end != NULL ? (size_t)(end - to) + 1 :
			    (size_t)n, 0);
		}
	} while (n == -1 && errno == EINTR);
	if (n != -1)
		return n;
	return errno == EAGAIN || errno == EWOULDBLOCK ? STREAM_WANT_READ :
	    errno == ECONNRESET ? STREAM_RESET : STREAM_ERROR;
}

/* Parse an address and a port as text.  0, or -1. */
static int
parse_end(union endpoint *e, const struct family *f, const char *host,
    const char *port)
{
	int64_t number;

	if (host == NULL || port == NULL ||
	    parse_number(port, 0, 65535, &number) == -1 ||
	    (port[0] == '0' && port[1] != '\0') ||
	    inet_pton(f->family, host, (char *)e + f->address) != 1)
		return -1;
	e->any.ss_family = f->family;
	e->in.sin_port = htons((in_port_t)number);	/* also of in6 */
	return 0;
}

/* 0; 1: UNKNOWN, use the socket's endpoints; -1: invalid. */
static int
proxy_parse_v1(char *line, struct endpoints *ends)
{
	char *word[6] = { NULL }, *end = strstr(line, "\r\n");
	const struct family *f = families;
	size_t n;

	if (end == NULL || end[2] != '\0')
		return -1;
	*end = '\0';
	for (n = 0; n < 6 && line != NULL; n++)
		word[n] = strsep(&line, " ");
	if (n > 1 && strcmp(word[1], "UNKNOWN") == 0)
		return 1;
	if (n < 6 || line != NULL)
		return -1;
	while (f->name != NULL && strcmp(f->name, word[1]) != 0)
		f++;
	return f->name == NULL ||
	    parse_end(&ends->from, f, word[2], word[4]) == -1 ||
	    parse_end(&ends->to, f, word[3], word[5]) == -1 ? -1 : 0;
}

static int
proxy_parse_v2(const unsigned char *p, size_t len, struct endpoints *ends)
{
	static const int useless[] = { PROXY_UNSPEC, PROXY_UDP4, PROXY_UDP6,
	    PROXY_DGRAM };
	char *from = (void *)&ends->from, *to = (void *)&ends->to;
	const struct family *f = families;
	int command = p[12], code = p[13];
	size_t i;

	len -= PROXY_V2_HEAD;
	if (be_get(p + 14, 2) != len ||
	    (command != PROXY_LOCAL && command != PROXY_PROXY))
		return -1;
	if (command == PROXY_LOCAL)
		return 1;
	/* Families without a use here: ignore the addresses. */
	for (i = 0; i < sizeof(useless) / sizeof(useless[0]); i++)
		if (code == useless[i])
			return 1;
	while (f->code != PROXY_UNSPEC && f->code != code)
		f++;
	if (f->code == PROXY_UNSPEC ||
	    len < 2 * f->address_len + 2 * f->port_len)
		return -1;
	p += PROXY_V2_HEAD;
	ends->from.any.ss_family = ends->to.any.ss_family = f->family;
	memcpy(from + f->address, p, f->address_len);
	memcpy(to + f->address, p + f->address_len, f->address_len);
	p += 2 * f->address_len;
	memcpy(from + f->port, p, f->port_len);
	memcpy(to + f->port, p + f->port_len, f->port_len);
	return 0;
}

/* Parse a complete header.  0 with the endpoints, or STREAM_ERROR. */
static int
proxy_take(struct proxy *p, struct endpoints *ends, char *why, size_t size)
{
	char text[2 * PROXY_V1_MAX];
	int r;

	p->data[p->done] = '\0';
	r = p->data[0] == 'P' ? proxy_parse_v1((char *)p->data, ends) :
	    proxy_parse_v2(p->data, p->done, ends);
	if (r == -1) {
		text_quote(text, sizeof(text), p->data, p->done);
		snprintf(why, size, "bad PROXY header: %s", text);
		return STREAM_ERROR;
	}
	if (r == 1)
		ends->from.any.ss_family = AF_UNSPEC;
	net_unmap_v4(ends);
	return 0;
}

int
proxy_read(struct proxy *p, int fd, struct endpoints *ends, char *why,
    size_t size)
{
	char first[64];
	ssize_t n;

	while (proxy_wants(p) > 0) {
		n = proxy_recv(p, fd);
		if (n == 0) {
			snprintf(why, size, p->done == 0 ?
			    "balancer closed without sending anything" :
			    "balancer closed within the PROXY header");
			return STREAM_ERROR;
		}
		if (n == STREAM_ERROR)
			snprintf(why, size, "balancer: %s", strerror(errno));
		if (n < 0)
			return (int)n;
		p->done += (size_t)n;
		if (!is_proxy(p)) {
			text_quote(first, sizeof(first), p->data, p->done);
			snprintf(why, size, "no PROXY header: connection began "
			    "with %s", first);
			return STREAM_ERROR;
		}
	}
	memset(ends, 0, sizeof(*ends));
	return proxy_take(p, ends, why, size);
}
