/*
 * tls_random: where an mbed TLS that is not our own gets its entropy from.
 */
#ifndef TLS_RANDOM_H
#define TLS_RANDOM_H

/*
 * Why its generator may fail in a sandbox, as a clause; NULL: no reason is
 * known.  To be asked once the generator was seeded for the first time.
 */
const char *tls_random_why(void);

#endif
