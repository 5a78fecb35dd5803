"""What the repository's tests share: small repositories, machines, and a way to write whole disks."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy import repository as repositories
from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import MemoryStore, Repository

CHUNK = 4096

Backup = Callable[..., RestorePoint]
Restore = Callable[[Repository, RestorePoint], bytes]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repository(store: MemoryStore, tmp_path: Path) -> Iterator[Repository]:
    """Chunks of 4 KiB and packs of 64 KiB: every test meets several packs. In the clear, so that tests find their bytes."""
    with repositories.create(
        store, chunk_size=CHUNK, pack_size=64 * 1024, cache=tmp_path / "cache", secret=None
    ) as made:
        yield made


@pytest.fixture
def backup() -> Backup:
    """``backup(repository, data, machine=…, parent=…)`` writes a whole disk and seals; later points are later in time."""
    count = 0

    def run(repository: Repository, data: bytes, machine: str = "m1", parent: ImageInfo | None = None) -> RestorePoint:
        nonlocal count
        count += 1
        with repository.image_writer("vda", len(data), parent) as writer:
            writer.write(0, memoryview(data))
            image = writer.seal()
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=count)
        configuration = MachineConfiguration("libvirt-xml", "<domain/>", b"\x00\xff nvram")
        point = RestorePoint(
            id="",
            machine=machine,
            machine_name=f"name of {machine}",
            host="h1",
            run=f"run-{count}",
            created_at=moment,
            level=Level.FULL,
            consistency=Consistency.CRASH,
            images=(image,),
            configuration=configuration,
        )
        return repository.seal(point)

    return run


@pytest.fixture
def restore() -> Restore:
    def run(repository: Repository, point: RestorePoint) -> bytes:
        with repository.open_image(point, "vda") as image:
            out = bytearray(image.size)
            image.read_into(0, memoryview(out))
            return bytes(out)

    return run
