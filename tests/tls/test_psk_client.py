"""Shared keys on a client, which authenticates its server by one."""

import re
import time

import pytest

import hostile
import support
import wire
from serving import Server, ask
from shared_keys import (KEYS, NAME, OTHER, SUITE, binder, gnutls_server,
                         openssl_server, stunnel_server, tunnel_server, write)
from shares import SHARES, X25519, Keys, label
from support import complaint, run_tunnel, wait_for
from wire import Reader, sha256, vector

SERVERS = {"openssl": openssl_server, "gnutls": gnutls_server,
           "stunnel": stunnel_server, "tunnel": tunnel_server}
HELLO = b"hello\n"
UNEXPECTED_MESSAGE, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER = 10, 40, 47
UNKNOWN = 'the server does not know the shared key "app1", or has a ' \
    "different key for it"


@pytest.fixture(params=SERVERS)
def server(request):
    return SERVERS[request.param]


def said(log):
    """Return the only connection's log line, after the addresses."""
    return re.search(r" -> \S+ ((?:TLSv|in=).*)", log)[1]


def assert_served(log, version, name=NAME):
    assert re.match(rf"TLSv{version} {SUITE[version]} (x25519\w*|secp\w+) "
                    rf"(sni=\S+ )?psk={name} in=6 out=6 ", said(log))


def assert_refused(got, log, why=UNKNOWN):
    """Check that a connection ends with a reset, not an end of file."""
    assert got == "ConnectionResetError"
    assert re.search(rf" no backend: \S+ {re.escape(why)}$", log, re.M), log


# All servers, all versions.

def test_conversation(room, server, version):
    address = server(room, version)
    got, log = ask(f"connect={address}", f"psk={write(room)}", data=HELLO)
    assert got in (HELLO, b"olleh\n")
    assert_served(log, version)
    assert " ca: " not in log  # the system's CAs are not loaded either


@pytest.mark.parametrize("name,key", [(NAME, OTHER), ("nobody", OTHER)])
def test_server_with_another_key(room, server, version, name, key):
    address = server(room, version, name, key)
    got, log = ask(f"connect={address}", f"psk={write(room)}", data=HELLO)
    assert_refused(got, log)


def test_identity(room, version):
    address = tunnel_server(room, version, "app 3")
    path = write(room)
    got, log = ask(f"connect={address}", f"psk={path}", "psk_identity=app 3",
                   data=HELLO)
    assert got == HELLO
    assert_served(log, version, '"app 3"')


def test_identity_that_looks_like_more_of_the_log(room):
    name, quoted = 'a" client="\\', r'"a\x22 client=\x22\x5c"'
    path = write(room, {name: KEYS[NAME]})
    address = tunnel_server(room, "1.3", name, KEYS[NAME])
    got, log = ask(f"connect={address}", f"psk={path}", data=HELLO)
    assert got == HELLO
    assert f" psk={quoted} in=6 " in log
    write(room, {name: OTHER})
    got, log = ask(f"connect={address}", f"psk={path}", data=HELLO)
    assert_refused(got, log, UNKNOWN.replace(f'"{NAME}"', quoted))


def test_after_a_retry(room):
    address = tunnel_server(room, "1.3", groups="secp384r1")
    got, log = ask(f"connect={address}", f"psk={write(room)}", data=HELLO)
    assert got == HELLO
    assert " secp384r1 psk=app1 " in said(log)


# Beside certificates.

@pytest.fixture
def certified(room):
    """Start a server with a certificate and without keys."""
    return room.keep(Server(room.certs.server))


def test_certificate_is_no_key(room, certified):
    got, log = ask(f"connect={certified.address}", f"psk={write(room)}")
    assert_refused(got, log)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_certificate_of_a_system_that_trusts_it(room, version):
    """Not even a certificate that would be accepted."""
    address = tunnel_server(room, version, psk=None, cert=room.certs.server)
    for more in [], ["server_name=localhost"]:
        got, log = ask(f"connect={address}", f"psk={write(room)}", *more,
                       data=HELLO)
        assert_refused(got, log)


