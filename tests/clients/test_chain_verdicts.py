"""Certificate chains of clients, valid or with one fault each: a chain that
openssl(1) rejects is refused, in a full handshake and by a session; cases in
which the tunnel is stricter are listed.
"""

import functools
import os
import shutil
import ssl
import tempfile

import pytest

import peers
import support
from certificates import HOUR
from chains import (AGREES, ANY, AUTHORITY, CLIENT, EMAIL, ISSUES, P384,
                    PERSON, REVOKES, RSA, SERVER, SIGNS, WEAK, Certificate,
                    Pki, alternative, constraints, directory, dns, extension,
                    ip, issuer_id, limits, mail, netscape, oid, sequence, tlv,
                    uri, usage, uses)
from rooms import open_room
from support import run

# Making keys and certificates is slow on a busy machine.
pytestmark = pytest.mark.seconds(240)

# What the client sends, its own first.  Pki collects the trusted issuers.
CHAINS = {
    "issued by a root": lambda p: [p.leaf()],
    "one between": lambda p: p.below(),
    "three between": lambda p: p.under(
        c := p.sub(b := p.sub(p.sub_of_good)), b, p.sub_of_good),
    "root sent, too": lambda p: [*p.below(), p.good],
    "no key identifiers": lambda p: [p.leaf(s := p.sub(ids=()), ids=()), s],
    "RSA": lambda p: [p.leaf(key="rsa", kind=RSA)],
    "P-384": lambda p: [p.leaf(key="p384", kind=P384)],
    "SHA-512": lambda p: [p.leaf(digest="sha512")],
    "intermediate trusted": lambda p: [p.leaf(p.trust(p.sub()))],
    "trusted by itself": lambda p: [p.trust(Certificate(
        "self", p.key("leaf"), extensions=PERSON))],
    "trusted for itself": lambda p: [p.trust(p.leaf(Certificate(
        "nobody", p.key("other"), extensions=AUTHORITY)))],
    "intermediate root expired, trusted": lambda p: [p.leaf(p.trust(p.sub(
        p.sub(ends=-HOUR))))],

    # Dates.
    "expired": lambda p: [p.leaf(ends=-HOUR)],
    "not yet valid": lambda p: [p.leaf(starts=HOUR)],
    "intermediate expired": lambda p: p.below(ends=-HOUR),
    "intermediate not yet valid": lambda p: p.below(starts=HOUR),
    "root expired": lambda p: [p.leaf(p.root(ends=-HOUR))],
    "root not yet valid": lambda p: [p.leaf(p.root(starts=HOUR))],
    "date without seconds": lambda p: [p.leaf(
        date=lambda text: text[:-3] + "Z")],
    "date without zone": lambda p: [p.leaf(date=lambda text: text[:-1])],

    # Path length.
    "path of 0, used": lambda p: [p.leaf(p.root(
        extensions=(constraints(length=0), usage(ISSUES))))],
    "path of 0, exceeded": lambda p: p.below(p.root(
        extensions=(constraints(length=0), usage(ISSUES)))),
    "path of 1, used": lambda p: p.below(p.root(
        extensions=(constraints(length=1), usage(ISSUES)))),
    "path of 1, exceeded": lambda p: p.under(s := p.sub(t := p.sub(p.root(
        extensions=(constraints(length=1), usage(ISSUES))))), t),
    "intermediate's path of 0, used": lambda p: p.below(
        extensions=(constraints(length=0), usage(ISSUES))),
    "intermediate's path of 0, exceeded": lambda p: p.under(s := p.sub(
        t := p.sub(extensions=(constraints(length=0), usage(ISSUES)))), t),
    "path counts no renewal": lambda p: p.under(s := p.sub(
        t := p.root(extensions=(constraints(length=0), usage(ISSUES))),
        cn=t.cn)),
    "negative path": lambda p: p.below(extensions=(
        extension("2.5.29.19", sequence(tlv(1, b"\xff"), tlv(2, b"\xff")),
                  True), usage(ISSUES))),
    "path without CA": lambda p: [p.leaf(
        extensions=(constraints(False, 0), *PERSON))],

    # Permission to issue.
    "intermediate is no CA": lambda p: p.below(
        extensions=(constraints(False), usage(ISSUES))),
    "intermediate without constraints": lambda p: p.below(
        extensions=(usage(ISSUES),)),
    "intermediate without extensions": lambda p: p.below(
        extensions=(), ids=()),
    "constraints not critical": lambda p: p.below(
        extensions=(constraints(critical=False), usage(ISSUES))),
    "intermediate without key usage": lambda p: p.below(
        extensions=(constraints(),)),
    "intermediate signs other things": lambda p: p.below(
        extensions=(constraints(), usage(SIGNS, REVOKES))),
    "root is no CA": lambda p: [p.leaf(p.root(
        extensions=(constraints(False), usage(ISSUES))))],
    "root without constraints": lambda p: [p.leaf(p.root(
        extensions=(usage(ISSUES),)))],
    "root without key usage": lambda p: [p.leaf(p.root(
        extensions=(constraints(),)))],
    "root signs other things": lambda p: [p.leaf(p.root(
        extensions=(constraints(), usage(SIGNS))))],
    "root without extensions": lambda p: [p.leaf(p.root(
        extensions=(), ids=()))],
    "root of version 1": lambda p: [p.leaf(p.root(
        extensions=(), ids=(), version=1), ids=())],
    "intermediate of version 1": lambda p: p.below(
        extensions=(), ids=(), version=1),
    "intermediate of version 1, trusted": lambda p: [p.leaf(p.trust(p.sub(
        extensions=(), ids=(), version=1)), ids=())],
    "version 1": lambda p: [p.leaf(extensions=(), ids=(), version=1)],
    "version 1 with extensions": lambda p: [p.leaf(version=1)],
    "CA as a client": lambda p: [p.leaf(
        extensions=(constraints(), usage(SIGNS, ISSUES)))],
    "issued by a client": lambda p: p.under(p.leaf(cn="eve")),
    "issued by a client without key usage": lambda p: p.under(p.leaf(
        cn="eve", extensions=(uses(CLIENT),))),

    # The proofs of concept of CVE-2026-49300: end entities as CAs.
    **{f"constraints {value}{text}": lambda p, value=value, more=more: p.under(
        p.leaf(cn="eve", extensions=(extension(
            "2.5.29.19", bytes.fromhex(value), True), *more)))
       for value in ("3003020101", "30000101ff", "3003010101", "3000")
       for text, more in (("", ()), (", to sign", (usage(SIGNS),)))},
    "malformed constraints": lambda p: [p.leaf(extensions=(extension(
        "2.5.29.19", bytes.fromhex("3003020101")), *PERSON))],

    # Extended key usage, at each level.
    "for servers": lambda p: [p.leaf(extensions=(uses(SERVER),))],
    "for both": lambda p: [p.leaf(extensions=(uses(SERVER, CLIENT),))],
    "for any use": lambda p: [p.leaf(extensions=(uses(ANY),))],
    "for any use, and clients": lambda p: [p.leaf(
        extensions=(uses(ANY, CLIENT),))],
    "for mail": lambda p: [p.leaf(extensions=(uses(EMAIL),))],
    "for no use": lambda p: [p.leaf(extensions=(uses(),))],
    "for clients, critical": lambda p: [p.leaf(
        extensions=(uses(CLIENT, critical=True),))],
    "for nothing special": lambda p: [p.leaf(extensions=())],
    **{f"{which} for {text}": lambda p, which=which, numbers=numbers: (
        [p.leaf(p.root(extensions=(*AUTHORITY, uses(*numbers))))]
        if which == "root" else p.below(
            extensions=(*AUTHORITY, uses(*numbers)))
        if which == "intermediate" else p.under(s := p.sub(t := p.sub(
            extensions=(*AUTHORITY, uses(*numbers)))), t))
       for which in ("root", "intermediate", "upper intermediate")
       for text, numbers in (("servers", (SERVER,)), ("any use", (ANY,)),
                             ("both", (SERVER, CLIENT)))},

    # Key usage, and its predecessors.
    "key for agreement": lambda p: [p.leaf(extensions=(usage(AGREES),))],
    "key for encryption": lambda p: [p.leaf(
        extensions=(usage(2), uses(CLIENT)), key="rsa", kind=RSA)],
    "empty key usage": lambda p: p.below(extensions=(
        constraints(), extension("2.5.29.15", tlv(3, b"\0")))),
    "Netscape's client": lambda p: [p.leaf(extensions=(netscape(0),))],
    "Netscape's server": lambda p: [p.leaf(extensions=(netscape(1),))],
    "Netscape's server, for clients": lambda p: [p.leaf(
        extensions=(netscape(1, 2), *PERSON))],
    "Netscape's client and server": lambda p: [p.leaf(
        extensions=(netscape(0, 1), *PERSON))],
    "Netscape's CA": lambda p: p.below(
        extensions=(netscape(5), usage(ISSUES))),

    # Name constraints.
    **{f"{text} constraints{critical}": lambda p, c=c, critical=critical,
       names=names: [p.leaf(s := p.sub(extensions=(*AUTHORITY, limits(
           **c, critical=bool(critical)))), extensions=(
               *PERSON, alternative(*names))), s]
       for text, c, names in (
           ("kept DNS", {"permitted": [dns("example.org")]},
            [dns("a.example.org")]),
           ("broken DNS", {"permitted": [dns("example.org")]},
            [dns("a.example.net")]),
           ("excluded DNS", {"excluded": [dns("example.net")]},
            [dns("a.example.net")]),
           ("kept IP", {"permitted": [ip(192, 0, 2, 0, 255, 255, 255, 0)]},
            [ip(192, 0, 2, 1)]),
           ("broken IP", {"permitted": [ip(192, 0, 2, 0, 255, 255, 255, 0)]},
            [ip(198, 51, 100, 1)]),
           ("kept IPv6", {"permitted": [ip(*[0] * 32)]}, [ip(*[1] * 16)]),
           ("excluded IP", {"excluded": [ip(*[0] * 8)]},
            [ip(198, 51, 100, 1)]),
           ("excluded other IP", {"excluded": [ip(*[0] * 32)]},
            [ip(198, 51, 100, 1)]),
           ("malformed IP", {"permitted": [ip(192, 0, 2, 0)]},
            [ip(192, 0, 2, 0)]),
           ("one of two DNS", {"permitted": [dns("x.org"), dns("Example.Org")]},
            [dns("a.example.org"), dns("example.ORG")]),
           ("one of two names", {"permitted": [dns("example.org")]},
            [dns("a.example.org"), dns("a.example.net")]),
           ("almost DNS", {"permitted": [dns("example.org")]},
            [dns("anexample.org")]),
           ("all DNS", {"permitted": [dns("")]}, [dns("a.example.org")]),
           ("no DNS", {"excluded": [dns("")]}, [dns("a.example.org")]),
           ("DNS below", {"permitted": [dns(".example.org")]},
            [dns("a.example.org")]),
           ("DNS not below", {"permitted": [dns(".example.org")]},
            [dns("example.org")]),
           ("wildcard DNS", {"permitted": [dns("example.org")]},
            [dns("*.example.org")]),
           ("DNS and IP", {"permitted": [dns("example.org")]},
            [dns("a.example.org"), ip(192, 0, 2, 1)]),
           ("broken URI", {"permitted": [uri("example.org")]},
            [uri("https://example.net/")]),
           ("kept URI", {"permitted": [uri("example.org")]},
            [uri("https://example.org/")]),
           ("unused URI", {"permitted": [uri("example.org")]},
            [dns("example.org")]),
           ("broken mail", {"permitted": [mail("example.org")]},
            [mail("a@example.net")]))
       for critical in ("", ", critical") if "kept" in text or not critical},
    "excluded below a wildcard": lambda p: [p.leaf(s := p.sub(extensions=(
        *AUTHORITY, limits(excluded=[dns("a.example.org")], critical=True))),
        extensions=(*PERSON, alternative(dns("*.example.org")))), s],
    "common name, broken DNS constraints": lambda p: [p.leaf(s := p.sub(
        extensions=(*AUTHORITY, limits([dns("example.org")]))),
        cn="a.example.net"), s],
    "common name that is no host's, DNS constraints": lambda p: [
        p.leaf(s := p.sub(extensions=(*AUTHORITY, limits([dns(
            "example.org")]))), cn="a@example.net"), s],
    "common name, kept DNS constraints": lambda p: [p.leaf(s := p.sub(
        extensions=(*AUTHORITY, limits([dns("example.org")]))),
        cn="a.example.org"), s],
    "broken directory constraints": lambda p: p.below(extensions=(
        *AUTHORITY, limits([directory("someone else")]))),
    "kept directory constraints": lambda p: p.below(extensions=(
        *AUTHORITY, limits([directory("app")]))),
    "excluded directory constraints": lambda p: p.below(extensions=(
        *AUTHORITY, limits(excluded=[directory("app")]))),
    "excluded directory constraints, another": lambda p: p.below(extensions=(
        *AUTHORITY, limits(excluded=[directory("someone else")]))),
    "two name constraints": lambda p: p.below(extensions=(
        *AUTHORITY, limits([directory("app")]), limits([dns("app")]))),
    "constraints with a minimum": lambda p: p.below(extensions=(
        *AUTHORITY, extension("2.5.29.30", sequence(tlv(0xa0, sequence(
            directory("app"), tlv(0x80, b"\1"))))))),
    "kept constraints of a renewal": lambda p: p.under(s := p.sub(
        t := p.sub(extensions=(*AUTHORITY, limits([directory("app")]))),
        cn=t.cn), t),
    "broken constraints, renewed": lambda p: p.under(s := p.sub(
        t := p.sub(extensions=(*AUTHORITY, limits([directory("other")]))),
        cn=t.cn), t),
    "constraints broken in between": lambda p: p.under(s := p.sub(
        t := p.sub(extensions=(*AUTHORITY, limits([directory("app")])))), t),
    "broken constraints of a root": lambda p: [p.leaf(
        p.root(extensions=(*AUTHORITY, limits([dns("example.org")]))),
        extensions=(*PERSON, alternative(dns("a.example.net"))))],
    "kept constraints of a root, critical": lambda p: [p.leaf(
        p.root(extensions=(*AUTHORITY, limits([dns("example.org")],
                                              critical=True))),
        extensions=(*PERSON, alternative(dns("a.example.org"))))],
    "broken constraints further up": lambda p: [p.leaf(
        s := p.sub(t := p.sub(extensions=(
            *AUTHORITY, limits([dns("example.org")])))),
        extensions=(*PERSON, alternative(dns("a.example.net")))), s, t],
    "malformed name constraints": lambda p: p.below(extensions=(
        *AUTHORITY, extension("2.5.29.30", b"\x30\x03\x02\x01"))),
    "name constraints of a client": lambda p: [p.leaf(extensions=(
        *PERSON, limits([dns("example.org")]),
        alternative(dns("a.example.net"))))],

    # Revocation.
    "not revoked": lambda p: [p.leaf(r := p.root()), p.crl(r, p.leaf(r))],
    "revoked": lambda p: [x := p.leaf(r := p.root()), p.crl(r, x)],
    "intermediate revoked": lambda p: [*(x := p.below(r := p.root())), p.crl(
        r, x[1]), p.crl(x[1])],
    "revoked by an intermediate": lambda p: [*(x := p.below(r := p.root())),
                                             p.crl(r), p.crl(x[1], x[0])],
    "CRL expired": lambda p: [p.leaf(r := p.root()), p.crl(r, ends=-HOUR)],
    "CRL not yet valid": lambda p: [p.leaf(r := p.root()), p.crl(
        r, starts=HOUR)],
    "CRL of another's": lambda p: [p.leaf(r := p.root()), p.crl(
        r, key=p.key("other"))],
    "CRL of who may not": lambda p: [p.leaf(r := p.root(
        extensions=(constraints(), usage(ISSUES)))), p.crl(r)],

    # Signatures and keys.
    "forged": lambda p: [p.leaf(forged=p.key("other"))],
    "intermediate forged": lambda p: p.below(forged=p.key("other")),
    "two algorithms": lambda p: [p.leaf(claimed="sha512")],
    "SHA-1": lambda p: [p.leaf(digest="sha1")],
    "MD5": lambda p: [p.leaf(p.root(key="rsa"), digest="md5")],
    "intermediate by SHA-1": lambda p: p.below(digest="sha1"),
    "root by SHA-1": lambda p: [p.leaf(p.root(digest="sha1"))],
    "RSA of 1024 bits": lambda p: [p.leaf(key="weak", kind=WEAK)],
    "intermediate with RSA of 1024 bits": lambda p: p.below(key="weak"),

    # Issuers.
    "intermediate missing": lambda p: p.below()[:1],
    "another intermediate": lambda p: [p.below()[0], p.sub()],
    "one too many": lambda p: [*p.below(), p.sub()],
    "one too many in between": lambda p: [(x := p.below())[0], p.sub(), x[1]],
    "wrong order": lambda p: [p.leaf(s := p.sub(t := p.sub())), t, s],
    "reverse order": lambda p: [p.leaf(s := p.sub(t := p.sub(
        u := p.sub()))), p.good, u, t, s],
    "own root": lambda p: p.under(Certificate(
        "Own", p.key("other"), extensions=AUTHORITY)),
    "own root of a known name": lambda p: p.under(Certificate(
        p.good.cn, p.key("other"), extensions=AUTHORITY)),
    "own root of a known name, no identifiers": lambda p: [p.leaf(Certificate(
        p.good.cn, p.key("other"), extensions=AUTHORITY), ids=())],
    "signed by itself": lambda p: [Certificate("app", p.key("leaf"),
                                                extensions=PERSON)],
    "signs itself in between": lambda p: [p.leaf(s := p.sub()), Certificate(
        s.cn, s.key, extensions=AUTHORITY), s],
    "two of a name, other key behind": lambda p: [
        p.leaf(s := p.sub()), s, p.sub(cn=s.cn, key="other")],
    "two of a name, other key before": lambda p: [
        p.leaf(s := p.sub()), p.sub(cn=s.cn, key="other"), s],
    "two of a name, before it expired": lambda p: [
        p.leaf(s := p.sub()), p.sub(cn=s.cn, ends=-HOUR), s],
    "two roots of a name": lambda p: [p.leaf(p.root(cn=(r := p.root()).cn,
                                                    key="other"))],
    "renewed root sent": lambda p: p.under(p.sub(cn=p.good.cn)),
    "renewed root sent, no identifiers": lambda p: [p.leaf(s := p.sub(
        cn=p.good.cn, ids=()), ids=()), s],
    "root renewed, the serial of one": lambda p: [
        p.root(cn="Renewed"), p.leaf(r := p.root(cn="Renewed"), ids=(
            issuer_id(cn=r.cn, serial=r.serial),))][1:],
    "root renewed, the serial of an expired one": lambda p: [
        p.root(cn="Once renewed"), p.leaf(
            r := p.root(cn="Once renewed", ends=-HOUR),
            ids=(issuer_id(cn=r.cn, serial=r.serial),))][1:],
    "of the issuer's name": lambda p: [p.leaf(cn=p.good.cn)],
    "of the issuer's name, no identifiers": lambda p: [p.leaf(
        cn=p.good.cn, ids=())],
    "no name": lambda p: [p.leaf(cn="")],
    "names another key": lambda p: [p.leaf(
        ids=(issuer_id(p.key("other").id),))],
    "intermediate names another key": lambda p: p.below(
        ids=(issuer_id(p.key("other").id),)),
    "names its issuer's certificate": lambda p: [p.leaf(ids=(issuer_id(
        cn=p.good.issuer.cn, serial=p.good.serial),))],
    "names an issuer's other serial": lambda p: [p.leaf(ids=(issuer_id(
        p.good.key.id, p.good.issuer.cn, p.good.serial + 1),))],
    "names another's serial": lambda p: [p.leaf(ids=(issuer_id(
        p.good.key.id, "Other", p.good.serial),))],

    # Unknown and duplicate extensions.
    "unknown": lambda p: [p.leaf(extensions=(
        *PERSON, extension("1.2.3.4", tlv(5))))],
    "unknown, critical": lambda p: [p.leaf(extensions=(
        *PERSON, extension("1.2.3.4", tlv(5), True)))],
    "intermediate's unknown, critical": lambda p: p.below(extensions=(
        *AUTHORITY, extension("1.2.3.4", tlv(5), True))),
    "root's unknown": lambda p: [p.leaf(p.root(extensions=(
        *AUTHORITY, extension("1.2.3.4", tlv(5)))))],
    "two key usages": lambda p: p.below(extensions=(
        *AUTHORITY, usage(ISSUES))),
    "two constraints": lambda p: p.below(extensions=(
        *AUTHORITY, constraints())),
    "policy": lambda p: [p.leaf(extensions=(*PERSON, extension(
        "2.5.29.32", sequence(sequence(oid("1.2.3.4"))))))],
    "policy, critical": lambda p: [p.leaf(extensions=(*PERSON, extension(
        "2.5.29.32", sequence(sequence(oid("1.2.3.4"))), True)))],
    "policy constraints, critical": lambda p: p.below(extensions=(
        *AUTHORITY, extension("2.5.29.36", sequence(tlv(0x80, b"\0")), True))),
    "proxy": lambda p: [p.leaf(extensions=(*PERSON, extension(
        "1.3.6.1.5.5.7.1.14", sequence(sequence(oid(
            "1.3.6.1.5.5.7.21.1"))))))],
    "malformed name": lambda p: p.below(extensions=(
        *AUTHORITY, alternative(b"\x82\x7f"))),
}

