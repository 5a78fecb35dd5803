"""Values for the catalog's tests: restore points by number, files by path and content."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

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


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with Catalog("sqlite://") as opened:
        yield opened
