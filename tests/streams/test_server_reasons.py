"""Servers without TLS, and servers that fail during the handshake: the log has
the reason, and the application never sees an end of file.
"""

import socket
import struct

import pytest

import support


def resets(sock):
    sock.recv(1 << 14)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))


def echoes(sock):
    sock.sendall(sock.recv(1 << 14))
    support.read_all(sock)


def closes(sock):
    sock.recv(1 << 14)


def is_http(sock):
    sock.recv(1 << 14)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    support.read_all(sock)


def greets(sock):
    sock.sendall(b"220 mail.example.org ESMTP\r\n")
    support.read_all(sock)


def refuses(sock):
    sock.recv(1 << 14)
    sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
    support.read_all(sock)


REASONS = [
    (resets, "reset during the handshake"),
    (closes, "server closed without sending anything"),
    (echoes, "handshake: unexpected message"),
    (is_http, 'not TLS but HTTP: the server sent "HTTP/1.1"'),
    (greets, 'not TLS but SMTP, FTP: the server sent "220 mail"'),
    (refuses, "handshake: the server sent a fatal alert: handshake_failure "
     "(40)"),
]


@pytest.mark.parametrize("server,why", REASONS,
                         ids=[x.__name__ for x, _ in REASONS])
def test_reason(room, certs, server, why):
    backend = room.backend().serve(server)
    t = room.tunnel("client=yes", f"connect={backend.address}",
                    f"ca={certs.ca}")
    assert support.how_it_ends(t.address) == (b"", "reset")
    line = t.wait_log("no backend: ")
    assert line.endswith(f"no backend: {backend.address}: {why}"), line


def test_servers_in_turn(room, certs):
    """Each failed server has a log line with its reason; the last one serves.
    """
    bad = [room.backend().serve(server) for server in (resets, is_http)]
    good = room.tunnel(f"connect={room.backend().serve(support.echo).address}")
    t = room.tunnel("client=yes", f"ca={certs.ca}", support.ALONE,
                    *(f"connect={b.address}" for b in bad),
                    f"connect={good.address}")
    with room.connect(t.address) as sock:
        assert support.is_echoed(sock)
    t.wait_log(f"-> {bad[0].address}: reset during the handshake$")
    t.wait_log(f'-> {bad[1].address}: not TLS but HTTP: the server sent "HTTP/1.1"$')
    t.wait_log(f"-> {good.address} TLSv1.3 .* closed$")
