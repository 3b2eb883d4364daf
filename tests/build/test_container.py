"""README's container, built and run as described, with the musl build."""

import os
import shutil
import ssl
import subprocess
import tempfile

import pytest

import support
from documents import blocks
from support import TOP, run, wait_for

# crun does not work where both versions of control groups are mounted.
RUNTIME = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]

pytestmark = [pytest.mark.more, pytest.mark.seconds(300)]


@pytest.fixture
def podman(tmp_path):
    for program in "podman", "runc":
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    # Its path can have 50 characters, which pytest's may exceed.
    short = tempfile.mkdtemp(prefix="podman-")
    words = ["podman", "--root", tmp_path / "images", "--runroot", short,
             "--tmpdir", tmp_path / "tmp", "--storage-driver", "vfs", *RUNTIME]

    def podman(*arguments):
        p = subprocess.run([*words, *arguments], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=120,
                           cwd=tmp_path / "image")
        assert p.returncode == 0, p.stdout
        return p.stdout

    (tmp_path / "image").mkdir()
    yield podman
    subprocess.run([*words, "rm", "-af", "-t", "1"], timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shutil.rmtree(short, ignore_errors=True)


def command(program, **places):
    """README's command that begins with this program, split into words."""
    text, = (c for c in blocks("A container")[0].replace("\\\n", "").split("\n")
             if c.startswith(program))
    words = text.partition("#")[0].split()[1:]
    for there, here in places.items():
        words = [word.replace(f"/etc/{there}:/", f"{here}:/", 1)
                 for word in words]
    return words


def test_container(room, podman, tmp_path):
    run("make", "-C", TOP, "-s", "MUSL=1", "O=build/musl",
        "TUNNEL=build/musl/tunnel", timeout=240)
    image = tmp_path / "image"
    shutil.copy(os.path.join(TOP, "build/musl/tunnel"), image)
    (image / "Dockerfile").write_text(blocks("A container", "dockerfile")[0])
    podman(*command("podman build"))

    etc = tmp_path / "etc"
    etc.mkdir()
    run(image / "tunnel", "-g", "localhost", "-o", etc / "cert.pem")
    backend = room.backend().serve(support.echo)
    address = support.free_port()
    (etc / "tunnel.conf").write_text(
        f"accept = {address}\nconnect = {backend.address}\n"
        "cert = /etc/tunnel/cert.pem\n")
    # Without podman's own limits, which not every root may set, and without a
    # journal.
    podman("run", "--ulimit", "nofile=256:256", "--ulimit", "nproc=256:256",
           "--log-driver", "k8s-file",
           *command("podman run", tunnel=etc)[1:])
    logs = command("podman logs")
    wait_for(lambda: "listening on" in podman(*logs), "the container")

    context = ssl.create_default_context(cafile=str(etc / "cert.pem"))
    with support.connect(address) as sock, context.wrap_socket(
            sock, server_hostname="localhost") as client:
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"
        podman(*command("podman kill"))
        wait_for(lambda: "reloaded" in podman(*logs), "the reload")
        client.sendall(b"again")
        assert client.recv(5) == b"again"
    podman("stop", "-t", "20", "tunnel")
    assert podman("inspect", "-f", "{{.State.ExitCode}}", "tunnel") == "0\n"
