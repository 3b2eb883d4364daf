"""accept_proxy: a balancer's header, before TLS, tells who the client is."""

import random
import re
import signal
import socket
import time

import pytest

import proxy
import support
from proxy import (AUTHORITY, LOCAL, PROXY, SIGNATURE, TCP4, TCP6, UNIX,
                   UNSPEC, bound, client_behind, inet_block, ssl_tlv, tlv, v1,
                   v2, v2_header)
from support import WAYS, read_all, read_exactly
from transfers import Dribble

LATE = 1.0 * support.SLOW  # a timeout may be this much late
CLIENT, SERVER = ("192.0.2.77", 51234), ("198.51.100.1", 443)
CLIENT6, SERVER6 = ("2001:db8::4d", 51234), ("2001:db8::1", 443)
V1 = b"PROXY TCP4 192.0.2.77 198.51.100.1 51234 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::4d 2001:db8::1 51234 443\r\n"
assert V1 == v1(CLIENT, SERVER) and V1_6 == v1(CLIENT6, SERVER6)
UNIX_BLOCK = proxy.unix_block(b"/run/client", b"/run/server")
TLVS = tlv(0x01, "h2") + tlv(AUTHORITY, "example.org") + \
    tlv(0x05, b"unique\0id") + tlv(0x04, b"") + tlv(0xEE, bytes(range(99)))

# Headers, and how the log has the client in them; None: as it connected.
HEADERS = {
    "v1 TCP4": (v1(CLIENT, SERVER), "192.0.2.77:51234"),
    "v1 TCP6": (v1(CLIENT6, SERVER6), "[2001:db8::4d]:51234"),
    "v2 TCP4": (v2(CLIENT, SERVER), "192.0.2.77:51234"),
    "v2 TCP6": (v2(CLIENT6, SERVER6), "[2001:db8::4d]:51234"),
    "v2 with TLVs": (v2(CLIENT, SERVER, TLVS), "192.0.2.77:51234"),
    "v2 LOCAL": (v2_header(LOCAL, UNSPEC, b""), None),
}
MORE_HEADERS = {
    "v1 ports": (v1(("0.0.0.0", 0), ("255.255.255.255", 65535)), "0.0.0.0:0"),
    "v1 longest of IPv4": (
        v1(("255.255.255.254", 65535), ("255.255.255.255", 65535)),
        "255.255.255.254:65535"),
    "v1 longest of IPv6": (
        v1((":".join(["ffff"] * 8), 65535), (":".join(["fffe"] * 8), 65535)),
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    "v1 in capitals": (v1(("2001:DB8::4D", 51234), SERVER6),
                       "[2001:db8::4d]:51234"),
    "v1 in full": (
        v1(("2001:0db8:0000:0000:0000:0000:0000:004d", 51234), SERVER6),
        "[2001:db8::4d]:51234"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN with addresses": (
        b"PROXY UNKNOWN 192.0.2.77 198.51.100.1 51234 443\r\n", None),
    "v1 UNKNOWN with anything": (
        b"PROXY UNKNOWN  \xff \x01 PROXY TCP4\r\r\n", None),
    "v1 longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "v2 LOCAL with addresses": (
        v2_header(LOCAL, TCP4, inet_block(CLIENT, SERVER)), None),
    "v2 LOCAL of anything": (v2_header(LOCAL, 0xFF, b"anything"), None),
    "v2 LOCAL with TLVs": (v2_header(LOCAL, UNSPEC, TLVS), None),
    "v2 UNSPEC": (v2_header(PROXY, UNSPEC, b""), None),
    "v2 UNSPEC with anything": (v2_header(PROXY, UNSPEC, b"anything"), None),
    # The specification: those that aren't implemented are UNSPEC.
    "v2 UDP4": (v2_header(PROXY, 0x12, inet_block(CLIENT, SERVER)), None),
    "v2 UDP6": (v2_header(PROXY, 0x22, inet_block(CLIENT6, SERVER6)), None),
    "v2 Unix datagrams": (v2_header(PROXY, 0x32, UNIX_BLOCK), None),
    "v2 Unix": (v2_header(PROXY, UNIX, UNIX_BLOCK), "unix:/run/client"),
    "v2 Unix with TLVs": (v2_header(PROXY, UNIX, UNIX_BLOCK + TLVS),
                          "unix:/run/client"),
    "v2 longest": (v2(CLIENT, SERVER, tlv(0x04, bytes(2048 - 12 - 3))),
                   "192.0.2.77:51234"),
    "v2 longest LOCAL": (v2_header(LOCAL, UNSPEC, bytes(2048)), None),
}
ALL_HEADERS = {**HEADERS, **MORE_HEADERS}


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


