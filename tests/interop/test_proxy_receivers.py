"""proxy_protocol with common receivers: Apache httpd with mod_remoteip, and
haproxy.
"""

import pytest

import peers
import programs
import proxy
import support
from support import need, run

CLIENT = "127.0.0.77"
REMOTEIP = """
LoadModule remoteip_module {modules}/mod_remoteip.so
RemoteIPProxyProtocol On
LogFormat "%a %{{remote}}p %{{c}}a %U" who
CustomLog {dir}/access.log who
"""


@pytest.fixture(params=["v1", "v2"])
def kind(request):
    return request.param


# Apache httpd.

@pytest.fixture
def apache(room):
    """An Apache that requires a header; calling it starts a tunnel in front.
    """
    need("curl")
    address = programs.apache(room, REMOTEIP, "mod_remoteip")
    return lambda *arguments: room.tunnel(f"connect={address}", *arguments)


def access(room, count):
    """That many lines of its log, each as a list of words."""
    path = room.path("access.log")
    support.wait_for(lambda: support.text_of(path).count("\n") >= count,
                     f"{count} lines in {path}")
    lines = support.text_of(path).splitlines()
    assert len(lines) == count, lines
    return [line.split() for line in lines]


def curl(room, t, *arguments, count=1, host="127.0.0.1"):
    """Fetch a small file that often on one connection; return the client's
    port.
    """
    port = t.address.rsplit(":", 1)[1]
    out = run("curl", "-sS", "--cacert", room.certs.ca, "--interface", CLIENT,
              "--connect-to", f"localhost:{port}:{host}:{port}", "-w",
              "%{local_port}\n", *arguments,
              *[f"https://localhost:{port}/small.txt"] * count)
    lines = out.decode().splitlines()
    assert lines[::2] == ["a small file"] * count
    assert len(set(lines[1::2])) == 1
    return lines[1]


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_apache_logs_the_client_address(room, apache, kind, version, mode):
    t = apache(f"proxy_protocol={kind}", mode)
    port = curl(room, t, "--tlsv" + version, "--tls-max", version)
    assert access(room, 1) == [[CLIENT, port, "127.0.0.1", "/small.txt"]]


def test_apache_logs_the_address_for_each_request(room, apache, kind):
    """One header, followed by several requests."""
    t = apache(f"proxy_protocol={kind}")
    port = curl(room, t, count=5)
    assert access(room, 5) == [
        [CLIENT, port, "127.0.0.1", "/small.txt"]] * 5


def test_apache_logs_an_ipv4_client_of_a_listener_for_both(
        room, apache, kind, ipv6):
    t = apache("accept=0", f"proxy_protocol={kind}")
    port = curl(room, t)
    assert access(room, 1)[0][:2] == [CLIENT, port]


def test_apache_with_a_client_certificate(room, apache, authority):
    t = apache("proxy_protocol=v2", "verify=require", f"ca={authority.crt}",
               "alpn=http/1.1")
    port = curl(room, t, "--cert", authority.leaf("app1"))
    assert access(room, 1)[0][:2] == [CLIENT, port]


def test_apache_behind_a_load_balancer(room, apache, kind):
    """The address passes through both."""
    t = apache(f"proxy_protocol={kind}", "accept_proxy=yes")
    balancer = proxy.Haproxy(room, f"""
listen balancer
    mode tcp
    bind {{}}
    server t {t.address} send-proxy-v2
""")
    port = curl(room, balancer)
    assert access(room, 1)[0][:2] == [CLIENT, port]


# haproxy.

WHO = """
frontend who
    mode http
    bind {} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%s"
"""


@pytest.fixture
def haproxy(room):
    """A haproxy that replies with what it knows; calling it starts a tunnel in
    front.
    """

    def start(words, *arguments):
        server = proxy.Haproxy(room, WHO % words)
        return room.tunnel(f"connect={server.address}", *arguments)

    return start


def get(client):
    """The reply, as words."""
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    head, body = client.read_all()[0].split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK"), head
    return body.decode().split()


def words_of(client):
    source, destination = client.sock.getsockname(), client.sock.getpeername()
    return [source[0], str(source[1]), destination[0], str(destination[1])]


ADDRESSES = "%[src] %[src_port] %[dst] %[dst_port]"


@pytest.mark.parametrize("mode", ["mode=poll", "mode=fork"])
def test_haproxy_sees_the_client_address(room, haproxy, kind, version, mode):
    t = haproxy(ADDRESSES, "accept=127.0.0.78:0", f"proxy_protocol={kind}",
                mode)
    client = room.client(proxy.bound(room, t.address, CLIENT), version)
    words = get(client)
    assert words == words_of(client)
    assert words[0] == CLIENT and words[2] == "127.0.0.78"


def test_haproxy_sees_an_ipv6_client_address(room, haproxy, kind, ipv6):
    t = haproxy(ADDRESSES, "accept=[::1]:0", f"proxy_protocol={kind}")
    client = room.client(t)
    assert get(client) == words_of(client)


def test_haproxy_sees_an_ipv4_client_of_a_listener_for_both(
        room, haproxy, kind, ipv6):
    t = haproxy(ADDRESSES, "accept=0", f"proxy_protocol={kind}")
    client = room.client("127.0.0.1:" + t.address.rsplit(":", 1)[1])
    assert get(client) == words_of(client)


def test_haproxy_with_a_client_on_a_unix_socket(room, haproxy):
    """Such a client has no IP address. (haproxy 2.6 does not accept the paths
    of version 2.)
    """
    t = haproxy("%[src]", f"accept=unix:{room.path('accept')}",
                "proxy_protocol=v1")
    assert get(room.client(t)) == ["127.0.0.1"]


def test_haproxy_sees_the_server_name(room, haproxy, version):
    t = haproxy("%[fc_pp_authority]", "proxy_protocol=v2")
    assert get(room.client(t, version)) == ["localhost"]


def test_haproxy_accepts_the_longest_header(room, haproxy, authority,
                                            version):
    """With all TLVs, at maximum length."""
    name = ".".join(["x" * 63] * 3 + ["x" * 61])
    t = haproxy("%[src] %[fc_pp_authority]", "proxy_protocol=v2",
                "alpn=http/1.1", "verify=require", f"ca={authority.crt}")
    ctx = peers.context(
        room.certs, version, alpn=["http/1.1"],
        client=authority.leaf("\N{FROG FACE}" * 64))
    ctx.check_hostname = False
    client = room.keep(peers.Client(
        proxy.bound(room, t.address, CLIENT), ctx, name)).handshake()
    assert get(client) == [CLIENT, name]


def test_haproxy_passes_the_tls_tlvs_on(room, haproxy, authority, version):
    """In fields that it passes on unchanged."""
    if proxy.haproxy_version() < (2, 9):
        pytest.skip("this haproxy lacks fc_pp_tlv")
    t = haproxy("%[fc_pp_tlv(0x01)] %[fc_pp_tlv(0x02)] "
                "%[fc_pp_tlv(0x20),hex]", "proxy_protocol=v2",
                "alpn=http/1.1", "verify=require", f"ca={authority.crt}")
    client = room.client(t, version, alpn=["http/1.1"],
                         client=authority.leaf("app1"))
    told = proxy.ssl_tlv(client, "app1",
                         proxy.ON_CONNECTION | proxy.IN_SESSION)
    assert get(client) == ["http/1.1", "localhost", told[3:].hex().upper()]
