"""For machines of other kinds: built by a cross compiler, run in an emulator."""

import os
import shutil

import pytest

import support
from support import TOP, run

# The compiler's name, and the emulator's.
MACHINES = {"arm-linux-gnueabihf": "arm", "aarch64-linux-gnu": "aarch64",
            "mips-linux-gnu": "mips"}

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(support.UNDER),
                       reason="it makes its own variants"),
    pytest.mark.seconds(300),
]


@pytest.mark.parametrize("machine,accel", [
    *((machine, "") for machine in MACHINES), ("aarch64-linux-gnu", "aws-lc")])
def test_echo(room, monkeypatch, version, machine, accel):
    emulator = f"qemu-{MACHINES[machine]}"
    for program in emulator, f"{machine}-gcc":
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    if accel and support.why_no_accel():
        pytest.skip(support.why_no_accel())
    out = f"build/{machine}{accel and '-' + accel}"
    run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={out}/tunnel", "STATIC=1",
        f"CC={machine}-gcc", *(["ACCEL=" + accel] if accel else []),
        timeout=240)
    binary = os.path.join(TOP, out, "tunnel")
    stripped = room.path("stripped")
    run(f"{machine}-strip", "-o", stripped, binary)
    print(f"{out}: {os.path.getsize(stripped)} bytes, stripped")

    monkeypatch.setattr(support, "UNDER", [emulator])
    monkeypatch.setattr(support, "TUNNEL", binary)
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    data = os.urandom(100000)
    client.send(data)
    client.close_notify()
    assert client.read_all() == (data, "close_notify")
