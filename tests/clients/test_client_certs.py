"""Client certificates: which clients are served or refused, the reason on each
side, and no connection to the backend for refused clients.
"""

import re
import socket
import ssl
import types

import pytest

import peers
import support
from certificates import (AUTHORITY, DAY, EC, HOUR, RSA, Authority,
                          concatenate, pin)
from support import LINE, read_exactly, run
from verdicts import (DENIED, EXPIRED, REQUIRED, REVOKED, UNKNOWN, UNKNOWN_CA,
                      UNSUPPORTED, alert_of, is_first, refusal, refused)


def names_of(app):
    return (f"DNS:{app}.example.org, DNS:{app}.batch.example.net, "
            f"IP:192.0.2.{app[-1]}, IP:2001:db8::{app[-1]}, "
            f"URI:spiffe://example.org/{app}")


@pytest.fixture(scope="module")
def pki(authority):
    """Files of two valid clients, and of clients with one fault each."""
    def leaf(**keywords):
        return authority.leaf("bad", **keywords)

    other = Authority(authority.dir, "Other CA")
    sub = authority.sub()
    old = authority.sub("Old CA", starts=-9 * DAY, ends=-3 * DAY - HOUR)
    revoked_sub = authority.sub("Revoked CA")
    app1 = authority.leaf("app1", san=names_of("app1"))
    under_other = other.leaf("app6", send=[other])
    revoked, future = leaf(), leaf(starts=40 * DAY)
    start = run("openssl", "x509", "-noout", "-startdate", "-dateopt",
                "iso_8601", "-in", future).decode()
    return types.SimpleNamespace(
        ca=authority.crt, other_ca=other.crt, sub_ca=sub.crt,
        app1=app1, app2=authority.leaf("app2", san=names_of("app2")),
        rsa=authority.leaf("app3", key=RSA), other=other.leaf("bad"),
        crl=authority.crl(revoked, revoked_sub.crt),
        old_crl=authority.crl(starts=-9 * DAY, ends=-3 * DAY - HOUR),
        other_crl=other.crl(), revoked=revoked, under_other=under_other,
        expired=leaf(starts=-9 * DAY, ends=-3 * DAY - HOUR),
        expired_today=leaf(starts=-9 * DAY, ends=-5.1 * HOUR),
        future=future, future_day=re.search(r"=(\S+) ", start).group(1),
        for_servers=leaf(usage="serverAuth"),
        for_any=leaf(usage="anyExtendedKeyUsage"),
        for_both=authority.leaf("app4", usage="serverAuth, clientAuth"),
        for_nothing_special=authority.leaf("app4", usage="", key_usage=""),
        no_signature=leaf(key=RSA, key_usage="keyEncipherment"),
        missing=sub.leaf("bad"), under=sub.leaf("app5", send=[sub]),
        under_old=old.leaf("bad", send=[old]),
        under_revoked=revoked_sub.leaf("bad", send=[revoked_sub]),
        under_leaf=false_authority(authority, app1),
        under_servers=below(authority, "Server CA",
                            AUTHORITY + "extendedKeyUsage=serverAuth"),
        under_unsaid=below(authority, "Unsaid CA",
                           "basicConstraints=critical, CA:TRUE"),
        under_constrained=below(
            authority, "Constrained CA", AUTHORITY +
            "nameConstraints=permitted;DNS:example.org",
            san="DNS:a.example.net"),
        weak_key=leaf(key=("-newkey", "rsa:1024")),
        weak_signature=leaf(digest="sha1"),
        impostor=Authority(authority.dir, authority.name).leaf("bad"),
        pin1=pin(app1), pin_other=pin(
            other.leaf("nobody")), pin_under_other=pin(under_other))


def false_authority(authority, pem):
    """Make a certificate signed by a client's certificate."""
    false = Authority(authority.dir, "app1")
    false.crt = pem.removesuffix(".pem") + ".crt"
    false.key = pem.removesuffix(".pem") + ".key"
    return false.leaf("bad", send=[false])


