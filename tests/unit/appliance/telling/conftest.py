"""A night that went wrong, and a clock."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.telling.report import JobRunReport
from catalog.jobs.store import JobStore
from tests.unit.appliance.telling.nights import Clock, a_failing_night
from tests.unit.appliance.telling.receivers import Hook, Mailbox, Secured, secured


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failing() -> JobRunReport:
    return a_failing_night()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as box:
        yield box


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job store without anything: to make one takes longer than most tests."""
    path = tmp_path_factory.mktemp("store")
    JobStore(f"sqlite:///{path}/catalog.db").close()
    return path / "jobs.db"


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Secured:
    return secured(tmp_path_factory.mktemp("tls"))
