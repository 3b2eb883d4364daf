"""Early data (0-RTT) is always rejected, but never ends the connection: a
client may have a ticket of a previous server at this address.
"""

import os
import re
import signal
import statistics
import struct
import subprocess

import pytest

import support
from support import read_exactly, wait_for
from verdicts import TIMES, handshake_cost

pytestmark = [
    pytest.mark.skipif(not support.PATCHED,
                       reason="mbed TLS without mbedtls/patches"),
    pytest.mark.seconds(60),
]

LIMIT = 64 * 1024  # of mbedtls/patches, in skipped bytes
LEAST = 256  # counted for a small record


class Openssl(support.Process):
    """openssl-s_client(1ssl) or -s_server, controlled by a pipe."""

    def __init__(self, room, name, *arguments):
        super().__init__(room.dir, name, ["openssl", *arguments],
                         stdin=subprocess.PIPE)
        room.processes.append(self)

    def say(self, text):
        self.popen.stdin.write(text)
        self.popen.stdin.flush()

    def end(self):
        self.popen.stdin.close()
        return self.wait()


@pytest.fixture
def ticket(room):
    """Get a session of a server that accepts a megabyte of early data."""
    server = Openssl(room, "before", "s_server", "-accept", "0", "-cert",
                     room.certs.server, "-tls1_3", "-early_data",
                     "-max_early_data", "1000000", "-recv_max_early_data",
                     "1000000")
    port = re.search(r":(\d+)$", server.wait_log("^ACCEPT .*:")).group(1)
    path, log = visit(room, f"localhost:{port}", "earlier")
    assert "Max Early Data: 1000000" in log
    server.signal(signal.SIGKILL)
    server.wait()
    return path


def visit(room, address, name, *arguments):
    """Connect a client; return the file of its new session, and its messages.
    """
    path = room.path(name + ".session")
    client = client_of(room, name, address, "-sess_out", path, *arguments)
    client.say(b"hello\n")
    wait_for(lambda: support.text_of(path).endswith("-----\n"), "a ticket")
    client.end()
    return path, client.log()


def client_of(room, name, address, *arguments):
    return Openssl(room, name, "s_client", "-connect", address, "-tls1_3",
                   "-servername", "localhost", *arguments)


# The client's groups: it sends a share of the first.  The tunnel's groups:
GROUPS = "groups=x25519"
AT_ONCE = ("-groups", "X25519:P-256")
AFTER_A_RETRY = ("-groups", "P-256:X25519")
WAYS = pytest.mark.parametrize("way", [AT_ONCE, AFTER_A_RETRY],
                               ids=["at once", "after a HelloRetryRequest"])


@WAYS
@pytest.mark.parametrize("size", [1, 60000])
@pytest.mark.parametrize("middlebox", ["-middlebox", "-no_middlebox"])
def test_rejected_early_data_is_skipped(room, backend, tunnel, ticket, way,
                                        size, middlebox):
    """A full handshake follows, and no early data reach the backend.  A client
    in middlebox compatibility mode sends a ChangeCipherSpec before them.
    """
    t = tunnel(GROUPS)
    early = room.write("early", b"e" * size)
    client = client_of(room, "client", t.address, "-sess_in", ticket,
                       "-early_data", early, *way, *(
                           [middlebox] if middlebox == "-no_middlebox" else []))
    client.wait_log("^Early data was rejected")
    client.say(b"hello\n")
    server = room.keep(backend.accept())
    assert read_exactly(server, 6) == b"hello\n"
    server.sendall(b"and bye\n")
    client.wait_log("^and bye$")
    assert client.end() == 0
    assert support.read_all(server) == (b"", "eof")
    server.close()
    assert "New, TLSv1.3" in client.log()
    assert not re.search(" resumed ", t.wait_log(" in=6 out=8 "))


