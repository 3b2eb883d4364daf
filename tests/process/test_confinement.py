"""What attacker code could do inside a worker."""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import signal
import socket
import struct
import subprocess

import pytest

import support
from privileged import (AS_NOBODY, LIBC, MODES, NOBODY, begin, can_look,
                        confined, landlock_abi, soft_limit, status, system)
from support import assert_echoes, read_exactly

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


REGISTERS = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi " \
    "orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
PTRACE = {"step": 9, "getregs": 12, "setregs": 13, "attach": 16, "detach": 17}
ARGUMENTS = ["rdi", "rsi", "rdx", "r10", "r8", "r9"]
CALLS = {"open": 2, "mmap": 9, "ioctl": 16, "dup": 32, "dup2": 33,
         "socket": 41, "connect": 42, "sendto": 44, "sendmsg": 46,
         "recvmsg": 47, "shutdown": 48, "bind": 49, "listen": 50,
         "setsockopt": 54, "getsockopt": 55, "clone": 56, "fork": 57,
         "vfork": 58, "fcntl": 72, "dup3": 292,
         "execve": 59, "kill": 62, "unlink": 87, "ptrace": 101,
         "setuid": 105, "prctl": 157, "openat": 257, "execveat": 322,
         "memfd_create": 319, "io_uring_setup": 425, "clone3": 435,
         "pidfd_open": 434, "bpf": 321, "process_vm_readv": 310}


class Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulong) for name in REGISTERS.split()]


class Puppet:
    """A sleeping process, made to execute system calls by ptrace(2)."""

    def __init__(self, pid):
        self.pid = pid
        self.memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
        self.ptrace("attach")
        self.wait()
        self.saved = Registers()
        self.ptrace("getregs", ctypes.byref(self.saved))
        assert os.pread(self.memory, 2, self.saved.rip - 2) == b"\x0f\x05"

    def ptrace(self, what, data=None):
        system(LIBC.ptrace(PTRACE[what], self.pid, None, data), what)

    def wait(self):
        _, how = os.waitpid(self.pid, 0x40000000)  # __WALL
        assert os.WIFSTOPPED(how), f"not stopped: {how:#x}"

    def call(self, name, *arguments):
        """Bytes are passed by address.  Returns the result, or -errno."""
        r = Registers.from_buffer_copy(self.saved)
        r.rip -= 2
        r.rax, r.orig_rax = CALLS[name], ctypes.c_ulong(-1).value
        free = (r.rsp - 65536) & ~15
        for register, value in zip(ARGUMENTS, (*arguments, 0, 0, 0, 0, 0, 0)):
            if isinstance(value, bytes):
                os.pwrite(self.memory, value + b"\0", free)
                value, free = free, free + 256
            setattr(r, register, value & (1 << 64) - 1)
        self.ptrace("setregs", ctypes.byref(r))
        self.ptrace("step")
        self.wait()
        self.ptrace("getregs", ctypes.byref(r))
        return ctypes.c_long(r.rax).value

    def socket(self, kind=socket.SOCK_STREAM, protocol=0):
        return self.call("socket", socket.AF_INET, kind, protocol)

    def connect(self, address, sock=None):
        sock = self.socket() if sock is None else sock
        return sock if sock < 0 else self.call("connect", sock,
                                               sockaddr(address), 16)

    def close(self):
        self.ptrace("setregs", ctypes.byref(self.saved))
        self.ptrace("detach")
        os.close(self.memory)


def sockaddr(address):
    host, port = address.split(":")
    return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(int(port)),
                       socket.inet_aton(host))


@pytest.fixture
def puppet(room, echo):
    """Start a tunnel; its serving process becomes the puppet."""
    if platform.machine() != "x86_64":
        pytest.skip("x86-64 only")

    def start(mode, *words, **keywords):
        _, client, worker = begin(room, mode, f"connect={echo.address}",
                                  "user=nobody", *words, **keywords)
        client.send(b"hello")  # now it sleeps
        assert read_exactly(client, 5) == b"hello"
        support.wait_for(lambda: status(worker)["State"][0] == "S", "sleep")
        try:
            return room.keep(Puppet(worker))
        except PermissionError as e:
            pytest.skip(f"ptrace(2) not permitted: {e}")

    return start


