"""The output of -t, -V, -h and -g."""

import base64
import hashlib
import os
import re
import shutil
import socket
import subprocess

import pytest

import der
import support
from certificates import DAY, Authority, concatenate, pin
from support import run


def tunnel(*arguments, status=0, warning="", **keywords):
    """The standard output.  Standard error must be empty, except for one line
    with this warning.
    """
    p = subprocess.run([*support.UNDER, support.TUNNEL, *arguments],
                       capture_output=True, text=True, check=False,
                       timeout=support.DEADLINE, **keywords)
    assert p.returncode == status, p
    assert (p.stderr == "") == (warning == "") and warning in p.stderr, p
    assert p.stderr.count("\n") <= 1, p
    return p.stdout


# -t

@pytest.fixture
def check(room):
    """The part of -t about a certificate file, and the rest."""

    def call(name, *arguments, **keywords):
        out = tunnel("-t", "accept=127.0.0.1:0", "connect=1",
                     f"cert={name}", *arguments, **keywords)
        head, report = out.split(f"certificate {name}\n")
        return dict(re.findall(r"^\t(\w+) +(.*)$", report, re.M)), head

    return call


def x509(path, *arguments):
    return run("openssl", "x509", "-in", path, "-noout", *arguments)


def openssl_pin(path):
    public = run("openssl", "x509", "-in", path, "-noout", "-pubkey")
    der = run("openssl", "pkey", "-pubin", "-outform", "DER", stdin=public)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


@pytest.mark.parametrize("name,key,signature", [
    ("server", "EC, 256 bits", "ECDSA with SHA256"),
    ("rsa", "RSA, 2048 bits", "ECDSA with SHA256"),
])
def test_certificate_report(certs, check, name, key, signature):
    path = certs.path(name + ".pem")
    report, _ = check(path)
    assert re.sub(", ", ",", report["subject"]) == f"O=tunnel,CN={name}"
    assert re.sub(", ", ",", report["issuer"]) == "O=tunnel,CN=ca"
    assert sorted(report["names"].split(", ")) == [
        "127.0.0.1", "::1", "localhost"]
    serial = x509(path, "-serial").decode().strip().split("=")[1]
    assert report["serial"].replace(":", "") == serial
    assert re.search(r"\(expires in (364|365) days\)", report["valid"])
    assert report["key"].startswith(key)
    assert report["key"].endswith(", matches the certificate")
    assert report["signature"] == signature
    fingerprint = x509(path, "-fingerprint", "-sha256").decode()
    assert report["sha256"] == fingerprint.strip().split("=")[1]
    assert report["pin"] == "sha256/" + openssl_pin(path)
    assert re.fullmatch("an intermediate certificate is missing: that of "
                        '"O=tunnel, CN=ca", unless .*', report["chain"])


def test_validity_matches_openssl(certs, check):
    report, _ = check(certs.server)
    dates = x509(certs.server, "-dates", "-dateopt", "iso_8601").decode()
    first, last = re.findall(r"=(\d{4}-\d\d-\d\d)", dates)
    assert report["valid"].startswith(f"{first} to {last} ")


def test_chain_report(certs, check):
    report, _ = check(certs.chain)
    assert report["chain"] == "2 certificates, in order"
    assert "O=tunnel, CN=sub" in report["issuer"]


def test_chain_of_a_self_signed_certificate(generated, check):
    report, _ = check(generated)
    assert report["chain"] == "1 certificate"


@pytest.mark.parametrize("names,words", [
    (("under", "ca", "sub"), "the chain is in the wrong order"),
    (("under", "ca"), "an intermediate certificate is missing"),
])
def test_broken_chain(room, certs, check, names, words):
    path = room.path("wrong.pem")
    concatenate(path, *(certs.path(name + ".crt") for name in names),
                certs.path("under.key"))
    report, _ = check(path, warning=f"{path}: {words}: ")
    assert report["chain"] == words + ": certificate 1 was not issued by " \
        'certificate 2, but by "O=tunnel, CN=sub"'


