"""Keepalive: peers that disappear silently, and peers that are only slow."""

import contextlib
import os
import signal
import socket
import struct

import pytest

import support
from support import Task, wait_for

TIME = 6  # seconds, the minimum
CHUNK = bytes(1 << 16)


def options(sock):
    """SO_KEEPALIVE, the idle time, the number of probes, and their interval.
    """
    return (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in
              (socket.TCP_KEEPIDLE, socket.TCP_KEEPCNT,
               socket.TCP_KEEPINTVL)))


@pytest.fixture
def listener(room):
    return room.keep(socket.create_server(("127.0.0.1", 0)))


def passing(sock, fd):
    """Arguments for Popen that pass the socket as descriptor fd."""
    return {"preexec_fn": lambda: os.dup2(sock.fileno(), fd),
            "close_fds": False}


@pytest.mark.parametrize("value,idle,every", [
    (None, 150, 30), ("6s", 1, 1), ("19s", 14, 1), ("18h", 32400, 6480)])
def test_times_of_a_listener(room, backend, listener, value, idle, every):
    """Accepted sockets inherit the listener's times."""
    room.tunnel(f"connect={backend.address}", "accept=fd:9",
                *([f"keepalive={value}"] if value else []),
                **passing(listener, 9))
    assert options(listener) == (1, idle, 5, every)


def test_off(room, backend, listener):
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    room.tunnel(f"connect={backend.address}", "accept=fd:9", "keepalive=off",
                **passing(listener, 9))
    assert options(listener)[0] == 0


def test_times_change_at_a_reload(room, backend, listener):
    conf = room.write("tunnel.conf", "keepalive = 1h\n")
    t = room.tunnel(f"connect={backend.address}", "accept=fd:9",
                    f"cert={room.certs.server}", "-c", conf,
                    **passing(listener, 9))
    assert options(listener) == (1, 1800, 5, 360)
    room.write("tunnel.conf", "keepalive = 20s\n")
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    assert options(listener) == (1, 10, 5, 2)


def test_times_with_inetd(room, backend, listener):
    client = room.connect(support.tcp_address(listener))
    sock = room.keep(listener.accept()[0])
    room.tunnel("-i", f"connect={backend.address}", "keepalive=10s",
                ready=False, stdin=sock)
    room.client(client)
    assert options(sock) == (1, 5, 5, 1)


@pytest.mark.parametrize("value", ["5s", "19h", "300", "0s", "no"])
def test_limits(room, value):
    out = support.run(*support.command(
        "-t", "accept=0", "connect=1", f"cert={room.certs.server}",
        f"keepalive={value}"), status=2)
    assert b"(allowed: off, or a number with its unit s, m, h or d, 6s to " \
        b"64800s" in out


# The network fails: for idle connections, for those with data in transit, and
# for those with a receiver that had stopped reading.

def send_on(client):
    """Send until it fails."""
    with contextlib.suppress(OSError):
        while True:
            client.send(CHUNK)


class Network:
    """A network namespace for TCP; Unix sockets keep working."""

    def __init__(self, ip):
        self.ip = ip

    def cut(self):
        support.run(self.ip, "link", "set", "lo", "down")


@pytest.fixture
def network():
    with support.namespace() as ip:
        yield Network(ip)


def pairs(room, t, backend, n):
    for _ in range(n):
        client = room.client(t)
        client.send(b"hello")
        server = room.keep(backend.accept())
        assert support.read_exactly(server, 5) == b"hello"
        yield client, server


def dead(name, count):
    """Arguments to wait for log lines of that many timed-out connections."""
    return {"pattern": f" {name}: (Connection|Operation) timed out$",
            "count": count, "seconds": (3 * TIME + 10) * support.SLOW}


@pytest.mark.seconds(60)
def test_dead_client(room, network):
    path = room.path("backend")
    backend = room.backend(family=socket.AF_UNIX, to=path)
    t = room.tunnel(f"connect={backend.address}", f"keepalive={TIME}s")
    (idle, _), (_, busy), (_, full) = pairs(room, t, backend, 3)
    support.stuff(full, CHUNK * 256)  # the client never reads
    idle.send(b"hello")
    network.cut()
    busy.sendall(CHUNK)  # in transit while no one receives
    t.wait_log(**dead("client", 3))
    assert support.read_all(busy)[1] == "eof"  # a Unix socket


@pytest.mark.seconds(60)
def test_dead_backend(room, network):
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}", f"keepalive={TIME}s",
                    f"accept=unix:{room.path('accept')}")
    (idle, _), (busy, _), (full, server) = pairs(room, t, backend, 3)
    task = Task(send_on, full)
    support.wait_until_stalled(server)
    network.cut()
    busy.send(CHUNK)
    t.wait_log(**dead("backend", 3))
    assert idle.read_all() == (b"", "truncated")  # a Unix socket
    task.result()


# Slow peers.

def unacknowledged(sock):
    """The time without any acknowledgement by the peer, in milliseconds."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return struct.unpack_from("I", info, 56)[0]


@pytest.mark.seconds(60)
def test_paused_client_is_not_dead(room, backend, listener):
    """A paused download: the client's window is full, and it answers window
    probes, which get rarer with time.
    """
    client = room.connect(support.tcp_address(listener), rcvbuf=1 << 14)
    sock = room.keep(listener.accept()[0])
    t = room.tunnel("-i", f"connect={backend.address}", f"keepalive={TIME}s",
                    ready=False, stdin=sock)
    client = room.client(client)
    server = room.keep(backend.accept())
    sent = support.stuff(server, CHUNK * 512)
    assert sent < len(CHUNK) * 512
    wait_for(lambda: unacknowledged(sock) > (TIME + 1) * 1000, "a long pause",
             seconds=40 * support.SLOW)
    assert t.alive()
    server.close()
    data, end = client.read_all()
    assert (len(data), end) == (sent, "close_notify")
