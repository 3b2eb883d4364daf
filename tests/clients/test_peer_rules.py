"""Exactly which client certificates each rule matches."""

import os
import signal
import ssl
import subprocess

import pytest

import der as encoding
import peers
import support
from certificates import DAY, EC, HOUR, RSA, Authority, concatenate, pin
from support import run, text_of
from verdicts import (DENIED, EXPIRED, REVOKED, UNSUPPORTED, is_first, refusal,
                      refused)

APP = {"name": "app1", "san": "DNS:app1.example.org, DNS:Second.Example.ORG, "
       "DNS:*.wild.example.org, DNS:198.51.100.1, IP:192.0.2.1, "
       "IP:2001:db8::1, URI:spiffe://example.org/app1, email:app1@example.org"}


@pytest.fixture
def start(authority, tunnel):
    """Start a tunnel with these rules."""
    def call(*rules, ca=authority.crt):
        return tunnel("verify=require", *([f"ca={ca}"] if ca else []),
                      *(f"peer={rule}" for rule in rules))

    return call


@pytest.fixture(scope="module")
def app1(authority):
    return authority.leaf(**APP)


@pytest.mark.parametrize("rule", [
    "cn:app1",
    "dns:app1.example.org", "dns:APP1.example.ORG", "dns:second.example.org",
    "dns:*.example.org", "dns:*.EXAMPLE.org", "dns:198.51.100.1",
    "ip:192.0.2.1", "ip:2001:db8::1", "ip:2001:0DB8:0:0::0001",
    "uri:spiffe://example.org/app1",
])
def test_holds(room, start, backend, app1, rule):
    assert is_first(room, start(rule), backend, client=app1)


@pytest.mark.parametrize("rule", [
    "cn:APP1", "cn:app", "cn:app11", "cn:app1.example.org", "cn:CN=app1",
    "cn:app1@example.org",
    "dns:app1", "dns:app1.example", "dns:example.org", "dns:pp1.example.org",
    "dns:app1.example.org.evil.example", "dns:*.org", "dns:*.app1.example.org",
    "dns:*.xample.org", "dns:a.wild.example.org", "dns:192.0.2.1",
    "ip:192.0.2.11", "ip:198.51.100.1", "ip:2001:db8::2", "ip:127.0.0.1",
    "uri:spiffe://example.org/app", "uri:spiffe://example.org/app1/",
    "uri:SPIFFE://example.org/app1", "uri:app1.example.org",
])
def test_does_not_hold(room, start, backend, app1, rule):
    t = start(rule, "cn:good")
    assert refusal(room, t, client=app1) == DENIED
    refused(t, 'client certificate "CN=app1": no peer rule matches')


def test_wildcard_is_for_one_label(room, authority, start, backend):
    t = start("dns:*.example.org")
    for n, name in enumerate(("example.org", "a.b.example.org", ".example.org",
                              "aexample.org", "a.example.org.example"), 1):
        pem = authority.leaf(san="DNS:" + name)
        assert refusal(room, t, client=pem) == DENIED, name
        refused(t, 'client certificate "CN=app1": no peer rule matches', n)
    assert is_first(room, t, backend, client=authority.leaf(
        san="DNS:a.b.example.org, DNS:a.example.org"))


def test_cn_is_no_dns_name(room, authority, start, backend):
    """Nor is a DNS name a CN."""
    t = start("dns:app1.example.org", "cn:app2.example.org")
    for pem in (authority.leaf("app1.example.org"),
                authority.leaf("x", san="DNS:app2.example.org")):
        assert refusal(room, t, client=pem) == DENIED
    assert is_first(room, t, backend,
                    client=authority.leaf("app2.example.org"))


@pytest.mark.parametrize("subject", [
    "/O=x, CN=app1/CN=x", "/O=app1/CN=x", "/O=x", "/CN=x, CN=app1",
])
def test_cn_is_no_part_of_the_subject(room, authority, start, backend,
                                      subject):
    t = start("cn:app1")
    pem = authority.leaf(subject=subject, san="DNS:app1")
    assert refusal(room, t, client=pem) == DENIED
    t.wait_log(" -> - .*: no peer rule matches$")
    assert is_first(room, t, backend, client=authority.leaf("app1"))


@pytest.mark.parametrize("name", ["My application", "ünïcödé", "a=b, c",
                                  "a:b", "cn:a"])
def test_cn_with_other_characters(room, authority, start, backend, name):
    t = start("cn:" + name)
    assert refusal(room, t, client=authority.leaf("x")) == DENIED
    assert is_first(room, t, backend, client=authority.leaf(name))


