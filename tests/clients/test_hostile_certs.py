"""Hostile certificates of unknown clients: they are refused, and cost a worker
little, whatever they contain.
"""

import os
import statistics
import types

import pytest

import der
import support
from certificates import Authority, concatenate
from der import certificate, forged, name, rsa_key, signed_by
from support import run
from verdicts import TIMES, handshake_cost, is_first, refusal

ROUNDS = 5

patched = pytest.mark.skipif(
    not support.PATCHED, reason="mbed TLS without mbedtls/patches")


def forged_chain(key, *names, bits, exponent):
    """Return a certificate for that key, below issuers with unknown private
    keys.
    """
    chain = [certificate(name("bad"), names[0], key, forged(bits),
                         algorithm=der.RSA_SHA256)]
    for subject, issuer in zip(names, names[1:]):
        chain.append(certificate(subject, issuer, rsa_key(bits, exponent),
                                 forged(bits), der.CA,
                                 algorithm=der.RSA_SHA256))
    return chain


def signed_chain(directory, key, issuers, curve):
    """Return the same with valid signatures, by keys of the test."""
    stem = os.path.join(directory, curve)
    run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
        f"ec_paramgen_curve:{curve}", "-out", stem)
    public, sign = der.public_key(stem), signed_by(stem)
    names = [name(f"issuer {i}") for i in range(issuers + 1)]
    return [certificate(name("bad"), names[0], key, sign)] + [
        certificate(subject, issuer, public, sign, der.CA)
        for subject, issuer in zip(names, names[1:])]


def compressed(path):
    """Return a public key as a compressed point: the verifier computes a
    coordinate.
    """
    return run("openssl", "ec", "-in", path, "-pubout", "-outform", "DER",
               "-conv_form", "compressed", stderr=None)


@pytest.fixture(scope="module")
def chains(certs, authority):
    """Files of clients, a normal one and hostile ones."""
    good = authority.leaf("app1")
    key = good.removesuffix(".pem") + ".key"
    public, sign = der.public_key(key), signed_by(key)
    issuers = [name(f"issuer {i}") for i in range(9)]
    impostors = [name(authority.name)] * 9
    p384 = certs.path("P-384")
    signed = signed_chain(certs.dir, public, 8, "P-384")
    small = certificate(name("x"), name("y"), compressed(p384), sign)
    huge = (1 << 64) - 1
    made = {
        "long exponents": forged_chain(
            public, *issuers[:5], bits=8128, exponent=(1 << 8120) - 1),
        "long exponents, 4096 bits": forged_chain(
            public, *issuers[:6], bits=4096, exponent=(1 << 4088) - 1),
        "8192 bits": forged_chain(public, *issuers[:7], bits=8192,
                                  exponent=huge),
        "4096 bits": forged_chain(public, *issuers, bits=4096,
                                  exponent=huge),
        "P-384": signed,
        "the CA's name": [certificate(name("bad"), impostors[0], public,
                                      sign)] + [
            certificate(x, x, public, sign, der.CA) for x in impostors],
        "compressed points": [certificate(
            name("bad"), name("y"), public, sign)] + 80 * [small],
        "thousands of names": [certificate(
            name("bad"), name("y"), public, sign, der.extension(
                "2.5.29.17", der.tlv(der.SEQUENCE, b"\x82\0" * 7000)))],
    }
    files = {"good": good}
    for what, chain in made.items():
        files[what] = certs.path(f"hostile {what}.pem")
        with open(files[what], "w") as f, open(key) as private:
            f.write(der.pem(*chain) + private.read())
    return files


def cost_ratio(room, t, chains, version, what):
    """The median costs of a hostile and of a normal client, as a ratio."""
    honest, hostile = [], []
    for _ in range(ROUNDS):
        cost, end = handshake_cost(room, t, version, chains["good"])
        assert end == "close_notify"
        honest.append(cost)
        cost, end = handshake_cost(room, t, version, chains[what])
        assert end != "close_notify"
        hostile.append(cost)
    return statistics.median(hostile) / statistics.median(honest)


def times_an_honest_one(room, t, chains, version, what):
    """Return the lowest of up to three ratios, since other processes use the
    machine, too.
    """
    ratio = cost_ratio(room, t, chains, version, what)
    for _ in range(2):
        if ratio >= TIMES:
            ratio = min(ratio, cost_ratio(room, t, chains, version, what))
    return ratio


