"""Servers, valid or with one fault each: a server that openssl(1) rejects is
refused, and cases in which the tunnel is stricter are listed.
"""

import os
import re
import shutil
import ssl
import tempfile

import pytest

import serving
import support
from certificates import HOUR
from chains import (AGREES, ANY, AUTHORITY, CLIENT, EMAIL, HOST, ISSUES, P384,
                    P521, RSA, SERVER, SIGNS, WEAK, Certificate, ED25519, Pki,
                    alternative, constraints, directory, dns, extension, ip,
                    limits, netscape, oid, sequence, tlv, uri, usage, uses)
from serving import ask
from support import run

# Making keys and certificates is slow on a busy machine.
pytestmark = pytest.mark.seconds(240)

NAME = "app.example.org"


def named(p, *names, **how):
    """Return a chain of one certificate with these names."""
    return [p.leaf(extensions=(*HOST, alternative(*names)), **how)]


def below(p, extensions, *names):
    return [*named(p, *(names or [dns(NAME)]),
                   issuer=(s := p.sub(extensions=extensions))), s]


def limited(p, *names, cn="app", **subtrees):
    s = p.sub(extensions=(*AUTHORITY, limits(**subtrees, critical=True)))
    return [*named(p, *(names or [dns(NAME)]), issuer=s, cn=cn), s]


