/* tls_files: certificates, keys and revocation lists, loaded from files. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tls_cert.h"
#include "tls_error.h"
#include "tls_files.h"
#include "tls_key.h"
#include "tls_names.h"
#include "tls_pem.h"

/* Name an extension of RFC 5280 section 4.2.1 that occurs as critical. */
static const char *
extension_name(const mbedtls_x509_buf *oid, char *text, size_t size)
{
	static const struct {
		unsigned char number;
		char	 name[20];
	} names[] = {
		{ 0x20, "certificatePolicies" }, { 0x24, "policyConstraints" },
		{ 0x36, "inhibitAnyPolicy" },
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (oid->len == 3 && memcmp(oid->p, MBEDTLS_OID_ID_CE, 2) ==
		    0 && oid->p[2] == names[i].number)
			return names[i].name;
	if (mbedtls_oid_get_numeric_string(text, size, oid) < 0)
		return "(unknown)";
	return text;
}

int
tls_files_check_extension(void *arg, const mbedtls_x509_crt *crt,
    const mbedtls_x509_buf *oid, int is_critical, const unsigned char *p,
    const unsigned char *end)
{
	struct cert_loading *l = arg;
	char dn[DN_SIZE], number[64];

	(void)p;
	(void)end;
	if (l->use == OWN || !is_critical ||
	    MBEDTLS_OID_CMP(MBEDTLS_OID_NAME_CONSTRAINTS, oid) == 0)
		return 0;
	snprintf(l->refused, sizeof(l->refused), "\"%s\": its critical "
	    "extension %s is not supported", tls_names_dn(&crt->subject, dn,
	    sizeof(dn)), extension_name(oid, number, sizeof(number)));
	return MBEDTLS_ERR_X509_FEATURE_UNAVAILABLE;
}

/* Return 1 if OpenSSL's trust settings follow the certificate. */
static int
has_trust_settings(const unsigned char *der, size_t len)
{
	/* The library only reads, although it declares otherwise. */
	unsigned char *p = (unsigned char *)(uintptr_t)der;
	const unsigned char *end = der + len;
	const int sequence = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE;

	if (mbedtls_asn1_get_tag(&p, end, &len, sequence) != 0)
		return 0;
	p += len;
	return mbedtls_asn1_get_tag(&p, end, &len, sequence) == 0 && len > 0;
}

/* Append a certificate.  0, or -1 with cfg->error, without the file's name. */
static int
cert_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum cert_use use,
    const char *name, const mbedtls_x509_buf *der)
{
	struct cert_loading l = { .use = use };
	const struct pem_shape *s;
	int r;

	if (use == ISSUER && has_trust_settings(der->p, der->len))
		return tls_fail(cfg,
		    "it has OpenSSL trust settings, which are not supported; "
		    "to convert it: openssl x509 -in %s -out %s.pem", name,
		    name);
	if (use == ISSUER && tls_cert_is_in(chain, der->p, der->len))
		return 0;
	if ((r = mbedtls_x509_crt_parse_der_with_ext_cb(chain, der->p,
	    der->len, 1, tls_files_check_extension, &l)) == 0)
		return 0;
	if (l.refused[0] != '\0')
		return tls_fail(cfg, "%s", l.refused);
	if ((s = tls_pem_find_shape(WITHIN, der->p, der->len)) == NULL)
		return tls_fail(cfg, "it cannot be read (%s)",
		    tls_error_text(r));
	return tls_fail(cfg, "it %s %s" PEM_UNSUPPORTED_KEY,
	    r == UNKNOWN_SIGNATURE ? "is signed with" : "has", s->what);
}

/* Keep cfg->error for the warnings, and go on. */
static int
pass_over(struct tls_config *cfg)
{
	if (cfg->npassed < PASSED_MAX && (cfg->passed[cfg->npassed] =
	    strdup(cfg->error)) == NULL)
		return tls_fail(cfg, "out of memory");
	cfg->npassed++;
	return 0;
}

