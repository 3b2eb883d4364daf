"""Servers that flood, stall or overload a client (client = yes): the cost is
limited, and no other connection waits.

Invalid messages are in test_hostile_servers.py.
"""

import signal
import time

import pytest

import hostile
import peers
import support
from hostile import CERTIFICATE, SERVER_HELLO, SUITE_1_2, Server
from support import Task, memory, read_all, read_exactly
from wire import HANDSHAKE, ByHand, Flood, ServerByHand, message, plain

LATE = 1.0 * support.SLOW  # tolerance for timeouts
MANY = 1500


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        "client=yes", f"connect={backend.address}", "server_name=localhost",
        f"ca={room.certs.ca}", ByHand.CIPHERS, *arguments)


@pytest.fixture
def hand(room, backend, start):
    """Return an application, and a server with handmade records."""

    def make(t, version):
        app = room.connect(t.address)
        return app, ServerByHand(room, backend.accept(), version)

    return make


def serves(room, backend, t):
    """Check that another connection, to a normal server, is served at once."""
    began = time.monotonic()
    app = room.connect(t.address)
    server = room.server(backend.accept()).handshake()
    app.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"
    server.send(b"there")
    assert read_exactly(app, 5) == b"there"
    app.close()
    server.close()
    return time.monotonic() - began < 1 * support.SLOW


# Floods after the handshake.

def ticket(hand):
    """Return a useless ticket of 1000 bytes."""
    body = b"\0\0\1\0" + bytes(4) + b"\0" + b"\3\xe8" + bytes(1000) + b"\0\0"
    return hand.handshake(message(4, body))


def hello_request(hand):
    return hand.handshake(message(0, b""))


def warning(hand):
    return hand.record(21, b"\1\x5a")


GOES_ON = {"tickets": ("1.3", ticket), "warnings": ("1.2", warning),
           "warnings-1.3": ("1.3", warning),
           "hello-requests": ("1.2", hello_request)}


@pytest.mark.seconds(60)
@pytest.mark.parametrize("what", GOES_ON)
def test_useless_messages_cost_little(room, backend, start, hand, what):
    """Although the server reads no answer."""
    version, record = GOES_ON[what]
    t = start("workers=1")
    app, h = hand(t, version)
    assert serves(room, backend, t)
    flood = b"".join(record(h) for _ in range(MANY))
    before, cpu = memory(t), t.cpu_seconds()
    workers = t.workers()
    pouring = Task(h.server.sock.sendall, flood + h.data(b"two"))
    assert serves(room, backend, t)
    assert read_exactly(app, 3) == b"two"
    pouring.result()
    assert t.cpu_seconds() - cpu < 1 * support.SLOW
    if not support.SANITIZED:
        assert memory(t) - before < 300
    assert t.workers() == workers


def key_update(hand):
    """mbed TLS does not support it."""
    return hand.key_update(1)


ENDS = {"empty": ("1.2", lambda h: h.data(b"")),
        "empty-1.3": ("1.3", lambda h: h.data(b"")),
        "hello-requests": ("1.3", hello_request),
        "tickets": ("1.2", ticket),
        "key-updates": ("1.3", key_update),
        "change-cipher-specs": (
            "1.2", lambda h: bytes.fromhex("140303000101"))}


@pytest.mark.parametrize("what", ENDS)
def test_flood_that_ends_the_connection(room, backend, start, hand, what):
    """The server gets an alert, and the application the data before."""
    version, record = ENDS[what]
    t = start()
    app, h = hand(t, version)
    h.server.sock.sendall(h.data(b"one") +
                          b"".join(record(h) for _ in range(100)))
    assert read_all(app) == (b"one", "reset")
    assert h.server.read_all()[0] == b""
    h.server.close()
    t.wait_log(r"\d\.\d{3}s backend: TLS: ")
    assert serves(room, backend, t)


# Floods in the handshake, which end at its timeout.

RECORDS = {"change_cipher_spec": "14 03 03 00 01 01",
           "warning": "15 03 03 00 02 01 5a"}


@pytest.fixture(params=RECORDS)
def flood(request, room, backend):
    def begin(t):
        app = room.connect(t.address)
        sock = backend.accept()
        support.wait_for(lambda: support.unread(sock), "a hello")
        return app, room.keep(Flood(sock, bytes.fromhex(
            RECORDS[request.param])))

    return begin


def test_flood_in_the_handshake(room, backend, start, flood):
    """It ends at the timeout or before, and no other connection waits for it.
    """
    t = start("handshake_timeout=2s")
    app, f = flood(t)
    for _ in range(3):
        assert serves(room, backend, t)
    seconds = f.task.result(2 + LATE + support.DEADLINE)
    assert seconds is not None and seconds < 2 + LATE
    assert read_all(app) == (b"", "reset")
    t.wait_log(" no backend: ")


def test_flood_does_not_keep_signals_out(start, flood):
    t = start("handshake_timeout=60s", "drain_timeout=1s")
    flood(t)
    t.signal(signal.SIGTERM)
    assert t.wait(1 + LATE) == 0


