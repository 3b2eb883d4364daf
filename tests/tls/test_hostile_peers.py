"""Peers that misbehave: they hurt themselves, and nobody else."""

import hashlib
import hmac
import os
import signal
import socket
import ssl
import statistics
import struct
import time

import pytest

import support
from support import Task, read_all, read_exactly

LATE = 1.0 * support.SLOW  # a timeout may be this much late


def client_hello(ctx):
    """The record."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ctx.wrap_bio(ssl.MemoryBIO(), out,
                     server_hostname="localhost").do_handshake()
    return out.read()


# Floods.  What is to be ignored is not read for ever.

RECORDS = {
    "change_cipher_spec": ("1.3", "14 03 03 00 01 01"),
    "warning": ("1.2", "15 03 03 00 02 01 5a"),
}


class Flood:
    """A client that sends its hello, and then one record again and again, as
    fast as it can and until it is cut.
    """

    SECONDS = 8 * support.SLOW

    def __init__(self, address, hello, record):
        self.sock = support.connect(address)
        self.sock.sendall(hello)
        self.sent = 0
        self.stop = False
        self.task = Task(self.pour, record * 9000)

    def pour(self, records):
        begin = time.monotonic()
        try:
            while not self.stop and time.monotonic() - begin < self.SECONDS:
                self.sent += self.sock.send(records)
        except (ConnectionResetError, BrokenPipeError):
            return time.monotonic() - begin
        except TimeoutError:
            pass
        return None  # nobody cut it

    def close(self):
        self.stop = True
        self.task.thread.join(support.DEADLINE)
        self.sock.close()


@pytest.fixture(params=list(RECORDS))
def flood(request, room):
    version, record = RECORDS[request.param]

    def start(t):
        hello = client_hello(support.context(room.certs, version))
        flood = room.keep(Flood(t.address, hello, bytes.fromhex(record)))
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
    """They are the dearest there are; nobody else is to wait for them all."""

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
        time.sleep(0.005)  # the client's pace
    pouring.result()
    assert trips
    assert statistics.median(trips) < 0.05 * support.SLOW


# Records that no library can be made to send, and that it has to take.

def block(key, counter, nonce):
    """ChaCha20, RFC 8439 section 2.3."""
    start = struct.unpack("<16I", b"expand 32-byte k" + key +
                          struct.pack("<I", counter) + nonce)
    x = list(start)
    for n in range(80):
        i, skew = n % 4, n // 4 % 2
        a, b, c, d = (4 * row + (i + skew * row) % 4 for row in range(4))
        for to, by, other, bits in ((a, b, d, 16), (c, d, b, 12),
                                    (a, b, d, 8), (c, d, b, 7)):
            x[to] = (x[to] + x[by]) & 0xffffffff
            y = x[other] ^ x[to]
            x[other] = (y << bits | y >> 32 - bits) & 0xffffffff
    return struct.pack("<16I", *((p + q) & 0xffffffff
                                 for p, q in zip(x, start)))


def poly1305(key, data):
    """RFC 8439 section 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0ffffffc0ffffffc0ffffffc0fffffff
    tag = 0
    for i in range(0, len(data), 16):
        part = int.from_bytes(data[i:i + 16] + b"\1", "little")
        tag = (tag + part) * r % ((1 << 130) - 5)
    tag += int.from_bytes(key[16:32], "little")
    return (tag % (1 << 128)).to_bytes(16, "little")


