/* tls_suites: cipher suites, groups and protocols, in lists and by name. */
#ifndef TLS_SUITES_H
#define TLS_SUITES_H

#include <stddef.h>

struct tls_config;

/* Set the default lists of suites and groups. */
void	 tls_suites_default(struct tls_config *);

/* IANA's name of a suite. */
void	 tls_suites_name(int suite, char *name, size_t size);

/* IANA's name of a group, or NULL. */
const char *tls_suites_group(int id);

/* 1 if it is of TLS 1.3; 0: of TLS 1.2. */
int	 tls_suites_is_tls13(int suite);

/* 1 if one of the groups is of TLS 1.2.  In TLS 1.3 any will do. */
int	 tls_suites_has_group(const struct tls_config *);

/*
 * 1 if there is a key for it: a certificate's, of which in TLS 1.3 any will do,
 * or one that both sides have.
 */
int	 tls_suites_has_key(const struct tls_config *, int suite);

/* 1 if keys that both sides have can be used with one in the list. */
int	 tls_suites_has_psk(const struct tls_config *, int is_13);

/*
 * Unless the administrator has given the list: put the suite of TLS 1.2 for
 * keys that both sides have before its others, and, if there are no other keys,
 * take away what can't be used with them.
 */
void	 tls_suites_add_psk(struct tls_config *);

#endif
