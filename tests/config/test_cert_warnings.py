"""Faults of a certificate, of an issuer or of a revocation list that clients
or the tunnel would reject, and weak suites, cause warnings: with -t, at the
start, and at a reload.  Nothing else does.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import support
from certificates import AUTHORITY, DAY, EC, HOUR, RSA, Authority, concatenate


class Files:
    """PEM files by name, made on demand, issued by a root and by an
    intermediate CA of their own.
    """

    def __init__(self, certs):
        self.dir = tempfile.mkdtemp(prefix="warnings.", dir=certs.dir)
        self.root = Authority(self.dir, "Root CA")
        self.sub = self.root.sub("Sub CA")
        self.made = {}

    def get(self, name):
        if name not in self.made:
            self.made[name] = getattr(self, "make_" + name)()
        return self.made[name]

    def leaf(self, issuer, *send, san="DNS:a.example.org", key=EC,
             url="", more="", **how):
        """send: the issuers to append. url: authority information access, as
        "caIssuers;URI:http://a.example". more: extension lines.
        """
        stem = issuer.request("/CN=server", key)
        lines = {"basicConstraints": "critical, CA:FALSE",
                 "extendedKeyUsage": "serverAuth", "subjectAltName": san,
                 "authorityInfoAccess": url}
        issuer.sign(stem, more + "".join(f"{name} = {value}\n" for name, value
                                         in lines.items() if value), **how)
        concatenate(stem + ".pem", stem + ".crt",
                    *(authority.crt for authority in send),
                    stem + ".key")
        return stem + ".pem"

    # Certificates without a fault.

    def make_chain(self):
        return self.leaf(self.sub, self.sub)

    def make_chain_with_the_root(self):
        return self.leaf(self.sub, self.sub, self.root)

    def make_under_the_root(self):
        return self.leaf(self.root, self.root)

    def make_self_signed(self):
        path = os.path.join(self.dir, "generated.pem")
        support.run(support.TUNNEL, "-g", "a.example.org", "-o", path)
        return path

    def make_rsa(self):
        return self.leaf(self.sub, self.sub, key=RSA)

    def make_addresses(self):
        return self.leaf(self.sub, self.sub, san="IP:192.0.2.1")

    def make_wildcard(self):
        return self.leaf(self.sub, self.sub,
                         san="DNS:*.example.org, DNS:*.a.example.org")

    def make_a_month_left(self):
        return self.leaf(self.sub, self.sub, ends=31 * DAY)

    def make_sha1_root(self):
        """The signature of a root does not matter: clients trust it by its
        key.
        """
        root = Authority(self.dir, "Old Root CA", digest="sha1")
        return self.leaf(root, root)

    def make_of_a_private_root(self):
        """Clients of a private root have it; no one else needs it."""
        return self.leaf(self.root)

    def make_of_one_that_is_not_to_be_fetched(self):
        return self.leaf(self.sub, url="OCSP;URI:http://ocsp.example.org/")

    def make_name_constraints(self):
        return self.constrained("nameConstraints = critical, "
                                "permitted;DNS:example.org")

    def make_policy_constraints(self):
        return self.constrained("policyConstraints = critical, "
                                "requireExplicitPolicy:0\n"
                                "inhibitAnyPolicy = critical, 1")

    def make_policies(self):
        return self.constrained("certificatePolicies = critical, 1.2.3.4")

    def make_extension_of_ones_own(self):
        return self.constrained("1.2.3.4.5 = critical, ASN1:NULL")

    def constrained(self, extensions):
        """An issuer with these extensions, which only clients evaluate."""
        sub = self.root.sub("Bound CA", extensions=AUTHORITY +
                            extensions + "\n")
        return self.leaf(sub, sub)

    # Certificates with one fault each.

    def make_must_staple(self):
        return self.leaf(self.sub, self.sub, more="tlsfeature = "
                         "status_request\n")

    def make_expired(self):
        return self.leaf(self.sub, self.sub, starts=-9 * DAY, ends=-3 * DAY -
                         HOUR)

    def make_expired_today(self):
        return self.leaf(self.sub, self.sub, starts=-9 * DAY, ends=-5.5 * HOUR)

    def make_soon(self):
        return self.leaf(self.sub, self.sub, ends=10.5 * DAY)

    def make_not_yet(self):
        return self.leaf(self.sub, self.sub, starts=3 * DAY)

    def make_intermediate_expired(self):
        sub = self.root.sub("Late CA", starts=-9 * DAY, ends=-4.5 * DAY)
        return self.leaf(sub, sub)

    def make_intermediate_soon(self):
        sub = self.root.sub("Soon CA", ends=20.5 * DAY)
        return self.leaf(sub, sub)

    def make_lone(self):
        """A public certificate: it has the URL of its issuer's certificate."""
        return self.leaf(
            self.sub, url="OCSP;URI:http://ocsp.example.org/, "
            "caIssuers;URI:http://ca.example.org/sub.crt")

    def make_gap(self):
        return self.leaf(self.sub, self.root)

    def make_gap_further_on(self):
        lower = self.sub.sub("Lower CA")
        return self.leaf(lower, lower, self.root)

    def make_order(self):
        return self.leaf(self.sub, self.root, self.sub)

    def make_no_names(self):
        return self.leaf(self.sub, self.sub, san="")

    def make_inner_star(self):
        return self.leaf(self.sub, self.sub,
                         san="DNS:a.example.org, DNS:www.*.org")

    def make_two_stars(self):
        return self.leaf(self.sub, self.sub,
                         san="DNS:*.*.example.org, DNS:a.example.org")

    def make_lone_star(self):
        return self.leaf(self.sub, self.sub, san="DNS:*, DNS:a.example.org")

    def make_star_of_all(self):
        return self.leaf(self.sub, self.sub, san="DNS:a.example.org, DNS:*.org")

    def make_short_rsa(self):
        return self.leaf(self.sub, self.sub, key=("-newkey", "rsa:1024"))

    def make_sha1(self):
        return self.leaf(self.sub, self.sub, digest="sha1")

    def make_sha1_intermediate(self):
        sub = self.root.sub("Old Sub CA", digest="sha1")
        return self.leaf(sub, sub)


