"""Files that a tunnel writes to or trusts: other users must not choose them,
nor read secrets.
"""

import contextlib
import fcntl
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess

import pytest

import support
from certificates import PASSWORD
from support import (assert_echoes, complaint, drain, read_all, run,
                     run_tunnel, text_of, wait_for)

NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid,
             "extra_groups": []}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place(room):
    """A directory for such files, reachable by all users."""
    os.chmod(room.dir, 0o755)
    os.mkdir(room.path("place"))
    return room.path("place")


@pytest.fixture
def refused(room):
    """The error message: the same with and without -t, and for any worker
    user.
    """

    def call(*words):
        words = ["accept=127.0.0.1:0", "connect=1",
                 f"cert={room.certs.server}", *words]
        said = {complaint(run_tunnel(*flags, *words)) for flags in ([], ["-t"])}
        assert len(said) == 1
        return said.pop()

    return call


# The file itself.

@pytest.mark.parametrize("key", ["log", "pidfile"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_link_is_refused(room, place, refused, key, link):
    """It would lead to a file of ours that another user has chosen."""
    target = room.write("target", "precious")
    link(target, f"{place}/it")
    assert f"{key}: {place}/it: it is a link" in refused(f"{key}={place}/it")
    assert text_of(target) == "precious"


@pytest.mark.parametrize("key", ["log", "pidfile"])
def test_dangling_link_makes_no_file(room, place, refused, key):
    os.symlink(room.path("target"), f"{place}/it")
    assert f"{key}: {place}/it: it is a link" in refused(f"{key}={place}/it")
    assert not os.path.exists(room.path("target"))


@needs_root
@pytest.mark.parametrize("key", ["log", "pidfile", "ticket_keys"])
def test_file_of_another_user_is_refused(place, refused, key):
    path = f"{place}/it"
    run(support.TUNNEL, "-k", "-o", path)
    os.chown(path, NOBODY.pw_uid, 0)
    assert f"{key}: {path}: it is owned by another user" in \
        refused(f"{key}={path}")
    assert os.path.getsize(path) == 65


@pytest.mark.parametrize("key", ["log", "pidfile"])
def test_directory_instead_of_a_file(place, refused, key):
    assert f"{key}: {place}: not a regular file" in \
        refused(f"{key}={place}")


@needs_root
def test_device_instead_of_a_pidfile(place, refused):
    """A device would be removed at the end."""
    path = f"{place}/null"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no permission to make devices")
    assert "not a regular file" in refused(f"pidfile={path}")
    assert os.path.exists(path)


# Its directory.

def words_for(place):
    """A key for each file in this directory that is written to or trusted."""
    return [f"log={place}/log", f"pidfile={place}/pid",
            f"accept=unix:{place}/socket", f"ticket_keys={place}/tickets"]


def workers_own(path):
    os.chown(path, NOBODY.pw_uid, 0)


def workers_group(path):
    os.chown(path, 0, NOBODY.pw_gid)
    os.chmod(path, 0o775)


def anybody(path):
    os.chmod(path, 0o777)


@needs_root
@pytest.mark.parametrize("key", range(4))
@pytest.mark.parametrize("below", ["", "/below"], ids=["there", "above"])
@pytest.mark.parametrize("give,who", [
    (workers_own, "the workers' user"), (workers_group, "the workers' user"),
    (anybody, "anyone")])
def test_directory_that_others_can_write_to(place, refused, give, who, below,
                                            key):
    """The workers' user could make a link there, which root would follow."""
    os.makedirs(place + below, exist_ok=True)
    if key == 3:
        run(support.TUNNEL, "-k", "-o", f"{place}{below}/tickets")
    before = os.listdir(place + below)
    give(place)
    word = words_for(place + below)[key]
    assert f": {who} can write to the directory {place}\n" in \
        refused(word, "user=nobody") + "\n"
    assert os.listdir(place + below) == before


@needs_root
@pytest.mark.parametrize("key", range(4))
def test_link_on_the_way_that_others_can_change(room, place, refused, key):
    """In a sticky directory, every user can make links."""
    os.chmod(place, 0o1777)
    os.mkdir(room.path("target"))
    os.symlink(room.path("target"), f"{place}/link")
    os.chown(f"{place}/link", NOBODY.pw_uid, 0, follow_symlinks=False)
    if key == 3:
        run(support.TUNNEL, "-k", "-o", room.path("target") + "/tickets")
    before = os.listdir(room.path("target"))
    assert (f": the workers' user can write to the directory {place}/link\n"
            in refused(words_for(f"{place}/link")[key], "user=nobody") + "\n")
    assert os.listdir(room.path("target")) == before


@needs_root
def test_directory_that_a_link_leads_to(room, place, refused):
    """The directories above its target can be replaced as well."""
    os.mkdir(f"{place}/below")
    workers_own(place)
    os.symlink(f"{place}/below", room.path("link"))
    assert f": the workers' user can write to the directory {place}" in \
        refused(f"log={room.path('link')}/log", "user=nobody")


@needs_root
def test_ticket_keys_writable_by_anybody(place, refused):
    path = f"{place}/tickets"
    run(support.TUNNEL, "-k", "-o", path)
    os.chmod(path, 0o602)
    assert f"ticket_keys: {path}: other users can write to it" in \
        refused(f"ticket_keys={path}")


def test_keys_may_be_a_link(room, place):
    """Kubernetes mounts secrets as links; the tunnel does not write there."""
    run(support.TUNNEL, "-k", "-o", room.path("keys"))
    os.symlink(room.path("keys"), f"{place}/tickets")
    run(support.TUNNEL, "-t", "accept=0", "connect=1",
        f"cert={room.certs.server}", f"ticket_keys={place}/tickets")


def test_sticky_directory(room, place, echo):
    """As /tmp: other users can create files there, but cannot replace ours."""
    os.chmod(place, 0o1777)
    room.write("place/log", "")
    t = room.tunnel(f"log={place}/log", f"pidfile={place}/pid",
                    f"accept=unix:{place}/socket", f"connect={echo.address}",
                    ready=False)
    wait_for(lambda: "listening on" in text_of(f"{place}/log"), "the start")
    assert_echoes(room, f"unix:{place}/socket")
    assert "can write" not in text_of(f"{place}/log") + t.log()
    assert t.stop() == 0
    assert os.listdir(place) == ["log"]


@needs_root
def test_socket_of_another_user_is_not_removed(room, place, refused):
    """No process listens on it, but only its owner may remove it."""
    os.chmod(place, 0o1777)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"{place}/socket")
    os.chown(f"{place}/socket", NOBODY.pw_uid, 0)
    word = f"accept=unix:{place}/socket"
    assert re.search(support.IN_USE, complaint(
        run_tunnel(word, "connect=1", f"cert={room.certs.server}"), status=1))
    assert os.path.exists(f"{place}/socket")


@needs_root
def test_directory_of_another_group(room, place, echo):
    """As /var/log on Ubuntu: a warning, at the start and with -t."""
    os.chown(place, 0, 4242)
    os.chmod(place, 0o775)
    run(support.TUNNEL, "-k", "-o", f"{place}/tickets")
    words = [*words_for(place), f"connect={echo.address}",
             f"cert={room.certs.server}", "user=nobody"]
    warning = f": another group can write to the directory {place}\n"
    assert run(support.TUNNEL, "-t", *words).decode().count(warning) == 4
    assert os.listdir(place) == ["tickets"]
    t = room.tunnel(*words, ready=False)
    log = f"{place}/log"
    wait_for(lambda: text_of(log).count(warning) == 4, "the warnings")
    t.signal(signal.SIGHUP)
    wait_for(lambda: text_of(log).count(warning) == 8 and
             text_of(log).count("reloaded"), "the warnings of the reload")


@needs_root
@pytest.mark.parametrize("below", ["", "/below"], ids=["there", "above"])
def test_directory_of_another_user(room, place, below):
    os.makedirs(place + below, exist_ok=True)
    os.chown(place, 4242, 0)
    log = f"{place}{below}/log"
    out = run(support.TUNNEL, "-t", "accept=0", "connect=1", "user=nobody",
              f"cert={room.certs.server}", f"log={log}").decode()
    assert (f"log: {log}: another user can write to the directory {place}\n"
            in out)


@needs_root
def test_files_of_a_user_in_its_own_directory(room, place, monkeypatch):
    """From the command line, with relative paths."""
    backend = room.backend().serve(support.echo)
    os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    os.chmod(place, 0o775)
    program = f"{place}/tunnel"
    run("cp", support.TUNNEL, program)
    monkeypatch.setattr(support, "TUNNEL", program)
    run(program, "-g", "localhost", "-o", "cert.pem", cwd=place, **AS_NOBODY)
    room.tunnel("cert=cert.pem", "log=./log", "pidfile=pid",
                f"connect={backend.address}", "accept=unix:socket",
                ready=False, cwd=place, **AS_NOBODY)
    wait_for(lambda: "listening on" in text_of(f"{place}/log"), "the start")
    support.connect(f"unix:{place}/socket").close()
    assert os.path.exists(f"{place}/pid")
    assert "warning" not in text_of(f"{place}/log")


@needs_root
@pytest.mark.parametrize("option", ["log", "pidfile"])
def test_read_only_place(room, place, option):
    """As in a unit, where a check outside of it found no error."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs -o ro none {place} "
         "|| exit 77\nexec \"$@\"", "sh", support.TUNNEL,
         f"{option}={place}/x", "accept=127.0.0.1:0", "connect=1",
         f"cert={room.certs.server}"],
        capture_output=True, text=True, timeout=30)
    if done.returncode == 77:
        pytest.skip("nothing can be mounted here")
    assert f"{option}: {place}/x: Read-only file system (a service of " \
        "systemd can write to /run/tunnel; see tunnel(8))\n" in done.stderr


# At SIGHUP, which reopens the log.

@needs_root
@pytest.mark.parametrize("how", ["link", "directory", "owner"])
def test_log_is_checked_when_reopened(room, place, echo, how):
    """A file that passed at the start may have been replaced since."""
    log, target = f"{place}/log", room.write("target", "precious")
    t = room.tunnel(f"log={log}", "user=nobody", f"connect={echo.address}",
                    ready=False)
    wait_for(lambda: "listening on" in text_of(log), "the start")
    os.rename(log, room.path("moved"))
    if how == "link":
        os.symlink(target, log)
    elif how == "directory":
        workers_own(place)
    else:
        room.write("place/log", "")
        os.chown(log, NOBODY.pw_uid, 0)
    t.signal(signal.SIGHUP)
    wait_for(lambda: "reload failed" in text_of(room.path("moved")),
             "the refusal, in the old log")
    assert re.search(rf"error: command line: log: {log}: (it is a link|it is "
                     rf"owned by another user|the workers' user can write to)",
                     text_of(room.path("moved")))
    assert text_of(target) == "precious"
    assert text_of(log) in ("", "precious")
    address = re.search(r"listening on (\S+)", text_of(room.path("moved")))[1]
    assert_echoes(room, address)


# The lock of the pidfile.

@needs_root
@pytest.mark.parametrize("left_over", [False, True])
def test_other_users_cannot_lock_the_pidfile(room, place, left_over):
    """A lock by another user would keep a tunnel from starting."""
    path = f"{place}/pid"
    if left_over:
        room.write("place/pid", "1\n")
        os.chmod(path, 0o644)
    t = room.tunnel("connect=1", f"pidfile={path}")
    assert text_of(path) == f"{t.pid}\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    run("flock", "-n", path, "true", status=66, **AS_NOBODY)  # EX_NOINPUT
    with open(path) as f, pytest.raises(BlockingIOError):
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -t and files that it must not create.

@pytest.mark.parametrize("key", ["log", "pidfile"])
def test_check_reports_impossible_files(place, refused, key):
    assert f"{key}: {place}/no/it: No such file or directory" in \
        refused(f"{key}={place}/no/it")
    assert os.listdir(place) == []


@needs_root
@pytest.mark.parametrize("key", ["log", "pidfile"])
def test_check_tries_permissions(room, place, monkeypatch, key):
    program = room.path("tunnel")
    run("cp", support.TUNNEL, program)
    cert = room.path("cert.pem")
    run("cp", room.certs.server, cert)
    os.chown(cert, NOBODY.pw_uid, 0)
    monkeypatch.setattr(support, "TUNNEL", program)
    assert f"{key}: {place}/it: Permission denied" in complaint(run_tunnel(
        "-t", "accept=0", "connect=1", f"cert={cert}", f"{key}={place}/it",
        **AS_NOBODY))


# Readers of the log.

def knock(address, times):
    for _ in range(times):
        sock = support.connect(address)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        read_all(sock)
        sock.close()


def lines_and_lost(log):
    """Lines about connections: those present, and the number reported as
    dropped.
    """
    text = log.decode()
    lost = map(int, re.findall(r"warning: (\d+) log lines dropped", text))
    return len(re.findall(r" (debug|info|notice): 127\S+ ", text)) + sum(lost)


@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_log_without_a_reader(room, place, echo, kind):
    """Lines are dropped and counted, with no other effect: neither the start
    nor a worker waits for a reader.
    """
    port = support.free_port()
    words = [f"accept={port}", f"connect={echo.address}", "workers=1"]
    if kind == "pipe":
        ours, theirs = os.pipe()
        with os.fdopen(theirs, "wb") as stdout:
            t = room.tunnel(*words, "log=/dev/stdout", ready=False,
                            stdout=stdout)
    else:
        os.mkfifo(f"{place}/log", 0o600)
        t = room.tunnel(*words, f"log={place}/log", ready=False)
    wait_for(lambda: not support.is_refused(port), "the start")
    assert t.log() == ""
    if kind == "fifo":
        ours = os.open(f"{place}/log", os.O_RDONLY | os.O_NONBLOCK)
    reader = room.keep(os.fdopen(ours, "rb", buffering=0))
    knock(port, 1500)
    assert_echoes(room, port)
    log = bytearray()
    drain(reader, log, lambda: log)
    assert_echoes(room, port)
    drain(reader, log, lambda: b" log lines dropped" in log and
          b" closed\n" in log)
    assert lines_and_lost(log) >= 2 * 1501
    for line in log.decode().splitlines():
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [a-z]+: ", line)


def test_fifo_whose_reader_returns(room, place, echo):
    """Lines dropped in between are counted."""
    path, address = f"{place}/log", support.free_port()
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    room.tunnel(f"log={path}", f"connect={echo.address}", "workers=1",
                f"accept={address}", ready=False)
    with os.fdopen(reader, "rb", buffering=0) as f:
        drain(f, log := bytearray(), lambda: b"listening on" in log)
    assert_echoes(room, address)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(reader, "rb", buffering=0) as f:
        assert_echoes(room, address)
        drain(f, log := bytearray(), lambda: b" closed\n" in log and
              re.search(rb"warning: [1-9]\d* log lines dropped", log))


@pytest.mark.parametrize("how", ["workers=1", "workers=2", "mode=fork"])
def test_log_on_a_full_disk(room, place, echo, how):
    """Lines are dropped and counted; the number is logged once there is space.
    """
    disk, address = f"{place}/disk", support.free_port()
    os.mkdir(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=755",
                       "none", disk], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        t = room.tunnel(f"log={disk}/log", "log_level=info", how,
                        f"connect={echo.address}", f"accept={address}",
                        ready=False)
        wait_for(lambda: not support.is_refused(address), "the start")
        assert_echoes(room, address)
        # Everything logged at the start precedes this line.
        wait_for(lambda: support.text_of(f"{disk}/log").endswith(" closed\n"),
                 "the log line")
        with open(f"{disk}/rest", "wb", buffering=0) as f:
            with contextlib.suppress(OSError):
                while f.write(b"x" * 512):
                    pass
            for _ in range(40):
                assert_echoes(room, address)
            f.truncate(0)
        served, looked = 41, 0

        def is_complete():
            nonlocal served, looked
            if looked % 20 == 0:  # the last line may be late
                assert_echoes(room, address)
                served += 1
            looked += 1
            with open(f"{disk}/log") as f:
                log = f.read()
            lost = re.findall(r"Z warning: (\d+) log lines dropped: No "
                              r"space left on device$", log, re.M)
            whole = re.findall(r"Z info: .* closed$", log, re.M)
            return lost and len(whole) + sum(map(int, lost)) == served

        wait_for(is_complete, "all lines, or their number")
        assert t.alive()
        t.stop()
    finally:
        run("umount", "-l", disk)


def test_log_to_a_standard_output_that_is_a_socket(room, echo):
    """systemd passes such a socket: it can be written to, but not opened."""
    ours, theirs = socket.socketpair()
    room.keep(ours)
    with theirs:
        room.tunnel("log=/dev/stdout", f"connect={echo.address}", ready=False,
                    stdout=theirs)
    ours.settimeout(support.DEADLINE)
    text = b""
    while not (found := re.search(rb" listening on (\S+)\n", text)):
        text += ours.recv(4096)
    assert_echoes(room, found[1].decode())


def test_log_to_standard_output_in_the_background(room, echo):
    """The log stays there after a reload."""
    pidfile, out = room.path("pid"), room.path("out")
    with open(out, "ab") as f:
        subprocess.run(support.command(
            "-d", "accept=127.0.0.1:0", f"connect={echo.address}",
            "log=/dev/stdout", f"pidfile={pidfile}",
            f"cert={room.certs.server}"), stdout=f, check=True,
            timeout=support.DEADLINE)
    pid = int(text_of(pidfile))
    try:
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: "reloaded" in text_of(out), "the reload in the log")
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not support.is_alive(pid), "the exit")


@pytest.mark.parametrize("log", ["/dev/stdout", "/dev/stderr"])
def test_log_is_not_the_connection(room, echo, log):
    """inetd passes the connection as descriptors 0, 1 and 2."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        sock = listener.accept()[0]
    with sock:
        room.tunnel("-i", f"connect={echo.address}", f"log={log}",
                    ready=False, stdin=sock, stdout=sock, stderr=sock)
    client = room.client(peer)
    client.send(b"hello")
    assert support.read_exactly(client, 5) == b"hello"
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")


# Creation of secrets.

SECRETS = [["-g", "a.example"], ["-k"], ["-p", "app1"]]
REQUEST = ["-r", "a.example"]  # two files


@pytest.fixture(params=SECRETS, ids=["key", "ticket_keys", "psk"])
def secret(request):
    return [support.TUNNEL, *request.param]


@pytest.fixture(params=[*SECRETS, REQUEST],
                ids=["key", "ticket_keys", "psk", "requested"])
def secret_in_file(request):
    return [support.TUNNEL, *request.param]


def error(words, status=1, **keywords):
    p = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=False,
                       timeout=support.DEADLINE, **keywords)
    assert (p.returncode, p.stderr.count("\n")) == (status, 1), p
    return p.stderr


