"""Values for the catalog's tests: restore points by number, files by path and content."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from catalog.unit_of_work import Catalog
from proxy.model import (
    Consistency,
    ImageInfo,
    Level,
    MachineConfiguration,
    Reason,
    ReasonCode,
    RestorePoint,
)
from tests.conftest import must_have

if TYPE_CHECKING:
    from tests.integration.catalog.postgres_server import PostgresServer


@dataclass(frozen=True, slots=True)
class Record:
    """What the catalog wants to know of a file; most of it does not matter to most tests."""

    path: bytes
    size: int = 1
    volume: str = "v1"
    type: str = "file"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 1
    ctime_ns: int = 1
    inode: int = 12
    link_target: bytes | None = None


class Make:
    """Makes the values that tests index."""

    def point(self, number: int, machine: str = "m1", **facts: object) -> RestorePoint:
        """Restore point ``p<number>`` of a machine, taken at minute ``number``."""
        image = ImageInfo("vda", 1024, "i", "d", "san", "naa.1", 10, 5, 3, "bitmap-1", (Reason(ReasonCode.DISK_NEW),))
        values: dict[str, object] = {
            "id": f"p{number}" if machine == "m1" else f"{machine}-p{number}",
            "machine": machine,
            "machine_name": f"name of {machine}",
            "host": "h1",
            "run": f"run-{number}",
            "created_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
            "level": Level.FULL,
            "consistency": Consistency.FILESYSTEM,
            "images": (image,),
            "configuration": MachineConfiguration("libvirt-xml", "<domain/>"),
            "reasons": (Reason(ReasonCode.FIRST_BACKUP, "nothing before"),),
        }
        return RestorePoint(**{**values, **facts})  # type: ignore[arg-type]

    def files(self, contents: Mapping[bytes, int]) -> Sequence[Record]:
        """Records from path -> size, where the size stands for the content."""
        return [Record(path, size) for path, size in contents.items()]

    def record(self, path: bytes, **facts: object) -> Record:
        """One record."""
        return Record(path, **facts)  # type: ignore[arg-type]


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture(scope="session")
def postgres() -> Iterator["PostgresServer"]:
    """A private server, for the whole session."""
    # Imported late: its driver takes a moment that the fast suite need not wait for.
    from tests.integration.catalog.postgres_server import postgres_server, program  # noqa: PLC0415

    if program() is None:
        must_have("postgres")
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: "PostgresServer") -> str:
    """A database of the newest schema, to be copied."""
    name = postgres.database()
    Catalog(postgres.url(name)).close()
    return name


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in SQLite: migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("template") / "catalog.db"
    Catalog(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.tools)])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.database()
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def catalog(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    """A catalog in either kind of database: SQLite in the fast suite, PostgreSQL with the tools."""
    if database_kind == "sqlite":
        path = tmp_path / "of-the-fixture" / "catalog.db"
        path.parent.mkdir()
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        with Catalog(f"sqlite:///{path}") as opened:
            yield opened
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.database(request.getfixturevalue("postgres_template"))
    with Catalog(server.url(name)) as opened:
        yield opened
    server.drop(name)
