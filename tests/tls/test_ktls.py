"""Kernel TLS: after the handshake the kernel has the keys, and both sides see
no difference.  Most tests need a kernel with it; for other machines tests/vm
boots some.
"""

import contextlib
import os
import random
import re
import ssl
import struct
import subprocess
import time

import pytest

import peers
import shared_keys
import support
from kernel_tls import (KERNEL, MOVED, SUITES, available, end, needs_ktls,
                        version_of)
from support import Task, read_exactly, run, wait_for
from transfers import BLOCK, digest_of, echo_at_once, receive, send

# The user's view at the start.
ABOUT = "kernel TLS: "
REFUSED = "ktls = require: "

MB = 1024 * 1024
BIG = min(support.BIG, 20 * MB)
TRANSFERS = int(os.environ.get("TUNNEL_TRANSFERS", "20"))  # for each way to lose
IN_VM = "TUNNEL_VM" in os.environ  # the whole machine may be modified


@pytest.fixture
def backend(room):
    """The default backend; for another one, a test passes an argument."""
    return room.backend().serve(support.echo)


@pytest.fixture
def tunnel(moved_tunnel):
    return moved_tunnel


@pytest.fixture(params=SUITES)
def suite(request):
    return request.param


@pytest.fixture
def namespace():
    """A network with packets as small as on Ethernet; requested before the
    room.
    """
    with support.namespace() as ip:
        run(ip, "link", "set", "lo", "mtu", "1500")
        yield


def is_echoed(client, data=b"hello"):
    echoed = Task(read_exactly, client, len(data))
    client.send(data)
    return echoed.result(60 * support.SLOW) == data


def flight(client, *parts, close=False):
    """Do the handshake except for sending the last flight; return that and
    these parts, for the caller to send.
    """
    while True:
        try:
            client.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            client.flush()
            client.fill()
    for part in parts:
        client.tls.write(part)
    if close:
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
    return client.outgoing.read()


# Data.

@needs_ktls
@pytest.mark.seconds(90)
@pytest.mark.parametrize("way", ["down", "up"])
def test_much(room, tunnel, by_hand, suite, way):
    t, ours = tunnel(f"ciphers={suite}", backend=by_hand)
    client = room.client(t, version_of(suite))
    server = room.keep(by_hand.accept())
    one, other = (server, client) if way == "down" else (client, server)
    sending = Task(send, one, BIG)
    assert receive(other, BIG) == digest_of(BIG)
    sending.result()
    server.sendall(b".")
    assert read_exactly(client, 1) == b"."
    ours.expect(1)
    client.reset()
    line = t.wait_log(r"\d\.\d{3}s ")
    assert MOVED in line and f" {suite} " in line
    assert (f" in=0 out={BIG + 1} " if way == "down" else
            f" in={BIG} out=1 ") in line


@needs_ktls
def test_both_ways_at_once(room, tunnel, by_hand, suite):
    t, ours = tunnel(f"ciphers={suite}", backend=by_hand)
    client = room.client(t, version_of(suite))
    server = room.keep(by_hand.accept())
    tasks = [Task(send, client, 2 * MB), Task(send, server, 2 * MB),
             Task(receive, client, 2 * MB), Task(receive, server, 2 * MB)]
    assert [task.result(30 * support.SLOW) for task in tasks][2:] == \
        [digest_of(2 * MB)] * 2
    ours.expect(1)


@needs_ktls
def test_padded_records(room, tunnel, by_hand):
    """Padded as by mbed TLS: a kernel that expects no padding may return data
    twice.
    """
    t, _ = tunnel(backend=by_hand)
    ours = room.tunnel("client=yes", "ktls=off", f"connect={t.address}",
                       f"ca={room.certs.ca}", "server_name=localhost")
    for _ in range(3):
        sock = room.connect(ours.address)
        server = room.keep(by_hand.accept())
        tasks = [Task(send, sock, 3 * MB), Task(send, server, 3 * MB),
                 Task(receive, sock, 3 * MB), Task(receive, server, 3 * MB)]
        assert [task.result(30 * support.SLOW) for task in tasks][2:] == \
            [digest_of(3 * MB)] * 2


@needs_ktls
def test_echo(room, tunnel, suite):
    """Sizes around those of records and of read buffers."""
    t, ours = tunnel(f"ciphers={suite}")
    client = room.client(t, version_of(suite))
    for size in (1, 2, 100, 1399, 4096, 16383, 16384, 16385, 32768, 40000):
        assert is_echoed(client, BLOCK[size:2 * size])
    assert MOVED in end(t, client)
    ours.expect(1)


