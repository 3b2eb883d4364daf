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
 * Until log_errors_end() the errors are those of one configuration: of more
 * than ERRORS_MAX, the rest is counted.
 */
#define ERRORS_MAX	50
void	 log_errors_begin(void);
void	 log_errors_end(void);

struct logging {
	enum log_level level;
	int	 fd;		/* where to; -1: syslog */
	int	 stream;	/* the standard descriptor it is, or -1 */
	int	 has_time;	/* lines begin with it */
	int	 is_ours;	/* so they need no name, but a level */
	int	 is_journal;	/* stderr is systemd's journal: priorities */
	int	 is_daemon;	/* without log, it goes to syslog */
	uint64_t lost;		/* lines since the last report of them, */
	int	 why;		/* by this errno; EAGAIN: nobody reads them */
	int	 is_cut;	/* the last one there has no end */
	int	 is_bounded;	/* a configuration is checked: so many */
	size_t	 errors;	/* there were */
};

extern struct logging logging;

/* To stderr, until the configuration is known. */
void	 log_init(void);

/* To that descriptor, which is the log's from here on; -1: syslog. */
void	 log_to(int fd, int stream);

/*
 * A standard descriptor, to log to.  It does not block; -1: it is the
 * connection that inetd has passed, and syslog is the log.
 */
int	 log_open_stream(int stream);

/* Now, since what comes may have no access to it. */
void	 log_connect_syslog(void);

/* Is there no room for a line?  If lines were lost before, that is said. */
int	 log_is_stuck(void);

#endif
