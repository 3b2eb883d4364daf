"""verify, ca, crl and peer: their forms, errors in them, and the output of -t.
"""

import os
import re
import signal

import pytest

from certificates import AUTHORITY, DAY, HOUR, Authority, concatenate
from support import GOOD, complaint, run, run_tunnel, text_of
from verdicts import REVOKED, UNKNOWN, UNKNOWN_CA, is_first, refusal, refused

PIN = "pin:sha256/" + "A" * 43 + "="


@pytest.fixture
def configuration(room, certs, authority):
    """Write a configuration file with these lines from line 4 on; return its
    path.
    """
    def call(*lines):
        text = GOOD.format(server=certs.server) + "\n".join(lines) + "\n"
        return room.write("tunnel.conf",
                          text.replace("= CA\n", f"= {authority.crt}\n"))

    return call


@pytest.fixture
def wrong(room, configuration):
    """Return the error about such lines, which is the same for -t and a start.
    """
    def call(*lines):
        path = configuration(*lines)
        message = complaint(run_tunnel("-c", path))
        assert complaint(run_tunnel("-t", "-c", path)) == message
        return message.replace(room.dir + "/", "")

    return call


# Errors.

@pytest.mark.parametrize("how", ["request", "require"])
def test_verify_by_nothing(wrong, how):
    message = wrong("verify = " + how)
    assert message.startswith("tunnel.conf:4: verify")
    assert "needs ca" in message and "pin:sha256/" in message
    assert "cert:FILE" in message


def test_verify_has_three_values(wrong):
    message = wrong("ca = CA", "verify = optional")
    assert message.startswith('tunnel.conf:5: verify = "optional" ')
    assert "allowed: " in message
    for word in "none", "request", "require":
        assert word in message


@pytest.mark.parametrize("line", ["ca = CA", "peer = " + PIN])
@pytest.mark.parametrize("verify", [[], ["verify = none"]])
def test_trust_that_is_not_asked_for(wrong, line, verify):
    """It would look as if clients were verified, which they are not."""
    message = wrong(line, *verify)
    assert message.startswith("tunnel.conf:4: ")
    assert line.split()[0] in message and "verify" in message


def test_crl_that_is_not_asked_for(wrong, authority):
    message = wrong(f"crl = {authority.crl()}")
    assert message.startswith("tunnel.conf:4: ") and "verify" in message


@pytest.mark.parametrize("rule", ["cn:app1", "dns:a.example", "ip:192.0.2.1",
                                  "uri:a:b"])
@pytest.mark.parametrize("pin", [[], ["peer = " + PIN]])
def test_rule_without_ca(wrong, rule, pin):
    """Without ca, anybody can make a certificate with any name."""
    lines = [*pin, "peer = " + rule, "verify = require"]
    message = wrong(*lines)
    assert message.startswith(f"tunnel.conf:{4 + len(pin)}: peer")
    assert rule in message and "needs ca" in message


def test_crl_without_ca(wrong, authority):
    message = wrong("verify = require", f"peer = {PIN}",
                    f"crl = {authority.crl()}")
    assert message == "tunnel.conf:6: crl: it has no effect without ca"


@pytest.mark.parametrize("rule", ["cn:app1,cn:app2", "dns:a.example, cn:b",
                                  "ip:192.0.2.1,uri:a:b", "cert:a.pem,pin:x",
                                  "psk:app1,psk:app2"])
def test_two_rules_in_one_line(wrong, rule):
    """They would be one name, which no peer has."""
    message = wrong("verify = require", "ca = CA", "peer = " + rule)
    assert message == (f'tunnel.conf:6: peer: "{rule}" has more than one rule '
                       "(allowed: one rule in each peer line)")


def test_comma_in_a_name(room, authority):
    """It is a part of the name."""
    p = run_tunnel("-tq", "accept=0", "connect=1", "verify=require",
                   f"cert={room.certs.server}", f"ca={authority.crt}",
                   "peer=cn:Doe, John")
    assert (p.returncode, p.stderr) == (0, "")


