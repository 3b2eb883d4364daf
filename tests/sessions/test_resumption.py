"""A session is resumed by its ticket or its ID, in any process, for its
lifetime and not longer.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import peers
import support
from certificates import RSA
from resuming import (KINDS, LATE, LIFETIME, TICKETS, ends_in_time, is_resumed,
                      newcomer, somebody, visit)
from support import Task, end, is_echoed, read_all, wait_for

MANY = 2000 if not support.SANITIZED and not support.UNDER else 200


# Many clients and connections.

def visits(to, session, count, at_once=4):
    """Return how many of so many connections are resumed."""

    def some():
        return sum(is_resumed(to, session) for _ in range(count // at_once))

    tasks = [Task(some) for _ in range(at_once)]
    return sum(task.result(60 * support.SLOW) for task in tasks)


def assert_nearly_all(resumed, log, count=MANY):
    """Check it at the clients and in the log."""
    assert resumed >= 0.99 * count
    lines = [x for x in log.splitlines() if re.search(r"\d\.\d{3}s closed$", x)]
    assert len(lines) == count + 1
    assert sum(" resumed " in line for line in lines) == resumed


@pytest.mark.seconds(60)
def test_thousands_of_connections_to_workers(room, certs, backend, kind):
    t = room.tunnel(f"connect={backend.address}", "workers=4",
                    "log_level=info")
    session = visit(t.address, newcomer(certs, kind)).session
    resumed = visits(t.address, session, MANY)
    support.wait_until_alone(t)
    assert_nearly_all(resumed, t.log())
    numbers = support.statistics(t)
    assert (numbers["resumed"], numbers["served"]) == (resumed, MANY + 1)


@pytest.mark.seconds(60)
def test_thousands_of_processes_of_inetd(room, certs, backend, ticket, inetd,
                                         keys):
    inetd.own(keys)
    address = inetd.serve(f"connect={backend.address}", f"ticket_keys={keys}",
                          wait="nowait.100000")
    session = visit(address, newcomer(certs, ticket)).session
    resumed = visits(address, session, MANY)

    def log():
        text = support.text_of(inetd.log)
        return text.count(" closed\n") == MANY + 1 and text

    assert_nearly_all(resumed, wait_for(log, "all to be over"))


def test_every_process_resumes(room, certs, backend, kind, mode):
    """Each client keeps its latest session."""
    t = room.tunnel(f"connect={backend.address}", mode)
    client = visit(t.address, newcomer(certs, kind))
    assert not client.resumed
    for _ in range(40):
        client = visit(t.address, client.session)
        assert client.resumed
    support.wait_until_alone(t)
    assert support.statistics(t)["resumed"] == 40


def test_log_tells(room, certs, backend, kind):
    """In TLS 1.2 a resumption has no key exchange, and no group."""
    t = room.tunnel(f"connect={backend.address}")
    session = visit(t.address, newcomer(certs, kind, alpn=["h2"])).session
    t.wait_log(r"-> \S+ TLSv1\.\d \w+ \w+ sni=localhost in=5 .* closed$")
    assert is_resumed(t.address, session)
    group = " x25519" if KINDS[kind][0] == "1.3" else ""
    t.wait_log(rf"-> \S+ TLSv1\.\d TLS_\w+{group} resumed sni=localhost in=5 ")


PRIORITY = {"ticket-1.2": "+VERS-TLS1.2", "ticket-1.3": "+VERS-TLS1.3",
            "id-1.2": "+VERS-TLS1.2:%NO_TICKETS"}


def test_gnutls(room, certs, kind):
    if not shutil.which("gnutls-cli"):
        pytest.skip("gnutls-cli is not installed")
    if kind == "ticket-1.2" and not support.PATCHED:
        pytest.skip("it shuffles its extensions, and a ticket before the "
                    "server name is not taken without our patches")

    def greet(sock):
        sock.sendall(b"welcome\n")
        read_all(sock)

    t = room.tunnel(f"connect={room.backend().serve(greet).address}")
    p = room.start("gnutls-cli", [
        "gnutls-cli", "--resume", "--waitresumption", "--port",
        t.address.split(":")[1], "--x509cafile", certs.ca, "--priority",
        "NORMAL:-VERS-ALL:" + PRIORITY[kind], "localhost"],
        stdin=subprocess.PIPE)
    p.wait_log("This is a resumed session")
    p.popen.stdin.close()
    assert p.wait() == 0
    t.wait_log(" resumed sni=localhost in=0 out=8 ")


# In TLS 1.3 a ticket follows the handshake.

@pytest.mark.parametrize("size", [1, 1000000])
def test_client_that_only_writes(room, certs, mode, ticket, size):
    """If it closes with a ticket unread, its data may be lost."""
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}", mode)
    data = os.urandom(size)
    for _ in range(25):
        client = somebody(newcomer(certs, ticket), t.address)
        with client.sock:
            client.handshake()
            server = room.keep(backend.accept())
            client.send(data)
            client.close_notify()
        assert read_all(server) == (data, "eof")
        server.close()
    t.wait_log(f" in={size} out=0 ", count=25)


def test_client_that_is_sent_nothing(room, certs, mode, ticket):
    """It gets a ticket nevertheless."""
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}", mode)
    who, resumed = newcomer(certs, ticket), []
    for _ in range(3):
        client = room.keep(somebody(who, t.address)).handshake()
        backend.accept().close()
        assert client.read_all() == (b"", "close_notify")
        resumed.append(client.resumed)
        who = client.session
    assert resumed == [False, True, True]


# After restarts and reloads.

def test_after_reloads(certs, configured, kind, mode):
    c = configured(mode)
    sessions = [visit(c.t.address, newcomer(certs, kind)).session]
    for _ in range(3):
        c.reload()
        for session in sessions:
            assert all(is_resumed(c.t.address, session) for _ in range(8))
        sessions.append(visit(c.t.address, newcomer(certs, kind)).session)


def test_after_a_reload_that_failed(certs, configured, kind, mode):
    c = configured(mode)
    session = visit(c.t.address, newcomer(certs, kind)).session
    c.refuse(ticket_lifetime="0s")
    assert all(is_resumed(c.t.address, session) for _ in range(8))


def test_after_workers_were_killed(room, certs, backend, kind):
    """New workers resume, too."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    wait_for(lambda: len(t.workers()) == 2, "the workers")
    session = visit(t.address, newcomer(certs, kind)).session
    for victim in t.workers():
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in t.workers() and len(t.workers()) == 2,
                 "another worker")
    assert all(is_resumed(t.address, session) for _ in range(20))


