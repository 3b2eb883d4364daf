"""Tickets that are invalid or not ours have the same effect as none: a full
handshake, with all its checks.
"""

import base64
import copy
import hashlib
import os
import random
import re
import shutil
import ssl
import struct
import subprocess

import pytest

import peers
import support
from reloads import Configured
from resuming import (KINDS, LOOKED_INTO, TICKETS, Rotated, hello_of,
                      is_resumed, newcomer, prepare, visit)
from support import LINE, lines_of_connections, memory, run
from wire import (Hello, Reader, answer, answers, beginning, encrypt, message,
                  messages, record, sha256)

MANY = 10000 if not support.SANITIZED and not support.UNDER else 1000


def other(kind):
    return TICKETS[1 - TICKETS.index(kind)]


class Target:
    """A tunnel that has sent a ticket and gets it back; other clients must not
    suffer.
    """

    def __init__(self, room, backend, kind, *arguments, client=None):
        self.room, self.kind = room, kind
        self.t = room.tunnel(f"connect={backend.address}", "workers=2",
                             "log_level=info", *LOOKED_INTO, *arguments)
        support.wait_for(lambda: len(self.t.workers()) == 2, "the workers")
        self.workers = self.t.workers()
        self.session = self.visit(
            newcomer(room.certs, kind, client=client)).session
        self.hello = hello_of(self.session)
        self.ticket = self.hello.ticket
        assert self.answers([self.ticket]) == {"resumed"}

    def visit(self, who):
        return visit(self.t.address, who)

    def answers(self, tickets):
        return answers(self.t.address, map(self.hello.offer, tickets))

    def is_well(self):
        assert self.t.workers() == self.workers
        assert self.visit(self.session).resumed
        assert not re.search("warning: |error: ", self.t.log())
        return True


@pytest.fixture
def target(room, backend, ticket):
    return Target(room, backend, ticket)


# Tests of these helpers.

def test_hello_is_what_it_was(certs, target):
    data = prepare(target.session).outgoing.read()
    assert Hello(data).written()[5:] == data[5:]
    assert len(target.ticket) > 100
    if target.kind == "ticket-1.2":
        assert target.ticket in data
    full = peers.Client(None, newcomer(certs, target.kind))
    with pytest.raises(ssl.SSLWantReadError):
        full.tls.do_handshake()
    hello = Hello(full.outgoing.read())
    assert answer(target.t.address, hello) == "full"
    hello.suites = b"\0\1"
    assert answer(target.t.address, hello) == 40  # handshake_failure


# Modified tickets of ours.

def test_every_length(target):
    """Truncated or extended to every length."""
    shorter = [target.ticket[:n] for n in range(1, len(target.ticket))]
    assert target.answers(shorter) == {"full"}
    room = (1 << 14) - len(target.hello.written())  # in one record
    longer = [target.ticket + bytes(n) for n in (1, 15, 16, 32, 1000, room)]
    assert target.answers(longer) == {"full"}
    assert target.is_well()


def test_no_length(target):
    """In TLS 1.2 an empty ticket means that there is none; in TLS 1.3 it is
    invalid.
    """
    assert target.answers([b""]) <= {"full", 47, 50}
    assert target.is_well()


def flipped(data):
    """Return tickets with one bit of each byte flipped."""
    for n in range(len(data)):
        yield data[:n] + bytes([data[n] ^ 1 << n % 8]) + data[n + 1:]


def test_every_byte(target):
    assert target.answers(flipped(target.ticket)) == {"full"}
    assert target.is_well()


def test_every_byte_where_a_client_was_verified(room, backend, ticket,
                                                authority):
    """The ticket is longer, with the certificate."""
    target = Target(room, backend, ticket, "verify=require",
                    f"ca={authority.crt}", client=authority.leaf("app1"))
    assert len(target.ticket) > 500
    assert target.answers(flipped(target.ticket)) == {"full"}
    assert target.is_well()


def test_parts_of_two(target):
    """Parts of two tickets never form a valid one."""
    other = hello_of(target.visit(newcomer(target.room.certs, target.kind))
                     .session).ticket
    mixed = [target.ticket[:n] + other[n:]
             for n in range(1, min(len(other), len(target.ticket)))
             if target.ticket[:n] != other[:n]]
    # Bytes that both have in common can't be exchanged.
    mixed = [x for x in mixed if x not in (target.ticket, other)]
    assert len(mixed) > 50
    assert target.answers(mixed) == {"full"}
    assert target.is_well()