def test_names_forge_no_line(room, check):
    """Names in certificates cannot start a new line or move the cursor."""
    stem, path = room.path("key"), room.path("forged.pem")
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
        "ec_paramgen_curve:P-256", "-out", stem)
    name = der.name("a\x1b[2J\nb")
    with open(path, "w") as f, open(stem) as key:
        f.write(der.pem(der.certificate(
            name, name, der.public_key(stem), der.signed_by(stem),
            der.extension("2.5.29.17", der.tlv(
                der.SEQUENCE, der.tlv(0x82, b"x\x1b]0;x\7\n\tnames x\0y"),
                der.tlv(0x86, b"a:\xff"), der.tlv(0x82, b"")))))
                + key.read())
    os.chmod(path, 0o600)
    report, _ = check(path)
    assert report["names"] == (r"x\x1b]0;x\x07\x0a\x09names x\x00y, a:\xff, ")
    assert report["subject"] == report["issuer"] == r"CN=a\1B[2J\0Ab"


def test_each_certificate_is_reported(certs, check):
    out = tunnel("-t", "accept=0", "connect=1", f"cert={certs.server}",
                 f"cert={certs.rsa}")
    assert out.count("\tsubject ") == 2
    assert out.index("CN=server") < out.index("CN=rsa")


def test_effective_configuration(room, check, certs):
    """Arguments override the file, defaults are included, and the output is a
    valid configuration.
    """
    conf = room.write("tunnel.conf", f"""
# a comment
accept   =   127.0.0.1:4433
  accept=[::1]:4433
connect = 1
cert = {certs.server}
idle_timeout = 5m
alpn = h2
""")
    out = tunnel("-t", "-c", conf, "idle_timeout=7s", "tls_min=1.3")
    head = out.split("certificate ")[0]
    lines = head.splitlines()
    assert lines[:2] == ["accept = 127.0.0.1:4433", "accept = [::1]:4433"]
    assert "idle_timeout = 7s" in lines
    assert "tls_min = 1.3" in lines and "tls_max = 1.3" in lines
    assert "alpn = h2" in lines
    assert "half_close_timeout = 60s" in lines
    again = tunnel("-t", "-c", room.write("again.conf", head))
    # Compared without order: the order of the suites is measured at each
    # start.
    assert sorted(again.splitlines()) == sorted(out.splitlines())


def test_lists_of_arguments_replace_those_of_the_file(room, certs):
    conf = room.write("tunnel.conf", f"accept = 127.0.0.1:1\nconnect = 1\n"
                      f"connect = 2\ncert = {certs.server}\n")
    out = tunnel("-t", "-c", conf, "connect=3")
    assert re.findall("^connect = (.*)$", out, re.M) == ["3"]


def test_check_binds_nothing(room, certs):
    path = room.path("socket")
    with socket.create_server(("127.0.0.1", 0)) as s:
        tunnel("-t", f"accept={support.tcp_address(s)}",
               f"accept=unix:{path}", "connect=1", f"cert={certs.server}",
               f"pidfile={room.path('pid')}")
    assert os.listdir(room.dir) == []


def test_command_is_printed(certs):
    out = tunnel("-t", "accept=0", f"cert={certs.server}", "--", "sort", "-r")
    assert "# command: sort -r\n" in out


def test_report_on_client_certificates(room, certs):
    """Authorities and CRLs by name; the output is a valid configuration."""
    authority = Authority(room.dir, "Some CA")
    leaf = authority.leaf()
    given = {"verify": ["request"], "ca": [authority.crt],
             "crl": [authority.crl(ends=9.5 * DAY)],
             "peer": ["cn:a b", "ip:::1", pin(leaf)]}
    out = tunnel("-t", "accept=0", "connect=1", f"cert={certs.server}",
                 *(f"{key}={x}" for key, values in given.items()
                   for x in values))
    for key, values in given.items():
        assert re.findall(f"^{key} = (.*)$", out, re.M) == values
    assert '\n# client CA "CN=Some CA"\n# CRL of "CN=Some CA" (expires in 9 ' \
        'days)\n' in out
    head = out.split("certificate ")[0]
    again = tunnel("-t", "-c", room.write("again.conf", head))
    assert sorted(again.splitlines()) == sorted(out.splitlines())


