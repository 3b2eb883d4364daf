"""Three hosts behind a load balancer, each in a network namespace: any of them
may fail, and clients can resume on any other.
"""

import ctypes
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import peers
import proxy
import support
from support import Task, read_exactly, run, wait_for

CLONE_NEWNET = 0x40000000
BALANCER = "10.9.0.1"
CLIENTS = ["10.9.0.101", "10.9.0.102", "10.9.0.103"]
HOSTS = ["10.9.0.11", "10.9.0.12", "10.9.0.13"]
PORT = 443
DATA = random.Random(6).randbytes(40000)

FLEET = """
listen fleet
    mode tcp
    balance roundrobin
    bind {}
    retries 3
    option redispatch 1
"""
HOST = """
    server host{n} {host}:{port} {words} check inter 100ms fall 2 rise 1
"""


def enter(namespace):
    """Enter the namespace, for this thread or a single-threaded process."""
    with open(f"/run/netns/{namespace}", "rb") as f:
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


def ip(*words, **keywords):
    """Run ip(8); return its error message, empty on success."""
    return subprocess.run(["ip", *words], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, timeout=support.DEADLINE,
                          **keywords).stdout.strip()


class Network:
    """A bridge in the balancer's namespace, and a link to each other
    namespace.  All interfaces are in our namespaces, and vanish with them.
    """

    def __init__(self):
        self.prefix = f"tunnel-test-{os.getpid()}-{random.randrange(1 << 32)}"
        self.made = []

    def name(self, host):
        return f"{self.prefix}-{host}"

    def ip(self, host, *words):
        """Without its -n, which needs mounts."""
        wrong = ip(*words, **self.inside(host))
        assert not wrong, f"ip {' '.join(words)}: {wrong}"

    def make(self, host):
        wrong = ip("netns", "add", self.name(host))
        if wrong:
            pytest.skip(f"no network namespaces here: {wrong}")
        self.made.append(host)
        self.ip(host, "link", "set", "lo", "up")

    def build(self):
        self.make("balancer")
        wrong = ip("link", "add", "bridge", "type", "bridge",
                   **self.inside("balancer"))
        if wrong:
            pytest.skip(f"no bridges here: {wrong}")
        self.up("balancer", "bridge", BALANCER)
        self.plug("client", *CLIENTS)
        for n, address in enumerate(HOSTS):
            self.plug(f"host{n}", address)

    def up(self, host, interface, *addresses):
        for address in addresses:
            self.ip(host, "address", "add", address + "/24", "dev", interface)
        self.ip(host, "link", "set", interface, "up")

    def plug(self, host, *addresses):
        self.make(host)
        self.ip("balancer", "link", "add", host, "type", "veth", "peer",
                "name", "cable", "netns", self.name(host))
        self.ip("balancer", "link", "set", host, "master", "bridge", "up")
        self.up(host, "cable", *addresses)

    def socket(self, host):
        """Make a socket that stays in that namespace, wherever it is used."""

        def make():
            enter(self.name(host))
            return socket.socket()

        return Task(make).result()

    def inside(self, host):
        """Return a command to run a process in that namespace."""
        return {"preexec_fn": lambda: enter(self.name(host))}

    def close(self):
        for host in reversed(self.made):
            ip("netns", "delete", self.name(host))


@pytest.fixture
def network():
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not shutil.which("ip"):
        pytest.skip("iproute2 is not installed")
    network = Network()
    try:
        network.build()
        yield network
    finally:
        network.close()
        assert network.prefix not in ip("netns", "list")


