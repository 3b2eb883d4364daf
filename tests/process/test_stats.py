"""stats_file: the counters in Prometheus's format, and the file itself.

promtool is in Debian's package prometheus, installed or unpacked in
build/promtool.
"""

import contextlib
import os
import re
import shutil
import signal
import ssl
import stat
import subprocess

import pytest

import support
from documents import displays, section
from launchers import Program
from support import TOP, read_exactly, run, wait_for

PROMTOOL = [os.path.join(TOP, "build/promtool/usr/bin/promtool"),
            "/usr/bin/promtool"]

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can do that")


@pytest.fixture(params=["workers=2", "mode=fork"])
def mode(request):
    return request.param


@pytest.fixture
def begin(room, echo):
    """A tunnel with a stats_file; waits for the file."""

    def call(*words, name="stats.prom", **keywords):
        t = room.tunnel(f"connect={echo.address}", *words,
                        f"stats_file={room.path(name)}", **keywords)
        wait_for(lambda: os.path.exists(room.path(name)), name)
        return t

    return call


def parse(text):
    """Name and labels (without the service) -> value."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(
                r'tunnel_(\w+)\{service="[^"]+"(?:,(.*))?\} (\d+)',
                line).groups()
            found[f"{name}{{{labels}}}" if labels else name] = int(value)
    return found


def fresh(t, path):
    """The file after SIGUSR1.  File systems reuse inode numbers, so the time
    also identifies a file.
    """

    def identity():
        st = os.stat(path)
        return st.st_ino, st.st_mtime_ns

    before = identity()
    for _ in range(2):  # a write may be in progress at the first signal
        t.signal(signal.SIGUSR1)
        wait_for(lambda: identity() != before, "a new file")
        before = identity()
    return parse(support.text_of(path))


def until(room, t, **values):
    """Wait until the file has these values."""

    def found():
        now = fresh(t, room.path("stats.prom"))
        return now if values.items() <= now.items() else None

    return wait_for(found, values)


def serve_one(room, t, data=b"hello", **keywords):
    client = room.client(t, **keywords)
    client.send(data)
    assert read_exactly(client, len(data)) == data
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    client.close()


def promtool():
    for program in PROMTOOL:
        if os.path.exists(program):
            return program
    pytest.skip("no promtool: make deps check unpacks it in build/promtool")


def check(room, name="stats.prom"):
    """promtool accepts the file."""
    text = support.text_of(room.path(name)).encode()
    assert run(promtool(), "check", "metrics", stdin=text) == b""


def test_promtool_accepts_it(room, begin):
    begin()
    check(room)


def test_manual_has_each_metric(room, begin):
    begin()
    text = support.text_of(room.path("stats.prom"))
    assert set(re.findall(r"^# TYPE (\w+) ", text, re.M)) == \
        set(re.findall(r"tunnel_[a-z_]+(?= ,|\n)",
                       section("tunnel.8", "Metrics")))


def test_alert_of_the_manual(room):
    expression, = displays("tunnel.8", "Metrics")
    rules = room.write("rules.yml", "groups:\n- name: tunnel\n  rules:\n"
                       f"  - alert: expiry\n    expr: {expression}\n")
    assert b"SUCCESS: 1 rules found" in run(promtool(), "check", "rules",
                                            rules)


@pytest.mark.parametrize("name", [
    'a"b\\c d.conf', "b\u00fccher.conf", ".conf", "x.conf.conf"])
def test_service_of_any_name(room, begin, name):
    """In a label, the name is quoted."""
    begin("-c", room.write(name, f"cert = {room.certs.server}\n"
                           "accept = 127.0.0.1:0\n"))
    check(room)


@pytest.mark.parametrize("name,service", [
    ("imaps.conf", "imaps"), ("imaps", "imaps"), ("a.conf.b", "a.conf.b")])
def test_service_is_the_name_of_the_configuration(room, begin, name, service):
    begin("-c", room.write(name, f"cert = {room.certs.server}\n"
                           "accept = 127.0.0.1:0\n"))
    text = support.text_of(room.path("stats.prom"))
    services = re.findall(r'^tunnel_\w+{service="(.*?)"', text, re.M)
    assert len(services) > 20 and set(services) == {service}


def test_counters_are_those_of_the_log(room, begin, mode):
    t = begin(mode)
    live = room.client(t)
    for version in "1.2", "1.3", "1.3":
        serve_one(room, t, version=version)
    for _ in range(2):
        sock = room.connect(t.address)
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        support.read_all(sock)
    room.connect(t.address).close()
    refused = "connections_refused_total"
    now = until(room, t, connections_served_total=3,
                workers=1 if mode == "mode=fork" else 2,
                **{refused + '{reason="silent"}': 1,
                   refused + '{reason="handshake"}': 2})
    log = support.statistics(t)
    assert now["connections"] == log["live"] == 1
    assert now["connections_accepted_total"] == log["accepted"] == 7
    assert now["received_bytes_total"] == log["in"] == 15
    assert now["sent_bytes_total"] == log["out"] == 15
    assert now["max_connections"] == 1000
    assert now["generation"] == 1
    assert now['handshakes_total{version="TLSv1.2"}'] == 1
    assert now['handshakes_total{version="TLSv1.3"}'] == 3
    assert now['handshake_failures_total{reason="not_tls"}'] == 2
    live.close()


def test_resumed(room, begin):
    t = begin()
    first = room.client(t, "1.2")
    serve_one(room, t, session=first.session)
    until(room, t, connections_resumed_total=1)


def fails(room, t, **keywords):
    """In TLS 1.3, a client may see the failure only when it reads."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        client = room.client(t, **keywords)
        client.send(b"hello")
        assert client.read_all()[0] == b""


