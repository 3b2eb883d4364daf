"""client=yes: the limits of connected applications, and the effect of a server
that does not answer.
"""

import re
import time

import pytest

import support
from support import Task, read_all, read_exactly, statistics_and_live


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        "client=yes", f"connect={backend.address}", "server_name=localhost",
        f"ca={room.certs.ca}", *arguments)


@pytest.fixture
def come(room, backend):
    """Return both ends of one more connection."""

    def call(t):
        app = room.connect(t.address)
        return app, room.server(backend.accept()).handshake()

    return call


def passes(app, server):
    app.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"
    server.send(b"there")
    assert read_exactly(app, 5) == b"there"
    return True


def waits_to_be_accepted(t):
    """The accept queue of a listener is its rx_queue in /proc/net/tcp."""
    port = int(t.address.rsplit(":", 1)[1])
    with open("/proc/net/tcp") as f:
        return any(int(fields[4].split(":")[1], 16) > 0
                   for fields in map(str.split, f)
                   if fields[1] == f"0100007F:{port:04X}" and
                   fields[3] == "0A")


def test_accepting_pauses(room, backend, start, come):
    t = start("max_connections=2", support.ALONE)
    first, second = come(t), come(t)
    third = room.connect(t.address)
    support.wait_for(lambda: waits_to_be_accepted(t), "a full house")
    before = t.cpu_seconds()
    time.sleep(0.5)  # time to measure
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW
    assert t.log().count(" accepted\n") == 2
    t.wait_log("max_connections reached: 2; new connections wait$")
    support.reset(first[0])
    server = room.server(backend.accept()).handshake()
    assert passes(third, server) and passes(*second)


def test_handshakes_with_a_server_are_not_dropped(room, backend, start):
    """Even after the time after which a client's would be dropped: a new one
    would wait as long.
    """
    t = start("max_connections=2", support.ALONE, "handshake_timeout=60s")
    pairs = [(room.connect(t.address), room.server(backend.accept()))
             for _ in range(2)]
    last = room.connect(t.address)
    support.wait_for(lambda: waits_to_be_accepted(t), "a full house")
    time.sleep(1.5)  # more than FORWARD_DROP_MS
    for app, server in pairs:
        server.handshake()
        assert passes(app, server)
    assert statistics_and_live(t)[0]["dropped"] == 0
    support.reset(pairs[0][0])
    assert passes(last, room.server(backend.accept()).handshake())


def test_header_that_does_not_come_is_dropped(room, backend, start):
    """With accept_proxy the tunnel waits for a header from an unverified
    application: the oldest connection is dropped for a new one.
    """
    t = start("max_connections=2", support.ALONE, "accept_proxy=yes",
              "handshake_timeout=60s")
    idle = [room.connect(t.address) for _ in range(2)]
    support.wait_for(lambda: t.log().count(" accepted\n") == 2 or
                     len(t.workers()) == 2, "them")
    app = room.connect(t.address)
    app.sendall(b"PROXY UNKNOWN\r\n")
    assert passes(app, room.server(backend.accept()).handshake())
    assert read_all(idle[0]) == (b"", "reset")
    t.wait_log("handshake dropped: full$")


@pytest.mark.parametrize("mode", ["workers=1", "workers=4", "mode=fork"])
def test_max_per_ip(room, backend, start, come, mode):
    """A refused application gets a reset, and no server is dialled."""
    t = start(mode, "max_per_ip=2")
    first, second = come(t), come(t)
    for _ in range(3):
        try:
            assert read_all(room.connect(t.address)) == (b"", "reset")
        except ConnectionResetError:  # possibly during connect(2)
            pass
    t.wait_log(r"refused: its address already has 2 connections "
               r"\(max_per_ip\)$")
    backend.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        backend.accept()
    backend.sock.settimeout(support.DEADLINE)
    support.reset(first[0])
    t.wait_log(" client reset$")
    support.wait_for(lambda: statistics_and_live(t)[0]["live"] == 1, "its end")
    assert passes(*come(t)) and passes(*second)


@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_crowd_comes_and_goes(room, backend, start, mode):
    """More applications than the limit, and a server that fails every third
    one.
    """
    t = start(mode, "max_connections=8")
    backend.serve(serve_some(room))

    def visit():
        try:
            with support.connect(t.address) as app:
                app.sendall(b"hello")
                return read_all(app)
        except (ConnectionResetError, BrokenPipeError):
            return b"", "reset"

    visits = [Task(visit) for _ in range(48)]
    results = [v.result() for v in visits]
    assert set(results) <= {(b"hello", "eof"), (b"", "reset")}
    assert results.count((b"hello", "eof")) >= 24
    support.wait_until_alone(t)
    assert re.search("no backend: .*: server closed", t.log())


def serve_some(room):
    turn = iter(range(1000))

    def serve(sock):
        support.wait_for(lambda: support.unread(sock) > 0, "a hello")
        if next(turn) % 3 == 0:
            sock.recv(1 << 16)
            return
        sock.settimeout(support.DEADLINE)
        server = room.server(sock).handshake()
        server.send(read_exactly(server, 5))
        server.close_notify()
        server.fin()
        try:
            server.read_all()
        except OSError:
            pass

    return serve
