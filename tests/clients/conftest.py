"""What the files about crowds share."""

import pytest

import support
from support import WAYS


@pytest.fixture(params=WAYS, ids=",".join)
def way(request):
    return request.param


@pytest.fixture
def start(room, backend, way):
    """A tunnel that goes that way, in front of an echo."""
    backend.serve(support.echo)
    return lambda *arguments, **keywords: room.tunnel(
        f"connect={backend.address}", *way, *arguments, **keywords)