# Tickets of others.

def test_ticket_of_the_other_version(target):
    """A ticket of the other TLS version, encrypted with the same key."""
    session = target.visit(newcomer(target.room.certs,
                                    other(target.kind))).session
    assert is_resumed(target.t.address, session)
    assert target.answers([hello_of(session).ticket]) == {"full"}
    assert target.is_well()


def test_ticket_whose_key_is_gone(room, certs, backend, ticket):
    r = Rotated(room, backend, "log_level=info")
    old = r.visit(newcomer(certs, ticket)).session
    hello = hello_of(old)
    r.rotate(support.run(support.TUNNEL, "-k").decode().strip())
    assert answers(r.c.t.address, [hello] * 3) == {"full"}
    assert not r.visit(old).resumed


def test_ticket_of_another_tunnel(room, backend, target):
    """It has their key name and encryption."""
    stranger = Target(room, backend, target.kind)
    assert target.answers([stranger.ticket]) == {"full"}
    assert stranger.answers([target.ticket]) == {"full"}
    assert target.is_well() and stranger.is_well()


def made_up(ticket, count):
    """Return random tickets, some of which begin with the name of its key."""
    r = random.Random(1)
    for _ in range(count):
        size = r.choice([r.randrange(1, 64), len(ticket), r.randrange(1, 600),
                         r.randrange(1, 600), r.randrange(1, 4000)])
        known = r.choice([0, 0, 4, 12, 16, 32, r.randrange(len(ticket))])
        made = ticket[:min(known, size - 1)] + r.randbytes(
            size - min(known, size - 1))
        if made != ticket:  # except a byte, which may match by chance
            yield made


