"""Launchers of a tunnel: inetd, a supervisor, a shell; and the program file
that they start.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess

import pytest

import support
from support import TOP, run


INETD = [os.path.join(TOP, "build/inetd/usr/sbin/inetd"), "/usr/sbin/inetd"]


class Inetd:
    """As root, inetd would write /run/inetd.pid, which may belong to another
    inetd.  So root starts it, and owns its files, as nobody.
    """

    def __init__(self, room, program):
        self.room = room
        self.user = pwd.getpwuid(os.geteuid())
        self.keywords = {}
        if os.geteuid() == 0:
            self.user = pwd.getpwnam("nobody")
            self.keywords = {"user": self.user.pw_uid,
                             "group": self.user.pw_gid, "extra_groups": []}
        os.chmod(room.dir, 0o755)
        os.chown(room.dir, self.user.pw_uid, self.user.pw_gid)
        self.program = self.own(shutil.copy(program, room.path("inetd")))
        self.tunnel = self.own(shutil.copy(support.TUNNEL,
                                           room.path("tunnel")))
        self.cert = self.own(shutil.copy(room.certs.server,
                                         room.path("cert.pem")))
        self.log = self.own(room.write("tunnel.log", ""))

    def own(self, path):
        os.chown(path, self.user.pw_uid, self.user.pw_gid)
        return path

    def start(self, line):
        """Start inetd with this line of inetd.conf, prefixed by a free port.
        """
        address = support.free_port()
        conf = self.own(self.room.write("inetd.conf", f"{address} {line}\n"))
        self.room.start("inetd", [self.program, "-d", conf], **self.keywords)
        support.wait_for(lambda: self.listens(address), "inetd to listen")
        return address

    @staticmethod
    def listens(address):
        """Look for the listener without a connection, which would start a
        tunnel.
        """
        port = int(address.split(":")[1])
        with open("/proc/net/tcp") as f:
            return f" 0100007F:{port:04X} 00000000:0000 0A " in f.read()

    def serve(self, *words, wait="nowait"):
        ours = support.words(["-i", f"cert={self.cert}", f"log={self.log}",
                              "log_level=debug", *words])
        return self.start(" ".join([
            "stream tcp", wait, self.user.pw_name, self.tunnel, "tunnel",
            *ours]))


class Supervisor:
    """The receiver of sd_notify(3) messages."""

    def __init__(self, address):
        """address: as in the environment."""
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind(re.sub("^@", "\0", address))
        self.sock.settimeout(support.DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def next(self):
        """The next message, as a dictionary, and its sender."""
        text, ancillary, _, _ = self.sock.recvmsg(4096, 256)
        (_, _, credentials), = ancillary
        pid, _, _ = struct.unpack("3i", credentials)
        return dict(line.split("=", 1)
                    for line in text.decode().splitlines()), pid

    def wait(self, word):
        """Wait for this message; no message of another kind may come before
        it.
        """
        said, pid = self.next()
        assert said.get(word) == "1", said
        return said, pid

    def rest(self):
        """The remaining messages."""
        self.sock.setblocking(False)
        said = b""
        try:
            while True:
                said += self.sock.recv(4096)
        except BlockingIOError:
            return said
        finally:
            self.sock.settimeout(support.DEADLINE)


class Daemon:
    """A tunnel in the background: not our child, found by its pidfile."""

    def __init__(self, room, *arguments, accept="127.0.0.1:0", before=(),
                 log="daemon.log", stdin=subprocess.DEVNULL):
        """before: a command that executes the tunnel."""
        self.pidfile = room.path("pidfile")
        self.log_file = room.path(log)
        self.p = subprocess.run(
            [*before, *support.command(
                f"accept={accept}", f"pidfile={self.pidfile}",
                f"cert={room.certs.server}", f"log={self.log_file}",
                "log_level=debug", *arguments)],
            stdin=stdin, capture_output=True, text=True,
            timeout=support.DEADLINE)
        self.pid = None
        if self.p.returncode == 0:
            with open(self.pidfile) as f:
                self.pid = int(f.read())
            room.keep(self)

    def log(self):
        with open(self.log_file) as f:
            return f.read()

    @property
    def address(self):
        return re.search(r"listening on (\S+)", self.log()).group(1)

    def alive(self):
        try:
            with open(f"/proc/{self.pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    def close(self):
        if self.alive():
            os.kill(self.pid, signal.SIGTERM)
            support.wait_for(lambda: not self.alive(), "the daemon's end")


class Program:
    """The program file that tunnels are started from, and its replacements."""

    def __init__(self, room):
        self.room = room
        os.chmod(room.dir, 0o755)
        self.real = support.TUNNEL
        self.path = room.path("tunnel")
        self.put()

    def put(self):
        """Replace the file by another copy of the same program."""
        shutil.copy(self.real, self.room.path("new"))
        os.rename(self.room.path("new"), self.path)

    def script(self, text, mode=0o755):
        new = self.room.write("new", text.replace("REAL", self.real))
        os.chmod(new, mode)
        os.rename(new, self.path)

    def but(self, text):
        """Replace the file by a script: the real program for -t, otherwise
        text.
        """
        self.script(f'#!/bin/sh\n[ "$1" = -t ] && exec REAL "$@"\n{text}\n')

    def runs_in(self, t):
        """Whether the tunnel runs the current file."""
        return os.path.samefile(f"/proc/{t.pid}/exe", self.path)


def is_static():
    return os.path.exists(support.TUNNEL) and shutil.which("readelf") and \
        b"INTERP" not in run("readelf", "-lW", support.TUNNEL, status=None)


# Name lookup by glibc and LD_PRELOAD need shared libraries.
dynamic = pytest.mark.skipif(bool(is_static()), reason="linked statically")
IN_A_DEV_OF_ITS_OWN = """
set -e
mount --bind /dev/null "$0/null"
mount --bind /dev/urandom "$0/urandom"
mount --bind "$0" /dev
exec "$@"
"""


def datagrams(pid):
    """The Unix datagram sockets of a process."""
    with open("/proc/net/unix") as f:
        inodes = {fields[6] for fields in map(str.split, f)
                  if fields[4] == "0002"}
    found = [inode for inode in support.sockets(pid) if inode in inodes]
    assert found
    return found
