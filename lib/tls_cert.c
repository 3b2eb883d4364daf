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
