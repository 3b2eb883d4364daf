"""A session is bound to the server's name (RFC 6066 section 3), and in TLS 1.2
to an extended master secret (RFC 7627 section 5.3).  All other requests lead
to a full handshake or an alert.
"""

import copy
import ssl

import pytest

import peers
import support
from resuming import KINDS, hello_of, newcomer, visit
from wire import TICKET, Hello, answer, vector

SERVER_NAME, MASTER_SECRET = 0, 23  # RFC 6066, section 3; RFC 7627, 5.1
HANDSHAKE_FAILURE = 40
KINDS_1_2 = [kind for kind in KINDS if kind.endswith("1.2")]
LONGEST = ".".join(["a" * 60] * 4) + ".example"


@pytest.fixture(params=KINDS_1_2)
def kind_1_2(request):
    return request.param


@pytest.fixture
def t(room):
    backend = room.backend().serve(support.echo)
    return room.tunnel(f"connect={backend.address}")


def client(certs, kind, name, session=None, extended=True):
    """Connect a client that accepts any certificate."""
    ctx = None
    if session is None:
        ctx = newcomer(certs, kind)
        ctx.check_hostname = False
        if not extended:
            ctx.options |= 1  # SSL_OP_NO_EXTENDED_MASTER_SECRET
    return peers.Client(None, ctx, name, session=session)


def session(t, certs, kind, name="localhost", **keywords):
    return visit(t.address, client(certs, kind, name, **keywords)).session


def is_resumed(t, certs, kind, name, kept):
    return visit(t.address, client(certs, kind, name, kept)).resumed


A, B = "a.example.org", "b.example.org"


@pytest.mark.parametrize("ours,theirs", [(A, B), (B, A), (A, None), (None, A),
                                         (A, "example.org"), (A, A + ".uk")])
def test_other_name(t, certs, kind, ours, theirs):
    kept = session(t, certs, kind, ours)
    assert is_resumed(t, certs, kind, ours, kept)
    assert not is_resumed(t, certs, kind, theirs, kept)
    assert is_resumed(t, certs, kind, ours, kept)
    support.wait_until_alone(t)
    assert support.statistics(t)["resumed"] == 2


def test_name_of_a_session_that_follows(t, certs, kind):
    """In TLS 1.3 each resumption gives a new session, with the same name."""
    visited = visit(t.address, client(certs, kind, A))
    for _ in range(3):
        visited = visit(t.address, client(certs, kind, A, visited.session))
        assert visited.resumed
        assert not is_resumed(t, certs, kind, B, visited.session)


@pytest.mark.parametrize("ours,theirs", [
    (None, None), (A, A.upper()), (LONGEST, LONGEST)], ids=["none", "case",
                                                            "long"])
def test_same_name(t, certs, kind, ours, theirs):
    assert is_resumed(t, certs, kind, theirs, session(t, certs, kind, ours))


def test_no_host_name(t, certs, kind):
    """Later it could not be distinguished from another invalid name."""
    assert not is_resumed(t, certs, kind, "a b", session(t, certs, kind,
                                                         "a b"))


# TLS 1.2: modified hellos.

def changed(hello, number, data, first=None):
    """Return a hello with this extension, or without it (None); first: an
    extension to put first.
    """
    new = copy.copy(hello)
    new.extensions = {first: None, **hello.extensions, number: data}
    new.extensions = {number: data for number, data
                      in new.extensions.items() if data is not None}
    return new


def named(name):
    return vector(2, b"\0" + vector(2, name.encode()))


@pytest.mark.skipif(not support.PATCHED,
                    reason="mbed TLS sees the ticket before what follows it")
def test_name_behind_the_ticket(t, certs):
    hello = hello_of(session(t, certs, "ticket-1.2", "localhost"))
    assert SERVER_NAME in hello.extensions
    for first in None, TICKET:
        for name, means in (("localhost", "resumed"), (A, "full"),
                            (None, "full")):
            assert answer(t.address, changed(
                hello, SERVER_NAME, name and named(name), first)) == means


@pytest.mark.skipif(not support.PATCHED,
                    reason="mbed TLS sees the ticket before what follows it")
def test_name_behind_the_ticket_of_none(t, certs):
    kept = client(certs, "ticket-1.2", None,
                  session(t, certs, "ticket-1.2", None))
    with pytest.raises(ssl.SSLWantReadError):
        kept.tls.do_handshake()
    hello = Hello(kept.outgoing.read())
    for first in None, TICKET:
        for name, means in (None, "resumed"), (named(A), "full"):
            assert answer(t.address, changed(hello, SERVER_NAME, name,
                                             first)) == means


def test_master_secret_that_is_not_offered_again(t, certs, kind_1_2):
    hello = hello_of(session(t, certs, kind_1_2))
    assert MASTER_SECRET in hello.extensions
    assert answer(t.address, hello) == "resumed"
    assert answer(t.address, changed(hello, MASTER_SECRET, None)) == \
        HANDSHAKE_FAILURE
    t.wait_log(" -> - .* session resumed without extended master secret$")
    assert answer(t.address, hello) == "resumed"


def test_old_master_secret(t, certs, kind_1_2):
    """A session without the extension is never resumed, whatever is offered.
    """
    kept = session(t, certs, kind_1_2, extended=False)
    hello = hello_of(kept)
    assert MASTER_SECRET not in hello.extensions
    assert answer(t.address, hello) == "full"
    assert answer(t.address, changed(hello, MASTER_SECRET, b"")) == "full"
    assert not is_resumed(t, certs, kind_1_2, "localhost", kept)
