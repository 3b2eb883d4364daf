"""The representation of results, shared by the tables and the charts."""

import json
import re

NAMES = {"default": "default suite", "aes128": "AES-128-GCM",
         "chacha": "ChaCha20-Poly1305"}
# How each tunnel is built.
BUILDS = {"tunnel": "make", "musl": "MUSL=1", "accel": "ACCEL=aws-lc",
          "system": "MBEDTLS=system"}

# Names used by QEMU.
MACHINES = {"arm": "32-bit ARM", "mips": "MIPS32"}


def read(path):
    with open(path) as f:
        return json.load(f)


def number(value):
    """Three significant digits; all digits from a thousand on."""
    if value is None:
        return "-"
    if not value:
        return "0"
    if value >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def title_of(figure, with_unit=True):
    words = figure["title"]
    for short, name in NAMES.items():
        words = words.replace(" " + short, ", " + name)
    unit = figure["unit"] if with_unit else ""
    return f"{words}, {unit}" if unit else words


def rows_of(results, group):
    return [f for f in results["figures"] if f["group"] == group]


def values_of(results, figure):
    for f in results["figures"]:
        if f["name"] == figure:
            return f["values"]
    return {}


def value_of(results, figure, server):
    return values_of(results, figure).get(server)


def names_of(results, kind, is_http=False):
    """The servers of a table, without the missing ones."""
    return [s["name"] for s in results["servers"]
            if s["kind"] == kind and not s["missing"] and
            s["http" if is_http else "streams"]]


def best(values, peers):
    """The peer with the lowest value, and the value."""
    found = [(values[p], p) for p in peers if p in values]
    return min(found) if found else (None, None)


def system_of(results):
    """Debian 12"""
    return re.sub(r"GNU/Linux | \(.*", "", results["machine"]["system"])


def instruction_table(found):
    """A Markdown table of instructions.json."""
    yield "| instructions, millions | certificate | shared key | ÷ |"
    yield "|---|---|---|---|"
    for machine, kinds in found.items():
        for version in kinds["certificate"]:
            with_one, without = (kinds[kind][version] / 1e6
                                 for kind in ("certificate", "psk"))
            yield (f"| {MACHINES.get(machine, machine)}, TLS {version} | "
                   f"{number(with_one)} | {number(without)} | "
                   f"{without / with_one:.2f} |")