def leave_after_hello(room, t):
    sock = room.connect(t.address)
    sock.sendall(b"\x16\x03\x01\x02\x00\x01")
    sock.shutdown(1)
    support.read_all(sock)


def leave_after_greeting(room, t):
    sock = room.connect(t.address)
    sock.sendall(b"SSH-2.0-me\r\n")
    support.read_all(sock)


@pytest.mark.parametrize("reason,words,client", [
    ("not_tls", (), leave_after_greeting),
    ("closed", (), leave_after_hello),
    ("nothing_in_common", ("tls_min=1.3",),
     lambda room, t: fails(room, t, version="1.2")),
    ("client_alert", (), lambda room, t: fails(room, t, name="example.org")),
    ("server_name", ("sni_strict=yes",),
     lambda room, t: fails(room, t, name="example.org")),
    ("proxy_header", ("accept_proxy=yes",), leave_after_greeting),
    ("client_certificate", ("verify=require", "ca"), fails),
])
def test_reasons_of_failures(room, begin, reason, words, client):
    t = begin(*(f"ca={room.certs.ca}" if word == "ca" else word
                for word in words))
    client(room, t)
    now = until(room, t, **{
        f'handshake_failures_total{{reason="{reason}"}}': 1})
    failed = [value for key, value in now.items()
              if key.startswith("handshake_failures_total{")]
    assert sum(failed) == 1
    assert now['connections_refused_total{reason="handshake"}'] == 1


def test_bytes_of_a_live_connection(room, begin, mode):
    """A download is counted as it proceeds, not only at its end."""
    t = begin(mode)
    client = room.client(t)
    for n in 1, 2:
        client.send(b"x" * 1000)
        read_exactly(client, 1000)
        until(room, t, connections=1, received_bytes_total=1000 * n,
              sent_bytes_total=1000 * n)


def test_expiry_of_certificates(room, begin):
    """One metric per certificate, in seconds; also for a file named twice."""
    t = begin(f"cert={room.certs.server}", f"cert={room.certs.rsa}",
              f"cert={room.certs.rsa}")
    now = fresh(t, room.path("stats.prom"))
    for path in room.certs.server, room.certs.rsa:
        end = run("openssl", "x509", "-noout", "-enddate", "-in", path)
        at = ssl.cert_time_to_seconds(end.decode().strip().split("=")[1])
        key = f'certificate_expiry_timestamp_seconds{{file="{path}"}}'
        assert now[key] == at
    check(room)


def test_versions_and_start(room, begin):
    begin()
    now = parse(support.text_of(room.path("stats.prom")))
    told = run(support.TUNNEL, "-V").decode()
    version, library = re.match(r"tunnel (\S+) \((.*), \w+\)", told).groups()
    assert now[f'build_info{{version="{version}"}}'] == 1
    assert now[f'library_info{{version="{library}"}}'] == 1
    with open("/proc/stat") as f:
        booted = int(re.search(r"^btime (\d+)", f.read(), re.M)[1])
    assert booted <= now["start_time_seconds"] <= \
        os.stat(room.path("stats.prom")).st_mtime


def test_counters_never_go_back(room, begin, mode):
    """Over reloads that leave an old connection, and over killed workers."""
    t = begin(mode)
    old = room.client(t)
    last = until(room, t, connections=1)
    for n in 1, 2, 3:
        t.signal(signal.SIGHUP)
        t.wait_log("tunnel: reloaded$", n)
        serve_one(room, t)
        until(room, t, generation=n + 1, connections=1)
        victim = room.client(t)
        before = set(t.workers())
        os.kill(max(before), signal.SIGKILL)
        wait_for(lambda: before - set(t.workers()), "the exit")
        victim.close()
        now = until(room, t, connections=1, generation=n + 1)
        assert now["connections_served_total"] > \
            last["connections_served_total"]
        for key in last:
            if "_total" in key:
                assert now[key] >= last[key], key
        last = now
    old.close()
    assert now["connections_accepted_total"] == 7


