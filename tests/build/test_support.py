"""Checks of the tests themselves: their client distinguishes the ends of a
stream, against a server in Python; their ML-KEM matches FIPS 203.
"""

import glob
import hashlib
import os
import re
import socket
import ssl

import pytest

import mlkem
import peers
import support
from support import TESTS, Task, read_exactly


def serve(backend, certs, end):
    """Send a word, then end the stream in this way."""
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
def test_client_distinguishes_ends(room, version, end):
    backend = room.backend()
    serving = Task(serve, backend, room.certs, end)
    client = room.client(backend.address, version)
    assert read_exactly(client, 4) == b"word"
    client.send(b"word")
    assert client.read_all() == (b"", end)
    serving.result()


def test_client_ends_one_direction(room, version):
    """close_notify without FIN, while reading continues; then FIN."""
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


def test_no_test_imports_another():
    """Shared code is in the modules beside conftest.py."""
    for path in glob.glob(os.path.join(TESTS, "**", "*.py"), recursive=True):
        with open(path) as f:
            assert not re.search(r"^(from|import) (test_|conftest)", f.read(),
                                 re.M), path


def test_mlkem_of_a_seed():
    """From NIST's ACVP: ML-KEM-keyGen-FIPS203, the first case of ML-KEM-768.
    """
    ek, dk = mlkem.generate(bytes.fromhex(
        "e34a701c4c87582f42264ee422d3c684d97611f2523efe0c998af05056d693dc"
        "a85768f3486bd32a01bf9a8f21ea938e648eae4e5448c34c3eb88820b159eedd"))
    assert [hashlib.sha3_256(x).hexdigest() for x in (ek, dk)] == [
        "e29020839d052fa372585627f8b59ee312ae414c979d825f06a6929a79625718",
        "a4e8ba80bb7a745e936d47784c07ffa6a314caf5a8deb4648c5c2d6ae930ebcd"]


def test_mlkem_accumulated():
    """Seeds, secrets and invalid ciphertexts come from SHAKE128 of an empty
    input.  The hash over the results of 100 rounds is the one that was
    published with Go's implementation.
    """
    given = hashlib.shake_128().digest(100 * (64 + 32 + mlkem.CT))
    out = hashlib.shake_128()
    for part in mlkem.parts(given, 64 + 32 + mlkem.CT):
        ek, dk = mlkem.generate(part[:64])
        ct, secret = mlkem.encapsulate(ek, part[64:96])
        assert mlkem.decapsulate(dk, ct) == secret
        out.update(ek + ct + secret + mlkem.decapsulate(dk, part[96:]))
    assert out.digest(32).hex() == (
        "1114b1b6699ed191734fa339376afa7e285c9e6acf6ff0177d346696ce564415")


def test_x25519():
    """RFC 7748, section 5.2."""
    nine = bytes([9]) + bytes(31)
    assert mlkem.x25519(nine, nine).hex() == (
        "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
