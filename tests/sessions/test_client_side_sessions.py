"""As a client, the tunnel resumes the sessions of each server only with that
server; in TLS 1.3 each ticket is used once.
"""

import re
import socket
import ssl
import time

import pytest

import support
from certificates import Authority
from peers import VERSIONS
from reloads import Configured
from resuming import KINDS, LATE, LIFETIME
from support import Task, need, read_exactly, wait_for
from upgrades import upgrade
from wire import PSK, TICKET, Hello

NO_EXTENDED_MASTER_SECRET = 1  # SSL_OP_NO_EXTENDED_MASTER_SECRET
SERVER = "serverAuth"


def peek_hello(sock):
    """Return the client's first record, and leave it in the socket."""
    def head():
        data = sock.recv(1 << 14, socket.MSG_PEEK)
        size = 5 + int.from_bytes(data[3:5], "big")
        return data[:size] if len(data) >= size or not data else None

    return wait_for(head, "a hello")


class Offer:
    """The sessions that a client's hello offers."""

    def __init__(self, data):
        hello = Hello(data)
        self.is_13 = PSK in hello.extensions
        self.ticket = hello.ticket if self.is_13 else \
            hello.extensions.get(TICKET, b"")
        self.id = hello.id

    def __bool__(self):
        return bool(self.ticket)


def server_context(pem, kind="ticket-1.3"):
    version, tickets = KINDS[kind]
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ctx.load_cert_chain(pem)
    ctx.minimum_version = ctx.maximum_version = VERSIONS[version]
    if not tickets:
        ctx.options |= ssl.OP_NO_TICKET
    return ctx


class Server:
    """An echo server that reports the offered sessions, and whether one was
    resumed.  Its context may be changed.
    """

    def __init__(self, room, pem=None, kind="ticket-1.3"):
        self.pem, self.kind = pem or room.certs.server, kind
        self.restart()
        self.offers, self.resumed = [], []
        self.hangs_up = self.waits = False
        self.backend = room.backend().serve(self.serve)
        self.port = self.backend.sock.getsockname()[1]
        self.address = f"localhost:{self.port}"

    def restart(self, kind=None):
        """Make a new context: all sessions of the old one are lost."""
        self.ctx = server_context(self.pem, kind or self.kind)

    def serve(self, sock):
        self.offers.append(Offer(peek_hello(sock)))
        if self.hangs_up:
            return
        if self.waits:
            support.read_all(sock)
            return
        try:
            tls = self.ctx.wrap_socket(sock, server_side=True)
        except (ssl.SSLError, OSError):
            return
        with tls:
            self.resumed.append(tls.session_reused)
            support.echo(tls)
            try:
                tls.unwrap()
            except (ssl.SSLError, OSError):
                pass

    @property
    def tickets(self):
        return [offer.ticket for offer in self.offers if offer]


@pytest.fixture
def server(room):
    return Server(room)


@pytest.fixture
def either(room, kind):
    """A server for each kind of session."""
    return Server(room, kind=kind)


def arguments(room, *servers):
    return ["client=yes", f"ca={room.certs.ca}",
            *(f"connect={server.address}" for server in servers)]


@pytest.fixture
def near(room):
    """Start the tunnel in front of servers."""
    return lambda *servers, more=(): room.tunnel(
        *arguments(room, *servers), *more)


def talk(address):
    """Use a connection to its end."""
    with support.connect(address) as sock:
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        sock.shutdown(socket.SHUT_WR)
        assert support.read_all(sock) == (b"", "eof")


def is_served(address):
    try:
        talk(address)
    except (AssertionError, OSError):
        return False
    return True


def is_resumed(t):
    """Use a connection; return whether its log line says that it was resumed.
    """
    count = len(re.findall(" closed$", t.log(), re.M))
    talk(t.address)
    return " resumed " in t.wait_log(" closed$", count + 1)


