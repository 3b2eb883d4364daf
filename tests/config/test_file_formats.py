"""Certificates and keys in all common formats: accepted, or refused with one
message that has the format and a command to convert it.
"""

import os
import re
import shutil
import subprocess
import tempfile

import pytest

import support
from certificates import EC, concatenate
from support import run, text_of

NAME = ("-subj", "/CN=shape", "-addext", "subjectAltName=DNS:a.example.org",
        "-days", "90")
SECRET = "open sesame"


class Shapes:
    """Files in a directory, made on demand."""

    def __init__(self, certs):
        self.dir = tempfile.mkdtemp(prefix="shapes.", dir=certs.dir)
        self.key, self.crt = self.path("key"), self.path("crt")
        run("openssl", "req", "-x509", "-nodes", *EC, "-keyout",
            self.key, "-out", self.crt, *NAME)
        self.both = self.path("both")
        concatenate(self.both, self.crt, self.key)
        self.password = self.write("password", SECRET + "\n")

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def made(self, name, *command):
        """The output of a command; its file name is appended to the command.
        """
        path = self.path(name)
        if not os.path.exists(path):
            run(*command, path)
        return path

    def edited(self, name, edit, of=None):
        return self.write(name, edit(text_of(of or self.both)))

    def pair(self, kind, *how):
        """A self-signed certificate, and its key."""
        crt, key = self.path(f"{kind}.crt"), self.path(f"{kind}.key")
        if not os.path.exists(crt):
            run("openssl", "req", "-x509", "-nodes", "-newkey", *how,
                "-keyout", key, "-out", crt, *NAME)
        return crt, key


@pytest.fixture(scope="module")
def shapes(certs):
    shapes = Shapes(certs)
    yield shapes
    shutil.rmtree(shapes.dir)


def check(cert, key=None, *more):
    return subprocess.run(
        [*support.UNDER, support.TUNNEL, "-t", "accept=0", "connect=1",
         f"cert={cert}", *([f"key={key}"] if key else []), *more],
        capture_output=True, text=True, timeout=support.DEADLINE)


def complaint(p):
    """The single error message."""
    lines = [line for line in p.stderr.splitlines() if ": warning: " not in
             line]
    assert p.returncode == 2 and len(lines) == 1, p.stderr
    return lines[0].removeprefix("tunnel: error: ")


def is_accepted(p):
    assert p.returncode == 0, p.stderr
    return "CN=shape" in p.stdout


# Accepted formats.

BOTH = {
    "as it is": lambda text: text,
    "indented": lambda text: re.sub("^", "\t    ", text, flags=re.M),
    "blanks behind": lambda text: text.replace("\n", " \t \n"),
    "literal ends": lambda text: text.replace("\n", "\\n"),
    "literal CRLF": lambda text: text.replace("\n", "\\r\\n"),
    "JSON": lambda text: '{"pem": "' + text.replace("\n", "\\n") + '"}\n',
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "BOM": lambda text: "\ufeff" + text,
    "text around": lambda text: f"subject=x\n{text}issuer=y\n",
    "no end of line": lambda text: text.rstrip("\n"),
    "X509": lambda text: text.replace("CERTIFICATE", "X509 CERTIFICATE"),
    "key first": lambda text: "".join(
        re.findall("(?s)-----BEGIN.*?-----END.*?-----\n", text)[::-1]),
    "with its parameters": lambda text: (
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n"
        "-----END EC PARAMETERS-----\n" + text),
}


@pytest.mark.parametrize("shape", BOTH)
def test_accepted(shapes, shape):
    path = shapes.edited("edited " + shape, BOTH[shape])
    assert is_accepted(check(path))


def test_certificate_in_der(shapes):
    der = shapes.made("crt.der", "openssl", "x509", "-outform", "DER", "-in",
                      shapes.crt, "-out")
    assert is_accepted(check(der, shapes.key))


@pytest.mark.parametrize("how", ["pkey", "ec", "pkcs8"])
def test_key_in_der(shapes, how):
    more = {"pkcs8": ["-topk8", "-nocrypt"]}.get(how, [])
    der = shapes.made(f"key.{how}", "openssl", how, *more, "-outform", "DER",
                      "-in", shapes.key, "-out")
    assert is_accepted(check(shapes.crt, der))


@pytest.mark.parametrize("settings", [
    [], ["-addtrust", "serverAuth"], ["-addreject", "emailProtection"],
    ["-setalias", "ours"]])
