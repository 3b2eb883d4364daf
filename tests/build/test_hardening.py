"""The binary has the hardening requested of compiler and linker."""

import os
import re
import shutil

import pytest

import support
from support import run

VARIANT = os.environ.get("TUNNEL_VARIANT")

pytestmark = [
    pytest.mark.skipif(support.SANITIZED or bool(support.UNDER),
                       reason="sanitizers have checks of their own"),
    pytest.mark.skipif(not shutil.which("readelf"),
                       reason="binutils is not installed"),
]


def read(*options):
    return run("readelf", "-W", *options, support.TUNNEL).decode()


def symbols():
    return set(re.findall(r"\b[TtUWw] ([\w.]+)",
                          run("nm", support.TUNNEL).decode()))


def functions(*names):
    """name -> its instructions"""
    text = run("objdump", "-d", "--no-show-raw-insn", support.TUNNEL,
               timeout=60).decode()
    found = dict(re.findall(r"^[0-9a-f]+ <([\w.]+)>:\n((?:.+\n)+)", text, re.M))
    return [found[name] for name in names]


@pytest.mark.skipif(VARIANT == "musl", reason="it is linked without")
def test_it_can_be_anywhere():
    assert re.search(r"Type: +DYN", read("-h"))


def test_no_page_is_writable_and_executable():
    flags = re.findall(r"^  (\w+) .* ([R ][W ][E ]) 0x\w+$", read("-l"), re.M)
    assert ("GNU_STACK", "RW ") in flags
    assert all("W" not in f or "E" not in f for _, f in flags)


@pytest.mark.skipif(VARIANT == "musl", reason="it has no relocations")
def test_what_is_relocated_is_read_only_from_then_on():
    assert "GNU_RELRO" in read("-l")
    assert re.search(r"\(FLAGS_1\) .*\bNOW\b", read("-d"))


def test_stack_is_protected():
    assert any(name.startswith("__stack_chk_fail") for name in symbols())


@pytest.mark.skipif(VARIANT == "musl", reason="musl does not have them")
def test_known_sizes_are_checked():
    checked = {name for name in symbols() if name.startswith("__")
               and name.split("@")[0].endswith("_chk")}
    assert checked, "no function that checks sizes"


@pytest.mark.skipif(os.uname().machine != "x86_64" or VARIANT == "musl",
                    reason="of x86 alone, and musl does not have it")
def test_indirect_calls_go_where_functions_begin():
    """In our code, and in our own library."""
    names = ["main", "tls_init"]
    if support.PATCHED:
        names.append("mbedtls_ssl_handshake")
    for body in functions(*names):
        assert body.splitlines()[0].split("\t")[1].strip() == "endbr64"


@pytest.mark.skipif(VARIANT == "clang" or not shutil.which("gcc"),
                    reason="clang does not tell")
def test_flags_that_leave_no_name_behind():
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
