/* tls_ticket: ticket keys, and tickets sealed with them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls.h"
#include "tls_pem.h"
#include "tls_ticket.h"
#include "util.h"

#define SEQLOCK_TRIES	100		/* to read while keys are written */

/*
 * The cipher: ChaCha20-Poly1305, or with a library without it, AES-256-GCM.
 * Hosts that share keys resume each other's sessions only with the same cipher.
 */
#if defined(PSA_WANT_ALG_CHACHA20_POLY1305) && \
    defined(PSA_WANT_KEY_TYPE_CHACHA20)
#define SEAL		PSA_ALG_CHACHA20_POLY1305
#define SEAL_KEY	PSA_KEY_TYPE_CHACHA20
#elif defined(PSA_WANT_ALG_GCM) && defined(PSA_WANT_KEY_TYPE_AES)
#define SEAL		PSA_ALG_GCM
#define SEAL_KEY	PSA_KEY_TYPE_AES
#else
#error "this mbed TLS has no cipher for tickets: ChaCha20-Poly1305 or AES-GCM"
#endif

/* Copy the current keys.  0, or -1: there are none. */
static int
keys_now(struct ticket_store *s, struct ticket_keys *keys)
{
	unsigned before, i;

	for (i = 0; i < SEQLOCK_TRIES; i++) {
		before = atomic_load(&s->version);
		memcpy(keys, &s->keys, sizeof(*keys));
		atomic_thread_fence(memory_order_acquire);
		if (before % 2 == 0 && before == atomic_load(&s->version) &&
		    keys->n > 0 && keys->n <= KEYS_MAX)
			return 0;
	}
	mbedtls_platform_zeroize(keys, sizeof(*keys));
	return -1;
}

static psa_status_t
import(psa_key_type_t type, psa_key_usage_t usage, psa_algorithm_t alg,
    const unsigned char *secret, psa_key_id_t *id)
{
	psa_key_attributes_t attr = psa_key_attributes_init();

	psa_set_key_type(&attr, type);
	psa_set_key_usage_flags(&attr, usage);
	psa_set_key_algorithm(&attr, alg);
	return psa_import_key(&attr, secret, KEY_SIZE, id);
}

/* Derive the key for a ticket: HMAC-SHA256 of its salt. */
static int
derive(const unsigned char *secret, const unsigned char *salt,
    psa_key_usage_t usage, psa_key_id_t *id)
{
	unsigned char own[HASH_SIZE];
	psa_key_id_t hmac;
	psa_status_t r;
	size_t len;

	if (import(PSA_KEY_TYPE_HMAC, PSA_KEY_USAGE_SIGN_MESSAGE,
	    PSA_ALG_HMAC(PSA_ALG_SHA_256), secret, &hmac) != PSA_SUCCESS)
		return -1;
	r = psa_mac_compute(hmac, PSA_ALG_HMAC(PSA_ALG_SHA_256), salt,
	    SALT_SIZE, own, sizeof(own), &len);
	psa_destroy_key(hmac);
	if (r == PSA_SUCCESS)
		r = import(SEAL_KEY, usage, SEAL, own, id);
	mbedtls_platform_zeroize(own, sizeof(own));
	return r == PSA_SUCCESS ? 0 : -1;
}

static const unsigned char nonce[12];		/* each key is used once */

size_t
tls_ticket_seal(const struct tls_config *cfg, const unsigned char *plain,
    size_t len, unsigned char *ticket, size_t size)
{
	struct ticket_keys keys;
	psa_key_id_t id;
	size_t n = 0;

	if (len == 0 || size < TICKET_HEAD + len + TAG_SIZE ||
	    keys_now(cfg->tickets, &keys) == -1)
		return 0;
	memcpy(ticket, keys.list[0].name, KEY_NAME_SIZE);
	if (derive(keys.list[0].secret, ticket + KEY_NAME_SIZE,
	    PSA_KEY_USAGE_ENCRYPT, &id) == 0) {
		if (psa_aead_encrypt(id, SEAL, nonce, sizeof(nonce),
		    ticket, TICKET_HEAD, plain, len,
		    ticket + TICKET_HEAD, size - TICKET_HEAD, &n) ==
		    PSA_SUCCESS)
			n += TICKET_HEAD;
		psa_destroy_key(id);
	}
	mbedtls_platform_zeroize(&keys, sizeof(keys));
	return n;
}

