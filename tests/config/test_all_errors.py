"""One run reports all errors of a configuration, each once, without errors
that only follow from others.
"""

import os
import re
import signal
import socket
import subprocess

import pytest

import support

START, TEST, RELOAD = "start", "-t", "reload"


def tunnel(*arguments):
    return subprocess.run(
        [*support.UNDER, support.TUNNEL, *arguments], capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=support.DEADLINE)


def complaints(p, status=2):
    assert p.returncode == status, p
    assert p.stdout == ""
    lines = p.stderr.splitlines()
    assert all(x.startswith("tunnel: error: ") for x in lines), lines
    return [x[len("tunnel: error: "):] for x in lines]


@pytest.fixture
def check(room):
    """The error messages for a file, without its directory; {cert} is a
    certificate.
    """

    def call(text, *arguments, status=2):
        text = text.replace("{cert}", room.certs.server)
        path = room.write("tunnel.conf", text)
        said = complaints(tunnel("-t", "-c", path, *arguments), status)
        return [x.replace(room.dir + "/", "") for x in said]

    return call


GOOD = "accept = 127.0.0.1:0\nconnect = 1\ncert = {cert}\n"


def places(said):
    return [re.match(r"tunnel\.conf:\d+|command line|missing", x).group()
            for x in said]


# One error of each kind per line.
MANY = """accept = 99999
accept = 127.0.0.1
connect = 0
cert = /no/cert.pem
idle_timeout = 5
conect = 2
tls_min = 1.1
groups = prime256v1
alpn = h2 # no
user = nobody-of-that-name
pidfile = /nowhere/pid
log = /nowhere/log
"""
LINES = list(range(1, 13))


@pytest.mark.parametrize("how", [START, TEST, RELOAD])
def test_all_at_once(room, how):
    """At the start, with -t, and in the log at a reload."""
    good = (f"accept = 127.0.0.1:0\nconnect = 1\n"
            f"cert = {room.certs.server}\n")
    path = room.write("tunnel.conf", good if how == RELOAD else MANY)
    if how == RELOAD:
        t = room.tunnel("-c", path)
        room.write("tunnel.conf", MANY)
        t.signal(signal.SIGHUP)
        t.wait_log("reload failed, keeping the running configuration")
        said = t.log()
        assert t.alive()
    else:
        p = tunnel(*[TEST] * (how == TEST), "-c", path)
        assert (p.returncode, p.stdout) == (2, "")
        said = p.stderr
    found = [int(n) for n in re.findall(r"error: \S*tunnel\.conf:(\d+): ",
                                        said)]
    if os.getuid() != 0:
        found = [n for i, n in enumerate(found) if n not in found[:i]]
    assert sorted(found) == LINES, said


def test_command_line_and_file(check):
    said = check(GOOD + "tls_max = 1.1\n", "mode=x", "junk=1",
                 "idle_timeout=7")
    assert places(said) == ["command line"] * 3 + ["tunnel.conf:4"]


def test_missing_keys(check):
    assert places(check("log_level = info\n")) == ["missing"] * 3


@pytest.mark.parametrize("line,follows", [
    # The wrong line, and the key that would be reported as missing.
    ("conect = 1", "connect ="), ("connect", "connect ="),
    ("connect: 1", "connect ="), ("connect =", "connect ="),
    ("CERT = x.pem", "cert ="), ("cert = a # b", "cert ="),
    ("accept", "accept ="), ("acept = 1", "accept ="),
    ("exec = " + "x " * 100, "connect ="),
])
def test_wrong_key_is_not_missing(check, line, follows):
    said = check(GOOD.replace([x for x in GOOD.splitlines() if x.startswith(
        follows)][0] + "\n", "") + line + "\n")
    assert places(said) == ["tunnel.conf:3"], said


