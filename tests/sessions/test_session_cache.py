"""The session cache for TLS 1.2 clients without tickets: its size is fixed,
all workers share it, and a killed worker blocks no other.
"""

import os
import random
import re
import signal
import ssl
import time

import pytest

import peers
import support
from reloads import Configured
from resuming import LOOKED_INTO, hello_of, is_resumed, newcomer, visit
from support import Task, by_default, complaint, memory, run_tunnel, wait_for
from wire import answer, answers

MANY = 3000 if not support.SANITIZED and not support.UNDER else 500


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        f"connect={backend.address}", "log_level=info", *arguments)


def fill(t, certs, count):
    """Make new sessions; return them, the oldest first."""
    ctx = newcomer(certs, "id-1.2")
    sessions = [visit(t.address, ctx).session for _ in range(count)]
    assert len({x.session.id for x in sessions}) == count
    return sessions


def which_are_there(t, sessions):
    """Return which sessions are in the cache, by handshakes that are not
    finished, which add no session.
    """
    return [answer(t.address, hello_of(x)) == "resumed" for x in sessions]


def test_newest_are_kept(certs, start, mode):
    t = start(mode, "session_cache=4")
    sessions = fill(t, certs, 100)
    assert which_are_there(t, sessions) == [False] * 96 + [True] * 4
    for session in sessions[:5]:
        assert not is_resumed(t.address, session)


def test_one_place(certs, start):
    t = start("session_cache=1")
    first, second = fill(t, certs, 2)
    assert is_resumed(t.address, second)
    assert not is_resumed(t.address, first)


def test_default_is_enough_for_hundreds(certs, start, mode):
    """With the default of 1024 entries, to which sessions are assigned at
    random.
    """
    t = start(mode)
    sessions = fill(t, certs, 300)
    assert which_are_there(t, sessions).count(True) >= 0.97 * 300


@pytest.mark.parametrize("entries", [0, -1, "many", 2000001])
def test_bad_number(certs, entries):
    message = complaint(run_tunnel("accept=127.0.0.1:0", "connect=1",
                                   f"cert={certs.server}",
                                   f"session_cache={entries}"))
    assert f'session_cache = "{entries}" ' in message
    assert "off" in message


@by_default
def test_memory_is_bounded(certs, start):
    """The cache is filled twice."""
    t = start("workers=2", "session_cache=100", *LOOKED_INTO)
    fill(t, certs, 200)
    support.wait_until_alone(t)
    kb = memory(t)
    fill(t, certs, 500)
    support.wait_until_alone(t)
    assert memory(t) <= 1.05 * kb


def test_large_one_costs_what_is_in_it(certs, start):
    """Even after a worker was killed, which may have left an incomplete entry.
    """

    def kb(pid):
        with open(f"/proc/{pid}/status") as f:
            return int(re.search(r"RssShmem:\s+(\d+) kB", f.read())[1])

    t = start("workers=2", "session_cache=200000")
    wait_for(lambda: len(t.workers()) == 2, "the workers")
    fill(t, certs, 20)
    victim = t.workers()[0]
    support.kill([victim])
    wait_for(lambda: victim not in t.workers() and len(t.workers()) == 2,
             "another worker")
    session, = fill(t, certs, 1)
    assert is_resumed(t.address, session)
    assert sum(map(kb, t.pids())) < 10 * 1024


# Across a reload.

def test_size_that_changes(room, certs, backend, mode):
    """Entries may be lost if the size changes; new ones are not, and tickets
    are not affected.
    """
    c = Configured(room, mode, connect=backend.address, session_cache="50")
    ticket = visit(c.t.address, newcomer(certs, "ticket-1.2")).session
    for entries in "500", "5", "off", "50", None:
        c.reload(session_cache=entries)
        assert is_resumed(c.t.address, ticket)
        if entries == "off":
            continue
        session, = fill(c.t, certs, 1)
        assert is_resumed(c.t.address, session)
        c.reload()
        assert is_resumed(c.t.address, session)


def test_certificates_that_are_asked_for_from_now_on(room, certs, backend,
                                                     authority):
    """Entries with certificates are larger, even if there are fewer of them.
    """
    c = Configured(room, connect=backend.address, session_cache="1024")
    c.reload(session_cache="128", verify="require", ca=authority.crt)
    client = visit(c.t.address, newcomer(certs, "id-1.2",
                                         client=authority.leaf("app1")))
    assert is_resumed(c.t.address, client.session)


# Unknown IDs.

def test_ids_that_are_not_known(certs, start):
    """Of every length, and similar to ours."""
    t = start("workers=2")
    session, = fill(t, certs, 1)
    hello = hello_of(session)
    ids = [hello.id[:n] for n in range(len(hello.id))]
    ids += [bytes(n) for n in range(33)]
    ids += [hello.id[:n] + bytes([x ^ 1]) + hello.id[n + 1:]
            for n, x in enumerate(hello.id)]
    assert answers(t.address, map(hello.with_id, ids)) == {"full"}
    assert answers(t.address, [hello]) == {"resumed"}


@pytest.mark.seconds(90)
def test_thousands_of_random_ids(certs, start):
    t = start("workers=2")
    workers = t.workers()
    session, = fill(t, certs, 1)
    hello, r = hello_of(session), random.Random(1)
    ids = (r.randbytes(32) for _ in range(MANY))
    assert answers(t.address, map(hello.with_id, ids)) == {"full"}
    assert answers(t.address, [hello]) == {"resumed"}
    assert t.workers() == workers


