"""Ticket keys from a file: the first one encrypts, all of them decrypt, and
SIGHUP reads them again.
"""

import os
import re
import signal
import subprocess

import pytest

import support
from reloads import ROOT, uid
from resuming import (KINDS, TICKETS, Rotated, is_resumed, new_key, newcomer,
                      visit)
from support import complaint, is_echoed, run, run_tunnel, wait_for


@pytest.fixture
def keyed(room, backend):
    """Start a tunnel with these keys."""

    def start(*keys, arguments=()):
        path = room.write(f"keys{len(room.processes)}",
                          "".join(key + "\n" for key in keys))
        return room.tunnel(f"connect={backend.address}", f"ticket_keys={path}",
                           *arguments)

    return start


# -k

def test_new_key():
    keys = {run(support.TUNNEL, "-k").decode() for _ in range(10)}
    assert len(keys) == 10
    assert all(re.fullmatch("[0-9a-f]{64}\n", key) for key in keys)


def test_new_key_to_a_full_disk():
    with open("/dev/full", "wb") as f:
        p = subprocess.run([support.TUNNEL, "-k"], stdout=f,
                           stderr=subprocess.PIPE)
    assert p.returncode != 0
    assert p.stderr.count(b"\n") == 1


# Which key is used.

def test_first_one_encrypts_and_all_decrypt(certs, keyed, ticket):
    a, b, c = new_key(), new_key(), new_key()
    t = keyed(a, b, c)
    session = visit(t.address, newcomer(certs, ticket)).session
    for keys, good in [([a], True), ([c, b, a], True), ([b, c], False)]:
        other = keyed(*keys)
        assert is_resumed(other.address, session) == good
    for key in b, c:
        session = visit(keyed(key).address, newcomer(certs, ticket)).session
        assert is_resumed(t.address, session)


def test_sixteen_of_them(certs, keyed, ticket):
    keys = [new_key() for _ in range(16)]
    t = keyed(*keys)
    session = visit(keyed(keys[-1]).address, newcomer(certs, ticket)).session
    assert is_resumed(t.address, session)


@pytest.mark.parametrize("text", [
    "# the keys of our hosts\n\n  \n{key}\n# and of others\n{other}\n",
    "{key}", "  {key}\t\n", "{KEY}\n",
])
def test_ways_to_write_it(room, certs, backend, keyed, ticket, text):
    key = new_key()
    path = room.write("keys", text.format(key=key, KEY=key.upper(),
                                          other=new_key()))
    t = room.tunnel(f"connect={backend.address}", f"ticket_keys={path}")
    session = visit(t.address, newcomer(certs, ticket)).session
    assert is_resumed(keyed(key).address, session)


@pytest.mark.parametrize("mode", ["workers=4", "mode=fork"])
def test_keys_of_a_file_survive_a_restart(certs, keyed, ticket, mode):
    key = new_key()
    t = keyed(key, arguments=[mode])
    session = visit(t.address, newcomer(certs, ticket)).session
    assert t.stop() == 0
    again = keyed(key, arguments=[mode, f"accept={t.address}"])
    assert all(is_resumed(again.address, session) for _ in range(8))


def test_ids_are_not_of_these_keys(certs, keyed):
    """Session IDs are in the cache of one tunnel, and unknown to another."""
    key = new_key()
    t = keyed(key)
    session = visit(t.address, newcomer(certs, "id-1.2")).session
    assert is_resumed(t.address, session)
    assert not is_resumed(keyed(key).address, session)


# Changes of keys.

@pytest.mark.parametrize("mode", support.ARGS or ["workers=2", "mode=fork"])
def test_rotation(room, certs, backend, ticket, mode):
    """The old key stays for a while, after the new one."""
    r = Rotated(room, backend, mode)
    first, second = *r.keys, new_key()
    old = r.visit(newcomer(certs, ticket)).session
    r.rotate(second, first)
    new = r.visit(newcomer(certs, ticket)).session
    for session in old, new, old, new:
        assert r.visit(session).resumed
    r.rotate(second)
    assert not r.visit(old).resumed
    assert r.visit(new).resumed


