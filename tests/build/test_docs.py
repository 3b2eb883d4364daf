"""Manual, example and option table agree."""

import os
import re
import shlex
import subprocess

import pytest

import shared_keys
import support
from certificates import PASSWORD, Authority
from support import TOP, run

MANUALS = [os.path.join(TOP, "man", name)
           for name in ("tunnel.8", "tunnel.conf.5", "tunnel-packages.7")]


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


@pytest.mark.parametrize("manual", MANUALS, ids=os.path.basename)
def test_mandoc_has_no_complaints(manual):
    try:
        p = subprocess.run(["mandoc", "-Tlint", "-W", "warning", manual],
                           capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mandoc is not installed")
    assert (p.returncode, p.stdout) == (0, "")


def commands():
    """README's commands that start a tunnel, one per line."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```$", read("README.md"),
                              re.M | re.S)).replace("\\\n", "")
    found = re.findall(r"(?:^|')(tunnel (?:-[ct] ?|-i )?.*?\w=[^'#\n]*)", text,
                       re.M)
    return dict.fromkeys(x.strip() for x in found if " -g " not in x)


@pytest.mark.parametrize("command", commands())
def test_command_of_the_readme_is_valid(room, command):
    """With existing files and hosts."""
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
        pytest.skip("this kernel lacks kernel TLS")
    if "client=yes" in words and "psk=" not in command:
        words.append(f"ca={certs.ca}")
    run(support.TUNNEL, "-t", *words)


def test_readme_names_stunnel_options():
    """Each name in its table is a key, or is answered with the equivalent."""
    part = read("README.md").split("## Coming from stunnel")[1]
    rows = re.findall(r"^\| (.*?) \|", part.split("\n## ")[0], re.M)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 40
    for name in names - set(table()):
        message = subprocess.run([support.TUNNEL, f"{name}=x"],
                                 capture_output=True, text=True).stderr
        assert f"stunnel's {name}" in message


def test_readme_and_charts_match_the_measurements():
    run(os.path.join(TOP, "tests/bench/tell"), "--check")
