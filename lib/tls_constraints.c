/* tls_constraints: the names that an issuer may certify. */
#include <string.h>

#include "tls_cert.h"
#include "tls_constraints.h"
#include "tls_names.h"

#define CONTEXT		MBEDTLS_ASN1_CONTEXT_SPECIFIC
#define CONSTRUCTED	MBEDTLS_ASN1_CONSTRUCTED
#define SEQUENCE	(CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE)
#define KIND \
	(MBEDTLS_ASN1_TAG_CLASS_MASK | MBEDTLS_ASN1_TAG_VALUE_MASK)

/* A GeneralName of one kind, RFC 5280 section 4.2.1.6. */
#define NAME(kind, b) \
	{ .tag = CONTEXT | (kind), .p = (b)->p, .len = (b)->len }

/* An iterator over an issuer's subtrees: the permitted, then the excluded. */
struct walk {
	unsigned char *p, *end;		/* the rest of the current list */
	unsigned char *rest, *last;	/* what follows this list */
	int	 is_excluded;
};

/* Begin.  1, or 0: the issuer has no constraints; -1: malformed. */
static int
walk_begin(struct walk *w, const mbedtls_x509_crt *issuer)
{
	mbedtls_x509_buf b;
	int r = tls_cert_extension(issuer, MBEDTLS_OID_NAME_CONSTRAINTS, &b);
	size_t len;

	*w = (struct walk){ .is_excluded = 0 };
	if (r != 1)
		return r;
	w->rest = b.p;
	w->last = b.p + b.len;
	if (mbedtls_asn1_get_tag(&w->rest, w->last, &len, SEQUENCE) != 0 ||
	    w->rest + len != w->last || len == 0)
		return -1;
	return 1;
}

/* Get the next subtree as base, with its tag.  1, 0: no more, -1: malformed. */
static int
walk_next(struct walk *w, mbedtls_x509_buf *base)
{
	unsigned char *end;
	size_t len;

	while (w->p == w->end) {
		if (w->rest == w->last)
			return 0;
		w->is_excluded = *w->rest == (CONTEXT | CONSTRUCTED | 1);
		if (mbedtls_asn1_get_tag(&w->rest, w->last, &len, CONTEXT |
		    CONSTRUCTED | w->is_excluded) != 0)
			return -1;
		w->p = w->rest;
		w->end = w->rest += len;
	}
	if (mbedtls_asn1_get_tag(&w->p, w->end, &len, SEQUENCE) != 0)
		return -1;
	end = w->p + len;
	if (len == 0)
		return -1;
	base->tag = *w->p;
	if (mbedtls_asn1_get_tag(&w->p, end, &base->len, base->tag) != 0)
		return -1;
	base->p = w->p;
	w->p += base->len;
	/* RFC 5280: the minimum is 0, the default; a maximum is not allowed. */
	if (end - w->p == 3 && memcmp(w->p, "\x80\x01\x00", 3) == 0)
		w->p = end;
	return w->p == end ? 1 : -1;
}

int
tls_constraints_are_valid(const mbedtls_x509_crt *issuer)
{
	mbedtls_x509_buf base;
	struct walk w;
	int r = walk_begin(&w, issuer);

	while (r == 1)
		r = walk_next(&w, &base);
	return r == 0;
}

/*
 * Compare a DNS name.  "example.org" contains itself and all names below it,
 * ".example.org" only those below.  An excluded subtree also contains a
 * wildcard that matches a name in it.
 */
static int
has_dns(const mbedtls_x509_buf *base, const mbedtls_x509_buf *name,
    int is_excluded)
{
	const char *b = (const char *)base->p, *n = (const char *)name->p;
	const char *dot = memchr(b, '.', base->len);

	if (is_excluded && name->len > 1 && n[0] == '*' && dot != NULL &&
	    base->len - (size_t)(dot - b) == name->len - 1 &&
	    strncasecmp(dot, n + 1, name->len - 1) == 0)
		return 1;
	if (base->len > name->len)
		return 0;
	n += name->len - base->len;
	return strncasecmp(b, n, base->len) == 0 && (base->len == 0 ||
	    base->len == name->len || b[0] == '.' || n[-1] == '.');
}

/* Compare an address with a network and its mask.  -1: it can't be decided. */
static int
has_address(const mbedtls_x509_buf *base, const mbedtls_x509_buf *name)
{
	size_t i;

	if ((base->len != 8 && base->len != 32) ||
	    (name->len != 4 && name->len != 16))
		return -1;
	for (i = 0; i < name->len && base->len == 2 * name->len; i++)
		if (((base->p[i] ^ name->p[i]) & base->p[name->len + i]) != 0)
			return 0;
	return base->len == 2 * name->len;
}

