"""Verification of servers by our client: by names, rules, pins and a bundle;
and authentication of our client.
"""

import os
import re
import signal
import socket

import pytest

import serving
import support
from certificates import AUTHORITY, DAY, EC, PASSWORD, RSA, Authority, pin
from serving import ask
from support import complaint, run, run_tunnel

P384 = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1")


@pytest.fixture
def serve(room):
    return lambda *arguments, **keywords: room.keep(serving.Server(
        *arguments, **keywords))


@pytest.fixture
def server(certs, serve):
    """A server with a certificate for localhost, 127.0.0.1 and ::1."""
    return serve(certs.server)


def refused(got, log):
    """Return the reason of a refusal."""
    assert got == "ConnectionResetError", log
    return re.search(r'(?m)no backend: \S+: server certificate ".*?": (.*)$',
                     log)[1]


# By the name in the configuration.

@pytest.mark.parametrize("host,name", [
    ("localhost", "localhost"), ("LOCALHOST", "LOCALHOST"),
    ("127.0.0.1", None)])
def test_name_of_connect(certs, server, version, host, name):
    got, log = ask(f"connect={host}:{server.port}", f"ca={certs.ca}",
                   f"tls_min={version}", f"tls_max={version}")
    assert (got, server.result()) == (b"hello", "served"), log
    assert server.names == [name]
    assert 'server="O=tunnel, CN=server"' in log


@pytest.mark.parametrize("name,asked", [
    ("localhost", "localhost"), ("localhost.", "localhost"), ("::1", None),
    ("off", None)])
def test_server_name(certs, server, name, asked):
    """An address is not sent as SNI, but verified."""
    got, log = ask(f"connect=localhost:{server.port}", f"ca={certs.ca}",
                   f"server_name={name}")
    assert (got, server.result()) == (b"hello", "served"), log
    assert server.names == [asked]


@pytest.mark.parametrize("name", ["example.org", "192.0.2.1", "127.0.0.2",
                                  "::2", "ocalhost", "xlocalhost"])
def test_name_that_it_has_not(certs, server, name):
    got, log = ask(f"connect=localhost:{server.port}", f"ca={certs.ca}",
                   f"server_name={name}")
    assert refused(got, log) == ("name mismatch: the certificate is for "
                                 f"localhost, 127.0.0.1, ::1, not for {name}")
    assert server.result() == "BAD_CERTIFICATE"


def test_many_names(authority, serve):
    """The log line lists some of them."""
    names = ", ".join(f"DNS:a{i}.example.org" for i in range(100))
    server = serve(authority.leaf(usage="serverAuth", san=names))
    got, log = ask(f"connect=localhost:{server.port}", f"ca={authority.crt}")
    assert refused(got, log) == "name mismatch: the certificate is for " + \
        ", ".join(f"a{i}.example.org" for i in range(8)) + \
        ", ..., not for localhost"


def test_socket_without_a_name(room, certs, serve):
    server = serve(certs.server, path=room.path("server"))
    for how in "server_name=localhost", "peer=dns:localhost":
        got, log = ask(f"connect={server.address}", f"ca={certs.ca}", how)
        assert got == b"hello", log
    got, log = ask(f"connect={server.address}", "verify=none")
    assert got == b"hello", log


# By rules instead of the name.

@pytest.fixture(scope="module")
def hosts(certs):
    """Certificates of servers, one with a wildcard."""
    by = Authority(certs.dir, "Servers' CA")

    def leaf(san, **how):
        return by.leaf("app", usage="serverAuth", san=san, **how)
    names = "DNS:db.example.org, IP:192.0.2.1, URI:spiffe://x/db"
    return by, {"names": leaf(names), "wildcard": leaf("DNS:*.example.org"),
                "none": leaf("")}


@pytest.mark.parametrize("which,rules,is_found", [
    ("names", ["dns:db.example.org"], True),
    ("names", ["dns:x.example.org", "dns:DB.example.org"], True),
    ("names", ["dns:*.example.org"], True),
    ("names", ["dns:example.org"], False),
    ("names", ["dns:localhost"], False),
    ("names", ["ip:192.0.2.1"], True),
    ("names", ["ip:127.0.0.1"], False),
    ("names", ["uri:spiffe://x/db"], True),
    ("names", ["cn:app"], True),
    ("names", ["cn:App"], False),
    ("wildcard", ["dns:db.example.org"], True),
    ("wildcard", ["dns:*.example.org"], True),
    ("wildcard", ["dns:x.db.example.org"], False),
    ("none", ["cn:app"], True),
    ("none", ["dns:app"], False)])
