"""Certificate authorities, the certificates they issue, and CRLs."""

import base64
import datetime
import hashlib
import itertools
import os
import shutil

from support import DEADLINE, run

LEAF = """basicConstraints = critical, CA:FALSE
keyUsage = digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
"""
AUTHORITY = """basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("-newkey", "rsa:2048")
PASSWORD = "open sesame"


def concatenate(to, *names):
    with open(to, "wb") as out:
        for name in names:
            with open(name, "rb") as f:
                shutil.copyfileobj(f, out)


class Certs:
    """The files of an authority and its certificates, in one directory."""

    def __init__(self, directory):
        self.dir = directory
        self.ca = self.path("ca.crt")
        self.issue("ca", AUTHORITY, issuer=None)
        self.server = self.leaf("server")
        self.rsa = self.leaf("rsa", key=RSA)
        self.expired = self.leaf("expired", sign=self.sign_for_the_past)
        self.soon = self.leaf("soon", days="10")
        self.issue("sub", AUTHORITY)
        self.issue("under", LEAF, issuer="sub")
        self.chain = self.path("chain.pem")
        concatenate(self.chain, self.path("under.crt"), self.path("sub.crt"),
                    self.path("under.key"))
        self.encrypted = self.path("encrypted.key")
        run("openssl", "pkcs8", "-topk8", "-in", self.path("server.key"),
            "-out", self.encrypted, "-passout", "pass:" + PASSWORD)

    def path(self, name):
        return os.path.join(self.dir, name)

    def sign_for_the_past(self, csr, ext, crt):
        """Issue an expired certificate. x509(1ssl) of OpenSSL 3.5 cannot sign
        one; ca(1ssl) can.
        """
        config = self.path("ca.conf")
        with open(config, "w") as f:
            f.write("[ca]\ndefault_ca = past\n[past]\nrand_serial = yes\n"
                    "default_md = sha256\npolicy = any\n"
                    f"database = {self.path('ca.index')}\n"
                    f"new_certs_dir = {self.dir}\n"
                    "[any]\norganizationName = optional\n"
                    "commonName = supplied\n")
        with open(self.path("ca.index"), "w"):
            pass
        day = datetime.timedelta(days=1)
        now = datetime.datetime.now(datetime.timezone.utc)
        run("openssl", "ca", "-batch", "-notext", "-config", config, "-in",
            csr, "-extfile", ext, "-cert", self.ca, "-keyfile",
            self.path("ca.key"), "-startdate", f"{now - 9 * day:%Y%m%d%H%M%SZ}",
            "-enddate", f"{now - day:%Y%m%d%H%M%SZ}", "-out", crt)

    def issue(self, name, extensions, issuer="ca", key=EC, days="365",
              sign=None, to=None):
        """Write name.crt and name.key. to: another path, without the suffix.
        """
        stem = to or self.path(name)
        ext, csr = stem + ".ext", stem + ".csr"
        with open(ext, "w") as f:
            f.write(extensions)
        run("openssl", "req", "-new", "-nodes", *key, "-subj",
            f"/O=tunnel/CN={name}", "-keyout", stem + ".key",
            "-out", csr, timeout=2 * DEADLINE)  # generating an RSA key is slow
        if sign is not None:
            sign(csr, ext, stem + ".crt")
            return
        by = ("-key", self.path("ca.key")) if issuer is None else (
            "-CA", self.path(issuer + ".crt"),
            "-CAkey", self.path(issuer + ".key"))
        run("openssl", "x509", "-req", "-in", csr, "-extfile", ext, "-days",
            days, "-out", stem + ".crt", *by)

    def leaf(self, name, **keywords):
        """Issue a leaf, with certificate and key also in name.pem."""
        self.issue(name, LEAF, **keywords)
        pem = self.path(name + ".pem")
        concatenate(pem, self.path(name + ".crt"), self.path(name + ".key"))
        return pem


DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


def utc(after=datetime.timedelta()):
    """Now plus an offset, in the format of openssl-ca(1ssl)."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{now + after:%Y%m%d%H%M%SZ}"


