"""Kernel TLS towards a server: the kernel gets the keys after a ticket or the
first data were read, and both sides see no difference.
"""

import socket
import ssl

import pytest

import support
from kernel_tls import MOVED, SUITES, Moved, needs_ktls, version_of
from peers import VERSIONS
from support import Task, read_exactly
from transfers import BLOCK, digest_of, receive, send

pytestmark = needs_ktls

MB = 1024 * 1024
BIG = min(support.BIG, 20 * MB)


@pytest.fixture(params=SUITES)
def suite(request):
    return request.param


def server_context(certs, version, tickets=2):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(certs.server)
    ctx.minimum_version = ctx.maximum_version = VERSIONS[version]
    if version == "1.3":
        ctx.num_tickets = tickets
    return ctx


class Pair:
    """Both ends of a connection through a tunnel, the plaintext one first."""

    def __init__(self, room, t, backend, ctx):
        accepting = Task(self.accept, backend, ctx)
        self.plain = room.connect(t.address)
        self.tls = room.keep(accepting.result())

    @staticmethod
    def accept(backend, ctx):
        return ctx.wrap_socket(backend.accept(), server_side=True)


@pytest.fixture
def near(room, backend):
    """Start a tunnel with ktls = require; return the count of moved
    connections.
    """

    def start(*arguments):
        port = backend.sock.getsockname()[1]
        t = room.tunnel("client=yes", f"ca={room.certs.ca}", "ktls=require",
                        f"connect=localhost:{port}", *arguments)
        return t, Moved(t)

    return start


def is_echoed(pair, data=b"hello"):
    pair.plain.sendall(data)
    if read_exactly(pair.tls, len(data)) != data:
        return False
    pair.tls.sendall(data)
    return read_exactly(pair.plain, len(data)) == data


def end(t, pair, count=1):
    """Return the log line of a connection, one of count."""
    pair.plain.shutdown(socket.SHUT_WR)
    assert pair.tls.recv(1) == b""
    pair.tls.unwrap().close()
    assert support.read_all(pair.plain) == (b"", "eof")
    return t.wait_log(r"\d\.\d{3}s ", count)


@pytest.mark.parametrize("tickets", [0, 1, 2, 5])
def test_echo(room, backend, near, suite, tickets):
    version = version_of(suite)
    if version == "1.2" and tickets != 2:
        pytest.skip("TLS 1.3 has any number of them")
    t, ours = near(f"ciphers={suite}")
    pair = Pair(room, t, backend, server_context(room.certs, version,
                                                 tickets))
    for size in (1, 2, 100, 1399, 4096, 16383, 16384, 16385, 32768, 40000):
        assert is_echoed(pair, BLOCK[size:2 * size])
    line = end(t, pair)
    assert MOVED in line and f" {suite} " in line
    ours.expect(1)


@pytest.mark.seconds(90)
@pytest.mark.parametrize("way", ["down", "up"])
def test_much(room, backend, near, suite, way):
    t, ours = near(f"ciphers={suite}")
    pair = Pair(room, t, backend, server_context(room.certs,
                                                 version_of(suite)))
    one, other = (pair.tls, pair.plain) if way == "down" else (
        pair.plain, pair.tls)
    sending = Task(send, one, BIG)
    assert receive(other, BIG) == digest_of(BIG)
    sending.result()
    assert is_echoed(pair)
    end(t, pair)
    ours.expect(1)


def test_moved_in_the_middle(room, backend, near):
    """Many records are sent before anything is received; they are counted."""
    t, ours = near()
    pair = Pair(room, t, backend, server_context(room.certs, "1.3", 0))
    sending = Task(send, pair.plain, 4 * MB)
    assert receive(pair.tls, 4 * MB) == digest_of(4 * MB)
    sending.result()
    assert ours.count() == (0, 0)
    assert is_echoed(pair)
    ours.expect(1)
    assert is_echoed(pair)
    end(t, pair)


def test_not_moved_with_something_unsent(room, backend, near):
    """The server answers but does not read: waiting data are sent only once.
    """
    t, _ = near()
    pair = Pair(room, t, backend, server_context(room.certs, "1.3", 0))
    sending = Task(send, pair.plain, 8 * MB)
    support.wait_until_stalled(pair.tls)
    pair.tls.sendall(b"early")
    assert read_exactly(pair.plain, 5) == b"early"
    assert receive(pair.tls, 8 * MB) == digest_of(8 * MB)
    sending.result()
    assert is_echoed(pair)
    assert MOVED in end(t, pair)


@pytest.mark.parametrize("kept", ["yes", "no"])
def test_resumption(room, backend, near, version, kept):
    t, ours = near(f"session_tickets={kept}")
    ctx = server_context(room.certs, version)
    for n in range(4):
        pair = Pair(room, t, backend, ctx)
        assert is_echoed(pair)
        assert pair.tls.session_reused == (n > 0 and kept == "yes")
        assert MOVED in end(t, pair, n + 1)
    ours.expect(4)


def test_truncated(room, backend, near, version):
    t, _ = near()
    pair = Pair(room, t, backend, server_context(room.certs, version))
    assert is_echoed(pair)
    pair.tls.shutdown(socket.SHUT_WR)  # without a close_notify
    assert support.read_all(pair.plain) == (b"", "reset")
    assert MOVED in t.wait_log(r"\d\.\d{3}s .*truncated")
