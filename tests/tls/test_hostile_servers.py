"""Protocol violations by servers, and the client's alerts: with
mbedtls/patches, by RFC 8446.
"""

import os

import pytest

import hostile
import support
from hostile import (CERTIFICATE, EXTENSIONS, PKCS1_SHA256, PSS_SHA256,
                     REQUEST, SERVER_HELLO, VERIFY, Server)
from shares import FINISHED, P256, P384, SHARES, TICKET, X25519
from wire import HANDSHAKE, RETRY, extension, message, vector

pytestmark = pytest.mark.skipif(
    not support.PATCHED, reason="this mbed TLS lacks mbedtls/patches")
UNEXPECTED, ILLEGAL, DECODE, DECRYPT = 10, 47, 50, 51
VERSION, UNSUPPORTED_EXTENSION = 70, 110


@pytest.fixture
def client(room, certs, backend):
    """Start a tunnel as a client."""

    def start(*arguments):
        if "verify=none" not in arguments:
            arguments = (f"ca={certs.ca}", *arguments)
        return room.tunnel("client=yes", f"connect={backend.address}",
                           "server_name=localhost", *arguments)

    return start


@pytest.fixture
def server(room, certs, backend):
    """Return a function that makes a server behind a tunnel; it returns the
    server and the application's socket.
    """

    def accept(t, changes=None, pem=certs.server):
        app = room.connect(t.address)
        return Server(room.keep(backend.accept()), pem, pem, changes), app

    return accept


def passes(s, app):
    s.send_data(b"from the server")
    assert support.read_exactly(app, 15) == b"from the server"
    app.sendall(b"to it")
    assert s.record()[1] == b"to it"


def test_valid_server(client, server):
    s, app = server(client())
    passes(s.handshake(), app)


@pytest.mark.parametrize("verify", ["none", "require"])
def test_version_without_the_extension(client, server, verify):
    """The version field contains TLS 1.3, and the secrets are public."""
    t = client(f"verify={verify}")
    s, app = server(t)
    s.read_hello()
    s.send(SERVER_HELLO, s.hello_body([], version=b"\3\4"))
    assert s.alert() == VERSION
    t.wait_log(" handshake: no TLS version in common$")


def test_alert_is_encrypted(room, client, certs, authority):
    """Otherwise the server could not read why it is not trusted."""
    inner = room.backend().serve(support.echo)
    outer = room.tunnel(f"connect={inner.address}", "tls_min=1.3")
    t = room.tunnel("client=yes", f"connect={outer.address}",
                    "server_name=localhost", f"ca={authority.crt}")
    assert support.how_it_ends(t.address)[0] == b""
    t.wait_log(" server certificate .*: unknown issuer ")
    outer.wait_log(r" the client sent a fatal alert: unknown_ca \(48\)$")


def twice(kind, data=b""):
    return lambda _: vector(2, 2 * extension(kind, data))


def behind(body):
    return body + b"\0"


def in_hello(change):
    """Change the last of the two extensions of a ServerHello."""

    def changed(body):
        at = 2 + 32 + 1 + body[34] + 3
        found = hostile.Reader(body[at + 2:])
        first = found.take(6)  # supported_versions
        return body[:at] + vector(2, first + change(
            found.number(2), found.vector(2).rest()))

    return changed


