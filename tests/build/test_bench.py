"""make bench obtains all figures, for all available servers; make
bench-instructions, on small machines.
"""

import glob
import json
import os
import shutil

import pytest

from support import TOP, run

OUT = "build/check"
# Servers without this figure.
CAN_NOT = {"inetd": {"hitch", "haproxy", "nginx"}, "busier": {"stunnel"},
           "psk1.3": {"hitch", "haproxy", "nginx"},
           "psk1.2": {"hitch", "haproxy", "nginx"},
           **{f"client_{what}": {"hitch"} for what in (
               "full", "usual", "down", "up", "trip", "idle", "conn")}}
# Figures that may be 0: an idle server may use no CPU time, and a static one
# loads no library.
MAY_BE_NONE = ("crowd_rest", "libraries")

pytestmark = pytest.mark.more


def read(path):
    with open(path) as f:
        return json.load(f)


def read_text(directory, pattern):
    path, = glob.glob(os.path.join(directory, pattern))
    with open(path) as f:
        return f.read()


@pytest.mark.seconds(900)
def test_every_figure_is_obtained():
    """Approximate values, which are not judged: they depend on the machine.  A
    peer that is not available is skipped, and listed in the output.
    """
    for program in ("openssl", "strip"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    print(run("make", "-C", TOP, "bench", "QUICK=1", f"O={OUT}",
              timeout=900).decode())
    out = os.path.join(TOP, OUT, "bench")
    results, = map(read, glob.glob(os.path.join(out, "results-*.json")))
    missing = {s["name"]: s["missing"] for s in results["servers"]
               if s["missing"]}
    assert "tunnel" not in missing
    names = {figure["name"] for figure in results["figures"]}
    assert names >= {"full1.3", "resumed1.2", "rsa1.3", "rsa1.2", "up_chacha",
                     "trip", "busy_p99", "rush_time", "busier", "per_conn",
                     "crowd_open", "crowd_conn", "crowd_rest", "http_trip",
                     "psk1.3", "psk1.2", "client_full", "client_usual",
                     "client_down", "client_trip", "client_conn"}
    for figure in results["figures"]:
        wanted = {s["name"] for s in results["servers"] if not s["missing"]
                  and s["http" if figure["group"] == "http" else "streams"]}
        wanted -= CAN_NOT.get(figure["name"], set())
        if figure["name"] == "hybrid1.3":  # depends on the build
            wanted -= {"tunnel", "musl", "system"}
        if figure["name"].startswith("calls") and not results["counter"]:
            continue  # counting is not permitted on this machine
        assert wanted <= set(figure["values"]), (
            figure["name"], results["notes"])
        assert all(value > 0 or figure["name"] in MAY_BE_NONE
                   for value in figure["values"].values()), figure
    assert all(results["resumed"].values()), results["resumed"]
    text = read_text(out, "results-*.txt")
    for words in ("RSA-2048", "without TLS, µs", "server CPU, two ÷ one",
                  "at rest", "with a shared key ÷", "client's side"):
        assert words in text
    for name in ("handshakes", "bulk", "latency", "memory", "crowd"):
        assert "<rect" in read_text(out, name + ".svg")


@pytest.mark.seconds(600)
def test_shared_key_saves_instructions():
    """It saves those of a signature, on each emulated machine."""
    for program in ("openssl", "qemu-arm", "qemu-mips", "mips-linux-gnu-gcc",
                    "arm-linux-gnueabihf-gcc"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    print(run("make", "-C", TOP, "bench-instructions", "QUICK=1", f"O={OUT}",
              timeout=600).decode())
    found = read(os.path.join(TOP, OUT, "bench", "instructions.json"))
    assert set(found) == {"arm", "mips"}
    for machine, kinds in found.items():
        for version, with_one in kinds["certificate"].items():
            assert 1e6 < kinds["psk"][version] < 0.9 * with_one, machine
