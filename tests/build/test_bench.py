"""make bench measures all that it says, of all the servers that can be had."""

import json
import os
import shutil

import pytest

from support import TOP, run

OUT = "build/check"

pytestmark = pytest.mark.more


@pytest.mark.seconds(900)
def test_every_figure_is_obtained():
    """Roughly, and none is judged: how high they are is the machine's affair.
    A peer that can't be had is skipped, and said so in what is printed.
    """
    for program in ("openssl", "strip"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    print(run("make", "-C", TOP, "bench", "QUICK=1", f"O={OUT}",
              timeout=900).decode())
    out = os.path.join(TOP, OUT, "bench")
    with open(os.path.join(out, "results.json")) as f:
        results = json.load(f)
    missing = {s["name"]: s["missing"] for s in results["servers"]
               if s["missing"]}
    assert "tunnel" not in missing
    for figure in results["figures"]:
        wanted = {s["name"] for s in results["servers"] if not s["missing"]
                  and s["http" if figure["group"] == "http" else "streams"]}
        if figure["name"] == "inetd":  # most of them can't do that
            wanted &= {"tunnel", "stunnel"}
        if figure["name"].startswith("calls") and not results["counter"]:
            continue  # this machine lets nobody count them
        assert wanted <= set(figure["values"]), (
            figure["name"], results["notes"])
        assert all(value > 0 for value in figure["values"].values())
    for name in ("handshakes", "bulk", "latency", "memory"):
        with open(os.path.join(out, name + ".svg")) as f:
            assert "no figure" not in f.read()
