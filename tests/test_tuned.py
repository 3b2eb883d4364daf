"""The mbed TLS of our own: what it can do, what it has been left without, and
how small it is.
"""

import os
import subprocess

import pytest

import support
from support import TOP, run

BUILDS = {"tuned": ["TUNED=1"], "musl": ["TUNED=1", "MUSL=1"]}
SMALL = 400 * 1024

pytestmark = [
    pytest.mark.skipif("TUNNEL_VARIANT" in os.environ or bool(support.UNDER),
                       reason="it makes its own variants"),
    pytest.mark.seconds(300),
]


def build(name, *words):
    out = f"build/{name}"
    run("make", "-s", "-C", TOP, f"O={out}", f"TUNNEL={out}/tunnel", *words,
        timeout=240)
    return os.path.join(TOP, out, "tunnel")


@pytest.fixture(scope="module", params=BUILDS)
def binary(request):
    return build(request.param, *BUILDS[request.param])


@pytest.fixture
def tuned(binary, monkeypatch):
    monkeypatch.setattr(support, "TUNNEL", binary)
    return binary


def test_musl_is_small_and_needs_nothing(room):
    binary = build("musl", *BUILDS["musl"])
    stripped = room.path("stripped")
    run("strip", "-o", stripped, binary)
    assert os.path.getsize(stripped) <= SMALL
    assert b"INTERP" not in run("readelf", "-lW", binary)
    assert b"no dynamic section" in run("readelf", "-d", binary)


@pytest.mark.parametrize("key,value,said", [
    ("groups", "secp521r1",
     'unknown group "secp521r1" (allowed: x25519, secp256r1, secp384r1)'),
    ("groups", "x448", 'unknown group "x448"'),
    ("ciphers", "TLS_RSA_WITH_AES_128_GCM_SHA256",
     'unknown cipher suite "TLS_RSA_WITH_AES_128_GCM_SHA256"'),
])
def test_what_it_lacks_is_refused(room, tuned, key, value, said):
    out = run(tuned, "-t", "accept=127.0.0.1:0", "connect=127.0.0.1:1",
              f"cert={room.certs.server}", f"{key}={value}", status=2)
    assert said in out.decode()


@pytest.mark.parametrize("kind", ["server", "rsa"])
@pytest.mark.parametrize("group", ["x25519", "secp256r1", "secp384r1"])
def test_handshakes(room, tuned, version, kind, group):
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}", f"groups={group}",
                    f"cert={room.certs.path(kind)}.pem")
    client = room.client(t, version)
    client.send(b"hello")
    client.close_notify()
    assert client.read_all() == (b"hello", "close_notify")
    assert f" {group} " in t.wait_log(" closed$")


@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-128-cbc"])
def test_encrypted_key(room, tuned, cipher):
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


def test_chain_that_is_too_long_is_refused(room, tuned):
    with open(room.certs.server) as f, open(room.certs.ca) as ca:
        pem = room.write("long.pem", f.read() + 18 * ca.read())
    out = run(tuned, "-t", "accept=127.0.0.1:0", "connect=127.0.0.1:1",
              f"cert={pem}", status=2)
    assert b"this mbed TLS is built to send 6144" in out


def test_without_the_source_it_says_what_to_do(tmp_path):
    p = subprocess.run(["make", "-C", TOP, "TUNED=1", f"O={tmp_path}/o",
                        f"MBEDTLS={tmp_path}/lib", f"SOURCE={tmp_path}/none",
                        f"TUNNEL={tmp_path}/tunnel"],
                       capture_output=True, text=True)
    assert p.returncode != 0
    assert 'run "make TUNED=1 deps"' in p.stderr
