"""What a tunnel accepts on and connects to: all kinds of sockets, inherited
ones, commands, and the single connection of inetd.
"""

import os
import signal
import socket
import subprocess

import pytest

import support
from support import Task, assert_echoes, read_all, read_exactly

says_where_to = support.direct("its log has the address of the next tunnel")

PYTHON = "/usr/bin/python3"


# The accepting side.

@says_where_to
def test_accept_ipv4(room, echo):
    t = room.tunnel("accept=127.0.0.1:0", f"connect={echo.address}")
    assert_echoes(room, t)
    t.wait_log(r"127\.0\.0\.1:\d+ -> " + echo.address)


@says_where_to
def test_accept_ipv6(room, echo, ipv6):
    t = room.tunnel("accept=[::1]:0", f"connect={echo.address}")
    assert t.address.startswith("[::1]:")
    assert_echoes(room, t)
    t.wait_log(r"\[::1\]:\d+ -> " + echo.address)


@says_where_to
def test_accept_unix(room, echo):
    path = room.path("accept")
    t = room.tunnel(f"accept=unix:{path}", f"connect={echo.address}")
    assert t.address == "unix:" + path
    assert_echoes(room, t)
    t.wait_log(r"unix: -> " + echo.address)
    assert t.stop() == 0
    assert not os.path.exists(path)


def test_accept_unix_over_a_socket_left_behind(room, echo):
    path = room.path("accept")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
    t = room.tunnel(f"accept=unix:{path}", f"connect={echo.address}")
    assert_echoes(room, t)


@pytest.mark.parametrize("accept", ["0", ":0", "*:0"])
def test_accept_everywhere(room, echo, accept):
    """Without a host: IPv4 and IPv6, on one port."""
    t = room.tunnel(f"accept={accept}", f"connect={echo.address}")
    port = t.address.rsplit(":", 1)[1]
    assert_echoes(room, "127.0.0.1:" + port)
    t.wait_log(r"^tunnel: 127\.0\.0\.1:\d+ -> ")


def test_accept_everywhere_ipv6(room, echo, ipv6):
    t = room.tunnel("accept=0", f"connect={echo.address}")
    port = t.address.rsplit(":", 1)[1]
    assert_echoes(room, "[::1]:" + port)
    t.wait_log(r"^tunnel: \[::1\]:\d+ -> ")


def test_accept_a_name(room, echo):
    """The tunnel listens on every address of the name."""
    t = room.tunnel("accept=localhost:0", f"connect={echo.address}")
    found = {ai[4][0] for ai in socket.getaddrinfo(
        "localhost", 0, type=socket.SOCK_STREAM)}
    t.wait_log("listening on", count=len(found))
    assert {a.rsplit(":", 1)[0].strip("[]") for a in t.addresses} == found
    for address in t.addresses:
        assert_echoes(room, address)


def test_accept_a_descriptor(room, echo):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        t = room.tunnel(f"accept=fd:{s.fileno()}", f"connect={echo.address}",
                        pass_fds=[s.fileno()])
        assert t.address == support.tcp_address(s)
    assert_echoes(room, t)


def test_accept_several(room, echo):
    path = room.path("accept")
    t = room.tunnel("accept=127.0.0.1:0", f"accept=unix:{path}",
                    "accept=127.0.0.1:0", f"connect={echo.address}")
    t.wait_log("listening on", count=3)
    assert len(set(t.addresses)) == 3
    for address in t.addresses:
        assert_echoes(room, address)


# The connecting side.

@says_where_to
def test_connect_ipv6(room, ipv6):
    backend = room.backend(family=socket.AF_INET6, to=("::1", 0))
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    assert_echoes(room, t)
    t.wait_log(f" -> {backend.address.replace('[', '.').replace(']', '.')} ")


@says_where_to
def test_connect_unix(room):
    backend = room.backend(family=socket.AF_UNIX, to=room.path("backend"))
    backend.serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    assert_echoes(room, t)
    t.wait_log(f" -> {backend.address} ")


@pytest.mark.parametrize("host", ["", ":", "localhost:"])
def test_connect_to_a_name_or_without_a_host(room, echo, host):
    """localhost may have an IPv6 address first, without a listener."""
    port = echo.address.split(":")[1]
    t = room.tunnel(f"connect={host}{port}")
    for _ in range(2):
        assert_echoes(room, t)


