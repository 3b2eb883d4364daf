"""Other architectures: built by a cross compiler, run in an emulator."""

import os
import subprocess
import sys

import pytest

import support
from resuming import TICKETS, assert_shared
from support import TOP, files_of, run

# Names of compilers and emulators.
MACHINES = {"arm-linux-gnueabihf": "arm", "aarch64-linux-gnu": "aarch64",
            "mips-linux-gnu": "mips", "riscv64-linux-gnu": "riscv64"}
# 32-bit and 64-bit, little-endian and big-endian.
NATIVE = "this machine"
PAIRS = [("mips-linux-gnu", NATIVE), ("mips-linux-gnu", "arm-linux-gnueabihf"),
         ("mips-linux-gnu", "riscv64-linux-gnu"),
         ("arm-linux-gnueabihf", "aarch64-linux-gnu")]
# Each end of a stream with little data in transit; session resumption.
# Excluded: slow tests, and tests of socket errors, for which the emulator
# gives MIPS the error numbers of x86.
SCENARIOS = "(end_of_stream and not pending and not reported_to_a_writer " \
    "and not without_a_wait and not no_backend and " \
    "not reset_after_close_notify) or " \
    "(resumption and (restart or log_tells or without_tickets))"

pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(support.UNDER),
                       reason="makes its own builds"),
    pytest.mark.seconds(600),
]


def build(machine, accel=""):
    """The path of a script that runs the binary."""
    emulator = f"qemu-{MACHINES[machine]}"
    for program in emulator, f"{machine}-gcc":
        support.need(program)
    if accel and support.why_no_accel():
        pytest.skip(support.why_no_accel())
    out = f"build/{machine}{accel and '-' + accel}"
    run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={out}/tunnel",
        "STATIC=1",
        f"CC={machine}-gcc", *(["ACCEL=" + accel] if accel else []),
        timeout=480)
    binary = os.path.join(TOP, out, "tunnel")
    run(f"{machine}-strip", "-o", f"{binary}.stripped", binary)
    print(f"{out}: {os.path.getsize(binary + '.stripped')} bytes, stripped")
    script = os.path.join(TOP, out, "emulated")
    with open(script, "w") as f:
        f.write(f'#!/bin/sh\nexec {emulator} {binary} "$@"\n')
    os.chmod(script, 0o755)
    return script


@pytest.mark.parametrize("machine,accel", [
    *((machine, "") for machine in MACHINES), ("aarch64-linux-gnu", "aws-lc")])
def test_echo(room, monkeypatch, version, machine, accel):
    monkeypatch.setattr(support, "TUNNEL", build(machine, accel))
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    data = os.urandom(100000)
    client.send(data)
    client.close_notify()
    assert client.read_all() == (data, "close_notify")


@pytest.mark.parametrize("machine", MACHINES)
def test_scenarios(machine, capsys):
    environment = {**os.environ, "TUNNEL_VARIANT": machine, "TUNNEL_SLOW": "6",
                   "TUNNEL": build(machine)}
    p = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "-q", "--tb=short", "-p",
         "no:cacheprovider", "-k", SCENARIOS,
         *files_of(["end_of_stream", "resumption"])],
        cwd=TOP, env=environment, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, timeout=600)
    assert p.returncode == 0, p.stdout[-20000:]
    with capsys.disabled():
        print(f"\n{machine}: {p.stdout.splitlines()[-1]}")


@pytest.mark.skipif(not support.PATCHED, reason="not our own mbed TLS")
@pytest.mark.parametrize("ticket", TICKETS)
@pytest.mark.parametrize("one,other", PAIRS)
def test_ticket_is_valid_on_another_architecture(room, monkeypatch, certs, one,
                                                 other,
                                                 ticket):
    backend = room.backend().serve(support.echo)
    keys = room.write("keys", run(support.TUNNEL, "-k"))
    addresses = []
    for machine in one, other:
        with monkeypatch.context() as patch:
            if machine != NATIVE:
                patch.setattr(support, "TUNNEL", build(machine))
            addresses.append(room.tunnel(f"connect={backend.address}",
                                         f"ticket_keys={keys}").address)
    assert_shared(certs, ticket, *addresses)
