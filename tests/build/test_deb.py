"""make deb: lintian finds no error; bare systems install the package, upgrade
it under load, and remove it.
"""

import glob
import os
import re
import shutil
import subprocess

import pytest

from support import TOP, wait_for

DEBIANS = ["bookworm", "trixie"]
# Directories that belong to dpkg and systemd.
THEIRS = re.compile(r"/(var/(lib/(dpkg|systemd|private)|cache|log)|run|tmp|proc|"
                    r"sys|dev|etc/([.]pwd[.]lock|(passwd|group|shadow|gshadow)-"
                    r"|machine-id|systemd/system))(/|$)")

pytestmark = [pytest.mark.more, pytest.mark.seconds(600)]


def run(*words, **keywords):
    p = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, timeout=300, **keywords)
    assert p.returncode == 0, p.stdout
    return p.stdout


@pytest.fixture(scope="module")
def deb():
    for program in "dpkg-buildpackage", "dh":
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    run("make", "-C", TOP, "O=build/package", "TUNNEL=build/package/tunnel",
        "deb")
    deb, = glob.glob(os.path.join(TOP, "build/package/deb/tunnel_*.deb"))
    return deb


def test_lintian_finds_no_error(deb):
    if not shutil.which("lintian"):
        pytest.skip("lintian is not installed")
    run("lintian", "--fail-on", "error", *glob.glob(
        os.path.join(os.path.dirname(deb), "*.changes")))


def later(deb, directory):
    """The same package with a higher version."""
    tree = directory / "tree"
    run("dpkg-deb", "-R", deb, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+later",
                              control.read_text()))
    path = directory / "later.deb"
    run("dpkg-deb", "--root-owner-group", "-b", tree, path)
    return path


class Machine:
    """A booted Debian, from tests/machine."""

    def __init__(self, suite):
        self.p = subprocess.Popen(
            [os.path.join(TOP, "tests/machine"), suite,
             os.path.join(TOP, "build/machine", suite), "sh", "-c",
             'echo "$MACHINE" | tr "\\n" " "; echo; read line'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        self.words = self.p.stdout.readline().split()
        if not self.words:
            why = self.p.stderr.read().strip().split("\n")[-1]
            assert self.p.wait(10) == 77, why
            pytest.skip(why)

    def run(self, *words, **keywords):
        return run(*self.words, *words, **keywords)

    def copy(self, path, to):
        with open(path, "rb") as f:
            subprocess.run([*self.words, "sh", "-c", f"cat >{to}"], stdin=f,
                           check=True, timeout=60)

    def files(self):
        return {name for name in self.run("find", "/", "-xdev").splitlines()
                if not THEIRS.match(name)}

    def client(self, port):
        """A connection to a port inside, by openssl from outside."""
        return subprocess.Popen(
            ["nsenter", "-t", self.words[2], "-n", "openssl", "s_client",
             "-quiet", "-connect", f"127.0.0.1:{port}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL)

    def stop(self):
        self.p.communicate("", timeout=60)


@pytest.fixture(params=DEBIANS)
def machine(request):
    m = Machine(request.param)
    yield m
    m.stop()


def is_echoed(client, word):
    client.stdin.write(word)
    client.stdin.flush()
    return client.stdout.readline() == word


CONFIG = """accept = 127.0.0.1:4433
cert = /etc/tunnel/cert.pem
user = tunnel
exec = cat
"""


def test_life_of_a_package(deb, machine, tmp_path):
    """Install, configure, upgrade under a connection, remove, purge."""
    before = machine.files()
    machine.copy(deb, "/root/tunnel.deb")
    machine.copy(later(deb, tmp_path), "/root/later.deb")
    machine.run("dpkg", "-i", "/root/tunnel.deb")
    machine.run("id", "tunnel")
    assert machine.run("systemctl", "list-units", "--plain", "--no-legend",
                       "--all", "tunnel*.service") == ""

    machine.run("tunnel", "-g", "localhost", "-o", "/etc/tunnel/cert.pem")
    machine.run("sh", "-c", "cat >/etc/tunnel/echo.conf", input=CONFIG)
    machine.run("systemctl", "start", "tunnel@echo")
    # This Debian is as small as it can be: it has no /bin/kill.
    machine.run("systemctl", "reload", "tunnel@echo")
    pid = machine.run("systemctl", "show", "-P", "MainPID", "tunnel@echo")
    client = machine.client(4433)
    try:
        assert is_echoed(client, b"before\n")
        machine.run("dpkg", "-i", "/root/later.deb")
        wait_for(lambda: "takes over" in machine.run(
            "journalctl", "-u", "tunnel@echo", "--no-pager"), "the upgrade")
        assert is_echoed(client, b"after\n")
    finally:
        client.kill()
        client.communicate()
    assert machine.run("systemctl", "show", "-P", "MainPID",
                       "tunnel@echo") == pid

    machine.run("dpkg", "-r", "tunnel")
    assert machine.run("systemctl", "show", "-P", "ActiveState",
                       "tunnel@echo") == "inactive\n"
    machine.run("dpkg", "-P", "tunnel")
    machine.run("rm", "/root/tunnel.deb", "/root/later.deb")
    assert machine.files() - before == {
        "/etc/tunnel", "/etc/tunnel/cert.pem", "/etc/tunnel/echo.conf"}
