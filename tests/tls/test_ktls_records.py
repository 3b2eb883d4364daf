"""Kernel TLS: records other than data, and invalid ones."""

import signal
import subprocess

import pytest

import peers
import support
from kernel_tls import KERNEL, SUITES, needs_ktls, version_of
from support import Task, read_all, read_exactly
from transfers import BLOCK
from wire import RECORDS, ByHand, client_hello, name_of


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


REKEYS = KERNEL >= (6, 14)
ALERT = "ALERT_"  # OpenSSL's names for these


@pytest.fixture
def pair(room, tunnel, by_hand):
    """Return both ends of a moved connection."""

    def make(*arguments, version="1.3", **keywords):
        t, ours = tunnel(*arguments, backend=by_hand)
        client = room.client(t, version, **keywords)
        server = room.keep(by_hand.accept())
        ours.expect_received(1)
        return t, client, server

    return make


# Records other than data.

@needs_ktls
@pytest.mark.parametrize("count", [1, 3])
def test_empty_records_are_no_end(room, tunnel, by_hand, version, count):
    t, ours = tunnel(ByHand.CIPHERS, backend=by_hand)
    hand = ByHand(room, t, version)
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    empty = b"".join(hand.data(b"") for _ in range(count))
    hand.client.sock.sendall(empty + hand.data(b"one"))
    assert read_exactly(server, 3) == b"one"
    for word in (b"two", b"three"):
        hand.client.sock.sendall(
            b"".join(hand.data(b"") for _ in range(count)))
        hand.client.sock.sendall(hand.data(word))
        assert read_exactly(server, len(word)) == word
    empty = b"".join(hand.data(b"") for _ in range(count))
    hand.client.sock.sendall(empty + hand.close_notify())
    assert read_all(server) == (b"", "eof")
    server.sendall(b"four")
    server.close()
    assert hand.client.read_all() == (b"four", "close_notify")


@needs_ktls
@pytest.mark.parametrize("requested", [False, True])
def test_key_update(room, tunnel, by_hand, requested):
    """It works if the kernel supports it; mbed TLS does not."""
    t, ours = tunnel(ByHand.CIPHERS, backend=by_hand)
    hand = ByHand(room, t, "1.3")
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    for n in range(3 if REKEYS else 1):
        hand.client.sock.sendall(hand.data(b"before") +
                                 hand.key_update(requested) +
                                 hand.data(b"behind"))
        assert read_exactly(server, 6) == b"before"
        if REKEYS:
            assert read_exactly(server, 6) == b"behind"
            server.sendall(BLOCK[:100000])
            assert read_exactly(hand.client, 100000) == BLOCK[:100000]
    if REKEYS:
        hand.client.sock.sendall(hand.close_notify())
        assert read_all(server) == (b"", "eof")
        server.close()
        assert hand.client.read_all() == (b"", "close_notify")
    else:
        data, end = hand.client.read_all()
        assert data == b"" and end.endswith(ALERT + "UNEXPECTED_MESSAGE")
        assert read_all(server) == (b"", "reset")


@needs_ktls
@pytest.mark.parametrize("size", [70000, 80000])
def test_key_update_behind_much(room, tunnel, by_hand, size):
    """All arrives at once: the tunnel's buffer is nearly full, and poll(2)
    does not report the rest.
    """
    if not REKEYS:
        pytest.skip("this kernel can't renew keys")
    t, ours = tunnel(ByHand.CIPHERS, "workers=1", backend=by_hand)
    hand = ByHand(room, t, "1.3")
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    data = BLOCK[:size]
    records = b"".join(hand.data(data[i:i + 16384])
                       for i in range(0, size, 16384))
    records += hand.key_update(False) + hand.data(b"behind")
    workers = t.workers()
    support.kill(workers, signal.SIGSTOP)
    try:
        hand.client.sock.sendall(records)
    finally:
        support.kill(workers, signal.SIGCONT)
    assert read_exactly(server, size + 6) == data + b"behind"


class Interactive:
    """OpenSSL's client, with single letters as commands."""

    def __init__(self, room, t, version):
        self.p = room.start("client", [
            "openssl", "s_client", "-verify_return_error", "-CAfile",
            room.certs.ca, "-servername", "localhost", "-connect", t.address,
            "-tls" + version.replace(".", "_")], stdin=subprocess.PIPE,
            bufsize=0)
        room.keep(self.p.popen.stdin)

    def say(self, line):
        self.p.popen.stdin.write(line.encode() + b"\n")

    def expect(self, pattern):
        self.p.wait_log(pattern)


