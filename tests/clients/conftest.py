"""Fixtures for the tests of crowds."""

import pytest

import support
from support import WAYS


@pytest.fixture(params=WAYS, ids=",".join)
def way(request):
    return request.param


@pytest.fixture
def start(room, backend, way):
    """Start a tunnel in this mode, in front of an echo server."""
    backend.serve(support.echo)
    return lambda *arguments, **keywords: room.tunnel(
        f"connect={backend.address}", *way, *arguments, **keywords)
