/*
 * The configuration of mbed TLS 3.6 for tunnel(8): only what it needs.  It
 * replaces mbedtls_config.h, whose comments explain each option.
 */

/* The source is patched: see patches/. */
#define TUNNEL_PATCHES

/* The platform: assembly, if there is any for this machine, and clocks. */
#define MBEDTLS_HAVE_ASM
#define MBEDTLS_HAVE_TIME
#define MBEDTLS_HAVE_TIME_DATE
#define MBEDTLS_PLATFORM_C

/* The allocator of musl is slow: see alloc.c. */
#ifdef TUNNEL_ALLOC
#include "alloc.h"
#define MBEDTLS_PLATFORM_MEMORY
#define MBEDTLS_PLATFORM_CALLOC_MACRO	tunnel_calloc
#define MBEDTLS_PLATFORM_FREE_MACRO	tunnel_free
#endif

/*
 * Random numbers come from the kernel, see random.c: this needs no file, which
 * a chroot(2) may lack, and two processes never draw the same numbers.
 */
#define MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG

/* The protocol: a server and a client of TLS 1.2 and 1.3 on TCP. */
#define MBEDTLS_SSL_TLS_C
#define MBEDTLS_SSL_SRV_C
#define MBEDTLS_SSL_CLI_C
#define MBEDTLS_SSL_PROTO_TLS1_2
#define MBEDTLS_SSL_PROTO_TLS1_3
#define MBEDTLS_SSL_TLS1_3_COMPATIBILITY_MODE
#define MBEDTLS_SSL_ALL_ALERT_MESSAGES
#define MBEDTLS_SSL_EXTENDED_MASTER_SECRET
#define MBEDTLS_SSL_ALPN
#define MBEDTLS_SSL_SERVER_NAME_INDICATION
#define MBEDTLS_SSL_MAX_FRAGMENT_LENGTH

/*
 * All connections use the same two buffers in turn: see release_buffers() in
 * tls.c.  The input buffer has to hold a whole record; output may be several
 * shorter records.  The output buffer also limits the size of a certificate
 * chain: see lib/tls_config.c.
 */
#define MBEDTLS_SSL_RELEASE_BUFFERS
#define MBEDTLS_SSL_OUT_CONTENT_LEN	6144

/* Resumption, always with a fresh key exchange in TLS 1.3. */
#define MBEDTLS_SSL_SESSION_TICKETS
#define MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL_ENABLED

/* Forward secrecy, with ECDSA and RSA certificates. */
#define MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ENABLED
#define MBEDTLS_KEY_EXCHANGE_ECDHE_ECDSA_ENABLED
#define MBEDTLS_KEY_EXCHANGE_ECDHE_RSA_ENABLED
#define MBEDTLS_SSL_KEEP_PEER_CERTIFICATE

/* Or with a shared key of up to 64 bytes. */
#define MBEDTLS_KEY_EXCHANGE_ECDHE_PSK_ENABLED
#define MBEDTLS_PSK_MAX_LEN	64

/* The ciphers; CBC is for encrypted key files. */
#define MBEDTLS_AES_C
#define MBEDTLS_AESNI_C
#define MBEDTLS_AESCE_C
#define MBEDTLS_GCM_C
#define MBEDTLS_CHACHA20_C
#define MBEDTLS_POLY1305_C
#define MBEDTLS_CHACHAPOLY_C
#define MBEDTLS_CIPHER_C
#define MBEDTLS_CIPHER_MODE_CBC
#define MBEDTLS_CIPHER_PADDING_PKCS7

/* Hashes; SHA-1 is for key identifiers and old encrypted key files. */
#define MBEDTLS_MD_C
#define MBEDTLS_SHA1_C
#define MBEDTLS_SHA256_C
#define MBEDTLS_SHA384_C
#define MBEDTLS_SHA512_C
#define MBEDTLS_HKDF_C

