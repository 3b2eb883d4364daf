"""Shared keys on a server: clients with a key are served, with or without
certificates, and others learn nothing about the keys.
"""

import os
import re
import ssl

import pytest

import peers
import proxy
import support
import wire
from shared_keys import (KEYS, NAME, OTHER, PSK_DHE_KE, PSK_KE, SUITE, Keyed,
                         Offer, alert_of, gnutls, openssl, stunnel, talk,
                         write)
from support import complaint, run_tunnel

# The alert for a wrong key or an unknown identity.
BAD_RECORD_MAC, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER = 20, 40, 47
DECODE_ERROR, DECRYPT_ERROR, MISSING_EXTENSION = 50, 51, 109
ALERT = {"1.2": BAD_RECORD_MAC, "1.3": DECRYPT_ERROR}
PROGRAMS = {"openssl": openssl, "gnutls": gnutls}


@pytest.fixture
def keyed(room, echo):
    """Start a tunnel with keys, without a certificate."""
    return lambda *arguments, **values: Keyed(
        room, *arguments, connect=echo.address, **values)


@pytest.fixture
def both(room, keyed):
    """The same, with a certificate, too."""
    return lambda *arguments, **values: keyed(
        *arguments, cert=room.certs.server, **values)


@pytest.fixture(params=PROGRAMS)
def program(request):
    return PROGRAMS[request.param]


@pytest.fixture(params=["", "mode=fork"])
def mode(request):
    return [request.param] if request.param else []


def said(k, count=1):
    """Return the log line of a connection, after the addresses."""
    line = k.t.wait_log(r" in=\d+ out=\d+ ", count)
    return re.sub(r"^.* -> \S+ ", "", line)


def assert_served(k, command, version, name=NAME, count=1):
    out, err, status = talk(command, k.address)
    end = "in=6 out=6 .* closed$"
    if command[0] == "gnutls-cli" and status == -11:
        end = ""  # 3.7 always crashes after a TLS 1.2 handshake
    else:
        assert out == b"hello\n", err
    assert re.match(rf"TLSv{version} {SUITE[version]} (x25519|secp256r1) (ktls )?"
                    rf"psk={name} {end}", said(k, count))


# All programs, all versions.

def test_conversation(keyed, program, version, mode):
    assert_served(keyed(*mode), program(version), version)


def test_beside_certificates(both, program, version):
    assert_served(both(), program(version), version)


@pytest.mark.parametrize("name,shown", [("app2", "app2"),
                                        ("app 3", '"app 3"')])
def test_each_identity(keyed, version, name, shown):
    """With keys of 16 and of 64 bytes."""
    assert_served(keyed(), openssl(version, name), version, shown)


def test_stunnel(room, keyed, version):
    k = keyed()
    write(room, {NAME: KEYS[NAME]}, "secrets")
    address = stunnel(room, f"""[a]
client = yes
accept = {{address}}
connect = {k.address}
ciphers = PSK
sslVersion = TLSv{version}
PSKsecrets = {{dir}}/secrets
PSKidentity = {NAME}
""")
    sock = room.connect(address)
    sock.sendall(b"hello\n")
    assert support.read_exactly(sock, 6) == b"hello\n"
    sock.close()
    assert f" psk={NAME} " in said(k)


@pytest.mark.parametrize("suites,groups,group", [
    ("TLS_AES_128_GCM_SHA256", "x25519", "x25519"),
    ("TLS_CHACHA20_POLY1305_SHA256", "secp384r1", "secp384r1")])
def test_suites_and_groups(keyed, suites, groups, group):
    k = keyed(f"ciphers={suites}", f"groups={groups}")
    assert talk(openssl("1.3"), k.address)[0] == b"hello\n"
    assert said(k).startswith(f"TLSv1.3 {suites} {group} psk=app1 ")


def test_after_a_retry(keyed):
    """The client's first share is of another group."""
    groups = ["-groups", "secp384r1:X25519"]
    k = keyed("groups=x25519")
    assert_served(k, openssl("1.3", NAME, None, *groups), "1.3")
    _, err, _ = talk(openssl("1.3", NAME, OTHER, *groups), k.address)
    assert alert_of(err) == DECRYPT_ERROR
    assert 'shared key "app1": the client has a different key' in said(k, 2)


