"""Shared by all tests: processes, sockets, backends, waiting.  Environment:

TUNNEL        the binary under test (../tunnel)
TUNNEL_MB     megabytes in a big transfer (200)
TUNNEL_SLOW   factor for all deadlines (1; 4 with sanitizers)
TUNNEL_UNDER  command prefix for the binary, such as valgrind
TUNNEL_ARGS   arguments for tunnels that do not set the same keys, such as
              workers=4 or mode=fork
TUNNEL_PAIR   if set, a room's tunnel reaches its backend through two more
              tunnels, the first with client=yes, the second a server
"""

import contextlib
import ctypes
import fcntl
import glob
import os
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

TESTS = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(TESTS)
TUNNEL = os.path.abspath(os.environ.get("TUNNEL") or os.path.join(TOP, "tunnel"))
BIG = int(os.environ.get("TUNNEL_MB", "200")) * 1024 * 1024
UNDER = shlex.split(os.environ.get("TUNNEL_UNDER", ""))


def is_sanitized():
    with open(TUNNEL, "rb") as f:
        return b"__asan_init" in f.read()


def version():
    """The output of -V."""
    if not os.path.exists(TUNNEL):
        return ""
    return subprocess.run([TUNNEL, "-V"], capture_output=True,
                          text=True).stdout


VERSION = version()
# Whether mbed TLS has mbedtls/patches, and uses AWS-LC.
PATCHED = ", patched" in VERSION
ACCEL = ", AWS-LC " in VERSION
# mbed TLS 4.1 as it comes: what mbedtls/README.md says that it can't do.
PLAIN_4 = "Mbed TLS 4." in VERSION and not PATCHED
not_plain_4 = pytest.mark.skipif(
    PLAIN_4, reason="mbed TLS 4.1 can't, see mbedtls/README.md")
# Open to CVE-2026-49300.
OLD_MBEDTLS = re.search(r"Mbed TLS (3\.6\.6|4\.1\.0)\b", VERSION) is not None
GROUPS = re.findall(r"\w+", VERSION.partition("\ngroups: ")[2])
SANITIZED = os.path.exists(TUNNEL) and is_sanitized()

PAIR = "TUNNEL_PAIR" in os.environ


def direct(reason):
    """A mark for tests without other tunnels in between."""
    return pytest.mark.skipif(PAIR, reason=reason)


# From TUNNEL_ARGS, for tests that do not choose a mode themselves.
ARGS = shlex.split(os.environ.get("TUNNEL_ARGS", ""))
MODE = dict(word.split("=") for word in ARGS).get("mode", "poll")
WORKERS = dict(word.split("=") for word in ARGS).get("workers", "1")
WORKERS = os.cpu_count() if WORKERS == "auto" else int(WORKERS)
# For tests in which one connection depends on another.
ALONE = "mode=fork" if MODE == "fork" else "workers=1"
# The messages of glibc and of musl.
IN_USE = "Address (already )?in use"
NOT_HERE = "(Cannot assign requested address|Address not available)"
NO_DESCRIPTORS = "(Too many open files|No file descriptors available)"
SLOW = float(os.environ.get("TUNNEL_SLOW", "4" if SANITIZED else "1"))
DEADLINE = 10 * SLOW  # seconds, for everything that should happen at once


