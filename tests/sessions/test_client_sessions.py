"""A resumed session requires the client's certificate to be valid now: it is
verified again; if it would not pass, the session is not resumed, and the
client is refused.
"""

import datetime
import re
import types

import pytest

import support
from certificates import DAY, EC, HOUR, RSA, Authority, concatenate, pin
from reloads import Configured
from support import read_exactly, wait_for
from verdicts import (DENIED, EXPIRED, REQUIRED, REVOKED, UNKNOWN, UNKNOWN_CA,
                      refusal, refused)

KINDS = {"1.2 ticket": ("1.2", True), "1.2 ID": ("1.2", False),
         "1.3 ticket": ("1.3", True)}


@pytest.fixture(params=KINDS)
def kind(request):
    """A version, and whether the client uses tickets."""
    return KINDS[request.param]


class Served(list):
    """The connections that a backend has accepted, in order: once one is
    echoed, all earlier ones are in here.
    """

    def echo(self, sock):
        self.append(sock)
        support.echo(sock)


@pytest.fixture
def served():
    return Served()


@pytest.fixture
def backend(room, served):
    return room.backend().serve(served.echo)


def talk(client):
    """Use a connection to its end, in the same way for a resumed one."""
    client.send(b"hello")
    assert read_exactly(client, 5) == b"hello"
    session = client.session
    client.close_notify()
    assert client.read_all() == (b"", "close_notify")
    client.close()
    return session


def session_of(room, t, kind, pem=None):
    version, tickets = kind
    client = room.client(t, version, client=pem, tickets=tickets)
    assert not client.resumed
    return talk(client)


def is_resumed(room, t, session):
    client = room.client(t, session=session)
    talk(client)
    return client.resumed


def line_of(t, count):
    """Return the log line of the last of so many closed connections."""
    return t.wait_log(" closed$", count)


def test_resumed(room, authority, tunnel, served, kind):
    pem = authority.leaf("app1")
    t = tunnel("verify=require", f"ca={authority.crt}",
               f"crl={authority.crl()}", "peer=cn:app1")
    session = session_of(room, t, kind, pem)
    first = line_of(t, 1)
    assert ' client="CN=app1" in=5 ' in first and " resumed " not in first
    for n in range(2, 5):
        assert is_resumed(room, t, session)
        line = line_of(t, n)
        assert re.search(rf" TLSv{kind[0]} TLS_\w+ (x25519 )?resumed "
                         r"sni=localhost client=\"CN=app1\" in=5 out=5 ",
                         line), line
    assert len(served) == 4
    assert support.statistics(t)["resumed"] == 3


def test_session_of_a_session(room, authority, tunnel, kind):
    """A resumed session can be resumed again, together with the certificate.
    """
    t = tunnel("verify=require", f"ca={authority.crt}")
    session = session_of(room, t, kind, authority.leaf("app1"))
    for n in range(2, 8):
        client = room.client(t, session=session)
        session = talk(client)
        assert client.resumed
        assert ' client="CN=app1" in=5 ' in line_of(t, n)


@pytest.mark.parametrize("key", [EC, RSA], ids=["EC", "RSA"])
def test_chain_is_kept(room, authority, tunnel, kind, key):
    """At a resumption the tunnel still has the intermediate."""
    sub = authority.sub(key=key).sub("Sub sub CA")
    pem = sub.leaf("app1", key=key, send=[sub, sub.issuer], san=", ".join(
        f"DNS:app{i}.example.org" for i in range(20)))
    t = tunnel("verify=require", f"ca={authority.crt}",
               "peer=dns:app19.example.org")
    session = session_of(room, t, kind, pem)
    assert is_resumed(room, t, session)
    assert ' client="CN=app1" in=5 ' in line_of(t, 2)


def test_chain_too_long_to_be_kept(room, authority, tunnel, kind):
    """The client is served, resumed or not."""
    sub = authority.sub()
    pem = sub.leaf("app1", send=[sub], san=", ".join(
        f"DNS:app{i:0200d}.example.org" for i in range(60)))
    t = tunnel("verify=require", f"ca={authority.crt}")
    session = session_of(room, t, kind, pem)
    is_resumed(room, t, session)
    assert ' client="CN=app1" in=5 ' in line_of(t, 2)


