"""Our own work, one piece a process: ``python -m tests.bench.repository.ours_process WORK --directory DIR [--uri URI] …``

Prints a JSON object with the seconds that the work took once everything was imported and open, and what it found.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from proxy import repository as repositories
from proxy.extents import Extent, Kind, aligned, intersect, normal, segments
from proxy.model import Consistency, Level, MachineConfiguration, NbdAddress, RestorePoint
from proxy.transfer import copy
from proxy.transport.nbd import NbdSource
from proxy.units import KiB, MiB

DISK = "vda"


class Work:
    """Each public method is one measurement and returns facts to print."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.directory: Path = given.directory
        self.uri: str = given.uri
        self.changes: Path = given.changes
        self.chunk: int = given.chunk * KiB
        self.clear: bool = given.clear

    def create(self) -> dict[str, float]:
        (self.directory / "objects").mkdir(parents=True)
        (self.directory / "key").write_bytes(os.urandom(32))
        store = repositories.PosixStore(self.directory / "objects")
        repositories.create(store, secret=self._secret(), chunk_size=self.chunk, cache=self.directory / "cache").close()
        return {}

    def full(self) -> dict[str, float]:
        return self._backup(parent=False, known=False)

    def known(self) -> dict[str, float]:
        return self._backup(parent=True, known=True)

    def scan(self) -> dict[str, float]:
        return self._backup(parent=True, known=False)

    def restore(self) -> dict[str, float]:
        # As in the product, where a backup does not load what writes disks.
        from proxy.transport.file_target import FileTarget  # noqa: PLC0415
        from proxy.transport.iscsi import RestoreToken  # noqa: PLC0415
        from proxy.transport.raw import SharedFiles  # noqa: PLC0415

        with self._open() as repository:
            point = repository.points()[-1]
            # Made beforehand and never flushed: borg, kopia, qemu-img and zstd do not sync what they restore either.
            path = self.directory / "restored.raw"
            path.unlink(missing_ok=True)
            path.touch()
            with repository.open_image(point, DISK) as image:
                token = RestoreToken(str(path), image.size)
                with FileTarget(SharedFiles([self.directory]), token) as target:
                    copy(image, target, image.extents(), disk=DISK, granularity=image.granularity)
        return {}

    def parts(self) -> dict[str, float]:
        """What a full backup does, by one thread, one thing after the other: read, hash, compress and seal, write durably.
        ``seconds`` is their sum."""
        spent = dict.fromkeys(("read", "hash", "seal", "write"), 0.0)
        pack, end = memoryview(bytearray(repositories.DEFAULT_PACK + 2 * MiB)), 0  # a segment too many, and its seals
        zeroes, last = bytes(self.chunk), time.perf_counter()

        def done(part: str) -> None:
            nonlocal last
            now = time.perf_counter()
            spent[part] += now - last
            last = now

        out = self.directory / "parts"
        with self._open() as repository, NbdSource(NbdAddress(self.uri)) as source, out.open("wb", buffering=0) as file:
            chunker, buffer = repository.chunker, memoryview(bytearray(MiB))
            pieces = segments([e for e in source.extents() if e.kind is Kind.DATA], MiB)
            for piece in pieces:
                last = time.perf_counter()
                source.read_into(piece.start, buffer[: piece.length])
                done("read")
                for start in range(0, piece.length, self.chunk):
                    chunk = buffer[start : min(start + self.chunk, piece.length)]
                    if zeroes.startswith(chunk):
                        continue
                    name = chunker.id(chunk)
                    done("hash")
                    codec, plain = chunker.compress(chunk)
                    length = chunker.sealed(codec, len(plain))[1]
                    chunker.seal_into(name, plain, pack[end : end + length])
                    end += length
                    done("seal")
                if end >= repositories.DEFAULT_PACK:
                    file.write(pack[:end])
                    os.fsync(file.fileno())
                    end = 0
                    done("write")
        out.unlink()
        return {**spent, "seconds": sum(spent.values())}

    def verify(self) -> dict[str, float]:
        with self._open() as repository:
            return {"damage": len(list(repositories.verify(repository)))}

    def _open(self) -> repositories.Repository:
        store = repositories.PosixStore(self.directory / "objects")
        return repositories.open(store, secret=self._secret(), cache=self.directory / "cache")

    def _secret(self) -> repositories.Secret | None:
        return None if self.clear else repositories.KeyFile((self.directory / "key").read_bytes())

    def _backup(self, *, parent: bool, known: bool) -> dict[str, float]:
        address = NbdAddress(self.uri)
        with self._open() as repository, NbdSource(address) as source:
            last = repository.points()[-1].images[0] if parent else None
            extents = aligned(source.extents(), self.chunk, source.size)
            if known:  # as the product does: what changed, unless the disk's map says by now that it is zero
                places = json.loads(self.changes.read_text())
                changed = normal(Extent(start, length) for start, length in places)
                extents = intersect(extents, aligned(changed, self.chunk, source.size))
            with repository.image_writer(DISK, source.size, last) as writer:
                copy(source, writer, extents, disk=DISK, granularity=self.chunk)
                image = writer.seal()
            now = datetime.now(UTC)
            configuration = MachineConfiguration("none", "")
            repository.seal(
                RestorePoint(
                    "", "m", "bench", "h", now.isoformat(), now, Level.FULL, Consistency.CRASH, (image,), configuration
                )
            )
        return {"stored": image.bytes_stored, "new": image.bytes_new}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("create", "full", "parts", "known", "scan", "restore", "verify"))
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--uri", default="")
    parser.add_argument("--changes", type=Path, default=Path())
    parser.add_argument("--chunk", type=int, default=256, help="KiB")
    parser.add_argument("--clear", action="store_true", help="without encryption")
    given = parser.parse_args()
    job: Callable[[], dict[str, float]] = getattr(Work(given), given.work)
    begin = time.perf_counter()
    facts = job()
    print(json.dumps({"seconds": time.perf_counter() - begin, **facts}))
