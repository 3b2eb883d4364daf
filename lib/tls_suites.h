/* tls_suites: cipher suites, groups and protocols, in lists and by name. */
#ifndef TLS_SUITES_H
#define TLS_SUITES_H

#include <stddef.h>

struct tls_config;

/* Set the default lists of suites and groups. */
void	 tls_suites_default(struct tls_config *);

/* Get the IANA name of a suite. */
void	 tls_suites_name(int suite, char *name, size_t size);

/* Return the IANA name of a group, or NULL. */
const char *tls_suites_group(int id);

/* 1 for a suite of TLS 1.3, 0 for one of TLS 1.2. */
int	 tls_suites_is_tls13(int suite);

/* 1 if a configured group exists in TLS 1.2.  TLS 1.3 has all groups. */
int	 tls_suites_has_group(const struct tls_config *);

/*
 * 1 if there is a key for the suite: a shared key, or the key of a certificate,
 * which in TLS 1.3 may be of any type.
 */
int	 tls_suites_has_key(const struct tls_config *, int suite);

/* 1 if shared keys can be used with a configured suite of this version. */
int	 tls_suites_has_psk(const struct tls_config *, int is_13);

/*
 * Unless suites are configured, put the TLS 1.2 suite for shared keys before
 * the other TLS 1.2 suites.  Without other keys, remove the suites that shared
 * keys can't be used with.
 */
void	 tls_suites_add_psk(struct tls_config *);

#endif