def own_address(client):
    return support.tcp_address(client.sock)


def assert_echoes(client):
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"


def finish(client):
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    client.close()


def wait_line(t, peer, words):
    """The line of a connection."""
    return t.wait_log(f"tunnel: (warning: )?{re.escape(peer)} -> {words}")


# Before TLS.

@by_name(ALL_HEADERS)
def test_in_one_segment(room, start, backend, version, header, peer):
    """The header and the ClientHello."""
    t = start()
    client = client_behind(room, t.address, header, version)
    peer = peer or own_address(client)
    assert_echoes(client)
    finish(client)
    wait_line(t, peer, rf"{backend.address} TLSv{version} .* in=5 out=5 .* "
              "closed$")


@by_name(HEADERS)
@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_byte_by_byte(room, start, backend, header, peer, version, mode):
    """All of it, the handshake too, in separate segments."""
    t = start(mode)
    ctx = support.context(room.certs, version)
    client = room.keep(support.Client(t.address, ctx))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sock = Dribble(client.sock)
    client.sock.sendall(header)
    client.handshake()
    assert_echoes(client)
    peer = peer or own_address(client)
    finish(client)
    wait_line(t, peer, f"{backend.address} TLSv{version} .* closed$")


@pytest.mark.parametrize("name", ["v1 TCP4", "v2 TCP4"])
def test_split_anywhere(room, start, name):
    """The rest of it comes together with the ClientHello."""
    header, peer = HEADERS[name]
    t = start()
    for i in range(1, len(header) + 1):
        client = room.keep(support.Client(
            t.address, support.context(room.certs)))
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sock.sendall(header[:i])
        time.sleep(0.002)  # the balancer's pace
        client.sock.sendall(header[i:] + proxy.hello_of(client))
        client.handshake()
        assert_echoes(client)
        finish(client)
    t.wait_log(re.escape(peer) + " -> .* closed$", count=len(header))


def test_longest_one_byte_by_byte(room, start):
    header, peer = MORE_HEADERS["v2 longest"]
    t = start()
    client = room.keep(support.Client(t.address, support.context(room.certs)))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Dribble(client.sock).sendall(header)
    client.handshake()
    assert_echoes(client)
    finish(client)
    wait_line(t, peer, ".* closed$")


def test_on_a_unix_socket(room, start, backend):
    t = start(f"accept=unix:{room.path('accept')}")
    assert_echoes(client_behind(room, t.address, v1(CLIENT, SERVER)))
    assert_echoes(client_behind(room, t.address, b"PROXY UNKNOWN\r\n"))
    for client in room.opened[-2:]:
        finish(client)
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
    assert_echoes(client)
    finish(client)
    assert t.wait() == 0
    assert re.search(f"tunnel: {re.escape(peer)} -> {backend.address} .* "
                     "closed$", t.log(), re.M)


def test_bytes_after_it_are_the_clients(room, start, backend):
    """A second header is not TLS."""
    t = start()
    sock = room.connect(t.address)
    sock.sendall(v1(CLIENT, SERVER) * 2)
    read_all(sock)
    wait_line(t, "192.0.2.77:51234",
              '- .* not TLS but PROXY: the client sent "PROXY TC"$')


# What the client's address is good for.