/*
 * Compare a distinguished name: a subtree contains the names that begin with
 * its bytes.  An excluded name may have another encoding: -1, it can't be
 * decided.
 */
static int
has_directory(const mbedtls_x509_buf *base, const mbedtls_x509_buf *name,
    int is_excluded)
{
	unsigned char *b = base->p, *n = name->p;
	size_t nb, nn;

	if (mbedtls_asn1_get_tag(&b, b + base->len, &nb, SEQUENCE) != 0 ||
	    mbedtls_asn1_get_tag(&n, n + name->len, &nn, SEQUENCE) != 0)
		return -1;
	if (is_excluded && nb > 0)
		return -1;
	return nb <= nn && memcmp(b, n, nb) == 0;
}

/* Return 1 if a name is in a subtree, 0 if not, -1 if it can't be decided. */
static int
is_in(const mbedtls_x509_buf *base, const mbedtls_x509_buf *name,
    int is_excluded)
{
	switch (name->tag & MBEDTLS_ASN1_TAG_VALUE_MASK) {
	case MBEDTLS_X509_SAN_DNS_NAME:
		return has_dns(base, name, is_excluded);
	case MBEDTLS_X509_SAN_IP_ADDRESS:
		return has_address(base, name);
	case MBEDTLS_X509_SAN_DIRECTORY_NAME:
		return has_directory(base, name, is_excluded);
	default:
		return -1;
	}
}

static enum constraints
check_name(const mbedtls_x509_crt *issuer, const mbedtls_x509_buf *name)
{
	enum { ANY, MISSED, FOUND } permitted = ANY;
	mbedtls_x509_buf base;
	struct walk w;
	int r = walk_begin(&w, issuer), in;

	while (r == 1 && (r = walk_next(&w, &base)) == 1) {
		if (((base.tag ^ name->tag) & KIND) != 0)
			continue;
		in = is_in(&base, name, w.is_excluded);
		if (in == -1 || (in && w.is_excluded))
			return in == -1 ? CONSTRAINTS_UNCHECKED :
			    CONSTRAINTS_BROKEN;
		if (!w.is_excluded && permitted != FOUND)
			permitted = in ? FOUND : MISSED;
	}
	return r == -1 ? CONSTRAINTS_UNCHECKED : permitted == MISSED ?
	    CONSTRAINTS_BROKEN : CONSTRAINTS_KEPT;
}

/* Check the subject: the whole name, mail addresses in it, and a DNS name. */
static enum constraints
check_subject(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *crt,
    const char *host)
{
	mbedtls_x509_buf whole = NAME(MBEDTLS_X509_SAN_DIRECTORY_NAME |
	    CONSTRUCTED, &crt->subject_raw);
	const mbedtls_x509_buf *cn = tls_names_common(crt);
	const mbedtls_x509_name *n;
	enum constraints r = CONSTRAINTS_KEPT;

	if (crt->subject.oid.p != NULL)
		r = check_name(issuer, &whole);
	for (n = &crt->subject; n != NULL && r == CONSTRAINTS_KEPT;
	    n = n->next) {
		mbedtls_x509_buf mail = NAME(MBEDTLS_X509_SAN_RFC822_NAME,
		    &n->val);

		if (n->oid.p != NULL &&
		    MBEDTLS_OID_CMP(MBEDTLS_OID_PKCS9_EMAIL, &n->oid) == 0)
			r = check_name(issuer, &mail);
	}
	if (r == CONSTRAINTS_KEPT && cn != NULL && !tls_names_has_dns(crt) &&
	    (tls_names_is_dns(cn) || (host != NULL &&
	    tls_names_covers((const char *)cn->p, cn->len, host)))) {
		mbedtls_x509_buf dns = NAME(MBEDTLS_X509_SAN_DNS_NAME, cn);

		r = check_name(issuer, &dns);
	}
	return r;
}

enum constraints
tls_constraints_check(const mbedtls_x509_crt *issuer,
    const mbedtls_x509_crt *crt, const char *host)
{
	const mbedtls_x509_sequence *s = &crt->subject_alt_names;
	enum constraints r;
	struct walk w;

	if (walk_begin(&w, issuer) == 0)
		return CONSTRAINTS_KEPT;
	r = check_subject(issuer, crt, host);
	for (; s != NULL && s->buf.p != NULL && r == CONSTRAINTS_KEPT;
	    s = s->next)
		r = check_name(issuer, &s->buf);
	return r;
}
