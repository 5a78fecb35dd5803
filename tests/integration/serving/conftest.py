"""Fleets of proxies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.catalog.postgres_server import PostgresServer, postgres_server
from tests.integration.serving.fleet import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Over SQLite, on one machine."""
    made = Fleet(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One for all tests of a module."""
    with postgres_server() as made:
        yield made


@pytest.fixture
def spread(tmp_path: Path, server: PostgresServer) -> Iterator[Fleet]:
    """Over PostgreSQL, as if each proxy was a machine of its own."""
    database = server.database()
    made = Fleet(tmp_path, f'[database]\nurl = "{server.url(database)}"\n')
    yield made
    made.close()
    server.drop(database)