def wait_for(condition, what, seconds=DEADLINE):
    """Wait until condition() is true, and return what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.005)


def run(*command, status=0, stdin=b"", timeout=DEADLINE, **keywords):
    """Run a command that ends by itself; return its output as bytes."""
    keywords.setdefault("stderr", subprocess.STDOUT)
    p = subprocess.run(command, input=stdin, stdout=subprocess.PIPE,
                       timeout=timeout, **keywords)
    assert status is None or p.returncode == status, (
        f"{' '.join(map(str, command))}\nexit status {p.returncode}\n"
        f"{p.stdout.decode(errors='replace')}")
    return p.stdout


def files_of(names):
    """The paths of test files, each given by its name without test_ and .py.
    """
    found = [glob.glob(os.path.join(TESTS, "*", f"test_{name}.py"))
             for name in names]
    assert all(len(paths) == 1 for paths in found), (names, found)
    return [path for paths in found for path in paths]


def why_no_accel():
    """Why a tunnel cannot be built with ACCEL=aws-lc; None if it can."""
    if not shutil.which("cmake"):
        return "cmake is not installed"
    for name, source in (("AWS-LC", "aws-lc-source"),
                         ("mbed TLS", "mbedtls-source")):
        if not os.path.isdir(os.path.join(TOP, "build", source)):
            return f"there is no source of {name} in build/{source}"
    return None


class Task:
    """A function in its own thread; result() waits for it."""

    def __init__(self, function, *args):
        self.value = self.error = None
        self.thread = threading.Thread(
            target=self.body, args=(function, *args), daemon=True)
        self.thread.start()

    def body(self, function, *args):
        try:
            self.value = function(*args)
        except BaseException as e:  # raised again by result()
            self.error = e

    def running(self):
        return self.thread.is_alive()

    def result(self, seconds=DEADLINE):
        self.thread.join(seconds)
        assert not self.running(), f"still running after {seconds:.0f} s"
        if self.error is not None:
            raise self.error
        return self.value


# Sockets.

def tcp_address(sock):
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connect(address, rcvbuf=None):
    """A connected socket. address: as printed by the tunnel."""
    if address.startswith("unix:"):
        sock, to = socket.socket(socket.AF_UNIX), address[5:]
    else:
        host, port = address.rsplit(":", 1)
        host = host.strip("[]")
        sock = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET)
        to = (host, int(port))
    if rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    sock.settimeout(DEADLINE)
    sock.connect(to)
    return sock


def reset(sock):
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))
    sock.close()


def read_all(sock):
    """Read everything; also return how the stream ended: "eof" or "reset"."""
    data = bytearray()
    while True:
        try:
            part = sock.recv(1 << 18)
        except ConnectionResetError:
            return bytes(data), "reset"
        if not part:
            return bytes(data), "eof"
        data += part


def how_it_ends(address):
    """Connect and read everything; return it, and how the stream ended: "eof"
    or "reset", including a reset during connect(2).
    """
    try:
        with connect(address) as sock:
            return read_all(sock)
    except ConnectionResetError:
        return b"", "reset"


def read_exactly(sock, size):
    """sock: a socket or a Client."""
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(size - len(data), 1 << 18))
        assert part, f"ended after {len(data)} of {size} bytes"
        data += part
    return bytes(data)


def stuff(sock, data):
    """Send until the buffers on the way are full; return how many bytes."""
    view = memoryview(data)
    sock.settimeout(0.2 * SLOW)
    try:
        while view:
            view = view[sock.send(view):]
    except TimeoutError:
        pass
    sock.settimeout(DEADLINE)
    return len(data) - len(view)


def unread(sock):
    """The number of bytes to be read from a socket."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0]


def unsent(sock):
    """The number of bytes not acknowledged (TCP) or not read (Unix) by the
    peer.
    """
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ,
                                          b"\0" * 4))[0]


def wait_until_stalled(sock):
    """Wait until a sender has filled all buffers up to sock."""
    last, since = -1, time.monotonic()

    def stalled():
        nonlocal last, since
        if unread(sock) != last:
            last, since = unread(sock), time.monotonic()
        return last > 0 and time.monotonic() - since > 0.1 * SLOW

    wait_for(stalled, "a stalled transfer")


@contextlib.contextmanager
def namespace():
    """A network namespace for this thread and its children; yields the path of
    ip(8), to set it up.
    """
    ip = shutil.which("ip", path="/usr/sbin:/sbin:" + os.environ["PATH"])
    if ip is None:
        pytest.skip("no ip(8) to set a network up")
    libc = ctypes.CDLL(None, use_errno=True)
    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) == -1:
        pytest.skip(f"unshare: {os.strerror(ctypes.get_errno())}")
    try:
        run(ip, "link", "set", "lo", "up")
        yield ip
    finally:
        assert libc.setns(ours, CLONE_NEWNET) == 0
        os.close(ours)


CLONE_NEWNET = 0x40000000


