"""X25519MLKEM768, draft-ietf-tls-ecdhe-mlkem, in builds that have it: tested
by a handmade client with an independent implementation of ML-KEM.
"""

import re
import ssl

import pytest

import mlkem
import support
from hostile import Server
from kernel_tls import MOVED, needs_ktls
from shares import (HYBRID, ILLEGAL, P256, SERVER_HELLO, SHARES, VERSIONS,
                    X25519, Alert)
from transfers import Dribble
from wire import RETRY, vector

NAME = "x25519mlkem768"
pytestmark = pytest.mark.skipif(NAME not in support.GROUPS, reason=
                                "this build has no X25519MLKEM768")
GROUPS = (HYBRID, X25519)  # offered by clients
DECODE = 50  # decode_error


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


def echoes(client):
    client.send(b"hello")
    return client.read() == b"hello"


def test_handshake(tunnel, by_shares):
    """It is the first of the default groups."""
    t = tunnel()
    client = by_shares(t, [HYBRID])
    assert client.handshake() == HYBRID
    assert echoes(client)
    client.close()
    t.wait_log(rf" TLSv1.3 TLS_CHACHA20_POLY1305_SHA256 {NAME} ")


@pytest.mark.parametrize("shares", [(HYBRID, X25519), (X25519, HYBRID),
                                    (P256, X25519, HYBRID)])
def test_it_is_preferred(tunnel, by_shares, shares):
    """At any place among a client's shares."""
    client = by_shares(tunnel(), shares, (P256, X25519, HYBRID))
    assert client.handshake() == HYBRID and echoes(client)


def test_client_without_a_share_is_not_asked_again(tunnel, by_shares):
    client = by_shares(tunnel(), [X25519])
    client.send_hello()
    group, share = client.server_hello()
    assert group == X25519 and share is not None


def test_retry_to_it(tunnel, by_shares):
    """The tunnel has no other group."""
    t = tunnel("groups=X25519MLKEM768")
    client = by_shares(t, [X25519])
    client.send_hello()
    assert client.server_hello() == (HYBRID, None)
    client.send_hello([client.share(HYBRID)])
    client.finish(*client.server_hello())
    assert echoes(client)


def test_retry_from_it(tunnel, by_shares):
    t = tunnel("groups=x25519")
    client = by_shares(t, [HYBRID])
    assert client.handshake() == X25519 and echoes(client)


def test_client_that_does_not_know_it(tunnel, by_shares):
    client = by_shares(tunnel(f"groups={NAME},x25519"), [], [X25519])
    assert client.handshake() == X25519 and echoes(client)


def test_none_in_common(tunnel, by_shares):
    t = tunnel("groups=" + NAME)
    with pytest.raises(Alert, match="^alert 40 "):
        by_shares(t, [X25519], [X25519]).handshake()


def test_resumption(tunnel, by_shares):
    """A resumed session has its own key exchange."""
    t = tunnel()
    client = by_shares(t, [HYBRID])
    client.handshake()
    assert echoes(client) and not client.resumed
    for shares in [HYBRID], [X25519], []:
        again = by_shares(t, shares, session=client.kept)
        assert again.handshake() == (shares or [HYBRID])[0]
        assert again.resumed and echoes(again)
        again.close()
    t.wait_log(rf" {NAME} (ktls )?resumed ", count=2)


@pytest.mark.parametrize("mode", ["mode=fork", "workers=4"])
def test_no_answer_is_given_twice(tunnel, by_shares, mode):
    """Forked processes never answer the same key with the same ciphertext."""
    t, answers = tunnel(mode), set()
    share = by_shares(t, [HYBRID]).shares[0]
    for _ in range(12):
        client = by_shares(t, [share])
        client.send_hello()
        group, answer = client.server_hello()
        answers |= {(group, answer[:mlkem.CT]), answer[mlkem.CT:]}
    assert len(answers) == 24


@needs_ktls
def test_in_the_kernel(moved_tunnel, by_shares):
    """The kernel gets the resulting keys as usual."""
    t, ours = moved_tunnel()
    client = by_shares(t, [HYBRID])
    client.handshake()
    assert echoes(client)
    client.close()
    assert MOVED in t.wait_log(rf" {NAME} .* ")
    ours.expect(1)


