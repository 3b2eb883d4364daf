"""The first part of the tests on Debian 13, in a system with only the packages
that "make deps check" installs.
"""

import os
import re
import subprocess

import pytest

from support import TESTS, UNDER

SECONDS = 2400

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(UNDER),
                       reason="makes its own build"),
    pytest.mark.seconds(SECONDS),
]


def test_first_part(capsys):
    p = subprocess.run(
        [os.path.join(TESTS, "debian13")], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, timeout=SECONDS, errors="replace",
        env={**os.environ, "PYTEST_ADDOPTS": "-rs --color=no --tb=short"})
    lines = p.stdout.splitlines()
    if p.returncode == 77:
        pytest.skip(lines[-1])
    assert p.returncode == 0, p.stdout[-20000:]
    # The skipped tests and the number of passed ones.
    told = [line for line in lines if line.startswith("SKIPPED ")]
    told += [line for line in lines if re.match(r"\d+ passed", line)]
    assert told, p.stdout[-20000:]
    with capsys.disabled():
        print("\nDebian 13:", *told, sep="\n  ")
