"""Every fatal error is reported: to the client by the alert that RFC 5246 or
8446 requires, to the backend by a reset, and in the log by name.
"""

import os
import ssl
import struct

import pytest

import peers
import support
from certificates import LEAF, RSA, concatenate
from support import Task, read_all, read_exactly
from wire import (ALERT, BAD, CCS, DATA, HANDSHAKE, MALFORMED, RECORDS,
                  UNEXPECTED, ByHand, client_hello, name_of, plain, with_type,
                  with_version)

# RFC 8446 section 6.
NUMBERS = {"unexpected_message": 10, "bad_record_mac": 20,
           "record_overflow": 22, "handshake_failure": 40,
           "bad_certificate": 42, "illegal_parameter": 47, "decode_error": 50,
           "decrypt_error": 51, "protocol_version": 70, "internal_error": 80,
           "missing_extension": 109}


def records(data):
    """Return the types and contents of records."""
    found = []
    while data:
        size = 5 + struct.unpack(">H", data[3:5])[0]
        found.append((data[0], data[5:size]))
        data = data[size:]
    return found


# After the handshake.

def expected(rows):
    """Return the parameters from such a table: each case with each of its
    versions.
    """
    for name, (make, end, *more) in rows.items():
        for version in "1.2", "1.3":
            how = end.get(version) if isinstance(end, dict) else end
            if how:
                yield pytest.param(version, make, *how, *more,
                                   id=f"{name}-{version}")


@pytest.mark.parametrize("version,make,alert,text", expected(RECORDS))
def test_record_is_told(room, backend, tunnel, version, make, alert, text):
    """During an upload: more data follow, which must not destroy the alert by
    a reset.
    """
    t = tunnel(ByHand.CIPHERS)
    hand = ByHand(room, t, version)
    server = room.keep(backend.accept())
    hand.client.sock.sendall(hand.data(b"fine"))
    assert read_exactly(server, 4) == b"fine"
    # Also the rest of the announced record, and data that nobody reads.
    hand.client.sock.sendall(make(hand) + bytes(100000))
    data, end = hand.client.read_all()
    assert (data, name_of(end)) == (b"", alert)
    assert read_all(server) == (b"", "reset")
    t.wait_log(rf" TLSv.* TLS: (.*, or )?{text}")


@pytest.mark.parametrize("version,make,alert,text", expected({
    name: RECORDS[name] for name in (
        "alert-of-1", "data-too-long", "version", "key-update", "forged")}))
def test_record_is_told_to_a_downloader(room, backend, tunnel, version, make,
                                        alert, text):
    """The client reads so slowly that the alert has no room at first."""
    t = tunnel(ByHand.CIPHERS)
    hand = ByHand(room, t, version, rcvbuf=65536)
    server = room.keep(backend.accept())
    data = os.urandom(1 << 20) * 64
    pouring = Task(server.sendall, data)
    support.wait_until_stalled(hand.client.sock)
    hand.client.sock.sendall(make(hand))
    hand.client.fin()
    got, end = hand.client.read_all()
    assert name_of(end) == alert
    assert data.startswith(got)
    with pytest.raises(ConnectionResetError):
        pouring.result()
    t.wait_log(rf" TLSv.* TLS: (.*, or )?{text}")


def test_refused_renegotiation_is_no_end(room, backend, tunnel):
    """An error after it, in the same read, is still reported."""
    t = tunnel(ByHand.CIPHERS)
    hand = ByHand(room, t, "1.2")
    server = room.keep(backend.accept())
    hello = client_hello(peers.context(room.certs, "1.2"))[5:]
    hand.client.sock.sendall(hand.handshake(hello) +
                             hand.record(ALERT, b"\1"))
    sent, end = read_all(hand.client.sock)
    assert [kind for kind, _ in records(sent)] == [ALERT, ALERT]
    assert end == "eof"
    assert read_all(server) == (b"", "reset")
    t.wait_log(f" TLS: {MALFORMED}$")


# In answer to a ClientHello.

def vector(size, data):
    """RFC 8446 section 3.4: the length, then the data."""
    return struct.pack(">I", len(data))[4 - size:] + data


def message(kind, body):
    return bytes([kind]) + vector(3, body)


