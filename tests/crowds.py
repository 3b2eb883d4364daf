"""Many clients at once, and the worker that serves each of them."""

import select
import socket
import time

import support
from support import is_echoed, read_exactly, wait_for

GARBAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
IPV6_FREEBIND = 78


def is_fork(way):
    return way == ["mode=fork"]


def come(room, address, source=None):
    """A connected socket that has sent nothing."""
    if source is None:
        return room.connect(address)
    host, port = address.rsplit(":", 1)
    sock = room.keep(socket.socket(
        socket.AF_INET6 if ":" in source else socket.AF_INET))
    sock.settimeout(support.DEADLINE)
    if ":" in source:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    sock.bind((source, 0))
    sock.connect((host.strip("[]"), int(port)))
    return sock


def crowd(room, address, count, source=None):
    return [come(room, address, source) for _ in range(count)]


def ended(socks):
    """The sockets closed by the peer. (Nothing is sent to any of them.)"""
    poll = select.poll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(0)]


def greet(client):
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    return client


def is_served(room, address, source=None):
    """An honest client is served, and stays connected."""
    return greet(room.client(come(room, address, source)))


def uses_no_cpu(t, seconds=1):
    """The tunnel uses no CPU time while idle, even if accept(2) keeps failing.
    """
    before = t.cpu_seconds()
    time.sleep(seconds)  # measuring interval
    spent = t.cpu_seconds() - before
    assert spent <= 0.05 * seconds * support.SLOW, spent


def greet_when_let(client):
    return greet(client.handshake())


def workers(t, number):
    """Wait for that number of workers."""
    wait_for(lambda: len(t.workers()) == number, f"{number} workers",
             support.SLOW)
    return t.workers()


def count(pid):
    return len(support.sockets(pid))


def idle(t):
    """Wait until all workers have started, and each holds two sockets: the
    listener and its control channel.
    """
    wait_for(lambda: all(count(pid) == 2 for pid in t.workers()),
             "the workers to start")


class Spread:
    """Clients, grouped by the worker that serves them."""

    def __init__(self, room, t, number):
        idle(t)
        self.of = {pid: [] for pid in t.workers()}
        before = {pid: count(pid) for pid in self.of}
        for _ in range(number):
            client = room.client(t)
            assert is_echoed(client)
            after = {pid: count(pid) for pid in self.of}
            pid, = (pid for pid in self.of if after[pid] > before[pid])
            self.of[pid].append(client)
            before = after

    def others(self, pid):
        return [c for p, clients in self.of.items() if p != pid
                for c in clients]


def spread(room, t, number):
    """Open connections until each worker serves at least one client."""
    c = Spread(room, t, number)
    assert all(c.of.values()), "a worker serves no client"
    return c
