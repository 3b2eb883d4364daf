"""tunnel-stunnel(7): each old configuration and its conversion serve the same
clients.
"""

import os
import re
import ssl

import pytest

import peers
import support
from certificates import Authority
from documents import displays
from support import read_exactly

STUNNEL = [path for path in (
    os.path.join(support.TOP, "build/stunnel/usr/bin/stunnel"),
    "/usr/bin/stunnel") if os.path.exists(path)]
HITCH = [path for path in (
    os.path.join(support.TOP, "build/hitch/usr/sbin/hitch"),
    "/usr/sbin/hitch") if os.path.exists(path)]

SERVER, MAIL, CLIENT, NAMES = (displays("tunnel-stunnel.7", heading) for heading
                               in ("A SERVER WITH CLIENT CERTIFICATES",
                                   "A SERVER WITH SEVERAL SECTIONS", "A CLIENT",
                                   "A SERVER WITH SEVERAL NAMES"))

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can name a "
                                "user")


# The port in a line, and what comes before an address.
ACCEPT = re.compile(r'^(?:accept = .*?|    port = ")(\d+)"?$', re.M)
CONNECT = re.compile(r'^(connect = |backend = ")[^"\n]+', re.M)


class Place:
    """The configurations of the manual, with files and backends that exist here.
    A network namespace makes all their ports available.
    """

    def __init__(self, room):
        self.room = room
        self.backend = room.backend().serve(support.echo).address
        self.authority = Authority(room.dir)
        # stunnel writes there after it has changed its user.
        self.run = room.path("run")
        os.mkdir(self.run)
        os.chmod(self.run, 0o777)
        os.chmod(room.dir, 0o755)
        certs = room.certs
        self.files = {"server": certs.server, "clients": self.authority.crt,
                      "ca": certs.ca, "example.org": certs.server,
                      "example.net": certs.rsa}

    def fill(self, text):
        text = re.sub(r"/etc/(?:stunnel|hitch)/([\w.]+)\.pem",
                      lambda m: self.files[m.group(1)], text)
        host, port = self.backend.rsplit(":", 1)
        text = CONNECT.sub(lambda m: m.group(1) + (
            f"[{host}]:{port}" if m.group(1).startswith("backend") else
            self.backend), text)
        return text.replace("redis.example.org", "localhost").replace(
            "/run/stunnel/", self.run + "/")

    @staticmethod
    def wait_for(texts, listening):
        for text in texts:
            for port in ACCEPT.findall(text):
                support.wait_for(lambda: support.is_refused(
                    "127.0.0.1:" + port) != listening, "port " + port)

    def stunnel(self, text):
        need_one(STUNNEL, "stunnel")
        text = self.fill(text)
        if "foreground" not in text:
            text = "foreground = yes\n" + text
        if "pid = " not in text:
            text = "pid =\n" + text
        p = self.room.start("stunnel", [STUNNEL[0], self.room.write(
            "stunnel.conf", text)])
        self.wait_for([text], True)
        return p

    def hitch(self, text):
        need_one(HITCH, "hitch")
        p = self.room.start("hitch", [HITCH[0], "--config=" + self.room.write(
            "hitch.conf", self.fill(text))])
        self.wait_for([text], True)
        return p

    def tunnels(self, texts):
        found = [self.room.start(f"tunnel{i}", [
            support.TUNNEL, "-c", self.room.write(f"tunnel{i}.conf",
                                                  self.fill(text))])
            for i, text in enumerate(texts)]
        self.wait_for(texts, True)
        return found


def need_one(paths, name):
    if not paths:
        pytest.skip(f"{name} is not installed")


def in_turn(place, program, old, new, check):
    """Check the old program, then the new one."""
    p = program(old)
    check()
    p.stop()
    place.wait_for([old], False)
    for p in place.tunnels(new):
        assert p.alive(), p.log()
    check()


@pytest.fixture
def place(room):
    with support.namespace():
        yield Place(room)


def answer(address, ctx=None):
    """What comes before the echo of a word."""
    if ctx:
        client = peers.Client(address, ctx).handshake()
    else:
        client = support.connect(address)
    client.sendall(b"hello") if ctx is None else client.send(b"hello")
    data = b""
    while not data.endswith(b"hello"):
        data += read_exactly(client, 1)
    client.close()
    return data.removesuffix(b"hello")


def test_server_with_client_certificates(room, place):
    known = peers.context(room.certs, client=place.authority.leaf("app"))
    unknown = peers.context(room.certs)

    def check():
        assert answer("127.0.0.1:6514", known) == b""
        with pytest.raises((ssl.SSLError, AssertionError, OSError)):
            answer("127.0.0.1:6514", unknown)

    in_turn(place, place.stunnel, SERVER[0], SERVER[1:], check)


def test_several_sections(room, place):
    ctx = peers.context(room.certs)

    def check():
        assert answer("127.0.0.1:993", ctx) == b""
        assert answer("127.0.0.1:995", ctx) == b""

    in_turn(place, place.stunnel, MAIL[0], MAIL[1:3], check)


def test_client(room, place):
    server = room.tunnel(f"connect={place.backend}")
    place.backend = server.address.replace("127.0.0.1", "localhost")

    def check():
        assert answer("127.0.0.1:6379") == b""

    in_turn(place, place.stunnel, CLIENT[0], CLIENT[1:], check)


def test_several_names(room, place):
    ctx = peers.context(room.certs, alpn=["h2"])

    def check():
        assert answer("127.0.0.1:443", ctx).startswith(
            b"\r\n\r\n\0\r\nQUIT\n")

    in_turn(place, place.hitch, NAMES[0], NAMES[1:], check)


@pytest.mark.parametrize("old,names", [
    (SERVER, ["syslog"]), (MAIL, ["imaps", "pop3s"]), (CLIENT, ["redis-client"])])
def test_each_section_is_an_instance(room, old, names):
    """-t suggests one for each section of the old file."""
    p = support.run_tunnel("-t", "-c", room.write("stunnel.conf", old[0]))
    for name in names:
        assert f"tunnel@{name}" in p.stderr