def test_puppet_can_without_a_sandbox(room, echo, puppet):
    """Without a sandbox, the calls succeed; otherwise the tests below would
    prove nothing.
    """
    p = puppet("workers=1", "sandbox=no")
    assert p.call("open", b"/etc/passwd", os.O_RDONLY) > 0
    assert p.connect(room.backend().address) == 0
    assert p.connect(echo.address) == 0
    assert p.socket(socket.SOCK_DGRAM) > 0
    child = p.call("fork")
    assert child > 0
    os.kill(child, signal.SIGKILL)
    assert p.call("mmap", 0, 4096, 7, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
                  -1, 0) > 0


@confined
def test_worker_can_open_no_file(puppet, mode):
    p = puppet(mode)
    for path in (b"/etc/passwd", b"/", b"/proc/self/environ", b"/dev/null",
                 b"."):
        assert p.call("open", path, os.O_RDONLY) < 0
        assert p.call("openat", -100, path, os.O_RDONLY) < 0
    assert p.call("open", b"/tmp/tunnel-was-here", os.O_CREAT | os.O_WRONLY,
                  0o600) < 0
    assert p.call("unlink", b"/etc/passwd") < 0


@confined
def test_worker_can_connect_only_to_its_backend(room, echo, puppet, mode):
    if landlock_abi() < 4:
        pytest.skip("this kernel has no Landlock for ports")
    p = puppet(mode)
    other = room.backend().address
    assert p.connect(other) == -errno.EACCES
    assert p.connect(echo.address) == 0
    assert p.connect(other) == -errno.EACCES


@confined
def test_worker_can_reach_no_unix_socket(room, puppet, mode):
    """A Unix socket's server may trust the worker's user."""
    os.chmod(room.dir, 0o755)
    room.backend(family=socket.AF_UNIX, to=room.path("sock"))
    os.chmod(room.path("sock"), 0o777)
    p = puppet(mode)
    sock = p.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    if sock >= 0:
        name = struct.pack("=H", socket.AF_UNIX) + room.path("sock").encode()
        assert p.call("connect", sock, name, len(name) + 1) < 0


OTHER_WAYS = {
    "TCP fast open": (socket.SOCK_STREAM, 0),
    "MPTCP": (socket.SOCK_STREAM, 262),
    "UDP": (socket.SOCK_DGRAM, 0),
    "raw": (socket.SOCK_RAW, socket.IPPROTO_TCP),
}


@confined
@pytest.mark.parametrize("way", OTHER_WAYS)
def test_worker_has_no_other_way_out(room, echo, puppet, way):
    """Landlock filters only bind(2) and connect(2) of TCP; seccomp has to
    block the rest.
    """
    p = puppet("workers=1")
    other = room.backend().address
    sock = p.socket(*OTHER_WAYS[way])
    if sock >= 0:
        assert p.call("sendto", sock, b"out", 3, 0x20000000,  # MSG_FASTOPEN
                      sockaddr(other), 16) < 0
        assert p.connect(other, sock) < 0


@confined
def test_worker_can_start_nothing(puppet, mode):
    p = puppet(mode)
    assert p.call("execve", b"/bin/true", 0, 0) < 0
    assert p.call("execveat", -100, b"/bin/true", 0, 0, 0) < 0
    for call in ("fork", "vfork", "clone", "clone3"):
        assert p.call(call, signal.SIGCHLD) < 0
    for rights in (4, 5, 6, 7):  # PROT_EXEC, alone and combined
        assert p.call("mmap", 0, 4096, rights, mmap.MAP_PRIVATE |
                      mmap.MAP_ANONYMOUS, -1, 0) < 0
    assert p.call("memfd_create", b"x", 0) < 0


@confined
def test_worker_can_listen_nowhere(puppet):
    p = puppet("workers=1")
    sock = p.socket()
    assert p.call("bind", sock, sockaddr("127.0.0.1:0"), 16) < 0
    assert p.call("listen", sock, 5) < 0


