"""Timeouts and limits; idle connections use no CPU time."""

import socket
import ssl
import time

import pytest

import peers
import support
from support import Task, read_all, read_exactly

connects = support.direct("it is another tunnel that connects")
from transfers import Dribble

LATE = 1.0 * support.SLOW  # tolerance for lateness


class Elapsed:
    """Checks that a block takes these seconds, or slightly more."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, kind, *_):
        if kind is None:
            took = time.monotonic() - self.start
            assert self.seconds - 0.1 < took < self.seconds + LATE


# Timeouts.

def test_idle_timeout(room, backend, tunnel, version):
    t = tunnel("idle_timeout=1s")
    client = room.client(t, version)
    server = room.keep(backend.accept())
    with Elapsed(1):
        assert client.read_all() == (b"", "reset")
    assert read_all(server) == (b"", "reset")


def test_idle_timeout_restarts_at_every_byte(room, backend, tunnel):
    """In either direction, for longer than one timeout in total."""
    t = tunnel("idle_timeout=2s")
    client = room.client(t)
    server = room.keep(backend.accept())
    for way in ("up", "up", "down", "down"):
        time.sleep(0.7)  # shorter than the timeout: pacing, not a wait
        if way == "up":
            client.send(b"x")
            assert read_exactly(server, 1) == b"x"
        else:
            server.sendall(b"x")
            assert read_exactly(client, 1) == b"x"
    with Elapsed(2):
        assert client.read_all() == (b"", "reset")


def test_idle_timeout_of_a_client_that_does_not_read(room, backend, tunnel):
    """Stalled bytes do not restart the timeout."""
    t = tunnel("idle_timeout=1s")
    client = room.client(t, rcvbuf=65536)
    server = room.keep(backend.accept())
    pouring = Task(server.sendall, bytes(64 << 20))
    support.wait_until_stalled(client.sock)
    t.wait_log(" idle timeout$", seconds=1 + LATE)
    with pytest.raises(ConnectionResetError):
        pouring.result()


def test_handshake_timeout_of_a_silent_client(room, tunnel):
    t = tunnel("handshake_timeout=1s")
    sock = room.connect(t.address)
    with Elapsed(1):
        assert read_all(sock) == (b"", "eof")
    t.wait_log(r" handshake timeout: the client sent nothing \(this port "
               r"expects TLS at once; the client may be waiting for a "
               r"greeting\)$")


def test_handshake_timeout_of_a_slow_client(room, tunnel):
    """Single bytes do not restart the timeout."""
    t = tunnel("handshake_timeout=1s")
    client = room.keep(peers.Client(
        t.address, peers.context(room.certs)))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client.outgoing.read()
    start = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for i in range(len(hello)):
            client.sock.sendall(hello[i:i + 1])
            time.sleep(0.05)  # pacing of the client
    assert time.monotonic() - start < 1 + LATE
    t.wait_log(" handshake timeout$")


def test_slow_client_in_time(room, backend, tunnel, version):
    """One-byte segments: every record is reassembled."""
    t = tunnel()
    client = room.keep(peers.Client(
        t.address, peers.context(room.certs, version)))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sock = Dribble(client.sock)
    client.handshake()
    server = room.keep(backend.accept())
    client.send(b"hello")
    assert read_exactly(server, 5) == b"hello"


@pytest.fixture
def full(room):
    """The address of a listener with a full queue: a SYN gets no answer."""
    listener = room.backend(backlog=0)
    for _ in range(4):
        s = room.keep(socket.socket())
        s.setblocking(False)
        s.connect_ex(listener.sock.getsockname())
    return listener.address


@connects
def test_connect_timeout(room, full):
    t = room.tunnel(f"connect={full}", "connect_timeout=1s")
    client = room.client(t)
    with Elapsed(1):
        assert client.read_all() == (b"", "TLSV1_ALERT_INTERNAL_ERROR")
    client.close()
    t.wait_log(f" no backend: {full}: connect timeout$")


@connects
def test_connect_to_a_unix_socket_with_a_full_backlog(room):
    """connect(2) reports only "temporarily unavailable" for it."""
    path = room.path("full")
    listener = room.backend(family=socket.AF_UNIX, to=path, backlog=0)
    with pytest.raises(BlockingIOError):
        for _ in range(10):
            s = room.keep(socket.socket(socket.AF_UNIX))
            s.setblocking(False)
            s.connect(path)
    t = room.tunnel(f"connect={listener.address}", "connect_timeout=1s")
    client = room.client(t)
    assert client.read_all() == (b"", "TLSV1_ALERT_INTERNAL_ERROR")
    client.close()
    t.wait_log(f" no backend: {listener.address}: .*listen queue full")


@connects
def test_connect_timeout_is_for_each_address(room, backend, full):
    t = room.tunnel(f"connect={full}", f"connect={backend.address}",
                    "connect_timeout=1s")
    client = room.client(t)
    with Elapsed(1):
        server = room.keep(backend.accept())
    client.send(b"hello")
    assert read_exactly(server, 5) == b"hello"


def test_client_that_leaves_while_the_backend_is_dialed(room, full):
    t = room.tunnel(f"connect={full}", "connect_timeout=60s")
    client = room.client(t)
    client.reset()
    t.wait_log(" client reset$")


def test_half_close_timeout_after_the_client(room, backend, tunnel, version):
    """The tunnel does not wait forever for the backend's end."""
    t = tunnel("half_close_timeout=1s")
    client = room.client(t, version)
    server = room.keep(backend.accept())
    client.close_notify()
    with Elapsed(1):
        assert read_all(server) == (b"", "eof")
        assert client.read_all() == (b"", "reset")
    t.wait_log(" half-close timeout$")
    with pytest.raises(OSError):
        for _ in range(3):
            server.sendall(b"x")
            time.sleep(0.01)  # for the answer to return


