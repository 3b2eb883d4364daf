"""What the processes of a tunnel may do to the system: users, groups, chroot,
capabilities, and the sandbox, which has to be seen from outside.

strace and systemd-analyze are used where they are installed.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import pwd
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess

import pytest

import support
from launchers import IN_A_DEV_OF_ITS_OWN, Supervisor, datagrams, dynamic
from support import Task, assert_echoes, need, read_exactly, run, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# The runtime of sanitizers and valgrind can't live in the sandbox.
confined = pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                              reason="needs a plain build")


NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid,
             "extra_groups": []}
LIBC = ctypes.CDLL(None, use_errno=True)


def system(result, what):
    if result == -1:
        raise OSError(ctypes.get_errno(), what)
    return result


@pytest.fixture
def echo(room):
    return room.backend().serve(support.echo)


@pytest.fixture
def network():
    """One of our own, with every port free, for what this thread starts."""
    with open("/proc/thread-self/ns/net") as old:
        try:
            system(LIBC.unshare(0x40000000), "CLONE_NEWNET")
        except OSError as e:
            pytest.skip(f"no network of our own: {e}")
        with socket.socket() as s:
            up = struct.pack("16sh14x", b"lo", 1)
            fcntl.ioctl(s, 0x8914, up)  # SIOCSIFFLAGS, IFF_UP
        yield
        system(LIBC.setns(old.fileno(), 0), "setns")


@pytest.fixture
def everyone(room, monkeypatch):
    """A user's own tunnel and certificate, in a directory open to all."""
    os.chmod(room.dir, 0o755)
    program = shutil.copy(support.TUNNEL, room.path("tunnel"))
    cert = shutil.copy(room.certs.server, room.path("cert.pem"))
    os.chown(cert, NOBODY.pw_uid, NOBODY.pw_gid)
    monkeypatch.setattr(support, "TUNNEL", program)
    return f"cert={cert}"


def status(pid):
    """/proc/PID/status, as lists of words."""
    with open(f"/proc/{pid}/status") as f:
        return {key: value.split() for key, value in
                (line.split(":", 1) for line in f)}


def soft_limit(pid, what):
    with open(f"/proc/{pid}/limits") as f:
        return re.search(rf"Max {what} +(\S+)", f.read()).group(1)


def core_limit(pid):
    return soft_limit(pid, "core file size")


# The ways in, and who it is that serves.

MODES = ["workers=1", "mode=fork", "-i"]


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def begin(room, mode, *words, **keywords):
    """A tunnel, a client of it, and the process that serves the client."""
    if mode != "-i":
        t = room.tunnel(mode, *words, **keywords)
        client = room.client(t)
        # In fork mode there is one at the start, to see whether it can be.
        worker, = wait_for(lambda: len(t.workers()) == 1 and t.workers(),
                           "the worker to be alone")
        return t, client, worker
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        sock = listener.accept()[0]
    with sock:
        t = room.tunnel("-i", *words, ready=False, stdin=sock, **keywords)
    return t, room.client(peer), t.pid


def assert_is(pid, uid, gid):
    s = status(pid)
    assert s["Uid"] == [str(uid)] * 4
    assert s["Gid"] == [str(gid)] * 4
    assert s["Groups"] in ([], [str(gid)])


def assert_has_no_capabilities(pid):
    s = status(pid)
    for which in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(s[which][0], 16) == 0, which


# Users and groups.

IDS = [
    (["user=nobody"], NOBODY.pw_uid, NOBODY.pw_gid),
    (["user=nobody", "group=daemon"], NOBODY.pw_uid, 1),
    (["user=4242", "group=4343"], 4242, 4343),
    ([f"user={NOBODY.pw_uid}"], NOBODY.pw_uid, NOBODY.pw_gid),
    (["group=4343"], 0, 4343),
]


@pytest.mark.parametrize("sandbox", ["yes", "no"])
@pytest.mark.parametrize("words,uid,gid", IDS,
                         ids=[",".join(words) for words, _, _ in IDS])
def test_user_and_group(room, echo, mode, words, uid, gid, sandbox):
    if sandbox == "yes" and support.SANITIZED:
        pytest.skip("needs a plain build")
    t, client, worker = begin(room, mode, f"connect={echo.address}", *words,
                              f"sandbox={sandbox}", extra_groups=[4, 27])
    assert_is(worker, uid, gid)
    if uid != 0:
        assert_has_no_capabilities(worker)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    if worker != t.pid:
        assert status(t.pid)["Uid"] == ["0"] * 4