ONE = struct.pack("i", 1)
LINGER = struct.pack("ii", 1, 0)
OF_LISTENERS = {
    "SO_LINGER": (socket.SOL_SOCKET, socket.SO_LINGER, LINGER),
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, ONE),
    "SO_REUSEPORT": (socket.SOL_SOCKET, socket.SO_REUSEPORT, ONE),
    "SO_RCVBUF": (socket.SOL_SOCKET, socket.SO_RCVBUF, ONE),
    "SO_LOCK_FILTER": (socket.SOL_SOCKET, 44, ONE),
    "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY, ONE),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ONE),
    "TCP_DEFER_ACCEPT": (socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, ONE),
    "TCP_CONGESTION": (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"),
}
NO_ADDRESS = bytes(16)  # AF_UNSPEC: connect(2) reverts listen(2)
SHUTDOWNS = [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]


def listeners(pid):
    """The descriptors of a process that are listening TCP sockets."""
    with open("/proc/net/tcp") as f:
        inodes = {fields[9] for fields in map(str.split, f)
                  if fields[3] == "0A"}
    return [int(fd) for fd, what in support.open_files(pid).items()
            if what.removeprefix("socket:[").removesuffix("]") in inodes]


def setsockopt(p, sock, option):
    level, name, value = option
    return p.call("setsockopt", sock, level, name, value, len(value))


def test_puppet_can_change_a_listener(puppet):
    """Without a sandbox, the calls succeed; otherwise the tests below would
    prove nothing.
    """
    p = puppet("workers=1", "sandbox=no")
    listener, = listeners(p.pid)
    for option in OF_LISTENERS.values():
        assert setsockopt(p, listener, option) == 0, option
    assert p.call("connect", listener, NO_ADDRESS, 16) == 0
    assert listeners(p.pid) == []


@confined
@pytest.mark.parametrize("what", OF_LISTENERS)
def test_worker_can_not_change_a_listener(puppet, what):
    """Accepted sockets inherit the option, and other workers share the
    listener.
    """
    p = puppet("workers=1")
    listener, = listeners(p.pid)
    assert setsockopt(p, listener, OF_LISTENERS[what]) == -errno.EPERM


@confined
def test_worker_can_not_end_a_listener(room, echo, puppet):
    """Neither directly nor through a duplicate descriptor."""
    p = puppet("workers=1", "ktls=off")
    listener, = listeners(p.pid)
    for how in SHUTDOWNS:
        assert p.call("shutdown", listener, how) == -errno.EPERM
    assert p.call("connect", listener, NO_ADDRESS, 16) == -errno.EPERM
    for call in (("bind", listener, sockaddr("127.0.0.1:0"), 16),
                 ("listen", listener, 0), ("dup", listener),
                 ("dup2", listener, 40),
                 ("fcntl", listener, fcntl.F_DUPFD, 40),
                 ("fcntl", listener, fcntl.F_SETFL, 0),
                 ("ioctl", listener, 0x5421, ONE),  # FIONBIO
                 ("sendmsg", listener, 0, 0)):
        assert p.call(*call) == -errno.ENOSYS, call
    for call in ("dup3", listener, 40, 0), ("recvmsg", listener, 0, 0):
        assert p.call(*call) == -errno.EPERM, call
    assert listeners(p.pid) == [listener]


