"""The end of a stream is passed on as it was: the table of DESIGN.md, section
3.
"""

import os
import random
import signal
import socket
import time

import pytest

import support
from support import Task, read_all, read_exactly

has_no_backend = support.direct("it is another tunnel that has none")
MB = 1024 * 1024
SLOW_READER = 128 * 1024  # receive buffer of a peer that leaves data pending
ON_THE_WAY = 400 * 1024  # exceeds SLOW_READER, but still fits in transit
NOISE = random.Random(1).randbytes(8 * MB)


@pytest.fixture(params=["small", "pending"])
def size(request):
    """The amount in transit: little, or 8 MB to a slow reader."""
    return 1000 if request.param == "small" else 8 * MB


@pytest.fixture
def data(size):
    return NOISE[:size]


@pytest.fixture
def flood(data):
    """The same data, or more than fits between two peers."""
    return data if len(data) < MB else data * 4


@pytest.fixture
def backend(room):
    return room.backend(rcvbuf=SLOW_READER)


@pytest.fixture
def pair(room, backend, version):
    """Both ends of a connection, and the tunnel; takes arguments for the
    tunnel.
    """

    def make(*arguments):
        t = room.tunnel(f"connect={backend.address}", *arguments)
        client = room.client(t, version, rcvbuf=SLOW_READER)
        return t, client, room.keep(backend.accept())

    return make


def arrive(sock, data):
    """Wait until data has arrived at a socket; large data, until it stalls."""
    if len(data) < MB:
        support.wait_for(lambda: support.unread(sock) > 0, "data")
    else:
        support.wait_until_stalled(sock)


def stuff(sock, data):
    """Send everything; of large data, as much as fits."""
    sent = support.stuff(sock, data)
    assert sent == len(data) if len(data) < MB else sent < len(data)


# client close_notify (with or without FIN) -> backend: EOF; a late reply still
# reaches the client whole

@pytest.mark.parametrize("fin", [True, False], ids=["fin", "no-fin"])
def test_client_close_notify(pair, data, fin):
    t, client, server = pair()

    def request():
        client.send(data)
        client.close_notify()
        if fin:
            client.fin()

    sending = Task(request)
    arrive(server, data)
    assert read_all(server) == (data, "eof")
    sending.result()

    def reply():
        server.sendall(data[::-1])
        server.close()

    replying = Task(reply)
    arrive(client.sock, data)
    assert client.read_all() == (data[::-1], "close_notify")
    replying.result()
    line = t.wait_log(r"\d\.\d{3}s ")
    assert f"in={len(data)} out={len(data)} " in line
    assert line.endswith(" closed")


def test_client_close_notify_during_the_reply(pair, data):
    _, client, server = pair()
    replying = Task(server.sendall, data)
    arrive(client.sock, data)
    client.close_notify()
    client.fin()
    assert read_all(server) == (b"", "eof")
    assert read_exactly(client, len(data)) == data
    replying.result()
    server.sendall(b"a last word")
    server.close()
    assert client.read_all() == (b"a last word", "close_notify")


def test_client_close_notify_at_once(room, backend, version):
    """close_notify may arrive together with the end of the handshake."""
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    client.close_notify()
    client.fin()
    server = room.keep(backend.accept())
    assert read_all(server) == (b"", "eof")
    server.sendall(b"nothing to do")
    server.close()
    assert client.read_all() == (b"nothing to do", "close_notify")


# client FIN without close_notify -> backend: RST, logged "truncated"

def test_client_truncation(pair, data):
    t, client, server = pair()

    def cut_off():
        client.send(data)
        client.fin()

    sending = Task(cut_off)
    arrive(server, data)
    got, end = read_all(server)
    assert end == "reset"
    assert data.startswith(got)
    sending.result()
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" truncated")


def test_client_truncation_inside_a_record(pair):
    t, client, server = pair()
    client.send(b"whole")
    assert read_exactly(server, 5) == b"whole"
    client.tls.write(b"half of this is missing")
    record = client.outgoing.read()
    client.sock.sendall(record[:-9])
    client.fin()
    assert read_all(server) == (b"", "reset")
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" truncated")


def test_client_truncation_yields_no_close_notify(pair):
    _, client, server = pair()
    client.send(b"request")
    assert read_exactly(server, 7) == b"request"
    client.fin()
    assert client.read_all() == (b"", "reset")


# truncation = eof -> backend: a plain EOF

def test_truncation_eof(pair, data):
    _, client, server = pair("truncation=eof")

    def cut_off():
        client.send(data)
        client.fin()

    sending = Task(cut_off)
    arrive(server, data)
    assert read_all(server) == (data, "eof")
    sending.result()
    server.sendall(b"a late reply")
    server.close()
    assert client.read_all() == (b"a late reply", "close_notify")