def test_rules(hosts, serve, version, which, rules, is_found):
    by, files = hosts
    server = serve(files[which])
    got, log = ask(f"connect=127.0.0.1:{server.port}", f"ca={by.crt}",
                   f"tls_min={version}", f"tls_max={version}",
                   *(f"peer={rule}" for rule in rules))
    if is_found:
        assert (got, server.result()) == (b"hello", "served"), log
    else:
        assert refused(got, log) == "no peer rule matches"
        assert server.result() == "ACCESS_DENIED"


@pytest.mark.parametrize("kind", ["pin", "cert"])
def test_pin(hosts, serve, authority, version, kind):
    """A pin needs no authority, and matches only that key."""
    files = hosts[1]
    rule = "peer=" + (pin(files["none"]) if kind == "pin" else
                      "cert:" + files["none"])
    for pem, is_found in ((files["none"], True), (files["names"], False)):
        server = serve(pem)
        got, log = ask(f"connect=127.0.0.1:{server.port}", rule,
                       f"tls_min={version}", f"tls_max={version}")
        assert (got == b"hello") == is_found, log
    expired = authority.leaf(usage="serverAuth", starts=-9 * DAY, ends=-DAY)
    server = serve(expired)
    got, log = ask(f"connect=127.0.0.1:{server.port}", "peer=" + pin(expired))
    assert refused(got, log) == "expired 24 hours ago"


# The system's bundle, replaced for these tests.

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
def with_bundle(room):
    """Return a command that runs a program with this file as the system's
    bundle; None: without any.
    """
    def make(file):
        support.need("unshare")
        if not os.path.exists(BUNDLE):
            pytest.skip("this system keeps it elsewhere")
        places = [x for x in ("/etc/ssl", "/etc/pki") if os.path.isdir(x)]
        mounts = f"mount --bind {file} {BUNDLE}" if file else "\n".join(
            f"mount -t tmpfs none {x}" for x in places)
        script = room.write("bundled", f"#!/bin/sh -e\n{mounts}\nexec \"$@\"\n")
        os.chmod(script, 0o755)
        words = ["unshare", "-m", "--propagation", "private", script]
        if run(*words, "true", status=None) is None:
            pytest.skip("no namespace")
        return words

    return make


def test_bundle_of_the_system(room, certs, authority, server, with_bundle):
    """Unusable certificates in it cause no warning.  A reload reads it again.
    """
    odd = Authority(room.dir, "Odd CA", key=("-newkey", "ed25519"))
    limited = Authority(room.dir, "Limited CA", extensions=AUTHORITY +
                        "nameConstraints = critical, permitted;DNS:x.org\n")
    for_mail = Authority(room.dir, "Mail CA", extensions=AUTHORITY +
                         "extendedKeyUsage = emailProtection\n")
    files = [certs.ca, odd.crt, limited.crt, for_mail.crt]
    bundle = room.write("bundle", "".join(map(support.text_of, files)))
    under = with_bundle(bundle)
    to = f"connect=localhost:{server.port}"
    p = run(*under, *support.command("-t", "accept=1", "client=yes",
                                     to)).decode()
    assert f"# CA certificates of the system: {BUNDLE} (3)\n" in p
    assert "warning" not in p and "Mail CA" not in p
    got, log = ask(to, under=under)
    assert got == b"hello", log

    log = room.path("log")
    t = room.start("tunnel", [*under, *support.command(
        "accept=127.0.0.1:0", f"log={log}", "client=yes", to)])
    support.wait_for(lambda: "listening" in support.text_of(log), "its start")
    line = f"CA certificates of the system: {BUNDLE} "
    assert support.text_of(log).count(line + "(3)\n") == 1
    with open(bundle, "w") as f:
        f.write(support.text_of(authority.crt))
    os.kill(t.pid, signal.SIGHUP)
    support.wait_for(lambda: line + "(1)\n" in support.text_of(log), "a reload")
    assert "warning" not in support.text_of(log)


