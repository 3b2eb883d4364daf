"""The hardening requested from compiler and linker is present in the binary.
"""

import os
import re
import shutil

import pytest

import support
from support import run

VARIANT = os.environ.get("TUNNEL_VARIANT")

pytestmark = [
    pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                       reason="sanitizers replace the hardening"),
    pytest.mark.skipif(not shutil.which("readelf"),
                       reason="binutils is not installed"),
]


def read(*options):
    return run("readelf", "-W", *options, support.TUNNEL).decode()


def symbols():
    return set(re.findall(r"\b[TtUWw] ([\w.]+)",
                          run("nm", support.TUNNEL).decode()))


def functions(*names):
    """name -> disassembly"""
    text = run("objdump", "-d", "--no-show-raw-insn", support.TUNNEL,
               timeout=60).decode()
    found = dict(re.findall(r"^[0-9a-f]+ <([\w.]+)>:\n((?:.+\n)+)", text, re.M))
    return [found[name] for name in names]


@pytest.mark.skipif(VARIANT == "musl", reason="linked without PIE")
def test_position_independent():
    assert re.search(r"Type: +DYN", read("-h"))


def test_no_page_is_writable_and_executable():
    flags = re.findall(r"^  (\w+) .* ([R ][W ][E ]) 0x\w+$", read("-l"), re.M)
    assert ("GNU_STACK", "RW ") in flags
    assert all("W" not in f or "E" not in f for _, f in flags)


@pytest.mark.skipif(VARIANT == "musl", reason="no relocations")
def test_relocations_become_read_only():
    assert "GNU_RELRO" in read("-l")
    assert re.search(r"\(FLAGS_1\) .*\bNOW\b", read("-d"))


def test_stack_is_protected():
    assert any(name.startswith("__stack_chk_fail") for name in symbols())


@pytest.mark.skipif(VARIANT == "musl", reason="not in musl")
def test_fortified_functions():
    checked = {name for name in symbols() if name.startswith("__")
               and name.split("@")[0].endswith("_chk")}
    assert checked, "no fortified function"


@pytest.mark.skipif(os.uname().machine != "x86_64" or VARIANT == "musl",
                    reason="x86 only, and not in musl")
def test_indirect_branch_tracking():
    """In our code, and in our mbed TLS."""
    names = ["main", "tls_init"]
    if support.PATCHED:
        names.append("mbedtls_ssl_handshake")
    for body in functions(*names):
        assert body.splitlines()[0].split("\t")[1].strip() == "endbr64"


@pytest.mark.skipif(VARIANT == "clang" or not shutil.which("gcc"),
                    reason="clang does not record its flags")
def test_flags_without_a_trace_in_the_code():
    """gcc records its flags in the debug information."""
    wanted = {"-ftrivial-auto-var-init=zero", "-fstack-clash-protection",
              "-fno-strict-overflow", "-fno-delete-null-pointer-checks"}
    if os.uname().machine == "x86_64" and VARIANT != "musl":
        wanted.add("-fcf-protection=full")
    elif os.uname().machine == "aarch64":
        wanted.add("-mbranch-protection=standard")
    producers = re.findall(r"DW_AT_producer .*: (GNU C11 .*)",
                           read("--debug-dump=info"))
    assert len(producers) >= 3
    for producer in producers:
        assert wanted <= set(producer.split())