def test_resumed(near, either, kind, mode):
    """All processes resume it, and both sides report it."""
    t = near(either, more=[mode])
    assert [is_resumed(t) for _ in range(6)] == [False] + 5 * [True]
    assert either.resumed == [False] + 5 * [True]
    line = t.wait_log(" closed$", 6)
    version = KINDS[kind][0]
    group = "x25519 " if version == "1.3" else ""
    assert re.search(rf" TLSv{version} TLS_\w+ {group}resumed sni=localhost "
                     r'server="O=tunnel, CN=server" in=5 out=5 ', line), line


def test_behind_a_hello_retry_request(near, server):
    """RFC 8446 section 4.1.4: the second hello offers the same session."""
    server.ctx.set_ecdh_curve("prime256v1")
    t = near(server)
    assert [is_resumed(t) for _ in range(3)] == [False, True, True]
    assert server.resumed == [False, True, True]
    assert re.search(r" TLS_\w+ secp256r1 resumed ",
                     t.wait_log(" closed$", 3))


def test_every_ticket_is_used_once(near, server, mode):
    t = near(server, more=[mode])
    for _ in range(3):
        talk(t.address)
    for _ in range(6):
        clients = [Task(talk, t.address) for _ in range(8)]
        for client in clients:
            client.result()
    assert len(server.tickets) > 10
    assert len(set(server.tickets)) == len(server.tickets)
    assert len(server.resumed) == 51
    assert sum(server.resumed) == len(server.tickets)


def test_few_are_kept(near, server):
    server.ctx.num_tickets = 200
    t = near(server)
    assert not is_resumed(t)
    server.ctx.num_tickets = 0
    assert [is_resumed(t) for _ in range(6)] == 4 * [True] + 2 * [False]
    assert len(set(server.tickets)) == 4


def test_used_until_it_is_resumed_no_more(room, near):
    """In TLS 1.2 a session can be used several times."""
    server = Server(room, kind="ticket-1.2")
    t = near(server, more=["workers=4"])
    talk(t.address)
    clients = [Task(talk, t.address) for _ in range(8)]
    for client in clients:
        client.result()
    assert server.resumed == [False] + 8 * [True]


def test_servers_are_told_apart(room, near, kind):
    servers = [Server(room, kind=kind) for _ in range(3)]
    t = near(*servers)
    assert [is_resumed(t) for _ in range(9)] == 3 * [False] + 6 * [True]
    offered = [set(server.tickets) for server in servers]
    assert not offered[0] & offered[1] | offered[1] & offered[2]
    assert [server.resumed for server in servers] == 3 * [[False, True, True]]


def test_server_restarted(near, either):
    t = near(either)
    assert not is_resumed(t)
    assert is_resumed(t)
    either.restart()
    assert not is_resumed(t)
    is_resumed(t)  # in TLS 1.2 it may have another version
    assert is_resumed(t)


@pytest.mark.parametrize("before, after", [("ticket-1.3", "ticket-1.2"),
                                           ("ticket-1.2", "ticket-1.3")])
def test_server_of_another_version(room, near, before, after):
    """The offered session sets the library's version: one handshake fails."""
    server = Server(room, kind=before)
    t = near(server)
    assert not is_resumed(t)
    server.restart(after)
    is_served(t.address)
    assert not is_resumed(t)
    assert is_resumed(t)


def test_server_that_learns_another_version(room, near):
    """The client does not keep to TLS 1.2 for ever."""
    server = Server(room, kind="ticket-1.2")
    t = near(server)
    assert not is_resumed(t)
    assert is_resumed(t)
    server.restart()
    server.ctx.maximum_version = VERSIONS["1.3"]
    assert not is_resumed(t)
    assert not is_resumed(t)
    assert " TLSv1.3 " in t.wait_log(" closed$", 4)
    assert is_resumed(t)


