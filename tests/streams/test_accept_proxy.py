"""accept_proxy: the client's address comes from a load balancer's header,
which precedes TLS.
"""

import re
import signal
import socket
import ssl
import time

import pytest

import peers
import proxy
import support
from proxy import (ALL_HEADERS, AUTHORITY, CLIENT, CLIENT6, HEADERS, LOCAL,
                   MORE_HEADERS, PROXY, SERVER, SERVER6, TCP4, TLVS, UNIX,
                   UNIX_BLOCK, UNSPEC, V1, client_behind, inet_block,
                   own_address, ssl_tlv, tlv, v1, v2, v2_header, wait_line)
from support import WAYS, end, is_echoed, read_all
from transfers import Dribble


def by_name(headers):
    return pytest.mark.parametrize("header,peer", headers.values(),
                                   ids=headers.keys())


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        f"connect={backend.address}", "accept_proxy=yes", *arguments)


# Before TLS.

@by_name(ALL_HEADERS)
def test_in_one_segment(room, start, backend, version, header, peer):
    """The header and the ClientHello share a segment."""
    t = start()
    client = client_behind(room, t.address, header, version)
    peer = peer or own_address(client)
    assert is_echoed(client)
    end(client)
    wait_line(t, peer, rf"{backend.address} TLSv{version} .* in=5 out=5 .* "
              "closed$")


@by_name(HEADERS)
@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_byte_by_byte(room, start, backend, header, peer, version, mode):
    """Header and handshake arrive in one-byte segments."""
    t = start(mode)
    ctx = peers.context(room.certs, version)
    client = room.keep(peers.Client(t.address, ctx))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sock = Dribble(client.sock)
    client.sock.sendall(header)
    client.handshake()
    assert is_echoed(client)
    peer = peer or own_address(client)
    end(client)
    wait_line(t, peer, f"{backend.address} TLSv{version} .* closed$")


@pytest.mark.parametrize("name", ["v1 TCP4", "v2 TCP4"])
def test_split_anywhere(room, start, name):
    """The rest of the header arrives together with the ClientHello."""
    header, peer = HEADERS[name]
    t = start()
    for i in range(1, len(header) + 1):
        client = room.keep(peers.Client(
            t.address, peers.context(room.certs)))
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sock.sendall(header[:i])
        time.sleep(0.002)  # pacing of the balancer
        client.sock.sendall(header[i:] + proxy.hello_of(client))
        client.handshake()
        assert is_echoed(client)
        end(client)
    t.wait_log(re.escape(peer) + " -> .* closed$", count=len(header))


def test_longest_one_byte_by_byte(room, start):
    header, peer = MORE_HEADERS["v2 longest"]
    t = start()
    client = room.keep(peers.Client(t.address, peers.context(room.certs)))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Dribble(client.sock).sendall(header)
    client.handshake()
    assert is_echoed(client)
    end(client)
    wait_line(t, peer, ".* closed$")


def test_on_a_unix_socket(room, start, backend):
    t = start(f"accept=unix:{room.path('accept')}")
    assert is_echoed(client_behind(room, t.address, v1(CLIENT, SERVER)))
    assert is_echoed(client_behind(room, t.address, b"PROXY UNKNOWN\r\n"))
    for client in room.opened[-2:]:
        end(client)
    wait_line(t, "192.0.2.77:51234", f"{backend.address} .* closed$")
    wait_line(t, "unix:", f"{backend.address} .* closed$")


@by_name(HEADERS)
def test_inetd(room, backend, header, peer, version):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = room.connect(support.tcp_address(listener))
        stdin = listener.accept()[0]
        t = room.tunnel("-i", f"connect={backend.address}",
                        "accept_proxy=yes", ready=False, stdin=stdin)
        stdin.close()
    client = client_behind(room, sock, header, version)
    peer = peer or own_address(client)
    assert is_echoed(client)
    end(client)
    assert t.wait() == 0
    assert re.search(f"tunnel: {re.escape(peer)} -> {backend.address} .* "
                     "closed$", t.log(), re.M)