class Authority:
    """An authority that issues and revokes client certificates.  Dates are
    offsets from now; openssl-ca(1ssl) also signs dates in the past.
    """

    numbers = itertools.count(1)

    def __init__(self, directory, name="Test CA", issuer=None, key=EC,
                 extensions=AUTHORITY, **how):
        self.dir, self.issuer = directory, issuer
        self.name = name
        stem = self.request(f"/CN={name}", key)
        self.key, self.crt = stem + ".key", stem + ".crt"
        (issuer or self).sign(stem, extensions, **how)

    def request(self, subject, key):
        stem = os.path.join(self.dir, f"client{next(self.numbers)}")
        run("openssl", "req", "-new", "-nodes", *key, "-utf8", "-subj",
            subject, "-keyout", stem + ".key", "-out", stem + ".csr")
        return stem

    def configure(self, revoked=()):
        """Write the configuration. revoked: serial numbers."""
        stem = os.path.join(self.dir, f"client{next(self.numbers)}")
        config, index = stem + ".conf", stem + ".index"
        with open(config, "w") as f:
            f.write("[ca]\ndefault_ca = it\n[it]\nrand_serial = yes\n"
                    "default_md = sha256\npolicy = any\n"
                    "unique_subject = no\n"
                    f"database = {index}\nnew_certs_dir = {self.dir}\n"
                    "[any]\ncommonName = optional\n"
                    "organizationName = optional\n"
                    "[crl]\nauthorityKeyIdentifier = keyid\n")
        with open(index, "w") as f:
            for serial in revoked:
                f.write(f"R\t491231235959Z\t{utc(-HOUR)[2:]}\t{serial}\t"
                        "unknown\t/CN=revoked\n")
        return config

    def sign(self, stem, extensions, starts=-DAY, ends=365 * DAY,
             digest="sha256"):
        with open(stem + ".ext", "w") as f:
            f.write(extensions)
        by = ("-cert", self.crt) if os.path.exists(self.crt) else (
            "-selfsign",)
        run("openssl", "ca", "-batch", "-notext", "-preserveDN", "-utf8",
            "-config", self.configure(), "-in", stem + ".csr", "-extfile",
            stem + ".ext", *by, "-keyfile", self.key, "-startdate",
            utc(starts), "-enddate", utc(ends), "-md", digest, "-out",
            stem + ".crt")

    def leaf(self, name="app1", san="", usage="clientAuth", key_usage=
             "digitalSignature", key=EC, subject=None, send=(), **how):
        """Return a PEM file: the certificate, the authorities to send with it,
        and the key. san: as "DNS:a.example, IP:192.0.2.1". usage and
        key_usage: omitted if empty. how: starts=, ends=, digest=.
        """
        stem = self.request(subject or f"/CN={name}", key)
        lines = {"basicConstraints": "critical, CA:FALSE",
                 "keyUsage": key_usage, "extendedKeyUsage": usage,
                 "subjectAltName": san}
        self.sign(stem, "".join(f"{name} = {value}\n" for name, value
                                in lines.items() if value), **how)
        concatenate(stem + ".pem", stem + ".crt",
                    *(authority.crt for authority in send), stem + ".key")
        return stem + ".pem"

    def sub(self, name="Sub CA", **keywords):
        """An authority signed by this one."""
        return Authority(self.dir, name, issuer=self, **keywords)

    def crl(self, *revoked, starts=-DAY, ends=30.5 * DAY):
        """Return the file of a CRL. revoked: PEM files of certificates."""
        serials = [run("openssl", "x509", "-noout", "-serial", "-in", pem)
                   .decode().strip().removeprefix("serial=")
                   for pem in revoked]
        config = self.configure(serials)
        out = config.removesuffix(".conf") + ".crl"
        run("openssl", "ca", "-gencrl", "-config", config, "-cert", self.crt,
            "-keyfile", self.key, "-crlexts", "crl", "-crl_lastupdate",
            utc(starts), "-crl_nextupdate", utc(ends), "-out", out)
        return out


def pin(pem):
    """The pin of the certificate's key, as a rule."""
    key = run("openssl", "x509", "-noout", "-pubkey", "-in", pem)
    der = run("openssl", "pkey", "-pubin", "-outform", "DER", stdin=key)
    return "pin:sha256/" + base64.b64encode(
        hashlib.sha256(der).digest()).decode()
