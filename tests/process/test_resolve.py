"""resolve_interval: names in connect whose addresses change.  The name server
is dnsmasq, in a network namespace; its answers come from a file that it
rereads at SIGHUP.
"""

import contextlib
import os
import re
import shutil
import signal
import socket

import pytest

import support
from privileged import NOBODY, soft_limit, status
from reloads import ROOT
from support import is_echoed, wait_for

pytestmark = ROOT

DNSMASQ = shutil.which("dnsmasq", path="/usr/sbin:" + os.environ["PATH"])
# The resolver waits longer for the name server than the tunnel does.
RESOLV = "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n"
LIMIT = 10  # seconds for a lookup, independent of TUNNEL_SLOW
FAILED = "warning: .*db.test.*; keeping its addresses"


class NameServer:
    def __init__(self, room):
        self.room = room
        self.hosts = room.write("hosts", "")
        self.p = None

    def start(self):
        self.p = self.room.start("dnsmasq", [
            DNSMASQ, "--keep-in-foreground", "--conf-file=/dev/null",
            "--user=root", "--pid-file=", "--no-resolv", "--no-hosts",
            f"--addn-hosts={self.hosts}", "--local=/test/",
            "--bind-interfaces",
            "--listen-address=127.0.0.1", "--log-facility=-", "--log-queries"])
        self.p.wait_log("started, ")
        self.p.wait_log("read .*hosts")
        return self

    def set(self, **names):
        """Set the names in .test, and the addresses of each."""
        text = "".join(f"{address} {name}.test\n" for name, of in names.items()
                       for address in of)
        self.room.write("hosts.new", text)
        os.rename(self.hosts + ".new", self.hosts)
        if self.p is not None and self.p.alive():
            before = self.p.log().count("read " + self.hosts)
            self.p.signal(signal.SIGHUP)
            self.p.wait_log("read " + self.hosts, before + 1)
        return self

    def queries(self):
        return self.p.log().count("query[A] db.test")

    def await_queries(self, n):
        """Wait for that many more queries."""
        before = self.queries()
        wait_for(lambda: self.queries() >= before + n, f"{n} queries")

    def hang(self):
        self.p.signal(signal.SIGSTOP)

    def go_on(self):
        self.p.signal(signal.SIGCONT)

    def stop(self):
        self.p.signal(signal.SIGCONT)
        self.p.stop()


@pytest.fixture
def names(room, network, monkeypatch):
    """A name server, and tunnels that use it."""
    if DNSMASQ is None:
        pytest.skip("dnsmasq-base is not installed")
    files = {"/etc/resolv.conf": room.write("resolv.conf", RESOLV),
             "/etc/hosts": room.write("no-hosts", ""),
             "/etc/nsswitch.conf": room.write("nsswitch", "hosts: files dns\n")}
    for path in files.values():
        os.chmod(path, 0o644)
    os.chmod(room.dir, 0o755)
    mounts = "\n".join(f"mount --bind {ours} {theirs}"
                       for theirs, ours in files.items()
                       if os.path.exists(theirs))
    script = room.write("unshared", f"#!/bin/sh -e\n{mounts}\n"
                        f"exec ${{UNDER-}} {support.TUNNEL} \"$@\"\n")
    start = room.write("start", "#!/bin/sh\nexec unshare -m "
                       f"--propagation private {script} \"$@\"\n")
    for path in script, start:
        os.chmod(path, 0o755)
    monkeypatch.setattr(support, "TUNNEL", start)
    server = NameServer(room).set(db=["127.0.0.2"]).start()
    yield server
    server.go_on()


@pytest.fixture
def backends(room):
    """A backend on each of these addresses, with the same port; it sends its
    address.
    """
    port = 7000

    def serve(host):
        def body(sock):
            sock.sendall(host.encode().ljust(16))
            support.echo(sock)

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return room.backend(family=family, to=(host, port)).serve(body)

    for host in "127.0.0.2", "127.0.0.3":
        serve(host)
    return serve


@pytest.fixture(params=["workers=2", "mode=fork"])
def mode(request):
    return request.param


@pytest.fixture
def begin(room, names, backends):
    def call(*words, interval="1s", name="db.test", **keywords):
        return room.tunnel(f"connect={name}:7000",
                           f"resolve_interval={interval}", *words, **keywords)

    return call


def where(room, t):
    """The backend address of a new connection."""
    client = room.client(t)
    host = support.read_exactly(client, 16).decode().strip()
    client.close()
    return host


def until_at(room, t, host):
    """Wait until all workers use this address."""
    wait_for(lambda: {where(room, t) for _ in range(6)} == {host}, host)


