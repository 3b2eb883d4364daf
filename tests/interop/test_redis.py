"""Redis behind the tunnel: replies, pipelines, subscriptions, big values."""

import random

import pytest

import support
from programs import tls_flags
from support import run


@pytest.fixture
def cli(room, redis):
    def call(*arguments, **keywords):
        return run("redis-cli", *tls_flags(room, redis), *arguments,
                   **keywords)

    return call


def test_set_and_get(cli):
    assert cli("SET", "key", "value") == b"OK\n"
    assert cli("GET", "key") == b"value\n"


def test_pipelined_load(room, redis):
    out = run("redis-benchmark", *tls_flags(room, redis), "-t", "set,get",
              "-n", "50000", "-P", "50", "-c", "20", "-d", "100", "-q",
              timeout=25 * support.SLOW)
    assert out.count(b"requests per second") == 2, out
    assert b"rror" not in out, out


def test_mass_insertion(cli):
    lines = b"".join(b"SET key:%d value:%d\r\n" % (i, i)
                     for i in range(20000))
    out = cli("--pipe", stdin=lines)
    assert b"errors: 0, replies: 20000" in out
    assert cli("DBSIZE") == b"20000\n"
    assert cli("GET", "key:19999") == b"value:19999\n"


def test_blocking_subscriber(room, redis, cli):
    subscriber = room.start("subscriber", [
        "redis-cli", *tls_flags(room, redis), "SUBSCRIBE", "news"])
    subscriber.wait_log("^1$|integer. 1")
    for i in range(3):
        assert cli("PUBLISH", "news", f"message {i}") == b"1\n"
        subscriber.wait_log(f"message {i}")


def test_50_mb_value(cli):
    value = random.Random(3).randbytes(50 * 1024 * 1024)
    assert cli("-x", "SET", "big", stdin=value) == b"OK\n"
    assert cli("GET", "big") == value + b"\n"
