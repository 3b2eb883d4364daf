"""The headers of mbedtls/patches, and a source that a patch does not fit."""

import os
import re
import shutil
import subprocess

import pytest

from support import TESTS, TOP, run

SOURCE = os.path.join(TOP, "build", "mbedtls-source")
FOLDER = os.path.join(TOP, "mbedtls", "patches")
PATCHES = sorted(name for name in os.listdir(FOLDER)
                 if name.endswith(".patch"))


@pytest.mark.parametrize("name", PATCHES)
def test_patch_says_why(name):
    """The reason, the state upstream, and the tests that cover it."""
    with open(os.path.join(FOLDER, name)) as f:
        head = f.read().split("\n--- a/")[0]
    title, blank, *rest = head.splitlines()
    assert title and blank == "" and max(map(len, rest)) < 80
    assert re.search("^Upstream: ", head, re.M)
    tests = re.search(r"^Test: tests/(\w+/test_\w+\.py)(.*)", head,
                      re.M | re.S)
    assert tests
    with open(os.path.join(TESTS, tests.group(1))) as f:
        text = f.read()
    for test in re.findall(r"\btest_\w+\b(?!\.py)", tests.group(2)):
        assert f"def {test}(" in text


@pytest.mark.parametrize("name", PATCHES)
def test_patch_changes_only_sources(name):
    """No backup copies of patch(1), which other sources lack."""
    with open(os.path.join(FOLDER, name)) as f:
        text = f.read()
    files = re.findall(r"^--- (\S+)\n\+\+\+ (\S+)$", text, re.M)
    assert files and "\n+++ /dev/null" not in text
    for old, new in files:
        assert re.fullmatch(r"b/(include|library)/.+\.[ch]", new)
        assert old in ("a" + new[1:], "/dev/null")


def test_patch_does_not_fit(tmp_path):
    """The patch is named, and nothing is built."""
    if not os.path.isdir(SOURCE):
        pytest.skip("no source of mbed TLS in build/mbedtls-source")
    other = tmp_path / "other"
    for part in ("3rdparty", "framework", "include", "library", "scripts"):
        shutil.copytree(os.path.join(SOURCE, part), other / part)
    rsa = other / "library" / "rsa.c"
    rsa.write_text(rsa.read_text().replace("mbedtls_mpi_bitlen(&ctx->E)",
                                           "bits(&ctx->E)"))
    paths = [os.path.join(FOLDER, name) for name in PATCHES]
    p = subprocess.run(
        [os.path.join(TOP, "mbedtls", "build"), "library", other,
         tmp_path / "library"], capture_output=True, text=True,
        env={**os.environ, "PATCHES": " ".join(paths)})
    assert p.returncode == 1
    assert p.stderr.splitlines()[-1] == (
        f"mbedtls/build: {FOLDER}/10-rsa-exponent.patch does not fit the "
        f"source in {other}")
    assert os.listdir(tmp_path / "library") == []


def test_patches_fit_without_fuzz(tmp_path):
    """Applied in order."""
    if not os.path.isdir(SOURCE):
        pytest.skip("no source of mbed TLS in build/mbedtls-source")
    for part in ("include", "library"):
        shutil.copytree(os.path.join(SOURCE, part), tmp_path / part)
    for name in PATCHES:
        out = run("patch", "-p1", "-F0", "-d", tmp_path, "-i",
                  os.path.join(FOLDER, name))
        assert b"fuzz" not in out
