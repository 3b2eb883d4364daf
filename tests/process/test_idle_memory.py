"""The memory of a waiting connection, in each state."""

import struct

import pytest

import peers
import support
from support import (by_default, is_echoed, memory, serves, statistics,
                     wait_for)
from wire import client_hello

COUNT = 300
FIRST = 20  # these include one-time allocations

pytestmark = [
    by_default,
    pytest.mark.seconds(60),
    pytest.mark.skipif(support.MODE == "fork",
                       reason="a process per connection needs more"),
    pytest.mark.skipif(not support.PATCHED,
                       reason="an unpatched mbed TLS keeps its buffers"),
]


def silent(room, t):
    room.connect(t.address)


def hello(room, t):
    """The handshake stops after the server's flight."""
    sock = room.connect(t.address)
    sock.sendall(client_hello(peers.context(room.certs)))
    assert sock.recv(1)


def part_of_hello(room, t):
    room.connect(t.address).sendall(
        client_hello(peers.context(room.certs))[:200])


def fragments_of_hello(room, t):
    """A hello in fragments (RFC 8446 section 5.1), the last one incomplete."""
    data = client_hello(peers.context(room.certs))[5:]
    sock = room.connect(t.address)
    for i in range(0, 100, 50):
        sock.sendall(struct.pack(">BHH", 22, 0x301, 50) + data[i:i + 50])
    sock.sendall(struct.pack(">BHH", 22, 0x301, 50) + data[100:110])


def established(version, ciphers=None):
    def call(room, t):
        client = room.keep(peers.Client(t.address, peers.context(
            room.certs, version, ciphers))).handshake()
        assert is_echoed(client)
        return client
    return call


def part_of_record(size):
    """An incomplete record of 16 KB."""
    def call(room, t):
        client = established("1.3")(room, t)
        client.sock.sendall(client.encrypt(bytes(16384))[:size])
    return call


def memory_of_each(t, come, serves):
    for _ in range(FIRST):
        come()
    wait_for(lambda: statistics(t)["live"] == FIRST, "the first ones")
    before = memory(t)
    for _ in range(COUNT):
        come()
    wait_for(lambda: statistics(t)["live"] == FIRST + COUNT, "all connections")
    assert serves()  # by then everything sent before has been read
    each = (memory(t) - before) / COUNT
    print(f"{each:.2f} kB")
    return each


@pytest.mark.parametrize(("come", "kb"), [
    pytest.param(silent, 6, id="silent"),
    pytest.param(part_of_hello, 6, id="part of a hello"),
    pytest.param(fragments_of_hello, 6, id="fragments of a hello"),
    pytest.param(hello, 10, id="hello"),
    pytest.param(established("1.2", "ECDHE+AESGCM"), 4, id="1.2 GCM"),
    pytest.param(established("1.2", "ECDHE+CHACHA20"), 3, id="1.2 ChaCha20"),
    pytest.param(established("1.3"), 4, id="1.3"),
    pytest.param(part_of_record(10), 4, id="head of a record"),
    pytest.param(part_of_record(8000), 13, id="half a record"),
])
def test_idle_connection(room, backend, come, kb):
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "workers=1",
                    "log_level=notice")
    assert memory_of_each(t, lambda: come(room, t),
                          lambda: serves(room, t.address)) < kb


# The client role: no more than in the server role.

def connected(room, app, sock):
    wait_for(lambda: support.unread(sock) > 0, "a ClientHello")


def talks(version, ciphers=None):
    def answer(room, app, sock):
        server = room.server(sock, version, ciphers=ciphers).handshake()
        app.sendall(b"hello")
        assert support.read_exactly(server, 5) == b"hello"
        server.send(b"there")
        assert support.read_exactly(app, 5) == b"there"
        return server
    return answer


def part_of_server_record(size):
    def answer(room, app, sock):
        server = talks("1.3")(room, app, sock)
        sock.sendall(server.encrypt(bytes(16384))[:size])
    return answer


@pytest.mark.parametrize(("answer", "kb"), [
    pytest.param(connected, 10, id="hello"),
    pytest.param(talks("1.2", "ECDHE+AESGCM"), 4, id="1.2 GCM"),
    pytest.param(talks("1.2", "ECDHE+CHACHA20"), 3, id="1.2 ChaCha20"),
    pytest.param(talks("1.3"), 4, id="1.3"),
    pytest.param(part_of_server_record(10), 4, id="head of a record"),
    pytest.param(part_of_server_record(8000), 13, id="half a record"),
])
def test_idle_client_side(room, backend, answer, kb):
    t = room.tunnel("client=yes", f"connect={backend.address}",
                    f"ca={room.certs.ca}", "server_name=localhost",
                    "workers=1", "log_level=notice", "handshake_timeout=60s")

    def come(answer=answer):
        app = room.connect(t.address)
        return answer(room, app, room.keep(backend.accept()))

    assert memory_of_each(t, come, lambda: come(talks(None))) < kb
