"""Servers behind a tunnel, shared by several tests."""

import pytest

import programs
from support import run


@pytest.fixture
def redis(room):
    try:
        run("redis-cli", "--version")
    except FileNotFoundError:
        pytest.skip("redis-tools is not installed")
    path = room.path("redis.sock")
    server = room.start("redis-server", [
        "redis-server", "--port", "0", "--unixsocket", path, "--save", "",
        "--dir", room.dir], executable=programs.REDIS)
    server.wait_log("[Rr]eady to accept connections")
    return room.tunnel(f"connect=unix:{path}")
