"""Crowds: of one address, of clients that never say a word, or nonsense; and
what is left for the honest.  Descriptors, processes, memory that run out.
"""

import errno
import os
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import tempfile
import time

import pytest

import support
from support import WAYS, read_exactly, statistics, wait_until_alone

LATE = 1.0 * support.SLOW  # a timeout may be this much late
GARBAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
IPV6_FREEBIND = 78


@pytest.fixture(params=WAYS, ids=",".join)
def way(request):
    return request.param


@pytest.fixture
def start(room, backend, way):
    """A tunnel that goes that way, in front of an echo."""
    backend.serve(support.echo)
    return lambda *arguments, **keywords: room.tunnel(
        f"connect={backend.address}", *way, *arguments, **keywords)


def is_fork(way):
    return way == ["mode=fork"]


def come(room, address, source=None):
    """A client that has said nothing yet."""
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
    """Those of them that were closed.  (None of them is sent anything.)"""
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
    """An honest client, which stays."""
    return greet(room.client(come(room, address, source)))


def is_refused(room, address, source=None):
    with pytest.raises((ConnectionError, ssl.SSLError)):
        is_served(room, address, source)


# max_per_ip.

def test_max_per_ip_is_exact(room, start):
    """However many processes share the count."""
    t = start("max_per_ip=10")
    some = crowd(room, t.address, 40)
    support.wait_for(lambda: len(ended(some)) == 30, "30 to be refused")
    t.wait_log("127.0.0.1:[0-9]+ refused: its address has 10 connections "
               r"already \(max_per_ip\)$", count=30)
    for _ in range(10):
        is_served(room, t.address, "127.0.0.2")
    is_refused(room, t.address, "127.0.0.2")
    assert len(ended(some)) == 30
    numbers = statistics(t)
    assert numbers["over_max_per_ip"] == 31
    assert numbers["live"] == 20


def test_one_of_two_at_once(room, start):
    """One place: one of the two has it, whichever worker was first."""
    t = start("max_per_ip=1")
    pairs = [crowd(room, t.address, 2, f"127.0.1.{n}") for n in range(1, 101)]
    t.wait_log("(accepted|refused: .*)$", count=200)
    support.wait_for(lambda: all(ended(pair) for pair in pairs),
                     "one of each to be refused")
    assert [len(ended(pair)) for pair in pairs] == [1] * 100


def test_max_per_ip_is_off_by_default(room, start):
    t = start()
    for _ in range(30):
        is_served(room, t.address)
    assert statistics(t)["over_max_per_ip"] == 0


def test_places_come_back(room, start):
    """However the connection ended, and a refused one takes none."""
    t = start("max_per_ip=4")
    for _ in range(3):
        clients = [is_served(room, t.address) for _ in range(3)]
        silent = come(room, t.address)
        support.wait_for(lambda: statistics(t)["live"] == 4, "a full house")
        is_refused(room, t.address)
        clients[0].close_notify()
        assert clients[0].read_all() == (b"", "close_notify")
        clients[1].reset()
        silent.sendall(GARBAGE)
        for client in (*clients, silent):
            client.close()
        wait_until_alone(t)


def test_places_of_a_killed_process_come_back(room, start, way):
    """Its own, and no others."""
    t = start("max_per_ip=8")
    some = crowd(room, t.address, 8)
    support.wait_for(lambda: statistics(t)["live"] == 8, "all to be accepted")
    victim = max(t.workers(), key=number_of_descriptors)
    support.kill([victim])
    t.wait_log(f"worker {victim} was killed by signal 9|"
               f"{victim} .*signal 9", seconds=1 + LATE)
    lost = len(support.wait_for(lambda: ended(some), "its connections to end"))
    assert lost == 1 if is_fork(way) else lost > 0
    more = crowd(room, t.address, 20)
    support.wait_for(lambda: len(ended(more)) == 20 - lost, "as many places")
    is_refused(room, t.address)
    is_served(room, t.address, "127.0.0.2")
    assert len(ended(more)) == 20 - lost
    assert len(ended(some)) == lost