size_t
tls_ticket_unseal(const struct tls_config *cfg, const unsigned char *ticket,
    size_t len, unsigned char *plain, size_t size)
{
	struct ticket_keys keys;
	psa_key_id_t id;
	size_t i, n = 0;

	if (len < TICKET_HEAD + TAG_SIZE ||
	    keys_now(cfg->tickets, &keys) == -1)
		return 0;
	for (i = 0; i < keys.n && memcmp(ticket, keys.list[i].name,
	    KEY_NAME_SIZE) != 0; i++)
		continue;
	if (i < keys.n && derive(keys.list[i].secret, ticket + KEY_NAME_SIZE,
	    PSA_KEY_USAGE_DECRYPT, &id) == 0) {
		if (psa_aead_decrypt(id, SEAL, nonce, sizeof(nonce),
		    ticket, TICKET_HEAD, ticket + TICKET_HEAD,
		    len - TICKET_HEAD, plain, size, &n) != PSA_SUCCESS)
			n = 0;
		psa_destroy_key(id);
	}
	mbedtls_platform_zeroize(&keys, sizeof(keys));
	return n;
}

/* Append a key; its name is its hash. */
static int
key_add(struct ticket_keys *keys, const unsigned char *secret)
{
	unsigned char hash[HASH_SIZE];
	size_t len;

	if (psa_hash_compute(PSA_ALG_SHA_256, secret, KEY_SIZE, hash,
	    sizeof(hash), &len) != PSA_SUCCESS)
		return -1;
	memcpy(keys->list[keys->n].name, hash, KEY_NAME_SIZE);
	memcpy(keys->list[keys->n].secret, secret, KEY_SIZE);
	keys->n++;
	return 0;
}

const char *
tls_config_renew(struct tls_config *cfg)
{
	struct ticket_store *s = cfg->tickets;
	unsigned char secret[KEY_SIZE];
	struct ticket_keys keys = cfg->keys;
	const char *why = NULL;

	if (keys.n == 0) {
		if (psa_generate_random(secret, sizeof(secret)) !=
		    PSA_SUCCESS || key_add(&keys, secret) == -1)
			why = "the random number generator has no entropy";
		else if (s->keys.n > 0)
			keys.list[keys.n++] = s->keys.list[0];
		mbedtls_platform_zeroize(secret, sizeof(secret));
	}
	if (why == NULL) {
		atomic_fetch_add(&s->version, 1);
		atomic_thread_fence(memory_order_release);
		s->keys = keys;
		atomic_fetch_add(&s->version, 1);
	}
	mbedtls_platform_zeroize(&keys, sizeof(keys));
	return why;
}

/* Parse a line of 64 hexadecimal digits and trailing blanks. */
static int
parse_key(const char *line, unsigned char *secret)
{
	if (parse_hex(line, secret, KEY_SIZE) == -1)
		return -1;
	line += 2 * KEY_SIZE;
	return line[strspn(line, " \t\r")] == '\0' ? 0 : -1;
}

static int
parse_keys(struct tls_config *cfg, const char *name, char *text)
{
	unsigned char secret[KEY_SIZE] = { 0 };
	char *line;
	int n = 0, r = 0;

	while (r == 0 && (line = strsep(&text, "\n")) != NULL) {
		n++;
		line += strspn(line, " \t\r");
		if (*line == '\0' || *line == '#')
			continue;
		if (cfg->keys.n == KEYS_MAX)
			r = tls_fail(cfg, "%s:%d: more than %d keys", name, n,
			    KEYS_MAX);
		else if (parse_key(line, secret) == -1)
			r = tls_fail(cfg, "%s:%d: not a key (allowed: %d "
			    "hexadecimal digits on a line, as tunnel -k "
			    "makes them)", name, n, 2 * KEY_SIZE);
		else if (key_add(&cfg->keys, secret) == -1)
			r = tls_fail(cfg, "%s:%d: out of memory", name, n);
	}
	mbedtls_platform_zeroize(secret, sizeof(secret));
	if (r == 0 && cfg->keys.n == 0)
		r = tls_fail(cfg,
		    "%s: no key in this file (tunnel -k makes one)", name);
	return r;
}

int
tls_config_ticket_keys(struct tls_config *cfg, const char *name)
{
	unsigned char *text, *nul;
	size_t size;
	int r;

	if ((text = tls_pem_read(cfg, name, &size)) == NULL)
		return -1;
	/* A NUL must not end the text early, nor pass for a part of a key. */
	while ((nul = memchr(text, '\0', size - 1)) != NULL)
		*nul = '?';
	r = parse_keys(cfg, name, (char *)text);
	mbedtls_platform_zeroize(text, size);
	free(text);
	return r;
}

int
tls_generate_ticket_key(FILE *fp)
{
	unsigned char secret[KEY_SIZE];
	size_t i;

	if (psa_generate_random(secret, sizeof(secret)) != PSA_SUCCESS) {
		errno = EIO;
		return -1;
	}
	for (i = 0; i < sizeof(secret); i++)
		fprintf(fp, "%02x", secret[i]);
	fputc('\n', fp);
	mbedtls_platform_zeroize(secret, sizeof(secret));
	return fflush(fp) != 0 || ferror(fp) ? -1 : 0;
}
