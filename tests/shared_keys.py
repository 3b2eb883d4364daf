"""Pre-shared keys: key files, and programs and hellos that use one."""

import copy
import hashlib
import os
import struct
import subprocess

import support
import wire
from reloads import Configured
from support import need, wait_for
from wire import sha256, vector

KEYS = {"app1": "0123456789abcdef" * 4, "app2": "ff" * 16, "app 3": "3c" * 48}
OTHER = "00" * 31 + "01"
NAME = "app1"
SUITE = {"1.2": "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256",
         "1.3": r"TLS_(CHACHA20_POLY1305|AES_128_GCM)_SHA256"}


def write(room, keys=None, name="psk"):
    """Write a file of keys; return its path."""
    text = "".join(f"{identity}:{key}\n" for identity, key
                   in (KEYS if keys is None else keys).items())
    path = room.write("new " + name, text)
    os.chmod(path, 0o600)
    os.rename(path, room.path(name))
    return room.path(name)


class Keyed(Configured):
    """A tunnel with a key file, by default without a certificate."""

    def __init__(self, room, *arguments, keys=None, **values):
        values = {"cert": None, "psk": write(room, keys), **values}
        super().__init__(room, *arguments, **values)
        self.address = self.t.address

    def change(self, keys, **values):
        write(self.room, keys)
        return self.reload(**values)


def openssl(version, name=NAME, key=None, *more):
    """A command that works as a filter; like the ones below, it lacks the
    address.
    """
    return ["openssl", "s_client", "-quiet", "-no_ign_eof",
            "-tls" + version.replace(".", "_"),
            "-psk_identity", name, "-psk", key or KEYS[name], *more]


def gnutls(version, name=NAME, key=None, *more):
    return ["gnutls-cli", "--logfile=/dev/null", "--insecure",
            f"--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}:"
            "-KX-ALL:+ECDHE-PSK:+CHACHA20-POLY1305", f"--pskusername={name}",
            f"--pskkey={key or KEYS[name]}", *more]


def talk(command, address, data=b"hello\n"):
    """What the command prints of an echoing server; its messages; its status.
    """
    host, port = address.rsplit(":", 1)
    need(command[0])
    to = ["-connect", address] if command[0] == "openssl" else [
        f"--port={port}", host]
    p = subprocess.Popen([*command, *to], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        p.stdin.write(data)
        p.stdin.flush()
        out = p.stdout.readline()
        p.stdin.close()
        p.stdin = None
        rest, err = p.communicate(timeout=support.DEADLINE)
    except BrokenPipeError:
        p.stdin = None
        out, (rest, err) = b"", p.communicate(timeout=support.DEADLINE)
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
    return out + rest, err.decode(errors="replace"), p.returncode


def alert_of(said):
    """The alert number in the messages of openssl s_client."""
    return int(said.rsplit("SSL alert number ", 1)[1].split()[0])


def stunnel(room, text, name="stunnel"):
    """Start stunnel; {address} in its configuration stands for its address."""
    program = os.path.join(support.TOP, "build/stunnel/usr/bin/stunnel")
    if not os.path.exists(program):
        program = need("stunnel")
    address = support.free_port()
    conf = room.write(name + ".conf", "foreground = yes\npid =\n" +
                      text.format(address=address, dir=room.dir))
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(
        os.path.join(support.TOP, "build/stunnel/usr/lib", x)
        for x in ("", "x86_64-linux-gnu", "x86_64-linux-gnu/stunnel")))
    p = room.start(name, [program, conf], env=environment)

    def listens():
        assert p.alive(), p.log()
        return not support.is_refused(address)

    wait_for(listens, "stunnel to listen")
    return address


# PSK by hand: RFC 8446 sections 4.2.9 and 4.2.11, and the key schedule.

MODES = 45
PSK_KE, PSK_DHE_KE = b"\0", b"\1"


def expand(secret, label, context, size=32):
    info = struct.pack(">H", size) + vector(1, b"tls13 " + label) + vector(
        1, context)
    return sha256(secret, info + b"\1")[:size]


def binder(key, transcript):
    early = sha256(bytes(32), key)
    base = expand(early, b"ext binder", hashlib.sha256(b"").digest())
    return sha256(expand(base, b"finished", b""),
                  hashlib.sha256(transcript).digest())


class Offer:
    """A hello that offers these identities, each with its key in hexadecimal,
    or with a binder.
    """

    def __init__(self, hello, *offered, modes=PSK_DHE_KE):
        self.hello = copy.copy(hello)
        found = self.hello.extensions = dict(hello.extensions)
        found.pop(MODES, None)
        found.pop(wire.PSK, None)
        if modes is not None:
            found[MODES] = vector(1, modes)
        self.offered = offered

    def identities(self):
        return vector(2, b"".join(
            vector(2, name if isinstance(name, bytes) else name.encode()) +
            bytes(4) for name, _ in self.offered))

    def written(self):
        found, names = self.hello.extensions, self.identities()
        binders = [key if isinstance(key, bytes) else bytes(32)
                   for _, key in self.offered]
        found[wire.PSK] = names + vector(2, b"".join(
            vector(1, x) for x in binders))
        size = len(found[wire.PSK]) - len(names)
        begin = self.hello.written()[5:-size]
        for i, (_, key) in enumerate(self.offered):
            if not isinstance(key, bytes):
                binders[i] = binder(bytes.fromhex(key), begin)
        found[wire.PSK] = names + vector(2, b"".join(
            vector(1, x) for x in binders))
        return self.hello.written()


# Servers that echo, or that answer with the reversed line.

def listening(p, address):
    def listens():
        assert p.alive(), p.log()
        return not support.is_refused(address)

    wait_for(listens, f"{p.name} to listen")
    return address


def openssl_server(room, version, name=NAME, key=None):
    address = support.free_port()
    return listening(room.start("s_server", [
        need("openssl"), "s_server", "-rev", "-nocert", "-accept", address,
        "-tls" + version.replace(".", "_"), "-psk_identity", name,
        "-psk", key or KEYS[name]]), address)


def gnutls_server(room, version, name=NAME, key=None):
    address = support.free_port()
    secrets = write(room, {name: key or KEYS[name]}, "gnutls-secrets")
    return listening(room.start("gnutls-serv", [
        need("gnutls-serv"), "--echo", "--pskpasswd", secrets,
        "--port=" + address.rpartition(":")[2],
        f"--priority=NORMAL:-VERS-ALL:+VERS-TLS{version}:-KX-ALL:+ECDHE-PSK"],
        stdin=subprocess.DEVNULL), address)


def stunnel_server(room, version, name=NAME, key=None):
    secrets = write(room, {name: key or KEYS[name]}, "stunnel-secrets")
    backend = room.backend().serve(support.echo)
    return stunnel(room, f"""[a]
accept = {{address}}
connect = {backend.address}
ciphers = PSK
sslVersion = TLSv{version}
PSKsecrets = {secrets}
""", "stunnel-server")


def tunnel_server(room, version, name=NAME, key=None, **values):
    backend = room.backend().serve(support.echo)
    path = write(room, {name: key or KEYS[name]}, "server-psk")
    values = {"psk": path, "cert": None, "tls_min": version,
              "tls_max": version, "connect": backend.address, **values}
    room.write("server.conf", "accept = 127.0.0.1:0\nlog_level = debug\n" +
               "".join(f"{key} = {value}\n" for key, value in values.items()
                       if value is not None))
    return room.tunnel("-c", room.path("server.conf")).address
