"""SIGHUP: everything is read again, and takes effect entirely or not at all;
no connection is lost or refused.
"""

import base64
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest

import peers
import support
from certificates import PASSWORD
from launchers import dynamic
from reloads import ROOT, pump, uid
from support import (Task, end, is_alive, is_connected, is_echoed, is_refused,
                     read_all, read_exactly, serves, text_of, wait_for)

LATE = 1.0 * support.SLOW  # tolerance for lateness


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


# Each key takes effect for new connections.

def subject(client):
    return dict(rdn[0] for rdn in client.tls.getpeercert()["subject"])[
        "commonName"]


def test_nothing_changed(configured):
    """Even an unchanged configuration gets new workers."""
    c = configured()
    client = c.client()
    before = set(c.t.workers())
    for _ in range(3):
        c.reload()
    if support.MODE != "fork":
        assert not before & set(c.t.workers()[-support.WORKERS:])
    assert is_echoed(client)
    assert is_echoed(c.client())


def test_certificate(room, certs, configured):
    c = configured()
    before = c.client()
    assert subject(before) == "server"
    c.reload(cert=certs.rsa)
    assert subject(c.client()) == "rsa"
    assert is_echoed(before)


def test_certificate_that_was_renewed(room, certs):
    """The same path with new contents, in a file that belongs to another user.
    """
    pem = room.path("site.pem")
    support.shutil.copy(certs.server, pem)
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", f"cert={pem}")
    assert subject(room.client(t)) == "server"
    support.shutil.copy(certs.rsa, pem)
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded$")
    assert subject(room.client(t)) == "rsa"


def test_certificate_that_expires(certs, configured):
    c = configured()
    lines = c.reload(cert=certs.soon)
    assert any(re.search("warning: .* expires in (9|10) days", x)
               for x in lines)


def test_key_and_its_password(room, certs, configured):
    c = configured()
    c.reload(cert=certs.path("server.crt"), key=certs.encrypted,
             key_password_file=room.write("password", PASSWORD))
    assert is_echoed(c.client())


def test_password_without_a_writer(room, certs, configured):
    c = configured()
    os.mkfifo(path := room.path("password"), 0o600)
    assert "not a regular file" in c.refuse(
        cert=certs.path("server.crt"), key=certs.encrypted,
        key_password_file=path)


def test_connect(room, configured):
    first, second = room.backend(), room.backend()
    c = configured(connect=first.address)
    before = c.client()
    at_first = room.keep(first.accept())
    c.reload(connect=second.address)
    after = c.client()
    at_second = room.keep(second.accept())
    for client, server in (before, at_first), (after, at_second):
        client.send(b"hello")
        assert read_exactly(server, 5) == b"hello"


def test_connect_to_a_command_and_back(configured, backend):
    c = configured()
    c.reload(connect=None, exec="echo a command")
    assert c.client().read_all() == (b"a command\n", "close_notify")
    c.reload(connect=backend.address, exec=None)
    assert is_echoed(c.client())


def test_tls_min(configured):
    c = configured()
    assert is_echoed(c.client(version="1.2"))
    c.reload(tls_min="1.3")
    with pytest.raises(ssl.SSLError):
        c.client(version="1.2")
    assert is_echoed(c.client(version="1.3"))


def test_ciphers(configured):
    c = configured()
    for suite in "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256":
        c.reload(ciphers=suite)
        assert c.client().tls.cipher()[0] == suite


def test_alpn(configured):
    c = configured()
    c.reload(alpn="h2")
    assert c.client(alpn=["h2"]).tls.selected_alpn_protocol() == "h2"


def test_max_connections(configured):
    """Connections of older generations do not count."""
    n = support.WORKERS
    c = configured(max_connections=f"{n}")
    for times in 1, 2:
        clients = [c.client() for _ in range(n * times)]
        waiting = Task(c.client)
        assert all(is_echoed(client) for client in clients)
        assert waiting.running()
        end(clients[0])
        assert is_echoed(waiting.result())
        if times == 1:
            c.reload(max_connections=f"{2 * n}")


