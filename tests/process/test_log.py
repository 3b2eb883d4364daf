"""One log line for each connection, ending in the reason: DESIGN.md, section
7.
"""

import os
import re
import socket
import ssl

import pytest

import peers
import support
from support import (LINE, PROCESSES, assert_echoes, drain,
                     lines_of_connections, read_all, read_exactly)


def last_line(t, reason):
    """Wait for the connection's line, the only one; return it parsed."""
    t.wait_log(rf"\d\.\d{{3}}s {reason}")
    lines = [x for x in t.log().splitlines() if re.search(r"\d\.\d{3}s ", x)]
    assert len(lines) == 1, lines
    match = LINE.fullmatch(lines[0])
    assert match, lines[0]
    return match


@pytest.fixture
def pair(room, backend):
    def make(*arguments, version=None):
        t = room.tunnel(f"connect={backend.address}", *arguments)
        client = room.client(t, version)
        server = room.keep(backend.accept())
        client.send(b"12345")
        server.sendall(b"1234567")
        assert read_exactly(server, 5) == b"12345"
        assert read_exactly(client, 7) == b"1234567"
        return t, client, server

    return make


def assert_served(line, client_port, backend, reason):
    assert line["client"] == f"127.0.0.1:{client_port}"
    assert line["backend"] == backend.address
    assert (line["in"], line["out"]) == ("5", "7")
    assert line["sni"] == "localhost"
    assert line["reason"] == reason
    assert float(line["seconds"]) < support.DEADLINE


def test_closed(pair, backend, version):
    t, client, server = pair(version=version)
    port = client.sock.getsockname()[1]
    client.close_notify()
    server.close()
    assert client.read_all() == (b"", "close_notify")
    line = last_line(t, "closed")
    assert_served(line, port, backend, "closed")
    assert line["version"] == "TLSv" + version


def test_truncated(pair, backend):
    t, client, _ = pair()
    port = client.sock.getsockname()[1]
    client.fin()
    assert_served(last_line(t, "trunc"), port, backend, "truncated")


def test_client_reset(pair, backend):
    t, client, _ = pair()
    port = client.sock.getsockname()[1]
    client.reset()
    assert_served(last_line(t, "client"), port, backend, "client reset")


def test_backend_reset(pair, backend):
    t, client, server = pair()
    port = client.sock.getsockname()[1]
    support.reset(server)
    assert_served(last_line(t, "backend"), port, backend, "backend reset")


def test_idle_timeout(pair, backend):
    t, client, _ = pair("idle_timeout=1s")
    port = client.sock.getsockname()[1]
    assert_served(last_line(t, "idle"), port, backend, "idle timeout")


def test_half_close_timeout(pair, backend):
    t, client, _ = pair("half_close_timeout=1s")
    port = client.sock.getsockname()[1]
    client.close_notify()
    assert_served(last_line(t, "half-close"), port, backend,
        "half-close timeout")


def test_handshake_timeout(room, backend):
    t = room.tunnel(f"connect={backend.address}", "handshake_timeout=1s")
    sock = room.connect(t.address)
    sock.sendall(b"\x16\x03\x01")
    line = last_line(t, "handshake")
    assert line["backend"] == "-"
    assert line["version"] is None
    assert line["reason"] == "handshake timeout"
    assert (line["in"], line["out"]) == ("0", "0")


def test_not_tls(room, backend):
    t = room.tunnel(f"connect={backend.address}", "log_level=notice")
    sock = room.connect(t.address)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    sock.shutdown(socket.SHUT_WR)
    line = last_line(t, "not TLS")
    assert line["reason"] == 'not TLS but HTTP: the client sent "GET / HT"'
    assert read_all(sock)[0][:1] in (b"", b"\x15")  # or an alert


@pytest.mark.parametrize("how", ["close", "fin", "reset"])
def test_health_check(room, backend, how):
    """Connect and close, as load balancers do: not logged at the default
    level.
    """
    backend.serve(support.echo)
    quiet = room.tunnel(f"connect={backend.address}", "log_level=info")
    loud = room.tunnel(f"connect={backend.address}", "log_level=debug")
    for t in quiet, loud:
        sock = room.connect(t.address)
        if how == "reset":
            support.reset(sock)
        elif how == "fin":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.close()
    line = last_line(loud, "")
    assert line["reason"] == ("client reset" if how == "reset" else
                              "client closed without sending anything")
    # The later connection is logged, so an earlier line would be there.
    room.client(quiet).close()
    quiet.wait_log("truncated|client reset")
    assert len(lines_of_connections(quiet)) == 1, quiet.log()