@confined
def test_worker_can_not_shut_down_standard_descriptors(puppet):
    """Standard error may be a socket, shared by all processes for the log."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        p = puppet("workers=1", stdin=theirs)
        for how in SHUTDOWNS:
            assert p.call("shutdown", 0, how) == -errno.EPERM
        assert setsockopt(p, 0, OF_LISTENERS["SO_LINGER"]) == -errno.EPERM


# All levels, and two that equal one of them in their low 16 bits.
LEVELS = [socket.SOL_IP, socket.SOL_SOCKET, socket.IPPROTO_TCP,
          socket.IPPROTO_IPV6, 282, 0x10000 + socket.SOL_SOCKET,
          0x10000 + socket.IPPROTO_TCP]
SETS = {(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.SOL_SOCKET, socket.SO_LINGER),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, socket.TCP_QUICKACK)}
GETS = {(socket.SOL_SOCKET, socket.SO_ERROR),
        (socket.IPPROTO_TCP, socket.TCP_INFO)}


@confined
@pytest.mark.parametrize("call,allowed", [("setsockopt", SETS),
                                          ("getsockopt", GETS)])
def test_worker_has_no_other_options(puppet, call, allowed):
    """An option number has a different meaning at each level."""
    p = puppet("workers=1", "ktls=off")
    sock = p.socket()
    length = ONE if call == "getsockopt" else 4
    assert {(level, name) for level in LEVELS for name in range(80)
            if p.call(call, sock, level, name, LINGER, length) !=
            -errno.EPERM} == allowed


@confined
def test_listener_descriptors_are_never_reused(room, puppet):
    """They are above the limit, so no new socket gets the number of a closed
    listener.
    """
    p = puppet("workers=1", "accept=127.0.0.1:0", "accept=127.0.0.1:0")
    assert len(listeners(p.pid)) == 2
    assert min(listeners(p.pid)) >= int(soft_limit(p.pid, "open files"))


@confined
def test_sandbox_and_a_handshake_after_the_listeners_are_closed(room, echo):
    """The worker makes the socket for the backend after closing its listeners.
    """
    t = room.tunnel("workers=1", *["accept=127.0.0.1:0"] * 8,
                    f"connect={echo.address}")
    worker, = t.workers()
    sock = room.connect(t.address)
    t.wait_log(" accepted$")
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    support.wait_for(lambda: listeners(worker) == [], "no listeners")
    assert_echoes(room, sock)


@confined
def test_worker_can_do_nothing_to_others(room, puppet):
    """Including processes of its own user."""
    other = room.start("other", ["sleep", "60"], **AS_NOBODY)
    p = puppet("workers=1")
    assert p.call("kill", other.pid, 0) < 0
    assert p.call("kill", other.pid, signal.SIGTERM) < 0
    assert p.call("kill", -1, 0) < 0
    assert p.call("ptrace", PTRACE["attach"], other.pid, 0, 0) < 0
    assert p.call("pidfd_open", other.pid, 0) < 0
    assert p.call("process_vm_readv", other.pid, 0, 0, 0, 0, 0) < 0
    assert p.call("io_uring_setup", 1, bytes(120)) < 0
    assert p.call("bpf", 0, 0, 0) < 0
    assert p.call("setuid", 0) < 0
    assert p.call("prctl", 4, 1) < 0 or can_look(p.pid) == []
    assert other.alive()


# The relay of -i on pipes.

@pytest.fixture
def relay(room, echo):
    """Start a tunnel on pipes; its relay becomes the puppet."""
    if platform.machine() != "x86_64":
        pytest.skip("x86-64 only")

    puppets = []

    def start(*words):
        t = room.tunnel("-i", f"connect={echo.address}", "user=nobody", *words,
                        ready=False, stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL)
        t.wait_log("stdin accepted")
        pid, = support.children(t.pid)
        expected = "0" if "sandbox=no" in words else "2"
        support.wait_for(lambda: status(pid)["Seccomp"] == [expected] and
                         status(pid)["Uid"][0] == str(NOBODY.pw_uid) and
                         status(pid)["State"][0] == "S", "sleep")
        try:
            puppets.append((t, Puppet(pid)))
        except PermissionError as e:
            t.signal(signal.SIGKILL)
            pytest.skip(f"ptrace(2) not permitted: {e}")
        return puppets[-1][1]

    yield start
    for t, p in puppets:
        p.close()
        t.popen.stdin.close()
        assert t.wait(support.DEADLINE) == 1


RELAY_NEEDS_NO = {
    "openat": (-100, b"/etc/passwd", os.O_RDONLY), "fork": (),
    "socket": (socket.AF_INET, socket.SOCK_STREAM, 0), "getsockopt": (3, 1, 4),
    "mmap": (0, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0),
    "dup": (0,), "fcntl": (0, 3), "kill": (1, 0), "prctl": (3,),
    "sendmsg": (3, b"", 0),
}


def test_relay_can_without_a_sandbox(relay):
    """Without a sandbox, the calls succeed; otherwise the test below would
    prove nothing.
    """
    p = relay("sandbox=no")
    assert p.call("openat", *RELAY_NEEDS_NO["openat"]) > 0
    assert p.call("socket", *RELAY_NEEDS_NO["socket"]) > 0


@confined
def test_relay_can_only_move_bytes(relay):
    p = relay()
    for name, arguments in RELAY_NEEDS_NO.items():
        assert p.call(name, *arguments) == -errno.ENOSYS, name
