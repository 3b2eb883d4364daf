/* tls_generate: a new key, and a certificate or a request signed with it. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mbedtls/x509_csr.h>

#include "tls.h"
#include "tls_error.h"
#include "tls_internal.h"
#include "tls_names.h"

#define GENERATED_DAYS	825		/* more, and Apple's clients balk */
#define PEM_SIZE	(16 * 1024)	/* for LIST_MAX names of 253 bytes */

struct names {
	mbedtls_x509_san_list san[LIST_MAX];
	unsigned char ip[LIST_MAX][16];
	char	*copy;			/* allocated; san points into it */
	size_t	 n;
	char	 subject[NAME_SIZE + 4];	/* CN= and the first name */
};

/* Fill in an entry for a name; it points into name or ip, of 16 bytes. */
static int
san_entry(mbedtls_x509_san_list *entry, char *name, unsigned char *ip)
{
	mbedtls_x509_buf *b = &entry->node.san.unstructured_name;
	int v4 = inet_pton(AF_INET, name, ip) == 1;

	if (v4 || inet_pton(AF_INET6, name, ip) == 1) {
		entry->node.type = MBEDTLS_X509_SAN_IP_ADDRESS;
		b->p = ip;
		b->len = v4 ? 4 : 16;
		return 0;
	}
	if (!tls_names_is_host(name))
		return -1;
	entry->node.type = MBEDTLS_X509_SAN_DNS_NAME;
	b->p = (unsigned char *)name;
	b->len = strlen(name);
	return 0;
}

/* 0, or -1 with text; the caller frees names->copy in either case. */
static int
parse_names(struct names *names, const char *list, char *text, size_t size)
{
	char *name, *rest;
	size_t n = 0;

	memset(names, 0, sizeof(*names));
	if ((names->copy = strdup(list)) == NULL) {
		snprintf(text, size, "out of memory");
		return -1;
	}
	/* A colon, as in IPv6 addresses, is no separator here. */
	for (name = strtok_r(names->copy, " \t,", &rest); name != NULL;
	    name = strtok_r(NULL, " \t,", &rest)) {
		if (n == LIST_MAX ||
		    san_entry(&names->san[n], name, names->ip[n]) == -1) {
			snprintf(text, size, "\"%s\" is not a DNS name or an "
			    "IP address (allowed: up to %d of these, separated "
			    "by commas)", name,
			    LIST_MAX);
			return -1;
		}
		/* The library writes the list in reverse order. */
		if (n > 0)
			names->san[n].next = &names->san[n - 1];
		else
			snprintf(names->subject, sizeof(names->subject),
			    "CN=%.64s", name);
		n++;
	}
	if (n == 0)
		snprintf(text, size, "no name is given");
	names->n = n;
	return n == 0 ? -1 : 0;
}

