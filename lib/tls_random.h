/* tls_random: the kernel's entropy, unless mbed TLS is the bundled one. */
#ifndef TLS_RANDOM_H
#define TLS_RANDOM_H

/*
 * Return why the generator may fail in a sandbox, as a clause, or NULL.  Call
 * only after the generator was seeded for the first time.
 */
const char *tls_random_why(void);

#endif