@pytest.mark.parametrize("rule", [
    "app1", "CN:app1", "cn=app1", "cert:", "cert", "cn:", "dns:", "ip:", "uri:", "pin:",
    "dns:*", "dns:*.", "dns:a.*.example", "dns:*a.example", "dns:a*.example",
    "dns:*.*.example", "dns:a example",
    "ip:192.0.2", "ip:192.0.2.256", "ip:192.0.2.0/24", "ip:2001:db8", "ip:a",
    "ip:192.0.2.1:443", "ip:[::1]",
    "pin:sha1/" + "A" * 27 + "=", "pin:" + "A" * 43 + "=",
    "pin:sha256/" + "A" * 43, "pin:sha256/" + "A" * 44,
    "pin:sha256/" + "A" * 42 + "==", "pin:sha256/" + "A" * 39 + "=",
    "pin:sha256/" + "-" * 43 + "=", "pin:sha256/" + "A" * 43 + "==",
    "pin:sha256:" + "A" * 43 + "=", "pin:sha256/" + "0" * 64,
    "pin:sha256/" + "A" * 43 + "= x",
])
def test_malformed_rule(wrong, rule):
    message = wrong("verify = require", "ca = CA", "peer = " + rule)
    assert message.startswith("tunnel.conf:6: peer"), message
    assert f'"{rule}"' in message
    for kind in "cn:", "dns:", "ip:", "uri:", "pin:sha256/", "cert:FILE":
        assert kind in message


@pytest.mark.parametrize("key", ["ca", "crl"])
def test_file_that_is_not_there(wrong, authority, key):
    values = {"ca": authority.crt, "crl": authority.crl()}
    values[key] = "nowhere.pem"
    message = wrong("verify = require",
                    *(f"{key} = {value}" for key, value in values.items()))
    assert message.startswith(f"tunnel.conf:{['ca', 'crl'].index(key) + 5}: ")
    assert "nowhere.pem: No such file or directory" in message


@pytest.mark.parametrize("content", [
    "", "nonsense\n", "-----BEGIN CERTIFICATE-----\nAAAA\n"
    "-----END CERTIFICATE-----\n"], ids=["empty", "nonsense", "broken"])
@pytest.mark.parametrize("key", ["ca", "crl"])
def test_file_with_something_else(room, wrong, authority, key, content):
    values = {"ca": authority.crt, "crl": authority.crl()}
    values[key] = room.write("odd.pem", content.replace(
        "CERTIFICATE", "X509 CRL" if key == "crl" else "CERTIFICATE"))
    message = wrong("verify = require",
                    *(f"{key} = {value}" for key, value in values.items()))
    assert message.startswith(f"tunnel.conf:{['ca', 'crl'].index(key) + 5}: ")
    assert "odd.pem: " in message


@pytest.mark.parametrize("key", ["ca", "crl"])
def test_file_that_is_cut_off(room, wrong, authority, key):
    """The rest of the file would be valid, but revoke less than intended."""
    values = {"ca": authority.crt, "crl": authority.crl()}
    whole = text_of(values[key])
    values[key] = room.write("cut.pem", (whole + whole)[:-30])
    message = wrong("verify = require",
                    *(f"{key} = {value}" for key, value in values.items()))
    assert message.startswith(f"tunnel.conf:{['ca', 'crl'].index(key) + 5}: ")
    assert "cut.pem: it ends within a PEM block" in message


def test_ca_and_crl_exchanged(wrong, authority):
    crl = authority.crl()
    assert crl in wrong("verify = require", f"ca = {crl}")
    message = wrong("verify = require", "ca = CA", "crl = CA")
    assert message.startswith("tunnel.conf:6: ") and authority.crt in message


def test_list_in_a_directory_that_is_wrong(room, wrong, authority):
    """Each file counts: skipping one would revoke less than intended."""
    os.mkdir(room.path("d"))
    os.link(authority.crl(), room.path("d/good.pem"))
    room.write("d/bad.pem", "nonsense\n")
    message = wrong("verify = require", "ca = CA", f"crl = {room.path('d')}")
    assert message.startswith("tunnel.conf:6: ")
    assert "d/bad.pem: " in message


def warnings_of(p):
    """Return the warnings of -t, which are no errors."""
    assert p.returncode == 0, p.stderr
    return re.findall(r"^tunnel: warning: \S+/tunnel\.conf:\d: (ca: .*)$", p.stderr, re.M)


