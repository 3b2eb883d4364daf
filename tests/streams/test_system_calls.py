"""What a megabyte costs in system calls, and what a connection does."""

import os
import shutil
import subprocess

import pytest

import support
from support import Task, read_exactly

MB = 1024 * 1024
SIZE = 40 * MB
# About 30 are needed, but a busy machine has smaller pieces from the backend; one
# call a record makes 150 to 250.
PER_MB = {"up": 36, "down": 60}
CONNECTIONS = 10
WATCHES = 3  # 2 are needed; one at each change of interest makes 5 to 7
TRIES = 4

pytestmark = [
    pytest.mark.skipif(not shutil.which("strace"),
                       reason="strace is not installed"),
    pytest.mark.skipif(os.geteuid() != 0,
                       reason="strace needs root to look into a sandbox"),
    pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                       reason="sanitizers and valgrind make calls of their own"),
]


class Counted:
    """The system calls of processes, until it is asked for their numbers."""

    def __init__(self, room, pids):
        self.out = room.path("calls")
        self.p = subprocess.Popen(
            ["strace", "-f", "-c", "-U", "calls,name", "-o", self.out,
             *(word for pid in pids for word in ("-p", str(pid)))],
            stderr=subprocess.PIPE)
        for _ in pids:
            assert b"attached" in self.p.stderr.readline()

    def numbers(self):
        """By name, and "total"."""
        self.p.terminate()
        self.p.communicate(timeout=support.DEADLINE)
        words = map(str.split, support.text_of(self.out).splitlines())
        return {w[1]: int(w[0]) for w in words if w[0].isdigit()}


@pytest.mark.seconds(60)
@pytest.mark.parametrize("way", ["up", "down"])
def test_calls_per_megabyte(room, version, way):
    """At best: a busy machine delivers what is sent in smaller pieces."""
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
        calls.append(counted.numbers()["total"] / (SIZE / MB))
        if calls[-1] <= PER_MB[way]:
            break
    assert min(calls) <= PER_MB[way], calls


def converse(room, t, backend, version):
    """A connection, and its end in order."""
    client = room.client(t, version)
    server = room.keep(backend.accept())
    client.send(b"x")
    assert read_exactly(server, 1) == b"x"
    server.sendall(b"y")
    assert read_exactly(client, 1) == b"y"
    client.close_notify()
    assert server.recv(1) == b""
    server.close()
    client.close()


@pytest.mark.skipif(support.MODE == "fork", reason="each has its own process")
def test_calls_per_connection(room, version):
    """At best: a busy machine takes its time for connections to a backend."""
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}", support.ALONE)
    calls = []
    for i in range(TRIES):
        counted = Counted(room, t.workers())
        for _ in range(CONNECTIONS):
            converse(room, t, backend, version)
        t.wait_log("closed", CONNECTIONS * (i + 1))
        calls.append(counted.numbers().get("epoll_ctl", 0) / CONNECTIONS)
        if calls[-1] <= WATCHES:
            break
    assert min(calls) <= WATCHES, calls
