"""Programs that start a tunnel and pass it sockets, or wait for its messages:
inetd, systemd-socket-activate, systemd's NOTIFY_SOCKET, start-stop-daemon; and
the manual's examples for them.

inetd is that of Debian's openbsd-inetd, installed or unpacked in build/inetd.
systemd-socket-activate and systemd-analyze are in the package systemd,
start-stop-daemon is in dpkg.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import support
from documents import displays
from launchers import Supervisor
from support import PATH, TOP, Task, assert_echoes, need, read_exactly, run

ENV = "/usr/bin/env"


def wait_text(path, pattern):
    """Wait until a file contains the pattern; return the match."""

    def found():
        with open(path, errors="replace") as f:
            return re.search(pattern, f.read(), re.M)

    return support.wait_for(found, f"{pattern!r} in {path}")


# inetd.

def test_inetd_in_front_of_a_backend(room, inetd, echo, version):
    address = inetd.serve(f"connect={echo.address}")
    for _ in range(3):
        assert_echoes(room, address, version=version)
    wait_text(inetd.log, rf" info: 127\.0\.0\.1:\d+ -> {echo.address} "
              rf"TLSv{version} .* in=5 out=5 .* closed$")


def test_inetd_in_front_of_a_tls_server(room, inetd, echo, version):
    """Plaintext in, TLS out."""
    ca = inetd.own(shutil.copy(room.certs.ca, room.path("ca.crt")))
    server = room.tunnel(f"connect={echo.address}")
    address = inetd.serve("client=yes", f"connect={server.address}",
                          f"ca={ca}", "server_name=localhost",
                          f"tls_max={version}")
    for _ in range(3):
        sock = room.connect(address)
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        sock.shutdown(socket.SHUT_WR)
        assert support.read_all(sock) == (b"", "eof")
    wait_text(inetd.log, rf" info: 127\.0\.0\.1:\d+ -> {server.address} "
              rf"TLSv{version} .* in=5 out=5 .* closed$")


def test_inetd_serves_several_at_once(room, inetd, echo):
    address = inetd.serve(f"connect={echo.address}")
    clients = [room.client(address) for _ in range(5)]
    for client in reversed(clients):
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"


def test_inetd_and_a_classic_filter(room, inetd, version):
    """A filter that reads to the end of its input, and then writes."""
    client = room.client(inetd.serve("--", "sort"), version)
    client.send(b"pear\napple\n")
    client.close_notify()
    assert client.read_all() == (b"apple\npear\n", "close_notify")
    wait_text(inetd.log, " -> sort .* in=11 out=11 .* closed$")


def test_inetd_and_cat(room, inetd):
    data = os.urandom(1 << 20)
    client = room.client(inetd.serve("--", "/bin/cat"))
    sending = Task(client.send, data)
    assert read_exactly(client, len(data)) == data
    sending.result()
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")


MAIL = r"""
echo "somebody calls" >&2
printf '220 mail.example.org\r\n'
while read -r verb rest; do
	case $verb in
	QUIT*)	printf '221 bye\r\n'; exit ;;
	*)	echo "what is $verb" >&2; printf '250 %s\r\n' "$verb" ;;
	esac
done
"""


def test_inetd_and_a_small_mail_server(room, inetd, version):
    """A line-by-line dialogue; the server's errors do not reach the client."""
    script = inetd.own(room.write("mail", MAIL))
    client = room.client(inetd.serve("--", "/bin/sh", script), version)
    assert read_exactly(client, 22) == b"220 mail.example.org\r\n"
    client.send(b"HELO me\r\n")
    assert read_exactly(client, 10) == b"250 HELO\r\n"
    client.send(b"MAIL it\r\nQUIT\r\n")
    assert client.read_all() == (b"250 MAIL\r\n221 bye\r\n", "close_notify")