def test_bytes_after_the_header_belong_to_tls(room, start, backend):
    """A second header is not TLS."""
    t = start()
    sock = room.connect(t.address)
    sock.sendall(v1(CLIENT, SERVER) * 2)
    read_all(sock)
    wait_line(t, "192.0.2.77:51234",
              '- .* not TLS but PROXY: the client sent "PROXY TC"$')


# Uses of the client's address.

def test_refused_clients_are_logged_by_it(room, start):
    """Clients that are not served are logged by the address in the header."""
    t = start("handshake_timeout=1s")
    socks = []
    for after in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01"):
        sock = room.connect(t.address)
        sock.sendall(v2(CLIENT, SERVER) + after)
        socks.append(sock)
    wait_line(t, "192.0.2.77:51234",
              '- .* not TLS but HTTP: the client sent "GET / HT"$')
    wait_line(t, "192.0.2.77:51234", "- .* handshake timeout$")


@by_name(ALL_HEADERS)
def test_client_address_of_a_command(room, header, peer):
    t = room.tunnel("accept_proxy=yes", "--", "sh", "-c",
                    'echo "$REMOTE_HOST $REMOTE_PORT"')
    client = client_behind(room, t.address, header)
    host, port = (peer or own_address(client)).rsplit(":", 1)
    if host == "unix":  # Unix sockets have no addresses
        host = port = ""
    assert client.read_all() == (f"{host.strip('[]')} {port}\n".encode(),
                                 "close_notify")


def test_inetd_and_the_client_address_of_a_command(room):
    sock, stdin = socket.socketpair()
    sock.settimeout(support.DEADLINE)
    t = room.tunnel("-i", "accept_proxy=yes", "--", "sh", "-c",
                    'echo "$REMOTE_HOST $REMOTE_PORT"', ready=False,
                    stdin=stdin)
    stdin.close()
    client = client_behind(room, sock, v1(CLIENT6, SERVER6))
    assert client.read_all() == (b"2001:db8::4d 51234\n", "close_notify")
    client.close()
    assert t.wait() == 0


@pytest.fixture(params=WAYS, ids=",".join)
def way(request):
    return request.param


def is_served_as(room, t, host, port, kind=v1):
    """Whether a client is served when the header gives this address."""
    header = kind((host, port), SERVER6 if ":" in host else SERVER)
    try:
        assert is_echoed(client_behind(room, t.address, header))
    except (ConnectionError, ssl.SSLError):
        return False
    return True


def test_max_per_ip(room, start, way):
    """Clients of one balancer are counted by their own addresses."""
    t = start("max_per_ip=2", *way)
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
    for n in range(2):
        for host in hosts:
            assert is_served_as(room, t, host, 1000 + n, (v1, v2)[n])
    for host in hosts:
        assert not is_served_as(room, t, host, 1003)
        t.wait_log(f"{host}:1003 refused: its address already has 2"
                   r" connections \(max_per_ip\)$")
    assert support.statistics(t)["over_max_per_ip"] == len(hosts)


def test_max_per_ip_has_room_again(room, start, way):
    """A slot is free after a client of the address has gone, in whatever way.
    """
    t = start("max_per_ip=1", *way)
    for n in range(6):
        support.wait_for(lambda: is_served_as(room, t, "192.0.2.1", 1000 + n),
                         "a free slot")
        client = room.opened[-1]
        if n % 3 == 0:
            client.close_notify()
            client.read_all()
        if n % 3 == 1:
            client.reset()
        client.close()
    support.wait_until_alone(t)


def test_max_per_ip_of_a_balancer(room, start, way):
    """The limit ignores connections of the balancer for other clients.  It
    applies to headers without an address, which count for the balancer.
    """
    t = start("max_per_ip=1", *way)
    for n in range(5):
        assert is_served_as(room, t, f"192.0.2.{n}", 1000)
    local = v2_header(LOCAL, UNSPEC, b"")
    assert is_echoed(client_behind(room, t.address, local))
    with pytest.raises((ConnectionError, ssl.SSLError)):
        assert is_echoed(client_behind(room, t.address, b"PROXY UNKNOWN\r\n"))
    t.wait_log(r"127.0.0.1:\d+ refused: its address already has 1 connections?"
               r" \(max_per_ip\)$")


