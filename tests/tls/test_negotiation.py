"""What is negotiated: certificates, versions, cipher suites, groups, ALPN."""

import os
import re
import ssl
import warnings

import pytest

import peers
import support
from certificates import PASSWORD
from support import run


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


def s_client(room, t, *arguments, status=0):
    """Return the messages of OpenSSL's client, as by version 3.5."""
    out = run("openssl", "s_client", "-connect", t.address, "-servername",
              "localhost", "-CAfile", room.certs.ca, *arguments,
              status=status).decode()
    return out.replace(" = ", "=").replace("Server Temp Key", "Peer Temp Key")


def subject(client):
    return dict(rdn[0] for rdn in client.tls.getpeercert()["subject"])[
        "commonName"]


def refusal(room, t, *arguments, **keywords):
    """Return the error by which a handshake ends."""
    with pytest.raises(ssl.SSLError) as e:
        client = room.client(t, *arguments, **keywords)
        # In TLS 1.3 the client finishes before the server has decided.
        client.recv()
        raise ssl.SSLError(0, client.end)
    room.opened[-1].close()
    return str(e.value).upper().replace(" ", "_")


# Certificates and keys.

@pytest.fixture(scope="module")
def odd(certs):
    """A certificate with another curve or size than all others."""
    certs.leaf("p384", key=("-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:secp384r1"))
    certs.leaf("odd", key=("-newkey", "rsa:2047"))


@pytest.mark.parametrize("kind", [
    "server", "rsa", "p384", pytest.param("odd", marks=support.not_plain_4)])
def test_kind_of_key(room, tunnel, odd, version, kind):
    t = tunnel(f"cert={room.certs.path(kind)}.pem")
    assert subject(room.client(t, version)) == kind


def test_key_in_a_file_of_its_own(room, tunnel):
    t = tunnel(f"cert={room.certs.path('server.crt')}",
               f"key={room.certs.path('server.key')}")
    assert subject(room.client(t)) == "server"


@pytest.mark.parametrize("order", [("server", "rsa"), ("rsa", "server")])
@pytest.mark.parametrize("kind,algorithms", [
    ("server", "ecdsa_secp256r1_sha256"),
    ("rsa", "rsa_pss_rsae_sha256:rsa_pkcs1_sha256"),
])
def test_ecdsa_beside_rsa(room, tunnel, version, kind, algorithms, order):
    """The client's signature algorithms decide, not the order."""
    t = tunnel(*(f"cert={room.certs.path(name)}.pem" for name in order))
    out = s_client(room, t, "-tls" + version.replace(".", "_"), "-sigalgs",
                   algorithms)
    assert f"CN={kind}\n" in out
    assert "Verify return code: 0 (ok)" in out


@support.not_plain_4
@pytest.mark.parametrize("order", [("p384", "rsa"), ("rsa", "p384"),
                                   ("p384", "server")])
def test_curve_of_the_certificate(room, tunnel, odd, order):
    """RFC 8422, 5.1: in TLS 1.2 the client has to support the curve."""
    t = tunnel(*(f"cert={room.certs.path(name)}.pem" for name in order))
    for groups, kinds in (("X25519:P-256", {"rsa", "server"}),
                          ("P-384", {"p384"})):
        out = s_client(room, t, "-tls1_2", "-groups", groups, "-cipher",
                       "ECDHE-ECDSA-AES128-GCM-SHA256:"
                       "ECDHE-RSA-AES128-GCM-SHA256")
        assert re.search(r"subject=.*CN=(\w+)", out)[1] in kinds


def test_ecdsa_beside_rsa_with_keys_of_their_own(room, tunnel):
    path = room.certs.path
    t = tunnel(f"cert={path('server.crt')}", f"key={path('server.key')}",
               f"cert={path('rsa.crt')}", f"key={path('rsa.key')}")
    for kind, cipher in (("server", "ECDHE-ECDSA-AES128-GCM-SHA256"),
                         ("rsa", "ECDHE-RSA-AES128-GCM-SHA256")):
        assert subject(room.client(t, "1.2", ciphers=cipher)) == kind


