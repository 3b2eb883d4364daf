"""What both sides report about a client's certificate."""

import re
import ssl

import peers
import support
from support import LINE, read_exactly

# Alerts, named as in RFC 8446, section 6.
REQUIRED = {"1.2": "HANDSHAKE_FAILURE", "1.3": "CERTIFICATE_REQUIRED"}
UNSUPPORTED = "UNSUPPORTED_CERTIFICATE"
REVOKED = "CERTIFICATE_REVOKED"
EXPIRED = "CERTIFICATE_EXPIRED"
UNKNOWN = "CERTIFICATE_UNKNOWN"
UNKNOWN_CA = "UNKNOWN_CA"
DENIED = "ACCESS_DENIED"


def refusal(room, to, version=None, session=None, **keywords):
    """The name of the alert that ends the handshake or, in TLS 1.3, that
    follows it.  Nothing was resumed, and no session can be resumed later.
    """
    ctx = session.ctx if session else peers.context(room.certs, version,
                                                    **keywords)
    to = to.address if isinstance(to, support.Tunnel) else to
    client = room.keep(peers.Client(to, ctx, session=session))
    try:
        client.handshake()
        assert client.tls.version() == "TLSv1.3"
        data, end = client.read_all()
        assert data == b""
        assert not client.resumable
    except ssl.SSLError as e:
        end = e.reason
    assert not client.resumed
    client.close()
    return alert_of(end)


def alert_of(word):
    """Strip OpenSSL's prefix, as in TLSV1_ALERT_UNKNOWN_CA."""
    return re.sub(r"^\w+_ALERT_", "", word)


def refused(t, reason, count=1):
    """The count-th log line with this reason, parsed."""
    line = LINE.fullmatch(t.wait_log(rf" -> - .*\d\.\d{{3}}s "
                                     rf"{re.escape(reason)}$", count))
    assert line and line["reason"] == reason, t.log()
    assert (line["in"], line["out"]) == ("0", "0")
    return line


def is_first(room, t, backend, **keywords):
    """Whether this client is the first one to reach the backend."""
    client = room.client(t, **keywords)
    client.send(b"hello")
    server = room.keep(backend.accept())
    assert read_exactly(server, 5) == b"hello"
    server.sendall(b"and bye")
    server.close()
    assert client.read_all() == (b"and bye", "close_notify")
    client.close_notify()
    client.close()
    return True


TIMES = 3  # upper limit, in costs of an honest handshake


def handshake_cost(room, t, version, pem=None):
    """The tunnel's CPU seconds for one handshake, and how it ends."""
    before, lines = t.cpu_seconds(), t.log().count(" in=")
    client = peers.Client(t.address, peers.context(room.certs, version,
                                                   client=pem))
    try:
        client.handshake()
        client.close_notify()
        end = client.read_all()[1]
    except ssl.SSLError as e:
        end = e.reason
    finally:
        client.close()
    t.wait_log(" in=", lines + 1)
    return t.cpu_seconds() - before, alert_of(end)
