/* upgrade: the next version of the program is tried, and executed. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "daemon.h"
#include "handover.h"
#include "log.h"
#include "memory.h"
#include "upgrade.h"
#include "util.h"

#define TRIAL_MS	60000		/* for a new program's -t */
#define TAKEOVER_FDS	16		/* free ones, to take over or go back */
#define TRIAL_ERRORS_MAX 2048		/* bytes of its errors to be logged */

/*
 * Change this with the contents of the handover, the layout of shared memory
 * and the layout of orders: workers of the old version continue.
 */
#define HANDOVER	"tunnel handover 4"

/*
 * The absolute path by which this program was started, the place of its next
 * version.  Do not resolve links: their target may be the old version.
 */
static char *
find_program(const char *name)
{
	static const char self[] = "/proc/self/exe";
	char path[PATH_MAX] = "", own[PATH_MAX] = "";
	struct stat a, b;
	int n = 0;

	if (strchr(name, '/') == NULL)
		config_find_runnable(name, path, sizeof(path));
	else if (name[0] == '/' || getcwd(own, sizeof(own)) != NULL)
		n = snprintf(path, sizeof(path), "%s%s%s", own,
		    name[0] == '/' ? "" : "/", name);
	if (n >= (int)sizeof(path))
		path[0] = '\0';
	if (stat(self, &a) == 0 && (stat(path, &b) == -1 ||
	    a.st_dev != b.st_dev || a.st_ino != b.st_ino)) {
		memset(own, 0, sizeof(own));
		if (readlink(self, own, sizeof(own) - 1) != -1)
			return strdup(own);
	}
	return strdup(path);
}

void
upgrade_init(struct upgrade *u, char **argv)
{
	u->log = u->output = u->answer = -1;
	u->path = find_program(argv[0]);
	u->argv = argv;
	u->env = environ;
	u->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

void
upgrade_free(struct upgrade *u, char **argv)
{
	free(u->path);
	if (u->argv != argv) {
		handover_free_texts(u->argv);
		handover_free_texts(u->env);
	}
	if (u->program != -1)
		close(u->program);
}

void
upgrade_leave(const struct upgrade *u, int state, int before)
{
	const int fds[] = { u->program, u->output, u->answer, u->log, state,
	    before };
	size_t i;

	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] > STDERR_FILENO)
			close(fds[i]);
}

void
upgrade_carry(struct handover *x, struct upgrade *u)
{
	char text[sizeof(HANDOVER)] = HANDOVER;

	handover_bytes(x, text, sizeof(text));
	if (x->bad == NULL && memcmp(text, HANDOVER, sizeof(text)) != 0)
		x->bad = "it is of another version";
	handover_text(x, &u->path);
	handover_texts(x, &u->argv);
	handover_texts(x, &u->env);
	if (x->bad == NULL && (u->path == NULL || *u->argv == NULL))
		x->bad = "it has no program";
}

/* Add these two numbers to an environment; NULL: out of memory. */
static char **
environment(char **from, int state, int before)
{
	static char texts[2][32];
	char **env;
	size_t n = 0;

	while (from[n] != NULL)
		n++;
	if ((env = calloc(n + 3, sizeof(*env))) == NULL)
		return NULL;
	memcpy(env, from, n * sizeof(*env));
	snprintf(texts[0], sizeof(texts[0]), "TUNNEL_STATE=%d", state);
	snprintf(texts[1], sizeof(texts[1]), "TUNNEL_BEFORE=%d", before);
	env[n] = texts[0];
	env[n + 1] = before != -1 ? texts[1] : NULL;
	return env;
}

/*
 * Written by a trial to show that it can take over.  The process ID shows that
 * no script has started it as a child.
 */
struct answer {
	char	 version[sizeof(HANDOVER)];
	pid_t	 pid;
};

int
upgrade_answer(int fd)
{
	struct answer a = { .version = HANDOVER, .pid = getpid() };

	return write(fd, &a, sizeof(a)) == sizeof(a) ? 0 : -1;
}

