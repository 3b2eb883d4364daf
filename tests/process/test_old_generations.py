"""Old generations after a reload: their connections continue, and their
workers use no other resources.
"""

import os
import re
import resource
import signal
import socket
import ssl
import time

import pytest

import peers
import support
from reloads import Configured, pump
from support import Task, end, is_alive, is_echoed, text_of, wait_for

MODES = ["poll", "fork"]


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


# How long old connections may continue.

def test_no_reload_aborts_connections(configured, mode):
    """By default, drain_timeout applies to a stop only."""
    c = configured(mode=mode, drain_timeout="1s")
    clients = []
    for _ in range(3):
        clients.append(c.client())
        c.reload()
    time.sleep(1.5)  # longer than any timeout in this file
    assert all(map(is_echoed, clients))


def assert_aborted(clients):
    for client in clients:
        assert client.read_all() == (b"", "reset")


def test_reload_timeout(configured, mode):
    """The new configuration's value applies."""
    c = configured(mode=mode)
    before = c.client()
    c.reload(reload_timeout="1s", drain_timeout="1h")
    after = c.client()
    assert_aborted([before])
    c.t.wait_log(" drain timeout$")
    assert is_echoed(after)


def test_reload_timeout_applies_to_all_old_generations(configured, mode):
    """A later reload can shorten the deadline, but not extend it."""
    c = configured(mode=mode)
    clients = []
    for value in "off", "1h":
        clients.append(c.client())
        c.reload(reload_timeout=value)
    clients.append(c.client())
    c.reload(reload_timeout="1s")
    clients.append(c.client())
    c.reload(reload_timeout="1h")
    assert_aborted(clients[:3])
    assert is_echoed(clients[3])


def test_stop_ends_all_generations(configured, mode):
    c = configured(mode=mode, drain_timeout="1h")
    clients = [c.client()]
    c.reload(drain_timeout="1s")
    clients.append(c.client())
    c.reload()
    clients.append(c.client())
    c.t.signal(signal.SIGTERM)
    assert_aborted(clients)
    assert c.t.wait() == 0


def test_worker_that_ignores_signals(configured):
    """A worker that has not exited when its time is up is killed."""
    c = configured(mode="poll", workers="1")
    client = c.client()
    old, = c.t.workers()
    os.kill(old, signal.SIGSTOP)
    c.write(reload_timeout="1s")
    c.hup("tunnel: reloaded$")
    c.t.wait_log(f"worker {old} does not exit: killed")
    wait_for(lambda: not is_alive(old), "the exit")
    assert client.read_all()[1] in ("reset", "truncated")
    assert is_echoed(c.client())


@pytest.mark.parametrize("words", [["mode=poll", "workers=2"], ["mode=fork"]],
                         ids=["poll", "fork"])
def test_twenty_long_lived_connections(room, backend, words):
    """With default settings: no connection is lost, and data flows both ways
    as before.
    """
    t = room.tunnel(f"connect={backend.address}", *words)
    clients = [room.client(t, ("1.2", "1.3")[n % 2]) for n in range(20)]
    busy = clients[:8]
    done = []
    tasks = [Task(pump, client, n, lambda: done)
             for n, client in enumerate(busy)]
    for n in range(1, 3):
        t.signal(signal.SIGHUP)
        t.wait_log("reloaded$", count=n)
    t.wait_log("20 connections continue under the previous configuration$")
    t.wait_log("0 connections continue under the previous configuration, and "
               "20 under earlier ones$")
    for client in clients[8:]:
        assert is_echoed(client, b"x" * 100000)
    done.append(True)
    for task in tasks:
        rounds, sent, received = task.result()
        assert rounds >= 3
        assert sent == received
    for client in clients[8:]:
        end(client)
    t.wait_log(" closed$", count=20)


# The number of continuing connections is logged.

def test_number_of_continuing_connections(configured, mode):
    c = configured(mode=mode)
    assert not any("continue" in x for x in c.reload())
    clients = [c.client()]
    assert "tunnel: 1 connection continues under the previous " \
        "configuration" in c.reload()
    clients += [c.client(), c.client()]
    assert "tunnel: 2 connections continue under the previous " \
        "configuration, and 1 under earlier ones" in c.reload()
    for client in clients:
        end(client)
    wait_for(lambda: c.t.log().count(" closed\n") == 3, "the ends")
    wait_for(lambda: support.statistics(c.t)["live"] == 0, "no connection")
    assert not any("continue" in x for x in c.reload())


