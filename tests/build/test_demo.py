"""make demo, as seen by new users."""

import os
import re
import subprocess

import pytest

import support
from support import TOP

pytestmark = pytest.mark.skipif(
    support.TUNNEL != os.path.join(TOP, "tunnel"),
    reason="the demo is of ./tunnel")


@pytest.mark.seconds(120)
def test_demo():
    """It never fails, although its parts start at the same time."""
    for _ in range(4):
        p = subprocess.run(["tests/demo"], cwd=TOP, capture_output=True,
                           text=True, timeout=30 * support.SLOW)
        assert (p.returncode, p.stderr) == (0, "")
        assert re.search(r"^fetched through each +hello.txt: \d+ bytes, the "
                         "same as served$", p.stdout, re.M)
        assert re.search(r"^and the client's .* "
                         r'server="CN=localhost" .* closed$', p.stdout, re.M)