class Hello:
    """OpenSSL's ClientHello, parsed."""

    def __init__(self, ctx):
        data = client_hello(ctx)[9:]
        self.start, data = data[:34], data[34:]
        self.session_id, data = self.split(1, data)
        self.suites, data = self.split(2, data)
        self.compression, data = self.split(1, data)
        data, _ = self.split(2, data)
        self.extensions = []
        while data:
            kind = struct.unpack(">H", data[:2])[0]
            body, data = self.split(2, data[2:])
            self.extensions.append((kind, body))

    @staticmethod
    def split(size, data):
        end = size + int.from_bytes(data[:size], "big")
        return data[size:end], data[end:]

    def replace(self, kind, body):
        """Replace an extension; None: remove it."""
        self.extensions = [(k, body if k == kind else old)
                           for k, old in self.extensions
                           if k != kind or body is not None]
        return self

    def put(self, **parts):
        self.__dict__.update(parts)
        return self

    def body(self):
        extensions = b"".join(struct.pack(">H", kind) + vector(2, body)
                              for kind, body in self.extensions)
        return (self.start + vector(1, self.session_id) +
                vector(2, self.suites) + vector(1, self.compression) +
                vector(2, extensions))

    def record(self):
        return plain(HANDSHAKE, message(1, self.body()), 0x301)


def shares(group, key):
    return vector(2, struct.pack(">H", group) + vector(2, key))


def fragments(data, size):
    return b"".join(plain(HANDSHAKE, data[i:i + size])
                    for i in range(0, len(data), size))


GROUPS, SIGNATURES, SHARES, VERSIONS, MODES = 10, 13, 51, 43, 45
X25519, P256 = 29, 23
LONG = message(1, bytes(40)) + bytes(20000)

# The modified hello to send, then as above.
HELLOS = {
    "type": (lambda h: with_type(h.record(), 25),
             ("unexpected_message", r'not TLS: the client sent "\\x19.*')),
    "version": (lambda h: with_version(h.record()),
                ("protocol_version", "unknown record version")),
    "empty": (lambda h: plain(HANDSHAKE, b"", 0x301),
              ("unexpected_message", BAD)),
    "record-too-long": (lambda h: plain(HANDSHAKE, bytes(20000), 0x301),
                        ("record_overflow", "record too long")),
    "fragment-of-3": (lambda h: fragments(h.record()[5:], 3),
                      ("decode_error", MALFORMED)),
    "above-16-KB": (lambda h: fragments(
        h.put(extensions=h.extensions + [(21, bytes(17000))]).record()[5:],
        16384), ("internal_error", "message longer than 16 KB")),
    "announces-16-MB": (lambda h: fragments(
        b"\1\xff\xff\xff" + bytes(40000), 16384),
        ("internal_error", "message longer than 16 KB")),
    "other-message": (lambda h: plain(HANDSHAKE, message(2, h.body())),
                      ("unexpected_message", UNEXPECTED)),
    "ccs-first": (lambda h: plain(CCS, b"\1") + h.record(), {
        "1.2": ("unexpected_message", "unknown record type")}),
    "alert-of-1": (lambda h: plain(ALERT, b"\2"),
                   ("decode_error", MALFORMED)),
    "session-id-of-33": (lambda h: h.put(session_id=bytes(33)).record(),
                         ("decode_error", "malformed message")),
    "no-suites": (lambda h: h.put(suites=b"").record(), {
        "1.2": ("decode_error", "malformed message"),
        "1.3": ("handshake_failure",
                "no cipher suite, group or signature in common")}),
    "odd-suites": (lambda h: h.put(suites=h.suites + b"\0").record(),
                   ("decode_error", "malformed message")),
    "unknown-suites": (lambda h: h.put(suites=b"\xfa\xfa").record(), (
        "handshake_failure",
        "no cipher suite, group or signature in common")),
    "trailing-bytes": (lambda h: plain(
        HANDSHAKE, message(1, h.body() + b"x")), {
            "1.2": ("decode_error", "malformed message")}),
    "old-version": (lambda h: h.put(start=b"\3\1" + h.start[2:]).replace(
        VERSIONS, None).record(),
        ("protocol_version", "no TLS version in common")),
    "versions-cut": (lambda h: h.replace(VERSIONS, b"\4\3").record(), {
        "1.3": ("decode_error", "malformed message")}),
    "shares-cut": (lambda h: h.replace(SHARES, b"\0").record(), {
        "1.3": ("decode_error", "malformed message")}),
    "share-of-zeros": (lambda h: h.replace(
        SHARES, shares(X25519, bytes(32))).record(), {
            "1.3": ("illegal_parameter", "illegal parameter")}),
    "share-too-short": (lambda h: h.replace(
        SHARES, shares(X25519, b"\2" * 31)).record(), {
            "1.3": ("illegal_parameter", "illegal parameter")}),
    "share-off-the-curve": (lambda h: h.replace(
        SHARES, shares(P256, b"\4" + b"\2" * 64)).replace(
            GROUPS, b"\0\2\0\x17").record(), {
                "1.3": ("illegal_parameter", "illegal parameter")}),
    "no-shares": (lambda h: h.replace(SHARES, None).record(), {
        "1.3": ("missing_extension", "illegal parameter")}),
    "no-signatures": (lambda h: h.replace(SIGNATURES, None).record(), {
        "1.3": ("missing_extension", "illegal parameter")}),
    "groups-cut": (lambda h: h.replace(GROUPS, b"\0\4\0").record(),
                   ("decode_error", "malformed message")),
}