@pytest.mark.parametrize("words,known", [
    (["user=nobodyx"], 'user "nobodyx"'),
    (["user=nobody", "group=nogroupx"], 'group "nogroupx"'),
    (["user=-1"], 'user "-1"'),
    (["user=4294967295", "group=1"], 'user "4294967295"'),
    (["user=1", "group=4294967295"], 'group "4294967295"'),
    (["user="], "user"),
])
@pytest.mark.parametrize("flag", ["-t", "-q", "-i"])
@dynamic
def test_user_or_group_that_is_not_known(room, echo, words, known, flag):
    peer, sock = socket.socketpair()
    with peer, sock:
        p = subprocess.run(
            [*support.command(
                flag, *([] if flag == "-i" else ["accept=127.0.0.1:0"]),
                f"connect={echo.address}", f"cert={room.certs.server}",
                *words)],
            stdin=sock, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, timeout=support.DEADLINE)
    assert p.returncode == 2
    assert p.stderr.startswith("tunnel: error: command line: ")
    assert known in p.stderr
    assert p.stderr.count("\n") == 1


def test_root_keeps_its_rights_if_nobody_is_named(room, echo):
    t, _, worker = begin(room, "workers=1", f"connect={echo.address}",
                         "sandbox=no")
    assert_is(worker, 0, 0)
    assert int(status(worker)["CapEff"][0], 16) != 0
    assert t.log().count("user names another") == 1


@confined
def test_sandboxed_root_has_no_capabilities(room, echo, mode):
    _, client, worker = begin(room, mode, f"connect={echo.address}")
    assert_has_no_capabilities(worker)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"


def test_user_that_we_are_already(room, everyone, echo, mode):
    _, _, worker = begin(room, mode, f"connect={echo.address}", everyone,
                         "user=nobody", **AS_NOBODY)
    assert_is(worker, NOBODY.pw_uid, NOBODY.pw_gid)


@pytest.mark.parametrize("word", ["user=daemon", "user=root", "group=daemon",
                                  "chroot=/"])
@pytest.mark.parametrize("mode", ["-q", "-i"])
def test_privilege_that_only_root_has(room, everyone, echo, word, mode):
    peer, sock = socket.socketpair()
    with peer, sock:
        t = room.tunnel(mode, everyone, word, f"connect={echo.address}",
                        ready=False, stdin=sock, **AS_NOBODY)
        assert t.wait() == 2
    assert t.log().startswith("tunnel: error: ")
    assert t.log().count("\n") == 1
    assert word.split("=")[0] in t.log() and "root" in t.log()


def test_user_changes_at_a_reload(room, echo):
    text = f"accept = 127.0.0.1:0\ncert = {room.certs.server}\n" \
        f"connect = {echo.address}\n"
    conf = room.write("tunnel.conf", text + "user = nobody\n")
    t = room.tunnel("-c", conf, "workers=1")
    old = room.client(t)
    worker, = t.workers()
    room.write("tunnel.conf", text + "user = 4242\ngroup = 4343\n")
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    new, = set(t.workers()) - {worker}
    assert_is(new, 4242, 4343)
    assert_is(worker, NOBODY.pw_uid, NOBODY.pw_gid)
    assert_echoes(room, t)
    room.write("tunnel.conf", text + "user = -1\n")
    t.signal(signal.SIGHUP)
    t.wait_log("not reloaded")
    assert 'user "-1"' in t.log()
    assert new in t.workers()
    old.send(b"still here")
    assert read_exactly(old, 10) == b"still here"


# What root alone can do, before and after its workers have become somebody.

def test_port_443_and_a_key_for_root_alone(room, network, version):
    os.mkdir(room.path("private"), 0o700)
    pem = shutil.copy(room.certs.server, room.path("private/pem"))
    os.chmod(pem, 0o600)
    backend = room.backend().serve(support.echo)
    t = room.tunnel("accept=443", f"cert={pem}", "user=nobody",
                    f"connect={backend.address}")
    assert t.address.endswith(":443")
    client = room.client("127.0.0.1:443", version=version)
    for worker in t.workers():
        assert_is(worker, NOBODY.pw_uid, NOBODY.pw_gid)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    run("cat", pem, status=1, **AS_NOBODY)