def test_ecdsa_alone_for_a_client_that_wants_rsa(room, tunnel):
    t = tunnel()
    assert "HANDSHAKE_FAILURE" in refusal(
        room, t, "1.2", ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    t.wait_log("handshake: no cipher suite, group or signature in common$")


def test_chain_is_sent_whole(room, tunnel, version):
    t = tunnel(f"cert={room.certs.chain}")
    out = s_client(room, t, "-tls" + version.replace(".", "_"), "-showcerts")
    assert out.count("BEGIN CERTIFICATE") == 2
    assert "Verify return code: 0 (ok)" in out


def test_encrypted_key(room, tunnel):
    password = room.write("password", PASSWORD + "\n")
    t = tunnel(f"cert={room.certs.path('server.crt')}",
               f"key={room.certs.encrypted}", f"key_password_file={password}")
    assert subject(room.client(t)) == "server"


# Versions.

def test_tls_min(room, tunnel):
    t = tunnel("tls_min=1.3")
    assert "PROTOCOL_VERSION" in refusal(room, t, "1.2")
    t.wait_log("handshake: no TLS version in common$")
    assert room.client(t, "1.3").tls.version() == "TLSv1.3"


def test_tls_max(room, tunnel):
    t = tunnel("tls_max=1.2")
    assert room.client(t).tls.version() == "TLSv1.2"
    assert re.search("ALERT_(PROTOCOL_VERSION|HANDSHAKE_FAILURE)",
                     refusal(room, t, "1.3"))


def test_best_version(room, tunnel):
    assert room.client(tunnel()).tls.version() == "TLSv1.3"


@pytest.mark.parametrize("old", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(room, tunnel, old):
    t = tunnel()
    ctx = peers.context(room.certs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ctx.minimum_version = ctx.maximum_version = getattr(
            ssl.TLSVersion, old)
    ctx.set_ciphers("ALL:@SECLEVEL=0")
    client = room.keep(peers.Client(t.address, ctx))
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        client.handshake()
    client.close()
    t.wait_log("handshake: no TLS version in common$")


# Cipher suites and groups.

SUITES_1_2 = {
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384":
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256":
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256":
        "ECDHE-ECDSA-AES128-GCM-SHA256",
}


@pytest.mark.parametrize("turn", range(3))
def test_server_prefers_in_tls_1_2(room, tunnel, turn):
    names = list(SUITES_1_2)
    ours = names[turn:] + names[:turn]
    theirs = ":".join(SUITES_1_2[name] for name in reversed(ours))
    t = tunnel("ciphers=" + ",".join(ours))
    client = room.client(t, "1.2", ciphers=theirs)
    assert client.tls.cipher()[0] == SUITES_1_2[ours[0]]
    client.close()
    t.wait_log(f" TLSv1.2 {ours[0]} ")


@pytest.mark.parametrize("suite", [
    "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
])
def test_only_suite_in_tls_1_3(room, tunnel, suite):
    t = tunnel("ciphers=" + suite)
    client = room.client(t, "1.3")
    assert client.tls.cipher()[0] == suite
    client.close()
    t.wait_log(f" TLSv1.3 {suite} ")


def test_no_suite_in_common(room, tunnel):
    t = tunnel("ciphers=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    assert "HANDSHAKE_FAILURE" in refusal(
        room, t, "1.2", ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "NULL-SHA256",
                                    "ECDHE-RSA-AES128-SHA"])
def test_weak_suites_are_off(room, tunnel, cipher):
    """Without forward secrecy, without encryption, MAC-then-encrypt."""
    t = tunnel(f"cert={room.certs.rsa}")
    assert "HANDSHAKE_FAILURE" in refusal(
        room, t, "1.2", ciphers=cipher + ":@SECLEVEL=0")


def hellos(room, t, groups):
    """Return how many hellos a TLS 1.3 client sends, with a share of the first
    group.
    """
    out = s_client(room, t, "-tls1_3", "-groups", groups, "-msg")
    return len(re.findall(r"^>>>.*, ClientHello$", out, re.M))


@pytest.mark.parametrize("groups", ["x25519,secp256r1", "secp256r1,x25519",
                                    "secp384r1,secp256r1,x25519"])
def test_any_supported_share_is_accepted(room, tunnel, groups):
    """Any supported share is accepted: another round trip would cost more."""
    t = tunnel("groups=" + groups)
    assert hellos(room, t, "X25519:P-256") == 1
    assert hellos(room, t, "P-256:X25519") == 1
    assert hellos(room, t, "X448:X25519") == 2


@pytest.mark.parametrize("group,key", [
    ("x25519", "X25519, 253 bits"),
    ("secp256r1", "ECDH, prime256v1, 256 bits"),
    ("secp384r1", "ECDH, secp384r1, 384 bits"),
    pytest.param("secp521r1", "ECDH, secp521r1, 521 bits",
                 marks=pytest.mark.skipif(support.PATCHED and not
                                          support.ACCEL, reason=
                                          "our own mbed TLS has no P-521")),
])
def test_groups(room, tunnel, version, group, key):
    t = tunnel("groups=" + group)
    out = s_client(room, t, "-tls" + version.replace(".", "_"), "-groups",
                   "P-256:X25519:P-384:P-521")
    assert f"Peer Temp Key: {key}" in out
    t.wait_log(rf" TLS_\w+ {group} ")


def test_no_group_in_common(room, tunnel, version):
    """RFC 8446, 4.1.1: an alert is required."""
    t = tunnel("groups=x25519")
    out = s_client(room, t, "-tls" + version.replace(".", "_"), "-groups",
                   "P-256", status=1)
    t.wait_log("handshake: no cipher suite, group or signature in common$")
    assert "alert handshake failure" in out


def test_server_prefers_its_groups(room, tunnel):
    t = tunnel("groups=secp384r1,x25519")
    out = s_client(room, t, "-tls1_2", "-groups", "X25519:P-256:P-384")
    assert "Peer Temp Key: ECDH, secp384r1, 384 bits" in out


def test_hello_retry_request(room, tunnel):
    """The client sent a key share of another group."""
    t = tunnel("groups=secp384r1")
    out = s_client(room, t, "-tls1_3", "-groups", "X25519:P-384")
    assert "Peer Temp Key: ECDH, secp384r1, 384 bits" in out
    assert "Verify return code: 0 (ok)" in out


# ALPN and SNI.

def test_alpn(room, tunnel, version):
    """The server's first protocol that the client also supports."""
    t = tunnel("alpn=h2, http/1.1")
    client = room.client(t, version, alpn=["spdy/3", "http/1.1", "h2"])
    assert client.tls.selected_alpn_protocol() == "h2"
    client.close()
    t.wait_log(" alpn=h2 ")


def test_alpn_none_in_common(room, tunnel, version):
    t = tunnel("alpn=h2")
    error = refusal(room, t, version, alpn=["imap"])
    assert "ALERT_NO_APPLICATION_PROTOCOL" in error
    t.wait_log("handshake: no ALPN protocol in common$")


def test_alpn_of_a_client_without(room, tunnel, version):
    t = tunnel("alpn=h2")
    client = room.client(t, version)
    assert client.tls.selected_alpn_protocol() is None


def test_alpn_of_a_server_without(room, tunnel, version):
    client = room.client(tunnel(), version, alpn=["h2"])
    assert client.tls.selected_alpn_protocol() is None


def test_sni_is_logged(room, tunnel, version):
    t = tunnel()
    ctx = peers.context(room.certs, version)
    ctx.check_hostname = False
    client = room.keep(peers.Client(t.address, ctx, "db.example.org"))
    client.handshake().close()
    t.wait_log(f" TLSv{version} .* sni=db.example.org ")


def test_cipher_is_logged_by_its_iana_name(room, tunnel):
    t = tunnel()
    room.client(t, "1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256").close()
    t.wait_log(" TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 ")
    client = room.client(t, "1.3")
    name = client.tls.cipher()[0]
    client.close()
    t.wait_log(f" TLSv1.3 {name} ")


# Alerts of a client.

def test_client_that_does_not_trust_us(room, tunnel, version):
    """The most frequent error, so the log has to name it."""
    t = tunnel()
    ctx = ssl.create_default_context()
    ctx.maximum_version = ctx.minimum_version = peers.VERSIONS[version]
    client = room.keep(peers.Client(t.address, ctx))
    with pytest.raises(ssl.SSLCertVerificationError):
        client.handshake()
    client.fin()
    t.wait_log(r"handshake: the client sent a fatal alert: unknown_ca \(48\)$")


def test_randoms_never_repeat(room, tunnel):
    """ServerHello.random, over several connections and another process."""
    seen = set()
    for t in tunnel(), tunnel():
        for version in ("1.2", "1.3") * 5:
            out = s_client(room, t, "-tls" + version.replace(".", "_"),
                           "-msg")
            hello = re.search(r"ServerHello\n((?:    .*\n)+)", out).group(1)
            seen.add("".join(hello.split())[12:76])
    assert len(seen) == 20


@pytest.mark.skipif(os.getuid() != 0, reason="another user has to be had")
def test_key_is_read_before_anything_else_may_be(room, tunnel):
    """A key that only root can read is enough."""
    path = room.write("private.pem", open(room.certs.server).read())
    os.chmod(path, 0o400)
    assert subject(room.client(tunnel(f"cert={path}"))) == "server"