void
tls_files_forget_passed(struct tls_config *cfg, size_t n)
{
	while (cfg->npassed > n)
		if (--cfg->npassed < PASSED_MAX)
			free(cfg->passed[cfg->npassed]);
}

static int
block_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum cert_use use,
    const char *name, const struct pem_block *b)
{
	mbedtls_pem_context pem;
	mbedtls_x509_buf der;
	int r;

	if ((r = tls_pem_decode(b, &pem)) != 0) {
		r = tls_fail(cfg, "it is damaged (%s)", tls_error_text(r));
	} else {
		der.p = (unsigned char *)(uintptr_t)mbedtls_pem_get_buffer(
		    &pem, &der.len);
		r = cert_add(cfg, chain, use, name, &der);
	}
	mbedtls_pem_free(&pem);
	return r;
}

/* Append the certificates of a PEM text.  Return their number, or -1. */
static int
certs_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum cert_use use,
    const char *name, const char *text)
{
	char why[ERROR_SIZE];
	size_t before = cfg->npassed;
	struct pem_block b;
	int n = 0, used = 0;

	for (; tls_pem_next(text, &b); text = b.text + 1) {
		if (!tls_pem_is_cert(b.label))
			continue;
		n++;
		if (block_add(cfg, chain, use, name, &b) == 0) {
			used++;
			continue;
		}
		snprintf(why, sizeof(why), "%s", cfg->error);
		tls_fail(cfg, "%s: certificate %d: %s", name, n, why);
		if (use != ISSUER || pass_over(cfg) == -1)
			return -1;
	}
	if (used > 0 || n == 0)
		return used;
	tls_files_forget_passed(cfg, before);
	return -1;
}

/* Append a certificate in DER, if it is one.  As certs_add(). */
static int
der_add(struct tls_config *cfg, mbedtls_x509_crt *chain, enum cert_use use,
    const char *name, const mbedtls_x509_buf *der)
{
	char why[ERROR_SIZE];

	if (!tls_pem_may_be_der(der->p, der->len))
		return 0;
	if (cert_add(cfg, chain, use, name, der) == 0)
		return 1;
	snprintf(why, sizeof(why), "%s", cfg->error);
	return tls_fail(cfg,
	    "%s: read as a DER certificate, %s", name, why);
}

int
tls_files_certs(struct tls_config *cfg, mbedtls_x509_crt *chain,
    enum cert_use use, const char *name)
{
	mbedtls_x509_buf der;
	size_t size;
	int r;

	if ((der.p = tls_pem_read(cfg, name, &size)) == NULL)
		return -1;
	der.len = size - 1;
	if ((r = certs_add(cfg, chain, use, name, (char *)der.p)) == 0)
		r = der_add(cfg, chain, use, name, &der);
	if (r == 0)
		r = tls_pem_fail_to_find(cfg, name, "certificate",
		    (char *)der.p, size);
	mbedtls_platform_zeroize(der.p, size);
	free(der.p);
	return r > 0 ? 0 : -1;
}

static int
is_key_label(const char *label)
{
	return strcmp(label, "PRIVATE KEY") == 0 ||
	    strcmp(label, "ENCRYPTED PRIVATE KEY") == 0 ||
	    strcmp(label, "RSA PRIVATE KEY") == 0 ||
	    strcmp(label, "EC PRIVATE KEY") == 0;
}

/* Return the kind of an unsupported key, or NULL. */
static const struct pem_shape *
key_shape(const char *text, size_t size, const struct pem_block *b)
{
	const struct pem_shape *s = tls_pem_find_shape(WITHIN, text, size);
	mbedtls_pem_context pem;
	const unsigned char *der;
	size_t len;

	if (s != NULL || b->text == NULL)
		return s;
	if (tls_pem_decode(b, &pem) == 0) {
		der = mbedtls_pem_get_buffer(&pem, &len);
		s = tls_pem_find_shape(WITHIN, der, len);
	}
	mbedtls_pem_free(&pem);
	return s;
}

