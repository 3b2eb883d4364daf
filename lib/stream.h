/*
 * stream: one end of a connection, as the engine sees it; and the plain stream,
 * a socket without TLS.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What an operation returns in place of a byte count.  Any operation may want
 * either: TLS may have to read in order to write.
 */
enum stream_result {
	STREAM_EOF = 0,		/* read: the peer ended its side in order */
	STREAM_WANT_READ = -1,	/* call again when the descriptor is readable */
	STREAM_WANT_WRITE = -2,	/* call again when the descriptor is writable */
	STREAM_TRUNCATED = -3,	/* it ended without TLS's close_notify */
	STREAM_RESET = -4,	/* the peer reset the connection */
	STREAM_ERROR = -5,	/* anything else: see error() */
	STREAM_WANT_TURN = -6,	/* open: call again when others had theirs */
	STREAM_CONNECTED = -7	/* open: call again, for the handshake */
};

/*
 * One end of a connection.  The descriptor is a non-blocking socket, and the
 * engine closes it; no operation is called after that.
 */
struct stream {
	const struct stream_ops *ops;
	void	*ctx;		/* for the operations, never for the engine */
	int	 fd;		/* or -1 */
	int	 err;		/* errno of the last failure; stream_plain's */
	size_t	 write_size;	/* the best size of a write; 0: any */
};

/*
 * None of them blocks.  They return 0 (or a count above 0 where data moves)
 * or an enum stream_result below 0.
 */
struct stream_ops {
	/*
	 * Establish the stream: the end of a connect(2), a handshake, or both.
	 * Each has a time of its own.  A handshake that takes long wants a turn
	 * now and then, in between.
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
	 * End our sending direction; the peer may go on sending.  On a stream
	 * that has failed, or is refused, the peer is told that instead.
	 */
	int	(*finish)(struct stream *);
	/*
	 * The client can't be served: have finish tell it so.  NULL: such a
	 * stream has no words for that, and is aborted.
	 */
	void	(*refuse)(struct stream *);
	/*
	 * The poller reports an error, and no other operation is due.  0 if
	 * the stream goes on nevertheless, else a result that ends it.
	 */
	int	(*failed)(struct stream *);
	/* Make the coming close(2) an abort, as the peer sees it. */
	void	(*abort)(struct stream *);
	/* 1 if the peer's host has acknowledged all that was written. */
	int	(*flushed)(const struct stream *);
	/* 1 if there are bytes to read that no event will announce. */
	int	(*pending)(const struct stream *);
	/* Why the last operation failed; valid until the next one. */
	const char *(*error)(const struct stream *);
};

/*
 * A socket without TLS.  Its operations are exported for other tables, which
 * replace some of them.
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
 * The abort of every stream on TCP: close(2) sends RST (SO_LINGER 0), also if
 * it is the kernel's because this process is killed.  stream_no_reset() takes
 * it back, as stream_plain_finish() does.
 */
void	 stream_reset(struct stream *);
void	 stream_no_reset(struct stream *);

/*
 * 1 if the peer's host, on TCP, has acknowledged nothing for ms, though it was
 * sent data, or window probes, repeatedly.
 */
int	 stream_is_dead(const struct stream *, int64_t ms);

#endif