# Resources do not accumulate.

def kb(pid, field):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{field}:\s+(\d+) kB", f.read(), re.M)[1])


def maps(pid):
    with open(f"/proc/{pid}/maps") as f:
        return len(f.readlines())


def held(pid):
    return len(support.open_files(pid)), maps(pid), kb(pid, "RssAnon")


@pytest.mark.skipif(bool(support.UNDER) or support.SANITIZED,
                    reason="sanitizers and valgrind add memory")
@pytest.mark.seconds(60)
def test_fifty_reloads_and_one_connection(configured, mode):
    """Each reload also changes a key that allocates shared memory."""
    c = configured(mode=mode)
    client = c.client()
    assert is_echoed(client)
    old = c.t.workers()
    seen = []
    for i in range(50):
        c.reload(session_cache=str(1000 + i))
        wait_for(lambda: len(c.t.workers()) <= 2, "the other workers to exit")
        seen.append(held(c.t.pid))
    n = 1 if mode == "poll" else 0
    wait_for(lambda: len(c.t.workers()) == 1 + n, "the last worker to exit")
    assert set(old) & set(c.t.workers()) and is_echoed(client)
    # Usage alternates, because the new generation is built beside the old one.
    # 64 KB in 36 reloads would be less than 2 KB each.
    for room, before, after in zip((2, 2, 64), map(max, zip(*seen[4:10])),
                                   map(max, zip(*seen[40:]))):
        assert after <= before + room, seen
    end(client)
    wait_for(lambda: len(c.t.workers()) == n, "the old generation's end")
    c.t.wait_log(" closed$")


def test_old_worker_without_a_connection_exits(configured):
    """Also if another old worker still has connections."""
    c = configured(mode="poll", workers="3")
    client = c.client()
    assert is_echoed(client)
    c.reload()
    wait_for(lambda: len(c.t.workers()) == 4, "two of three to exit")
    assert is_echoed(client)
    end(client)
    wait_for(lambda: len(c.t.workers()) == 3, "the last one to exit")


# The log of old generations.

class Logging(Configured):
    """Logs to a file, accepts on a Unix socket, and is confined as far as
    possible.
    """

    def __init__(self, room, mode, **values):
        self.file = room.path("log")
        words = {}
        if os.geteuid() == 0 and not support.SANITIZED:
            os.chmod(room.dir, 0o755)
            os.makedirs(room.path("jail"))
            words = {"user": "nobody", "chroot": room.path("jail")}
        super().__init__(room, mode=mode, keywords={"ready": False},
                         accept=f"unix:{room.path('accept')}",
                         **{"log": self.file, **words, **values})
        wait_for(lambda: "listening on" in self.text(), "the start")

    def text(self):
        return self.t.log() + text_of(self.file)

    def client(self, **keywords):
        return self.room.client(f"unix:{self.room.path('accept')}", **keywords)

    def hup(self, words):
        n = len(re.findall(words, self.text(), re.M))
        self.t.signal(signal.SIGHUP)
        wait_for(lambda: len(re.findall(words, self.text(), re.M)) > n, words)


def rotate(c, words="reloaded$"):
    """Rotate the log, and wait until no process has the old file open."""
    os.rename(c.file, c.file + ".1")
    c.hup(words)
    wait_for(lambda: re.search(words, text_of(c.file), re.M), "the new file")
    wait_for(lambda: not any(c.file + ".1" in support.open_files(pid).values()
                             for pid in c.t.pids()),
                             "all to close the old file")
    os.unlink(c.file + ".1")


def test_rotated_log(room, backend, mode):
    """Twice: descriptors received at the first rotation are closed at the
    next.
    """
    c = Logging(room, mode, connect=backend.address)
    clients = [c.client() for _ in range(3)]
    assert all(map(is_echoed, clients))
    workers = c.t.workers()
    before = sum(len(support.open_files(pid)) for pid in workers)
    for client in clients[:2]:
        rotate(c)
        end(client)
        wait_for(lambda: " closed\n" in text_of(c.file), "the log line")
    assert sum(len(support.open_files(pid)) for pid in workers) <= before
    assert is_echoed(clients[2])