def number_of_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_max_per_ip_of_ipv4_at_a_listener_for_both(room, ipv6, start):
    """::ffff:127.0.0.1 and ::ffff:127.0.0.2 are in one /64, and two clients.
    """
    t = start("accept=0", "max_per_ip=1")
    port = t.address.rsplit(":", 1)[1]
    for source in ("127.0.0.1", "127.0.0.2"):
        is_served(room, f"{source}:{port}", source)
        is_refused(room, f"{source}:{port}", source)
    is_served(room, f"[::1]:{port}", "::1")


def test_max_per_ip_is_for_addresses(room, start):
    """Clients at a Unix socket have none."""
    t = start(f"accept=unix:{room.path('socket')}", "max_per_ip=1")
    for _ in range(3):
        is_served(room, t.address)


@pytest.fixture
def namespace():
    """A network of its own, which has these two /64, all of them."""
    with support.namespace() as ip:
        for network in ("2001:db8:0:1::/64", "2001:db8:0:2::/64"):
            support.run(ip, "-6", "route", "add", "local", network,
                        "dev", "lo")
        yield


def test_max_per_ip_is_for_a_64_of_ipv6(ipv6, namespace, room):
    """Its namespace comes before the room, all of which is in it."""
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "accept=[::]:0",
                    "workers=4", "max_per_ip=4")
    to = "[2001:db8:0:1::1]:" + t.address.rsplit(":", 1)[1]
    for n in range(2, 6):
        is_served(room, to, f"2001:db8:0:1:{n}::{n}")
    for n in (2, 6):
        is_refused(room, to, f"2001:db8:0:1:{n}::{n}")
    for n in range(4):
        is_served(room, to, f"2001:db8:0:2::{n:x}")
    is_refused(room, to, "2001:db8:0:2:ffff:ffff:ffff:ffff")


def test_max_per_ip_of_nat64(room, start):
    """RFC 6052: an IPv4 client, by whichever way it comes."""
    t = start("max_per_ip=1", "accept_proxy=yes")

    def come_from(source):
        sock = room.connect(t.address)
        sock.sendall(b"PROXY TCP6 %s 2001:db8::1 1000 443\r\n" % source)
        return sock

    greet(room.client(come_from(b"64:ff9b::192.0.2.1")))
    greet(room.client(come_from(b"64:ff9b::192.0.2.2")))
    for source in (b"64:ff9b::192.0.2.1", b"::ffff:192.0.2.1"):
        is_refused_as(room, come_from(source))
    t.wait_log(r"\[64:ff9b::c000:201\]:1000 refused: ")
    greet(room.client(come_from(b"64:ff9b::192.0.2.3")))


def is_refused_as(room, sock):
    with pytest.raises((ConnectionError, ssl.SSLError)):
        greet(room.client(sock))


# A flood.

@pytest.fixture
def many_descriptors():
    """For our own ends, and those of the tunnel."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    if old[1] != resource.RLIM_INFINITY and old[1] < 4096:
        pytest.skip(f"no more than {old[1]} descriptors")
    if old[0] != resource.RLIM_INFINITY and old[0] < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, old)


class Rude:
    """Clients that send garbage; they close once they were refused, or never
    do, and don't read either.
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
        """Each that was told."""
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
    """Clients that come and go, so many that some always wait."""

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
    """The other one has its turn, and so have signals."""
    t = start("accept=127.0.0.1:0", "accept=127.0.0.1:0", "log_level=notice",
              "drain_timeout=1s", "max_connections=20000")
    storm = room.keep(Storm(t.addresses[0]))
    began = time.monotonic()
    client = is_served(room, t.addresses[1])
    assert statistics(t)["accepted"] > 0
    client.close()
    t.signal(signal.SIGTERM)
    t.wait_log("stopping, connections may finish")
    assert time.monotonic() - began < 2 * support.SLOW
    assert t.wait() == 0
    assert storm.close() > 0