@WAYS
def test_early_data_without_end(room, backend, tunnel, ticket, way):
    t = tunnel(GROUPS)
    early = room.write("early", b"e" * (2 * LIMIT))
    client = client_of(room, "client", t.address, "-sess_in", ticket,
                       "-early_data", early, *way)
    assert client.wait() != 0
    t.wait_log(" -> - .*handshake: unexpected message$")
    # Before there are keys, early data are recognized with certainty.
    if way is AFTER_A_RETRY:
        assert "alert unexpected message" in client.log() or \
            "errno=104" in client.log(), client.log()
    assert room.client(t, "1.3").tls.version() == "TLSv1.3"


# Handmade records: a hello with the ticket of an unknown server.

def vector(size, data):
    return len(data).to_bytes(size, "big") + data


def extension(kind, data):
    return struct.pack(">H", kind) + vector(2, data)


def hello(*more, share=True):
    """RFC 8446 section 4.1.2, with an X25519 key if it has a share."""
    key = b"\0\x1d" + vector(2, b"\x09" + bytes(31)) if share else b""
    extensions = [
        extension(43, b"\2\3\4"), extension(13, b"\0\2\4\3"),
        extension(10, b"\0\2\0\x1d"), extension(51, vector(2, key)), *more]
    body = b"\3\3" + os.urandom(32) + b"\0" + vector(2, b"\x13\1") + \
        b"\1\0" + vector(2, b"".join(extensions))
    return b"\x16\3\1" + vector(2, b"\1" + vector(3, body))


def offer():
    """Return early_data, psk_key_exchange_modes, and pre_shared_key as the
    last.
    """
    identity = vector(2, os.urandom(100)) + bytes(4)
    return (extension(42, b""), extension(45, b"\1\1"), extension(
        41, vector(2, identity) + vector(2, vector(1, bytes(32)))))


def record(size):
    """Return a record of early data that can't be decrypted, of this total
    size.
    """
    return b"\x17\3\3" + vector(2, os.urandom(size - 5))


def cost(t, *records):
    """Return the cost of a hello and what follows, in CPU seconds, and the
    log.
    """
    before, lines = t.cpu_seconds(), t.log().count(" in=")
    sock = support.connect(t.address)
    sock.sendall(b"".join(records))
    support.read_all(sock)
    sock.close()
    line = t.wait_log(" in=", lines + 1)
    return t.cpu_seconds() - before, line


@pytest.mark.parametrize("share", [True, False],
                         ids=["at once", "after a HelloRetryRequest"])
def test_small_records_are_bounded(room, backend, tunnel, share):
    """Each one is expensive to decrypt, but their number is limited."""
    backend.serve(support.echo)
    t = tunnel(GROUPS)
    flood = [hello(*offer(), share=share), record(22) * (LIMIT // LEAST)]
    honest, hostile = [], []
    for _ in range(5):
        seconds, end = handshake_cost(room, t, "1.3")
        assert end == "close_notify"
        honest.append(seconds)
        seconds, line = cost(t, *flood)
        assert line.endswith(" handshake: unexpected message")
        hostile.append(seconds)
    ratio = statistics.median(hostile) / statistics.median(honest)
    assert ratio < TIMES, ratio


def test_nothing_is_skipped_unasked(room, tunnel):
    """Without early_data, a record that can't be decrypted is still an error.
    """
    t = tunnel(GROUPS)
    assert "handshake: bad record MAC" in cost(t, hello(), record(100))[1]
    assert cost(t, hello(share=False), record(100))[1].endswith(
        "unexpected message")


def test_tickets_allow_no_early_data(room, backend, tunnel):
    """Neither the ticket of a new session nor that of a resumed one."""
    backend.serve(support.echo)
    t = tunnel()
    path, first = visit(room, t.address, "first")
    again = visit(room, t.address, "again", "-sess_in", path)[1]
    assert "Reused, TLSv1.3" in again
    for log in (first, again):
        assert set(re.findall("Max Early Data: (.*)", log)) == {"0"}