/* Check the answer of a trial.  NULL, or the error. */
static const char *
find_fault(int fd, pid_t pid)
{
	struct answer a = { .pid = 0 };

	if (pread(fd, &a, sizeof(a), 0) != sizeof(a))
		return "the new program cannot take over: it is not tunnel, or "
		    "a version without upgrades";
	if (memcmp(a.version, HANDOVER, sizeof(a.version)) != 0)
		return "the new program cannot take over from this version: "
		    "restart to upgrade";
	return a.pid == pid ? NULL : "the new program cannot take over: it "
	    "runs in another process (a script must use exec)";
}

/* In the child: execute the program with its arguments, and -t. */
static void __attribute__((noreturn))
try_main(const struct upgrade *u, int first, int n, const sigset_t *mask)
{
	static char letter[] = "-t";
	char **argv, pid[32];
	size_t len = 0;
	int fd;

	while (u->argv[len] != NULL)
		len++;
	if ((argv = calloc(len + 2, sizeof(*argv))) == NULL)
		_exit(127);
	argv[0] = u->argv[0];
	argv[1] = letter;
	memcpy(argv + 2, u->argv + 1, len * sizeof(*argv));
	if ((environ = environment(u->env, u->answer, -1)) == NULL)
		_exit(127);
	fcntl(u->answer, F_SETFD, 0);
	for (fd = first; fd < first + n; fd++)
		fcntl(fd, F_SETFD, 0);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	if (n > 0)
		setenv("LISTEN_PID", pid, 1);
	close(STDIN_FILENO);	/* no other number may be free */
	open("/dev/null", O_RDWR);
	dup2(STDIN_FILENO, STDOUT_FILENO);
	dup2(u->output, STDERR_FILENO);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execv(u->path, argv);
	dprintf(STDERR_FILENO, "error: %s\n", strerror(errno));
	_exit(127);
}

void
upgrade_try(struct upgrade *u, int first, int n, const sigset_t *mask)
{
	if (u->trial != 0) {
		log_notice("an upgrade is already in progress");
		return;
	}
	u->trial = -1;
	errno = ENOENT;
	if (u->path != NULL && u->program != -1 &&
	    (u->output = memory_file()) != -1 &&
	    (u->answer = memory_file()) != -1)
		u->trial = fork();
	if (u->trial == 0)
		try_main(u, first, n, mask);
	if (u->trial == -1) {
		log_error("upgrade failed: %s", strerror(errno));
		close_fd(&u->output);
		close_fd(&u->answer);
		u->trial = 0;
		return;
	}
	u->until = clock_ms() + TRIAL_MS;
	log_notice("upgrading: trying %s -t", u->path);
}

/* Log the errors that the trial has printed, up to a limit. */
static void
log_trial_errors(const struct upgrade *u)
{
	char text[TRIAL_ERRORS_MAX], *line, *rest = NULL, *error;
	ssize_t n = pread(u->output, text, sizeof(text) - 1, 0);
	struct stat st;

	if (n > 0 && fstat(u->output, &st) == 0 && st.st_size > n)
		while (n > 0 && text[n - 1] != '\n')
			n--;
	text[n > 0 ? n : 0] = '\0';
	for (line = strtok_r(text, "\n", &rest); line != NULL;
	    line = strtok_r(NULL, "\n", &rest)) {
		if (strstr(line, "warning: ") != NULL)
			continue;
		error = strstr(line, "error: ");
		log_error("%s -t: %s", u->path, error != NULL ? error +
		    strlen("error: ") : line);
	}
}

static void
end_trial(struct upgrade *u, pid_t pid, int status)
{
	const char *why;

	if (WIFSIGNALED(status))
		log_error("upgrade failed: %s -t was killed by signal %d (%s)",
		    u->path, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) != 0)
		log_error("upgrade failed: %s -t failed (status %d)", u->path,
		    WEXITSTATUS(status));
	else if ((why = find_fault(u->answer, pid)) != NULL)
		log_error("upgrade failed: %s: %s", u->path, why);
	else
		u->is_due = 1;
}

