"""Misbehaving peers harm only their own connections."""

import os
import signal
import statistics
import time

import pytest

import peers
import support
from support import Task, read_all, read_exactly
from wire import ByHand, Flood, client_hello, encrypt

LATE = 1.0 * support.SLOW  # tolerance for timeouts


# Floods: ignored records are not read without limit.

RECORDS = {
    "change_cipher_spec": ("1.3", "14 03 03 00 01 01"),
    "warning": ("1.2", "15 03 03 00 02 01 5a"),
}


@pytest.fixture(params=list(RECORDS))
def flood(request, room):
    version, record = RECORDS[request.param]

    def start(t):
        hello = client_hello(peers.context(room.certs, version))
        sock = support.connect(t.address)
        sock.sendall(hello)
        flood = room.keep(Flood(sock, bytes.fromhex(record)))
        support.wait_for(lambda: flood.sent > 1 << 18, "the flood")
        return flood

    return start


def test_flood_leaves_others_alone(room, backend, tunnel, flood):
    backend.serve(support.echo)
    t = tunnel("handshake_timeout=60s")
    flood(t)
    for _ in range(3):
        start = time.monotonic()
        client = room.client(t)
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
        assert time.monotonic() - start < 1 * support.SLOW


def test_flood_is_cut_by_the_handshake_timeout(tunnel, flood):
    t = tunnel("handshake_timeout=1s")
    seconds = flood(t).task.result(1 + LATE + support.DEADLINE)
    assert seconds is not None and seconds < 1 + LATE
    t.wait_log(" handshake timeout$")


def test_flood_does_not_keep_signals_out(tunnel, flood):
    t = tunnel("handshake_timeout=60s", "drain_timeout=1s")
    flood(t)
    t.signal(signal.SIGTERM)
    assert t.wait(1 + LATE) == 0


def test_records_of_one_byte_leave_others_alone(room, backend, tunnel):
    """They are the most expensive records; no other connection may wait for
    all.
    """

    def pong(sock):
        while data := sock.recv(1 << 18):
            if data == b"ping":
                sock.sendall(b"pong")

    backend.serve(pong)
    t = tunnel()
    flooder, client = room.client(t), room.client(t)
    for _ in range(500000):
        flooder.tls.write(b"x")
    pouring = Task(flooder.sock.sendall, flooder.outgoing.read())
    trips = []
    while pouring.running():
        start = time.monotonic()
        client.send(b"ping")
        assert read_exactly(client, 4) == b"pong"
        trips.append(time.monotonic() - start)
        time.sleep(0.005)  # between records
    pouring.result()
    assert trips
    assert statistics.median(trips) < 0.05 * support.SLOW


# Records that no library sends, but that have to be accepted.

def test_encrypt():
    """The example of RFC 8439, section 2.8.2."""
    text = (b"Ladies and Gentlemen of the class of '99: If I could offer you "
            b"only one tip for the future, sunscreen would be it.")
    sealed = encrypt(bytes(range(0x80, 0xa0)),
                     bytes.fromhex("070000004041424344454647"),
                     bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), text)
    assert sealed[:8].hex() == "d31a8d34648e60db"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


@pytest.mark.parametrize("truncation", ["reset", "eof"])
def test_empty_records_are_no_end(room, backend, tunnel, version, truncation):
    """Three in a row at each place are accepted (mbed TLS refuses four)."""
    t = tunnel(ByHand.CIPHERS, f"truncation={truncation}")
    hand = ByHand(room, t, version)
    server = room.keep(backend.accept())
    words = []
    for word in (b"one", b"two", b"three"):
        words += [b"", b"", b"", word]
    words += [b"", b"", b""]
    hand.client.sock.sendall(b"".join(hand.data(x) for x in words[:6]))
    hand.client.sock.sendall(b"".join(hand.data(x) for x in words[6:]))
    assert read_exactly(server, 11) == b"onetwothree"
    hand.client.sock.sendall(hand.data(b"four") + hand.close_notify())
    assert read_all(server) == (b"four", "eof")
    server.sendall(b"five")
    server.close()
    assert hand.client.read_all() == (b"five", "close_notify")
    t.wait_log(" in=15 out=4 .* closed$")


def test_renegotiation_alters_nothing(room, backend, tunnel):
    """Requested while a record is partly sent: the refusal must neither repeat
    nor replace that record.  Both events reach the tunnel at once, since it is
    stopped meanwhile.
    """
    t = tunnel(ByHand.CIPHERS)
    hand = ByHand(room, t, "1.2", rcvbuf=65536)
    server = room.keep(backend.accept())
    data = os.urandom(16 << 20)
    pouring = Task(server.sendall, data)
    support.wait_until_stalled(hand.client.sock)
    workers = t.workers()
    support.kill(workers, signal.SIGSTOP)
    try:
        hello = client_hello(peers.context(room.certs, "1.2"))[5:]
        hand.client.sock.sendall(hand.handshake(hello))
        got = read_what_is_there(hand.client)
    finally:
        support.kill(workers, signal.SIGCONT)
    while len(got) < len(data) and (part := hand.client.recv()):
        got += part
    assert got == data[:len(got)]
    # A client may disconnect after the warning; OpenSSL does.
    assert len(got) == len(data) or hand.client.end == "NO_RENEGOTIATION"
    hand.client.close()
    try:
        pouring.result()
    except OSError:
        assert len(got) < len(data)


def read_what_is_there(client):
    """Read all that is in the sockets already; the sender is stopped."""
    data = b""
    client.sock.settimeout(0.3 * support.SLOW)
    try:
        while part := client.recv():
            data += part
    except TimeoutError:
        pass
    client.sock.settimeout(support.DEADLINE)
    return data
