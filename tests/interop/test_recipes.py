"""The commands in the manuals do what the text says."""

import os
import re
import ssl
import stat

import pytest

import peers
import proxy
import support
from documents import displays
from support import read_exactly, run


# Directories stand for other hosts and for /etc/tunnel; a reload becomes a
# line in a file.
STUBS = {
    "tunnel": f'exec {support.TUNNEL} "$@"',
    "systemctl": 'echo "$*" >> reloads',
    "scp": '[ "$1" = -pq ] && cp -p "$2" "$ROOT/${3%%:*}/${3##*/}"',
    "ssh": 'cd "$ROOT/$1" && sh -ec "$(echo "$2" | sed "s,$ROOT/etc,.,")"',
}


@pytest.fixture
def shell(room):
    """Run such a script in the private directory; return its output."""
    os.mkdir(room.path("bin"))
    for name, text in STUBS.items():
        os.chmod(room.write(f"bin/{name}", f"#!/bin/sh\n{text}\n"), 0o755)
    for name in "etc", "a.example.org", "b.example.org":
        os.mkdir(room.path(name))
    environment = {**os.environ, "ROOT": room.dir,
                   "PATH": room.path("bin") + ":" + os.environ["PATH"]}

    def call(script):
        script = script.replace("/etc/tunnel", room.path("etc"))
        return run("sh", "-euc", script, cwd=room.dir,
                   env=environment).decode()

    return call


# Client certificates.

@pytest.fixture
def made(shell):
    """Run all commands of the section; return the output of the one that
    prints a pin.
    """
    make, use, pin, revoke = displays("tunnel-certificates.7",
                                      "CLIENT CERTIFICATES")
    assert "verify=require ca=ca.pem" in use and "--cert app1.pem" in use
    shell(make)
    told = shell(pin).split()[-1]
    return lambda: shell(revoke), told


def visit(room, t, version, *chain):
    """Echo with this client certificate, if any."""
    ctx = peers.context(room.certs, version)
    if chain:
        ctx.load_cert_chain(*map(room.path, chain))
    client = room.keep(peers.Client(t.address, ctx)).handshake()
    client.send(b"hello")
    data = read_exactly(client, 5)
    client.close()
    return data


def is_refused(room, t, version, *chain):
    try:
        visit(room, t, version, *chain)
    except (ssl.SSLError, AssertionError, ConnectionError):
        return True
    return False


@pytest.fixture
def echo(room):
    backend = room.backend().serve(support.echo)
    return lambda *words: room.tunnel(f"connect={backend.address}", *words)


def test_certificate_by_an_authority(room, echo, made, version):
    t = echo("verify=require", f"ca={room.path('ca.pem')}")
    assert visit(room, t, version, "app1.pem") == b"hello"
    t.wait_log(' client="CN=app1" ')
    assert is_refused(room, t, version)
    t.wait_log("no client certificate$")
    assert is_refused(room, t, version, "admin.crt", "admin.key")


def test_pinned_key(room, echo, made, version):
    t = echo("verify=require", f"peer=pin:sha256/{made[1]}")
    assert visit(room, t, version, "admin.crt", "admin.key") == b"hello"
    t.wait_log(' client="CN=admin" ')
    assert is_refused(room, t, version, "app1.pem")


def test_revocation(room, echo, made, version):
    made[0]()
    t = echo("verify=request", f"ca={room.path('ca.pem')}",
             f"crl={room.path('crl.pem')}")
    assert is_refused(room, t, version, "app1.pem")
    t.wait_log('client certificate "CN=app1": revoked$')
    assert visit(room, t, version) == b"hello"
    assert "warning: crl" not in t.log()


# Ticket keys.

def keys(room, where):
    path = room.path(where)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as f:
        lines = f.read().splitlines()
    assert all(re.fullmatch("[0-9a-f]{64}", line) for line in lines)
    return lines


def begun(room, shell, begin):
    """The file made as in the manual; a tunnel starts with it."""
    shell(begin)
    run(support.TUNNEL, "-t", "accept=0", "connect=1",
        f"cert={room.certs.server}",
        f"ticket_keys={room.path('etc/tickets')}")
    return keys(room, "etc/tickets")


def test_keys_of_one_machine(room, shell):
    """Repeated rotations, even if one was interrupted."""
    first = begun(room, shell,
                  displays("tunnel-tls.7", "SESSIONS")[0].splitlines()[0])
    assert len(first) == 1
    rotate = displays("tunnel.8", "TICKET KEYS")[0]
    room.write("etc/new", "half of a file")
    for count in range(1, 4):
        shell(rotate)
        now = keys(room, "etc/tickets")
        assert len(now) == 2 and now[1] == first[0] and now[0] not in first
        assert support.text_of(room.path("etc/reloads")) == \
            "reload tunnel\n" * count
        first = now


def test_keys_of_several_machines(room, shell):
    """All hosts encrypt with a key that all had before the rotation, and still
    decrypt with the previous one.
    """
    begin, rotate = displays("tunnel.8", "TICKET KEYS")[1:]
    before = begun(room, shell, begin)
    assert len(set(before)) == 3
    for count in range(1, 4):
        shell(rotate)
        now = keys(room, "a.example.org/tickets")
        assert now == keys(room, "b.example.org/tickets")
        assert now[0] == before[1] and now[2] == before[0]
        assert now[1] not in before
        for host in "a.example.org", "b.example.org":
            assert support.text_of(room.path(host + "/reloads")) == \
                "reload tunnel\n" * count
        before = now


# The load balancer.

def test_configuration_of_haproxy(room):
    conf = room.write("haproxy.cfg", displays("tunnel-cluster.7", "HAPROXY")[0])
    out = run(proxy.haproxy_program(), "-c", "-f", conf).decode()
    assert "WARNING" not in out
