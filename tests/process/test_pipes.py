"""-i on two descriptors other than sockets: pipes, files, a terminal; as under
ProxyCommand of ssh(1), or in a shell.
"""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import ssl
import subprocess
import termios
import tty

import pytest

import peers
import support
import transfers
from privileged import NOBODY, can_look, confined, status
from support import children, is_alive, wait_for

MB = 1024 * 1024


class Server(peers.Client):
    """A TLS server on an accepted socket."""

    def __init__(self, sock, ctx):
        super().__init__(sock, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None)
        self.tls = ctx.wrap_bio(self.incoming, self.outgoing, server_side=True)


class Ends:
    """A tunnel, the test's ends of its standard input and output, and the
    server that it called.
    """

    def __init__(self, tunnel, to, back, server=None):
        self.tunnel, self.to, self.back = tunnel, to, back
        self.server = server
        self.relay, = children(tunnel.pid)

    def wait(self):
        """Wait for both processes to exit; return the tunnel's exit status."""
        code = self.tunnel.wait(support.DEADLINE)
        wait_for(lambda: not is_alive(self.relay), "the relay's end")
        return code

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[os.write(self.to, view):]

    def read(self, size):
        data = b""
        while len(data) < size:
            part = os.read(self.back, size - len(data))
            assert part, f"ended after {data}"
            data += part
        return data

    def settle(self):
        """Wait until the relay is confined."""
        self.write(b"!")
        assert support.read_exactly(self.server, 1) == b"!"
        return self

    def read_all(self):
        data = bytearray()
        while part := os.read(self.back, 1 << 18):
            data += part
        return bytes(data)


@pytest.fixture
def fds():
    """A list of descriptors, closed at the end of the test."""
    opened = []
    yield opened
    for fd in opened:
        try:
            os.close(fd)
        except OSError:
            pass


def close(fds, fd):
    fds.remove(fd)
    os.close(fd)


@pytest.fixture
def start(room):
    """A tunnel with these arguments, standard input and output."""
    return lambda *words, **keywords: room.tunnel("-i", *words, ready=False,
                                                  **keywords)


def to_server(room, address):
    return ["client=yes", f"connect={address}", f"ca={room.certs.ca}",
            "server_name=localhost"]


@pytest.fixture
def accept(room, backend):
    """A connection to the server, after its handshake."""

    def take(version=None):
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(room.certs.server)
        ctx.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if version:
            ctx.minimum_version = ctx.maximum_version = peers.VERSIONS[version]
        return room.keep(Server(backend.accept(), ctx)).handshake()

    return take


@pytest.fixture
def piped(room, backend, start, accept, fds):
    """Start a client with a pipe for each direction."""

    def begin(*words, version=None, output=os.pipe, **keywords):
        theirs_in, to = os.pipe()
        back, theirs_out = output()
        fds.extend((to, back))
        t = start(*to_server(room, backend.address), *words, stdin=theirs_in,
                  stdout=theirs_out, **keywords)
        os.close(theirs_in)
        os.close(theirs_out)
        return Ends(t, to, back, accept(version))

    return begin


def closed(t):
    return t.wait_log(r"stdin -> \S+ TLSv1\.[23] .* closed$")


# Data and its end.

def test_late_and_large_answer(piped, fds, version):
    """The end of the input becomes a close_notify, and does not end the
    output.
    """
    p = piped(version=version)
    p.write(b"question")
    close(fds, p.to)
    assert p.server.read_all() == (b"question", "close_notify")
    answer = transfers.BLOCK * 5
    sent = support.Task(p.server.send, answer)
    assert p.read(len(answer)) == answer
    sent.result()
    p.server.close_notify()
    assert p.read_all() == b""
    assert p.wait() == 0
    line = closed(p.tunnel)
    assert f" in=8 out={len(answer)} " in line


def test_server_ends_first(piped, fds, version):
    """The server still receives input."""
    p = piped(version=version)
    p.server.send(b"hello")
    p.server.close_notify()
    assert p.read_all() == b"hello"
    sent = support.Task(p.write, transfers.BLOCK * 5)
    assert support.read_exactly(p.server, len(transfers.BLOCK) * 5) == \
        transfers.BLOCK * 5
    sent.result()
    close(fds, p.to)
    assert p.server.read_all() == (b"", "close_notify")
    assert p.wait() == 0
    closed(p.tunnel)


def assert_input_moves(p, sent):
    """Input is forwarded while output is stalled; afterwards all output
    arrives.
    """
    for _ in range(20):
        p.write(transfers.BLOCK)
        assert support.read_exactly(p.server, len(transfers.BLOCK)) == \
            transfers.BLOCK
    assert sent.running()
    assert p.read(8 * len(transfers.BLOCK)) == transfers.BLOCK * 8
    sent.result()