@patched
@pytest.mark.parametrize("what", [
    "long exponents", "long exponents, 4096 bits", "8192 bits", "4096 bits",
    "P-384", "the CA's name", "compressed points", "thousands of names"])
def test_hostile_chain_costs_little(room, authority, backend, tunnel, chains,
                                    version, what):
    backend.serve(support.echo)
    t = tunnel("verify=require", f"ca={authority.crt}")
    ratio = times_an_honest_one(room, t, chains, version, what)
    assert ratio < TIMES, ratio


def test_names_are_not_compared_for_strangers(room, authority, backend, tunnel,
                                              chains, version):
    """7000 names and 200 rules."""
    backend.serve(support.echo)
    t = tunnel("verify=require", f"ca={authority.crt}", "peer=cn:app1",
               *(f"peer=dns:app{i}.example.org" for i in range(200)))
    ratio = times_an_honest_one(room, t, chains, version, "thousands of names")
    assert ratio < TIMES, ratio


@patched
def test_long_exponent_is_told(room, authority, backend, tunnel, chains,
                               version):
    t = tunnel("verify=require", f"ca={authority.crt}")
    assert handshake_cost(room, t, version, chains["long exponents"])[1] == \
        "BAD_CERTIFICATE"
    t.wait_log(" -> - .*handshake: invalid public key, or RSA exponent above "
               "64 bits$")
    assert is_first(room, t, backend, version=version, client=chains["good"])


# Limits that also apply to certificates of a trusted authority.

def rsa(bits):
    """Make an RSA key of four primes, which is faster for large keys."""
    return ("-newkey", f"rsa:{bits}", "-pkeyopt", "rsa_keygen_primes:4")


@pytest.fixture(scope="module")
def large(authority):
    big = authority.sub("Big CA", key=rsa(4128))
    return types.SimpleNamespace(
        ca=big.crt, under=big.leaf("bad", send=[big]),
        allowed=authority.leaf("app2", key=rsa(4096)),
        own=authority.leaf("bad", key=rsa(4128)))


@support.not_plain_4
@pytest.mark.seconds(60)
def test_size_of_rsa_keys(room, authority, backend, tunnel, version, large):
    why = "its RSA key has more than 4096 bits"
    t = tunnel("verify=require", f"ca={authority.crt}")
    assert is_first(room, t, backend, version=version, client=large.allowed)
    for pem, reason in ((large.own, why),
                        (large.under, f'issuer "CN=Big CA": {why}')):
        assert refusal(room, t, version, client=pem) == \
            "UNSUPPORTED_CERTIFICATE"
        t.wait_log(f' -> - .* client certificate "CN=bad": {reason}$')
    # Keys in our own configuration are not limited.
    t = tunnel("verify=require", f"ca={large.ca}")
    assert is_first(room, t, backend, version=version, client=large.under)


@support.not_plain_4
@pytest.mark.parametrize("bits", [2049, 2055])
def test_odd_size_of_rsa_keys(room, authority, backend, tunnel, version, bits):
    """Of a client, and of its issuer."""
    key = "-newkey", f"rsa:{bits}"
    odd = authority.sub("Odd CA", key=key)
    t = tunnel("verify=require", f"ca={odd.crt}")
    assert is_first(room, t, backend, version=version,
                    client=odd.leaf("app", key=key))


def test_long_chain(room, authority, backend, tunnel, version):
    """Five certificates, and additionally the authority's own."""
    chain = [authority]
    for i in range(9):
        chain.append(chain[-1].sub(f"Sub {i}"))
    t = tunnel("verify=require", f"ca={authority.crt}")

    def leaf(n, root):
        return chain[n - 1].leaf("app", send=chain[n - 1:0 if root else 0:-1] +
                                 ([authority] if root else []))

    for root in (False, True):
        assert is_first(room, t, backend, version=version,
                        client=leaf(5, root))
    for n in (6, 7, 10):
        end = refusal(room, t, version, client=leaf(n, False))
        # Such a long chain exceeds the limit of a library without patches: it
        # sends its own alert, which in TLS 1.3 can't be decrypted.
        assert end == "UNSUPPORTED_CERTIFICATE" or (
            n == 10 and not support.PATCHED)
    t.wait_log(" -> - .*: a chain of more than 5 certificates$", 3)
    assert is_first(room, t, backend, version=version, client=leaf(1, False))


