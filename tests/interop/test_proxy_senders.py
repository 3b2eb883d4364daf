"""accept_proxy behind a real load balancer: haproxy."""

import ssl

import pytest

import proxy
import support
from proxy import HELLO_FIRST, bound, own_address, wait_line
from support import end, is_echoed


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)


@pytest.fixture
def start(room, backend):
    return lambda *arguments: room.tunnel(
        f"connect={backend.address}", "accept_proxy=yes", *arguments)


@pytest.fixture(params=["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn",
                        "send-proxy-v2 proxy-v2-options crc32c,unique-id "
                        "set-proxy-v2-tlv-fmt(0x20) %[src]"])
def words(request):
    if "set-proxy" in request.param and proxy.haproxy_version() < (2, 9):
        return request.param.split(" set-proxy")[0]
    return request.param


# haproxy as the load balancer.

BALANCER = """
listen balancer
    mode tcp
    bind {{}}
    server t {address} {words}
"""


def test_haproxy(room, start, backend, words, version):
    """The client's address in the log is that of haproxy's client."""
    t = start()
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words))
    client = room.client(bound(room, haproxy.address, "127.0.0.77"), version)
    assert is_echoed(client)
    peer = own_address(client)
    end(client)
    assert peer.startswith("127.0.0.77:")
    wait_line(t, peer, f"{backend.address} TLSv{version} .* closed$")


def test_haproxy_ipv6(room, start, backend, words, ipv6):
    """haproxy's own connection to the tunnel is not IPv6."""
    t = start()
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words), ["::1"])
    client = room.client(haproxy.address)
    assert is_echoed(client)
    peer = own_address(client)
    end(client)
    wait_line(t, peer, f"{backend.address} .* closed$")


def test_haproxy_and_a_command(room, words):
    t = room.tunnel("accept_proxy=yes", "--", "sh", "-c",
                    'echo "$REMOTE_HOST $REMOTE_PORT"')
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words))
    client = room.client(bound(room, haproxy.address, "127.0.0.77"))
    port = client.sock.getsockname()[1]
    assert client.read_all() == (f"127.0.0.77 {port}\n".encode(),
                                 "close_notify")


def test_haproxy_and_max_per_ip(room, start, words):
    t = start("max_per_ip=1")
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words))
    for n in (1, 2, 3):
        assert is_echoed(room.client(bound(room, haproxy.address,
                                           f"127.0.1.{n}")))
    with pytest.raises((ConnectionError, ssl.SSLError)):
        room.client(bound(room, haproxy.address, "127.0.1.2"))
    t.wait_log(r"127\.0\.1\.2:\d+ refused: ")


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2"])
def test_health_checks_of_haproxy(room, lonely, words):
    """They succeed, and are neither logged nor passed to the backend."""
    t = lonely("log_level=info")
    haproxy = proxy.Haproxy(room, BALANCER.format(
        address=t.address, words=words + " check check-send-proxy inter 20ms"))

    def checks():
        """The number of consecutive passed checks."""
        out = haproxy.ask("show servers state").splitlines()
        names = out[1].removeprefix("# ").split()
        return dict(zip(names, out[2].split()))

    assert checks()["srv_op_state"] == "2"
    accepted = support.statistics(t)["accepted"]
    support.wait_for(
        lambda: support.statistics(t)["accepted"] >= accepted + 5,
        "more checks")
    assert checks()["srv_op_state"] == "2"
    assert [line for line in t.log().splitlines() if " -> " in line and
            not line.startswith("tunnel: live: ")] == []


def test_haproxy_without_a_header(room, lonely):
    """Its clients are refused; the log has the reason."""
    t = lonely()
    haproxy = proxy.Haproxy(room, BALANCER.format(address=t.address, words=""))
    with pytest.raises((ConnectionError, ssl.SSLError)):
        room.client(haproxy.address)
    t.wait_log("-> - .* " + HELLO_FIRST)
