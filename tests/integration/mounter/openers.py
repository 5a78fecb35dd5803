"""Images for exports in tests: named as ``openers:file_image`` and opened inside nbdkit."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from proxy import repository as repositories
from proxy.errors import IntegrityError, RestorePointNotFound
from proxy.extents import Extent, Kind, normal
from proxy.ports import ImageReader
from proxy.repository import PosixStore


class FileImage:
    """A file as an image of a restore point. ``bad``: offset of a chunk whose reads fail as damaged ones do."""

    identity = "file"
    can_report_extents = True
    granularity = 64 * 1024

    def __init__(self, path: str, bad: int | None = None) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._file).st_size
        self._bad = bad

    def extents(self) -> Sequence[Extent]:
        """Chunks of zeroes are holes."""
        found: list[Extent] = []
        for start in range(0, self.size, self.granularity):
            chunk = os.pread(self._file, self.granularity, start)
            found.append(Extent(start, len(chunk), Kind.DATA if any(chunk) else Kind.ZERO))
        return normal(found)

    def changed(self, since: str) -> Sequence[Extent]:
        """An image knows nothing of changes."""
        raise NotImplementedError(since)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """As the port."""
        if self._bad is not None and offset < self._bad + self.granularity and offset + len(buffer) > self._bad:
            raise IntegrityError("machine m1, restore point p1", f"chunk at {self._bad} is not what was stored")
        assert os.preadv(self._file, [buffer], offset) == len(buffer)

    def chunk_digest(self, data: memoryview) -> bytes:
        """Not used by an export."""
        raise NotImplementedError

    def digest_at(self, offset: int) -> bytes | None:
        """As the port."""
        chunk = os.pread(self._file, self.granularity, offset)
        return hashlib.sha256(chunk).digest() if any(chunk) else None

    def close(self) -> None:
        """Once."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_image(argument: Mapping[str, Any]) -> FileImage:
    """``path``, and ``bad`` if some of it shall be damaged."""
    return FileImage(argument["path"], argument.get("bad"))


def nothing(argument: Mapping[str, Any]) -> FileImage:
    """A restore point that is not there."""
    raise RestorePointNotFound(argument["point"])


def repository_image(argument: Mapping[str, Any]) -> ImageReader:
    """An image of a real repository: ``repository``, ``point``, ``key``, and the ``secret`` that opens it."""
    secret = repositories.KeyFile(bytes.fromhex(argument["secret"]))
    repository = repositories.open(PosixStore(Path(argument["repository"])), secret=secret)
    return repository.open_image(repository.point(argument["point"]), argument["key"])
