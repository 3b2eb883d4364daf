"""Changes of role: a server becomes a client at a reload, and back; a client
stays one over an upgrade.  Clients for local applications on a path.
"""

import os
import signal

import pytest

import support
from reloads import Configured
from support import is_echoed, serves, wait_for
from upgrades import fail, inode, refused, upgrade


@pytest.fixture
def server(room):
    """A TLS server: another tunnel."""
    backend = room.backend().serve(support.echo)
    return room.tunnel(f"connect={backend.address}")


@pytest.fixture
def client(room, certs, server):
    """A tunnel in the client role, connected to it, with a configuration file.
    """

    def call(*arguments, **values):
        given = {"client": "yes", "cert": None, "ca": certs.ca,
                 "connect": server.address} | values
        return Configured(room, *arguments, **given)

    return call


def is_plain(room, address):
    with room.connect(address) as sock:
        return is_echoed(sock)


def is_verified(room, c, certs):
    """Verification is on: with an authority other than the server's, no client
    is served.
    """
    c.reload(ca=room.write("other.pem", support.run(
        support.TUNNEL, "-g", "localhost")))
    assert support.how_it_ends(c.t.address) == (b"", "reset")
    c.reload(ca=certs.ca)
    return is_plain(room, c.t.address)


def test_server_becomes_a_client(room, certs, server):
    """And a server again, on the same address; open connections keep their
    role.
    """
    plain = room.backend().serve(support.echo)
    c = Configured(room, connect=plain.address)
    before = c.client()
    assert is_echoed(before)
    c.reload(client="yes", cert=None, ca=certs.ca, connect=server.address)
    between = room.connect(c.t.address)
    assert is_echoed(between) and is_echoed(before)
    assert is_verified(room, c, certs)
    c.reload(client="no", cert=certs.server, ca=None, connect=plain.address)
    assert serves(room, c.t.address)
    assert is_echoed(between) and is_echoed(before)
    assert c.t.log().count("listening on") == 1


@pytest.mark.parametrize("values,words", [
    ({"sni_strict": "yes"}, "sni_strict has no effect with client = yes"),
    ({"verify": "request"}, "verify = request is for client certificates"),
    ({"client": "maybe"}, 'client = "maybe" is not valid'),
    ({"client": "no", "ca": None}, "missing: cert"),
])
def test_refused_reload(room, client, values, words):
    """The client continues unchanged."""
    c = client()
    assert words in c.refuse(**values)
    assert is_plain(room, c.t.address)


def test_no_verification_is_warned_of(room, client):
    """At the start, and at a reload that turns verification off."""
    told = "verify: the server is not authenticated"
    c = client()
    assert told not in c.t.log()
    lines = c.reload(ca=None, verify="none")
    assert any(told in x for x in lines)
    assert is_plain(room, c.t.address)


@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_client_is_upgraded(room, program, client, certs, mode):
    c = client(mode)
    sock = room.connect(c.t.address)
    assert is_echoed(sock)
    old = inode(c.t)
    program.put()
    upgrade(c.t)
    assert program.runs_in(c.t) and inode(c.t) != old
    assert is_echoed(sock) and is_plain(room, c.t.address)
    assert is_verified(room, c, certs)


def test_failed_upgrade_of_a_client(room, program, client, certs):
    """It gets its configuration back, with the defaults of the client role."""
    c = client()
    sock = room.connect(c.t.address)
    assert is_echoed(sock)
    why = fail(room, program, "another version")
    assert why in refused(c.t)
    assert is_echoed(sock) and is_plain(room, c.t.address)
    program.put()
    upgrade(c.t)
    assert is_verified(room, c, certs)


@pytest.mark.parametrize("mode", ["workers=1", "mode=fork"])
def test_client_on_a_path(room, client, mode):
    """For local applications, limited by the modes of directory and socket."""
    path = room.path("redis.sock")
    c = client(mode, accept=f"unix:{path}")
    assert is_plain(room, f"unix:{path}")
    c.t.wait_log(r"unix:\S* -> \S+ TLSv1\.3 ")
    c.reload()
    assert is_plain(room, f"unix:{path}")
    assert c.t.stop() == 0
    assert not os.path.exists(path)


def test_client_of_a_server_on_a_path(room, certs):
    """server_name is required, because a path contains no name."""
    path = room.path("tls.sock")
    backend = room.backend().serve(support.echo)
    room.tunnel(f"accept=unix:{path}", f"connect={backend.address}")
    t = room.tunnel("client=yes", f"ca={certs.ca}", f"connect=unix:{path}",
                    "server_name=localhost")
    assert is_plain(room, t.address)
    t = room.tunnel("client=yes", f"ca={certs.ca}", f"connect=unix:{path}",
                    "server_name=other.example.org")
    assert support.how_it_ends(t.address) == (b"", "reset")


def test_client_stops(room, client):
    """Its connections may finish, as in the server role."""
    c = client()
    sock = room.connect(c.t.address)
    assert is_echoed(sock)
    c.t.signal(signal.SIGTERM)
    c.t.wait_log("draining")
    assert is_echoed(sock)
    sock.close()
    wait_for(lambda: not c.t.alive(), "the end")