def holder(room, t):
    client = room.client(t)
    return dict(*zip(*client.tls.getpeercert()["subject"]))["commonName"]


def test_key_for_root_alone_is_renewed(room, echo):
    os.mkdir(room.path("private"), 0o700)
    pem = shutil.copy(room.certs.server, room.path("private/pem"))
    t = room.tunnel(f"cert={pem}", "user=nobody", f"connect={echo.address}")
    assert holder(room, t) == "server"
    shutil.copy(room.certs.rsa, pem)
    os.chmod(pem, 0o600)
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    assert holder(room, t) == "rsa"


def test_new_port_at_a_reload(room, network):
    """Ports below 1024 need root, and it is still there."""
    backend = room.backend().serve(support.echo)
    text = f"cert = {room.certs.server}\nconnect = {backend.address}\n" \
        "user = nobody\n"
    conf = room.write("tunnel.conf", text + "accept = 127.0.0.1:443\n")
    t = room.tunnel("-c", conf)
    room.write("tunnel.conf", text + "accept = 127.0.0.1:444\n")
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    assert_echoes(room, "127.0.0.1:444")
    with pytest.raises(ConnectionRefusedError):
        room.connect("127.0.0.1:443")


def test_files_of_root_are_cleared_away(room, echo):
    """The pidfile and the socket are removed by the master."""
    path, pidfile, log = map(room.path, ("accept", "pidfile", "log"))
    t = room.tunnel(f"accept=unix:{path}", f"pidfile={pidfile}",
                    f"log={log}", "user=nobody", f"connect={echo.address}",
                    ready=False)
    support.wait_for(lambda: os.path.exists(log), "a log")
    support.wait_for(lambda: "listening on" in open(log).read(), "a start")
    assert_echoes(room, f"unix:{path}")
    os.rename(log, log + ".1")
    t.signal(signal.SIGHUP)
    support.wait_for(lambda: os.path.exists(log) and "reloaded\n" in
                     open(log).read(), "a reload")
    assert_echoes(room, f"unix:{path}")
    assert t.stop() == 0
    assert not os.path.exists(path) and not os.path.exists(pidfile)
    for name in (log, log + ".1"):  # what workers know goes to both
        assert " closed\n" in open(name).read()


# chroot.

@pytest.fixture
def jail(room, monkeypatch):
    monkeypatch.setenv("ASAN_OPTIONS", "detect_leaks=0")  # it needs a /proc
    os.chmod(room.dir, 0o755)
    os.mkdir(room.path("jail"))
    return room.path("jail")


def test_chroot(room, jail, echo, mode):
    t, client, worker = begin(room, mode, f"chroot={jail}", "user=nobody",
                              f"connect={echo.address}")
    for link in ("root", "cwd"):
        assert os.readlink(f"/proc/{worker}/{link}") == jail
    if worker != t.pid:
        assert os.readlink(f"/proc/{t.pid}/root") == "/"
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"


def test_chroot_and_a_unix_socket_inside(room, jail, mode):
    backend = room.backend(family=socket.AF_UNIX, to=jail + "/backend")
    os.chmod(jail + "/backend", 0o777)
    backend.serve(support.echo)
    t, client, _ = begin(room, mode, f"chroot={jail}", "user=nobody",
                         "connect=unix:/backend")
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    client.close_notify()
    t.wait_log(r" -> unix:/backend .* closed$")


def test_chroot_after_a_reload(room, jail, echo):
    """The master is outside: its paths stay what they are."""
    t = room.tunnel(f"chroot={jail}", "user=nobody",
                    f"connect={echo.address}")
    for n in range(1, 4):
        t.signal(signal.SIGHUP)
        t.wait_log("reloaded$", count=n)
        client = room.client(t)
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
    for worker in t.workers():
        assert os.readlink(f"/proc/{worker}/root") == jail


