"""The sandbox of a worker, as reported by the kernel: by this one, and by
older ones with fewer features.
"""

import os
import platform
import re
import resource
import signal
import socket
import subprocess

import pytest

import support
from launchers import IN_A_DEV_OF_ITS_OWN, Supervisor, datagrams, dynamic
from privileged import (AS_NOBODY, MODES, begin, can_look, confined,
                        landlock_abi, soft_limit, status)
from support import Task, assert_echoes, need, read_exactly, run, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def core_limit(pid):
    return soft_limit(pid, "core file size")


# The sandbox, as reported by the kernel.

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
    """Start a tunnel in a way that permits core dumps."""
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
    """The master has the keys as well."""
    t = room.tunnel(f"connect={echo.address}", **cores)
    assert core_limit(t.pid) == "0"


ABOUT_ITSELF = "cat /proc/self/status; grep core /proc/self/limits; id"


@pytest.mark.parametrize("sandbox", ["yes", "no"])
def test_command(room, mode, sandbox, cores):
    """A command runs as the user and cannot gain privileges.  It is not
    confined, and may dump core as without a tunnel.
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


@confined
def test_own_user_can_not_inspect_it(room, everyone, echo, mode):
    """Started as that user, so the kernel sees no change of user."""
    _, _, worker = begin(room, mode, f"connect={echo.address}", everyone,
                         **AS_NOBODY)
    assert can_look(worker) == []


def test_own_user_can_inspect_it_without_a_sandbox(room, everyone, echo):
    """Otherwise the test above would prove nothing."""
    _, _, worker = begin(room, "workers=1", f"connect={echo.address}",
                         everyone, "sandbox=no", **AS_NOBODY)
    assert can_look(worker)


@confined
def test_user_of_workers_can_not_inspect_them(room, echo, mode):
    t, _, worker = begin(room, mode, f"connect={echo.address}",
                         "user=nobody")
    assert can_look(worker) == can_look(t.pid) == []


# All features work in the sandbox.

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
        for _ in range(3):  # includes each backend
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
    """The file belongs to root; workers still write to it."""
    log = room.path("log")
    path = room.path("accept")
    words = ["user=nobody", f"log={log}", f"connect={echo.address}"]
    if mode == "-i":
        begin(room, mode, *words)[1].reset()
    else:
        room.tunnel(mode, f"accept=unix:{path}", *words, ready=False)
        support.wait_for(lambda: os.path.exists(log) and "listening on" in
                         open(log).read(), "the start")
        room.client(f"unix:{path}").reset()
    support.wait_for(lambda: f" -> {echo.address} " in open(log).read(),
                     "the connection's line")


@confined
def test_sandbox_and_syslog(room, echo, mode, monkeypatch):
    """Messages of workers arrive, although they cannot open /dev/log."""
    need("unshare")
    dev = room.path("dev")
    os.mkdir(dev)
    for name in ("null", "urandom"):
        room.write(f"dev/{name}", "")
    if subprocess.run(["unshare", "-m", "sh", "-c", IN_A_DEV_OF_ITS_OWN, dev,
                       "true"], check=False).returncode != 0:
        pytest.skip("no mount namespace")
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
                           "one worker to remain")
        # No other process has its syslog socket, which it could shut down.
        assert not set(datagrams(worker)) & set(datagrams(t.pid))
        client.reset()
    while f" -> {echo.address} ".encode() not in log.recv(4096):
        pass


# On older kernels, the sandbox uses the features that exist.

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
    """The environment of a tunnel that sees an older kernel."""
    need("cc")
    place = tmp_path_factory.mktemp("older")
    (place / "older.c").write_text(OLDER)
    run("cc", "-D_GNU_SOURCE", "-w", "-shared", "-fPIC", "-o",
        place / "older.so", place / "older.c")
    os.chmod(place, 0o755)
    return lambda abi, **more: {
        **os.environ, "LD_PRELOAD": str(place / "older.so"),
        "LANDLOCK_ABI": str(abi), **more}


# -1: present, but disabled at boot.
@dynamic
@confined
@pytest.mark.parametrize("abi", [-1, 0, 1, 2, 3])
def test_older_landlock(room, echo, mode, older, abi):
    """An incomplete sandbox is reported once."""
    if landlock_abi() < 3 and abi > 0:
        pytest.skip("this kernel has an older Landlock")
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
    """A complete sandbox is not reported."""
    if landlock_abi() < abi:
        pytest.skip("this kernel has an older Landlock")
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
def test_older_landlock_is_reported_once(room, echo, older):
    t = room.tunnel("workers=4", f"connect={echo.address}", env=older(0))
    assert_echoes(room, t)
    assert t.log().count("sandbox: ") == 1


@dynamic
@confined
@pytest.mark.parametrize("mode", ["workers=2", "mode=fork", "-i"])
@pytest.mark.parametrize("call", [446, 126], ids=["landlock", "capset"])
def test_sandbox_that_can_not_be_entered(room, echo, mode, older, call):
    """Nothing is served, and the supervisor gets no READY."""
    if landlock_abi() < 1 or platform.machine() != "x86_64":
        pytest.skip("no system call to deny")
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
    """Without CAP_KILL, workers could never be stopped: the start fails."""
    t = room.start("tunnel", [
        "setpriv", "--bounding-set=-kill", support.TUNNEL, "user=nobody",
        mode, "accept=127.0.0.1:0", f"connect={echo.address}",
        f"cert={room.certs.server}"])
    assert t.wait() == 1
    assert "Operation not permitted (with user, the master needs CAP_KILL)" \
        in t.log()
    assert "listening" not in t.log()
