"""proxy_protocol: the backend receives the client's address in one header,
ahead of all data.
"""

import ctypes
import os
import signal
import socket
import struct

import pytest

import proxy
import support
from proxy import ssl_tlv, v1, v2
from support import Task, read_all, read_exactly


@pytest.fixture(params=["v1", "v2"])
def kind(request):
    return request.param


def header_of(kind, client, destination=None):
    """The header expected for a TLS client connected to a listener."""
    source = client.sock.getsockname()
    destination = destination or client.sock.getpeername()
    if kind == "v1":
        return v1(source, destination)
    return v2(source, destination,
              proxy.tlv(proxy.AUTHORITY, "localhost") + ssl_tlv(client))


# Contents.

def test_v1_ipv4(room, backend, tunnel, version):
    t = tunnel("proxy_protocol=v1")
    client = room.client(t, version)
    port = t.address.split(":")[1]
    line = f"PROXY TCP4 127.0.0.1 127.0.0.1 {client.sock.getsockname()[1]} " \
        f"{port}\r\n"
    assert read_exactly(room.keep(backend.accept()), len(line)) == \
        line.encode()


def test_v1_ipv6(room, backend, tunnel, ipv6):
    t = tunnel("accept=[::1]:0", "proxy_protocol=v1")
    client = room.client(t)
    port = t.address.rsplit(":", 1)[1]
    line = f"PROXY TCP6 ::1 ::1 {client.sock.getsockname()[1]} {port}\r\n"
    assert read_exactly(room.keep(backend.accept()), len(line)) == \
        line.encode()


def test_v2_ipv4(room, backend, tunnel):
    """Checks every byte."""
    t = tunnel("proxy_protocol=v2", "alpn=imap")
    client = room.client(t, "1.3", alpn=["imap"])
    suite = client.tls.cipher()[0].encode()
    assert len(suite) == len("TLS_AES_256_GCM_SHA384") == 0x16
    ports = struct.pack(">HH", client.sock.getsockname()[1],
                        client.sock.getpeername()[1])
    assert read_exactly(room.keep(backend.accept()), 16 + 74) == (
        b"\r\n\r\n\0\r\nQUIT\n" b"\x21" b"\x11" b"\x00\x4a"
        b"\x7f\x00\x00\x01" b"\x7f\x00\x00\x01" + ports +
        b"\x01\x00\x04imap"
        b"\x02\x00\x09localhost"
        b"\x20\x00\x28" b"\x01" b"\x00\x00\x00\x01"
        b"\x21\x00\x07TLSv1.3"
        b"\x23\x00\x16" + suite)


def test_v2_ipv6(room, backend, tunnel, ipv6):
    t = tunnel("accept=[::1]:0", "proxy_protocol=v2")
    client = room.client(t)
    header = proxy.read_v2(room.keep(backend.accept()))
    assert header[12:14] == b"\x21\x21"
    assert header[16:52] == (bytes(15) + b"\1") * 2 + struct.pack(
        ">HH", client.sock.getsockname()[1], client.sock.getpeername()[1])
    assert header == header_of("v2", client)


def test_source_and_destination_are_not_mixed_up(room, backend, kind):
    t = room.tunnel("accept=127.0.0.78:0", f"connect={backend.address}",
                    f"proxy_protocol={kind}")
    client = room.client(proxy.bound(room, t.address, "127.0.0.77"))
    header = proxy.read_header(room.keep(backend.accept()), kind)
    assert header == header_of(kind, client)
    if kind == "v1":
        assert header.startswith(b"PROXY TCP4 127.0.0.77 127.0.0.78 ")
    else:
        assert header[16:24] == b"\x7f\0\0\x4d\x7f\0\0\x4e"


def test_ipv4_on_a_listener_for_both(room, backend, tunnel, kind, ipv6):
    """There, IPv4 addresses appear as ::ffff:127.0.0.1."""
    t = tunnel("accept=0", f"proxy_protocol={kind}")
    port = t.address.rsplit(":", 1)[1]
    client = room.client("127.0.0.1:" + port)
    header = proxy.read_header(room.keep(backend.accept()), kind)
    assert header == header_of(kind, client)
    assert header[5:10] == b" TCP4" if kind == "v1" else header[13] == 0x11


def test_ipv6_on_a_listener_for_both(room, backend, tunnel, kind, ipv6):
    t = tunnel("accept=0", f"proxy_protocol={kind}")
    client = room.client("[::1]:" + t.address.rsplit(":", 1)[1])
    header = proxy.read_header(room.keep(backend.accept()), kind)
    assert header == header_of(kind, client)


