"""Old generations after a reload: their connections go on, and their workers
hold no other resources.
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


# Their time limit.

def test_no_reload_cuts_anybody(configured, mode):
    """By default there is no limit: drain_timeout applies to a stop."""
    c = configured(mode=mode, drain_timeout="1s")
    clients = []
    for _ in range(3):
        clients.append(c.client())
        c.reload()
    time.sleep(1.5)  # longer than all configured timeouts
    assert all(map(is_echoed, clients))


def assert_is_cut(clients):
    for client in clients:
        assert client.read_all() == (b"", "reset")


def test_reload_timeout(configured, mode):
    """The new configuration's reload_timeout applies."""
    c = configured(mode=mode)
    before = c.client()
    c.reload(reload_timeout="1s", drain_timeout="1h")
    after = c.client()
    assert_is_cut([before])
    c.t.wait_log(" drain timeout$")
    assert is_echoed(after)


def test_reload_timeout_is_for_all_before(configured, mode):
    """It may shorten the time of old generations, but not extend it."""
    c = configured(mode=mode)
    clients = []
    for value in "off", "1h":
        clients.append(c.client())
        c.reload(reload_timeout=value)
    clients.append(c.client())
    c.reload(reload_timeout="1s")
    clients.append(c.client())
    c.reload(reload_timeout="1h")
    assert_is_cut(clients[:3])
    assert is_echoed(clients[3])


def test_stop_ends_all_generations(configured, mode):
    c = configured(mode=mode, drain_timeout="1h")
    clients = [c.client()]
    c.reload(drain_timeout="1s")
    clients.append(c.client())
    c.reload()
    clients.append(c.client())
    c.t.signal(signal.SIGTERM)
    assert_is_cut(clients)
    assert c.t.wait() == 0


def test_worker_that_does_not_listen(configured):
    """It is killed when its time is over."""
    c = configured(mode="poll", workers="1")
    client = c.client()
    old, = c.t.workers()
    os.kill(old, signal.SIGSTOP)
    c.write(reload_timeout="1s")
    c.hup("tunnel: reloaded$")
    c.t.wait_log(f"worker {old} does not exit: killed")
    wait_for(lambda: not is_alive(old), "its end")
    assert client.read_all()[1] in ("reset", "truncated")
    assert is_echoed(c.client())


@pytest.mark.parametrize("words", [["mode=poll", "workers=2"], ["mode=fork"]],
                         ids=["poll", "fork"])
def test_twenty_long_lived_connections(room, backend, words):
    """With default settings: none is lost, and data go both ways afterwards as
    before.
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


# Connections that go on are logged.

def test_number_of_those_that_go_on(configured, mode):
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
    wait_for(lambda: c.t.log().count(" closed\n") == 3, "their end")
    wait_for(lambda: support.statistics(c.t)["live"] == 0, "no connection")
    assert not any("continue" in x for x in c.reload())


# Nothing accumulates.

def kb(pid, field):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{field}:\s+(\d+) kB", f.read(), re.M)[1])


def maps(pid):
    with open(f"/proc/{pid}/maps") as f:
        return len(f.readlines())


def held(pid):
    return len(support.open_files(pid)), maps(pid), kb(pid, "RssAnon")


@pytest.mark.skipif(bool(support.UNDER) or support.SANITIZED,
                    reason="they have memory of their own")
@pytest.mark.seconds(60)
def test_fifty_reloads_and_one_connection(configured, mode):
    """Each time a key is changed that needs shared memory."""
    c = configured(mode=mode)
    client = c.client()
    assert is_echoed(client)
    old = c.t.workers()
    seen = []
    for i in range(50):
        c.reload(session_cache=str(1000 + i))
        wait_for(lambda: len(c.t.workers()) <= 2, "the others to leave")
        seen.append(held(c.t.pid))
    n = 1 if mode == "poll" else 0
    wait_for(lambda: len(c.t.workers()) == 1 + n, "the last to leave")
    assert set(old) & set(c.t.workers()) and is_echoed(client)
    # Memory alternates, as the new one is made beside the old; 64 KB in 36
    # reloads would be less than 2 KB each.
    for room, before, after in zip((2, 2, 64), map(max, zip(*seen[4:10])),
                                   map(max, zip(*seen[40:]))):
        assert after <= before + room, seen
    end(client)
    wait_for(lambda: len(c.t.workers()) == n, "its generation's end")
    c.t.wait_log(" closed$")


def test_old_worker_without_a_connection_leaves(configured):
    """Also one of several, while another one stays."""
    c = configured(mode="poll", workers="3")
    client = c.client()
    assert is_echoed(client)
    c.reload()
    wait_for(lambda: len(c.t.workers()) == 4, "two of three to leave")
    assert is_echoed(client)
    end(client)
    wait_for(lambda: len(c.t.workers()) == 3, "the last one to leave")


# Their log.

class Logging(Configured):
    """A tunnel that logs to a file, on a Unix socket, fully confined."""

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
        wait_for(lambda: "listening on" in self.text(), "a start")

    def text(self):
        return self.t.log() + text_of(self.file)

    def client(self, **keywords):
        return self.room.client(f"unix:{self.room.path('accept')}", **keywords)

    def hup(self, words):
        n = len(re.findall(words, self.text(), re.M))
        self.t.signal(signal.SIGHUP)
        wait_for(lambda: len(re.findall(words, self.text(), re.M)) > n, words)


def rotate(c, words="reloaded$"):
    """Rotate, and wait until no process has the old file open."""
    os.rename(c.file, c.file + ".1")
    c.hup(words)
    wait_for(lambda: re.search(words, text_of(c.file), re.M), "the new file")
    wait_for(lambda: not any(c.file + ".1" in support.open_files(pid).values()
                             for pid in c.t.pids()), "all to let go of it")
    os.unlink(c.file + ".1")


def test_log_that_was_rotated(room, backend, mode):
    """Twice: descriptors that were passed are closed again."""
    c = Logging(room, mode, connect=backend.address)
    clients = [c.client() for _ in range(3)]
    assert all(map(is_echoed, clients))
    workers = c.t.workers()
    before = sum(len(support.open_files(pid)) for pid in workers)
    for client in clients[:2]:
        rotate(c)
        end(client)
        wait_for(lambda: " closed\n" in text_of(c.file), "its line")
    assert sum(len(support.open_files(pid)) for pid in workers) <= before
    assert is_echoed(clients[2])


def test_log_that_was_rotated_and_a_reload_that_failed(room, backend, mode):
    """Old workers also log to the new file."""
    c = Logging(room, mode, connect=backend.address)
    client = c.client()
    c.write(colour="red")
    rotate(c, "reload failed, ")
    end(client)
    wait_for(lambda: " closed\n" in text_of(c.file), "its line")
    assert is_echoed(c.client())


def test_log_that_becomes_standard_error_and_a_file_again(room, backend, mode):
    c = Logging(room, mode, connect=backend.address)
    clients = [c.client() for _ in range(2)]
    for n, log in enumerate(("stderr", c.file)):
        c.write(log=log)
        c.hup("reloaded$")
        wait_for(lambda: n == all(c.file in support.open_files(pid).values()
                                  for pid in c.t.pids()), "all to hear of it")
        end(clients[n])
    wait_for(lambda: " closed\n" in text_of(c.file), "its line")
    assert len(re.findall("^tunnel: .* closed$", c.t.log(), re.M)) == 1
    end(c.client())


def test_log_that_becomes_a_fifo(room, backend, mode):
    """Also to another FIFO of that name after the next reload."""
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
                                 for pid in c.t.pids()), "all to hear of it")
            end(client)
            wait_for(lambda: b" closed\n" in read_some(reader, lines),
                     "its line")
    assert " closed\n" not in c.text()


def read_some(reader, data):
    data += reader.read(65536) or b""
    return data


def test_log_that_becomes_syslog(room, backend, mode):
    """Old workers can't reach syslog: they keep the file."""
    c = Logging(room, mode, connect=backend.address)
    client = c.client()
    c.write(log="syslog")
    c.t.signal(signal.SIGHUP)
    wait_for(lambda: is_echoed(client) and len(c.t.workers()) > 1 - (
        mode == "fork"), "the reload")
    end(client)
    wait_for(lambda: " closed\n" in text_of(c.file), "its line")