@pytest.mark.parametrize("rule", ["ca={0.ca}", "peer=cert:{0.server}"])
def test_either(room, version, rule):
    """Either is accepted; a certificate is verified."""
    words = [f"psk={write(room)}", rule.format(room.certs),
             "server_name=localhost"]
    address = tunnel_server(room, version)
    got, log = ask(f"connect={address}", *words, data=HELLO)
    assert got == HELLO
    assert_served(log, version)
    address = tunnel_server(room, version, psk=None, cert=room.certs.server)
    got, log = ask(f"connect={address}", *words, data=HELLO)
    assert got == HELLO
    assert "psk=" not in said(log) and ' server="' in said(log)
    other = room.certs.rsa if "peer" in rule else room.certs.server
    words[2] = "server_name=elsewhere.example.org"
    address = tunnel_server(room, version, psk=None, cert=other)
    got, log = ask(f"connect={address}", *words, data=HELLO)
    assert got == "ConnectionResetError"
    assert 'server certificate "' in log


def test_either_with_another_key(room):
    """With an unknown key the certificate is used; with a wrong key it fails.
    """
    words = [f"psk={write(room)}", f"ca={room.certs.ca}",
             "server_name=localhost"]
    address = tunnel_server(room, "1.3", "nobody", OTHER,
                            cert=room.certs.server)
    got, log = ask(f"connect={address}", *words, data=HELLO)
    assert got == HELLO and ' server="' in said(log)
    address = tunnel_server(room, "1.3", NAME, OTHER, cert=room.certs.server)
    got, log = ask(f"connect={address}", *words, data=HELLO)
    assert_refused(got, log)


# Sessions.

class Client:
    """Our client with a configuration file, and the results of its
    connections.
    """

    def __init__(self, configured, **values):
        self.c = configured(client="yes", cert=None, **values)

    def visit(self):
        """Connect; return whether the session was resumed, or the error."""
        count = len(re.findall(r" in=\d+ out=\d+ ", self.c.t.log())) + 1
        try:
            with support.connect(self.c.t.address) as sock:
                sock.sendall(HELLO)
                assert support.read_exactly(sock, len(HELLO)) == HELLO
        except (ConnectionResetError, AssertionError):
            pass  # possibly during connect(2)
        line = self.c.t.wait_log(r" in=\d+ out=\d+ ", count)
        if " no backend: " in line:
            return line.rsplit(": ", 1)[1]
        return (" resumed " in line, re.search(r"(psk=|server=)", line)[1])


@pytest.fixture
def client(configured):
    return lambda **values: Client(configured, **values)


@pytest.mark.parametrize("mode", ["poll", "fork"])
def test_session_is_resumed(room, client, version, mode):
    address = tunnel_server(room, version)
    c = client(psk=write(room), connect=address, mode=mode)
    assert c.visit() == (False, "psk=")
    for _ in range(3):
        assert c.visit() == (True, "psk=")


def test_session_is_resumed_after_a_retry(room, client):
    address = tunnel_server(room, "1.3", groups="secp384r1")
    c = client(psk=write(room), connect=address)
    assert c.visit() == (False, "psk=")
    assert c.visit() == (True, "psk=")


def test_session_ends_with_its_key(room, client, version):
    """A session ends with the client's key; one by certificate ends with its
    CA.
    """
    address = tunnel_server(room, version, cert=room.certs.server)
    c = client(psk=write(room), connect=address, server_name="localhost")
    assert c.visit() == (False, "psk=")
    assert c.visit() == (True, "psk=")
    write(room, {NAME: KEYS[NAME], "app2": KEYS["app2"]})
    c.c.reload()
    assert c.visit() == (True, "psk=")
    write(room, {NAME: OTHER})
    c.c.reload()
    assert c.visit() == UNKNOWN
    c.c.reload(psk=None, ca=room.certs.ca)
    assert c.visit() == (False, "server=")
    assert c.visit() == (True, "server=")
    write(room, {NAME: KEYS[NAME]})
    c.c.reload(psk=room.path("psk"), ca=None)
    assert c.visit() == (False, "psk=")


# Messages.

@pytest.mark.parametrize("words,why", [
    (["psk=PSK", "verify=none"], "verify = none has no effect with psk: a "
     "server without the key is refused (allowed: require)"),
    (["psk=PSK", "cert=CERT"], "cert has no effect with psk, unless ca or "
     "peer is set"),
    (["psk=PSK", "crl=CERT"], "crl: it has no effect without ca"),
    (["psk=PSK", "psk_identity=nobody"],
     'psk_identity: psk has no key for "nobody"'),
    (["psk=PSK", "peer=psk:app1"], 'peer: "psk:app1" has no effect with '
     "client = yes (allowed: psk_identity, which names the key of a client)"),
    (["psk_identity=app1", "verify=none"],
     "psk_identity has no effect without psk"),
    (["psk=PSK", "ciphers=TLS_AES_256_GCM_SHA384"],
     "ciphers: no suite in the list can be used with")])
