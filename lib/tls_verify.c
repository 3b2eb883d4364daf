/* tls_verify: verification of the peer's certificate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls_cert.h"
#include "tls_constraints.h"
#include "tls_error.h"
#include "tls_files.h"
#include "tls_names.h"
#include "tls_rules.h"
#include "tls_verify.h"
#include "util.h"

#define PEER_RSA_MAX	4096		/* bits of a key that a peer sends */
#define CHAIN_MAX	5		/* certificates that a peer sends */
#define CERTIFICATE_REQUIRED 116	/* RFC 8446 section 6.2 */

static int
has_usage(const mbedtls_x509_crt *crt, const char *oid)
{
	const mbedtls_x509_sequence *s;

	for (s = &crt->ext_key_usage; s != NULL; s = s->next)
		if (s->buf.len == strlen(oid) &&
		    memcmp(s->buf.p, oid, s->buf.len) == 0)
			return 1;
	return 0;
}

/*
 * As in OpenSSL, the extended key usage of an issuer applies to the
 * certificates below it, and anyExtendedKeyUsage (RFC 5280 section 4.2.1.12)
 * does not stand for client or server authentication.
 */
static int
is_for_peers(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	return !mbedtls_x509_crt_has_ext_type(crt,
	    MBEDTLS_X509_EXT_EXTENDED_KEY_USAGE) ||
	    has_usage(crt, cfg->is_client ? MBEDTLS_OID_SERVER_AUTH :
	    MBEDTLS_OID_CLIENT_AUTH);
}

/* Return 1 if the certificate is in ca, not only sent by the peer. */
static int
is_ours(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_crt *ca = cfg->has_ca ? &cfg->ca : NULL;

	while (ca != NULL && ca != crt)
		ca = ca->next;
	return ca != NULL;
}

/*
 * The library has checked basicConstraints, except in certificates of ca below
 * version 3.  An issuer that the peer sent needs a keyUsage as well (RFC 5280
 * section 4.2.1.3), so that a flaw in that check is not enough for an attack.
 */
static int
may_issue(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	return is_ours(cfg, crt) ?
	    crt->version == 3 || tls_cert_is_issuer(crt, crt) :
	    mbedtls_x509_crt_has_ext_type(crt, MBEDTLS_X509_EXT_KEY_USAGE);
}

uint32_t
tls_verify_issuer_flags(const struct tls_config *cfg,
    const mbedtls_x509_crt *crt)
{
	uint32_t flags = 0;

	if (!may_issue(cfg, crt))
		flags |= CERT_NO_ISSUER;
	if (!is_for_peers(cfg, crt))
		flags |= MBEDTLS_X509_BADCERT_EXT_KEY_USAGE;
	if (!tls_constraints_are_valid(crt))
		flags |= CERT_CONSTRAINTS_MALFORMED;
	return flags;
}

/*
 * Return the flags for a certificate's names, checked against the name
 * constraints of its issuers; these form a chain up to a trusted root.
 * Constraints do not apply to a self-issued certificate, except the peer's own;
 * RFC 5280 section 4.2.1.10.
 */
static uint32_t
constraint_flags(const struct tls *t, const mbedtls_x509_crt *crt, int depth)
{
	const struct tls_config *cfg = t->cfg;
	size_t i;

	if (depth > 0 && tls_cert_is_issuer(crt, crt))
		return 0;
	for (i = 0; i < cfg->nabove; i++)
		switch (tls_constraints_check(cfg->above[i], crt, t->name)) {
		case CONSTRAINTS_BROKEN:
			return CERT_CONSTRAINTS_BROKEN;
		case CONSTRAINTS_UNCHECKED:
			return CERT_CONSTRAINTS_UNCHECKED;
		case CONSTRAINTS_KEPT:
			break;
		}
	return 0;
}

/* Return the first fault of the flags; text describes it for crt. */
static const struct fault *
fault_text(const struct tls *t, const mbedtls_x509_crt *crt, uint32_t flags,
    char *text, size_t size)
{
	const mbedtls_x509_crl *crl = &t->cfg->crl;
	const struct fault *f = tls_error_fault(flags);
	char dn[DN_SIZE];

	if (f->text != NULL) {
		snprintf(text, size, "%s", tls_error_fault_text(t->cfg, f));
	} else if (f->flags & MBEDTLS_X509_BADCERT_CN_MISMATCH) {
		tls_names_list(crt, dn, sizeof(dn));
		snprintf(text, size, "name mismatch: the certificate is for "
		    "%s, not for %s", dn, t->name);
	} else if (f->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED) {
		snprintf(text, size, "unknown issuer \"%s\"%s",
		    tls_names_dn(&crt->issuer, dn, sizeof(dn)),
		    tls_cert_is_issuer(crt, crt) ? " (self-issued)" : "");
	} else if (f->flags & MBEDTLS_X509_BADCERT_EXPIRED) {
		tls_cert_dates(&crt->valid_from, &crt->valid_to, 0, text, size);
	} else {
		/* Find the CRL of this issuer that is not valid now. */
		while (tls_cert_dates(&crl->this_update, &crl->next_update, 0,
		    dn, sizeof(dn)) == IN_TIME ||
		    !tls_cert_same(&crl->issuer_raw, &crt->issuer_raw)) {
			if (crl->next == NULL)
				break;
			crl = crl->next;
		}
		snprintf(text, size, "CRL %s", dn);
	}
	return f;
}