def test_no_backend(room):
    targets = support.closed_port(), support.closed_port()
    t = room.tunnel(*(f"connect={x}" for x in targets), support.ALONE)
    client = room.client(t)
    client.read_all()
    client.close()
    line = last_line(t, "no backend")
    assert line["backend"] == "-"
    assert line["reason"] == f"no backend: {targets[1]}: Connection refused"


def test_unix_client(room, backend):
    path = room.path("accept")
    t = room.tunnel(f"connect={backend.address}", f"accept=unix:{path}")
    client = room.client(t)
    room.keep(backend.accept())
    client.reset()
    t.wait_log(r"\d\.\d{3}s ")
    assert LINE.fullmatch(lines_of_connections(t)[-1])["client"] == "unix:"


def test_counts_include_only_delivered_bytes(room, backend, version):
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    server = room.keep(backend.accept())
    sending = support.Task(client.send, bytes(300000))
    assert read_exactly(server, 300000) == bytes(300000)
    sending.result()
    server.sendall(bytes(70000))
    server.close()
    assert client.read_all() == (bytes(70000), "close_notify")
    client.close_notify()
    line = last_line(t, "closed")
    assert (line["in"], line["out"]) == ("300000", "70000")


# Text from a peer cannot forge log lines.

EVIL = b"\x1b[2J\ntunnel: forged\r\x00\x7f\xff"


def is_clean(text):
    return all(c == "\n" or c.isprintable() for c in text)


def test_first_bytes_are_escaped(room, backend):
    t = room.tunnel(f"connect={backend.address}")
    sock = room.connect(t.address)
    sock.sendall(EVIL)
    sock.shutdown(socket.SHUT_WR)
    line = last_line(t, "not TLS")
    assert line["reason"] == \
        r'not TLS: the client sent "\x1b[2J\x0atun"'
    assert is_clean(t.log())


def test_quotes_are_escaped(room, backend):
    t = room.tunnel(f"connect={backend.address}")
    sock = room.connect(t.address)
    sock.sendall(b'"a\\b" c d')
    sock.shutdown(socket.SHUT_WR)
    assert last_line(t, "not TLS")["reason"] == \
        r'not TLS: the client sent "\x22a\x5cb\x22 c "'


@pytest.mark.parametrize("evil", [
    b"a\nb", b"a\x1b[2Jb", b"a b in=1", b"a=b", b"\xff\xfe\xfd", b'a"b',
    b"a\x00b",
], ids=range(7))
def test_server_name_is_escaped(room, backend, version, evil):
    """OpenSSL refuses such a name, so patch it into its ClientHello."""
    t = room.tunnel(f"connect={backend.address}")
    name = "x" * len(evil)
    ctx = peers.context(room.certs, version)
    client = room.keep(peers.Client(t.address, ctx, name))
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client.outgoing.read()
    head = b"\0" + len(evil).to_bytes(2, "big")  # random bytes do not match
    assert hello.count(head + name.encode()) == 1
    client.sock.sendall(hello.replace(head + name.encode(), head + evil))
    client.fin()
    line = last_line(t, "")
    assert line["sni"] in (None, "(invalid)")
    assert is_clean(t.log())
    assert len(lines_of_connections(t)) == 2  # accepted, and this line


def test_alpn_is_a_configured_one(room, backend, version):
    """Only configured protocols get into the log."""
    t = room.tunnel(f"connect={backend.address}", "alpn=h2")
    client = room.client(t, version, alpn=["a\nb", "h2"])
    client.close()
    assert last_line(t, "")["alpn"] == "h2"


def test_output_of_a_command_is_not_logged(room):
    """A command inherits standard error; its standard output goes to the
    client.
    """
    t = room.tunnel("--", "sh", "-c", "echo out; echo err >&2")
    assert room.client(t).read_all() == (b"out\n", "close_notify")
    t.wait_log("^err$")
    assert "out\n" not in t.log()
    assert os.path.basename(t.log_file).startswith("tunnel")