@pytest.mark.parametrize("lines", [
    ["verify = 2", "ca = {ca}"], ["verify = requir", "peer = pin:sha256/x"],
    ["verify = require", "ca = /no/ca.pem"],
    ["verify = require", "ca = /no/ca.pem", "crl = {ca}.crl"],
    ["verify = require", "CAfile = /no/ca.pem", "peer = dns:a.example"],
    ["verify = require", "verifyPeer = yes"],
    ["verify = require", "peer = dns:"],
    ["verify = require", "ca"],
    ["tls_min = 1.9", "tls_max = 1.2"], ["tls_max = 1,2", "tls_min = 1.3"],
    ["workers = many", "max_connections = 1"],
    ["max_connections = 0", "workers = 2"],
    ["ciphers = AES128-SHA"], ["key = /no/key.pem"],
    ["cert = /no/cert.pem"], ["key_password_file = /no/password"],
    ["peer = dns:a.example"], ["crl = {ca}.crl"],
    ["ticket_keys = /no/tickets"], ["ticket_keys = /etc"],
    # Consequences of the role, if the role is known.
    ["client = maybe", "ca = {ca}", "peer = dns:a.example"],
    ["client = maybe", "server_name = a.example"],
    ["client = maybe", "ticket_keys = {ca}.tickets", "sni_strict = yes"],
    ["client = yes", "client = no", "ca = {ca}"],
    ["client = no", "client = yes", "server_name = a.example"],
    ["server_name = a.example"], ["client = no", "server_name = off"],
    ["client = yes", "ca = {ca}", "sni_strict = no"],
    ["client = yes", "ca = {ca}", "verify = request"],
    ["client = yes", "ca = {ca}", "ticket_keys = /no/tickets"],
    ["client = yes", "ca = {ca}", "exec = /no/program"],
    ["client = yes", "verify = none", "crl = {ca}.crl"],
    ["client = yes", "verify = 2"], ["client = yes", "verify = 2", "ca = {ca}"],
    ["client = yes", "ca = /no/ca.pem"], ["client = yes", "ca"],
    ["client = yes", "CAfile = /no/ca.pem"], ["client = yes", "peer = dns:"],
    ["client = yes", "ca = {ca}", "cert = {cert}"],
])
def test_one_cause_one_message(check, room, authority, lines):
    text = "\n".join(lines)
    if "{ca}.tickets" in text:
        tickets = room.write("tickets", tunnel("-k").stdout)
        text = text.replace("{ca}.tickets", tickets)
    text = text.replace("{ca}.crl", authority.crl()).replace(
        "{ca}", authority.crt)
    if "peer = pin" in text:
        text = text.replace("sha256/x", "sha256/" + "A" * 43 + "=")
    said = check(GOOD + text + "\n")
    assert len(said) == 1, said


CLIENT = "client = yes\naccept = 127.0.0.1:0\nconnect = 127.0.0.1:1\n"


@pytest.mark.parametrize("lines,words", [
    (["key = {key}"], "4: key has no effect without cert"),
    (["key_password_file = {key}"],
     "4: key_password_file has no effect without cert"),
    (["sni_strict = yes"], "4: sni_strict has no effect with client = yes"),
    (["ticket_keys = {key}"],
     "4: ticket_keys has no effect with client = yes"),
    (["exec = cat"], "4: exec has no effect with client = yes (allowed: "
     "connect)"),
    (["verify = request"], "4: verify = request is for client certificates "
     "(allowed with client = yes: none, require)"),
    (["verify = none", "ca = {ca}"], "5: ca has no effect with verify = none "
     "(allowed: require)"),
])
def test_settings_not_for_a_client(check, room, authority, lines, words):
    """A setting without effect is refused."""
    given = "" if "ca = {ca}" in lines else "ca = {ca}\n"
    text = CLIENT + "\n".join(lines) + "\n" + given
    if "verify = none" in lines:
        text = text.removesuffix(given)
    said = check(text.format(ca=authority.crt, key=room.certs.server))
    assert said == ["tunnel.conf:" + words]


@pytest.mark.parametrize("line", ["key = {key}", "key_password_file = {key}"])
def test_settings_of_a_certificate_with_only_shared_keys(check, room, line):
    psk = room.write("psk", tunnel("-p", "app1").stdout)
    os.chmod(psk, 0o600)
    said = check(f"accept = 127.0.0.1:0\nconnect = 1\npsk = {psk}\n" +
                 line.format(key=room.certs.server) + "\n")
    assert said == [f"tunnel.conf:4: {line.split()[0]} has no effect without "
                    "cert"]


@pytest.mark.parametrize("line,is_comment", [
    ("pidfile = # none", True), ("pidfile =\t# none", True),
    ("pidfile = x # none", True), ("pidfile =#none", False),
    ("pidfile = x#none", False), ("pidfile = ./#none", False),
])
def test_comment_after_the_equals_sign(room, line, is_comment):
    good = GOOD.format(cert=room.certs.server)
    p = tunnel("-tq", "-c", room.write("tunnel.conf", good + line + "\n"))
    assert ("a comment after a value" in p.stderr) == is_comment, p
    assert p.returncode == (2 if is_comment else 0), p