def test_file_in_a_directory_that_is_passed_over(room, authority,
                                                 configuration, tunnel_with):
    """Skipping an authority trusts less than intended: only a warning."""
    d = directory(room, authority.crt)
    room.write("d/bad.pem", "nonsense\n")
    os.symlink("nowhere", room.path("d/broken.pem"))
    os.mkfifo(room.path("d/fifo"))
    found = warnings_of(run_tunnel("-t", "-c", configuration(
        "verify = require", f"ca = {d}")))
    assert sorted(found) == [
        f"ca: {d}/bad.pem: no certificate in PEM format; skipped",
        f"ca: {d}/broken.pem: No such file or directory; skipped",
        f"ca: {d}/fifo: not a regular file of at most 1 MB; skipped"]
    t, backend = tunnel_with("verify=require", f"ca={d}")
    assert is_first(room, t, backend, client=authority.leaf("good"))
    t.wait_log("warning: command line: ca: .*d/bad.pem: .*; skipped$")


def test_many_files_that_are_passed_over(room, authority, configuration):
    d = directory(room, authority.crt)
    for i in range(40):
        room.write(f"d/bad{i}.pem", "nonsense\n")
    found = warnings_of(run_tunnel("-t", "-c", configuration(
        "verify = require", f"ca = {d}")))
    assert len(found) == 9 and found[-1] == "ca: 32 more skipped"


def test_directory_as_a_system_has_it(room, authority, tunnel_with):
    """Links by hash, a bundle of all, and a subdirectory."""
    d = directory(room, authority.crt)
    for i in range(3):
        os.symlink("0.pem", room.path(f"d/1234abcd.{i}"))
    in_one_file(room, authority.crt, authority.crt)
    os.rename(room.path("all.pem"), room.path("d/bundle.crt"))
    os.mkdir(room.path("d/java"))
    room.write("d/java/cacerts", b"\xfe\xed\xfe\xed")
    t, backend = tunnel_with("verify=require", f"ca={d}")
    assert is_first(room, t, backend, client=authority.leaf("good"))
    assert "skipped" not in t.log()
    out = run_tunnel("-t", "accept=0", "connect=1", f"cert={authority.leaf()}",
                     "verify=require", f"ca={d}").stdout
    assert out.count('# client CA "CN=Test CA"') == 1


@pytest.mark.skipif(not os.path.isdir("/etc/ssl/certs"),
                    reason="no such directory here")
def test_directory_of_this_system(configuration):
    p = run_tunnel("-t", "-c", configuration("verify = require",
                                             "ca = /etc/ssl/certs"))
    if "the directory has no files" in p.stderr:
        pytest.skip("it is empty")
    assert p.returncode == 0, p.stderr
    assert "# client CA " in p.stdout


# An issuer with an unsupported critical extension.

CRITICAL = {
    "policyConstraints": "critical, requireExplicitPolicy:0",
    "inhibitAnyPolicy": "critical, 1",
    "certificatePolicies": "critical, 1.2.3.4",
    "1.2.3.4.5": "critical, ASN1:NULL",
}


@pytest.mark.parametrize("extension", CRITICAL)
def test_issuer_with_a_critical_extension(room, authority, configuration,
                                          wrong, tunnel_with, extension):
    """If it is the only issuer, it is an error; among others, it is skipped.
    """
    other = Authority(
        room.dir, "Other CA",
        extensions=AUTHORITY + f"{extension} = {CRITICAL[extension]}\n")
    why = (f'certificate 1: "CN=Other CA": its critical extension {extension} '
           "is not supported")
    assert wrong("verify = require", f"ca = {other.crt}").endswith(
        f"ca: {other.crt.replace(room.dir + '/', '')}: {why}")
    both = in_one_file(room, other.crt, authority.crt)
    assert warnings_of(run_tunnel("-t", "-c", configuration(
        "verify = require", f"ca = {both}"))) == [
            f"ca: {both}: {why}; skipped"]
    t, backend = tunnel_with("verify=require", f"ca={both}")
    assert is_first(room, t, backend, client=authority.leaf("good"))
    assert refusal(room, t, client=other.leaf("x")) == UNKNOWN_CA


def test_fifo_in_a_directory(room, wrong):
    """The tunnel does not wait for a writer."""
    os.mkdir(room.path("d"))
    os.mkfifo(room.path("d/fifo"))
    message = wrong("verify = require", f"ca = {room.path('d')}")
    assert "d/fifo: not a regular file" in message


@pytest.mark.parametrize("key", ["ca", "crl"])
def test_empty_directory(room, wrong, key):
    os.mkdir(room.path("d"))
    lines = [] if key == "ca" else ["ca = CA"]
    message = wrong("verify = require", *lines, f"{key} = {room.path('d')}")
    assert message.startswith(f"tunnel.conf:{5 + len(lines)}: ")
    assert "d: " in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read it")
