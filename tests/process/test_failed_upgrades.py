"""SIGUSR2: a failed upgrade causes no outage, and handed-over state is not
trusted.
"""

import fcntl
import os
import resource
import shutil
import signal

import pytest

import support
from reloads import Configured
from support import is_echoed, serves, wait_for
from upgrades import fail, inode, number, refused, text, upgrade


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


@pytest.fixture
def tunnel(room, program, backend):
    """Start a tunnel in front of the backend."""
    return lambda *arguments, **keywords: room.tunnel(
        f"connect={backend.address}", *arguments, **keywords)


FAILURES = ["not executable", "no program", "gone", "crashes", "-t fails",
            "user unknown", "unknown argument", "workers crash",
            "another program", "another process", "another version"]


@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
@pytest.mark.parametrize("how", FAILURES)
def test_failing_program(room, program, tunnel, how, mode):
    """Nothing changes, whatever the failure; the next upgrade succeeds."""
    t = tunnel(mode, "accept=127.0.0.1:0", "accept=unix:" + room.path("s"))
    clients = [room.client(t), room.client(t, "1.2")]
    assert all(is_echoed(client) for client in clients)
    old, workers = inode(t), t.workers()
    why = fail(room, program, how)
    said = refused(t)
    assert why in said and "not that" not in said
    assert inode(t) == old
    with open(f"/proc/{t.pid}/comm") as f:
        assert f.read() == "tunnel\n"
    assert sorted(t.workers()) == sorted(workers)
    assert all(is_echoed(client) for client in clients)
    for address in t.addresses:
        assert serves(room, address)
    program.put()
    upgrade(t)
    assert program.runs_in(t)
    assert all(is_echoed(client) for client in clients)
    assert all(serves(room, address) for address in t.addresses)
    assert t.stop() == 0


def test_worker_after_a_failure(room, program, tunnel):
    """The previous master works in full again: it replaces workers and
    reloads.
    """
    t = tunnel("workers=2")
    fail(room, program, "user unknown")
    refused(t)
    for worker in t.workers():
        os.kill(worker, signal.SIGKILL)
    t.wait_log("starting another one", count=2)
    wait_for(lambda: len(t.workers()) == 2, "replacements")
    assert serves(room, t.address)
    program.put()
    upgrade(t, "tunnel: reloaded$", signal.SIGHUP)
    assert serves(room, t.address)


def test_worker_that_dies_during_an_upgrade(room, program, tunnel):
    """The current master sees its end, whether the upgrade fails or succeeds.
    """
    t = tunnel("workers=2")
    victim = t.workers()[0]
    program.but(f"kill -9 {victim}; exec REAL \"$@\" user=nobody-of-this-name")
    refused(t)
    t.wait_log(f"worker {victim} was killed by signal 9")
    wait_for(lambda: len(t.workers()) == 2, "a replacement")
    victim = t.workers()[0]
    program.but(f"kill -9 {victim}; exec REAL \"$@\"")
    upgrade(t)
    t.wait_log(f"worker {victim} was killed by signal 9")
    wait_for(lambda: len(t.workers()) == 2, "no more than two")
    assert serves(room, t.address)


def test_configuration_that_becomes_wrong_during_an_upgrade(room, program,
                                                            backend):
    """The previous program continues with its previous configuration."""
    c = Configured(room, connect=backend.address, workers="2")
    workers = c.t.workers()
    program.but(f'echo "nonsense = 1" >> {c.path}; exec REAL "$@"')
    said = refused(c.t)
    assert 'unknown key "nonsense"' in said
    assert c.t.workers() == workers
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: len(set(c.t.workers()) - set(workers)) == 1,
             "a replacement")
    assert 'unknown key "nonsense"' in refused(c.t)  # now reported by -t


@pytest.mark.parametrize("mode", [{"workers": "2"}, {"mode": "fork"}])
def test_files_that_vanish_during_an_upgrade(room, program, backend, mode):
    """Current workers continue with what they have loaded; a reload repairs
    the rest.
    """
    cert = shutil.copy(room.certs.server, room.path("cert.pem"))
    c = Configured(room, connect=backend.address, cert=cert, **mode)
    client = c.client()
    assert is_echoed(client)
    program.but(f'mv {cert} {cert}.gone; exec REAL "$@"')
    assert "no worker is started until" in refused(c.t)
    assert is_echoed(client)
    assert "cert.pem" in refused(c.t)
    os.rename(cert + ".gone", cert)
    upgrade(c.t, "tunnel: reloaded$", signal.SIGHUP)
    assert serves(room, c.t.address) and is_echoed(client)
    program.put()
    upgrade(c.t)
    assert serves(room, c.t.address) and is_echoed(client)


