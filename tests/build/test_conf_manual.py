"""tunnel.conf(5) and the example tell what the program does: every key, its
default and its limits, and configurations that start.
"""

import os
import re
import subprocess

import pytest

import shared_keys
import support
from certificates import PASSWORD, Authority
from config_keys import example, manual_closings, manual_items, table
from documents import displays, read
from support import TOP, run

MANUAL = os.path.join(TOP, "man", "tunnel.conf.5")


def check(certs, *words):
    """What tunnel -t says of these settings, beside those that it needs."""
    given = {word.split("=")[0] for word in words}
    needed = {"accept": "0", "connect": "1", "cert": certs.server}
    if "exec" in given:
        del needed["connect"]
    return subprocess.run(
        [support.TUNNEL, "-t", *words, *(f"{key}={value}" for key, value
                                         in needed.items()
                                         if key not in given)],
        capture_output=True, text=True, timeout=support.DEADLINE)


def is_allowed(certs, *words):
    p = check(certs, *words)
    assert p.returncode in (0, 2), p.stderr
    return p.returncode == 0


def settings(text):
    found = dict(re.findall(r"^(\w+) = (.*)$", text.split("certificate ")[0],
                            re.M))
    assert found.keys() <= set(table())
    return {key: value for key, value in found.items()
            if key not in ("accept", "connect", "cert")}


@pytest.fixture
def defaults(certs):
    """Key -> default, for those that have one, as tunnel -t tells them."""
    return settings(check(certs).stdout)


@pytest.fixture
def defaults_as_client(certs):
    found = settings(check(certs, "client=yes", f"ca={certs.ca}").stdout)
    return {key: value for key, value in found.items()
            if key not in ("client", "ca")}


def test_manual_has_every_key_once():
    assert set(manual_items()) == set(table())


# The manual describes these defaults in words.
IN_WORDS = {"server_name", "key", "psk_identity", "ciphers", "groups", "user",
            "group"}


def test_manual_tells_every_default(defaults, defaults_as_client):
    for key, (default, _) in manual_closings().items():
        here, *others = default.split("; ")
        if key not in IN_WORDS:
            assert here == defaults.get(key, "none"), key
        there = defaults_as_client.get(key, here)
        if there not in (here, *IN_WORDS):
            assert f"in client mode {there}" in others, key


def test_manual_tells_the_default_lists(certs):
    """As tunnel -t shows what it makes of none."""
    shown = re.findall(r"^#\t(\S+)$", check(certs).stdout, re.M)
    suites = [x for x in shown if x.startswith("TLS_")]
    items = manual_items()
    told = re.findall(r"^\.It\n\.Cm (TLS_\w+)$", items["ciphers"], re.M)
    assert set(told) == set(suites)
    groups = [x for x in shown if x not in suites]
    told = manual_closings()["groups"][0]
    assert told == ("x25519,secp256r1,secp384r1, with x25519mlkem768 before "
                    "these and secp521r1 after them if the build has them")
    assert [x for x in groups if x not in ("x25519mlkem768", "secp521r1")] == \
        ["x25519", "secp256r1", "secp384r1"]


def allowed_by_the_program(certs, key):
    """What it says is allowed, when a value is not: "off, or 1 to 9"."""
    found = re.search(rf'{key} = "!" is not valid \(allowed: ([^;)]*)',
                      check(certs, f"{key}=!").stderr)
    return found.group(1) if found else None


def seconds(text):
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[text[-1]]


def check_choices(told, said):
    """ "a, b or c" is "a, b, c" to the program, in this order or the other. """
    words = re.split(", | or ", told)
    assert words in (said.split(", "), said.split(", ")[::-1])


def check_range(certs, key, parts, said):
    least, most, word = parts
    assert said.endswith(f"{least} to {most}")
    unit = "s" if least[-1] == "s" else ""
    least, most = (seconds(x) if unit else int(x) for x in (least, most))
    more = ["max_connections=256"] if key == "workers" else []
    for value, right in ((least - 1, False), (least, True), (most, True),
                         (most + 1, False)):
        assert is_allowed(certs, f"{key}={value}{unit}", *more) == right, value
    # "off, or 1 to 9", or without the word.
    assert said.rpartition(", or ")[0] == (word or "")


# These may be any text, or are refused for another reason.
TEXTS = IN_WORDS | {
    "accept", "connect", "exec", "cert", "key_password_file", "ca", "crl",
    "peer", "psk", "alpn", "ticket_keys", "chroot", "log", "stats_file",
    "pidfile"}