CLEAN = ["chain", "chain_with_the_root", "under_the_root", "self_signed",
         "rsa", "addresses", "wildcard", "a_month_left", "sha1_root",
         "of_a_private_root", "of_one_that_is_not_to_be_fetched",
         "name_constraints", "policy_constraints", "policies",
         "extension_of_ones_own"]
FAULTS = {
    "must_staple": r"the certificate requires OCSP stapling \(must-staple\), "
                   r".*",
    "expired": "the certificate expired 3 days ago",
    "expired_today": "the certificate expired 5 hours ago",
    "soon": "the certificate expires in 10 days",
    "not_yet": r"the certificate is not valid before \d{4}-\d\d-\d\d",
    "intermediate_expired": "the chain's certificate expired 4 days ago",
    "intermediate_soon": "the chain's certificate expires in 20 days",
    "lone": "an intermediate certificate is missing: .*CN=Sub CA.*",
    "gap": "an intermediate certificate is missing: .*CN=Sub CA.*",
    "gap_further_on": "an intermediate certificate is missing: .*CN=Sub CA.*",
    "order": "the chain is in the wrong order: .*",
    "no_names": "the certificate has no subject alternative name, .*",
    "inner_star": r'the name "www\.\*\.org" matches no host',
    "two_stars": r'the name "\*\.\*\.example\.org" matches no host',
    "lone_star": r'the name "\*" matches no host',
    "star_of_all": r'the name "\*\.org" matches no host',
    "short_rsa": ".* RSA key .*1024 bits.*",
    "sha1": "the certificate is signed with SHA-1, .*",
    "sha1_intermediate": "the chain's certificate is signed with SHA-1, .*",
}


@pytest.fixture(scope="session")
def files(certs):
    files = Files(certs)
    yield files
    shutil.rmtree(files.dir)


def warned(*arguments):
    """The warnings of -t, which succeeds, and prints nothing else on stderr.
    """
    p = subprocess.run([*support.UNDER, support.TUNNEL, "-t", "accept=0",
                        "connect=1", *arguments], capture_output=True,
                       text=True, timeout=support.DEADLINE)
    assert p.returncode == 0, p.stderr
    lines = p.stderr.splitlines()
    assert all(line.startswith("tunnel: warning: ") for line in lines), lines
    return [line.removeprefix("tunnel: warning: ") for line in lines]