def test_pinned(room, authority, tunnel, kind):
    pem = Authority(room.dir, "Other CA").leaf("app1")
    t = tunnel("verify=require", f"peer={pin(pem)}")
    session = session_of(room, t, kind, pem)
    assert is_resumed(room, t, session)
    assert ' client="CN=app1" in=5 ' in line_of(t, 2)


@pytest.mark.parametrize("shown", [True, False])
def test_on_request(room, authority, tunnel, kind, shown):
    """A session from a handshake with a certificate has one; without, none."""
    t = tunnel("verify=request", f"ca={authority.crt}")
    session = session_of(room, t, kind, authority.leaf() if shown else None)
    assert is_resumed(room, t, session)
    assert ('client="CN=app1"' in line_of(t, 2)) == shown


def test_sessions_of_several_clients(room, authority, tunnel, kind):
    """Each client keeps its identity, whatever was resumed before."""
    t = tunnel("verify=request", f"ca={authority.crt}")
    names = ["app1", "app2", None]
    sessions = [session_of(room, t, kind, name and authority.leaf(name))
                for name in names]
    n = len(sessions)
    for _ in range(3):
        for name, session in zip(names, sessions):
            assert is_resumed(room, t, session)
            n += 1
            line = line_of(t, n)
            assert re.findall('client="(.*?)"', line) == (
                [f"CN={name}"] if name else [])


# Sessions that are no longer valid are no longer resumed.

@pytest.fixture(scope="module")
def pki(authority):
    app1, app2 = authority.leaf("app1"), authority.leaf("app2")
    other = Authority(authority.dir, "Other CA")
    return types.SimpleNamespace(
        ca=authority.crt, other_ca=other.crt, app1=app1, app2=app2,
        app3=other.leaf("app3"), crl1=authority.crl(app1),
        crl2=authority.crl(app2),
        old_crl=authority.crl(starts=-9 * DAY, ends=-3 * DAY - HOUR),
        pin1=pin(app1), pin2=pin(app2))


# The settings before and after, why app1 is no longer served, the alert, and
# a client that is served instead.
CHANGES = {
    "revoked": ("ca={ca}", "crl={crl1}", "revoked", REVOKED, "app2"),
    "revoked, on request": ("verify=request ca={ca}", "crl={crl1}", "revoked",
                            REVOKED, "app2"),
    "another CRL": ("ca={ca} crl={crl2}", "crl={crl1}", "revoked", REVOKED,
                    "app2"),
    "CRL expired": ("ca={ca}", "crl={old_crl}", "CRL expired 3 days ago",
                    UNKNOWN, None),
    "a rule": ("ca={ca}", "peer=cn:app2", "no peer rule matches", DENIED,
               "app2"),
    "another rule": ("ca={ca} peer=cn:app1", "peer=cn:app2",
                     "no peer rule matches", DENIED, "app2"),
    "another pin": ("peer={pin1}", "peer={pin2}", "no peer rule matches",
                    DENIED, "app2"),
    "another certificate": ("peer=cert:{app1}", "peer=cert:{app2}",
                            "no peer rule matches", DENIED, "app2"),
    "another CA": ("ca={ca}", "ca={other_ca}", 'unknown issuer "CN=Test CA"',
                   UNKNOWN_CA, "app3"),
}


def values(keys, pki):
    return dict(key.format(**vars(pki)).split("=", 1) for key in keys.split())


@pytest.mark.parametrize("what", CHANGES)
def test_reload_with(room, pki, configured, served, kind, what):
    before, after, reason, alert, good = CHANGES[what]
    c = configured(**{"verify": "require", **values(before, pki)})
    session = session_of(room, c.t, kind, pki.app1)
    assert is_resumed(room, c.t, session)
    c.reload(**values(after, pki))
    for n in range(1, 3):
        assert refusal(room, c.t, session=session) == alert
        refused(c.t, f'client certificate "CN=app1": {reason}', n)
    if good:
        session_of(room, c.t, kind, getattr(pki, good))
    else:
        c.reload(crl=None)
        session_of(room, c.t, kind, pki.app1)
    assert len(served) == 3


