/* tls_names: the names in a certificate, and those it is to be found by. */
#include <stdio.h>
#include <string.h>

#include "tls_names.h"

int
tls_names_is_host(const char *s)
{
	return *s != '\0' && strlen(s) < NAME_SIZE && strspn(s,
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	    "-._*") == strlen(s);
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
	/* Of an empty one nothing is written. */
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
