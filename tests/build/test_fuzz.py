"""The harnesses of tests/fuzz: earlier findings stay fixed, and a few seconds
find nothing new.
"""

import os
import re
import shutil
import subprocess

import pytest

from support import TESTS, TOP, UNDER, run

FUZZ = os.path.join(TESTS, "fuzz")
HARNESSES = sorted(
    name[:-2] for name in os.listdir(FUZZ)
    if name.endswith(".c") and name not in ("fuzz.c", "seeds.c"))
SECONDS = 12  # per harness; two run at a time
LIMIT = 1500  # for all harnesses, including builds, on a busy machine


def why_not():
    """Why fuzzing is impossible here; None if it is possible."""
    if not os.path.isdir(os.path.join(TOP, "build", "mbedtls-source")):
        return "there is no source of mbed TLS in build/mbedtls-source"
    if not shutil.which("clang"):
        return "clang is not installed"
    p = subprocess.run(
        ["clang", "-fsanitize=address,undefined,fuzzer", "-x", "c", "-",
         "-o", "/dev/null"], capture_output=True, text=True,
        input="int LLVMFuzzerTestOneInput(void) { return 0; }")
    return None if p.returncode == 0 else "libclang-rt-dev is not installed"


pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(UNDER),
                       reason="makes its own builds"),
    pytest.mark.skipif(bool(why_not()), reason=str(why_not())),
]


@pytest.mark.seconds(LIMIT)
def test_nothing_is_found():
    said = run("make", "-C", TOP, "-j2", "--output-sync", "fuzz",
               f"SECONDS={SECONDS}", timeout=LIMIT).decode()
    runs = dict(re.findall(r"^(\w+): (\d+) runs, and nothing was found$",
                           said, re.MULTILINE))
    assert sorted(runs) == HARNESSES, said
    # At least the initial corpus has run.
    assert all(int(n) > 10 for n in runs.values()), runs


def test_findings_are_reported(tmp_path):
    harness = tmp_path / "broken"
    harness.write_text("#!/bin/sh\necho it is broken; exit 77\n")
    harness.chmod(0o755)
    (tmp_path / "seeds").mkdir()
    out = run("make", "-C", TOP, "-f", "tests/fuzz/Makefile", f"B={tmp_path}",
              "HARNESSES=broken", "-o", harness, "-o", tmp_path / "seeds",
              status=2).decode()
    assert "it is broken" in out
    assert f'{tmp_path}/broken.log says why, and "{harness} FILE" does' in out


def test_an_unknown_harness_is_refused():
    out = run("make", "-C", TOP, "fuzz", "FUZZ=names no", status=2).decode()
    assert "no harness no (allowed: address clientcert" in out