def below(authority, name, extensions, **leaf):
    sub = authority.sub(name, extensions=extensions + "\n")
    return sub.leaf("bad", send=[sub], **leaf)


@pytest.fixture
def start(pki, tunnel):
    """Start a tunnel with such settings; file names in braces are replaced."""
    def call(keys, *arguments):
        if "verify=" not in keys:
            keys = "verify=require " + keys
        return tunnel(*keys.format(**vars(pki)).split(), *arguments)

    return call


# The settings (default: verify=require), and the client.
SERVED = {
    "valid": ("ca={ca}", "app1", "CN=app1"),
    "RSA": ("ca={ca}", "rsa", "CN=app3"),
    "not revoked": ("ca={ca} crl={crl}", "app1", "CN=app1"),
    "a CRL of another CA": ("ca={ca} crl={other_crl}", "app1", "CN=app1"),
    "for clients too": ("ca={ca}", "for_both", "CN=app4"),
    "for nothing special": ("ca={ca}", "for_nothing_special", "CN=app4"),
    "intermediate sent": ("ca={ca}", "under", "CN=app5"),
    "intermediate sent, CRL": ("ca={ca} crl={crl}", "under", "CN=app5"),
    "intermediate trusted": ("ca={sub_ca}", "missing", "CN=bad"),
    "pin": ("peer={pin1}", "app1", "CN=app1"),
    "two pins": ("peer={pin_other} peer={pin1}", "app1", "CN=app1"),
    "pin beside another CA": ("ca={other_ca} peer={pin1}", "app1", "CN=app1"),
    "pin, unknown issuer sent": ("peer={pin_under_other}", "under_other",
                                 "CN=app6"),
    "certificate": ("peer=cert:{app1}", "app1", "CN=app1"),
    "certificate beside another CA": ("ca={other_ca} peer=cert:{app1}", "app1",
                                      "CN=app1"),
    "cn": ("ca={ca} peer=cn:app1", "app1", "CN=app1"),
    "dns": ("ca={ca} peer=dns:app1.example.org", "app1", "CN=app1"),
    "dns wildcard": ("ca={ca} peer=dns:*.example.org", "app1", "CN=app1"),
    "ip": ("ca={ca} peer=ip:192.0.2.1", "app1", "CN=app1"),
    "ip v6": ("ca={ca} peer=ip:2001:db8::1", "app1", "CN=app1"),
    "uri": ("ca={ca} peer=uri:spiffe://example.org/app1", "app1", "CN=app1"),
    "request, none": ("verify=request ca={ca}", None, None),
    "request, none, rule": ("verify=request ca={ca} peer=cn:x", None, None),
    "request, right": ("verify=request ca={ca}", "app1", "CN=app1"),
    "not asked": ("verify=none", "app1", None),
}


@pytest.mark.parametrize("what", SERVED)
def test_served(room, pki, start, backend, version, what):
    keys, name, subject = SERVED[what]
    t = start(keys)
    assert is_first(room, t, backend, version=version,
                    client=name and getattr(pki, name))
    line = t.wait_log(" in=5 out=7 .* closed$")
    client = f' client="{subject}"' if subject else ""
    assert re.search(f" sni=localhost{re.escape(client)} in=", line), line