static int
key_refused(struct tls_config *cfg, const char *name, int error,
    const char *text, size_t size)
{
	struct pem_block b = { .text = NULL };
	const struct pem_shape *s;
	const char *p = text;

	while (tls_pem_next(p, &b) && !is_key_label(b.label))
		p = b.text + 1;
	s = key_shape(text, size, &b);
	if (error == MBEDTLS_ERR_PK_PASSWORD_REQUIRED ||
	    error == MBEDTLS_ERR_PK_PASSWORD_MISMATCH)
		return tls_fail(cfg, "%s: %s", name, tls_error_text(error));
	if (s != NULL)
		return tls_pem_fail_shape(cfg, name, s, "it is %s%s", s->what,
		    s->by != NULL ? PEM_UNSUPPORTED : PEM_UNSUPPORTED_KEY);
	if (b.text == NULL)
		return tls_pem_fail_to_find(cfg, name, "private key", text,
		    size);
	return tls_fail(cfg, "%s: its private key cannot be read (%s)", name,
	    tls_error_text(error));
}

int
tls_files_key(struct tls_config *cfg, struct cert *c, const char *name,
    const char *password)
{
	unsigned char *text;
	size_t size;
	int r;

	if ((text = tls_pem_read(cfg, name, &size)) == NULL)
		return -1;
	r = mbedtls_pk_parse_key(&c->key, text, tls_pem_parse_size(text, size),
	    (const unsigned char *)password,
	    password != NULL ? strlen(password) : 0);
	if (r != 0)
		r = key_refused(cfg, name, r, (char *)text, size);
	else if (!tls_key_matches(c))
		r = tls_fail(cfg,
		    "the key in %s does not match the certificate in %s", name,
		    c->name);
	else if ((r = tls_key_prepare(c)) != 0)
		r = tls_fail(cfg, "%s: its private key cannot be used (%s)",
		    name, tls_error_text(r));
	mbedtls_platform_zeroize(text, size);
	free(text);
	return r;
}

int
tls_files_crl(struct tls_config *cfg, const char *name)
{
	unsigned char *text;
	size_t size;
	int r;

	if ((text = tls_pem_read(cfg, name, &size)) == NULL)
		return -1;
	r = mbedtls_x509_crl_parse(&cfg->crl, text,
	    tls_pem_parse_size(text, size));
	/* The library rejects text behind the last list; ignore that. */
	if (r == MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT)
		r = 0;
	if (r != 0 && (tls_pem_may_be_der(text, size - 1) ||
	    strstr((char *)text, PEM_BEGIN "X509 CRL-----") != NULL))
		r = tls_fail(cfg, "%s: its revocation list cannot be read (%s)",
		    name, tls_error_text(r));
	else if (r != 0)
		r = tls_pem_fail_to_find(cfg, name, "revocation list",
		    (char *)text, size);
	free(text);
	return r;
}

static int
is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int
tls_files_each(struct tls_config *cfg, const char *name,
    int (*load)(struct tls_config *, const char *), int one_will_do)
{
	char path[PATH_MAX];
	size_t before = cfg->npassed;
	struct dirent *e;
	int n = 0, r = 0;
	DIR *dir;

	if ((dir = opendir(name)) == NULL)
		return errno == ENOTDIR ? load(cfg, name) :
		    tls_fail(cfg, "%s: %s", name, strerror(errno));
	tls_fail(cfg, "%s: the directory has no files", name);
	while (r == 0 && (errno = 0, e = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "%s/%s", name, e->d_name);
		if (e->d_name[0] == '.' || is_directory(path))
			continue;
		if (load(cfg, path) == 0)
			n++;
		else
			r = one_will_do ? pass_over(cfg) : -1;
	}
	if (r == 0 && errno != 0)
		r = tls_fail(cfg, "%s: %s", name, strerror(errno));
	closedir(dir);
	if (r == 0 && n == 0) {
		tls_files_forget_passed(cfg, before);
		r = -1;
	}
	return r;
}