# Clients on Unix sockets have paths as addresses, or none.

def unix_client(room, path, name=None):
    sock = room.keep(socket.socket(socket.AF_UNIX))
    sock.settimeout(support.DEADLINE)
    if name is not None:
        sock.bind(name)
    sock.connect(path)
    return room.client(sock)


def unix_header(client, source, destination):
    return v2(source, destination,
              proxy.tlv(proxy.AUTHORITY, "localhost") + ssl_tlv(client))


def test_v1_unix(room, backend, tunnel):
    path = room.path("accept")
    tunnel(f"accept=unix:{path}", "proxy_protocol=v1")
    unix_client(room, path).send(b"hello")
    assert read_exactly(room.keep(backend.accept()), 20) == \
        b"PROXY UNKNOWN\r\nhello"


@pytest.mark.parametrize("named", [False, True])
def test_v2_unix(room, backend, tunnel, named):
    path = room.path("accept")
    tunnel(f"accept=unix:{path}", "proxy_protocol=v2")
    name = room.path("client") if named else None
    client = unix_client(room, path, name)
    header = proxy.read_v2(room.keep(backend.accept()))
    assert header == unix_header(client, (name or "").encode(), path.encode())
    assert header[13] == 0x31
    assert header[16:124].rstrip(b"\0") == (name or "").encode()
    assert header[124:232].rstrip(b"\0") == path.encode()


def test_v2_unix_with_the_longest_path(room, backend, tunnel):
    """108 bytes without a NUL: Python cannot bind to it, and getpeername(2)
    returns a length that exceeds a sockaddr_un.
    """
    path = room.path("accept")
    tunnel(f"accept=unix:{path}", "proxy_protocol=v2")
    name = (room.path("x") + "x" * 108).encode()[:108]
    sock = room.keep(socket.socket(socket.AF_UNIX))
    sock.settimeout(support.DEADLINE)
    address = struct.pack("H", socket.AF_UNIX) + name
    assert ctypes.CDLL(None).bind(sock.fileno(), address, len(address)) == 0
    sock.connect(path)
    client = room.client(sock)
    header = proxy.read_v2(room.keep(backend.accept()))
    assert header == unix_header(client, name, path.encode())


def test_v2_unix_with_an_abstract_name(room, backend, tunnel):
    """An abstract name begins with a NUL."""
    path = room.path("accept")
    tunnel(f"accept=unix:{path}", "proxy_protocol=v2")
    name = b"\0tunnel-test-" + os.urandom(8).hex().encode()
    client = unix_client(room, path, name)
    assert proxy.read_v2(room.keep(backend.accept())) == \
        unix_header(client, name, path.encode())


# inetd.

def inetd(room, sock, *arguments):
    t = room.tunnel("-i", *arguments, ready=False, stdin=sock, stdout=sock)
    sock.close()
    return t


def finish(client, server, t):
    """Send data each way, then end both directions."""
    client.send(b"hello")
    client.close_notify()
    assert read_all(server) == (b"hello", "eof")
    server.sendall(b"welcome")
    server.close()
    assert client.read_all() == (b"welcome", "close_notify")
    client.close()
    assert t.wait() == 0


def test_inetd_on_an_accepted_socket(room, backend, kind, version):
    with socket.create_server(("127.0.0.78", 0)) as listener:
        peer = proxy.bound(room, support.tcp_address(listener), "127.0.0.77")
        t = inetd(room, listener.accept()[0], f"connect={backend.address}",
                  f"proxy_protocol={kind}")
    client = room.client(peer, version)
    server = room.keep(backend.accept())
    assert proxy.read_header(server, kind) == header_of(kind, client)
    finish(client, server, t)


def check_unix(room, backend, kind, t, peer, name="", path=""):
    """peer is connected to t; both sockets have these names."""
    client = room.client(peer)
    server = room.keep(backend.accept())
    header = proxy.read_header(server, kind)
    if kind == "v1":
        assert header == b"PROXY UNKNOWN\r\n"
    else:
        assert header == unix_header(client, name.encode(), path.encode())
    finish(client, server, t)


def test_inetd_on_a_socket_pair(room, backend, kind):
    peer, sock = socket.socketpair()
    peer.settimeout(support.DEADLINE)
    t = inetd(room, sock, f"connect={backend.address}",
              f"proxy_protocol={kind}")
    check_unix(room, backend, kind, t, peer)