static int
make_key(mbedtls_pk_context *key)
{
	psa_key_attributes_t attr = psa_key_attributes_init();
	psa_key_id_t id;
	int r;

	psa_set_key_type(&attr,
	    PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
	psa_set_key_bits(&attr, 256);
	psa_set_key_usage_flags(&attr,
	    PSA_KEY_USAGE_SIGN_HASH | PSA_KEY_USAGE_EXPORT);
	psa_set_key_algorithm(&attr, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
	if (psa_generate_key(&attr, &id) != PSA_SUCCESS)
		return -1;
	r = mbedtls_pk_copy_from_psa(id, key);
	psa_destroy_key(id);
	return r;
}

/* Set all fields.  0, or an error of the library's. */
static int
fill_certificate(mbedtls_x509write_cert *w, mbedtls_pk_context *key,
    struct names *names)
{
	unsigned char serial[16];
	char from[16], to[16];
	time_t t = time(NULL) - DAY;	/* a client's clock may be behind */
	mbedtls_asn1_sequence usage = { .buf = { .tag = MBEDTLS_ASN1_OID,
	    .p = (unsigned char *)(uintptr_t)MBEDTLS_OID_SERVER_AUTH,
	    .len = sizeof(MBEDTLS_OID_SERVER_AUTH) - 1 } };
	struct tm tm;
	int r;

	gmtime_r(&t, &tm);
	strftime(from, sizeof(from), "%Y%m%d%H%M%S", &tm);
	t += (time_t)(GENERATED_DAYS) * DAY;
	gmtime_r(&t, &tm);
	strftime(to, sizeof(to), "%Y%m%d%H%M%S", &tm);
	mbedtls_x509write_crt_set_version(w, MBEDTLS_X509_CRT_VERSION_3);
	mbedtls_x509write_crt_set_md_alg(w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_crt_set_subject_key(w, key);
	mbedtls_x509write_crt_set_issuer_key(w, key);
	if (psa_generate_random(serial, sizeof(serial)) != PSA_SUCCESS)
		return MBEDTLS_ERR_PK_ALLOC_FAILED;
	serial[0] = (serial[0] & 0x7f) | 0x40;	/* positive, and 16 bytes */
	if ((r = mbedtls_x509write_crt_set_serial_raw(w, serial,
	    sizeof(serial))) != 0 ||
	    (r = mbedtls_x509write_crt_set_validity(w, from, to)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_name(w,
	    names->subject)) != 0 ||
	    (r = mbedtls_x509write_crt_set_issuer_name(w,
	    names->subject)) != 0 ||
	    (r = mbedtls_x509write_crt_set_basic_constraints(w, 0, -1)) != 0 ||
	    (r = mbedtls_x509write_crt_set_key_usage(w,
	    MBEDTLS_X509_KU_DIGITAL_SIGNATURE)) != 0 ||
	    (r = mbedtls_x509write_crt_set_ext_key_usage(w, &usage)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_key_identifier(w)) != 0 ||
	    (r = mbedtls_x509write_crt_set_subject_alternative_name(w,
	    &names->san[names->n - 1])) != 0)
		return r;
	return mbedtls_x509write_crt_set_authority_key_identifier(w);
}

static int
write_key(FILE *fp, mbedtls_pk_context *key, unsigned char *pem, size_t size)
{
	int r = mbedtls_pk_write_key_pem(key, pem, size);

	if (r == 0)
		fputs((char *)pem, fp);
	mbedtls_platform_zeroize(pem, size);
	return r;
}

static int
write_certificate(FILE *fp, mbedtls_pk_context *key, struct names *names,
    unsigned char *pem, size_t size)
{
	mbedtls_x509write_cert w;
	int r;

	mbedtls_x509write_crt_init(&w);
	if ((r = fill_certificate(&w, key, names)) == 0 &&
	    (r = mbedtls_x509write_crt_pem(&w, pem, size)) == 0)
		fputs((char *)pem, fp);
	mbedtls_x509write_crt_free(&w);
	return r;
}

static int
write_request(FILE *fp, mbedtls_pk_context *key, struct names *names,
    unsigned char *pem, size_t size)
{
	mbedtls_x509write_csr w;
	int r;

	mbedtls_x509write_csr_init(&w);
	mbedtls_x509write_csr_set_md_alg(&w, MBEDTLS_MD_SHA256);
	mbedtls_x509write_csr_set_key(&w, key);
	if ((r = mbedtls_x509write_csr_set_subject_name(&w,
	    names->subject)) == 0 &&
	    (r = mbedtls_x509write_csr_set_key_usage(&w,
	    MBEDTLS_X509_KU_DIGITAL_SIGNATURE)) == 0 &&
	    (r = mbedtls_x509write_csr_set_subject_alternative_name(&w,
	    &names->san[names->n - 1])) == 0 &&
	    (r = mbedtls_x509write_csr_pem(&w, pem, size)) == 0)
		fputs((char *)pem, fp);
	mbedtls_x509write_csr_free(&w);
	return r;
}

/* Write the key first: without it, the other file is useless. */
static int
generate(const char *list, FILE *secret, FILE *other,
    int (*sign)(FILE *, mbedtls_pk_context *, struct names *, unsigned char *,
    size_t), char *text, size_t size)
{
	unsigned char pem[PEM_SIZE];
	mbedtls_pk_context key;
	struct names names;
	int r;

	mbedtls_pk_init(&key);
	if ((r = parse_names(&names, list, text, size)) == -1)
		goto out;
	if ((r = make_key(&key)) != 0 ||
	    (r = write_key(secret, &key, pem, sizeof(pem))) != 0 ||
	    (r = sign(other, &key, &names, pem, sizeof(pem))) != 0) {
		snprintf(text, size, "%s", tls_error_text(r));
	} else if (ferror(secret) || fflush(other) != 0 || ferror(other)) {
		snprintf(text, size, "%s", strerror(errno));
		r = -1;
	}
out:
	mbedtls_pk_free(&key);
	free(names.copy);
	return r == 0 ? 0 : -1;
}

int
tls_generate(const char *names, FILE *fp, char *text, size_t size)
{
	return generate(names, fp, fp, write_certificate, text, size);
}

int
tls_generate_request(const char *names, FILE *key, FILE *request, char *text,
    size_t size)
{
	return generate(names, key, request, write_request, text, size);
}