# Commands.

@pytest.fixture(params=["words", "exec"])
def command_tunnel(request, room):
    """A tunnel with a command after --, or in the configuration."""

    def make(*words):
        if request.param == "exec":
            return room.tunnel("exec=" + " ".join(words))
        return room.tunnel("--", *words)

    return make


def test_command_cat(room, command_tunnel, version):
    """An echo after a half-close: all of it returns."""
    t = command_tunnel("cat")
    data = os.urandom(1 << 20)
    client = room.client(t, version)

    def request():
        client.send(data)
        client.close_notify()

    sending = Task(request)
    assert client.read_all() == (data, "close_notify")
    sending.result()
    t.wait_log(r" -> cat .* in=1048576 out=1048576 .* closed$")


def test_command_that_replies_at_the_end_of_its_input(room, command_tunnel):
    client = room.client(command_tunnel("sort"))
    client.send(b"pear\napple\nmelon\n")
    client.close_notify()
    assert client.read_all() == (b"apple\nmelon\npear\n", "close_notify")


def test_command_ends_without_reading_its_input(room, version):
    """Its output is nevertheless delivered whole."""
    t = room.tunnel("--", "head", "-c", "3000000", "/dev/zero")
    for n in range(1, 6):
        client = room.client(t, version, rcvbuf=65536)
        client.send(b"nobody reads this" * 1000)
        assert client.read_all() == (b"\0" * 3000000, "close_notify")
        client.close_notify()
        client.close()
        t.wait_log(r"in=\d+ out=3000000 .* closed$", count=n)


def test_command_ends_before_its_input(room):
    """A client that continues to send gets no error."""
    t = room.tunnel("--", "sh", "-c", "read line; echo $line")
    client = room.client(t)
    client.send(b"once\n")
    assert read_exactly(client, 5) == b"once\n"
    assert client.read_all() == (b"", "close_notify")
    t.wait_log("command .* exited: status 0")
    client.send(b"x" * 100000)
    client.close_notify()
    client.fin()
    t.wait_log(" closed$")


LEADER = """
import os, select, sys, time
select.select([0], [], [])  # the input waits to be read
if os.fork() == 0:
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    while data := os.read(0, 4096):
        os.write(1, data)
"""


def test_command_that_leaves_its_socket_to_a_child(room, version):
    """The input belongs to the child: the tunnel discards none of it."""
    t = room.tunnel("--", PYTHON, "-c", LEADER, room.path("go"))
    client = room.client(t, version)
    client.send(b"before")
    t.wait_log("command .* exited: status 0")
    client.send(b" and after")
    room.write("go", "")
    assert read_exactly(client, 16) == b"before and after"
    client.send(b"the end")
    client.close_notify()
    assert client.read_all() == (b"the end", "close_notify")
    t.wait_log(" in=23 out=23 .* closed$")


FULL = """
import os, sys, time
os.set_blocking(1, False)
written, since = 0, time.monotonic()
while time.monotonic() - since < 0.3:
    try:
        written += os.write(1, bytes(65536))
        since = time.monotonic()
    except BlockingIOError:
        time.sleep(0.01)
with open(sys.argv[1], "w") as f:
    f.write(str(written))
"""


def test_command_ends_with_output_pending(room, version):
    """All buffers are full, and more input arrives than the command reads."""
    path = room.path("written")
    t = room.tunnel("--", PYTHON, "-c", FULL, path)
    client = room.client(t, version, rcvbuf=65536)
    client.send(b"nobody reads this" * 5000)
    t.wait_log("command .* exited: status 0")
    with open(path) as f:
        written = int(f.read())
    client.send(b"nor this" * 5000)
    got, end = client.read_all()
    assert (len(got), end) == (written, "close_notify")
    client.close_notify()
    client.close()
    t.wait_log(f" out={written} .* closed$")


def test_command_killed_by_a_signal(room, version):
    t = room.tunnel("--", "sh", "-c", "echo partial; kill -9 $$")
    client = room.client(t, version)
    assert client.read_all() == (b"partial\n", "reset")
    t.wait_log("command killed by signal 9")


