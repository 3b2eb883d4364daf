"""The number of system calls for a connection, and for a megabyte of data."""

import os
import shutil
import subprocess

import pytest

import peers
import support
from support import Task, is_echoed, read_exactly

MB = 1024 * 1024
SIZE = 40 * MB
# About 30 are needed; one call per record would make 150 to 250.
PER_MB = {"up": 32, "down": 45}
TRIES = 8
# From accept(2) to close(2), with one echoed word.  Two more than the minimum:
# on a busy machine, a worker may sleep once more in every run.
PER_CONNECTION = {("1.3", "full"): 52, ("1.3", "resumed"): 49,
                  ("1.2", "full"): 50, ("1.2", "resumed"): 44}

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"),
                       reason="strace is not installed"),
    pytest.mark.skipif(os.geteuid() != 0,
                       reason="strace of a sandboxed process needs root"),
    pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                       reason="sanitizers and valgrind add system calls"),
]


class Counted:
    """Counts the system calls of processes, until its number is read."""

    def __init__(self, room, pids):
        self.out = room.path("calls")
        self.p = subprocess.Popen(
            ["strace", "-f", "-c", "-U", "calls,name", "-o", self.out,
             *(word for pid in pids for word in ("-p", str(pid)))],
            stderr=subprocess.PIPE)
        for _ in pids:
            assert b"attached" in self.p.stderr.readline()

    def number(self):
        self.p.terminate()
        self.p.communicate(timeout=support.DEADLINE)
        total = support.text_of(self.out).splitlines()[-1]
        assert total.split()[1] == "total"
        return int(total.split()[0])


@pytest.mark.seconds(60)
@pytest.mark.parametrize("way", PER_MB)
def test_calls_per_megabyte(room, version, way):
    """The minimum of several runs: on a busy machine, data arrives in smaller
    pieces.
    """
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}", "log_level=info")
    calls = []
    for _ in range(TRIES):
        client = room.client(t, version)
        server = room.keep(backend.accept())
        source, sink = (client.send, server) if way == "up" else (
            server.sendall, client)
        counted = Counted(room, t.workers())
        sent = Task(lambda: [source(bytes(MB)) for _ in range(SIZE // MB)])
        read_exactly(sink, SIZE)
        sent.result()
        calls.append(counted.number() / (SIZE / MB))
        if calls[-1] <= PER_MB[way]:
            break
    assert min(calls) <= PER_MB[way], calls


def visit(t, ctx, session=None):
    """A complete connection; returns a session to resume."""
    client = peers.Client(t.address, ctx, session=session)
    with client.sock:
        client.handshake()
        assert client.resumed == (session is not None)
        assert is_echoed(client)
        support.end(client)
    return client.session


@pytest.mark.parametrize("version,kind", PER_CONNECTION)
def test_calls_per_connection(room, echo, version, kind):
    """The minimum of several runs: on a busy machine, the worker sleeps more
    often.
    """
    t = room.tunnel(f"connect={echo.address}", "mode=poll", "ktls=off",
                    "workers=1")
    ctx = peers.context(room.certs, version)
    calls = []
    session = visit(t, ctx)
    for i in range(2, 2 + TRIES):
        t.wait_log(" closed$", count=i - 1)
        counted = Counted(room, t.workers())
        visit(t, ctx, session if kind == "resumed" else None)
        t.wait_log(" closed$", count=i)
        calls.append(counted.number())
        if calls[-1] <= PER_CONNECTION[version, kind]:
            break
    assert min(calls) <= PER_CONNECTION[version, kind], calls
