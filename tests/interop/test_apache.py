"""Apache behind a tunnel, accessed with curl."""

import functools
import hashlib
import random

import pytest

import programs

BIG_FILE = random.Random(4).randbytes(30 * 1024 * 1024)


@pytest.fixture
def apache(room):
    """A tunnel in front of Apache."""
    address = programs.apache(room)
    room.write("htdocs/big.bin", BIG_FILE)
    return room.tunnel(f"connect={address}")


@pytest.fixture
def curl(room, apache):
    return functools.partial(programs.curl, room, apache)


def test_keep_alive(apache, curl):
    assert curl(*["URL/small.txt"] * 5) == b"a small file\n" * 5
    apache.wait_log(" closed$")
    assert apache.log().count(" closed\n") == 1


def test_connection_close(apache, curl, version):
    """Apache closes first; its reply arrives whole."""
    for n in range(1, 4):
        out = curl("-H", "Connection: close", "--tlsv" + version,
                   "--tls-max", version, "URL/big.bin")
        assert hashlib.sha256(out).digest() == \
            hashlib.sha256(BIG_FILE).digest()
        apache.wait_log(f"TLSv{version} .* closed$", count=n)


def test_big_file(curl):
    out = curl("URL/big.bin")
    assert hashlib.sha256(out).digest() == hashlib.sha256(BIG_FILE).digest()


def test_post(curl):
    body = BIG_FILE[:5 * 1024 * 1024]
    assert curl("--data-binary", "@-", "URL/reflect", stdin=body) == body


def test_http_1_0(curl):
    assert curl("-0", "URL/small.txt") == b"a small file\n"