NO_SESSIONS = ["session_tickets = no", "session_cache = off"]


@pytest.mark.parametrize("lines,words", [
    (["mode = fork", "workers = 4"], "5: workers has no effect with mode = "
     "fork"),
    (["session_tickets = no", "ticket_keys = {keys}"],
     "5: ticket_keys has no effect with session_tickets = no"),
    ([*NO_SESSIONS, "ticket_lifetime = 1h"], "6: ticket_lifetime has no effect "
     "with session_tickets = no and session_cache = off"),
    (["session_tickets = no", "client = yes", "verify = none",
      "ticket_lifetime = 1h"],
     "7: ticket_lifetime has no effect with session_tickets = no"),
])
def test_settings_without_effect(check, room, lines, words):
    keys = room.write("keys", tunnel("-k").stdout)
    good = CLIENT.replace("client = yes\n", "\n") if "client = yes" in lines \
        else GOOD
    said = check(good + "\n".join(lines).format(keys=keys) + "\n")
    assert said == ["tunnel.conf:" + words]


@pytest.mark.parametrize("lines", [
    ["mode = poll", "workers = 4"], ["session_tickets = no",
                                     "ticket_lifetime = 1h"],
    ["session_cache = off", "ticket_lifetime = 1h"], ["daemon = no"],
])
def test_settings_with_effect(room, lines):
    """A server's cache has sessions without tickets, too."""
    good = GOOD.format(cert=room.certs.server)
    path = room.write("tunnel.conf", good + "\n".join(lines) + "\n")
    p = tunnel("-tq", "-c", path)
    assert (p.returncode, p.stderr) == (0, "")


def test_daemon_of_inetd(room):
    for daemon in "-d", "daemon=yes":
        said = complaints(tunnel("-t", "-i", daemon, "connect=1",
                                 f"cert={room.certs.server}"))
        assert said == ["command line: daemon has no effect with -i"]


@pytest.mark.parametrize("lines", [
    ["ca = {ca}"], ["ca = {ca}", "server_name = a.example.org"],
    ["ca = {ca}", "server_name = ::1"], ["ca = {ca}", "server_name = off"],
    ["ca = {ca}", "connect = unix:/run/x", "server_name = a.example.org"],
    ["ca = {ca}", "connect = unix:/run/x", "peer = dns:a.example.org"],
    ["verify = none", "connect = unix:/run/x"],
    ["verify = none", "server_name = a.example.org"],
    ["ca = {ca}", "cert = {cert}"], ["ca = {ca}", "cert = {crt}", "key = {key}"],
    ["ca = {ca}", "crl = {crl}", "proxy_protocol = v2", "accept_proxy = yes",
     "alpn = h2", "mode = fork", "truncation = eof", "max_per_ip = 3"],
    ["peer = cert:{ca}"],
])
def test_settings_of_a_client(room, authority, lines):
    path = room.write("tunnel.conf", (CLIENT + "\n".join(lines)).format(
        ca=authority.crt, crl=authority.crl(), cert=room.certs.server,
        crt=room.certs.path("server.crt"), key=room.certs.path("server.key")))
    p = tunnel("-t", "-c", path)
    assert p.returncode == 0, p
    for line in ["client = yes"] + lines[1:]:
        if "{" not in line:
            assert line + "\n" in p.stdout


def test_settings_missing_for_a_client(check):
    """A certificate is not required; a command cannot replace the backend."""
    assert check("client = yes\nverify = none\n") == [
        "missing: accept = [host:]port", "missing: connect = [host:]port"]


def test_command_of_a_client(room):
    said = complaints(tunnel("-t", "client=yes", "verify=none", "accept=0",
                             "--", "/no/program"))
    assert said == ["command line: a command has no effect with client = yes "
                    "(allowed: connect)"]


def test_missing_file(room):
    assert complaints(tunnel("-t", "-c", room.path("no.conf"))) == [
        room.path("no.conf") + ": No such file or directory"]