# Chains that openssl(1) accepts and the tunnel does not, and why.
LIBRARY = "mbed TLS does not read it, or not at that place"
WEAK_ONE = "too weak for TLS today; OpenSSL leaves that to its security level"
LIMITS = "its issuers' name constraints are not supported"
STRICTER = {
    "trusted for itself": "in ca are issuers, unless it is its own",
    "path counts no renewal": LIBRARY,
    "path without CA": LIBRARY,
    "intermediate without key usage": "it has to say that it may issue",
    "constraints 3003010101": "it has to say that it may issue",
    "root without constraints": LIBRARY,
    "version 1 with extensions": LIBRARY,
    "malformed constraints": LIBRARY,
    "key for agreement": "TLS 1.3 and ECDHE sign",
    "kept URI constraints": LIMITS,
    "kept URI constraints, critical": LIMITS,
    "excluded directory constraints, another": LIMITS,
    "excluded below a wildcard": "it stands for the name that is excluded",
    "SHA-1": WEAK_ONE,
    "MD5": WEAK_ONE,
    "intermediate by SHA-1": WEAK_ONE,
    "RSA of 1024 bits": WEAK_ONE,
    "intermediate with RSA of 1024 bits": WEAK_ONE,
    "two of a name, other key before": LIBRARY,
    "policy, critical": LIBRARY,
    "policy constraints, critical": LIBRARY,
}
if not support.PATCHED:
    for what in "wrong order", "reverse order":
        STRICTER[what] = "before its issuer, RFC 5246 section 7.4.2"
    for what in "DNS", "IP", "IPv6":
        STRICTER[f"kept {what} constraints, critical"] = LIBRARY