# Timestamps.

def test_every_line_has_a_timestamp(room, backend):
    """The first line has the program's name and version."""
    t = room.tunnel(f"connect={backend.address}")
    room.client(t).close()
    t.wait_log("closed|truncated|reset")
    lines = support.text_of(t.log_file).splitlines()
    assert all(re.match(f"{support.TIME} tunnel: ", x) for x in lines), lines
    version = support.run(support.TUNNEL, "-V").decode()
    name, library = re.match(r"(tunnel \S+) \((.*), e?poll\)\n",
                             version).groups()
    assert lines[0].endswith(f" tunnel: {name}, {library}")


@pytest.mark.parametrize("words", [["accept=192.0.2.1:0"], ["colour=red"],
                                   ["-t", "colour=red"]])
def test_messages_to_a_user_have_no_timestamp(room, backend, words):
    t = room.tunnel(f"connect={backend.address}", *words, ready=False)
    assert t.wait() in (1, 2)
    assert support.text_of(t.log_file).startswith("tunnel: error: ")


# Output without a reader.

def test_stderr_without_a_reader(room, backend):
    """Lines are dropped and counted, with no other effect."""
    backend.serve(support.echo)
    ours, theirs = os.pipe()
    reader = room.keep(os.fdopen(ours, "rb", buffering=0))
    with os.fdopen(theirs, "wb") as stderr:
        t = room.tunnel(f"connect={backend.address}", "workers=1",
                        ready=False, stderr=stderr)
    while not (found := re.search(r"listening on (\S+)",
                                  reader.readline().decode())):
        pass
    address = found.group(1)
    for _ in range(3000):
        sock = support.connect(address)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        read_all(sock)
        sock.close()
    assert_echoes(room, address)
    log = bytearray()
    drain(reader, log, lambda: log)
    assert_echoes(room, address)

    def lines():
        """Of 3002 lines: one per accept, one per end."""
        found = [x for x in log.decode().splitlines()
                 if not PROCESSES.search(x)]
        lost = map(int, re.findall(rb"warning: (\d+) log lines dropped", log))
        return len(found) - log.count(b" log lines dropped") + sum(lost)

    drain(reader, log, lambda: lines() == 2 * 3002)
    assert log.count(b" log lines dropped") == 1
    assert all(re.match(f"{support.TIME} tunnel: ", line)
               for line in log.decode().splitlines())
    assert t.alive()


def test_terminal_without_a_reader(room, backend):
    """A terminal reports room even if it is too little for a line."""
    backend.serve(support.echo)
    ours, theirs = os.openpty()
    reader = room.keep(os.fdopen(ours, "rb", buffering=0))
    with os.fdopen(theirs, "wb") as stderr:
        room.tunnel(f"connect={backend.address}", "workers=1", ready=False,
                    stderr=stderr)
    while not (found := re.search(r"listening on (\S+)",
                                  reader.readline().decode())):
        pass
    address = found.group(1)
    for _ in range(100):
        assert_echoes(room, address)
    log = bytearray()
    drain(reader, log, lambda: log)
    assert_echoes(room, address)
    drain(reader, log, lambda: b"dropped: the log's reader is too slow" in log)


@pytest.mark.parametrize("first,name", [
    (b"GET / HTTP/1.1\r\n", "HTTP"), (b"OPTIONS * HTTP/1.1\r\n", "HTTP"),
    (b"PRI * HTTP/2.0\r\n\r\n", "HTTP/2"), (b"SSH-2.0-OpenSSH_9.2", "SSH"),
    (b"\0\0\0\x08\x04\xd2\x16\x2f", "PostgreSQL"),
    (b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x0b\0\0\0", "RDP"),
    (b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10", "SSLv2"),
    (b"\0\0\0\x08\x04\xd2\x16\x30", None), (b"PRIVMSG x", None),
])
def test_protocol_that_is_not_tls(room, backend, first, name):
    t = room.tunnel(f"connect={backend.address}")
    sock = room.connect(t.address)
    sock.sendall(first)
    sock.shutdown(socket.SHUT_WR)
    but = f" but {re.escape(name)}" if name else ""
    t.wait_log(rf'- .* not TLS{but}: the client sent "\S')