def test_refused_clients_are_known_by_it(room, start):
    """In the log of what is not served, too."""
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
def test_command_knows_its_client(room, header, peer):
    t = room.tunnel("accept_proxy=yes", "--", "sh", "-c",
                    'echo "$REMOTE_HOST $REMOTE_PORT"')
    client = client_behind(room, t.address, header)
    host, port = (peer or own_address(client)).rsplit(":", 1)
    if host == "unix":  # there are none
        host = port = ""
    assert client.read_all() == (f"{host.strip('[]')} {port}\n".encode(),
                                 "close_notify")


def test_inetd_and_a_command_that_knows_its_client(room):
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


def comes(room, t, host, port, kind=v1):
    """Is a client served that a balancer says is this one?"""
    header = kind((host, port), SERVER6 if ":" in host else SERVER)
    try:
        assert_echoes(client_behind(room, t.address, header))
    except (ConnectionError, support.ssl.SSLError):
        return False
    return True


def test_max_per_ip(room, start, way):
    """All come from one balancer; each is counted by itself."""
    t = start("max_per_ip=2", *way)
    hosts = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
    for n in range(2):
        for host in hosts:
            assert comes(room, t, host, 1000 + n, (v1, v2)[n])
    for host in hosts:
        assert not comes(room, t, host, 1003)
        t.wait_log(f"{host}:1003 refused: its address has 2 connections "
                   r"already \(max_per_ip\)$")
    assert support.statistics(t)["over_max_per_ip"] == len(hosts)


def test_max_per_ip_has_room_again(room, start, way):
    """When one of that address has gone, however it went."""
    t = start("max_per_ip=1", *way)
    for n in range(6):
        support.wait_for(lambda: comes(room, t, "192.0.2.1", 1000 + n),
                         "a place for the next one")
        client = room.opened[-1]
        if n % 3 == 0:
            client.close_notify()
            client.read_all()
        if n % 3 == 1:
            client.reset()
        client.close()
    support.wait_until_alone(t)


def test_max_per_ip_of_a_balancer(room, start, way):
    """It may have many that come from others, and as many of its own as any:
    those that its header tells nothing of.
    """
    t = start("max_per_ip=1", *way)
    for n in range(5):
        assert comes(room, t, f"192.0.2.{n}", 1000)
    local = v2_header(LOCAL, UNSPEC, b"")
    assert_echoes(client_behind(room, t.address, local))
    with pytest.raises((ConnectionError, support.ssl.SSLError)):
        assert_echoes(client_behind(room, t.address, b"PROXY UNKNOWN\r\n"))
    t.wait_log(r"127.0.0.1:\d+ refused: its address has 1 connections? "
               r"already \(max_per_ip\)$")


def test_max_per_ip_before_the_header(room, start, way):
    """Connections that have said nothing yet are no one's."""
    t = start("max_per_ip=1", *way)
    for _ in range(5):
        room.connect(t.address)
    assert comes(room, t, "192.0.2.1", 1000)
    assert comes(room, t, "192.0.2.2", 1000)


def test_max_per_ip_of_an_ipv4_address_in_ipv6(room, start, way):
    """It is the same, whichever way it is told."""
    t = start("max_per_ip=1", *way)
    assert comes(room, t, "192.0.2.1", 1000)
    header = v2(("::ffff:192.0.2.1", 1001), ("::ffff:198.51.100.1", 443))
    with pytest.raises((ConnectionError, support.ssl.SSLError)):
        assert_echoes(client_behind(room, t.address, header))


# It is passed on.

@pytest.fixture(params=["v1", "v2"])
def kind(request):
    return request.param


@pytest.fixture
def chain(room, kind):
    """The header that comes out for one that went in; and the client."""

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
    # The balancer's TLVs are not ours.
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
    """The two have one family in a header."""
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
def test_path_forges_nothing(room, start, path):
    t = start()
    client = client_behind(room, t.address, v2(path, b"/y"))
    finish(client)
    line = t.wait_log(r"in=0 out=0 \d+\.\d{3}s closed$")
    assert re.match(r"tunnel: unix:\S* -> 127\.0\.0\.1:\d+ TLSv1.3 ", line)
    assert line.count(" -> ") == 1 and line.isprintable()
    assert t.log().count("tunnel: unix:") == 1


