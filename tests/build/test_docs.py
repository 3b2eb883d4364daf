"""The manual, the example and the table of options say the same."""

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


def manual_items():
    """Each key's text in tunnel.conf(5), from its .It to the next."""
    text = read("man", "tunnel.conf.5")
    parts = re.split(r"^\.It Ic ([a-z_]+) =.*$", text, flags=re.M)[1:]
    items = dict(zip(parts[::2], parts[1::2]))
    assert len(items) == len(parts) // 2, "a key has two items"
    return {key: re.split(r"^\.S[hs] ", body, flags=re.M)[0]
            for key, body in items.items()}


def plain(mdoc):
    """The words, without the markup."""
    text = re.sub(r"^\.\w\w +", "", mdoc, flags=re.M)
    return re.sub(r" (?=[.,;](?: |$))", "", " ".join(text.split()))


def manual_closings():
    """Key -> its default and what is allowed, by the end of its text."""
    found = {}
    for key, body in manual_items().items():
        end = re.search(r"\n\.Pp\nDefault:((?:\n| ).*?)\nAllowed:((?:\n| ).*?)"
                        r"\n(?:\.El\n)?$", body, re.S)
        assert end, f"{key} does not end with its default and limits"
        found[key] = [plain(part).removesuffix(".") for part in end.groups()]
    return found


def example():
    """The keys in the example: key -> its values."""
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


# The default of these is told in words.
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


def test_manual_tells_every_limit(certs):
    """Of each choice, number and time; the limits are tried."""
    closings = manual_closings()
    numbers, choices = 0, 0
    for key, (_, told) in closings.items():
        said = allowed_by_the_program(certs, key)
        if said is None:
            continue
        parts = re.fullmatch(r"(\d+\w?) to (\d+\w?)(?:, or (\w+))?", told)
        if parts is None:
            # "a, b or c", while the program has "a, b, c".
            assert re.split(", | or ", told) in (
                said.split(", "), said.split(", ")[::-1]), key
            choices += 1
            continue
        numbers += 1
        least, most, word = parts.groups()
        unit = "s" if least[-1] == "s" else ""
        if unit:
            least, most = seconds(least), seconds(most)
        # 1000000 connections may be more than the descriptors allow: a warning.
        for value, right in ((int(least) - 1, False), (int(least), True),
                             (int(most), True), (int(most) + 1, False)):
            more = ["max_connections=256"] if key == "workers" else []
            assert is_allowed(certs, f"{key}={value}{unit}", *more) == right, \
                f"{key} = {value}{unit}"
        assert ("or" in said.split() and said.split(",")[0] or None) == word
    assert numbers > 10 and choices > 10


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


# Key, what is told of it, and settings at that limit.
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


def test_manual_tells_the_mode_of_each_key(certs):
    """Each key that is for one mode only says so."""
    values = example()
    for key, body in manual_items().items():
        if key == "client":
            continue
        for mode, other in (("Server", "client=yes"), ("Client", "client=no")):
            told = f"\n{mode} mode only.\n" in body
            said = check(certs, f"{key}={values[key][0]}", other).stderr
            assert told == (f"{key} has no effect with client =" in said), key


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
    # A command is told in words of its own.
    assert key == "exec" or in_place(line + "\n") in out


def examples_of_the_manual():
    text = read("man", "tunnel.conf.5").split("\n.Sh EXAMPLES\n")[1]
    return re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", text,
                      re.M | re.S)


def skip_if_impossible(text):
    if text.startswith("client") and not re.search("^(ca|peer|psk) ", text,
                                                   re.M) and \
            not os.path.exists("/etc/ssl/certs/ca-certificates.crt"):
        pytest.skip("no authorities are installed")
    if re.search("^user ", text, re.M) and os.getuid() != 0:
        pytest.skip("only root can do that")


@pytest.mark.parametrize("text", examples_of_the_manual())
def test_example_of_the_manual_is_valid(room, in_place, text):
    skip_if_impossible(text)
    conf = room.write("tunnel.conf", in_place(text))
    out = run(support.TUNNEL, "-t", "-c", conf).decode()
    for line in in_place(text).splitlines():
        # A command is told in words of its own.
        assert line.startswith("exec ") or \
            re.sub(" += ", " = ", line) + "\n" in out


@pytest.mark.parametrize("text", examples_of_the_manual())
def test_example_of_the_manual_starts(room, in_place, text):
    """On a port of this machine that is free."""
    skip_if_impossible(text)
    text = re.sub(r"^(accept +=) (?!unix:).*$", r"\1 127.0.0.1:0",
                  in_place(text), flags=re.M)
    room.tunnel("-c", room.write("tunnel.conf", text)).stop()


def test_usage_is_that_of_the_manual():
    """The flags of tunnel(8) are those of -h."""
    out = run(support.TUNNEL, "-h").decode()
    flags = set(re.search(r"\[-([A-Za-z]+)\]", out).group(1)) | set("cgkopr")
    items = re.findall(r"^\.It Fl (\w)\b", read("man", "tunnel.8"), re.M)
    assert set(items) == flags
    assert len(items) == len(flags)


# What has notes on style as yet.
LEVELS = {"tunnel.8": "warning"}


@pytest.mark.parametrize("manual", MANUALS, ids=os.path.basename)
def test_mandoc_has_nothing_to_say(manual):
    """But of manuals of others, which need not be installed."""
    try:
        p = subprocess.run(["mandoc", "-Tlint", "-W", LEVELS.get(
            os.path.basename(manual), "style"), manual], capture_output=True,
            text=True)
    except FileNotFoundError:
        pytest.skip("mandoc is not installed")
    missing = "STYLE: referenced manual not found: Xr "
    said = [line for line in p.stdout.splitlines() if missing not in line]
    assert said == []
    for name, section in re.findall(r"^\.Xr (tunnel\S*) (\d)", read(manual),
                                    re.M):
        assert os.path.exists(os.path.join(TOP, "man", f"{name}.{section}"))


@pytest.mark.parametrize("manual", MANUALS, ids=os.path.basename)
def test_groff_has_nothing_to_say(manual):
    try:
        p = subprocess.run(["groff", "-ww", "-mandoc", "-Tutf8", manual],
                           capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("groff is not installed")
    assert (p.returncode, p.stderr) == (0, "")


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
