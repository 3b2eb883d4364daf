"""Includes and sizes: CONTRIBUTING.md, "Rules"."""

import glob
import os
import re

import pytest

from support import TOP

# From the bottom up: a room includes only rooms listed before it. "tls.h" is
# the interface of TLS for all others; tls.c implements it.
ROOMS = """
    util stream poller forward
    log memory net peer options tls.h
    tls_compat tls_internal tls_random tls_names tls_pem tls_cert tls_constraints tls_key tls_error
    tls_files tls_rules
    tls_verify tls_suites tls_psk tls_config tls_report tls_generate tls_ticket
    tls_store tls_session tls_resume tls_records tls_bio tls_kernel_keys tls_kernel tls
    repeats scoreboard control workers listener
    hints config config_role arguments files secret
    handover privileges sandbox daemon proxy command ktls_probe
    resolver relay
    generation generation_tls generation_names generation_report stats
    connection worker inetd dispatch carry upgrade master
    tunnel
""".split()
ENGINE = {"util", "stream", "poller", "forward"}

# Rooms whose exported names do not begin with the room's name.
NAMES = {
    "util": ("clock_", "text_", "be_", "close_", "heap_", "parse_number",
             "parse_hex",
             "accept_connection", "deliver_pending_signals"),
    "options": ("option",), "hints": ("hint_",), "listener": ("listeners_",),
    "command": ("command_", "commands_"), "daemon": ("daemon_", "signal"),
    "generation_tls": ("generation_",), "generation_report": ("generation_",),
    "generation_names": ("generation_",), "config_role": ("config_",),
    # It replaces a function of the library.
    "tls_random": ("tls_random_", "mbedtls_platform_entropy_poll(",
                   "mbedtls_platform_get_entropy("),
}


def sources():
    return sorted(os.path.relpath(path, TOP) for path in
                  glob.glob(os.path.join(TOP, "*.[ch]")) +
                  glob.glob(os.path.join(TOP, "lib", "*.[ch]")))


def read(name):
    with open(os.path.join(TOP, name)) as f:
        return f.read()


def code(name):
    return re.sub(r"/\*.*?\*/", "", read(name), flags=re.S)


def room(name):
    base = os.path.basename(name)
    return base if base == "tls.h" else base[:-2]


def included(name):
    found = re.findall(r'^#include "(.+)"$', read(name), re.M)
    return [other for other in map(room, found) if other != room(name) and
            not (name == "tls.c" and other == "tls.h")]


def library_sources():
    """Sources that become part of our own mbed TLS."""
    return sorted(os.path.relpath(path, TOP) for path in glob.glob(
        os.path.join(TOP, "mbedtls", "**", "*.[ch]"), recursive=True))


def test_all_rooms_are_known():
    assert {room(name) for name in sources()} == set(ROOMS)


def test_map_has_every_room():
    """The table in CONTRIBUTING.md; a line may list several rooms."""
    rooms = re.findall(r"^\| ((?:\w+, )*\w+) \|", read("CONTRIBUTING.md"), re.M)
    told = {name for line in rooms for name in line.split(", ")}
    assert {room(name) for name in sources() if name.startswith("lib/")
            and name.endswith(".c")} <= told


@pytest.mark.parametrize("name", sources())
def test_includes_only_rooms_below(name):
    below = ROOMS[:ROOMS.index(room(name))]
    assert [other for other in included(name) if other not in below] == []


@pytest.mark.parametrize("name", sources())
def test_knows_only_what_it_may(name):
    here, others = room(name), set(included(name))
    is_tls = here.startswith("tls") and here != "tls.h"
    assert "tunnel" not in others
    if not is_tls:
        assert not {other for other in others if other.startswith("tls_")}
        assert not re.search(r"\b(mbedtls|psa)_[a-z]", code(name))
    if here not in ("forward", "connection", "worker"):
        assert "forward" not in others
    if here == "forward":
        assert others <= {"poller", "stream", "util"}
    if is_tls or here in ENGINE or here == "tls.h":
        assert "log" not in others
        assert not re.search(r"\b(syslog|exit|_exit|fork)\(", code(name))


@pytest.mark.parametrize("name", [
    name for name in sources() if name.startswith("lib/") and
    name.endswith(".c")])
def test_exported_names_begin_with_the_room(name):
    here = room(name)
    begins = NAMES.get(here, ("tls_", "ktls_") if here.startswith("tls_")
                       else (here + "_", here + "("))
    exported = [(kind, function) for kind, function in re.findall(
        r"^(.*)\n([a-z]\w*\()[^;{]*\)\n\{$", read(name), re.M)
        if not kind.startswith("static")]
    assert exported or here in ("options", "tls_internal")
    assert [function for _, function in exported
            if not function.startswith(begins)] == []


@pytest.mark.parametrize("name", sources() + library_sources())
def test_size(name):
    lines = read(name).split("\n")
    assert [line for line in lines if len(line.expandtabs()) > 80] == []
    assert name == "forward.c" or len(lines) <= 700
    begins = 0
    for number, line in enumerate(lines, 1):
        if line == "{":
            begins = number
        elif line == "}" and begins:
            assert number - begins - 1 <= 60, f"{name}:{begins}"
            begins = 0