def test_max_per_ip_before_the_header(room, start, way):
    """Connections that have not sent their header do not count."""
    t = start("max_per_ip=1", *way)
    for _ in range(5):
        room.connect(t.address)
    assert is_served_as(room, t, "192.0.2.1", 1000)
    assert is_served_as(room, t, "192.0.2.2", 1000)


def test_max_per_ip_of_an_ipv4_address_in_ipv6(room, start, way):
    """An IPv4 address counts as the same in both notations."""
    t = start("max_per_ip=1", *way)
    assert is_served_as(room, t, "192.0.2.1", 1000)
    header = v2(("::ffff:192.0.2.1", 1001), ("::ffff:198.51.100.1", 443))
    with pytest.raises((ConnectionError, ssl.SSLError)):
        assert is_echoed(client_behind(room, t.address, header))


# Passing the addresses on.

@pytest.fixture(params=["v1", "v2"])
def kind(request):
    return request.param


@pytest.fixture
def chain(room, kind):
    """The outgoing header for an incoming one, and the client."""

    def passed_on(header, *arguments):
        backend = room.backend()
        t = room.tunnel(f"connect={backend.address}", "accept_proxy=yes",
                        f"proxy_protocol={kind}", *arguments)
        client = client_behind(room, t.address, header)
        client.send(b"hello")
        client.close_notify()
        server = room.keep(backend.accept())
        out = proxy.read_header(server, kind)
        assert read_all(server) == (b"hello", "eof")
        return out, client

    return passed_on


def header_of(kind, client, source, destination):
    if kind == "v1":
        return v1(source, destination)
    return v2(source, destination,
              tlv(AUTHORITY, "localhost") + ssl_tlv(client))


@pytest.mark.parametrize("header,source,destination", [
    (v1(CLIENT, SERVER), CLIENT, SERVER),
    (v2(CLIENT, SERVER), CLIENT, SERVER),
    (v1(CLIENT6, SERVER6), CLIENT6, SERVER6),
    (v2(CLIENT6, SERVER6), CLIENT6, SERVER6),
    # The balancer's TLVs are not passed on.
    (v2(CLIENT, SERVER, TLVS), CLIENT, SERVER),
], ids=["v1 TCP4", "v2 TCP4", "v1 TCP6", "v2 TCP6", "TLVs"])
@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_both_addresses_are_passed_on(chain, kind, header, source,
                                      destination, mode):
    out, client = chain(header, mode)
    assert out == header_of(kind, client, source, destination)


@pytest.mark.parametrize("header", [
    v2_header(LOCAL, UNSPEC, b""),
    v2_header(LOCAL, TCP4, inet_block(CLIENT, SERVER)),
    v2_header(PROXY, UNSPEC, b""), b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN 192.0.2.77 198.51.100.1 51234 443\r\n",
], ids=["LOCAL", "LOCAL TCP4", "UNSPEC", "UNKNOWN", "UNKNOWN addresses"])
def test_addresses_of_the_connection_are_passed_on(chain, kind, header):
    out, client = chain(header)
    assert out == header_of(kind, client, client.sock.getsockname(),
                            client.sock.getpeername())


def test_ipv4_in_ipv6_is_passed_on_as_ipv4(chain, kind):
    out, client = chain(v2(("::ffff:192.0.2.77", 51234),
                           ("::ffff:198.51.100.1", 443)))
    assert out == header_of(kind, client, CLIENT, SERVER)


def test_ipv4_in_ipv6_on_one_side(chain, kind):
    """Source and destination share one address family in a header."""
    out, client = chain(v2(("::ffff:192.0.2.77", 51234), SERVER6))
    assert out == header_of(kind, client, ("::ffff:192.0.2.77", 51234),
                            SERVER6)


