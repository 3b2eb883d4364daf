"""A TLS 1.3 client whose key shares and handshake are made by hand: what RFC
8446 allows, and what it forbids.
"""

import hashlib
import hmac
import os
import struct

import mlkem
import support
from wire import (ALERT, CCS, DATA, HANDSHAKE, RETRY, Reader, block,
                  encrypt, extension, extensions, message, plain, sha256,
                  vector)

P256, P384, X25519, X448, HYBRID = 23, 24, 29, 30, 0x11ec
ILLEGAL = 47  # illegal_parameter, RFC 8446 section 6
# The generator: a valid point, for tests that need only an answer.
POINT = bytes.fromhex(
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")
SUITE = b"\x13\x03"  # TLS_CHACHA20_POLY1305_SHA256
MODES, VERSIONS, GROUPS, SIGNATURES, SHARES, PSK = 45, 43, 10, 13, 51, 41
HELLO, SERVER_HELLO, TICKET, FINISHED = 1, 2, 4, 20


def label(secret, name, context=b"", size=32):
    """HKDF-Expand-Label of one block, RFC 8446 section 7.1."""
    name = b"tls13 " + name
    return sha256(secret, struct.pack(">H", size) + vector(1, name) +
                  vector(1, context) + b"\1")[:size]


class Keys:
    """The keys of one direction, RFC 8446 section 7.3."""

    def __init__(self, secret):
        self.finished = label(secret, b"finished")
        self.key, self.iv = label(secret, b"key"), label(secret, b"iv",
                                                         size=12)
        self.sequence = 0

    def nonce(self):
        number = self.sequence.to_bytes(12, "big")
        self.sequence += 1
        return bytes(p ^ q for p, q in zip(self.iv, number))

    def seal(self, kind, data):
        head = struct.pack(">BHH", DATA, 0x303, len(data) + 17)
        return head + encrypt(self.key, self.nonce(), head,
                              data + bytes([kind]))

    def open(self, body):
        """Decrypt a record; return its contents and type."""
        nonce, sealed = self.nonce(), body[:-16]
        stream = b"".join(block(self.key, 1 + i, nonce)
                          for i in range(len(sealed) // 64 + 1))
        data = bytes(p ^ q for p, q in zip(sealed, stream))
        head = struct.pack(">BHH", DATA, 0x303, len(body))
        assert encrypt(self.key, nonce, head, data) == body, "forged"
        data = data.rstrip(b"\0")
        return data[-1], data[:-1]


class Session:
    """A ticket, with the secret for resumption."""

    def __init__(self, ticket, age, secret):
        self.ticket, self.age, self.secret = ticket, age, secret


class Alert(Exception):
    """An alert sent by the server, with its number; before: the types of the
    preceding records.
    """

    def __init__(self, number, before):
        super().__init__(f"alert {number} behind {before}")
        self.number, self.before = number, before


class ByShares:
    """A client. shares: (group, bytes) to send, or a group, whose key is then
    generated; groups: the supported groups.
    """

    def __init__(self, to, shares, groups, session=None):
        self.sock = support.connect(to)
        self.random, self.id = os.urandom(32), os.urandom(32)
        self.groups, self.session = groups, session
        self.secret = {}  # private keys, by group
        self.transcript, self.seen, self.data = b"", [], b""
        self.keys = None
        self.shares = [self.share(x) if isinstance(x, int) else x
                       for x in shares]

    def share(self, group):
        private = os.urandom(32)
        if group == X25519:
            self.secret[group] = private, None
            return group, mlkem.x25519(private)
        if group == HYBRID:
            ek, dk = mlkem.generate()
            self.secret[group] = private, dk
            return group, ek + mlkem.x25519(private)
        assert group == P256
        return group, POINT

    def agree(self, group, share):
        private, dk = self.secret[group]
        if dk is None:
            return mlkem.x25519(private, share)
        assert len(share) == mlkem.CT + 32
        return mlkem.decapsulate(dk, share[:mlkem.CT]) + mlkem.x25519(
            private, share[mlkem.CT:])

    def hello(self, shares=None):
        """The message. shares: replaces the initial shares."""
        shares = self.shares if shares is None else shares
        listed = b"".join(struct.pack(">H", g) for g in self.groups)
        written = b"".join(extension(kind, data) for kind, data in (
            (VERSIONS, b"\2\3\4"), (GROUPS, vector(2, listed)),
            (SIGNATURES, vector(2, b"\4\3\x08\4")), (MODES, b"\1\1"),
            (SHARES, vector(2, b"".join(
                struct.pack(">H", g) + vector(2, x) for g, x in shares)))))
        if self.session:
            identity = vector(2, vector(2, self.session.ticket) +
                              self.session.age)
            written += extension(PSK, identity + bytes(35))
        body = b"\3\3" + self.random + vector(1, self.id) + vector(
            2, SUITE) + b"\1\0" + vector(2, written)
        data = message(HELLO, body)
        if not self.session:
            return data
        binder = label(self.early(), b"res binder", hashlib.sha256().digest())
        digest = hashlib.sha256(self.transcript + data[:-35]).digest()
        return data[:-35] + vector(2, vector(1, sha256(
            label(binder, b"finished"), digest)))

    def early(self):
        return sha256(bytes(32), self.session.secret if self.session else
                      bytes(32))

    def send_hello(self, shares=None, size=16384):
        """Send the hello in records of that size."""
        data = self.hello(shares)
        self.transcript += data
        self.sock.sendall(b"".join(
            plain(HANDSHAKE, data[i:i + size], 0x301)
            for i in range(0, len(data), size)))

    def record(self):
        """Read the next record: its type and contents."""
        head = support.read_exactly(self.sock, 5)
        kind, body = head[0], support.read_exactly(
            self.sock, int.from_bytes(head[3:], "big"))
        self.seen.append(kind)
        if kind == DATA:
            kind, body = self.keys.open(body)
        if kind == ALERT:
            raise Alert(body[1], self.seen[:-1])
        return kind, body

    def message(self):
        """Read the next handshake message: its type, and all its bytes."""
        while len(self.data) < 4 or len(self.data) < 4 + int.from_bytes(
                self.data[1:4], "big"):
            kind, body = self.record()
            assert kind in (HANDSHAKE, CCS)
            self.data += body if kind == HANDSHAKE else b""
        size = 4 + int.from_bytes(self.data[1:4], "big")
        data, self.data = self.data[:size], self.data[size:]
        return data[0], data

    def server_hello(self):
        """Read a ServerHello: its group, and the share, or None for a retry
        request.
        """
        kind, data = self.message()
        assert kind == SERVER_HELLO
        body = Reader(data[4:])
        assert body.take(2) == b"\3\3"
        is_retry = body.take(32) == RETRY
        if is_retry:  # RFC 8446, 4.4.1
            self.transcript = message(254, hashlib.sha256(
                self.transcript).digest())
        self.transcript += data
        assert body.vector(1).rest() == self.id
        assert body.take(3) == SUITE + b"\0"
        found = extensions(body)
        self.resumed = PSK in found
        share = Reader(found[SHARES])
        return share.number(2), None if is_retry else share.vector(2).rest()

    def digest(self):
        return hashlib.sha256(self.transcript).digest()

    def finish(self, group, share):
        """Do the rest of the handshake."""
        empty = hashlib.sha256().digest()
        early = self.early() if self.resumed else sha256(bytes(32), bytes(32))
        secret = sha256(label(early, b"derived", empty),
                        self.agree(group, share))
        ours, self.keys = (Keys(label(secret, name, self.digest()))
                           for name in (b"c hs traffic", b"s hs traffic"))
        kind = None
        while kind != FINISHED:
            before = self.digest()
            kind, data = self.message()
            self.transcript += data
        assert hmac.compare_digest(data[4:], sha256(
            self.keys.finished, before)), "the secrets differ"
        secret = sha256(label(secret, b"derived", empty), bytes(32))
        self.ours, self.keys = (Keys(label(secret, name, self.digest()))
                                for name in (b"c ap traffic",
                                             b"s ap traffic"))
        data = message(FINISHED, sha256(ours.finished, self.digest()))
        self.transcript += data
        self.sock.sendall(plain(CCS, b"\1") + ours.seal(HANDSHAKE, data))
        self.resumption = label(secret, b"res master", self.digest())
        return self

    def handshake(self):
        """A complete handshake; returns the group."""
        self.send_hello()
        group, share = self.server_hello()
        if share is None:
            self.send_hello([self.share(group)])
            group, share = self.server_hello()
        self.finish(group, share)
        return group

    def send(self, data):
        self.sock.sendall(self.ours.seal(DATA, data))

    def read(self):
        """Read data; a ticket in front of it is kept."""
        while True:
            kind, body = self.record()
            if kind == DATA:
                return body
            ticket = Reader(body[4:])
            ticket.take(4)
            age = ticket.take(4)  # a lifetime of no milliseconds
            nonce = ticket.vector(1).rest()
            self.kept = Session(ticket.vector(2).rest(), age, label(
                self.resumption, b"resumption", nonce))

    def close(self):
        self.sock.close()
