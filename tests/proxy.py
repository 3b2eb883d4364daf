"""Shared by the tests of the PROXY protocol: headers made by hand after its
published specification (haproxy's doc/proxy-protocol.txt), clients that send a
header, and haproxy.

haproxy is the installed one, or the one unpacked in build/haproxy.
"""

import os
import re
import socket
import ssl
import struct

import pytest

import peers
import support
from support import TOP, read_exactly, run

# Version 1.

def v1(source, destination):
    """source, destination: as returned by getsockname()."""
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
    """For TCP addresses, or for paths as bytes."""
    if isinstance(source, bytes):
        return v2_header(PROXY, UNIX, unix_block(source, destination) + tlvs)
    return v2_header(PROXY, TCP6 if ":" in source[0] else TCP4,
                     inet_block(source, destination) + tlvs)


def v2_parts(header):
    """The protocol byte, and everything after the length."""
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
    """The SSL TLV of a client's connection.

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


# Read one header, and no byte beyond it.

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


# Clients that send a header.

def bound(room, address, source):
    """A connection to a tunnel from a chosen source address."""
    host, port = address.rsplit(":", 1)
    sock = room.keep(socket.socket())
    sock.settimeout(support.DEADLINE)
    sock.bind((source, 0))
    sock.connect((host, int(port)))
    return sock


def hello_of(client):
    """The ClientHello, for the caller to send."""
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    return client.outgoing.read()


def client_behind(room, to, header, version=None, name="localhost"):
    """A TLS client behind a load balancer: header and ClientHello in one
    segment.
    """
    ctx = peers.context(room.certs, version)
    client = room.keep(peers.Client(to, ctx, name))
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
    """A haproxy for this test, in the foreground."""

    def __init__(self, room, text, listeners=("127.0.0.1",), **keywords):
        """text: the configuration after the defaults, with {} for each
        listener. listeners: hosts to listen on, or listening sockets.
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
        """Send a command to the stats socket."""
        with support.connect("unix:" + self.socket) as sock:
            sock.sendall(words.encode() + b"\n")
            return support.read_all(sock)[0].decode()


# For accept_proxy.

CLIENT, SERVER = ("192.0.2.77", 51234), ("198.51.100.1", 443)
CLIENT6, SERVER6 = ("2001:db8::4d", 51234), ("2001:db8::1", 443)
V1 = b"PROXY TCP4 192.0.2.77 198.51.100.1 51234 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::4d 2001:db8::1 51234 443\r\n"
assert V1 == v1(CLIENT, SERVER) and V1_6 == v1(CLIENT6, SERVER6)
UNIX_BLOCK = unix_block(b"/run/client", b"/run/server")
TLVS = tlv(0x01, "h2") + tlv(AUTHORITY, "example.org") + \
    tlv(0x05, b"unique\0id") + tlv(0x04, b"") + tlv(0xEE, bytes(range(99)))
# Headers, and the client address expected in the log; None: its own.
HEADERS = {
    "v1 TCP4": (v1(CLIENT, SERVER), "192.0.2.77:51234"),
    "v1 TCP6": (v1(CLIENT6, SERVER6), "[2001:db8::4d]:51234"),
    "v2 TCP4": (v2(CLIENT, SERVER), "192.0.2.77:51234"),
    "v2 TCP6": (v2(CLIENT6, SERVER6), "[2001:db8::4d]:51234"),
    "v2 with TLVs": (v2(CLIENT, SERVER, TLVS), "192.0.2.77:51234"),
    "v2 LOCAL": (v2_header(LOCAL, UNSPEC, b""), None),
}
MORE_HEADERS = {
    "v1 ports": (v1(("0.0.0.0", 0), ("255.255.255.255", 65535)), "0.0.0.0:0"),
    "v1 longest of IPv4": (
        v1(("255.255.255.254", 65535), ("255.255.255.255", 65535)),
        "255.255.255.254:65535"),
    "v1 longest of IPv6": (
        v1((":".join(["ffff"] * 8), 65535), (":".join(["fffe"] * 8), 65535)),
        "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
    "v1 in capitals": (v1(("2001:DB8::4D", 51234), SERVER6),
                       "[2001:db8::4d]:51234"),
    "v1 in full": (
        v1(("2001:0db8:0000:0000:0000:0000:0000:004d", 51234), SERVER6),
        "[2001:db8::4d]:51234"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN with addresses": (
        b"PROXY UNKNOWN 192.0.2.77 198.51.100.1 51234 443\r\n", None),
    "v1 UNKNOWN with anything": (
        b"PROXY UNKNOWN  \xff \x01 PROXY TCP4\r\r\n", None),
    "v1 longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "v2 LOCAL with addresses": (
        v2_header(LOCAL, TCP4, inet_block(CLIENT, SERVER)), None),
    "v2 LOCAL of anything": (v2_header(LOCAL, 0xFF, b"anything"), None),
    "v2 LOCAL with TLVs": (v2_header(LOCAL, UNSPEC, TLVS), None),
    "v2 UNSPEC": (v2_header(PROXY, UNSPEC, b""), None),
    "v2 UNSPEC with anything": (v2_header(PROXY, UNSPEC, b"anything"), None),
    # In the specification, unimplemented families count as UNSPEC.
    "v2 UDP4": (v2_header(PROXY, 0x12, inet_block(CLIENT, SERVER)), None),
    "v2 UDP6": (v2_header(PROXY, 0x22, inet_block(CLIENT6, SERVER6)), None),
    "v2 Unix datagrams": (v2_header(PROXY, 0x32, UNIX_BLOCK), None),
    "v2 Unix": (v2_header(PROXY, UNIX, UNIX_BLOCK), "unix:/run/client"),
    "v2 Unix with TLVs": (v2_header(PROXY, UNIX, UNIX_BLOCK + TLVS),
                          "unix:/run/client"),
    "v2 longest": (v2(CLIENT, SERVER, tlv(0x04, bytes(2048 - 12 - 3))),
                   "192.0.2.77:51234"),
    "v2 longest LOCAL": (v2_header(LOCAL, UNSPEC, bytes(2048)), None),
}
ALL_HEADERS = {**HEADERS, **MORE_HEADERS}
HELLO_FIRST = r'no PROXY header: connection began with "\\x16\\x03\\x01'


def own_address(client):
    return support.tcp_address(client.sock)


def wait_line(t, peer, words):
    """Wait for a connection's log line."""
    return t.wait_log(f"tunnel: (warning: )?{re.escape(peer)} -> {words}")
