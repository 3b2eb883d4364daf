"""Workers: all of them serve, a dead one is soon replaced, and its failure
does not affect the others. mode=fork: one process per connection.
"""

import os
import re
import signal
import time

import pytest

import peers
import support
from crowds import count, idle, spread, workers
from support import (Task, is_alive, is_echoed, is_refused, read_exactly,
                     wait_for)

LATE = 1.0 * support.SLOW  # tolerance for what should be done within a second


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


# Several workers.

@pytest.mark.parametrize("how", ["one by one", "at once"])
def test_every_worker_serves(room, backend, how):
    """Also one client after another, which could always reach the same worker.
    """
    t = room.tunnel(f"connect={backend.address}", "workers=4")
    pids = workers(t, 4)
    idle(t)
    if how == "one by one":
        clients = [room.client(t) for _ in range(200)]
    else:
        clients = [peers.Client(room.connect(t.address),
                                peers.context(room.certs))
                   for _ in range(200)]
        for task in [Task(client.handshake) for client in clients]:
            task.result()
    for client in clients:
        assert is_echoed(client)
    served = [(count(pid) - 1) // 2 for pid in pids]
    assert sum(served) == 200
    assert min(served) >= 10, served
    assert max(served) <= 100, served


def test_workers_auto(room, backend):
    """One per CPU."""
    t = room.tunnel(f"connect={backend.address}", "workers=auto")
    workers(t, os.cpu_count())


def test_idle_workers_use_no_cpu_time(room, backend):
    t = room.tunnel(f"connect={backend.address}", "workers=4")
    workers(t, 4)
    idle(t)
    before = t.cpu_seconds()
    time.sleep(0.5)  # measuring interval
    assert t.cpu_seconds() - before <= 0.01


def test_master_has_no_connection(room, backend):
    """The master never handles network data."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    workers(t, 2)
    before = count(t.pid)
    spread(room, t, 20)
    assert count(t.pid) == before


# Death of a worker.

def test_killed_worker_is_replaced(room, backend):
    """Within a second; connections of other workers are not affected."""
    t = room.tunnel(f"connect={backend.address}", "workers=4")
    workers(t, 4)
    c = spread(room, t, 40)
    victim = t.workers()[0]
    os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    wait_for(lambda: victim not in t.workers() and len(t.workers()) == 4,
             "another worker")
    assert time.monotonic() - start < LATE
    t.wait_log(rf"warning: worker {victim} was killed by signal 9 \(Killed\); "
               "starting another one$")
    for client in c.others(victim):
        assert is_echoed(client)
    for client in c.of[victim]:
        assert client.read_all() in [(b"", "reset"), (b"", "truncated")]
    for pid in t.workers():
        wait_for(lambda: is_echoed(room.client(t)) and count(pid) > 4,
                 "the replacement to serve")


def test_only_worker_is_killed(room, backend):
    """Clients that connect without a worker wait for the replacement."""
    t = room.tunnel(f"connect={backend.address}", "workers=1")
    for _ in range(3):
        victim, = workers(t, 1)
        os.kill(victim, signal.SIGKILL)
        assert is_echoed(room.client(t))
        wait_for(lambda: not is_alive(victim), "the exit")


class WorkerKiller:
    """Kills every worker except one as soon as it appears."""

    def __init__(self, t, spared):
        self.t, self.spared = t, spared
        self.killed = []
        self.stop = False
        self.task = Task(self.body)

    def body(self):
        while not self.stop:
            for pid in self.t.workers():
                if pid != self.spared:
                    self.killed.append(time.monotonic())
                    os.kill(pid, signal.SIGKILL)
                    wait_for(lambda: not is_alive(pid), "the exit")
            time.sleep(0.001)

    def close(self):
        self.stop = True
        self.task.result()


def test_crash_loop_is_backed_off(room, backend):
    """0, 0.1, 0.2, 0.4, ... seconds, as logged; the other worker serves."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    spared, _ = workers(t, 2)
    killer = room.keep(WorkerKiller(t, spared))
    t.wait_log(r"starting another one in 0\.4 s \(\d failures in a row\)$")
    t.wait_log(r"starting another one in 0\.8 s \(\d failures in a row\)$")
    before, deaths = t.cpu_seconds(), len(killer.killed)
    assert is_echoed(room.client(t))
    time.sleep(0.3)  # measuring interval within the 0.8 s
    assert t.cpu_seconds() - before <= 0.05 * support.SLOW
    assert len(killer.killed) == deaths
    gaps = [b - a for a, b in zip(killer.killed, killer.killed[1:])]
    for gap, least in zip(gaps[1:], (0.1, 0.2, 0.4)):
        assert gap >= 0.9 * least
    killer.close()
    assert len(workers(t, 2)) == 2
    assert "3 failures in a row" in t.log()


def test_end_while_a_crash_loop_is_backed_off(room, backend):
    t = room.tunnel(f"connect={backend.address}", "workers=1")
    workers(t, 1)
    killer = room.keep(WorkerKiller(t, None))
    t.wait_log(r"starting another one in 0\.4 s")
    killer.close()
    t.signal(signal.SIGTERM)
    assert t.wait() == 0


def test_worker_that_gets_sigterm(room, backend):
    """A worker drains after SIGTERM, and is replaced."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    workers(t, 2)
    c = spread(room, t, 20)
    pid = t.workers()[0]
    for _ in range(3):  # repeated signals change nothing
        os.kill(pid, signal.SIGTERM)
    for client in c.of[pid]:
        assert is_echoed(client)
    assert is_alive(pid)
    for client in c.of[pid]:
        client.close_notify()
        assert client.read_all() == (b"", "close_notify")
        client.close()
    wait_for(lambda: not is_alive(pid), "the exit")
    t.wait_log(f"worker {pid} exited")
    workers(t, 2)
    assert all(is_echoed(client) for client in c.others(pid))


def test_worker_that_gets_sigquit(room, backend):
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    workers(t, 2)
    c = spread(room, t, 20)
    pid = t.workers()[0]
    os.kill(pid, signal.SIGQUIT)
    for client in c.of[pid]:
        assert client.read_all() == (b"", "reset")
    wait_for(lambda: pid not in t.workers() and len(t.workers()) == 2,
             "another worker")
    assert all(is_echoed(client) for client in c.others(pid))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_worker_ignores_signals_for_the_master(room, backend, number):
    """Signals sent to all processes by killall(1) or a terminal are for the
    master.
    """
    t = room.tunnel(f"connect={backend.address}", "workers=1")
    pid, = workers(t, 1)
    client = room.client(t)
    os.kill(pid, number)
    assert is_echoed(client)
    assert is_echoed(room.client(t))
    assert t.workers() == [pid]


def test_master_is_killed(room, backend):
    """Its workers exit after their connections have ended, and keep no
    listener open that would block a new tunnel.
    """
    arguments = (f"connect={backend.address}", "workers=2",
                 f"pidfile={room.path('pidfile')}")
    t = room.tunnel(*arguments)
    pids = workers(t, 2)
    c = spread(room, t, 20)
    t.signal(signal.SIGKILL)
    t.wait()
    wait_for(lambda: is_refused(t.address), "the listener to be closed")
    second = room.tunnel(f"accept={t.address}", *arguments)
    for clients in c.of.values():
        for client in clients:
            assert is_echoed(client)
    assert all(map(is_alive, pids))
    for clients in c.of.values():
        for client in clients:
            client.close_notify()
            assert client.read_all() == (b"", "close_notify")
            client.close()
    wait_for(lambda: not any(map(is_alive, pids)), "the workers' end")
    assert is_echoed(room.client(second))


# Stopping.

MODES = support.ARGS or ["workers=1", "workers=4", "mode=fork"]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_group(room, backend, mode, number):
    """As a terminal does; connections may still finish."""
    t = room.tunnel(f"connect={backend.address}", mode,
                    start_new_session=True)
    clients = [room.client(t) for _ in range(10)]
    assert all(is_echoed(client) for client in clients)
    os.killpg(t.pid, number)
    t.wait_log("shutting down: draining connections")
    wait_for(lambda: is_refused(t.address), "the listener to be closed")
    for client in clients:
        assert is_echoed(client)
        client.close_notify()
        assert client.read_all() == (b"", "close_notify")
        client.close()
    assert t.wait() == 0


@pytest.mark.parametrize("numbers", [
    (signal.SIGQUIT,), (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGQUIT),
])
def test_all_are_aborted(room, backend, mode, numbers):
    t = room.tunnel(f"connect={backend.address}", mode)
    clients = [room.client(t) for _ in range(10)]
    assert all(is_echoed(client) for client in clients)
    for number in numbers:
        if number != numbers[0]:
            t.wait_log("shutting down: draining connections")
        t.signal(number)
        if len(numbers) == 2 and numbers[0] == numbers[1]:
            t.wait_log("shutting down: ")
    for client in clients:
        assert client.read_all() == (b"", "reset")
    assert t.wait() == 0
    t.wait_log("shutting down: aborting connections")


def test_drain_timeout_of_all(room, backend, mode):
    t = room.tunnel(f"connect={backend.address}", mode, "drain_timeout=1s")
    clients = [room.client(t) for _ in range(10)]
    assert all(is_echoed(client) for client in clients)
    t.signal(signal.SIGTERM)
    start = time.monotonic()
    for client in clients:
        assert client.read_all() == (b"", "reset")
    assert t.wait() == 0
    assert 0.8 < time.monotonic() - start < 1 + LATE


def test_worker_that_does_not_exit_is_killed(room, backend):
    """A stopped process handles no signals."""
    t = room.tunnel(f"connect={backend.address}", "workers=2")
    pid, other = workers(t, 2)
    os.kill(pid, signal.SIGSTOP)
    t.signal(signal.SIGTERM)
    t.wait_log("shutting down: draining connections")
    wait_for(lambda: not is_alive(other), "the other's end")
    start = time.monotonic()
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
    assert 4 < time.monotonic() - start < 5 + LATE
    assert f"warning: worker {pid} does not exit: killed\n" in t.log()
    assert not is_alive(pid)


# mode=fork

@pytest.fixture
def forking(room, backend):
    def start(*arguments):
        t = room.tunnel("mode=fork", f"connect={backend.address}", *arguments)
        workers(t, 0)  # the trial process has ended
        return t

    return start


def test_fork_has_a_process_for_each_connection(room, forking):
    t = forking()
    clients = [room.client(t) for _ in range(5)]
    assert all(is_echoed(client) for client in clients)
    pids = t.workers()
    assert len(pids) == len(clients)
    for client in clients:
        client.close_notify()
        assert client.read_all() == (b"", "close_notify")
        client.close()
    wait_for(lambda: not t.workers(), "the children's end")
    assert "starting another one" not in t.log()


def test_fork_killed_child(room, forking):
    """Only its own connection is lost."""
    t = forking()
    victim = room.client(t)
    assert is_echoed(victim)
    pid, = t.workers()
    others = [room.client(t) for _ in range(5)]
    os.kill(pid, signal.SIGKILL)
    assert victim.read_all() in [(b"", "reset"), (b"", "truncated")]
    assert all(is_echoed(client) for client in others)
    t.wait_log(f"worker {pid} was killed by signal 9")
    assert len(t.workers()) == 5
    assert is_echoed(room.client(t))
    assert "starting another one" not in t.log()


def test_fork_with_a_command(room, version):
    t = room.tunnel("mode=fork", "--", "cat")
    data = os.urandom(1 << 20)
    clients = [room.client(t, version) for _ in range(3)]

    def request(client):
        client.send(data)
        client.close_notify()

    sending = [Task(request, client) for client in clients]
    for client in clients:
        assert client.read_all() == (data, "close_notify")
        client.close()
    for task in sending:
        task.result()
    t.wait_log(" in=1048576 out=1048576 .* closed$", count=3)
    wait_for(lambda: not t.workers(), "the children's end")


def test_fork_counts_commands_that_outlive_their_client(room):
    """The clients leave at once; a slot is free when the command has ended."""
    t = room.tunnel("mode=fork", "max_connections=3", "--", "sh", "-c",
                    "trap '' TERM; echo ready; exec sleep 60")
    begun = []
    for _ in range(3):
        client = room.client(t)
        assert read_exactly(client, 6) == b"ready\n"
        begun = list(set(begun) | set(t.commands()))
        client.reset()
    try:
        t.wait_log(" client reset$", count=3)
        assert len(begun) == 3 and all(map(is_alive, begun))
        waiting = Task(room.client, t)
        time.sleep(0.3)  # measuring interval
        assert waiting.running()
    finally:
        support.kill(begun)
    t.wait_log("command .* exited: signal 9")
    assert read_exactly(waiting.result(), 6) == b"ready\n"
    support.kill(t.commands())


def test_fork_children_share_no_sockets(room, forking):
    """Each has only the sockets of its own connection, and no listener."""
    t = forking()
    clients = [room.client(t) for _ in range(5)]
    assert all(is_echoed(client) for client in clients)
    assert len({count(pid) for pid in t.workers()}) == 1
    t.signal(signal.SIGKILL)
    t.wait()
    wait_for(lambda: is_refused(t.address), "the listener to be closed")
    for client in clients:
        assert is_echoed(client)
        client.close_notify()
        assert client.read_all() == (b"", "close_notify")


def test_fork_churn(room, forking):
    """Nothing is left behind."""
    t = forking()
    assert is_echoed(room.client(t))
    room.opened[-1].close()
    t.wait_log(r"worker \d+ exited")
    before = t.descriptors()

    def visit():
        for _ in range(20):
            client = peers.Client(t.address, peers.context(room.certs))
            client.handshake()
            assert is_echoed(client)
            client.close_notify()
            assert client.read_all() == (b"", "close_notify")
            client.close()

    for task in [Task(visit) for _ in range(5)]:
        task.result()
    wait_for(lambda: t.descriptors() <= before, "the children's end")
    wait_for(lambda: support.statistics(t)["live"] == 0,
             "the last end to be counted")
    assert support.statistics(t)["served"] == 101


# Resources of the master.

@pytest.mark.parametrize("mode", ["workers=3", "mode=fork"])
def test_worker_inherits_no_descriptors_of_its_master(room, backend, mode):
    """A worker has only listeners, a poller, the log and its control channel;
    in fork mode, the connection instead of the listeners.  The same applies
    after a reload.
    """
    conf = room.write("conf", "max_connections = 9\n")
    t = room.tunnel("-c", conf, f"cert={room.certs.server}", mode,
                    "accept=127.0.0.1:0", f"connect={backend.address}",
                    f"accept=unix:{room.path('accept')}",
                    f"log={room.path('log')}", f"pidfile={room.path('pid')}",
                    ready=False)

    def kinds(pid):
        links = support.open_files(pid).values()
        known = "/dev/null", room.path("log"), t.log_file, \
            "anon_inode:[eventpoll]"
        return [link.split(":")[0] for link in links if link not in known]

    def log():
        return open(room.path("log")).read()

    wait_for(lambda: os.path.exists(room.path("log")) and "listening" in log(),
             "the start")
    for n in range(3):
        if mode == "mode=fork":
            room.connect(t.address if t.addresses else re.search(
                r"listening on (127\S+)", log()).group(1))
            wait_for(lambda: len(t.workers()) > n, "the process")
            expected = ["socket"] * 2
        else:
            wait_for(lambda: len(t.workers()) == 3, "the workers")
            expected = ["socket"] * 3
        wait_for(lambda: [kinds(pid) for pid in t.workers()] ==
                 [expected] * len(t.workers()) != [],
                 f"{expected} in all of them")
        t.signal(signal.SIGHUP)
        wait_for(lambda: log().count("reloaded") == n + 1, "a reload")


def test_fork_backs_off_after_crashes_in_a_row(room, backend):
    """Each crash may be an attacker's guess at memory that all of them share.
    """
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "mode=fork")
    wait_for(lambda: not t.workers(), "the trial process to end")
    clients = [room.client(t) for _ in range(3)]
    for n, pid in enumerate(t.workers(), 1):
        os.kill(pid, signal.SIGKILL)
        t.wait_log(f"worker {pid} was killed")
    t.wait_log(r"; the next one can start in 0\.\d s \(2 failures in a row\)")
    assert is_echoed(room.client(t))
    assert len(clients) == n == 3