def logged(t):
    """The warnings in the log of a tunnel, after it has exited."""
    assert t.stop() == 0
    return re.findall("^tunnel: warning: (.*)$", t.log(), re.M)


def is_about(lines, path, fault, where="command line"):
    """Whether the only warning is this one, with the place of the setting."""
    return len(lines) == 1 and re.fullmatch(
        f"{where}: cert: {re.escape(path)}: {FAULTS[fault]}", lines[0])


# Certificates.

@pytest.mark.parametrize("name", CLEAN)
def test_no_warning(room, files, name):
    path = files.get(name)
    assert warned(f"cert={path}") == []
    assert logged(room.tunnel("connect=1", f"cert={path}")) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_warning_with_t(files, fault):
    path = files.get(fault)
    lines = warned(f"cert={path}")
    assert is_about(lines, path, fault), lines


@pytest.mark.parametrize("fault", FAULTS)
def test_warning_at_the_start(room, files, fault):
    """The tunnel nevertheless starts."""
    path = files.get(fault)
    t = room.tunnel("connect=1", f"cert={path}")
    assert is_about(logged(t), path, fault), t.log()


@pytest.mark.parametrize("fault", FAULTS)
def test_warning_at_a_reload(room, files, fault):
    """Repeated at each reload, which succeeds."""
    def write(cert):
        return room.write("tunnel.conf", "accept = 127.0.0.1:0\nconnect = 1\n"
                          f"cert = {cert}\n")

    path = files.get(fault)
    t = room.tunnel("-c", write(files.get("chain")))
    write(path)
    for count in 1, 2:
        t.signal(signal.SIGHUP)
        t.wait_log("tunnel: reloaded", count)
    lines = logged(t)
    assert len(lines) == 2 and lines[0] == lines[1], lines
    assert is_about(lines[:1], path, fault, r"\S+/tunnel\.conf:3"), lines


def test_each_fault_of_each_certificate(files):
    paths = [files.get(name) for name in ("chain", "no_names", "soon", "gap")]
    lines = warned(*(f"cert={path}" for path in paths))
    assert [line.split(": ")[2] for line in lines] == paths[1:]
    leaf = files.leaf(files.sub, files.root, san="", ends=5.5 * DAY,
                      key=("-newkey", "rsa:1024"))
    assert len(warned(f"cert={leaf}")) == 4


@pytest.mark.parametrize("as_directory", [False, True])
def test_missing_issuer_listed_in_ca(room, files, as_directory):
    """Clients need not receive an issuer that the tunnel trusts."""
    path = files.get("lone")
    where = files.sub.crt
    if as_directory:
        os.mkdir(room.path("ca"))
        where = os.path.dirname(shutil.copy(where, room.path("ca")))
    assert warned(f"cert={path}", "verify=request", f"ca={where}") == []
    lines = warned(f"cert={path}", "verify=request", f"ca={files.root.crt}")
    assert is_about(lines, path, "lone")


@pytest.mark.parametrize("name", ["name_constraints", "policy_constraints",
                                  "policies", "extension_of_ones_own"])
def test_chain_with_unknown_extensions(room, files, version, name):
    """The whole chain is sent, including extensions unknown to mbed TLS."""
    backend = room.backend().serve(support.echo)
    path = files.get(name)
    t = room.tunnel(f"connect={backend.address}", f"cert={path}")
    out = support.run("openssl", "s_client", "-connect", t.address,
                      "-showcerts", "-CAfile", files.root.crt,
                      "-tls" + version.replace(".", "_")).decode()
    sent = re.findall("(?s)-----BEGIN.*?-----END.*?-----", out)
    given = re.findall("(?s)-----BEGIN CERT.*?-----END.*?-----",
                       support.text_of(path))
    assert len(given) == 2 and sent[:2] == given
    ok = name != "extension_of_ones_own"
    assert ("Verify return code: 0 (ok)" in out) == ok, out