def test_inetd_and_the_client_address_of_a_command(room, inetd):
    client = room.client(inetd.serve("--", "/bin/sh", inetd.own(room.write(
        "who", "echo $REMOTE_HOST $REMOTE_PORT"))))
    port = client.sock.getsockname()[1]
    assert client.read_all() == (f"127.0.0.1 {port}\n".encode(),
                                 "close_notify")


def test_inetd_with_wait(room, inetd, echo):
    """With "wait", inetd passes the listening socket."""
    address = inetd.serve(f"connect={echo.address}", wait="wait.1")
    sock = room.connect(address)
    line = wait_text(inetd.log, r"error: .*$").group(0)
    assert "-i" in line and "listening" in line
    sock.close()
    with open(inetd.log) as f:
        assert all(" error: " in text for text in f.read().splitlines())


# systemd-socket-activate passes connections with --accept, listening sockets
# without; the first descriptor is 3, or with --inetd 0.

@pytest.fixture
def activate(room):
    """Start it with its options and a tunnel's arguments; returns the process,
    and the addresses on which it listens.
    """
    program = need("systemd-socket-activate")

    def start(options, *words, listen=None):
        listen = listen or [support.free_port()]
        p = room.start("activate", [
            program, *(word for x in listen for word in ("-l", x)),
            *options.split(), *support.command(
                f"cert={room.certs.server}", "log_level=debug", *words)])
        p.wait_log("Listening on", count=len(listen))
        return p, listen

    return start


@pytest.mark.parametrize("options,words", [
    ("", []), ("", ["accept=fd:3"]), ("--inetd", ["accept=fd:0"]),
])
def test_activated_listener(room, activate, echo, options, words):
    p, (address,) = activate(options, *words, f"connect={echo.address}")
    for _ in range(3):
        assert_echoes(room, address)
    assert f"listening on {address}\n" in p.log()
    assert p.stop() == 0


@pytest.mark.parametrize("words", [[], ["accept=fd:3", "accept=fd:4"]])
def test_activated_listeners(room, activate, echo, words):
    both = [support.free_port(), room.path("socket")]
    p, _ = activate("", *words, f"connect={echo.address}", listen=both)
    for address in reversed(both):
        assert_echoes(room, address.replace("/", "unix:/", 1))
    assert p.stop() == 0
    assert os.path.exists(both[1])  # not the tunnel's to remove


def test_activated_listeners_of_which_one_is_named(room, activate, echo):
    """Only the socket named by accept is used."""
    both = [support.free_port(), support.free_port()]
    p, _ = activate("", "accept=fd:4", f"connect={echo.address}",
                    listen=both)
    assert_echoes(room, both[1])
    assert f"listening on {both[0]}" not in p.log()


def test_activated_listeners_beside_another(room, activate, echo):
    p, (address,) = activate("", "accept=fd:3", "accept=127.0.0.1:0",
                             f"connect={echo.address}")
    assert_echoes(room, address)
    other = p.wait_log("listening on 127", count=2).split()[-1]
    assert other != address
    assert_echoes(room, other)


@pytest.mark.parametrize("options,words", [
    ("--accept --inetd", ["-i"]), ("--accept", ["-i", "accept=fd:3"]),
])
def test_activated_connection(room, activate, echo, version, options, words):
    p, (address,) = activate(options, *words, f"connect={echo.address}")
    for n in range(1, 4):
        assert_echoes(room, address, version=version)
        p.wait_log(rf"127\.0\.0\.1:\d+ -> {echo.address} TLSv{version} .* "
                   "closed$", count=n)


@pytest.mark.parametrize("options,words", [
    ("--accept --inetd", ["-i"]), ("--accept", ["-i", "accept=fd:3"]),
])
def test_activated_connection_and_a_command(room, activate, options, words):
    _, (address,) = activate(options, *words, "--", "cat")
    for _ in range(2):
        assert_echoes(room, address)


