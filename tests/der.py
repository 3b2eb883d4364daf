"""Certificates that no program makes: DER, written by hand.

X.690; RFC 5280 section 4.1 for the contents of a certificate.
"""

import base64
import hashlib
import os
import textwrap

from support import run

SEQUENCE, SET, BITS, OCTETS, UTF8, TIME = 0x30, 0x31, 3, 4, 0x0c, 0x17
NULL = b"\5\0"


def tlv(tag, *parts):
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    length = bytes([len(body)]) if len(body) < 128 else \
        bytes([0x80 | len(size)]) + size
    return bytes([tag]) + length + body


def integer(n):
    return tlv(2, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def oid(text):
    first, second, *rest = map(int, text.split("."))
    out = bytes([40 * first + second])
    for n in rest:
        part = [n & 0x7f]
        while n := n >> 7:
            part.insert(0, 0x80 | n & 0x7f)
        out += bytes(part)
    return tlv(6, out)


def name(*cns):
    return tlv(SEQUENCE, *(tlv(SET, tlv(SEQUENCE, oid("2.5.4.3"),
                                        tlv(UTF8, cn.encode())))
                           for cn in cns))


def extension(number, value, critical=True):
    return tlv(SEQUENCE, oid(number), b"\1\1\xff" if critical else b"",
               tlv(OCTETS, value))


CA = extension("2.5.29.19", tlv(SEQUENCE, b"\1\1\xff"))
RSA_SHA256 = tlv(SEQUENCE, oid("1.2.840.113549.1.1.11"), NULL)
ECDSA_SHA256 = tlv(SEQUENCE, oid("1.2.840.10045.4.3.2"))


def rsa_key(bits, exponent):
    """A public key without a known private key."""
    modulus = int.from_bytes(os.urandom(bits // 8), "big") | 1 << bits - 1 | 1
    return tlv(SEQUENCE, tlv(SEQUENCE, oid("1.2.840.113549.1.1.1"), NULL),
               tlv(BITS, b"\0", tlv(SEQUENCE, integer(modulus),
                                    integer(exponent))))


def public_key(path):
    """The public key of a private key file."""
    return run("openssl", "pkey", "-in", path, "-pubout", "-outform", "DER")


def key_identifier(key):
    """Return an identifier by RFC 5280 section 4.2.1.2, method 1, for a P-256
    key.
    """
    return hashlib.sha1(key[-65:]).digest()


def identifiers(key, issuer):
    """The key identifiers of a certificate and of its issuer."""
    return (extension("2.5.29.14", tlv(OCTETS, key_identifier(key)), False),
            extension("2.5.29.35", tlv(SEQUENCE, tlv(
                0x80, key_identifier(issuer))), False))


def signed_by(path):
    """A signing function for certificate(), with an EC key."""
    return lambda tbs: run("openssl", "dgst", "-sha256", "-sign", path,
                           stdin=tbs)


def forged(bits):
    """A signing function for an unknown key: right size, value below it."""
    return lambda tbs: b"\1" + os.urandom(bits // 8 - 1)


def certificate(subject, issuer, key, sign, *extensions,
                algorithm=ECDSA_SHA256):
    """subject, issuer: encoded names."""
    tbs = tlv(SEQUENCE, tlv(0xa0, integer(2)),
              integer(int.from_bytes(os.urandom(8), "big")), algorithm, issuer,
              tlv(SEQUENCE, tlv(TIME, b"200101000000Z"),
                  tlv(TIME, b"491231235959Z")), subject, key,
              tlv(0xa3, tlv(SEQUENCE, *extensions)) if extensions else b"")
    return tlv(SEQUENCE, tbs, algorithm, tlv(BITS, b"\0", sign(tbs)))


def pem(*certificates):
    return "".join("-----BEGIN CERTIFICATE-----\n" + "\n".join(
        textwrap.wrap(base64.b64encode(der).decode(), 64)) +
        "\n-----END CERTIFICATE-----\n" for der in certificates)
