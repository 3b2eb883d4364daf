/*
 * log: log lines to stderr, syslog, systemd's journal or a file.  The log and
 * the flags of signals are the only global state.
 */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <stdint.h>

enum log_level {
	LEVEL_ERROR, LEVEL_WARNING, LEVEL_NOTICE, LEVEL_INFO, LEVEL_DEBUG
};

/* The names of levels in a configuration, ending with NULL. */
extern const char *const log_levels[];

/*
 * Log a line, escaped.  Never blocks: if the log has no room, the line is lost,
 * and the number of lost lines is logged later.  errno is kept.
 */
void	 log_at(enum log_level, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
#define log_error(...)		log_at(LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...)	log_at(LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)		log_at(LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)		log_at(LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)		log_at(LEVEL_DEBUG, __VA_ARGS__)

/*
 * Between these calls, errors are those of one configuration: log the first 50,
 * and count the rest.
 */
void	 log_errors_begin(void);
void	 log_errors_end(void);

/* The number of errors since log_errors_begin(). */
size_t	 log_errors(void);

/* Lost lines that were not reported yet. */
struct log_lost {
	uint64_t lines;
	int	 why;		/* an errno; EAGAIN: the log has no reader */
	int	 is_cut;	/* the last line written is incomplete */
};

/* Return and reset the number of lost lines; the caller reports them. */
struct log_lost log_lost_take(void);

/* Add the lost lines of another process, and report all, if possible now. */
void	 log_lost_add(const struct log_lost *);

/* The state of the log without its descriptor, for a handover. */
struct log_state {
	enum log_level level;
	int	 stream;	/* the standard descriptor it is; or -1 */
	int	 has_time;	/* lines begin with the time */
	int	 is_private;	/* only we write: lines without a name */
	int	 is_journal;	/* stderr is systemd's journal: priorities */
	int	 is_daemon;	/* log is not set: use syslog */
	struct log_lost lost;
};

/* Copy the state; replace it, but keep the descriptor. */
void	 log_get_state(struct log_state *);
void	 log_set_state(const struct log_state *);

/* Log to stderr, until the configuration is known. */
void	 log_init(void);

/*
 * Log to a descriptor, which the log owns from here on; -1: syslog.  stream is
 * the standard descriptor that it stands for; otherwise 0 or -1.
 */
void	 log_to(int fd, int stream);

/*
 * Log to a copy of a descriptor of another program; -1: syslog.  Call
 * log_set_state() before.
 */
void	 log_restore(int fd);

/* The descriptor of the log; -1: syslog. */
int	 log_fd(void);

/* Move the descriptor to the first free number above the standard ones. */
void	 log_lower(void);

/*
 * Set the least important level to be logged.  is_private: no other program
 * writes to the log, so lines have time and level, and no name.
 */
void	 log_configure(int is_private, enum log_level);
enum log_level log_get_level(void);

/*
 * Standard input and output are a connection: log to syslog if stderr is the
 * same file as one of them.
 */
void	 log_avoid_stdio(void);

/*
 * Open a standard descriptor for the log, if possible as a new non-blocking
 * one. -1: it is the connection that inetd has passed, so use syslog.
 */
int	 log_open_stream(int stream);

/* The standard descriptor for a value of log; -1: syslog; 0: a file. */
int	 log_stream(const char *log);

/* Connect to syslog now: a sandbox or chroot may prevent it later. */
void	 log_connect_syslog(void);

#endif
