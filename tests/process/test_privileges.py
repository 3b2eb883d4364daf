"""The privileges of workers: users, groups, chroot, capabilities; and what
remains possible for the master.
"""

import os
import shutil
import signal
import socket
import subprocess

import pytest

import support
from launchers import dynamic
from privileged import (AS_NOBODY, MODES, NOBODY, assert_is, begin, confined,
                        start, status)
from support import (assert_echoes, complaint, read_exactly, run,
                     run_tunnel)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


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
def test_unknown_user_or_group(room, echo, words, known, flag):
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


def test_root_keeps_its_privileges_without_user(room, echo):
    t, _, worker = begin(room, "workers=1", f"connect={echo.address}",
                         "sandbox=no")
    assert_is(worker, 0, 0)
    assert int(status(worker)["CapEff"][0], 16) != 0
    assert t.log().count("workers run as root") == 1


@confined
def test_sandboxed_root_has_no_capabilities(room, echo, mode):
    _, client, worker = begin(room, mode, f"connect={echo.address}")
    assert_has_no_capabilities(worker)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"


def test_user_is_the_current_user(room, everyone, echo, mode):
    _, _, worker = begin(room, mode, f"connect={echo.address}", everyone,
                         "user=nobody", **AS_NOBODY)
    assert_is(worker, NOBODY.pw_uid, NOBODY.pw_gid)


@pytest.mark.parametrize("word", ["user=daemon", "user=root", "group=daemon",
                                  "chroot=/"])
@pytest.mark.parametrize("mode", ["-q", "-i"])
def test_privilege_that_needs_root(room, everyone, echo, word, mode):
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
    t.wait_log("reload failed")
    assert 'user "-1"' in t.log()
    assert new in t.workers()
    old.send(b"still here")
    assert read_exactly(old, 10) == b"still here"


# Actions that need root, before and after the workers' change of user.

def test_port_443_and_a_key_readable_by_root_only(room, network, version):
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


def test_key_readable_by_root_only_is_renewed(room, echo):
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
    """Ports below 1024 need root, which the master still is."""
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


def test_files_of_root_are_removed(room, echo):
    """The master removes the pidfile and the socket."""
    path, pidfile, log = map(room.path, ("accept", "pidfile", "log"))
    t = room.tunnel(f"accept=unix:{path}", f"pidfile={pidfile}",
                    f"log={log}", "user=nobody", f"connect={echo.address}",
                    ready=False)
    support.wait_for(lambda: os.path.exists(log), "a log")
    support.wait_for(lambda: "listening on" in open(log).read(), "the start")
    assert_echoes(room, f"unix:{path}")
    os.rename(log, log + ".1")
    t.signal(signal.SIGHUP)
    support.wait_for(lambda: os.path.exists(log) and "reloaded\n" in
                     open(log).read(), "a reload")
    assert_echoes(room, f"unix:{path}")
    assert t.stop() == 0
    assert not os.path.exists(path) and not os.path.exists(pidfile)
    for name in (log, log + ".1"):  # workers log to both
        assert " closed\n" in open(name).read()


# chroot.

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
    """The master is outside the chroot: its paths stay valid."""
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


def script(path, text="#!/nowhere\n"):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o755)


def test_command_that_cannot_run_in_a_chroot(room, jail, mode):
    """Its interpreter is outside: only execve(2) finds that."""
    script(jail + "/sort")
    t, _ = start(room, mode, f"chroot={jail}", "user=nobody", "exec=/sort")
    t.wait_log(r"error: /sort: No such file or directory "
               rf"\(in chroot {jail}\)$")
    t.wait_log(r" (backend reset|backend: command killed by signal 9 "
               r"\(Killed\))$")


def test_command_is_looked_for_in_the_chroot(room, jail, monkeypatch):
    """By its path or in PATH; links in it begin at the new root."""
    def problems(name):
        p = run_tunnel("-tq", "accept=0", f"cert={room.certs.server}",
                       f"chroot={jail}", "user=nobody", f"exec={name}")
        return "" if p.returncode == 0 == len(p.stderr) else complaint(p)

    monkeypatch.setenv("PATH", "/programs:/usr/bin:/bin")
    os.mkdir(jail + "/programs")
    script(jail + "/programs/inside")
    script(room.path("outside"))
    os.symlink("/programs/inside", jail + "/link")
    os.symlink(room.path("outside"), jail + "/programs/dangling")
    for name in ("inside", "/programs/inside", "programs/inside", "/link"):
        assert problems(name) == "", name
    for name in ("sort", "/bin/sh", "dangling", room.path("outside"),
                 "programs"):
        assert problems(name) == f"command line: command: {name}: not found " \
            f"or not executable in chroot {jail}"


@pytest.mark.parametrize("flag", ["-t", "-q"])
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_chroot_is_not_a_directory(room, echo, kind, flag):
    path = room.path("missing") if kind == "missing" else \
        room.write("file", "")
    out = run(*support.command(
        flag, "accept=127.0.0.1:0", f"cert={room.certs.server}",
        f"connect={echo.address}", f"chroot={path}"), status=2).decode()
    assert out.startswith("tunnel: error: command line: ")
    assert f"chroot: {path}: " in out
    assert out.count("\n") == 1