@needs_ktls
def test_slow_sink(room, tunnel, by_hand, suite):
    """Both begin to read when all buffers are full."""
    t, ours = tunnel(f"ciphers={suite}", backend=by_hand)
    client = room.client(t, version_of(suite), rcvbuf=20000)
    server = room.keep(by_hand.accept())
    tasks = [Task(send, client, 4 * MB), Task(send, server, 4 * MB)]
    support.wait_until_stalled(client.sock)
    tasks += [Task(receive, client, 4 * MB), Task(receive, server, 4 * MB)]
    assert [task.result(30 * support.SLOW) for task in tasks][2:] == \
        [digest_of(4 * MB)] * 2
    ours.expect(1)


@needs_ktls
def test_many_at_once(room, tunnel):
    t, ours = tunnel()
    echo_at_once(room, t, 40)
    ours.expect(40)


# Data directly behind the handshake.

KINDS = {"1.3": ("1.3", False), "1.3-resumed": ("1.3", True),
         "1.2-resumed": ("1.2", True)}


@pytest.fixture(params=KINDS)
def eager(request, room):
    """A client that sends the last flight of the handshake, with data behind
    it; in TLS 1.2 only a resumption has such.
    """
    version, resumed = KINDS[request.param]

    def make(t):
        session = None
        if resumed:
            client = room.client(t, version)
            assert is_echoed(client)
            session = client.session
            client.reset()
            t.wait_log(" client reset$")
        ctx = None if resumed else peers.context(room.certs, version)
        return room.keep(peers.Client(t.address, ctx, session=session))

    return make


@needs_ktls
def test_data_behind_the_last_flight(tunnel, eager):
    t, ours = tunnel()
    client = eager(t)
    before = ours.count()[0]
    parts = [BLOCK[n:n + 20000] for n in range(3)]
    client.sock.sendall(flight(client, *parts))
    assert read_exactly(client, 60000) == b"".join(parts)
    assert MOVED in end(t, client)
    ours.expect(before + 1)


@needs_ktls
def test_end_behind_the_last_flight(tunnel, eager):
    """The kernel refuses a socket whose peer has sent a FIN."""
    t, _ = tunnel()
    client = eager(t)
    client.sock.sendall(flight(client, b"request", close=True))
    client.fin()
    assert client.read_all() == (b"request", "close_notify")


@needs_ktls
def test_truncation_behind_the_last_flight(tunnel, eager):
    t, _ = tunnel()
    client = eager(t)
    client.sock.sendall(flight(client, b"request"))
    client.fin()
    data, end = client.read_all()
    assert b"request".startswith(data) and end == "reset"
    t.wait_log(" truncated$")


# Handshakes of all kinds.

@needs_ktls
@pytest.mark.parametrize("kind", ["ticket", "id", "no tickets sent"])
def test_resumption(room, tunnel, version, kind):
    """Records before the kernel took over are counted correctly."""
    if version == "1.3" and kind == "id":
        pytest.skip("TLS 1.3 has tickets only")
    t, ours = tunnel(*(["session_tickets=no"] if kind[0] == "n" else []))
    session = None
    for n in range(3):
        client = room.client(t, version, session=session,
                             tickets=kind != "id")
        assert is_echoed(client, b"whoever it is")
        wanted = n > 0 and (kind[0] != "n" or version == "1.2")
        assert client.resumed == wanted
        session = client.session if client.resumable else None
        line = end(t, client)
        assert MOVED in line
        assert (" resumed " in line) == wanted
    ours.expect(3)


def client_of_openssl(room, t, *arguments, stdin=b"", status=0):
    return run("openssl", "s_client", "-quiet", "-verify_return_error",
               "-CAfile", room.certs.ca, "-servername", "localhost",
               "-connect", t.address, *arguments, stdin=stdin, status=status,
               stderr=subprocess.DEVNULL, timeout=30 * support.SLOW)


def exchange(room, t, by_hand, *arguments):
    """Transfer much data both ways with OpenSSL's program."""
    def answer():
        with by_hand.accept() as sock:
            assert read_exactly(sock, 100000) == BLOCK[:100000]
            sock.sendall(BLOCK[100000:200000])

    answering = Task(answer)
    assert client_of_openssl(room, t, *arguments, stdin=BLOCK[:100000]) == \
        BLOCK[100000:200000]
    answering.result()


@needs_ktls
def test_hello_retry_request(room, tunnel, by_hand):
    t, ours = tunnel("groups=secp384r1", backend=by_hand)
    exchange(room, t, by_hand, "-tls1_3", "-groups", "X25519:P-384")
    assert MOVED in t.wait_log(" secp384r1 .* closed$")
    ours.expect(1)