@pytest.mark.parametrize("key,reason", [
    ("idle_timeout", "idle timeout"), ("handshake_timeout", "handshake "),
])
def test_timeout(room, configured, key, reason):
    """For new connections; others keep their timeouts."""
    c = configured()
    before = c.client()
    c.reload(**{key: "1s"})
    start = time.monotonic()
    if key == "handshake_timeout":
        assert read_all(room.connect(c.t.address)) == (b"", "eof")
    else:
        assert c.client().read_all() == (b"", "reset")
    assert time.monotonic() - start < 1 + LATE
    c.t.wait_log(reason)
    assert is_echoed(before)


def test_truncation(room, configured):
    backend = room.backend()
    c = configured(connect=backend.address)
    for how in "reset", "eof":
        c.reload(truncation=how)
        c.client().fin()
        assert read_all(room.keep(backend.accept())) == (b"", how)


def test_log(room, configured):
    c = configured()
    assert is_echoed(c.client())
    c.write(log=room.path("log"))
    c.t.signal(signal.SIGHUP)
    wait_for(lambda: "reloaded" in text_of(room.path("log")), "the new log")
    end(c.client())
    wait_for(lambda: " closed\n" in text_of(room.path("log")),
             "the connection's line")
    assert " closed\n" not in c.t.log()


def test_log_level(configured):
    c = configured(log_level="notice")
    end(c.client())
    c.reload(log_level="debug")
    end(c.client())
    c.t.wait_log(" closed$")
    assert c.t.log().count(" accepted\n") == 1
    assert c.t.log().count(" closed\n") == 1


def test_workers(configured):
    """More workers, then fewer."""
    c = configured(workers="1")
    client = c.client()
    assert is_echoed(client)
    for n in 4, 2, 3, 1:
        c.reload(workers=f"{n}")
        wait_for(lambda: len(c.t.workers()) == n + 1, f"{n} workers")
        assert is_echoed(c.client())
        assert is_echoed(client)
        end(c.room.opened[-1])
    end(client)
    wait_for(lambda: len(c.t.workers()) == 1, "the old worker's end")


def test_mode(configured):
    """poll to fork and back; each mode keeps one connection."""
    c = configured(mode="poll")
    clients = [c.client()]
    c.reload(mode="fork")
    wait_for(lambda: len(c.t.workers()) == 1, "one worker, the old one")
    clients += [c.client() for _ in range(3)]
    assert all(is_echoed(client) for client in clients)
    wait_for(lambda: len(c.t.workers()) == 4, "a process per connection")
    c.reload(mode="poll")
    clients.append(c.client())
    assert all(is_echoed(client) for client in clients)
    wait_for(lambda: len(c.t.workers()) == 5, "another worker")
    for client in clients:
        end(client)
    wait_for(lambda: len(c.t.workers()) == 1, "the one worker")


@ROOT
def test_user(configured):
    if support.MODE == "fork":
        pytest.skip("a process lives only as long as its connection")
    c = configured()
    assert {os.stat(f"/proc/{pid}").st_uid for pid in c.t.workers()} == {0}
    c.reload(user="nobody", sandbox="no")
    nobody = pwd.getpwnam("nobody").pw_uid

    def users():
        return {uid(pid) for pid in c.t.workers()} - {None}

    wait_for(lambda: users() == {nobody}, "workers of nobody")
    assert is_echoed(c.client())
    c.reload(user=None)
    wait_for(lambda: 0 in users(), "workers of root")
    assert is_echoed(c.client())


def test_arguments_override_the_file(configured):
    """As before the reload."""
    c = configured("tls_min=1.3", tls_min="1.2")
    c.reload(alpn="h2")
    with pytest.raises(ssl.SSLError):
        c.client(version="1.2")
    assert is_echoed(c.client())


