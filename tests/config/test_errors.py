"""Invalid input causes one error message and status 2, and leaves nothing
behind.
"""

import os
import re
import socket
import subprocess

import pytest

import support
from support import GOOD, complaint, run_tunnel


@pytest.fixture
def in_file(room):
    """The error message for a configuration file."""

    def call(text, *arguments):
        if isinstance(text, str):
            text = text.encode()
        path = room.write("tunnel.conf", text)
        return complaint(run_tunnel("-c", path, *arguments)).replace(
            room.dir + "/", "")

    return call


@pytest.fixture
def good(certs):
    return GOOD.format(server=certs.server)


# The file.

def test_comments_of_other_programs(in_file, good):
    """A semicolon, and the byte order mark of some editors."""
    message = in_file("\ufeff; a comment\n  ; another\n" + good + "x = 1\n")
    assert message.startswith('tunnel.conf:6: unknown key "x"')


def test_unknown_key(in_file, good):
    assert in_file(good + "colour = red\n").startswith(
        'tunnel.conf:4: unknown key "colour"')


@pytest.mark.parametrize("theirs,hint", [
    ("CAfile", "stunnel's CAfile"), ("sslVersionMin", '"tls_min" here'),
    ("TIMEOUTidle", '"idle_timeout" here'), ("output", '"log" here'),
    ("pid", '"pidfile" here'), ("curves", '"groups" here'),
])
def test_unknown_key_of_stunnel(in_file, good, theirs, hint):
    message = in_file(f"# a comment\n\n{theirs} = x\n" + good)
    assert message.startswith(f'tunnel.conf:3: unknown key "{theirs}"')
    assert hint in message


def test_duplicate_key(in_file, good):
    message = in_file(good + "idle_timeout = 5s\n\nidle_timeout = 6s\n")
    assert re.match(r"tunnel\.conf:6: idle_timeout is already set \("
                    r"\S*tunnel\.conf:4", message)


@pytest.mark.parametrize("line", [
    "idle_timeout = 5", "idle_timeout = -1s", "idle_timeout = 5x",
    "idle_timeout = 99999d", "idle_timeout = s", "idle_timeout = 1.5s",
    "idle_timeout = 99999999999999999999s", "idle_timeout = 5 s",
    "max_connections = 0", "max_connections = many",
    "max_connections = 10 20", "max_connections = 99999999999999999999",
    "tls_min = 1.1", "tls_max = TLSv1.3", "truncation = EOF", "daemon = 1",
    "log_level = loud", "mode = thread", "workers = 0", "workers = 257",
    "workers = all", "max_per_ip = 0", "max_per_ip = few", "sandbox = maybe",
])
def test_value_out_of_range(in_file, good, line):
    message = in_file(good + line + "\n")
    key, value = line.split(" = ")
    assert message.startswith(f'tunnel.conf:4: {key} = "{value}" ')
    assert "allowed: " in message


def test_empty_value(in_file, good):
    assert in_file(good + "alpn =\n").startswith("tunnel.conf:4: alpn ")


@pytest.mark.parametrize("line", ["accept", "include"])
def test_line_without_a_value(in_file, good, line):
    message = in_file(good + line + "\n")
    assert message.startswith("tunnel.conf:4: ")
    assert "key = value" in message


def test_crlf(in_file, good):
    message = in_file(good.replace("\n", "\r\n"))
    assert message.startswith("tunnel.conf:1: a carriage return")


def test_nul_byte(in_file, good):
    assert in_file(good + "alpn = h\0h\n").startswith(
        "tunnel.conf:4: a NUL byte")


def test_line_of_1_mb(in_file, good):
    message = in_file(good + "alpn = " + "x" * (1 << 20) + "\n")
    assert message.startswith(
        "tunnel.conf:4: the line is too long: 1048583 bytes")


