/*
 * tls_compat: mbed TLS 3.6 in the words of 4.1, for tls.c and lib/tls_* alone.
 */
#ifndef TLS_COMPAT_H
#define TLS_COMPAT_H

#include <mbedtls/psa_util.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>

#if MBEDTLS_VERSION_MAJOR < 4

/* 3.6 is given a random generator; 4.1 always uses PSA's. */
#define RNG	mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE
#define mbedtls_pk_parse_key(...)	mbedtls_pk_parse_key(__VA_ARGS__, RNG)
#define mbedtls_pk_check_pair(...)	mbedtls_pk_check_pair(__VA_ARGS__, RNG)
#define mbedtls_pk_sign(...)		mbedtls_pk_sign(__VA_ARGS__, RNG)
#define mbedtls_x509write_crt_pem(...) \
	mbedtls_x509write_crt_pem(__VA_ARGS__, RNG)
#define mbedtls_x509write_csr_pem(...) \
	mbedtls_x509write_csr_pem(__VA_ARGS__, RNG)
#define mbedtls_ssl_config_defaults(conf, ...) \
	(mbedtls_ssl_conf_rng(conf, RNG), \
	mbedtls_ssl_config_defaults(conf, __VA_ARGS__))

/* 4.1 always reports new tickets to a client that uses tickets. */
#define mbedtls_ssl_conf_session_tickets(conf, use) \
	(mbedtls_ssl_conf_session_tickets(conf, use), \
	mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(conf, use))

#define mbedtls_pk_wrap_psa	mbedtls_pk_setup_opaque
/* 3.6 adds up the codes of an error and its cause; 4.1 returns the cause. */
#define UNKNOWN_SIGNATURE \
	(MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG + MBEDTLS_ERR_OID_NOT_FOUND)
#else
#define UNKNOWN_SIGNATURE	MBEDTLS_ERR_X509_UNKNOWN_OID
#endif

#endif