@pytest.mark.parametrize("options,words,number", [
    ("--inetd", ["-i"], 0), ("", ["-i", "accept=fd:3"], 3),
])
def test_listener_instead_of_a_connection(room, activate, echo, options,
                                          words, number):
    p, (address,) = activate(options, *words, f"connect={echo.address}")
    with contextlib.suppress(ConnectionResetError):  # it may have exited
        room.connect(address)
    assert p.wait() == 2
    said = [line for line in p.log().splitlines() if "tunnel: " in line]
    assert len(said) == 1
    assert re.match(f"{support.TIME} tunnel: error: ", said[0])
    assert "listening" in said[0]
    assert f"descriptor {number}" in said[0] or f"fd:{number}" in said[0]


def test_connection_instead_of_a_listener(room, activate, echo):
    p, (address,) = activate("--accept", "accept=fd:3",
                             f"connect={echo.address}")
    with contextlib.suppress(ConnectionResetError):  # it may have exited
        room.connect(address)
    said = p.wait_log("tunnel: error: ")
    assert "accept=fd:3" in said or "accept: fd:3" in said
    assert "listening socket" in said


def test_activated_listeners_stay_over_a_reload(room, activate, echo):
    both = [support.free_port(), room.path("socket")]
    p, _ = activate("", f"connect={echo.address}", listen=both)
    assert_echoes(room, both[0])
    for n in range(1, 4):
        p.signal(signal.SIGHUP)
        p.wait_log("reloaded$", count=n)
        for address in both:
            assert_echoes(room, address.replace("/", "unix:/", 1))
    assert "no longer listening" not in p.log()
    assert p.log().count("listening on") == 2
    assert p.stop() == 0


def test_command_does_not_inherit_passed_sockets(room, activate):
    """Neither as variables nor as descriptors."""
    with Supervisor(room.path("notify")) as supervisor:
        p, (address,) = activate(f"-E NOTIFY_SOCKET={supervisor.address}",
                                 "--", "sh", "-c",
                                 "env; readlink /proc/self/fd/*")
        text = room.client(address).read_all()[0].decode()
        supervisor.wait("READY")
        p.stop()
    assert "REMOTE_HOST=" in text
    assert "LISTEN_" not in text and "NOTIFY_" not in text
    assert text.count("socket:") == 2  # the connection only


def test_command_of_one_connection_does_not_inherit_passed_sockets(room,
                                                                   activate):
    _, (address,) = activate("--accept", "-i", "accept=fd:3", "--", ENV)
    text = room.client(address).read_all()[0].decode()
    assert "REMOTE_HOST=" in text and "LISTEN_" not in text


# LISTEN_FDS set by hand.

def fails(room, echo, before=(), **environment):
    """The error message, with accept left to the environment."""
    p = subprocess.run(
        [*before, *support.command(f"connect={echo.address}",
                                   f"cert={room.certs.server}")],
        env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=support.DEADLINE)
    assert (p.returncode, p.stdout) == (2, "")
    assert p.stderr.startswith("tunnel: error: ")
    assert p.stderr.count("\n") == 1
    return p.stderr


@pytest.mark.parametrize("pid", ["1", "", "junk", "parent"])
def test_sockets_passed_to_another_process(room, echo, pid):
    """To our parent, for example, whose environment we inherit."""
    if pid == "parent":
        pid = str(os.getpid())
    said = fails(room, echo)
    assert "accept" in said
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        assert fails(room, echo, LISTEN_PID=pid, LISTEN_FDS="1") == said


FOR_US = ["sh", "-c", 'LISTEN_PID=$$ exec "$@" 3</dev/null', "sh"]


@pytest.mark.parametrize("number", ["1", "junk", "-1", "1x", "99999999999",
                                    "2147483647"])
def test_passed_descriptor_is_no_listener(room, echo, number):
    said = fails(room, echo, FOR_US, LISTEN_FDS=number)
    assert ("fd:3" if number == "1" else "accept") in said


# NOTIFY_SOCKET.

@pytest.fixture(params=["path", "abstract"])
def supervisor(request, room):
    if request.param == "path":
        return room.keep(Supervisor(room.path("notify")))
    return room.keep(Supervisor("@" + room.dir))


