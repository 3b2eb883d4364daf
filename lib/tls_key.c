/*
 * tls_key: the match of a private key and its certificate, and the form of the
 * key with the cheapest signatures.
 *
 * AWS-LC would have to parse the key at each signature.  So import it into PSA
 * here, and give the library only its number.  Then sign once: the driver keeps
 * the parsed form of an RSA key after its first signature, and processes that
 * are forked later inherit it.
 */
#include "tls_key.h"

#if MBEDTLS_VERSION_MAJOR >= 4 || defined(TUNNEL_AWS_LC)

static const unsigned char nothing[HASH_SIZE];

static int
sign(mbedtls_pk_context *key, unsigned char *out, size_t size, size_t *len)
{
	return mbedtls_pk_sign(key, MBEDTLS_MD_SHA256, nothing,
	    sizeof(nothing), out, size, len);
}

#endif

#if MBEDTLS_VERSION_MAJOR < 4

/*
 * Compare the numbers.  A signature would leave the factor that blinds RSA in
 * the key: with mode = fork, each connection's process would begin with it.
 */
int
tls_key_matches(struct cert *c)
{
	return mbedtls_pk_check_pair(&c->chain.pk, &c->key) == 0;
}

#else

/* 4.1 blinds each signature anew; its check_pair rejects RSA in PKCS #8. */
int
tls_key_matches(struct cert *c)
{
	unsigned char out[MBEDTLS_PK_SIGNATURE_MAX_SIZE];
	size_t len;

	return sign(&c->key, out, sizeof(out), &len) == 0 &&
	    mbedtls_pk_verify(&c->chain.pk, MBEDTLS_MD_SHA256, nothing,
	    sizeof(nothing), out, len) == 0;
}

#endif

#ifdef TUNNEL_AWS_LC

#include <awslc_driver.h>

/*
 * Set the attributes for PSA.  An RSA key needs two algorithms, since TLS 1.2
 * and 1.3 pad differently; PSA has its size in whole bytes.
 */
static int
describe(const mbedtls_pk_context *key, psa_key_attributes_t *attr)
{
	int r = mbedtls_pk_get_psa_attributes(key, PSA_KEY_USAGE_SIGN_HASH,
	    attr);

	psa_set_key_usage_flags(attr, PSA_KEY_USAGE_SIGN_HASH);
	if (PSA_KEY_TYPE_IS_RSA(psa_get_key_type(attr))) {
		psa_set_key_algorithm(attr,
		    PSA_ALG_RSA_PKCS1V15_SIGN(PSA_ALG_ANY_HASH));
		psa_set_key_enrollment_algorithm(attr,
		    PSA_ALG_RSA_PSS(PSA_ALG_ANY_HASH));
		psa_set_key_bits(attr,
		    (mbedtls_pk_get_bitlen(key) + 7) / 8 * 8);
	} else
		psa_set_key_algorithm(attr, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
	return r;
}

int
tls_key_prepare(struct cert *c)
{
	unsigned char out[MBEDTLS_PK_SIGNATURE_MAX_SIZE];
	psa_key_attributes_t attr = psa_key_attributes_init();
	mbedtls_pk_context prepared;
	size_t len;
	int r;

	if ((r = describe(&c->key, &attr)) != 0 ||
	    (r = mbedtls_pk_import_into_psa(&c->key, &attr, &c->id)) != 0)
		return r;
	mbedtls_pk_init(&prepared);
	if ((r = mbedtls_pk_wrap_psa(&prepared, c->id)) != 0 ||
	    (r = sign(&prepared, out, sizeof(out), &len)) != 0) {
		mbedtls_pk_free(&prepared);
		return r;
	}
	mbedtls_pk_free(&c->key);
	c->key = prepared;
	return 0;
}

void
tls_key_free(struct cert *c)
{
	mbedtls_pk_free(&c->key);
	awslc_forget_key(c->id);
	psa_destroy_key(c->id);
}

#else

int
tls_key_prepare(struct cert *c)
{
	(void)c;
	return 0;
}

void
tls_key_free(struct cert *c)
{
	mbedtls_pk_free(&c->key);
}

#endif