def test_log_and_connections_that_come_afterwards(room, backend):
    """The old log's number, known to the sandbox, is no connection's."""
    c = Logging(room, "poll", connect=backend.address, log="stderr")
    clients = [c.client() for _ in range(2)]
    c.write(log=c.file, colour="red")
    c.hup("reload failed, ")
    c.write(log=c.file, colour=None)
    for _ in range(2):
        clients += [c.client() for _ in range(3)]
        c.hup(" reloaded$|: reloaded$")
        assert all(map(is_echoed, clients))


@pytest.mark.skipif(bool(support.UNDER), reason="it needs descriptors as well")
def test_log_of_many_processes(room, backend):
    """mode = fork: the master has a control channel to each, and descriptors
    for them.
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


@pytest.mark.skipif(bool(support.UNDER), reason="it needs descriptors as well")
def test_connection_with_a_high_number(room, backend):
    """mode = fork: its descriptor number in the master is above a worker's
    limit.
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


@pytest.mark.skipif(bool(support.UNDER), reason="it needs descriptors as well")
def test_workers_beside_many_processes(room, backend):
    """fork to poll: their limit is below the number of the master's channels.
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


@pytest.mark.skipif(bool(support.UNDER), reason="it needs descriptors as well")
def test_master_without_descriptors_for_lines(room, backend):
    """It pauses, and recovers."""
    t = room.tunnel("mode=fork", f"connect={backend.address}",
                    preexec_fn=few_descriptors)
    t.wait_log("warning: max_connections needs 1096 file descriptors, but the "
               "limit is 30 ")
    clients = []
    while "not accepting connections" not in t.log():
        clients.append(room.connect(t.address))
        assert len(clients) < 40
        time.sleep(0.01)  # between connections
    for sock in clients:
        sock.close()
    assert is_echoed(room.client(t))


# Connections of one address.

def refused(c):
    client = peers.Client(c.t.address, peers.context(c.room.certs))
    try:
        with pytest.raises((OSError, ssl.SSLError)):
            client.handshake()
    finally:
        client.close()
    return True


def admitted(c):
    """Connect a client when there is a free slot."""
    def one():
        client = peers.Client(c.t.address, peers.context(c.room.certs))
        try:
            client.handshake()
        except (OSError, ssl.SSLError):
            client.close()
            return None
        return c.room.keep(client)

    return wait_for(one, "room for one more")


def test_max_per_ip_counts_all_generations(configured, mode):
    """Also with another max_connections, and so another number of slots."""
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


def test_path_that_another_has_taken(room, backend):
    """The new socket is not ours and is not removed; the tunnel goes on
    without it.
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