def test_one_of_several_is_enough(room, authority, start, backend):
    t = start("cn:x", "dns:*.x.example", "ip:192.0.2.9", "uri:x:y", "cn:app2")
    assert refusal(room, t, client=authority.leaf("app1")) == DENIED
    assert is_first(room, t, backend, client=authority.leaf("app2"))
    for san in "DNS:a.x.example", "IP:192.0.2.9", "URI:x:y":
        pem = authority.leaf("app3", san=san)
        assert is_first(room, t, backend, client=pem), san


def test_many_rules_and_many_names(room, authority, start, backend):
    t = start(*(f"dns:x{i}.example" for i in range(300)))
    names = [f"DNS:y{i}.example" for i in range(300)]
    assert refusal(room, t, client=authority.leaf(san=", ".join(names))) == \
        DENIED
    assert is_first(room, t, backend, client=authority.leaf(
        san=", ".join([*names, "DNS:x299.example"])))


def test_rules_in_a_file(room, certs, authority, backend, app1):
    conf = room.write("tunnel.conf", f"""
accept = 127.0.0.1:0
connect = {backend.address}
cert = {certs.server}
verify = require
ca = {authority.crt}
peer = cn:x
peer = dns:*.example.org
""")
    t = room.tunnel("-c", conf)
    assert refusal(room, t, client=authority.leaf("y")) == DENIED
    assert is_first(room, t, backend, client=app1)


# Names made to be misread.

def der(tag, *parts):
    body = b"".join(parts)
    assert len(body) < 1 << 16
    length = bytes([len(body)]) if len(body) < 128 else \
        b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + length + body


def sequence_in(data):
    """Return the bytes of the first element of a sequence."""
    def header(at):
        n = data[at + 1]
        if n < 128:
            return 2, n
        return 2 + n - 128, int.from_bytes(data[at + 2:at + 2 + n - 128], "big")

    start = header(0)[0]
    return data[start:start + sum(header(start))]


def resigned(authority, pem, old, new):
    """Return a certificate with modified bytes that openssl(1) can't make,
    signed again by the authority.
    """
    tbs = sequence_in(run("openssl", "x509", "-in", pem, "-outform", "DER"))
    assert len(old) == len(new) and tbs.count(old) == 1
    tbs = tbs.replace(old, new)
    signature = run("openssl", "dgst", "-sha256", "-sign", authority.key,
                    stdin=tbs)
    algorithm = der(0x30, bytes.fromhex("06082a8648ce3d040302"))
    out = pem + ".resigned"
    with open(out, "wb") as f:
        f.write(run("openssl", "x509", "-inform", "DER", stdin=der(
            0x30, tbs, algorithm, der(3, b"\0", signature))))
        f.write(run("openssl", "pkey", "-in", pem))
    run("openssl", "verify", "-partial_chain", "-CAfile", authority.crt, out)
    return out


@pytest.mark.parametrize("rule,old,new", [
    ("cn:app1", b"app1-evil", b"app1\0evil"),
    ("dns:app1.example", b"app1.example-evil.example",
     b"app1.example\0evil.example"),
    ("dns:*.example", b"a.example-evil.test", b"a.example\0evil.test"),
    ("uri:x:y", b"x:y-z", b"x:y\0z"),
])
def test_nul_ends_no_name(room, authority, start, backend, rule, old, new):
    t = start(rule, "cn:good")
    kind, name = rule.split(":", 1)[0], old.decode()
    pem = authority.leaf(name) if kind == "cn" else \
        authority.leaf("x", san=f"{kind.upper()}:{name}")
    pem = resigned(authority, pem, old, new)
    assert refusal(room, t, client=pem) == DENIED
    line = t.wait_log(" -> - ")
    assert "\0" not in line
    assert is_first(room, t, backend, client=authority.leaf("good"))


@pytest.mark.parametrize("san", [
    "DER:3005870300000A",                # an address of 3 bytes
    "DER:3007870500000A0B0C",            # 5 bytes
    "DER:30028700",                      # 0 bytes
    "DER:30028200",                      # an empty DNS name
    "DER:3002860" "0",                   # an empty URI
    "DER:300582037F0101",                # a DNS name of control characters
    "DER:3000",                          # no name at all
    "otherName:1.2.3.4;UTF8:app1",
    "dirName:elsewhere",
    "RID:1.2.3.4",
])
def test_odd_names(room, authority, start, backend, san):
    """They don't match, or the certificate can't be parsed; nothing worse
    happens.
    """
    t = start("dns:app1", "ip:10.0.0.0", "uri:app1", "cn:good")
    extra = "\n[elsewhere]\nCN = app1\n" if "elsewhere" in san else ""
    pem = authority.leaf("x", san=san + extra)
    assert refusal(room, t, "1.2", client=pem) in (
        DENIED, "BAD_CERTIFICATE")
    # In this case the library's own alert can't be read.
    refusal(room, t, "1.3", client=pem)
    t.wait_log(" -> - .* (no peer rule matches|malformed certificate)$",
               count=2)
    assert is_first(room, t, backend, client=authority.leaf("good"))


