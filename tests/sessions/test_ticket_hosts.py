"""Several hosts with the same ticket keys: each resumes sessions of the
others, although their uptimes differ.
"""

import subprocess

import pytest

import support
from launchers import Daemon
from resuming import (LIFETIME, TICKETS, assert_shared, ends_in_time,
                      is_resumed, newcomer, visit)
from support import Task, run

UPTIME = 500000  # seconds that another host is up longer
ELSEWHERE = ["unshare", "--time", "--boottime", f"{UPTIME}", "--fork"]


@pytest.fixture(params=TICKETS)
def ticket(request):
    return request.param


@pytest.fixture
def words(room):
    """Return arguments as on separate hosts, each with its own certificate and
    backend.
    """
    keys = room.write("keys", run(support.TUNNEL, "-k"))

    def call(cert):
        backend = room.backend().serve(support.echo)
        return [f"connect={backend.address}", f"ticket_keys={keys}",
                f"cert={cert}"]

    return call


def test_hosts(room, certs, words, ticket):
    a, b = (room.tunnel(*words(cert)) for cert in (certs.server, certs.soon))
    assert_shared(certs, ticket, a.address, b.address)


def test_hosts_with_keys_of_another_kind(room, certs, words, ticket):
    """A TLS 1.2 suite includes the type of the certificate's key: a host with
    another type can't use the session's suite, and does a full handshake.
    """
    a, b = (room.tunnel(*words(cert)) for cert in (certs.server, certs.rsa))
    session = visit(a.address, newcomer(certs, ticket)).session
    client = visit(b.address, session)
    assert client.resumed == (ticket == "ticket-1.3")
    assert is_resumed(b.address, client.session)
    assert is_resumed(a.address, session)


def test_hosts_in_other_modes(room, certs, words, ticket):
    a = room.tunnel("workers=3", *words(certs.server))
    b = room.tunnel("mode=fork", *words(certs.server))
    assert_shared(certs, ticket, a.address, b.address)


@pytest.fixture
def elsewhere(room):
    """Start a tunnel on a host that has been up longer."""
    try:
        p = subprocess.run([*ELSEWHERE, "cat", "/proc/uptime"], text=True,
                           capture_output=True, timeout=support.DEADLINE)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if p.returncode != 0:
        pytest.skip(f"no other time to be had: {p.stderr.strip()}")
    with open("/proc/uptime") as f:
        ours = float(f.read().split()[0])
    assert float(p.stdout.split()[0]) > ours + UPTIME - 60
    return lambda *arguments: Daemon(room, "-d", *arguments, before=ELSEWHERE)


@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_hosts_with_other_clocks(room, certs, words, ticket, elsewhere, mode):
    """The monotonic clock, which counts from the boot, can't be compared among
    hosts.
    """
    a = room.tunnel(*words(certs.server), mode)
    b = elsewhere(*words(certs.server), mode)
    assert b.p.returncode == 0, b.p.stderr
    assert_shared(certs, ticket, a.address, b.address)
    support.wait_for(lambda: (a.log() + b.log()).count(" resumed ") == 12,
                     "the lines of all")


def test_session_ends_on_every_host(room, certs, words, elsewhere):
    """Its age counts from its beginning on the first host."""
    a = room.tunnel(*words(certs.server), f"ticket_lifetime={LIFETIME}s")
    b = elsewhere(*words(certs.server), f"ticket_lifetime={LIFETIME}s")
    tasks = [Task(ends_in_time, ticket, certs, here.address, there.address)
             for here, there in ((a, b), (b, a)) for ticket in TICKETS]
    for task in tasks:
        task.result(3 * LIFETIME + support.DEADLINE)