def test_binary_file(room):
    """The number of errors is limited; no keys are reported as missing."""
    path = room.write("tunnel.conf", b"\x01 \n" * 1234)
    p = run_tunnel("-c", path)
    assert p.returncode == 2
    lines = p.stderr.splitlines()
    assert len(lines) == 51
    assert lines[49].startswith(f"tunnel: error: {path}:50: a control")
    assert lines[50] == "tunnel: error: and 950 more errors"


def test_random_file(room):
    p = run_tunnel("-c", room.write("tunnel.conf", os.urandom(50000) + b"\n"))
    assert p.returncode == 2
    assert 1 <= p.stderr.count("\n") <= 51
    assert p.stderr.startswith(f"tunnel: error: {room.path('tunnel.conf')}:")


def test_control_characters_are_refused(in_file, good):
    message = in_file(good + "col\33[31mour = red\n")
    assert message.startswith("tunnel.conf:4: a control character")


@pytest.mark.parametrize("key", ["accept", "cert", "connect"])
def test_missing_key(in_file, good, key):
    lines = [x for x in good.splitlines() if not x.startswith(key + " ")]
    assert f"{key} = " in in_file("\n".join(lines))


def test_tls_min_above_tls_max(in_file, good):
    assert "tls_min is newer than tls_max" in in_file(
        good + "tls_min = 1.3\ntls_max = 1.2\n")


def test_connect_and_command(in_file, good):
    assert "are mutually exclusive" in in_file(good + "exec = cat\n")


@pytest.mark.parametrize("key,value,hint", [
    ("ciphers", "AES128-SHA", "IANA"), ("ciphers", ",", "the list is empty"),
    ("groups", "curve25519", "x25519"), ("alpn", "x" * 300, "255"),
    ("ciphers", "TLS_AES_128_GCM_SHA256," * 40, "32"),
])
def test_bad_names(in_file, good, key, value, hint):
    message = in_file(good + f"{key} = {value}\n")
    assert message.startswith("tunnel.conf:4: ")
    assert hint in message


def names_are_answered():
    try:
        socket.getaddrinfo("nowhere.invalid", 1)
    except socket.gaierror as e:
        return e.errno != socket.EAI_AGAIN
    return True


@pytest.mark.parametrize("test_only", [True, False])
@pytest.mark.parametrize("key,value", [
    ("accept", "99999"), ("accept", "127.0.0.1"), ("accept", "::1:4000"),
    ("accept", "127.0.0.1:http"), ("accept", "unix:"), ("accept", "fd:x"),
    ("accept", "unix:/" + "x" * 200), ("accept", "[::1]"),
    ("connect", "0"), ("connect", "127.0.0.1:0"), ("connect", "-1"),
    ("connect", "nowhere.invalid:1"), ("connect", "1.2.3.4.5:6"),
])
def test_bad_address(in_file, good, key, value, test_only):
    """With -t as well."""
    if value.endswith((".invalid:1", ".5:6")) and not names_are_answered():
        pytest.skip("no name server answers")
    message = in_file(good + f"{key} = {value}\n",
                      *["-t"] * test_only)
    assert message.startswith("tunnel.conf:4: ")


def test_missing_file(room):
    p = run_tunnel("-c", room.path("missing.conf"))
    assert complaint(p) == \
        room.path("missing.conf") + ": No such file or directory"


def test_directory_for_a_file(room):
    assert room.dir in complaint(run_tunnel("-c", room.dir))


# The command line.

def test_no_arguments():
    p = run_tunnel()
    assert p.returncode == 2
    assert p.stderr.startswith("usage: tunnel ")


@pytest.mark.parametrize("flag", ["-x", "-c", "-g", "-o", "--hel"])
def test_bad_flag(flag):
    p = run_tunnel(flag)
    assert p.returncode == 2
    assert "usage: tunnel " in p.stderr