ALPN, NAME, KEY_SHARE, COOKIE = 16, 0, 51, 44
CHOSEN = vector(2, vector(1, b"one"))
MESSAGES = {
    "hello-and-more": ({SERVER_HELLO: behind}, DECODE),
    "share-and-more": ({SERVER_HELLO: in_hello(
        lambda kind, data: extension(kind, data + b"\0"))}, DECODE),
    "share-twice": ({SERVER_HELLO: in_hello(
        lambda kind, data: 2 * extension(kind, data))}, ILLEGAL),
    "extensions-and-more": ({EXTENSIONS: behind}, DECODE),
    "extension-twice": ({EXTENSIONS: twice(NAME)}, ILLEGAL),
    "extension-of-hello": (
        {EXTENSIONS: lambda _: vector(2, extension(KEY_SHARE, b""))},
        ILLEGAL),
    "extension-that-was-not-sent": (
        {EXTENSIONS: lambda _: vector(2, extension(1, b"\1"))},
        UNSUPPORTED_EXTENSION),
    "alpn-of-another": ({EXTENSIONS: lambda _: vector(2, extension(
        ALPN, vector(2, vector(1, b"two"))))}, ILLEGAL),
    "alpn-of-two": ({EXTENSIONS: lambda _: vector(2, extension(
        ALPN, vector(2, 2 * vector(1, b"one"))))}, DECODE),
    "alpn-and-more": ({EXTENSIONS: lambda _: vector(2, extension(
        ALPN, CHOSEN + b"\0"))}, DECODE),
    "alpn-of-none": ({EXTENSIONS: lambda _: vector(2, extension(
        ALPN, vector(2, vector(1, b""))))}, DECODE),
    "no-certificate": ({CERTIFICATE: lambda _: b"\0" + vector(3, b"")},
                       DECODE),
    "no-certificate-message": ({CERTIFICATE: lambda _: None}, UNEXPECTED),
    "no-verify": ({VERIFY: lambda _: None}, UNEXPECTED),
    "no-certificate-nor-verify": (
        {CERTIFICATE: lambda _: None, VERIFY: lambda _: None}, UNEXPECTED),
    "verify-altered": (
        {VERIFY: lambda body: body[:-1] + bytes([body[-1] ^ 1])}, DECRYPT),
    "finished-altered": (
        {FINISHED: lambda body: body[:-1] + bytes([body[-1] ^ 1])}, DECRYPT),
    "finished-cut": ({FINISHED: lambda body: body[:-1]}, DECODE),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(client, server, name):
    """Each error has its alert, under the keys that the server reads with."""
    changes, number = MESSAGES[name]
    t = client("alpn=one")
    s, app = server(t, changes)
    s.read_hello()
    s.send_hello()
    s.send_flight()
    assert s.alert() == number
    assert s.encrypted[-1] == (SERVER_HELLO not in changes)
    t.wait_log(" handshake: " + ("bad CertificateVerify or Finished$"
                                 if number == DECRYPT else ""))


def test_retry(client, server):
    """With a cookie, and for a share of another group."""
    s, app = server(client("groups=secp256r1,x25519"))
    assert list(s.read_hello().shares) == [P256]
    s.retry([(COOKIE, vector(2, b"c" * 3000)),
             (SHARES, X25519.to_bytes(2, "big"))])
    assert list(s.shares) == [X25519]
    assert s.hello.extensions[COOKIE] == vector(2, b"c" * 3000)
    passes(s.handshake(), app)


@pytest.mark.parametrize("found,number", [
    ([], ILLEGAL),
    ([(SHARES, X25519.to_bytes(2, "big"))], ILLEGAL),
    ([(SHARES, P384.to_bytes(2, "big"))], ILLEGAL),
    ([(SHARES, P256.to_bytes(2, "big") + b"\0")], DECODE),
    ([(COOKIE, vector(2, b""))], DECODE),
    ([(COOKIE, vector(2, b"c") + b"\0")], DECODE)],
    ids=["nothing", "same-share", "not-offered", "share-and-more",
         "no-cookie", "cookie-and-more"])
def test_invalid_retry(client, server, found, number):
    s, app = server(client("groups=x25519,secp256r1"))
    s.read_hello()
    s.send(SERVER_HELLO, s.hello_body(
        [(hostile.VERSIONS, b"\3\4"), *found], random=RETRY))
    assert s.alert() == number


def test_second_retry(client, server):
    s, app = server(client("groups=x25519,secp256r1"))
    s.read_hello()
    s.retry([(SHARES, P256.to_bytes(2, "big"))])
    s.send(SERVER_HELLO, s.hello_body(
        [(hostile.VERSIONS, b"\3\4"), (SHARES, X25519.to_bytes(2, "big"))],
        random=RETRY))
    assert s.alert() == UNEXPECTED


def test_older_version_behind_a_retry(client, server):
    s, app = server(client("groups=x25519,secp256r1"))
    s.read_hello()
    s.retry([(SHARES, P256.to_bytes(2, "big"))])
    s.send(SERVER_HELLO, s.hello_body([(0xff01, b"\0"), (23, b"")],
                                      suite=hostile.SUITE_1_2))
    assert s.alert() == ILLEGAL


@pytest.mark.parametrize("last", [b"\0", b"\1"])
def test_downgrade(client, server, last):
    """RFC 8446 section 4.1.3."""
    s, app = server(client())
    s.read_hello()
    s.send(SERVER_HELLO, s.hello_body(
        [(0xff01, b"\0"), (23, b"")], suite=hostile.SUITE_1_2,
        random=os.urandom(24) + b"DOWNGRD" + last))
    assert s.alert() == ILLEGAL


@pytest.fixture(scope="module")
def p384(certs):
    return certs.leaf("p384", key=("-newkey", "ec", "-pkeyopt",
                                   "ec_paramgen_curve:secp384r1"))


def test_signature_that_was_not_asked_for(client, server, certs, p384):
    """PKCS #1 v1.5, and another curve than the named one."""
    t = client()
    for pem, algorithm in ((certs.rsa, PKCS1_SHA256),
                           (p384, hostile.ECDSA_P256)):
        s, app = server(t, pem=pem)
        s.algorithm = algorithm
        s.read_hello()
        s.send_hello()
        s.send_flight()
        assert s.alert() == DECRYPT


def test_signature_of_rsa(client, server, certs):
    s, app = server(client(), pem=certs.rsa)
    s.algorithm = PSS_SHA256
    s.options = ("-sigopt", "rsa_padding_mode:pss", "-sigopt",
                 "rsa_pss_saltlen:digest")
    passes(s.handshake(), app)


@pytest.mark.parametrize("share", [
    (X25519, bytes(32)), (X25519, b"\2" * 31), (P256, b"\4" + b"\2" * 64),
    (P384, b"\4" + b"\2" * 96), (P256, b"\0"), (30, bytes(56))])
def test_share_of_1_2(client, server, share):
    t = client("groups=x25519,secp256r1")
    s, app = server(t)
    s.send_flight_1_2(share)
    assert s.alert() == ILLEGAL


@pytest.mark.parametrize("size", [1, 1000, 16000])
def test_tickets(client, server, size):
    """A server may send any number, of any size."""
    s, app = server(client())
    s.handshake()
    for n in range(50):
        s.send_ticket(bytes([n]) * size, nonce=bytes([n]))
    passes(s, app)
    s.send_ticket(b"t", lifetime=0)
    passes(s, app)


def ticket(lifetime=3600, data=b"t", more=b""):
    """Return a NewSessionTicket."""
    return message(TICKET, lifetime.to_bytes(4, "big") + bytes(4) + vector(
        1, b"n") + vector(2, data) + vector(2, b"") + more)


@pytest.mark.parametrize("tickets", [
    [ticket(7 * 86400 + 1)], [ticket(0xffffffff)], [2 * ticket()],
    [ticket()[:10], ticket()[10:]], [ticket(), ticket(0)],
    [ticket(data=b"t" * 500)[:100], ticket(data=b"t" * 500)[100:]]],
    ids=["longer", "longest", "two", "parts", "none", "more-parts"])
def test_ticket(client, server, tickets):
    s, app = server(client())
    s.handshake()
    for data in tickets:
        s.out += s.ours.seal(HANDSHAKE, data)
    passes(s, app)


@pytest.mark.parametrize("data,number", [
    (ticket(data=b""), DECODE), (ticket(more=b"\0"), DECODE),
    (message(TICKET, bytes(9) + b"\xff\xfft"), DECODE),
    (message(TICKET, ticket()[4:-2] + b"\0\4\0\x2a\0\4"), DECODE),
    (message(TICKET, ticket()[4:-2] + vector(2, extension(51, b""))),
     ILLEGAL), (message(REQUEST, b"\1c\0\0"), UNEXPECTED)],
    ids=["empty", "and-more", "cut", "extension-cut", "extension-of-hello",
         "request"])
def test_invalid_ticket(client, server, data, number):
    t = client()
    s, app = server(t)
    s.handshake()
    s.out += s.ours.seal(HANDSHAKE, data)
    assert s.alert() == number
    t.wait_log(" TLS: ")


@pytest.mark.parametrize("size", [3000, 5000, 5800, 7000, 16000])
def test_large_ticket(client, server, size):
    """A ticket that does not fit into the next hello is not offered."""
    t = client()
    for _ in range(3):
        s, app = server(t)
        s.handshake()
        s.send_ticket(b"t" * size)
        passes(s, app)