def test_forgotten_after_a_failure(room, near, kind):
    server = Server(room, kind=kind)
    t = near(server)
    talk(t.address)
    server.hangs_up = True
    assert not is_served(t.address)
    server.hangs_up = False
    assert not is_resumed(t)
    assert is_resumed(t)


def test_kept_though_an_application_leaves(near, either):
    """The server is not the cause, so the session is kept."""
    t = near(either)
    talk(t.address)
    either.waits = True
    with support.connect(t.address) as app:
        support.wait_for(lambda: len(either.offers) == 2, "the hello")
        support.reset(app)
    t.wait_log(" client reset$")
    either.waits = False
    assert is_resumed(t)


@pytest.mark.parametrize("how", ["session_tickets=no", "session_cache=off"])
def test_none_are_kept(near, either, how):
    t = near(either, more=[how])
    assert not any(is_resumed(t) for _ in range(3))
    assert either.tickets == []


def test_too_old(near, either):
    t = near(either, more=[f"ticket_lifetime={LIFETIME}s"])
    begin = last = time.monotonic()
    assert not is_resumed(t)
    while is_resumed(t):
        last = time.monotonic()
        assert last - begin < LIFETIME + LATE
        time.sleep(0.05)  # between visits
    assert last - begin > LIFETIME / 2 - LATE


def test_as_old_as_its_server_lets_it(room, near, version):
    """It is offered until the server's lifetime hint, and not later.  A TLS
    1.3 ticket may then appear in the TLS 1.2 extension, without effect.
    """
    inner = room.backend().serve(support.echo)
    far = room.tunnel(f"connect={inner.address}", "ticket_lifetime=2s",
                      f"tls_max={version}")
    offers = []

    def pass_on(sock):
        offers.append(Offer(peek_hello(sock)))
        with support.connect(far.address) as to:
            back = Task(pump, to, sock)
            pump(sock, to)
            back.result()

    relay = room.backend().serve(pass_on)
    relay.address = f"localhost:{relay.sock.getsockname()[1]}"
    t = near(relay)
    assert not is_resumed(t)
    assert is_resumed(t)
    assert offers[-1]
    time.sleep(2)  # which makes it too old in any case
    assert not is_resumed(t)
    assert not offers[-1].is_13 and (version == "1.3" or not offers[-1])


def pump(source, to):
    try:
        while data := source.recv(1 << 16):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_without_extended_master_secret(room, near):
    """RFC 7627 section 5.3."""
    server = Server(room, kind="ticket-1.2")
    server.ctx.options |= NO_EXTENDED_MASTER_SECRET
    t = near(server)
    assert not any(is_resumed(t) for _ in range(3))
    assert server.tickets == []


# The current configuration decides.

@pytest.fixture
def renewed(room, kind):
    """A server with a certificate for two names by its own authority; the
    authority; and a tunnel in front of it whose configuration changes.
    """
    ours = Authority(room.dir, "Server CA")
    pem = ours.leaf("server", usage=SERVER,
                    san="DNS:localhost, DNS:a.example, DNS:b.example")
    server = Server(room, pem, kind)
    c = Configured(room, client="yes", ca=ours.crt, connect=server.address)
    assert not is_resumed(c.t)
    assert is_resumed(c.t)
    return server, ours, c


def test_after_a_reload(renewed):
    _, _, c = renewed
    c.reload(connect_timeout="7s")
    assert is_resumed(c.t)


def test_another_name(renewed):
    server, _, c = renewed
    c.reload(server_name="a.example")
    assert not is_resumed(c.t)
    assert is_resumed(c.t)
    c.reload(server_name="b.example")
    assert not is_resumed(c.t)
    c.reload(server_name="a.example")
    assert is_resumed(c.t)


def test_another_authority(room, renewed):
    server, ours, c = renewed
    other = Authority(room.dir, "Other CA")
    c.reload(ca=other.crt)
    assert not is_served(c.t.address)
    assert not server.offers[-1]
    c.t.wait_log('unknown issuer "CN=Server CA"')


