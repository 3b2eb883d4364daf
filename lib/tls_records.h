/*
 * tls_records: what records show as they pass: where each one ends, and what
 * the handshake has in the clear.
 */
#ifndef TLS_RECORDS_H
#define TLS_RECORDS_H

#include <stddef.h>

struct record;
struct tls;

/*
 * Follow a stream of records, given in pieces of any length: the header of the
 * current one, and how much of its body is missing.
 */
void	 tls_records_track(struct record *, const unsigned char *, size_t len);

/* 1 between two records, 0 within one. */
int	 tls_records_is_whole(const struct record *);

/*
 * Read in the handshake what the library does not tell: the group, the key that
 * was chosen, and whether a session is resumed.  _sent takes a whole record;
 * _received takes what the library gets, before tls_records_track() has it.
 */
void	 tls_records_sent(struct tls *, const unsigned char *, size_t len);
void	 tls_records_received(struct tls *, const unsigned char *, size_t len);

/*
 * Have a client gather the messages that its server sends in the clear; without
 * that, tls_records_received() reads none.  0, or -1 when out of memory.  May
 * be ended in any state.
 */
int	 tls_records_sniff(struct tls *);
void	 tls_records_sniff_end(struct tls *);

#endif