def test_carriage_returns_are_reported_once(check):
    """They hide no other errors."""
    said = check((GOOD + "colour = red\n").replace("\n", "\r\n"))
    assert len(said) == 2
    assert said[0].startswith("tunnel.conf:1: a carriage return")
    assert said[1].startswith('tunnel.conf:4: unknown key "colour"')


def test_no_more_than_fifty(check):
    said = check(GOOD + "colour = red\n" * 60)
    assert len(said) == 51
    assert said[-1] == "and 10 more errors"


@pytest.mark.seconds(60)
def test_two_transient_causes(room):
    """The status is 1 only if all errors are transient."""
    alone = ["unshare", "-n"]
    if subprocess.run([*alone, "true"]).returncode != 0:
        pytest.skip("no permission for a network namespace")
    good = ["accept=127.0.0.1:0", f"cert={room.certs.server}",
            "connect=a.example.org:1"]

    def run(*arguments):
        return subprocess.run(
            [*alone, *support.UNDER, support.TUNNEL, "-t", *good, *arguments],
            capture_output=True, text=True, timeout=4 * support.DEADLINE)

    # musl takes five seconds per name
    assert len(complaints(run("connect=b.example.org:1"), 1)) == 2
    assert len(complaints(run("tls_min=1", "connect=0"), 2)) == 3


# Hints at the intended key or value.

@pytest.mark.parametrize("line,hint", [
    ("conect = 1", 'did you mean "connect"?'),
    ("idle-timeout = 5s", 'did you mean "idle_timeout"?'),
    ("idle timeout = 5s", 'did you mean "idle_timeout"?'),
    ("Accept = 1", 'did you mean "accept"?'),
    ("max_conections = 1", 'did you mean "max_connections"?'),
    ("log_file = x", 'did you mean "log"?'),
    ("idle_timeout = 300", "did you mean 300s?"),
    ("truncation = EOF", "did you mean eof?"),
    ("log_level = warn", "did you mean warning?"),
    ("mode = forked", "did you mean fork?"),
    ("daemon = true", "did you mean yes?"),
    ("sandbox = off", "did you mean no?"),
    ("verify = 2", "stunnel's 2 is require"),
    ("verify = 4", "stunnel's 4 is require, with peer = cert:FILE"),
    ("log = overwrite", "delete the line"),
    ("log = sylog", "or a file; did you mean syslog? a file of this name needs "
     "a ./ before it)"),
    ("log = Stderr", "did you mean stderr? a file of this name needs a ./ "
     "before it)"),
    ("log = stdout", "standard output is /dev/stdout; a file of this name is "
     "./stdout)"),
    ("output = sylog", 'stunnel\'s output is "log" here; or delete the line'),
    ("accept = :::443", "did you mean 443?"),
    ("accept = ::1:443", "did you mean [::1]:443?"),
    ("connect = :::443", "did you mean [::1]:443?"),
    ("connect = 2001:db8::1:80", "did you mean [2001:db8::1]:80?"),
    ("connect = /run/x", "did you mean unix:/run/x?"),
    ("groups = prime256v1:x25519", "its name here is secp256r1"),
    ("groups = P-384", "its name here is secp384r1"),
    ("ciphers = ECDHE-RSA-AES256-GCM-SHA384:AES128-SHA",
     "ciphers = TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:"
     "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384)"),
    ("ciphers = ECDHE-ECDSA-CHACHA20-POLY1305, TLS_AES_256_GCM_SHA384",
     "ciphers = TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:"
     "TLS_AES_256_GCM_SHA384)"),
    ("ciphers = HIGH:!aNULL", "default: all that are safe"),
    ("client = true", "did you mean yes?"),
    ("checkHost = a.example", ": peer = dns:a.example; but delete the line "
     "with verifyPeer = yes, and if it is the host of connect with client = "
     "yes: that is verified anyway)"),
    ("checkIP = ::1", ": peer = ip:::1; but delete the line with verifyPeer = "
     "yes, and if it is the address in connect with client = yes: that is "
     "verified anyway)"),
    ("sni = a.example", ": server_name = a.example, if it is not the host of "
     "connect)"),
    ("sni =", ": server_name = off)"),
    ("verifyChain = no", ": verify = none, the default without client = yes"),
    ("verify = 1", "stunnel's 1 is request, and require with client = yes"),
    ("OCSPaia = yes", "(crl has revocation lists): delete the line"),
    ("PSKsecrets = x", '"psk" here: psk = x'),
    ("PSKidentity = x", "delete the line"),
    ("protocol = imap", "as on ports 465, 993 and 995"),
    ("protocol = proxy", "proxy_protocol = v1"),
    ("fips = no", "delete the line"), ("fips = yes", "no FIPS validation"),
    ("compression = zlib", "not supported: delete the line"),
    ("sslVersion = TLSv1.2", "TLSv1.2 is tls_max = 1.2"),
    ("options = NO_SSLv2", "delete the line"),
    ("foreground = yes", "delete the line"),
    ("foreground = no", "daemon = yes"),
    ("setuid = nobody", ": user = nobody)"),
    ("setgid = 0", ": group = 0)"),
    ("pid = /run/x.pid", ": pidfile = /run/x.pid;"),
    ("pid =", '"pidfile" here: delete the line;'),
    ("output = /x/log", ": log = /x/log;"),
    ("output = /x/log", "delete the line under systemd"),
    ("debug = 7", "7 debug"), ("debug = notice", ": log_level = notice;"),
    ("TIMEOUTidle = 70", ": idle_timeout = 70s)"),
    ("TIMEOUTbusy = 0", '"handshake_timeout" here)'),
    ("curve = P-384", ": groups = secp384r1)"),
    ("curve = secp160k1", 'without "secp160k1": delete the line'),
    ("CAfile = /x.pem", ": ca = /x.pem; with verifyPeer = yes it is peer = "
     "cert:FILE, and no ca)"),
    ("verifyPeer = yes", ": peer = cert:FILE, with CAfile's FILE, and verify "
     "= require)"),
    ("verifyChain = yes", ": verify = require)"),
    ("sni = a:b", "the backend is not chosen by server name"),
    ("[imaps]", "use one file and one instance for each service; move the "
                "lines below this one, and those above the first section, to "
                '/etc/tunnel/imaps.conf, and run "systemctl enable --now '
                'tunnel@imaps"'),
])
def test_hint(check, line, hint):
    said = check(GOOD + line + "\n")
    assert len(said) == 1, said
    assert said[0].startswith("tunnel.conf:4: ")
    assert hint in said[0]