@pytest.mark.parametrize("umask", [0, 0o022])
def test_new_file_is_private(room, secret_in_file, umask):
    """From its creation: a later chmod would leave time to open it."""
    path = room.path("it")
    run(*secret_in_file, "-o", path, umask=umask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.path.getsize(path) >= 65


def test_new_file_replaces_none(room, secret_in_file):
    """Nor does it follow a link."""
    path = room.write("it", "precious")
    assert f"-o {path}: File exists" in error([*secret_in_file, "-o", path])
    assert text_of(path) == "precious"
    os.symlink(room.path("target"), room.path("link"))
    assert "File exists" in error([*secret_in_file, "-o", room.path("link")])
    assert not os.path.exists(room.path("target"))


def test_incomplete_new_file_is_removed(room, secret_in_file):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))

    message = error([*secret_in_file, "-o", room.path("it")], preexec_fn=limit,
                    restore_signals=False,  # SIGXFSZ stays ignored
                    status=1)
    assert "File too large" in message
    assert os.listdir(room.dir) == []


@pytest.mark.parametrize("letter", ["-g", "-r"])
def test_new_file_for_a_bad_name(room, letter):
    error([support.TUNNEL, letter, "a b$", "-o", room.path("it")], status=2)
    assert os.listdir(room.dir) == []