@pytest.mark.parametrize("flag", ["-t", "-q"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_chroot_that_is_no_directory(room, echo, kind, flag):
    path = room.path("missing") if kind == "missing" else \
        room.write("file", "")
    out = run(*support.command(
        flag, "accept=127.0.0.1:0", f"cert={room.certs.server}",
        f"connect={echo.address}", f"chroot={path}"), status=2).decode()
    assert out.startswith("tunnel: error: command line: ")
    assert f"chroot {path}: " in out or f'chroot "{path}"' in out
    assert out.count("\n") == 1


# The sandbox, as the kernel tells it.

@confined
@pytest.mark.parametrize("words", [["user=nobody"], []])
def test_sandbox(room, echo, mode, words, cores):
    _, client, worker = begin(room, mode, f"connect={echo.address}", *words,
                              **cores)
    s = status(worker)
    assert s["NoNewPrivs"] == ["1"]
    if platform.machine() in ("x86_64", "aarch64"):
        assert s["Seccomp"] == ["2"]
    assert core_limit(worker) == "0"
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"


@pytest.fixture
def cores(monkeypatch):
    """What to start a tunnel with, so that it could dump some."""
    monkeypatch.setenv("ASAN_OPTIONS", "disable_coredump=0")
    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_CORE,
                                                     (12345, 24690))}


@pytest.mark.parametrize("words", [["user=nobody"], []])
def test_no_sandbox(room, echo, mode, words, cores):
    t, _, worker = begin(room, mode, f"connect={echo.address}", *words,
                         "sandbox=no", **cores)
    s = status(worker)
    assert s["NoNewPrivs"] == ["0"]
    assert s["Seccomp"] == ["0"]
    assert core_limit(worker) == "12345"
    assert "sandbox: " not in t.log()


@confined
def test_master_leaves_no_core_dump(room, echo, cores):
    """It has the keys as well."""
    t = room.tunnel(f"connect={echo.address}", **cores)
    assert core_limit(t.pid) == "0"


ABOUT_ITSELF = "cat /proc/self/status; grep core /proc/self/limits; id"


@pytest.mark.parametrize("sandbox", ["yes", "no"])
def test_command(room, mode, sandbox, cores):
    """It runs as the user, and can gain nothing; but it is not confined, and
    may dump its core as if it had been started without a tunnel.
    """
    if sandbox == "yes" and support.SANITIZED:
        pytest.skip("needs a plain build")
    words = ["user=4242", "group=4343", f"sandbox={sandbox}", "--", "sh",
             "-c", ABOUT_ITSELF + "; read line"]
    t, client, worker = begin(room, mode, *words, **cores)
    text = read_until(client, b"groups=")
    s = dict(re.findall(r"^(\w+):\s*(.*?)\s*$", text, re.M))
    assert s["Uid"].split() == ["4242"] * 4
    assert s["Gid"].split() == ["4343"] * 4
    assert s["Groups"] in ("", "4343")
    assert int(s["CapEff"], 16) == int(s["CapPrm"], 16) == 0
    assert s["NoNewPrivs"] == ("1" if sandbox == "yes" else "0")
    assert s["Seccomp"] == "0"
    assert re.search(r"core file size +12345 +24690 ", text)
    if sandbox == "yes":
        assert core_limit(worker) == "0"
        if mode != "-i":
            assert t.log().count("sandbox: ") == 1
    client.send(b"\n")
    assert client.read_all()[1] == "close_notify"


def read_until(client, word):
    data = b""
    while word not in data:
        part = client.recv()
        assert part, data
        data += part
    return data.decode()


# It is for nobody else to look into, not even for its own user.

LOOK = """
import ctypes, os, sys
pid = sys.argv[1]
for name in ("environ", "mem", "maps"):
    try:
        open(f"/proc/{pid}/{name}", "rb").read(0)
        print(name)
    except PermissionError:
        pass
if ctypes.CDLL(None).ptrace(0x4206, int(pid), None, None) == 0:  # SEIZE
    print("ptrace")
"""


def can_look(pid):
    out = run("/usr/bin/python3", "-c", LOOK, str(pid), user=NOBODY.pw_uid,
              group=NOBODY.pw_gid, extra_groups=[], cwd="/")
    return out.decode().split()


@confined
def test_its_own_user_can_not_look_into_it(room, everyone, echo, mode):
    """Started as that user, so that the kernel sees no change of user."""
    _, _, worker = begin(room, mode, f"connect={echo.address}", everyone,
                         **AS_NOBODY)
    assert can_look(worker) == []


