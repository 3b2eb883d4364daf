"""make demo, run as by a newcomer, and its pictures in README.md."""

import os
import re
import socket
import subprocess
import xml.etree.ElementTree as tree

import pytest

import support
from support import TOP

pytestmark = pytest.mark.skipif(
    support.TUNNEL != os.path.join(TOP, "tunnel"),
    reason="the demo is of ./tunnel")
PICTURES = ["demo", "check"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.seconds(120)
def test_demo():
    """Repeated runs without an error: the parts of the demo start
    concurrently.
    """
    for _ in range(4):
        p = subprocess.run(["tests/demo/demo"], cwd=TOP, capture_output=True,
                           text=True, timeout=30 * support.SLOW)
        assert (p.returncode, p.stderr) == (0, "")
        assert p.stdout.count("\nHello! The web server that sends this has no "
                              "TLS.\n") == 3
        assert re.search(r"^\S+ -> \S+ TLSv1.3 .* closed\n"
                         r"\S+ -> \S+ TLSv1.3 .* truncated$", p.stdout, re.M)
        assert re.search("^ConnectionResetError: .* Connection reset by peer$",
                         p.stdout, re.M)


@pytest.mark.parametrize("name", PICTURES)
def test_picture_shows_what_this_program_does(name):
    p = subprocess.run(["tests/demo/picture", "--check", name], cwd=TOP,
                       stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=60 * support.SLOW)
    assert (p.returncode, p.stdout, p.stderr) == (0, "", "")


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_small_and_described(name):
    path = os.path.join(TOP, "tests", "demo", name + ".svg")
    assert os.path.getsize(path) < 60 << 10
    top = tree.parse(path).getroot()
    assert top.get("role") == "img"
    for kind in "title", "desc":
        about = top.find(SVG + kind)
        assert about.text and about.get("id") in top.get("aria-labelledby")
    words = "\n".join("".join(text.itertext()) for text in top.iter(SVG + "text"))
    for ours in "/tmp/", TOP, socket.gethostname():
        assert not re.search(rf"(?<!\w){re.escape(ours)}(?!\w)", words)
