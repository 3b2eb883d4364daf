"""make: install, uninstall, what it says without a fit library, and that the
usual variables are respected.
"""
import os
import subprocess

import pytest

pytestmark = pytest.mark.seconds(120)

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def make(*words):
    return subprocess.run(["make", "-C", TOP, "O=build/install",
                           "TUNNEL=build/install/tunnel", *words],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=120)


def files(top):
    return {os.path.relpath(os.path.join(d, f), top)
            for d, _, names in os.walk(top) for f in names}


def test_install_and_uninstall(tmp_path):
    where = (f"DESTDIR={tmp_path}", "PREFIX=/opt/tunnel")
    done = make("install", *where)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == {
        "opt/tunnel/sbin/tunnel",
        "opt/tunnel/share/man/man8/tunnel.8",
        "opt/tunnel/share/man/man5/tunnel.conf.5",
        "opt/tunnel/share/doc/tunnel/README.md",
        "opt/tunnel/share/doc/tunnel/SECURITY.md",
        "opt/tunnel/share/doc/tunnel/LICENSE",
        "opt/tunnel/share/doc/tunnel/tunnel.conf.example",
    }
    version = subprocess.run([tmp_path / "opt/tunnel/sbin/tunnel", "-V"],
                             stdout=subprocess.PIPE, text=True, timeout=10)
    assert version.returncode == 0
    assert version.stdout.startswith("tunnel ")
    assert make("uninstall", *where).returncode == 0
    assert files(tmp_path) == set()


def test_without_an_mbedtls_one_sentence_says_so(tmp_path):
    done = make(f"MBEDTLS={tmp_path}", f"O={tmp_path}/o",
                f"TUNNEL={tmp_path}/tunnel")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if "***" not in line]
    assert said == [f"make: MBEDTLS={tmp_path}: there is no mbed TLS; leave "
                    "MBEDTLS out to build our own"]
    assert not os.path.exists(tmp_path / "tunnel")


def test_the_usual_variables_are_respected(tmp_path):
    done = make("-n", "CC=cc -DSOME_CC", "CFLAGS=-O1 -DSOME_CFLAG",
                "CPPFLAGS=-DSOME_CPPFLAG", "LDFLAGS=-Lsome-ldflag",
                f"O={tmp_path}/o", f"TUNNEL={tmp_path}/tunnel")
    lines = done.stdout.splitlines()
    compiling = [line for line in lines if " -c " in line]
    linking = [line for line in lines if f"-o {tmp_path}/tunnel " in line]
    assert len(compiling) == 3 and len(linking) == 1
    for line in compiling:
        assert "-DSOME_CC " in line
        assert "-O1 -DSOME_CFLAG" in line
        assert "-DSOME_CPPFLAG" in line
    assert "-DSOME_CC " in linking[0]
    assert "-Lsome-ldflag" in linking[0]