# CA certificates that cannot issue client certificates.

@pytest.mark.parametrize("extension,words", [
    ("nameConstraints = critical, permitted;DNS:example.org", None),
    ("nameConstraints = DER:30:03:02:01", "its name constraints are "
     "malformed"),
    ("extendedKeyUsage = serverAuth", "not for client authentication"),
    ("extendedKeyUsage = clientAuth, serverAuth", None)])
def test_unusable_issuer(room, files, extension, words):
    ca = Authority(files.dir, "Bad CA",
                   extensions=AUTHORITY + extension + "\n")
    arguments = (f"cert={files.get('chain')}", "verify=request",
                 f"ca={ca.crt}")
    expected = words and ['command line: ca: clients with a certificate of '
                          f'"CN=Bad CA" are refused: {words}']
    assert warned(*arguments) == (expected or [])
    assert logged(room.tunnel("connect=1", *arguments)) == (expected or [])


# Weak suites, which our own library does not have.

@pytest.mark.parametrize("suite,words", [
    ("TLS_RSA_WITH_AES_128_GCM_SHA256", "has no forward secrecy, and its RSA "
     "decryption is open to attacks (CVE-2026-50587)"),
    ("TLS_ECDH_RSA_WITH_AES_128_GCM_SHA256", "has no forward secrecy")])
def test_suite_without_forward_secrecy(room, files, suite, words):
    good = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256"
    arguments = [f"cert={files.get('rsa')}", f"ciphers={suite},{good}"]
    p = subprocess.run([support.TUNNEL, "-t", "accept=0", "connect=1",
                        *arguments], capture_output=True, text=True)
    if "unknown cipher suite" in p.stderr:
        pytest.skip("this mbed TLS lacks the suite")
    assert warned(*arguments) == [f"command line: ciphers: {suite} {words}"]
    t = room.tunnel("connect=1", *arguments)
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded")
    assert logged(t) == [f"command line: ciphers: {suite} {words}"] * 2


# Revocation lists.

@pytest.fixture
def lists(files):
    """Arguments without faults, except those of the lists."""
    def call(path):
        return (f"cert={files.get('chain')}", "verify=request",
                f"ca={files.root.crt}", f"crl={path}")
    return call


CRL_FAULTS = [
    ({"starts": -9 * DAY, "ends": -3.5 * DAY}, "expired 3 days ago"),
    ({"starts": -9 * DAY, "ends": -4.5 * HOUR}, "expired 4 hours ago"),
    ({"ends": 2.5 * DAY}, "expires in 2 days"),
    ({"starts": DAY}, r"not valid before \d{4}-\d\d-\d\d"),
]


@pytest.mark.parametrize("dates,words", CRL_FAULTS)
def test_list_out_of_date(room, files, lists, dates, words):
    arguments = lists(files.root.crl(**dates))
    pattern = f"command line: crl: .*Root CA.*{words}"
    lines = warned(*arguments)
    assert len(lines) == 1 and re.fullmatch(pattern, lines[0]), lines
    t = room.tunnel("connect=1", *arguments)
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded")
    assert logged(t) == lines * 2


def test_list_of_today(room, files, lists):
    arguments = lists(files.root.crl(ends=30 * DAY))
    assert warned(*arguments) == []
    assert logged(room.tunnel("connect=1", *arguments)) == []


@pytest.mark.parametrize("as_directory", [False, True])
def test_each_of_several_lists(room, files, lists, as_directory):
    old = [files.root.crl(starts=-9 * DAY, ends=-3.5 * DAY),
           files.sub.crl(starts=-9 * DAY, ends=-5.5 * DAY)]
    good = files.root.crl()
    if as_directory:
        os.mkdir(room.path("lists"))
        for path in [*old, good]:
            shutil.copy(path, room.path("lists"))
        where = room.path("lists")
    else:
        where = room.path("lists.pem")
        concatenate(where, old[0], good, old[1])
    found = sorted(warned(*lists(where)))
    assert len(found) == 2
    assert re.fullmatch("command line: crl: .*Root CA.*expired 3 days ago", found[0])
    assert re.fullmatch("command line: crl: .*Sub CA.*expired 5 days ago", found[1])
