"""The manuals and tunnel -h agree; README and the charts match the bench."""

import os
import re
import shutil
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


def notes(*command):
    """Return what a program for manuals reports about one."""
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed")
    p = subprocess.run(command, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    # Other packages' manuals need not be installed.
    return [line for line in p.stdout.splitlines()
            if not re.search("manual not found|outdated mandoc.db", line)]


@pytest.mark.parametrize("manual", MANUALS)
def test_manual_is_clean(manual):
    path = os.path.join(TOP, "man", manual)
    assert notes("mandoc", "-Tlint", "-W", "style", path) == []
    assert notes("groff", "-ww", "-mandoc", "-Tutf8", "-z", path) == []


def test_readme_and_charts_match_the_measurements():
    run(os.path.join(TOP, "tests/bench/tell"), "--check")