def test_without_a_sandbox_its_own_user_can(room, everyone, echo):
    """Or the test above would show nothing."""
    _, _, worker = begin(room, "workers=1", f"connect={echo.address}",
                         everyone, "sandbox=no", **AS_NOBODY)
    assert can_look(worker)


@confined
def test_the_user_of_workers_can_not_look_into_them(room, echo, mode):
    t, _, worker = begin(room, mode, f"connect={echo.address}",
                         "user=nobody")
    assert can_look(worker) == can_look(t.pid) == []


# All that a tunnel is for works in the sandbox.

DATA = os.urandom(1 << 20)


def assert_serves(client):
    sending = Task(client.send, DATA)
    assert read_exactly(client, len(DATA)) == DATA
    sending.result()
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")


@confined
@pytest.mark.parametrize("kind", ["tcp", "ipv6", "unix", "name", "fail-over"])
def test_sandbox_and_backends(request, room, echo, mode, kind):
    words = [f"connect={echo.address}"]
    if kind == "ipv6":
        request.getfixturevalue("ipv6")
        backend = room.backend(family=socket.AF_INET6, to=("::1", 0))
        words = [f"connect={backend.serve(support.echo).address}"]
        if mode != "-i":
            words.append("accept=[::1]:0")
    elif kind == "unix":
        os.chmod(room.dir, 0o755)
        backend = room.backend(family=socket.AF_UNIX, to=room.path("sock"))
        os.chmod(room.path("sock"), 0o777)
        words = [f"connect={backend.serve(support.echo).address}"]
    elif kind == "name":
        words = ["connect=localhost:" + echo.address.split(":")[1]]
    elif kind == "fail-over":
        words = [f"connect={support.closed_port()}",
                 f"connect=unix:{room.path('missing')}", *words]
    t, client, _ = begin(room, mode, "user=nobody", *words)
    assert_serves(client)
    t.wait_log(r" in=1048576 out=1048576 .* closed$")
    if mode != "-i":
        for _ in range(3):  # each backend's turn comes
            assert_echoes(room, t)


@confined
def test_sandbox_and_several_workers(room, echo):
    t = room.tunnel("workers=4", "user=nobody", f"connect={echo.address}")
    clients = [room.client(t) for _ in range(20)]
    for client in clients:
        assert_serves(client)
    assert len(t.workers()) == 4


@confined
def test_sandbox_and_timeouts(room, backend, mode):
    _, client, _ = begin(room, mode, "user=nobody", "idle_timeout=1s",
                         f"connect={backend.address}")
    assert client.read_all() == (b"", "reset")


@confined
def test_sandbox_and_statistics(room, backend):
    t, _, worker = begin(room, "workers=1", "user=nobody",
                         f"connect={backend.address}")
    t.signal(signal.SIGUSR1)
    t.wait_log("live: .* flowing")
    assert status(worker)["State"][0] != "Z"


@confined
def test_sandbox_and_a_log_file(room, echo, mode):
    """It is root's, and workers write to it all the same."""
    log = room.path("log")
    path = room.path("accept")
    words = ["user=nobody", f"log={log}", f"connect={echo.address}"]
    if mode == "-i":
        begin(room, mode, *words)[1].reset()
    else:
        room.tunnel(mode, f"accept=unix:{path}", *words, ready=False)
        support.wait_for(lambda: os.path.exists(log) and "listening on" in
                         open(log).read(), "a start")
        room.client(f"unix:{path}").reset()
    support.wait_for(lambda: f" -> {echo.address} " in open(log).read(),
                     "the connection's line")


@confined
def test_sandbox_and_syslog(room, echo, mode, monkeypatch):
    """What workers have to say arrives, though they can't open /dev/log."""
    need("unshare")
    dev = room.path("dev")
    os.mkdir(dev)
    for name in ("null", "urandom"):
        room.write(f"dev/{name}", "")
    if subprocess.run(["unshare", "-m", "sh", "-c", IN_A_DEV_OF_ITS_OWN, dev,
                       "true"], check=False).returncode != 0:
        pytest.skip("no mounts of our own")
    log = room.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    log.bind(os.path.join(dev, "log"))
    log.settimeout(support.DEADLINE)
    monkeypatch.setattr(support, "UNDER", [
        "unshare", "-m", "sh", "-c", IN_A_DEV_OF_ITS_OWN, dev])
    os.mkdir(room.path("jail"))
    path = room.path("accept")
    words = ["log=syslog", "sandbox=yes", "user=nobody",
             f"chroot={room.path('jail')}", f"connect={echo.address}"]
    if mode == "-i":
        begin(room, mode, *words)[1].reset()
    else:
        t = room.tunnel(mode, f"accept=unix:{path}", *words, ready=False)
        while b"listening on" not in log.recv(4096):
            pass
        client = room.client(f"unix:{path}")
        worker, = wait_for(lambda: len(t.workers()) == 1 and t.workers(),
                           "the worker to be alone")
        # No other has its socket to syslog, which it could shut down.
        assert not set(datagrams(worker)) & set(datagrams(t.pid))
        client.reset()
    while f" -> {echo.address} ".encode() not in log.recv(4096):
        pass