def test_missing_command(room, version):
    """A command that cannot run must not look like a proper end."""
    os.chmod(room.write("gone", "#!/bin/sh\n"), 0o755)
    t = room.tunnel("--", room.path("gone"))
    os.unlink(room.path("gone"))
    client = room.client(t, version)
    got, end = client.read_all()
    assert got == b""
    assert end != "close_notify"
    t.wait_log(room.path("gone") + ": No such file or directory")


def test_command_never_sees_a_truncation_as_an_end(room, version):
    script = ("import sys; d = sys.stdin.buffer.read(); "
              f"open({room.path('eof')!r}, 'w')")
    t = room.tunnel("--", PYTHON, "-c", script)
    client = room.client(t, version)
    client.send(b"half a job")
    # The command has to run before the end arrives.
    support.wait_for(t.commands, "the command")
    client.fin()
    t.wait_log("command .* exited: signal 15")
    t.wait_log(" truncated$")
    assert not os.path.exists(room.path("eof"))


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_command_just_started_never_sees_an_abort_as_an_end(room, end):
    """The abort may even precede exec(2) of the command."""
    t = room.tunnel("--", "sh", "-c",
                    f"cat > /dev/null; touch {room.path('eof')}")
    for n in range(1, 51):
        client = room.client(t)
        client.send(b"half a job")
        if end == "fin":
            client.fin()
        else:
            client.reset()
        t.wait_log("command .* exited: ", count=n)
    assert t.log().count(" exited: signal 15\n") == 50
    assert not os.path.exists(room.path("eof"))


def test_command_never_sees_a_reset_as_an_end(room):
    t = room.tunnel("--", "sh", "-c",
                    f"cat > {room.path('part')}; touch {room.path('eof')}")
    client = room.client(t)
    client.send(b"half a job")
    support.wait_for(lambda: os.path.exists(room.path("part")) and
                     os.path.getsize(room.path("part")),
                     "the start of the input")
    client.reset()
    t.wait_log("command .* exited: signal 15")
    assert not os.path.exists(room.path("eof"))


@pytest.fixture
def in_pid_namespace(room, monkeypatch):
    """Start a tunnel in a PID namespace of its own."""
    monkeypatch.setattr(support, "UNDER", [
        *support.UNDER, "unshare", "--pid", "--fork"])
    if subprocess.run([*support.UNDER, "true"], check=False).returncode != 0:
        pytest.skip("no permission for a PID namespace")
    started = []

    def start(*words):
        started.append(room.tunnel(*words))
        return started[0]

    yield start
    for t in started:  # unshare(1) does not forward signals
        support.kill(t.workers(), signal.SIGTERM)
        assert t.wait() == 0


HEIR = """
exec 3<&0
(
    trap 'touch $0/term; exit' TERM
    cat <&3 >$0/part
    touch $0/eof
) &
"""


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_child_of_a_command_never_sees_an_abort_as_an_end(
        room, in_pid_namespace, end):
    """The child holds the socket after the command has ended."""
    t = in_pid_namespace("--", "sh", "-c", HEIR, room.dir)
    client = room.client(t)
    client.send(b"half a job")
    support.wait_for(lambda: support.text_of(room.path("part")),
                     "the start of the input")
    t.wait_log("command .* exited: status 0")
    client.fin() if end == "fin" else client.reset()
    support.wait_for(lambda: os.path.exists(room.path("term")) or
                     os.path.exists(room.path("eof")), "an end")
    assert not os.path.exists(room.path("eof"))


DAEMON = """
(
    trap 'touch $0/term' TERM
    until [ -e $0/go ]; do sleep 0.01; done
    touch $0/done
) </dev/null >/dev/null &
echo begun
"""


def test_daemon_of_a_command_is_not_aborted(room, in_pid_namespace):
    """A process that has closed the connection's socket gets no signal."""
    t = in_pid_namespace("--", "sh", "-c", DAEMON, room.dir)
    client = room.client(t)
    assert client.read_all() == (b"begun\n", "close_notify")
    t.wait_log("command .* exited: status 0")
    client.reset()
    t.wait_log(" client reset$")
    room.write("go", "")
    support.wait_for(lambda: os.path.exists(room.path("done")),
                     "the daemon's end")
    assert not os.path.exists(room.path("term"))


