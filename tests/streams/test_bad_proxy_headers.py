"""accept_proxy: bad headers are refused, and incomplete ones block nobody."""

import random
import re
import socket
import time

import pytest

import peers
import proxy
import support
from proxy import (ALL_HEADERS, CLIENT, CLIENT6, HEADERS, HELLO_FIRST, LOCAL,
                   PROXY, SERVER, SERVER6, SIGNATURE, TCP4, TCP6, UNIX,
                   UNIX_BLOCK, UNSPEC, V1, V1_6, client_behind, inet_block,
                   own_address, tlv, v1, v2, v2_header, wait_line)
from support import is_echoed, read_all


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        f"connect={backend.address}", "accept_proxy=yes", *arguments)


LATE = 1.0 * support.SLOW  # tolerance for lateness


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
    # Version 1 has exactly one form for each address.
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


def assert_serves(room, t):
    """The tunnel still serves after a refusal. (There is no backend, so the
    check ends within the handshake.)
    """
    with support.connect(t.address) as sock:
        client = peers.Client(sock, peers.context(room.certs, "1.2"))
        sock.sendall(v1(("192.0.2.250", 1), SERVER) + proxy.hello_of(client))
        assert sock.recv(1) == b"\x16"


def refusal(room, t, data):
    """The log line of a connection that sends data and a ClientHello, and the
    bytes that it received.
    """
    client = peers.Client(room.connect(t.address),
                          peers.context(room.certs))
    address = own_address(client)
    workers = t.workers()
    try:
        client.sock.sendall(data + proxy.hello_of(client))
        got = read_all(client.sock)[0]
    except (BrokenPipeError, ConnectionResetError):
        got = b""
    client.sock.close()  # ends the lingering close
    line = t.wait_log(f"tunnel: (notice: )?{re.escape(address)} -> -.* ")
    if "mode=fork" not in t.popen.args:
        assert t.workers() == workers
    return line, got


@pytest.mark.parametrize("data", NONE.values(), ids=NONE.keys())
def test_no_header(room, lonely, data):
    t = lonely("log_level=notice", "handshake_timeout=60s")
    line, got = refusal(room, t, data)
    assert re.search(r'in=0 out=0 \d+\.\d{3}s no PROXY header: connection '
                     r'began with "[^"]+"$', line), line
    assert got == b""
    assert_serves(room, t)


def test_no_header_is_quoted_in_the_log(room, lonely):
    t = lonely()
    assert re.search('no PROXY header: connection began with "GET /',
                     refusal(room, t, NONE["HTTP"])[0])
    assert re.search(HELLO_FIRST, refusal(room, t, b"")[0])
    line = refusal(room, t, b'"\x1b[2J\n\xff')[0]
    assert re.search(r'began with "\\x22\\x1b\[2J\\x0a\\xff', line), line


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_bad(room, lonely, data):
    """Refused at once, whatever handshake_timeout is."""
    t = lonely("log_level=notice", "handshake_timeout=60s")
    line, got = refusal(room, t, data)
    assert re.search(r"in=0 out=0 \d+\.\d{3}s bad PROXY header: \S", line), \
        line
    assert line.isprintable()
    assert got == b""
    assert_serves(room, t)


@pytest.mark.parametrize("name", ["2049 bytes", "65535 bytes"])
def test_excessive_length_is_refused_at_once(room, lonely, name):
    """The length field alone is sufficient."""
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


def test_random_changes(room, lonely):
    """Randomly changed headers are either good or refused."""
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
            except OSError:  # refused before all of it was sent
                got = b""
        assert got[:1] in (b"", b"\x15"), data  # or an alert
    t.wait_log(" -> - ", count=1000)
    reasons = re.findall(r" -> - .*?\ds (.*)", t.log())
    strange = [x for x in reasons if not re.match(
        "(no|bad) PROXY header: |(client|balancer) closed (without sending "
        "anything|within the PROXY header)$|client reset$|not TLS: ", x)]
    assert not strange
    assert sum(" PROXY header: " in x for x in reasons) > 500
    assert_serves(room, t)
    if support.MODE != "fork":
        assert t.workers() == workers


# Ends and timeouts.

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
        wait_line(t, address, "- in=0 out=0 .* balancer closed within the "
                              "PROXY header$")
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


def test_handshake_timeout_covers_header_and_handshake(room, lonely):
    """The timeout runs on across header and handshake; no byte restarts it."""
    t = lonely("handshake_timeout=1s")
    sock = room.connect(t.address)
    start = time.monotonic()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for part in [*re.findall(b"(?s).{4}|.+$", V1), b"\x16\x03\x01\x02",
                     *[b"\0"] * 100]:
            sock.sendall(part)
            time.sleep(0.03)  # pacing of the client
    assert 0.9 < time.monotonic() - start < 1 + LATE
    t.wait_log("192.0.2.77:51234 -> - .* handshake timeout$")


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_waiting_uses_no_cpu_time(room, lonely, mode):
    """Waiting for the rest of a header, or for TLS after it, uses no CPU time.
    """
    t = lonely(mode)
    for data in [*PARTS, V1, V1 + b"\x16"]:
        room.connect(t.address).sendall(data)
    t.wait_log(" accepted$", count=len(PARTS) + 2)
    t.wait_log(" PROXY header from client 192.0.2.77:51234$", count=2)
    before = t.cpu_seconds()
    time.sleep(0.5)  # measuring interval
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW


def test_silent_connections_block_nobody(room, start):
    """Neither silent connections nor incomplete headers delay other clients.
    """
    t = start("workers=1")
    for data in (b"", V1[:20], SIGNATURE):
        room.connect(t.address).sendall(data)
    assert is_echoed(client_behind(room, t.address, V1))


# Health checks.

@pytest.mark.parametrize("data", [b"", v2_header(LOCAL, UNSPEC, b""), V1],
                         ids=["nothing", "LOCAL", "v1"])
def test_health_check(room, lonely, data):
    """A header at most, then the end: not logged at the default level."""
    quiet, loud = lonely("log_level=info"), lonely("log_level=debug")
    for t in quiet, loud:
        with room.connect(t.address) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock)[0] == b""
    loud.wait_log("-> - in=0 out=0 .* (client|balancer) closed without sending "
                  "anything$")
    # The later connection is logged, so an earlier line would be there.
    refusal(room, quiet, b"")
    assert quiet.log().count(" -> ") == 1


@pytest.fixture(params=["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn",
                        "send-proxy-v2 proxy-v2-options crc32c,unique-id "
                        "set-proxy-v2-tlv-fmt(0x20) %[src]"])
def words(request):
    if "set-proxy" in request.param and proxy.haproxy_version() < (2, 9):
        return request.param.split(" set-proxy")[0]
    return request.param