def test_trusted_certificate(shapes, settings):
    """OpenSSL's TRUSTED CERTIFICATE; its trust settings do not matter to TLS
    clients.
    """
    path = shapes.made("trusted" + "".join(settings), "openssl", "x509",
                       "-trustout", *settings, "-in", shapes.crt, "-out")
    assert "BEGIN TRUSTED CERTIFICATE" in text_of(path)
    assert is_accepted(check(path, shapes.key))


@pytest.mark.parametrize("settings,taken", [
    ([], True), (["-addtrust", "serverAuth"], False),
    (["-addreject", "clientAuth"], False)])
def test_trusted_certificate_of_an_authority(shapes, settings, taken):
    """For an authority they would matter, so they are not silently ignored."""
    path = shapes.made("ca" + "".join(settings), "openssl", "x509",
                       "-trustout", *settings, "-in", shapes.crt, "-out")
    p = check(shapes.both, None, "verify=require", f"ca={path}")
    assert (p.returncode == 0) == taken
    if not taken:
        assert "it has OpenSSL trust settings" in complaint(p)
        p = convert(complaint(p), "")
        assert is_accepted(check(shapes.both, None, "verify=require",
                                 f"ca={path}.pem"))


def test_encrypted_key(shapes):
    for how in ["-aes256"], ["-aes128"]:
        key = shapes.made("key" + how[0], "openssl", "pkey", *how, "-in",
                          shapes.key, "-passout", "pass:" + SECRET, "-out")
        assert is_accepted(check(shapes.crt, key,
                                 f"key_password_file={shapes.password}"))
        assert "it is encrypted; set key_password_file" in complaint(
            check(shapes.crt, key))


def test_truncated_file(shapes):
    """In any format."""
    for shape in "indented", "literal ends", "CRLF":
        path = shapes.edited("cut", lambda text: BOTH[shape](text)[:-40])
        assert "it ends within a PEM block" in complaint(check(path))


# Formats to be converted.

def convert(message, more):
    """Run the command given in the message."""
    command = message.split("; to convert it: ")[1]
    p = subprocess.run(command + " " + more, shell=True, capture_output=True,
                       text=True, stdin=subprocess.DEVNULL,
                       timeout=support.DEADLINE)
    assert p.returncode == 0, f"{command}: {p.stderr}"


def export(shapes, name, *more):
    return shapes.made(name, "openssl", "pkcs12", "-export", *more, "-in",
                       shapes.crt, "-inkey", shapes.key, "-passout",
                       "pass:" + SECRET, "-out")


def encrypted(shapes, name, *how):
    return shapes.made(name, "openssl", *how, "-in", shapes.key, "-passout",
                       "pass:" + SECRET, "-out")


def of_java(shapes):
    """JKS, not the newer PKCS #12."""
    path = shapes.path("keystore")
    if shutil.which("keytool") is None:
        pytest.skip("no keytool")
    run("keytool", "-genkeypair", "-alias", "a", "-keyalg", "EC", "-dname",
        "CN=shape", "-storetype", "JKS", "-keystore", path, "-storepass",
        SECRET, stderr=subprocess.DEVNULL, timeout=3 * support.DEADLINE)
    return path


def of_openssh(shapes):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen")
    path = shapes.path("ssh")
    shutil.copy(shapes.key, path)
    os.chmod(path, 0o600)
    run("ssh-keygen", "-q", "-p", "-N", "", "-f", path)
    assert "OPENSSH" in text_of(path)
    return path


BY_PKEY = f"-passin 'pass:{SECRET}' -passout 'pass:{SECRET}'"
CERTS = {  # with the key inside, or without
    "a PKCS #12 file": (lambda s: export(s, "p12"), True,
                        f"-passin 'pass:{SECRET}'"),
    "text in UTF-16": (lambda s: s.write("utf16", "\ufeff".encode("utf-16-le")
                                         + text_of(s.both).encode(
                                             "utf-16-le")), True, ""),
    "a PKCS #7 bundle": (lambda s: s.made(
        "p7", "openssl", "crl2pkcs7", "-nocrl", "-certfile", s.crt, "-out"),
        False, ""),
    "a PKCS #7 bundle, in DER": (lambda s: s.made(
        "p7.der", "openssl", "crl2pkcs7", "-nocrl", "-outform", "DER",
        "-certfile", s.crt, "-out"), False, ""),
    "a Java keystore": (of_java, True, f"-srcstorepass '{SECRET}' "
                        f"-deststorepass '{SECRET}'"),
}