def test_after_the_only_worker_was_killed(room, certs, backend, kind):
    t = room.tunnel(f"connect={backend.address}", "workers=1")
    wait_for(lambda: len(t.workers()) == 1, "the worker")
    session = visit(t.address, newcomer(certs, kind)).session
    support.kill(t.workers())
    assert is_resumed(t.address, session)


def test_after_a_restart(room, certs, backend, kind):
    """Its keys were only in memory: a full handshake follows, and no error."""
    t = room.tunnel(f"connect={backend.address}")
    session = visit(t.address, newcomer(certs, kind)).session
    assert is_resumed(t.address, session)
    assert t.stop() == 0
    again = room.tunnel(f"connect={backend.address}", f"accept={t.address}")
    assert not is_resumed(again.address, session)


def test_after_a_change_of_modes(certs, configured, kind):
    c = configured(mode="poll", workers="2")
    session = visit(c.t.address, newcomer(certs, kind)).session
    for values in ({"mode": "fork", "workers": None},
                   {"mode": "poll", "workers": "1"}):
        c.reload(**values)
        assert all(is_resumed(c.t.address, session) for _ in range(5))


def test_after_a_change_of_suites(certs, configured, kind):
    """No session is resumed with a suite that is no longer allowed.  In TLS
    1.3 another suite is possible, as a session is bound only to the hash.
    """
    suites = ["TLS_AES_128_GCM_SHA256,"
              "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
              "TLS_CHACHA20_POLY1305_SHA256,"
              "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]
    c = configured(ciphers=",".join(suites))
    client = visit(c.t.address, newcomer(certs, kind))
    session, used = client.session, client.tls.cipher()[0]
    c.reload(ciphers=",".join(reversed(suites)))
    assert is_resumed(c.t.address, session) or kind == "id-1.2"
    c.reload(ciphers=suites["CHACHA20" in used])
    assert is_resumed(c.t.address, session)
    c.reload(ciphers=suites["CHACHA20" not in used])
    client = visit(c.t.address, session)
    assert ("CHACHA20" in client.tls.cipher()[0]) != ("CHACHA20" in used)
    assert not client.resumed or kind == "ticket-1.3"
    assert is_resumed(c.t.address, client.session)


def test_long_chains(room, certs, backend, authority, kind):
    """A chain that is too long to be kept is requested each time; all else
    works.
    """
    t = room.tunnel(f"connect={backend.address}", "verify=require",
                    f"ca={authority.crt}")
    sub = authority.sub(key=RSA)
    for copies in 1, 2, 4, 8, 16:
        pem = sub.leaf(f"app{copies}", send=[sub] * copies)
        client = visit(t.address, newcomer(certs, kind, client=pem))
        assert is_kept(t.address, client) or copies > 1
    t.wait_log('client="CN=app16" .* closed$')


# A lifetime.

@pytest.fixture(params=support.ARGS or ["workers=4", "mode=fork"])
def mortal(room, backend, request):
    return room.tunnel(f"connect={backend.address}", request.param,
                       f"ticket_lifetime={LIFETIME}s")


def for_all(function, *args):
    """Test all kinds at once, each for that time."""
    for task in [Task(function, kind, *args) for kind in KINDS]:
        task.result(3 * LIFETIME + support.DEADLINE)


def keep_coming(kind, certs, to):
    """Of so many visits, one has to come between a session and its resumption.
    """
    sessions, begin = [], time.monotonic()
    while time.monotonic() - begin < LIFETIME:
        client = visit(to, newcomer(certs, kind))
        assert not client.resumed
        sessions.append((time.monotonic(), client.session))
        while sessions and time.monotonic() - sessions[0][0] > LIFETIME / 4:
            made, session = sessions.pop(0)
            assert is_resumed(to, session) or \
                time.monotonic() - made > LIFETIME / 2
        time.sleep(0.05)  # between visits


def test_session_outlives_the_making_of_another_key(certs, mortal):
    for_all(keep_coming, certs, mortal.address)


def test_session_ends(certs, mortal):
    for_all(ends_in_time, certs, mortal.address)


@pytest.fixture
def keys(room):
    return room.write("keys", support.run(support.TUNNEL, "-k"))


def test_session_ends_where_keys_stay(room, certs, backend, keys):
    t = room.tunnel(f"connect={backend.address}", f"ticket_keys={keys}",
                    f"ticket_lifetime={LIFETIME}s")
    for_all(ends_in_time, certs, t.address)


def renew(kind, certs, to):
    client = visit(to, newcomer(certs, kind))
    begin = time.monotonic()
    while (client := visit(to, client.session)).resumed:
        assert time.monotonic() - begin < LIFETIME + LATE
        time.sleep(0.05)  # between visits
    assert time.monotonic() - begin > LIFETIME / 2 - LATE
    assert is_resumed(to, client.session)


def test_renewed_session_ends(certs, mortal):
    """A resumption may give a new session, which keeps the age of the first.
    """
    for_all(renew, certs, mortal.address)


def test_renewed_session_ends_where_keys_stay(room, certs, backend, keys):
    t = room.tunnel(f"connect={backend.address}", f"ticket_keys={keys}",
                    f"ticket_lifetime={LIFETIME}s")
    for_all(renew, certs, t.address)


# Disabled tickets or cache.

def is_kept(to, client):
    """Return whether a client's session is usable.  In TLS 1.2 each has an ID,
    with a cache or without.
    """
    session = client.tls.session
    return (session.has_ticket or session.id != b"") and is_resumed(
        to, client.session)


def test_without_tickets(room, certs, backend, mode):
    """TLS 1.2 still has session IDs, for all clients; TLS 1.3 has no
    resumption.
    """
    t = room.tunnel(f"connect={backend.address}", "session_tickets=no", mode)
    for kind in KINDS:
        client = visit(t.address, newcomer(certs, kind))
        assert not client.tls.session.has_ticket
        assert is_kept(t.address, client) == (kind != "ticket-1.3")


def test_without_a_cache(room, certs, backend, mode):
    t = room.tunnel(f"connect={backend.address}", "session_cache=off", mode)
    for kind in KINDS:
        client = visit(t.address, newcomer(certs, kind))
        assert is_kept(t.address, client) == (kind in TICKETS)


def test_without_both(room, certs, backend, mode, kind):
    t = room.tunnel(f"connect={backend.address}", "session_tickets=no",
                    "session_cache=off", mode)
    for _ in range(3):
        client = visit(t.address, newcomer(certs, kind))
        assert not client.tls.session.has_ticket
        assert not is_kept(t.address, client)
    assert support.statistics(t)["resumed"] == 0


def test_switched_off_and_on(certs, configured, kind, mode):
    """Earlier tickets are rejected while disabled, and may be accepted
    afterwards.
    """
    c = configured(mode)
    session = visit(c.t.address, newcomer(certs, kind)).session
    assert is_resumed(c.t.address, session)
    c.reload(session_tickets="no", session_cache="off")
    assert not is_resumed(c.t.address, session)
    c.reload(session_tickets=None, session_cache=None)
    session = visit(c.t.address, newcomer(certs, kind)).session
    assert is_resumed(c.t.address, session)


def test_inetd_mode_without_keys(room, certs, backend, ticket):
    """No tickets are sent, since no other process could decrypt them."""
    ours, theirs = socket.socketpair()
    ours.settimeout(support.DEADLINE)
    with theirs:
        t = room.tunnel("-i", f"connect={backend.address}", ready=False,
                        stdin=theirs)
    client = room.keep(peers.Client(ours, newcomer(certs, ticket)))
    assert is_echoed(client.handshake())
    assert not client.tls.session.has_ticket
    end(client)
    assert t.wait() == 0
