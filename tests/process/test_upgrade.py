"""SIGUSR2: another program takes over in the same process.  No client is
refused, no connection is aborted, and a failed upgrade causes no outage.
"""

import os
import pwd
import re
import signal
import socket
import subprocess

import pytest

import support
from launchers import IN_A_DEV_OF_ITS_OWN, Supervisor, datagrams
from reloads import Configured
from resuming import KINDS, newcomer, visit
from support import (DEADLINE, Task, end, is_alive, is_echoed, read_exactly,
                     serves, statistics, wait_for)
from upgrades import fail, inode, refused, upgrade

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MODES = ["workers=1", "workers=3", "mode=fork"]


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


@pytest.fixture
def tunnel(room, program, backend):
    """Start a tunnel in front of the backend."""
    return lambda *arguments, **keywords: room.tunnel(
        f"connect={backend.address}", *arguments, **keywords)


@pytest.mark.parametrize("mode", MODES)
def test_new_program_in_the_same_process(room, program, tunnel, mode):
    t = tunnel(mode)
    old, workers = inode(t), t.workers()
    program.put()
    assert not program.runs_in(t)
    said = upgrade(t)
    assert f"upgrading: {program.path} takes over" in said
    assert re.search("takes over\n.*tunnel: tunnel .*TLS", said)
    assert program.runs_in(t) and inode(t) != old
    assert serves(room, t.address)
    wait_for(lambda: not set(workers) & set(t.workers()), "new workers")
    assert t.log().count("listening on") == 1
    with open(f"/proc/{t.pid}/comm") as f:
        assert f.read() == "tunnel\n"
    assert t.stop() == 0


@pytest.mark.parametrize("mode", MODES)
def test_long_connections(room, program, tunnel, mode):
    """Of several generations, in both directions, up to a proper end."""
    t = tunnel(mode)
    clients = []
    for n in range(3):
        clients += [room.client(t, version) for version in ("1.2", "1.3")]
        assert all(is_echoed(client) for client in clients)
        if n == 1:
            upgrade(t, "tunnel: reloaded$", signal.SIGHUP)
        else:
            program.put()
            upgrade(t)
        assert all(is_echoed(client, b"x" * 99999) for client in clients)
    assert statistics(t)["live"] == len(clients)
    for client in clients:
        end(client)
    wait_for(lambda: len(t.workers()) == (0 if "fork" in mode else
                                          int(mode[-1])),
                                          "the old workers to exit")
    numbers = statistics(t)
    assert numbers["live"] == 0
    assert numbers["accepted"] == numbers["served"] == len(clients)


def test_early_data_both_ways(room, program):
    """A transfer that continues across the upgrade, at a different time in
    each direction.
    """
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t)
    service = room.keep(backend.accept())
    data = os.urandom(4 << 20)
    down = Task(read_exactly, client, len(data))
    half = len(data) // 2
    service.sendall(data[:half])
    up = Task(client.send, data)
    upgrade(t)
    service.sendall(data[half:])
    assert down.result() == data
    assert read_exactly(service, len(data)) == data
    up.result()


def keep_coming(room, address, until):
    n = 0
    while not until:
        client = room.client(address)
        assert is_echoed(client)
        end(client)
        n += 1
    return n


@pytest.mark.seconds(60)
@pytest.mark.parametrize("mode", MODES)
def test_connect_storm(room, program, tunnel, mode):
    """No client is refused or reset at any time."""
    t = tunnel(mode)
    until = []
    tasks = [Task(keep_coming, room, t.address, until) for _ in range(4)]
    for _ in range(3):
        program.put()
        upgrade(t)
        assert all(task.running() for task in tasks)
    program.but('exec REAL "$@" user=nobody-of-this-name')
    refused(t)
    until.append(True)
    assert all(task.result() > 0 for task in tasks)


def test_new_configuration(room, program, backend):
    """It takes effect as at a reload."""
    c = Configured(room, connect=backend.address, accept=[
        "127.0.0.1:0", "unix:" + room.path("old")])
    first = c.t.addresses[0]
    c.write(accept=["127.0.0.1:0", "unix:" + room.path("new.socket")],
            workers="2")
    said = upgrade(c.t)
    assert "listening on unix:" + room.path("new.socket") in said
    assert "no longer listening on unix:" + room.path("old") in said
    assert not os.path.exists(room.path("old"))
    assert serves(room, first)
    assert serves(room, "unix:" + room.path("new.socket"))
    wait_for(lambda: len(c.t.workers()) == 2, "two workers")
    assert c.t.stop() == 0
    assert not os.path.exists(room.path("new.socket"))


# State that survives.