SERVERS = ["client=yes", "accept=0", "connect=localhost:443",
           "connect=127.0.0.1:444", "connect=[::1]:445", "connect=446"]


@pytest.mark.parametrize("words,said", [
    ([], ["# localhost:443: verified as localhost",
          "# 127.0.0.1:444: verified as 127.0.0.1",
          "# [::1]:445: verified as ::1", "# 446: verified as 127.0.0.1"]),
    (["server_name=a.example.org", "connect=unix:/run/x"],
     ["# localhost:443: verified as a.example.org",
      "# unix:/run/x: verified as a.example.org"]),
    (["server_name=off"],
     ["# localhost:443: verified as localhost, no server name (SNI) is sent"]),
    (["peer=dns:a.example.org", "peer=dns:b.example.org"],
     ["# localhost:443: verified as one of the peer rules"]),
])
def test_report_on_servers(room, words, said):
    """The required server identity; the output is a valid configuration."""
    authority = Authority(room.dir, "Some CA")
    out = tunnel("-t", *SERVERS, f"ca={authority.crt}", *words)
    lines = out.splitlines()
    assert [x for x in said if x not in lines] == []
    assert "verify = require" in lines and "client = yes" in lines
    assert '# server CA "CN=Some CA"' in lines
    assert "client CA" not in out and "sni_strict" not in out
    again = tunnel("-t", "-c", room.write("again.conf", out))
    assert sorted(again.splitlines()) == sorted(lines)


def test_report_on_an_unverified_server():
    warning = "command line: verify: the server is not authenticated: " \
        "anyone can impersonate it"
    out = tunnel("-t", *SERVERS, "verify=none", warning=warning)
    assert "\n# localhost:443: not verified\n" in out
    assert "verified as" not in out
    assert warning in subprocess.run(
        [*support.UNDER, support.TUNNEL, "-tq", *SERVERS, "verify=none"],
        capture_output=True, text=True, timeout=support.DEADLINE).stderr


def test_certificate_of_a_client(room, certs, check):
    """The properties checked by servers; a missing name is not a fault."""
    authority = Authority(room.dir, "Some CA")
    leaf = authority.leaf()
    report, head = check(leaf, "client=yes", f"ca={authority.crt}")
    assert report["subject"] == "CN=app1"
    assert "# 1: verified as 127.0.0.1\n" in head


# -V and -h

def test_version():
    out = tunnel("-V")
    assert re.fullmatch(r"tunnel \d+\.\d+\.\d+ \(.*\)\nkernel TLS: .+\n"
                        r"groups: (\w+, )+\w+\n", out)
    assert re.search(r"[Mm]bed TLS (3\.6|4\.\d)\.\d+", out)
    assert re.search(r"\b(epoll|poll)\b", out)


def test_help_lists_every_key():
    out = tunnel("-h")
    assert out.startswith("usage: tunnel ")
    groups = out.split(" explains them:\n")[1].splitlines()
    keys = [key for line in groups for key in line[15:].split()]
    for key in keys:
        p = subprocess.run([support.TUNNEL, key + "="], text=True,
                           capture_output=True)
        assert f"{key} has no value" in p.stderr
    assert {"accept", "connect", "cert", "key", "tls_min", "log"} <= set(keys)
    for flag in "cdgikopqrtvV":
        assert re.search(rf"  -{flag}\b", out), flag


# -g

@pytest.fixture
def generated(room):
    path = room.path("generated.pem")
    assert tunnel("-g", "localhost,127.0.0.1,::1", "-o", path) == ""
    return path