def test_inetd_on_an_accepted_unix_socket(room, backend, kind):
    path, name = room.path("accept"), room.path("client")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        peer = room.keep(socket.socket(socket.AF_UNIX))
        peer.settimeout(support.DEADLINE)
        peer.bind(name)
        peer.connect(path)
        t = inetd(room, listener.accept()[0], f"connect={backend.address}",
                  f"proxy_protocol={kind}")
    check_unix(room, backend, kind, t, peer, name, path)


def test_inetd_with_a_command(room, kind, version):
    """The header is part of the command's input: cat(1) returns it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        t = inetd(room, listener.accept()[0], f"proxy_protocol={kind}", "--",
                  "cat")
    client = room.client(peer, version)
    client.send(b"hello")
    client.close_notify()
    assert client.read_all() == (header_of(kind, client) + b"hello",
                                 "close_notify")
    client.close()
    assert t.wait() == 0


# Position: first, and once.

@pytest.fixture(params=["mode=poll", "mode=fork", "workers=2"])
def way(request):
    return request.param


def test_before_the_first_byte(room, backend, tunnel, kind, version, way):
    t = tunnel(f"proxy_protocol={kind}", way)
    for _ in range(5):
        client = room.client(t, version)
        client.send(b"hello")
        server = room.keep(backend.accept())
        assert read_exactly(server, len(header_of(kind, client)) + 5) == \
            header_of(kind, client) + b"hello"
        client.send(b" again")
        client.close_notify()
        assert read_all(server) == (b" again", "eof")
        server.close()
        assert client.read_all() == (b"", "close_notify")
        client.close()


def test_of_a_client_that_sends_nothing(room, backend, tunnel, kind, version,
                                        way):
    """The header does not wait for data, and no data follows it."""
    t = tunnel(f"proxy_protocol={kind}", way)
    client = room.client(t, version)
    server = room.keep(backend.accept())
    assert proxy.read_header(server, kind) == header_of(kind, client)
    server.sendall(b"220 welcome\r\n")
    assert read_exactly(client, 13) == b"220 welcome\r\n"
    client.close_notify()
    assert read_all(server) == (b"", "eof")


def test_before_an_end_that_comes_at_once(room, backend, tunnel, kind):
    """close_notify and the end of the handshake share a segment."""
    t = tunnel(f"proxy_protocol={kind}")
    client = room.client(t)
    client.close_notify()
    server = room.keep(backend.accept())
    assert read_all(server) == (header_of(kind, client), "eof")


def test_before_many_bytes(room, backend, tunnel, kind, version):
    data = os.urandom(8 << 20)
    t = tunnel(f"proxy_protocol={kind}")
    client = room.client(t, version)

    def request():
        client.send(data)
        client.close_notify()

    sending = Task(request)
    server = room.keep(backend.accept())
    assert read_all(server) == (header_of(kind, client) + data, "eof")
    sending.result()
    server.sendall(b"thanks")
    server.close()
    assert client.read_all() == (b"thanks", "close_notify")


def test_header_is_not_counted(room, backend, tunnel, kind):
    """The log counts only the client's bytes."""
    t = tunnel(f"proxy_protocol={kind}")
    client = room.client(t)
    client.send(b"hello")
    client.close_notify()
    server = room.keep(backend.accept())
    read_all(server)
    server.sendall(b"welcome")
    server.close()
    assert client.read_all() == (b"welcome", "close_notify")
    client.close()
    t.wait_log(" in=5 out=7 .* closed$")


def test_after_an_address_that_refuses(room, backend, kind, version, way):
    """The address that accepts gets one header."""
    t = room.tunnel(f"connect={support.closed_port()}",
                    f"connect={backend.address}", f"proxy_protocol={kind}",
                    way)
    for _ in range(4):  # the round robin starts with either
        client = room.client(t, version)
        client.send(b"hello")
        client.close_notify()
        server = room.keep(backend.accept())
        assert read_all(server) == (header_of(kind, client) + b"hello", "eof")
        server.close()
        assert client.read_all() == (b"", "close_notify")
        client.close()


def test_after_an_address_that_does_not_answer(room, backend, kind):
    """A failed connection attempt loses nothing of the header."""
    listener = room.backend(backlog=0)
    for _ in range(4):
        s = room.keep(socket.socket())
        s.setblocking(False)
        s.connect_ex(listener.sock.getsockname())
    t = room.tunnel(f"connect={listener.address}",
                    f"connect={backend.address}", f"proxy_protocol={kind}",
                    "connect_timeout=1s")
    client = room.client(t)
    client.send(b"hello")
    client.close_notify()
    server = room.keep(backend.accept())
    assert read_all(server) == (header_of(kind, client) + b"hello", "eof")


