"""TLS clients and servers by which the ends of a stream are told apart."""

import socket
import ssl
import threading
import typing

from support import connect, reset

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(certs, version=None, ciphers=None, alpn=None, client=None,
            tickets=True):
    """client: the PEM file of its own certificate and key.  Without tickets,
    sessions are those of TLS 1.2 that the server remembers by an ID.
    """
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(certs.ca)
    if ciphers:
        c.set_ciphers(ciphers)
    if client:
        c.load_cert_chain(client)
    if not tickets:
        c.options |= ssl.OP_NO_TICKET
    # Python would take an end without close_notify for a proper one.
    c.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if version:
        c.minimum_version = c.maximum_version = VERSIONS[version]
    if alpn:
        c.set_alpn_protocols(alpn)
    return c


def server_context(pem, version=None, ca=None, ciphers=None):
    """pem: its certificate and key.  ca: who issues those of its clients,
    which are asked for one then.
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
    """What a client may resume by.  Python wants the same context for it,
    which is what then has the client's certificate, should it be needed.
    """

    ctx: ssl.SSLContext
    session: ssl.SSLSession


class Client:
    """A TLS client that lets the ends of a stream be told one by one, and
    sees them as they came.  One thread may send while another receives.
    """

    def __init__(self, to, ctx, name="localhost", rcvbuf=None, session=None):
        """to: an address, or a connected socket.  session: one to resume,
        which takes the place of ctx.
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
        self.early = bytearray()  # read before it was asked for
        self.end = None  # how receiving ended

    @property
    def resumable(self):
        """In TLS 1.3, not before something was received."""
        session = self.tls.session
        return session is not None and (session.has_ticket or (
            self.tls.version() == "TLSv1.2" and session.id != b""))

    @property
    def session(self):
        """For a later client, which may come while this one is there."""
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
        if data:  # of nothing, a reset by then would be told all the same
            self.sock.sendall(data)

    def fill(self):
        data = self.sock.recv(1 << 18)
        with self.lock:
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()

    def encrypt(self, data):
        """Records, for the caller to send."""
        with self.lock:
            self.tls.write(data)
            return self.outgoing.read()

    def send(self, data):
        view = memoryview(data)
        for i in range(0, len(view), 1 << 16):
            self.sock.sendall(self.encrypt(view[i:i + (1 << 16)]))

    def read(self, size):
        """As recv(), but None where there is nothing yet."""
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
            # Not every version of Python has an SSLEOFError for it.
            self.end = "truncated" if "UNEXPECTED_EOF" in e.reason else \
                e.reason
        return b""

    def recv(self, size=1 << 18):
        """Some bytes, or none: then self.end tells how it ended."""
        while (data := self.read(size)) is None:
            try:
                self.fill()
            except ConnectionResetError:
                self.end = "reset"
                return b""
        return data

    def read_all(self):
        """All there is to read, and how it ended: "close_notify",
        "truncated", "reset", or OpenSSL's word for an alert.
        """
        data = bytearray()
        while part := self.recv():
            data += part
        return bytes(data), self.end

    def close_notify(self):
        """End our direction, and that alone."""
        with self.lock:
            # unwrap() would take what is unread for an error.
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
    """The same at the other end, on a socket that was accepted."""

    def __init__(self, sock, ctx):
        self.begin(sock, ctx, server_side=True)
