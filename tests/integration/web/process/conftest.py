"""Processes of API and console."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.web.process.web_process import WebSite


@pytest.fixture
def web_site(tmp_path: Path) -> Iterator[WebSite]:
    """Nothing of it runs yet."""
    made = WebSite(tmp_path)
    yield made
    made.close()
