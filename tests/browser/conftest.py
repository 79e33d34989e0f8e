"""The browser of the tests in this folder, started once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from driver import chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Playwright's browser, without a network."""
    with chromium() as started:
        yield started
