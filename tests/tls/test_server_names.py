"""The choice among several certificates by the name that a client asks for."""

import os
import re
import shutil
import signal
import ssl
import tempfile

import pytest

import peers
import support
from certificates import EC, LEAF, RSA, concatenate
from support import read_exactly, run


class Shelf:
    """Certificates for names, distinguished by their CN."""

    def __init__(self, certs):
        self.certs = certs
        self.dir = tempfile.mkdtemp(prefix="names.", dir=certs.dir)
        self.made = {}

    def get(self, cn, *names, key=EC):
        """Return the argument for a certificate.  names: as "DNS:a.example";
        without names, it has no subject alternative name.
        """
        if (cn, names, key) not in self.made:
            self.made[cn, names, key] = self.make(cn, names, key)
        return "cert=" + self.made[cn, names, key]

    def make(self, cn, names, key):
        san = "subjectAltName = " + ", ".join(names) + "\n" if names else ""
        extensions = re.sub("subjectAltName = .*\n", san, LEAF)
        stem = os.path.join(self.dir, str(len(self.made)))
        self.certs.issue(cn, extensions, key=key, to=stem)
        concatenate(stem + ".pem", stem + ".crt", stem + ".key")
        return stem + ".pem"


@pytest.fixture(scope="session")
def shelf(certs):
    shelf = Shelf(certs)
    yield shelf
    shutil.rmtree(shelf.dir)


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


def ask(room, t, name, version=None, session=None, **keywords):
    """Return a client before its handshake; it asks for this name, or for
    none, and accepts any certificate.
    """
    ctx = session.ctx if session else peers.context(room.certs, version,
                                                    **keywords)
    ctx.check_hostname = False
    return room.keep(peers.Client(t.address, ctx, name, session=session))


def served(room, t, name, version=None, **keywords):
    """Return the CN of the certificate for this name."""
    client = ask(room, t, name, version, **keywords).handshake()
    subject = dict(rdn[0] for rdn in client.tls.getpeercert()["subject"])
    client.close()
    return subject["commonName"]


def s_client(room, t, name, version, *arguments, status=0):
    """Return the messages of OpenSSL's client, as by version 3.5."""
    names = ("-servername", name) if name else ("-noservername",)
    return run("openssl", "s_client", "-connect", t.address,
               "-tls" + version.replace(".", "_"), "-CAfile", room.certs.ca,
               *names, *arguments, status=status).decode().replace(" = ", "=")


# By name.

def test_trailing_dot_does_not_matter(room, shelf, tunnel):
    """By OpenSSL, since Python's ssl can't send one."""
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               shelf.get("b", "DNS:b.example.org"))
    out = support.run("openssl", "s_client", "-connect", t.address,
                      "-servername", "b.example.org.", "-brief")
    assert re.search(b"CN ?= ?b\n", out)
    t.wait_log(" sni=b.example.org ")


@pytest.mark.parametrize("name,cn", [
    ("a.example.org", "a"), ("b.example.org", "b"), ("b.example.net", "b"),
    ("b2.example.org", "b"),
])
def test_each_name_has_its_own(room, shelf, tunnel, version, name, cn):
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               shelf.get("b", "DNS:b.example.org", "IP:192.0.2.1",
                         "DNS:b.example.net", "DNS:b2.example.org"))
    assert served(room, t, name, version) == cn
    t.wait_log(f" TLSv{version} .* sni={name} ")


@pytest.mark.parametrize("name", [None, "c.example.org", "example.org",
                                  "a.example.or", "a.example.org.org",
                                  "xb.example.org", "127.0.0.1"])
def test_first_one_if_there_is_none(room, shelf, tunnel, version, name):
    t = tunnel(shelf.get("first", "DNS:first.example.org"),
               shelf.get("a", "DNS:a.example.org"),
               shelf.get("b", "DNS:b.example.org"))
    assert served(room, t, name, version) == "first"


@pytest.mark.parametrize("name", ["B.EXAMPLE.ORG", "b.eXample.org",
                                  "X.Wild.Example.Org"])
