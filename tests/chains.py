"""Certificate chains that openssl(1) does not make, written in DER."""

import base64
import hashlib
import itertools
import os

from certificates import DAY, HOUR, utc
from support import run

# DER and its use in certificates: RFC 5280, sections 4 and 5.

SEQUENCE, SET = 0x30, 0x31


def tlv(tag, *parts):
    body = b"".join(parts)
    n = len(body)
    size = bytes([n]) if n < 128 else \
        bytes([0x80 + (n.bit_length() + 7) // 8]) + n.to_bytes(
            (n.bit_length() + 7) // 8, "big")
    return bytes([tag]) + size + body


def sequence(*parts):
    return tlv(SEQUENCE, *parts)


def integer(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def oid(text):
    first, second, *rest = map(int, text.split("."))
    out = [40 * first + second]
    for n in rest:
        digits = [n & 127]
        while n := n >> 7:
            digits.append(128 + (n & 127))
        out += reversed(digits)
    return tlv(6, bytes(out))


def octets(*parts):
    return tlv(4, *parts)


def bits(*numbers):
    """A BIT STRING with these bits set, counted from 0."""
    n = max(numbers) + 1
    value = sum(1 << (n - 1 - i) for i in numbers) << -n % 8
    return tlv(3, bytes([-n % 8]), value.to_bytes((n + 7) // 8, "big"))


def subject(cn):
    """A subject with one common name, none, or several."""
    return sequence(*(tlv(SET, sequence(oid("2.5.4.3"), tlv(12, x.encode())))
                      for x in ((cn,) if isinstance(cn, str) else cn) if x))


def when(after, edit=str):
    return tlv(23, edit(utc(after)[2:]).encode())


def extension(number, value, critical=False):
    return sequence(oid(number), tlv(1, b"\xff") if critical else b"",
                    octets(value))


def constraints(ca=True, length=None, critical=True):
    return extension("2.5.29.19", sequence(
        tlv(1, b"\xff") if ca else b"",
        integer(length) if length is not None else b""), critical)


SIGNS, AGREES, ISSUES, REVOKES = 0, 4, 5, 6  # RFC 5280, section 4.2.1.3


def usage(*numbers):
    return extension("2.5.29.15", bits(*numbers), True)


CLIENT, SERVER = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"
ANY, EMAIL = "2.5.29.37.0", "1.3.6.1.5.5.7.3.4"


def uses(*numbers, critical=False):
    return extension("2.5.29.37", sequence(*map(oid, numbers)), critical)


def alternative(*names):
    return extension("2.5.29.17", sequence(*names))


def dns(text):
    return tlv(0x82, text if isinstance(text, bytes) else text.encode())


def uri(text):
    return tlv(0x86, text.encode())


def mail(text):
    return tlv(0x81, text.encode())


def ip(*octets):
    return tlv(0x87, bytes(octets))


def directory(cn):
    return tlv(0xa4, subject(cn))


def limits(permitted=(), excluded=(), critical=False):
    """Return a name constraints extension."""
    return extension("2.5.29.30", sequence(*(
        tlv(tag, *map(sequence, names)) for tag, names
        in ((0xa0, permitted), (0xa1, excluded)) if names)), critical)


def key_id(data):
    return extension("2.5.29.14", octets(data))


def issuer_id(data=None, cn=None, serial=None):
    return extension("2.5.29.35", sequence(
        tlv(0x80, data) if data else b"",
        tlv(0xa1, directory(cn)) if cn else b"",
        tlv(0x82, integer(serial)[2:]) if serial else b""))


def netscape(*numbers):
    return extension("2.16.840.1.113730.1.1", bits(*numbers))


# Signature algorithms, by key type.
ECDSA = {"sha256": "1.2.840.10045.4.3.2", "sha1": "1.2.840.10045.4.1",
         "sha512": "1.2.840.10045.4.3.4"}
PKCS1 = {"sha256": "1.2.840.113549.1.1.11", "md5": "1.2.840.113549.1.1.4"}
EC = ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")
P384 = ("EC", "-pkeyopt", "ec_paramgen_curve:P-384")
P521 = ("EC", "-pkeyopt", "ec_paramgen_curve:P-521")
ED25519 = ("ED25519",)
RSA = ("RSA", "-pkeyopt", "rsa_keygen_bits:2048")
WEAK = ("RSA", "-pkeyopt", "rsa_keygen_bits:1024")


class Key:
    def __init__(self, path, kind=EC):
        self.path = path
        run("openssl", "genpkey", "-algorithm", *kind, "-out", path)
        self.public = run("openssl", "pkey", "-in", path, "-pubout",
                          "-outform", "DER")
        self.id = hashlib.sha1(self.public).digest()
        self.pin = "pin:sha256/" + base64.b64encode(
            hashlib.sha256(self.public).digest()).decode()
        self.numbers = ECDSA if kind[0] == "EC" else PKCS1

    def algorithm(self, digest):
        return sequence(oid(self.numbers[digest]),
                        tlv(5) if self.numbers is PKCS1 else b"")

    def sign(self, body, digest, claimed=None):
        """claimed: the digest named by the signature, if it differs."""
        signature = run("openssl", "dgst", "-" + digest, "-sign", self.path,
                        stdin=body)
        return sequence(body, self.algorithm(claimed or digest),
                        tlv(3, b"\0", signature))


AUTHORITY = (constraints(), usage(ISSUES, REVOKES))
PERSON = (usage(SIGNS), uses(CLIENT))
HOST = (usage(SIGNS), uses(SERVER))


class Certificate:
    serials = itertools.count(0x1001)

    def __init__(self, cn, key, issuer=None, extensions=(), ids=None,
                 version=3, starts=-DAY, ends=365 * DAY, date=str,
                 digest="sha256", claimed=None, forged=None):
        """ids: the key identifier extensions, its own and its issuer's.
        forged: the signing key, if not the issuer's.
        """
        self.cn, self.key = cn, key
        issuer = issuer or self
        self.issuer, self.serial = issuer, next(self.serials)
        if ids is None:
            ids = (key_id(key.id), issuer_id(issuer.key.id))
        extensions = b"".join((*extensions, *ids))
        signer = forged or issuer.key
        body = sequence(
            tlv(0xa0, integer(version - 1)) if version > 1 else b"",
            integer(self.serial), signer.algorithm(digest),
            subject(issuer.cn),
            sequence(when(starts), when(ends, date)), subject(cn),
            key.public,
            tlv(0xa3, sequence(extensions)) if extensions else b"")
        self.der = signer.sign(body, digest, claimed)

    @property
    def pem(self):
        return pem_of("CERTIFICATE", self.der)


def pem_of(label, der):
    return (f"-----BEGIN {label}-----\n" +
            base64.encodebytes(der).decode() + f"-----END {label}-----\n")


class Pki:
    """Keys, trusted issuers, CRLs.  Keys are made once per name, because
    generating them is slow. holder: the extensions of leaf certificates, for
    clients or for servers.
    """

    def __init__(self, directory, holder=PERSON):
        self.dir, self.holder = directory, holder
        self.keys, self.trusted, self.revoked = {}, [], []
        self.numbers = itertools.count(1)
        self.good = self.root()
        self.sub_of_good = self.sub()

    def key(self, name, kind=EC):
        if name not in self.keys:
            self.keys[name] = Key(os.path.join(self.dir, name + ".key"), kind)
        return self.keys[name]

    def trust(self, certificate):
        self.trusted.append(certificate)
        return certificate

    def root(self, cn=None, key="root", extensions=AUTHORITY, **how):
        return self.trust(Certificate(
            cn or f"Root {next(self.numbers)}", self.key(key),
            extensions=extensions, **how))

    def sub(self, issuer=None, cn=None, key="sub", extensions=AUTHORITY,
            **how):
        return Certificate(cn or f"Sub {next(self.numbers)}", self.key(key),
                           issuer or self.good, extensions, **how)

    def leaf(self, issuer=None, cn="app", key="leaf", kind=EC, **how):
        return Certificate(cn, self.key(key, kind), issuer or self.good,
                           **{"extensions": self.holder, **how})

    def below(self, issuer=None, *more, **how):
        """A chain with one intermediate: a valid one, or those given."""
        sub = self.sub(issuer, **how)
        return [self.leaf(sub, *more), sub]

    def under(self, *subs, **how):
        return [self.leaf(subs[0], **how), *subs]

    def crl(self, issuer, *revoked, key=None, starts=-DAY, ends=30 * DAY):
        key = key or issuer.key
        body = sequence(
            integer(1), key.algorithm("sha256"), subject(issuer.cn),
            when(starts), when(ends),
            sequence(*(sequence(integer(x.serial), when(-HOUR))
                       for x in revoked)) if revoked else b"",
            tlv(0xa0, sequence(issuer_id(issuer.key.id),
                               extension("2.5.29.20", integer(1)))))
        self.revoked.append(pem_of("X509 CRL", key.sign(body, "sha256")))

    def write(self):
        """Write ca and CRLs, the files for a tunnel and openssl(1)."""
        self.ca, self.lists = self.dir + "/ca.pem", self.dir + "/crl.pem"
        with open(self.ca, "w") as f:
            f.write("".join(x.pem for x in self.trusted))
        with open(self.lists, "w") as f:
            f.write("".join(self.revoked))
