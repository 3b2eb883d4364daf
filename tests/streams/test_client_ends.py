"""The end of a stream is passed on as it was, with client=yes: the table of
DESIGN.md, section 3, in the other direction.  The client is an application
without TLS.
"""

import contextlib
import random
import re
import signal
import socket
import struct
import time

import pytest

import support
from proxy import CLIENT, SERVER, SIGNATURE, v1, v2
from support import Task, read_all, read_exactly, statistics_and_live

MB = 1024 * 1024
SLOW_READER = 128 * 1024  # receive buffer of a peer that leaves data pending
NOISE = random.Random(1).randbytes(8 * MB)
END = r"\d\.\d{3}s "  # in a connection's log line, before the reason


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
def start(room, backend):
    """A tunnel to the backend, or to the given addresses; with -i, the
    application is on its standard input.
    """

    def make(*arguments, to=None, **keywords):
        to = [backend.address] if to is None else to
        words = [] if any(word.startswith("ca=") for word in arguments) \
            else [f"ca={room.certs.ca}"]
        return room.tunnel("client=yes", "server_name=localhost", *words,
                           *(f"connect={address}" for address in to),
                           *arguments, **keywords)

    return make


@pytest.fixture(params=["listening", "fork", "inetd"])
def way(request):
    return request.param


@pytest.fixture
def call(room, start, way):
    """A tunnel, and an application connected to it."""

    def make(*arguments, **keywords):
        if way == "inetd":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                app = room.connect(support.tcp_address(listener),
                                   rcvbuf=SLOW_READER)
                with listener.accept()[0] as sock:
                    t = start("-i", *arguments, ready=False, stdin=sock,
                              **keywords)
            return t, app
        if way == "fork":
            arguments = ("mode=fork", *arguments)
        t = start(*arguments, **keywords)
        try:
            return t, room.connect(t.address, rcvbuf=SLOW_READER)
        except ConnectionResetError:  # the tunnel was faster
            return t, None

    return make


@pytest.fixture
def pair(room, call, backend, version):
    """Both ends of a connection, and the tunnel; takes arguments for the
    tunnel.
    """

    def make(*arguments):
        t, app = call(*arguments)
        server = room.server(backend.accept(), version).handshake()
        return t, app, server

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


# application FIN -> server: close_notify and FIN; a late reply arrives whole

def test_application_eof(pair, data):
    t, app, server = pair()

    def request():
        app.sendall(data)
        app.shutdown(socket.SHUT_WR)

    sending = Task(request)
    arrive(server.sock, data)
    assert server.read_all() == (data, "close_notify")
    assert server.sock.recv(1) == b""
    sending.result()

    def reply():
        server.send(data[::-1])
        server.close_notify()
        server.close()

    replying = Task(reply)
    arrive(app, data)
    assert read_all(app) == (data[::-1], "eof")
    replying.result()
    line = t.wait_log(END)
    assert f"in={len(data)} out={len(data)} " in line
    assert line.endswith(" closed")


def test_application_eof_during_the_reply(pair, data):
    _, app, server = pair()
    replying = Task(server.send, data)
    arrive(app, data)
    app.shutdown(socket.SHUT_WR)
    assert read_exactly(app, len(data)) == data
    replying.result()
    assert server.read_all() == (b"", "close_notify")
    server.send(b"a last word")
    server.close_notify()
    assert read_all(app) == (b"a last word", "eof")


def test_application_eof_before_the_handshake(room, call, backend, version):
    """Everything sent before the handshake arrives ahead of the end."""
    t, app = call()
    app.sendall(b"a question")
    app.shutdown(socket.SHUT_WR)
    sock = backend.accept()
    t.wait_log(" accepted$")
    server = room.server(sock, version).handshake()
    assert server.read_all() == (b"a question", "close_notify")
    server.send(b"an answer")
    server.close_notify()
    server.close()
    assert read_all(app) == (b"an answer", "eof")
    assert t.wait_log(END).endswith(" closed")