def read_alert(sock):
    """Read the alert at the end."""
    data, end = read_all(sock)
    assert end == "eof" and data, (data, end)
    kind, body = records(data)[-1]
    assert (kind, len(body), body[0]) == (ALERT, 2, 2), data
    return body[1]


@pytest.mark.parametrize("version,make,alert,text", expected(HELLOS))
def test_hello_is_told(room, tunnel, version, make, alert, text):
    t = tunnel()
    sock = room.connect(t.address)
    ctx = peers.context(room.certs, version)
    sock.sendall(make(Hello(ctx)) + bytes(100000))
    assert read_alert(sock) == NUMBERS[alert]
    t.wait_log(f" -> - .* (handshake: )?{text}")


@pytest.mark.parametrize("data,text", [
    (plain(ALERT, b"\2\x28"),
     r"the client sent a fatal alert: handshake_failure \(40\)"),
    (plain(DATA, bytes(32)), UNEXPECTED), (plain(ALERT, b"\2")[:3],
        "client closed during the handshake")])
def test_record_that_no_handshake_begins_with(room, tunnel, data, text):
    """It is reported as TLS nevertheless."""
    t = tunnel()
    sock = room.connect(t.address)
    sock.sendall(data)
    sock.shutdown(1)
    t.wait_log(f" -> - .* {text}$")


def test_hello_cut_anywhere_is_told(room, tunnel, version):
    """No cut hello leads to a handshake."""
    t = tunnel()
    body = Hello(peers.context(room.certs, version)).body()
    told = 0
    for size in range(len(body)):
        sock = support.connect(t.address)
        sock.sendall(plain(HANDSHAKE, message(1, body[:size])))
        sock.shutdown(1)
        data, end = read_all(sock)
        sock.close()
        assert end == "eof" and data, size
        told += records(data)[-1][0] == ALERT
    # A hello without extensions is complete.
    assert told == len(body)


# In answer to the server's flight.

CERTIFICATE, VERIFY, KEY_EXCHANGE, FINISHED = 11, 15, 16, 20


class Flight(ByHand):
    """The client's answer by OpenSSL, to be modified: a list of records [type,
    data, is_encrypted].
    """

    def __init__(self, room, t, version, **keywords):
        ctx = peers.context(room.certs, version, **keywords)
        ctx.keylog_filename = room.path("keylog")
        self.version, self.sequence = version, 0
        self.client = room.keep(peers.Client(t.address, ctx))
        self.step()
        self.client.flush()
        hello = support.wait_for(self.server_hello, "a ServerHello")
        while not self.step():
            self.client.fill()
        with open(ctx.keylog_filename) as f:
            secrets = {x[0]: x[1:] for x in map(str.split, f)}
        if version == "1.2":
            ours, secret = map(bytes.fromhex, secrets["CLIENT_RANDOM"])
            self.key_1_2(secret, b"key expansion" + hello[11:43] + ours)
            self.sequence = 0
        else:
            self.key_1_3(bytes.fromhex(
                secrets["CLIENT_HANDSHAKE_TRAFFIC_SECRET"][1]))
        self.records = list(self.take_apart(self.client.outgoing.read()))

    def step(self):
        """Do a step of the handshake; return whether it has data to send."""
        try:
            self.client.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        return self.client.outgoing.pending > 0

    def take_apart(self, data):
        """Decrypt the client's records with its own stream cipher."""
        is_encrypted = False
        for kind, body in records(data):
            if self.version == "1.3":
                is_encrypted = kind == DATA
            if not is_encrypted:
                yield [kind, body, False]
                is_encrypted = kind == CCS
                continue
            body = self.record(kind, body[:-16])[5:5 + len(body) - 16]
            if self.version == "1.3":
                body, kind = body[:-1], body[-1]
            yield [kind, body, True]
        self.sequence = 0

    def alter(self, kind, change, to=HANDSHAKE):
        """Modify the body of a message, or the only record of another type."""
        for x in self.records:
            if x[0] == to == HANDSHAKE and x[1][0] == kind:
                x[1] = message(kind, change(x[1][4:]))
                return self
            if x[0] == to != HANDSHAKE:
                x[1] = change(x[1])
                return self
        raise AssertionError(f"no such message: {kind}")

    def send(self):
        self.client.sock.sendall(b"".join(
            self.record(kind, data) if is_encrypted else plain(kind, data)
            for kind, data, is_encrypted in self.records))