def test_session_id_with_a_session_of_a_ticket(certs, start):
    """OpenSSL invents an ID for it, which is not in the cache."""
    t = start()
    session = visit(t.address, newcomer(certs, "ticket-1.2")).session
    hello = hello_of(session)
    assert answer(t.address, hello) == "resumed"
    assert answer(t.address, hello.offer(b"")) == "full"
    assert answer(t.address, hello.offer(os.urandom(200))) == "full"


def test_suite_that_is_not_offered(certs, start):
    """RFC 5246 section 7.4.1.2: the hello has to offer the session's suite."""
    t = start("ciphers=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,"
              "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
    session, = fill(t, certs, 1)
    hello = hello_of(session)
    assert answer(t.address, hello) == "resumed"
    hello.suites = hello.suites.replace(b"\xc0\x2b", b"")
    assert answer(t.address, hello) == "full"


# Killed workers.

class Load:
    """Endless clients with new and old sessions; they may be disconnected, but
    never have to wait.
    """

    def __init__(self, certs, address):
        self.certs, self.address = certs, address
        self.stop = False
        self.served = self.resumed = self.cut = 0
        self.slowest = 0.0
        self.tasks = [Task(self.body) for _ in range(4)]

    def body(self):
        ctx = session = newcomer(self.certs, "id-1.2")
        n = 0
        while not self.stop:
            n += 1
            begin = time.monotonic()
            try:
                client = visit(
                    self.address, session if n % 4 else ctx)
            except TimeoutError:
                raise
            except (OSError, ssl.SSLError, AssertionError):
                self.cut += 1
                continue
            finally:
                self.slowest = max(self.slowest, time.monotonic() - begin)
            session = client.session
            self.served += 1
            self.resumed += client.resumed

    def close(self):
        self.stop = True
        for task in self.tasks:
            task.result()


@pytest.mark.seconds(60)
@pytest.mark.parametrize("entries", [64, 1])
def test_workers_are_killed_under_load(room, certs, backend, entries):
    """All workers but one are killed, dozens of times; a reload starts others
    at once.
    """
    c = Configured(room, connect=backend.address, workers="4",
                   session_cache=entries, log_level="info")
    wait_for(lambda: len(c.t.workers()) == 4, "the workers")
    load = room.keep(Load(certs, c.t.address))
    killed = 0
    for _ in range(30):
        served = load.served
        wait_for(lambda: load.served >= served + 20, "the load")
        victims = c.t.workers()[:-1]
        support.kill(victims)
        killed += len(victims)
        wait_for(lambda: not set(victims) & set(c.t.workers()), "their end")
        c.hup("tunnel: reloaded$")
    load.close()
    print(f"{killed} killed, {load.served} served, {load.resumed} resumed, "
          f"{load.cut} cut off, at most {load.slowest:.3f} s")
    assert killed >= 60
    assert load.served > 5 * load.cut
    assert load.slowest < support.DEADLINE / 2
    if entries > 1:  # otherwise they replace each other's entries
        assert load.resumed > load.served / 2
    for _ in range(5):
        session, = fill(c.t, certs, 1)
        assert is_resumed(c.t.address, session)


class Sleeper:
    """Two workers and one entry: one is stopped about when it stores a session
    there, directly after its last message to the client.
    """

    def __init__(self, room, t):
        self.t = t
        self.victim, self.other = t.workers()
        self.ctx = newcomer(room.certs, "id-1.2")
        self.delay = 0.0  # from the client's last message to the stop
        self.early = self.late = 0

    def stop(self, pid):
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: support.state(pid) == "T", "its stop")

    def is_free(self):
        """Return whether the other worker can store a session in the entry,
        and find it.
        """
        session = visit(self.t.address, self.ctx).session
        return is_resumed(self.t.address, session)

    def sleep(self):
        self.stop(self.other)
        client = peers.Client(self.t.address, self.ctx)
        with client.sock as sock:
            while not self.has_said_all(client):
                client.fill()
            end = time.monotonic() + self.delay
            while time.monotonic() < end:
                pass
            self.stop(self.victim)
            os.kill(self.other, signal.SIGCONT)
            if support.unread(sock):
                self.late += 1
                self.delay = max(0, self.delay - 10e-6)
            else:
                self.early += 1
                self.delay += 50e-6
            assert self.is_free()

    @staticmethod
    def has_said_all(client):
        """Return whether a client has sent its second and last flight: a key,
        and encrypted messages.
        """
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        data = client.outgoing.read()
        client.sock.sendall(data)
        return b"\x14\3\3\0\1\1" in data


@pytest.mark.seconds(60)
def test_worker_that_stops_while_it_is_at_a_place(room, start):
    """No other worker waits for it or fails because of it."""
    t = start("workers=2", "session_cache=1")
    wait_for(lambda: len(t.workers()) == 2, "the workers")
    sleeper = Sleeper(room, t)
    for n in range(2000):
        if n >= 200 and min(sleeper.early, sleeper.late) >= 20:
            break
        sleeper.sleep()
        os.kill(sleeper.victim, signal.SIGCONT)
    assert sleeper.early >= 20 and sleeper.late >= 20
    sleeper.sleep()
    support.kill([sleeper.victim])
    wait_for(lambda: sleeper.victim not in t.workers() and
             len(t.workers()) == 2, "another worker")
    assert sleeper.is_free()
