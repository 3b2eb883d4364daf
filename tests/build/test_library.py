"""Our own mbed TLS: its features, and the omitted ones."""

import os

import pytest

import support
from support import run

pytestmark = pytest.mark.skipif(not support.PATCHED,
                                reason="not our own mbed TLS")


def refusal(room, *words):
    return run(support.TUNNEL, "-t", "accept=127.0.0.1:0",
               "connect=127.0.0.1:1", *words, status=2).decode()


without_p521 = pytest.mark.skipif(support.ACCEL, reason="AWS-LC has P-521")


@pytest.mark.parametrize("key,value,said", [
    pytest.param(
        "groups", "secp521r1",
        f'unknown group "secp521r1" (allowed: {", ".join(support.GROUPS)})',
        marks=without_p521),
    ("groups", "x448", 'unknown group "x448"'),
    ("ciphers", "TLS_RSA_WITH_AES_128_GCM_SHA256",
     'unknown cipher suite "TLS_RSA_WITH_AES_128_GCM_SHA256"'),
])
def test_omitted_feature_is_refused(room, key, value, said):
    assert said in refusal(room, f"cert={room.certs.server}", f"{key}={value}")


def test_group_of_another_build(room):
    if "x25519mlkem768" in support.GROUPS:
        pytest.skip("this build has X25519MLKEM768")
    said = refusal(room, f"cert={room.certs.server}", "groups=X25519MLKEM768")
    assert ('this build has no group "X25519MLKEM768" (allowed: x25519, '
            'secp256r1, secp384r1; ACCEL=aws-lc has it)') in said


@pytest.mark.parametrize("curve,name", [
    pytest.param("P-521", "secp521r1", marks=without_p521),
    ("secp256k1", "secp256k1"),
    ("brainpoolP256r1", "a brainpool curve"),
])
def test_key_on_an_omitted_curve_is_refused(room, curve, name):
    key = room.path("key.pem")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
        f"ec_paramgen_curve:{curve}", "-nodes", "-subj", "/CN=localhost",
        "-keyout", key, "-out", room.path("cert.pem"))
    said = refusal(room, f"cert={room.path('cert.pem')}", f"key={key}")
    assert len(said.splitlines()) == 1
    curves = "secp256r1, secp384r1" + (", secp521r1" if support.ACCEL else "")
    assert f"it has a key on {name}, which this mbed TLS does not support " \
        f"(allowed: RSA, {curves})" in said


@pytest.mark.parametrize("kind", ["server", "rsa"])
@pytest.mark.parametrize("group", ["x25519", "secp256r1", "secp384r1"])
def test_handshakes(room, version, kind, group):
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", f"groups={group}",
                    f"cert={room.certs.path(kind)}.pem")
    client = room.client(t, version)
    client.send(b"hello")
    client.close_notify()
    assert client.read_all() == (b"hello", "close_notify")
    assert f" {group} " in t.wait_log(" closed$")


@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-128-cbc"])
def test_encrypted_key(room, cipher):
    key = room.path("encrypted.key")
    run("openssl", "pkcs8", "-topk8", "-v2", cipher, "-passout", "pass:secret",
        "-in", room.certs.path("server.key"), "-out", key)
    password = room.write("password", "secret\n")
    os.chmod(password, 0o600)
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", f"key={key}",
                    f"cert={room.certs.path('server.crt')}",
                    f"key_password_file={password}")
    client = room.client(t)
    client.send(b"hello")
    client.close_notify()
    assert client.read_all() == (b"hello", "close_notify")


@pytest.mark.parametrize("how,name", [
    (("pkcs8", "-topk8", "-scrypt"), "with scrypt"),
    (("ec", "-aes256"), "in OpenSSL's old format"),
])
def test_omitted_encryption_is_refused(room, how, name):
    key = room.path("encrypted.key")
    run("openssl", *how, "-passout", "pass:secret",
        "-in", room.certs.path("server.key"), "-out", key)
    password = room.write("password", "secret\n")
    assert f"it is a key encrypted {name}, which this mbed TLS" in refusal(
        room, f"cert={room.certs.path('server.crt')}", f"key={key}",
        f"key_password_file={password}")


def test_overlong_chain_is_refused(room):
    with open(room.certs.server) as f, open(room.certs.ca) as ca:
        pem = room.write("long.pem", f.read() + 18 * ca.read())
    assert "this mbed TLS can send only 6144" in refusal(room, f"cert={pem}")