def test_inetd(room, inetd, echo):
    path = write(room)
    inetd.own(path)
    address = inetd.start(" ".join([
        "stream tcp nowait", inetd.user.pw_name, inetd.tunnel, "tunnel", "-i",
        f"log={inetd.log}", f"psk={path}", f"connect={echo.address}"]))
    assert talk(openssl("1.3"), address)[0] == b"hello\n"
    support.wait_for(lambda: " psk=app1 " in support.text_of(inetd.log),
                     "the line of its connection")


# Clients without a key.

@pytest.mark.parametrize("name,key,words", [
    (NAME, OTHER, '"app1": the client has a different key'),
    ("nobody", OTHER, '"nobody": unknown, or not allowed by peer')])
def test_wrong_key_and_unknown_identity_look_the_same(
        keyed, version, name, key, words, mode):
    k = keyed(*mode)
    out, err, _ = talk(openssl(version, name, key), k.address)
    assert (out, alert_of(err)) == (b"", ALERT[version])
    assert said(k).endswith("s shared key " + words)
    assert_served(k, openssl(version), version, count=2)


def test_wrong_key_beside_certificates(both, version):
    """A wrong key does not fall back to certificates."""
    k = both()
    out, err, _ = talk(openssl(version, NAME, OTHER), k.address)
    assert (out, alert_of(err)) == (b"", ALERT[version])
    assert 'shared key "app1": the client has a different key' in said(k)


def test_unknown_identity_beside_certificates(both):
    """RFC 8446 section 4.2.11 falls back; TLS 1.2 has no fallback."""
    k = both()
    assert talk(openssl("1.3", "nobody", OTHER), k.address)[0] == b"hello\n"
    assert "psk=" not in said(k)
    _, err, _ = talk(openssl("1.2", "nobody", OTHER), k.address)
    assert alert_of(err) == BAD_RECORD_MAC
    assert 'shared key "nobody": unknown, or not allowed' in said(k, 2)


def test_others_beside_keys(room, both, version):
    client = room.client(both().address, version)
    client.send(b"hello")
    assert support.read_exactly(client, 5) == b"hello"


def test_no_key_at_all(room, keyed, version):
    """On a server without certificates."""
    k = keyed()
    with pytest.raises(ssl.SSLError) as e:
        room.client(k.address, version)
    assert wire.name_of(e.value.reason) == {
        "1.2": "handshake_failure", "1.3": "missing_extension"}[version]
    assert re.search({"1.2": "handshake: no cipher suite, .* in common$",
                      "1.3": "handshake: no shared key offered$"}[version],
                     said(k))


def test_why_a_certificate_is_missing(room, both, authority):
    """The log says that a client continued without its key."""
    k = both(ca=authority.crt, verify="require")
    talk(openssl("1.3", "nobody", OTHER), k.address)
    assert said(k).endswith('no client certificate (shared key "nobody": '
                            'unknown, or not allowed by peer)')


def test_counted(room, keyed):
    k = keyed(stats_file=room.path("stats"))
    talk(openssl("1.3", NAME, OTHER), k.address)
    talk(openssl("1.3", "nobody", OTHER), k.address)
    said(k, 2)
    support.wait_for(lambda: re.search(
        r'reason="shared_key"} 2$', support.text_of(room.path("stats")),
        re.M), "two of them in the statistics", 3 * support.DEADLINE)


# Handmade: the offer in a hello, and the beginning of the answer.

@pytest.fixture(scope="module")
def hello(certs):
    return wire.Hello(wire.client_hello(peers.context(certs, "1.3")))


GOOD = (NAME, KEYS[NAME])
WRONG = (NAME, bytes(32))
UNKNOWN = ("nobody", bytes(32))
TICKET = (bytes(range(200)), bytes(32))  # of another server
OFFERS = {
    "good": ([GOOD], "resumed", "resumed"),
    "good-of-two": ([GOOD, UNKNOWN], "resumed", "resumed"),
    "behind-tickets": ([TICKET] * 50 + [GOOD], "resumed", "resumed"),
    "wrong": ([WRONG], DECRYPT_ERROR, DECRYPT_ERROR),
    "long-binder": ([(NAME, bytes(48))], DECRYPT_ERROR, DECRYPT_ERROR),
    "wrong-before-good": ([WRONG, GOOD], DECRYPT_ERROR, DECRYPT_ERROR),
    "unknown": ([UNKNOWN], DECRYPT_ERROR, "full"),
    # Otherwise a client with one key could find all other identities.
    "unknown-before-good": ([UNKNOWN, GOOD], DECRYPT_ERROR, "resumed"),
    "ticket": ([TICKET], MISSING_EXTENSION, "full"),
    "too-long": ([("x" * 256, bytes(32))], MISSING_EXTENSION, "full"),
    "very-long": ([("x" * 10000, bytes(32))], MISSING_EXTENSION, "full"),
    "longer": ([(NAME + "x", bytes(32))], DECRYPT_ERROR, "full"),
    "shorter": ([(NAME[:-1], bytes(32))], DECRYPT_ERROR, "full"),
    "with-a-zero": ([(NAME + "\0", bytes(32))], MISSING_EXTENSION, "full"),
    "empty": ([("", bytes(32))], DECODE_ERROR, DECODE_ERROR),
    "many": ([(f"nobody{i}", bytes(32)) for i in range(100)], DECRYPT_ERROR,
             "full"),
}


