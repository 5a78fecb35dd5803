"""Restore points of disks that lie in files, made without a hypervisor: for tests of everything that reads them."""

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proxy.model import Consistency, ImageInfo, Level, MachineConfiguration, RestorePoint
from proxy.repository import Repository

BEGINNING = datetime(2026, 11, 1, 1, 0, tzinfo=UTC)


@dataclass
class PointMaker:
    """Seals restore points in a repository, a day apart, each machine's on top of its last one."""

    repository: Repository
    consistency: Consistency = Consistency.FILESYSTEM
    nights: int = 0

    def make(self, machine: str, disks: Mapping[str, Path]) -> RestorePoint:
        """``machine``: its name, and its identity with ``id-`` before it. ``disks``: key -> raw image."""
        before = self.repository.points(f"id-{machine}")
        parent = before[-1] if before else None
        level = Level.INCREMENTAL if parent else Level.FULL
        images = tuple(self._image(key, path, parent) for key, path in disks.items())
        moment = BEGINNING + timedelta(days=self.nights)
        self.nights += 1
        run = f"night-{self.nights}"
        return self.repository.seal(
            RestorePoint(
                *("", f"id-{machine}", machine, "h1", run, moment, level, self.consistency, images),
                parent=parent.id if parent else None,
                configuration=MachineConfiguration("libvirt-xml", "<domain/>"),
            )
        )

    def _image(self, key: str, path: Path, parent: RestorePoint | None) -> ImageInfo:
        base = next((image for image in parent.images if image.key == key), None) if parent else None
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            self.repository.image_writer(key, os.fstat(file.fileno()).st_size, base) as writer,
            memoryview(data) as view,
        ):
            step = writer.granularity
            for start in range(0, writer.size, step):
                writer.write(start, view[start : start + step])
            image = writer.seal()
        return replace(image, level=Level.INCREMENTAL if base else Level.FULL, transport="raw", source=str(path))
