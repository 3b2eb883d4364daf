"""The tests' own client tells ends of stream apart, or they would prove
nothing: against a server that is Python's.
"""

import glob
import os
import re
import socket
import ssl

import pytest

import peers
import support
from support import TESTS, Task, read_exactly


def serve(backend, certs, end):
    """Send a word, and end in one way."""
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(certs.server)
    with ctx.wrap_socket(backend.accept(), server_side=True) as sock:
        sock.sendall(b"word")
        read_exactly(sock, 4)
        if end == "close_notify":
            sock.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                sock.unwrap()
        if end == "reset":
            support.reset(sock)
        else:
            socket.socket.shutdown(sock, socket.SHUT_WR)


@pytest.mark.parametrize("end", ["close_notify", "truncated", "reset"])
def test_client_tells_ends_apart(room, version, end):
    backend = room.backend()
    serving = Task(serve, backend, room.certs, end)
    client = room.client(backend.address, version)
    assert read_exactly(client, 4) == b"word"
    client.send(b"word")
    assert client.read_all() == (b"", end)
    serving.result()


def test_client_ends_its_direction_alone(room, version):
    """close_notify without FIN, and reading goes on; then FIN."""
    backend = room.backend()
    client = room.keep(peers.Client(backend.address,
                                    peers.context(room.certs, version)))
    shaking = Task(client.handshake)
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(room.certs.server)
    server = room.keep(ctx.wrap_socket(backend.accept(), server_side=True,
                                       suppress_ragged_eofs=False))
    shaking.result()
    client.close_notify()
    assert server.recv(1) == b""
    server.sendall(b"word")
    assert read_exactly(client, 4) == b"word"
    raw = socket.socket(fileno=socket.dup(server.fileno()))
    with raw:
        raw.setblocking(False)
        with pytest.raises(BlockingIOError):
            raw.recv(1)
        client.fin()
        raw.settimeout(support.DEADLINE)
        assert raw.recv(1) == b""


def test_client_truncates(room, version):
    """FIN without close_notify."""
    backend = room.backend()
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    ctx.load_cert_chain(room.certs.server)
    client = room.keep(peers.Client(backend.address,
                                    peers.context(room.certs, version)))
    shaking = Task(client.handshake)
    server = room.keep(ctx.wrap_socket(backend.accept(), server_side=True,
                                       suppress_ragged_eofs=False))
    shaking.result()
    client.fin()
    with pytest.raises(ssl.SSLError, match="(?i)eof"):
        server.recv(1)


def test_no_test_takes_from_another():
    """What several need is in the modules beside conftest.py."""
    for path in glob.glob(os.path.join(TESTS, "**", "*.py"), recursive=True):
        with open(path) as f:
            assert not re.search(r"^(from|import) (test_|conftest)", f.read(),
                                 re.M), path