def flight_of_openssl(room, sock, version):
    """Return OpenSSL's answer to a hello."""
    server = room.server(sock, version)
    while True:
        server.fill()
        try:
            server.tls.do_handshake()
        except peers.ssl.SSLWantReadError:
            pass
        if flight := server.outgoing.read():
            return flight


def test_drip(room, backend, start, version):
    """The timeout is for the whole handshake, even if data arrive."""
    t = start("handshake_timeout=1s")
    app = room.connect(t.address)
    sock = room.keep(backend.accept())
    flight = flight_of_openssl(room, sock, version)
    began = time.monotonic()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        for byte in flight:
            sock.sendall(bytes([byte]))
            time.sleep(0.02)  # between bytes
    assert read_all(app) == (b"", "reset")
    assert time.monotonic() - began < 1 + LATE
    t.wait_log(" no backend: .*: handshake timeout$")


# Large messages.

def hello_1_2(s):
    s.read_hello()
    s.send(SERVER_HELLO, s.hello_body(
        [(0xff01, b"\0"), (23, b"")], suite=SUITE_1_2))


def chain(*certificates):
    listed = b"".join(len(x).to_bytes(3, "big") + x for x in certificates)
    return len(listed).to_bytes(3, "big") + listed


@pytest.mark.parametrize("megabytes", [1, 15])
def test_giant_chain(room, backend, start, certs, version, megabytes):
    """The client neither waits for it nor keeps it."""
    t = start("workers=1")
    assert serves(room, backend, t)
    before = memory(t)
    app = room.connect(t.address)
    s = Server(room.keep(backend.accept()), certs.server, certs.server)
    if version == "1.2":
        hello_1_2(s)
        seal = plain
    else:
        s.read_hello()
        s.send_hello()
        s.send(hostile.EXTENSIONS, b"\0\0")
        seal = s.ours.seal
    size = megabytes << 20
    begin = bytes([CERTIFICATE]) + size.to_bytes(3, "big") + \
        b"\0" * (version == "1.3") + (size - 3).to_bytes(3, "big")
    s.out += seal(HANDSHAKE, begin + bytes(8000))
    s.out += b"".join(seal(HANDSHAKE, bytes(8000)) for _ in range(5))
    s.sock.sendall(s.out)
    assert read_all(app) == (b"", "reset")
    t.wait_log(" no backend: .*: handshake: ")
    assert serves(room, backend, t)
    if not support.SANITIZED:
        assert memory(t) - before < 200


@pytest.mark.seconds(60)
@support.by_default
@pytest.mark.skipif(support.MODE == "fork", reason="they are one process each")
def test_crowd_with_long_chains(room, backend, start, certs):
    """Each connection needs its chain for only a moment."""
    t = start("workers=1", "handshake_timeout=60s")
    assert serves(room, backend, t)

    def come():
        app = room.connect(t.address)
        s = Server(room.keep(backend.accept()), certs.server, certs.server)
        hello_1_2(s)
        s.send(CERTIFICATE, chain(*[s.der] * 15))
        s.flush()
        return app, s

    come()
    before = memory(t)
    here = [come() for _ in range(60)]
    assert serves(room, backend, t)
    each = (memory(t) - before) / len(here)
    print(f"{each:.1f} kB")
    # Without mbedtls/patches, all that it sends is parsed, and kept.
    assert each < (60 if support.PATCHED else 100)
    for app, s in here:
        s.sock.close()
        assert read_all(app) == (b"", "reset")
    assert serves(room, backend, t)


def test_retries_for_ever(room, backend, start, certs):
    """Only one retry is allowed."""
    t = start("groups=x25519,secp256r1")
    app = room.connect(t.address)
    s = Server(room.keep(backend.accept()), certs.server, certs.server)
    s.read_hello()
    share = (hostile.SHARES, hostile.P256.to_bytes(2, "big"))
    s.retry([share])
    s.out += plain(HANDSHAKE, message(SERVER_HELLO, s.hello_body(
        [(hostile.VERSIONS, b"\3\4"), share], random=hostile.RETRY))) * 50
    s.sock.sendall(s.out)
    assert read_all(app) == (b"", "reset")
    t.wait_log(" no backend: .*: handshake: ")
    assert serves(room, backend, t)


def test_giant_cookie(room, backend, start, certs):
    """The client would have to return the cookie."""
    t = start("groups=x25519,secp256r1")
    app = room.connect(t.address)
    s = Server(room.keep(backend.accept()), certs.server, certs.server)
    s.read_hello()
    s.send(SERVER_HELLO, s.hello_body(
        [(hostile.VERSIONS, b"\3\4"), (44, b"\x3a\x98" + bytes(15000)),
         (hostile.SHARES, hostile.P256.to_bytes(2, "big"))],
        random=hostile.RETRY))
    s.flush()
    assert read_all(app) == (b"", "reset")
    t.wait_log(" no backend: .*: handshake")
    assert serves(room, backend, t)
