"""systemd's WatchdogSec=: keep-alive messages, as long as all serving
processes respond.
"""

import os
import signal

import pytest

import support
from launchers import Supervisor
from support import assert_echoes, wait_for

USEC = int(400_000 * support.SLOW)  # the interval for messages


@pytest.fixture
def supervisor(room):
    return room.keep(Supervisor(room.path("notify")))


@pytest.fixture
def watched(room, supervisor):
    """Start a tunnel with the watchdog enabled."""
    backend = room.backend().serve(support.echo)

    def start(*arguments, usec=USEC, **environment):
        return room.tunnel(f"connect={backend.address}", *arguments, env={
            **os.environ, "NOTIFY_SOCKET": supervisor.address,
            "WATCHDOG_USEC": str(usec), **environment})

    return start


def test_keep_alive_messages(room, supervisor, watched):
    t = watched("workers=2")
    supervisor.wait("READY")
    for _ in range(5):
        said, pid = supervisor.wait("WATCHDOG")
        assert said == {"WATCHDOG": "1"} and pid == t.pid
    assert_echoes(room, t)
    supervisor.wait("WATCHDOG")
    assert "watchdog" not in t.log()


def silence(t, supervisor, words):
    """Wait until there have been no messages for several intervals."""
    t.wait_log("warning: watchdog: not sending WATCHDOG=1: " + words)
    supervisor.rest()
    count = t.log().count("watchdog: ")
    t.wait_log("watchdog: ", count=count + 4)
    assert supervisor.rest() == b""


def test_stopped_worker(room, supervisor, watched):
    t = watched("workers=2")
    supervisor.wait("READY")
    supervisor.wait("WATCHDOG")
    victim = t.workers()[1]
    os.kill(victim, signal.SIGSTOP)
    try:
        silence(t, supervisor, f"worker {victim} is not responding")
    finally:
        os.kill(victim, signal.SIGCONT)
    for _ in range(3):
        supervisor.wait("WATCHDOG")
    assert t.log().count("warning: watchdog") == 1


def test_replaced_worker(room, supervisor, watched):
    """A replacement counts like the original worker."""
    t = watched("workers=1")
    supervisor.wait("READY")
    old = t.workers()
    support.kill(old)
    wait_for(lambda: t.workers() not in ([], old), "a replacement")
    supervisor.rest()
    for _ in range(3):
        supervisor.wait("WATCHDOG")


def test_worker_that_cannot_be_replaced(room, supervisor, watched):
    t = watched("workers=1")
    supervisor.wait("READY")
    for n in range(1, 9):  # with increasing pauses
        wait_for(t.workers, "a worker")
        support.kill(t.workers())
        t.wait_log("was killed by signal 9", count=n)
    silence(t, supervisor, "a worker is missing")


def test_old_workers_do_not_count(room, supervisor, watched):
    """Old workers do not count, whatever they do."""
    t = watched("workers=1")
    supervisor.wait("READY")
    client = room.client(t)
    old = t.workers()[0]
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")
    os.kill(old, signal.SIGSTOP)
    try:
        assert support.state(old) in "Tt" or wait_for(
            lambda: support.state(old) in "Tt", "the worker to stop")
        supervisor.rest()
        for _ in range(5):
            supervisor.wait("WATCHDOG")
    finally:
        os.kill(old, signal.SIGCONT)
    client.close()


def test_mode_fork(room, supervisor, watched):
    """Only the master counts."""
    t = watched("mode=fork")
    supervisor.wait("READY")
    client = room.client(t)
    victim = wait_for(t.workers, "a worker")[0]
    os.kill(victim, signal.SIGSTOP)
    for _ in range(4):
        supervisor.wait("WATCHDOG")
    os.kill(victim, signal.SIGCONT)
    client.close()


def test_over_a_reload_an_upgrade_and_a_stop(room, supervisor, watched):
    t = watched("workers=2")
    supervisor.wait("READY")
    client = room.client(t)
    for sig, words in ((signal.SIGHUP, "reloaded"),
                       (signal.SIGUSR2, "upgraded")):
        t.signal(sig)
        t.wait_log(f"tunnel: {words}$")
        supervisor.rest()
        for _ in range(3):
            supervisor.wait("WATCHDOG")
    t.signal(signal.SIGTERM)
    t.wait_log("shutting down: ")
    supervisor.rest()
    for _ in range(3):
        supervisor.wait("WATCHDOG")
    client.close()
    assert t.wait() == 0


@pytest.mark.parametrize("environment", [
    {"WATCHDOG_PID": "1"}, {"WATCHDOG_PID": "x"}, {"WATCHDOG_USEC": "0"},
    {"WATCHDOG_USEC": "-1"}, {"WATCHDOG_USEC": "1s"}, {"WATCHDOG_USEC": ""},
    {"WATCHDOG_USEC": "99999999999999999999"},
])
def test_watchdog_for_another_process(room, supervisor, watched, environment):
    """No messages without a valid request, and no worker is woken."""
    t = watched(**environment)
    supervisor.wait("READY")
    assert_echoes(room, t)
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")
    supervisor.wait("RELOADING")
    supervisor.wait("READY")
    assert supervisor.rest() == b""


def test_shortest_interval(room, supervisor, watched):
    t = watched(usec=1)
    supervisor.wait("READY")
    assert_echoes(room, t)
    assert t.cpu_seconds() < 5 * support.SLOW
