import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
pytest.register_assert_rewrite(
    "certificates", "chains", "crowds", "der", "documents", "hostile",
    "kernel_tls", "launchers", "mlkem", "peers", "privileged", "programs",
    "proxy", "reloads", "resuming", "rooms", "serving", "shared_keys", "shares",
    "support", "transfers", "upgrades", "verdicts", "wire")

import certificates  # noqa: E402
import launchers  # noqa: E402
import reloads  # noqa: E402
import rooms  # noqa: E402
import support  # noqa: E402

SECONDS = 30  # time limit of a test without its own mark


def untracked():
    """Files in the tree that are neither tracked nor ignored by git."""
    p = subprocess.run(["git", "status", "--porcelain", "--untracked-files"],
                       cwd=support.TOP, capture_output=True, text=True)
    return {line for line in p.stdout.splitlines() if line.startswith("??")}


def pytest_configure(config):
    config.addinivalue_line("markers", "seconds(n): the test's time limit")
    config.addinivalue_line("markers", "more: of another build; check-more")
    if not hasattr(config, "workerinput"):
        config.untracked = untracked()


def pytest_sessionfinish(session):
    """Fail if the tests left files in the tree."""
    left = untracked() - getattr(session.config, "untracked", untracked())
    if left:
        session.exitstatus = 1
        print("\nleft behind in the tree:", *sorted(left), sep="\n")


# Limit the run time of each test; show the process logs of failed tests.

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


@pytest.fixture(scope="session")
def certs():
    directory = tempfile.mkdtemp(prefix="tunnel-certs.")
    yield certificates.Certs(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def authority(certs):
    """The authority that issues client certificates."""
    return certificates.Authority(certs.dir)


@pytest.fixture
def room(certs):
    yield from rooms.open_room(certs)


@pytest.fixture
def backend(room):
    return room.backend()


@pytest.fixture
def echo(room):
    """A backend that echoes."""
    return room.backend().serve(support.echo)


@pytest.fixture
def lonely(room):
    """A backend without other callers, and a tunnel in front of it."""
    backend = room.backend()
    backend.sock.settimeout(0)

    def start(*arguments):
        return room.tunnel(f"connect={backend.address}", "accept_proxy=yes",
                           *arguments)

    yield start
    with pytest.raises(BlockingIOError):
        backend.accept()


@pytest.fixture
def tunnel(room, backend):
    """Start a tunnel in front of the backend, which a test file may override.
    """
    return lambda *arguments: room.tunnel(f"connect={backend.address}",
                                          *arguments)


@pytest.fixture
def configured(room, backend):
    """Start a tunnel from a configuration file."""

    def start(*arguments, **values):
        values.setdefault("connect", backend.address)
        return reloads.Configured(room, *arguments, **values)

    return start


@pytest.fixture
def inetd(room):
    for program in launchers.INETD:
        if os.path.exists(program):
            return launchers.Inetd(room, program)
    pytest.skip("no inetd: make deps check unpacks it in build/inetd")


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