@pytest.mark.parametrize("what", OFFERS)
def test_offer(keyed, hello, what):
    offered, alone, _ = OFFERS[what]
    assert wire.answer(keyed().address, Offer(hello, *offered)) == alone


@pytest.mark.parametrize("what", OFFERS)
def test_offer_beside_certificates(both, hello, what):
    offered, _, beside = OFFERS[what]
    assert wire.answer(both().address, Offer(hello, *offered)) == beside


@pytest.mark.parametrize("offered", [GOOD, WRONG, UNKNOWN])
@pytest.mark.parametrize("modes", [PSK_KE, None, b"\2"])
def test_never_without_a_key_exchange(keyed, both, hello, modes, offered):
    """It also does not reveal whether the identity is known."""
    offer = Offer(hello, offered, modes=modes)
    assert wire.answer(keyed().address, offer) == (
        MISSING_EXTENSION if modes == PSK_KE else ILLEGAL_PARAMETER)
    assert wire.answer(both().address, offer) == (
        "full" if modes == PSK_KE else ILLEGAL_PARAMETER)


def test_both_modes(keyed, hello):
    offer = Offer(hello, GOOD, modes=PSK_KE + PSK_DHE_KE)
    assert wire.answer(keyed().address, offer) == "resumed"


def test_no_share(keyed, hello):
    """psk_dhe_ke requires a share."""
    offer = Offer(hello, GOOD)
    del offer.hello.extensions[51]
    assert wire.answer(keyed().address, offer) == MISSING_EXTENSION


@pytest.mark.parametrize("suites", [b"\x13\x02", b"\x13\x02\x13\x04"])
def test_no_suite_for_it(keyed, both, hello, suites):
    """Keys are for suites with SHA-256."""
    offer = Offer(hello, GOOD)
    offer.hello.suites = suites
    assert wire.answer(keyed().address, offer) == HANDSHAKE_FAILURE
    assert wire.answer(both("ciphers=TLS_AES_256_GCM_SHA384").address,
                       offer) == "full"


# Sessions.

def visit(k, version, *more):
    """Connect; return whether the session was resumed, or the alert."""
    count = len(re.findall(r" in=\d+ out=\d+ ", k.t.log())) + 1
    out, err, _ = talk(openssl(version, NAME, *more), k.address)
    if not out:
        return alert_of(err)
    line = said(k, count)
    assert " psk=app1 " in line
    return " resumed " in line


def test_session_is_resumed(room, keyed, version, mode):
    k, path = keyed(*mode), room.path("session")
    assert visit(k, version, None, "-sess_out", path) is False
    assert visit(k, version, None, "-sess_in", path) is True


def test_session_ends_with_its_key(room, keyed, version):
    """The client has another key itself, so that only the session could help.
    """
    k, path = keyed(), room.path("session")
    visit(k, version, None, "-sess_out", path)
    resume = OTHER, "-sess_in", path
    assert visit(k, version, *resume) is True
    k.change({NAME: KEYS[NAME]})
    assert visit(k, version, *resume) is True
    k.change({NAME: "77" * 32, "app2": KEYS["app2"]})
    assert visit(k, version, *resume) == ALERT[version]
    k.change({"app2": KEYS["app2"]})
    assert visit(k, version, *resume) == ALERT[version]
    k.change({NAME: KEYS[NAME], "app2": KEYS["app2"]}, peer="psk:app2")
    assert visit(k, version, *resume) == ALERT[version]
    k.reload(peer="psk:app1")
    assert visit(k, version, *resume) is True


