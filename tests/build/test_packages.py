"""The recipes of tunnel-packages(7), unchanged: scripts run with stubs for
OpenWrt and OpenRC, commands with this machine's compiler.
"""

import glob
import os
import re
import shutil
import signal
import subprocess

import pytest

import support
from documents import MANUALS, plain
from support import TOP, need, run

with open(os.path.join(TOP, "man", "tunnel-packages.7")) as manual:
    TEXT = manual.read()
OPENWRT = os.path.join(TOP, "build", "mbedtls-openwrt")
SOURCE = os.path.join(TOP, "build", "mbedtls-source")
SCRIPTS = ["package/tunnel/files/tunnel.init", "tunnel/APKBUILD",
           "tunnel/tunnel.pre-install", "tunnel/tunnel.initd"]



def builds(test):
    """Marks for a test that makes its own build."""
    for mark in (pytest.mark.more, pytest.mark.seconds(300),
                 pytest.mark.skipif("TUNNEL_VARIANT" in os.environ,
                                    reason="makes its own builds")):
        test = mark(test)
    return test


def displays():
    """The text of each file, by name."""
    found = re.findall(r"^\.Pa (\S+) :\n\.Bd -literal\n(.*?)^\.Ed$", TEXT,
                       re.M | re.S)
    return {name: plain(text) for name, text in found}


@pytest.fixture
def files(tmp_path):
    """The files at their places."""
    for name, text in displays().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_all_files_are_present():
    assert {*SCRIPTS, "package/tunnel/Makefile"} == set(displays())


def test_files_are_rendered_whole():
    """A reader can copy them: they contain no tabs, which rendering would
    lose.
    """
    need("mandoc")
    seen = run("mandoc", "-Tascii", os.path.join(
        TOP, "man", "tunnel-packages.7")).decode()
    seen = "\n".join(line.strip() for line in re.sub(".\b", "", seen).split("\n"))
    for name, text in displays().items():
        assert "\t" not in text
        lines = "\n".join(line.strip() for line in text.split("\n"))
        assert lines in seen, name