def test_file_that_may_not_be_read(room, wrong):
    path = room.write("secret.pem", "")
    os.chmod(path, 0)
    assert "secret.pem: Permission denied" in wrong(
        "verify = require", f"ca = {path}")


def test_argument_that_is_wrong(certs, authority):
    good = "accept=127.0.0.1:0", "connect=1", f"cert={certs.server}"
    assert "verify" in complaint(run_tunnel(*good, "verify=require"))
    message = complaint(run_tunnel(*good, "verify=require",
                                   f"ca={authority.crt}", "peer=app1"))
    assert '"app1"' in message and "cn:" in message


def test_stunnels_keys(wrong):
    for theirs, ours in (("CAfile", "ca"), ("CApath", "ca"),
                         ("CRLfile", "crl"), ("CRLpath", "crl"),
                         ("verifyChain", "verify"), ("requireCert", "verify"),
                         ("verifyPeer", "peer"), ("checkHost", "peer"),
                         ("checkIP", "peer")):
        message = wrong(theirs + " = x")
        assert message.startswith(f'tunnel.conf:4: unknown key "{theirs}"')
        assert f'is "{ours}' in message


# Forms.

def test_verify_by_default(room, authority, tunnel_with):
    """By default clients are not asked for a certificate."""
    t, backend = tunnel_with()
    assert is_first(room, t, backend, client=authority.leaf("app1"))
    assert "client=" not in t.log()


@pytest.fixture
def tunnel_with(room):
    def call(*arguments):
        backend = room.backend()
        return room.tunnel(f"connect={backend.address}", *arguments), backend

    return call


@pytest.fixture
def authorities(room):
    return [Authority(room.dir, f"CA {i}") for i in range(4)]


def directory(room, *files):
    os.mkdir(room.path("d"))
    for i, path in enumerate(files):
        os.link(path, room.path(f"d/{i}.pem"))
    return room.path("d")


def in_one_file(room, *files):
    path = room.path("all.pem")
    concatenate(path, *files)
    return path


@pytest.mark.parametrize("how", [directory, in_one_file])
def test_several_cas(room, authorities, tunnel_with, version, how):
    ca = how(room, *(a.crt for a in authorities[:3]))
    t, backend = tunnel_with("verify=require", f"ca={ca}")
    for a in authorities[:3]:
        assert is_first(room, t, backend, version=version, client=a.leaf("x"))
    assert refusal(room, t, version, client=authorities[3].leaf("x")) == \
        UNKNOWN_CA


@pytest.mark.parametrize("how", [directory, in_one_file])
def test_several_crls(room, authorities, tunnel_with, version, how):
    """One CRL for each of two authorities, none for the third."""
    ca = room.path("ca.pem")
    concatenate(ca, *(a.crt for a in authorities))
    bad = [a.leaf("bad") for a in authorities]
    crl = how(room, *(a.crl(pem) for a, pem in zip(authorities[:2], bad)))
    t, backend = tunnel_with("verify=require", f"ca={ca}", f"crl={crl}")
    for a, pem in zip(authorities[:2], bad):
        assert refusal(room, t, version, client=pem) == REVOKED
        assert is_first(room, t, backend, version=version,
                        client=a.leaf("good"))
    assert is_first(room, t, backend, version=version, client=bad[2])


def test_text_around_certificates(room, authority, tunnel_with):
    """Text as written by openssl-x509(1ssl) and in CA bundles."""
    bad = authority.leaf("bad")
    ca = run("openssl", "x509", "-text", "-in", authority.crt)
    crl = run("openssl", "crl", "-text", "-in", authority.crl(bad))
    t, backend = tunnel_with(
        "verify=require",
        "ca=" + room.write("ca.pem", b"# ours\n" + ca + b"\n# its end\n"),
        "crl=" + room.write("crl.pem", b"# ours\n" + crl + b"\n# its end\n"))
    assert refusal(room, t, client=bad) == REVOKED
    assert is_first(room, t, backend, client=authority.leaf("good"))


def test_hidden_files_in_a_directory_are_none(room, authority, tunnel_with):
    d = directory(room, authority.crt)
    room.write("d/.swp", "nonsense\n")
    t, backend = tunnel_with("verify=require", f"ca={d}")
    assert is_first(room, t, backend, client=authority.leaf("good"))