# On older kernels, the sandbox is what they have.

OLDER = r"""
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>

long
syscall(long number, long a, long b, long c, long d, long e, long f)
{
	long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT,
	    "syscall");
	int abi = atoi(getenv("LANDLOCK_ABI"));
	const char *denied = getenv("DENIED");

	if (denied != NULL && number == atol(denied)) {
		errno = EPERM;
		return -1;
	}
	if (number == 444 && c == 1 && abi > 0)
		return abi;
	if ((number == 444 && abi <= 0) ||
	    (number == SYS_seccomp && getenv("NO_SECCOMP") != NULL)) {
		errno = abi == 0 ? ENOSYS : EOPNOTSUPP;
		return -1;
	}
	return real(number, a, b, c, d, e, f);
}
"""


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """The environment of a tunnel to whom the kernel seems to be older."""
    need("cc")
    place = tmp_path_factory.mktemp("older")
    (place / "older.c").write_text(OLDER)
    run("cc", "-D_GNU_SOURCE", "-w", "-shared", "-fPIC", "-o",
        place / "older.so", place / "older.c")
    os.chmod(place, 0o755)
    return lambda abi, **more: {
        **os.environ, "LD_PRELOAD": str(place / "older.so"),
        "LANDLOCK_ABI": str(abi), **more}


# -1: it is there, but was disabled at boot.
@dynamic
@confined
@pytest.mark.parametrize("abi", [-1, 0, 1, 2, 3])
def test_older_landlock(room, echo, mode, older, abi):
    """Less than there could be, which is said, once."""
    if landlock_abi() < 3 and abi > 0:
        pytest.skip("this kernel has no more")
    t, client, worker = begin(room, mode, "user=nobody",
                              f"connect={echo.address}", env=older(abi))
    if mode != "-i":
        assert t.log().count("sandbox: ") == 1
        assert "Landlock" in t.wait_log("sandbox: ")
    assert status(worker)["NoNewPrivs"] == ["1"]
    assert status(worker)["Seccomp"] == ["2"]
    assert_serves(client)


@dynamic
@confined
@pytest.mark.parametrize("abi", [4, 5, 6])
def test_newer_landlock(room, echo, mode, older, abi):
    """All that was promised: nothing to say."""
    if landlock_abi() < abi:
        pytest.skip("this kernel has no more")
    t, client, _ = begin(room, mode, "user=nobody",
                         f"connect={echo.address}", env=older(abi))
    assert "sandbox: " not in t.log()
    assert_serves(client)


@dynamic
@confined
def test_kernel_without_a_filter(room, echo, mode, older):
    t, client, worker = begin(
        room, mode, "user=nobody", f"connect={echo.address}",
        env=older(max(landlock_abi(), 0), NO_SECCOMP=""))
    if mode != "-i":
        assert t.log().count("sandbox: ") == 1
    assert status(worker)["Seccomp"] == ["0"]
    assert_serves(client)


@dynamic
@confined
def test_older_landlock_is_told_of_once(room, echo, older):
    t = room.tunnel("workers=4", f"connect={echo.address}", env=older(0))
    assert_echoes(room, t)
    assert t.log().count("sandbox: ") == 1