# What the server sends, its own first; and the name to verify, if not
# NAME.  Pki collects the trusted issuers.
CHAINS = {
    # Names, RFC 9525 section 6.
    "its name": lambda p: named(p, dns(NAME)),
    "wrong name": lambda p: named(p, dns("db.example.org")),
    "no name": lambda p: [p.leaf(extensions=HOST)],
    "one of several": lambda p: named(p, *map(dns, ("x.org", "y.org", NAME))),
    "upper case": lambda p: named(p, dns(NAME.upper())),
    "asked for in upper case": (lambda p: named(p, dns(NAME)), NAME.upper()),
    "longer name": lambda p: named(p, dns("x" + NAME)),
    "parent": lambda p: named(p, dns("example.org")),
    "child": lambda p: named(p, dns("x." + NAME)),
    "trailing dot": lambda p: named(p, dns(NAME + ".")),
    "leading dot": lambda p: named(p, dns(".example.org")),
    "wildcard": lambda p: named(p, dns("*.example.org")),
    "wildcard in upper case": lambda p: named(p, dns("*.EXAMPLE.org")),
    "wildcard of two labels": (lambda p: named(p, dns("*.example.org")),
                               "x.app.example.org"),
    "wildcard of no label": (lambda p: named(p, dns("*.example.org")),
                             "example.org"),
    "wildcard further in": lambda p: named(p, dns("app.*.org")),
    "two wildcards": lambda p: named(p, dns("*.*.org")),
    "partial wildcard": lambda p: named(p, dns("a*.example.org")),
    "partial wildcard behind": lambda p: named(p, dns("*p.example.org")),
    "wildcard of a domain": (lambda p: named(p, dns("*.org")), "example.org"),
    "wildcard of a domain, dot": (lambda p: named(p, dns("*.org.")),
                                  "example.org"),
    "wildcard alone": (lambda p: named(p, dns("*")), "localhost"),
    "one label": (lambda p: named(p, dns("localhost")), "localhost"),
    "underscore": (lambda p: named(p, dns("my_app.example.org")),
                   "my_app.example.org"),
    "underscore in a wildcard": (lambda p: named(p, dns("*.example.org")),
                                 "my_app.example.org"),
    "A-label": (lambda p: named(p, dns("xn--bcher-kva.example.org")),
                "xn--bcher-kva.example.org"),
    "A-label in a wildcard": (lambda p: named(p, dns("*.example.org")),
                              "xn--bcher-kva.example.org"),
    "U-label": (lambda p: named(p, dns("bücher.example.org")),
                "xn--bcher-kva.example.org"),
    "NUL": lambda p: named(p, dns(NAME + "\0.example.net")),
    "NUL at the end": lambda p: named(p, dns(NAME + "\0")),
    "name as a URI": lambda p: named(p, uri("https://" + NAME)),
    "common name": lambda p: [p.leaf(cn=NAME, extensions=HOST)],
    "common name, wildcard": lambda p: [p.leaf(cn="*.example.org",
                                               extensions=HOST)],
    "common name, other": lambda p: [p.leaf(cn="db.example.org",
                                            extensions=HOST)],
    "common name, NUL": lambda p: [p.leaf(cn=NAME + "\0x", extensions=HOST)],
    "two common names, the last": lambda p: [p.leaf(
        cn=("db.example.org", NAME), extensions=HOST)],
    "two common names, the first": lambda p: [p.leaf(
        cn=(NAME, "db.example.org"), extensions=HOST)],
    "common name beside a DNS name": lambda p: named(
        p, dns("db.example.org"), cn=NAME),
    "common name beside an address": lambda p: named(
        p, ip(192, 0, 2, 1), cn=NAME),
    "address": (lambda p: named(p, ip(192, 0, 2, 1)), "192.0.2.1"),
    "wrong address": (lambda p: named(p, ip(192, 0, 2, 2)), "192.0.2.1"),
    "address as a DNS name": (lambda p: named(p, dns("192.0.2.1")),
                              "192.0.2.1"),
    "address as a common name": (lambda p: [p.leaf(
        cn="192.0.2.1", extensions=HOST)], "192.0.2.1"),
    "IPv6 address": (lambda p: named(p, ip(*[0x20, 1, 0xd, 0xb8] +
                                           [0] * 11 + [1])), "2001:db8::1"),
    "IPv4 address as one of IPv6": (lambda p: named(p, ip(
        *[0] * 10, 255, 255, 192, 0, 2, 1)), "192.0.2.1"),

    # Dates, and the chain to a root.
    "expired": lambda p: [p.leaf(ends=-HOUR)],
    "not yet valid": lambda p: [p.leaf(starts=HOUR)],
    "one between": lambda p: p.below(),
    "three between": lambda p: p.under(
        c := p.sub(b := p.sub(p.sub_of_good)), b, p.sub_of_good),
    "four between": lambda p: p.under(
        d := p.sub(c := p.sub(b := p.sub(p.sub_of_good))), c, b,
        p.sub_of_good),
    "five between": lambda p: p.under(
        e := p.sub(d := p.sub(c := p.sub(b := p.sub(p.sub_of_good)))), d, c,
        b, p.sub_of_good),
    "root sent, too": lambda p: [*p.below(), p.good],
    "intermediate expired": lambda p: p.below(ends=-HOUR),
    "intermediate not yet valid": lambda p: p.below(starts=HOUR),
    "root expired": lambda p: [p.leaf(p.root(ends=-HOUR))],
    "unknown CA": lambda p: p.under(Certificate(
        "Own", p.key("other"), extensions=AUTHORITY)),
    "signed by itself": lambda p: [Certificate(
        "app", p.key("leaf"), extensions=p.holder)],
    "trusted by itself": lambda p: [p.trust(Certificate(
        "itself", p.key("leaf"), extensions=p.holder))],
    "trusted by itself, wrong name": lambda p: [p.trust(Certificate(
        "itself, too", p.key("leaf"), extensions=(
            *HOST, alternative(dns("db.example.org")))))],
    "intermediate missing": lambda p: p.below()[:1],
    "intermediate trusted": lambda p: [p.leaf(p.trust(p.sub()))],
    "wrong order": lambda p: [p.leaf(s := p.sub(t := p.sub())), t, s],
    "reverse order": lambda p: [p.leaf(s := p.sub(t := p.sub(
        u := p.sub()))), p.good, u, t, s],
    "root before the intermediate": lambda p: [(x := p.below())[0], p.good,
                                               x[1]],
    "one too many": lambda p: [*p.below(), p.sub()],
    "forged": lambda p: [p.leaf(forged=p.key("other"))],
    "intermediate forged": lambda p: p.below(forged=p.key("other")),
    "expired cross-signature of a root": lambda p: [
        p.leaf(s := p.sub(r := p.root("New root", key="new"))), s, p.sub(
            Certificate("Old root", p.key("other"), extensions=AUTHORITY),
            cn=r.cn, key="new", ends=-HOUR)],
    "cross-signature of an unknown root": lambda p: [
        p.leaf(s := p.sub(r := p.root("Newer root", key="new"))), s, p.sub(
            Certificate("Old root", p.key("other"), extensions=AUTHORITY),
            cn=r.cn, key="new")],
    "expired root of an old one": lambda p: [p.leaf(s := p.sub(p.sub(
        p.root(ends=-HOUR), cn=(r := p.root("Renewed root", key="new")).cn,
        key="new"))), s],

    # Permission to issue.
    "intermediate is no CA": lambda p: below(
        p, (constraints(False), usage(ISSUES))),
    "intermediate without constraints": lambda p: below(p, (usage(ISSUES),)),
    "intermediate without key usage": lambda p: below(p, (constraints(),)),
    "intermediate signs other things": lambda p: below(
        p, (constraints(), usage(SIGNS))),
    "issued by a server": lambda p: p.under(p.leaf(cn="eve")),
    "path of 0, exceeded": lambda p: p.below(p.root(
        extensions=(constraints(length=0), usage(ISSUES)))),
    "path of 1, used": lambda p: p.below(p.root(
        extensions=(constraints(length=1), usage(ISSUES)))),
    "root of version 1": lambda p: [p.leaf(p.root(
        extensions=(), ids=(), version=1), ids=())],
    "intermediate of version 1": lambda p: [p.leaf(s := p.sub(
        extensions=(), ids=(), version=1), ids=()), s],

    # Purpose.
    "for clients": lambda p: [p.leaf(extensions=(
        uses(CLIENT), alternative(dns(NAME))))],
    "for both": lambda p: [p.leaf(extensions=(
        uses(CLIENT, SERVER), alternative(dns(NAME))))],
    "for any use": lambda p: [p.leaf(extensions=(
        uses(ANY), alternative(dns(NAME))))],
    "for mail": lambda p: [p.leaf(extensions=(
        uses(EMAIL), alternative(dns(NAME))))],
    "for nothing special": lambda p: [p.leaf(extensions=(
        alternative(dns(NAME)),))],
    "intermediate for clients": lambda p: below(
        p, (*AUTHORITY, uses(CLIENT))),
    "intermediate for servers": lambda p: below(
        p, (*AUTHORITY, uses(SERVER))),
    "intermediate for any use": lambda p: below(p, (*AUTHORITY, uses(ANY))),
    "root for clients": lambda p: [p.leaf(p.root(
        extensions=(*AUTHORITY, uses(CLIENT))))],
    "key for encryption": lambda p: [p.leaf(
        extensions=(usage(2), uses(SERVER), alternative(dns(NAME))),
        key="rsa", kind=RSA)],
    "key for agreement": lambda p: [p.leaf(extensions=(
        usage(AGREES), alternative(dns(NAME))))],
    "key for issuing": lambda p: [p.leaf(extensions=(
        usage(ISSUES), alternative(dns(NAME))))],
    "Netscape's server": lambda p: [p.leaf(extensions=(
        netscape(1), alternative(dns(NAME))))],
    "Netscape's client": lambda p: [p.leaf(extensions=(
        netscape(0), alternative(dns(NAME))))],

    # Name constraints.
    "kept DNS constraints": lambda p: limited(
        p, permitted=[dns("example.org")]),
    "broken DNS constraints": lambda p: limited(
        p, permitted=[dns("example.net")]),
    "excluded DNS name": lambda p: limited(p, excluded=[dns("example.org")]),
    "wildcard within constraints": lambda p: limited(
        p, dns("*.example.org"), permitted=[dns("example.org")]),
    "name excluded, below a wildcard": lambda p: limited(
        p, dns("*.example.org"), excluded=[dns(NAME)]),
    "another name is not permitted": lambda p: limited(
        p, dns(NAME), dns("x.net"), permitted=[dns("example.org")]),
    "kept IP constraints": (lambda p: limited(
        p, ip(192, 0, 2, 1), permitted=[ip(192, 0, 2, 0, 255, 255, 255, 0)]),
        "192.0.2.1"),
    "broken IP constraints": (lambda p: limited(
        p, ip(192, 0, 2, 1), permitted=[ip(10, 0, 0, 0, 255, 0, 0, 0)]),
        "192.0.2.1"),
    "as public authorities limit": lambda p: limited(
        p, permitted=[dns("example.org"), directory("app")],
        excluded=[ip(*[0] * 8), ip(*[0] * 32)]),
    "broken directory constraints": lambda p: limited(
        p, permitted=[directory("other")]),
    "common name breaks constraints": lambda p: [p.leaf(s := p.sub(
        extensions=(*AUTHORITY, limits([dns("example.net")], critical=True))),
        cn=NAME, extensions=HOST), s],
    "wildcard as a common name breaks constraints": lambda p: [p.leaf(
        s := p.sub(extensions=(*AUTHORITY, limits(
            [dns("example.net")], critical=True))),
        cn="*.example.org", extensions=HOST), s],
    "common name of one label breaks constraints": (lambda p: [p.leaf(
        s := p.sub(extensions=(*AUTHORITY, limits(
            [dns("example.net")], critical=True))),
        cn="db", extensions=HOST), s], "db"),
    "common name of one label, not looked at": lambda p: limited(
        p, cn="db", permitted=[dns("example.org")]),
    "common name of one label beside an address": (lambda p: limited(
        p, ip(192, 0, 2, 1), cn="db", permitted=[dns("example.org")]),
        "192.0.2.1"),
    "root's constraints broken": lambda p: [p.leaf(p.root(
        extensions=(*AUTHORITY, limits([dns("example.net")]))))],

    # Revocation.
    "not revoked": lambda p: [p.leaf(r := p.root()), p.crl(r, p.leaf(r))],
    "revoked": lambda p: [x := p.leaf(r := p.root()), p.crl(r, x)],
    "intermediate revoked": lambda p: [*(x := p.below(r := p.root())), p.crl(
        r, x[1]), p.crl(x[1])],
    "CRL expired": lambda p: [p.leaf(r := p.root()), p.crl(r, ends=-HOUR)],

    # Signatures, keys, and the rest.
    "SHA-1": lambda p: [p.leaf(digest="sha1")],
    "SHA-512": lambda p: [p.leaf(digest="sha512")],
    "root by SHA-1": lambda p: [p.leaf(p.root(digest="sha1"))],
    "RSA": lambda p: [p.leaf(key="rsa", kind=RSA)],
    "RSA of 1024 bits": lambda p: [p.leaf(key="weak", kind=WEAK)],
    "P-384": lambda p: [p.leaf(key="p384", kind=P384)],
    "P-521": lambda p: [p.leaf(key="p521", kind=P521)],
    "Ed25519": lambda p: [p.leaf(key="ed25519", kind=ED25519)],
    "unknown, critical": lambda p: [p.leaf(extensions=(
        *p.holder, extension("1.2.3.4", tlv(5), True)))],
    "intermediate's unknown, critical": lambda p: below(
        p, (*AUTHORITY, extension("1.2.3.4", tlv(5), True))),
    "policy, critical": lambda p: [p.leaf(extensions=(
        *p.holder, extension("2.5.29.32", sequence(sequence(
            oid("1.2.3.4"))), True)))],
    "malformed name": lambda p: [p.leaf(extensions=(
        *HOST, alternative(b"\x82\x7f")))],
}