# The file.

def test_removed_at_a_stop(room, begin, mode):
    t = begin(mode)
    assert t.stop() == 0
    assert not [name for name in os.listdir(room.dir) if "stats" in name]


def test_readable_by_the_collector(room, begin):
    begin(umask=0o077)
    mode = os.stat(room.path("stats.prom")).st_mode
    assert stat.S_IMODE(mode) == 0o644


def test_complete_at_any_time(room, begin):
    t = begin()
    path = room.path("stats.prom")
    whole = set(parse(support.text_of(path)))
    seen = set()
    while len(seen) < 20:
        t.signal(signal.SIGUSR1)
        with open(path) as f:
            seen.add(os.fstat(f.fileno()).st_mtime_ns)
            assert set(parse(f.read())) == whole


def test_another_name_at_a_reload(room, echo):
    """The old file is removed, so that no collector reads it."""
    def configure(*names):
        lines = [f"stats_file = {room.path(name)}" for name in names]
        return room.write("tunnel.conf", "\n".join([
            "accept = 127.0.0.1:0", f"cert = {room.certs.server}",
            f"connect = {echo.address}", *lines, ""]))

    def there():
        return {name for name in os.listdir(room.dir) if ".prom" in name}

    t = room.tunnel("-c", configure("one.prom"))
    for names in ({"one.prom"}, {"two.prom"}, set(), {"two.prom"}):
        configure(*names)
        t.signal(signal.SIGHUP)
        wait_for(lambda: there() == names, names)


def test_failed_write_is_logged_once(room, begin):
    os.mkdir(room.path("d"))
    t = begin(name="d/stats.prom")
    shutil.rmtree(room.path("d"))
    t.signal(signal.SIGUSR1)
    t.wait_log(r"warning: .*stats_file: \S+/d/stats.prom: No such file")
    for _ in range(3):
        support.statistics(t)
    os.mkdir(room.path("d"))
    t.signal(signal.SIGUSR1)
    t.wait_log(r"stats_file: \S+: written again$")
    assert t.log().count("No such file") == 1
    assert os.listdir(room.path("d")) == ["stats.prom"]


def test_failed_write_is_logged_once_over_an_upgrade(room, begin):
    t = begin()
    path = room.path("stats.prom")
    os.mkdir(path + ".new")  # which -t accepts
    t.signal(signal.SIGUSR1)
    t.wait_log(r"warning: .*stats_file: \S+: File exists")
    t.signal(signal.SIGUSR2)
    t.wait_log("tunnel: upgraded$")
    for _ in range(3):
        support.statistics(t)
    os.rmdir(path + ".new")
    t.signal(signal.SIGUSR1)
    t.wait_log(r"stats_file: \S+: written again$")
    assert t.log().count("File exists") == 1


def refused(room, path, *words):
    """The error message, the same with -t and at a start."""
    said = []
    for test in ("-t",), ():
        p = subprocess.run(
            support.command(*test, *words, "connect=1", "accept=127.0.0.1:0",
                            f"cert={room.certs.server}", f"stats_file={path}"),
            capture_output=True, text=True, timeout=support.DEADLINE)
        assert p.returncode == 2 and p.stderr.count("\n") == 1, p
        said.append(p.stderr)
    assert said[0] == said[1]
    return said[0]


def test_missing_directory(room):
    assert "No such file or directory" in refused(room, room.path("x/y"))


def test_directory_writable_by_anybody(room):
    os.mkdir(room.path("d"))
    os.chmod(room.path("d"), 0o777)
    path = room.path("d/stats.prom")
    assert refused(room, path) == (
        f"tunnel: error: command line: stats_file: {path}: anyone can write "
        f"to the directory {room.path('d')}\n")


@as_root
def test_directory_of_the_workers_user(room):
    os.mkdir(room.path("d"))
    shutil.chown(room.path("d"), "nobody")
    os.chmod(room.dir, 0o755)
    assert "the workers' user can write to the directory" in refused(
        room, room.path("d/stats.prom"), "user=nobody")


def test_link(room):
    os.symlink(room.write("target", ""), room.path("stats.prom"))
    assert refused(room, room.path("stats.prom")).endswith(": it is a link\n")


