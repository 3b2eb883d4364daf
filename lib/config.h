/*
 * config: what was configured, and where: the lines of a file, and arguments,
 * as values.  A struct config is a value as well: another may stand beside it.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "options.h"

/* A value as it was given, and where: "tunnel.conf:12". */
struct value {
	struct value *next;
	char	*text;
	char	*where;
	int	 rank;			/* of its source; the higher one wins */
};

enum { FROM_FILE, FROM_ARGUMENT };
enum { POLL, FORK };			/* modes */
enum { NONE, REQUEST, REQUIRE };	/* verify */

/* All zero before config_defaults(). */
struct config {
	struct value *given[OPTIONS];
	int64_t	 number[OPTIONS];	/* NUMBER; CHOICE: index; TIME: ms */
	char	**command;		/* NULL: none; ends with NULL */
	char	*exec;			/* its words, if exec has it */
	int	 is_wrong[OPTIONS];	/* there was an error about it */
	int	 sections;		/* [sections], which are refused */
};

/* Before anything else is set; and the rest, when all of that is. */
void	 config_defaults(struct config *);
void	 config_defaults_of_role(struct config *);

/* It is empty afterwards. */
void	 config_free(struct config *);

/*
 * All of these: 0, or -1, having logged one line for each error, and having set
 * is_wrong for the options concerned: consequences of it are not reported.
 */

/*
 * key = value from where; rank is FROM_FILE or FROM_ARGUMENT.  Arguments are
 * first.  Of several sections each may set a key.
 */
int	 config_set(struct config *, int rank, const char *where,
	    const char *key, const char *text);

/* All lines of a file. */
int	 config_file(struct config *, const char *name);

/* key=value, as an argument. */
int	 config_argument(struct config *, const char *argument);

/*
 * The command to run, if any: from the words behind --, which end with NULL and
 * stay the caller's, or from exec.
 */
int	 config_command(struct config *, char **words);

/* 1 with client = yes. */
int	 config_is_client(const struct config *);

/* 0 if the role is unknown: client has an error, or sections differ in it. */
int	 config_has_role(const struct config *);

/*
 * Is anything wrong for that role?  Part of config_check().  Options of the
 * other role are reported, and dropped.
 */
int	 config_check_role(struct config *);

/* Is anything missing, or in conflict?  inetd: it is for -i. */
int	 config_check(struct config *, int inetd);

/* Add a copy of a value at the end of a list.  -1, having logged why. */
int	 config_add(struct value **list, int rank, const char *where,
	    const char *text);

/* Forget the values of an option. */
void	 config_drop(struct config *, int option);

/* How many values there are in a list. */
size_t	 config_count(const struct value *);

/* The text of an option, or of its default; NULL: it has none. */
const char *config_text(const struct config *, int option);

/* 1 if shared keys are all that there is to know peers by, and to show. */
int	 config_is_psk_only(const struct config *);

/*
 * The first value of an option that needs verify, or NULL: a rule for a shared
 * key does not.
 */
const struct value *config_verify_value(const struct config *, int option);

/* Where that was set, "tunnel.conf:12" or "default". */
const char *config_where(const struct config *, int option);

/* Print it as a configuration file. */
void	 config_print(const struct config *, FILE *);

/*
 * Open a file that is named in a configuration, to read it; NULL, with the
 * reason.  It has to be a regular file: a FIFO could block a start or a reload
 * until somebody writes to it.
 */
FILE	*config_open(const char *name, const char **why);

/*
 * Where execvp(3) would find a program; -1: nowhere.  inetd leaves no PATH, for
 * which there is a default.
 */
int	 config_find_runnable(const char *name, char *file, size_t size);

#endif
