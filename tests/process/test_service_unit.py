"""The service unit, tested without systemd."""

import os
import re
import signal

import pytest

import support
from privileged import MODES, NOBODY, assert_is, confined, status
from support import assert_echoes, is_echoed, need, run, serves

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def unit(network, room):
    """Its text, and the arguments of a tunnel on port 443."""
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
    # The last child may be the writer of the statistics.
    worker = re.findall(r"worker (\d+) started", t.log())[-1]
    assert_is(worker, NOBODY.pw_uid, NOBODY.pw_gid)
    client.close()
    assert t.stop() == 0
    assert "Operation not permitted" not in t.log()


def lives(t, echoes):
    """The life of an instance, from start to stop."""
    assert echoes()
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    t.signal(signal.SIGUSR1)
    t.wait_log("statistics: ")
    assert echoes()
    assert t.stop() == 0


@confined
@pytest.mark.parametrize("role", ["server", "client"])
def test_system_calls_of_the_unit_are_enough(room, unit, monkeypatch, role):
    """In both roles; the client role serves local applications."""
    need("systemd-analyze", "strace")
    text, words = unit
    server, path = room.tunnel(*words[:-1]), room.path("app.sock")
    if role == "client":
        words = ["client=yes", f"ca={room.certs.ca}", "user=nobody",
                 f"connect={server.address}", f"accept=unix:{path}",
                 "sandbox=yes", words[-1]]
    else:
        words[0] = "accept=127.0.0.1:444"
    trace = room.path("trace")
    monkeypatch.setattr(support, "UNDER", [
        "strace", "-D", "-f", "-A", "-o", trace])
    for mode in ("workers=2", "mode=fork"):
        t = room.tunnel(mode, *words)
        lives(t, lambda: serves(room, t.address) if role == "server" else
              is_echoed(room.connect(f"unix:{path}")))
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