@pytest.mark.parametrize("key", manual_items())
def test_manual_tells_every_limit(certs, key):
    """Of each choice, number and time; the limits are tried."""
    told, said = manual_closings()[key][1], allowed_by_the_program(certs, key)
    parts = re.fullmatch(r"(\d+\w?) to (\d+\w?)(?:, or (\w+))?", told)
    assert (said is None) == (key in TEXTS)
    if parts is not None:
        check_range(certs, key, parts.groups(), said)
    elif said is not None:
        check_choices(told, said)


def file_of(room, size, begin=b""):
    """Blank lines behind what it begins with; its path."""
    path = room.write("sized", begin + b"\n" * (size - len(begin)))
    os.chmod(path, 0o600)
    return path


def of_file(room, path):
    with open(path, "rb") as f:
        return f.read()


def keys(room, n=1, identity="x", digits=64):
    path = room.write("keys", "".join(f"{i}{identity}:{'0' * digits}\n"[
        (n == 1):] for i in range(n)))
    os.chmod(path, 0o600)
    return [f"psk={path}"]


def tickets(room, n):
    path = room.write("tickets", ("0" * 64 + "\n") * n)
    os.chmod(path, 0o600)
    return [f"ticket_keys={path}"]


def sized(key, content):
    """A probe with a file of 1 MB or, for 2, of one byte more."""

    def call(room, n):
        path = file_of(room, (1 << 20) + n - 1, content(room))
        more = [f"ca={room.certs.ca}"] if key == "crl" else []
        more += ["verify=require"] if key in ("ca", "crl") else []
        return [f"{key}={path}", *more]

    return call


# Key, the text of its limit, and settings at that limit.
LIMITS = {
    "port": ("accept", r"port of 0 to (\d+)", lambda room, n: [
        f"accept={n}"]),
    "socket": ("accept", r"path of up to (\d+) bytes", lambda room, n: [
        "accept=unix:/" + (n - 1) * "x"]),
    "backend's port": ("connect", r"port of 1 to (\d+)", lambda room, n: [
        f"connect={n}"]),
    "backend's socket": ("connect", r"path of up to (\d+) bytes",
                         lambda room, n: ["connect=unix:/" + (n - 1) * "x"]),
    "command": ("exec", r"up to (\d+) words", lambda room, n: [
        "exec=/bin/echo" + (n - 1) * " x"]),
    "suites": ("ciphers", r"up to (\d+) suites", lambda room, n: [
        "ciphers=" + n * "TLS_AES_128_GCM_SHA256 ", "tls_min=1.3"]),
    "groups": ("groups", r"up to (\d+) groups", lambda room, n: [
        "groups=" + n * "secp256r1 "]),
    "protocols": ("alpn", r"up to (\d+) protocols", lambda room, n: [
        "alpn=" + n * "x "]),
    "protocol": ("alpn", r"up to (\d+) bytes", lambda room, n: [
        "alpn=" + n * "x"]),
    "keys": ("psk", r"1 to (\d+) keys", lambda room, n: keys(room, n)),
    "identity": ("psk", r"1 to (\d+) characters", lambda room, n: keys(
        room, identity=n * "x")),
    "ticket keys": ("ticket_keys", r"1 to (\d+) keys", tickets),
    "certificate": ("cert", r"up to (\d+) MB", sized(
        "cert", lambda room: of_file(room, room.certs.server))),
    "authorities": ("ca", r"up to (\d+) MB", sized(
        "ca", lambda room: of_file(room, room.certs.ca))),
    "lists": ("crl", r"up to (\d+) MB", sized(
        "crl", lambda room: of_file(room, Authority(room.dir).crl()))),
    "file of keys": ("psk", r"up to (\d+) MB", sized(
        "psk", lambda room: b"x:" + b"0" * 64 + b"\n")),
    "file of ticket keys": ("ticket_keys", r"up to (\d+) MB", sized(
        "ticket_keys", lambda room: b"0" * 64 + b"\n")),
}


@pytest.mark.parametrize("what", LIMITS)
def test_manual_tells_the_limits_of_texts(room, what):
    key, pattern, settings_at = LIMITS[what]
    most = int(re.search(pattern, manual_closings()[key][1]).group(1))
    assert is_allowed(room.certs, *settings_at(room, most))
    assert not is_allowed(room.certs, *settings_at(room, most + 1))


def test_manual_tells_the_length_of_shared_keys(room):
    told = manual_closings()["psk"][1]
    least, most, *in_bytes = map(int, re.search(
        r"keys of (\d+) to (\d+) hexadecimal digits \((\d+) to (\d+) bytes\)",
        told).groups())
    assert [2 * n for n in in_bytes] == [least, most]
    for digits, right in ((least - 2, False), (least, True),
                          (most + 2, False)):
        assert is_allowed(room.certs, *keys(room, digits=digits)) == right
    # A library may take less than we do.
    p = check(room.certs, *keys(room, digits=most))
    assert p.returncode == 0 or "this mbed TLS takes up to" in p.stderr