class Fleet:
    """The tunnels, the balancer in front of them, and an echo server behind.
    """

    def __init__(self, room, network,
                 words="send-proxy-v2 check-send-proxy", **values):
        self.room, self.network = room, network
        self.backend = room.backend(family=socket.AF_UNIX,
                                    to=room.path("backend"))
        self.backend.serve(support.echo)
        self.keys = [new_key()]
        self.write_keys()
        self.values = {"accept_proxy": "yes", **values}
        self.tunnels = [self.start(n) for n in range(len(HOSTS))]
        text = FLEET + "".join(
            HOST.format(n=n, host=host, port=PORT, words=words)
            for n, host in enumerate(HOSTS))
        self.balancer = proxy.Haproxy(
            room, text, [self.listen()], **network.inside("balancer"))

    def write_keys(self):
        new = self.room.write("new", "".join(x + "\n" for x in self.keys))
        os.rename(new, self.room.path("keys"))

    def start(self, n):
        values = {"accept": f"{HOSTS[n]}:{PORT}",
                  "connect": self.backend.address,
                  "cert": self.room.certs.server, "log_level": "debug",
                  "ticket_keys": self.room.path("keys"), **self.values}
        conf = self.room.write(f"host{n}.conf", "".join(
            f"{key} = {value}\n" for key, value in values.items()))
        return self.room.tunnel("-c", conf, **self.network.inside(f"host{n}"))

    def listen(self):
        sock = self.room.keep(self.network.socket("balancer"))
        sock.bind((BALANCER, PORT))
        sock.listen(100)
        return sock

    def connect(self, source=CLIENTS[0]):
        sock = self.network.socket("client")
        sock.settimeout(support.DEADLINE)
        try:
            sock.bind((source, 0))
            sock.connect((BALANCER, PORT))
        except OSError:
            sock.close()
            raise
        return sock

    def newcomer(self, version=None):
        return peers.context(self.room.certs, version)

    def visit(self, who, source=CLIENTS[0]):
        """Use a connection from beginning to end; return the client in its
        final state.  who: a newcomer, or a session.
        """
        session = who if isinstance(who, peers.Session) else None
        with self.connect(source) as sock:
            client = peers.Client(sock, who, session=session).handshake()
            sending = Task(client.send, DATA)
            data = read_exactly(client, len(DATA))
            sending.result()
            client.close_notify()
            end = client.read_all()
        assert hashlib.sha256(data).digest() == hashlib.sha256(DATA).digest()
        assert end == (b"", "close_notify")
        return client

    def states(self):
        """Return the balancer's state of each host; "2" is up."""
        out = self.balancer.ask("show servers state").splitlines()
        names = out[1].removeprefix("# ").split()
        return [dict(zip(names, line.split()))["srv_op_state"]
                for line in out[2:] if line]


def new_key():
    return run(support.TUNNEL, "-k").decode().strip()


@pytest.fixture
def fleet(room, network):
    return lambda *arguments, **values: Fleet(room, network, *arguments,
                                              **values)


def closed(t):
    """Return its log lines of successful connections."""
    return re.findall(r"^tunnel: (\S+) -> unix:.*s closed$", t.log(), re.M)


def resumed(t):
    return t.log().count(" resumed ")


class Load:
    """Clients in several threads, each with consecutive visits by the session
    of its last visit.
    """

    def __init__(self, fleet, threads=4):
        self.fleet = fleet
        self.ended = False
        self.done, self.failed, self.full = [], [], []
        self.tasks = [Task(self.come, CLIENTS[n % len(CLIENTS)])
                      for n in range(threads)]

    def come(self, source):
        who = self.fleet.newcomer()
        while not self.ended and len(self.done) < 5000:
            began = time.monotonic()
            try:
                client = self.fleet.visit(who, source)
            except (OSError, AssertionError) as e:
                self.failed.append((began, repr(e)))
                # OpenSSL does not resume a session of an aborted connection.
                who = self.fleet.newcomer()
                continue
            if isinstance(who, peers.Session) and not client.resumed:
                self.full.append(began)
            who = client.session
            self.done.append(began)

    def more(self, count):
        """Wait for so many visits that begin after now."""
        start = time.monotonic()

        def come():
            assert all(task.running() for task in self.tasks), [
                task.error for task in self.tasks]
            return sum(began > start for began in self.done) >= count

        wait_for(come, f"{count} more visits", 2 * support.DEADLINE)

    def end(self):
        self.ended = True
        for task in self.tasks:
            task.result()


def test_all_of_them_serve(fleet):
    """In turns, and each knows its client's certificate."""
    f = fleet()
    for source in CLIENTS:
        for _ in HOSTS:
            f.visit(f.newcomer(), source)
    for t in f.tunnels:
        t.wait_log(" closed$", count=len(CLIENTS))
        assert {peer.split(":")[0] for peer in closed(t)} == set(CLIENTS)


def test_clients_address_is_that_of_the_log(fleet):
    f = fleet()
    with f.connect(CLIENTS[2]) as sock:
        client = peers.Client(sock, f.newcomer()).handshake()
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
        peer = support.tcp_address(sock)
        client.close_notify()
        client.read_all()
    wait_for(lambda: [peer] in map(closed, f.tunnels),
             f"{peer} in one of the logs")


def test_clients_address_is_passed_on(fleet):
    """Together with the address that it has connected to."""
    f = fleet(proxy_protocol="v1")
    with f.connect(CLIENTS[1]) as sock:
        client = peers.Client(sock, f.newcomer()).handshake()
        port = sock.getsockname()[1]
        client.close_notify()
        assert client.read_all() == (
            f"PROXY TCP4 {CLIENTS[1]} {BALANCER} {port} {PORT}\r\n".encode(),
            "close_notify")