def test_command_of_the_command_line_stays(room, configured):
    c = configured("--", "echo", "as ever", connect=None)
    c.reload()
    assert c.client().read_all() == (b"as ever\n", "close_notify")


@pytest.mark.parametrize("key", ["pidfile", "daemon"])
def test_key_that_cannot_change(room, configured, key):
    """A warning; the other keys take effect."""
    c = configured(pidfile=room.path("pidfile"))
    lines = c.reload(**{key: {"pidfile": room.path("other"),
                              "daemon": "yes"}[key]}, alpn="h2")
    assert len([x for x in lines
                if x.startswith("tunnel: warning: ") and key in x]) == 1
    client = c.client(alpn=["h2"])
    assert client.tls.selected_alpn_protocol() == "h2"
    end(client)
    assert text_of(room.path("pidfile")) == f"{c.t.pid}\n"
    assert not os.path.exists(room.path("other"))
    assert c.t.stop() == 0
    assert not os.path.exists(room.path("pidfile"))


# Listeners.

def test_accept_is_kept(room, configured):
    """The same socket, in any order; also one that could not be opened again.
    """
    with socket.create_server(("127.0.0.1", 0)) as s:
        accept = ["127.0.0.1:0", f"unix:{room.path('socket')}",
                  f"fd:{s.fileno()}", "127.0.0.1:0"]
        c = configured(accept=accept, keywords={"pass_fds": [s.fileno()]})
    c.t.wait_log("listening on", count=4)
    before, inode = c.t.addresses, os.stat(room.path("socket")).st_ino
    for order in accept, accept[::-1]:
        c.reload(accept=order)
    assert c.t.addresses == before
    assert "no longer listening" not in c.t.log()
    assert os.stat(room.path("socket")).st_ino == inode
    assert all(serves(room, address) for address in before)


def test_accept_is_added_and_removed(room, configured):
    c = configured()
    first, unix = c.t.address, f"unix:{room.path('socket')}"
    c.reload(accept=["127.0.0.1:0", unix])
    assert serves(room, first) and serves(room, unix)
    lines = c.reload(accept=unix)
    assert f"tunnel: no longer listening on {first}" in lines
    wait_for(lambda: is_refused(first), "the first to be closed")
    assert serves(room, unix)
    lines = c.reload(accept="127.0.0.1:0")
    assert f"tunnel: no longer listening on {unix}" in lines
    assert not os.path.exists(room.path("socket"))
    assert c.t.log().count(" listening on ") == 3 + 2
    assert serves(room, c.t.addresses[2])


def test_removed_accept_is_closed_by_all(room, configured):
    """Old workers with connections do not keep the listener, so another
    program can bind the address.
    """
    c = configured()
    client = c.client()
    first = c.t.address
    c.reload(accept=f"unix:{room.path('socket')}")
    with socket.create_server(("127.0.0.1", int(first.split(":")[1]))):
        support.connect(first).close()
    assert is_echoed(client)


def test_port_is_handed_over(room, configured, backend):
    """From one tunnel to another, by two reloads."""
    first = configured()
    address = first.t.address
    second = room.tunnel(f"connect={backend.address}")
    first.reload(accept=f"unix:{room.path('socket')}")
    third = room.tunnel(f"accept={address}", f"connect={backend.address}")
    assert serves(room, third.address)
    assert serves(room, second.address)


# A wrong configuration is reported, and changes nothing.