@pytest.mark.seconds(60)
@pytest.mark.parametrize("what", CERTS)
def test_certificate_is_converted(shapes, what):
    make, has_key, more = CERTS[what]
    path = make(shapes)
    key = None if has_key else shapes.key
    message = complaint(check(path, key))
    assert what.split(",")[0] in message, message
    convert(message, more)
    if what == "a Java keystore":  # newer ones are PKCS #12
        path += ".pem"
        convert(complaint(check(path)), f"-passin 'pass:{SECRET}'")
    assert is_accepted(check(path + ".pem", key))


KEYS = {
    "a key encrypted with scrypt": (lambda s: encrypted(
        s, "scrypt", "pkcs8", "-topk8", "-scrypt"), BY_PKEY),
    "a key encrypted with triple DES": (lambda s: encrypted(
        s, "des3", "pkcs8", "-topk8", "-v2", "des3"), BY_PKEY),
    "a key encrypted as in PKCS #12": (lambda s: encrypted(
        s, "pbe", "pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES"), BY_PKEY),
    "a key encrypted in OpenSSL's old format": (lambda s: encrypted(
        s, "old", "ec", "-aes256"), BY_PKEY),
    "a key with explicit curve": (lambda s: s.made(
        "explicit", "openssl", "ec", "-param_enc", "explicit", "-in", s.key,
        "-out"), ""),
    "an OpenSSH key": (of_openssh, "-P '' -N ''"),
}


@pytest.mark.parametrize("what", KEYS)
def test_key_is_converted(shapes, what):
    make, more = KEYS[what]
    path = make(shapes)
    password = f"key_password_file={shapes.password}"
    p = check(shapes.crt, path, password)
    if p.returncode == 0:
        pytest.skip("this mbed TLS accepts it")
    message = complaint(p)
    assert f": {what}" in message or f" {what}" in message, message
    convert(message, more)
    other = path if "OpenSSH" in what else path + ".pem"
    assert is_accepted(check(shapes.crt, other, password))


# Unsupported keys.

CURVES = {"secp256k1": "secp256k1", "P-192": "secp192r1", "P-224": "secp224r1",
          "P-521": "secp521r1", "brainpoolP256r1": "a brainpool curve"}


@pytest.mark.parametrize("curve", CURVES)
def test_key_on_another_curve(shapes, curve):
    """It is served with a warning, if the library supports the curve."""
    crt, key = shapes.pair(curve, "ec", "-pkeyopt",
                           f"ec_paramgen_curve:{curve}")
    p = check(crt, key)
    if p.returncode == 0:
        assert re.search(r"warning: .*: the certificate has a key on \w+, "
                         "which many clients refuse", p.stderr)
        return
    assert complaint(p) == (
        f"command line: cert: {crt}: certificate 1: it has a key "
        f"on {CURVES[curve]}, which this mbed TLS does not support (allowed: "
        f"RSA, secp256r1, secp384r1"
        f"{', secp521r1' * ('secp521r1' in support.GROUPS)})")
    assert (f"key: {key}: it is a key on {CURVES[curve]}, which" in
            complaint(check(shapes.crt, key)))


@pytest.mark.parametrize("kind,what,does", [
    (["ed25519"], "an Ed25519 key", "is signed with"),
    (["ed448"], "an Ed448 key", "is signed with"),
    (["rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"],
     "an RSA-PSS key", "has")], ids=["Ed25519", "Ed448", "RSA-PSS"])
def test_key_of_another_kind(shapes, kind, what, does):
    crt, key = shapes.pair(kind[0], *kind)
    assert (f"cert: {crt}: certificate 1: it {does} {what}, which this mbed "
            f"TLS does not support") in complaint(check(crt, key))
    assert (f"key: {key}: it is {what}, which this mbed TLS does not support" in
            complaint(check(shapes.crt, key)))


def test_certificate_with_explicit_curve_parameters(shapes):
    """Its authority has to issue a new one."""
    key = KEYS["a key with explicit curve"][0](shapes)
    crt = shapes.made("explicit.crt", "openssl", "req", "-new", "-x509",
                      "-key", key, *NAME, "-out")
    p = check(crt, key)
    if p.returncode == 0:
        pytest.skip("this mbed TLS accepts it")
    assert "certificate 1: it has a key with explicit curve" in \
        complaint(p)


