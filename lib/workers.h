/* workers: the processes of a generation, as the master sees them. */
#ifndef WORKERS_H
#define WORKERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct order;
struct scoreboard;

/* A worker, or room for one. */
struct slot {
	pid_t	 pid;			/* 0: empty */
	int	 control;		/* the channel to it; or -1 */
	uint32_t row;			/* of the scoreboard */
	int	 released;		/* it was told to begin */
	int64_t	 drop_at;		/* for a connection: if not opened */
};

/* The processes of a generation, as the master sees them. */
struct workers {
	struct slot *slots;
	size_t	 nslots;		/* once it leaves: those taken alone */
	size_t	 n;			/* slots that are taken */
	size_t	 next;			/* fork mode: to be looked at */
	int64_t	 deadline;		/* for all to leave; or INT64_MAX */
	unsigned failures;		/* in a row */
	int64_t	 retry_at;		/* after one */
};

int	 workers_new(struct workers *ws, size_t nslots);
void	 workers_free(struct workers *ws);
size_t	 workers_next(struct workers *ws);
struct slot *workers_find(const struct workers *ws, pid_t pid);
void	 workers_clear(struct workers *ws, struct slot *slot);
void	 workers_release(struct workers *ws);
void	 workers_close_channels(const struct workers *ws);
void	 workers_dismiss(struct workers *ws);
void	 workers_await_deaf(const struct workers *ws);
pid_t	 workers_fork(struct workers *ws, size_t slot, int for_connection,
	    int *control);
int	 workers_await_ready(const struct workers *ws, size_t slot);
int64_t	 workers_failed(struct workers *ws);
int	 workers_are_full(const struct workers *ws);
struct slot *workers_oldest_handshake(const struct workers *ws,
	    const struct scoreboard *b);
int	 workers_tell(const struct slot *slot, const struct order *o, int fd);
void	 workers_signal(const struct workers *ws, int sig);
void	 workers_retire(struct workers *ws, int64_t ms);
void	 workers_abort(struct workers *ws);
void	 workers_tell_log(const struct workers *ws, const struct order *o,
	    int fd);
void	 workers_shrink(struct workers *ws);
void	 workers_kill_late(struct workers *ws);

#endif
