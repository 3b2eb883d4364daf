# shellcheck shell=sh
# For the scripts in this directory: a session in a new directory that shows and
# runs commands.  On a terminal, it pauses PACE seconds before each.

set -eu
umask 077
unset CDPATH
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
PATH=$top:$PATH
bold= blue= plain=
if [ -t 1 ]; then
	bold=$(printf '\033[1m') blue=$(printf '\033[34m')
	plain=$(printf '\033[m')
fi

: "${PACE=1.2}"
begun=
d=
pids=
status=1		# the exit status, unless all succeeds

# Ends all started processes, however the script ends.
finish() {
	trap - EXIT
	trap '' HUP INT TERM
	for pid in $pids; do
		kill "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	if [ "$status" = 1 ] && [ -n "$d" ]; then
		for log in "$d"/*.log; do
			[ -e "$log" ] || continue
			echo "--- ${log##*/}"
			cat "$log"
		done >&2
	fi
	cd /
	[ -z "$d" ] || rm -rf "$d"
	exit "$status"
}
trap finish EXIT
trap '[ "$status" = 0 ] || status=130; finish' INT
trap 'status=143; finish' HUP TERM

fail() {
	echo "demo: $*" >&2
	exit 1
}

start() {
	[ -x "$top/tunnel" ] ||
	    fail "./tunnel is missing: run \"make demo\""
	d=$(mktemp -d)
	cd "$d"
}

pause() {
	[ ! -t 1 ] || [ -z "$begun" ] || sleep "$PACE"
	begun=yes
}

# say WORD ...: announce the next step.
say() {
	pause
	echo "$blue# $*$plain"
}

# show COMMAND: show it, and run it.
show() {
	pause
	printf '%s\n' "\$ $bold$1$plain"
	eval "$1"
}

# show_failing COMMAND: show and run a command that must fail.
show_failing() {
	if show "$1"; then
		fail "this should have failed: $1"
	fi
}

# show_background COMMAND: run it until the end of the script; its PID is $!.
show_background() {
	show "$1 &"
	pids="$! $pids"
}

# await WORDS FILE: wait until the file contains the words.  Fails if the last
# background command ends.
await() {
	n=0
	until grep -q -e "$1" "$2" 2>/dev/null; do
		kill -0 "$!" 2>/dev/null || fail "a program has ended: see $2"
		n=$((n + 1))
		[ "$n" -le 100 ] || fail "no \"$1\" in $2 after 10 seconds"
		sleep 0.1
	done
}
