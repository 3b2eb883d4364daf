"""Data go through in large pieces: what a megabyte costs in system calls."""

import os
import shutil
import subprocess

import pytest

import support
from support import Task, read_exactly

MB = 1024 * 1024
SIZE = 40 * MB
PER_MB = 45  # of which about 30 are needed; one call a record makes 150 to 250
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
    """The system calls of processes, until it is asked for their number."""

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
        calls.append(counted.number() / (SIZE / MB))
        if calls[-1] <= PER_MB:
            break
    assert min(calls) <= PER_MB, calls