@needs_ktls
def test_client_certificate(room, tunnel, authority, version):
    pem = authority.leaf("app1")
    t, ours = tunnel(f"ca={authority.crt}", "verify=require")
    client = room.client(t, version, client=pem)
    assert is_echoed(client, BLOCK[:50000])
    line = end(t, client)
    assert MOVED in line and 'client="CN=app1"' in line
    ours.expect(1)


@needs_ktls
def test_rsa_certificate(room, tunnel, version):
    t, ours = tunnel(f"cert={room.certs.rsa}")
    assert is_echoed(room.client(t, version), BLOCK[:50000])
    ours.expect(1)


@needs_ktls
def test_shared_key(room, tunnel, version):
    """TLS 1.2 has its own suite for shared keys."""
    t, m = tunnel(f"psk={shared_keys.write(room)}")
    out, err, _ = shared_keys.talk(shared_keys.openssl(version), t.address)
    assert out == b"hello\n", err
    t.wait_log(f"TLSv{version} .*{MOVED}psk=app1 in=6 out=6 .* closed$")
    m.expect(1)


# Connections that stay with mbed TLS.

@needs_ktls
def test_max_fragment_length_stays(room, tunnel, by_hand, version):
    """The kernel's records would be too long for the client.  In TLS 1.3 mbed
    TLS does not negotiate it.
    """
    t, ours = tunnel(backend=by_hand)
    exchange(room, t, by_hand, "-tls" + version.replace(".", "_"),
             "-maxfraglen", "1024")
    if version == "1.2":
        ours.expect_none()


@needs_ktls
@pytest.mark.parametrize("suite,name", [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
     "ECDHE-ECDSA-AES128-SHA256"),
    pytest.param(
        "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", "ECDHE-ECDSA-AES128-CCM",
        marks=pytest.mark.skipif(support.PATCHED,
                                 reason="our own library has no CCM")),
])
def test_other_suites_stay(room, tunnel, suite, name):
    t, ours = tunnel(f"ciphers={suite}")
    client = room.client(t, "1.2", ciphers=name)
    assert is_echoed(client, BLOCK[:50000])
    assert f" {suite} " in end(t, client)
    ours.expect_none()


@needs_ktls
def test_off(room, tunnel, version):
    t, ours = tunnel("ktls=off")
    client = room.client(t, version)
    assert is_echoed(client)
    end(t, client)
    ours.expect_none()


# Loss and stalls.

@needs_ktls
@pytest.mark.seconds(300)
@pytest.mark.parametrize("buffers", [None, 4608])
def test_nothing_is_lost_at_the_end(namespace, room, tunnel, suite, buffers):
    """When the backend has ended, the kernel may still hold a record that has
    no room: shutdown(2) would lose it.
    """
    if buffers:
        support.limit_send_buffers(buffers)
    rng = random.Random(suite)

    def pour(sock):
        size = struct.unpack(">I", read_exactly(sock, 4))[0]
        sock.sendall(BLOCK[:size])

    t, ours = tunnel(f"ciphers={suite}", backend=room.backend().serve(pour))
    first = room.client(t, version_of(suite))

    def slowly(client, size):
        client.send(struct.pack(">I", size))
        data = bytearray()
        while part := client.recv(4096):
            data += part
            time.sleep(0.0005)  # the client's pace
        client.close()
        return data == BLOCK[:size], client.end

    assert slowly(first, 1000) == (True, "close_notify")
    session = first.session
    for n in range(0, TRANSFERS, 5):
        clients = [room.client(t, rcvbuf=4096, session=session)
                   for _ in range(min(5, TRANSFERS - n))]
        tasks = [Task(slowly, client, rng.randrange(1, 150000))
                 for client in clients]
        for task in tasks:
            assert task.result(60 * support.SLOW) == (True, "close_notify")
        if version_of(suite) == "1.3":
            session = clients[-1].session
    ours.expect(1 + TRANSFERS)


@needs_ktls
@pytest.mark.seconds(90)
@pytest.mark.parametrize("buffers", [4608, 16384])
def test_no_standstill(namespace, room, tunnel, by_hand, version, buffers):
    """Both ways through send buffers smaller than a record."""
    support.limit_send_buffers(buffers)
    t, ours = tunnel(backend=by_hand)
    client = room.client(t, version)
    server = room.keep(by_hand.accept())
    tasks = [Task(send, client, MB), Task(send, server, MB),
             Task(receive, client, MB), Task(receive, server, MB)]
    assert [task.result(60 * support.SLOW) for task in tasks][2:] == \
        [digest_of(MB)] * 2
    ours.expect(1)


