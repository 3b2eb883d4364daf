/*
 * log: lines for stderr, syslog, systemd's journal or a file.  It is the one
 * thing that is global, next to the signals' flags.
 */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level {
	LEVEL_ERROR, LEVEL_WARNING, LEVEL_NOTICE, LEVEL_INFO, LEVEL_DEBUG
};

/* Their names, as they are configured; NULL ends them. */
extern const char *const log_levels[];

/*
 * A line, escaped.  Nothing blocks: where the log has no room, the line is
 * counted, and the count is logged later.  errno is kept.
 */
void	 log_at(enum log_level, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
#define log_error(...)		log_at(LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...)	log_at(LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)		log_at(LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)		log_at(LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)		log_at(LEVEL_DEBUG, __VA_ARGS__)

/*
 * Until log_errors_end() the errors are those of one configuration: the first
 * 50 are logged, the rest is counted.
 */
void	 log_errors_begin(void);
void	 log_errors_end(void);

/* How many there have been. */
size_t	 log_errors(void);

/* Lines since the last report of them. */
struct log_lost {
	uint64_t lines;
	int	 why;		/* an errno; EAGAIN: the log has no reader */
	int	 is_cut;	/* the last one there has no end */
};

/* Take over the count of lost lines: the caller is to report them. */
struct log_lost log_lost_take(void);

/* Lost by another process: reported with those lost here, now if possible. */
void	 log_lost_add(const struct log_lost *);

/* All but the descriptor, to be handed over to another program. */
struct log_state {
	enum log_level level;
	int	 stream;	/* the standard descriptor it is, or -1 */
	int	 has_time;	/* lines begin with it */
	int	 is_private;	/* so they need no name, but a level */
	int	 is_journal;	/* stderr is systemd's journal: priorities */
	int	 is_daemon;	/* without log, it goes to syslog */
	struct log_lost lost;
};

void	 log_get_state(struct log_state *);
void	 log_set_state(const struct log_state *);

/* To stderr, until the configuration is known. */
void	 log_init(void);

/* To that descriptor, which is the log's from here on; -1: syslog. */
void	 log_to(int fd, int stream);

/*
 * Where another program logged, by a descriptor of our own; -1: syslog.  Its
 * state was set before.
 */
void	 log_restore(int fd);

/* The log's descriptor; -1: syslog. */
int	 log_fd(void);

/* Move it to the first number that is free past the standard ones. */
void	 log_lower(void);

/*
 * The least important lines there are to be; is_ours: no other program logs
 * there, so that they have the time and the level, and no name.
 */
void	 log_configure(int is_private, enum log_level);
enum log_level log_get_level(void);

/*
 * Standard input and output are a connection: where stderr is one of the two,
 * syslog is the log from here on.
 */
void	 log_avoid_stdio(void);

/*
 * A standard descriptor, to log to.  It does not block; -1: it is the
 * connection that inetd has passed, and syslog is the log.
 */
int	 log_open_stream(int stream);

/* The standard descriptor that log names; -1: syslog, 0: it is a file. */
int	 log_stream(const char *log);

/* Connect to it now: a sandbox or chroot may have no access to it. */
void	 log_connect_syslog(void);

#endif