def test_longest_addresses_are_passed_on(chain, kind):
    source = (":".join(["ffff"] * 8), 65535)
    destination = (":".join(["fffe"] * 8), 65534)
    out, client = chain(v1(source, destination))
    assert out == header_of(kind, client, source, destination)


def test_paths_are_passed_on(chain, kind):
    out, client = chain(v2_header(PROXY, UNIX, UNIX_BLOCK))
    if kind == "v1":
        assert out == b"PROXY UNKNOWN\r\n"
    else:
        assert out == header_of(kind, client, b"/run/client", b"/run/server")


def test_longest_paths_are_passed_on(chain, kind):
    paths = b"a" * 108, b"b" * 108
    out, client = chain(v2(*paths))
    if kind == "v1":
        assert out == b"PROXY UNKNOWN\r\n"
    else:
        assert out == header_of(kind, client, *paths)


def test_passed_on_to_a_command(room, kind):
    t = room.tunnel("accept_proxy=yes", f"proxy_protocol={kind}", "--", "cat")
    client = client_behind(room, t.address, v1(CLIENT, SERVER))
    client.close_notify()
    assert client.read_all() == (header_of(kind, client, CLIENT, SERVER),
                                 "close_notify")


@pytest.mark.parametrize("path", [
    b"/x -> 127.0.0.1:1 TLSv1.3 in=1 out=1 0.001s closed",
    b"/x\n tunnel: forged", b"/\x1b[2J\xff"], ids=range(3))
def test_path_forges_no_log_line(room, start, path):
    t = start()
    client = client_behind(room, t.address, v2(path, b"/y"))
    end(client)
    line = t.wait_log(r"in=0 out=0 \d+\.\d{3}s closed$")
    assert re.match(r"tunnel: unix:\S* -> 127\.0\.0\.1:\d+ TLSv1.3 ", line)
    assert line.count(" -> ") == 1 and line.isprintable()
    assert t.log().count("tunnel: unix:") == 1


# Disabled.

@by_name(HEADERS)
def test_off(room, backend, header, peer):
    """Off is the default: headers are accepted only if enabled."""
    t = room.tunnel(f"connect={backend.address}")
    sock = room.connect(t.address)
    address = support.tcp_address(sock)
    sock.sendall(header)
    sock.shutdown(socket.SHUT_WR)
    read_all(sock)
    wait_line(t, address, "- .* not TLS( but PROXY)?: the client sent ")


def test_reload(room, backend):
    """A reload changes the rule for new connections; open ones keep theirs."""

    def write(yes_or_no):
        return room.write(
            "tunnel.conf", f"accept = 127.0.0.1:0\n"
            f"connect = {backend.address}\ncert = {room.certs.server}\n"
            f"log_level = debug\naccept_proxy = {yes_or_no}\n"
            "sandbox = no\n")  # the test lists open sockets

    t = room.tunnel("-c", write("no"))
    waiting, clients = [], [room.client(t)]
    for n, answer in enumerate(["yes", "no", "yes"]):
        waiting.append((answer, room.connect(t.address)))
        t.wait_log(" accepted$", count=len(waiting) + len(clients))
        write(answer)
        listeners, workers = support.sockets(t.pid), t.workers()
        t.signal(signal.SIGHUP)
        t.wait_log("tunnel: reloaded$", n + 1)
        support.wait_for(lambda: not any(
            x in listeners for pid in workers
            for x in support.sockets(pid)), "the old workers to drain")
        clients.append(client_behind(room, t.address, V1) if answer == "yes"
                       else room.client(t))
    for client in clients:
        assert is_echoed(client)
    for answer, sock in waiting:  # still under the previous configuration
        client = room.keep(peers.Client(sock, peers.context(room.certs)))
        sock.sendall((b"" if answer == "yes" else V1) +
                     proxy.hello_of(client))
        assert is_echoed(client.handshake())
