"""The tests of a transport run over every one of them."""

from __future__ import annotations

import pytest

from gateway.aio import AioTransport
from gateway.cq import CqTransport
from tests.transporting import Serving, server_of


@pytest.fixture(params=[AioTransport, CqTransport])
def serving(request: pytest.FixtureRequest) -> Serving:
    """Serve routes on one transport after the other."""
    return server_of(request.param)