def test_hello_in_pieces(tunnel, by_shares):
    """Records of a few bytes, at first in segments of one byte."""
    t = tunnel()
    client = by_shares(t, [HYBRID])
    client.send_hello(size=100)
    client.finish(*client.server_hello())
    assert echoes(client)
    client = by_shares(t, [HYBRID])
    sock, client.sock = client.sock, Dribble(client.sock)
    client.send_hello()
    client.sock = sock
    client.finish(*client.server_hello())
    assert echoes(client)


def overflowing(ek):
    """Return a key with a coefficient not below the modulus, FIPS 203 section
    7.2.
    """
    return (int.from_bytes(ek[:3], "little") | 0xfff).to_bytes(
        3, "little") + ek[3:]


EK = mlkem.EK
BAD = {
    "empty": lambda share: b"",
    "short": lambda share: share[:-1],
    "long": lambda share: share + b"\0",
    "x25519-alone": lambda share: share[EK:],
    "mlkem-alone": lambda share: share[:EK],
    "too-short-for-x25519": lambda share: share[:31],
    "a-ciphertext": lambda share: share[:mlkem.CT + 32],
    "swapped": lambda share: share[EK:] + overflowing(share[:EK]),
    "overflow": overflowing,
    "overflow-at-the-end": lambda share: share[:1149] + b"\xff\xff\xff" +
    share[1152:],
    "modulus": lambda share: (int.from_bytes(share[:3], "little") &
                              ~0xfff | mlkem.Q).to_bytes(3, "little") +
    share[3:],
    "zeros-of-x25519": lambda share: share[:EK] + bytes(32),
    "one-of-x25519": lambda share: share[:EK] + b"\1" + bytes(31),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_share(tunnel, by_shares, name):
    """The server sends only the alert, also with a valid share beside it."""
    t = tunnel()
    for more in (), (X25519,):
        client = by_shares(t, (HYBRID, *more))
        group, share = client.shares[0]
        client.shares[0] = group, BAD[name](share)
        client.send_hello()
        with pytest.raises(Alert) as told:
            client.server_hello()
        assert (told.value.number, told.value.before) == (ILLEGAL, [])
        client.close()
    t.wait_log("handshake: illegal parameter$", count=2)


def test_greatest_coefficient_is_taken(tunnel, by_shares):
    """The modulus minus 1."""
    client = by_shares(tunnel(), [HYBRID])
    group, share = client.shares[0]
    first = int.from_bytes(share[:3], "little") & ~0xfff | mlkem.Q - 1
    client.shares[0] = group, first.to_bytes(3, "little") + share[3:]
    client.send_hello()
    assert client.server_hello()[0] == HYBRID


@pytest.mark.parametrize("shares", [
    [(HYBRID, bytes(EK + 32)), (HYBRID, bytes(EK + 32))],
    [X25519, (HYBRID, bytes(EK + 32)), (HYBRID, b"\1")]])
def test_share_twice(tunnel, by_shares, shares):
    client = by_shares(tunnel(), shares)
    client.send_hello()
    with pytest.raises(Alert, match=rf"^alert {ILLEGAL} behind \[\]"):
        client.server_hello()


def test_second_hello_with_another_share(tunnel, by_shares):
    client = by_shares(tunnel("groups=" + NAME), [X25519],
                       (HYBRID, X25519))
    client.send_hello()
    assert client.server_hello() == (HYBRID, None)
    client.send_hello([client.share(X25519)])
    with pytest.raises(Alert, match=f"^alert {ILLEGAL} "):
        client.server_hello()


def test_not_in_tls12(room, tunnel):
    """TLS 1.2 uses the other groups."""
    t = tunnel(f"groups={NAME},secp384r1")
    room.client(t, "1.2").close()
    t.wait_log(r" TLSv1.2 \S+ secp384r1 ")


# Messages about it.

def checked(room, *words, status=0):
    return support.run(support.TUNNEL, "-t", "accept=127.0.0.1:0",
                       "connect=127.0.0.1:1", f"cert={room.certs.server}",
                       *words, status=status).decode()


def test_defaults_are_shown(room):
    out = checked(room)
    assert re.findall(r"^#\t([a-z]\S+)$", out, re.M)[0] == NAME


WARNING = ("groups: TLS 1.2 is not offered: no group in the list can be used "
           "with it")


@pytest.mark.parametrize("words,warns", [
    ([f"groups={NAME}"], True), (["groups=X25519MLKEM768"], True),
    ([f"groups={NAME}", "tls_min=1.3"], False),
    ([f"groups={NAME},secp256r1"], False)])
def test_nothing_for_tls12(room, words, warns):
    assert (WARNING in checked(room, *words)) == warns


def test_nothing_for_tls12_alone(room):
    out = checked(room, f"groups={NAME}", "tls_max=1.2", status=2)
    assert "no group in the list can be used with tls_max = 1.2" in out


def test_tls12_is_not_offered(room, tunnel):
    """The alert for a TLS 1.2 client is about the version, not the group."""
    t = tunnel("groups=" + NAME)
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        room.client(t, "1.2")


# The other role: what a client offers to a handmade server.

@pytest.fixture
def offered(room, certs, by_hand):
    """Return what a tunnel offers, and the server that has read it."""

    def make(*arguments):
        t = room.tunnel("client=yes", f"connect={by_hand.address}",
                        "server_name=localhost", f"ca={certs.ca}",
                        *arguments)
        app = room.connect(t.address)
        server = Server(room.keep(by_hand.accept()), certs.server,
                        certs.server)
        return server.read_hello(), app

    return make


def asked_for(group):
    return [(SHARES, group.to_bytes(2, "big"))]


@pytest.mark.parametrize("group", [HYBRID, X25519])
def test_both_shares(offered, group):
    """Two shares with one key, so that any server can select one without a
    retry.
    """
    server, app = offered()
    assert list(server.shares) == [HYBRID, X25519]
    assert server.shares[HYBRID][mlkem.EK:] == server.shares[X25519]
    server.handshake(group)
    server.send_data(b"hello")
    assert support.read_exactly(app, 5) == b"hello"


@pytest.mark.parametrize("groups,shares", [
    (NAME, [HYBRID]), ("x25519," + NAME, [X25519]),
    (NAME + ",secp256r1", [HYBRID]),
    (NAME + ",secp256r1,x25519", [HYBRID, X25519])])
def test_shares_of_the_groups(offered, groups, shares):
    server, _ = offered("groups=" + groups)
    assert list(server.shares) == shares


def test_retry_to_neither(offered):
    server, _ = offered()
    server.retry(asked_for(P256))
    assert list(server.shares) == [P256]


def test_retry_for_a_cookie_alone(offered):
    """The shares are unchanged."""
    server, app = offered()
    server.retry([(44, b"\0\1c")])
    assert list(server.shares) == [HYBRID, X25519]
    server.handshake(X25519)
    server.send_data(b"hello")
    assert support.read_exactly(app, 5) == b"hello"


@pytest.mark.parametrize("group", [HYBRID, X25519])
def test_retry_to_what_was_offered(offered, group):
    server, _ = offered()
    server.send(SERVER_HELLO, server.hello_body(
        [(VERSIONS, b"\3\4"), *asked_for(group)], random=RETRY))
    assert server.alert() == ILLEGAL


@pytest.mark.parametrize("group,size", [
    (HYBRID, mlkem.CT + 31), (HYBRID, mlkem.CT + 33), (HYBRID, mlkem.CT),
    (HYBRID, 32), (X25519, 33), (X25519, 0)])
def test_answer_of_another_size(offered, group, size):
    server, _ = offered()
    server.send(SERVER_HELLO, server.hello_body([
        (VERSIONS, b"\3\4"),
        (SHARES, group.to_bytes(2, "big") + vector(2, bytes(size)))]))
    assert server.alert() in (ILLEGAL, DECODE)


def test_answer_that_was_not_offered(offered):
    server, _ = offered(f"groups={NAME},secp256r1")
    server.send(SERVER_HELLO, server.hello_body([
        (VERSIONS, b"\3\4"),
        (SHARES, X25519.to_bytes(2, "big") + vector(2, b"\2" * 32))]))
    assert server.alert() == ILLEGAL


def test_openssl_server_without_it(room, certs, by_hand):
    """It is too old for the group, but needs no retry."""
    port = support.free_port()
    s = room.start("s_server", [
        "openssl", "s_server", "-accept", port, "-cert", certs.server,
        "-groups", "X25519:P-256", "-rev", "-trace"])
    s.wait_log("^ACCEPT")
    t = room.tunnel("client=yes", f"connect={port}", f"ca={certs.ca}",
                    "server_name=localhost")
    app = room.connect(t.address)
    app.sendall(b"hello\n")
    assert support.read_exactly(app, 6) == b"olleh\n"
    assert s.log().count("ClientHello, Length=") == 1