@dynamic
@confined
@pytest.mark.parametrize("mode", ["workers=2", "mode=fork", "-i"])
@pytest.mark.parametrize("call", [446, 126], ids=["landlock", "capset"])
def test_sandbox_that_can_not_be_entered(room, echo, mode, older, call):
    """Then nothing is served, and nobody told that it is."""
    if landlock_abi() < 1 or platform.machine() != "x86_64":
        pytest.skip("no such system call to deny")
    with Supervisor(room.path("notify")) as supervisor, \
            socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        sock = listener.accept()[0]
        t = room.tunnel(
            mode, f"connect={echo.address}", ready=False, stdin=sock,
            env=older(landlock_abi(), DENIED=str(call),
                      NOTIFY_SOCKET=supervisor.address))
        sock.close()
        assert t.wait() == 1
        assert b"READY" not in supervisor.rest()
        assert re.search("error: .*Operation not permitted", t.log())
        assert support.read_all(peer)[0] == b""


@confined
@pytest.mark.parametrize("mode", ["workers=2", "mode=fork"])
def test_master_that_could_not_signal_its_workers(room, echo, mode):
    """Without CAP_KILL they would stay for ever: better not to start."""
    t = room.start("tunnel", [
        "setpriv", "--bounding-set=-kill", support.TUNNEL, "user=nobody",
        mode, "accept=127.0.0.1:0", f"connect={echo.address}",
        f"cert={room.certs.server}"])
    assert t.wait() == 1
    assert "Operation not permitted (with user, the master needs CAP_KILL)" \
        in t.log()
    assert "listening" not in t.log()


# What somebody could do who has brought code of his own into a worker.

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
    """A sleeping process that makes the system calls we want it to."""

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
        assert os.WIFSTOPPED(how), f"it has ended: {how:#x}"

    def call(self, name, *arguments):
        """Bytes are passed by address; the result, or -errno."""
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


def landlock_abi():
    return LIBC.syscall(444, None, ctypes.c_size_t(0), 1)


@pytest.fixture
def puppet(room, echo):
    """Start a tunnel; who serves is at our mercy."""
    if platform.machine() != "x86_64":
        pytest.skip("knows x86-64 alone")

    def start(mode, *words, **keywords):
        _, client, worker = begin(room, mode, f"connect={echo.address}",
                                  "user=nobody", *words, **keywords)
        client.send(b"hello")  # so that it sleeps now
        assert read_exactly(client, 5) == b"hello"
        support.wait_for(lambda: status(worker)["State"][0] == "S", "sleep")
        try:
            return room.keep(Puppet(worker))
        except PermissionError as e:
            pytest.skip(f"can't trace here: {e}")

    return start


def test_puppet_can_do_all_that(room, echo, puppet):
    """Without a sandbox: or what follows would show nothing."""
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
def test_worker_can_connect_to_its_backend_alone(room, echo, puppet, mode):
    if landlock_abi() < 4:
        pytest.skip("this kernel has no Landlock for ports")
    p = puppet(mode)
    other = room.backend().address
    assert p.connect(other) == -errno.EACCES
    assert p.connect(echo.address) == 0
    assert p.connect(other) == -errno.EACCES


@confined
def test_worker_can_reach_no_unix_socket(room, puppet, mode):
    """Whoever listens there may trust its user."""
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
    """Those that Landlock, which knows bind(2) and connect(2) of TCP, does
    not see.
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
    for rights in (4, 5, 6, 7):  # PROT_EXEC, and more
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
NO_ADDRESS = bytes(16)  # AF_UNSPEC: connect(2) undoes listen(2)
SHUTDOWNS = [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]


def listeners(pid):
    """The numbers that a process has for listening sockets on TCP."""
    with open("/proc/net/tcp") as f:
        inodes = {fields[9] for fields in map(str.split, f)
                  if fields[3] == "0A"}
    return [int(fd) for fd, what in support.open_files(pid).items()
            if what.removeprefix("socket:[").removesuffix("]") in inodes]


def setsockopt(p, sock, option):
    level, name, value = option
    return p.call("setsockopt", sock, level, name, value, len(value))


def test_puppet_can_change_a_listener(puppet):
    """Without a sandbox: or what follows would show nothing."""
    p = puppet("workers=1", "sandbox=no")
    listener, = listeners(p.pid)
    for option in OF_LISTENERS.values():
        assert setsockopt(p, listener, option) == 0, option
    assert p.call("connect", listener, NO_ADDRESS, 16) == 0
    assert listeners(p.pid) == []


@confined
@pytest.mark.parametrize("what", OF_LISTENERS)
def test_worker_can_not_change_a_listener(puppet, what):
    """What is accepted inherits it, and the others accept from it as well."""
    p = puppet("workers=1")
    listener, = listeners(p.pid)
    assert setsockopt(p, listener, OF_LISTENERS[what]) == -errno.EPERM


@confined
def test_worker_can_not_end_a_listener(room, echo, puppet):
    """Nor a copy of it, nor as it is for all who have it."""
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
def test_worker_can_not_end_what_it_was_started_with(puppet):
    """Standard error may be a socket, to which all of them log."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        p = puppet("workers=1", stdin=theirs)
        for how in SHUTDOWNS:
            assert p.call("shutdown", 0, how) == -errno.EPERM
        assert setsockopt(p, 0, OF_LISTENERS["SO_LINGER"]) == -errno.EPERM