@pytest.mark.parametrize("values,words", [
    ({"colour": "red"}, 'tunnel.conf:5: unknown key "colour"'),
    ({"idle_timeout": "5"}, 'tunnel.conf:5: idle_timeout = "5" '),
    ({"cert": "/no.pem"}, "/no.pem: No such file or directory"),
    ({"key": "/no.key"}, "/no.key: No such file or directory"),
    ({"connect": "nowhere.invalid:1"}, "tunnel.conf:4: "),
    ({"accept": "192.0.2.1:0"}, f"tunnel.conf:1: .*{support.NOT_HERE}"),
    ({"accept": "fd:999"}, "tunnel.conf:1: .*is not a listening socket"),
    ({"cert": None}, "cert"),
    ({"tls_min": "1.3", "tls_max": "1.2"}, "tls_min is newer than tls_max"),
    pytest.param({"user": "nobodyx"}, 'conf:5: unknown user "nobodyx"',
                 marks=dynamic),
    pytest.param({"group": "nobodyx"}, 'conf:5: unknown group "nobodyx"',
                 marks=dynamic),
    ({"chroot": "/nowhere"}, "tunnel.conf:5: .*/nowhere"),
    ({"log": "/nowhere/log"}, "/nowhere/log: No such file or directory"),
], ids=lambda x: "+".join(x) if isinstance(x, dict) else "")
def test_broken(configured, values, words):
    c = configured()
    # The order of the lines, given by the first four keys.
    order = ["accept", "cert", "log_level", "connect"]
    assert list(c.values) == order
    client = c.client()
    good, before = dict(c.values), c.t.workers()
    assert re.search(words, c.refuse(**values)), c.t.log()
    if support.MODE != "fork":
        assert c.t.workers() == before
    assert is_echoed(client)
    assert is_echoed(c.client())
    c.values = good
    c.reload(alpn="h2")
    assert c.client(alpn=["h2"]).tls.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize("mode", ["poll", "fork"])
def test_own_socket_is_not_an_inherited_one(configured, mode):
    """The number of the master's own listener: it would be closed with the old
    generation.
    """
    c = configured(mode=mode)
    own, = [fd for fd, link in support.open_files(c.t.pid).items()
            if link in listening(c.t.address)]
    said = c.refuse(accept=f"fd:{own}")
    assert re.search(f"tunnel.conf:1: accept: fd:{own}: it is not inherited",
                     said), said
    assert is_echoed(c.client())


def listening(address):
    """The socket listening there, as shown in /proc/PID/fd."""
    host, port = address.split(":")
    number = "%08X:%04X" % (int.from_bytes(socket.inet_aton(host), "little"),
                            int(port))
    with open("/proc/net/tcp") as f:
        return [f"socket:[{x.split()[9]}]" for x in f
                if f" {number} 00000000:0000 0A" in x]


def test_fewer_connections_than_workers(configured):
    c = configured(mode="poll", workers="4")
    message = c.refuse(max_connections="3")
    assert "workers" in message and "max_connections" in message
    assert is_echoed(c.client())


@pytest.mark.parametrize("text", ["", "junk\n", "-----BEGIN CERTIFICATE-----\n"
                                  "AAAA\n-----END CERTIFICATE-----\n"])
def test_broken_certificate(room, certs, configured, text):
    """A half-written file, read during its renewal."""
    pem = room.path("site.pem")
    support.shutil.copy(certs.server, pem)
    c = configured(cert=pem)
    room.write("site.pem", text)
    assert c.refused().startswith("tunnel.conf:2: cert: site.pem: ")
    assert subject(c.client()) == "server"


def test_key_does_not_match(certs, configured):
    c = configured(cert=certs.path("server.crt"),
                   key=certs.path("server.key"))
    assert "does not match" in c.refuse(cert=certs.path("rsa.crt"))
    assert subject(c.client()) == "server"


def test_key_is_damaged(room, certs, configured):
    """An RSA key whose numbers do not belong together."""
    der = support.run("openssl", "rsa", "-in", certs.path("rsa.key"),
                      "-traditional", "-outform", "DER",
                      stderr=subprocess.DEVNULL)
    at = der.index(b"\2\3\1\0\1") + 50  # the private exponent follows 65537
    changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1:]
    text = base64.encodebytes(changed).decode()
    room.write("damaged.key", f"-----BEGIN RSA PRIVATE KEY-----\n{text}"
               "-----END RSA PRIVATE KEY-----\n")
    message = configured().refuse(cert=certs.path("rsa.crt"),
                                  key=room.path("damaged.key"))
    assert "the key in damaged.key does not match" in message or \
        "damaged.key: its private key cannot be read" in message  # 4.1


