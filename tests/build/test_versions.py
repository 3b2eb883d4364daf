"""The versions of mbed TLS that are accepted at build time and at run time,
and the messages about them.
"""

import os
import re
import subprocess

import pytest

import support
from support import TOP, run

STOCK = os.path.join(TOP, "build", "mbedtls")
CVE = "CVE-2026-49300"

own_builds = pytest.mark.skipif(
    "TUNNEL_VARIANT" in os.environ or bool(support.UNDER),
    reason="makes its own builds")
with_stock = pytest.mark.skipif(
    not os.path.isdir(os.path.join(STOCK, "shared")),
    reason="no unmodified mbed TLS in build/mbedtls")


def is_old():
    """Whether Debian has only 3.6.6."""
    try:
        with open(os.path.join(STOCK, "include/mbedtls/build_info.h")) as f:
            return '_STRING         "3.6.6"' in f.read()
    except FileNotFoundError:
        return False


with_new_stock = pytest.mark.skipif(
    is_old(), reason="the mbed TLS in build/mbedtls is 3.6.6")


def make(*words):
    return subprocess.run(["make", "-s", "-C", TOP, *words], text=True,
                          capture_output=True, timeout=60 * support.SLOW)


@pytest.fixture
def prefix(tmp_path):
    """A prefix with an mbed TLS whose headers claim a release."""

    def call(release):
        number = "".join(f"{int(n):02X}" for n in release.split("."))
        headers = tmp_path / release / "include" / "mbedtls"
        headers.mkdir(parents=True)
        for name in os.listdir(os.path.join(STOCK, "include", "mbedtls")):
            os.symlink(os.path.join(STOCK, "include", "mbedtls", name),
                       headers / name)
        os.symlink(os.path.join(STOCK, "include", "psa"),
                   tmp_path / release / "include" / "psa")
        with open(headers / "build_info.h") as f:
            text = f.read()
        os.remove(headers / "build_info.h")
        (headers / "build_info.h").write_text(re.sub(
            r"(#define MBEDTLS_VERSION_NUMBER +)0x\w+", rf"\g<1>0x{number}00",
            text))
        return tmp_path / release

    return call


def refusal(p, begin):
    """The single line with which make refuses a library."""
    line, = [line for line in p.stderr.splitlines() if "***" not in line]
    assert p.returncode == 2 and line.startswith(f"make: MBEDTLS={begin}")
    return line


@own_builds
@with_stock
@pytest.mark.parametrize("release,allowed,said", [
    ("3.6.7", False, None),
    ("3.6.8", False, None),
    ("3.6.6", False, CVE),
    ("3.6.6", True, None),
    ("3.6.5", False, CVE),
    ("3.6.5", True, CVE),
    ("2.28.3", True, CVE),
    ("4.1.1", False, None),
    ("4.1.0", False, CVE),
    ("4.1.0", True, None),
    ("4.0.0", True, "random numbers repeat in child processes"),
    ("5.0.0", True, "newer than 4.x"),
])
def test_version_at_build_time(prefix, tmp_path, release, allowed, said):
    where = prefix(release)
    p = make(f"MBEDTLS={where}", f"O={tmp_path}/o", "mbedtls-is-fit",
             *(["ALLOW_OLD_MBEDTLS=1"] if allowed else []))
    if said is None:
        assert p.returncode == 0, p.stderr
        return
    line = refusal(p, f"{where}: this mbed TLS is ")
    assert said in line
    assert ("ALLOW_OLD_MBEDTLS=1" in line) == (release in ("3.6.6", "4.1.0"))


def configured(tmp_path, *without):
    """Arguments of make for a library configured without some features."""
    changes = tmp_path / "changes.h"
    changes.write_text("".join(f"#undef MBEDTLS_{x}\n" for x in without))
    return f'CPPFLAGS=-DMBEDTLS_USER_CONFIG_FILE="\\"{changes}\\""'


@own_builds
@with_stock
@pytest.mark.parametrize("without,said", [
    (["HAVE_TIME_DATE"], "expired certificates would be accepted"),
    (["SSL_PROTO_TLS1_2", "SSL_RENEGOTIATION", "KEY_EXCHANGE_RSA_ENABLED"],
     "lacks TLS 1.2 or TLS 1.3"),
    (["SSL_CLI_C"], "lacks a server or a client"),
    (["SSL_EXTENDED_MASTER_SECRET"], "would not be bound to their handshake"),
    (["SSL_SESSION_TICKETS", "SSL_TICKET_C"], "no session would be resumed"),
    (["SSL_TLS1_3_KEY_EXCHANGE_MODE_PSK_EPHEMERAL_ENABLED"],
     "no session would be resumed"),
    (["SSL_SERVER_NAME_INDICATION"], "would get the first certificate"),
    (["CHACHAPOLY_C", "CHACHA20_C", "POLY1305_C", "CCM_C", "ARIA_C",
      "CAMELLIA_C", "DES_C"], None),
])
def test_required_features(tmp_path, without, said):
    """Without one of them, the program would fail silently, or worse."""
    p = make(f"MBEDTLS={STOCK}", f"O={tmp_path}/o", "mbedtls-is-fit",
             "ALLOW_OLD_MBEDTLS=1", configured(tmp_path, *without))
    if said is None:
        assert p.returncode == 0, p.stderr
        return
    assert said in refusal(p, f"{STOCK}: this mbed TLS ")