def test_case_does_not_matter(room, shelf, tunnel, version, name):
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               shelf.get("b", "DNS:B.example.ORG", "DNS:*.wild.EXAMPLE.org"))
    assert served(room, t, name, version) == "b"
    t.wait_log(f" sni={name} ")  # as sent by the client


@pytest.mark.parametrize("name,cn", [
    ("a.example.org", "wild"), ("xn--a.example.org", "wild"),
    ("a-b_c.example.org", "wild"), ("a.b.example.org", "first"),
    ("example.org", "first"), ("xexample.org", "first"),
    ("a.example.org.net", "first"), ("org", "first"),
])
def test_wildcard_is_one_label(room, shelf, tunnel, version, name, cn):
    t = tunnel(shelf.get("first", "DNS:first.example.net"),
               shelf.get("wild", "DNS:*.example.org"))
    assert served(room, t, name, version) == cn


def test_wildcard_is_no_empty_label(room, shelf, tunnel, version):
    """By OpenSSL, since Python can't ask for it."""
    t = tunnel(shelf.get("first", "DNS:first.example.net"),
               shelf.get("wild", "DNS:*.example.org"))
    assert "CN=first\n" in s_client(room, t, ".example.org", version)
    t.wait_log(" sni=.example.org ")


@pytest.mark.parametrize("pattern,name", [
    ("www.*.org", "www.example.org"), ("w*.example.org", "www.example.org"),
    ("*w.example.org", "www.example.org"),
    ("*.*.example.org", "a.b.example.org"), ("*", "localhost"),
    ("**.example.org", "a.example.org"),
])
def test_star_elsewhere_is_no_wildcard(room, shelf, tunnel, pattern, name):
    t = tunnel(shelf.get("first", "DNS:first.example.net"),
               shelf.get("star", "DNS:" + pattern))
    assert served(room, t, name) == "first"


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_exact_name_beats_a_wildcard(room, shelf, tunnel, version, order):
    certs = (shelf.get("wild", "DNS:*.example.org"),
             shelf.get("a", "DNS:a.example.org"),
             shelf.get("other", "DNS:other.example.net"))
    t = tunnel(*(certs[i] for i in order))
    assert served(room, t, "a.example.org", version) == "a"
    assert served(room, t, "b.example.org", version) == "wild"


def test_first_of_two_with_the_same_name(room, shelf, tunnel, version):
    t = tunnel(shelf.get("other", "DNS:other.example.net"),
               shelf.get("one", "DNS:a.example.org"),
               shelf.get("two", "DNS:a.example.org"))
    assert served(room, t, "a.example.org", version) == "one"


def test_cn_is_no_name_beside_others(room, shelf, tunnel, version):
    """RFC 6125, 6.4.4: it counts only without other names."""
    t = tunnel(shelf.get("first", "DNS:first.example.net"),
               shelf.get("cn.example.org", "DNS:a.example.org"))
    assert served(room, t, "cn.example.org", version) == "first"
    assert served(room, t, "a.example.org", version) == "cn.example.org"


def test_cn_without_others_is_a_name(room, shelf, tunnel, version):
    t = tunnel(shelf.get("first", "DNS:first.example.net"),
               shelf.get("cn.example.org"))
    assert served(room, t, "CN.example.org", version) == "cn.example.org"
    assert served(room, t, "b.example.org", version) == "first"


def test_another_kind_of_name_is_not_the_server_s(room, shelf, tunnel):
    t = tunnel(shelf.get("first", "DNS:first.example.net"),
               shelf.get("mail", "email:mail.example.org",
                         "URI:uri.example.org", "DNS:a.example.org"))
    assert served(room, t, "mail.example.org") == "first"
    assert served(room, t, "uri.example.org") == "first"
    assert served(room, t, "a.example.org") == "mail"