# The signature of an authority counts, not its name.

def write(room, what, key, *chain):
    with open(key) as f:
        return room.write(what + ".pem", der.pem(*chain) + f.read())


@pytest.fixture
def new_ca(authority):
    """An authority with a new key, and a certificate for it signed by the old
    key.  The identifiers show that it is not self-signed.
    """
    new = Authority(authority.dir, authority.name)
    key = der.public_key(new.key)
    cross = certificate(name(authority.name), name(authority.name), key,
                        signed_by(authority.key), der.CA,
                        der.extension("2.5.29.15", b"\3\2\1\6"),
                        *der.identifiers(key, der.public_key(authority.key)))
    return types.SimpleNamespace(new=new, cross=cross)


@pytest.mark.parametrize("trusted", ["old", "new", "both"])
def test_cross_signed_authority(room, authority, backend, tunnel, version,
                                new_ca, trusted):
    """Verified by the old or the new one, also with an intermediate CA."""
    sub = new_ca.new.sub("Sub CA")
    ca = room.path("ca.pem")
    concatenate(ca, *{
        "old": [authority.crt], "new": [new_ca.new.crt],
        "both": [authority.crt, new_ca.new.crt]}[trusted])
    t = tunnel("verify=require", f"ca={ca}")
    for i, pem in enumerate((new_ca.new.leaf("app1"),
                             sub.leaf("app1", send=[sub]))):
        with open(pem) as f:
            client = room.write(f"client{i}.pem", f.read() + der.pem(
                new_ca.cross))
        assert is_first(room, t, backend, version=version, client=client)


def test_bad_signature_within_a_chain(room, authority, backend, tunnel,
                                      version):
    """At each place of a chain with correct names."""
    keys = [authority.key]
    for i in range(3):
        keys.append(room.path(f"key{i}"))
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-out", keys[-1])
    names = [name(authority.name), name("sub 1"), name("sub 2"), name("bad")]
    ca = der.CA, der.extension("2.5.29.15", b"\3\2\1\6")
    t = tunnel("verify=require", f"ca={authority.crt}")

    def client(bad):
        chain = []
        for i in (1, 2, 3):
            # A real key, but not the issuer's.
            by = keys[i - 1] if i != bad else keys[i]
            chain.insert(0, certificate(
                names[i], names[i - 1], der.public_key(keys[i]),
                signed_by(by), *(ca if i < 3 else ())))
        return write(room, f"bad{bad}", keys[3], *chain)

    assert is_first(room, t, backend, version=version, client=client(None))
    for bad, issuer in ((1, authority.name), (2, "sub 1"), (3, "sub 2")):
        assert handshake_cost(room, t, version, client(bad))[1] == "UNKNOWN_CA"
        t.wait_log(f'client certificate "CN=bad": unknown issuer '
                   f'"CN={issuer}"$')


# CVE-2026-49300: malformed basicConstraints made a client a CA.

@pytest.mark.parametrize("constraints", ["3003020101", "30000101ff"])
@pytest.mark.parametrize("usage", ["", "digitalSignature"])
def test_client_is_no_authority(room, authority, backend, tunnel, version,
                                constraints, usage):
    """Its certificate is genuine: a careless authority has issued it."""
    pem = authority.leaf("mallory", san="DNS:mallory.example.org")
    key = pem.removesuffix(".pem") + ".key"
    extensions = [der.extension("2.5.29.19", bytes.fromhex(constraints))]
    if usage:
        extensions.append(der.extension("2.5.29.15", b"\3\2\7\x80"))
    mallory = certificate(name("mallory"), name(authority.name),
                          der.public_key(key), signed_by(authority.key),
                          *extensions)
    alice = certificate(
        name("alice"), name("mallory"), der.public_key(key), signed_by(key),
        der.extension("2.5.29.17", der.tlv(der.SEQUENCE, der.tlv(
            0x82, b"alice.example.org"))))
    backend.serve(support.echo)
    t = tunnel("verify=require", f"ca={authority.crt}",
               "peer=dns:alice.example.org")
    end = handshake_cost(room, t, version, write(room, "alice", key, alice,
                                                 mallory))[1]
    assert end != "close_notify"
    t.wait_log(" -> - ")