@pytest.mark.parametrize("before", ["none", "request"])
def test_reload_with_verify_require(room, authority, configured, served, kind,
                                    before):
    """A session of a client without a certificate ends."""
    ca = None if before == "none" else authority.crt
    c = configured(verify=before, ca=ca)
    session = session_of(room, c.t, kind)
    assert is_resumed(room, c.t, session)
    c.reload(verify="require", ca=authority.crt)
    assert refusal(room, c.t, session=session) == REQUIRED[kind[0]]
    refused(c.t, "no client certificate")
    assert len(served) == 2
    # With a certificate: not by the old session, then by the new one.
    session.ctx.load_cert_chain(authority.leaf("app1"))
    client = room.client(c.t, session=session)
    session = talk(client)
    assert not client.resumed
    assert ' client="CN=app1" in=5 ' in line_of(c.t, 3)
    assert is_resumed(room, c.t, session)
    assert len(served) == 4


def test_another_certificate_instead(room, pki, configured, kind):
    """Nothing of the refused certificate remains: see talk()."""
    c = configured(verify="require", ca=pki.ca)
    session = session_of(room, c.t, kind, pki.app1)
    c.reload(crl=pki.crl1)
    session.ctx.load_cert_chain(pki.app2)
    client = room.client(c.t, session=session)
    talk(client)
    assert not client.resumed
    assert ' client="CN=app2" in=5 ' in line_of(c.t, 2)


def test_reload_with_verify_from_none_to_request(room, authority, configured,
                                                 kind):
    """A client that was never asked is served, by its session or by a full
    handshake with its certificate.
    """
    c = configured()
    session = session_of(room, c.t, kind)
    session.ctx.load_cert_chain(authority.leaf("app1"))
    c.reload(verify="request", ca=authority.crt)
    client = room.client(c.t, session=session)
    talk(client)
    line = line_of(c.t, 2)
    assert client.resumed == ("client=" not in line)


def test_reload_with_verify_none(room, authority, configured, kind):
    """The certificate was verified then, and is not reported now."""
    c = configured(verify="require", ca=authority.crt)
    session = session_of(room, c.t, kind, authority.leaf("app1"))
    c.reload(verify="none", ca=None)
    session = talk(room.client(c.t, session=session))
    assert "client=" not in line_of(c.t, 2)
    # Nor is it lost, if it is requested again.
    c.reload(verify="require", ca=authority.crt)
    talk(room.client(c.t, session=session))
    assert ' client="CN=app1" in=5 ' in line_of(c.t, 3)


def test_reload_with_the_same(room, authority, configured, kind):
    c = configured(verify="require", ca=authority.crt, peer="cn:app1")
    session = session_of(room, c.t, kind, authority.leaf("app1"))
    for n in range(2, 5):
        c.reload(crl=authority.crl(), peer=["cn:app1", f"cn:other{n}"])
        assert is_resumed(room, c.t, session)
        assert ' client="CN=app1" in=5 ' in line_of(c.t, n)


def test_failed_reload_keeps_the_trust(room, authority, configured, kind):
    app1 = authority.leaf("app1")
    c = configured(verify="require", ca=authority.crt)
    session = session_of(room, c.t, kind, app1)
    assert "nowhere" in c.refuse(crl=room.path("nowhere"))
    assert is_resumed(room, c.t, session)
    c.reload(crl=authority.crl(app1))
    assert "nowhere" in c.refuse(crl=None, ca=room.path("nowhere"))
    assert refusal(room, c.t, session=session) == REVOKED