def limit_send_buffers(size):
    """Limit the send buffers of sockets made in this network from now on."""
    with open("/proc/sys/net/ipv4/tcp_wmem", "w") as f:
        f.write(f"{min(size, 4096)} {size} {size}")


class Backend:
    """A plaintext backend; the test accepts its connections by hand."""

    def __init__(self, family=socket.AF_INET, to=("127.0.0.1", 0), rcvbuf=None,
                 backlog=512):
        self.sock = socket.socket(family)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.bind(to)
        self.sock.listen(backlog)
        self.sock.settimeout(DEADLINE)
        self.address = "unix:" + to if family == socket.AF_UNIX else \
            tcp_address(self.sock)

    def accept(self):
        sock = self.sock.accept()[0]
        sock.settimeout(DEADLINE)
        return sock

    def serve(self, function):
        """From now on, call function(sock) for each connection, then close it.
        """
        self.sock.settimeout(None)
        Task(self.serve_all, function)
        return self

    def serve_all(self, function):
        while True:
            try:
                sock = self.sock.accept()[0]
            except OSError:  # closed
                return
            Task(self.serve_one, function, sock)

    @staticmethod
    def serve_one(function, sock):
        with sock:
            function(sock)

    def close(self):
        # Only this wakes a thread in accept(2).
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()


def echo(sock):
    try:
        while data := sock.recv(1 << 18):
            sock.sendall(data)
    except OSError:  # a client that is gone is not an error
        pass


def http(sock):
    """An HTTP server: answer with the posted body, or for GET /N with N bytes.
    """
    f = sock.makefile("rb")
    while request := f.readline():
        headers = {}
        while (line := f.readline().strip()):
            key, value = line.split(b":", 1)
            headers[key.lower()] = value.strip()
        body = f.read(int(headers.get(b"content-length", 0)))
        if request.startswith(b"GET"):
            body = b"x" * int(request.split()[1][1:])
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" %
                     len(body) + body)
        if b"HTTP/1.0" in request:
            return


def free_port():
    """The address of a port for a program that listens with SO_REUSEADDR; the
    system gives it to nobody else.
    """
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    RESERVED.append(s)
    return tcp_address(s)


def closed_port():
    """The address of a port that refuses connections and stays reserved."""
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    RESERVED.append(s)
    return tcp_address(s)


RESERVED = []


# Processes.

def state(pid):
    """The state letter of ps(1); None: no such process."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def open_files(pid):
    """What each descriptor refers to, as in proc_pid_fd(5).  Omits descriptors
    that are just being closed; empty if the process does not exist.
    """
    gone = FileNotFoundError, ProcessLookupError
    found = {}
    with contextlib.suppress(*gone):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(*gone):
                found[fd] = os.readlink(f"/proc/{pid}/fd/{fd}")
    return found


def sockets(pid):
    """The inodes of its sockets."""
    return [link[len("socket:["):-1] for link in open_files(pid).values()
            if link.startswith("socket:")]


def statistics(t):
    """The counters in the statistics line, after SIGUSR1."""
    count = t.log().count("statistics: ")
    t.signal(signal.SIGUSR1)
    line = t.wait_log(r"statistics: up \d+s, ", count + 1)
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


def statistics_and_live(t):
    """The counters, and the lines of live connections."""
    counters = statistics(t)

    def lines():
        rest = t.log().split("statistics: ")[-1].splitlines()[1:]
        found = [x for x in rest if x.startswith("tunnel: live: ")]
        return found if len(found) >= counters["live"] else None

    found = wait_for(lines, "the live connections") if counters["live"] else []
    assert len(found) == counters["live"]
    assert counters["accepted"] == sum(
        counters[k] for k in ("live", "served", "refused", "no_backend",
                              "silent", "dropped", "over_max_per_ip", "lost"))
    return counters, found


def wait_until_alone(t):
    """Wait until no connection is left."""
    wait_for(lambda: statistics(t)["live"] == 0, "all connections to end")


def text_of(path):
    """The contents of a file, or "" if it does not exist yet."""
    try:
        with open(path) as f:
            return f.read()
    except FileNotFoundError:
        return ""


def is_connected(pid):
    """Whether it has an established TCP connection."""
    with open("/proc/net/tcp") as f:
        established = {fields[9] for fields in map(str.split, f)
                       if fields[3] == "01"}
    return not established.isdisjoint(sockets(pid))


def is_refused(address):
    try:
        connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def is_alive(pid):
    return state(pid) not in (None, "Z", "X")


def children(pid):
    """Its living child processes."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [child for child in map(int, f.read().split())
                    if is_alive(child)]
    except (FileNotFoundError, ProcessLookupError):
        return []