@pytest.mark.seconds(90)
def test_thousands_of_random_ones(target):
    """They leave no descriptors, and less than 32 bytes each."""

    def left():
        support.wait_until_alone(target.t)
        return memory(target.t), target.t.descriptors()

    tickets = list(made_up(target.ticket, MANY))
    assert target.answers(tickets[:MANY // 2]) == {"full"}
    kb, descriptors = left()
    for _ in range(4):  # the C library may need as many to settle
        before = kb
        assert target.answers(tickets[MANY // 2:]) == {"full"}
        kb, same = left()
        assert same == descriptors
        if (kb - before) * 1024 < 32 * MANY // 2:
            break
    else:
        assert support.SANITIZED or support.UNDER, f"{before} KB, then {kb}"
    assert target.is_well()


def test_many_in_one_hello(room, backend):
    """TLS 1.3 allows a list."""
    target = Target(room, backend, "ticket-1.3")
    tickets = [x for x in made_up(target.ticket, 600) if len(x) < 200]
    hellos = [target.hello.offer(*tickets[n:n + 40])
              for n in range(0, len(tickets) - 40, 10)]
    assert answers(target.t.address, hellos) == {"full"}
    assert target.is_well()


def test_many_good_ones_cost_little(room, backend, ticket, authority):
    """Each ticket needs certificates to be verified, and an eavesdropper may
    send one as often as it fits into a later hello.
    """
    target = Target(room, backend, ticket, "verify=request",
                    f"ca={authority.crt}", client=authority.leaf("app1"))

    def cost(*tickets):
        before = target.t.cpu_seconds()
        answers(target.t.address,
                [target.hello.offer(*tickets, age=b"late")] * 30)
        return target.t.cpu_seconds() - before

    # Alternately, as the machine's speed varies.
    costs = [(cost(target.ticket), cost(*[target.ticket] * 12))
             for _ in range(5)]
    one, twelve = map(min, zip(*costs))
    assert twelve < 6 * one
    assert target.is_well()


def test_binder_of_another_hello(room, backend):
    """An eavesdropper does not know the key in a ticket: RFC 8446 section
    4.2.11 requires an alert.
    """
    target = Target(room, backend, "ticket-1.3")
    hellos = [copy.copy(target.hello) for _ in range(20)]
    for hello in hellos:
        hello.random = os.urandom(32)
    assert answers(target.t.address, hellos) <= {47, 51}
    assert target.is_well()


# Whole handshakes, by a client that does not know of the change.

def parts(der):
    """Return (tag, content) of each element of a SEQUENCE."""
    r = Reader(der)
    assert r.number(1) == 0x30
    inner = Reader(content(r))
    while inner:
        yield inner.number(1), content(inner)


def content(r):
    size = r.number(1)
    return r.take(size if size < 0x80 else r.number(size & 0x7f))


def tlv(tag, data):
    size = len(data)
    n = (size.bit_length() + 7) // 8
    return bytes([tag]) + (bytes([size]) if size < 0x80 else bytes(
        [0x80 | n]) + size.to_bytes(n, "big")) + data


class SClient:
    """openssl-s_client(1ssl) with a session in a file."""

    # ssl/ssl_asn1.c: [1] EXPLICIT INTEGER, [10] EXPLICIT OCTET STRING.
    TIME, TICKET = 0xa1, 0xaa

    def __init__(self, target):
        self.target = target
        self.path = target.room.path("session.pem")

    def run(self, *arguments):
        """Connect; return whether the session is resumed."""
        p = self.target.room.start("s_client", [
            "openssl", "s_client", "-connect", self.target.t.address,
            "-CAfile", self.target.room.certs.ca, "-verify_return_error",
            "-servername", "localhost",
            "-tls" + KINDS[self.target.kind][0].replace(".", "_"),
            *arguments], stdin=subprocess.PIPE)
        before = p.log().count("\nhello\n")
        p.popen.stdin.write(b"hello\n")
        p.popen.stdin.flush()
        support.wait_for(lambda: p.log().count("\nhello\n") > before or
                         not p.alive(), "the echo")
        p.popen.stdin.close()
        assert p.wait() == 0, p.log()
        return "Reused, TLS" in p.log().split("CONNECTED(")[-1]

    def alter(self, field, change):
        """Write a file with a modified ticket."""
        with open(self.path) as f:
            begin, *lines, end = f.read().strip().splitlines()
        out = b""
        for tag, data in parts(base64.b64decode("".join(lines))):
            if tag == field:
                r = Reader(data[1:])
                data = tlv(data[0], change(content(r)))
            out += tlv(tag, data)
        body = base64.encodebytes(tlv(0x30, out)).decode()
        return self.target.room.write("altered.pem", f"{begin}\n{body}{end}\n")


CHANGES = {
    "none": lambda x: x,
    "first byte": lambda x: bytes([x[0] ^ 1]) + x[1:],
    "last byte": lambda x: x[:-1] + bytes([x[-1] ^ 128]),
    "half": lambda x: x[:len(x) // 2],
    "one byte": lambda x: x[:1],
    "random": lambda x: os.urandom(len(x)),
    "huge": lambda x: os.urandom(12000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_handshake_goes_on(target, change):
    """The client is served as usual, and gets a new, valid ticket."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    s = SClient(target)
    assert not s.run("-sess_out", s.path)
    assert s.run("-sess_in", s.path)
    bad = s.alter(s.TICKET, CHANGES[change])
    assert s.run("-sess_in", bad, "-sess_out", s.path) == (change == "none")
    assert s.run("-sess_in", s.path)
    target.t.wait_log(" in=6 out=6 .* closed$", count=4)
    for line in lines_of_connections(target.t)[2:]:
        assert LINE.fullmatch(line)["reason"] == "closed"
    assert target.is_well()


# They give no access.

@pytest.fixture
def guarded(authority):
    return ["verify=require", f"ca={authority.crt}"]


def assert_refused(t, who, backend_address):
    """Check that a client without a certificate is refused, whatever it
    offers.
    """
    count = len(re.findall("no client certificate$", t.log(), re.M))
    with pytest.raises((ssl.SSLError, AssertionError, ConnectionError)):
        visit(t.address, who)
    line = t.wait_log(" no client certificate$", count + 1)
    assert " -> - " in line and backend_address not in line


def test_session_of_a_tunnel_that_asks_for_nothing(room, certs, backend,
                                                   ticket, guarded):
    """It has the same keys, but other rules."""
    keys = f"ticket_keys={room.write('keys', run(support.TUNNEL, '-k'))}"
    free = room.tunnel(f"connect={backend.address}", keys)
    strict = room.tunnel(f"connect={backend.address}", keys, *guarded)
    session = visit(free.address, newcomer(certs, ticket)).session
    assert is_resumed(free.address, session)
    for _ in range(3):
        assert_refused(strict, session, backend.address)
    assert is_resumed(free.address, session)


def test_certificate_of_a_session_that_is_not_resumed(room, backend,
                                                      authority):
    """Another client uses an intercepted ticket in a later hello, without a
    certificate of its own.
    """
    target = Target(room, backend, "ticket-1.3", "verify=request",
                    f"ca={authority.crt}")
    s = SClient(target)
    pem = authority.leaf("app1")
    assert not s.run("-sess_out", s.path, "-cert", pem, "-key", pem)
    assert s.run("-sess_in", s.path)
    target.t.wait_log(' resumed .* client="CN=app1" in=6 .* closed$')
    old = s.alter(s.TIME, lambda x: (int.from_bytes(x, "big") - 60).to_bytes(
        len(x), "big"))
    assert not s.run("-sess_in", old)
    line = target.t.wait_log(" in=6 .* closed$", 3)
    assert "client=" not in line and "resumed" not in line


def prf(secret, label, seed, size):
    """RFC 5246 section 5, with SHA-256."""
    a, data = label + seed, b""
    while len(data) < size:
        a = sha256(secret, a)
        data += sha256(secret, a + label + seed)
    return data[:size]


class Resumed:
    """A handmade TLS 1.2 client: its hello is resumed, or answered by an
    alert.  It decrypts nothing.
    """

    def __init__(self, room, to, hello, secret):
        self.sock = room.connect(to)
        said, self.sequence = hello.written()[5:], 0
        self.sock.sendall(hello.written())
        data = b""
        while beginning(data) is None:
            data += self.sock.recv(1 << 16)
        self.is_resumed = beginning(data) == "resumed"
        if not self.is_resumed:
            return
        for kind, body in messages(data):
            body = body.rest()
            said += message(kind, body)
            if kind == 2:
                random = body[2:34]
        keys = prf(secret, b"key expansion", random + hello.random, 88)
        self.key, self.iv = keys[:32], keys[64:76]
        for label in b"server finished", b"client finished":
            end = message(20, prf(secret, label, hashlib.sha256(said).digest(),
                                  12))
            said += end
        self.sock.sendall(record(20, b"\1"))
        self.send(end, kind=22)

    def send(self, data, kind=23):
        number = struct.pack(">Q", self.sequence)
        self.sequence += 1
        nonce = bytes(p ^ q for p, q in zip(self.iv, bytes(4) + number))
        rest = struct.pack(">BHH", kind, 0x303, len(data))
        self.sock.sendall(record(kind, encrypt(self.key, nonce, number + rest,
                                               data)))


CHACHA, AES = (f"TLS_ECDHE_ECDSA_WITH_{suite}"
               for suite in ("CHACHA20_POLY1305_SHA256", "AES_128_GCM_SHA256"))


@pytest.mark.parametrize("order", ["own", "own and seen", "seen and own"])
def test_two_tickets_in_a_hello_of_tls_1_2(room, backend, authority, order):
    """The library tries both in turn.  One is of another client, whose
    certificate is valid, but whose session has ended.
    """
    c = Configured(room, connect=backend.address, verify="request",
                   ca=authority.crt, ciphers=f"{AES},{CHACHA}")
    ctx = newcomer(room.certs, "ticket-1.2", client=authority.leaf("seen"),
                   ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    seen = hello_of(visit(c.t.address, ctx).session).ticket
    c.reload(ciphers=CHACHA)
    ctx = newcomer(room.certs, "ticket-1.2", client=authority.leaf("own"))
    ctx.keylog_filename = room.path("keylog")
    hello = hello_of(visit(c.t.address, ctx).session)
    with open(ctx.keylog_filename) as f:
        secret = bytes.fromhex(f.read().split()[-1])
    tickets = {"own": hello.ticket, "seen": seen}
    client = Resumed(room, c.t.address, hello.offer(*(
        tickets[x] for x in order.split(" and "))), secret)
    if client.is_resumed:
        client.send(b"hello")
        client.send(b"\1\0", kind=21)
    else:
        client.sock.close()
    line = c.t.wait_log(r"\d\.\d{3}s ", count=3)
    assert "CN=seen" not in line
    if order == "own":
        assert ' resumed sni=localhost client="CN=own" in=5 out=5 ' in line


@pytest.mark.parametrize("kind", KINDS)
def test_session_of_before_the_rules(room, certs, backend, authority, kind):
    """A reload keeps keys and cache, but its new rules apply to all sessions.
    """
    c = Configured(room, connect=backend.address)
    session = visit(c.t.address, newcomer(certs, kind)).session
    assert is_resumed(c.t.address, session)
    c.reload(verify="require", ca=authority.crt)
    for _ in range(3):
        assert_refused(c.t, session, c.values["connect"])
    c.reload(verify="request")
    visit(c.t.address, session)