def test_neither_direction_waits_for_the_other(piped, fds):
    """Output is not read; input still arrives."""
    p = piped()
    sent = support.Task(p.server.send, transfers.BLOCK * 8)
    wait_for(lambda: is_full(p.back), "a full pipe")
    assert_input_moves(p, sent)
    close(fds, p.to)
    assert p.server.read_all() == (b"", "close_notify")
    p.server.close_notify()
    assert p.wait() == 0


def is_full(pipe):
    n = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(n, "little") >= 60000


def raw_terminal():
    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave


def test_terminal_without_a_reader(piped, fds):
    """Unlike a pipe, a terminal blocks a write that exceeds its free space."""
    p = piped(output=raw_terminal)
    sent = support.Task(p.server.send, transfers.BLOCK * 8)
    wait_for(lambda: select.select([p.back], [], [], 0)[0], "output")
    assert_input_moves(p, sent)
    p.tunnel.signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(p.relay), "the relay's end")


def test_all_is_written_before_it_exits(piped, fds):
    """Although the connection ended long before."""
    p = piped()
    data = transfers.BLOCK[:200000]
    p.server.send(data)
    p.server.close_notify()
    close(fds, p.to)
    assert p.server.read_all() == (b"", "close_notify")
    closed(p.tunnel)
    assert p.tunnel.alive()
    assert p.read_all() == data
    assert p.wait() == 0


def test_files(room, backend, start, accept):
    """As with < and > in a shell."""
    data = transfers.BLOCK * 20
    path = room.path("out")
    with open(room.write("in", data)) as source, open(path, "wb") as target:
        t = start(*to_server(room, backend.address), stdin=source,
                  stdout=target)
    server = accept()
    echoed = support.Task(support.echo, EchoOf(server))
    assert t.wait(support.DEADLINE) == 0
    echoed.result()
    closed(t)
    with open(path, "rb") as f:
        assert f.read() == data


class EchoOf:
    """A server for support.echo(): it ends as its client does."""

    def __init__(self, server):
        self.server = server

    def recv(self, size):
        if (data := self.server.recv(size)) == b"":
            assert self.server.end == "close_notify"
            self.server.close_notify()
        return data

    def sendall(self, data):
        self.server.send(data)


def test_empty_input(room, backend, start, accept):
    t = start(*to_server(room, backend.address), stdin=subprocess.DEVNULL,
              stdout=subprocess.DEVNULL)
    server = accept()
    assert server.read_all() == (b"", "close_notify")
    server.send(b"nobody wants it")
    server.close_notify()
    assert t.wait(support.DEADLINE) == 0
    closed(t)


def test_terminal(room, backend, start, accept, fds):
    """^D ends the input."""
    master, slave = pty.openpty()
    fds += [master, slave]
    t = start(*to_server(room, backend.address), stdin=slave, stdout=slave)
    server = accept()
    os.write(master, b"hello\n")
    assert support.read_exactly(server, 6) == b"hello\n"
    server.send(b"good day\n")
    said = b""
    while b"good day" not in said:
        said += os.read(master, 1000)
    assert not fcntl.fcntl(slave, fcntl.F_GETFL) & os.O_NONBLOCK
    os.write(master, b"\x04")
    assert server.read_all() == (b"", "close_notify")
    server.close_notify()
    assert t.wait(support.DEADLINE) == 0


def test_terminal_is_no_tls_client(room, start, fds):
    master, slave = pty.openpty()
    fds += [master, slave]
    t = start("connect=1", f"cert={room.certs.server}", stdin=slave,
              stdout=subprocess.DEVNULL)
    assert t.wait(support.DEADLINE) == 2
    assert re.search("error: -i: descriptor 0 is a terminal", t.log())


def test_two_sockets(room, backend, start, accept):
    """Some programs, such as Node.js, use socket pairs as pipes."""
    to, theirs_in = socket.socketpair()
    back, theirs_out = socket.socketpair()
    for s in (to, back):
        room.keep(s).settimeout(support.DEADLINE)
    with theirs_in, theirs_out:
        t = start(*to_server(room, backend.address), stdin=theirs_in,
                  stdout=theirs_out)
    server = accept()
    to.sendall(b"hello")
    assert support.read_exactly(server, 5) == b"hello"
    server.send(b"world")
    assert support.read_exactly(back, 5) == b"world"
    to.close()
    assert server.read_all() == (b"", "close_notify")
    server.close_notify()
    assert back.recv(1) == b""
    assert t.wait(support.DEADLINE) == 0


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_redirected_output(room, backend, start, accept, fds,
                           kind):
    """sshd passes one socket as both; the shell may have redirected one."""
    ours, theirs = socket.socketpair()
    room.keep(ours).settimeout(support.DEADLINE)
    if kind == "pipe":
        source, output = os.pipe()
    else:
        output = os.open(room.path("output"), os.O_WRONLY | os.O_CREAT)
        source = os.open(room.path("output"), os.O_RDONLY)
    fds += [source, output]
    with theirs:
        t = start(*to_server(room, backend.address), stdin=theirs,
                  stdout=output)
    close(fds, output)
    server = accept()
    ours.sendall(b"hello")
    ours.shutdown(socket.SHUT_WR)
    assert support.read_exactly(server, 5) == b"hello"
    assert server.read_all() == (b"", "close_notify")
    server.send(b"world")
    server.close_notify()
    assert t.wait(support.DEADLINE) == 0
    assert os.read(source, 100) == b"world"
    assert ours.recv(100) == b""