def test_no_bundle(server, with_bundle):
    under = with_bundle(None)
    words = support.command("-t", "accept=1", "client=yes", "connect=x:1")
    p = support.subprocess.run([*under, *words], capture_output=True,
                               text=True)
    assert p.returncode == 2 and p.stderr.splitlines()[0] == (
        "tunnel: error: missing: ca = FILE (the CA certificates of the "
        "system were not found)")
    got, log = ask(f"connect=localhost:{server.port}", "verify=none",
                   under=under)
    assert got == b"hello", log


def test_pins_need_no_bundle(certs, server, with_bundle):
    got, log = ask(f"connect=localhost:{server.port}", "peer=" +
                   pin(certs.server), under=with_bundle(None))
    assert got == b"hello", log


# Warnings, errors and -t.

def test_unverified_is_warned_of(room, server):
    """The warning is repeated at each start and reload; -i logs it once."""
    _, log = ask(f"connect=localhost:{server.port}", "verify=none")
    assert log.count("command line: verify: the server is not ") == 1
    t = room.tunnel("client=yes", f"connect=localhost:{server.port}",
                    "verify=none", "cert=" + room.certs.server)
    words = "warning: command line: verify: the server is not authenticated: anyone can " \
        "impersonate it"
    t.wait_log(words, 1)
    os.kill(t.pid, signal.SIGHUP)
    t.wait_log(words, 2)


def test_report(certs, hosts):
    p = run_tunnel("-t", "client=yes", "accept=1", "connect=localhost:1",
                   f"ca={certs.ca}", f"peer=cert:{hosts[1]['none']}")
    assert (p.returncode, p.stderr) == (0, ""), p
    assert '# server CA "O=tunnel, CN=ca"\n' in p.stdout
    assert re.search('# pinned server "CN=app", sha256 ', p.stdout)
    p = run_tunnel("-t", "client=yes", "accept=1", "connect=localhost:1",
                   "verify=none")
    assert p.returncode == 0 and p.stderr == (
        "tunnel: warning: command line: verify: the server is not "
        "authenticated: anyone can impersonate it\n")


def test_issuer_of_no_server(certs):
    ca = Authority(certs.dir, "Mail CA", extensions=AUTHORITY +
                   "extendedKeyUsage = emailProtection\n")
    p = run_tunnel("-t", "client=yes", "accept=1", "connect=localhost:1",
                   f"ca={ca.crt}")
    assert p.returncode == 0 and p.stderr == (
        'tunnel: warning: command line: ca: servers with a certificate of '
        '"CN=Mail CA" are refused: not for '
        "server authentication\n")


def test_own_chain_is_judged(certs, authority):
    """Warnings about our own chain are about servers, which ignore its names.
    """
    sub = authority.sub(digest="sha1")
    pem = sub.leaf("app1", send=[sub])
    p = run_tunnel("-t", "client=yes", "accept=1", "connect=localhost:1",
                   f"ca={certs.ca}", f"cert={pem}")
    assert p.returncode == 0 and p.stderr == (
        f"tunnel: warning: command line: cert: {pem}: the chain's certificate "
        "is signed with SHA-1, which servers refuse\n")


WHERE = "command line: "


@pytest.mark.parametrize("arguments,words", [
    (["connect=unix:/x"], "connect: unix:/x has no name to verify the server "
     "by (allowed: server_name or peer to verify it by, or verify = none)"),
    (["connect=unix:/x", "server_name=off"], "connect: unix:/x has no name to "
     "verify the server by (allowed: server_name or peer to verify it by, or "
     "verify = none)"),
    (["connect=localhost:https"], '"localhost:https" is not an address '
     "(allowed: [host:]port with a port of 1 to 65535, [IPv6]:port, "
     "unix:/path; did you mean localhost:443?)"),
    (["connect=unix:"], '"" is not a path of 1 to 107 bytes'),
    (["connect=1", "server_name=*.example.org"], 'server_name: '
     '"*.example.org" is not a name for TLS (allowed: a DNS name in ASCII, '
     "with other characters as xn--; an IP address; off)"),
    (["connect=1", "server_name=bücher.example"], 'server_name: '
     r'"b\xc3\xbccher.example" is not a name for TLS (allowed: a DNS name in '
     "ASCII, with other characters as xn--; an IP address; off)"),
    (["connect=1", "verify=request"], "verify = request is for client "
     "certificates (allowed with client = yes: none, require)"),
    (["connect=1", "verify=none", "peer=cn:x"], "peer has no effect with "
     "verify = none (allowed: require)"),
    (["connect=1", "sni_strict=yes"], "sni_strict has no effect with client = "
     "yes"),
    (["connect=1", "client=no", "cert={server}", "server_name=x"],
     "server_name has no effect with client = no"),
    (["connect=1", "cert={server}", "cert={rsa}"], "a second cert has no "
     "effect with client = yes (allowed: one)"),
    (["connect=1", "tls_max=1.2", "ciphers=TLS_AES_128_GCM_SHA256"],
     "ciphers: no suite in the list can be used with tls_min = 1.2, tls_max = "
     "1.2"),
])
def test_errors(certs, arguments, words):
    given = [x.format(**vars(certs)) for x in arguments]
    if not any(x.startswith("client=") for x in given):
        given += ["client=yes"]
    if not any(x.startswith("verify=") for x in given) and "client=yes" in given:
        given += [f"ca={certs.ca}"]
    assert complaint(run_tunnel("accept=1", *given)) == WHERE + words