def test_flight(room, backend, tunnel, authority, version):
    """Unmodified, the handshake succeeds."""
    t = tunnel(ByHand.CIPHERS, "verify=require", f"ca={authority.crt}")
    flight = Flight(room, t, version, client=authority.leaf())
    flight.send()
    server = room.keep(backend.accept())
    server.sendall(b"hello")
    assert flight.client.recv() == b"hello"


def cut(n):
    return lambda body: body[:-n]


def put(data):
    return lambda body: data


def more(data):
    return lambda body: body + data


def flip(at):
    def change(body):
        at_ = at % len(body)
        return body[:at_] + bytes([body[at_] ^ 1]) + body[at_ + 1:]
    return change


def alter(kind, change):
    return lambda f: f.alter(kind, change)


def swap(i, j):
    def change(f):
        f.records[i], f.records[j] = f.records[j], f.records[i]
    return change


def first(record):
    """Return a modification that inserts a record at the beginning."""
    def change(f):
        f.records.insert(f.version == "1.3", record)
    return change


SIGNATURE = "signature verification failed"
PROOF = "bad CertificateVerify or Finished"
SYNTAX = "malformed message"

# mbed TLS 4.1 does not check the length of a key, but hashes all of it.
LENGTH = ("decrypt_error", f"({SIGNATURE}|{PROOF})") if support.PLAIN_4 else (
    "decode_error", SYNTAX)

# The modification, then as above.
FLIGHTS = {
    "certificate-cut": (alter(CERTIFICATE, cut(1)), (
        "decode_error", SYNTAX)),
    "certificate-empty": (alter(CERTIFICATE, put(b"")), (
        "decode_error", SYNTAX)),
    "certificate-garbage": (alter(CERTIFICATE, lambda b: b[:10] + bytes(
        len(b) - 10)), ("bad_certificate", ".*")),
    "key-exchange-empty": (alter(KEY_EXCHANGE, put(b"")), {
        "1.2": LENGTH}),
    "key-exchange-cut": (alter(KEY_EXCHANGE, cut(1)), {"1.2": LENGTH}),
    # Everest's X25519 ignores bytes behind a key, but they are hashed.
    "key-exchange-long": (alter(KEY_EXCHANGE, more(b"x")), {
        "1.2": ("decrypt_error", SIGNATURE)
        if support.PATCHED and not support.ACCEL else LENGTH}),
    "key-exchange-zeros": (alter(KEY_EXCHANGE, put(b"\x20" + bytes(32))), {
        "1.2": ("illegal_parameter", "illegal parameter")
        if support.ACCEL or support.PLAIN_4
        else ("decode_error", SYNTAX)}),
    "verify-empty": (alter(VERIFY, put(b"")), ("decode_error", SYNTAX)),
    "verify-cut": (alter(VERIFY, cut(1)), ("decode_error", SYNTAX)),
    "verify-long": (alter(VERIFY, more(b"x")), {
        "1.2": ("decode_error", SYNTAX), "1.3": ("decrypt_error", PROOF)}),
    "verify-unknown-algorithm": (alter(VERIFY, lambda b: b"\xff\xff" + b[
        2:]), {"1.2": ("illegal_parameter", "illegal parameter"),
               "1.3": ("decrypt_error", PROOF)}),
    "verify-no-signature": (alter(VERIFY, lambda b: b[:2] + b"\0\0"), {
        "1.2": ("decrypt_error", SIGNATURE), "1.3": ("decrypt_error", PROOF)}),
    "verify-wrong": (alter(VERIFY, flip(-1)), {
        "1.2": ("decrypt_error", SIGNATURE), "1.3": ("decrypt_error", PROOF)}),
    "verify-left-out": (swap(-1, -2), ("unexpected_message", UNEXPECTED)),
    "ccs-of-2": (lambda f: f.alter(None, put(b"\1\1"), CCS), (
        "unexpected_message", BAD)),
    "ccs-of-value-2": (lambda f: f.alter(None, put(b"\2"), CCS), (
        "unexpected_message", BAD)),
    "finished-wrong": (alter(FINISHED, flip(0)), ("decrypt_error", PROOF)),
    "finished-cut": (alter(FINISHED, cut(1)), ("decode_error", SYNTAX)),
    "data-instead": (first([DATA, b"x", False]), {
        "1.2": ("unexpected_message", UNEXPECTED)}),
    "hidden-data-instead": (first([DATA, b"x", True]), {
        "1.3": ("unexpected_message", UNEXPECTED)}),
    "alert-of-1": (first([ALERT, b"\1", False]), {
        "1.2": ("decode_error", MALFORMED)}),
    "hidden-alert-of-1": (first([ALERT, b"\1", True]), {
        "1.3": ("unexpected_message", BAD)}),
    "empty-handshake": (first([HANDSHAKE, b"", False]), {
        "1.2": ("unexpected_message", BAD)}),
    "hidden-empty-handshake": (first([HANDSHAKE, b"", True]), {
        "1.3": ("unexpected_message", BAD)}),
    "handshake-of-3": (first([HANDSHAKE, b"\x0b\0\0", False]), {
        "1.2": ("decode_error", MALFORMED)}),
    "hello-again": (first([HANDSHAKE, message(1, bytes(40)), False]), {
        "1.2": ("unexpected_message", UNEXPECTED)}),
}


