"""The README, the manuals and tunnel -h say the same."""

import os
import re
import shlex
import subprocess

import pytest

import support
from config_keys import table
from support import TOP, run

MANUALS = [os.path.join(TOP, "man", name)
           for name in ("tunnel.8", "tunnel.conf.5", "tunnel-packages.7")]


def read(*path):
    with open(os.path.join(TOP, *path)) as f:
        return f.read()


def test_help_has_every_key_once_and_fits_a_screen():
    lines = run(support.TUNNEL, "-h").decode().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 80
    assert len(table()) == len(set(table())) > 40


def test_usage_is_that_of_the_manual():
    """The flags of tunnel(8) are those of -h."""
    out = run(support.TUNNEL, "-h").decode()
    flags = set(re.search(r"\[-([A-Za-z]+)\]", out).group(1)) | set("cgkopr")
    items = re.findall(r"^\.It Fl (\w)\b", read("man", "tunnel.8"), re.M)
    assert set(items) == flags
    assert len(items) == len(flags)


@pytest.mark.parametrize("manual", MANUALS, ids=os.path.basename)
def test_mandoc_has_nothing_to_say(manual):
    try:
        p = subprocess.run(["mandoc", "-Tlint", "-W", "warning", manual],
                           capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mandoc is not installed")
    assert (p.returncode, p.stdout) == (0, "")


def commands():
    """Those of the README that start one, as lines of their own."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", read("README.md"),
                              re.M | re.S)).replace("\\\n", "")
    found = re.findall(r"(?:^|')(tunnel (?:-[ct] ?|-i )?.*?\w=[^'#\n]*)", text,
                       re.M)
    return dict.fromkeys(x.strip() for x in found if " -g " not in x)


@pytest.mark.parametrize("command", commands())
def test_command_of_the_readme_is_valid(room, command):
    """With files, and hosts, that are there."""
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
        pytest.skip("it takes a kernel that has it")
    if "client=yes" in words and "psk=" not in command:
        words.append(f"ca={certs.ca}")
    run(support.TUNNEL, "-t", *words)


def test_readme_names_what_stunnel_has():
    """Each name in its table is a key here, or answered with what is."""
    part = read("README.md").split("## Coming from stunnel")[1]
    rows = re.findall(r"^\| (.*?) \|", part.split("\n## ")[0], re.M)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 40
    for name in names - set(table()):
        message = subprocess.run([support.TUNNEL, f"{name}=x"],
                                 capture_output=True, text=True).stderr
        assert f"stunnel's {name}" in message


def test_readme_and_charts_tell_what_was_measured():
    run(os.path.join(TOP, "tests/bench/tell"), "--check")