def supervised(room, supervisor, *arguments):
    return room.tunnel(*arguments, ready=False, env={
        **os.environ, "NOTIFY_SOCKET": supervisor.address})


def test_notify_from_start_to_end(room, supervisor, echo):
    t = supervised(room, supervisor, f"connect={echo.address}")
    said, pid = supervisor.wait("READY")
    assert pid == t.pid and said["STATUS"]
    assert_echoes(room, t)  # at once
    before = time.monotonic_ns() // 1000
    t.signal(signal.SIGHUP)
    said, pid = supervisor.wait("RELOADING")
    assert pid == t.pid
    assert before <= int(said["MONOTONIC_USEC"]) <= \
        time.monotonic_ns() // 1000
    assert supervisor.wait("READY")[1] == t.pid
    assert_echoes(room, t)
    assert t.stop() == 0
    assert supervisor.wait("STOPPING")[1] == t.pid
    assert supervisor.rest() == b""


def test_notify_of_a_failed_reload(room, supervisor, echo):
    text = f"accept = 127.0.0.1:0\nconnect = {echo.address}\n" \
        f"cert = {room.certs.server}\n"
    conf = room.write("tunnel.conf", text)
    t = supervised(room, supervisor, "-c", conf)
    supervisor.wait("READY")
    room.write("tunnel.conf", text + "colour = red\n")
    t.signal(signal.SIGHUP)
    supervisor.wait("RELOADING")
    supervisor.wait("READY")
    t.wait_log("reload failed")
    assert_echoes(room, t)


def test_notify_of_a_stop_while_draining(room, supervisor, backend):
    """Sent while connections may still finish."""
    t = supervised(room, supervisor, f"connect={backend.address}")
    supervisor.wait("READY")
    client = room.client(t)
    server = room.keep(backend.accept())
    t.signal(signal.SIGTERM)
    supervisor.wait("STOPPING")
    server.sendall(b"still served")
    assert read_exactly(client, 12) == b"still served"
    server.close()
    assert client.read_all() == (b"", "close_notify")
    client.close()
    assert t.wait() == 0


def test_no_notify_of_a_failed_start(room, supervisor, echo):
    """One of two addresses cannot be bound."""
    t = supervised(room, supervisor, f"connect={echo.address}",
                   "accept=127.0.0.1:0", "accept=192.0.2.1:0")
    assert t.wait() == 1
    assert supervisor.rest() == b""


def test_notify_without_a_supervisor(room, echo):
    """A missing supervisor is not an error."""
    t = room.tunnel(f"connect={echo.address}", env={
        **os.environ, "NOTIFY_SOCKET": room.path("gone")})
    assert_echoes(room, t)
    assert t.stop() == 0


@pytest.mark.parametrize("address", ["", "@", "relative", "/" + "x" * 200])
def test_notify_to_an_invalid_address(room, echo, address):
    t = room.tunnel(f"connect={echo.address}", env={
        **os.environ, "NOTIFY_SOCKET": address})
    assert_echoes(room, t)


# start-stop-daemon, which compares the executable of the process.

@pytest.fixture
def daemon_conf(room, echo):
    need("start-stop-daemon")
    if os.geteuid() != 0:
        pytest.skip("needs root: only root can inspect a tunnel")
    if support.UNDER:
        pytest.skip("the executable is another program")
    conf = room.write("tunnel.conf", "\n".join(
        f"{key} = {value}" for key, value in (
            ("accept", "127.0.0.1:0"), ("connect", echo.address),
            ("cert", room.certs.server), ("daemon", "yes"),
            ("pidfile", room.path("pidfile")), ("log", room.path("log")))))
    yield conf
    if os.path.exists(room.path("pidfile")):
        with open(room.path("pidfile")) as f:
            os.kill(int(f.read()), signal.SIGKILL)