/* Reject the peer for one of its issuers, with these flags. */
static void
reject_issuer(struct tls *t, const mbedtls_x509_crt *crt, uint32_t flags)
{
	char text[ERROR_SIZE], dn[DN_SIZE];
	const struct fault *f = fault_text(t, crt, flags, text, sizeof(text));

	if (f->flags & (MBEDTLS_X509_BADCERT_NOT_TRUSTED | CERT_CHAIN_TOO_LONG))
		tls_reject(t, f->alert, "%s", text);
	else
		tls_reject(t, f->alert, "issuer \"%s\": %s",
		    tls_names_dn(&crt->subject, dn, sizeof(dn)), text);
}

/* Reject the peer's own certificate; a rejected issuer is the better reason. */
static void
reject_peer(struct tls *t, const mbedtls_x509_crt *crt, uint32_t flags)
{
	unsigned char alert = t->alert;
	char text[ERROR_SIZE], dn[DN_SIZE];

	if (t->issuer_flags == 0)
		alert = fault_text(t, crt, flags, text, sizeof(text))->alert;
	else
		snprintf(text, sizeof(text), "%s", t->why != NULL ? t->why :
		    "one of its issuers");
	tls_reject(t, alert, "%s certificate \"%s\": %s", peer_role(t->cfg),
	    tls_names_dn(&crt->subject, dn, sizeof(dn)), text);
}

void
tls_verify_forget(struct tls *t)
{
	free(t->peer);
	free(t->cn);
	free(t->chain);
	t->peer = t->cn = NULL;
	t->chain = NULL;
	t->chain_len = 0;
}

/* Copy the certificates, each behind a length of 3 bytes (RFC 8446 4.4.2). */
static int
keep_chain(struct tls *t, const mbedtls_x509_crt *chain)
{
	const mbedtls_x509_crt *crt;
	unsigned char *p;
	size_t len = 3 + chain->raw.len;

	for (crt = chain->next; crt != NULL; crt = crt->next)
		len += 3 + crt->raw.len;
	if ((t->chain = p = calloc(1, len)) == NULL)
		return -1;
	t->chain_len = len;
	for (crt = chain; crt != NULL; crt = crt->next) {
		be_put(p, crt->raw.len, 3);
		memcpy(p + 3, crt->raw.p, crt->raw.len);
		p += 3 + crt->raw.len;
	}
	return 0;
}

static int
remember_peer(struct tls *t, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_buf *cn = tls_names_common(crt);
	char dn[DN_SIZE];

	tls_verify_forget(t);
	t->peer = strdup(tls_names_dn(&crt->subject, dn, sizeof(dn)));
	/* Text would end at a zero byte: treat such a name as absent. */
	if (cn != NULL && memchr(cn->p, '\0', cn->len) != NULL)
		cn = NULL;
	if (cn != NULL)
		t->cn = strndup((const char *)cn->p, cn->len);
	return t->peer == NULL || (cn != NULL && t->cn == NULL) ||
	    keep_chain(t, crt) == -1 ? MBEDTLS_ERR_X509_ALLOC_FAILED : 0;
}

/* Return 1 if Netscape's nsCertType is absent or has the peer's role. */
static int
is_for_netscape(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	const unsigned char bit = cfg->is_client ?
	    MBEDTLS_X509_NS_CERT_TYPE_SSL_SERVER :
	    MBEDTLS_X509_NS_CERT_TYPE_SSL_CLIENT;
	mbedtls_asn1_bitstring bits;
	mbedtls_x509_buf b;
	int r = tls_cert_extension(crt, MBEDTLS_OID_NS_CERT_TYPE, &b);

	return r == 0 || (r == 1 && mbedtls_asn1_get_bitstring(&b.p,
	    b.p + b.len, &bits) == 0 && bits.len > 0 &&
	    (bits.p[0] & bit) != 0);
}

