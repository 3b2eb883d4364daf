"""The TLS information in proxy_protocol=v2, for a backend without TLS."""

import pytest

import peers
import proxy
import support
from certificates import pin
from proxy import (ALPN, AUTHORITY, IN_SESSION, ON_CONNECTION, inet_block,
                   ssl_tlv, tlv)
from support import read_exactly, run

NAME = tlv(AUTHORITY, "localhost")
BOTH = ON_CONNECTION | IN_SESSION


def tlvs_of(backend, client):
    """Everything after the addresses, on the next connection."""
    with backend.accept() as server:
        family, block = proxy.v2_parts(proxy.read_v2(server))
    addresses = inet_block(client.sock.getsockname(),
                           client.sock.getpeername())
    assert (family, block[:12]) == (proxy.TCP4, addresses)
    return block[12:]


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        f"connect={backend.address}", "proxy_protocol=v2", *arguments)


@pytest.fixture
def app1(authority):
    return authority.leaf("app1")


def unchecked(room, *arguments, **keywords):
    """A context for clients that accept any server name."""
    ctx = peers.context(room.certs, *arguments, **keywords)
    ctx.check_hostname = False
    return ctx


def connect(room, t, ctx, name):
    return room.keep(peers.Client(t.address, ctx, name)).handshake()


# ALPN and authority.

def test_version_and_cipher_suite(room, backend, start, version):
    client = room.client(start(), version)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client)


@pytest.mark.parametrize("cipher,name", proxy.OPENSSL_NAMES.items())
def test_cipher_suite_has_its_iana_name(room, backend, start, cipher, name):
    t = start(f"ciphers={name}")
    client = room.client(t, "1.2", ciphers=cipher)
    assert tlvs_of(backend, client).endswith(
        tlv(proxy.SSL_VERSION, "TLSv1.2") + tlv(proxy.SSL_CIPHER, name))


def test_no_server_name(room, backend, start, version):
    client = connect(room, start(), unchecked(room, version), None)
    assert tlvs_of(backend, client) == ssl_tlv(client)


@pytest.mark.parametrize("name", ["a=b", "a b", 'a"b', "a\x1bb"])
def test_invalid_server_name(room, backend, start, version, name):
    """OpenSSL's client sends any name.  An invalid one is unreliable, so the
    backend does not receive it.
    """
    client = connect(room, start(), unchecked(room, version), name)
    assert tlvs_of(backend, client) == ssl_tlv(client)


def test_alpn(room, backend, start, version):
    t = start("alpn=h2,http/1.1")
    client = room.client(t, version, alpn=["http/1.1"])
    assert tlvs_of(backend, client) == tlv(ALPN, "http/1.1") + \
        NAME + ssl_tlv(client)


def test_alpn_not_negotiated(room, backend, start, version):
    """No TLV if the client offers no protocol."""
    client = room.client(start("alpn=h2"), version)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client)


# The client's certificate.

@pytest.mark.parametrize("verify", ["request", "require"])
@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_certificate(room, backend, start, authority, app1, version, verify,
                     mode):
    t = start(mode, f"verify={verify}", f"ca={authority.crt}")
    client = room.client(t, version, client=app1)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, "app1", BOTH)


def test_no_certificate(room, backend, start, authority, version):
    t = start("verify=request", f"ca={authority.crt}")
    client = room.client(t, version)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client)


def test_certificate_not_requested(room, backend, start, app1,
                                   version):
    """Without a request, the client sends none."""
    client = room.client(start(), version, client=app1)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client)


def test_pinned_certificate(room, backend, start, app1, version):
    """Without an authority, a pinned certificate counts as verified."""
    t = start("verify=require", "peer=" + pin(app1))
    client = room.client(t, version, client=app1)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, "app1", BOTH)


def test_certificate_without_a_common_name(room, backend, start, authority,
                                           version):
    t = start("verify=require", f"ca={authority.crt}")
    client = room.client(t, version,
                         client=authority.leaf(subject="/O=tunnel"))
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, None, BOTH)


