/*
 * tls_records: passive parsing of the records in transit: their boundaries, and
 * the part of the handshake that is in the clear.
 */
#ifndef TLS_RECORDS_H
#define TLS_RECORDS_H

#include <stddef.h>

struct record;
struct tls;

/*
 * Track the boundaries in a stream of records, passed in pieces of any length.
 * A struct record of zeros is before the first one.
 */
void	 tls_records_track(struct record *, const unsigned char *, size_t len);

/* 1 between two records, 0 within one. */
int	 tls_records_is_whole(const struct record *);

/*
 * Parse the handshake for what the library does not report, into the struct
 * tls: suite, group, shared key, and whether a session is resumed.
 * tls_records_sent() takes one whole record.  tls_records_received() takes a
 * piece of one, to be passed to tls_records_track() afterwards.
 */
void	 tls_records_sent(struct tls *, const unsigned char *, size_t len);
void	 tls_records_received(struct tls *, const unsigned char *, size_t len);

/*
 * Let tls_records_received() parse the server's messages on this client.  0, or
 * -1 when out of memory.  _end may be called in any state.
 */
int	 tls_records_sniff(struct tls *);
void	 tls_records_sniff_end(struct tls *);

#endif
