"""A stop: connections already in the kernel's accept queue are served."""

import os
import select
import signal
import socket
import ssl

import pytest

import support
from support import Task, wait_for

CLIENTS = 12  # more than are accepted in one round


@pytest.fixture
def echoing(room):
    return room.backend().serve(support.echo)


def has_pending(pid, number):
    """Whether a process has this signal pending."""
    with open(f"/proc/{pid}/status") as f:
        mask = next(line.split()[1] for line in f
                    if line.startswith("ShdPnd:"))
    return int(mask, 16) >> (number - 1) & 1


class Frozen:
    """A stopped tunnel: its processes accept nothing, its listeners queue."""

    def __init__(self, t):
        self.t, self.workers = t, t.workers()
        for pid in t.pids():
            # If running, it might accept once more before it handles a signal.
            wait_for(lambda: support.state(pid) == "S", f"{pid} to sleep")
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: support.state(pid) == "T", f"{pid} to stop")

    def thaw_after(self, number):
        """Send the signal to all processes first, then let them continue."""
        self.t.signal(number)
        self.t.signal(signal.SIGCONT)
        for pid in self.workers:
            wait_for(lambda: has_pending(pid, signal.SIGHUP),
                     "the signal to the worker")
        for pid in self.workers:
            os.kill(pid, signal.SIGCONT)


def echoes(room, sock):
    client = room.client(sock)
    client.send(b"hello")
    assert support.read_exactly(client, 5) == b"hello"
    client.close_notify()
    return client.read_all()


@pytest.mark.parametrize("where", ["127.0.0.1:0", "unix"])
@pytest.mark.parametrize("mode", ["workers=1", "workers=3", "mode=fork"])
def test_queued_connections_are_served_at_a_stop(room, echoing, mode, where):
    """On each of two listeners."""
    two = [f"unix:{room.path(name)}" for name in "ab"] if where == "unix" \
        else [where] * 2
    t = room.tunnel(f"connect={echoing.address}", mode, "drain_timeout=30s",
                    *(f"accept={address}" for address in two))
    frozen = Frozen(t)
    waiting = [room.connect(t.addresses[i % 2]) for i in range(CLIENTS)]
    frozen.thaw_after(signal.SIGTERM)
    tasks = [Task(echoes, room, sock) for sock in waiting]
    for task in tasks:
        assert task.result() == (b"", "close_notify")
    assert t.wait() == 0
    assert all(support.is_refused(address) for address in t.addresses)


@pytest.mark.parametrize("mode", ["workers=1", "mode=fork"])
def test_stop_serves_up_to_max_connections(room, echoing, mode):
    t = room.tunnel(f"connect={echoing.address}", mode, "max_connections=3")
    first = room.client(t)
    first.send(b"hello")
    assert support.read_exactly(first, 5) == b"hello"
    frozen = Frozen(t)
    waiting = [room.connect(t.address) for _ in range(5)]
    frozen.thaw_after(signal.SIGTERM)
    for sock in waiting[:2]:
        assert echoes(room, sock) == (b"", "close_notify")
    for sock in waiting[2:]:
        assert support.read_all(sock) == (b"", "reset")
    first.close_notify()
    assert first.read_all() == (b"", "close_notify")
    assert t.wait() == 0


@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_queue_of_an_inherited_listener_is_left(room, echoing, mode):
    """Its owner can continue to use the listener."""
    listener = room.keep(socket.create_server(("127.0.0.1", 0)))
    t = room.tunnel(f"connect={echoing.address}", mode, "accept=fd:9",
                    preexec_fn=lambda: os.dup2(listener.fileno(), 9),
                    close_fds=False)
    frozen = Frozen(t)
    waiting = room.connect(t.address)
    frozen.thaw_after(signal.SIGTERM)
    assert t.wait() == 0
    assert select.select([listener], [], [], 0)[0] == [listener]
    room.keep(listener.accept()[0]).sendall(b"later")
    assert support.read_exactly(waiting, 5) == b"later"


@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_reload_leaves_the_queue_to_the_new_generation(room, echoing, certs,
                                                       mode):
    """Otherwise queued clients would get the old certificate."""
    path = room.path("server.pem")
    support.shutil.copy(certs.rsa, path)
    t = room.tunnel(f"connect={echoing.address}", mode, f"cert={path}")
    frozen = Frozen(t)
    waiting = [room.connect(t.address) for _ in range(CLIENTS)]
    support.shutil.copy(certs.server, path)
    frozen.thaw_after(signal.SIGHUP)
    with open(certs.server) as f:
        renewed = ssl.PEM_cert_to_DER_cert(f.read().partition("-----BEGIN P")[0])
    for sock in waiting:
        assert room.client(sock).tls.getpeercert(True) == renewed
