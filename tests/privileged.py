"""Tunnels started by root, and the privileges of their processes."""

import ctypes
import pwd
import re
import socket

import pytest

import support
from support import run, wait_for

NOBODY = pwd.getpwnam("nobody")
LIBC = ctypes.CDLL(None, use_errno=True)
# The ways in which connections are accepted.
MODES = ["workers=1", "mode=fork", "-i"]
# The runtimes of sanitizers and of valgrind do not work in the sandbox.
confined = pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                              reason="needs a plain build")
AS_NOBODY = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid,
             "extra_groups": []}


def system(result, what):
    if result == -1:
        raise OSError(ctypes.get_errno(), what)
    return result


def status(pid):
    """Return /proc/PID/status, as lists of words."""
    with open(f"/proc/{pid}/status") as f:
        return {key: value.split() for key, value in
                (line.split(":", 1) for line in f)}


def assert_is(pid, uid, gid):
    s = status(pid)
    assert s["Uid"] == [str(uid)] * 4
    assert s["Gid"] == [str(gid)] * 4
    assert s["Groups"] in ([], [str(gid)])


def soft_limit(pid, what):
    with open(f"/proc/{pid}/limits") as f:
        return re.search(rf"Max {what} +(\S+)", f.read()).group(1)


def start(room, mode, *words, **keywords):
    """Start a tunnel and a client, and return both."""
    if mode != "-i":
        t = room.tunnel(mode, *words, **keywords)
        return t, room.client(t)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        sock = listener.accept()[0]
    with sock:
        t = room.tunnel("-i", *words, ready=False, stdin=sock, **keywords)
    return t, room.client(peer)


def begin(room, mode, *words, **keywords):
    """The same, and the serving process; the connection must last."""
    t, client = start(room, mode, *words, **keywords)
    if mode == "-i":
        return t, client, t.pid
    # In fork mode, a trial process runs at the start.
    worker, = wait_for(lambda: len(t.workers()) == 1 and t.workers(),
                       "one worker to remain")
    return t, client, worker


LOOK = """
import ctypes, os, sys
pid = sys.argv[1]
for name in ("environ", "mem", "maps"):
    try:
        open(f"/proc/{pid}/{name}", "rb").read(0)
        print(name)
    except PermissionError:
        pass
if ctypes.CDLL(None).ptrace(0x4206, int(pid), None, None) == 0:  # SEIZE
    print("ptrace")
"""


def can_look(pid):
    out = run("/usr/bin/python3", "-c", LOOK, str(pid), user=NOBODY.pw_uid,
              group=NOBODY.pw_gid, extra_groups=[], cwd="/")
    return out.decode().split()


def landlock_abi():
    return LIBC.syscall(444, None, ctypes.c_size_t(0), 1)