# server close_notify (with or without FIN) -> application: all bytes and EOF;
# it can still send

@pytest.mark.parametrize("fin", [True, False], ids=["fin", "no-fin"])
def test_server_close_notify(pair, data, fin):
    t, app, server = pair()

    def reply():
        server.send(data)
        server.close_notify()
        if fin:
            server.fin()

    replying = Task(reply)
    arrive(app, data)
    assert read_all(app) == (data, "eof")
    replying.result()

    def more():
        app.sendall(data[::-1])
        app.shutdown(socket.SHUT_WR)

    sending = Task(more)
    arrive(server.sock, data)
    assert server.read_all() == (data[::-1], "close_notify")
    sending.result()
    assert t.wait_log(END).endswith(" closed")


def test_server_close_notify_at_once(room, call, backend, version):
    """close_notify may arrive together with the end of the handshake."""
    t, app = call()
    server = room.server(backend.accept(), version).handshake()
    server.send(b"nothing to do")
    server.close_notify()
    server.fin()
    assert read_all(app) == (b"nothing to do", "eof")
    app.close()
    assert server.read_all() == (b"", "close_notify")
    assert t.wait_log(END).endswith(" closed")


# server FIN without close_notify -> application: RST, logged "truncated"

def test_server_truncation(pair, data):
    t, app, server = pair()

    def cut_off():
        server.send(data)
        server.fin()

    sending = Task(cut_off)
    arrive(app, data)
    got, end = read_all(app)
    assert end == "reset"
    assert data.startswith(got)
    sending.result()
    assert server.read_all() == (b"", "reset")
    assert t.wait_log(END).endswith(" truncated")


def test_server_truncation_inside_a_record(pair):
    t, app, server = pair()
    server.send(b"whole")
    server.sock.sendall(server.encrypt(b"half of this is missing")[:-9])
    assert read_exactly(app, 5) == b"whole"
    server.fin()
    assert read_all(app) == (b"", "reset")
    assert t.wait_log(END).endswith(" truncated")


def test_server_truncation_after_the_request(pair):
    """The application has ended its request, and the reply is truncated."""
    _, app, server = pair()
    app.sendall(b"request")
    app.shutdown(socket.SHUT_WR)
    assert server.read_all() == (b"request", "close_notify")
    server.send(b"half a rep")
    assert read_exactly(app, 10) == b"half a rep"
    server.close()
    assert read_all(app) == (b"", "reset")


# truncation = eof -> application: a plain EOF

def test_truncation_eof(pair, data):
    _, app, server = pair("truncation=eof")

    def cut_off():
        server.send(data)
        server.fin()

    sending = Task(cut_off)
    arrive(app, data)
    assert read_all(app) == (data, "eof")
    sending.result()
    app.sendall(b"a late request")
    app.close()
    assert server.read_all() == (b"a late request", "close_notify")


# server RST -> application: RST

def test_server_reset(pair, flood):
    """With data pending towards the application."""
    t, app, server = pair()
    stuff(server.sock, server.encrypt(flood))
    arrive(app, flood)
    server.reset()
    got, end = read_all(app)
    assert end == "reset"
    assert flood.startswith(got)
    assert t.wait_log(END).endswith(" backend reset")


def test_server_reset_during_a_request(pair, flood):
    """With data pending towards the server."""
    t, app, server = pair()
    stuff(app, flood)
    arrive(server.sock, flood)
    server.reset()
    assert read_all(app) == (b"", "reset")
    assert t.wait_log(END).endswith(" backend reset")


def test_server_reset_after_its_close_notify(pair):
    """An abort counts as such even after the end of the reply."""
    t, app, server = pair()
    server.close_notify()
    assert read_all(app) == (b"", "eof")
    server.reset()
    t.wait_log(" backend reset$")
    end = time.monotonic() + support.DEADLINE
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while time.monotonic() < end:
            app.sendall(b"x")
            time.sleep(0.005)  # pacing