static int
may_authenticate(const struct tls_config *cfg, const mbedtls_x509_crt *crt)
{
	return mbedtls_x509_crt_check_key_usage(crt,
	    MBEDTLS_X509_KU_DIGITAL_SIGNATURE) == 0 &&
	    is_for_peers(cfg, crt) && is_for_netscape(cfg, crt) &&
	    tls_cert_find_oid(crt, PROXY_CERT_INFO) == NULL;
}

/* Return 1 if the authorityKeyIdentifier is absent or matches the issuer. */
static int
is_key_of(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_authority *a = &crt->authority_key_id;
	const mbedtls_x509_sequence *s;

	if (a->keyIdentifier.p != NULL && issuer->subject_key_id.p != NULL &&
	    !tls_cert_same(&a->keyIdentifier, &issuer->subject_key_id))
		return 0;
	if (a->authorityCertSerialNumber.p != NULL && !tls_cert_same(
	    &a->authorityCertSerialNumber, &issuer->serial))
		return 0;
	for (s = &a->authorityCertIssuer; s != NULL; s = s->next)
		if (s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC |
		    MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_X509_SAN_DIRECTORY_NAME))
			return tls_cert_same(&s->buf, &issuer->issuer_raw);
	return 1;
}

/*
 * Return 1 if issuer, which the library has found by name and key, issued crt.
 * A renewed authority has several certificates with the same name and key: one
 * match among them is enough.
 */
static int
has_come_from(const struct tls_config *cfg, const mbedtls_x509_crt *issuer,
    const mbedtls_x509_crt *crt)
{
	const mbedtls_x509_crt *ca = cfg->has_ca ? &cfg->ca : NULL;

	if (tls_cert_is_issuer(crt, crt) && is_key_of(crt, crt))
		return 0;		/* it is self-signed */
	if (is_key_of(issuer, crt))
		return 1;
	while (ca != NULL && !(tls_cert_is_issuer(ca, crt) && is_key_of(ca,
	    crt) && tls_cert_same(&ca->pk_raw, &issuer->pk_raw) &&
	    tls_verify_issuer_flags(cfg, ca) == 0 &&
	    !mbedtls_x509_time_is_past(&ca->valid_to) &&
	    !mbedtls_x509_time_is_future(&ca->valid_from)))
		ca = ca->next;
	return ca != NULL;
}

/*
 * Return 1 if the groups include the curve of a key.  In TLS 1.2 they apply to
 * the keys of certificates too, RFC 8422 section 5.1.1.  mbed TLS 3.6 checks
 * that as well, 4.1 does not.
 */
static int
is_in_groups(const struct tls_config *cfg, const mbedtls_pk_context *pk)
{
	const struct cert_curve *c = tls_cert_curve(pk);
	const uint16_t *g = cfg->groups;

	while (c != NULL && *g != 0 && *g != c->group)
		g++;
	return c == NULL || *g != 0;
}

/* Return the flags for a chain or a key that would cost too much to verify. */
static uint32_t
exceeded(const mbedtls_x509_crt *crt, int depth)
{
	uint32_t flags = 0;

	if (depth >= CHAIN_MAX)
		flags |= CERT_CHAIN_TOO_LONG;
	if (tls_cert_is_rsa(&crt->pk) &&
	    mbedtls_pk_get_bitlen(&crt->pk) > PEER_RSA_MAX)
		flags |= CERT_KEY_TOO_LONG;
	return flags;
}

/*
 * A patched library calls back for a certificate with a critical extension
 * unknown to it.  Accept an extension that we check ourselves; otherwise keep
 * the names of certificate and extension for the log.
 */
static int
check_extension(struct tls *t, const mbedtls_x509_crt *crt, uint32_t *flags)
{
	struct cert_loading l = { .use = PINNED };
	mbedtls_x509_crt again;

	mbedtls_x509_crt_init(&again);
	if (mbedtls_x509_crt_parse_der_with_ext_cb(&again, crt->raw.p,
	    crt->raw.len, 1, tls_files_check_extension, &l) == 0)
		*flags = 0;
	else if (l.refused[0] != '\0')
		tls_reject(t, MBEDTLS_SSL_ALERT_MSG_BAD_CERT,
		    "%s certificate %s", peer_role(t->cfg), l.refused);
	mbedtls_x509_crt_free(&again);
	return 0;
}

/* Return the flags for the peer's name or rules; found: the rule, or NULL. */
static uint32_t
name_flags(const struct tls *t, const mbedtls_x509_crt *crt, int is_trusted,
    const struct rule **found)
{
	*found = tls_rules_find(t->cfg, crt, is_trusted);
	if (t->cfg->rules != NULL)
		return *found == NULL ? MBEDTLS_X509_BADCERT_OTHER : 0;
	return !t->cfg->is_client || (t->name != NULL &&
	    tls_names_is_server(crt, t->name)) ? 0 :
	    MBEDTLS_X509_BADCERT_CN_MISMATCH;
}