def test_versions():
    with open(os.path.join(TOP, "Makefile")) as f:
        version = re.search(r"^VERSION\t= (\S+)$", f.read(), re.M).group(1)
    told = re.findall(r"tunnel-(\d[\d.]*\d)|pkgver=(\S+)|PKG_VERSION:=(\S+)",
                      TEXT)
    assert len(told) == 4
    assert {a or b or c for a, b, c in told} == {version}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_scripts(files, name):
    run("sh", "-n", files / name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_has_no_complaints(files, name):
    need("shellcheck")
    run("shellcheck", files / name)


@pytest.fixture
def configurations(room, tmp_path, echo):
    """A directory of configurations; calling it adds one."""
    where = tmp_path / "configurations"
    where.mkdir()

    def add(name, **values):
        values = {"accept": "127.0.0.1:0", "connect": echo.address,
                  "cert": room.certs.server, **values}
        (where / f"{name}.conf").write_text(
            "".join(f"{key} = {value}\n" for key, value in values.items()))
        return where / f"{name}.conf"

    add.where = where
    return add


def script(text, where, **variables):
    """Its output and exit status."""
    p = subprocess.run(
        ["sh", "-c", text], text=True, capture_output=True,
        env={**os.environ, "TUNNEL": support.TUNNEL,
             "CONFIGURATIONS": str(where), **variables},
        timeout=support.DEADLINE)
    return p.stdout, p.returncode


def assert_serves(room, command):
    assert command[0] == support.TUNNEL
    t = room.tunnel(*command[1:])
    client = room.client(t)
    client.send(b"hello")
    client.close_notify()
    assert client.read_all() == (b"hello", "close_notify")
    return t


PROCD = """
procd_open_instance() { echo "instance $1"; }
procd_set_param() { echo "$*"; }
procd_close_instance() { echo close; }
procd_send_signal() { echo "signal $*"; }
procd_add_raw_trigger() { echo "trigger $*"; }
"""


def test_procd_starts_valid_instances(room, files, configurations):
    init = files / "package/tunnel/files/tunnel.init"
    assert script(f"{PROCD} . {init}; start_service",
                  configurations.where) == ("", 0)
    tunnel = configurations("tunnel")
    configurations("wrong", connect="nowhere")
    imaps = configurations("imaps")
    said, _ = script(f"{PROCD} . {init}; start_service", configurations.where)
    assert re.findall("^instance (.*)$", said, re.M) == ["imaps", "tunnel"]
    assert said.count("\nclose\n") == 2 and said.count("\nrespawn\n") == 2
    commands = re.findall("^command (.*)$", said, re.M)
    assert commands == [f"{support.TUNNEL} -c {imaps}",
                        f"{support.TUNNEL} -c {tunnel}"]
    assert_serves(room, commands[0].split())


def test_procd_reloads_valid_instances(files, configurations):
    init = files / "package/tunnel/files/tunnel.init"
    configurations("tunnel")
    assert script(f"{PROCD} . {init}; reload_service",
                  configurations.where) == ("signal tunnel * HUP\n", 0)
    assert script(f"{PROCD} . {init}; service_triggers", configurations.where
                  )[0].endswith(" /etc/init.d/tunnel reload\n")
    configurations("wrong", connect="nowhere")
    said, status = script(f"{PROCD} . {init}; reload_service",
                          configurations.where)
    assert (said, status) == ("", 1)


OPENRC = """
ebegin() { :; }
eend() { return "$1"; }
supervise_daemon() { echo "$*"; }
alias supervise-daemon=supervise_daemon
"""


@pytest.mark.parametrize("service,conf", [("tunnel", "tunnel"),
                                          ("tunnel.imaps", "imaps")])
def test_openrc(room, files, configurations, service, conf):
    initd = files / "tunnel/tunnel.initd"
    path = configurations(conf)

    def call(what):
        return script(f"{OPENRC} RC_SVCNAME={service}\n. {initd}\n{what}",
                      configurations.where)

    assert call("start_pre")[1] == 0
    said, _ = call('echo "$command $command_args"')
    assert said == f"{support.TUNNEL} -c {path}\n"
    t = assert_serves(room, said.split())
    assert call("reload") == (f"{service} --signal HUP\n", 0)
    t.signal(signal.SIGHUP)
    t.wait_log(r"\breloaded$")
    configurations(conf, connect="nowhere")
    assert call("start_pre")[1] == 2
    assert call("reload") == ("", 1)


@pytest.fixture
def archive(tmp_path):
    """The source archive from a clone, made as the page says, unpacked."""
    need("git")
    if not os.path.exists(os.path.join(TOP, ".git")):
        pytest.skip("not a clone")
    command, = re.findall("^git archive .*$", TEXT, re.M)
    clone = tmp_path / "clone"
    run("git", "clone", "-q", "--shared", TOP, clone, timeout=60)
    run("sh", "-c", command, cwd=clone, timeout=60)
    packed, = glob.glob(str(clone / "*.tar.gz"))
    where = tmp_path / "unpacked"
    where.mkdir()
    run("tar", "-xzf", packed, "-C", where, timeout=60)
    return where


# The relevant parts of OpenWrt's include/.
RULES = """
INCLUDE_DIR = $(TOPDIR)
INSTALL_DIR = install -d -m0755
INSTALL_BIN = install -m0755
INSTALL_DATA = install -m0644
PKG_JOBS = -j2
TARGET_CC = gcc
TARGET_CFLAGS = -Os -pipe -fno-caller-saves \\
  -Wno-error=unused-but-set-variable -fstack-protector -D_FORTIFY_SOURCE=1
TARGET_CPPFLAGS = -I$(STAGING_DIR)/usr/include
TARGET_LDFLAGS = -L$(STAGING_DIR)/usr/lib -znow -zrelro -Wl,--gc-sections
"""
BUILD_PACKAGE = """
define BuildPackage
compile:
\t$$(call Build/Compile)
install:
\t$$(call Package/$(1)/install,$$(ROOT))
endef
"""


def assert_is_package(root, more):
    found = {os.path.relpath(os.path.join(d, name), root)
             for d, _, names in os.walk(root) for name in names}
    assert found == {"usr/sbin/tunnel", "etc/init.d/tunnel",
                     "etc/tunnel/tunnel.conf.example", *more}
    assert os.access(root / "etc/init.d/tunnel", os.X_OK)


@builds
def test_openwrt_package(files, archive):
    if not os.path.isdir(OPENWRT):
        pytest.skip("no mbed TLS in build/mbedtls-openwrt")
    top, usr = files / "openwrt", files / "staging" / "usr"
    top.mkdir()
    usr.mkdir(parents=True)
    (top / "rules.mk").write_text(RULES)
    (top / "package.mk").write_text(BUILD_PACKAGE)
    os.symlink(os.path.join(OPENWRT, "include"), usr / "include")
    os.symlink(os.path.join(OPENWRT, "shared"), usr / "lib")
    source, = archive.iterdir()
    assert source.name == "tunnel-0.1.0"
    root = files / "root"
    run("make", "-C", files / "package/tunnel", f"TOPDIR={top}",
        f"STAGING_DIR={files}/staging", f"PKG_BUILD_DIR={source}",
        f"ROOT={root}", "compile", "install", timeout=240)
    assert_is_package(root, [])
    said = run(root / "usr/sbin/tunnel", "-V", env={
        **os.environ, "LD_LIBRARY_PATH": f"{usr}/lib"}).decode()
    assert "built against Mbed TLS 3.6." in said


@builds
def test_alpine_package(files, archive):
    if not os.path.isdir(SOURCE):
        pytest.skip("no source of mbed TLS in build/mbedtls-source")
    source, = archive.iterdir()
    apkbuild = files / "tunnel/APKBUILD"
    release = re.search("^_mbedtls=(.*)$", apkbuild.read_text(), re.M).group(1)
    os.symlink(SOURCE, archive / f"mbedtls-{release}")
    shutil.copy(files / "tunnel/tunnel.initd", archive)
    root = files / "root"
    run("sh", "-euc", f". {apkbuild}; build; check; package", cwd=source,
        env={**os.environ, "srcdir": str(archive), "pkgdir": str(root)},
        timeout=280)
    assert_is_package(root, [
        *(f"usr/share/man/man{page[-1]}/{page}" for page in MANUALS),
        *(f"usr/share/doc/tunnel/{name}" for name in
          ("README.md", "SECURITY.md", "LICENSE", "tunnel.conf.example"))])
    assert b", patched" in run(root / "usr/sbin/tunnel", "-V")