def test_missing_file(configured):
    c = configured()
    os.unlink(c.path)
    assert c.refused() == "tunnel.conf: No such file or directory"
    assert is_echoed(c.client())


def test_port_in_use(room, configured):
    """Everything is reverted: new listeners opened before the error are
    closed, and those to be removed stay open.
    """
    unix, other = (f"unix:{room.path(name)}" for name in ("socket", "other"))
    c = configured(accept=["127.0.0.1:0", unix])
    c.t.wait_log("listening on", count=2)
    free = support.free_port()
    with socket.create_server(("127.0.0.1", 0)) as s:
        used = support.tcp_address(s)
        message = c.refuse(accept=["127.0.0.1:0", other, free, used])
    assert message.startswith("tunnel.conf:4: ")
    assert re.search(f"{used}: {support.IN_USE}", message)
    assert is_refused(free)
    assert not os.path.exists(room.path("other"))
    assert serves(room, c.t.address) and serves(room, unix)
    assert "no longer listening" not in c.t.log()


def test_overlapping_address(configured):
    """The old listener stays open until the new one is."""
    c = configured(accept=support.free_port())
    message = c.refuse(accept=c.t.address.split(":")[1])
    assert re.search(support.IN_USE, message)
    assert is_echoed(c.client())


def test_log_is_reopened_even_if_the_reload_fails(room, configured):
    """Otherwise one mistake would stop log rotation, and fill the disk."""
    path = room.path("log")
    backend = room.backend().serve(support.echo)
    conf = room.write("tunnel.conf", f"accept = 127.0.0.1:0\nlog = {path}\n"
                      f"cert = {room.certs.server}\n"
                      f"connect = {backend.address}\n")
    t = room.tunnel("-c", conf, ready=False)
    wait_for(lambda: "listening on" in text_of(path), "the log")
    address = re.search(r"listening on (\S+)", text_of(path))[1]
    room.write("tunnel.conf", text_of(conf) + "colour = red\n")
    os.rename(path, path + ".1")
    t.signal(signal.SIGHUP)
    wait_for(lambda: "reload failed, " in text_of(path), "the new file")
    assert "tunnel.conf:5: unknown key" in text_of(path)
    assert serves(room, address)


# No connection is lost.

def test_five_reloads_under_ten_connections(room, configured):
    """Every byte arrives."""
    c = configured()
    clients = [c.client(version=("1.2", "1.3")[n % 2]) for n in range(10)]
    done = []
    tasks = [Task(pump, client, n, lambda: done)
             for n, client in enumerate(clients)]
    for _ in range(5):
        c.reload()
        wait_for(lambda: is_echoed(c.client()), "a new client")
    done.append(True)
    for task in tasks:
        rounds, sent, received = task.result()
        assert rounds >= 3
        assert sent == received
    assert c.t.log().count("reloaded\n") == 5


@pytest.mark.parametrize("mode", ["poll", "fork"])
def test_connect_storm_across_reloads(room, configured, mode):
    """No client is refused or reset at any time."""
    c = configured(log_level="notice", mode=mode)
    address, ctx = c.t.address, peers.context(room.certs)
    done = []

    def visits():
        n = 0
        while not done:
            client = peers.Client(address, ctx)
            client.handshake()
            assert is_echoed(client)
            end(client)
            n += 1
        return n

    def knocks():
        """Connects without a handshake, for a higher rate."""
        n = 0
        while not done:
            support.connect(address).close()
            n += 1
        return n

    tasks = [Task(visits) for _ in range(4)] + [Task(knocks)]
    for _ in range(30):
        c.reload()
    done.append(True)
    for task in tasks:
        assert task.result() > 0


