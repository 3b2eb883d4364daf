"""Upgrades of the program by SIGUSR2, successful and failing ones."""

import os
import re
import shutil
import signal
import struct

import pytest

from launchers import is_static
from support import run


def upgrade(t, words="tunnel: upgraded$", number=signal.SIGUSR2):
    """Send the signal; return the log lines up to the one with these words."""
    log = t.log()
    t.signal(number)
    t.wait_log(words, count=len(re.findall(words, log, re.M)) + 1)
    return t.log()[len(log):]


def refused(t):
    return upgrade(t, "upgrade failed(, keeping|: .*(failed|killed by|"
                      "take over))")


def inode(t):
    return os.stat(f"/proc/{t.pid}/exe").st_ino


CRASH = """
#include <stdarg.h>
#include <sys/prctl.h>
#include <unistd.h>
int prctl(int option, ...)
{
	if (option == PR_SET_PDEATHSIG)
		_exit(3);
	return 0;
}
"""


def crashing(room):
    """A preloaded library that makes a worker crash at its start."""
    if is_static():
        pytest.skip("a static program cannot preload a library")
    source = room.write("crash.c", CRASH)
    run("cc", "-shared", "-fPIC", "-o", room.path("crash.so"), source)
    return ("export ASAN_OPTIONS=verify_asan_link_order=0\n"
            f"LD_PRELOAD={room.path('crash.so')} exec REAL \"$@\"")


def fail(room, program, how):
    """Make the new program fail in this way; return the expected message."""
    if how == "not executable":
        program.script("#!/bin/sh\n", mode=0o644)
        return "-t: Permission denied"
    if how == "no program":
        program.script("nonsense\n")
        return "-t: Exec format error"
    if how == "gone":
        os.unlink(program.path)
        return "-t: No such file or directory"
    if how == "crashes":
        program.script("#!/bin/sh\nkill -SEGV $$\n")
        return "-t was killed by signal 11"
    if how == "-t fails":
        program.script("#!/bin/sh\necho tunnel: warning: not that >&2\n"
                       "echo tunnel: error: too late >&2; exit 2\n")
        return "tunnel -t: too late\n"
    if how == "user unknown":
        program.but('exec REAL "$@" user=nobody-of-this-name')
        return 'unknown user "nobody-of-this-name"'
    if how == "unknown argument":
        program.but('exec REAL -Z "$@"')
        return "upgrade failed: back to the previous program"
    if how == "another process":
        program.script('#!/bin/sh\nREAL "$@"\n')
        return "a script must use exec"
    if how == "another program":
        shutil.copy("/bin/true", room.path("new"))
        os.rename(room.path("new"), program.path)
        return "it is not tunnel, or"
    if how == "another version":
        program.script("#!/bin/sh\nprintf 'tunnel handover 9\\000..pid.' "
                       "> /proc/self/fd/$TUNNEL_STATE\n")
        return "the new program cannot take over from this version: restart " \
            "to upgrade"
    assert how == "workers crash"
    program.but(crashing(room))
    return "exited with status 3"


def number(n):
    return struct.pack("q", n)


def text(s):
    return number(len(s)) + s.encode()
