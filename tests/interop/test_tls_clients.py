"""Common TLS clients: OpenSSL, GnuTLS, and curl."""

import subprocess

import pytest

import support
from programs import commands, curl
from support import need


@pytest.fixture(params=["openssl", "gnutls-cli"])
def command(request, certs, version):
    need(request.param)
    return lambda t: commands(certs, t.address.rsplit(":", 1)[1])[
        request.param](version)


def test_conversation(room, command, version):
    """A line-by-line dialogue."""
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    p = room.start("client", command(t), stdin=subprocess.PIPE,
                   stdout=subprocess.PIPE)
    for line in (b"first\n", b"second\n", b"third\n"):
        p.popen.stdin.write(line)
        p.popen.stdin.flush()
        assert p.popen.stdout.readline() == line
    p.stop()
    p.popen.stdin.close()
    p.popen.stdout.close()
    t.wait_log(f" TLSv{version} .* in=19 out=19 ")


def test_reply_to_its_end(room, command, version):
    """The client exits after the end of the reply. gnutls-cli then sends no
    close_notify, if its own input has not ended yet.
    """
    backend = room.backend().serve(support.http)
    t = room.tunnel(f"connect={backend.address}")
    p = room.start("client", command(t), stdin=subprocess.PIPE,
                   stdout=subprocess.PIPE)
    out, _ = p.popen.communicate(b"GET /1000000 HTTP/1.0\r\n\r\n",
                                 support.DEADLINE)
    assert out.endswith(b"\r\n\r\n" + b"x" * 1000000)
    assert p.popen.returncode == 0
    line = t.wait_log(rf" TLSv{version} .* (closed|truncated)$")
    assert line.endswith(" closed") or "gnutls-cli" in command(t)


def test_curl(room, version):
    backend = room.backend().serve(support.http)
    t = room.tunnel(f"connect={backend.address}")
    flags = "--tlsv" + version, "--tls-max", version
    assert curl(room, t, *flags, "URL/3000000") == b"x" * 3000000
    t.wait_log(f" TLSv{version} .* sni=localhost .* closed$")


def test_curl_post(room, version):
    backend = room.backend().serve(support.http)
    t = room.tunnel(f"connect={backend.address}")
    flags = "--tlsv" + version, "--tls-max", version
    body = bytes(range(256)) * 8000
    assert curl(room, t, *flags, "-H", "Expect:", "--data-binary", "@-",
                "URL/", stdin=body) == body


def test_curl_keeps_its_connection(room):
    backend = room.backend().serve(support.http)
    t = room.tunnel(f"connect={backend.address}")
    assert curl(room, t, "URL/1", "URL/2", "URL/3") == b"x" * 6
    t.wait_log(" closed$")
    assert t.log().count(" closed\n") == 1