@pytest.mark.parametrize("argument", ["junk", "", "/etc/tunnel.conf"])
def test_junk_argument(argument):
    assert f'argument "{argument}" is not a setting' in complaint(
        run_tunnel(argument))


def test_unknown_key_as_an_argument():
    assert run_tunnel("CAfile=x").stderr.startswith(
        'tunnel: error: command line: unknown key "CAfile"')


def test_file_is_checked_below_an_argument(in_file, good):
    """An argument overrides the file, but hides no errors in it."""
    assert in_file(good + "idle_timeout = x\n", "idle_timeout=5s").startswith(
        "tunnel.conf:4: idle_timeout")


# Certificates and keys.

def loading(certs, *arguments):
    return complaint(run_tunnel("accept=127.0.0.1:0", "connect=1", *arguments))


def test_certificate_missing(certs):
    assert "/no.pem: No such file or directory" in loading(
        certs, "cert=/no.pem")


def test_key_missing(certs):
    assert "/no.key: No such file or directory" in loading(
        certs, f"cert={certs.server}", "key=/no.key")


def test_key_not_in_the_certificate_file(certs):
    message = loading(certs, f"cert={certs.path('server.crt')}")
    assert certs.path("server.crt") in message
    assert "private key" in message


def test_key_does_not_match(certs):
    message = loading(certs, f"cert={certs.path('server.crt')}",
                      f"key={certs.path('expired.key')}")
    assert "does not match" in message
    assert "server.crt" in message and "expired.key" in message


def test_key_of_another_kind(certs):
    assert "does not match" in loading(
        certs, f"cert={certs.path('server.crt')}",
        f"key={certs.path('rsa.key')}")


def test_key_unreadable(room, certs):
    """Root can read everything except a directory."""
    assert room.dir in loading(
        certs, f"cert={certs.path('server.crt')}", f"key={room.dir}")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to change the user")
def test_key_unreadable_for_its_user(room, certs):
    key = room.write("secret.key", "")
    os.chmod(room.dir, 0o755)
    os.chmod(key, 0o600)
    copy = support.shutil.copy(support.TUNNEL, room.path("tunnel"))
    cert = support.shutil.copy(certs.path("server.crt"), room.dir)
    os.chmod(cert, 0o644)
    p = subprocess.run(
        [copy, "accept=127.0.0.1:0", "connect=1",
         f"cert={cert}", f"key={key}"],
        capture_output=True, text=True, user="nobody",
        timeout=support.DEADLINE)
    assert "secret.key: Permission denied" in complaint(p)


@pytest.mark.parametrize("text", ["", "junk\n", "-----BEGIN CERTIFICATE-----\n"
                                  "AAAA\n-----END CERTIFICATE-----\n"])
def test_certificate_is_junk(room, certs, text):
    path = room.write("junk.pem", text)
    assert path in loading(certs, f"cert={path}")


@pytest.mark.parametrize("password,hint", [
    (None, "set key_password_file"), ("wrong\n", "wrong password"),
    ("", "empty"),
])
def test_password(room, certs, password, hint):
    arguments = [f"cert={certs.path('server.crt')}", f"key={certs.encrypted}"]
    if password is not None:
        path = room.write("password", password)
        arguments.append(f"key_password_file={path}")
    assert hint in loading(certs, *arguments)


@pytest.mark.parametrize("key", ["key_password_file", "cert", "key", "ca",
                                 "crl", "ticket_keys", "-c"])
def test_fifo_without_a_writer(room, certs, key):
    """The tunnel does not wait for a writer, neither at a start nor, in the
    master, at a reload.
    """
    os.mkfifo(path := room.path("fifo"), 0o600)
    given = ["-c", path] if key == "-c" else [f"{key}={path}"]
    p = run_tunnel("accept=127.0.0.1:0", "connect=1", "verify=request",
                   *([] if key == "ca" else [f"ca={certs.ca}"]),
                   *([] if key == "cert" else [f"cert={certs.server}"]), *given)
    assert "not a regular file" in complaint(p)