def name_read(flight):
    """Return the name of the alert that the client reads."""
    try:
        flight.client.handshake()
        data, end = flight.client.read_all()
        assert data == b""
    except ssl.SSLError as e:
        end = e.reason
    return name_of(end)


@pytest.fixture(scope="module")
def app(authority):
    return authority.leaf()


def skip_unreadable(version):
    if version == "1.3" and not support.PATCHED:
        pytest.skip("without mbedtls/patches, it is under the wrong keys")


@pytest.mark.parametrize("version,change,alert,text", expected(FLIGHTS))
def test_second_flight(room, tunnel, authority, app, version, change, alert,
                       text):
    skip_unreadable(version)
    t = tunnel(ByHand.CIPHERS, "verify=require", f"ca={authority.crt}")
    flight = Flight(room, t, version, client=app)
    change(flight)
    flight.send()
    flight.client.sock.sendall(bytes(100000))
    assert name_read(flight) == alert
    t.wait_log(f" -> - .* handshake: {text}$")


@pytest.fixture(scope="module")
def rsa_app(authority):
    return authority.leaf(key=RSA)


@pytest.mark.parametrize("key", ["app", "rsa_app"])
@pytest.mark.seconds(60)
def test_certificate_verify_altered_anywhere(request, room, tunnel, authority,
                                             version, key):
    """Flip one bit in each byte, a different one each time."""
    skip_unreadable(version)
    pem = request.getfixturevalue(key)
    t = tunnel(ByHand.CIPHERS, "verify=require", f"ca={authority.crt}",
               "log_level=info")
    told, at, size = [], 0, 1
    while at < size:
        flight = Flight(room, t, version, client=pem)
        size = sum(len(data) - 4 for kind, data, _ in flight.records
                   if kind == HANDSHAKE and data[0] == VERIFY)
        flight.alter(VERIFY, flip(at)).send()
        told.append((at % size, name_read(flight)))  # it may be shorter
        flight.client.close()
        at += 1 if key == "app" or at < 8 else 8
    assert len(told) > 36
    # The algorithm, the signature's length, and the signature.
    wrong = {0: {"illegal_parameter", "decrypt_error"},
             1: {"illegal_parameter", "decrypt_error"},
             2: {"decode_error", "decrypt_error"},
             3: {"decode_error", "decrypt_error"}}
    assert [x for x in told
            if x[1] not in wrong.get(x[0], {"decrypt_error"})] == []


# Alerts of the client.

CLIENT_ALERTS = {48: r"unknown_ca \(48\)", 80: r"internal_error \(80\)",
                 255: r"unknown \(255\)"}


