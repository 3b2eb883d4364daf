"""Large transfers, and checks of their contents."""

import hashlib
import random

import peers
from support import read_exactly

BLOCK = random.Random(2).randbytes(1000003)  # prime: no two records are alike


def blocks(size):
    view = memoryview(BLOCK)
    while size > 0:
        yield view[:min(size, len(view))]
        size -= len(view)


def digest_of(size):
    digest = hashlib.sha256()
    for block in blocks(size):
        digest.update(block)
    return digest.hexdigest()


def send(peer, size):
    """Send; peer, here and below: a socket or a Client."""
    write = peer.send if isinstance(peer, peers.Client) else peer.sendall
    for block in blocks(size):
        write(block)


def receive(peer, size):
    digest = hashlib.sha256()
    while size > 0:
        data = peer.recv(min(size, 1 << 18))
        assert data, f"ended with {size} bytes missing"
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


def echo_at_once(room, t, count):
    """Clients of both versions, all open before the first one sends."""
    clients = [room.client(t, ("1.2", "1.3")[i % 2]) for i in range(count)]
    for i, client in enumerate(clients):
        client.send(BLOCK[i:i + 50000])
    for i, client in enumerate(clients):
        assert read_exactly(client, 50000) == BLOCK[i:i + 50000]
    for client in clients:
        client.close_notify()
        assert client.read_all() == (b"", "close_notify")
    return clients


class Dribble:
    """A socket that sends one byte at a time."""

    def __init__(self, sock):
        self.sock = sock

    def sendall(self, data):
        for i in range(len(data)):
            self.sock.sendall(data[i:i + 1])

    def __getattr__(self, name):
        return getattr(self.sock, name)
