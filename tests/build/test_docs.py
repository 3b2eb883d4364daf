"""Manual, example and option table agree."""

import os
import re
import subprocess

import pytest

import shared_keys
import support
from certificates import PASSWORD, Authority
from support import TOP, run

MANUALS = sorted(os.listdir(os.path.join(TOP, "man")))


def read(*path):
    with open(os.path.join(TOP, *path)) as f:
        return f.read()


def table():
    """The keys, in the groups of tunnel -h."""
    keys = run(support.TUNNEL, "-h").decode().split(" explains them:\n")[1]
    return re.findall(r"(?<= )[a-z_]+", re.sub("^ {,2}.{13}", "", keys,
                                               flags=re.M))


@pytest.fixture
def defaults(certs):
    """Key -> default, if any, as reported by tunnel -t."""
    out = run(support.TUNNEL, "-t", "accept=0", "connect=1",
              f"cert={certs.server}").decode().split("certificate ")[0]
    found = dict(re.findall(r"^(\w+) = (.*)$", out, re.M))
    assert found.keys() <= set(table())
    return {k: v for k, v in found.items()
            if k not in ("accept", "connect", "cert")}


def manual_items():
    """The text about each key in tunnel.conf(5), between .It macros."""
    text = read("man", "tunnel.conf.5")
    parts = re.split(r"^\.It Ic ([a-z_]+) =.*$", text, flags=re.M)[1:]
    items = dict(zip(parts[::2], parts[1::2]))
    assert len(items) == len(parts) // 2, "a key has more than one item"
    return {key: body.split("\n.Sh")[0] for key, body in items.items()}


def example():
    """The keys in the example, with their values."""
    found = {}
    for line in read("tunnel.conf.example").splitlines():
        match = re.fullmatch(r"#?([a-z_]+) = (.+)", line)
        if match:
            found.setdefault(match.group(1), []).append(match.group(2))
    return found


def test_help_has_every_key_once_and_fits_a_screen():
    lines = run(support.TUNNEL, "-h").decode().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) < 80
    assert len(table()) == len(set(table())) > 40


def test_manual_has_every_key_once():
    assert set(manual_items()) == set(table())


def test_manual_has_every_default(defaults):
    """In the form: The default is 10s."""
    for key, default in defaults.items():
        body = re.sub(r"^\.\w\w +", "", manual_items()[key], flags=re.M)
        body = re.sub(r"\\&|[\"\\]", "", body).replace("\n", " ")
        assert re.search(rf"[Dd]efault[^.]*\b{re.escape(default)}\b", body), \
            f"{key}: the default {default} is missing"


def test_example_has_every_key():
    assert set(example()) == set(table())


def test_example_shows_the_defaults(defaults):
    for key, default in defaults.items():
        assert example()[key] == [default], key


@pytest.fixture
def in_place(room, certs):
    """A text with the paths of existing files."""
    authority = Authority(room.dir)
    keys = run(support.TUNNEL, "-k").decode()
    files = {"tunnel.pem": certs.server, "www.pem": certs.server,
             "ecdsa-chain.pem": certs.path("server.crt"),
             "ecdsa-key.pem": certs.path("server.key"),
             "rsa-chain.pem": certs.path("rsa.crt"),
             "rsa-key.pem": certs.path("rsa.key"),
             "key.pem": certs.path("server.key"),
             "password": room.write("password", PASSWORD),
             "client.pem": certs.server,
             "servers.pem": certs.ca,
             "peers.pem": authority.crt,
             "clients.pem": authority.crt, "clients.crl": authority.crl(),
             "tickets": room.write("tickets", keys),
             "psk": shared_keys.write(room)}

    def call(text):
        text = re.sub(r"(?<== |t:)/etc/(?:tunnel/)?([\w.-]+)$",
                      lambda match: files[match.group(1)], text, flags=re.M)
        # These names do not resolve.
        text = re.sub(r"^(connect +=) \w+\.example\.org", r"\1 127.0.0.1",
                      text, flags=re.M)
        return text.replace("/var/empty", room.dir).replace(
            "/run/tunnel/", room.dir + "/")

    return call


def test_example_is_valid(room, in_place):
    text = in_place(read("tunnel.conf.example"))
    run(support.TUNNEL, "-t", "-c", room.write("tunnel.conf", text))


def example_lines():
    return re.findall(r"^#([a-z_]+ = .+)$", read("tunnel.conf.example"), re.M)


@pytest.mark.parametrize("line", example_lines())
def test_each_line_of_the_example_is_valid(room, in_place, line):
    """Uncommented alone, with the keys that it requires."""
    key = line.split(" = ")[0]
    if key in ("user", "group", "chroot") and os.getuid() != 0:
        pytest.skip("needs root")
    text = read("tunnel.conf.example").replace("#" + line, line)
    if key == "exec":
        text = text.replace("\nconnect =", "\n#connect =")
    if key in ("server_name", "psk_identity"):
        text = text.replace("#client = no", "client = yes")
    if key == "server_name":
        text = text.replace("#verify = none", "verify = none")
    if key == "psk_identity":
        text = text.replace("\ncert =", "\n#cert =")
    if key == "psk_identity" or "psk:" in line:
        text = text.replace("#psk =", "psk =")
    if key in ("ca", "crl", "peer"):
        text = text.replace("#verify = none", "verify = require")
        text = text.replace("#ca =", "ca =")
    conf = room.write("tunnel.conf", in_place(text))
    out = run(support.TUNNEL, "-t", "-c", conf).decode()
    # A command has its own syntax.
    assert key == "exec" or in_place(line + "\n") in out


def examples_of_the_manual():
    text = read("man", "tunnel.conf.5").split("\n.Sh EXAMPLES\n")[1]
    return re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", text,
                      re.M | re.S)


@pytest.mark.parametrize("text", examples_of_the_manual())
def test_example_of_the_manual_is_valid(room, in_place, text):
    if text.startswith("client") and not re.search("^ca ", text, re.M) and \
            not os.path.exists("/etc/ssl/certs/ca-certificates.crt"):
        pytest.skip("no authorities are installed")
    conf = room.write("tunnel.conf", in_place(text))
    out = run(support.TUNNEL, "-t", "-c", conf).decode()
    for line in in_place(text).splitlines():
        assert re.sub(" += ", " = ", line) + "\n" in out


def test_usage_matches_the_manual():
    """The flags in tunnel(8) are those in -h."""
    out = run(support.TUNNEL, "-h").decode()
    flags = set(re.search(r"\[-([A-Za-z]+)\]", out).group(1)) | set("cgkopr")
    items = re.findall(r"^\.It Fl (\w)\b", read("man", "tunnel.8"), re.M)
    assert set(items) == flags
    assert len(items) == len(flags)


# Not yet free of style notes.
ONLY_WARNINGS = ("tunnel.8", "tunnel.conf.5")


@pytest.mark.parametrize("manual", MANUALS)
def test_mandoc_has_no_complaints(manual):
    level = "warning" if manual in ONLY_WARNINGS else "style"
    try:
        p = subprocess.run(["mandoc", "-Tlint", "-W", level,
                            os.path.join(TOP, "man", manual)],
                           capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mandoc is not installed")
    # Manuals of other packages may not be installed.
    notes = [line for line in p.stdout.splitlines()
             if "referenced manual not found" not in line]
    assert notes == []


def test_readme_and_charts_match_the_measurements():
    run(os.path.join(TOP, "tests/bench/tell"), "--check")
