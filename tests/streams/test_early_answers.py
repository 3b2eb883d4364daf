"""A backend answers early and closes with input unread: the client receives
the whole answer, and only then the abort.
"""

import errno
import random
import socket
import threading

import pytest

import support
from support import Task, read_all, read_exactly

PYTHON = "/usr/bin/python3"
NOISE = random.Random(1).randbytes(300000)
REQUEST = b"u" * 3000000
HEADER = 1000  # bytes of a request that the backend reads
TIMES = 5

# The same on standard input and output.
COMMAND = f"""
import os, sys
os.read(0, {HEADER})
with open(sys.argv[1], "rb") as f:
    data = memoryview(f.read())
while data:
    data = data[os.write(1, data):]
"""


def refuse_upload(answer):
    """A backend that reads a header, answers, and closes with the rest unread.
    It first waits until the answer has left, because a reset drops unsent
    data.
    """

    def serve(sock):
        read_exactly(sock, HEADER)
        sock.sendall(answer)
        support.wait_for(lambda: support.unsent(sock) == 0,
                         "the answer to be sent")

    return serve


def upload(client):
    """Send until the tunnel stops reading."""
    try:
        client.send(REQUEST)
    except OSError as e:
        assert e.errno in (errno.EPIPE, errno.ECONNRESET)


@pytest.fixture(params=["tcp", "unix", "command"])
def kind(request):
    return request.param


@pytest.fixture
def start(kind, room):
    """Start a tunnel in front of a backend with this answer."""

    def make(answer):
        if kind == "command":
            path = room.write("answer", answer)
            return room.tunnel("--", PYTHON, "-c", COMMAND, path)
        family, to = (socket.AF_INET, ("127.0.0.1", 0)) \
            if kind == "tcp" else (socket.AF_UNIX, room.path("backend"))
        backend = room.backend(family=family, to=to)
        backend.serve(refuse_upload(answer))
        return room.tunnel(f"connect={backend.address}")

    return make


@pytest.mark.parametrize("size", [200, 3000, 30000, 300000])
def test_early_answer(room, kind, start, version, size):
    answer = NOISE[:size]
    t = start(answer)
    for _ in range(TIMES):
        client = room.client(t, version)
        sending = Task(upload, client)
        got, end = client.read_all()
        assert len(got) == size and got == answer
        # An exit of a command with status 0 is a proper end.
        assert end != "close_notify" or kind == "command"
        sending.result()


def test_early_answer_to_a_slow_client(room, version):
    """The abort does not overtake data buffered on the tunnel's host."""
    left = threading.Event()

    def serve(sock):
        refuse_upload(NOISE)(sock)
        sock.close()
        left.set()

    backend = room.backend().serve(serve)
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version, rcvbuf=1 << 14)
    sending = Task(upload, client)
    assert left.wait(support.DEADLINE)
    support.wait_until_stalled(client.sock)
    got, end = client.read_all()
    assert len(got) == len(NOISE) and got == NOISE
    assert end != "close_notify"
    sending.result()


@pytest.mark.parametrize("size", [200, 300000])
def test_data_before_an_abort_by_the_client(room, version, size):
    """The other direction: data sent before a close with input unread."""
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}")
    for _ in range(TIMES):
        client = room.client(t, version)
        server = room.keep(backend.accept())
        support.stuff(server, REQUEST)
        support.wait_for(lambda: support.unread(client.sock) > 0, "data")
        client.send(NOISE[:size])
        support.wait_for(lambda: support.unsent(client.sock) == 0,
                         "the data to be sent")
        client.sock.close()
        assert read_all(server) == (NOISE[:size], "reset")