# Off.

@by_name(HEADERS)
def test_off(room, backend, header, peer):
    """Which is the default: no header is believed that was not asked for."""
    t = room.tunnel(f"connect={backend.address}")
    sock = room.connect(t.address)
    address = support.tcp_address(sock)
    sock.sendall(header)
    sock.shutdown(socket.SHUT_WR)
    read_all(sock)
    wait_line(t, address, "- .* not TLS( but PROXY)?: the client sent ")


def test_reload(room, backend):
    """What is asked of those that come; those that are there stay."""

    def write(yes_or_no):
        return room.write(
            "tunnel.conf", f"accept = 127.0.0.1:0\n"
            f"connect = {backend.address}\ncert = {room.certs.server}\n"
            f"log_level = debug\naccept_proxy = {yes_or_no}\n"
            "sandbox = no\n")  # it hides what it has open

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
            for x in support.sockets(pid)), "the old ones to drain")
        clients.append(client_behind(room, t.address, V1) if answer == "yes"
                       else room.client(t))
    for client in clients:
        assert_echoes(client)
    for answer, sock in waiting:  # as it was before that reload
        client = room.keep(support.Client(sock, support.context(room.certs)))
        sock.sendall((b"" if answer == "yes" else V1) +
                     proxy.hello_of(client))
        assert_echoes(client.handshake())


# What is no header is refused.

HELLO_FIRST = r'no PROXY header: it began with "\\x16\\x03\\x01'


def without(old, new, line=V1):
    assert line.count(old) == 1
    return line.replace(old, new)


