"""Clients that reconnect with a session and its ticket."""

import os
import ssl
import time

import pytest

import peers
import support
from reloads import Configured
from support import end, is_echoed, run
from wire import Hello

LATE = 1.0 * support.SLOW  # tolerance for lateness
LIFETIME = 3  # seconds, for sessions and for keys; keys rotate at half of it
# The version, and whether the client supports tickets.
KINDS = {"ticket-1.2": ("1.2", True), "ticket-1.3": ("1.3", True),
         "id-1.2": ("1.2", False)}
TICKETS = list(KINDS)[:2]


def newcomer(certs, kind, **keywords):
    """The context of a client without a session."""
    version, tickets = KINDS[kind]
    return peers.context(certs, version, tickets=tickets, **keywords)


def somebody(who, to=None):
    """A client. who: a context, or a session."""
    if isinstance(who, peers.Session):
        return peers.Client(to, None, session=who)
    return peers.Client(to, who)


def visit(to, who):
    """A complete connection with one echoed word; returns the client. who: a
    context, a session, or a client that has not connected yet.
    """
    client = who if isinstance(who, peers.Client) else somebody(who)
    client.sock = support.connect(to)
    with client.sock:
        client.handshake()
        assert is_echoed(client)
        end(client)
    return client


def is_resumed(to, who):
    return visit(to, who).resumed


def prepare(session):
    """A client whose ClientHello is written now, because OpenSSL does not
    offer an expired session.
    """
    client = somebody(session)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    return client


def ends_in_time(kind, certs, to, elsewhere=None):
    """A session expires in time, and then is never resumed again."""
    session = visit(to, newcomer(certs, kind)).session
    clients = iter([prepare(session) for _ in range(200)])
    begin = last = time.monotonic()
    for client in clients:
        if not is_resumed(elsewhere or to, client):
            break
        last = time.monotonic()
        assert last - begin < LIFETIME + LATE
        time.sleep(0.05)  # pacing of the clients
    assert last - begin > LIFETIME / 2 - LATE
    for _ in range(5):
        assert not is_resumed(elsewhere or to, next(clients))


def new_key():
    return run(support.TUNNEL, "-k").decode().strip()


class Rotated:
    """A tunnel with rotated ticket keys."""

    def __init__(self, room, backend, *arguments, **values):
        self.room = room
        self.path = room.path("keys")
        self.write(new_key())
        self.c = Configured(room, *arguments, connect=backend.address,
                            ticket_keys=self.path, **values)

    def write(self, *keys):
        self.keys = keys
        os.rename(self.room.write("new keys", "\n".join(keys) + "\n"),
                  self.path)
        os.chmod(self.path, 0o600)

    def rotate(self, *keys):
        self.write(*keys)
        self.c.reload()

    def visit(self, who):
        return visit(self.c.t.address, who)


# Only root can inspect a sandboxed process.
LOOKED_INTO = ["sandbox=no"] if os.geteuid() != 0 else []


def hello_of(session):
    return Hello(prepare(session).outgoing.read())


def assert_shared(certs, ticket, a, b):
    """Each tunnel resumes the other's sessions, repeatedly."""
    for here, there in (a, b), (b, a):
        session = visit(here, newcomer(certs, ticket)).session
        for to in there, here, there:
            assert is_resumed(to, session)
        renewed = visit(there, session).session
        for to in here, there:
            assert is_resumed(to, renewed)