# application RST -> server: RST, and never a close_notify

def test_application_reset(pair, flood):
    """With data pending towards the server."""
    t, app, server = pair()
    stuff(app, flood)
    arrive(server.sock, flood)
    support.reset(app)
    got, end = server.read_all()
    assert end == "reset"
    assert flood.startswith(got)
    assert t.wait_log(END).endswith(" client reset")


def test_application_reset_during_a_reply(pair, flood):
    """With data pending towards the application."""
    t, app, server = pair()
    stuff(server.sock, server.encrypt(flood))
    arrive(app, flood)
    support.reset(app)
    assert server.read_all() == (b"", "reset")
    assert t.wait_log(END).endswith(" client reset")


# invalid data from the server -> server: alert; application: RST

def test_bad_mac(pair):
    t, app, server = pair()
    good, bad = server.encrypt(b"good"), server.encrypt(b"bad")
    server.sock.sendall(good + bad[:-1] + bytes([bad[-1] ^ 1]))
    assert server.read_all() == (b"", "SSLV3_ALERT_BAD_RECORD_MAC")
    assert read_all(app) == (b"good", "reset")
    server.close()
    assert re.search(END + "backend: TLS: .*MAC", t.wait_log(END))


def test_no_record(pair):
    t, app, server = pair()
    server.sock.sendall(server.encrypt(b"good") + b"HTTP/1.0 400\r\n\r\n")
    _, end = server.read_all()
    assert "_ALERT_" in end
    assert read_all(app) == (b"good", "reset")
    server.close()
    assert re.search(END + "backend: TLS: ", t.wait_log(END))


def test_alert_of_the_server(pair):
    """All earlier data arrives, then a reset; the log has the alert."""
    t, app, server = pair()
    app.sendall(b"x")
    assert read_exactly(server, 1) == b"x"
    server.send(b"good")
    # Data that the server cannot read makes it send an alert.
    server.incoming.write(struct.pack(">BHH", 23, 0x303, 40) + bytes(40))
    assert server.recv() == b""
    server.flush()
    assert read_all(app) == (b"good", "reset")
    name = r": bad_record_mac \(20\)" if support.PATCHED else ""
    assert re.search(END + "backend: TLS: the server sent a fatal alert" +
                     name, t.wait_log(END))


# failed handshake -> application: RST; the reason is in the log

def sends(data):
    def answer(room, sock):
        sock.recv(1)
        sock.sendall(data)
        room.keep(sock)
    return answer


def closes(room, sock):
    read_hello(sock)
    sock.close()


def read_hello(sock):
    support.wait_for(lambda: support.unread(sock) > 0, "a ClientHello")
    return sock.recv(1 << 16)


def presents(name):
    """A server with that certificate, which expects an alert."""
    def answer(room, sock):
        server = room.server(sock, pem=getattr(room.certs, name))
        with pytest.raises((OSError, ConnectionError)):
            server.handshake()
            server.recv()
            raise ConnectionError(server.end)
    return answer


