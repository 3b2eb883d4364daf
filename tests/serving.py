"""TLS servers by OpenSSL, for our clients."""

import socket
import ssl
import subprocess
import threading

import support
from support import read_exactly
from verdicts import alert_of


class Server:
    """A server that echoes five bytes to each client.  pem: its chain and key;
    asks: a file of issuers, one of which has to have issued the client's
    certificate; path: of a Unix socket instead of TCP.  If OpenSSL rejects
    pem, unfit has the reason.
    """

    def __init__(self, pem, asks=None, path=None):
        self.end = []  # how each connection ended: see result()
        self.names = []  # server names asked for, or None
        self.clients = []  # certificates, from getpeercert()
        self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ctx.set_ciphers("DEFAULT:@SECLEVEL=0")
        self.ctx.sni_callback = lambda tls, name, ctx: self.names.append(name)
        if asks:
            self.ctx.load_verify_locations(asks)
            self.ctx.verify_mode = ssl.CERT_REQUIRED
        try:
            self.ctx.load_cert_chain(pem)
        except ssl.SSLError as e:
            self.ctx, self.unfit = None, str(e)
        self.sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.sock.bind(path or ("127.0.0.1", 0))
        self.sock.listen()
        self.address = "unix:" + path if path else \
            support.tcp_address(self.sock)
        self.port = self.address.rpartition(":")[2]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                sock = self.sock.accept()[0]
            except OSError:
                return
            with sock, sock.dup() as raw:
                self.end.append(self.echo(sock))
                raw.settimeout(support.DEADLINE)
                support.read_all(raw)  # or its alert would be lost

    def echo(self, sock):
        sock.settimeout(support.DEADLINE)
        try:
            with self.ctx.wrap_socket(sock, server_side=True) as tls:
                self.clients.append(tls.getpeercert())
                data = tls.recv(5)
                tls.sendall(data)
                return "served" if data else "left"
        except ssl.SSLError as e:
            return alert_of(e.reason)
        except OSError as e:
            return str(e)

    def result(self):
        """Return the result of one more connection, with no others in
        parallel: "served", an alert, or another error.
        """
        support.wait_for(lambda: self.end, "the server's end")
        return self.end.pop()

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


def ask(*arguments, data=b"hello", under=()):
    """Return what an application gets through our client, or the name of the
    error; and the log.  under: a command to run the tunnel under.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            socket.create_connection(listener.getsockname()) as app:
        app.settimeout(support.DEADLINE)
        ours = listener.accept()[0]
        with subprocess.Popen(
                [*under, *support.UNDER, support.TUNNEL, "-i", "client=yes",
                 "log=stderr", *arguments], stdin=ours, stdout=ours,
                stderr=subprocess.PIPE, text=True) as p:
            ours.close()
            try:
                app.sendall(data)
                got = read_exactly(app, len(data))
            except (ConnectionResetError, AssertionError) as e:
                got = type(e).__name__
            app.close()
            return got, p.communicate(timeout=support.DEADLINE)[1]


class Tap:
    """A proxy in front of a server that records what the server receives."""

    def __init__(self, server):
        self.to, self.sent = server.address, bytearray()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.address = support.tcp_address(self.sock)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with self.sock, self.sock.accept()[0] as client, \
                support.connect(self.to) as server:
            back = threading.Thread(target=self.copy, args=(server, client))
            back.start()
            self.copy(client, server, self.sent)
            back.join()

    @staticmethod
    def copy(one, other, copy=None):
        try:
            while data := one.recv(1 << 16):
                if copy is not None:
                    copy += data
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def records(self):
        """Return the types and lengths of the records."""
        out, data = [], bytes(self.sent)
        while data:
            size = int.from_bytes(data[3:5], "big")
            out.append((data[0], size))
            data = data[5 + size:]
        return out