def test_chain_of_a_name(room, shelf, tunnel, version):
    """Each certificate has only its own intermediates."""
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               f"cert={room.certs.chain}")
    for name, count in ("localhost", 2), ("a.example.org", 1):
        out = s_client(room, t, name, version, "-showcerts")
        assert out.count("BEGIN CERTIFICATE") == count
        assert "Verify return code: 0 (ok)" in out


def test_names_after_a_hello_retry_request(room, shelf, tunnel):
    """The client asks for the name twice."""
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               shelf.get("b", "DNS:b.example.org"), "groups=secp384r1")
    out = s_client(room, t, "b.example.org", "1.3", "-groups", "X25519:P-384")
    assert "CN=b\n" in out
    assert "Verify return code: 0 (ok)" in out


def test_a_reload_brings_other_names(room, shelf, backend):
    def write(*certs):
        return room.write("tunnel.conf", "\n".join([
            "accept=127.0.0.1:0", f"connect={backend.address}", *certs]))

    first = shelf.get("first", "DNS:first.example.net")
    t = room.tunnel("-c", write(first, shelf.get("a", "DNS:a.example.org")))
    assert served(room, t, "a.example.org") == "a"
    write(first, shelf.get("b", "DNS:b.example.org"))
    t.signal(signal.SIGHUP)
    t.wait_log("reloaded")
    assert served(room, t, "a.example.org") == "first"
    assert served(room, t, "b.example.org") == "b"


# By name, then by type of key.

KINDS = [("ecdsa", "ecdsa_secp256r1_sha256"),
         ("rsa", "rsa_pss_rsae_sha256:rsa_pkcs1_sha256")]


@pytest.fixture
def pair(shelf, tunnel):
    """Return ECDSA and RSA certificates for two names, in such an order that
    the first of each type has the wrong name.
    """
    return tunnel(
        shelf.get("other-rsa", "DNS:other.example.org", key=RSA),
        shelf.get("other-ecdsa", "DNS:other.example.org"),
        shelf.get("ecdsa", "DNS:a.example.org"),
        shelf.get("rsa", "DNS:a.example.org", key=RSA))


@pytest.mark.parametrize("kind,algorithms", KINDS)
def test_ecdsa_beside_rsa_for_a_name(room, pair, version, kind, algorithms):
    """The name selects two, and the client's signature algorithms one of them.
    """
    for name, prefix in ("a.example.org", ""), ("other.example.org", "other-"):
        out = s_client(room, pair, name, version, "-sigalgs", algorithms)
        assert f"CN={prefix}{kind}\n" in out
        assert "Verify return code: 0 (ok)" in out


@pytest.mark.parametrize("name", [None, "c.example.org"])
@pytest.mark.parametrize("kind,algorithms", KINDS)
def test_ecdsa_beside_rsa_without_a_name(room, pair, version, name, kind,
                                         algorithms):
    out = s_client(room, pair, name, version, "-sigalgs", algorithms)
    assert f"CN=other-{kind}\n" in out


@pytest.mark.parametrize("kind,cipher", [
    ("ecdsa", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("rsa", "ECDHE-RSA-AES128-GCM-SHA256"),
])
def test_suites_of_tls_1_2_choose_a_kind(room, pair, kind, cipher):
    assert served(room, pair, "a.example.org", "1.2", ciphers=cipher) == kind


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_order_of_a_client_that_knows_both(room, pair, order):
    """In TLS 1.3 the client's order decides."""
    kinds = [KINDS[i] for i in order]
    out = s_client(room, pair, "a.example.org", "1.3", "-sigalgs",
                   ":".join(algorithms for _, algorithms in kinds))
    assert f"CN={kinds[0][0]}\n" in out


def test_kind_that_a_name_does_not_have(room, shelf, tunnel, version):
    """A certificate for another name would be refused by any client."""
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               shelf.get("b-rsa", "DNS:b.example.org", key=RSA))
    out = s_client(room, t, "a.example.org", version, "-sigalgs", KINDS[1][1],
                   status=1)
    assert "alert handshake failure" in out
    t.wait_log("handshake: no cipher suite, group or signature in common$")


