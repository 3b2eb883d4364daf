"""The unit tests in C."""

import pytest

from support import TOP, run


@pytest.mark.seconds(400)
def test_unit():
    print(run("make", "-j2", "-C", TOP, "unit", "O=build/unit",
              "TUNNEL=build/unit/tunnel", timeout=400).decode())