NONE = {
    "TLS": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "lower case": V1.lower(),
    "almost": without(b"PROXY", b"PROXX"),
    "no space": b"PROXY\r\n",
    "space": b" " + V1,
    "line": b"\r\n" + V1,
    "zeros": bytes(300),
    "signature": SIGNATURE[:-1] + b"\r" + v2(CLIENT, SERVER)[12:],
    "signature, truncated": v2(CLIENT, SERVER)[1:],
}
BAD = {
    # Version 1, which has exactly one form for each address.
    "no family": b"PROXY \r\n",
    "no addresses": b"PROXY TCP4\r\n",
    "no destination": b"PROXY TCP4 192.0.2.77\r\n",
    "no ports": b"PROXY TCP4 192.0.2.77 198.51.100.1\r\n",
    "no second port": b"PROXY TCP4 192.0.2.77 198.51.100.1 51234\r\n",
    "empty second port": without(b" 443", b" "),
    "a fifth": without(b" 443", b" 443 1"),
    "trailing space": without(b"443", b"443 "),
    "trailing junk": without(b"443", b"443x"),
    "two spaces": without(b"PROXY ", b"PROXY  "),
    "two more spaces": without(b" 51234", b"  51234"),
    "tab": without(b" 51234", b"\t51234"),
    "NUL": without(b" 51234", b"\x0051234"),
    "NUL at the end": without(b"443", b"443\0"),
    "NUL in an address": without(b"192.0.2.77", b"192.0.2.7\0"),
    "LF": without(b"\r\n", b"\n"),
    "CR": without(b"\r\n", b"\r"),
    "CR in between": without(b" 51234", b"\r51234"),
    "LF CR": without(b"\r\n", b"\n\r"),
    "TCP": without(b"TCP4", b"TCP"),
    "TCP5": without(b"TCP4", b"TCP5"),
    "TCP44": without(b"TCP4", b"TCP44"),
    "tcp4": without(b"TCP4", b"tcp4"),
    "UDP4": without(b"TCP4", b"UDP4"),
    "unknown": b"PROXY unknown\r\n",
    "IPv6 in TCP4": without(b"TCP6", b"TCP4", V1_6),
    "IPv4 in TCP6": without(b"TCP4", b"TCP6"),
    "one of each": without(b"198.51.100.1", b"2001:db8::1"),
    "three numbers": without(b"192.0.2.77", b"192.0.77"),
    "five numbers": without(b"192.0.2.77", b"192.0.2.7.7"),
    "a number": without(b"192.0.2.77", b"3221226061"),
    "hexadecimal": without(b"192.0.2.77", b"192.0.2.0x4d"),
    "octal": without(b"192.0.2.77", b"192.0.2.077"),
    "256": without(b"192.0.2.77", b"192.0.2.256"),
    "negative": without(b"192.0.2.77", b"192.0.2.-77"),
    "empty address": without(b"192.0.2.77", b""),
    "name": without(b"192.0.2.77", b"localhost"),
    "brackets": without(b"2001:db8::4d", b"[2001:db8::4d]", V1_6),
    "scope": without(b"2001:db8::4d", b"fe80::1%lo", V1_6),
    "two gaps": without(b"2001:db8::4d", b"2001::db8::4d", V1_6),
    "seven groups": without(b"2001:db8::4d", b"1:2:3:4:5:6:7", V1_6),
    "nine groups": without(b"2001:db8::4d", b"1:2:3:4:5:6:7:8:9", V1_6),
    "five digits": without(b"2001:db8::4d", b"20010:db8::4d", V1_6),
    "no digit": without(b"2001:db8::4d", b"2001:dg8::4d", V1_6),
    "port 65536": without(b"51234", b"65536"),
    "port 100000": without(b"51234", b"100000"),
    "port 2^32": without(b"51234", b"4294967297"),
    "port 2^64": without(b"51234", b"18446744073709551617"),
    "port -1": without(b"51234", b"-1"),
    "port +1": without(b"51234", b"+1"),
    "port 0x1": without(b"51234", b"0x1"),
    "port 01": without(b"51234", b"01"),
    "port 00": without(b"443", b"00"),
    "port 1.0": without(b"51234", b"1.0"),
    "no port": without(b"51234", b"http"),
    "108 bytes": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "108 bytes of an address": without(b"192.0.2.77", b"1" * 72),
    "no end": b"PROXY UNKNOWN " + b"x" * 1000,
    "no end of a number": b"PROXY TCP4 " + b"1" * 1000,
    # Version 2.
    "version 1": v2_header(0x11, TCP4, inet_block(CLIENT, SERVER)),
    "version 3": v2_header(0x31, TCP4, inet_block(CLIENT, SERVER)),
    "version 0": v2_header(0x01, TCP4, inet_block(CLIENT, SERVER)),
    "version 15": v2_header(0xF0, UNSPEC, b""),
    "command 2": v2_header(0x22, TCP4, inet_block(CLIENT, SERVER)),
    "command 15": v2_header(0x2F, UNSPEC, b""),
    "family 4": v2_header(PROXY, 0x41, inet_block(CLIENT, SERVER)),
    "family 15": v2_header(PROXY, 0xF1, inet_block(CLIENT, SERVER)),
    "transport 3": v2_header(PROXY, 0x13, inet_block(CLIENT, SERVER)),
    "transport 15": v2_header(PROXY, 0x2F, inet_block(CLIENT6, SERVER6)),
    "empty": v2_header(PROXY, TCP4, b""),
    "short of IPv4": v2_header(PROXY, TCP4, inet_block(CLIENT, SERVER)[:-1]),
    "short of IPv6": v2_header(PROXY, TCP6,
                               inet_block(CLIENT6, SERVER6)[:-1]),
    "IPv4 in IPv6": v2_header(PROXY, TCP6, inet_block(CLIENT, SERVER)),
    "short of a path": v2_header(PROXY, UNIX, UNIX_BLOCK[:-1]),
    "2049 bytes": v2(CLIENT, SERVER, tlv(0x04, bytes(2049 - 12 - 3))),
    "2049 bytes of LOCAL": v2_header(LOCAL, UNSPEC, bytes(2049)),
    "65535 bytes": SIGNATURE + b"\x21\x11\xff\xff" +
                   inet_block(CLIENT, SERVER),
}