@pytest.mark.seconds(60)
@pytest.mark.parametrize("stay", [False, True], ids=["leave", "stay"])
def test_honest_clients_in_a_flood(room, many_descriptors, start, way, stay):
    """500 silent and 500 rude ones fill the house, by default."""
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
    """200 connections a second that never say a word, and never close."""

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
            except TimeoutError:  # the kernel's queue is full as well
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
    """However many fill the house and say nothing: whoever has not shown for a
    second that it wants anything gives way to whoever comes.
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
        time.sleep(0.05)  # the clients' pace
    assert sorted(took)[10] < 1 * support.SLOW, took
    t.wait_log(" handshake dropped: full$")
    numbers = statistics(t)
    assert numbers["dropped"] > 0
    assert numbers["live"] <= numbers["max_connections"] == 300
    greet(stays)
    silent.close()
    assert t.log().count("max_connections reached") == 1


def test_nobody_is_dropped_in_vain(room, start, way):
    """Full or not, nobody is as long as nobody else comes; nor is, ever, who
    has done its handshake.
    """
    t = start("max_connections=4", "handshake_timeout=10m")
    served = [is_served(room, t.address) for _ in range(2)]
    silent = crowd(room, t.address, 2)
    t.wait_log("warning: max_connections reached: 4;")
    time.sleep(1.5)  # longer than it takes to be one that gives way
    assert not ended(silent)
    served += [is_served(room, t.address) for _ in range(2)]
    assert len(ended(silent)) == 2
    waiting = support.Task(greet_when_let, room.keep(support.Client(
        t.address, support.context(room.certs))))
    spends_nothing(t, 1.5)
    assert waiting.running()
    for client in served:
        greet(client)
    served[0].close()
    waiting.result()
    assert statistics(t)["dropped"] == 2


# What a flood leaves in the log.

def counted(log, kind):
    """Lines of that kind, and how many more were counted; and their bytes."""
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
    """5 lines of a kind from an address in 10 s, and the number of others."""
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
    """Not only when the next one comes."""
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
    """Says its hello, by one byte at a time."""

    def __init__(self, room, address, hello):
        self.began = time.monotonic()
        self.sock = come(room, address)
        self.hello = hello
        self.took = None  # until it was cut

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
    """The first record of a client."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        support.context(room.certs).wrap_bio(
            ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def watch_until_cut(clients, seconds):
    """Each says a byte every 0.2 s, unless it has none."""
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
    """500 that say nothing, 100 that say it too slowly.  None keeps itself
    alive by what it says, none has to wait for the others.
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
    assert statistics(t)["silent"] == 500


# What runs out.

def spends_nothing(t, seconds=1):
    """Not even if it is refused something again and again."""
    before = t.cpu_seconds()
    time.sleep(seconds)  # a span to measure
    spent = t.cpu_seconds() - before
    assert spent <= 0.05 * seconds * support.SLOW, spent


def limit(pids, what, value):
    """From outside, and for as long as we like."""
    for pid in pids:
        hard = resource.prlimit(pid, what)[1]
        resource.prlimit(pid, what, (value, hard))


def accepting(t, way):
    """Those that do."""
    return [t.pid] if is_fork(way) else t.workers()


def waits_for_room(t, first):
    """Nobody is served until there is room again: then first is."""
    waiting = support.Task(greet_when_let, first)
    t.wait_log("accepting pauses: ")
    spends_nothing(t)
    assert waiting.running()
    return waiting


def greet_when_let(client):
    return greet(client.handshake())


def test_descriptors_return(room, start, way):
    """Not by our own doing: the limit is the only one to know."""
    t = start()
    stays = is_served(room, t.address)
    for pid in accepting(t, way):
        limit([pid], resource.RLIMIT_NOFILE, lowest_free(pid))
    client = room.keep(support.Client(
        t.address, support.context(room.certs)))
    waiting = waits_for_room(t, client)
    t.wait_log(f"accepting pauses: {support.NO_DESCRIPTORS}$")
    greet(stays)
    limit(accepting(t, way), resource.RLIMIT_NOFILE, 1000)
    waiting.result()
    pauses = t.log().count("accepting pauses")
    assert pauses <= len(accepting(t, way))
    is_served(room, t.address)


def lowest_free(pid):
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    return min(set(range(len(used) + 1)) - used)


def test_crowd_beyond_the_descriptors(room, start, way):
    """Those that there are are enough for some, and for others later."""
    t = start(preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (24, 24)))
    some = crowd(room, t.address, 150)
    t.wait_log(f"accepting pauses: {support.NO_DESCRIPTORS}$")
    spends_nothing(t)
    for sock in some:
        sock.close()
    is_served(room, t.address)


# Nobody's, and of no other run that goes on.
USER = 61000 + os.getpid() % 4000


@pytest.fixture
def as_user(room, backend):
    """A tunnel that never was root."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    directory = tempfile.mkdtemp(prefix="tunnel-user.")
    os.chmod(directory, 0o755)
    pem = shutil.copy(room.certs.server, directory)
    os.chown(pem, USER, USER)
    backend.serve(support.echo)

    def call(*arguments, **keywords):
        try:
            support.run(support.TUNNEL, "-V", user=USER)
        except PermissionError:
            pytest.skip("another user can't run the program where it is")
        return room.tunnel(f"connect={backend.address}", f"cert={pem}",
                           *arguments, user=USER, group=USER,
                           extra_groups=[], **keywords)

    yield call
    shutil.rmtree(directory)