def test_half_close_timeout_after_the_backend(room, backend, tunnel):
    """A client that never closes has received the whole reply."""
    t = tunnel("half_close_timeout=1s")
    client = room.client(t)
    server = room.keep(backend.accept())
    server.sendall(b"reply")
    server.close()
    with Elapsed(1):
        assert client.read_all() == (b"reply", "close_notify")
        t.wait_log(" half-close timeout$")


def test_half_close_timeout_restarts_at_every_byte(room, backend,
                                                   tunnel):
    t = tunnel("half_close_timeout=3s")
    client = room.client(t)
    server = room.keep(backend.accept())
    client.close_notify()
    assert read_all(server) == (b"", "eof")
    for _ in range(4):
        time.sleep(1)  # pacing of the backend
        server.sendall(b"x")
    server.close()
    assert client.read_all() == (b"xxxx", "close_notify")


def test_idle_timeout_off(room, backend, tunnel):
    """Off is the default: idle connections stay open."""
    t = tunnel("half_close_timeout=1s")
    client = room.client(t)
    server = room.keep(backend.accept())
    time.sleep(1.5)  # longer than any timeout in this file
    client.send(b"still there")
    assert read_exactly(server, 11) == b"still there"


# Idle connections.

def test_idle_connection_uses_no_cpu_time(room, backend, tunnel):
    t = tunnel()
    client = room.client(t)
    server = room.keep(backend.accept())
    client.send(b"hello")
    assert read_exactly(server, 5) == b"hello"
    before = t.cpu_seconds()
    time.sleep(1)  # measuring interval
    assert t.cpu_seconds() - before <= 0.01


@pytest.mark.parametrize("end", ["client", "backend", "stuck"])
def test_waiting_connection_uses_no_cpu_time(room, backend, tunnel, end):
    """One side has ended, or does not read: the tunnel stays idle."""
    t = tunnel()
    client = room.client(t, rcvbuf=65536)
    server = room.keep(backend.accept())
    if end == "client":
        client.close_notify()
        client.fin()
        assert read_all(server) == (b"", "eof")
    elif end == "backend":
        server.shutdown(socket.SHUT_WR)
        assert client.read_all() == (b"", "close_notify")
    else:
        pouring = Task(server.sendall, bytes(64 << 20))
        support.wait_until_stalled(client.sock)
        assert pouring.running()
    before = t.cpu_seconds()
    time.sleep(0.5)  # measuring interval
    assert t.cpu_seconds() - before <= 0.01
    client.reset()
