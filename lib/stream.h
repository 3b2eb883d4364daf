/*
 * stream: one end of a connection, as the engine sees it; and the plain one, a
 * socket as it is.
 */
#ifndef STREAM_H
#define STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What an operation answers when it has no byte count to give.  A stream
 * that wants may want either way whatever it was asked to do: TLS may have
 * to read in order to write.
 */
enum stream_result {
	STREAM_EOF = 0,		/* read: the peer ended its side in order */
	STREAM_WANT_READ = -1,	/* call again when the descriptor is readable */
	STREAM_WANT_WRITE = -2,	/* call again when the descriptor is writable */
	STREAM_TRUNCATED = -3,	/* the peer ended without saying so */
	STREAM_RESET = -4,	/* the peer reset the connection */
	STREAM_ERROR = -5	/* anything else; the error operation tells */
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
	size_t	 piece;		/* as much is best written at once; 0: any */
};

/*
 * None of them blocks.  They return 0 (or a count above 0 where data moves)
 * or an enum stream_result below 0.
 */
struct stream_ops {
	/* Establish the stream: a handshake, or the end of a connect(2). */
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
	/* The client of an established stream can't be served: see finish. */
	void	(*refuse)(struct stream *);
	/*
	 * The descriptor has an error, and no other operation is due.  0 if
	 * the stream can do with it, or what has become of the stream.
	 */
	int	(*failed)(struct stream *);
	/* See to it that the coming close(2) reaches the peer as an abort. */
	void	(*abort)(struct stream *);
	/* Has the peer's host acknowledged all that was written? */
	int	(*flushed)(const struct stream *);
	/* Is there something to read that the descriptor will not announce? */
	int	(*pending)(const struct stream *);
	/* Why the last one answered STREAM_ERROR; valid until the next. */
	const char *(*error)(const struct stream *);
};

/*
 * A stream without a protocol of its own: a socket, as it is.  Its operations
 * are for the tables of others as well.
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
 * The abort of every stream on TCP: close(2) shall send RST (SO_LINGER 0), also
 * the one that the system makes if this process is killed.  stream_plain's
 * finish takes it back.
 */
void	 stream_reset(struct stream *);

/*
 * Has its host, on TCP, not acknowledged anything for ms, though it was sent
 * data, or asked for its window, again and again?
 */
int	 stream_is_dead(const struct stream *, int64_t ms);

#endif