def lookup(t):
    """The child process of a lookup, after it has dropped its privileges."""
    for pid in t.workers():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if soft_limit(pid, "processes") == "0" and \
                    status(pid)["NoNewPrivs"] == ["1"]:
                return pid
    return None


def test_workers_follow(room, names, begin, mode):
    t = begin(mode)
    assert where(room, t) == "127.0.0.2"
    old = room.client(t)
    support.read_exactly(old, 16)
    workers = t.workers()
    names.set(db=["127.0.0.3"])
    t.wait_log("db.test:7000 is now 127.0.0.3:7000")
    until_at(room, t, "127.0.0.3")
    assert is_echoed(old)
    if mode != "mode=fork":
        assert set(workers) <= set(t.workers())
    assert "reload" not in t.log()
    old.close_notify()
    old.read_all()
    t.wait_log(r" -> 127\.0\.0\.2:7000 .* in=5 out=21 ")
    t.wait_log(r" -> 127\.0\.0\.3:7000 .* in=0 out=16 ")


def test_both_families(room, names, begin, backends, ipv6):
    """An address that refuses is skipped, as always."""
    t = begin()
    names.set(db=["127.0.0.9", "::1"])
    t.wait_log(r"db.test:7000 is now (127.0.0.9|\[::1\]):7000, \.\.\.$")
    backends("::1")
    until_at(room, t, "::1")
    names.set(db=["127.0.0.2"])
    until_at(room, t, "127.0.0.2")


def test_order_of_answers_is_no_change(room, names, begin):
    names.set(db=["127.0.0.2", "127.0.0.3"])
    t = begin()
    names.await_queries(1)
    for hosts in (["127.0.0.3", "127.0.0.2"], ["127.0.0.2", "127.0.0.3"]):
        names.set(db=hosts)
        names.await_queries(2)
    assert "is now" not in t.log()


def test_failure_is_logged_once(room, names, begin, mode):
    t = begin(mode)
    names.stop()
    t.wait_log(FAILED)
    assert where(room, t) == "127.0.0.2"
    names.set(db=["127.0.0.3"]).start()
    t.wait_log("db.test:7000 is now 127.0.0.3:7000$")
    until_at(room, t, "127.0.0.3")
    names.stop()
    t.wait_log(FAILED, 2)
    assert t.log().count("is now") == 1


def test_vanished_name_keeps_its_addresses(room, names, begin):
    t = begin()
    names.set()
    t.wait_log(FAILED)
    names.await_queries(3)
    assert where(room, t) == "127.0.0.2"
    assert len(re.findall(FAILED, t.log())) == 1
    names.set(db=["127.0.0.2"])
    t.wait_log("db.test:7000 is now 127.0.0.2:7000$")
    names.await_queries(2)
    assert t.log().count("is now") == 1


def pipes(t):
    """The master has one pipe during a lookup."""
    return sum(link.startswith("pipe:")
               for link in support.open_files(t.pid).values())


@pytest.mark.seconds(60)
def test_hung_lookup(room, names, begin):
    """The master keeps working; there is a single child, which is killed."""
    t = begin("mode=fork")
    names.hang()
    child = wait_for(lambda: lookup(t), "a lookup")
    for _ in range(3):
        support.statistics(t)
    assert where(room, t) == "127.0.0.2"
    assert lookup(t) == child
    t.wait_log(r"db.test:7000: no valid answer within 10 s; keeping its "
               "addresses", seconds=LIMIT + support.DEADLINE)
    assert not support.is_alive(child)
    # The next lookup hangs as well, which is not logged again.
    wait_for(lambda: lookup(t), "another lookup")
    wait_for(lambda: pipes(t) == 1, "one pipe")
    names.go_on()
    t.wait_log("is now 127.0.0.2:7000$", seconds=LIMIT + support.DEADLINE)
    assert t.log().count("no valid answer within") == 1
    wait_for(lambda: pipes(t) == 0, "the end of the lookups")


@pytest.mark.seconds(60)
def test_reload_while_a_lookup_hangs(room, names, begin):
    """Only the reload waits for the lookup."""
    t = begin("workers=2", interval="1h")
    names.hang()
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloading$")
    for _ in range(3):
        support.statistics(t)
    assert where(room, t) == "127.0.0.2"
    assert "reload failed" not in t.log()
    t.signal(signal.SIGHUP)  # handled after the first one
    t.wait_log("reload failed, keeping", seconds=LIMIT + support.DEADLINE)
    assert re.search("error: .*db.test:7000: no valid answer within 10 s", t.log())
    t.wait_log("tunnel: reloading$", 2)
    names.go_on()
    names.set(db=["127.0.0.3"])
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$", 2, seconds=LIMIT + support.DEADLINE)
    until_at(room, t, "127.0.0.3")
    support.statistics(t)