# Pins.

@pytest.mark.parametrize("key", [EC, RSA], ids=["EC", "RSA"])
def test_pin_of_a_certificate_that_signs_itself(room, start, backend, version,
                                                key):
    """Made by openssl-req(1ssl), so it is also an authority."""
    pem = room.path("self.pem")
    run("openssl", "req", "-x509", "-nodes", *key, "-subj", "/CN=admin",
        "-keyout", pem + ".key", "-out", pem + ".crt", "-days", "3")
    concatenate(pem, pem + ".crt", pem + ".key")
    t = start(pin(pem), ca=None)
    assert is_first(room, t, backend, version=version, client=pem)
    t.wait_log(' client="CN=admin" in=')


def test_pin_outlives_a_certificate(room, authority, start, backend):
    """It also matches a new certificate for the same key, by another
    authority.
    """
    old = authority.leaf("app1")
    other = Authority(room.dir, "Other CA")
    stem = room.path("new")
    os.link(old.removesuffix(".pem") + ".csr", stem + ".csr")
    other.sign(stem, "extendedKeyUsage = clientAuth\n")
    concatenate(stem + ".pem", stem + ".crt",
                old.removesuffix(".pem") + ".key")
    t = start(pin(old))
    assert is_first(room, t, backend, client=old)
    assert is_first(room, t, backend, client=stem + ".pem")


@pytest.mark.parametrize("known", [True, False])
def test_pin_is_the_clients_own(room, authority, start, backend, known):
    """A pin of an issuer's key does not match certificates that it signed."""
    sub = authority.sub()
    pem = sub.leaf("app1", send=[sub, authority])
    t = start(pin(sub.crt), pin(authority.crt), "cn:x",
              *([] if known else []), ca=authority.crt)
    assert refusal(room, t, client=pem) == DENIED
    refused(t, 'client certificate "CN=app1": no peer rule matches')


@pytest.mark.parametrize("leaf,reason,alert", [
    ({"starts": -9 * DAY, "ends": -3 * DAY - HOUR}, "expired 3 days ago",
     EXPIRED),
    ({"usage": "serverAuth"}, "not for client authentication", UNSUPPORTED),
    ({"key_usage": "keyAgreement"}, "not for client authentication",
     UNSUPPORTED),
], ids=["expired", "usage", "key usage"])
@pytest.mark.parametrize("known", [True, False])
def test_pin_does_not_help(room, authority, start, leaf, reason, alert, known):
    """Other faults remain, with a known CA or without."""
    pem = authority.leaf("app1", **leaf)
    t = start(pin(pem), ca=authority.crt if known else None)
    assert refusal(room, t, client=pem) == alert
    refused(t, f'client certificate "CN=app1": {reason}')


def test_pin_of_what_is_revoked(room, authority, tunnel, version):
    pem = authority.leaf("app1")
    t = tunnel("verify=require", f"ca={authority.crt}",
               f"crl={authority.crl(pem)}", f"peer={pin(pem)}")
    assert refusal(room, t, version, client=pem) == REVOKED
    refused(t, 'client certificate "CN=app1": revoked')


def test_pin_beside_a_crl_of_another(room, authority, tunnel, backend):
    """Without a known CA no CRL applies to a certificate."""
    other = Authority(room.dir, "Other CA")
    pem = other.leaf("app1")
    t = tunnel("verify=require", f"ca={authority.crt}",
               f"crl={authority.crl()}", f"peer={pin(pem)}")
    assert is_first(room, t, backend, client=pem)


def test_pin_takes_the_key_itself(room, authority, start):
    """Sending the pinned certificate is not enough: TLS requires a signature.
    """
    app1, thief = authority.leaf("app1"), authority.leaf("thief")
    stolen = room.path("stolen.pem")
    concatenate(stolen, app1.removesuffix(".pem") + ".crt",
                thief.removesuffix(".pem") + ".key")
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        peers.context(room.certs, client=stolen)
    # And with its own key, the pinned one as the second of its chain.
    chain = room.path("chain.pem")
    concatenate(chain, thief.removesuffix(".pem") + ".crt",
                app1.removesuffix(".pem") + ".crt",
                thief.removesuffix(".pem") + ".key")
    t = start(pin(app1))
    assert refusal(room, t, client=chain) == DENIED
    refused(t, 'client certificate "CN=thief": no peer rule matches')