# The settings, the client, the reason, the alert, and a client that passes.
REFUSED = {
    "none": ("ca={ca}", None, "no client certificate", REQUIRED, "app1"),
    "none, pin": ("peer={pin1}", None, "no client certificate", REQUIRED,
                  "app1"),
    "other CA": ("ca={ca}", "other", 'unknown issuer "CN=Other CA"',
                 UNKNOWN_CA, "app1"),
    "CA of the same name": ("ca={ca}", "impostor",
                            'unknown issuer "CN=Test CA"', UNKNOWN_CA, "app1"),
    "expired": ("ca={ca}", "expired", "expired 3 days ago", EXPIRED, "app1"),
    "expired today": ("ca={ca}", "expired_today", "expired 5 hours ago",
                      EXPIRED, "app1"),
    "not yet valid": ("ca={ca}", "future", "not valid before {future_day}",
                      EXPIRED, "app1"),
    "revoked": ("ca={ca} crl={crl}", "revoked", "revoked", REVOKED, "app1"),
    "CRL expired": ("ca={ca} crl={old_crl}", "revoked",
                    "CRL expired 3 days ago", UNKNOWN, None),
    "for servers": ("ca={ca}", "for_servers",
                    "not for client authentication", UNSUPPORTED, "app1"),
    "for any use": ("ca={ca}", "for_any", "not for client authentication",
                    UNSUPPORTED, "app1"),
    "not for signatures": ("ca={ca}", "no_signature",
                           "not for client authentication", UNSUPPORTED,
                           "app1"),
    "weak key": ("ca={ca}", "weak_key", "its key is too weak, or of an "
                 "unsupported type", UNSUPPORTED, "app1"),
    "weak signature": ("ca={ca}", "weak_signature",
                       "its signature is too weak", UNSUPPORTED, "app1"),
    "intermediate missing": ("ca={ca}", "missing",
                             'unknown issuer "CN=Sub CA"', UNKNOWN_CA,
                             "under"),
    "intermediate expired": ("ca={ca}", "under_old",
                             'issuer "CN=Old CA": expired 3 days ago',
                             EXPIRED, "under"),
    "intermediate revoked": ("ca={ca} crl={crl}", "under_revoked",
                             'issuer "CN=Revoked CA": revoked', REVOKED,
                             "under"),
    "intermediate for servers": (
        "ca={ca}", "under_servers", 'issuer "CN=Server CA": not for client '
        "authentication", UNSUPPORTED, "under"),
    "intermediate for nothing special": (
        "ca={ca}", "under_unsaid", 'issuer "CN=Unsaid CA": not for issuing '
        "certificates", UNSUPPORTED, "under"),
    "intermediate constrained": (
        "ca={ca}", "under_constrained", "its names are outside its "
        "issuers' name constraints", "BAD_CERTIFICATE", "under"),
    "signed by a client": ("ca={ca}", "under_leaf",
                           'unknown issuer "CN=app1"', UNKNOWN_CA, "under"),
    "pin": ("peer={pin1}", "app2", "no peer rule matches", DENIED, "app1"),
    "two pins": ("peer={pin_other} peer={pin1}", "app2", "no peer rule matches",
                 DENIED, "app1"),
    "pin and CA": ("ca={ca} peer={pin1}", "app2", "no peer rule matches",
                   DENIED, "app1"),
    "cn": ("ca={ca} peer=cn:app1", "app2", "no peer rule matches", DENIED,
           "app1"),
    "cn of another CA": ("ca={ca} peer=cn:bad peer=cn:app1", "other",
                         'unknown issuer "CN=Other CA"', UNKNOWN_CA, "app1"),
    "dns": ("ca={ca} peer=dns:app1.example.org", "app2", "no peer rule matches",
            DENIED, "app1"),
    "dns wildcard": ("ca={ca} peer=dns:*.app1.example.org "
                     "peer=dns:*.org peer=cn:app1", "app2",
                     "no peer rule matches", DENIED, "app1"),
    "ip": ("ca={ca} peer=ip:192.0.2.1", "app2", "no peer rule matches", DENIED,
           "app1"),
    "ip v6": ("ca={ca} peer=ip:2001:db8::1", "app2", "no peer rule matches",
              DENIED, "app1"),
    "uri": ("ca={ca} peer=uri:spiffe://example.org/app1", "app2",
            "no peer rule matches", DENIED, "app1"),
    "request, other CA": ("verify=request ca={ca}", "other",
                          'unknown issuer "CN=Other CA"', UNKNOWN_CA, "app1"),
    "request, expired": ("verify=request ca={ca}", "expired",
                         "expired 3 days ago", EXPIRED, "app1"),
    "request, rule": ("verify=request ca={ca} peer=cn:app1", "app2",
                      "no peer rule matches", DENIED, "app1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(room, pki, start, backend, version, what):
    keys, name, reason, alert, good = REFUSED[what]
    t = start(keys)
    if isinstance(alert, dict):
        alert = alert[version]
    if name:
        subject = name if name.startswith("app") else "bad"
        reason = f'client certificate "CN={subject}": ' + reason.format(
            **vars(pki))
    assert refusal(room, t, version, client=name and getattr(pki, name),
                   ciphers="DEFAULT:@SECLEVEL=0") == alert
    refused(t, reason)
    if good:
        assert is_first(room, t, backend, version=version,
                        client=getattr(pki, good))
    else:
        t.stop()
        backend.sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            backend.accept()


def test_order_of_the_log_line(room, pki, start, backend, version):
    t = start("ca={ca}", "alpn=h2")
    assert is_first(room, t, backend, version=version, client=pki.app1,
                    alpn=["h2"])
    t.wait_log(rf" TLSv{version} TLS_\w+ \w+ sni=localhost alpn=h2 "
               r'client="CN=app1" in=5 out=7 \d+\.\d{3}s closed$')


def test_refused_is_a_notice(room, pki, start, backend, version):
    """A refused client is logged as a notice, a served one is not."""
    t = start("ca={ca}", "log_level=notice")
    assert is_first(room, t, backend, version=version, client=pki.app1)
    refusal(room, t, version)
    refused(t, "no client certificate")
    assert not re.search("CN=app1|closed", t.log())


def test_refused_before_a_command_is_started(room, certs, pki, version):
    t = room.tunnel("verify=require", f"ca={pki.ca}", "--", "sh", "-c",
                    "echo Hello. >&2; cat")
    assert refusal(room, t, version) == REQUIRED[version]
    refused(t, "no client certificate")
    client = room.client(t, version, client=pki.app1)
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    assert t.log().count("Hello.\n") == 1


def test_refused_under_inetd(room, pki, backend, version):
    for name, reason in ((None, "no client certificate"),
                         ("revoked", 'client certificate "CN=bad": revoked')):
        ours, theirs = socket.socketpair()
        with theirs:
            t = room.tunnel("-i", f"connect={backend.address}",
                            "verify=require", f"ca={pki.ca}",
                            f"crl={pki.crl}", stdin=theirs, ready=False)
        ours.settimeout(support.DEADLINE)
        assert refusal(room, ours, version, client=name and getattr(
            pki, name)) == (REVOKED if name else REQUIRED[version])
        t.wait()
        assert re.search(rf" -> - .*s {re.escape(reason)}$", t.log(), re.M)
    backend.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        backend.accept()


@pytest.mark.parametrize("size", [1, 3000000])
def test_alert_reaches_a_client_that_talks_on(room, pki, start, backend, size):
    """In TLS 1.3 a client may send data before it can learn of the refusal."""
    t = start("ca={ca}")
    client = room.keep(peers.Client(t.address, peers.context(
        room.certs, "1.3", client=pki.other)))
    client.handshake()
    client.send(bytes(size))
    data, end = client.read_all()
    assert (data, alert_of(end)) == (b"", UNKNOWN_CA)
    client.close()
    refused(t, 'client certificate "CN=bad": unknown issuer "CN=Other CA"')
    assert is_first(room, t, backend, client=pki.app1)


def test_many_at_once(room, pki, start, backend, version):
    """Refused clients leave nothing behind."""
    backend.serve(support.echo)
    t = start("ca={ca} crl={crl}")
    kinds = [({}, REQUIRED[version]), ({"client": pki.other}, UNKNOWN_CA),
             ({"client": pki.revoked}, REVOKED),
             ({"client": pki.app1}, b"hello"), ({"client": pki.app2}, b"hello")]

    def one(keywords):
        ctx = peers.context(room.certs, version, **keywords)
        client = room.keep(peers.Client(t.address, ctx))
        try:
            client.handshake().send(b"hello")
            return client.recv(5) or alert_of(client.end)
        except ssl.SSLError as e:
            return alert_of(e.reason)
        finally:
            client.close()

    tasks = [(support.Task(one, keywords), expected)
             for keywords, expected in kinds * 10]
    for task, expected in tasks:
        assert task.result() == expected
    t.wait_log(" -> - .* no client certificate$", 10)
    t.wait_log(" -> - .* unknown issuer ", 10)
    t.wait_log(" -> - .* revoked$", 10)


# The subject is not trusted before it is verified.

@pytest.mark.parametrize("subject", [
    'a" in=1 out=1 0.001s closed', "a\nb", "a\x1b[2Jb", "ünïcödé",
    "x" * 64,
], ids=["quote", "newline", "escape", "unicode", "long"])
@pytest.mark.parametrize("trusted", [True, False])
def test_subject_forges_nothing(room, authority, start, backend, subject,
                                trusted):
    by = authority if trusted else Authority(room.dir, subject)
    pem = by.leaf(subject)
    t = start("ca={ca}")
    if trusted:
        assert is_first(room, t, backend, client=pem)
        line = t.wait_log(" closed$")
    else:
        assert refusal(room, t, client=pem) == UNKNOWN_CA
        line = t.wait_log(' -> - .* unknown issuer "CN=.*"'
                          r'( \(self-issued\))?$')
    assert all(c.isprintable() for c in line)
    # Its quotation marks are escaped by a backslash.
    match = LINE.fullmatch(re.sub(r"\\.", "_", line))
    assert match, line
    assert match["reason"].startswith(
        "closed" if trusted else 'client certificate "CN=')
    assert (match["in"], match["out"]) == \
        (("5", "7") if trusted else ("0", "0"))
    assert len(t.log().splitlines()) == t.log().count("\n")


@pytest.mark.parametrize("trusted", [True, False])
def test_empty_subject(room, authority, start, backend, trusted):
    """All names may be alternative names."""
    by = authority if trusted else Authority(room.dir, "other")
    t = start("ca={ca}")
    pem = by.leaf(subject="/", san="URI:spiffe://example.org/app1")
    if trusted:
        assert is_first(room, t, backend, client=pem)
        t.wait_log(r' client="" in=5 out=7 \d+\.\d{3}s closed$')
    else:
        assert refusal(room, t, client=pem) == UNKNOWN_CA
        t.wait_log('client certificate "": unknown issuer "CN=other"$')


def test_key_of_a_group_that_is_left_out(room, authority, start):
    t = start("ca={ca}", "groups=x25519:secp256r1", "tls_max=1.2")
    pem = authority.leaf(key=("-newkey", "ec", "-pkeyopt",
                              "ec_paramgen_curve:secp384r1"))
    assert refusal(room, t, client=pem) == UNSUPPORTED
    t.wait_log('client certificate "CN=app1": its key is too weak, or of an '
               'unsupported type$')


@pytest.mark.parametrize("fields", [1, 2, 4, 8])
@pytest.mark.parametrize("trusted", [True, False])
def test_long_subject_leaves_room(room, authority, start, backend, trusted,
                                  fields):
    """The log line still has room for the reason."""
    keys = "CN", "O", "OU", "L", "ST", "title", "GN", "SN"
    name = "".join(f"/{key}={'x' * 64}" for key in keys[:fields])
    by = authority if trusted else Authority(room.dir, "x" * 64)
    t = start("ca={ca}")
    pem = by.leaf(subject=name)
    if trusted:
        assert is_first(room, t, backend, client=pem)
        t.wait_log(r' client="\S.+" in=5 out=7 \d+\.\d{3}s closed$')
    else:
        assert refusal(room, t, client=pem) == UNKNOWN_CA
        t.wait_log('client certificate ".+": unknown issuer "CN=x+"'
                   r'( \(self-issued\))?$')


# TLS itself: sending a certificate does not prove having its key.

CRITICAL = {
    "policyConstraints": "requireExplicitPolicy:0",
    "inhibitAnyPolicy": "1",
    "certificatePolicies": "1.2.3.4",
    "1.2.3.4.5": "ASN1:NULL",
}


@pytest.mark.parametrize("extension", CRITICAL)
def test_critical_extension_is_told(room, authority, tunnel, backend, version,
                                    extension):
    """In an issuer's or the client's certificate; without it, they are served.
    """
    line = f"{extension} = critical, {CRITICAL[extension]}\n"
    sub = authority.sub(extensions=AUTHORITY + line)
    stem = authority.request("/CN=own", EC)
    authority.sign(stem, line)
    concatenate(stem + ".pem", stem + ".crt", stem + ".key")
    t = tunnel("verify=request", f"ca={authority.crt}")
    for whose, pem in (("Sub CA", sub.leaf("bad", send=[sub])),
                       ("own", stem + ".pem")):
        end = refusal(room, t, version, client=pem)
        if support.PATCHED:
            assert end == "BAD_CERTIFICATE"
            refused(t, f'client certificate "CN={whose}": its critical '
                    f"extension {extension} is not supported")
    if not support.PATCHED:
        t.wait_log(" -> - .*critical extension( is not supported)?$", 2)
    assert is_first(room, t, backend, version=version,
                    client=authority.leaf("app1"))


@pytest.mark.parametrize("rule", ["ca", "peer"])
def test_odd_signature_is_told(room, authority, tunnel, version, rule):
    """The signature of an authority with an Ed25519 key; the client's is on
    P-256.
    """
    odd = room.path("odd")
    run("openssl", "req", "-x509", "-nodes", "-newkey", "ed25519", "-subj",
        "/CN=odd", "-keyout", odd + ".key", "-out", odd + ".crt")
    stem = authority.request("/CN=app1", EC)
    run("openssl", "x509", "-req", "-in", stem + ".csr", "-CA", odd + ".crt",
        "-CAkey", odd + ".key", "-out", stem + ".crt")
    concatenate(stem + ".pem", stem + ".crt", stem + ".key")
    t = tunnel("verify=request", f"ca={authority.crt}" if rule == "ca" else
               f"peer=cert:{authority.leaf('app2')}")
    end = refusal(room, t, version, client=stem + ".pem")
    assert end == "UNSUPPORTED_CERTIFICATE" or not support.PATCHED
    t.wait_log(" -> - .* certificate .*an unknown signature algorithm$")


def test_certificate_of_another(room, authority, tunnel, backend):
    """The certificate is replaced in transit, as TLS 1.2 permits: the
    signature is by another key.
    """
    while len(der_of(app1 := authority.leaf("app1"))) != \
            len(der_of(thief := authority.leaf("evil"))):
        pass
    t = tunnel("verify=require", f"ca={authority.crt}", "peer=cn:app1",
               f"peer={pin(app1)}")
    client = room.keep(peers.Client(t.address, peers.context(
        room.certs, "1.2", client=thief)))
    swapped = 0
    with pytest.raises(ssl.SSLError):
        while True:
            try:
                client.tls.do_handshake()
                raise AssertionError("it is let in")
            except ssl.SSLWantReadError:
                data = client.outgoing.read()
                swapped += data.count(der_of(thief))
                client.sock.sendall(data.replace(der_of(thief), der_of(app1)))
                client.fill()
    assert swapped == 1
    client.close()
    line = t.wait_log(" -> - ")
    assert "closed" not in line and "client=" not in line
    assert is_first(room, t, backend, version="1.2", client=app1)


def der_of(pem):
    return run("openssl", "x509", "-in", pem, "-outform", "DER")