@needs_ktls
@pytest.mark.parametrize("letter", ["k", "K"])
def test_key_update_of_openssl(room, tunnel, letter):
    t, ours = tunnel()
    client = Interactive(room, t, "1.3")
    client.say("one")
    client.expect("^one$")
    client.say(letter)
    client.expect("KEYUPDATE")
    if REKEYS:
        client.say("two")
        client.expect("^two$")
        client.say("three")
        client.expect("^three$")
    else:
        client.expect("alert unexpected message")
    ours.expect(1)


@needs_ktls
def test_renegotiation_is_refused(room, tunnel):
    t, ours = tunnel()
    client = Interactive(room, t, "1.2")
    client.say("one")
    client.expect("^one$")
    client.say("R")
    client.expect("no renegotiation")
    ours.expect(1)


@needs_ktls
def test_renegotiation_alters_nothing(room, tunnel, by_hand):
    """A warning ends nothing: client and tunnel may go on."""
    t, ours = tunnel(ByHand.CIPHERS, backend=by_hand)
    hand = ByHand(room, t, "1.2")
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    hello = client_hello(peers.context(room.certs, "1.2"))[5:]
    hand.client.sock.sendall(hand.data(b"before") + hand.handshake(hello) +
                             hand.data(b"behind"))
    assert read_exactly(server, 12) == b"beforebehind"


@needs_ktls
def test_forged_record(room, pair, suite):
    t, client, server = pair(f"ciphers={suite}", version=version_of(suite))
    client.send(b"genuine")
    assert read_exactly(server, 7) == b"genuine"
    record = bytearray(client.encrypt(b"forged"))
    record[-1] ^= 1
    client.sock.sendall(record)
    assert client.read_all() == (b"", "SSLV3_" + ALERT + "BAD_RECORD_MAC")
    assert read_all(server) == (b"", "reset")


@needs_ktls
@pytest.mark.parametrize("header", [
    "17 04 03 00 40", "17 03 03 ff ff", "17 03 03 00 01", "47 45 54 20 2f",
], ids=["version", "long", "short", "not-tls"])
def test_bad_header(pair, version, header):
    t, client, server = pair(version=version)
    client.send(b"genuine")
    assert read_exactly(server, 7) == b"genuine"
    client.sock.sendall(bytes.fromhex(header) + bytes(100))
    data, end = client.read_all()
    assert data == b"" and (ALERT in end or end == "reset")
    assert read_all(server) == (b"", "reset")


# Cases of test_alerts.py, detected by the kernel or by the tunnel.
FAULTS = {"alert-of-1": "decode_error", "finished": "unexpected_message",
          "data-too-long": "record_overflow", "version": "protocol_version",
          "forged": "bad_record_mac"}


@needs_ktls
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_told(room, tunnel, by_hand, version, fault):
    """More invalid data follow it in the kernel."""
    t, ours = tunnel(ByHand.CIPHERS, backend=by_hand)
    hand = ByHand(room, t, version)
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    hand.client.sock.sendall(RECORDS[fault][0](hand) + bytes(100000))
    data, end = hand.client.read_all()
    assert (data, name_of(end)) == (b"", FAULTS[fault])
    assert read_all(server) == (b"", "reset")


@needs_ktls
@pytest.mark.parametrize("fault", ["alert-of-1", "finished"])
def test_fault_is_told_to_a_downloader(room, tunnel, by_hand, version, fault):
    """The alert has no room at first."""
    t, ours = tunnel(ByHand.CIPHERS, backend=by_hand)
    hand = ByHand(room, t, version, rcvbuf=65536)
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    data = bytes(1 << 23)
    Task(server.sendall, data)
    support.wait_until_stalled(hand.client.sock)
    hand.client.sock.sendall(RECORDS[fault][0](hand))
    got, end = hand.client.read_all()
    assert name_of(end) == FAULTS[fault]
    assert data.startswith(got)


@needs_ktls
def test_fatal_alert_of_the_client(room, tunnel, by_hand, version):
    t, ours = tunnel(ByHand.CIPHERS, backend=by_hand)
    hand = ByHand(room, t, version)
    server = room.keep(by_hand.accept())
    ours.expect_received(1)
    hand.client.sock.sendall(hand.data(b"fine") +
                             hand.record(21, b"\2\x50"))  # internal_error
    got, end = read_all(server)
    assert b"fine".startswith(got) and end == "reset"