# client RST -> backend: RST

def test_client_reset(pair, flood):
    """With data pending towards the backend."""
    t, client, server = pair()
    stuff(client.sock, client.encrypt(flood))
    arrive(server, flood)
    client.reset()
    got, end = read_all(server)
    assert end == "reset"
    assert flood.startswith(got)
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" client reset")


def test_client_reset_during_a_reply(pair, flood):
    """With data pending towards the client."""
    t, client, server = pair()
    stuff(server, flood)
    arrive(client.sock, flood)
    client.reset()
    assert read_all(server) == (b"", "reset")
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" client reset")


@pytest.mark.parametrize("truncation", ["reset", "eof"])
def test_client_reset_reported_to_a_writer(pair, truncation):
    """Nothing is read from the client at that moment, because its data is
    pending.  So a write reports the reset, and later reads find an end of
    stream, which must not count.
    """
    t, client, server = pair(f"truncation={truncation}")
    support.stuff(server, NOISE * 4)
    while support.unsent(client.sock) == 0:
        client.send(NOISE[:100000])
        end = time.monotonic() + 0.1 * support.SLOW
        while support.unsent(client.sock) and time.monotonic() < end:
            time.sleep(0.001)
    # Each read by the backend makes room for the client's unsent data.
    got = b""
    while support.unsent(client.sock):
        got += server.recv(1 << 16)
        time.sleep(0.01)
    client.reset()
    rest, end = read_all(server)
    assert end == "reset"
    assert len(got + rest) % 100000 == 0
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" client reset")


def test_client_reset_after_close_notify(pair):
    """An abort counts as such even after the end of the request."""
    t, client, server = pair()
    client.close_notify()
    assert read_all(server) == (b"", "eof")
    client.reset()
    t.wait_log(" client reset$")
    end = time.monotonic() + support.DEADLINE
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while time.monotonic() < end:
            server.sendall(b"x")
            time.sleep(0.005)  # pacing


def test_client_reset_without_a_wait_for_the_client(room, backend):
    """The tunnel never waits for the client, and still sees its reset.

    Both run on one CPU, at idle priority for the tunnel: whatever wakes the
    client preempts the tunnel, so each read finds the answer already there.
    """
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everywhere)})
    try:
        t = room.tunnel(f"connect={backend.address}")
        for pid in t.pids():
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        for n in range(1, 11):
            client = room.client(t, "1.2")
            client.close_notify()
            server = room.keep(backend.accept())
            assert read_all(server) == (b"", "eof")
            client.reset()
            t.wait_log(" client reset$", count=n)
    finally:
        os.sched_setaffinity(0, everywhere)


# backend EOF -> client: all bytes, then close_notify; it can still send

def test_backend_eof(pair, data):
    t, client, server = pair()

    def reply():
        server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    replying = Task(reply)
    arrive(client.sock, data)
    assert client.read_all() == (data, "close_notify")
    replying.result()

    def more():
        client.send(data[::-1])
        client.close_notify()
        client.fin()

    sending = Task(more)
    arrive(server, data)
    assert read_all(server) == (data[::-1], "eof")
    sending.result()
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" closed")


def test_closed_before_the_backend_has_read(pair, size):
    """Both directions have ended: data buffered by the system still arrives.
    """
    t, client, server = pair()
    server.shutdown(socket.SHUT_WR)
    assert client.read_all() == (b"", "close_notify")
    data = NOISE[:min(size, ON_THE_WAY)]
    client.send(data)
    client.close_notify()
    t.wait_log(" closed$")
    assert support.unread(server) < len(data) or size < MB
    assert read_all(server) == (data, "eof")


def test_backend_close(pair, data):
    """The usual end: a reply, and a close of both directions."""
    t, client, server = pair()
    client.send(b"request")
    assert read_exactly(server, 7) == b"request"

    def reply():
        server.sendall(data)
        server.close()

    replying = Task(reply)
    arrive(client.sock, data)
    assert client.read_all() == (data, "close_notify")
    replying.result()
    client.close_notify()
    client.close()
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" closed")


# backend RST -> client: RST, and never a close_notify

def test_backend_reset(pair, flood):
    """With data pending towards the client."""
    t, client, server = pair()
    stuff(server, flood)
    arrive(client.sock, flood)
    support.reset(server)
    got, end = client.read_all()
    assert end == "reset"
    assert flood.startswith(got)
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" backend reset")


def test_backend_reset_during_a_request(pair, flood):
    """With data pending towards the backend."""
    t, client, server = pair()
    stuff(client.sock, client.encrypt(flood))
    arrive(server, flood)
    support.reset(server)
    assert client.read_all() == (b"", "reset")
    assert t.wait_log(r"\d\.\d{3}s ").endswith(" backend reset")


