"""make: install, uninstall, messages without a suitable library, and the usual
variables.
"""
import os
import re
import shutil
import subprocess

import pytest

from documents import MANUALS
from support import TOP

pytestmark = pytest.mark.seconds(120)


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
        *(f"opt/tunnel/share/man/man7/{page}" for page in MANUALS
          if page.endswith(".7")),
        "opt/tunnel/share/doc/tunnel/README.md",
        "opt/tunnel/share/doc/tunnel/SECURITY.md",
        "opt/tunnel/share/doc/tunnel/LICENSE",
        "opt/tunnel/share/doc/tunnel/tunnel.conf.example",
        "opt/tunnel/lib/systemd/system/tunnel.service",
        "opt/tunnel/lib/systemd/system/tunnel@.service",
        "opt/tunnel/lib/sysusers.d/tunnel.conf",
        "etc/tunnel/tunnel.conf.example",
    }
    version = subprocess.run([tmp_path / "opt/tunnel/sbin/tunnel", "-V"],
                             stdout=subprocess.PIPE, text=True, timeout=10)
    assert version.returncode == 0
    assert version.stdout.startswith("tunnel ")
    assert make("uninstall", *where).returncode == 0
    assert files(tmp_path) == set()
    assert not (tmp_path / "etc/tunnel").exists()


def test_install_keeps_user_files(tmp_path):
    where = f"DESTDIR={tmp_path}"
    mine = [tmp_path / "etc/tunnel" / name
            for name in ("tunnel.conf", "imaps.conf")]
    mine[0].parent.mkdir(parents=True)
    for path in mine:
        path.write_text("mine")
    assert make("install", where).returncode == 0
    assert make("uninstall", where).returncode == 0
    assert files(tmp_path) == {"etc/tunnel/tunnel.conf",
                               "etc/tunnel/imaps.conf"}
    assert {path.read_text() for path in mine} == {"mine"}


def test_example_of_a_package_is_left_alone(tmp_path):
    """/etc/tunnel is shared with a package, whose program is in /usr."""
    where = f"DESTDIR={tmp_path}"
    assert make("install", where, "PREFIX=/usr").returncode == 0
    packaged = files(tmp_path)
    example = tmp_path / "etc/tunnel/tunnel.conf.example"
    example.write_text("of another version")
    assert make("install", where).returncode == 0
    assert example.read_text() == "of another version"
    assert make("uninstall", where).returncode == 0
    assert files(tmp_path) == packaged
    assert make("uninstall", where, "PREFIX=/usr").returncode == 0
    assert files(tmp_path) == set()


def commands_of(path):
    return re.findall(r"^Exec\w+=(.*)$", path.read_text(), re.M)


def test_units_run_the_installed_program(tmp_path):
    """With the configuration file of the instance."""
    units = tmp_path / "units"
    assert make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/tunnel",
                "SYSCONFDIR=/opt/etc", "SYSTEMDDIR=/units").returncode == 0
    for name, conf in ("tunnel", "tunnel"), ("tunnel@", "%i"):
        use = f"-c /opt/etc/tunnel/{conf}.conf"
        assert commands_of(units / f"{name}.service") == [
            f"/opt/tunnel/sbin/tunnel {use}",
            f"/opt/tunnel/sbin/tunnel -tq {use}", "/bin/kill -HUP $MAINPID"]


def test_user_for_the_workers(tmp_path):
    """systemd-sysusers creates the user that README names."""
    if not shutil.which("systemd-sysusers"):
        pytest.skip("systemd-sysusers is not installed")
    assert make("install", f"DESTDIR={tmp_path}", "PREFIX=/usr"
                ).returncode == 0
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}"], check=True,
                   timeout=30, capture_output=True)
    user = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert user[0] == "tunnel" and user[2] != "0"
    assert user[6] == "/usr/sbin/nologin"


def test_message_without_mbedtls(tmp_path):
    done = make(f"MBEDTLS={tmp_path}", f"O={tmp_path}/o",
                f"TUNNEL={tmp_path}/tunnel")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if "***" not in line]
    assert said == [f"make: MBEDTLS={tmp_path}: mbed TLS was not found; leave "
                    "MBEDTLS out to build the bundled one"]
    assert not os.path.exists(tmp_path / "tunnel")


def test_the_usual_variables_are_respected(tmp_path):
    done = make("-n", "CC=cc -DSOME_CC", "CFLAGS=-O1 -DSOME_CFLAG",
                "CPPFLAGS=-DSOME_CPPFLAG", "LDFLAGS=-Lsome-ldflag",
                f"O={tmp_path}/o", f"TUNNEL={tmp_path}/tunnel")
    lines = done.stdout.splitlines()
    compiling = [line for line in lines if " -c " in line]
    linking = [line for line in lines if f"-o {tmp_path}/tunnel " in line]
    sources = make("-s", "sources").stdout.split()
    assert len(compiling) == len(sources) and len(linking) == 1
    for line in compiling:
        assert "-DSOME_CC " in line
        assert "-O1 -DSOME_CFLAG" in line
        assert "-DSOME_CPPFLAG" in line
    assert "-DSOME_CC " in linking[0]
    assert "-Lsome-ldflag" in linking[0]
