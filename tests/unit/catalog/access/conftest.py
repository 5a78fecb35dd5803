"""An access store in either kind of database, and values for it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog.access.store import AccessStore
from catalog.access.values import User

if TYPE_CHECKING:
    from tests.integration.catalog.postgres_server import PostgresServer

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.fixture
def store(access_url: str) -> Iterator[AccessStore]:
    with AccessStore(access_url) as opened:
        yield opened


@pytest.fixture
def access_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a catalog, whose access store is up to date already: migrations take longer than most tests."""
    if database_kind == "sqlite":
        template: Path = request.getfixturevalue("sqlite_access_template")
        (tmp_path / "access.db").write_bytes(template.read_bytes())
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.database(request.getfixturevalue("postgres_access_template"))
    yield server.url(name)
    server.drop(name)


@pytest.fixture(scope="session")
def sqlite_access_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template-of-access")
    AccessStore(f"sqlite:///{path}/catalog.db").close()
    return path / "access.db"


@pytest.fixture(scope="session")
def postgres_access_template(postgres: "PostgresServer") -> str:
    name = postgres.database()
    AccessStore(postgres.url(name)).close()
    return name


@pytest.fixture
def user(store: AccessStore) -> Callable[..., User]:
    """Adds one."""

    def add(name: str = "alice", **facts: Any) -> User:
        made = replace(User(name, name.title(), None, ("operator",), ("*",), NOW), **facts)
        with store.transaction() as unit:
            return unit.users.add(made)

    return add