/* The curves.  Everest's X25519 is formally verified, and 3 times as fast. */
#define MBEDTLS_BIGNUM_C
#define MBEDTLS_ECP_C
#define MBEDTLS_ECP_DP_SECP256R1_ENABLED
#define MBEDTLS_ECP_DP_SECP384R1_ENABLED
#define MBEDTLS_ECP_DP_CURVE25519_ENABLED
#define MBEDTLS_ECP_NIST_OPTIM
#define MBEDTLS_ECDH_C
#define MBEDTLS_ECDH_VARIANT_EVEREST_ENABLED
#define MBEDTLS_ECDSA_C
#define MBEDTLS_ECDSA_DETERMINISTIC
#define MBEDTLS_HMAC_DRBG_C

/* RSA: PSS for TLS 1.3, the older padding for certificates and TLS 1.2. */
#define MBEDTLS_RSA_C
#define MBEDTLS_PKCS1_V15
#define MBEDTLS_PKCS1_V21
#define MBEDTLS_X509_RSASSA_PSS_SUPPORT

/* Files: certificates, revocation lists, and keys, encrypted or not. */
#define MBEDTLS_ASN1_PARSE_C
#define MBEDTLS_BASE64_C
#define MBEDTLS_OID_C
#define MBEDTLS_PEM_PARSE_C
#define MBEDTLS_PK_C
#define MBEDTLS_PK_PARSE_C
#define MBEDTLS_PKCS5_C
#define MBEDTLS_X509_USE_C
#define MBEDTLS_X509_CRT_PARSE_C
#define MBEDTLS_X509_CRL_PARSE_C

/* One more than a peer may send, to report the excess: lib/tls_verify.c. */
#define MBEDTLS_X509_MAX_INTERMEDIATE_CA	5

/* "tunnel -g" writes a key and its certificate, "tunnel -r" a request. */
#define MBEDTLS_ASN1_WRITE_C
#define MBEDTLS_PEM_WRITE_C
#define MBEDTLS_PK_WRITE_C
#define MBEDTLS_X509_CREATE_C
#define MBEDTLS_X509_CRT_WRITE_C
#define MBEDTLS_X509_CSR_WRITE_C

/* TLS 1.3 needs PSA; the number of its keys grows with the connections. */
#define MBEDTLS_PSA_CRYPTO_C
#define MBEDTLS_PSA_KEY_STORE_DYNAMIC
#define PSA_CRYPTO_ACCELERATOR_DRIVER_PRESENT	/* see everest_driver.h */

/*
 * PSA does not need to copy its input as a protection against changes by
 * another process: we and the library pass only private memory (ticket keys and
 * sessions are copied from shared memory first).  Input and output either do
 * not overlap or are the same, as for a record that is encrypted in place,
 * which every cipher supports.
 */
#define MBEDTLS_PSA_ASSUME_EXCLUSIVE_BUFFERS

/*
 * AWS-LC is a driver for PSA (aws-lc/awslc_driver.h): so TLS and X.509 have to
 * use PSA for everything, with RSA keys of the same size as without PSA.
 * Hashes are the exception (aws-lc/awslc_hash.c).
 */
#ifdef TUNNEL_AWS_LC
#define MBEDTLS_SHA256_PROCESS_ALT
#define MBEDTLS_SHA512_PROCESS_ALT
#define MBEDTLS_USE_PSA_CRYPTO
#define MBEDTLS_ECP_DP_SECP521R1_ENABLED
#define MBEDTLS_SSL_TLS13_X25519MLKEM768	/* see aws-lc/mlkem768.c */
#define PSA_VENDOR_RSA_MAX_KEY_BITS	8192u
#endif

/* Messages: in the smallest build, errors have only numbers. */
#define MBEDTLS_VERSION_C
#ifdef TUNNEL_SMALL
#define MBEDTLS_AES_FEWER_TABLES
#define MBEDTLS_ERROR_STRERROR_DUMMY
#else
#define MBEDTLS_ERROR_C
#endif