# Servers that openssl(1) accepts and the tunnel does not, and why.
LIBRARY = "mbed TLS does not read it, or not at that place"
WEAK_ONE = "too weak for TLS today; OpenSSL leaves that to its security level"
PARTIAL = "a star is a whole label, RFC 9525 section 6.3"
STRICTER = {
    "partial wildcard": PARTIAL,
    "partial wildcard behind": PARTIAL,
    "two common names, the first": "the last one is the most specific",
    "five between": "more than five certificates cost too much",
    "intermediate without key usage": "it has to say that it may issue",
    "key for encryption": "TLS 1.3 and ECDHE sign",
    "key for agreement": "TLS 1.3 and ECDHE sign",
    "name excluded, below a wildcard": "it stands for the one excluded",
    "wildcard as a common name breaks constraints": "it stands for names",
    "common name of one label breaks constraints": "it is a host's name, too",
    "SHA-1": WEAK_ONE,
    "RSA of 1024 bits": WEAK_ONE,
    "Ed25519": "mbed TLS has no such signatures",
    "policy, critical": LIBRARY,
}
if not support.PATCHED:
    for what in "wrong order", "reverse order":
        STRICTER[what] = "before its issuer, RFC 5246 section 7.4.2"
    for what in ("kept DNS constraints", "wildcard within constraints",
                 "kept IP constraints", "as public authorities limit",
                 "common name of one label, not looked at",
                 "common name of one label beside an address"):
        STRICTER[what] = LIBRARY