# The levels that there are, and two that would be one of them in 16 bits.
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
    """The number of an option means another one at another level."""
    p = puppet("workers=1", "ktls=off")
    sock = p.socket()
    length = ONE if call == "getsockopt" else 4
    assert {(level, name) for level in LEVELS for name in range(80)
            if p.call(call, sock, level, name, LINGER, length) !=
            -errno.EPERM} == allowed


@confined
def test_numbers_of_listeners_are_nobody_elses(room, puppet):
    """Past the limit: a socket can't get the number of one that is closed."""
    p = puppet("workers=1", "accept=127.0.0.1:0", "accept=127.0.0.1:0")
    assert len(listeners(p.pid)) == 2
    assert min(listeners(p.pid)) >= int(soft_limit(p.pid, "open files"))


@confined
def test_sandbox_and_a_handshake_that_outlives_its_listeners(room, echo):
    """To dial, its worker makes a socket after it has closed them."""
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
    """Not even to a process of its own user."""
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


# The service unit, as far as it goes without systemd.

@pytest.fixture
def unit(network, room):
    """What it says, and the words that make a tunnel on port 443."""
    text = support.text_of(os.path.join(support.TOP,
                                        "lib/systemd/tunnel.service"))
    backend = room.backend().serve(support.echo)
    return text, ["accept=127.0.0.1:443", "user=nobody",
                  f"connect={backend.address}", "sandbox=yes",
                  f"stats_file={room.path('stats.prom')}"]


def settings(text, key):
    return " ".join(re.findall(rf"^{key}=(.*)$", text, re.M)).split()


@confined
def test_capabilities_of_the_unit_are_enough(room, unit, monkeypatch):
    text, words = unit
    names = [word[4:].lower() for word in
             settings(text, "CapabilityBoundingSet")]
    assert names
    monkeypatch.setattr(support, "UNDER", [
        "setpriv", "--no-new-privs", "--bounding-set",
        "-all," + ",".join("+" + name for name in names)])
    t = room.tunnel(*words)
    assert bin(int(status(t.pid)["CapEff"][0], 16)).count("1") == len(names)
    assert_echoes(room, t)
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    client = room.client(t)
    # Not the last child: that may be the one that writes the statistics.
    worker = re.findall(r"worker (\d+) started", t.log())[-1]
    assert_is(worker, NOBODY.pw_uid, NOBODY.pw_gid)
    client.close()
    assert t.stop() == 0
    assert "Operation not permitted" not in t.log()


@confined
def test_system_calls_of_the_unit_are_enough(room, unit, monkeypatch):
    need("systemd-analyze", "strace")
    text, words = unit
    trace = room.path("trace")
    monkeypatch.setattr(support, "UNDER", ["strace", "-D", "-f", "-o", trace])
    for mode in ("workers=2", "mode=fork"):
        t = room.tunnel(mode, *words)
        assert_echoes(room, t)
        t.signal(signal.SIGHUP)
        t.wait_log("reloaded$")
        t.signal(signal.SIGUSR1)
        t.wait_log("statistics: ")
        assert_echoes(room, t)
        assert t.stop() == 0
    with open(trace) as f:
        made = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z]\w+)", f.read(),
                              re.M))
    assert "accept4" in made
    allowed = set()
    names = settings(text, "SystemCallFilter")
    while names:
        name = names.pop()
        if name.startswith("@"):
            out = run("systemd-analyze", "syscall-filter", name).decode()
            names += re.findall(r"^ +(@?\w\S*)$", out, re.M)
        allowed.add(name)
    assert made - allowed == set()