def test_rotated_log_and_a_failed_reload(room, backend, mode):
    """The running workers switch to the new file, too."""
    c = Logging(room, mode, connect=backend.address)
    client = c.client()
    c.write(colour="red")
    rotate(c, "reload failed, ")
    end(client)
    wait_for(lambda: " closed\n" in text_of(c.file), "the log line")
    assert is_echoed(c.client())


def test_log_that_becomes_standard_error_and_a_file_again(room, backend, mode):
    c = Logging(room, mode, connect=backend.address)
    clients = [c.client() for _ in range(2)]
    for n, log in enumerate(("stderr", c.file)):
        c.write(log=log)
        c.hup("reloaded$")
        wait_for(lambda: n == all(c.file in support.open_files(pid).values()
                                  for pid in c.t.pids()), "all to switch")
        end(clients[n])
    wait_for(lambda: " closed\n" in text_of(c.file), "the log line")
    assert len(re.findall("^tunnel: .* closed$", c.t.log(), re.M)) == 1
    end(c.client())


def test_log_that_becomes_a_fifo(room, backend, mode):
    """A second reload switches to another FIFO with the same name."""
    c = Logging(room, mode, connect=backend.address)
    clients = [c.client() for _ in range(2)]
    fifo = room.path("fifo")
    for client in clients:
        if os.path.exists(fifo):
            os.unlink(fifo)
        os.mkfifo(fifo, 0o600)
        with open(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK), "rb",
                  buffering=0) as reader:
            c.write(log=fifo)
            c.t.signal(signal.SIGHUP)
            lines = bytearray()
            wait_for(lambda: b"reloaded" in read_some(reader, lines),
                     "the reload")
            wait_for(lambda: all(fifo in support.open_files(pid).values()
                                 for pid in c.t.pids()), "all to switch")
            end(client)
            wait_for(lambda: b" closed\n" in read_some(reader, lines),
                     "the log line")
    assert " closed\n" not in c.text()


def read_some(reader, data):
    data += reader.read(65536) or b""
    return data


def test_log_that_becomes_syslog(room, backend, mode):
    """Confined workers cannot connect to syslog: they keep the file."""
    c = Logging(room, mode, connect=backend.address)
    client = c.client()
    c.write(log="syslog")
    c.t.signal(signal.SIGHUP)
    wait_for(lambda: is_echoed(client) and len(c.t.workers()) > 1 - (
        mode == "fork"), "the reload")
    end(client)
    wait_for(lambda: " closed\n" in text_of(c.file), "the log line")


def test_log_descriptor_and_later_connections(room, backend):
    """No connection reuses the old log's descriptor number, which the sandbox
    rules contain.
    """
    c = Logging(room, "poll", connect=backend.address, log="stderr")
    clients = [c.client() for _ in range(2)]
    c.write(log=c.file, colour="red")
    c.hup("reload failed, ")
    c.write(log=c.file, colour=None)
    for _ in range(2):
        clients += [c.client() for _ in range(3)]
        c.hup(" reloaded$|: reloaded$")
        assert all(map(is_echoed, clients))


@pytest.mark.skipif(bool(support.UNDER), reason="valgrind needs descriptors")
def test_log_of_many_processes(room, backend):
    """mode=fork: the master has a control channel and a descriptor per
    process.
    """
    count = 40
    c = Logging(room, "fork", connect=backend.address, max_connections="60")
    clients = [c.client() for _ in range(count)]
    assert all(map(is_echoed, clients))
    for _ in range(2):
        rotate(c)
    assert all(map(is_echoed, clients))
    for client in clients:
        end(client)
    wait_for(lambda: text_of(c.file).count(" closed\n") == count, "all lines")


@pytest.mark.skipif(bool(support.UNDER), reason="valgrind needs descriptors")
def test_connection_with_a_high_descriptor_number(room, backend):
    """mode=fork: its descriptor number in the master exceeds a worker's limit.
    """
    c = Logging(room, "fork", connect=backend.address, max_connections="150",
                log="stderr")
    clients = [c.client() for _ in range(120)]
    c.write(log=c.file)
    c.hup("reloaded$")
    clients += [c.client() for _ in range(5)]
    rotate(c)
    for client in clients:
        assert is_echoed(client)
        end(client)
    wait_for(lambda: text_of(c.file).count(" closed\n") == 125, "all lines")


