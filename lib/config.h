/*
 * config: the configuration: values from the lines of a file and from
 * arguments, each with its place.  There is no global state: several
 * configurations can exist at the same time.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "options.h"

/* A value of an option, as text. */
struct value {
	struct value *next;
	char	*text;
	char	*where;			/* place: "tunnel.conf:12" */
	int	 rank;			/* source; the higher one wins */
};

enum { RANK_FILE, RANK_ARGUMENT };

/* Numbers of the options mode and verify. */
enum { MODE_POLL, MODE_FORK };
enum { VERIFY_NONE, VERIFY_REQUEST, VERIFY_REQUIRE };

/* Initialise it with zeros, then call config_defaults(). */
struct config {
	struct value *given[OPTIONS];
	int64_t	 number[OPTIONS];	/* NUMBER; CHOICE: index; TIME: ms */
	char	**command;		/* ends with NULL; NULL: none */
	char	*exec;			/* buffer for its words, or NULL */
	int	 is_wrong[OPTIONS];	/* an error concerned the option */
	int	 sections;		/* [sections], which are refused */
};

/* Set defaults: before any value is set; then those of the role, after all. */
void	 config_defaults(struct config *);
void	 config_defaults_of_role(struct config *);

/* Free all values.  The struct is all zeros then. */
void	 config_free(struct config *);

/*
 * The following functions return 0, or -1, having logged one line per error and
 * set is_wrong for each option concerned, so that consequences of the error are
 * not reported.
 */

/*
 * Set an option.  where is the place for messages; rank is RANK_FILE or
 * RANK_ARGUMENT.  Set arguments before the file.  An option may be repeated in
 * different sections.
 */
int	 config_set(struct config *, int rank, const char *where,
	    const char *key, const char *text);

/* Set the options of a file. */
int	 config_file(struct config *, const char *name);

/* Set the option of an argument key=value. */
int	 config_argument(struct config *, const char *argument);

/*
 * Set the command, if any: from exec, or from the words after --, which end
 * with NULL, are owned by the caller and must stay valid.
 */
int	 config_command(struct config *, char **words);

/* 1 with client = yes. */
int	 config_is_client(const struct config *);

/* 0 if the role is unknown: client has an error, or is set in two sections. */
int	 config_has_role(const struct config *);

/*
 * Check the options for the role: a part of config_check().  Options of the
 * other role are reported and dropped.
 */
int	 config_check_role(struct config *);

/* Report options that other options make useless: a part of config_check(). */
int	 config_check_unused(const struct config *, int inetd);

/* Check for missing options and conflicts.  inetd: the process runs with -i. */
int	 config_check(struct config *, int inetd);

/* Add a copy of a value at the end of a list.  0, or -1, having logged why. */
int	 config_add(struct value **list, int rank, const char *where,
	    const char *text);

/* Remove the values of an option. */
void	 config_drop(struct config *, int option);

/* The number of values in a list. */
size_t	 config_count(const struct value *);

/* The first value of an option, or its default; NULL: none. */
const char *config_text(const struct config *, int option);

/* 1 if both sides authenticate only by shared keys. */
int	 config_is_psk_only(const struct config *);

/*
 * The first value of an option that needs verify; NULL: none.  peer = psk:NAME
 * needs no verify.
 */
const struct value *config_verify_value(const struct config *, int option);

/* The place where an option is set, "tunnel.conf:12", or "default". */
const char *config_where(const struct config *, int option);

/* Print a configuration in the format of its file. */
void	 config_print(const struct config *, FILE *);

/*
 * Open a file that the configuration names, for reading.  NULL with the error
 * in *why.  Only regular files are allowed: a FIFO would block a start or a
 * reload until another process writes to it.
 */
FILE	*config_open(const char *name, const char **why);

/*
 * Find a program in PATH, as execvp(3) does.  0 with its path in file, or -1.
 * Without PATH, as under inetd, a default is used.
 */
int	 config_find_runnable(const char *name, char *file, size_t size);

#endif