if "secp521r1" not in support.GROUPS:
    STRICTER["P-521"] = "a curve that this mbed TLS lacks"

# The reason in the log, and the alert; the others are only checked to be
# refused.
NOT_NAMED = "name mismatch: the certificate is for "
WORDS = {
    "wrong name": (NOT_NAMED + "db.example.org", "BAD_CERTIFICATE"),
    "no name": (NOT_NAMED + "app", "BAD_CERTIFICATE"),
    "common name beside a DNS name": (NOT_NAMED + "db.example.org",
                                      "BAD_CERTIFICATE"),
    "wrong address": (NOT_NAMED + "192.0.2.2", "BAD_CERTIFICATE"),
    "NUL": (NOT_NAMED + NAME + "\\x00...", "BAD_CERTIFICATE"),
    "U-label": (NOT_NAMED + "b\\xc3\\xbccher.example.org", "BAD_CERTIFICATE"),
    "name as a URI": (NOT_NAMED + "app", "BAD_CERTIFICATE"),
    "expired": ("expired 60 minutes ago", "CERTIFICATE_EXPIRED"),
    "unknown CA": ('unknown issuer "CN=Own"', "UNKNOWN_CA"),
    "signed by itself": ('unknown issuer "CN=app" (self-issued)', "UNKNOWN_CA"),
    "revoked": ("revoked", "CERTIFICATE_REVOKED"),
    "for clients": ("not for server authentication", "UNSUPPORTED_CERTIFICATE"),
    "broken DNS constraints": (
        "its names are outside its issuers' name constraints",
        "BAD_CERTIFICATE"),
    "unknown, critical": ("its critical extension 1.2.3.4 is not supported",
                          "BAD_CERTIFICATE"),
    "intermediate missing": ('unknown issuer "CN=Sub ', "UNKNOWN_CA"),
    "not yet valid": ("not valid before 20", "CERTIFICATE_EXPIRED"),
    "issued by a server": ('unknown issuer "CN=eve"', "UNKNOWN_CA"),
    "trusted by itself, wrong name": (NOT_NAMED + "db.example.org",
                                      "BAD_CERTIFICATE"),
    "SHA-1": ("its signature is too weak", "UNSUPPORTED_CERTIFICATE"),
    "intermediate expired": ("expired 60 minutes ago", "CERTIFICATE_EXPIRED"),
}
if not support.PATCHED:
    # The library refuses them, whatever is in the critical extension.
    for what in "broken DNS constraints", "unknown, critical":
        del WORDS[what]