@pytest.mark.skipif(support.SANITIZED, reason="LeakSanitizer needs a process "
                    "for each that ends")
def test_out_of_processes(room, as_user):
    """In fork mode: those who come wait, and are served in the end."""
    t = as_user("mode=fork", preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_NPROC, (4, 4)))
    clients = [greet(room.client(t)) for _ in range(3)]
    waiting = waits_for_room(t, room.keep(support.Client(
        t.address, support.context(room.certs))))
    assert len(t.workers()) == 3
    assert greet(clients[1])
    clients[0].close()
    waiting.result()


def test_max_connections_in_fork_mode(room, backend):
    """As many children, and no more."""
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "mode=fork",
                    "max_connections=2")
    first, second = room.client(t), room.client(t)
    waiting = support.Task(greet_when_let, room.keep(support.Client(
        t.address, support.context(room.certs))))
    spends_nothing(t, 0.5)
    assert waiting.running() and len(t.workers()) == 2
    first.reset()
    waiting.result()
    greet(second)


def test_max_connections_is_for_all_workers_together(room, backend):
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "workers=4",
                    "max_connections=6")
    clients = [is_served(room, t.address) for _ in range(6)]
    waiting = support.Task(greet_when_let, room.keep(support.Client(
        t.address, support.context(room.certs))))
    spends_nothing(t, 0.5)
    assert waiting.running() and statistics(t)["live"] == 6
    clients[3].reset()
    waiting.result()


@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                    reason="these need memory of their own")
def test_out_of_memory(room, start, way):
    """Who finds none is turned away; nobody dies of it, and when there is
    some again all is as it was.
    """
    if is_fork(way):
        pytest.skip("a child that finds none affects itself alone")
    t = start()
    stays = is_served(room, t.address)
    workers = t.workers()
    for pid in workers:
        limit([pid], resource.RLIMIT_AS, address_space(pid) + (1 << 18))
    some = crowd(room, t.address, 300)
    support.wait_for(lambda: ended(some) or "accepting pauses" in t.log(),
                     "memory to run out")
    spends_nothing(t)
    greet(stays)
    for sock in some:
        sock.close()
    limit(workers, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    is_served(room, t.address)
    assert t.workers() == workers


def address_space(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()