# mbed TLS 3.6.6, 4.1.0, and one without our patches accept these.
PATCHED = ["date without zone"]
SINCE_3_6_7 = ["path without CA", "malformed constraints"]


class Case:
    def __init__(self, pki, stem, chain):
        self.pki = pki
        self.crl = None in chain  # from Pki.crl()
        chain = [x for x in chain if x is not None]
        self.file, self.sent, self.pem = (
            stem + suffix for suffix in (".crt", ".sent", ".pem"))
        with open(self.file, "w") as f:
            f.write(chain[0].pem)
        with open(self.sent, "w") as f:
            f.write("".join(x.pem for x in chain[1:]))
        with open(chain[0].key.path) as key, open(self.pem, "w") as f:
            f.write("".join(x.pem for x in chain) + key.read())

    @functools.cached_property
    def objection(self):
        """Return why openssl(1) rejects it, or None.  As in the tunnel, a
        trusted issuer needs no root.
        """
        sent = ("-untrusted", self.sent) if os.path.getsize(self.sent) else ()
        lists = ("-crl_check_all", "-CRLfile", self.pki.lists) if self.crl \
            else ()
        out = run("openssl", "verify", "-purpose", "sslclient",
                  "-partial_chain", "-CAfile", self.pki.ca, *sent, *lists,
                  self.file, status=None).decode()
        return None if out.endswith(": OK\n") else out