class Chained(serving.Server):
    """A server with such a chain, and openssl(1)'s verdict on it."""

    def __init__(self, pki, stem, made):
        make, self.name = made if isinstance(made, tuple) else (made, NAME)
        chain = make(pki)
        self.pki, self.crl = pki, None in chain  # from Pki.crl()
        chain = [x for x in chain if x is not None]
        with open(chain[0].key.path) as key, open(stem, "w") as f:
            f.write("".join(x.pem for x in chain) + key.read())
        super().__init__(stem)

    def lists(self):
        return self.pki.lists if self.crl else None

    def objection(self):
        """Return why openssl(1) rejects it, or None.  As in the tunnel, a
        trusted issuer needs no root.
        """
        is_address = re.fullmatch(r"[\d.]+|.*:.*", self.name)
        lists = ("-crl_check_all", "-CRL", self.lists()) if self.crl else ()
        out = run("openssl", "s_client", "-connect", self.address, "-CAfile",
                  self.pki.ca, "-partial_chain", "-purpose", "sslserver",
                  "-verify_return_error", "-cipher", "DEFAULT:@SECLEVEL=0",
                  "-verify_ip" if is_address else "-verify_hostname",
                  self.name, *lists, status=None).decode()
        self.result()
        return None if "Verify return code: 0 (ok)" in out and \
            "Cipher is (NONE)" not in out else out