@pytest.mark.skipif(bool(support.UNDER), reason="valgrind needs descriptors")
@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_too_few_descriptors(room, program, tunnel, mode):
    """Detected before either program runs out of descriptors.  The trial's
    report on the configuration is not logged.
    """
    t = tunnel(mode)
    limits = resource.prlimit(t.pid, resource.RLIMIT_NOFILE)
    few = len(support.open_files(t.pid)) + 3  # with fewer, there is no trial
    resource.prlimit(t.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
    upgrade(t, "upgrade failed: Too many open files")
    assert "cert = " not in t.log()
    resource.prlimit(t.pid, resource.RLIMIT_NOFILE, limits)
    assert serves(room, t.address)
    upgrade(t)
    assert serves(room, t.address)


def test_worker_without_a_replacement(room, program, backend):
    cert = shutil.copy(room.certs.server, room.path("cert.pem"))
    c = Configured(room, connect=backend.address, cert=cert)
    program.but(f'mv {cert} {cert}.gone; exec REAL "$@"')
    assert "no worker is started until" in refused(c.t)
    os.kill(c.t.workers()[0], signal.SIGKILL)
    c.t.wait_log(r"was killed by signal 9 \(Killed\)$")


def test_log_and_counters_without_files(room, program, backend):
    """While files are missing, the log is complete and counters continue."""
    cert = shutil.copy(room.certs.server, room.path("cert.pem"))
    stats = room.path("stats.prom")
    c = Configured(room, connect=backend.address, cert=cert, stats_file=stats)
    wait_for(lambda: os.path.exists(stats), "the counters")
    program.but(f'mv {cert} {cert}.gone; exec REAL "$@"')
    assert "no worker is started until" in refused(c.t)
    lines = c.hup("reload failed, ")
    assert lines[0] == "tunnel: reloading"
    os.unlink(stats)
    c.t.signal(signal.SIGUSR1)
    wait_for(lambda: os.path.exists(stats), "the counters")
    os.kill(c.t.workers()[0], signal.SIGKILL)
    c.t.wait_log(r"was killed by signal 9 \(Killed\)$")


# Handed-over state is not trusted.

def handed(room, data, seals=True, size=None):
    """The log of a tunnel that was started with this state in a memfd."""
    fd = os.memfd_create("state", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, data)
        if size:
            os.ftruncate(fd, size)
        if seals:
            fcntl.fcntl(fd, 1033, 0xf)
        p = room.start("handed", support.command(
            "accept=127.0.0.1:0", f"cert={room.certs.server}",
            "connect=127.0.0.1:1"), pass_fds=[fd],
            env={**os.environ, "TUNNEL_STATE": str(fd)})
        assert p.wait() == 1
    finally:
        os.close(fd)
    return p.log().splitlines()[-1]


HEAD = b"tunnel handover 4\0"
START = HEAD + text("/x") + number(1) + text("x") + number(0)


@pytest.mark.parametrize("data,why,keywords", [
    (b"", "Invalid argument", {}), (b"x", "it is incomplete", {}),
    (HEAD, "it is incomplete", {}), (HEAD, "not sealed", {"seals": False}),
    (HEAD[:-2] + b"9\0" + b"\0" * 99, "another version", {}),
    (HEAD + number(1 << 40), "out of range", {}),
    (HEAD + text("/x") + number(0) * 2, "no program", {}),
    (START + number(1), "another process", {}),
    (START + number(0), "out of range", {}),
    (HEAD, "too long", {"size": (64 << 20) + 1}),
])
def test_bad_handover(room, data, why, keywords):
    said = handed(room, data, **keywords)
    assert said.startswith("tunnel: error: the handover from the previous "
                           "program")
    assert why in said


def test_log_after_a_failure(room, program, tunnel):
    """The log has the same format before and after."""
    log = room.path("log")
    t = tunnel("workers=1", f"log={log}", ready=False)
    wait_for(lambda: "listening on" in support.text_of(log), "the start")
    fail(room, program, "user unknown")
    t.signal(signal.SIGUSR2)
    wait_for(lambda: "upgrade failed, keeping" in support.text_of(log),
             "the failed upgrade")
    os.kill(t.workers()[0], signal.SIGKILL)
    wait_for(lambda: "was killed by" in support.text_of(log),
             "the worker's end")
    assert "tunnel: " not in support.text_of(log)