def test_to_each_address_in_turn(room, kind):
    backends = [room.backend() for _ in range(2)]
    t = room.tunnel(*(f"connect={b.address}" for b in backends),
                    f"proxy_protocol={kind}", support.ALONE)
    for n in range(4):
        client = room.client(t)
        server = room.keep(backends[n % 2].accept())
        assert proxy.read_header(server, kind) == header_of(kind, client)


def test_to_a_unix_socket(room, kind, version):
    """The header has the client's addresses, whatever the backend's are."""
    backend = room.backend(family=socket.AF_UNIX, to=room.path("backend"))
    t = room.tunnel(f"connect={backend.address}", f"proxy_protocol={kind}")
    client = room.client(t, version)
    client.send(b"hello")
    client.close_notify()
    server = room.keep(backend.accept())
    assert read_all(server) == (header_of(kind, client) + b"hello", "eof")


@pytest.mark.parametrize("by", ["words", "exec"])
@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_to_a_command(room, kind, version, by, mode):
    words = ["exec=cat"] if by == "exec" else ["--", "cat"]
    t = room.tunnel(f"proxy_protocol={kind}", mode, *words)
    for _ in range(3):
        client = room.client(t, version)
        client.send(b"hello")
        client.close_notify()
        assert client.read_all() == (header_of(kind, client) + b"hello",
                                     "close_notify")
        client.close()


def test_to_a_command_that_does_not_read(room, kind):
    """Its output is nevertheless delivered whole."""
    t = room.tunnel(f"proxy_protocol={kind}", "--", "head", "-c", "300000",
                    "/dev/zero")
    for _ in range(5):
        client = room.client(t)
        assert client.read_all() == (bytes(300000), "close_notify")
        client.close()


def test_to_a_backend_that_closes_at_once(room, tunnel, backend, kind):
    """The client sees no proper end, whether or not the header was delivered.
    """
    backend.serve(support.reset)
    t = tunnel(f"proxy_protocol={kind}")
    for n in range(1, 11):
        client = room.client(t)
        got, end = client.read_all()
        client.close()
        assert got == b""
        assert end in ("reset", "TLSV1_ALERT_INTERNAL_ERROR")
        t.wait_log(r"s backend reset$|s no backend: \S+: (Connection reset by "
                   "peer|Broken pipe)$", count=n)


def test_no_header_for_a_client_without_tls(room, backend, tunnel, kind):
    """The header is sent only after the handshake."""
    backend.sock.settimeout(0)
    t = tunnel(f"proxy_protocol={kind}")
    sock = room.connect(t.address)
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    read_all(sock)
    t.wait_log("not TLS")
    with pytest.raises(BlockingIOError):
        backend.accept()


@pytest.mark.parametrize("arguments", [[], ["proxy_protocol=off"]])
def test_off(room, backend, tunnel, arguments):
    """Off is the default."""
    client = room.client(tunnel(*arguments))
    client.send(b"hello")
    client.close_notify()
    assert read_all(room.keep(backend.accept())) == (b"hello", "eof")


def test_reload(room, backend):
    """A connection keeps the header of the configuration under which it began.
    """
    def write(kind):
        return room.write(
            "tunnel.conf", f"accept = 127.0.0.1:0\n"
            f"connect = {backend.address}\ncert = {room.certs.server}\n"
            f"log_level = debug\nproxy_protocol = {kind}\n"
            "sandbox = no\n")  # the test lists open sockets

    t = room.tunnel("-c", write("off"))
    old = room.client(t)
    with room.keep(backend.accept()) as server:
        for kind in ("v1", "v2"):
            write(kind)
            before = t.log().count("tunnel: reloaded\n")
            listeners, workers = support.sockets(t.pid), t.workers()
            t.signal(signal.SIGHUP)
            t.wait_log("tunnel: reloaded$", before + 1)
            support.wait_for(lambda: not any(
                x in listeners for pid in workers
                for x in support.sockets(pid)), "the old workers to drain")
            client = room.client(t)
            next_one = room.keep(backend.accept())
            assert proxy.read_header(next_one, kind) == \
                header_of(kind, client)
        old.send(b"hello")
        assert read_exactly(server, 5) == b"hello"
