/* tls_names: the names in a certificate, and names compared with them. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "tls.h"
#include "tls_names.h"
#include "util.h"

#define LETTERS	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS	"0123456789"
#define HOST	LETTERS DIGITS "-._*"
#define LISTED	8			/* names of a certificate in text */

int
tls_names_is_host(const char *s)
{
	return *s != '\0' && strlen(s) < NAME_SIZE &&
	    s[strspn(s, HOST)] == '\0';
}

int
tls_names_each(const mbedtls_x509_crt *crt,
    int (*f)(void *, int kind, const char *, size_t), void *arg)
{
	const mbedtls_x509_sequence *s = &crt->subject_alt_names;
	mbedtls_x509_subject_alternative_name san;
	int r = 0;

	for (; s != NULL && s->buf.p != NULL && r == 0; s = s->next) {
		const mbedtls_x509_buf *b = &san.san.unstructured_name;

		if (mbedtls_x509_parse_subject_alt_name(&s->buf, &san) != 0)
			continue;
		if (san.type == MBEDTLS_X509_SAN_DNS_NAME ||
		    san.type == MBEDTLS_X509_SAN_IP_ADDRESS ||
		    san.type == MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)
			r = f(arg, san.type, (const char *)b->p, b->len);
		mbedtls_x509_free_subject_alt_name(&san);
	}
	return r;
}

const char *
tls_names_dn(const mbedtls_x509_name *dn, char *text, size_t size)
{
	/* mbedtls_x509_dn_gets() writes nothing for an empty name. */
	text[0] = '\0';
	if (mbedtls_x509_dn_gets(text, size, dn) < 0)
		snprintf(text, size, "(too long)");
	return text;
}

int
tls_names_has_san(const mbedtls_x509_crt *crt)
{
	return crt->subject_alt_names.buf.p != NULL;
}

const mbedtls_x509_buf *
tls_names_common(const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_name *n;
	const mbedtls_x509_buf *found = NULL;

	for (n = &crt->subject; n != NULL; n = n->next)
		if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0)
			found = &n->val;
	return found;
}

int
tls_names_equal(const char *a, const char *b, size_t len)
{
	return strlen(a) == len && strncasecmp(a, b, len) == 0;
}

int
tls_names_matches_wildcard(const char *pattern, size_t plen, const char *name,
    size_t len)
{
	const char *dot = memchr(name, '.', len);
	size_t label = dot != NULL ? (size_t)(dot - name) : 0;

	return plen > 2 && pattern[0] == '*' && pattern[1] == '.' &&
	    label > 0 && len - label == plen - 1 &&
	    strncasecmp(pattern + 1, dot, plen - 1) == 0;
}

int
tls_names_covers(const char *pattern, size_t len, const char *name)
{
	if (tls_names_equal(name, pattern, len))
		return 1;
	return name[strspn(name, LETTERS DIGITS "-.")] == '\0' &&
	    tls_names_matches_wildcard(pattern, len, name, strlen(name)) &&
	    memchr(pattern + 2, '.', len - 2) != NULL;
}

size_t
tls_names_address(const char *text, unsigned char bytes[16])
{
	char bare[INET6_ADDRSTRLEN];
	size_t len = strcspn(text, "%");

	if (inet_pton(AF_INET, text, bytes) == 1)
		return 4;
	if (len >= sizeof(bare))
		return 0;
	/* Certificates have no zone, such as %eth0. */
	snprintf(bare, sizeof(bare), "%.*s", (int)len, text);
	return inet_pton(AF_INET6, bare, bytes) == 1 ? 16 : 0;
}

int
tls_is_name(const char *name)
{
	unsigned char address[16];

	return tls_names_address(name, address) > 0 ||
	    (tls_names_is_host(name) && strchr(name, '*') == NULL);
}

static int
is_dns(void *arg, int kind, const char *name, size_t len)
{
	(void)arg;
	(void)name;
	(void)len;
	return kind == MBEDTLS_X509_SAN_DNS_NAME;
}

int
tls_names_has_dns(const mbedtls_x509_crt *crt)
{
	return tls_names_each(crt, is_dns, NULL);
}

int
tls_names_is_dns(const mbedtls_x509_buf *cn)
{
	size_t i;

	for (i = 0; i < cn->len; i++)
		if (cn->p[i] == '\0' || strchr(HOST, cn->p[i]) == NULL)
			return 0;
	return memchr(cn->p, '.', cn->len) != NULL;
}