def test_not_a_regular_file(room):
    os.mkfifo(room.path("stats.prom"))
    assert refused(room, room.path("stats.prom")).endswith(
        ": not a regular file\n")


def test_not_with_inetd(room):
    p = subprocess.run(
        [support.TUNNEL, "-i", "connect=1", f"cert={room.certs.server}",
         f"stats_file={room.path('stats.prom')}"], capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=support.DEADLINE)
    assert p.returncode == 2
    assert "stats_file cannot be used with -i" in p.stderr
    assert p.stderr.count("\n") == 1


def test_check_writes_nothing(room, certs):
    run(support.TUNNEL, "-t", "accept=0", "connect=1", f"cert={certs.server}",
        f"stats_file={room.path('stats.prom')}")
    assert os.listdir(room.dir) == []


@as_root
@pytest.mark.skipif(support.SANITIZED, reason="a sanitizer reads /proc")
def test_master_writes_it(room, begin, mode):
    """Workers have another user and another root directory."""
    os.mkdir(room.path("root"))
    t = begin(mode, "user=nobody", f"chroot={room.path('root')}")
    path = room.path("stats.prom")
    serve_one(room, t)
    until(room, t, connections_served_total=1)
    assert os.stat(path).st_uid == 0
    assert os.listdir(room.path("root")) == []


def tracer_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"TracerPid:\s+(\d+)", f.read())[1])


def hanging(room, echo):
    """A tunnel whose writer hangs for a minute."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    t = room.start("tunnel", [
        "strace", "-D", "-f", "-o", room.path("trace"), "-e",
        "trace=/^rename", "-e", "inject=/^rename:delay_enter=60000000",
        *support.command("accept=127.0.0.1:0", "workers=1", "sandbox=no",
                         f"cert={room.certs.server}",
                         f"connect={echo.address}",
                         f"stats_file={room.path('stats.prom')}")])
    wait_for(lambda: os.path.exists(room.path("stats.prom.new")), "the writer")
    return t


@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                    reason="sanitizers and valgrind conflict with strace(1)")
def test_hung_disk(room, echo):
    """The master still replaces workers, and starts no second writer, even if
    the first one cannot be killed because its tracer holds it.  A stop does
    not wait for the writer.
    """
    t = hanging(room, echo)
    address = t.wait_log("listening on").split()[-1]
    worker, writer = wait_for(lambda: len(t.workers()) == 2 and
                              sorted(t.workers()), "two children")
    tracer = tracer_of(writer)
    try:
        t.signal(signal.SIGUSR1)
        t.wait_log("statistics: ")
        os.kill(worker, signal.SIGKILL)
        t.wait_log("starting another one")
        wait_for(lambda: len(t.workers()) == 2, "a replacement")
        assert_served(room, address)
        t.wait_log(r"warning: stats_file: \S+: not written within 5 s$")
        assert len(t.workers()) == 2 and writer in t.workers()
        assert_served(room, address)
        t.signal(signal.SIGTERM)
        assert t.wait() == 0
    finally:
        os.kill(tracer, signal.SIGKILL)


@pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                    reason="sanitizers and valgrind conflict with strace(1)")
def test_stop_while_an_upgrade_waits_for_the_writer(room, echo, monkeypatch):
    """A signal right after the trial is not lost."""
    program = Program(room)
    monkeypatch.setattr(support, "TUNNEL", program.path)
    t = hanging(room, echo)
    tracer = tracer_of(t.pid)
    program.script('#!/bin/sh\n[ "$1" = -t ] && { (while kill -0 $$; do :; '
                   'done; kill -TERM $PPID) 2>/dev/null & }\n'
                   'exec REAL "$@"\n')
    try:
        t.signal(signal.SIGUSR2)
        assert t.wait() == 0
    finally:
        os.kill(tracer, signal.SIGKILL)
    assert "tunnel: shutting down" in t.log()


def assert_served(room, address):
    client = room.client(address)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    client.close()


def test_counters_go_on_after_an_upgrade(room, begin, mode):
    """After the upgrade, the new program removes the file at a stop."""
    conf = room.write("tunnel.conf", f"cert = {room.certs.server}\n"
                      "accept = 127.0.0.1:0\nlog_level = debug\n")
    t = begin(mode, "-c", conf)
    serve_one(room, t)
    before = until(room, t, connections_served_total=1)
    t.signal(signal.SIGUSR2)
    t.wait_log("tunnel: upgraded$")
    serve_one(room, t)
    now = until(room, t, connections_served_total=2, generation=2)
    assert now["start_time_seconds"] == before["start_time_seconds"]
    assert now["received_bytes_total"] == 10
    assert t.stop() == 0
    assert not [name for name in os.listdir(room.dir) if "stats" in name]