@pytest.mark.parametrize("what", ["certificate", "intermediate", "CRL"])
def test_end_of_its_time(room, authority, configured, served, what):
    """Sessions of all kinds end with the certificate, without a reload."""
    life = datetime.timedelta(seconds=round(3 * support.SLOW))
    dates = {x: {"ends": life} if x == what else {}
             for x in ("certificate", "intermediate", "CRL")}
    sub = authority.sub(**dates["intermediate"])
    pem = sub.leaf("app1", send=[sub], **dates["certificate"])
    crl = sub.crl(**dates["CRL"])
    end = datetime.datetime.now() + life
    ca = room.path("ca.pem")
    # Its CRL counts only for an authority that is itself trusted.
    concatenate(ca, authority.crt,
                *([sub.crt] if what == "CRL" else []))
    c = configured(verify="require", ca=ca, crl=crl)
    sessions = [session_of(room, c.t, kind, pem) for kind in KINDS.values()]
    assert all([is_resumed(room, c.t, session) for session in sessions])
    # It is valid throughout its last second.
    wait_for(lambda: datetime.datetime.now() > end + datetime.timedelta(
        seconds=2), "its end")
    alert = UNKNOWN if what == "CRL" else EXPIRED
    reason = {"certificate": "expired", "CRL": "CRL expired",
              "intermediate": 'issuer "CN=Sub CA": expired'}[what]
    for n, session in enumerate(sessions, 1):
        assert refusal(room, c.t, session=session) == alert
        c.t.wait_log(r' -> - .*s client certificate "CN=app1": '
                     rf"{reason} \d+ \w+ ago$", n)
    session_of(room, c.t, KINDS["1.3 ticket"], authority.leaf("app2"))
    assert len(served) == 7


def test_intermediate_that_was_revoked(room, authority, configured, served,
                                       kind):
    c = configured(verify="require", ca=authority.crt)
    sub = authority.sub()
    session = session_of(room, c.t, kind, sub.leaf("app1", send=[sub]))
    assert is_resumed(room, c.t, session)
    c.reload(crl=authority.crl(sub.crt))
    assert refusal(room, c.t, session=session) == REVOKED
    refused(c.t, 'client certificate "CN=app1": issuer "CN=Sub CA": revoked')
    assert len(served) == 2


def test_client_changed_its_certificate(room, authority, configured, served,
                                        kind):
    """A client whose session has a refused certificate is served by its
    current one.
    """
    app1, app2 = authority.leaf("app1"), authority.leaf("app2")
    c = configured(verify="require", ca=authority.crt)
    session = session_of(room, c.t, kind, app1)
    c.reload(crl=authority.crl(app1))
    session.ctx.load_cert_chain(app2)
    client = room.client(c.t, session=session)
    talk(client)
    assert not client.resumed
    assert ' client="CN=app2" in=5 ' in line_of(c.t, 2)
    assert len(served) == 2


# In all workers.

def test_every_worker_resumes_and_refuses(room, authority, backend, served,
                                          kind):
    app1 = authority.leaf("app1")
    c = Configured(room, connect=backend.address, workers=4,
                   verify="require", ca=authority.crt)
    session = session_of(room, c.t, kind, app1)
    clients = [room.client(c.t, session=session) for _ in range(40)]
    for client in clients:
        client.send(b"hello")
        assert read_exactly(client, 5) == b"hello"
    assert [client.resumed for client in clients] == [True] * 40
    for pid in c.t.workers():
        # Besides the listener and the control channel.
        assert len(support.sockets(pid)) > 2, "a worker had nothing to do"
    for client in clients:
        client.close_notify()
        client.close()
    c.t.wait_log(r' resumed sni=\S+ client="CN=app1" in=5 ', 40)
    c.reload(crl=authority.crl(app1))
    wait_for(lambda: len(c.t.workers()) == 4, "the old ones to leave")
    for n in range(1, 41):
        assert refusal(room, c.t, session=session) == REVOKED
    refused(c.t, 'client certificate "CN=app1": revoked', 40)
    assert len(served) == 41
    session_of(room, c.t, kind, authority.leaf("app2"))
    assert len(served) == 42
