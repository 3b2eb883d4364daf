"""Fixtures for the tests of kernel TLS and of groups."""

import pytest

from kernel_tls import Moved
from shares import ByShares


@pytest.fixture
def by_hand(room):
    return room.backend()


@pytest.fixture
def moved_tunnel(room, backend):
    """A tunnel with ktls = require, and the count of connections it has moved.
    """

    def make(*arguments, backend=backend):
        if not any(word.startswith("ktls=") for word in arguments):
            arguments = ("ktls=require", *arguments)
        t = room.tunnel(f"connect={backend.address}", *arguments)
        return t, Moved(t)

    return make


@pytest.fixture
def by_shares(room, request):
    """Connect a client that offers the test file's GROUPS, and these shares.
    """

    def make(t, shares, groups=request.module.GROUPS, **keywords):
        return room.keep(ByShares(t.address, shares, groups, **keywords))

    return make
