"""A TLS server whose messages are made by hand, or changed: those that RFC
8446 and 5246 allow, and those that they forbid.
"""

import hashlib
import os
import ssl

import mlkem
import support
from shares import (FINISHED, HELLO, HYBRID, P256, POINT, SERVER_HELLO,
                    SHARES, TICKET, VERSIONS, X25519, Alert, Keys, label)
from wire import (ALERT, CCS, DATA, HANDSHAKE, RETRY, Hello, Reader,
                  extension, message, plain, sha256, vector)

EXTENSIONS, CERTIFICATE, REQUEST, VERIFY = 8, 11, 13, 15
KEY_EXCHANGE, DONE = 12, 14
SUITE_1_3, SUITE_1_2 = b"\x13\x03", b"\xcc\xa9"  # both with ChaCha20
ECDSA_P256, PKCS1_SHA256, PSS_SHA256 = 0x0403, 0x0401, 0x0804
EMPTY = hashlib.sha256().digest()


def sign(key, data, *options):
    return support.run("openssl", "dgst", "-sha256", *options, "-sign", key,
                       stdin=data)


class Server:
    """One connection. crt and key are files. changes: per message type, a
    function from the default body to the body to send, or to None to omit the
    message.
    """

    def __init__(self, sock, crt, key, changes=None):
        with open(crt) as f:
            pem = f.read()
        end = "-----END CERTIFICATE-----\n"
        self.der = ssl.PEM_cert_to_DER_cert(pem.partition(end)[0] + end)
        self.sock, self.key = sock, key
        self.changes = changes or {}
        self.algorithm, self.options = ECDSA_P256, ()
        self.transcript = self.out = b""
        self.ours = self.theirs = None  # keys for sending and receiving;
        # None: not encrypted
        self.encrypted = []  # whether each received record was encrypted

    def record(self):
        """Read the next record: its type and its contents."""
        self.flush()
        head = support.read_exactly(self.sock, 5)
        kind, body = head[0], support.read_exactly(
            self.sock, int.from_bytes(head[3:], "big"))
        self.encrypted.append(kind == DATA)
        if kind == DATA:
            kind, body = self.theirs.open(body)
        if kind == ALERT:
            raise Alert(body[1], self.encrypted)
        return kind, body

    def message(self, wanted):
        """Read the next handshake message, alone in its record."""
        kind = CCS
        while kind == CCS:
            kind, data = self.record()
        assert kind == HANDSHAKE and data[0] == wanted
        self.transcript += data
        return data

    def read_hello(self):
        data = self.message(HELLO)
        self.hello = Hello(plain(HANDSHAKE, data))
        self.shares = {}
        rest = Reader(self.hello.extensions[SHARES]).vector(2) \
            if SHARES in self.hello.extensions else Reader(b"")
        while rest:
            group = rest.number(2)
            self.shares[group] = rest.vector(2).rest()
        return self

    def send(self, kind, body):
        """Queue a message, changed as requested; flush() sends it."""
        if kind in self.changes:
            body = self.changes[kind](body)
        if body is None:
            return
        data = message(kind, body)
        self.transcript += data
        self.out += self.ours.seal(HANDSHAKE, data) if self.ours else \
            plain(HANDSHAKE, data)

    def flush(self):
        """Send all at once, so that a client that aborts has read everything.
        """
        self.sock.sendall(self.out)
        self.out = b""

    def hello_body(self, found, version=b"\3\3", random=None,
                   suite=SUITE_1_3):
        return version + (random or os.urandom(32)) + vector(
            1, self.hello.id) + suite + b"\0" + vector(2, b"".join(
                extension(kind, data) for kind, data in found))

    def agree(self, group):
        """Our key share for the client's group, and the shared secret."""
        private = os.urandom(32)
        public = mlkem.x25519(private)
        if group == X25519:
            return public, mlkem.x25519(private, self.shares[group])
        theirs = self.shares[HYBRID]
        sent, secret = mlkem.encapsulate(theirs[:mlkem.EK])
        return sent + public, secret + mlkem.x25519(private,
                                                    theirs[mlkem.EK:])

    def send_hello(self, group=X25519):
        share, secret = self.agree(group)
        self.send(SERVER_HELLO, self.hello_body([
            (VERSIONS, b"\3\4"),
            (SHARES, group.to_bytes(2, "big") + vector(2, share))]))
        early = sha256(bytes(32), bytes(32))
        self.secret = sha256(label(early, b"derived", EMPTY), secret)
        self.theirs, self.ours = (
            Keys(label(self.secret, name, self.digest()))
            for name in (b"c hs traffic", b"s hs traffic"))

    def retry(self, found):
        """Send a HelloRetryRequest, and read the next hello."""
        self.transcript = message(254, self.digest())
        self.send(SERVER_HELLO, self.hello_body(
            [(VERSIONS, b"\3\4"), *found], random=RETRY))
        return self.read_hello()

    def digest(self):
        return hashlib.sha256(self.transcript).digest()

    def signature(self, data):
        return self.algorithm.to_bytes(2, "big") + vector(
            2, sign(self.key, data, *self.options))

    def send_flight(self):
        """Send everything up to Finished; switch to the application keys."""
        self.send(EXTENSIONS, vector(2, b""))
        self.send(CERTIFICATE, b"\0" + vector(3, vector(3, self.der) +
                                              b"\0\0"))
        self.send(VERIFY, self.signature(
            b" " * 64 + b"TLS 1.3, server CertificateVerify\0" +
            self.digest()))
        self.send(FINISHED, sha256(self.ours.finished, self.digest()))
        self.finished = self.theirs.finished
        secret = sha256(label(self.secret, b"derived", EMPTY), bytes(32))
        digest = self.digest()
        self.ours, self.next = (
            Keys(label(secret, name, digest))
            for name in (b"s ap traffic", b"c ap traffic"))

    def handshake(self, group=X25519):
        """A complete TLS 1.3 handshake."""
        if not self.transcript:
            self.read_hello()
        self.send_hello(group)
        self.send_flight()
        digest = self.digest()
        assert self.message(FINISHED)[4:] == sha256(self.finished, digest)
        self.theirs = self.next
        return self

    def send_data(self, data):
        self.out += self.ours.seal(DATA, data)
        self.flush()

    def send_ticket(self, ticket, lifetime=3600, nonce=b"\0", more=b""):
        body = lifetime.to_bytes(4, "big") + bytes(4) + vector(
            1, nonce) + vector(2, ticket) + vector(2, b"") + more
        self.out += self.ours.seal(HANDSHAKE, message(TICKET, body))

    def send_flight_1_2(self, share=None):
        """Send everything up to ServerHelloDone: ECDHE with an ECDSA key."""
        self.read_hello()
        group, share = share or (P256, POINT)
        random = os.urandom(32)
        self.send(SERVER_HELLO, self.hello_body(
            [(0xff01, b"\0"), (23, b"")], random=random, suite=SUITE_1_2))
        self.send(CERTIFICATE, vector(3, vector(3, self.der)))
        params = b"\3" + group.to_bytes(2, "big") + vector(1, share)
        self.send(KEY_EXCHANGE, params + self.signature(
            self.hello.random + random + params))
        self.send(DONE, b"")

    def alert(self):
        """Read the next record, an alert; return its number."""
        try:
            while True:
                self.record()
        except Alert as told:
            return told.number