static void
check_issuer(struct tls *t, const mbedtls_x509_crt *crt, uint32_t *flags)
{
	struct tls_config *cfg = t->cfg;

	*flags |= tls_verify_issuer_flags(cfg, crt);
	if (t->issuer_flags == 0 && *flags != 0)
		reject_issuer(t, crt, *flags);
	t->issuer_flags |= *flags;
	*flags = 0;
	if (cfg->nabove < ISSUERS_MAX)
		cfg->above[cfg->nabove++] = crt;
}

static int
check_peer(struct tls *t, const mbedtls_x509_crt *crt, uint32_t *flags,
    int is_trusted)
{
	const struct rule *r;

	/* In TLS 1.2 the library skips one with an unknown signature. */
	if (crt->raw.p == NULL)
		*flags |= CERT_SIGNED_ODDLY;
	if (!is_tls13(t) && !is_in_groups(t->cfg, &crt->pk))
		*flags |= MBEDTLS_X509_BADCERT_BAD_KEY;
	if (!may_authenticate(t->cfg, crt))
		*flags |= MBEDTLS_X509_BADCERT_EXT_KEY_USAGE;
	/* The library has compared the SNI; t->name decides. */
	*flags &= ~(uint32_t)MBEDTLS_X509_BADCERT_CN_MISMATCH;
	*flags |= name_flags(t, crt, is_trusted, &r);
	if (!t->cfg->has_ca || (r != NULL && tls_rules_is_pin(r))) {
		*flags &= ~(uint32_t)(MBEDTLS_X509_BADCERT_NOT_TRUSTED |
		    CERT_CONSTRAINTS_BROKEN | CERT_CONSTRAINTS_UNCHECKED);
		t->issuer_flags = 0;
	}
	*flags |= t->issuer_flags;
	if (*flags == 0) {
		tls_reject_undo(t);
		return remember_peer(t, crt);
	}
	reject_peer(t, crt, *flags);
	t->issuer_flags = 0;
	return 0;
}

int
tls_verify_cert(void *arg, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
	struct tls *t = arg;
	int is_trusted;

	if (depth < 0)
		return check_extension(t, crt, flags);
	if (!is_ours(t->cfg, crt))
		*flags |= exceeded(crt, depth);
	if (t->issuer == NULL)		/* the topmost one comes first */
		t->cfg->nabove = 0;
	else if (!has_come_from(t->cfg, t->issuer, crt))
		*flags |= MBEDTLS_X509_BADCERT_NOT_TRUSTED;
	t->issuer = depth > 0 ? crt : NULL;
	/* Do no costly work for a chain without a trusted issuer. */
	is_trusted = ((*flags | t->issuer_flags) &
	    MBEDTLS_X509_BADCERT_NOT_TRUSTED) == 0;
	if (is_trusted)
		*flags |= constraint_flags(t, crt, depth);
	if (depth == 0)
		return check_peer(t, crt, flags, is_trusted);
	check_issuer(t, crt, flags);
	return 0;
}

int
tls_verify_check_verdict(struct tls *t)
{
	uint32_t flags = mbedtls_ssl_get_verify_result(t->ssl);
	const struct fault *f;

	if (t->refused || t->cfg->verify == NOT_ASKED)
		return t->refused;
	/* All bits: there is no result yet. */
	if (flags == UINT32_MAX || flags == MBEDTLS_X509_BADCERT_SKIP_VERIFY)
		flags = 0;
	/* An offered session that was not resumed leaves its peer behind. */
	if (flags & MBEDTLS_X509_BADCERT_MISSING) {
		tls_verify_forget(t);
	} else if (flags != 0) {
		/* Found by the library itself, after tls_verify_cert(). */
		f = tls_error_fault(flags);
		tls_reject(t, f->alert, "%s certificate \"%s\": %s",
		    peer_role(t->cfg), t->peer != NULL ? t->peer : "",
		    f->text != NULL ? tls_error_fault_text(t->cfg, f) :
		    "not valid");
	}
	if (t->peer == NULL && t->psk == NULL && t->cfg->verify == REQUIRED &&
	    (flags != 0 || mbedtls_ssl_is_handshake_over(t->ssl)))
		tls_reject(t, is_tls13(t) ? CERTIFICATE_REQUIRED :
		    MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE,
		    "no %s certificate", peer_role(t->cfg));
	return t->refused;
}