def test_manual_tells_how_many_sockets(room):
    told = manual_closings()["accept"][1]
    most = int(re.search(r"up to (\d+) listening sockets", told).group(1))
    words = ["accept=127.0.0.1:0"] * most
    t = room.tunnel("connect=1", *words[1:])
    t.stop()
    p = subprocess.run([support.TUNNEL, "connect=1", *words, words[0],
                        f"cert={room.certs.server}"], capture_output=True,
                       text=True, timeout=support.DEADLINE)
    assert p.returncode == 2 and f"{most} in all" in p.stderr


@pytest.mark.parametrize("key", [key for key in manual_items()
                                 if key != "client"])
def test_manual_tells_the_mode_of_a_key(certs, key):
    """One that is for one mode only says so."""
    body, value = manual_items()[key], example()[key][0]
    for mode, other in (("Server", "client=yes"), ("Client", "client=no")):
        told = f"\n{mode} mode only.\n" in body
        said = check(certs, f"{key}={value}", other).stderr
        assert told == (f"{key} has no effect with client =" in said)


def test_manual_refers_to_sections_that_exist():
    """Of tunnel(8), or of its own."""
    there = read("man", "tunnel.8")
    text = read("man", "tunnel.conf.5")
    names = re.findall(r'^\.Sx "?(.*?)"?(?: [.,;])?$', text, re.M)
    assert len(names) > 5
    for name in names:
        assert re.search(rf"^\.S[hs] {re.escape(name)}$", there + text, re.M), \
            name


def test_example_has_every_key():
    assert set(example()) == set(table())


def test_example_has_the_order_of_the_manual():
    """Behind the three that are needed."""
    needed = ["accept", "connect", "cert"]
    order = [key for key in manual_items() if key not in needed]
    assert list(example()) == needed + order


def test_example_shows_the_defaults(defaults):
    for key, default in defaults.items():
        assert example()[key] == [default], key


@pytest.fixture
def in_place(room, certs):
    """A text, with files that there are in place of those that it names."""
    authority = Authority(room.dir)
    keys = run(support.TUNNEL, "-k").decode()
    files = {"tunnel.pem": certs.server, "www.pem": certs.server,
             "smtp.example.org.pem": certs.server,
             "smtp.example.net.pem": certs.rsa,
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
        # Nobody here knows these.
        text = re.sub(r"^(connect +=) \w+\.example\.org", r"\1 127.0.0.1",
                      text, flags=re.M)
        return text.replace("/var/empty", room.dir).replace(
            "/run/tunnel/", room.dir + "/")

    return call


def test_example_is_valid(room, in_place):
    text = in_place(read("tunnel.conf.example"))
    run(support.TUNNEL, "-t", "-c", room.write("tunnel.conf", text))


def lines_of_the_example():
    return re.findall(r"^#([a-z_]+ = .+)$", read("tunnel.conf.example"), re.M)


@pytest.mark.parametrize("line", lines_of_the_example())
def test_each_line_of_the_example_is_valid(room, in_place, line):
    """Put into effect alone, with what it takes."""
    key = line.split(" = ")[0]
    if key in ("user", "group", "chroot") and os.getuid() != 0:
        pytest.skip("only root can do that")
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
    # -t shows a command in its own form.
    assert key == "exec" or in_place(line + "\n") in out


def skip_if_impossible(text):
    if text.startswith("client") and not re.search("^(ca|peer|psk) ", text,
                                                   re.M) and \
            not os.path.exists("/etc/ssl/certs/ca-certificates.crt"):
        pytest.skip("no authorities are installed")
    if re.search("^user ", text, re.M) and os.getuid() != 0:
        pytest.skip("only root can do that")


@pytest.mark.parametrize("text", displays("tunnel.conf.5", "EXAMPLES"))
def test_example_of_the_manual_is_valid(room, in_place, text):
    skip_if_impossible(text)
    conf = room.write("tunnel.conf", in_place(text))
    out = run(support.TUNNEL, "-t", "-c", conf).decode()
    for line in in_place(text).splitlines():
        # -t shows a command in its own form.
        assert line.startswith("exec ") or \
            re.sub(" += ", " = ", line) + "\n" in out


@pytest.mark.parametrize("text", displays("tunnel.conf.5", "EXAMPLES"))
def test_example_of_the_manual_starts(room, in_place, text):
    """On a port of this machine that is free."""
    skip_if_impossible(text)
    text = re.sub(r"^(accept +=) (?!unix:).*$", r"\1 127.0.0.1:0",
                  in_place(text), flags=re.M)
    room.tunnel("-c", room.write("tunnel.conf", text)).stop()