def test_session_of_a_certificate_ends_with_it(room, both):
    k = both()
    client = room.client(k.address, "1.3")
    client.send(b"hello")
    assert support.read_exactly(client, 5) == b"hello"
    session = client.session
    resumed = room.client(k.address, session=session)
    assert resumed.resumed
    k.reload(cert=None)
    with pytest.raises(ssl.SSLError):
        room.client(k.address, session=session)


# Rules for clients.

def test_rule(keyed, version):
    k = keyed(peer=["psk:app2", "psk:app 3"])
    assert_served(k, openssl(version, "app2"), version, "app2")
    _, err, _ = talk(openssl(version), k.address)
    assert alert_of(err) == ALERT[version]
    assert said(k, 2).endswith(
        'shared key "app1": unknown, or not allowed by peer')


def test_key_stands_for_a_certificate(room, both, authority, version):
    k = both(ca=authority.crt, verify="require")
    assert_served(k, openssl(version), version)
    client = room.client(k.address, version, client=authority.leaf("someone"))
    client.send(b"hello")
    assert support.read_exactly(client, 5) == b"hello"


def test_rules_are_for_both(room, both, authority):
    """If there are any rules, a key has to match one, too."""
    k = both(ca=authority.crt, verify="require", peer=["cn:someone"])
    talk(openssl("1.3"), k.address)
    assert 'no client certificate (shared key "app1": unknown, or not ' \
        'allowed by peer)' in said(k)
    k.reload(peer=["cn:someone", "psk:app1"])
    assert_served(k, openssl("1.3"), "1.3", count=2)


def test_proxy_header_tells_of_no_certificate(room, backend):
    k = Keyed(room, connect=backend.address, proxy_protocol="v2",
              ciphers="TLS_CHACHA20_POLY1305_SHA256")
    task = support.Task(talk, openssl("1.3"), k.address)
    sock = backend.accept()
    parts = proxy.v2_parts(proxy.read_v2(sock))
    support.reset(sock)
    task.result()
    sub = proxy.tlv(proxy.SSL_VERSION, "TLSv1.3") + proxy.tlv(
        proxy.SSL_CIPHER, "TLS_CHACHA20_POLY1305_SHA256")
    assert parts[1].endswith(proxy.tlv(proxy.SSL, b"\1\0\0\0\1" + sub))


# The file, and errors in it.

BAD = {
    "": "no key in this file (tunnel -p makes one)",
    "# app1:" + OTHER: "no key in this file",
    "app1": "2: no colon (allowed: IDENTITY:KEY, as tunnel -p makes it)",
    ":" + OTHER: "2: the identity is empty",
    "x" * 256 + ":" + OTHER: "2: the identity is longer than 255 bytes",
    "a\tb:" + OTHER: "2: the identity has a character that is not allowed",
    "\xe9:" + OTHER: "2: the identity has a character that is not allowed",
    "a\0b:" + OTHER: "2: the identity has a character that is not allowed",
    "app1 :" + OTHER: "2: there is a blank before or after the identity",
    "app1: " + OTHER: "2: the key is not hexadecimal",
    "app1:" + OTHER + " # mine": "2: the key is not hexadecimal",
    "app1:" + "a passphrase, as stunnel takes it": "2: the key is not hexa",
    "app1:" + OTHER + ":": "2: the key is not hexadecimal",
    "app1:": "2: a key of 0 hexadecimal digits (allowed: an even number from "
             "32 to 128)",
    "app1:" + OTHER[:31]: "2: a key of 31 hexadecimal digits",
    "app1:" + OTHER[:30]: "2: a key of 30 hexadecimal digits",
    "app1:" + OTHER + "0": "2: a key of 65 hexadecimal digits",
    "app1:" + OTHER * 2 + "00": "2: a key of 130 hexadecimal digits",
    "app1:" + OTHER + "\napp1:" + OTHER: '3: a second key for "app1"',
    "app1\napp2\napp3\n\n;\napp4:" + OTHER: "2: no colon (allowed: IDENTITY:"
    "KEY, as tunnel -p makes it); 2 more lines are wrong",
    "app1\napp2": "1 more line is wrong",
    "".join(f"a{i}:{OTHER}\n" for i in range(1001)): "1002: more than 1000 ",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:20]))
def test_file_is_wrong(room, text):
    """One message has the place, and never the key."""
    path = room.write("psk", b"; keys\n" + text.encode("latin-1"))
    os.chmod(path, 0o600)
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={path}")
    why = complaint(p)
    assert why.startswith(f"command line: psk: {path}")
    assert BAD[text] in why
    assert OTHER[:30] not in why