def test_many_cas(room, authority, tunnel_with, version):
    """The list of their names is longer than a record."""
    path, name = room.path("many.pem"), "x" * 50
    others = [Authority(room.dir, f"{name} {i}") for i in range(30)]
    concatenate(path, *[a.crt for a in others] * 10, authority.crt)
    t, backend = tunnel_with("verify=require", f"ca={path}")
    assert is_first(room, t, backend, version=version,
                    client=authority.leaf("good"))


@pytest.mark.parametrize("order", [1, -1])
def test_list_beside_an_older_one(room, authority, tunnel_with, order):
    """The older CRL is expired, and has to be removed although a newer one
    exists.
    """
    bad, good = authority.leaf("bad"), authority.leaf("good")
    lists = [authority.crl(starts=-9 * DAY, ends=-3 * DAY - HOUR),
             authority.crl(bad)]
    crl = in_one_file(room, *lists[::order])
    t, backend = tunnel_with("verify=require", f"ca={authority.crt}",
                             f"crl={crl}")
    assert refusal(room, t, client=bad) == REVOKED
    assert refusal(room, t, client=good) == UNKNOWN
    refused(t, 'client certificate "CN=good": CRL expired 3 days ago')
    os.replace(lists[1], crl)
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")
    assert refusal(room, t, client=bad) == REVOKED
    assert is_first(room, t, backend, client=good)


def test_list_by_somebody_else(room, authority, tunnel_with):
    """A CRL with the name of the authority, but by another key, revokes
    nothing.
    """
    good = authority.leaf("good")
    crl = Authority(room.dir, authority.name).crl(good)
    t, _ = tunnel_with("verify=require", f"ca={authority.crt}", f"crl={crl}")
    end = refusal(room, t, client=good)
    line = t.wait_log(" -> - ")
    assert end == UNKNOWN
    assert not line.endswith("revoked")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_are_read_as_root(room, authority, backend, certs):
    """Before and after a reload, with workers that can't read them."""
    bad = authority.leaf("bad")
    ca = room.write("ca.pem", text_of(authority.crt))
    crl = room.write("crl.pem", text_of(authority.crl()))
    for path in ca, crl:
        os.chmod(path, 0o400)
    t = room.tunnel(f"connect={backend.address}", "user=nobody",
                    "verify=require", f"ca={ca}", f"crl={crl}")
    assert is_first(room, t, backend, client=bad)
    with open(crl, "w") as f:
        f.write(text_of(authority.crl(bad)))
    t.signal(signal.SIGHUP)
    t.wait_log("tunnel: reloaded$")
    assert refusal(room, t, client=bad) == REVOKED
    assert is_first(room, t, backend, client=authority.leaf("good"))


# Output of -t.

def report(configuration, *lines):
    p = run_tunnel("-t", "-c", configuration(*lines))
    assert p.returncode == 0, p.stderr
    return p.stdout


def test_keys_are_printed(configuration, authority):
    crl = authority.crl()
    rules = [f"peer = {rule}" for rule in (
        "cn:app 1", "dns:*.example.org", "ip:2001:db8::1", "uri:a:b#c", PIN)]
    out = report(configuration, "verify = request", "ca = CA",
                 f"crl = {crl}", *rules)
    lines = out.splitlines()
    for line in "verify = request", f"ca = {authority.crt}", f"crl = {crl}":
        assert lines.count(line) == 1, out
    assert [x for x in lines if x.startswith("peer = ")] == rules


def test_printed_keys_can_be_read_again(room, configuration, authority):
    out = report(configuration, "verify = require", "ca = CA",
                 f"crl = {authority.crl()}", "peer = cn:app 1",
                 f"peer = {PIN}")
    head = out.split("certificate ")[0]
    p = run_tunnel("-t", "-c", room.write("again.conf", head))
    assert p.returncode == 0
    assert sorted(p.stdout.splitlines()) == sorted(out.splitlines())


def test_defaults_are_printed(configuration):
    out = report(configuration)
    assert "verify = none" in out.splitlines()
    assert not re.search("^(ca|crl|peer) = ", out, re.M)


def test_pin_that_is_printed_is_the_rule(room, certs, authority, backend):
    """The pin in the output of -t can be used for peer."""
    pem = authority.leaf("app1")
    p = run_tunnel("-t", "accept=0", "connect=1", f"cert={pem}")
    pin = re.search(r"^\tpin +(\S+)$", p.stdout, re.M).group(1)
    t = room.tunnel(f"connect={backend.address}", "verify=require",
                    f"peer=pin:{pin}")
    assert is_first(room, t, backend, client=pem)
