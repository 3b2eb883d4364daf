"""Crowds of clients that send nothing or garbage: normal clients are served,
and the log stays short.
"""

import errno
import re
import resource
import select
import signal
import socket
import ssl
import time

import pytest

import peers
import support
from crowds import (GARBAGE, come, crowd, ended, greet, greet_when_let,
                    is_fork, is_served, uses_no_cpu)
from support import WAYS, statistics, wait_until_alone

LATE = 1.0 * support.SLOW  # tolerance for timeouts


@pytest.fixture
def many_descriptors():
    """Raise the limit of descriptors, for the test and the tunnel."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    if old[1] != resource.RLIM_INFINITY and old[1] < 4096:
        pytest.skip(f"no more than {old[1]} descriptors")
    if old[0] != resource.RLIM_INFINITY and old[0] < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


class Rude:
    """Clients that send garbage; they close after the refusal, or never read
    nor close.
    """

    def __init__(self, room, address, stay):
        self.room, self.address, self.stay = room, address, stay
        self.socks = {}
        self.poll = select.poll()
        self.over = False
        self.task = support.Task(self.leave)

    def come(self):
        sock = support.connect(self.address)
        sock.sendall(GARBAGE)
        if self.stay:
            self.room.keep(sock)
        else:
            sock.setblocking(False)
            self.socks[sock.fileno()] = sock
            self.poll.register(sock, select.POLLIN)

    def leave(self):
        """Close each client that got an answer."""
        while not self.over:
            for fd, _ in self.poll.poll(10):
                try:
                    if self.socks[fd].recv(1 << 10):
                        continue
                except ConnectionResetError:
                    pass
                self.poll.unregister(fd)
                self.socks.pop(fd).close()

    def close(self):
        self.over = True
        self.task.result()
        for sock in self.socks.values():
            sock.close()


class Storm:
    """Clients that connect and leave, so many that some always wait."""

    def __init__(self, address, threads=2):
        host, port = address.rsplit(":", 1)
        self.to = host, int(port)
        self.over = False
        self.tasks = [support.Task(self.blow) for _ in range(threads)]

    def blow(self):
        count = 0
        while not self.over:
            socks = [socket.socket() for _ in range(400)]
            for sock in socks:
                sock.setblocking(False)
                count += sock.connect_ex(self.to) in (0, errno.EINPROGRESS)
            for sock in socks:
                sock.close()
        return count

    def close(self):
        self.over = True
        return sum(task.result() for task in self.tasks)


def test_storm_on_one_of_two_listeners(room, start):
    """The other listener and signals are still handled."""
    t = start("accept=127.0.0.1:0", "accept=127.0.0.1:0", "log_level=notice",
              "drain_timeout=1s", "max_connections=20000")
    storm = room.keep(Storm(t.addresses[0]))
    began = time.monotonic()
    client = is_served(room, t.addresses[1])
    assert statistics(t)["accepted"] > 0
    client.close()
    t.signal(signal.SIGTERM)
    t.wait_log("shutting down: draining connections")
    assert time.monotonic() - began < 2 * support.SLOW
    assert t.wait() == 0
    assert storm.close() > 0


@pytest.mark.seconds(60)
@pytest.mark.parametrize("stay", [False, True], ids=["leave", "stay"])
def test_honest_clients_in_a_flood(room, many_descriptors, start, way, stay):
    """500 silent and 500 rude clients reach the default limit."""
    if is_fork(way) and support.SANITIZED:
        pytest.skip("a thousand processes with a sanitizer in each")
    t = start()
    rude = room.keep(Rude(room, t.address, stay))
    silent = []
    for _ in range(500):
        silent.append(come(room, t.address))
        rude.come()
    for _ in range(5):
        began = time.monotonic()
        is_served(room, t.address)
        assert time.monotonic() - began < 3 * support.SLOW
    assert not ended(silent)
    assert statistics(t)["live"] <= 1000
    t.wait_log("not TLS but HTTP: ", count=500)
    assert not ended(silent)


HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"


class Silent:
    """200 connections a second that never send and never close."""

    def __init__(self, address):
        self.address = address
        self.socks = []
        self.over = False
        self.task = support.Task(self.come)

    def come(self):
        began = time.monotonic()
        while not self.over and len(self.socks) < 3000:
            try:
                self.socks.append(support.connect(self.address))
            except TimeoutError:  # the kernel's queue is full, too
                continue
            time.sleep(max(0, began + len(self.socks) / 200 -
                           time.monotonic()))

    def close(self):
        self.over = True
        self.task.result()
        for sock in self.socks:
            sock.close()


def time_to_serve(room, t, before_tls):
    began = time.monotonic()
    sock = room.connect(t.address)
    sock.sendall(before_tls)
    client = greet(room.client(sock))
    took = time.monotonic() - began
    client.close()
    return took


@pytest.mark.seconds(60)
@pytest.mark.parametrize("header", [b"", HEADER], ids=["tls", "proxy"])
def test_silent_flood(room, many_descriptors, start, way, header):
    """At the limit, a client that has sent nothing for a second is dropped for
    a new connection.
    """
    if is_fork(way) and support.SANITIZED:
        pytest.skip("hundreds of processes with a sanitizer in each")
    t = start("max_connections=300", "handshake_timeout=10m",
              f"accept_proxy={'yes' if header else 'no'}")
    first = room.connect(t.address)
    first.sendall(header)
    stays = greet(room.client(first))
    silent = room.keep(Silent(t.address))
    t.wait_log("warning: max_connections reached: 300")
    took = []
    for _ in range(20):
        took.append(time_to_serve(room, t, header))
        time.sleep(0.05)  # between clients
    assert sorted(took)[10] < 1 * support.SLOW, took
    t.wait_log(" handshake dropped: full$")
    numbers = statistics(t)
    assert numbers["dropped"] > 0
    assert numbers["live"] <= numbers["max_connections"] == 300
    greet(stays)
    silent.close()
    assert t.log().count("max_connections reached") == 1


def test_no_needless_drops(room, start, way):
    """Without new connections no client is dropped, at the limit or not; a
    client after its handshake is never dropped.
    """
    t = start("max_connections=4", "handshake_timeout=10m")
    served = [is_served(room, t.address) for _ in range(2)]
    silent = crowd(room, t.address, 2)
    t.wait_log("warning: max_connections reached: 4;")
    time.sleep(1.5)  # longer than the time after which clients may be dropped
    assert not ended(silent)
    served += [is_served(room, t.address) for _ in range(2)]
    assert len(ended(silent)) == 2
    waiting = support.Task(greet_when_let, room.keep(peers.Client(
        t.address, peers.context(room.certs))))
    uses_no_cpu(t, 1.5)
    assert waiting.running()
    for client in served:
        greet(client)
    served[0].close()
    waiting.result()
    assert statistics(t)["dropped"] == 2


# The log of a flood.

def counted(log, kind):
    """Return the log lines of a kind, the number of suppressed ones, and their
    bytes.
    """
    lines = [line for line in log.splitlines() if kind in line]
    more = [int(re.search(r": and (\d+) more in \d+ s", line)[1])
            for line in lines if " more in " in line]
    return len(lines) - len(more), sum(more), sum(map(len, lines))


def talk_nonsense(t, count, source="127.0.0.1"):
    for _ in range(count):
        sock = socket.create_connection(
            ("127.0.0.1", int(t.address.rsplit(":", 1)[1])), support.DEADLINE,
            (source, 0))
        sock.sendall(GARBAGE)
        support.read_all(sock)
        sock.close()


def test_log_of_failed_handshakes_is_bounded(room, start):
    """The log has 5 lines of a kind from an address in 10 s, and the number of
    others.
    """
    t = start("log_level=info")
    began = time.monotonic()
    talk_nonsense(t, 300)
    for _ in range(7):
        client = is_served(room, t.address)
        client.reset()
        client.close()
    talk_nonsense(t, 3, "127.0.0.2")
    t.wait_log(r"127\.0\.0\.2:\d+ -> .* not TLS but HTTP: ",
               count=3)
    t.wait_log(r" client reset$", count=7)
    wait_until_alone(t)
    assert t.stop() == 0
    periods = 1 + (time.monotonic() - began) // 10
    lines, more, size = counted(t.log(), "not TLS")
    assert lines + more == 303
    assert 5 + 3 <= lines <= 3 + 5 * periods
    assert size < 4096 * periods
    assert re.search(r"tunnel: 127\.0\.0\.1: and \d+ more in \d+ s: "
                     r'not TLS but HTTP: .* "GET', t.log())


def test_log_of_max_per_ip_is_bounded(room, start):
    t = start("log_level=info", "max_per_ip=1")
    began = time.monotonic()
    stays = is_served(room, t.address)
    some = crowd(room, t.address, 200)
    support.wait_for(lambda: len(ended(some)) == 200, "all to be refused")
    greet(stays)
    assert statistics(t)["over_max_per_ip"] == 200
    assert t.stop() == 0
    periods = 1 + (time.monotonic() - began) // 10
    lines, more, size = counted(t.log(), "max_per_ip")
    lines -= t.log().count("over_max_per_ip=")
    assert lines + more == 200
    assert 5 <= lines <= 5 * periods
    assert size < 4096 * periods


def test_repeated_lines_are_told_in_time(room, backend):
    """The number is logged in time, without waiting for the next such line."""
    backend.serve(support.echo)
    ways = [room.tunnel(f"connect={backend.address}", "log_level=info", *way)
            for way in WAYS]
    for t in ways:
        talk_nonsense(t, 20)
    for t in ways:
        t.wait_log(r"127\.0\.0\.1: and 15 more in \d+ s: not TLS but HTTP: ",
                   seconds=10 + LATE + support.DEADLINE)
        assert counted(t.log(), "not TLS")[:2] == (5, 15)


def test_all_lines_at_log_level_debug(room, start):
    t = start("log_level=debug")
    talk_nonsense(t, 20)
    t.wait_log("not TLS but HTTP: ", count=20)
    assert " more in " not in t.log()


class Slow:
    """A client that sends its hello byte by byte."""

    def __init__(self, room, address, hello):
        self.began = time.monotonic()
        self.sock = come(room, address)
        self.hello = hello
        self.took = None  # until it was disconnected

    def say(self):
        try:
            self.sock.sendall(self.hello[:1])
            self.hello = self.hello[1:]
        except OSError:
            self.cut()

    def cut(self):
        if self.took is None:
            self.took = time.monotonic() - self.began


def hello(room):
    """Return the first record of a client."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        peers.context(room.certs).wrap_bio(
            ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def watch_until_cut(clients, seconds):
    """Send a byte every 0.2 s on each, until all are disconnected."""
    end = time.monotonic() + seconds
    poll = select.poll()
    for client in clients:
        poll.register(client.sock, select.POLLIN)
    by_fd = {client.sock.fileno(): client for client in clients}
    turn = time.monotonic()
    while by_fd and time.monotonic() < end:
        wait = max(turn - time.monotonic(), 0)
        for fd, _ in poll.poll(wait * 1000 + 1):
            poll.unregister(fd)
            by_fd.pop(fd).cut()
        if time.monotonic() >= turn:
            turn += 0.2
            for client in by_fd.values():
                client.say()


@pytest.mark.seconds(60)
def test_crowd_of_silent_and_slow_is_cut(room, many_descriptors, start, way):
    """500 silent clients, and 100 slow ones.  Sending bytes extends no
    timeout, and no client waits for the others.
    """
    t = start("handshake_timeout=2s")
    first = hello(room)
    clients = [Slow(room, t.address, first if n % 6 == 0 else b"")
               for n in range(600)]
    late = 3 * LATE if is_fork(way) else LATE  # 600 processes
    watch_until_cut(clients, 2 + late + support.DEADLINE)
    took = [client.took for client in clients]
    assert None not in took
    assert min(took) > 2 - 0.1
    assert max(took) < 2 + late
    assert sum(len(client.hello) > 0 for client in clients) == 100
    t.wait_log(" handshake timeout(: the client sent nothing .*)?$", count=600)
    is_served(room, t.address)
    # A process that starts late may miss the first bytes.
    counted = statistics(t)
    assert counted["silent"] + counted["refused"] == 600
    assert counted["silent"] == 500 or is_fork(way)