@pytest.mark.parametrize("arguments", [
    ["cert=server.crt", "key=server.key", "cert=rsa.crt"],
    ["cert=server.crt", "key=server.key", "key=rsa.key"],
])
def test_as_many_keys_as_certificates(certs, arguments):
    message = loading(certs, *(
        a.replace("=", "=" + certs.path("")) for a in arguments))
    assert re.search(r"\d cert but \d key .*allowed: one key for each",
                     message)


# Nothing is left behind.

@pytest.fixture
def lost(room, certs):
    """Errors that occur late, and the files that must not remain."""

    def call(*arguments, status=2, **keywords):
        p = run_tunnel(f"accept=unix:{room.path('socket')}", "connect=1",
                       f"pidfile={room.path('pidfile')}",
                       f"cert={certs.server}", *arguments, **keywords)
        message = complaint(p, status)
        assert not os.path.exists(room.path("socket"))
        assert not os.path.exists(room.path("pidfile"))
        return message

    return call


def in_background(lost, *arguments, status=2):
    """The same error message from a start in the background."""
    message = lost(*arguments, status=status)
    assert lost("-d", *arguments, status=status) == message
    return message


def test_port_in_use(lost):
    with socket.create_server(("127.0.0.1", 0)) as s:
        address = support.tcp_address(s)
        message = in_background(lost, f"accept={address}", status=1)
    assert re.search(f"{address}: {support.IN_USE}", message)


def test_two_accept_on_one_port(lost):
    address = support.free_port()
    assert re.search(f"{address}: {support.IN_USE}", in_background(
        lost, f"accept={address}", f"accept={address}", status=1))


@pytest.mark.parametrize("flags", [(), ("-tq",)])
def test_too_many_addresses(in_file, good, flags):
    """The check finds it as well as a start."""
    lines = "".join(f"accept = 127.0.0.1:{port}\n"
                    for port in range(20000, 20064))
    message = in_file(good + lines, *flags)
    assert message.endswith(": accept: 127.0.0.1:20063: too many addresses "
                            "(allowed: 64 in all)")


def test_unix_socket_in_use(room, certs):
    backend = room.backend(family=socket.AF_UNIX, to=room.path("used"))
    message = complaint(run_tunnel(
        f"accept={backend.address}", "connect=1", f"cert={certs.server}"),
        status=1)
    assert re.search(support.IN_USE, message)
    support.connect(backend.address).close()  # still open


def test_unix_socket_in_place_of_a_file(room, certs):
    path = room.write("file", "precious")
    message = complaint(run_tunnel(
        f"accept=unix:{path}", "connect=1", f"cert={certs.server}"), status=1)
    assert re.search(support.IN_USE, message)
    assert open(path).read() == "precious"


def test_address_of_another_machine(lost):
    assert re.search(support.NOT_HERE, in_background(
        lost, "accept=192.0.2.1:0", status=1))


@pytest.mark.parametrize("flags", [[], ["-t"], ["-i"]])
def test_lookup_fails_for_now(certs, flags):
    """Without a network, as early during boot."""
    alone = ["unshare", "-n"]
    if subprocess.run([*alone, "true"]).returncode != 0:
        pytest.skip("no permission for a network namespace")
    accept = [] if "-i" in flags else ["accept=127.0.0.1:0"]
    p = subprocess.run(
        [*alone, *support.UNDER, support.TUNNEL, *flags, *accept,
         "connect=backend.example.org:1", f"cert={certs.server}"],
        capture_output=True, text=True, timeout=support.DEADLINE,
        stdin=subprocess.DEVNULL)
    assert "backend.example.org:1: " in complaint(p, 1)


def test_log_file_impossible(lost, room):
    assert "log: /nowhere/log: No such file or directory" in \
        in_background(lost, "log=/nowhere/log")


