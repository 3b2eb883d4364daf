"""TLS records and messages, made and read by hand: those no library writes."""

import copy
import hashlib
import hmac
import re
import socket
import ssl
import struct
import time

import pytest

import peers
import support
from support import Task

RETRY = hashlib.sha256(b"HelloRetryRequest").digest()  # RFC 8446, 4.1.3


class Reader:
    """Reads fields one after another."""

    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def __bool__(self):
        return self.at < len(self.data)

    def take(self, size):
        part = self.data[self.at:self.at + size]
        assert len(part) == size, "cut short"
        self.at += size
        return part

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def vector(self, size):
        """A vector with a length prefix of that many bytes."""
        return Reader(self.take(self.number(size)))

    def rest(self):
        return self.take(len(self.data) - self.at)


def messages(data):
    """(type, body) of the handshake messages in the clear: in TLS 1.2 up to
    ChangeCipherSpec, in 1.3 up to the first record of another type.
    """
    records, plain = Reader(data), b""
    while records:
        kind, _ = records.number(1), records.number(2)
        part = records.vector(2).rest()
        if kind == 22:
            plain += part
        elif kind != 20 or RETRY not in plain:
            break
    handshake = Reader(plain)
    while handshake:
        yield handshake.number(1), handshake.vector(3)


def record(kind, data):
    return struct.pack(">BHH", kind, 0x303, len(data)) + data


def message(kind, body):
    return struct.pack(">I", kind << 24 | len(body)) + body


def client_hello(ctx):
    """A ClientHello record."""
    out = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ctx.wrap_bio(ssl.MemoryBIO(), out,
                     server_hostname="localhost").do_handshake()
    return out.read()


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


def sha256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


