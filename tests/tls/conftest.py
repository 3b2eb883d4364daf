"""What the tests of kernel TLS share."""

import pytest

from kernel_tls import Moved


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