# Certificates.

@pytest.fixture
def admin(room):
    """A self-signed certificate by openssl-req(1ssl), which is also an
    authority; and a client below it, which sends both.
    """
    pem = room.path("admin.pem")
    run("openssl", "req", "-x509", "-nodes", *EC, "-subj", "/CN=admin",
        "-addext", "keyUsage=digitalSignature,keyCertSign",
        "-keyout", pem + ".key", "-out", pem + ".crt", "-days", "90")
    concatenate(pem, pem + ".crt", pem + ".key")
    evil = room.path("evil.pem")
    key = encoding.public_key(pem + ".key")
    with open(evil, "w") as f:
        f.write(encoding.pem(encoding.certificate(
            encoding.name("evil"), encoding.name("admin"), key,
            encoding.signed_by(pem + ".key"))) + text_of(pem))
    return pem, evil


def test_certificate_is_pinned_itself(room, start, backend, version, admin):
    """Certificates issued by it are not pinned."""
    pem, evil = admin
    t = start(f"cert:{pem}.crt", ca=None)
    assert refusal(room, t, version, client=evil) == DENIED
    refused(t, 'client certificate "CN=evil": no peer rule matches')
    assert is_first(room, t, backend, version=version, client=pem)
    t.wait_log(' client="CN=admin" in=')
    # Check of the test: by ca, the same certificate is an authority.
    t = start(ca=pem + ".crt")
    assert is_first(room, t, backend, version=version, client=evil)


def test_each_certificate_of_a_file(room, authority, start, backend):
    """Any issuer will do; other content of the file is ignored."""
    other = Authority(room.dir, "Other CA")
    pems = [authority.leaf("app1"), other.leaf("app2"), other.leaf("app3")]
    both = room.path("both.pem")
    concatenate(both, *(pem.removesuffix(".pem") + ".crt"
                        for pem in pems[:2]))
    t = start(f"cert:{both}", "cert:" + pems[2], ca=None)
    for pem in pems:
        assert is_first(room, t, backend, client=pem)
    assert refusal(room, t, client=other.leaf("app1")) == DENIED
    assert refusal(room, t, client=authority.leaf("app1")) == DENIED


def test_certificate_is_pinned_to_the_byte(room, authority, start, backend):
    """A renewed certificate for the same key and name does not match."""
    old = authority.leaf("app1")
    stem = room.path("new")
    os.link(old.removesuffix(".pem") + ".csr", stem + ".csr")
    authority.sign(stem, text_of(old.removesuffix(".pem") + ".ext"))
    concatenate(stem + ".pem", stem + ".crt",
                old.removesuffix(".pem") + ".key")
    t = start(f"cert:{old}", ca=None)
    assert refusal(room, t, client=stem + ".pem") == DENIED
    assert is_first(room, t, backend, client=old)


def test_certificates_are_read_at_a_reload(room, authority, backend, start):
    app1, app2 = authority.leaf("app1"), authority.leaf("app2")
    path = room.write("peers.pem", text_of(app1))
    t = start(f"cert:{path}", ca=None)
    assert refusal(room, t, client=app2) == DENIED
    room.write("peers.pem", text_of(app2))
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")
    assert is_first(room, t, backend, client=app2)
    assert refusal(room, t, client=app1) == DENIED


@pytest.mark.parametrize("leaf,reason,alert", [
    ({"starts": -9 * DAY, "ends": -3 * DAY - HOUR}, "expired 3 days ago",
     EXPIRED),
    ({"usage": "serverAuth"}, "not for client authentication", UNSUPPORTED),
], ids=["expired", "usage"])
def test_pinned_certificate_has_to_be_good(room, authority, start, leaf, reason,
                                           alert):
    pem = authority.leaf("app1", **leaf)
    t = start(f"cert:{pem}", ca=None)
    assert refusal(room, t, client=pem) == alert
    refused(t, f'client certificate "CN=app1": {reason}')


def test_pinned_certificates_are_told(room, certs, authority):
    pem = authority.leaf("app1", ends=9.5 * DAY)
    p = subprocess.run(
        [support.TUNNEL, "-t", "accept=0", "connect=1", f"cert={certs.server}",
         "verify=require", f"peer=cert:{pem}"], capture_output=True, text=True)
    hash_ = run("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in",
                pem).decode().split("=")[1].strip()
    assert f'\n# pinned client "CN=app1", sha256 {hash_}\n' in p.stdout
    assert (f"warning: command line: peer: {pem}: the certificate of "
            '"CN=app1": expires in 9 days\n') in p.stderr