# The timestamp in the log, in UTC.
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class Process:
    """A child process with its output in a file; ended by its pid."""

    def __init__(self, directory, name, command, **keywords):
        self.name = name
        self.log_file = os.path.join(directory, name + ".log")
        keywords.setdefault("stdin", subprocess.DEVNULL)
        with open(self.log_file, "ab") as log:
            keywords.setdefault("stdout", log)
            keywords.setdefault("stderr", log)
            self.popen = subprocess.Popen(command, **keywords)
        self.pid = self.popen.pid

    def log(self):
        with open(self.log_file, errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, count=1, seconds=DEADLINE):
        """Wait until count lines contain pattern; return the last one of them.
        """

        def lines():
            has_ended = self.popen.poll() is not None  # before the log is read
            found = [line for line in self.log().splitlines()
                     if re.search(pattern, line)]
            if len(found) < count:
                assert not has_ended, (
                    f"{self.name} ended with {self.popen.returncode}, "
                    f"without {pattern!r} in its log")
            return found if len(found) >= count else None

        return wait_for(lines, f"{pattern!r} in {self.log_file}",
                        seconds)[count - 1]

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self, seconds=DEADLINE):
        return self.popen.wait(seconds)

    def workers(self):
        """The living child processes of a master."""
        return children(self.pid)

    def pids(self):
        return [self.pid, *self.workers()]

    def stop(self):
        """Stop it; return the exit status, or -SIGKILL if it did not end
        otherwise.
        """
        for number, seconds in ((signal.SIGTERM, 1), (signal.SIGTERM, DEADLINE),
                                (signal.SIGKILL, DEADLINE)):
            if not self.alive():
                break
            workers = self.workers()
            self.signal(number)
            if number == signal.SIGKILL:
                kill(workers, number)
            try:
                self.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
        return self.popen.returncode

    def cpu_seconds(self):
        """The CPU time of all its processes: clocks of the running ones, ticks
        for the ended ones.
        """
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        used = sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")
        for pid in self.pids():
            try:
                used += time.clock_gettime(~pid << 3 | 2)
            except OSError:
                pass
        return used

    def descriptors(self):
        """The number of open descriptors in all its processes."""
        n = 0
        for pid in self.pids():
            try:
                n += len(os.listdir(f"/proc/{pid}/fd"))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return n


def kill(pids, number=signal.SIGKILL):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def words(arguments):
    """The arguments for a tunnel, with those of the environment in front.

    mode and workers count as one key: a test that sets either of them gets
    neither from the environment.
    """
    arguments = list(arguments)
    ours = arguments[:arguments.index("--")] if "--" in arguments \
        else arguments
    given = {word.split("=")[0] for word in ours}
    if "-c" in given:
        given |= keys_of(ours[ours.index("-c") + 1])
    if given & {"-i", "mode", "workers"}:
        given |= {"mode", "workers"}
    before = [word for word in ARGS if word.split("=")[0] not in given]
    if (SANITIZED or UNDER) and "sandbox" not in given:
        before.append("sandbox=no")  # it breaks their runtimes
    return [*before, *arguments]


def keys_of(path):
    try:
        with open(path, errors="replace") as f:
            return {line.split("=")[0].strip() for line in f if "=" in line}
    except OSError:
        return set()


def command(*arguments):
    """The command line of a tunnel, for callers that start it themselves."""
    return [*UNDER, TUNNEL, *words(arguments)]