@pytest.mark.parametrize("number", CLIENT_ALERTS)
def test_alert_of_the_client_is_named(room, backend, tunnel, version, number):
    t = tunnel(ByHand.CIPHERS)
    hand = ByHand(room, t, version)
    server = room.keep(backend.accept())
    hand.client.sock.sendall(hand.record(ALERT, bytes([2, number])))
    assert read_all(server) == (b"", "reset")
    named = f": {CLIENT_ALERTS[number]}" if (
        support.PATCHED or support.PLAIN_4) else ""
    t.wait_log(f" TLS: the client sent a fatal alert{named}$")
    # No answer is expected.
    sent, end = read_all(hand.client.sock)
    assert end == "eof" and ALERT not in [kind for kind, _ in records(sent)]


@pytest.mark.parametrize("number", CLIENT_ALERTS)
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_alert_in_the_handshake_is_named(room, tunnel, version, number,
                                         is_encrypted):
    """Some TLS 1.3 clients don't encrypt it, as they need not yet."""
    if is_encrypted and (version == "1.2" or not support.PATCHED):
        pytest.skip("not encrypted at this point, or no mbedtls/patches")
    t = tunnel(ByHand.CIPHERS)
    flight = Flight(room, t, version)
    flight.records = [[ALERT, bytes([2, number]), is_encrypted]]
    flight.send()
    t.wait_log(" handshake: the client sent a fatal alert: "
               f"{CLIENT_ALERTS[number]}$")


def test_end_of_the_client_is_not_answered(room, tunnel, version):
    t = tunnel()
    sock = room.connect(t.address)
    sock.sendall(client_hello(peers.context(room.certs, version)))
    sock.shutdown(1)
    sent, end = read_all(sock)
    assert end == "eof" and ALERT not in [kind for kind, _ in records(sent)]
    t.wait_log("client closed during the handshake$")


# Records for clients with little memory.

class Recorder(support.Backend):
    """A proxy that records the server's records."""

    def __init__(self, to):
        super().__init__()
        self.to, self.sent = to, b""
        self.serve(self.relay)

    def relay(self, sock):
        server = support.connect(self.to)
        up = Task(self.copy, sock, server)
        while data := server.recv(65536):
            self.sent += data
            sock.sendall(data)
        sock.shutdown(1)
        up.result()
        server.close()

    @staticmethod
    def copy(source, to):
        while data := source.recv(65536):
            to.sendall(data)


@pytest.fixture(scope="module")
def long_chain(certs):
    """Make a chain of 5 KB, with a large certificate."""
    names = ", ".join(f"DNS:host-{i:03d}.dept.example.org" for i in range(150))
    to = certs.path("long")
    certs.issue("long", LEAF.replace("DNS:localhost",
                                     "DNS:localhost, " + names), to=to)
    concatenate(to + ".pem", to + ".crt", to + ".key")
    return to + ".pem"


def small_client(certs, kind, address, size, pem):
    if kind == "gnutls":
        host, port = address.rsplit(":", 1)
        return support.run(
            "gnutls-cli", f"--x509cafile={certs.ca}", "--priority",
            "NORMAL:-VERS-ALL:+VERS-TLS1.2", f"--recordsize={size}", "-p",
            port, "--x509certfile=" + pem, "--x509keyfile=" + pem, host,
            stdin=b"hello")
    return support.run(
        "openssl", "s_client", "-connect", address, "-tls1_2", "-CAfile",
        certs.ca, "-verify_return_error", "-maxfraglen", str(size), "-cert",
        pem, "-key", pem, "-quiet", "-ign_eof", stdin=b"hello")


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("kind", ["openssl", "gnutls"])
def test_max_fragment_length(room, backend, authority, app, long_chain, kind,
                             size):
    """Also in the handshake, and with a longer chain and ticket."""
    data = b"x" * 20000

    def serve(sock):
        assert read_exactly(sock, 5) == b"hello"
        sock.sendall(data)

    backend.serve(serve)
    t = room.tunnel(f"connect={backend.address}", f"cert={long_chain}",
                    "verify=require", f"ca={authority.crt}",
                    "ciphers=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    recorder = room.keep(Recorder(t.address))
    out = small_client(room.certs, kind, recorder.address, size, app)
    assert out.count(b"x" * 1000) >= 20
    sizes = [(kind, len(body)) for kind, body in records(recorder.sent)]
    overhead = 24  # of its records
    at = [kind for kind, _ in sizes].index(CCS)
    assert max(n for _, n in sizes[:at]) == size
    assert max(n for _, n in sizes[at:]) == size + overhead
    t.wait_log(f" TLSv1.2 .* out={len(data)} ")