@needs_ktls
@pytest.mark.parametrize("size", [3, 100])
def test_part_of_a_record_costs_nothing(room, tunnel, by_hand, version, size):
    """Linux 6.1 reports it as readable, and then has no data; for this reason
    kernel TLS is used there only with ktls = require.
    """
    t, ours = tunnel("ktls=auto", backend=by_hand)
    client = room.client(t, version)
    server = room.keep(by_hand.accept())
    client.send(b"whole")
    assert read_exactly(server, 5) == b"whole"
    record = client.encrypt(bytes(1000))
    client.sock.sendall(record[:size])
    # Data in the other direction make the tunnel try this one again.
    server.sendall(b"reply")
    assert read_exactly(client, 5) == b"reply"
    before = t.cpu_seconds()
    time.sleep(1)  # time to measure
    assert t.cpu_seconds() - before <= 0.02 * support.SLOW
    client.sock.sendall(record[size:])
    assert read_exactly(server, 1000) == bytes(1000)
    if KERNEL < (6, 2):
        assert ours.count() == (0, 0)
    if KERNEL >= (6, 12):
        ours.expect(1)


# Memory.

def private_memory(t):
    """Return the bytes in private pages."""
    total = 0
    for pid in t.workers():
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += sum(map(int, re.findall(r"Private_Dirty: +(\d+)",
                                             f.read())))
    return total * 1024


@needs_ktls
@pytest.mark.seconds(300)
@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                    reason="they have memory of their own")
def test_idle_connections_have_no_memory(room, tunnel, by_hand):
    """About 1 KB each: no buffer of mbed TLS is left."""
    t, ours = tunnel("workers=1", backend=by_hand)
    sessions, clients = {}, []

    def visit():
        version = ("1.2", "1.3")[len(clients) % 2]
        client = room.client(t, version, session=sessions.get(version))
        server = room.keep(by_hand.accept())
        client.send(b"hello")
        assert read_exactly(server, 5) == b"hello"
        server.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        sessions.setdefault(version, client.session)
        clients.append(client)

    for _ in range(20):
        visit()
    ours.expect(20)
    before = private_memory(t)
    for _ in range(400):
        visit()
    ours.expect(420)
    wait_for(lambda: private_memory(t) - before < 440 * 1024,
             "400 idle connections to have less than 440 KB")
    for client in clients[0], clients[-1]:
        client.close_notify()


# Machines without kernel TLS.

@pytest.fixture
def absent():
    """Unload the kernel's module, and prevent loading it."""
    if not available():
        yield
        return
    if not IN_VM:
        pytest.skip("this machine's kernel has TLS, and keeps it")
    path = "/etc/modprobe.d/tunnel-test.conf"
    with open(path, "w") as f:
        f.write("install tls /bin/false\n")
    unload()
    try:
        yield
    finally:
        os.unlink(path)
        run("modprobe", "tls")


def unload():
    wait_for(lambda: subprocess.run(
        ["modprobe", "-r", "tls"], stderr=subprocess.DEVNULL).returncode == 0,
        "an unused module")


def test_require_without_it(absent, room):
    p = subprocess.run(
        support.command("ktls=require", "accept=127.0.0.1:0", "connect=1",
                        f"cert={room.certs.server}"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=support.DEADLINE)
    assert p.returncode == 2
    assert p.stdout == ""
    assert p.stderr.startswith("tunnel: error: ") and REFUSED in p.stderr
    assert p.stderr.count("\n") == 1


@pytest.mark.parametrize("how", ["auto", "off"])
def test_without_it(absent, room, backend, version, how):
    """The log has only one line about it."""
    t = room.tunnel(f"connect={backend.address}", f"ktls={how}")
    client = room.client(t, version)
    assert is_echoed(client, BLOCK[:100000])
    assert MOVED not in end(t, client)
    assert t.log().count("ktls") == 0
    assert t.log().count(ABOUT) == 1


@needs_ktls
@pytest.mark.skipif(not IN_VM, reason="the kernel's module has to be unloaded")
def test_module_is_loaded_when_it_is_needed(room, tunnel):
    """The privileged process loads it at the start."""
    unload()
    t, ours = tunnel("user=nobody")
    assert is_echoed(room.client(t))
    ours.expect(1)


@needs_ktls
@pytest.mark.skipif(not IN_VM, reason="the kernel's module has to be unloaded")
def test_module_cannot_be_loaded_without_privileges(room, backend):
    unload()
    words = support.command("ktls=auto", "accept=127.0.0.1:0",
                            f"connect={backend.address}", "log_level=debug",
                            f"cert={room.certs.server}")
    try:
        p = room.start("unprivileged", [
            "setpriv", "--bounding-set=-net_admin,-sys_module", *words])
        address = p.wait_log("listening on").rsplit(" ", 1)[1]
        client = room.client(address)
        assert is_echoed(client, BLOCK[:100000])
        assert MOVED not in end(p, client)
    finally:
        run("modprobe", "tls")