def test_port_name(check):
    """A name from /etc/services."""
    try:
        socket.getservbyname("imaps", "tcp")
    except OSError:
        pytest.skip("no /etc/services")
    assert "did you mean 127.0.0.1:993?" in check(
        GOOD + "accept = 127.0.0.1:imaps\n")[0]


def test_key_instead_of_a_file_name(check, room):
    """Also a key pasted into the file: none of its lines gets into the log."""
    with open(room.certs.path("server.key")) as f:
        key = f.read()
    for text in key, "\ufeff" + key, GOOD + "conect = 1\n  " + key:
        said = check(text)
        number = text.count("\n") - key.count("\n") + 1
        assert said[-1] == (f"tunnel.conf:{number}: this is PEM, not a "
                            "configuration (cert = FILE and key = FILE name PEM "
                            "files)")
        assert len(said) == 1 + text.count("conect")


def test_secrets_instead_of_a_file_name(check):
    """Ticket keys, as printed by tunnel -k."""
    key = "0123456789abcdef" * 4
    assert check(key + "\n", "connect=1")[0] == (
        f'tunnel.conf:1: "{key[:20]}..." is not a setting (allowed: key = '
        "value; a comment begins with # or ;)")


@pytest.mark.parametrize("line", [
    "cert = {cert}x", "connect = 80 x", "accept = :::", "accept = ::1:",
    "accept = :::443x", "accept = ::1:65536", "connect = ::1:0"])
def test_no_hint(check, line):
    said = check(GOOD + line + "\n")
    assert len(said) == 1
    assert "did you mean" not in said[0]


# Cipher suites that need another type of key.

ECDSA = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
RSA = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
TLS13 = "TLS_AES_128_GCM_SHA256"


@pytest.mark.parametrize("key,words", [
    ("rsa", [f"ciphers={ECDSA}"]), ("server", [f"ciphers={RSA}"]),
    ("rsa", [f"ciphers={ECDSA},{TLS13}", "tls_max=1.2"]),
    ("rsa", [f"ciphers={RSA}", "tls_min=1.3"]),
])
def test_suites_unusable_with_the_key(room, key, words):
    good = ["accept=127.0.0.1:0", "connect=1",
            f"cert={room.certs.path(key + '.crt')}",
            f"key={room.certs.path(key + '.key')}"]
    for flags in [], ["-t"]:
        said = complaints(tunnel(*flags, *good, *words))
        assert len(said) == 1
        assert said[0].startswith("command line: ciphers: no suite in the list "
                                  "can be used with tls_min = 1.")