@pytest.mark.parametrize("word", ["user=nobody", "user=4242", None])
def test_child_has_no_privileges(room, names, begin, word):
    group = ["group=4343"] if word == "user=4242" else []
    t = begin(*([word] if word else []), *group)
    names.hang()
    s = status(wait_for(lambda: lookup(t), "a lookup"))
    uid, gid = (4242, 4343) if group else (NOBODY.pw_uid, NOBODY.pw_gid)
    assert s["Uid"] == [str(uid)] * 4 and s["Gid"] == [str(gid)] * 4
    assert s["Groups"] == [str(gid)]
    assert s["NoNewPrivs"] == ["1"]
    for which in "CapInh", "CapPrm", "CapEff", "CapAmb":
        assert int(s[which][0], 16) == 0, which
    pid = int(s["Pid"][0])
    assert soft_limit(pid, "processes") == "0"
    assert soft_limit(pid, "file size") == "0"
    assert soft_limit(pid, "core file size") == "0"
    assert int(soft_limit(pid, "open files")) <= 64
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0  # not inspectable
    links = support.open_files(pid).values()
    assert sum(link.startswith("pipe:") for link in links) == 1
    assert not [link for link in links if "memfd" in link or
                link.startswith(room.dir)], links
    with open(f"/proc/{pid}/maps") as f:
        assert "memfd:" not in f.read()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv(1)")
def test_child_of_a_master_with_few_privileges(room, everyone, names, begin):
    """For a service's own user with a capability, none of it is left to the
    child.
    """
    t = begin(everyone, env={**os.environ, "UNDER":
              f"setpriv --reuid {NOBODY.pw_uid} --regid {NOBODY.pw_gid} "
              "--clear-groups --inh-caps=+net_bind_service "
              "--ambient-caps=+net_bind_service"})
    assert int(status(t.pid)["CapEff"][0], 16) != 0
    names.hang()
    s = status(wait_for(lambda: lookup(t), "a lookup"))
    for which in "CapInh", "CapPrm", "CapEff", "CapAmb":
        assert int(s[which][0], 16) == 0, which
    assert s["Uid"] == [str(NOBODY.pw_uid)] * 4


def attempts(room, t):
    """The number of addresses that a connection tries."""
    client = room.client(t)
    client.read_all()
    client.close()
    t.wait_log(" no backend: ")
    tried = re.findall(r" (127\.0\.1\.\d+:7000): Connection refused$",
                       t.log(), re.M)
    assert len(set(tried)) == len(tried)
    return len(tried)


def test_at_most_16(room, names, begin):
    """16 addresses are used; the warning is logged once."""
    t = begin()
    hosts = [f"127.0.1.{n}" for n in range(40)]
    names.set(db=hosts)
    t.wait_log(r"is now 127\.0\.1\.\d+:7000, \.\.\.$")
    assert attempts(room, t) == 16
    t.wait_log("warning: .*db.test:7000 has more than 16 addresses")
    names.await_queries(3)
    assert t.log().count("more than 16") == 1
    names.set(db=["127.0.0.3"])
    t.wait_log("is now 127.0.0.3:7000$")
    until_at(room, t, "127.0.0.3")


def test_exactly_16(room, names, begin):
    t = begin()
    names.set(db=[f"127.0.1.{n}" for n in range(16)])
    t.wait_log("is now")
    assert attempts(room, t) == 16
    assert "more than" not in t.log()


def test_40_at_the_start(room, names, begin):
    names.set(db=[f"127.0.1.{n}" for n in range(40)])
    t = begin()
    assert t.log().count("more than 16") == 1


def test_off(room, names, begin):
    """Lookups only at the start and at a reload."""
    t = begin(interval="off")
    assert names.queries() == 1
    names.set(db=["127.0.0.3"])
    other = begin("workers=1")  # its lookups mark the time
    names.await_queries(3)
    assert where(room, t) == "127.0.0.2"
    assert where(room, other) == "127.0.0.3"
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")
    until_at(room, t, "127.0.0.3")


def test_reload_repeats_the_lookup(room, names, begin, mode):
    t = begin(mode, interval="1h")
    for n, host in enumerate(["127.0.0.3", "127.0.0.2"], 1):
        names.set(db=[host])
        t.signal(signal.SIGHUP)
        t.wait_log("tunnel: reloaded$", n)
        until_at(room, t, host)