# Files of the wrong kind.

WRONG = {
    "a private key": lambda s: s.key,
    "a public key": lambda s: s.made("public", "openssl", "pkey", "-in", s.key,
                                     "-pubout", "-out"),
    "a certificate request, not signed by a CA yet":
        lambda s: s.made("csr", "openssl", "req", "-new", "-key", s.key,
                         "-subj", "/CN=a", "-out"),
    "a certificate": lambda s: s.crt,
    'a block of "LETTER"': lambda s: s.write(
        "letter", "-----BEGIN LETTER-----\nAAAA\n-----END LETTER-----\n"),
}


@pytest.mark.parametrize("what", WRONG)
def test_something_else(shapes, authority, what):
    path = WRONG[what](shapes)
    rule = "verify=require", "peer=cert:" + path
    for p, key, wanted in (
            (check(path, shapes.key), "cert", "certificate"),
            (check(shapes.crt, path), "key", "private key"),
            (check(shapes.both, None, *rule), "peer", "certificate"),
            (check(shapes.both, None, "verify=require", f"ca={path}"), "ca",
             "certificate"),
            (check(shapes.both, None, "verify=require", f"ca={shapes.crt}",
                   f"crl={path}"), "crl", "revocation list")):
        if what == "a " + wanted:
            assert p.returncode == 0, p.stderr
            continue
        assert complaint(p) == (f"command line: {key}: {path}: no {wanted} "
                                f"found, but {what}")


def test_crl_instead_of_a_certificate(shapes, authority):
    path = authority.crl()
    assert complaint(check(path)).endswith(
        f"{path}: no certificate found, but a revocation list")


def test_crl_in_der(shapes, authority):
    """The format in which authorities publish them."""
    der = shapes.made("crl.der", "openssl", "crl", "-in", authority.crl(),
                      "-outform", "DER", "-out")
    p = check(shapes.both, None, "verify=require", f"ca={authority.crt}",
              f"crl={der}")
    assert p.returncode == 0, p.stderr
    assert 'CRL of "CN=Test CA"' in p.stdout


@pytest.mark.parametrize("form", ["PEM", "DER"])
def test_unsupported_crl(shapes, authority, form):
    """Limited to user certificates, by a critical extension."""
    conf = authority.configure()
    with open(conf, "a") as f:
        f.write("[users]\nissuingDistributionPoint = critical, @dp\n"
                "[dp]\nonlyuser = TRUE\n")
    path = shapes.path("users." + form)
    run("openssl", "ca", "-gencrl", "-config", conf, "-cert", authority.crt,
        "-keyfile", authority.key, "-crlexts", "users", "-crldays", "9",
        "-out", path)
    if form == "DER":
        run("openssl", "crl", "-in", path, "-outform", form, "-out", path)
    assert (f"crl: {path}: its revocation list cannot be read (" in complaint(
        check(shapes.both, None, "verify=require", f"ca={authority.crt}",
              f"crl={path}")))


@pytest.mark.parametrize("content,words", [
    ("", "no certificate in PEM format"),
    ("nonsense\n", "no certificate in PEM format"),
    ("-----BEGIN CERTIFICATE-----\nA?A=\n-----END CERTIFICATE-----\n",
     "certificate 1: it is damaged ("),
    ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
     "certificate 1: it cannot be read ("),
    ("0\0", "read as a DER certificate, it cannot be read ("),
    # Each such block would make the parser search all the others for its end.
    ("-----BEGIN CERTIFICATE-----\nMAA=\n" * 2 +
     "-----END CERTIFICATE-----\n",
     "certificate 1: it is damaged (PEM - No PEM header or footer found)"),
], ids=["empty", "nonsense", "base64", "DER in PEM", "DER", "no end"])
def test_damaged(shapes, content, words):
    path = shapes.write("damaged", content)
    assert f"cert: {path}: {words}" in complaint(check(path))


def test_damaged_key(shapes):
    path = shapes.write("damaged", text_of(shapes.crt) +
                        "-----BEGIN PRIVATE KEY-----\nMAA=\n"
                        "-----END PRIVATE KEY-----\n")
    assert f"key: {path}: its private key cannot be read (" in complaint(
        check(shapes.crt, path))