def test_conflict(room, words, why):
    files = {"PSK": write(room), "CERT": room.certs.server}
    words = [key + "=" + files.get(value, value) for key, _, value in
             (word.partition("=") for word in words)]
    p = run_tunnel("-t", "client=yes", "accept=0", "connect=127.0.0.1:1",
                   *words)
    assert why in complaint(p)


def test_identity_is_for_a_client(room):
    p = run_tunnel("-t", "accept=0", "connect=1", f"psk={write(room)}",
                   "psk_identity=app1")
    assert complaint(p).endswith("psk_identity has no effect with client = no")


def test_what_is_told(room):
    p = run_tunnel("-t", "client=yes", "accept=0", "connect=127.0.0.1:1",
                   f"psk={write(room)}", "psk_identity=app2")
    assert (p.returncode, p.stderr) == (0, "")
    assert "# 127.0.0.1:1: verified as a holder of the shared key\n" in p.stdout
    assert '# shared key "app2"\n' in p.stdout
    assert "app1" not in p.stdout and "CA" not in p.stdout


def test_path_needs_no_name(room):
    """Only the key is verified."""
    p = run_tunnel("-t", "client=yes", "accept=0", "connect=unix:/a",
                   f"psk={write(room)}")
    assert (p.returncode, p.stderr) == (0, "")


def test_counted(room, client, version):
    address = tunnel_server(room, version, key=OTHER)
    c = client(psk=write(room), connect=address,
               stats_file=room.path("stats"))
    assert c.visit() == UNKNOWN
    wait_for(lambda: re.search(r'reason="shared_key"} 1$', support.text_of(
        room.path("stats")), re.M), "it in the statistics",
        3 * support.DEADLINE)


# Handmade servers: RFC 8446 section 4.2.11.

class Keyed(hostile.Server):
    """A server that selects one of the offered keys."""

    def choose(self, key=KEYS[NAME], index=0, with_share=True,
               suite=hostile.SUITE_1_3):
        share, secret = self.agree(X25519)
        found = [(hostile.VERSIONS, b"\3\4"),
                 (wire.PSK, index.to_bytes(2, "big"))]
        if with_share:
            found.append((SHARES, X25519.to_bytes(2, "big") +
                          vector(2, share)))
        self.send(hostile.SERVER_HELLO, self.hello_body(found, suite=suite))
        early = sha256(bytes(32), bytes.fromhex(key))
        self.secret = sha256(label(early, b"derived", hostile.EMPTY), secret)
        self.theirs, self.ours = (
            Keys(label(self.secret, name, self.digest()))
            for name in (b"c hs traffic", b"s hs traffic"))
        return self

    def finish(self, certifies=False):
        """Do the rest of the handshake."""
        self.send_flight(certifies)
        digest = self.digest()
        assert self.message(hostile.FINISHED)[4:] == sha256(self.finished,
                                                            digest)
        self.theirs = self.next
        return self

    def send_flight(self, certifies=False):
        if not certifies:
            self.changes = {hostile.CERTIFICATE: lambda body: None,
                            hostile.VERIFY: lambda body: None}
        super().send_flight()

    def offered(self):
        """Return the offered identities, and whether each binder is by the
        key.
        """
        rest = Reader(self.hello.extensions[wire.PSK])
        identities, names = rest.vector(2), []
        while identities:
            names.append(identities.vector(2).rest())
            identities.take(4)
        binders, good = rest.vector(2), []
        begin = self.transcript[:-2 - len(names) * 33]
        while binders:
            good.append(binders.vector(1).rest() == binder(
                bytes.fromhex(KEYS[NAME]), begin))
        return list(zip(names, good))


@pytest.fixture
def by_hand(room, backend):
    """Return such a server, the application, and our client between them."""

    def start(*arguments):
        t = room.tunnel("client=yes", f"connect={backend.address}",
                        f"psk={write(room)}", *arguments)
        app = room.connect(t.address)
        s = Keyed(room.keep(backend.accept()), room.certs.server,
                  room.certs.server)
        return s.read_hello(), app, t

    return start