def test_keys_that_are_added_and_removed(room, certs, backend, configured,
                                         ticket):
    """Keys of its own, or those of a file: with a file, only those count."""
    path = room.write("keys", new_key() + "\n")
    c = configured()
    session = visit(c.t.address, newcomer(certs, ticket)).session
    c.reload(ticket_keys=path)
    visit(c.t.address, session)
    session = visit(c.t.address, newcomer(certs, ticket)).session
    assert is_resumed(c.t.address, session)
    other = room.tunnel(f"connect={backend.address}", f"ticket_keys={path}")
    assert is_resumed(other.address, session)
    c.reload(ticket_keys=None)
    session = visit(c.t.address, newcomer(certs, ticket)).session
    assert is_resumed(c.t.address, session)
    assert not is_resumed(other.address, session)


@ROOT
def test_keys_for_root_alone_are_rotated(room, certs, backend, ticket):
    """The workers run as a user that can't read them."""
    r = Rotated(room, backend, "workers=1", user="nobody")
    pid, = r.c.t.workers()
    assert uid(pid) != 0
    old = r.visit(newcomer(certs, ticket)).session
    r.rotate(new_key())
    assert not r.visit(old).resumed
    assert r.visit(r.visit(newcomer(certs, ticket)).session).resumed


# Errors in a file.

BAD = {
    "missing": (None, "keys: No such file or directory"),
    "empty": ("", "keys: no key in this file"),
    "comments": ("# none\n\n", "keys: no key in this file"),
    "word": ("{key}\n\nsecret\n", "keys:3: "),
    "short": ("{key:.63}\n", "keys:1: "),
    "long": ("# new\n{key}0\n", "keys:2: "),
    "half": ("{key:.32}\n", "keys:1: "),
    "two on a line": ("{key} {key}\n", "keys:1: "),
    "no digit": ("{key:.63}g\n", "keys:1: "),
    "a word behind": ("{key} first\n", "keys:1: "),
    "endless": ("{key}\n" + "0" * 100000 + "\n", "keys:2: "),
    "too many": ("{key}\n" * 16 + "\n# one more\n{key}\n", "keys:19: "),
    "NUL": ("{key}\n\0{key}\n", "keys:2: "),
    "NUL behind": ("{key}\0{key}\n", "keys:1: "),
}


def assert_tells(message, bad, key):
    """Check that the error has the place, and nothing secret."""
    where = BAD[bad][1]
    assert re.search(rf"(^|\s){where}", message), message
    assert key[:16] not in message and "secret" not in message
    assert len(message) < 300


def write_bad(room, bad, key):
    path = room.path("keys")
    if BAD[bad][0] is None:
        if os.path.exists(path):
            os.unlink(path)
        return path
    return room.write("keys", BAD[bad][0].format(key=key))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("flags", [[], ["-t"]], ids=["start", "-t"])
def test_bad_file(room, certs, bad, flags):
    key = new_key()
    path = write_bad(room, bad, key)
    message = complaint(run_tunnel(
        *flags, "accept=127.0.0.1:0", "connect=1", f"cert={certs.server}",
        f"ticket_keys={path}"))
    assert_tells(message.replace(room.dir + "/", ""), bad, key)


def test_directory_for_a_file(room, certs):
    assert f"{room.dir}: not a regular file" in complaint(run_tunnel(
        "accept=127.0.0.1:0", "connect=1", f"cert={certs.server}",
        f"ticket_keys={room.dir}"))


@pytest.mark.parametrize("bad", BAD)
def test_reload_with_a_bad_file(room, certs, backend, bad):
    """The configuration stays, including the keys."""
    r = Rotated(room, backend)
    sessions = [r.visit(newcomer(certs, kind)).session for kind in TICKETS]
    client = room.client(r.c.t)
    key = new_key()
    write_bad(room, bad, key)
    assert_tells(r.c.refused(), bad, key)
    assert is_echoed(client)
    for session in sessions:
        assert r.visit(session).resumed
    r.rotate(key, *r.keys)
    for session in sessions:
        assert r.visit(session).resumed


def test_keys_are_not_told(room, certs, backend):
    """Neither -t nor the log shows keys."""
    key = new_key()
    path = room.write("keys", key + "\n")
    p = run_tunnel("-t", "accept=127.0.0.1:0", "connect=1",
                   f"cert={certs.server}", f"ticket_keys={path}")
    assert p.returncode == 0
    assert f"ticket_keys = {path}\n" in p.stdout
    t = room.tunnel(f"connect={backend.address}", f"ticket_keys={path}",
                    "log_level=debug")
    for kind in KINDS:
        session = visit(t.address, newcomer(certs, kind)).session
        visit(t.address, session)
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    wait_for(lambda: len(re.findall(" closed$", t.log(), re.M)) == 6, "six")
    for text in p.stdout + p.stderr, t.log():
        assert key[:16] not in text.lower()
