"""client=yes in front of common servers: what a program without TLS receives,
the server's identity, and the end of the stream.
"""

import functools
import hashlib
import os
import random
import re

import pytest

import programs
import proxy
import support
import transfers
from support import need, run

FILE = random.Random(5).randbytes(5 * 1024 * 1024)
SERVERS = {
    "nginx": programs.nginx_tls, "stunnel": programs.stunnel_tls,
    "haproxy": programs.haproxy_tls, "hitch": programs.hitch_tls,
    "tunnel": programs.tunnel_tls,
}
# Servers that answer a close_notify by a FIN alone, like a truncation.
SLOPPY = {"nginx", "redis"}
AS_AN_END = "truncation=eof"


@pytest.fixture
def client(room):
    """Start a tunnel to a server with a certificate for localhost."""

    def start(address, *words, ca=room.certs.ca, name="localhost"):
        return room.tunnel("client=yes", f"connect={address}", f"ca={ca}",
                           *[f"server_name={name}"] * (name is not None),
                           *words)

    return start


def ended(t, version="1.[23]", reason="closed"):
    return t.wait_log(rf"TLSv{version} TLS_\S+ .*server=\"O=tunnel, CN=server\""
                      rf" .* {reason}$")


# Other TLS terminators in front of a service.

@pytest.mark.parametrize("name", SERVERS)
def test_transfer(room, client, echo, name, version):
    """Both directions at once, up to a proper end."""
    t = client(SERVERS[name](room, echo.address), f"tls_max={version}",
               *[AS_AN_END] * (name in SLOPPY))
    sock = room.connect(t.address)
    size = 5 * len(transfers.BLOCK)
    sent = support.Task(transfers.send, sock, size)
    assert transfers.receive(sock, size) == transfers.digest_of(size)
    sent.result()
    sock.shutdown(1)
    assert support.read_all(sock) == (b"", "eof")
    line = ended(t, version)
    assert f" in={size} out={size} " in line


@pytest.mark.parametrize("name", SERVERS)
def test_service_ends_first(room, client, backend, name, version):
    """The service ends its reply: all data arrives, then an end."""
    t = client(SERVERS[name](room, backend.address), f"tls_max={version}")
    sock = room.connect(t.address)
    sock.sendall(b"go on")
    service = backend.accept()
    assert support.read_exactly(service, 5) == b"go on"
    service.sendall(transfers.BLOCK)
    service.close()
    assert support.read_all(sock) == (transfers.BLOCK, "eof")
    sock.close()
    ended(t, version)


def test_server_without_a_close_notify(room, client, echo, version):
    """Without a close_notify in reply, there may have been more data."""
    t = client(programs.nginx_tls(room, echo.address), f"tls_max={version}")
    sock = room.connect(t.address)
    sock.sendall(b"hello")
    assert support.read_exactly(sock, 5) == b"hello"
    sock.shutdown(1)
    assert support.read_all(sock) == (b"", "reset")
    ended(t, version, "truncated")


@pytest.mark.parametrize("name", SERVERS)
def test_resumption(room, client, echo, name, version):
    """Each connection resumes the session of the one before."""
    t = client(SERVERS[name](room, echo.address), f"tls_max={version}",
               AS_AN_END)
    for n in range(1, 4):
        sock = room.connect(t.address)
        sock.sendall(b"hello")
        assert support.read_exactly(sock, 5) == b"hello"
        sock.close()
        line = t.wait_log(" closed$", n)
        assert (" resumed " in line) == (n > 1)


@pytest.mark.parametrize("host,sni", [("localhost", "sni=localhost"),
                                      ("127.0.0.1", "")])
def test_host_name_in_connect(room, client, echo, host, sni):
    """The host in connect is the name to verify, and the SNI unless it is an
    address.
    """
    address = programs.nginx_tls(room, echo.address)
    t = client(address.replace("127.0.0.1", host), AS_AN_END, name=None)
    sock = room.connect(t.address)
    sock.sendall(b"hello")
    assert support.read_exactly(sock, 5) == b"hello"
    sock.close()
    assert re.search(r"sni=\S+|$", ended(t)).group() == sni


def refused(room, t):
    """Nothing is delivered, and no end of stream either."""
    try:
        end = support.read_all(room.connect(t.address))
    except ConnectionResetError:  # the tunnel was faster
        end = b"", "reset"
    assert end == (b"", "reset")
    return t.wait_log(r"warning: .* no backend: .*server certificate")


