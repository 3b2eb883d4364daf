"""Many connections leave nothing behind."""

import os
import ssl

import pytest

import peers
import support
from crowds import GARBAGE
from support import (Task, by_default, memory, statistics, wait_for,
                     wait_until_alone)


class Visitors:
    """Clients of all kinds, one at a time; each kind ends differently."""

    def __init__(self, certs, address):
        self.address = address
        self.contexts = [peers.context(certs, version)
                         for version in ("1.2", "1.3")]
        out = ssl.MemoryBIO()
        try:
            self.contexts[1].wrap_bio(
                ssl.MemoryBIO(), out, server_hostname="localhost"
            ).do_handshake()
        except ssl.SSLWantReadError:
            self.hello = out.read()
        self.made, self.served = [], []
        self.kinds = [self.proper, self.silent, self.reset, self.garbage,
                      self.proper, self.half, self.aborted, self.silent]

    def connect(self):
        self.made.append(1)
        return support.connect(self.address)

    def tls(self, n):
        sock = self.contexts[n % 2].wrap_socket(
            self.connect(), server_hostname="localhost")
        sock.sendall(b"hello")
        data = sock.recv(5)
        assert data == b"hello"
        self.served.append(1)
        return sock

    def proper(self, n):
        sock = self.tls(n)
        sock.unwrap().close()

    def reset(self, n):
        support.reset(self.tls(n))

    def silent(self, n):
        self.connect().close()

    def garbage(self, n):
        with self.connect() as sock:
            sock.sendall(GARBAGE)
            support.read_all(sock)

    def half(self, n):
        """Half of a ClientHello, then the end."""
        with self.connect() as sock:
            sock.sendall(self.hello[:100])

    def aborted(self, n):
        """A reset during the handshake."""
        sock = self.connect()
        sock.sendall(self.hello)
        assert sock.recv(1)
        support.reset(sock)

    def visit(self, count):
        for n in range(count):
            self.kinds[n % len(self.kinds)](n // len(self.kinds))

    def come(self, count, at_once):
        tasks = [Task(self.visit, count // at_once) for _ in range(at_once)]
        for task in tasks:
            task.result(80 * support.SLOW)

    def wait_until_over(self, t):
        """The last clients may not even have been accepted yet."""
        def is_over():
            n = statistics(t)
            return n["live"] == 0 and n["accepted"] == len(self.made) and \
                not (t.forks and t.workers())
        wait_for(is_over, "all connections to end")


@pytest.fixture
def start(room, backend):
    backend.serve(support.echo)
    arguments = [f"connect={backend.address}", "log_level=notice"]
    if os.geteuid() != 0:
        arguments.append("sandbox=no")  # the test inspects the processes
    return lambda *more: room.tunnel(*arguments, *more)


def churn(t, visitors, first, then):
    """What remains after all connections equals what remained after the first.
    """
    visitors.come(first, at_once=20)  # more at once than later
    visitors.wait_until_over(t)
    kb, descriptors = memory(t), t.descriptors()
    visitors.come(then, at_once=4)
    visitors.wait_until_over(t)
    assert t.descriptors() == descriptors
    assert memory(t) <= 1.05 * kb
    assert len(visitors.made) == first + then
    numbers = statistics(t)
    assert numbers["accepted"] == len(visitors.made)
    assert numbers["served"] == len(visitors.served)


@by_default
@pytest.mark.seconds(90)
def test_10000_connections_leave_nothing(room, start):
    t = start("workers=2")
    workers = t.workers()
    churn(t, Visitors(room.certs, t.address), 800, 10000)
    assert t.workers() == workers


@by_default
@pytest.mark.seconds(60)
def test_1000_children_leave_nothing(room, start):
    t = start("mode=fork")
    churn(t, Visitors(room.certs, t.address), 80, 1000)
    assert all_children(t) == []


@by_default
@pytest.mark.seconds(60)
def test_memory_of_a_burst_is_released(room, start):
    """500 connections at once, then none; and the memory of an idle one."""
    t = start("workers=1")
    visitors = Visitors(room.certs, t.address)
    visitors.come(8, at_once=1)
    wait_until_alone(t)
    kb = memory(t)
    clients = [visitors.tls(1) for _ in range(500)]
    assert memory(t) - kb <= 5 * len(clients)
    for client in clients:
        client.close()
    wait_until_alone(t)
    assert memory(t) - kb <= 2048


def all_children(t):
    """Includes zombies."""
    with open(f"/proc/{t.pid}/task/{t.pid}/children") as f:
        return f.read().split()


def test_descriptors_are_not_leaked(room, backend):
    backend.serve(support.echo)
    refusing = support.closed_port()
    t = room.tunnel(f"connect={backend.address}")
    lost = room.tunnel(f"connect={refusing}")

    def descriptors():
        return t.descriptors() + lost.descriptors()

    if support.MODE == "fork":  # the trial process ends
        support.wait_for(lambda: not t.workers() + lost.workers(), "the exit")
    before = descriptors()
    for n in range(20):
        client = room.client(t)
        if n % 2:
            client.close_notify()
            client.read_all()
        client.close()
        room.client(lost).close()
        support.reset(support.connect(t.address))
    support.wait_for(lambda: descriptors() == before,
                     "all descriptors to be closed")