def test_session_of_one_is_resumed_by_each(fleet, version):
    f = fleet()
    who = f.newcomer(version)
    for n in range(3 * len(HOSTS)):
        client = f.visit(who)
        assert client.resumed == (n > 0)
        who = client.session
    for t in f.tunnels:
        t.wait_log(" closed$", count=3)
    assert sorted(map(resumed, f.tunnels)) == [2, 3, 3]


def test_one_that_has_another_key_resumes_nothing(fleet, version):
    """This shows that resumption depends on the shared file."""
    f = fleet()
    f.keys = [new_key()]
    f.write_keys()
    f.tunnels[0].signal(signal.SIGHUP)
    f.tunnels[0].wait_log("tunnel: reloaded$")
    client = f.visit(f.newcomer(version))
    wait_for(lambda: any(map(closed, f.tunnels)), "the first visit's line")
    is_alone = bool(closed(f.tunnels[0]))
    for _ in HOSTS:
        f.visit(client.session)
    wait_for(lambda: sum(len(closed(t)) for t in f.tunnels) == 4, "the others")
    assert list(map(resumed, f.tunnels)) == \
        ([1, 0, 0] if is_alone else [0, 1, 1])


def test_one_is_killed(fleet):
    """Only its connections are lost; after a restart it resumes sessions of
    the others.
    """
    f = fleet()
    load = Load(f)
    load.more(30)
    dead = f.tunnels[1]
    pids = dead.pids()
    support.kill(pids)
    wait_for(lambda: not any(map(support.is_alive, pids)), "its end")
    killed = time.monotonic()
    load.more(50)
    wait_for(lambda: f.states()[1] == "0", "the balancer to know")
    f.tunnels[1] = f.start(1)
    wait_for(lambda: f.states() == ["2"] * 3, "it to be back")
    wait_for(lambda: len(closed(f.tunnels[1])) >= 10, "visits to it")
    load.end()
    assert not [x for x in load.failed if x[0] > killed]
    assert len(load.failed) <= 2 * len(load.tasks)
    assert not load.full
    assert resumed(f.tunnels[1]) >= 10


class Lasting:
    """Clients that stay connected, some on each host."""

    def __init__(self, fleet):
        self.clients = []
        for _ in range(2 * len(HOSTS)):
            sock = fleet.room.keep(fleet.connect())
            self.clients.append(
                peers.Client(sock, fleet.newcomer()).handshake())

    def greet(self):
        for client in self.clients:
            client.send(b"still there")
            assert read_exactly(client, 11) == b"still there"

    def end(self):
        for client in self.clients:
            client.close_notify()
            assert client.read_all() == (b"", "close_notify")
            client.close()


def test_one_after_another_is_told_to_stop(fleet):
    """As for an update: nothing is lost, not even on open connections."""
    f = fleet()
    load = Load(f)
    load.more(30)
    for n, t in enumerate(f.tunnels):
        lasting = Lasting(f)
        t.signal(signal.SIGTERM)
        wait_for(lambda n=n: f.states()[n] == "0", "the balancer to know")
        load.more(30)
        lasting.greet()
        lasting.end()
        assert t.wait() == 0
        f.tunnels[n] = f.start(n)
        wait_for(lambda: f.states() == ["2"] * 3, "it to be back")
    load.more(30)
    load.end()
    assert load.failed == []
    assert load.full == []


def test_one_is_reloaded_under_load(fleet):
    """Nothing is lost, neither on open nor on new connections."""
    f = fleet()
    load = Load(f)
    load.more(30)
    lasting = Lasting(f)
    t = f.tunnels[2]
    for n in range(5):
        t.signal(signal.SIGHUP)
        t.wait_log("tunnel: reloaded$", count=n + 1)
        load.more(60)
        lasting.greet()
    lasting.end()
    load.end()
    assert load.failed == []
    assert load.full == []
    wait_for(lambda: f.states() == ["2"] * 3, "all to be there")


def test_keys_are_changed_on_one_after_another(fleet):
    """First all hosts get the new key, then all begin to use it: meanwhile no
    session is lost.
    """
    f = fleet()
    load = Load(f)
    load.more(30)
    old, new = f.keys[0], new_key()
    for n, keys in enumerate([[old, new], [new, old], [new]]):
        f.keys = keys
        f.write_keys()
        for t in f.tunnels:
            before = t.log().count("tunnel: reloaded\n")
            t.signal(signal.SIGHUP)
            t.wait_log("tunnel: reloaded$", count=before + 1)
            load.more(20)
        if n == 1:
            load.more(60)  # for all to have a ticket by the new key
    load.end()
    assert load.failed == []
    assert load.full == []