@pytest.mark.parametrize("cn", [
    "a", "Zoë Ångström", 'quoted "name", O=other', "back\\slash", "a+b=c;d#e",
    " spaces ", "line\nfeed", "CN=cn",
])
def test_common_name_unescaped(room, backend, start, authority, cn):
    """The bytes in UTF-8, without the escapes of the log."""
    t = start("verify=require", f"ca={authority.crt}")
    escaped = cn.replace("\\", "\\\\").replace("+", "\\+")
    pem = authority.leaf(subject="/O=tunnel/CN=" + escaped)
    client = room.client(t, client=pem)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, cn, BOTH)


# Certificates that openssl(1) does not make.

def der(tag, value):
    size = len(value)
    long = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 128 else
                           bytes([0x80 | len(long)]) + long) + value


def elements(data):
    """The elements of a SEQUENCE's value, with tag and length."""
    while data:
        head, size = 2, data[1]
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(data[2:head], "big")
        yield data[:head + size]
        data = data[head + size:]


def value_of(data):
    return data[2 + (data[1] & 0x7F if data[1] & 0x80 else 0):]


def names(tag, *values):
    """A subject with these common names."""
    return der(0x30, b"".join(
        der(0x31, der(0x30, bytes.fromhex("0603550403") + der(tag, value)))
        for value in values))


UTF8, BMP = 0x0C, 0x1E


@pytest.fixture
def crafted(room, authority):
    """A certificate with a subject that openssl(1) does not write."""

    def make(subject):
        pem = authority.leaf("app2")
        crt = run("openssl", "x509", "-in", pem, "-outform", "DER")
        tbs, algorithm, _ = elements(value_of(crt))
        parts = list(elements(value_of(tbs)))
        parts[5] = subject
        tbs = der(0x30, b"".join(parts))
        signature = run("openssl", "dgst", "-sha256", "-sign", authority.key,
                        stdin=tbs)
        crt = der(0x30, tbs + algorithm + der(0x03, b"\0" + signature))
        text = run("openssl", "x509", "-inform", "DER", stdin=crt)
        return room.write("crafted.pem", text +
                          run("openssl", "pkey", "-in", pem))

    return make


def test_crafted_certificate(room, backend, start, authority, crafted,
                             version):
    """An ordinary one is accepted, so the tests below fail only because of
    their subjects.
    """
    t = start("verify=require", f"ca={authority.crt}")
    pem = crafted(names(UTF8, b"app1"))
    client = room.client(t, version, client=pem)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, "app1", BOTH)


@pytest.mark.parametrize("subject", [
    names(UTF8, b"app1\0.example.org"), names(UTF8, b"\0app1"),
    names(BMP, "app1".encode("utf-16-be")), names(UTF8, b""),
], ids=["zero", "zero first", "BMP", "empty"])
def test_common_name_with_binary_data(room, backend, start, authority, crafted,
                                      subject):
    """No part of it is sent, because a part may be someone else's name."""
    t = start("verify=require", f"ca={authority.crt}")
    client = room.client(t, client=crafted(subject))
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, None, BOTH)


@pytest.mark.parametrize("size", [1000, 3000, 9000])
def test_common_name_of_excessive_length(room, backend, start, authority,
                                         crafted, size):
    """All of it or nothing; the client's first byte follows."""
    t = start("verify=require", f"ca={authority.crt}")
    cn = "x" * size
    client = room.client(t, client=crafted(names(UTF8, cn.encode())))
    client.send(b"hello")
    client.close_notify()
    server = room.keep(backend.accept())
    addresses = inet_block(client.sock.getsockname(),
                           client.sock.getpeername())
    data, end = support.read_all(server)
    assert data in [proxy.v2_header(proxy.PROXY, proxy.TCP4, addresses + NAME +
                                    ssl_tlv(client, name, BOTH)) + b"hello"
                    for name in (cn, None)]
    assert end == "eof"


