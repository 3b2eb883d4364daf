"""What the tests of the PROXY protocol share: headers made by hand after its
published specification (haproxy's doc/proxy-protocol.txt), clients that send
one, and haproxy.

haproxy is the one that is installed or unpacked in build/haproxy.
"""

import os
import re
import socket
import ssl
import struct

import pytest

import support
from support import TOP, read_exactly, run

# Version 1.

def v1(source, destination):
    """source, destination: as getsockname() has them."""
    family = "TCP6" if ":" in source[0] else "TCP4"
    return (f"PROXY {family} {source[0]} {destination[0]} {source[1]} "
            f"{destination[1]}\r\n").encode()


# Version 2.

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, TCP6, UNIX = 0x00, 0x11, 0x21, 0x31
ALPN, AUTHORITY, SSL, SSL_VERSION, SSL_CN, SSL_CIPHER = \
    0x01, 0x02, 0x20, 0x21, 0x22, 0x23
ON_CONNECTION, IN_SESSION = 0x02, 0x04  # the client's certificate


def v2_header(command, family, block):
    return SIGNATURE + struct.pack(">BBH", command, family, len(block)) + block


def tlv(kind, value):
    if isinstance(value, str):
        value = value.encode()
    return struct.pack(">BH", kind, len(value)) + value


def inet_block(source, destination):
    family = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    return (socket.inet_pton(family, source[0]) +
            socket.inet_pton(family, destination[0]) +
            struct.pack(">HH", source[1], destination[1]))


def unix_block(source, destination):
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def v2(source, destination, tlvs=b""):
    """Of TCP addresses, or of paths as bytes."""
    if isinstance(source, bytes):
        return v2_header(PROXY, UNIX, unix_block(source, destination) + tlvs)
    return v2_header(PROXY, TCP6 if ":" in source[0] else TCP4,
                     inet_block(source, destination) + tlvs)


def v2_parts(header):
    """The protocol's byte, and what comes after the length."""
    assert header[:13] == SIGNATURE + b"\x21"
    assert struct.unpack(">H", header[14:16])[0] == len(header) - 16
    return header[13], header[16:]


OPENSSL_NAMES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305":
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
}


def ssl_tlv(client, cn=None, certificate=0, verified=None):
    """What there is to tell of a client's connection.

    certificate: ON_CONNECTION, IN_SESSION or both.
    """
    name = client.tls.cipher()[0]
    if verified is None:
        verified = bool(certificate)
    subs = tlv(SSL_VERSION, client.tls.version()) + \
        tlv(SSL_CIPHER, OPENSSL_NAMES.get(name, name))
    if cn is not None:
        subs += tlv(SSL_CN, cn)
    return tlv(SSL, struct.pack(">BI", 0x01 | certificate, not verified) +
               subs)


# Reading one, and no byte more.

def read_line(sock):
    line = bytearray()
    while not line.endswith(b"\r\n"):
        line += read_exactly(sock, 1)
        assert len(line) <= 107, bytes(line)
    return bytes(line)


def read_v2(sock):
    start = read_exactly(sock, 16)
    assert start.startswith(SIGNATURE), start
    return start + read_exactly(sock, struct.unpack(">H", start[14:])[0])


def read_header(sock, kind):
    return read_line(sock) if kind == "v1" else read_v2(sock)


# Clients that come with one.

def bound(room, address, source):
    """A connection to a tunnel, from an address of ours."""
    host, port = address.rsplit(":", 1)
    sock = room.keep(socket.socket())
    sock.settimeout(support.DEADLINE)
    sock.bind((source, 0))
    sock.connect((host, int(port)))
    return sock


def hello_of(client):
    """The first flight, for the caller to send."""
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    return client.outgoing.read()


def client_behind(room, to, header, version=None, name="localhost"):
    """A TLS client whose balancer has sent this header for it, both in one
    segment.
    """
    ctx = support.context(room.certs, version)
    client = room.keep(support.Client(to, ctx, name))
    client.sock.sendall(header + hello_of(client))
    return client.handshake()


# haproxy.

HAPROXY = [os.path.join(TOP, "build/haproxy/usr/sbin/haproxy"),
           "/usr/sbin/haproxy"]
GLOBAL = """
global
    maxconn 200
    stats socket {socket} level admin
    log stderr local0
defaults
    timeout connect {timeout}s
    timeout client {timeout}s
    timeout server {timeout}s
    log global
"""


def haproxy_program():
    for program in HAPROXY:
        if os.path.exists(program):
            return program
    pytest.skip("no haproxy: make deps check unpacks it in build/haproxy")


def haproxy_version():
    return tuple(map(int, re.search(
        rb"version (\d+)\.(\d+)", run(haproxy_program(), "-v")).groups()))


class Haproxy:
    """One of its own, in the foreground."""

    def __init__(self, room, text, listeners=("127.0.0.1",), **keywords):
        """text: what comes after the defaults, with {} for each listener.
        Those are hosts to listen on, or sockets that do.
        """
        self.socks = [self.listen(room, x) if isinstance(x, str) else x
                      for x in listeners]
        self.addresses = [support.tcp_address(sock) for sock in self.socks]
        self.socket = room.path("haproxy.sock")
        text = text.format(*(f"fd@{sock.fileno()}" for sock in self.socks))
        conf = room.write("haproxy.cfg", GLOBAL.format(
            socket=self.socket, timeout=int(support.DEADLINE)) + text)
        self.process = room.start(
            "haproxy", [haproxy_program(), "-db", "-f", conf],
            pass_fds=[sock.fileno() for sock in self.socks], **keywords)
        support.wait_for(self.is_up, "haproxy to be up")

    @staticmethod
    def listen(room, host):
        sock = room.keep(socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET))
        sock.bind((host, 0))
        sock.listen(100)
        return sock

    @property
    def address(self):
        return self.addresses[0]

    def is_up(self):
        assert self.process.alive(), "haproxy does not start"
        try:
            support.connect("unix:" + self.socket).close()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def ask(self, words):
        """Of its stats socket."""
        with support.connect("unix:" + self.socket) as sock:
            sock.sendall(words.encode() + b"\n")
            return support.read_all(sock)[0].decode()