class Tunnel(Process):
    """The program under test, started and listening."""

    def __init__(self, directory, name, arguments, **keywords):
        super().__init__(directory, name, command(*arguments), **keywords)
        self.is_inetd = "-i" in arguments
        self.forks = "mode=fork" in arguments

    def log(self):
        """Without the timestamp at the beginning of each line."""
        return re.sub(f"(?m)^{TIME} (?=tunnel: )", "", super().log())

    def workers(self):
        return [] if self.is_inetd else super().workers()

    def commands(self):
        """The living child processes of its workers."""
        if self.is_inetd:
            return children(self.pid)
        return [pid for worker in self.workers() for pid in children(worker)]

    def wait_ready(self):
        """Wait until it listens.  In fork mode, a trial process runs first and
        ends a moment later.
        """
        self.wait_log("listening on")
        if self.forks:
            wait_for(lambda: not self.workers(), "the trial process to end")
        return self

    @property
    def addresses(self):
        return re.findall(r"(?<!longer )listening on (\S+)", self.log())

    @property
    def address(self):
        return self.addresses[0]


def assert_echoes(room, to, **keywords):
    client = room.client(to, **keywords)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    return client


GOOD = "accept = 127.0.0.1:0\nconnect = 1\ncert = {server}\n"


def run_tunnel(*arguments, **keywords):
    keywords.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [*UNDER, TUNNEL, *arguments], capture_output=True,
        text=True, timeout=DEADLINE, **keywords)


def complaint(p, status=2):
    """The one error message that it ended with."""
    assert p.returncode == status, p
    assert p.stdout == ""
    assert p.stderr.startswith("tunnel: error: "), p.stderr
    assert p.stderr.count("\n") == 1 and p.stderr.endswith("\n"), p.stderr
    return p.stderr[len("tunnel: error: "):-1]


LINE = re.compile(
    r"tunnel: (warning: )?(?P<client>127\.0\.0\.1:\d+|unix:) -> (?P<backend>\S+)"
    r"( (?P<version>TLSv1\.[23]) (?P<suite>TLS_[A-Z0-9_]+)"
    r"( (?P<group>x25519(mlkem768)?|x448|secp\w+|ffdhe\d+))?( resumed)?)?"
    r"( sni=(?P<sni>\S+))?( alpn=(?P<alpn>\S+))?( client=\"[^\"]*\")?"
    r" in=(?P<in>\d+) out=(?P<out>\d+) (?P<seconds>\d+\.\d{3})s"
    r" (?P<reason>.+)")
# The log lines of the master, as opposed to those of connections.
PROCESSES = re.compile(
    r"tunnel: (tunnel [\d.]+, |listening on |worker \d+ |workers run as |"
    "sandbox: |kernel TLS: |CA certificates of the system: )")


def lines_of_connections(t):
    return [x for x in t.log().splitlines() if not PROCESSES.match(x)]


def drain(reader, log, condition):
    """Read until the condition holds."""

    def enough():
        readable = select.select([reader], [], [], 0)[0]
        if readable:
            log.extend(os.read(reader.fileno(), 1 << 16))
        return not readable and condition()

    wait_for(enough, "the rest of the log")


by_default = pytest.mark.skipif(
    SANITIZED or bool(UNDER),
    reason="sanitizers and valgrind take time and memory of their own")


def memory(t):
    """The private and shared anonymous memory of its processes, in kB."""
    kb = 0
    for pid in t.pids():
        with open(f"/proc/{pid}/smaps_rollup") as f:
            kb += int(re.search(r"Pss_Anon: +(\d+) kB", f.read())[1])
    return kb


# A mode from the environment replaces the others.
WAYS = [ARGS] if ARGS else [
    ["workers=1"], ["workers=4"], ["mode=fork"]]


def is_echoed(client, data=b"hello"):
    client.send(data)
    return read_exactly(client, len(data)) == data


def serves(room, address):
    client = room.client(address)
    assert is_echoed(client)
    client.close()
    return True


def end(client):
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    client.close()


PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


def need(*programs):
    """The path of the first program; skips the test if any is missing."""
    for program in programs:
        if not shutil.which(program, path=PATH):
            pytest.skip(f"{program} is not installed")
    return shutil.which(programs[0], path=PATH)