def test_generated_certificate(generated):
    run("openssl", "verify", "-x509_strict", "-CAfile", generated, generated)
    run("openssl", "verify", "-CAfile", generated, "-purpose", "sslserver",
        "-verify_hostname", "localhost", generated)
    text = x509(generated, "-text").decode()
    assert "Version: 3" in text
    assert "Subject: CN=localhost\n" in text.replace(" = ", "=")
    for name in ("DNS:localhost", "IP Address:127.0.0.1",
                 "IP Address:0:0:0:0:0:0:0:1"):
        assert name in text
    assert "prime256v1" in text
    assert "ecdsa-with-SHA256" in text
    assert run("openssl", "pkey", "-in", generated, "-noout", "-check",
               ).strip() == b"Key is valid"


def test_generated_keys_differ():
    def parts():
        out = tunnel("-g", "a.example")
        return (out, run("openssl", "x509", "-noout", "-serial",
                         stdin=out.encode()))

    assert len({x for _ in range(5) for x in parts()}) == 10


def test_generated_names_in_their_order(generated, check):
    report, _ = check(generated)
    assert report["names"] == "localhost, 127.0.0.1, ::1"


@pytest.mark.parametrize("client", ["openssl", "curl", "gnutls-cli"])
def test_generated_certificate_is_a_trust_anchor(room, generated, client):
    if not shutil.which(client):
        pytest.skip(f"{client} is not installed")
    backend = room.backend().serve(support.http)
    t = room.tunnel(f"connect={backend.address}", f"cert={generated}")
    port = t.address.rsplit(":", 1)[1]
    request = b"GET /5 HTTP/1.0\r\n\r\n"
    if client == "openssl":
        out = run("openssl", "s_client", "-quiet", "-verify_return_error",
                  "-CAfile", generated, "-verify_hostname", "localhost",
                  "-connect", t.address, stdin=request)
    elif client == "curl":
        out = run("curl", "-sS", "-4", "--cacert", generated,
                  f"https://localhost:{port}/5")
    else:
        p = room.start("client", [
            "gnutls-cli", "--logfile=/dev/null", "--port=" + port,
            "--x509cafile=" + generated, "localhost"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out = p.popen.communicate(request, support.DEADLINE)[0]
        assert p.popen.returncode == 0
    assert out.endswith(b"xxxxx")


def test_generated_certificate_to_a_full_disk():
    with open("/dev/full", "wb") as f:
        p = subprocess.run([support.TUNNEL, "-g", "a.example"], stdout=f,
                           stderr=subprocess.PIPE)
    assert p.returncode != 0
    assert p.stderr.count(b"\n") == 1


def test_most_names(room):
    """Each of maximum length."""
    names = [f"{i:02}" + ".".join(["a" * 60] * 4)[:250] for i in range(32)]
    out = tunnel("-g", ",".join(names)).encode()
    text = run("openssl", "x509", "-noout", "-text", stdin=out).decode()
    assert all("DNS:" + name in text for name in names)
    out = tunnel("-r", ",".join(names), "-o", room.path("key")).encode()
    text = run("openssl", "req", "-noout", "-text", stdin=out).decode()
    assert all("DNS:" + name in text for name in names)


# -r

def test_request_for_a_certificate(room):
    """Signed by an ad-hoc CA, the only one trusted by the client."""
    ca, ca_key = room.path("ca.pem"), room.path("ca.key")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
        "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=CA", "-days", "9",
        "-keyout", ca_key, "-out", ca)
    key = room.path("key.pem")
    request = tunnel("-r", "localhost,127.0.0.1,::1", "-o", key)
    assert "PRIVATE" not in request
    assert request.startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    run("openssl", "req", "-verify", "-noout", stdin=request.encode())
    cert = room.write("cert.pem", run(
        "openssl", "x509", "-req", "-copy_extensions", "copy", "-days", "9",
        "-CA", ca, "-CAkey", ca_key, stdin=request.encode()).decode())
    assert "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1" \
        in x509(cert, "-ext", "subjectAltName").decode()
    t = room.tunnel(f"connect={room.backend().serve(support.http).address}",
                    f"cert={cert}", f"key={key}")
    out = run("openssl", "s_client", "-quiet", "-verify_return_error",
              "-CAfile", ca, "-verify_hostname", "localhost", "-connect",
              t.address, stdin=b"GET /5 HTTP/1.0\r\n\r\n")
    assert out.endswith(b"xxxxx")