@pytest.mark.skipif(bool(support.UNDER), reason="valgrind needs descriptors")
def test_workers_beside_many_processes(room, backend):
    """fork to poll: the workers' limit is below the master's control channel
    descriptors.
    """
    c = Logging(room, "fork", connect=backend.address, max_connections="150")
    clients = [c.client() for _ in range(120)]
    c.write(mode="poll", workers="4", max_connections="20")
    c.hup(": reloaded$")
    clients += [c.client() for _ in range(8)]
    for _ in range(2):
        rotate(c)
    for client in clients:
        assert is_echoed(client)
        end(client)
    wait_for(lambda: text_of(c.file).count(" closed\n") == 128, "all lines")


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))


@pytest.mark.skipif(bool(support.UNDER), reason="valgrind needs descriptors")
def test_master_without_descriptors_for_control_channels(room, backend):
    """It stops accepting, and recovers."""
    t = room.tunnel("mode=fork", f"connect={backend.address}",
                    preexec_fn=few_descriptors)
    t.wait_log("warning: max_connections needs 1096 file descriptors, but the "
               "limit is 30 ")
    clients = []
    while "not accepting connections" not in t.log():
        clients.append(room.connect(t.address))
        assert len(clients) < 40
        time.sleep(0.01)  # pacing
    for sock in clients:
        sock.close()
    assert is_echoed(room.client(t))


# Connections per client address.

def refused(c):
    client = peers.Client(c.t.address, peers.context(c.room.certs))
    try:
        with pytest.raises((OSError, ssl.SSLError)):
            client.handshake()
    finally:
        client.close()
    return True


def admitted(c):
    """A client, retried until it is admitted."""
    def one():
        client = peers.Client(c.t.address, peers.context(c.room.certs))
        try:
            client.handshake()
        except (OSError, ssl.SSLError):
            client.close()
            return None
        return c.room.keep(client)

    return wait_for(one, "a free slot")


def test_max_per_ip_counts_all_generations(configured, mode):
    """Also if the number of connections, and so of slots, changes."""
    c = configured(mode=mode, max_per_ip="3")
    clients = [c.client()]
    c.reload(max_connections="500")
    clients.append(c.client())
    c.reload(max_connections="2000")
    clients.append(c.client())
    assert refused(c)
    end(clients[0])
    clients.append(admitted(c))
    assert refused(c)
    assert all(map(is_echoed, clients[1:]))


def test_max_per_ip_is_turned_on(configured, mode):
    """Connections from before the limit count."""
    c = configured(mode=mode)
    clients = [c.client() for _ in range(3)]
    c.reload(max_per_ip="3")
    assert refused(c)
    end(clients[0])
    clients.append(admitted(c))
    c.reload(max_per_ip="off")
    clients.append(c.client())
    c.reload(max_per_ip="5")
    clients.append(c.client())
    assert refused(c)
    assert all(map(is_echoed, clients[1:]))


def test_max_per_ip_and_an_old_worker_that_is_killed(configured, mode):
    c = configured(mode=mode, max_per_ip="2")
    clients = [c.client(), c.client()]
    old = c.t.workers()
    c.reload()
    assert refused(c)
    support.kill(old)
    for client in clients:
        assert client.read_all()[1] in ("reset", "truncated")
    clients = [admitted(c), admitted(c)]
    assert refused(c)


# Unix sockets.

def test_path_that_was_removed(room, backend):
    path = room.path("accept")
    c = Logging(room, "poll", connect=backend.address, log="stderr")
    client = c.client()
    os.unlink(path)
    c.hup("reloaded$")
    c.t.wait_log(f"listening on unix:{path}$", count=2)
    assert is_echoed(client) and is_echoed(c.client())
    c.hup("reloaded$")
    assert c.t.log().count(f" listening on unix:{path}\n") == 3
    assert is_echoed(c.client())
    assert c.t.stop() == 0
    assert not os.path.exists(path)


def test_path_taken_by_another_process(room, backend):
    """The other's socket is not removed, and the tunnel continues without it.
    """
    path = room.path("accept")
    c = Logging(room, "poll", connect=backend.address, log="stderr")
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        c.hup("reload failed, ")
        c.t.wait_log(f"accept: unix:{path}: {support.IN_USE}$")
        assert c.t.stop() == 0
        assert os.path.exists(path)
