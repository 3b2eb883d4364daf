"""Processes of one master share no random numbers: server values in the clear
never repeat.
"""

import os
import signal
import socket
from collections import namedtuple

import pytest

import peers
import support
from wire import RETRY, message, messages, record

MANY = 16


# The unencrypted part of a server's flight.

class Recording:
    """A socket that keeps all received bytes."""

    def __init__(self, sock):
        self.sock = sock
        self.data = bytearray()

    def recv(self, size):
        data = self.sock.recv(size)
        self.data += data
        return data

    def __getattr__(self, name):
        return getattr(self.sock, name)


Hello = namedtuple("Hello", "version random session share")


def server_hello(body):
    """RFC 5246, 7.4.1.3, and RFC 8446, 4.1.3."""
    version, share = body.number(2), None
    random = body.take(32)
    session = body.vector(1).rest()
    body.take(2 + 1)
    extensions = body.vector(2) if body else body
    while extensions:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == 43:
            version = content.number(2)
        elif kind == 51 and random != RETRY:
            content.take(2)
            share = content.vector(2).rest()
    return Hello(version, random, session, share)


def server_key_exchange(body):
    """RFC 8422, 5.4: the point of ServerECDHParams."""
    assert body.number(1) == 3  # a named curve
    body.take(2)
    return body.vector(1).rest()


def in_the_clear(data):
    """Return a server's ServerHello; after a HelloRetryRequest, the second
    one.
    """
    hello = None
    for kind, body in messages(data):
        if kind == 2:
            hello = server_hello(body)
        elif kind == 12:
            hello = hello._replace(share=server_key_exchange(body))
    assert hello is not None and hello.random != RETRY and hello.share
    return hello


# Tests of these parsers.

HELLO_1_3 = bytes.fromhex(  # RFC 8448, section 3
    "020000560303a6af06a4121860dc5e6e60249cd34c95930c8ac5cb1434dac155772ed3e2"
    "692800130100002e00330024001d0020c9828876112095fe66762bdbf7c672e156d6cc25"
    "3b833df1dd69b1b04e751f0f002b00020304")
RANDOM = bytes(range(32))


def test_reader_1_3():
    data = record(22, HELLO_1_3[:50]) + record(22, HELLO_1_3[50:]) + \
        record(20, b"\1") + record(23, bytes(99))
    hello = in_the_clear(data)
    assert (hello.version, hello.session) == (0x304, b"")
    assert hello.random.hex().startswith("a6af06a4121860dc")
    assert hello.random.hex().endswith("c155772ed3e26928")
    assert hello.share.hex().startswith("c9828876112095fe")
    assert hello.share.hex().endswith("dd69b1b04e751f0f")


def test_reader_of_a_hello_retry_request():
    retry = message(2, b"\3\3" + RETRY + bytes.fromhex(
        "00 1301 00 000c 0033 0002 0018 002b 0002 0304"))
    assert RETRY.hex().startswith("cf21ad74e59a6111be1d8c021e65b891")
    data = record(22, retry) + record(20, b"\1") + record(22, HELLO_1_3)
    assert in_the_clear(data).random.hex().startswith("a6af06a4")
    with pytest.raises(AssertionError):
        in_the_clear(record(22, retry) + record(20, b"\1"))


def test_reader_1_2():
    hello = message(2, b"\3\3" + RANDOM + b"\4sess" + b"\xc0\x2b\0" +
                    bytes.fromhex("0005 ff01 0001 00"))
    exchange = message(12, b"\3\0\x1d" + b"\4same" + b"\4\3\0\2ab")
    data = record(22, hello + message(11, bytes(700))) + \
        record(22, exchange + message(14, b"")) + record(20, b"\1") + \
        record(22, os.urandom(40))
    assert in_the_clear(data) == (0x303, RANDOM, b"sess", b"same")


# Values that never repeat.