@pytest.fixture
def lonely(room):
    """A backend that is called by nobody, and a tunnel in front of it."""
    backend = room.backend()
    backend.sock.settimeout(0)

    def start(*arguments):
        return room.tunnel(f"connect={backend.address}", "accept_proxy=yes",
                           *arguments)

    yield start
    with pytest.raises(BlockingIOError):
        backend.accept()


def assert_serves(room, t):
    """What was refused has done no harm.  (There is no backend that would
    answer; so it goes no further than to the handshake.)
    """
    with support.connect(t.address) as sock:
        client = support.Client(sock, support.context(room.certs, "1.2"))
        sock.sendall(v1(("192.0.2.250", 1), SERVER) + proxy.hello_of(client))
        assert sock.recv(1) == b"\x16"


def refusal(room, t, data):
    """The line of a connection that sends this, and a ClientHello after it;
    and what it was sent itself.
    """
    client = support.Client(room.connect(t.address),
                            support.context(room.certs))
    address = own_address(client)
    workers = t.workers()
    try:
        client.sock.sendall(data + proxy.hello_of(client))
        got = read_all(client.sock)[0]
    except (BrokenPipeError, ConnectionResetError):
        got = b""
    client.sock.close()  # it waits for that, for a while
    line = t.wait_log(f"tunnel: (notice: )?{re.escape(address)} -> -.* ")
    if "mode=fork" not in t.popen.args:
        assert t.workers() == workers
    return line, got


@pytest.mark.parametrize("data", NONE.values(), ids=NONE.keys())
def test_none(room, lonely, data):
    t = lonely("log_level=notice", "handshake_timeout=60s")
    line, got = refusal(room, t, data)
    assert re.search(r'in=0 out=0 \d+\.\d{3}s no PROXY header: '
                     r'it began with "[^"]+"$', line), line
    assert got == b""
    assert_serves(room, t)


def test_none_tells_what_it_was(room, lonely):
    t = lonely()
    assert re.search('no PROXY header: it began with "GET /',
                     refusal(room, t, NONE["HTTP"])[0])
    assert re.search(HELLO_FIRST, refusal(room, t, b"")[0])
    line = refusal(room, t, b'"\x1b[2J\n\xff')[0]
    assert re.search(r'it began with "\\x22\\x1b\[2J\\x0a\\xff', line), line


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad(room, lonely, data):
    """At once, however long handshake_timeout is."""
    t = lonely("log_level=notice", "handshake_timeout=60s")
    line, got = refusal(room, t, data)
    assert re.search(r"in=0 out=0 \d+\.\d{3}s bad PROXY header: \S", line), \
        line
    assert line.isprintable()
    assert got == b""
    assert_serves(room, t)


@pytest.mark.parametrize("name", ["2049 bytes", "65535 bytes"])
def test_too_long_is_not_waited_for(room, lonely, name):
    """The length alone is enough."""
    t = lonely("handshake_timeout=60s")
    sock = room.connect(t.address)
    address = support.tcp_address(sock)
    sock.sendall(BAD[name][:16])
    assert read_all(sock)[0] == b""
    wait_line(t, address, "- .* bad PROXY header: ")


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_bad_in_every_mode(room, lonely, mode):
    t = lonely(mode)
    for data, words in ((NONE["HTTP"], "no PROXY header: "),
                        (BAD["port 65536"], "bad PROXY header: "),
                        (BAD["version 3"], "bad PROXY header: ")):
        assert words in refusal(room, t, data)[0]


@pytest.mark.parametrize("data,words", [
    (NONE["HTTP"], "no PROXY header: "),
    (BAD["port 65536"], "bad PROXY header: "),
    (BAD["version 3"], "bad PROXY header: ")], ids=["none", "v1", "v2"])
def test_bad_for_inetd(room, data, words):
    backend = room.backend()
    sock, stdin = socket.socketpair()
    sock.settimeout(support.DEADLINE)
    t = room.tunnel("-i", f"connect={backend.address}", "accept_proxy=yes",
                    ready=False, stdin=stdin)
    stdin.close()
    sock.sendall(data)
    assert read_all(sock)[0] == b""
    assert t.wait() == 0
    assert f"s {words}" in t.log()