# With sni_strict.

@pytest.fixture
def strict(shelf, tunnel):
    return tunnel(shelf.get("a", "DNS:a.example.org"),
                  shelf.get("wild", "DNS:*.example.net"), "sni_strict=yes")


@pytest.mark.parametrize("name,cn", [("a.example.org", "a"),
                                     ("A.Example.Org", "a"),
                                     ("b.example.net", "wild")])
def test_strict_and_known(room, strict, version, name, cn):
    assert served(room, strict, name, version) == cn


REFUSED = [
    ("x.example", 'no certificate for the name "x.example"'),
    ("a.b.example.net", 'no certificate for the name "a.b.example.net"'),
    (None, "no server name was sent"),
]


@pytest.mark.parametrize("name,reason", REFUSED)
def test_strict_and_unknown(room, shelf, tunnel, version, name, reason):
    t = tunnel(shelf.get("a", "DNS:a.example.org"),
               shelf.get("wild", "DNS:*.example.net"), "sni_strict=yes",
               "log_level=notice")
    client = ask(room, t, name, version)
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.handshake()
    sni = f" sni={name}" if name else ""
    t.wait_log(rf" -> -{sni} in=0 out=0 \S+ {re.escape(reason)}$")
    assert support.statistics(t)["refused"] == 1


@pytest.mark.parametrize("name,reason", REFUSED)
def test_openssl_is_told_by_the_alert(room, strict, version, name, reason):
    out = s_client(room, strict, name, version, status=1)
    assert "SSL alert number 112" in out
    assert "BEGIN CERTIFICATE" not in out
    strict.wait_log(reason + "$")


def test_strict_after_a_hello_retry_request(room, shelf, tunnel):
    t = tunnel(shelf.get("a", "DNS:a.example.org"), "sni_strict=yes",
               "groups=secp384r1")
    out = s_client(room, t, "x.example", "1.3", "-groups", "X25519:P-384",
                   status=1)
    assert "SSL alert number 112" in out
    t.wait_log('no certificate for the name "x.example"$')
    assert "CN=a\n" in s_client(room, t, "a.example.org", "1.3", "-groups",
                                "X25519:P-384")


@pytest.mark.parametrize("junk", [b'"\n\x1b[2J', b"a\0b.ex", b"\xff\xfe..%n"])
def test_strict_and_no_host_name(room, strict, version, junk):
    """It is refused, and escaped in the log."""
    asked = "x" * len(junk)
    client = ask(room, strict, asked, version)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    hello = client.outgoing.read()
    assert hello.count(asked.encode()) == 1
    client.sock.sendall(hello.replace(asked.encode(), junk))
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.handshake()
    line = strict.wait_log(" -> - .* no certificate for the name ")
    assert re.search(r' sni=\(invalid\) in=0 out=0 \S+ no certificate for '
                     r'the name "[ -~]*"$', line)


# Resumed sessions.

def session(room, t, name, version, **keywords):
    """Return a session from a full handshake with this name, after some data.
    """
    client = ask(room, t, name, version, **keywords).handshake()
    client.send(b"x")
    read_exactly(client, 1)
    assert not client.resumed
    kept = client.session
    client.close()
    return kept


@pytest.mark.parametrize("version,tickets", [("1.2", True), ("1.2", False),
                                             ("1.3", True)])
def test_name_on_a_resumed_session(room, strict, version, tickets):
    kept = session(room, strict, "b.example.net", version, tickets=tickets)
    client = ask(room, strict, "b.example.net", session=kept).handshake()
    assert client.resumed
    client.close()
    strict.wait_log(f" TLSv{version} .*resumed sni=b.example.net ")


@pytest.mark.parametrize("name,reason", REFUSED)
def test_strict_on_a_resumed_session(room, strict, version, name, reason):
    """A session does not bypass it."""
    kept = session(room, strict, "a.example.org", version)
    client = ask(room, strict, name, session=kept)
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.handshake()
    strict.wait_log(f" -> - .* {reason}$")