@pytest.mark.parametrize("text", [
    "\r\n#\r\n;\r\n  app1:" + OTHER.upper() + "  \r\n", "app1:" + OTHER,
    "\n\napp1:" + OTHER + "\n\n", "app1:" + OTHER[:32] + "\napp2:" + OTHER + OTHER[:32],
    "".join(f"a{i}:{OTHER}\n" for i in range(1000))])
def test_file_is_right(room, text):
    path = room.write("psk", text)
    os.chmod(path, 0o600)
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={path}")
    assert (p.returncode, p.stderr) == (0, "")
    assert '# shared key "a' in p.stdout and OTHER[:30] not in p.stdout


def test_longest_key(room):
    """Some libraries support less; the error says so."""
    path = write(room, {"app1": OTHER * 2})
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={path}")
    assert p.returncode == 0 or complaint(p).endswith(
        "psk:1: a key of 64 bytes, but this mbed TLS takes up to 48")


def test_file_of_others_is_refused(room):
    path = write(room)
    os.chmod(path, 0o622)
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={path}")
    assert complaint(p) == \
        f"command line: psk: {path}: other users can write to it"


def test_made_line(room, keyed):
    path = room.path("made")
    run_tunnel("-p", "new one", "-o", path)
    line = support.text_of(path)
    assert re.fullmatch(r"new one:[0-9a-f]{64}\n", line)
    name, key = line.strip().split(":")
    k = keyed(psk=path)
    assert_served(k, openssl("1.3", name, key), "1.3", '"new one"')


@pytest.mark.parametrize("name", ["", "a:b", "#a", ";", " a", "a ", "x" * 256,
                                  "\t", "\xe9"])
def test_no_line_is_made(name):
    assert complaint(run_tunnel("-p", name)).startswith("-p: ")


# Other messages.

@pytest.mark.parametrize("words,why", [
    (["verify=require"], "verify has no effect with psk and no cert"),
    (["peer=cn:a"], "peer has no effect with verify = none"),
    (["ciphers=TLS_AES_256_GCM_SHA384"], "ciphers: no suite in the list can "
     "be used with tls_min = 1.2, tls_max = 1.3 and shared keys"),
    (["tls_max=1.2", "ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
     "ciphers: no suite in the list can be used"),
    (["ciphers=TLS_PSK_WITH_AES_128_GCM_SHA256"], "ciphers: "),
    (["ciphers=PSK"], 'ciphers = "PSK" is not valid (allowed: cipher suites '
     "to use, best first; with psk and no cert, only shared keys are used: "
     "delete the line)")])
def test_conflict(room, words, why):
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={write(room)}", *words)
    assert why in complaint(p)


def test_rule_without_keys(room):
    p = run_tunnel("-t", "accept=0", "connect=1", f"cert={room.certs.server}",
                   "peer=psk:app1")
    assert complaint(p).endswith('peer: "psk:app1" has no effect without '
                                 'psk')


@pytest.mark.parametrize("words,warning", [
    (["peer=psk:app1", "peer=psk:gone"], 'psk has no key for "gone"'),
    (["peer=psk:gone"], "no shared key is allowed by peer"),
    (["cert", "peer=psk:app1"], "clients without a shared key are served "
     "as well, because cert is set and verify = none"),
    (["cert", "ciphers=TLS_AES_256_GCM_SHA384"],
     "no suite in ciphers can be used with shared keys")])
def test_warning(room, words, warning):
    words = [f"cert={room.certs.server}" if x == "cert" else x for x in words]
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={write(room)}", *words)
    assert p.returncode == 0 and re.search(
        f"^tunnel: warning: (command line: )?\\w+: {warning}$", p.stderr, re.M)


def test_suites_in_the_report(room):
    """The report has only usable suites; with certificates, all."""
    words = ["-t", "accept=0", "connect=1", f"psk={write(room)}"]
    suites = re.findall(r"^#\t(TLS_\w+)$", run_tunnel(*words).stdout, re.M)
    assert sorted(suites) == [
        "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"]
    out = run_tunnel(*words, f"cert={room.certs.server}").stdout
    suites = re.findall(r"^#\t(TLS_\w+)$", out, re.M)
    assert len(suites) == 10
    old = [x for x in suites if "_WITH_" in x]
    assert old[0] == "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"