class Seen:
    """The values of many servers.  The first 4 bytes of a random may be the
    time, and the last 8 may signal TLS 1.3 (RFC 5246, 7.4.1.2; RFC 8446,
    4.1.3).
    """

    def __init__(self, room, version):
        self.room, self.version = room, version
        self.hellos = []

    def client(self, to):
        """Do a handshake, and record its values; alternate between two curves.
        """
        ctx = peers.context(self.room.certs, self.version)
        if len(self.hellos) % 2:
            ctx.set_ecdh_curve("prime256v1")
        sock = Recording(support.connect(to) if isinstance(to, str) else to)
        client = peers.Client(self.room.keep(sock), ctx).handshake()
        hello = in_the_clear(sock.data)
        assert hello.version == {"1.2": 0x303, "1.3": 0x304}[self.version]
        assert len(hello.share) == (65 if len(self.hellos) % 2 else 32)
        self.hellos.append(hello)
        return client

    def check(self, count):
        assert len(self.hellos) == count
        assert len({x.random[4:24] for x in self.hellos}) == count
        assert len({x.share for x in self.hellos}) == count
        if self.version == "1.2":
            sessions = [x.session for x in self.hellos if x.session]
            assert len(set(sessions)) == len(sessions)


@pytest.fixture
def seen(room, version):
    return Seen(room, version)


def sockets(pid):
    return len(support.sockets(pid))


def fill(t, seen, workers):
    """Connect two clients for each of these new workers, and keep them.  There
    is no slot for a third, so that each worker's first connection is among
    them.
    """
    support.wait_for(lambda: all(sockets(pid) == 2 for pid in workers),
                     "each to have the listener and a line to the master")
    for _ in range(2 * len(workers)):
        seen.client(t.address)
    support.wait_for(lambda: all(sockets(pid) == 2 + 2 * 2 for pid in workers),
                     "all to be served")


def new_workers(t, known):
    support.wait_for(lambda: len(set(t.workers()) - known) == MANY,
                     f"{MANY} new workers")
    workers = set(t.workers()) - known
    known |= workers
    return workers


def test_workers_share_no_random(backend, tunnel, seen):
    """Workers of three generations, and replacements of killed ones."""
    t = tunnel(f"workers={MANY}", f"max_connections={2 * MANY}")
    known = set()
    fill(t, seen, new_workers(t, known))
    for n in (1, 2):
        t.signal(signal.SIGHUP)
        t.wait_log(r"\breloaded$", count=n)
        workers = new_workers(t, known)
        fill(t, seen, workers)
    support.kill(workers)
    fill(t, seen, new_workers(t, known))
    seen.check(4 * 2 * MANY)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
def test_workers_without_files_share_no_random(backend, tunnel, seen, tmp_path):
    """In a chroot without devices, and in the sandbox."""
    t = tunnel(f"workers={MANY}", f"max_connections={2 * MANY}",
               f"chroot={tmp_path}", "user=nobody", "sandbox=yes")
    known = set()
    fill(t, seen, new_workers(t, known))
    t.signal(signal.SIGHUP)
    t.wait_log(r"\breloaded$")
    fill(t, seen, new_workers(t, known))
    seen.check(2 * 2 * MANY)


@needs_root
@pytest.mark.seconds(120)
@pytest.mark.skipif(support.PATCHED, reason="it takes them from the kernel")
def test_random_never_ends_without_files(room, echo, tmp_path):
    """The library's generator is reseeded after 10,000 requests; a handshake
    makes seven.
    """
    t = room.tunnel(f"connect={echo.address}", f"chroot={tmp_path}",
                    "user=nobody", "sandbox=yes", "workers=1", "mode=poll")
    ctx = peers.context(room.certs, "1.3")
    worker, = t.workers()
    for _ in range(1600):
        with support.connect(t.address) as sock:
            peers.Client(sock, ctx).handshake()
    assert t.workers() == [worker]


def test_forked_share_no_random(backend, tunnel, seen):
    t = tunnel("mode=fork")
    for n in (1, 2):
        for _ in range(MANY):
            seen.client(t.address)
        assert len(t.workers()) == n * MANY
        t.signal(signal.SIGHUP)
        t.wait_log(r"\breloaded$", count=n)
    seen.check(2 * MANY)


def test_inetd_processes_share_no_random(room, backend, seen):
    for _ in range(MANY):
        ours, theirs = pair()
        with theirs:
            room.tunnel("-i", f"connect={backend.address}", stdin=theirs,
                        ready=False)
        seen.client(ours)
    seen.check(MANY)


def pair():
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = support.connect(support.tcp_address(listener))
        return ours, listener.accept()[0]


def test_hello_retry_request_is_no_random(tunnel, room):
    """The parser also gets a real one: OpenSSL offers no such share."""
    t = tunnel("groups=secp384r1")
    sock = Recording(support.connect(t.address))
    ctx = peers.context(room.certs, "1.3")
    peers.Client(room.keep(sock), ctx).handshake()
    assert RETRY in sock.data
    assert len(in_the_clear(sock.data).share) == 97