# Our client's certificate at the server.

@pytest.mark.parametrize("kind", ["EC", "P-384", "RSA", "below another"])
def test_own_certificate(certs, authority, serve, version, kind):
    sub = authority.sub() if kind == "below another" else None
    pem = (sub or authority).leaf(
        "app1", key={"RSA": RSA, "P-384": P384}.get(kind, EC),
        send=[sub] if sub else [])
    server = serve(certs.server, asks=authority.crt)
    got, log = ask(f"connect=localhost:{server.port}", f"ca={certs.ca}",
                   f"cert={pem}", f"tls_min={version}", f"tls_max={version}")
    assert (got, server.result()) == (b"hello", "served"), log
    assert server.clients[0]["subject"] == ((("commonName", "app1"),),)


def test_own_encrypted_key(room, certs, authority, serve, version):
    pem = authority.leaf("app1")
    key = room.path("encrypted.key")
    run("openssl", "pkcs8", "-topk8", "-in", pem, "-out", key, "-passout",
        "pass:" + PASSWORD)
    server = serve(certs.server, asks=authority.crt)
    got, log = ask(
        f"connect=localhost:{server.port}", f"ca={certs.ca}",
        f"cert={pem.removesuffix('.pem')}.crt", f"key={key}",
        f"key_password_file={room.write('password', PASSWORD)}",
        f"tls_min={version}", f"tls_max={version}")
    assert (got, server.result()) == (b"hello", "served"), log


def test_own_certificate_is_needed(certs, authority, serve, version):
    """The server's alert is reported by name."""
    server = serve(certs.server, asks=authority.crt)
    got, log = ask(f"connect=localhost:{server.port}", f"ca={certs.ca}",
                   f"tls_min={version}", f"tls_max={version}")
    assert got == "ConnectionResetError", log
    assert server.result() == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert "the server sent a fatal alert: " + (
        "handshake_failure (40)" if version == "1.2" else
        "certificate_required (116)") in log, log


# Servers of other protocols.

@pytest.mark.parametrize("greeting,words", [
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", 'not TLS but SSH: the server sent "SSH-2.0-"'),
    (b"220 mx ESMTP\r\n",
     'not TLS but SMTP, FTP: the server sent "220 mx E"'),
    (b"HTTP/1.1 400 Bad Request\r\n",
     'not TLS but HTTP: the server sent "HTTP/1.1"'),
    (b"-ERR\r\n\x1b[1m", r'not TLS: the server sent "-ERR\x0d\x0a\x1b["'),
    (b"\x15\3\3\0\2\2\x70",
     "handshake: the server sent a fatal alert: unrecognized_name (112)"),
    (b"\x15\3\3\0\2\2\x28",
     "handshake: the server sent a fatal alert: handshake_failure (40)"),
    (b"", "server closed without sending anything")])
def test_other_protocol(room, greeting, words):
    def answer(sock):
        sock.recv(1 << 16)
        sock.sendall(greeting)
        sock.shutdown(socket.SHUT_WR)
        support.read_all(sock)

    backend = room.backend().serve(answer)
    got, log = ask(f"connect={backend.address}", "verify=none")
    assert got == "ConnectionResetError"
    assert log.endswith(f" no backend: {backend.address}: {words}\n"), log
