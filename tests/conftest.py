import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
# Some files take from those of other folders.
sys.path[:0] = [HERE, *(entry.path for entry in os.scandir(HERE)
                        if entry.is_dir())]

import support  # noqa: E402

SECONDS = 30  # that a test may take, unless it is marked with others


def untracked():
    """Files in the tree that are neither git's nor ignored."""
    p = subprocess.run(["git", "status", "--porcelain", "--untracked-files"],
                       cwd=support.TOP, capture_output=True, text=True)
    return {line for line in p.stdout.splitlines() if line.startswith("??")}


def pytest_configure(config):
    config.addinivalue_line("markers", "seconds(n): the test's time limit")
    config.addinivalue_line("markers", "more: of another build; check-more")
    if not hasattr(config, "workerinput"):
        config.untracked = untracked()


def pytest_sessionfinish(session):
    """The tests have left nothing in the tree."""
    left = untracked() - getattr(session.config, "untracked", untracked())
    if left:
        session.exitstatus = 1
        print("\nleft behind in the tree:", *sorted(left), sep="\n")


# Each test is bounded in time, and shows its processes' logs if it failed.

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    mark = item.get_closest_marker("seconds")
    seconds = int((mark.args[0] if mark else SECONDS) * support.SLOW)

    def late(number, frame):
        raise TimeoutError(f"the test took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    room = getattr(item, "funcargs", {}).get("room")
    if report.failed and room is not None:
        for name, log in room.logs or room.read_logs():
            report.sections.append((f"log of {name}", log[-20000:]))


class Room:
    """A private directory, and what was started or opened in it."""

    def __init__(self, certs):
        self.dir = tempfile.mkdtemp(prefix="tunnel-test.")
        self.certs = certs
        self.processes = []
        self.opened = []
        self.logs = []  # once the directory is gone

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        mode = "wb" if isinstance(text, bytes) else "w"
        with open(self.path(name), mode) as f:
            f.write(text)
        return self.path(name)

    def keep(self, opened):
        """Close this at the end."""
        self.opened.append(opened)
        return opened

    def start(self, name, command, **keywords):
        p = support.Process(self.dir, name, command, **keywords)
        self.processes.append(p)
        return p

    def tunnel(self, *arguments, ready=True, **keywords):
        """Start one, with an address, a certificate and a log that tells
        much, where the arguments don't say otherwise.
        """
        words = list(arguments)
        ours = words[:words.index("--")] if "--" in words else words
        given = {word.split("=")[0] for word in ours}
        before = []
        if not given & {"accept", "-i", "-c"}:
            before.append("accept=127.0.0.1:0")
        if not given & {"cert", "-c"}:
            before.append(f"cert={self.certs.server}")
        if not given & {"log_level", "-q", "-v", "-c"}:
            before.append("log_level=debug")
        name = f"tunnel{len(self.processes)}"
        t = support.Tunnel(self.dir, name, [*before, *arguments], **keywords)
        self.processes.append(t)
        return t.wait_ready() if ready else t

    def backend(self, **keywords):
        return self.keep(support.Backend(**keywords))

    def connect(self, address, **keywords):
        return self.keep(support.connect(address, **keywords))

    def client(self, to, version=None, name="localhost", rcvbuf=None,
               session=None, **keywords):
        """A TLS client that has done its handshake, to a tunnel, an address
        or a connected socket.  session: what an earlier client's .session
        was; it then has that client's version and certificate, too.
        """
        ctx = session.ctx if session else support.context(
            self.certs, version, **keywords)
        to = to.address if isinstance(to, support.Tunnel) else to
        client = self.keep(support.Client(to, ctx, name, rcvbuf, session))
        return client.handshake()

    def read_logs(self):
        return [(p.name, p.log()) for p in self.processes]

    def close(self):
        """Every tunnel has to end well: leaks and races show here too."""
        for x in reversed(self.opened):
            x.close()
        bad = []
        for p in reversed(self.processes):
            ended_before = not p.alive()
            workers = p.workers()
            status = p.stop()
            left = [pid for pid in workers if support.is_alive(pid)]
            if isinstance(p, support.Tunnel) and left:
                bad.append(f"{p.name}: {left} are left behind")
                support.kill(left)
            if not ended_before and isinstance(p, support.Tunnel) and status:
                bad.append(f"{p.name}: exit status {status} after SIGTERM")
            # SIGKILL is what tests send, and 99 what valgrind complains by.
            if re.search(r"worker \d+ (was killed by signal (?!9\b)|"
                         "ended with status 99)", p.log()):
                bad.append(f"{p.name}: a worker crashed")
            if "Sanitizer" in p.log() or "runtime error:" in p.log():
                bad.append(f"{p.name}: a sanitizer complains")
        return bad


@pytest.fixture(scope="session")
def certs():
    directory = tempfile.mkdtemp(prefix="tunnel-certs.")
    yield support.Certs(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def authority(certs):
    """Whom the clients' certificates come from."""
    return support.Authority(certs.dir)


def open_room(certs):
    """A fixture's body; most want one for each test."""
    room = Room(certs)
    yield room
    bad = room.close()
    room.logs = room.read_logs()
    shutil.rmtree(room.dir)
    assert not bad, "; ".join(bad)


@pytest.fixture
def room(certs):
    yield from open_room(certs)


@pytest.fixture
def backend(room):
    return room.backend()


@pytest.fixture
def tunnel(room, backend):
    """Start one in front of the backend, which a file may have its own of."""
    return lambda *arguments: room.tunnel(f"connect={backend.address}",
                                          *arguments)


@pytest.fixture(params=["1.2", "1.3"])
def version(request):
    return request.param


@pytest.fixture
def ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as e:
        pytest.skip(f"no IPv6 on this machine: {e}")