def test_queued_connections_are_served(room, configured, backend):
    """Connections in the listener's queue survive a pause in accepting."""
    n = support.WORKERS
    c = configured(max_connections=f"{n}")
    busy = [c.client() for _ in range(n)]
    waiting = [Task(c.client) for _ in range(20)]
    c.reload(max_connections="1000")
    assert all(is_echoed(task.result()) for task in waiting)
    assert all(is_echoed(client) for client in busy)


# Signals in close succession.

def test_sighup_in_a_storm(configured):
    """Several signals may count as one; the last one sees the last file."""
    c = configured()
    for n in range(20):
        c.write(alpn=f"p{n}")
        c.t.signal(signal.SIGHUP)

    def is_last():
        try:
            return bool(c.client(alpn=["p19"]))
        except ssl.SSLError:
            return False

    wait_for(is_last, "the last file to be read")


def test_sighup_while_stopping(configured):
    """A stopping tunnel ignores SIGHUP."""
    c = configured()
    client = c.client()
    c.t.signal(signal.SIGTERM)
    c.t.wait_log("shutting down: draining connections")
    c.t.signal(signal.SIGHUP)
    assert is_echoed(client)
    end(client)
    assert c.t.wait() == 0
    assert "reload" not in c.t.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_end_after_a_reload(configured, number):
    """Both generations end."""
    c = configured()
    before = c.client()
    c.reload()
    after = c.client()
    pids = c.t.workers()
    c.t.signal(number)
    for client in before, after:
        if number == signal.SIGTERM:
            assert is_echoed(client)
            end(client)
        else:
            assert client.read_all() == (b"", "reset")
    assert c.t.wait() == 0
    assert not any(map(is_alive, pids))


def test_end_during_a_reload(configured):
    for n in range(5):
        c = configured()
        c.t.signal(signal.SIGHUP)
        time.sleep(0.002 * n)  # at some point within the reload
        c.t.signal(signal.SIGTERM)
        assert c.t.wait() == 0


def test_killed_worker_of_the_old_generation(configured):
    """It is not replaced."""
    c = configured(mode="poll", workers="2")
    client = c.client()
    assert is_echoed(client)
    c.reload()
    wait_for(lambda: len(c.t.workers()) == 3, "two new workers and an old one")
    old, = (pid for pid in c.t.workers() if is_connected(pid))
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: not is_alive(old), "the exit")
    assert client.read_all()[1] in ("reset", "truncated")
    c.reload()
    wait_for(lambda: len(c.t.workers()) == 2, "two workers")
    assert "starting another one" not in c.t.log()


def test_killed_worker_of_the_new_generation(configured):
    """Its replacement has the new configuration."""
    c = configured(mode="poll", workers="1")
    c.reload(alpn="h2")
    new = wait_for(lambda: len(c.t.workers()) == 1 and c.t.workers(),
                   "the new worker")[0]
    os.kill(new, signal.SIGKILL)
    assert c.client(alpn=["h2"]).tls.selected_alpn_protocol() == "h2"


# In the background.

def test_daemon_reloads_from_a_relative_configuration(room, backend):
    room.write("tunnel.conf", "accept = 127.0.0.1:0\ncert = server.pem\n"
               f"connect = {backend.address}\nlog = daemon.log\n"
               "pidfile = pidfile\ndaemon = yes\n")
    support.shutil.copy(room.certs.server, room.path("server.pem"))
    subprocess.run(support.command("-c", "tunnel.conf"), cwd=room.dir,
                   check=True, timeout=support.DEADLINE)
    pid = int(text_of(room.path("pidfile")))
    try:
        support.shutil.copy(room.certs.rsa, room.path("server.pem"))
        os.kill(pid, signal.SIGHUP)
        wait_for(lambda: "reload" in text_of(room.path("daemon.log")).split(
            "reloading")[-1], "the reload")
        address = re.search(r"listening on (\S+)",
                            text_of(room.path("daemon.log")))[1]
        client = room.client(address)
        assert subject(client) == "rsa"
        client.close()
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not os.path.exists(room.path("pidfile")),
                 "the daemon's end")
