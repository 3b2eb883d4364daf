/* tls_cert: dates, issuer and extensions of a certificate. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tls_cert.h"

time_t
tls_cert_utc(const mbedtls_x509_time *t)
{
	struct tm tm = { .tm_year = t->year - 1900, .tm_mon = t->mon - 1,
	    .tm_mday = t->day, .tm_hour = t->hour, .tm_min = t->min,
	    .tm_sec = t->sec };

	return timegm(&tm);
}

enum cert_dates
tls_cert_dates(const mbedtls_x509_time *from, const mbedtls_x509_time *to,
    int days, char *text, size_t size)
{
	time_t now = time(NULL), left = tls_cert_utc(to) - now;
	long long far = left < 0 ? -left : left;
	long long seconds = far < 2 * HOUR ? 60 : far < 2 * DAY ? HOUR : DAY;
	const char *unit = seconds == 60 ? "minutes" : seconds == HOUR ?
	    "hours" : "days";

	far /= seconds;
	if (left < 0) {
		snprintf(text, size, "expired %lld %s ago", far, unit);
		return EXPIRED;
	}
	if (tls_cert_utc(from) > now) {
		snprintf(text, size, "not valid before %04d-%02d-%02d",
		    from->year, from->mon, from->day);
		return NOT_YET;
	}
	snprintf(text, size, "expires in %lld %s", far, unit);
	return left < (time_t)days * DAY ? ENDS_SOON : IN_TIME;
}

int
tls_cert_same(const mbedtls_x509_buf *a, const mbedtls_x509_buf *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

int
tls_cert_is_issuer(const mbedtls_x509_crt *issuer, const mbedtls_x509_crt *crt)
{
	return tls_cert_same(&issuer->subject_raw, &crt->issuer_raw);
}

int
tls_cert_is_in(const mbedtls_x509_crt *list, const unsigned char *der,
    size_t len)
{
	for (; list != NULL; list = list->next)
		if (list->raw.len == len && memcmp(list->raw.p, der, len) == 0)
			return 1;
	return 0;
}

unsigned char *
tls_cert_find_oid(const mbedtls_x509_crt *crt, const char *oid)
{
	unsigned char *p = crt->v3_ext.p;

	if (p != NULL)
		p = memmem(p, crt->v3_ext.len, oid, strlen(oid));
	return p != NULL ? p + strlen(oid) : NULL;
}

int
tls_cert_extension(const mbedtls_x509_crt *crt, const char *oid,
    mbedtls_x509_buf *value)
{
	const int sequence = MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE;
	unsigned char *p = crt->v3_ext.p, *next;
	const unsigned char *end = p;
	int is_critical, found = 0;
	size_t len;

	if (p == NULL || mbedtls_asn1_get_tag(&p, end + crt->v3_ext.len, &len,
	    sequence) != 0)
		return p == NULL ? 0 : -1;
	for (end = p + len; p < end; p = next) {
		if (mbedtls_asn1_get_tag(&p, end, &len, sequence) != 0)
			return -1;
		next = p + len;
		if (mbedtls_asn1_get_tag(&p, next, &len, MBEDTLS_ASN1_OID) != 0)
			return -1;
		if (len != strlen(oid) || memcmp(p, oid, len) != 0)
			continue;
		p += len;
		mbedtls_asn1_get_bool(&p, next, &is_critical);	/* if any */
		if (found++ || mbedtls_asn1_get_tag(&p, next, &value->len,
		    MBEDTLS_ASN1_OCTET_STRING) != 0)
			return -1;
		value->p = p;
	}
	return found;
}

/* Return the type and size of a key; neither, if PSA does not support it. */
static psa_key_attributes_t
attributes_of(const mbedtls_pk_context *pk)
{
	psa_key_attributes_t attr = psa_key_attributes_init();

	if (mbedtls_pk_get_psa_attributes(pk, PSA_KEY_USAGE_VERIFY_HASH,
	    &attr) != 0)
		attr = psa_key_attributes_init();
	return attr;
}

int
tls_cert_is_rsa(const mbedtls_pk_context *pk)
{
	psa_key_attributes_t attr = attributes_of(pk);

	return PSA_KEY_TYPE_IS_RSA(psa_get_key_type(&attr));
}

const struct cert_curve *
tls_cert_curve(const mbedtls_pk_context *pk)
{
	static const struct cert_curve curves[] = {
		{ "secp256r1", 23, PSA_ECC_FAMILY_SECP_R1, 256 },
		{ "secp384r1", 24, PSA_ECC_FAMILY_SECP_R1, 384 },
		{ "secp521r1", 25, PSA_ECC_FAMILY_SECP_R1, 521 },
		{ "secp192r1", 19, PSA_ECC_FAMILY_SECP_R1, 192 },
		{ "secp224r1", 21, PSA_ECC_FAMILY_SECP_R1, 224 },
		{ "secp192k1", 18, PSA_ECC_FAMILY_SECP_K1, 192 },
		{ "secp224k1", 20, PSA_ECC_FAMILY_SECP_K1, 224 },
		{ "secp256k1", 22, PSA_ECC_FAMILY_SECP_K1, 256 },
		{ "brainpoolP256r1", 26, PSA_ECC_FAMILY_BRAINPOOL_P_R1, 256 },
		{ "brainpoolP384r1", 27, PSA_ECC_FAMILY_BRAINPOOL_P_R1, 384 },
		{ "brainpoolP512r1", 28, PSA_ECC_FAMILY_BRAINPOOL_P_R1, 512 },
	};
	psa_key_attributes_t attr = attributes_of(pk);
	psa_key_type_t type = psa_get_key_type(&attr);
	size_t i;

	for (i = 0; i < sizeof(curves) / sizeof(curves[0]); i++)
		if (PSA_KEY_TYPE_IS_ECC(type) &&
		    PSA_KEY_TYPE_ECC_GET_FAMILY(type) == curves[i].family &&
		    psa_get_key_bits(&attr) == curves[i].bits)
			return &curves[i];
	return NULL;
}

const char *
tls_cert_signature(const mbedtls_x509_crt *crt)
{
	static const struct {
		const char *oid, *name;
	} known[] = {
		{ MBEDTLS_OID_ECDSA_SHA256, "ECDSA with SHA256" },
		{ MBEDTLS_OID_ECDSA_SHA384, "ECDSA with SHA384" },
		{ MBEDTLS_OID_ECDSA_SHA512, "ECDSA with SHA512" },
		{ MBEDTLS_OID_ECDSA_SHA224, "ECDSA with SHA224" },
		{ MBEDTLS_OID_ECDSA_SHA1, "ECDSA with SHA1" },
		{ MBEDTLS_OID_PKCS1_SHA256, "RSA with SHA-256" },
		{ MBEDTLS_OID_PKCS1_SHA384, "RSA with SHA-384" },
		{ MBEDTLS_OID_PKCS1_SHA512, "RSA with SHA-512" },
		{ MBEDTLS_OID_PKCS1_SHA224, "RSA with SHA-224" },
		{ MBEDTLS_OID_PKCS1_SHA1, "RSA with SHA1" },
		{ MBEDTLS_OID_RSA_SHA_OBS, "RSA with SHA1" },
		{ MBEDTLS_OID_PKCS1_MD5, "RSA with MD5" },
		{ MBEDTLS_OID_RSASSA_PSS, "RSASSA-PSS" },
	};
	const mbedtls_x509_buf *oid = &crt->sig_oid;
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strlen(known[i].oid) == oid->len &&
		    memcmp(known[i].oid, oid->p, oid->len) == 0)
			return known[i].name;
	return "unknown";
}