def test_key_of_an_undelivered_request_is_removed(room):
    with open("/dev/full", "wb") as f:
        message = error([support.TUNNEL, *REQUEST, "-o", room.path("it")],
                        stdout=f)
    assert "-r: No space left on device" in message
    assert os.listdir(room.dir) == []


def test_output_readable_by_others_is_refused(room, secret):
    """The shell has opened the file, so another user may have opened it too.
    """
    for mode in 0o644, 0o640, 0o602:
        path = room.write("it", "")
        os.chmod(path, mode)
        with open(path, "wb") as f:
            message = error(secret, stdout=f)
        assert f"(mode {mode:04o}): use -o FILE" in message
        assert os.path.getsize(path) == 0
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_private_output_is_accepted(room, secret):
    path = room.write("it", "")
    os.chmod(path, 0o600)
    with open(path, "ab") as f:
        for _ in range(2):
            subprocess.run(secret, stdout=f, check=True)
    assert os.path.getsize(path) >= 2 * 65
    assert run(*secret) != b""  # a pipe


def test_new_file_without_a_secret(room):
    p = run_tunnel("-o", room.path("it"), "accept=0")
    assert complaint(p) == "-o has no effect without -g, -r, -k or -p"


# Existing secrets that others can read.

def test_warning_of_secrets_readable_by_others(room, place, echo):
    """At start, at a reload and with -t; not for files readable by a group
    only.
    """
    key, cert = f"{place}/key", room.certs.path("server.crt")
    password, tickets = f"{place}/password", f"{place}/tickets"
    run("cp", room.certs.encrypted, key)
    room.write("place/password", PASSWORD)
    run(support.TUNNEL, "-k", "-o", tickets)
    words = [f"cert={cert}", f"key={key}", f"key_password_file={password}",
             f"ticket_keys={tickets}", f"connect={echo.address}"]

    def check():
        out = run(support.TUNNEL, "-t", "accept=0", *words).decode()
        return re.findall("warning: command line: (.*)", out)

    for path in key, password, tickets:
        os.chmod(path, 0o640)
    assert check() == []
    os.chmod(tickets, 0o604)
    said = f"ticket_keys: {tickets}: other users have access to it (mode 0604)"
    assert check() == [said]
    os.chmod(key, 0o644)
    os.chmod(password, 0o644)
    assert len(check()) == 3
    t = room.tunnel(*words)
    t.wait_log("warning: .* other users have access to it", 3)
    for path in key, password:
        os.chmod(path, 0o600)
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded")
    assert t.log().count("other users have access to it") == 4
    os.chmod(place, 0o750)  # now others cannot reach the files
    assert check() == []


def test_warning_of_a_key_in_cert(room, place):
    """If the key has a file of its own, the file of cert may be public."""
    pem, key = f"{place}/pem", f"{place}/key"
    run("cp", room.certs.server, pem)
    run("cp", room.certs.path("server.key"), key)
    os.chmod(pem, 0o644)
    os.chmod(key, 0o600)
    words = ["-t", "accept=0", "connect=1", f"cert={pem}"]
    assert f"cert: {pem}: other users have access to it (mode 0644)" in \
        run(support.TUNNEL, *words).decode()
    assert b"warning" not in run(support.TUNNEL, *words, f"key={key}")


@pytest.mark.parametrize("what", [["-g", "a"], ["-k"]])
def test_secret_that_cannot_be_written(what):
    """Status 1, as for failures, not 2, as for wrong use."""
    with open("/dev/full", "wb") as full:
        p = subprocess.run([support.TUNNEL, *what], stdout=full,
                           stderr=subprocess.PIPE, text=True)
    assert p.returncode == 1
    assert "No space left on device" in p.stderr