@pytest.mark.parametrize("key,words,lacks", [
    ("rsa", [f"ciphers={ECDSA},{TLS13}"], 2), ("rsa", [f"ciphers={TLS13}"], 2),
    ("rsa", [f"ciphers={RSA}"], 3),
    ("rsa", [f"ciphers={RSA}", "tls_max=1.2"], None),
    ("rsa", [f"ciphers={TLS13}", "tls_min=1.3"], None), ("rsa", [], None),
    ("server", [f"ciphers={RSA},{ECDSA},{TLS13}"], None),
])
def test_version_without_a_suite(room, key, words, lacks):
    p = tunnel("-tq", "accept=127.0.0.1:0", "connect=1",
               f"cert={room.certs.path(key + '.crt')}",
               f"key={room.certs.path(key + '.key')}", *words)
    assert p.returncode == 0
    warned = re.findall(r"ciphers: TLS 1\.(.) is not offered", p.stderr)
    assert warned == ([str(lacks)] if lacks else [])


def test_one_of_two_keys_is_enough(room):
    certs = room.certs
    p = tunnel("-tq", "accept=127.0.0.1:0", "connect=1", "tls_max=1.2",
               f"cert={certs.server}", f"cert={certs.path('rsa.crt')}",
               f"key={certs.path('server.key')}",
               f"key={certs.path('rsa.key')}", f"ciphers={ECDSA}")
    assert p.returncode == 0, p


# -tq, for use before a reload.

def test_silent_without_errors(room, tmp_path):
    good = ["accept=127.0.0.1:0", "connect=1",
            f"pidfile={room.path('pid')}", f"log={room.path('log')}"]
    # made by tunnel -g, so it causes no warning
    pem = room.path("new.pem")
    assert tunnel("-g", "localhost", "-o", pem).returncode == 0
    p = tunnel("-tq", *good, f"cert={pem}")
    assert (p.returncode, p.stdout, p.stderr) == (0, "", "")
    assert os.listdir(room.dir) == ["new.pem"]
    p = tunnel("-t", *good, f"cert={pem}")
    assert "accept = 127.0.0.1:0\n" in p.stdout


def test_quiet_test_of_a_live_tunnel(room):
    """The live tunnel holds its pidfile, and keeps it."""
    words = ["connect=1", f"pidfile={room.path('pid')}"]
    t = room.tunnel(*words)
    p = tunnel("-tq", *words, "accept=127.0.0.1:0",
               f"cert={room.certs.server}")
    assert (p.returncode, p.stdout) == (0, "")
    assert open(room.path("pid")).read() == f"{t.pid}\n"


def test_quiet_test_without_the_sockets(room):
    """systemd does not pass its sockets to ExecReload."""
    good = ["connect=1", f"cert={room.certs.server}"]
    p = tunnel("-tq", *good)
    assert (p.returncode, p.stdout) == (0, "")
    assert "tunnel: warning: missing: accept" in p.stderr
    p = tunnel("-tq", *good, "accept=fd:77")
    assert (p.returncode, p.stdout) == (0, "")
    assert "fd:77 is not a listening socket here" in p.stderr
    assert complaints(tunnel("-t", *good)) == ["missing: accept = [host:]port"]
    with socket.create_server(("127.0.0.1", 0)) as s:
        p = subprocess.run(
            [*support.UNDER, support.TUNNEL, "-tq", *good,
             f"accept=fd:{s.fileno()}"], capture_output=True, text=True,
            pass_fds=[s.fileno()], timeout=support.DEADLINE)
    assert "fd:" not in p.stderr


def test_quiet_test_reports_errors():
    said = complaints(tunnel("-tq", "accept=127.0.0.1:0", "connect=1",
                             "cert=/no.pem"))
    assert said == ["command line: cert: /no.pem: No such file or directory"]


def test_many_letters():
    """As many settings as letters."""
    p = tunnel("-" + "v" * 500, "cert=/no.pem")
    assert p.returncode == 2
    assert "log_level is already set" in p.stderr