def test_client_address_of_a_command(room):
    t = room.tunnel("--", "sh", "-c", "echo $REMOTE_HOST $REMOTE_PORT")
    client = room.client(t)
    host, port = client.sock.getsockname()
    assert client.read_all() == (f"{host} {port}\n".encode(), "close_notify")


def test_ipv6_client_address_of_a_command(room, ipv6):
    t = room.tunnel("accept=[::1]:0", "--", "sh", "-c",
                    "echo $REMOTE_HOST $REMOTE_PORT")
    client = room.client(t)
    port = client.sock.getsockname()[1]
    assert client.read_all() == (f"::1 {port}\n".encode(), "close_notify")


def test_command_has_no_signals_blocked(room):
    """Nor does it inherit descriptors other than 0, 1 and 2."""
    t = room.tunnel("--", "sh", "-c",
                    "grep -E 'SigBlk|SigIgn' /proc/self/status; "
                    "exec 3</dev/null; readlink /proc/$$/fd/*")
    text = room.client(t).read_all()[0].decode()
    blocked, ignored, *links = text.splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & 1 << signal.SIGPIPE - 1 == 0
    assert len(links) == 4, links  # including the one to /dev/null


def test_commands_are_reaped(room):
    """Commands that end before their connections, and those that outlive them.
    """
    t = room.tunnel(support.ALONE, "--", "sh", "-c", "read line")
    worker = t.pid if support.MODE == "fork" else t.workers()[0]
    for n in range(1, 21):
        client = room.client(t)
        if n % 2 == 0:
            client.send(b"line\n")
            assert client.read_all() == (b"", "close_notify")
            client.close_notify()
            client.close()
        else:
            client.reset()
        t.wait_log("command .* exited: ", count=n)

    def begun():  # including zombies
        with open(f"/proc/{worker}/task/{worker}/children") as f:
            return f.read().split()

    support.wait_for(lambda: not begun(), "no child to be left")


# inetd.

def inetd(room, echo, sock, *arguments, **keywords):
    t = room.tunnel("-i", f"connect={echo.address}", *arguments, ready=False,
                    stdin=sock, **keywords)
    sock.close()
    return t


@says_where_to
def test_inetd_on_an_accepted_socket(room, echo, version):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        t = inetd(room, echo, listener.accept()[0])
    assert_echoes(room, peer, version=version)
    assert t.wait() == 0
    host, port = peer.getsockname()
    assert f"{host}:{port} -> {echo.address} TLSv{version} " in t.log()
    assert t.log().endswith(" closed\n")


def test_inetd_on_a_socket_pair(room, echo, version):
    peer, sock = socket.socketpair()
    peer.settimeout(support.DEADLINE)
    t = inetd(room, echo, sock)
    assert_echoes(room, peer, version=version)
    assert t.wait() == 0


def test_inetd_with_a_command(room, version):
    peer, sock = socket.socketpair()
    peer.settimeout(support.DEADLINE)
    t = room.tunnel("-i", "--", "cat", ready=False, stdin=sock, stdout=sock)
    sock.close()
    assert_echoes(room, peer, version=version)
    assert t.wait() == 0


def test_inetd_never_logs_to_its_client(room, echo):
    """Descriptors 0, 1 and 2 are the same socket, as under inetd."""
    peer, sock = socket.socketpair()
    peer.settimeout(support.DEADLINE)
    t = inetd(room, echo, sock, stdout=sock, stderr=sock)
    client = assert_echoes(room, peer)  # any other byte would be an error
    client.fin()
    assert t.wait() == 0
    assert read_all(peer) == (b"", "eof")


@pytest.mark.parametrize("arguments", [
    ["junk"], ["cert=missing"], ["colour=red"], ["-c", "missing.conf"],
    ["log_level=loud"],
])
def test_inetd_never_complains_to_its_client(room, echo, arguments):
    peer, sock = socket.socketpair()
    peer.settimeout(support.DEADLINE)
    t = inetd(room, echo, sock, *arguments, stdout=sock, stderr=sock)
    assert read_all(peer) == (b"", "eof")
    assert t.wait() == 2


def test_inetd_without_a_socket(room, echo):
    p = subprocess.run(
        [support.TUNNEL, "-i", f"connect={echo.address}",
         f"cert={room.certs.server}"], stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=support.DEADLINE)
    assert p.returncode == 1