@own_builds
@with_stock
def test_compiler_errors_come_first(tmp_path):
    """If the library's release is not the cause."""
    p = make(f"MBEDTLS={STOCK}", f"O={tmp_path}/o", "mbedtls-is-fit",
             "ALLOW_OLD_MBEDTLS=1", f"CPPFLAGS=-include {tmp_path}/mine.h")
    lines = p.stderr.splitlines()
    assert p.returncode == 2
    assert f"{tmp_path}/mine.h: No such file" in lines[0]
    assert "make: MBEDTLS=" in p.stderr and "see above" in p.stderr
    assert "mbed TLS was not found" not in p.stderr


@own_builds
def test_own_library_reports_missing_source(tmp_path):
    p = make(f"O={tmp_path}/o", f"LIBRARY_DIR={tmp_path}/lib",
             f"SOURCE={tmp_path}/none", f"TUNNEL={tmp_path}/tunnel")
    lines = [line for line in p.stderr.splitlines() if "***" not in line]
    assert p.returncode == 2
    assert len(lines) == 1
    for way in ('run "make deps"', "MBEDTLS=system", "MBEDTLS=/prefix"):
        assert way in lines[0]


@own_builds
def test_aws_lc_reports_missing_source(tmp_path):
    p = make("ACCEL=aws-lc", f"O={tmp_path}/o", f"LIBRARY_DIR={tmp_path}/lib",
             f"AWS_LC={tmp_path}/aws-lc", f"AWS_LC_SOURCE={tmp_path}/none",
             f"TUNNEL={tmp_path}/tunnel")
    lines = [line for line in p.stderr.splitlines() if "***" not in line]
    assert p.returncode == 2
    assert len(lines) == 1
    assert 'run "make ACCEL=aws-lc deps"' in lines[0]


@own_builds
@pytest.mark.parametrize("word", ["MUSL=1", "ACCEL=aws-lc"])
def test_conflicting_variables(tmp_path, word):
    p = make("MBEDTLS=system", word, f"O={tmp_path}/o")
    assert p.returncode == 2
    assert "MBEDTLS cannot be used with MUSL or ACCEL" in p.stderr


@own_builds
def test_own_library_is_built_once_per_source(tmp_path):
    """And rebuilt after "make deps" has fetched a newer one."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    library = out / "lib" / "libmbedtls.a"

    def build():
        p = make(f"LIBRARY_DIR={out}", f"SOURCE={source}", str(library),
                 f"build_library=mkdir -p {library.parent}; touch {library}; "
                 "echo built")
        assert p.returncode == 0, p.stderr
        return p.stdout

    assert build() == "built\n"
    assert build() == ""
    after = os.stat(library).st_mtime + 1
    os.utime(source, (after, after))
    assert build() == "built\n"


@pytest.fixture(scope="module")
def shared():
    """Builds with a shared library, and the environment that fakes its
    release.
    """
    out = os.path.join("build", "versions")
    libraries = os.path.join(STOCK, "shared")

    def call(release, *words):
        tunnel = os.path.join(out, "tunnel")
        run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={tunnel}",
            f"MBEDTLS={STOCK}", f"MBEDTLS_LDFLAGS=-L{libraries} "
            f"-Wl,-rpath,{libraries}", *words, timeout=60 * support.SLOW)
        number = "".join(f"{int(n):02x}" for n in release.split("."))
        source = os.path.join(TOP, out, "release.c")
        with open(source, "w") as f:
            f.write("unsigned int mbedtls_version_get_number(void);\n"
                    "unsigned int mbedtls_version_get_number(void)\n"
                    f"{{\n\treturn 0x{number}00;\n}}\n")
        run("cc", "-shared", "-fPIC", "-o", source[:-1] + "so", source)
        return subprocess.run(
            [os.path.join(TOP, tunnel), "-t", "accept=0", "connect=1"],
            env={**os.environ, "LD_PRELOAD": source[:-1] + "so"}, text=True,
            stderr=subprocess.PIPE, timeout=support.DEADLINE)

    return call


@own_builds
@with_stock
@with_new_stock
@pytest.mark.seconds(120)
def test_version_at_run_time(shared):
    """A shared library may differ from the one at build time."""
    missing = "missing: cert"
    assert missing in shared("3.6.7").stderr
    old = shared("3.6.6")
    assert old.returncode == 1
    assert old.stderr == ("tunnel: error: the mbed TLS library is older "
                          f"than 3.6.7, and open to {CVE}\n")
    allowed = "ALLOW_OLD_MBEDTLS=1"
    assert missing in shared("3.6.6", allowed).stderr
    assert "older than 3.6.6" in shared("3.6.5", allowed).stderr


@own_builds
@with_stock
@with_new_stock
@pytest.mark.seconds(120)
def test_library_without_a_version_function(tmp_path):
    """Without MBEDTLS_VERSION_C, there is no version to query at run time."""
    out = os.path.join("build", "untold")
    run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={out}/tunnel",
        f"MBEDTLS={STOCK}", configured(tmp_path, "VERSION_C",
                                       "VERSION_FEATURES"),
        timeout=60 * support.SLOW)
    binary = os.path.join(TOP, out, "tunnel")
    assert b"(built against Mbed TLS 3.6." in run(binary, "-V")
    assert b"mbedtls_version" not in run("nm", binary)


def test_first_log_line_has_the_version(room):
    version = run(support.TUNNEL, "-V").decode()
    found = re.match(
        r"tunnel (\S+) \((Mbed TLS 3\.6\.\d+(, patched(, AWS-LC [\d.]+)?)?), ",
        version)
    t = room.tunnel("connect=127.0.0.1:1")
    assert t.log().splitlines()[0] == (
        f"tunnel: tunnel {found.group(1)}, {found.group(2)}")