class ByHand:
    """A client whose records are made here, after a handshake by OpenSSL. It
    can still receive, but must not send by other methods.
    """

    CIPHERS = ("ciphers=TLS_CHACHA20_POLY1305_SHA256,"
               "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")

    def __init__(self, room, t, version, **keywords):
        ctx = peers.context(room.certs, version)
        ctx.keylog_filename = room.path("keylog")
        self.version = version
        self.client = room.keep(peers.Client(t.address, ctx, **keywords))
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
        else:
            self.key_1_3(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"][1]))

    def server_hello(self):
        data = self.client.sock.recv(43, socket.MSG_PEEK)
        return data if len(data) == 43 else None

    def key_1_2(self, secret, seed, at=0):
        """RFC 5246 section 5, without MAC keys. at: 1 for a server."""
        a, material = seed, b""
        for _ in range(3):
            a = sha256(secret, a)
            material += sha256(secret, a + seed)
        self.key = material[32 * at:32 * at + 32]
        self.iv = material[64 + 12 * at:76 + 12 * at]
        self.sequence = 1

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
        """Send a KeyUpdate.  Later records use the next key; if requested, the
        server's records do so as well.
        """
        record = self.handshake(bytes([24, 0, 0, 1, requested]))
        self.key_1_3(self.next)
        return record


# Extensions: RFC 5077 section 3.2, and RFC 8446 section 4.2.
TICKET, PSK, VERSIONS = 35, 41, 43


def vector(size, data):
    """A vector with a length prefix of that many bytes."""
    return len(data).to_bytes(size, "big") + data


def extension(kind, data):
    return struct.pack(">H", kind) + vector(2, data)


def extensions(body):
    """The extensions at the end of a hello, which may have none."""
    rest, found = body.vector(2) if body else body, {}
    while rest:
        kind = rest.number(2)
        found[kind] = rest.vector(2).rest()
    return found


class Hello:
    """A parsed ClientHello."""

    def __init__(self, data):
        (kind, body), = messages(data)
        assert kind == 1
        self.version, self.random = body.take(2), body.take(32)
        self.id = body.vector(1).rest()
        self.suites = body.vector(2).rest()
        self.compression = body.vector(1).rest()
        self.extensions = extensions(body)  # PSK is last, and stays last
        self.more = b""  # duplicate extensions

    def written(self):
        body = self.version + self.random + vector(1, self.id) + vector(
            2, self.suites) + vector(1, self.compression) + vector(
            2, b"".join(extension(kind, data) for kind, data
                        in self.extensions.items()) + self.more)
        return record(22, message(1, body))

    @property
    def ticket(self):
        if PSK not in self.extensions:
            return self.extensions[TICKET]
        return Reader(self.extensions[PSK]).vector(2).vector(2).rest()

    def offer(self, *tickets, age=None):
        """A copy that offers these tickets instead of its own; TLS 1.3 allows
        several.  The binders are unchanged, and valid for its own ticket.
        """
        new = copy.copy(self)
        new.extensions = dict(self.extensions)
        if PSK not in self.extensions:
            new.extensions[TICKET] = tickets[0]
            new.more = b"".join(extension(TICKET, x) for x in tickets[1:])
            return new
        old = Reader(self.extensions[PSK])
        identities = old.vector(2)
        identities.vector(2)
        age = age or identities.take(4)
        binder = old.vector(2).vector(1).rest()
        new.extensions[PSK] = vector(2, b"".join(
            vector(2, x) + age for x in tickets)) + vector(
            2, vector(1, binder) * len(tickets))
        return new

    def with_id(self, session_id):
        new = copy.copy(self)
        new.id = session_id
        return new


def beginning(data):
    """The meaning of a server's flight so far: "resumed", "full", an alert's
    number, or None if it is still undecided.
    """
    kinds, at = [], 0
    while len(data) >= at + 5:
        size = int.from_bytes(data[at + 3:at + 5], "big")
        if len(data) < at + 5 + size:
            break
        if data[at] == 21:
            return data[at + 6]
        if data[at] == 20 and 2 in kinds:  # before any Certificate
            return "resumed"
        at += 5 + size
        for kind, body in messages(data[:at]):
            kinds.append(kind)
            found = extensions_of_server(body) if kind == 2 else {}
            if VERSIONS in found:  # TLS 1.3: the rest is encrypted
                return "resumed" if PSK in found else "full"
            if kind == 11:
                return "full"
    return None


def extensions_of_server(body):
    body.take(2)
    assert body.take(32) != RETRY
    body.vector(1)
    body.take(2 + 1)
    return extensions(body)


def answer(to, hello):
    """Send a hello; return what it begins, and reset the connection."""
    sock = support.connect(to)
    sock.sendall(hello.written())
    data = b""
    while (means := beginning(data)) is None:
        part = sock.recv(1 << 16)
        assert part, f"no more than {data.hex()}"
        data += part
    support.reset(sock)
    return means


def answers(to, hellos, at_once=4):
    """The set of answers to these hellos."""
    hellos = list(hellos)

    def some(n):
        return {answer(to, hello) for hello in hellos[n::at_once]}

    tasks = [Task(some, n) for n in range(at_once)]
    return set().union(*(task.result(60 * support.SLOW) for task in tasks))


def name_of(word):
    """Strip OpenSSL's prefix, as in TLSV1_ALERT_DECODE_ERROR."""
    return re.sub(r"^\w+_ALERT_", "", word).lower()


def plain(kind, data, version=0x303):
    """Return an unencrypted record."""
    return struct.pack(">BHH", kind, version, len(data)) + data


CCS, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23


def with_version(record):
    return record[:1] + b"\4\0" + record[3:]


def with_type(record, kind):
    return bytes([kind]) + record[1:]


def forged(record):
    return record[:-1] + bytes([record[-1] ^ 1])


KEY_UPDATE = bytes([24, 0, 0, 1, 0])
HELLO = bytes([1, 0, 0, 40])  # how it begins
MALFORMED, BAD = "bad record length", "bad record"
UNEXPECTED = "unexpected message"
# What is sent, the alert, and the log message; or the last two per version.
RECORDS = {
    "alert-of-0": (lambda h: h.record(ALERT, b""), {
        "1.2": ("decode_error", MALFORMED),
        "1.3": ("unexpected_message", BAD)}),
    "alert-of-1": (lambda h: h.record(ALERT, b"\1"), {
        "1.2": ("decode_error", MALFORMED),
        "1.3": ("unexpected_message", BAD)}),
    "alert-of-3": (lambda h: h.record(ALERT, b"\1\0\1"), {
        "1.2": ("decode_error", MALFORMED),
        "1.3": ("unexpected_message", BAD)}),
    "handshake-of-0": (lambda h: h.handshake(b""), {
        "1.2": ("decode_error", MALFORMED),
        "1.3": ("unexpected_message", BAD)}),
    "handshake-of-3": (lambda h: h.handshake(HELLO[:3]), {
        "1.2": ("decode_error", MALFORMED),
        "1.3": ("unexpected_message", BAD)}),
    "handshake-cut": (lambda h: h.handshake(HELLO) + h.data(b"x"),
                      ("unexpected_message", UNEXPECTED)),
    "key-update-of-1": (lambda h: h.handshake(KEY_UPDATE[:1]), {
        "1.3": ("unexpected_message", BAD)}),
    "key-update-of-3": (lambda h: h.handshake(KEY_UPDATE[:3]), {
        "1.3": ("unexpected_message", BAD)}),
    "key-update": (lambda h: h.handshake(KEY_UPDATE),
                   ("unexpected_message", UNEXPECTED)),
    "finished": (lambda h: h.handshake(bytes([20, 0, 0, 12]) + bytes(12)),
                 ("unexpected_message", UNEXPECTED)),
    "data-too-long": (lambda h: h.data(bytes(16385)),
                      ("record_overflow", "record too long")),
    "record-too-long": (lambda h: plain(DATA, bytes(16384 + 2049)),
                        ("record_overflow", "record too long")),
    "record-too-long-1.3": (lambda h: plain(DATA, bytes(16384 + 257)), {
        "1.3": ("record_overflow", "record too long")}),
    "record-empty": (lambda h: plain(DATA, b""),
                     ("unexpected_message", BAD)),
    "record-short": (lambda h: plain(DATA, b"x"),
                     ("bad_record_mac", "bad record MAC")),
    "version": (lambda h: with_version(h.data(b"x")),
                ("protocol_version", "unknown record version")),
    "type-below": (lambda h: with_type(h.data(b"x"), 19),
                   ("unexpected_message", "unknown record type")),
    "type-above": (lambda h: with_type(h.data(b"x"), 25),
                   ("unexpected_message", "unknown record type")),
    "hidden-type": (lambda h: h.record(25, b"x"), {
        "1.3": ("unexpected_message", f"({UNEXPECTED}|{BAD})")}),
    "no-type": (lambda h: h.record(0, b"\0\0"), {
        "1.3": ("unexpected_message", BAD)}),
    "ccs": (lambda h: h.record(CCS, b"\1"), {
        "1.2": ("unexpected_message", UNEXPECTED)}),
    "ccs-of-2": (lambda h: h.record(CCS, b"\1\1"), {
        "1.2": ("unexpected_message", BAD),
        "1.3": ("unexpected_message", BAD)}),
    "forged": (lambda h: forged(h.data(b"x")),
               ("bad_record_mac", "bad record MAC")),
    "four-empty": (lambda h: b"".join(h.data(b"") for _ in range(4)),
                   ("bad_record_mac", "four empty records in a row")),
}


class ServerByHand(ByHand):
    """A server whose records are made here, on an accepted socket."""

    def __init__(self, room, sock, version):
        ctx = peers.server_context(room.certs.server, version)
        ctx.keylog_filename = room.path("keylog of the server")
        ctx.num_tickets = 0
        self.version = version
        self.server = room.keep(peers.Server(sock, ctx))
        hello = b""
        while not hello:
            self.server.fill()
            with pytest.raises(ssl.SSLWantReadError):
                self.server.tls.do_handshake()
            hello = self.server.outgoing.read()
        sock.sendall(hello)
        self.server.handshake()
        with open(ctx.keylog_filename) as f:
            secrets = {x[0]: x[1:] for x in map(str.split, f)}
        if version == "1.2":
            theirs, secret = map(bytes.fromhex, secrets["CLIENT_RANDOM"])
            self.key_1_2(secret, b"key expansion" + hello[11:43] + theirs, 1)
        else:
            self.key_1_3(bytes.fromhex(secrets["SERVER_TRAFFIC_SECRET_0"][1]))


class Flood:
    """One record, sent repeatedly and as fast as possible, until disconnected.
    """

    SECONDS = 8 * support.SLOW

    def __init__(self, sock, record):
        self.sock, self.sent, self.stop = sock, 0, False
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
        return None  # never disconnected

    def close(self):
        self.stop = True
        self.task.thread.join(support.DEADLINE)
        self.sock.close()
