"""Damaged and hostile images: whatever is in them, the session ends with an answer or an error, in time, and leaves nothing.

Each number is one damaged image, the same in every run. The image is served copy-on-write, so the damage is written to it
through NBD and taken back afterwards.
"""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from mounter.choose import directly
from mounter.export import CopyOnWrite, Export, ImageToExport
from mounter.ports import FileType, GuestFilesystem, Volume
from mounter.remote import libguestfs
from mounter.session import MountSession
from proxy.clock import SystemClock
from proxy.errors import FastPathRefused, GuestFileNotFound, MountEnded, MountFailed
from proxy.units import MiB
from tests.integration.mounter import fuzz

pytestmark = [
    pytest.mark.tools,
    pytest.mark.requires("nbdkit", "mke2fs", "mkntfs", "ntfscp", "mkfs.vfat", "mcopy", "sfdisk", "root"),
]

# One session: opening, a whole walk, all files. Undamaged it takes a second.
DEADLINE = 60.0

# Whole images have 160 entries; damage makes more of them by showing a directory in several places, but never a world.
ENTRIES = 20_000

# Of each file.
BYTES = 4 * MiB


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz.tree(tmp_path_factory.mktemp("tree"))


def contents(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


class Writable:
    """An exported image that damage can be written to, and taken back."""

    def __init__(self, path: Path, overlays: Path) -> None:
        import nbd  # noqa: PLC0415  only where it is required

        self.image = path.read_bytes()
        images = [ImageToExport("vda", "openers:file_image", {"path": str(path)})]
        self.export = Export(images, cow=CopyOnWrite(overlays, 256 * MiB))
        self._handle = nbd.NBD()
        self._handle.connect_uri(self.export.served[0].uri)

    def damage(self, made: Sequence[fuzz.Damage]) -> None:
        for each in made:
            self._handle.pwrite(each.data, each.offset)

    def mend(self, made: Sequence[fuzz.Damage]) -> None:
        for each in made:
            self._handle.pwrite(self.image[each.offset : each.offset + len(each.data)], each.offset)

    def close(self) -> None:
        self._handle.shutdown()
        self.export.close()


@pytest.fixture(scope="module", params=sorted(fuzz.IMAGES))
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root: Path
) -> Iterator[tuple[str, Writable]]:
    at = tmp_path_factory.mktemp(request.param)
    writable = Writable(fuzz.IMAGES[request.param](at / "vda.img", root), at)
    yield request.param, writable
    writable.close()


def read_all(
    filesystem: GuestFilesystem, volumes: Sequence[Volume], deadline: float, every: int = 1
) -> tuple[int, int]:
    """Entries found and errors met; fails when there is no end to them. ``every``: of so many entries one is read."""
    entries = errors = 0
    for volume in volumes:
        if volume.problem is not None:
            errors += 1
            continue
        walk = filesystem.walk(volume)
        while True:
            try:
                batch = next(walk, None)
            except MountFailed as error:
                if isinstance(error, MountEnded):
                    raise
                errors += 1
                break
            if batch is None:
                break
            entries += len(batch)
            assert entries < ENTRIES
            for entry in batch[::every]:
                errors += _read(filesystem, volume, entry.path, entry.type)
                assert time.monotonic() < deadline
    return entries, errors


def _read(filesystem: GuestFilesystem, volume: Volume, path: bytes, kind: FileType) -> int:
    try:
        filesystem.xattrs(volume, path)
        if kind is FileType.FILE:
            for _ in islice(filesystem.read(volume, path), BYTES // MiB):
                pass
        elif kind is FileType.DIRECTORY:
            filesystem.list_directory(volume, path)
    except MountEnded:
        raise
    except (MountFailed, GuestFileNotFound):
        return 1
    return 0


def outcome(export: Export, directory: Path) -> str:
    """How one session with the reader that boots nothing ended."""
    deadline = time.monotonic() + DEADLINE
    try:
        with directly(export.served, directory) as filesystem:
            _, errors = read_all(filesystem, filesystem.volumes(), deadline)
            return "read with errors" if errors else "read"
    except FastPathRefused:
        return "refused"
    except MountEnded:
        return "ended"
    except MountFailed:
        return "failed"
    finally:
        assert time.monotonic() < deadline


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


# A fifth of a second each. More in a longer run: LANFREE_FUZZ=5000.
NUMBERS = range(max(60, int(os.environ.get("LANFREE_FUZZ", "0"))))


def test_no_damage_makes_the_direct_reader_hang_grow_or_stay(
    target: tuple[str, Writable], root: Path, tmp_path: Path, record_property: Any
) -> None:
    name, writable = target
    sectors = fuzz.structured(writable.image, contents(root))
    before = children()
    assert outcome(writable.export, tmp_path) == "read"
    ends: Counter[str] = Counter()
    for number in NUMBERS:
        made = fuzz.damages(writable.image, sectors, f"{name} {number}")
        writable.damage(made)
        try:
            ends[outcome(writable.export, tmp_path)] += 1
        except AssertionError as error:
            error.add_note(f"{name} {number}")
            raise
        finally:
            writable.mend(made)
        assert children() == before
        assert list(tmp_path.iterdir()) == []
    record_property("ends", dict(ends))
    print(f"{name}: {dict(ends)}")
    assert ends.total() == len(NUMBERS)
    # Damage is noticed, and most of it costs no more than what it hit.
    assert ends["read"] + ends["read with errors"] > 0
    assert ends["read"] < len(NUMBERS)
    assert outcome(writable.export, tmp_path) == "read"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Path]:
    """A machine with one disk of each kind, and a last one that nobody damages."""
    at = tmp_path_factory.mktemp("machine")
    made = {name: build(at / f"{name}.img", root) for name, build in fuzz.IMAGES.items()}
    made |= {name: build(at / f"{name}.img") for name, build in fuzz.FOR_APPLIANCES.items()}
    return {**made, "whole": fuzz.ext(at / "whole.img", root, "ext3")}


@pytest.mark.timeout(600)
@pytest.mark.requires("module:guestfs", "mkfs.xfs", "mkfs.btrfs")
@pytest.mark.parametrize("number", range(2))
def test_an_appliance_survives_a_machine_of_damaged_disks(
    disks: dict[str, Path], root: Path, tmp_path: Path, number: int
) -> None:
    images = []
    for name, path in disks.items():
        damaged = tmp_path / path.name
        subprocess.run(["cp", "--sparse=always", path, damaged], check=True)
        content = path.read_bytes()
        hits = fuzz.damages(content, fuzz.structured(content, contents(root)), f"appliance {name} {number}")
        with damaged.open("r+b") as disk:
            for each in hits if name != "whole" else ():
                disk.seek(each.offset)
                disk.write(each.data)
        images.append(ImageToExport(name, "openers:file_image", {"path": str(damaged)}))
    before = children()
    with MountSession(images, libguestfs(accelerate=False), clock=SystemClock()) as session:
        place = session._export.directory
        *others, whole = sorted(session.volumes(), key=lambda v: v.type == "ext3")
        # Others' damage does not touch it.
        assert (whole.type, whole.problem) == ("ext3", None)
        assert read_all(session._filesystem, [whole], time.monotonic() + 240, 10)[0] > 150
        entries, errors = read_all(session._filesystem, others, time.monotonic() + 240, 10)
    print(f"{[(v.device, v.type, v.problem) for v in others]}: {entries} entries, {errors} errors")
    assert len(others) >= 4
    assert all(re.fullmatch(r"(btrfsvol:)?/dev/[\w./+-]+", volume.device) for volume in others)
    assert children() == before
    assert not place.exists()
