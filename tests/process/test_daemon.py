"""The life of the process: background, pidfile, log file, signals, and its
end.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import peers
import support
from launchers import Daemon
from support import Task, read_all, read_exactly, text_of


# In the background.

@pytest.mark.parametrize("how", ["-d", "daemon=yes"])
def test_daemon_serves_after_its_parent_exits(room, backend, how):
    d = Daemon(room, how, f"connect={backend.address}")
    assert (d.p.returncode, d.p.stdout, d.p.stderr) == (0, "", "")
    client = room.client(d.address)
    server = room.keep(backend.accept())
    client.send(b"hello")
    assert read_exactly(server, 5) == b"hello"


def test_daemon_detaches_from_its_terminal(room, backend):
    d = Daemon(room, "-d", f"connect={backend.address}")
    for fd in range(3):
        assert os.readlink(f"/proc/{d.pid}/fd/{fd}") == "/dev/null"
    assert os.getsid(d.pid) != os.getsid(0)
    assert os.getpgid(d.pid) != os.getpgid(0)


def test_daemon_that_cannot_start(room, backend):
    d = Daemon(room, "-d", f"connect={backend.address}", "accept=192.0.2.1:0")
    assert d.p.returncode == 1  # the address may become available later
    assert d.p.stderr.startswith("tunnel: error: ")
    assert d.p.stderr.count("\n") == 1
    assert not os.path.exists(d.pidfile)


def test_daemon_ends_on_sigterm(room, backend):
    d = Daemon(room, "-d", f"connect={backend.address}")
    os.kill(d.pid, signal.SIGTERM)
    support.wait_for(lambda: not d.alive(), "the daemon's end")
    assert not os.path.exists(d.pidfile)


def test_daemon_runs_from_a_relative_configuration(room, backend):
    room.write("tunnel.conf", f"accept = 127.0.0.1:0\ncert = server.pem\n"
               f"connect = {backend.address}\nlog = daemon.log\n"
               "pidfile = pidfile\ndaemon = yes\n")
    support.shutil.copy(room.certs.server, room.path("server.pem"))
    subprocess.run(support.command("-c", "tunnel.conf"), cwd=room.dir,
                   check=True, timeout=support.DEADLINE)
    pid = int(open(room.path("pidfile")).read())
    os.kill(pid, signal.SIGTERM)
    support.wait_for(lambda: not os.path.exists(room.path("pidfile")),
                     "the daemon's end")


# Started without descriptors 0, 1 and 2.

CLOSING = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]


def assert_echoes(room, to):
    client = room.client(to)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")


def test_standard_descriptors_closed(room, backend):
    """New descriptors must not become 0 to 2, or clients would receive the
    log.
    """
    backend.serve(support.echo)
    path = room.path("accept")
    t = room.start("closed", [
        *CLOSING, *support.command(
            f"accept=unix:{path}", "-v", f"connect={backend.address}",
            f"cert={room.certs.server}")])
    for _ in range(5):
        client = support.wait_for(lambda: connected(room, path),
                                  "a connection")
        client.handshake()  # any other byte would be an error
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
    t.signal(signal.SIGTERM)
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")


def test_daemon_with_standard_descriptors_closed(room, backend):
    backend.serve(support.echo)
    d = Daemon(room, "daemon=yes", f"connect={backend.address}",
               before=CLOSING)
    assert d.p.returncode == 0
    for fd in range(3):
        assert os.readlink(f"/proc/{d.pid}/fd/{fd}") == "/dev/null"
    for _ in range(3):
        assert_echoes(room, d.address)


def test_daemon_on_descriptor_0(room, backend):
    """Descriptor 0 is in use, so it is not redirected to /dev/null."""
    backend.serve(support.echo)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        d = Daemon(room, "daemon=yes", f"connect={backend.address}",
                   accept="fd:0", stdin=listener)
    assert d.p.returncode == 0, d.p.stderr
    for _ in range(3):
        assert_echoes(room, d.address)


# The pidfile.

def test_pidfile(room, backend):
    path = room.path("pidfile")
    t = room.tunnel(f"connect={backend.address}", f"pidfile={path}")
    assert open(path).read() == f"{t.pid}\n"
    with open(path) as f, pytest.raises(BlockingIOError):
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert t.stop() == 0
    assert not os.path.exists(path)


def test_pidfile_left_behind(room, backend):
    path = room.write("pidfile", "4194304000\nand more, longer than a pid\n")
    t = room.tunnel(f"connect={backend.address}", f"pidfile={path}")
    assert open(path).read() == f"{t.pid}\n"


def test_pidfile_of_a_killed_daemon(room, backend):
    path = room.path("pidfile")
    first = room.tunnel(f"connect={backend.address}", f"pidfile={path}")
    first.signal(signal.SIGKILL)
    first.wait()
    second = room.tunnel(f"connect={backend.address}", f"pidfile={path}")
    assert open(path).read() == f"{second.pid}\n"


@pytest.mark.parametrize("text", ["precious", None])
def test_pidfile_that_is_a_symbolic_link(room, backend, text):
    """Someone who can make links in the directory must not choose a file to be
    overwritten.
    """
    path, target = room.path("pidfile"), room.path("target")
    if text is not None:
        room.write("target", text)
    os.symlink(target, path)
    t = room.tunnel(f"connect={backend.address}", f"pidfile={path}",
                    ready=False)
    assert t.wait() == 2
    assert t.log().startswith("tunnel: error: command line: pidfile: ")
    assert t.log().count("\n") == 1
    assert os.path.islink(path)
    if text is None:
        assert not os.path.exists(target)
    else:
        assert open(target).read() == text


# The log.

def lines_of(path):
    return text_of(path).splitlines()


def listening(path):
    """The address, once it is in the log."""
    found = re.search(r"listening on (\S+)\n", text_of(path))
    return found and found[1]


def test_log_file(room, backend):
    path = room.path("log")
    t = room.tunnel(f"connect={backend.address}", f"log={path}", ready=False)
    support.wait_for(lambda: listening(path), "a log")
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [a-z]+: ", x)
               for x in lines_of(path))
    assert any(re.fullmatch(r"\S+ notice: listening on 127\S+", x)
               for x in lines_of(path))
    assert t.log() == ""
    assert os.stat(path).st_mode & 0o007 == 0


def test_log_file_is_reopened_on_sighup(room, backend):
    """As logrotate does: rename, then signal."""
    backend.serve(support.echo)
    path = room.path("log")
    t = room.tunnel(f"connect={backend.address}", f"log={path}", ready=False)
    address = support.wait_for(lambda: listening(path), "a log")
    before = room.client(address)
    os.rename(path, path + ".1")
    t.signal(signal.SIGHUP)
    support.wait_for(lambda: "reloaded" in text_of(path), "a new log file")
    support.wait_for(lambda: not any(
        path + ".1" in support.open_files(pid).values() for pid in t.pids()),
        "the end of the old worker")
    assert_echoes(room, address)
    for client in room.opened[-1], before:
        client.close_notify()
        client.close()
    support.wait_for(lambda: text_of(path).count(" closed\n") == 2,
                     "both connections in the new file")


def test_sighup_without_a_log_file(room, backend):
    t = room.tunnel(f"connect={backend.address}")
    for _ in range(3):
        t.signal(signal.SIGHUP)
    client = room.client(t)
    room.keep(backend.accept()).sendall(b"alive")
    assert read_exactly(client, 5) == b"alive"


LEVELS = {
    "error": set(), "warning": set(), "notice": {"listening"},
    "info": {"listening", "closed"},
    "debug": {"listening", "closed", "accepted"},
}


@pytest.mark.parametrize("argument,level", [
    *((f"log_level={level}", level) for level in LEVELS),
    ("-q", "warning"), ("-v", "debug"),
])
def test_log_level(room, backend, argument, level):
    path = room.path("accept")
    backend.serve(support.echo)
    t = room.tunnel(argument, f"accept=unix:{path}",
                    f"connect={backend.address}", ready=False)
    support.wait_for(lambda: os.path.exists(path), "the socket")
    client = support.wait_for(lambda: connected(room, path), "a connection")
    client.handshake()
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    client.close()
    t.stop()
    words = {word for word in ("listening", "accepted", "closed")
             if word in t.log()}
    assert words == LEVELS[level]


def connected(room, path):
    """The file of a socket exists shortly before the socket listens."""
    try:
        ctx = peers.context(room.certs)
        return room.keep(peers.Client("unix:" + path, ctx))
    except (ConnectionRefusedError, FileNotFoundError):
        return None


def test_syslog_is_not_stderr(room, backend):
    path = room.path("accept")
    t = room.tunnel(f"accept=unix:{path}", f"connect={backend.address}",
                    "log=syslog", ready=False)
    support.wait_for(lambda: os.path.exists(path), "the socket")
    assert t.stop() == 0
    assert t.log() == ""


@pytest.mark.parametrize("ours", [True, False])
def test_journal_priorities(room, backend, ours):
    """systemd names the journal in a variable: standard error may be the
    journal or not.
    """
    path = room.path("journal")
    with open(path, "w") as journal:
        st = os.fstat(journal.fileno())
        stream = f"{st.st_dev}:{st.st_ino + (not ours)}"
        room.tunnel(f"connect={backend.address}", ready=False, stderr=journal,
                    env={**os.environ, "JOURNAL_STREAM": stream})
    support.wait_for(lambda: listening(path), "a log")
    begin = r"<\d>" if ours else f"{support.TIME} tunnel: "
    assert all(re.match(begin + r"\S", x) for x in lines_of(path))


# The end of the process.

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_of_an_idle_tunnel(room, backend, number):
    t = room.tunnel(f"connect={backend.address}")
    t.signal(number)
    assert t.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_lets_connections_finish(room, backend, version, number):
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    server = room.keep(backend.accept())
    t.signal(number)
    t.wait_log("shutting down: draining connections")
    support.wait_for(lambda: support.is_refused(t.address),
                     "the listener to be closed")
    data = os.urandom(1 << 20)
    sending = Task(server.sendall, data)
    assert read_exactly(client, len(data)) == data
    sending.result()
    assert t.alive()
    server.close()
    assert client.read_all() == (b"", "close_notify")
    client.close_notify()
    client.close()
    assert t.wait() == 0
    assert " closed\n" in t.log()


def test_second_signal_aborts(room, backend):
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t)
    server = room.keep(backend.accept())
    t.signal(signal.SIGTERM)
    t.wait_log("shutting down: draining connections")
    t.signal(signal.SIGTERM)
    assert client.read_all() == (b"", "reset")
    assert read_all(server) == (b"", "reset")
    assert t.wait() == 0
    assert "shutting down: aborting connections" in t.log()
    assert " aborted\n" in t.log()


def test_drain_timeout_aborts(room, backend):
    t = room.tunnel(f"connect={backend.address}", "drain_timeout=1s")
    client = room.client(t)
    server = room.keep(backend.accept())
    t.signal(signal.SIGTERM)
    start = time.monotonic()
    assert client.read_all() == (b"", "reset")
    assert 0.8 < time.monotonic() - start < 1.5 * support.SLOW
    assert read_all(server) == (b"", "reset")
    assert t.wait() == 0


def test_signal_under_full_load(room, backend):
    """A loop that never sleeps also handles signals."""
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t)
    server = room.keep(backend.accept())

    def pour():
        block = bytes(1 << 20)
        with pytest.raises(OSError):
            while True:
                server.sendall(block)

    pouring, draining = Task(pour), Task(client.read_all)
    t.signal(signal.SIGTERM)
    t.wait_log("shutting down: draining connections")
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
    assert draining.result()[1] == "reset"
    pouring.result()


def test_end_as_soon_as_it_listens(room, backend):
    """A stop is possible after the first of many listeners appears, before the
    others are open.
    """
    os.mkdir(room.path("sockets"))
    paths = [room.path(f"sockets/{n}") for n in range(60)]
    for _ in range(10):
        t = room.tunnel(*(f"accept=unix:{path}" for path in paths),
                        f"connect={backend.address}", ready=False)
        while not os.path.exists(paths[0]):
            assert t.alive()
        t.signal(signal.SIGTERM)
        assert t.wait() == 0
        assert os.listdir(room.path("sockets")) == []


def test_end_during_a_handshake(room, backend):
    t = room.tunnel(f"connect={backend.address}", "drain_timeout=1s")
    sock = room.connect(t.address)
    sock.sendall(b"\x16\x03\x01")
    t.wait_log("accepted")
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
