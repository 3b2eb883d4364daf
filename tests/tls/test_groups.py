"""The group that a TLS 1.3 server selects, and the shares that it refuses:
with mbedtls/patches, by its own order, and by RFC 8446, 4.2.8.
"""

import pytest

import support
from shares import ILLEGAL, P256, P384, POINT, X448, X25519, Alert
from wire import HANDSHAKE

pytestmark = pytest.mark.skipif(
    not support.PATCHED, reason="this mbed TLS lacks mbedtls/patches")
GROUPS = (P256, X25519)  # offered by clients


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


def refused(client, *shares, number=ILLEGAL):
    """Check that a hello is refused by this alert, with no message before it.
    """
    client.seen.clear()
    client.send_hello(shares)
    with pytest.raises(Alert) as told:
        client.server_hello()
    assert told.value.number == number
    assert HANDSHAKE not in told.value.before


@pytest.mark.parametrize("groups,taken", [
    ("x25519,secp256r1", X25519), ("secp256r1,x25519", P256)])
@pytest.mark.parametrize("shares", [(P256, X25519), (X25519, P256)])
def test_order_of_the_server(tunnel, by_shares, groups, taken, shares):
    """The server's order decides, not the client's."""
    client = by_shares(tunnel("groups=" + groups), shares)
    client.send_hello()
    assert client.server_hello()[0] == taken


@pytest.mark.parametrize("groups,asked", [
    ("x25519,secp256r1", X25519), ("secp256r1,x25519", P256)])
def test_order_of_what_is_asked_for(tunnel, by_shares, groups, asked):
    client = by_shares(tunnel("groups=" + groups), [(X448, bytes(56))],
                       (X448, P256, X25519, P384))
    client.send_hello()
    assert client.server_hello() == (asked, None)


def test_share_is_worth_more_than_order(tunnel, by_shares):
    """A preferred group is not worth another round trip."""
    t = tunnel("groups=secp384r1,x25519")
    assert by_shares(t, [X25519], (P384, X25519)).handshake() == X25519


@pytest.fixture
def asked(tunnel, by_shares):
    """Connect a client that gets a HelloRetryRequest for X25519."""
    client = by_shares(tunnel("groups=x25519,secp256r1"), [],
                       (P256, X25519))
    client.send_hello()
    assert client.server_hello() == (X25519, None)
    return client


def test_second_hello(asked):
    asked.send_hello([asked.share(X25519)])
    asked.finish(*asked.server_hello())
    asked.send(b"hello")
    assert asked.read() == b"hello"


@pytest.mark.parametrize("shares", [
    [(P256, POINT)], [(X25519, b"\2" * 32), (P256, POINT)],
    [(P256, POINT), (X25519, b"\2" * 32)],
    [(X25519, b"\2" * 32), (X25519, b"\2" * 32)], [(X448, bytes(56))]])
def test_second_hello_with_other_shares(asked, shares):
    refused(asked, *shares)


def test_second_hello_without_a_share(asked):
    """A second HelloRetryRequest would be needed, which RFC 8446, 4.1.4,
    forbids.
    """
    refused(asked, number=40)


@pytest.mark.parametrize("shares", [
    [(X25519, b"\2" * 32), (X25519, b"\3" * 32)],
    [(P256, POINT), (X25519, b"\2" * 32), (X25519, b"\2" * 32)]])
def test_share_twice(tunnel, by_shares, shares):
    refused(by_shares(tunnel(), ()), *shares)


@pytest.mark.parametrize("shares", [
    [(X448, bytes(56)), (X448, bytes(56)), X25519],
    [(0x2a2a, b"\0"), X25519]])
def test_shares_that_are_unknown(tunnel, by_shares, shares):
    """Shares of unknown groups are ignored, including those of RFC 8701."""
    assert by_shares(tunnel(), shares).handshake() == X25519


# RFC 7748 section 6.1, RFC 8446 section 7.4.2: points of small order.
@pytest.mark.parametrize("group,share", [
    (X25519, bytes(32)), (X25519, b"\1" + bytes(31)),
    (X25519, b"\xec" + 30 * b"\xff" + b"\x7f"),
    (X25519, b"\2" * 31), (X25519, b"\2" * 33), (X25519, b""),
    (P256, b"\4" + b"\2" * 64), (P256, POINT[:-1]), (P256, b"\0"),
    (P256, b"\2" + POINT[1:33])])
def test_bad_share(tunnel, by_shares, group, share):
    """The server sends only the alert."""
    t = tunnel()
    refused(by_shares(t, (), (group,)), (group, share))
    t.wait_log("handshake: illegal parameter$")