OFFER = [(NAME.encode(), True)]


@pytest.fixture(params=["alone", "beside"])
def beside(request, certs):
    return [f"ca={certs.ca}", "server_name=localhost"] \
        if request.param == "beside" else []


def passes(s, app):
    s.send_data(b"from the server")
    assert support.read_exactly(app, 15) == b"from the server"


def test_valid_server(by_hand, beside):
    s, app, t = by_hand(*beside)
    assert s.offered() == OFFER
    assert s.hello.extensions[45] == b"\1\1"  # psk_dhe_ke, and no psk_ke
    passes(s.choose().finish(), app)


def test_version_without_the_extension(by_hand, beside):
    """The version field contains TLS 1.3.  Some libraries miss that, and
    continue with public secrets and any certificate.
    """
    s, app, t = by_hand(*beside)
    s.send(hostile.SERVER_HELLO, s.hello_body([], version=b"\3\4"))
    assert s.alert() == 70
    assert_reset(t, app, "handshake: no TLS version in common")


def test_retry(by_hand, beside):
    s, app, t = by_hand("groups=secp256r1,x25519", *beside)
    s.retry([(SHARES, X25519.to_bytes(2, "big"))])
    assert s.offered() == OFFER
    passes(s.choose().finish(), app)


def leave(s, app):
    """End both sides of an open connection."""
    s.out += s.ours.seal(wire.ALERT, b"\1\0")
    s.flush()
    app.close()
    s.sock.close()


@pytest.mark.parametrize("how", ["old", pytest.param("large", marks=(
    pytest.mark.skipif(not support.PATCHED, reason="it is offered")))])
def test_ticket_that_is_not_offered(room, backend, by_hand, certs, how):
    """The key has index 0 then, and the server is not authenticated by the
    ticket.
    """
    s, app, t = by_hand(f"ca={certs.ca}", "server_name=localhost")
    s.send_hello()
    s.finish(certifies=True).send_ticket(
        b"t" * (5900 if how == "large" else 100),
        lifetime=1 if how == "old" else 3600)
    until = time.monotonic() + 1.1
    passes(s, app)
    leave(s, app)
    t.wait_log(r' server="[^"]*CN=server" in=\d+ out=')
    if how == "old":
        wait_for(lambda: time.monotonic() > until, "the end of the ticket")
    app = room.connect(t.address)
    s = Keyed(room.keep(backend.accept()), certs.server, certs.server)
    assert s.read_hello().offered() == OFFER
    passes(s.choose().finish(), app)
    leave(s, app)
    t.wait_log(r" sni=localhost psk=app1 in=\d+ out=")


def assert_reset(t, app, words):
    t.wait_log(" no backend: .*" + re.escape(words))
    with pytest.raises(ConnectionResetError):
        app.recv(1)


def test_server_without_the_key(by_hand, beside):
    """The server can't read the alert."""
    s, app, t = by_hand(*beside)
    s.choose(OTHER).send_flight()
    s.flush()
    assert_reset(t, app, 'shared key "app1": the server has a different key')


@pytest.mark.parametrize("how", [
    {"index": 1}, {"index": 65535}, {"with_share": False}],
    ids=["next", "last", "psk_ke"])
def test_invalid_choice(by_hand, beside, how):
    s, app, t = by_hand(*beside)
    s.choose(**how)
    assert s.alert() in (HANDSHAKE_FAILURE, ILLEGAL_PARAMETER)
    assert_reset(t, app, "")


def test_certificate_behind_a_key(by_hand, beside):
    s, app, t = by_hand(*beside)
    s.choose().send_flight(certifies=True)
    assert s.alert() == UNEXPECTED_MESSAGE
    t.wait_log(" no backend: .*unexpected message")


def test_certificate_in_place_of_the_key(by_hand):
    """Even a valid certificate is refused, without parsing it."""
    s, app, t = by_hand("server_name=localhost")
    s.send_hello()
    s.send_flight(certifies=True)
    s.ours = s.theirs = None
    assert s.alert() in (HANDSHAKE_FAILURE, ILLEGAL_PARAMETER)
    assert_reset(t, app, UNKNOWN)