@pytest.mark.parametrize("name", SERVERS)
def test_unknown_authority(room, client, authority, echo, name):
    refused(room, client(SERVERS[name](room, echo.address), ca=authority.crt))


@pytest.mark.parametrize("name", SERVERS)
def test_another_name(room, client, echo, name):
    t = client(SERVERS[name](room, echo.address), name="another.example")
    assert "name mismatch: the certificate is for localhost" in \
        refused(room, t)


def test_many_at_once(room, client, echo):
    t = client(programs.nginx_tls(room, echo.address))
    socks = [room.connect(t.address) for _ in range(50)]
    for i, sock in enumerate(socks):
        sock.sendall(transfers.BLOCK[i:i + 20000])
    for i, sock in enumerate(socks):
        assert support.read_exactly(sock, 20000) == \
            transfers.BLOCK[i:i + 20000]


# TLS servers of OpenSSL and GnuTLS.

def test_openssl_serves_files(room, client, version):
    need("curl")
    room.write("file", FILE)
    address = support.free_port()
    flag = "-tls" + version.replace(".", "_")
    programs.serves(room, "openssl", [
        "openssl", "s_server", "-accept", address, "-cert",
        room.certs.server, "-WWW", flag], address, cwd=room.dir)
    t = client(address)
    out = run("curl", "-sS", f"http://{t.address}/file")
    assert hashlib.sha256(out).digest() == hashlib.sha256(FILE).digest()
    ended(t, version)


def test_gnutls_echoes(room, client, version):
    need("gnutls-serv")
    address = support.free_port()
    host, port = address.split(":")
    programs.serves(room, "gnutls-serv", [
        "gnutls-serv", "--echo", "--port", port, "--x509keyfile",
        room.certs.server, "--x509certfile", room.certs.server, "--priority",
        f"NORMAL:-VERS-ALL:+VERS-TLS{version}"], address)
    t = client(address)
    sock = room.connect(t.address)
    sock.sendall(b"hello\n")
    assert support.read_exactly(sock, 6) == b"hello\n"
    sock.close()


# HTTP.

NGINX_HTTP = """
http {
    access_log off;
    client_body_temp_path %(dir)s;
    proxy_temp_path %(dir)s;
    fastcgi_temp_path %(dir)s;
    uwsgi_temp_path %(dir)s;
    scgi_temp_path %(dir)s;
    server {
        listen {address} ssl %(words)s;
        ssl_certificate {cert};
        ssl_certificate_key {cert};
        ssl_protocols TLSv1.2 TLSv1.3;
        %(more)s
        root %(dir)s/htdocs;
        location /who {
            default_type text/plain;
            return 200 "$ssl_protocol|$ssl_server_name|$ssl_client_s_dn|$proxy_protocol_addr|$proxy_protocol_port\\n";
        }
    }
}
"""


@pytest.fixture
def nginx(room):
    def start(words="", more=""):
        os.mkdir(room.path("htdocs"))
        room.write("htdocs/file", FILE)
        return programs.nginx_server(room, NGINX_HTTP % {
            "dir": room.dir, "words": words, "more": more})

    return start


def curl(t, *arguments, **keywords):
    need("curl")
    return run("curl", "-sS", *(a.replace("URL", f"http://{t.address}")
                                for a in arguments), **keywords)


def test_nginx_files(nginx, client, version):
    t = client(nginx(), f"tls_max={version}", "alpn=http/1.1", AS_AN_END)
    out = curl(t, *["URL/file"] * 3)
    assert hashlib.sha256(out).digest() == hashlib.sha256(FILE * 3).digest()
    line = ended(t, version)
    assert " sni=localhost alpn=http/1.1 " in line
    assert t.log().count(" closed\n") == 1


def test_nginx_closes(nginx, client, version):
    t = client(nginx(), f"tls_max={version}")
    out = curl(t, "-H", "Connection: close", "URL/file")
    assert hashlib.sha256(out).digest() == hashlib.sha256(FILE).digest()
    ended(t, version)