def test_one_socket_is_the_connection(room, backend, start, accept):
    ours, theirs = socket.socketpair()
    room.keep(ours).settimeout(support.DEADLINE)
    with theirs:
        t = start(*to_server(room, backend.address), stdin=theirs,
                  stdout=theirs)
    server = accept()
    assert children(t.pid) == []
    server.send(b"world")
    assert support.read_exactly(ours, 5) == b"world"
    ours.close()
    assert server.read_all() == (b"", "close_notify")
    server.close_notify()
    assert t.wait(support.DEADLINE) == 0


# The server role: TLS on the pipes.

class Pipes:
    """Pipes with the interface of a socket, for peers.Client."""

    def __init__(self, to, back):
        self.to, self.back = to, back

    def sendall(self, data):
        while data:
            data = data[os.write(self.to, data):]

    def recv(self, size):
        return os.read(self.back, size)

    def close(self):
        pass


@pytest.mark.parametrize("sandbox", [[], ["sandbox=no"]])
def test_server(room, start, fds, version, sandbox):
    theirs_in, to = os.pipe()
    back, theirs_out = os.pipe()
    fds += [to, back]
    t = start(f"cert={room.certs.server}", *sandbox, "--", "sh", "-c",
              "echo ${REMOTE_HOST-nobody}; sort", stdin=theirs_in,
              stdout=theirs_out)
    os.close(theirs_in)
    os.close(theirs_out)
    client = room.client(Pipes(to, back), version)
    client.send(b"b\na\n")
    client.close_notify()
    assert client.read_all() == (b"nobody\na\nb\n", "close_notify")
    close(fds, to)
    assert t.wait(support.DEADLINE) == 0
    t.wait_log(r"stdin -> sh TLSv1\.[23] .* closed$")


# Aborts.

def assert_aborted(p):
    """The server sees an abort."""
    assert p.server.read_all()[1] in ("reset", "truncated")


def test_reader_is_gone(piped, fds):
    p = piped()
    close(fds, p.back)
    p.server.send(b"hello")
    assert_aborted(p)
    assert p.wait() == 1
    p.tunnel.wait_log("stdin -> .* standard output: Broken pipe$")


def test_closed_output(room, backend, accept):
    """A closed output is not /dev/null: the loss is reported."""
    p = subprocess.Popen(
        ["sh", "-c", 'exec "$@" >&-', "sh",
         *support.command("-i", *to_server(room, backend.address))],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with p:
        server = accept()
        server.send(b"world")
        assert "standard output: Bad file descriptor" in p.stderr.read()
    assert p.returncode == 1


def test_full_disk(room, backend, start, accept):
    with open("/dev/full", "wb") as full:
        t = start(*to_server(room, backend.address), stdout=full)
    server = accept()
    server.send(b"hello")
    assert server.read_all()[1] in ("close_notify", "reset", "truncated")
    assert t.wait(support.DEADLINE) == 1
    t.wait_log("standard output: No space left on device$")


def test_failing_input(room, backend, start, accept):
    """A directory cannot be read."""
    with open(room.path("in"), "wb") as f:
        directory = os.open(room.dir, os.O_RDONLY)
        t = start(*to_server(room, backend.address), stdin=directory, stdout=f)
        os.close(directory)
    assert t.wait(support.DEADLINE) == 1
    t.wait_log("standard input: Is a directory$")


@pytest.mark.parametrize("how", ["reset", "truncated"])
def test_server_aborts(piped, how):
    """All its data arrives, then an end; the exit status reports the abort."""
    p = piped()
    p.server.send(b"hello")
    assert p.read(5) == b"hello"
    if how == "reset":
        p.server.reset()
    else:
        p.server.fin()
    assert p.read_all() == b""
    assert p.wait() == 1
    p.tunnel.wait_log(f"stdin -> .* (backend )?{how}$")


def test_no_server(room, start, fds):
    back, theirs = os.pipe()
    fds.append(back)
    t = start(*to_server(room, support.closed_port()), stdout=theirs)
    os.close(theirs)
    assert os.read(back, 1) == b""
    assert t.wait(support.DEADLINE) == 1
    t.wait_log("stdin -> - .* no backend: .*Connection refused$")


def test_wrong_configuration(room, start, fds):
    """No input is consumed."""
    theirs, to = os.pipe()
    fds += [theirs, to]
    os.write(to, b"for somebody else")
    t = start("client=yes", "connect=1", "ca=/nowhere", stdin=theirs)
    assert t.wait(support.DEADLINE) == 2
    assert os.read(theirs, 100) == b"for somebody else"


# Processes and signals.

@pytest.mark.parametrize("is_stuck", [False, True])
def test_killed_relay(piped, fds, is_stuck):
    p = piped()
    if is_stuck:
        support.Task(p.server.send, transfers.BLOCK)
        wait_for(lambda: is_full(p.back), "a full pipe")
    os.kill(p.relay, signal.SIGKILL)
    p.tunnel.wait_log("stdin -> .* relay killed$")
    assert_aborted(p)
    assert p.wait() == 1


@pytest.mark.parametrize("is_stuck", [False, True])
def test_killed_tunnel(piped, fds, is_stuck):
    p = piped()
    if is_stuck:
        support.Task(p.server.send, transfers.BLOCK)
        wait_for(lambda: is_full(p.back), "a full pipe")
    p.tunnel.signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(p.relay), "the relay's end")
    assert_aborted(p)
    assert p.tunnel.wait(support.DEADLINE) == -signal.SIGKILL