int
upgrade_reaped(struct upgrade *u, pid_t pid, int status)
{
	if (pid != u->trial)
		return 0;
	u->trial = 0;
	if (status != 0)
		log_trial_errors(u);
	end_trial(u, pid, status);
	close_fd(&u->output);
	close_fd(&u->answer);
	return 1;
}

int
upgrade_step(struct upgrade *u, int stopping)
{
	int is_due = u->is_due && !stopping;

	if (u->trial != 0 && (stopping || clock_ms() >= u->until)) {
		if (!stopping)
			log_warning("%s -t took more than %d s: killed",
			    u->path,
			    TRIAL_MS / 1000);
		u->until = INT64_MAX;
		kill(u->trial, SIGKILL);
	}
	u->is_due = 0;
	return is_due;
}

/* Check that enough descriptors are free for a takeover.  -1 with errno. */
static int
check_room(int fd)
{
	int fds[TAKEOVER_FDS], n = 0, r, saved;

	while (n < TAKEOVER_FDS && (fds[n] = fcntl(fd, F_DUPFD_CLOEXEC,
	    0)) != -1)
		n++;
	r = n == TAKEOVER_FDS ? 0 : -1;
	saved = errno;
	while (n > 0)
		close(fds[--n]);
	errno = saved;
	return r;
}

void
upgrade_exec(const struct upgrade *u, struct handover *x)
{
	char **env = NULL;
	int fd = -1;

	if (x->bad == NULL && (fd = handover_seal(x)) != -1 &&
	    check_room(fd) == 0 &&
	    (env = environment(u->env, fd, u->program)) != NULL) {
		handover_expose(x, 0);
		fcntl(fd, F_SETFD, 0);
		fcntl(u->program, F_SETFD, 0);
		execve(u->path, u->argv, env);
		x->bad = strerror(errno);
		handover_expose(x, FD_CLOEXEC);
		fcntl(u->program, F_SETFD, FD_CLOEXEC);
	}
	log_error("upgrade failed: %s", x->bad != NULL ? x->bad :
	    strerror(errno));
	free(env);
	if (fd != -1)
		close(fd);
}

void
upgrade_close_others(const struct upgrade *u, const struct handover *x,
    int state, int before)
{
	const int ours[] = { u->program, state, before };
	size_t more = sizeof(ours) / sizeof(ours[0]);
	int *fds = malloc(sizeof(ours) + x->nfds * sizeof(*fds));

	if (fds == NULL)
		return;
	memcpy(fds, ours, sizeof(ours));
	if (x->nfds > 0)
		memcpy(fds + more, x->fds, x->nfds * sizeof(*fds));
	daemon_close_all_but(fds, more + x->nfds);
	free(fds);
}

void
upgrade_restore_name(const struct upgrade *u)
{
	const char *name = strrchr(u->path, '/');

	prctl(PR_SET_NAME, name != NULL ? name + 1 : u->path, 0, 0, 0);
}

int
upgrade_go_back(int state, int before, char **argv)
{
	struct upgrade u = { .path = NULL };
	char **env;
	struct handover x;

	log_error("upgrade failed: back to the previous program");
	handover_open(&x, state);
	upgrade_carry(&x, &u);
	fcntl(state, F_SETFD, 0);
	env = environment(x.bad == NULL ? u.env : environ, state, -1);
	if (env != NULL)
		fexecve(before, x.bad == NULL ? u.argv : argv, env);
	log_error("the previous program cannot be started: "
	    "%s", strerror(errno));
	free(env);
	free(u.path);
	handover_free_texts(u.argv);
	handover_free_texts(u.env);
	handover_free(&x);
	return EXIT_FAILURE;
}
