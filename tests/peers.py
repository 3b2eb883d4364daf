"""TLS clients and servers that distinguish how a stream ends."""

import socket
import ssl
import threading
import typing

from support import connect, reset

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(certs, version=None, ciphers=None, alpn=None, client=None,
            tickets=True):
    """client: the PEM file of a client certificate and its key.  Without
    tickets, TLS 1.2 sessions are resumed by their ID.
    """
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(certs.ca)
    if ciphers:
        c.set_ciphers(ciphers)
    if client:
        c.load_cert_chain(client)
    if not tickets:
        c.options |= ssl.OP_NO_TICKET
    # Otherwise Python takes an end without close_notify for a proper end.
    c.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if version:
        c.minimum_version = c.maximum_version = VERSIONS[version]
    if alpn:
        c.set_alpn_protocols(alpn)
    return c


def server_context(pem, version=None, ca=None, ciphers=None):
    """pem: its certificate and key.  ca: a CA file; client certificates are
    then required.
    """
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(pem)
    c.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if ciphers:
        c.set_ciphers(ciphers)
    if ca:
        c.load_verify_locations(ca)
        c.verify_mode = ssl.CERT_REQUIRED
    if version:
        c.minimum_version = c.maximum_version = VERSIONS[version]
    return c


class Session(typing.NamedTuple):
    """A session to resume, with its context: Python requires the same one,
    and it holds the client's certificate.
    """

    ctx: ssl.SSLContext
    session: ssl.SSLSession


class Client:
    """A TLS client that controls how it ends each layer of its stream, and
    reports how the peer ended it.  One thread may send while another receives.
    """

    def __init__(self, to, ctx, name="localhost", rcvbuf=None, session=None):
        """to: an address, or a connected socket.  session: a session to
        resume, instead of ctx.
        """
        self.begin(connect(to, rcvbuf) if isinstance(to, str) else to,
                   session.ctx if session else ctx, server_hostname=name,
                   session=session and session.session)

    def begin(self, sock, ctx, **keywords):
        self.sock = sock
        self.lock = threading.Lock()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ctx = ctx
        self.tls = ctx.wrap_bio(self.incoming, self.outgoing, **keywords)
        self.early = bytearray()  # read ahead by close_notify()
        self.end = None  # how receiving ended

    @property
    def resumable(self):
        """In TLS 1.3 only after the first receive, which reads the ticket."""
        session = self.tls.session
        return session is not None and (session.has_ticket or (
            self.tls.version() == "TLSv1.2" and session.id != b""))

    @property
    def session(self):
        """For later clients; this one may still be connected."""
        assert self.resumable
        return Session(self.ctx, self.tls.session)

    @property
    def resumed(self):
        return self.tls.session_reused

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return self
            except ssl.SSLWantReadError:
                self.flush()
                self.fill()
            except ssl.SSLError:
                self.flush()
                raise

    def flush(self):
        with self.lock:
            data = self.outgoing.read()
        if data:  # an empty send would still report a reset
            self.sock.sendall(data)

    def fill(self):
        data = self.sock.recv(1 << 18)
        with self.lock:
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def encrypt(self, data):
        """Return records, for the caller to send."""
        with self.lock:
            self.tls.write(data)
            return self.outgoing.read()

    def send(self, data):
        view = memoryview(data)
        for i in range(0, len(view), 1 << 16):
            self.sock.sendall(self.encrypt(view[i:i + (1 << 16)]))

    def read(self, size):
        """As recv(), but None if nothing has arrived yet."""
        with self.lock:
            data = bytes(self.early[:size])
            del self.early[:size]
            return data or self.decrypt(size)

    def decrypt(self, size):
        try:
            data = self.tls.read(size)
            self.end = None if data else "close_notify"
            return data
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            self.end = "close_notify"
        except ssl.SSLEOFError:
            self.end = "truncated"
        except ssl.SSLError as e:
            # Some versions of Python raise no SSLEOFError.
            self.end = "truncated" if "UNEXPECTED_EOF" in e.reason else \
                e.reason
        return b""

    def recv(self, size=1 << 18):
        """Return some bytes; if none, self.end says how the stream ended."""
        while (data := self.read(size)) is None:
            try:
                self.fill()
            except ConnectionResetError:
                self.end = "reset"
                return b""
        return data

    def read_all(self):
        """Read everything; also return how the stream ended: "close_notify",
        "truncated", "reset", or OpenSSL's name for an alert.
        """
        data = bytearray()
        while part := self.recv():
            data += part
        return bytes(data), self.end

    def close_notify(self):
        """End only the direction to the peer."""
        with self.lock:
            # unwrap() fails if data is unread.
            while data := self.decrypt(1 << 18):
                self.early += data
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                pass
        self.flush()

    def fin(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        reset(self.sock)

    def close(self):
        self.sock.close()


class Server(Client):
    """A TLS server on an accepted socket."""

    def __init__(self, sock, ctx):
        self.begin(sock, ctx, server_side=True)