@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
@pytest.mark.parametrize("kind", KINDS)
def test_resumption(room, program, tunnel, kind, mode):
    t = tunnel(mode)
    client = visit(t.address, newcomer(room.certs, kind))
    for _ in range(2):
        program.put()
        upgrade(t)
        client = visit(t.address, client.session)
        assert client.resumed
    fail(room, program, "user unknown")
    refused(t)
    assert visit(t.address, client.session).resumed


def test_max_per_ip(room, program, tunnel):
    """Earlier connections count, but only as long as they exist."""
    t = tunnel("max_per_ip=2")
    clients = [room.client(t) for _ in range(2)]
    assert all(is_echoed(client) for client in clients)
    upgrade(t)
    with pytest.raises(OSError):
        room.client(t)
    end(clients.pop())
    wait_for(lambda: statistics(t)["live"] == 1, "one connection to end")
    assert is_echoed(room.client(t))
    with pytest.raises(OSError):
        room.client(t)


def test_descriptor_left_open_by_a_script(room, program):
    t = room.tunnel("--", "sh", "-c", "ls -l /proc/self/fd")
    # A number that no handed-over descriptor has.
    program.script(f"#!/bin/bash\nexec 17<{room.certs.server}\n"
                   'exec REAL "$@"\n')
    upgrade(t)
    text = room.client(t).read_all()[0].decode()
    assert "pipe" in text or "socket" in text
    assert room.certs.server not in text
    assert room.certs.server not in support.open_files(t.pid).values()


def test_workers_exit_with_the_master(room, program, tunnel):
    """Workers from before and after the upgrade survive it, and exit when the
    master dies.
    """
    t = tunnel("workers=2")
    client = room.client(t)
    assert is_echoed(client)
    upgrade(t)
    wait_for(lambda: len(t.workers()) == 3, "one old worker and two new ones")
    workers = t.workers()
    os.kill(t.pid, signal.SIGKILL)
    t.wait()
    wait_for(lambda: sum(map(is_alive, workers)) == 1, "the idle ones to exit")
    assert is_echoed(client)
    end(client)
    wait_for(lambda: not any(map(is_alive, workers)), "all to exit")


@pytest.mark.parametrize("first,second", [
    (signal.SIGUSR2, signal.SIGHUP), (signal.SIGHUP, signal.SIGUSR2),
    (signal.SIGUSR2, signal.SIGUSR2), (signal.SIGUSR2, signal.SIGUSR1),
])
def test_two_signals(room, program, tunnel, first, second):
    t = tunnel("workers=2")
    client = room.client(t)
    assert is_echoed(client)
    for n in range(1, 4):
        t.signal(first)
        t.signal(second)
        t.wait_log("tunnel: upgraded$", count=n)
        if signal.SIGHUP in (first, second):
            t.wait_log("tunnel: reloaded$", count=n)
        assert serves(room, t.address) and is_echoed(client)
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")


def test_second_upgrade_during_the_first(room, program, tunnel):
    t = tunnel()
    program.script('#!/bin/sh\n[ "$1" = -t ] && read -r x < ' +
                   room.path("fifo") + '\nexec REAL "$@"\n')
    os.mkfifo(room.path("fifo"))
    t.signal(signal.SIGUSR2)
    t.wait_log("upgrading: trying")
    t.signal(signal.SIGUSR2)
    t.wait_log("an upgrade is already in progress")
    assert serves(room, t.address)  # during the trial
    upgrade(t, "tunnel: reloaded$", signal.SIGHUP)
    room.write("fifo", "go\n")
    t.wait_log("tunnel: upgraded$")
    assert serves(room, t.address)


@pytest.mark.parametrize("mode", MODES)
def test_stop_right_after(program, tunnel, mode):
    t = tunnel(mode)
    t.signal(signal.SIGUSR2)
    t.wait_log("takes over$")
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
    assert "shutting down" in t.log()


def test_stop_during_the_trial(room, program, tunnel):
    t = tunnel()
    os.mkfifo(room.path("fifo"))
    program.script(f"#!/bin/sh\nread -r x < {room.path('fifo')}\n")
    t.signal(signal.SIGUSR2)
    t.wait_log("upgrading: trying")
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
    assert "takes over" not in t.log()


