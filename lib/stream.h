/*
 * stream: the interface between the engine and one side of a connection; and
 * the plain stream, a socket without TLS.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Results of operations, in place of a byte count.  Any operation may return
 * either WANT: TLS may have to read before it can write.
 */
enum stream_result {
	STREAM_EOF = 0,		/* read: the peer ended its side in order */
	STREAM_WANT_READ = -1,	/* call again when the descriptor is readable */
	STREAM_WANT_WRITE = -2,	/* call again when the descriptor is writable */
	STREAM_TRUNCATED = -3,	/* end of file without a close_notify */
	STREAM_RESET = -4,	/* the peer reset the connection */
	STREAM_ERROR = -5,	/* any other failure: see error() */
	STREAM_WANT_TURN = -6,	/* open: call again after other streams */
	STREAM_CONNECTED = -7	/* open: call again, for the handshake */
};

/*
 * One side of a connection.  The descriptor is a non-blocking socket, which the
 * engine closes.  The engine calls no operation after that.
 */
struct stream {
	const struct stream_ops *ops;
	void	*ctx;		/* for the operations, not the engine */
	int	 fd;		/* or -1 */
	int	 err;		/* stream_plain: errno of the last failure */
	size_t	 write_size;	/* the best size of a write; 0: any */
};

/*
 * No operation blocks.  Each returns 0 (or a count above 0 where data moves) or
 * an enum stream_result below 0.
 */
struct stream_ops {
	/*
	 * Establish the stream: complete a connect(2), a handshake, or both.
	 * Each of the two has its own time limit.  A long handshake returns
	 * STREAM_WANT_TURN from time to time.
	 */
	int	(*open)(struct stream *);
	/* Read at most len bytes; STREAM_EOF at the end. */
	ssize_t	(*read)(struct stream *, void *buf, size_t len);
	/*
	 * Write at most len bytes.  After a WANT the engine calls again with
	 * the same bytes first, and never with fewer.
	 */
	ssize_t	(*write)(struct stream *, const void *buf, size_t len);
	/*
	 * End our sending direction; the peer may continue to send.  On a
	 * stream that has failed, or is refused, send the alert instead.
	 */
	int	(*finish)(struct stream *);
	/*
	 * The client can't be served: let finish() send an alert.  NULL: this
	 * kind of stream has no alerts, and is aborted.
	 */
	void	(*refuse)(struct stream *);
	/*
	 * The poller reports an error, and no other operation is due.  Return
	 * 0 if the stream can continue, or a result that ends it.
	 */
	int	(*failed)(struct stream *);
	/* Make the next close(2) an abort from the peer's view. */
	void	(*abort)(struct stream *);
	/* 1 if the peer's host has acknowledged all that was written. */
	int	(*flushed)(const struct stream *);
	/* 1 if bytes can be read without an event of the poller. */
	int	(*pending)(const struct stream *);
	/* The error of the last operation; valid until the next one. */
	const char *(*error)(const struct stream *);
};

/*
 * A socket without TLS.  Its operations are exported for tables that replace
 * only some of them.
 */
extern const struct stream_ops stream_plain;

int	 stream_plain_open(struct stream *);
ssize_t	 stream_plain_read(struct stream *, void *, size_t);
ssize_t	 stream_plain_write(struct stream *, const void *, size_t);
int	 stream_plain_finish(struct stream *);
int	 stream_plain_failed(struct stream *);
int	 stream_plain_flushed(const struct stream *);
int	 stream_plain_pending(const struct stream *);
const char *stream_plain_error(const struct stream *);

/*
 * The abort of each TCP stream: make close(2) send RST (SO_LINGER 0), also the
 * close by the kernel if this process is killed.  stream_no_reset() and
 * stream_plain_finish() undo it.
 */
void	 stream_reset(struct stream *);
void	 stream_no_reset(struct stream *);

/*
 * 1 if the peer's host, on TCP, has acknowledged nothing for ms, in spite of
 * repeated data or window probes.
 */
int	 stream_is_dead(const struct stream *, int64_t ms);

#endif