def test_start_stop_daemon(room, daemon_conf):
    program = need("start-stop-daemon")
    pidfile = room.path("pidfile")
    us = ["--quiet", "--pidfile", pidfile, "--exec", support.TUNNEL]
    start = [program, "--start", *us, "--",
             *support.words(["-c", daemon_conf])]
    assert run(*start) == b""
    with open(pidfile) as f:
        pid = int(f.read())
    address = wait_text(room.path("log"), r"listening on (\S+)").group(1)
    assert_echoes(room, address)
    run(*start, status=1)  # already running
    run(program, "--status", *us[1:])
    assert run(program, "--stop", *us, "--retry", "30") == b""
    assert not os.path.exists(pidfile)
    support.wait_for(lambda: not support.is_alive(pid), "the exit")
    run(program, "--status", *us[1:], status=3)


# Examples in tunnel(8).

def displayed(room, word):
    """The display with the word, with the paths of a test."""
    text, = (x for x in displays("tunnel.8") if word in x)
    text = text.replace("/usr/local/sbin/tunnel", support.TUNNEL)
    return text.replace("/run/tunnel.pid", room.path("pidfile")).replace(
        "/etc/tunnel.conf", room.path("tunnel.conf"))


@pytest.fixture
def units(room):
    """A directory with the units, as installed, and the manual's socket unit.
    """
    need("systemd-analyze")
    services = [room.path(name) for name in ("tunnel.service",
                                             "tunnel@.service")]
    run("make", "-s", "-C", TOP, f"O={room.dir}", f"PREFIX={room.dir}",
        *services)
    os.mkdir(room.path("sbin"))
    os.symlink(support.TUNNEL, room.path("sbin/tunnel"))
    room.write("tunnel.socket", displayed(room, "[Socket]"))
    return room.dir


def test_units_are_valid(units):
    out = run("systemd-analyze", "verify", "--man=no", "./tunnel.service",
              "./tunnel@.service", "./tunnel.socket", cwd=units)
    assert b"tunnel" not in out, out


def test_unit_is_hardened(units):
    """From 100 (no hardening) to 0; few services get this low."""
    run("systemd-analyze", "security", "--offline=yes", "--threshold=30",
        "--no-pager", "./tunnel.service", cwd=units)


def test_unit_without_root(room, units):
    """What the manual has for that, as systemctl edit would write it."""
    os.mkdir(room.path("tunnel.service.d"))
    room.write("tunnel.service.d/override.conf",
               displayed(room, "DynamicUser="))
    out = run("systemd-analyze", "verify", "--man=no", "./tunnel.service",
              cwd=units)
    assert b"tunnel" not in out, out


def test_inetd_lines_of_the_manual(room, inetd, echo):
    """Each line unchanged, except for the port, the user and the files."""
    lines = "".join(x for x in displays("tunnel.8")
                    if "stream tcp nowait" in x).splitlines()
    assert lines
    for line in lines:
        name, *kind, _, _, arguments = line.split(maxsplit=6)
        assert kind == ["stream", "tcp", "nowait"]
        conf = inetd.own(room.write("conf", "\n".join([
            f"cert = {inetd.cert}", *support.words(["-i"])[:-1]])))
        start = " ".join([*kind, inetd.user.pw_name, inetd.tunnel,
                          arguments.replace(f"/etc/{name}", conf)])
        assert conf in start
        for way in (f"connect={echo.address}", "exec=/bin/cat",
                    "-- /bin/cat"):
            assert_echoes(room, inetd.start(f"{start} {way}"))


def test_start_stop_daemon_lines_of_the_manual(room, daemon_conf):
    start, reload, stop = displayed(room, "start-stop-daemon").split("\n\n")

    def do(line):
        assert run("sh", "-c", line, env={**os.environ, "PATH": PATH}) == b""

    do(start)
    do(start)  # already running, which is accepted
    log = room.path("log")
    address = wait_text(log, r"listening on (\S+)").group(1)
    assert_echoes(room, address)
    do(reload)
    wait_text(log, "reloaded$")
    assert_echoes(room, address)
    do(stop)
    assert not os.path.exists(room.path("pidfile"))
    do(stop)