def test_daemon_with_files(room, program, tunnel):
    """The process ID and the lock stay, and the log continues in its file,
    whatever the new program does.
    """
    pidfile, log = room.path("pid"), room.path("log")
    words = [f"pidfile={pidfile}", f"log={log}"]
    t = tunnel("daemon=yes", *words, ready=False)
    assert t.wait() == 0
    pid = int(support.text_of(pidfile))
    try:
        for n in range(1, 3):
            program.put()
            os.kill(pid, signal.SIGUSR2)
            wait_for(lambda: len(re.findall("notice: upgraded\n",
                     support.text_of(log))) == n, "an upgrade")
        fail(room, program, "user unknown")
        os.kill(pid, signal.SIGUSR2)
        wait_for(lambda: "upgrade failed, keeping" in support.text_of(log),
                 "the failed upgrade")
        assert 'error: command line: unknown user "nobody-of-this-name"' \
            "" in support.text_of(log) or \
            'unknown user "nobody-of-this-name"' in support.text_of(log)
        os.rename(log, log + ".1")
        program.put()
        os.kill(pid, signal.SIGUSR2)
        wait_for(lambda: "upgraded" in support.text_of(log), "the new file")
        assert int(support.text_of(pidfile)) == pid
        other = room.tunnel("connect=127.0.0.1:1", *words, ready=False)
        assert other.wait() == 2
        assert serves(room, re.search("listening on (.*)", support.text_of(
            log + ".1"))[1])
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not is_alive(pid), "the daemon's end")
    assert not os.path.exists(pidfile)


@ROOT
@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_user_and_privileged_master(room, program, tunnel, mode):
    t = tunnel(mode, "user=nobody")
    for _ in range(2):
        client = room.client(t)
        assert is_echoed(client)
        upgrade(t)
        assert is_echoed(client)
    nobody = pwd.getpwnam("nobody").pw_uid
    assert os.stat(f"/proc/{t.pid}").st_uid == 0
    client = room.client(t)
    assert is_echoed(client)
    assert {int(re.search(r"^Uid:\s+(\d+)", support.text_of(
        f"/proc/{pid}/status"), re.M)[1]) for pid in t.workers()} == {nobody}


def test_passed_listener(room, program, tunnel):
    sock = room.keep(socket.create_server(("127.0.0.1", 0)))
    os.set_inheritable(sock.fileno(), True)
    t = tunnel(f"accept=fd:{sock.fileno()}", pass_fds=[sock.fileno()])
    sock.close()
    for _ in range(2):
        program.put()
        upgrade(t)
        assert serves(room, t.address)
    fail(room, program, "user unknown")
    refused(t)
    assert serves(room, t.address)


def test_listeners_of_systemd(room, program, backend):
    """Without accept: the variables still name the same process."""
    sock = room.keep(socket.create_server(("127.0.0.1", 0)))
    address = support.tcp_address(sock)
    words = support.command(f"connect={backend.address}",
                            f"cert={room.certs.server}")
    t = room.start(
        "passed", ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"', "sh",
                   *words],
        close_fds=False, preexec_fn=lambda: os.dup2(sock.fileno(), 3))
    t.wait_log("listening on")
    sock.close()
    for _ in range(2):
        program.put()
        upgrade(t)
        assert serves(room, address)
    assert t.stop() == 0


def test_service_manager_is_notified(room, program, tunnel):
    with Supervisor(room.path("notify")) as supervisor:
        t = tunnel(env={**os.environ, "NOTIFY_SOCKET": supervisor.address})
        supervisor.wait("READY")
        upgrade(t)
        said, pid = supervisor.wait("RELOADING")
        assert int(said["MONOTONIC_USEC"]) > 0 and pid == t.pid
        supervisor.wait("READY")
        fail(room, program, "user unknown")
        refused(t)
        supervisor.wait("RELOADING")
        said, pid = supervisor.wait("READY")
        assert pid == t.pid and "the last upgrade failed" in said["STATUS"]
        t.stop()
        supervisor.wait("STOPPING")
        assert supervisor.rest() == b""


def test_nothing_grows(room, program, tunnel):
    t = tunnel("workers=2", "max_per_ip=100")
    upgrade(t)
    t.wait_log("worker [0-9]+ exited$", count=2)
    assert statistics(t)["live"] == 0
    before = len(support.open_files(t.pid))
    for _ in range(5):
        upgrade(t)
        wait_for(lambda: len(t.workers()) == 2, "the old workers to exit")
    fail(room, program, "user unknown")
    refused(t)
    wait_for(lambda: len(support.open_files(t.pid)) == before,
             "the same number of descriptors")


@ROOT
def test_workers_inherit_none_of_it(room, program, tunnel):
    t = tunnel("workers=2")
    for _ in range(2):
        for worker in t.workers():
            assert not any("memfd" in name or name.endswith("/tunnel")
                           for name in support.open_files(worker).values())
        upgrade(t)
        wait_for(lambda: len(t.workers()) == 2, "the old workers to exit")


# The signal dispositions of other processes.

def ignored(pid):
    text = support.text_of(f"/proc/{pid}/status")
    bits = {key: int(re.search(rf"^{key}:\s+(\w+)", text, re.M)[1], 16)
            for key in ("SigIgn", "SigCgt")}
    return [bool(bits[key] >> (signal.SIGUSR2 - 1) & 1)
            for key in ("SigIgn", "SigCgt")]