def encrypt(key, nonce, associated, data):
    """RFC 8439 section 2.8."""
    stream = b"".join(block(key, 1 + i, nonce)
                      for i in range((len(data) + 63) // 64))
    sealed = bytes(p ^ q for p, q in zip(data, stream))
    padded = b"".join(x + bytes(-len(x) % 16) for x in (associated, sealed))
    return sealed + poly1305(
        block(key, 0, nonce)[:32],
        padded + struct.pack("<QQ", len(associated), len(sealed)))


def test_encrypt():
    """The example of RFC 8439, section 2.8.2."""
    text = (b"Ladies and Gentlemen of the class of '99: If I could offer you "
            b"only one tip for the future, sunscreen would be it.")
    sealed = encrypt(bytes(range(0x80, 0xa0)),
                     bytes.fromhex("070000004041424344454647"),
                     bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), text)
    assert sealed[:8].hex() == "d31a8d34648e60db"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"


def sha256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


class ByHand:
    """A client whose records are made here, behind a handshake that OpenSSL
    has made; it goes on to receive, and must not be used to send any more.
    """

    CIPHERS = ("ciphers=TLS_CHACHA20_POLY1305_SHA256,"
               "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")

    def __init__(self, room, t, version, **keywords):
        ctx = support.context(room.certs, version)
        ctx.keylog_filename = room.path("keylog")
        self.version = version
        self.client = room.keep(support.Client(t.address, ctx, **keywords))
        with pytest.raises(ssl.SSLWantReadError):
            self.client.tls.do_handshake()
        self.client.flush()
        hello = support.wait_for(self.server_hello, "a ServerHello")
        self.client.handshake()
        with open(ctx.keylog_filename) as f:
            secrets = {x[0]: x[1:] for x in map(str.split, f)}
        if version == "1.2":
            ours, secret = map(bytes.fromhex, secrets["CLIENT_RANDOM"])
            self.key_1_2(secret, b"key expansion" + hello[11:43] + ours)
            self.sequence = 1
        else:
            self.key_1_3(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"][1]))

    def server_hello(self):
        data = self.client.sock.recv(43, socket.MSG_PEEK)
        return data if len(data) == 43 else None

    def key_1_2(self, secret, seed):
        """RFC 5246 section 5, without keys for a MAC."""
        a, material = seed, b""
        for _ in range(3):
            a = sha256(secret, a)
            material += sha256(secret, a + seed)
        self.key, self.iv = material[:32], material[64:76]

    def key_1_3(self, secret):
        """RFC 8446 section 7.1."""
        self.key, self.iv, self.next = (
            sha256(secret, struct.pack(">HB", size, 6 + len(label)) +
                   b"tls13 " + label + b"\0\1")[:size]
            for label, size in ((b"key", 32), (b"iv", 12),
                                (b"traffic upd", 32)))
        self.sequence = 0

    def record(self, kind, data):
        number = struct.pack(">Q", self.sequence)
        self.sequence += 1
        nonce = bytes(p ^ q for p, q in zip(self.iv, bytes(4) + number))
        if self.version == "1.2":
            rest = struct.pack(">BHH", kind, 0x303, len(data))
            data = encrypt(self.key, nonce, number + rest, data)
        else:
            kind, data = 23, data + bytes([kind])
            rest = struct.pack(">BHH", kind, 0x303, len(data) + 16)
            data = encrypt(self.key, nonce, rest, data)
        return struct.pack(">BHH", kind, 0x303, len(data)) + data

    def data(self, data):
        return self.record(23, data)

    def close_notify(self):
        return self.record(21, b"\1\0")

    def handshake(self, message):
        return self.record(22, message)

    def key_update(self, requested):
        """What follows is under the next key, and, where that is requested,
        what the server sends as well.
        """
        record = self.handshake(bytes([24, 0, 0, 1, requested]))
        self.key_1_3(self.next)
        return record


@pytest.mark.parametrize("truncation", ["reset", "eof"])
def test_empty_records_are_no_end(room, backend, tunnel, version, truncation):
    """Three of them in a row, at each place (mbed TLS allows no four)."""
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
    """Asked for while a record is under way: the refusal may neither repeat
    it nor replace it.  Both find the tunnel at once: it is made to sleep.
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
        hello = client_hello(support.context(room.certs, "1.2"))[5:]
        hand.client.sock.sendall(hand.handshake(hello))
        got = read_what_is_there(hand.client)
    finally:
        support.kill(workers, signal.SIGCONT)
    while len(got) < len(data) and (part := hand.client.recv()):
        got += part
    assert got == data[:len(got)]
    # Who is told no by a warning may leave: OpenSSL does.
    assert len(got) == len(data) or hand.client.end == "NO_RENEGOTIATION"
    hand.client.close()
    try:
        pouring.result()
    except OSError:
        assert len(got) < len(data)


def read_what_is_there(client):
    """All that is in sockets already, whoever sent it being asleep."""
    data = b""
    client.sock.settimeout(0.3 * support.SLOW)
    try:
        while part := client.recv():
            data += part
    except TimeoutError:
        pass
    client.sock.settimeout(support.DEADLINE)
    return data