/* The name or address of a server. */
struct server {
	const char *name;
	unsigned char address[16];
	size_t	 len;			/* of an address; 0: a name */
};

static int
is_server(void *arg, int kind, const char *name, size_t len)
{
	const struct server *s = arg;

	if (s->len > 0)
		return kind == MBEDTLS_X509_SAN_IP_ADDRESS && len == s->len &&
		    memcmp(name, s->address, len) == 0;
	return kind == MBEDTLS_X509_SAN_DNS_NAME &&
	    tls_names_covers(name, len, s->name);
}

int
tls_names_is_server(const mbedtls_x509_crt *crt, const char *name)
{
	struct server s = { .name = name };
	const mbedtls_x509_buf *cn = tls_names_common(crt);

	s.len = tls_names_address(name, s.address);
	if (tls_names_each(crt, is_server, &s))
		return 1;
	return cn != NULL && s.len == 0 && !tls_names_has_dns(crt) &&
	    tls_names_covers((const char *)cn->p, cn->len, name);
}

/* A list as text, and the number of names in it. */
struct list {
	struct text text;
	size_t	 n;
};

static int
list_name(void *arg, int kind, const char *name, size_t len)
{
	char raw[NAME_SIZE], escaped[NAME_SIZE];
	struct list *l = arg;

	if (kind == MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER)
		return 0;
	if (l->n++ == LISTED) {
		text_add(&l->text, ", ...");
		return 1;
	}
	if (kind == MBEDTLS_X509_SAN_IP_ADDRESS)
		inet_ntop(len == 4 ? AF_INET : AF_INET6, name, raw,
		    sizeof(raw));
	else
		snprintf(raw, sizeof(raw), "%.*s", (int)len, name);
	text_escape(escaped, sizeof(escaped), raw);
	text_add(&l->text, "%s%s%s", l->n > 1 ? ", " : "", escaped,
	    memchr(name, '\0', len) != NULL && kind ==
	    MBEDTLS_X509_SAN_DNS_NAME ? "\\x00..." : "");
	return 0;
}

void
tls_names_list(const mbedtls_x509_crt *crt, char *text, size_t size)
{
	const mbedtls_x509_buf *cn = tls_names_common(crt);
	struct list l = { .text = { text, size, 0 } };

	text[0] = '\0';
	tls_names_each(crt, list_name, &l);
	if (l.n == 0 && cn != NULL)
		list_name(&l, MBEDTLS_X509_SAN_DNS_NAME, (const char *)cn->p,
		    cn->len);
	if (text[0] == '\0')
		text_add(&l.text, "no host");
}

static int
answers_query(void *arg, int kind, const char *name, size_t len)
{
	const struct name_query *s = arg;

	if (kind != MBEDTLS_X509_SAN_DNS_NAME)
		return 0;
	return s->by_pattern ? tls_names_matches_wildcard(name, len, s->name,
	    strlen(s->name)) : tls_names_equal(s->name, name, len);
}

int
tls_names_has(const mbedtls_x509_crt *crt, struct name_query *s)
{
	const mbedtls_x509_buf *cn = tls_names_common(crt);

	if (tls_names_has_san(crt))
		return tls_names_each(crt, answers_query, s);
	return cn != NULL && answers_query(s, MBEDTLS_X509_SAN_DNS_NAME,
	    (const char *)cn->p, cn->len);
}

int
tls_names_remember(mbedtls_ssl_context *ssl)
{
	struct tls *t = mbedtls_ssl_get_user_data_p(ssl);
	const unsigned char *name;
	size_t len;

	name = mbedtls_ssl_get_hs_sni(ssl, &len);
	if (name == NULL || t->sni != NULL)
		return 0;
	t->sni = strndup((const char *)name, len < NAME_SIZE ? len : NAME_SIZE);
	if (t->sni == NULL)
		return MBEDTLS_ERR_SSL_ALLOC_FAILED;
	if (strlen(t->sni) != len || !tls_names_is_host(t->sni))
		t->sni[0] = '\0';
	else if (len > 1 && t->sni[len - 1] == '.')	/* the root's */
		t->sni[len - 1] = '\0';
	return 0;
}