@pytest.fixture(scope="module")
def pki():
    directory = tempfile.mkdtemp(prefix="tunnel-chains.")
    pki = Pki(directory)
    pki.cases = {what: Case(pki, os.path.join(directory, f"case{i}"),
                            make(pki))
                 for i, (what, make) in enumerate(CHAINS.items())}
    pki.write()
    yield pki
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def room(certs):
    yield from open_room(certs)


class Peers:
    """Tunnels with the same ticket keys: one verifies by issuers, the other
    only by pins, so that it gives sessions also to clients that the first one
    refuses.
    """

    def __init__(self, room, pki):
        backend = room.backend().serve(support.echo)
        keys = room.write("keys", run(support.TUNNEL, "-k"))
        common = (f"connect={backend.address}", f"ticket_keys={keys}",
                  "verify=require")
        self.strict = room.tunnel(*common, f"ca={pki.ca}", f"crl={pki.lists}")
        self.lax = room.tunnel(*common, *(
            "peer=" + key.pin for key in pki.keys.values()))


@pytest.fixture(scope="module")
def tunnels(room, pki):
    return Peers(room, pki)


def visit(to, ctx, session=None):
    """Return a client that was served, or None."""
    client = peers.Client(to.address, ctx, session=session)
    try:
        client.handshake().send(b"hello")
        return client if client.recv(5) == b"hello" else None
    except (ssl.SSLError, ConnectionError):
        return None
    finally:
        client.close()


@pytest.mark.parametrize("what", CHAINS)
def test_verdict(certs, pki, tunnels, version, what):
    case = pki.cases[what]
    try:
        ctx = peers.context(certs, version, client=case.pem,
                            ciphers="DEFAULT:@SECLEVEL=0")
    except ssl.SSLError as e:
        if not what.startswith("date "):
            raise
        pytest.skip(f"this OpenSSL takes no such file: {e}")
    client = visit(tunnels.strict, ctx)
    served = case.objection is None and what not in STRICTER
    if what in PATCHED and not support.PATCHED or \
            what in SINCE_3_6_7 and support.OLD_MBEDTLS:
        pytest.skip("this mbed TLS takes it")
    assert (client is not None) == served, case.objection
    if client := client or visit(tunnels.lax, ctx):
        again = visit(tunnels.strict, None, client.session)
        assert (again is not None and again.resumed) == served


@pytest.mark.parametrize("what", STRICTER)
def test_stricter_is_stricter(pki, what):
    """Stricter than openssl(1); otherwise the case does not belong there."""
    assert pki.cases[what].objection is None
