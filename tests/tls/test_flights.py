"""A flight of the handshake is sent and received at once, and arrives
completely even if the client reads slowly.
"""

import contextlib
import socket
import ssl
import struct

import pytest

import peers
import support
from certificates import LEAF, concatenate
from support import is_echoed, read_exactly, run
from wire import plain

SEGMENTS_OF_DATA = 152  # tcpi_data_segs_in, <linux/tcp.h>
UNKNOWN = 99  # record type
NAMES = 150  # for a certificate of some 4 KB


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


def segments(client):
    """Return the number of received segments with data."""
    info = client.sock.getsockopt(socket.IPPROTO_TCP,
                                  socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, SEGMENTS_OF_DATA)[0]


def first_flight(client):
    """Receive the server's first flight, without an answer."""
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    client.flush()
    while not client.outgoing.pending:
        client.fill()
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()


def newcomer(room, t, version, who):
    """Connect a client before its handshake."""
    own = None
    if who == "certificate":
        own = room.certs.path("client.pem")
        room.certs.issue("client", LEAF.replace("serverAuth", "clientAuth"))
        concatenate(own, room.certs.path("client.crt"),
                    room.certs.path("client.key"))
    ctx = peers.context(room.certs, version, client=own)
    session = None
    if who == "resuming":
        client = peers.Client(t.address, ctx).handshake()
        assert is_echoed(client)
        session = client.session
        support.end(client)
    return room.keep(peers.Client(t.address, ctx, session=session))


# In TLS 1.2 the server's Finished comes last, except in a resumption.
@pytest.mark.parametrize("version,who,more", [
    ("1.3", "new", 0), ("1.3", "resuming", 0), ("1.3", "certificate", 0),
    ("1.2", "new", 1), ("1.2", "resuming", 0), ("1.2", "certificate", 1)])
def test_flight_is_one_segment(room, tunnel, version, who, more):
    """So are a TLS 1.3 ticket and the first data, except with kernel TLS.  If
    signing is slow, the messages before it may be sent first.
    """
    t = tunnel("ktls=off", f"ca={room.certs.ca}", "verify=request")
    client = newcomer(room, t, version, who)
    first_flight(client)
    first = segments(client)
    assert first == 1 or (first == 2 and who != "resuming")
    client.handshake()
    assert client.resumed == (who == "resuming")
    assert segments(client) == first + more
    assert is_echoed(client)
    assert segments(client) == first + more + 1


def test_hello_retry_request_does_not_wait(room, tunnel):
    t = tunnel("groups=secp384r1")
    out = run("openssl", "s_client", "-connect", t.address, "-msg",
              "-groups", "X25519:P-384").decode()
    assert out.count("ServerHello") == 2
    assert out.count("ClientHello") == 2


# A network in which even a flight does not fit into the send buffer.

@pytest.fixture
def narrow():
    """Set up the network, before the room."""
    with support.namespace() as ip:
        run(ip, "link", "set", "lo", "mtu", "1500")
        support.limit_send_buffers(4608)
        yield


@pytest.fixture
def stalled(narrow, room, tunnel):
    """Return a function that connects a client, which sends its hello and
    reads nothing until the buffers are full; it returns tunnel and client.
    """
    names = ",".join(f"DNS:host-{i}.example.org" for i in range(NAMES))
    pem = room.certs.path("long.pem")
    room.certs.issue("long", f"{LEAF}\nsubjectAltName=DNS:localhost,{names}")
    concatenate(pem, room.certs.path("long.crt"), room.certs.path("long.key"))

    def start(version, *arguments):
        t = tunnel(f"cert={pem}", *arguments)
        client = room.keep(peers.Client(
            t.address, peers.context(room.certs, version), rcvbuf=1))
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.flush()
        support.wait_until_stalled(client.sock)
        assert support.unread(client.sock) < NAMES * 20
        return t, client

    return start


def slowly(client):
    """Read in small pieces."""
    while True:
        try:
            client.tls.do_handshake()
            return
        except ssl.SSLWantReadError:
            client.flush()
            client.incoming.write(read_exactly(client.sock, 1))


def test_slow_client(stalled, version):
    t, client = stalled(version)
    slowly(client)
    client.flush()
    assert is_echoed(client)
    support.end(client)
    assert " closed" in t.wait_log(r"\d\.\d{3}s ")


def test_alert_follows_the_flight(stalled, version):
    """The error arrives before the flight has been sent."""
    if version == "1.3" and not support.PATCHED:
        pytest.skip("mbed TLS encrypts it by the wrong keys")
    t, client = stalled(version)
    client.sock.sendall(plain(UNKNOWN, b"?"))
    with pytest.raises(ssl.SSLError, match="(?i)unexpected.message"):
        slowly(client)
        client.recv()
        raise ssl.SSLError(0, client.end)
    t.wait_log("handshake: unknown record type")


def test_client_that_takes_nothing(stalled, version):
    """It is disconnected at the handshake timeout."""
    t, client = stalled(version, "handshake_timeout=1s")
    t.wait_log(" handshake timeout$")
    client.close()
