"""The statistics line after SIGUSR1."""

import os
import re
import signal
import socket

import pytest

import support
from crowds import spread, workers
from support import is_echoed, read_all, statistics_and_live, wait_for


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


MODES = support.ARGS or ["workers=1", "workers=4", "mode=fork"]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def test_statistics(room, mode):
    """Different numbers for all kinds of connections; all counters are exact.
    """
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", mode, "log_level=debug")
    before = statistics_and_live(t)[0]
    assert before.pop("max_connections") == 1000
    assert set(before.values()) == {0}
    live = [room.client(t)]
    assert is_echoed(live[0])
    for n in (1, 2):
        client = room.client(t)
        assert is_echoed(client, b"x" * 1000 * n)
        client.close_notify()
        assert client.read_all() == (b"", "close_notify")
        client.close()
    for _ in range(3):
        sock = room.connect(t.address)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        read_all(sock)
        sock.close()
    for _ in range(4):
        room.connect(t.address).close()
    backend.close()
    for _ in range(5):
        client = room.client(t)
        client.read_all()
        client.close()
    t.wait_log(r"tunnel: (warning: )?[\d.:]+ -> .* \d+\.\d{3}s ",
               count=2 + 3 + 4 + 5)
    counters, lines = statistics_and_live(t)
    assert counters == {
        "live": 1, "max_connections": 1000, "accepted": 15, "served": 2,
        "resumed": 0, "refused": 3, "silent": 4, "dropped": 0,
        "no_backend": 5, "over_max_per_ip": 0, "lost": 0, "in": 3005,
        "out": 3005}
    host, port = live[0].sock.getsockname()
    assert re.fullmatch(
        rf"tunnel: live: {host}:{port} -> {backend.address} TLSv1\.3 .* "
        r"in=5 out=5 \d+\.\d{3}s flowing", lines[0])


def test_statistics_include_the_phase(room, mode):
    listener = room.backend(backlog=0)  # a SYN gets no answer once it is full
    t = room.tunnel(f"connect={listener.address}", mode,
                    "connect_timeout=60s", "drain_timeout=1s")

    def phases():
        return sorted(x.split()[-1] for x in statistics_and_live(t)[1])

    client = room.client(t)
    server = room.keep(listener.accept())
    wait_for(lambda: phases() == ["flowing"], "data to flow")
    client.close_notify()
    wait_for(lambda: phases() == ["half-closed"], "the first end")
    assert read_all(server) == (b"", "eof")
    for _ in range(4):
        s = room.keep(socket.socket())
        s.setblocking(False)
        s.connect_ex(listener.sock.getsockname())
    room.client(t)
    wait_for(lambda: phases() == ["dialing", "half-closed"], "the dialing")
    room.connect(t.address)
    t.wait_log(" accepted$", count=3)
    wait_for(lambda: phases() == ["dialing", "half-closed", "opening"],
             "the opening")


def test_statistics_of_killed_workers(room, backend):
    """The counters of a killed worker are kept."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    workers(t, 2)
    for n in range(1, 4):
        client = room.client(t)
        assert is_echoed(client)
        client.close_notify()
        client.read_all()
        client.close()
        t.wait_log(" closed$", count=n)
        victim = t.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in t.workers(), "the exit")
    workers(t, 2)
    counters, _ = statistics_and_live(t)
    assert (counters["accepted"], counters["served"]) == (3, 3)
    assert (counters["in"], counters["out"]) == (15, 15)


def test_statistics_of_killed_connections(room, backend):
    """They count as lost, no longer as live."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    workers(t, 2)
    c = spread(room, t, 20)
    victim = t.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: victim not in t.workers(), "the exit")
    counters = wait_for(
        lambda: (found := statistics_and_live(t)[0])["live"] < 20 and found,
        "its connections to be counted")
    assert counters["live"] == 20 - len(c.of[victim])
    assert counters["lost"] == len(c.of[victim])


def test_statistics_in_a_storm(room, backend, mode):
    """Many requests at once: each reply is complete."""
    t = room.tunnel(f"connect={backend.address}", mode)
    clients = [room.client(t) for _ in range(10)]
    for _ in range(50):
        t.signal(signal.SIGUSR1)
    assert all(is_echoed(client) for client in clients)
    counters, lines = statistics_and_live(t)
    assert counters["live"] == len(lines) == 10