def test_revoked(room, renewed):
    server, ours, c = renewed
    c.reload(crl=ours.crl(server.pem))
    assert not is_served(c.t.address)
    assert not server.offers[-1]
    c.t.wait_log("revoked")


def test_another_rule(renewed):
    server, _, c = renewed
    c.reload(peer="dns:a.example")
    assert is_resumed(c.t)
    c.reload(peer="dns:c.example")
    assert not is_served(c.t.address)
    assert not server.offers[-1]


def test_not_verified_before(room, kind):
    """An unverified session is not used where verification is required."""
    server = Server(room, kind=kind)
    c = Configured(room, client="yes", verify="none", connect=server.address)
    assert not is_resumed(c.t)
    assert is_resumed(c.t)
    c.reload(verify="require", ca=room.certs.ca)
    assert not is_resumed(c.t)
    assert not server.offers[-1]
    assert is_resumed(c.t)


def test_another_certificate_of_ours(room, authority, renewed):
    """Our own certificate is part of a session."""
    server, _, c = renewed
    c.reload(cert=authority.leaf("app1"))
    assert not is_resumed(c.t)
    assert is_resumed(c.t)


def test_suite_that_is_no_longer_configured(room):
    server = Server(room, kind="ticket-1.3")
    c = Configured(room, client="yes", ca=room.certs.ca,
                   connect=server.address,
                   ciphers="TLS_AES_128_GCM_SHA256")
    assert not is_resumed(c.t)
    assert is_resumed(c.t)
    c.reload(ciphers="TLS_CHACHA20_POLY1305_SHA256")
    assert not is_resumed(c.t)
    assert not server.offers[-1]


def test_after_an_upgrade(near, either):
    t = near(either)
    assert not is_resumed(t)
    assert is_resumed(t)
    upgrade(t)
    assert is_resumed(t)


# Other servers.

def openssl(room, port, *more):
    return ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert",
            room.certs.server, "-rev", "-quiet", *more]


def gnutls(room, port, *more):
    return [need("gnutls-serv"), "--echo", "-p", str(port), "--x509keyfile",
            room.certs.server, "--x509certfile", room.certs.server, *more]


def own(room, port, *more):
    return [support.TUNNEL, f"accept=127.0.0.1:{port}",
            f"cert={room.certs.server}", "--", "cat", *more]


@pytest.mark.parametrize("tls_max", ["1.2", "1.3"])
@pytest.mark.parametrize("program", [openssl, gnutls, own])
def test_real_server(room, program, tls_max):
    address = support.free_port()
    port = address.rpartition(":")[2]
    room.start("server", program(room, port))
    wait_for(lambda: not support.is_refused(address), "the server")
    t = room.tunnel("client=yes", f"ca={room.certs.ca}",
                    f"connect=localhost:{port}", f"tls_max={tls_max}")
    lines = []
    for n in range(4):
        with support.connect(t.address) as sock:
            sock.sendall(b"hello\n")
            assert len(read_exactly(sock, 6)) == 6
        lines.append(t.wait_log(r" in=\d+ out=\d+ ", n + 1))
    assert [" resumed " in line for line in lines] == [False] + 3 * [True], \
        lines
    assert f"TLSv{tls_max}" in lines[-1]


def test_server_of_ours_that_verifies_clients(room, authority, backend,
                                              version):
    """Both sides verify each other's certificates again."""
    far = room.tunnel(f"connect={backend.address}", "verify=require",
                      f"ca={authority.crt}", f"tls_max={version}")
    t = room.tunnel("client=yes", f"ca={room.certs.ca}",
                    f"cert={authority.leaf('app1')}",
                    "connect=localhost:" + far.address.rpartition(":")[2])
    assert [is_resumed(t) for _ in range(4)] == [False] + 3 * [True]
    assert ' resumed sni=localhost client="CN=app1" ' in \
        far.wait_log(" closed$", 4)
