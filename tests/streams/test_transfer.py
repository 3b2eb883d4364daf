"""All data arrives unchanged, in each direction and in both at once."""

import socket

import pytest

import support
from support import BIG, Task, read_exactly
from transfers import BLOCK, digest_of, echo_at_once, receive, send

MB = 1024 * 1024


def transfer(room, version, up, down, rcvbuf=None, suite=None):
    backend = room.backend(rcvbuf=rcvbuf)
    t = room.tunnel(f"connect={backend.address}",
                    *([f"ciphers={suite}"] if suite else []))
    client = room.client(t, version, rcvbuf=rcvbuf)
    server = room.keep(backend.accept())
    tasks = [Task(send, client, up), Task(send, server, down)]
    if rcvbuf:
        support.wait_until_stalled(server)
        support.wait_until_stalled(client.sock)
    tasks += [Task(receive, server, up), Task(receive, client, down)]
    digests = [task.result(120 * support.SLOW) for task in tasks]
    assert digests[2:] == [digest_of(up), digest_of(down)]
    client.close()
    server.close()
    t.wait_log(f" {suite or 'TLS_'}.* in={up} out={down} ")


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, MB])
@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_transfer(room, version, size, way):
    transfer(room, version, size if way != "down" else 0,
             size if way != "up" else 0)


@pytest.mark.parametrize("cipher", [
    "AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"])
def test_transfer_with_suite(room, version, cipher):
    kind = "TLS_" if version == "1.3" else "TLS_ECDHE_ECDSA_WITH_"
    transfer(room, version, 3 * MB + 1, 3 * MB + 2, suite=kind + cipher)


@pytest.mark.parametrize("rcvbuf", [20000, 50000, 130000])
def test_transfer_under_back_pressure(room, version, rcvbuf):
    """Slow receivers with small buffers that start late: data has to wait in
    both directions.
    """
    transfer(room, version, 8 * MB, 8 * MB, rcvbuf)


@pytest.mark.seconds(120)
@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_big_transfer(room, way):
    transfer(room, "1.3", BIG if way != "down" else 0,
             BIG if way != "up" else 0)


@pytest.mark.seconds(120)
def test_big_transfer_tls_1_2(room):
    transfer(room, "1.2", 0, BIG)


def test_one_byte_writes(room, version):
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    client.sock.setsockopt(socket.IPPROTO_TCP,
                           socket.TCP_NODELAY, 1)
    data = BLOCK[:2000]
    echoed = Task(read_exactly, client, len(data))
    for i in range(len(data)):
        client.send(data[i:i + 1])
    assert echoed.result() == data


def test_one_byte_writes_of_the_backend(room, version):
    backend = room.backend()
    t = room.tunnel(f"connect={backend.address}")
    client = room.client(t, version)
    server = room.keep(backend.accept())
    server.setsockopt(socket.IPPROTO_TCP,
                      socket.TCP_NODELAY, 1)
    data = BLOCK[:2000]
    received = Task(read_exactly, client, len(data))
    for i in range(len(data)):
        server.sendall(data[i:i + 1])
    assert received.result() == data


def test_many_connections_at_once(room):
    """200 connections, all open before the first one sends."""
    backend = room.backend().serve(support.echo)
    t = room.tunnel(f"connect={backend.address}")
    for client in echo_at_once(room, t, 200):
        client.close()
    t.wait_log(r"in=50000 out=50000 .* closed$", count=200)