def test_nginx_verifies_the_client_certificate(room, nginx, client, authority,
                                               version):
    """By its certificate; nginx also receives the server name."""
    more = f"ssl_verify_client on; ssl_client_certificate {authority.crt};"
    t = client(nginx(more=more), f"tls_max={version}",
               f"cert={authority.leaf('app1')}")
    assert curl(t, "URL/who").decode() == \
        f"TLSv{version}|localhost|CN=app1||\n"


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_nginx_accepts_a_proxy_header(room, nginx, client, kind, version):
    """The header precedes TLS."""
    t = client(nginx("proxy_protocol"), f"tls_max={version}",
               f"proxy_protocol={kind}")
    out = curl(t, "--interface", "127.0.0.77", "-w", "%{local_port}\n",
               "URL/who").decode()
    said, port = out.splitlines()
    assert said == f"TLSv{version}|localhost||127.0.0.77|{port}"


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_haproxy_accepts_a_proxy_header(room, client, kind):
    haproxy = proxy.Haproxy(room, """
frontend who
    mode http
    bind {} accept-proxy ssl crt %s
    http-request return status 200 content-type text/plain lf-string \
"%%[src] %%[src_port] %%[ssl_fc_sni]"
""" % room.certs.server)
    t = client(haproxy.address, f"proxy_protocol={kind}")
    out = curl(t, "--interface", "127.0.0.77", "-w", "\n%{local_port}",
               "URL/").decode()
    said, port = out.splitlines()
    assert said == f"127.0.0.77 {port} localhost"


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_address_from_one_haproxy_to_another(room, nginx, client, kind):
    """accept_proxy on one side of the tunnel, proxy_protocol on the other."""
    t = client(nginx("proxy_protocol"), "accept_proxy=yes",
               f"proxy_protocol={kind}", AS_AN_END)
    balancer = proxy.Haproxy(room, f"""
listen balancer
    mode tcp
    bind {{}}
    server t {t.address} send-proxy{kind.replace("v1", "").replace("v", "-v")}
""")
    out = curl(balancer, "--interface", "127.0.0.77", "-w", "%{local_port}\n",
               "URL/who").decode()
    said, port = out.splitlines()
    assert re.fullmatch(rf"TLSv1\.3\|localhost\|\|127\.0\.0\.77\|{port}", said)
    t.wait_log(rf"127\.0\.0\.77:{port} -> .* closed$")


APACHE_TLS = """
LoadModule ssl_module {{modules}}/mod_ssl.so
SSLEngine on
SSLCertificateFile {cert}
SSLSessionCache none
"""


@pytest.fixture
def apache(room):
    return programs.apache(room, APACHE_TLS.format(cert=room.certs.server),
                           "mod_ssl")


def test_apache(room, apache, client, version):
    room.write("htdocs/big.bin", FILE)
    t = client(apache, f"tls_max={version}")
    out = curl(t, *["URL/big.bin"] * 3)
    assert hashlib.sha256(out).digest() == hashlib.sha256(FILE * 3).digest()
    body = FILE[:1000000]
    assert curl(t, "--data-binary", "@-", "URL/reflect", stdin=body) == body
    ended(t, version)


# Databases.

@pytest.fixture
def redis(room, client):
    """redis-cli, through a tunnel to a TLS server."""
    need("redis-cli")
    address = support.free_port()
    host, port = address.split(":")
    programs.serves(room, "redis-server", [
        "redis-server", "--port", "0", "--bind", host, "--tls-port", port,
        "--tls-cert-file", room.certs.server, "--tls-key-file",
        room.certs.server, "--tls-ca-cert-file", room.certs.ca,
        "--tls-auth-clients", "no", "--save", "", "--dir", room.dir],
        address, executable=programs.REDIS)
    t = client(address, AS_AN_END)
    host, port = t.address.split(":")
    return t, functools.partial(run, "redis-cli", "-h", host, "-p", port)


def test_redis(redis):
    t, cli = redis
    assert cli("SET", "key", "value") == b"OK\n"
    assert cli("GET", "key") == b"value\n"
    value = FILE * 2
    assert cli("-x", "SET", "big", stdin=value) == b"OK\n"
    assert cli("GET", "big") == value + b"\n"
    lines = b"".join(b"SET key:%d value:%d\r\n" % (i, i)
                     for i in range(20000))
    assert b"errors: 0, replies: 20000" in cli("--pipe", stdin=lines)
    assert ended(t)