def test_bad_by_the_thousand(room, lonely):
    """Random changes of good headers make them bad, or leave them good."""
    rng = random.Random(1)
    t = lonely("log_level=debug", "handshake_timeout=60s")
    workers = t.workers()
    good = [header for header, _ in ALL_HEADERS.values()]
    for _ in range(1000):
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(min(len(data), 60))] = rng.randrange(256)
        with support.connect(t.address) as sock:
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                got = read_all(sock)[0]
            except OSError:  # it was refused before it was sent whole
                got = b""
        assert got[:1] in (b"", b"\x15"), data  # or an alert
    t.wait_log(" -> - ", count=1000)
    reasons = re.findall(r" -> - .*?\ds (.*)", t.log())
    strange = [x for x in reasons if not re.match(
        "(no|bad) PROXY header: |closed by the (client|balancer) (before it "
        "sent a byte|within the PROXY header)$|client reset$|not TLS: ", x)]
    assert not strange
    assert sum(" PROXY header: " in x for x in reasons) > 500
    assert_serves(room, t)
    if support.MODE != "fork":
        assert t.workers() == workers


# Ends, and time.

CUT = [1, 5, 6, 12, 13, 16, 20]


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("name", ["v1 TCP4", "v2 TCP4"])
def test_end_in_the_middle(room, lonely, name, cut):
    t = lonely("log_level=notice")
    header = HEADERS[name][0]
    for data in header[:cut], header[:-1]:
        sock = room.connect(t.address)
        address = support.tcp_address(sock)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock)[0] == b""
        wait_line(t, address, "- in=0 out=0 .* closed by the balancer within "
                  "the PROXY header$")
    assert_serves(room, t)


def test_reset_in_the_middle(room, lonely):
    t = lonely()
    sock = room.connect(t.address)
    address = support.tcp_address(sock)
    sock.sendall(V1[:20])
    support.reset(sock)
    wait_line(t, address, "- in=0 out=0 .* client reset$")


PARTS = [b"", b"P", V1[:-1], SIGNATURE, v2(CLIENT, SERVER)[:-1],
         v2(CLIENT, SERVER, bytes(2000))[:-1]]


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_handshake_timeout(room, lonely, mode):
    t = lonely("handshake_timeout=1s", mode)
    for data in PARTS:
        room.connect(t.address).sendall(data)
    socks = room.opened[-len(PARTS):]
    start = time.monotonic()
    for sock in socks:
        assert read_all(sock)[0] == b""
        assert 0.8 < time.monotonic() - start < 1 + LATE
    for sock in socks:
        wait_line(t, support.tcp_address(sock),
                  "- in=0 out=0 .* handshake timeout(: the client sent "
                  "nothing .*)?$")


def test_handshake_timeout_is_one_for_both(room, lonely):
    """The header does not win time for the handshake, nor does a byte of it
    for the header.
    """
    t = lonely("handshake_timeout=1s")
    sock = room.connect(t.address)
    start = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for part in [*re.findall(b"(?s).{4}|.+$", V1), b"\x16\x03\x01\x02",
                     *[b"\0"] * 100]:
            sock.sendall(part)
            time.sleep(0.03)  # the client's pace
    assert 0.9 < time.monotonic() - start < 1 + LATE
    t.wait_log("192.0.2.77:51234 -> - .* handshake timeout$")


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_waiting_costs_nothing(room, lonely, mode):
    """For the rest of a header, or for what comes after it."""
    t = lonely(mode)
    for data in [*PARTS, V1, V1 + b"\x16"]:
        room.connect(t.address).sendall(data)
    t.wait_log(" accepted$", count=len(PARTS) + 2)
    t.wait_log(" is 192.0.2.77:51234$", count=2)
    before = t.cpu_seconds()
    time.sleep(0.5)  # a span to measure
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW


def test_silent_one_keeps_nobody_waiting(room, start):
    """Nor does one that is in the middle of its header."""
    t = start("workers=1")
    for data in (b"", V1[:20], SIGNATURE):
        room.connect(t.address).sendall(data)
    assert_echoes(client_behind(room, t.address, V1))