# Resumed sessions.

def resumed(room, t, backend, version, **keywords):
    """A client that resumes the session of another one with these arguments.
    """
    first = room.client(t, version, **keywords)
    assert not first.resumed
    with backend.accept() as server:
        proxy.read_v2(server)
        server.sendall(b"hello")
        # In TLS 1.3, the ticket follows the handshake.
        assert read_exactly(first, 5) == b"hello"
        session = first.session
        first.close_notify()
        assert support.read_all(server) == (b"", "eof")
    first.read_all()
    first.close()
    client = room.client(t, session=session)
    assert client.resumed
    return client


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_resumed(room, backend, start, version, mode):
    client = resumed(room, start(mode), backend, version)
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client)


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
@pytest.mark.parametrize("verify", ["request", "require"])
def test_resumed_with_a_certificate(room, backend, start, authority, app1,
                                    version, verify, mode):
    """The flags: presented in this session, not on this connection."""
    t = start(mode, f"verify={verify}", f"ca={authority.crt}")
    client = resumed(room, t, backend, version, client=app1)
    assert tlvs_of(backend, client) == NAME + \
        ssl_tlv(client, "app1", IN_SESSION)


def test_resumed_by_its_id(room, backend, start, authority, app1):
    """A TLS 1.2 client without tickets."""
    t = start("verify=require", f"ca={authority.crt}")
    client = resumed(room, t, backend, "1.2", client=app1, tickets=False)
    assert tlvs_of(backend, client) == NAME + \
        ssl_tlv(client, "app1", IN_SESSION)


# Lengths.

LONG_NAME = ".".join(["x" * 63] * 3 + ["x" * 61])  # 253 bytes
LONG_CN = "\N{FROG FACE}" * 64  # 256 bytes, the maximum


def test_long_common_name(room, backend, start, authority, version):
    """The length exceeds one byte."""
    t = start("verify=require", f"ca={authority.crt}")
    client = room.client(t, version, client=authority.leaf(LONG_CN))
    assert tlvs_of(backend, client) == NAME + ssl_tlv(client, LONG_CN, BOTH)


def test_long_server_name(room, backend, start, version):
    client = connect(room, start(), unchecked(room, version), LONG_NAME)
    assert tlvs_of(backend, client) == tlv(AUTHORITY, LONG_NAME) + \
        ssl_tlv(client)


def test_long_alpn(room, backend, start, version):
    alpn = "a" * 255
    client = room.client(start(f"alpn={alpn}"), version, alpn=[alpn])
    assert tlvs_of(backend, client) == tlv(ALPN, alpn) + NAME + \
        ssl_tlv(client)


@pytest.mark.parametrize("to", ["backend", "command"])
def test_all_tlvs_long(room, backend, authority, version, to):
    """The header is written whole, followed by the client's first byte."""
    alpn = "a" * 255
    arguments = ["--", "cat"] if to == "command" else []
    t = room.tunnel(f"accept=unix:{room.path('accept')}", f"alpn={alpn}",
                    "proxy_protocol=v2", "verify=require",
                    f"ca={authority.crt}", *(
                        arguments or [f"connect={backend.address}"]))
    ctx = unchecked(room, version, client=authority.leaf(LONG_CN),
                    alpn=[alpn])
    client = connect(room, t, ctx, LONG_NAME)
    client.send(b"hello")
    client.close_notify()
    header = proxy.v2(
        b"", room.path("accept").encode(), tlv(ALPN, alpn) +
        tlv(AUTHORITY, LONG_NAME) +
        ssl_tlv(client, LONG_CN, BOTH))
    assert len(header) > 1000
    if to == "command":
        assert client.read_all() == (header + b"hello", "close_notify")
    else:
        server = room.keep(backend.accept())
        assert support.read_all(server) == (header + b"hello", "eof")
