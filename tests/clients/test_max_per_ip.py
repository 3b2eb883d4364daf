"""max_per_ip limits the connections of one address."""

import os
import ssl

import pytest

import support
from crowds import GARBAGE, come, crowd, ended, greet, is_fork, is_served
from support import statistics, wait_until_alone

LATE = 1.0 * support.SLOW  # tolerance for timeouts


def is_refused(room, address, source=None):
    with pytest.raises((ConnectionError, ssl.SSLError)):
        is_served(room, address, source)


def test_max_per_ip_is_exact(room, start):
    """With any number of processes that share the count."""
    t = start("max_per_ip=10")
    some = crowd(room, t.address, 40)
    support.wait_for(lambda: len(ended(some)) == 30, "30 to be refused")
    t.wait_log("127.0.0.1:[0-9]+ refused: its address already has 10"
               r" connections \(max_per_ip\)$", count=30)
    for _ in range(10):
        is_served(room, t.address, "127.0.0.2")
    is_refused(room, t.address, "127.0.0.2")
    assert len(ended(some)) == 30
    numbers = statistics(t)
    assert numbers["over_max_per_ip"] == 31
    assert numbers["live"] == 20


def test_one_of_two_at_once(room, start):
    """With one slot, one of two clients gets it, from whichever worker is
    first.
    """
    t = start("max_per_ip=1")
    pairs = [crowd(room, t.address, 2, f"127.0.1.{n}") for n in range(1, 101)]
    t.wait_log("(accepted|refused: .*)$", count=200)
    support.wait_for(lambda: all(ended(pair) for pair in pairs),
                     "one of each to be refused")
    assert [len(ended(pair)) for pair in pairs] == [1] * 100


def test_max_per_ip_is_off_by_default(room, start):
    t = start()
    for _ in range(30):
        is_served(room, t.address)
    assert statistics(t)["over_max_per_ip"] == 0


def test_places_come_back(room, start):
    """Slots are free again after any end of a connection; a refused one takes
    none.
    """
    t = start("max_per_ip=4")
    for _ in range(3):
        clients = [is_served(room, t.address) for _ in range(3)]
        silent = come(room, t.address)
        support.wait_for(lambda: statistics(t)["live"] == 4, "a full house")
        is_refused(room, t.address)
        clients[0].close_notify()
        assert clients[0].read_all() == (b"", "close_notify")
        clients[1].reset()
        silent.sendall(GARBAGE)
        for client in (*clients, silent):
            client.close()
        wait_until_alone(t)


def test_places_of_a_killed_process_come_back(room, start, way):
    """Only its own slots are free again."""
    t = start("max_per_ip=8")
    some = crowd(room, t.address, 8)
    support.wait_for(lambda: statistics(t)["live"] == 8, "all to be accepted")
    victim = max(t.workers(), key=number_of_descriptors)
    support.kill([victim])
    t.wait_log(f"worker {victim} was killed by signal 9|"
               f"{victim} .*signal 9", seconds=1 + LATE)
    lost = len(support.wait_for(lambda: ended(some), "its connections to end"))
    assert lost == 1 if is_fork(way) else lost > 0
    more = crowd(room, t.address, 20)
    support.wait_for(lambda: len(ended(more)) == 20 - lost, "as many places")
    is_refused(room, t.address)
    is_served(room, t.address, "127.0.0.2")
    assert len(ended(more)) == 20 - lost
    assert len(ended(some)) == lost


def number_of_descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_max_per_ip_of_ipv4_at_a_listener_for_both(room, ipv6, start):
    """::ffff:127.0.0.1 and ::ffff:127.0.0.2 are in one /64, but are two
    clients.
    """
    t = start("accept=0", "max_per_ip=1")
    port = t.address.rsplit(":", 1)[1]
    for source in ("127.0.0.1", "127.0.0.2"):
        is_served(room, f"{source}:{port}", source)
        is_refused(room, f"{source}:{port}", source)
    is_served(room, f"[::1]:{port}", "::1")


def test_max_per_ip_is_for_addresses(room, start):
    """Clients on a Unix socket have no address, and no limit."""
    t = start(f"accept=unix:{room.path('socket')}", "max_per_ip=1")
    for _ in range(3):
        is_served(room, t.address)


@pytest.fixture
def namespace():
    """A network namespace with all addresses of these two /64 networks."""
    with support.namespace() as ip:
        for network in ("2001:db8:0:1::/64", "2001:db8:0:2::/64"):
            support.run(ip, "-6", "route", "add", "local", network,
                        "dev", "lo")
        yield


def test_max_per_ip_is_for_a_64_of_ipv6(ipv6, namespace, room):
    """The namespace is requested before the room, which is then inside."""
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "accept=[::]:0",
                    "workers=4", "max_per_ip=4")
    to = "[2001:db8:0:1::1]:" + t.address.rsplit(":", 1)[1]
    for n in range(2, 6):
        is_served(room, to, f"2001:db8:0:1:{n}::{n}")
    for n in (2, 6):
        is_refused(room, to, f"2001:db8:0:1:{n}::{n}")
    for n in range(4):
        is_served(room, to, f"2001:db8:0:2::{n:x}")
    is_refused(room, to, "2001:db8:0:2:ffff:ffff:ffff:ffff")


def test_max_per_ip_of_nat64(room, start):
    """RFC 6052: one IPv4 client counts as one, by any route."""
    t = start("max_per_ip=1", "accept_proxy=yes")

    def come_from(source):
        sock = room.connect(t.address)
        sock.sendall(b"PROXY TCP6 %s 2001:db8::1 1000 443\r\n" % source)
        return sock

    greet(room.client(come_from(b"64:ff9b::192.0.2.1")))
    greet(room.client(come_from(b"64:ff9b::192.0.2.2")))
    for source in (b"64:ff9b::192.0.2.1", b"::ffff:192.0.2.1"):
        is_refused_as(room, come_from(source))
    t.wait_log(r"\[64:ff9b::c000:201\]:1000 refused: ")
    greet(room.client(come_from(b"64:ff9b::192.0.2.3")))


def is_refused_as(room, sock):
    with pytest.raises((ConnectionError, ssl.SSLError)):
        greet(room.client(sock))