def test_sigterm_drains(piped, fds):
    p = piped().settle()
    p.tunnel.signal(signal.SIGTERM)
    os.kill(p.relay, signal.SIGTERM)
    p.write(b"hello")
    close(fds, p.to)
    assert p.server.read_all() == (b"hello", "close_notify")
    p.server.send(b"world")
    p.server.close_notify()
    assert p.read_all() == b"world"
    assert p.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_signal_without_a_reader(piped, fds, number):
    """The connection has ended; its unread output is given up."""
    drain = "1s" if number == signal.SIGTERM else "off"
    p = piped(f"drain_timeout={drain}")
    p.server.send(transfers.BLOCK[:200000])
    p.server.close_notify()
    close(fds, p.to)
    closed(p.tunnel)
    p.tunnel.signal(number)
    assert p.wait() == 1
    p.tunnel.wait_log("stopped before all output was written$")


def restore_sigint():
    """In background processes of a shell, SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_sigint_of_a_terminal_ends_both(piped):
    p = piped(start_new_session=True, preexec_fn=restore_sigint)
    os.killpg(p.tunnel.pid, signal.SIGINT)
    assert_aborted(p)
    assert p.wait() == 1


# Descriptors and permissions of the two processes.

@pytest.mark.skipif(bool(support.UNDER),
                    reason="valgrind adds descriptors")
def test_descriptors(piped, fds, room):
    """Neither process has unneeded or inherited descriptors."""
    path = room.write("stray", "secret")
    with open(path) as f:
        p = piped(pass_fds=[f.fileno()]).settle()
    ours = support.open_files(p.tunnel.pid)
    theirs = support.open_files(p.relay)
    ends = {theirs["0"], theirs["1"]}
    assert len(ends) == 2 and not ends & set(ours.values())
    assert ours["0"] == ours["1"] == "/dev/null"
    assert path not in [*ours.values(), *theirs.values()]
    others = sorted(link.split(":")[0] for fd, link in theirs.items()
                    if int(fd) > 2)
    assert others == ["pipe", "socket"]
    for fd in (p.to, p.back):
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    close(fds, p.to)
    assert p.server.read_all() == (b"", "close_notify")
    p.server.close_notify()
    assert p.wait() == 0


@confined
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("sandbox", ["yes", "no"])
def test_relay_is_confined(piped, fds, sandbox):
    p = piped("user=nobody", f"sandbox={sandbox}").settle()
    s = status(p.relay)
    assert s["Uid"] == [str(NOBODY.pw_uid)] * 4
    assert s["Gid"] == [str(NOBODY.pw_gid)] * 4
    assert s["CapEff"] == s["CapPrm"] == ["0000000000000000"]
    assert s["NoNewPrivs"] == ["1" if sandbox == "yes" else "0"]
    assert s["Seccomp"] == ["2" if sandbox == "yes" else "0"]
    if sandbox == "yes":
        assert can_look(p.relay) == []
    close(fds, p.to)
    p.server.close_notify()
    assert p.read_all() == b""
    assert p.wait() == 0


@pytest.mark.parametrize("log", [[], ["log=/dev/stdout"], ["log=stderr"]])
def test_log_is_not_the_output(piped, fds, log):
    """Also if both share a pipe, as with 2>&1."""
    p = piped(*log, stderr=subprocess.STDOUT)
    p.server.send(b"hello")
    p.server.close_notify()
    close(fds, p.to)
    assert p.read_all() == b"hello"
    assert p.wait() == 0
