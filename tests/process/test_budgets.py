"""Budgets: a quick start, little memory, a small program."""

import os
import re
import shutil
import subprocess
import time

import pytest

import support
from support import run

by_default = pytest.mark.skipif(
    support.SANITIZED or bool(support.UNDER),
    reason="sanitizers and valgrind add time and memory")


@by_default
def test_serves_within_50_ms(room):
    """From exec(2) to the first connection; the best of several starts."""
    backend = room.backend()
    took = []
    for _ in range(7):
        path = room.path("socket")
        start = time.monotonic()
        t = room.tunnel(f"accept=unix:{path}", f"connect={backend.address}",
                        ready=False)
        while True:
            try:
                sock = support.connect("unix:" + path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() - start < support.DEADLINE
        took.append(time.monotonic() - start)
        sock.close()
        assert t.stop() == 0
    assert min(took) < 0.050, took


@pytest.fixture
def make(room):
    """Build a variant with these make variables, in its own directory."""

    def call(variant, *variables, timeout=120):
        out = os.path.join("build", variant)
        tunnel = os.path.join(out, "tunnel")
        run("make", "-s", "-C", support.TOP, f"O={out}", f"TUNNEL={tunnel}",
            *variables, timeout=timeout)
        return os.path.join(support.TOP, tunnel)

    return call


def idle(room, backend, field):
    """Memory of a process that has just started, in kB; the median of several.
    """
    kb = []
    for _ in range(9):
        t = room.tunnel(f"connect={backend.address}")
        with open(f"/proc/{t.pid}/status") as f:
            kb.append(int(re.search(rf"{field}:\s+(\d+) kB", f.read())[1]))
        assert t.stop() == 0
    return sorted(kb)[4]


@by_default
@pytest.mark.seconds(120)
def test_idle_process_is_below_2_5_mb(room, make, monkeypatch):
    """All memory, in a static build: with shared libraries, the system decides
    how many extra pages it loads.
    """
    monkeypatch.setattr(support, "TUNNEL", make("static", "STATIC=1"))
    assert idle(room, room.backend(), "VmRSS") < 2.5 * 1024


@by_default
def test_idle_process_has_half_a_megabyte_of_private_memory(room):
    assert idle(room, room.backend(), "RssAnon") < 512


@pytest.mark.seconds(120)
def test_program_is_small(room, make):
    """Stripped, and with a shared mbed TLS."""
    prefix = os.path.join(support.TOP, "build", "mbedtls")
    shared = os.path.join(prefix, "shared")
    if not os.path.isdir(shared):
        pytest.skip("no shared mbed TLS in build/mbedtls")
    built = make("dynamic", f"MBEDTLS={prefix}", "ALLOW_OLD_MBEDTLS=1",
                 f"MBEDTLS_LDFLAGS=-L{shared} -Wl,-rpath,{shared}")
    assert b"libmbedtls.so" in run("readelf", "-d", built)
    small = room.path("tunnel")
    run("strip", "-o", small, built)
    assert os.path.getsize(small) < 240 * 1024
    out = subprocess.run([small, "-V"], capture_output=True, text=True)
    assert out.stdout.startswith("tunnel ")


@pytest.mark.seconds(240)
def test_musl_is_small_and_needs_nothing(room, make):
    if not shutil.which("musl-gcc"):
        pytest.skip("musl-tools is not installed")
    built = make("musl", "MUSL=1", timeout=240)
    small = room.path("tunnel")
    run("strip", "-o", small, built)
    gcc = int(run("musl-gcc", "-dumpversion").split(b".")[0])
    # Newer compilers generate slightly larger programs.
    assert os.path.getsize(small) <= (520 if gcc < 13 else 524) * 1024
    assert b"INTERP" not in run("readelf", "-lW", built)
    assert b"no dynamic section" in run("readelf", "-d", built)