def test_descriptor_that_does_not_listen(lost):
    with socket.socket() as s:
        assert "it is not a listening socket" in lost(
            f"accept=fd:{s.fileno()}", pass_fds=[s.fileno()])
    assert "it is not a listening socket" in lost("accept=fd:99")


def test_pidfile_impossible(room, certs):
    for flags in [], ["-d"]:
        assert "pidfile: /nowhere/pid: No such file or directory" in complaint(
            run_tunnel(f"accept=unix:{room.path('socket')}", "connect=1",
                       "pidfile=/nowhere/pid", f"cert={certs.server}", *flags))
        assert not os.path.exists(room.path("socket"))


def test_pidfile_of_a_live_tunnel(room, certs):
    path = room.path("pidfile")
    t = room.tunnel("connect=1", f"pidfile={path}")
    message = complaint(run_tunnel("accept=127.0.0.1:0", "connect=1",
                                   f"cert={certs.server}", f"pidfile={path}"))
    assert f"pidfile: {path}: another tunnel has locked it" in message
    assert open(path).read() == f"{t.pid}\n"


def test_command_missing(lost, certs):
    p = run_tunnel("accept=127.0.0.1:0", f"cert={certs.server}", "--",
                   "/no/command")
    assert "/no/command" in complaint(p)


# -g

@pytest.mark.parametrize("names", ["", ",", "a b$", "x" * 300, "a\nb",
                                   ",".join(f"n{i}" for i in range(40))])
def test_generate_for_bad_names(names):
    assert complaint(run_tunnel("-g", names)).startswith("-g: ")


# Flags and long options.

@pytest.mark.parametrize("words", [["-g", "a", "b"], ["-g", "a", "b=c"],
                                   ["-k", "b"], ["-r", "a", "b"],
                                   ["-p", "a", "b"]])
def test_unexpected_argument(words):
    assert complaint(run_tunnel(*words)).startswith(
        f'unexpected argument "{words[-1]}" (allowed: -g NAME')


@pytest.mark.parametrize("words", [
    ["-g", "a", "-k"], ["-t", "-g", "a"], ["-k", "-i"], ["-k", "-c", "x"],
    ["-g", "a", "--", "cat"], ["-r", "a", "-k"], ["-r", "a", "-g", "a"],
    ["-p", "a", "-k"], ["-p", "a", "-i"]])
def test_flags_that_exclude_each_other(words):
    assert complaint(run_tunnel(*words)).startswith(
        "-g, -r, -k and -p cannot be combined ")


def test_request_needs_a_file_for_its_key():
    assert complaint(run_tunnel("-r", "a")).startswith("-r needs -o FILE")


@pytest.mark.parametrize("letter,word", [("-h", "--help"), ("-V", "--version")])
def test_long_options(letter, word):
    p = run_tunnel(word)
    assert p.returncode == 0
    assert p.stdout == run_tunnel(letter).stdout != ""


@pytest.mark.parametrize("words", [[], ["-x"]])
def test_usage_mentions_help(words):
    p = run_tunnel(*words)
    assert p.returncode == 2
    assert p.stderr.endswith("tunnel -h lists all options and keys\n")


@pytest.mark.parametrize("accept", [["127.0.0.1:0"], ["fd:0", "fd:3"]])
def test_inetd_and_accept(certs, accept):
    message = complaint(run_tunnel(
        "-i", "connect=1", f"cert={certs.server}",
        *(f"accept={a}" for a in accept)))
    assert "accept must be an inherited connection with -i" in message


@pytest.mark.parametrize("rule", ["cn:*", "uri:spiffe://example.org/*"])
def test_wildcard_in_dns_only(room, authority, good, in_file, rule):
    message = in_file(good + f"verify = require\nca = {authority.crt}\n"
                      f"peer = {rule}\n")
    assert f'peer: "{rule}" is not a rule' in message
    assert message.endswith("a * only as the first label of dns:)")
