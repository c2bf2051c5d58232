"""The page's server for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fallback.config import Config
from tests.unit.fallback.workbench.calls import Page, opened


@pytest.fixture
async def page(config: Config) -> AsyncIterator[Page]:
    """The app with default settings."""
    async with opened(config) as page:
        yield page
