"""Exhausted resources, such as descriptors, processes and memory: the tunnel
recovers as soon as they are available, and other connections go on.
"""

import os
import resource
import shutil
import ssl
import tempfile
import time

import pytest

import peers
import support
from crowds import (crowd, ended, greet, greet_when_let, is_fork, is_served,
                    uses_no_cpu)
from support import read_exactly


def limit(pids, what, value):
    """Set a limit on a running process, and restore it later."""
    for pid in pids:
        hard = resource.prlimit(pid, what)[1]
        resource.prlimit(pid, what, (value, hard))


def accepting(t, way):
    """Return the processes that accept."""
    return [t.pid] if is_fork(way) else t.workers()


def waits_for_room(t, first):
    """Check that no client is served until resources are available; then the
    first is.
    """
    waiting = support.Task(greet_when_let, first)
    t.wait_log("not accepting connections: ")
    uses_no_cpu(t)
    assert waiting.running()
    return waiting


def test_descriptors_return(room, start, way):
    """The tunnel learns of free descriptors only because the limit is raised.
    """
    t = start()
    stays = is_served(room, t.address)
    for pid in accepting(t, way):
        limit([pid], resource.RLIMIT_NOFILE, lowest_free(pid))
    client = room.keep(peers.Client(
        t.address, peers.context(room.certs)))
    waiting = waits_for_room(t, client)
    t.wait_log(f"not accepting connections: {support.NO_DESCRIPTORS}$")
    greet(stays)
    limit(accepting(t, way), resource.RLIMIT_NOFILE, 1000)
    waiting.result()
    pauses = t.log().count("not accepting connections")
    assert pauses <= len(accepting(t, way))
    is_served(room, t.address)


def lowest_free(pid):
    used = set(map(int, os.listdir(f"/proc/{pid}/fd")))
    return min(set(range(len(used) + 1)) - used)


def test_crowd_beyond_the_descriptors(room, start, way):
    """The descriptors suffice for some clients at once, and for others later.
    """
    t = start(preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_NOFILE, (24, 24)))
    some = crowd(room, t.address, 150)
    t.wait_log(f"not accepting connections: {support.NO_DESCRIPTORS}$")
    uses_no_cpu(t)
    for sock in some:
        sock.close()
    is_served(room, t.address)


# A user id without processes, also of other test runs.
USER = 61000 + os.getpid() % 4000


@pytest.fixture
def as_user(room, backend):
    """Start a tunnel that never was root."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    directory = tempfile.mkdtemp(prefix="tunnel-user.")
    os.chmod(directory, 0o755)
    pem = shutil.copy(room.certs.server, directory)
    os.chown(pem, USER, USER)
    backend.serve(support.echo)

    def call(*arguments, **keywords):
        try:
            support.run(support.TUNNEL, "-V", user=USER)
        except PermissionError:
            pytest.skip("another user can't run the program where it is")
        return room.tunnel(f"connect={backend.address}", f"cert={pem}",
                           *arguments, user=USER, group=USER,
                           extra_groups=[], **keywords)

    yield call
    shutil.rmtree(directory)


@pytest.mark.skipif(support.SANITIZED, reason="LeakSanitizer needs a process "
                    "for each that ends")
def test_out_of_processes(room, as_user):
    """In fork mode new clients wait, and are served in the end."""
    t = as_user("mode=fork", preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_NPROC, (4, 4)))
    clients = [greet(room.client(t)) for _ in range(3)]
    waiting = waits_for_room(t, room.keep(peers.Client(
        t.address, peers.context(room.certs))))
    assert len(t.workers()) == 3
    assert greet(clients[1])
    clients[0].close()
    waiting.result()


@support.not_plain_4
@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                    reason="these need memory of their own")
def test_out_of_memory(room, start, way):
    """A client without memory is refused; no process dies, and with memory
    available all works again.
    """
    if is_fork(way):
        pytest.skip("a child that finds none affects itself alone")
    t = start()
    stays = is_served(room, t.address)
    workers = t.workers()
    for pid in workers:
        limit([pid], resource.RLIMIT_AS, address_space(pid) + (1 << 18))
    some = crowd(room, t.address, 300)
    support.wait_for(lambda: ended(some) or
                     "not accepting connections" in t.log(),
                     "memory to run out")
    uses_no_cpu(t)
    greet(stays)
    for sock in some:
        sock.close()
    limit(workers, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    is_served(room, t.address)
    assert t.workers() == workers


def address_space(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


# Descriptors.

def no_more_than(descriptors):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE,
                                      (descriptors, descriptors))


def test_out_of_descriptors(room, backend):
    """Accepting pauses without using CPU time, and recovers."""
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "workers=1",
                    preexec_fn=no_more_than(20))
    t.wait_log("warning: max_connections needs")
    crowd = [support.connect(t.address) for _ in range(40)]
    t.wait_log(f"warning: not accepting connections: {support.NO_DESCRIPTORS}")
    before = t.cpu_seconds()
    time.sleep(1)  # time to measure
    assert t.cpu_seconds() - before <= 0.03 * support.SLOW
    for sock in crowd:
        sock.close()
    client = room.client(t)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    assert t.log().count("not accepting connections") == 1


def test_out_of_descriptors_with_many_listeners(room, backend):
    """poll(2) accepts no more entries than the limit of descriptors."""
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", "workers=1",
                    *["accept=127.0.0.1:0"] * 12,
                    preexec_fn=no_more_than(48))
    served = []
    for _ in range(9):
        served.append(client := room.client(t))
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
    crowd = [room.connect(t.address) for _ in range(30)]
    t.wait_log(f"warning: not accepting connections: {support.NO_DESCRIPTORS}")
    for sock in crowd:
        sock.close()
    for client in [*served, room.client(t)]:
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
    assert " exited with status" not in t.log()


def test_out_of_descriptors_for_the_backend(room, backend):
    """The client gets an alert, and the next one is served."""
    backend.serve(support.echo)
    # An odd number: the last client has a descriptor, its backend none.
    t = room.tunnel(f"connect={backend.address}", "workers=1",
                    preexec_fn=no_more_than(11))
    idle = []
    while True:
        try:
            client = room.client(t)
        except (OSError, ssl.SSLError):
            break
        client.send(b"hello")
        if client.recv() != b"hello":
            assert client.end == "TLSV1_ALERT_INTERNAL_ERROR"
            break
        idle.append(client)
        assert len(idle) < 9
    t.wait_log(support.NO_DESCRIPTORS)
    for client in [*idle, client]:
        client.close()
    client = room.client(t)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
