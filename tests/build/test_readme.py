"""The README and the manuals of section 7: their links lead somewhere, and their
commands and figures are right.
"""

import json
import os
import re
import shlex
import subprocess

import pytest

import documents
import support
from config_keys import manual_items
from documents import MANUALS, read
from support import TOP, run


def test_every_manual_is_installed_and_linked():
    makefile, readme = read("Makefile"), read("README.md")
    for manual in MANUALS:
        assert f"man/{manual}" in readme
    assert "$(wildcard man/*.7)" in makefile


def references():
    """Manual -> the manuals of this tree that it refers to."""
    names = {name.rpartition(".")[0]: name for name in MANUALS}
    return {manual: {names[name] for name in re.findall(
        r"^\.Xr (\S+) \d", read("man", manual), re.M) if name in names}
        for manual in MANUALS}


def test_manuals_refer_to_each_other():
    """Each can be found from another one, and none refers to a missing one."""
    found = references()
    assert set().union(*found.values()) == set(MANUALS)
    for manual in MANUALS:
        ours = re.findall(r"^\.Xr (tunnel\S*) (\d)", read("man", manual), re.M)
        assert {f"{name}.{section}" for name, section in ours} <= set(MANUALS)


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= 250


def test_links_of_the_readmes_lead_somewhere():
    for path in "README.md", "tests/bench/README.md":
        text = read(path)
        titles = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
                  for title in re.findall(r"^#+ (.*)$", text, re.M)}
        for link in re.findall(r"\]\(([^)]+)\)", text):
            target, _, section = link.partition("#")
            if section:
                assert target == "" and section in titles, link
            elif ":" not in target:
                assert os.path.exists(os.path.join(
                    TOP, os.path.dirname(path), target)), link


SHELL = ("tunnel-build.7", "tunnel-certificates.7", "tunnel-cluster.7",
         "tunnel-services.7", "tunnel-stunnel.7", "tunnel-tls.7")


def commands():
    """Each command in the README and the manuals that starts a tunnel, on one
    line.
    """
    text = "".join(documents.blocks() + [
        display for page in SHELL for display in documents.displays(page)])
    found = re.findall(r"(?:^|'|\| )(tunnel (?:-[ct] ?|-q?i |-d )?.*?\w=[^'#|\n]*)",
                       text.replace("\\\n", ""), re.M)
    found = [re.sub(r" & sleep 1$| &$", "", x.strip()) for x in found]
    return dict.fromkeys(x for x in found if " -g " not in x)


@pytest.mark.parametrize("command", commands())
def test_command_is_valid(room, command):
    """With files and hosts that exist here."""
    certs = room.certs
    conf = room.write("tunnel.conf", "accept = 0\nconnect = 1\n"
                      f"cert = {certs.server}\n")
    room.write("tickets", run(support.TUNNEL, "-k"))
    room.write("psk", "app1:" + "0123456789abcdef" * 4 + "\n")
    os.chmod(room.path("psk"), 0o600)
    files = {"tunnel.pem": certs.server, "tickets": room.path("tickets"),
             "fullchain.pem": certs.path("server.crt"),
             "privkey.pem": certs.path("server.key"), "tunnel.conf": conf,
             "example.org.pem": certs.server, "example.net.pem": certs.rsa,
             "ca.pem": certs.ca, "cert.pem": certs.path("server.crt"),
             "psk": room.path("psk")}
    words = []
    for word in shlex.split(command)[1:]:
        key, equals, value = word.rpartition("=")
        value = files.get(os.path.basename(value), value)
        if key == "connect":
            value = re.sub(r"^\w+\.example\.org|^%h", "127.0.0.1", value)
        words.append(key + equals + value.replace("/run/tunnel", room.dir))
    if "ktls=require" in words:
        pytest.skip("requires kernel TLS")
    if "client=yes" in words and "psk=" not in command and \
            " ca=" not in command:
        words.append(f"ca={certs.ca}")
    run(support.TUNNEL, "-t", *words)


def test_manual_names_what_stunnel_has():
    """Each name in its list is a key here, or answered with one."""
    part = read("man", "tunnel-stunnel.7").split(".Sh FROM STUNNEL, KEY BY")[1]
    part = part.split("\n.Sh ")[0]
    rows = re.findall(r"^\.It Li (.*) No ", part, re.M)
    for lines in re.findall(r"(?:no equivalent of|can be left out:)\n"
                            r"((?:\.Li .*\n)+)", part):
        rows += re.findall(r"^\.Li (.*)$", lines, re.M)
    names = {name for row in rows for name in re.findall(r"\w+", row)}
    assert len(names) > 70
    for name in names - manual_items().keys():
        message = subprocess.run([support.TUNNEL, f"{name}=x"],
                                 capture_output=True, text=True).stderr
        assert f"stunnel's {name}" in message


def test_readme_tells_figures_of_the_bench():
    """In its sentences; its tables are generated."""
    results = json.loads(read("tests/bench/results-debian13.json"))
    peers = [s["name"] for s in results["servers"] if s["kind"] == "peer"]
    values = {f["name"]: f["values"] for f in results["figures"]}

    def best(figure):
        return min(v for n, v in values[figure].items() if n in peers)

    text = read("README.md").replace("\n", " ")
    idle, full = values["per_conn"], values["full1.3"]
    assert (f"An idle connection takes {idle['tunnel']:.2f} KB of memory; with "
            "the best of stunnel, hitch, haproxy and nginx, "
            f"{best('per_conn'):.1f} KB") in text
    assert (f"a full handshake takes {full['accel']:.0f} µs of CPU time; with "
            "the best of the four servers above, "
            f"{best('full1.3'):.0f} µs") in text
    assert ("The default build is small rather than fast, and takes "
            f"{full['tunnel']:.0f} µs") in text
    harnesses = re.search(r"^HARNESSES = ((?:.*\\\n)*.*)$",
                          read("tests/fuzz/Makefile"), re.M).group(1)
    count = len(harnesses.replace("\\", "").split())
    assert f"{count} fuzzing harnesses" in text
