"""EXAMPLES in tunnel(8): each command is run as it is printed, with the
addresses of a test in place of those of other hosts.
"""

import os
import re
import shlex

import pytest

import programs
import support
from documents import displays
from support import need, run


def examples():
    """Its displays, but those of its subsections: the lines, joined."""
    rest = displays("tunnel.8", "systemd")[0]
    found = displays("tunnel.8", "EXAMPLES")
    return [text.replace("\\\n", "").splitlines()
            for text in found[:found.index(rest)]]


# A word in each display of commands.
MAKE, TRUST, COMMAND, NEAR, SHARED = TESTED = (
    "-g redis.example.org", "BEGIN CERTIFICATE", "/usr/bin/sort",
    "ca=cert.pem", "psk=psk")


def commands(word):
    """The commands of the one display that has the word."""
    lines, = [lines for lines in examples() if word in " ".join(lines)]
    assert all(line.startswith("$ ") for line in lines)
    return [line[2:] for line in lines]


@pytest.fixture
def shell(room):
    """Run a command of the manual in the private directory; its output."""
    os.mkdir(room.path("bin"))
    os.symlink(support.TUNNEL, room.path("bin/tunnel"))
    path = room.path("bin") + ":" + os.environ["PATH"]
    return lambda text: run("sh", "-euc", text, cwd=room.dir,
                            env={**os.environ, "PATH": path})


@pytest.fixture
def start(room):
    """Start a tunnel by a command of the manual."""

    def call(text, *more, **addresses):
        name, *words = shlex.split(text)
        assert name == "tunnel"
        for key, to in {"accept": "127.0.0.1:0", **addresses}.items():
            words = [f"{key}={to}" if word.startswith(key + "=") else word
                     for word in words]
        cut = words.index("--") if "--" in words else len(words)
        for file in ("tunnel.pem", "cert.pem", "psk"):
            words = [re.sub(f"={file}$", f"={room.path(file)}", word)
                     for word in words]
        return room.tunnel(*words[:cut], *more, *words[cut:])

    return call


def elsewhere(text, t):
    """A command for redis-cli, with the address of this one."""
    host, port = t.address.split(":")
    if " -p " not in text:
        text = text.replace("redis-cli", "redis-cli -p 6379")
    return re.sub("-p [0-9]+", f"-p {port}", text.replace(
        "redis.example.org", host))


@pytest.fixture
def server(room, shell):
    """A redis server, on a port; its address."""
    need("redis-cli")
    address = support.free_port()
    p = room.start("redis-server", [
        "redis-server", "--port", address.split(":")[1], "--save", "",
        "--bind", "127.0.0.1", "--dir", room.dir], executable=programs.REDIS)
    p.wait_log("[Rr]eady to accept connections")
    return address


def test_both_ends_of_redis(shell, start, server):
    make, serve = commands(MAKE)
    shell(make)
    t = start(serve, connect=server)
    trust, ask = commands(TRUST)
    shell(trust)
    assert shell(elsewhere(ask, t) + " ping") == b"PONG\n"
    serve, ask = commands(NEAR)
    near = start(serve, "server_name=redis.example.org", connect=t.address)
    assert shell(elsewhere(ask, near)) == b"PONG\n"


def test_shared_key(shell, start, server):
    make, far, near = commands(SHARED)
    shell(make)
    t = start(near, connect=start(far, connect=server).address)
    assert shell(elsewhere("redis-cli ping", t)) == b"PONG\n"


def test_command(room, start):
    os.symlink(room.certs.server, room.path("tunnel.pem"))
    serve, = commands(COMMAND)
    client = room.client(start(serve))
    client.send(b"2\n3\n1\n")
    client.close_notify()
    assert client.read_all() == (b"1\n2\n3\n", "close_notify")


def test_ssh_config(room):
    """ssh understands it, and tunnel accepts what ssh would run."""
    need("ssh")
    lines, = [lines for lines in examples() if lines[0].startswith("Host ")]
    conf = room.write("ssh_config", "\n".join(lines) + "\n")
    out = run("ssh", "-G", "-F", conf, "host.example.org").decode()
    command, = re.findall(r"^proxycommand (.*)$", out, re.M)
    name, *words = command.replace("%h", "127.0.0.1").split()
    assert os.path.basename(name) == "tunnel"
    run(support.TUNNEL, "-t", *words, f"ca={room.certs.ca}")


def test_each_command_has_a_test():
    """But those that put a renewed certificate into effect."""
    tested = sum(map(commands, TESTED), [])
    lines = [line for lines in examples() for line in lines
             if line[:2] == "$ "]
    assert sorted(lines) == sorted("$ " + line for line in tested)
