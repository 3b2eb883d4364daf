"""What the tests of kernel TLS share, and those of groups."""

import pytest

from kernel_tls import Moved
from shares import ByShares


@pytest.fixture
def by_hand(room):
    return room.backend()


@pytest.fixture
def moved_tunnel(room, backend):
    """One that insists on it, and how many connections it has moved."""

    def make(*arguments, backend=backend):
        if not any(word.startswith("ktls=") for word in arguments):
            arguments = ("ktls=require", *arguments)
        t = room.tunnel(f"connect={backend.address}", *arguments)
        return t, Moved(t)

    return make


@pytest.fixture
def by_shares(room, request):
    """A client that offers the test file's GROUPS, and these shares."""

    def make(t, shares, groups=request.module.GROUPS, **keywords):
        return room.keep(ByShares(t.address, shares, groups, **keywords))

    return make