@pytest.fixture(scope="module")
def pki():
    directory = tempfile.mkdtemp(prefix="tunnel-servers.")
    pki = Pki(directory, (*HOST, alternative(dns(NAME))))
    pki.servers = {what: Chained(pki, os.path.join(directory, f"{i}.pem"), made)
                   for i, (what, made) in enumerate(CHAINS.items())}
    pki.write()
    yield pki
    for server in pki.servers.values():
        server.close()
    shutil.rmtree(directory)


def through_us(server, version, *arguments):
    lists = (f"crl={server.lists()}",) if server.crl else ()
    return ask(f"connect={server.address}", f"server_name={server.name}",
               f"tls_min={version}", f"tls_max={version}",
               *(arguments or (f"ca={server.pki.ca}", *lists)))


@pytest.mark.parametrize("what", CHAINS)
def test_verdict(pki, version, what):
    server = pki.servers[what]
    if server.ctx is None:
        pytest.skip(f"this OpenSSL takes no such file: {server.unfit}")
    objection = server.objection()
    got, log = through_us(server, version)
    end = server.result()
    if objection is None and what not in STRICTER:
        assert (got, end) == (b"hello", "served"), log
        return
    assert got == "ConnectionResetError", (objection, log)
    assert end not in ("served", "left")
    reason, alert = WORDS.get(what, ("", end))
    line = re.search(r"(?m)no backend: (\S+): (.*)$", log)
    assert line and reason in line[2] and end == alert, log


@pytest.mark.parametrize("what", STRICTER)
def test_stricter_is_stricter(pki, what):
    """Stricter than openssl(1); otherwise the case does not belong there."""
    assert pki.servers[what].objection() is None


@pytest.mark.parametrize("what", ["wrong name", "unknown CA", "expired"])
def test_unverified(pki, version, what):
    """It is accepted, since the user was warned."""
    server = pki.servers[what]
    got, log = through_us(server, version, "verify=none")
    assert (got, server.result()) == (b"hello", "served"), log


HELLO, ALERT, CHANGE, DATA = 22, 21, 20, 23


@pytest.mark.parametrize("what", ["wrong name", "unknown CA", "expired"])
def test_nothing_is_shown(certs, pki, version, what):
    """A refused server gets neither our certificate nor a Finished, but an
    alert; in TLS 1.3 under the keys that it then reads with.
    """
    server = pki.servers[what]
    server.ctx.load_verify_locations(certs.ca)
    server.ctx.verify_mode = ssl.CERT_OPTIONAL
    tap = serving.Tap(server)
    try:
        got, log = ask(f"connect={tap.address}", f"server_name={NAME}",
                       f"ca={pki.ca}", f"cert={certs.server}",
                       f"tls_min={version}", f"tls_max={version}")
        assert got == "ConnectionResetError", log
        assert server.result() == {"unknown CA": "UNKNOWN_CA",
                                   "wrong name": "BAD_CERTIFICATE",
                                   "expired": "CERTIFICATE_EXPIRED"}[what]
    finally:
        server.ctx.verify_mode = ssl.CERT_NONE
    hello, *rest = tap.records()
    assert hello[0] == HELLO
    if version == "1.2":
        assert rest == [(ALERT, 2)]
        return
    (kind, size), = (x for x in rest if x[0] != CHANGE)
    # The alert is padded; a Finished would be longer.
    assert size <= 32 and kind == (DATA if support.PATCHED else ALERT)
