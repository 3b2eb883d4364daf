"""max_connections limits the connections of all workers together; at the
limit, accepting pauses.
"""

import subprocess
import time

import pytest

import peers
import support
from crowds import workers
from support import Task, is_echoed, read_exactly


def test_accepting_pauses(room, backend, tunnel):
    """At the limit accepting pauses; a free slot is used at once."""
    backend.serve(support.echo)
    t = tunnel("max_connections=2", support.ALONE)
    first, second = room.client(t), room.client(t)
    third = Task(room.client, t)
    support.wait_for(lambda: waits_to_be_accepted(t), "a full house")
    assert t.log().count(" accepted\n") == 2
    before = t.cpu_seconds()
    time.sleep(0.5)  # time to measure
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW
    assert third.running()
    first.reset()
    third = third.result()
    third.send(b"my turn")
    assert read_exactly(third, 7) == b"my turn"
    second.send(b"and mine")
    assert read_exactly(second, 8) == b"and mine"
    lines = t.log().splitlines()
    assert [i for i, x in enumerate(lines) if x.endswith(" accepted")][2] > \
        [i for i, x in enumerate(lines) if x.endswith(" client reset")][0]


def waits_to_be_accepted(t):
    """The accept queue of a listener is its rx_queue in /proc/net/tcp."""
    port = int(t.address.rsplit(":", 1)[1])
    with open("/proc/net/tcp") as f:
        for line in f:
            fields = line.split()
            if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
                return int(fields[4].split(":")[1], 16) > 0
    raise AssertionError("no such listener")


def test_many_come_and_go_past_it(room, backend, tunnel):
    backend.serve(support.echo)
    t = tunnel(f"max_connections={max(3, support.WORKERS)}")

    def visit():
        client = peers.Client(t.address, peers.context(room.certs))
        client.handshake()
        client.send(b"hello")
        data = read_exactly(client, 5)
        client.close()
        return data

    visits = [Task(visit) for _ in range(30)]
    for v in visits:
        assert v.result() == b"hello"


class Stubborn:
    """Commands that ignore SIGTERM."""

    WORDS = "sh", "-c", "trap '' TERM; echo ready; exec sleep 60"

    def __init__(self, t):
        self.t = t

    def kill(self):
        support.kill(self.t.commands())

    def close(self):
        if self.t.alive():
            self.kill()


def test_commands_that_stay_count(room):
    """Running commands count even after their clients have left."""
    t = room.tunnel("max_connections=5", "workers=1", "--", *Stubborn.WORDS)
    stubborn = room.keep(Stubborn(t))
    before = t.descriptors()
    for _ in range(60):
        client = room.client(t)
        client.recv()
        client.reset()
    t.wait_log("no backend|client reset|backend: ", count=60)
    assert 5 <= len(t.commands()) <= 5 + 2
    support.wait_for(lambda: t.descriptors() <= before + 5 + 2,
                     "descriptors to be closed")
    client = room.client(t)
    assert client.read_all() == (b"", "TLSV1_ALERT_INTERNAL_ERROR")
    client.close()
    t.wait_log(r" no backend: sh: 5 commands are running already "
               r"\(max_connections\)$")
    stubborn.kill()
    t.wait_log("command .* exited: signal 9", count=5)
    client = room.client(t)
    assert read_exactly(client, 6) == b"ready\n"


@pytest.fixture
def forking(room, echo):
    def start(*arguments):
        t = room.tunnel("mode=fork", f"connect={echo.address}", *arguments)
        workers(t, 0)  # besides the trial process, which ends
        return t

    return start


def test_of_all_workers(room, echo):
    t = room.tunnel(f"connect={echo.address}", "workers=4",
                    "max_connections=10")
    workers(t, 4)
    clients = [room.client(t) for _ in range(10)]
    assert all(is_echoed(client) for client in clients)
    waiting = Task(room.client, t)
    before = t.cpu_seconds()
    time.sleep(0.3)  # time to measure
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW
    assert waiting.running()
    assert t.log().count(" accepted\n") == 10
    clients[0].reset()
    assert is_echoed(waiting.result())


def test_mode_fork(room, forking):
    t = forking("max_connections=2")
    first, second = room.client(t), room.client(t)
    third = Task(room.client, t)
    before = t.cpu_seconds()
    time.sleep(0.3)  # time to measure
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW
    assert third.running()
    assert len(t.workers()) == 2
    first.reset()
    assert is_echoed(third.result())
    assert is_echoed(second)
    assert len(t.workers()) == 2


def test_fewer_connections_than_workers(certs):
    p = subprocess.run(
        [support.TUNNEL, "accept=127.0.0.1:0", "connect=1", "workers=4",
         f"cert={certs.server}", "max_connections=3"], capture_output=True,
        text=True, timeout=support.DEADLINE)
    assert p.returncode == 2
    assert p.stderr.startswith("tunnel: error: ")
    assert "max_connections" in p.stderr and "workers" in p.stderr
    assert p.stderr.count("\n") == 1
