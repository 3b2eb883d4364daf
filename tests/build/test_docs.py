"""The manuals and tunnel -h agree; README and the charts match the bench."""

import os
import re
import subprocess

import pytest

import support
from config_keys import table
from documents import MANUALS, read
from support import TOP, run


def test_help_has_every_key_once_and_fits_a_screen():
    lines = run(support.TUNNEL, "-h").decode().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 80
    assert len(table()) == len(set(table())) > 40


def test_usage_matches_the_manual():
    """The flags in tunnel(8) are those in -h."""
    out = run(support.TUNNEL, "-h").decode()
    flags = set(re.search(r"\[-([A-Za-z]+)\]", out).group(1)) | set("cgkopr")
    items = re.findall(r"^\.It Fl (\w)\b", read("man", "tunnel.8"), re.M)
    assert set(items) == flags
    assert len(items) == len(flags)


@pytest.mark.parametrize("manual", MANUALS)
def test_mandoc_has_no_complaints(manual):
    try:
        p = subprocess.run(["mandoc", "-Tlint", "-W", "style",
                            os.path.join(TOP, "man", manual)],
                           capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mandoc is not installed")
    # Manuals of other packages may not be installed.
    notes = [line for line in p.stdout.splitlines()
             if "referenced manual not found" not in line]
    assert notes == []


def test_readme_and_charts_match_the_measurements():
    run(os.path.join(TOP, "tests/bench/tell"), "--check")