def test_backend_reset_after_its_client_ended(pair):
    """The request has a proper end, and the reply is aborted."""
    _, client, server = pair()
    client.send(b"request")
    client.close_notify()
    assert read_all(server) == (b"request", "eof")
    server.sendall(b"half a rep")
    assert read_exactly(client, 10) == b"half a rep"
    support.reset(server)
    assert client.read_all() == (b"", "reset")


# a worker is killed -> backend: RST, unless it has received an EOF before

@pytest.fixture(params=["workers=1", "mode=fork"])
def doomed(request, pair):
    """Both ends of a connection, the tunnel, and a function that kills its
    process.
    """

    def make(*arguments):
        t, client, server = pair(request.param, *arguments)
        worker, = support.wait_for(lambda: len(t.workers()) == 1 and
                                   t.workers(), "one worker to remain")

        def kill():
            support.kill([worker])
            support.wait_for(lambda: not support.is_alive(worker),
                             "the worker's end")

        return t, client, server, kill

    return make


def request_in_transit(client, server, data=NOISE[:1000]):
    stuff(client.sock, client.encrypt(data))
    arrive(server, data)


def request_after_the_reply(client, server):
    server.shutdown(socket.SHUT_WR)
    assert client.read_all() == (b"", "close_notify")
    request_in_transit(client, server)


def request_with_a_pending_end(client, server):
    def request():
        try:
            client.send(NOISE * 4)
            client.close_notify()
        except OSError:  # the process was killed
            pass

    Task(request)
    arrive(server, NOISE)


IN_TRANSIT = {
    "nothing": lambda client, server: None,
    "request": request_in_transit,
    "much": lambda client, server: request_in_transit(client, server,
                                                      NOISE * 4),
    "after-the-reply": request_after_the_reply,
    "end-not-passed-on": request_with_a_pending_end,
}


@pytest.mark.parametrize("what", IN_TRANSIT)
def test_killed_worker_passes_on_no_end(doomed, what):
    """The system closes the worker's sockets.  No peer may take half of a
    request for a whole one.
    """
    _, client, server, kill = doomed()
    IN_TRANSIT[what](client, server)
    kill()
    assert read_all(server)[1] == "reset"
    if client.end is None:  # unless the backend has ended before
        assert client.read_all()[1] != "close_notify"


@pytest.mark.parametrize("way", ["close_notify", "truncation=eof"])
def test_end_passed_on_before_the_worker_is_killed(doomed, size, way):
    """The end remains valid, and all data sent before it arrives."""
    t, client, server, kill = doomed(*[way] * ("=" in way))
    data = NOISE[:min(size, ON_THE_WAY)]
    client.send(data)
    if way == "close_notify":
        client.close_notify()
    else:
        client.fin()

    def is_passed_on():
        t.signal(signal.SIGUSR1)
        return " half-closed\n" in t.log()

    support.wait_for(is_passed_on, "the end to be passed on")
    assert support.unread(server) < len(data) or size < MB
    kill()
    assert read_all(server) == (data, "eof")


# no backend accepts -> every address is tried; then a fatal internal_error

@has_no_backend
def test_no_backend(room, version):
    targets = [support.closed_port(), "unix:" + room.path("missing"),
               support.closed_port()]
    t = room.tunnel(*("connect=" + x for x in targets))
    client = room.client(t, version)
    assert client.read_all() == (b"", "TLSV1_ALERT_INTERNAL_ERROR")
    client.close()
    for target, why in zip(targets, ("Connection refused",
                                     "No such file or directory",
                                     "Connection refused")):
        t.wait_log(f"{target}: {why}")
    line = t.wait_log(r"in=0 out=0 .* no backend: ")
    assert " -> - " in line


@has_no_backend
def test_no_backend_with_much_data_sent(room, version):
    """A close while the client still sends would cause a reset, which can
    overtake the alert.
    """
    t = room.tunnel(f"connect={support.closed_port()}")
    client = room.client(t, version)
    sending = Task(client.sock.sendall, client.encrypt(NOISE[:MB]))
    assert client.read_all() == (b"", "TLSV1_ALERT_INTERNAL_ERROR")
    sending.result()


def test_second_backend(room, backend, version):
    """The first address refuses: the second one serves each connection."""
    t = room.tunnel(f"connect={support.closed_port()}",
                    f"connect={backend.address}")
    for _ in range(3):
        client = room.client(t, version)
        server = room.keep(backend.accept())
        client.send(b"to the second")
        assert read_exactly(server, 13) == b"to the second"


def test_round_robin(room):
    backends = [room.backend() for _ in range(3)]
    t = room.tunnel(*(f"connect={b.address}" for b in backends),
                    support.ALONE)
    for _ in range(2):
        for b in backends:
            client = room.client(t)
            server = room.keep(b.accept())
            server.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