def test_several_names(room, names, begin):
    """Each name is looked up; a failing one does not affect the others."""
    names.set(db=["127.0.0.2"], other=["127.0.0.2"])
    t = begin("connect=other.test:7000", "connect=127.0.0.2:7000")
    names.set(other=["127.0.0.3"])
    t.wait_log("other.test:7000 is now 127.0.0.3")
    t.wait_log(FAILED)
    names.set(db=["127.0.0.3"], other=["127.0.0.3"])
    t.wait_log("db.test:7000 is now 127.0.0.3")
    wait_for(lambda: {where(room, t) for _ in range(9)} ==
             {"127.0.0.2", "127.0.0.3"}, "both backends")


def test_name_to_accept_on(room, names, begin):
    names.set(db=["127.0.0.2"], here=["127.0.0.5", "127.0.0.6"])
    t = begin("accept=here.test:0")
    assert sorted(x.rsplit(":", 1)[0] for x in t.addresses) == [
        "127.0.0.5", "127.0.0.6"]
    until_at(room, t, "127.0.0.2")


@pytest.mark.parametrize("flag", ["-t", "-q"])
def test_no_answer_at_the_start(room, names, begin, flag):
    names.stop()
    t = begin(flag, ready=False)
    assert t.wait() == 1
    assert t.log().count("\n") == 1
    assert t.log().startswith("tunnel: error: command line: db.test:7000: ")


def test_hung_lookup_at_the_start(room, names, begin):
    names.hang()
    t = begin("-t", ready=False)
    assert t.wait(LIMIT + support.DEADLINE) == 1
    assert t.log() == "tunnel: error: command line: db.test:7000: " \
        "no valid answer within 10 s\n"


def test_stop_while_a_lookup_hangs(room, names, begin, mode):
    t = begin(mode)
    names.hang()
    child = wait_for(lambda: lookup(t), "a lookup")
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
    assert not support.is_alive(child)


def test_stop_while_a_reload_waits(room, names, begin):
    t = begin(interval="1h")
    names.hang()
    t.signal(signal.SIGHUP)
    wait_for(lambda: lookup(t), "a lookup")
    t.signal(signal.SIGTERM)
    assert t.wait() == 0
    assert "reloaded" not in t.log()


def test_upgrade(room, names, begin, mode):
    """An upgrade begins with a lookup, and continues with periodic ones."""
    t = begin(mode)
    other = "127.0.0.3"
    for n in 1, 2:
        names.set(db=[other])
        t.signal(signal.SIGUSR2)
        t.wait_log("tunnel: upgraded$", n)
        until_at(room, t, other)
        other = "127.0.0.2" if other.endswith("3") else "127.0.0.3"
        names.set(db=[other])
        until_at(room, t, other)


def test_failed_upgrade(room, program, names, begin, mode):
    """The old workers still receive changes."""
    t = begin(mode)
    until_at(room, t, "127.0.0.2")
    program.but('exec REAL "$@" user=nobody-of-this-name')
    for n, host in enumerate(["127.0.0.3", "127.0.0.2"], 1):
        workers = t.workers()
        t.signal(signal.SIGUSR2)
        t.wait_log("upgrade failed, keeping", n)
        if mode != "mode=fork":
            assert set(workers) & set(t.workers())
        names.set(db=[host])
        until_at(room, t, host)
    program.put()
    names.set(db=["127.0.0.3"])
    t.signal(signal.SIGUSR2)
    t.wait_log("tunnel: upgraded$")
    until_at(room, t, "127.0.0.3")


def memory(pid):
    """The flags of shared memory mappings, as in smaps."""
    with open(f"/proc/{pid}/smaps") as f:
        text = f.read()
    return re.findall(r"^\S+ (\S+) \S+ \S+ \d+ +/memfd:tunnel.*?"
                      r"^VmFlags: (.*?)$", text, re.M | re.S)


@pytest.mark.skipif(support.SANITIZED, reason="needs a plain build")
def test_workers_can_only_read_it(room, names, begin):
    """Neither writable nor able to become so: "mw" is missing."""
    t = begin("workers=1")
    fixed = begin("workers=1", name="127.0.0.2", interval="off")
    worker, = wait_for(lambda: len(t.workers()) == 1 and t.workers(),
                       "one worker")
    found = memory(worker)
    mine = [flags.split() for rights, flags in found if rights == "r--s"]
    assert len(mine) == 1 and "mw" not in mine[0]
    assert len(found) == 1 + len(memory(fixed.workers()[0]))


def test_inetd_looks_up_once(room, names, begin):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = room.connect(support.tcp_address(listener))
        sock = listener.accept()[0]
    with sock:
        t = room.tunnel("-i", "connect=db.test:7000", "resolve_interval=1s",
                        ready=False, stdin=sock)
    client = room.client(peer)
    assert support.read_exactly(client, 16).strip() == b"127.0.0.2"
    assert support.children(t.pid) == []
    assert names.queries() == 1
    client.close_notify()
    assert t.wait() == 0
