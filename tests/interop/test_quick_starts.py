"""The quick starts of the README work as printed."""

import os
import signal
import subprocess

import pytest

import documents
import support
from programs import REDIS
from support import namespace, need

CERTIFICATE, WEB, CLIENT, REDIS_BLOCK, MAIL, COMMAND, KEY, SERVICE = \
    documents.blocks("Quick starts")

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can have "
                                "a network of its own")


@pytest.fixture
def typed(room):
    """Run code blocks in a shell, in an empty directory and a network namespace;
    return the output.
    """
    os.mkdir(room.path("bin"))
    os.mkdir(room.path("here"))
    os.symlink(support.TUNNEL, room.path("bin/tunnel"))
    # A machine that runs tests is busy.
    os.chmod(room.write("bin/sleep", "#!/bin/sh\nexec /bin/sleep 3\n"), 0o755)
    environment = {**os.environ, "PATH": room.path("bin") + ":" +
                   os.environ["PATH"]}

    def call(*blocks, before=""):
        script = before + "".join(blocks) + ": >../done\n"
        with namespace(), open(room.path("err.log"), "w") as err:
            p = subprocess.Popen(
                ["sh", "-c", script], cwd=room.path("here"), env=environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err,
                text=True, start_new_session=True)
        try:
            support.wait_for(lambda: os.path.exists(room.path("done")),
                             "the end of what was typed")
        finally:
            os.killpg(p.pid, signal.SIGTERM)
            out = p.communicate(timeout=10)[0]
        return out

    return call


@pytest.fixture
def redis():
    """The command that starts a redis server in the namespace."""
    if not os.path.exists(REDIS):
        pytest.skip("redis-tools is not installed")
    need("redis-cli")
    return f"ln -s {REDIS} redis-server; ./redis-server --save '' " \
        ">/dev/null & sleep 0.5\n"


def test_web_and_client(typed):
    need("curl")
    pages = typed(CERTIFICATE, WEB, CLIENT)
    assert pages.count("<h1>Directory listing for /</h1>") == 2


def test_redis(typed, redis):
    assert typed(CERTIFICATE, REDIS_BLOCK, before=redis) == "PONG\n"


def test_mail(typed):
    """The server sends its greeting; the user types nothing for a while."""
    server = """python3 -c '
import socket
s = socket.create_server(("127.0.0.1", 143)).accept()[0]
s.sendall(b"* OK IMAP\\r\\n")
s.recv(1)' & sleep 0.5
/bin/sleep 6 | {
"""
    out = typed(CERTIFICATE, MAIL, "}\n", before=server)
    assert "* OK IMAP" in out and "Verify return code: 0 (ok)" in out


def test_command(typed):
    assert typed(CERTIFICATE, COMMAND) == "a\nb\n"


def test_two_hosts(typed, redis):
    assert typed(KEY, before=redis) == "PONG\n"


def test_service():
    """It needs systemd, so only its names are checked."""
    assert "systemctl enable --now tunnel@imaps" in SERVICE
    assert "tunnel -t -c /etc/tunnel/imaps.conf" in SERVICE