FAILURES = {
    "greets": (sends(b"220 mail.example.org ESMTP\r\n"),
               r'not TLS.*: the server sent "220 '),
    "http": (sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
             'not TLS.*: the server sent "HTTP/1'),
    "alert": (sends(bytes.fromhex("15030300020228")),
              "handshake: the server sent a fatal alert: handshake_failure"),
    "nonsense": (sends(bytes.fromhex("160303000402000000")), "handshake: "),
    "closes": (closes, "server closed without sending anything"),
    "resets": (lambda room, sock: (read_hello(sock),
                                   support.reset(sock)),
               "reset during the handshake"),
    "resets-at-once": (lambda room, sock: support.reset(sock), ".*[Rr]eset"),
    "breaks-off": (lambda room, sock: (
        read_hello(sock), sock.sendall(b"\x16\3\3\1\0\2"),
        sock.close()), "server closed during the handshake"),
    "stays-silent": (lambda room, sock: room.keep(sock), "handshake timeout"),
    "expired": (presents("expired"), "server certificate .*expired"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_handshake(room, call, backend, failure):
    """Nothing that the application sent reaches a server."""
    answer, why = FAILURES[failure]
    seconds = 1 if failure == "stays-silent" else 60
    t, app = call(f"handshake_timeout={seconds}s")
    app.sendall(b"a secret")
    answer(room, backend.accept())
    began = time.monotonic()
    assert read_all(app) == (b"", "reset")
    assert time.monotonic() - began < 1 + 1 * support.SLOW
    line = t.wait_log(END)
    assert re.search(END + f"no backend: {re.escape(backend.address)}: {why}",
                     line), line
    assert " -> - in=0 out=0 " in line and "warning: " in line


def test_data_before_the_handshake_is_not_sent_in_the_clear(room, call,
                                                            backend):
    _, app = call("handshake_timeout=1s")
    app.sendall(b"a secret" * 1000)
    server = room.keep(backend.accept())
    assert b"a secret" not in read_all(server)[0]
    assert read_all(app) == (b"", "reset")


def test_untrusted_server(room, call, backend, authority):
    """The server receives an alert; the log has a single line about it."""
    t, app = call(f"ca={authority.crt}")
    server = room.server(backend.accept(), "1.2")
    with pytest.raises(OSError, match="(?i)alert unknown ca"):
        server.handshake()
    assert read_all(app) == (b"", "reset")
    t.wait_log(f"warning: .* no backend: {backend.address}: server certificate ")
    assert t.log().count("server certificate ") == 1


# no server accepts -> every address is tried; then RST

def test_no_server(room, call):
    targets = [support.closed_port(), "unix:" + room.path("missing"),
               support.closed_port()]
    t, app = call(to=targets)
    assert app is None or read_all(app) == (b"", "reset")
    for target, why in zip(targets, ("Connection refused",
                                     "No such file or directory",
                                     "Connection refused")):
        t.wait_log(f"{target}: {why}")
    line = t.wait_log(r"in=0 out=0 .* no backend: ")
    assert " -> - " in line


def test_no_server_with_much_data_sent(call):
    _, app = call(to=[support.closed_port()])
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while app is not None:
            app.sendall(NOISE)
        raise BrokenPipeError


def serve_next(room, backend, version=None):
    return room.server(backend.accept(), version).handshake()


def test_next_address(room, start, version):
    """Four addresses fail: refused, not TLS, wrong certificate, silent.  The
    next one serves.  Wrong certificates are logged as warnings.
    """
    plain, wrong, silent, good = (room.backend() for _ in range(4))
    t = start(support.ALONE, f"handshake_timeout={int(support.SLOW)}s", to=[
        support.closed_port(), *(b.address
                                 for b in (plain, wrong, silent, good))])
    app = room.connect(t.address)
    sends(b"+OK\r\n")(room, plain.accept())
    presents("expired")(room, wrong.accept())
    room.keep(silent.accept())
    server = serve_next(room, good, version)
    app.sendall(b"to the last one")
    assert read_exactly(server, 15) == b"to the last one"
    t.wait_log(rf"tunnel: \S+ -> {plain.address}: not TLS")
    t.wait_log(rf"warning: \S+ -> {wrong.address}: server certificate ")
    t.wait_log(rf"tunnel: \S+ -> {silent.address}: handshake timeout")
    app.close()
    server.close_notify()
    server.close()
    assert f" -> {good.address} TLSv{version} " in t.wait_log(END)


def test_round_robin(room, start):
    backends = [room.backend() for _ in range(3)]
    t = start(support.ALONE, to=[b.address for b in backends])
    for _ in range(2):
        for b in backends:
            app = room.connect(t.address)
            serve_next(room, b).send(b"here")
            assert read_exactly(app, 4) == b"here"


# a worker is killed -> application: RST; server: never a proper end

@pytest.fixture(params=["workers=1", "mode=fork"])
def doomed(request, room, start, backend, version):
    """Both ends of a connection, and a function that kills its process."""

    def make(handshake=True):
        t = start(request.param)
        app = room.connect(t.address, rcvbuf=SLOW_READER)
        server = room.server(backend.accept(), version)
        if handshake:
            server.handshake()
        worker, = support.wait_for(lambda: len(t.workers()) == 1 and
                                   t.workers(), "one worker to remain")

        def kill():
            support.kill([worker])
            support.wait_for(lambda: not support.is_alive(worker),
                             "the worker's end")

        return app, server, kill

    return make


def reply_in_transit(app, server, data=NOISE[:1000]):
    stuff(server.sock, server.encrypt(data))
    arrive(app, data)


def reply_with_a_pending_end(app, server):
    def reply():
        try:
            server.send(NOISE * 4)
            server.close_notify()
        except OSError:  # the process was killed
            pass

    Task(reply)
    arrive(app, NOISE)


def reply_after_the_request(app, server):
    app.shutdown(socket.SHUT_WR)
    assert server.read_all() == (b"", "close_notify")
    reply_in_transit(app, server)


IN_TRANSIT = {
    "nothing": lambda app, server: None,
    "request": lambda app, server: app.sendall(b"request"),
    "reply": reply_in_transit,
    "much": lambda app, server: reply_in_transit(app, server, NOISE * 4),
    "after-the-request": reply_after_the_request,
    "end-not-passed-on": reply_with_a_pending_end,
}


@pytest.mark.parametrize("what", IN_TRANSIT)
def test_killed_worker_passes_on_no_end(doomed, what):
    app, server, kill = doomed()
    IN_TRANSIT[what](app, server)
    kill()
    assert read_all(app)[1] == "reset"
    if server.end is None:  # unless the application has ended before
        assert server.read_all()[1] in ("truncated", "reset")


def test_worker_killed_during_a_handshake(doomed):
    app, _, kill = doomed(handshake=False)
    app.sendall(b"x")
    kill()
    assert read_all(app) == (b"", "reset")


# timeouts and signals

def test_idle_timeout(pair):
    t, app, server = pair("idle_timeout=1s")
    assert read_all(app) == (b"", "reset")
    assert server.read_all() == (b"", "reset")
    assert t.wait_log(END).endswith(" idle timeout")


def test_half_close_timeout(pair):
    """A side that has already received an end of stream gets no reset."""
    t, app, server = pair("half_close_timeout=1s")
    server.send(b"answer")
    server.close_notify()
    assert read_all(app) == (b"answer", "eof")
    assert server.read_all() == (b"", "reset")
    assert t.wait_log(END).endswith(" half-close timeout")


def test_application_reset_during_a_handshake(room, call, backend):
    """The server also sees a reset; the log does not blame the server."""
    t, app = call()
    sock = room.keep(backend.accept())
    read_hello(sock)
    support.reset(app)
    assert read_all(sock) == (b"", "reset")
    line = t.wait_log(END)
    assert line.endswith(" client reset") and "warning" not in line


@pytest.mark.parametrize("mode", ["workers=1", "mode=fork"])
def test_statistics(room, start, backend, mode):
    """A handshake with a server is counted when it is complete."""
    path = room.path("stats.prom")
    t = start(mode, "handshake_timeout=60s", f"stats_file={path}")

    def has_counted(metric, n):
        t.signal(signal.SIGUSR1)
        time.sleep(0.05)  # pacing
        return re.search(rf'(?m)^tunnel_{metric}"\}} {n}$',
                         support.text_of(path))

    app = room.connect(t.address)
    server = room.server(backend.accept())
    counters, (line,) = support.wait_for(
        lambda: (found := statistics_and_live(t))[1] and found,
        "a live connection")
    assert line.endswith(" securing")
    completed = 'handshakes_total{.*,version="TLSv1.3'
    support.wait_for(lambda: has_counted(completed, 0), "a count of 0")
    server.handshake()
    support.wait_for(lambda: has_counted(completed, 1), "the handshake")
    assert statistics_and_live(t)[1][0].endswith(" flowing")
    for behave in (presents("expired"), FAILURES["resets"][0]):
        other = room.connect(t.address)
        behave(room, backend.accept())
        assert read_all(other) == (b"", "reset")
    backend.close()
    with contextlib.suppress(ConnectionResetError):  # the tunnel was faster
        assert read_all(room.connect(t.address)) == (b"", "reset")
    t.wait_log(END + "no backend: ", count=3)
    counters, _ = statistics_and_live(t)
    assert counters["refused"] == 2 and counters["no_backend"] == 1
    assert counters["served"] == 0 and counters["live"] == 1
    for reason in ("server_certificate", "closed"):
        support.wait_for(lambda: has_counted(
            'handshake_failures_total{.*,reason="' + reason, 1), reason)
    app.close()


def test_stop_during_a_handshake(room, start, backend):
    """A handshake may complete, and the connection be served, within
    drain_timeout.
    """
    t = start(support.ALONE)
    app = room.connect(t.address)
    server = room.server(backend.accept())
    t.signal(signal.SIGTERM)
    support.wait_for(lambda: support.is_refused(t.address), "the stop")
    server.handshake()
    server.send(b"still")
    assert read_exactly(app, 5) == b"still"
    app.close()
    server.close_notify()
    assert t.wait() == 0


def test_drain_timeout_during_a_handshake(room, start, backend):
    t = start(support.ALONE, "drain_timeout=1s")
    app = room.connect(t.address)
    sock = room.keep(backend.accept())
    t.signal(signal.SIGTERM)
    assert read_all(app) == (b"", "reset")
    assert read_all(sock)[1] == "reset"
    assert t.wait() == 0
    assert t.log().count(" drain timeout\n") == 1


def test_reload_during_a_handshake(room, configured, backend):
    """The handshake continues with the old configuration."""
    c = configured(client="yes", cert=None, server_name="localhost",
                   ca=room.certs.ca)
    app = room.connect(c.t.address)
    server = room.server(backend.accept())
    c.reload()
    server.handshake()
    server.send(b"still")
    assert read_exactly(app, 5) == b"still"


# the PROXY protocol, incoming and outgoing

@pytest.mark.parametrize("header", [v1(CLIENT, SERVER), v2(CLIENT, SERVER)],
                         ids=["v1", "v2"])
def test_accept_proxy(room, call, backend, header):
    t, app = call("accept_proxy=yes")
    app.sendall(header + b"request")
    server = room.server(backend.accept()).handshake()
    assert read_exactly(server, 7) == b"request"
    app.close()
    server.close_notify()
    assert "%s:%d -> " % CLIENT in t.wait_log(END)


@pytest.mark.parametrize("header", [b"GET / HTTP/1.0\r\n\r\n",
                                    b"PROXY TCP4 x\r\n", b""],
                         ids=["none", "bad", "nothing"])
def test_bad_proxy_header(call, backend, header):
    t, app = call("accept_proxy=yes", "handshake_timeout=1s")
    app.sendall(header)
    assert read_all(app) == (b"", "reset")
    t.wait_log(END)
    backend.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        backend.accept()


def test_proxy_protocol(room, call, backend, version):
    """The header precedes TLS, and has no TLS information."""
    t, app = call("proxy_protocol=v2")
    sock = backend.accept()
    head = read_exactly(sock, 16)
    assert head[:12] == SIGNATURE and head[12:14] == b"\x21\x11"
    block = read_exactly(sock, int.from_bytes(head[14:], "big"))
    assert len(block) == 12
    host, port = app.getsockname()
    assert block[:4] == socket.inet_aton(host)
    assert int.from_bytes(block[8:10], "big") == port
    server = room.server(sock, version).handshake()
    server.send(b"reply")
    assert read_exactly(app, 5) == b"reply"
