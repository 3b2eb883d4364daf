"""TLS servers on OpenSSL, for tunnels in the client role."""

import socket
import ssl
import subprocess
import threading

import support
from support import read_exactly
from verdicts import alert_of


class Server:
    """A server that echoes five bytes to each client. pem: its chain and key.
    asks: a CA file; client certificates are then required. path: a Unix socket
    instead of TCP. If OpenSSL rejects pem, unfit says why.
    """

    def __init__(self, pem, asks=None, path=None):
        self.end = []  # how each connection ended: see result()
        self.names = []  # requested server names, or None
        self.clients = []  # client certificates, as getpeercert() returns them
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
                support.read_all(raw)  # so that our alert is not lost

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
        """The result of one more connection, without others meanwhile:
        "served", an alert, or another end.
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
    """What an application receives through a tunnel in the client role, or the
    name of the error; and the tunnel's log. under: a command prefix.
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
    """A recorder in front of a server, of everything sent to it."""

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
        """The types and lengths of the recorded records."""
        out, data = [], bytes(self.sent)
        while data:
            size = int.from_bytes(data[3:5], "big")
            out.append((data[0], size))
            data = data[5 + size:]
        return out
