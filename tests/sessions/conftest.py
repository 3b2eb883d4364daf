"""Fixtures for the tests of sessions."""

import pytest

import support
from resuming import KINDS, TICKETS

MODES = support.ARGS or ["workers=1", "workers=4", "mode=fork"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=TICKETS)
def ticket(request):
    return request.param


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def backend(room):
    return room.backend().serve(support.echo)
