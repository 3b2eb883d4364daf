"""Fixtures for the tests of processes."""

import fcntl
import os
import shutil
import socket
import struct

import pytest

import support
from launchers import Program
from privileged import LIBC, NOBODY, system


@pytest.fixture
def network():
    """A network namespace with every port free, for processes started by this
    thread.
    """
    with open("/proc/thread-self/ns/net") as old:
        try:
            system(LIBC.unshare(0x40000000), "CLONE_NEWNET")
        except OSError as e:
            pytest.skip(f"no network namespace: {e}")
        with socket.socket() as s:
            up = struct.pack("16sh14x", b"lo", 1)
            fcntl.ioctl(s, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP
        yield
        system(LIBC.setns(old.fileno(), 0), "setns")


@pytest.fixture
def everyone(room, monkeypatch):
    """An unprivileged user's own tunnel and certificate, in a directory open
    to all.
    """
    os.chmod(room.dir, 0o755)
    program = shutil.copy(support.TUNNEL, room.path("tunnel"))
    cert = shutil.copy(room.certs.server, room.path("cert.pem"))
    os.chown(cert, NOBODY.pw_uid, NOBODY.pw_gid)
    monkeypatch.setattr(support, "TUNNEL", program)
    return f"cert={cert}"


@pytest.fixture
def jail(room, monkeypatch):
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # they need /proc
    os.chmod(room.dir, 0o755)
    os.mkdir(room.path("jail"))
    return room.path("jail")


@pytest.fixture
def program(room, monkeypatch):
    p = Program(room)
    monkeypatch.setattr(support, "TUNNEL", p.path)
    return p
