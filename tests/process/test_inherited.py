"""Inherited descriptors and variables: a tunnel does not pass them on."""

import os
import socket
import subprocess

import pytest

import support
from support import assert_echoes, wait_for

# One number below and one above the descriptors opened by the test.
NUMBERS = 7, 300

looks_into_it = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can inspect a tunnel")


@pytest.fixture
def stray(room):
    """Arguments for Popen that open a file as these descriptors; and the file.
    """
    path = room.write("stray", "secret")
    f = room.keep(open(path))

    def inherit():
        for number in NUMBERS:
            os.dup2(f.fileno(), number)

    return {"preexec_fn": inherit, "close_fds": False}, path


def has(pid, path):
    return path in support.open_files(pid).values()


@looks_into_it
@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_stray_descriptor_is_closed(room, stray, mode):
    keywords, path = stray
    backend = room.backend().serve(support.echo)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, **keywords) as p:
        wait_for(lambda: has(p.pid, path), "the file in a program")
        p.stdin.close()
    t = room.tunnel(f"connect={backend.address}", mode, **keywords)
    client = room.client(t)
    client.send(b"hello")
    assert support.read_exactly(client, 5) == b"hello"
    pids = wait_for(lambda: len(t.workers()) > 0 and t.pids(), "a worker")
    assert not any(has(pid, path) for pid in pids)


@pytest.mark.parametrize("mode", ["workers=1", "mode=fork", "-i"])
def test_command_has_three_descriptors(room, stray, mode):
    """Two of the three are the connection."""
    words = [mode, "--", "sh", "-c", "ls -l /proc/self/fd; ls /proc/$$/fd"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        with listener.accept()[0] as sock:
            t = room.tunnel(*words, ready=mode != "-i", stdin=sock, **stray[0])
    text = room.client(peer if mode == "-i" else t).read_all()[0].decode()
    assert stray[1] not in text
    assert text.split()[-3:] == ["0", "1", "2"]


@looks_into_it
def test_listening_socket_is_kept(room, stray):
    """accept names it, and it may have any number."""
    keywords = dict(stray[0])
    backend = room.backend().serve(support.echo)
    with socket.create_server(("127.0.0.1", 0)) as s:
        def inherit(before=keywords["preexec_fn"]):
            before()
            os.dup2(s.fileno(), 200)

        keywords["preexec_fn"] = inherit
        t = room.tunnel("accept=fd:200", f"connect={backend.address}",
                        **keywords)
        address = support.tcp_address(s)
    assert_echoes(room, address)
    assert not any(has(pid, stray[1]) for pid in t.pids())


WITHOUT = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x",
           "LISTEN_OTHER": "x", "NOTIFY_SOCKET": "/nowhere",
           "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1",
           "LD_LIBRARY_PATH": "/nowhere", "LD_BIND_NOW": "1",
           "REMOTE_HOST": "evil", "REMOTE_PORT": "0"}
WITH = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "LISTENER": "x",
        "NOTIFY_SOCKET_2": "x", "OLD_": "x", "EMPTY": ""}


@pytest.mark.parametrize("mode", ["workers=1", "mode=fork"])
def test_environment_of_a_command(room, mode):
    """The inherited environment, without the tunnel's own variables."""
    t = room.tunnel(mode, "--", "cat", "/proc/self/environ",
                    env={**WITH, **WITHOUT})
    client = room.client(t)
    port = client.sock.getsockname()[1]
    text = client.read_all()[0].decode()
    assert text.endswith("\0")
    variables = sorted(text.split("\0")[:-1])
    assert variables == sorted(f"{key}={value}" for key, value in {
        **WITH, "REMOTE_HOST": "127.0.0.1", "REMOTE_PORT": port}.items())