@pytest.mark.parametrize("mode", ["workers=1", "mode=fork"])
def test_workers_ignore_sigusr2_and_commands_do_not(room, program, mode):
    t = room.tunnel(mode, "--", "cat")
    client = room.client(t)
    assert is_echoed(client)
    assert all(ignored(pid) == [True, False] for pid in t.workers())
    assert [ignored(pid) for pid in t.commands()] == [[False, False]]
    support.kill(t.workers(), signal.SIGUSR2)
    assert is_echoed(client)
    upgrade(t)
    assert is_echoed(client)
    other = room.client(t)
    assert is_echoed(other)
    assert [ignored(pid) for pid in t.commands()] == 2 * [[False, False]]


def test_command_inherits_none_of_it(room, program):
    t = room.tunnel("--", "sh", "-c", "env; ls -l /proc/self/fd")
    upgrade(t)
    text = room.client(t).read_all()[0].decode()
    assert "REMOTE_HOST=" in text
    assert "TUNNEL_STATE" not in text and "TUNNEL_BEFORE" not in text
    assert "memfd" not in text


def test_handover_variable_set_by_mistake(room):
    """The error message names the variable."""
    with open(room.certs.server) as f:
        p = subprocess.run(
            support.command("-t", "connect=1", "accept=127.0.0.1:0",
                            f"cert={room.certs.server}"), check=False,
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            timeout=DEADLINE, pass_fds=[f.fileno()],
            env={**os.environ, "TUNNEL_STATE": str(f.fileno())})
    assert p.returncode == 1
    assert "error: TUNNEL_STATE: Bad file descriptor" in p.stderr


# The name by which it was started.

@pytest.mark.parametrize("name", ["./tunnel", "tunnel", "link"])
def test_name_of_the_program(room, program, backend, name):
    """A link is resolved again, to its current target."""
    os.symlink(program.path, room.path("link"))
    words = support.words([f"connect={backend.address}", "accept=127.0.0.1:0",
                           f"cert={room.certs.server}"])
    t = room.start("named", [name if name != "link" else room.path("link"),
                             *words], cwd=room.dir,
                   env={**os.environ, "PATH": f"{room.dir}:/usr/bin:/bin"},
                   executable=program.path if name == "./tunnel" else None)
    t.wait_log("listening on")
    program.put()
    said = upgrade(t)
    end_of = "link" if name == "link" else "tunnel"
    assert re.search(f"trying {room.dir}/(./)?{end_of} -t\n", said)
    assert program.runs_in(t)
    assert t.stop() == 0


def test_log_after_a_program_that_vanishes(room, program, tunnel):
    """Workers started afterwards still have the same log."""
    log = room.path("log")
    t = tunnel("workers=1", f"log={log}", ready=False)
    wait_for(lambda: "listening on" in support.text_of(log), "the start")
    address = re.search("listening on (.*)", support.text_of(log))[1]
    program.script(f'#!/bin/sh\nrm {program.path}; exec REAL "$@"\n')
    t.signal(signal.SIGUSR2)
    wait_for(lambda: "upgrade failed: No such file" in support.text_of(log),
             "the failed upgrade")
    worker, = t.workers()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: t.workers() not in ([], [worker]), "a replacement")
    assert log in support.open_files(t.workers()[0]).values()
    client = room.client(address)
    assert is_echoed(client)
    end(client)
    wait_for(lambda: " closed\n" in support.text_of(log), "the log line")


@ROOT
@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                    reason="sanitizers and valgrind need more of /dev")
def test_syslog(room, program, tunnel, monkeypatch):
    """Twice: its socket is no other process's, and a failure is logged there,
    too.
    """
    dev = room.path("dev")
    os.mkdir(dev)
    for name in ("null", "urandom"):
        room.write(f"dev/{name}", "")
    under = ["unshare", "-m", "sh", "-c", IN_A_DEV_OF_ITS_OWN, dev]
    if subprocess.run([*under, "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace")
    log = room.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    log.bind(os.path.join(dev, "log"))
    log.settimeout(DEADLINE)

    def heard(words):
        while words not in (said := log.recv(4096).decode()):
            pass
        return said

    monkeypatch.setattr(support, "UNDER", under)
    t = tunnel("workers=2", "log=syslog", ready=False)
    address = heard("listening on").split()[-1]
    for _ in range(3):
        client = room.client(address)
        t.signal(signal.SIGUSR2)
        heard("]: upgraded")
        assert len(datagrams(t.pid)) == 1
        end(client)
        heard(" closed")
    fail(room, program, "user unknown")
    t.signal(signal.SIGUSR2)
    heard("upgrade failed, keeping")
    assert serves(room, address)
    assert t.stop() == 0