# Health checks.

@pytest.mark.parametrize("data", [b"", v2_header(LOCAL, UNSPEC, b""), V1],
                         ids=["nothing", "LOCAL", "v1"])
def test_health_check(room, lonely, data):
    """A header alone, and the end: no news at the usual level."""
    quiet, loud = lonely("log_level=info"), lonely("log_level=debug")
    for t in quiet, loud:
        with room.connect(t.address) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock)[0] == b""
    loud.wait_log("-> - in=0 out=0 .* closed by the (client|balancer) before "
                  "it sent a byte$")
    # What comes after it is told, so it would have been told as well.
    refusal(room, quiet, b"")
    assert quiet.log().count(" -> ") == 1


# A real balancer.

BALANCER = """
listen balancer
    mode tcp
    bind {{}}
    server t {address} {words}
"""


@pytest.fixture(params=["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn",
                        "send-proxy-v2 proxy-v2-options crc32c,unique-id "
                        "set-proxy-v2-tlv-fmt(0x20) %[src]"])
def words(request):
    if "set-proxy" in request.param and proxy.haproxy_version() < (2, 9):
        return request.param.split(" set-proxy")[0]
    return request.param


def test_haproxy(room, start, backend, words, version):
    """The client's address, through it: in the log."""
    t = start()
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words))
    client = room.client(bound(room, haproxy.address, "127.0.0.77"), version)
    assert_echoes(client)
    peer = own_address(client)
    finish(client)
    assert peer.startswith("127.0.0.77:")
    wait_line(t, peer, f"{backend.address} TLSv{version} .* closed$")


def test_haproxy_ipv6(room, start, backend, words, ipv6):
    """Of which its own connection to the tunnel has nothing."""
    t = start()
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words), ["::1"])
    client = room.client(haproxy.address)
    assert_echoes(client)
    peer = own_address(client)
    finish(client)
    wait_line(t, peer, f"{backend.address} .* closed$")


def test_haproxy_and_a_command(room, words):
    t = room.tunnel("accept_proxy=yes", "--", "sh", "-c",
                    'echo "$REMOTE_HOST $REMOTE_PORT"')
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words))
    client = room.client(bound(room, haproxy.address, "127.0.0.77"))
    port = client.sock.getsockname()[1]
    assert client.read_all() == (f"127.0.0.77 {port}\n".encode(),
                                 "close_notify")


def test_haproxy_and_max_per_ip(room, start, words):
    t = start("max_per_ip=1")
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words))
    for n in (1, 2, 3):
        assert_echoes(room.client(bound(room, haproxy.address,
                                        f"127.0.1.{n}")))
    with pytest.raises((ConnectionError, support.ssl.SSLError)):
        room.client(bound(room, haproxy.address, "127.0.1.2"))
    t.wait_log(r"127\.0\.1\.2:\d+ refused: ")


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
def test_haproxys_health_checks(room, lonely, words):
    """They find it up, and nobody else hears of them."""
    t = lonely("log_level=info")
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words + " check check-send-proxy inter 20ms"))

    def checks():
        """Those that were passed, in a row."""
        out = haproxy.ask("show servers state").splitlines()
        names = out[1].removeprefix("# ").split()
        return dict(zip(names, out[2].split()))

    assert checks()["srv_op_state"] == "2"
    accepted = support.statistics(t)["accepted"]
    support.wait_for(
        lambda: support.statistics(t)["accepted"] >= accepted + 5,
        "some checks more")
    assert checks()["srv_op_state"] == "2"
    assert [line for line in t.log().splitlines() if " -> " in line and
            not line.startswith("tunnel: live: ")] == []


def test_haproxy_that_sends_none(room, lonely):
    """Its clients are refused, and the log says why."""
    t = lonely()
    haproxy = proxy.Haproxy(room, BALANCER.format(address=t.address, words=""))
    with pytest.raises((ConnectionError, support.ssl.SSLError)):
        room.client(haproxy.address)
    t.wait_log("-> - .* " + HELLO_FIRST)
