"""ssh through TLS: one tunnel as its ProxyCommand, on pipes, and another one
in front of a real sshd.
"""

import hashlib
import os
import pwd
import random
import shlex

import pytest

import programs
import support
from support import need, run

FILE = random.Random(6).randbytes(8 * 1024 * 1024)
USER = pwd.getpwuid(os.geteuid())
# As root, sshd needs a user and a directory for privilege separation.
IN_A_ROOM_OF_ITS_OWN = """
set -e
mount --bind "$0" /etc/passwd
mount -t tmpfs tmpfs /run
mkdir /run/sshd
exec "$@"
"""
CONF = """
ListenAddress {address}
HostKey {dir}/host
AuthorizedKeysFile {dir}/user.pub
PidFile none
PermitRootLogin yes
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


@pytest.fixture
def sshd(room):
    """The address of an sshd."""
    need("ssh", "scp", "ssh-keygen")
    if not os.path.exists(USER.pw_shell):
        pytest.skip("the user has no shell")
    program = programs.unpacked("sshd", "usr/sbin/sshd")
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
            room.path(name))
    address = support.free_port()
    text = CONF.format(address=address, dir=room.dir)
    # since OpenSSH 9.8, 10.0
    for option, name in (("SshdSessionPath", "sshd-session"),
                         ("SshdAuthPath", "sshd-auth")):
        path = program.replace("usr/sbin/sshd", f"usr/lib/openssh/{name}")
        if os.path.exists(path):
            text += f"{option} {path}\n"
    command = [program, "-D", "-e", "-f", room.write("sshd_config", text)]
    if os.geteuid() == 0:
        with open("/etc/passwd") as f:
            passwd = f.read()
        if "\nsshd:" not in passwd:
            passwd += "sshd:x:65534:65534::/run/sshd:/usr/sbin/nologin\n"
        command = ["unshare", "-m", "sh", "-c", IN_A_ROOM_OF_ITS_OWN,
                   room.write("passwd", passwd), *command]
    programs.serves(room, "sshd", command, address)
    with open(room.path("host.pub")) as f:
        room.write("known_hosts", "server " + f.read())
    return address


@pytest.fixture
def options(room, sshd):
    """Options of ssh, with a tunnel in front of sshd, reached by name."""
    t = room.tunnel(f"connect={sshd}")

    def make(*words):
        proxy = shlex.join(support.command(
            "-i", "client=yes", f"connect={t.address}", f"ca={room.certs.ca}",
            "server_name=localhost", f"log={room.path('proxy.log')}", *words))
        return ["-F", "none", "-i", room.path("user"), "-o",
                "BatchMode=yes", "-o",
                f"UserKnownHostsFile={room.path('known_hosts')}",
                "-o", f"ProxyCommand={proxy}"]

    return make


def closed(room, count=1):
    """The log lines of ended connections."""
    def lines():
        text = support.text_of(room.path("proxy.log"))
        return [x for x in text.splitlines() if x.endswith(" closed")]

    found = support.wait_for(lambda: len(lines()) >= count and lines(),
                             "the log line of a connection")
    assert all(" stdin -> 127.0.0.1:" in line for line in found)


def ssh(options, *command, **keywords):
    return run("ssh", *options, f"{USER.pw_name}@server", *command,
               timeout=2 * support.DEADLINE, stderr=None, **keywords)


def test_command(room, options):
    """Input, output and exit status."""
    out = ssh(options(), "sha256sum; echo $SSH_CONNECTION; exit 7", stdin=FILE,
              status=7)
    assert hashlib.sha256(FILE).hexdigest().encode() in out
    room.write("file", FILE)
    out = ssh(options(), f"cat {room.path('file')}")
    assert hashlib.sha256(out).digest() == hashlib.sha256(FILE).digest()
    closed(room, 2)


def test_both_ways_at_once(room, options):
    assert ssh(options("user=nobody") if os.geteuid() == 0 else options(),
               "cat", stdin=FILE) == FILE


def test_scp(room, options):
    room.write("file", FILE)
    server = f"{USER.pw_name}@server:"
    run("scp", "-q", *options(), room.path("file"), server +
        room.path("there"), timeout=2 * support.DEADLINE)
    run("scp", "-q", *options(), server + room.path("there"),
        room.path("back"), timeout=2 * support.DEADLINE)
    with open(room.path("back"), "rb") as f:
        assert f.read() == FILE
    closed(room, 2)


def test_unknown_authority(room, options, authority):
    """Nothing reaches sshd, and ssh fails."""
    words = [word.replace(room.certs.ca, authority.crt)
             for word in options()]
    out = run("ssh", *words, f"{USER.pw_name}@server", "true", status=255)
    assert b"closed" in out or b"reset" in out
    assert "certificate" in support.text_of(room.path("proxy.log"))
